"""Matrices side by side, and the probabilities of a model beside their targets: what is drawn, and what is refused."""
import itertools

import numpy as np
import pytest
from figure_parts import caption, maps, rng, scores, softmax_rows, tick_labels, values, written

from tinymae import plot
from tinymae.plot import Panel, style

READ = "How to read it: from left to right."
WORDS = "a am i thanks student <eos>".split()
TARGET = np.eye(6)[[2, 1, 0, 4, 5]]


def heatmaps(panels=None, **options):
    panels = panels or [Panel("weights", rng().random((3, 4))), Panel("gradient", rng().normal(size=(3, 4)), 3, signed=True)]
    return plot.heatmaps(panels, "key", "query", READ, **options)


# ---- heatmaps --------------------------------------------------------------------------------------------------------

def test_heatmaps_have_fixed_ranges_titles_and_numbers():
    weights, gradient = np.array([[0, 0.25], [0.75, 1]]), np.array([[-2, 0.001], [-0.001, 3]])
    figure = heatmaps([Panel("weights", weights), Panel("gradient", gradient, 3, signed=True)])
    left, right = maps(figure)
    assert [ax.get_title() for ax in (left, right)] == ["weights", "gradient"]
    assert [ax.collections[0].get_clim() for ax in (left, right)] == [(0, 1), (-3, 3)]
    assert [ax.collections[0].get_cmap().name for ax in (left, right)] == [style.AMOUNT, style.SIGNED]
    np.testing.assert_array_equal(np.asarray(right.collections[0].get_array()).reshape(2, 2), gradient)
    assert written(left) == ["0", "0.25", "0.75", "1.00"]
    assert written(right) == ["-2.00", "0.00", "0.00", "3.00"]                  # no cell shows -0.00
    assert [text.get_color() for text in left.texts] == ["white", "white", "black", "black"]
    assert [text.get_color() for text in right.texts] == ["white", "black", "black", "white"]
    assert "Values run" not in caption(figure)


def test_heatmaps_say_what_lies_beyond_the_range():
    figure = heatmaps([Panel("a", np.array([[0.5, 2]])), Panel("b", np.array([[0.5, 1]]))])
    assert "a: Values run from 0.5 to 2" in caption(figure) and "b:" not in caption(figure)


def test_heatmaps_name_rows_and_columns_and_leave_large_ones_without_numbers():
    named, large = maps(heatmaps([Panel("a", np.eye(2), down=["i", "am"], across=["ich", "bin"]), Panel("b", np.eye(30))]))
    assert tick_labels(named.yaxis) == ["i", "am"] and tick_labels(named.xaxis) == ["ich", "bin"]
    assert tick_labels(large.xaxis) == [str(i) for i in range(0, 30, 3)]
    assert written(named) and not written(large)


@pytest.mark.parametrize(("panels", "message"), [
    ([], "expected at least one panel"),
    ([Panel("a", np.eye(2), 0.0)], "top of 'a' must be a number above 0, got 0.0"),
    ([Panel("a", np.eye(2), np.nan)], "top of 'a' must be a number above 0, got nan"),
    ([Panel("a", np.zeros(3))], r"array of 'a' must have the shape \(rows, columns\), got \(3,\)"),
    ([Panel("a", np.array([[np.nan]]))], "array of 'a' must be finite"),
    ([Panel("a", np.eye(2), down=["one"])], "down of 'a' has 1 tokens, but the rows and columns of the array have 2"),
])
def test_heatmaps_refuse(panels, message):
    with pytest.raises(ValueError, match=message):
        plot.heatmaps(panels, "key", "query", READ)


# ---- outputs ---------------------------------------------------------------------------------------------------------

def test_outputs_stand_side_by_side_in_one_scale():
    trained = softmax_rows(5, 6)
    left, right = maps(plot.output_probabilities(TARGET, trained, WORDS))
    np.testing.assert_array_equal(values(left), TARGET)
    np.testing.assert_array_equal(values(right), trained)
    assert left.collections[0].get_clim() == right.collections[0].get_clim() == (0, 1)
    assert tick_labels(left.xaxis) == tick_labels(right.xaxis) == WORDS
    assert tick_labels(left.yaxis) == list("01234")
    assert written(left)[:6] == ["0", "0", "1.00", "0", "0", "0"]
    assert written(right) == [f"{p:.2f}" for p in trained.ravel()]
    assert left.get_position().y0 == right.get_position().y0


def test_many_words_get_the_whole_width():
    figure = plot.output_probabilities(np.eye(30)[:4], softmax_rows(4, 30), WORDS * 5)
    figure.draw_without_rendering()
    above, below = maps(figure)
    assert above.get_position().y0 > below.get_position().y1
    assert tick_labels(below.xaxis) == WORDS * 5 and tick_labels(above.xaxis) == []
    assert written(above) == []
    boxes = [label.get_window_extent() for label in below.get_xticklabels()]
    assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize(("changed", "message"), [
    ({"trained": softmax_rows(4, 6)}, r"target \(5, 6\) and trained \(4, 6\) must have one shape"),
    ({"trained": np.full((5, 6), 0.5)}, "trained must hold probabilities, but row 0 sums to 3"),
    ({"target": TARGET * 0}, "target must hold probabilities, but row 0 sums to 0"),
    ({"trained": scores(5, 6)}, r"trained must lie in 0\.\.1"),
    ({"tokens": WORDS[:5]}, "tokens has 5 tokens, but the probabilities have 6"),
])
def test_output_probabilities_refuse(changed, message):
    with pytest.raises(ValueError, match=message):
        plot.output_probabilities(**({"target": TARGET, "trained": softmax_rows(5, 6), "tokens": WORDS} | changed))
