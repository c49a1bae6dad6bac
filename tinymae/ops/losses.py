"""Losses: squared error on hidden patches (He et al. 2021, section 3), cross entropy (Vaswani et al. 2017, section 5.4).

Squared error, with mask 1 on removed patches, n of them, P values each:

    (1)  loss = sum_(b, n) mask * mean_P (pred - target)^2 / sum mask
    (2)  dpred = dloss * mask * 2 (pred - target) / (P sum mask)

Cross entropy of logits z (..., V) with the target t smoothed by e, over the M positions that count:

    (3)  q = (1 - e) 1[v = t] + e / V
    (4)  loss = -sum q log softmax(z) / M = sum_positions (logsumexp(z) - sum_v q_v z_v) / M
    (5)  dz   = dloss * (softmax(z) - q) / M                    0 where a position does not count

Because of (5), softmax and logarithm are one op: the gradient is simpler, and nothing overflows. So a network that ends in
logits needs no softmax of its own.

A soft target (Zhang et al. 2018, mixup) is a row of probabilities t instead of one class; everything else stays the same:

    (6)  q = (1 - e) t + e / V,   sum_v t_v = 1

Differs: if nothing counts (no removed patch, only ignored targets), the loss and its gradients are 0; PyTorch gives NaN.
"""
import numpy as np

from tinymae.arguments import ARRAYS, check_arrays, check_integers, check_scalars


def masked_mse_forward(pred: np.ndarray, target: np.ndarray, mask: np.ndarray) -> tuple[np.floating, tuple]:
    """Mean squared error over the removed patches only.

    Parameters
    ----------
    pred : ndarray of shape (B, N, P), float32 or float64
    target : ndarray of shape (B, N, P): data, it gets no gradient
    mask : ndarray of shape (B, N), 1 = removed (counts), 0 = visible (does not count)

    Returns
    -------
    loss : scalar of pred's dtype
    cache : (error, mask, count); error (B, N, P) is pred - target

    Raises
    ------
    TypeError
        if pred and target are not float32 or float64 arrays of one dtype, or mask is not an array of numbers
    ValueError
        if the shapes do not fit, or mask holds other values than 0 and 1
    """
    check_arrays("masked_mse", pred=pred, target=target)
    if type(mask) not in ARRAYS or mask.dtype.kind not in "biuf":
        raise TypeError(f"masked_mse: expected mask to be an array of 0 and 1, got {type(mask).__name__}: {str(mask)[:40]!r}")
    if pred.ndim != 3 or not pred.shape[2] or pred.shape != target.shape or mask.shape != pred.shape[:2]:
        raise ValueError(
            f"masked_mse: expected pred and target (B, N, P), mask (B, N), got {pred.shape}, {target.shape}, "
            f"{mask.shape}: is the class token still in pred?"
        )
    if ((mask != 0) & (mask != 1)).any():
        raise ValueError(
            f"masked_mse: expected a mask of 0 (visible) and 1 (removed), got values from {mask.min()} to {mask.max()}: is it "
            "ids_restore?"
        )
    mask = mask.astype(pred.dtype)
    count = max(mask.sum(), 1)
    error = pred - target
    loss = np.vdot(mask, np.vecdot(error, error)) / (pred.shape[-1] * count)        # (1)
    return pred.dtype.type(loss), (error, mask, count)


def masked_mse_backward(dloss: float, cache: tuple) -> np.ndarray:
    """Gradient dpred (B, N, P) of `masked_mse_forward`, from the scalar dloss. Zero on visible patches."""
    error, mask, count = cache
    check_scalars("masked_mse", "real", dloss=dloss)
    return error * (mask * (2 * float(dloss) / (error.shape[-1] * float(count))))[..., None]     # (2)


