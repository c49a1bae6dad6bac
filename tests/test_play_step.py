"""The tab "one step" of the live page: its ops are the package's encoder layer, and its wrong backwards are found."""
import inspect
import json
import math
from pathlib import Path

import numpy as np
import pytest

import tinymae
from tinymae import tree
from tinymae.blocks import encoder_layer_backward, encoder_layer_forward
from tinymae.gradcheck import gradcheck
from tinymae.play import step_tab
from tinymae.play.api import answer_json
from tinymae.play.step_tab import BUGS, NODES, OPS, SYMBOLS, B, D, F, H, T, broken, layer_backward, layer_forward, layer_step

SOURCE = Path(tinymae.__file__).parent.parent


@pytest.fixture(params=[0, 1, 2])
def drawn(request):
    return step_tab._drawn(request.param)


def test_op_by_op_is_the_layer_of_the_package(drawn):
    x, p, dy = drawn
    y, cache = layer_forward(x, p)
    expected, expected_cache = encoder_layer_forward(x, p, H)
    assert y.shape == (B, T, D) and np.array_equal(y, expected)
    dx, dp = layer_backward(dy, cache)
    expected_dx, expected_dp = encoder_layer_backward(dy, expected_cache)
    assert np.array_equal(dx, expected_dx)
    tree.map(np.testing.assert_array_equal, dp, expected_dp)


def test_every_number_of_the_tree_has_a_symbol(drawn):
    assert [path for path, _ in tree.leaves(drawn[1])] == list(SYMBOLS)
    assert len(set(SYMBOLS.values())) == len(SYMBOLS)


def test_no_gamma_is_1_and_no_bias_0(drawn):
    assert all((leaf != 1).all() and (leaf != 0).all() for _, leaf in tree.leaves(drawn[1]))


def test_every_op_is_shown_with_its_numbers():
    x, p, dy = step_tab._drawn(0)
    answer = layer_step(None, seed=0, change=None)
    assert [node["name"] for node in answer["nodes"]] == [node.name for node in NODES]
    y, cache = encoder_layer_forward(x, p, H)
    dx, dp = encoder_layer_backward(dy, cache)
    boxes = {node["name"]: node for node in answer["nodes"]}

    def shown(tensor):
        return np.reshape(tensor["values"], tensor["shape"])

    weights = cache["attn"]["sublayer"]["attention"].weights
    (softmax,) = boxes["softmax"]["forward"]["outputs"]
    assert softmax["shape"] == [B, H, T, T]
    np.testing.assert_allclose(shown(softmax), weights, rtol=1e-3)
    np.testing.assert_allclose(shown(boxes["add2"]["forward"]["outputs"][0]), y, rtol=1e-3)
    np.testing.assert_allclose(shown(answer["dx"]), dx, rtol=1e-3)
    np.testing.assert_allclose(shown(boxes["add2"]["backward"]["inputs"][0]), dy, rtol=1e-3)
    np.testing.assert_allclose(shown(boxes["fc1"]["backward"]["outputs"][1]), dp["ffn"]["fc1"]["w"], rtol=1e-3)
    assert boxes["fc1"]["backward"]["outputs"][1]["shape"] == [D, F]
    assert answer["loss"] == {"now": pytest.approx((y * dy).sum(), rel=1e-3), "before": answer["loss"]["now"],
                              "predicted": None, "slope": None}
    assert [number["path"] for number in answer["numbers"]] == ["x", *SYMBOLS]
    assert all(tensor["before"] is None for tensor in tensors(answer))


def tensors(answer):
    """All tensors of an answer."""
    for node in answer["nodes"]:
        for side in ("forward", "backward"):
            yield from node[side]["inputs"] + node[side]["outputs"]
    yield from [answer["dx"], *answer["numbers"]]


def test_the_paths_of_what_is_used_twice_add_up():
    answer = layer_step(None, seed=0, change=None)
    boxes = {node["name"]: node["backward"] for node in answer["nodes"]}
    parts = [boxes[name]["outputs"][0] for name in "qkv"]
    total = boxes["ln1"]["inputs"][0]
    assert {tensor["name"] for tensor in [*parts, total]} == {"dh₁"} and total["paths"] == 3
    np.testing.assert_allclose(np.sum([part["values"] for part in parts], axis=0), total["values"], atol=2e-3)
    assert answer["dx"]["paths"] == 2 and boxes["fc2"]["outputs"][1]["paths"] == 1


