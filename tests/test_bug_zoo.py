"""Bugs that people really wrote into NumPy Transformers and masked autoencoders, each with the check of ours that catches it.

For every bug: the story, the right implementation, the broken one, `check` (it raises an AssertionError for the broken one
alone), and `blind`: checks that the broken one passes, which is why its author did not see it. Where a wrong forward has the
right derivative of itself, gradcheck is among the blind ones: that is what reference numbers, loops and invariants are for.
"""
import math
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
from test_golden import MAE, OPS, OPTIM, mae_config, mae_tree

from tinymae import blocks, init, tree
from tinymae.checks import perturbed
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.invariants import assert_batch_independent
from tinymae.models import mae
from tinymae.ops import attention, patches
from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward
from tinymae.optim import AdamW, noam

B, H, TQ, TK, D, F, DK, DV = 3, 2, 4, 5, 8, 6, 3, 7


class Bug(NamedTuple):
    name: str
    story: str
    right: object
    broken: object
    check: object                   # check(right) passes, check(broken) raises an AssertionError ...
    complaint: str                  # ... that says this
    blind: tuple = ()               # each of them passes for both


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def assert_gradients(forward, backward, *args, **options):
    wrong = [row for row in gradcheck(forward, backward, *args, **options) if not row.ok]
    assert not wrong, f"wrong: {', '.join(row.tensor for row in wrong)}\n{format_rows('', wrong)}"


def assert_close(ours, reference, tolerance=1e-10):
    error = np.abs(ours - reference).max() / np.abs(reference).max()
    assert error < tolerance, f"off by {error:.1e}"         # NaN is not smaller either


def gradients_agree(*args, **options):
    """The gradient check of a pair, as a check."""
    return lambda pair: assert_gradients(*pair, *args, **options)


Q, K, V = normal(B, H, TQ, DK), normal(B, H, TK, DK), normal(B, H, TK, DV)
ATTENTION = scaled_dot_product_attention_forward, scaled_dot_product_attention_backward


# ---- softmax -----------------------------------------------------------------------------------------------------------

def softmax_backward_by_batch(dp, cache):
    return softmax_backward(dp, cache) / len(dp)


def gradients_of_attention_with(backward):
    """dq and dk come through the softmax, dv does not."""
    p = perturbed(init.multi_head_attention(D, H, None, dtype=np.float64), np.random.default_rng(0))
    with patch.object(attention, "softmax_backward", backward):
        assert_gradients(
            blocks.multi_head_attention_forward, blocks.multi_head_attention_backward, normal(B, TQ, D), normal(B, TK, D), p,
            heads=H,
        )  # fmt: skip


def adam_takes_the_same_steps(backward):
    """Ten steps of Adam on one matrix of scores: a constant factor in the gradient is divided out again."""
    finals = []
    for softmax in (softmax_backward, backward):
        params = {"scores": normal(B, 6)}
        optimizer, target = AdamW(params), normal(B, 6, seed=1)
        for _ in range(10):
            p, cache = softmax_forward(params["scores"])
            optimizer.step(params, {"scores": softmax(p - target, cache)}, lr=0.01)
        finals.append(params["scores"])
    np.testing.assert_allclose(*finals, rtol=0, atol=1e-4)


def softmax_backward_diagonal(dp, cache):
    (p,) = cache
    return dp * p * (1 - p)


def weights_change(backward):
    scores = normal(B, 6)
    _, cache = softmax_forward(scores)
    assert (scores - 0.1 * backward(normal(B, 6, seed=1), cache) != scores).all()


def softmax_columns_forward(scores):
    """Subtracts the largest score of each *column*: what does not cancel along the row is a change of scores."""
    p = np.exp(scores - scores.max(axis=0))
    p /= p.sum(axis=-1, keepdims=True)
    return p, (p, scores.argmax(axis=0))


