"""Softmax: write the backward.

Lesson 8; Vaswani et al. 2017, equation 1; article C, section 3.3; article D, linear and softmax.

    (1)  p_j = exp(s_j - max s) / sum_k exp(s_k - max s)        max s cancels; it prevents overflow of exp

Backward, from dp, one row at a time:

    (2)  dp_j / ds_k = p_j (1[j = k] - p_k)                     the Jacobian, which we never build
    (3)  ds_k = sum_j dp_j p_j (1[j = k] - p_k)
    (4)       = p_k (dp_k - sum_j dp_j p_j)

A row is the last axis.

Shapes: scores, p, dp and dscores (..., T).
"""
import numpy as np

EXERCISE = "softmax"                                            # python -m tinymae check softmax.py


def softmax_forward(scores):
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p = p / p.sum(axis=-1, keepdims=True)                       # (1)
    return p, (p,)


def softmax_backward(dp, cache):
    """Gradient dscores (..., T), from dp (..., T)."""
    (p,) = cache
    raise NotImplementedError("equation (4)")


# ---- hints ----
# 1. Every probability of a row depends on every score of that row, because all are divided by the same sum.
# 2. Equation (4): multiply dp by p, sum over the row, and subtract that sum from dp before you multiply by p.
# 3. One line with one sum over the last axis, keepdims=True. No matrix of derivatives is needed.
