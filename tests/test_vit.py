"""The Vision Transformer: PyTorch's numbers, article B's example, fine-tuning, and what cannot go in says why."""
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinymae import init, tree
from tinymae.blocks import attention_weights, multi_head_attention_backward, multi_head_attention_forward
from tinymae.gradcheck.invariants import assert_batch_independent
from tinymae.models.attention_maps import attention_rollout, mae_attention, vit_attention
from tinymae.models.fine_tuning import interpolate_positions, layer_rates, resize_vit, vit_decays
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.models.patch_encoder import encoder_features, vit_encoder_forward
from tinymae.models.vit import ViTConfig, vit_backward, vit_forward, vit_init, vit_logits, vit_positions
from tinymae.ops.patches import patchify_forward
from tinymae.ops.positional import sincos_2d
from tinymae.train.optim import AdamW

with np.load(Path(__file__).parent / "golden" / "vit.npz") as file:
    GOLDEN = dict(file)

SIZES = {"img_size": 12, "patch_size": 4, "in_chans": 3, "num_classes": 5, "embed_dim": 8, "depth": 2, "num_heads": 2}
TOKEN = ViTConfig(**SIZES)
MEAN = replace(TOKEN, pool="mean")
CONFIGS = {"token": TOKEN, "mean": MEAN}
TARGETS = {"plain": ("labels", 0.0), "smooth": ("labels", 0.1), "shares": ("shares", 0.1)}


@pytest.fixture(params=[(np.float64, 1e-12), (np.float32, 1e-5)], ids=["float64", "float32"])
def precision(request):
    """(cast, check) as in test_golden.py."""
    dtype, tolerance = request.param

    def cast(array):
        return array.astype(dtype) if array.dtype == np.float64 else array

    def check(name, ours, reference):
        ours = np.asarray(ours)
        assert ours.shape == reference.shape, name
        assert ours.dtype == dtype, f"{name} is {ours.dtype}"
        error = np.abs(ours - reference).max() / np.abs(reference).max()
        assert error < tolerance, f"{name}: relative error {error:.1e}"

    return cast, check


def golden_tree(prefix, config, cast=lambda array: array):
    like = vit_init(config, None)
    return tree.unflatten({path: cast(GOLDEN[prefix + path]).copy() for path, _ in tree.leaves(like)}, like)


def model(dtype=np.float64, **changed):
    """(config, params, images) of a tiny model with random parameters, biases and gains too."""
    config = ViTConfig(**(SIZES | changed))
    rng = np.random.default_rng(5)
    params = tree.map(lambda leaf: leaf + (0.3 * rng.normal(size=leaf.shape)).astype(dtype), vit_init(config, rng, dtype))
    return config, params, rng.normal(size=(3, config.img_size, config.img_size, config.in_chans)).astype(dtype)


# ---- PyTorch's numbers ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("case", CONFIGS)
def test_loss_and_every_gradient(case, targets, precision):
    cast, check = precision
    config, (labels, smoothing) = CONFIGS[case], TARGETS[targets]
    params = golden_tree(f"{case}.param.", config, cast)
    loss, cache = vit_forward(cast(GOLDEN["images"]), cast(GOLDEN[labels]), params, config, label_smoothing=smoothing)
    check("logits", cache["logits"], GOLDEN[f"{case}.logits"])
    check("loss", loss, GOLDEN[f"{case}.{targets}.loss"])
    grads = vit_backward(1.0, cache)
    references = golden_tree(f"{case}.{targets}.grad.", config)
    for (path, gradient), (other, reference) in zip(tree.leaves(grads), tree.leaves(references), strict=True):
        assert path == other
        check(path, gradient, reference)


