"""Pictures for text: what is drawn, in which range, with which words; what is refused; and that nothing is left behind."""
import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from tinymae import plot
from tinymae.masks import causal_mask
from tinymae.ops.positional import get_positional_encoding, sinusoidal_halves, sinusoidal_interleaved
from tinymae.plot import style
from tinymae.train.optim import noam

CHINESE = list("我有一只猫")
PINYIN = "wo you yi zhi mao".split()                            # for pictures that any machine can draw
SENTENCE = "The animal didn't cross the street because it was too tired .".split()
WORDS = "a am i thanks student <eos>".split()
TARGET = np.eye(6)[[2, 1, 0, 4, 5]]
CAUSAL = causal_mask(5)[0, 0]


def rng():
    return np.random.default_rng(7)


def softmax_rows(*shape):
    """Attention weights: rows that sum to 1."""
    weights = rng().random(shape)
    return weights / weights.sum(axis=-1, keepdims=True)


def scores(rows=5, cols=5):
    return rng().normal(size=(rows, cols))


def examples(**options):
    """One figure from each function."""
    return {
        "masks": plot.masks(scores(), CAUSAL, PINYIN, WORDS[:5], **options),
        "attention_lines": plot.attention_lines(SENTENCE, softmax_rows(8, 12, 12), 7, **options),
        "output_probabilities": plot.output_probabilities(TARGET, softmax_rows(5, 6), WORDS, **options),
        "stacked": plot.output_probabilities(np.eye(30)[:4], softmax_rows(4, 30), WORDS * 5, **options),
        "position_rotation": plot.position_rotation(sinusoidal_interleaved(30, 8), 5, **options),
        "learning_rates": plot.learning_rates({"noam": [noam(i, 8, 9) for i in range(1, 40)], "one": [1e-3]}, **options),
    }


def caption(figure):
    return " ".join(figure.get_supxlabel().split())


def maps(figure):
    """The axes that hold a heatmap, without colour bars."""
    return [ax for ax in figure.axes if ax.collections and ax.get_label() != "<colorbar>"]


def values(ax):
    return np.asarray(ax.collections[0].get_array()).reshape(ax.collections[0].get_coordinates().shape[0] - 1, -1)


def written(ax):
    """The numbers in the cells."""
    return [text.get_text() for text in ax.texts]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.fixture
def no_chinese(monkeypatch):
    """A machine without fonts for Chinese."""
    others = [font for font in font_manager.fontManager.ttflist if font.name not in style.CJK_FAMILIES]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", others)


# ---- all functions ---------------------------------------------------------------------------------------------------

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
        for ax in figure.axes:
            tight = ax.get_tightbbox()
            assert tight.y0 >= box.y1 - 1, f"{name}: the caption overlaps the picture"
            assert tight.x0 >= -1 and tight.x1 <= inside.x1 + 1 and tight.y1 <= inside.y1 + 1, f"{name}: off the page"


def test_a_caption_of_ones_own_replaces_the_text():
    for name, figure in examples(caption="mine").items():
        assert caption(figure) == "mine", name


