"""Checks of the exercises in which the forward of a central layer is written; check_layers explains what a check is.

The numbers are compared with those of the package. What a layer is made of may be written anew or taken from the package, but
the package's own function for the whole layer may not, see `exercises`.
"""
import itertools
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
    TOO_LARGE,
    normalise,
    softmax_variants,
    softmax_with,
)
from tinymae.learn.judge import DK, DV, TK, TQ, B, D, F, H, check_forward, gaussian, hint
from tinymae.masks import causal_mask
from tinymae.messages import listed
from tinymae.messages import message as _
from tinymae.ops import attention, layernorm, linear, softmax


def first(forward: Callable) -> Callable:
    """A forward of the package as a function that returns y alone."""
    return lambda *args, **options: forward(*args, **options)[0]


def check_linear_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """On a batch of sentences, and on one position."""
    x, w, b = gaussian(B, TQ, D), gaussian(D, F), gaussian(F)
    variants = {
        _("b is not added"): lambda x, w, b: x @ w,
        _("b is subtracted"): lambda x, w, b: x @ w - b,
        _("b is added once for each input: it is added once to each output"): lambda x, w, b: x @ w + b * len(w),
        _("b is multiplied: it is added"): lambda x, w, b: x @ w * b,
        _("b is added to w: it is added to the product"): lambda x, w, b: x @ (w + b),
        _("the sum of b is added: each output has its own number"): lambda x, w, b: x @ w + b.sum(),
        _("negative outputs become 0: a linear map has no activation"): lambda x, w, b: np.maximum(x @ w + b, 0),
        _("only the last input counts: add up the products of all inputs (+=, not =)"): lambda x, w, b: x[..., -1:] * w[-1] + b,
        _("the inputs are summed over the positions: each position has its own output"):
            lambda x, w, b: (x if x.ndim == 1 else x.sum(-2)) @ w + b,
        _("the inputs are averaged over the positions: each position has its own output"):
            lambda x, w, b: (x if x.ndim == 1 else x.mean(-2)) @ w + b,
    }
    layout = _("The product is x w: x comes first, and w is (I, O) as it is, not transposed as in PyTorch.")
    letters = _("x may have any number of axes before the last, even none: x @ w takes them all.")
    for title, part in (("sentences (B, T, I)", x), (_("one position (I,)"), x[0, 0])):
        with hint(ValueError, layout, "matmul"), hint(ValueError, letters, "einstein"):
            yield from check_forward(names, "linear", first(linear.linear_forward), part, w, b, title=title,
                                     variants=variants, steps=lambda x, w, b: {_("the product x w"): [x @ w]})


