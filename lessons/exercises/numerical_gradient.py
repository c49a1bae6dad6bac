"""The gradient by differences: write the heart of a gradient check.

Lesson 2. A loss L = f(x), and one number x_i of the array x, moved up and down by h:

    (1)  numeric  = (L(x_i + h) - L(x_i - h)) / 2h         two forward passes, no backward

All other numbers stay where they are, and x is afterwards what it was before.
"""
import numpy as np

EXERCISE = "numerical_gradient"                                 # python -m tinymae check numerical_gradient.py


def numerical_gradient(f, x, h=1e-5):
    """The gradient of f at x: f(x) is a float, x an array of any shape, the gradient an array like x."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        gradient[index] = difference(f, x, index, h)
    return gradient


def difference(f, x, index, h):
    """df/dx_i for the number x[index]."""
    raise NotImplementedError("equation (1)")


# ---- hints ----
# 1. A slope is measured between two points: a little above x_i and a little below, with all other numbers where they are.
# 2. Equation (1): evaluate f twice, at x_i + h and at x_i - h, and divide the difference by their distance, which is 2h.
# 3. Remember x[index], set it, call f, set it again, call f, and put the remembered number back before you return.
