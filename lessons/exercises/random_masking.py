"""MAE: choose the patches to hide.

Lesson 29; He et al. 2021, section 3; article A, MAE. One random number for each patch; sort them, keep the small ones:

    (1)  ids_shuffle[b] = order(noise[b])                           the patches in the order of their noise, smallest first
    (2)  ids_keep[b] = ids_shuffle[b, :K],  K = int(N (1 - mask_ratio))      the first K of them
    (3)  ids_shuffle[b, ids_restore[b, n]] = n                      ids_restore[b, n]: where patch n is in the shuffle
    (4)  mask[b, n] = 1 or 0                                        1: patch n is removed, 0: it stays visible
"""
import numpy as np

EXERCISE = "random_masking"                                     # python -m tinymae check random_masking.py
NOISE = np.array([[0.4, 0.1, 0.9, 0.2]])                        # to play with: at a ratio of 0.5 the patches 1 and 3 stay


def random_masking(noise, mask_ratio):
    """noise (B, N) -> ids_keep (B, K), ids_restore (B, N), mask (B, N)."""
    raise NotImplementedError("equations (1) to (4)")


# ---- hints ----
# 1. Sorting random numbers gives a random order; the inverse of an order is the order of the order.
# 2. Equation (3): ids_restore is what argsort gives when it is applied to ids_shuffle. (4) asks of patch n whether it was
# kept.
# 3. Two argsorts along axis 1, one slice, and one comparison of ids_restore with K.
