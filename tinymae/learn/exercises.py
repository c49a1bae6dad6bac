"""Exercises: functions to complete, and bugs to find; where each belongs, and what its file says.

    python -m tinymae exercise                  lists them
    python -m tinymae exercise layernorm        writes ./layernorm.py: a forward, numbered equations, an empty backward
    python -m tinymae hint layernorm.py         the next of three hints
    python -m tinymae check layernorm.py        runs the completed file, and explains what is wrong in it

An exercise is a file of lessons/exercises with a function to complete; its hints stand below the line HINTS. A bug of the zoo
(lessons/exercises/zoo) is a complete file with a mistake that somebody really made; the text below SPOILER explains why it was
not noticed. The learner first writes a guess into the line CAUSE; then `check` shows what is wrong, and in the end that text.
The tables EXERCISES and ZOO give the lesson and the level of each file, and the check that its functions have to pass.

    name  --write_exercise-->  NAME.py  --the learner-->  NAME.py  --solution.judge_file-->  Report(ok, text)
"""
import ast
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tinymae.learn.checks import (
    attention,
    decoding,
    dropout,
    embedding,
    encoder_layer,
    feed_forward,
    heads,
    layernorm,
    linear,
    losses,
    masks,
    multi_head_attention,
    numerical_gradient,
    optim,
    patches,
    rnn,
    softmax,
)
from tinymae.learn.lessons import lessons_folder
from tinymae.learn.prose import from_lessons
from tinymae.learn.report import existing_file
from tinymae.messages import either, marked, translated
from tinymae.messages import message as _

SPOILER = "# ---- why nobody noticed: stop here, and guess first ----\n"
HINTS = "# ---- hints ----\n"
NO_NAME = marked('expected a line such as EXERCISE = "layernorm": it selects the check, so leave it in the file')


@dataclass(frozen=True)
class Exercise:
    """One line of the tables; its name is that of a file in lessons/exercises or lessons/exercises/zoo."""

    lesson: int
    level: str                  # a key of POINTS
    check: Callable             # check(names) yields (title, rows); names is the namespace of the learner's file
    cause: str | None = None    # of a bug of the zoo: a key of CAUSES


POINTS = {marked("warm-up"): 1, marked("core"): 2, marked("hard"): 3}
EXERCISES = {
    "linear_forward": Exercise(1, "warm-up", linear.check_linear_forward),
    "linear": Exercise(1, "core", linear.check_linear),
    "numerical_gradient": Exercise(2, "warm-up", numerical_gradient.check_numerical_gradient),
    "embedding": Exercise(3, "warm-up", embedding.check_embedding),
    "positional_encoding": Exercise(5, "warm-up", embedding.check_positional_encoding),
    "dropout": Exercise(6, "warm-up", dropout.check_dropout),
    "softmax_forward": Exercise(7, "warm-up", softmax.check_softmax_forward),
    "attention_forward": Exercise(7, "core", attention.check_attention_forward),
    "softmax": Exercise(8, "core", softmax.check_softmax),
    "attention": Exercise(8, "hard", attention.check_attention),
    "split_heads": Exercise(9, "warm-up", heads.check_split_heads),
    "multi_head_attention_forward": Exercise(9, "core", multi_head_attention.check_multi_head_attention_forward),
    "multi_head_attention": Exercise(9, "hard", multi_head_attention.check_multi_head_attention),
    "masks": Exercise(10, "warm-up", masks.check_masks),
    "layernorm_forward": Exercise(12, "warm-up", layernorm.check_layernorm_forward),
    "layernorm": Exercise(12, "hard", layernorm.check_layernorm),
    "gelu": Exercise(13, "core", feed_forward.check_gelu),
    "feed_forward": Exercise(13, "core", feed_forward.check_feed_forward),
    "encoder_layer_forward": Exercise(14, "core", encoder_layer.check_encoder_layer_forward),
    "encoder_layer": Exercise(14, "hard", encoder_layer.check_encoder_layer),
    "shift_right": Exercise(16, "warm-up", masks.check_shift_right),
    "cross_attention": Exercise(17, "hard", multi_head_attention.check_cross_attention),
    "cross_entropy": Exercise(20, "hard", losses.check_cross_entropy),
    "adamw": Exercise(21, "core", optim.check_adamw),
    "schedule": Exercise(21, "warm-up", optim.check_schedule),
    "beam_step": Exercise(23, "core", decoding.check_beam_step),
    "patchify": Exercise(28, "core", patches.check_patchify),
    "random_masking": Exercise(29, "core", patches.check_random_masking),
    "unshuffle": Exercise(29, "hard", patches.check_unshuffle),
    "masked_mse": Exercise(29, "core", losses.check_masked_mse),
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
    "bias_gradient_averaged": Exercise(1, "warm-up", linear.check_linear, "scale"),
    "positions_along_batch": Exercise(6, "warm-up", embedding.check_positions, "axis"),
    "dv_before_dropout": Exercise(8, "core", attention.check_attention, "input"),
    "attention_item_0": Exercise(8, "core", partial(attention.check_attention, dropout=False), "shape"),
    "scaled_by_d_model": Exercise(8, "warm-up", partial(attention.check_attention, dropout=False), "scale"),
    "softmax_diagonal": Exercise(8, "core", softmax.check_softmax, "term"),
    "sentence_as_batch": Exercise(9, "core", multi_head_attention.check_sentence, "axis"),
    "queries_alone": Exercise(9, "core", multi_head_attention.check_multi_head_attention, "path"),
    "padding_mask_on_queries": Exercise(10, "warm-up", masks.check_padding_mask, "axis"),
    "padding_mask_broadcast": Exercise(10, "core", masks.check_padding_mask, "shape"),
    "mask_multiplied": Exercise(10, "core", partial(attention.check_attention, dropout=False), "scale"),
    "layernorm_gamma_outside": Exercise(12, "hard", layernorm.check_layernorm, "order"),
    "layernorm_of_squares": Exercise(12, "hard", layernorm.check_layernorm, "rounding"),
    "gelu_with_relu_slope": Exercise(13, "warm-up", feed_forward.check_gelu_slope, "mismatch"),
    "one_layer_six_times": Exercise(14, "warm-up", encoder_layer.check_layers, "shared"),
    "no_residual_backward": Exercise(14, "core", encoder_layer.check_encoder_layer, "path"),
    "cross_attention_swapped": Exercise(17, "core", multi_head_attention.check_cross_attention, "input"),
    "softmax_by_batch": Exercise(19, "warm-up", softmax.check_softmax, "axis"),
    "softmax_wrong_axis": Exercise(19, "hard", softmax.check_softmax, "axis"),
    "adam_stands_still": Exercise(21, "core", optim.check_adamw, "state"),
    "schedule_by_tensor": Exercise(21, "hard", optim.check_schedule, "state"),
    "greedy_ends_together": Exercise(23, "core", decoding.check_greedy, "state"),
    "rnn_without_memory": Exercise(26, "core", rnn.check_rnn, "state"),
    "patch_order": Exercise(28, "core", patches.check_patch_order, "mismatch"),
    "order_for_its_inverse": Exercise(29, "core", patches.check_unshuffle, "input"),
    "mae_without_unshuffle": Exercise(29, "core", patches.check_unshuffle, "order"),
    "true_patch_statistics": Exercise(29, "hard", patches.check_reconstruct, "input"),
    "mean_of_means": Exercise(35, "core", optim.check_whole_gradient, "term"),
}


