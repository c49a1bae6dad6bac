"""Scale an image to a size, with Pillow's filters."""
from collections.abc import Callable

import numpy as np
from PIL import Image

from tinymae.images.pixels import check_bytes
from tinymae.ops.patches import image_sides


def resize_picture(
    picture: np.ndarray, size: int | tuple[int, int], resample: Image.Resampling = Image.Resampling.LANCZOS
) -> np.ndarray:
    """The centre of an image, scaled to a square or a rectangle; an image of this size comes back as a copy.

    What is cut off, on two sides at most, is what the new shape cannot show without squeezing the image. The window of Lanczos,
    the default, is widened to the shrinking factor: every pixel that is left counts, and fine texture becomes grey, not a false
    pattern.

    Parameters
    ----------
    picture : ndarray uint8 (rows, cols, C), any C from 1 up: each band is scaled by itself
    size : side of the square, or (rows, cols); each at least 1
    resample : Pillow's filter

    Returns
    -------
    resized : ndarray uint8 (rows, cols, C) of this size

    Raises
    ------
    TypeError
        if the image is not uint8
    ValueError
        if its shape or the size does not fit

    Differs: the MAE code evaluates with bicubic scaling to a larger image, then a central crop; here the centre is used whole.
    """
    check_bytes(picture)
    new = image_sides(size)
    if picture.ndim != 3 or not picture.size:
        raise ValueError(f"image has shape {picture.shape}; expected (rows, cols, C), each at least 1")
    if picture.shape[:2] == new:
        return picture.copy()
    rows, cols, _ = picture.shape
    scale = min(rows / new[0], cols / new[1])
    down, across = (max(1, round(side * scale)) for side in new)
    top, left = (rows - down) // 2, (cols - across) // 2
    part = picture[top:top + down, left:left + across]
    return by_band(part, lambda image: image.resize(new[::-1], resample))


def by_band(picture: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """What `change` makes of an image: of red, green and blue together, of any other number of bands one at a time.

    Pillow takes two bands for grey and opacity, four for colour and opacity, and multiplies the one by the other; it has no
    images of more. So each band becomes a grey image.

    Parameters
    ----------
    picture : ndarray uint8 (rows, cols, C), any C
    change : from a Pillow image, grey or RGB, to one of the same mode and any size; it has to treat each band alone

    Returns
    -------
    ndarray uint8 (rows, cols, C) of the new size, fresh
    """
    if picture.shape[2] == 3:
        return np.array(change(Image.fromarray(picture)))
    return np.stack([np.asarray(change(Image.fromarray(band))) for band in np.moveaxis(picture, 2, 0)], axis=2)
