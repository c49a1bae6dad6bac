"""Attention that is right for every sentence that anybody tried.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.ops.attention, without dropout:

    (1)  scores  = q k^T / sqrt(d_k)                            (Tq, Tk): row = query, column = key
    (2)  weights = softmax(scores)                              forbidden keys get weight 0
    (4)  y       = weights v

    (5)  dv       = weights^T dy                                from (4)
    (6)  dweights = dy v^T
    (8)  dscores  = softmax_backward(dweights) / sqrt(d_k)      from (2), and the factor of (1)
    (9)  dq = dscores k,   dk = dscores^T q                     from (1)
"""
import math

import numpy as np

from tinymae.ops.softmax import softmax_backward, softmax_forward

EXERCISE = "attention_item_0"                                   # python -m tinymae check attention_item_0.py


def scaled_dot_product_attention_forward(q, k, v, mask=None):
    scores = q @ k[0].swapaxes(-1, -2) / math.sqrt(q.shape[-1])                             # (1)  (B, H, Tq, Tk)
    weights, _ = softmax_forward(scores, mask)                  # (2)
    y = weights @ v[0]                                          # (4)  (B, H, Tq, d_v)
    return y, (q, k, v, weights)


def scaled_dot_product_attention_backward(dy, cache):
    q, k, v, weights = cache
    dk, dv = np.zeros_like(k), np.zeros_like(v)
    dv[0] = (weights.swapaxes(-1, -2) @ dy).sum(axis=0)         # (5)
    dweights = dy @ v[0].swapaxes(-1, -2)                       # (6)
    dscores = softmax_backward(dweights, (weights,)) / math.sqrt(q.shape[-1])               # (8)
    dq = dscores @ k[0]                                         # (9)
    dk[0] = (dscores.swapaxes(-1, -2) @ q).sum(axis=0)
    return dq, dk, dv


# ---- why nobody noticed: stop here, and guess first ----
# Every sentence of a batch looks at the words of the first one: broadcasting makes the shapes fit. All tests had a batch of
# one. And the backward is the derivative of this forward, so a gradient check is blind.