def check_softmax_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With scores of the shape of attention, and with scores that overflow."""
    scores, right = gaussian(B, H, TQ, TK), first(softmax.softmax_forward)

    def over(total):
        """exp, with the largest of a row subtracted, divided by something else than the sum of a row."""
        def divided(s):
            e = np.exp(s - s.max(-1, keepdims=True))
            return e / total(e)
        return divided

    def steps(s):
        shifted = s - s.max(-1, keepdims=True)
        return {_("the largest score of each row"): [s.max(-1)], _("the scores minus the largest of their row"): [shifted],
                _("exp of these"): [np.exp(shifted)], _("the sum of each row"): [np.exp(shifted).sum(-1)]}

    yield from check_forward(names, "softmax", right, scores, steps=steps, variants=softmax_variants() | {
        _("exp is missing, after the largest of the row was subtracted"):
            lambda s: (s - s.max(-1, keepdims=True)) / (s - s.max(-1, keepdims=True)).sum(-1, keepdims=True),
        _("the sum is taken along axis 1: a row is the last axis, -1"): over(lambda e: e.sum(1, keepdims=True)),
        _("the softmax is taken along axis 1: a row is the last axis, -1"): lambda s: softmax_with(s, 0, 1),
        _("the sum is taken over the whole array, after the largest of each row was subtracted: each row has its own sum"):
            over(lambda e: e.sum()),
        _("the sum is taken over a whole item of the batch: each row has its own"):
            over(lambda e: e.sum((1, 2, 3), keepdims=True)),
        _("the numbers are divided by the largest of their row: it should be their sum"):
            over(lambda e: e.max(-1, keepdims=True)),
        _("the numbers are divided by the root of the sum of their squares: it should be their sum"):
            over(lambda e: np.sqrt((e * e).sum(-1, keepdims=True))),
        _("exp is missing, after the smallest of the row was subtracted"):
            lambda s: (s - s.min(-1, keepdims=True)) / (s - s.min(-1, keepdims=True)).sum(-1, keepdims=True),
        _("exp is missing"): lambda s: s / s.sum(-1, keepdims=True),
        _("2 is raised to the scores: it should be e"): lambda s: 2**s / (2**s).sum(-1, keepdims=True),
        _("each score is taken alone, by a sigmoid: the scores of a row share their sum"): lambda s: 1 / (1 + np.exp(-s)),
        _("it is the logarithm of the softmax"): lambda s: np.log(softmax_with(s, 0)),
        _("the largest score of the row is subtracted in the numerator only: in the sum, too, or it does not cancel"):
            lambda s: np.exp(s - s.max(-1, keepdims=True)) / np.exp(s).sum(-1, keepdims=True),
        _("the largest score of the row is subtracted in the sum only: in the numerator, too, or it does not cancel"):
            lambda s: np.exp(s) / np.exp(s - s.max(-1, keepdims=True)).sum(-1, keepdims=True),
        _("the scores are divided by the largest of their row: it is subtracted"):
            lambda s: softmax_with(s / s.max(-1, keepdims=True), 0),
        _("the scores have the wrong sign: the largest score gets the largest probability"): lambda s: softmax_with(-s, 0),
        _("the sum is taken before exp: add up the numbers exp(s), not the scores"):
            lambda s: np.exp(s) / np.exp(s.sum(-1, keepdims=True)),
        _("the largest score is subtracted after exp, not before it"):
            lambda s: (np.exp(s) - s.max(-1, keepdims=True)) / (np.exp(s) - s.max(-1, keepdims=True)).sum(-1, keepdims=True),
        _("the scores are divided by the square root of the length of a row: a softmax scales nothing"):
            lambda s: softmax_with(s / math.sqrt(TK), 0),
        **{_("the maximum is taken along axis {first} and the sum along axis {second}: a row is the last axis, -1, for both",
             first=first, second=second):
           lambda s, first=first, second=second: softmax_with(s, s.max(first, keepdims=True), second)
           for first in (0, 1, -2, -1) for second in (0, 1, -2, -1, None)
           if first != second and (first, second) not in ((-1, 0), (-1, 1), (-1, -2), (-2, -1), (-1, None))},
        **{_("{eps:g} is added to the sum: leave it out, the largest score of a row adds 1, so the sum is never 0",
             eps=eps): over(lambda e, eps=eps: e.sum(-1, keepdims=True) + eps) for eps in (1e-8, 1e-7, 1e-6, 1e-5)},
    })
    yield from check_forward(
        names, "softmax", right, scores + HEIGHTS, title=_("scores from -1000 to 1000"), otherwise=TOO_LARGE, variants={
            _("the largest score of the whole array is subtracted: in rows far below it all exp are 0, and 0 / 0 is nan; "
              "subtract from each row its own largest score"): lambda s: softmax_with(s, s.max()),
        },
    )


def check_layernorm_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With x near 0; for one position; then in float32 and far from 0, where rounding can destroy a variance."""
    gamma, beta, right = gaussian(D), gaussian(D, seed=1), first(layernorm.layernorm_forward)
    core = partial(check_forward, names, "layernorm", right)

    def centred(x):
        return x - x.mean(-1, keepdims=True)

    def rstd(x, eps=1e-5):
        return 1 / np.sqrt(x.var(-1, keepdims=True) + eps)

    def apart(x, gamma, beta, first, second, squares=False):
        """Mean and variance along axes of their own."""
        moved = x - x.mean(first, keepdims=True)
        var = (moved * moved).mean(second, keepdims=True) if squares else x.var(second, keepdims=True)
        return gamma * moved / np.sqrt(var + 1e-5) + beta

    def steps(x, gamma, beta):
        return {_("the mean of each position"): [x.mean(-1)], _("x minus its mean"): [centred(x)],
                _("the variance"): [centred(x), x.var(-1)],
                _("the square root of variance + eps"): [centred(x), 1 / rstd(x)], _("xhat of (1)"): [centred(x) * rstd(x)],
                _("gamma * xhat"): [gamma * centred(x) * rstd(x)]}

    yield from core(gaussian(B, TQ, D), gamma, beta, steps=steps, variants=LAYERNORM_VARIANTS | {
        _("beta is not added"): lambda x, gamma, beta: gamma * centred(x) * rstd(x),
        _("gamma is not used"): lambda x, gamma, beta: centred(x) * rstd(x) + beta,
        _("gamma and beta are swapped"): lambda x, gamma, beta: beta * centred(x) * rstd(x) + gamma,
        _("beta is subtracted"): lambda x, gamma, beta: gamma * centred(x) * rstd(x) - beta,
        _("beta is added before gamma multiplies"): lambda x, gamma, beta: gamma * (centred(x) * rstd(x) + beta),
        _("the mean is not subtracted from x"): lambda x, gamma, beta: gamma * x * rstd(x) + beta,
        _("no mean is subtracted, neither from x nor in the variance: that is RMSNorm"):
            lambda x, gamma, beta: gamma * x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) + beta,
        _("the sum is subtracted in place of the mean"):
            lambda x, gamma, beta: gamma * (x - x.sum(-1, keepdims=True)) * rstd(x) + beta,
        _("the variance is the mean of x^2: x minus its mean is squared"):
            lambda x, gamma, beta: gamma * centred(x) / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) + beta,
        _("x is divided by the mean distance to the mean: it should be the square root of the variance"):
            lambda x, gamma, beta: gamma * centred(x) / (np.abs(centred(x)).mean(-1, keepdims=True) + 1e-5) + beta,
        _("x is multiplied by the square root: it should be divided"):
            lambda x, gamma, beta: gamma * centred(x) / rstd(x) + beta,
        _("eps is subtracted from the variance"): lambda x, gamma, beta: gamma * centred(x) * rstd(x, -1e-5) + beta,
        **{_("eps is {eps:g} in place of the argument", eps=eps):
           lambda x, gamma, beta, eps=eps: gamma * centred(x) * rstd(x, eps) + beta for eps in (1e-3, 1e-6, 1e-8, 1e-12)},
        _("eps is added to the quotient: brackets are missing around variance + eps"):
            lambda x, gamma, beta: gamma * (centred(x) * rstd(x, 0.0) + 1e-5) + beta,
        **{_("mean and variance are taken along axis {axis}: each position is normalised over its own features, axis -1",
             axis=axis):
           partial(normalise, axis=axis) for axis in (0, (0, 1), (1, 2))},
        **{_("the mean is taken along axis {first} and the variance along axis {second}: both along axis -1", first=first,
             second=second): partial(apart, first=first, second=second)
           for first in (0, 1, -1, None) for second in (0, 1, -1, None) if first != second},
        **{_("the variance is the mean along axis {second} of the squares of x minus its mean along axis {first}: both along "
             "axis -1", first=first, second=second): partial(apart, first=first, second=second, squares=True)
           for first in (0, 1, -1, None) for second in (0, 1, -1, None) if first != second},
        _("eps is squared: it is added as it is"): lambda x, gamma, beta: gamma * centred(x) * rstd(x, 1e-10) + beta,
        _("the square root of eps is added to that of the variance: eps is added to the variance, inside one root"):
            lambda x, gamma, beta: gamma * centred(x) / (x.std(-1, keepdims=True) + math.sqrt(1e-5)) + beta,
        _("gamma is added to 1: here gamma itself multiplies"):
            lambda x, gamma, beta: (1 + gamma) * centred(x) * rstd(x) + beta,
        _("only the mean is divided by the square root: brackets are missing around x - mean"):
            lambda x, gamma, beta: gamma * (x - x.mean(-1, keepdims=True) * rstd(x)) + beta,
        _("the variance is a sum: it is a mean, with 1 / D"):
            lambda x, gamma, beta: gamma * centred(x) / np.sqrt((centred(x) ** 2).sum(-1, keepdims=True) + 1e-5) + beta,
        _("x - mean is divided by its length, the square root of a sum: it is that of a mean, with 1 / D"):
            lambda x, gamma, beta: gamma * centred(x) / np.linalg.norm(centred(x), axis=-1, keepdims=True) + beta,
        _("x is not divided by anything: after the mean is subtracted, divide by the square root of the variance"):
            lambda x, gamma, beta: gamma * centred(x) + beta,
        _("x is divided by gamma: gamma multiplies"): lambda x, gamma, beta: centred(x) * rstd(x) / gamma + beta,
        _("gamma is added: it multiplies"): lambda x, gamma, beta: centred(x) * rstd(x) + gamma + beta,
        _("x is added: the residual path belongs to the layer"): lambda x, gamma, beta: x + gamma * centred(x) * rstd(x) + beta,
        _("the mean of x is added where it is subtracted"):
            lambda x, gamma, beta: gamma * (x + x.mean(-1, keepdims=True)) * rstd(x) + beta,
        _("the mean alone is taken along axis 1: each position has its own"):
            lambda x, gamma, beta: gamma * (x - x.mean(1, keepdims=True)) * rstd(x) + beta,
    })
    yield from core(gaussian(D, seed=2), gamma, beta, title=_("one position (D,)"))
    yield from core(
        gaussian(B, D), gamma, beta, title="eps = 0.5", eps=0.5,
        otherwise=_("right for an eps of 1e-5 only: use the argument"),
    )
    x = (5000 + gaussian(8, D)).astype(np.float32)

    def exact(x, gamma, beta):
        return right(*(array.astype(np.float64) for array in (x, gamma, beta)))

    yield from check_forward(
        names, "layernorm", exact, x, np.ones(D, np.float32), np.zeros(D, np.float32), title=_("float32, inputs near 5000"),
        tolerance=2e-3, otherwise=FAR_FROM_ZERO,
    )


