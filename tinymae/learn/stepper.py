"""`lesson N --step`: a lesson in the terminal, one cell at a time.

`step` shows the prose and code of a cell and waits. At Enter it runs the cell and lists the arrays that the cell made and the
figures that it saved. The learner can also open a prompt with the variables of the lesson, or go back one cell, with the
variables as they were before it.
"""
import code
import contextlib
import copy
import io
import os
import re
import sys
import tempfile
import traceback
import types
import webbrowser
from pathlib import Path

import numpy as np

from tinymae import tree
from tinymae.learn.lessons import Lesson

HELP = "Enter: run it | i: look at the variables | b: back | q: quit > "


def step(lesson: Lesson) -> bool:
    """Walk through a lesson: show a cell, run it at Enter, show what it printed and the arrays it made.

    If there is a screen, figures open as well. `b` goes back one cell, with all variables as they were before it.

    Returns
    -------
    whether the end was reached
    """
    namespace = {"__name__": "__main__", "__file__": str(lesson.path)}
    before = []                                                 # a copy of the variables from before each cell that was run
    index = 0
    while index < len(lesson.cells):
        cell = lesson.cells[index]
        _show(lesson, index)
        try:
            answer = input(HELP if cell.code else HELP.replace("run it", "go on")).strip().lower()
        except EOFError:
            return False
        if answer == "q":
            return False
        if answer == "i":
            _look(namespace)
        elif answer == "b" and index:
            index -= 1
            namespace.clear()                                   # the same dict: it holds the globals of the lesson's functions
            namespace.update(before.pop())
        elif answer == "":
            before.append(_copied(namespace))
            if _run_cell(lesson, cell, namespace):
                index += 1
            else:
                namespace.clear()
                namespace.update(before.pop())
        else:
            print("this is the first cell: there is none to go back to" if answer == "b" else f"{answer!r} is none of these")
    print(f"\nThe end of lesson {lesson.number}. Next: python -m tinymae lessons")
    return True


def _show(lesson, index):
    cell = lesson.cells[index]
    heading = cell.heading or "(continued)"
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}Lesson {lesson.number} [{index + 1}/{len(lesson.cells)}]  {heading}{plain}\n")
    if cell.prose:
        print(readable(cell.prose), end="\n\n")
    if cell.code:
        print("\n".join(f"    {line}".rstrip() for line in cell.code.splitlines()), end="\n\n")


def readable(prose: str) -> str:
    """reST for a terminal: without the marks that only a browser needs."""
    prose = re.sub(r":[a-z:]+:`([^`<]*?)(?: <[^`]*>)?`", r"\1", prose)
    prose = re.sub(r"`([^`<]+) <([^`>]+)>`__?", r"\1 (\2)", prose)
    prose = prose.replace("``", "")
    return re.sub(r"^\.\. math::\n*", "", prose, flags=re.MULTILINE)


def _run_cell(lesson, cell, namespace):
    """Run the code of a cell; True unless it raised."""
    known = {name: id(value) for name, value in namespace.items()}
    output = _Tee(sys.stdout)
    try:
        with contextlib.redirect_stdout(output):
            exec(compile("\n" * (cell.line - 1) + cell.code, str(lesson.path), "exec"), namespace)
    except Exception as error:                                  # whatever the cell raises: it is shown, and the cell stays
        frames = error.__traceback__.tb_next                    # without our own frame
        print("".join(traceback.format_exception(type(error), error, frames)), end="", flush=True)
        return False
    new = {name: value for name, value in namespace.items() if not name.startswith("_") and known.get(name) != id(value)}
    for line in filter(None, (shape_of(name, value) for name, value in new.items())):
        print(f"  {line}")
    for figure in output.figures():
        print(f"  saved: {figure.resolve()}")
        if has_screen():
            webbrowser.open(figure.resolve().as_uri())
    return True


class _Tee(io.TextIOBase):
    """A stream that passes on what is printed and keeps it, to find the paths of figures in it."""

    def __init__(self, stream):
        self.stream, self.kept = stream, []

    def write(self, text):
        self.kept.append(text)
        return self.stream.write(text)

    def flush(self):
        self.stream.flush()

    def isatty(self):
        return self.stream.isatty()

    def figures(self):
        lines = "".join(self.kept).splitlines()
        return [Path(line) for line in lines if line.endswith(".png") and Path(line).is_file()]


def shape_of(name: str, value: object) -> str:
    """`scores (5, 5) float64` for an array, the number of arrays and numbers for a tree of arrays, "" for anything else."""
    if isinstance(value, np.ndarray):
        return f"{name} {value.shape} {value.dtype}"
    if isinstance(value, (dict, list)) and value:
        leaves = [leaf for _, leaf in tree.leaves(value)]
        if all(isinstance(leaf, np.ndarray) for leaf in leaves):
            return f"{name}: {len(leaves)} arrays, {tree.count(value):,} numbers"
    return ""


def has_screen() -> bool:
    """Whether figures can open: the output is a terminal, and there are windows."""
    windows = sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and windows


def _copied(namespace):
    """A copy of the variables: values that can change are copied, but not if that is impossible (an open file)."""
    memo, copies = {}, {}
    for name, value in namespace.items():
        # a temporary folder is deleted with its object, so the object itself is kept
        if isinstance(value, (types.ModuleType, types.FunctionType, type, tempfile.TemporaryDirectory)):
            copies[name] = value
            continue
        try:
            copies[name] = copy.deepcopy(value, memo)
        except (TypeError, ValueError):                         # cannot be copied; ValueError: ctypes, as in a used `Workers`
            copies[name] = value
    return copies


def _look(namespace):
    """An interactive prompt with the lesson's variables, which it may change: IPython's if it is installed."""
    banner = "The lesson's variables are here. exit() goes back to the lesson.\n"
    theirs = dict(namespace)                                    # a prompt adds names of its own
    try:
        from IPython.terminal.embed import InteractiveShellEmbed
    except ImportError:
        own = {"exit", "quit"}
        theirs.update(dict.fromkeys(own, _leave))               # Python's own exit() would close the standard input
        with contextlib.suppress(SystemExit):
            code.interact(banner, local=theirs, exitmsg="")
    else:
        shell = InteractiveShellEmbed(user_ns=theirs, banner1=banner, confirm_exit=False)
        shell()
        own = set(shell.user_ns_hidden)
    namespace.update({name: value for name, value in theirs.items() if name not in own and not name.startswith("_")})


def _leave():
    raise SystemExit
