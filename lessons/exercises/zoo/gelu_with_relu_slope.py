"""GELU in place of ReLU, and a network that trains at once.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.ops.activation:

    (2)  gelu(x) = x cdf(x),  cdf(x) = (1 + erf(x / sqrt 2)) / 2        the standard normal distribution
    (3)  dgelu/dx = cdf(x) + x pdf(x),  pdf(x) = exp(-x^2 / 2) / sqrt(2 pi)
"""
import math

import numpy as np
from scipy.special import erf

EXERCISE = "gelu_with_relu_slope"                               # python -m tinymae check gelu_with_relu_slope.py


def gelu_forward(x):
    cdf = (1 + erf(x / math.sqrt(2))) / 2
    pdf = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    y = x * cdf                                                 # (2)
    return y, (x, cdf, pdf)


def gelu_backward(dy, cache):
    x, cdf, pdf = cache
    slope = (x > 0).astype(x.dtype)                             # (3)
    return dy * slope


# ---- why nobody noticed: stop here, and guess first ----
# The forward was changed from ReLU to GELU, and the backward was not: 1 where x is positive and 0 elsewhere is the slope of
# ReLU. Far from 0 both slopes are nearly the same, and near 0 this gradient still points roughly the right way, so the loss
# falls. Commonly seen where an activation is replaced in code that was written by hand; a gradient check sees it at once, if it
# is run again.
