"""How what a learner's function returns is judged, and what is said of it where it is wrong.

Why an output is wrong is found by trying. *Variants* are the ways in which people get it wrong: one that gives the learner's
own numbers has named the cause. *Invariants* say what must hold whatever the numbers are. What neither explains is described.
"""
import copy
import itertools
from dataclasses import replace
from functools import partial

import numpy as np

from tinymae.gradcheck import Row, gradcheck

UNKNOWN = "no known pattern"            # with these words `diagnosis` says that it has no idea


def normal(*shape, seed=0):
    """Normal random numbers, the same ones in every call."""
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def frozen(array):
    """A copy that a learner's function cannot write into: arguments are not its own."""
    array = array.copy()
    array.flags.writeable = False
    return array


class Problem(Exception):
    """What keeps a learner's file from being checked at all; the text says what to do about it."""


def function(names, name):
    """The function or class `name` in the namespace of a learner's file; a Problem where there is none."""
    if not callable(names.get(name)):
        raise Problem(f"expected a function or class {name} in the file, found none: was it renamed?")
    return names[name]


def parts(result, *expected):
    """What a learner's function returned, as the tuple that it should be; a Problem where it is none of that length."""
    if isinstance(result, tuple) and len(result) == len(expected):
        return result
    got, cause = f"a {type(result).__name__}", "look at its return"
    if result is None:
        got, cause = "None", "is its return missing?"
    elif isinstance(result, tuple):
        got = f"a tuple of {len(result)}"
    elif isinstance(result, list):
        cause = "`return a, b` makes a tuple, brackets make a list"
    raise Problem(f"expected a function to return ({', '.join(expected)}), got {got}: {cause}")


def judge(name, ours, expected, variants=(), invariants=(), otherwise="", tolerance=1e-9):
    """The Row of an output: the learner's numbers against the right ones.

    Parameters
    ----------
    name : str
    ours : what the learner's function returned, anything
    expected : ndarray
    variants : {what went wrong: function without arguments, which gives the numbers of that}
    invariants : functions without arguments that raise an AssertionError or ValueError where something does not hold
    otherwise : str, what to say of wrong numbers that no variant explains
    tolerance : float, relative to the largest expected number

    Returns
    -------
    Row, with a diagnosis where it is not ok; analytic and numeric are nan, for these are no gradients
    """
    refuse = partial(Row, name, (), np.nan, np.nan, np.inf, False)
    if ours is None:
        return refuse("it is None: is the return missing?")
    try:
        array = np.asarray(ours)
    except ValueError:                                          # a list of rows of different lengths
        return refuse(f"expected an array of shape {expected.shape}, got a {type(ours).__name__} that is none")
    if array.dtype.kind not in "fiub":
        got = f"an array of {array.dtype}" if isinstance(ours, np.ndarray) else f"a {type(ours).__name__}"
        return refuse(f"expected numbers of shape {expected.shape}, got {got}")
    if array.shape != expected.shape:
        return refuse(f"it has shape {array.shape}, expected {expected.shape}")
    if expected.dtype == bool and array.dtype != bool:
        return refuse(f"it is {array.dtype}, expected bool: True and False, not 1 and 0")
    ours, whole = array.astype(np.float64), expected.dtype.kind in "iu"
    expected = expected.astype(np.float64)
    if close(ours, expected, tolerance):
        if whole and array.dtype.kind == "f":
            return refuse(f"it is {array.dtype}, expected integers: nobody can index with 1.0")
        return Row(name, (), np.nan, np.nan, _distance(ours, expected), True, "")
    causes = [f"it is what comes out when {words}" for words, variant in dict(variants).items()
              if close(ours, variant(), tolerance)][:1]
    causes += [complaint for complaint in map(_violation, invariants) if complaint][:1]
    return refuse("; ".join(causes) or otherwise or _likeness(array, ours, expected, tolerance))


def judge_all(result, outputs):
    """The Rows of a function that returns several; outputs is {name: (expected, variants)}, in the order of its return."""
    rows = []
    for name, ours in zip(outputs, parts(result, *outputs), strict=True):
        expected, variants = outputs[name]
        places = {f"{other} is returned in its place": lambda right=right: right
                  for other, (right, _) in outputs.items() if other != name}
        rows.append(judge(name, ours, expected, variants | places))
    return rows


def close(ours, other, tolerance):
    """Whether the numbers agree, shapes included; NaN agrees with nothing."""
    return np.shape(ours) == np.shape(other) and bool(_distance(ours, np.asarray(other, np.float64)) <= tolerance)


