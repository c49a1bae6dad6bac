"""The masked autoencoder: what is hidden is hidden, what is kept comes back to its place, and what cannot go in says why."""
import numpy as np
import pytest

from tinymae import tree
from tinymae.gradcheck.invariants import assert_mask_hides
from tinymae.models.attention_maps import mae_attention
from tinymae.models.mae import (
    MAEConfig,
    mae_backward,
    mae_count,
    mae_decays,
    mae_decoder_forward,
    mae_forward,
    mae_init,
    mae_reconstruct,
    random_masking,
)
from tinymae.models.patch_encoder import check_images, vit_encoder_forward
from tinymae.ops.layernorm import layernorm_forward
from tinymae.ops.losses import masked_mse_forward

SIZES = {
    "img_size": 12, "patch_size": 4, "in_chans": 3, "embed_dim": 8, "depth": 2, "num_heads": 2, "decoder_embed_dim": 12,
    "decoder_depth": 1, "decoder_num_heads": 3, "mask_ratio": 0.6,
}


def model(dtype=np.float64, **changed):
    """(config, params, images, noise) of a tiny model with random parameters, biases and gains too."""
    config = MAEConfig(**(SIZES | changed))
    rng = np.random.default_rng(5)
    params = tree.map(lambda leaf: leaf + (0.1 * rng.normal(size=leaf.shape)).astype(dtype), mae_init(config, rng, dtype))
    images = rng.normal(size=(2, config.img_size, config.img_size, config.in_chans)).astype(dtype)
    return config, params, images, rng.random((2, config.num_patches))


def patches_of(images, p=4):
    """(B, N, P), cut with loops."""
    batch, rows, cols, _ = images.shape
    return np.array([
        [images[b, r : r + p, c : c + p].reshape(-1) for r in range(0, rows, p) for c in range(0, cols, p)]
        for b in range(batch)
    ])


def hidden_pixels(mask, config):
    """bool (B, img_size, img_size): True under the mask."""
    down, across = config.grid
    patch = np.ones((config.patch_size, config.patch_size))
    return np.array([np.kron(row.reshape(down, across), patch) for row in mask]) == 1


# Masking


def test_random_masking_example():
    """Small noise stays: patches 3, 0 and 4 of the first picture, 1, 2 and 0 of the second."""
    noise = np.array([[0.2, 0.9, 0.5, 0.1, 0.3, 0.7], [0.3, 0.1, 0.2, 0.9, 0.8, 0.7]])
    ids_keep, ids_restore, mask = random_masking(noise, 0.5)
    assert ids_keep.tolist() == [[3, 0, 4], [1, 2, 0]]
    assert ids_restore.tolist() == [[1, 5, 3, 0, 2, 4], [2, 0, 1, 5, 4, 3]]
    assert mask.tolist() == [[0, 1, 1, 0, 0, 1], [0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.75, 0.95, 0.99])
@pytest.mark.parametrize("number", [1, 4, 9, 49])
def test_random_masking_is_consistent(number, ratio):
    noise = np.random.default_rng(0).random((3, number))
    ids_keep, ids_restore, mask = random_masking(noise, ratio)
    kept = int(number * (1 - ratio))
    assert ids_keep.shape == (3, kept) and ids_restore.shape == mask.shape == (3, number)
    assert mask.dtype == np.int8 and set(np.unique(mask)) <= {0, 1}
    for b in range(3):
        assert sorted(ids_restore[b]) == list(range(number))
        assert np.flatnonzero(mask[b] == 0).tolist() == sorted(ids_keep[b])
        assert ids_restore[b, ids_keep[b]].tolist() == list(range(kept))
        assert noise[b, mask[b] == 0].max(initial=0) <= noise[b, mask[b] == 1].min(initial=1)


