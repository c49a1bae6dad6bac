"""Masks entry by entry, against loops; teacher forcing by an example."""
import numpy as np
import pytest

from tinymae.masks import causal_mask, causal_padding_mask, padding_mask, shift_right

IDS = np.array([[4, 7, 3, 2], [5, 2, 0, 0], [0, 0, 0, 0]])
EVERYWHERE = [(b, q, k) for b in range(3) for q in range(4) for k in range(4)]


def test_padding_mask_hides_keys():
    mask = padding_mask(IDS)
    assert mask.shape == (3, 1, 1, 4)
    assert mask.dtype == bool
    full = np.broadcast_to(mask, (3, 1, 4, 4))
    for b, q, k in EVERYWHERE:
        assert full[b, 0, q, k] == (IDS[b, k] != 0)             # the key decides, never the query


def test_padding_mask_of_another_id():
    np.testing.assert_array_equal(padding_mask(IDS, pad=2)[:, 0, 0], [[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 1, 1]])


def test_causal_mask_is_the_lower_triangle_with_the_diagonal():
    mask = causal_mask(4)
    assert mask.shape == (1, 1, 4, 4)
    assert mask.dtype == bool
    for _, q, k in EVERYWHERE:
        assert mask[0, 0, q, k] == (k <= q)


def test_causal_mask_of_one_word_sees_itself():
    np.testing.assert_array_equal(causal_mask(1), [[[[True]]]])


@pytest.mark.parametrize("pad", [0, 2])
def test_both(pad):
    mask = causal_padding_mask(IDS, pad)
    assert mask.shape == (3, 1, 4, 4)
    assert mask.dtype == bool
    for b, q, k in EVERYWHERE:
        assert mask[b, 0, q, k] == (k <= q and IDS[b, k] != pad)


def test_shift_right():
    np.testing.assert_array_equal(shift_right(IDS, 1), [[1, 4, 7, 3], [1, 5, 2, 0], [1, 0, 0, 0]])


def test_shift_right_feeds_what_was_asked_for_before():
    targets = np.random.default_rng(0).integers(3, 20, (5, 7)).astype(np.int32)
    kept = targets.copy()
    inputs = shift_right(targets, 1)
    assert inputs.dtype == np.int32
    assert (inputs[:, 0] == 1).all()
    for t in range(1, 7):
        np.testing.assert_array_equal(inputs[:, t], targets[:, t - 1])
    inputs[...] = 99
    np.testing.assert_array_equal(targets, kept)                # the caller's array is its own


def test_shift_right_of_one_word():
    np.testing.assert_array_equal(shift_right(np.array([[2]]), 1), [[1]])


@pytest.mark.parametrize("function", [padding_mask, causal_padding_mask, lambda ids: shift_right(ids, 1)])
@pytest.mark.parametrize(("ids", "kind", "message"), [
    (IDS[0], ValueError, r"(ids|targets) \(B, T\), got \(4,\): is the batch axis missing"),
    (IDS[None], ValueError, r"got \(1, 3, 4\)"),
    (IDS.astype(float), TypeError, r"(ids|targets) to be an array of integers, got float64 of shape \(3, 4\)"),
    (IDS != 0, TypeError, "got bool"), (IDS.tolist(), TypeError, r"got \[\[4, 7"),
], ids=["1-D", "3-D", "float", "bool", "list"])
def test_wrong_ids(function, ids, kind, message):
    with pytest.raises(kind, match=message):
        function(ids)


@pytest.mark.parametrize("length", [-3, 2.0, True, None, "3"])
def test_a_causal_mask_of_no_length(length):
    with pytest.raises(ValueError, match=f"causal_mask: expected length to be a whole number of at least 0, got '?{length}"):
        causal_mask(length)
    assert causal_mask(0).shape == (1, 1, 0, 0)


@pytest.mark.parametrize("call", [
    lambda: padding_mask(IDS, pad=0.5), lambda: shift_right(IDS, bos=1.5), lambda: shift_right(IDS.astype(np.uint8), bos=300)
])
def test_special_ids_are_whole_numbers(call):
    with pytest.raises(ValueError, match=r"expected (pad|bos) to be"):
        call()
