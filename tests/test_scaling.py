"""The model of benchmarks/scaling finds the parameters of made-up measurements, and its predictions have the right limits."""
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "scaling"


@pytest.fixture(autouse=True, scope="module")
def on_path():
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))
    for name in ("model", "measure", "hosts", "launcher"):
        sys.modules.pop(name, None)


TRUE = {"s": 0.5e-9, "eta": 1.04, "lam": 70e-6, "f": 0.8e-9, "g": 30e-9, "g0": 0.01, "o": 5e-9, "q": 8e-12, "a": 3e-9}
CORES = 2


def made_up(kind, parameters, ranks, megabits, delay, dim=None):
    """A row as measure.py writes it, of the true parameters; the sums are written out here."""
    size, share = 4 * parameters, max(1, ranks / CORES)
    moved, messages = {1: (0, 0), 2: (1, 2), 3: (3, 4), 4: (1.5, 4)}[ranks]
    seconds = moved * size * share * TRUE["s"] + messages * (share * TRUE["lam"] + delay / 1000)
    seconds += TRUE["eta"] * moved * size * 8 / (megabits * 1e6) if megabits else 0
    row = {"kind": kind, "network": "made up", "megabits": megabits, "delay": delay, "hosts": ranks, "ranks": ranks,
           "cores": CORES, "parameters": parameters, "seconds": seconds, "load": 0.1, "sent": moved * size}
    if kind == "step":
        row |= {"dim": dim, "wait": 0.0, "sum": (seconds + share * TRUE["f"] * size) * (ranks > 1),
                "gradient": share * (parameters * TRUE["g"] + TRUE["g0"]),
                "optimiser": share * parameters * (TRUE["o"] + dim * TRUE["q"]), "adamw": share * parameters * TRUE["a"],
                "memory": 24 * parameters + 1e8}
        row["seconds"] = row["gradient"] + row["sum"] + row["optimiser"]
    return row


@pytest.fixture(scope="module")
def rows():
    found = []
    for megabits, delay in ((None, 0.0), (1000, 0.0), (100, 1.0)):
        for ranks in (1, 2, 3, 4):
            found += [made_up("step", size, ranks, megabits, delay, dim) for size, dim in ((4e5, 96), (3e6, 192), (12e6, 384))]
            found += [made_up("allreduce", size, ranks, megabits, delay) for size in (1e5, 3e5, 1e6, 1e7)] if ranks > 1 else []
    return found


@pytest.fixture(scope="module")
def model(on_path, rows):
    from model import fit

    return fit(rows)


def test_the_fit_finds_the_parameters(model):
    assert asdict(model) == pytest.approx(TRUE, rel=1e-6)


def test_a_wrong_measurement_is_seen(rows, model):
    from model import error

    assert max(abs(error(model, row)) for row in rows if row["ranks"] > 1) < 1e-6
    assert error(model, rows[-1] | {"seconds": rows[-1]["seconds"] / 2}) == pytest.approx(1)


def test_points_that_are_left_out_are_predicted(rows):
    from model import left_out

    assert left_out(rows, lambda row: row["ranks"] == 4).endswith("0% in the median, 0% at most")


def test_sums_alone_are_enough_for_the_sum(rows):
    from model import fit

    found = fit([row for row in rows if row["kind"] == "allreduce"])
    assert (found.s, found.eta, found.lam) == pytest.approx((TRUE["s"], TRUE["eta"], TRUE["lam"]), rel=1e-6)
    assert found.f == found.g == 0


