"""Load vision models that others have published: official MAE files and Hugging Face folders become our configs and trees.

    official        the code of He et al. 2021, .pth: encoder and decoder ("visualize"), encoder only, fine-tuned classifier
    Hugging Face    a folder with config.json and model.safetensors: ViTMAEForPreTraining, ViTForImageClassification

All of them compute the same function from the same numbers; they differ from ours in names and layout:

    (1)  a linear weight is (out, in) there, (in, out) here: w = weight.T, a view, so that nothing is copied
    (2)  the patch embedding is a convolution (D, C, p, p) there; here its rows are ordered as a patch is, (p, p, C)
    (3)  Hugging Face stores queries, keys and values in three matrices; here they are the columns of one matrix
    (4)  positions (1, 1 + N, D) include the class token's; here it is added to that token, the same function
    (5)  a masked autoencoder's positions are a fixed table, in the file there, computed here: they are compared, and if the
         numbers differ, those of the file are kept (`StoredPositions`)

An official file does not contain the number of heads (known for the published sizes), nor whether the model predicts normalised
pixels, unless it was saved with its args (Meta's `mae_visualize_` files predict plain ones). Neither is guessed: the caller is
asked. Files that `export_mae` and `export_vit` write contain both.

Translators (Marian) are recognised here and loaded by `marian`. Nothing is ever downloaded.
"""
import math
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from tinymae import tree
from tinymae.files import visible
from tinymae.messages import either, marked, translated
from tinymae.messages import message as _
from tinymae.models.fine_tuning import resize_mae, resize_vit
from tinymae.models.mae import MAEConfig, StoredPositions, mae_init
from tinymae.models.vit import ViTConfig, vit_init
from tinymae.ops.patches import image_sides, patch_grid
from tinymae.ops.positional import sincos_2d
from tinymae.weights.inspect import (
    KINDS,
    LICENCE,
    PLAIN_FILES,
    listed_unread,
    other_model,
    perhaps_metas,
    read_published,
    recognise,
    stated,
    unread_entries,
    unsupported,
)
from tinymae.weights.layout import (
    DECODER_HEADS,
    DECODER_SIZES,
    HUGGING_FACE,
    OFFICIAL,
    Names,
    known_heads,
    mae_rows,
    to_ours,
    vit_rows,
)
from tinymae.weights.names import known_names
from tinymae.weights.read import Weights


