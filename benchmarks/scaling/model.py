"""What a training step costs on n ranks: a model of few parameters, fitted to what measure.py measured, and its predictions.

    python benchmarks/scaling/model.py benchmarks/scaling/measured.jsonl --figure figures/scaling.png

A step computes the gradient of its own images, sums it over the ranks, and moves the parameters, which each rank does for all:

    (1)  step     = gradient + sum + optimiser
    (2)  sum      = v (eta / B + s) + m (lambda + delay) + f b        b = 4 bytes a parameter
    (3)  gradient = P (images / 32) g + g0,    optimiser = P o + P D q        P parameters, dimension D

v bytes and m messages after each other, on the rank that has most of them, in the Allreduce of MPICH (recursive halving and
doubling) on n = 2^k ranks:

    (4)  v = 2 (n - 1) / n * b,    m = 2 log2 n

A ring sends as many bytes, in m = 2 (n - 1) messages. If n is no power of two, n - 2^k ranks first send all to another one, and
receive the result: v = (2 + 2 (2^k - 1) / 2^k) b, m = 2 k + 2.

B is the bandwidth of a host in bytes a second and delay the network's; both are known. eta (headers), s (the processor's time
for a byte), lambda (for a message) and f (into the flat array and back) are fitted, by least squares of the relative error,
none of them negative. So are g, g0, o and q. The last is of Muon, whose work for a parameter grows with the dimension. AdamW
takes P a. Where n ranks share fewer cores, all but eta / B and delay take n / cores times as long.
"""
import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from tinymae.plot.style import COLOURS, legend_above, page, save, styled

IMAGES, SMALLEST, BATCH = 32, 16, 1024          # of a rank in a step, in a micro-batch, in a step of all ranks
SHAPES = {10e6: 384, 100e6: 768, 1e9: 1792}     # parameters: dimension of a model of this size
GIGABITS = (1, 10, 100)
RANKS = (8, 64, 1024)
LEFT_OUT = {                                    # rows that are predicted by a model fitted to the others
    "0.3, 3 and 30 M parameters, not fitted to": lambda row: row["parameters"] in (3e5, 3e6, 3e7),
    "4 ranks, not fitted to": lambda row: row["ranks"] == 4,
    "100 Mbit/s, not fitted to": lambda row: row["megabits"] == 100,
}
MOST = 2**16                                    # ranks up to which the point is looked for where it stops paying


def volume(ranks: int) -> float:
    """v / b of (4)."""
    power = 2 ** (ranks.bit_length() - 1)
    return 2 * (power - 1) / power + (2 if ranks > power else 0)


def messages(ranks: int, ring: bool = False) -> int:
    """m of (4)."""
    power = ranks.bit_length() - 1
    return 2 * (ranks - 1) if ring else 2 * power + (2 if ranks > 2**power else 0)


@dataclass(frozen=True)
class Model:
    """The fitted parameters, in seconds."""

    s: float                                    # for a byte
    eta: float                                  # no unit
    lam: float                                  # for a message
    f: float                                    # for a byte of the gradient
    g: float = 0.0                              # for a parameter
    g0: float = 0.0
    o: float = 0.0                              # for a parameter
    q: float = 0.0                              # for a parameter and a feature
    a: float = 0.0                              # for a parameter

    def sum(self, parameters: float, ranks: int, bandwidth: float, delay: float = 0.0, *, share: float = 1.0,
            flat: bool = True, ring: bool = False) -> float:
        """(2) in seconds; bandwidth in bytes a second, delay in seconds, share = ranks of a core."""
        if ranks == 1:
            return 0.0
        size = 4 * parameters
        moved = volume(ranks) * size * (self.eta / bandwidth + share * self.s)
        return moved + messages(ranks, ring) * (share * self.lam + delay) + flat * share * self.f * size

    def gradient(self, parameters: float, images: float = IMAGES) -> float:
        """(3) in seconds."""
        return (parameters * self.g + self.g0) * images / IMAGES

    def optimiser(self, parameters: float, dim: float | None) -> float:
        """(3) in seconds; AdamW's if dim is None."""
        return parameters * (self.a if dim is None else self.o + dim * self.q)

    def step(self, parameters: float, dim: float | None, ranks: int, bandwidth: float, delay: float = 0.0, *,
             images: float = IMAGES, share: float = 1.0) -> float:
        """(1) in seconds."""
        own = self.gradient(parameters, images) + self.optimiser(parameters, dim)
        return share * own + self.sum(parameters, ranks, bandwidth, delay, share=share)

    def weak(self, parameters: float, dim: float | None, ranks: int, bandwidth: float) -> float:
        """Efficiency if each rank has IMAGES in a step: the time of one rank alone, divided by the time of n."""
        return self.step(parameters, dim, 1, bandwidth) / self.step(parameters, dim, ranks, bandwidth)

    def strong(self, parameters: float, dim: float | None, ranks: int, bandwidth: float) -> float:
        """Efficiency if all ranks together have BATCH images; none has less than a micro-batch, and some then have nothing."""
        alone = self.step(parameters, dim, 1, bandwidth, images=BATCH)
        return alone / (ranks * self.step(parameters, dim, ranks, bandwidth, images=max(BATCH / ranks, SMALLEST)))


