"""Checks of the exercises about ops and layers. The tables in `exercises` list which file gets which check.

A check gets the namespace of the learner's file and yields tables, (title, rows), from simple to hard; a row is a Row of the
gradient checker. The forward is compared with that of the package, because a gradient check cannot detect a wrong forward;
the backward is compared with finite differences of the learner's own forward. A file of the zoo gets the check of the exercise
on the same subject: the checks do not know which bug it contains.
"""
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import numpy as np

from tinymae import blocks, init
from tinymae.gradcheck import Row, gradcheck
from tinymae.gradcheck.cases import perturbed
from tinymae.learn.check_attention import dropout_rows
from tinymae.learn.judge import (
    TK,
    TQ,
    B,
    D,
    F,
    H,
    V,
    check_pair,
    close,
    diagnosed,
    frozen,
    function,
    gaussian,
    hint,
    judge,
    normal_cdf,
    parts,
    recognised,
)
from tinymae.messages import marked
from tinymae.messages import message as _
from tinymae.ops import activation, embedding, layernorm, linear, positional, softmax


def factors(ours: np.ndarray, *terms: np.ndarray) -> np.ndarray | None:
    """The factors by which the terms add up to exactly the learner's numbers; None if there are none."""
    columns = np.stack([np.broadcast_to(term, ours.shape).ravel() for term in terms], axis=1)
    found = np.linalg.lstsq(columns, ours.ravel(), rcond=None)[0]
    return found if close(ours.ravel(), columns @ found, 1e-9) else None


def spelled(ours: np.ndarray, terms: dict[str, np.ndarray], known: tuple[np.ndarray, ...], most: int = 4) -> str:
    """The learner's numbers as a sum of a few of these terms, such as `2 x pdf(x) - cdf(x)`; '' if they are none.

    '' also for a multiple of a gradient in `known`, for which the gradient checker has a sentence.
    """
    found = factors(ours, *terms.values())
    if found is None or any(factors(ours, gradient) is not None for gradient in known):
        return ""
    found = np.round(found, 6)
    if np.count_nonzero(found) > most:
        return ""
    signed = [f"{'-' if factor < 0 else '+'} {'' if abs(factor) == 1 else f'{abs(factor):.6g} '}{term}"
              for term, factor in zip(terms, found, strict=True) if factor]
    return " ".join(signed).removeprefix("+ ")


