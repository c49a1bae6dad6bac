"""Small matrices drawn side by side."""
import math
from typing import NamedTuple

import numpy as np

from tinymae.plot.style import (
    AMOUNT,
    LETTERS,
    SIGNED,
    beyond,
    check_numbers,
    check_tokens,
    check_weights,
    colour_bar,
    drawable,
    heatmap,
    keep_upright,
    longest,
    name_cells,
    page,
    styled,
    write_numbers,
)

WRITTEN = 18                                    # cells across the page whose numbers can still be written


class Panel(NamedTuple):
    """One matrix of `heatmaps`: colours from 0 to top, or from -top to top where signed."""

    title: str
    array: np.ndarray                           # (rows, columns)
    top: float = 1.0
    signed: bool = False
    down: list | None = None                    # tokens of the rows, or None for numbers
    across: list | None = None


@styled()
def heatmaps(panels, xlabel, ylabel, caption, columns=3):
    """Matrices side by side, each with a fixed range and its colour bar; small ones with their numbers.

    Parameters
    ----------
    panels : list of Panel
    xlabel, ylabel : str: what a column and a row are
    caption : str, "How to read it: ...". Values beyond a range are mentioned behind it
    columns : int, panels in a line

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where an array is not a matrix of finite numbers, or its tokens do not fit
    """
    panels = [Panel(*panel) for panel in panels]
    if not panels:
        raise ValueError("heatmaps: expected at least one panel")
    lines = math.ceil(len(panels) / columns)
    arrays = [check_numbers(f"array of {panel.title!r}", panel.array, (2,), "(rows, columns)") for panel in panels]
    notes = [beyond(array, -panel.top if panel.signed else 0, panel.top) for array, panel in zip(arrays, panels, strict=True)]
    caption += "".join(f" {panel.title}:{note}" for panel, (_, note) in zip(panels, notes, strict=True) if note)
    tokens = [
        check_tokens(f"{name} of {panel.title!r}", getattr(panel, name), array.shape[axis], "rows and columns of the array")
        for panel, array in zip(panels, arrays, strict=True)
        for axis, name in enumerate(("down", "across"))
    ]
    tokens, fonts, note = drawable(*tokens)
    tallest = max(min(1, array.shape[0] / array.shape[1]) if _square(array) else 1 for array in arrays)
    figure = page(lines * (1.7 + (7.5 / columns - 0.8) * tallest), caption + note)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for i, (ax, panel, array, (extend, _)) in enumerate(zip(axes, panels, arrays, notes, strict=False)):
        colours, low = (SIGNED, -panel.top) if panel.signed else (AMOUNT, 0)
        mesh = heatmap(ax, array, low, panel.top, colours)
        ax.set_title(panel.title)
        down, across = tokens[2 * i : 2 * i + 2]
        for axis, names, n in ((ax.yaxis, down, array.shape[0]), (ax.xaxis, across, array.shape[1])):
            step = 1 if names else math.ceil(n / 10)
            axis.set_ticks(np.arange(0, n, step) + 0.5, names or np.arange(0, n, step), **fonts)
        ax.tick_params("y", rotation=0)
        ax.tick_params("x", rotation=90 if across and max(map(len, across)) * len(across) > 54 / columns else 0)
        keep_upright(ax)
        ax.set(xlabel=xlabel, ylabel=ylabel, aspect="equal" if _square(array) else "auto")
        if max(array.shape) * columns <= WRITTEN:
            dark = np.abs(array) > 0.6 * panel.top if panel.signed else array < 0.55 * panel.top
            write_numbers(ax, array, 2 if panel.top <= 10 else 0, dark, 9 if max(array.shape) * columns <= 10 else 7)
        figure.colorbar(mesh, ax=ax, orientation="horizontal", extend=extend, ticks=[low, (low + panel.top) / 2, panel.top],
                        format="%.3g", shrink=0.8, aspect=24)
    for _ in range(3):                          # square cells over long words: the layout needs some rounds to settle
        figure.get_layout_engine().execute(figure)
    return figure


def _square(array):
    """Whether the cells are drawn as squares: not where the matrix is much longer than wide, or wider than long."""
    return max(array.shape) <= 2 * min(array.shape)


BESIDE = 18                                     # nor more than this when two do


@styled()
def output_probabilities(target, trained, words, caption=None):
    """What a model should say against what it says: two tables of probabilities, side by side.

    Parameters
    ----------
    target : array_like of shape (T, V), such as one-hot rows (or smoothed labels)
    trained : array_like of shape (T, V), probabilities of a trained model, after the softmax
    words : sequence of V words, 40 at most
    caption : str, replaces the text under the picture

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where the shapes differ, a value lies outside 0..1, or a row does not sum to 1

    Source: article D, the loss function (`i am a student <eos>` over a vocabulary of six words).
    """
    named = {"target": target, "trained": trained}
    target, trained = (check_weights(name, value, (2,), "(T, V), positions and words") for name, value in named.items())
    if target.shape != trained.shape:
        raise ValueError(f"target {target.shape} and trained {trained.shape} must have one shape: the same sentence and words")
    for name, array in (("target", target), ("trained", trained)):
        off = np.abs(array.sum(axis=1, dtype=np.float64) - 1)
        if off.max() > 0.01:
            at = int(off.argmax())
            raise ValueError(
                f"{name} must hold probabilities, but row {at} sums to {array[at].sum():.4g}: softmax over the whole "
                "vocabulary, of which all words must be shown"
            )
    (words,), fonts, missing = drawable(check_tokens("words", words, target.shape[1], "probabilities"))
    if caption is None:
        caption = (
            "How to read it: a row is one position of the sentence, a column one word of the vocabulary; the brighter, the "
            "likelier. Each row sums to 1. The target is what the loss asks for; the closer the other map, the lower the loss."
        )
    length, vocabulary = target.shape
    beside = vocabulary <= BESIDE                                       # else one above the other, to have room for names
    letters = 1.4 * LETTERS if beside else 2.8 * LETTERS
    below = 0.085 * longest(words) if words and longest(words) > letters / vocabulary else 0.1      # inches
    tall = max((0.36 if beside else 0.22) * length, 1.2)
    figure = page((tall if beside else 2 * tall + 0.3) + 0.65 + below, caption + missing)
    axes = figure.subplots(1, 2) if beside else figure.subplots(2, 1)
    for ax, title, array in zip(axes, ("target outputs", "outputs of the trained model"), (target, trained), strict=True):
        mesh = heatmap(ax, array, 0, 1, AMOUNT)
        if vocabulary <= 8 and length <= 16:
            write_numbers(ax, array, 2, array < 0.6)
        name_cells(ax, words, None, array.shape, fonts, letters)
        ax.set_title(title)
    for ax in axes if beside else axes[1:]:
        ax.set_xlabel("word")
    for ax in axes[:1] if beside else axes:
        ax.set_ylabel("position")
    if beside:
        axes[1].set_yticks([])
    else:
        axes[0].set_xticks([])
    colour_bar(figure, mesh, axes, [0, 0.25, 0.5, 0.75, 1], "probability")
    return figure
