"""Commands for published weights: inspect, export."""
import argparse
import math
from pathlib import Path

from tinymae.cli.options import add_key
from tinymae.files import visible
from tinymae.messages import either
from tinymae.messages import message as _


def add_inspect(commands: argparse._SubParsersAction) -> None:
    """`inspect`."""
    inspect = commands.add_parser("inspect", help=_("list the tensors of a file of weights: what model is it?"))
    inspect.add_argument("file", metavar="FILE", type=Path, help=_(".pth, .bin, .safetensors, or a Hugging Face folder"))
    add_key(inspect)
    inspect.set_defaults(command=_inspect)


def _inspect(file, key):
    from tinymae.weights.inspect import inspect, listed_unread

    found = inspect(file, key=key)
    for name, shape, dtype in found.tensors:
        print(f"{visible(name):64} {tuple(shape)!s:20} {dtype}")
    numbers = sum(math.prod(shape) for _name, shape, _dtype in found.tensors)
    print("\n" + _("{tensors} tensors, {numbers:,} numbers", tensors=len(found.tensors), numbers=numbers))
    print(found.what)
    print(_("it can: {what}", what=found.can))
    if found.asks:
        print(_("it does not say everything; to load it, give {options}", options=", ".join(found.asks)))
    if found.unread:
        print(visible(_("not part of it: {names}", names=listed_unread(found.unread))))
    if found.licence:
        print(found.licence)
    return 0


def add_export(commands: argparse._SubParsersAction) -> None:
    """`export`."""
    export = commands.add_parser("export", help=_("write a model trained here as one small file, or for other code"))
    export.add_argument("--model", type=Path, required=True, help=_("folder that train mae, vit or translate wrote to"))
    export.add_argument("--to", required=True, choices=("mae", "vit-mae", "vit", "tinymae"),
                        help=_("whose format: of the official code, of Hugging Face, or ours in half precision"))
    export.add_argument("file", metavar="FILE", type=Path,
                        help=_("mae: .pth; vit-mae: Hugging Face folder; vit: either; tinymae: .safetensors"))
    export.set_defaults(command=_export)


def _export(model, to, file):
    if to == "tinymae":
        from tinymae.tasks.export_model import export_model

        print(export_model(model, file))
        return 0
    from tinymae.tasks.encoders import is_published, load_encoder
    from tinymae.weights import export

    if is_published(model):                                     # our files say how we scale pixels, which theirs do differently
        raise ValueError(_("{model}: a published model: expected the folder of a model trained here, which can be exported",
                           model=model))
    found = load_encoder(model)
    if (found.model == "vit") != (to == "vit"):
        fitting = either(["vit"] if found.model == "vit" else ["mae", "vit-mae"])
        raise ValueError(_("{model}: holds a {kind} model, which --to {to} cannot hold: expected --to {fitting}",
                           model=model, kind=found.model, to=to, fitting=fitting))
    write = {"mae": export.export_mae, "vit-mae": export.export_vit_mae, "vit": export.export_vit}[to]
    print(write(file, found.config, found.params))
    return 0
