import numpy as np


def step(self, params, grads, lr):
    self.t += 1
    b1, b2 = self.betas
    for name, g in grads.items():
        self.m[name] = b1 * self.m[name] + (1 - b1) * g         # (1)
        self.v[name] = b2 * self.v[name] + (1 - b2) * g * g     # (2)
        mhat, vhat = self.m[name] / (1 - b1**self.t), self.v[name] / (1 - b2**self.t)
        params[name] -= lr * self.weight_decay * params[name]
        params[name] -= lr * mhat / (np.sqrt(vhat) + self.eps)  # (3)


AdamW.step = step