def list_exercises() -> list[tuple[str, str, Exercise, str]]:
    """All exercises and the zoo, each in the order of the lessons: (name, "exercise" or "zoo", Exercise, summary)."""
    found = []
    for kind, table in ((marked("exercise"), EXERCISES), (marked("zoo"), ZOO)):
        for name, exercise in table.items():
            docstring = ast.get_docstring(ast.parse(source_of(name)))
            found.append((name, kind, exercise, from_lessons(docstring.partition("\n\n")[0].replace("\n", " "))))
    return found


def source_of(name: str) -> str:
    """The text of an exercise's file in the package; a ValueError if there is none."""
    if name not in EXERCISES | ZOO:
        raise ValueError(unknown_name(name))
    folder = lessons_folder() / "exercises"
    return ((folder if name in EXERCISES else folder / "zoo") / f"{name}.py").read_text(encoding="utf-8")


def unwritten(name: str) -> str:
    """The source of an exercise, or of a file of the zoo, in English: without its hints and its story."""
    return source_of(name).partition(SPOILER)[0].partition(HINTS)[0].rstrip() + "\n"


def hints(name: str) -> list[str]:
    """The three hints of an exercise: the idea, the equation, and what the line looks like; never the answer.

    Raises
    ------
    ValueError
        if there is no exercise of this name, or it is a bug of the zoo, which has none
    """
    found = re.split(r"^# \d\. ", source_of(name).partition(HINTS)[2], flags=re.MULTILINE)[1:]
    if not found:
        raise ValueError(_("{name}: a bug of the zoo has no hints: read it line by line beside its equations", name=name))
    return [_text(hint) for hint in found]


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
    return _text(source_of(name).partition(SPOILER)[2])


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
        raise ValueError(_("{path}: {problem}", path=path, problem=translated(NO_NAME)))
    source_of(found[1])
    return found[1]


def _text(comment):
    """The text of some lines of comment in an exercise's file as one line, in the user's language."""
    return from_lessons(" ".join(line.removeprefix("#").strip() for line in comment.splitlines()).strip())


def unknown_name(name: str) -> str:
    """What there is to say about a name that no exercise has."""
    alike = difflib.get_close_matches(name, EXERCISES | ZOO, n=3, cutoff=0.5)
    if not alike:
        return _("there is no exercise {name!r}: `python -m tinymae exercise` lists them", name=name)
    return _("there is no exercise {name!r}: did you mean {names}? `python -m tinymae exercise` lists them",
             name=name, names=either(alike))
