"""The functions of the tab "positions" of the live page: each takes the models and JSON values and returns JSON values.

The package's tables have the base 10000 of the paper. `sinusoids` is the same formula for any base; its tests compare both.
"""
import math

import numpy as np

from tinymae import init
from tinymae.messages import either
from tinymae.messages import message as _
from tinymae.ops.positional import positional_forward
from tinymae.play.shown import check_whole, rounded

LAYOUTS = ("interleaved", "halves", "article_a", "article_a_normalised", "learned")
MOST_POSITIONS, MOST_COLUMNS = 128, 128              # the page draws every number


def encodings(models: object, *, length: int, width: int, base: float, layout: str, trained: int) -> dict:
    """A table of positions, and the dot products of all its rows.

    Parameters
    ----------
    models : not needed
    length, width : T and D
    base : of the frequencies, 10000 in the paper
    layout : one of LAYOUTS
    trained : the length of the training sequences, at most T; a learned table ends there

    Returns
    -------
    "values" : T rows of D numbers, None for a row that does not exist
    "columns" : for each, {"kind": "sin", "cos" or "learned", "wavelength": positions until it repeats, or None}
    "dots" : T rows of T numbers, None where one of the two rows does not exist
    """
    rows = positions(length, width, base, layout, trained)
    missing = [None] * (length - len(rows))
    return {
        "values": rounded(rows) + missing,
        "columns": _columns(width, base, layout),
        "dots": [products + missing for products in rounded(rows @ rows.T)] + [[None] * length for each in missing],
    }


def position(
    models: object, *, length: int, width: int, base: float, layout: str, trained: int, place: int, offset: int,
) -> dict:
    """One position p of the table, the position p + k, and what turns the one into the other.

    Parameters
    ----------
    models, length, width, base, layout, trained : as `table`
    place, offset : p and k, with p + k < T

    Returns
    -------
    "refused" : why a sequence that ends with this position cannot get the table, in the package's words; "" if it can
    "nearest" : {"place", "distance"} of the nearest row among those of the training; None if p has no row
    "pairs" : for each pair of columns that belong together, its "columns", the frequencies' "turn" by k positions (None if they
        have two frequencies, or none), its "hand" [cos, sin] at p and its hand "later" at p + k, the "measured" angle
        between the two, and the "least" and the "most" of such angles over all positions. Radians; None without a row
    "rotation" : whether every pair is turned by one angle at all positions; None if no angle can be measured
    """
    rows = positions(length, width, base, layout, trained)
    check_whole("place", place, 0, length - 1)
    check_whole("offset", offset, 0, length - 1 - place)
    pairs = [_pair(rows, *pair, place, offset) for pair in _pairs(width, base, layout, offset)]
    spreads = [pair["most"] - pair["least"] for pair in pairs if pair["least"] is not None]
    return {
        "refused": _refusal(rows, place),
        "nearest": _nearest(rows, place, trained),
        "pairs": pairs,
        "rotation": max(spreads) == 0 if spreads else None,
    }


def positions(length: int, width: int, base: float, layout: str, trained: int) -> np.ndarray:
    """The table (T, D) of a layout, or (trained, D) for learned positions, after a check of all arguments."""
    if layout not in LAYOUTS:
        raise ValueError(_("expected a layout, {names}, got {layout!r}", names=either(LAYOUTS), layout=layout))
    check_whole("length", length, 2, MOST_POSITIONS)
    check_whole("width", width, 2, MOST_COLUMNS)
    check_whole("trained", trained, 1, length)
    if isinstance(base, bool) or not isinstance(base, (int, float)) or not 1 < base <= 1e6:
        raise ValueError(_("base is {base!r}, expected a number above 1, at most 1000000: with 1, all columns have one "
                           "frequency", base=base))
    if layout == "halves" and width % 2:
        raise ValueError(_("width is {width}, expected an even number: one half of the columns holds the sines, the other the "
                           "cosines", width=width))
    if layout == "learned":                                     # as training finds it: noise, without any order
        return init.normal((trained, width), np.random.default_rng(0), dtype=np.float64)
    return sinusoids(length, width, base, layout)