def test_random_masking_is_random_for_each_picture():
    mask = random_masking(np.random.default_rng(0).random((200, 16)), 0.75)[2]
    assert (mask.sum(axis=1) == 12).all()
    assert len({tuple(row) for row in mask}) > 150
    assert np.abs(mask.mean(axis=0) - 0.75).max() < 0.15        # every patch is hidden as often; 5 standard deviations


@pytest.mark.parametrize("ratio", [1.0, 1.5, -0.1, float("nan"), float("inf")])
def test_mask_ratio_outside_its_range(ratio):
    with pytest.raises(ValueError, match=rf"mask_ratio to be a number in \[0, 1\), got {ratio}"):
        random_masking(np.zeros((1, 4)), ratio)
    with pytest.raises(ValueError, match=rf"mask_ratio to be a number in \[0, 1\), got {ratio}"):
        MAEConfig(**(SIZES | {"mask_ratio": ratio}))


# The encoder sees what is visible, the decoder puts it back


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_hidden_pixels_cannot_change_the_encoder(channels):
    config, params, images, noise = model(in_chans=channels)
    ids_keep, _, mask = random_masking(noise, config.mask_ratio)

    def encode(images):
        positions = config.position_tables(np.float64)[0]
        return vit_encoder_forward(patches_of(images), params["encoder"], positions, heads=2, ids_keep=ids_keep)[0]

    assert encode(images).shape == (2, 1 + ids_keep.shape[1], 8)
    assert_mask_hides(encode, images, mask, config.patch_size)


def test_hidden_pixels_cannot_change_the_prediction():
    config, params, images, noise = model()
    *_, mask = random_masking(noise, config.mask_ratio)
    assert_mask_hides(lambda x: mae_forward(x, params, config, noise)[1]["pred"], images, mask, config.patch_size)


def test_the_decoder_puts_visible_tokens_back_in_place():
    """Without decoder layers, with identities for its maps and zeros for positions, a prediction is its own token."""
    config = MAEConfig(**(SIZES | {"decoder_depth": 0}))
    width = config.decoder_embed_dim
    p = mae_init(config, np.random.default_rng(0), np.float64)["decoder"]
    for name in ("embed", "pred"):
        p[name] = {"w": np.eye(width), "b": np.zeros(width)}
    noise = np.random.default_rng(1).random((2, 9))
    ids_keep, ids_restore, mask = random_masking(noise, 0.5)
    latent = np.random.default_rng(2).normal(size=(2, 1 + ids_keep.shape[1], width))
    pred, _ = mae_decoder_forward(latent, p, np.zeros((9, width)), heads=config.decoder_num_heads, ids_restore=ids_restore)
    assert pred.shape == (2, 9, width)
    ones, zeros = np.ones(width), np.zeros(width)
    normed, _ = layernorm_forward(latent, ones, zeros, eps=1e-6)
    token, _ = layernorm_forward(p["mask_token"][0, 0], ones, zeros, eps=1e-6)
    for b in range(2):
        for n in range(9):
            expected = token if mask[b, n] else normed[b, 1 + list(ids_keep[b]).index(n)]
            np.testing.assert_allclose(pred[b, n], expected, atol=1e-12, err_msg=f"picture {b}, patch {n}")


def test_the_order_of_the_shuffle_does_not_matter():
    """Other noise that hides the same patches: the encoder meets them in another order, the prediction is the same."""
    config, params, images, noise = model()
    ids_keep, _, mask = random_masking(noise, config.mask_ratio)
    other = noise.copy()
    for b in range(2):
        other[b, ids_keep[b]] = noise[b, ids_keep[b][::-1]]
        hidden = np.flatnonzero(mask[b])
        other[b, hidden] = noise[b, hidden[::-1]]
    ids_other, _, same = random_masking(other, config.mask_ratio)
    assert (same == mask).all() and (ids_other != ids_keep).any()
    loss, cache = mae_forward(images, params, config, noise)
    loss_other, cache_other = mae_forward(images, params, config, other)
    np.testing.assert_allclose(cache_other["pred"], cache["pred"], rtol=0, atol=1e-12)
    assert loss_other == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize(("dtype", "channels"), [(np.float32, 1), (np.float32, 2), (np.float64, 4)])
