"""Which patches of an image are hidden: at random, in blocks, or in a regular grid (He et al. 2021, table 1f, figure 6).

Each function returns a bool array of shape (down, across), True = removed. `models.mae.random_masking` hides patches during
training; the masks here are for whole photographs, which may have any number of patches.
"""
import math

import numpy as np

from tinymae.messages import message as _

MASKS = ("random", "block", "grid")
SMALLEST_BLOCK, LARGEST_BLOCK = 4, 16       # patches
NARROWEST = 0.3                             # shorter side of a block / its longer side


def hidden_patches(kind: str, grid: tuple[int, int], ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Patches to hide.

    Parameters
    ----------
    kind
        "random": each patch with the same probability, as in the pre-training of He et al.
        "block": rectangles of 4 to 16 patches, until enough are hidden (Bao et al. 2021, BEiT, algorithm 1); harder, because
        the middle of a block is far from everything visible.
        "grid": as regular as possible, without a random number; at 0.75 one of four patches is visible; easier
    grid : patches down and across
    ratio : fraction to hide, above 0 and below 1. "grid" hides the nearest number of 64ths
    rng : not used by "grid"

    Returns
    -------
    hidden : ndarray bool (down, across), True = removed; at least one patch is hidden, and at least one visible

    Raises
    ------
    ValueError
        if the kind is unknown, or the ratio is outside (0, 1)
    """
    if kind not in MASKS:
        raise ValueError(_("expected a mask {masks}, got {kind!r}", masks=", ".join(MASKS), kind=kind))
    if not 0 < ratio < 1:
        raise ValueError(_("expected a mask ratio above 0 and below 1, got {ratio}: 0.75 hides three quarters of the patches",
                           ratio=ratio))
    down, across = grid
    if kind == "grid":
        visible = min(63, max(1, round(64 * (1 - ratio))))
        return np.tile(_ORDER, (-(-down // 8), -(-across // 8)))[:down, :across] >= visible
    number = down * across
    count = min(number - 1, max(1, number - int(number * (1 - ratio))))
    if kind == "random":
        return (rng.permutation(number) < count).reshape(grid)
    hidden = np.zeros(grid, bool)
    while (left := count - np.count_nonzero(hidden)) > 0:
        area = min(left, rng.integers(SMALLEST_BLOCK, LARGEST_BLOCK + 1))
        shape = math.exp(rng.uniform(math.log(NARROWEST), -math.log(NARROWEST)))
        high = min(down, max(1, round(math.sqrt(area * shape))))
        wide = min(across, max(1, area // high))
        top, left = rng.integers(down - high + 1), rng.integers(across - wide + 1)
        block = hidden[top : top + high, left : left + wide]
        if np.count_nonzero(~block) <= count - np.count_nonzero(hidden):
            block[:] = True
    return hidden


def _order(size):
    """The numbers 0 to size^2 - 1 on a square, such that the first k are spread evenly for every k (Bayer 1973)."""
    if size == 1:
        return np.zeros((1, 1), int)
    half = 4 * _order(size // 2)
    return np.block([[half, half + 2], [half + 3, half + 1]])


_ORDER = _order(8)
