"""Three fills of the removed pixels that learn nothing: what a masked autoencoder has to beat.

A reconstruction looks good on its own.  The honest question is how much better it is than what the visible pixels give
away for free:

    mean      each picture's average visible colour: the best constant, for squared error on those pixels
    nearest   the closest visible pixel: colour is smooth, so a neighbour is a good guess
    linear    a sheet stretched over the visible pixels, flat within each triangle of three of them

All three read the visible pixels only and leave them as they are.  Their error is measured on the removed
pixels alone, as the loss of MAE is (He et al. 2021, section 3).
"""
import numpy as np
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import distance_transform_edt


def removed_pixels(mask, rows, cols, patch_size):
    """The mask of an MAE, one number a patch, as one truth value a pixel.

    Parameters
    ----------
    mask : ndarray (B, N), 1 = removed, 0 = visible; patches in row-major order
    rows, cols : int, the size of the pictures
    patch_size : int, the side of a patch; divides rows and cols

    Returns
    -------
    removed : ndarray bool (B, rows, cols), True = removed

    Raises
    ------
    ValueError
        when the patches do not tile the picture, N is not their number, or mask holds other values than 0 and 1
    """
    if patch_size < 1 or rows % patch_size or cols % patch_size:
        raise ValueError(f"patches of {patch_size} x {patch_size} do not tile a picture of {rows} x {cols}")
    down, across = rows // patch_size, cols // patch_size
    if mask.ndim != 2 or mask.shape[1] != down * across:
        raise ValueError(f"mask has shape {mask.shape}; expected (B, {down * across}), one number for each of the "
                         f"{down} x {across} patches (is a class token counted?)")
    if not np.isin(mask, (0, 1)).all():
        raise ValueError("mask holds other values than 0 (visible) and 1 (removed); is it a list of patch indices?")
    grid = mask.astype(bool).reshape(len(mask), down, across)
    return grid.repeat(patch_size, axis=1).repeat(patch_size, axis=2)       # (B, rows, cols)


def mean_fill(images, removed):
    """Give removed pixels the mean of the picture's own visible pixels, channel by channel.

    Parameters
    ----------
    images : ndarray (B, rows, cols, C), float
    removed : ndarray bool (B, rows, cols), True = removed; see `removed_pixels`

    Returns
    -------
    filled : ndarray (B, rows, cols, C), dtype of images; visible pixels untouched

    Raises
    ------
    TypeError
        when images are not floats or removed is not boolean
    ValueError
        when shapes do not match, or a picture has no visible pixel
    """
    _check(images, removed)
    filled = images.copy()
    for picture, gone in zip(filled, removed, strict=True):
        picture[gone] = picture[~gone].mean(axis=0, dtype=np.float64)       # (C,)
    return filled


def nearest_fill(images, removed):
    """Give each removed pixel the value of the visible pixel nearest to it (Euclidean; of equals, any one).

    Parameters, returns and errors are those of `mean_fill`.
    """
    _check(images, removed)
    filled = images.copy()
    for picture, gone in zip(filled, removed, strict=True):
        _fill_nearest(picture, gone)
    return filled


def linear_fill(images, removed):
    """Interpolate removed pixels linearly between visible ones, on their Delaunay triangulation.

    Outside the convex hull of the visible pixels there is nothing to interpolate between, so the nearest one is taken;
    so it is for a whole picture whose visible pixels are fewer than three, or lie on one line.

    Parameters, returns and errors are those of `mean_fill`.

    Differs: on a pixel grid many triangulations are Delaunay (the four corners of a square lie on one circle); this is
    Qhull's choice.  Another choice moves values within those squares, not the visible pixels.
    """
    _check(images, removed)
    filled = images.copy()
    for picture, gone in zip(filled, removed, strict=True):
        points = np.argwhere(~gone)                             # (K, 2) row, col
        sheet = None if _on_one_line(points) else LinearNDInterpolator(points, picture[~gone])
        _fill_nearest(picture, gone)
        if sheet:
            values = sheet(np.argwhere(gone))                   # (removed, C), NaN outside the hull
            picture[gone] = np.where(np.isnan(values), picture[gone], values)
    return filled


def _fill_nearest(picture, gone):
    """Fill one picture (rows, cols, C) of ours in place."""
    row, col = distance_transform_edt(gone, return_distances=False, return_indices=True)    # each (rows, cols)
    picture[gone] = picture[row[gone], col[gone]]


def _on_one_line(points):
    """Whether integer points (K, 2), all different, lie on one line; up to two always do."""
    offsets = points - points[0]
    end = offsets[-1]
    return bool((offsets[:, 0] * end[1] == offsets[:, 1] * end[0]).all())  # the cross product with p_K - p_1; exact


def _check(images, removed):
    if images.dtype.kind != "f":
        raise TypeError(f"images are {images.dtype}; expected floats (to_pixels makes them)")
    if removed.dtype != bool:
        raise TypeError(f"removed is {removed.dtype}; expected bool, one value a pixel (removed_pixels makes it)")
    if images.ndim != 4 or removed.shape != images.shape[:3]:
        raise ValueError(f"images have shape {images.shape} and removed {removed.shape}; expected (B, rows, cols, C) "
                         "and (B, rows, cols)")
    blind = removed.all(axis=(1, 2))
    if blind.any():
        raise ValueError(f"picture {int(blind.argmax())} has no visible pixel: there is nothing to fill it from")
