"""Scatter plots: points in the plane, each with its name beside it."""
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tinymae.plot.style import COLOURS, check_numbers, drawable, legend_above, page, styled

NAMED = 80                                      # the names of more points than this have no room on the page


@styled()
def points(groups: dict[str, tuple[ArrayLike, Sequence]], xlabel: str, ylabel: str, caption: str) -> Figure:
    """Named points in the plane, such as a map of word vectors: a colour for each group, and names where they cover least.

    One unit is equally long on both axes, so distances can be compared.

    Parameters
    ----------
    groups : {group: (coordinates, names)}, coordinates array_like of shape (n, 2), names n strings. At most 8 groups, and
        80 points in total
    caption : "How to read it: ..."

    Raises
    ------
    TypeError, ValueError
        if groups is not such a dict, or there are more points than can be named
    """
    if not isinstance(groups, dict) or not 1 <= len(groups) <= len(COLOURS):
        raise TypeError(f"groups: expected a dict of 1 to {len(COLOURS)} {{group: (coordinates, names)}}, got {groups!r:.80}")
    coordinates = [check_numbers(f"coordinates of {group!r}", where, (2,), "(n, 2)") for group, (where, _) in groups.items()]
    names = [[str(name) for name in named] for _, named in groups.values()]
    for group, where, named in zip(groups, coordinates, names, strict=True):
        if where.shape != (len(named), 2):
            raise ValueError(f"groups[{group!r}]: expected two numbers for each of the {len(named)} names, got {where.shape}")
    if sum(map(len, names)) > NAMED:
        raise ValueError(f"expected at most {NAMED} points, whose names can still be read, got {sum(map(len, names))}")
    names, missing = drawable(*names)
    figure = page(5.2 + 0.2 * math.ceil(len(groups) / 4), caption, missing)
    ax = figure.subplots()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.margins(0.08)
    ax.set_aspect("equal", adjustable="datalim")
    for colour, group, where in zip(COLOURS, groups, coordinates, strict=False):
        ax.plot(*where.T, "o", color=colour, label=group, markersize=5)
    legend_above(ax, 4)
    figure.draw_without_rendering()                             # this fixes the positions of the axes and the points
    dots = ax.transData.transform(np.concatenate(coordinates))       # (points, 2) in pixels
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in dots]     # left, bottom, right, top
    dots = iter(dots)
    for colour, where, named in zip(COLOURS, coordinates, names, strict=False):
        for place, name in zip(where, named or range(len(where)), strict=True):
            taken.append(_write_beside(ax, place, next(dots), str(name), taken, color=colour))
    return figure


def _write_beside(ax, place, dot, name, taken, **style):
    """Write a name near its point where it covers least of the boxes in `taken`; returns its own box, in pixels."""
    text = ax.annotate(name, place, (0, 0), textcoords="offset points", fontsize=9, in_layout=False, **style)
    size = text.get_window_extent()
    point = ax.figure.dpi / 72                                  # pixels
    spots = []
    for gap in (4 * point, 14 * point):
        left, middle, right = dot[0] - gap - size.width, dot[0] - size.width / 2, dot[0] + gap
        low, centre, high = dot[1] - gap - size.height, dot[1] - size.height / 2, dot[1] + gap
        spots += [(right, centre), (left, centre), (middle, high), (middle, low),
                  (right, high), (right, low), (left, high), (left, low)]
    boxes = np.array([(x, y, x + size.width, y + size.height) for x, y in spots])
    best = int(np.argmin([_covered(box, np.array(taken), ax.bbox.extents) for box in boxes]))
    box = boxes[best]
    text.set_position((box[:2] - size.p0) / point)
    if best >= 8:                                               # so far away that a line shows which point it names
        end = (np.clip(dot, box[:2], box[2:]) - dot) / point
        line = {"arrowstyle": "-", "color": style["color"], "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", place, end, textcoords="offset points", arrowprops=line, in_layout=False)
    return tuple(box)


def _covered(box, taken, page):
    """The area of a box that lies on other boxes or, counted four times, off the page."""
    shared = np.minimum(box[2:], taken[:, 2:]) - np.maximum(box[:2], taken[:, :2])
    inside = np.prod(np.clip(np.minimum(box[2:], page[2:]) - np.maximum(box[:2], page[:2]), 0, None))
    return np.prod(np.clip(shared, 0, None), axis=1).sum() + 4 * (np.prod(box[2:] - box[:2]) - inside)
