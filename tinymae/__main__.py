"""python -m tinymae: the main job, and everything else that runs from the command line."""
import argparse
import io
import os
import sys
import warnings

from tinymae.cli import learn, mae, play, translate, vit, weights
from tinymae.files import visible
from tinymae.messages import SPOKEN, marked, set_language, speak_like_us, translated
from tinymae.messages import message as _
from tinymae.train.launcher import launched

OF_FILES = {
    FileNotFoundError: marked("no such file or folder"),
    PermissionError: marked("no permission to read or write it"),
    IsADirectoryError: marked("expected a file, got a folder"),
    NotADirectoryError: marked("expected a folder, got a file"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Whatever goes wrong is one line on standard error. With --debug anywhere among the arguments, it is a traceback.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        _make_writable(stream)
    if arguments and arguments[0].partition("=")[0] == "--lang":    # before the parser is made: its texts are translated, too
        language, arguments = _language(arguments)
        try:
            set_language(language)
        except ValueError as error:
            return _say(error, error, 2)
    speak_like_us()
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
        arguments = ["demo", *arguments]
    if arguments[0] != "train" and launched() != 1:
        told = _("mpiexec runs several processes, and `train` alone knows how to share its work")
        print(f"tinymae: {told}", file=sys.stderr)
        return 2
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    options.pop("lang")
    if "debug" in options:                                      # a command that goes on after an error
        options["debug"] = debug
    try:
        with warnings.catch_warnings():                         # a warning is one line, without the code that gave it
            warnings.showwarning = lambda message, *where: print(visible(f"tinymae: {message}"), file=sys.stderr)
            if options.get("seed", 0) < 0:
                raise ValueError(_("expected a --seed that is non-negative, got {seed}", seed=options["seed"]))
            status = command(**options)
            sys.stdout.flush()
            return status
    except BrokenPipeError as error:                            # `head` has seen enough: worth a word if it ends a training run
        reason = _("the reader of the output has closed it") if arguments[0] in ("train", "demo") else None
        return _say(reason, error, 1)
    except KeyboardInterrupt as error:
        return _say(_("interrupted"), error, 130)
    except SystemExit as error:
        return _say(_("ended by a signal"), error, error.code)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, (ValueError, TypeError, OSError, ImportError, FloatingPointError)):
            return _say(_told(error), error, 1)
        kind = type(error).__name__
        return _say(_("{kind}: {error} (the same command with --debug says where)", kind=kind, error=error), error, 1)


def _language(arguments):
    """The language of `--lang zh` or `--lang=zh`, which precedes the command, and the other arguments."""
    option, language = arguments[0], arguments[0].partition("=")[2]
    return (language, arguments[1:]) if "=" in option else ("".join(arguments[1:2]), arguments[2:])


def _make_writable(stream):
    """Let a stream write any character: a file or a pipe on Windows has a code page that lacks Chinese, and most others."""
    if isinstance(stream, io.TextIOWrapper):
        piped = not stream.isatty() and "PYTHONIOENCODING" not in os.environ
        stream.reconfigure(encoding="utf-8" if piped else None, errors="replace")


def _told(error):
    """An error as a sentence in the user's language: the operating system's own words on files may be in another one."""
    if not isinstance(error, OSError) or error.filename is None or type(error) not in OF_FILES:
        return error
    return _("{file}: {reason}", file=error.filename, reason=translated(OF_FILES[type(error)]))


def _say(what, error, status):
    """Print what there is to say, if anything, and the notes of the error, and return the status."""
    for note in (what, *getattr(error, "__notes__", [])):
        _write(f"tinymae: {visible(str(note))}\n" if note else "", sys.stderr)
    _write("", sys.stdout)
    return status


def _write(text, stream):
    """Write to a stream that may be closed or full; what it then still holds is discarded, or Python fails when it ends."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _parser():
    from tinymae import __version__

    parser = argparse.ArgumentParser(
        prog="python -m tinymae", description=_("The Transformer you can read. Without a command: the demo."),
        epilog=_("--debug with any command shows the traceback of an error."),
    )
    parser.add_argument("--lang", choices=SPOKEN, help=_("the language, before the command (default: the environment's)"))
    parser.add_argument(
        "--version", action="version", version=__version__, help=_("show program's version number and exit"),
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    mae.add_demo(commands)
    train = commands.add_parser("train", help=_("train a model, and keep it")).add_subparsers(required=True, metavar="MODEL")
    mae.add_train(train)
    translate.add_train(train)
    vit.add_train(train)
    translate.add_translate(commands)
    translate.add_average(commands)
    evaluate = commands.add_parser("evaluate", help=_("measure a model")).add_subparsers(required=True, metavar="MODEL")
    mae.add_evaluate(evaluate)
    vit.add_evaluate(evaluate)
    translate.add_evaluate(evaluate)
    vit.add_probe(commands)
    weights.add_inspect(commands)
    weights.add_export(commands)
    mae.add_reconstruct(commands)
    play.add_play(commands)
    learn.add_articles(commands)
    learn.add_lessons(commands)
    learn.add_lesson(commands)
    learn.add_exercise(commands)
    learn.add_hint(commands)
    learn.add_check(commands)
    learn.add_progress(commands)
    learn.add_gradcheck(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
