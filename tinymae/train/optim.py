"""SGD, AdamW, gradient clipping, learning-rate schedules: parameters and gradients in, changed parameters out. NumPy alone.

An optimiser writes into the arrays of the parameter tree that it is given: nothing is copied, and the tree is the trained one
afterwards. No file changes. `tree.map(lambda leaf: leaf.copy(), params)` keeps the start, and makes contiguous arrays of a
published model's, which are views and otherwise refused. `tasks.classify` copies the encoder that it fine-tunes.

Loshchilov & Hutter 2019 (AdamW); Vaswani et al. 2017, section 5.3 (Noam); He et al. 2021, appendix A (warm-up + cosine).

AdamW:

    (1)  m = b1 m + (1 - b1) g                          running mean of the gradient
    (2)  v = b2 v + (1 - b2) g^2                        running mean of its square
    (3)  p = p - lr wd p - lr mhat / (sqrt(vhat) + eps),    mhat = m / (1 - b1^t),  vhat = v / (1 - b2^t)

The hats correct for the start at zero. t counts steps, once for the whole tree: an optimiser that counts once for each tensor
runs through its schedule and its corrections many times too fast. Adam hides a wrong constant factor in g, since (3) divides it
out again: a falling loss does not show that a gradient is right.

SGD, which is gradient descent if the momentum is 0 (Sutskever et al. 2013):

    (4)  g = g + wd p
    (5)  m = momentum m + g                             the gradients so far, the older the weaker
    (6)  p = p - lr m                                   with Nesterov's momentum: p - lr (g + momentum m)
"""
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from tinymae import tree
from tinymae.arguments import check_arrays, check_scalars

BLOCK = 16384  # numbers updated at a time: the five arrays of a block stay in the processor's cache
JOB = 16 * BLOCK  # numbers that a thread takes at a time: less would cost more than it saves


class SGD:
    """Stochastic gradient descent with momentum, a first optimiser; equals torch.optim.SGD (with dampening 0).

    It is used as `AdamW` is, but `checkpoint.save` keeps the moments of AdamW only.

    Parameters
    ----------
    params : tree of contiguous arrays, to be trained; `step` writes into them
    momentum : in [0, 1); 0.9 is usual
    weight_decay : wd. It is added to the gradient, so momentum acts on it, too: AdamW's does not go through m
    nesterov : look one step ahead
    decays : tree of bool like params, True where wd acts; None for everywhere

    Attributes
    ----------
    m : tree like params
    t : steps done

    Raises
    ------
    TypeError, ValueError
        if an array is not float32 or float64, not contiguous or is read-only, or a number is out of its range
    """

    def __init__(
        self, params: dict, *,
        momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False, decays: dict | None = None,
    ):
        _check_params("SGD", params)
        check_scalars("SGD", "fraction", momentum=momentum)
        check_scalars("SGD", "not_negative", weight_decay=weight_decay)
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.decays = decays if decays is not None else tree.map(lambda leaf: True, params)
        self.m = tree.map(np.zeros_like, params)
        self.t = 0

    def step(self, params: dict, grads: dict, lr: float) -> None:
        """Move params, in place, against grads: arguments as `AdamW.step`."""
        check_scalars("SGD", "not_negative", lr=lr)
        self.t += 1
        tree.map(lambda *leaves: self._update(*leaves, lr), params, grads, self.m, self.decays)

    def _update(self, p, g, m, decay, lr):
        _check_shape("SGD", p, g)
        if decay:
            g = g + self.weight_decay * p                       # (4)
        m *= self.momentum
        m += g                                                  # (5)
        p -= lr * (g + self.momentum * m if self.nesterov else m)           # (6)


