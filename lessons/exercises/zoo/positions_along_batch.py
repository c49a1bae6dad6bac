"""Positions that are added to every batch without a complaint.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. A table of positions
is added to the tokens:

    (1)  y[b, t] = x[b, t] + table[t]
    (2)  dx = dy,  dtable[t] = sum_b dy[b, t]                   from (1)

Shapes: x, y and dy (B, T, D), table and dtable (rows, D), with enough rows.
"""
import numpy as np

EXERCISE = "positions_along_batch"                              # python -m tinymae check positions_along_batch.py


def positional_forward(x, table):
    positions = np.arange(x.shape[0])
    y = x + table[positions][:, None]                           # (1)
    return y, (positions, table.shape)


def positional_backward(dy, cache):
    positions, shape = cache
    dtable = np.zeros(shape, dy.dtype)
    dtable[positions] = dy.sum(axis=1)                          # (2)
    return dy.copy(), dtable


# ---- why nobody noticed: stop here, and guess first ----
# Axis 0 is the batch here, and positions were counted along it: all tokens of a sequence got the same position, that of their
# sequence in the batch. Such code is right where axis 0 is the length, as in PyTorch's older layout. It stood in the code of a
# university course until a reader asked (cmu-l3/anlp-fall2025-code, issue 1). Broadcasting makes the shapes fit, the loss
# falls, and the backward is the derivative of this forward. It shows when a sequence gives one result alone and another in a
# batch.