def load_mae(
    path: Path | str, *, heads: int | None = None, decoder_heads: int | None = None,
    norm_pix_loss: bool | None = None, img_size: int | tuple[int, int] | None = None, dtype: DTypeLike = np.float32,
    key: str | None = None,
) -> tuple[MAEConfig, dict]:
    """A masked autoencoder with its decoder, from an official .pth or a Hugging Face folder.

    Parameters
    ----------
    heads, decoder_heads : None for the number in the file, or else that of the published models of its size
    norm_pix_loss : whether the model predicts normalised pixels; None if the file says it
    img_size : of the images to come, side of a square or (rows, cols), if it is not the model's: positions are interpolated,
        see `models.fine_tuning.resize_mae`. None for the size it was trained on
    dtype : of the parameters, float32 or float64
    key : of the model to read in a file that has several, such as "teacher"; see `weights.read.read_weights`

    Returns
    -------
    config : MAEConfig
    params : tree of `mae_init`; most leaves are views of the file: see `weights.read`

    Raises
    ------
    FileNotFoundError
        if there is no such file
    ValueError
        if the file is damaged, holds another model or no decoder, if a tensor is missing, left over, of another shape or not
        finite, or if heads or norm_pix_loss are not in the file; the message names the tensor and says what to do

    Notes
    -----
    What the file holds beside the model is listed on stderr; if it could be Meta's, with the licence of Meta's weights.
    """
    file = _open(path, key)
    if file.kind not in ("mae", "vit-mae"):
        raise ValueError(_("{path}: expected a masked autoencoder with its decoder, got {got}", path=path, got=_got(file)))
    names = file.names
    width, _encoder_width = _shape(file, f"{names.embed}.weight", 2)
    sizes = _sizes(file, img_size) | {"decoder_embed_dim": width, "decoder_depth": _depth(file, names.decoder_blocks)}
    if file.kind == "vit-mae":
        options = _hugging_face_options(file, sizes, heads)
        stored = file.config.get("decoder_num_attention_heads", DECODER_HEADS)
        options |= {key: file.config[key] for key in ("mask_ratio", "norm_pix_loss") if key in file.config}
    else:
        saved = stated(file.weights.meta)
        options = saved | {"num_heads": _heads(file, sizes, heads, saved)}
        published = (width, sizes["decoder_depth"]) == DECODER_SIZES
        if decoder_heads is None and "decoder_num_heads" not in saved and not published:
            raise ValueError(_("{path}: the heads of its decoder, of dimension {width} and {depth} layers, are not in it: "
                               "give decoder_heads (--decoder-heads)", path=path, width=width, depth=sizes["decoder_depth"]))
        stored = saved.get("decoder_num_heads", DECODER_HEADS)
        if norm_pix_loss is None and "norm_pix_loss" not in saved and not PLAIN_FILES.match(Path(path).name):
            raise ValueError(_("{path}: does not say whether the model predicts normalised pixels: give norm_pix_loss "
                               "(--norm-pix-loss, or --no-norm-pix-loss)", path=path))
    if norm_pix_loss is not None:
        options["norm_pix_loss"] = norm_pix_loss
    options["decoder_num_heads"] = stored if decoder_heads is None else decoder_heads
    config = _config(file, MAEConfig, sizes, options)
    tables = {names.pos_embed: config.embed_dim, names.decoder_pos_embed: config.decoder_embed_dim}
    flat = _take(file, mae_rows(names, config), config, tables, dtype)
    config, flat = _with_positions(file, config, flat, dtype)
    config = config if img_size is None else resize_mae(config, img_size)
    return config, tree.unflatten(flat, mae_init(config, None, dtype))


def _with_positions(file, config, flat, dtype):
    """(config, flat), with the file's tables if they differ from ours, and without a position of the class token: (4), (5)."""
    names = (file.names.pos_embed, file.names.decoder_pos_embed)
    tables = [file.weights.tensors[name][0, 1:].astype(dtype, copy=False) for name in names]
    first = file.weights.tensors[names[1]][0, 0].astype(dtype)
    if first.any():                                             # zeros in every published file
        # the decoder's class token is the output of a linear map: add `first` to all tokens, subtract it from the patches'
        flat = flat | {path: flat[path] + first for path in ("decoder.embed.b", "decoder.mask_token")}
        tables[1] = tables[1] - first
    if all(np.array_equal(ours, stored) for ours, stored in zip(config.position_tables(dtype), tables, strict=True)):
        return config, flat
    if off := max(_unlike_fixed(file, name, config) for name in names):
        print(
            _("{path}: its positions are not the sines and cosines of He et al. (off by {off:.1e}): they are kept",
              path=file.path, off=off),
            file=sys.stderr,
        )
    return StoredPositions(**vars(config), tables=tuple(tables)), flat


def load_vit(
    path: Path | str, *, heads: int | None = None, img_size: int | tuple[int, int] | None = None, dtype: DTypeLike = np.float32,
    key: str | None = None,
) -> tuple[ViTConfig, dict]:
    """A classifier, from a .pth of the official fine-tuning or linear probing code, or a Hugging Face folder.

    Parameters
    ----------
    path, heads, img_size, dtype, key : as `load_mae`; `models.fine_tuning.resize_vit` interpolates

    Returns
    -------
    config : ViTConfig; pool is "mean" if the file has fc_norm
    params : tree of `vit_init`

    Raises
    ------
    FileNotFoundError, ValueError
        as `load_mae`
    """
    return _load_vit(path, heads, img_size, dtype, key, head=True)


