"""The command of the live page: play."""
import argparse
import os
import webbrowser
from pathlib import Path

from tinymae.messages import SPOKEN
from tinymae.messages import message as _

PYODIDE = "https://cdn.jsdelivr.net/pyodide/v0.27.7/full/"


def add_play(commands: argparse._SubParsersAction) -> None:
    """`play`."""
    play = commands.add_parser("play", help=_("a page in your browser that shows attention, photographs and gradients live"))
    play.add_argument("--no-browser", action="store_true", help=_("print the page's URL, and open no browser"))
    play.add_argument("--port", type=int, default=0, metavar="N", help=_("of this machine (default: any free one)"))
    play.add_argument("--model", type=Path, action="append", default=[], metavar="PATH", dest="paths",
                      help=_("your own translator or masked autoencoder, or a published one: a folder or a file, twice for one "
                             "of each (default: those that come with tinymae)"))
    play.add_argument("--static", type=Path, metavar="FOLDER", help=_("write the page for a web site in place of that: tinymae "
                                                                      "then runs in the browser, by Pyodide"))
    play.add_argument("--pyodide", metavar="URL", help=_("with --static: the folder of Pyodide (default: {url})", url=PYODIDE))
    play.set_defaults(command=_play, debug=False)


def _play(no_browser, port, paths, static, pyodide, debug):
    from tinymae.play.server import write_site

    if static is None and pyodide is not None:
        raise ValueError(_("--pyodide is for a web site: give --static FOLDER, too"))
    if static is None:
        return _serve(no_browser, port, paths, debug)
    if no_browser or port or paths:
        raise ValueError(_("--static starts no server, and its page has the models of the package: give it no other option "
                           "than --pyodide"))
    print(write_site(static, pyodide or PYODIDE))
    return 0


def _serve(no_browser, port, paths, debug):
    """Serve the page until Ctrl-C, which is the usual end, or a signal."""
    from tinymae.play.own import chosen_models
    from tinymae.play.server import running
    from tinymae.train.signals import stop_signals

    models = chosen_models(paths)
    with stop_signals() as signals, running(models, port, debug=debug) as server:
        url = server.url + _language()
        print(url, flush=True)
        print(_("Ctrl-C ends it"), flush=True)
        if not no_browser:
            webbrowser.open(url)
        while not signals.stop.wait(0.5):                       # Windows delivers no Ctrl-C while a wait has no end
            pass
    return 0


def _language():
    """The language that `--lang` chose, as a part of the URL. Without it, the browser knows what its user reads."""
    chosen = [name for name, catalog in SPOKEN.items() if os.environ.get("LANGUAGE") == catalog]
    return f"&lang={chosen[0]}" if chosen else ""