def share(row: dict) -> float:
    """Ranks for a core of the machine that all of them were measured on."""
    return max(1.0, row["ranks"] / row["cores"])


def bandwidth(row: dict) -> float:
    """Of a host, bytes a second."""
    return row["megabits"] * 1e6 / 8 if row["megabits"] else math.inf


def summed(row: dict) -> float:
    """The measured seconds of the sum."""
    return row["sum"] if row["kind"] == "step" else row["seconds"]


def least_squares(columns: Sequence, values: Sequence, known: Sequence | float = 0.0) -> np.ndarray:
    """Coefficients, none negative, of columns (rows, coefficients), that with `known` added give the values (rows,).

    The sum of squared relative errors is the least.
    """
    values = np.asarray(values, float)
    columns = np.array(columns, float) / values[:, None]
    scale = np.maximum(columns.max(axis=0), 1e-300)             # seconds for a byte and for a message: very different sizes
    return nnls(columns / scale, 1 - np.asarray(known) / values)[0] / scale


def fit(rows: list[dict]) -> Model:
    """The model of the rows of Allreduce and, if there are any, of steps; all with several ranks, or steps of one."""
    sums = [row for row in rows if row["kind"] in ("allreduce", "step") and row["ranks"] > 1]
    columns, delays = [], []
    for row in sums:
        size = 4 * row["parameters"]
        moved, count = volume(row["ranks"]) * size, messages(row["ranks"])
        columns.append((share(row) * moved, moved / bandwidth(row), share(row) * count,
                        share(row) * size * (row["kind"] == "step")))
        delays.append(count * row["delay"] / 1000)
    first = least_squares(columns, [summed(row) for row in sums], delays)
    steps = [row for row in rows if row["kind"] == "step"]
    if not steps:
        return Model(*first)
    gradient = least_squares([(row["parameters"], 1) for row in steps], [row["gradient"] / share(row) for row in steps])
    optimiser = least_squares(
        [(row["parameters"], row["parameters"] * row["dim"]) for row in steps], [row["optimiser"] / share(row) for row in steps]
    )
    adamw = least_squares([(row["parameters"],) for row in steps], [row["adamw"] / share(row) for row in steps])
    return Model(*first, *gradient, *optimiser, *adamw)


def error(model: Model, row: dict) -> float:
    """How far the model's time for the sum is from the measured one, as a fraction of that."""
    predicted = model.sum(row["parameters"], row["ranks"], bandwidth(row), row["delay"] / 1000, share=share(row),
                          flat=row["kind"] == "step")
    return predicted / summed(row) - 1


def errors(model: Model, rows: list[dict]) -> str:
    """The errors of the sums, to print."""
    found = np.abs([error(model, row) for row in rows if row["ranks"] > 1 and row["kind"] != "exact"])
    return f"{len(found)} points, error {np.median(found):.0%} in the median, {found.max():.0%} at most"


def left_out(rows: list[dict], leave: Callable[[dict], bool]) -> str:
    """The errors on rows that the model was not fitted to."""
    model = fit([row for row in rows if not leave(row)])
    return errors(model, [row for row in rows if leave(row)])


def stops(efficiency: Callable[[int], float]) -> int | None:
    """The smallest power of two of ranks with an efficiency below one half; None if there is none up to MOST."""
    return next((n for n in (2**k for k in range(1, MOST.bit_length())) if efficiency(n) < 0.5), None)


