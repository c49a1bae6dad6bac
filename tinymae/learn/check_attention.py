"""Checks of the exercises about attention and masks; check_layers explains what a check is."""
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tinymae import blocks, init
from tinymae.gradcheck import Row
from tinymae.gradcheck.invariants import assert_batch_independent, assert_causal, assert_pad_invariant
from tinymae.learn.judge import DK, DV, TK, TQ, B, D, H, check_pair, frozen, function, gaussian, judge, parts
from tinymae.masks import causal_mask, padding_mask
from tinymae.ops import attention, softmax


def dropout_rows(name: str, draw: Callable[[], np.ndarray], x: np.ndarray, dropout: float) -> list[Row]:
    """Whether draw() is x (rows, columns) after dropout, each call with new random numbers."""
    y, again = draw(), draw()
    stays, fraction = y != 0, np.mean(y == 0)
    alike = ""
    if np.array_equal(stays, again != 0):
        alike = "two calls with one rng drop the same numbers: draw the random numbers from this rng"
    elif any((stays.all(axis) | ~stays.any(axis)).any() for axis in (0, 1)):
        alike = "whole rows or columns are dropped: each number needs its own random number"
    known = ": it is the fraction to drop, not to keep" if abs(fraction - (1 - dropout)) < 0.1 * dropout else ""
    return [
        judge(f"{name} where it is not 0", y[stays], x[stays] / (1 - dropout), {
            "what stays is not divided by 1 - dropout: the mean is then smaller than that of x": lambda: x[stays],
            "what stays is divided by dropout: it should be 1 - dropout": lambda: x[stays] / dropout,
            "what stays is multiplied by 1 - dropout: it should be divided": lambda: x[stays] * (1 - dropout),
        }),
        judge("draws", not alike, np.array(True), otherwise=alike),
        judge("fraction of zeros", fraction, np.array(dropout), tolerance=0.1,
              otherwise=f"a fraction of {fraction:.2f} is dropped, expected {dropout}{known}"),
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
    "the scores are divided by sqrt(d_model), which is sqrt(H d_k): it should be sqrt(d_k), with the dimension of one head":
        lambda q, k, v, mask=None: attend(q, k, v, mask, scale=math.sqrt(q.shape[1] * q.shape[3])),
    "the scores are divided by d_k: it should be its square root":
        lambda q, k, v, mask=None: attend(q, k, v, mask, scale=q.shape[3]),
    "the scores are divided by the square root of the number of keys: it should be that of the dimension d_k":
        lambda q, k, v, mask=None: attend(q, k, v, mask, scale=math.sqrt(k.shape[2])),
    "the scores are not divided by sqrt(d_k)": lambda q, k, v, mask=None: attend(q, k, v, mask, scale=1),
    "only item 0 of the batch is used: every query attends to its keys and values":
        lambda q, k, v, mask=None: attend(q, k[:1], v[:1], mask),
    "the softmax runs over the queries, axis -2: the weights of a query sum to 1 over the keys, axis -1":
        lambda q, k, v, mask=None: attend(q, k, v, mask, by_queries=True),
    "the mask is inverted: True = may attend":
        lambda q, k, v, mask=None: attend(q, k, v, None if mask is None else ~mask),
    "forbidden scores become 0: exp(0) is 1, so they must become minus infinity":
        lambda q, k, v, mask=None: attend(q, k, v, mask, forbidden=0.0),
    "the mask is not used": lambda q, k, v, mask=None: attend(q, k, v),
}


BY_VALUES = {                                                   # where the values have another dimension
    "the scores are divided by the square root of d_v, the dimension of the values: it should be that of the keys, d_k":
        lambda q, k, v, mask=None: attend(q, k, v, mask, scale=math.sqrt(v.shape[3])),
}


