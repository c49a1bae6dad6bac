"""Reconstructions, and the shuffle of a masked autoencoder: every image and patch is where it belongs; what is refused."""
import numpy as np
import pytest
from figure_parts import images, rng
from matplotlib.figure import Figure

from tinymae import plot
from tinymae.plot import style

NOISE = np.array([0.2, 0.9, 0.5, 0.1, 0.8, 0.3, 0.7, 0.6, 0.4])
ORDER = np.argsort(NOISE)                                       # [3, 0, 5, 8, 2, 7, 6, 4, 1]
RESTORE = np.argsort(ORDER)


# ---- reconstructions -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("channels", [1, 3])
def test_reconstructions_stand_in_rows_and_columns(channels):
    four = [rng().integers(0, 256, (3, 8, 6, channels), dtype=np.uint8) for _ in range(4)]
    four = [array + np.uint8(n) for n, array in enumerate(four)]
    figure = plot.reconstructions(*four)
    axes = figure.axes
    assert len(axes) == 12
    for n, ax in enumerate(axes):                          # column by column
        expected = four[(0, 2, 1, 3)[n // 3]][n % 3]       # what was pasted comes before the plain reconstruction
        np.testing.assert_array_equal(ax.images[0].get_array(), expected[..., 0] if channels == 1 else expected)
        assert ax.images[0].get_clim() == (0, 255)         # no image is stretched to its own range
    left = [round(ax.get_position().x0, 6) for ax in axes]
    top = [round(ax.get_position().y1, 6) for ax in axes]
    assert left == sorted(left) and len(set(left)) == 4
    assert top[:3] == sorted(top[:3], reverse=True) and len(set(top)) == 3
    heads = [ax.get_title() for ax in axes if ax.get_title()]
    assert heads == ["masked", "reconstruction + visible", "reconstruction", "original"]
    assert axes[0].images[0].cmap.name == "gray"


@pytest.mark.parametrize(("rows", "cols", "pixels"), [(8, 8, 1050), (300, 400, 1050), (1200, 900, 1852), (600, 4000, 2000)])
def test_one_image_is_drawn_large_and_with_all_its_pixels(rows, cols, pixels, tmp_path):
    four = [np.full((1, rows, cols, 3), 60 * n, np.uint8) for n in range(4)]
    figure = plot.reconstructions(*four, title="a photograph", mode="normalised")
    axes = figure.axes[1:]
    assert [ax.images[0].get_array()[0, 0, 0] for ax in axes] == [0, 120, 60, 180]
    assert [ax.get_title() for ax in axes] == ["masked", "reconstruction + visible", "reconstruction", "original"]
    left, top = (np.round([getattr(ax.get_position(), side) for ax in axes], 6) for side in ("x0", "y1"))
    assert left[0] == left[2] < left[1] == left[3] and top[0] == top[1] > top[2] == top[3]
    assert all(ax.get_position().width > 0.47 for ax in axes)
    assert "third image" in figure.get_supxlabel().replace("\n", " ")
    content = plot.save(figure, tmp_path / "a.png").read_bytes()
    assert int.from_bytes(content[16:20], "big") == pytest.approx(pixels, abs=1)
    boxes = [ax.get_window_extent() for ax in axes]
    assert all(box.height / box.width == pytest.approx(rows / cols, rel=0.01) for box in boxes)
    assert boxes[2].y1 < axes[2].title.get_window_extent().y0 and axes[2].title.get_window_extent().y1 < boxes[0].y0
    assert figure._supxlabel.get_window_extent().y1 < boxes[2].y0


def test_a_tall_image_stays_on_one_line():
    axes = plot.reconstructions(*[np.zeros((1, 30, 10, 3), np.uint8)] * 4).axes
    assert len({ax.get_position().y0 for ax in axes}) == 1


def test_the_mode_cannot_be_overlooked():
    mode = "normalised pixels: per-patch mean and variance taken from the true image"
    four = [images()] * 4
    figure = plot.reconstructions(*four, title="75 % removed", mode=mode)
    assert figure.get_suptitle() == "75 % removed"
    bar = figure.axes[0]
    (text,) = bar.texts
    assert " ".join(text.get_text().split()) == mode
    assert text.get_weight() == "bold" and text.get_fontsize() > 10
    assert bar.get_facecolor() != (1, 1, 1, 1) and bar.get_position().width > 0.95
    figure.draw_without_rendering()
    assert text.get_window_extent().width < bar.get_window_extent().width
    titles = [ax.title.get_window_extent() for ax in figure.axes[1:] if ax.get_title()]
    assert all(title.y1 <= bar.get_window_extent().y0 for title in titles)
    assert figure._suptitle.get_window_extent().y0 >= bar.get_window_extent().y1

    assert len(plot.reconstructions(*four).axes) == len(figure.axes) - 1


def test_a_long_mode_is_broken_into_lines_that_fit():
    figure = plot.reconstructions(*[images()] * 4, mode="the brightness comes from the true image, " * 6)
    figure.draw_without_rendering()
    text, bar = figure.axes[0].texts[0].get_window_extent(), figure.axes[0].get_window_extent()
    assert text.width < bar.width and text.height < bar.height


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: plot.reconstructions(*[images()] * 3, images(3)), ValueError, "masked has the shape"),
    (lambda: plot.reconstructions(*[images()[0]] * 4), ValueError, r"masked.*\(B, rows, cols, C\)"),
    (lambda: plot.reconstructions(images(), *[images() / 255] * 3), TypeError, "reconstruction must be uint8"),
    (lambda: plot.reconstructions(*[images(channels=2)] * 4), ValueError, "1 or 3 channels"),
])
def test_invalid_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- shuffle ---------------------------------------------------------------------------------------------------------

