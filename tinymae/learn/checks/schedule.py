"""Check of the learning rates of the paper."""
from collections.abc import Iterator

import numpy as np

from tinymae.gradcheck import Row
from tinymae.learn.compare import numbers
from tinymae.learn.demands import function, hint
from tinymae.learn.judge import judge, recognised
from tinymae.messages import message as _
from tinymae.train.optim import noam


def check_schedule(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With ten batches of a model with three arrays."""
    width, warmup, factor, steps = 64, 4, 2.0, np.arange(1, 11)
    params = {"w": np.ones((2, 3)), "b": np.ones(3), "gamma": np.ones(3)}
    with hint(ZeroDivisionError, _("The step counts from 1: at step 0, step^-0.5 divides by 0.")):
        ours = function(names, "learning_rates")(params, len(steps), width, warmup, factor)
    up, down, scale = steps * warmup**-1.5, steps**-0.5, factor * width**-0.5

    def rates(steps):
        return np.array([noam(int(step), width, warmup, factor) for step in steps])

    def smaller(up, down):
        return lambda: scale * np.minimum(up, down)

    right = rates(steps)
    row = recognised(judge("rates", ours, right, {
        _("the step advances once for each array: it advances once for each batch"): lambda: rates(len(params) * steps),
        _("the first batch is step 2: it is step 1"): lambda: rates(steps + 1),
        _("the first batch is step 0, with a rate of 0: it is step 1"): lambda: np.concatenate([[0.0], right[:-1]]),
        _("the first two batches are both step 1: the step counts 1, 2, 3 ..."): lambda: rates(np.maximum(steps - 1, 1)),
        _("the warm-up is missing: the rate starts at its maximum"): lambda: scale * down,
        _("the rate never falls: after the warm-up it falls with the square root of the step"): lambda: scale * up,
        _("the rate stays at its maximum after the warm-up: it falls with the square root of the step"):
            lambda: scale * np.minimum(steps, warmup) * warmup**-1.5,
        _("D^-0.5 is missing"): lambda: width**0.5 * right,
        _("it is multiplied by the square root of D: it is divided"): lambda: width * right,
        _("it is divided by D: it should be the square root of D"): lambda: right / width**0.5,
        _("it is multiplied by D: it is divided by the square root of D"): lambda: right * width**1.5,
        _("the factor is missing"): lambda: right / factor,
        _("(step * warmup) is raised to -1.5: warmup alone is"): smaller((steps * warmup) ** -1.5, down),
        _("warmup is raised to 1.5: it should be -1.5"): smaller(steps * warmup**1.5, down),
        _("warmup is raised to -0.5: it should be -1.5"): smaller(steps * warmup**-0.5, down),
        _("the warm-up is step / warmup: it should be step * warmup^-1.5, which meets step^-0.5 at the end of the warm-up"):
            smaller(steps / warmup, down),
        _("(step * warmup) is raised to -0.5: it should be step * warmup^-1.5"): smaller((steps * warmup) ** -0.5, down),
        _("the warm-up is step^-1.5 * warmup: it should be step * warmup^-1.5"): smaller(steps**-1.5 * warmup, down),
        _("step is raised to 0.5 in the minimum: it should be -0.5"): smaller(up, steps**0.5),
        _("step is raised to -1 in the minimum: it should be -0.5"): smaller(up, 1 / steps),
        _("max is used instead of min"): lambda: scale * np.maximum(up, down),
        _("the two terms are added: the smaller one counts"): lambda: scale * (up + down),
        _("the two terms are multiplied: the smaller one counts"): lambda: scale * up * down,
        _("the rates are in reverse order"): lambda: right[::-1],
        _("all batches have the rate of the last one: each has its own"): lambda: 0 * right + right[-1],
        _("all batches have the rate of the first one: each has its own"): lambda: 0 * right + right[0],
    }, otherwise=_wrong_phase(ours, right, warmup)), ours, {
        _("the last batch is missing: `range(1, batches)` ends before `batches`"): lambda: right[:-1],
        _("there is one batch too many, with the step 0 before the first one"): lambda: np.concatenate([[0.0], right]),
        _("there is one batch too many"): lambda: rates(np.arange(1, 12)),
        _("each array of params has its own rate: the rate is that of the batch"): lambda: np.repeat(right, len(params)),
        _("each array of params has its own step and its own rate: the rate is that of the batch"):
            lambda: rates(np.arange(1, 31)),
        _("only the rate of the last batch is returned: all are, as a list"): lambda: right[-1],
    })
    yield _("ten batches"), [row]
    fewer = function(names, "learning_rates")(params, 7, 16, warmup, factor)
    yield _("seven batches, D = 16"), [
        judge("rates", fewer, np.array([noam(step, 16, warmup, factor) for step in range(1, 8)]))
    ]


def _wrong_phase(ours, right, warmup):
    """Whether the rates are wrong in the warm-up alone, or after it alone; '' if not."""
    ours = numbers(ours)
    if ours is None or ours.shape != right.shape:
        return ""
    wrong = np.abs(ours - right) > 1e-9
    if not wrong[warmup:].any():
        return _("the rates after the warm-up are right, those in it are wrong: there, step * warmup^-1.5 is the smaller term")
    if not wrong[:warmup - 1].any():                            # at step `warmup` both terms are equal
        return _("the rates in the warm-up are right, those after it are wrong: there, step^-0.5 is the smaller term")
    known = ours / right
    if np.ptp(known[:warmup]) < 1e-9 and np.ptp(known[warmup:]) < 1e-9:
        return _("the rates are {first:.6g} times the right ones in the warm-up and {second:.6g} times after it: both terms of "
                 "the minimum have the factor D^-0.5", first=known[0], second=known[-1])
    return ""
