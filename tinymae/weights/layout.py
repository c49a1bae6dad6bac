"""Names and layouts: which tensor of a published model is which leaf of ours.

`mae_rows` and `vit_rows` list the leaves of a model, each with the names, shape and layout of its tensors in one of two formats
(OFFICIAL, HUGGING_FACE). `to_ours` and `to_theirs` convert between the layouts, where (1) and (2) are those of `published`.
"""
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tinymae.models.mae import MAEConfig
from tinymae.models.vit import ViTConfig

# heads of the published ViT-B, ViT-L and ViT-H, by dimension D and layers. Smaller ones are not known by their sizes: ViT-S has
# 6 heads in DeiT and DINO, 12 in MoCo v3
HEADS = {(768, 12): 12, (1024, 24): 16, (1280, 32): 16}
DECODER_SIZES, DECODER_HEADS = (512, 8), 16                 # of every published masked autoencoder
TIMM_HEADS = {("tiny", 192, 12): 3, ("small", 384, 12): 6}      # by timm's names, such as vit_small_patch16_224, and the sizes


def known_heads(width: int, depth: int, config: dict) -> int | None:
    """Heads of an encoder of this dimension and depth: by the architecture in timm's config.json, or of a published size."""
    named = None if config.get("model_args") else re.match(r"(?:vit|deit)_([a-z]+)_patch", str(config.get("architecture")))
    return TIMM_HEADS.get((named[1] if named else None, width, depth), HEADS.get((width, depth)))


@dataclass(frozen=True)
class Names:
    """Names of the tensors in one of the two formats."""

    patch_embed: str
    cls_token: str
    pos_embed: str
    blocks: str
    norm: str
    embed: str
    mask_token: str
    decoder_pos_embed: str
    decoder_blocks: str
    decoder_norm: str
    pred: str
    head: str
    ln1: str        # from here on: inside a block
    qkv: tuple
    out: str
    ln2: str
    fc1: str
    fc2: str


OFFICIAL = Names(
    patch_embed="patch_embed.proj", cls_token="cls_token", pos_embed="pos_embed", blocks="blocks", norm="norm",
    embed="decoder_embed", mask_token="mask_token", decoder_pos_embed="decoder_pos_embed", decoder_blocks="decoder_blocks",
    decoder_norm="decoder_norm", pred="decoder_pred", head="head",
    ln1="norm1", qkv=("attn.qkv",), out="attn.proj", ln2="norm2", fc1="mlp.fc1", fc2="mlp.fc2",
)
HUGGING_FACE = Names(
    patch_embed="vit.embeddings.patch_embeddings.projection", cls_token="vit.embeddings.cls_token",
    pos_embed="vit.embeddings.position_embeddings", blocks="vit.encoder.layer", norm="vit.layernorm",
    embed="decoder.decoder_embed", mask_token="decoder.mask_token", decoder_pos_embed="decoder.decoder_pos_embed",
    decoder_blocks="decoder.decoder_layers", decoder_norm="decoder.decoder_norm", pred="decoder.decoder_pred",
    head="classifier", ln1="layernorm_before",
    qkv=tuple(f"attention.attention.{part}" for part in ("query", "key", "value")), out="attention.output.dense",
    ln2="layernorm_after", fc1="intermediate.dense", fc2="output.dense",
)

# Hugging Face has renamed its tensors several times: (newer, as above)
RENAMED = (
    ("decoder.decoder_encoder.layer.", "decoder.decoder_layers."),
    ("vit.layers.", "vit.encoder.layer."),
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)


@dataclass(frozen=True)
class LeafRow:
    """One leaf of our tree, and its tensors in their file."""

    path: str
    names: tuple    # one, or three that are joined to one matrix
    shape: tuple    # of each of them
    layout: str     # "same", "linear", "convolution"


