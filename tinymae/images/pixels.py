"""Turn an image into pixels for a model, and back.

An *image* is uint8 of shape (rows, cols, C), 0 black and 255 white. *Pixels* are the same array as floats around 0, which is
what a model takes:

    (1)  pixels = (image / 255 - MEAN) / STD

Differs: the MAE code normalises each colour by its own ImageNet mean and standard deviation. Here one pair near the ImageNet
values serves all channels, so that (1) fits grey images too and undoing it needs no table.
"""
import numpy as np

from tinymae.messages import message as _

MEAN = 0.45                     # the average over the three ImageNet channel means is 0.449
STD = 0.25                      # ... and over their standard deviations 0.226; a power of two is exact in floating point


def to_pixels(
    pictures: np.ndarray, dtype: np.dtype | type = np.float32, mean: float | np.ndarray = MEAN, std: float | np.ndarray = STD,
) -> np.ndarray:
    """Bytes to the floats that a model takes: equation (1).

    Parameters
    ----------
    pictures : ndarray uint8, any shape
    dtype : float32 or float64
    mean, std : numbers, or ndarrays of shape (C,) for published models

    Returns
    -------
    pixels : ndarray of the same shape, from -1.8 (black) to 2.2 (white)

    Raises
    ------
    TypeError
        if pictures are not uint8, or dtype is neither float32 nor float64
    """
    check_bytes(pictures)
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"dtype is {np.dtype(dtype)}; expected float32 or float64")
    pixels = pictures.astype(dtype)         # our own array: in place from here
    pixels /= 255
    pixels -= mean
    pixels /= std
    return pixels


def to_picture(pixels: np.ndarray, mean: float | np.ndarray = MEAN, std: float | np.ndarray = STD) -> np.ndarray:
    """The inverse of `to_pixels`: floats to bytes; values outside black and white are clipped.

    Parameters
    ----------
    pixels : ndarray of floats, any shape
    mean, std : those of `to_pixels`

    Returns
    -------
    pictures : ndarray uint8 of the same shape; exactly the bytes that `to_pixels` was given

    Raises
    ------
    TypeError
        if pixels are not floats
    ValueError
        if a pixel is NaN or infinite
    """
    if pixels.dtype.kind != "f":
        raise TypeError(f"pixels are {pixels.dtype}; expected floats, as to_pixels or a model returns them")
    if not np.isfinite(pixels).all():
        raise ValueError(_("{count} of {size} pixels are NaN or infinite; a model that outputs them has diverged (try a "
                           "smaller learning rate)", count=np.count_nonzero(~np.isfinite(pixels)), size=pixels.size))
    mean, std = (np.asarray(value, pixels.dtype) for value in (mean, std))
    light = np.clip(pixels, -mean / std, (1 - mean) / std)      # before scaling: a huge float cannot overflow
    light *= std
    light += mean                                               # 0..1
    light *= 255
    return np.rint(light).astype(np.uint8)


def check_bytes(pictures: np.ndarray) -> None:
    """Raise a TypeError unless images are uint8."""
    if pictures.dtype != np.uint8:
        raise TypeError(f"images are {pictures.dtype}; expected uint8, 0..255 (to_picture makes bytes of floats)")
