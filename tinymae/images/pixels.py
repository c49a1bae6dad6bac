"""One image: read, resize, and turn into pixels for a model and back."""
import warnings

import numpy as np
from PIL import Image, ImageOps

MEAN = 0.45                     # the average over the three ImageNet channel means is 0.449
STD = 0.25                      # ... and over their deviations 0.226; a power of two is exact in floating point


def load_picture(path):
    """One picture file, in colour, the way a viewer shows it.

    Transparent parts lie on white.  The orientation that the camera noted (EXIF) is applied.  16-bit grey is scaled by
    its bit depth, 65535 -> 255.  Pillow's modes I (integers; a 16-bit PGM comes as one) and F (floats) have no fixed
    white, so their own smallest value becomes 0 and their largest 255; one flat value becomes 0.  Of an animation, the
    first frame.

    Parameters
    ----------
    path : str or path, of any format that Pillow reads

    Returns
    -------
    picture : ndarray uint8 (rows, cols, 3)

    Raises
    ------
    FileNotFoundError
        when there is no such file
    ValueError
        naming the file and the reason: not a picture, cut short, too large to be honest (Pillow's limit against
        decompression bombs), or floats that are not finite
    """
    picture = _decode(path)
    if picture.mode == "F" or picture.mode.startswith("I"):                 # I, I;16, I;16B ...
        grey = _deep_grey(np.asarray(picture), path)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.array(picture.convert("RGB"))


def _decode(path):
    """The file as a Pillow image, decoded to the last row, upright."""
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on and refuses from twice that: large photos are fine, bombs are not.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.load()
                return ImageOps.exif_transpose(picture)
    except FileNotFoundError:
        raise
    except Exception as error:              # decoders raise OSError, SyntaxError, struct.error, IndexError, ...
        raise ValueError(f"{path}: cannot be read as a picture ({type(error).__name__}: {error})") from error


def _deep_grey(values, path):
    """uint8 (rows, cols) from the values of a grey picture with more than 8 bits."""
    if values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)   # 65535 / 255 = 257; + 128 rounds
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: float picture with values that are not finite; it cannot be scaled to 0..255")
    low, high = values.min(), values.max()
    scale = 255 / (high - low) if high > low else 0.0
    return np.rint((values - low) * scale).astype(np.uint8)


def resize_picture(picture, size):
    """The central square of a picture, scaled to size x size.

    Lanczos with its window widened to the shrinking factor, so every pixel of the square counts and fine texture turns
    grey instead of into false patterns.

    Parameters
    ----------
    picture : ndarray uint8 (rows, cols, C), C 1 or 3
    size : int, at least 1

    Returns
    -------
    resized : ndarray uint8 (size, size, C)

    Raises
    ------
    TypeError
        when the picture is not uint8
    ValueError
        when its shape or the size does not fit

    Differs: the MAE code evaluates with bicubic scaling to a larger picture, then a central crop; here nothing of the
    square is cut off.
    """
    _check_bytes(picture)
    if picture.ndim != 3 or picture.shape[2] not in (1, 3) or not picture.size:
        raise ValueError(f"picture has shape {picture.shape}; expected (rows, cols, C), C 1 or 3")
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1")
    rows, cols, channels = picture.shape
    side = min(rows, cols)
    top, left = (rows - side) // 2, (cols - side) // 2
    square = picture[top:top + side, left:left + side]
    image = Image.fromarray(square[..., 0] if channels == 1 else square)    # Pillow's grey has no channel axis
    resized = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.array(resized).reshape(size, size, channels)


def to_pixels(pictures, dtype=np.float32, mean=MEAN, std=STD):
    """Bytes to the floats that a model sees: equation (1).

    Parameters
    ----------
    pictures : ndarray uint8, any shape
    dtype : float32 or float64
    mean, std : float, or ndarrays of shape (C,), for models of others

    Returns
    -------
    pixels : ndarray of the same shape, from -1.8 (black) to 2.2 (white)

    Raises
    ------
    TypeError
        when pictures are not uint8, or dtype is neither float32 nor float64
    """
    _check_bytes(pictures)
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"dtype is {np.dtype(dtype)}; expected float32 or float64")
    pixels = pictures.astype(dtype)         # our own array: in place from here
    pixels /= 255
    pixels -= mean
    pixels /= std
    return pixels


def to_picture(pixels, mean=MEAN, std=STD):
    """The inverse of `to_pixels`: floats to bytes, and what lies outside black and white is clipped.

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
        when pixels are not floats
    ValueError
        when a pixel is NaN or infinite
    """
    if pixels.dtype.kind != "f":
        raise TypeError(f"pixels are {pixels.dtype}; expected floats, as to_pixels or a model gives them")
    if not np.isfinite(pixels).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(pixels))} of {pixels.size} pixels are NaN or infinite; "
                         "a model that gives them has diverged (try a smaller learning rate)")
    mean, std = (np.asarray(value, pixels.dtype) for value in (mean, std))
    light = np.clip(pixels, -mean / std, (1 - mean) / std)      # before scaling: a huge float cannot overflow
    light *= std
    light += mean                                               # 0..1
    light *= 255
    return np.rint(light).astype(np.uint8)


def _check_bytes(pictures):
    if pictures.dtype != np.uint8:
        raise TypeError(f"pictures are {pictures.dtype}; expected uint8, 0..255 (floats come back with to_picture)")
