"""Which model a file of weights holds, and what you can do with it.

The names of the tensors tell (`recognise`), so `inspect` reads no numbers. `read_model` reads the weights, and the config.json
beside them, for `published` and `marian`.
"""
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tinymae.images.pixels import MEAN, STD
from tinymae.weights.layout import HUGGING_FACE, OFFICIAL
from tinymae.weights.read import Weights, list_weights, read_weights

LICENCE = (
    "The names are those of the official MAE code. If this file is Meta's, its weights are CC-BY-NC 4.0: free for "
    "non-commercial use only, with attribution (He et al. 2021, github.com/facebookresearch/mae)."
)

LONGEST_JSON = 1 << 24      # a vocabulary of 60,000 subwords has about 1.5 million bytes

# {kind: (what the file holds, what you can do with it)}
KINDS = {
    "mae": ("a masked autoencoder with its decoder, official MAE names", "reconstruct, features, fine-tuning"),
    "mae-encoder": ("an encoder of a masked autoencoder, official MAE names", "features, fine-tuning; no reconstruction"),
    "mae-vit": ("a classifier, names of the official MAE fine-tuning code", "classify, features, fine-tuning"),
    "vit-mae": ("a masked autoencoder, Hugging Face ViTMAEForPreTraining", "reconstruct, features, fine-tuning"),
    "vit": ("a classifier, Hugging Face ViTForImageClassification", "classify, features, fine-tuning"),
    "vit-encoder": ("an encoder, Hugging Face ViT names", "features, fine-tuning; no reconstruction, no classes"),
    "marian": ("a translator, Hugging Face MarianMTModel", "translate"),
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found."""

    kind: str       # a key of KINDS, or "" if the model is not known here
    what: str
    can: str
    licence: str    # "" if none is known
    tensors: list[tuple[str, tuple, str]]       # (name, shape, dtype), as in the file


def read_model(path: Path | str) -> tuple[Weights, dict]:
    """The weights in a file or folder, and their config.json.

    Parameters
    ----------
    path : a .pth, .bin or .safetensors file, or a Hugging Face folder

    Returns
    -------
    weights : Weights
    config : the config.json in the folder or beside the file; {} if there is none

    Raises
    ------
    FileNotFoundError
        if there is no such file, or no weights in the folder
    ValueError
        as `weights.read.read_weights`, and if config.json is damaged
    """
    file, config = _find(path)
    return read_weights(file), config


def inspect(path: Path | str) -> Inspection:
    """List the tensors of a file or folder, and tell which model it is. Reads no numbers.

    Parameters
    ----------
    path : as `read_model`

    Raises
    ------
    FileNotFoundError, ValueError
        as `read_model`
    """
    file, _ = _find(path)
    tensors, meta = list_weights(file)
    kind = recognise([name for name, _, _ in tensors])
    what, can = KINDS[kind] if kind else ("no model that is known here", f"nothing; known are {', '.join(KINDS)}")
    return Inspection(kind, what, can, LICENCE if perhaps_metas(kind, meta) else "", tensors)


def recognise(names: Iterable[str]) -> str:
    """The model that has tensors of these names: a key of KINDS, or "" if none is known."""
    names = set(names)
    if f"{OFFICIAL.patch_embed}.weight" in names:
        if any(name.startswith(("decoder_", "mask_token")) for name in names):
            return "mae"
        return "mae-vit" if any(name.startswith("head.") for name in names) else "mae-encoder"
    if f"{HUGGING_FACE.patch_embed}.weight" in names:
        if any(name.startswith("decoder.") for name in names):
            return "vit-mae"
        return "vit" if any(name.startswith("classifier.") for name in names) else "vit-encoder"
    return "marian" if "model.shared.weight" in names else ""


def normalisation(path: Path | str) -> tuple[float | tuple, float | tuple]:
    """Mean and standard deviation of the pixels that a model was trained on, for `images.pixels.to_pixels`.

    A file written by this package has one of each for all channels; for all others they are ImageNet's, three of each, which
    published models use. Raises a ValueError if config.json asks for any others.
    """
    file, config = _find(path)
    _, meta = list_weights(file)
    given = [config.get("image_mean"), config.get("image_std")]
    channels = len(given[0]) if isinstance(given[0], list) else 1
    if "eps" in stated(meta) or given == [[MEAN] * channels, [STD] * channels]:
        return MEAN, STD
    if given not in ([None, None], [list(IMAGENET_MEAN), list(IMAGENET_STD)]):
        raise ValueError(f"{path}: expected image_mean and image_std in config.json to be ours or ImageNet's, got {given}")
    return IMAGENET_MEAN, IMAGENET_STD


def _find(path):
    """(the file with the weights, the config.json beside it)."""
    path = Path(path)
    if path.is_dir():
        files = [path / name for name in ("model.safetensors", "pytorch_model.bin")]
        folder, path = path, next((file for file in files if file.is_file()), None)
        if path is None and list(folder.glob("*.index.json")):
            raise ValueError(f"{folder}: the weights are in several files, which is not supported: save them in one")
        if path is None:
            raise FileNotFoundError(f"{folder}: expected model.safetensors or pytorch_model.bin in this folder")
    config = path.with_name("config.json")
    return path, read_json(config) if config.is_file() else {}


def read_json(path: Path) -> dict:
    """The object in a JSON file. Raises a ValueError if it is damaged, not an object, or longer than LONGEST_JSON."""
    if path.stat().st_size > LONGEST_JSON:
        raise ValueError(f"{path}: expected at most {LONGEST_JSON} bytes, got {path.stat().st_size}: is it a {path.name}?")
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:               # not UTF-8, not JSON, or nested too deeply
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected an object {{...}}, got {type(found).__name__}")
    return found


def perhaps_metas(kind: str, meta: dict) -> bool:
    """Whether a file is in the official format and was not written by this package."""
    return kind.startswith("mae") and "eps" not in stated(meta)


def stated(meta: dict) -> dict:
    """The settings in an official file: all of them if this package wrote it, few in a training checkpoint, or none."""
    config, args = (found if isinstance(found := meta.get(key), dict) else {} for key in ("config", "args"))
    mae = ("mask_ratio", "norm_pix_loss")
    keys = (*mae, "img_size", "num_heads", "decoder_num_heads", "mlp_ratio", "eps", "dropout", "position_encoding")
    return {key: args[key] for key in mae if key in args} | {key: config[key] for key in keys if key in config}
