"""One image: read it, resize it, turn it into pixels for a model, and back.

An *image* is uint8 of shape (rows, cols, C), 0 black and 255 white. *Pixels* are the same array as floats around 0, which is
what a model takes:

    (1)  pixels = (image / 255 - MEAN) / STD

Differs: the MAE code normalises each colour by its own ImageNet mean and standard deviation. Here one pair near the ImageNet
values serves all channels, so that (1) fits grey images too and undoing it needs no table.
"""
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

MEAN = 0.45                     # the average over the three ImageNet channel means is 0.449
MOST_MEGAPIXELS = 64            # of an image in memory: about 10 bytes for each pixel, until it is resized
STD = 0.25                      # ... and over their standard deviations 0.226; a power of two is exact in floating point


def load_picture(path: Path | str) -> np.ndarray:
    """One image file, in colour, as a viewer shows it.

    Transparent parts become white. The orientation that the camera recorded (EXIF) is applied. 16-bit grey is scaled by its
    bit depth, 65535 -> 255. Pillow's modes I (integers; a 16-bit PGM is read as one) and F (floats) have no fixed white, so
    their own smallest value becomes 0 and their largest 255; a constant image becomes 0. Of an animation, the first frame
    is read. A JPEG of more than MOST_MEGAPIXELS is read at half its width and height, unless it is progressive.

    Parameters
    ----------
    path : of any format that Pillow reads

    Returns
    -------
    image : ndarray uint8 (rows, cols, 3)

    Raises
    ------
    FileNotFoundError
        if there is no such file
    ValueError
        if the file is not an image, is cut short, has more than MOST_MEGAPIXELS (a JPEG: more than Pillow's limit against
        decompression bombs, 178), or holds floats that are not finite; the message names the file and the reason
    """
    picture = _decode(path)
    if picture.mode == "F" or picture.mode.startswith("I"):                 # I, I;16, I;16B ...
        grey = _deep_grey(np.asarray(picture), path)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _decode(path):
    """The file as a Pillow image, decoded to the last row, upright."""
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on and refuses from twice that: large photos are allowed, bombs are not.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                _limit(picture)
                picture.load()
                ImageOps.exif_transpose(picture, in_place=True)
                return picture
    except FileNotFoundError:
        raise
    except Exception as error:              # decoders raise OSError, SyntaxError, struct.error, IndexError, ...
        raise ValueError(f"{path}: cannot be read as an image ({type(error).__name__}: {error})") from error


def _limit(picture):
    """Have a large JPEG decoded at half its width and height. Raises a ValueError if an image stays too large."""
    width, height = picture.size
    if width * height > MOST_MEGAPIXELS * 1e6 and "progressive" not in picture.info:    # that one is decoded as a whole
        picture.draft(None, (width // 2, height // 2))          # does nothing to other formats
    if picture.width * picture.height > MOST_MEGAPIXELS * 1e6:
        raise ValueError(
            f"it has {width} x {height} pixels, {width * height / 1e6:.0f} million, expected at most {MOST_MEGAPIXELS}: make "
            "it smaller first, or save it as a JPEG that is not progressive"
        )


def _deep_grey(values, path):
    """uint8 (rows, cols) from the values of a grey image with more than 8 bits."""
    if values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)   # 65535 / 255 = 257; + 128 rounds
    values = values.astype(np.float64)      # our own array: in place from here
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: float image with values that are not finite; it cannot be scaled to 0..255")
    low, high = values.min(), values.max()
    scale = 255 / (high - low) if high > low else 0.0
    values -= low
    values *= scale
    return np.rint(values, out=values).astype(np.uint8)


def resize_picture(picture: np.ndarray, size: int) -> np.ndarray:
    """The central square of an image, scaled to size x size; an image of this size comes back as a copy.

    The filter is Lanczos with its window widened to the shrinking factor: every pixel of the square counts, and fine texture
    becomes grey, not a false pattern.

    Parameters
    ----------
    picture : ndarray uint8 (rows, cols, C), any C from 1 up: each band is scaled by itself
    size : at least 1

    Returns
    -------
    resized : ndarray uint8 (size, size, C)

    Raises
    ------
    TypeError
        if the image is not uint8
    ValueError
        if its shape or the size does not fit

    Differs: the MAE code evaluates with bicubic scaling to a larger image, then a central crop; here the whole square is used.
    """
    _check_bytes(picture)
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1")
    if picture.ndim != 3 or not picture.size:
        raise ValueError(f"image has shape {picture.shape}; expected (rows, cols, C), each at least 1")
    if picture.shape[:2] == (size, size):
        return picture.copy()
    rows, cols, _ = picture.shape
    side = min(rows, cols)
    top, left = (rows - side) // 2, (cols - side) // 2
    square = picture[top:top + side, left:left + side]
    return by_band(square, lambda image: image.resize((size, size), Image.Resampling.LANCZOS))


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
    _check_bytes(pictures)
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
        raise ValueError(f"{np.count_nonzero(~np.isfinite(pixels))} of {pixels.size} pixels are NaN or infinite; "
                         "a model that outputs them has diverged (try a smaller learning rate)")
    mean, std = (np.asarray(value, pixels.dtype) for value in (mean, std))
    light = np.clip(pixels, -mean / std, (1 - mean) / std)      # before scaling: a huge float cannot overflow
    light *= std
    light += mean                                               # 0..1
    light *= 255
    return np.rint(light).astype(np.uint8)


def _check_bytes(pictures):
    if pictures.dtype != np.uint8:
        raise TypeError(f"images are {pictures.dtype}; expected uint8, 0..255 (to_picture makes bytes of floats)")
