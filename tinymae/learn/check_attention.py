"""Checks of the exercises about attention and masks."""
import math
from functools import partial

import numpy as np

from tinymae import blocks, init
from tinymae.gradcheck.invariants import assert_batch_independent, assert_causal, assert_pad_invariant
from tinymae.learn.judge import DK, DV, TK, TQ, B, D, H, check_pair, frozen, function, judge, normal, parts
from tinymae.masks import causal_mask, padding_mask
from tinymae.ops import attention, softmax


def dropout_rows(name, draw, x, rate):
    """Whether draw() is x (rows, columns) after dropout, each call with new draws."""
    y, again = draw(), draw()
    stays, share = y != 0, np.mean(y == 0)
    alike = ""
    if np.array_equal(stays, again != 0):
        alike = "two calls with one rng drop the same numbers: draw from this rng"
    elif any((stays.all(axis) | ~stays.any(axis)).any() for axis in (0, 1)):
        alike = "whole rows or columns are dropped: each number has a draw of its own"
    known = ": it is the share to drop, not to keep" if abs(share - (1 - rate)) < 0.1 * rate else ""
    return [
        judge(f"{name} where it is not 0", y[stays], x[stays] / (1 - rate), {
            "what stays is not divided by 1 - dropout: the mean is then not that of x": lambda: x[stays],
            "what stays is divided by dropout: it should be 1 - dropout": lambda: x[stays] / rate,
            "what stays is multiplied by 1 - dropout: it should be divided": lambda: x[stays] * (1 - rate),
        }),
        judge("draws", not alike, np.array(True), otherwise=alike),
        judge("share of zeros", share, np.array(rate), tolerance=0.1,
              otherwise=f"a share of {share:.2f} is dropped, expected {rate}{known}"),
    ]


def attend(q, k, v, mask=None, root=None, by_queries=False, forbidden=None):
    """Attention (B, H, Tq, d_v) as it should be; the options are what may be wrong.

    root stands in the place of sqrt(d_k), by_queries turns the softmax to axis -2, forbidden is the score of a forbidden key.
    """
    scores = q @ k.mT / (root or math.sqrt(q.shape[-1]))
    if mask is not None and forbidden is not None:
        scores, mask = np.where(mask, scores, forbidden), None
    if by_queries:
        return softmax.softmax_forward(scores.mT, None if mask is None else mask.mT)[0].mT @ v
    return softmax.softmax_forward(scores, mask)[0] @ v


ATTENTION_VARIANTS = {
    "the scores are divided by sqrt(d_model), which is sqrt(H d_k): it should be sqrt(d_k), the width of one head":
        lambda q, k, v, mask=None: attend(q, k, v, mask, root=math.sqrt(q.shape[1] * q.shape[3])),
    "the scores are divided by d_k: it should be its root": lambda q, k, v, mask=None: attend(q, k, v, mask, root=q.shape[3]),
    "the scores are not divided by sqrt(d_k)": lambda q, k, v, mask=None: attend(q, k, v, mask, root=1),
    "only item 0 of the batch is used: every query looks at its keys and values":
        lambda q, k, v, mask=None: attend(q, k[:1], v[:1], mask),
    "the softmax runs over the queries, axis -2: a query shares its attention out over the keys, axis -1":
        lambda q, k, v, mask=None: attend(q, k, v, mask, by_queries=True),
    "the mask is read the wrong way round: True = may attend":
        lambda q, k, v, mask=None: attend(q, k, v, None if mask is None else ~mask),
    "forbidden scores become 0: exp(0) is 1, so they have to become minus infinity":
        lambda q, k, v, mask=None: attend(q, k, v, mask, forbidden=0.0),
    "the mask is not used": lambda q, k, v, mask=None: attend(q, k, v),
}