def softmax_columns_backward(dp, cache):
    p, top = cache
    dscores = softmax_backward(dp, (p,))
    dscores[top, np.arange(len(top))] -= dscores.sum(axis=0)        # the maximum of a column moves with its entry
    return dscores


def softmax_by_loops(pair):
    scores = 2 * normal(4, 6)
    expected = [[math.exp(s) / sum(math.exp(other) for other in row) for s in row] for row in scores]
    assert_close(pair[0](scores)[0], np.array(expected))


def rows_sum_to_1(pair):
    np.testing.assert_allclose(pair[0](2 * normal(4, 6))[0].sum(axis=-1), 1)


# ---- layer normalisation -----------------------------------------------------------------------------------------------

def layernorm_backward_gamma_outside(dy, cache):
    """gamma * rstd * (dy - mean(dy) - xhat mean(dy xhat)): gamma after the means instead of before."""
    xhat, rstd, gamma = cache
    dx, _, _ = layernorm_backward(dy, (xhat, rstd, np.ones_like(gamma)))
    _, dgamma, dbeta = layernorm_backward(dy, cache)
    return gamma * dx, dgamma, dbeta


def layernorm_gradients(gamma):
    return lambda backward: assert_gradients(layernorm_forward, backward, normal(B, TQ, D), gamma, normal(D))


def layernorm_of_squares_forward(x, gamma, beta, eps=1e-5):
    """var = E[x^2] - E[x]^2: two large numbers, and nothing left of their difference."""
    mean = x.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        rstd = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) - mean * mean + eps)
    xhat = (x - mean) * rstd
    return xhat * gamma + beta, (xhat, rstd, gamma)


def layernorm_far_from_zero(pair):
    """float32 at offset 5000 against the same numbers in float64, row by row."""
    x = (5000 + normal(8, 16)).astype(np.float32)
    y, _ = pair[0](x, np.ones(16, np.float32), np.zeros(16, np.float32))
    expected = []
    for row in x.astype(np.float64):
        mean = sum(row) / 16
        expected.append([(number - mean) / math.sqrt(sum((row - mean) ** 2) / 16 + 1e-5) for number in row])
    assert_close(y, np.array(expected), 1e-3)


def layernorm_near_zero(pair):
    x, gamma, beta = (OPS[f"layernorm.{name}"].astype(np.float32) for name in ("x", "gamma", "beta"))
    assert_close(pair[0](x, gamma, beta)[0], OPS["layernorm.y"], 1e-5)


# ---- attention ---------------------------------------------------------------------------------------------------------

def attention_backward_dv_before_dropout(dy, cache):
    weights = cache[3]
    dq, dk, _ = scaled_dot_product_attention_backward(dy, cache)
    return dq, dk, weights.swapaxes(-1, -2) @ dy


def attention_item_0_forward(q, k, v):
    """k[0] and v[0] for the whole batch."""
    k, v = (np.broadcast_to(x[:1], x.shape) for x in (k, v))
    return scaled_dot_product_attention_forward(q, k, v)


def attention_item_0_backward(dy, cache):
    dq, *dkv = scaled_dot_product_attention_backward(dy, cache)
    for i, dx in enumerate(dkv):
        dkv[i] = np.zeros_like(dx)
        dkv[i][0] = dx.sum(axis=0)
    return dq, *dkv


def examples_do_not_meet(pair):
    assert_batch_independent(lambda q, k, v: pair[0](q, k, v)[0], Q, K, V)


def a_batch_of_one(pair):
    q, k, v = Q[:1], K[:1], V[:1]
    assert_close(pair[0](q, k, v)[0], scaled_dot_product_attention_forward(q, k, v)[0])


def attention_d_model_forward(q, k, v, mask=None):
    """sqrt(d_model) = sqrt(H d_k) in the place of sqrt(d_k): softmax starts flat."""
    y, cache = scaled_dot_product_attention_forward(q / math.sqrt(q.shape[1]), k, v, mask)
    return y, (cache, math.sqrt(q.shape[1]))


