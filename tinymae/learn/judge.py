"""Judging what a learner's function returns: whether it is right and, if not, the most likely cause.

Causes are found by trying. *Variants* are common mistakes, written as code: if one gives exactly the learner's numbers, its
text is the cause. *Invariants* are properties that hold for all inputs, such as that a causal mask hides the future. If neither
explains the numbers, they are described: scaled, transposed, wrong at one index.

Titles and causes that a check hands in are sentences of `messages.message`, or literals that are `messages.marked`.

    judge       one output against the expected array -> a Row, as those of the gradient checker
    judge_all   several outputs of one function
    check_forward   a forward alone: judge on y
    check_pair  a forward and its backward: judge on y, then the gradient checker
"""
import copy
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np

from tinymae import tree
from tinymae.gradcheck import Row, gradcheck
from tinymae.messages import listed, marked, translated
from tinymae.messages import message as _

B, H, TQ, TK, D, F, V = 4, 2, 5, 6, 14, 10, 11                  # all different, and none is 3, the number of q, k, v
DK, DV = D // H, 8


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """The distribution function of the standard normal; SciPy's would take longer to import than a check takes."""
    return np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)))(x)


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    """Normally distributed random numbers, the same in every call."""
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def frozen(array: np.ndarray) -> np.ndarray:
    """A read-only copy: a function must not write into its arguments."""
    array = array.copy()
    array.flags.writeable = False
    return array


class Problem(Exception):
    """A reason why a learner's file cannot be checked; the message says what to do."""


def function(names: dict, name: str) -> Callable:
    """The function or class `name` in the namespace of a learner's file; a Problem if there is none."""
    if not callable(names.get(name)):
        raise Problem(_("expected a function or class {name} in the file, found none: was it renamed?", name=name))
    return names[name]


def parts(result: object, *expected: str) -> tuple:
    """The tuple that a learner's function returned; a Problem if it is not a tuple of the expected length."""
    if isinstance(result, tuple) and len(result) == len(expected):
        return result
    names = ", ".join(expected)
    if result is None:
        raise Problem(_("expected a function to return ({names}), got None: is its return missing?", names=names))
    if isinstance(result, tuple):
        raise Problem(_("expected a function to return ({names}), got a tuple of {count}: look at its return",
                        names=names, count=len(result)))
    if isinstance(result, list):
        raise Problem(_("expected a function to return ({names}), got a list: `return a, b` makes a tuple, brackets make a "
                        "list", names=names))
    raise Problem(_("expected a function to return ({names}), got a {kind}: look at its return",
                    names=names, kind=type(result).__name__))


def judge(
    name: str,
    ours: object,
    expected: np.ndarray,
    variants: dict[str, Callable[[], np.ndarray]] | None = None,
    *,
    invariants: list[Callable[[], None]] | tuple = (),
    otherwise: str = "",
    located: Callable[[], str] = str,
    tolerance: float = 1e-9,
) -> Row:
    """The Row of an output: the learner's numbers against the expected numbers.

    Parameters
    ----------
    ours : what the learner's function returned, of any type
    variants : {mistake: function without arguments that returns the numbers of this mistake}
    invariants : functions without arguments that raise an AssertionError or ValueError if a property does not hold
    otherwise : the diagnosis if the numbers are wrong and no variant explains them
    located : function without arguments that says where the mistake is, or "", if nothing else is known
    tolerance : relative to the largest expected number

    Returns
    -------
    a Row, with a diagnosis if it is not ok; analytic and numeric are nan, because these are not gradients
    """
    refuse = partial(Row, name, (), np.nan, np.nan, np.inf, False)
    if ours is None:
        return refuse(_("it is None: is the return missing?"))
    try:
        array = np.asarray(ours)
    except ValueError:                                          # a list of rows of different lengths
        return refuse(_("expected an array of shape {shape}, got a {kind} that is not an array",
                        shape=expected.shape, kind=type(ours).__name__))
    if array.dtype.kind not in "fiub" and isinstance(ours, np.ndarray):
        return refuse(_("expected numbers of shape {shape}, got an array of {dtype}", shape=expected.shape, dtype=array.dtype))
    if array.dtype.kind not in "fiub":
        return refuse(_("expected numbers of shape {shape}, got a {kind}", shape=expected.shape, kind=type(ours).__name__))
    if array.shape != expected.shape:
        return refuse(_misshapen(array, expected, variants or {}, tolerance))
    if expected.dtype == bool and array.dtype != bool:
        return refuse(_("it is {dtype}, expected bool: True and False, not 1 and 0", dtype=array.dtype))
    ours, whole = array.astype(np.float64), expected.dtype.kind in "iu"
    expected = expected.astype(np.float64)
    if close(ours, expected, tolerance):
        if whole and array.dtype.kind == "f":
            return refuse(_("it is {dtype}, expected integers: 1.0 cannot be an index", dtype=array.dtype))
        return Row(name, (), np.nan, np.nan, _distance(ours, expected), True, "")
    causes = [because(words) for words, variant in (variants or {}).items() if _agrees(ours, variant(), tolerance)][:1]
    causes += [complaint for complaint in map(_violation, invariants) if complaint][:1]
    if len(causes) == 2:
        return refuse(_("{cause}. Besides, {other}", cause=causes[0], other=causes[1]))
    return refuse(causes[0] if causes else translated(otherwise) or _likeness(array, ours, expected, tolerance) or located()
                  or _counted(ours, expected, tolerance))


