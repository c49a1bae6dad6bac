"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
import numpy as np

from tinymae.masks import padding_mask
from tinymae.ops.softmax import softmax_backward

answer_1 = 1 + 2 + 3 + 3 + 3
wrong_1 = 1 + 2 + 3


def answer_2(ids, window):
    t = np.arange(ids.shape[1])
    behind = t[:, None] - t                                     # (T, T): how far the key stands before the query
    return padding_mask(ids) & ((behind >= 0) & (behind < window))


def wrong_2(ids, window):
    """One word too many, and padding."""
    t = np.arange(ids.shape[1])
    behind = t[:, None] - t
    return np.repeat(((behind >= 0) & (behind <= window))[None, None], len(ids), axis=0)


def answer_3(dweights, cache):
    dscores = softmax_backward(dweights, cache)
    return dscores, dscores.sum(axis=0)


def wrong_3(dweights, cache):
    """The mean over the sentences."""
    dscores = softmax_backward(dweights, cache)
    return dscores, dscores.mean(axis=0)
