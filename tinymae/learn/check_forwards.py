"""Checks of the exercises in which the forward of a central layer is written; check_layers explains what a check is.

The numbers are compared with those of the package. What a layer is made of may be written anew or taken from the package, but
the package's own function for the whole layer may not, see `exercises`.
"""
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tinymae import blocks, init
from tinymae.gradcheck import Row
from tinymae.gradcheck.cases import perturbed
from tinymae.gradcheck.invariants import assert_batch_independent, assert_causal
from tinymae.learn.check_attention import ATTENTION_VARIANTS, BY_VALUES, attend, attend_heads, head_variants, projections
from tinymae.learn.check_layers import (
    FAR_FROM_ZERO,
    HEIGHTS,
    LAYERNORM_VARIANTS,
    SOFTMAX_VARIANTS,
    TOO_LARGE,
    normalise,
    softmax_with,
)
from tinymae.learn.judge import DK, DV, TK, TQ, B, D, F, H, check_forward, gaussian
from tinymae.masks import causal_mask
from tinymae.ops import attention, layernorm, linear, softmax


def first(forward: Callable) -> Callable:
    """A forward of the package as a function that returns y alone."""
    return lambda *args, **options: forward(*args, **options)[0]


def check_linear_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """On a batch of sentences, and on one position."""
    x, w, b = gaussian(B, TQ, D), gaussian(D, F), gaussian(F)
    variants = {
        "b is not added": lambda x, w, b: x @ w,
        "b is subtracted": lambda x, w, b: x @ w - b,
        "b is added once for each input: it is added once to each output": lambda x, w, b: x @ w + b * len(w),
        "b is multiplied: it is added": lambda x, w, b: x @ w * b,
        "b is added to w: it is added to the product": lambda x, w, b: x @ (w + b),
        "the sum of b is added: each output has its own number": lambda x, w, b: x @ w + b.sum(),
        "negative outputs become 0: a linear map has no activation": lambda x, w, b: np.maximum(x @ w + b, 0),
        "only the last input counts: add up the products of all inputs (+=, not =)": lambda x, w, b: x[..., -1:] * w[-1] + b,
    }
    for title, part in (("sentences (B, T, I)", x), ("one position (I,)", x[0, 0])):
        yield from check_forward(names, "linear", first(linear.linear_forward), part, w, b, title=title, variants=variants)


