"""Named points in the plane: where points and names are drawn, and what is refused."""
import itertools

import numpy as np
import pytest
from figure_parts import legend, rng

from tinymae import plot
from tinymae.plot import style

READ = "How to read it: from left to right."


def cloud(count, groups=2, names="word{}"):
    places = rng().normal(size=(groups, count, 2))
    return {f"group {i}": (where, [names.format(j) for j in range(count)]) for i, where in enumerate(places)}


def points(groups=None):
    return plot.points(groups or cloud(6), "first", "second", READ)


def boxes(ax):
    """The boxes of the names, in pixels."""
    return [text.get_window_extent() for text in ax.texts if text.get_text()]


def test_points_stand_where_they_should_in_the_colour_of_their_group():
    groups = cloud(6)
    (ax,) = points(groups).axes
    assert ax.get_aspect() == 1                                         # distances can be compared
    assert legend(ax) == list(groups)
    for dots, (where, _), colour in zip(ax.lines, groups.values(), style.COLOURS, strict=False):
        np.testing.assert_array_equal(dots.get_xydata(), where)
        assert dots.get_color() == colour
    names = [text for text in ax.texts if text.get_text()]
    assert [text.get_text() for text in names] == [name for _, named in groups.values() for name in named]
    np.testing.assert_array_equal([text.xy for text in names], np.concatenate([where for where, _ in groups.values()]))
    assert [text.get_color() for text in names] == [colour for colour in style.COLOURS[:2] for _ in range(6)]


def test_names_neither_touch_each_other_nor_hide_points_nor_leave_the_page():
    where = np.array([[0, 0], [0.001, 0], [1, 1], [1, 0.99], [0.5, 0.5], [0, 1]])           # two pairs almost in one place
    figure = points({"close": (where, ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"])})
    figure.draw_without_rendering()
    (ax,) = figure.axes
    drawn = boxes(ax)
    assert len(drawn) == 6
    assert not any(a.overlaps(b) for a, b in itertools.combinations(drawn, 2))
    for box in drawn:
        assert not any(box.contains(x, y) for x, y in ax.transData.transform(where))
        assert box.x0 >= ax.bbox.x0 and box.x1 <= ax.bbox.x1 and box.y0 >= ax.bbox.y0 and box.y1 <= ax.bbox.y1


def test_saving_moves_neither_points_nor_names(tmp_path):
    figure = points(cloud(10, 4))
    figure.draw_without_rendering()
    (ax,) = figure.axes
    before = [box.bounds for box in boxes(ax)]
    plot.save(figure, tmp_path / "a.png")
    np.testing.assert_allclose([box.bounds for box in boxes(ax)], before)


@pytest.mark.parametrize(("groups", "error", "message"), [
    ([[1, 2]], TypeError, r"expected a dict of 1 to 8 \{group: \(coordinates, names\)\}"),
    (cloud(1, 9), TypeError, "a dict of 1 to 8"),
    ({"a": (np.zeros((2, 3)), ["x", "y"])}, ValueError, r"\['a'\]: expected two numbers for each of the 2 names, got \(2, 3\)"),
    ({"a": (np.zeros((2, 2)), ["x"])}, ValueError, r"for each of the 1 names, got \(2, 2\)"),
    ({"a": (np.zeros(2), ["x", "y"])}, ValueError, r"coordinates of 'a' must have the shape \(n, 2\)"),
    ({"a": (np.full((1, 2), np.inf), ["x"])}, ValueError, "coordinates of 'a' must be finite"),
    (cloud(41), ValueError, "at most 80 points, whose names can still be read, got 82"),
])
def test_points_refuse(groups, error, message):
    with pytest.raises(error, match=message):
        points(groups)
