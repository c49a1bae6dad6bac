"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
import numpy as np

from tinymae.masks import padding_mask

answer_1 = 1 + 2 + 3 + 3 + 3
wrong_1 = 1 + 2 + 3


def answer_2(ids, window):
    t = np.arange(ids.shape[1])
    before = t[:, None] - t                                     # (T, T): how far the key is before the query
    return padding_mask(ids) & ((before >= 0) & (before < window))


def wrong_2(ids, window):
    """One token too many, and padding."""
    t = np.arange(ids.shape[1])
    before = t[:, None] - t
    return np.repeat(((before >= 0) & (before <= window))[None, None], len(ids), axis=0)