def _distance(ours, expected):
    largest = np.abs(expected).max(initial=0.0)
    return float(np.abs(ours - expected).max(initial=0.0) / (largest or 1.0))


def _violation(invariant):
    try:
        invariant()
    except (AssertionError, ValueError) as error:
        return str(error)
    return ""


def _likeness(array, ours, expected, tolerance):
    """One sentence on what wrong numbers look like; array is ours as it came."""
    if not np.isfinite(ours).all():
        cause = "an overflow, or None in the place of a number" if np.isnan(ours).any() else "or an overflow"
        return f"it holds {ours[~np.isfinite(ours)][0]}: a division by 0, the log of 0, {cause}"
    if array.dtype.kind in "iu" and close(ours, np.trunc(expected), tolerance):
        return f"it is {array.dtype}, which cut off what stands behind the point: expected float64"
    if close(ours, expected, 1e-5):
        return (f"it is nearly right, off by {_distance(ours, expected):.0e} of the largest number: is something float32, or "
                f"an eps or a step not the one that was given?")
    if not ours.any():
        return f"it is {'False' if array.dtype == bool else '0'} everywhere"
    if expected.size > 1 and expected.any():
        factor = np.vdot(ours, expected) / np.vdot(expected, expected)
        if close(ours, factor * expected, tolerance):
            return f"it is {factor:.6g} times what it should be, everywhere"
    for axes in itertools.permutations(range(ours.ndim)):
        if close(ours.transpose(axes), expected, tolerance):
            return f"its axes are in another order: it is right after transpose{axes}"
    wrong = np.abs(ours - expected) > tolerance * np.abs(expected).max()
    if ours.ndim > 1 and len(ours) > 1 and not wrong[0].any() and all(item.mean() > 0.5 for item in wrong[1:]):
        return "item 0 of axis 0 is right, and all others are wrong"
    worst = np.unravel_index(np.argmax(np.abs(ours - expected)), ours.shape)
    if expected.size == 1:
        return f"it is {ours[worst]:.6g}, expected {expected[worst]:.6g}"
    place = f"[{', '.join(map(str, worst))}]"
    return (f"{np.count_nonzero(wrong)} of {wrong.size} numbers are wrong: {place} is {ours[worst]:.6g}, expected "
            f"{expected[worst]:.6g}")


def check_pair(
    names, name, reference, *args, title="forward and backward", variants=(), invariants=(), slips=(), compare=True, **options
):
    """The table of a forward and its backward.

    Parameters
    ----------
    names : namespace of the learner's file
    name : str, of the pair: its functions are NAME_forward and NAME_backward
    reference : the package's forward
    *args : what to call it with, as for `gradcheck`
    title : str
    variants : {what went wrong: function of these arguments, which gives the y of that}
    invariants : functions of the learner's forward, as a function that returns y alone
    slips : {what went wrong in the backward: function of dy and these arguments, which gives the first gradient of that}
    compare : bool; False where y is random: other draws are no mistake
    **options : passed on, as for `gradcheck`

    Yields
    ------
    (title, rows)
    """
    forward, backward = function(names, f"{name}_forward"), function(names, f"{name}_backward")

    def y(*args, **options):
        return parts(forward(*copy.deepcopy(args), **options), "y", "cache")[0]

    rows = []
    if compare:
        tried = {words: partial(variant, *args, **options) for words, variant in dict(variants).items()}
        held = [partial(invariant, y) for invariant in invariants]
        rows = [judge("y", y(*args, **options), reference(*args, **options)[0], tried, held)]
    try:
        checked = gradcheck(forward, backward, *args, **options)
    except Exception:
        if not rows or rows[0].ok:
            raise
        checked = []                                            # the forward comes first: backward may only suffer from it
    if checked and slips and checked[0].diagnosis.startswith(UNKNOWN):
        result, cache = forward(*copy.deepcopy(args), **options)
        dy = normal(*np.shape(result), seed=1)
        dx = backward(dy, cache)
        dx = dx[0] if isinstance(dx, tuple) else dx
        words = [words for words, slip in slips.items() if close(dx, slip(dy, *args, **options), 1e-9)]
        checked[0] = replace(checked[0], diagnosis=f"it is what comes out when {words[0]}" if words else checked[0].diagnosis)
    yield title, rows + checked


B, H, TQ, TK, D, F, V = 3, 2, 5, 6, 14, 10, 11                  # all different, and their roots too: nothing can hide
DK, DV = D // H, 8
