"""Pictures for text: masks, attention as lines, what a model says against what it should, positions as clocks, schedules.

As in `plot`: arrays in, a Matplotlib Figure out, with fixed ranges and a caption that says how to read it; `plot.save` writes
it. A Chinese token is drawn with a font that has it; where this machine has none, tokens are numbered, and one warning says
which font to install. Positions and heads are counted from 0; training steps from 1, as in `optim.noam`.
"""
import math

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Arc, Circle

from tinymae.ops.softmax import softmax_forward
from tinymae.plot import (
    AMOUNT,
    SIGNED,
    beyond,
    check_numbers,
    check_tokens,
    check_weights,
    colour_bar,
    drawable,
    heatmap,
    keep_upright,
    page,
    styled,
)

MASKED = 14                                     # more written tokens than this cannot be read when three maps share a line
BESIDE = 18                                     # nor more than this when two do
LETTERS = 24                                    # as many fit side by side below one of three maps
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#555555")   # heads, curves
SCORES = 3.0                                    # scores are coloured from -3 to 3: q.k / sqrt(d_k) is mostly within


def write_numbers(ax, array, digits, dark, size=9):
    """The numbers of a small heatmap in its cells, white where dark (boolean, as array); what is exactly 0 is a bare 0."""
    for (row, col), value in np.ndenumerate(array):
        text = f"{round(value, digits) + 0.0:.{digits}f}" if value else "0"            # + 0.0: no cell says -0.0
        colour = "white" if dark[row, col] else "black"
        ax.text(col + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color=colour)


def _longest(tokens):
    """Letters of the longest token; a Chinese one counts twice."""
    return max(sum(1 + (letter > "\u2e80") for letter in token) for token in tokens)


def _name_cells(ax, across, down, count, fonts, letters):
    """Ticks of a heatmap: tokens, or numbers where there are none; upright where `letters` do not fit below it."""
    for axis, tokens, n in ((ax.xaxis, across, count[1]), (ax.yaxis, down, count[0])):
        step = 1 if tokens else math.ceil(n / 10)
        axis.set_ticks(np.arange(0, n, step) + 0.5, tokens or np.arange(0, n, step), **fonts)
    upright = across and _longest(across) > letters / count[1]
    ax.tick_params("x", rotation=90 if upright else 0)
    keep_upright(ax)


