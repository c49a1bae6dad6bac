"""Exercises: functions to complete, bugs to find, and a check that explains what is wrong with a solution.

    python -m tinymae exercise                  lists them
    python -m tinymae exercise layernorm        writes ./layernorm.py: a forward, numbered equations, an empty backward
    python -m tinymae check layernorm.py        runs the completed file, and explains what is wrong in it

An exercise is a file of lessons/exercises with a function to complete. A bug of the zoo (lessons/exercises/zoo) is a complete
file with a mistake that somebody really made; the text below SPOILER explains why it was not noticed, and `check` prints it.
The tables EXERCISES and ZOO give the lesson of each file, and the check from check_attention, check_layers or check_models
that its functions have to pass.

    name  --write_exercise-->  NAME.py  --the learner-->  NAME.py  --judge_file-->  Report(ok, text)

A solution is ordinary Python, and `check` executes it: do not check a file that you would not run. Its line
`EXERCISE = "layernorm"` selects the exercise; the file may have any name.

`check_file`, in `tinymae.learn.process`, calls `judge_file` in a process of its own, with a time limit. Use that one for every
file whose end you have not seen: your own before its first run, and those of others.
"""
import ast
import difflib
import re
import textwrap
import tokenize
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FunctionType

import numpy as np

from tinymae import gradcheck
from tinymae.learn import check_attention, check_layers, check_models
from tinymae.learn.judge import UNKNOWN, Problem
from tinymae.learn.lessons import lessons_folder
from tinymae.learn.report import Report, existing_file

SPOILER = "# ---- why nobody noticed: stop here, and guess first ----\n"
LINE_WIDTH = 100             # characters in a line of a report


@dataclass(frozen=True)
class Exercise:
    """One line of the tables; its name is that of a file in lessons/exercises or lessons/exercises/zoo."""

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


def list_exercises() -> list[tuple[str, str, int, str]]:
    """All exercises and the zoo, each in the order of the lessons: (name, "exercise" or "zoo", lesson, summary)."""
    found = []
    for kind, table in (("exercise", EXERCISES), ("zoo", ZOO)):
        for name, exercise in table.items():
            docstring = ast.get_docstring(ast.parse(_source(name)))
            found.append((name, kind, exercise.lesson, docstring.partition("\n")[0]))
    return found


def write_exercise(name: str, folder: Path | str = ".") -> Path:
    """Write an exercise, or a file of the zoo without its story, as NAME.py in a folder, and return its path.

    Raises
    ------
    ValueError
        if there is no exercise of this name; the message lists similar names
    FileExistsError
        if the file exists already: it may contain your work
    """
    source, path = _source(name), Path(folder) / f"{name}.py"
    if path.exists():
        raise FileExistsError(f"{path} exists already and is not overwritten: check it, or move it away first")
    path.write_text(source.partition(SPOILER)[0].rstrip() + "\n", encoding="utf-8")
    return path


def story(name: str) -> str:
    """Why nobody noticed a bug of the zoo: one paragraph.

    Raises
    ------
    ValueError
        if the zoo has no bug of this name
    """
    if name not in ZOO:
        raise ValueError(f"the zoo has no bug {name!r}, and only a bug has a story: `python -m tinymae exercise` lists them")
    return " ".join(line.removeprefix("#").strip() for line in _source(name).partition(SPOILER)[2].splitlines())


def judge_file(path: Path | str, before: Callable[[], None] = lambda: None) -> Report:
    """Execute a learner's file in this process, check the functions that it defines, and explain what is wrong.

    It is quick, for files that are known to end. The file may loop forever here, or take Python down with it: for all others
    there is `check_file`.

    Parameters
    ----------
    path : a Python file with a line such as EXERCISE = "layernorm"; it is executed
    before : called before the file is executed, and before each table of its check

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
        return Report(False, f"{path}: {problem}")
    except BaseException as error:                              # of the learner's code; `_where` raises it again if it is ours
        return Report(False, _where(error, path, names))
    text, ok = [f"{path}: {name}, lesson {exercise.lesson}"], False
    try:
        with np.errstate(all="ignore"):                         # NaN and infinity are part of the report: no warnings
            before()
            for title, rows in exercise.check(names):
                ok = _table(text, title, rows)
                if not ok:
                    break                                       # after the first wrong one
                before()
    except Problem as problem:
        text.append(_wrapped(str(problem)))
    except BaseException as error:
        text.append(_where(error, path, names))
    else:
        text += ["All of it is right."] * ok
        text += [_wrapped(f"Why nobody noticed. {story(name)}")] if name in ZOO else []
        return Report(ok, "\n\n".join(text))
    return Report(False, "\n\n".join(text))


def _source(name):
    """The text of an exercise's file in the package; a ValueError if there is none."""
    if name not in EXERCISES | ZOO:
        raise ValueError(_unknown(name))
    folder = lessons_folder() / "exercises"
    return ((folder if name in EXERCISES else folder / "zoo") / f"{name}.py").read_text(encoding="utf-8")