def attention_d_model_backward(dy, cache):
    cache, root = cache
    dq, dk, dv = scaled_dot_product_attention_backward(dy, cache)
    return dq / root, dk, dv


def attention_as_in_pytorch(pair):
    q, k, v, mask = (OPS[f"attention.{name}"] for name in ("q", "k", "v", "mask"))
    assert_close(pair[0](q, k, v, mask)[0], OPS["attention.y"])


def one_head(pair):
    q, k, v = Q[:, :1], K[:, :1], V[:, :1]
    assert_close(pair[0](q, k, v)[0], scaled_dot_product_attention_forward(q, k, v)[0])


MHA = init.multi_head_attention(D, H, np.random.default_rng(0), bias=False, dtype=np.float64)


def sentence_forward(x, p):
    """Self-attention of one sentence (T, D), as a batch of one."""
    y, cache = blocks.multi_head_attention_forward(x[None], x[None], p, H)
    return y[0], (cache, lambda y: y[None], lambda x: x[0])


def sentence_as_batch_forward(x, p):
    """Takes the two axes of a sentence for batch and width: T sentences of one word, so every weight is 1."""
    y, cache = blocks.multi_head_attention_forward(x[:, None], x[:, None], p, H)
    return y[:, 0], (cache, lambda y: y[:, None], lambda x: x[:, 0])


def sentence_backward(dy, cache):
    cache, lift, lower = cache
    dxq, dxkv, dp = blocks.multi_head_attention_backward(lift(dy), cache)
    return lower(dxq + dxkv), dp


def heads_by_loops(pair):
    """Head by head, word by word."""
    x, d, merged = normal(TQ, D), D // H, np.zeros((TQ, D))
    for h in range(H):
        columns = slice(h * d, (h + 1) * d)
        q, k, v = (x @ MHA[name]["w"][:, columns] for name in "qkv")
        for i in range(TQ):
            e = [math.exp(q[i] @ k[j] / math.sqrt(d)) for j in range(TQ)]
            merged[i, columns] = sum(e[j] / sum(e) * v[j] for j in range(TQ))
    assert_close(pair[0](x, MHA)[0], merged @ MHA["out"]["w"])


def shape_is_kept(pair):
    assert pair[0](normal(TQ, D), MHA)[0].shape == (TQ, D)


# ---- masks -------------------------------------------------------------------------------------------------------------

LAYER = perturbed(init.encoder_layer(D, H, F, np.random.default_rng(0), np.float64), np.random.default_rng(1))
REAL = np.array([[True] * 4, [True, True, True, False], [True, True, False, False]])       # (B, T), False = padding


def mask_keys(real):
    return real[:, None, None, :]


def mask_queries(real):
    return real[:, None, :, None]


def mask_queries_in_full(real):
    """The same with all four axes written out, so that nothing complains: in a square nobody knows a row from a column."""
    return np.broadcast_to(mask_queries(real), (len(real), 1, real.shape[1], real.shape[1]))


def padding_changes_nothing(mask):
    x = normal(*REAL.shape, D)
    y, _ = blocks.encoder_layer_forward(x, LAYER, H, mask(REAL))
    x = np.where(REAL[..., None], x, normal(*x.shape, seed=1))
    again, _ = blocks.encoder_layer_forward(x, LAYER, H, mask(REAL))
    assert (y[REAL] == again[REAL]).all(), "the padding reaches the words"


def attention_accepts(mask):
    """The refusal of the op itself, as a check."""
    x = normal(*REAL.shape, D)
    try:
        blocks.encoder_layer_forward(x, LAYER, H, mask(REAL))
    except ValueError as error:
        raise AssertionError(f"refused: {error}") from error


