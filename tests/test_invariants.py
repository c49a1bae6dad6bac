"""The invariants hold for our models, and fail for models with the faults they are there to find."""
from contextlib import nullcontext

import numpy as np
import pytest

from tinymae import init
from tinymae.blocks import encoder_layer_forward
from tinymae.gradcheck.invariants import assert_batch_independent, assert_mask_hides, assert_pad_invariant
from tinymae.models.mae import MAEConfig, mae_decoder_forward, mae_init, mae_reconstruct, random_masking
from tinymae.models.patch_encoder import vit_encoder_forward
from tinymae.ops.patches import patchify_forward

CONFIG = MAEConfig(
    img_size=12, patch_size=4, in_chans=2, embed_dim=8, depth=2, num_heads=2, decoder_embed_dim=8, decoder_depth=1,
    decoder_num_heads=2, mask_ratio=0.5,
)
PARAMS = mae_init(CONFIG, np.random.default_rng(0))
IMAGES = np.random.default_rng(1).normal(size=(3, 12, 12, 2)).astype(np.float32)
NOISE = np.random.default_rng(2).random((3, 9))
IDS_KEEP, IDS_RESTORE, MASK = random_masking(NOISE, 0.5)


def encode(images, ids_keep=IDS_KEEP):
    patches, _ = patchify_forward(images, 4)
    return vit_encoder_forward(patches, PARAMS["encoder"], CONFIG.position_tables()[0][:9], heads=2, ids_keep=ids_keep)[0]


# assert_mask_hides


def test_mask_hides_for_the_encoder_of_the_mae():
    assert_mask_hides(encode, IMAGES, MASK, 4)


def test_mask_hides_writes_into_nothing():
    images, mask = IMAGES.copy(), MASK.copy()
    images.setflags(write=False)
    mask.setflags(write=False)
    assert_mask_hides(encode, images, mask, 4)


def peeks_everywhere(images):
    return encode(images, ids_keep=None)


def peeks_through_a_mean(images):
    return encode(images - images.mean(axis=(1, 2, 3), keepdims=True))


def peeks_a_little(images):
    return encode(images) + np.float32(1e-5) * images.sum()


def peeks_at_one_pixel(images):
    removed = np.kron(MASK[1].reshape(3, 3), np.ones((4, 4)))
    row, col = np.argwhere(removed == 1)[-1]
    latent = encode(images)
    latent[1, 0, 0] += images[1, row, col, 1]
    return latent


@pytest.mark.parametrize("peeker", [peeks_everywhere, peeks_through_a_mean, peeks_a_little, peeks_at_one_pixel])
def test_mask_hides_finds_an_encoder_that_peeks(peeker):
    with pytest.raises(AssertionError, match=r"pixels under the mask reach the output: output\[\d+, \d+, \d+\] is"):
        assert_mask_hides(peeker, IMAGES, MASK, 4)


def test_mask_hides_finds_an_encoder_that_makes_nan_of_hidden_pixels():
    def divides(images):
        latent = encode(images)
        latent[0, 0, 0] = np.nan if images is not IMAGES else 0
        return latent

    with pytest.raises(AssertionError, match=r"output\[0, 0, 0\] is 0 and then nan"):
        assert_mask_hides(divides, IMAGES, MASK, 4)


def test_mask_hides_finds_a_mask_the_wrong_way_round():
    with pytest.raises(AssertionError, match="pixels under the mask reach the output"):
        assert_mask_hides(encode, IMAGES, 1 - MASK, 4)


def test_mask_hides_finds_an_encoder_that_sees_nothing():
    with pytest.raises(AssertionError, match=r"visible pixels do not reach the output: .* 1 = removed"):
        assert_mask_hides(lambda images: np.zeros((3, 5)), IMAGES, MASK, 4)


def test_mask_hides_refuses_other_numbers():
    with pytest.raises(ValueError, match="expected a mask of 0 and 1 = removed, got 2"):
        assert_mask_hides(encode, IMAGES, 2 * MASK, 4)


@pytest.mark.parametrize("value", [0, 1])
def test_mask_hides_wants_something_to_see(value):
    with pytest.raises(ValueError, match="hides some patches and shows some"):
        assert_mask_hides(encode, IMAGES, np.full_like(MASK, value), 4)


