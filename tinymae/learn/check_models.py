"""Checks of the exercises about losses, optimisers, decoding and masked autoencoders; check_layers explains what a check is."""
import copy
import itertools
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tinymae.gradcheck import Row
from tinymae.gradcheck.cases import perturbed
from tinymae.gradcheck.invariants import assert_mask_hides
from tinymae.learn.check_layers import factors
from tinymae.learn.judge import (
    because,
    check_pair,
    close,
    diagnosed,
    frozen,
    function,
    gaussian,
    hint,
    judge,
    judge_all,
    recognised,
)
from tinymae.masks import shift_right
from tinymae.messages import listed
from tinymae.messages import message as _
from tinymae.models import mae
from tinymae.ops import losses, patches, softmax
from tinymae.train.optim import AdamW, noam


def numbers(result: object) -> np.ndarray | None:
    """What a learner's function returned, as an array of floats; None if it is none."""
    try:
        return np.asarray(result, np.float64)
    except (TypeError, ValueError):
        return None


def judge_together(
    result: object, expected: dict[str, np.ndarray], mistakes: dict[str, tuple], alone: dict[str, dict] | None = None,
) -> list[Row]:
    """The Rows of a function with several outputs, of which one mistake changes more than one.

    Parameters
    ----------
    expected : {output: the right numbers}
    mistakes : {mistake: the numbers of all outputs}. It is the cause if it explains all of them, or at least two wrong ones:
        one that it explains may be chance
    alone : {output: {mistake: function that returns the numbers of this output}}
    """
    rows = judge_all(result, {name: (right, (alone or {}).get(name, {})) for name, right in expected.items()})
    ours = [numbers(part) for part in result]

    def explains(outputs):
        return [part is not None and close(part, wrong, 1e-9) for part, wrong in zip(ours, outputs, strict=True)]

    found = {words: explains(outputs) for words, outputs in mistakes.items()}
    causes = [words for words, fits in found.items() if all(fits)] or [
        words for words, fits in found.items() if sum(fit and not row.ok for fit, row in zip(fits, rows, strict=True)) > 1
    ]
    if not causes:
        return rows
    return [diagnosed(row, because(causes[0])) if fits and not row.ok else row
            for row, fits in zip(rows, found[causes[0]], strict=True)]