def gradients_under_the_mask(mask):
    assert_gradients(
        blocks.encoder_layer_forward, blocks.encoder_layer_backward, normal(*REAL.shape, D), LAYER, heads=H, mask=mask(REAL),
        samples=10,
    )  # fmt: skip


# ---- layers and the decoder --------------------------------------------------------------------------------------------

def encoder_layer_backward_without_residual(dy, cache):
    """Each sublayer's backward is right; the way around it is missing, twice."""
    dh, dffn = blocks.feed_forward_backward(dy, cache["ffn"])
    dh, dgamma2, dbeta2 = layernorm_backward(dh, cache["ln2"])
    dhq, dhkv, dattn = blocks.multi_head_attention_backward(dh, cache["attn"])
    dx, dgamma1, dbeta1 = layernorm_backward(dhq + dhkv, cache["ln1"])
    norms = {"ln1": {"gamma": dgamma1, "beta": dbeta1}, "ln2": {"gamma": dgamma2, "beta": dbeta2}}
    return dx, {**norms, "attn": dattn, "ffn": dffn}


def encoder_layer_gradients(backward):
    assert_gradients(blocks.encoder_layer_forward, backward, normal(B, TQ, D), LAYER, heads=H)


def cross_swapped_forward(x, memory, p, heads):
    """Queries and keys from the encoder, values from the decoder: its own words, later ones too, without any mask."""
    parts = [linear_forward(source, **p[name]) for source, name in ((memory, "q"), (memory, "k"), (x, "v"))]
    q, k, v = (y.reshape(*y.shape[:2], heads, -1).swapaxes(1, 2) for y, _ in parts)
    z, core = scaled_dot_product_attention_forward(q, k, v)
    y, out = linear_forward(z.swapaxes(1, 2).reshape(x.shape), **p["out"])
    return y, ([cache for _, cache in parts], core, out, heads)


def cross_swapped_backward(dy, cache):
    parts, core, out, heads = cache
    dz, dw, _ = linear_backward(dy, out)
    dqkv = scaled_dot_product_attention_backward(dz.reshape(*dz.shape[:2], heads, -1).swapaxes(1, 2), core)
    dsources, dp = [], {"out": {"w": dw}}
    for name, part, dpart in zip("qkv", parts, dqkv, strict=True):
        dsource, dw, _ = linear_backward(dpart.swapaxes(1, 2).reshape(dy.shape), part)
        dsources.append(dsource)
        dp[name] = {"w": dw}
    return dsources[2], dsources[0] + dsources[1], dp


def decoder_cannot_see_the_future(pair):
    """A decoder layer with this cross-attention, and a causal mask: word t comes out the same whatever follows it."""
    right = blocks.multi_head_attention_forward

    def attend(xq, xkv, p, heads, *options):
        return right(xq, xkv, p, heads, *options) if xq is xkv else pair[0](xq, xkv, p, heads)

    p = perturbed(init.decoder_layer(D, H, F, np.random.default_rng(0), np.float64, bias=False), np.random.default_rng(1))
    x, memory, causal = normal(B, TQ, D), normal(B, TQ, D, seed=1), np.tri(TQ, dtype=bool)
    with patch.object(blocks, "multi_head_attention_forward", attend):
        before, _ = blocks.decoder_layer_forward(x, memory, p, H, causal)
        for t in range(TQ - 1):
            other = x.copy()
            other[:, t + 1 :] = normal(B, TQ - 1 - t, D, seed=2)
            after, _ = blocks.decoder_layer_forward(other, memory, p, H, causal)
            leak = np.abs(after[:, : t + 1] - before[:, : t + 1]).max()
            assert leak < 1e-12, f"words after {t} change word {t} or one before it by {leak:.1e}: it sees the future"


# ---- training ----------------------------------------------------------------------------------------------------------

class AdamWStandingStill(AdamW):
    """Its t is 1 for ever."""

    def step(self, params, grads, lr):
        self.t = 0
        super().step(params, grads, lr)


