"""Pictures: arrays in, a Matplotlib Figure out.

A picture that cannot be misread needs three things: a fixed range, so that a colour means the same number in every
picture of its kind; the right kind of colours, growing for amounts (attention), with a neutral middle for signed values
(positions); and a caption that says how to read it.  Every function here sets all three.  Where a picture
leaves something out (values beyond the range, a spike beyond the axis), its caption says so, even one of your own.

Figures are returned, not shown, and pyplot is never asked for one: no display is needed, nothing stays open, and the
settings of Matplotlib are the same before and after.  `save` writes a PNG.  Heads, positions and patches are counted
from 0, as in the arrays.

Pictures for text are in `plot_text`.  The two share the helpers at the top whose names have no underscore.
"""
import contextlib
import math
import textwrap
import warnings
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
import seaborn as sns
from matplotlib import font_manager
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.ndimage import median_filter

from tinymae.files import whole_file

STYLE = Path(__file__).with_name("tinymae.mplstyle")
WIDTH = 7.5                                     # inches; 1050 pixels at the 140 dpi of the style file
AMOUNT = "viridis"                              # amounts: from dark (0) to bright (the top of the range)
SIGNED = "RdBu_r"                               # signed values: blue below, white at 0, red above
LABELLED = 40                                   # more written tokens than this on an axis cannot be read
CJK_FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "PingFang HK", "Hiragino Sans GB",
    "Heiti TC", "STHeiti", "Songti SC", "Microsoft YaHei", "SimHei", "SimSun", "Arial Unicode MS",
)


@contextlib.contextmanager
def styled():
    """Draw with Matplotlib's defaults and our style on top, whatever the reader has set; then put everything back."""
    with matplotlib.style.context(["default", STYLE]):
        yield


def page(height, caption):
    """An empty figure with room for `height` inches of picture and the caption under it."""
    lines = textwrap.wrap(caption, 102)
    figure = Figure(figsize=(WIDTH, height + 0.17 * len(lines) + 0.1))
    figure.supxlabel("\n".join(lines), x=0.012, ha="left", color="#333333", linespacing=1.25)
    return figure


