"""Pictures with labels: to classify, to probe, to fine-tune on.

Every source is one list of pictures of the same size with a class number for each. The last fifth of the list is for testing,
always the same one, so that a model that was trained yesterday is judged today by pictures it has never seen.
"""
import gzip
import math
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tinymae.images.pixels import resize_picture
from tinymae.images.sources import digits, load_images

SOURCES = (
    "'digits', 'openml:NAME', an IDX file of pictures (.gz) with its labels beside it, or an .npz file with 'images' and "
    "'labels'"
)
LARGEST = 64                    # pixels along the side of a picture to classify: larger ones are scaled down


class Labelled(NamedTuple):
    """Pictures, and what each of them shows."""

    images: np.ndarray          # uint8 (N, rows, cols, C)
    labels: np.ndarray          # int64 (N,), 0 .. classes - 1
    names: tuple                # of str, what the class numbers mean

    def split(self):
        """(train, test): the last fifth is for testing.

        Raises
        ------
        ValueError
            where the test part is all there is, or has a class that the rest never shows
        """
        apart = len(self.images) - math.ceil(len(self.images) / 5)
        parts = (slice(apart), slice(apart, None))
        train, test = (Labelled(self.images[part], self.labels[part], self.names) for part in parts)
        unseen = sorted(set(test.labels.tolist()) - set(train.labels.tolist()))
        if unseen:
            raise ValueError(
                f"the last fifth, which is for testing, has the class {self.names[unseen[0]]!r}, which the first four fifths "
                "never show: are the pictures sorted by class? Shuffle them, pictures and labels the same way"
            )
        return train, test


def load_labelled(data):
    """All the pictures of a source, with their labels.

    Parameters
    ----------
    data : str or path
        'digits': scikit-learn's 1797 handwritten digits, 8 x 8. 'openml:NAME': as `images.sources.load_images`, with the data
        set's target. An IDX file of pictures, as MNIST has them: train-images-idx3-ubyte(.gz) finds
        train-labels-idx1-ubyte(.gz) beside it. An .npz file with `images` and `labels` (N,), integers or strings.

    Returns
    -------
    Labelled

    Raises
    ------
    FileNotFoundError, OSError, TypeError
        as `images.sources.load_images`, and where there is no file of labels
    ValueError
        where there are no labels, not as many as pictures, or fewer than two classes; names the source
    """
    if not isinstance(data, (str, os.PathLike)):
        raise TypeError(f"data is a {type(data).__name__}; expected {SOURCES}")
    if data == "photos" or (data != "digits" and not str(data).startswith("openml:") and Path(data).is_dir()):
        raise ValueError(f"{data}: pictures without labels; expected {SOURCES}")
    pictures = load_images(data)
    values = _labels(data)
    if len(values) != len(pictures):
        raise ValueError(f"{data}: {len(pictures)} pictures, but {len(values)} labels")
    if len({picture.shape for picture in pictures}) > 1:
        raise ValueError(f"{data}: expected pictures of one size")
    values, labels = np.unique(values, return_inverse=True)
    if len(values) < 2:
        raise ValueError(f"{data}: expected at least two classes, got only {str(values[0])!r}")
    return Labelled(np.stack(pictures), labels.astype(np.int64), tuple(map(str, values)))


def _labels(data):
    """The labels of a source whose pictures have been read: (N,) integers or strings."""
    if data == "digits":
        return digits()[1]
    if str(data).startswith("openml:"):
        from sklearn.datasets import fetch_openml

        target = fetch_openml(str(data).removeprefix("openml:"), as_frame=False).target     # by now from scikit-learn's cache
        if target is None:
            raise ValueError(f"{data}: this data set names no target: it has pictures, but no labels")
        target = np.asarray(target)
        return _checked(target.astype(str) if target.dtype == object else target, data)
    path = Path(data)
    return _npz_labels(path) if path.suffix.lower() == ".npz" else _idx_labels(path)


def _npz_labels(path):
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "labels" not in archive.files:
                raise KeyError("labels")
            labels = archive["labels"]
    except KeyError:
        raise ValueError(f"{path}: no key 'labels'; expected 'images' and 'labels', one for each picture") from None
    except Exception as error:              # a damaged member: zip, zlib and NumPy each raise their own kind
        raise ValueError(f"{path}: its labels cannot be read ({error})") from error
    return _checked(labels, path)


def _checked(labels, source):
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise ValueError(
            f"{source}: labels of shape {labels.shape} and type {labels.dtype}; expected (N,) integers or strings, one for "
            "each picture: class numbers, not one-hot rows"
        )
    return labels


def _idx_labels(pictures):
    """Labels of an IDX file of pictures: 0, 0, 8, 1, their number in 4 bytes (big-endian), then one byte each."""
    name = pictures.name.replace("images", "labels").replace("idx3", "idx1")
    bare = name.removesuffix(".gz")
    found = [path for path in (pictures.with_name(name), pictures.with_name(bare), pictures.with_name(f"{bare}.gz"))
             if path.is_file() and path != pictures]
    if not found:
        raise FileNotFoundError(f"{pictures}: expected its labels beside it, in {name}")
    path = found[0]
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":             # by content: browsers unpack downloads and leave the name
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}: gzip file cut short or damaged ({error}); fetch it again") from error
    if data[:4] != b"\0\0\x08\x01":
        raise ValueError(f"{path}: starts with {data[:4].hex(' ') or 'nothing'}, an IDX file of labels with 00 00 08 01")
    count = int.from_bytes(data[4:8], "big")
    if len(data) != 8 + count:
        raise ValueError(f"{path}: the header says {count} labels, {8 + count} bytes in all; found {len(data)}")
    return np.frombuffer(data, np.uint8, offset=8)


def model_size(shape):
    """(side, patch): the square that small pictures are shown to a model as, cut into about eight patches along a side.

    Parameters
    ----------
    shape : (rows, cols, ...) of the pictures
    """
    side = min(*shape[:2], LARGEST)
    for patches in (8, 7, 6, 9, 10, 5, 12, 14, 16, 4):
        if side % patches == 0 and side >= 2 * patches:
            return side, side // patches
    side = max(8, side // 8 * 8)
    return side, max(2, side // 8)


def fit_pictures(images, size, channels):
    """Pictures as a model takes them: the central square, scaled to `size`, with so many channels.

    Parameters
    ----------
    images : ndarray uint8 (N, rows, cols, C)
    size, channels : int; grey becomes colour and colour grey, any other number of channels stays

    Returns
    -------
    ndarray uint8 (N, size, size, channels), the images themselves where they fit as they are

    Raises
    ------
    ValueError
        where the channels cannot be made to fit
    """
    have = images.shape[3]
    if have != channels and {have, channels} != {1, 3}:
        raise ValueError(f"expected pictures of {channels} channels, as the model was trained on, got {have}")
    if (have, channels) == (3, 1):
        images = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])[..., None]
    if images.shape[1:3] != (size, size):
        images = np.stack([resize_picture(image, size) for image in images])
    return np.repeat(images, 3, axis=3) if (have, channels) == (1, 3) else images
