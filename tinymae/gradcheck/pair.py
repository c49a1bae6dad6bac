"""A forward and its backward, as the checker calls them.

`Pair` copies the arguments, draws dy, freezes every array that a function must not write into, and matches the gradients that
backward returns with the arguments. At the end are the helpers that walk nested containers.
"""
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np

from tinymae import tree
from tinymae.messages import listed
from tinymae.messages import message as _

EPS = float(np.finfo(np.float64).eps)


def differentiable(inputs: dict[str, object], positional: int) -> dict[str, dict[str, np.ndarray]]:
    """{argument: {path: array}} of the arguments that have a gradient: those of the first `positional` inputs with floats."""
    found = {}
    for name in list(inputs)[:positional]:
        leaves = {path: leaf for path, leaf in tree.leaves(inputs[name], name)
                  if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f"}
        if leaves:
            found[name] = leaves
    return found


def _match(returned, wanted, inputs):
    """What backward returned, as {path: array}; instead of a bad array there is a str that says what is wrong."""
    given = [g for g in (returned if isinstance(returned, tuple) else (returned,)) if g is not None]
    if len(given) != len(wanted):
        return {"backward": _wrong_number(returned, given, wanted)}
    found = {}
    for (name, leaves), gradient in zip(wanted.items(), given, strict=True):
        if isinstance(inputs[name], np.ndarray):
            found[name] = _one_gradient(gradient, inputs[name])
            continue
        if not isinstance(gradient, (dict, list)):
            found[name] = _("the gradient is a {kind}, expected a tree like {name}: {leaves}",
                            kind=type(gradient).__name__, name=name, leaves=listed(leaves))
            continue
        branches = dict(tree.leaves(gradient, name))
        for path, leaf in leaves.items():
            found[path] = _one_gradient(branches.get(path), leaf)
        for path in sorted(branches.keys() - dict(tree.leaves(inputs[name], name)).keys()):
            found[path] = _("backward returned a gradient for something that is not among the arguments: a misspelt key?")
    return found


def _wrong_number(returned, given, wanted):
    """A sentence on a backward that returns too many gradients, too few, or none."""
    names = listed(wanted)
    if len(wanted) > 1:
        expected = _("a tuple of {count}: {names}", count=len(wanted), names=names)
    else:
        expected = _("the gradient of {name} alone", name=names)
    if returned is None:
        return _("backward returned None, expected {expected}; is its return missing?", expected=expected)
    if isinstance(returned, list):
        return _("backward returned a list, expected {expected}; `return a, b` makes a tuple, brackets make a list",
                 expected=expected)
    if isinstance(returned, tuple):
        got = _("{count} gradient(s) in a tuple", count=len(given))
    else:
        got = _("one {kind}", kind=type(returned).__name__)
    if len(given) > len(wanted):
        return _("backward returned {got}, expected {expected}; integers, booleans and keyword arguments have no gradient",
                 got=got, expected=expected)
    return _("backward returned {got}, expected {expected}; one for each (give gradcheck arguments without a gradient by "
             "keyword)", got=got, expected=expected)


def _one_gradient(gradient, leaf):
    if gradient is None:
        return _("backward returned no gradient for it")
    if not isinstance(gradient, (np.ndarray, np.generic, float)):
        return _("the gradient is a {kind}, expected an array of shape {shape}", kind=type(gradient).__name__, shape=leaf.shape)
    gradient = np.array(gradient)                               # a copy: the original may be dy itself
    if gradient.dtype != np.float64:
        return _("the gradient is {dtype}, expected float64 as the argument: which line casts it?", dtype=gradient.dtype)
    if not np.isfinite(gradient).all():
        index = unravel(np.argmin(np.isfinite(gradient)), gradient.shape)
        return _("the gradient has {number} at {index}: a division by 0, log of 0 or overflow in backward?",
                 number=gradient[index], index=index)
    return gradient


class Pair:
    """The two functions, a copy of the arguments, and a random dy.

    The first `positional` inputs are passed by position, the others by keyword. freeze is the path of the only array that is
    read-only; None makes all of them read-only.
    """

    def __init__(
        self, forward: Callable, backward: Callable, inputs: dict[str, object], *,
        positional: int, seed: int, freeze: str | None = None,
    ):
        self.functions = forward, backward
        self.positional, self.seed, self.freeze = positional, seed, freeze
        self.inputs = rebuild(lambda path, leaf: _copy(leaf), inputs)      # the checker writes into these
        self.views = rebuild(self._view, self.inputs)                      # the functions see these
        self.wanted = differentiable(self.inputs, positional)
        self.leaves = {path: leaf for leaves in self.wanted.values() for path, leaf in leaves.items()}
        y, self.cache = self.forward()
        self.y = float_parts(y)
        # not default_rng(seed): arguments are often drawn from that, and dy would equal them
        self.dy = _random_like(y, np.random.default_rng([seed, 2]))
        self.weights = [d for d in _parts(self.dy) if d is not None]
        self.size = joint_norm([d * part for d, part in zip(self.weights, self.y, strict=True)])     # |L|, without cancellation

    def _view(self, path, leaf):
        if isinstance(leaf, np.ndarray):
            leaf = leaf.view()
            leaf.flags.writeable = self.freeze not in (None, path)
        return leaf

    def forward(self) -> tuple[object, object]:
        """Run forward, with its own containers and a fresh rng."""
        inputs = _in_own_containers(self.views)
        if inputs.get("rng") is not None:
            inputs["rng"] = np.random.default_rng(inputs["rng"])
        args = [inputs.pop(name) for name in list(inputs)[:self.positional]]
        result = self.functions[0](*args, **inputs)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(_("forward returned a {kind}, expected the tuple (y, cache)", kind=type(result).__name__))
        return result

    def backward(self, cache: object, scale: float = 1.0) -> dict[str, np.ndarray | str]:
        """Run backward on scale * dy: {path: gradient}, or a str that says what is wrong with it."""
        dy = tuple(None if d is None else d * scale for d in _parts(self.dy))
        dy = dy if isinstance(self.dy, tuple) else dy[0]
        with _frozen([leaf for path, leaf in arrays_of({"dy": dy, "cache": cache}) if self.freeze in (None, path)]):
            return _match(self.functions[1](dy, cache), self.wanted, self.inputs)

    def moved(self, path: str, index: object, v: float | np.ndarray, offset: float) -> list[np.ndarray]:
        """The outputs with leaf[index] moved by offset * v."""
        leaf = self.leaves[path]
        here = leaf[index].copy()
        leaf[index] = here + offset * v
        y = float_parts(self.forward()[0])
        leaf[index] = here
        return y

    def forward_elsewhere(self, h: float) -> None:
        """Run forward with all numbers moved by a step, as a later call would: it may leave something behind."""
        here = {path: leaf.copy() for path, leaf in self.leaves.items()}
        for leaf in self.leaves.values():
            leaf += h * np.maximum(1.0, np.abs(leaf))
        self.forward()
        for path, leaf in self.leaves.items():
            leaf[...] = here[path]

    def change(self, y1: list[np.ndarray], y0: list[np.ndarray]) -> float:
        """<dy, y1 - y0>: outputs that did not change add no rounding error."""
        with np.errstate(all="ignore"):
            change = sum(float(np.vdot(d, a - b)) for d, a, b in zip(self.weights, y1, y0, strict=True))
        return np.inf if np.isnan(change) else change           # NaN is kept for "not measured"

    def slope(self, path: str, index: object, v: float | np.ndarray, step: float) -> tuple[float, float]:
        """(1) for leaf[index] moved along v, and its noise (4)."""
        change = self.change(self.moved(path, index, v, step), self.moved(path, index, v, -step))
        return change / (2 * step), 10 * EPS * self.size / step

    def sharp_slope(self, path: str, index: object, v: float | np.ndarray, step: float) -> tuple[float, float]:
        """The slope on which two neighbours among four step sizes agree best, and its uncertainty."""
        slopes, noise = np.array([self.slope(path, index, v, step * factor) for factor in (10, 1, 0.1, 0.01)]).T
        with np.errstate(invalid="ignore"):
            doubt = np.nan_to_num(np.abs(np.diff(slopes)) + noise[1:], nan=np.inf, posinf=np.inf)
        best = np.argmin(doubt)
        return (slopes[best + 1], doubt[best]) if np.isfinite(doubt[best]) else (np.inf, 0.0)


def _parts(y):
    return y if isinstance(y, tuple) else (y,)


def _is_float(part):
    return isinstance(part, (float, np.floating, np.ndarray)) and np.asarray(part).dtype.kind == "f"


def float_parts(y: object) -> list[np.ndarray]:
    """Copies of the floating parts of y; y itself may be a view of the argument that moves next."""
    return [np.array(part) for part in _parts(y) if _is_float(part)]


def _random_like(y, rng):
    """A random dy: normal for arrays; for a number, one of either sign that is clearly neither 0, 1 nor 2."""
    for part in _parts(y):
        if isinstance(part, (complex, np.complexfloating, np.ndarray)) and np.asarray(part).dtype.kind == "c":
            raise TypeError(_("forward returned a y of {dtype}, a gradient check needs real numbers: return (y.real, y.imag)",
                              dtype=np.asarray(part).dtype))
    if not any(_is_float(part) for part in _parts(y)):
        raise TypeError(_("forward returned a y of type {kind}, expected a float, a floating array, or a tuple with one of "
                          "them", kind=type(y).__name__))
    dy = tuple(None if not _is_float(part) else rng.standard_normal(part.shape) if np.ndim(part) else
               float(rng.choice([-1, 1]) * rng.uniform(1.2, 1.8)) for part in _parts(y))
    return dy if isinstance(y, tuple) else dy[0]


def unravel(flat: int, shape: tuple) -> tuple:
    """The index of the element number `flat`, as plain integers."""
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def joint_norm(arrays: list[np.ndarray]) -> float:
    """The norm of several arrays, taken as one vector."""
    return float(np.sqrt(sum(np.vdot(a, a) for a in arrays)))


def rebuild(function: Callable[[str, object], object], value: object, path: str = "") -> object:
    """The same nested dicts, lists and tuples, with function(path, leaf) instead of every leaf."""
    if isinstance(value, dict):
        return {key: rebuild(function, branch, f"{path}.{key}" if path else str(key)) for key, branch in value.items()}
    if isinstance(value, (list, tuple)):
        branches = [rebuild(function, branch, f"{path}.{i}" if path else str(i)) for i, branch in enumerate(value)]
        return value._make(branches) if hasattr(value, "_make") else type(value)(branches)
    return function(path, value)


def _in_own_containers(value):
    """The same leaves in dicts, lists and tuples of their own: `rebuild` without the paths, for what runs most often."""
    if isinstance(value, dict):
        return {key: _in_own_containers(branch) for key, branch in value.items()}
    if isinstance(value, (list, tuple)):
        branches = [_in_own_containers(branch) for branch in value]
        return value._make(branches) if hasattr(value, "_make") else type(value)(branches)
    return value


def leaves_of(value: object) -> list[tuple[str, object]]:
    """[(path, leaf)], as `tree.leaves`, but also of tuples, which caches have."""
    found = []
    rebuild(lambda path, leaf: found.append((path, leaf)), value)
    return found


def arrays_of(value: object) -> list[tuple[str, np.ndarray]]:
    """[(path, array)] of the leaves that are arrays."""
    return [(path, leaf) for path, leaf in leaves_of(value) if isinstance(leaf, np.ndarray)]


def _copy(leaf):
    """A writeable copy of an array, contiguous only if the array is: strided arguments stay strided."""
    if not isinstance(leaf, np.ndarray):
        return leaf
    copy = leaf.copy(order="K")
    if copy.flags.c_contiguous and not leaf.flags.c_contiguous:
        copy = np.repeat(copy, 2, axis=-1)[..., ::2]
    return copy


@contextmanager
def _frozen(arrays):
    arrays = [array for array in arrays if array.flags.writeable]
    arrays.sort(key=lambda array: array.base is not None)       # owners first: their views are freed after them
    for array in arrays:
        array.flags.writeable = False
    try:
        yield
    finally:
        for array in arrays:
            array.flags.writeable = True
