"""Checks of the exercises about attention and masks; check_layers explains what a check is."""
import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tinymae import blocks, init
from tinymae.gradcheck import Row
from tinymae.gradcheck.invariants import assert_batch_independent, assert_causal, assert_pad_invariant
from tinymae.learn.judge import DK, DV, TK, TQ, B, D, H, check_pair, frozen, function, gaussian, judge, parts
from tinymae.masks import causal_mask, padding_mask
from tinymae.messages import listed, marked
from tinymae.messages import message as _
from tinymae.ops import attention, linear, softmax


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


def attend(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    scale: float | None = None,
    by_queries: bool = False,
    forbidden: float | None = None,
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
           "head"):
        lambda q, k, v, mask=None: attend(q, k, v, mask, scale=math.sqrt(q.shape[1] * q.shape[3])),
    marked("the scores are divided by d_k: it should be its square root"):
        lambda q, k, v, mask=None: attend(q, k, v, mask, scale=q.shape[3]),
    marked("the scores are divided by the square root of the number of keys: it should be that of the dimension d_k"):
        lambda q, k, v, mask=None: attend(q, k, v, mask, scale=math.sqrt(k.shape[2])),
    marked("the scores are not divided by sqrt(d_k)"): lambda q, k, v, mask=None: attend(q, k, v, mask, scale=1),
    marked("only item 0 of the batch is used: every query attends to its keys and values"):
        lambda q, k, v, mask=None: attend(q, k[:1], v[:1], mask),
    marked("the softmax runs over the queries, axis -2: the weights of a query sum to 1 over the keys, axis -1"):
        lambda q, k, v, mask=None: attend(q, k, v, mask, by_queries=True),
    marked("the mask is inverted: True = may attend"):
        lambda q, k, v, mask=None: attend(q, k, v, None if mask is None else ~mask),
    marked("forbidden scores become 0: exp(0) is 1, so they must become minus infinity"):
        lambda q, k, v, mask=None: attend(q, k, v, mask, forbidden=0.0),
    marked("the mask is not used, or adds next to nothing to the scores, such as -1e-9 in place of -1e9"):
        lambda q, k, v, mask=None: attend(q, k, v),
}


BY_VALUES = {                                                   # where the values have another dimension
    marked("the scores are divided by the square root of d_v, the dimension of the values: it should be that of the keys, d_k"):
        lambda q, k, v, mask=None: attend(q, k, v, mask, scale=math.sqrt(v.shape[3])),
}


