"""Invariants: what must hold for a model whatever its weights are. A gradient check cannot see any of it.

Each function runs the model, changes something that must not matter, runs it again, and raises an AssertionError that says what
leaked from where. The comparison is exact: what is hidden is not multiplied by something small, it is not there.
"""
import numpy as np


def assert_mask_hides(encode, images, mask, patch_size, seed=0):
    """Pixels under the mask cannot change the encoder's output.

    Parameters
    ----------
    encode : callable; encode(images) -> ndarray, with the same patches hidden at every call
    images : ndarray of shape (B, rows, cols, C), floats
    mask : ndarray of shape (B, N), 1 = removed, as `models.mae.random_masking` returns it
    patch_size : int
    seed : int

    Raises
    ------
    AssertionError
        where hidden pixels change the output, or visible ones do not
    ValueError
        where the mask hides nothing or everything: then there is nothing to see
    """
    _, rows, cols, _ = images.shape
    grid = (rows // patch_size, cols // patch_size)
    removed = np.kron(mask.reshape(-1, *grid) == 1, np.ones((1, patch_size, patch_size), bool))     # (B, rows, cols)
    if removed.all() or not removed.any():
        raise ValueError("assert_mask_hides: expected a mask that hides some patches and shows some")
    other = images + np.random.default_rng(seed).uniform(1, 2, images.shape).astype(images.dtype)   # nowhere the same
    before = encode(images)
    _assert_same(before, encode(np.where(removed[..., None], other, images)), "pixels under the mask reach the output")
    if np.array_equal(before, encode(np.where(removed[..., None], images, other))):
        raise AssertionError("visible pixels do not reach the output: is the mask the wrong way round? 1 = removed")


def assert_batch_independent(function, *arrays):
    """No example of a batch can see another: each comes out as it would alone.

    Parameters
    ----------
    function : callable; function(*arrays) -> ndarray of shape (B, ...)
    *arrays : ndarrays of shape (B, ...), B at least 2

    Raises
    ------
    AssertionError
        naming the first example that comes out otherwise
    ValueError
        where there are fewer than two examples

    Notes
    -----
    BLAS may sum in another order for another batch size, so equality is up to 100 roundings of the largest number.
    """
    if min(len(array) for array in arrays) < 2:
        raise ValueError("assert_batch_independent: expected at least two examples")
    together = function(*arrays)
    if len(together) != len(arrays[0]):
        raise AssertionError(f"expected {len(arrays[0])} results for {len(arrays[0])} examples, got {len(together)}")
    tolerance = 100 * np.finfo(together.dtype).eps * np.abs(together).max()
    for i in range(len(together)):
        alone = function(*(array[i : i + 1] for array in arrays))
        _assert_same(together[i : i + 1], alone, f"example {i} comes out otherwise alone than in its batch", tolerance)


def _assert_same(a, b, complaint, tolerance=0.0):
    difference = np.abs(a - b)
    if not difference.max() <= tolerance:
        worst = tuple(int(i) for i in np.unravel_index(np.argmax(difference), difference.shape))
        raise AssertionError(f"{complaint}: output{list(worst)} is {a[worst]:.6g} and then {b[worst]:.6g}")
