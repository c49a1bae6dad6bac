"""Bugs that people really wrote into NumPy Transformers and masked autoencoders, each with the check of ours that catches it.

The broken ones and their stories stand in lessons/exercises/zoo, for learners to find. For every bug: its file, the right
implementation, the broken one, `check` (it raises an AssertionError for the broken one alone), and `blind`: checks that the
broken one passes, which is why its author did not see it. Where a wrong forward has the right derivative of itself, gradcheck
is among the blind ones: that is what reference numbers, loops and invariants are for.
"""
import math
import runpy
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
from test_golden import MAE, OPS, OPTIM, mae_config, mae_tree

from tinymae import blocks, init, tree
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.gradcheck.cases import perturbed
from tinymae.gradcheck.invariants import assert_batch_independent, assert_causal
from tinymae.learn.exercises import ZOO as FILES
from tinymae.learn.lessons import lessons_folder
from tinymae.masks import padding_mask
from tinymae.models import mae
from tinymae.ops import activation, attention, patches
from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.positional import positional_backward, positional_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward
from tinymae.train.optim import AdamW, noam

B, H, TQ, TK, D, F, DK, DV = 3, 2, 4, 5, 8, 6, 3, 7


class Bug(NamedTuple):
    file: str                       # in lessons/exercises/zoo
    right: object
    broken: object
    check: object                   # check(right) passes, check(broken) raises an AssertionError ...
    complaint: str                  # ... that says this
    blind: tuple = ()               # each of them passes for both


BROKEN = {file: SimpleNamespace(**runpy.run_path(str(lessons_folder() / "exercises" / "zoo" / f"{file}.py"))) for file in FILES}


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

def gradients_of_attention_with(backward):
    """dq and dk come through the softmax, dv does not."""
    p = perturbed(init.multi_head_attention(D, H, None, dtype=np.float64), np.random.default_rng(0))
    with patch.object(attention, "softmax_backward", backward):
        assert_gradients(
            blocks.multi_head_attention_forward, blocks.multi_head_attention_backward, normal(B, TQ, D), normal(B, TK, D), p,
            heads=H,
        )


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


def weights_change(backward):
    scores = normal(B, 6)
    _, cache = softmax_forward(scores)
    assert (scores - 0.1 * backward(normal(B, 6, seed=1), cache) != scores).all()


def softmax_by_loops(pair):
    scores = 2 * normal(4, 6)
    expected = [[math.exp(s) / sum(math.exp(other) for other in row) for s in row] for row in scores]
    assert_close(pair[0](scores)[0], np.array(expected))


def rows_sum_to_1(pair):
    np.testing.assert_allclose(pair[0](2 * normal(4, 6))[0].sum(axis=-1), 1)


# ---- layer normalisation -----------------------------------------------------------------------------------------------

def layernorm_gradients(gamma):
    return lambda backward: assert_gradients(layernorm_forward, backward, normal(B, TQ, D), gamma, normal(D))


def layernorm_far_from_zero(pair):
    """float32 at offset 5000 against the same numbers in float64, row by row."""
    x = (5000 + normal(8, 16)).astype(np.float32)
    with np.errstate(invalid="ignore"):
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

def examples_do_not_meet(pair):
    assert_batch_independent(lambda q, k, v: pair[0](q, k, v)[0], Q, K, V)


def a_batch_of_one(pair):
    q, k, v = Q[:1], K[:1], V[:1]
    assert_close(pair[0](q, k, v)[0], scaled_dot_product_attention_forward(q, k, v)[0])


def attention_as_in_pytorch(pair):
    q, k, v, mask = (OPS[f"attention.{name}"] for name in ("q", "k", "v", "mask"))
    assert_close(pair[0](q, k, v, mask)[0], OPS["attention.y"])


def one_head(pair):
    q, k, v = Q[:, :1], K[:, :1], V[:, :1]
    assert_close(pair[0](q, k, v)[0], scaled_dot_product_attention_forward(q, k, v)[0])


MHA = init.multi_head_attention(D, H, np.random.default_rng(0), bias=False, dtype=np.float64)


def sentence_forward(x, p, heads):
    """Self-attention of one sentence (T, D), as a batch of one."""
    y, cache = blocks.multi_head_attention_forward(x[None], x[None], p, heads)
    return y[0], cache