def check_shift_right(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Sentences of three lengths, and two ids for <bos>."""
    targets, shift = np.array([[5, 6, 7, 2], [8, 2, 0, 0], [9, 5, 2, 0]]), function(names, "shift_right")
    moved, first = shift_right(targets, 0), np.arange(4) == 0
    example = numbers(names.get("TARGETS"))

    def column(token):
        return np.full((3, 1), token)

    def row(bos):
        right, ours = shift_right(targets, bos), shift(frozen(targets), bos)

        def joined(*parts):
            return lambda: np.concatenate(parts, axis=1)

        found = recognised(judge("inputs", ours, right, {
            _("the tokens move to the left: at position t the decoder would get the token after the one that it has to "
              "predict"): joined(targets[:, 1:], column(bos)),
            _("the tokens move to the left, with 0 at the end: at position t the decoder would get the token after the one "
              "that it has to predict"): joined(targets[:, 1:], column(0)),
            _("bos is at the front, and the tokens move to the left, not to the right"):
                lambda: np.where(first, bos, np.concatenate([targets[:, 1:], targets[:, -1:]], axis=1)),
            _("bos is at the front, and the tokens move to the left, not to the right, with 0 at the end"):
                lambda: np.where(first, bos, np.concatenate([targets[:, 1:], column(0)], axis=1)),
            _("bos is at the front, and the tokens move to the left, not to the right, with bos at the end, too"):
                lambda: np.where(first, bos, np.concatenate([targets[:, 1:], column(bos)], axis=1)),
            _("nothing moves: the decoder would get exactly the token that it has to predict"): lambda: targets,
            _("nothing moves, <bos> replaces the first token"): lambda: np.where(first, bos, targets),
            _("nothing moves, <bos> replaces the last token"): joined(targets[:, :-1], column(bos)),
            _("nothing moves, 0 replaces the last token"): joined(targets[:, :-1], column(0)),
            _("the last token moves to the front: <bos> should be there"): lambda: np.roll(targets, 1, axis=1),
            _("whole sentences move: the tokens are axis 1"): lambda: np.concatenate([np.full((1, 4), bos), targets[:-1]]),
            _("the tokens move by two positions: they move by one"): joined(column(bos), column(bos), targets[:, :-2]),
            _("the tokens move by two positions, with 0 in the gap: they move by one"):
                joined(column(bos), column(0), targets[:, :-2]),
            **{_("the first token is {token}, for every bos", token=token): lambda token=token: shift_right(targets, token)
               for token in range(10) if token != bos},
            _("only the first sentence begins with bos: each one does"):
                lambda: np.where(first & (np.arange(3) == 0)[:, None], bos, moved),
            _("the last token of a sentence moves into the next one: shift each row by itself"):
                lambda: np.concatenate([[bos], targets.ravel()[:-1]]).reshape(targets.shape),
            _("<eos> becomes padding: all targets but the last of a row are fed as they are"):
                lambda: np.where(right == 2, 0, right),
            _("<eos> becomes padding before the shift: all targets but the last of a row are fed as they are"):
                lambda: np.where(first, bos, np.where(right == 2, 0, right)),
            _("padding becomes bos: only the first position is"): lambda: np.where(right == 0, bos, right),
        }, otherwise=_wrong_tokens(ours, right, bos)), ours, {
            _("the last token is kept, which gives one position too many: the decoder is never fed the last target"):
                joined(column(bos), targets),
            _("bos is missing: inputs[b, 0] is bos, and inputs are as many as targets"): lambda: targets[:, :-1],
            _("the first token is dropped and bos is missing: inputs[b, 0] is bos, and inputs are as many as targets"):
                lambda: targets[:, 1:],
            _("bos comes after the tokens: it is the first"): joined(targets, column(bos)),
            _("only the first sentence is returned: all are"): lambda: right[0],
            _("all sentences are joined to one: shift each row by itself"): lambda: right.ravel(),
        })
        if example is not None and example.ndim == 2 and not found.ok:
            found = recognised(found, ours, {
                _("TARGETS of the file is shifted: shift the argument `targets`"):
                    lambda: np.where(np.arange(example.shape[1]) == 0, bos, np.roll(example, 1, axis=1)),
            })
        return found

    for bos in (1, 4):
        yield f"bos = {bos}", [row(bos)]


def _wrong_tokens(ours, right, bos):
    """Which tokens of a shifted target are wrong; '' if that says nothing."""
    ours = numbers(ours)
    if ours is None or ours.shape != right.shape:
        return ""
    wrong = ours != right
    if np.array_equal(ours[1:, 1:-1], right[:-1, 2:]):          # row 0 may hold any numbers, as those of np.empty
        return because(_("whole sentences move: the tokens are axis 1"))
    if not wrong[:, 1:].any():
        return _("the first position is wrong, all others are right: it is bos, {bos} here", bos=bos)
    tokens = np.unique(right[:, 1:][wrong[:, 1:]])
    if len(tokens) == 1 and not wrong[:, 0].any() and wrong[right == tokens[0]].all():
        return _("wrong where the token {token} should be, and nowhere else: all targets but the last of a row are fed as they "
                 "are, whatever they stand for", token=tokens[0])
    if not wrong[:, 0].any():
        return _("the first position is right, the others are not: inputs[b, t] is targets[b, t - 1]")
    return ""


def check_cross_entropy(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With label smoothing, and padding that does not count."""
    def loss(logits, targets, ignore_index=None, label_smoothing=0.1):
        return losses.cross_entropy_forward(logits, targets, ignore_index=ignore_index, label_smoothing=label_smoothing)[0]

    def slip(difference, divisor=None, target=0.9, spread=0.1):
        """difference(p, q, 1[v = t]) in place of p - q, divided by another number than M; target and spread make q."""
        def dlogits(dloss, logits, targets, **_options):
            counts, one_hot = targets != 0, np.eye(11)[targets]
            p = softmax.softmax_forward(logits)[0]
            number = counts.sum() if divisor is None else divisor
            return dloss * difference(p, target * one_hot + spread / 11, one_hot) * counts[..., None] / number
        return dlogits

    def minus(p, q, one_hot):
        return p - q

    def again(p, q, one_hot):
        return p * ((p - q) - (p * (p - q)).sum(-1, keepdims=True))

    targets = np.random.default_rng(0).integers(1, 11, (3, 5)) * (np.arange(5) < np.array([5, 3, 4])[:, None])
    yield from check_pair(
        names, "cross_entropy", losses.cross_entropy_forward, gaussian(3, 5, 11),
        targets=targets, ignore_index=0, label_smoothing=0.1, variants={
            _("the mean is taken over all positions: it should be over those that count"):
                lambda logits, targets, **_options: loss(logits, targets, 0) * (targets != 0).mean(),
            _("padding counts like a token: a target that is ignore_index does not count"):
                lambda logits, targets, **_options: loss(logits, targets),
            _("the labels are not smoothed"): lambda logits, targets, **_options: loss(logits, targets, 0, 0.0),
        }, gradients={"logits": {
            _("the smoothing is missing in (5): q is 1 at the target, and 0 elsewhere"): slip(minus, target=1.0, spread=0.0),
            _("e / V is missing in the q of (5)"): slip(minus, spread=0.0),
            _("the factor 1 - e is missing in the q of (5)"): slip(minus, target=1.0),
            _("e is not divided by V in the q of (5)"): slip(minus, spread=0.1 * 11),
            _("(5) is divided by the number of all positions: M is the number of positions that count, without padding"):
                slip(minus, 15),
            _("(5) is divided by the size of the batch: M is the number of positions that count"): slip(minus, 3),
            _("(5) is divided by the length of a row: M is the number of positions that count"): slip(minus, 5),
            _("(5) is divided by the number of positions that count in each row: M is their number in all rows"):
                slip(minus, (targets != 0).sum(axis=1)[:, None, None]),
            _("(5) is -q / p, the gradient of the probabilities: that of the logits is (p - q) / M"):
                slip(lambda p, q, _one: -q / p),
            _("only the positions that do not count get a gradient: it is 0 there, and (p - q) / M at the others"):
                lambda dloss, logits, targets, **_options: dloss * (
                    softmax.softmax_forward(logits)[0] - 0.9 * np.eye(11)[targets] - 0.1 / 11
                ) * (targets == 0)[..., None] / (targets != 0).sum(),
            _("(5) is p alone: q is subtracted"): slip(lambda p, q, _one: p),
            _("(5) is -q alone, the gradient of the log probabilities: that of the logits is (p - q) / M"):
                slip(lambda p, q, _one: -q),
            _("(5) has log p in place of p"): slip(lambda p, q, _one: np.log(p) - q),
            _("p - q goes back through the softmax once more: it is already the gradient of the logits"): slip(again),
            _("p - q is multiplied by p: it is already the gradient of the logits"): slip(lambda p, q, _one: p * (p - q)),
            _("p - q is multiplied by q: all tokens of the vocabulary have a gradient"): slip(lambda p, q, _one: q * (p - q)),
            _("only the logit of the target has a gradient: those of all tokens have one, (p - q) / M"):
                slip(lambda p, q, one_hot: one_hot * (p - q)),
            _("1 is subtracted from all of p: it is q, which is large at the target alone"): slip(lambda p, q, _one: p - 1),
            _("p - q is squared: it is the gradient of the cross entropy as it is"): slip(lambda p, q, _one: (p - q) ** 2),
        }},
    )


BETAS, ADAM_EPS, DECAY, RATES = (0.8, 0.95), 1e-3, 0.1, (0.02, 0.03, 0.01, 0.04, 0.02)


def trajectory(step: Callable, start: dict, grads: list[dict]) -> np.ndarray:
    """The parameters after each call of step(params, grads, t, lr): (steps, numbers)."""
    params, rows = copy.deepcopy(start), []
    arrays = list(params.values())                              # the model holds these arrays: new ones in params do not count
    for t, (g, lr) in enumerate(zip(grads, RATES, strict=True), 1):
        step(params, {name: frozen(array) for name, array in g.items()}, t, lr)
        rows.append(np.concatenate([array.ravel() for array in arrays]))
    return np.array(rows)


def move(p: np.ndarray, mhat: np.ndarray, vhat: np.ndarray, lr: float, g: np.ndarray | float = 0.0) -> np.ndarray:
    """Equation (3) of AdamW; g is for the mistakes in it."""
    return p - lr * DECAY * p - lr * mhat / (np.sqrt(vhat) + ADAM_EPS)


def mean(old: np.ndarray | float, new: np.ndarray, b: float) -> np.ndarray:
    """Equations (1) and (2): the running mean."""
    return b * old + (1 - b) * new


def adam(
    start: dict,
    *,
    move: Callable = move,
    clock: Callable = lambda t, i: (t, t),
    betas: tuple[float, float] = BETAS,
    first: Callable = mean,
    second: Callable = mean,
    gradient: Callable = lambda g, p: g,
    square: Callable = lambda g, m: g * g,
    hats: Callable = lambda m, v, b1, b2, t1, t2: (m / (1 - b1**t1), v / (1 - b2**t2)),
    keep: Callable = lambda m, v, mhat, vhat: (m, v),
) -> Callable:
    """A step of AdamW without mistakes, for `trajectory`; the options are mistakes.

    clock(t, i) returns the t in mhat and vhat of array i; keep says what is stored for the next step.
    """
    (b1, b2), means = betas, {name: (0.0, 0.0) for name in start}

    def step(params, grads, t, lr):
        for i, (name, p) in enumerate(params.items()):
            (m, v), g = means[name], gradient(grads[name], p)
            m = first(m, g, b1)                                 # (1)
            v = second(v, square(g, m), b2)                     # (2)
            mhat, vhat = hats(m, v, b1, b2, *clock(t, i))
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
        means = {name: (mean(m, each[name], BETAS[0]), mean(v, each[name] ** 2, BETAS[1])) for name, (m, v) in means.items()}
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


def check_adamw(names: dict) -> Iterator[tuple[str, list[Row]]]:
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

    def moved(move):
        return wrong(move=move)

    def ratio(m, v):
        return m / (np.sqrt(v) + ADAM_EPS)

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
            wrong(hats=lambda m, v, b1, b2, t1, t2: (m / (1 - b1**t1), v / (1 - b1**t2))),
        _("mhat and vhat are both divided by 1 - b2^t: mhat is divided by 1 - b1^t"):
            wrong(hats=lambda m, v, b1, b2, t1, t2: (m / (1 - b2**t1), v / (1 - b2**t2))),
        _("mhat is divided by 1 - b2^t and vhat by 1 - b1^t: it is the reverse"):
            wrong(hats=lambda m, v, b1, b2, t1, t2: (m / (1 - b2**t1), v / (1 - b1**t2))),
        _("m and v are multiplied by 1 - b^t: they are divided by it"):
            wrong(hats=lambda m, v, b1, b2, t1, t2: (m * (1 - b1**t1), v * (1 - b2**t2))),
        _("b is multiplied by t: mhat and vhat are divided by 1 - b^t, with t as a power"):
            wrong(hats=lambda m, v, b1, b2, t1, t2: (m / (1 - b1 * t1), v / (1 - b2 * t2))),
        _("m and v are divided by b^t: they are divided by 1 - b^t"):
            wrong(hats=lambda m, v, b1, b2, t1, t2: (m / b1**t1, v / b2**t2)),
        _("mhat and vhat are stored as m and v: they are for (3) alone"):
            wrong(keep=lambda m, v, mhat, vhat: (mhat, vhat)),
        _("mhat is stored as m: it is for (3) alone"): wrong(keep=lambda m, v, mhat, vhat: (mhat, v)),
        _("vhat is stored as v: it is for (3) alone"): wrong(keep=lambda m, v, mhat, vhat: (m, vhat)),
        _("neither m nor v is stored, so each step begins with 0 again: keep both in self"):
            wrong(keep=lambda m, v, mhat, vhat: (0.0, 0.0)),
        _("m is not stored, so each step begins with 0 again: keep it in self"):
            wrong(keep=lambda m, v, mhat, vhat: (0.0, v)),
        _("v is not stored, so each step begins with 0 again: keep it in self"):
            wrong(keep=lambda m, v, mhat, vhat: (m, 0.0)),
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
        _("v never falls, as in AMSGrad"): wrong(second=lambda old, new, b: np.maximum(old, mean(old, new, b))),
        _("the weight decay is added to the gradient, Adam with L2: AdamW subtracts it from p itself"):
            wrong(gradient=lambda g, p: g + DECAY * p, move=lambda p, m, v, lr, g: p - lr * ratio(m, v)),
        _("the weight decay is added to the gradient, Adam with L2, and subtracted from p, too: AdamW does the second alone"):
            wrong(gradient=lambda g, p: g + DECAY * p),
        _("the weight decay is subtracted from the gradient: AdamW subtracts it from p itself"):
            wrong(gradient=lambda g, p: g - DECAY * p, move=lambda p, m, v, lr, g: p - lr * ratio(m, v)),
        _("there is no weight decay"): moved(lambda p, m, v, lr, g: p - lr * ratio(m, v)),
        _("the weight decay is not multiplied by lr"): moved(lambda p, m, v, lr, g: p - DECAY * p - lr * ratio(m, v)),
        _("the weight decay is added to p: it is subtracted, so that p shrinks"):
            moved(lambda p, m, v, lr, g: p + lr * DECAY * p - lr * ratio(m, v)),
        _("the weight decay multiplies g: it multiplies p"):
            moved(lambda p, m, v, lr, g: p - lr * DECAY * g - lr * ratio(m, v)),
        _("the weight decay multiplies mhat: it multiplies p"):
            moved(lambda p, m, v, lr, g: p - lr * DECAY * m - lr * ratio(m, v)),
        _("the weight decay does not multiply p: it is lr wd p"):
            moved(lambda p, m, v, lr, g: p - lr * DECAY - lr * ratio(m, v)),
        _("the weight decay is added to mhat and divided by sqrt(vhat) with it: it is subtracted from p by itself"):
            moved(lambda p, m, v, lr, g: p - lr * ratio(m + DECAY * p, v)),
        _("the weight decay comes after the step: it subtracts lr wd p, with p from before the step"):
            moved(lambda p, m, v, lr, g: (p - lr * ratio(m, v)) * (1 - lr * DECAY)),
        _("the step is not multiplied by lr"): moved(lambda p, m, v, lr, g: p - lr * DECAY * p - ratio(m, v)),
        _("eps is inside the square root"): moved(lambda p, m, v, lr, g: p - lr * DECAY * p - lr * m / np.sqrt(v + ADAM_EPS)),
        _("eps is missing"): moved(lambda p, m, v, lr, g: p - lr * DECAY * p - lr * m / np.sqrt(v)),
        _("eps is added after the division: it is added to sqrt(vhat), in the parentheses below mhat"):
            moved(lambda p, m, v, lr, g: p - lr * DECAY * p - lr * (m / np.sqrt(v) + ADAM_EPS)),
        _("eps is 1e-8 for every eps: it is in self"):
            moved(lambda p, m, v, lr, g: p - lr * DECAY * p - lr * m / (np.sqrt(v) + 1e-8)),
        _("the betas are 0.9 and 0.999 for all betas: they are in self"): wrong(betas=(0.9, 0.999)),
        _("the weight decay is 0.01 for every weight decay: it is in self"):
            moved(lambda p, m, v, lr, g: p - lr * 0.01 * p - lr * ratio(m, v)),
        _("the square root of vhat is missing"): moved(lambda p, m, v, lr, g: p - lr * DECAY * p - lr * m / (v + ADAM_EPS)),
        _("vhat is squared: (3) has its square root"):
            moved(lambda p, m, v, lr, g: p - lr * DECAY * p - lr * m / (v * v + ADAM_EPS)),
        _("mhat is not divided by sqrt(vhat) + eps"): moved(lambda p, m, v, lr, g: p - lr * DECAY * p - lr * m),
        _("mhat is multiplied by sqrt(vhat) + eps: it is divided by it"):
            moved(lambda p, m, v, lr, g: p - lr * DECAY * p - lr * m * (np.sqrt(v) + ADAM_EPS)),
        _("(3) has g in place of mhat, as in RMSProp"): moved(lambda p, m, v, lr, g: p - lr * DECAY * p - lr * ratio(g, v)),
        _("(3) is a step of SGD, lr g: it is lr mhat / (sqrt(vhat) + eps)"):
            moved(lambda p, m, v, lr, g: p - lr * DECAY * p - lr * g),
        _("v is a mean of the gradients: it should be a mean of their squares"): wrong(square=lambda g, m: g),
        _("b1 and b2 are swapped"): wrong(betas=BETAS[::-1]),
        _("b1 is used for both means: (2) has b2"): wrong(betas=(BETAS[0], BETAS[0])),
        _("b2 is used for both means: (1) has b1"): wrong(betas=(BETAS[1], BETAS[1])),
        _("(2) has b1 in place of b2"): wrong(second=lambda old, new, b: mean(old, new, BETAS[0])),
        _("(1) has b2 in place of b1"): wrong(first=lambda old, new, b: mean(old, new, BETAS[1])),
        _("p moves along the gradient, uphill: subtract"): moved(lambda p, m, v, lr, g: move(p, -m, v, lr)),
        _("the arrays of params do not change: write into them (params[name] -= ...); the model holds these arrays and does "
          "not get a new one"): moved(lambda p, m, v, lr, g: p),
        _("only the weight decay is written into the arrays of params, and the rest of (3) is not: write it into them, too "
          "(params[name] -= ...); the model holds these arrays and does not get a new one"):
            moved(lambda p, m, v, lr, g: p - lr * DECAY * p),
        _("only the first weight decay is written into the arrays of params, and the rest of (3) makes new ones: write into "
          "them (params[name] -= ...); the model holds these arrays and does not get a new one"):
            lambda: trajectory(decay_once, start, grads),
    }, otherwise=where)]
    yield _("a second optimiser"), [judge("parameters", run(function(names, "AdamW")), expected, otherwise=_(
        "it does not start like the first one: keep m, v and t in self, and nothing outside"
    ))]


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


