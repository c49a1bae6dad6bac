"""Checks of scaled dot-product attention: the forward alone, and the pair."""
import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from tinymae.gradcheck.invariants import assert_batch_independent
from tinymae.learn.checks.dropout import dropout_rows
from tinymae.learn.demands import function, parts
from tinymae.learn.inputs import DK, DV, TK, TQ, B, D, H, frozen, gaussian, mean, total
from tinymae.learn.judge import Tables
from tinymae.learn.pairs import check_forward, check_pair
from tinymae.messages import listed, marked
from tinymae.messages import message as _
from tinymae.ops import attention, softmax


def attend(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None, *, scale: float | None = None,
    by_queries: bool = False, forbidden: float | None = None,
) -> np.ndarray:
    """Attention (B, H, Tq, d_v) without mistakes; the options are mistakes.

    scale replaces sqrt(d_k), by_queries moves the softmax to axis -2, forbidden is the score of a forbidden key.
    """
    scores = q @ k.mT / (scale or math.sqrt(q.shape[-1]))
    if mask is not None and forbidden is not None:
        scores, mask = np.where(mask, scores, forbidden), None
    if by_queries:
        return softmax.softmax_forward(scores.mT, None if mask is None else mask.mT)[0].mT @ v
    return softmax.softmax_forward(scores, mask)[0] @ v


ATTENTION_VARIANTS = {
    marked("the scores are divided by sqrt(d_model), which is sqrt(H d_k): it should be sqrt(d_k), with the dimension of one "
           "head"): partial(attend, scale=math.sqrt(D)),
    marked("the scores are divided by d_k: it should be its square root"): partial(attend, scale=DK),
    marked("the scores are divided by the square root of the number of keys: it should be that of the dimension d_k"):
        lambda q, k, v, mask=None: attend(q, k, v, mask, scale=math.sqrt(k.shape[2])),
    marked("the scores are not divided by sqrt(d_k)"): partial(attend, scale=1),
    marked("only item 0 of the batch is used: every query attends to its keys and values"):
        lambda q, k, v, mask=None: attend(q, k[:1], v[:1], mask),
    marked("the softmax runs over the queries, axis -2: the weights of a query sum to 1 over the keys, axis -1"):
        partial(attend, by_queries=True),
    marked("the mask is inverted: True = may attend"):
        lambda q, k, v, mask=None: attend(q, k, v, None if mask is None else ~mask),
    marked("forbidden scores become 0: exp(0) is 1, so they must become minus infinity"): partial(attend, forbidden=0.0),
    marked("the mask is not used, or adds next to nothing to the scores, such as -1e-9 in place of -1e9"):
        lambda q, k, v, mask=None: attend(q, k, v),
}
BY_VALUES = {                                                   # where the values have another dimension
    marked("the scores are divided by the square root of d_v, the dimension of the values: it should be that of the keys, d_k"):
        partial(attend, scale=math.sqrt(DV)),
}


