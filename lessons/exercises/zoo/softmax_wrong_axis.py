"""Softmax whose rows all sum to 1.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.ops.softmax:

    (1)  p_j = exp(s_j - max s) / sum_k exp(s_k - max s)        over a row, the last axis
    (4)  ds_k = p_k (dp_k - sum_j dp_j p_j)                     from dp, one row at a time

The scores have at least two axes. The backward goes the way back through the maximum, too.
"""
import numpy as np

EXERCISE = "softmax_wrong_axis"                                 # python -m tinymae check softmax_wrong_axis.py


def softmax_forward(scores):
    largest = scores.max(axis=-2, keepdims=True)
    p = np.exp(scores - largest)
    p = p / p.sum(axis=-1, keepdims=True)                       # (1)
    return p, (p, scores == largest)


def softmax_backward(dp, cache):
    p, top = cache
    dscores = p * (dp - (dp * p).sum(axis=-1, keepdims=True))   # (4)
    return dscores - top * dscores.sum(axis=-2, keepdims=True)  # the maximum moves with the entry that it is


# ---- why nobody noticed: stop here, and guess first ----
# What is subtracted from all scores of one row cancels; here each column had its own maximum, and that changes the scores.
# The rows still summed to 1, which was the test, and the backward was the derivative of this forward. Single numbers were
# 0.66 away from a softmax. Only a comparison with something right can see it: a loop, or reference numbers.