def check_numbers(name, value, ranks, shape, hint=""):
    """value as a finite array of real numbers, not empty and of one of the ranks."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    if array.ndim not in ranks or array.size == 0:
        raise ValueError(f"{name} must have the shape {shape}, got {array.shape}{hint}")
    if not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"{name} must be finite, but {name}[{', '.join(map(str, first))}] is {array[first]}. Find the step that "
            "made it: a division by 0, an overflow, a learning rate that is too high"
        )
    return array


def check_weights(name, value, ranks, shape, hint=""):
    """Attention weights: numbers in 0..1."""
    weights = check_numbers(name, value, ranks, shape, hint)
    if weights.min() < 0 or weights.max() > 1.001:                     # 1.001: half precision may round a sum upwards
        raise ValueError(
            f"{name} must lie in 0..1, got {weights.min():.4g}..{weights.max():.4g}: "
            "are these the scores before the softmax?"
        )
    return weights


def _grid(name, count, grid):
    """(rows, cols) of a grid that has `count` patches."""
    if not (isinstance(grid, (tuple, list)) and len(grid) == 2 and all(isinstance(n, (int, np.integer)) for n in grid)):
        raise TypeError(f"grid must be a pair of whole numbers (rows, cols), got {grid!r}")
    rows, cols = grid
    if rows < 1 or cols < 1 or rows * cols != count:
        hint = ": one too many, leave the class token (index 0) out" if count == rows * cols + 1 else ""
        raise ValueError(f"a grid of {rows} x {cols} has {rows * cols} patches, but {name} has {count}{hint}")
    return int(rows), int(cols)


def _pictures(name, value, ranks, shape):
    """uint8 pictures with 1 or 3 channels."""
    pictures = check_numbers(name, value, ranks, shape)
    if pictures.dtype != np.uint8:
        raise TypeError(
            f"{name} must be uint8 (0..255), got {pictures.dtype}: undo the normalisation of the input first, then "
            "np.clip(np.rint(255 * x), 0, 255).astype(np.uint8)"
        )
    if pictures.shape[-1] not in (1, 3):
        raise ValueError(
            f"{name} must have 1 or 3 channels on its last axis, got the shape {pictures.shape}; "
            "channels-first pictures need np.moveaxis(x, -3, -1)"
        )
    return pictures


def beyond(array, low, high):
    """Where the colour bar gets an arrow, and what the caption says, when values lie outside the fixed range."""
    below, above = array.min() < low, array.max() > high
    if not (below or above):
        return "neither", ""
    note = f" Values run from {array.min():.3g} to {array.max():.3g}: those outside have the colour of the nearer end."
    return ("both" if below and above else "min" if below else "max"), note


def _ticks(count, steps=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000), most=16):
    """Every step-th index, at most `most` of them."""
    step = next((step for step in steps if count <= step * most), max(steps[-1], -(-count // most)))
    return np.arange(0, count, step)


POWERS = tuple(2**k for k in range(12))                                # steps that suit widths: 64, 512, 768


def heatmap(ax, array, low, high, colours):
    """A heatmap on ax with a fixed range; returns what a colour bar needs."""
    sns.heatmap(array, ax=ax, vmin=low, vmax=high, cmap=colours, cbar=False, xticklabels=False, yticklabels=False)
    ax.spines[:].set_visible(True)
    return ax.collections[0]


def colour_bar(figure, mesh, axes, ticks, label, extend="neither"):
    """One colour bar for all axes, right of them and equally wide in figures of any height."""
    aspect = 6 * (figure.get_figheight() - 1)
    figure.colorbar(mesh, ax=axes, ticks=ticks, format="%.3g", label=label, extend=extend, pad=0.02, aspect=aspect)


def _is_cjk(text):
    return any("\u2e80" <= letter <= "\uffef" or letter >= "\U00020000" for letter in text)


def keep_upright(ax):
    """Single Chinese characters below an axis stand upright, also where longer tokens beside them do not."""
    for label in ax.get_xticklabels():
        if len(label.get_text()) == 1 and _is_cjk(label.get_text()):
            label.set_rotation(0)


def _families(text):
    """Font families that can draw the Chinese, Japanese or Korean text, or None where this machine has none."""
    wanted = {ord(letter) for letter in text if _is_cjk(letter)}
    installed = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist if entry.name in CJK_FAMILIES}
    for family in CJK_FAMILIES:
        if family in installed and wanted <= font_manager.get_font(installed[family]).get_charmap().keys():
            return ["DejaVu Sans", family]                             # Latin letters look the same in every picture
    return None


def check_tokens(name, tokens, count, array="weights", most=LABELLED):
    """The tokens of one axis of `array` as strings, at most `most`, or None."""
    if tokens is None:
        return None
    tokens = [str(token) for token in tokens]
    if len(tokens) != count:
        raise ValueError(
            f"{name} has {len(tokens)} tokens, but the {array} have {count}: is a start, end or padding token missing?"
        )
    if count > most:
        raise ValueError(
            f"{name} has {count} tokens; more than {most} cannot be read. Cut the {array} and the tokens, as in "
            f"{array}[..., :{most}, :{most}], or leave the tokens out"
        )
    return tokens


def drawable(*sides):
    """What of some lists of tokens (or None) this machine can draw.

    Returns
    -------
    sides : the lists; None for a list with Chinese, Japanese or Korean that no font here has: number its tokens
    fonts : dict, options for what writes them
    note : str, for the caption; "" where nothing is missing, else there is a warning too
    """
    written = "".join(token for tokens in sides for token in tokens or ())
    if not _is_cjk(written):
        return sides, {}, ""
    if families := _families(written):
        return sides, {"fontfamily": families}, ""
    warnings.warn(
        "no font on this machine has the Chinese, Japanese or Korean characters of the tokens, so they are "
        "numbered; install 'Noto Sans CJK SC' (Debian, Ubuntu: fonts-noto-cjk), delete Matplotlib's font cache",
        stacklevel=4,                                                  # past the picture and its @styled, to the caller
    )
    sides = [None if tokens and _is_cjk("".join(tokens)) else tokens for tokens in sides]
    return sides, {}, " Numbered tokens: no font here has these characters, so the tokens are counted from 0."


@styled()
def positional_encoding(table, caption=None):
    """A table of positional encodings as a heatmap: positions down, hidden dimensions across, colours from -1 to 1.

    Parameters
    ----------
    table : array_like of shape (T, D), one row for each position
    caption : str, replaces the text under the picture

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where the table is not a finite matrix of numbers

    Source: Vaswani et al. 2017, section 3.5; article A, part 1 (100 x 16); article D, positional encoding (20 x 512
    with the sines in the left half, 10 x 64 with sines and cosines in turn).

    Differs: the articles let the colours span the values of the table; here white is always 0.
    """
    hint = "; drop the batch axis with table[0]" if np.ndim(table) == 3 else ""
    table = check_numbers("table", table, (2,), "(T, D), positions and hidden dimensions", hint)
    positions, width = table.shape
    extend, note = beyond(table, -1, 1)
    if caption is None:
        caption = (
            "How to read it: a row is the encoding of one position, a column is one hidden dimension. Red is +1, "
            "white is 0, blue is -1. A column, read downwards, is a wave: short stripes are a short wave, "
            "an even colour is a long one."
        )
    figure = page(min(max(1.2 + 0.2 * positions, 3.0), 4.4), caption + note)
    ax = figure.subplots()
    mesh = heatmap(ax, table, -1, 1, SIGNED)
    across, down = _ticks(width, POWERS), _ticks(positions, most=12)
    ax.set_xticks(across + 0.5, across)
    ax.set_yticks(down + 0.5, down)
    ax.set(xlabel="hidden dimension", ylabel="position")
    colour_bar(figure, mesh, ax, [-1, -0.5, 0, 0.5, 1], "value", extend)
    return figure


@styled()
def position_grid(table, grid, caption=None):
    """How alike the positions of patches are: the cosine of nine of them (fewer on a small grid) with all others.

    Parameters
    ----------
    table : array_like of shape (N, D), one row for each patch, row by row through the grid, without the class token
    grid : (rows, cols), rows * cols = N
    caption : str, replaces the text under the picture

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where N is not rows * cols, or a row is all zero and has no direction

    Source: Dosovitskiy et al. 2021, figure 7 (centre), drawn there for learned positions; He et al. 2022 use fixed
    sines and cosines (appendix A.1).

    Differs: the figure of Dosovitskiy et al. shows every patch; nine show the pattern and can be read.
    """
    table = check_numbers("table", table, (2,), "(N, D), patches and hidden dimensions")
    rows, cols = _grid("the table", len(table), grid)
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
    if caption is None:
        caption = (
            "How to read it: each map belongs to the patch in the yellow frame and shows the cosine of its position "
            "with the position of every patch: red is 1 (alike), white is 0, blue is -1. The maps stand as their "
            f"patches do. The cosines here run from {cosines.min():.2f} to {cosines.max():.2f}."
        )
    side = min(5.5 / len(chosen_cols), 2.6)
    height = min(max(side * rows / cols, 0.6), 2.6)
    figure = page(len(chosen_rows) * (height + 0.3) + 0.4, caption)
    axes = figure.subplots(len(chosen_rows), len(chosen_cols), squeeze=False)
    for line, row, maps in zip(axes, chosen_rows, cosines, strict=True):
        for ax, col, cosine in zip(line, chosen_cols, maps, strict=True):
            mesh = heatmap(ax, cosine, -1, 1, SIGNED)
            ax.add_patch(Rectangle((col, row), 1, 1, fill=False, edgecolor="#ffe600", linewidth=2, clip_on=False))
            ax.set_title(f"patch in row {row}, column {col}", fontsize=9)
            if row == chosen_rows[-1]:
                ax.set_xticks(_ticks(cols, most=8) + 0.5, _ticks(cols, most=8))
                ax.set_xlabel("column of the grid")
            if col == chosen_cols[0]:
                ax.set_yticks(_ticks(rows, most=8) + 0.5, _ticks(rows, most=8))
                ax.set_ylabel("row of the grid")
    colour_bar(figure, mesh, axes, [-1, -0.5, 0, 0.5, 1], "cosine")
    return figure


@styled()
def attention(weights, queries=None, keys=None, caption=None, vmax=1.0):
    """Attention weights as one heatmap per head: a row is a query, a column a key, all heads in one colour scale.

    Parameters
    ----------
    weights : array_like of shape (H, Tq, Tk) or (Tq, Tk), after the softmax, so 0..1
    queries, keys : sequences of Tq and Tk tokens to write at the rows and columns (at most 40), or None for numbers.
        Chinese tokens need a font that has them; without one they become numbers, which a warning and the caption say
    caption : str, replaces the text under the picture
    vmax : float, the top of the colour scale.  ``weights.max()`` shows weak attention; pictures then differ in scale

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where the weights have another rank, lie outside 0..1, or do not fit the tokens

    Source: Vaswani et al. 2017, equation 1 and figures 3-5; article A, part 2; article C, 5.1; article D,
    self-attention.

    Differs: articles and libraries often let the colours span the weights at hand, so the same colour is another weight
    in the next picture; here the range is fixed.
    """
    rank = np.ndim(weights)
    hint = "; take one sequence of the batch, as in weights[0]" if rank == 4 else ""
    weights = check_weights("weights", weights, (2, 3), "(H, Tq, Tk) or (Tq, Tk)", hint)
    if not 0 < vmax < math.inf:
        raise ValueError(f"vmax must be a number above 0, got {vmax!r}: it is the weight with the brightest colour")
    weights = weights.reshape(-1, *weights.shape[-2:])
    heads, count_q, count_k = weights.shape
    queries, keys = check_tokens("queries", queries, count_q), check_tokens("keys", keys, count_k)
    if caption is None:
        each = "map is one head, each row" if rank == 3 else "row"
        caption = (
            f"How to read it: each {each} is one query and shows how it spreads its attention over the keys. "
            f"The colours run from 0 to {vmax:.3g}{'' if vmax == 1 else ' (not to 1)'}"
            f"{', the same for all heads' if rank == 3 else ''}."
        )
    extend, note = beyond(np.minimum(weights, 1), 0, vmax)

    (queries, keys), fonts, missing = drawable(queries, keys)
    across = max([1.0, *(sum(1.7 if _is_cjk(c) else 1 for c in token) for token in keys or ())]) * 0.085     # inches
    most = 4 if keys is None else max(1, min(4, int(5.8 / (0.16 * count_k))))      # 0.16 inches: a line of 9 points
    full = [n for n in range(1, most + 1) if heads % n == 0 and 2 * n >= most]     # columns that leave no place empty
    columns = min(max(full, default=most), heads)
    lines = math.ceil(heads / columns)
    side = 6.0 / columns
    height = max(min(side * count_q / count_k, 4.0, 7.0 / lines), 0.8, 0.16 * count_q if queries else 0)
    upright = keys is not None and across > 0.9 * side / count_k
    figure = page(lines * (height + 0.25) + 0.5 + (across if upright else 0.1), caption + note + missing)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for head, ax in enumerate(axes):
        if head >= heads:
            ax.set_axis_off()
            continue
        mesh = heatmap(ax, weights[head], 0, vmax, AMOUNT)
        if rank == 3:
            ax.set_title(f"head {head}")
        if head + columns >= heads:                                    # nothing below this map: it carries the labels
            at = _ticks(count_k, most=max(3, 16 // columns)) if keys is None else np.arange(count_k)
            ax.set_xticks(at + 0.5, at if keys is None else keys, rotation=90 if upright else 0, **fonts)
            keep_upright(ax)
            ax.set_xlabel("key (is looked at)")
        if head % columns == 0:
            at = _ticks(count_q, most=max(3, int(4 * height))) if queries is None else np.arange(count_q)
            ax.set_yticks(at + 0.5, at if queries is None else queries, rotation=0, **fonts)
            ax.set_ylabel("query (looks)")
    colour_bar(figure, mesh, axes, np.linspace(0, vmax, 5), "attention weight", extend)
    return figure


@styled()
def attention_over_picture(picture, class_attention, patch_attention, patch, grid, caption=None):
    """Where a vision Transformer looks: attention to the patches, laid over the picture, per head and for their mean.

    Parameters
    ----------
    picture : ndarray of shape (rows, cols, C), uint8, C = 1 or 3
    class_attention : array_like of shape (H, N), the row of the class token: its weights for the N patches
    patch_attention : array_like of shape (H, N), the row of one patch.  Both come without the column of the class
        token, so a row sums to less than 1
    patch : int, 0 <= patch < N, the patch whose row that is; outlined in the picture
    grid : (rows, cols) of patches, rows * cols = N
    caption : str, replaces the text under the picture

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where the arrays do not fit the grid or each other, or the picture does not divide into it

    Source: Dosovitskiy et al. 2021, figure 6, and Caron et al. 2021 (DINO), figure 1, draw the class token's attention.

    Differs: they draw one layer per picture or roll the layers out; this draws the rows it is given, in one scale.
    """
    picture = _pictures("picture", picture, (3,), "(rows, cols, C)")
    rank_hint = "; take one picture of the batch and one query, as in weights[0, :, 0, 1:]"
    from_class = check_weights("class_attention", class_attention, (2,), "(H, N)", rank_hint)
    from_patch = check_weights("patch_attention", patch_attention, (2,), "(H, N)", rank_hint)
    if from_class.shape != from_patch.shape:
        raise ValueError(
            f"class_attention has the shape {from_class.shape} and patch_attention {from_patch.shape}: both are "
            "(H, N), rows of one layer's weights without the column of the class token"
        )
    heads, count = from_class.shape
    rows, cols = _grid("the attention", count, grid)
    height, width = picture.shape[:2]
    if height % rows or width % cols:
        raise ValueError(f"a picture of {height} x {width} does not divide into {rows} x {cols} equal patches")
    if not isinstance(patch, (int, np.integer)) or not 0 <= patch < count:
        raise ValueError(f"patch must be a whole number in 0..{count - 1}, got {patch!r}; leave the class token out")
    top = float(max(from_class.max(), from_patch.max())) or 1.0         # all weights 0: any scale shows it
    if caption is None:
        caption = (
            "How to read it: the brighter a patch, the more attention it gets, from the class token (above) and from "
            "the patch in the blue frame (below). All maps share one scale, from 0 to their largest weight, "
            f"{top:.3g}; spread evenly over the {count} patches it would be {1 / count:.2g}."
        )
    lines = math.ceil((heads + 1) / 5)
    columns = math.ceil((heads + 1) / lines)
    left = 2.0                                                         # inches
    side = min((WIDTH - left - 0.5) / columns, 2.0) - 0.1
    tall = max(2 * (lines * (side * height / width + 0.3) + 0.25), left * height / width + 1.0)
    figure = page(tall, caption)
    left_part, right_part = figure.subfigures(1, 2, width_ratios=(left, WIDTH - left))
    for part, name, weights in zip(
        right_part.subfigures(2, 1),
        ("from the class token", "from the patch in the frame"),
        (from_class, from_patch),
        strict=True,
    ):
        part.suptitle(name, fontsize=10.5)
        axes = part.subplots(lines, columns, squeeze=False).ravel()
        for ax in axes:
            ax.set_axis_off()
        maps = {"mean": weights.mean(axis=0), **{f"head {head}": w for head, w in enumerate(weights)}}
        for ax, (title, w) in zip(axes, maps.items(), strict=False):   # the last line may have empty places
            overlay = _lay_over(ax, picture, w.reshape(rows, cols), top)
            ax.set_title(title, fontsize=9)

    tall_picture = left * height / width
    rest = max(tall - tall_picture - 1.0, 0.01)
    shown, bar, empty = left_part.subplots(3, 1, height_ratios=[tall_picture, 0.14, rest])
    empty.set_axis_off()
    shown.imshow(picture[..., 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=255)
    row, col = divmod(int(patch), cols)
    corner = (col * width / cols - 0.5, row * height / rows - 0.5)
    shown.add_patch(Rectangle(corner, width / cols, height / rows, fill=False, edgecolor="#00b0ff", linewidth=2.2))
    shown.set_title(f"picture, patch {int(patch)}")
    shown.set_axis_off()
    left_part.colorbar(overlay, cax=bar, orientation="horizontal", ticks=[0, top / 2, top], format="%.3g",
                       label="attention weight")
    bar.set_facecolor(str(_dimmed(picture).mean() / 255))              # the same grey behind the see-through colours
    return figure


def _dimmed(picture):
    """(rows, cols), grey and dark: in what is laid over it, light means attention."""
    return 10 + 0.3 * picture.mean(axis=2)


def _lay_over(ax, picture, weights, top):
    """Draw weights (grid rows, grid cols) over a picture, brightest at top; return them as Matplotlib's image."""
    height, width = picture.shape[:2]
    ramp = np.linspace(0, 1, 256)
    colours = matplotlib.colormaps["inferno"](0.45 + 0.55 * ramp)
    colours[:, 3] = 0.95 * ramp**0.6                                  # little attention leaves the picture visible
    ax.imshow(_dimmed(picture), cmap="gray", vmin=0, vmax=255)
    frame = (-0.5, width - 0.5, height - 0.5, -0.5)                    # the patches cover the picture
    return ax.imshow(weights, extent=frame, cmap=ListedColormap(colours), vmin=0, vmax=top, interpolation="nearest")


