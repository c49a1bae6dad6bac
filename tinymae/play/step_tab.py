"""The functions of the tab "step" of the live page: each takes the models and JSON values and returns JSON values.

One pre-norm encoder layer, so small that all its numbers can be read, as a list of its ops. `layer_forward` and
`layer_backward` go through that list and give the numbers of `blocks.encoder_layer_forward` and its backward, to the last bit.

`tinymae.trace` has the shapes of a pass but not its numbers, and attention is one op there; here its three steps can be seen.
"""
import functools
import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinymae import blocks, init, tree
from tinymae.gradcheck import gradcheck
from tinymae.gradcheck.cases import perturbed
from tinymae.messages import either
from tinymae.messages import message as _
from tinymae.ops import activation, attention, layernorm, linear, softmax
from tinymae.play.shown import check_whole, rounded

B, T, D, H, F = 1, 3, 4, 2, 6
LARGEST_CHANGE = 100.0                         # of a number that is changed
SEEDS = 9999
ROUNDING = 1e-12                        # a smaller difference is no change: the gradient of b_k is 0 up to rounding


# ---- ops that are lines inside a function of the package ---------------------------------------------------------------

def _split_forward(*parts):
    """q, k and v, each (B, T, H d) -> (B, H, T, d)."""
    return tuple(x.reshape(B, T, H, -1).swapaxes(1, 2) for x in parts), ()


def _split_backward(dparts, cache):
    return tuple(_merge_forward(dx)[0] for dx in dparts)


def _merge_forward(x):
    """The heads side by side: (B, H, T, d) -> (B, T, H d)."""
    return x.swapaxes(1, 2).reshape(B, T, -1), ()


def _merge_backward(dy, cache):
    return dy.reshape(B, T, H, -1).swapaxes(1, 2)


def _scores_forward(q, k):
    scores = q @ k.swapaxes(-1, -2)                             # (B, H, T, T)
    scores *= 1 / math.sqrt(q.shape[-1])
    return scores, (q, k)


def _scores_backward(dscores, cache):
    q, k = cache
    dscores = dscores * (1 / math.sqrt(q.shape[-1]))            # scores = q k^T / sqrt(d)
    return dscores @ k, dscores.swapaxes(-1, -2) @ q


def _mix_forward(weights, v):
    """Each output is a weighted sum of values."""
    return weights @ v, (weights, v)


def _mix_backward(dy, cache):
    weights, v = cache
    return dy @ v.swapaxes(-1, -2), weights.swapaxes(-1, -2) @ dy


def _add_forward(x, y):
    """The residual connection."""
    return x + y, ()


def _add_backward(dy, cache):
    return dy.copy(), dy.copy()


# ---- wrong backwards, one for each mistake -----------------------------------------------------------------------------

def _add_without_residual(dy, cache):
    return np.zeros_like(dy), dy.copy()


def _softmax_of_diagonal(dp, cache):
    (p,) = cache
    return dp * p * (1 - p)


def _layernorm_gamma_last(dy, cache):
    xhat, rstd, gamma = cache
    dx = dy - dy.mean(axis=-1, keepdims=True) - xhat * (dy * xhat).mean(axis=-1, keepdims=True)
    _dx, dgamma, dbeta = layernorm.layernorm_backward(dy, cache)
    return gamma * rstd * dx, dgamma, dbeta


def _linear_without_dx(dy, cache):
    dx, dw, db = linear.linear_backward(dy, cache)
    return np.zeros_like(dx), dw, db


def _linear_mean_bias(dy, cache):
    dx, dw, db = linear.linear_backward(dy, cache)
    return dx, dw, db / (B * T)


def _scores_unscaled(dscores, cache):
    q, k = cache
    return dscores @ k, dscores.swapaxes(-1, -2) @ q


def _gelu_with_relu_slope(dy, cache):
    (slope,) = cache
    return dy * (slope > 0.5)                                   # where x > 0


# ---- the layer ---------------------------------------------------------------------------------------------------------

