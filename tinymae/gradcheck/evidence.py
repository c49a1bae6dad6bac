"""What a hypothesis may look at: the arrays of one wrong gradient, and comparisons between them."""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MATCH = 1e-5            # two gradients are the same when they differ by less than this part of their norm


@dataclass(frozen=True)
class Case:
    """One tensor whose gradient is wrong, and the evidence.

    analytic and numeric have its shape; numeric is NaN where nobody measured it.  gradients is {tensor: (analytic,
    numeric)} for all tensors, inputs {path: leaf} for all arguments and options, y and dy list the floating outputs and
    their gradients.  rescaled(s) is the analytic gradient for s * dy.  passes({path: leaf}) says whether the gradient of
    this tensor is right when those arguments are replaced, lost({path: leaf}) whether it is then 0 although y depends on it.
    """

    tensor: str
    analytic: np.ndarray
    numeric: np.ndarray
    gradients: dict
    inputs: dict
    dy: list
    y: list
    rescaled: Callable
    passes: Callable
    lost: Callable


def places(tensor, other):
    """What to do about two gradients of which one stands in the other's place."""
    if "." in tensor and "." in other:
        return "put each under its own key, and take what another backward returns in its order"
    return "return one for each, in the order of forward's arguments"


def same(a, b):
    """a equals b up to MATCH, where b was measured; two zeros prove nothing and are not the same."""
    if a.shape != b.shape:
        return False
    known = np.isfinite(b)
    size = np.linalg.norm(b[known])
    return bool(size > 0 and np.linalg.norm(a[known] - b[known]) <= MATCH * size)


def wrong_elements(case):
    """Where analytic and numeric differ by more than MATCH of the largest element."""
    known = np.isfinite(case.numeric)
    difference = np.abs(case.analytic - np.where(known, case.numeric, case.analytic))
    return difference > MATCH * np.abs(case.numeric[known]).max(initial=0.0)


def zero_sums(gradient):
    """The axes along which every sum of the gradient is 0."""
    size = np.linalg.norm(gradient)
    return {axis for axis in range(gradient.ndim)
            if gradient.shape[axis] > 1 and np.linalg.norm(gradient.sum(axis=axis)) <= MATCH * size}


def arrays(case, kinds):
    return {path: leaf for path, leaf in case.inputs.items() if isinstance(leaf, np.ndarray) and leaf.dtype.kind in kinds}