def check_attention_forward(names: dict) -> Tables:
    """Without a mask, and with one."""
    q, k, v = gaussian(B, H, TQ, DK), gaussian(B, H, TK, DK), gaussian(B, H, TK, DV)
    mask = np.random.default_rng(0).random((B, 1, TQ, TK)) < 0.7
    mask[..., 0], mask[..., 1] = True, False                    # each query has a key that it may attend to, and one that not

    def weights(q, k, mask=None):
        return softmax.softmax_forward(q @ k.mT / math.sqrt(DK), mask)[0]

    def steps(q, k, v, mask=None):
        return {_("the product q k^T"): [q @ k.mT], _("the scores of (1)"): [q @ k.mT / math.sqrt(DK)],
                _("the weights of (2)"): [weights(q, k, mask)]}

    core = partial(
        check_forward, names, "attention", attention.scaled_dot_product_attention_forward, q, k, v, steps=steps,
        variants=ATTENTION_VARIANTS | BY_VALUES | {
            _("the mask is applied after the softmax, so the weights of a row no longer sum to 1: mask the scores"):
                lambda q, k, v, mask=None: weights(q, k) * (1 if mask is None else mask) @ v,
            _("the mask is added to the scores: True adds 1; forbidden scores must become minus infinity"):
                lambda q, k, v, mask=None: softmax.softmax_forward(
                    q @ k.mT / math.sqrt(DK) + (0 if mask is None else mask))[0] @ v,
            _("forbidden scores become -1: they must become minus infinity"): partial(attend, forbidden=-1.0),
            _("the scores are multiplied by sqrt(d_k): they are divided by it"): partial(attend, scale=1 / math.sqrt(DK)),
            _("y is divided by sqrt(d_k): the scores are, before the softmax"):
                lambda q, k, v, mask=None: attend(q, k, v, mask, scale=1) / math.sqrt(DK),
            _("the scores are divided by the square root of the number of queries: it should be that of d_k"):
                partial(attend, scale=math.sqrt(TQ)),
            _("the scores are multiplied with v, and the softmax is not used"):
                lambda q, k, v, mask=None: q @ k.mT / math.sqrt(DK) @ v,
            _("the softmax is applied twice"):
                lambda q, k, v, mask=None: softmax.softmax_forward(weights(q, k, mask), mask)[0] @ v,
            _("the weights are returned: y is the weights times v"): lambda q, k, v, mask=None: weights(q, k, mask),
            _("the weights are multiplied with k: y is the weights times v"):
                lambda q, k, v, mask=None: weights(q, k, mask) @ k,
            _("the scores are divided by sqrt(d_k), and y too: once is enough, before the softmax"):
                lambda q, k, v, mask=None: attend(q, k, v, mask) / math.sqrt(DK),
            _("the scores are divided by the square root of the number of heads: it should be that of d_k, the last axis of q"):
                partial(attend, scale=math.sqrt(H)),
            _("the scores are divided by the square root of the batch size: it should be that of d_k, the last axis of q"):
                partial(attend, scale=math.sqrt(B)),
            _("k is reshaped in place of a transpose: swap its last two axes"):
                lambda q, k, v, mask=None: softmax.softmax_forward(
                    q @ k.reshape(*k.shape[:2], DK, TK) / math.sqrt(DK), mask)[0] @ v,
        },
    )
    yield from core(invariants=[lambda y: assert_batch_independent(y, q, k, v)])
    yield from core(title=_("with a mask"), mask=mask)


