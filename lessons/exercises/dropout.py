"""Dropout: write both passes.

Lesson 6 uses it (article E: "so that the model is not too sensitive to P"); Srivastava et al. 2014.

    (1)  y = x * keep,   keep = 1 / (1 - dropout) with probability 1 - dropout, else 0
    (2)  dx = dy * keep         the same random draw: an entry that was dropped in the forward receives no gradient

The factor 1 / (1 - dropout) keeps the mean of y at x, so that nothing has to change when dropout is switched off (rng is None).
"""
import numpy as np

EXERCISE = "dropout"                                            # python -m tinymae check dropout.py


def dropout_forward(x, dropout, rng=None):
    """x of any shape -> y like x, and a cache. dropout is the fraction to drop; rng.random(shape) draws numbers in [0, 1)."""
    if rng is None:
        return x.copy(), None
    raise NotImplementedError("equation (1)")


def dropout_backward(dy, cache):
    """Gradient dx, shaped like dy; a copy of dy where dropout was off."""
    if cache is None:
        return dy.copy()
    raise NotImplementedError("equation (2)")


# ---- hints ----
# 1. What stays must be enlarged, so that the mean stays; and the backward must use the numbers drawn in the forward.
# 2. Equation (1): draw one number for each entry; an entry stays where it is at least `dropout`.
# 3. keep is an array of 0 and 1 / (1 - dropout); y is a product with it, keep is the cache, and dx is a product with it, too.
