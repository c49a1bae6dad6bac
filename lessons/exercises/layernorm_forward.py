"""Layer normalisation: write the forward.

Lesson 12; Ba et al. 2016; article A, part 3 (alpha is our gamma); article C, section 4.1.

    (1)  xhat = (x - mean(x)) / sqrt(var(x) + eps)              mean and var over the last axis: 1 / D, not 1 / (D - 1)
    (2)  y    = gamma * xhat + beta

Shapes: x and y (B, T, D), or any other (..., D); gamma and beta (D,).
"""
import numpy as np

EXERCISE = "layernorm_forward"                                  # python -m tinymae check layernorm_forward.py


def layernorm(x, gamma, beta, eps=1e-5):
    """x (..., D) -> y (..., D)."""
    raise NotImplementedError("equations (1) and (2)")


# ---- hints ----
# 1. Each position is normalised by itself: over its own features, not over the sentence and not over the batch.
# 2. Equation (1): mean and variance over axis -1, with 1 / D; eps is added to the variance, inside the square root.
# 3. Compute x minus its mean once, and take the variance from that: mean and var need keepdims=True.