def stops_text(efficiency: Callable[[int], float]) -> str:
    """`stops`, to print."""
    ranks = stops(efficiency)
    return f"over {MOST:,}" if ranks is None else f"{ranks:,}"


def memory(rows: list[dict]) -> tuple[float, float]:
    """(bytes for a parameter, bytes besides) that a rank with others held at most."""
    steps = [row for row in rows if row["kind"] == "step" and row["ranks"] > 1]
    a, b = np.polyfit([row["parameters"] for row in steps], [row["memory"] for row in steps], 1)
    return float(a), float(b)


# ---- what it prints ------------------------------------------------------------------------------------------------------

def report(rows: list[dict]) -> Iterator[str]:
    """Lines to print: the rows of the tables of docs/scaling.rst."""
    networked = [row for row in rows if row["hosts"] > 1]
    loads = [row["load"] for row in rows]
    yield f"Load average of the machine while it was measured: {min(loads):.1f} to {max(loads):.1f}"
    yield "\nMeasured sums: network | ranks | million parameters | how | seconds | bytes sent by a host / bytes of the gradient"
    for row in rows:
        if row["kind"] != "step":
            counted = f"{row['sent'] / 4 / row['parameters']:.2f}" if row["sent"] else "-"
            yield f"   {row['network']} | {row['ranks']} | {row['parameters'] / 1e6:g} | {row['kind']} | " \
                  f"{row['seconds']:.3f} | {counted}"
    yield "\nMeasured steps: network | ranks | million parameters | seconds | gradient | wait | sum | optimiser | sum / step"
    for row in rows:
        if row["kind"] == "step":
            parts = " | ".join(f"{row[name]:.3f}" for name in ("seconds", "gradient", "wait", "sum", "optimiser"))
            yield f"   {row['network']} | {row['ranks']} | {row['parameters'] / 1e6:.1f} | {parts} | " \
                  f"{row['sum'] / row['seconds']:.0%}"
    model = fit(networked)
    yield "\nFitted: number | what it is"
    yield f"   {model.s * 1e9:.2f} | s, ns a byte\n   {model.eta:.3f} | eta\n   {model.lam * 1e3:.2f} | lambda, ms a message"
    yield f"   {model.f * 1e9:.2f} | f, ns a byte\n   {model.g * 1e9:.0f} | g, ns a parameter for {IMAGES} images"
    yield f"   {model.g0 * 1e3:.0f} | g0, ms\n   {model.o * 1e9:.1f} | o, ns a parameter"
    yield f"   {model.q * 1e12:.0f} | q, ps a parameter and feature\n   {model.a * 1e9:.1f} | a, ns a parameter"
    yield "\nErrors of the sums: which points | how many, and how far off"
    yield "   all, fitted to all | " + errors(model, networked)
    for name, leave in LEFT_OUT.items():
        if any(map(leave, networked)) and not all(map(leave, networked)):
            yield f"   {name} | " + left_out(networked, leave)
    whole = np.abs([model.step(row["parameters"], row["dim"], row["ranks"], bandwidth(row), row["delay"] / 1000,
                               share=share(row)) / row["seconds"] - 1 for row in networked if row["kind"] == "step"])
    yield f"   whole steps, fitted to all | {len(whole)} points, error {np.median(whole):.0%} in the median, " \
          f"{whole.max():.0%} at most"
    heads = f"efficiency on {', '.join(f'{n:,}' for n in RANKS)} ranks | below 1/2 from"
    yield f"\nExtrapolated: optimiser, parameters | Gbit/s | {IMAGES} images a rank: {heads} | " \
          f"{BATCH:,} images in all: {heads} | sum / step on 64 ranks"
    for name, parameters, dim, gigabits in (
        (name, parameters, dim if name == "Muon" else None, gigabits)
        for name in ("AdamW", "Muon") for parameters, dim in SHAPES.items() for gigabits in GIGABITS
    ):
        speed = gigabits * 1e9 / 8
        calls = [lambda n, its=its: its(parameters, dim, n, speed) for its in (model.weak, model.strong)]  # noqa: B023
        cells = [", ".join(f"{call(n):.2f}" for n in RANKS) + " | " + stops_text(call) for call in calls]
        part = model.sum(parameters, 64, speed) / model.step(parameters, dim, 64, speed)
        yield f"   {name}, {parameters / 1e6:,.0f} M | {gigabits} | {' | '.join(cells)} | {part:.0%}"
    each, besides = memory(rows)
    yield "\nExtrapolated seconds: parameters | gradient | AdamW | Muon | sum, 1,024 ranks, 10 Gbit/s | by a ring | GB a rank"
    for parameters, dim in SHAPES.items():
        seconds = (model.gradient(parameters), model.optimiser(parameters, None), model.optimiser(parameters, dim),
                   model.sum(parameters, 1024, 1.25e9), model.sum(parameters, 1024, 1.25e9, ring=True))
        yield f"   {parameters / 1e6:,.0f} M | {' | '.join(f'{it:.1f}' for it in seconds)} | " \
              f"{(each * parameters + besides) / 1e9:.1f}"
    yield f"\nMemory of a rank: {each:.1f} bytes a parameter and {besides / 1e6:.0f} MB"


