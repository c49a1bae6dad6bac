"""Softmax over the last axis, with a mask. Vaswani et al. 2017, equation 1; article A, part 2; article C, section 3.2.

    (1)  p_j = exp(s_j - max s) / sum_k exp(s_k - max s)        max s cancels; it keeps exp from overflowing

Backward, from dp, one row at a time:

    (2)  dp_j / ds_k = p_j (1[j = k] - p_k)                     the Jacobian, which we never build
    (3)  ds_k = sum_j dp_j p_j (1[j = k] - p_k)
    (4)       = p_k (dp_k - sum_j dp_j p_j)

(4) takes from dp its average under p: to raise all scores alike changes nothing, so ds sums to zero over each row.

Differs: a row that may attend to nothing gives zeros, and a zero gradient, where PyTorch gives NaN.
"""
import numpy as np


def softmax_forward(scores, mask=None):
    """Turn the last axis of scores into probabilities.

    Parameters
    ----------
    scores : ndarray of shape (..., T), float32 or float64
    mask : boolean ndarray broadcastable to scores, True = may attend; or None

    Returns
    -------
    p : ndarray of shape (..., T); each row sums to 1, or to 0 where the mask allows nothing
    cache : (p,), the array returned: do not write into it before the backward

    Raises
    ------
    TypeError
        where the mask is not boolean
    """
    if mask is not None:
        if mask.dtype != bool:
            raise TypeError(f"softmax: expected a boolean mask, True = may attend, got {mask.dtype}: write mask != 0")
        scores = np.where(mask, scores, -np.inf)
    # `initial` is finite, so that a row of -inf becomes exp(-inf) = 0 and not exp(-inf + inf) = NaN
    p = scores - scores.max(axis=-1, keepdims=True, initial=np.finfo(scores.dtype).min)
    np.exp(p, out=p)
    total = (p @ np.ones(p.shape[-1], p.dtype))[..., None]      # p.sum(axis=-1, keepdims=True), faster
    if mask is not None:
        total[total == 0] = 1
    p /= total                                                  # (1)
    return p, (p,)


def softmax_backward(dp, cache):
    """Gradient dscores (..., T) of `softmax_forward`, from dp (..., T). Zero wherever the mask forbids: p is 0 there."""
    (p,) = cache
    dscores = dp - np.vecdot(dp, p)[..., None]
    dscores *= p                                                # (4)
    return dscores