def check_beam_step(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With a hypothesis that is not continued, despite a probable next token; then with a beam so wide that a partial sort
    leaves it unsorted."""
    step = function(names, "beam_step")

    def descending(first, vocabulary, seed):
        """Log probabilities that fall from token first[w] on, in row w: among the best are small ids, often special ones."""
        p = np.sort(np.random.default_rng(seed).dirichlet(np.ones(vocabulary), len(first)))[:, ::-1]
        return np.log([np.roll(row, token) for row, token in zip(p, first, strict=True)])

    def kept(scores, count):
        origin, word = np.divmod(np.argsort(-scores, axis=None)[:count], scores.shape[1])
        return origin, word, scores[origin, word]

    def mistakes(totals, log_probs):
        beam, vocabulary = log_probs.shape
        scores, product = totals[:, None] + log_probs, totals[:, None] * log_probs
        right = row, column, total = kept(scores, beam)

        def chosen(by, numbers):
            origin, word, _by = kept(by, beam)
            return origin, word, numbers[origin, word]

        def without(tokens):
            return kept(np.where(np.isin(np.arange(vocabulary), tokens), -np.inf, scores), beam)

        def of_one(hypothesis):
            word = np.argsort(-scores[hypothesis])[:beam]
            return np.full(beam, hypothesis), word, scores[hypothesis, word]

        ranks = np.argsort(np.argsort(-log_probs, axis=1), axis=1)
        by_hypothesis, by_token = np.argsort(-scores.max(1)), np.argsort(-scores.max(0))[:beam]
        flat = row * vocabulary + column
        return {
            _("every hypothesis is continued once: the W best of all W * V continuations should be kept"):
                (np.arange(beam), scores.argmax(1), scores.max(1)),
            _("every hypothesis is continued once, by its best token, and these are sorted: the W best of all W * V "
              "continuations should be kept"):
                (by_hypothesis, scores.argmax(1)[by_hypothesis], scores.max(1)[by_hypothesis]),
            _("only the best hypothesis is continued: the W best continuations of all hypotheses should be kept"):
                of_one(totals.argmax()),
            _("only the first hypothesis is continued: the W best continuations of all hypotheses should be kept"): of_one(0),
            _("every token is used once, by its best hypothesis: two hypotheses may go on with the same token"):
                (scores.argmax(0)[by_token], by_token, scores.max(0)[by_token]),
            _("the best continuation is returned W times: the W best should be kept"): tuple(
                np.repeat(part[:1], beam) for part in right),
            _("the totals are never added: the probability of the hypothesis counts, too"): chosen(log_probs, log_probs),
            _("the totals are not added before the choice: the probability of the hypothesis counts, too"):
                chosen(log_probs, scores),
            _("the totals of the hypotheses are not added"): (row, column, log_probs[row, column]),
            _("totals and log_probs are multiplied: logarithms of probabilities are added"): chosen(product, product),
            _("totals and log_probs are multiplied, and the smallest products kept: logarithms of probabilities are added"):
                chosen(-product, product),
            _("log_probs are subtracted from the totals: they are added"): chosen(
                totals[:, None] - log_probs, totals[:, None] - log_probs),
            _("the worst are kept: take the largest"): chosen(-scores, scores),
            _("the worst are kept, with the worst last: take the largest"): tuple(
                part[::-1] for part in chosen(-scores, scores)),
            _("the best is last"): tuple(part[::-1] for part in right),
            _("the index is divided by W: a row of the scores has V tokens"): (flat // beam, flat % beam, total),
            _("the index is divided by W for the origin, and by V for the token: a row of the scores has V tokens"):
                (flat // beam, column, total),
            _("the index is divided by W, and origin and token are swapped: divide by V, the origin is the quotient"):
                (flat % beam, flat // beam, total),
            _("the remainder is taken by W: a row of the scores has V tokens"): (row, flat % beam, total),
            _("the indices are those of the flat array of W * V scores: the token is the remainder by V"): (row, flat, total),
            _("the index into a list of the best tokens of each hypothesis is returned: look up the token in that list"):
                (row, ranks[row, column], total),
            _("the new totals are probabilities: keep their logarithms"): (row, column, np.exp(total)),
            _("the new totals have the wrong sign: logarithms of probabilities are negative"): (row, column, -total),
            _("probabilities and not their logarithms are added: probabilities are multiplied, their logarithms added"):
                chosen(np.exp(totals)[:, None] + np.exp(log_probs), np.exp(totals)[:, None] + np.exp(log_probs)),
            _("the new totals are normalised, so that the probabilities of all continuations sum to 1: keep the sums"):
                (row, column, total - np.log(np.exp(scores).sum())),
            _("they are the old totals in their order: the new total is that of the hypothesis and its token"):
                (row, column, totals),
            _("they are the old totals of the hypotheses that go on: the log probability of the token is added"):
                (row, column, totals[row]),
            _("the totals are added twice"): (row, column, totals[row] + total),
            _("the old totals are added in their order: each continuation needs that of its own origin, totals[origin]"):
                (row, column, totals + log_probs[row, column]),
            _("the totals and the log probabilities are averaged: they are added"): (row, column, total / 2),
            **{_("{count} continuations are kept: it should be W, {beam} here", count=count, beam=beam): kept(scores, count)
               for count in range(1, 2 * (beam + vocabulary)) if count != beam},
            **{_("the tokens {tokens} are never chosen: here every token counts, whatever it stands for",
                 tokens=listed(tokens)): without(tokens)
               for count in (1, 2, 3) for tokens in itertools.combinations(range(4), count)
               if not all(close(wrong, part, 1e-9) for wrong, part in zip(without(tokens), right, strict=True))},
        }

    def rows(totals, log_probs, known):
        index = _("Is it an index of the flat scores? np.divmod(i, V) makes origin, word of it, in this order.")
        column = _("If these are totals and log_probs: totals[:, None] is a column, one number for each row.")
        with hint(IndexError, index), hint(ValueError, column, "broadcast"):
            ours = step(frozen(totals), frozen(log_probs))
        right = kept(totals[:, None] + log_probs, len(totals))
        found = judge_together(ours, dict(zip(("origin", "word", "totals"), right, strict=True)), known)
        causes = {because(words) for words in known}
        if any(row.diagnosis in causes for row in found):
            return found
        return _beam_otherwise(found, ours, right, totals, log_probs)

    for title, totals, log_probs in (
        (_("five hypotheses"), np.array([-1.9, -1.0, -1.3, -3.0, -9.0]), descending((2, 4, 0, 3, 1), 11, 7)),
        (_("eight hypotheses"), gaussian(8) - 3, descending((1, 2, 0, 1, 3, 3, 1, 0), 13, 1)),
    ):
        yield title, rows(totals, log_probs, mistakes(totals, log_probs))
    yield _("300 hypotheses"), rows(gaussian(300) - 3, descending([0] * 300, 7, 1), {})


def _beam_otherwise(rows, ours, right, totals, log_probs):
    """The rows with a sentence on which equation is right, if that is known, and how far the numbers are right."""
    ours = [numbers(part) for part in ours]
    if any(part is None or part.shape != good.shape for part, good in zip(ours, right, strict=True)):
        return rows
    if not (rows[0].ok and rows[1].ok):
        order, ordered = np.lexsort(ours[1::-1]), np.lexsort(right[1::-1])
        if all(close(part[order], good[ordered], 1e-9) for part, good in zip(ours, right, strict=True)):
            words = _("they are the right continuations in a different order: the best one comes first")
            return [row if row.ok else diagnosed(row, words) for row in rows]
    factor = np.vdot(ours[2], right[2]) / np.vdot(right[2], right[2])
    if rows[0].ok and rows[1].ok and not rows[2].ok and close(ours[2], factor * right[2], 1e-9) and 0 < factor < 1:
        words = _("the sums are divided by {number:.6g}, as by a length: the hypotheses of one step are equally long, and "
                  "their totals are sums of log probabilities", number=1 / factor)
        return [*rows[:2], diagnosed(rows[2], words)]
    origin, word = ours[0].astype(int), ours[1].astype(int)
    possible = all((0 <= index).all() and (index < size).all()
                   for index, size in zip((origin, word), log_probs.shape, strict=True))
    if possible and not rows[2].ok and close(ours[2], totals[origin] + log_probs[origin, word], 1e-9):
        words = _("each total is that of its origin and its token, as in (1), but these are not the W best of all W * V "
                  "continuations: look at (2)")
        return [row if row.ok else diagnosed(row, words) for row in rows]
    return rows


RIGHT_ORDER = (0, 1, 3, 2, 4, 5)        # of the axes, in both passes: (B, rows / p, p, cols / p, p, C) and back


def check_patchify(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With images that are not square; all sizes but the two of a patch are different."""
    def cut(order, images, patch_size):
        batch, rows, cols, channels = images.shape
        x = images.reshape(batch, rows // patch_size, patch_size, cols // patch_size, patch_size, channels)
        return x.transpose(order).reshape(batch, -1, patch_size * patch_size * channels)

    def pasted(split, order):
        return lambda dpatches, images, patch_size: dpatches.reshape(7, *split).transpose(order).reshape(images.shape)

    images, sizes = gaussian(7, 6, 10, 4), (3, 5, 2, 2, 4)
    orders = [(0, *order) for order in itertools.permutations(range(1, 6)) if (0, *order) != RIGHT_ORDER]
    ways = {(sizes, order) for order in orders}                 # (how dpatches is split, the order of the axes that follows)
    for parts in itertools.permutations(range(5)):
        split = tuple(sizes[part] for part in parts)
        if split != sizes:
            ways |= {(split, RIGHT_ORDER), (split, (0, *(1 + parts.index(part) for part in (0, 2, 1, 3, 4))))}
    right = np.arange(images.size, dtype=np.float64).reshape(images.shape)
    dpatches, _cache = patches.patchify_forward(right, 2)
    backs = {
        _("dpatches is reshaped at once: split it as the last line of forward merged it, then swap the axes back"):
            lambda dpatches, images, patch_size: dpatches.reshape(images.shape),
        _("dpatches goes back as if the patches were numbered column by column: here row by row"):
            pasted((5, 3, 2, 2, 4), (0, 2, 3, 1, 4, 5)),
        _("dpatches goes back as if the channel came before row and column in a patch (PyTorch's order): here it comes last"):
            pasted((3, 5, 4, 2, 2), (0, 1, 4, 2, 5, 3)),
        _("dpatches goes back as if row and column were swapped in each patch"): pasted(sizes, (0, 1, 4, 2, 3, 5)),
        **{_("dpatches is split into {split}, and its axes then go into the order {order}: it should be split into "
             "{right_split}, and the axes then go into the order {right_order}", split=(7, *split), order=order,
             right_split=(7, *sizes), right_order=RIGHT_ORDER): pasted(split, order)
           for split, order in sorted(ways, key=lambda way: (way[0] != sizes, way))
           if not np.array_equal(pasted(split, order)(dpatches, images, 2), right)},            # axes that stay neighbours
    }
    yield from check_pair(names, "patchify", patches.patchify_forward, images, patch_size=2, gradients={
        "images": backs,
    }, variants={
        _("the image is reshaped at once, which cuts it into strips: split rows and cols first, then swap the axes"):
            partial(cut, (0, 1, 2, 3, 4, 5)),
        _("the patches are numbered column by column: here row by row"): partial(cut, (0, 3, 1, 2, 4, 5)),
        _("the channel comes before row and column in each patch (PyTorch's order): here it comes last"):
            partial(cut, (0, 1, 3, 5, 2, 4)),
        _("row and column are swapped in each patch"): partial(cut, (0, 1, 3, 4, 2, 5)),
        **{_("rows and cols are split, and the axes then go into the order {order}: it should be {right}", order=order,
             right=RIGHT_ORDER): partial(cut, order) for order in orders},
    })
    yield from check_pair(
        names, "patchify", patches.patchify_forward, gaussian(2, 6, 9, 2), patch_size=3, title=_("patches of 3 x 3")
    )


def check_random_masking(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With five images of seven patches, of which three are kept: as many as are removed would hide a mistake."""
    noise, hide = frozen(np.random.default_rng(2).random((5, 7))), function(names, "random_masking")

    def outputs(shuffle, kept):
        """ids_keep, ids_restore and mask of an order, which may be a wrong one."""
        restore = np.argsort(shuffle, axis=1)
        return shuffle[:, :kept], restore, (restore >= kept).astype(float)

    def rows(ratio):
        keep, restore, mask = mae.random_masking(noise, ratio)
        shuffle, kept = np.argsort(noise, axis=1), keep.shape[1]
        columns, positions = np.argsort(noise, axis=0), np.arange(7)
        in_any, in_first = (np.where(np.isin(positions, ids), 0.0, 1.0) + 0 * noise for ids in (keep, keep[0]))
        joint = {
            _("np.argsort is applied twice to get ids_shuffle, which gives the rank of each patch, ids_restore: apply it once"):
                outputs(restore, kept),
            _("the patches with the largest noise are kept: keep those with the smallest"): outputs(shuffle[:, ::-1], kept),
            _("the noise is sorted along axis 0, over the images: each image sorts its own patches, axis 1"):
                (columns[:, :kept], np.argsort(columns, axis=0), (np.argsort(columns, axis=0) >= kept).astype(float)),
            _("the noise is sorted along axis 0, over the images, and then along axis 1: each image sorts its own patches"):
                outputs(columns, kept),
            _("mask_ratio is the fraction that is kept: it is the fraction that is removed"): outputs(shuffle, int(7 * ratio)),
            _("K is rounded up: K = int(N (1 - mask_ratio))"): outputs(shuffle, kept + 1),
            _("all images get the order of the first one: each has its own"):
                outputs(np.repeat(shuffle[:1], 5, axis=0), kept),
            _("the patches are not sorted by their noise: ids_shuffle = np.argsort(noise, axis=1)"):
                outputs(positions + 0 * shuffle, kept),
            _("ids_shuffle is returned, the patch at each position, and the mask is taken in its order: ids_restore is its "
              "inverse, np.argsort of it"):
                (keep, shuffle, (shuffle >= kept).astype(float)),
        }
        expected = {"ids_keep": keep, "ids_restore": restore, "mask": mask.astype(float)}     # bool and integers are as good
        alone = {
            "ids_keep": {
                _("the removed patches are returned: keep the first K"): shuffle[:, kept:],
                _("the last K are returned, with the largest noise: keep the first K"): shuffle[:, -kept:],
                _("the patches are sorted: keep them in the order of the shuffle"): np.sort(keep, axis=1),
                _("the positions of the first K patches in the shuffle are returned: keep the patches, ids_shuffle[:, :K]"):
                    restore[:, :kept],
                _("the noise of the kept patches is returned: keep their numbers"): np.sort(noise, axis=1)[:, :kept],
            },
            "ids_restore": {
                _("ids_shuffle is returned, the patch at each position: ids_restore is its inverse, np.argsort of it"): shuffle,
                _("it is sorted twice, which gives ids_shuffle back or 0 ... N - 1: ids_restore is np.argsort(ids_shuffle)"):
                    positions + 0 * shuffle,
                _("ids_shuffle is sorted along axis 0: each image sorts its own, axis 1"): np.argsort(shuffle, axis=0),
            },
            "mask": {
                _("the noise is compared with mask_ratio: the mask is 1 for the patches that are not among the first K"):
                    noise > ratio,
                _("the noise is compared with 1 - mask_ratio: the mask is 1 for the patches that are not among the first K"):
                    noise > 1 - ratio,
                _("noise below mask_ratio is removed: the mask is 1 for the patches that are not among the first K"):
                    noise < ratio,
                _("noise below 1 - mask_ratio is removed: the mask is 1 for the patches that are not among the first K"):
                    noise < 1 - ratio,
                _("the patches with the largest noise are kept: keep those with the smallest"): restore < 7 - kept,
                _("0 and 1 are swapped: 1 = removed"): 1 - mask,
                _("every image gets the kept patches of all images: index each row with its own, as np.put_along_axis does"):
                    in_any,
                _("every image gets the mask of the first image: each has its own"): in_first,
                _("the mask is that of the shuffled patches: bring it into the order of the image with ids_restore"):
                    (positions >= kept) + 0 * noise,
                _("0 and 1 are swapped, and the mask is that of the shuffled patches: 1 = removed, in the order of the image"):
                    (positions < kept) + 0 * noise,
                _("ids_shuffle is compared with K: the position of patch n is ids_restore[n]"): shuffle >= kept,
                _("one patch too many is kept: only the positions 0 ... K - 1 are"): restore > kept,
                _("the mask is 0 everywhere: it is 1 for the patches that are removed"): 0 * noise,
                _("the mask is 1 everywhere: it is 0 for the patches that are kept"): 0 * noise + 1,
            },
        }
        ours = hide(noise, ratio)
        found = judge_together(ours, expected, joint)
        known = {because(words) for words in joint}
        found = [row if row.diagnosis in known else recognised(row, part, {
            words: lambda wrong=wrong: wrong for words, wrong in alone[row.tensor].items()
        }) for row, part in zip(found, ours, strict=True)]
        order = numbers(ours[1])
        named = found[1].ok or found[1].diagnosis in known | {because(words) for words in alone["ids_restore"]}
        if not named and order is not None and order.shape == restore.shape and close(
            np.sort(order, axis=1), positions + 0 * restore, 1e-9):
            found[1] = diagnosed(found[1], _(
                "each row is an order of the patches, but not the inverse of ids_shuffle, which is np.argsort of it: "
                "ids_shuffle[b, ids_restore[b, n]] should be n"
            ))
        return found

    yield _("ratio 0.5"), rows(0.5)
    yield _("ratio 0.75, K = int(7 * 0.25) = 1"), rows(0.75)


def check_unshuffle(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With two visible tokens of five."""
    ids_restore = np.stack([np.random.default_rng(seed).permutation(5) for seed in (1, 2, 3, 4)])

    def shuffled(x, mask_token):
        hidden = np.broadcast_to(mask_token, (len(x), ids_restore.shape[1] - x.shape[1], x.shape[2]))
        return np.concatenate([x, hidden], axis=1)

    def ordered(dy, ids_restore):
        return np.take_along_axis(dy, np.argsort(ids_restore, axis=1)[..., None], axis=1)

    def slip(gradient):
        """A gradient with a mistake: gradient(dy, dy in shuffled order, ids_restore)."""
        return lambda dy, x, mask_token, ids_restore: gradient(dy, ordered(dy, ids_restore), ids_restore)

    def token(numbers):
        """A gradient of the mask token: the sum of these numbers over images and positions."""
        return slip(lambda dy, back, ids: numbers(dy, back, ids).sum(axis=(0, 1), keepdims=True))

    def formula(ours, dy, x, mask_token, ids_restore):
        found = factors(ours.ravel(), *ordered(dy, ids_restore).sum(axis=0))
        return "" if found is None else _(
            "dmask_token is a sum over the tokens in shuffled order, j = 0 ... N - 1, with the factors {factors}: they are 0 "
            "where j < K = 2, and 1 where j >= K", factors=listed(f"{factor:.3g}" for factor in np.round(found, 9) + 0.0)
        )

    x, mask_token = gaussian(4, 2, 8), gaussian(1, 1, 8)
    yield from check_pair(
        names, "unshuffle", patches.unshuffle_forward, x, mask_token, ids_restore=ids_restore, formulas={
            "mask_token": formula,
        }, gradients={
            "x": {
                _("dy is ordered by ids_restore once more: backward needs the inverse order, np.argsort(ids_restore)"):
                    slip(lambda dy, back, ids: np.take_along_axis(dy, ids[..., None], axis=1)[:, :2]),
                _("dx is the first K of dy: visible token j went to the position n where ids_restore[n] is j"):
                    slip(lambda dy, back, ids: dy[:, :2]),
                _("dx is the last K of the tokens in shuffled order: the visible tokens are the first K"):
                    slip(lambda dy, back, ids: back[:, -2:]),
                _("dx is the last K of dy: visible token j went to the position n where ids_restore[n] is j"):
                    slip(lambda dy, back, ids: dy[:, -2:]),
                _("ids_restore is sorted along axis 0, over the images: each image has its own order, axis 1"):
                    slip(lambda dy, back, ids: np.take_along_axis(dy, np.argsort(ids, axis=0)[..., None], axis=1)[:, :2]),
                _("all images get the order of the first one: each has its own"):
                    slip(lambda dy, back, ids: dy[:, np.argsort(ids[0])][:, :2]),
                _("ids_restore is sorted, np.sort: backward needs the order that sorts it, np.argsort"):
                    slip(lambda dy, back, ids: np.take_along_axis(dy, np.sort(ids, axis=1)[..., None], axis=1)[:, :2]),
            },
            "mask_token": {
                _("dmask_token is the sum of all of dy: only where j >= K, at the hidden positions"):
                    token(lambda dy, back, ids: dy),
                _("dmask_token is the sum over the visible positions: it is the sum where j >= K, at the hidden ones"):
                    token(lambda dy, back, ids: back[:, :2]),
                _("dmask_token is the sum over the first K of the tokens of dy: it is the sum where j >= K, in shuffled order"):
                    token(lambda dy, back, ids: dy[:, :2]),
                _("dmask_token is the sum over the last tokens of dy: dy is in the order of the image, and the hidden "
                  "positions are those where ids_restore is K or more"): token(lambda dy, back, ids: dy[:, 2:]),
                _("dmask_token is the sum over the first tokens in shuffled order: the hidden ones are the last"):
                    token(lambda dy, back, ids: back[:, :-2]),
                _("dy is ordered by ids_restore once more: backward needs the inverse order, np.argsort(ids_restore)"):
                    token(lambda dy, back, ids: np.take_along_axis(dy, ids[..., None], axis=1)[:, 2:]),
                _("ids_restore is sorted along axis 0, over the images: each image has its own order, axis 1"):
                    token(lambda dy, back, ids: np.take_along_axis(dy, np.argsort(ids, axis=0)[..., None], axis=1)[:, 2:]),
                _("all images get the order of the first one: each has its own"):
                    token(lambda dy, back, ids: dy[:, np.argsort(ids[0])][:, 2:]),
                _("dmask_token is a mean over images and positions: the one token is used at all of them, so they are summed"):
                    token(lambda dy, back, ids: back[:, 2:] / 12),
                _("dmask_token is a mean over the images: the one token is used in all of them, so they are summed"):
                    token(lambda dy, back, ids: back[:, 2:] / 4),
                _("dmask_token is a mean over the hidden positions: the one token is used at all of them, so they are summed"):
                    token(lambda dy, back, ids: back[:, 2:] / 3),
                _("dmask_token is a mean over all of dy: it is the sum where j >= K"): token(lambda dy, back, ids: dy / 20),
                _("dmask_token is the gradient of the first hidden token of each image: it is the sum of all of them"):
                    token(lambda dy, back, ids: back[:, 2:3]),
                _("dmask_token is the gradient of the last hidden token of each image: it is the sum of all of them"):
                    token(lambda dy, back, ids: back[:, -1:]),
                _("dmask_token is the sum over the first image alone: the one token is used in all of them"):
                    token(lambda dy, back, ids: back[:1, 2:]),
                _("dmask_token is 0: the token stands at all hidden positions, and gets the sum of their gradients"):
                    token(lambda dy, back, ids: 0 * dy),
                _("dmask_token is the number of hidden positions: it is the sum of dy there"):
                    token(lambda dy, back, ids: 0 * back[:, 2:] + 1),
            },
        }, variants={
            _("the visible tokens come first and the mask tokens after them: they are not moved to their positions "
              "(unshuffle)"):
                lambda x, mask_token, ids_restore: shuffled(x, mask_token),
            _("the order is the inverse of ids_restore"): lambda x, mask_token, ids_restore: ordered(
                shuffled(x, mask_token), ids_restore
            ),
        },
    )


def check_masked_mse(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With six removed patches of fifteen, not equally many in each image: their mean is not a mean of means."""
    mask, width = np.array([[1, 0, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]), 7

    every, shown, right = np.ones_like(mask), 1 - mask, int(mask.sum()) * width

    def variant(counts, number, error=np.square):
        return lambda pred, target, mask: np.vdot(counts, error(pred - target).sum(axis=-1)) / number

    def slip(error, counts=mask, number=right):
        """dpred with a mistake: error(pred - target) in place of 2 (pred - target), other patches or another divisor."""
        return lambda dloss, pred, target, mask: dloss * counts[..., None] * error(pred - target) / number

    yield from check_pair(
        names, "masked_mse", losses.masked_mse_forward, gaussian(3, 5, width),
        target=gaussian(3, 5, width, seed=1), mask=mask, variants={
            _("the mean is taken over all patches: it should be over the removed patches"):
                variant(mask, mask.size * width),
            _("the mask is not used: visible patches do not count"): variant(every, mask.size * width),
            _("the mask is inverted: 1 = removed, and removed patches count"): variant(shown, shown.sum() * width),
            _("the mask is inverted in the sum alone: 1 = removed, and removed patches count"): variant(shown, right),
            _("the mask is inverted in the divisor alone: the sum of the mask is the number of removed patches"):
                variant(mask, shown.sum() * width),
            _("the mask is inverted, and the mean is taken over all patches: 1 = removed, and removed patches count"):
                variant(shown, mask.size * width),
            _("all patches are summed, and the sum is divided by the number of removed ones: visible patches do not count"):
                variant(every, right),
            _("the squares in a patch are summed: take their mean"): variant(mask, mask.sum()),
            _("nothing is divided: take the mean"): variant(mask, 1),
            _("the errors of the patches are summed: divide by the sum of the mask"): variant(mask, width),
            _("it is divided by the number of images: it should be the number of removed patches"): variant(mask, width * 3),
            _("it is divided by the number of patches in an image: it should be the number of removed patches"):
                variant(mask, width * 5),
            _("it has the absolute error: it is the squared error"): variant(mask, right, np.abs),
            _("it has the error itself, whose signs cancel: it is the squared error"):
                variant(mask, right, lambda error: error),
            _("it has half of the squared error: the factor 1 / 2 is not in (1)"): variant(mask, 2 * right),
            _("its square root is taken: (1) is the mean of the squares"):
                lambda pred, target, mask: np.sqrt(variant(mask, right)(pred, target, mask)),
            _("the square root of the error of each patch is taken: (1) has the mean of the squares"):
                lambda pred, target, mask: np.vdot(mask, np.sqrt(np.square(pred - target).mean(axis=-1))) / mask.sum(),
            _("the error is averaged over a patch before it is squared: square first, then take the mean"):
                lambda pred, target, mask: np.vdot(mask, np.square((pred - target).mean(axis=-1))) / mask.sum(),
            _("the mask multiplies pred alone: it multiplies the squared error of the patch"):
                lambda pred, target, mask: variant(every, right)(pred * mask[..., None], target, mask),
            _("pred is squared and target is not subtracted"): lambda pred, target, mask: variant(mask, right)(pred, 0, mask),
            _("the squares of pred and target are subtracted: square the difference"):
                lambda pred, target, mask: np.vdot(mask, (pred * pred - target * target).sum(axis=-1)) / right,
            _("the mean is taken in each image first, then over the images: it should be over all removed patches at once"):
                variant(mask / mask.sum(axis=1, keepdims=True), 3 * width),
        }, gradients={"pred": {
            _("the factor 2 of (2) is missing: it comes from the square"): slip(lambda error: error),
            _("(2) is not divided by P: (1) has the mean over the P numbers of a patch"):
                slip(lambda error: 2 * error, number=mask.sum()),
            _("the gradient is that of the absolute error, the sign of pred - target: it is 2 (pred - target)"): slip(np.sign),
            _("the error is squared in backward, too: the derivative of its square is 2 (pred - target)"): slip(np.square),
            _("the error is squared in backward, too, and doubled: the derivative of its square is 2 (pred - target)"):
                slip(lambda error: 2 * error * error),
            _("the mask is inverted in backward: removed patches get the gradient"): slip(lambda error: 2 * error, shown),
            _("the mask is inverted in backward, in the sum and in the divisor: removed patches get the gradient"):
                slip(lambda error: 2 * error, shown, width * shown.sum()),
            _("pred is in the place of pred - target: the target is subtracted"):
                lambda dloss, pred, target, mask: dloss * mask[..., None] * 2 * pred / right,
            _("it is divided by the number of removed patches in each image: it should be the number in all images"):
                slip(lambda error: 2 * error, mask / mask.sum(axis=1, keepdims=True), width),
            _("it is divided neither by P nor by the sum of the mask"): slip(lambda error: 2 * error, number=1),
        }},
    )


def check_reconstruct(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With the reconstructions of a small model, against those that use visible patches only."""
    config = mae.MAEConfig(
        img_size=12, patch_size=4, in_chans=2, embed_dim=8, depth=1, num_heads=2, decoder_embed_dim=8, decoder_depth=1,
        decoder_num_heads=2, mask_ratio=0.7, norm_pix_loss=True,
    )
    params = perturbed(mae.mae_init(config, np.random.default_rng(0), np.float64), np.random.default_rng(1))
    images, noise = gaussian(2, 12, 12, 2), np.random.default_rng(2).random((2, 9))
    reconstruct = function(names, "reconstruct")
    ours, right, leaks = (make(frozen(images), params, config, frozen(noise)) for make in (
        reconstruct, mae.mae_reconstruct, partial(mae.mae_reconstruct, statistics="true")
    ))

    def row(name):
        return judge(name, getattr(ours, name, None), getattr(right, name), {
            _("each hidden patch gets its mean and contrast from the true image: part of the answer leaks; take them from the "
              "visible patches"): lambda: getattr(leaks, name),
        }, invariants=[lambda: assert_mask_hides(
            lambda images: getattr(reconstruct(images, params, config, noise), name), images, right.mask, config.patch_size
        )])

    yield _("reconstruct"), [row(name) for name in ("masked", "reconstruction", "pasted")]
