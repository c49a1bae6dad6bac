"""Masks: hide the padding, and hide the future.

Lesson 10; Vaswani et al. 2017, section 3.2.3; article A, part 2; article C, section 5.1.

A mask is boolean, True = may attend, and broadcasts to the scores (B, H, Tq, Tk): a row is a query, a column a key.

    (1)  padding     (B, 1, 1, Tk)       no token attends to the padding after a short sentence
    (2)  causal      (1, 1, T, T)        token t attends to the tokens 0..t, itself included: the lower triangle

Padding has the id `pad`.
"""
import numpy as np

EXERCISE = "masks"                                              # python -m tinymae check masks.py
IDS = np.array([[5, 6, 7, 8], [5, 6, 0, 0]])                    # to play with; 0 is <pad>: the second sentence has two words


def padding_mask(ids, pad=0):
    """ids (B, T) -> boolean mask (B, 1, 1, T)."""
    raise NotImplementedError("equation (1)")


def causal_mask(length):
    """T = length -> boolean mask (1, 1, T, T)."""
    raise NotImplementedError("equation (2)")


# ---- hints ----
# 1. A row of the scores is a query and a column is a key: a mask says for each pair whether the query may attend to the key.
# 2. Equation (1) depends on the key alone, so the axes of heads and queries have size 1. Equation (2) is a triangle.
# 3. A comparison and an index with None for the first; a NumPy function for lower triangles, of bool, and two new axes for
# the second.
