"""The picture of a masked autoencoder's shuffle: every patch is drawn where the ids say, and wrong arrays are refused."""
import numpy as np
import pytest
from matplotlib.figure import Figure

from tinymae import plot
from tinymae.plot import line_charts

NOISE = np.array([0.2, 0.9, 0.5, 0.1, 0.8, 0.3, 0.7, 0.6, 0.4])
ORDER = np.argsort(NOISE)                                       # [3, 0, 5, 8, 2, 7, 6, 4, 1]
RESTORE = np.argsort(ORDER)


def picture(rows=6, cols=9, channels=3):
    return np.random.default_rng(0).integers(0, 256, (rows, cols, channels), dtype=np.uint8)


def numbers(figure):
    """What is written on the tiles, top to bottom: [the pictures left], the four rows right."""
    written = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    return written[0], written[1], written[2]


def test_every_patch_stands_where_the_ids_say():
    figure = plot.shuffle(picture(), ORDER, RESTORE, 3, (3, 3))
    assert isinstance(figure, Figure)
    whole, decoder, strips = numbers(figure)
    rows = [strips[10 * row + 1 : 10 * row + 10] for row in range(4)]               # a title, then nine tiles
    assert whole == rows[0] == list("012345678")
    assert rows[1] == list("305827641")
    assert rows[2] == list("305MMMMMM")
    assert decoder == rows[3] == list("0MM3M5MMM")


def test_a_wrong_restore_draws_a_wrong_picture():
    _, decoder, _ = numbers(plot.shuffle(picture(), ORDER, np.arange(9), 3, (3, 3)))
    assert decoder == list("305MMMMMM")


def test_lines_of_visible_patches_are_blue():
    ax = plot.shuffle(picture(), ORDER, RESTORE, 3, (3, 3)).axes[2]
    colours = [line.get_color() for line in ax.lines]
    assert len(colours) == 27 and colours.count(line_charts.COLOURS[0]) == 9


@pytest.mark.parametrize(("channels", "grid"), [(1, (3, 3)), (3, (2, 3))])
def test_grey_pictures_and_other_grids(channels, grid, tmp_path):
    count = grid[0] * grid[1]
    order = np.random.default_rng(1).permutation(count)
    figure = plot.shuffle(picture(6, 9, channels), order, np.argsort(order), 2, grid, caption="Mine.")
    assert figure.get_supxlabel() == "Mine."
    assert plot.save(figure, tmp_path / "shuffle.png").stat().st_size > 1000


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"picture": picture().astype(float)}, TypeError, r"picture must be uint8 .* got float64 \(6, 9, 3\)"),
    ({"picture": picture()[..., 0]}, TypeError, r"picture must be uint8 \(rows, cols, C\)"),
    ({"picture": picture(6, 8)}, ValueError, "a picture of 6 x 8 does not divide into 3 x 3 patches"),
    ({"kept": 9}, ValueError, "got 9 and kept=9"),
    ({"kept": 0}, ValueError, "got 9 and kept=0"),
    ({"grid": (3, 9)}, ValueError, "expected 2 to 16 patches"),
    ({"ids_restore": ORDER[:3]}, ValueError, r"ids_restore must hold 0\.\.8 once each, got \[3, 0, 5\]: is it ids_keep"),
    ({"ids_shuffle": np.zeros(9, int)}, ValueError, "ids_shuffle must hold"),
])
def test_refused(changes, error, message):
    given = {"picture": picture(), "ids_shuffle": ORDER, "ids_restore": RESTORE, "kept": 3, "grid": (3, 3)} | changes
    with pytest.raises(error, match=message):
        plot.shuffle(**given)
