"""The shapes in the docstrings, compared with real arrays: a docstring that states a wrong shape fails here.

The arguments, the result and the gradients of each case of the gradient check are compared with the docstrings of its forward
and backward. Within one case a letter is one size, and ``...`` stands for the same axes.
"""
import inspect
import re
import sys

import numpy as np
import pytest

from tinymae.gradcheck.cases import checks

CASES = {case.name: case for case in checks()}
COVERED = 132                           # arguments, results and gradients with a shape: all of today's, and no fewer later
ENTRY = re.compile(r"^(\w[\w, ]*) : (.*(?:\n    .*)*)", re.MULTILINE)               # x, y : description
MENTION = re.compile(r"\b(\w+) (of any shape|(?:shaped )?like \w+|\([^()]*\))")      # without sections: dy (B, T, D)
SHAPE = re.compile(r"(?:of shape |broadcastable to |^)(\([^()]*\))")


def documented(function):
    """{name: its description} in the docstring of a function."""
    text = inspect.getdoc(function)
    found = {name: says for names, says in ENTRY.findall(text) for name in names.split(", ")}
    if "Parameters\n" not in text:
        found |= MENTION.findall(text)
    for name, says in found.items():
        if other := re.match(r"as `(\w+)`", says):              # the description is that of another function's argument
            found[name] = documented(getattr(inspect.getmodule(function), other[1])).get(name, "")
    return found


def result_name(function):
    return re.search(r"(?:^Returns\n-+\n|-> )(\w+) ", inspect.getdoc(function), re.MULTILINE)[1]


def gradient_names(function):
    names = re.search(r"Gradients? (?:\(([^)]*)\)|(\w+))", inspect.getdoc(function))
    return (names[1] or names[2]).split(", ")


def value_of(axis, sizes):
    """The size of an axis such as D, 1 + K or H d; None if a letter in it is unknown."""
    terms = [[int(f) if f.isdigit() else sizes.get(f) for f in term.split()] for term in axis.split(" + ")]
    return None if any(None in term for term in terms) else sum(int(np.prod(term)) for term in terms)


def expected(text, sizes, shape=()):
    """The shape that "(B, 1 + K, D)" states; a letter that is not in `sizes` yet is entered as `shape` has it."""
    axes = [axis.strip() for axis in text.strip("()").split(",") if axis.strip()]
    leading = ()
    if axes[:1] == ["..."]:
        axes = axes[1:]
        leading = sizes.setdefault("...", shape[: len(shape) - len(axes)])
    for axis, size in zip(axes, shape[len(leading) :], strict=False):
        if defines := re.fullmatch(r"(?:(\d+) \+ )?([A-Za-z]\w*)", axis):
            sizes.setdefault(defines[2], size - int(defines[1] or 0))
    return (*leading, *(value_of(axis, sizes) for axis in axes))


def compare(owner, name, value, docs, sizes):
    """Raise an AssertionError unless the value has the shape that is documented; enter new letters into `sizes`."""
    shape, says = np.shape(value), docs.get(name, "")
    stated = SHAPE.findall(says)
    if like := re.search(r"(?:like|broadcastable to) (\w+)", says):
        stated += SHAPE.findall(docs.get(like[1], "")) or ["(...)"]
    elif "of any shape" in says or says.startswith("scalar"):
        stated.append("()" if says.startswith("scalar") else "(...)")
    assert stated, f"{owner}: the docstring states no shape of {name}, which is {shape}"
    for text in stated:                                         # one, or several: "(B,), or ... of shape (B, V)"
        trial = dict(sizes)
        full = expected(text, trial, () if "broadcastable" in says else shape)
        ends = full[len(full) - len(shape) :]
        if shape == full or ("broadcastable" in says and len(shape) == len(ends)
                             and all(m in (1, n) for m, n in zip(shape, ends, strict=True))):
            sizes |= trial
            return
    raise AssertionError(f"{owner}: {name} is {shape}, but its docstring says {says.splitlines()[0]!r}; so far {sizes}")


