"""Positional encodings: as a table, as cosines between the patches of a grid, and as rotations by an offset."""
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Circle, Rectangle
from numpy.typing import ArrayLike

from tinymae.messages import message as _
from tinymae.plot.style import (
    SIGNED,
    beyond,
    check_grid,
    check_index,
    check_numbers,
    colour_bar,
    every_nth,
    heatmap,
    page,
    styled,
)

POWERS = tuple(2**k for k in range(12))                                # steps between ticks that suit D = 64, 512, 768


@styled()
def positional_encoding(table: ArrayLike, *, caption: str | None = None) -> Figure:
    """A table of positional encodings as a heatmap: positions down, hidden dimensions across, colours from -1 to 1.

    Parameters
    ----------
    table : array_like of shape (T, D), one row for each position
    caption : replaces the text below the figure

    Raises
    ------
    TypeError, ValueError
        if the table is not a finite matrix of numbers

    Source: Vaswani et al. 2017, section 3.5; article A, part 1 (100 x 16); article D, positional encoding (20 x 512
    with the sines in the left half, 10 x 64 with sines and cosines alternating).

    Differs: the articles fit the colours to the values of the table; here white is always 0.
    """
    hint = "; drop the batch axis with table[0]" if np.ndim(table) == 3 else ""
    table = check_numbers("table", table, (2,), "(T, D), positions and hidden dimensions", hint)
    positions, width = table.shape
    extend, note = beyond(table, -1, 1)
    figure = page(min(max(1.2 + 0.2 * positions, 3.0), 4.4), caption, note, default=_(
        "How to read it: a row is the encoding of one position, a column is one hidden dimension. Red is +1, white is 0, blue "
        "is -1. A column, read downwards, is a wave: short stripes are a short wavelength, a uniform colour is a long one."
    ))
    ax = figure.subplots()
    mesh = heatmap(ax, table, -1, 1, SIGNED)
    across, down = every_nth(width, POWERS), every_nth(positions, most=12)
    ax.set_xticks(across + 0.5, across)
    ax.set_yticks(down + 0.5, down)
    ax.set(xlabel=_("hidden dimension"), ylabel=_("position"))
    colour_bar(figure, mesh, ax, [-1, -0.5, 0, 0.5, 1], _("value"), extend)
    return figure


