"""MAE's unshuffle: write the backward of putting every patch back in its place.

Lesson 29; He et al. 2021, section 3; article A, MAE. Numbered as in tinymae.ops.patches. K kept tokens x come in shuffled
order, and the mask token stands for all others:

    (2)  y[b, n] = x[b, j] if j < K else mask_token,  j = ids_restore[b, n]

Backward, from dy: the numbers only moved, so the gradients move back the way they came:

    (3)  dx[b, j] = dy[b, n] if j < K,  dmask_token = sum dy[b, n] if j >= K,  j = ids_restore[b, n]

Shapes: x (B, K, E), mask_token (1, 1, E), ids_restore (B, N), y and dy (B, N, E).
"""
import numpy as np

EXERCISE = "unshuffle"                                          # python -m tinymae check unshuffle.py


def unshuffle_forward(x, mask_token, ids_restore):
    batch, kept, width = x.shape
    hidden = ids_restore.shape[1] - kept
    shuffled = np.concatenate([x, np.broadcast_to(mask_token, (batch, hidden, width))], axis=1)     # (B, N, E)
    y = np.take_along_axis(shuffled, ids_restore[..., None], axis=1)                                # (2)
    return y, (kept, ids_restore)


def unshuffle_backward(dy, cache):
    """Gradients (dx, dmask_token): dy (B, N, E) -> dx (B, K, E), dmask_token (1, 1, E)."""
    kept, ids_restore = cache
    raise NotImplementedError("equation (3): which order is the inverse of ids_restore?")


# ---- hints ----
# 1. The forward only moved rows and repeated one of them: the backward moves them back, and sums over the repeated one.
# 2. Equation (3): the order that undoes ids_restore is its inverse; argsort of an order is its inverse.
# 3. np.take_along_axis brings dy into the shuffled order; the first K rows are dx, the others are summed over batch and rows.