def test_settings_and_pyplot_are_left_as_they_were(tmp_path):
    with matplotlib.rc_context({"font.size": 23.0, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        figures = examples()
        plot.save(figures["attention_lines"], tmp_path / "a.png")
        with pytest.raises(TypeError):
            plot.learning_rates([1.0])
        assert dict(matplotlib.rcParams) == before
        assert figures["learning_rates"].axes[0].get_facecolor() == (1, 1, 1, 1)
    assert plt.get_fignums() == []


# ---- masks -----------------------------------------------------------------------------------------------------------

def test_masks_show_scores_mask_and_weights():
    figure = plot.masks(scores(), CAUSAL, PINYIN, PINYIN)
    before, mask, after = maps(figure)
    np.testing.assert_array_equal(values(before), scores())
    np.testing.assert_array_equal(values(mask), CAUSAL)
    expected = np.where(CAUSAL, np.exp(scores()), 0)
    np.testing.assert_allclose(values(after), expected / expected.sum(axis=1, keepdims=True), rtol=1e-12)
    assert [ax.collections[0].get_clim() for ax in (before, mask, after)] == [(-3, 3), (0, 1), (0, 1)]
    assert tick_labels(before.yaxis) == PINYIN
    assert [tick_labels(ax.xaxis) for ax in (before, mask, after)] == [PINYIN] * 3
    assert written(after)[:5] == ["1.00", "0", "0", "0", "0"]           # exactly 0, not 0.00
    assert written(before)[0] == f"{scores()[0, 0]:.1f}"
    assert [text.get_color() for text in after.texts[:2]] == ["black", "white"]         # on yellow, on violet
    (sums,) = after.child_axes
    assert tick_labels(sums.yaxis) == ["1"] * 5
    assert "Scores run" not in caption(figure)


def test_masks_say_what_lies_beyond_and_who_sees_nothing():
    blind = CAUSAL.copy()
    blind[2] = False
    figure = plot.masks(scores() * 10, blind, caption="mine.")
    assert "Scores run from" in caption(figure)
    assert "A query that may look at nothing gets zeros." in caption(figure)
    assert tick_labels(maps(figure)[2].child_axes[0].yaxis) == ["1", "1", "0", "1", "1"]


def test_no_cell_says_minus_zero():
    before, _, after = maps(plot.masks(np.array([[-0.01, 0.01, 0.0]]), np.ones((1, 3), bool)))
    assert written(before) == ["0.0", "0.0", "0"]
    assert written(after) == ["0.33", "0.34", "0.33"]


def test_large_masks_carry_no_numbers_that_would_touch():
    figure = plot.masks(scores(12, 20), np.ones((12, 20), bool))
    assert [written(ax) for ax in maps(figure)] == [[], [], []]
    assert not maps(figure)[2].child_axes


@pytest.mark.parametrize(("changed", "error", "message"), [
    ({"mask": CAUSAL * 1}, TypeError, "mask must be boolean, True = may attend, got int64: write mask != 0"),
    ({"mask": causal_mask(5)}, ValueError, r"shape of scores, \(5, 5\), got \(1, 1, 5, 5\): .*causal_mask\(T\)\[0, 0\]"),
    ({"scores": np.zeros((1, 2, 5, 5))}, ValueError, r"as in scores\[0, 0\]"),
    ({"scores": np.full((5, 5), -np.inf)}, ValueError, "scores must be finite"),
    ({"queries": ["a"]}, ValueError, "queries has 1 tokens, but the scores have 5"),
    ({"keys": ["a"] * 6}, ValueError, "keys has 6 tokens, but the scores have 5"),
    ({"scores": scores(5, 15), "mask": np.ones((5, 15), bool), "keys": ["a"] * 15}, ValueError, "more than 14 cannot be read"),
])
def test_masks_refuse(changed, error, message):
    with pytest.raises(error, match=message):
        plot.masks(**({"scores": scores(), "mask": CAUSAL} | changed))


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
    assert "share out a weight of 1" not in caption(ax.figure)          # head 1 lost a weight above
    assert "share out a weight of 1" in caption(plot.attention_lines(SENTENCE, softmax_rows(2, 12, 12), 7))


def test_lines_of_cross_attention_have_words_of_their_own_on_each_side():
    (ax,) = plot.attention_lines(SENTENCE[:4], softmax_rows(1, 4, 5), 2, keys=PINYIN).axes
    assert [text.get_text() for text in ax.texts] == SENTENCE[:4] + PINYIN
    assert {line.get_ydata()[0] for line in ax.lines} == {2}
    assert sorted(line.get_ydata()[1] for line in ax.lines) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("changed", "error", "message"), [
    ({"word": 12}, ValueError, r"index in 0\.\.11, got 12: tokens.index\('it'\)"),
    ({"word": -1}, ValueError, "got -1"),
    ({"word": "it"}, ValueError, "got 'it'"),
    ({"weights": softmax_rows(9, 12, 12)}, ValueError, r"9 heads; more than 8 colours.*weights\[:8\]"),
    ({"weights": softmax_rows(12, 12)}, ValueError, r"shape \(H, Tq, Tk\), got \(12, 12\)"),
    ({"weights": scores(144, 1).reshape(1, 12, 12)}, ValueError, r"lie in 0\.\.1.*before the softmax"),
    ({"tokens": SENTENCE[1:]}, ValueError, "tokens has 11 tokens, but the weights have 12"),
    ({"keys": SENTENCE[1:]}, ValueError, "keys has 11 tokens, but the weights have 12"),
])
def test_attention_lines_refuse(changed, error, message):
    with pytest.raises(error, match=message):
        plot.attention_lines(**({"tokens": SENTENCE, "weights": softmax_rows(2, 12, 12), "word": 7} | changed))


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
    ({"words": WORDS[:5]}, "words has 5 tokens, but the probabilities have 6"),
])
def test_output_probabilities_refuse(changed, message):
    with pytest.raises(ValueError, match=message):
        plot.output_probabilities(**({"target": TARGET, "trained": softmax_rows(5, 6), "words": WORDS} | changed))


# ---- positions as clocks ---------------------------------------------------------------------------------------------

