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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

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
            for call in reversed(self.calls):
                if not call.done and call.name == name.removesuffix("_backward") and _same(call.cache, cache):
                    call.done, call.gradient = True, _norm(dy)
                    break


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