class AdamW:
    """Adam with decoupled weight decay; equals torch.optim.AdamW, `rates` its parameter groups with an lr of their own.

    Adam (Kingma & Ba 2015) is AdamW without decay: `AdamW(params)`, since weight_decay is 0 unless it is given.

    Parameters
    ----------
    params : tree of contiguous arrays, to be trained; `step` writes into them
    betas : b1 and b2
    eps : added to the square root
    weight_decay : wd
    decays : tree of bool like params, True where wd acts; None for everywhere
    rates : tree of float like params, each leaf's factor of the learning rate, also in the term with wd; None for 1 everywhere
    mapped : as the built-in `map`; a pool's works on several pieces at once, to the same bits

    Attributes
    ----------
    m, v : trees like params
    t : steps done

    Raises
    ------
    TypeError, ValueError
        if an array is not float32 or float64, not contiguous or is read-only, or a number is out of its range; in `step`,
        if a tree has different keys or a gradient a different shape
    """

    def __init__(
        self, params: dict, *,
        betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
        decays: dict | None = None, rates: dict | None = None, mapped: Callable = map,
    ):
        _check_params("AdamW", params)
        check_scalars("AdamW", "fraction", **{"betas[0]": betas[0], "betas[1]": betas[1]})
        check_scalars("AdamW", "not_negative", eps=eps, weight_decay=weight_decay)
        self.betas, self.eps, self.weight_decay, self.mapped = betas, eps, weight_decay, mapped
        self.decays = decays if decays is not None else tree.map(lambda leaf: True, params)
        self.rates = rates if rates is not None else tree.map(lambda leaf: 1.0, params)
        self.m = tree.map(np.zeros_like, params)
        self.v = tree.map(np.zeros_like, params)
        self.t = 0

    def step(self, params: dict, grads: dict, lr: float) -> None:
        """Move params, in place, against grads.

        Parameters
        ----------
        params : the tree given at the start
        grads : tree like params
        lr : learning rate of this step, at least 0
        """
        check_scalars("AdamW", "not_negative", lr=lr)
        self.t += 1
        pieces = []
        tree.map(lambda *leaves: pieces.extend(self._cut(*leaves, lr)), params, grads, self.m, self.v, self.decays, self.rates)
        self._work(pieces)

    def _cut(self, p, g, m, v, decay, factor, lr):
        """A leaf in pieces of at most JOB numbers: (how many, the call that updates them)."""
        _check_shape("AdamW", p, g)
        flat = [a.reshape(-1) for a in (p, g, m, v)]
        parts = [[a[start : start + JOB] for a in flat] for start in range(0, p.size, JOB)]
        return [(part[0].size, partial(self._update, *part, decay, lr * factor)) for part in parts]

    def _work(self, pieces):
        """Make all calls; a thread takes so many of them that they have JOB numbers together."""
        jobs, size = [], JOB
        for count, call in pieces:
            if size >= JOB:
                jobs.append([])
                size = 0
            jobs[-1].append(call)
            size += count
        for _ in self.mapped(lambda calls: [call() for call in calls], jobs):
            pass

    def _update(self, p, g, m, v, decay, lr):
        flat = p, g, m, v
        (b1, b2), shrink = self.betas, 1 - lr * self.weight_decay
        rate = lr / (1 - b1**self.t)
        root = math.sqrt(1 - b2**self.t)
        work = np.empty(min(flat[0].size, BLOCK), flat[0].dtype)
        for start in range(0, flat[0].size, BLOCK):
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


class Muon(AdamW):
    """AdamW, but the matrices of hidden layers move by orthogonal steps: Jordan et al. 2024, "Muon".

    The gradient of a matrix is mostly a few large directions, and AdamW, which scales each number by itself, follows these.
    Muon makes all directions of a step equally long, so the rare ones are learned as fast. The masked autoencoder of the demo
    needs about half as many steps as with AdamW to the same error.

    For a matrix, with its gradient G:

        (7)   M = momentum M + G
        (8)   U = G + momentum M                            Nesterov's momentum
        (9)   O = U with all singular values near 1         `orthogonal`
        (10)  p = p - lr wd p - lr rate sqrt(max(1, F / D)) O       p is (D, F)

    Embeddings, the first and the last linear map, biases and layer norms move as AdamW moves them.

    Parameters
    ----------
    params : as `AdamW`
    matrices : tree of int like params: 0, moved by AdamW; 1, a matrix; 3, three matrices side by side, as a fused q/k/v
    rate : of the matrices, as a factor of lr
    momentum : in [0, 1)
    betas, eps, weight_decay, decays, rates, mapped : as `AdamW`; matrices use neither betas nor eps

    Differs: torch.optim.Muon takes matrices alone, computes (9) in bfloat16, and averages the momentum, which changes nothing
    but its length, and that is divided out in (9). Attributes are AdamW's; v of a matrix stays 0.
    """

    def __init__(
        self, params: dict, matrices: dict, *,
        rate: float = 10.0, momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, decays: dict | None = None, rates: dict | None = None, mapped: Callable = map,
    ):
        super().__init__(params, betas=betas, eps=eps, weight_decay=weight_decay, decays=decays, rates=rates, mapped=mapped)
        check_scalars("Muon", "fraction", momentum=momentum)
        check_scalars("Muon", "not_negative", rate=rate)
        self.matrices, self.rate, self.momentum = matrices, rate, momentum

    def step(self, params: dict, grads: dict, lr: float) -> None:
        """Move params, in place, against grads: arguments as `AdamW.step`."""
        check_scalars("Muon", "not_negative", lr=lr)
        self.t += 1
        pieces = []

        def add(p, g, m, v, decay, factor, count):
            if count:
                pieces.append((JOB, partial(self._move, p, g, m, decay, factor, count, lr)))
            else:
                pieces.extend(self._cut(p, g, m, v, decay, factor, lr))

        tree.map(add, params, grads, self.m, self.v, self.decays, self.rates, self.matrices)
        self._work(pieces)

    def _move(self, p, g, m, decay, factor, count, lr):
        _check_shape("Muon", p, g)
        lr = lr * factor
        m *= self.momentum                                      # (7)
        m += g
        u = g + self.momentum * m                               # (8)
        if decay:
            p *= 1 - lr * self.weight_decay
        rows, cols = p.shape[0], p.shape[1] // count
        rate = lr * self.rate * math.sqrt(max(1, cols / rows))
        for i in range(count):
            part = slice(i * cols, (i + 1) * cols)
            p[:, part] -= rate * orthogonal(u[:, part])         # (9), (10)