def test_any_number_of_channels(dtype, channels):
    config, params, images, noise = model(dtype, in_chans=channels)
    loss, cache = mae_forward(images, params, config, noise)
    assert cache["pred"].shape == (2, 9, 16 * channels) and cache["pred"].dtype == loss.dtype == dtype
    dparams = mae_backward(1.0, cache)
    for (path, gradient), (same, leaf) in zip(tree.leaves(dparams), tree.leaves(params), strict=True):
        assert path == same and gradient.shape == leaf.shape and gradient.dtype == dtype, path
        assert np.abs(gradient).max() > 0, path
    assert mae_reconstruct(images, params, config, noise).pasted.shape == images.shape


# The loss


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_the_loss_is_the_mean_over_hidden_patches(norm_pix_loss):
    config, params, images, noise = model(norm_pix_loss=norm_pix_loss)
    loss, cache = mae_forward(images, params, config, noise)
    *_, mask = random_masking(noise, config.mask_ratio)
    np.testing.assert_array_equal(cache["mask"], mask)
    errors = []
    for b in range(2):
        for n, patch in enumerate(patches_of(images)[b]):
            target = patch
            if norm_pix_loss:
                target = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
            if mask[b, n]:
                errors.append(np.mean((cache["pred"][b, n] - target) ** 2))
    assert len(errors) == 2 * (9 - int(9 * 0.4))
    assert loss == pytest.approx(np.mean(errors), rel=1e-12)


def test_visible_targets_do_not_enter_the_loss():
    config, params, images, noise = model()
    loss, cache = mae_forward(images, params, config, noise)
    patches, mask = patches_of(images), cache["mask"]
    visible, hidden = patches.copy(), patches.copy()
    visible[mask == 0] += 100
    hidden[mask == 1] += 100
    assert masked_mse_forward(cache["pred"], visible, mask)[0] == loss
    assert masked_mse_forward(cache["pred"], hidden, mask)[0] > loss + 1000


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_nothing_hidden_is_no_loss_and_no_gradient(norm_pix_loss):
    config, params, images, noise = model(mask_ratio=0.0, norm_pix_loss=norm_pix_loss)
    loss, cache = mae_forward(images, params, config, noise)
    assert loss == 0 and not cache["mask"].any() and np.isfinite(cache["pred"]).all()
    for path, gradient in tree.leaves(mae_backward(1.0, cache)):
        assert (gradient == 0).all(), path                      # NaN is not 0
    np.testing.assert_array_equal(mae_reconstruct(images, params, config, noise).pasted, images)


def test_nothing_visible_still_predicts():
    """0.95 of nine patches leaves none: the class token and the mask tokens are all there is."""
    config, params, images, noise = model(mask_ratio=0.95)
    loss, cache = mae_forward(images, params, config, noise)
    assert cache["mask"].all() and np.isfinite(loss)
    np.testing.assert_array_equal(cache["pred"][0], cache["pred"][1])
    gradients = dict(tree.leaves(mae_backward(1.0, cache)))
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert (gradients["encoder.patch_embed.w"] == 0).all() and (gradients["encoder.cls_token"] != 0).any()


def test_nothing_is_written_into():
    config, params, images, noise = model()
    for array in (images, noise, *(leaf for _, leaf in tree.leaves(params))):
        array.setflags(write=False)
    _, cache = mae_forward(images, params, config, noise)
    mae_backward(1.0, cache)
    mae_reconstruct(images, params, config, noise)
    mae_attention(images, params, config)


# Reconstruction