def load_published_encoder(
    path: Path | str, *, heads: int | None = None, img_size: int | tuple[int, int] | None = None, dtype: DTypeLike = np.float32,
    key: str | None = None,
) -> tuple[ViTConfig, dict]:
    """The encoder of any of these models, for features or for fine-tuning.

    Parameters
    ----------
    path, heads, img_size, dtype, key : as `load_mae`; `models.fine_tuning.resize_vit` interpolates

    Returns
    -------
    config : ViTConfig
        num_classes is that of the file's head, or 1 if it has none: set yours with dataclasses.replace. positions are "fixed"
        if those in the file are the table of a masked autoencoder
    params : tree of `vit_init` without "head"

    Raises
    ------
    FileNotFoundError, ValueError
        as `load_mae`
    """
    return _load_vit(path, heads, img_size, dtype, key, head=False)


def _load_vit(path, heads, img_size, dtype, key, *, head):
    file = _open(path, key)
    classifier = file.kind in ("mae-vit", "vit")
    if not file.kind or file.kind == "marian" or head > classifier:
        wanted = _("a classifier") if head else _("an image encoder")
        raise ValueError(_("{path}: expected {wanted}, got {got}", path=path, wanted=wanted, got=_got(file)))
    names = file.names
    probed = f"{names.head}.1.weight" in file.weights.tensors and file.kind == "mae-vit"
    if probed and head:
        file, probed = _with_plain_head(file), False
    sizes = _sizes(file, img_size)
    if file.kind.startswith("mae"):
        saved = stated(file.weights.meta)
        options = saved | {"num_heads": _heads(file, sizes, heads, saved)}
        options["pool"] = "mean" if "fc_norm.weight" in file.weights.tensors else "token"
    else:
        options = _hugging_face_options(file, sizes, heads)
        options["position_encoding"] = file.config.get("position_encoding", "learned")
    options["num_classes"] = _shape(file, f"{names.head}{'.1' * probed}.weight", 2)[0] if classifier else 1
    if classifier and file.config.get("num_classes", options["num_classes"]) != options["num_classes"]:
        raise ValueError(_("{path}: expected num_classes {expected} in config.json, as its head has, got {got!r}: another "
                           "config?", path=path, expected=options["num_classes"], got=file.config["num_classes"]))
    if not classifier:
        stored = file.weights.tensors[names.pos_embed][0, 1:].astype(dtype)
        grid = patch_grid(sizes["img_size"], sizes["patch_size"])
        fixed = stored.shape[1] % 4 == 0 and np.array_equal(stored, sincos_2d(grid, stored.shape[1]).astype(dtype))
        options["position_encoding"] = "fixed" if fixed else "learned"
    config = _config(file, ViTConfig, sizes, options)
    if config.position_encoding == "fixed" and _unlike_fixed(file, names.pos_embed, config):
        raise ValueError(_("{path}: expected fixed positions, but {pos_embed!r} is not the table of sines and cosines",
                           path=path, pos_embed=names.pos_embed))
    unused = () if head else (names.mask_token, "vit.embeddings.mask_token", "decoder", f"{names.head}.")
    rows = vit_rows(names, config, head=head)
    flat = _take(file, rows, config, {names.pos_embed: config.embed_dim}, dtype, unused)
    like = vit_init(config, None, dtype)
    if not head:
        del like["head"]
    if config.position_encoding == "learned":
        flat["positions"] = file.weights.tensors[names.pos_embed][0, 1:].astype(dtype, copy=False)
    params = tree.unflatten(flat, like)
    if img_size is not None:
        params, config = resize_vit(params, config, img_size)
    return config, params


@dataclass(frozen=True, eq=False)
class _File:
    """An opened file, its tensors under the names of its format in `layout`."""

    path: Path
    kind: str
    names: Names
    weights: Weights    # under the names of `names`
    given: dict         # {name: the name in the file}
    config: dict


def _open(path, key):
    weights, config = read_published(path, key=key)
    try:
        given, unread = known_names(weights.tensors)
    except ValueError as error:
        raise ValueError(_("{file}: {reason}", file=path, reason=error)) from error
    kind = recognise(given)
    if parts := unsupported(given, kind):
        raise ValueError(_("{path}: expected a plain Vision Transformer, got {what}, with {parts}",
                           path=path, what=translated(KINDS[kind][0]), parts=", ".join(map(translated, parts))))
    if unread := unread_entries(weights.meta, unread):
        print(visible(_("{path}: not read: {names}", path=path, names=listed_unread(unread))), file=sys.stderr)
    if perhaps_metas(kind, weights.meta, path):
        print(visible(_("{path}: {licence}", path=path, licence=translated(LICENCE))), file=sys.stderr)
    tensors = {known: weights.tensors[name] for known, name in given.items()}
    names = OFFICIAL if kind.startswith("mae") else HUGGING_FACE
    return _File(path, kind, names, replace(weights, tensors=tensors), given, config)