def check_attention_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Without a mask, and with one."""
    q, k, v = gaussian(B, H, TQ, DK), gaussian(B, H, TK, DK), gaussian(B, H, TK, DV)
    mask = np.random.default_rng(0).random((B, 1, TQ, TK)) < 0.7
    mask[..., 0], mask[..., 1] = True, False                    # each query has a key that it may attend to, and one that not

    def weights(q, k, mask=None, power=-0.5):
        return softmax.softmax_forward(q @ k.mT * q.shape[-1] ** power, mask)[0]

    def steps(q, k, v, mask=None):
        return {_("the product q k^T"): [q @ k.mT], _("the scores of (1)"): [q @ k.mT / math.sqrt(DK)],
                _("the weights of (2)"): [weights(q, k, mask)]}

    core = partial(
        check_forward, names, "attention", first(attention.scaled_dot_product_attention_forward), q, k, v, steps=steps,
        variants=ATTENTION_VARIANTS | BY_VALUES | {
            _("the mask is applied after the softmax, so the weights of a row no longer sum to 1: mask the scores"):
                lambda q, k, v, mask=None: weights(q, k) * (1 if mask is None else mask) @ v,
            _("the mask is added to the scores: True adds 1; forbidden scores must become minus infinity"):
                lambda q, k, v, mask=None: softmax.softmax_forward(
                    q @ k.mT / math.sqrt(DK) + (0 if mask is None else mask))[0] @ v,
            _("forbidden scores become -1: they must become minus infinity"):
                lambda q, k, v, mask=None: attend(q, k, v, mask, forbidden=-1.0),
            _("the scores are multiplied by sqrt(d_k): they are divided by it"):
                lambda q, k, v, mask=None: weights(q, k, mask, 0.5) @ v,
            _("y is divided by sqrt(d_k): the scores are, before the softmax"):
                lambda q, k, v, mask=None: weights(q, k, mask, 0.0) @ v / math.sqrt(DK),
            _("the scores are divided by the square root of the number of queries: it should be that of d_k"):
                lambda q, k, v, mask=None: attend(q, k, v, mask, scale=math.sqrt(TQ)),
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
                lambda q, k, v, mask=None: attend(q, k, v, mask, scale=math.sqrt(H)),
            _("the scores are divided by the square root of the batch size: it should be that of d_k, the last axis of q"):
                lambda q, k, v, mask=None: attend(q, k, v, mask, scale=math.sqrt(B)),
            _("k is reshaped in place of a transpose: swap its last two axes"):
                lambda q, k, v, mask=None: softmax.softmax_forward(
                    q @ k.reshape(*k.shape[:2], DK, TK) / math.sqrt(DK), mask)[0] @ v,
        },
    )
    yield from core(invariants=[lambda y: assert_batch_independent(y, q, k, v)])
    yield from core(title=_("with a mask"), mask=mask)


SPLITS = {                                                      # as a learner writes them, and as functions
    "x.reshape(B, H, T, d)": lambda y: y.reshape(len(y), H, -1, DK),
    "x.reshape(B, T, d, H).transpose(0, 3, 1, 2)": lambda y: y.reshape(*y.shape[:2], -1, H).transpose(0, 3, 1, 2),
    "x.swapaxes(1, 2).reshape(B, H, T, d)": lambda y: y.mT.reshape(len(y), H, -1, DK),
    "x.reshape(H, B, T, d).swapaxes(0, 1)": lambda y: y.reshape(H, len(y), -1, DK).swapaxes(0, 1),
}
MERGES = {
    "z.reshape(B, T, D)": lambda z: z.reshape(len(z), -1, D),
    "z.transpose(0, 2, 3, 1).reshape(B, T, D)": lambda z: z.transpose(0, 2, 3, 1).reshape(len(z), -1, D),
    "z.transpose(0, 3, 1, 2).reshape(B, T, D)": lambda z: z.transpose(0, 3, 1, 2).reshape(len(z), -1, D),
    "z.transpose(0, 3, 2, 1).reshape(B, T, D)": lambda z: z.transpose(0, 3, 2, 1).reshape(len(z), -1, D),
    "z.swapaxes(2, 3).reshape(B, T, D)": lambda z: z.mT.reshape(len(z), -1, D),
    "z.swapaxes(0, 1).reshape(B, T, D)": lambda z: z.swapaxes(0, 1).reshape(len(z), -1, D),
    "z.swapaxes(1, 2).reshape(B, T, D)": lambda z: z.swapaxes(1, 2).reshape(len(z), -1, D),
}


def check_multi_head_attention_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Self-attention, without a mask and with a causal one."""
    def right(x, p, heads, mask=None):
        return blocks.multi_head_attention_forward(x, x, p, heads, mask)[0]

    def changed(parameters=lambda p: p, **wrong):
        return lambda x, p, heads, mask=None: attend_heads(x, x, x, parameters(p), heads, mask, **wrong)

    def alone(y):
        return y.reshape(len(y), H, -1, DK)

    def in_turn(y):
        return y.reshape(*y.shape[:2], -1, H).transpose(0, 3, 1, 2)

    def take_turns(z):
        return z.transpose(0, 2, 3, 1).reshape(len(z), z.shape[2], -1)

    x, p, mask = gaussian(B, TQ, D), projections(), causal_mask(TQ)
    variants = head_variants(lambda x, p, heads, mask=None, **wrong: attend_heads(x, x, x, p, heads, mask, **wrong)) | {
        _("the projection W_out is missing"): changed(lambda p: p | {"out": {"w": np.eye(D)}}),
        _("k and v are swapped"): changed(lambda p: p | {"k": p["v"], "v": p["k"]}),
        _("the queries are used as keys"): changed(lambda p: p | {"k": p["q"]}),
        _("the keys are used as values"): changed(lambda p: p | {"v": p["k"]}),
        _("the matrices are transposed: here they are (in, out), PyTorch has (out, in)"):
            changed(lambda p: {name: {"w": part["w"].T} for name, part in p.items()}),
        _("W_out is transposed"): changed(lambda p: p | {"out": {"w": p["out"]["w"].T}}),
        _("W_q, W_k and W_v are not used"): changed(lambda p: {name: {"w": np.eye(D)} for name in "qkv"} | {"out": p["out"]}),
        _("x is added: the residual path belongs to the layer"): lambda x, p, heads, mask=None: x + attend_heads(
            x, x, x, p, heads, mask),
        _("there is one head of width D: cut q, k and v into heads"): lambda x, p, heads, mask=None: attend_heads(
            x, x, x, p, 1, mask),
        _("the heads come in the reverse order"):
            changed(merge=lambda z: z[:, ::-1].swapaxes(1, 2).reshape(len(z), z.shape[2], -1)),
        _("the heads are averaged, and the mean stands in the place of each: put them side by side"):
            changed(merge=lambda z: np.tile(z.mean(1), z.shape[1])),
        _("no axes are swapped, so that the heads of one token attend to each other"):
            lambda x, p, heads, mask=None: attend_heads(
                x, x, x, p, heads, split=lambda y: y.reshape(*y.shape[:2], H, -1),
                merge=lambda z: z.reshape(len(z), z.shape[1], -1),
            ),
        _("head 0 stands in the place of all"): changed(merge=lambda z: np.tile(z[:, 0], z.shape[1])),
        _("the columns are assigned to the heads in turn: head h has the columns h d ... (h + 1) d - 1"):
            changed(split=in_turn),
        _("the heads are split and merged by a reshape alone: swap the axes of heads and tokens, after the first reshape and "
          "before the last"): changed(split=alone, merge=lambda z: z.reshape(len(z), -1, D)),
        _("the columns of the heads take turns in the merge: swap the axes of heads and tokens only, so that whole heads are "
          "side by side"): changed(merge=take_turns),
        _("the columns are assigned to the heads in turn, in the split and in the merge: head h has the columns h d ... "
          "(h + 1) d - 1"): changed(split=in_turn, merge=take_turns),
        _("the heads are added up, and the sum stands in the place of each: put them side by side"):
            changed(merge=lambda z: np.tile(z.sum(1), z.shape[1])),
        _("x is overwritten: q is made of x, k of q and v of k; all three are made of x"): changed(lambda p: p | {
            "k": {"w": p["q"]["w"] @ p["k"]["w"]}, "v": {"w": p["q"]["w"] @ p["k"]["w"] @ p["v"]["w"]}}),
        **{_("{second} is made of {first} in place of x", first=first, second=second):
           changed(lambda p, first=first, second=second: p | {second: {"w": p[first]["w"] @ p[second]["w"]}})
           for first, second in itertools.permutations("qkv", 2)},
        _("there are d heads of H columns: it is H heads of d columns"):
            lambda x, p, heads, mask=None: attend_heads(x, x, x, p, x.shape[-1] // heads, mask),
        _("every head uses the first d rows of W_out: head h has the rows h d ... (h + 1) d - 1"):
            changed(lambda p: p | {"out": {"w": np.tile(p["out"]["w"][:DK], (H, 1))}}),
        _("W_out has its rows in the order of other heads: head h has the rows h d ... (h + 1) d - 1"):
            changed(lambda p: p | {"out": {"w": p["out"]["w"].reshape(DK, H, D).swapaxes(0, 1).reshape(D, D)}}),
        **{_("the heads are split as {split} and merged as {merge}: it is x.reshape(B, T, H, d).swapaxes(1, 2) and "
             "z.swapaxes(1, 2).reshape(B, T, D)", split=cut, merge=joined): changed(split=SPLITS[cut], merge=MERGES[joined])
           for cut in SPLITS for joined in MERGES},
        **{_("{input} is x itself: it is x times its own matrix, {matrix}", input=name, matrix="W_" + name):
           changed(lambda p, name=name: p | {name: {"w": np.eye(D)}}) for name in "qkv"},
        **{_("these matrices are transposed: {matrices}; here they are (in, out), PyTorch has (out, in)",
             matrices=listed(f"W_{name}" for name in chosen)):
           changed(lambda p, chosen=chosen: p | {name: {"w": p[name]["w"].T} for name in chosen})
           for count in (1, 2, 3) for chosen in itertools.combinations(("q", "k", "v", "out"), count) if chosen != ("out",)},
        **{_("q, k and v are made with W_{first}, W_{second} and W_{third}, or handed over in this order: it should be W_q, "
             "W_k and W_v", first=chosen[0], second=chosen[1], third=chosen[2]):
           changed(lambda p, chosen=chosen: p | {name: p[other] for name, other in zip("qkv", chosen, strict=True)})
           for chosen in itertools.product("qkv", repeat=3) if "".join(chosen) not in ("qkv", "qvk", "qqv", "qkk")},
    }
    def steps(x, p, heads, mask=None):
        flat = [x @ p[name]["w"] for name in "qkv"]
        cut = [each.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2) for each in flat]
        z = attend(*cut, mask)
        return {_("x W_q, x W_k and x W_v"): flat, _("q, k and v in heads, (B, H, T, d)"): cut,
                _("z of (2), (B, H, T, d)"): [z], _("the heads of z side by side"): [z.swapaxes(1, 2).reshape(x.shape)]}

    core = partial(check_forward, names, "multi_head_attention", right, x, p, heads=H, variants=variants, steps=steps)
    yield from core()
    yield from core(title=_("seven heads"), heads=7, variants={}, otherwise=_("right for two heads only: use the argument"))
    yield from core(
        title=_("with a causal mask"), mask=mask, invariants=[lambda y: assert_causal(lambda x: y(x, p, heads=H, mask=mask), x)]
    )


