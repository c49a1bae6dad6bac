"""Once for all models: what is computed has the dtype of the parameters, and fresh parameters start as they should."""
import math
import re
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from tinymae import tree
from tinymae.models.attention_maps import attention_rollout, mae_attention, vit_attention
from tinymae.models.decoding import beam_search, greedy, sample
from tinymae.models.fine_tuning import resize_vit
from tinymae.models.mae import (
    MAEConfig,
    StoredPositions,
    mae_backward,
    mae_forward,
    mae_init,
    mae_reconstruct,
    random_masking,
)
from tinymae.models.patch_encoder import encoder_features
from tinymae.models.transformer import (
    POSITION_ENCODINGS,
    TransformerConfig,
    decode,
    encode,
    position_table,
    to_vocabulary,
    transformer_backward,
    transformer_forward,
    transformer_init,
)
from tinymae.models.vit import ViTConfig, vit_backward, vit_forward, vit_init, vit_logits, vit_positions
from tinymae.ops.losses import normalise_patches
from tinymae.train.optim import AdamW, clip_grad_norm

SENTENCES = TransformerConfig(
    src_vocab=9, tgt_vocab=9, d_model=8, encoder_layers=1, decoder_layers=1, heads=2, d_ff=6, max_len=8,
)
TRANSFORMERS = {
    **{name: replace(SENTENCES, position_encoding=name) for name in (*POSITION_ENCODINGS, "learned")},
    "pre-norm, output bias": replace(SENTENCES, norm_first=True, activation="gelu", output_bias=True),
    "three matrices, swish": replace(SENTENCES, tie="none", activation="swish", final_norm=True),
    "tied output": replace(SENTENCES, tie="output", activation="gelu_tanh", scale_embedding=False),
}
PICTURES = ViTConfig(img_size=8, patch_size=4, in_chans=2, num_classes=5, embed_dim=8, depth=1, num_heads=2, dropout=0.1)
VITS = {
    f"{pool}, {positions}": replace(PICTURES, pool=pool, position_encoding=positions)
    for pool in ("token", "mean") for positions in ("learned", "fixed")
}
HIDDEN = MAEConfig(
    img_size=8, patch_size=4, in_chans=2, embed_dim=8, depth=1, num_heads=2, decoder_embed_dim=4, decoder_depth=1,
    decoder_num_heads=2, mask_ratio=0.5,
)
TABLES = tuple(table.astype(np.float64) for table in HIDDEN.position_tables(np.float64))
MAES = {
    "plain pixels": HIDDEN, "normalised pixels": replace(HIDDEN, norm_pix_loss=True),
    "positions of a file": StoredPositions(**vars(HIDDEN), tables=TABLES),
}


def assert_dtype(dtype, **results):
    """Every float array and NumPy float in the results, in trees, tuples and lists, has this dtype."""
    def walk(path, value):
        if isinstance(value, (tuple, list)):
            for i, item in enumerate(value):
                walk(f"{path}.{i}", item)
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(f"{path}.{key}", item)
        elif isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "f":
            assert value.dtype == dtype, f"{path} is {value.dtype}"

    for name, value in results.items():
        walk(name, value)


