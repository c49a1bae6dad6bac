"""What an attention mask does: the scores, the mask, and the attention weights after the softmax, side by side."""
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tinymae.messages import marked
from tinymae.messages import message as _
from tinymae.ops.softmax import softmax_forward
from tinymae.plot.style import (
    AMOUNT,
    LETTERS,
    SIGNED,
    beyond,
    check_numbers,
    check_token_names,
    drawable,
    heatmap,
    longest,
    name_cells,
    page,
    styled,
    write_numbers,
)

MASKED = 14                                     # more tokens than this cannot be read when three maps share a line
SCORES = 3.0                                    # scores are coloured from -3 to 3: q.k / sqrt(d_k) is mostly inside
SCORES_OUTSIDE = marked("Scores run from {low:.3g} to {high:.3g}: those outside have the colour of the nearer end.")


@styled()
def masks(
    scores: ArrayLike,
    mask: ArrayLike,
    queries: Sequence | None = None,
    keys: Sequence | None = None,
    *,
    caption: str | None = None,
) -> Figure:
    """What a mask does: scores | mask | attention weights after the softmax, whose rows still sum to 1.

    Parameters
    ----------
    scores : array_like of shape (Tq, Tk), q k^T / sqrt(d_k) of one head
    mask : boolean array_like of shape (Tq, Tk), True = may attend
    queries, keys : Tq and Tk tokens (at most 14), or None for numbers
    caption : replaces the text below the figure

    Raises
    ------
    TypeError, ValueError
        if the mask is not boolean, or its shape is not that of the scores

    Source: article C, section 5.1 (5 x 5, before and after the softmax); Vaswani et al. 2017, section 3.2.3.

    Differs: multiplying scores by a mask of 0 and 1 would leave zeros, to which the softmax gives weight; here, as in the
    paper, a hidden score becomes minus infinity.
    """
    hint = "; take one sequence and one head, as in scores[0, 0]" if np.ndim(scores) > 2 else ""
    scores, mask = check_numbers("scores", scores, (2,), "(Tq, Tk)", hint).astype(np.float64), np.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(f"mask must be boolean, True = may attend, got {mask.dtype}: write mask != 0")
    if mask.shape != scores.shape:
        raise ValueError(
            f"mask must have the shape of scores, {scores.shape}, got {mask.shape}: take the last two axes, as in "
            "causal_mask(T)[0, 0]; np.broadcast_to(padding_mask(ids)[0, 0], scores.shape)"
        )
    rows, cols = scores.shape
    queries = check_token_names("queries", queries, rows, "scores", MASKED)
    keys = check_token_names("keys", keys, cols, "scores", MASKED)
    (queries, keys), missing = drawable(queries, keys)
    weights, _cache = softmax_forward(scores, mask)
    extend, note = beyond(scores, -SCORES, SCORES, SCORES_OUTSIDE)
    lonely = "" if mask.any(axis=1).all() else _("A query that may attend to no key has weights of 0.")
    tall = max(1.7 * min(max(rows / cols, 0.4), 2.2), 0.16 * rows if queries else 0)
    below = 0.085 * longest(keys) if keys and longest(keys) > LETTERS / cols else 0.1       # inches for names of keys
    figure = page(tall + 0.95 + below, caption, note, lonely, missing, default=_(
        "How to read it: a row is a query, a column is a key. Left: the scores, red above 0 and blue below. Middle: white "
        "means that this query may attend to this key; grey means hidden, the score becomes minus infinity. Right: the "
        "weights after the softmax; a hidden key gets exactly 0, the weights of the others sum to 1."
    ))
    axes = figure.subplots(1, 3)
    meshes = [
        heatmap(axes[0], scores, -SCORES, SCORES, SIGNED),
        heatmap(axes[1], mask, 0, 1, ListedColormap(["#8a8a8a", "white"])),
        heatmap(axes[2], weights, 0, 1, AMOUNT),
    ]
    if max(rows, cols) <= 6:
        write_numbers(axes[0], scores, 1, np.abs(scores) > 0.6 * SCORES)
        write_numbers(axes[2], weights, 2, weights < 0.6)
    for ax, title in zip(axes, (_("scores"), _("mask"), _("weights after softmax")), strict=True):
        ax.set(title=title, xlabel=_("key (attended to)"))
        name_cells(ax, keys, queries, scores.shape, LETTERS)
    axes[0].set_ylabel(_("query (attends)"))
    for ax in axes[1:]:
        ax.set_yticks([])
    axes[1].hlines(np.arange(1, rows), 0, cols, color="#cccccc", linewidth=0.6)
    axes[1].vlines(np.arange(1, cols), 0, rows, color="#cccccc", linewidth=0.6)
    if tall >= 0.16 * rows:                                             # else the numbers would touch
        sums = axes[2].secondary_yaxis("right")
        sums.set_yticks(np.arange(rows) + 0.5, [f"{total:.3g}" for total in weights.sum(axis=1)])
        sums.set_ylabel(_("sum of the row"))
        sums.tick_params(length=0)
    figure.colorbar(meshes[0], ax=axes[0], location="bottom", ticks=[-SCORES, 0, SCORES], format="%.3g", extend=extend,
                    aspect=12, label=_("score"))
    key = figure.colorbar(meshes[1], ax=axes[1], location="bottom", ticks=[0.25, 0.75], aspect=12, label=_("mask"))
    key.ax.set_xticklabels([_("hidden"), _("may attend")])
    figure.colorbar(meshes[2], ax=axes[2], location="bottom", ticks=[0, 0.5, 1], format="%.3g", aspect=12,
                    label=_("weight"))
    return figure
