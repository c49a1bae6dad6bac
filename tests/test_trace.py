"""What `trace` hears: every call, in order, forward and backward joined, and nothing once it is off."""
import sys

import numpy as np
import pytest

from tinymae import init
from tinymae.blocks import encoder_layer_backward, encoder_layer_forward
from tinymae.gradcheck import cases
from tinymae.trace import FORMULAS, first_fault, trace

rng = np.random.default_rng(0)
P = init.encoder_layer(8, 2, 12, rng, dtype=np.float64)
X, DY = rng.normal(size=(2, 5, 8)), rng.normal(size=(2, 5, 8))


def test_a_layer():
    with trace() as t:
        y, cache = encoder_layer_forward(X, P, 2)
        encoder_layer_backward(DY, cache)
    names = [(call.depth, call.name) for call in t.calls]
    assert names[:4] == [(0, "encoder_layer"), (1, "add_norm"), (2, "layernorm"), (2, "multi_head_attention")]
    assert names[4:9] == [(3, "linear")] * 3 + [(3, "scaled_dot_product_attention"), (4, "softmax")]
    assert all(call.done for call in t.calls)
    layer = t.calls[0]
    assert layer.inputs == ((2, 5, 8),) and layer.output == ((2, 5, 8),)
    assert layer.norm == pytest.approx(np.linalg.norm(y)) and layer.gradient == pytest.approx(np.linalg.norm(DY))
    feed_forward = next(call for call in t.calls if call.name == "feed_forward")
    assert feed_forward.gradient == pytest.approx(np.linalg.norm(DY))       # the residual hands dy on as it is
    lines = str(t).splitlines()
    assert len(lines) == 1 + len(t.calls)
    assert lines[0].split() == ["forward", "shapes", "formula", "|y|", "backward", "|dy|"]
    assert "gamma xhat + beta" in lines[3] and "mean(g xhat)" in lines[3]


def test_it_finds_the_right_backward_of_two_and_says_where_none_ran():
    with trace() as t:
        _, first = encoder_layer_forward(X, P, 2)
        encoder_layer_forward(2 * X, P, 2)
        encoder_layer_backward(DY, first)
    one, two = (call for call in t.calls if call.depth == 0)
    assert one.done and not two.done
    assert str(t).count("(not run)") == len(t.calls) / 2


def test_a_pair_of_your_own_and_an_error_inside():
    def twice_forward(x):
        if x.ndim > 1:
            raise ValueError("one axis only")
        return 2 * x, None

    def twice_backward(dy, cache):
        return 2 * dy

    with trace() as t:
        _, cache = twice_forward(np.ones(3))
        twice_backward(np.full(3, 2.0), cache)
        with pytest.raises(ValueError, match="one axis"):
            twice_forward(np.ones((2, 2)))
    good, bad = t.calls
    assert (good.name, good.norm, good.gradient) == ("twice", pytest.approx(12**0.5), pytest.approx(12**0.5))
    assert bad.output == () and not bad.done and bad.depth == 0


def test_off_it_is_gone():
    def listener(*_):
        return None

    sys.setprofile(listener)
    try:
        with pytest.raises(KeyError), trace() as t:
            raise KeyError
        assert sys.getprofile() is listener
    finally:
        sys.setprofile(None)
    encoder_layer_forward(X, P, 2)
    assert t.calls == []


def test_every_op_has_a_formula():
    ops = {check.function.__name__.removesuffix("_forward") for check in cases.checks()
           if check.function.__module__.startswith("tinymae.ops.")}
    assert ops <= FORMULAS.keys(), ops - FORMULAS.keys()


def layer(x, p, dy):
    _, cache = encoder_layer_forward(x, p, 2)
    return encoder_layer_backward(dy, cache)


def test_no_fault():
    assert first_fault(layer, X, P, DY) is None
    assert sys.getprofile() is None


def test_the_first_fault_is_where_finite_numbers_went_in():
    p = init.encoder_layer(8, 2, 12, np.random.default_rng(0), dtype=np.float64)
    p["attn"]["q"]["w"] *= 1e160
    p["attn"]["k"]["w"] *= 1e160
    fault = first_fault(layer, X, p, DY)                        # softmax is the first op to return it: its scores were infinite
    assert (fault.op, fault.layers) == (
        "scaled_dot_product_attention_forward", ["encoder_layer", "add_norm 0", "multi_head_attention 0"]
    )
    assert 1e158 < fault.largest < 1e162
    assert f"came out of {fault.op} in encoder_layer > add_norm 0 > multi_head_attention 0, into which" in str(fault)


def test_a_fault_on_the_way_back_is_in_the_layer_of_its_forward():
    def two(x, p, dy):
        y, first = encoder_layer_forward(x, p, 2)
        _, second = encoder_layer_forward(y, p, 2)
        encoder_layer_backward(encoder_layer_backward(dy, second)[0], first)

    p = init.encoder_layer(8, 2, 12, np.random.default_rng(0), dtype=np.float64)
    p["ffn"]["fc2"]["w"] *= 1e150
    fault = first_fault(two, X, p, 1e170 * DY)
    assert (fault.op, fault.layers) == ("linear_backward", ["encoder_layer", "add_norm 1", "feed_forward 0"])


def test_a_fault_in_what_went_in():
    x = X.copy()
    x[0, 0, 0] = np.nan
    fault = first_fault(layer, x, P, DY)
    assert fault.op == "encoder_layer_forward" and np.isnan(fault.largest) and "it is in the data" in str(fault)
