"""Ways to fill removed pixels without learning: the baselines of a masked autoencoder.

A reconstruction can look good by itself. The question is how much better it is than what follows from the visible pixels
without any model:

    mean      the image's average visible colour: the best constant, for squared error on those pixels
    nearest   the closest visible pixel: colour is smooth, so a neighbour is a good guess
    linear    linear interpolation between visible pixels, within triangles of three of them
    biharmonic    the smoothest surface through the visible pixels, as a bent sheet of metal would be

`images.harmonic` has one more, a stretched membrane, which needs NumPy alone. All read only the visible pixels and leave them
unchanged. Their error is measured on the removed pixels alone, as the loss of MAE is (He et al. 2021, section 3).
"""
import numpy as np
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import distance_transform_edt

from tinymae.images.harmonic import check_fill


def removed_pixels(mask: np.ndarray, rows: int, cols: int, patch_size: int) -> np.ndarray:
    """The mask of an MAE, one number for each patch, as one boolean for each pixel.

    Parameters
    ----------
    mask : ndarray (B, N), 1 = removed, 0 = visible; patches in row-major order
    rows, cols : the size of the images
    patch_size : the side of a patch; divides rows and cols

    Returns
    -------
    removed : ndarray bool (B, rows, cols), True = removed

    Raises
    ------
    ValueError
        if the patches do not tile the image, N is not their number, or mask holds values that are not 0 or 1
    """
    if patch_size < 1 or rows % patch_size or cols % patch_size:
        raise ValueError(f"patches of {patch_size} x {patch_size} do not tile an image of {rows} x {cols}")
    down, across = rows // patch_size, cols // patch_size
    if mask.ndim != 2 or mask.shape[1] != down * across:
        raise ValueError(f"mask has shape {mask.shape}; expected (B, {down * across}), one number for each of the "
                         f"{down} x {across} patches (is a class token counted?)")
    if not np.isin(mask, (0, 1)).all():
        raise ValueError("mask holds values that are not 0 (visible) or 1 (removed); is it a list of patch indices?")
    grid = mask.astype(bool).reshape(len(mask), down, across)
    return grid.repeat(patch_size, axis=1).repeat(patch_size, axis=2)       # (B, rows, cols)


def mean_fill(images: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Give removed pixels the mean of the image's own visible pixels, channel by channel.

    Parameters
    ----------
    images : ndarray (B, rows, cols, C), float
    removed : ndarray bool (B, rows, cols), True = removed; see `removed_pixels`

    Returns
    -------
    filled : ndarray (B, rows, cols, C), dtype of images; visible pixels unchanged

    Raises
    ------
    TypeError
        if images are not floats or removed is not boolean
    ValueError
        if shapes do not match, or an image has no visible pixel
    """
    check_fill(images, removed)
    filled = images.copy()
    for image, hidden in zip(filled, removed, strict=True):
        image[hidden] = image[~hidden].mean(axis=0, dtype=np.float64)           # (C,)
    return filled


def nearest_fill(images: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Give each removed pixel the value of the nearest visible pixel (Euclidean distance; any one of several nearest).

    Parameters, returns and errors are those of `mean_fill`.
    """
    check_fill(images, removed)
    filled = images.copy()
    for image, hidden in zip(filled, removed, strict=True):
        _fill_nearest(image, hidden)
    return filled


def linear_fill(images: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Interpolate removed pixels linearly between visible ones, on their Delaunay triangulation.

    Outside the convex hull of the visible pixels there is nothing to interpolate between, so the nearest one is taken. So it
    is for a whole image with fewer than three visible pixels, or with all of them on one line.

    Parameters, returns and errors are those of `mean_fill`.

    Differs: on a pixel grid many triangulations are Delaunay (the four corners of a square lie on one circle); this one is
    Qhull's. A different one changes values within those squares, not the visible pixels.
    """
    check_fill(images, removed)
    filled = images.copy()
    for image, hidden in zip(filled, removed, strict=True):
        points = np.argwhere(~hidden)                           # (K, 2) row, col
        sheet = None if _on_one_line(points) else LinearNDInterpolator(points, image[~hidden])
        _fill_nearest(image, hidden)
        if sheet:
            values = sheet(np.argwhere(hidden))                 # (removed, C), NaN outside the hull
            image[hidden] = np.where(np.isnan(values), image[hidden], values)
    return filled


def biharmonic_fill(images: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Continue the visible pixels as smoothly as possible: the biharmonic equation, solved by scikit-image.

    Parameters, returns and errors are those of `mean_fill`. The surface is cut off at the least and the largest visible value.
    """
    from skimage.restoration import inpaint_biharmonic

    check_fill(images, removed)
    filled = images.copy()
    for image, hidden in zip(filled, removed.copy(), strict=True):      # scikit-image writes into its mask
        image[hidden] = inpaint_biharmonic(np.where(hidden[..., None], 0, image), hidden, channel_axis=-1)[hidden]
    return filled


def _fill_nearest(image, hidden):
    """Fill one image (rows, cols, C) in place: a copy that `nearest_fill` or `linear_fill` made."""
    row, col = distance_transform_edt(hidden, return_distances=False, return_indices=True)    # each (rows, cols)
    image[hidden] = image[row[hidden], col[hidden]]


def _on_one_line(points):
    """Whether integer points (K, 2), all different, lie on one line; up to two always do."""
    offsets = points - points[0]
    end = offsets[-1]
    return bool((offsets[:, 0] * end[1] == offsets[:, 1] * end[0]).all())  # the cross product with p_K - p_1; exact
