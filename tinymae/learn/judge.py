"""Judging what a learner's function returns: whether it is right and, if not, the most likely cause.

Causes are found by trying. *Variants* are common mistakes, written as code: if one gives exactly the learner's numbers, its
text is the cause. *Invariants* are properties that hold for all inputs, such as that a causal mask hides the future. If neither
explains the numbers, `describe` does.

Titles and causes that a check hands in are sentences of `messages.message`, or literals that are `messages.marked`.

    judge           one output against the expected array -> a Row, as those of the gradient checker
    judge_together  several outputs of one function, of which a mistake may change more than one
"""
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from tinymae.gradcheck import Row
from tinymae.learn.compare import agrees, close, distance, numbers
from tinymae.learn.demands import parts
from tinymae.learn.describe import counted, likeness, misshapen
from tinymae.messages import message as _
from tinymae.messages import translated

Tables = Iterator[tuple[str, list[Row]]]                        # what a check yields: (title, rows)


def judge(
    name: str, ours: object, expected: np.ndarray, variants: dict[str, Callable[[], np.ndarray]] | None = None, *,
    invariants: list[Callable[[], None]] | tuple = (), otherwise: str = "", located: Callable[[], str] = str,
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
        return refuse(misshapen(array, expected, variants or {}, tolerance))
    if expected.dtype == bool and array.dtype != bool:
        return refuse(_("it is {dtype}, expected bool: True and False, not 1 and 0", dtype=array.dtype))
    ours, whole = array.astype(np.float64), expected.dtype.kind in "iu"
    expected = expected.astype(np.float64)
    if close(ours, expected, tolerance):
        if whole and array.dtype.kind == "f":
            return refuse(_("it is {dtype}, expected integers: 1.0 cannot be an index", dtype=array.dtype))
        return Row(name, (), np.nan, np.nan, distance(ours, expected), True, "")
    causes = [because(words) for words, variant in (variants or {}).items() if agrees(ours, variant(), tolerance)][:1]
    causes += [complaint for complaint in map(_violation, invariants) if complaint][:1]
    if len(causes) == 2:
        return refuse(_("{cause}. Besides, {other}", cause=causes[0], other=causes[1]))
    return refuse(causes[0] if causes else translated(otherwise) or likeness(array, ours, expected, tolerance) or located()
                  or counted(ours, expected, tolerance))


def judge_together(result: object, expected: dict[str, np.ndarray], mistakes: dict[str, tuple]) -> list[Row]:
    """The Rows of a function with several outputs, of which one mistake changes more than one.

    Parameters
    ----------
    expected : {output: the right numbers}, in the order of its return
    mistakes : {mistake: the numbers of all outputs}. It is the cause if it explains all of them, or at least two wrong ones:
        one that it explains may be chance
    """
    rows, ours = [], [numbers(part) for part in parts(result, *expected)]
    for name, part in zip(expected, result, strict=True):
        swapped = {_("{other} is returned in its place", other=other): lambda right=right: right
                   for other, right in expected.items() if other != name}
        rows.append(judge(name, part, expected[name], swapped))

    def explains(outputs):
        return [part is not None and close(part, wrong, 1e-9) for part, wrong in zip(ours, outputs, strict=True)]

    found = {words: explains(outputs) for words, outputs in mistakes.items()}
    causes = [words for words, fits in found.items() if all(fits)] or [
        words for words, fits in found.items() if sum(fit and not row.ok for fit, row in zip(fits, rows, strict=True)) > 1
    ]
    if not causes:
        return rows
    return [diagnosed(row, because(causes[0])) if fits and not row.ok else row
            for row, fits in zip(rows, found[causes[0]], strict=True)]


def because(words: str) -> str:
    """The diagnosis of a mistake that gives exactly the learner's numbers."""
    return _("it is the result if {mistake}", mistake=translated(words))


def recognised(row: Row, ours: object, mistakes: dict[str, Callable[[], np.ndarray]]) -> Row:
    """A wrong row with the mistake that gives exactly these numbers; unlike the variants of `judge`, in any shape."""
    if row.ok or (ours := numbers(ours)) is None:
        return row
    fitting = (words for words, mistake in mistakes.items() if close(ours, mistake(), 1e-9))
    return next((diagnosed(row, because(words)) for words in fitting), row)


def diagnosed(row: Row, sentence: str) -> Row:
    """The row with this diagnosis instead of the gradient checker's."""
    return replace(row, diagnosis=sentence, cause="")


def _violation(invariant):
    try:
        return invariant() or ""
    except (AssertionError, ValueError) as error:
        return str(error)