@pytest.mark.parametrize("statistics", ["visible", "true"])
@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_pasted_keeps_visible_pixels_exactly(norm_pix_loss, statistics):
    config, params, images, noise = model(np.float32, norm_pix_loss=norm_pix_loss)
    shown = mae_reconstruct(images, params, config, noise, statistics=statistics)
    hidden = hidden_pixels(shown.mask, config)
    assert all(picture.shape == images.shape and picture.dtype == np.float32 for picture in shown[:3])
    np.testing.assert_array_equal(shown.pasted[~hidden], images[~hidden])
    np.testing.assert_array_equal(shown.pasted[hidden], shown.reconstruction[hidden])
    np.testing.assert_array_equal(shown.masked[~hidden], images[~hidden])
    assert (shown.masked[hidden] == 0).all() and hidden.any() and not hidden.all()
    assert not np.array_equal(shown.reconstruction[~hidden], images[~hidden])


def test_plain_reconstruction_is_the_prediction():
    config, params, images, noise = model()
    shown = mae_reconstruct(images, params, config, noise)
    _, cache = mae_forward(images, params, config, noise)
    assert shown.mode == ""
    np.testing.assert_array_equal(patches_of(shown.reconstruction), cache["pred"])
    np.testing.assert_array_equal(shown.mask, cache["mask"])


def test_modes_are_named():
    config, params, images, noise = model(norm_pix_loss=True)
    visible = mae_reconstruct(images, params, config, noise)
    true = mae_reconstruct(images, params, config, noise, statistics="true")
    assert "visible" in visible.mode and "TRUE" not in visible.mode and "leak" not in visible.mode
    assert "TRUE" in true.mode and "leak" in true.mode
    with pytest.raises(ValueError, match="'visible' or 'true', got 'best'"):
        mae_reconstruct(images, params, config, noise, statistics="best")


def test_statistics_of_the_reconstruction():
    config, params, images, noise = model(norm_pix_loss=True)
    _, cache = mae_forward(images, params, config, noise)
    patches, mask = patches_of(images), cache["mask"]
    mean, std = patches.mean(axis=2), np.sqrt(patches.var(axis=2, ddof=1) + 1e-6)
    true = patches_of(mae_reconstruct(images, params, config, noise, statistics="true").reconstruction)
    np.testing.assert_allclose(true, cache["pred"] * std[..., None] + mean[..., None], atol=1e-12)
    visible = patches_of(mae_reconstruct(images, params, config, noise).reconstruction)
    for b in range(2):
        seen = mask[b] == 0
        np.testing.assert_allclose(visible[b], cache["pred"][b] * std[b, seen].mean() + mean[b, seen].mean(), atol=1e-12)


@pytest.mark.parametrize(("norm_pix_loss", "statistics", "leaks"), [
    (False, "visible", False), (False, "true", False), (True, "visible", False), (True, "true", True),
])
def test_what_hidden_pixels_tell_the_reconstruction(norm_pix_loss, statistics, leaks):
    config, params, images, noise = model(norm_pix_loss=norm_pix_loss)
    before = mae_reconstruct(images, params, config, noise, statistics=statistics)
    hidden = hidden_pixels(before.mask, config)
    other = np.where(hidden[..., None], 3 * images + 1, images)
    after = mae_reconstruct(other, params, config, noise, statistics=statistics)
    for name in ("masked", "reconstruction", "pasted"):
        same = np.array_equal(getattr(before, name), getattr(after, name))
        assert same == (not leaks or name == "masked"), name


# What goes in


