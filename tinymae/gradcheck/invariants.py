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


def assert_causal(function, ids, seed=0):
    """No word can see a later one: what a decoder says at place t depends on the words 0..t only.

    Parameters
    ----------
    function : callable; function(ids) -> ndarray of shape (B, T, ...), a row for each word
    ids : integer ndarray of shape (B, T), or floats (B, T, ...), T at least 2
    seed : int

    Raises
    ------
    AssertionError
        naming the place whose word changes an earlier output, or does not change any from its own on
    ValueError
        where there is nothing later, ids hold one word only, or function does not return a row for each
    """
    if ids.shape[1] < 2:
        raise ValueError(f"assert_causal: expected at least two words, got ids {ids.shape}")
    other = _other(ids, seed)
    before = function(ids)
    if before.shape[:2] != ids.shape[:2]:
        raise ValueError(f"assert_causal: expected {ids.shape[:2]} rows, one for each word, got {before.shape}")
    for t in range(1, ids.shape[1]):
        changed = ids.copy()
        changed[:, t:] = other[:, t:]
        after = function(changed)
        _assert_same(before[:, :t], after[:, :t], f"the words from place {t} on reach an earlier output: is the mask causal?")
        if np.array_equal(before[:, t:], after[:, t:]):
            raise AssertionError(f"the words from place {t} on reach no output at all: is the function constant?")


def assert_pad_invariant(function, ids, mask, seed=0):
    """Padding is not there: what stands under it, and how long it is, changes nothing.

    Parameters
    ----------
    function : callable; function(ids, mask) -> ndarray: what the words say, and nothing of what padding says
    ids : integer ndarray of shape (B, T), or floats (B, T, ...)
    mask : boolean ndarray of shape (B, T), True = a word, False = padding
    seed : int

    Raises
    ------
    AssertionError
        where padding changes the output, or words do not
    ValueError
        where the mask hides nothing or everything, ids hold one word only, or function returns more for more padding

    Notes
    -----
    Other content must give the very same output. A longer array may be summed in another order, so there equality is up to
    100 roundings of the largest number.
    """
    if mask.all() or not mask.any():
        raise ValueError("assert_pad_invariant: expected a mask with some words and some padding")
    before, other = function(ids, mask), _other(ids, seed)
    shown = mask.reshape(*mask.shape, *[1] * (ids.ndim - 2))
    _assert_same(before, function(np.where(shown, ids, other), mask), "what stands under the padding reaches the output")
    longer = np.concatenate([ids, other[:, -1:], other[:, :1]], axis=1)
    after = function(longer, np.pad(mask, ((0, 0), (0, 2))))
    if after.shape != before.shape:
        raise ValueError(
            f"assert_pad_invariant: expected what the words say only, got {before.shape}, and {after.shape} for two more "
            "places: return output[mask]"
        )
    tolerance = 100 * np.finfo(before.dtype).eps * np.abs(before).max()
    _assert_same(before, after, "two more places of padding reach the output", tolerance)
    if np.array_equal(before, function(np.where(shown, other, ids), mask)):
        raise AssertionError("the words do not reach the output: is the mask the wrong way round? True = a word")


def _other(x, seed):
    """An array like x that is different everywhere; integers become others of the integers in x."""
    rng = np.random.default_rng(seed)
    if not np.issubdtype(x.dtype, np.integer):
        return x + rng.uniform(1, 2, x.shape).astype(x.dtype)
    words, place = np.unique(x, return_inverse=True)
    if len(words) < 2:
        raise ValueError(f"expected at least two different ids, got {words} only: there is nothing to change them to")
    return words[(place.reshape(x.shape) + rng.integers(1, len(words), x.shape)) % len(words)]


def _assert_same(a, b, complaint, tolerance=0.0):
    difference = np.abs(a - b)
    if not difference.max() <= tolerance:
        worst = tuple(int(i) for i in np.unravel_index(np.argmax(difference), difference.shape))
        raise AssertionError(f"{complaint}: output{list(worst)} is {a[worst]:.6g} and then {b[worst]:.6g}")
