"""Linear map: write the forward.

Lesson 1; Vaswani et al. 2017, section 3.3; article D, linear and softmax.

    (1)  y_j = sum_i x_i w_ij + b_j                             at every position, with the same w and b

Shapes: x (B, T, I) or (I,), w (I, O), b (O,), y (B, T, O) or (O,).
"""
import numpy as np

EXERCISE = "linear_forward"                                     # python -m tinymae check linear_forward.py


def linear(x, w, b):
    """y = x w + b, over the last axis of x."""
    raise NotImplementedError("equation (1)")


# ---- hints ----
# 1. Every position is a row of numbers, and every row is multiplied by the same matrix.
# 2. Equation (1) is a matrix product: the last axis of x meets the first axis of w, and b is added to each row.
# 3. One line: a product with the operator @, plus b. Broadcasting adds b to all positions.
