"""Heads: split the width among them, and put them side by side again.

Lesson 9; Vaswani et al. 2017, section 3.2.2; article A's code, article C, section 3.4.

    (1)  split[b, h, t, i] = x[b, t, h d + i]         head h owns the columns h d ... (h + 1) d - 1 of every token
    (2)  merged[b, t, h d + i] = x[b, h, t, i]        the inverse: "concat"

Shapes: (B, T, D) and (B, H, T, d), with D = H d. Why is one reshape not enough?
"""
import numpy as np

EXERCISE = "split_heads"                                        # python -m tinymae check split_heads.py


def split_heads(x, heads):
    """x (B, T, D) -> (B, H, T, d) for H = heads."""
    raise NotImplementedError("equation (1)")


def merge_heads(x):
    """x (B, H, T, d) -> (B, T, D)."""
    raise NotImplementedError("equation (2)")


# ---- hints ----
# 1. Head h owns a block of columns of every token. A reshape keeps the order of the numbers; here it has to change.
# 2. Equation (1): first make an axis of heads out of the columns, (B, T, H, d). Only then does it change places with the
# tokens.
# 3. Two steps each: reshape, then swapaxes; and for the inverse the same two in the reverse order.
