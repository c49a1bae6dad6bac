"""The fills against loops, and the promise that they never look at what was removed."""
import numpy as np
import pytest

from tinymae.images.fills import biharmonic_fill, linear_fill, mean_fill, nearest_fill, removed_pixels
from tinymae.images.harmonic import harmonic_fill

FILLS = [mean_fill, nearest_fill, linear_fill, harmonic_fill, biharmonic_fill]


def pictures(shape=(3, 12, 16, 2), dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def patches_gone(shape=(3, 12, 16), patch=2, share=0.75, seed=0):
    """Random patches removed; the first patch of each picture always stays."""
    batch, rows, cols = shape
    mask = np.random.default_rng(seed).random((batch, rows // patch * (cols // patch))) < share
    mask[:, 0] = False
    return removed_pixels(mask, rows, cols, patch)


def affine_ramp(batch, rows, cols):
    """A plane in each channel: what linear interpolation gets exactly right."""
    row, col = np.mgrid[:rows, :cols]
    ramp = np.stack([1 + 0.5 * row - 0.25 * col, 2.0 * col + row, np.full(row.shape, 3.0)], axis=-1)
    return np.repeat(ramp[None], batch, axis=0)


def inside_hull(point, points):
    """Whether a pixel lies in the convex hull of others (edge included): no line through it has all on one side."""
    angles = []
    for row, col in points:
        angles.append(np.arctan2(col - point[1], row - point[0]))
    angles = np.sort(angles)
    gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    return gaps.max() <= np.pi + 1e-9


# The mask


def test_removed_pixels():
    mask = np.array([[1, 0, 0, 0, 1, 0], [0, 0, 1, 1, 1, 0]])   # 2 x 3 patches
    removed = removed_pixels(mask, rows=4, cols=6, patch_size=2)
    assert removed.shape == (2, 4, 6) and removed.dtype == bool
    for b, row, col in np.ndindex(removed.shape):
        assert removed[b, row, col] == mask[b, (row // 2) * 3 + col // 2], (b, row, col)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_removed_pixels_dtypes(dtype):
    mask = np.array([[1, 0, 0, 1]], dtype=dtype)
    assert removed_pixels(mask, 2, 2, 1).tolist() == [[[True, False], [False, True]]]


@pytest.mark.parametrize(("mask", "size", "message"), [
    (np.zeros((1, 6)), (5, 6, 2), "2 x 2 do not tile an image of 5 x 6"),
    (np.zeros((1, 6)), (4, 7, 2), "do not tile"),
    (np.zeros((1, 6)), (4, 6, 0), "do not tile"),
    (np.zeros((1, 7)), (4, 6, 2), r"shape \(1, 7\); expected \(B, 6\).*class token"),
    (np.zeros(6), (4, 6, 2), r"shape \(6,\)"),
    (np.array([[0, 1, 2, 3, 4, 5]]), (4, 6, 2), "values that are not 0 .* or 1"),
    (np.full((1, 6), 0.5), (4, 6, 2), "values that are not 0"),
    (np.full((1, 6), np.nan), (4, 6, 2), "values that are not 0"),
])
def test_removed_pixels_errors(mask, size, message):
    with pytest.raises(ValueError, match=message):
        removed_pixels(mask, *size)


# What all fills promise


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_contract(fill, dtype):
    images, removed = pictures(dtype=dtype), patches_gone()
    before = images.copy()
    images.setflags(write=False)
    removed.setflags(write=False)
    with np.errstate(all="raise"):
        filled = fill(images, removed)
    assert filled.dtype == dtype and filled.shape == images.shape
    np.testing.assert_array_equal(filled[~removed], before[~removed])
    assert (filled[removed] != before[removed]).any()
    filled[:] = 0                                               # fresh, and the caller's to write into
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("fill", FILLS)
def test_never_looks_at_removed_pixels(fill):
    images, removed = pictures(), patches_gone()
    expected = fill(images, removed)
    hidden = images.copy()
    hidden[removed] = np.nan
    np.testing.assert_array_equal(fill(hidden, removed), expected)


@pytest.mark.parametrize("fill", FILLS)
def test_pictures_and_channels_do_not_mix(fill):
    images, removed = pictures(), patches_gone()
    together = fill(images, removed)
    for b in range(3):
        for c in range(2):
            alone = fill(images[b:b + 1, ..., c:c + 1], removed[b:b + 1])
            np.testing.assert_allclose(together[b, ..., c], alone[0, ..., 0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("fill", FILLS)
def test_nothing_removed(fill):
    images = pictures()
    np.testing.assert_array_equal(fill(images, np.zeros(images.shape[:3], bool)), images)


@pytest.mark.parametrize("fill", FILLS)
def test_non_contiguous_input(fill):
    images, removed = pictures(), patches_gone()
    flipped = images[:, ::-1].transpose(0, 2, 1, 3), removed[:, ::-1].transpose(0, 2, 1)
    np.testing.assert_array_equal(fill(*flipped), fill(*(array.copy() for array in flipped)))


@pytest.mark.parametrize("fill", FILLS)
def test_errors(fill):
    images, removed = pictures(), patches_gone()
    with pytest.raises(TypeError, match="uint8; expected floats"):
        fill(images.astype(np.uint8), removed)
    with pytest.raises(TypeError, match="float64; expected bool"):
        fill(images, removed.astype(float))
    with pytest.raises(ValueError, match=r"\(3, 12, 16, 2\) and removed \(3, 12, 15\)"):
        fill(images, removed[:, :, :-1])
    with pytest.raises(ValueError, match="expected \\(B, rows, cols, C\\)"):
        fill(images[0], removed[0])
    removed = removed.copy()
    removed[1] = True
    with pytest.raises(ValueError, match="image 1 has no visible pixel"):
        fill(images, removed)


# Each against its loops


def test_mean_against_loops():
    images, removed = pictures(), patches_gone()
    filled = mean_fill(images, removed)
    for b in range(3):
        visible = [images[b, row, col] for row, col in np.ndindex(12, 16) if not removed[b, row, col]]
        mean = sum(visible) / len(visible)
        for row, col in np.argwhere(removed[b]):
            np.testing.assert_allclose(filled[b, row, col], mean, rtol=0, atol=1e-12)


def test_mean_of_many_float32_pixels():
    images = np.full((1, 500, 500, 1), 0.1, np.float32)
    removed = np.zeros((1, 500, 500), bool)
    removed[0, 0, 0] = True
    assert mean_fill(images, removed)[0, 0, 0, 0] == np.float32(0.1)      # summed in float32 this drifts


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_nearest_against_loops(patch):
    removed = patches_gone(patch=patch, share=0.85)
    images = np.arange(removed.size, dtype=np.float64).reshape(*removed.shape, 1)          # a pixel's value names it
    filled = nearest_fill(images, removed)
    for b in range(3):
        visible = np.argwhere(~removed[b])
        for row, col in np.argwhere(removed[b]):
            smallest = min((row - r) ** 2 + (col - c) ** 2 for r, c in visible)
            picture, r, c = np.unravel_index(int(filled[b, row, col, 0]), removed.shape)
            assert picture == b and not removed[b, r, c], (b, row, col)
            assert (row - r) ** 2 + (col - c) ** 2 == smallest, (b, row, col)              # of equals, any


@pytest.mark.parametrize(("patch", "share"), [(1, 0.3), (1, 0.75), (1, 0.97), (2, 0.75), (4, 0.6)])
def test_linear_is_exact_on_a_plane(patch, share):
    removed = patches_gone(patch=patch, share=share)
    ramp = affine_ramp(*removed.shape)
    filled, nearest = linear_fill(ramp, removed), nearest_fill(ramp, removed)
    inside = 0
    for b in range(3):
        visible = np.argwhere(~removed[b])
        for row, col in np.argwhere(removed[b]):
            if inside_hull((row, col), visible):
                inside += 1
                np.testing.assert_allclose(filled[b, row, col], ramp[b, row, col], rtol=0, atol=1e-10)
            else:
                np.testing.assert_array_equal(filled[b, row, col], nearest[b, row, col])
    assert inside > 10


def test_linear_in_one_triangle():
    images = np.full((1, 5, 5, 1), np.nan)
    images[0, 0, 0], images[0, 4, 0], images[0, 0, 4] = 1, 2, 5
    removed = np.isnan(images[..., 0])
    filled = linear_fill(images, removed)[0, ..., 0]
    for row, col in np.ndindex(5, 5):
        if row + col <= 4:
            down, across = row / 4, col / 4                     # barycentric: the corner has what they leave
            np.testing.assert_allclose(filled[row, col], (1 - down - across) * 1 + down * 2 + across * 5, atol=1e-12)
        else:
            assert filled[row, col] in (1, 2, 5)                # outside: one of the three, not a mixture


def test_linear_stays_between_its_neighbours():
    images, removed = pictures(), patches_gone()
    filled = linear_fill(images, removed)
    for b in range(3):
        visible = images[b][~removed[b]]
        assert (filled[b] <= visible.max(axis=0) + 1e-12).all() and (filled[b] >= visible.min(axis=0) - 1e-12).all()


@pytest.mark.parametrize("visible", [
    [(2, 3)],
    [(0, 0), (5, 6)],
    [(0, 0), (2, 2), (4, 4)],                                   # a diagonal
    [(1, 0), (1, 3), (1, 5), (1, 6)],                           # a row
    [(0, 4), (3, 4), (5, 4)],                                   # a column
    [(0, 1), (1, 3), (2, 5)],
])
def test_linear_without_a_triangle_is_nearest(visible):
    images = pictures((1, 6, 7, 2))
    removed = np.ones((1, 6, 7), bool)
    for row, col in visible:
        removed[0, row, col] = False
    filled = linear_fill(images, removed)
    np.testing.assert_array_equal(filled, nearest_fill(images, removed))
    assert np.isfinite(filled).all()


def test_linear_of_one_row():
    images = pictures((1, 1, 7, 1))
    removed = np.array([[[False, True, True, False, True, True, False]]])
    np.testing.assert_array_equal(linear_fill(images, removed), nearest_fill(images, removed))


def test_biharmonic_fill_continues_a_bend():
    """A saddle: where flat triangles cut its corners, the smoothest surface is exact."""
    row, col = np.mgrid[:24, :24] / 12 - 1
    saddle = np.stack([row * col, row**2 - col**2], axis=-1)[None]
    removed = np.zeros((1, 24, 24), bool)
    removed[0, 6:18, 6:18] = True
    np.testing.assert_allclose(biharmonic_fill(saddle, removed), saddle, atol=1e-9)
    assert abs(linear_fill(saddle, removed) - saddle).max() > 0.01


def test_a_harmonic_fill_solves_its_equation():
    rng = np.random.default_rng(0)
    image, hidden = rng.normal(size=(9, 13, 2)), rng.random((9, 13)) < 0.7
    filled = harmonic_fill(image[None], hidden[None], sweeps=600)[0]
    np.testing.assert_array_equal(filled[~hidden], image[~hidden])
    matrix, right = np.eye(9 * 13), image.reshape(-1, 2).copy()
    for row, col in np.argwhere(hidden):
        right[row * 13 + col] = 0
        for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            near = min(max(row + down, 0), 8) * 13 + min(max(col + across, 0), 12)
            matrix[row * 13 + col, near] -= 0.25
    np.testing.assert_allclose(filled.reshape(-1, 2), np.linalg.solve(matrix, right), atol=1e-9)


def test_a_harmonic_fill_of_one_colour_is_that_colour():
    hidden = np.ones((20, 31), bool)
    hidden[17, 2] = False
    np.testing.assert_allclose(harmonic_fill(np.full((1, 20, 31, 3), 0.7), hidden[None]), 0.7, rtol=1e-12)