def _with_plain_head(file):
    """The file of a linear probe, with its head as one linear map.

    The official code trains it behind a BatchNorm without gain and offset: (x - mean) / std, with the mean and the standard
    deviation that it has stored, so that w = weight / std and b = bias - (mean / std) weight. Its eps is 1e-6.
    """
    head, tensors = file.names.head, dict(file.weights.tensors)
    width, classes = _shape(file, file.names.cls_token, 3)[2], _shape(file, f"{head}.1.weight", 2)[0]
    shapes = {"0.running_mean": (width,), "0.running_var": (width,), "1.weight": (classes, width), "1.bias": (classes,)}
    for name, shape in shapes.items():
        found = tensors.pop(f"{head}.{name}", None)
        least = 0 if name == "0.running_var" else -np.inf
        if found is None or found.shape != shape or not np.isfinite(found).all() or found.min() < least:
            raise ValueError(_("{path}: expected '{head}.{name}' {shape} in the head of a linear probe, finite, from {least} "
                               "on: damaged, or another head", path=file.path, head=head, name=name, shape=shape, least=least))
        shapes[name] = found.astype(np.float64)
    tensors.pop(f"{head}.0.num_batches_tracked", None)
    mean, var, weight, bias = shapes.values()
    tensors[f"{head}.weight"] = weight / np.sqrt(var + 1e-6)
    tensors[f"{head}.bias"] = bias - tensors[f"{head}.weight"] @ mean
    given = file.given | {f"{head}.{part}": file.given[f"{head}.1.{part}"] for part in ("weight", "bias")}
    return replace(file, weights=replace(file.weights, tensors=tensors), given=given)


def _got(file):
    """What a file holds, for the message that refuses it."""
    if not file.kind:
        first = ", ".join(repr(name) for name in list(file.given)[:3])
        return _("{what}, with tensors such as {first}; known are {kinds}",
                 what=translated(other_model(file.given)), first=first, kinds=", ".join(KINDS))
    what, can = KINDS[file.kind]
    hint = {
        "mae-encoder": marked("to reconstruct, take the mae_visualize_* file, with its decoder; or load_published_encoder"),
        "mae": marked("load_mae, or load_published_encoder for its encoder"),
        "vit-mae": marked("load_mae, or load_published_encoder for its encoder"),
        "mae-vit": "load_vit",
        "vit": "load_vit",
        "vit-encoder": "load_published_encoder",
        "marian": "python -m tinymae translate --weights FOLDER",
    }[file.kind]
    return _("{what} (can do: {can}): {hint}", what=translated(what), can=translated(can), hint=translated(hint))


def _shape(file, name, axes):
    """The shape of a tensor. Raises a ValueError unless it has this number of axes."""
    if name not in file.weights.tensors:
        raise ValueError(_("{path}: the tensor {name!r} is missing: removed, or another architecture",
                           path=file.path, name=name))
    shape = file.weights.tensors[name].shape
    if len(shape) != axes or 0 in shape:
        raise ValueError(_("{path}: expected {name!r} with {axes} axes, none of them empty, got {shape}",
                           path=file.path, name=name, axes=axes, shape=shape))
    return shape


def _depth(file, blocks):
    """Number of layers, counted by their names."""
    layers = {name[len(blocks) + 1 :].partition(".")[0] for name in file.given if name.startswith(blocks + ".")}
    return len(layers)