def sentence_backward(dy, cache):
    dxq, dxkv, dp = blocks.multi_head_attention_backward(dy[None], cache)
    return (dxq + dxkv)[0], dp


def heads_by_loops(pair):
    """Head by head, word by word."""
    x, d, merged = normal(TQ, D), D // H, np.zeros((TQ, D))
    for h in range(H):
        columns = slice(h * d, (h + 1) * d)
        q, k, v = (x @ MHA[name]["w"][:, columns] for name in "qkv")
        for i in range(TQ):
            e = [math.exp(q[i] @ k[j] / math.sqrt(d)) for j in range(TQ)]
            merged[i, columns] = sum(e[j] / sum(e) * v[j] for j in range(TQ))
    assert_close(pair[0](x, MHA, H)[0], merged @ MHA["out"]["w"])


def shape_is_kept(pair):
    assert pair[0](normal(TQ, D), MHA, H)[0].shape == (TQ, D)


def self_attention_forward(x, p, heads):
    return blocks.multi_head_attention_forward(x, x, p, heads)


def self_attention_backward(dy, cache):
    dxq, dxkv, dp = blocks.multi_head_attention_backward(dy, cache)
    return dxq + dxkv, dp


def weights_get_their_gradients(pair):
    """All but that of x."""
    rows = gradcheck(*pair, normal(B, TQ, D), MHA, heads=H)
    assert [row.tensor for row in rows[1:]] == ["p.q.w", "p.k.w", "p.v.w", "p.out.w"] and all(row.ok for row in rows[1:])


# ---- maps, positions and activations -----------------------------------------------------------------------------------

TABLE = normal(11, D)


def sequences_do_not_meet(pair):
    assert_batch_independent(lambda x: pair[0](x, TABLE)[0], normal(B, TQ, D))


def gradient_points_the_right_way(pair):
    """The cosine with the difference of the forward is above 0.9, so the loss falls."""
    x, dy = normal(B, TQ, F), normal(B, TQ, F, seed=1)
    ours, true = pair[1](dy, pair[0](x)[1]), dy * (pair[0](x + 1e-6)[0] - pair[0](x - 1e-6)[0]) / 2e-6
    assert np.vdot(ours, true) > 0.9 * np.linalg.norm(ours) * np.linalg.norm(true)


# ---- masks -------------------------------------------------------------------------------------------------------------

LAYER = perturbed(init.encoder_layer(D, H, F, np.random.default_rng(0), dtype=np.float64), np.random.default_rng(1))
IDS = np.array([[5, 6, 7, 8], [5, 6, 7, 0], [5, 6, 0, 0]])                                 # (B, T), 0 = padding


def padding_changes_nothing(mask):
    x, real = normal(*IDS.shape, D), IDS != 0
    y, _ = blocks.encoder_layer_forward(x, LAYER, H, mask(IDS))
    x = np.where(real[..., None], x, normal(*x.shape, seed=1))
    again, _ = blocks.encoder_layer_forward(x, LAYER, H, mask(IDS))
    assert (y[real] == again[real]).all(), "the padding reaches the words"


def attention_accepts(mask):
    """The refusal of the op itself, as a check."""
    try:
        blocks.encoder_layer_forward(normal(*IDS.shape, D), LAYER, H, mask(IDS))
    except ValueError as error:
        raise AssertionError(f"refused: {error}") from error


def gradients_under_the_mask(mask):
    assert_gradients(
        blocks.encoder_layer_forward, blocks.encoder_layer_backward, normal(*IDS.shape, D), LAYER, heads=H, mask=mask(IDS),
        samples=10,
    )


ALLOWED = np.arange(TK) < np.array([5, 3, 4])[:, None, None, None]                         # (B, 1, 1, Tk)


def forbidden_keys_change_nothing(pair):
    k, v = (np.where(ALLOWED.swapaxes(2, 3), x, normal(*x.shape, seed=1)) for x in (K, V))
    change = np.abs(pair[0](Q, k, v, ALLOWED)[0] - pair[0](Q, K, V, ALLOWED)[0]).max()
    assert change == 0, f"forbidden keys change the output by {change:.2g}"


