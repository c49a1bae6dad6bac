"""Where dropout stands: every block and model against plain NumPy with the same masks put in, and how many masks each draws.

The oracle computes no layer with the package. Its masks are drawn from a generator with the same seed, in the order of the
computation: attention weights, the hidden layer of the feed forward, and the output of a sublayer before it is added. A forward
that equals the oracle and a backward that passes the gradient check with dropout on are both right.
"""
import inspect
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from tinymae import blocks, init
from tinymae.gradcheck.cases import checks, perturbed
from tinymae.masks import causal_mask, padding_mask, shift_right
from tinymae.models import patch_encoder, transformer, vit
from tinymae.models.decoding import greedy
from tinymae.ops import attention, dropout
from tinymae.ops.positional import sinusoidal_interleaved

B, TQ, TK, D, H, F, V = 2, 3, 5, 12, 4, 7, 11
RATE, SEED = 0.3, 5
RNG = np.random.default_rng(0)
X, MEMORY = RNG.normal(size=(B, TQ, D)), RNG.normal(size=(B, TK, D))
PADDING = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)[:, None, None]
CAUSAL = np.tri(TQ, dtype=bool)
SRC = np.array([[3, 4, 5, 6, 2], [7, 8, 2, 0, 0]])
TARGETS = np.array([[4, 9, 2], [5, 2, 0]])


def noisy(name, *args, **options):
    return perturbed(getattr(init, name)(*args, RNG, dtype=np.float64, **options), RNG)


ENCODER, DECODER, FEED = noisy("encoder_layer", D, H, F), noisy("decoder_layer", D, H, F), noisy("feed_forward", D, F)
ENCODERS = {"blocks": [ENCODER, noisy("encoder_layer", D, H, F)], "norm": ENCODER["ln1"]}
DECODERS = {"blocks": [DECODER, noisy("decoder_layer", D, H, F)], "norm": DECODER["ln2"]}
SENTENCES = transformer.TransformerConfig(
    src_vocab=V, tgt_vocab=V, d_model=D, encoder_layers=1, decoder_layers=2, heads=H, d_ff=F, dropout=RATE,
)
IMAGES = vit.ViTConfig(
    img_size=8, patch_size=4, in_chans=2, num_classes=V, embed_dim=D, depth=2, num_heads=H, mlp_ratio=0.6, dropout=RATE,
)
PIXELS, LABELS = RNG.normal(size=(B, 8, 8, 2)), np.array([1, 7])
PATCHES = RNG.normal(size=(B, 4, 32))
SENTENCE_PARAMS = perturbed(transformer.transformer_init(SENTENCES, RNG, np.float64), RNG)
IMAGE_PARAMS = perturbed(vit.vit_init(IMAGES, RNG, np.float64), RNG)


class Draws:
    """Stands in for a Generator, and remembers the shapes that are drawn."""

    def __init__(self, seed=SEED):
        self.rng, self.shapes = np.random.default_rng(seed), []

    def random(self, shape, dtype):
        self.shapes.append(shape)
        return self.rng.random(shape, dtype=dtype)


# ---- the oracle --------------------------------------------------------------------------------------------------------

