"""Exercises and the bug zoo: write one to a file, and check what a learner has made of it.

    python -m tinymae exercise                  lists them
    python -m tinymae exercise layernorm        writes ./layernorm.py: a forward, numbered equations, a blank backward
    python -m tinymae check layernorm.py        checks it, and says what is wrong with it

The files are those of lessons/exercises, and of its folder zoo, where each is a bug that somebody really wrote. The story of a
bug stands below SPOILER, and is told by `check`. The tables EXERCISES and ZOO say what each is held to.

A learner's file is ordinary Python, and `check` executes it: check no file that you would not run. Its line
`EXERCISE = "layernorm"` says which exercise it is; the file itself may have any name.
"""
import ast
import difflib
import re
import textwrap
import tokenize
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymae.gradcheck import format_rows
from tinymae.learn import check_attention, check_layers, check_models
from tinymae.learn.judge import UNKNOWN, Problem
from tinymae.learn.lessons import lessons_folder

SPOILER = "# ---- why nobody noticed: stop here, and guess first ----\n"
WIDTH = 100             # of the sentences of a report


class Exercise(NamedTuple):
    """One line of the tables; the name is that of a file in lessons/exercises or lessons/exercises/zoo."""

    lesson: int
    check: Callable             # check(names) yields (title, rows); names is the namespace of the learner's file


EXERCISES = {
    "numerical_gradient": Exercise(1, check_layers.check_numerical_gradient),
    "embedding": Exercise(2, check_layers.check_embedding),
    "positional_encoding": Exercise(3, check_layers.check_positional_encoding),
    "dropout": Exercise(3, check_layers.check_dropout),
    "attention": Exercise(4, check_attention.check_attention),
    "split_heads": Exercise(5, check_attention.check_split_heads),
    "multi_head_attention": Exercise(5, check_attention.check_multi_head_attention),
    "masks": Exercise(6, check_attention.check_masks),
    "layernorm": Exercise(7, check_layers.check_layernorm),
    "gelu": Exercise(8, check_layers.check_gelu),
    "feed_forward": Exercise(8, check_layers.check_feed_forward),
    "encoder_layer": Exercise(9, check_layers.check_encoder_layer),
    "shift_right": Exercise(10, check_models.check_shift_right),
    "cross_attention": Exercise(10, check_attention.check_cross_attention),
    "linear": Exercise(11, check_layers.check_linear),
    "softmax": Exercise(11, check_layers.check_softmax),
    "cross_entropy": Exercise(11, check_models.check_cross_entropy),
    "adamw": Exercise(12, check_models.check_adamw),
    "schedule": Exercise(12, check_models.check_schedule),
    "beam_step": Exercise(13, check_models.check_beam_step),
    "patchify": Exercise(15, check_models.check_patchify),
    "random_masking": Exercise(16, check_models.check_random_masking),
    "unshuffle": Exercise(16, check_models.check_unshuffle),
    "masked_mse": Exercise(16, check_models.check_masked_mse),
}
ZOO = {
    "dv_before_dropout": Exercise(4, check_attention.check_attention),
    "attention_item_0": Exercise(4, partial(check_attention.check_attention, dropout=False)),
    "scaled_by_d_model": Exercise(4, partial(check_attention.check_attention, dropout=False)),
    "sentence_as_batch": Exercise(5, check_attention.check_sentence),
    "padding_mask_on_queries": Exercise(6, check_attention.check_padding_mask),
    "padding_mask_broadcast": Exercise(6, check_attention.check_padding_mask),
    "layernorm_gamma_outside": Exercise(7, check_layers.check_layernorm),
    "layernorm_of_squares": Exercise(7, check_layers.check_layernorm),
    "no_residual_backward": Exercise(9, check_layers.check_encoder_layer),
    "cross_attention_swapped": Exercise(10, check_attention.check_cross_attention),
    "softmax_by_batch": Exercise(11, check_layers.check_softmax),
    "softmax_diagonal": Exercise(11, check_layers.check_softmax),
    "softmax_wrong_axis": Exercise(11, check_layers.check_softmax),
    "adam_stands_still": Exercise(12, check_models.check_adamw),
    "schedule_by_tensor": Exercise(12, check_models.check_schedule),
    "mae_without_unshuffle": Exercise(16, check_models.check_unshuffle),
    "true_patch_statistics": Exercise(16, check_models.check_reconstruct),
}


