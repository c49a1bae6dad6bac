"""The encoder-decoder Transformer as a diagram of boxes and arrows, for any number of layers that fits on a page."""
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from tinymae.messages import marked, translated
from tinymae.messages import message as _
from tinymae.plot.style import COLOURS, check_index, page, styled

BOX, TALL, GAP, BOX_PADDING = 1.9, 0.26, 0.17, 0.22    # inches: box width and height, gaps above a box and in a layer
RESIDUAL, MEMORY, MAIN = COLOURS[0], COLOURS[1], "#777777"
NORM, ATTENTION, FORWARD, PLAIN = "#fff2ae", "#fbd9b8", "#cfe3f5", "#e3e3e3"
FACES = {
    marked("Norm"): NORM, marked("Add & Norm"): NORM, marked("Add"): NORM, marked("Self-attention"): ATTENTION,
    marked("Masked self-attention"): ATTENTION, marked("Cross attention"): ATTENTION, marked("Feed forward"): FORWARD,
    marked("Embedding + positions"): PLAIN, marked("Linear"): PLAIN, marked("Softmax"): PLAIN,
}


@styled()
def encoder_decoder(
    encoder_layers: int, decoder_layers: int, *, norm_first: bool = False, caption: str | None = None
) -> Figure:
    """The Transformer as a diagram: sublayers from the bottom to the top, residual paths beside them, the memory across.

    Parameters
    ----------
    encoder_layers, decoder_layers : 1 to 4
    norm_first : pre-norm (norms before the sublayers and after each stack); if False, post-norm (the paper, the articles)
    caption : replaces the text below the figure

    Raises
    ------
    ValueError
        if there are no layers, or more than fit on a page

    Source: Vaswani et al. 2017, figure 1; article D, residuals (2 + 2 layers with Add & Norm).
    """
    for name, count in (("encoder_layers", encoder_layers), ("decoder_layers", decoder_layers)):
        check_index(name, count, 1, 4, ": more than 4 layers do not fit on a page, and they all look alike")
    stacks = [
        ("encoder", encoder_layers, ("Self-attention", "Feed forward")),
        ("decoder", decoder_layers, ("Masked self-attention", "Cross attention", "Feed forward")),
    ]
    tallest = max(_stack_height(layers, sublayers, norm_first) for _name, layers, sublayers in stacks)
    figure = page(tallest + 0.6, caption, default=_(
        "How to read it: from the bottom to the top. Left: the encoder; right: the decoder; a grey frame is a layer. A blue "
        "line is a residual path, past a sublayer into its Add. The orange line is the memory C, the keys and values of every "
        "cross attention; the queries Q come from the decoder."
    ))
    ax = figure.subplots()
    ax.set_axis_off()
    ax.set(xlim=(0, 7.2), ylim=(-0.45, tallest + 0.1))
    (encoder, memory, _none), (_x, _top, crossings) = (
        _stack(ax, x, outwards, name, layers, sublayers, norm_first)
        for (name, layers, sublayers), x, outwards in zip(stacks, (1.75, 5.35), (-1, 1), strict=True)
    )
    middle = 3.45                                                       # between the columns
    ends = [memory + 0.2, *crossings]
    ax.plot([encoder, encoder, middle], [memory, ends[0], ends[0]], color=MEMORY)
    ax.plot([middle, middle], [min(ends), max(ends)], color=MEMORY)
    ax.text(middle - 0.1, ends[0] + 0.04, _("C, the memory"), ha="right", va="bottom", fontsize=9, color=MEMORY)
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
    return layers * (boxes * (TALL + GAP) + BOX_PADDING) + len(ends) * (TALL + GAP)


def _stack(ax, x, outwards, name, layers, sublayers, norm_first):
    """One column; (x, y of its top, heights of the cross attentions). Residual paths are on the side `outwards`, -1 or 1."""
    encoder = name == "encoder"
    tokens = _("source tokens") if encoder else _("target tokens, shifted right")
    ax.text(x, -0.3, tokens, ha="center", va="center", fontsize=9, color="#333333")
    _arrow(ax, (x, -0.2), (x, 0), MAIN)
    y, crossings = _box(ax, x, 0, "Embedding + positions"), []
    for layer in range(layers):
        bottom, y = y, y + BOX_PADDING
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
        _rounded(ax, x - BOX / 2 - 0.32, bottom + 0.04, BOX + 0.64, y - GAP / 2 - bottom - 0.04,
                 face="#f3f3f3", edge="#aaaaaa", zorder=0)
        label = _("encoder layer {number}", number=layer) if encoder else _("decoder layer {number}", number=layer)
        ax.text(x + outwards * (BOX / 2 + 0.45), (bottom + y) / 2, label, rotation=90, ha="center", va="center", fontsize=9,
                color=MAIN)
    for box in (*["Norm"] * norm_first, *["Linear", "Softmax"] * (not encoder)):
        y = _box(ax, x, y, box)
    return x, y - GAP, crossings


def _box(ax, x, y, text):
    """A box with its bottom at y, and the main path above it; returns the bottom of the next box."""
    _rounded(ax, x - BOX / 2, y, BOX, TALL, face=FACES[text], edge="#555555", zorder=2)
    ax.text(x, y + TALL / 2, translated(text), ha="center", va="center", fontsize=9, color="black", zorder=3)
    ax.plot([x, x], [y + TALL, y + TALL + GAP], color=MAIN, linewidth=1.2, zorder=1)
    return y + TALL + GAP


def _rounded(ax, x, y, width, height, *, face, edge, zorder):
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.06", facecolor=face,
                                edgecolor=edge, linewidth=0.8, zorder=zorder))


def _arrow(ax, start, end, colour):
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0})
