"""Scaled dot-product attention: write the backward.

Lesson 8; Vaswani et al. 2017, equation 1; articles A (part 2), B, C (section 3), D, E.

    (1)  scores  = q k^T / sqrt(d_k)                            (Tq, Tk): row = query, column = key
    (2)  weights = softmax(scores)                              forbidden keys get weight 0
    (3)  dropped = dropout(weights) = weights * keep
    (4)  y       = dropped v                                    each output is a weighted sum of values

Backward, from dy, each line undoing one above:

    (5)  dv       = dropped^T dy                                from (4): the weights after dropout, which were used
    (6)  ddropped = dy v^T
    (7)  dweights = ddropped * keep                             from (3)
    (8)  dscores  = softmax_backward(dweights) / sqrt(d_k)      from (2), and the factor of (1)
    (9)  dq = dscores k,   dk = dscores^T q                     from (1)

softmax_backward(dweights, (weights,)) is there; to write that one is an exercise of its own.

Shapes: q (B, H, Tq, d_k), k (B, H, Tk, d_k), v (B, H, Tk, d_v), y (B, H, Tq, d_v).
"""
import math

import numpy as np

from tinymae.ops.softmax import softmax_backward, softmax_forward

EXERCISE = "attention"                                          # python -m tinymae check attention.py


def scaled_dot_product_attention_forward(q, k, v, mask=None, dropout=0.0, rng=None):
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])    # (1)  (B, H, Tq, Tk)
    weights, _ = softmax_forward(scores, mask)                  # (2)
    keep = 1.0 if rng is None else (rng.random(weights.shape) >= dropout) / (1 - dropout)
    dropped = weights * keep                                    # (3)
    y = dropped @ v                                             # (4)  (B, H, Tq, d_v)
    return y, (q, k, v, weights, dropped, keep)


def scaled_dot_product_attention_backward(dy, cache):
    """Gradients (dq, dk, dv), from dy (B, H, Tq, d_v)."""
    q, k, v, weights, dropped, keep = cache
    raise NotImplementedError("equations (5) to (9)")


# ---- hints ----
# 1. Undo the forward line by line, from the last to the first; each line receives the gradient of its output.
# 2. Start with (5) and (6): the product y = dropped v gives two gradients. Mind which of the weights was used there.
# 3. Four matrix products, for dv, ddropped, dq and dk; swapaxes(-1, -2) is the transpose of the last two axes. dscores is
# divided by the same root.
