"""Options that several commands share."""
import dataclasses
import os
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path

from tinymae.messages import marked
from tinymae.messages import message as _

# What `--data` may be. Written here, so that `--help` imports neither NumPy nor Pillow; a test compares them with the tables.
IMAGE_DATA = marked(
    "photos, digits, openml:NAME, a folder of images, an IDX file (also .gz; EMNIST as transposed:FILE) or an .npz file with "
    "the key images"
)
LABELLED_DATA = marked(
    "digits, openml:NAME, a folder with a folder of images for each class, an IDX file of images (also .gz; EMNIST as "
    "transposed:FILE) with its labels beside it, or an .npz file with the keys images and labels"
)
PAIR_DATA = marked("phrasebook, dates, french, a tab-separated file, or a source and a target file (.gz too)")
RESUME = marked("interrupted; the same command with --resume continues from here")


def add_length(parser: ArgumentParser, minutes: str, epochs: str | None = None) -> None:
    """--steps, --minutes and, if there is a help text for it, --epochs: at most one of them."""
    length = parser.add_mutually_exclusive_group()
    if epochs:
        length.add_argument("--epochs", type=int, help=epochs)
    length.add_argument("--steps", type=int, help=_("train for this many steps: the same result every time"))
    length.add_argument("--minutes", type=float, help=_("train for this long ({minutes})", minutes=minutes))


def add_run(parser: ArgumentParser) -> None:
    """--seed and --threads."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help=_("default: one for each core"))


def add_folder(parser: ArgumentParser, out: str) -> None:
    """--out, with its help text, --resume, --overwrite and --save-every."""
    parser.add_argument("--out", type=Path, required=True, help=out)
    former = parser.add_mutually_exclusive_group()
    former.add_argument("--resume", action="store_true", help=_("continue with the model in the folder"))
    former.add_argument("--overwrite", action="store_true", help=_("replace the model in the folder"))
    parser.add_argument("--save-every", type=float, default=30, metavar="SECONDS", help=_("how often to save (default: 30)"))


def add_ranks(parser: ArgumentParser, command: Callable) -> None:
    """--exact-sum, and the command as command(ranks=..., ...), on every process that mpiexec has started.

    All but the first print nothing.
    """
    parser.add_argument(
        "--exact-sum", action="store_true", help=_("under mpiexec: the same bits for any number of processes; slow")
    )

    def on_all_ranks(exact_sum, **options):
        from tinymae.train.ranks import world

        with world(exact=exact_sum) as ranks, ExitStack() as stack:
            if ranks.rank:
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            return command(ranks=ranks, **options)

    parser.set_defaults(command=on_all_ranks)


def add_img_size(parser: ArgumentParser, what: str) -> None:
    """--img-size, with its help text."""
    parser.add_argument("--img-size", type=_img_size, metavar="ROWS[xCOLS]", help=what)


def _img_size(text):
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ArgumentTypeError(_("expected ROWS or ROWSxCOLS, such as 64 or 48x64, got {text!r}", text=text))
    return int(text) if len(sides) == 1 else tuple(map(int, sides))


def add_heads(parser: ArgumentParser, decoder: bool = False) -> None:
    """--heads and, for models with a decoder, --decoder-heads and --norm-pix-loss: of published weights."""
    parser.add_argument("--heads", type=int, help=_("attention heads of published weights that do not say how many they have"))
    if decoder:
        parser.add_argument("--decoder-heads", type=int, help=_("the same for their decoder"))
        parser.add_argument(
            "--norm-pix-loss", action=BooleanOptionalAction, help=_("whether they predict normalised pixels")
        )


def add_key(parser: ArgumentParser) -> None:
    """--key: of published weights."""
    parser.add_argument("--key", metavar="NAME", help=_("which model of a file of published weights that has several, as "
                                                        "teacher"))


def given(options: dict) -> dict:
    """The options that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def with_options(settings: object, options: dict) -> object:
    """Settings with those options that were given; what is not a field of the settings is one of the model's config."""
    options = given(options)
    fields = {field.name for field in dataclasses.fields(settings)}
    config = {name: value for name, value in options.items() if name not in fields}
    own = {name: value for name, value in options.items() if name in fields}
    return dataclasses.replace(settings, config=settings.config | config, **own)
