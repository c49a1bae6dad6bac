"""Softmax over the last axis, with a mask. Vaswani et al. 2017, equation 1; article A, part 2; article C, section 3.2.

    (1)  p_j = exp(s_j - max s) / sum_k exp(s_k - max s)        max s cancels; it prevents overflow of exp

Backward, from dp, one row at a time:

    (2)  dp_j / ds_k = p_j (1[j = k] - p_k)                     the Jacobian, which we never build
    (3)  ds_k = sum_j dp_j p_j (1[j = k] - p_k)
    (4)       = p_k (dp_k - sum_j dp_j p_j)

(4) subtracts from dp its mean under p. Raising all scores alike changes nothing, so ds sums to zero over each row.

Differs: a row that may attend to nothing gives zeros and a zero gradient; PyTorch gives NaN.
"""
import numpy as np

from tinymae.arguments import check_arrays, check_gradient, check_mask


def softmax_forward(scores: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, tuple]:
    """Turn the last axis of scores into probabilities.

    Parameters
    ----------
    scores : ndarray of shape (..., T), float32 or float64
    mask : boolean ndarray broadcastable to scores, True = may attend; or None

    Returns
    -------
    p : ndarray of shape (..., T); each row sums to 1, or to 0 if the mask allows nothing
    cache : (p,), the array returned: do not write into it before the backward

    Raises
    ------
    TypeError
        if scores is not a float32 or float64 array, or the mask is not a boolean one
    ValueError
        if the mask does not broadcast to the shape of scores
    """
    check_arrays("softmax", scores=scores)
    if mask is not None:
        check_mask("softmax", mask)
        if mask.ndim > scores.ndim or any(m not in (1, n) for m, n in zip(mask.shape[::-1], scores.shape[::-1], strict=False)):
            raise ValueError(f"softmax: expected a mask broadcastable to scores {scores.shape}, got {mask.shape}")
        scores = np.where(mask, scores, -np.inf)
    # `initial` is finite, so that a row of -inf becomes exp(-inf) = 0 and not exp(-inf + inf) = NaN
    p = scores - scores.max(axis=-1, keepdims=True, initial=np.finfo(scores.dtype).min)
    np.exp(p, out=p)
    total = np.vecdot(p, np.ones(p.shape[-1], p.dtype))[..., None]      # p.sum(axis=-1, keepdims=True), faster
    if mask is not None:
        total[total == 0] = 1
    p /= total                                                  # (1)
    return p, (p,)


def softmax_backward(dp: np.ndarray, cache: tuple) -> np.ndarray:
    """Gradient dscores (..., T) of `softmax_forward`, from dp (..., T). Zero wherever the mask forbids: p is 0 there."""
    (p,) = cache
    check_gradient("softmax", p.shape, p.dtype, dp=dp)
    dscores = dp - np.vecdot(dp, p)[..., None]
    dscores *= p                                                # (4)
    return dscores
