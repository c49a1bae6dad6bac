"""Pictures of experiments: curves side by side, small matrices side by side.

As in `plot`: arrays in, a Matplotlib Figure out, with labelled axes and a caption that says how to read it; `plot.save` writes
it. These two are general, so the caption is the caller's: only the lesson knows what its experiment shows.
"""
import math
from typing import NamedTuple

import numpy as np

from tinymae.plot import AMOUNT, SIGNED, beyond, check_numbers, check_tokens, drawable, heatmap, keep_upright, page, styled

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#555555")
WRITTEN = 18                                    # cells across the page whose numbers can still be written


@styled()
def curves(curves, xlabel, ylabel, caption, levels=None, xscale="linear", yscale="linear", ylim=None, markers=False):
    """Several measurements against one axis, or several losses against the step.

    Parameters
    ----------
    curves : dict {name: y or (x, y)}, each array_like of shape (n,); y alone is drawn against 1 to n. At most 8.
        y may end in nan or infinity (a training that broke): the curve stops there, and its name says so
    xlabel, ylabel : str
    caption : str, "How to read it: ..."
    levels : dict {name: float}, dashed horizontal lines: what theory expects; or None
    xscale, yscale : "linear" or "log"
    ylim : (low, high), or None to fit what is drawn
    markers : bool, a dot at each measurement

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where curves is not such a dict
    """
    if not isinstance(curves, dict) or not 1 <= len(curves) <= len(COLOURS):
        raise TypeError(f"curves: expected a dict of 1 to {len(COLOURS)} {{name: y or (x, y)}}, got {curves!r:.80}")
    levels = levels or {}
    figure = page(3.1 + 0.2 * math.ceil((len(curves) + len(levels)) / 2), caption)
    ax = figure.subplots()
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        x, y = curve if isinstance(curve, tuple) else (np.arange(1, len(curve) + 1), curve)
        x, y = check_numbers(f"x of {name!r}", x, (1,), "(n,)"), np.asarray(y, float)
        if x.shape != y.shape:
            raise ValueError(f"curves[{name!r}]: expected as many y as x, got {y.shape} and {x.shape}")
        good = np.isfinite(y)
        ended = len(y) if good.all() else int(np.argmin(good))
        label = name if ended == len(y) else f"{name} (not finite from {x[ended]:g} on)"
        ax.plot(x[:ended], y[:ended], color=colour, label=label, marker="o" if markers else None, markersize=4)
    for style, (name, level) in zip(("--", ":", "-.", (0, (1, 4))) * 2, levels.items(), strict=False):
        ax.axhline(level, color="#777777", linestyle=style, linewidth=1.2, label=name, zorder=1)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
    if ylim:
        ax.set_ylim(ylim)
    ax.grid(axis="y")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderaxespad=0.2, ncols=2)
    return figure


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
    figure = page(lines * (0.75 + 6.3 / columns), caption + note)
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
        ax.set(xlabel=xlabel, ylabel=ylabel, aspect="equal" if max(array.shape) <= 2 * min(array.shape) else "auto")
        if max(array.shape) * columns <= WRITTEN:
            _write(ax, array, panel, 9 if max(array.shape) * columns <= 10 else 7)
        figure.colorbar(mesh, ax=ax, orientation="horizontal", extend=extend, ticks=[low, (low + panel.top) / 2, panel.top],
                        format="%.3g", shrink=0.8, aspect=24)  # fmt: skip
    return figure


def _write(ax, array, panel, size):
    """The numbers in the cells, white where the cell is dark."""
    digits = 2 if panel.top <= 10 else 0
    for (row, column), value in np.ndenumerate(array):
        dark = abs(value) > 0.6 * panel.top if panel.signed else value < 0.55 * panel.top
        text = f"{round(float(value), digits) + 0.0:.{digits}f}" if value else "0"          # + 0.0: no cell says -0.0
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color="white" if dark else "black")
