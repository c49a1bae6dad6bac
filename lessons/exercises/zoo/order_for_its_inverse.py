"""MAE's unshuffle, with a gradient that arrives somewhere.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.ops.patches. K visible tokens x come in shuffled order, and the mask token stands for all others:

    (2)  y[b, n] = x[b, j] if j < K else mask_token,  j = ids_restore[b, n]
    (3)  dx[b, j] = dy[b, n] if j < K,  dmask_token = sum dy[b, n] if j >= K,  j = ids_restore[b, n]

Shapes: x (B, K, E), mask_token (1, 1, E), ids_restore (B, N), y and dy (B, N, E).
"""
import numpy as np

EXERCISE = "order_for_its_inverse"                              # python -m tinymae check order_for_its_inverse.py


def unshuffle_forward(x, mask_token, ids_restore):
    batch, kept, width = x.shape
    hidden = ids_restore.shape[1] - kept
    shuffled = np.concatenate([x, np.broadcast_to(mask_token, (batch, hidden, width))], axis=1)             # (B, N, E)
    y = np.take_along_axis(shuffled, ids_restore[..., None], axis=1)                        # (2)
    return y, (kept, ids_restore)


def unshuffle_backward(dy, cache):
    kept, ids_restore = cache
    dshuffled = np.take_along_axis(dy, ids_restore[..., None], axis=1)                      # (3)
    dx = dshuffled[:, :kept]
    dmask_token = dshuffled[:, kept:].sum(axis=(0, 1), keepdims=True)
    return dx, dmask_token


# ---- why nobody noticed: stop here, and guess first ----
# The backward gathers with ids_restore once more; it takes the inverse order, argsort of it, to bring each gradient to the
# token that it belongs to. The shapes are right, and for an order that is its own inverse, such as the original order or one
# exchange of two, so are the numbers. The same confusion of an order and its inverse was reported in the solution of a course's
# homework, where the default order hid it (rll/deepul, issue 10).
