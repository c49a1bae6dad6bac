"""Activations of the feed forward: relu (Vaswani et al. 2017, equation 2), gelu (Hendrycks & Gimpel 2016), swish
(Ramachandran et al. 2017; also called SiLU).

    (1)  relu(x) = max(0, x)                                    drelu/dx = 1 where x > 0, else 0
    (2)  gelu(x) = x cdf(x),  cdf(x) = (1 + erf(x / sqrt 2)) / 2        the standard normal distribution
                                     = erfc(-x / sqrt 2) / 2
    (3)  dgelu/dx = cdf(x) + x pdf(x),  pdf(x) = exp(-x^2 / 2) / sqrt(2 pi)
    (4)  gelu(x) ~ x (1 + t) / 2,  t = tanh(u),  u = sqrt(2 / pi) (x + 0.044715 x^3)         the tanh form
    (5)  its slope: (1 + t) / 2 + x (1 - t^2) / 2 * sqrt(2 / pi) (1 + 3 * 0.044715 x^2)
    (6)  swish(x) = x s,  s = 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2         the logistic curve instead of the normal one
    (7)  dswish/dx = s + x s (1 - s)

The slope depends on x alone, and its parts are available in the forward, so the forward computes it. The cache is one array,
the slope, and each backward is dx = dy * slope.

Differs: at x = 0 relu's slope is 0, as in PyTorch. In float32, erf is formula 7.1.26 of Abramowitz & Stegun (absolute
error 1.5e-7, the rounding of float32). NumPy has no erf, so float64, for gradient checks, takes the standard
library's erfc one number at a time: its error is below 2e-16, and it takes ten times as long as float32. For very negative x,
erfc keeps its digits, while 1 + erf rounds to 0.
"""
import math

import numpy as np

from tinymae.arguments import check_arrays, check_gradient

_BLOCK = 2**17                  # numbers of a large array on which gelu works at a time


def relu_forward(x: np.ndarray) -> tuple[np.ndarray, tuple]:
    """max(0, x), entry by entry.  x of any shape, float32 or float64 -> y like x; cache : (x > 0,)."""
    check_arrays("relu", x=x)
    slope = x > 0
    return np.maximum(x, 0), (slope,)                           # (1)


def relu_backward(dy: np.ndarray, cache: tuple) -> np.ndarray:
    """Gradient dx of `relu_forward`, shaped like dy."""
    (slope,) = cache
    check_gradient("relu", slope.shape, None, dy=dy)
    return dy * slope


def gelu_forward(x: np.ndarray, approximate: str = "none") -> tuple[np.ndarray, tuple]:
    """x times the probability that a standard normal variable is below x.

    Parameters
    ----------
    x : ndarray of any shape, float32 or float64
    approximate : "none" for (2), as in ViT and MAE; "tanh" for (4), as in GPT-2. PyTorch's option and names

    Returns
    -------
    y : ndarray like x
    cache : (slope,), shaped like x

    Raises
    ------
    TypeError
        if x is not a float32 or float64 array
    ValueError
        if `approximate` is neither
    """
    check_arrays("gelu", x=x)
    if approximate == "none":
        numbers = x.reshape(-1)
        y, slope = np.empty_like(numbers), np.empty_like(numbers)
        for start in range(0, numbers.size, _BLOCK):            # a block stays in the processor's cache from line to line
            block = slice(start, start + _BLOCK)
            cdf, pdf = _normal(numbers[block])
            np.multiply(numbers[block], cdf, out=y[block])      # (2)
            pdf *= numbers[block]
            np.add(cdf, pdf, out=slope[block])                  # (3)
        return y.reshape(x.shape), (slope.reshape(x.shape),)
    if approximate == "tanh":
        root = math.sqrt(2 / math.pi)
        bounded = np.clip(x, -30, 30)                           # beyond, t is -1 or 1 exactly, and x^3 would overflow
        squared = bounded * bounded
        t = squared * (0.044715 * root)
        t += root
        t *= bounded
        np.tanh(t, out=t)
        slope = 1 - t * t                                       # (5)
        squared *= 1.5 * 0.044715 * root
        squared += 0.5 * root
        slope *= squared
        slope *= bounded
        t += 1
        t *= 0.5
        slope += t
        t *= x                                                  # (4)
        return t, (slope,)
    raise ValueError(f"gelu: expected approximate 'none' or 'tanh', got {approximate!r}")


def gelu_backward(dy: np.ndarray, cache: tuple) -> np.ndarray:
    """Gradient dx of `gelu_forward`, shaped like dy."""
    (slope,) = cache
    check_gradient("gelu", slope.shape, slope.dtype, dy=dy)
    return dy * slope


def swish_forward(x: np.ndarray) -> tuple[np.ndarray, tuple]:
    """x times the logistic function of x.  x of any shape, float32 or float64 -> y like x; cache : (slope,), like x."""
    check_arrays("swish", x=x)
    s = np.tanh(0.5 * x)
    s += 1
    s *= 0.5                                                    # the tanh form: nothing overflows, and tanh is fast
    y = x * s                                                   # (6)
    slope = 1 - s
    slope *= y
    slope += s                                                  # (7)
    return y, (slope,)


def swish_backward(dy: np.ndarray, cache: tuple) -> np.ndarray:
    """Gradient dx of `swish_forward`, shaped like dy."""
    (slope,) = cache
    check_gradient("swish", slope.shape, slope.dtype, dy=dy)
    return dy * slope


def _normal(x):
    """Distribution function and density of the standard normal at x, two fresh arrays like x."""
    t = np.abs(x)
    np.minimum(t, 40, out=t)                                    # beyond, the density is 0, and x^2 would overflow
    pdf = t * t
    pdf *= -0.5
    np.exp(pdf, out=pdf)                                        # exp(-x^2 / 2)
    if x.dtype == np.float64:
        erfc = np.fromiter(map(math.erfc, (x * -math.sqrt(0.5)).ravel().tolist()), np.float64, x.size)
        return 0.5 * erfc.reshape(x.shape), pdf * (1 / math.sqrt(2 * math.pi))
    t *= 0.3275911 / math.sqrt(2)
    t += 1
    np.reciprocal(t, out=t)
    cdf = t * -0.5307027145                                     # Horner: half of a5 t^5 + ... + a1 t, with a minus
    for a in (0.7265760135, -0.7107068705, 0.142248368, -0.127414796):
        cdf += a
        cdf *= t
    cdf *= pdf                                                  # minus the tail beyond |x|
    cdf += 0.5
    np.copysign(cdf, x, out=cdf)
    cdf += 0.5
    pdf *= 1 / math.sqrt(2 * math.pi)
    return cdf, pdf