@pytest.mark.parametrize(("images", "error", "message"), [
    (np.zeros((2, 12, 12, 3), np.uint8), TypeError, "float32 or float64 pixels, got uint8: images.pixels.to_pixels"),
    (np.zeros((2, 12, 12, 3), int), TypeError, "got int64"),
    (np.zeros((2, 12, 12, 3), np.float16), TypeError, "got float16"),
    (np.zeros((12, 12, 3)), ValueError, r"\(B, 12, 12, 3\), got \(12, 12, 3\): is the batch axis missing"),
    (np.zeros((1, 2, 12, 12, 3)), ValueError, r"got \(1, 2, 12, 12, 3\)"),
    (np.zeros((2, 3, 12, 12)), ValueError, r"3 channels on the last axis, got images \(2, 3, 12, 12\): are the channels first"),
    (np.zeros((2, 12, 12, 1)), ValueError, "3 channels on the last axis.*: grey and colour do not mix"),
    (np.zeros((2, 12, 12, 4)), ValueError, "3 channels on the last axis"),
    (np.zeros((2, 16, 12, 3)), ValueError, r"12 x 12 pixels, got \(2, 16, 12, 3\): crop or resize"),
    (np.zeros((2, 13, 13, 3)), ValueError, "12 x 12 pixels"),
    (np.full((2, 12, 12, 3), np.nan), ValueError, "finite pixels, got NaN or infinity"),
])
def test_images_that_cannot_go_in(images, error, message):
    config, params, _, noise = model()
    for function in (
        lambda: check_images(images, config.img_size, config.in_chans),
        lambda: mae_forward(images, params, config, noise),
        lambda: mae_reconstruct(images, params, config, noise),
        lambda: mae_attention(images, params, config),
    ):
        with pytest.raises(error, match=message):
            function()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_pixel_is_found(value):
    config, params, images, noise = model()
    images[1, 11, 11, 2] = value
    with pytest.raises(ValueError, match="finite pixels"):
        mae_forward(images, params, config, noise)


@pytest.mark.parametrize("shape", [(2, 8), (1, 9), (3, 9), (9,), (2, 9, 1), (9, 2)])
def test_noise_that_does_not_fit(shape):
    config, params, images, _ = model()
    with pytest.raises(ValueError, match=r"noise \(B, N\) = \(2, 9\), got \(" + ", ".join(map(str, shape))):
        mae_forward(images, params, config, np.zeros(shape))


@pytest.mark.parametrize(("changed", "message"), [
    ({"img_size": 13}, "img_size to be a multiple of patch_size 4, got 13"),
    ({"img_size": 0}, "img_size .* got 0"),
    ({"img_size": -4}, "img_size .* got -4"),
    ({"patch_size": 0}, "patch_size to be a whole number of at least 1, got 0"),
    ({"patch_size": 24}, "patch_size 24, got 12"),
    ({"embed_dim": 6}, "embed_dim to be a multiple of 4 and of its 2 heads, got 6"),
    ({"embed_dim": 0}, "embed_dim .* got 0"),
    ({"decoder_embed_dim": -4}, "decoder_embed_dim .* got -4"),
    ({"num_heads": 3}, "embed_dim .* its 3 heads, got 8"),
    ({"num_heads": 0}, "num_heads to be a whole number of at least 1, got 0"),
    ({"decoder_embed_dim": 10, "decoder_num_heads": 5}, "decoder_embed_dim to be a multiple of 4 .* got 10"),
    ({"decoder_num_heads": 5}, "decoder_embed_dim .* its 5 heads, got 12"),
    ({"in_chans": 0}, "in_chans to be a whole number of at least 1, got 0"),
    ({"depth": -1}, "depth to be a whole number of at least 0, got -1"),
    ({"decoder_depth": -1}, "depth to be a whole number of at least 0, got -1"),
])
def test_sizes_that_do_not_fit(changed, message):
    with pytest.raises(ValueError, match=message):
        MAEConfig(**(SIZES | changed))


def test_config():
    config = MAEConfig(**SIZES)
    assert config.grid == (3, 3) and config.values == 48
    encoder, decoder = config.position_tables(np.float64)
    assert encoder.shape == (9, 8) and decoder.shape == (9, 12) and encoder.dtype == np.float64
    assert config.position_tables()[0].dtype == np.float32
    assert len({tuple(row) for row in encoder}) == 9            # no two patches stand in the same place


