"""Check of dropout, and the rows of a check on whatever drops numbers."""
from collections.abc import Callable
from functools import partial

import numpy as np

from tinymae.gradcheck import Row, gradcheck
from tinymae.learn.demands import function, parts
from tinymae.learn.inputs import TQ, B, D, frozen, gaussian
from tinymae.learn.judge import Tables, diagnosed, judge, recognised
from tinymae.messages import message as _


def dropout_rows(name: str, draw: Callable[..., np.ndarray], x: np.ndarray, dropout: float) -> list[Row]:
    """Whether draw(rng) is x (rows, columns) after dropout, each call with new random numbers of rng."""
    rng = np.random.default_rng(0)
    y, again, *others = (draw(rng) for call in range(20))
    stays, fraction = y != 0, np.mean(y == 0)
    fractions = {float(np.mean(each == 0)) for each in (y, again, *others)}
    alike = ""
    if fractions == {0.0, 1.0}:
        alike = _("each call drops all numbers or none: one random number is drawn for the whole array; each number needs its "
                  "own, rng.random(x.shape)")
    elif fractions == {0.0}:
        alike = _("no number is ever dropped")
    elif np.array_equal(stays, again != 0):
        alike = _("two calls with one rng drop the same numbers: draw the random numbers from this rng")
    elif not np.array_equal(stays, draw(np.random.default_rng(0)) != 0):
        alike = _("two rngs of the same seed drop different numbers: draw from this rng, rng.random(x.shape), not from "
                  "np.random")
    elif any((stays.all(axis) | ~stays.any(axis)).any() for axis in (0, 1)):
        alike = _("whole rows or columns are dropped: each number needs its own random number")
    share = _("a fraction of {fraction:.2f} is dropped, expected {dropout}", fraction=fraction, dropout=dropout)
    if abs(fraction - (1 - dropout)) < 0.1 * dropout:
        share = _("a fraction of {fraction:.2f} is dropped, expected {dropout}: it is the fraction to drop, not to keep",
                  fraction=fraction, dropout=dropout)
    return [
        judge(_("{name} where it is not 0", name=name), y[stays], x[stays] / (1 - dropout), {
            _("what stays is not divided by 1 - dropout: the mean is then smaller than that of x"): lambda: x[stays],
            _("what stays is divided by dropout: it should be 1 - dropout"): lambda: x[stays] / dropout,
            _("what stays is multiplied by 1 - dropout: it should be divided"): lambda: x[stays] * (1 - dropout),
        }),
        judge(_("draws"), not alike, np.array(True), otherwise=alike),
        judge(_("fraction of zeros"), fraction, np.array(dropout), tolerance=0.1, otherwise=share),
    ]


def check_dropout(names: dict) -> Tables:
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
