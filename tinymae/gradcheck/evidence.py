"""The evidence that a hypothesis may use: the arrays of one wrong gradient, and comparisons between them."""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinymae.messages import message as _

MATCH = 1e-5            # two gradients are the same if they differ by less than this fraction of their norm


@dataclass(frozen=True, eq=False)
class Case:
    """One tensor whose gradient is wrong, and the evidence.

    analytic and numeric have its shape; numeric is NaN where it was not measured.  gradients is {tensor: (analytic,
    numeric)} for all tensors, inputs {path: leaf} for all arguments and options, y and dy list the floating outputs and
    their gradients.  rescaled(s) is the analytic gradient for s * dy.  passes({path: leaf}) tells whether the gradient of
    this tensor is right with those arguments replaced, lost({path: leaf}) whether it is then 0 although y depends on it.
    """

    tensor: str
    analytic: np.ndarray
    numeric: np.ndarray
    gradients: dict[str, tuple[np.ndarray, np.ndarray]]
    inputs: dict[str, object]
    dy: list[np.ndarray]
    y: list[np.ndarray]
    rescaled: Callable[[float], np.ndarray]
    passes: Callable[[dict], bool]
    lost: Callable[[dict], bool]


def exchange(tensor: str, other: str) -> str:
    """How to correct two gradients if one is returned instead of the other."""
    if "." in tensor and "." in other:
        return _("put each under its own key, and unpack the gradients of another backward in the order that it returns them")
    return _("return one for each, in the order of forward's arguments")


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """a equals b up to MATCH, where b was measured; two zeros are no evidence and are not the same."""
    if a.shape != b.shape:
        return False
    known = np.isfinite(b)
    size = np.linalg.norm(b[known])
    return bool(size > 0 and np.linalg.norm(a[known] - b[known]) <= MATCH * size)


def wrong_elements(case: Case) -> np.ndarray:
    """True where analytic and numeric differ by more than MATCH of the largest element."""
    known = np.isfinite(case.numeric)
    difference = np.abs(case.analytic - np.where(known, case.numeric, case.analytic))
    return difference > MATCH * np.abs(case.numeric[known]).max(initial=0.0)


def zero_sums(gradient: np.ndarray) -> set[int]:
    """The axes along which every sum of the gradient is 0."""
    size = np.linalg.norm(gradient)
    return {axis for axis in range(gradient.ndim)
            if gradient.shape[axis] > 1 and np.linalg.norm(gradient.sum(axis=axis)) <= MATCH * size}


def arrays(case: Case, kinds: str) -> dict[str, np.ndarray]:
    """{path: array} of the inputs whose dtype is of one of these kinds, as NumPy's letters: "f", "iu", "b"."""
    return {path: leaf for path, leaf in case.inputs.items() if isinstance(leaf, np.ndarray) and leaf.dtype.kind in kinds}