def because(words: str) -> str:
    """The diagnosis of a mistake that gives exactly the learner's numbers."""
    return _("it is the result if {mistake}", mistake=translated(words))


def recognised(row: Row, ours: object, mistakes: dict[str, Callable[[], np.ndarray]]) -> Row:
    """A wrong row with the mistake that gives exactly these numbers; unlike the variants of `judge`, in any shape."""
    try:
        ours = np.asarray(ours, np.float64)
    except (TypeError, ValueError):                             # no numbers, or rows of different lengths
        return row
    fitting = [] if row.ok else [words for words, mistake in mistakes.items() if close(ours, mistake(), 1e-9)]
    return diagnosed(row, because(fitting[0])) if fitting else row


def diagnosed(row: Row, sentence: str) -> Row:
    """The row with this diagnosis instead of the gradient checker's."""
    return replace(row, diagnosis=sentence, cause="")


@contextmanager
def hint(kind: type[Exception], words: str, part: str = "") -> Iterator[None]:
    """Add a sentence on the likely cause to an exception of this kind whose message contains `part`."""
    try:
        yield
    except kind as error:
        if part in str(error):
            error.args = (f"{str(error).rstrip()}\n{words}",)
        raise


def judge_all(result: object, outputs: dict[str, tuple[np.ndarray, dict]]) -> list[Row]:
    """The Rows of a function with several outputs; outputs is {name: (expected, variants)}, in the order of its return."""
    rows = []
    for name, ours in zip(outputs, parts(result, *outputs), strict=True):
        expected, variants = outputs[name]
        swapped = {_("{other} is returned in its place", other=other): lambda right=right: right
                   for other, (right, _variants) in outputs.items() if other != name}
        rows.append(judge(name, ours, expected, variants | swapped))
    return rows


def _misshapen(array, expected, variants, tolerance):
    """One sentence about an array of the wrong shape: its numbers may still show the cause."""
    shape, numbers = array.shape, array.astype(np.float64)
    for words, variant in variants.items():
        if _agrees(numbers, variant(), tolerance):
            return _("it has shape {shape}, expected {expected}: it is the result if {mistake}",
                     shape=shape, expected=expected.shape, mistake=translated(words))
    for axes in itertools.permutations(range(array.ndim)) if array.ndim == expected.ndim else ():
        if close(numbers.transpose(axes), expected, tolerance):
            return _("it has shape {shape}, expected {expected}: its axes are in a different order, it is right after "
                     "transpose{axes}", shape=shape, expected=expected.shape, axes=axes)
    if array.size == expected.size and close(numbers.reshape(expected.shape), expected, tolerance):
        return _("it has shape {shape}, expected {expected}: the numbers are right and in the right order, only the axes are "
                 "not; insert axes of size 1 with None, or reshape", shape=shape, expected=expected.shape)
    return _("it has shape {shape}, expected {expected}", shape=shape, expected=expected.shape)


