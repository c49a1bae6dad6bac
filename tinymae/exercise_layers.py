"""What a learner's op, mask or layer is held to: one check for each subject. The table that names them is in `exercises`.

A check gets the namespace of the learner's file and yields tables, (title, rows), from simple to hard; a row is that of
`gradcheck`. The forward is compared with the package's, since a gradient check cannot see a wrong one, and the backward with
differences of the learner's own forward. A file of the zoo gets the check of the exercise on its subject: nothing here knows
which bug it holds.
"""
import math
from functools import partial

import numpy as np
from scipy.special import ndtr

from tinymae import blocks, init
from tinymae.exercise_judge import check_pair, frozen, function, judge, normal, parts
from tinymae.gradcheck import gradcheck
from tinymae.gradcheck.cases import perturbed
from tinymae.gradcheck.invariants import assert_batch_independent, assert_causal, assert_pad_invariant
from tinymae.masks import causal_mask, padding_mask
from tinymae.ops import activation, attention, embedding, layernorm, linear, positional, softmax

B, H, TQ, TK, D, F, V = 3, 2, 5, 6, 14, 10, 11                  # all different, and their roots too: nothing can hide
DK, DV = D // H, 8


# ---- lessons 1 to 3 --------------------------------------------------------------------------------------------------

def check_numerical_gradient(names):
    """Of the sine of a sum, where each derivative depends on all numbers; h is so large that it shows which one was used."""
    x, w, h = normal(3, 4), normal(3, 4, seed=1), 2e-3
    before, total = x.copy(), (w * x).sum()

    def f(x):
        return float(np.sin((w * x).sum()))

    def slope(up, down, width=2 * h):
        return (np.sin(up) - np.sin(down)) / width

    everywhere = np.ones_like(x)
    ours = function(names, "numerical_gradient")(f, x, h)
    yield "afterwards", [judge("x", x, before, otherwise="x is not what it was: put each number back")]
    yield f"f(x) = sin(sum w x), h = {h}", [judge("gradient", ours, slope(total + w * h, total - w * h), {
        "x moves up only, (f(x + h) - f(x)) / h: that is off by h, the difference over both sides by h^2":
            lambda: slope(total + w * h, total, h),
        "one of the two points is x itself: they are x + h and x - h, 2h apart": lambda: slope(total + w * h, total),
        "the difference is divided by h: it is 2h from x - h to x + h": lambda: slope(total + w * h, total - w * h, h),
        "the difference is not divided by 2h": lambda: slope(total + w * h, total - w * h, 1),
        "all numbers of x move: move x[index] alone": lambda: slope(total + w.sum() * h, total - w.sum() * h) * everywhere,
        "f gets the number x[index] alone: it wants the whole array":
            lambda: slope(w.sum() * (before + h), w.sum() * (before - h)),
        "x + h and x - h are one array, moved up and down again: a = x makes no copy": lambda: 0 * everywhere,
        "another h is used than the one that was given, or more than two points": lambda: w * np.cos(total),
    })]


def check_embedding(names):
    """Ids that repeat, and ids that do not occur."""
    ids = np.array([[3, 1, 3, 0], [0, 3, 1, 5]])
    yield from check_pair(names, "embedding", embedding.embedding_forward, ids, normal(V, D))


def check_positional_encoding(names):
    """An even width and an odd one."""
    encode = function(names, "positional_encoding")

    def waves(positions, exponents, first=np.sin, second=np.cos):
        angles = positions[:, None] / 10000.0**exponents
        return np.where(np.arange(len(exponents)) % 2 == 0, first(angles), second(angles))

    def row(length, width):
        positions, column = np.arange(length), np.arange(width)
        exponents = column // 2 * 2 / width
        return judge("table", encode(length, width), positional.sinusoidal_interleaved(length, width), {
            "the exponent counts columns, 2j / D, as article A's code does: a sine and its cosine share 2i / D":
                lambda: waves(positions, 2 * column / width),
            "the exponent is j / D for column j: a sine and its cosine share 2i / D": lambda: waves(positions, column / width),
            "the exponent is i / D: it should be 2i / D": lambda: waves(positions, exponents / 2),
            "the exponent is 4i / D: it should be 2i / D, where 2i is the even column": lambda: waves(positions, 2 * exponents),
            "sine and cosine have changed places": lambda: waves(positions, exponents, np.cos, np.sin),
            "all columns are sines: the odd ones are cosines": lambda: waves(positions, exponents, np.sin, np.sin),
            "positions count from 1: the first is 0": lambda: waves(positions + 1, exponents),
            "all sines stand before all cosines, the layout in halves: here they alternate":
                lambda: positional.sinusoidal_halves(length, width - width % 2),
        })

    for length, width in ((10, 8), (7, 5)):
        yield f"{length} positions, width {width}", [row(length, width)]


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
            "what stays is not divided by 1 - rate: the mean is then not that of x": lambda: x[stays],
            "what stays is divided by rate: it should be 1 - rate": lambda: x[stays] / rate,
            "what stays is multiplied by 1 - rate: it should be divided": lambda: x[stays] * (1 - rate),
        }),
        judge("draws", not alike, np.array(True), otherwise=alike),
        judge("share of zeros", share, np.array(rate), tolerance=0.1,
              otherwise=f"a share of {share:.2f} is dropped, expected {rate}{known}"),
    ]