@styled()
def figure(rows: list[dict], model: Model):
    """Measured sums and efficiencies, with the model's lines."""
    largest = max((row for row in rows if row["kind"] == "step"), key=lambda row: row["parameters"])
    size, dim = largest["parameters"], largest["dim"]
    drawn = page(3.4, (
        "How to read it: left, the time to sum a gradient over two hosts, both axes logarithmic. Right, the time of a step "
        f"on one rank over that on n ranks with {IMAGES} images each, {size / 1e6:.1f} M parameters, Muon: 1 if sums cost "
        "nothing. Markers are measured. Lines are the model, dashed where it extrapolates (right: everywhere but at 2 ranks)."
    ))
    left, right = drawn.subplots(1, 2)
    sizes = np.geomspace(1e5, 1e9, 81)
    for colour, speed in zip(COLOURS, (100, 1000), strict=False):
        own = [row for row in rows if row["megabits"] == speed and not row["delay"] and row["ranks"] == 2]
        points = sorted((row["parameters"], row["seconds"]) for row in own if row["kind"] == "allreduce")
        x, y = np.array(points).T
        left.plot(x, y, "o", color=colour, label=f"{speed:,} Mbit/s")
        times = np.array([model.sum(it, 2, speed * 1e6 / 8, flat=False) for it in sizes])
        for inside, style in ((sizes <= x.max() * 1.01, "-"), (sizes >= x.max() * 0.99, "--")):
            left.plot(sizes[inside], times[inside], style, color=colour)
        seconds = {row["ranks"]: row["seconds"] for row in rows if row["kind"] == "step" and row["parameters"] == size
                   and (row["ranks"] == 1 or row in own)}
        right.plot(2, seconds[1] / seconds[2], "o", color=colour)
    for colour, speed in zip(COLOURS, (100, 1000, 10_000, 100_000), strict=False):
        counts = 2 ** np.arange(11)
        right.plot(counts, [model.weak(size, dim, int(n), speed * 1e6 / 8) for n in counts], "--", color=colour,
                   label=f"{speed / 1000:g}" + " Gbit/s" * (speed == 100_000))
    left.set(xscale="log", yscale="log", xlim=(6e4, 1e9), ylim=(1e-4, 1e3), xlabel="parameters", ylabel="seconds for the sum")
    left.set_xticks([1e5, 1e6, 1e7, 1e8, 1e9], ["0.1 M", "1 M", "10 M", "100 M", "1 B"])
    left.set_yticks([1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100, 1000], ["0.0001", "0.001", "0.01", "0.1", "1", "10", "100", "1,000"])
    right.set_xscale("log", base=2)
    right.set(xlim=(0.9, 1024), ylim=(0, 1), xlabel="ranks", ylabel="efficiency")
    right.set_xticks([1, 4, 16, 64, 256, 1024], ["1", "4", "16", "64", "256", "1,024"])
    legend_above(left, 2)
    legend_above(right, 4)
    return drawn


def main() -> None:
    """Fit, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("measured", type=Path, help="the file that measure.py wrote, with --hosts")
    parser.add_argument("--figure", type=Path, help="where to draw it, a .png")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.measured.read_text("utf-8").splitlines()]
    print("\n".join(report(rows)))
    if options.figure:
        print(save(figure(rows, fit([row for row in rows if row["hosts"] > 1])), options.figure))


if __name__ == "__main__":
    main()
