"""Layer normalisation that saves one pass over the data.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.ops.layernorm:

    (1)  xhat = (x - mean(x)) * rstd,    rstd = 1 / sqrt(var(x) + eps)      mean and var over the last axis
    (2)  y    = gamma * xhat + beta
    (3)  dbeta = sum dy,   dgamma = sum dy * xhat
    (4)  dxhat = dy * gamma
    (5)  dx    = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))
"""
import numpy as np

EXERCISE = "layernorm_of_squares"                               # python -m tinymae check layernorm_of_squares.py


def layernorm_forward(x, gamma, beta, eps=1e-5):
    mean = x.mean(axis=-1, keepdims=True)
    var = (x * x).mean(axis=-1, keepdims=True) - mean * mean
    rstd = 1 / np.sqrt(var + eps)
    xhat = (x - mean) * rstd                                    # (1)
    y = gamma * xhat + beta                                     # (2)
    return y, (xhat, rstd, gamma)


def layernorm_backward(dy, cache):
    xhat, rstd, gamma = cache
    positions = tuple(range(dy.ndim - 1))
    dbeta = dy.sum(axis=positions)                              # (3)
    dgamma = (dy * xhat).sum(axis=positions)
    dxhat = dy * gamma                                          # (4)
    dx = dxhat - dxhat.mean(axis=-1, keepdims=True) - xhat * (dxhat * xhat).mean(axis=-1, keepdims=True)
    return rstd * dx, dgamma, dbeta                             # (5)


# ---- why nobody noticed: stop here, and guess first ----
# E[x^2] - E[x]^2 is the variance on paper. On a computer both are large numbers when x is far from 0, and little is left of
# their difference: at an offset of 5000, float32 leaves noise, sometimes below 0, and its root is NaN. All tests had inputs
# near 0, and were right.
