"""The command line of the gradient check: what it prints, writes and returns."""
import json

import numpy as np
import pytest

from tinymae import checks
from tinymae.__main__ import main
from tinymae.ops.softmax import softmax_backward, softmax_forward


def some_checks(backward):
    def find(seed=0):
        x = np.random.default_rng(seed).normal(size=(2, 5))
        return [checks.Check("softmax", softmax_forward, softmax_forward, backward, (x,), {})]

    return find


def test_a_right_gradient_is_one_row_and_status_0(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(checks, "checks", some_checks(softmax_backward))
    assert main(["gradcheck", "--json", str(tmp_path / "rows.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-2:] == ["error", "verdict"]
    assert lines[1].startswith("softmax ") and lines[1].endswith(" ok")
    assert "1 tensors, 0 wrong" in lines
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["check"] == "softmax" and row["tensor"] == "scores" and row["ok"] and row["error"] < 1e-6


@pytest.mark.parametrize(("bug", "cause"), [
    (lambda dy, cache: softmax_backward(dy, cache) / 2, "2 is the batch size"),
    (lambda dy, cache: softmax_backward(dy, cache)[0], "shape"),
])
def test_a_wrong_one_is_named_explained_and_status_1(monkeypatch, capsys, tmp_path, bug, cause):
    monkeypatch.setattr(checks, "checks", some_checks(bug))
    assert main(["gradcheck", "--json", str(tmp_path / "rows.json")]) == 1
    output = capsys.readouterr().out
    assert "WRONG" in output and cause in output and "1 tensors, 1 wrong" in output
    text = (tmp_path / "rows.json").read_text()
    assert "NaN" not in text and "Infinity" not in text         # JSON knows neither
    (row,) = json.loads(text)
    assert not row["ok"] and cause in row["diagnosis"]