def check_attention(names: dict, dropout: bool = True) -> Iterator[tuple[str, list[Row]]]:
    """Without a mask, with a mask, and with dropout: the gradients, and that dropout is applied to the weights."""
    q, k, v = gaussian(B, H, TQ, DK), gaussian(B, H, TK, DK), gaussian(B, H, TK, DV)
    mask = np.random.default_rng(0).random((B, 1, TQ, TK)) < 0.7
    mask[..., 0] = True
    core = partial(
        check_pair, names, "scaled_dot_product_attention", attention.scaled_dot_product_attention_forward, q, k, v,
        variants=ATTENTION_VARIANTS | BY_VALUES, invariants=[lambda y: assert_batch_independent(y, q, k, v)],
    )
    yield from core()
    yield from core(title="with a mask", mask=mask, invariants=())
    if dropout:
        yield from core(title="with a mask and dropout", mask=mask, dropout=0.3, rng=0, compare=False)
        forward, rng = function(names, "scaled_dot_product_attention_forward"), np.random.default_rng(0)
        q, k, v = frozen(gaussian(1, 1, 100, DK)), frozen(gaussian(1, 1, 80, DK)), frozen(np.eye(80)[None, None])

        def seen(**options):                                    # with the identity as values, y is the weights
            return np.asarray(parts(forward(q, k, v, **options), "y", "cache")[0])[0, 0]

        yield "what is dropped", dropout_rows("weights", lambda: seen(dropout=0.3, rng=rng), seen(), 0.3)


def check_split_heads(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Splitting and merging."""
    split, merge, x = function(names, "split_heads"), function(names, "merge_heads"), gaussian(B, TQ, D)
    heads = x.reshape(B, TQ, H, DK).swapaxes(1, 2)
    yield "split_heads", [judge("heads", split(x, H), heads, {
        "x is reshaped at once, which splits positions, not features: reshape to (B, T, H, d) first, then swap the axes":
            lambda: x.reshape(B, H, TQ, DK),
        "the columns are assigned to the heads in turn: head h has the columns h d ... (h + 1) d - 1":
            lambda: x.reshape(B, TQ, DK, H).transpose(0, 3, 1, 2),
    })]
    yield "seven heads", [judge("heads", split(x, 7), x.reshape(B, TQ, 7, D // 7).swapaxes(1, 2), otherwise=(
        "right for two heads only: use the argument"
    ))]
    yield "merge_heads", [judge("merged", merge(heads), x, {
        "the heads are reshaped at once: swap the axes back first, then merge the last two": lambda: heads.reshape(B, TQ, D),
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
        "the heads are split by a reshape alone: reshape to (B, T, H, d) first, then swap the axes":
            {"split": lambda x: x.reshape(len(x), H, -1, DK)},
        "the heads are merged by a reshape alone: swap the axes back first": {"merge": lambda z: z.reshape(len(z), -1, D)},
        "every weight is 1.0 and every token attends to itself only: are the tokens on the batch axis? Then attention gets "
        "sentences of one token": {"core": lambda q, k, v, mask: v},
        **{words: {"core": core} for words, core in ATTENTION_VARIANTS.items()},
    }
    return {words: partial(self_attention, **wrong) for words, wrong in variants.items()}


def projections() -> dict:
    """W_q, W_k, W_v and W_out, without biases."""
    return init.multi_head_attention(D, H, np.random.default_rng(0), bias=False, dtype=np.float64)


def check_multi_head_attention(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Self-attention, without a mask and with a causal one."""
    def reference(x, p, heads, mask=None):
        return blocks.multi_head_attention_forward(x, x, p, heads, mask)

    def slip(split=_split, merge=_merge, total=sum):
        """The dx of a backward with mistakes between the projections."""
        def dx(dy, x, p, heads, mask=None):
            q, k, v = (x @ p[name]["w"] for name in "qkv")
            _, core = attention.scaled_dot_product_attention_forward(*(_split(each, heads) for each in (q, k, v)), mask)
            dz = split(dy @ p["out"]["w"].T, heads)
            gradients = attention.scaled_dot_product_attention_backward(dz, core)
            return total([merge(each) @ p[name]["w"].T for name, each in zip("qkv", gradients, strict=True)])
        return dx

    def alone(x, heads):
        return x.reshape(len(x), heads, x.shape[1], -1)

    def together(z):
        return z.reshape(len(z), z.shape[2], -1)

    block = partial(
        check_pair, names, "multi_head_attention", reference, gaussian(B, TQ, D), projections(), heads=H,
        variants=head_variants(lambda x, p, heads, mask=None, **wrong: attend_heads(x, x, x, p, heads, mask, **wrong)), slips={
            "dq, dk and dv are put together by a reshape alone: swap the axes back first, as merge_heads does":
                slip(merge=together),
            "dz is split into heads by a reshape alone: reshape to (B, T, H, d), then swap the axes, as split_heads does":
                slip(split=alone),
            "dz is split, and dq, dk, dv are put together, by a reshape alone: split_heads and merge_heads swap axes, too":
                slip(alone, together),
            "the three gradients of x are averaged: x is used three times, so they are added":
                slip(total=lambda three: sum(three) / 3),
        },
    )
    yield from block()
    yield from block(title="with a causal mask", mask=causal_mask(TQ))


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
        "queries and keys come from the encoder, values from the decoder: queries come from the decoder, keys and values from "
        "the encoder; otherwise tokens attend to later tokens": variant(*"mmx"),
        "queries come from the encoder, keys and values from the decoder: it should be the reverse": variant(*"mxx"),
        "keys come from the decoder, like the queries: they come from the encoder": variant(*"xxm"),
        "values come from the decoder, like the queries: they come from the encoder": variant(*"xmx"),
        "all three come from the decoder, which is self-attention: keys and values come from the encoder": variant(*"xxx"),
    }
    for length in (TQ, TK):
        memory = gaussian(B, length, D, seed=1)
        yield from check_pair(
            names, "cross_attention", blocks.multi_head_attention_forward, x, memory, p, heads=H,
            title=f"{TQ} tokens attend to {length}", variants=swaps if length == TQ else (),
            invariants=[lambda y, memory=memory: assert_causal(lambda x: y(x, memory, p, H), x)],
        )


