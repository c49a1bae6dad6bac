"""AdamW: write one step of the optimiser.

Lesson 21; Kingma & Ba 2015; Loshchilov & Hutter 2019; numbered as in tinymae.train.optim. g is the gradient of p, and t
counts the steps, from 1. The weight decay wd is AdamW's; lesson 21 writes (3) without it:

    (1)  m = b1 m + (1 - b1) g                          running mean of the gradient
    (2)  v = b2 v + (1 - b2) g^2                        running mean of its square
    (3)  p = p - lr wd p - lr mhat / (sqrt(vhat) + eps),    mhat = m / (1 - b1^t),  vhat = v / (1 - b2^t)
"""
import numpy as np

EXERCISE = "adamw"                                              # python -m tinymae check adamw.py


class AdamW:
    """params and grads are dicts of arrays with the same names; step writes into the arrays of params."""

    def __init__(self, params, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.m = {name: np.zeros_like(p) for name, p in params.items()}
        self.v = {name: np.zeros_like(p) for name, p in params.items()}
        self.t = 0

    def step(self, params, grads, lr):
        """Move every array of params, in place, against its gradient."""
        raise NotImplementedError("equations (1) to (3) for every name")


# ---- hints ----
# 1. m and v are running means that start at 0, so they are too small in the first steps; mhat and vhat correct that.
# 2. t counts the steps, once in each call of `step`, before it is used. The weight decay does not go through m.
# 3. A loop over the names; five lines each, and the last two change params[name] in place with -=.
