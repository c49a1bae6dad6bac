"""Labelled images: to classify, to probe, to fine-tune on.

A labelled data set is one list of images of the same size with a class number for each. The last fifth of the list is the test
set. It is always the same one, so a model is never tested on its training images, whenever the test is run.
"""
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tinymae.images.resize import resize_picture
from tinymae.images.sources import KNOWN_LABELLED, find_source
from tinymae.messages import message as _
from tinymae.messages import translated
from tinymae.ops.patches import image_sides

LARGEST_SIDE = 64               # pixels, of an image to classify: larger ones are scaled down
LARGEST_SQUARE = 256            # pixels, of images that came in different sizes


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images, and the class of each of them."""

    images: np.ndarray          # uint8 (N, rows, cols, C)
    labels: np.ndarray          # int64 (N,), 0 .. classes - 1
    names: tuple[str, ...]      # what the class numbers mean

    def split(self) -> tuple["Labelled", "Labelled"]:
        """(train, test): the last fifth is for testing.

        Raises
        ------
        ValueError
            if the test set is all there is, or has a class that is not in the training set
        """
        start = len(self.images) - math.ceil(len(self.images) / 5)
        parts = (slice(start), slice(start, None))
        train, test = (Labelled(self.images[part], self.labels[part], self.names) for part in parts)
        missing = sorted(set(test.labels.tolist()) - set(train.labels.tolist()))
        if missing:
            raise ValueError(_("the last fifth, which is for testing, has the class {name!r}, which is not in the first four "
                               "fifths: are the images sorted by class? Shuffle images and labels in the same way",
                               name=self.names[missing[0]]))
        return train, test


def load_labelled(data: str | os.PathLike) -> Labelled:
    """All the images of a source, with their labels.

    Parameters
    ----------
    data : as in `images.sources.find_source`, except 'photos' and folders without folders in them, which have no labels. Images
        of different sizes are scaled to one square: of the centre of each, with the shortest side that any of them has, at most
        LARGEST_SQUARE

    Raises
    ------
    FileNotFoundError, OSError, TypeError
        as `images.sources.load_images`; FileNotFoundError also if there is no file of labels
    ValueError
        if there are no labels, not as many as images, or fewer than two classes; the message names the source
    """
    source = find_source(data)
    if source.load_labels is None:
        raise ValueError(_("{data}: images without labels; expected {known}",
                           data=data, known=translated(KNOWN_LABELLED)))
    images, values = source.load(), source.load_labels()
    if len(values) != len(images):
        raise ValueError(_("{data}: {count} images, but {labels} labels", data=data, count=len(images), labels=len(values)))
    if len({image.shape for image in images}) > 1:
        side = min(LARGEST_SQUARE, min(min(image.shape[:2]) for image in images))
        warnings.warn(_("{data}: images of several sizes: the centre of each is scaled to {side} x {side} pixels",
                        data=data, side=side), stacklevel=2)
        images = [resize_picture(image, side) for image in images]
    values, labels = np.unique(values, return_inverse=True)
    if len(values) < 2:
        raise ValueError(_("{data}: expected at least two classes, got only {name!r}", data=data, name=str(values[0])))
    return Labelled(np.stack(images), labels.astype(np.int64), tuple(map(str, values)))


def model_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """(side, patch): the square that small images are scaled to, and the patch that cuts it into about eight along a side.

    Parameters
    ----------
    shape : (rows, cols, ...) of the images
    """
    side = min(*shape[:2], LARGEST_SIDE)
    for patches in (8, 7, 6, 9, 10, 5, 12, 14, 16, 4):
        if side % patches == 0 and side >= 2 * patches:
            return side, side // patches
    side = max(8, side // 8 * 8)
    return side, max(2, side // 8)


def fit_pictures(
    images: np.ndarray, size: int | tuple[int, int], channels: int, resize: Callable = resize_picture
) -> np.ndarray:
    """Images as a model takes them: the centre, scaled to `size`, with the given number of channels.

    Parameters
    ----------
    images : ndarray uint8 (N, rows, cols, C)
    size : side of a square, or (rows, cols)
    channels : 1 and 3 channels are converted into each other; any other number must be that of the images
    resize : resize(image, size) scales one of them

    Returns
    -------
    ndarray uint8 (N, rows, cols, channels), the images themselves if they fit as they are

    Raises
    ------
    ValueError
        if the channels cannot be made to fit
    """
    have = images.shape[3]
    if have != channels and {have, channels} != {1, 3}:
        raise ValueError(_("expected images of {channels} channels, as the model was trained on, got {have}",
                           channels=channels, have=have))
    if (have, channels) == (3, 1):
        images = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])[..., None]
    if images.shape[1:3] != image_sides(size) or resize is not resize_picture:
        images = np.stack([resize(image, size) for image in images])
    return np.repeat(images, 3, axis=3) if (have, channels) == (1, 3) else images