FRAMES = {                                                      # what there may be around a sublayer f, and its norm
    "norm(x + f(x))": lambda x, f, norm: norm(x + f(x)),
    "x + f(norm(x))": lambda x, f, norm: x + f(norm(x)),
    "norm(x) + f(x)": lambda x, f, norm: norm(x) + f(x),
    "norm(x) + f(norm(x))": lambda x, f, norm: norm(x) + f(norm(x)),
    "x + norm(f(x))": lambda x, f, norm: x + norm(f(x)),
    "x + norm(x + f(x))": lambda x, f, norm: x + norm(x + f(x)),
    "norm(x + f(norm(x)))": lambda x, f, norm: norm(x + f(norm(x))),
    "norm(x) + norm(f(x))": lambda x, f, norm: norm(x) + norm(f(x)),
    "norm(f(x))": lambda x, f, norm: norm(f(x)),
    "norm(f(f(x)))": lambda x, f, norm: norm(f(f(x))),
    "norm(x + f(f(x)))": lambda x, f, norm: norm(x + f(f(x))),
    "f(norm(x))": lambda x, f, norm: f(norm(x)),
    "x + f(x)": lambda x, f, norm: x + f(x),
    "f(x)": lambda x, f, norm: f(x),
    "norm(x)": lambda x, f, norm: norm(x),
    "norm(norm(x + f(x)))": lambda x, f, norm: norm(norm(x + f(x))),
}


