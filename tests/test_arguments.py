"""What anybody may hand to an op or a block: the right result, or an error that names the argument.

The calls are those of the gradient check, which has one for every forward. Hypothesis chooses what is changed in them: how an
array lies in memory, its type, its shape. An op then gives what it gives for plain arrays, or raises a TypeError, ValueError or
IndexError with the name of the argument; never a warning of NumPy, never another exception.
"""
import inspect
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymae import masks
from tinymae.gradcheck.cases import checks
from tinymae.ops import losses, patches, positional

CASES = {case.name: case for case in checks() if case.function.__module__.startswith(("tinymae.ops.", "tinymae.blocks"))}
pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")           # of NumPy itself
every_case = pytest.mark.parametrize("name", CASES)
few = settings(max_examples=8, derandomize=True, deadline=None, database=None)
ALIASES = {                     # what an inner op calls the argument of a block; p stands for each of its branches
    "memory": "xkv", "memory_mask": "mask", "x": "xq|q|k|v", "dy": "dp|dloss|dpatches", "table": "x",
    "p": r"\w+", "norm": "gamma|beta", "dim": "dimension",
}


# ---- a call, and a change in it --------------------------------------------------------------------------------------

def places(nest, path=()):
    """The paths of all arrays in a nest of dicts, lists and tuples."""
    if isinstance(nest, (dict, list, tuple)):
        branches = nest.items() if isinstance(nest, dict) else enumerate(nest)
        return [place for key, branch in branches for place in places(branch, (*path, key))]
    return [path] if isinstance(nest, np.ndarray) else []


def at(nest, path):
    return at(nest[path[0]], path[1:]) if path else nest


def changed(nest, path, value):
    """The nest with another value at the path."""
    if not path:
        return value
    if isinstance(nest, dict):
        return nest | {path[0]: changed(nest[path[0]], path[1:], value)}
    return type(nest)(changed(branch, path[1:], value) if i == path[0] else branch for i, branch in enumerate(nest))


def mapped(function, nest):
    for path in places(nest):
        nest = changed(nest, path, function(at(nest, path)))
    return nest


def call(case, arguments, dy=None):
    """(y, dy, gradients) of a case with these arguments: a dict by their names; dy may be given."""
    items = list(arguments.items())                             # the arrays in front, then the options
    args = [value for _, value in items[: len(case.args)]]
    options = {name: np.random.default_rng(value) if name == "rng" and value is not None else value
               for name, value in items[len(case.args) :]}
    with np.errstate(all="raise", under="ignore"):
        y, cache = case.forward(*args, **options)
        if dy is None:
            dy = np.random.default_rng(5).normal(size=np.shape(y)).astype(np.asarray(y).dtype) if np.ndim(y) else 0.7
        return y, dy, case.backward(dy, cache)


def arguments_of(case):
    names = list(inspect.signature(case.forward).parameters)
    return {**dict(zip(names, case.args, strict=False)), **case.options}


def assert_same(result, expected, tolerance=1e-10):
    assert places(result) == places(expected)
    for path in places(result):
        a, b = at(result, path), at(expected, path)
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def assert_named(error, name):
    """The message has the name of an argument, or what an inner op calls it."""
    assert type(error) in (TypeError, ValueError, IndexError), repr(error)
    assert re.search(rf"\b({name}|{ALIASES.get(name, name)})\b", str(error)), f"{name} is not in: {error}"


def assert_fits(arguments, result):
    """Finite numbers, and a gradient like each argument: a bias of one number that was broadcast would have a longer one."""
    _, _, gradients = result
    for path in places(result):
        assert np.isfinite(at(result, path)).all()
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    for value, gradient in zip(arguments.values(), gradients, strict=False):
        if gradient is not None:
            assert places(value) == places(gradient) and [at(value, p).shape for p in places(value)] == [
                at(gradient, p).shape for p in places(gradient)]


# ---- how an array lies in memory -------------------------------------------------------------------------------------

def reversed_axes(array):
    flipped = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[flipped])[flipped]


def every_second(array):
    wide = np.zeros([2 * n for n in array.shape], array.dtype)
    wide[(slice(None, None, 2),) * array.ndim] = array
    return wide[(slice(None, None, 2),) * array.ndim]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {"Fortran": np.asfortranarray, "reversed": reversed_axes, "every second": every_second, "read-only": read_only}


