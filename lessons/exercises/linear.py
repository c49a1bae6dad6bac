"""Linear map: write the backward.

Lesson 1; Vaswani et al. 2017, sections 3.2.2 and 3.3; article D, linear and softmax.

    (1)  y = x w + b

Backward, from dy, with every position one row of a matrix:

    (2)  dx = dy w^T         entry x_i reaches each y_j through w_ij
    (3)  dw = x^T dy         all positions share w, so their contributions are summed
    (4)  db = sum dy         over all positions

Shapes: x (B, T, I), w (I, O), b (O,), y and dy (B, T, O). x.reshape(-1, I) makes one row of each position.
"""
import numpy as np

EXERCISE = "linear"                                             # python -m tinymae check linear.py


def linear_forward(x, w, b):
    y = x @ w + b                                               # (1)
    return y, (x, w)


def linear_backward(dy, cache):
    """Gradients (dx, dw, db): dy (B, T, O) -> dx (B, T, I), dw (I, O), db (O,)."""
    x, w = cache
    raise NotImplementedError("equations (2) to (4)")


# ---- hints ----
# 1. Every position is a row; all rows share w and b, so the gradients of w and b are sums over rows.
# 2. Equations (2) to (4): make rows of x and dy with reshape(-1, ...), then two products and one sum.
# 3. dx = (dy) @ (a transpose), dw = (a transpose) @ (rows of dy), db = a sum over axis 0 of those rows.
