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
from matplotlib.figure import Figure

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


def check_grid(name, count, grid):
    """(rows, cols) of a grid that has `count` patches."""
    if not (isinstance(grid, (tuple, list)) and len(grid) == 2 and all(isinstance(n, (int, np.integer)) for n in grid)):
        raise TypeError(f"grid must be a pair of whole numbers (rows, cols), got {grid!r}")
    rows, cols = grid
    if rows < 1 or cols < 1 or rows * cols != count:
        hint = ": one too many, leave the class token (index 0) out" if count == rows * cols + 1 else ""
        raise ValueError(f"a grid of {rows} x {cols} has {rows * cols} patches, but {name} has {count}{hint}")
    return int(rows), int(cols)


def check_images(name, value, ranks, shape):
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


def every_nth(count, steps=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000), most=16):
    """Every step-th index, at most `most` of them."""
    step = next((step for step in steps if count <= step * most), max(steps[-1], -(-count // most)))
    return np.arange(0, count, step)


def heatmap(ax, array, low, high, colours):
    """A heatmap on ax with a fixed range; returns what a colour bar needs."""
    sns.heatmap(array, ax=ax, vmin=low, vmax=high, cmap=colours, cbar=False, xticklabels=False, yticklabels=False)
    ax.spines[:].set_visible(True)
    return ax.collections[0]


def colour_bar(figure, mesh, axes, ticks, label, extend="neither"):
    """One colour bar for all axes, right of them and equally wide in figures of any height."""
    aspect = 6 * (figure.get_figheight() - 1)
    figure.colorbar(mesh, ax=axes, ticks=ticks, format="%.3g", label=label, extend=extend, pad=0.02, aspect=aspect)


def is_cjk(text):
    return any("\u2e80" <= letter <= "\uffef" or letter >= "\U00020000" for letter in text)


def keep_upright(ax):
    """Single Chinese characters below an axis stand upright, also where longer tokens beside them do not."""
    for label in ax.get_xticklabels():
        if len(label.get_text()) == 1 and is_cjk(label.get_text()):
            label.set_rotation(0)


def _families(text):
    """Font families that can draw the Chinese, Japanese or Korean text, or None where this machine has none."""
    wanted = {ord(letter) for letter in text if is_cjk(letter)}
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
    if not is_cjk(written):
        return sides, {}, ""
    if families := _families(written):
        return sides, {"fontfamily": families}, ""
    warnings.warn(
        "no font on this machine has the Chinese, Japanese or Korean characters of the tokens, so they are "
        "numbered; install 'Noto Sans CJK SC' (Debian, Ubuntu: fonts-noto-cjk), delete Matplotlib's font cache",
        stacklevel=4,                                                  # past the picture and its @styled, to the caller
    )
    sides = [None if tokens and is_cjk("".join(tokens)) else tokens for tokens in sides]
    return sides, {}, " Numbered tokens: no font here has these characters, so the tokens are counted from 0."


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


LETTERS = 24                                    # as many fit side by side below one of three maps
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#555555")   # heads, curves


def write_numbers(ax, array, digits, dark, size=9):
    """The numbers of a small heatmap in its cells, white where dark (boolean, as array); what is exactly 0 is a bare 0."""
    for (row, col), value in np.ndenumerate(array):
        text = f"{round(value, digits) + 0.0:.{digits}f}" if value else "0"            # + 0.0: no cell says -0.0
        colour = "white" if dark[row, col] else "black"
        ax.text(col + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color=colour)


def longest(tokens):
    """Letters of the longest token; a Chinese one counts twice."""
    return max(sum(1 + (letter > "\u2e80") for letter in token) for token in tokens)


def name_cells(ax, across, down, count, fonts, letters):
    """Ticks of a heatmap: tokens, or numbers where there are none; upright where `letters` do not fit below it."""
    for axis, tokens, n in ((ax.xaxis, across, count[1]), (ax.yaxis, down, count[0])):
        step = 1 if tokens else math.ceil(n / 10)
        axis.set_ticks(np.arange(0, n, step) + 0.5, tokens or np.arange(0, n, step), **fonts)
    upright = across and longest(across) > letters / count[1]
    ax.tick_params("x", rotation=90 if upright else 0)
    keep_upright(ax)