def test_fixed_positions_are_the_learned_ones_that_start_there(precision):
    cast, check = precision
    fixed = replace(MEAN, position_encoding="fixed")
    params = golden_tree("mean.param.", fixed, cast)
    assert "positions" not in params
    loss, cache = vit_forward(cast(GOLDEN["images"]), GOLDEN["labels"], params, fixed)
    check("loss", loss, GOLDEN["mean.plain.loss"])
    grads, references = vit_backward(1.0, cache), golden_tree("mean.plain.grad.", fixed)
    for (path, gradient), (other, reference) in zip(tree.leaves(grads), tree.leaves(references), strict=True):
        assert path == other
        check(path, gradient, reference)


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_logits_are_those_of_training(pool):
    """With another eps and head dimension than the defaults, and as attention maps see them."""
    config, params, images = model(pool=pool, eps=1e-2, head_dim=3)
    _, cache = vit_forward(images, np.array([0, 1, 2]), params, config)
    np.testing.assert_array_equal(vit_logits(images, params, config), cache["logits"])
    blocks = cache["encoder"]["encoder"]["blocks"]
    for weights, block in zip(vit_attention(images, params, config), blocks, strict=True):
        np.testing.assert_array_equal(weights, attention_weights(block["attn"]["sublayer"]))


@pytest.mark.parametrize("case", CONFIGS)
def test_logits_without_a_cache(case, precision):
    cast, check = precision
    params = golden_tree(f"{case}.param.", CONFIGS[case], cast)
    check("logits", vit_logits(cast(GOLDEN["images"]), params, CONFIGS[case]), GOLDEN[f"{case}.logits"])