@every_case
@few
@given(st.data())
def test_layout_and_dtype(name, data):
    case = CASES[name]
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    plain = mapped(lambda array: array.astype(dtype) if array.dtype.kind == "f" else array, arguments_of(case))
    expected = call(case, plain)
    layout = st.sampled_from(list(LAYOUTS.values()))
    strange = mapped(lambda array: data.draw(layout)(array), plain)
    dy = data.draw(layout)(expected[1]) if np.ndim(expected[1]) else expected[1]
    assert_same(call(case, strange, dy), expected, 1e-4 if dtype == np.float32 else 1e-10)


# ---- another type ----------------------------------------------------------------------------------------------------

TYPES = {
    "list": lambda a: a.tolist(), "None": lambda a: None, "number": lambda a: 3, "text": lambda a: "x", "dict": lambda a: {},
    "object": lambda a: a.astype(object), "complex": lambda a: a.astype(complex), "text in an array": lambda a: a.astype(str),
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()), "float16": lambda a: a.astype(np.float16),
    "long double": lambda a: a.astype(np.longdouble), "float32": lambda a: a.astype(np.float32),
    "integer": lambda a: a.astype(np.int64), "uint64": lambda a: np.abs(a).astype(np.uint64), "bool": lambda a: a > 0,
    "masked": lambda a: np.ma.masked_array(a), "matrix": lambda a: np.matrix(a) if a.ndim == 2 else np.ma.masked_array(a),
    "datetime": lambda a: a.astype(np.int64).astype("m8[s]"), "one number": lambda a: np.float64(1.0),
}


@every_case
@few
@given(st.data())
def test_another_type(name, data):
    case = CASES[name]
    arguments = arguments_of(case)
    expected = call(case, arguments)
    place = data.draw(st.sampled_from([*places(arguments), ("dy",)]))
    change = TYPES[data.draw(st.sampled_from(list(TYPES)))]
    given_dy = change(np.asarray(expected[1])) if place == ("dy",) else None
    strange = arguments if place == ("dy",) else changed(arguments, place, change(at(arguments, place)))
    try:
        result = call(case, strange, given_dy)
    except Exception as error:
        assert_named(error, place[0])
    else:
        if place == ("dy",) and np.ndim(expected[1]) == 0:
            return                                              # another number for a number
        if place != ("dy",) and at(strange, place) is None:
            return                                              # no mask, no bias
        gradients = [at(result[2:], path) for path in places(result[2:])]
        if any(gradient.dtype == np.float32 for gradient in gradients):
            assert all(gradient.dtype == np.float32 for gradient in gradients)          # x alone, or a dy that is only moved
            return
        assert_same((result[0], result[2]), (expected[0], expected[2]))


# ---- another shape ---------------------------------------------------------------------------------------------------

SHAPES = {
    "transposed": lambda a: a.T, "an axis in front": lambda a: a[None], "an axis behind": lambda a: a[..., None],
    "without the first": lambda a: a[0] if a.ndim else a[None], "without the last": lambda a: a[..., 0] if a.ndim else a[None],
    "one row": lambda a: a[:1] if a.ndim else a[None], "one column": lambda a: a[..., :1] if a.ndim else a[None],
    "no row": lambda a: a[:0] if a.ndim else a[None], "no column": lambda a: a[..., :0] if a.ndim else a[None],
    "a row more": lambda a: np.concatenate([a, a[:1]]) if a.ndim else a[None], "flat": lambda a: a.reshape(-1),
    "one number": lambda a: a.reshape(-1)[:1], "no axes": lambda a: a.reshape(-1)[0:1].reshape(()),
}


@every_case
@few
@given(st.data())
def test_another_shape(name, data):
    case = CASES[name]
    arguments = arguments_of(case)
    place = data.draw(st.sampled_from(places(arguments)))
    change = SHAPES[data.draw(st.sampled_from(list(SHAPES)))]
    strange = changed(arguments, place, change(at(arguments, place)))
    try:
        result = call(case, strange)
    except Exception as error:
        assert_named(error, r"\w+: expected .* \w+")            # two shapes do not fit: the message may name the other one
        assert re.match(r"\w+: expected ", str(error)), error
    else:
        assert_fits(strange, result)


