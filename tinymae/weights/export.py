"""Write our models for the official MAE code (one .pth) and for Hugging Face (a folder: model.safetensors and two .json files).

The inverse of `published`, line by line: what is exported and loaded again is the same model to the last bit.
"""
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
from PIL import Image

from tinymae import tree
from tinymae.files import whole_file
from tinymae.images.pixels import MEAN, STD
from tinymae.messages import message as _
from tinymae.models.mae import MAEConfig
from tinymae.models.vit import ViTConfig
from tinymae.ops.patches import image_sides
from tinymae.ops.positional import sincos_2d
from tinymae.weights.layout import HUGGING_FACE, OFFICIAL, LeafRow, mae_rows, to_theirs, vit_rows
from tinymae.weights.preparation import PREPROCESSOR
from tinymae.weights.pth import write_pth
from tinymae.weights.safetensors import write_safetensors


def export_mae(path: Path | str, config: MAEConfig, params: dict) -> Path:
    """Write a masked autoencoder for the official code: {"model": its state dict, "config": ours}.

    Parameters
    ----------
    path : ends in .pth
    params : tree of `mae_init`

    Raises
    ------
    ValueError
        if the path does not end in .pth, or params do not fit the config
    """
    path = _pth(path)
    tensors = named_tensors(params, mae_rows(OFFICIAL, config)) | _mae_pos_embed(OFFICIAL, config, params)
    return write_pth(path, tensors, {"config": {f.name: getattr(config, f.name) for f in fields(MAEConfig)}})


def export_vit_mae(folder: Path | str, config: MAEConfig, params: dict) -> Path:
    """Write a masked autoencoder for Hugging Face: a folder that ViTMAEForPreTraining.from_pretrained reads.

    Parameters
    ----------
    folder : config.json, preprocessor_config.json and model.safetensors in it are replaced
    params : tree of `mae_init`

    Raises
    ------
    ValueError
        if folder is a file, or params do not fit the config
    """
    folder = _folder(folder)
    tensors = named_tensors(params, mae_rows(HUGGING_FACE, config)) | _mae_pos_embed(HUGGING_FACE, config, params)
    table = _hugging_face_config(config, "ViTMAEForPreTraining", "vit_mae", params) | {
        "decoder_hidden_size": config.decoder_embed_dim, "decoder_num_hidden_layers": config.decoder_depth,
        "decoder_num_attention_heads": config.decoder_num_heads,
        "decoder_intermediate_size": int(config.decoder_embed_dim * config.mlp_ratio),
        "mask_ratio": config.mask_ratio, "norm_pix_loss": config.norm_pix_loss,
    }
    return _write_folder(folder, tensors, table, config)


def export_vit(path: Path | str, config: ViTConfig, params: dict) -> Path:
    """Write a classifier: a .pth for the official fine-tuning code, or a folder that ViTForImageClassification reads.

    Parameters
    ----------
    path : ends in .pth, or is a folder whose files of these names are replaced, as in `export_vit_mae`
    params : tree of `vit_init`

    Raises
    ------
    ValueError
        if the format cannot hold the model (a head dimension other than D / H, one head without output projection, or, in a
        folder, mean pooling), or if params do not fit the config
    """
    if config.head_dim is not None and (config.num_heads == 1 or config.num_heads * config.head_dim != config.embed_dim):
        raise ValueError(_("{path}: neither format has {num_heads} heads of dimension {head_dim} in a model of dimension "
                           "{embed_dim}: a head has embed_dim / num_heads, with an output projection; train with head_dim=None",
                           path=path, num_heads=config.num_heads, head_dim=config.head_dim, embed_dim=config.embed_dim))
    official = Path(path).suffix == ".pth"
    names = OFFICIAL if official else HUGGING_FACE
    if config.pool == "mean" and not official:
        raise ValueError(_("{path}: ViTForImageClassification pools by the class token, this model by the mean: write a .pth",
                           path=path))
    path = _pth(path) if official else _folder(path)
    leaves = dict(params)
    pos_embed = leaves.pop("positions", None) if config.position_encoding == "learned" else None
    tensors = named_tensors(leaves, vit_rows(names, config))
    if config.position_encoding == "fixed":
        pos_embed = sincos_2d(config.grid, config.embed_dim).astype(tensors[names.cls_token].dtype)
    if pos_embed is None or pos_embed.shape != (config.num_patches, config.embed_dim):
        raise ValueError(f"{path}: params do not fit the config: expected positions for a grid of {config.grid}")
    tensors[names.pos_embed] = _with_class(pos_embed)
    if official:
        return write_pth(path, tensors, {"config": asdict(config)})
    labels = [f"LABEL_{i}" for i in range(config.num_classes)]
    table = _hugging_face_config(config, "ViTForImageClassification", "vit", params) | {
        "hidden_dropout_prob": config.dropout, "position_encoding": config.position_encoding,
        "id2label": {str(i): label for i, label in enumerate(labels)}, "label2id": {label: i for i, label in enumerate(labels)},
    }
    return _write_folder(path, tensors, table, config)


