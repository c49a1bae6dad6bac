"""Pictures of experiments: curves side by side, small matrices side by side, named points in the plane.

As in `plot`: arrays in, a Matplotlib Figure out, with labelled axes and a caption that says how to read it; `plot.save` writes
it. They are general, so the caption is the caller's: only the lesson knows what its experiment shows.
"""
import math
from typing import NamedTuple

import numpy as np
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import LogFormatter

from tinymae.plot import AMOUNT, SIGNED, beyond, check_numbers, check_tokens, drawable, heatmap, keep_upright, page, styled
from tinymae.plot_text import COLOURS, write_numbers

WRITTEN = 18                                    # cells across the page whose numbers can still be written
NAMED = 80                                      # points whose names still find room on the page


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
    for axis, scale in ((ax.xaxis, xscale), (ax.yaxis, yscale)):
        if scale == "log":                      # the default writes 10^-3 in TeX, which our style does not read
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(LogFormatter())
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


@styled()
def points(groups, xlabel, ylabel, caption):
    """Named points in the plane: a map of word vectors. A colour for each group, and names where they hide least.

    Parameters
    ----------
    groups : dict {group: (places, names)}, places array_like of shape (n, 2), names n strings. At most 8 groups, and
        80 points in all
    xlabel, ylabel : str
    caption : str, "How to read it: ..."

    Returns
    -------
    matplotlib.figure.Figure
        one unit is as long across as it is up: distances can be compared

    Raises
    ------
    TypeError, ValueError
        where groups is not such a dict, or there are more points than can be named
    """
    if not isinstance(groups, dict) or not 1 <= len(groups) <= len(COLOURS):
        raise TypeError(f"groups: expected a dict of 1 to {len(COLOURS)} {{group: (places, names)}}, got {groups!r:.80}")
    places = [check_numbers(f"places of {group!r}", where, (2,), "(n, 2)") for group, (where, _) in groups.items()]
    names = [[str(name) for name in named] for _, named in groups.values()]
    for group, where, named in zip(groups, places, names, strict=True):
        if where.shape != (len(named), 2):
            raise ValueError(f"groups[{group!r}]: expected two numbers for each of the {len(named)} names, got {where.shape}")
    if sum(map(len, names)) > NAMED:
        raise ValueError(f"expected at most {NAMED} points, whose names can still be read, got {sum(map(len, names))}")
    names, fonts, note = drawable(*names)
    figure = page(5.2 + 0.2 * math.ceil(len(groups) / 4), caption + note)
    ax = figure.subplots()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.margins(0.08)
    ax.set_aspect("equal", adjustable="datalim")
    for colour, group, where in zip(COLOURS, groups, places, strict=False):
        ax.plot(*where.T, "o", color=colour, label=group, markersize=5)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderaxespad=0.2, ncols=4)
    figure.draw_without_rendering()                             # now the axes have their place, and the points theirs
    dots = ax.transData.transform(np.concatenate(places))       # (points, 2) in pixels
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in dots]     # left, bottom, right, top
    dots = iter(dots)
    for colour, where, named in zip(COLOURS, places, names, strict=False):
        for place, name in zip(where, named or range(len(where)), strict=True):
            taken.append(_write_beside(ax, place, next(dots), str(name), taken, color=colour, **fonts))
    return figure


def _write_beside(ax, place, dot, name, taken, **style):
    """Write a name near its point where it covers least of the boxes taken; the box it takes, in pixels."""
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
    if best >= 8:                                               # so far that a line has to say whose name it is
        end = (np.clip(dot, box[:2], box[2:]) - dot) / point
        line = {"arrowstyle": "-", "color": style["color"], "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", place, end, textcoords="offset points", arrowprops=line, in_layout=False)
    return tuple(box)