# Parameters and attention


def test_weight_decay_acts_on_matrices_and_tokens_only():
    _, params, *_ = model()
    decays = dict(tree.leaves(mae_decays(params)))
    assert decays.keys() == dict(tree.leaves(params)).keys()
    for path, decay in decays.items():
        assert decay is (path.endswith((".w", "cls_token", "mask_token"))), path
    assert sum(decays.values()) == 1 + 4 * 2 + 1 + 4 + 1 + 2    # embeddings, four in each layer, prediction, two tokens


def test_init_without_rng_has_the_shapes():
    config = MAEConfig(**SIZES)
    zeros, params = mae_init(config, None), mae_init(config, np.random.default_rng(0))
    for (path, zero), (same, leaf) in zip(tree.leaves(zeros), tree.leaves(params), strict=True):
        assert path == same and zero.shape == leaf.shape and zero.dtype == leaf.dtype == np.float32, path
        assert (zero == (1 if path.endswith("gamma") else 0)).all(), path
        drawn = not path.endswith((".b", "beta")) or path == "encoder.patch_embed.b"
        assert leaf.any() == drawn, path
    assert all(leaf.dtype == np.float64 for _, leaf in tree.leaves(mae_init(config, None, np.float64)))


def test_init_is_the_same_for_the_same_seed():
    config = MAEConfig(**SIZES)
    first, second, other = (mae_init(config, np.random.default_rng(seed)) for seed in (0, 0, 1))
    for (path, a), (_, b), (_, c) in zip(*map(tree.leaves, (first, second, other)), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=path)
        drawn = not path.endswith((".b", "beta", "gamma")) or path == "encoder.patch_embed.b"
        assert np.array_equal(a, c) != drawn, path
    w = mae_init(MAEConfig(**(SIZES | {"embed_dim": 64})), np.random.default_rng(0))["encoder"]["patch_embed"]["w"]
    bound = np.sqrt(6 / (48 + 64))
    assert 0.98 * bound < np.abs(w).max() <= bound              # xavier's
    b = mae_init(MAEConfig(**(SIZES | {"embed_dim": 512})), np.random.default_rng(0))["encoder"]["patch_embed"]["b"]
    assert 0.98 / np.sqrt(48) < np.abs(b).max() <= 1 / np.sqrt(48)      # the default of nn.Conv2d, from which the paper starts


def test_count():
    def layer(width, hidden):
        return 4 * width + 4 * width * width + 4 * width + 2 * width * hidden + hidden + width

    config = MAEConfig(**(SIZES | {"mlp_ratio": 1.5}))
    encoder = (48 * 8 + 8) + 8 + 2 * layer(8, 12) + 2 * 8
    decoder = (8 * 12 + 12) + 12 + layer(12, 18) + 2 * 12 + (12 * 48 + 48)
    assert tree.count(mae_init(config, None)) == encoder + decoder
    assert mae_count(config) == encoder + decoder + 10 * (8 + 12)


def test_attention():
    config, params, images, _ = model(np.float32)
    layers = mae_attention(images, params, config)
    assert len(layers) == config.depth
    for weights in layers:
        assert weights.shape == (2, 2, 10, 10) and weights.dtype == np.float32
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    assert not np.allclose(layers[0], layers[1])
    assert not np.allclose(layers[0][0], layers[0][1])


def test_patches_with_equal_noise_stay_in_their_order():
    noise = np.tile(np.arange(400) % 3, (2, 1)) / 3
    ids_keep, ids_restore, mask = random_masking(noise, 0.5)
    order = [patch for rest in range(3) for patch in range(rest, 400, 3)]
    for row in range(2):
        np.testing.assert_array_equal(ids_keep[row], order[:200])
        np.testing.assert_array_equal(ids_restore[row][order], np.arange(400))
        np.testing.assert_array_equal(mask[row][order], np.arange(400) >= 200)
