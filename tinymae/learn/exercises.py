"""Exercises: functions to complete, bugs to find, and a check that explains what is wrong with a solution.

    python -m tinymae exercise                  lists them
    python -m tinymae exercise layernorm        writes ./layernorm.py: a forward, numbered equations, an empty backward
    python -m tinymae hint layernorm.py         the next of three hints
    python -m tinymae check layernorm.py        runs the completed file, and explains what is wrong in it

An exercise is a file of lessons/exercises with a function to complete; its hints stand below the line HINTS. A bug of the zoo
(lessons/exercises/zoo) is a complete file with a mistake that somebody really made; the text below SPOILER explains why it was
not noticed. The learner first writes a guess into the line CAUSE; then `check` shows what is wrong, and in the end that text.
The tables EXERCISES and ZOO give the lesson and the level of each file, and the check from check_forwards, check_attention,
check_layers, check_models or check_zoo that its functions have to pass.

    name  --write_exercise-->  NAME.py  --the learner-->  NAME.py  --judge_file-->  Report(ok, text)

A solution is ordinary Python, and `check` executes it: do not check a file that you would not run. Its line
`EXERCISE = "layernorm"` selects the exercise; the file may have any name.

`check_file`, in `tinymae.learn.process`, calls `judge_file` in a process of its own, with a time limit. Use that one for every
file whose end you have not seen: your own before its first run, and those of others.
"""
import ast
import difflib
import re
import tokenize
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import get_terminal_size
from types import FunctionType

import numpy as np

from tinymae import gradcheck
from tinymae.learn import check_attention, check_forwards, check_layers, check_models, check_zoo
from tinymae.learn.honesty import borrowed, cheating
from tinymae.learn.judge import Problem
from tinymae.learn.lessons import lessons_folder
from tinymae.learn.prose import code_in_language, from_lessons
from tinymae.learn.report import Report, existing_file
from tinymae.messages import either, in_lines, listed, marked, translated
from tinymae.messages import message as _

SPOILER = "# ---- why nobody noticed: stop here, and guess first ----\n"
HINTS = "# ---- hints ----\n"
LINE_WIDTH = 100             # columns of a line of a report, where the terminal is not narrower
FILE_WIDTH = 128             # columns of a file that is written


@dataclass(frozen=True)
class Exercise:
    """One line of the tables; its name is that of a file in lessons/exercises or lessons/exercises/zoo."""

    lesson: int
    level: str                  # a key of POINTS
    check: Callable             # check(names) yields (title, rows); names is the namespace of the learner's file
    cause: str | None = None    # of a bug of the zoo: a key of CAUSES


