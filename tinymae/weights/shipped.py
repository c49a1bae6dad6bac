"""The models that come with the package: one .safetensors file each, with the numbers in half precision.

    __metadata__    format; model, "mae" or "transformer"; config and extra as JSON texts
    tensors         the parameters as float16, each named by its path in the tree

`extra` is what a user of the model needs beside its parameters, such as vocabularies. Reading needs NumPy and the standard
library alone. A float16 has 11 significant bits, so rounding changes a parameter by at most 1 / 2048 of itself (numbers below
6e-5 by at most 3e-8).
"""
import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from tinymae import tree
from tinymae.files import never_downloaded
from tinymae.messages import message as _
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.models.transformer import TransformerConfig, transformer_init
from tinymae.weights.records import unique
from tinymae.weights.safetensors import read_safetensors, write_safetensors

MODEL_FORMAT = "tinymae model 1"
MODEL_KINDS = {"mae": (MAEConfig, mae_init), "transformer": (TransformerConfig, transformer_init)}
FILES = {"mae": "mae.safetensors", "transformer": "translator.safetensors"}
LARGEST_HALF = float(np.finfo(np.float16).max)


def shipped(kind: str) -> Path:
    """The file of a model that comes with the package: "mae" or "transformer". Raises a ValueError if the kind is unknown."""
    _check_kind(kind)
    return Path(__file__).parents[1] / "shipped" / FILES[kind]


def write_model(path: Path | str, config: MAEConfig | TransformerConfig, params: dict, extra: dict | None = None) -> Path:
    """Write a model as one .safetensors file, whole or not at all.

    Parameters
    ----------
    path : ends in .safetensors; a missing folder is created
    config : its class says the kind of the model
    params : tree of `mae_init` or `transformer_init`, float32 or float64; rounded to float16
    extra : anything else that JSON can write

    Raises
    ------
    ValueError
        if path does not end in .safetensors, params do not fit the config, or a parameter is not finite in float16
    TypeError
        if config is of no model that is written here, or extra holds something that JSON cannot write
    OSError
        if the file cannot be written
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(_("{path}: expected a path that ends in .safetensors", path=path))
    kinds = [kind for kind, (config_class, _init) in MODEL_KINDS.items() if type(config) is config_class]
    if not kinds:
        raise TypeError(f"expected the config of a model {' or '.join(MODEL_KINDS)}, got {type(config).__name__}")
    arrays = dict(tree.leaves(params))
    _check_shapes(arrays, MODEL_KINDS[kinds[0]][1](config, None, tree.NO_BYTES))
    for name, array in arrays.items():
        if not (np.abs(array) <= LARGEST_HALF).all():                # NaN is not
            raise ValueError(_("{path}: not written, because {name} has a number that is not finite or above "
                               "{most:.0f}", path=path, name=name, most=LARGEST_HALF))
    meta = {
        "format": MODEL_FORMAT, "model": kinds[0], "config": json.dumps(asdict(config)),
        "extra": json.dumps(extra or {}, ensure_ascii=False),
    }
    return write_safetensors(path, {name: array.astype(np.float16) for name, array in arrays.items()}, meta)


def is_model(path: Path | str) -> bool:
    """Whether a file is one of `write_model`, and not a published model in the same format. A damaged one is neither."""
    path = Path(path)
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        return read_safetensors(np.memmap(path, np.uint8, "r")).meta.get("format") == MODEL_FORMAT
    except ValueError:                                          # so is an empty file's
        return False


def read_model(path: Path | str, kind: str) -> tuple[MAEConfig | TransformerConfig, dict, dict]:
    """Read a file of `write_model` and check that it is whole and fits.

    Parameters
    ----------
    path : the file
    kind : "mae" or "transformer"

    Returns
    -------
    config : MAEConfig or TransformerConfig
    params : tree of `mae_init` or `transformer_init`, float32
    extra : as it was written

    Raises
    ------
    FileNotFoundError
        if there is no such file
    ValueError
        if kind is unknown, or the file is damaged, of another kind or format, does not fit its config, or holds a number that
        is not finite; names file and reason
    """
    _check_kind(kind)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(_("{path}: no such file: expected a model that write_model or the command export wrote",
                                  path=path))
    try:
        return _read(path, *MODEL_KINDS[kind], kind)
    except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(_("{file}: {reason}", file=path, reason=never_downloaded(path) or error)) from error


def _read(path, config_class, init, kind):
    record = read_safetensors(np.fromfile(path, np.uint8))
    meta, tensors = record.meta, record.tables.get("", {})
    if meta.get("format") != MODEL_FORMAT:
        raise ValueError(_("expected the format {format!r}, got {got!r}: is it one of tinymae's?",
                           format=MODEL_FORMAT, got=str(meta.get("format"))[:80]))
    if meta.get("model") != kind:
        raise ValueError(_("expected a {kind!r} model, got {got!r}", kind=kind, got=str(meta.get("model"))[:80]))
    config = config_class(**_table(meta, "config"))
    extra = _table(meta, "extra")
    # What the shapes of the tensors cannot show is compared with the file before anything of that size is made.
    for name in (field.name for field in fields(config) if field.name.endswith(("depth", "layers"))):
        if getattr(config, name) > len(tensors):
            raise ValueError(_("{name} is {layers}, and it has {count} tensors: fewer than layers",
                               name=name, layers=getattr(config, name), count=len(tensors)))
    if getattr(config, "num_patches", 0) > max(record.raw.size, 1 << 16):
        raise ValueError(_("its config has {num_patches} patches, in a file of {size} bytes",
                           num_patches=config.num_patches, size=record.raw.size))
    like = init(config, None, tree.NO_BYTES)
    _check_shapes(tensors, like)
    arrays = {}
    for name, found in tensors.items():
        if found.dtype != "float16":
            raise ValueError(_("expected {name} as float16, got {dtype}", name=name, dtype=found.dtype))
        halves = record.raw[found.start : found.start + 2 * found.count].view("<f2")
        arrays[name] = halves.astype(np.float32).reshape(found.shape)
        if not np.isfinite(arrays[name]).all():
            raise ValueError(_("{name} has a number that is not finite: damaged, or its training diverged", name=name))
    return config, tree.unflatten(arrays, like), extra


def _check_kind(kind):
    if kind not in MODEL_KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(MODEL_KINDS)}")


def _check_shapes(found, like):
    """`found` is {path: array or record}; `like` a tree of the expected shapes."""
    matched = tree.unflatten(found, like)
    for (name, leaf), (_name, expected) in zip(tree.leaves(matched), tree.leaves(like), strict=True):
        if tuple(leaf.shape) != expected.shape:
            raise ValueError(_("expected {name} of the shape {expected}, got {got}",
                               name=name, expected=expected.shape, got=tuple(leaf.shape)))


def _table(meta, name):
    """A JSON text of the metadata as a dict."""
    try:
        value = json.loads(meta.get(name, ""), object_pairs_hook=unique)
    except ValueError as error:
        raise ValueError(_("its {name} is not JSON ({error}): damaged, or edited", name=name, error=error)) from error
    if not isinstance(value, dict):
        raise ValueError(_("expected a table as its {name}, got a {kind}: damaged, or edited",
                           name=name, kind=type(value).__name__))
    return value
