"""Which model a file of weights holds, and what you can do with it.

The names of the tensors tell (`recognise`), so `inspect` reads no numbers. `read_published` reads the weights, and the
config.json beside them, for `published` and `marian`.
"""
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tinymae.files import never_downloaded
from tinymae.messages import marked, translated
from tinymae.messages import message as _
from tinymae.weights.layout import DECODER_SIZES, HUGGING_FACE, OFFICIAL, known_heads
from tinymae.weights.names import known_names
from tinymae.weights.read import INDEX, Weights, list_weights, read_weights
from tinymae.weights.records import Unread

LICENCE = marked(
    "This seems to be a file of the official MAE code. If it is Meta's, its weights are CC-BY-NC 4.0: free for non-commercial "
    "use only, with attribution (He et al. 2021, github.com/facebookresearch/mae)."
)
PLAIN_FILES = re.compile("mae_visualize_vit_")      # how those begin that predict plain pixels
META_FILES = re.compile(r"mae_(pretrain|visualize|finetuned)_vit_")     # how the names of Meta's files begin

LONGEST_JSON = 1 << 24      # a vocabulary of 60,000 subwords has about 1.5 million bytes

# These sentences are English; `inspect` translates them.  {kind: (what the file holds, what you can do with it)}
KINDS = {
    "mae": (marked("a masked autoencoder with its decoder, official MAE names"), marked("reconstruct, features, fine-tuning")),
    "mae-encoder": (marked("an encoder, names of timm and of the official MAE code"),
                    marked("features, fine-tuning; no reconstruction")),
    "mae-vit": (marked("a classifier, names of timm and of the official MAE code"), marked("classify, features, fine-tuning")),
    "vit-mae": (marked("a masked autoencoder, Hugging Face ViTMAEForPreTraining"),
                marked("reconstruct, features, fine-tuning")),
    "vit": (marked("a classifier, Hugging Face ViTForImageClassification"), marked("classify, features, fine-tuning")),
    "vit-encoder": (marked("an encoder, Hugging Face ViT names"),
                    marked("features, fine-tuning; no reconstruction, no classes")),
    "marian": (marked("a translator, Hugging Face MarianMTModel"), marked("translate")),
}
# {part of a model that ours do not have: the names of its tensors}
UNSUPPORTED = {
    marked("LayerScale (as in DINOv2 and BEiT)"): r"\.(ls1\.gamma|gamma_1|layer_scale1\.lambda1|lambda_1)$",
    marked("register tokens (as in DINOv2)"): r"\b(register_tokens|reg_token)$",
    marked("a gated feed-forward layer (SwiGLU)"): r"\.mlp\.(w12|w1|fc1_g|weights_in)\.weight$",
    marked("a distillation token (as in DeiT)"): r"\b(dist_token|distillation_token)$",
    marked("relative positions (as in BEiT)"): r"\brelative_position_bias|\brel_pos",
    marked("a bias of queries and values alone (as in BEiT)"): r"\.q_bias$",
    marked("normalised queries and keys"): r"\.q_norm\.",
    marked("a layer norm in front of the blocks (as in CLIP)"): r"\bnorm_pre\.",
    marked("pooling by attention"): r"\battn_pool\.",
}
# models that are none of these, by the end of one name
OTHERS = {
    "visual.conv1.weight": marked("CLIP: not supported here"),
    "vision_model.embeddings.patch_embedding.weight": marked("CLIP or SigLIP, Hugging Face: not supported here"),
    "patch_embed.proj.weight": marked("a Transformer for images of another architecture: not supported here"),
    "layer1.0.conv1.weight": marked("a ResNet: not supported here"),
}


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found."""

    kind: str       # a key of KINDS, or "" if the model is not known here
    what: str       # it, and the next two, in the user's language
    can: str
    licence: str    # "" if the file does not say whose it is
    tensors: list[tuple[str, tuple, str]]       # (name, shape, dtype), as in the file
    asks: list[str]             # options without which it cannot be loaded: the file does not say how many heads it has
    unread: dict[str, str]      # what else there is: {name or beginning of names: what it is}


def read_published(path: Path | str, *, key: str | None = None) -> tuple[Weights, dict]:
    """The weights in a file or folder, and their config.json.

    Parameters
    ----------
    path : a .pth, .bin or .safetensors file, the .index.json of several, or a Hugging Face folder
    key : as `weights.read.read_weights`

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
    file, config = find_weights(path)
    return read_weights(file, key=key), config


def inspect(path: Path | str, *, key: str | None = None) -> Inspection:
    """List the tensors of a file or folder, and tell which model it is. Reads no numbers.

    Parameters
    ----------
    path, key : as `read_published`

    Raises
    ------
    FileNotFoundError, ValueError
        as `read_published`
    """
    file, config = find_weights(path)
    tensors, meta = list_weights(file, key=key)
    try:
        given, unread = known_names([name for name, _shape, _dtype in tensors])
    except ValueError as error:
        raise ValueError(_("{file}: {reason}", file=file, reason=error)) from error
    kind = recognise(given)
    if kind:
        what, can = map(translated, KINDS[kind])
    else:
        what, can = translated(other_model(given)), _("nothing; known are {kinds}", kinds=", ".join(KINDS))
    if parts := unsupported(given, kind):
        what = _("{what}, with {parts}: not supported here", what=what, parts=", ".join(map(translated, parts)))
        can = _("nothing")
    licence = translated(LICENCE) if perhaps_metas(kind, meta, file) else ""
    shapes = {name: shape for name, shape, _dtype in tensors}
    asks = [] if parts else _asks(kind, {known: shapes[name] for known, name in given.items()}, stated(meta), config, file)
    return Inspection(kind, what, can, licence, tensors, asks, unread_entries(meta, unread))


