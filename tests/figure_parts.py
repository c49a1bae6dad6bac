"""What the tests of figures share: arrays to draw, and what can be read off a figure."""
import numpy as np


def rng():
    return np.random.default_rng(7)


def softmax_rows(*shape):
    """Attention weights: rows that sum to 1."""
    weights = rng().random(shape)
    return weights / weights.sum(axis=-1, keepdims=True)


def scores(rows=5, cols=5):
    return rng().normal(size=(rows, cols))


def sines(positions, width):
    return np.sin(np.arange(positions)[:, None] * 0.5 ** np.arange(width) + 0.3)


def images(count=2, rows=8, cols=8, channels=3):
    return rng().integers(0, 256, (count, rows, cols, channels), dtype=np.uint8)


def caption(figure):
    return " ".join(figure.get_supxlabel().split())


def maps(figure):
    """The axes that hold a heatmap, without colour bars."""
    return [ax for ax in figure.axes if ax.collections and ax.get_label() != "<colorbar>"]


def bars(figure):
    return [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]


def values(ax):
    return np.asarray(ax.collections[0].get_array()).reshape(ax.collections[0].get_coordinates().shape[0] - 1, -1)


def written(ax):
    """The words and numbers in the axes."""
    return [text.get_text() for text in ax.texts if text.get_text()]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]
