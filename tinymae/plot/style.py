"""What all figures share: the style, a page with a caption, checks of what is drawn, and parts that several figures have.

A figure that cannot be misread needs three things: a fixed range, so that a colour means the same number in every figure of
its type; the right colour map, growing for amounts (attention), with a neutral middle for signed values (positional
encodings); and a caption that says how to read it. Every function of this package sets all three. If a figure leaves
something out (values outside the range, a spike above the axis), its caption says so, also after a caption of your own.

Figures are returned, and pyplot is never used: no display is needed, nothing stays open, and the settings of Matplotlib are
the same before and after. `save` writes a file; a notebook shows the figure that a cell ends with. Heads, positions and
patches are counted from 0, as in the arrays.

What a figure says is in the user's language, see `messages`: the sentences here and, if its catalog has them, the captions of
callers. If no font of the machine has the letters of that language, it is English.
"""
import contextlib
import io
import math
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tinymae.files import whole_file
from tinymae.messages import columns, either, in_lines, marked, spoken, translated
from tinymae.messages import message as _

STYLE = Path(__file__).with_name("tinymae.mplstyle")
WIDTH = 7.5                                     # inches; 1050 pixels at the 140 dpi of the style file
AMOUNT = "viridis"                              # amounts: from dark (0) to bright (the top of the range)
SIGNED = "RdBu_r"                               # signed values: blue below, white at 0, red above
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#555555")   # heads, curves
LABELLED = 40                                   # more tokens than this on an axis cannot be read
LETTERS = 24                                    # as many fit side by side below one of three maps
SANS = "DejaVu Sans"                            # comes with Matplotlib: Latin letters look the same in every figure
# The usual fonts of Linux, macOS and Windows for what SANS lacks. Fonts of bitmaps in colour, as most for emoji are, are none:
# Matplotlib draws outlines.
FALLBACKS = (
    # Chinese, Japanese, Korean
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB", "Heiti TC", "STHeiti", "Songti SC",
    "Microsoft YaHei", "SimHei", "SimSun", "Noto Sans JP", "IPAexGothic", "Hiragino Sans", "Yu Gothic", "Meiryo", "MS Gothic",
    "Noto Sans KR", "NanumGothic", "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans TC", "Microsoft JhengHei",
    # scripts of India, South East Asia, Ethiopia, Tibet; Arabic and Hebrew
    "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Gujarati", "Noto Sans Gurmukhi", "Noto Sans Kannada",
    "Noto Sans Malayalam", "Noto Sans Oriya", "Noto Sans Sinhala", "Noto Sans Tamil", "Noto Sans Telugu", "Noto Sans Thai",
    "Noto Sans Lao", "Noto Sans Khmer", "Noto Sans Myanmar", "Noto Sans Ethiopic", "Noto Serif Tibetan", "Noto Sans Arabic",
    "Noto Sans Hebrew", "Lohit Devanagari", "Nirmala UI", "Leelawadee UI", "Myanmar Text", "Ebrima", "Microsoft Himalaya",
    "Tahoma", "Kohinoor Devanagari", "Devanagari Sangam MN", "Bangla Sangam MN", "Tamil Sangam MN", "Thonburi",
    "Khmer Sangam MN", "Myanmar Sangam MN", "Kefa", "Kailasa", "Geeza Pro", "Arial Hebrew",
    # symbols and emoji, and what has a little of everything
    "Noto Sans Symbols", "Noto Sans Symbols 2", "Noto Sans Symbols2", "Noto Emoji", "Segoe UI Symbol", "Segoe UI Emoji",
    "Apple Symbols", "Symbola", "Noto Sans", "FreeSans", "FreeSerif", "Arial Unicode MS", "Unifont",
)


# ---- the page ----------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw with Matplotlib's defaults and our style on top, whatever the reader has set; then restore the settings.

    The fonts are a list, in which Matplotlib looks for each letter that the first one lacks, in every string of a figure. If
    they lack letters of the user's language, sentences are English instead of boxes, and a warning says so.
    """
    if missing := without_font(translated(OUTSIDE)):                # one of our sentences stands for all
        warnings.warn(
            _("no font on this machine has {letter}: figures are in English; install a font that has it, such as 'Noto Sans "
              "CJK SC' for Chinese (Debian, Ubuntu: fonts-noto-cjk), and delete Matplotlib's font cache", letter=min(missing)),
            stacklevel=1,                                               # the same for all figures, so Python shows one
        )
    settings = {"font.family": [SANS, *fallback_families()]}
    with spoken("en" if missing else None), matplotlib.style.context(["default", STYLE, settings]):
        yield


class Page(Figure):
    """A figure that a notebook shows when a cell ends with it, with or without `%matplotlib inline`."""

    @styled()
    def _repr_png_(self) -> bytes:
        """IPython calls it, unless Matplotlib's inline backend has given it its own function for figures."""
        drawn = io.BytesIO()
        self.savefig(drawn, format="png")
        return drawn.getvalue()