def adam_follows(steps):
    """The first steps of PyTorch's AdamW."""
    def check(optimizer_class):
        o = {key.removeprefix("adamw."): value for key, value in OPTIM.items() if key.startswith("adamw.")}
        params = {name: o[f"start.{name}"].copy() for name in "ab"}
        optimizer = optimizer_class(
            params, tuple(o["betas"]), float(o["eps"]), float(o["weight_decay"]), {"a": True, "b": False}
        )
        for t in range(min(steps, len(o["lr"]))):
            optimizer.step(params, {name: o[f"grad.{name}"][t] for name in "ab"}, float(o["lr"][t]))
            for name in "ab":
                error = np.abs(params[name] - o[f"param.{name}"][t]).max()
                assert error < 1e-12, f"step {t}: {name} leaves PyTorch's trajectory by {error:.1e}"

    return check


def rates_by_batch(params, batches, *noam_options):
    """The learning rate of each batch; one step of the schedule for a batch."""
    return [noam(step + 1, *noam_options) for step in range(batches)]


def rates_by_tensor(params, batches, *noam_options):
    """Every tensor asks the schedule for the rate and moves it on."""
    step, rates = 0, []
    for _ in range(batches):
        for _ in tree.leaves(params):
            step += 1
            rate = noam(step, *noam_options)
        rates.append(rate)
    return rates


def warm_up_lasts(params):
    """The rates of PyTorch's schedule, batch by batch, for a model of these parameters."""
    options = [OPTIM[f"schedule.noam.{name}"].item() for name in ("d_model", "warmup", "factor")]
    reference = OPTIM["schedule.noam.rates"]

    def check(rates):
        for batch, (ours, rate) in enumerate(zip(rates(params, len(reference), *options), reference, strict=True)):
            assert abs(ours - rate) < 1e-12, f"batch {batch}: the rate is {ours:.3g}, expected {rate:.3g}"

    return check


# ---- masked autoencoder ------------------------------------------------------------------------------------------------

def shuffled_forward(x, mask_token, ids_restore):
    """Kept tokens first, mask tokens after them: no token is where its patch was."""
    hidden = ids_restore.shape[1] - x.shape[1]
    return np.concatenate([x, np.repeat(np.repeat(mask_token, hidden, axis=1), len(x), axis=0)], axis=1), (x.shape[1],)


def shuffled_backward(dy, cache):
    (kept,) = cache
    return dy[:, :kept].copy(), dy[:, kept:].sum(axis=(0, 1), keepdims=True)


def mae_as_in_the_papers_code(pair):
    config = mae_config(norm=False, ratio=0.5)
    params = mae_tree("param.", lambda array: array, config)
    with patch.object(mae, "unshuffle_forward", pair[0]):
        _, cache = mae.mae_forward(MAE["images"], params, config, MAE["noise"])
    assert_close(cache["pred"], MAE["plain.0.5.pred"])


def mae_gradients(pair):
    config = mae_config(norm=False, ratio=0.5)
    params = mae_tree("param.", lambda array: array, config)
    with patch.object(mae, "unshuffle_forward", pair[0]), patch.object(mae, "unshuffle_backward", pair[1]):
        assert_gradients(
            lambda params, images, noise: mae.mae_forward(images, params, config, noise), mae.mae_backward, params,
            images=MAE["images"], noise=MAE["noise"], samples=3,
        )  # fmt: skip


def picture_of_visible_statistics(*args):
    return mae.mae_reconstruct(*args, statistics="visible")


def picture_of_true_statistics(*args):
    return mae.mae_reconstruct(*args, statistics="true")


MAE_CONFIG = mae_config(norm=True, ratio=0.75)
MAE_PARAMS = mae_tree("param.", lambda array: array, MAE_CONFIG)


