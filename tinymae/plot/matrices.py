"""Small matrices side by side: several with a colour bar each, or the probabilities of a model beside their targets."""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tinymae.messages import message as _
from tinymae.plot.style import (
    AMOUNT,
    LETTERS,
    SIGNED,
    beyond,
    check_numbers,
    check_token_names,
    check_top,
    check_weights,
    colour_bar,
    drawable,
    heatmap,
    longest,
    name_cells,
    page,
    styled,
    write_numbers,
)

WRITTEN = 18                                    # more cells than this across the page have no room for their numbers
BESIDE = 18                                     # two matrices with more columns than this stand one above the other


@dataclass(frozen=True, eq=False)
class Panel:
    """One matrix of `heatmaps`: colours from 0 to top, or from -top to top if signed."""

    title: str
    array: ArrayLike                            # (rows, columns)
    top: float = 1.0
    signed: bool = False
    down: Sequence | None = None                # tokens of the rows, or None for numbers
    across: Sequence | None = None              # tokens of the columns


@styled()
def heatmaps(panels: Sequence[Panel], xlabel: str, ylabel: str, caption: str, *, columns: int = 3) -> Figure:
    """Matrices side by side, each with a fixed range and its colour bar; small ones with their numbers.

    Parameters
    ----------
    xlabel, ylabel : what a column and a row are
    caption : "How to read it: ...". Values outside a range are mentioned after it
    columns : panels in a line

    Raises
    ------
    TypeError, ValueError
        if there are no panels, an array is not a matrix of finite numbers, its tokens do not fit, or top is not above 0
    """
    if not panels or columns < 1:
        raise ValueError(f"heatmaps: expected at least one panel and one column, got {len(panels)} and {columns}")
    for panel in panels:
        check_top(f"top of {panel.title!r}", panel.top)
    lines = math.ceil(len(panels) / columns)
    arrays = [check_numbers(f"array of {panel.title!r}", panel.array, (2,), "(rows, columns)") for panel in panels]
    notes = [beyond(array, -panel.top if panel.signed else 0, panel.top) for array, panel in zip(arrays, panels, strict=True)]
    outside = [_("{title}: {note}", title=panel.title, note=note)
               for panel, (_extend, note) in zip(panels, notes, strict=True) if note]
    tokens = [
        check_token_names(
            f"{name} of {panel.title!r}", getattr(panel, name), array.shape[axis], "rows and columns of the array"
        )
        for panel, array in zip(panels, arrays, strict=True)
        for axis, name in enumerate(("down", "across"))
    ]
    tokens, missing = drawable(*tokens)
    tallest = max(min(1, array.shape[0] / array.shape[1]) if _square(array) else 1 for array in arrays)
    figure = page(lines * (1.7 + (7.5 / columns - 0.8) * tallest), caption, *outside, missing)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for i, (ax, panel, array, (extend, _note)) in enumerate(zip(axes, panels, arrays, notes, strict=False)):
        colours, low = (SIGNED, -panel.top) if panel.signed else (AMOUNT, 0)
        mesh = heatmap(ax, array, low, panel.top, colours)
        ax.set_title(panel.title)
        down, across = tokens[2 * i : 2 * i + 2]
        name_cells(ax, across, down, array.shape, 54 / columns)
        ax.set(xlabel=xlabel, ylabel=ylabel, aspect="equal" if _square(array) else "auto")
        if max(array.shape) * columns <= WRITTEN:
            dark = np.abs(array) > 0.6 * panel.top if panel.signed else array < 0.55 * panel.top
            write_numbers(ax, array, 2 if panel.top <= 10 else 0, dark, 9 if max(array.shape) * columns <= 10 else 7)
        figure.colorbar(mesh, ax=ax, orientation="horizontal", extend=extend, ticks=[low, (low + panel.top) / 2, panel.top],
                        format="%.3g", shrink=0.8, aspect=24)
    for _round in range(3):                          # square cells above long tokens: the layout needs some rounds to settle
        figure.get_layout_engine().execute(figure)
    return figure


def _square(array):
    """Whether the cells are drawn as squares: not if the matrix is much longer than wide, or much wider than long."""
    return max(array.shape) <= 2 * min(array.shape)


@styled()
def output_probabilities(
    target: ArrayLike, trained: ArrayLike, tokens: Sequence | None, *, caption: str | None = None
) -> Figure:
    """The probabilities that a model should output beside those that it outputs.

    Parameters
    ----------
    target : array_like of shape (T, V), such as one-hot rows (or smoothed labels)
    trained : array_like of shape (T, V), probabilities of a trained model, after the softmax
    tokens : the V tokens of the vocabulary, at most 40, or None for numbers
    caption : replaces the text below the figure

    Raises
    ------
    TypeError, ValueError
        if the shapes differ, a value lies outside 0..1, or a row does not sum to 1

    Source: article D, the loss function (`i am a student <eos>` over a vocabulary of six words).
    """
    named = {"target": target, "trained": trained}
    target, trained = (check_weights(name, value, (2,), "(T, V), positions and tokens") for name, value in named.items())
    if target.shape != trained.shape:
        raise ValueError(f"target {target.shape} and trained {trained.shape} must have one shape: one sentence and vocabulary")
    for name, array in (("target", target), ("trained", trained)):
        off = np.abs(array.sum(axis=1, dtype=np.float64) - 1)
        if off.max() > 0.01:
            at = int(off.argmax())
            raise ValueError(
                f"{name} must hold probabilities, but row {at} sums to {array[at].sum():.4g}: softmax over the whole "
                "vocabulary, of which all tokens must be shown"
            )
    (tokens,), missing = drawable(check_token_names("tokens", tokens, target.shape[1], "probabilities"))
    length, vocabulary = target.shape
    beside = vocabulary <= BESIDE                                       # if not, one above the other: room for the tokens
    letters = 1.4 * LETTERS if beside else 2.8 * LETTERS
    below = 0.085 * longest(tokens) if tokens and longest(tokens) > letters / vocabulary else 0.1      # inches
    tall = max((0.36 if beside else 0.22) * length, 1.2)
    figure = page((tall if beside else 2 * tall + 0.3) + 0.65 + below, caption, missing, default=_(
        "How to read it: a row is one position of the sentence, a column is one token of the vocabulary; the brighter, the "
        "more probable. Each row sums to 1. The closer the outputs are to the targets, the lower the loss."
    ))
    axes = figure.subplots(1, 2) if beside else figure.subplots(2, 1)
    for ax, title, array in zip(axes, (_("target outputs"), _("outputs of the trained model")), (target, trained), strict=True):
        mesh = heatmap(ax, array, 0, 1, AMOUNT)
        if vocabulary <= 8 and length <= 16:
            write_numbers(ax, array, 2, array < 0.6)
        name_cells(ax, tokens, None, array.shape, letters)
        ax.set_title(title)
    for ax in axes if beside else axes[1:]:
        ax.set_xlabel(_("token"))
    for ax in axes[:1] if beside else axes:
        ax.set_ylabel(_("position"))
    if beside:
        axes[1].set_yticks([])
    else:
        axes[0].set_xticks([])
    colour_bar(figure, mesh, axes, [0, 0.25, 0.5, 0.75, 1], _("probability"))
    return figure
