"""Checks of training steps: the gradient of a whole batch, AdamW, and the learning rates of the paper."""
import copy
from collections.abc import Callable

import numpy as np

from tinymae.learn.compare import close, numbers
from tinymae.learn.demands import function, hint, parts
from tinymae.learn.inputs import D, frozen, gaussian
from tinymae.learn.judge import Tables, judge, recognised
from tinymae.messages import message as _
from tinymae.train.optim import AdamW, noam


def check_whole_gradient(names: dict) -> Tables:
    """Linear regression on parts of 2, 5 and 9 tokens, against all 16 at once."""
    params, x, y = {"w": gaussian(D), "b": np.array([0.5])}, gaussian(16, D), gaussian(16)
    cut = [(x[:2], y[:2]), (x[2:7], y[2:7]), (x[7:], y[7:])]

    def gradient(params, part):
        x, y = part
        error = x @ params["w"] + params["b"] - y
        return (error @ error) / len(y), {"w": 2 * error @ x / len(y), "b": 2 * error.mean(keepdims=True)}, len(y)

    loss, grads = parts(function(names, "whole_gradient")(params, cut, gradient), "loss", "grads")
    grads = grads if isinstance(grads, dict) else {}
    (right, right_grads, count), single = gradient(params, (x, y)), [gradient(params, part) for part in cut]

    def row(name, ours, right, numbers):
        return judge(name, ours, right, {
            _("the mean is taken over the means of the parts: a part counts by its number of tokens"):
                lambda: sum(numbers) / len(cut),
            _("the parts are added, and the sum is not divided"): lambda: sum(numbers),
            _("the last part replaces those before: add it to them"): lambda: numbers[-1],
            _("the sum over all tokens is not divided by their number"): lambda: count * right,
        })

    yield _("16 tokens in three parts"), [row("loss", loss, right, [part[0] for part in single])] + [
        row(f"d{name}", grads.get(name), right_grads[name], [part[1][name] for part in single]) for name in params
    ]


BETAS, ADAM_EPS, DECAY, RATES = (0.8, 0.95), 1e-3, 0.1, (0.02, 0.03, 0.01, 0.04, 0.02)


def trajectory(step: Callable, start: dict, grads: list[dict]) -> np.ndarray:
    """The parameters after each call of step(params, grads, t, lr): (steps, numbers)."""
    params, rows = copy.deepcopy(start), []
    arrays = list(params.values())                              # the model holds these arrays: new ones in params do not count
    for t, (g, lr) in enumerate(zip(grads, RATES, strict=True), 1):
        step(params, {name: frozen(array) for name, array in g.items()}, t, lr)
        rows.append(np.concatenate([array.ravel() for array in arrays]))
    return np.array(rows)


def ratio(mhat: np.ndarray, vhat: np.ndarray) -> np.ndarray:
    """The step of equation (3) before the learning rate."""
    return mhat / (np.sqrt(vhat) + ADAM_EPS)


def ema(old: np.ndarray | float, new: np.ndarray, b: float) -> np.ndarray:
    """Equations (1) and (2): the exponential moving average."""
    return b * old + (1 - b) * new


def adam(
    start: dict, *, betas: tuple[float, float] = BETAS, first: Callable = ema, second: Callable = ema,
    gradient: Callable = lambda g, p: g, square: Callable = lambda g, m: g * g, clock: Callable = lambda t, i: (t, t),
    by: Callable = lambda b1, b2, t1, t2: (1 - b1**t1, 1 - b2**t2), keep: Callable = lambda m, v, mhat, vhat: (m, v),
    move: Callable = lambda p, m, v, lr, g: p - lr * DECAY * p - lr * ratio(m, v),
) -> Callable:
    """A step of AdamW without mistakes, for `trajectory`; the options are mistakes.

    clock(t, i) returns the t in mhat and vhat of array i, by what m and v are divided by; keep says what is stored.
    """
    (b1, b2), means = betas, {name: (0.0, 0.0) for name in start}

    def step(params, grads, t, lr):
        for i, (name, p) in enumerate(params.items()):
            (m, v), g = means[name], gradient(grads[name], p)
            m = first(m, g, b1)                                 # (1)
            v = second(v, square(g, m), b2)                     # (2)
            bias1, bias2 = by(b1, b2, *clock(t, i))
            mhat, vhat = m / bias1, v / bias2
            means[name] = keep(m, v, mhat, vhat)
            p[...] = move(p, mhat, vhat, lr, g)                 # (3)

    return step


