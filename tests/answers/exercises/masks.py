import numpy as np


def padding_mask(ids, pad=0):
    return (ids != pad)[:, None, None, :]                       # (1)


def causal_mask(length):
    return np.tri(length, dtype=bool)[None, None]               # (2)