def close(ours: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
    """Whether shapes and numbers agree; NaN agrees with nothing."""
    return np.shape(ours) == np.shape(other) and bool(_distance(ours, np.asarray(other, np.float64)) <= tolerance)


def _agrees(ours, variant, tolerance):
    """As `close`, but a mistake that gives NaN is the cause of the same NaN."""
    variant = np.asarray(variant, np.float64)
    known = ~np.isnan(ours)
    if ours.shape != variant.shape or not known.any() or not np.array_equal(known, ~np.isnan(variant)):
        return False
    return close(ours[known], variant[known], tolerance)


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
    """One sentence that describes wrong numbers, or ""; array is `ours` before it became float64."""
    if not np.isfinite(ours).all():
        number = ours[~np.isfinite(ours)][0]
        if np.isnan(ours).any():
            return _("it holds {number}: a division by 0, the log of 0, an overflow, or None instead of a number",
                     number=number)
        return _("it holds {number}: a division by 0, the log of 0, or an overflow", number=number)
    if array.dtype.kind in "iu" and close(ours, np.trunc(expected), tolerance):
        return _("it is {dtype}, which cuts off the digits after the decimal point: expected float64", dtype=array.dtype)
    if close(ours, expected, 1e-5):
        return _("it is nearly right, off by {off:.0e} of the largest number: is an array float32, or is an eps or a step "
                 "different from the argument?", off=_distance(ours, expected))
    if not ours.any():
        return _("it is {number} everywhere", number="False" if array.dtype == bool else "0")
    if expected.size > 1 and expected.any():
        factor = np.vdot(ours, expected) / np.vdot(expected, expected)
        if close(ours, factor * expected, tolerance):
            return _("it is {factor:.6g} times what it should be, everywhere", factor=factor)
    for axes in itertools.permutations(range(ours.ndim)):
        if close(ours.transpose(axes), expected, tolerance):
            return _("its axes are in a different order: it is right after transpose{axes}", axes=axes)
    wrong = np.abs(ours - expected) > tolerance * np.abs(expected).max()
    if ours.ndim > 1 and len(ours) > 1 and not wrong[0].any() and all(item.mean() > 0.5 for item in wrong[1:]):
        return _("item 0 of axis 0 is right, and all others are wrong")
    worst = np.unravel_index(np.argmax(np.abs(ours - expected)), ours.shape)
    for axis in range(ours.ndim):
        where = np.flatnonzero(wrong.any(axis=tuple(other for other in range(ours.ndim) if other != axis)))
        if ours.ndim > 1 and 0 < len(where) < 3 and 2 * len(where) < ours.shape[axis] and wrong.take(where, axis).mean() > 0.5:
            return _("wrong only at {where} of axis {axis}, which has {size}, and right elsewhere: {index} is {ours:.6g}, "
                     "expected {expected:.6g}; does a loop or a slice stop too early, or start too late?",
                     where=listed(where), axis=axis, size=ours.shape[axis], index=[*map(int, worst)],
                     ours=ours[worst], expected=expected[worst])
    return ""


def _counted(ours, expected, tolerance):
    """One sentence about numbers of which nothing else is known."""
    wrong = np.abs(ours - expected) > tolerance * np.abs(expected).max()
    worst = np.unravel_index(np.argmax(np.abs(ours - expected)), ours.shape)
    if expected.size == 1:
        return _("it is {ours:.6g}, expected {expected:.6g}", ours=ours[worst], expected=expected[worst])
    if wrong.all():
        return _("all {count} numbers are wrong: [{index}] is {ours:.6g}, expected {expected:.6g}",
                 count=wrong.size, index=", ".join(map(str, worst)), ours=ours[worst], expected=expected[worst])
    return _("{wrong} of {count} numbers are wrong: [{index}] is {ours:.6g}, expected {expected:.6g}",
             wrong=np.count_nonzero(wrong), count=wrong.size, index=", ".join(map(str, worst)), ours=ours[worst],
             expected=expected[worst])


def check_forward(
    names: dict, name: str, reference: Callable, *args, title: str = marked("forward"),
    variants: dict[str, Callable] | None = None, invariants: list[Callable] | tuple = (), tolerance: float = 1e-9,
    otherwise: str = "", steps: Callable[..., dict[str, list[np.ndarray]]] | None = None, **options,
) -> Iterator[tuple[str, list[Row]]]:
    """The table (title, rows) of a forward that returns y, or y and a cache; what is not listed is as in `check_pair`.

    Parameters
    ----------
    name : of the function in the learner's file
    reference : function of these arguments that returns the right y
    tolerance, otherwise : as `judge`
    steps : function of these arguments that returns {step: arrays}, what a right forward computes one after the other
    """
    ours = function(names, name)
    expected = reference(*args, **options)

    def y(*args, **options):
        result = ours(*tree.map(_unwritable, list(args)), **options)
        if not isinstance(result, tuple) or not result:
            return result
        if any(isinstance(part, np.ndarray) and close(part, expected, tolerance) for part in result[1:]):
            raise Problem(_("the right y is returned, but not in the first place: return y alone, or y and then a cache"))
        return result[0]

    tried = {words: partial(variant, *args, **options) for words, variant in (variants or {}).items()}
    held = [partial(invariant, y) for invariant in invariants]

    def located():
        if not steps:
            return ""
        return _last_right(steps(*args, **options), _("the output"), _arrays(ours, lambda: y(*args, **options)))

    row = judge("y", y(*args, **options), expected, tried, invariants=held, tolerance=tolerance, otherwise=otherwise,
                located=located)
    yield translated(title), [row]


def _arrays(function, call):
    """[(line, array)]: every array that the learner's function, or one in the same file, assigned during call()."""
    file, found, last = getattr(getattr(function, "__code__", None), "co_filename", None), [], {}

    def trace(frame, event, arg):
        if frame.f_code.co_filename != file or len(found) > 1000:                           # a loop repeats itself
            return None
        line, known = last.get(frame, (frame.f_lineno, {}))
        for name, value in frame.f_locals.items():
            if isinstance(value, np.ndarray) and not (name in known and np.array_equal(known[name], value)):
                known[name] = value.copy()
                found.append((line, known[name]))
        last[frame] = frame.f_lineno, known
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return found


def _last_right(steps, result, arrays):
    """One sentence about the last of the steps that is among the arrays; the result comes after the steps."""
    words = [*steps, result]
    for number in reversed(range(len(steps))):
        found = [_line_of(part, arrays) for part in steps[words[number]]]
        if all(found):
            return _("it is right as far as line {line}, which computes {step}; wrong is {next}, or what comes after it",
                     line=max(found), step=words[number], next=words[number + 1])
    return _("no line computes the first step, {step}: either it is wrong already, or it has no name; give each step a line "
             "and a name of its own, and check again", step=words[0])


def _line_of(step, arrays):
    """The line that assigned an array with the numbers of this step, whatever its axes of size 1, or 0."""
    return next((line for line, array in arrays if array.dtype.kind == "f" and array.size == step.size
                 and close(array.reshape(step.shape), step, 1e-9)), 0)


def _unwritable(value):
    """A read-only copy of an array; all else as it is."""
    return frozen(value) if isinstance(value, np.ndarray) else value


def check_pair(
    names: dict,
    name: str,
    reference: Callable,
    *args,
    title: str = marked("forward and backward"),
    variants: dict[str, Callable] | None = None,
    invariants: list[Callable] | tuple = (),
    slips: dict[str, Callable] | None = None,
    gradients: dict[str, dict[str, Callable]] | None = None,
    formulas: dict[str, Callable] | None = None,
    steps: dict[tuple[str, ...], Callable] | None = None,
    compare: bool = True,
    **options,
) -> Iterator[tuple[str, list[Row]]]:
    """The table (title, rows) of a forward and its backward.

    Parameters
    ----------
    names : namespace of the learner's file
    name : of the pair: its functions are NAME_forward and NAME_backward
    reference : the forward of the package
    *args : the arguments of the forward, as for `gradcheck`
    variants : {mistake: function of these arguments that returns the y of this mistake}
    invariants : functions of one argument, the learner's forward as a function that returns y alone
    slips : {mistake in the backward: function of dy and these arguments that returns the gradients of this mistake}
        the first gradient, or a tuple, which may have None for one of them and may leave out the last ones
    gradients : {tensor: {mistake: function of dy and these arguments that returns the gradient of this tensor alone}}
    formulas : {tensor: function of the learner's gradient, dy and these arguments}; it returns a sentence on what they
        compute if no mistake in `gradients` is recognised, '' if it does not know
    steps : {names of arguments: function of dy and these arguments that returns {step: arrays}}, what a right backward computes
        one after the other before the gradients of these arguments
    compare : False if y is random: different random numbers are not a mistake
    **options : passed on, as for `gradcheck`
    """
    forward, backward = function(names, f"{name}_forward"), function(names, f"{name}_backward")

    def y(*args, **options):
        return parts(forward(*copy.deepcopy(args), **options), "y", "cache")[0]

    rows = []
    if compare:
        tried = {words: partial(variant, *args, **options) for words, variant in (variants or {}).items()}
        held = [partial(invariant, y) for invariant in invariants]
        rows = [judge("y", y(*args, **options), reference(*args, **options)[0], tried, invariants=held)]
    try:
        checked = gradcheck(forward, backward, *args, **options)
    except Exception:                                           # with a wrong forward, backward may fail because of it
        if not rows or rows[0].ok:
            raise
        checked = []                                            # so y is reported alone
    gradients = gradients or {}
    wrong = [row for row in checked if not row.ok]
    if any(row.tensor in gradients or (slips and np.isfinite(row.error)) for row in wrong):
        checked = _explained(checked, slips or {}, steps or {}, gradients, formulas or {}, forward, backward, args, options)
    yield translated(title), rows + checked


def _explained(rows, slips, steps, gradients, formulas, forward, backward, args, options):
    """The rows of a gradient check, of which the wrong ones have the slips that give exactly these numbers as diagnoses."""
    def drawn():                                                # as in `gradcheck`, rng is the seed of a new Generator
        rng = options.get("rng")
        return options | ({} if rng is None else {"rng": np.random.default_rng(rng)})

    def named(returned):
        """{tensor: gradient} of what a backward or a slip returned: the first of the gradients, or some of them."""
        returned = returned if isinstance(returned, tuple) else (returned,)
        return dict(tree.leaves(dict(zip(arguments, returned, strict=False))))

    arguments = list(dict.fromkeys(row.tensor.partition(".")[0] for row in rows))
    given = copy.deepcopy(args)
    y, cache = forward(*given, **drawn())
    before, after = dict(tree.leaves(list(args))), dict(tree.leaves(list(given)))
    if not all(np.array_equal(before[path], after[path]) for path in before):
        return rows                                             # they say that forward writes into its arguments
    dy = gaussian(*np.shape(y), seed=1)
    ours = backward(dy, cache)
    ours = named(tuple(part for part in ours if part is not None) if isinstance(ours, tuple) else ours)
    if slips:
        rows = _by_slips(rows, ours, {words: named(slip(dy, *args, **drawn())) for words, slip in slips.items()})
    for i, row in enumerate(rows):
        found = recognised(row, ours.get(row.tensor), {
            words: partial(slip, dy, *args, **drawn()) for words, slip in gradients.get(row.tensor, {}).items()
        })
        if row.tensor in formulas and found is row and np.isfinite(row.error) and not row.ok:     # so the shape is right
            words = formulas[row.tensor](ours[row.tensor], dy, *args, **drawn())
            found = diagnosed(row, words) if words else row
        rows[i] = found
    for tensors, step in steps.items():                         # if nothing is known, the last of the steps that is right
        for i, row in enumerate(rows):
            if row.tensor in tensors and row.cause == "unknown":
                arrays = _arrays(backward, lambda: backward(dy, cache))
                rows[i] = diagnosed(row, _last_right(step(dy, *args, **drawn()), _("the gradient"), arrays))
    return rows


def _by_slips(rows, ours, slips):
    """The rows with diagnoses; a slip is {tensor: gradient}, and one that explains several tensors is the likely cause."""
    ours = {tensor: gradient for tensor, gradient in ours.items() if isinstance(gradient, np.ndarray)}
    left = {row.tensor for row in rows if not row.ok and np.isfinite(row.error)} & ours.keys()
    right, said = {row.tensor for row in rows if row.ok}, {row.tensor: row.diagnosis for row in rows}
    fits, contradicts, causes = {}, {}, {}
    for words, slip in slips.items():
        theirs = {tensor: gradient for tensor, gradient in slip.items() if gradient is not None}
        agree = {tensor for tensor in theirs.keys() & ours.keys() if close(ours[tensor], theirs[tensor], 1e-9)}
        if not (theirs.keys() - agree) & right:                 # a mistake that would spoil what is right was not made
            fits[words], contradicts[words] = agree, theirs.keys() - agree
    while left and fits:                                        # the slip that explains most of them, and contradicts least
        best = max(fits, key=lambda words: (len(left & fits[words]), -len(contradicts[words])))
        if not left & fits[best]:
            break
        causes |= dict.fromkeys(left & fits[best], best)
        left -= fits[best]
    # One diagnosis for several tensors, such as a factor in all of them, says more than a slip that fits some of these alone.
    weak = {tensor for tensor, words in causes.items()
            if any(said[tensor] == said[other] for other in contradicts[words] & left)}
    return [diagnosed(row, because(causes[row.tensor])) if row.tensor in causes.keys() - weak else row for row in rows]