def decay_once(params: dict, grads: dict, t: int, lr: float) -> None:
    """A step that decays the arrays of params and then puts new arrays in their place: later steps do not reach them."""
    for p in params.values():
        p -= lr * DECAY * p * (t == 1)


def _guilty_equation(states, grads):
    """Which of (1) to (3) is wrong, by what the optimiser remembers after each step; '' if that cannot be known."""
    means = {name: (0.0, 0.0) for name in grads[0]}
    for t, (state, each) in enumerate(zip(states, grads, strict=True), 1):
        means = {name: (ema(m, each[name], BETAS[0]), ema(v, each[name] ** 2, BETAS[1])) for name, (m, v) in means.items()}
        for i, (letter, equation) in enumerate((("m", "(1)"), ("v", "(2)"))):
            ours = state[letter]
            if not isinstance(ours, dict) or ours.keys() != means.keys():
                return ""
            arrays = {name: numbers(array) for name, array in ours.items()}
            if any(array is None or not close(array, means[name][i], 1e-9) for name, array in arrays.items()):
                return _("{letter} is the first that is wrong, after step {step}: look at {equation}, and at how {letter} is "
                         "stored", letter=letter, step=t, equation=equation)
        if state["t"] != t:
            return _("m and v are right, and t is {ours} after step {step}: it counts the steps, from 1", ours=state["t"],
                     step=t)
    return _("m and v are right in all steps, and t, too: what is wrong is in (3), which includes mhat and vhat")


