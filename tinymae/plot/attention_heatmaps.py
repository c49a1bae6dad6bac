"""Attention: heatmaps of each head, lines between tokens, and attention weights laid over an image."""
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from tinymae.messages import message as _
from tinymae.plot.attention_html import write_attention_page
from tinymae.plot.style import (
    AMOUNT,
    COLOURS,
    WIDTH,
    beyond,
    bold,
    check_grid,
    check_index,
    check_pictures,
    check_token_names,
    check_top,
    check_weights,
    colour_bar,
    drawable,
    every_nth,
    heatmap,
    keep_upright,
    longest,
    page,
    show_image,
    styled,
    write_numbers,
)

ROOM_FOR_NUMBERS = (0.34, 0.18)                             # inches, width and height, in which 0.25 can be read


@styled()
def attention(
    weights: ArrayLike,
    queries: Sequence | None = None,
    keys: Sequence | None = None,
    *,
    caption: str | None = None,
    vmax: float = 1.0,
    html: Path | str | None = None,
) -> Figure:
    """Attention weights as one heatmap per head: a row is a query, a column a key, all heads in one colour scale.

    Parameters
    ----------
    weights : array_like of shape (H, Tq, Tk) or (Tq, Tk), after the softmax, so 0..1
    queries, keys : Tq and Tk tokens to write at the rows and columns (at most 40), or None for numbers. Chinese tokens need a
        font that has them; without one they are numbered, and a warning and the caption say so
    caption : replaces the text below the figure
    vmax : the top of the colour scale. ``weights.max()`` makes small weights visible; figures then differ in scale
    html : also write a page for the browser, one .html file that needs no network: point at a token, tap it or go to it with
        the arrow keys, and see its lines and its weights in each head

    Raises
    ------
    TypeError, ValueError
        if the weights have a different rank, lie outside 0..1, or do not fit the tokens, or html does not end in .html

    Source: Vaswani et al. 2017, equation 1 and figures 3-5; article A, part 2; article C, 5.1; article D,
    self-attention.

    Differs: articles and libraries often fit the colours to the weights of one figure, so the same colour is a different
    weight in the next figure; here the range is fixed.
    """
    rank = np.ndim(weights)
    hint = "; take one sequence of the batch, as in weights[0]" if rank == 4 else ""
    weights = check_weights("weights", weights, (2, 3), "(H, Tq, Tk) or (Tq, Tk)", hint)
    check_top("vmax", vmax)
    weights = weights.reshape(-1, *weights.shape[-2:])
    heads, count_q, count_k = weights.shape
    queries, keys = check_token_names("queries", queries, count_q), check_token_names("keys", keys, count_k)
    if html is not None:
        write_attention_page(html, weights, queries, keys, vmax)
    extend, note = beyond(np.minimum(weights, 1), 0, vmax)
    (queries, keys), missing = drawable(queries, keys)
    across = 0.085 * (longest(keys) if keys else 1)                     # inches
    most = 4 if keys is None else max(1, min(4, int(5.8 / (0.16 * count_k))))      # 0.16 inches: a line of 9 points
    full = [n for n in range(1, most + 1) if heads % n == 0 and 2 * n >= most]     # columns that leave no panel empty
    columns = min(max(full, default=most), heads)
    lines = math.ceil(heads / columns)
    side = 6.0 / columns
    height = max(min(side * count_q / count_k, 4.0, 7.0 / lines), 0.8, 0.16 * count_q if queries else 0)
    upright = keys is not None and across > 0.9 * side / count_k
    figure = page(lines * (height + 0.25) + 0.5 + (across if upright else 0.1), caption, note, missing,
                  default=_how_to_read_attention(vmax, several=rank == 3))
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for head, ax in enumerate(axes):
        if head >= heads:
            ax.set_axis_off()
            continue
        mesh = heatmap(ax, weights[head], 0, vmax, AMOUNT)
        if rank == 3:
            ax.set_title(_("head {number}", number=head))
        if head + columns >= heads:                                    # nothing below this map: it carries the labels
            at = every_nth(count_k, most=max(3, 16 // columns)) if keys is None else np.arange(count_k)
            ax.set_xticks(at + 0.5, at if keys is None else keys, rotation=90 if upright else 0)
            keep_upright(ax)
            ax.set_xlabel(_("key (attended to)"))
        if head % columns == 0:
            at = every_nth(count_q, most=max(3, int(4 * height))) if queries is None else np.arange(count_q)
            ax.set_yticks(at + 0.5, at if queries is None else queries, rotation=0)
            ax.set_ylabel(_("query (attends)"))
    colour_bar(figure, mesh, axes, np.linspace(0, vmax, 5), _("attention weight"), extend)
    _write_weights(figure, axes[:heads], weights, vmax)
    return figure


def _how_to_read_attention(vmax, several):
    """The caption of `attention`, for several heads or one matrix."""
    if several and vmax == 1:
        return _("How to read it: each map is one head, each row is one query and shows its attention weights for the keys. "
                 "The colours run from 0 to 1, the same for all heads.")
    if several:
        return _("How to read it: each map is one head, each row is one query and shows its attention weights for the keys. "
                 "The colours run from 0 to {top:.3g} (not to 1), the same for all heads.", top=vmax)
    if vmax == 1:
        return _("How to read it: each row is one query and shows its attention weights for the keys. The colours run from 0 "
                 "to 1.")
    return _("How to read it: each row is one query and shows its attention weights for the keys. The colours run from 0 to "
             "{top:.3g} (not to 1).", top=vmax)


def _write_weights(figure, axes, weights, vmax):
    """Write the weights (H, Tq, Tk) into the cells of the heads, if there is room: it depends on the names beside them."""
    if WIDTH / weights.shape[2] < ROOM_FOR_NUMBERS[0]:
        return                                                          # not even one head on a whole page
    figure.draw_without_rendering()                                     # this fixes the sizes of the axes
    cell = axes[0].bbox.size / figure.dpi / weights.shape[:0:-1]        # inches, (width, height)
    if (cell >= ROOM_FOR_NUMBERS).all():
        for ax, head in zip(axes, weights, strict=True):
            write_numbers(ax, head, 2, head < 0.6 * vmax)


@styled()
def attention_over_picture(
    image: np.ndarray,
    class_attention: ArrayLike,
    patch_attention: ArrayLike,
    patch: int,
    grid: tuple[int, int],
    *,
    caption: str | None = None,
) -> Figure:
    """What a vision Transformer attends to: the attention weights of the patches, laid over the image, per head and mean.

    Parameters
    ----------
    image : uint8 array of shape (rows, cols, C), C = 1 or 3
    class_attention : array_like of shape (H, N), the row of the class token: its weights for the N patches
    patch_attention : array_like of shape (H, N), the row of one patch. Both come without the column of the class token, so
        a row sums to less than 1
    patch : 0 <= patch < N, the patch of `patch_attention`; outlined in the image
    grid : (rows, cols) of patches, rows * cols = N
    caption : replaces the text below the figure

    Raises
    ------
    TypeError, ValueError
        if the arrays do not fit the grid or each other, or the image does not divide into it

    Source: Dosovitskiy et al. 2021, figure 6, and Caron et al. 2021 (DINO), figure 1, draw the attention of the class token.

    Differs: they draw one layer per image, or the rollout of all layers; this draws the rows it is given, in one scale.
    """
    image = check_pictures("image", image, (3,), "(rows, cols, C)")
    rank_hint = "; take one image of the batch and one query, as in weights[0, :, 0, 1:]"
    from_class = check_weights("class_attention", class_attention, (2,), "(H, N)", rank_hint)
    from_patch = check_weights("patch_attention", patch_attention, (2,), "(H, N)", rank_hint)
    if from_class.shape != from_patch.shape:
        raise ValueError(
            f"class_attention has the shape {from_class.shape} and patch_attention {from_patch.shape}: both are "
            "(H, N), rows of one layer's weights without the column of the class token"
        )
    heads, count = from_class.shape
    rows, cols = check_grid("the attention", count, grid, image)
    patch = check_index("patch", patch, 0, count - 1, "; leave the class token out")
    height, width = image.shape[:2]
    top = float(max(from_class.max(), from_patch.max())) or 1.0         # if all weights are 0, any scale shows it
    lines = math.ceil((heads + 1) / 5)
    columns = math.ceil((heads + 1) / lines)
    left = 2.0                                                         # inches
    side = min((WIDTH - left - 0.5) / columns, 2.0) - 0.1
    tall = max(2 * (lines * (side * height / width + 0.3) + 0.25), left * height / width + 1.0)
    figure = page(tall, caption, default=_(
        "How to read it: the brighter a patch, the larger its attention weight, in the row of the class token (above) and in "
        "that of the patch in the blue frame (below). All maps share one scale, from 0 to the largest weight, {top:.3g}; if "
        "the {count} patches and the class token were attended to alike, each would have a weight of {each:.2g}.",
        top=top, count=count, each=1 / (count + 1),
    ))
    left_part, right_part = figure.subfigures(1, 2, width_ratios=(left, WIDTH - left))
    for part, name, weights in zip(
        right_part.subfigures(2, 1),
        (_("from the class token"), _("from the patch in the frame")),
        (from_class, from_patch),
        strict=True,
    ):
        part.suptitle(name, fontsize=10.5, **bold(name))
        axes = part.subplots(lines, columns, squeeze=False).ravel()
        for ax in axes:
            ax.set_axis_off()
        maps = {_("mean"): weights.mean(axis=0), **{_("head {number}", number=head): w for head, w in enumerate(weights)}}
        for ax, (title, w) in zip(axes, maps.items(), strict=False):   # the last line may have empty panels
            overlay = _lay_over(ax, image, w.reshape(rows, cols), top)
            ax.set_title(title, fontsize=9)

    tall_image = left * height / width
    rest = max(tall - tall_image - 1.0, 0.01)
    shown, bar, empty = left_part.subplots(3, 1, height_ratios=[tall_image, 0.14, rest])
    empty.set_axis_off()
    show_image(shown, image)
    row, col = divmod(patch, cols)
    corner = (col * width / cols - 0.5, row * height / rows - 0.5)
    shown.add_patch(Rectangle(corner, width / cols, height / rows, fill=False, edgecolor="#00b0ff", linewidth=2.2))
    shown.set_title(_("image, patch {number}", number=patch))
    left_part.colorbar(overlay, cax=bar, orientation="horizontal", ticks=[0, top / 2, top], format="%.3g",
                       label=_("attention weight"))
    bar.set_facecolor(str(_dimmed(image).mean() / 255))                # the same grey behind the see-through colours
    return figure


def _dimmed(image):
    """(rows, cols), grey and dark: in what is laid over it, bright means attention."""
    return 10 + 0.3 * image.mean(axis=2)


def _lay_over(ax, image, weights, top):
    """Draw weights (grid rows, grid cols) over an image, brightest at top; return what a colour bar needs."""
    height, width = image.shape[:2]
    ramp = np.linspace(0, 1, 256)
    colours = matplotlib.colormaps["inferno"](0.45 + 0.55 * ramp)
    colours[:, 3] = 0.95 * ramp**0.6                                  # a small weight leaves the image visible
    ax.imshow(_dimmed(image), cmap="gray", vmin=0, vmax=255)
    frame = (-0.5, width - 0.5, height - 0.5, -0.5)                    # the patches cover the image
    return ax.imshow(weights, extent=frame, cmap=ListedColormap(colours), vmin=0, vmax=top, interpolation="nearest")


@styled()
def rollout_over_pictures(
    images: np.ndarray, rollout: ArrayLike, grid: tuple[int, int], *, caption: str | None = None
) -> Figure:
    """What reaches the class token through all layers: each image, and below it the rollout laid over it.

    Parameters
    ----------
    images : uint8 array of shape (B, rows, cols, C), C = 1 or 3
    rollout : array_like of shape (B, N), the row of the class token in `attention_rollout`, without its own column
    grid : (rows, cols) of patches, rows * cols = N
    caption : replaces the text below the figure

    Raises
    ------
    TypeError, ValueError
        if the arrays do not fit the grid or each other, or the images do not divide into it

    Source: Abnar & Zuidema 2020; Dosovitskiy et al. 2020, figure 6, draw it in this way.

    Differs: they brighten the image by the rollout; here its colours are laid over the image, each image in its own scale,
    from 0 to its largest value.
    """
    images = check_pictures("images", images, (4,), "(B, rows, cols, C)")
    rollout = check_weights("rollout", rollout, (2,), "(B, N)", "; take the class token's row, as in rollout[:, 0, 1:]")
    if len(rollout) != len(images):
        raise ValueError(f"rollout has {len(rollout)} rows for {len(images)} images: one for each")
    rows, cols = check_grid("the rollout", rollout.shape[1], grid, images)
    count, height, width, _channels = images.shape
    columns = min(count, 6)
    lines = math.ceil(count / columns)
    side = min((WIDTH - 0.2) / columns, 2.4)
    figure = page(lines * 2 * (side * height / width + 0.25), caption, default=_(
        "How to read it: the brighter a patch, the more of it reaches the class token through all layers together. Each "
        "image has its own scale, from 0 (dark) to its brightest patch; if all patches contributed equally, each of the "
        "{count} would have {each:.2g}.",
        count=rows * cols, each=1 / (rows * cols),
    ))
    axes = figure.subplots(2 * lines, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, (image, row) in enumerate(zip(images, rollout, strict=True)):
        line, column = divmod(i, columns)
        below = axes[2 * line + 1, column]
        show_image(axes[2 * line, column], image)
        top = float(row.max()) or 1.0
        _lay_over(below, image, row.reshape(rows, cols), top)
        below.set_title(_("up to {top:.2g}", top=top), fontsize=9)
    return figure


@styled()
def attention_lines(
    tokens: Sequence, weights: ArrayLike, query: int, keys: Sequence | None = None, *, caption: str | None = None
) -> Figure:
    """The attention of one token to all tokens as lines: a colour for each head; the wider a line, the larger the weight.

    Parameters
    ----------
    tokens : Tq tokens, at most 40
    weights : array_like of shape (H, Tq, Tk), after the softmax; at most 8 heads
    query : index of the token that attends
    keys : Tk tokens that are attended to, or None if they are the same tokens (self-attention)
    caption : replaces the text below the figure

    Raises
    ------
    TypeError, ValueError
        if the weights have a different rank, lie outside 0..1 or do not fit the tokens, or query is not one of them

    Source: article D, self-attention ("The animal didn't cross the street because it was too tired": "it" attends, with one
    head, two heads, all heads); Vaswani et al. 2017, figures 3 to 5.

    Differs: they show a weight by the opacity of a line; here by its width, which can be compared with the legend.
    """
    hint = "; take one sequence of the batch, as in weights[0]; one head is weights[0, :1]" if np.ndim(weights) != 3 else ""
    weights = check_weights("weights", weights, (3,), "(H, Tq, Tk)", hint)
    heads, count_q, count_k = weights.shape
    if heads > len(COLOURS):
        raise ValueError(f"weights have {heads} heads; more than {len(COLOURS)} colours cannot be told apart: take weights[:8]")
    same = keys is None
    left = check_token_names("tokens", tokens, count_q)
    right = check_token_names("tokens" if same else "keys", tokens if same else keys, count_k)
    query = check_index("query", query, 0, count_q - 1, ": tokens.index('it') finds one")
    (left, right), missing = drawable(left, right)
    row = weights[:, query]                                             # (H, Tk)
    read = _(
        'How to read it: "{token}" in the yellow box attends to the tokens on the right. A line is the attention of one head '
        "to one token; its width is the attention weight.", token=left[query],
    )
    if np.allclose(row.sum(axis=1), 1, atol=0.01):                      # not if the caller has cut the keys
        read += " " + _("The weights of one colour sum to 1.")
    widest = 9.0                                                        # points, for a weight of 1
    rows = max(count_q, count_k)
    figure = page(0.24 * rows + 0.75, caption, missing, default=read)
    ax = figure.subplots()
    ax.set_axis_off()
    ax.set(xlim=(-0.9, 1.9), ylim=(rows - 0.4, -0.6))
    for y, token in enumerate(left):
        # Not in bold: many Chinese fonts have no bold, and Matplotlib logs that each time.
        look = {"color": "black", "bbox": {"facecolor": "#ffe08a", "edgecolor": "none", "pad": 2}}
        ax.text(-0.03, y, token, ha="right", va="center", fontsize=10.5,
                **(look if y == query else {"color": "#777777"}))
    for y, token in enumerate(right):
        ax.text(1.03, y, token, ha="left", va="center", fontsize=10.5, color="black")
    spread = (np.arange(heads) - (heads - 1) / 2) * 0.7 / max(heads, 4)                # heads end side by side
    for head, key in sorted(np.ndindex(row.shape), key=lambda at: -row[at]):           # thin lines over wide ones
        if row[head, key] > 0:
            ax.plot([0, 1], [query + spread[head], key + spread[head]], color=COLOURS[head], alpha=0.75,
                    linewidth=widest * row[head, key], solid_capstyle="butt")
    handles = [Line2D([], [], color=COLOURS[head], linewidth=4, label=_("head {number}", number=head)) for head in range(heads)]
    handles += [
        Line2D([], [], color="#999999", linewidth=widest * weight, label=_("weight {weight:g}", weight=weight),
               solid_capstyle="butt")
        for weight in (0.1, 0.5, 1.0)
    ]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(0.86, 0.5), frameon=False, borderaxespad=0)
    return figure