class Op(NamedTuple):
    """A pair of functions, its formulas, and where each is in the package: a function, and a part of the line ("" for def)."""

    forward: Callable
    backward: Callable
    formula: str                        # {y}: the first output; {0}, {1}, {2}: the inputs
    back: str
    source: tuple[Callable, str]
    back_source: tuple[Callable, str]


class Node(NamedTuple):
    """One op of the layer; inputs and outputs are names of numbers, or paths of parameters."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Bug(NamedTuple):
    """A wrong backward, and the nodes that get it."""

    nodes: tuple[str, ...]
    backward: Callable
    back: str


_heads = blocks.multi_head_attention_forward, blocks.multi_head_attention_backward
_attention = attention.scaled_dot_product_attention_forward, attention.scaled_dot_product_attention_backward
OPS = {
    "layernorm": Op(
        layernorm.layernorm_forward, layernorm.layernorm_backward,
        "x̂ = ({0} - mean {0}) / √(var {0} + ε),  {y} = {1} x̂ + {2}",
        "g = d{y} {1},  d{0} = (g - mean g - x̂ mean(g x̂)) / √(var {0} + ε),  d{1} = Σ d{y} x̂,  d{2} = Σ d{y}",
        (layernorm.layernorm_forward, ""), (layernorm.layernorm_backward, ""),
    ),
    "linear": Op(
        linear.linear_forward, linear.linear_backward,
        "{y} = {0} {1} + {2}", "d{0} = d{y} {1}ᵀ,  d{1} = {0}ᵀ d{y},  d{2} = Σ d{y}",
        (linear.linear_forward, ""), (linear.linear_backward, ""),
    ),
    "split": Op(
        _split_forward, _split_backward, "(B, T, H d) → (B, H, T, d)", "(B, H, T, d) → (B, T, H d)",
        (_heads[0], "_split_heads(x, heads) for"), (_heads[1], "_merge_heads(dq)"),
    ),
    "scores": Op(
        _scores_forward, _scores_backward, "{y} = {0} {1}ᵀ / √d", "d{0} = d{y} {1} / √d,  d{1} = d{y}ᵀ {0} / √d",
        (_attention[0], "scores = q @"), (_attention[1], "dscores *="),
    ),
    "softmax": Op(
        softmax.softmax_forward, softmax.softmax_backward,
        "{y} = exp({0}) / Σ exp({0})", "d{0} = {y} (d{y} - Σ d{y} {y})",
        (softmax.softmax_forward, ""), (softmax.softmax_backward, ""),
    ),
    "mix": Op(
        _mix_forward, _mix_backward, "{y} = {0} {1}", "d{0} = d{y} {1}ᵀ,  d{1} = {0}ᵀ d{y}",
        (_attention[0], "y = dropped @ v"), (_attention[1], "dv = dropped"),
    ),
    "merge": Op(
        _merge_forward, _merge_backward, "(B, H, T, d) → (B, T, H d)", "(B, T, H d) → (B, H, T, d)",
        (_heads[0], "z = _merge_heads(z)"), (_heads[1], "_split_heads(dz, heads)"),
    ),
    "add": Op(
        _add_forward, _add_backward, "{y} = {0} + {1}", "d{0} = d{y},  d{1} = d{y}",
        (blocks.add_norm_forward, "y = x + y"), (blocks.add_norm_backward, "return dh + dy"),
    ),
    "gelu": Op(
        activation.gelu_forward, activation.gelu_backward,
        "{y} = {0} Φ({0})", "d{0} = d{y} (Φ({0}) + {0} φ({0}))",
        (activation.gelu_forward, ""), (activation.gelu_backward, ""),
    ),
}

NODES = (
    Node("ln1", "layernorm", ("x", "ln1.gamma", "ln1.beta"), ("h₁",)),
    Node("q", "linear", ("h₁", "attn.q.w", "attn.q.b"), ("q",)),
    Node("k", "linear", ("h₁", "attn.k.w", "attn.k.b"), ("k",)),
    Node("v", "linear", ("h₁", "attn.v.w", "attn.v.b"), ("v",)),
    Node("split", "split", ("q", "k", "v"), ("qₕ", "kₕ", "vₕ")),
    Node("scores", "scores", ("qₕ", "kₕ"), ("s",)),
    Node("softmax", "softmax", ("s",), ("p",)),
    Node("mix", "mix", ("p", "vₕ"), ("zₕ",)),
    Node("merge", "merge", ("zₕ",), ("z",)),
    Node("out", "linear", ("z", "attn.out.w", "attn.out.b"), ("a",)),
    Node("add1", "add", ("x", "a"), ("x₁",)),
    Node("ln2", "layernorm", ("x₁", "ln2.gamma", "ln2.beta"), ("h₂",)),
    Node("fc1", "linear", ("h₂", "ffn.fc1.w", "ffn.fc1.b"), ("u",)),
    Node("gelu", "gelu", ("u",), ("g",)),
    Node("fc2", "linear", ("g", "ffn.fc2.w", "ffn.fc2.b"), ("f",)),
    Node("add2", "add", ("x₁", "f"), ("y",)),
)
SYMBOLS = {
    "ln1.gamma": "γ₁", "ln1.beta": "β₁", "attn.q.w": "W_q", "attn.q.b": "b_q", "attn.k.w": "W_k", "attn.k.b": "b_k",
    "attn.v.w": "W_v", "attn.v.b": "b_v", "attn.out.w": "W_o", "attn.out.b": "b_o", "ln2.gamma": "γ₂", "ln2.beta": "β₂",
    "ffn.fc1.w": "W₁", "ffn.fc1.b": "b₁", "ffn.fc2.w": "W₂", "ffn.fc2.b": "b₂",
}
_LINEAR = ("q", "k", "v", "out", "fc1", "fc2")
BUGS = {
    "residual": Bug(("add1", "add2"), _add_without_residual, "d{0} = 0,  d{1} = d{y}"),
    "softmax": Bug(("softmax",), _softmax_of_diagonal, "d{0} = d{y} {y} (1 - {y})"),
    "layernorm": Bug(
        ("ln1", "ln2"), _layernorm_gamma_last,
        "d{0} = {1} (d{y} - mean d{y} - x̂ mean(d{y} x̂)) / √(var {0} + ε),  d{1} = Σ d{y} x̂,  d{2} = Σ d{y}",
    ),
    "keys": Bug(("k",), _linear_without_dx, "d{0} = 0,  d{1} = {0}ᵀ d{y},  d{2} = Σ d{y}"),
    "bias": Bug(_LINEAR, _linear_mean_bias, "d{0} = d{y} {1}ᵀ,  d{1} = {0}ᵀ d{y},  d{2} = Σ d{y} / (B T)"),
    "scale": Bug(("scores",), _scores_unscaled, "d{0} = d{y} {1},  d{1} = d{y}ᵀ {0}"),
    "gelu": Bug(("gelu",), _gelu_with_relu_slope, "d{0} = d{y} [{0} > 0]"),
}


def layer_forward(x: np.ndarray, p: dict) -> tuple[np.ndarray, tuple]:
    """`blocks.encoder_layer_forward(x, p, H)`, op by op; the cache is (all numbers by name, the caches of the ops, p)."""
    values, caches = {"x": x, **dict(tree.leaves(p))}, []
    for node in NODES:
        y, cache = OPS[node.op].forward(*(values[name] for name in node.inputs))
        values.update(zip(node.outputs, _parts(y), strict=True))
        caches.append(cache)
    return values["y"], (values, caches, p)


def layer_backward(dy: np.ndarray, cache: tuple, bug: str = "none") -> tuple[np.ndarray, dict]:
    """Gradients (dx, dp) of `layer_forward`; `bug` is "none" or one of BUGS."""
    gradients, _paths = _all_gradients(dy, cache, bug)
    return gradients["x"], tree.unflatten({path: gradients[path] for path in SYMBOLS}, cache[2])


def _all_gradients(dy, cache, bug):
    """{name: gradient} of all numbers, and what each node brings to it: {node: a gradient for each of its inputs}."""
    gradients, paths = {"y": dy}, {}
    for node, node_cache in zip(reversed(NODES), reversed(cache[1]), strict=True):
        backward = BUGS[bug].backward if _is_broken(node, bug) else OPS[node.op].backward
        dys = tuple(gradients[name] for name in node.outputs)
        paths[node.name] = _parts(backward(dys if len(dys) > 1 else dys[0], node_cache))
        for name, part in zip(node.inputs, paths[node.name], strict=True):
            gradients[name] = gradients[name] + part if name in gradients else part     # used twice: both paths bring gradient
    return gradients, paths


def _is_broken(node, bug):
    return bug in BUGS and node.name in BUGS[bug].nodes


def _parts(y):
    return y if isinstance(y, tuple) else (y,)


# ---- what the page asks ------------------------------------------------------------------------------------------------

def layer_step(models: object, *, seed: int, change: dict | None, bug: str = "none") -> dict:
    """Every op of the forward and the backward pass, with its numbers. The loss is the sum of w * y, for fixed weights w = dy.

    Parameters
    ----------
    models : not needed
    seed : of the input, the parameters and dy
    change : {"name": "x" or the path of a parameter, "index", "value"}: one number that is replaced; or None
    bug : "none", or one of BUGS: a backward that is replaced by a wrong one

    Returns
    -------
    "nodes" : in the order of the forward, {"name", "op", "forward", "backward"}; each of the two is a box {"formula", "file",
        "line", "inputs", "outputs", "broken"}
    "dx" : a tensor
    "numbers" : x and the parameters, tensors with their "path"
    "loss" : {"now", "before", "predicted": before + slope * change, "slope": the gradient of the number that was changed}

    A tensor is {"name", "shape", "values", "before", "paths"}: before holds None for each number that is as without the change
    and the bug, else what it was, and is None if all of them are; a gradient is the sum over so many paths. The inputs of a
    forward have a "path" as well, None if they cannot be changed.
    """
    x, p, dy = _drawn(seed)
    _check_bug(bug)
    before = _pass(x, p, dy, "none")
    loss = {"now": 0.0, "before": _loss(before, dy), "predicted": None, "slope": None}
    now = before
    if change is not None:
        name, index, value = _checked_change(change, before[0])
        slope = _pass(x, p, dy, bug)[1][name][index]
        moved = before[0][name].copy()
        loss |= {"slope": rounded(slope), "predicted": rounded(loss["before"] + slope * (value - moved[index]))}
        moved[index] = value
        if name == "x":
            x = moved
        else:
            p = tree.unflatten({path: moved if path == name else leaf for path, leaf in tree.leaves(p)}, p)
    if change is not None or bug != "none":
        now = _pass(x, p, dy, bug)
    loss |= {"now": rounded(_loss(now, dy)), "before": rounded(loss["before"])}
    return {
        "nodes": [{"name": node.name, "op": node.op, "forward": _forward_box(node, now, before),
                   "backward": _backward_box(node, now, before, bug)} for node in NODES],
        "dx": _tensor("dx", now[1]["x"], before[1]["x"], paths=2),
        "numbers": [{"path": path, **_tensor(_symbol(path), now[0][path], before[0][path])} for path in ("x", *SYMBOLS)],
        "loss": loss,
    }


def broken(models: object, *, seed: int, bug: str) -> dict:
    """The gradient check of the layer, with the backward that `bug` makes wrong.

    Parameters
    ----------
    models : not needed
    seed : as `step`
    bug : "none", or one of BUGS

    Returns
    -------
    "rows" : {"tensor", "worst": index, "analytic", "numeric", "error", "ok", "diagnosis"} for x and each parameter
    "wrong" : how many of them are
    """
    x, p, _dy = _drawn(seed)
    _check_bug(bug)
    rows = gradcheck(layer_forward, functools.partial(layer_backward, bug=bug), x, p)
    return {
        "rows": [{
            "tensor": row.tensor, "worst": list(row.worst), "ok": row.ok, "diagnosis": row.diagnosis,
            **{name: rounded(number) if math.isfinite(number) else None
               for name, number in (("analytic", row.analytic), ("numeric", row.numeric), ("error", row.error))},
        } for row in rows],
        "wrong": sum(not row.ok for row in rows),
    }


def _drawn(seed):
    """x (B, T, D), parameters and dy of a seed; no gamma is 1 and no bias 0."""
    check_whole("seed", seed, 0, SEEDS)
    rng = np.random.default_rng(seed)
    p = perturbed(init.encoder_layer(D, H, F, rng, dtype=np.float64), rng)
    return rng.normal(size=(B, T, D)), p, rng.normal(size=(B, T, D))


def _pass(x, p, dy, bug):
    """(numbers, gradients, gradients of each path) of a forward and a backward."""
    _y, cache = layer_forward(x, p)
    return cache[0], *_all_gradients(dy, cache, bug)


def _loss(result, dy):
    return float((result[0]["y"] * dy).sum())


def _forward_box(node, now, before):
    op = OPS[node.op]
    return {
        "formula": _formula(op.formula, node), **_place(*op.source), "broken": False,
        "inputs": [_tensor(_symbol(name), now[0][name], before[0][name]) | {"path": name if _may_change(name) else None}
                   for name in node.inputs],
        "outputs": [_tensor(_symbol(name), now[0][name], before[0][name]) for name in node.outputs],
    }


def _backward_box(node, now, before, bug):
    op, is_broken = OPS[node.op], _is_broken(node, bug)
    formula, source = (BUGS[bug].back, (BUGS[bug].backward, "")) if is_broken else (op.back, op.back_source)
    return {
        "formula": _formula(formula, node), **_place(*source), "broken": is_broken,
        "inputs": [_tensor("d" + _symbol(name), now[1][name], before[1][name], paths=_uses(name)) for name in node.outputs],
        "outputs": [_tensor("d" + _symbol(name), part, old, paths=_uses(name)) for name, part, old in zip(
            node.inputs, now[2][node.name], before[2][node.name], strict=True)],
    }


def _uses(name):
    return max(1, sum(node.inputs.count(name) for node in NODES))


def _may_change(name):
    return name == "x" or name in SYMBOLS


def _symbol(name):
    return SYMBOLS.get(name, name)


def _formula(formula, node):
    return formula.format(*map(_symbol, node.inputs), y=_symbol(node.outputs[0]))


def _place(function, text):
    """The file in the repository, and the first line from the start of the function that contains the text."""
    lines, start = inspect.findsource(function)
    line = next(number for number, line in enumerate(lines[start:], start + 1) if text in line)
    return {"file": function.__module__.replace(".", "/") + ".py", "line": line}


def _tensor(name, array, before, paths=1):
    differs = (np.abs(array - before) > ROUNDING).ravel()
    return {
        "name": name, "shape": list(array.shape), "values": rounded(array.ravel()), "paths": paths,
        "before": [rounded(old) if is_new else None for old, is_new in zip(before.ravel().tolist(), differs, strict=True)]
        if differs.any() else None,
    }


def _check_bug(bug):
    if bug != "none" and bug not in BUGS:
        raise ValueError(_("expected a bug, {names}, got {bug!r}", names=either(["none", *BUGS]), bug=bug))


def _checked_change(change, values):
    """(name, index, value) of a change, if it fits the numbers of the layer."""
    if not isinstance(change, dict) or change.keys() != {"name", "index", "value"}:
        raise ValueError(_("expected a change with name, index and value, got {change!r}", change=change))
    name, index, value = change["name"], change["index"], change["value"]
    if not isinstance(name, str) or not _may_change(name):
        raise ValueError(_("expected the name of a number that can be changed, {names}, got {name!r}",
                           names=either(["x", *SYMBOLS]), name=name))
    shape = values[name].shape
    if not isinstance(index, list) or len(index) != len(shape) or not all(
        type(i) is int and 0 <= i < size for i, size in zip(index, shape, strict=True)
    ):
        raise ValueError(_("expected an index into {name} of shape {shape}, one number for each axis, counted from 0, got "
                           "{index!r}", name=name, shape=shape, index=index))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST_CHANGE:
        raise ValueError(_("value is {value!r}, expected a number from {low:g} to {high:g}", value=value, low=-LARGEST_CHANGE,
                           high=LARGEST_CHANGE))
    return name, tuple(index), float(value)


FUNCTIONS = {"step": layer_step, "broken": broken}