POINTS = {marked("warm-up"): 1, marked("core"): 2, marked("hard"): 3}
EXERCISES = {
    "linear_forward": Exercise(1, "warm-up", check_forwards.check_linear_forward),
    "linear": Exercise(1, "core", check_layers.check_linear),
    "numerical_gradient": Exercise(2, "warm-up", check_layers.check_numerical_gradient),
    "embedding": Exercise(3, "warm-up", check_layers.check_embedding),
    "positional_encoding": Exercise(5, "warm-up", check_layers.check_positional_encoding),
    "dropout": Exercise(6, "warm-up", check_layers.check_dropout),
    "softmax_forward": Exercise(7, "warm-up", check_forwards.check_softmax_forward),
    "attention_forward": Exercise(7, "core", check_forwards.check_attention_forward),
    "softmax": Exercise(8, "core", check_layers.check_softmax),
    "attention": Exercise(8, "hard", check_attention.check_attention),
    "split_heads": Exercise(9, "warm-up", check_attention.check_split_heads),
    "multi_head_attention_forward": Exercise(9, "core", check_forwards.check_multi_head_attention_forward),
    "multi_head_attention": Exercise(9, "hard", check_attention.check_multi_head_attention),
    "masks": Exercise(10, "warm-up", check_attention.check_masks),
    "layernorm_forward": Exercise(12, "warm-up", check_forwards.check_layernorm_forward),
    "layernorm": Exercise(12, "hard", check_layers.check_layernorm),
    "gelu": Exercise(13, "core", check_layers.check_gelu),
    "feed_forward": Exercise(13, "core", check_layers.check_feed_forward),
    "encoder_layer_forward": Exercise(14, "core", check_forwards.check_encoder_layer_forward),
    "encoder_layer": Exercise(14, "hard", check_layers.check_encoder_layer),
    "shift_right": Exercise(16, "warm-up", check_models.check_shift_right),
    "cross_attention": Exercise(17, "hard", check_attention.check_cross_attention),
    "cross_entropy": Exercise(20, "hard", check_models.check_cross_entropy),
    "adamw": Exercise(21, "core", check_models.check_adamw),
    "schedule": Exercise(21, "warm-up", check_models.check_schedule),
    "beam_step": Exercise(23, "core", check_models.check_beam_step),
    "patchify": Exercise(28, "core", check_models.check_patchify),
    "random_masking": Exercise(29, "core", check_models.check_random_masking),
    "unshuffle": Exercise(29, "hard", check_models.check_unshuffle),
    "masked_mse": Exercise(29, "core", check_models.check_masked_mse),
}
CAUSES = {
    "axis": marked("something runs along the wrong axis"),
    "path": marked("a path of the gradient is missing"),
    "term": marked("a term or a factor is missing"),
    "input": marked("the wrong array is used"),
    "shape": marked("an axis of the batch, or a broadcast, is not the intended one"),
    "scale": marked("a constant is the wrong one"),
    "order": marked("the right steps in the wrong order"),
    "state": marked("something that should be remembered is not, or the reverse"),
    "mismatch": marked("forward and backward belong to two different functions"),
    "shared": marked("one array stands where there should be several"),
    "rounding": marked("right on paper, and not in floating point"),
}
ZOO = {
    "bias_gradient_averaged": Exercise(1, "warm-up", check_layers.check_linear, "scale"),
    "positions_along_batch": Exercise(6, "warm-up", check_zoo.check_positions, "axis"),
    "dv_before_dropout": Exercise(8, "core", check_attention.check_attention, "input"),
    "attention_item_0": Exercise(8, "core", partial(check_attention.check_attention, dropout=False), "shape"),
    "scaled_by_d_model": Exercise(8, "warm-up", partial(check_attention.check_attention, dropout=False), "scale"),
    "softmax_diagonal": Exercise(8, "core", check_layers.check_softmax, "term"),
    "sentence_as_batch": Exercise(9, "core", check_attention.check_sentence, "axis"),
    "queries_alone": Exercise(9, "core", check_attention.check_multi_head_attention, "path"),
    "padding_mask_on_queries": Exercise(10, "warm-up", check_attention.check_padding_mask, "axis"),
    "padding_mask_broadcast": Exercise(10, "core", check_attention.check_padding_mask, "shape"),
    "mask_multiplied": Exercise(10, "core", partial(check_attention.check_attention, dropout=False), "scale"),
    "layernorm_gamma_outside": Exercise(12, "hard", check_layers.check_layernorm, "order"),
    "layernorm_of_squares": Exercise(12, "hard", check_layers.check_layernorm, "rounding"),
    "gelu_with_relu_slope": Exercise(13, "warm-up", check_zoo.check_gelu_slope, "mismatch"),
    "one_layer_six_times": Exercise(14, "warm-up", check_zoo.check_layers, "shared"),
    "no_residual_backward": Exercise(14, "core", check_layers.check_encoder_layer, "path"),
    "cross_attention_swapped": Exercise(17, "core", check_attention.check_cross_attention, "input"),
    "softmax_by_batch": Exercise(19, "warm-up", check_layers.check_softmax, "axis"),
    "softmax_wrong_axis": Exercise(19, "hard", check_layers.check_softmax, "axis"),
    "adam_stands_still": Exercise(21, "core", check_models.check_adamw, "state"),
    "schedule_by_tensor": Exercise(21, "hard", check_models.check_schedule, "state"),
    "greedy_ends_together": Exercise(23, "core", check_zoo.check_greedy, "state"),
    "rnn_without_memory": Exercise(26, "core", check_zoo.check_rnn, "state"),
    "patch_order": Exercise(28, "core", check_zoo.check_patch_order, "mismatch"),
    "order_for_its_inverse": Exercise(29, "core", check_models.check_unshuffle, "input"),
    "mae_without_unshuffle": Exercise(29, "core", check_models.check_unshuffle, "order"),
    "true_patch_statistics": Exercise(29, "hard", check_models.check_reconstruct, "input"),
    "mean_of_means": Exercise(35, "core", check_zoo.check_whole_gradient, "term"),
}


