"""Checks of softmax: the forward alone, and the pair."""
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from tinymae.learn.compare import spelled
from tinymae.learn.demands import function, parts
from tinymae.learn.inputs import TK, TQ, B, H, gaussian, largest, mean, total
from tinymae.learn.judge import Tables, judge
from tinymae.learn.pairs import check_forward, check_pair
from tinymae.messages import marked
from tinymae.messages import message as _
from tinymae.ops import softmax


def softmax_with(s: np.ndarray, largest: np.ndarray | float, axis: int | None = -1) -> np.ndarray:
    """Softmax without mistakes; another `largest`, or another axis of the sum, is one."""
    p = np.exp(s - largest)
    return p / total(p, axis=axis)


# Rows of different height, and in the last two a score far above the others: only the maximum of each row makes exp safe.
HEIGHTS = np.array([1000.0, -1000.0, 0.0, 3.0, 1.0])[:, None] + 900.0 * (np.arange(TK) == 2) * (np.arange(TQ) > 2)[:, None]
TOO_LARGE = marked(
    "right for small scores, wrong for these: exp(1000) overflows, so subtract the largest score of each row, from that row"
)


def softmax_variants() -> dict[str, Callable]:
    """{mistake: function of the scores that returns the p of it}."""
    return {
        _("the maximum is subtracted along axis -2, the wrong axis: it cancels only if it is the same for a whole row, axis "
          "-1"): lambda s: softmax_with(s, largest(s, axis=-2)),
        **{_("the softmax is taken along axis {axis}: a row is the last axis, -1", axis=axis):
           lambda s, axis=axis: softmax_with(s, 0, axis) for axis in (-2, 0)},
        **{_("the sum is taken along axis {axis}: a row is the last axis, -1", axis=axis):
           lambda s, axis=axis: softmax_with(s, largest(s), axis) for axis in (-2, 0)},
        _("the sum is taken over the whole array: each row has its own"): lambda s: softmax_with(s, 0, None),
        _("the numbers are not divided by the sum of their row"): lambda s: np.exp(s - largest(s)),
        _("the softmax is applied twice"): lambda s: softmax_with(softmax_with(s, 0), 0),
    }


def check_softmax_forward(names: dict) -> Tables:
    """With scores of the shape of attention, and with scores that overflow."""
    scores = gaussian(B, H, TQ, TK)

    def over(total):
        """exp, with the largest of a row subtracted, divided by something else than the sum of a row."""
        def divided(s):
            e = np.exp(s - largest(s))
            return e / total(e)
        return divided

    def steps(s):
        shifted = s - largest(s)
        return {_("the largest score of each row"): [s.max(-1)], _("the scores minus the largest of their row"): [shifted],
                _("exp of these"): [np.exp(shifted)], _("the sum of each row"): [np.exp(shifted).sum(-1)]}

    yield from check_forward(names, "softmax", softmax.softmax_forward, scores, steps=steps, variants=softmax_variants() | {
        _("exp is missing, after the largest of the row was subtracted"): lambda s: (s - largest(s)) / total(s - largest(s)),
        _("the sum is taken along axis 1: a row is the last axis, -1"): over(lambda e: total(e, axis=1)),
        _("the softmax is taken along axis 1: a row is the last axis, -1"): lambda s: softmax_with(s, 0, 1),
        _("the sum is taken over the whole array, after the largest of each row was subtracted: each row has its own sum"):
            over(lambda e: e.sum()),
        _("the sum is taken over a whole item of the batch: each row has its own"): over(lambda e: total(e, axis=(1, 2, 3))),
        _("the numbers are divided by the largest of their row: it should be their sum"): over(lambda e: largest(e)),
        _("the numbers are divided by the root of the sum of their squares: it should be their sum"):
            over(lambda e: np.sqrt(total(e * e))),
        _("exp is missing, after the smallest of the row was subtracted"):
            lambda s: (s - s.min(-1, keepdims=True)) / total(s - s.min(-1, keepdims=True)),
        _("exp is missing"): lambda s: s / total(s),
        _("2 is raised to the scores: it should be e"): lambda s: 2**s / total(2**s),
        _("each score is taken alone, by a sigmoid: the scores of a row share their sum"): lambda s: 1 / (1 + np.exp(-s)),
        _("it is the logarithm of the softmax"): lambda s: np.log(softmax_with(s, 0)),
        _("the largest score of the row is subtracted in the numerator only: in the sum, too, or it does not cancel"):
            lambda s: np.exp(s - largest(s)) / total(np.exp(s)),
        _("the largest score of the row is subtracted in the sum only: in the numerator, too, or it does not cancel"):
            lambda s: np.exp(s) / total(np.exp(s - largest(s))),
        _("the scores are divided by the largest of their row: it is subtracted"): lambda s: softmax_with(s / largest(s), 0),
        _("the scores have the wrong sign: the largest score gets the largest probability"): lambda s: softmax_with(-s, 0),
        _("the sum is taken before exp: add up the numbers exp(s), not the scores"): lambda s: np.exp(s) / np.exp(total(s)),
        _("the largest score is subtracted after exp, not before it"):
            lambda s: (np.exp(s) - largest(s)) / total(np.exp(s) - largest(s)),
        _("the scores are divided by the square root of the length of a row: a softmax scales nothing"):
            lambda s: softmax_with(s / math.sqrt(TK), 0),
        **{_("the maximum is taken along axis {first} and the sum along axis {second}: a row is the last axis, -1, for both",
             first=first, second=second):
           lambda s, first=first, second=second: softmax_with(s, largest(s, axis=first), second)
           for first in (0, 1, -2, -1) for second in (0, 1, -2, -1, None)
           if first != second and (first, second) not in ((-1, 0), (-1, 1), (-1, -2), (-2, -1), (-1, None))},
        **{_("{eps:g} is added to the sum: leave it out, the largest score of a row adds 1, so the sum is never 0",
             eps=eps): over(lambda e, eps=eps: total(e) + eps) for eps in (1e-8, 1e-7, 1e-6, 1e-5)},
    })
    too_large = _("the largest score of the whole array is subtracted: in rows far below it all exp are 0, and 0 / 0 is nan; "
                  "subtract from each row its own largest score")
    yield from check_forward(
        names, "softmax", softmax.softmax_forward, scores + HEIGHTS, title=_("scores from -1000 to 1000"), otherwise=TOO_LARGE,
        variants={too_large: lambda s: softmax_with(s, s.max())},
    )


