"""Where images come from: data sets with a name, OpenML, folders and files, each with labels if it has any.

An *image* here is what a file holds: uint8 of shape (rows, cols, C), 0 black and 255 white, C = 1 (grey) or 3 (red, green,
blue); an .npz file may hold images of up to 16 bands, such as a satellite's, none of which is an opacity. `pixels.to_pixels`
makes *pixels* of it, the floats around 0 that a model takes.

    "digits", "openml:NAME", a path  --find_source-->  Source  --load()-->  list of images
                                                               --load_labels()-->  one label for each

Every source gives images of this one form, whatever its own convention: channel order, bit depth, transparency, a camera held
sideways. Nothing is guessed: a file that is cut short, or of another type than its name says, is an error that names the file,
because a wrong image trains a model just as quietly as a right one.
"""
import gzip
import importlib.util
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tinymae.files import never_downloaded
from tinymae.images.load import load_picture
from tinymae.messages import either, marked, translated
from tinymae.messages import message as _
from tinymae.packed import MOST_TIMES, check_npz, most_unpacked

PICTURE_SUFFIXES = (
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tga", ".tif", ".tiff", ".webp",
)
SET_FOLDERS = ("train", "training", "val", "valid", "validation", "test", "testing")        # parts of a data set, not classes
LONGEST_SIDE = 800              # pixels, of an image from a folder


@dataclass(frozen=True)
class Source:
    """How to load a data set, and how long a model trains on it if no length is given."""

    load: Callable[[], list[np.ndarray]]
    load_labels: Callable[[], np.ndarray] | None = None     # None: images without labels
    mae_minutes: float = 2.5
    vit_minutes: float = 9


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits, always shuffled in the same way: images uint8 (1797, 8, 8, 1), labels (1797,).

    In the file's own order the last fifth is by different writers than the rest, which makes it a harder test set.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)                         # 0..16 -> 0..255
    return images[order, ..., None], data.target[order]


def _photos():
    from skimage import data
    from sklearn.datasets import load_sample_images

    photos = [np.array(photo) for photo in load_sample_images().images]
    more = (
        data.astronaut(), data.rocket(), data.retina(), data.immunohistochemistry(), data.camera(), data.coins(), data.grass(),
        data.gravel(), data.brick(),
    )
    return photos + [_reduced(np.array(Image.fromarray(photo).convert("RGB"))) for photo in more]


SOURCES = {
    "photos": Source(_photos),
    "digits": Source(lambda: list(digits()[0]), lambda: digits()[1], mae_minutes=0.5, vit_minutes=1),
}
KNOWN_IMAGES = marked(
    "'photos', 'digits', 'openml:NAME', a folder of images, an IDX file (also .gz; EMNIST as 'transposed:FILE') or an .npz "
    "file with the key 'images'"
)
KNOWN_LABELLED = marked(
    "'digits', 'openml:NAME', a folder with a folder of images for each class, an IDX file of images (also .gz; EMNIST as "
    "'transposed:FILE') with its labels beside it, or an .npz file with the keys 'images' and 'labels'"
)


def find_source(data: str | os.PathLike) -> Source:
    """The source that a name or a path stands for; nothing is loaded yet.

    Parameters
    ----------
    data
        'photos': scikit-learn's two sample photos, a Chinese temple and a flower, and nine images of scikit-image. 'digits':
        scikit-learn's 1797 handwritten digits, 8 x 8. 'openml:NAME': a data set of square images from openml.org, such as
        'openml:mnist_784' or 'openml:CIFAR_10', with its target as labels; it is downloaded once, then kept by scikit-learn.
        Anything else is a path: a folder of images (in the order of their names; reduced to at most 800 pixels along the longer
        side, so that a thousand fit into memory); a folder of folders, whose names are the labels of the images in them (always
        shuffled in the same way); an IDX file, as MNIST has them, where train-images-idx3-ubyte(.gz) has its labels beside it
        in train-labels-idx1-ubyte(.gz), and 'transposed:FILE' for one of EMNIST's, with rows and columns exchanged; or an .npz
        file with `images` (N, rows, cols) or (N, rows, cols, C), uint8, and perhaps `labels` (N,) or (N, 1), integers or
        strings. A folder that is called digits is './digits'.

    Raises
    ------
    FileNotFoundError
        if `data` is neither a known name nor an existing path
    TypeError
        if `data` is neither a string nor a path
    ValueError
        if 'transposed:' stands before something else than an IDX file
    """
    if not isinstance(data, (str, os.PathLike)):
        raise TypeError(f"data is a {type(data).__name__}; expected one of {KNOWN_IMAGES}")
    if data in SOURCES:
        return SOURCES[data]
    if isinstance(data, str) and data.startswith("openml:"):
        name = data.removeprefix("openml:")
        return Source(partial(_openml, name), partial(_openml_labels, name))
    transposed = isinstance(data, str) and data.startswith("transposed:")
    path = Path(data.removeprefix("transposed:") if transposed else data)
    if not path.exists():
        raise FileNotFoundError(_("no file or folder {data!r}; known sources are {known}",
                                  data=str(data), known=translated(KNOWN_IMAGES)))
    if transposed and (path.is_dir() or path.suffix.lower() == ".npz"):
        raise ValueError(_("{data}: expected an IDX file after transposed:, as EMNIST has them, got a folder or an .npz file",
                           data=data))
    if path.is_dir():
        classes = any(file.parent != path for file in _pictures(path)[0])
        return Source(partial(_folder, path), partial(_folder_labels, path) if classes else None)
    if path.suffix.lower() == ".npz":
        return Source(partial(_npz, path), partial(_npz_labels, path))
    return Source(partial(_idx, path, transposed), partial(_idx_labels, path))