@styled()
def position_grid(table: ArrayLike, grid: tuple[int, int], *, caption: str | None = None) -> Figure:
    """How similar the positions of patches are: the cosine of nine of them (fewer on a small grid) with all positions.

    Parameters
    ----------
    table : array_like of shape (N, D), one row for each patch, row by row through the grid, without the class token
    grid : (rows, cols), rows * cols = N
    caption : replaces the text below the figure

    Raises
    ------
    TypeError, ValueError
        if N is not rows * cols, or a row is all zero and has no direction

    Source: Dosovitskiy et al. 2021, figure 7 (centre), drawn there for learned positions; He et al. 2022 use fixed
    sines and cosines (appendix A.1).

    Differs: the figure of Dosovitskiy et al. shows every patch; nine show the pattern and can be read.
    """
    table = check_numbers("table", table, (2,), "(N, D), patches and hidden dimensions")
    rows, cols = check_grid("the table", len(table), grid)
    length = np.linalg.norm(table.astype(np.float64), axis=1)
    if not length.all():
        raise ValueError(
            f"row {int(np.argmin(length))} of the table is all zero, so it has no direction. MAE gives the class token "
            "such a row: leave it out"
        )
    unit = table / length[:, None]
    chosen_rows, chosen_cols = sorted({0, rows // 2, rows - 1}), sorted({0, cols // 2, cols - 1})
    chosen = unit.reshape(rows, cols, -1)[np.ix_(chosen_rows, chosen_cols)]    # (up to 3, up to 3, D)
    cosines = np.clip(chosen @ unit.T, -1, 1).reshape(*chosen.shape[:2], rows, cols)
    side = min(5.5 / len(chosen_cols), 2.6)
    height = min(max(side * rows / cols, 0.6), 2.6)
    figure = page(len(chosen_rows) * (height + 0.3) + 0.4, caption, default=_(
        "How to read it: each map belongs to the patch in the yellow frame and shows the cosine of its position with the "
        "position of every patch: red is 1 (similar), white is 0, blue is -1. The maps are arranged like their patches. The "
        "cosines here run from {low:.2f} to {high:.2f}.",
        low=cosines.min(), high=cosines.max(),
    ))
    axes = figure.subplots(len(chosen_rows), len(chosen_cols), squeeze=False)
    for line, row, maps in zip(axes, chosen_rows, cosines, strict=True):
        for ax, col, cosine in zip(line, chosen_cols, maps, strict=True):
            mesh = heatmap(ax, cosine, -1, 1, SIGNED)
            ax.add_patch(Rectangle((col, row), 1, 1, fill=False, edgecolor="#ffe600", linewidth=2, clip_on=False))
            ax.set_title(_("patch in row {row}, column {column}", row=row, column=col), fontsize=9)
            if row == chosen_rows[-1]:
                ax.set_xticks(every_nth(cols, most=8) + 0.5, every_nth(cols, most=8))
                ax.set_xlabel(_("column of the grid"))
            if col == chosen_cols[0]:
                ax.set_yticks(every_nth(rows, most=8) + 0.5, every_nth(rows, most=8))
                ax.set_ylabel(_("row of the grid"))
    colour_bar(figure, mesh, axes, [-1, -0.5, 0, 0.5, 1], _("cosine"))
    return figure


@styled()
def position_rotation(
    table: ArrayLike, offset: int, *, positions: Sequence[int] | None = None, caption: str | None = None
) -> Figure:
    """PE(pos) and PE(pos + k) as hands of clocks: an offset of k turns a hand by the same angle at every position.

    Parameters
    ----------
    table : array_like of shape (T, D), sin on even and cos on odd columns (`ops.positional.sinusoidal_interleaved`)
    offset : k
    positions : 1 to 4 values of pos, or None for three of them
    caption : replaces the text below the figure

    Raises
    ------
    TypeError, ValueError
        if neighbouring columns are not a sine and its cosine, or pos + k is not in the table

    Source: Vaswani et al. 2017, section 3.5 ("PE(pos + k) can be represented as a linear function of PE(pos)"); article C,
    section 2.2.
    """
    table = check_numbers("table", table, (2,), "(T, D), positions and hidden dimensions").astype(np.float64)
    length, width = table.shape
    if width % 2:
        raise ValueError(f"table must have an even number of columns, pairs of sin and cos, got {width}")
    hands = table.reshape(length, width // 2, 2)                        # (T, D / 2, (sin, cos))
    off = np.abs(np.linalg.norm(hands, axis=2) - 1)
    if off.max() > 0.01:
        pos, pair = map(int, np.unravel_index(off.argmax(), off.shape))
        raise ValueError(
            f"columns {2 * pair} and {2 * pair + 1} of the table must be a sine and its cosine, but at position {pos} they "
            f"are {hands[pos, pair, 0]:.3g} and {hands[pos, pair, 1]:.3g}: is this the layout in two halves?"
        )
    offset = check_index("offset", offset, 1, length - 1)
    last = length - 1 - offset
    starts = sorted({0, last // 2, last}) if positions is None else list(positions)
    if not 1 <= len(starts) <= 4:
        raise ValueError(f"positions must be 1 to 4 whole numbers, got {starts}")
    starts = [check_index("each of positions", pos, 0, last, f": pos + {offset} must be in the table") for pos in starts]
    pairs = np.unique(np.linspace(0, width // 2 - 1, 4).astype(int))
    angles = np.degrees(np.arctan2(hands[..., 0], hands[..., 1]))       # clockwise from 12 o'clock
    turns = (angles[np.add(starts, offset)] - angles[starts])[:, pairs] % 360          # (starts, pairs)
    figure = page(1.55 * len(starts) + 0.35, caption, default=_(
        "How to read it: a clock is one pair of columns, sine to the right and cosine upwards. The grey hand is PE(pos), the "
        "orange hand is PE(pos + {offset}); the angle between them, clockwise and without full turns, is written below. Down "
        "a column of clocks the hands differ, but the angle is the same: a fixed offset is a fixed rotation, so a model can "
        "learn it.",
        offset=offset,
    ))
    axes = figure.subplots(len(starts), len(pairs), squeeze=False)
    for line, pos, turned in zip(axes, starts, turns, strict=True):
        for ax, pair, turn in zip(line, pairs, turned, strict=True):
            ax.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal", xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            ax.add_patch(Circle((0, 0), 1, fill=False, edgecolor="#bbbbbb", linewidth=0.8))
            start = angles[pos, pair]
            ax.add_patch(Arc((0, 0), 0.8, 0.8, theta1=90 - start - turn, theta2=90 - start, edgecolor="#d55e00", linewidth=1.2))
            for at, colour in ((pos, "#777777"), (pos + offset, "#d55e00")):
                ax.annotate("", hands[at, pair], (0, 0), arrowprops={
                    "arrowstyle": "-|>", "color": colour, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0})
            ax.set_xlabel(f"{turn:.3g}°", labelpad=1)
            if pos == starts[0]:
                ax.set_title(_("columns {sine}, {cosine}", sine=2 * pair, cosine=2 * pair + 1))
            if pair == 0:
                ax.set_ylabel(_("pos {start} → {end}", start=pos, end=pos + offset))
    return figure