def watched(case):
    """[(function, its arguments, its result)] of the forward and the backward of a case, as it calls them."""
    backward = case.function.__name__.removesuffix("_forward") + "_backward"
    pair = {function.__code__: function for function in (case.function, getattr(inspect.getmodule(case.function), backward))}
    arguments, seen = {}, []

    def listen(frame, event, result):
        if event == "call" and frame.f_code in pair:
            arguments[frame] = dict(frame.f_locals)
        elif event == "return" and frame in arguments:
            seen.append((pair[frame.f_code], arguments.pop(frame), result))

    rng = {"rng": np.random.default_rng(case.options["rng"])} if "rng" in case.options else {}
    sys.setprofile(listen)
    try:
        y, cache = case.forward(*case.args, **case.options | rng)
        case.backward(np.ones_like(y) if np.ndim(y) else 1.0, cache)
    finally:
        sys.setprofile(None)
    return seen


def check_shapes(case, lies=()):
    """Compare a case with its docstrings, and return {"function.name"} of all arrays; `lies` {"function.name": description}."""
    def docs_of(function):
        return {name: dict(lies).get(f"{function.__name__}.{name}", says) for name, says in documented(function).items()}

    (forward, given, (y, _)), (backward, upstream, gradients) = watched(case)
    docs, sizes = docs_of(forward), {}
    for name, value in given.items():
        if isinstance(value, int) and (letter := re.match(r"(?:int, )?([A-Z]\w*)\b", docs.get(name, ""))):
            sizes[letter[1]] = value                            # heads : H
    given = {name: value for name, value in given.items() if isinstance(value, np.ndarray)} | {result_name(forward): y}
    for name in sorted(given, key=lambda name: "broadcastable" in docs.get(name, "")):
        compare(forward.__name__, name, given[name], docs, sizes)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    gradients = dict(zip(gradient_names(backward), gradients, strict=True))
    gradients = {name: value for name, value in gradients.items() if isinstance(value, np.ndarray)}
    for name, value in gradients.items():
        compare(backward.__name__, name, value, {name: docs[name[1:]]} | docs, sizes)
    docs = docs_of(backward)
    for name, value in (gradients | upstream).items():
        if name in docs and np.ndim(value):
            compare(backward.__name__, name, value, docs, sizes)
    return {f"{forward.__name__}.{name}" for name in given} | {f"{backward.__name__}.{name}" for name in gradients}


@pytest.mark.parametrize("name", CASES)
def test_documented_shapes(name):
    check_shapes(CASES[name])


def test_how_many_are_compared():
    assert len(set().union(*(check_shapes(case) for case in CASES.values()))) >= COVERED


@pytest.mark.parametrize(("case", "name", "lie"), [
    ("linear", "linear_forward.w", "ndarray of shape (O, I)"),
    ("linear", "linear_backward.db", "(I,)"),
    ("linear", "linear_forward.y", "ndarray of shape (O, ...)"),
    ("relu", "relu_forward.y", "(B, T)"),
    ("layernorm", "layernorm_forward.gamma", "ndarray"),
    ("embedding, repeated ids", "embedding_forward.y", "ndarray of shape (..., T, D)"),
    ("softmax, mask", "softmax_forward.mask", "boolean ndarray broadcastable to (T,)"),
    ("scaled_dot_product_attention", "scaled_dot_product_attention_forward.v", "ndarray of shape (B, H, Tq, d_v)"),
    ("masked_mse", "masked_mse_forward.loss", "ndarray of shape (B,)"),
    ("decoder", "decoder_forward.memory", "ndarray of shape (B, Tq, D)"),
    ("decoder", "decoder_forward.memory_mask", "boolean ndarray broadcastable to (B, H, Tq, Tq)"),
    ("vit_encoder, visible patches", "vit_encoder_forward.latent", "ndarray of shape (B, K, D)"),
])
def test_a_lie_is_caught(case, name, lie):
    with pytest.raises(AssertionError, match=rf"\b{name.rpartition('.')[2]}\b (is|, which)|states no shape of"):
        check_shapes(CASES[case], {name: lie})


@pytest.mark.parametrize("case", list({case.function: case.name for case in CASES.values()}.values()))
def test_every_shape_is_read(case):
    """No array has 97 entries: whatever description says so is a lie."""
    for name in check_shapes(CASES[case]):
        function, _, array = name.rpartition(".")
        if function.endswith("_forward"):
            with pytest.raises(AssertionError):
                check_shapes(CASES[case], {name: "broadcastable to (97,)" if array.endswith("mask") else "(97,)"})
