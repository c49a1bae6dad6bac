"""Pictures: what is drawn, in which range, with which words; what is refused; and that nothing is left behind."""
import itertools
import os
import subprocess
import sys
import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tinymae import plot
from tinymae.plot import style


def rng():
    return np.random.default_rng(7)


def softmax_rows(*shape):
    """Attention weights: rows that sum to 1."""
    weights = rng().random(shape)
    return weights / weights.sum(axis=-1, keepdims=True)


def sines(positions, width):
    return np.sin(np.arange(positions)[:, None] * 0.5 ** np.arange(width) + 0.3)


def pictures(count=2, rows=8, cols=8, channels=3):
    return rng().integers(0, 256, (count, rows, cols, channels), dtype=np.uint8)


def overlay(**changed):
    """attention_over_picture with good arguments, some of them changed."""
    good = {
        "picture": pictures(1, 8, 12)[0],
        "class_attention": 0.5 * softmax_rows(3, 6),
        "patch_attention": 0.9 * softmax_rows(3, 6),
        "patch": 4,
        "grid": (2, 3),
    }
    return plot.attention_over_picture(**(good | changed))


def examples():
    """One figure from each function."""
    four = [pictures() for _ in range(4)]
    return {
        "positional_encoding": plot.positional_encoding(sines(10, 8)),
        "position_grid": plot.position_grid(sines(12, 8), (3, 4)),
        "attention": plot.attention(softmax_rows(2, 3, 5)),
        "attention_over_picture": overlay(),
        "rollout_over_pictures": plot.rollout_over_pictures(pictures(2, 8, 12), softmax_rows(2, 6), (2, 3)),
        "reconstructions": plot.reconstructions(*four),
        "loss_curve": plot.loss_curve(np.arange(60), rng().random(60) + 1),
    }


def caption(figure):
    return " ".join(figure.get_supxlabel().split())


def maps(figure):
    """The axes that hold a heatmap, without colour bars."""
    return [ax for ax in figure.axes if ax.collections and ax.get_label() != "<colorbar>"]


