"""Embedding: write the backward of a table lookup.

Lesson 3; Vaswani et al. 2017, section 3.4; article C, section 2.1.

    (1)  y[b, t] = table[ids[b, t]]

Backward, from dy:

    (2)  dtable[v] = sum dy[b, t]          over all positions (b, t) with ids[b, t] = v

A word that occurs five times is used five times, so five gradients meet in its row.

Shapes: ids (B, T), table (V, D), y and dy (B, T, D), dtable (V, D).
"""
import numpy as np

EXERCISE = "embedding"                                          # python -m tinymae check embedding.py


def embedding_forward(ids, table):
    y = table[ids]                                              # (1)  (B, T, D)
    return y, (ids, table.shape)


def embedding_backward(dy, cache):
    """Gradient dtable (V, D), from dy (B, T, D). The ids have none."""
    ids, shape = cache
    dtable = np.zeros(shape, dy.dtype)
    raise NotImplementedError("equation (2)")
    return dtable


# ---- hints ----
# 1. A row of the table that is looked up five times receives five gradients, and they add up.
# 2. Equation (2) is a sum over positions. `dtable[ids] += dy` adds only once for an id that is repeated.
# 3. One line: NumPy has a function that adds at given indices and counts repeated ones, called on dtable, ids and dy.
