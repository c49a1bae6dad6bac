"""Labelled pictures made anew in every step: shifted, mirrored, and mixed with one another.

A classifier with few pictures learns them by heart. What does not change the answer is made random (where the picture lies,
left and right), and two pictures are shown at once, with both answers: mixup, Zhang et al. 2018.

    image  = s image_i + (1 - s) image_j
    target = s target_i + (1 - s) target_j,     s from Beta(alpha, alpha)

Between two classes there is then no sharp edge to learn by heart, but a straight slope.

Differs: both functions draw for each picture on its own; the mixup code of Zhang et al. draws one s for a batch.
"""
import numpy as np


def mixup(images, labels, classes, rng, alpha=0.8):
    """Mix each picture with another of the batch.

    Parameters
    ----------
    images : ndarray of shape (B, rows, cols, C), float32 or float64
    labels : integer ndarray of shape (B,), values in [0, classes)
    classes : int
    rng : numpy.random.Generator
    alpha : float above 0; small: hardly mixed; 1: every share as likely; He et al. 2021 fine-tune with 0.8

    Returns
    -------
    images : ndarray of the shape and dtype given, fresh
    targets : ndarray of shape (B, classes), dtype of images; each row sums to 1

    Raises
    ------
    TypeError, ValueError, IndexError
        where images are not floats, alpha is not above 0, or a label is not in [0, classes)
    """
    if images.dtype not in (np.float32, np.float64):
        raise TypeError(f"mixup: expected float32 or float64 pixels, got {images.dtype}: uint8 cannot hold a mixture")
    if not alpha > 0:
        raise ValueError(f"mixup: expected alpha above 0, got {alpha}: leave mixup out to switch it off")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"mixup: expected integer labels ({len(images)},), got {labels.shape} of {labels.dtype}")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise IndexError(f"mixup: expected labels in [0, {classes}), got [{labels.min()}, {labels.max()}]")
    other = rng.permutation(len(images))
    share = rng.beta(alpha, alpha, len(images)).astype(images.dtype)
    wide = share[:, None, None, None]
    targets = np.zeros((len(images), classes), images.dtype)
    rows = np.arange(len(images))
    targets[rows, labels] = share
    targets[rows, labels[other]] += 1 - share                   # +=: the other may be of the same class
    return wide * images + (1 - wide) * images[other], targets


def crop_and_flip(images, rng, pad=4, flip=True):
    """Shift each picture by up to `pad` pixels down and across, and mirror every second one.

    Parameters
    ----------
    images : ndarray of shape (B, rows, cols, C), any dtype
    rng : numpy.random.Generator
    pad : int from 0 up; what comes into sight is the border pixel repeated
    flip : bool, mirror left and right; not for digits and letters

    Returns
    -------
    ndarray of the shape and dtype given, fresh

    Raises
    ------
    ValueError
        where images are not 4-D or pad is negative
    """
    if images.ndim != 4 or pad < 0:
        raise ValueError(f"crop_and_flip: expected images (B, rows, cols, C) and a pad from 0 up, got {images.shape} and {pad}")
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")
    top, left = rng.integers(2 * pad + 1, size=(2, count))
    rows = top[:, None] + np.arange(height)                     # (B, rows)
    cols = left[:, None] + np.arange(width)
    if flip:
        mirrored = rng.random(count) < 0.5
        cols[mirrored] = cols[mirrored, ::-1]
    return padded[np.arange(count)[:, None, None], rows[:, :, None], cols[:, None, :]]
