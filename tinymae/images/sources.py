"""Pictures: where they come from, and the two forms they take.

A *picture* is what a file holds: uint8 of shape (rows, cols, C), 0 black and 255 white, C = 1 (grey) or 3
(red, green, blue).  *Pixels* are what a model sees: the same array as floats around 0,

    (1)  pixels = (picture / 255 - MEAN) / STD

Every source ends as a picture, whatever the file's own convention was: channel order, bit depth, transparency, the
camera held sideways.  Nothing is guessed: a file that is cut short, or of another kind than its name says, is an error
that names the file, because a wrong picture trains a model just as quietly as a right one.

Differs: the MAE code normalises each colour by its own ImageNet mean and deviation; (1) has one pair for all channels,
near the ImageNet values, so that it fits grey pictures too and undoing it needs no table.
"""
import gzip
import importlib.util
import math
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tinymae.images.pixels import load_picture

PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LARGEST = 800                   # pixels along the longer side of a picture from a folder
SOURCES = ("'photos', 'digits', 'openml:NAME', a folder of pictures, an IDX file (also .gz) "
           "or an .npz file with the key 'images'")


def load_images(source):
    """All the pictures of a source.

    Parameters
    ----------
    source : str or path
        'photos': scikit-learn's two sample photos, a Chinese temple and a flower.  'digits': scikit-learn's 1797
        handwritten digits, 8 x 8.  'openml:NAME': a data set of square pictures from openml.org, such as
        'openml:mnist_784' or 'openml:CIFAR_10'; it is downloaded once, then kept by scikit-learn.  Anything else is a
        path: a folder of pictures (in the order of their names, without its subfolders; reduced to at most 800 pixels
        along the longer side, so that a thousand fit into memory), an IDX file as MNIST has them, or an .npz file with
        `images` (N, rows, cols) or (N, rows, cols, C), uint8.  A folder that is called digits is './digits'.

    Returns
    -------
    pictures : list of ndarray uint8, each (rows, cols, C); C is 1 or 3, in an .npz file 1 to 16

    Raises
    ------
    FileNotFoundError
        when the path does not exist
    OSError
        when OpenML, the one source that needs the network, does not deliver
    TypeError
        when `source` is neither a string nor a path
    ValueError
        naming the file or data set that is damaged, empty, or not made of pictures
    """
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"source is a {type(source).__name__}; expected one of {SOURCES}")
    if source == "photos":
        return _sklearn_photos()
    if source == "digits":
        return list(digits()[0])
    if isinstance(source, str) and source.startswith("openml:"):
        return _openml(source.removeprefix("openml:"))
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {str(source)!r}; known sources are {SOURCES}")
    if path.suffix.lower() == ".npz":
        return _npz(path)
    return _idx(path)


def _sklearn_photos():
    from sklearn.datasets import load_sample_images

    return [np.array(photo) for photo in load_sample_images().images]