def train(params, gradient):
    """One step of the optimiser; its moments."""
    optimizer = AdamW(params, weight_decay=0.1)
    clip_grad_norm(gradient, 1.0)
    optimizer.step(params, gradient, 1e-3)
    return [optimizer.m, optimizer.v, params]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("config", TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_transformer(config, dtype):
    rng = np.random.default_rng(0)
    params = transformer_init(config, rng, dtype)
    src, targets = rng.integers(3, 9, (2, 4)), rng.integers(3, 9, (2, 5))
    memory, encoder = encode(src, params, config, rng=rng)
    x, decoder = decode(targets, memory, src, params, config, rng=rng)
    loss, cache = transformer_forward(src, targets, params, config, label_smoothing=0.1, rng=rng)
    assert_dtype(
        dtype, params=params, memory=memory, encoder=encoder, x=x, decoder=decoder, loss=loss, cache=cache,
        logits=to_vocabulary(x, params, config)[0], positions=position_table("src", 4, params, config),
    )
    gradient = transformer_backward(1.0, cache)
    assert_dtype(dtype, gradient=gradient)
    for found in (greedy(src, params, config, max_len=3), beam_search(src, params, config, beam=2, max_len=3),
                  sample(src, params, config, rng=rng, max_len=3)):
        assert_dtype(dtype, cross=found.cross, self_attention=found.self_attention)
        assert found.log_probs.dtype == np.float64              # a sum over the tokens
    assert_dtype(dtype, trained=train(params, gradient))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("config", VITS.values(), ids=VITS)
def test_vit(config, dtype):
    rng = np.random.default_rng(0)
    params = vit_init(config, rng, dtype)
    images = rng.normal(size=(2, 8, 8, 2)).astype(dtype)
    assert_dtype(dtype, params=params, resized=resize_vit(params, config, 12)[0])
    positions = vit_positions(params, config, dtype)
    for labels in (np.array([0, 4]), np.eye(5)[[0, 4]]):        # float64 shares, as data often are
        loss, cache = vit_forward(images, labels, params, config, label_smoothing=0.1, rng=rng)
        assert_dtype(dtype, loss=loss, cache=cache)
        gradient = vit_backward(1.0, cache)
        assert_dtype(dtype, gradient=gradient)
    attention = vit_attention(images, params, config)
    assert_dtype(
        dtype, positions=positions, logits=vit_logits(images, params, config), attention=attention,
        rollout=attention_rollout(attention),
        features=encoder_features(images, params["encoder"], positions, heads=2, patch_size=4),
    )
    assert_dtype(dtype, trained=train(params, gradient))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("config", MAES.values(), ids=MAES)
def test_mae(config, dtype):
    rng = np.random.default_rng(0)
    params = mae_init(config, rng, dtype)
    images, noise = rng.normal(size=(2, 8, 8, 2)).astype(dtype), rng.random((2, 4))
    loss, cache = mae_forward(images, params, config, noise)
    assert_dtype(dtype, params=params, positions=config.position_tables(dtype), loss=loss, cache=cache)
    assert random_masking(noise, 0.5)[2].dtype == np.int8
    for statistics in ("visible", "true"):
        assert_dtype(dtype, drawn=tuple(mae_reconstruct(images, params, config, noise, statistics=statistics))[:3])
    gradient = mae_backward(1.0, cache)
    attention = mae_attention(images, params, config)
    assert_dtype(dtype, gradient=gradient, attention=attention, normalised=normalise_patches(images.reshape(2, 4, 32)))
    assert_dtype(dtype, trained=train(params, gradient))


FRESH = {
    **{f"transformer, {name}": lambda rng, c=config: transformer_init(c, rng) for name, config in TRANSFORMERS.items()},
    **{f"vit, {name}": lambda rng, c=config: vit_init(c, rng) for name, config in VITS.items()},
    "mae": lambda rng: mae_init(HIDDEN, rng),
}


@pytest.mark.parametrize("make", FRESH.values(), ids=FRESH)
def test_fresh_parameters(make):
    """gamma starts at 1, beta and every bias (a MAE's first apart) at 0, and every matrix is drawn; without rng it is 0."""
    for rng in (np.random.default_rng(0), None):
        for path, leaf in tree.leaves(make(rng)):
            name = path.rpartition(".")[2]
            if make is FRESH["mae"] and path == "encoder.patch_embed.b":
                assert (leaf == 0).all() == (rng is None), path
            elif name in ("gamma", "beta", "b"):
                assert (leaf == (name == "gamma")).all(), path
            else:
                assert leaf.ndim > 1 and (leaf == 0).all() == (rng is None), path


@pytest.mark.parametrize(("config", "name"), [
    (SENTENCES, "d_model"), (PICTURES, "embed_dim"), (HIDDEN, "embed_dim"), (MAES["positions of a file"], "tables"),
])
def test_a_config_does_not_change(config, name):
    """What was checked when it was made stays right: `replace` makes another, and checks it."""
    with pytest.raises(FrozenInstanceError, match=name):
        setattr(config, name, 7)
    assert hash(config) == hash(replace(config))


def test_stored_positions_are_not_printed_or_compared():
    stored = MAES["positions of a file"]
    assert "tables" not in repr(stored) and "img_size=8" in repr(stored)
    assert stored == replace(stored, tables=tuple(2 * table for table in TABLES))


def test_the_smallest_configs():
    """1 is enough for every size; no layer at all is allowed for an encoder."""
    tiny = ViTConfig(img_size=1, patch_size=1, in_chans=1, num_classes=1, embed_dim=1, depth=0, num_heads=1, head_dim=1)
    assert vit_logits(np.ones((1, 1, 1, 1)), vit_init(tiny, None, np.float64), tiny).shape == (1, 1)
    MAEConfig(img_size=1, patch_size=1, in_chans=1, embed_dim=4, depth=0, num_heads=1, decoder_embed_dim=4, decoder_depth=0,
              decoder_num_heads=1, mask_ratio=0.0)
    TransformerConfig(src_vocab=1, tgt_vocab=1, d_model=1, encoder_layers=0, decoder_layers=1, heads=1, d_ff=1, max_len=1,
                      dropout=0.0)


def test_defaults_are_those_of_the_papers():
    """The base models of Vaswani et al. 2017, Dosovitskiy et al. 2020 and He et al. 2021."""
    assert TransformerConfig() == TransformerConfig(
        37000, 37000, 512, 6, 6, 8, 2048, None, None, 0.1, False, None, "relu", True, 1e-5, "all", False, True, "interleaved",
        512, 0, 1, 2,
    )
    assert ViTConfig() == ViTConfig(224, 16, 3, 1000, 768, 12, 12, None, 4.0, "token", "learned", 0.0, 1e-6)
    assert MAEConfig() == MAEConfig(224, 16, 3, 768, 12, 12, 512, 8, 16, 4.0, 0.75, False, 1e-6)


SETTINGS = [
    (MAEConfig, "depth", -1), (MAEConfig, "decoder_depth", True), (MAEConfig, "num_heads", 4.0), (MAEConfig, "embed_dim", "8"),
    (MAEConfig, "mlp_ratio", math.nan), (MAEConfig, "mlp_ratio", 0), (MAEConfig, "norm_pix_loss", 1), (MAEConfig, "eps", -1e-6),
    (MAEConfig, "mask_ratio", "0.5"), (MAEConfig, "patch_size", 0), (MAEConfig, "in_chans", None),
    (ViTConfig, "num_classes", 0), (ViTConfig, "dropout", math.nan), (ViTConfig, "head_dim", 2.0), (ViTConfig, "eps", math.inf),
    (TransformerConfig, "encoder_layers", -1), (TransformerConfig, "d_model", 0), (TransformerConfig, "heads", 2.0),
    (TransformerConfig, "d_k", True), (TransformerConfig, "bias", "yes"), (TransformerConfig, "dropout", 1),
    (TransformerConfig, "eps", math.nan), (TransformerConfig, "pad", -1), (TransformerConfig, "norm_first", 0),
]


@pytest.mark.parametrize(("config", "name", "value"), SETTINGS)
def test_settings_out_of_range(config, name, value):
    with pytest.raises(ValueError, match=f"^expected {name} to be .*, got {re.escape(repr(value))}"):
        config(**{name: value})
