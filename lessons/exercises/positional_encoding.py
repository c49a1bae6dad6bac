"""Positional encoding: write the table of sines and cosines.

Lesson 5; Vaswani et al. 2017, section 3.5; articles A (part 1), C (section 2.2), D and E.

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


# ---- hints ----
# 1. Every pair of columns is one clock hand: a sine and a cosine with the same angle.
# 2. Equations (1) and (2): the exponent is 2i / D, the number of the even column divided by D, for both columns of a pair.
# 3. Compute angles (T, number of pairs) by broadcasting positions[:, None]; an odd D has one cosine column less than sines.
