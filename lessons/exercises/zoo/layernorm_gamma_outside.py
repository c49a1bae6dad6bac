"""Layer normalisation that passes its gradient check on the first day.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.ops.layernorm:

    (1)  xhat = (x - mean(x)) * rstd,    rstd = 1 / sqrt(var(x) + eps)      mean and var over the last axis
    (2)  y    = gamma * xhat + beta
    (3)  dbeta = sum dy,   dgamma = sum dy * xhat
    (4)  dxhat = dy * gamma
    (5)  dx    = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))
"""
import numpy as np

EXERCISE = "layernorm_gamma_outside"                            # python -m tinymae check layernorm_gamma_outside.py


def layernorm_forward(x, gamma, beta, eps=1e-5):
    xhat = x - x.mean(axis=-1, keepdims=True)                   # (..., D)
    rstd = 1 / np.sqrt((xhat * xhat).mean(axis=-1, keepdims=True) + eps)
    xhat = xhat * rstd                                          # (1)
    y = gamma * xhat + beta                                     # (2)
    return y, (xhat, rstd, gamma)


def layernorm_backward(dy, cache):
    xhat, rstd, gamma = cache
    positions = tuple(range(dy.ndim - 1))
    dbeta = dy.sum(axis=positions)                              # (3)
    dgamma = (dy * xhat).sum(axis=positions)
    dx = dy - dy.mean(axis=-1, keepdims=True) - xhat * (dy * xhat).mean(axis=-1, keepdims=True)
    dx = gamma * rstd * dx                                      # (4), (5)
    return dx, dgamma, dbeta


# ---- why nobody noticed: stop here, and guess first ----
# gamma was multiplied in after the means instead of before. That is exact as long as gamma is 1, which it is at the start
# of every training and in every test at initial values. After training the gradient was 28 % off.
