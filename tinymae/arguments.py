"""What a caller may hand in: arrays, gradients, numbers, settings. One contract for the whole package, checked at its doors.

    arrays      native float32 or float64, all of one dtype, and of the type ndarray itself
    dy          exactly the shape and the dtype of what the forward returned
    ids         arrays of integers
    numbers     real and finite, in the range that their name allows; whole where they count; neither True nor False

NumPy would compute with much more, and often something else than was meant: a list is another copy, an array of integers or of
complex numbers has another arithmetic, a dy of shape (T, 1) or (1,) is broadcast, and one float64 array makes all float64. The
checks look at types and shapes, never at the numbers of an array, and take less than a microsecond for each array.
"""
import math
from collections.abc import Sequence

import numpy as np

from tinymae.messages import marked, translated
from tinymae.messages import message as _

ARRAYS = (np.ndarray, np.memmap)                              # np.matrix and masked arrays compute differently
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))           # in the byte order of this machine


def check_arrays(op: str, /, **arrays: np.ndarray) -> None:
    """Raise a TypeError that names the argument, unless all are float32 arrays, or all float64 arrays, with at least one axis.

    Parameters
    ----------
    op : who asks, for the message
    arrays : by their names
    """
    first = None
    for name, array in arrays.items():
        if type(array) not in ARRAYS or array.dtype not in FLOATS or not array.ndim:
            raise TypeError(
                f"{op}: expected {name} to be a float32 or float64 array, got {_described(array)}: "
                f"np.array({name}, np.float32) makes one of real numbers"
            )
        if first is None:
            first, dtype = name, array.dtype
        elif array.dtype != dtype:
            raise TypeError(
                f"{op}: expected arrays of one dtype, got {first} of {dtype} and {name} of {array.dtype}: "
                f"{name}.astype({first}.dtype) converts it"
            )


def check_gradient(op: str, shape: tuple, dtype: np.dtype | None, /, **gradient: np.ndarray) -> None:
    """Raise a TypeError or ValueError unless a gradient has the dtype and the shape of what the forward returned.

    Parameters
    ----------
    op : who asks, for the message
    shape : of the forward's result
    dtype : of the forward's result, or None if the cache does not say
    gradient : one, by its name, such as dy=dy
    """
    check_arrays(op, **gradient)
    ((name, dy),) = gradient.items()
    if dy.shape != shape:
        transposed = dy.shape[::-1] == shape
        raise ValueError(
            f"{op}: expected {name} of shape {shape}, as the forward returned it, got {dy.shape}: "
            + ("is it transposed?" if transposed else "nothing is broadcast here; is it the gradient of another call?")
        )
    if dtype is not None and dy.dtype != dtype:
        raise TypeError(
            f"{op}: expected {name} of {dtype}, as the forward returned it, got {dy.dtype}: {name}.astype({dtype}) converts it"
        )


def check_integers(op: str, /, *, hint: str = "", **arrays: np.ndarray) -> None:
    """Raise a TypeError that names the argument, unless all are arrays of integers. `hint` is the likely cause."""
    for name, array in arrays.items():
        if type(array) not in ARRAYS or array.dtype.kind not in "iu":
            raise TypeError(f"{op}: expected {name} to be an array of integers, got {_described(array)}{hint and ': '}{hint}")


def check_mask(op: str, mask: np.ndarray) -> None:
    """Raise a TypeError unless an attention mask is a boolean array."""
    if type(mask) not in ARRAYS or mask.dtype != bool:
        raise TypeError(
            f"{op}: expected mask to be a boolean array, True = may attend, got {_described(mask)}: write mask != 0"
        )


def check_scalars(op: str, kind: str, /, *, hint: str = "", **numbers: float) -> None:
    """Raise a ValueError that names the number, unless each is of this kind.

    Parameters
    ----------
    op : who asks, for the message; "" for settings, whose names are enough, in the user's language
    kind : a name in SCALARS
    hint : the likely cause of a wrong one; of settings, `marked`
    numbers : by their names
    """
    words, whole, holds = SCALARS[kind]
    for name, number in numbers.items():
        types = (int, np.integer) if whole else (int, float, np.integer, np.floating)
        if isinstance(number, bool) or not isinstance(number, types) or not holds(number):
            got = _described(number)
            if op:
                raise ValueError(f"{op}: expected {name} to be {words}, got {got}{hint and ': '}{hint}")
            wrong = _("expected {name} to be {words}, got {got}", name=name, words=translated(words), got=got)
            raise ValueError(_("{wrong}: {hint}", wrong=wrong, hint=translated(hint)) if hint else wrong)


def check_patch_grid(op: str, kind: str, grid: tuple[int, int]) -> None:
    """Raise a ValueError unless a grid is (rows, cols), both of this kind: "count" or "size"."""
    if not isinstance(grid, (tuple, list)) or len(grid) != 2:
        raise ValueError(f"{op}: expected grid to be (rows, cols), patches down and across, got {_described(grid)}")
    check_scalars(op, kind, **{"grid[0]": grid[0], "grid[1]": grid[1]})


SCALARS = {                               # name: its words, whether it is whole, and its range, which NaN is never in
    "positive": (marked("a positive number"), False, lambda number: 0 < number < math.inf),
    "not_negative": (marked("a number of at least 0"), False, lambda number: 0 <= number < math.inf),
    "fraction": (marked("a number in [0, 1)"), False, lambda number: 0 <= number < 1),
    "real": (marked("a finite number"), False, math.isfinite),
    "count": (marked("a whole number of at least 1"), True, lambda number: number >= 1),
    "whole": (marked("a whole number"), True, lambda number: True),
    "size": (marked("a whole number of at least 0"), True, lambda number: number >= 0),
}


def check_settings(
    settings: object, *, positive: Sequence[str] = (), not_negative: Sequence[str] = (), fractions: Sequence[str] = (),
    counts: Sequence[str] = (), sizes: Sequence[str] = (), switches: Sequence[str] = (),
) -> None:
    """Raise a ValueError that names the first field out of its range.

    Parameters
    ----------
    settings : a dataclass; None is right for a field whose default it is
    positive, not_negative : names of finite numbers above 0, and of at least 0
    fractions : names of numbers in [0, 1)
    counts, sizes : names of whole numbers of at least 1, and of at least 0
    switches : names of what is True or False
    """
    kinds = {"positive": positive, "not_negative": not_negative, "fraction": fractions, "count": counts, "size": sizes}
    fields = vars(settings).items()
    left_open = [name for name, value in fields if value is None and getattr(type(settings), name, ...) is None]
    for kind, names in kinds.items():
        check_scalars("", kind, **{name: getattr(settings, name) for name in names if name not in left_open})
    for name in switches:
        value = getattr(settings, name)
        if name not in left_open and not isinstance(value, bool):
            raise ValueError(_("expected {name} to be True or False, got {got}", name=name, got=_described(value)))


def _described(value):
    """The type of a value, with what a message needs to show of it."""
    if isinstance(value, np.ndarray):
        kind = "" if type(value) is np.ndarray else f"{type(value).__name__} "
        return f"{kind}{value.dtype} of shape {value.shape}"
    text = repr(value)
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return text if plain else f"{text[:40]} ({type(value).__name__})"