def attention_gradients(
    dy: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    dropout: float = 0.0,
    rng: np.random.Generator | None = None,
    through_softmax: Callable | None = None,
    through_scale: float = 1 / math.sqrt(DK),
    dv: Callable | None = None,
    ddropped: Callable | None = None,
    dk: Callable | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients (dq, dk, dv) of the exercise's forward without mistakes; the options replace steps by mistakes.

    through_softmax(ddropped, weights, keep) and through_scale give dscores; ddropped(dy, v), dk(dscores, q, dq) and
    dv(weights, keep, dscores, dy) give what they are named after.
    """
    weights, _cache = softmax.softmax_forward(q @ k.mT / math.sqrt(DK), mask)
    keep = np.ones_like(weights) if rng is None else (rng.random(weights.shape) >= dropout) / (1 - dropout)
    grown = ddropped(dy, v) if ddropped else dy @ v.mT
    dscores = (through_softmax or _through_softmax)(grown, weights, keep) * through_scale
    dq = dscores @ k
    return (
        dq,
        dk(dscores, q, dq) if dk else dscores.mT @ q,
        dv(weights, keep, dscores, dy) if dv else (weights * keep).mT @ dy,
    )


def _through_softmax(ddropped, weights, keep):
    """dscores before the factor of the scale: first through the dropout, then through the softmax."""
    return softmax.softmax_backward(ddropped * keep, (weights,))


def attention_steps(
    dy: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, *, mask: np.ndarray | None = None, dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> dict[str, list[np.ndarray]]:
    """What the backward of attention computes before dq and dk, in its order."""
    weights, _cache = softmax.softmax_forward(q @ k.mT / math.sqrt(DK), mask)
    keep = 1.0 if rng is None else (rng.random(weights.shape) >= dropout) / (1 - dropout)
    ddropped = dy @ v.mT
    return {_("ddropped of (6)"): [ddropped], _("dweights of (7)"): [ddropped * keep],
            _("dscores of (8)"): [_through_softmax(ddropped, weights, keep) / math.sqrt(DK)]}


def _row_sums(weights, dweights, axis=-1):
    return (weights * dweights).sum(axis, keepdims=True)


def attention_slips() -> dict[str, Callable]:
    """{mistake in the backward: function that returns the gradients (dq, dk, dv) of it, or None for some}."""
    def scaled(scale, where):
        def gradients(*args, **options):
            found = attention_gradients(*args, through_scale=scale, **options)
            return *(gradient if name in where else None for name, gradient in zip(("dq", "dk"), found, strict=False)), None
        return gradients

    scales = {}                                                 # in both gradients, or in one of them
    for where in (("dq", "dk"), ("dq",), ("dk",)):
        which = listed(where)
        for words, scale in {
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
        }.items():
            scales[words] = scale, where
    softmaxes = {
        _("the softmax backward is missing: (8) turns dweights into dscores"): lambda g, w, keep: g * keep,
        _("the softmax backward is w * (1 - w) * dweights, the diagonal of its Jacobian: each weight of a row depends on all "
          "scores of the row, so a sum over the row is subtracted"): lambda g, w, keep: w * (1 - w) * g * keep,
        _("the softmax backward is weights * dweights: the sum over the row is not subtracted"):
            lambda g, w, keep: w * g * keep,
        _("the sum of the softmax backward runs over the queries, axis -2: a row is the last axis, the keys"):
            lambda g, w, keep: w * (g * keep - _row_sums(w, g * keep, -2)),
        _("the softmax backward lacks the factor weights before the bracket"):
            lambda g, w, keep: g * keep - _row_sums(w, g * keep),
        _("the sum of the softmax backward lacks the factor weights"):
            lambda g, w, keep: w * (g * keep - (g * keep).sum(-1, keepdims=True)),
        _("the softmax backward subtracts the mean of dweights: it subtracts the sum of weights * dweights"):
            lambda g, w, keep: w * (g * keep - (g * keep).mean(-1, keepdims=True)),
        _("the sum of the softmax backward is a mean: it is not divided by the number of keys"):
            lambda g, w, keep: w * (g * keep - _row_sums(w, g * keep) / TK),
        _("the sum of the softmax backward is added: it is subtracted"):
            lambda g, w, keep: w * (g * keep + _row_sums(w, g * keep)),
        _("the softmax itself is applied to dweights: its backward is needed"):
            lambda g, w, keep: softmax.softmax_forward(g * keep)[0],
        _("ddropped is not multiplied by keep: (7) stands between the product with v and the softmax"):
            lambda g, w, keep: _through_softmax(g, w, 1),
        _("the softmax backward gets the weights after dropout: it gets those before it, which the softmax returned"):
            lambda g, w, keep: _through_softmax(g, w * keep, keep),
        _("keep multiplies after the softmax backward: forward drops after the softmax, so keep comes first in backward"):
            lambda g, w, keep: _through_softmax(g, w, 1) * keep,
        _("keep multiplies before the softmax backward and after it: once, before it"):
            lambda g, w, keep: _through_softmax(g, w, keep) * keep,
        _("keep multiplies twice before the softmax backward"): lambda g, w, keep: _through_softmax(g, w, keep * keep),
        _("dropped multiplies in place of keep: (7) has the mask and scale alone"):
            lambda g, w, keep: _through_softmax(g, w, w * keep),
        _("keep counts as 0 or 1 only: it also has the factor 1 / (1 - dropout), in backward as in forward"):
            lambda g, w, keep: _through_softmax(g, w, keep > 0),
    }
    def with_factors(outer, first, inner, second):
        """weights * (dweights - sum(weights * dweights)), each with keep or without it."""
        def dscores(g, w, keep):
            return w * keep**outer * (g * keep**first - (w * keep**inner * g * keep**second).sum(-1, keepdims=True))
        return dscores

    softmaxes |= {
        _("the softmax backward is {outer} * ({first} - sum({inner} * {second})): it is weights * (dweights - sum(weights * "
          "dweights)), where dweights is ddropped * keep", outer=("weights", "dropped")[factors[0]],
          first=("ddropped", "dweights")[factors[1]], inner=("weights", "dropped")[factors[2]],
          second=("ddropped", "dweights")[factors[3]]): with_factors(*factors)
        for factors in itertools.product((0, 1), repeat=4) if factors not in ((0, 1, 0, 1), (0, 0, 1, 0))
    }
    wrong = {words: {"through_softmax": step} for words, step in softmaxes.items()}
    wrong |= {
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
    return {words: scaled(*options) for words, options in scales.items()} | {
        words: partial(attention_gradients, **options) for words, options in wrong.items()}


def check_attention(names: dict, dropout: bool = True) -> Iterator[tuple[str, list[Row]]]:
    """Without a mask, with a mask, and with dropout: the gradients, and that dropout is applied to the weights."""
    q, k, v = gaussian(B, H, TQ, DK), gaussian(B, H, TK, DK), gaussian(B, H, TK, DV)
    mask = np.random.default_rng(0).random((B, 1, TQ, TK)) < 0.7
    mask[..., 0] = True
    core = partial(
        check_pair, names, "scaled_dot_product_attention", attention.scaled_dot_product_attention_forward, q, k, v,
        variants=ATTENTION_VARIANTS | BY_VALUES, slips=attention_slips(), steps={("q", "k"): attention_steps},
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


def check_split_heads(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Splitting and merging."""
    split, merge, x = function(names, "split_heads"), function(names, "merge_heads"), gaussian(B, TQ, D)
    heads = x.reshape(B, TQ, H, DK).swapaxes(1, 2)
    yield "split_heads", [judge("heads", split(x, H), heads, {
        _("x is reshaped at once, which splits positions, not features: reshape to (B, T, H, d) first, then swap the axes"):
            lambda: x.reshape(B, H, TQ, DK),
        _("the columns are assigned to the heads in turn: head h has the columns h d ... (h + 1) d - 1"):
            lambda: x.reshape(B, TQ, DK, H).transpose(0, 3, 1, 2),
        _("there are d heads of H columns: it is H heads of d columns"): lambda: x.reshape(B, TQ, DK, H).swapaxes(1, 2),
        _("the reshape makes axes (B, H, d, T), as if the tokens were the last axis: make axes (B, T, H, d), then swap two"):
            lambda: x.reshape(B, H, DK, TQ).mT,
        _("features and tokens are swapped before the reshape: first make an axis of heads out of the columns"):
            lambda: x.mT.reshape(B, H, TQ, DK),
        _("head h owns the columns in the reverse order of the heads: head 0 has the first d columns"):
            lambda: heads[:, ::-1],
    })]
    yield _("seven heads"), [judge("heads", split(x, 7), x.reshape(B, TQ, 7, D // 7).swapaxes(1, 2), otherwise=(
        _("right for two heads only: use the argument")
    ))]
    yield "merge_heads", [judge("merged", merge(heads), x, {
        _("the heads are reshaped at once: swap the axes back first, then merge the last two"): lambda: heads.reshape(B, TQ, D),
        _("the columns of the heads take turns: swap the axes of heads and tokens only, then whole heads are side by side"):
            lambda: heads.transpose(0, 2, 3, 1).reshape(B, TQ, D),
        _("the heads are concatenated along the tokens: along the features, the last axis"):
            lambda: np.concatenate([*heads.swapaxes(0, 1)], axis=1),
        _("the heads are added up: put them side by side"): lambda: heads.sum(1),
        _("the heads are averaged: put them side by side"): lambda: heads.mean(1),
        _("heads and features are swapped: swap the axes of heads and tokens"):
            lambda: heads.swapaxes(1, 3).reshape(B, TQ, D),
        _("tokens and features are swapped: swap the axes of heads and tokens"):
            lambda: heads.mT.reshape(B, TQ, D),
    })]


def _split(x, heads):
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _merge(z):
    return z.swapaxes(1, 2).reshape(len(z), z.shape[2], -1)


def attend_heads(
    xq: np.ndarray,
    xk: np.ndarray,
    xv: np.ndarray,
    p: dict,
    heads: int,
    mask: np.ndarray | None = None,
    *,
    core: Callable = attend,
    split: Callable | None = None,
    merge: Callable | None = None,
) -> np.ndarray:
    """Multi-head attention without biases and without mistakes; core, split and merge replace parts by mistakes."""
    split, merge = split or partial(_split, heads=heads), merge or _merge
    q, k, v = (split(x @ p[name]["w"]) for name, x in (("q", xq), ("k", xk), ("v", xv)))
    return merge(core(q, k, v, mask)) @ p["out"]["w"]


def head_variants(self_attention: Callable) -> dict[str, Callable]:
    """{mistake between the projections: function that returns the y of it}, from a correct `self_attention`."""
    variants = {
        _("the heads are split by a reshape alone: reshape to (B, T, H, d) first, then swap the axes"):
            {"split": lambda x: x.reshape(len(x), H, -1, DK)},
        _("the heads are merged by a reshape alone: swap the axes back first"): {"merge": lambda z: z.reshape(len(z), -1, D)},
        _("every weight is 1.0 and every token attends to itself only: are the tokens on the batch axis? Then attention gets "
          "sentences of one token"): {"core": lambda q, k, v, mask: v},
        **{words: {"core": core} for words, core in ATTENTION_VARIANTS.items()},
    }
    return {words: partial(self_attention, **wrong) for words, wrong in variants.items()}


def projections() -> dict:
    """W_q, W_k, W_v and W_out, without biases."""
    return init.multi_head_attention(D, H, np.random.default_rng(0), bias=False, dtype=np.float64)


def heads_gradients(
    dy: np.ndarray,
    xq: np.ndarray,
    xkv: np.ndarray,
    p: dict,
    heads: int,
    mask: np.ndarray | None = None,
    *,
    out: Callable | None = None,
    split: Callable | None = None,
    merge: dict[str, Callable] | None = None,
    through: str = "qkv",
    order: str = "qkv",
    turned: bool = False,
) -> tuple[dict[str, np.ndarray], dict]:
    """({"q": dxq, "k": dxk, "v": dxv}, dp) of `attend_heads`, without mistakes; the options are mistakes.

    out(dy, W_out) gives dz, split replaces the split of dz, merge that of the gradients it names, through are the caches that
    dq, dk and dv go back through, order is how the gradients of the core are unpacked, and turned leaves out the transpose of
    W_q, W_k and W_v.
    """
    merge, sources = merge or {}, {"q": xq, "k": xkv, "v": xkv}
    projected = {name: linear.linear_forward(x, **p[name]) for name, x in sources.items()}
    z, core = attention.scaled_dot_product_attention_forward(*(_split(y, heads) for y, _cache in projected.values()), mask)
    dz, dout, _db = linear.linear_backward(dy, linear.linear_forward(_merge(z), **p["out"])[1])
    dz = out(dy, p["out"]["w"]) if out else dz
    gradients = attention.scaled_dot_product_attention_backward(split(dz) if split else _split(dz, heads), core)
    unpacked = dict(zip(order, gradients, strict=True))
    dx, dp = {}, {"out": {"w": dout}}
    for name, cache in zip("qkv", through, strict=True):
        gradient = merge.get(name, _merge)(unpacked[name])
        dx[name], dw, _db = linear.linear_backward(gradient, projected[cache][1])
        dx[name] = gradient @ p[cache]["w"] if turned else dx[name]
        dp[name] = {"w": dw}
    return dx, dp


def heads_steps(
    dy: np.ndarray, xq: np.ndarray, xkv: np.ndarray, p: dict, heads: int, mask: np.ndarray | None = None,
) -> dict[str, list[np.ndarray]]:
    """What the backward of multi-head attention computes before dx, in its order."""
    q, k, v = (_split(x @ p[name]["w"], heads) for name, x in (("q", xq), ("k", xkv), ("v", xkv)))
    _z, core = attention.scaled_dot_product_attention_forward(q, k, v, mask)
    dz = dy @ p["out"]["w"].T
    gradients = attention.scaled_dot_product_attention_backward(_split(dz, heads), core)
    merged = [_merge(gradient) for gradient in gradients]
    return {
        _("dz"): [dz], _("dz in heads"): [_split(dz, heads)], _("dq, dk and dv in heads"): list(gradients),
        _("dq, dk and dv with their heads side by side"): merged,
        _("dxq, dxk and dxv"): [each @ p[name]["w"].T for name, each in zip("qkv", merged, strict=True)],
    }


def head_slips(gradients: Callable, same_length: bool = True) -> dict[str, Callable]:
    """{mistake between the projections: function that returns the gradients of it}, from correct `gradients`.

    same_length tells whether there are as many queries as keys: some mistakes need it in order to run.
    """
    def alone(x):
        return x.reshape(len(x), H, x.shape[1], -1)

    def together(z):
        return z.reshape(len(z), z.shape[2], -1)

    def in_turn(z):
        return z.transpose(0, 2, 3, 1).reshape(len(z), z.shape[2], -1)

    all_three = dict.fromkeys("qkv", together)
    wrong = {
        _("dq, dk and dv are put together by a reshape alone: swap the axes back first, as merge_heads does"):
            {"merge": all_three},
        _("dz is split into heads by a reshape alone: reshape to (B, T, H, d), then swap the axes, as split_heads does"):
            {"split": alone},
        _("dz is split, and dq, dk, dv are put together, by a reshape alone: split_heads and merge_heads swap axes, too"):
            {"split": alone, "merge": all_three},
        **{_("{gradient} is put together by a reshape alone: swap the axes back first, as merge_heads does",
             gradient="d" + name): {"merge": {name: together}} for name in "qkv"},
        _("dk and dv are put together by a reshape alone: swap the axes back first, as merge_heads does"):
            {"merge": {"k": together, "v": together}},
        _("dz is split with its columns assigned to the heads in turn: head h has the columns h d ... (h + 1) d - 1"):
            {"split": lambda dz: dz.reshape(*dz.shape[:2], DK, H).transpose(0, 3, 1, 2)},
        _("dq, dk and dv are put together with the heads taking turns, column by column: put whole heads side by side"):
            {"merge": dict.fromkeys("qkv", in_turn)},
        _("dz is dy itself: first dy goes back through W_out"): {"out": lambda dy, w: dy},
        _("dz is dy W_out: it is dy W_out^T"): {"out": lambda dy, w: dy @ w},
        _("dq, dk and dv are multiplied with W_q, W_k and W_v: it should be with their transposes"): {"turned": True},
        **{_("dq, dk and dv go back through the caches of {first}, {second} and {third}: each through its own, q, k and v",
             first=through[0], second=through[1], third=through[2]): {"through": "".join(through)}
           for through in itertools.product("qkv", repeat=3)
           if "".join(through) != "qkv" and (same_length or (through[0] == "q" and "q" not in through[1:]))},
    }
    for order in itertools.permutations("qkv"):
        if "".join(order) != "qkv" and (same_length or order[0] == "q"):
            words = _("the core's gradients are unpacked as d{first}, d{second}, d{third}: unpack the gradients of another "
                      "backward in the order that it returns them, dq, dk, dv", first=order[0], second=order[1], third=order[2])
            wrong[words] = {"order": "".join(order)}
    return {words: partial(gradients, **options) for words, options in wrong.items()}


def sums(prefix: str, names: str) -> Iterator[tuple[str, str]]:
    """The wrong sums of some of these gradients, as (text, names): ("dxq + dxk", "qk")."""
    for count in range(1, len(names) + 1):
        for chosen in itertools.combinations_with_replacement(names, count):
            if "".join(chosen) != names:
                yield " + ".join(f"{prefix}{name}" for name in chosen), "".join(chosen)


def check_multi_head_attention(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Self-attention, without a mask and with a causal one."""
    def reference(x, p, heads, mask=None):
        return blocks.multi_head_attention_forward(x, x, p, heads, mask)

    def gradients(dy, x, p, heads, mask=None, *, total=lambda dx: sum(dx.values()), **options):
        dx, dp = heads_gradients(dy, x, x, p, heads, mask, **options)
        return total(dx), dp

    def totals(total):
        return partial(gradients, total=total)

    block = partial(
        check_pair, names, "multi_head_attention", reference, gaussian(B, TQ, D), projections(), heads=H,
        variants=head_variants(lambda x, p, heads, mask=None, **wrong: attend_heads(x, x, x, p, heads, mask, **wrong)),
        steps={("x",): lambda dy, x, p, heads, mask=None: heads_steps(dy, x, x, p, heads, mask)},
        slips=head_slips(gradients) | {
            _("the three gradients of x are averaged: x is used three times, so they are added"):
                totals(lambda dx: sum(dx.values()) / 3),
            _("the three gradients of x are multiplied: they are added"): totals(lambda dx: dx["q"] * dx["k"] * dx["v"]),
            **{_("dx is {wrong}: x went three ways, to q, k and v, so dx is dxq + dxk + dxv", wrong=text):
               totals(lambda dx, chosen=chosen: sum(dx[name] for name in chosen)) for text, chosen in sums("dx", "qkv")},
        },
    )
    yield from block()
    yield from block(title=_("with a causal mask"), mask=causal_mask(TQ))


def check_sentence(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Self-attention of one sentence (T, D): a batch of one."""
    def reference(x, p, heads):
        y, cache = blocks.multi_head_attention_forward(x[None], x[None], p, heads)
        return y[0], cache

    variants = head_variants(lambda x, p, heads, **wrong: attend_heads(x[None], x[None], x[None], p, heads, **wrong)[0])
    yield from check_pair(names, "self_attention", reference, gaussian(TQ, D), projections(), heads=H, variants=variants)


def check_cross_attention(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With a source as long as the target, which some mistakes need in order to run; then with a longer source."""
    def variant(*sources):
        return lambda x, memory, p, heads: attend_heads(*({"x": x, "m": memory}[source] for source in sources), p, heads)

    x, p = gaussian(B, TQ, D), projections()
    swaps = {
        _("queries and keys come from the encoder, values from the decoder: queries come from the decoder, keys and values "
          "from the encoder; otherwise tokens attend to later tokens"): variant(*"mmx"),
        _("queries come from the encoder, keys and values from the decoder: it should be the reverse"): variant(*"mxx"),
        _("keys come from the decoder, like the queries: they come from the encoder"): variant(*"xxm"),
        _("values come from the decoder, like the queries: they come from the encoder"): variant(*"xmx"),
        _("all three come from the decoder, which is self-attention: keys and values come from the encoder"): variant(*"xxx"),
    }
    def gradients(dy, x, memory, p, heads, *, total=lambda q, k, v: (q, k + v), **options):
        dx, dp = heads_gradients(dy, x, memory, p, heads, **options)
        return *total(*dx.values()), dp

    def totals(total):
        return partial(gradients, total=total)

    memory_totals = {
        _("the two gradients of memory are averaged: memory is used twice, so they are added"):
            totals(lambda q, k, v: (q, (k + v) / 2)),
        _("the two gradients of memory are multiplied: they are added"): totals(lambda q, k, v: (q, k * v)),
        **{_("dmemory is {wrong}: memory went two ways, to k and v, so it is dmemory_k + dmemory_v", wrong=text):
           totals(lambda q, k, v, chosen=chosen: (q, sum({"k": k, "v": v}[name] for name in chosen)))
           for text, chosen in sums("dmemory_", "kv")},
    }
    mixed = {
        _("dx is the sum of all three gradients, as in self-attention: it is that of the queries alone"):
            totals(lambda q, k, v: (q + k + v, None)),
        _("dx is that of the queries plus that of the keys: keys are made of memory"): totals(lambda q, k, v: (q + k, None)),
        _("dx is that of the queries plus that of the values: values are made of memory"):
            totals(lambda q, k, v: (q + v, None)),
        _("dmemory is the sum of all three gradients, as in self-attention: it is that of the keys and values"):
            totals(lambda q, k, v: (None, q + k + v)),
        _("dmemory is that of the queries plus that of the keys: it is that of the keys and values"):
            totals(lambda q, k, v: (None, q + k)),
        _("dmemory is that of the queries plus that of the values: it is that of the keys and values"):
            totals(lambda q, k, v: (None, q + v)),
        _("dx is that of the keys: it is that of the queries"): totals(lambda q, k, v: (k, None)),
        _("dx is that of the values: it is that of the queries"): totals(lambda q, k, v: (v, None)),
    }
    for length in (TQ, TK):
        memory, alike = gaussian(B, length, D, seed=1), length == TQ
        yield from check_pair(
            names, "cross_attention", blocks.multi_head_attention_forward, x, memory, p, heads=H,
            title=_("{queries} tokens attend to {keys}", queries=TQ, keys=length), variants=swaps if alike else (),
            steps={("x", "memory"): heads_steps}, slips=head_slips(gradients, alike) | memory_totals | (mixed if alike else {}),
            invariants=[lambda y, memory=memory: assert_causal(lambda x: y(x, memory, p, H), x)],
        )


def check_padding_mask(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """The mask itself, and attention with it."""
    hide, vectors = function(names, "padding_mask"), gaussian(10, DK)
    ids = np.array([[5, 6, 7, 8, 9], [5, 6, 0, 0, 0], [7, 9, 8, 5, 0]])

    def attended(ids, real):
        x, mask = vectors[ids][:, None], np.asarray(hide(np.where(real, ids, 0)))               # (B, 1, T, d)
        try:
            y, _cache = attention.scaled_dot_product_attention_forward(x, x, x, mask)
        except ValueError as error:
            raise ValueError(_("attention refuses a mask of shape {shape}: its last axis, that of the keys, has to have size "
                               "{keys}", shape=mask.shape, keys=ids.shape[1])) from error
        return y[:, 0][real]

    def row(pad):
        mask, expected = hide(frozen(ids), pad), padding_mask(ids, pad)
        full = len(ids), 1, ids.shape[1], ids.shape[1]
        if np.ndim(mask) == 4 and all(size in (1, most) for size, most in zip(np.shape(mask), full, strict=True)):
            mask, expected = np.broadcast_to(mask, full), np.broadcast_to(expected, full)
        return judge("mask", mask, expected, {
            _("the padding is on the axis of the queries: keys are hidden, the last axis, mask[:, None, None, :]"):
                lambda: expected.swapaxes(2, 3),
            _("the mask is inverted: True = may attend"): lambda: ~expected,
            _("padding is id 0 for every `pad`"): lambda: np.broadcast_to(padding_mask(ids), expected.shape),
            _("ids above pad are tokens: all that differ from it are"):
                lambda: np.broadcast_to((ids > pad)[:, None, None], expected.shape),
            _("the queries that are padding are masked, too: it is enough to hide the keys"):
                lambda: expected & expected.swapaxes(2, 3),
        }, invariants=[lambda: assert_pad_invariant(attended, ids, ids != 0)] if pad == 0 else ())

    for pad in (0, 9):
        yield f"padding_mask, pad={pad}", [row(pad)]


def check_masks(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """The padding mask and the causal mask."""
    yield from check_padding_mask(names)
    mask, expected = function(names, "causal_mask")(TQ), causal_mask(TQ)
    mask = np.asarray(mask)[None, None] if np.ndim(mask) == 2 else mask
    pair = ""
    if np.shape(mask) == expected.shape and (wrong := np.argwhere(np.asarray(mask) != expected)).size:
        query, key = map(int, wrong[0, 2:])
        pair = _("query {query} may not attend to key {key}: token t attends to 0..t", query=query, key=key)
        if key > query:
            pair = _("query {query} may attend to key {key}: token t attends to 0..t", query=query, key=key)
    yield "causal_mask", [judge("mask", mask, expected, otherwise=pair, variants={
        _("the future is visible and the past is hidden: a row is a query, and token t attends to the tokens 0..t"):
            partial(expected.swapaxes, 2, 3),
        _("no token attends to itself: token t attends to 0..t, including itself"): lambda: np.tri(TQ, k=-1)[None, None],
        _("a token attends to the next one, too: token t attends to 0..t"): lambda: np.tri(TQ, k=1)[None, None],
        _("each token attends to itself only: token t attends to 0..t"): lambda: np.eye(TQ)[None, None],
        _("each token attends to all: token t attends to 0..t"): lambda: np.ones((1, 1, TQ, TQ)),
        _("positions are compared each with itself: compare a column, np.arange(T)[:, None], with a row"):
            lambda: np.ones((1, 1, TQ)),
        _("the mask is inverted: True = may attend"): lambda: ~expected,
    })]
