"""Softmax: write the forward.

Lesson 7; Vaswani et al. 2017, equation 1; article C, section 3.3; article D, linear and softmax.

    (1)  p_j = exp(s_j - max s) / sum_k exp(s_k - max s)        max s cancels; it prevents overflow of exp

A row is the last axis.

Shapes: scores and p (..., T).
"""
import numpy as np

EXERCISE = "softmax_forward"                                    # python -m tinymae check softmax_forward.py


def softmax(scores):
    """Scores (..., T) -> probabilities (..., T): positive, and each row sums to 1."""
    raise NotImplementedError("equation (1)")


# ---- hints ----
# 1. Make all numbers positive with exp, then divide each row by its sum. exp(1000) is too large for a float.
# 2. Equation (1): subtract the largest score of each row first. It changes nothing but the size of the numbers.
# 3. Three lines: a maximum, an exp and a sum, the maximum and the sum over the last axis with keepdims=True.