def check_softmax_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With scores of the shape of attention, and with scores that overflow."""
    scores, right = gaussian(B, H, TQ, TK), first(softmax.softmax_forward)

    def over(total):
        """exp, with the largest of a row subtracted, divided by something else than the sum of a row."""
        def divided(s):
            e = np.exp(s - s.max(-1, keepdims=True))
            return e / total(e)
        return divided

    yield from check_forward(names, "softmax", right, scores, variants=SOFTMAX_VARIANTS | {
        "exp is missing, after the largest of the row was subtracted":
            lambda s: (s - s.max(-1, keepdims=True)) / (s - s.max(-1, keepdims=True)).sum(-1, keepdims=True),
        "the sum is taken along axis 1: a row is the last axis, -1": over(lambda e: e.sum(1, keepdims=True)),
        "the softmax is taken along axis 1: a row is the last axis, -1": lambda s: softmax_with(s, 0, 1),
        "the sum is taken over a whole item of the batch: each row has its own":
            over(lambda e: e.sum((1, 2, 3), keepdims=True)),
        "the numbers are divided by the largest of their row: it should be their sum": over(lambda e: e.max(-1, keepdims=True)),
        "the numbers are divided by the root of the sum of their squares: it should be their sum":
            over(lambda e: np.sqrt((e * e).sum(-1, keepdims=True))),
        "exp is missing": lambda s: s / s.sum(-1, keepdims=True),
        "2 is raised to the scores: it should be e": lambda s: 2**s / (2**s).sum(-1, keepdims=True),
        "each score is taken alone, by a sigmoid: the scores of a row share their sum": lambda s: 1 / (1 + np.exp(-s)),
        "it is the logarithm of the softmax": lambda s: np.log(softmax_with(s, 0)),
    })
    yield from check_forward(
        names, "softmax", right, scores + HEIGHTS, title="scores from -1000 to 1000", otherwise=TOO_LARGE
    )


def check_layernorm_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With x near 0; for one position; then in float32 and far from 0, where rounding can destroy a variance."""
    gamma, beta, right = gaussian(D), gaussian(D, seed=1), first(layernorm.layernorm_forward)
    core = partial(check_forward, names, "layernorm", right)

    def centred(x):
        return x - x.mean(-1, keepdims=True)

    def rstd(x, eps=1e-5):
        return 1 / np.sqrt(x.var(-1, keepdims=True) + eps)

    yield from core(gaussian(B, TQ, D), gamma, beta, variants=LAYERNORM_VARIANTS | {
        "beta is not added": lambda x, gamma, beta: gamma * centred(x) * rstd(x),
        "gamma is not used": lambda x, gamma, beta: centred(x) * rstd(x) + beta,
        "gamma and beta are swapped": lambda x, gamma, beta: beta * centred(x) * rstd(x) + gamma,
        "beta is subtracted": lambda x, gamma, beta: gamma * centred(x) * rstd(x) - beta,
        "beta is added before gamma multiplies": lambda x, gamma, beta: gamma * (centred(x) * rstd(x) + beta),
        "the mean is not subtracted from x": lambda x, gamma, beta: gamma * x * rstd(x) + beta,
        "no mean is subtracted, neither from x nor in the variance: that is RMSNorm":
            lambda x, gamma, beta: gamma * x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) + beta,
        "the sum is subtracted in place of the mean":
            lambda x, gamma, beta: gamma * (x - x.sum(-1, keepdims=True)) * rstd(x) + beta,
        "the variance is the mean of x^2: x minus its mean is squared":
            lambda x, gamma, beta: gamma * centred(x) / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) + beta,
        "x is divided by the mean distance to the mean: it should be the square root of the variance":
            lambda x, gamma, beta: gamma * centred(x) / (np.abs(centred(x)).mean(-1, keepdims=True) + 1e-5) + beta,
        "x is multiplied by the square root: it should be divided": lambda x, gamma, beta: gamma * centred(x) / rstd(x) + beta,
        "eps is subtracted from the variance": lambda x, gamma, beta: gamma * centred(x) * rstd(x, -1e-5) + beta,
        "eps is 1e-3 in place of the argument": lambda x, gamma, beta: gamma * centred(x) * rstd(x, 1e-3) + beta,
        "eps is added to the quotient: brackets are missing around variance + eps":
            lambda x, gamma, beta: gamma * (centred(x) * rstd(x, 0.0) + 1e-5) + beta,
        **{f"mean and variance are taken along axis {axis}: each position is normalised over its own features, axis -1":
           partial(normalise, axis=axis) for axis in (0, (0, 1))},
        "the mean alone is taken along axis 1: each position has its own":
            lambda x, gamma, beta: gamma * (x - x.mean(1, keepdims=True)) * rstd(x) + beta,
    })
    yield from core(gaussian(D, seed=2), gamma, beta, title="one position (D,)")
    yield from core(
        gaussian(B, D), gamma, beta, title="eps = 0.5", eps=0.5, otherwise="right for an eps of 1e-5 only: use the argument"
    )
    x = (5000 + gaussian(8, D)).astype(np.float32)

    def exact(x, gamma, beta):
        return right(*(array.astype(np.float64) for array in (x, gamma, beta)))

    yield from check_forward(
        names, "layernorm", exact, x, np.ones(D, np.float32), np.zeros(D, np.float32), title="float32, inputs near 5000",
        tolerance=2e-3, otherwise=FAR_FROM_ZERO,
    )