def check_attention(names, dropout=True):
    """Without a mask, with one, and with dropout: the gradients, and that the weights are what is dropped."""
    q, k, v = normal(B, H, TQ, DK), normal(B, H, TK, DK), normal(B, H, TK, DV)
    mask = np.random.default_rng(0).random((B, 1, TQ, TK)) < 0.7
    mask[..., 0] = True
    core = partial(
        check_pair, names, "scaled_dot_product_attention", attention.scaled_dot_product_attention_forward, q, k, v,
        variants=ATTENTION_VARIANTS, invariants=[lambda y: assert_batch_independent(y, q, k, v)],
    )
    yield from core()
    yield from core(title="with a mask", mask=mask, invariants=())
    if dropout:
        yield from core(title="with a mask and dropout", mask=mask, dropout=0.3, rng=0, compare=False)
        forward, rng = function(names, "scaled_dot_product_attention_forward"), np.random.default_rng(0)
        q, k, v = frozen(normal(1, 1, 100, DK)), frozen(normal(1, 1, 80, DK)), frozen(np.eye(80)[None, None])

        def seen(**options):                                    # values of 0 and 1 show the weights
            return np.asarray(parts(forward(q, k, v, **options), "y", "cache")[0])[0, 0]

        yield "what is dropped", dropout_rows("weights", lambda: seen(dropout=0.3, rng=rng), seen(), 0.3)


def check_split_heads(names):
    """Both ways."""
    split, merge, x = function(names, "split_heads"), function(names, "merge_heads"), normal(B, TQ, D)
    heads = x.reshape(B, TQ, H, DK).swapaxes(1, 2)
    yield "split_heads", [judge("heads", split(x, H), heads, {
        "x is reshaped at once, which cuts the sentence and not the width: reshape to (B, T, H, d) first, then swap the axes":
            lambda: x.reshape(B, H, TQ, DK),
        "the columns are dealt out in turn: head h owns the columns h d ... (h + 1) d":
            lambda: x.reshape(B, TQ, DK, H).transpose(0, 3, 1, 2),
    })]
    yield "merge_heads", [judge("merged", merge(heads), x, {
        "the heads are reshaped at once: swap the axes back first, then join the last two": lambda: heads.reshape(B, TQ, D),
    })]


def attend_heads(xq, xk, xv, p, heads, mask=None, core=attend, split=None, merge=None):
    """Multi-head attention without biases as it should be; core, split and merge stand for what may be wrong."""
    split = split or (lambda x: x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2))
    merge = merge or (lambda z: z.swapaxes(1, 2).reshape(len(z), z.shape[2], -1))
    q, k, v = (split(x @ p[name]["w"]) for name, x in (("q", xq), ("k", xk), ("v", xv)))
    return merge(core(q, k, v, mask)) @ p["out"]["w"]


def head_variants(self_attention):
    """{what may be wrong between the projections: function that gives the y of that}, made of a right `self_attention`."""
    variants = {
        "the heads are split by a reshape alone: reshape to (B, T, H, d) first, then swap the axes":
            {"split": lambda x: x.reshape(len(x), H, -1, DK)},
        "the heads are merged by a reshape alone: swap the axes back first": {"merge": lambda z: z.reshape(len(z), -1, D)},
        "every weight is 1.0 and every word looks at itself only: do the words stand on the axis of the batch? Then attention "
        "sees sentences of one word": {"core": lambda q, k, v, mask: v},
        **{words: {"core": core} for words, core in ATTENTION_VARIANTS.items()},
    }
    return {words: partial(self_attention, **wrong) for words, wrong in variants.items()}


def projections():
    """W_q, W_k, W_v and W_out, without biases."""
    return init.multi_head_attention(D, H, np.random.default_rng(0), bias=False, dtype=np.float64)


def check_multi_head_attention(names):
    """Self-attention, without a mask and with a causal one."""
    def reference(x, p, heads, mask=None):
        return blocks.multi_head_attention_forward(x, x, p, heads, mask)

    block = partial(
        check_pair, names, "multi_head_attention", reference, normal(B, TQ, D), projections(), heads=H,
        variants=head_variants(lambda x, p, heads, mask=None, **wrong: attend_heads(x, x, x, p, heads, mask, **wrong)),
    )
    yield from block()
    yield from block(title="with a causal mask", mask=causal_mask(TQ))