def digits():
    """scikit-learn's handwritten digits, shuffled once and for all: pictures uint8 (1797, 8, 8, 1), and what they show (1797,).

    In the file's own order the last fifth is by other writers than the rest, which asks a model that is judged by it for more.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)                         # 0..16 -> 0..255
    return images[order, ..., None], data.target[order]


def _openml(name):
    from sklearn.datasets import fetch_openml

    try:
        rows = fetch_openml(name, as_frame=False).data
    except Exception as error:              # sockets, HTTP, checksums, parsers: each raises its own kind
        raise OSError(f"could not get {name!r} from openml.org ({type(error).__name__}: {error}). OpenML is the one "
                      f"source that needs the network: check the connection, and the name on openml.org") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind not in "uif" or not rows.size:
        raise ValueError(f"openml:{name} is not a dense table of numbers, one picture a row")
    in_range = rows.min() >= 0 and rows.max() <= 255            # False for NaN
    if not in_range or (rows.astype(np.uint8) != rows).any():
        raise ValueError(f"openml:{name} holds values from {rows.min()} to {rows.max()}; expected whole numbers 0..255")
    pixels = rows.astype(np.uint8)
    width = rows.shape[1]
    channels = 3 if width % 3 == 0 and _is_square(width // 3) else 1        # never both: 3 is not a ratio of squares
    if not _is_square(width // channels):
        raise ValueError(f"openml:{name} has rows of {width} values; expected S*S (grey) or S*S*3 (colour), "
                         "a square picture a row")
    side = math.isqrt(width // channels)
    planes = pixels.reshape(-1, channels, side, side)             # all red, then all green, then all blue
    return list(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)))         # (N, rows, cols, C)


def _is_square(number):
    return math.isqrt(number) ** 2 == number


def _folder(path):
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file())
    if not files:
        raise ValueError(f"{path}: no pictures in this folder; looked for {' '.join(PICTURE_SUFFIXES)}, "
                         "not in subfolders")
    return [_reduced(load_picture(file)) for file in files]


def _reduced(picture):
    """The picture, no side above LARGEST: a thousand of them fit into memory."""
    image = Image.fromarray(picture)
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return np.array(image)


def _idx(path):
    """IDX, the format of MNIST: 0, 0, type, ndim, then ndim sizes of 4 bytes (big-endian), then the values."""
    data = _unpacked_bytes(path)
    if len(data) < 4 or data[:2] != b"\0\0":
        raise ValueError(f"{path}: starts with {data[:4].hex(' ') or 'nothing'}, an IDX file with 00 00; expected one "
                         f"of {SOURCES} (one picture alone: load_picture)")
    kind, ndim = data[2], data[3]
    if kind != 0x08:
        raise ValueError(f"{path}: IDX values of type 0x{kind:02x}; pictures are unsigned bytes, 0x08")
    if ndim == 1:
        raise ValueError(f"{path}: an IDX file with one axis holds labels; the pictures are in the file with 'images' "
                         "in its name")
    if ndim not in (3, 4):
        raise ValueError(f"{path}: IDX array with {ndim} axes; expected 3 (N, rows, cols) or 4 (N, rows, cols, C)")
    start = 4 + 4 * ndim
    if len(data) < start:
        raise ValueError(f"{path}: cut short: {len(data)} bytes, but the header alone takes {start}")
    shape = struct.unpack(f">{ndim}I", data[4:start])
    expected = start + math.prod(shape)
    if len(data) != expected:
        fault = "cut short" if len(data) < expected else "bytes are left over"
        raise ValueError(f"{path}: {fault}: the header says {shape}, {expected} bytes in all; found {len(data)}")
    images = np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    return _split(images, path, channels=(1, 3))


def _unpacked_bytes(path):
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":             # by content: browsers unpack downloads and leave the name
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: gzip file cut short or damaged ({error}); fetch it again") from error


def _npz(path):
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: not an .npz archive, or cut short; np.savez(path, images=images) writes one")
        file.seek(0)
        try:
            archive = np.load(file, allow_pickle=False)
            images = archive["images"] if "images" in archive.files else None
        except (EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path}: cannot be read ({error})") from error
    if images is None:
        raise ValueError(f"{path}: no key 'images'; found {archive.files}")
    if not isinstance(images, np.ndarray):
        raise ValueError(f"{path}: its member 'images' is not a NumPy array")
    if images.dtype != np.uint8:
        raise ValueError(f"{path}: images are {images.dtype}; expected uint8, 0..255. Floats from 0 to 1 are stored as "
                         "(images * 255).round().astype(np.uint8)")
    if images.ndim not in (3, 4):
        raise ValueError(f"{path}: images have shape {images.shape}; expected (N, rows, cols) or (N, rows, cols, C)")
    return _split(images, path, channels=range(1, 17))


def _split(images, path, channels):
    """Cut (N, rows, cols) or (N, rows, cols, C) into a list of N pictures that belong to the caller."""
    if not images.size:
        raise ValueError(f"{path}: no pictures: shape {images.shape}")
    if images.ndim == 3:
        images = images[..., None]                              # (N, rows, cols, 1)
    if images.shape[3] not in channels:
        raise ValueError(f"{path}: shape {images.shape} has {images.shape[3]} channels; expected {_listed(channels)}, "
                         "on the last axis (N, rows, cols, C): PyTorch's order has them second")
    return list(images.copy())


def _listed(channels):
    return f"{channels[0]} or {channels[1]}" if len(channels) == 2 else f"{channels[0]} to {channels[-1]}"


def unseen_photo():
    """A photo that no model here was trained on: Grace Hopper, from matplotlib's sample data.

    The file is found without importing matplotlib, which takes a second and which only plot.py does.

    Returns
    -------
    picture : ndarray uint8 (rows, cols, 3)

    Raises
    ------
    FileNotFoundError
        when matplotlib is not installed, or came without its sample data
    """
    spec = importlib.util.find_spec("matplotlib")
    folders = spec.submodule_search_locations if spec else []
    for folder in folders:
        path = Path(folder, "mpl-data", "sample_data", "grace_hopper.jpg")
        if path.exists():
            return load_picture(path)
    raise FileNotFoundError("mpl-data/sample_data/grace_hopper.jpg is not in matplotlib's folder (looked in "
                            f"{list(folders)}); some systems package matplotlib without its sample data, "
                            "pip install matplotlib brings it")
