"""The diagram of an encoder and a decoder: every sublayer, every residual path and the memory are there, at any depth."""
import itertools
from functools import cache

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Annotation

from tinymae import plot
from tinymae.plot import encoder_decoder
from tinymae.plot.diagrams import BOX, MEMORY, RESIDUAL

SIZES = [*itertools.product((1, 2, 4), (1, 2, 4), (False, True))]


@cache
def diagram(encoder, decoder, norm_first):
    """The figure of these sizes, drawn once for all tests, which only look at it."""
    return encoder_decoder(encoder, decoder, norm_first=norm_first)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def lines(figure, colour):
    return [line for line in figure.axes[0].lines if to_hex(line.get_color()) == colour]


def arrows(figure, colour):
    notes = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    return [note for note in notes if to_hex(note.arrow_patch.get_edgecolor()) == colour]


@pytest.mark.parametrize(("encoder", "decoder", "norm_first"), SIZES)
def test_every_sublayer_is_there(encoder, decoder, norm_first):
    figure = diagram(encoder, decoder, norm_first)
    written, sublayers = texts(figure), 2 * encoder + 3 * decoder
    assert written.count("Self-attention") == encoder
    assert written.count("Masked self-attention") == written.count("Cross attention") == decoder
    assert written.count("Feed forward") == encoder + decoder
    assert written.count("Add & Norm") == (0 if norm_first else sublayers)
    assert written.count("Add") == (sublayers if norm_first else 0)
    assert written.count("Norm") == (sublayers + 2 if norm_first else 0)                # one more after each stack
    assert [f"decoder layer {layer}" in written for layer in range(5)] == [layer < decoder for layer in range(5)]
    assert written.count("Embedding + positions") == 2 and written.count("Linear") == written.count("Softmax") == 1


@pytest.mark.parametrize(("encoder", "decoder", "norm_first"), SIZES)
def test_each_residual_path_ends_in_an_add_and_the_memory_in_each_cross_attention(encoder, decoder, norm_first):
    figure = diagram(encoder, decoder, norm_first)
    places = {"Add": [], "Cross attention": []}
    for text in figure.axes[0].texts:
        name = "Add" if text.get_text() == "Add & Norm" else text.get_text()
        if name in places:
            places[name].append(text.get_position()[1])
    into = sorted(arrow.xy[1] for arrow in arrows(figure, RESIDUAL))
    np.testing.assert_allclose(into, sorted(places["Add"]))
    assert all(line.get_ydata()[0] < line.get_ydata()[-1] for line in lines(figure, RESIDUAL))
    crossings = arrows(figure, MEMORY)
    np.testing.assert_allclose(sorted(arrow.xy[1] for arrow in crossings), sorted(places["Cross attention"]))
    assert texts(figure).count("K, V") == texts(figure).count("Q") == decoder


def test_it_reads_upwards_in_the_order_of_the_computation():
    heights = {text.get_text(): text.get_position()[1] for text in encoder_decoder(1, 1, norm_first=True).axes[0].texts
               if text.get_position()[0] > 4}
    order = ["Embedding + positions", "Masked self-attention", "Cross attention", "Feed forward", "Linear", "Softmax"]
    assert sorted(order, key=heights.get) == order


def test_nothing_is_outside_the_page_and_no_two_boxes_overlap():
    for sizes in SIZES:
        ax = diagram(*sizes).axes[0]
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        boxes = [patch.get_bbox() for patch in ax.patches if np.isclose(patch.get_width(), BOX)]
        assert all(left < box.x0 and box.x1 < right and bottom < box.y0 and box.y1 < top for box in boxes)
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        assert all(left <= x <= right and bottom <= y <= top for line in ax.lines for x, y in line.get_xydata())


@pytest.mark.parametrize("sizes", [(0, 2), (2, 0), (5, 2), (2, 2.0)])
def test_refuses_what_does_not_fit(sizes):
    with pytest.raises(ValueError, match=r"a whole number in 1\.\.4"):
        encoder_decoder(*sizes)


def test_caption_and_settings(tmp_path):
    before = dict(matplotlib.rcParams)
    figure = encoder_decoder(2, 2)
    assert dict(matplotlib.rcParams) == before
    assert figure.get_supxlabel().startswith("How to read it:")
    assert encoder_decoder(1, 1, caption="mine").get_supxlabel() == "mine"
    assert plot.save(figure, tmp_path / "layers.png").stat().st_size > 1000