def _linear(path, names, inputs, outputs):
    yield LeafRow(f"{path}.w", tuple(f"{name}.weight" for name in names), (outputs, inputs), "linear")
    yield LeafRow(f"{path}.b", tuple(f"{name}.bias" for name in names), (outputs,), "same")


def _norm(path, name, width):
    yield LeafRow(f"{path}.gamma", (f"{name}.weight",), (width,), "same")
    yield LeafRow(f"{path}.beta", (f"{name}.bias",), (width,), "same")


def _blocks(path, name, names, depth, width, hidden):
    for i in range(depth):
        ours, theirs = f"{path}.blocks.{i}", f"{name}.{i}"
        yield from _norm(f"{ours}.ln1", f"{theirs}.{names.ln1}", width)
        qkv = tuple(f"{theirs}.{part}" for part in names.qkv)
        yield from _linear(f"{ours}.attn.qkv", qkv, width, 3 * width // len(qkv))
        yield from _linear(f"{ours}.attn.out", (f"{theirs}.{names.out}",), width, width)
        yield from _norm(f"{ours}.ln2", f"{theirs}.{names.ln2}", width)
        yield from _linear(f"{ours}.ffn.fc1", (f"{theirs}.{names.fc1}",), width, hidden)
        yield from _linear(f"{ours}.ffn.fc2", (f"{theirs}.{names.fc2}",), hidden, width)


def _encoder_rows(names, config):
    width, patch = config.embed_dim, config.patch_size
    weight = (f"{names.patch_embed}.weight",)
    yield LeafRow("encoder.patch_embed.w", weight, (width, config.in_chans, patch, patch), "convolution")
    yield LeafRow("encoder.patch_embed.b", (f"{names.patch_embed}.bias",), (width,), "same")
    yield LeafRow("encoder.cls_token", (names.cls_token,), (1, 1, width), "same")
    yield from _blocks("encoder", names.blocks, names, config.depth, width, int(width * config.mlp_ratio))


def mae_rows(names: Names, config: MAEConfig) -> Iterator[LeafRow]:
    """The leaves of `mae_init`."""
    width = config.decoder_embed_dim
    yield from _encoder_rows(names, config)
    yield from _norm("encoder.norm", names.norm, config.embed_dim)
    yield from _linear("decoder.embed", (names.embed,), config.embed_dim, width)
    yield LeafRow("decoder.mask_token", (names.mask_token,), (1, 1, width), "same")
    hidden = int(width * config.mlp_ratio)
    yield from _blocks("decoder", names.decoder_blocks, names, config.decoder_depth, width, hidden)
    yield from _norm("decoder.norm", names.decoder_norm, width)
    yield from _linear("decoder.pred", (names.pred,), width, config.values)


def vit_rows(names: Names, config: ViTConfig, *, head: bool = True) -> Iterator[LeafRow]:
    """The leaves of `vit_init` but for "positions", with or without the head."""
    yield from _encoder_rows(names, config)
    if config.pool == "mean":
        yield from _norm("fc_norm", "fc_norm", config.embed_dim)
    else:
        yield from _norm("encoder.norm", names.norm, config.embed_dim)
    if head:
        yield from _linear("head", (names.head,), config.embed_dim, config.num_classes)


def to_ours(array: np.ndarray, row: LeafRow) -> np.ndarray:
    """A tensor of theirs in our layout: (1) and (2)."""
    if row.layout == "convolution":
        return array.transpose(2, 3, 1, 0).reshape(-1, len(array))                          # (D, C, p, p) -> (P, D)
    return {"linear": array.T, "same": array}[row.layout]


def to_theirs(leaf: np.ndarray, row: LeafRow) -> np.ndarray:
    """A leaf of ours in their layout, the inverse of `to_ours`; for several names the first axis holds them all."""
    if row.layout == "convolution":
        width, channels, patch, _ = row.shape
        return leaf.reshape(patch, patch, channels, width).transpose(3, 2, 0, 1)            # (P, D) -> (D, C, p, p)
    return {"linear": leaf.T, "same": leaf}[row.layout]
