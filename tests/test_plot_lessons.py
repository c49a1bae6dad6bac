"""Pictures of experiments: what is drawn, in which range, with which names; what is refused; that nothing is left behind."""
import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from tinymae import plot
from tinymae.plot import Panel, line_charts, style

READ = "How to read it: from left to right."
CHINESE = list("我有一只猫")


def rng():
    return np.random.default_rng(7)


def curves(curves=None, **options):
    curves = curves or {"with": rng().random(9), "without": (np.arange(5), rng().random(5))}
    return plot.curves(curves, "step", "loss", READ, **options)


def heatmaps(panels=None, **options):
    panels = panels or [Panel("weights", rng().random((3, 4))), Panel("gradient", rng().normal(size=(3, 4)), 3, signed=True)]
    return plot.heatmaps(panels, "key", "query", READ, **options)


def cloud(count, groups=2, names="word{}"):
    places = rng().normal(size=(groups, count, 2))
    return {f"group {i}": (where, [names.format(j) for j in range(count)]) for i, where in enumerate(places)}


def points(groups=None):
    return plot.points(groups or cloud(6), "first", "second", READ)


def examples():
    """A figure of each kind, small and large."""
    return {
        "curves": curves(levels={"ln V": 0.7}),
        "curves, eight": curves({f"run {i}": rng().random(30) for i in range(8)}, levels={"a": 0.1, "b": 0.9}, markers=True),
        "curves, log": curves({"error": (10.0 ** np.arange(-9, 0), 10.0 ** np.arange(9))}, xscale="log", yscale="log"),
        "curves, narrow log": curves({"norm": np.linspace(0.3, 0.8, 9)}, yscale="log"),
        "heatmaps": heatmaps(),
        "heatmaps, tokens": heatmaps([Panel("a", rng().random((5, 5)), down=list("abcde"), across=["<Begin>", *"bcde"])] * 4),
        "heatmaps, large": heatmaps([Panel("a", rng().random((40, 60)))], columns=1),
        "points": points(),
        "points, many": points(cloud(10, 8)),
    }


def caption(figure):
    return " ".join(figure.get_supxlabel().split())


def maps(figure):
    """The axes that hold a heatmap, without colour bars."""
    return [ax for ax in figure.axes if ax.collections and ax.get_label() != "<colorbar>"]


def written(ax):
    """The words and numbers in the axes."""
    return [text.get_text() for text in ax.texts if text.get_text()]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.fixture
def no_chinese(monkeypatch):
    """A machine without fonts for Chinese."""
    others = [font for font in font_manager.fontManager.ttflist if font.name not in style.CJK_FAMILIES]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", others)


# ---- all functions ---------------------------------------------------------------------------------------------------

def test_every_picture_has_its_caption_and_labels_and_stays_on_the_page():
    for name, figure in examples().items():
        assert type(figure) is Figure, name
        assert caption(figure).startswith(READ), name
        figure.draw_without_rendering()
        box = figure._supxlabel.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0, f"{name}: caption off the page"
        for ax in figure.axes:
            if not ax.axison:
                continue
            tight = ax.get_tightbbox()
            assert tight.y0 >= box.y1 - 1, f"{name}: the caption overlaps the picture"
            assert tight.x0 >= -1 and tight.x1 <= figure.bbox.x1 + 1 and tight.y1 <= figure.bbox.y1 + 1, f"{name}: off the page"
            if ax.get_label() != "<colorbar>":
                assert ax.get_xlabel() and ax.get_ylabel(), name
        for text in figure.findobj(matplotlib.text.Text):
            assert "$" not in text.get_text(), f"{name}: TeX that nobody reads"


def test_settings_and_pyplot_are_left_as_they_were(tmp_path):
    with matplotlib.rc_context({"font.size": 23.0, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        plot.save(points(), tmp_path / "a.png")
        with pytest.raises(TypeError):
            curves([1.0])
        assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []


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
    assert written(right) == ["-2.00", "0.00", "0.00", "3.00"]                  # no cell says -0.00
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
    ([Panel("a", np.zeros(3))], r"array of 'a' must have the shape \(rows, columns\), got \(3,\)"),
    ([Panel("a", np.array([[np.nan]]))], "array of 'a' must be finite"),
    ([Panel("a", np.eye(2), down=["one"])], "down of 'a' has 1 tokens, but the rows and columns of the array have 2"),
])
def test_heatmaps_refuse(panels, message):
    with pytest.raises(ValueError, match=message):
        plot.heatmaps(panels, "key", "query", READ)