def _sizes(file, img_size):
    """The sizes of an encoder, from the shapes, as the fields that MAEConfig and ViTConfig share; img_size as in `load_mae`."""
    names = file.names
    width, channels, patch, across = _shape(file, f"{names.patch_embed}.weight", 4)
    tokens = _shape(file, names.pos_embed, 3)[1]
    if across != patch:
        raise ValueError(_("{path}: expected square patches, got patches of {patch} x {across}",
                           path=file.path, patch=patch, across=across))
    trained = _trained_size(file, patch, tokens - 1, img_size)
    hidden, _width = _shape(file, f"{names.blocks}.0.{names.fc1}.weight", 2)
    ratio = hidden / width
    if int(width * ratio) != hidden:                            # it was rounded down: take the next float
        ratio = math.nextafter(ratio, math.inf)
    return {
        "img_size": trained, "patch_size": patch, "in_chans": channels, "embed_dim": width,
        "depth": _depth(file, names.blocks), "mlp_ratio": ratio,
    }


def _trained_size(file, patch, patches, img_size):
    """The img_size for which a file has positions: the one that it names, a square, or else the one that is asked for."""
    named = file.config.get("image_size", stated(file.weights.meta).get("img_size"))
    square = math.isqrt(patches) * patch
    if named is None:
        named = square if math.isqrt(patches) ** 2 == patches or img_size is None else img_size
    try:
        rows, cols = image_sides(named)
    except ValueError as error:
        raise ValueError(_("{file}: {reason}", file=file.path, reason=error)) from error
    if rows % patch or cols % patch or rows * cols != patches * patch**2 or not patches:
        raise ValueError(_("{path}: expected the positions of a class token and of the patches, {patch} x {patch}, of {rows} "
                           "x {cols} pixels, got {patches} in {pos_embed!r}: if it was trained on rectangles, say which "
                           "(img_size)",
                           path=file.path, patch=patch, rows=rows, cols=cols, patches=1 + patches,
                           pos_embed=file.names.pos_embed))
    return rows, cols


def _heads(file, sizes, heads, saved):
    if heads is not None:
        return heads
    known = saved.get("num_heads", known_heads(sizes["embed_dim"], sizes["depth"], file.config))
    if known is None:
        raise ValueError(_("{path}: the number of heads is not in the file: give heads (--heads). It is known for ViT-B, "
                           "ViT-L, ViT-H; this model has dimension {width} and {depth} layers",
                           path=file.path, width=sizes["embed_dim"], depth=sizes["depth"]))
    return known


def _hugging_face_options(file, sizes, heads):
    """Heads and eps from config.json, after checking that it fits the weights and asks for a function that we compute."""
    config, expected_type = file.config, "vit_mae" if file.kind == "vit-mae" else "vit"
    allowed = ["vit", "vit_mae"] if file.kind == "vit-encoder" else [expected_type]
    if config.get("model_type", expected_type) not in allowed:
        raise ValueError(_("{path}: expected model_type {expected} in config.json, as the names of the tensors say, got "
                           "{got!r}", path=file.path, expected=either(sorted(allowed)), got=config["model_type"]))
    if "num_attention_heads" not in config:
        raise ValueError(_("{path}: expected config.json beside it, with num_attention_heads: the weights lack it",
                           path=file.path))
    expected = {
        "patch_size": sizes["patch_size"], "num_channels": sizes["in_chans"],
        "hidden_size": sizes["embed_dim"], "num_hidden_layers": sizes["depth"],
        "intermediate_size": int(sizes["embed_dim"] * sizes["mlp_ratio"]), "hidden_act": "gelu", "qkv_bias": True,
    }
    for key, value in expected.items():
        if config.get(key, value) not in (value, [value, value]):
            ours = key in ("hidden_act", "qkv_bias")
            why = _("our layers have no other") if ours else _("as in the weights: another config?")
            raise ValueError(_("{path}: expected {key} {value!r} in config.json, got {got!r}: {why}",
                               path=file.path, key=key, value=value, got=config[key], why=why))
    for key, above in (("layer_norm_eps", True), ("hidden_dropout_prob", False), ("attention_probs_dropout_prob", False)):
        value = config.get(key, 1e-12)
        if type(value) not in (int, float) or not 0 <= value < 1 or (above and not value):
            wrong = _("{path}: expected {key} in config.json to be a number above 0 and below 1, got {value!r}",
                      path=file.path, key=key, value=value)
            if not above:
                wrong = _("{path}: expected {key} in config.json to be a number from 0 and below 1, got {value!r}",
                          path=file.path, key=key, value=value)
            raise ValueError(wrong)
    heads = config["num_attention_heads"] if heads is None else heads
    options = {"num_heads": heads, "eps": config.get("layer_norm_eps", 1e-12)}
    if file.kind == "vit":
        options["dropout"] = config.get("hidden_dropout_prob", 0.0)
    return options


