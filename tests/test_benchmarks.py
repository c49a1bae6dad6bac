"""The benchmarks' table from made-up results, their warnings, and what they count. Nothing is timed."""
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])


def result(seconds, answer=None, **figures):
    return {"seconds": seconds, "peak": 100.0, "added": 20.0, "others": 0.0, "answer": answer} | figures


def made_up(agreeing=True):
    """Three rounds in which the machine gets slower: the medians of the times hide that tinymae wins every round."""
    other = [1, 2, 3, 4 if agreeing else 5]
    return [
        {"tinymae": result(slow, [1, 2, 3, 4]), "PyTorch": result(2 * slow, other), "JAX": {"missing": "-"},
         "torch.compile": {"missing": "not compiled: no g++"}, "products": result(0.05)}
        for slow in (1.0, 2.0, 4.0)
    ]


def test_ratios_are_taken_round_by_round():
    from benchmarks.__main__ import summary

    found = summary(made_up(), agree=0.99)
    assert found["tinymae"] == {"seconds": 2, "range": (1, 4), "peak": 100, "added": 20, "ratio": 1, "agree": 1}
    assert (found["PyTorch"]["seconds"], found["PyTorch"]["ratio"], found["products"]["ratio"]) == (4, 0.5, 40)


def test_the_ratio_is_not_that_of_the_medians():
    from benchmarks.__main__ import summary

    rounds = [{"tinymae": result(a), "PyTorch": result(b)} for a, b in ((1, 10), (2, 1), (3, 4))]
    assert summary(rounds, None)["PyTorch"]["ratio"] == 0.75            # the medians' is 2 / 4


def test_a_side_that_computes_something_else_is_refused():
    from benchmarks.__main__ import summary

    with pytest.raises(SystemExit, match=r"PyTorch: expected a fraction of 0.99 .* got 0.7500"):
        summary(made_up(agreeing=False), agree=0.99)


def test_the_table_has_a_cell_for_each_side_and_says_why_one_is_empty():
    from benchmarks.__main__ import summary, table

    lines = table({"beam": summary(made_up(), 0.99)}).splitlines()
    assert lines[0].split() == ["tinymae", "PyTorch", "torch.compile", "JAX", "products"]
    assert lines[1].split("sentences")[1].split() == [
        "2000", "(1000..4000)", "4000", "(2000..8000)", "not", "compiled", "-", "50.0", "(50.0..50.0)",
    ]
    assert lines[2].split()[3:] == ["1.00", "0.50", "40.00"]
    assert lines[3].split() == ["MiB", "peak,", "added", "100,", "20.0", "100,", "20.0"]        # not of the products
    assert lines[4].strip() == "torch.compile: not compiled: no g++"
    assert lines[-1].startswith("-: ")


def test_warnings_name_busy_rounds_and_spreads():
    from benchmarks.__main__ import summary, warnings_of

    quiet = [{"tinymae": result(seconds)} for seconds in (1.0, 1.05, 1.09)]
    assert warnings_of("a row", quiet, summary(quiet, None)) == []
    spread = [*quiet, {"tinymae": result(1.3, others=0.45)}]
    assert warnings_of("a row", spread, summary(spread, None)) == [
        "a row: other processes used 0.5 cores in round 4 (tinymae)", "a row: the times of tinymae spread by 28%",
    ]


def test_rows_are_selected_by_their_names_or_the_beginnings_of_several(capsys):
    from benchmarks.__main__ import ROWS, parsed

    assert parsed(["decoding-1", "translation"]).rows == ["translation-16", "translation-64", "decoding-1"]
    assert parsed([]).rows == list(ROWS)
    quick = parsed(["--quick", "--rounds", "7"])
    assert (quick.rounds, quick.steps) == (1, 1)
    with pytest.raises(SystemExit):
        parsed(["decodign"])
    assert "got 'decodign'" in capsys.readouterr().err


def test_emulation_is_said_in_the_heading_and_disables_what_numpy_found(monkeypatch):
    from benchmarks import machine
    from benchmarks.__main__ import heading, parsed

    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    for found, beyond in ((["X86_V3", "X86_V4", "AVX512_ICL"], "X86_V4 AVX512_ICL"), (["FMA3", "AVX2", "AVX512F"], "AVX512F")):
        monkeypatch.setattr(machine.np, "show_config", lambda mode, found=found: {"SIMD Extensions": {"found": found}})
        assert machine.avx2()["NPY_DISABLE_CPU_FEATURES"] == beyond
    assert "EMULATED" in heading({}, parsed(["--emulate-avx2"])) and "EMULATED" not in heading({}, parsed([]))
    monkeypatch.setattr(machine.platform, "machine", lambda: "arm64")
    with pytest.raises(SystemExit, match="got arm64"):
        machine.avx2()


def test_the_machine_is_described_in_json():
    from benchmarks import machine

    described = machine.description()
    assert json.loads(json.dumps(described)) == described and all(described.values())
    assert set(described) == {"processor", "system", "Python", "NumPy", "BLAS", "PyTorch", "JAX"}


def test_products_are_all_of_a_step_and_only_those():
    """Six linear maps in a layer have three products each, its attention six; embedding twice and prediction three each."""
    from benchmarks import rows

    small = replace(rows.MAE_32, embed_dim=24, decoder_embed_dim=12)
    products = rows.recorded_products(rows.mae_work(replace(rows.ROWS["mae"], config=small)))
    assert len(products) == (small.depth + small.decoder_depth) * (6 * 3 + 6) + 3 * 3
    shapes = Counter((a[0], b[0]) for a, b in products)
    assert shapes[(16 * 17, 24), (24, 96)] == 2 * small.depth           # 17 tokens of 16 images: fc1, and back through fc2
    weights = rows.mae_work(replace(rows.ROWS["mae"], config=small)).params["encoder"]["blocks"][0]["ffn"]["fc1"]["w"]
    assert type(weights) is np.ndarray


def test_exponents_are_slopes():
    from benchmarks.growth import exponent

    assert exponent((1, 2, 4, 8), [3, 12, 48, 192]) == pytest.approx(2)
