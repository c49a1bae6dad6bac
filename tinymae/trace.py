"""A table of every op of a pass, forward and backward side by side.

    with trace() as t:
        y, cache = encoder_layer_forward(x, p, heads=2)
        dx, dp = encoder_layer_backward(dy, cache)
    print(t)

Each call of a function `f_forward` is one row, in the order of the forward pass; the calls inside a block are indented below
it. On the right is its `f_backward`, identified by the cache that the forward returned. Any pair of such names is recorded,
including your own.

Python reports each call while the `with` block runs (`sys.setprofile`), so the ops contain no code for it and it costs nothing
when it is off. A trace holds every cache as long as it exists, and records its own thread only.

Differs: PyTorch needs a hook on each module for this, and records modules only, not the functions inside them.
"""
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from tinymae import tree

# The formulas in a row: the forward, and what its backward does with dy. The derivations are in the ops' docstrings.
FORMULAS = {
    "linear": ("y = x w + b", "dx = dy w^T, dw = x^T dy, db = sum dy"),
    "embedding": ("y = table[ids]", "dtable[v] = sum dy where ids = v"),
    "positional": ("y = x + table", "dx = dy, dtable = sum_batch dy"),
    "softmax": ("p = exp(s) / sum exp(s)", "ds = p (dp - sum dp p)"),
    "dropout": ("y = x keep", "dx = dy keep"),
    "layernorm": ("y = gamma xhat + beta", "dx = rstd (g - mean g - xhat mean(g xhat)), g = dy gamma"),
    "relu": ("y = max(0, x)", "dx = dy [x > 0]"),
    "gelu": ("y = x cdf(x)", "dx = dy (cdf + x pdf)"),
    "swish": ("y = x s, s = 1 / (1 + exp(-x))", "dx = dy (s + x s (1 - s))"),
    "scaled_dot_product_attention": ("y = softmax(q k^T / sqrt d) v", "dv = p^T dy, ds = softmax', dq = ds k, dk = ds^T q"),
    "memory_efficient_attention": ("y = softmax(q k^T / sqrt d) v", "the same, weights computed again tile by tile"),
    "patchify": ("y = patches of x", "dx = image of dy"),
    "gather": ("y = x[ids]", "dx[ids] = dy"),
    "unshuffle": ("y = [x, mask tokens][ids_restore]", "dx = dy of the kept, dmask_token = sum of the others"),
    "masked_mse": ("mean (pred - target)^2 where removed", "dpred = 2 (pred - target) / n where removed"),
    "cross_entropy": ("-log softmax(z)[target]", "dz = (softmax(z) - q) / n"),
    "soft_cross_entropy": ("-sum q log softmax(z)", "dz = (softmax(z) - q) / n"),
    "multi_head_attention": ("concat(heads) W_o", "dxkv = dx_k + dx_v"),
    "add_norm": ("x + sublayer(norm(x))", "both paths of a residual add"),
    "feed_forward": ("act(x W1 + b1) W2 + b2", ""),
    "encoder_layer": ("x + attn, then + ffn", "both paths of a residual add"),
    "decoder_layer": ("x + self, + cross, + ffn", "both paths of a residual add; dmemory"),
}


@dataclass
class Call:
    """One forward and, if it ran, its backward."""

    name: str                                           # without _forward
    depth: int
    inputs: tuple                                       # shapes of the array arguments
    output: tuple = ()                                  # shapes of y, () if the forward raised an error
    norm: float = math.nan                              # of y
    cache: object = field(default=None, repr=False)
    gradient: float = math.nan                          # the norm of dy; nan if no backward ran
    done: bool = False                                  # whether the backward ran


