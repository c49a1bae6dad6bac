"""Wrong numbers in words, where no mistake that we know explains them: scaled, transposed, wrong at one index."""
import itertools
from collections.abc import Callable

import numpy as np

from tinymae.learn.compare import agrees, close, distance
from tinymae.messages import listed, translated
from tinymae.messages import message as _


def misshapen(array: np.ndarray, expected: np.ndarray, variants: dict[str, Callable], tolerance: float) -> str:
    """One sentence about an array of the wrong shape: its numbers may still show the cause."""
    shape, numbers = array.shape, array.astype(np.float64)
    for words, variant in variants.items():
        if agrees(numbers, variant(), tolerance):
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


def likeness(array: np.ndarray, ours: np.ndarray, expected: np.ndarray, tolerance: float) -> str:
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
                 "different from the argument?", off=distance(ours, expected))
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


def counted(ours: np.ndarray, expected: np.ndarray, tolerance: float) -> str:
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
