"""Checks of the exercises about ops and layers. The tables in `exercises` list which file gets which check.

A check gets the namespace of the learner's file and yields tables, (title, rows), from simple to hard; a row is a Row of the
gradient checker. The forward is compared with that of the package, because a gradient check cannot detect a wrong forward;
the backward is compared with finite differences of the learner's own forward. A file of the zoo gets the check of the exercise
on the same subject: the checks do not know which bug it contains.
"""
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from scipy.special import ndtr

from tinymae import blocks, init
from tinymae.gradcheck import Row, gradcheck
from tinymae.gradcheck.cases import perturbed
from tinymae.learn.check_attention import dropout_rows
from tinymae.learn.judge import TK, TQ, B, D, F, H, V, check_pair, frozen, function, gaussian, judge, parts
from tinymae.ops import activation, embedding, layernorm, linear, positional, softmax


def check_numerical_gradient(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With the sine of a sum: each derivative depends on all numbers, and h is so large that a different h shows."""
    x, w, h = gaussian(3, 4), gaussian(3, 4, seed=1), 2e-3
    before, total = x.copy(), (w * x).sum()

    def f(x):
        return float(np.sin((w * x).sum()))

    def slope(up, down, width=2 * h):
        return (np.sin(up) - np.sin(down)) / width

    everywhere = np.ones_like(x)
    ours = function(names, "numerical_gradient")(f, x, h)
    yield "afterwards", [judge("x", x, before, otherwise="x has changed: put each number back")]
    yield f"f(x) = sin(sum w x), h = {h}", [judge("gradient", ours, slope(total + w * h, total - w * h), {
        "x moves up only, (f(x + h) - f(x)) / h: that is off by h, the difference over both sides by h^2":
            lambda: slope(total + w * h, total, h),
        "one of the two points is x itself: they are x + h and x - h, 2h apart": lambda: slope(total + w * h, total),
        "the difference is divided by h: it is 2h from x - h to x + h": lambda: slope(total + w * h, total - w * h, h),
        "the difference is not divided by 2h": lambda: slope(total + w * h, total - w * h, 1),
        "all numbers of x move: move x[index] alone": lambda: slope(total + w.sum() * h, total - w.sum() * h) * everywhere,
        "f gets the number x[index] alone: it expects the whole array":
            lambda: slope(w.sum() * (before + h), w.sum() * (before - h)),
        "x + h and x - h are one array, moved up and down again: a = x makes no copy": lambda: 0 * everywhere,
        "an h different from the argument is used, or more than two points": lambda: w * np.cos(total),
    })]


def check_embedding(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With ids that repeat, and ids that do not occur."""
    ids = np.array([[3, 1, 3, 0], [0, 3, 1, 5]])
    yield from check_pair(names, "embedding", embedding.embedding_forward, ids, gaussian(V, D))


def check_positional_encoding(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With an even and an odd number of columns."""
    encode = function(names, "positional_encoding")

    def waves(positions, exponents, first=np.sin, second=np.cos):
        positions = positions if positions.ndim == 2 else positions[:, None]
        angles = positions / 10000.0**exponents
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
            "sine and cosine are swapped": lambda: waves(positions, exponents, np.cos, np.sin),
            "all columns are sines: the odd ones are cosines": lambda: waves(positions, exponents, np.sin, np.sin),
            "positions count from 1: the first is 0": lambda: waves(positions + 1, exponents),
            "the base is 1000: it should be 10000": lambda: waves(positions, 0.75 * exponents),
            "the position is multiplied by 10000^(2i / D): it is divided by it": lambda: waves(positions, -exponents),
            "the division is one of whole numbers (//): it should be /":
                lambda: waves(positions[:, None] // 10000.0**exponents, 0 * exponents),
            "the exponent divides by D - 1: it should be D": lambda: waves(positions, column // 2 * 2 / (width - 1)),
            "all sines come before all cosines, the layout in halves: here they alternate":
                lambda: positional.sinusoidal_halves(length, width - width % 2),
        })

    for length, width in ((10, 8), (7, 5)):
        yield f"{length} positions, {width} columns", [row(length, width)]


def check_dropout(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Which numbers stay and how many; that backward uses the same ones; dropout switched off."""
    forward, backward = function(names, "dropout_forward"), function(names, "dropout_backward")
    x, dropout, rng = frozen(gaussian(100, 100)), 0.3, np.random.default_rng(0)

    def draw():
        return np.asarray(parts(forward(x, dropout, rng), "y", "cache")[0])

    if (y := draw()).shape != x.shape:
        yield "forward", [judge("y", y, x)]
    yield f"dropout {dropout}", dropout_rows("y", draw, x, dropout)
    yield "dropout 0.6", dropout_rows("y", lambda: np.asarray(parts(forward(x, 0.6, rng), "y", "cache")[0]), x, 0.6)
    x = gaussian(B, TQ, D)
    yield "gradients", gradcheck(forward, backward, x, dropout, rng=0)
    off, _ = parts(forward(x.copy(), dropout), "y", "cache")
    yield "switched off", [judge("y", off, x), *gradcheck(forward, backward, x, dropout)]


def normalise(
    x: np.ndarray,
    gamma: np.ndarray | float,
    beta: np.ndarray | float,
    *,
    axis: int | None = -1,
    ddof: int = 0,
    deviation: Callable[[np.ndarray], np.ndarray] = lambda var: np.sqrt(var + 1e-5),
) -> np.ndarray:
    """Layer normalisation without mistakes; the options are mistakes."""
    return gamma * (x - x.mean(axis, keepdims=True)) / deviation(x.var(axis, ddof=ddof, keepdims=True)) + beta


FAR_FROM_ZERO = (
    "right near 0 and wrong far from it: is the variance computed as mean(x^2) - mean(x)^2? Those are two large numbers, and "
    "in float32 nothing is left of their difference; take mean((x - mean(x))^2)"
)
LAYERNORM_VARIANTS = {
    "the variance is the unbiased one, 1 / (D - 1): layer normalisation has 1 / D": partial(normalise, ddof=1),
    "eps is added to the square root: it belongs inside, to the variance":
        partial(normalise, deviation=lambda var: np.sqrt(var) + 1e-5),
    "the variance is the unbiased one, 1 / (D - 1), and eps is added to its square root, as in the Annotated "
    "Transformer: layer normalisation has 1 / D, and eps inside":
        partial(normalise, ddof=1, deviation=lambda var: np.sqrt(var) + 1e-5),
    "eps is missing": partial(normalise, deviation=np.sqrt),
    "x is divided by the variance: it should be its square root": partial(normalise, deviation=lambda var: var + 1e-5),
    "mean and variance are taken along axis -2: each position is normalised over its own features, axis -1":
        partial(normalise, axis=-2),
    "mean and variance are taken over the whole array: each position has its own": partial(normalise, axis=None),
    "gamma and beta are not used": lambda x, gamma, beta: normalise(x, 1, 0),
}


def check_layernorm(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With x near 0; with one axis less; then in float32 and far from 0, where rounding can destroy a variance."""
    def centred(x):
        return x - x.mean(axis=-1, keepdims=True)

    def slip(equation, *, ddof=0, inside=1e-5, outside=0.0):
        def dx(dy, x, gamma, beta):
            root = np.sqrt(x.var(axis=-1, ddof=ddof, keepdims=True) + inside)
            rstd = 1 / (root + outside)
            return equation(dy * gamma, centred(x) * rstd, rstd, (D - ddof) * rstd * root)
        return dx

    def projected(dxhat, xhat, count=D):
        return centred(dxhat) - xhat * (dxhat * xhat).sum(-1, keepdims=True) / count

    unbiased, added = {"ddof": 1}, {"inside": 0.0, "outside": 1e-5}
    statistics = {
        "the unbiased variance, 1 / (D - 1)": unbiased,
        "eps added to the square root": added,
        "the unbiased variance, 1 / (D - 1), and eps added to its square root": unbiased | added,
        "no eps": {"inside": 0.0},
    }
    places = {
        "rstd and xhat in (5) have": lambda dxhat, xhat, rstd, count: rstd * projected(dxhat, xhat),
        "rstd in (5) has": lambda dxhat, xhat, rstd, count: rstd * projected(dxhat, normalise(xhat / rstd, 1, 0)),
        "(5) is the derivative for": lambda dxhat, xhat, rstd, count: rstd * projected(dxhat, xhat, count),
    }
    gamma, beta = gaussian(D), gaussian(D, seed=1)
    yield from check_pair(
        names, "layernorm", layernorm.layernorm_forward, gaussian(B, TQ, D), gamma, beta, variants=LAYERNORM_VARIANTS,
        slips={
            "the last term of (5) is missing, xhat * mean(dxhat * xhat)": slip(
                lambda dxhat, xhat, rstd, count: rstd * centred(dxhat)
            ),
            "rstd divides: in (5) it multiplies": slip(lambda dxhat, xhat, rstd, count: projected(dxhat, xhat) / rstd),
            "rstd is multiplied twice in (5)": slip(lambda dxhat, xhat, rstd, count: projected(dxhat, xhat) * rstd * rstd),
            "the factor xhat before the last mean of (5) is missing": slip(
                lambda dxhat, xhat, rstd, count: rstd * (centred(dxhat) - (dxhat * xhat).mean(-1, keepdims=True))
            ),
            "the last mean of (5) is one of dxhat alone: it is one of dxhat * xhat": slip(
                lambda dxhat, xhat, rstd, count: rstd * (centred(dxhat) - xhat * dxhat.mean(-1, keepdims=True))
            ),
            "the first mean of (5) is missing": slip(
                lambda dxhat, xhat, rstd, count: rstd * (dxhat - xhat * (dxhat * xhat).mean(-1, keepdims=True))
            ),
            "both means of (5) are sums": slip(lambda dxhat, xhat, rstd, count: rstd * (
                dxhat - dxhat.sum(-1, keepdims=True) - xhat * (dxhat * xhat).sum(-1, keepdims=True)
            )),
            "the factor rstd of (5) is missing": slip(lambda dxhat, xhat, rstd, count: projected(dxhat, xhat)),
            "(5) stops after rstd * dxhat: mean and variance depend on x, too": slip(
                lambda dxhat, xhat, rstd, count: rstd * dxhat
            ),
            "the last mean of (5) divides by D - 1: it is a mean over D features": slip(
                lambda dxhat, xhat, rstd, count: rstd * projected(dxhat, xhat, D - 1)
            ),
            **{f"{place} {words}: it should be 1 / D, and eps inside the square root": slip(equation, **wrong)
               for words, wrong in statistics.items() for place, equation in places.items()},
        },
    )
    yield from check_pair(
        names, "layernorm", layernorm.layernorm_forward, gaussian(TQ, D), gamma, beta, title="x of shape (T, D)"
    )
    x, gamma, beta = 5000 + gaussian(8, D), np.ones(D), np.zeros(D)
    arrays = [array.astype(np.float32) for array in (x, gamma, beta)]
    y, _ = parts(function(names, "layernorm_forward")(*arrays), "y", "cache")
    expected, _ = layernorm.layernorm_forward(*(array.astype(np.float64) for array in arrays))
    yield "float32, inputs near 5000", [judge("y", y, expected, tolerance=2e-3, otherwise=FAR_FROM_ZERO)]


def check_gelu(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """In its exact form."""
    def pdf(x):
        return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)

    yield from check_pair(names, "gelu", activation.gelu_forward, gaussian(B, TQ, F), variants={
        "the tanh form, an approximation, is used": lambda x: activation.gelu_forward(x, "tanh")[0],
    }, slips={
        "the derivative is cdf(x) alone: x is also inside cdf": lambda dy, x: dy * ndtr(x),
        "the derivative is cdf(x) + pdf(x): the second term has the factor x": lambda dy, x: dy * (ndtr(x) + pdf(x)),
        "the derivative is x pdf(x) alone: x is also the factor of cdf": lambda dy, x: dy * x * pdf(x),
        "the derivative is pdf(x): y is a product, x cdf(x)": lambda dy, x: dy * pdf(x),
    })


def check_feed_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With ReLU."""
    p = perturbed(init.feed_forward(D, F, np.random.default_rng(0), dtype=np.float64), np.random.default_rng(1))

    def slip(relu):
        return lambda dy, x, p: relu(dy @ p["fc2"]["w"].T) @ p["fc1"]["w"].T

    def gate(passes):
        return lambda dy, x, p: (dy @ p["fc2"]["w"].T * passes(x @ p["fc1"]["w"] + p["fc1"]["b"])) @ p["fc1"]["w"].T

    yield from check_pair(names, "feed_forward", blocks.feed_forward_forward, gaussian(B, TQ, D), p, slips={
        "the ReLU is missing in backward: dh is da where h > 0, and 0 elsewhere": slip(lambda da: da),
        "the sign of da decides what passes: it should be the sign of h": slip(lambda da: np.maximum(da, 0)),
        "da passes where h < 0: it should be where h > 0": gate(lambda h: h < 0),
        "da is multiplied by a: it passes unchanged where h > 0": gate(lambda h: np.maximum(h, 0)),
        "da is multiplied by h: it passes unchanged where h > 0": gate(lambda h: h),
    })


def check_linear(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With a bias."""
    yield from check_pair(names, "linear", linear.linear_forward, gaussian(B, TQ, D), gaussian(D, F), gaussian(F))


def softmax_with(s: np.ndarray, largest: np.ndarray | float, axis: int | None = -1) -> np.ndarray:
    """Softmax without mistakes; another `largest`, or another axis of the sum, is one."""
    p = np.exp(s - largest)
    return p / p.sum(axis, keepdims=True)


# Rows of different height, and in the last two a score far above the others: only the maximum of each row makes exp safe.
HEIGHTS = np.array([1000.0, -1000.0, 0.0, 3.0, 1.0])[:, None] + 900.0 * (np.arange(TK) == 2) * (np.arange(TQ) > 2)[:, None]
TOO_LARGE = (
    "right for small scores, wrong for these: exp(1000) overflows, so subtract the largest score of each row, from that row"
)
SOFTMAX_VARIANTS = {
    "the maximum is subtracted along axis -2, the wrong axis: it cancels only if it is the same for a whole row, axis -1":
        lambda s: softmax_with(s, s.max(-2, keepdims=True)),
    **{f"the {what} along axis {axis}: a row is the last axis, -1": partial(wrong, axis=axis) for axis in (-2, 0)
       for what, wrong in {
           "softmax is taken": lambda s, axis: softmax_with(s, 0, axis),
           "sum is taken": lambda s, axis: softmax_with(s, s.max(-1, keepdims=True), axis),
       }.items()},
    "the sum is taken over the whole array: each row has its own": lambda s: softmax_with(s, 0, None),
    "the numbers are not divided by the sum of their row": lambda s: np.exp(s - s.max(-1, keepdims=True)),
    "the softmax is applied twice": lambda s: softmax_with(softmax_with(s, 0), 0),
}


def check_softmax(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With scores of the shape of attention, and with scores that overflow."""
    scores, forward = gaussian(B, H, TQ, TK), function(names, "softmax_forward")
    def slip(equation):
        return lambda dp, s: equation(dp, softmax_with(s, 0))

    yield from check_pair(names, "softmax", softmax.softmax_forward, scores, variants=SOFTMAX_VARIANTS, slips={
        "the factor p_k before the bracket of (4) is missing":
            slip(lambda dp, p: dp - (dp * p).sum(-1, keepdims=True)),
        "the sum of (4) lacks the factor p_j: it is the mean of dp by the weights p":
            slip(lambda dp, p: p * (dp - dp.sum(-1, keepdims=True))),
        "the sum of (4) is a mean over T: it is weighted by p, and not divided by T":
            slip(lambda dp, p: p * (dp - (dp * p).mean(-1, keepdims=True))),
        "the sum of (4) is added: it is subtracted": slip(lambda dp, p: p * (dp + (dp * p).sum(-1, keepdims=True))),
        "p is multiplied once more, outside of the bracket of (4) and inside":
            slip(lambda dp, p: p * (dp * p - (dp * p).sum(-1, keepdims=True))),
        "the sum of (4) runs along axis -2: a row is the last axis":
            slip(lambda dp, p: p * (dp - (dp * p).sum(-2, keepdims=True))),
    })
    large = scores + HEIGHTS
    yield "scores from -1000 to 1000", [judge(
        "p", parts(forward(large), "p", "cache")[0], softmax.softmax_forward(large)[0], otherwise=TOO_LARGE
    )]


def check_encoder_layer(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Pre-norm with ReLU; then with a padding mask."""
    def reference(x, p, heads, mask=None, norm_first=True):
        return blocks.encoder_layer_forward(x, p, heads, mask, norm_first=norm_first, activation="relu")

    def slip(first="ln1", second="ln2", residual=(True, True), attention=lambda dq, dkv: dq + dkv):
        """The dx of a backward with mistakes: whose caches of the norms are used, and what is added."""
        def dx(dy, x, p, heads, mask=None):
            h, ln1 = layernorm.layernorm_forward(x, **p["ln1"])
            a, attn = blocks.multi_head_attention_forward(h, h, p["attn"], heads, mask)
            h, ln2 = layernorm.layernorm_forward(x + a, **p["ln2"])
            _, ffn = blocks.feed_forward_forward(h, p["ffn"])
            caches = {"ln1": ln1, "ln2": ln2}
            dh = layernorm.layernorm_backward(blocks.feed_forward_backward(dy, ffn)[0], caches[second])[0]
            dx1 = dy * residual[1] + dh
            dq, dkv, _ = blocks.multi_head_attention_backward(dx1, attn)
            return dx1 * residual[0] + layernorm.layernorm_backward(attention(dq, dkv), caches[first])[0]
        return dx

    p = perturbed(init.encoder_layer(D, H, F, np.random.default_rng(0), dtype=np.float64), np.random.default_rng(1))
    layer = partial(check_pair, names, "encoder_layer", reference, gaussian(B, TQ, D), p, heads=H, variants={
        "each norm comes after its sum (post-norm): here it comes before its sublayer (pre-norm)":
            lambda x, p, heads, mask=None: reference(x, p, heads, mask, norm_first=False)[0],
    }, slips={
        "the caches of the two layer norms are swapped: ln2 belongs to the feed forward, ln1 to attention": slip("ln2", "ln1"),
        "the cache ln1 is used for both layer norms": slip("ln1", "ln1"),
        "the cache ln2 is used for both layer norms": slip("ln2", "ln2"),
        "neither residual path brings its gradient": slip(residual=(False, False)),
        "dxq and dxkv are averaged: h is used twice, so they are added": slip(attention=lambda dq, dkv: (dq + dkv) / 2),
    })
    yield from layer()
    yield from layer(title="with a mask", mask=np.arange(TQ) < np.array([5, 3, 4, 5])[:, None, None, None])