def check_softmax(names: dict) -> Tables:
    """With scores of the shape of attention, and with scores that overflow."""
    scores, forward = gaussian(B, H, TQ, TK), function(names, "softmax_forward")

    def slip(equation):
        return lambda dp, s: equation(dp, softmax_with(s, 0))

    def along(axis):
        return slip(lambda dp, p: p * (dp - total(dp * p, axis=axis)))

    def formula(ours, dp, s):
        """What is subtracted in the bracket, if it is one number for each row, as it should be."""
        p = softmax_with(s, 0)
        one, all_of_it = total(dp), total(dp * p)
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

    core = partial(check_pair, names, "softmax", softmax.softmax_forward, scores, variants=softmax_variants())
    yield from core(formulas={"scores": formula}, gradients={"scores": {
        _("the factor p_k before the bracket of (4) is missing"): slip(lambda dp, p: dp - total(dp * p)),
        _("the factor p_k multiplies the first term of (4) alone: it multiplies the bracket"):
            slip(lambda dp, p: p * dp - total(dp * p)),
        _("the sum of (4) lacks the factor p_j: it is the mean of dp by the weights p"):
            slip(lambda dp, p: p * (dp - total(dp))),
        _("the sum of (4) has the factor p_k and not p_j, p_k sum_j dp_j: it is sum_j dp_j p_j"):
            slip(lambda dp, p: p * (dp - p * total(dp))),
        _("the sum of (4) is the mean of dp over T: it is the mean by the weights p"): slip(lambda dp, p: p * (dp - mean(dp))),
        _("the sum of (4) is a mean over T: it is weighted by p, and not divided by T"):
            slip(lambda dp, p: p * (dp - mean(dp * p))),
        _("the sum of (4) is added: it is subtracted"): slip(lambda dp, p: p * (dp + total(dp * p))),
        _("p is multiplied once more, outside of the bracket of (4) and inside"):
            slip(lambda dp, p: p * (dp * p - total(dp * p))),
        _("the sum of (4) runs along axis -2: a row is the last axis"): along(-2),
        _("the sum of (4) runs along axis 1: a row is the last axis"): along(1),
        _("the sum of (4) runs along axis 0: a row is the last axis"): along(0),
        _("the sum of (4) runs over the whole array: each row has its own"): along(None),
        _("(4) is p - dp, as for softmax and cross entropy together: here dp is a gradient, not the target"):
            slip(lambda dp, p: p - dp),
        _("(4) is dp - p: the bracket has the sum of dp * p of its row, and p_k is before it"): slip(lambda dp, p: dp - p),
        _("the whole bracket of (4) is summed, dp - dp * p: only dp * p is, and the sum is subtracted from dp"):
            slip(lambda dp, p: p * total(dp - dp * p)),
        _("the bracket of (4) has the sum of dp without p, and dp * p: it is dp minus the sum of dp * p"):
            slip(lambda dp, p: p * (dp * p - total(dp))),
        _("the bracket of (4) is dp - p: it has the sum of dp * p of its row"): slip(lambda dp, p: p * (dp - p)),
    }})
    large = scores + HEIGHTS
    yield _("scores from -1000 to 1000"), [judge(
        "p", parts(forward(large), "p", "cache")[0], softmax.softmax_forward(large)[0], otherwise=TOO_LARGE
    )]