def _config(file, config_class, sizes, options):
    numbers = ("num_heads", "decoder_num_heads", "eps", "mask_ratio", "mlp_ratio", "dropout", "norm_pix_loss")
    for key, value in options.items():
        types = (bool,) if key == "norm_pix_loss" else (int,) if "heads" in key else (int, float)
        if key in numbers and type(value) not in types:
            raise ValueError(_("{path}: expected {key} as {kinds}, got {value!r}",
                               path=file.path, key=key, kinds=either(each.__name__ for each in types), value=value))
    try:
        if not (0 < options.get("eps", 1e-6) < 1 and 0 < options.get("mlp_ratio", 4) < 1e6):
            raise ValueError(_("expected a small positive eps and a positive mlp_ratio, got {options}", options=options))
        known = {field.name for field in fields(config_class)}
        return config_class(**{key: value for key, value in (sizes | options).items() if key in known})
    except (TypeError, ValueError) as error:
        raise ValueError(_("{file}: {reason}", file=file.path, reason=error)) from error


def _take(file, rows, config, tables, dtype, unused=()):
    """{path of ours: array}, after every tensor of the file has been compared with what is expected.

    tables : {name: dimension} of the position tables; unused : the beginnings of names that are allowed and not read
    """
    rows = list(rows)
    tensors = file.weights.tensors
    expected = {name: row.shape for row in rows for name in row.names}
    expected |= {name: (1, 1 + config.num_patches, width) for name, width in tables.items()}
    for name, shape in expected.items():
        if name not in tensors:
            raise ValueError(_("{path}: the tensor {name!r} {shape} is missing: the file is incomplete, or of another "
                               "architecture than {what}", path=file.path, name=name, shape=shape,
                               what=translated(KINDS[file.kind][0])))
        found = tensors[name]
        if found.shape != shape or not np.issubdtype(found.dtype, np.floating):
            raise ValueError(_("{path}: expected {name!r} {shape} of floats, got {got} of {dtype}: another architecture, or "
                               "parts of two models",
                               path=file.path, name=file.given[name], shape=shape, got=found.shape, dtype=found.dtype))
        if not np.isfinite(found).all():
            raise ValueError(_("{path}: {name!r} is not finite: damaged, or training diverged",
                               path=file.path, name=file.given[name]))
    for name in tensors:
        if name not in expected and not (unused and name.startswith(unused)):
            raise ValueError(_("{path}: the tensor {name!r} {shape} does not belong to {what}: another architecture; without "
                               "the tensor, the model would compute another function",
                               path=file.path, name=file.given[name], shape=tensors[name].shape,
                               what=translated(KINDS[file.kind][0])))
    file.weights.release()                                      # all of it was read for the comparison
    flat = {}
    for row in rows:
        parts = [to_ours(tensors[name], row) for name in row.names]
        leaf = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)              # (3)
        flat[row.path] = leaf.astype(dtype, copy=False)
    file.weights.release()                                      # what was copied is not needed twice
    first = tensors[file.names.pos_embed][:, :1]
    if first.any():                                             # (4); otherwise the class token stays the same, bit for bit
        flat["encoder.cls_token"] = flat["encoder.cls_token"] + first.astype(dtype)
    return flat


def _unlike_fixed(file, name, config):
    """Largest difference of stored positions from the sines and cosines; 0.0 if it is rounding to the stored dtype only."""
    stored = file.weights.tensors[name]
    width = stored.shape[2]
    if width % 4:
        return math.inf                                         # there is no such table
    off = float(np.abs(stored[0, 1:].astype(np.float64) - sincos_2d(config.grid, width)).max())
    rounding = {"bfloat16": 1e-2, "float16": 1e-3}.get(file.weights.dtypes[file.given[name]], 1e-5)
    return 0.0 if off <= rounding else off