def check_padding_mask(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """The mask itself, and attention with it."""
    hide, vectors = function(names, "padding_mask"), gaussian(10, DK)
    ids = np.array([[5, 6, 7, 8, 9], [5, 6, 0, 0, 0], [7, 9, 8, 5, 0]])

    def attended(ids, real):
        x = vectors[ids][:, None]                               # (B, 1, T, d)
        y, _ = attention.scaled_dot_product_attention_forward(x, x, x, np.asarray(hide(np.where(real, ids, 0))))
        return y[:, 0][real]

    def row(pad):
        mask, expected = hide(frozen(ids), pad), padding_mask(ids, pad)
        full = len(ids), 1, ids.shape[1], ids.shape[1]
        if np.ndim(mask) == 4 and all(size in (1, most) for size, most in zip(np.shape(mask), full, strict=True)):
            mask, expected = np.broadcast_to(mask, full), np.broadcast_to(expected, full)
        return judge("mask", mask, expected, {
            "the padding is on the axis of the queries: keys are hidden, the last axis, mask[:, None, None, :]":
                lambda: expected.swapaxes(2, 3),
            "the mask is inverted: True = may attend": lambda: ~expected,
            "padding is id 0 for every `pad`": lambda: np.broadcast_to(padding_mask(ids), expected.shape),
            "ids above pad are tokens: all that differ from it are":
                lambda: np.broadcast_to((ids > pad)[:, None, None], expected.shape),
            "the queries that are padding are masked, too: it is enough to hide the keys":
                lambda: expected & expected.swapaxes(2, 3),
        }, invariants=[lambda: assert_pad_invariant(attended, ids, ids != 0)] if pad == 0 else ())

    for pad in (0, 9):
        yield f"padding_mask, pad={pad}", [row(pad)]


def check_masks(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """The padding mask and the causal mask."""
    yield from check_padding_mask(names)
    mask, expected = function(names, "causal_mask")(TQ), causal_mask(TQ)
    yield "causal_mask", [judge("mask", np.asarray(mask)[None, None] if np.ndim(mask) == 2 else mask, expected, {
        "the future is visible and the past is hidden: a row is a query, and token t attends to the tokens 0..t":
            partial(expected.swapaxes, 2, 3),
        "no token attends to itself: token t attends to 0..t, including itself": lambda: np.tri(TQ, k=-1)[None, None],
        "a token attends to the next one, too: token t attends to 0..t": lambda: np.tri(TQ, k=1)[None, None],
        "the mask is inverted: True = may attend": lambda: ~expected,
    })]
