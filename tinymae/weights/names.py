"""Which tensors of a file are the model, and what they are called in a known layout.

Programs that train a model wrap it before they save it, and its names begin with what they wrapped it in: `module.`, `model.`,
`student.backbone.`. No list of these could be complete, and none is needed: a Vision Transformer has one patch embedding, and
what stands in front of the name of that one stands in front of all names of the model.

    module.backbone.patch_embed.proj.weight     the prefix is "module.backbone."
    module.projector.0.weight                   outside of it: not part of the model, `left_out` counts it
"""
from collections import Counter
from collections.abc import Collection, Iterable

from tinymae.messages import message as _
from tinymae.weights.layout import HUGGING_FACE, OFFICIAL, RENAMED
from tinymae.weights.records import Unread, shortened

INNER = "vit."          # Hugging Face's name of the encoder inside a model; saved alone, it is without this
HUGGING_FACE_EMBEDDING = f"{HUGGING_FACE.patch_embed}.weight"
# how the name of a patch embedding ends: what its layout has in place of the prefix
EMBEDDINGS = {f"{OFFICIAL.patch_embed}.weight": "", HUGGING_FACE_EMBEDDING: "", HUGGING_FACE_EMBEDDING[len(INNER) :]: INNER}
LAYOUT_PARTS = (INNER, "decoder.", f"{HUGGING_FACE.head}.")      # of Hugging Face's models
POOLER = f"{INNER}pooler."      # a layer behind the encoder that no model here has


def model_prefixes(names: Iterable[str]) -> dict[str, str]:
    """{prefix: key of EMBEDDINGS}, of every Vision Transformer among these tensors."""
    found = {}
    for name in names:
        end = next((end for end in EMBEDDINGS if f".{name}".endswith(f".{end}")), None)
        if end:
            found[name.removesuffix(end)] = end
    return found


def known_names(names: Collection[str]) -> tuple[dict[str, str], dict[str, Unread]]:
    """The names of a model in its layout, without the prefix that they share; of several models, the one without a prefix.

    Returns
    -------
    given : {name in the layout: name in the file}; the names as they are if the model is not known
    unread : `left_out` of all others

    Raises
    ------
    ValueError
        if a tensor has two names
    """
    found = model_prefixes(names)
    if not found:
        return {name: name for name in names}, {}
    prefix = min(found)
    end, others = found[prefix], tuple(found.keys() - {prefix})
    given = {}
    for name in names:
        if not name.startswith(prefix) or name.startswith(others):
            continue
        known = EMBEDDINGS[end] + name.removeprefix(prefix)
        if end in HUGGING_FACE_EMBEDDING:
            for newer, usual in RENAMED:
                known = known.replace(newer, usual)
            if not known.startswith(LAYOUT_PARTS) or known.startswith(POOLER):
                continue
        if known in given:
            raise ValueError(_("{name!r} and {other!r} are two names of one tensor, expected one of them",
                               name=name, other=given[known]))
        given[known] = name
    return given, left_out(set(names).difference(given.values()), prefix)


def left_out(names: Iterable[str], prefix: str) -> dict[str, Unread]:
    """{beginning of names: how many tensors have it}, for names outside of a prefix: the first part in which they differ."""
    inside, counts = prefix.split(".")[:-1], Counter()
    for name in sorted(names):
        parts = name.split(".")
        same = next((i for i, (a, b) in enumerate(zip(parts, inside, strict=False)) if a != b), min(len(parts), len(inside)))
        counts[".".join(parts[: same + 1])] += 1
    return {
        label: Unread(_("1 tensor") if count == 1 else _("{count} tensors", count=count)) for label, count in counts.items()
    }


def ask(keys: Iterable[str]) -> str:
    """The message that a file has several models."""
    keys = ", ".join(map(shortened, list(keys)[:10]))
    return _("it has tensors under several keys, {keys}: choose one with --key NAME (in Python, key=)", keys=keys)