def test_limits(model):
    inf = float("inf")
    assert model.sum(1e7, 1, 1e9) == 0 and model.weak(1e7, 384, 1, 1e9) == 1
    assert model.strong(1e7, 384, 1, 1e9) == 1
    # two sends of everything, however many ranks there are, and messages that grow with the logarithm; those of a ring, with n
    more = model.sum(1e9, 2**20, 1e9) - model.sum(1e9, 2**19, 1e9)
    assert more == pytest.approx(2 * TRUE["lam"], abs=2e-4)
    assert model.sum(0, 1024, 1e9, ring=True) == pytest.approx(2046 * TRUE["lam"])
    assert model.sum(0, 1024, 1e9, 0.001) == pytest.approx(20 * (TRUE["lam"] + 0.001))
    # with ever more bandwidth, what the processor does remains
    assert model.sum(1e9, 2, inf, flat=False) == pytest.approx(4e9 * TRUE["s"], rel=1e-3)
    # the smaller the bandwidth, the lower the efficiency, down to 0; images that do not fill all ranks leave some idle
    efficiencies = [model.weak(1e8, 768, 64, speed) for speed in (1e0, 1e6, 1e8, 1e10)]
    assert efficiencies == sorted(efficiencies) and efficiencies[0] < 1e-6
    assert model.strong(1e7, 384, 2**16, inf) < 64 / 2**16
    assert model.optimiser(1e7, None) == pytest.approx(1e7 * TRUE["a"])           # AdamW: whatever the dimension


@pytest.mark.parametrize(("ranks", "moved", "count"), [
    (1, 0, 0), (2, 1, 2), (3, 3, 4), (4, 1.5, 4), (6, 3.5, 6), (1024, 2046 / 1024, 20),
])
def test_volume_and_messages(ranks, moved, count):
    from model import messages, volume

    assert volume(ranks) == pytest.approx(moved) and messages(ranks) == count
    assert messages(ranks, ring=True) == 2 * (ranks - 1)


def test_where_it_stops_paying():
    from model import stops

    assert stops(lambda n: 1 / n) == 4                          # one half is not below one half
    assert stops(lambda n: 0.9) is None


def test_memory(rows):
    from model import memory

    assert memory(rows) == pytest.approx((24, 1e8))


def test_the_report_and_the_figure(rows, model):
    from model import figure, report

    text = "\n".join(report([row | {"hosts": 2} for row in rows]))
    assert "24.0 bytes a parameter" in text and "   Muon, 1,000 M | 100 | " in text
    left, right = figure([row | {"delay": 0.0} for row in rows], model).axes
    assert left.get_xlabel() == "parameters" and left.get_xlim() == (6e4, 1e9) and right.get_ylim() == (0, 1)
    assert {line.get_linestyle() for line in left.lines} == {"None", "-", "--"}


@pytest.mark.parametrize("options", [[], ["-x"]])
def test_the_launcher_maps_a_host_to_its_namespace(options):
    from launcher import command

    assert command([*options, "host1", '"/bin/proxy"', "--port", "10.0.0.1:5"]) == [
        "ip", "netns", "exec", "host1", "sh", "-c", '"/bin/proxy" --port 10.0.0.1:5',
    ]


def test_the_launcher_refuses_a_host_without_a_command():
    from launcher import command

    with pytest.raises(ValueError, match=r"expected a host and a command, as for ssh, got \['-x', 'host1'\]"):
        command(["-x", "host1"])


def test_a_slow_network_is_given_no_large_sums():
    from hosts import Network
    from measure import task

    assert task(Network(100), 2, 3, 1.0)["millions"] == [0.1, 0.3, 1, 3]
    assert task(None, 2, 3, 1.0)["millions"][-1] == 30
    assert task(Network(100, 1), 3, 3, 1.0)["network"] == "100 Mbit/s, 1 ms" and task(Network(), 3, 3, 1.0)["hosts"] == 3


def test_the_command_names_each_host():
    from hosts import Joined

    command = Joined("switch", ["a", "b"]).mpiexec(["python", "x.py"])
    assert command[:5] == ["ip", "netns", "exec", "switch", "mpiexec"] and command[-2:] == ["python", "x.py"]
    assert command[command.index("-hosts") + 1] == "a,b" and command[command.index("-n") + 1] == "2"
    assert Path(command[command.index("-launcher-exec") + 1]).stat().st_mode & 0o111