def _pth(path):
    path = Path(path)
    if path.suffix != ".pth":
        raise ValueError(_("expected a path ending in .pth for the official code, got {path}", path=path))
    return path


def _folder(path):
    path = Path(path)
    if path.suffix in (".pth", ".pt", ".safetensors", ".npz", ".bin") or (path.exists() and not path.is_dir()):
        raise ValueError(_("expected a folder for Hugging Face's two files, got {path}", path=path))
    return path


def named_tensors(params: dict, rows: Iterable[LeafRow]) -> dict[str, np.ndarray]:
    """{their name: tensor} of all leaves of a model, or of its gradients, to compare these with PyTorch's.

    Parameters
    ----------
    params : tree of `mae_init` or of `vit_init` (without "positions")
    rows : of `layout.mae_rows` or `layout.vit_rows`

    Raises
    ------
    ValueError
        if params do not fit the rows
    """
    flat, tensors = dict(tree.leaves(params)), {}
    for row in rows:
        first, *rest = row.shape
        first *= len(row.names)
        shape = (math.prod(rest), first) if row.layout == "convolution" else (first, *rest)
        shape = shape[::-1] if row.layout == "linear" else shape
        leaf = flat.pop(row.path, None)
        if leaf is None or leaf.shape != shape:
            got = "none" if leaf is None else leaf.shape
            raise ValueError(f"params do not fit the config: expected {row.path!r} of shape {shape}, got {got}")
        tensors |= zip(row.names, np.split(to_theirs(leaf, row), len(row.names)), strict=True)
    if flat:
        raise ValueError(f"params do not fit the config: {min(flat)!r} is left over")
    return tensors


def _mae_pos_embed(names, config, params):
    tables = config.position_tables(params["encoder"]["cls_token"].dtype)
    return dict(zip((names.pos_embed, names.decoder_pos_embed), map(_with_class, tables), strict=True))


def _with_class(table):
    """(N, D) -> (1, 1 + N, D), with zeros for the class token, whose own position is part of that token here."""
    return np.pad(table, ((1, 0), (0, 0)))[None]


def _hugging_face_config(config, architecture, model_type, params):
    return {
        "architectures": [architecture], "model_type": model_type, "dtype": params["encoder"]["cls_token"].dtype.name,
        "image_size": config.img_size, "patch_size": config.patch_size, "num_channels": config.in_chans,
        "hidden_size": config.embed_dim, "num_hidden_layers": config.depth, "num_attention_heads": config.num_heads,
        "intermediate_size": int(config.embed_dim * config.mlp_ratio), "hidden_act": "gelu", "qkv_bias": True,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "layer_norm_eps": config.eps,
    }


def _write_folder(folder, tensors, table, config):
    rows, cols = image_sides(config.img_size)
    prepared = {                                                # how transformers' processor makes our pixels
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": rows, "width": cols},
        "resample": int(Image.Resampling.LANCZOS), "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [MEAN] * config.in_chans, "image_std": [STD] * config.in_chans,
    }
    write_safetensors(folder / "model.safetensors", tensors)
    for name, content in (("config.json", table), (PREPROCESSOR, prepared)):
        with whole_file(folder / name) as file:
            file.write((json.dumps(content, indent=2) + "\n").encode("utf-8"))
    return folder