class Oracle:
    """Layers in plain NumPy; rate 0 for evaluation."""

    def __init__(self, rate=RATE, first=False, eps=1e-5, act=lambda h: np.maximum(h, 0)):
        self.rng, self.rate, self.first, self.eps, self.act = np.random.default_rng(SEED), rate, first, eps, act

    def drop(self, x):
        return x * (self.rng.random(x.shape) >= self.rate) / (1 - self.rate) if self.rate else x

    def norm(self, x, p):
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.eps) * p["gamma"] + p["beta"]

    def attention(self, xq, xkv, p, mask=True):
        if "qkv" in p:
            w, b = (np.split(p["qkv"][name], 3, axis=-1) for name in "wb")
            p = p | {name: {"w": w[i], "b": b[i]} for i, name in enumerate("qkv")}
        q, k, v = ((x @ p[name]["w"] + p[name]["b"]).reshape(len(x), x.shape[1], H, -1)
                   for name, x in zip("qkv", (xq, xkv, xkv), strict=True))
        scores = np.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
        e = np.exp(scores) * mask
        weights = self.drop(e / e.sum(axis=-1, keepdims=True))
        z = np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(len(xq), xq.shape[1], -1)
        return z @ p["out"]["w"] + p["out"]["b"]

    def feed_forward(self, x, p):
        h = self.drop(self.act(x @ p["fc1"]["w"] + p["fc1"]["b"]))
        return h @ p["fc2"]["w"] + p["fc2"]["b"]

    def add(self, x, norm, sublayer):
        if self.first:
            return x + self.drop(sublayer(self.norm(x, norm)))
        return self.norm(x + self.drop(sublayer(x)), norm)

    def encoder_layer(self, x, p, mask=True):
        x = self.add(x, p["ln1"], lambda h: self.attention(h, h, p["attn"], mask))
        return self.add(x, p["ln2"], lambda h: self.feed_forward(h, p["ffn"]))

    def decoder_layer(self, x, memory, p, mask, memory_mask):
        x = self.add(x, p["ln1"], lambda h: self.attention(h, h, p["self_attn"], mask))
        x = self.add(x, p["ln2"], lambda h: self.attention(h, memory, p["cross_attn"], memory_mask))
        return self.add(x, p["ln3"], lambda h: self.feed_forward(h, p["ffn"]))

    def encoder(self, x, p, mask=True):
        for layer in p["blocks"]:
            x = self.encoder_layer(x, layer, mask)
        return self.norm(x, p["norm"]) if "norm" in p else x

    def decoder(self, x, memory, p, mask, memory_mask):
        for layer in p["blocks"]:
            x = self.decoder_layer(x, memory, layer, mask, memory_mask)
        return self.norm(x, p["norm"]) if "norm" in p else x

    def transformer(self, src, targets, params):
        """The logits of the targets that are not padding."""
        def embed(ids):
            table = sinusoidal_interleaved(ids.shape[1], D)
            return self.drop(params["embed"][ids] * math.sqrt(D) + table)

        mask = padding_mask(src)
        memory = self.encoder(embed(src), params["encoder"], mask)
        x = self.decoder(embed(shift_right(targets, 1)), memory, params["decoder"], causal_mask(targets.shape[1]), mask)
        return x[targets != 0] @ params["embed"].T

    def vit_encoder(self, patches, p, positions):
        x = patches @ p["patch_embed"]["w"] + p["patch_embed"]["b"] + positions
        x = np.concatenate([np.repeat(p["cls_token"], len(x), axis=0), x], axis=1)
        return self.encoder(self.drop(x), p)

    def vit(self, images, params):
        patches = images.reshape(B, 2, 4, 2, 4, 2).swapaxes(2, 3).reshape(B, 4, 32)
        latent = self.vit_encoder(patches, params["encoder"], params["positions"])
        return latent[:, 0] @ params["head"]["w"] + params["head"]["b"]


def gelu(x):
    return x * np.vectorize(math.erfc)(-x / math.sqrt(2)) / 2


def vision(rate):
    return Oracle(rate, first=True, eps=1e-6, act=gelu)


HEADS, ENCODED, CROSS = (B, H, TK, TK), (B, TK, D), (B, H, TQ, TK)
LAYER = [HEADS, ENCODED, (B, TK, F), ENCODED]
DECODED = [(B, H, TQ, TQ), (B, TQ, D), CROSS, (B, TQ, D), (B, TQ, F), (B, TQ, D)]
TOKENS = [(B, H, 5, 5), (B, 5, D), (B, 5, F), (B, 5, D)]
POST, PRE = {"norm_first": False, "activation": "relu"}, {"norm_first": True, "activation": "relu"}

