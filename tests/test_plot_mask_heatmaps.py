"""Scores, mask and attention weights side by side: what is drawn, in which range, with which words; what is refused."""
import numpy as np
import pytest
from figure_parts import caption, maps, scores, tick_labels, values, written

from tinymae import plot
from tinymae.masks import causal_mask

PINYIN = "wo you yi zhi mao".split()
CAUSAL = causal_mask(5)[0, 0]


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


def test_masks_say_what_lies_beyond_and_that_a_query_attends_to_nothing():
    blind = CAUSAL.copy()
    blind[2] = False
    figure = plot.masks(scores() * 10, blind, caption="mine.")
    assert "Scores run from" in caption(figure)
    assert "A query that may attend to no key has weights of 0." in caption(figure)
    assert tick_labels(maps(figure)[2].child_axes[0].yaxis) == ["1", "1", "0", "1", "1"]


def test_no_cell_shows_minus_zero():
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
