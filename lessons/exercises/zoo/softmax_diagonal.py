"""Softmax with a backward that moves every weight.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.ops.softmax:

    (1)  p_j = exp(s_j - max s) / sum_k exp(s_k - max s)
    (4)  ds_k = p_k (dp_k - sum_j dp_j p_j)                     from dp, one row at a time
"""
import numpy as np

EXERCISE = "softmax_diagonal"                                   # python -m tinymae check softmax_diagonal.py


def softmax_forward(scores):
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p = p / p.sum(axis=-1, keepdims=True)                       # (1)
    return p, (p,)


def softmax_backward(dp, cache):
    (p,) = cache
    return dp * p * (1 - p)                                     # (4)


# ---- why nobody noticed: stop here, and guess first ----
# It is the derivative of the logistic function, which has one output for one input. Here every output of a row depends on
# every input of it, and the terms off the diagonal were left out. The test asked whether the weights change in training.
# They did.