def _asks(kind, shapes, said, config, file):
    """What `published` asks for: see there."""
    if not kind.startswith("mae"):
        return []                                               # Hugging Face's config.json says everything

    def depth(blocks):
        return len({name.removeprefix(f"{blocks}.").partition(".")[0] for name in shapes if name.startswith(f"{blocks}.")})

    width, decoder = shapes.get(OFFICIAL.cls_token, (0,))[-1], shapes.get(f"{OFFICIAL.embed}.weight", (0,))[0]
    asks = {"--heads": "num_heads" not in said and known_heads(width, depth(OFFICIAL.blocks), config) is None}
    if kind == "mae":
        sizes = (decoder, depth(OFFICIAL.decoder_blocks))
        asks["--decoder-heads"] = "decoder_num_heads" not in said and sizes != DECODER_SIZES
        asks["--norm-pix-loss or --no-norm-pix-loss"] = "norm_pix_loss" not in said and not PLAIN_FILES.match(file.name)
    return [option for option, wanted in asks.items() if wanted]


def recognise(names: Collection[str]) -> str:
    """The model that has tensors of these names, as `known_names` gives them: a key of KINDS, or "" if none is known."""
    names = set(names)
    if f"{OFFICIAL.patch_embed}.weight" in names and any(name.startswith(f"{OFFICIAL.blocks}.0.") for name in names):
        if any(name.startswith(f"{OFFICIAL.decoder_blocks}.") for name in names):
            return "mae"
        return "mae-vit" if names & {f"{OFFICIAL.head}.weight", f"{OFFICIAL.head}.1.weight"} else "mae-encoder"
    if f"{HUGGING_FACE.patch_embed}.weight" in names:
        if any(name.startswith(f"{HUGGING_FACE.decoder_blocks}.") for name in names):
            return "vit-mae"
        return "vit" if f"{HUGGING_FACE.head}.weight" in names else "vit-encoder"
    return "marian" if "model.shared.weight" in names else ""


def unsupported(names: Collection[str], kind: str) -> list[str]:
    """The parts of a model of images, in words, that the models here do not have."""
    if kind in ("", "marian"):
        return []
    layout = OFFICIAL if kind.startswith("mae") else HUGGING_FACE
    parts = [part for part, pattern in UNSUPPORTED.items() if any(re.search(pattern, name) for name in names)]
    qkv = f"{layout.blocks}.0.{layout.qkv[0]}"
    if f"{qkv}.weight" in names and f"{qkv}.bias" not in names and not any(name.endswith(".q_bias") for name in names):
        parts.append(marked("queries, keys and values without bias"))
    return parts


def other_model(names: Collection[str]) -> str:
    """A model that is not known here, in words."""
    known = (what for end, what in OTHERS.items() if any(name.endswith(end) for name in names))
    return next(known, marked("no model that is known here"))


def unread_entries(meta: dict, unread: dict[str, Unread]) -> dict[str, str]:
    """{name: what it is} of all that a file holds beside its model, from its meta and from `known_names`."""
    return {name: value.what for name, value in (meta | unread).items() if isinstance(value, Unread)}


def listed_unread(unread: dict[str, str]) -> str:
    """`unread_entries` in one line."""
    first = [f"{name!r} ({what[:80]})" for name, what in list(unread.items())[:5]]
    return ", ".join(first + [_("and {count} more", count=len(unread) - 5)] * (len(unread) > 5))


def find_weights(path: Path | str) -> tuple[Path, dict]:
    """The file with the weights, and the config.json beside it; as `read_published`."""
    path = Path(path)
    if path.is_dir():
        names = ("model.safetensors", "pytorch_model.bin")
        files = [path / name for name in (*names, *(f"{name}{INDEX}" for name in names))]
        folder, path = path, next((file for file in files if file.is_file()), None)
        if path is None:
            raise FileNotFoundError(_("{folder}: expected model.safetensors or pytorch_model.bin in this folder",
                                      folder=folder))
    config = path.with_name("config.json")
    return path, read_json(config) if config.is_file() else {}


def read_json(path: Path) -> dict:
    """The object in a JSON file. Raises a ValueError if it is damaged, not an object, or longer than LONGEST_JSON."""
    if path.stat().st_size > LONGEST_JSON:
        raise ValueError(_("{path}: expected at most {most} bytes, got {size}: is it a {name}?",
                           path=path, most=LONGEST_JSON, size=path.stat().st_size, name=path.name))
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:               # not UTF-8, not JSON, or nested too deeply
        raise ValueError(_("{path} is not JSON: {reason}", path=path, reason=never_downloaded(path) or error)) from error
    if not isinstance(found, dict):
        raise ValueError(_("{path}: expected an object {{...}}, got {kind}", path=path, kind=type(found).__name__))
    return found


def perhaps_metas(kind: str, meta: dict, path: Path) -> bool:
    """Whether a file could be Meta's: by its decoder, its args or its name it is of the official MAE code, and not ours.

    The names of an encoder or a classifier are those of timm, and say nothing.
    """
    said = stated(meta)
    return kind.startswith("mae") and "eps" not in said and bool(kind == "mae" or said or META_FILES.match(Path(path).name))


def stated(meta: dict) -> dict:
    """The settings in an official file: all of them if this package wrote it, few in a training checkpoint, or none."""
    config, args = (found if isinstance(found := meta.get(key), dict) else {} for key in ("config", "args"))
    mae = ("mask_ratio", "norm_pix_loss")
    keys = (*mae, "img_size", "num_heads", "decoder_num_heads", "mlp_ratio", "eps", "dropout", "position_encoding")
    return {key: args[key] for key in mae if key in args} | {key: config[key] for key in keys if key in config}