def check_dropout(names):
    """What stays and how much of it; that backward uses the same draw; switched off."""
    forward, backward = function(names, "dropout_forward"), function(names, "dropout_backward")
    x, rate, rng = frozen(normal(100, 100)), 0.3, np.random.default_rng(0)

    def draw():
        return np.asarray(parts(forward(x, rate, rng), "y", "cache")[0])

    if (y := draw()).shape != x.shape:
        yield "forward", [judge("y", y, x)]
    yield f"rate {rate}", dropout_rows("y", draw, x, rate)
    x = normal(B, TQ, D)
    yield "gradients", gradcheck(forward, backward, x, rate, rng=0)
    off, _ = parts(forward(x.copy(), rate), "y", "cache")
    yield "switched off", [judge("y", off, x), *gradcheck(forward, backward, x, rate)]


# ---- lessons 4 and 5: attention --------------------------------------------------------------------------------------

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


# ---- lesson 6: masks -------------------------------------------------------------------------------------------------

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


# ---- lessons 7 to 9, and 11: what a layer is made of, and a layer ----------------------------------------------------

def normalise(x, gamma, beta, axis=-1, ddof=0, root=lambda var: np.sqrt(var + 1e-5)):
    """Layer normalisation as it should be; the options are what may be wrong."""
    return gamma * (x - x.mean(axis, keepdims=True)) / root(x.var(axis, ddof=ddof, keepdims=True)) + beta


def check_layernorm(names):
    """Near 0; with one axis less; then in float32 and far from 0, where a variance can get lost."""
    def centred(x):
        return x - x.mean(axis=-1, keepdims=True)

    def slip(equation):
        def dx(dy, x, gamma, beta):
            rstd = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
            return equation(dy * gamma, centred(x) * rstd, rstd)
        return dx

    gamma, beta = normal(D), normal(D, seed=1)
    yield from check_pair(
        names, "layernorm", layernorm.layernorm_forward, normal(B, TQ, D), gamma, beta, variants={
            "the variance is the unbiased one, 1 / (D - 1): layer normalisation has 1 / D": partial(normalise, ddof=1),
            "eps is added to the root: it belongs inside, to the variance":
                partial(normalise, root=lambda var: np.sqrt(var) + 1e-5),
            "eps is missing": partial(normalise, root=np.sqrt),
            "x is divided by the variance: it should be its root": partial(normalise, root=lambda var: var + 1e-5),
            "mean and variance run along axis -2: each position is normalised over its own features, axis -1":
                partial(normalise, axis=-2),
            "mean and variance run over the whole array: each position has its own": partial(normalise, axis=None),
            "gamma and beta are not used": lambda x, gamma, beta: normalise(x, 1, 0),
        }, slips={
            "the last term of (5) is missing, xhat * mean(dxhat * xhat)": slip(lambda dxhat, xhat, rstd: rstd * centred(dxhat)),
            "the factor rstd of (5) is missing": slip(
                lambda dxhat, xhat, rstd: centred(dxhat) - xhat * (dxhat * xhat).mean(-1, keepdims=True)
            ),
            "(5) stops after rstd * dxhat: mean and variance depend on x, too": slip(lambda dxhat, xhat, rstd: rstd * dxhat),
        },
    )
    yield from check_pair(
        names, "layernorm", layernorm.layernorm_forward, normal(TQ, D), gamma, beta, title="x of shape (T, D)"
    )
    x, gamma, beta = 5000 + normal(8, D), np.ones(D), np.zeros(D)
    arrays = [array.astype(np.float32) for array in (x, gamma, beta)]
    y, _ = parts(function(names, "layernorm_forward")(*arrays), "y", "cache")
    expected, _ = layernorm.layernorm_forward(*(array.astype(np.float64) for array in arrays))
    yield "float32, inputs near 5000", [judge("y", y, expected, tolerance=2e-3, otherwise=(
        "right near 0 and wrong far from it: is the variance computed as mean(x^2) - mean(x)^2? Those are two large numbers, "
        "and float32 keeps nothing of their difference; take mean((x - mean(x))^2)"
    ))]