def picture_is_made_of_what_is_visible(reconstruct):
    """Other pixels under the mask, the same picture."""
    images, noise = MAE["images"], MAE["noise"]
    before = reconstruct(images, MAE_PARAMS, MAE_CONFIG, noise)
    hidden = patches.unpatchify(np.repeat(before.mask[..., None], MAE_CONFIG.values, axis=2), 4, MAE_CONFIG.grid) == 1
    after = reconstruct(np.where(hidden, 2 + 3 * images[::-1], images), MAE_PARAMS, MAE_CONFIG, noise)
    for name in ("masked", "reconstruction", "pasted"):
        leak = np.abs(getattr(after, name) - getattr(before, name)).max()
        assert leak == 0, f"hidden pixels change `{name}` by {leak:.2g}: the answer leaks"


def picture_looks_good(reconstruct):
    """No further from the truth than the honest picture: the leak makes it look better, not worse."""
    images = MAE["images"] + 3 * np.kron(normal(len(MAE["images"]), 3, 3, 1), np.ones((1, 4, 4, 1)))

    def error(function):
        return np.square(function(images, MAE_PARAMS, MAE_CONFIG, MAE["noise"]).reconstruction - images).mean()

    assert error(reconstruct) <= error(picture_of_visible_statistics)


# ---- the zoo -----------------------------------------------------------------------------------------------------------