# ---- layers and the decoder --------------------------------------------------------------------------------------------

def encoder_layer_gradients(pair):
    assert_gradients(*pair, normal(B, TQ, D), LAYER, heads=H)


def decoder_cannot_see_the_future(pair):
    """A decoder layer with this cross-attention, and a causal mask: word t comes out the same whatever follows it."""
    right = blocks.multi_head_attention_forward

    def attend(xq, xkv, p, heads, mask, **options):
        return right(xq, xkv, p, heads, mask, **options) if xq is xkv else pair[0](xq, xkv, p, heads)

    p = perturbed(init.decoder_layer(D, H, F, np.random.default_rng(0), dtype=np.float64, bias=False), np.random.default_rng(1))
    x, memory, causal = normal(B, TQ, D), normal(B, TQ, D, seed=1), np.tri(TQ, dtype=bool)
    with patch.object(blocks, "multi_head_attention_forward", attend):
        before, _ = blocks.decoder_layer_forward(x, memory, p, H, causal)
        for t in range(TQ - 1):
            other = x.copy()
            other[:, t + 1 :] = normal(B, TQ - 1 - t, D, seed=2)
            after, _ = blocks.decoder_layer_forward(other, memory, p, H, causal)
            leak = np.abs(after[:, : t + 1] - before[:, : t + 1]).max()
            assert leak < 1e-12, f"words after {t} change word {t} or one before it by {leak:.1e}: it sees the future"


def layers_of_their_own(depth, *sizes):
    return [init.encoder_layer(*sizes, dtype=np.float64) for _ in range(depth)]


def a_step_moves_one_layer(layers):
    first, second = layers(2, D, H, F, np.random.default_rng(0))
    before = second["ffn"]["fc1"]["w"].copy()
    first["ffn"]["fc1"]["w"] -= 0.1
    assert (second["ffn"]["fc1"]["w"] == before).all(), "a step of layer 0 moved layer 1"


def parameters_add_up(layers):
    found = layers(6, D, H, F, np.random.default_rng(0))
    assert sum(map(tree.count, found)) == 6 * tree.count(LAYER)


RNN = normal(D, F) / 4, normal(F, F), normal(F)


def rnn(x, wx, wh, b):
    h, states = np.zeros((len(x), len(b))), []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ wx + h @ wh + b)
        states.append(h)
    return np.stack(states, axis=1)


def the_first_token_is_remembered(states):
    x = normal(B, TQ, D)
    other = x.copy()
    other[:, 0] = normal(B, D, seed=1)
    change = np.abs(states(other, *RNN) - states(x, *RNN)).max(axis=(0, 2))
    assert (change > 1e-9).all(), f"the first token changes {np.count_nonzero(change)} of {TQ} states"


def states_cannot_see_the_future(states):
    assert_causal(lambda x: states(x, *RNN), normal(B, TQ, D))


def one_token_is_right(states):
    x, (wx, _, b) = normal(B, 1, D), RNN
    assert_close(states(x, *RNN), np.tanh(x @ wx + b))


# ---- decoding ----------------------------------------------------------------------------------------------------------

PAD, BOS, EOS = 0, 1, 2
PLANS = np.array([[5, EOS, 7, 8, 9], [6, 8, 9, EOS, 7], [9, 7, EOS, 5, 6]])                # generated step by step


def greedy(next_logits, batch, bos, eos, pad, longest):
    ids, ended = np.full((batch, 1), bos), np.zeros(batch, bool)
    for _ in range(longest):
        token = np.where(ended, pad, next_logits(ids).argmax(axis=-1))
        ids, ended = np.concatenate([ids, token[:, None]], axis=1), ended | (token == eos)
        if ended.all():
            break
    return ids[:, 1:]


def generated(decode, plans):
    return decode(lambda ids: np.eye(10)[plans[:, ids.shape[1] - 1]], len(plans), BOS, EOS, PAD, plans.shape[1])


def sentences_end_alone(decode):
    """Each sentence of a batch is what it is alone, and padding."""
    together = generated(decode, PLANS)
    for b, ids in enumerate(together):
        alone = generated(decode, PLANS[b : b + 1])[0]
        expected = np.pad(alone, (0, len(ids) - len(alone)), constant_values=PAD)
        assert (ids == expected).all(), f"sentence {b} is {ids.tolist()} in its batch, and {alone.tolist()} alone"