def page(height: float, caption: str | None, *notes: str, default: str = "", pixels: int = 0) -> Page:
    """An empty figure with room for `height` inches and, below it, its caption (the default if None) and the notes.

    It is as wide as all others, unless it needs more pixels.
    """
    said = default if caption is None else translated(caption, "lessons")
    whole = " ".join(filter(None, [said, *notes])).replace("。 ", "。")   # between Chinese sentences there is no space
    lines = wrapped(whole, 102)
    dots = max(matplotlib.rcParams["figure.dpi"], pixels / WIDTH)      # per inch
    figure = Page(figsize=(WIDTH, height + 0.17 * len(lines) + 0.1), dpi=dots)
    figure.supxlabel("\n".join(lines), x=0.012, ha="left", color="#333333", linespacing=1.25)
    return figure


def save(figure: Figure, path: Path | str) -> Path:
    """Write the figure and return its path. The file is written completely or not at all; the same figure gives the same bytes.

    The caption is also in the file's metadata, where a PNG and an SVG have their description, and a PDF its subject. Letters of
    an SVG are outlines, which need no font.

    Parameters
    ----------
    path : ends in .png, .svg or .pdf

    Raises
    ------
    TypeError
        if figure is not a Figure
    ValueError
        if the path ends in none of them
    IsADirectoryError
        if the path is a folder
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"figure must be a Figure, as the functions of tinymae.plot return, got {type(figure).__name__}")
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: add a file name, such as {path / 'figure.png'}")
    caption = figure.get_supxlabel()
    # Without dates and Matplotlib's version inside, the same figure gives the same bytes and git sees no change.
    metadata = {
        ".png": {"Software": None, "Description": caption},
        ".svg": {"Creator": None, "Date": None, "Description": caption},
        ".pdf": {"Creator": None, "Producer": None, "CreationDate": None, "Subject": caption},
    }
    suffix = path.suffix.lower()
    if suffix not in metadata:
        raise ValueError(_("the path must end in {suffixes}, got {path!r}", suffixes=either(metadata), path=str(path)))
    with styled(), whole_file(path) as file:
        figure.savefig(file, format=suffix[1:], metadata=metadata[suffix])
    return path


# ---- checks ------------------------------------------------------------------------------------------------------------

def check_numbers(name: str, value: ArrayLike, ranks: tuple[int, ...], shape: str, hint: str = "") -> np.ndarray:
    """`value` as a finite array of real numbers, not empty and of one of the ranks."""
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


def check_weights(name: str, value: ArrayLike, ranks: tuple[int, ...], shape: str, hint: str = "") -> np.ndarray:
    """Attention weights or probabilities: numbers in 0..1."""
    weights = check_numbers(name, value, ranks, shape, hint)
    if weights.min() < 0 or weights.max() > 1.001:                     # 1.001: half precision may round a sum upwards
        raise ValueError(
            f"{name} must lie in 0..1, got {weights.min():.4g}..{weights.max():.4g}: "
            "are these the scores before the softmax?"
        )
    return weights


def check_pictures(name: str, value: np.ndarray, ranks: tuple[int, ...], shape: str) -> np.ndarray:
    """uint8 images with 1 or 3 channels."""
    images = check_numbers(name, value, ranks, shape)
    if images.dtype != np.uint8:
        raise TypeError(
            f"{name} must be uint8 (0..255), got {images.dtype}: undo the normalisation of the input first, then "
            "np.clip(np.rint(255 * x), 0, 255).astype(np.uint8)"
        )
    if images.shape[-1] not in (1, 3):
        raise ValueError(
            f"{name} must have 1 or 3 channels on its last axis, got the shape {images.shape}; "
            "channels-first images need np.moveaxis(x, -3, -1)"
        )
    return images


def check_grid(name: str, count: int, grid: tuple[int, int], images: np.ndarray | None = None) -> tuple[int, int]:
    """(rows, cols) of a grid that has `count` patches, into which the images (..., rows, cols, C) divide."""
    if not (isinstance(grid, (tuple, list)) and len(grid) == 2 and all(isinstance(n, (int, np.integer)) for n in grid)):
        raise TypeError(f"grid must be a pair of whole numbers (rows, cols), got {grid!r}")
    rows, cols = map(int, grid)
    if rows < 1 or cols < 1 or rows * cols != count:
        hint = ": one too many, leave the class token (index 0) out" if count == rows * cols + 1 else ""
        raise ValueError(f"a grid of {rows} x {cols} has {rows * cols} patches, but {name} has {count}{hint}")
    if images is not None and (images.shape[-3] % rows or images.shape[-2] % cols):
        size = " x ".join(map(str, images.shape[-3:-1]))
        raise ValueError(f"an image of {size} does not divide into {rows} x {cols} equal patches")
    return rows, cols


def check_index(name: str, value: int, low: int, high: int, hint: str = "") -> int:
    """A whole number in low..high."""
    if not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number in {low}..{high}, got {value!r}{hint}")
    return int(value)


def check_top(name: str, value: float) -> float:
    """The top of a colour scale that starts at 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0, got {value!r}: it is the value with the strongest colour")
    return value