def test_formulas_name_the_numbers_of_their_box():
    boxes = {node["name"]: node for node in layer_step(None, seed=0, change=None)["nodes"]}
    assert boxes["q"]["forward"]["formula"] == "q = h₁ W_q + b_q"
    assert boxes["q"]["backward"]["formula"] == "dh₁ = dq W_qᵀ,  dW_q = h₁ᵀ dq,  db_q = Σ dq"
    assert boxes["softmax"]["backward"]["formula"] == "ds = p (dp - Σ dp p)"


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("side", ["source", "back_source"])
def test_a_box_names_the_line_of_its_op(op, side):
    function, text = getattr(OPS[op], side)
    place = step_tab._place(function, text)
    line = (SOURCE / place["file"]).read_text("utf-8").splitlines()[place["line"] - 1]
    assert (text or f"def {function.__name__}(") in line
    lines, first = inspect.getsourcelines(function)
    assert first <= place["line"] < first + len(lines)          # and not in a function below it


def changed(answer, side):
    return [node["name"] for node in answer["nodes"] if any(tensor["before"] for tensor in node[side]["outputs"])]


def test_a_changed_weight_changes_what_comes_after_it_and_nothing_else():
    answer = layer_step(None, seed=0, change={"name": "ffn.fc1.w", "index": [0, 2], "value": 1.5})
    assert changed(answer, "forward") == ["fc1", "gelu", "fc2", "add2"]
    assert changed(answer, "backward") == [node.name for node in NODES if node.name != "add2"]
    (fc1,) = [node for node in answer["nodes"] if node["name"] == "fc1"]
    before = fc1["forward"]["outputs"][0]["before"]
    assert [i % F for i, old in enumerate(before) if old is not None] == [2, 2, 2]      # one column of u
    weights = fc1["forward"]["inputs"][1]
    assert [i for i, old in enumerate(weights["before"]) if old is not None] == [2] and weights["values"][2] == 1.5


def test_a_changed_input_changes_everything_after_it():
    answer = layer_step(None, seed=0, change={"name": "x", "index": [0, 1, 3], "value": 0})
    assert changed(answer, "forward") == [node.name for node in NODES]


@pytest.mark.parametrize(("name", "index"), [("attn.k.w", (1, 2)), ("x", (0, 1, 3)), ("ln2.gamma", (3,))])
def test_a_small_change_is_predicted_by_the_gradient(name, index):
    x, p, dy = step_tab._drawn(0)
    old = {"x": x, **dict(tree.leaves(p))}[name][index]
    loss = layer_step(None, seed=0, change={"name": name, "index": list(index), "value": float(old) + 1e-3})["loss"]
    dx, dp = encoder_layer_backward(dy, encoder_layer_forward(x, p, H)[1])
    assert loss["slope"] == pytest.approx({"x": dx, **dict(tree.leaves(dp))}[name][index], rel=1e-3)
    assert loss["predicted"] == pytest.approx(loss["now"], abs=1e-3)


def test_what_is_broken_is_marked_and_what_follows_changes():
    answer = layer_step(None, seed=0, change=None, bug="softmax")
    assert [node["name"] for node in answer["nodes"] if node["backward"]["broken"]] == ["softmax"]
    assert changed(answer, "forward") == [] and changed(answer, "backward") == ["ln1", "q", "k", "split", "scores", "softmax"]
    (softmax,) = [node["backward"] for node in answer["nodes"] if node["name"] == "softmax"]
    assert softmax["formula"] == "ds = dp p (1 - p)" and softmax["file"] == "tinymae/play/step_tab.py"


def test_the_right_layer_passes():
    answer = broken(None, seed=0, bug="none")
    assert answer["wrong"] == 0 and all(row["ok"] and not row["diagnosis"] for row in answer["rows"])
    assert [row["tensor"] for row in answer["rows"]] == ["x", *(f"p.{path}" for path in SYMBOLS)]


