"""AdamW with a first step that is right to the last digit.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.train.optim; t counts the steps, from 1:

    (1)  m = b1 m + (1 - b1) g
    (2)  v = b2 v + (1 - b2) g^2
    (3)  p = p - lr wd p - lr mhat / (sqrt(vhat) + eps),    mhat = m / (1 - b1^t),  vhat = v / (1 - b2^t)
"""
import numpy as np

EXERCISE = "adam_stands_still"                                  # python -m tinymae check adam_stands_still.py


class AdamW:
    """params and grads are dicts of arrays with the same names; step writes into the arrays of params."""

    def __init__(self, params, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.m = {name: np.zeros_like(p) for name, p in params.items()}
        self.v = {name: np.zeros_like(p) for name, p in params.items()}
        self.t = 0

    def step(self, params, grads, lr):
        t = self.t + 1
        b1, b2 = self.betas
        for name, g in grads.items():
            self.m[name] = b1 * self.m[name] + (1 - b1) * g     # (1)
            self.v[name] = b2 * self.v[name] + (1 - b2) * g * g                             # (2)
            mhat, vhat = self.m[name] / (1 - b1**t), self.v[name] / (1 - b2**t)
            params[name] -= lr * self.weight_decay * params[name]
            params[name] -= lr * mhat / (np.sqrt(vhat) + self.eps)                          # (3)


# ---- why nobody noticed: stop here, and guess first ----
# t is 1 for ever: self.t + 1 is computed and never kept. The hats go on undoing a start at zero that is long over, and the
# steps have the wrong length. The first step is right, and nobody had the second from anywhere else. The loss fell.
