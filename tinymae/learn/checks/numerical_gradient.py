"""Check of the numerical gradient."""
import numpy as np

from tinymae.learn.compare import close
from tinymae.learn.demands import function
from tinymae.learn.inputs import gaussian
from tinymae.learn.judge import Tables, judge
from tinymae.messages import message as _


def check_numerical_gradient(names: dict) -> Tables:
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