@every_case
@few
@given(change=st.sampled_from(list(SHAPES)))
def test_another_shape_of_dy(name, change):
    case = CASES[name]
    arguments = arguments_of(case)
    y, dy, gradients = call(case, arguments)
    strange = SHAPES[change](np.asarray(dy))
    if strange.shape == np.shape(y) and np.ndim(y):
        assert_same(call(case, arguments, strange)[2:], (gradients,)) if np.array_equal(strange, dy) else None
        return
    with pytest.raises((TypeError, ValueError)) as caught:
        call(case, arguments, strange)
    assert_named(caught.value, "dy")


@every_case
def test_no_axis_of_any_size(name):
    """Each size of the case becomes 0, in every array that has it: nothing comes out, or the size is refused."""
    case = CASES[name]
    arguments = arguments_of(case)
    for size in sorted({n for place in places(arguments) for n in at(arguments, place).shape}):
        empty = mapped(lambda a, size=size: a[tuple(slice(0 if n == size else None) for n in a.shape)], arguments)
        try:
            result = call(case, empty)
        except Exception as error:
            assert_named(error, r"\w+: expected .* \w+")
        else:
            assert_fits(empty, result)


# ---- functions without a backward ------------------------------------------------------------------------------------

IDS = np.array([[3, 1, 2, 0], [4, 2, 0, 0]])
FUNCTIONS = {
    "padding_mask": (masks.padding_mask, {"ids": IDS, "pad": 0}),
    "causal_padding_mask": (masks.causal_padding_mask, {"ids": IDS, "pad": 0}),
    "shift_right": (masks.shift_right, {"targets": IDS, "bos": 1}),
    "causal_mask": (masks.causal_mask, {"length": 4}),
    "normalise_patches": (losses.normalise_patches, {"patches": np.random.default_rng(0).normal(size=(2, 3, 4)), "eps": 1e-6}),
    "unpatchify": (patches.unpatchify, {"patches": np.random.default_rng(0).normal(size=(2, 6, 12)), "patch_size": 2,
                                        "grid": (2, 3)}),
    "sinusoidal_interleaved": (positional.sinusoidal_interleaved, {"length": 5, "dim": 8}),
    "sinusoidal_halves": (positional.sinusoidal_halves, {"length": 5, "dim": 8}),
    "get_positional_encoding": (positional.get_positional_encoding, {"max_seq_len": 5, "embed_dim": 8}),
    "sincos_2d": (positional.sincos_2d, {"grid": (2, 3), "dim": 8}),
}
NUMBERS = (-3, 0, 1, 2.0, 2.5, float("nan"), float("inf"), True, None, "3", [3], 10**9, np.int64(2), np.float32(2), 1j)


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(few, max_examples=25)
@given(st.data())
def test_functions_without_a_backward(name, data):
    function, arguments = FUNCTIONS[name]
    expected = function(**arguments)
    argument = data.draw(st.sampled_from(list(arguments)))
    value = arguments[argument]
    if isinstance(value, np.ndarray):
        change = data.draw(st.sampled_from([*LAYOUTS.values(), *TYPES.values(), *SHAPES.values()]))
        strange = change(value)
    else:
        change, strange = None, data.draw(st.sampled_from([n for n in NUMBERS if n != 10**9 or argument in ("pad", "bos")]))
    try:
        result = function(**arguments | {argument: strange})
    except Exception as error:
        assert_named(error, argument)
    else:
        if change in LAYOUTS.values():
            assert_same(result, expected)
        for path in places(result):
            assert at(result, path).dtype != object


OPTIONS = {             # of ops and blocks: what they may be
    "dropout": lambda n: 0 <= n < 1, "eps": lambda n: 0 <= n < float("inf"), "label_smoothing": lambda n: 0 <= n < 1,
    "tile": lambda n: n >= 1, "patch_size": lambda n: n in (1, 2), "heads": lambda n: n in (1, 2),
    "ignore_index": lambda n: True,
}
GIVEN = [(name, option) for name, case in CASES.items() for option in inspect.signature(case.function).parameters
         if option in OPTIONS and option in inspect.signature(case.forward).parameters]


@pytest.mark.parametrize(("name", "option"), GIVEN)
def test_options(name, option):
    case = CASES[name]
    for value in NUMBERS:
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        real = whole or isinstance(value, (float, np.floating))
        right = (whole if option in ("tile", "patch_size", "heads", "ignore_index") else real) and OPTIONS[option](value)
        try:
            call(case, arguments_of(case) | {option: value})
        except Exception as error:
            assert_named(error, option if option != "heads" else "heads|columns")
            assert not right or option == "heads", error
        else:
            assert right or (option == "ignore_index" and value is None), f"{option} = {value!r} is taken"
