"""A learner's file: executed, its functions checked, and what is wrong with them explained.

A solution is ordinary Python, and `check` executes it: do not check a file that you would not run. Its line
`EXERCISE = "layernorm"` selects the exercise; the file may have any name.

`check_file`, in `tinymae.learn.process`, calls `judge_file` in a process of its own, with a time limit. Use that one for every
file whose end you have not seen: your own before its first run, and those of others.
"""
import ast
import tokenize
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tinymae import gradcheck
from tinymae.learn.demands import Problem
from tinymae.learn.errors import explained
from tinymae.learn.exercises import CAUSES, EXERCISES, NO_NAME, POINTS, ZOO, source_of, story, unknown_name
from tinymae.learn.honesty import borrowed, watched
from tinymae.learn.report import Report, existing_file
from tinymae.learn.terminal import filled
from tinymae.messages import listed, translated
from tinymae.messages import message as _


def judge_file(path: Path | str, before: Callable[[], None] = lambda: None, *, tell: bool = False) -> Report:
    """Execute a learner's file in this process, check the functions that it defines, and explain what is wrong.

    It is quick, for files that are known to end. The file may loop forever here, or take Python down with it: for all others
    there is `check_file`.

    Parameters
    ----------
    path : a Python file with a line such as EXERCISE = "layernorm"; it is executed
    before : called before the file is executed, and before each table of its check
    tell : tell the story of a bug of the zoo without a guess

    Raises
    ------
    FileNotFoundError
        if there is no such file
    """
    path, names = existing_file(path), {}
    try:
        before()
        _execute(path, names)
        name, exercise = _exercise_of(names)
    except Problem as problem:
        return Report(False, filled(_("{path}: {problem}", path=path, problem=problem)))
    except BaseException as error:                              # of their code; `explained` raises it again if it is ours
        return Report(False, explained(error, path, names))
    text, ok = [_("{path}: {name}, lesson {number}", path=path, name=name, number=exercise.lesson)], False
    report, complaints = partial(Report, exercise=name, most=POINTS[exercise.level]), []
    try:
        guess = None if tell else _guess(name, exercise, names)
        with np.errstate(all="ignore"):                         # NaN and infinity are part of the report: no warnings
            before()
            for title, rows in watched(exercise.check(names), names, path, _defines(name), complaints):
                ok = _table(text, title, rows)
                if not ok:
                    break                                       # after the first wrong one
                before()
            if ok and complaints:
                raise Problem(complaints[0])
    except Problem as problem:
        text.append(filled(str(problem)))
    except BaseException as error:
        text.append(explained(error, path, names, borrowed(names, _defines(name))))
    else:
        text += [_("All of it is right.")] * ok
        text += [filled(guess)] if guess and ok else []
        text += [filled(_("Why nobody noticed. {story}", story=story(name)))] if name in ZOO and (ok or tell) else []
        return report(ok, "\n\n".join(text), points=ok * POINTS[exercise.level])
    return report(False, "\n\n".join(text))


def _guess(name, exercise, names):
    """What there is to say about the guess of a learner who mends a bug; a Problem if there is none yet."""
    if name not in ZOO:
        return None
    guess = names.get("CAUSE")
    if guess not in CAUSES:
        ask = _("Read the file first, and guess what is wrong: write one of the words below into the line CAUSE, and check "
                "again. (`check --story` tells you at once.)")
        if guess is not None:
            ask = _("CAUSE is {guess!r}. {ask}", guess=guess, ask=ask)
        raise Problem("\n".join([ask, *(f"    {key:10}{translated(words)}" for key, words in CAUSES.items())]))
    said, right = translated(CAUSES[guess]), translated(CAUSES[exercise.cause])
    if guess == exercise.cause:
        return _("Your guess, {guess!r}, is right: {cause}.", guess=guess, cause=right)
    return _("Your guess was {guess!r}, {said}. It is {cause!r}: {right}.",
             guess=guess, said=said, cause=exercise.cause, right=right)


def _defines(name):
    """The names of the functions, classes and methods that an exercise's file defines."""
    nodes = ast.walk(ast.parse(source_of(name)))
    return {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[:2] != "__"}


def _execute(path, names):
    """Execute a learner's file in the namespace `names`."""
    names |= {"__name__": path.stem, "__file__": str(path)}
    try:
        with tokenize.open(path) as file:                       # UTF-8, unless its first line declares a different encoding
            source = file.read()
    except (SyntaxError, ValueError) as error:
        raise Problem(_("it is not a text file in UTF-8: {error}", error=error)) from error
    try:
        code = compile(source, str(path), "exec")
    except SyntaxError as error:
        text = _("it is not Python: {message}", message=error.msg)
        if error.lineno:
            text = _("line {line} is not Python: {message}", line=error.lineno, message=error.msg)
        raise Problem(f"{text}\n    {error.text.strip()}" if error.text else text) from error
    except ValueError as error:                                 # null bytes, in some versions of Python
        raise Problem(_("it is not a text file in UTF-8: {error}", error=error)) from error
    exec(code, names)


def _exercise_of(names):
    """(name, Exercise) that a learner's file declares in its line EXERCISE = ...."""
    name = names.get("EXERCISE")
    if not isinstance(name, str):
        raise Problem(translated(NO_NAME))
    if name not in EXERCISES | ZOO:
        raise Problem(unknown_name(name))
    return name, (EXERCISES | ZOO)[name]


def _table(text, title, rows):
    """Append the table of some rows to text, and the causes of the wrong ones; returns whether all are right."""
    text.append(gradcheck.format_rows(title, [replace(row, diagnosis="") for row in rows]))
    tensors, unknown = {}, set()
    for row in rows:
        if not row.ok:
            tensors.setdefault(row.diagnosis, []).append(row.tensor)
        if row.cause == "unknown":
            unknown.add(row.diagnosis)
    known = sorted((cause for cause in tensors if cause not in unknown), key=lambda cause: -len(tensors[cause]))
    for cause in known[:3] or list(tensors)[:1]:
        text.append(filled(_("{tensors}: {cause}", tensors=_few(tensors[cause]), cause=cause)))
    if rows[0].tensor == "y" and not rows[0].ok and len(rows) > 1:
        text.append(filled(
            _("The gradients are right for this forward: a gradient check cannot detect a wrong forward.")
            if all(row.ok for row in rows[1:]) else
            _("The gradients are compared with those of this forward: make y right first, then check again.")
        ))
    return not tensors


def _few(tensors):
    names = listed(tensors[:4])
    return _("{names} and {count} more", names=names, count=len(tensors) - 4) if len(tensors) > 4 else names