class Report(NamedTuple):
    """What `check_file` found."""

    ok: bool
    text: str


def list_exercises():
    """All exercises and the zoo, each in the order of the lessons.

    Returns
    -------
    list of (name, kind, lesson, summary); kind is "exercise" or "zoo"
    """
    found = []
    for kind, table in (("exercise", EXERCISES), ("zoo", ZOO)):
        for name, exercise in table.items():
            docstring = ast.get_docstring(ast.parse(_source(name)))
            found.append((name, kind, exercise.lesson, docstring.partition("\n")[0]))
    return found


def write_exercise(name, folder=Path(".")):
    """Write an exercise, or a file of the zoo without its story, as NAME.py.

    Parameters
    ----------
    name : str, one of `list_exercises`
    folder : Path, where to

    Returns
    -------
    Path of the new file

    Raises
    ------
    ValueError
        where there is no exercise of this name, with those that are called alike
    FileExistsError
        where the file is there already: it may hold somebody's work
    """
    source, path = _source(name), Path(folder) / f"{name}.py"
    if path.exists():
        raise FileExistsError(f"{path} is there already, and is not overwritten: check it, or move it away first")
    path.write_text(source.partition(SPOILER)[0].rstrip() + "\n", encoding="utf-8")
    return path


def story(name):
    """Why nobody noticed a bug of the zoo: one paragraph."""
    return " ".join(line.removeprefix("#").strip() for line in _source(name).partition(SPOILER)[2].splitlines())


def check_file(path):
    """Execute a learner's file, check what it defines, and say what is wrong.

    Parameters
    ----------
    path : Path of a Python file with a line such as EXERCISE = "layernorm"; it is executed

    Returns
    -------
    Report; ok where everything is right

    Raises
    ------
    FileNotFoundError
        where there is no such file
    """
    path = Path(path)
    if not path.is_file():
        hint = "`python -m tinymae exercise NAME` writes one"
        if path.with_suffix(".py").is_file():
            hint = f"did you mean {path.with_suffix('.py')}?"
        raise FileNotFoundError(f"there is no file {path}: {hint}")
    try:
        names = _execute(path)
        name, exercise = _exercise_of(names)
    except Problem as problem:
        return Report(False, f"{path}: {problem}")
    except Exception as error:
        return Report(False, _where(error, path))
    text, ok = [f"{path}: {name}, lesson {exercise.lesson}"], False
    try:
        with np.errstate(all="ignore"):                         # NaN and infinity are reported, not warned of
            ok = all(_table(text, title, rows) for title, rows in exercise.check(names))        # up to the first wrong one
    except Problem as problem:
        text.append(_wrapped(str(problem)))
    except Exception as error:
        text.append(_where(error, path))
    else:
        text += ["All of it is right."] * ok
        text += [_wrapped(f"Why nobody noticed. {story(name)}")] * (name in ZOO)
    return Report(ok, "\n\n".join(text))


def _source(name):
    """The text of an exercise's file in the package; a ValueError where there is none."""
    if name not in EXERCISES | ZOO:
        raise ValueError(_unknown(name))
    folder = lessons_folder() / "exercises"
    return ((folder if name in EXERCISES else folder / "zoo") / f"{name}.py").read_text(encoding="utf-8")


def _unknown(name):
    alike = difflib.get_close_matches(name, EXERCISES | ZOO, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(alike)}? " if alike else ""
    return f"there is no exercise {name!r}: {hint}`python -m tinymae exercise` lists them"