def load_images(data: str | os.PathLike) -> list[np.ndarray]:
    """All the images of a source.

    Parameters
    ----------
    data : as in `find_source`

    Returns
    -------
    images : list of ndarray uint8, each (rows, cols, C); C is 1 or 3, in an .npz file 1 to 16

    Raises
    ------
    FileNotFoundError, TypeError
        as `find_source`
    OSError
        if OpenML, the one source that needs the network, does not deliver
    ValueError
        if a file or data set is damaged, empty, or holds no images; the message names it
    """
    return find_source(data).load()


def _fetch(name):
    from sklearn.datasets import fetch_openml

    try:
        return fetch_openml(name, as_frame=False)
    except Exception as error:              # sockets, HTTP, checksums, parsers: each raises its own type
        raise OSError(_("could not get {name!r} from openml.org ({kind}: {error}). OpenML is the one source that needs the "
                        "network: check the connection, and the name on openml.org",
                        name=name, kind=type(error).__name__, error=error)) from error


def _openml(name):
    rows = _fetch(name).data
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind not in "uif" or not rows.size:
        raise ValueError(_("openml:{name} is not a dense table of numbers, one image in each row", name=name))
    in_range = rows.min() >= 0 and rows.max() <= 255            # False for NaN
    if not in_range or (rows.astype(np.uint8) != rows).any():
        raise ValueError(_("openml:{name} holds values from {least} to {most}; expected whole numbers 0..255",
                           name=name, least=rows.min(), most=rows.max()))
    pixels = rows.astype(np.uint8)
    width = rows.shape[1]
    channels = 3 if width % 3 == 0 and _is_square(width // 3) else 1        # never both: 3 is not a ratio of squares
    if not _is_square(width // channels):
        raise ValueError(_("openml:{name} has rows of {width} values; expected S*S (grey) or S*S*3 (colour), a square image "
                           "in each row", name=name, width=width))
    side = math.isqrt(width // channels)
    planes = pixels.reshape(-1, channels, side, side)             # all red, then all green, then all blue
    return list(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)))         # (N, rows, cols, C)


def _openml_labels(name):
    target = _fetch(name).target            # by now from scikit-learn's cache
    if target is None:
        raise ValueError(_("openml:{name}: this data set names no target: it has images, but no labels", name=name))
    target = np.asarray(target)
    return _checked(target.astype(str) if target.dtype == object else target, f"openml:{name}")


def _is_square(number):
    return math.isqrt(number) ** 2 == number


def _pictures(path):
    """(the images in a folder and its subfolders: by name, or, of classes, shuffled; its other files), without hidden ones."""
    files, others = [], []
    for file in sorted(path.rglob("*")):
        if file.is_file() and not _hidden(file.relative_to(path)):
            (files if file.suffix.lower() in PICTURE_SUFFIXES else others).append(file)
    if any(file.parent != path for file in files):
        files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    return files, others


def _hidden(path):
    """Whether a file is hidden, or of a system: ._a.jpg, .DS_Store, Thumbs.db."""
    return any(part.startswith(".") for part in path.parts) or path.name.lower() in ("thumbs.db", "desktop.ini")


def _folder(path):
    files, others = _pictures(path)
    if not files:
        raise ValueError(_("{path}: no images in this folder; expected names in {suffixes}",
                           path=path, suffixes=" ".join(PICTURE_SUFFIXES)))
    if others:
        first = ", ".join(str(file.relative_to(path)) for file in others[:3])
        warnings.warn(_("{path}: {count} files are skipped, whose names are not those of images: {first}",
                        path=path, count=len(others), first=first), stacklevel=2)
    return [_reduced(load_picture(file)) for file in files]


def _folder_labels(path):
    """The first folder below `path` that each image is in."""
    files = [file.relative_to(path) for file in _pictures(path)[0]]
    loose = [file for file in files if len(file.parts) == 1]
    if loose:
        raise ValueError(_("{path}: expected every image in a folder with the name of its class, {file} is in none",
                           path=path, file=loose[0]))
    names = sorted({file.parts[0] for file in files})
    if all(name.lower() in SET_FOLDERS for name in names):
        raise ValueError(_("{path}: has the parts {names} of a data set, not classes: give {folder}",
                           path=path, names=", ".join(names), folder=path / names[0]))
    return np.array([file.parts[0] for file in files])


def _reduced(image):
    """The image, no side above LONGEST_SIDE: a thousand of them fit into memory."""
    image = Image.fromarray(image)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return np.array(image)


def _idx(path, transposed=False):
    images = _idx_array(path)
    if images.ndim == 1:
        raise ValueError(_("{path}: an IDX file with one axis holds labels; images are in the file with 'images' in its name",
                           path=path))
    if images.dtype != np.uint8:
        raise ValueError(_("{path}: IDX values of type 0x0c, integers; expected 0x08, unsigned bytes, for images", path=path))
    if images.ndim not in (3, 4):
        raise ValueError(_("{path}: IDX array with {ndim} axes; expected 3 (N, rows, cols) or 4 (N, rows, cols, C)",
                           path=path, ndim=images.ndim))
    return _split(images.swapaxes(1, 2) if transposed else images, path, channels=(1, 3))


def _idx_labels(path):
    """The labels that lie beside an IDX file of images; of QMNIST's eight numbers, the first."""
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    bare = name.removesuffix(".gz")
    wide = bare.replace("idx1-ubyte", "idx2-int")
    names = (name, bare, f"{bare}.gz", wide, f"{wide}.gz")
    found = [file for file in map(path.with_name, names) if file.is_file() and file != path]
    if not found:
        raise FileNotFoundError(_("{path}: expected its labels beside it, in {name}", path=path, name=name))
    labels = _idx_array(found[0])
    if labels.ndim == 2 and labels.shape[1] == 8 and labels.dtype.itemsize == 4:
        labels = labels[:, 0].astype(np.int32)                  # big-endian in the file
    if labels.ndim > 2:
        raise ValueError(_("{path}: IDX array with {ndim} axes; expected labels, one axis (N,)",
                           path=found[0], ndim=labels.ndim))
    return _checked(labels, found[0])


def _idx_array(path):
    """IDX, the format of MNIST: 0, 0, type, ndim, then ndim sizes of 4 bytes (big-endian), then the values: bytes, or int32."""
    if wrong := never_downloaded(path):
        raise ValueError(_("{file}: {reason}", file=path, reason=wrong))
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"     # by content: browsers unpack downloads and leave the name
        raw.seek(0)
        if not packed:
            return _idx_values(path, raw, path.stat().st_size)
        try:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                return _idx_values(path, unpacked, None)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(_("{path}: gzip file cut short or damaged ({error}); fetch it again",
                               path=path, error=error)) from error


def _idx_values(path, file, size):
    """The array; size: of the file, None if it is packed. No more is read than the header says, and one byte."""
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise ValueError(_("{path}: starts with {head}, an IDX file with 00 00; expected one of {known} (a single "
                           "image: load_picture)", path=path, head=head.hex(' ') or 'nothing', known=translated(KNOWN_IMAGES)))
    code, ndim = head[2], head[3]
    if code not in (0x08, 0x0C):
        raise ValueError(_("{path}: IDX values of type 0x{code:02x}; expected 0x08, unsigned bytes, or 0x0c for labels",
                           path=path, code=code))
    dtype = np.dtype(np.uint8 if code == 0x08 else ">i4")
    start = 4 + 4 * ndim
    sizes = file.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise ValueError(_("{path}: cut short: {header} bytes, but the header alone takes {start}",
                           path=path, header=4 + len(sizes), start=start))
    shape = struct.unpack(f">{ndim}I", sizes)
    expected = start + math.prod(shape) * dtype.itemsize
    if size is None and expected > (most := most_unpacked(path)):
        raise ValueError(_("{path}: cut short, or all alike: the header says {shape}, {expected} bytes in all; expected at "
                           "most {most}, {times} times the packed file. If you trust it, unpack it first, with gunzip",
                           path=path, shape=shape, expected=expected, most=most, times=MOST_TIMES))
    data = file.read(expected - start + 1) if size in (None, expected) else b""
    found = start + len(data) if size is None else size
    if found != expected:
        fault = _("cut short") if found < expected else _("bytes are left over")
        found = _("{found} or more", found=found) if size is None and found > expected else found
        raise ValueError(_("{path}: {fault}: the header says {shape}, {expected} bytes in all; found {found}",
                           path=path, fault=fault, shape=shape, expected=expected, found=found))
    return np.frombuffer(data, dtype).reshape(shape)


def _npz(path):
    images = _npz_array(path, "images")
    if images.dtype != np.uint8:
        raise ValueError(_("{path}: images are {dtype}; expected uint8, 0..255. Floats from 0 to 1 are stored as (images * "
                           "255).round().astype(np.uint8)", path=path, dtype=images.dtype))
    if images.ndim not in (3, 4):
        raise ValueError(_("{path}: images have shape {shape}; expected (N, rows, cols) or (N, rows, cols, C)",
                           path=path, shape=images.shape))
    return _split(images, path, channels=range(1, 17))


def _npz_labels(path):
    return _checked(_npz_array(path, "labels"), path)


def _npz_array(path, key):
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            if wrong := never_downloaded(path):
                raise ValueError(_("{file}: {reason}", file=path, reason=wrong))
            raise ValueError(_("{path}: not an .npz archive, or cut short; np.savez(path, images=images) writes one",
                               path=path))
        file.seek(0)
        try:
            check_npz(path, key)
            archive = np.load(file, allow_pickle=False)
            array = archive[key] if key in archive.files else None
        except (EOFError, OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(_("{path}: its {key} cannot be read ({error})", path=path, key=key, error=error)) from error
    if array is None:
        raise ValueError(_("{path}: no key {key!r}; found {files}", path=path, key=key, files=archive.files))
    if not isinstance(array, np.ndarray):
        raise ValueError(_("{path}: its member {key!r} is not a NumPy array", path=path, key=key))
    return array


def _checked(labels, source):
    """The labels, (N,), also from a column (N, 1)."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise ValueError(_("{source}: labels of shape {shape} and type {dtype}; expected (N,) integers or strings, one for "
                           "each image: class numbers, not one-hot rows",
                           source=source, shape=labels.shape, dtype=labels.dtype))
    return labels


def _split(images, path, channels):
    """Cut (N, rows, cols) or (N, rows, cols, C) into a list of N images that belong to the caller."""
    if not images.size:
        raise ValueError(_("{path}: no images: shape {shape}", path=path, shape=images.shape))
    if images.ndim == 3:
        images = images[..., None]                              # (N, rows, cols, 1)
    if images.shape[3] not in channels:
        raise ValueError(_("{path}: shape {shape} has {channels} channels; expected {expected}, on the last axis (N, rows, "
                           "cols, C): PyTorch's order has them second",
                           path=path, shape=images.shape, channels=images.shape[3], expected=_listed(channels)))
    return list(images.copy())


def _listed(channels):
    return either(map(str, channels)) if len(channels) == 2 else _("{least} to {most}", least=channels[0], most=channels[-1])


def unseen_photo() -> np.ndarray:
    """A photo that no model of this project is trained on: Grace Hopper, from matplotlib's sample data.

    The file is found without importing matplotlib, which takes a second and is left to tinymae.plot.

    Returns
    -------
    image : ndarray uint8 (rows, cols, 3)

    Raises
    ------
    FileNotFoundError
        if matplotlib is not installed, or came without its sample data
    """
    spec = importlib.util.find_spec("matplotlib")
    folders = spec.submodule_search_locations if spec else []
    for folder in folders:
        path = Path(folder, "mpl-data", "sample_data", "grace_hopper.jpg")
        if path.exists():
            return load_picture(path)
    raise FileNotFoundError(_("mpl-data/sample_data/grace_hopper.jpg is not in matplotlib's folder (looked in {folders}); "
                              "some systems package matplotlib without its sample data, pip install matplotlib brings it",
                              folders=list(folders)))


def unseen_photos() -> dict[str, np.ndarray]:
    """Three photographs that no model of this project is trained on: {name: uint8 (rows, cols, 3)}.

    `unseen_photo`, and from scikit-image Chelsea the cat and a cup of coffee, both in the public domain (CC0).
    """
    from skimage import data

    return {"grace_hopper": unseen_photo(), "cat": data.chelsea(), "coffee": data.coffee()}
