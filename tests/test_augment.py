"""Augmentation: what is mixed with what, and that nothing else changes."""
import numpy as np
import pytest

from tinymae.images.augment import crop_and_flip, mixup


def rng():
    return np.random.default_rng(3)


def one_colour(count):
    """Picture i is all 10 i, of class i."""
    images = np.zeros((count, 4, 4, 2), np.float32) + 10 * np.arange(count, dtype=np.float32)[:, None, None, None]
    return images, np.arange(count)


def test_mixup_mixes_pictures_and_labels_by_the_same_shares():
    images, labels = one_colour(40)
    mixed, targets = mixup(images, labels, 40, rng())
    assert mixed.dtype == targets.dtype == np.float32 and mixed.shape == images.shape and targets.shape == (40, 40)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    assert ((targets > 0).sum(axis=1) <= 2).all() and (targets[np.arange(40), labels] > 0).all()
    colours = targets @ (10 * labels)                           # what the shares say the mixture looks like
    np.testing.assert_allclose(mixed, np.broadcast_to(colours[:, None, None, None], mixed.shape), atol=1e-4)
    np.testing.assert_array_equal(images, one_colour(40)[0])
    other = mixup(images, labels, 40, np.random.default_rng(4))[1]
    assert not np.allclose(targets, other)


def test_mixup_of_one_class_changes_no_label():
    images, _ = one_colour(8)
    _, targets = mixup(images, np.full(8, 2), 3, rng())
    np.testing.assert_allclose(targets, np.broadcast_to([0, 0, 1], (8, 3)), atol=1e-6)


def test_shares_of_mixup_follow_beta():
    """Variance of Beta(a, a): 1 / (4 (2 a + 1)). The share of one's own label, where the other is of another class."""
    images, labels = np.zeros((4000, 1, 1, 1)), np.arange(4000)
    for alpha in (0.2, 1.0, 8.0):
        share = mixup(images, labels, 4000, rng(), alpha=alpha)[1][labels, labels]
        assert abs(share.mean() - 0.5) < 0.03
        assert abs(share.var() * 4 * (2 * alpha + 1) - 1) < 0.1


@pytest.mark.parametrize(("change", "error", "says"), [
    ({"images": np.zeros((2, 4, 4, 1), np.uint8)}, TypeError, "got uint8"),
    ({"alpha": 0}, ValueError, "alpha above 0, got 0: leave mixup out"),
    ({"alpha": float("nan")}, ValueError, "got nan"),
    ({"labels": np.array([0.0, 1.0])}, ValueError, r"integer labels \(2,\), got \(2,\) of float64"),
    ({"labels": np.array([0, 1, 2])}, ValueError, r"got \(3,\)"),
    ({"labels": np.array([0, 3])}, IndexError, r"labels in \[0, 3\), got \[0, 3\]"),
])
def test_mixup_refuses(change, error, says):
    good = {"images": np.zeros((2, 4, 4, 1)), "labels": np.array([0, 1]), "classes": 3, "rng": rng()}
    with pytest.raises(error, match=says):
        mixup(**(good | change))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(("pad", "flip"), [(0, False), (0, True), (2, False), (2, True)])
def test_a_crop_is_one_of_the_shifts_and_every_shift_comes(dtype, pad, flip):
    picture = np.arange(6 * 5 * 2).reshape(6, 5, 2).astype(dtype)
    images = np.repeat(picture[None], 600, axis=0)
    crops = crop_and_flip(images, rng(), pad=pad, flip=flip)
    assert crops.dtype == dtype and crops.shape == images.shape and not np.shares_memory(crops, images)
    wide = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    shifts = [wide[r : r + 6, c : c + 5] for r in range(2 * pad + 1) for c in range(2 * pad + 1)]
    possible = [shift.tobytes() for shift in shifts] + [shift[:, ::-1].tobytes() for shift in shifts if flip]
    seen = [crop.tobytes() for crop in crops]
    assert set(seen) == set(possible)
    assert max(seen.count(shift) for shift in possible) < 3 * len(seen) / len(possible)
    np.testing.assert_array_equal(images[0], picture)


def test_crop_and_flip_takes_whole_pictures_to_their_own_places():
    """Each picture is shifted, none is exchanged."""
    images, _ = one_colour(30)
    np.testing.assert_array_equal(crop_and_flip(images, rng()), images)


@pytest.mark.parametrize(("shape", "pad"), [((4, 4, 1), 2), ((2, 4, 4, 1), -1)])
def test_crop_and_flip_refuses(shape, pad):
    with pytest.raises(ValueError, match=rf"pad from 0 up, got .* and {pad}"):
        crop_and_flip(np.zeros(shape), rng(), pad=pad)
