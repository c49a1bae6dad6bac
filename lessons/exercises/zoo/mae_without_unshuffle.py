"""MAE's decoder input, with a loss that falls quickly at first.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.ops.patches. K kept tokens x come in shuffled order; the mask token stands for all others:

    (2)  y[b, n] = x[b, j] if j < K else mask_token,  j = ids_restore[b, n]

Shapes: x (B, K, E), mask_token (1, 1, E), ids_restore (B, N), y and dy (B, N, E).
"""
import numpy as np

EXERCISE = "mae_without_unshuffle"                              # python -m tinymae check mae_without_unshuffle.py


def unshuffle_forward(x, mask_token, ids_restore):
    batch, kept, width = x.shape
    hidden = ids_restore.shape[1] - kept
    y = np.concatenate([x, np.broadcast_to(mask_token, (batch, hidden, width))], axis=1)    # (2)  (B, N, E)
    return y, (kept,)


def unshuffle_backward(dy, cache):
    (kept,) = cache
    dx = dy[:, :kept].copy()
    dmask_token = dy[:, kept:].sum(axis=(0, 1), keepdims=True)
    return dx, dmask_token


# ---- why nobody noticed: stop here, and guess first ----
# The kept tokens stand first and the mask tokens after them: no token is where its patch was. The positions that are added
# next are then the wrong ones, and the decoder cannot know which patch is where. The loss fell, to the one picture that
# fits all: the mean. The backward is the derivative of this forward, so the gradient check passed.
