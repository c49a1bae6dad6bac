"""Blocks refuse what would silently be computed as something else."""
import numpy as np
import pytest

from tinymae import blocks, init
from tinymae.models.mae import MAEConfig, mae_backward, mae_forward, mae_init
from tinymae.models.transformer import TransformerConfig, transformer_backward, transformer_forward, transformer_init
from tinymae.models.vit import ViTConfig, vit_backward, vit_forward, vit_init
from tinymae.ops.layernorm import layernorm_forward

D, H, F = 12, 3, 7
RNG = np.random.default_rng(0)
X, MEMORY = RNG.normal(size=(2, 3, D)), RNG.normal(size=(2, 5, D))


def float64(name, *args, **options):
    return getattr(init, name)(*args, RNG, dtype=np.float64, **options)


@pytest.mark.parametrize("norm_first", [True, False])
def test_add_norm_is_its_equation(norm_first):
    norm = {"gamma": RNG.normal(size=D), "beta": RNG.normal(size=D)}
    y, cache = blocks.add_norm_forward(X, norm, lambda h: (3 * h, "mine"), norm_first=norm_first)
    expected = X + 3 * layernorm_forward(X, **norm)[0] if norm_first else layernorm_forward(4 * X, **norm)[0]
    np.testing.assert_allclose(y, expected, rtol=1e-13)
    assert cache["sublayer"] == "mine"


def test_a_fused_projection_has_three_equal_parts():
    with pytest.raises(ValueError, match="d_k equal to d_v in a fused projection, got 2 and 5"):
        init.multi_head_attention(D, H, RNG, d_k=2, d_v=5, fused=True)
    wide = {"qkv": {"w": np.ones((D, 27))}, "out": {"w": np.ones((15, D))}}            # d_k = 2, d_v = 5: 27 = 3 * 9
    with pytest.raises(ValueError, match="27 columns, with an output projection of 15 rows"):
        blocks.multi_head_attention_forward(X, X, wide, H)
    with pytest.raises(ValueError, match="three equal parts, queries, keys and values, got 28 columns"):
        blocks.multi_head_attention_forward(X, X, {"qkv": {"w": np.ones((D, 28))}}, H)


@pytest.mark.parametrize("name", "qkv")
def test_heads_that_do_not_divide_a_projection(name):
    p = {key: {"w": np.ones((D, 13 if key == name else 12))} for key in "qkv"} | {"out": {"w": np.ones((12, D))}}
    with pytest.raises(ValueError, match="a projection whose columns are a multiple of 3 heads, got 13"):
        blocks.multi_head_attention_forward(X, X, p, H)


def test_an_unknown_activation():
    p = float64("feed_forward", D, F)
    with pytest.raises(ValueError, match="activation among relu, gelu, gelu_tanh, swish, got 'silu'"):
        blocks.feed_forward_forward(X, p, "silu")
    y, cache = blocks.feed_forward_forward(X, p)
    with pytest.raises(ValueError, match="got 'Relu'"):
        blocks.feed_forward_backward(y, cache | {"activation": "Relu"})
    with pytest.raises(ValueError, match="got 'tanh'"):
        TransformerConfig(activation="tanh")


def stack_and_its_backward(kind):
    layers = {"blocks": [float64(f"{kind}_layer", D, H, F) for _ in range(2)], "norm": init.layernorm(D, np.float64)}
    if kind == "encoder":
        y, cache = blocks.encoder_forward(X, layers, H)
        return lambda: blocks.encoder_backward(np.ones_like(y), cache)
    y, cache = blocks.decoder_forward(X, MEMORY, layers, H)
    return lambda: blocks.decoder_backward(np.ones_like(y), cache)


def model_and_its_backward(kind):
    if kind == "mae":
        config = MAEConfig(8, 4, 1, 8, 2, 2, 8, 1, 2)
        images, noise = RNG.normal(size=(2, 8, 8, 1)), RNG.random((2, 4))
        _, cache = mae_forward(images, mae_init(config, RNG, np.float64), config, noise)
        return lambda: mae_backward(1.0, cache)
    if kind == "vit":
        config = ViTConfig(8, 4, 1, 3, 8, 2, 2)
        _, cache = vit_forward(RNG.normal(size=(2, 8, 8, 1)), np.array([0, 2]), vit_init(config, RNG, np.float64), config)
        return lambda: vit_backward(1.0, cache)
    config = TransformerConfig(9, 9, 8, 1, 1, 2, 16)
    ids = RNG.integers(3, 9, (2, 4))
    _, cache = transformer_forward(ids, ids, transformer_init(config, RNG, np.float64), config)
    return lambda: transformer_backward(1.0, cache)


@pytest.mark.parametrize("backward", [
    *(pytest.param(lambda kind=kind: stack_and_its_backward(kind), id=kind) for kind in ("encoder", "decoder")),
    *(pytest.param(lambda kind=kind: model_and_its_backward(kind), id=kind) for kind in ("mae", "vit", "transformer")),
])
def test_a_cache_serves_one_backward(backward):
    """A second one used to return dy as dx, and no gradient for the layers."""
    again = backward()
    again()
    with pytest.raises(ValueError, match=r"expected a fresh cache, got one with 0 of its \d layers"):
        again()


def without(tree, key):
    return {name: branch for name, branch in tree.items() if name != key}


@pytest.mark.parametrize(("call", "kind", "message"), [
    (lambda: blocks.feed_forward_forward(X, {"fc1": {}}), ValueError, "feed_forward: .* a dict 'fc2', got the keys 'fc1'"),
    (lambda: blocks.feed_forward_forward(X, {"fc1": X, "fc2": X}), ValueError, "a dict 'fc1', got something else"),
    (lambda: blocks.feed_forward_forward(X, {"fc1": {"w": X[0]}, "fc2": {}}), ValueError, r"linear: expected x \(\.\.\."),
    (lambda: blocks.encoder_layer_forward(X, without(float64("encoder_layer", D, H, F), "ln2"), H), ValueError,
     "encoder_layer: .* a dict 'ln2', got the keys 'ln1', 'attn', 'ffn': see `init`"),
    (lambda: blocks.decoder_layer_forward(X, MEMORY, {}, H), ValueError, "decoder_layer: .* a dict 'ln1'"),
    (lambda: blocks.encoder_forward(X, None, H), ValueError, "encoder: .* a list 'blocks'"),
    (lambda: blocks.decoder_forward(X, MEMORY, {"blocks": {}}, H), ValueError, "decoder: .* a list 'blocks'"),
    (lambda: blocks.multi_head_attention_forward(X, X, {"q": {}, "v": {}}, H), ValueError, "attention: .* a dict 'k'"),
    (lambda: blocks.multi_head_attention_forward(X[0], X, float64("multi_head_attention", D, H), H), ValueError,
     r"attention: expected xq \(B, T, D\), got .*: is the batch axis missing"),
    (lambda: blocks.multi_head_attention_forward(X, X, float64("multi_head_attention", D, H), 0), ValueError,
     "heads to be a whole number of at least 1, got 0"),
    (lambda: blocks.add_norm_forward(X, init.layernorm(D, np.float64), lambda h: (h[:, :1], None), norm_first=True), ValueError,
     "add_norm: expected a sublayer that keeps the shape"),
])
def test_parameters_that_are_missing(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