def one_sentence_ends(decode):
    assert generated(decode, PLANS[:1]).tolist() == [[5, EOS]]


def equal_lengths_end(decode):
    assert generated(decode, np.array([[5, 6, EOS, 7], [8, 9, EOS, 6]])).tolist() == [[5, 6, EOS], [8, 9, EOS]]


# ---- training ----------------------------------------------------------------------------------------------------------

def adam_follows(steps):
    """The first steps of PyTorch's AdamW, which moves b without weight decay."""
    def check(optimizer_class):
        o = {key.removeprefix("adamw."): value for key, value in OPTIM.items() if key.startswith("adamw.")}
        for name, decay in (("a", float(o["weight_decay"])), ("b", 0.0)):
            params = {name: o[f"start.{name}"].copy()}
            optimizer = optimizer_class(params, betas=tuple(o["betas"]), eps=float(o["eps"]), weight_decay=decay)
            for t in range(min(steps, len(o["lr"]))):
                optimizer.step(params, {name: o[f"grad.{name}"][t]}, float(o["lr"][t]))
                error = np.abs(params[name] - o[f"param.{name}"][t]).max()
                assert error < 1e-12, f"step {t}: {name} leaves PyTorch's trajectory by {error:.1e}"

    return check


def rates_by_batch(params, batches, *noam_options):
    """The learning rate of each batch; one step of the schedule for a batch."""
    return [noam(step + 1, *noam_options) for step in range(batches)]


def warm_up_lasts(params):
    """The rates of PyTorch's schedule, batch by batch, for a model of these parameters."""
    options = [OPTIM[f"schedule.noam.{name}"].item() for name in ("d_model", "warmup", "factor")]
    reference = OPTIM["schedule.noam.rates"]

    def check(rates):
        for batch, (ours, rate) in enumerate(zip(rates(params, len(reference), *options), reference, strict=True)):
            assert abs(ours - rate) < 1e-12, f"batch {batch}: the rate is {ours:.3g}, expected {rate:.3g}"

    return check


def mean_over_tokens(params, parts, gradient):
    found = [gradient(params, part) for part in parts]
    total = sum(count for *_, count in found)
    grads = {name: sum(grads[name] * count for _, grads, count in found) / total for name in params}
    return sum(loss * count for loss, _, count in found) / total, grads


def parts_are_the_whole(*sizes):
    """Loss and gradient of parts of these sizes, against those of all tokens at once."""
    def gradient(params, part):
        error = part[:, :-1] @ params["w"] - part[:, -1]
        return np.square(error).mean(), {"w": 2 * error @ part[:, :-1] / len(part)}, len(part)

    def check(whole):
        tokens, params = normal(sum(sizes), D + 1), {"w": normal(D)}
        loss, grads = whole(params, np.split(tokens, np.cumsum(sizes)[:-1]), gradient)
        right, right_grads, _ = gradient(params, tokens)
        assert_close(np.array([loss, *grads["w"]]), np.array([right, *right_grads["w"]]))

    return check


# ---- masked autoencoder ------------------------------------------------------------------------------------------------

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
        )


PATCHIFY = patches.patchify_forward, patches.patchify_backward


def image_comes_back(channels):
    """An image is cut into patches and put together again."""
    def check(pair):
        images = normal(2, 4, 6, channels)
        assert_close(pair[1](*pair[0](images, 2)), images)

    return check


def pixels_stay_in_their_patch(pair):
    images = normal(2, 4, 6, 3)
    again = pair[1](*pair[0](images, 2))
    for i, j in np.ndindex(2, 3):
        square = (slice(None), slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))
        assert (np.sort(again[square], axis=None) == np.sort(images[square], axis=None)).all()


UNSHUFFLE = patches.unshuffle_forward, patches.unshuffle_backward


def unshuffle_gradients(*order):
    return gradients_agree(normal(1, 2, D), normal(1, 1, D), ids_restore=np.array([order]))


def picture_of_visible_statistics(*args):
    return mae.mae_reconstruct(*args, statistics="visible")


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

