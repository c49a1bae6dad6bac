"""Patches: cut pictures into words, and put the gradient back.

Lesson 28; Dosovitskiy et al. 2020, section 3.1; article A, ViT: "a patch is a word".

    (1)  patches[b, n] = images[b, i p : (i + 1) p, j p : (j + 1) p],  n = i (cols / p) + j
    (2)  (p, p, C) -> (P,)        the numbers of a patch in the order row, column, channel

Backward: nothing is computed, the numbers only move, so the gradients move back the way they came.

Shapes: images (B, rows, cols, C), patches (B, N, P), N = rows cols / p^2, P = p^2 C. Why is one reshape not enough?
"""
import numpy as np

EXERCISE = "patchify"                                           # python -m tinymae check patchify.py


def patchify_forward(images, patch_size):
    """images (B, rows, cols, C) -> patches (B, N, P), and a cache."""
    raise NotImplementedError("equations (1) and (2): split rows and cols, then bring the axes into the right order")


def patchify_backward(dpatches, cache):
    """Gradient dimages (B, rows, cols, C), from dpatches (B, N, P)."""
    raise NotImplementedError("the forward, backwards")


# ---- hints ----
# 1. A patch is a block of rows and columns, and a reshape alone cannot cut across rows: an axis has to move.
# 2. Split rows into (rows / p, p) and columns into (cols / p, p): six axes. Then move one axis, so that the two axes of
# size p stand side by side.
# 3. reshape to six axes, one transpose that swaps two of them, reshape to (B, N, P). The backward is the same in the reverse
# order.
