"""The tab "positions" of the live page: its tables are the package's, its angles those of the frequencies, its errors teach."""
import json
import math

import numpy as np
import pytest

from tinymae.ops.positional import get_positional_encoding, sinusoidal_halves, sinusoidal_interleaved
from tinymae.play.api import answer_json
from tinymae.play.positions_tab import (
    LAYOUTS,
    MOST_COLUMNS,
    MOST_POSITIONS,
    encodings,
    position,
    positions,
    rounded,
    sinusoids,
)

PACKAGE = {
    "interleaved": sinusoidal_interleaved, "halves": sinusoidal_halves, "article_a": get_positional_encoding,
    "article_a_normalised": lambda length, width: get_positional_encoding(length, width, normalise=True),
}
SETTINGS = {"length": 30, "width": 12, "base": 10000, "layout": "interleaved", "trained": 20}


@pytest.mark.parametrize("layout", PACKAGE)
@pytest.mark.parametrize(("length", "width"), [(2, 2), (30, 12), (MOST_POSITIONS, MOST_COLUMNS)])
def test_with_the_paper_s_base_the_tables_are_the_package_s(layout, length, width):
    ours = sinusoids(length, width, 10000, layout)
    assert np.array_equal(ours, PACKAGE[layout](length, width))
    assert np.abs(ours - sinusoids(length, width, 9000, layout)).max() > 1e-3 or width == 2     # the base is used


@pytest.mark.parametrize("layout", ["interleaved", "article_a", "article_a_normalised"])
def test_an_odd_width(layout):
    assert np.array_equal(sinusoids(9, 7, 10000, layout), PACKAGE[layout](9, 7))


