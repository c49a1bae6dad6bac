"""Images drawn: rows of masked, reconstruction and original; the shuffle of a masked autoencoder."""
import textwrap

import numpy as np

from tinymae.plot.style import COLOURS, WIDTH, check_images, page, styled


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
    arrays = [check_images(name, array, (4,), "(B, rows, cols, C)") for name, array in named.items()]
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
