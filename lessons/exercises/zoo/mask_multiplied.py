"""Masked attention that was right in all of its author's experiments.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.ops.attention, without dropout; the mask is boolean, True = may attend:

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

EXERCISE = "mask_multiplied"                                    # python -m tinymae check mask_multiplied.py


def scaled_dot_product_attention_forward(q, k, v, mask=None):
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])    # (1)  (B, H, Tq, Tk)
    keep = np.ones(scores.shape, bool) if mask is None else np.broadcast_to(mask, scores.shape)
    weights, _ = softmax_forward(scores * keep)                 # (2)
    y = weights @ v                                             # (4)  (B, H, Tq, d_v)
    return y, (q, k, v, weights, keep)


def scaled_dot_product_attention_backward(dy, cache):
    q, k, v, weights, keep = cache
    dv = weights.swapaxes(-1, -2) @ dy                          # (5)
    dweights = dy @ v.swapaxes(-1, -2)                          # (6)
    dscores = softmax_backward(dweights, (weights,)) * keep / math.sqrt(q.shape[-1])        # (8)
    dq = dscores @ k                                            # (9)
    dk = dscores.swapaxes(-1, -2) @ q
    return dq, dk, dv


# ---- why nobody noticed: stop here, and guess first ----
# A score of 0 is no ban: exp(0) is 1, so a forbidden key gets a weight, and a larger one than any allowed key with a negative
# score. Scores times a mask of 0 and 1 stood in the code of a paper (georg-wolflein/good-features, pull request 1); its results
# were safe, because they were computed with batches of one, which need no mask. The backward is the derivative of this forward,
# so a gradient check is blind. It shows when the values that are forbidden change, and the output with them.