# name: (ours(dropout, rng) -> y, theirs(rate) -> y, the shapes of the masks in the order of the paper)
CASES = {
    "dropout": (
        lambda on, rng: dropout.dropout_forward(X, on, rng)[0],
        lambda rate: Oracle(rate).drop(X), [(B, TQ, D)],
    ),
    "self-attention": (
        lambda on, rng: blocks.multi_head_attention_forward(
            MEMORY, MEMORY, ENCODER["attn"], H, PADDING, dropout=on, rng=rng)[0],
        lambda rate: Oracle(rate).attention(MEMORY, MEMORY, ENCODER["attn"], PADDING), [HEADS],
    ),
    "cross-attention": (
        lambda on, rng: blocks.multi_head_attention_forward(
            X, MEMORY, DECODER["cross_attn"], H, PADDING, dropout=on, rng=rng)[0],
        lambda rate: Oracle(rate).attention(X, MEMORY, DECODER["cross_attn"], PADDING), [CROSS],
    ),
    "feed forward": (
        lambda on, rng: blocks.feed_forward_forward(X, FEED, dropout=on, rng=rng)[0],
        lambda rate: Oracle(rate).feed_forward(X, FEED), [(B, TQ, F)],
    ),
    **{f"encoder layer, {'pre' if options['norm_first'] else 'post'}-norm": (
        lambda on, rng, options=options: blocks.encoder_layer_forward(
            MEMORY, ENCODER, H, PADDING, dropout=on, rng=rng, **options)[0],
        lambda rate, options=options: Oracle(rate, options["norm_first"]).encoder_layer(MEMORY, ENCODER, PADDING), LAYER,
    ) for options in (POST, PRE)},
    **{f"decoder layer, {'pre' if options['norm_first'] else 'post'}-norm": (
        lambda on, rng, options=options: blocks.decoder_layer_forward(
            X, MEMORY, DECODER, H, CAUSAL, PADDING, dropout=on, rng=rng, **options)[0],
        lambda rate, options=options: Oracle(rate, options["norm_first"]).decoder_layer(X, MEMORY, DECODER, CAUSAL, PADDING),
        DECODED,
    ) for options in (POST, PRE)},
    "encoder": (
        lambda on, rng: blocks.encoder_forward(MEMORY, ENCODERS, H, PADDING, dropout=on, rng=rng, **PRE)[0],
        lambda rate: Oracle(rate, first=True).encoder(MEMORY, ENCODERS, PADDING), 2 * LAYER,
    ),
    "decoder": (
        lambda on, rng: blocks.decoder_forward(X, MEMORY, DECODERS, H, CAUSAL, PADDING, dropout=on, rng=rng, **PRE)[0],
        lambda rate: Oracle(rate, first=True).decoder(X, MEMORY, DECODERS, CAUSAL, PADDING), 2 * DECODED,
    ),
    "encoder of the ViT": (
        lambda on, rng: patch_encoder.vit_encoder_forward(
            PATCHES, IMAGE_PARAMS["encoder"], IMAGE_PARAMS["positions"], heads=H, dropout=on, rng=rng)[0],
        lambda rate: vision(rate).vit_encoder(PATCHES, IMAGE_PARAMS["encoder"], IMAGE_PARAMS["positions"]),
        [(B, 5, D), *2 * TOKENS],
    ),
    "ViT": (
        lambda on, rng: vit.vit_forward(PIXELS, LABELS, IMAGE_PARAMS, replace(IMAGES, dropout=on), rng=rng)[1]["logits"],
        lambda rate: vision(rate).vit(PIXELS, IMAGE_PARAMS), [(B, 5, D), *2 * TOKENS],
    ),
    "Transformer": (
        lambda on, rng: transformer.transformer_forward(
            SRC, TARGETS, SENTENCE_PARAMS, replace(SENTENCES, dropout=on), rng=rng)[1]["logits"],
        lambda rate: Oracle(rate).transformer(SRC, TARGETS, SENTENCE_PARAMS), [ENCODED, *LAYER, (B, TQ, D), *2 * DECODED],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_dropout_stands_where_the_oracle_has_it(name):
    ours, theirs, _ = CASES[name]
    np.testing.assert_allclose(ours(RATE, np.random.default_rng(SEED)), theirs(RATE), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_masks_that_are_drawn(name):
    ours, _, shapes = CASES[name]
    rng = Draws()
    ours(RATE, rng)
    assert rng.shapes == shapes


@pytest.mark.parametrize("name", CASES)
def test_evaluation_draws_nothing(name, monkeypatch):
    """Without rng the result is that of no dropout, and no other source of random numbers is asked."""
    ours, theirs, _ = CASES[name]
    expected, rng = theirs(0), Draws()
    before = np.random.get_state()[1].tolist()                              # noqa: NPY002  nobody may use this one
    monkeypatch.setattr(np.random, "default_rng", lambda *seed: pytest.fail("evaluation made a Generator"))
    y = ours(RATE, None)
    assert np.random.get_state()[1].tolist() == before                      # noqa: NPY002
    np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(ours(0.0, rng), y)
    assert not rng.shapes


def test_using_a_model_is_evaluation():
    logits = vit.vit_logits(PIXELS, IMAGE_PARAMS, IMAGES)
    np.testing.assert_array_equal(logits, vit.vit_logits(PIXELS, IMAGE_PARAMS, replace(IMAGES, dropout=0.0)))
    np.testing.assert_allclose(logits, vision(0).vit(PIXELS, IMAGE_PARAMS), rtol=1e-11)
    found, plain = (greedy(SRC, SENTENCE_PARAMS, config, max_len=4) for config in (SENTENCES, replace(SENTENCES, dropout=0.0)))
    for a, b in zip(found, plain, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- the gradient check ------------------------------------------------------------------------------------------------

CHECKS = checks()


def dropout_is_on(case):
    """Whether the case draws masks: as the gradient check does, with the seed in its options."""
    rng = Draws()
    if "rng" in case.options:
        case.forward(*case.args, **case.options | {"rng": rng})
    return bool(rng.shapes)


@pytest.mark.parametrize("function", [
    function for module in (dropout, attention, blocks, patch_encoder, transformer, vit) for function in vars(module).values()
    if inspect.isfunction(function) and function.__module__ == module.__name__
    and re.fullmatch(r"[a-z]\w*_forward", function.__name__)
    and {"rng", "layer"} & inspect.signature(function).parameters.keys()
], ids=lambda function: function.__name__)
def test_the_gradient_check_has_dropout_on(function):
    """Each forward that can drop has a case that drops; test_gradient in test_contract.py checks all cases."""
    assert any(dropout_is_on(case) for case in CHECKS if case.function is function)
