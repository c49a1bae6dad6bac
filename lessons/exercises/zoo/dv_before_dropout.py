"""Attention that is right in every test, and trains a little worse.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.ops.attention:

    (1)  scores  = q k^T / sqrt(d_k)                            (Tq, Tk): row = query, column = key
    (2)  weights = softmax(scores)                              forbidden keys get weight 0
    (3)  dropped = dropout(weights) = weights * keep
    (4)  y       = dropped v

    (5)  dv       = dropped^T dy                                from (4)
    (6)  ddropped = dy v^T
    (7)  dweights = ddropped * keep                             from (3)
    (8)  dscores  = softmax_backward(dweights) / sqrt(d_k)      from (2), and the factor of (1)
    (9)  dq = dscores k,   dk = dscores^T q                     from (1)
"""
import math

from tinymae.ops.softmax import softmax_backward, softmax_forward

EXERCISE = "dv_before_dropout"                                  # python -m tinymae check dv_before_dropout.py


def scaled_dot_product_attention_forward(q, k, v, mask=None, dropout=0.0, rng=None):
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])    # (1)  (B, H, Tq, Tk)
    weights, _ = softmax_forward(scores, mask)                  # (2)
    keep = 1.0 if rng is None else (rng.random(weights.shape) >= dropout) / (1 - dropout)
    dropped = weights * keep                                    # (3)
    y = dropped @ v                                             # (4)  (B, H, Tq, d_v)
    return y, (q, k, v, weights, keep)


def scaled_dot_product_attention_backward(dy, cache):
    q, k, v, weights, keep = cache
    dv = weights.swapaxes(-1, -2) @ dy                          # (5)
    ddropped = dy @ v.swapaxes(-1, -2)                          # (6)
    dweights = ddropped * keep                                  # (7)
    dscores = softmax_backward(dweights, (weights,)) / math.sqrt(q.shape[-1])               # (8)
    dq = dscores @ k                                            # (9)
    dk = dscores.swapaxes(-1, -2) @ q
    return dq, dk, dv


# ---- why nobody noticed: stop here, and guess first ----
# y was made with the weights after dropout, so dv needs those, and got the ones before. The gradient was checked with
# dropout off, where both are the same.