def orthogonal(u: np.ndarray, steps: int = 5) -> np.ndarray:
    """The matrix with the singular vectors of u and singular values near 1, by Newton-Schulz iterations.

        (11)  X = u / |u|                                   singular values in (0, 1]
        (12)  X = a X + (b A + c A A) X,    A = X X^T       each singular value s becomes a s + b s^3 + c s^5, `steps` times

    Parameters
    ----------
    u : ndarray of shape (rows, cols), float32 or float64
    steps : five bring singular values from 0.01 of the largest upwards to between 0.7 and 1.2

    Returns
    -------
    ndarray of the shape and dtype of u, fresh. With u = W S V^T it is about W V^T; of zeros it is zeros

    Notes
    -----
    Source: Jordan et al. 2024, whose a, b, c are chosen for a fast start, so that the values do not settle at exactly 1. Four
    matrix products of the smaller side replace a singular value decomposition.
    """
    x = np.ascontiguousarray(u if u.shape[0] <= u.shape[1] else u.T)
    x = x / (np.linalg.norm(x) + 1e-7)                          # (11)
    a, b, c = (x.dtype.type(value) for value in (3.4445, -4.7750, 2.0315))
    for _ in range(steps):
        square = x @ x.T                                        # A (rows, rows)
        x = a * x + (b * square + c * (square @ square)) @ x    # (12)
    return x if u.shape[0] <= u.shape[1] else x.T


def _check_params(optimiser, params):
    for path, leaf in tree.leaves(params):
        check_arrays(optimiser, **{path: np.atleast_1d(leaf) if isinstance(leaf, np.ndarray) else leaf})
        if not leaf.flags.c_contiguous or not leaf.flags.writeable:
            raise ValueError(f"{optimiser}: expected contiguous, writeable arrays, {path} is not: pass leaf.copy()")


def _check_shape(optimiser, p, g):
    if np.shape(g) != p.shape:
        raise ValueError(f"{optimiser}: expected a gradient of shape {p.shape}, got {np.shape(g)}")


def clip_grad_norm(grads: dict, max_norm: float) -> float:
    """Scale grads down, in place, so that their joint Euclidean norm is at most max_norm.

    Parameters
    ----------
    grads : tree, fresh from a backward
    max_norm : positive; infinity only measures

    Returns
    -------
    norm : before clipping. If it is not finite, grads stay as they are

    Raises
    ------
    ValueError
        if max_norm is not positive: a negative one would reverse the gradient

    Notes
    -----
    As torch.nn.utils.clip_grad_norm_, with its 1e-6 in the denominator; but PyTorch makes 0 and NaN of grads without a finite
    norm. A finite norm means that the square of each number is finite in its dtype, and so AdamW's m and v are, too.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm: expected a positive norm, got {max_norm}: a negative one would reverse the gradient")
    norm = math.sqrt(sum(float(np.vdot(leaf, leaf)) for _, leaf in tree.leaves(grads)))
    scale = max_norm / (norm + 1e-6)
    if scale < 1 and math.isfinite(norm):
        for _, leaf in tree.leaves(grads):
            leaf *= scale
    return norm


def warmup_cosine(step: float, total: float, warmup: float, lr: float, min_lr: float = 0.0) -> float:
    """Learning rate: a straight line up to lr over `warmup` steps, then half a cosine down to min_lr at `total`.

    step counts from 0, once for each step of the optimiser. He et al. 2021, as in their code.

    Raises
    ------
    ValueError
        if step is negative or above total, where the cosine would rise again, or a number is out of its range
    """
    check_scalars("warmup_cosine", "not_negative", warmup=warmup, lr=lr, min_lr=min_lr)
    if not 0 <= step <= total:
        raise ValueError(f"warmup_cosine: expected a step in [0, {total}], got {step}: past its end the cosine rises again")
    if step < warmup:
        return lr * step / warmup
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def noam(step: int, d_model: int, warmup: int = 4000, factor: float = 1.0) -> float:
    """Learning rate of Vaswani et al. 2017, equation 3: up for `warmup` steps, then down with the square root of the step.

        (1)  rate = factor * D^-0.5 * min(step^-0.5, step * warmup^-1.5)

    step counts from 1, once for each step of the optimiser.
    """
    check_scalars("noam", "positive", d_model=d_model, warmup=warmup, factor=factor)
    if step < 1:
        raise ValueError(f"noam: expected a step of at least 1, got {step}: 0 to the power of -1/2 is infinite")
    return factor * d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