def normalise_patches(patches: np.ndarray, *, eps: float = 1e-6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalise each patch to mean 0 and variance 1 over its P values: the paper's "normalised pixels" target.

    Parameters
    ----------
    patches : ndarray of shape (B, N, P), P at least 2
    eps : added to the variance

    Returns
    -------
    normalised : ndarray of shape (B, N, P)
    mean, std : ndarrays of shape (B, N, 1), so that patches = normalised * std + mean

    Notes
    -----
    The variance is the unbiased one, 1 / (P - 1), as in the paper's code; that of layer normalisation is biased. `mean` and
    `std` are those of the true image: a reconstruction that is drawn with them contains part of the answer.
    """
    check_arrays("normalise_patches", patches=patches)
    check_scalars("normalise_patches", "not_negative", eps=eps)
    if patches.shape[-1] < 2:
        raise ValueError(f"normalise_patches: expected at least 2 values in a patch, got {patches.shape}")
    mean = patches.mean(axis=-1, keepdims=True)
    std = np.sqrt(patches.var(axis=-1, ddof=1, keepdims=True) + eps)
    return (patches - mean) / std, mean, std


def cross_entropy_forward(
    logits: np.ndarray, targets: np.ndarray, *, ignore_index: int | None = None, label_smoothing: float = 0.0
) -> tuple[np.floating, tuple]:
    """Mean cross entropy between softmax(logits) and the targets.

    Parameters
    ----------
    logits : ndarray of shape (..., V), float32 or float64
    targets : integer ndarray of shape (...), values in [0, V) or ignore_index
    ignore_index : the target that does not count (padding), or None if all count
    label_smoothing : fraction, in [0, 1), of the target that is spread evenly over the vocabulary

    Returns
    -------
    loss : scalar of the logits' dtype, the mean over the targets that count; ln V if every class has the same probability
    cache : (probabilities, targets, counts, count, label_smoothing)

    Raises
    ------
    TypeError
        if logits is not a float32 or float64 array, or targets not one of integers: class numbers, not one-hot rows
    ValueError, IndexError
        if the shapes or the smoothing do not fit, or a target is not in the vocabulary
    """
    check_arrays("cross_entropy", logits=logits)
    check_integers("cross_entropy", hint="class numbers, not one-hot rows", targets=targets)
    check_scalars("cross_entropy", "fraction", label_smoothing=label_smoothing)
    check_scalars("cross_entropy", "whole", ignore_index=ignore_index or 0)
    if not logits.shape[-1]:
        raise ValueError(f"cross_entropy: expected logits (..., V) with V of at least 1, got {logits.shape}")
    if targets.shape != logits.shape[:-1]:
        raise ValueError(f"cross_entropy: expected targets {logits.shape[:-1]} for logits {logits.shape}, got {targets.shape}")
    vocabulary, label_smoothing = logits.shape[-1], float(label_smoothing)
    counts = np.ones(targets.shape, bool) if ignore_index is None else targets != ignore_index
    targets = np.where(counts, targets, 0)
    if targets.size and not 0 <= targets.min() <= targets.max() < vocabulary:
        raise IndexError(
            f"cross_entropy: expected targets in [0, {vocabulary}), got [{targets.min()}, {targets.max()}]: is the padding "
            "not the ignore_index?"
        )
    count = max(np.count_nonzero(counts), 1)
    p = logits - logits.max(axis=-1, keepdims=True)             # subtracting it shifts logsumexp and sum q z alike
    expected = (1 - label_smoothing) * np.take_along_axis(p, targets[..., None], axis=-1)[..., 0]
    if label_smoothing:
        expected += label_smoothing * p.mean(axis=-1)
    np.exp(p, out=p)
    total = p.sum(axis=-1, keepdims=True)
    p /= total
    loss = (np.log(total[..., 0]) - expected).sum(where=counts) / count             # (4)
    return logits.dtype.type(loss), (p, targets, counts, count, label_smoothing)


def cross_entropy_backward(dloss: float, cache: tuple) -> np.ndarray:
    """Gradient dlogits (..., V) of `cross_entropy_forward`, from the scalar dloss. Zero for ignored targets."""
    p, targets, counts, count, label_smoothing = cache
    check_scalars("cross_entropy", "real", dloss=dloss)
    dlogits = p - label_smoothing / p.shape[-1] if label_smoothing else p.copy()
    hit = np.take_along_axis(dlogits, targets[..., None], axis=-1) - (1 - label_smoothing)
    np.put_along_axis(dlogits, targets[..., None], hit, axis=-1)                    # (5)  softmax(z) - q
    dlogits *= (counts * (dloss / count)).astype(p.dtype)[..., None]
    return dlogits


def soft_cross_entropy_forward(
    logits: np.ndarray, targets: np.ndarray, *, label_smoothing: float = 0.0
) -> tuple[np.floating, tuple]:
    """Mean cross entropy between softmax(logits) and target probabilities of several classes, as in mixup.

    Parameters
    ----------
    logits : ndarray of shape (..., V), float32 or float64
    targets : ndarray of shape (..., V), probabilities: each row at least 0 with the sum 1. Data, they get no gradient
    label_smoothing : fraction, in [0, 1), of the target that is spread evenly over the classes

    Returns
    -------
    loss : scalar of the logits' dtype; for one-hot rows, the same as `cross_entropy_forward` of their class numbers
    cache : (probabilities, q), both (..., V)

    Raises
    ------
    TypeError
        if logits and targets are not float32 or float64 arrays of one dtype
    ValueError
        if the shapes or the smoothing do not fit, or a row of targets does not hold probabilities
    """
    check_arrays("soft_cross_entropy", logits=logits, targets=targets)
    check_scalars("soft_cross_entropy", "fraction", label_smoothing=label_smoothing)
    if not logits.shape[-1]:
        raise ValueError(f"soft_cross_entropy: expected logits (..., V) with V of at least 1, got {logits.shape}")
    if targets.shape != logits.shape:
        raise ValueError(f"soft_cross_entropy: expected targets {logits.shape} like the logits, got {targets.shape}")
    sums = targets.sum(axis=-1)
    if not (np.abs(sums - 1) < 1e-5).all() or (targets < 0).any():
        raise ValueError(
            "soft_cross_entropy: expected rows of probabilities, each at least 0 with the sum 1, got sums from "
            f"{sums.min():.4g} to {sums.max():.4g} and entries from {targets.min():.4g}"
        )
    q = (1 - float(label_smoothing)) * targets + float(label_smoothing) / targets.shape[-1]                         # (6)
    p = logits - logits.max(axis=-1, keepdims=True)
    expected = np.vecdot(q, np.where(q == 0, 0, p))             # a class of probability 0 adds nothing, not 0 * -infinity
    np.exp(p, out=p)
    total = p.sum(axis=-1, keepdims=True)
    p /= total
    loss = (np.log(total[..., 0]) - expected).sum() / max(expected.size, 1)         # (4)
    return logits.dtype.type(loss), (p, q)


def soft_cross_entropy_backward(dloss: float, cache: tuple) -> np.ndarray:
    """Gradient dlogits (..., V) of `soft_cross_entropy_forward`, from the scalar dloss."""
    p, q = cache
    check_scalars("soft_cross_entropy", "real", dloss=dloss)
    dlogits = p - q                                             # (5)
    dlogits *= float(dloss) / max(p.size // p.shape[-1], 1)
    return dlogits
