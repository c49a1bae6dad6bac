"""Random variants of labelled images, new in every step: shifted, mirrored, and mixed with one another.

A classifier that is trained on few images overfits. So whatever does not change the class is made random (the position of the
image, left and right), and two images are mixed, with both of their classes as the target: mixup, Zhang et al. 2018.

    image  = s image_i + (1 - s) image_j
    target = s target_i + (1 - s) target_j,     s from Beta(alpha, alpha)

Between two classes the model then learns a linear transition, not a sharp edge.

Differs: both functions draw random numbers for each image separately; the mixup code of Zhang et al. draws one s for a batch.
"""
import numpy as np


def mixup(
    images: np.ndarray, labels: np.ndarray, classes: int, rng: np.random.Generator, *, alpha: float = 0.8,
) -> tuple[np.ndarray, np.ndarray]:
    """Mix each image with another image of the batch.

    Parameters
    ----------
    images : ndarray of shape (B, rows, cols, C), float32 or float64
    labels : integer ndarray of shape (B,), values in [0, classes)
    alpha : above 0; small: images are hardly mixed; 1: s is uniform in [0, 1]; He et al. 2021 fine-tune with 0.8

    Returns
    -------
    images : ndarray of the shape and dtype given, fresh
    targets : ndarray of shape (B, classes), dtype of images; each row sums to 1

    Raises
    ------
    TypeError, ValueError, IndexError
        if images are not floats, alpha is not above 0, or a label is not an integer in [0, classes)
    """
    if images.dtype not in (np.float32, np.float64):
        raise TypeError(f"mixup: expected float32 or float64 pixels, got {images.dtype}: uint8 cannot hold a mixture")
    if not alpha > 0:
        raise ValueError(f"mixup: expected alpha above 0, got {alpha}: leave mixup out to switch it off")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"mixup: expected integer labels ({len(images)},), got {labels.shape} of {labels.dtype}")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise IndexError(f"mixup: expected labels in [0, {classes}), got [{labels.min()}, {labels.max()}]")
    partner = rng.permutation(len(images))
    s = rng.beta(alpha, alpha, len(images)).astype(images.dtype)
    targets = np.zeros((len(images), classes), images.dtype)
    rows = np.arange(len(images))
    targets[rows, labels] = s
    targets[rows, labels[partner]] += 1 - s                     # +=: the partner may be of the same class
    s = s[:, None, None, None]                                  # (B, 1, 1, 1)
    return s * images + (1 - s) * images[partner], targets


def crop_and_flip(images: np.ndarray, rng: np.random.Generator, *, pad: int = 4, flip: bool = True) -> np.ndarray:
    """Shift each image by up to `pad` pixels down and across, and mirror it with probability 1/2.

    Parameters
    ----------
    images : ndarray of shape (B, rows, cols, C), any dtype
    pad : from 0 up; pixels that move in from outside repeat the border pixel
    flip : whether to mirror left and right; not for digits and letters

    Returns
    -------
    ndarray of the shape and dtype given, fresh

    Raises
    ------
    ValueError
        if images are not 4-D or pad is negative
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