def check_token_names(
    name: str, tokens: Sequence | None, count: int, array: str = "weights", most: int = LABELLED
) -> list[str] | None:
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


# ---- letters -----------------------------------------------------------------------------------------------------------

def fallback_families() -> list[str]:
    """The FALLBACKS that are installed, in their order: Matplotlib logs each family that is not, or not in the usual weight."""
    installed = {entry.name for entry in font_manager.fontManager.ttflist
                 if font_manager.weight_dict.get(entry.weight, entry.weight) == 400}
    return [family for family in FALLBACKS if family in installed]


def without_font(text: str, families: Sequence[str] | None = None) -> set[str]:
    """The characters of a text that none of the font families has; by default, no font of the figures."""
    missing = set(text)
    for family in [SANS, *fallback_families()] if families is None else families:
        if missing:
            font = font_manager.get_font(font_manager.findfont(family, fallback_to_default=False))
            missing = {letter for letter in missing if not font.get_char_index(ord(letter))}
    return missing


def bold(text: str) -> dict:
    """Options for bold letters. Many Chinese fonts have no bold, and Matplotlib logs that, also if it needs none of them."""
    return {"weight": "normal"} if without_font(text.replace("\n", ""), [SANS]) else {"weight": "bold", "fontfamily": SANS}


def drawable(*sides: list[str] | None) -> tuple[list[list[str] | None], str]:
    """Lists of tokens (or None) as this machine can draw them.

    Line feeds and other control characters are escaped. Joiners and variation selectors that no font has are left out.

    Returns
    -------
    sides : the lists; a token with a character that no installed font has is its number, as in #3
    note : for the caption, "" if everything can be drawn; if not, there is a warning too
    """
    missing = without_font("".join(token for tokens in sides for token in tokens or ()))
    kinds = {letter: unicodedata.category(letter) for letter in missing}
    spelled = {letter: repr(letter)[1:-1] for letter, kind in kinds.items() if kind == "Cc"}
    spelled |= {letter: "" for letter, kind in kinds.items()
                if kind == "Cf" or unicodedata.name(letter, "").startswith("VARIATION SELECTOR")}
    missing -= spelled.keys()
    shown, numbered = [], []
    for tokens in sides:
        numbered += [i for i, token in enumerate(tokens or ()) if missing & set(token)]
        shown.append(tokens and [f"#{i}" if missing & set(token) else token.translate(str.maketrans(spelled))
                                 for i, token in enumerate(tokens)])
    if not numbered:
        return shown, ""
    codes = [f"U+{ord(letter):04X}" for letter in sorted(missing)]
    warnings.warn(
        _("no font on this machine has {codes}: tokens with them are numbered; install a font that has them, such as "
          "'Noto Sans CJK SC' for Chinese, Japanese and Korean (Debian, Ubuntu: fonts-noto-cjk) or 'Noto Emoji' for emoji, "
          "and delete Matplotlib's font cache",
          codes=", ".join(codes) if len(codes) <= 3 else _("{codes} and others", codes=", ".join(codes[:3]))),
        stacklevel=4,                                                  # past the figure and its @styled, to the caller
    )
    return shown, _("#{number} is token {number}, counted from 0: no font here has its characters.", number=numbered[0])