def test_ten_steps_of_fine_tuning(precision):
    """Layer-wise decay of the rate, weight decay on matrices only, smoothed shares: each step's loss, and where it ends."""
    cast, check = precision
    params = golden_tree("mean.param.", MEAN, cast)
    optimizer = AdamW(params, weight_decay=0.05, decays=vit_decays(params), rates=layer_rates(params, MEAN, 0.65))
    images, shares = cast(GOLDEN["images"]), cast(GOLDEN["shares"])
    losses = []
    for _ in range(10):
        loss, cache = vit_forward(images, shares, params, MEAN, label_smoothing=0.1)
        losses.append(loss)
        optimizer.step(params, vit_backward(1.0, cache), lr=4e-3)
    check("losses", np.array(losses), GOLDEN["train.losses"])
    if losses[0].dtype == np.float64:
        for (path, leaf), (_, reference) in zip(
            tree.leaves(params), tree.leaves(golden_tree("train.param.", MEAN)), strict=True
        ):
            if path.endswith("qkv.b"):                          # the key's third: gradient 0, so Adam divides noise by noise
                leaf, reference = (np.delete(a, np.s_[a.size // 3 : 2 * a.size // 3]) for a in (leaf, reference))
            np.testing.assert_allclose(leaf, reference, rtol=0, atol=1e-11, err_msg=path)


@pytest.mark.parametrize("case", range(5))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_interpolated_positions(case, dtype):
    positions, grid, new_grid, y = (GOLDEN[f"interpolate.{case}.{name}"] for name in ("positions", "grid", "new_grid", "y"))
    ours = interpolate_positions(positions.astype(dtype), tuple(grid.tolist()), tuple(new_grid.tolist()))
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, y, rtol=0, atol=1e-13 if dtype == np.float64 else 1e-6)


def test_a_larger_picture(precision):
    cast, check = precision
    params, config = resize_vit(golden_tree("token.param.", TOKEN, cast), TOKEN, 20)
    assert config == replace(TOKEN, img_size=20)
    check("logits", vit_logits(cast(GOLDEN["large"]), params, config), GOLDEN["token.large.logits"])


def test_attention_maps():
    params = golden_tree("token.param.", TOKEN)
    layers = vit_attention(GOLDEN["images"], params, TOKEN)
    assert len(layers) == 2
    for i, layer in enumerate(layers):                          # transformers takes its softmax in float32
        np.testing.assert_allclose(layer, GOLDEN[f"token.attention.{i}"], rtol=0, atol=1e-6)


def test_parameter_counts():
    """ViT-B/16 and ViT-L/16 with 1000 classes; mean pooling has the same number: fc_norm stands in for norm."""
    base = ViTConfig()
    pooled = replace(base, pool="mean", position_encoding="fixed")
    large = replace(base, embed_dim=1024, depth=24, num_heads=16)
    assert GOLDEN["count"] == 86_567_656
    assert tree.count(vit_init(base, None)) == 86_567_656 - 768         # the class token's position is part of the token
    assert tree.count(vit_init(pooled, None)) == 86_567_656 - 197 * 768
    assert tree.count(vit_init(large, None)) == 304_326_632 - 1024


# ---- article B --------------------------------------------------------------------------------------------------------

def attention_b(x, to_qkv, heads, head_dim, to_out=None):
    """Article B's Attention(dim, heads, head_dim), written as its steps: project, split, weigh, sum, merge, project."""
    batch, length, _ = x.shape
    y = np.empty((batch, length, heads * head_dim))
    for b in range(batch):
        q, k, v = np.split(x[b] @ to_qkv, 3, axis=1)
        for h in range(heads):
            part = slice(h * head_dim, (h + 1) * head_dim)
            scores = q[:, part] @ k[:, part].T / math.sqrt(head_dim)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            y[b, :, part] = weights / weights.sum(axis=1, keepdims=True) @ v[:, part]
    return y if to_out is None else y @ to_out["w"] + to_out["b"]


@pytest.mark.parametrize(("heads", "head_dim"), [(8, 64), (1, 512), (3, 20)])
def test_article_b_example(heads, head_dim):
    """[7, 257, 512]: seven pictures of 256 patches and a class token. A head as wide as the model has no output projection."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 257, 512)).astype(np.float32)
    project_out = not (heads == 1 and head_dim == 512)
    p = {"qkv": init.linear(512, 3 * heads * head_dim, rng, bias=False)}
    if project_out:
        p["out"] = init.linear(heads * head_dim, 512, rng)
        p["out"]["b"] += rng.normal(size=512).astype(np.float32)
    y, cache = multi_head_attention_forward(x, x, p, heads)
    assert y.shape == (7, 257, 512) and y.dtype == np.float32
    expected = attention_b(x.astype(np.float64), p["qkv"]["w"].astype(np.float64), heads, head_dim, p.get("out"))
    np.testing.assert_allclose(y, expected, atol=1e-4)
    dxq, _, dp = multi_head_attention_backward(np.ones_like(y), cache)
    assert dxq.shape == x.shape
    assert [path for path, _ in tree.leaves(dp)] == [path for path, _ in tree.leaves(p)]


def test_head_dim_is_the_width_of_one_head():
    config, params, images = model(head_dim=5)
    attn = params["encoder"]["blocks"][0]["attn"]
    assert attn["qkv"]["w"].shape == (8, 3 * 2 * 5) and attn["out"]["w"].shape == (10, 8)
    assert vit_logits(images, params, config).shape == (3, 5)
    same = vit_init(replace(TOKEN, head_dim=4), np.random.default_rng(0))
    assert [leaf.shape for _, leaf in tree.leaves(same)] == [leaf.shape for _, leaf in tree.leaves(vit_init(TOKEN, None))]


@pytest.mark.parametrize(("heads", "head_dim", "projected"), [
    (1, 8, False), (1, None, True), (1, 4, True), (2, 8, True), (2, 4, True),
])
def test_article_b_rule_for_the_output_projection(heads, head_dim, projected):
    config, params, images = model(num_heads=heads, head_dim=head_dim)
    assert ("out" in params["encoder"]["blocks"][1]["attn"]) == projected
    loss, cache = vit_forward(images, np.array([0, 1, 2]), params, config)
    assert np.isfinite(loss)
    assert [p for p, _ in tree.leaves(vit_backward(1.0, cache))] == [p for p, _ in tree.leaves(params)]


# ---- the model --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("pool", ["token", "mean"])
@pytest.mark.parametrize("positions", ["learned", "fixed"])
def test_the_first_loss_is_that_of_knowing_nothing(pool, positions):
    config = replace(TOKEN, pool=pool, position_encoding=positions)
    params = vit_init(config, np.random.default_rng(0))
    loss, _ = vit_forward(model(np.float32)[2], np.array([0, 4, 2]), params, config)
    assert loss.dtype == np.float32
    assert loss == pytest.approx(math.log(5), abs=1e-3)


def test_pooling():
    """The token model asks the class token only, the mean model the patches only; both through a norm."""
    config, params, images = model()
    latent = encoder_features(images, params["encoder"], params["positions"], heads=2, patch_size=4)
    np.testing.assert_allclose(
        vit_logits(images, params, config), latent[:, 0] @ params["head"]["w"] + params["head"]["b"], rtol=1e-12
    )
    config, params, images = model(pool="mean")
    assert "norm" not in params["encoder"]
    latent = encoder_features(images, params["encoder"], params["positions"], heads=2, patch_size=4)
    mean = sum(latent[:, 1 + n] for n in range(9)) / 9
    centred = mean - mean.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
    pooled = normed * params["fc_norm"]["gamma"] + params["fc_norm"]["beta"]
    np.testing.assert_allclose(
        vit_logits(images, params, config), pooled @ params["head"]["w"] + params["head"]["b"], rtol=1e-10
    )


@pytest.mark.parametrize("norm", [True, False])
def test_encoder_features_are_the_latent_without_a_cache(norm):
    _, params, images = model()
    encoder = params["encoder"] if norm else {k: v for k, v in params["encoder"].items() if k != "norm"}
    patches, _ = patchify_forward(images, 4)
    latent, _ = vit_encoder_forward(patches, encoder, params["positions"], heads=2, eps=1e-3)
    features = encoder_features(images, encoder, params["positions"], heads=2, patch_size=4, eps=1e-3)
    np.testing.assert_array_equal(features, latent)


def test_encoder_features_of_a_masked_autoencoder():
    config = MAEConfig(img_size=12, patch_size=4, embed_dim=8, depth=2, num_heads=2, decoder_embed_dim=8, decoder_depth=1,
                       decoder_num_heads=2)
    params = mae_init(config, np.random.default_rng(0))
    images = model(np.float32)[2]
    latent = encoder_features(images, params["encoder"], config.position_tables()[0], heads=2, patch_size=4)
    assert latent.shape == (3, 10, 8) and latent.dtype == np.float32


def test_every_picture_is_on_its_own():
    for pool in ("token", "mean"):
        config, params, images = model(pool=pool)
        assert_batch_independent(lambda x, p=params, c=config: vit_logits(x, p, c), images)


def test_without_positions_a_picture_is_a_bag_of_patches():
    """Patches in another order: the same logits with zeros for positions, others with learned ones."""
    config, params, images = model()
    turned = images[:, ::-1].reshape(3, 3, 4, 12, 3)[:, :, ::-1].reshape(images.shape)     # rows of patches swapped
    assert not np.allclose(vit_logits(images, params, config), vit_logits(turned, params, config))
    params = params | {"positions": np.zeros_like(params["positions"])}
    np.testing.assert_allclose(vit_logits(images, params, config), vit_logits(turned, params, config), rtol=1e-10)


def test_dropout_is_on_only_with_an_rng():
    config, params, images = model(dropout=0.3)
    labels = np.array([0, 1, 2])
    plain = vit_forward(images, labels, params, config)[0]
    assert plain == vit_forward(images, labels, params, replace(config, dropout=0.0))[0]
    draws = [vit_forward(images, labels, params, config, rng=np.random.default_rng(seed))[0] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2] and plain not in draws


def test_one_hot_shares_are_labels():
    config, params, images = model()
    labels = np.array([4, 0, 1])
    hard, cache = vit_forward(images, labels, params, config, label_smoothing=0.1)
    soft, other = vit_forward(images, np.eye(5)[labels], params, config, label_smoothing=0.1)
    assert soft == pytest.approx(hard, rel=1e-14)
    for (path, a), (_, b) in zip(
        tree.leaves(vit_backward(1.0, cache)), tree.leaves(vit_backward(1.0, other)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-14, err_msg=path)


def test_shares_of_another_precision_keep_float32():
    config, params, images = model(np.float32)
    loss, cache = vit_forward(images, np.eye(5)[[0, 1, 2]], params, config)
    assert loss.dtype == np.float32
    assert all(leaf.dtype == np.float32 for _, leaf in tree.leaves(vit_backward(1.0, cache)))


def test_it_learns():
    """Three kinds of pictures, told apart by the side that is bright."""
    config = ViTConfig(img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=8, depth=1, num_heads=2)
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    images = 0.3 * rng.normal(size=(24, 8, 8, 1)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[(np.s_[:4], np.s_[4:], np.s_[2:6])[label]] += 1
    params = vit_init(config, rng)
    optimizer = AdamW(params)
    for _ in range(150):
        _, cache = vit_forward(images, labels, params, config)
        optimizer.step(params, vit_backward(1.0, cache), 5e-3)
    assert (vit_logits(images, params, config).argmax(axis=1) == labels).all()


# ---- fine-tuning ------------------------------------------------------------------------------------------------------

def test_layer_rates():
    """Depth 2: the head and the last norm 1, the top block 1/2, the bottom one 1/4, what is below the blocks 1/8."""
    for config in (TOKEN, MEAN, replace(MEAN, position_encoding="fixed")):
        rates = dict(tree.leaves(layer_rates(vit_init(config, None), config, 0.5)))
        for path, rate in rates.items():
            where = {"encoder.blocks.0": 0.25, "encoder.blocks.1": 0.5, "encoder.norm": 1, "fc_norm": 1, "head": 1,
                     "encoder.patch_embed": 0.125, "encoder.cls_token": 0.125, "positions": 0.125}
            (expected,) = (value for prefix, value in where.items() if path.startswith(prefix))
            assert rate == expected, path


def test_layer_rates_of_a_deep_model_and_of_no_decay():
    """ViT-B with 0.65: 14 heights, 0.65^13 at the bottom; block 10 is above block 1 though "10" sorts below "2"."""
    config = replace(TOKEN, depth=12)
    params = vit_init(config, None)
    rates = layer_rates(params, config, 0.65)
    blocks = [block["ln1"]["gamma"] for block in rates["encoder"]["blocks"]]
    np.testing.assert_allclose(blocks, [0.65 ** (12 - i) for i in range(12)], rtol=1e-15)
    assert rates["positions"] == pytest.approx(0.0036972, rel=1e-4)
    assert {rate for _, rate in tree.leaves(layer_rates(params, config, 1.0))} == {1.0}
    for decay in (0, -0.5, 1.5, float("nan")):
        with pytest.raises(ValueError, match=rf"decay in \(0, 1\], got {decay}"):
            layer_rates(params, config, decay)
    with pytest.raises(ValueError, match=r"parameters of a classifier, got 'decoder\.norm\.gamma', which is in none"):
        layer_rates(params | {"decoder": {"norm": params["encoder"]["norm"]}}, config, 0.65)


def test_weight_decay_acts_on_matrices():
    decays = dict(tree.leaves(vit_decays(vit_init(MEAN, None))))
    assert {path for path, on in decays.items() if on} == {path for path in decays if path.endswith(".w")}


def test_resizing_to_the_same_size_changes_nothing():
    config, params, _ = model()
    assert resize_vit(params, config, 12) == (params, config)


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_resized_fixed_positions_are_learned_ones(pool):
    config, params, _ = model(np.float32, position_encoding="fixed", pool=pool)
    resized, changed = resize_vit(params, config, 24)
    assert changed == replace(config, img_size=24, position_encoding="learned")
    assert "positions" not in params
    like = vit_init(changed, None)
    assert [(path, leaf.shape, leaf.dtype) for path, leaf in tree.leaves(resized)] == [
        (path, leaf.shape, leaf.dtype) for path, leaf in tree.leaves(like)
    ]
    middle = resized["positions"].reshape(6, 6, 8)[1:5, 1:5]    # every old one lies between four new ones
    np.testing.assert_allclose(middle.mean(axis=(0, 1)), sincos_2d((3, 3), 8)[4], atol=0.2)
    assert resized["encoder"] is params["encoder"]


def test_interpolation_keeps_what_does_not_change():
    flat = interpolate_positions(np.full((6, 2), 0.7), (2, 3), (5, 4))
    np.testing.assert_allclose(flat, 0.7, rtol=1e-14)
    table = np.random.default_rng(0).normal(size=(6, 2))
    same = interpolate_positions(table, (2, 3), (2, 3))
    np.testing.assert_allclose(same, table, rtol=1e-14)
    assert not np.shares_memory(same, table)


def test_vit_positions():
    config, params, _ = model()
    assert vit_positions(params, config) is params["positions"]
    fixed = vit_positions({}, replace(config, position_encoding="fixed"), np.float32)
    assert fixed.dtype == np.float32
    np.testing.assert_allclose(fixed, sincos_2d((3, 3), 8), atol=1e-7)


# ---- looking inside ---------------------------------------------------------------------------------------------------

def test_rollout_by_hand():
    """Two layers, two tokens, two heads: (mean + identity) / 2 of each, the upper times the lower."""
    lower = np.array([[[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]]])      # mean [[1/2, 1/2], [1, 0]]
    upper = np.array([[[[0.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]])      # mean [[0, 1], [0, 1]]
    a, b = np.array([[0.75, 0.25], [0.5, 0.5]]), np.array([[0.5, 0.5], [0.0, 1.0]])
    np.testing.assert_allclose(attention_rollout([lower]), [a])
    np.testing.assert_allclose(attention_rollout([lower, upper]), [b @ a])
    assert not np.allclose(b @ a, a @ b)


def test_rollout_of_models():
    config, params, images = model(np.float32)
    rollout = attention_rollout(vit_attention(images, params, config))
    assert rollout.shape == (3, 10, 10) and rollout.dtype == np.float32
    np.testing.assert_allclose(rollout.sum(axis=2), 1, atol=1e-6)
    mae = MAEConfig(img_size=12, patch_size=4, embed_dim=8, depth=3, num_heads=2, decoder_embed_dim=8, decoder_depth=1,
                    decoder_num_heads=2)
    layers = mae_attention(images, mae_init(mae, np.random.default_rng(0)), mae)
    assert len(layers) == 3 and attention_rollout(layers).shape == (3, 10, 10)


@pytest.mark.parametrize(("layers", "says"), [
    ([], "at least one layer"),
    ([np.zeros((2, 3, 3))], r"\(B, H, T, T\), got \(2, 3, 3\)"),
    ([np.zeros((1, 2, 3, 4))], "self-attention only"),
])
def test_rollout_refuses(layers, says):
    with pytest.raises(ValueError, match=says):
        attention_rollout(layers)


# ---- errors that teach ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("changed", "says"), [
    ({"img_size": 13}, "multiple of patch_size 4, got 13"),
    ({"img_size": 0}, "got 0"),
    ({"pool": "max"}, "pool 'token' or 'mean', got 'max'"),
    ({"position_encoding": "sincos"}, "position_encoding 'learned' or 'fixed', got 'sincos'"),
    ({"num_heads": 3}, "multiple of 3 heads, got 8: or give head_dim"),
    ({"num_heads": 0}, "num_heads to be a whole number of at least 1, got 0"),
    ({"head_dim": 0}, "head_dim to be a whole number of at least 1, got 0"),
    ({"embed_dim": 6, "position_encoding": "fixed"}, "multiple of 4 for fixed positions, got 6"),
    ({"num_classes": 0}, "num_classes to be a whole number of at least 1, got 0"),
    ({"in_chans": 0}, "in_chans to be a whole number of at least 1, got 0"),
    ({"depth": -1}, "depth to be a whole number of at least 0, got -1"),
    ({"dropout": 1.0}, r"dropout to be a number in \[0, 1\), got 1\.0"),
])
def test_config_refuses(changed, says):
    with pytest.raises(ValueError, match=says):
        ViTConfig(**(SIZES | changed))


@pytest.mark.parametrize(("change", "error", "says"), [
    (lambda x, y: (x.astype(np.uint8), y), TypeError, "got uint8: images.pixels.to_pixels"),
    (lambda x, y: (x[0], y), ValueError, "is the batch axis missing"),
    (lambda x, y: (x.transpose(0, 3, 1, 2), y), ValueError, "channels first"),
    (lambda x, y: (x[..., :1], y), ValueError, "grey and colour"),
    (lambda x, y: (x[:, :8, :8], y), ValueError, r"12 x 12 pixels, got \(3, 8, 8, 3\)"),
    (lambda x, y: (x * np.nan, y), ValueError, "finite pixels"),
    (lambda x, y: (x, y[:2]), ValueError, r"labels \(3,\) of class numbers, or \(3, 5\) of probabilities, got \(2,\) of int64"),
    (lambda x, y: (x, y.astype(float)), ValueError, r"got \(3,\) of float64"),
    (lambda x, y: (x, np.eye(5, dtype=int)[y]), ValueError, r"got \(3, 5\) of int64"),
    (lambda x, y: (x, np.eye(6)[y]), ValueError, r"got \(3, 6\)"),
    (lambda x, y: (x, np.array(["a", "b", "c"])), TypeError, "number the names"),
    (lambda x, y: (x, y + 4), IndexError, r"labels in \[0, 5\), got \[4, 6\]: does num_classes fit"),
    (lambda x, y: (x, y - 1), IndexError, r"expected labels in \[0, 5\), got \[-1, 1\]: does num_classes fit"),
])
def test_forward_refuses(change, error, says):
    config, params, images = model()
    changed, labels = change(images, np.array([0, 1, 2]))
    with pytest.raises(error, match=says):
        vit_forward(changed, labels, params, config)
    if changed is not images:                                   # using a model refuses the same images
        for use in (vit_logits, vit_attention):
            with pytest.raises(error, match=says):
                use(changed, params, config)


def test_images_of_another_shape_with_as_many_patches():
    """4 x 36 pixels are nine patches, too: only the check of the images sees it."""
    config, params, images = model()
    with pytest.raises(ValueError, match=r"12 x 12 pixels, got \(3, 4, 36, 3\): crop or resize"):
        vit_logits(images.reshape(3, 4, 36, 3), params, config)


@pytest.mark.parametrize(("grid", "new_grid", "says"), [
    ((2, 2), (3, 3), r"4 positions for the grid \(2, 2\), got \(5, 2\): leave the class token's out"),
    ((3, 3), (2, 2), r"9 positions for the grid \(3, 3\), got \(5, 2\)$"),
    ((1, 5), (0, 5), r"at least 1 x 1, got \(0, 5\)"),
    ((1, 5), (1, 5, 1), "longer than argument 1"),
])
def test_interpolation_refuses(grid, new_grid, says):
    with pytest.raises(ValueError, match=says):
        interpolate_positions(np.zeros((5, 2)), grid, new_grid)
