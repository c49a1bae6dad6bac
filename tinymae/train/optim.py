"""AdamW, gradient clipping, and learning-rate schedules.

Loshchilov & Hutter 2019 (AdamW); Vaswani et al. 2017, section 5.3 (Noam); He et al. 2021, appendix A (warm-up + cosine).

    (1)  m = b1 m + (1 - b1) g                          running mean of the gradient
    (2)  v = b2 v + (1 - b2) g^2                        running mean of its square
    (3)  p = p - lr wd p - lr mhat / (sqrt(vhat) + eps),    mhat = m / (1 - b1^t),  vhat = v / (1 - b2^t)

The hats undo the start at zero. t counts steps, one for the whole tree: an optimiser that counts one for each tensor runs
through its schedule and its hats many times too fast. Adam hides a wrong constant factor in g, since (3) divides it out again:
"the loss falls" proves no gradient.
"""
import math

import numpy as np

from tinymae import tree

BLOCK = 16384  # numbers handled at a time: the five arrays of a block stay in the processor's cache


class AdamW:
    """Adam with decoupled weight decay; equals torch.optim.AdamW, `rates` its parameter groups with an lr of their own.

    Parameters
    ----------
    params : tree of contiguous arrays, to be trained; `step` writes into them
    betas : (float, float), b1 and b2
    eps : float
    weight_decay : float, wd
    decays : tree of bool like params, what wd acts on; None for everything
    rates : tree of float like params, each leaf's factor of the learning rate, in wd's term too; None for 1 everywhere

    Attributes
    ----------
    m, v : trees like params
    t : int, steps done
    """

    def __init__(self, params, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decays=None, rates=None):
        for path, leaf in tree.leaves(params):
            if not leaf.flags.c_contiguous or not leaf.flags.writeable:
                raise ValueError(f"AdamW: expected contiguous, writeable arrays, {path} is not: pass leaf.copy()")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.decays = decays if decays is not None else tree.map(lambda leaf: True, params)
        self.rates = rates if rates is not None else tree.map(lambda leaf: 1.0, params)
        self.m = tree.map(np.zeros_like, params)
        self.v = tree.map(np.zeros_like, params)
        self.t = 0

    def step(self, params, grads, lr):
        """Move params, in place, against grads.

        Parameters
        ----------
        params : the tree given at the start
        grads : tree like params
        lr : float, learning rate of this step
        """
        self.t += 1
        tree.map(lambda *leaves: self._update(*leaves, lr), params, grads, self.m, self.v, self.decays, self.rates)

    def _update(self, p, g, m, v, decay, factor, lr):
        if g.shape != p.shape:
            raise ValueError(f"AdamW: expected a gradient of shape {p.shape}, got {g.shape}")
        lr = lr * factor
        (b1, b2), shrink = self.betas, 1 - lr * self.weight_decay
        rate = lr / (1 - b1**self.t)
        root = math.sqrt(1 - b2**self.t)
        flat = [a.reshape(-1) for a in (p, g, m, v)]
        work = np.empty(min(p.size, BLOCK), p.dtype)
        for start in range(0, p.size, BLOCK):
            p, g, m, v = (a[start : start + BLOCK] for a in flat)
            w = work[: p.size]
            m *= b1                                             # (1)
            m += np.multiply(g, 1 - b1, out=w)
            v *= b2                                             # (2)
            np.multiply(g, 1 - b2, out=w)
            w *= g
            v += w
            if decay:
                p *= shrink
            np.sqrt(v, out=w)                                   # (3)
            w /= root
            w += self.eps
            np.divide(m, w, out=w)
            w *= rate
            p -= w


def clip_grad_norm(grads, max_norm):
    """Scale grads down, in place, so that their joint Euclidean norm is at most max_norm.

    Parameters
    ----------
    grads : tree, fresh from a backward
    max_norm : float

    Returns
    -------
    float, the norm before clipping

    Notes
    -----
    As torch.nn.utils.clip_grad_norm_, with its 1e-6 in the denominator.
    """
    norm = math.sqrt(sum(float(np.vdot(leaf, leaf)) for _, leaf in tree.leaves(grads)))
    scale = max_norm / (norm + 1e-6)
    if scale < 1:
        for _, leaf in tree.leaves(grads):
            leaf *= scale
    return norm


def warmup_cosine(step, total, warmup, lr, min_lr=0.0):
    """Learning rate: a straight line up to lr over `warmup` steps, then half a cosine down to min_lr at `total`.

    step counts from 0, once for each step of the optimiser. He et al. 2021, as in their code.
    """
    if step < warmup:
        return lr * step / warmup
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def noam(step, d_model, warmup=4000, factor=1.0):
    """Learning rate of Vaswani et al. 2017, equation 3: up for `warmup` steps, then down with the root of the step.

        (1)  rate = factor * D^-0.5 * min(step^-0.5, step * warmup^-1.5)

    step counts from 1, once for each step of the optimiser.
    """
    if step < 1:
        raise ValueError(f"noam: expected a step from 1 up, got {step}: 0 to the power of -1/2 is infinite")
    return factor * d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