def _execute(path):
    """The namespace that executing a learner's file leaves behind."""
    names = {"__name__": path.stem, "__file__": str(path)}
    try:
        with tokenize.open(path) as file:                       # UTF-8, unless its first line says otherwise
            code = compile(file.read(), str(path), "exec")
    except SyntaxError as error:
        where = f"line {error.lineno} is" if error.lineno else "it is"
        line = f"\n    {error.text.strip()}" if error.text else ""
        raise Problem(f"{where} not Python: {error.msg}{line}") from error
    except ValueError as error:                                 # bytes that are no UTF-8, or null bytes
        raise Problem(f"it is not a text file in UTF-8: {error}") from error
    try:
        exec(code, names)
    except SystemExit as error:
        raise Problem("it ends Python itself, by exit(), quit() or sys.exit(): take that line out") from error
    return names


def _exercise_of(names):
    """(name, Exercise) that a learner's file says it is."""
    name = names.get("EXERCISE")
    if not isinstance(name, str):
        raise Problem('expected a line such as EXERCISE = "layernorm": it says what to check, so leave it in the file')
    if name not in EXERCISES | ZOO:
        raise Problem(_unknown(name))
    return name, (EXERCISES | ZOO)[name]


def _table(text, title, rows):
    """Append the table of some rows to text, and the causes of those that are wrong; whether all are right."""
    text.append(format_rows(title, [replace(row, diagnosis="") for row in rows]))
    tensors = {}
    for row in rows:
        if not row.ok:
            tensors.setdefault(row.diagnosis, []).append(row.tensor)
    known = sorted((cause for cause in tensors if not cause.startswith(UNKNOWN)), key=lambda cause: -len(tensors[cause]))
    for cause in known[:3] or list(tensors)[:1]:
        text.append(_wrapped(f"{_few(tensors[cause])}: {cause}"))
    if rows[0].tensor == "y" and not rows[0].ok and len(rows) > 1 and all(row.ok for row in rows[1:]):
        text.append(_wrapped("The gradients are right, for this forward: a gradient check cannot see that a forward is wrong."))
    return not tensors


def _few(tensors):
    return ", ".join(tensors[:4]) + f" and {len(tensors) - 4} more" * (len(tensors) > 4)


def _wrapped(sentence):
    return textwrap.fill(sentence, WIDTH, break_long_words=False, break_on_hyphens=False)


def _where(error, path):
    """An exception in the learner's code: which line of theirs, what it says, and the shapes of the arrays in that line."""
    trace = error.__traceback__
    frames = [(place, frame) for place, (frame, _) in zip(traceback.extract_tb(trace), traceback.walk_tb(trace), strict=True)
              if place.filename == str(path)]
    if not frames:                                              # not in their code: of the call, or of what came back from it
        if isinstance(error, TypeError) and " argument" in str(error):
            return _wrapped(f"{error}: leave the arguments as `exercise` wrote them")
        if isinstance(error, TypeError) and Path(traceback.extract_tb(trace)[-1].filename).stem == "gradcheck":
            return _wrapped(str(error))
        raise error
    place, frame = frames[-1]
    if isinstance(error, NotImplementedError):
        return f"{place.name} is not written yet (line {place.lineno}): {error}"
    text = _wrapped(f"{type(error).__name__}: {error}")
    if "read-only" in str(error):
        text += "\nAn argument is not yours to write into: copy it first, or make an array of your own."
    if isinstance(error, (ValueError, IndexError)):
        arrays = {name: frame.f_locals.get(name) for name in re.findall(r"\w+", place.line)}
        shapes = [f"{name} {array.shape}" for name, array in arrays.items() if isinstance(array, np.ndarray)]
        text += f"\nShapes: {', '.join(shapes)}" * bool(shapes)
    return f"line {place.lineno}, in {place.name}:\n    {place.line}\n{text}"
