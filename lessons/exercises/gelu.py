"""GELU: write the backward of an activation.

Lesson 8; Hendrycks & Gimpel 2016; Dosovitskiy et al. 2020. cdf and pdf are the standard normal distribution.

    (1)  y = x cdf(x),   cdf(x) = (1 + erf(x / sqrt 2)) / 2
    (2)  pdf(x) = exp(-x^2 / 2) / sqrt(2 pi), which is the derivative of cdf

Backward, from dy: each y depends on its own x alone, so dx = dy * slope, and the slope of a product is

    (3)  slope = cdf(x) + x pdf(x)
"""
import math

import numpy as np
from scipy.special import erf

EXERCISE = "gelu"                                               # python -m tinymae check gelu.py


def gelu_forward(x):
    cdf = (1 + erf(x / math.sqrt(2))) / 2
    pdf = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)         # (2)
    y = x * cdf                                                 # (1)
    return y, (x, cdf, pdf)


def gelu_backward(dy, cache):
    """Gradient dx, shaped like dy."""
    x, cdf, pdf = cache
    raise NotImplementedError("equation (3)")
