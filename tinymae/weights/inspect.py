"""What model a file of weights holds, and what can be done with it. Reads no numbers."""
import json
from pathlib import Path
from typing import NamedTuple

from tinymae.images.pixels import MEAN, STD
from tinymae.weights.layout import HUGGING_FACE, OFFICIAL
from tinymae.weights.read import list_weights, read_weights

LICENCE = (
    "Names of the official MAE code: if this file is Meta's, its weights are CC-BY-NC 4.0, free for non-commercial use only, "
    "with attribution (He et al. 2021, github.com/facebookresearch/mae)."
)

# what a file is, and what can be done with it
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


class Inspection(NamedTuple):
    """What `inspect` returns."""

    kind: str       # a key of KINDS, or "" for a file of weights of no model that is known here
    what: str
    can: str
    licence: str    # "" where nothing is to be said
    tensors: list   # of (name, shape, dtype), as in the file


def read_model(path):
    """A folder or file of weights, with what config.json says.

    Parameters
    ----------
    path : str or Path, a .pth, .bin or .safetensors file, or a Hugging Face folder

    Returns
    -------
    weights : weights.read.Weights
    config : dict, of the config.json in the folder or beside the file; {} where there is none

    Raises
    ------
    FileNotFoundError
        where there is no such file, or no weights in the folder
    ValueError
        as `weights.read.read_weights`, and where config.json is damaged
    """
    file, config = _find(path)
    return read_weights(file), config


def inspect(path):
    """List the tensors of a file or folder and say what model it is and what it can do. Reads no numbers.

    Parameters
    ----------
    path : as `read_model`

    Returns
    -------
    Inspection

    Raises
    ------
    FileNotFoundError, ValueError
        as `read_model`
    """
    file, _ = _find(path)
    tensors, meta = list_weights(file)
    kind = recognise([name for name, _, _ in tensors])
    what, can = KINDS.get(kind, ("no model that is known here", f"nothing; known are {', '.join(KINDS)}"))
    return Inspection(kind, what, can, LICENCE if perhaps_metas(kind, meta) else "", tensors)


def recognise(names):
    """The kind of model that has tensors of these names: a key of KINDS, or ""."""
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


def normalisation(path):
    """(mean, std) of the pixels that a model was trained on, for `images.pixels.to_pixels`.

    Ours, one number for all channels, where a file says that we wrote it; else ImageNet's, three, which published models use.
    """
    file, config = _find(path)
    _, meta = list_weights(file)
    if "eps" in stated(meta) or "image_mean" in config:
        return MEAN, STD
    return IMAGENET_MEAN, IMAGENET_STD


def _find(path):
    """(the file with the weights, what config.json beside it says)."""
    path = Path(path)
    if path.is_dir():
        files = [path / name for name in ("model.safetensors", "pytorch_model.bin")]
        folder, path = path, next((file for file in files if file.is_file()), None)
        if path is None and list(folder.glob("*.index.json")):
            raise ValueError(f"{folder}: the weights are cut into several files, which are not read: save them as one")
        if path is None:
            raise FileNotFoundError(f"{folder}: expected model.safetensors or pytorch_model.bin in this folder")
    config = path.with_name("config.json")
    if not config.is_file():
        return path, {}
    if config.stat().st_size > 1 << 20:
        raise ValueError(f"{config}: {config.stat().st_size} bytes are no config.json of a model")
    try:
        found = json.loads(config.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{config}: no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{config}: expected a table, got a {type(found).__name__}")
    return path, found


def perhaps_metas(kind, meta):
    """Is it in the official format, and not written by us?"""
    return kind.startswith("mae") and "eps" not in stated(meta)


def stated(meta):
    """What an official file says beyond the sizes: all in those that we wrote, little in a training checkpoint, or nothing."""
    config, args = (found if isinstance(found := meta.get(key), dict) else {} for key in ("config", "args"))
    mae = ("mask_ratio", "norm_pix_loss")
    keys = (*mae, "num_heads", "decoder_num_heads", "mlp_ratio", "eps", "dropout", "position_encoding")
    return {key: args[key] for key in mae if key in args} | {key: config[key] for key in keys if key in config}
