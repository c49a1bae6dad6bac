import numpy as np


def positional_encoding(length, width):
    table = np.zeros((length, width))
    angles = np.arange(length)[:, None] / 10000 ** (np.arange(0, width, 2) / width)
    table[:, 0::2] = np.sin(angles)                             # (1)
    table[:, 1::2] = np.cos(angles[:, : width // 2])            # (2)
    return table
