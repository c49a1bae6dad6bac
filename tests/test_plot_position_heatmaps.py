"""Positional encodings as a table, on a grid and as clocks: what is drawn, in which range; what is refused."""
import matplotlib
import numpy as np
import pytest
from figure_parts import bars, caption, maps, rng, sines, tick_labels
from matplotlib.patches import Rectangle

from tinymae import plot
from tinymae.ops.positional import get_positional_encoding, sinusoidal_halves, sinusoidal_interleaved

NAN = np.array([[0.5, np.nan]])


# ---- the table and the grid ------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize(("call", "error", "message"), [
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
])
def test_invalid_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- clocks ----------------------------------------------------------------------------------------------------------

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
    ({"positions": [25]}, r"positions must be a whole number in 0\.\.24, got 25: pos \+ 5 must be in the table"),
    ({"positions": [0, 1, 2, 3, 4]}, "1 to 4 whole numbers"),
    ({"positions": []}, "1 to 4 whole numbers"),
])
def test_position_rotation_refuses(changed, message):
    with pytest.raises(ValueError, match=message):
        plot.position_rotation(**({"table": sinusoidal_interleaved(30, 8), "offset": 5} | changed))