def bars(figure):
    return [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


# ---------------------------------------------------------------------------------------------------- all functions

def test_every_picture_has_a_caption_readable_letters_and_the_width_of_half_a_screen():
    for name, figure in examples().items():
        assert type(figure) is Figure, name
        assert caption(figure).startswith("How to read it:"), name
        assert 1000 <= figure.get_figwidth() * figure.dpi <= 1400, name
        figure.draw_without_rendering()
        inside = figure.bbox
        for text in figure.findobj(matplotlib.text.Text):
            if text.get_text() and text.get_visible():
                assert text.get_fontsize() >= 9, (name, text)
        box = figure._supxlabel.get_window_extent()
        assert box.x0 >= inside.x0 and box.x1 <= inside.x1 and box.y0 >= inside.y0, f"{name}: caption off the page"
        bottoms = [ax.get_tightbbox().y0 for ax in figure.axes if ax.get_visible() and ax.axison]
        assert all(bottom >= box.y1 - 1 for bottom in bottoms), f"{name}: the caption overlaps the picture"


def test_a_caption_of_ones_own_replaces_the_text():
    four = [pictures()] * 4
    for figure in (
        plot.positional_encoding(sines(4, 4), caption="mine"),
        plot.position_grid(sines(4, 4), (2, 2), caption="mine"),
        plot.attention(softmax_rows(3, 3), caption="mine"),
        overlay(caption="mine"),
        plot.rollout_over_pictures(pictures(1), softmax_rows(1, 4), (2, 2), caption="mine"),
        plot.reconstructions(*four, caption="mine"),
        plot.loss_curve([0, 1, 2], [3.0, 2.0, 1.0], caption="mine"),
    ):
        assert caption(figure) == "mine"


def test_settings_backend_and_pyplot_are_left_as_they_were(tmp_path):
    with matplotlib.rc_context({"font.size": 23.0, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        figures = examples()
        plot.save(figures["attention"], tmp_path / "a.png")
        with pytest.raises(ValueError):
            plot.attention(np.zeros(3))
        assert dict(matplotlib.rcParams) == before
        # The reader's settings do not reach the pictures either.
        assert figures["loss_curve"].axes[0].get_facecolor() == (1, 1, 1, 1)
    assert plt.get_fignums() == []


def test_importing_needs_no_display_and_changes_no_setting(tmp_path):
    code = (
        "import matplotlib, warnings\n"
        "warnings.simplefilter('error')\n"
        "before = dict.copy(matplotlib.rcParams)\n"
        "from tinymae import plot\n"
        "assert dict.copy(matplotlib.rcParams) == before, 'import changed the settings'\n"
        "plot.save(plot.attention([[0.5, 0.5]]), 'a.png')\n"
        "assert dict.copy(matplotlib.rcParams) == before, 'drawing changed the settings or chose a backend'\n"
    )
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    quiet = {key: value for key, value in os.environ.items() if key not in screens}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=tmp_path, env=quiet, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "a.png").is_file()


def test_inputs_are_not_written_into():
    table, weights, four = sines(6, 4), softmax_rows(2, 3, 3), [pictures() for _ in range(4)]
    losses = 1 + rng().random(40)
    for array in (table, weights, losses, *four):
        array.flags.writeable = False
    plot.positional_encoding(table)
    plot.position_grid(table, (2, 3))
    plot.attention(weights)
    plot.reconstructions(*four)
    plot.loss_curve(np.arange(40), losses)


# ---------------------------------------------------------------------------------------------- positional encoding

@pytest.mark.parametrize(
    ("shape", "across", "down"),
    [
        ((100, 16), list(range(16)), list(range(0, 100, 10))),
        ((20, 512), list(range(0, 512, 32)), list(range(0, 20, 2))),
        ((10, 64), list(range(0, 64, 4)), list(range(10))),
    ],
)
def test_positional_encoding_is_fixed_from_minus_one_to_one(shape, across, down):
    table = 0.5 * sines(*shape)
    figure = plot.positional_encoding(table)
    (ax,) = maps(figure)
    mesh = ax.collections[0]
    assert mesh.get_clim() == (-1, 1)
    np.testing.assert_array_equal(np.ma.getdata(mesh.get_array()).reshape(shape), table)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("hidden dimension", "position")
    assert tick_labels(ax.xaxis) == [str(n) for n in across]
    assert tick_labels(ax.yaxis) == [str(n) for n in down]
    np.testing.assert_allclose(ax.get_xticks(), np.array(across) + 0.5)      # at the middle of the cells
    assert ax.yaxis_inverted()                                               # position 0 on top
    (bar,) = bars(figure)
    assert bar.get_ylabel() == "value"
    middle = mesh.cmap(0.5)[:3]
    assert min(middle) > 0.95                                                # 0 is white


def test_values_beyond_the_fixed_range_are_announced():
    inside = plot.positional_encoding([[0.5, -0.5]])
    assert "Values run" not in caption(inside)
    assert bars(inside)[0]._colorbar.extend == "neither"
    for table, extend in (([[2.5, 0]], "max"), ([[-2.5, 0]], "min"), ([[2.5, -2.5]], "both")):
        figure = plot.positional_encoding(table, caption="mine")
        assert bars(figure)[0]._colorbar.extend == extend
        assert "2.5" in caption(figure)


def test_position_grid_shows_cosines_on_the_grid():
    table = rng().standard_normal((20, 6)).astype(np.float32)
    figure = plot.position_grid(table, (4, 5))
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    axes = maps(figure)
    assert len(axes) == 9
    chosen = [(row, col) for row in (0, 2, 3) for col in (0, 2, 4)]
    for ax, (row, col) in zip(axes, chosen, strict=True):
        mesh = ax.collections[0]
        assert mesh.get_clim() == (-1, 1)
        expected = (unit @ unit[row * 5 + col]).reshape(4, 5)
        np.testing.assert_allclose(np.ma.getdata(mesh.get_array()).reshape(4, 5), expected, atol=1e-6)
        (frame,) = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
        assert frame.get_xy() == (col, row)
        assert f"row {row}, column {col}" in ax.get_title()
    assert axes[-1].get_xlabel() == "column of the grid"
    assert axes[0].get_ylabel() == "row of the grid"
    assert bars(figure)[0].get_ylabel() == "cosine"


def test_position_grid_of_one_line_has_no_doubled_maps():
    assert len(maps(plot.position_grid(sines(2, 4), (1, 2)))) == 2
    assert len(maps(plot.position_grid(sines(1, 4), (1, 1)))) == 1


# -------------------------------------------------------------------------------------------------------- attention

def test_attention_draws_each_head_from_zero_to_one():
    weights = softmax_rows(3, 4, 6)
    figure = plot.attention(weights)
    axes = maps(figure)
    assert [ax.get_title() for ax in axes] == ["head 0", "head 1", "head 2"]
    for ax, head in zip(axes, weights, strict=True):
        mesh = ax.collections[0]
        assert mesh.get_clim() == (0, 1)
        np.testing.assert_array_equal(np.ma.getdata(mesh.get_array()).reshape(4, 6), head)
        assert ax.yaxis_inverted()
    assert axes[0].get_ylabel().startswith("query") and axes[0].get_xlabel().startswith("key")
    assert "from 0 to 1" in caption(figure)
    assert len(bars(figure)) == 1


def test_attention_of_one_matrix_has_one_map_and_no_head():
    figure = plot.attention(softmax_rows(3, 5))
    (ax,) = maps(figure)
    assert ax.get_title() == "" and "head" not in caption(figure)
    assert tick_labels(ax.xaxis) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("heads", [1, 2, 4, 5, 7, 8, 12])
def test_attention_shows_any_number_of_heads_and_labels_the_lowest_of_each_column(heads):
    tokens = [f"token{n}" for n in range(9)]
    for keys in (None, tokens):
        axes = maps(plot.attention(softmax_rows(heads, 9, 9), keys, keys))
        assert len(axes) == heads
        columns = {}
        for ax in axes:
            columns[ax.get_subplotspec().colspan.start] = ax
        for ax in columns.values():
            assert ax.get_xlabel().startswith("key")
            assert tick_labels(ax.xaxis)[0] == (keys or ["0"])[0]


def test_attention_top_of_the_scale_is_stated():
    weights = softmax_rows(2, 3, 8)
    figure = plot.attention(weights, vmax=float(weights.max()))
    assert maps(figure)[0].collections[0].get_clim() == (0, weights.max())
    assert f"from 0 to {weights.max():.3g} (not to 1)" in caption(figure)
    assert bars(figure)[0]._colorbar.extend == "neither"
    cut = plot.attention(weights, vmax=0.05)
    assert bars(cut)[0]._colorbar.extend == "max"
    assert f"{weights.max():.3g}" in caption(cut)


def test_attention_writes_tokens():
    queries, keys = ["<Begin>", "I", "have"], ["a", "black", "cat", "<end>"]
    (ax,) = maps(plot.attention(softmax_rows(3, 4), queries, keys))
    assert tick_labels(ax.yaxis) == queries
    assert tick_labels(ax.xaxis) == keys


def test_dollars_and_other_marks_in_tokens_are_not_read_as_formulas(tmp_path):
    figure = plot.attention(softmax_rows(3, 3), ["$x^2$", r"$\frac$", "a_b"], ["%", "#", "$$"], caption="costs $5, $ {")
    plot.save(figure, tmp_path / "a.png")                  # a formula that cannot be read would raise here
    (ax,) = maps(figure)
    assert not any(label.get_parse_math() for label in (*ax.get_xticklabels(), *ax.get_yticklabels()))


def fake_font(path, characters, family="WenQuanYi Zen Hei"):
    """A font whose every character is a square: enough to see which font is chosen."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((0, 700))
    pen.lineTo((700, 700))
    pen.lineTo((700, 0))
    pen.closePath()
    square = pen.glyph()
    names = [".notdef", *(f"u{ord(c):04X}" for c in characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"u{ord(c):04X}" for c in characters})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def no_chinese(monkeypatch):
    """A machine without fonts for Chinese."""
    others = [font for font in font_manager.fontManager.ttflist if font.name not in style.CJK_FAMILIES]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", others)


def test_chinese_tokens_are_drawn_with_a_font_that_has_them(no_chinese, tmp_path):
    fake_font(tmp_path / "square.ttf", "我有一只猫")
    font_manager.fontManager.addfont(tmp_path / "square.ttf")
    figure = plot.attention(softmax_rows(4, 3), ["我", "有", "一只", "猫"], ["I", "have", "it"])
    (ax,) = maps(figure)
    assert tick_labels(ax.yaxis) == ["我", "有", "一只", "猫"]
    assert ax.yaxis.get_ticklabels()[0].get_fontfamily() == ["DejaVu Sans", "WenQuanYi Zen Hei"]
    plot.save(figure, tmp_path / "a.png")                  # a missing glyph is a warning, and warnings are errors


@pytest.mark.parametrize("fonts", ["none", "one that lacks a character"])
def test_without_such_a_font_tokens_are_numbered_and_one_warning_says_so(no_chinese, tmp_path, fonts):
    if fonts != "none":
        fake_font(tmp_path / "square.ttf", "我有一只")
        font_manager.fontManager.addfont(tmp_path / "square.ttf")
    with pytest.warns(UserWarning, match="Noto Sans CJK SC") as caught:
        figure = plot.attention(softmax_rows(2, 5, 5), list("我有一只猫"), list("我有一只猫"), caption="mine")
    assert len(caught) == 1
    assert caught[0].filename == __file__                  # it points at the caller's line
    for ax in maps(figure)[:1]:
        assert tick_labels(ax.yaxis) == tick_labels(ax.xaxis) == ["0", "1", "2", "3", "4"]
    assert "Numbered tokens" in caption(figure)
    plot.save(figure, tmp_path / "a.png")


def test_only_the_axis_with_chinese_is_numbered(no_chinese):
    with pytest.warns(UserWarning, match="numbered"):
        figure = plot.attention(softmax_rows(2, 2), ["猫", "狗"], ["a", "b"])
    (ax,) = maps(figure)
    assert tick_labels(ax.yaxis) == ["0", "1"] and tick_labels(ax.xaxis) == ["a", "b"]


def test_other_letters_need_no_such_font(no_chinese):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot.attention(softmax_rows(3, 3), ["je", "suis", "étudiant"], ["a", "student", "→"])
    assert "Numbered" not in caption(figure)


# ------------------------------------------------------------------------------------------- attention over a picture

@pytest.mark.parametrize("heads", [1, 3, 4, 12])
def test_overlay_has_the_mean_and_every_head_in_one_scale(heads):
    from_class, from_patch = 0.5 * softmax_rows(heads, 6), 0.9 * softmax_rows(heads, 6)
    figure = overlay(class_attention=from_class, patch_attention=from_patch)
    top = max(from_class.max(), from_patch.max())
    panels = [ax for ax in figure.axes if len(ax.images) == 2]
    assert [ax.get_title() for ax in panels] == 2 * ["mean", *(f"head {head}" for head in range(heads))]
    for ax in panels:
        assert ax.images[1].get_clim() == (0, top)
    np.testing.assert_allclose(panels[0].images[1].get_array(), from_class.mean(axis=0).reshape(2, 3))
    np.testing.assert_allclose(panels[-1].images[1].get_array(), from_patch[-1].reshape(2, 3))
    assert f"{top:.3g}" in caption(figure)


def test_overlay_covers_the_picture_and_outlines_the_patch():
    figure = overlay(patch=5)                              # a picture of 8 x 12, a grid of 2 x 3: patch 5 is (1, 2)
    (shown,) = [ax for ax in figure.axes if "picture" in ax.get_title()]
    (frame,) = shown.patches
    assert frame.get_xy() == (7.5, 3.5) and (frame.get_width(), frame.get_height()) == (4, 4)
    panel = next(ax for ax in figure.axes if len(ax.images) == 2)
    assert tuple(panel.images[1].get_extent()) == tuple(panel.images[0].get_extent()) == (-0.5, 11.5, 7.5, -0.5)
    titles = [part.get_suptitle() for part in figure.subfigs[1].subfigs]
    assert titles == ["from the class token", "from the patch in the frame"]
    assert any(ax.get_xlabel() == "attention weight" for ax in figure.axes)


def test_overlay_brightness_grows_with_attention():
    figure = overlay(class_attention=np.linspace(0, 0.5, 6)[None], patch_attention=np.zeros((1, 6)))
    cmap = next(ax for ax in figure.axes if len(ax.images) == 2).images[1].cmap
    colour = cmap(np.linspace(0, 1, 50))
    for grey in (0.04, 0.34):                              # black and white of the dimmed picture
        seen = colour[:, 3:] * colour[:, :3] + (1 - colour[:, 3:]) * grey
        assert (np.diff(seen @ [0.21, 0.72, 0.07]) > -0.01).all()


def test_overlay_takes_grey_pictures_and_attention_that_is_all_zero():
    nothing = np.zeros((2, 6))
    figure = overlay(picture=pictures(1, 8, 12, 1)[0], class_attention=nothing, patch_attention=nothing)
    assert next(ax for ax in figure.axes if len(ax.images) == 2).images[1].get_clim() == (0, 1)


# --------------------------------------------------------------------------------------------------- reconstructions

@pytest.mark.parametrize(("count", "lines", "columns"), [(1, 1, 1), (4, 1, 4), (8, 2, 6)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_rollout_lies_below_its_picture_each_in_its_own_scale(count, lines, columns, channels):
    shown, rollout = pictures(count, 8, 12, channels), 0.5 * softmax_rows(count, 6)
    figure = plot.rollout_over_pictures(shown, rollout, (2, 3))
    assert len(figure.axes) == 2 * lines * columns
    for i in range(count):
        line, column = divmod(i, columns)
        above, below = (figure.axes[(2 * line + k) * columns + column] for k in (0, 1))
        np.testing.assert_array_equal(above.images[0].get_array(), shown[i] if channels == 3 else shown[i, ..., 0])
        overlay = below.images[1]
        np.testing.assert_array_equal(overlay.get_array(), rollout[i].reshape(2, 3))
        assert overlay.get_clim() == (0, rollout[i].max())
        assert overlay.get_extent() == [-0.5, 11.5, 7.5, -0.5]
        assert below.get_title() == f"up to {rollout[i].max():.2g}"
    assert sum(bool(ax.images) for ax in figure.axes) == 2 * count
    assert "each of the 6 patches would hold 0.17" in caption(figure)


@pytest.mark.parametrize("channels", [1, 3])
def test_reconstructions_stand_in_rows_and_columns(channels):
    four = [rng().integers(0, 256, (3, 8, 6, channels), dtype=np.uint8) for _ in range(4)]
    four = [array + np.uint8(n) for n, array in enumerate(four)]
    figure = plot.reconstructions(*four)
    axes = figure.axes
    assert len(axes) == 12
    for n, ax in enumerate(axes):                          # column by column
        expected = four[n // 3][n % 3]
        np.testing.assert_array_equal(ax.images[0].get_array(), expected[..., 0] if channels == 1 else expected)
        assert ax.images[0].get_clim() == (0, 255)         # no picture is stretched to its own range
    left = [round(ax.get_position().x0, 6) for ax in axes]
    top = [round(ax.get_position().y1, 6) for ax in axes]
    assert left == sorted(left) and len(set(left)) == 4
    assert top[:3] == sorted(top[:3], reverse=True) and len(set(top)) == 3
    heads = [ax.get_title() for ax in axes if ax.get_title()]
    assert heads == ["masked", "reconstruction", "reconstruction + visible", "original"]
    assert axes[0].images[0].cmap.name == "gray"


def test_the_mode_cannot_be_overlooked():
    mode = "normalised pixels: per-patch mean and variance taken from the true picture"
    four = [pictures()] * 4
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
    figure = plot.reconstructions(*[pictures()] * 4, mode="the brightness comes from the true picture, " * 6)
    figure.draw_without_rendering()
    text, bar = figure.axes[0].texts[0].get_window_extent(), figure.axes[0].get_window_extent()
    assert text.width < bar.width and text.height < bar.height


# -------------------------------------------------------------------------------------------------------- loss curve

def test_loss_curve_shows_every_part():
    steps = np.arange(200)
    losses = 2 * np.exp(-steps / 50) + 0.1
    figure = plot.loss_curve(steps, losses, 1e-3 * steps, {50: 0.9, 0: 2.2, 199: 0.3}, {"mean": 1.5, "chance": 1.9})
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
    assert f"1 of {count} steps lie above the picture, the highest is 500 at step 0" in caption(figure)
    assert figure.axes[0].lines[1].get_ydata().max() <= 1.0                 # the median does not see it


def test_ordinary_noise_is_shown_in_full():
    losses = 1 + 0.3 * rng().random(300)
    losses[100] = 1.6
    figure = plot.loss_curve(np.arange(300), losses)
    assert figure.axes[0].get_ylim()[1] > 1.6 and "above the picture" not in caption(figure)


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


# ------------------------------------------------------------------------------------------------------------ errors

NAN = np.array([[0.5, np.nan]])


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: plot.positional_encoding(np.zeros(3)), ValueError, r"\(T, D\).*\(3,\)"),
        (lambda: plot.positional_encoding(np.zeros((1, 3, 4))), ValueError, r"table\[0\]"),
        (lambda: plot.positional_encoding(np.zeros((0, 4))), ValueError, r"\(0, 4\)"),
        (lambda: plot.positional_encoding(NAN), ValueError, r"table\[0, 1\] is nan"),
        (lambda: plot.positional_encoding([["a", "b"]]), TypeError, "real numbers"),
        (lambda: plot.position_grid(sines(6, 4), (2, 4)), ValueError, "8 patches, but the table has 6"),
        (lambda: plot.position_grid(sines(7, 4), (2, 3)), ValueError, "leave the class token"),
        (lambda: plot.position_grid(sines(6, 4), 6), TypeError, "pair"),
        (lambda: plot.position_grid(sines(6, 4), (2.0, 3.0)), TypeError, "whole numbers"),
        (lambda: plot.position_grid(sines(6, 4), (-2, -3)), ValueError, "-2 x -3"),
        (lambda: plot.position_grid(np.eye(4)[:, :3], (2, 2)), ValueError, "row 3 of the table is all zero"),
        (lambda: plot.position_grid(NAN, (1, 1)), ValueError, "finite"),
        (lambda: plot.attention(softmax_rows(2, 3, 4, 5)), ValueError, r"weights\[0\]"),
        (lambda: plot.attention(np.ones(3)), ValueError, r"\(Tq, Tk\)"),
        (lambda: plot.attention(NAN), ValueError, "finite"),
        (lambda: plot.attention([[3.0, -2.0]]), ValueError, "before the softmax"),
        (lambda: plot.attention([[0.5, 1.5]]), ValueError, "before the softmax"),
        (lambda: plot.attention([[True, False]]), TypeError, "bool"),
        (lambda: plot.attention(softmax_rows(2, 2), ["a"]), ValueError, "queries has 1 tokens.* 2"),
        (lambda: plot.attention(softmax_rows(2, 2), None, ["a"] * 3), ValueError, "keys has 3 tokens.* 2"),
        (lambda: plot.attention(softmax_rows(2, 50), None, ["a"] * 50), ValueError, "50 tokens; more than 40"),
        (lambda: plot.attention(softmax_rows(2, 2), vmax=0), ValueError, "vmax.*above 0, got 0"),
        (lambda: plot.attention(softmax_rows(2, 2), vmax=np.nan), ValueError, "vmax"),
        (lambda: overlay(picture=pictures(1, 8, 12)), ValueError, r"\(rows, cols, C\)"),
        (lambda: overlay(picture=np.zeros((8, 12, 3))), TypeError, "uint8.*float64"),
        (lambda: overlay(picture=np.zeros((3, 8, 12), np.uint8)), ValueError, "moveaxis"),
        (lambda: overlay(picture=pictures(1, 9, 12)[0]), ValueError, "9 x 12 does not divide into 2 x 3"),
        (lambda: overlay(grid=(2, 2)), ValueError, "4 patches, but the attention has 6"),
        (lambda: overlay(grid=(1, 5)), ValueError, "class token"),
        (lambda: overlay(class_attention=softmax_rows(2, 6)), ValueError, r"\(2, 6\).*\(3, 6\)"),
        (lambda: overlay(patch_attention=softmax_rows(6)), ValueError, r"\(H, N\)"),
        (lambda: overlay(patch_attention=np.full((3, 6), 2.0)), ValueError, "0..1"),
        (lambda: overlay(class_attention=np.full((3, 6), np.nan)), ValueError, "finite"),
        (lambda: overlay(patch=6), ValueError, r"0\.\.5, got 6"),
        (lambda: overlay(patch=-1), ValueError, "got -1"),
        (lambda: overlay(patch=1.0), ValueError, r"whole number.*1\.0"),
        (lambda: plot.rollout_over_pictures(pictures(), softmax_rows(3, 6), (2, 3)), ValueError, "3 rows for 2 pictures"),
        (lambda: plot.rollout_over_pictures(pictures(), softmax_rows(2, 5), (2, 2)), ValueError, "class token"),
        (lambda: plot.rollout_over_pictures(pictures(), softmax_rows(2, 6), (2, 3)), ValueError, "8 x 8 do not divide"),
        (lambda: plot.rollout_over_pictures(pictures(), softmax_rows(2, 5, 5), (2, 2)), ValueError, r"rollout\[:, 0, 1:\]"),
        (lambda: plot.reconstructions(*[pictures()] * 3, pictures(3)), ValueError, "masked has the shape"),
        (lambda: plot.reconstructions(*[pictures()[0]] * 4), ValueError, r"masked.*\(B, rows, cols, C\)"),
        (lambda: plot.reconstructions(pictures(), *[pictures() / 255] * 3), TypeError, "reconstruction must be uint8"),
        (lambda: plot.reconstructions(*[pictures(channels=2)] * 4), ValueError, "1 or 3 channels"),
        (lambda: plot.loss_curve([0, 1], [1.0]), ValueError, "2 steps and 1 losses"),
        (lambda: plot.loss_curve([], []), ValueError, r"\(0,\)"),
        (lambda: plot.loss_curve([0, 1], [1.0, np.inf]), ValueError, r"losses\[1\] is inf"),
        (lambda: plot.loss_curve([0, 2, 1], [3, 2, 1]), ValueError, "2 is followed by 1"),
        (lambda: plot.loss_curve(np.array([2, 1], np.uint32), [3, 2]), ValueError, "2 is followed by 1"),
        (lambda: plot.loss_curve([0, 1], [3, 2], [0.1]), ValueError, "2 steps and 1 learning rates"),
        (lambda: plot.loss_curve([0, 1], [3, 2], evaluations=[3, 2]), TypeError, "evaluations must be a dict"),
        (lambda: plot.loss_curve([0, 1], [3, 2], baselines=2.0), TypeError, "baselines must be a dict.*float"),
        (lambda: plot.loss_curve([0, 1], [3, 2], evaluations={0: np.nan}), ValueError, "evaluations"),
        (lambda: plot.loss_curve([0, 1], [3, 2], baselines={"mean": np.nan}), ValueError, "baselines"),
    ],
)
def test_bad_input_is_refused_with_words_that_help(call, error, says):
    with pytest.raises(error, match=says):
        call()


# -------------------------------------------------------------------------------------------------------------- save

def test_save_writes_a_small_png_makes_folders_and_returns_the_path(tmp_path):
    for name, figure in examples().items():
        path = plot.save(figure, str(tmp_path / "new" / "folder" / f"{name}.png"))
        assert path == tmp_path / "new" / "folder" / f"{name}.png"
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) < 300_000, (name, len(content))
        assert int.from_bytes(content[16:20], "big") == round(figure.get_figwidth() * figure.dpi)
    assert len(list(path.parent.iterdir())) == len(examples())            # and no temporary file


def test_save_gives_the_same_bytes_for_the_same_figure(tmp_path):
    first, second = (plot.save(plot.attention(softmax_rows(3, 3)), tmp_path / f"{n}.png").read_bytes() for n in "ab")
    assert first == second


def test_a_failing_save_leaves_the_old_picture_and_no_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    figure = plot.attention(softmax_rows(3, 3))

    def breaks(part, **options):
        part.write(b"half a picture")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", breaks)
    with pytest.raises(OSError, match="disk full"):
        plot.save(figure, path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_save_writes_beside_the_place_and_then_replaces(tmp_path, monkeypatch):
    moves = []
    replace = os.replace

    def watched(source, target):
        assert source.read_bytes().startswith(b"\x89PNG") and not target.exists()
        moves.append((source, target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    path = plot.save(plot.attention(softmax_rows(3, 3)), tmp_path / "a.png")
    ((source, target),) = moves
    assert source.parent == target.parent == tmp_path and target == path and source != target


def test_save_refuses_what_is_not_a_figure_a_folder_and_another_suffix(tmp_path):
    figure = plot.attention(softmax_rows(3, 3))
    with pytest.raises(TypeError, match="ndarray"):
        plot.save(np.zeros(3), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"\.png.*a\.jpg"):
        plot.save(figure, tmp_path / "a.jpg")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        plot.save(figure, tmp_path / "folder.png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.png"]
