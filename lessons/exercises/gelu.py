"""GELU: write the backward of an activation.

Lesson 13; Hendrycks & Gimpel 2016; Dosovitskiy et al. 2020. Numbered as in tinymae.ops.activation.

    (2)  gelu(x) = x cdf(x),  cdf(x) = (1 + erf(x / sqrt 2)) / 2        the standard normal distribution
                                     = erfc(-x / sqrt 2) / 2

Backward, from dy: each y depends on its own x alone, so dx = dy * dgelu/dx. pdf is the derivative of cdf, so that of the
product x cdf(x) is

    (3)  dgelu/dx = cdf(x) + x pdf(x),  pdf(x) = exp(-x^2 / 2) / sqrt(2 pi)
"""
import math

import numpy as np
from scipy.special import erf

EXERCISE = "gelu"                                               # python -m tinymae check gelu.py


def gelu_forward(x):
    cdf = (1 + erf(x / math.sqrt(2))) / 2
    pdf = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)         # (3)
    y = x * cdf                                                 # (2)
    return y, (x, cdf, pdf)


def gelu_backward(dy, cache):
    """Gradient dx, shaped like dy."""
    x, cdf, pdf = cache
    raise NotImplementedError("equation (3)")


# ---- hints ----
# 1. y is a product of two functions of x, so its derivative has two terms.
# 2. Equation (3): cdf comes from the factor x, and x pdf from the factor cdf(x).
# 3. One line: dy times a sum of two terms, all of which are in the cache.