@styled()
def masks(scores, mask, queries=None, keys=None, caption=None):
    """What a mask does: scores | mask | attention weights after the softmax, whose rows still sum to 1.

    Parameters
    ----------
    scores : array_like of shape (Tq, Tk), q k^T / sqrt(d_k) of one head
    mask : boolean array_like of shape (Tq, Tk), True = may attend
    queries, keys : sequences of Tq and Tk tokens (at most 14), or None for numbers
    caption : str, replaces the text under the picture

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where the mask is not boolean, or has another shape than the scores

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
    queries = check_tokens("queries", queries, rows, "scores", MASKED)
    keys = check_tokens("keys", keys, cols, "scores", MASKED)
    (queries, keys), fonts, missing = drawable(queries, keys)
    weights, _ = softmax_forward(scores, mask)
    extend, note = beyond(scores, -SCORES, SCORES)
    note = note.replace("Values", "Scores")
    if caption is None:
        caption = (
            "How to read it: a row is a query, a column a key. Left the scores, red above 0 and blue below. In the middle, "
            "white: this query may look at this key; grey: hidden, its score becomes minus infinity. Right what the softmax "
            "makes of it: a hidden key gets exactly 0, the others share out 1."
        )
    if not mask.any(axis=1).all():
        note += " A query that may look at nothing gets zeros."
    tall = max(1.7 * min(max(rows / cols, 0.4), 2.2), 0.16 * rows if queries else 0)
    below = 0.085 * _longest(keys) if keys and _longest(keys) > LETTERS / cols else 0.1       # inches for names of keys
    figure = page(tall + 0.95 + below, caption + note + missing)
    axes = figure.subplots(1, 3)
    meshes = [
        heatmap(axes[0], scores, -SCORES, SCORES, SIGNED),
        heatmap(axes[1], mask, 0, 1, ListedColormap(["#8a8a8a", "white"])),
        heatmap(axes[2], weights, 0, 1, AMOUNT),
    ]
    if max(rows, cols) <= 6:
        write_numbers(axes[0], scores, 1, np.abs(scores) > 0.6 * SCORES)
        write_numbers(axes[2], weights, 2, weights < 0.6)
    for ax, title in zip(axes, ("scores", "mask", "weights after softmax"), strict=True):
        ax.set(title=title, xlabel="key (is looked at)")
        _name_cells(ax, keys, queries, scores.shape, fonts, LETTERS)
    axes[0].set_ylabel("query (looks)")
    for ax in axes[1:]:
        ax.set_yticks([])
    axes[1].hlines(np.arange(1, rows), 0, cols, color="#cccccc", linewidth=0.6)
    axes[1].vlines(np.arange(1, cols), 0, rows, color="#cccccc", linewidth=0.6)
    if tall >= 0.16 * rows:                                             # else the numbers would touch
        sums = axes[2].secondary_yaxis("right")
        sums.set_yticks(np.arange(rows) + 0.5, [f"{total:.3g}" for total in weights.sum(axis=1)])
        sums.set_ylabel("sum of the row")
        sums.tick_params(length=0)
    figure.colorbar(meshes[0], ax=axes[0], location="bottom", ticks=[-SCORES, 0, SCORES], format="%.3g", extend=extend,
                    aspect=12, label="score")
    key = figure.colorbar(meshes[1], ax=axes[1], location="bottom", ticks=[0.25, 0.75], aspect=12, label="mask")
    key.ax.set_xticklabels(["hidden", "may look"])
    figure.colorbar(meshes[2], ax=axes[2], location="bottom", ticks=[0, 0.5, 1], format="%.3g", aspect=12, label="weight")
    return figure


@styled()
def attention_lines(tokens, weights, word, keys=None, caption=None):
    """Attention from one word to all words as lines: a colour for each head, the wider the more.

    Parameters
    ----------
    tokens : sequence of Tq tokens, 40 at most
    weights : array_like of shape (H, Tq, Tk), after the softmax; at most 8 heads
    word : int, index of the word that looks
    keys : sequence of Tk tokens that are looked at, or None where they are the same tokens (self-attention)
    caption : str, replaces the text under the picture

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where the weights have another rank, lie outside 0..1 or do not fit the tokens, or word is not one of them

    Source: article D, self-attention ("The animal didn't cross the street because it was too tired": "it" looks, with one
    head, two heads, all heads); Vaswani et al. 2017, figures 3 to 5.

    Differs: theirs show a weight by how opaque a line is; here by its width, which can be compared with the legend's.
    """
    hint = "; take one sequence of the batch, as in weights[0]; one head is weights[0, :1]" if np.ndim(weights) != 3 else ""
    weights = check_weights("weights", weights, (3,), "(H, Tq, Tk)", hint)
    heads, count_q, count_k = weights.shape
    if heads > len(COLOURS):
        raise ValueError(f"weights have {heads} heads; more than {len(COLOURS)} colours cannot be told apart: take weights[:8]")
    same = keys is None
    left = check_tokens("tokens", tokens, count_q)
    right = check_tokens("tokens" if same else "keys", tokens if same else keys, count_k)
    if not isinstance(word, (int, np.integer)) or not 0 <= word < count_q:
        raise ValueError(f"word must be an index in 0..{count_q - 1}, got {word!r}: tokens.index('it') finds one")
    (left, right), fonts, missing = drawable(left, right)
    left, right = left or list(map(str, range(count_q))), right or list(map(str, range(count_k)))
    row = weights[:, word]                                              # (H, Tk)
    if caption is None:
        caption = (
            f'How to read it: "{left[word]}" in the yellow box looks at the words on the right. A line is one head looking '
            "at one word, its width is the attention weight."
        )
        if np.allclose(row.sum(axis=1), 1, atol=0.01):                  # not so where the caller has cut the keys
            caption += " All lines of one colour share out a weight of 1."
    widest = 9.0                                                        # points, for a weight of 1
    rows = max(count_q, count_k)
    figure = page(0.24 * rows + 0.75, caption + missing)
    ax = figure.subplots()
    ax.set_axis_off()
    ax.set(xlim=(-0.9, 1.9), ylim=(rows - 0.4, -0.6))
    for y, token in enumerate(left):
        # Not in bold: many Chinese fonts have none, and Matplotlib says so each time.
        look = {"color": "black", "bbox": {"facecolor": "#ffe08a", "edgecolor": "none", "pad": 2}}
        ax.text(-0.03, y, token, ha="right", va="center", fontsize=10.5,
                **(look if y == word else {"color": "#777777"}), **fonts)
    for y, token in enumerate(right):
        ax.text(1.03, y, token, ha="left", va="center", fontsize=10.5, color="black", **fonts)
    spread = (np.arange(heads) - (heads - 1) / 2) * 0.7 / max(heads, 4)                # heads end side by side
    for head, key in sorted(np.ndindex(row.shape), key=lambda at: -row[at]):           # thin lines over wide ones
        if row[head, key] > 0:
            ax.plot([0, 1], [word + spread[head], key + spread[head]], color=COLOURS[head], alpha=0.75,
                    linewidth=widest * row[head, key], solid_capstyle="butt")
    handles = [Line2D([], [], color=COLOURS[head], linewidth=4, label=f"head {head}") for head in range(heads)]
    handles += [
        Line2D([], [], color="#999999", linewidth=widest * weight, label=f"weight {weight:g}", solid_capstyle="butt")
        for weight in (0.1, 0.5, 1.0)
    ]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(0.86, 0.5), frameon=False, borderaxespad=0)
    return figure


@styled()
def output_probabilities(target, trained, words, caption=None):
    """What a model should say against what it says: two tables of probabilities, side by side.

    Parameters
    ----------
    target : array_like of shape (T, V), such as one-hot rows (or smoothed labels)
    trained : array_like of shape (T, V), probabilities of a trained model, after the softmax
    words : sequence of V words, 40 at most
    caption : str, replaces the text under the picture

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where the shapes differ, a value lies outside 0..1, or a row does not sum to 1

    Source: article D, the loss function (`i am a student <eos>` over a vocabulary of six words).
    """
    named = {"target": target, "trained": trained}
    target, trained = (check_weights(name, value, (2,), "(T, V), positions and words") for name, value in named.items())
    if target.shape != trained.shape:
        raise ValueError(f"target {target.shape} and trained {trained.shape} must have one shape: the same sentence and words")
    for name, array in (("target", target), ("trained", trained)):
        off = np.abs(array.sum(axis=1, dtype=np.float64) - 1)
        if off.max() > 0.01:
            at = int(off.argmax())
            raise ValueError(
                f"{name} must hold probabilities, but row {at} sums to {array[at].sum():.4g}: softmax over the whole "
                "vocabulary, of which all words must be shown"
            )
    (words,), fonts, missing = drawable(check_tokens("words", words, target.shape[1], "probabilities"))
    if caption is None:
        caption = (
            "How to read it: a row is one position of the sentence, a column one word of the vocabulary; the brighter, the "
            "likelier. Each row sums to 1. The target is what the loss asks for; the closer the other map, the lower the loss."
        )
    length, vocabulary = target.shape
    beside = vocabulary <= BESIDE                                       # else one above the other, to have room for names
    letters = 1.4 * LETTERS if beside else 2.8 * LETTERS
    below = 0.085 * _longest(words) if words and _longest(words) > letters / vocabulary else 0.1      # inches
    tall = max((0.36 if beside else 0.22) * length, 1.2)
    figure = page((tall if beside else 2 * tall + 0.3) + 0.65 + below, caption + missing)
    axes = figure.subplots(1, 2) if beside else figure.subplots(2, 1)
    for ax, title, array in zip(axes, ("target outputs", "outputs of the trained model"), (target, trained), strict=True):
        mesh = heatmap(ax, array, 0, 1, AMOUNT)
        if vocabulary <= 8 and length <= 16:
            write_numbers(ax, array, 2, array < 0.6)
        _name_cells(ax, words, None, array.shape, fonts, letters)
        ax.set_title(title)
    for ax in axes if beside else axes[1:]:
        ax.set_xlabel("word")
    for ax in axes[:1] if beside else axes:
        ax.set_ylabel("position")
    if beside:
        axes[1].set_yticks([])
    else:
        axes[0].set_xticks([])
    colour_bar(figure, mesh, axes, [0, 0.25, 0.5, 0.75, 1], "probability")
    return figure


@styled()
def position_rotation(table, offset, positions=None, caption=None):
    """PE(pos) and PE(pos + k) as hands of clocks: a step of k turns each hand by the same angle, wherever it starts.

    Parameters
    ----------
    table : array_like of shape (T, D), sin on even and cos on odd columns (`ops.positional.sinusoidal_interleaved`)
    offset : int, k
    positions : sequence of up to 4 positions to start from, or None for three of them
    caption : str, replaces the text under the picture

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where neighbouring columns are not a sine and its cosine, or pos + k is not in the table

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
    if not isinstance(offset, (int, np.integer)) or not 0 < offset < length:
        raise ValueError(f"offset must be a whole number in 1..{length - 1}, got {offset!r}")
    last = length - 1 - int(offset)
    starts = sorted({0, last // 2, last}) if positions is None else list(positions)
    if not 1 <= len(starts) <= 4 or not all(isinstance(p, (int, np.integer)) and 0 <= p <= last for p in starts):
        raise ValueError(f"positions must be 1 to 4 whole numbers in 0..{last}, so that pos + {offset} exists, got {starts}")
    pairs = np.unique(np.linspace(0, width // 2 - 1, 4).astype(int))
    angles = np.degrees(np.arctan2(hands[..., 0], hands[..., 1]))       # clockwise from 12 o'clock
    turns = (angles[np.add(starts, offset)] - angles[starts])[:, pairs] % 360          # (starts, pairs)
    if caption is None:
        caption = (
            "How to read it: a clock is one pair of columns, sine to the right and cosine upwards. The grey hand is PE(pos), "
            f"the orange one PE(pos + {offset}); the angle between them, clockwise and without whole turns, stands below. "
            "Down a column the hands differ, the angle does not: a fixed offset is a fixed rotation, so a model can learn it."
        )
    figure = page(1.55 * len(starts) + 0.35, caption)
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
                ax.set_title(f"columns {2 * pair}, {2 * pair + 1}")
            if pair == 0:
                ax.set_ylabel(f"pos {pos} → {pos + offset}")
    return figure


@styled()
def learning_rates(curves, caption=None):
    """Learning rates of schedules, step by step.

    Parameters
    ----------
    curves : dict {name: array_like of shape (n,)}, the rates of steps 1 to n; at most 8 schedules
    caption : str, replaces the text under the picture

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        where curves is not such a dict, or a rate is negative or not finite

    Source: Vaswani et al. 2017, equation 3.
    """
    if not isinstance(curves, dict):
        raise TypeError(f"curves must be a dict {{name: rates}}, got {type(curves).__name__}")
    if not 1 <= len(curves) <= len(COLOURS):
        raise ValueError(f"curves must hold 1 to {len(COLOURS)} schedules, which can be told apart, got {len(curves)}")
    curves = {name: check_numbers(f"curves[{name!r}]", rates, (1,), "(n,)") for name, rates in curves.items()}
    for name, rates in curves.items():
        if rates.min() < 0:
            raise ValueError(f"curves[{name!r}] must not be negative, got {rates.min():.4g} at step {rates.argmin() + 1}")
    if caption is None:
        caption = (
            "How to read it: the learning rate of each training step, counted from 1; the dot is the highest. Where it rises "
            "at first (warm-up), the steps stay small until the optimiser has seen enough gradients to judge their size."
        )
    figure = page(2.9 + 0.2 * len(curves), caption)
    ax = figure.subplots()
    for colour, (name, rates) in zip(COLOURS, curves.items(), strict=False):
        top = int(rates.argmax())
        ax.plot(np.arange(1, len(rates) + 1), rates, color=colour, label=f"{name}: at most {rates[top]:.2e}")
        ax.plot(top + 1, rates[top], "o", color=colour, markersize=5, clip_on=False, zorder=3)
    highest = max(rates.max() for rates in curves.values())
    ax.set(xlim=(0, max(map(len, curves.values()))), ylim=(0, 1.08 * highest or 1), xlabel="step", ylabel="learning rate")
    ax.yaxis.set_major_formatter("{x:.3g}")
    ax.grid(axis="y")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderaxespad=0.2)
    return figure
