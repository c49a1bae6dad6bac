"""MAE's loss: write both passes.

Lesson 29; He et al. 2021, section 3; article A, MAE. Squared error on the removed patches only: the mask is 1 there and 0
elsewhere, and a patch has P numbers:

    (1)  loss = sum_(b, n) mask * mean_P (pred - target)^2 / sum mask
    (2)  dpred = dloss * mask * 2 (pred - target) / (P sum mask)

Shapes: pred and target (B, N, P), mask (B, N). The target is data: it gets no gradient.
"""
import numpy as np

EXERCISE = "masked_mse"                                         # python -m tinymae check masked_mse.py


def masked_mse_forward(pred, target, mask):
    """-> loss (a number), and a cache."""
    raise NotImplementedError("equation (1)")


def masked_mse_backward(dloss, cache):
    """Gradient dpred (B, N, P), from the number dloss."""
    raise NotImplementedError("equation (2)")


# ---- hints ----
# 1. Only hidden patches count, in the sum and in the number that it is divided by.
# 2. Equation (1): the mean over the P numbers of a patch first, then a weighted sum with the mask, divided by the mask's sum.
# 3. The mask (B, N) needs a last axis of size 1 where it meets pred; the cache holds the error, the mask, and no more.