def check_adamw(names: dict) -> Tables:
    """Five steps, each with its own gradient and learning rate, against the package, which equals PyTorch; then again."""
    start = {"w": gaussian(3, 4), "b": gaussian(7)}
    grads = [{name: gaussian(*p.shape, seed=t) for name, p in start.items()} for t in range(1, 6)]
    states = []

    def run(optimizer_class, ahead=0):
        def step(params, grads, t, lr):
            optimizer.step(params, grads, lr)
            states.append({name: copy.deepcopy(getattr(optimizer, name, None)) for name in ("m", "v", "t")})

        states.clear()
        optimizer = optimizer_class(copy.deepcopy(start), betas=BETAS, eps=ADAM_EPS, weight_decay=DECAY)
        if ahead:
            optimizer.t = ahead
        return trajectory(step, start, grads)

    def wrong(**options):
        return lambda: trajectory(adam(start, **options), start, grads)

    def decayed(decay):
        """(3) with something else in place of p - lr wd p."""
        return wrong(move=lambda p, m, v, lr, g: decay(p, m, lr, g) - lr * ratio(m, v))

    def stepped(step):
        """(3) with something else in place of mhat / (sqrt(vhat) + eps)."""
        return wrong(move=lambda p, m, v, lr, g: p - lr * DECAY * p - lr * step(m, v, g))

    def swapped(old, new, b):
        return (1 - b) * old + b * new

    def summed(old, new, b):
        return b * old + new

    expected, ours = run(AdamW), run(function(names, "AdamW"))
    step = next((t for t in range(5) if not close(ours[t], expected[t], 1e-9)), 0)
    where = _guilty_equation(states, grads) or _("no known pattern: step {step} is the first that is wrong", step=step + 1)
    if not np.isfinite(ours).all():
        where = _("it holds nan from step {step} on: a division by 0, or the square root of a negative number; are vhat and "
                  "1 - b^t positive in every step?", step=step + 1)
        if close(run(function(names, "AdamW"), ahead=1)[0], expected[0], 1e-9):         # it would be right with t = 1
            where = _("it holds nan: is t still 0 in the first step? Then 1 - b^t is 0, so count the step first")
    yield _("five steps"), [judge("parameters", ours, expected, {
        _("t stays at 1, or 1 - b has no power t: it counts the steps, so keep it in self (self.t += 1), and mhat and vhat "
          "are divided by 1 - b^t"): wrong(clock=lambda t, i: (1, 1)),
        _("mhat is divided by 1 - b1, without the power t: it is 1 - b1^t"): wrong(clock=lambda t, i: (1, t)),
        _("vhat is divided by 1 - b2, without the power t: it is 1 - b2^t"): wrong(clock=lambda t, i: (t, 1)),
        _("t advances once for each array: it advances once for each step"): wrong(clock=lambda t, i: (2 * t - 1 + i,) * 2),
        _("t is one step ahead: in the first step it is 1"): wrong(clock=lambda t, i: (t + 1, t + 1)),
        _("mhat and vhat are not used: mhat = m / (1 - b1^t), vhat = v / (1 - b2^t)"):
            wrong(clock=lambda t, i: (np.inf, np.inf)),
        _("mhat is not used: mhat = m / (1 - b1^t)"): wrong(clock=lambda t, i: (np.inf, t)),
        _("vhat is not used: vhat = v / (1 - b2^t)"): wrong(clock=lambda t, i: (t, np.inf)),
        _("mhat and vhat are both divided by 1 - b1^t: vhat is divided by 1 - b2^t"):
            wrong(by=lambda b1, b2, t, _t: (1 - b1**t, 1 - b1**t)),
        _("mhat and vhat are both divided by 1 - b2^t: mhat is divided by 1 - b1^t"):
            wrong(by=lambda b1, b2, t, _t: (1 - b2**t, 1 - b2**t)),
        _("mhat is divided by 1 - b2^t and vhat by 1 - b1^t: it is the reverse"):
            wrong(by=lambda b1, b2, t, _t: (1 - b2**t, 1 - b1**t)),
        _("m and v are multiplied by 1 - b^t: they are divided by it"):
            wrong(by=lambda b1, b2, t, _t: (1 / (1 - b1**t), 1 / (1 - b2**t))),
        _("b is multiplied by t: mhat and vhat are divided by 1 - b^t, with t as a power"):
            wrong(by=lambda b1, b2, t, _t: (1 - b1 * t, 1 - b2 * t)),
        _("m and v are divided by b^t: they are divided by 1 - b^t"): wrong(by=lambda b1, b2, t, _t: (b1**t, b2**t)),
        _("mhat and vhat are stored as m and v: they are for (3) alone"): wrong(keep=lambda m, v, mhat, vhat: (mhat, vhat)),
        _("mhat is stored as m: it is for (3) alone"): wrong(keep=lambda m, v, mhat, vhat: (mhat, v)),
        _("vhat is stored as v: it is for (3) alone"): wrong(keep=lambda m, v, mhat, vhat: (m, vhat)),
        _("neither m nor v is stored, so each step begins with 0 again: keep both in self"):
            wrong(keep=lambda m, v, mhat, vhat: (0.0, 0.0)),
        _("m is not stored, so each step begins with 0 again: keep it in self"): wrong(keep=lambda m, v, mhat, vhat: (0.0, v)),
        _("v is not stored, so each step begins with 0 again: keep it in self"): wrong(keep=lambda m, v, mhat, vhat: (m, 0.0)),
        _("(1) and (2) have no factor 1 - b"): wrong(first=summed, second=summed),
        _("(1) has no factor 1 - b1, as in SGD with momentum"): wrong(first=summed),
        _("(2) has no factor 1 - b2"): wrong(second=summed),
        _("b and 1 - b are swapped in (1) and (2): b multiplies the old mean"): wrong(first=swapped, second=swapped),
        _("b1 and 1 - b1 are swapped in (1): b1 multiplies the old m"): wrong(first=swapped),
        _("b2 and 1 - b2 are swapped in (2): b2 multiplies the old v"): wrong(second=swapped),
        _("the old mean has no factor b in (1) and (2)"): wrong(first=lambda old, new, b: old + (1 - b) * new,
                                                                second=lambda old, new, b: old + (1 - b) * new),
        _("the factor 1 - b2 of (2) is squared with g: it is (1 - b2) g^2"): wrong(square=lambda g, m: (1 - BETAS[1]) * g * g),
        _("(2) has the square of m: it is the square of g"): wrong(square=lambda g, m: m * m),
        _("(2) has g * m: it is the square of g"): wrong(square=lambda g, m: g * m),
        _("(2) has |g|: it is the square of g"): wrong(square=lambda g, m: np.abs(g)),
        _("(2) has the sum of the squares of the array: each number has its own square"):
            wrong(square=lambda g, m: (g * g).sum()),
        _("(2) has the mean of the squares of the array: each number has its own square"):
            wrong(square=lambda g, m: (g * g).mean()),
        _("v never falls, as in AMSGrad"): wrong(second=lambda old, new, b: np.maximum(old, ema(old, new, b))),
        _("the weight decay is added to the gradient, Adam with L2: AdamW subtracts it from p itself"):
            wrong(gradient=lambda g, p: g + DECAY * p, move=lambda p, m, v, lr, g: p - lr * ratio(m, v)),
        _("the weight decay is added to the gradient, Adam with L2, and subtracted from p, too: AdamW does the second alone"):
            wrong(gradient=lambda g, p: g + DECAY * p),
        _("the weight decay is subtracted from the gradient: AdamW subtracts it from p itself"):
            wrong(gradient=lambda g, p: g - DECAY * p, move=lambda p, m, v, lr, g: p - lr * ratio(m, v)),
        _("there is no weight decay"): decayed(lambda p, m, lr, g: p),
        _("the weight decay is not multiplied by lr"): decayed(lambda p, m, lr, g: p - DECAY * p),
        _("the weight decay is added to p: it is subtracted, so that p shrinks"):
            decayed(lambda p, m, lr, g: p + lr * DECAY * p),
        _("the weight decay multiplies g: it multiplies p"): decayed(lambda p, m, lr, g: p - lr * DECAY * g),
        _("the weight decay multiplies mhat: it multiplies p"): decayed(lambda p, m, lr, g: p - lr * DECAY * m),
        _("the weight decay does not multiply p: it is lr wd p"): decayed(lambda p, m, lr, g: p - lr * DECAY),
        _("the weight decay is added to mhat and divided by sqrt(vhat) with it: it is subtracted from p by itself"):
            wrong(move=lambda p, m, v, lr, g: p - lr * ratio(m + DECAY * p, v)),
        _("the weight decay comes after the step: it subtracts lr wd p, with p from before the step"):
            wrong(move=lambda p, m, v, lr, g: (p - lr * ratio(m, v)) * (1 - lr * DECAY)),
        _("the step is not multiplied by lr"): wrong(move=lambda p, m, v, lr, g: p - lr * DECAY * p - ratio(m, v)),
        _("eps is inside the square root"): stepped(lambda m, v, g: m / np.sqrt(v + ADAM_EPS)),
        _("eps is missing"): stepped(lambda m, v, g: m / np.sqrt(v)),
        _("eps is added after the division: it is added to sqrt(vhat), in the parentheses below mhat"):
            stepped(lambda m, v, g: m / np.sqrt(v) + ADAM_EPS),
        _("eps is 1e-8 for every eps: it is in self"): stepped(lambda m, v, g: m / (np.sqrt(v) + 1e-8)),
        _("the betas are 0.9 and 0.999 for all betas: they are in self"): wrong(betas=(0.9, 0.999)),
        _("the weight decay is 0.01 for every weight decay: it is in self"): decayed(lambda p, m, lr, g: p - lr * 0.01 * p),
        _("the square root of vhat is missing"): stepped(lambda m, v, g: m / (v + ADAM_EPS)),
        _("vhat is squared: (3) has its square root"): stepped(lambda m, v, g: m / (v * v + ADAM_EPS)),
        _("mhat is not divided by sqrt(vhat) + eps"): stepped(lambda m, v, g: m),
        _("mhat is multiplied by sqrt(vhat) + eps: it is divided by it"): stepped(lambda m, v, g: m * (np.sqrt(v) + ADAM_EPS)),
        _("(3) has g in place of mhat, as in RMSProp"): stepped(lambda m, v, g: ratio(g, v)),
        _("(3) is a step of SGD, lr g: it is lr mhat / (sqrt(vhat) + eps)"): stepped(lambda m, v, g: g),
        _("v is a mean of the gradients: it should be a mean of their squares"): wrong(square=lambda g, m: g),
        _("b1 and b2 are swapped"): wrong(betas=BETAS[::-1]),
        _("b1 is used for both means: (2) has b2"): wrong(betas=(BETAS[0], BETAS[0])),
        _("b2 is used for both means: (1) has b1"): wrong(betas=(BETAS[1], BETAS[1])),
        _("(2) has b1 in place of b2"): wrong(second=lambda old, new, b: ema(old, new, BETAS[0])),
        _("(1) has b2 in place of b1"): wrong(first=lambda old, new, b: ema(old, new, BETAS[1])),
        _("p moves along the gradient, uphill: subtract"): stepped(lambda m, v, g: -ratio(m, v)),
        _("the arrays of params do not change: write into them (params[name] -= ...); the model holds these arrays and does "
          "not get a new one"): wrong(move=lambda p, m, v, lr, g: p),
        _("only the weight decay is written into the arrays of params, and the rest of (3) is not: write it into them, too "
          "(params[name] -= ...); the model holds these arrays and does not get a new one"):
            wrong(move=lambda p, m, v, lr, g: p - lr * DECAY * p),
        _("only the first weight decay is written into the arrays of params, and the rest of (3) makes new ones: write into "
          "them (params[name] -= ...); the model holds these arrays and does not get a new one"):
            lambda: trajectory(decay_once, start, grads),
    }, otherwise=where)]
    yield _("a second optimiser"), [judge("parameters", run(function(names, "AdamW")), expected, otherwise=_(
        "it does not start like the first one: keep m, v and t in self, and nothing outside"
    ))]


def check_schedule(names: dict) -> Tables:
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