def _unknown(name):
    alike = difflib.get_close_matches(name, EXERCISES | ZOO, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(alike)}? " if alike else ""
    return f"there is no exercise {name!r}: {hint}`python -m tinymae exercise` lists them"


def _execute(path, names):
    """Execute a learner's file in the namespace `names`."""
    names |= {"__name__": path.stem, "__file__": str(path)}
    try:
        with tokenize.open(path) as file:                       # UTF-8, unless its first line declares a different encoding
            code = compile(file.read(), str(path), "exec")
    except SyntaxError as error:
        where = f"line {error.lineno} is" if error.lineno else "it is"
        line = f"\n    {error.text.strip()}" if error.text else ""
        raise Problem(f"{where} not Python: {error.msg}{line}") from error
    except ValueError as error:                                 # bytes that are not UTF-8, or null bytes
        raise Problem(f"it is not a text file in UTF-8: {error}") from error
    exec(code, names)


def _exercise_of(names):
    """(name, Exercise) that a learner's file declares in its line EXERCISE = ...."""
    name = names.get("EXERCISE")
    if not isinstance(name, str):
        raise Problem('expected a line such as EXERCISE = "layernorm": it selects the check, so leave it in the file')
    if name not in EXERCISES | ZOO:
        raise Problem(_unknown(name))
    return name, (EXERCISES | ZOO)[name]


def _table(text, title, rows):
    """Append the table of some rows to text, and the causes of the wrong ones; returns whether all are right."""
    text.append(gradcheck.format_rows(title, [replace(row, diagnosis="") for row in rows]))
    tensors = {}
    for row in rows:
        if not row.ok:
            tensors.setdefault(row.diagnosis, []).append(row.tensor)
    known = sorted((cause for cause in tensors if not cause.startswith(UNKNOWN)), key=lambda cause: -len(tensors[cause]))
    for cause in known[:3] or list(tensors)[:1]:
        text.append(_wrapped(f"{_few(tensors[cause])}: {cause}"))
    if rows[0].tensor == "y" and not rows[0].ok and len(rows) > 1 and all(row.ok for row in rows[1:]):
        text.append(_wrapped("The gradients are right for this forward: a gradient check cannot detect a wrong forward."))
    return not tensors


def _few(tensors):
    return ", ".join(tensors[:4]) + f" and {len(tensors) - 4} more" * (len(tensors) > 4)


def _wrapped(sentence):
    return textwrap.fill(sentence, LINE_WIDTH, break_long_words=False, break_on_hyphens=False)


def _where(error, path, names):
    """An exception in the learner's code: the line, the message, and the shapes of the arrays in that line."""
    trace = error.__traceback__
    lines = traceback.extract_tb(trace)
    frames = [(line, frame) for line, (frame, _) in zip(lines, traceback.walk_tb(trace), strict=True)
              if line.filename == str(path)]
    if isinstance(error, KeyboardInterrupt) and not (frames and lines[-1].line.startswith("raise")):
        raise error                                             # Ctrl-C
    text = _wrapped(f"{type(error).__name__}: {error}")
    if isinstance(error, SystemExit):
        text = "SystemExit: it ends Python itself, by exit(), quit() or sys.exit(): take that line out"
    if not frames:                                              # not in their code, but in the call or in what it returned
        if isinstance(error, SystemExit):
            return text
        if isinstance(error, TypeError) and str(error).startswith(tuple(f"{name}() " for name in _defined(names, path))):
            return _wrapped(f"{error}: leave the arguments as `exercise` wrote them")
        if isinstance(error, TypeError) and Path(lines[-1].filename).parent == Path(gradcheck.__file__).parent:
            return _wrapped(str(error))
        raise error
    line, frame = frames[-1]
    if isinstance(error, NotImplementedError):
        return f"{line.name} is not written yet (line {line.lineno}): {error}"
    if isinstance(error, ModuleNotFoundError):
        text += "\nAn exercise needs NumPy, and nothing else but what its file imports already: take that import out."
    if "read-only" in str(error):
        text += "\nA function must not write into its arguments: copy the argument first, or make a new array."
    if isinstance(error, (ValueError, IndexError)):
        arrays = {name: frame.f_locals.get(name) for name in re.findall(r"\w+", line.line)}
        shapes = [f"{name} {array.shape}" for name, array in arrays.items() if isinstance(array, np.ndarray)]
        text += f"\nShapes: {', '.join(shapes)}" * bool(shapes)
    return f"line {line.lineno}, in {line.name}:\n    {line.line}\n{text}"


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