def check_attention_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Without a mask, and with one."""
    q, k, v = gaussian(B, H, TQ, DK), gaussian(B, H, TK, DK), gaussian(B, H, TK, DV)
    mask = np.random.default_rng(0).random((B, 1, TQ, TK)) < 0.7
    mask[..., 0], mask[..., 1] = True, False                    # each query has a key that it may attend to, and one that not

    def weights(q, k, mask=None, power=-0.5):
        return softmax.softmax_forward(q @ k.mT * q.shape[-1] ** power, mask)[0]

    core = partial(
        check_forward, names, "attention", first(attention.scaled_dot_product_attention_forward), q, k, v,
        variants=ATTENTION_VARIANTS | BY_VALUES | {
            "the mask is applied after the softmax, so the weights of a row no longer sum to 1: mask the scores":
                lambda q, k, v, mask=None: weights(q, k) * (1 if mask is None else mask) @ v,
            "the mask is added to the scores: True adds 1; forbidden scores must become minus infinity":
                lambda q, k, v, mask=None: softmax.softmax_forward(
                    q @ k.mT / math.sqrt(DK) + (0 if mask is None else mask))[0] @ v,
            "forbidden scores become -1: they must become minus infinity":
                lambda q, k, v, mask=None: attend(q, k, v, mask, forbidden=-1.0),
            "the scores are multiplied by sqrt(d_k): they are divided by it":
                lambda q, k, v, mask=None: weights(q, k, mask, 0.5) @ v,
            "y is divided by sqrt(d_k): the scores are, before the softmax":
                lambda q, k, v, mask=None: weights(q, k, mask, 0.0) @ v / math.sqrt(DK),
            "the scores are divided by the square root of the number of queries: it should be that of d_k":
                lambda q, k, v, mask=None: attend(q, k, v, mask, scale=math.sqrt(TQ)),
            "the scores are multiplied with v, and the softmax is not used":
                lambda q, k, v, mask=None: q @ k.mT / math.sqrt(DK) @ v,
            "k is reshaped in place of a transpose: swap its last two axes":
                lambda q, k, v, mask=None: softmax.softmax_forward(
                    q @ k.reshape(*k.shape[:2], DK, TK) / math.sqrt(DK), mask)[0] @ v,
        },
    )
    yield from core(invariants=[lambda y: assert_batch_independent(y, q, k, v)])
    yield from core(title="with a mask", mask=mask)


def check_multi_head_attention_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Self-attention, without a mask and with a causal one."""
    def right(x, p, heads, mask=None):
        return blocks.multi_head_attention_forward(x, x, p, heads, mask)[0]

    def changed(parameters=lambda p: p, **wrong):
        return lambda x, p, heads, mask=None: attend_heads(x, x, x, parameters(p), heads, mask, **wrong)

    x, p, mask = gaussian(B, TQ, D), projections(), causal_mask(TQ)
    variants = head_variants(lambda x, p, heads, mask=None, **wrong: attend_heads(x, x, x, p, heads, mask, **wrong)) | {
        "the projection W_out is missing": changed(lambda p: p | {"out": {"w": np.eye(D)}}),
        "k and v are swapped": changed(lambda p: p | {"k": p["v"], "v": p["k"]}),
        "the queries are used as keys": changed(lambda p: p | {"k": p["q"]}),
        "the keys are used as values": changed(lambda p: p | {"v": p["k"]}),
        "the matrices are transposed: here they are (in, out), PyTorch has (out, in)":
            changed(lambda p: {name: {"w": part["w"].T} for name, part in p.items()}),
        "W_out is transposed": changed(lambda p: p | {"out": {"w": p["out"]["w"].T}}),
        "W_q, W_k and W_v are not used": changed(lambda p: {name: {"w": np.eye(D)} for name in "qkv"} | {"out": p["out"]}),
        "x is added: the residual path belongs to the layer": lambda x, p, heads, mask=None: x + attend_heads(
            x, x, x, p, heads, mask),
        "there is one head of width D: cut q, k and v into heads": lambda x, p, heads, mask=None: attend_heads(
            x, x, x, p, 1, mask),
        "the heads come in the reverse order":
            changed(merge=lambda z: z[:, ::-1].swapaxes(1, 2).reshape(len(z), z.shape[2], -1)),
        "the heads are averaged, and the mean stands in the place of each: put them side by side":
            changed(merge=lambda z: np.tile(z.mean(1), z.shape[1])),
        "no axes are swapped, so that the heads of one token attend to each other":
            lambda x, p, heads, mask=None: attend_heads(
                x, x, x, p, heads, split=lambda y: y.reshape(*y.shape[:2], H, -1),
                merge=lambda z: z.reshape(len(z), z.shape[1], -1),
            ),
        "head 0 stands in the place of all": changed(merge=lambda z: np.tile(z[:, 0], z.shape[1])),
        "the columns are assigned to the heads in turn: head h has the columns h d ... (h + 1) d - 1":
            changed(split=lambda y: y.reshape(*y.shape[:2], -1, H).transpose(0, 3, 1, 2)),
    }
    core = partial(check_forward, names, "multi_head_attention", right, x, p, heads=H, variants=variants)
    yield from core()
    yield from core(title="seven heads", heads=7, variants={}, otherwise="right for two heads only: use the argument")
    yield from core(
        title="with a causal mask", mask=mask, invariants=[lambda y: assert_causal(lambda x: y(x, p, heads=H, mask=mask), x)]
    )