def _covered(box, taken, page):
    """How much of a box lies on others, or off the page."""
    shared = np.minimum(box[2:], taken[:, 2:]) - np.maximum(box[:2], taken[:, :2])
    inside = np.prod(np.clip(np.minimum(box[2:], page[2:]) - np.maximum(box[:2], page[:2]), 0, None))
    return np.prod(np.clip(shared, 0, None), axis=1).sum() + 4 * (np.prod(box[2:] - box[:2]) - inside)


@styled()
def shuffle(picture, ids_shuffle, ids_restore, kept, grid, caption=None):
    """How a masked autoencoder hides patches and puts them back: shuffle, cut, add mask tokens, unshuffle.

    Parameters
    ----------
    picture : ndarray of shape (rows, cols, C), uint8, C = 1 or 3
    ids_shuffle : integer array_like of shape (N,), a permutation: ids_shuffle[j] is the patch that comes j-th
    ids_restore : integer array_like of shape (N,), a permutation: place n takes the token ids_restore[n]. It is drawn as it is
        given: one that is not the inverse of ids_shuffle puts patches into wrong places
    kept : int, K, 1 <= K < N: how many of the shuffled patches stay visible
    grid : (rows, cols) of patches, rows * cols = N, at most 16: smaller tiles cannot be read
    caption : str, replaces the text under the picture

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where the arrays do not fit the grid or each other, or the picture does not divide into it

    Source: He et al. 2021, section 3, "simple implementation"; their code, `random_masking` and `forward_decoder`.
    """
    picture, (rows, cols) = np.asarray(picture), grid
    count = rows * cols
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise TypeError(f"picture must be uint8 (rows, cols, C), C 1 or 3, got {picture.dtype} {picture.shape}")
    if picture.shape[0] % rows or picture.shape[1] % cols:
        raise ValueError(f"a picture of {picture.shape[0]} x {picture.shape[1]} does not divide into {rows} x {cols} patches")
    if not 2 <= count <= 16 or not 1 <= kept < count:
        raise ValueError(f"expected 2 to 16 patches of which some are kept and some removed, got {count} and kept={kept}")
    for name, ids in (("ids_shuffle", ids_shuffle), ("ids_restore", ids_restore)):
        if not np.array_equal(np.sort(ids), np.arange(count)):
            raise ValueError(f"{name} must hold 0..{count - 1} once each, got {np.asarray(ids).tolist()}: is it ids_keep, or "
                             "the mask?")
    size = (picture.shape[0] // rows, picture.shape[1] // cols)
    tiles = picture.reshape(rows, size[0], cols, size[1], -1).swapaxes(1, 2).reshape(count, *size, -1)
    order, restore = list(range(count)), np.asarray(ids_restore)
    shuffled = [int(patch) for patch in ids_shuffle]
    tokens = [patch if place < kept else None for place, patch in enumerate(shuffled)]          # None: the mask token
    restored = [tokens[place] for place in restore]
    if caption is None:
        caption = (
            "How to read it: downwards. A number is a patch's own place in the picture; M is the mask token, one for all. "
            "Blue lines belong to the patches that stay visible, grey ones to those that are removed. The unshuffle is "
            "right where each number of the last row stands below itself in the first."
        )
    figure = page(5.0, caption)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 3.4))
    for ax, title, patches in zip(left.subplots(2, 1), ("the picture", "for the decoder"), (order, restored), strict=True):
        for place, patch in enumerate(patches):
            _tile(ax, tiles, patch, place % cols, place // cols, 1.0, size)
        ax.set(title=title, xlim=(0, cols), ylim=(rows, 0), aspect=size[0] / size[1])
        ax.set_axis_off()
    ax = right.subplots()
    side, step = 0.82, 2.05
    names = ("patches in their order", f"shuffled; the first {kept} stay visible, the others are removed",
             "encoded, with mask tokens behind", "unshuffled: each place takes its token")
    for row, (name, patches) in enumerate(zip(names, (order, shuffled, tokens, restored), strict=True)):
        ax.text(0, row * step - 0.12, name, va="bottom", fontsize=9, color="#333333", zorder=3,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        for place, patch in enumerate(patches):
            _tile(ax, tiles, patch, place, row * step, side, size, faded=row == 1 and place >= kept)
    places = range(count)
    moves = (                                                          # (from, to, place in the shuffle)
        [(shuffled[j], j, j) for j in places], [(j, j, j) for j in places], [(int(restore[n]), n, restore[n]) for n in places],
    )
    for row, lines in enumerate(moves):
        for start, end, place in lines:
            seen = place < kept
            ax.plot([start + side / 2, end + side / 2], [row * step + side, (row + 1) * step], zorder=2 if seen else 1,
                    color=COLOURS[0] if seen else "#bbbbbb", linewidth=1.6 if seen else 0.9)
    ax.set(xlim=(-0.05, count), ylim=(3 * step + side + 0.05, -0.5), aspect="equal")
    ax.set_axis_off()
    return figure


def _tile(ax, tiles, patch, x, y, side, size, faded=False):
    """One patch with its number, or the mask token where patch is None, with its top left corner at (x, y)."""
    frame = (x, x + side, y + side, y)
    if patch is None:
        ax.imshow(np.full((1, 1, 3), 200, np.uint8), extent=frame)
    else:
        tile = tiles[patch] if tiles.shape[-1] == 3 else tiles[patch].repeat(3, axis=-1)
        ax.imshow(tile, extent=frame, alpha=0.25 if faded else 1.0)
    ax.text(x + side / 2, y + side / 2, "M" if patch is None else str(patch), ha="center", va="center", fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.2})


BOX, TALL, GAP, PAD = 1.9, 0.26, 0.17, 0.22    # inches: a box's width and height, the space above it, below a layer's first
RESIDUAL, MEMORY, MAIN = COLOURS[0], COLOURS[1], "#777777"


@styled()
def encoder_decoder(encoder_layers, decoder_layers, norm_first=False, caption=None):
    """The Transformer as a diagram: sublayers from the bottom to the top, residual paths beside them, the memory across.

    Parameters
    ----------
    encoder_layers, decoder_layers : int, 1 to 4
    norm_first : bool, pre-norm (norms before the sublayers and behind each stack) or post-norm (the paper, the articles)
    caption : str, replaces the text under the picture

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        where there are no layers, or more than fit on a page

    Source: Vaswani et al. 2017, figure 1; article D, residuals (2 + 2 layers with Add & Norm).
    """
    for name, count in (("encoder_layers", encoder_layers), ("decoder_layers", decoder_layers)):
        if not isinstance(count, (int, np.integer)) or not 1 <= count <= 4:
            raise ValueError(f"{name} must be 1 to 4, got {count!r}: more than 4 do not fit on a page, and they all look alike")
    if caption is None:
        caption = (
            "How to read it: upwards. Left the encoder, right the decoder; a grey frame is a layer. A blue line is a residual "
            "path, past a sublayer into its Add. The orange line is the memory C: keys and values for every cross attention; "
            "the queries Q come from the decoder."
        )
    stacks = [
        ("encoder", encoder_layers, ("Self-attention", "Feed forward")),
        ("decoder", decoder_layers, ("Masked self-attention", "Cross attention", "Feed forward")),
    ]
    tallest = max(_stack_height(layers, sublayers, norm_first) for _, layers, sublayers in stacks)
    figure = page(tallest + 0.6, caption)
    ax = figure.subplots()
    ax.set_axis_off()
    ax.set(xlim=(0, 7.2), ylim=(-0.45, tallest + 0.1))
    (encoder, memory, _), (_, _, crossings) = (
        _stack(ax, x, outwards, name, layers, sublayers, norm_first)
        for (name, layers, sublayers), x, outwards in zip(stacks, (1.75, 5.35), (-1, 1), strict=True)
    )
    middle = 3.45                                                       # between the columns
    ends = [memory + 0.2, *crossings]
    ax.plot([encoder, encoder, middle], [memory, ends[0], ends[0]], color=MEMORY)
    ax.plot([middle, middle], [min(ends), max(ends)], color=MEMORY)
    ax.text(middle - 0.1, ends[0] + 0.04, "C, the memory", ha="right", va="bottom", fontsize=9, color=MEMORY)
    for y in crossings:
        _arrow(ax, (middle, y), (5.35 - BOX / 2, y), MEMORY)
        ax.text(middle + 0.07, y + 0.03, "K, V", ha="left", va="bottom", fontsize=9, color=MEMORY)
    return figure


def _groups(sublayers, norm_first):
    """The boxes of a layer, from the bottom: a list for each sublayer."""
    return [["Norm", sublayer, "Add"] if norm_first else [sublayer, "Add & Norm"] for sublayer in sublayers]


def _stack_height(layers, sublayers, norm_first):
    boxes = sum(map(len, _groups(sublayers, norm_first)))
    ends = ("Embedding + positions", *["Norm"] * norm_first, *["Linear", "Softmax"] * (len(sublayers) == 3))
    return layers * (boxes * (TALL + GAP) + PAD) + len(ends) * (TALL + GAP)


def _stack(ax, x, outwards, name, layers, sublayers, norm_first):
    """One column; (x, y of its top, heights of the cross attentions). Residual paths run on the side `outwards`, -1 or 1."""
    words = "source words" if name == "encoder" else "target words, one place to the right"
    ax.text(x, -0.3, words, ha="center", va="center", fontsize=9, color="#333333")
    _arrow(ax, (x, -0.2), (x, 0), MAIN)
    y, crossings = _box(ax, x, 0, "Embedding + positions"), []
    for layer in range(layers):
        bottom, y = y, y + PAD
        ax.plot([x, x], [bottom, y], color=MAIN, linewidth=1.2, zorder=1)
        for group in _groups(sublayers, norm_first):
            fork = y - 0.09
            for box in group:
                if box == "Cross attention":
                    crossings.append(y + TALL / 2)
                    ax.text(x - 0.06, y - GAP / 2, "Q", ha="right", va="center", fontsize=9, color=MAIN)
                y = _box(ax, x, y, box)
            side, into = x + outwards * (BOX / 2 + 0.22), y - GAP - TALL / 2
            ax.plot([x, side, side], [fork, fork, into], color=RESIDUAL, linewidth=1.3, zorder=1)
            _arrow(ax, (side, into), (x + outwards * BOX / 2, into), RESIDUAL)
        _rounded(ax, x - BOX / 2 - 0.32, bottom + 0.04, BOX + 0.64, y - GAP / 2 - bottom - 0.04, "#f3f3f3", "#aaaaaa", 0)
        ax.text(x + outwards * (BOX / 2 + 0.45), (bottom + y) / 2, f"{name} layer {layer}", rotation=90, ha="center",
                va="center", fontsize=9, color=MAIN)
    for box in (*["Norm"] * norm_first, *["Linear", "Softmax"] * (name == "decoder")):
        y = _box(ax, x, y, box)
    return x, y - GAP, crossings


def _box(ax, x, y, text):
    """A box that stands on y, with an arrow of the main path above it; where the next one stands."""
    colour = {"Norm": "#fff2ae", "Add & Norm": "#fff2ae", "Add": "#fff2ae", "Feed forward": "#cfe3f5"}.get(text, "#e3e3e3")
    colour = "#fbd9b8" if "ttention" in text else colour
    _rounded(ax, x - BOX / 2, y, BOX, TALL, colour, "#555555", 2)
    ax.text(x, y + TALL / 2, text, ha="center", va="center", fontsize=9, color="black", zorder=3)
    ax.plot([x, x], [y + TALL, y + TALL + GAP], color=MAIN, linewidth=1.2, zorder=1)
    return y + TALL + GAP


def _rounded(ax, x, y, width, height, face, edge, zorder):
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.06", facecolor=face,
                                edgecolor=edge, linewidth=0.8, zorder=zorder))


def _arrow(ax, start, end, colour):
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0})