def test_another_base_is_the_formula_with_that_base():
    rows = sinusoids(9, 6, 50.0, "interleaved")
    assert rows[5, 2] == pytest.approx(math.sin(5 / 50 ** (2 / 6)))
    assert rows[5, 3] == pytest.approx(math.cos(5 / 50 ** (2 / 6)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_and_products_are_those_of_the_table(layout):
    answer = encodings(None, **SETTINGS | {"layout": layout})
    rows = positions(**SETTINGS | {"layout": layout})
    known = len(rows)
    assert known == (20 if layout == "learned" else 30)
    np.testing.assert_allclose(answer["values"][:known], rows, rtol=1e-3)
    assert answer["values"][known:] == [None] * (30 - known)
    products = np.array(answer["dots"], dtype=float)            # None becomes nan
    np.testing.assert_allclose(products[:known, :known], rows @ rows.T, rtol=1e-3, atol=1e-9)
    assert np.isnan(products[known:]).all() and np.isnan(products[:, known:]).all()
    assert len(answer["columns"]) == 12


def test_a_wavelength_is_where_the_column_repeats():
    columns = encodings(None, **SETTINGS)["columns"]
    assert [column["kind"] for column in columns[:4]] == ["sin", "cos", "sin", "cos"]
    assert columns[0]["wavelength"] == columns[1]["wavelength"] == pytest.approx(2 * math.pi, rel=1e-3)
    assert columns[6]["wavelength"] == pytest.approx(2 * math.pi * 100, rel=1e-3)
    halves = encodings(None, **SETTINGS | {"layout": "halves"})["columns"]
    assert [column["kind"] for column in halves] == ["sin"] * 6 + ["cos"] * 6 and halves[9] == halves[3] | {"kind": "cos"}


@pytest.mark.parametrize("layout", ["interleaved", "halves"])
@pytest.mark.parametrize("offset", [0, 1, 7, 19])
def test_each_pair_turns_by_one_angle_at_all_positions(layout, offset):
    answer = position(None, **SETTINGS | {"layout": layout}, place=10, offset=offset)
    rates = [10000 ** (-2 * i / 12) for i in range(6)]
    assert [pair["turn"] for pair in answer["pairs"]] == rounded([offset * rate for rate in rates])
    for pair in answer["pairs"]:
        assert pair["least"] == pair["most"] == pair["measured"] == pair["turn"]
    assert answer["rotation"] is True
    assert [pair["columns"] for pair in answer["pairs"]][1] == ([2, 3] if layout == "interleaved" else [1, 7])


@pytest.mark.parametrize("layout", ["article_a", "article_a_normalised", "learned"])
def test_without_a_common_frequency_the_angle_depends_on_the_position(layout):
    answer = position(None, **SETTINGS | {"layout": layout}, place=5, offset=3)
    assert answer["rotation"] is False and all(pair["turn"] is None for pair in answer["pairs"])
    rows = positions(**SETTINGS | {"layout": layout})
    first = answer["pairs"][0]
    angle = math.atan2(rows[8, 0], rows[8, 1]) - math.atan2(rows[5, 0], rows[5, 1])
    assert math.cos(angle - first["measured"]) == pytest.approx(1, abs=1e-5)
    assert first["least"] <= first["measured"] <= first["most"] and first["most"] - first["least"] > 0.1


def test_article_a_s_row_0_points_nowhere():
    pair = position(None, **SETTINGS | {"layout": "article_a"}, place=0, offset=2)["pairs"][0]
    assert pair["hand"] == [0, 0] and pair["measured"] is None and pair["most"] > pair["least"]


def test_beyond_the_training_a_learned_table_has_no_row_and_the_formula_has_one():
    learned = position(None, **SETTINGS | {"layout": "learned"}, place=20, offset=0)
    assert "expected a table (at least 21, 12)" in learned["refused"] and learned["nearest"] is None
    assert all(pair["hand"] is pair["later"] is pair["measured"] is None for pair in learned["pairs"])
    inside = position(None, **SETTINGS | {"layout": "learned"}, place=19, offset=1)
    assert inside["refused"] == "" and inside["nearest"] == {"place": 19, "distance": 0}
    assert inside["pairs"][0]["hand"] and inside["pairs"][0]["later"] is None
    formula = position(None, **SETTINGS, place=25, offset=0)
    rows = sinusoidal_interleaved(30, 12)
    distances = np.linalg.norm(rows[:20] - rows[25], axis=1)
    assert formula["refused"] == "" and formula["nearest"]["place"] == distances.argmin()
    assert formula["nearest"]["distance"] == pytest.approx(distances.min(), rel=1e-3) and distances.min() > 0.1


def test_one_learned_row_alone_has_nothing_to_measure():
    answer = position(None, length=9, width=4, base=10, layout="learned", trained=1, place=2, offset=5)
    assert answer["rotation"] is None and answer["pairs"][0]["least"] is None


@pytest.mark.parametrize(("wrong", "sentence"), [
    ({"layout": "paper"}, "expected a layout, interleaved, .* or learned, got 'paper'"),
    ({"layout": ["halves"]}, "expected a layout"),
    ({"length": MOST_POSITIONS + 1}, f"length is {MOST_POSITIONS + 1}, expected a whole number from 2 to {MOST_POSITIONS}"),
    ({"length": 30.0}, "length is 30.0"), ({"length": True}, "length is True"), ({"width": 1}, "width is 1"),
    ({"width": MOST_COLUMNS + 1}, "width is"), ({"trained": 31}, "trained is 31, expected a whole number from 1 to 30"),
    ({"base": 1}, "base is 1, expected a number above 1"), ({"base": "10000"}, "base is '10000'"),
    ({"base": float("nan")}, "base is nan"), ({"base": 1e9}, "at most 1000000"),
    ({"layout": "halves", "width": 11}, "width is 11, expected an even number"),
])
def test_wrong_settings_are_explained(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        encodings(None, **SETTINGS | wrong)
    with pytest.raises(ValueError, match=sentence):
        position(None, **SETTINGS | wrong, place=0, offset=0)


@pytest.mark.parametrize(("place", "offset", "sentence"), [
    (30, 0, "place is 30, expected a whole number from 0 to 29"), (-1, 0, "place is -1"),
    (28, 2, "offset is 2, expected a whole number from 0 to 1"), (0, -1, "offset is -1"),
])
def test_positions_outside_the_table_are_refused(place, offset, sentence):
    with pytest.raises(ValueError, match=sentence):
        position(None, **SETTINGS, place=place, offset=offset)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_largest_question_has_an_answer_in_json(layout):
    settings = {"length": MOST_POSITIONS, "width": MOST_COLUMNS, "base": 2, "layout": layout, "trained": 64}
    answer = answer_json("table", json.dumps(settings), None)
    assert len(json.loads(answer)["values"]) == MOST_POSITIONS and len(answer) < 500_000
    here = json.loads(answer_json("position", json.dumps(settings | {"place": 63, "offset": 1}), None))
    assert len(here["pairs"]) == MOST_COLUMNS // 2


def test_numbers_have_four_significant_digits():
    assert rounded(np.array([[math.pi * 1000, 1 / 3], [0.0, -1e-7 / 3]])) == [[3142.0, 0.3333], [0.0, -3.333e-8]]
    assert rounded(2 / 3) == 0.6667