def test_an_offset_turns_a_hand_by_one_angle_wherever_it_starts():
    table = sinusoidal_interleaved(40, 8)
    figure = plot.position_rotation(table, 5, positions=[0, 3, 34])
    clocks = np.array(figure.axes).reshape(3, 4)
    for pair in range(4):
        angle = np.degrees(5 / 10000 ** (2 * pair / 8)) % 360
        assert [ax.get_xlabel() for ax in clocks[:, pair]] == [f"{angle:.3g}°"] * 3
        assert clocks[0, pair].get_title() == f"columns {2 * pair}, {2 * pair + 1}"
    for line, pos in zip(clocks, [0, 3, 34], strict=True):
        assert line[0].get_ylabel() == f"pos {pos} → {pos + 5}"
        for pair, ax in enumerate(line):
            grey, orange = (arrow.xy for arrow in ax.texts)
            np.testing.assert_array_equal(grey, table[pos, 2 * pair : 2 * pair + 2])
            np.testing.assert_array_equal(orange, table[pos + 5, 2 * pair : 2 * pair + 2])
            (arc,) = [patch for patch in ax.patches if isinstance(patch, matplotlib.patches.Arc)]
            for end, hand in ((arc.theta2, grey), (arc.theta1, orange)):        # the arc goes from hand to hand
                np.testing.assert_allclose([np.cos(np.radians(end)), np.sin(np.radians(end))], hand, atol=1e-9)
            assert ax.get_xlim() == ax.get_ylim() == (-1.15, 1.15)


def test_wide_tables_show_four_clocks_from_fast_to_slow():
    figure = plot.position_rotation(sinusoidal_interleaved(20, 512), 1)
    assert [ax.get_title() for ax in figure.axes[:4]] == [f"columns {2 * i}, {2 * i + 1}" for i in (0, 85, 170, 255)]
    assert len(plot.position_rotation(sinusoidal_interleaved(2, 2), 1).axes) == 1


@pytest.mark.parametrize(("changed", "message"), [
    ({"table": sinusoidal_halves(30, 8)}, "a sine and its cosine, but at position .*: is this the layout in two halves"),
    ({"table": get_positional_encoding(30, 8)}, "a sine and its cosine, but at position 0 they are 0 and 0"),
    ({"table": np.zeros((30, 7))}, "even number of columns, pairs of sin and cos, got 7"),
    ({"offset": 0}, r"offset must be a whole number in 1\.\.29, got 0"),
    ({"offset": 30}, "got 30"),
    ({"offset": 1.5}, "got 1.5"),
    ({"positions": [25]}, r"whole numbers in 0\.\.24, so that pos \+ 5 exists, got \[25\]"),
    ({"positions": [0, 1, 2, 3, 4]}, "1 to 4 whole numbers"),
    ({"positions": []}, "1 to 4 whole numbers"),
])
def test_position_rotation_refuses(changed, message):
    with pytest.raises(ValueError, match=message):
        plot.position_rotation(**({"table": sinusoidal_interleaved(30, 8), "offset": 5} | changed))


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


# ---- Chinese ---------------------------------------------------------------------------------------------------------

IN_CHINESE = {
    "masks": lambda: plot.masks(scores(), CAUSAL, CHINESE, CHINESE),
    "attention_lines": lambda: plot.attention_lines(CHINESE, softmax_rows(2, 5, 5), 4),
    "output_probabilities": lambda: plot.output_probabilities(np.eye(5), softmax_rows(5, 5), CHINESE),
}


@pytest.mark.parametrize("draw", IN_CHINESE.values(), ids=IN_CHINESE)
def test_chinese_is_written_in_a_font_that_has_it(monkeypatch, draw):
    monkeypatch.setattr(plot, "_families", lambda text: ["DejaVu Sans", "a font with " + "".join(sorted(set(text)))])
    texts = [text for text in draw().findobj(matplotlib.text.Text) if text.get_text() in CHINESE]
    assert {text.get_text() for text in texts} == set(CHINESE)
    assert {text.get_fontfamily()[1] for text in texts} == {"a font with " + "".join(sorted(CHINESE))}


@pytest.mark.parametrize("draw", IN_CHINESE.values(), ids=IN_CHINESE)
def test_without_a_chinese_font_tokens_are_numbered_and_one_warning_says_so(no_chinese, draw):
    with pytest.warns(UserWarning, match="install 'Noto Sans CJK SC'") as caught:
        figure = draw()
    assert len(caught) == 1 and caught[0].filename == __file__
    figure.draw_without_rendering()                                     # warns of a missing letter, which is an error here
    texts = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    assert {"0", "1", "2", "3", "4"} <= set(texts)
    assert not any(letter in text for text in texts for letter in "我有一只猫")
    assert "no font here has these characters, so the tokens are counted from 0" in caption(figure)