def check_sentence(names):
    """Self-attention of one sentence (T, D): a batch of one."""
    def reference(x, p, heads):
        y, cache = blocks.multi_head_attention_forward(x[None], x[None], p, heads)
        return y[0], cache

    variants = head_variants(lambda x, p, heads, **wrong: attend_heads(x[None], x[None], x[None], p, heads, **wrong)[0])
    yield from check_pair(names, "self_attention", reference, normal(TQ, D), projections(), heads=H, variants=variants)


def check_cross_attention(names):
    """Of a source that is as long as the target, which a mistake may need; then of another length."""
    def variant(*sources):
        return lambda x, memory, p, heads: attend_heads(*({"x": x, "m": memory}[source] for source in sources), p, heads)

    x, p = normal(B, TQ, D), projections()
    swaps = {
        "queries and keys come from the encoder, values from the decoder: queries come from the decoder, keys and values from "
        "the encoder, or else words see later words": variant(*"mmx"),
        "queries come from the encoder, keys and values from the decoder: it is the other way round": variant(*"mxx"),
        "keys come from the decoder, like the queries: they come from the encoder": variant(*"xxm"),
        "values come from the decoder, like the queries: they come from the encoder": variant(*"xmx"),
        "all three come from the decoder, which is self-attention: keys and values come from the encoder": variant(*"xxx"),
    }
    for length in (TQ, TK):
        memory = normal(B, length, D, seed=1)
        yield from check_pair(
            names, "cross_attention", blocks.multi_head_attention_forward, x, memory, p, heads=H,
            title=f"{TQ} words look at {length}", variants=swaps if length == TQ else (),
            invariants=[lambda y, memory=memory: assert_causal(lambda x: y(x, memory, p, H), x)],
        )


def check_padding_mask(names):
    """As numbers, and in use."""
    hide, words = function(names, "padding_mask"), normal(10, DK)
    ids = np.array([[5, 6, 7, 8, 9], [5, 6, 0, 0, 0], [7, 9, 8, 5, 0]])

    def looks(ids, real):
        x = words[ids][:, None]                                 # (B, 1, T, d)
        y, _ = attention.scaled_dot_product_attention_forward(x, x, x, np.asarray(hide(np.where(real, ids, 0))))
        return y[:, 0][real]

    def row(pad):
        mask, expected = hide(frozen(ids), pad), padding_mask(ids, pad)
        full = len(ids), 1, ids.shape[1], ids.shape[1]
        if np.ndim(mask) == 4 and all(size in (1, most) for size, most in zip(np.shape(mask), full, strict=True)):
            mask, expected = np.broadcast_to(mask, full), np.broadcast_to(expected, full)
        return judge("mask", mask, expected, {
            "the padding stands on the axis of the queries: it is keys that are hidden, the last axis, mask[:, None, None, :]":
                lambda: expected.swapaxes(2, 3),
            "the mask is the wrong way round: True = may attend": lambda: ~expected,
            "padding is id 0, whatever `pad` is": lambda: np.broadcast_to(padding_mask(ids), expected.shape),
        }, [lambda: assert_pad_invariant(looks, ids, ids != 0)] if pad == 0 else ())

    for pad in (0, 9):
        yield f"padding_mask, pad={pad}", [row(pad)]


def check_masks(names):
    """Padding and causal."""
    yield from check_padding_mask(names)
    mask, expected = function(names, "causal_mask")(TQ), causal_mask(TQ)
    yield "causal_mask", [judge("mask", np.asarray(mask)[None, None] if np.ndim(mask) == 2 else mask, expected, {
        "the future is seen and the past is hidden: a row is a query, and word t looks at the words 0..t":
            partial(expected.swapaxes, 2, 3),
        "no word looks at itself: word t looks at 0..t, itself included": lambda: np.tri(TQ, k=-1)[None, None],
        "a word looks at the next one, too: word t looks at 0..t": lambda: np.tri(TQ, k=1)[None, None],
        "the mask is the wrong way round: True = may attend": lambda: ~expected,
    })]