def check_encoder_layer_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Post-norm with ReLU, as in the paper; then with a padding mask."""
    def right(x, p, heads, mask=None, norm_first=False):
        return blocks.encoder_layer_forward(x, p, heads, mask, norm_first=norm_first, activation="relu")[0]

    def layer(first=lambda x, a: x + a, second=lambda x, x1, f: x1 + f, fed=lambda x, a, x1: x1, norms=(True, True)):
        """A post-norm layer with mistakes: what is added to what, what the feed forward gets, which norms there are."""
        def y(x, p, heads, mask=None):
            a, _ = blocks.multi_head_attention_forward(x, x, p["attn"], heads, mask)
            x1 = first(x, a)
            x1 = layernorm.layernorm_forward(x1, **p["ln1"])[0] if norms[0] else x1
            f, _ = blocks.feed_forward_forward(fed(x, a, x1), p["ffn"])
            y = second(x, x1, f)
            return layernorm.layernorm_forward(y, **p["ln2"])[0] if norms[1] else y
        return y

    def norm_first(x, p, heads, mask=None):
        """x + norm(f(x)), which is neither pre-norm nor post-norm."""
        a, _ = blocks.multi_head_attention_forward(x, x, p["attn"], heads, mask)
        x = x + layernorm.layernorm_forward(a, **p["ln1"])[0]
        f, _ = blocks.feed_forward_forward(x, p["ffn"])
        return x + layernorm.layernorm_forward(f, **p["ln2"])[0]

    p = perturbed(init.encoder_layer(D, H, F, np.random.default_rng(0), dtype=np.float64), np.random.default_rng(1))
    core = partial(check_forward, names, "encoder_layer", right, gaussian(B, TQ, D), p, heads=H, variants={
        "each norm comes before its sublayer (pre-norm): here it comes after the sum (post-norm)":
            partial(right, norm_first=True),
        "x is not added to the result of attention": layer(first=lambda x, a: a),
        "the input of the feed forward is not added to its result": layer(second=lambda x, x1, f: f),
        "neither sublayer has its residual path": layer(first=lambda x, a: a, second=lambda x, x1, f: f),
        "the layer norms are missing": layer(norms=(False, False)),
        "the first layer norm is missing": layer(norms=(False, True)),
        "the second layer norm is missing": layer(norms=(True, False)),
        "the second sum adds x, which came in: it adds x1, the output of (1)": layer(second=lambda x, x1, f: x + f),
        "the feed forward gets x, which came in: it gets x1, the output of (1)": layer(fed=lambda x, a, x1: x),
        "the feed forward gets the result of attention: it gets x1, the output of (1)": layer(fed=lambda x, a, x1: a),
        "the result of attention is added twice": layer(first=lambda x, a: x + 2 * a),
        "x and the result of attention are multiplied: they are added": layer(first=lambda x, a: x * a),
        "each norm is taken of the sublayer's result alone, before the sum: it is taken of the sum": norm_first,
        "the mask is not used": lambda x, p, heads, mask=None: layer()(x, p, heads),
        "both norms use ln1: the second has its own gain and offset, ln2":
            lambda x, p, heads, mask=None: layer()(x, p | {"ln2": p["ln1"]}, heads, mask),
        "the two layer norms are swapped":
            lambda x, p, heads, mask=None: layer()(x, p | {"ln1": p["ln2"], "ln2": p["ln1"]}, heads, mask),
    })
    yield from core()
    yield from core(title="with a mask", mask=np.arange(TQ) < np.array([5, 3, 4, 5])[:, None, None, None])