def list_exercises() -> list[tuple[str, str, Exercise, str]]:
    """All exercises and the zoo, each in the order of the lessons: (name, "exercise" or "zoo", Exercise, summary)."""
    found = []
    for kind, table in ((marked("exercise"), EXERCISES), (marked("zoo"), ZOO)):
        for name, exercise in table.items():
            docstring = ast.get_docstring(ast.parse(_source(name)))
            found.append((name, kind, exercise, from_lessons(docstring.partition("\n\n")[0].replace("\n", " "))))
    return found


def write_exercise(name: str, folder: Path | str = ".", *, bare: bool = False) -> Path:
    """Write an exercise, or a file of the zoo without its story, as NAME.py in a folder, and return its path.

    Parameters
    ----------
    name : of the exercise
    folder : where to
    bare : leave out the equations, and the numbers that refer to them

    Raises
    ------
    ValueError
        if there is no exercise of this name; the message lists similar names
    FileExistsError
        if the file exists already: it may contain your work
    """
    path, source = Path(folder) / f"{name}.py", unwritten(name)
    if path.exists():
        raise FileExistsError(_("{path} exists already and is not overwritten: check it, or move it away first", path=path))
    source = code_in_language(_bare(source) if bare else source, from_lessons, FILE_WIDTH)
    if name in ZOO:
        guess = _("your guess, one of: {causes}", causes=listed(CAUSES))
        guess = in_lines(guess, FILE_WIDTH - 66).replace("\n", f"\n{'':64}# ")
        line = f"CAUSE = None{'':52}# {guess}"
        source = re.sub(r"^EXERCISE = .*$", lambda found: f"{found[0]}\n{line}", source, count=1, flags=re.MULTILINE)
    path.write_text(source, encoding="utf-8")
    return path


def unwritten(name: str) -> str:
    """The source of an exercise, or of a file of the zoo, in English: without its hints and its story."""
    return _source(name).partition(SPOILER)[0].partition(HINTS)[0].rstrip() + "\n"


def _bare(source):
    """The source of an exercise without its equations: the paragraphs of its docstring that have any, and all references."""
    quotes = '"' * 3
    _before, docstring, code = source.split(quotes, 2)
    paragraphs = docstring.split("\n\n")
    kept = [part for part in paragraphs if not re.search(r"^ +\(\d+\)", part, re.MULTILINE) and not part.endswith(":")]
    code = re.sub(r" +# \(\d.*$", "", code, flags=re.MULTILINE)
    code = re.sub(r'NotImplementedError\("equations? .*"\)', 'NotImplementedError("' + _("write it") + '")', code)
    return f"{quotes}{(chr(10) * 2).join(kept).rstrip()}\n{quotes}{code}"


def hints(name: str) -> list[str]:
    """The three hints of an exercise: the idea, the equation, and what the line looks like; never the answer.

    Raises
    ------
    ValueError
        if there is no exercise of this name, or it is a bug of the zoo, which has none
    """
    found = re.split(r"^# \d\. ", _source(name).partition(HINTS)[2], flags=re.MULTILINE)[1:]
    if not found:
        raise ValueError(_("{name}: a bug of the zoo has no hints: read it line by line beside its equations", name=name))
    return [_text(hint) for hint in found]


def _text(comment):
    """The text of some lines of comment in an exercise's file as one line, in the user's language."""
    return from_lessons(" ".join(line.removeprefix("#").strip() for line in comment.splitlines()).strip())


