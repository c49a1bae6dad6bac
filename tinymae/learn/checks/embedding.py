"""Checks of what a decoder and an encoder start from: the embedding of tokens, and positions."""
from contextlib import nullcontext

import numpy as np

from tinymae.gradcheck.invariants import assert_batch_independent
from tinymae.learn.demands import function, hint
from tinymae.learn.inputs import TQ, B, D, V, gaussian, total
from tinymae.learn.judge import Tables, judge
from tinymae.learn.pairs import check_pair
from tinymae.messages import message as _
from tinymae.ops import embedding, positional
from tinymae.ops.positional import positional_forward


def check_embedding(names: dict) -> Tables:
    """With ids that repeat, in one row and in one column, and ids that do not occur."""
    def gradient(dy, ids):
        dtable = np.zeros((V, D))
        np.add.at(dtable, ids, dy)
        return dtable

    def slip(mistake):
        return lambda dy, ids, table: mistake(dy, ids, gradient(dy, ids))

    yield from check_pair(
        names, "embedding", embedding.embedding_forward, np.array([[3, 1, 3, 0], [3, 3, 1, 5]]), gaussian(V, D),
        gradients={"table": {
            _("row 0 gets no gradient: here id 0 is a token like the others, not padding"):
                slip(lambda dy, ids, dtable: dtable * (np.arange(V) > 0)[:, None]),
            _("the gradients go to the rows t = 0, 1, 2 ...: they belong to the rows ids[b, t]"):
                slip(lambda dy, ids, dtable: gradient(dy, np.arange(4) + 0 * ids)),
            _("each gradient is summed over its features: row v gets dy[b, t] itself, with all features"):
                slip(lambda dy, ids, dtable: total(dtable, axis=1) + 0 * dtable),
            _("all ids get the sum of all gradients: each gets those of its own positions"):
                slip(lambda dy, ids, dtable: dy.sum((0, 1)) * np.isin(np.arange(V), ids)[:, None]),
            _("only the first sentence of the batch is used: the gradients of all sentences are added"):
                slip(lambda dy, ids, dtable: gradient(dy[:1], ids[:1])),
            _("only the last sentence of the batch is used: the gradients of all sentences are added"):
                slip(lambda dy, ids, dtable: gradient(dy[-1:], ids[-1:])),
        }},
    )


def check_positional_encoding(names: dict) -> Tables:
    """With an even and an odd number of columns."""
    encode = function(names, "positional_encoding")

    def table(length, width):
        odd = _("With an odd D there is one cosine less than sines: table[:, 1::2] has D // 2 columns.")
        with hint(ValueError, odd, "broadcast") if width % 2 else nullcontext():
            return encode(length, width)

    def row(length, width):
        positions, column = np.arange(length)[:, None], np.arange(width)
        exponents, right = column // 2 * 2 / width, positional.sinusoidal_interleaved(length, width)
        scale, odd, ours = 10000.0**exponents, column % 2 == 1, table(length, width)

        def waves(exponents, first=np.sin, second=np.cos, positions=positions):
            angles = positions / 10000.0**exponents
            return np.where(odd, second(angles), first(angles))

        return judge("table", ours, right, {
            _("the exponent counts columns, 2j / D, as article A's code does: a sine and its cosine share 2i / D"):
                lambda: waves(2 * column / width),
            _("the exponent counts columns, 2j / D, and row 0 stays 0, as in article A's code: a sine and its cosine share "
              "2i / D, and position 0 is a position like the others"): lambda: waves(2 * column / width) * (positions > 0),
            _("row 0 stays 0, as in article A's code: position 0 is a position like the others, cos(0) is 1"):
                lambda: right * (positions > 0),
            _("the exponent is j / D for column j: a sine and its cosine share 2i / D"): lambda: waves(column / width),
            _("the exponent is i / D: it should be 2i / D"): lambda: waves(exponents / 2),
            _("the exponent is 4i / D: it should be 2i / D, where 2i is the even column"): lambda: waves(2 * exponents),
            _("the exponent of the cosines is (2i + 2) / D: a sine and its cosine share 2i / D"):
                lambda: waves(exponents + column % 2 * 2 / width),
            _("the exponent does not divide by D: it should be 2i / D"): lambda: waves(exponents * width),
            _("the power is divided by D, 10000^(2i) / D: D divides the exponent, 10000^(2i / D)"):
                lambda: waves(exponents * width, positions=positions * width),
            _("sine and cosine are swapped"): lambda: waves(exponents, np.cos, np.sin),
            _("all columns are sines: the odd ones are cosines"): lambda: waves(exponents, np.sin, np.sin),
            _("all columns are cosines: the even ones are sines"): lambda: waves(exponents, np.cos, np.cos),
            _("the odd columns stay 0: they are cosines"): lambda: right * (column % 2 == 0),
            _("the last column stays 0: it is a sine whose cosine has no room"): lambda: right * (column != width - width % 2),
            _("positions count from 1: the first is 0"): lambda: waves(exponents, positions=positions + 1),
            _("the base is 1000: it should be 10000"): lambda: waves(0.75 * exponents),
            _("the position is multiplied by 10000^(2i / D): it is divided by it"): lambda: waves(-exponents),
            _("the division is one of whole numbers (//): it should be /"):
                lambda: waves(0 * exponents, positions=positions // scale),
            _("the exponent divides by D - 1: it should be D"): lambda: waves(column // 2 * 2 / (width - 1)),
            _("all sines come before all cosines, the layout in halves: here they alternate"):
                lambda: np.concatenate([right[:, 0::2], right[:, 1::2]], axis=1),
            _("sin(pos) and cos(pos) are divided by 10000^(2i / D): pos is divided, inside of sin and cos"):
                lambda: waves(0 * exponents) / scale,
            _("the angle is pos + 10000^(2i / D): pos is divided by it"):
                lambda: waves(0 * exponents, positions=positions + scale),
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


def check_positions(names: dict) -> Tables:
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
