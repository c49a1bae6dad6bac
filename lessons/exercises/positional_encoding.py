"""Positional encoding: write the table of sines and cosines.

Lesson 3; Vaswani et al. 2017, section 3.5; articles A (part 1), C (section 2.2), D and E.

    (1)  PE(pos, 2i)     = sin(pos / 10000^(2i / D))
    (2)  PE(pos, 2i + 1) = cos(pos / 10000^(2i / D))

Positions count from 0. The width D may be odd: then the last column is a sine whose cosine has no room.
"""
import numpy as np

EXERCISE = "positional_encoding"                                # python -m tinymae check positional_encoding.py


def positional_encoding(length, width):
    """The table (T, D) for T = length positions and D = width columns."""
    table = np.zeros((length, width))
    raise NotImplementedError("equations (1) and (2): table[:, 0::2] are the even columns, table[:, 1::2] the odd ones")
    return table
