import numpy as np


def unshuffle_backward(dy, cache):
    kept, ids_restore = cache
    order = np.argsort(ids_restore, axis=1)
    dshuffled = np.take_along_axis(dy, order[..., None], axis=1)
    dx = dshuffled[:, :kept].copy()
    dmask_token = dshuffled[:, kept:].sum(axis=(0, 1), keepdims=True)
    return dx, dmask_token