WRONG = {
    "keys": {"x", "p.ln1.gamma"},                               # the keys' part of dbeta is 0: scores of a row shift alike
    "bias": {"p.attn.q.b", "p.attn.v.b", "p.attn.out.b", "p.ffn.fc1.b", "p.ffn.fc2.b"},
    "scale": {"x", "p.ln1.gamma", "p.ln1.beta", "p.attn.q.w", "p.attn.q.b", "p.attn.k.w"},
    "softmax": {"x", "p.ln1.gamma", "p.ln1.beta", "p.attn.q.w", "p.attn.q.b", "p.attn.k.w", "p.attn.k.b"},
}
COMPLAINT = {
    "residual": "residual path", "layernorm": "gamma multiplies dy before the means", "bias": "3 times too small",
    "keys": "paths, their gradients add up", "scale": "1.41421 times too large", "softmax": "right once p.attn.q",
    "gelu": "right once p.ln2 or p.ffn is 0",
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_check_finds_each_wrong_backward(bug):
    answer = json.loads(answer_json("broken", json.dumps({"seed": 0, "bug": bug}), None))
    wrong = {row["tensor"] for row in answer["rows"] if not row["ok"]}
    assert len(wrong) == answer["wrong"] > 0 and all(bool(row["diagnosis"]) != row["ok"] for row in answer["rows"])
    if bug in WRONG:
        assert wrong == WRONG[bug]
    assert any(COMPLAINT[bug] in row["diagnosis"] for row in answer["rows"])


def test_the_report_is_that_of_gradcheck():
    x, p, _ = step_tab._drawn(3)
    rows = gradcheck(layer_forward, lambda dy, cache: layer_backward(dy, cache, "bias"), x, p)
    for ours, row in zip(broken(None, seed=3, bug="bias")["rows"], rows, strict=True):
        assert (ours["tensor"], ours["ok"], ours["diagnosis"]) == (row.tensor, row.ok, row.diagnosis)
        assert ours["worst"] == list(row.worst) and math.isclose(ours["analytic"], row.analytic, rel_tol=1e-3, abs_tol=1e-300)


@pytest.mark.parametrize(("question", "sentence"), [
    ({"seed": -1}, "seed is -1, expected a whole number from 0 to 9999"), ({"seed": 0.5}, "seed is 0.5"),
    ({"bug": "tanh"}, "expected a bug, none, residual, .* or gelu, got 'tanh'"), ({"bug": None}, "expected a bug"),
    ({"change": 3}, "expected a change with name, index and value, got 3"), ({"change": {"name": "x"}}, "expected a change"),
    ({"change": {"name": "y", "index": [0, 0, 0], "value": 1}}, "expected the name of a number .* got 'y'"),
    ({"change": {"name": ["x"], "index": [0, 0, 0], "value": 1}}, "expected the name of a number"),
    ({"change": {"name": "attn.q.w", "index": [0, 4], "value": 1}}, r"attn.q.w of shape \(4, 4\)"),
    ({"change": {"name": "attn.q.w", "index": [0], "value": 1}}, "one number for each axis"),
    ({"change": {"name": "attn.q.w", "index": [0, -1], "value": 1}}, "counted from 0"),
    ({"change": {"name": "attn.q.w", "index": [0, True], "value": 1}}, "counted from 0"),
    ({"change": {"name": "attn.q.w", "index": 0, "value": 1}}, "expected an index"),
    ({"change": {"name": "x", "index": [0, 0, 0], "value": 101}}, "value is 101, expected a number from -100 to 100"),
    ({"change": {"name": "x", "index": [0, 0, 0], "value": "1"}}, "value is '1'"),
    ({"change": {"name": "x", "index": [0, 0, 0], "value": float("nan")}}, "value is nan"),
])
def test_wrong_questions_are_explained(question, sentence):
    with pytest.raises(ValueError, match=sentence):
        layer_step(None, **{"seed": 0, "change": None} | question)


def test_the_check_explains_wrong_questions_too():
    with pytest.raises(ValueError, match="expected a bug"):
        broken(None, seed=0, bug="tanh")
    with pytest.raises(ValueError, match="seed is 10000"):
        broken(None, seed=10000, bug="none")


@pytest.mark.parametrize("bug", ["none", *BUGS])
def test_an_answer_is_json_and_small(bug):
    change = {"name": "ln1.gamma", "index": [1], "value": -100}
    answer = answer_json("step", json.dumps({"seed": 1, "change": change, "bug": bug}), None)
    assert "error" not in json.loads(answer) and len(answer) < 80_000
