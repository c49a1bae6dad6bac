"""Scaled dot-product attention: write the forward.

Lesson 7; Vaswani et al. 2017, equation 1; articles A (part 2), B, C (section 3), D (the six steps), E.

    (1)  scores  = q k^T / sqrt(d_k)                            (Tq, Tk): row = query, column = key
    (2)  weights = softmax(scores)                              over the keys; forbidden keys get weight 0
    (3)  y       = weights v                                    each output is a weighted sum of values

softmax_forward(scores, mask) -> (weights, cache) is there; to write that one is an exercise of its own.

Shapes: q (B, H, Tq, d_k), k (B, H, Tk, d_k), v (B, H, Tk, d_v), y (B, H, Tq, d_v); mask (B, 1, Tq, Tk), True = may attend, or
None.
"""
import math

import numpy as np

from tinymae.ops.softmax import softmax_forward

EXERCISE = "attention_forward"                                  # python -m tinymae check attention_forward.py


def attention(q, k, v, mask=None):
    """y (B, H, Tq, d_v)."""
    raise NotImplementedError("equations (1) to (3)")


# ---- hints ----
# 1. Compare each query with all keys, turn each row of scores into weights, and average the values with them.
# 2. Equation (1) is one matrix product for each sentence and head: the last two axes of k change places first.
# 3. Three lines: scores (B, H, Tq, Tk) divided by the square root of the last dimension of q, weights (softmax_forward
# returns a pair), weights @ v.
