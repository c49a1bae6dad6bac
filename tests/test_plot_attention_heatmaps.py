"""Attention as heatmaps, as lines, and over an image: what is drawn, in which range, with which words; what is refused."""
import numpy as np
import pytest
from figure_parts import bars, caption, images, maps, scores, softmax_rows, tick_labels, written

from tinymae import plot
from tinymae.plot import style

NAN = np.array([[0.5, np.nan]])
PINYIN = "wo you yi zhi mao".split()
SENTENCE = "The animal didn't cross the street because it was too tired .".split()


def overlay(**changed):
    """attention_over_picture with good arguments, some of them changed."""
    good = {
        "image": images(1, 8, 12)[0],
        "class_attention": 0.5 * softmax_rows(3, 6),
        "patch_attention": 0.9 * softmax_rows(3, 6),
        "patch": 4,
        "grid": (2, 3),
    }
    return plot.attention_over_picture(**(good | changed))


# ---- attention -------------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize(("shape", "tokens", "written_in"), [
    ((4, 4, 4), None, True), ((1, 5, 5), PINYIN, True), ((2, 6, 6), None, True), ((3, 12), None, True),
    ((12, 12), SENTENCE, True), ((12, 12), [f"a token that is much longer than others, {i}" for i in range(12)], False),
    ((8, 8, 8), None, False), ((20, 20), None, False), ((40, 2), None, False), ((2, 40), None, False),
])
def test_cells_have_their_weights_if_they_can_be_read(shape, tokens, written_in):
    weights = softmax_rows(*shape)
    figure = plot.attention(weights, tokens)
    figure.draw_without_rendering()
    rows, columns = shape[-2:]
    for ax, head in zip(maps(figure), weights.reshape(-1, rows, columns), strict=True):
        assert written(ax) == ([f"{weight:.2f}" for weight in head.ravel()] if written_in else [])
        for text in ax.texts:
            box = text.get_window_extent()
            assert box.width < 0.95 * ax.bbox.width / columns and box.height < 0.95 * ax.bbox.height / rows
            assert text.get_fontsize() >= 9


def test_weights_are_dark_on_bright_cells():
    (ax,) = maps(plot.attention([[0.0, 0.02, 0.08]], vmax=0.1))
    assert [(text.get_text(), text.get_color()) for text in ax.texts] == [("0", "white"), ("0.02", "white"), ("0.08", "black")]


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


# ---- attention over an image -----------------------------------------------------------------------------------------

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


def test_overlay_covers_the_image_and_outlines_the_patch():
    figure = overlay(patch=5)                              # an image of 8 x 12, a grid of 2 x 3: patch 5 is (1, 2)
    (shown,) = [ax for ax in figure.axes if "image" in ax.get_title()]
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
    for grey in (0.04, 0.34):                              # black and white of the dimmed image
        seen = colour[:, 3:] * colour[:, :3] + (1 - colour[:, 3:]) * grey
        assert (np.diff(seen @ [0.21, 0.72, 0.07]) > -0.01).all()


def test_overlay_takes_grey_images_and_attention_that_is_all_zero():
    nothing = np.zeros((2, 6))
    figure = overlay(image=images(1, 8, 12, 1)[0], class_attention=nothing, patch_attention=nothing)
    assert next(ax for ax in figure.axes if len(ax.images) == 2).images[1].get_clim() == (0, 1)