def through_softmax(ddropped: np.ndarray, weights: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """dscores before the factor of the scale: first through the dropout, then through the softmax."""
    return softmax.softmax_backward(ddropped * keep, (weights,))


def attention_gradients(
    dy: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, *, mask: np.ndarray | None = None, dropout: float = 0.0,
    rng: np.random.Generator | None = None, scale: float = 1 / math.sqrt(DK), ddropped: Callable = lambda dy, v: dy @ v.mT,
    back: Callable = through_softmax, dk: Callable = lambda ds, q, dq: ds.mT @ q,
    dv: Callable = lambda w, keep, ds, dy: (w * keep).mT @ dy,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients (dq, dk, dv) of the exercise's forward without mistakes; the options replace steps by mistakes.

    back(ddropped, weights, keep) and scale give dscores; ddropped(dy, v), dk(dscores, q, dq) and dv(weights, keep, dscores, dy)
    give what they are named after.
    """
    weights, _cache = softmax.softmax_forward(q @ k.mT / math.sqrt(DK), mask)
    keep = np.ones_like(weights) if rng is None else (rng.random(weights.shape) >= dropout) / (1 - dropout)
    dscores = back(ddropped(dy, v), weights, keep) * scale
    dq = dscores @ k
    return dq, dk(dscores, q, dq), dv(weights, keep, dscores, dy)


def attention_steps(
    dy: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, *, mask: np.ndarray | None = None, dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> dict[str, list[np.ndarray]]:
    """What the backward of attention computes before dq and dk, in its order."""
    weights, _cache = softmax.softmax_forward(q @ k.mT / math.sqrt(DK), mask)
    keep = 1.0 if rng is None else (rng.random(weights.shape) >= dropout) / (1 - dropout)
    ddropped = dy @ v.mT
    return {_("ddropped of (6)"): [ddropped], _("dweights of (7)"): [ddropped * keep],
            _("dscores of (8)"): [through_softmax(ddropped, weights, keep) / math.sqrt(DK)]}


def attention_slips() -> dict[str, Callable]:
    """{mistake in the backward: function that returns the gradients (dq, dk, dv) of it, or None for some}."""
    def scaled(scale, where):
        def gradients(*args, **options):
            found = attention_gradients(*args, scale=scale, **options)
            return *(gradient if name in where else None for name, gradient in zip(("dq", "dk"), found, strict=False)), None
        return gradients

    scales = {}                                                 # in both gradients, or in one of them
    for where in (("dq", "dk"), ("dq",), ("dk",)):
        which = listed(where)
        scales |= {words: scaled(scale, where) for words, scale in {
            _("the factor 1 / sqrt(d_k) of (1) is missing: {gradients}", gradients=which): 1.0,
            _("the factor of (1) is 1 / d_k, or counts twice: {gradients}; it is 1 / sqrt(d_k), once", gradients=which): 1 / DK,
            _("the factor of (1) multiplies by sqrt(d_k): {gradients}; it divides, in backward as in forward", gradients=which):
                math.sqrt(DK),
            _("the factor of (1) has d_v, the dimension of the values: {gradients}; in forward it has that of the keys, d_k",
              gradients=which): 1 / math.sqrt(DV),
            _("the factor of (1) has the number of keys: {gradients}; in forward it has their dimension, d_k", gradients=which):
                1 / math.sqrt(TK),
            _("the factor of (1) has the number of queries: {gradients}; in forward it has their dimension, d_k",
              gradients=which): 1 / math.sqrt(TQ),
            _("the factor of (1) has d_model, which is H d_k: {gradients}; in forward it has d_k", gradients=which):
                1 / math.sqrt(D),
        }.items()}
    softmaxes = {words: lambda g, w, keep, step=step: step(g * keep, w) for words, step in {
        _("the softmax backward is missing: (8) turns dweights into dscores"): lambda dw, w: dw,
        _("the softmax backward is w * (1 - w) * dweights, the diagonal of its Jacobian: each weight of a row depends on all "
          "scores of the row, so a sum over the row is subtracted"): lambda dw, w: w * (1 - w) * dw,
        _("the softmax backward is weights * dweights: the sum over the row is not subtracted"): lambda dw, w: w * dw,
        _("the sum of the softmax backward runs over the queries, axis -2: a row is the last axis, the keys"):
            lambda dw, w: w * (dw - total(w * dw, axis=-2)),
        _("the softmax backward lacks the factor weights before the bracket"): lambda dw, w: dw - total(w * dw),
        _("the sum of the softmax backward lacks the factor weights"): lambda dw, w: w * (dw - total(dw)),
        _("the softmax backward subtracts the mean of dweights: it subtracts the sum of weights * dweights"):
            lambda dw, w: w * (dw - mean(dw)),
        _("the sum of the softmax backward is a mean: it is not divided by the number of keys"):
            lambda dw, w: w * (dw - total(w * dw) / TK),
        _("the sum of the softmax backward is added: it is subtracted"): lambda dw, w: w * (dw + total(w * dw)),
        _("the softmax itself is applied to dweights: its backward is needed"): lambda dw, w: softmax.softmax_forward(dw)[0],
    }.items()} | {
        _("ddropped is not multiplied by keep: (7) stands between the product with v and the softmax"):
            lambda g, w, keep: through_softmax(g, w, 1),
        _("the softmax backward gets the weights after dropout: it gets those before it, which the softmax returned"):
            lambda g, w, keep: through_softmax(g, w * keep, keep),
        _("keep multiplies after the softmax backward: forward drops after the softmax, so keep comes first in backward"):
            lambda g, w, keep: through_softmax(g, w, 1) * keep,
        _("keep multiplies before the softmax backward and after it: once, before it"):
            lambda g, w, keep: through_softmax(g, w, keep) * keep,
        _("keep multiplies twice before the softmax backward"): lambda g, w, keep: through_softmax(g, w, keep * keep),
        _("dropped multiplies in place of keep: (7) has the mask and scale alone"):
            lambda g, w, keep: through_softmax(g, w, w * keep),
        _("keep counts as 0 or 1 only: it also has the factor 1 / (1 - dropout), in backward as in forward"):
            lambda g, w, keep: through_softmax(g, w, keep > 0),
    }

    def with_factors(outer, first, inner, second):
        """weights * (dweights - sum(weights * dweights)), each with keep or without it."""
        def dscores(g, w, keep):
            return w * keep**outer * (g * keep**first - total(w * keep**inner * g * keep**second))
        return dscores

    softmaxes |= {
        _("the softmax backward is {outer} * ({first} - sum({inner} * {second})): it is weights * (dweights - sum(weights * "
          "dweights)), where dweights is ddropped * keep", outer=("weights", "dropped")[factors[0]],
          first=("ddropped", "dweights")[factors[1]], inner=("weights", "dropped")[factors[2]],
          second=("ddropped", "dweights")[factors[3]]): with_factors(*factors)
        for factors in itertools.product((0, 1), repeat=4) if factors not in ((0, 1, 0, 1), (0, 0, 1, 0))
    }
    wrong = {words: {"back": step} for words, step in softmaxes.items()} | {
        _("the weights before dropout are used: y = dropped v, so (5) has those after it"):
            {"dv": lambda w, keep, ds, dy: w.mT @ dy},
        _("keep multiplies dropped once more: it is in dropped already"): {"dv": lambda w, keep, ds, dy: (w * keep**2).mT @ dy},
        _("dropped is counted as 0 or 1 times the weights: forward divided by 1 - dropout, too"):
            {"dv": lambda w, keep, ds, dy: (w * (keep > 0)).mT @ dy},
        _("dscores is used in place of dropped: y = dropped v, so dv = dropped^T dy"):
            {"dv": lambda w, keep, ds, dy: ds.mT @ dy},
        _("the weights are reshaped in place of a transpose: swap their last two axes"):
            {"dv": lambda w, keep, ds, dy: (w * keep).reshape(*w.shape[:2], TK, TQ) @ dy},
        _("dscores is reshaped in place of a transpose: swap its last two axes"):
            {"dk": lambda ds, q, dq: ds.reshape(*ds.shape[:2], TK, TQ) @ q},
        _("dscores is multiplied with dq: dk = dscores^T q, with the q of forward; was q overwritten?"):
            {"dk": lambda ds, q, dq: ds.mT @ dq},
        _("v is reshaped in place of a transpose: ddropped = dy v^T, with the last two axes of v swapped"):
            {"ddropped": lambda dy, v: dy @ v.reshape(*v.shape[:2], DV, TK)},
    }
    return scales | {words: partial(attention_gradients, **options) for words, options in wrong.items()}


def check_attention(names: dict, dropout: bool = True) -> Tables:
    """Without a mask, with a mask, and with dropout: the gradients, and that dropout is applied to the weights."""
    q, k, v = gaussian(B, H, TQ, DK), gaussian(B, H, TK, DK), gaussian(B, H, TK, DV)
    mask = np.random.default_rng(0).random((B, 1, TQ, TK)) < 0.7
    mask[..., 0] = True
    core = partial(
        check_pair, names, "scaled_dot_product_attention", attention.scaled_dot_product_attention_forward, q, k, v,
        variants=ATTENTION_VARIANTS | BY_VALUES, slips=attention_slips(), steps={("q", "k"): attention_steps}, samples=64,
        invariants=[lambda y: assert_batch_independent(y, q, k, v)],
    )
    yield from core()
    yield from core(title=_("with a mask"), mask=mask, invariants=())
    if dropout:
        yield from core(title=_("with a mask and dropout"), mask=mask, dropout=0.3, rng=0, compare=False)
        forward = function(names, "scaled_dot_product_attention_forward")
        q, k, v = frozen(gaussian(1, 1, 100, DK)), frozen(gaussian(1, 1, 80, DK)), frozen(np.eye(80)[None, None])

        def seen(rng=None, dropout=0.0):                        # with the identity as values, y is the weights
            return np.asarray(parts(forward(q, k, v, dropout=dropout, rng=rng), "y", "cache")[0])[0, 0]

        yield _("what is dropped"), dropout_rows("weights", partial(seen, dropout=0.3), seen(), 0.3)
