"""Images: what a masked autoencoder reconstructs, and how it shuffles the patches and puts them back."""
import math

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tinymae.messages import message as _
from tinymae.plot.style import COLOURS, WIDTH, bold, check_grid, check_index, check_pictures, page, show_image, styled, wrapped

LARGEST_PAGE = 2000                                   # pixels, of a page with large images


@styled()
def reconstructions(
    masked: np.ndarray,
    reconstruction: np.ndarray,
    pasted: np.ndarray,
    original: np.ndarray,
    *,
    title: str = "",
    caption: str | None = None,
    mode: str = "",
) -> Figure:
    """What a masked autoencoder reconstructs: one row per image, masked | + visible | reconstruction | original.

    One image alone is drawn larger, as two rows of two: with up to about 970 pixels across for each, if it has as many.

    Parameters
    ----------
    masked, reconstruction, pasted, original : uint8 arrays of shape (B, rows, cols, C), C = 1 (drawn in grey) or 3.
        `pasted` is the reconstruction with the visible patches put back. Four images fill half a screen
    title : above the figure
    caption : replaces the text below the figure
    mode : written in a coloured bar above the images. Say here what the reconstruction takes from the true image, such as
        "normalised pixels: per-patch mean and variance taken from the true image"

    Raises
    ------
    TypeError, ValueError
        if an array is not uint8 or the four shapes differ

    Source: He et al. 2022, figures 2-4; article A, opening figures.

    Differs: the paper's figures have three columns; here the reconstruction is shown with the visible patches and without
    them, because the plain one looks worse where patches were visible (the loss does not train it there).
    """
    named = {"masked": masked, "reconstruction": reconstruction, "pasted": pasted, "original": original}
    arrays = [check_pictures(name, array, (4,), "(B, rows, cols, C)") for name, array in named.items()]
    for name, array in zip(named, arrays, strict=True):
        if array.shape != arrays[-1].shape:
            raise ValueError(
                f"{name} has the shape {array.shape}, but original {arrays[-1].shape}: all four show the same images"
            )
    heads = (_("masked"), _("reconstruction + visible"), _("reconstruction"), _("original"))
    arrays[1], arrays[2] = arrays[2], arrays[1]
    count, height, width, _channels = arrays[0].shape
    alone = count == 1 and height <= 2 * width
    columns = 2 if alone else 4
    # Everything here has a known size, so it is placed by hand, in inches from the top left; all gaps are equal.
    gap, head_high = 0.07, 0.22
    wide = (WIDTH - (columns + 1) * gap) / columns
    high = wide * height / width
    banner = wrapped(mode, 80)
    strip = 0.2 * len(banner) + 0.14 if banner else 0.0
    top = (0.32 if title else gap) + (strip + gap if banner else 0)
    below = high + gap + head_high * alone                              # from one row to the next
    if alone:
        read = _("How to read it: the model's input is only what is visible in the first image; compare the second image with "
                 "the last. The speckles in the third image are the visible patches as the model predicts them: the loss "
                 "counts removed patches only, so it never learns to. The second image shows the true ones there.")
    else:
        read = _(
            "How to read it: each row is one image. The model's input is only what is visible in the first column; compare the "
            "second column with the last. The speckles in the third column are the visible patches as the model predicts them: "
            "the loss counts removed patches only, so it never learns to. The second column shows the true ones there."
        )
    figure = page(top + head_high + (1 if alone else count - 1) * below + high + gap, caption, default=read,
                  pixels=min(math.ceil(width * WIDTH / wide), LARGEST_PAGE))
    figure.set_layout_engine("none")
    total = figure.get_figheight()
    if title:
        figure.suptitle(title, y=1 - 0.08 / total, va="top", **bold(title))
    if banner:
        y = 1 - (top - gap) / total
        ax = figure.add_axes((gap / WIDTH, y, 1 - 2 * gap / WIDTH, strip / total), facecolor="#ffc20a")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="black", linewidth=1.5)
        ax.text(0.5, 0.5, "\n".join(banner), ha="center", va="center", fontsize=10.5, **bold("".join(banner)))
    for column, (head, array) in enumerate(zip(heads, arrays, strict=True)):
        x = gap + column % columns * (wide + gap)
        for row, image in enumerate(array, start=column // columns):
            y = total - top - head_high - row * below - high
            ax = figure.add_axes((x / WIDTH, y / total, wide / WIDTH, high / total))
            show_image(ax, image)
            if row == 0 or alone:
                ax.set_title(head)
    return figure


@styled()
def shuffle(
    image: np.ndarray,
    ids_shuffle: ArrayLike,
    ids_restore: ArrayLike,
    kept: int,
    grid: tuple[int, int],
    *,
    caption: str | None = None,
) -> Figure:
    """How a masked autoencoder hides patches and puts them back: shuffle, cut, add mask tokens, unshuffle.

    Parameters
    ----------
    image : uint8 array of shape (rows, cols, C), C = 1 or 3
    ids_shuffle : integer array_like of shape (N,), a permutation: ids_shuffle[j] is the patch at position j of the shuffle
    ids_restore : integer array_like of shape (N,), a permutation: position n of the image takes the token ids_restore[n].
        It is drawn as given: if it is not the inverse of ids_shuffle, patches are drawn at wrong positions
    kept : K, 1 <= K < N, how many of the shuffled patches stay visible
    grid : (rows, cols) of patches, rows * cols = N, at most 16: smaller patches cannot be read
    caption : replaces the text below the figure

    Raises
    ------
    TypeError, ValueError
        if the arrays do not fit the grid or each other, or the image does not divide into it

    Source: He et al. 2021, section 3, "simple implementation"; their code, `random_masking` and `forward_decoder`.
    """
    image, count = check_pictures("image", image, (3,), "(rows, cols, C)"), np.size(ids_shuffle)
    rows, cols = check_grid("ids_shuffle", count, grid, image)
    if not 2 <= count <= 16:
        raise ValueError(f"expected 2 to 16 patches, which can be read, got {count}")
    kept = check_index("kept", kept, 1, count - 1, ": some patches stay visible, and some are removed")
    for name, ids in (("ids_shuffle", ids_shuffle), ("ids_restore", ids_restore)):
        if np.asarray(ids).dtype.kind not in "iu" or not np.array_equal(np.sort(ids), np.arange(count)):
            raise ValueError(f"{name} must hold the integers 0..{count - 1} once each, got {np.asarray(ids).tolist()}: is it "
                             "ids_keep, or the mask?")
    size = (image.shape[0] // rows, image.shape[1] // cols)
    tiles = image.reshape(rows, size[0], cols, size[1], -1).swapaxes(1, 2).reshape(count, *size, -1)
    order, restore = list(range(count)), np.asarray(ids_restore)
    shuffled = [int(patch) for patch in ids_shuffle]
    tokens = [patch if position < kept else None for position, patch in enumerate(shuffled)]    # None: the mask token
    restored = [tokens[position] for position in restore]
    figure = page(5.0, caption, default=_(
        "How to read it: from the top to the bottom. A number is the position of a patch in the image; M is the mask token, "
        "one for all removed patches. Blue lines belong to visible patches, grey lines to removed patches. The unshuffle is "
        "correct if each number in the last row is directly below the same number in the first row."
    ))
    left, right = figure.subfigures(1, 2, width_ratios=(1, 3.4))
    for ax, title, patches in zip(left.subplots(2, 1), (_("the image"), _("for the decoder")), (order, restored), strict=True):
        for position, patch in enumerate(patches):
            _tile(ax, tiles, patch, position % cols, position // cols, 1.0)
        ax.set(title=title, xlim=(0, cols), ylim=(rows, 0), aspect=size[0] / size[1])
        ax.set_axis_off()
    ax = right.subplots()
    side, step = 0.82, 2.05
    inverse = all(patch == position for position, patch in enumerate(np.asarray(ids_shuffle)[restore]))
    last = _("unshuffled: each position takes its token") if inverse else _("not unshuffled: positions take tokens of others")
    names = (_("patches in the order of the image"),
             _("shuffled; the first {count} stay visible, the others are removed", count=kept),
             _("encoded, followed by mask tokens"), last)
    for row, (name, patches) in enumerate(zip(names, (order, shuffled, tokens, restored), strict=True)):
        ax.text(0, row * step - 0.12, name, va="bottom", fontsize=9, color="#333333", zorder=3,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        for position, patch in enumerate(patches):
            _tile(ax, tiles, patch, position, row * step, side, faded=row == 1 and position >= kept)
    moves = (                                                          # (from, to, position in the shuffle)
        [(shuffled[j], j, j) for j in order], [(j, j, j) for j in order], [(int(restore[n]), n, restore[n]) for n in order],
    )
    for row, lines in enumerate(moves):
        for start, end, position in lines:
            visible = position < kept
            ax.plot([start + side / 2, end + side / 2], [row * step + side, (row + 1) * step], zorder=2 if visible else 1,
                    color=COLOURS[0] if visible else "#bbbbbb", linewidth=1.6 if visible else 0.9)
    ax.set(xlim=(-0.05, count), ylim=(3 * step + side + 0.05, -0.5), aspect="equal")
    ax.set_axis_off()
    return figure


def _tile(ax, tiles, patch, x, y, side, *, faded=False):
    """One patch with its number, or the mask token if patch is None, with its top left corner at (x, y)."""
    frame = (x, x + side, y + side, y)
    if patch is None:
        ax.imshow(np.full((1, 1, 3), 200, np.uint8), extent=frame)
    else:
        tile = tiles[patch] if tiles.shape[-1] == 3 else tiles[patch].repeat(3, axis=-1)
        ax.imshow(tile, extent=frame, alpha=0.25 if faded else 1.0)
    ax.text(x + side / 2, y + side / 2, "M" if patch is None else str(patch), ha="center", va="center", fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.2})
