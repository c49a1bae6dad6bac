"""An exception in a learner's code, explained: the line, the message, the shapes in that line, and what it often means."""
import re
import traceback
from pathlib import Path
from types import FunctionType

import numpy as np

from tinymae import gradcheck
from tinymae.learn.prose import from_lessons
from tinymae.learn.terminal import filled
from tinymae.messages import listed
from tinymae.messages import message as _


def explained(error: BaseException, path: Path, names: dict, otherwise: str = "") -> str:
    """An exception in the learner's code: the line, the message, and the shapes of the arrays in that line.

    `otherwise` is what there is to say about the file if none of its lines has raised it.
    """
    trace = error.__traceback__
    lines = traceback.extract_tb(trace)
    frames = [(line, frame) for line, (frame, _line) in zip(lines, traceback.walk_tb(trace), strict=True)
              if line.filename == str(path)]
    if isinstance(error, KeyboardInterrupt) and not (frames and lines[-1].line.startswith("raise")):
        raise error                                             # Ctrl-C
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    if isinstance(error, SystemExit):
        text = _("SystemExit: it ends Python itself, by exit(), quit() or sys.exit(): take that line out")
    if not frames:                                              # not in their code, but in the call or in what it returned
        if isinstance(error, SystemExit):
            return filled(text)
        if isinstance(error, TypeError) and str(error).startswith(tuple(f"{name}() " for name in _defined(names, path))):
            return filled(_("{error}: leave the arguments as `exercise` wrote them", error=error))
        if isinstance(error, TypeError) and Path(lines[-1].filename).parent == Path(gradcheck.__file__).parent:
            return filled(str(error))
        if otherwise:
            return filled(otherwise)
        raise error
    (line, frame), notes = frames[-1], []
    if isinstance(error, NotImplementedError):
        return filled(_("{function} is not written yet (line {line}): {what}",
                         function=line.name, line=line.lineno, what=from_lessons(str(error))))
    if isinstance(error, ModuleNotFoundError):
        notes.append(_("An exercise needs NumPy, and nothing else but what its file imports already: take that import out."))
    if "read-only" in str(error):
        notes.append(_("A function must not write into its arguments: copy the argument first, or make a new array."))
    if "inhomogeneous shape" in str(error):
        notes.append(_("Is one of these a pair (y, cache)? A forward of tinymae returns both: y, _ = layer_forward(...)."))
    if isinstance(error, (ValueError, IndexError)):
        arrays = {name: frame.f_locals.get(name) for name in re.findall(r"\w+", line.line)}
        shapes = [f"{name} {array.shape}" for name, array in arrays.items() if isinstance(array, np.ndarray)]
        notes += [_("Shapes: {shapes}", shapes=listed(shapes))] if shapes else []
    if "mismatch in its core" in str(error):
        notes.append(_("The last axis of the left matrix has to be as long as the last but one of the right: is a transpose "
                       "missing?"))
    if "be broadcast together" in str(error):
        notes.append(_("Shapes are compared from the last axis on: two sizes have to be equal, or one of them 1. An axis of "
                       "size 1 comes from keepdims=True, or from None as an index."))
    where = _("line {line}, in {function}:", line=line.lineno, function=line.name)
    return filled("\n".join([where, f"    {line.line}", text, *notes]))


def _defined(names, path):
    """The functions, classes and methods that the learner's file defines, as Python names them in its messages."""
    found = set()
    for value in names.values():
        for each in [value, *vars(value).values()] if isinstance(value, type) else [value]:
            if isinstance(each, FunctionType) and each.__code__.co_filename == str(path):
                found.add(each.__qualname__)
            elif isinstance(each, type) and each.__module__ == path.stem:
                found.add(each.__qualname__)
    return found