def image(rows=6, cols=9, channels=3):
    return np.random.default_rng(0).integers(0, 256, (rows, cols, channels), dtype=np.uint8)


def numbers(figure):
    """What is written on the tiles, top to bottom: the images on the left, the four rows on the right."""
    written = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    return written[0], written[1], written[2]


def test_every_patch_stands_where_the_ids_say():
    figure = plot.shuffle(image(), ORDER, RESTORE, 3, (3, 3))
    assert isinstance(figure, Figure)
    whole, decoder, strips = numbers(figure)
    rows = [strips[10 * row + 1 : 10 * row + 10] for row in range(4)]               # a title, then nine tiles
    assert whole == rows[0] == list("012345678")
    assert rows[1] == list("305827641")
    assert rows[2] == list("305MMMMMM")
    assert decoder == rows[3] == list("0MM3M5MMM")


def test_a_wrong_restore_draws_a_wrong_image():
    _, decoder, _ = numbers(plot.shuffle(image(), ORDER, np.arange(9), 3, (3, 3)))
    assert decoder == list("305MMMMMM")


def test_lines_of_visible_patches_are_blue():
    ax = plot.shuffle(image(), ORDER, RESTORE, 3, (3, 3)).axes[2]
    colours = [line.get_color() for line in ax.lines]
    assert len(colours) == 27 and colours.count(style.COLOURS[0]) == 9


@pytest.mark.parametrize(("channels", "grid"), [(1, (3, 3)), (3, (2, 3))])
def test_grey_images_and_different_grids(channels, grid, tmp_path):
    count = grid[0] * grid[1]
    order = np.random.default_rng(1).permutation(count)
    figure = plot.shuffle(image(6, 9, channels), order, np.argsort(order), 2, grid, caption="Mine.")
    assert figure.get_supxlabel() == "Mine."
    assert plot.save(figure, tmp_path / "shuffle.png").stat().st_size > 1000


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"image": image().astype(float)}, TypeError, r"image must be uint8 .* got float64"),
    ({"image": image()[..., 0]}, ValueError, r"image must have the shape \(rows, cols, C\), got \(6, 9\)"),
    ({"image": image(6, 8)}, ValueError, "an image of 6 x 8 does not divide into 3 x 3 equal patches"),
    ({"kept": 9}, ValueError, r"kept must be a whole number in 1\.\.8, got 9"),
    ({"kept": 0}, ValueError, "got 0: some patches stay visible"),
    ({"kept": 2.5}, ValueError, "got 2.5: some patches stay visible"),
    ({"grid": (3, 9)}, ValueError, "a grid of 3 x 9 has 27 patches, but ids_shuffle has 9"),
    ({"image": image(3, 18), "ids_shuffle": np.arange(18), "grid": (1, 18)}, ValueError, "expected 2 to 16 patches"),
    ({"ids_restore": RESTORE.astype(float)}, ValueError, "ids_restore must hold the integers"),
    ({"ids_restore": ORDER[:3]}, ValueError, r"ids_restore must hold .* 0\.\.8 once each, got \[3, 0, 5\]: is it ids_keep"),
    ({"ids_shuffle": np.zeros(9, int)}, ValueError, "ids_shuffle must hold"),
])
def test_shuffle_refuses(changes, error, message):
    given = {"image": image(), "ids_shuffle": ORDER, "ids_restore": RESTORE, "kept": 3, "grid": (3, 3)} | changes
    with pytest.raises(error, match=message):
        plot.shuffle(**given)