def check_gelu(names):
    """The exact form."""
    def pdf(x):
        return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)

    yield from check_pair(names, "gelu", activation.gelu_forward, normal(B, TQ, F), variants={
        "the tanh form is used, an approximation": lambda x: activation.gelu_forward(x, "tanh")[0],
    }, slips={
        "the slope is cdf(x) alone: x is also inside cdf": lambda dy, x: dy * ndtr(x),
        "the slope is cdf(x) + pdf(x): the second term has the factor x": lambda dy, x: dy * (ndtr(x) + pdf(x)),
        "the slope is x pdf(x) alone: x is also the factor of cdf": lambda dy, x: dy * x * pdf(x),
        "the slope is pdf(x): y is a product, x cdf(x)": lambda dy, x: dy * pdf(x),
    })


def check_feed_forward(names):
    """With ReLU."""
    p = perturbed(init.feed_forward(D, F, np.random.default_rng(0), dtype=np.float64), np.random.default_rng(1))
    def slip(relu):
        return lambda dy, x, p: relu(dy @ p["fc2"]["w"].T) @ p["fc1"]["w"].T

    yield from check_pair(names, "feed_forward", blocks.feed_forward_forward, normal(B, TQ, D), p, slips={
        "the ReLU is not undone: dh is da where h > 0, and 0 elsewhere": slip(lambda da: da),
        "da decides what passes: it is h, where h > 0": slip(lambda da: np.maximum(da, 0)),
    })


def check_linear(names):
    """With a bias."""
    yield from check_pair(names, "linear", linear.linear_forward, normal(B, TQ, D), normal(D, F), normal(F))


def check_softmax(names):
    """Scores as attention has them, and scores that overflow."""
    def softmax_with(s, largest, axis=-1):
        p = np.exp(s - largest)
        return p / p.sum(axis, keepdims=True)

    scores, forward = normal(B, H, TQ, TK), function(names, "softmax_forward")
    yield from check_pair(names, "softmax", softmax.softmax_forward, scores, variants={
        "the maximum is subtracted along axis -2, the wrong axis: only what is the same for a whole row, axis -1, cancels":
            lambda s: softmax_with(s, s.max(-2, keepdims=True)),
        **{f"the {what} along axis {axis}: a row is the last axis, -1": partial(wrong, axis=axis) for axis in (-2, 0)
           for what, wrong in {
               "softmax runs": lambda s, axis: softmax_with(s, 0, axis),
               "sum runs": lambda s, axis: softmax_with(s, s.max(-1, keepdims=True), axis),
           }.items()},
        "the sum is taken over the whole array: each row has its own": lambda s: softmax_with(s, 0, None),
        "the numbers are not divided by the sum of their row": lambda s: np.exp(s - s.max(-1, keepdims=True)),
        "the softmax is applied twice": lambda s: softmax_with(softmax_with(s, 0), 0),
    })
    yield "scores near 1000", [judge(
        "p", parts(forward(scores + 1000), "p", "cache")[0], softmax.softmax_forward(scores + 1000)[0], otherwise=
        "right for small scores, wrong for these: exp(1000) overflows, so subtract the largest score of each row first",
    )]


def check_encoder_layer(names):
    """Pre-norm with ReLU; then with a padding mask."""
    def reference(x, p, heads, mask=None, norm_first=True):
        return blocks.encoder_layer_forward(x, p, heads, mask, norm_first, "relu")

    p = perturbed(init.encoder_layer(D, H, F, np.random.default_rng(0), np.float64), np.random.default_rng(1))
    layer = partial(check_pair, names, "encoder_layer", reference, normal(B, TQ, D), p, heads=H, variants={
        "each norm comes after its sum (post-norm): here it comes before its sublayer (pre-norm)":
            lambda x, p, heads, mask=None: reference(x, p, heads, mask, norm_first=False)[0],
    })
    yield from layer()
    yield from layer(title="with a mask", mask=np.arange(TQ) < np.array([5, 3, 4])[:, None, None, None])
