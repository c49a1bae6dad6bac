"""Attention that learns, and looks everywhere alike.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.ops.attention, without dropout:

    (1)  scores  = q k^T / sqrt(d_k)                            (Tq, Tk): row = query, column = key
    (2)  weights = softmax(scores)                              forbidden keys get weight 0
    (4)  y       = weights v

    (5)  dv       = weights^T dy                                from (4)
    (6)  dweights = dy v^T
    (8)  dscores  = softmax_backward(dweights) / sqrt(d_k)      from (2), and the factor of (1)
    (9)  dq = dscores k,   dk = dscores^T q                     from (1)

Shapes: q (B, H, Tq, d_k), k (B, H, Tk, d_k), v (B, H, Tk, d_v).
"""
import math

from tinymae.ops.softmax import softmax_backward, softmax_forward

EXERCISE = "scaled_by_d_model"                                  # python -m tinymae check scaled_by_d_model.py


def scaled_dot_product_attention_forward(q, k, v, mask=None):
    scale = math.sqrt(q.shape[1] * q.shape[3])
    scores = q @ k.swapaxes(-1, -2) / scale                     # (1)  (B, H, Tq, Tk)
    weights, _ = softmax_forward(scores, mask)                  # (2)
    y = weights @ v                                             # (4)  (B, H, Tq, d_v)
    return y, (q, k, v, weights, scale)


def scaled_dot_product_attention_backward(dy, cache):
    q, k, v, weights, scale = cache
    dv = weights.swapaxes(-1, -2) @ dy                          # (5)
    dweights = dy @ v.swapaxes(-1, -2)                          # (6)
    dscores = softmax_backward(dweights, (weights,)) / scale    # (8)
    dq = dscores @ k                                            # (9)
    dk = dscores.swapaxes(-1, -2) @ q
    return dq, dk, dv


# ---- why nobody noticed: stop here, and guess first ----
# H d_k is d_model: the scores are sqrt(H) times too small, and the softmax starts too flat. q.k is a sum of d_k products,
# the width of one head, so its root is what keeps the variance at 1. With one head there is no difference, and the loss
# falls with eight heads, too: W_q and W_k can grow.