def check_encoder_layer_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Post-norm with ReLU, as in the paper; then with a padding mask."""
    def right(x, p, heads, mask=None, norm_first=False):
        return blocks.encoder_layer_forward(x, p, heads, mask, norm_first=norm_first, activation="relu")[0]

    def layer(first=lambda x, a: x + a, second=lambda x, x1, f: x1 + f, fed=lambda x, a, x1: x1, norms=(True, True)):
        """A post-norm layer with mistakes: what is added to what, what the feed forward gets, which norms there are."""
        def y(x, p, heads, mask=None):
            a, _cache = blocks.multi_head_attention_forward(x, x, p["attn"], heads, mask)
            x1 = first(x, a)
            x1 = layernorm.layernorm_forward(x1, **p["ln1"])[0] if norms[0] else x1
            f, _cache = blocks.feed_forward_forward(fed(x, a, x1), p["ffn"])
            y = second(x, x1, f)
            return layernorm.layernorm_forward(y, **p["ln2"])[0] if norms[1] else y
        return y

    def norm_first(x, p, heads, mask=None):
        """x + norm(f(x)), which is neither pre-norm nor post-norm."""
        a, _cache = blocks.multi_head_attention_forward(x, x, p["attn"], heads, mask)
        x = x + layernorm.layernorm_forward(a, **p["ln1"])[0]
        f, _cache = blocks.feed_forward_forward(x, p["ffn"])
        return x + layernorm.layernorm_forward(f, **p["ln2"])[0]

    def framed(first, second):
        """A layer whose sublayers have these frames."""
        def y(x, p, heads, mask=None):
            x1 = first(x, lambda h: blocks.multi_head_attention_forward(h, h, p["attn"], heads, mask)[0],
                       lambda h: layernorm.layernorm_forward(h, **p["ln1"])[0])
            return second(x1, lambda h: blocks.feed_forward_forward(h, p["ffn"])[0],
                          lambda h: layernorm.layernorm_forward(h, **p["ln2"])[0])
        return y

    def unnormed_residual(x, p, heads, mask=None):
        h = x + blocks.multi_head_attention_forward(x, x, p["attn"], heads, mask)[0]
        f, _cache = blocks.feed_forward_forward(layernorm.layernorm_forward(h, **p["ln1"])[0], p["ffn"])
        return layernorm.layernorm_forward(h + f, **p["ln2"])[0]

    def residual_outside(x, p, heads, mask=None):
        x1 = layer(second=lambda x, x1, f: x1, norms=(True, False))(x, p, heads, mask)
        return x1 + layer()(x, p, heads, mask)

    def feed_forward_first(x, p, heads, mask=None):
        x = layernorm.layernorm_forward(x + blocks.feed_forward_forward(x, p["ffn"])[0], **p["ln1"])[0]
        return layernorm.layernorm_forward(
            x + blocks.multi_head_attention_forward(x, x, p["attn"], heads, mask)[0], **p["ln2"])[0]

    p = perturbed(init.encoder_layer(D, H, F, np.random.default_rng(0), dtype=np.float64), np.random.default_rng(1))
    def steps(x, p, heads, mask=None):
        a, _cache = blocks.multi_head_attention_forward(x, x, p["attn"], heads, mask)
        x1, _cache = layernorm.layernorm_forward(x + a, **p["ln1"])
        f, _cache = blocks.feed_forward_forward(x1, p["ffn"])
        return {_("the result of attention"): [a], _("x + attention"): [x + a], _("x1 of (1)"): [x1],
                _("the result of the feed forward"): [f], _("x1 + feed forward"): [x1 + f]}

    core = partial(check_forward, names, "encoder_layer", right, gaussian(B, TQ, D), p, heads=H, steps=steps, variants={
        _("each norm comes before its sublayer (pre-norm): here it comes after the sum (post-norm)"):
            partial(right, norm_first=True),
        _("x is not added to the result of attention"): layer(first=lambda x, a: a),
        _("the input of the feed forward is not added to its result"): layer(second=lambda x, x1, f: f),
        _("neither sublayer has its residual path"): layer(first=lambda x, a: a, second=lambda x, x1, f: f),
        _("the layer norms are missing"): layer(norms=(False, False)),
        _("the first layer norm is missing"): layer(norms=(False, True)),
        _("the second layer norm is missing"): layer(norms=(True, False)),
        _("the second sum adds x, which came in: it adds x1, the output of (1)"): layer(second=lambda x, x1, f: x + f),
        _("the feed forward gets x, which came in: it gets x1, the output of (1)"): layer(fed=lambda x, a, x1: x),
        _("the feed forward gets the result of attention: it gets x1, the output of (1)"): layer(fed=lambda x, a, x1: a),
        _("the result of attention is added twice"): layer(first=lambda x, a: x + 2 * a),
        _("x and the result of attention are multiplied: they are added"): layer(first=lambda x, a: x * a),
        _("each norm is taken of the sublayer's result alone, before the sum: it is taken of the sum"): norm_first,
        _("the mask is not used"): lambda x, p, heads, mask=None: layer()(x, p, heads),
        _("both norms use ln1: the second has its own gain and offset, ln2"):
            lambda x, p, heads, mask=None: layer()(x, p | {"ln2": p["ln1"]}, heads, mask),
        **{_("the first sublayer is {first} and the second {second}, where f is attention or the feed forward: each is "
             "norm(x + f(x))", first=first, second=second): framed(FRAMES[first], FRAMES[second])
           for first in FRAMES for second in FRAMES if (first, second) != ("norm(x + f(x))", "norm(x + f(x))")},
        _("both norms use ln2: the first has its own gain and offset, ln1"):
            lambda x, p, heads, mask=None: layer()(x, p | {"ln1": p["ln2"]}, heads, mask),
        **{_("gamma and beta are swapped in {norms}: the call is layernorm_forward(x, gamma, beta)", norms=listed(chosen)):
           lambda x, p, heads, mask=None, chosen=chosen: layer()(
               x, p | {name: {"gamma": p[name]["beta"], "beta": p[name]["gamma"]} for name in chosen}, heads, mask)
           for chosen in (("ln1", "ln2"), ("ln1",), ("ln2",))},
        _("the mask is inverted: True = may attend"):
            lambda x, p, heads, mask=None: layer()(x, p, heads, None if mask is None else ~mask),
        _("attention is missing: the first sum adds x and its attention"): layer(first=lambda x, a: x),
        _("the first sum adds x to itself: it adds x and the result of attention"): layer(first=lambda x, a: 2 * x),
        _("the feed forward is missing: the second sum adds x1 and its feed forward"): layer(second=lambda x, x1, f: x1),
        _("the second sum adds x, too: it adds x1 and its feed forward"): layer(second=lambda x, x1, f: x + x1 + f),
        _("x is added twice in the first sum"): layer(first=lambda x, a: 2 * x + a),
        _("x1 is added twice in the second sum"): layer(second=lambda x, x1, f: 2 * x1 + f),
        _("x1 and its feed forward are multiplied: they are added"): layer(second=lambda x, x1, f: x1 * f),
        _("the second sum takes what stands before the first norm, x + attention: it takes x1, the output of (1)"):
            unnormed_residual,
        _("x1 is added again after the second norm: the residual path is inside it"): residual_outside,
        _("the feed forward comes before attention: attention is the first sublayer"): feed_forward_first,
        _("the two layer norms are swapped"):
            lambda x, p, heads, mask=None: layer()(x, p | {"ln1": p["ln2"], "ln2": p["ln1"]}, heads, mask),
    })
    yield from core()
    yield from core(title=_("with a mask"), mask=np.arange(TQ) < np.array([5, 3, 4, 5])[:, None, None, None])
