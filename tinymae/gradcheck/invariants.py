"""Invariants: what must hold for a model with any weights. A gradient check can see none of it.

Each function runs the model, changes something that must not matter, runs it again, and raises an AssertionError that says what
leaked from where. The comparison is exact: what is hidden is not multiplied by something small, it is absent.
"""
from collections.abc import Callable

import numpy as np

from tinymae.gradcheck.pair import unravel
from tinymae.messages import message as _


def assert_mask_hides(
    encode: Callable[[np.ndarray], np.ndarray], images: np.ndarray, mask: np.ndarray, patch_size: int, *, seed: int = 0,
) -> None:
    """Pixels under the mask cannot change the encoder's output.

    Parameters
    ----------
    encode : encode(images) returns an array, with the same patches hidden in every call
    images : shape (B, rows, cols, C), floats
    mask : shape (B, N), 1 = removed, as `models.mae.random_masking` returns it

    Raises
    ------
    AssertionError
        if hidden pixels change the output, or visible ones do not
    ValueError
        if the mask hides nothing or everything, or holds anything but 0 and 1
    """
    rows, cols = images.shape[1:3]
    if not np.isin(mask, (0, 1)).all():
        raise ValueError(_("assert_mask_hides: expected a mask of 0 and 1 = removed, got {number}",
                           number=mask[~np.isin(mask, (0, 1))][0]))
    grid = (rows // patch_size, cols // patch_size)
    removed = np.kron(mask.reshape(-1, *grid) == 1, np.ones((1, patch_size, patch_size), bool))     # (B, rows, cols)
    if removed.all() or not removed.any():
        raise ValueError(_("assert_mask_hides: expected a mask that hides some patches and shows some"))
    other = images + np.random.default_rng(seed).uniform(1, 2, images.shape).astype(images.dtype)   # different everywhere
    before = encode(images)
    _assert_same(before, encode(np.where(removed[..., None], other, images)), _("pixels under the mask reach the output"))
    if np.array_equal(before, encode(np.where(removed[..., None], images, other))):
        raise AssertionError(_("visible pixels do not reach the output: is the mask inverted? 1 = removed"))


def assert_batch_independent(function: Callable[..., np.ndarray], *arrays: np.ndarray) -> None:
    """No example of a batch can change another: each gives the result that it gives alone.

    Parameters
    ----------
    function : function(*arrays) returns an array of shape (B, ...)
    *arrays : shape (B, ...), B at least 2

    Raises
    ------
    AssertionError
        if the result of an example depends on its batch; the message names the first such example
    ValueError
        if there are fewer than two examples

    Notes
    -----
    BLAS may sum in a different order for another batch size, so equality is up to 100 roundings of the largest number.
    """
    if min(len(array) for array in arrays) < 2:
        raise ValueError(_("assert_batch_independent: expected at least two examples"))
    together = function(*arrays)
    if len(together) != len(arrays[0]):
        raise AssertionError(_("expected {count} results for {count} examples, got {got}",
                               count=len(arrays[0]), got=len(together)))
    tolerance = 100 * np.finfo(together.dtype).eps * np.abs(together).max()
    for i in range(len(together)):
        alone = function(*(array[i : i + 1] for array in arrays))
        complaint = _("example {i} gives one result in its batch and another alone", i=i)
        _assert_same(together[i : i + 1], alone, complaint, tolerance, first=i)


def assert_causal(function: Callable[[np.ndarray], np.ndarray], ids: np.ndarray, *, seed: int = 0) -> None:
    """No token can change an earlier output: the output at position t depends on the tokens 0..t only.

    Parameters
    ----------
    function : function(ids) returns an array of shape (B, T, ...), a row for each token
    ids : integers of shape (B, T), or floats (B, T, ...), T at least 2

    Raises
    ------
    AssertionError
        if a token changes an earlier output, or changes none from its own position on; the message gives the position
    ValueError
        if T is 1, if all ids are the same, or if function does not return a row for each token
    """
    if ids.shape[1] < 2:
        raise ValueError(_("assert_causal: expected at least two tokens, got ids {shape}", shape=ids.shape))
    other = _other(ids, seed)
    before = function(ids)
    if before.shape[:2] != ids.shape[:2]:
        raise ValueError(_("assert_causal: expected {rows} rows, one for each token, got {shape}",
                           rows=ids.shape[:2], shape=before.shape))
    for t in range(1, ids.shape[1]):
        changed = ids.copy()
        changed[:, t:] = other[:, t:]
        after = function(changed)
        complaint = _("the tokens from position {t} on reach an earlier output: is the mask causal?", t=t)
        _assert_same(before[:, :t], after[:, :t], complaint)
        if np.array_equal(before[:, t:], after[:, t:]):
            raise AssertionError(_("the tokens from position {t} on reach no output at all: is the function constant?", t=t))


def assert_pad_invariant(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], ids: np.ndarray, mask: np.ndarray, *, seed: int = 0,
) -> None:
    """Padding has no effect: neither its content nor its length changes the output.

    Parameters
    ----------
    function : function(ids, mask) returns the outputs of the tokens, and none of the padding's
    ids : integers of shape (B, T), or floats (B, T, ...)
    mask : booleans of shape (B, T), True = token, False = padding

    Raises
    ------
    AssertionError
        if padding changes the output, or tokens do not
    ValueError
        if the mask hides nothing or everything, if all ids are the same, or if function returns more for more padding

    Notes
    -----
    Other content must give exactly the same output. A longer array may be summed in a different order, so there equality is
    up to 100 roundings of the largest number.
    """
    if mask.all() or not mask.any():
        raise ValueError(_("assert_pad_invariant: expected a mask with some tokens and some padding"))
    before, other = function(ids, mask), _other(ids, seed)
    shown = mask.reshape(*mask.shape, *[1] * (ids.ndim - 2))
    _assert_same(before, function(np.where(shown, ids, other), mask), _("the content of the padding reaches the output"))
    longer = np.concatenate([ids, other[:, -1:], other[:, :1]], axis=1)
    after = function(longer, np.pad(mask, ((0, 0), (0, 2))))
    if after.shape != before.shape:
        raise ValueError(_(
            "assert_pad_invariant: expected the outputs of the tokens only, got {shape}, and {longer} for two more positions: "
            "return output[mask]", shape=before.shape, longer=after.shape,
        ))
    tolerance = 100 * np.finfo(before.dtype).eps * np.abs(before).max()
    _assert_same(before, after, _("two more positions of padding reach the output"), tolerance)
    if np.array_equal(before, function(np.where(shown, other, ids), mask)):
        raise AssertionError(_("the tokens do not reach the output: is the mask inverted? True = token"))


def _other(x, seed):
    """An array like x that is different everywhere; integers become others of the integers in x."""
    rng = np.random.default_rng(seed)
    if not np.issubdtype(x.dtype, np.integer):
        return x + rng.uniform(1, 2, x.shape).astype(x.dtype)
    tokens, index = np.unique(x, return_inverse=True)
    if len(tokens) < 2:
        raise ValueError(_("expected at least two different ids, got {tokens} only: there is nothing to change them to",
                           tokens=tokens))
    return tokens[(index.reshape(x.shape) + rng.integers(1, len(tokens), x.shape)) % len(tokens)]


def _assert_same(a, b, complaint, tolerance=0.0, first=0):
    """An AssertionError if two outputs differ; the message counts their axis 0 from `first`."""
    difference = np.abs(a - b)
    if not difference.max() <= tolerance:                       # NaN is not smaller either
        worst = unravel(np.argmax(difference), difference.shape)
        index = [first * (axis == 0) + at for axis, at in enumerate(worst)]
        raise AssertionError(_("{complaint}: output{index} is {before:.6g} and then {after:.6g}",
                               complaint=complaint, index=index, before=a[worst], after=b[worst]))