def sinusoids(length: int, width: int, base: float, layout: str) -> np.ndarray:
    """The tables of `tinymae.ops.positional` for any base: float64 (T, D)."""
    rates, is_sine = _rates(width, base, layout)
    angles = np.arange(length)[:, None] / rates
    rows = np.where(is_sine, np.sin(angles), np.cos(angles))
    if layout.startswith("article_a"):
        rows[0] = 0                                             # its second quirk
    if layout == "article_a_normalised":
        rows[1:] /= np.linalg.norm(rows[1:], axis=1, keepdims=True)
    return rows


def _rates(width, base, layout):
    """For each column: the positions in which its angle grows by 1, and whether it is a sine."""
    columns = np.arange(width)
    if layout == "halves":
        number, is_sine = columns % (width // 2), columns < width // 2
    else:                                                       # article A's first quirk: the column, not the pair, is i
        number, is_sine = columns // 2 if layout == "interleaved" else columns, columns % 2 == 0
    return base ** (2 * number / width), is_sine


def _columns(width, base, layout):
    if layout == "learned":
        return [{"kind": "learned", "wavelength": None}] * width
    rates, is_sine = _rates(width, base, layout)
    return [{"kind": "sin" if sine else "cos", "wavelength": rounded(2 * math.pi * rate)}
            for rate, sine in zip(rates, is_sine, strict=True)]


def _pairs(width, base, layout, offset):
    """(column of the sine, column of the cosine, the angle by which k positions turn them, or None) of each pair."""
    half = width // 2
    for i in range(half):
        sine, cosine = (i, i + half) if layout == "halves" else (2 * i, 2 * i + 1)
        one_frequency = layout in ("interleaved", "halves")
        yield sine, cosine, offset / base ** (2 * i / width) if one_frequency else None


def _pair(rows, sine, cosine, turn, place, offset):
    """See "pairs" of `position`."""
    hands = rows[:, cosine] + 1j * rows[:, sine]                # (T,)
    later = hands[offset:]
    turned = later * hands[: len(later)].conj()                 # its angle is the later hand's minus the earlier one's
    angles = _comparable(turned, turn)
    known = angles[~np.isnan(angles)]
    return {
        "columns": [sine, cosine],
        "turn": None if turn is None else rounded(turn),
        "hand": _hand(hands, place),
        "later": _hand(hands, place + offset),
        "measured": rounded(angles[place]) if place < len(angles) and not np.isnan(angles[place]) else None,
        "least": rounded(known.min()) if known.size else None,
        "most": rounded(known.max()) if known.size else None,
    }


def _comparable(turned, turn):
    """The angles of complex numbers, each within half a turn of their mean direction, and this one near `turn` if there is one.

    NaN for a 0: article A's row 0 points nowhere.
    """
    pointing = turned != 0
    middle = np.angle((turned[pointing] / np.abs(turned[pointing])).sum())
    angles = middle + np.angle(turned * np.exp(-1j * middle))
    if turn is not None:
        angles += 2 * math.pi * round((turn - middle) / (2 * math.pi))
    return np.where(pointing, angles.round(12), np.nan)         # rounding errors around 0 would look like angles


def _hand(hands, place):
    return rounded([hands[place].real, hands[place].imag]) if place < len(hands) else None


def _refusal(rows, place):
    """The sentence with which the package refuses a table that is too short; "" if it is not."""
    try:
        positional_forward(np.zeros((1, place + 1, rows.shape[1])), rows)
    except ValueError as error:
        return str(error)
    return ""


def _nearest(rows, place, trained):
    if place >= len(rows):
        return None
    distances = np.linalg.norm(rows[:trained] - rows[place], axis=1)
    nearest = int(distances.argmin())
    return {"place": nearest, "distance": rounded(distances[nearest])}


FUNCTIONS = {"table": encodings, "position": position}