def name_of(path: Path | str) -> str:
    """The name of the exercise that a learner's file is for, which is not executed: from its line EXERCISE = "NAME".

    Raises
    ------
    FileNotFoundError
        if there is no such file
    ValueError
        if it has no such line, or there is no exercise of this name
    """
    path = existing_file(path)
    found = re.search(r"^EXERCISE = [\"\'](\w+)[\"\']", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    if not found:
        raise ValueError(_("{path}: {problem}", path=path, problem=_no_name()))
    _source(found[1])
    return found[1]


def story(name: str) -> str:
    """Why nobody noticed a bug of the zoo: one paragraph.

    Raises
    ------
    ValueError
        if the zoo has no bug of this name
    """
    if name not in ZOO:
        raise ValueError(_("the zoo has no bug {name!r}, and only a bug has a story: `python -m tinymae exercise` lists them",
                           name=name))
    return _text(_source(name).partition(SPOILER)[2])


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
        return Report(False, _wrapped(_("{path}: {problem}", path=path, problem=problem)))
    except BaseException as error:                              # of the learner's code; `_where` raises it again if it is ours
        return Report(False, _where(error, path, names))
    text, ok = [_("{path}: {name}, lesson {number}", path=path, name=name, number=exercise.lesson)], False
    report = partial(Report, exercise=name, most=POINTS[exercise.level])
    try:
        guess = None if tell else _guess(name, exercise, names)
        with np.errstate(all="ignore"):                         # NaN and infinity are part of the report: no warnings
            before()
            for title, rows in exercise.check(names):
                ok = _table(text, title, rows)
                if not ok:
                    break                                       # after the first wrong one
                before()
            if ok and (complaint := cheating(exercise, names, path, _defines(name))):
                raise Problem(complaint)
    except Problem as problem:
        text.append(_wrapped(str(problem)))
    except BaseException as error:
        text.append(_where(error, path, names, borrowed(names, _defines(name))))
    else:
        text += [_("All of it is right.")] * ok
        text += [_wrapped(guess)] if guess and ok else []
        text += [_wrapped(_("Why nobody noticed. {story}", story=story(name)))] if name in ZOO and (ok or tell) else []
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


def _source(name):
    """The text of an exercise's file in the package; a ValueError if there is none."""
    if name not in EXERCISES | ZOO:
        raise ValueError(_unknown(name))
    folder = lessons_folder() / "exercises"
    return ((folder if name in EXERCISES else folder / "zoo") / f"{name}.py").read_text(encoding="utf-8")


def _defines(name):
    """The names of the functions, classes and methods that an exercise's file defines."""
    nodes = ast.walk(ast.parse(_source(name)))
    return {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[:2] != "__"}


def _unknown(name):
    alike = difflib.get_close_matches(name, EXERCISES | ZOO, n=3, cutoff=0.5)
    if not alike:
        return _("there is no exercise {name!r}: `python -m tinymae exercise` lists them", name=name)
    return _("there is no exercise {name!r}: did you mean {names}? `python -m tinymae exercise` lists them",
             name=name, names=either(alike))


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


def _no_name():
    return _('expected a line such as EXERCISE = "layernorm": it selects the check, so leave it in the file')


def _exercise_of(names):
    """(name, Exercise) that a learner's file declares in its line EXERCISE = ...."""
    name = names.get("EXERCISE")
    if not isinstance(name, str):
        raise Problem(_no_name())
    if name not in EXERCISES | ZOO:
        raise Problem(_unknown(name))
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
        text.append(_wrapped(_("{tensors}: {cause}", tensors=_few(tensors[cause]), cause=cause)))
    if rows[0].tensor == "y" and not rows[0].ok and len(rows) > 1:
        text.append(_wrapped(
            _("The gradients are right for this forward: a gradient check cannot detect a wrong forward.")
            if all(row.ok for row in rows[1:]) else
            _("The gradients are compared with those of this forward: make y right first, then check again.")
        ))
    return not tensors


def _few(tensors):
    names = listed(tensors[:4])
    return _("{names} and {count} more", names=names, count=len(tensors) - 4) if len(tensors) > 4 else names


def _wrapped(text):
    """A text in lines that fit; lines that begin with a space, such as code and those of a list, stay as they are."""
    width = min(LINE_WIDTH, get_terminal_size((LINE_WIDTH, 0)).columns)
    return "\n".join(line if line.startswith(" ") else in_lines(line, width) for line in text.split("\n"))


def _where(error, path, names, otherwise=""):
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
            return _wrapped(text)
        if isinstance(error, TypeError) and str(error).startswith(tuple(f"{name}() " for name in _defined(names, path))):
            return _wrapped(_("{error}: leave the arguments as `exercise` wrote them", error=error))
        if isinstance(error, TypeError) and Path(lines[-1].filename).parent == Path(gradcheck.__file__).parent:
            return _wrapped(str(error))
        if otherwise:
            return _wrapped(otherwise)
        raise error
    (line, frame), notes = frames[-1], []
    if isinstance(error, NotImplementedError):
        return _wrapped(_("{function} is not written yet (line {line}): {what}",
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
    return _wrapped("\n".join([where, f"    {line.line}", text, *notes]))


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