@styled()
def rollout_over_pictures(pictures, rollout, grid, caption=None):
    """What reaches the class token through all layers: each picture, and below it the rollout laid over it.

    Parameters
    ----------
    pictures : ndarray of shape (B, rows, cols, C), uint8, C = 1 or 3
    rollout : array_like of shape (B, N), the class token's row of `models.attention_maps.attention_rollout`, without its own column
    grid : (rows, cols) of patches, rows * cols = N
    caption : str, replaces the text under the pictures

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where the arrays do not fit the grid or each other, or the pictures do not divide into it

    Source: Abnar & Zuidema 2020; Dosovitskiy et al. 2020, figure 6, draw it in this way.

    Differs: they brighten the picture by the rollout; here its colours are laid over the picture, each picture in its own
    scale, from 0 to its largest value.
    """
    pictures = _pictures("pictures", pictures, (4,), "(B, rows, cols, C)")
    rollout = check_weights("rollout", rollout, (2,), "(B, N)", "; take the class token's row, as in rollout[:, 0, 1:]")
    if len(rollout) != len(pictures):
        raise ValueError(f"rollout has {len(rollout)} rows for {len(pictures)} pictures: one for each")
    rows, cols = _grid("the rollout", rollout.shape[1], grid)
    count, height, width, _ = pictures.shape
    if height % rows or width % cols:
        raise ValueError(f"pictures of {height} x {width} do not divide into {rows} x {cols} equal patches")
    if caption is None:
        caption = (
            "How to read it: the brighter a patch, the more of it reaches the class token through all layers together. Each "
            f"picture has its own scale, from 0 (dark) to its brightest patch; evenly, each of the {rows * cols} patches "
            f"would hold {1 / (rows * cols):.2g}."
        )
    columns = min(count, 6)
    lines = math.ceil(count / columns)
    side = min((WIDTH - 0.2) / columns, 2.4)
    figure = page(lines * 2 * (side * height / width + 0.25), caption)
    axes = figure.subplots(2 * lines, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, (picture, row) in enumerate(zip(pictures, rollout, strict=True)):
        line, column = divmod(i, columns)
        shown, below = axes[2 * line, column], axes[2 * line + 1, column]
        shown.imshow(picture[..., 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=255)
        top = float(row.max()) or 1.0
        _lay_over(below, picture, row.reshape(rows, cols), top)
        below.set_title(f"up to {top:.2g}", fontsize=9)
    return figure


@styled()
def reconstructions(masked, reconstruction, pasted, original, title="", caption=None, mode=""):
    """What a masked autoencoder makes of pictures: one row each, masked | reconstruction | + visible | original.

    Parameters
    ----------
    masked, reconstruction, pasted, original : ndarray of shape (B, rows, cols, C), uint8, C = 1 (drawn in grey) or 3.
        `pasted` is the reconstruction with the visible patches put back.  Four pictures fill half a screen
    title : str, stands above everything
    caption : str, replaces the text under the picture
    mode : str, drawn in a coloured bar above the pictures.  Say here what the pictures owe to the true picture, such as
        "normalised pixels: per-patch mean and variance taken from the true picture"

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where an array is not uint8 or the four shapes differ

    Source: He et al. 2022, figures 2-4; article A, opening figures.

    Differs: the paper's figures have three columns; here the reconstruction stands both plain and with the visible
    patches, because the plain one looks worse where patches were visible (the loss does not train it there).
    """
    named = {"masked": masked, "reconstruction": reconstruction, "pasted": pasted, "original": original}
    arrays = [_pictures(name, array, (4,), "(B, rows, cols, C)") for name, array in named.items()]
    for name, array in zip(named, arrays, strict=True):
        if array.shape != arrays[-1].shape:
            raise ValueError(
                f"{name} has the shape {array.shape}, but original {arrays[-1].shape}: all four show the same pictures"
            )
    heads = ("masked", "reconstruction", "reconstruction + visible", "original")
    if caption is None:
        caption = (
            "How to read it: each row is one picture. The model sees only what is left in the first column; compare "
            "the second and third with the last. The loss counts removed patches only, so the second column is not "
            "trained where patches were visible; the third shows those as they are."
        )
    count, height, width, channels = arrays[0].shape
    # Everything here has a known size, so it is placed by hand, in inches from the top left; gaps are equal both ways.
    gap = 0.07
    wide = (WIDTH - 5 * gap) / 4
    high = wide * height / width
    banner = textwrap.wrap(mode, 80)
    strip = 0.2 * len(banner) + 0.14 if banner else 0.0
    top = (0.32 if title else gap) + (strip + gap if banner else 0) + 0.22
    figure = page(top + count * (high + gap), caption)
    figure.set_layout_engine("none")
    total = figure.get_figheight()
    if title:
        figure.suptitle(title, y=1 - 0.08 / total, va="top")
    if banner:
        y = 1 - (top - 0.22 - gap) / total
        ax = figure.add_axes((gap / WIDTH, y, 1 - 2 * gap / WIDTH, strip / total), facecolor="#ffc20a")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="black", linewidth=1.5)
        ax.text(0.5, 0.5, "\n".join(banner), ha="center", va="center", fontsize=10.5, weight="bold")
    for column, (head, array) in enumerate(zip(heads, arrays, strict=True)):
        x = gap + column * (wide + gap)
        for row, picture in enumerate(array):
            y = total - top - row * (high + gap) - high
            ax = figure.add_axes((x / WIDTH, y / total, wide / WIDTH, high / total))
            ax.imshow(picture[..., 0] if channels == 1 else picture, cmap="gray", vmin=0, vmax=255)
            ax.set_axis_off()
            if row == 0:
                ax.set_title(head)
    return figure


@styled()
def loss_curve(steps, losses, learning_rates=None, evaluations=None, baselines=None, caption=None):
    """The loss of a training run, step by step, with what it should be compared with.

    Parameters
    ----------
    steps, losses : array_like of shape (n,); steps rise
    learning_rates : array_like of shape (n,), drawn in a panel of its own below
    evaluations : dict {step: loss}, measured on data that is not trained on
    baselines : dict {name: loss}, dashed lines with their names, such as {"predicting the mean": 1.0}
    caption : str, replaces the text under the picture

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where lengths differ, steps do not rise, or a loss is not finite

    Notes
    -----
    The thick line is a running median, which one wild step cannot move.  The axis starts at 0 unless the run would then
    fill less than a third of it, and it leaves out spikes that would flatten the rest; the caption says either.

    Differs: many tools smooth with an exponential mean, which drags a spike along, or use a logarithmic axis, which
    hides how little the last steps gain.
    """
    steps = check_numbers("steps", steps, (1,), "(n,)").astype(np.float64)     # unsigned integers have no -1
    losses = check_numbers("losses", losses, (1,), "(n,)").astype(np.float64)
    if len(steps) != len(losses):
        raise ValueError(f"there are {len(steps)} steps and {len(losses)} losses: one loss for each step")
    if (np.diff(steps) <= 0).any():
        at = int(np.argmax(np.diff(steps) <= 0))
        raise ValueError(
            f"steps must rise, but {steps[at]:g} is followed by {steps[at + 1]:g}: a resumed run logged some steps "
            "twice; keep the later ones"
        )
    for name, value in {"evaluations": evaluations, "baselines": baselines}.items():
        if not isinstance(value, (dict, type(None))):
            raise TypeError(f"{name} must be a dict with losses as its values, or None, got {type(value).__name__}")
    dots = np.empty((2, 0))                                            # steps, losses
    if evaluations:
        dots = check_numbers("evaluations", sorted(evaluations.items()), (2,), "{step: loss}").T
    marks = dict(sorted((baselines or {}).items(), key=lambda item: item[1]))
    levels = check_numbers("baselines", list(marks.values()), (1,), "{name: loss}") if marks else np.empty(0)
    if learning_rates is not None:
        learning_rates = check_numbers("learning_rates", learning_rates, (1,), "(n,)")
        if len(learning_rates) != len(steps):
            raise ValueError(
                f"there are {len(steps)} steps and {len(learning_rates)} learning rates: one rate for each step"
            )

    window = min(max(3, len(losses) // 25 | 1), 101) if len(losses) > 2 else 1     # odd; 4 % of a short run
    smooth = losses
    if window > 1:
        smooth = median_filter(losses, size=window, mode="mirror")     # mirror: a spike in the first step counts once
    kept = [smooth.max(), *dots[1], *levels]
    top = max(kept)
    if losses.max() <= top + 0.5 * abs(top):
        top = max(top, losses.max())                                   # ordinary noise: show all of it
    low = min(losses.min(), *kept)
    notes = []
    if low < 0 or top - low < 0.33 * top:
        bottom = low - 0.08 * (top - low or abs(top) or 1.0)
        notes.append("The loss axis does not start at 0.")
    else:
        bottom = 0.0
    top += 0.06 * (top - bottom or 1.0)
    if outside := int((losses > top).sum()):
        worst = int(np.argmax(losses))
        notes.append(
            f"{outside} of {len(losses)} steps lie above the picture, the highest is {losses[worst]:.3g} at step "
            f"{steps[worst]:g}."
        )
    if caption is None:
        caption = f"How to read it: thin is the loss of each step, thick the median of {window}; lower is better."
        caption += " Dots are measured on data that is not trained on." if dots.size else ""
        caption += " Dashed lines are what the run should beat." if marks else ""

    panels = [1] if learning_rates is None else [3, 1]
    figure = page(3.3 if learning_rates is None else 4.5, " ".join([caption, *notes]))
    axes = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=panels)[:, 0]
    ax = axes[0]
    ax.plot(steps, losses, color="#9ecae1", linewidth=0.7, label="training, each step")
    alone = "o" if len(losses) == 1 else None                         # a line through one point cannot be seen
    ax.plot(steps, smooth, color="C0", marker=alone, label=f"training, median of {window}")
    if dots.size:
        ax.plot(*dots, color="C1", marker="o", markersize=5, linewidth=1, label="evaluation", clip_on=False, zorder=3)
    # The names of the lines stand right of the axes, at the height of their lines but never closer than a line of text.
    height = -np.inf
    for name, value in marks.items():
        ax.axhline(value, color="#555555", linestyle="--", linewidth=1.1)
        height = max((value - bottom) / (top - bottom), height + 0.075)
        ax.text(1.01, height, f"{name}: {value:.3g}", transform=ax.transAxes, va="center", fontsize=9, color="#333333")
    ax.set(ylim=(bottom, top), ylabel="loss")
    ax.set_xlim(min([steps[0], *dots[0]]), max(steps[-1], *dots[0], steps[0] + 1))
    ax.grid(axis="y")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0.2)
    if learning_rates is not None:
        axes[1].plot(steps, learning_rates, color="C2")
        axes[1].set(ylim=(0, 1.1 * max(learning_rates.max(), 1e-12)), ylabel="learning rate")
        axes[1].grid(axis="y")
    axes[-1].set_xlabel("step")
    figure.align_ylabels(axes)
    return figure


@styled()
def save(figure, path):
    """Write the figure as a PNG, whole or not at all, and return the path.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : str or path-like, ending in .png

    Returns
    -------
    pathlib.Path

    Raises
    ------
    TypeError
        where figure is not a Figure
    ValueError
        where the path does not end in .png
    IsADirectoryError
        where the path is a folder
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"figure must be a Figure, as the functions of this module return, got {type(figure).__name__}")
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: add a file name, such as {path / 'picture.png'}")
    if path.suffix.lower() != ".png":
        raise ValueError(f"the path must end in .png, got {str(path)!r}: pictures are written as PNG only")
    with whole_file(path) as file:
        # Without Matplotlib's version inside, the same figure gives the same bytes and git sees no change.
        figure.savefig(file, format="png", metadata={"Software": None}, pil_kwargs={"optimize": True})
    return path
