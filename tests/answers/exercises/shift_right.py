import numpy as np


def shift_right(targets, bos):
    inputs = np.empty_like(targets)
    inputs[:, 0] = bos                                          # (1)
    inputs[:, 1:] = targets[:, :-1]                             # (2)
    return inputs
