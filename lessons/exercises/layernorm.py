"""Layer normalisation: write the backward.

Lesson 12; Ba et al. 2016; article A, part 3 (alpha is our gamma); article C, section 4.1.

    (1)  xhat = (x - mean(x)) * rstd,    rstd = 1 / sqrt(var(x) + eps)      mean and var over the last axis
    (2)  y    = gamma * xhat + beta

Backward, from dy:

    (3)  dbeta = sum dy,   dgamma = sum dy * xhat               all positions share gamma and beta
    (4)  dxhat = dy * gamma
    (5)  dx    = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))

Shapes: x, y and dy (B, T, D), or any other (..., D); gamma and beta (D,).
"""
import numpy as np

EXERCISE = "layernorm"                                          # python -m tinymae check layernorm.py


def layernorm_forward(x, gamma, beta, eps=1e-5):
    xhat = x - x.mean(axis=-1, keepdims=True)                   # (..., D)
    rstd = 1 / np.sqrt((xhat * xhat).mean(axis=-1, keepdims=True) + eps)
    xhat = xhat * rstd                                          # (1)
    y = gamma * xhat + beta                                     # (2)
    return y, (xhat, rstd, gamma)


def layernorm_backward(dy, cache):
    """Gradients (dx, dgamma, dbeta): dy (..., D) -> dx (..., D), dgamma (D,), dbeta (D,)."""
    xhat, rstd, gamma = cache
    raise NotImplementedError("equations (3) to (5)")


# ---- hints ----
# 1. Each x_i changes its own xhat, and through the mean and the variance all the others of its position.
# 2. Equation (5) has three terms in its bracket. (4) comes first: dy is multiplied by gamma before any mean is taken.
# 3. dgamma and dbeta are sums over all axes but the last; the two means of (5) run over the last axis with keepdims=True.