def test_mask_hides_on_a_rectangle():
    """Patches are counted row by row: a mask read column by column would hide others."""
    images = np.random.default_rng(1).normal(size=(1, 2, 6, 1))
    mask = np.array([[0, 1, 1]])

    def first_patch(images):
        return images[:, :, :2].reshape(1, -1)

    assert_mask_hides(first_patch, images, mask, 2)
    with pytest.raises(AssertionError, match="under the mask"):
        assert_mask_hides(first_patch, images, np.array([[1, 0, 1]]), 2)


@pytest.mark.parametrize("seed", [0, 1])
def test_mask_hides_for_pictures_drawn_from_the_same_seed(seed):
    """What replaces the pixels must differ from them, however they were made."""
    images = np.random.default_rng(seed).normal(size=IMAGES.shape).astype(np.float32)
    assert_mask_hides(encode, images, MASK, 4, seed=seed)
    with pytest.raises(AssertionError, match="pixels under the mask reach the output"):
        assert_mask_hides(peeks_everywhere, images, MASK, 4, seed=seed)


# assert_batch_independent


def test_batch_independent_for_the_encoder_layer():
    rng = np.random.default_rng(0)
    p = init.encoder_layer(8, 2, 16, rng)
    x = rng.normal(size=(3, 5, 8)).astype(np.float32)
    for norm_first in (True, False):
        assert_batch_independent(lambda x: encoder_layer_forward(x, p, 2, norm_first=norm_first)[0], x)     # noqa: B023


def test_batch_independent_for_the_pieces_of_the_mae():
    assert_batch_independent(encode, IMAGES, IDS_KEEP)
    decoder_positions = CONFIG.position_tables()[1]
    assert_batch_independent(
        lambda latent, ids: mae_decoder_forward(latent, PARAMS["decoder"], decoder_positions, heads=2, ids_restore=ids)[0],
        encode(IMAGES), IDS_RESTORE,
    )


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_batch_independent_for_the_reconstruction(norm_pix_loss):
    config = MAEConfig(**{**vars(CONFIG), "norm_pix_loss": norm_pix_loss})
    for part in range(3):
        assert_batch_independent(lambda x, noise: mae_reconstruct(x, PARAMS, config, noise)[part], IMAGES, NOISE)  # noqa: B023


def batch_norm(x):
    return (x - x.mean(axis=0)) / x.std(axis=0).clip(1e-3)


def item_zero_only(x):
    """Attention weights of the first example, used for all."""
    weights = np.exp(x[0] @ x[0].T)
    return (weights / weights.sum(axis=-1, keepdims=True)) @ x


def running_sum(x):
    return x + 1e-3 * np.cumsum(x, axis=0)


@pytest.mark.parametrize(("function", "example"), [(batch_norm, 0), (item_zero_only, 1), (running_sum, 1)])
def test_batch_independent_finds_examples_that_see_each_other(function, example):
    x = np.random.default_rng(0).normal(size=(3, 5, 8))
    words = rf"example {example} gives one result in its batch and another alone: output\[{example}, "
    with pytest.raises(AssertionError, match=words):
        assert_batch_independent(function, x)


def test_batch_independent_finds_a_batch_that_shrinks_and_nan():
    x = np.random.default_rng(0).normal(size=(3, 5))
    with pytest.raises(AssertionError, match="expected 3 results for 3 examples, got 1"):
        assert_batch_independent(lambda x: x.mean(axis=0, keepdims=True), x)
    with pytest.raises(AssertionError, match="example 0"):
        assert_batch_independent(lambda x: np.full_like(x, np.nan), x)


def test_batch_independent_wants_two_examples():
    with pytest.raises(ValueError, match="at least two examples"):
        assert_batch_independent(abs, np.ones((1, 3)))
    with pytest.raises(ValueError, match="at least two examples"):
        assert_batch_independent(np.add, np.ones((2, 3)), np.ones((1, 3)))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("roundings", "complains"), [(50, False), (200, True)])
def test_what_rounding_may_change_is_relative_to_the_largest_number(roundings, complains, scale):
    """50 roundings of the largest number are nothing, 200 are a leak: in small outputs as in large ones."""
    x = scale * np.random.default_rng(0).uniform(1, 2, (3, 4))
    mask = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
    x[0, 0] = 2 * scale
    noise = roundings * np.finfo(float).eps * 2 * scale

    def expected(complaint):
        return pytest.raises(AssertionError, match=complaint) if complains else nullcontext()

    with expected("one result in its batch and another alone"):
        assert_batch_independent(lambda x: x + noise * (len(x) == 1), x)
    with expected("two more positions of padding reach the output"):
        assert_pad_invariant(lambda x, mask: x[mask] + noise * (mask.shape[1] > 4), x, mask)
