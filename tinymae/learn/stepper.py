"""`lesson N --step`: a lesson in the terminal, one cell at a time.

`step` shows the prose and code of a cell and waits. At Enter it runs the cell, lists the arrays that the cell made, and shows
the figures that it saved, where the terminal can; otherwise it says where they are. The learner can also open a prompt with the
variables of the lesson, search, list the cells, and go to another one, back with the variables as they were before it.
"""
import code
import contextlib
import copy
import io
import os
import shutil
import sys
import tempfile
import traceback
import types
import webbrowser
from pathlib import Path

import numpy as np

from tinymae import tree
from tinymae.learn.lessons import Lesson, lesson_in_language
from tinymae.learn.prose import code_in_language, from_lessons
from tinymae.learn.terminal import coloured, inline_picture, narrow, readable
from tinymae.messages import message as _


def step(lesson: Lesson, start: int = 0) -> int:
    """Walk through a lesson: show a cell, run it at Enter, show what it printed and the arrays it made.

    Parameters
    ----------
    lesson : to walk through
    start : the cell to begin at, counted from 0; those before it are run first

    Returns
    -------
    The cell at which it was left, counted from 0; the number of cells if the end was reached

    Notes
    -----
    If there is a screen, and the terminal shows no pictures, figures open as well. `b` goes back one cell, with all variables
    as they were before it.
    """
    lesson = lesson_in_language(lesson)
    namespace = {"__name__": "__main__", "__file__": str(lesson.path)}
    before = []                                                 # a copy of the variables from before each cell that was run

    def run(index):
        """Run a cell; True unless it raised, when the variables are as they were."""
        before.append(_copied(namespace))
        if _run_cell(lesson, lesson.cells[index], namespace):
            return True
        restore(before.pop())
        return False

    def restore(variables):
        namespace.clear()                                       # the same dict: it holds the globals of the lesson's functions
        namespace.update(variables)

    def go(index, target):
        """Where one arrives on the way from cell `index` to `target`: all of it, or the cell that raised."""
        if target < index:
            restore(before[target])
            del before[target:]
            return target
        for each in range(index, target):
            with contextlib.redirect_stdout(io.StringIO()):
                done = run(each)
            if not done:
                print(_("cell {number} raises an error", number=each + 1))
                return each
        return target

    index = go(0, min(start, len(lesson.cells) - 1))
    while index < len(lesson.cells):
        cell = lesson.cells[index]
        _show(lesson, index)
        try:
            answer = input(_keys(cell)).strip()
        except EOFError:
            return index
        command = answer.lower()
        if command == "q":
            return index
        if command == "i":
            _look(namespace)
        elif command == "l":
            _list(lesson, index)
        elif command.startswith("/"):
            index = go(index, _found(lesson, index, answer[1:].strip()))
        elif command.isdecimal() and 1 <= int(command) <= len(lesson.cells):
            index = go(index, int(command) - 1)
        elif command == "b" and index:
            index = go(index, index - 1)
        elif command == "":
            index += run(index)
        else:
            first = command == "b"
            print(_("this is the first cell: there is none to "
                    "go back to") if first else _("{answer!r} is none of these", answer=answer))
    print("\n" + _("The end of lesson {number}. Next: python -m tinymae lesson --step", number=lesson.number))
    return index


def _keys(cell):
    """What one may type at a cell."""
    if cell.code:
        return _("Enter run it · i look · b back · l list · N cell N · /word find · q quit > ")
    return _("Enter go on · i look · b back · l list · N cell N · /word find · q quit > ")


def _show(lesson, index):
    cell, count = lesson.cells[index], len(lesson.cells)
    width = shutil.get_terminal_size().columns                  # anew for each cell: the window may have changed
    heading = cell.heading or _("(continued)")
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    done = round(20 * index / max(1, count - 1))
    title = _("Lesson {number}", number=lesson.number)
    print(f"\n{bold}{title} [{index + 1}/{count}] {'=' * done}{'.' * (20 - done)}  {heading}{plain}\n")
    if cell.prose:
        print(readable(cell.prose, width), end="\n\n")
    if cell.code:
        shown = narrow(code_in_language(cell.code, from_lessons, min(88, width - 4)), width - 4)
        shown = coloured(shown) if sys.stdout.isatty() else shown
        print("\n".join(f"    {line}".rstrip() for line in shown.splitlines()), end="\n\n")


def _list(lesson, index):
    """The cells of a lesson, with a mark at this one."""
    for number, cell in enumerate(lesson.cells):
        heading = cell.heading or "   " + _("(continued)")
        print(f"{'>' if number == index else ' '} {number + 1:2}  {heading}")


def _found(lesson, index, words):
    """The next cell, from the one after this on and around, whose text has these words; this one if there is none."""
    count = len(lesson.cells)
    for target in ((index + 1 + i) % count for i in range(count)):
        cell = lesson.cells[target]
        if words and words.lower() in f"{cell.heading} {cell.prose} {cell.code}".lower():
            return target
    print(_("{words!r} is not in this lesson", words=words))
    return index


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
        print("  " + _("saved: {path}", path=figure.resolve()))
        if picture := inline_picture(figure):
            print(picture, flush=True)
        elif has_screen():
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
        leaves = [leaf for _path, leaf in tree.leaves(value)]
        if all(isinstance(leaf, np.ndarray) for leaf in leaves):
            return _("{name}: {arrays} arrays, {numbers:,} numbers", name=name, arrays=len(leaves), numbers=tree.count(value))
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
    banner = _("The lesson's variables are here. exit() goes back to the lesson.") + "\n"
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
