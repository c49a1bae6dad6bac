"""The sizes and the random numbers that the checks use, and sums that keep their axis."""
import math
from functools import partial

import numpy as np

B, H, TQ, TK, D, F, V = 4, 2, 5, 6, 14, 10, 11                  # all different, and none is 3, the number of q, k, v
DK, DV = D // H, 8
# Over the last axis or another, axis=..., which stays, with size 1.
total, mean, largest = (partial(reduce, axis=-1, keepdims=True) for reduce in (np.sum, np.mean, np.max))


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """The distribution function of the standard normal; SciPy's would take longer to import than a check takes."""
    return np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)))(x)


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    """Normally distributed random numbers, the same in every call."""
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def frozen(array: np.ndarray) -> np.ndarray:
    """A read-only copy: a function must not write into its arguments."""
    array = array.copy()
    array.flags.writeable = False
    return array
