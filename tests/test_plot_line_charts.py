"""Losses, measurements and learning rates: what is drawn, in which range, with which words; what is refused."""
import itertools

import numpy as np
import pytest
from figure_parts import caption, legend, rng, tick_labels

from tinymae import plot
from tinymae.train.optim import noam

READ = "How to read it: from left to right."


def curves(curves=None, **options):
    curves = curves or {"with": rng().random(9), "without": (np.arange(5), rng().random(5))}
    return plot.curves(curves, "step", "loss", READ, **options)


# ---- loss curve ------------------------------------------------------------------------------------------------------

def test_loss_curve_shows_every_part():
    steps = np.arange(200)
    losses = 2 * np.exp(-steps / 50) + 0.1
    figure = plot.loss_curve(steps, losses, learning_rates=1e-3 * steps, evaluations={50: 0.9, 0: 2.2, 199: 0.3},
                             baselines={"mean": 1.5, "chance": 1.9})
    ax, below = figure.axes
    raw, smooth, dots, *_ = ax.lines
    np.testing.assert_array_equal(raw.get_ydata(), losses)
    assert raw.get_linewidth() < smooth.get_linewidth()
    np.testing.assert_array_equal(dots.get_xdata(), [0, 50, 199])           # in order of steps
    np.testing.assert_array_equal(dots.get_ydata(), [2.2, 0.9, 0.3])
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == [1.5, 1.9]
    assert [text.get_text() for text in ax.texts] == ["mean: 1.5", "chance: 1.9"]
    assert ax.get_ylabel() == "loss" and below.get_ylabel() == "learning rate" and below.get_xlabel() == "step"
    np.testing.assert_array_equal(below.lines[0].get_ydata(), 1e-3 * steps)
    assert ax.get_yscale() == "linear" and ax.get_ylim()[0] == 0 and ax.get_ylim()[1] > 2.2
    assert "does not start at 0" not in caption(figure)


def test_loss_curve_alone_has_one_panel():
    figure = plot.loss_curve([1, 2, 3], [3.0, 2.0, 1.0])
    (ax,) = figure.axes
    assert ax.get_xlabel() == "step" and not ax.texts
    assert "Dots" not in caption(figure) and "Dashed" not in caption(figure)


@pytest.mark.parametrize("count", [4, 30, 2000])
def test_a_spike_in_the_first_step_neither_flattens_nor_hides(count):
    losses = np.linspace(1.0, 0.2, count)
    losses[0] = 500.0
    figure = plot.loss_curve(np.arange(count), losses)
    assert figure.axes[0].get_ylim()[1] < 1.3
    assert f"1 of {count} steps lie above the figure, the highest is 500 at step 0" in caption(figure)
    assert figure.axes[0].lines[1].get_ydata().max() <= 1.0                 # the median does not see it


def test_ordinary_noise_is_shown_in_full():
    losses = 1 + 0.3 * rng().random(300)
    losses[100] = 1.6
    figure = plot.loss_curve(np.arange(300), losses)
    assert figure.axes[0].get_ylim()[1] > 1.6 and "above the figure" not in caption(figure)


def test_the_axis_says_when_it_does_not_start_at_zero():
    flat = plot.loss_curve(np.arange(50), np.linspace(1.0, 0.95, 50), caption="mine")
    assert 0.9 < flat.axes[0].get_ylim()[0] < 0.95 and "does not start at 0" in caption(flat)
    negative = plot.loss_curve(np.arange(50), np.linspace(1.0, -2.0, 50))
    assert negative.axes[0].get_ylim()[0] < -2 and "does not start at 0" in caption(negative)


@pytest.mark.parametrize("losses", [[2.0], [0.0, 0.0], [2.0, 1.0], [3.0, 3.0, 3.0]])
def test_loss_curve_of_almost_nothing(losses):
    ax = plot.loss_curve(np.arange(len(losses)), losses).axes[0]
    assert (ax.lines[1].get_marker() == "o") == (len(losses) == 1)          # a single point needs a dot to be seen
    bottom, top = ax.get_ylim()
    assert bottom <= min(losses) and top > max(losses)


def test_names_of_close_lines_do_not_overlap():
    figure = plot.loss_curve([0, 1, 2], [3.0, 2.0, 1.0], baselines={"a": 2.0, "b": 2.01, "c": 1.99})
    figure.draw_without_rendering()
    assert [text.get_text()[0] for text in figure.axes[0].texts] == ["c", "a", "b"]
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert all(high.y0 >= low.y1 for low, high in itertools.pairwise(boxes))
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)