def broken(file, name):
    """The broken forward and backward of a file."""
    return tuple(getattr(BROKEN[file], f"{name}_{way}") for way in ("forward", "backward"))


ZOO = [
    Bug(
        "softmax_by_batch", softmax_backward, BROKEN["softmax_by_batch"].softmax_backward, gradients_of_attention_with,
        r"wrong: xq, xkv, p\.q\.w, p\.q\.b, p\.k\.w\n", (adam_takes_the_same_steps,),
    ),
    Bug(
        "layernorm_gamma_outside", layernorm_backward, BROKEN["layernorm_gamma_outside"].layernorm_backward,
        layernorm_gradients(normal(D)), r"wrong: x\n", (layernorm_gradients(np.ones(D)),),
    ),
    Bug(
        "schedule_by_tensor", rates_by_batch, BROKEN["schedule_by_tensor"].learning_rates,
        warm_up_lasts({"w": np.ones(2), "b": np.ones(1)}), "batch 0: the rate is", (warm_up_lasts({"w": np.ones(2)}),),
    ),
    Bug(
        "cross_attention_swapped", (blocks.multi_head_attention_forward, blocks.multi_head_attention_backward),
        broken("cross_attention_swapped", "cross_attention"), decoder_cannot_see_the_future, "it sees the future",
        (gradients_agree(normal(B, TQ, D), normal(B, TQ, D, seed=1), MHA, heads=H),),
    ),
    Bug(
        "no_residual_backward", (blocks.encoder_layer_forward, blocks.encoder_layer_backward),
        broken("no_residual_backward", "encoder_layer"), encoder_layer_gradients,
        r"wrong: x, p\.ln1\.gamma, p\.ln1\.beta, p\.attn",
    ),
    Bug(
        "dv_before_dropout", ATTENTION, broken("dv_before_dropout", "scaled_dot_product_attention"),
        gradients_agree(Q, K, V, dropout=0.3, rng=0), r"wrong: v\n", (gradients_agree(Q, K, V),),
    ),
    Bug(
        "softmax_wrong_axis", (softmax_forward, softmax_backward), broken("softmax_wrong_axis", "softmax"), softmax_by_loops,
        "off by", (rows_sum_to_1, gradients_agree(2 * normal(4, 6))),
    ),
    Bug(
        "softmax_diagonal", softmax_backward, BROKEN["softmax_diagonal"].softmax_backward,
        lambda backward: assert_gradients(softmax_forward, backward, normal(B, TQ, TK)), r"wrong: scores\n",
        (weights_change,),
    ),
    Bug(
        "attention_item_0", ATTENTION, broken("attention_item_0", "scaled_dot_product_attention"), examples_do_not_meet,
        "example 1 gives one result in its batch and another alone", (a_batch_of_one, gradients_agree(Q, K, V)),
    ),
    Bug(
        "adam_stands_still", AdamW, BROKEN["adam_stands_still"].AdamW, adam_follows(steps=99),
        "step 1: a leaves PyTorch's trajectory", (adam_follows(steps=1),),
    ),
    Bug(
        "padding_mask_on_queries", padding_mask, BROKEN["padding_mask_on_queries"].padding_mask, padding_changes_nothing,
        "the padding reaches the words", (attention_accepts, gradients_under_the_mask),
    ),
    Bug(
        "padding_mask_broadcast", padding_mask, BROKEN["padding_mask_broadcast"].padding_mask, attention_accepts,
        "is the mask on the query axis",
    ),
    Bug(
        "sentence_as_batch", (sentence_forward, sentence_backward), broken("sentence_as_batch", "self_attention"),
        heads_by_loops, "off by", (shape_is_kept, gradients_agree(normal(TQ, D), MHA, heads=H)),
    ),
    Bug(
        "layernorm_of_squares", (layernorm_forward, layernorm_backward), broken("layernorm_of_squares", "layernorm"),
        layernorm_far_from_zero, "off by", (layernorm_near_zero, gradients_agree(normal(B, TQ, D), normal(D), normal(D))),
    ),
    Bug(
        "scaled_by_d_model", ATTENTION, broken("scaled_by_d_model", "scaled_dot_product_attention"), attention_as_in_pytorch,
        "off by", (one_head, gradients_agree(Q, K, V)),
    ),
    Bug(
        "mae_without_unshuffle", UNSHUFFLE, broken("mae_without_unshuffle", "unshuffle"), mae_as_in_the_papers_code,
        "off by", (mae_gradients,),
    ),
    Bug(
        "true_patch_statistics", picture_of_visible_statistics, BROKEN["true_patch_statistics"].reconstruct,
        picture_is_made_of_what_is_visible, "hidden pixels change `reconstruction` by", (picture_looks_good,),
    ),
    Bug(
        "bias_gradient_averaged", (linear_forward, linear_backward), broken("bias_gradient_averaged", "linear"),
        gradients_agree(normal(B, TQ, D), normal(D, F), normal(F)), r"wrong: b\n",
        (gradients_agree(normal(1, 1, D), normal(D, F), normal(F)),),
    ),
    Bug(
        "positions_along_batch", (positional_forward, positional_backward), broken("positions_along_batch", "positional"),
        sequences_do_not_meet, "example 1 gives one result in its batch and another alone",
        (gradients_agree(normal(B, TQ, D), TABLE),),
    ),
    Bug(
        "queries_alone", (self_attention_forward, self_attention_backward), broken("queries_alone", "multi_head_attention"),
        gradients_agree(normal(B, TQ, D), MHA, heads=H), r"wrong: x\n", (weights_get_their_gradients,),
    ),
    Bug(
        "mask_multiplied", ATTENTION, broken("mask_multiplied", "scaled_dot_product_attention"),
        forbidden_keys_change_nothing, "forbidden keys change the output by",
        (a_batch_of_one, gradients_agree(Q, K, V, mask=ALLOWED)),
    ),
    Bug(
        "gelu_with_relu_slope", (activation.gelu_forward, activation.gelu_backward), broken("gelu_with_relu_slope", "gelu"),
        gradients_agree(normal(B, TQ, F)), r"wrong: x\n", (gradient_points_the_right_way,),
    ),
    Bug(
        "one_layer_six_times", layers_of_their_own, BROKEN["one_layer_six_times"].encoder_layers, a_step_moves_one_layer,
        "a step of layer 0 moved layer 1", (parameters_add_up,),
    ),
    Bug(
        "greedy_ends_together", greedy, BROKEN["greedy_ends_together"].greedy, sentences_end_alone,
        r"sentence 0 is \[5, 2, 7, 8, 9\] in its batch, and \[5, 2\] alone", (one_sentence_ends, equal_lengths_end),
    ),
    Bug(
        "rnn_without_memory", rnn, BROKEN["rnn_without_memory"].rnn, the_first_token_is_remembered,
        "the first token changes 1 of 4 states", (states_cannot_see_the_future, one_token_is_right),
    ),
    Bug(
        "patch_order", PATCHIFY, broken("patch_order", "patchify"), image_comes_back(channels=3), "off by",
        (image_comes_back(channels=1), pixels_stay_in_their_patch),
    ),
    Bug(
        "order_for_its_inverse", UNSHUFFLE, broken("order_for_its_inverse", "unshuffle"), unshuffle_gradients(2, 0, 3, 1),
        r"wrong: x, mask_token\n", (unshuffle_gradients(0, 1, 2, 3), unshuffle_gradients(2, 1, 0, 3)),
    ),
    Bug(
        "mean_of_means", mean_over_tokens, BROKEN["mean_of_means"].whole_gradient, parts_are_the_whole(2, 5, 9), "off by",
        (parts_are_the_whole(4, 4, 4),),
    ),
]


@pytest.fixture(params=ZOO, ids=lambda bug: bug.file)
def bug(request):
    return request.param


def test_every_file_of_the_zoo_is_here():
    assert sorted(bug.file for bug in ZOO) == sorted(FILES)


def test_the_bug_is_caught(bug):
    bug.check(bug.right)
    with pytest.raises(AssertionError, match=bug.complaint):
        bug.check(bug.broken)


@pytest.mark.parametrize("bug", [bug for bug in ZOO if bug.blind], ids=lambda bug: bug.file)
def test_why_its_author_did_not_see_it(bug):
    for blind in bug.blind:
        blind(bug.right)
        blind(bug.broken)