# ---- points ----------------------------------------------------------------------------------------------------------

def boxes(ax):
    """The boxes of the names, in pixels."""
    return [text.get_window_extent() for text in ax.texts if text.get_text()]


def test_points_stand_where_they_should_in_the_colour_of_their_group():
    groups = cloud(6)
    (ax,) = points(groups).axes
    assert ax.get_aspect() == 1                                         # distances can be compared
    assert legend(ax) == list(groups)
    for dots, (where, _), colour in zip(ax.lines, groups.values(), line_charts.COLOURS, strict=False):
        np.testing.assert_array_equal(dots.get_xydata(), where)
        assert dots.get_color() == colour
    names = [text for text in ax.texts if text.get_text()]
    assert [text.get_text() for text in names] == [name for _, named in groups.values() for name in named]
    np.testing.assert_array_equal([text.xy for text in names], np.concatenate([where for where, _ in groups.values()]))
    assert [text.get_color() for text in names] == [colour for colour in line_charts.COLOURS[:2] for _ in range(6)]


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
    ([[1, 2]], TypeError, r"expected a dict of 1 to 8 \{group: \(places, names\)\}"),
    (cloud(1, 9), TypeError, "a dict of 1 to 8"),
    ({"a": (np.zeros((2, 3)), ["x", "y"])}, ValueError, r"\['a'\]: expected two numbers for each of the 2 names, got \(2, 3\)"),
    ({"a": (np.zeros((2, 2)), ["x"])}, ValueError, r"for each of the 1 names, got \(2, 2\)"),
    ({"a": (np.zeros(2), ["x", "y"])}, ValueError, r"places of 'a' must have the shape \(n, 2\)"),
    ({"a": (np.full((1, 2), np.inf), ["x"])}, ValueError, "places of 'a' must be finite"),
    (cloud(41), ValueError, "at most 80 points, whose names can still be read, got 82"),
])
def test_points_refuse(groups, error, message):
    with pytest.raises(error, match=message):
        points(groups)


# ---- Chinese ---------------------------------------------------------------------------------------------------------

IN_CHINESE = {
    "heatmaps": lambda: plot.heatmaps([Panel("a", np.eye(5), down=CHINESE, across=CHINESE)], "key", "query", READ),
    "points": lambda: plot.points({"words": (rng().normal(size=(5, 2)), CHINESE)}, "first", "second", READ),
}


@pytest.mark.filterwarnings("ignore:Glyph")                              # nobody has the font of this test
@pytest.mark.parametrize("draw", IN_CHINESE.values(), ids=IN_CHINESE)
def test_chinese_is_written_in_a_font_that_has_it(monkeypatch, draw):
    family = "a font with " + "".join(sorted(CHINESE))
    monkeypatch.setattr(plot, "_families", lambda text: ["DejaVu Sans", "a font with " + "".join(sorted(set(text)))])
    texts = [text for text in draw().findobj(matplotlib.text.Text) if text.get_text() in CHINESE]
    assert {text.get_text() for text in texts} == set(CHINESE)
    assert {text.get_fontfamily()[1] for text in texts} == {family}


@pytest.mark.parametrize("draw", IN_CHINESE.values(), ids=IN_CHINESE)
def test_without_a_chinese_font_tokens_are_numbered_and_one_warning_says_so(no_chinese, draw):
    with pytest.warns(UserWarning, match="install 'Noto Sans CJK SC'") as caught:
        figure = draw()
    assert len(caught) == 1 and caught[0].filename == __file__
    figure.draw_without_rendering()                                     # warns of a missing letter, which is an error here
    texts = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    assert {"0", "1", "2", "3", "4"} <= set(texts)
    assert not any(letter in text for text in texts for letter in CHINESE)
    assert "no font here has these characters, so the tokens are counted from 0" in caption(figure)