def test_evaluations_before_the_first_step_stay_inside():
    ax = plot.loss_curve([10, 20], [2.0, 1.0], evaluations={0: 2.5, 30: 1.5}).axes[0]
    assert ax.get_xlim() == (0, 30)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: plot.loss_curve([0, 1], [1.0]), ValueError, "2 steps and 1 losses"),
    (lambda: plot.loss_curve([], []), ValueError, r"\(0,\)"),
    (lambda: plot.loss_curve([0, 1], [1.0, np.inf]), ValueError, r"losses\[1\] is inf"),
    (lambda: plot.loss_curve([0, 2, 1], [3, 2, 1]), ValueError, "2 is followed by 1"),
    (lambda: plot.loss_curve(np.array([2, 1], np.uint32), [3, 2]), ValueError, "2 is followed by 1"),
    (lambda: plot.loss_curve([0, 1], [3, 2], learning_rates=[0.1]), ValueError, "2 steps and 1 learning rates"),
    (lambda: plot.loss_curve([0, 1], [3, 2], evaluations=[3, 2]), TypeError, "evaluations must be a dict"),
    (lambda: plot.loss_curve([0, 1], [3, 2], baselines=2.0), TypeError, "baselines must be a dict.*float"),
    (lambda: plot.loss_curve([0, 1], [3, 2], evaluations={0: np.nan}), ValueError, "evaluations"),
    (lambda: plot.loss_curve([0, 1], [3, 2], baselines={"mean": np.nan}), ValueError, "baselines"),
])
def test_invalid_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- curves ----------------------------------------------------------------------------------------------------------

def test_curves_are_drawn_as_given_with_levels_behind_them():
    first, second = rng().random(9), (np.array([2.0, 5, 9]), np.array([1.0, 3, 2]))
    (ax,) = curves({"a": first, "b": second}, levels={"ln V": 0.7}, ylim=(0, 4), markers=True).axes
    a, b, level = ax.lines
    np.testing.assert_array_equal(a.get_xdata(), np.arange(1, 10))
    np.testing.assert_array_equal(a.get_ydata(), first)
    np.testing.assert_array_equal(b.get_xydata().T, second)
    assert level.get_ydata() == [0.7, 0.7] and level.get_linestyle() == "--" and level.get_zorder() < a.get_zorder()
    assert a.get_color() != b.get_color() and a.get_marker() == "o"
    assert legend(ax) == ["a", "b", "ln V"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_ylim()) == ("step", "loss", (0, 4))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_run_that_broke_ends_there_and_says_so(broken):
    (ax,) = curves({"too fast": np.array([3.0, 5, broken, 1]), "fine": np.ones(4)}).axes
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [3, 5])
    assert legend(ax) == ["too fast (not finite from 3 on)", "fine"]


def test_logarithmic_axes_have_plain_numbers():
    (ax,) = curves({"error": (10.0 ** np.arange(-4, 3), 10.0 ** np.arange(7))}, xscale="log", yscale="log").axes
    ax.figure.draw_without_rendering()
    assert {"0.0001", "0.01", "1", "100"} <= set(tick_labels(ax.xaxis))
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


@pytest.mark.parametrize(("given", "error", "message"), [
    ([1.0, 2.0], TypeError, r"expected a dict of 1 to 8 \{name: y or \(x, y\)\}"),
    ({str(i): [1.0] for i in range(9)}, TypeError, "a dict of 1 to 8"),
    ({"a": (np.arange(3), np.arange(4))}, ValueError, r"curves\['a'\]: expected as many y as x, got \(4,\) and \(3,\)"),
    ({"a": (np.array([1, np.nan]), np.arange(2))}, ValueError, "x of 'a' must be finite"),
    ({"a": np.ones((2, 3))}, ValueError, r"curves\['a'\]: expected as many y as x"),
])
def test_curves_refuse(given, error, message):
    with pytest.raises(error, match=message):
        curves(given)


@pytest.mark.parametrize(("options", "message"), [
    ({"xscale": "symlog"}, "xscale must be 'linear' or 'log', got 'symlog'"),
    ({"yscale": None}, "yscale must be 'linear' or 'log', got None"),
    ({"levels": {str(i): i for i in range(9)}}, "at most 8 lines, which can be told apart, got 9"),
])
def test_curves_refuse_options(options, message):
    with pytest.raises(ValueError, match=message):
        curves(**options)


# ---- learning rates --------------------------------------------------------------------------------------------------

def test_learning_rates_count_steps_from_one_and_mark_the_highest():
    rates = [noam(step, 64, 10) for step in range(1, 41)]
    (ax,) = plot.learning_rates({"noam": rates, "flat": [1e-3] * 5}).axes
    curve, top, *_ = ax.lines
    np.testing.assert_array_equal(curve.get_xdata(), np.arange(1, 41))
    np.testing.assert_array_equal(curve.get_ydata(), rates)
    assert (top.get_xdata().item(), top.get_ydata().item()) == (10, max(rates))
    assert ax.get_xlim() == (0, 40) and ax.get_ylim() == (0, 1.08 * max(rates))
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [f"noam: at most {max(rates):.2e}", "flat: at most 1.00e-03"]


@pytest.mark.parametrize(("curves", "error", "message"), [
    ([1.0, 2.0], TypeError, "curves must be a dict {name: rates}, got list"),
    ({}, ValueError, "1 to 8 schedules, which can be told apart, got 0"),
    ({str(i): [1.0] for i in range(9)}, ValueError, "got 9"),
    ({"a": [0.1, -0.2]}, ValueError, r"curves\['a'\] must not be negative, got -0.2 at step 2"),
    ({"a": [0.1, np.inf]}, ValueError, r"curves\['a'\] must be finite"),
    ({"a": 0.1}, ValueError, r"curves\['a'\] must have the shape \(n,\)"),
])
def test_learning_rates_refuse(curves, error, message):
    with pytest.raises(error, match=message):
        plot.learning_rates(curves)
