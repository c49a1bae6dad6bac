"""Feed forward: write the backward of two linear maps with a ReLU between.

Lesson 13; Vaswani et al. 2017, equation 2; article A's PositionwiseFeedForward; article C, section 4.2.

    (1)  h = x W1 + b1
    (2)  a = max(0, h)
    (3)  y = a W2 + b2

Backward, from dy, with every position one row of a matrix:

    (4)  da = dy W2^T,   dW2 = a^T dy,   db2 = sum dy           from (3)
    (5)  dh = da * 1[h > 0]                                     from (2); 1[h > 0] is 1 where h > 0, else 0
    (6)  dx = dh W1^T,   dW1 = x^T dh,   db1 = sum dh           from (1)

Shapes: x and y (B, T, D), W1 (D, F), b1 (F,), W2 (F, D), b2 (D,).
"""
import numpy as np

EXERCISE = "feed_forward"                                       # python -m tinymae check feed_forward.py


def feed_forward_forward(x, p):
    """p is {"fc1": {"w", "b"}, "fc2": {"w", "b"}}."""
    h = x @ p["fc1"]["w"] + p["fc1"]["b"]                       # (1)  (B, T, F)
    a = np.maximum(h, 0)                                        # (2)
    y = a @ p["fc2"]["w"] + p["fc2"]["b"]                       # (3)  (B, T, D)
    return y, (x, h, a, p)


def feed_forward_backward(dy, cache):
    """Gradients (dx, dp), from dy (B, T, D); dp is a tree like p."""
    x, h, a, p = cache
    raise NotImplementedError("equations (4) to (6)")


# ---- hints ----
# 1. Two linear maps with a ReLU between them, undone from the last to the first.
# 2. Equation (5): the gradient passes where h was positive, and nowhere else. The sign of the gradient plays no part.
# 3. Reshape x, a, dy and dh so that each position is a row; a weight's gradient is then (input transposed) @ (gradient).