class Trace:
    """The record of `trace`: `print` it, or read `calls`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []                     # in the order of the forward pass

    def __str__(self) -> str:
        rows = [("forward", "shapes", "formula", "|y|", "backward", "|dy|")]
        for call in self.calls:
            formula, gradient = FORMULAS.get(call.name.lstrip("_"), ("", ""))
            shapes = " ".join(map(_written, call.inputs)) + " -> " + " ".join(map(_written, call.output))
            rows.append((
                "  " * call.depth + call.name, shapes, formula, _number(call.norm), gradient if call.done else "(not run)",
                _number(call.gradient) if call.done else "",
            ))
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


@contextmanager
def trace() -> Iterator[Trace]:
    """Record every `*_forward` and `*_backward` that this thread calls inside the `with` block.

    A profiler that was active before is active again afterwards.
    """
    record = Trace()
    listener = _Listener(record.calls)
    before = sys.getprofile()
    sys.setprofile(listener)
    try:
        yield record
    finally:
        sys.setprofile(before)


@dataclass(frozen=True)
class Fault:
    """Where the first number that is not finite came from."""

    op: str                 # such as "softmax_forward"
    layers: list[str]       # what it is inside, from the outside, each with its number among its siblings: "encoder_layer 3"
    largest: float          # the largest magnitude that went into it; nan if a number there was not finite already

    def __str__(self) -> str:
        where = f" in {' > '.join(self.layers)}" if self.layers else ""
        went_in = f"into which numbers up to {self.largest:.3g} went"
        if math.isnan(self.largest):
            went_in = "into which such a number went: it is in the data or in a parameter"
        return f"the first number that is not finite came out of {self.op}{where}, {went_in}"


def first_fault(function: Callable, *arguments: object) -> Fault | None:
    """Run function(*arguments) up to the first `*_forward` or `*_backward` that makes a number that is not finite.

    Such a number went into none of its arguments. If it arose between two ops, in a line of the function that calls them, that
    function is named.

    Parameters
    ----------
    function, *arguments : with `train.parallel.Workers` inside, too: their parts then run one after another in this thread

    Returns
    -------
    Fault, or None if all numbers were finite
    """
    before = sys.getprofile()
    sys.setprofile(_FaultListener([]))
    try:
        with np.errstate(all="ignore"):
            function(*arguments)
    except _FoundError as found:
        return found.fault
    finally:
        sys.setprofile(before)
    return None


class _FoundError(Exception):
    def __init__(self, fault):
        self.fault = fault


class _Listener:
    """Called by Python at every call and return."""

    def __init__(self, calls):
        self.calls, self.open = calls, []

    def __call__(self, frame, event, result):
        name = frame.f_code.co_name
        if event == "call" and name.endswith("_forward"):
            arguments = _arguments(frame)
            shapes = tuple(value.shape for value in arguments if isinstance(value, np.ndarray))
            call = Call(name.removesuffix("_forward"), len(self.open), shapes)
            self.calls.append(call)
            self.open.append((frame, call))
        elif event == "return" and self.open and self.open[-1][0] is frame:
            _, call = self.open.pop()
            if isinstance(result, tuple) and len(result) == 2:      # else it raised, or is not such a pair
                y, call.cache = result
                call.output, call.norm = _shapes(y), _norm(y)
        elif event == "call" and name.endswith("_backward"):
            dy, cache, *_ = [*_arguments(frame), None, None]
            call = self.forward_of(name.removesuffix("_backward"), cache)
            if call:
                call.done, call.gradient = True, _norm(dy)

    def forward_of(self, name, cache):
        """The latest Call of this name that returned this cache and has had no backward; or None."""
        for call in reversed(self.calls):
            if not call.done and call.name == name and _same(call.cache, cache):
                return call
        return None


class _FaultListener(_Listener):
    """Raises a _FoundError at the first result that is not finite."""

    def __init__(self, calls):
        super().__init__(calls)
        self.running = []                               # (frame, its Call, the arrays that went in), the innermost last

    def __call__(self, frame, event, result):
        name = frame.f_code.co_name
        if event == "call" and name.endswith("_backward"):
            arguments = _arguments(frame)
            call = self.forward_of(name.removesuffix("_backward"), arguments[1]) if len(arguments) > 1 else None
            self.running.append((frame, call, list(_floats(arguments[:1]))))
            if call:
                call.done, call.cache = True, None      # as the pass itself does, it lets go of what is used
            return
        super().__call__(frame, event, result)
        if event == "call" and name.endswith("_forward"):
            self.running.append((frame, self.calls[-1], list(_floats(_arguments(frame)))))
        elif event == "return" and self.running and self.running[-1][0] is frame:
            _, call, inputs = self.running.pop()
            y = result[0] if name.endswith("_forward") and isinstance(result, tuple) else result
            if not all(np.isfinite(array).all() for array in _floats([y])):
                largest = max((float(np.max(np.abs(array), initial=0)) for array in inputs), default=0.0)
                if not all(np.isfinite(array).all() for array in inputs):
                    if self.running:                    # then it arose in a function around this one, or before
                        return
                    largest = math.nan
                raise _FoundError(Fault(name, self.layers_of(call) if call else [], largest))

    def layers_of(self, call):
        """What the call is inside, from the outside."""
        layers, depth, at = [], call.depth, next(i for i, other in enumerate(self.calls) if other is call)
        while depth > 0:
            siblings = []                               # of the parent: the calls before it at its depth
            for other in reversed(self.calls[:at]):
                if other.depth < depth - 1:
                    break
                if other.depth == depth - 1:
                    siblings.append(other)
            parent = siblings[0]
            number = sum(other.name == parent.name for other in siblings) - 1
            layers.insert(0, f"{parent.name} {number}" if depth > 1 else parent.name)
            depth, at = depth - 1, next(i for i, other in enumerate(self.calls) if other is parent)
        return layers


def _floats(values):
    """The floating-point arrays in values, and in trees among them."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _floats(value)
        elif isinstance(value, dict):
            yield from _floats(leaf for _, leaf in tree.leaves(value))
        elif isinstance(value, (np.ndarray, np.floating)) and value.dtype.kind == "f":
            yield np.asarray(value)


def _arguments(frame):
    """Values of the arguments, positional ones first."""
    code, values = frame.f_code, frame.f_locals         # read once: each access builds it again
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return [values[name] for name in names]


def _same(a, b):
    """Whether two caches are the same; a tuple may have been packed again from the same arrays."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
    return a is b


def _parts(y):
    return y if isinstance(y, tuple) else (y,)


def _shapes(y):
    return tuple(np.shape(part) for part in _parts(y) if part is not None)


def _norm(y):
    with np.errstate(all="ignore"):                     # a pass that overflows can be traced, too
        return float(np.sqrt(sum(np.vdot(part, part) for part in _parts(y) if part is not None)))


def _written(shape):
    return "(" + ", ".join(map(str, shape)) + ")" if shape else "number"


def _number(value):
    return f"{value:.3g}"