@pytest.mark.parametrize(("count", "lines", "columns"), [(1, 1, 1), (4, 1, 4), (8, 2, 6)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_rollout_lies_below_its_image_each_in_its_own_scale(count, lines, columns, channels):
    shown, rollout = images(count, 8, 12, channels), 0.5 * softmax_rows(count, 6)
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
    assert "each of the 6 would have 0.17" in caption(figure)


# ---- attention as lines ----------------------------------------------------------------------------------------------

def lines(ax):
    """{(colour, key's place): width}."""
    return {(line.get_color(), round(line.get_ydata()[1], 3)): line.get_linewidth() for line in ax.lines}


def test_lines_are_as_wide_as_the_weights():
    weights = softmax_rows(2, 12, 12)
    weights[1, 7, 3] = 0
    assert weights[1, 7].sum() < 0.98
    (ax,) = plot.attention_lines(SENTENCE, weights, 7).axes
    drawn = lines(ax)
    assert len(drawn) == 23                                             # the zero is no line
    (step,) = {round(y - np.floor(y + 0.5), 3) for (colour, y) in drawn if colour == style.COLOURS[1]}
    for head in range(2):
        for key in range(12):
            width = drawn.get((style.COLOURS[head], round(key + (step if head else -step), 3)), 0)
            np.testing.assert_allclose(width, 9 * weights[head, 7, key])
    assert {round(line.get_ydata()[0] - 7, 3) for line in ax.lines} == {step, -step}    # all start at the word
    assert [text.get_text() for text in ax.texts] == SENTENCE * 2
    assert [text.get_text() for text in ax.texts if text.get_bbox_patch()] == ["it"]
    legend = ax.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["head 0", "head 1", "weight 0.1", "weight 0.5", "weight 1"]
    assert [line.get_linewidth() for line in legend.get_lines()[2:]] == pytest.approx([0.9, 4.5, 9])
    assert '"it" in the yellow box' in caption(ax.figure)
    assert "weights of one colour sum to 1" not in caption(ax.figure)          # head 1 lost a weight above
    assert "weights of one colour sum to 1" in caption(plot.attention_lines(SENTENCE, softmax_rows(2, 12, 12), 7))


def test_lines_of_cross_attention_have_different_tokens_on_each_side():
    (ax,) = plot.attention_lines(SENTENCE[:4], softmax_rows(1, 4, 5), 2, keys=PINYIN).axes
    assert [text.get_text() for text in ax.texts] == SENTENCE[:4] + PINYIN
    assert {line.get_ydata()[0] for line in ax.lines} == {2}
    assert sorted(line.get_ydata()[1] for line in ax.lines) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("changed", "error", "message"), [
    ({"query": 12}, ValueError, r"query must be a whole number in 0\.\.11, got 12: tokens.index\('it'\)"),
    ({"query": -1}, ValueError, "got -1"),
    ({"query": "it"}, ValueError, "got 'it'"),
    ({"weights": softmax_rows(9, 12, 12)}, ValueError, r"9 heads; more than 8 colours.*weights\[:8\]"),
    ({"weights": softmax_rows(12, 12)}, ValueError, r"shape \(H, Tq, Tk\), got \(12, 12\)"),
    ({"weights": scores(144, 1).reshape(1, 12, 12)}, ValueError, r"lie in 0\.\.1.*before the softmax"),
    ({"tokens": SENTENCE[1:]}, ValueError, "tokens has 11 tokens, but the weights have 12"),
    ({"keys": SENTENCE[1:]}, ValueError, "keys has 11 tokens, but the weights have 12"),
])
def test_attention_lines_refuse(changed, error, message):
    with pytest.raises(error, match=message):
        plot.attention_lines(**({"tokens": SENTENCE, "weights": softmax_rows(2, 12, 12), "query": 7} | changed))


# ---- errors ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("call", "error", "message"), [
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
    (lambda: overlay(image=images(1, 8, 12)), ValueError, r"\(rows, cols, C\)"),
    (lambda: overlay(image=np.zeros((8, 12, 3))), TypeError, "uint8.*float64"),
    (lambda: overlay(image=np.zeros((3, 8, 12), np.uint8)), ValueError, "moveaxis"),
    (lambda: overlay(image=images(1, 9, 12)[0]), ValueError, "9 x 12 does not divide into 2 x 3"),
    (lambda: overlay(grid=(2, 2)), ValueError, "4 patches, but the attention has 6"),
    (lambda: overlay(grid=(1, 5)), ValueError, "class token"),
    (lambda: overlay(class_attention=softmax_rows(2, 6)), ValueError, r"\(2, 6\).*\(3, 6\)"),
    (lambda: overlay(patch_attention=softmax_rows(6)), ValueError, r"\(H, N\)"),
    (lambda: overlay(patch_attention=np.full((3, 6), 2.0)), ValueError, "0..1"),
    (lambda: overlay(class_attention=np.full((3, 6), np.nan)), ValueError, "finite"),
    (lambda: overlay(patch=6), ValueError, r"0\.\.5, got 6"),
    (lambda: overlay(patch=-1), ValueError, "got -1"),
    (lambda: overlay(patch=1.0), ValueError, r"whole number.*1\.0"),
    (lambda: plot.rollout_over_pictures(images(), softmax_rows(3, 6), (2, 3)), ValueError, "3 rows for 2 images"),
    (lambda: plot.rollout_over_pictures(images(), softmax_rows(2, 5), (2, 2)), ValueError, "class token"),
    (lambda: plot.rollout_over_pictures(images(), softmax_rows(2, 6), (2, 3)), ValueError, "8 x 8 does not divide"),
    (lambda: plot.rollout_over_pictures(images(), softmax_rows(2, 5, 5), (2, 2)), ValueError, r"rollout\[:, 0, 1:\]"),
])
def test_invalid_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