def check_numerical_gradient(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With the sine of a sum: each derivative depends on all numbers, and h is so large that a different h shows."""
    x, w, h = gaussian(3, 4), gaussian(3, 4, seed=1), 2e-3
    before, total = x.copy(), (w * x).sum()

    moves = []                                                  # of x, in each call of f

    def f(x):
        moves.append(np.asarray(x, np.float64) - before if np.shape(x) == before.shape else None)
        return float(np.sin((w * x).sum()))

    def slope(up, down, width=2 * h):
        return (np.sin(up) - np.sin(down)) / width

    everywhere, alone = np.ones_like(x), w * before
    ours = function(names, "numerical_gradient")(f, x, h)
    yield _("afterwards"), [judge("x", x, before, otherwise=_("x has changed: put each number back"))]
    right = slope(total + w * h, total - w * h)
    near = np.shape(ours) == x.shape and close(np.asarray(ours, np.float64), right, 1e-3)
    digits = _("it is nearly right: are x, h or f(x) cast to float32? Then f(x + h) and f(x - h) have seven digits, and most "
               "of them are lost in the difference")
    yield f"f(x) = sin(sum w x), h = {h}", [judge("gradient", ours, right, {
        _("x moves up only, (f(x + h) - f(x)) / h: that is off by h, the difference over both sides by h^2"):
            lambda: slope(total + w * h, total, h),
        _("x moves down only, (f(x) - f(x - h)) / h: that is off by h, the difference over both sides by h^2"):
            lambda: slope(total, total - w * h, h),
        _("one of the two points is x itself: they are x + h and x - h, 2h apart"): lambda: slope(total + w * h, total),
        _("the difference is divided by h: it is 2h from x - h to x + h"): lambda: slope(total + w * h, total - w * h, h),
        _("the difference is not divided by 2h"): lambda: slope(total + w * h, total - w * h, 1),
        _("the difference is divided by 2 and multiplied by h, which is what / 2 * h does: it should be / (2 * h)"):
            lambda: slope(total + w * h, total - w * h, 2 / h),
        _("the two points are swapped: it is f(x + h) - f(x - h)"): lambda: slope(total - w * h, total + w * h),
        _("its sign is lost, as by abs: the slope may be negative"): lambda: np.abs(right),
        _("all numbers of x move: move x[index] alone"): lambda: slope(total + w.sum() * h, total - w.sum() * h) * everywhere,
        _("all other numbers of x become 0: they stay where they are"): lambda: slope(alone + w * h, alone - w * h),
        _("x[index] moves by a fraction of itself, x[index] * h, and the difference is divided by 2h: it moves by h"):
            lambda: slope(total + alone * h, total - alone * h),
        _("the step is x[index] * h, a fraction of each number: it should be h for all"):
            lambda: slope(total + alone * h, total - alone * h, 2 * h * before),
        _("x[index] becomes h and -h: it should become x[index] + h and x[index] - h"):
            lambda: slope(total - alone + w * h, total - alone - w * h),
        _("f gets the number x[index] alone: it expects the whole array"):
            lambda: slope(w.sum() * (before + h), w.sum() * (before - h)),
        _("x + h and x - h are one array, moved up and down again: a = x makes no copy"): lambda: 0 * everywhere,
        _("an h different from the argument is used, or more than two points"): lambda: w * np.cos(total),
    }, otherwise=digits if near else _wrong_points(moves, h))]


def _wrong_points(moves, h):
    """Where f was called for the first number, x[0, 0], if that is wrong."""
    two = moves[:2]
    if len(two) < 2 or any(move is None for move in two):
        return ""
    if any(np.delete(move.ravel(), 0).any() for move in two):
        return _("f is called with other numbers of x moved, too: for x[0, 0], move x[0, 0] alone")
    first, second = (float(move[0, 0]) for move in two)
    if close(np.sort([first, second]), np.array([-h, h]), 1e-6):
        return _("f is called at the right two points: what is wrong is what is made of the values, their difference by 2h")
    return _("for x[0, 0], f is called with it moved by {first:.4g}, then by {second:.4g}: it should be moved by h = {h:.4g} "
             "and by -h", first=first, second=second, h=h)


def check_embedding(names: dict) -> Iterator[tuple[str, list[Row]]]:
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
                slip(lambda dy, ids, dtable: dtable.sum(axis=1, keepdims=True) + 0 * dtable),
            _("all ids get the sum of all gradients: each gets those of its own positions"):
                slip(lambda dy, ids, dtable: dy.sum((0, 1)) * np.isin(np.arange(V), ids)[:, None]),
            _("only the first sentence of the batch is used: the gradients of all sentences are added"):
                slip(lambda dy, ids, dtable: gradient(dy[:1], ids[:1])),
            _("only the last sentence of the batch is used: the gradients of all sentences are added"):
                slip(lambda dy, ids, dtable: gradient(dy[-1:], ids[-1:])),
        }},
    )


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
            _("the last column stays 0: it is a sine whose cosine has no room"):
                lambda: right * (column != width - width % 2),
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


def check_dropout(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Which numbers stay and how many; that backward uses the same ones; dropout switched off."""
    forward, backward = function(names, "dropout_forward"), function(names, "dropout_backward")
    x = frozen(gaussian(100, 100))

    def draw(dropout, rng):
        return np.asarray(parts(forward(x, dropout, rng), "y", "cache")[0])

    if (y := draw(0.3, np.random.default_rng(0))).shape != x.shape:
        yield _("forward"), [judge("y", y, x)]
    for dropout in (0.3, 0.6):
        yield _("dropout {dropout}", dropout=dropout), dropout_rows("y", partial(draw, dropout), x, dropout)
    yield _("gradients"), _dropout_gradients(forward, backward, gaussian(B, TQ, D), 0.3)
    x = gaussian(B, TQ, D)
    off, _cache = parts(forward(x.copy(), 0.3), "y", "cache")
    yield _("switched off"), [judge("y", off, x), *gradcheck(forward, backward, x, 0.3)]


def _dropout_gradients(forward, backward, x, dropout):
    """The rows of the gradient check, with the mistakes in what backward multiplies dy by."""
    rows = gradcheck(forward, backward, x, dropout, rng=0)
    if all(row.ok for row in rows) or rows[0].tensor != "x":
        return rows
    (y, cache), dy = forward(x.copy(), dropout, np.random.default_rng(0)), gaussian(*x.shape, seed=1)
    dx = backward(dy, cache)
    if isinstance(cache, (tuple, list)) and len(cache) == 1 and np.shape(dx) == (1, *x.shape):
        return [diagnosed(rows[0], _(
            "the cache is a tuple of one, and dy is multiplied by the tuple, which gives dx one more axis: unpack it in "
            "backward, (keep,) = cache, or return keep itself as the cache"
        ))]
    kept = y != 0
    return [recognised(rows[0], dx, {
        _("dy is multiplied by y: it is multiplied by keep, the cache"): lambda: dy * y,
        _("dy is multiplied by x: it is multiplied by keep, the cache"): lambda: dy * x,
        _("dx is dy itself: what was dropped in forward gets no gradient, what stayed is scaled"): lambda: dy,
        _("backward passes what forward dropped, and drops what it kept"): lambda: dy * ~kept / (1 - dropout),
        _("backward passes what forward dropped, and drops what it kept, without the factor 1 / (1 - dropout)"):
            lambda: dy * ~kept,
        _("all of dy is scaled and nothing is dropped: what was dropped in forward gets no gradient"):
            lambda: dy / (1 - dropout),
    }), *rows[1:]]


def normalise(
    x: np.ndarray,
    gamma: np.ndarray | float,
    beta: np.ndarray | float,
    *,
    axis: int | None = -1,
    ddof: int = 0,
    deviation: Callable[[np.ndarray], np.ndarray] = lambda var: np.sqrt(var + 1e-5),
) -> np.ndarray:
    """Layer normalisation without mistakes; the options are mistakes."""
    return gamma * (x - x.mean(axis, keepdims=True)) / deviation(x.var(axis, ddof=ddof, keepdims=True)) + beta


FAR_FROM_ZERO = marked(
    "right near 0 and wrong far from it: is the variance computed as mean(x^2) - mean(x)^2? Those are two large numbers, and "
    "in float32 nothing is left of their difference; take mean((x - mean(x))^2)"
)
LAYERNORM_VARIANTS = {
    marked("the variance is the unbiased one, 1 / (D - 1): layer normalisation has 1 / D"): partial(normalise, ddof=1),
    marked("eps is added to the square root: it belongs inside, to the variance"):
        partial(normalise, deviation=lambda var: np.sqrt(var) + 1e-5),
    marked("the variance is the unbiased one, 1 / (D - 1), and eps is added to its square root, as in the Annotated "
           "Transformer: layer normalisation has 1 / D, and eps inside"):
        partial(normalise, ddof=1, deviation=lambda var: np.sqrt(var) + 1e-5),
    marked("eps is missing"): partial(normalise, deviation=np.sqrt),
    marked("x is divided by the variance: it should be its square root"): partial(normalise, deviation=lambda var: var + 1e-5),
    marked("mean and variance are taken along axis -2: each position is normalised over its own features, axis -1"):
        partial(normalise, axis=-2),
    marked("mean and variance are taken over the whole array: each position has its own"): partial(normalise, axis=None),
    marked("gamma and beta are not used"): lambda x, gamma, beta: normalise(x, 1, 0),
}


def check_layernorm(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With x near 0; with one axis less; then in float32 and far from 0, where rounding can destroy a variance."""
    def centred(x):
        return x - x.mean(axis=-1, keepdims=True)

    def slip(equation, *, ddof=0, inside=1e-5, outside=0.0):
        def dx(dy, x, gamma, beta):
            root = np.sqrt(x.var(axis=-1, ddof=ddof, keepdims=True) + inside)
            rstd = 1 / (root + outside)
            return equation(dy * gamma, centred(x) * rstd, rstd, (D - ddof) * rstd * root)
        return dx

    def projected(dxhat, xhat, count=D):
        return centred(dxhat) - xhat * (dxhat * xhat).sum(-1, keepdims=True) / count

    def shared(factor):
        """A gradient of gamma or beta: the sum over all positions of factor(dy, x, gamma, beta)."""
        return lambda dy, x, gamma, beta: factor(dy, x, gamma, beta).reshape(-1, D).sum(axis=0)

    def along(first, last):
        """(5) with its means along other axes."""
        return slip(lambda dxhat, xhat, rstd, count: rstd * (
            dxhat - dxhat.mean(first, keepdims=True) - xhat * (dxhat * xhat).mean(last, keepdims=True)
        ))

    def both(dxhat, xhat, rstd, count):
        return rstd * projected(dxhat, xhat)

    def rstd_alone(dxhat, xhat, rstd, count):
        return rstd * projected(dxhat, normalise(xhat / rstd, 1, 0))

    def derivative(dxhat, xhat, rstd, count):
        return rstd * projected(dxhat, xhat, count)

    def sums(first, last):
        return slip(lambda dxhat, xhat, rstd, count: rstd * (
            dxhat - first * dxhat.mean(-1, keepdims=True) - last * xhat * (dxhat * xhat).mean(-1, keepdims=True)
        ))

    unbiased, added = {"ddof": 1}, {"inside": 0.0, "outside": 1e-5}
    slips = {
        _("the last term of (5) is missing, xhat * mean(dxhat * xhat)"): sums(1, 0),
        _("rstd divides: in (5) it multiplies"): slip(lambda dxhat, xhat, rstd, count: projected(dxhat, xhat) / rstd),
        _("rstd is multiplied twice in (5)"): slip(lambda dxhat, xhat, rstd, count: projected(dxhat, xhat) * rstd * rstd),
        _("the factor xhat before the last mean of (5) is missing"): slip(
            lambda dxhat, xhat, rstd, count: rstd * (centred(dxhat) - (dxhat * xhat).mean(-1, keepdims=True))
        ),
        _("the last mean of (5) is one of dxhat alone: it is one of dxhat * xhat"): slip(
            lambda dxhat, xhat, rstd, count: rstd * (centred(dxhat) - xhat * dxhat.mean(-1, keepdims=True))
        ),
        _("the last mean of (5) is one of dy * xhat, without gamma: it is one of dxhat * xhat"):
            lambda dy, x, gamma, beta: slip(lambda dxhat, xhat, rstd, count: rstd * (
                centred(dxhat) - xhat * (dy * xhat).mean(-1, keepdims=True)
            ))(dy, x, gamma, beta),
        _("the first mean of (5) is one of dy, without gamma: it is one of dxhat"):
            lambda dy, x, gamma, beta: slip(lambda dxhat, xhat, rstd, count: rstd * (
                dxhat - dy.mean(-1, keepdims=True) - xhat * (dxhat * xhat).mean(-1, keepdims=True)
            ))(dy, x, gamma, beta),
        _("(5) has x in place of xhat, in its last term"): lambda dy, x, gamma, beta: slip(
            lambda dxhat, xhat, rstd, count: rstd * (centred(dxhat) - x * (dxhat * x).mean(-1, keepdims=True))
        )(dy, x, gamma, beta),
        _("(5) has x - mean(x) in place of xhat, in its last term"): slip(
            lambda dxhat, xhat, rstd, count: rstd * projected(dxhat, xhat / rstd)
        ),
        _("the last term of (5) is added: it is subtracted"): sums(1, -1),
        _("the first mean of (5) is added: it is subtracted"): sums(-1, 1),
        _("both means of (5) are added: they are subtracted"): sums(-1, -1),
        _("the first mean of (5) is missing"): sums(0, 1),
        _("both means of (5) are sums"): sums(D, D),
        _("the first mean of (5) is a sum"): sums(D, 1),
        _("the last mean of (5) is a sum"): sums(1, D),
        _("all of (5) is divided by D, and its means are sums: dxhat is multiplied by D then, or the sums are means"): slip(
            lambda dxhat, xhat, rstd, count: rstd / D * (
                dxhat - dxhat.sum(-1, keepdims=True) - xhat * (dxhat * xhat).sum(-1, keepdims=True)
            )
        ),
        _("the means of (5) are taken along axis -2: each position has its own, along axis -1"): along(-2, -2),
        _("the means of (5) are taken along axis 0: each position has its own, along axis -1"): along(0, 0),
        _("the means of (5) are taken over the whole array: each position has its own, along axis -1"):
            along(None, None),
        **{_("the first mean of (5) is taken along axis {axis}: each position has its own, along axis -1", axis=axis):
           along(axis, -1) for axis in (-2, 0)},
        **{_("the last mean of (5) is taken along axis {axis}: each position has its own, along axis -1", axis=axis):
           along(-1, axis) for axis in (-2, 0)},
        _("the first mean of (5) is taken over the whole array: each position has its own, along axis -1"): along(None, -1),
        _("the last mean of (5) is taken over the whole array: each position has its own, along axis -1"): along(-1, None),
        _("the factor rstd of (5) is missing"): slip(lambda dxhat, xhat, rstd, count: projected(dxhat, xhat)),
        _("(5) stops after rstd * dxhat: mean and variance depend on x, too"): sums(0, 0),
        _("(5) stops after dxhat: x is also in the factor rstd, the mean and the variance"): slip(
            lambda dxhat, xhat, rstd, count: dxhat
        ),
        _("rstd is squared in the gradient of the variance, where it is cubed: the last term of (5) lacks a factor rstd"): slip(
            lambda dxhat, xhat, rstd, count: rstd * centred(dxhat) - xhat * (dxhat * xhat).mean(-1, keepdims=True)
        ),
        _("rstd is multiplied once more in the last term of (5)"): slip(lambda dxhat, xhat, rstd, count: rstd * (
            centred(dxhat) - rstd * xhat * (dxhat * xhat).mean(-1, keepdims=True)
        )),
        _("rstd multiplies the first term of (5) alone: it multiplies the parentheses"): slip(
            lambda dxhat, xhat, rstd, count: rstd * dxhat - (dxhat - projected(dxhat, xhat))
        ),
        _("the last mean of (5) divides by D - 1: it is a mean over D features"): slip(
            lambda dxhat, xhat, rstd, count: rstd * projected(dxhat, xhat, D - 1)
        ),
        _("rstd and xhat in (5) have the unbiased variance, 1 / (D - 1): it should be 1 / D"):
            slip(both, **unbiased),
        _("rstd in (5) has the unbiased variance, 1 / (D - 1): it should be 1 / D"):
            slip(rstd_alone, **unbiased),
        _("(5) is the derivative for the unbiased variance, 1 / (D - 1): it should be 1 / D"):
            slip(derivative, **unbiased),
        _("rstd and xhat in (5) have eps added to the square root: it belongs inside the square root"):
            slip(both, **added),
        _("rstd in (5) has eps added to the square root: it belongs inside the square root"):
            slip(rstd_alone, **added),
        _("(5) is the derivative for eps added to the square root: it belongs inside the square root"):
            slip(derivative, **added),
        _("rstd and xhat in (5) have the unbiased variance, 1 / (D - 1), and eps added to its square root: it should be "
          "1 / D, and eps inside the square root"): slip(both, **unbiased, **added),
        _("rstd in (5) has the unbiased variance, 1 / (D - 1), and eps added to its square root: it should be 1 / D, and eps "
          "inside the square root"): slip(rstd_alone, **unbiased, **added),
        _("(5) is the derivative for the unbiased variance, 1 / (D - 1), and eps added to its square root: it should be "
          "1 / D, and eps inside the square root"): slip(derivative, **unbiased, **added),
        _("rstd and xhat in (5) have no eps: it belongs to the variance, inside the square root"): slip(both, inside=0.0),
        _("rstd in (5) has no eps: it belongs to the variance, inside the square root"): slip(rstd_alone, inside=0.0),
        _("(5) is the derivative without eps: it belongs to the variance, inside the square root"):
            slip(derivative, inside=0.0),
    }
    def formula(ours, dy, x, gamma, beta):
        dxhat, xhat, rstd = dy * gamma, normalise(x, 1, 0), 1 / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        terms = {}
        for name, gradient in (("dxhat", dxhat), ("dy", dy)):
            terms |= {
                name: gradient, f"mean({name})": gradient.mean(-1, keepdims=True),
                f"xhat mean({name})": xhat * gradient.mean(-1, keepdims=True),
                f"mean({name} xhat)": (gradient * xhat).mean(-1, keepdims=True),
                f"xhat mean({name} xhat)": xhat * (gradient * xhat).mean(-1, keepdims=True), f"xhat {name}": xhat * gradient,
            }
        terms |= {f"rstd {words}": rstd * term for words, term in terms.items()}
        formula = spelled(ours, terms, tuple(rstd * projected(gradient, xhat) for gradient in (dxhat, dy)))
        return formula and _("it is {formula}: it should be rstd dxhat - rstd mean(dxhat) - rstd xhat mean(dxhat xhat)",
                             formula=formula)

    gamma, beta = gaussian(D), gaussian(D, seed=1)
    yield from check_pair(
        names, "layernorm", layernorm.layernorm_forward, gaussian(B, TQ, D), gamma, beta, variants=LAYERNORM_VARIANTS,
        formulas={"x": formula},
        gradients={
            "x": slips,
            "gamma": {
                _("dgamma is the sum of dy * y: it is the sum of dy * xhat"):
                    shared(lambda dy, x, gamma, beta: dy * normalise(x, gamma, beta)),
                _("dy and xhat are summed before they are multiplied: dgamma is the sum of the products dy * xhat"):
                    lambda dy, x, gamma, beta: dy.sum((0, 1)) * normalise(x, 1, 0).sum((0, 1)),
                _("dgamma is the sum of dy * x: it is the sum of dy * xhat"): shared(lambda dy, x, gamma, beta: dy * x),
                _("dgamma is the sum of dy * (x - mean(x)), without rstd: it is the sum of dy * xhat"):
                    shared(lambda dy, x, gamma, beta: dy * centred(x)),
            },
            "beta": {
                _("dbeta is the sum of dxhat, which has the factor gamma: beta is added after gamma, so it is the sum of dy"):
                    shared(lambda dy, x, gamma, beta: dy * gamma),
                _("dbeta is the sum of dy * xhat * gamma: it is the sum of dy"):
                    shared(lambda dy, x, gamma, beta: dy * normalise(x, gamma, 0)),
            },
        },
    )
    yield from check_pair(
        names, "layernorm", layernorm.layernorm_forward, gaussian(TQ, D), gamma, beta, title=_("x of shape (T, D)")
    )
    x, gamma, beta = 5000 + gaussian(8, D), np.ones(D), np.zeros(D)
    arrays = [array.astype(np.float32) for array in (x, gamma, beta)]
    y, _cache = parts(function(names, "layernorm_forward")(*arrays), "y", "cache")
    expected, _cache = layernorm.layernorm_forward(*(array.astype(np.float64) for array in arrays))
    yield _("float32, inputs near 5000"), [judge("y", y, expected, tolerance=2e-3, otherwise=FAR_FROM_ZERO)]


def check_gelu(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """In its exact form."""
    def pdf(x):
        return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)

    def slip(slope):
        return lambda dy, x: dy * slope(x, normal_cdf(x), pdf(x))

    def formula(ours, dy, x):
        cdf = normal_cdf(x)
        terms = {"": 1 + 0 * x, "x": x, "cdf(x)": cdf, "x cdf(x)": x * cdf, "x^2 cdf(x)": x * x * cdf, "cdf(x)^2": cdf * cdf,
                 "pdf(x)": pdf(x), "x pdf(x)": x * pdf(x), "x^2 pdf(x)": x * x * pdf(x), "cdf(x) pdf(x)": cdf * pdf(x)}
        right = dy * (cdf + x * pdf(x))
        formula = spelled(ours, {words: dy * term for words, term in terms.items()}, (right,))
        return formula and _("it is dy * ({formula}): it should be dy * (cdf(x) + x pdf(x))", formula=formula)

    yield from check_pair(names, "gelu", activation.gelu_forward, gaussian(B, TQ, F), variants={
        _("the tanh form, an approximation, is used"): lambda x: activation.gelu_forward(x, "tanh")[0],
    }, formulas={"x": formula}, gradients={"x": {
        _("the derivative is cdf(x) alone: x is also inside cdf"): slip(lambda x, cdf, pdf: cdf),
        _("the derivative is cdf(x) + pdf(x): the second term has the factor x"): slip(lambda x, cdf, pdf: cdf + pdf),
        _("the derivative is x pdf(x) alone: x is also the factor of cdf"): slip(lambda x, cdf, pdf: x * pdf),
        _("the derivative is pdf(x): y is a product, x cdf(x)"): slip(lambda x, cdf, pdf: pdf),
        _("the second term of (3) is subtracted: it is added"): slip(lambda x, cdf, pdf: cdf - x * pdf),
        _("the two terms of (3) are multiplied: the derivative of a product is a sum"):
            slip(lambda x, cdf, pdf: cdf * x * pdf),
        _("cdf(x) and pdf(x) are multiplied: the derivative of a product is a sum, cdf(x) + x pdf(x)"):
            slip(lambda x, cdf, pdf: cdf * pdf),
        _("cdf and pdf are swapped: the derivative is cdf(x) + x pdf(x)"): slip(lambda x, cdf, pdf: pdf + x * cdf),
        _("the first term of (3) is x cdf(x), that is y: the derivative of the factor x is 1"):
            slip(lambda x, cdf, pdf: x * cdf + x * pdf),
        _("the derivative is x cdf(x), that is y"): slip(lambda x, cdf, pdf: x * cdf),
        _("the sum of (3) is multiplied by x: the first term has no factor x"): slip(lambda x, cdf, pdf: x * (cdf + x * pdf)),
        _("the second term of (3) has x twice, x^2 pdf(x): it is x pdf(x)"): slip(lambda x, cdf, pdf: cdf + x * x * pdf),
        _("the second term of (3) is y pdf(x): it is x pdf(x)"): slip(lambda x, cdf, pdf: cdf + x * cdf * pdf),
        _("the second term of (3) has the derivative of pdf, -x pdf(x), in place of pdf: pdf is already the derivative of cdf"):
            slip(lambda x, cdf, pdf: cdf - x * x * pdf),
        _("the derivative of cdf is taken to be cdf (1 - cdf), which is that of the logistic function: it is pdf"):
            slip(lambda x, cdf, pdf: cdf + x * cdf * (1 - cdf)),
        _("the derivative is that of ReLU, 1 where x > 0: that of GELU is cdf(x) + x pdf(x)"):
            slip(lambda x, cdf, pdf: x > 0),
        _("pdf has exp(-x^2), without the 1 / 2: it is exp(-x^2 / 2) / sqrt(2 pi)"):
            slip(lambda x, cdf, pdf: cdf + x * np.exp(-x * x) / math.sqrt(2 * math.pi)),
        _("pdf has exp(x^2 / 2), without the minus: it is exp(-x^2 / 2) / sqrt(2 pi)"):
            slip(lambda x, cdf, pdf: cdf + x * np.exp(x * x / 2) / math.sqrt(2 * math.pi)),
        _("pdf lacks the factor 1 / sqrt(2 pi)"): slip(lambda x, cdf, pdf: cdf + x * pdf * math.sqrt(2 * math.pi)),
        _("dy multiplies the first term of (3) alone: put (3) into parentheses, dy * (cdf + x * pdf)"):
            lambda dy, x: dy * normal_cdf(x) + x * pdf(x),
        _("dy multiplies the second term of (3) alone: put (3) into parentheses, dy * (cdf + x * pdf)"):
            lambda dy, x: normal_cdf(x) + dy * x * pdf(x),
        _("dy is added to (3): it is multiplied by it"): lambda dy, x: dy + normal_cdf(x) + x * pdf(x),
    }})


def check_feed_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With ReLU."""
    p = perturbed(init.feed_forward(D, F, np.random.default_rng(0), dtype=np.float64), np.random.default_rng(1))

    def flat(z):
        return z.reshape(-1, z.shape[-1])

    def slip(gradient):
        """A gradient with a mistake: gradient(x, h, a, da, dy, p)."""
        def wrong(dy, x, p):
            h = x @ p["fc1"]["w"] + p["fc1"]["b"]
            return gradient(x, h, np.maximum(h, 0), dy @ p["fc2"]["w"].T, dy, p)
        return wrong

    gates = {                                                   # what dh is, from da, h and a
        _("the ReLU is missing in backward: dh is da where h > 0, and 0 elsewhere"): lambda da, h, a: da,
        _("the sign of da decides what passes: it should be the sign of h"): lambda da, h, a: np.maximum(da, 0),
        _("the sign of da * h decides what passes: it should be the sign of h"): lambda da, h, a: da * (da * h > 0),
        _("da passes where h < 0: it should be where h > 0"): lambda da, h, a: da * (h < 0),
        _("da is multiplied by a: it passes unchanged where h > 0"): lambda da, h, a: da * a,
        _("da is multiplied by h: it passes unchanged where h > 0"): lambda da, h, a: da * h,
        _("da is multiplied by the sign of h: it is 0 where h < 0"): lambda da, h, a: da * np.sign(h),
        _("da is multiplied by a (1 - a), as with a logistic function: with ReLU it passes unchanged where h > 0"):
            lambda da, h, a: da * a * (1 - a),
    }

    def through(gradient):
        """The gates that are wrong, as slips of the gradient that comes from dh: gradient(dh, x, p)."""
        return {words: slip(lambda x, h, a, da, dy, p, gate=gate: gradient(gate(da, h, a), x, p))
                for words, gate in gates.items()}

    def formula(ours, dy, x, p):
        if np.linalg.lstsq(p["fc1"]["w"], flat(ours).T, rcond=None)[1].max(initial=0.0) > 1e-18:
            return ""
        return _("dx is a product with W1^T, as it should be, but what is multiplied by it is not dh: look at (5), da where "
                 "h > 0 and 0 elsewhere, and at da in (4)")

    def product(left, right):
        return slip(lambda *arrays: flat(left(*arrays)).T @ flat(right(*arrays)))

    yield from check_pair(names, "feed_forward", blocks.feed_forward_forward, gaussian(B, TQ, D), p, formulas={
        "x": formula,
    }, gradients={
        "x": through(lambda dh, x, p: dh @ p["fc1"]["w"].T),
        "p.fc1.w": through(lambda dh, x, p: flat(x).T @ flat(dh)) | {
            _("dW1 is x^T a, with the output of the ReLU: it is x^T dh"): product(
                lambda x, h, a, da, dy, p: x, lambda x, h, a, da, dy, p: a),
            _("dW1 is x^T h, with the output of the first linear map: it is x^T dh"): product(
                lambda x, h, a, da, dy, p: x, lambda x, h, a, da, dy, p: h),
            _("dW1 has dx in place of x: it is x^T dh"): product(
                lambda x, h, a, da, dy, p: (da * (h > 0)) @ p["fc1"]["w"].T, lambda x, h, a, da, dy, p: da * (h > 0)),
            _("dW1 has dy in place of x: it is x^T dh"): product(
                lambda x, h, a, da, dy, p: dy, lambda x, h, a, da, dy, p: da * (h > 0)),
            _("dW1 is dW2 transposed: it is x^T dh"): product(
                lambda x, h, a, da, dy, p: dy, lambda x, h, a, da, dy, p: a),
        },
        "p.fc1.b": through(lambda dh, x, p: flat(dh).sum(axis=0)) | {
            _("db1 is the sum of a: it is the sum of dh"): slip(lambda x, h, a, da, dy, p: flat(a).sum(axis=0)),
            _("db1 is the sum of h: it is the sum of dh"): slip(lambda x, h, a, da, dy, p: flat(h).sum(axis=0)),
        },
        "p.fc2.w": {
            _("dW2 is h^T dy, with h from before the ReLU: the second linear map got a, so it is a^T dy"): product(
                lambda x, h, a, da, dy, p: h, lambda x, h, a, da, dy, p: dy),
            _("dW2 is da^T dy, with a gradient in place of the input: it is a^T dy"): product(
                lambda x, h, a, da, dy, p: da, lambda x, h, a, da, dy, p: dy),
            _("dW2 is dh^T dy, with a gradient in place of the input: it is a^T dy"): product(
                lambda x, h, a, da, dy, p: da * (h > 0), lambda x, h, a, da, dy, p: dy),
            _("dW2 is a^T x: it is a^T dy"): product(
                lambda x, h, a, da, dy, p: a, lambda x, h, a, da, dy, p: x),
            _("dW2 has 1 in place of a where h > 0, which is the derivative of the ReLU: it is a^T dy"): product(
                lambda x, h, a, da, dy, p: h > 0, lambda x, h, a, da, dy, p: dy),
            _("dW2 is dW1 transposed: it is a^T dy"): product(
                lambda x, h, a, da, dy, p: da * (h > 0), lambda x, h, a, da, dy, p: x),
        },
        "p.fc2.b": {
            _("db2 is the sum of x: it is the sum of dy"): slip(lambda x, h, a, da, dy, p: flat(x).sum(axis=0)),
        },
    })


def check_linear(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With a bias."""
    def weights(product):
        return lambda dy, x, w, b: product(x, dy)

    def flat(z):
        return z.reshape(-1, z.shape[-1])

    x, w, b = gaussian(B, TQ, D), gaussian(D, F), gaussian(F)
    yield from check_pair(names, "linear", linear.linear_forward, x, w, b, gradients={"w": {
        _("x is brought to (I, positions) by a reshape, which does not transpose: x.reshape(-1, I).T"):
            weights(lambda x, dy: x.reshape(D, -1) @ flat(dy)),
        _("dy is brought to (O, positions) by a reshape, which does not transpose"):
            weights(lambda x, dy: (dy.reshape(F, -1) @ flat(x)).T),
        _("x^T dy is brought from (O, I) to (I, O) by a reshape, which does not transpose"):
            weights(lambda x, dy: (flat(dy).T @ flat(x)).reshape(D, F)),
        _("x and dy are summed over the batch before the product: each position is multiplied by its own gradient"):
            weights(lambda x, dy: x.sum(0).T @ dy.sum(0)),
        _("x and dy are summed over all positions before the product: each position is multiplied by its own gradient"):
            weights(lambda x, dy: np.outer(x.sum((0, 1)), dy.sum((0, 1)))),
        _("only the last position of each row counts: all positions share w, so their contributions are summed"):
            weights(lambda x, dy: x[:, -1].T @ dy[:, -1]),
        _("only the first position of each row counts: all positions share w, so their contributions are summed"):
            weights(lambda x, dy: x[:, 0].T @ dy[:, 0]),
        _("only the last item of the batch counts: all positions share w, so their contributions are summed"):
            weights(lambda x, dy: x[-1].T @ dy[-1]),
        _("only the first item of the batch counts: all positions share w, so their contributions are summed"):
            weights(lambda x, dy: x[0].T @ dy[0]),
    }, "b": {
        _("only the last item of the batch counts: all positions share b, so their contributions are summed"):
            lambda dy, x, w, b: dy[-1].sum(0),
        _("only the last position of each row counts: all positions share b, so their contributions are summed"):
            lambda dy, x, w, b: dy[:, -1].sum(0),
        _("dy is summed over its features, the last axis: it is summed over the positions, all axes but the last"):
            lambda dy, x, w, b: dy.sum(-1),
    }})


def softmax_with(s: np.ndarray, largest: np.ndarray | float, axis: int | None = -1) -> np.ndarray:
    """Softmax without mistakes; another `largest`, or another axis of the sum, is one."""
    p = np.exp(s - largest)
    return p / p.sum(axis, keepdims=True)


# Rows of different height, and in the last two a score far above the others: only the maximum of each row makes exp safe.
HEIGHTS = np.array([1000.0, -1000.0, 0.0, 3.0, 1.0])[:, None] + 900.0 * (np.arange(TK) == 2) * (np.arange(TQ) > 2)[:, None]
TOO_LARGE = marked(
    "right for small scores, wrong for these: exp(1000) overflows, so subtract the largest score of each row, from that row"
)


def softmax_variants() -> dict[str, Callable]:
    """{mistake: function of the scores that returns the p of it}."""
    return {
        _("the maximum is subtracted along axis -2, the wrong axis: it cancels only if it is the same for a whole row, axis "
          "-1"):
            lambda s: softmax_with(s, s.max(-2, keepdims=True)),
        **{_("the softmax is taken along axis {axis}: a row is the last axis, -1", axis=axis):
           lambda s, axis=axis: softmax_with(s, 0, axis) for axis in (-2, 0)},
        **{_("the sum is taken along axis {axis}: a row is the last axis, -1", axis=axis):
           lambda s, axis=axis: softmax_with(s, s.max(-1, keepdims=True), axis) for axis in (-2, 0)},
        _("the sum is taken over the whole array: each row has its own"): lambda s: softmax_with(s, 0, None),
        _("the numbers are not divided by the sum of their row"): lambda s: np.exp(s - s.max(-1, keepdims=True)),
        _("the softmax is applied twice"): lambda s: softmax_with(softmax_with(s, 0), 0),
    }


def check_softmax(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With scores of the shape of attention, and with scores that overflow."""
    scores, forward = gaussian(B, H, TQ, TK), function(names, "softmax_forward")

    def slip(equation):
        return lambda dp, s: equation(dp, softmax_with(s, 0))

    def along(axis):
        return slip(lambda dp, p: p * (dp - (dp * p).sum(axis, keepdims=True)))

    def formula(ours, dp, s):
        """What is subtracted in the bracket, if it is one number for each row, as it should be."""
        p = softmax_with(s, 0)
        one, all_of_it = dp.sum(-1, keepdims=True), (dp * p).sum(-1, keepdims=True)
        if formula := spelled(ours, {
            "p_k dp_k": p * dp, "p_k sum_j dp_j p_j": p * all_of_it, "dp_k": dp, "p_k^2 dp_k": p * p * dp, "p_k": p,
            "sum_j dp_j p_j": all_of_it, "sum_j dp_j": one, "p_k sum_j dp_j": p * one, "p_k^2 sum_j dp_j": p * p * one,
            "p_k^2 sum_j dp_j p_j": p * p * all_of_it, "p_k^2": p * p,
        }, (p * (dp - all_of_it), p * (1 - p) * dp)):
            return _("it is {formula}: it should be p_k dp_k - p_k sum_j dp_j p_j", formula=formula)
        subtracted = dp - ours / p
        if np.ptp(subtracted, axis=-1).max() > 1e-6 * np.abs(subtracted).max():
            return ""
        return _("it is p * (dp - c) with one number c for each row, which is right, but c is not the sum of dp * p of the row")

    yield from check_pair(names, "softmax", softmax.softmax_forward, scores, variants=softmax_variants(), formulas={
        "scores": formula,
    }, gradients={
        "scores": {
            _("the factor p_k before the bracket of (4) is missing"):
                slip(lambda dp, p: dp - (dp * p).sum(-1, keepdims=True)),
            _("the factor p_k multiplies the first term of (4) alone: it multiplies the bracket"):
                slip(lambda dp, p: p * dp - (dp * p).sum(-1, keepdims=True)),
            _("the sum of (4) lacks the factor p_j: it is the mean of dp by the weights p"):
                slip(lambda dp, p: p * (dp - dp.sum(-1, keepdims=True))),
            _("the sum of (4) has the factor p_k and not p_j, p_k sum_j dp_j: it is sum_j dp_j p_j"):
                slip(lambda dp, p: p * (dp - p * dp.sum(-1, keepdims=True))),
            _("the sum of (4) is the mean of dp over T: it is the mean by the weights p"):
                slip(lambda dp, p: p * (dp - dp.mean(-1, keepdims=True))),
            _("the sum of (4) is a mean over T: it is weighted by p, and not divided by T"):
                slip(lambda dp, p: p * (dp - (dp * p).mean(-1, keepdims=True))),
            _("the sum of (4) is added: it is subtracted"): slip(lambda dp, p: p * (dp + (dp * p).sum(-1, keepdims=True))),
            _("p is multiplied once more, outside of the bracket of (4) and inside"):
                slip(lambda dp, p: p * (dp * p - (dp * p).sum(-1, keepdims=True))),
            _("the sum of (4) runs along axis -2: a row is the last axis"): along(-2),
            _("the sum of (4) runs along axis 1: a row is the last axis"): along(1),
            _("the sum of (4) runs along axis 0: a row is the last axis"): along(0),
            _("the sum of (4) runs over the whole array: each row has its own"): along(None),
            _("(4) is p - dp, as for softmax and cross entropy together: here dp is a gradient, not the target"):
                slip(lambda dp, p: p - dp),
            _("(4) is dp - p: the bracket has the sum of dp * p of its row, and p_k is before it"):
                slip(lambda dp, p: dp - p),
            _("the whole bracket of (4) is summed, dp - dp * p: only dp * p is, and the sum is subtracted from dp"):
                slip(lambda dp, p: p * (dp - dp * p).sum(-1, keepdims=True)),
            _("the bracket of (4) has the sum of dp without p, and dp * p: it is dp minus the sum of dp * p"):
                slip(lambda dp, p: p * (dp * p - dp.sum(-1, keepdims=True))),
            _("the bracket of (4) is dp - p: it has the sum of dp * p of its row"): slip(lambda dp, p: p * (dp - p)),
        },
    })
    large = scores + HEIGHTS
    yield _("scores from -1000 to 1000"), [judge(
        "p", parts(forward(large), "p", "cache")[0], softmax.softmax_forward(large)[0], otherwise=TOO_LARGE
    )]


def check_encoder_layer(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Pre-norm with ReLU; then with a padding mask."""
    def reference(x, p, heads, mask=None, norm_first=True):
        return blocks.encoder_layer_forward(x, p, heads, mask, norm_first=norm_first, activation="relu")

    def slip(
        first="ln1", second="ln2", residual=(True, True), attention=lambda dq, dkv: dq + dkv,
        into=lambda dy, dh: dy + dh, last=lambda dy, dx1: dx1, skip="", early=(False, False),
    ):
        """A backward with mistakes: whose caches of the norms are used, and what is added.

        attention makes one gradient of dxq and dxkv, into(dy, dh) is what goes back through attention, last(dy, dx1) what
        goes past it. skip is the norm whose dx is not used. early says which residual gradient is added before the backward of
        the norm, not after it, as in post-norm.
        """
        def norm(name, dh, cache, past):
            dx, dgamma, dbeta = layernorm.layernorm_backward(dh + past, cache)
            return dh if name == skip else dx, {"gamma": dgamma, "beta": dbeta}

        def gradients(dy, x, p, heads, mask=None):
            h, ln1 = layernorm.layernorm_forward(x, **p["ln1"])
            a, attn = blocks.multi_head_attention_forward(h, h, p["attn"], heads, mask)
            h, ln2 = layernorm.layernorm_forward(x + a, **p["ln2"])
            _y, ffn = blocks.feed_forward_forward(h, p["ffn"])
            caches = {"ln1": ln1, "ln2": ln2}
            past = dy * residual[1]
            dh, dffn = blocks.feed_forward_backward(dy, ffn)
            dh, dln2 = norm("ln2", dh, caches[second], past * early[1])
            past = past * (not early[1])
            dx1 = past + dh
            dq, dkv, dattn = blocks.multi_head_attention_backward(into(past, dh), attn)
            past = last(dy, dx1) * residual[0]
            dh, dln1 = norm("ln1", attention(dq, dkv), caches[first], past * early[0])
            return past * (not early[0]) + dh, {"ln1": dln1, "attn": dattn, "ln2": dln2, "ffn": dffn}
        return gradients

    p = perturbed(init.encoder_layer(D, H, F, np.random.default_rng(0), dtype=np.float64), np.random.default_rng(1))
    layer = partial(check_pair, names, "encoder_layer", reference, gaussian(B, TQ, D), p, heads=H, variants={
        _("each norm comes after its sum (post-norm): here it comes before its sublayer (pre-norm)"):
            lambda x, p, heads, mask=None: reference(x, p, heads, mask, norm_first=False)[0],
    }, slips={
        _("the caches of the two layer norms are swapped: ln2 belongs to the feed forward, ln1 to attention"):
            slip("ln2", "ln1"),
        _("the cache ln1 is used for both layer norms"): slip("ln1", "ln1"),
        _("the cache ln2 is used for both layer norms"): slip("ln2", "ln2"),
        _("neither residual path brings its gradient"): slip(residual=(False, False)),
        _("the residual path of (5) is missing: dx1 is dy plus what comes back through layernorm2"):
            slip(residual=(True, False)),
        _("the residual path of (6) is missing: dx is dx1 plus what comes back through layernorm1"):
            slip(residual=(False, True)),
        _("dy is added before the backward of layernorm2, as in post-norm: it goes past the norm, so add it after"):
            slip(early=(False, True)),
        _("dx1 is added before the backward of layernorm1, as in post-norm: it goes past the norm, so add it after"):
            slip(early=(True, False)),
        _("dy and dx1 are added before the backward of the norms, as in post-norm: they go past them, so add them after"):
            slip(early=(True, True)),
        _("the gradient from attention does not go back through layernorm1"): slip(skip="ln1"),
        _("the gradient from the feed forward does not go back through layernorm2"): slip(skip="ln2"),
        _("dxkv is missing: h went to the queries and to the keys and values, so dxq and dxkv are added"):
            slip(attention=lambda dq, dkv: dq),
        _("dxq is missing: h went to the queries and to the keys and values, so dxq and dxkv are added"):
            slip(attention=lambda dq, dkv: dkv),
        _("dxq and dxkv are averaged: h is used twice, so they are added"): slip(attention=lambda dq, dkv: (dq + dkv) / 2),
        _("dxkv is subtracted from dxq: h is used twice, so they are added"): slip(attention=lambda dq, dkv: dq - dkv),
        _("dy goes back through attention and is added in (6): it should be dx1 in both places, the gradient of (5)"):
            slip(into=lambda dy, dh: dy, last=lambda dy, dx1: dy),
        _("dy goes back through attention: it should be dx1, the gradient of (5)"): slip(into=lambda dy, dh: dy),
        _("dy is added in (6): it should be dx1, the gradient of (5)"): slip(last=lambda dy, dx1: dy),
        _("what goes back through attention lacks the residual path of (5): it should be dx1"): slip(into=lambda dy, dh: dh),
    })
    yield from layer()
    yield from layer(title=_("with a mask"), mask=np.arange(TQ) < np.array([5, 3, 4, 5])[:, None, None, None])
