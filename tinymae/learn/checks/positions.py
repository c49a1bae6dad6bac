"""Checks of positions: the table of sines and cosines, and learned positions."""
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np

from tinymae.gradcheck import Row
from tinymae.gradcheck.invariants import assert_batch_independent
from tinymae.learn.demands import function, hint
from tinymae.learn.inputs import TQ, B, D, gaussian
from tinymae.learn.judge import judge
from tinymae.learn.pairs import check_pair
from tinymae.messages import message as _
from tinymae.ops import positional
from tinymae.ops.positional import positional_forward


def check_positional_encoding(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With an even and an odd number of columns."""
    encode = function(names, "positional_encoding")

    def waves(positions, exponents, first=np.sin, second=np.cos):
        positions = positions if positions.ndim == 2 else positions[:, None]
        angles = positions / 10000.0**exponents
        return np.where(np.arange(len(exponents)) % 2 == 0, first(angles), second(angles))

    def table(length, width):
        odd = _("With an odd D there is one cosine less than sines: table[:, 1::2] has D // 2 columns.")
        with hint(ValueError, odd, "broadcast") if width % 2 else nullcontext():
            return encode(length, width)

    def row(length, width):
        positions, column = np.arange(length), np.arange(width)
        exponents, right = column // 2 * 2 / width, positional.sinusoidal_interleaved(length, width)
        scale, odd, ours = 10000.0**exponents, column % 2 == 1, table(length, width)
        return judge("table", ours, right, {
            _("the exponent counts columns, 2j / D, as article A's code does: a sine and its cosine share 2i / D"):
                lambda: waves(positions, 2 * column / width),
            _("the exponent counts columns, 2j / D, and row 0 stays 0, as in article A's code: a sine and its cosine share "
              "2i / D, and position 0 is a position like the others"):
                lambda: waves(positions, 2 * column / width) * (positions > 0)[:, None],
            _("row 0 stays 0, as in article A's code: position 0 is a position like the others, cos(0) is 1"):
                lambda: right * (positions > 0)[:, None],
            _("the exponent is j / D for column j: a sine and its cosine share 2i / D"):
                lambda: waves(positions, column / width),
            _("the exponent is i / D: it should be 2i / D"): lambda: waves(positions, exponents / 2),
            _("the exponent is 4i / D: it should be 2i / D, where 2i is the even column"):
                lambda: waves(positions, 2 * exponents),
            _("the exponent of the cosines is (2i + 2) / D: a sine and its cosine share 2i / D"):
                lambda: waves(positions, exponents + column % 2 * 2 / width),
            _("the exponent does not divide by D: it should be 2i / D"): lambda: waves(positions, exponents * width),
            _("the power is divided by D, 10000^(2i) / D: D divides the exponent, 10000^(2i / D)"):
                lambda: waves(positions * width, exponents * width),
            _("sine and cosine are swapped"): lambda: waves(positions, exponents, np.cos, np.sin),
            _("all columns are sines: the odd ones are cosines"): lambda: waves(positions, exponents, np.sin, np.sin),
            _("all columns are cosines: the even ones are sines"): lambda: waves(positions, exponents, np.cos, np.cos),
            _("the odd columns stay 0: they are cosines"): lambda: right * (column % 2 == 0),
            _("the last column stays 0: it is a sine whose cosine has no room"): lambda: right * (column != width - width % 2),
            _("positions count from 1: the first is 0"): lambda: waves(positions + 1, exponents),
            _("the base is 1000: it should be 10000"): lambda: waves(positions, 0.75 * exponents),
            _("the position is multiplied by 10000^(2i / D): it is divided by it"): lambda: waves(positions, -exponents),
            _("the division is one of whole numbers (//): it should be /"):
                lambda: waves(positions[:, None] // 10000.0**exponents, 0 * exponents),
            _("the exponent divides by D - 1: it should be D"): lambda: waves(positions, column // 2 * 2 / (width - 1)),
            _("all sines come before all cosines, the layout in halves: here they alternate"):
                lambda: np.concatenate([right[:, 0::2], right[:, 1::2]], axis=1),
            _("sin(pos) and cos(pos) are divided by 10000^(2i / D): pos is divided, inside of sin and cos"):
                lambda: waves(positions, 0 * exponents) / scale,
            _("the angle is pos + 10000^(2i / D): pos is divided by it"):
                lambda: np.where(odd, np.cos(positions[:, None] + scale), np.sin(positions[:, None] + scale)),
        }, otherwise=_where_it_is_wrong(ours, right, odd))

    for length, width in ((10, 8), (7, 5)):
        yield _("{length} positions, {width} columns", length=length, width=width), [row(length, width)]


def _where_it_is_wrong(ours, right, odd):
    """Which columns of a table of sines and cosines are wrong; '' if that says nothing."""
    if np.shape(ours) != right.shape or not np.asarray(ours).dtype.kind == "f":
        return ""
    wrong = (np.abs(ours - right) > 1e-9).any(axis=0)
    if not wrong[~odd].any():
        return _("the even columns, the sines, are right, and the odd ones, the cosines, are wrong")
    if not wrong[odd].any():
        return _("the odd columns, the cosines, are right, and the even ones, the sines, are wrong")
    if not wrong[:2].any():
        return _("columns 0 and 1 are right, and others are wrong: sine and cosine are in their places, and what pos is "
                 "divided by, 10000^(2i / D), is wrong where i > 0")
    return ""


def check_positions(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With a table that has more rows than the batch has sequences or positions."""
    x, table = gaussian(B, TQ, D), gaussian(11, D)

    def alone(y):
        assert_batch_independent(lambda x: y(x, table), x)

    yield from check_pair(names, "positional", positional_forward, x, table, invariants=[alone], variants={
        _("the positions count the sequences of the batch, axis 0: they count the tokens of a sequence, axis 1"):
            lambda x, table: x + table[:B, None],
        _("every token gets the position of the last one"): lambda x, table: x + table[TQ - 1],
        _("positions count from 1: the first is 0"): lambda x, table: x + table[1 : TQ + 1],
    })