ZOO = [
    Bug(
        "softmax backward divides by the batch size",
        "dWq and dWk were B times too small, dWv was right; the loss fell all the same, for Adam divides a constant out.",
        softmax_backward, softmax_backward_by_batch, gradients_of_attention_with,
        r"wrong: xq, xkv, p\.q\.w, p\.q\.b, p\.k\.w\n",
        (adam_takes_the_same_steps,),
    ),
    Bug(
        "layernorm backward takes gamma out of the means",
        "Exact as long as gamma is 1, which it is in every test at initial values; 28 % off after training.",
        layernorm_backward, layernorm_backward_gamma_outside, layernorm_gradients(normal(D)), r"wrong: x\n",
        (layernorm_gradients(np.ones(D)),),
    ),
    Bug(
        "schedule counts one step for each tensor",
        "4000 steps of warm-up were over after 39 batches of a model with a hundred tensors.",
        rates_by_batch, rates_by_tensor, warm_up_lasts({"w": np.ones(2), "b": np.ones(1)}), "batch 0: the rate is",
        (warm_up_lasts({"w": np.ones(2)}),),
    ),
    Bug(
        "cross-attention takes Q and K from the encoder, V from the decoder",
        "It mixes the decoder's own words, later ones too: validation was too good, and samples said 'the the the'.",
        (blocks.multi_head_attention_forward, blocks.multi_head_attention_backward),
        (cross_swapped_forward, cross_swapped_backward),
        decoder_cannot_see_the_future, "it sees the future",
        (gradients_agree(normal(B, TQ, D), normal(B, TQ, D, seed=1), MHA, heads=H),),
    ),
    Bug(
        "no residual path in the backward of a block",
        "Every op passed its own check; the sum of the two paths belonged to none of them.",
        blocks.encoder_layer_backward, encoder_layer_backward_without_residual, encoder_layer_gradients,
        r"wrong: x, p\.ln1\.gamma, p\.ln1\.beta, p\.attn",
    ),
    Bug(
        "dV uses the weights before dropout",
        "The gradient was checked with dropout off, where both weights are the same.",
        ATTENTION, (ATTENTION[0], attention_backward_dv_before_dropout), gradients_agree(Q, K, V, dropout=0.3, rng=0),
        r"wrong: v\n",
        (gradients_agree(Q, K, V),),
    ),
    Bug(
        "softmax subtracts the maximum along the wrong axis",
        "Rows summed to 1, and that was the test; they were up to 0.66 away from a softmax.",
        (softmax_forward, softmax_backward), (softmax_columns_forward, softmax_columns_backward), softmax_by_loops, "off by",
        (rows_sum_to_1, gradients_agree(2 * normal(4, 6))),
    ),
    Bug(
        "softmax backward keeps the diagonal of the Jacobian only",
        "The test asked whether the weights changed. They did.",
        softmax_backward, softmax_backward_diagonal,
        lambda backward: assert_gradients(softmax_forward, backward, normal(B, TQ, TK)), r"wrong: scores\n",
        (weights_change,),
    ),
    Bug(
        "attention uses batch item 0 only",
        "All tests had a batch of one.",
        ATTENTION, (attention_item_0_forward, attention_item_0_backward), examples_do_not_meet,
        "example 1 comes out otherwise alone than in its batch", (a_batch_of_one, gradients_agree(Q, K, V)),
    ),
    Bug(
        "Adam's t never advances",
        "The first step is right, and nobody had the second from anywhere else.",
        AdamW, AdamWStandingStill, adam_follows(steps=99), "step 1: a leaves PyTorch's trajectory", (adam_follows(steps=1),),
    ),
    Bug(
        "padding mask on the query axis",
        "Tq = Tk, so the shapes fitted; padding was looked at by every word.",
        mask_keys, mask_queries_in_full, padding_changes_nothing, "the padding reaches the words",
        (attention_accepts, gradients_under_the_mask),
    ),
    Bug(
        "padding mask on the query axis, left to broadcasting",
        "The same, as it is usually written: here attention itself refuses it.",
        mask_keys, mask_queries, attention_accepts, "is the mask on the query axis",
    ),
    Bug(
        "multi-head attention takes a sentence for a batch",
        "It took 2-D input only, and its batch axis for the sentence: each word saw itself, and every weight was 1.0.",
        (sentence_forward, sentence_backward), (sentence_as_batch_forward, sentence_backward), heads_by_loops, "off by",
        (shape_is_kept, gradients_agree(normal(TQ, D), MHA)),
    ),
    Bug(
        "layernorm variance as E[x^2] - E[x]^2",
        "Inputs near 0 were fine; at offset 5000 in float32 the difference is noise, and its root NaN.",
        (layernorm_forward, layernorm_backward), (layernorm_of_squares_forward, layernorm_backward),
        layernorm_far_from_zero, "off by", (layernorm_near_zero, gradients_agree(normal(B, TQ, D), normal(D), normal(D))),
    ),
    Bug(
        "scores divided by sqrt(d_model)",
        "The loss still fell; with one head there is no difference.",
        ATTENTION, (attention_d_model_forward, attention_d_model_backward), attention_as_in_pytorch, "off by",
        (one_head, gradients_agree(Q, K, V)),
    ),
    Bug(
        "masked autoencoder without unshuffle",
        "The decoder never learned which patch is where; the loss fell until every picture was the mean picture.",
        (patches.unshuffle_forward, patches.unshuffle_backward), (shuffled_forward, shuffled_backward),
        mae_as_in_the_papers_code, "off by", (mae_gradients,),
    ),
    Bug(
        "reconstruction with the true statistics of hidden patches",
        "Mean and contrast of each hidden patch came from the hidden patch: part of the answer, and the picture looked good.",
        picture_of_visible_statistics, picture_of_true_statistics, picture_is_made_of_what_is_visible,
        "hidden pixels change `reconstruction` by", (picture_looks_good,),
    ),
]  # fmt: skip


@pytest.fixture(params=ZOO, ids=lambda bug: bug.name)
def bug(request):
    return request.param


def test_the_bug_is_caught(bug):
    bug.check(bug.right)
    with pytest.raises(AssertionError, match=bug.complaint):
        bug.check(bug.broken)


@pytest.mark.parametrize("bug", [bug for bug in ZOO if bug.blind], ids=lambda bug: bug.name)
def test_why_its_author_did_not_see_it(bug):
    for blind in bug.blind:
        blind(bug.right)
        blind(bug.broken)