def is_wide(letter: str) -> bool:
    """Whether a letter takes the room of two, as Chinese, Japanese and Korean ones and emoji do."""
    return unicodedata.east_asian_width(letter) in "WF"


def longest(tokens: list[str]) -> int:
    """Letters of the longest token; a wide one counts twice."""
    return max(map(columns, tokens))


def wrapped(text: str, letters: int) -> list[str]:
    """Lines of at most this many letters; a wide one counts twice, and a line may end beside it, but for punctuation."""
    return in_lines(text, letters).splitlines()


def name_cells(
    ax: Axes, across: list[str] | None, down: list[str] | None, count: tuple[int, int], letters: float
) -> None:
    """Ticks of a heatmap: tokens, or numbers if there are none; upright if more than `letters` would stand below it."""
    for axis, tokens, n in ((ax.xaxis, across, count[1]), (ax.yaxis, down, count[0])):
        step = 1 if tokens else math.ceil(n / 10)
        axis.set_ticks(np.arange(0, n, step) + 0.5, tokens or np.arange(0, n, step))
    upright = across and longest(across) > letters / count[1]
    ax.tick_params("x", rotation=90 if upright else 0)
    keep_upright(ax)


def keep_upright(ax: Axes) -> None:
    """Single wide letters, such as Chinese ones, stand upright below an axis, also if longer tokens beside them are turned."""
    for label in ax.get_xticklabels():
        if len(label.get_text()) == 1 and is_wide(label.get_text()):
            label.set_rotation(0)


# ---- parts of a figure -------------------------------------------------------------------------------------------------

def heatmap(ax: Axes, array: np.ndarray, low: float, high: float, colours: str | matplotlib.colors.Colormap) -> QuadMesh:
    """A heatmap on ax with a fixed range; returns what a colour bar needs."""
    import seaborn as sns  # it imports pandas and scipy.stats, which take seconds: only if a heatmap is drawn

    sns.heatmap(array, ax=ax, vmin=low, vmax=high, cmap=colours, cbar=False, xticklabels=False, yticklabels=False)
    ax.spines[:].set_visible(True)
    return ax.collections[0]


def write_numbers(ax: Axes, array: np.ndarray, digits: int, dark: np.ndarray, size: float = 9) -> None:
    """The numbers of a small heatmap in its cells, white if dark (boolean, as array); an exact 0 is written as 0."""
    for (row, col), value in np.ndenumerate(array):
        text = f"{round(value, digits) + 0.0:.{digits}f}" if value else "0"            # + 0.0: no cell shows -0.0
        colour = "white" if dark[row, col] else "black"
        ax.text(col + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color=colour)


OUTSIDE = marked("Values run from {low:.3g} to {high:.3g}: those outside have the colour of the nearer end.")


def beyond(array: np.ndarray, low: float, high: float, note: str = OUTSIDE) -> tuple[str, str]:
    """The ends of a colour bar that get an arrow, and the note for the caption, if values lie outside the fixed range."""
    below, above = array.min() < low, array.max() > high
    if not (below or above):
        return "neither", ""
    extend = "both" if below and above else "min" if below else "max"
    return extend, translated(note).format(low=array.min(), high=array.max())


def colour_bar(
    figure: Figure, mesh: QuadMesh, axes: Axes | np.ndarray, ticks: Sequence[float], label: str, extend: str = "neither"
) -> None:
    """One colour bar for all axes, to the right of them and equally wide in figures of any height."""
    aspect = 6 * (figure.get_figheight() - 1)
    figure.colorbar(mesh, ax=axes, ticks=ticks, format="%.3g", label=label, extend=extend, pad=0.02, aspect=aspect)


def every_nth(
    count: int, steps: Sequence[int] = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000), most: int = 16
) -> np.ndarray:
    """Every step-th index, at most `most` of them."""
    step = next((step for step in steps if count <= step * most), max(steps[-1], -(-count // most)))
    return np.arange(0, count, step)


def legend_above(ax: Axes, columns: int) -> None:
    """The legend above the axes, where it covers nothing."""
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderaxespad=0.2, ncols=columns)


def show_image(ax: Axes, image: np.ndarray) -> None:
    """An image (rows, cols, C), uint8, without axes; C = 1 is drawn in grey."""
    ax.imshow(image[..., 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)
    ax.set_axis_off()
