"""One table: tinymae beside PyTorch, torch.compile, JAX and its own matrix products.

    python -m benchmarks [ROW ...] [--rounds 5] [--steps 12] [--threads 2] [--json FILE] [--quick] [--emulate-avx2]

Each side of each row runs in a process of its own, and the sides of a row take turns, several rounds. See benchmarks/README.md.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.rows import ROWS, WEIGHTS, products_side, tinymae_side

ROOT = Path(__file__).parents[1]
WARM_UP = 3                             # steps whose time does not count
NOISY = 0.1                             # a spread, (max - min) / median, above which a warning is printed
SIDES = "tinymae", "PyTorch", "torch.compile", "JAX", "products"
WITH_MEMORY = "tinymae", "PyTorch"      # whose memory stands in the table; that of all is in the JSON


# ---- one side, in a process of its own ---------------------------------------------------------------------------------

def measure(row: str, side: str, threads: int, steps: int, warm_up: int) -> dict:
    """Figures of one side: {"seconds", "peak", "added", "others", "answer"}, or {"missing": why there are none}."""
    try:
        running = _side(row, side, threads)
        if running is None:
            return {"missing": "-"}
        next(running)
        before = machine.memory(forget=True)
        for _ in range(warm_up):                                # the first step also compiles
            next(running)
    except Exception as error:
        if isinstance(error, ImportError) and error.name in ("torch", "jax"):
            return {"missing": "not installed"}
        if side != "torch.compile":
            raise
        return {"missing": f"not compiled: {_reason(error)}"}
    seconds, others = [], machine.Others()
    for _ in range(steps):
        start = time.perf_counter()
        answer = next(running)
        seconds.append(time.perf_counter() - start)
    result, after = {"seconds": statistics.median(seconds), "others": others.cores()}, machine.memory()
    running.close()
    if before is not None:
        result |= {"peak": max(before[1], after[1]), "added": max(after[1] - before[0], 2**-10)}    # a KiB, to divide by
    return result | {"answer": None if answer is None else answer.tolist()}


def _side(name, side, threads):
    row = ROWS[name]
    if side == "tinymae":
        return tinymae_side(row, threads)
    if side == "products":
        return products_side(row, threads)
    if side == "JAX":
        from benchmarks import jax_sides

        return jax_sides.side(row) if row.kind in jax_sides.STEPS else None
    from benchmarks import torch_sides

    return torch_sides.side(row, threads, compiled=side == "torch.compile")


def _reason(error):
    """The first line of an error of torch.compile, without its class names."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.split("Error: ")[-1].strip()[:80]


def run(row: str, side: str, options: argparse.Namespace, changes: dict) -> dict:
    """`measure` in a new process."""
    threads = str(options.threads)
    command = [sys.executable, "-m", "benchmarks", "--side", row, side, "--threads", threads, "--steps", str(options.steps)]
    # The numbers of threads: of OpenMP (PyTorch), and of JAX, which has no function to set it.
    environment = os.environ | changes | {"OMP_NUM_THREADS": threads, "PJRT_NPROC": threads, "JAX_PLATFORMS": "cpu"}
    if options.quick:
        command.append("--quick")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        raise SystemExit(f"{row}, {side}: the process that measures ended with {done.returncode}, see above")
    return json.loads(done.stdout.splitlines()[-1])


# ---- the report --------------------------------------------------------------------------------------------------------

def summary(rounds: Sequence[dict], agree: float | None) -> dict:
    """{side: {"seconds": median, "range": (min, max), "ratio": tinymae / side, "peak", "added", "agree"} or {"missing"}}.

    rounds : {side: a result of `measure`} of each round. A ratio is the median of those of the rounds.
    agree : the fraction of the answers' numbers that must be those of tinymae, or None

    Raises
    ------
    SystemExit
        if a side agrees less than that
    """
    found = {}
    for side in rounds[0]:
        results = [each[side] for each in rounds]
        missing = next((each["missing"] for each in results if "missing" in each), None)
        if missing:
            found[side] = {"missing": missing}
            continue
        seconds = [each["seconds"] for each in results]
        found[side] = {"seconds": statistics.median(seconds), "range": (min(seconds), max(seconds))}
        found[side] |= {
            figure: statistics.median(each[figure] for each in results) for figure in ("peak", "added") if figure in results[0]
        }
        ours = [each["tinymae"] for each in rounds]
        found[side]["ratio"] = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(ours, results, strict=True))
        if agree is not None and results[0]["answer"] is not None:
            equal = min(
                float(np.mean(np.array(a["answer"]) == np.array(b["answer"]))) for a, b in zip(ours, results, strict=True)
            )
            if equal < agree:
                raise SystemExit(
                    f"{side}: expected a fraction of {agree} of its answer's numbers to be those of tinymae, got {equal:.4f}: "
                    "the two do not compute the same"
                )
            found[side]["agree"] = equal
    return found


def warnings_of(title: str, rounds: Sequence[dict], sides: dict) -> list[str]:
    """Why the figures of a row may not be trusted, a sentence each."""
    lines = []
    for number, each in enumerate(rounds, 1):
        busy = {side: result["others"] for side, result in each.items() if result.get("others", 0) > machine.BUSY}
        if busy:
            side = max(busy, key=busy.get)
            lines.append(f"{title}: other processes used {busy[side]:.1f} cores in round {number} ({side})")
    for side, found in sides.items():
        if "seconds" in found:
            spread = (found["range"][1] - found["range"][0]) / found["seconds"]
            if spread > NOISY:
                lines.append(f"{title}: the times of {side} spread by {spread:.0%}")
    return lines


def heading(described: dict, options: argparse.Namespace) -> str:
    """What was measured, and on what."""
    lines = [f"{name}: {value}" for name, value in described.items()]
    lines.append(f"{options.threads} threads, {options.rounds} rounds of {options.steps} steps")
    if options.emulate_avx2:
        lines.append("EMULATED: all sides were kept to AVX2, as on a processor without AVX-512")
    if options.quick:
        lines.append("QUICK: too few steps for figures, only to see that everything runs")
    return "\n".join(lines)


def table(report: dict[str, dict]) -> str:
    """{row: `summary`} as lines of text: for each row its times, then the ratios, then memory."""
    lines, footnote = [f"{'':42}" + "".join(f"{side:>24}" for side in SIDES)], False

    def line(name, cells):
        lines.append(f"{name:42}" + "".join(f"{cell:>24}" for cell in cells))

    for name, sides in report.items():
        shown = [sides.get(side, {"missing": ""}) for side in SIDES]
        footnote = footnote or any(it.get("missing") == "-" for it in shown)
        line(ROWS[name].title, [_times(it) for it in shown])
        line("    tinymae / this", [f"{it['ratio']:.2f}" if "ratio" in it else "" for it in shown])
        if any("peak" in sides.get(side, {}) for side in WITH_MEMORY):
            line("    MiB peak, added", [
                f"{it['peak']:.0f}, {it['added']:.1f}" if "peak" in it and side in WITH_MEMORY else ""
                for side, it in zip(SIDES, shown, strict=True)
            ])
        lines += [f"    {side}: {it['missing']}" for side, it in zip(SIDES, shown, strict=True) if _long(it)]
    lines.append("Times: median of the rounds in ms (min..max). Ratios: median of the rounds' ratios; below 1: tinymae wins.")
    if footnote:
        lines.append("-: not written for JAX. Shapes that grow or a file of weights make these another program there.")
    return "\n".join(lines)


def _long(found):
    return found.get("missing", "").startswith("not compiled")


def _times(found):
    if "missing" in found:
        return "not compiled" if _long(found) else found["missing"]
    middle, low, high = (f"{1000 * it:.{1 if it < 0.1 else 0}f}" for it in (found["seconds"], *found["range"]))
    return f"{middle} ({low}..{high})"


# ---- the command line --------------------------------------------------------------------------------------------------

def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options. A row that is no name in ROWS is the beginning of several; all are in the order of the table."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}, or a beginning of several; default: all")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, help="columns; tinymae is always there")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help=f"in a round, after {WARM_UP} to warm up (default 12)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="1 round of 1 step, to see that everything runs")
    parser.add_argument("--emulate-avx2", action="store_true", help="keep all sides to AVX2, as on a processor without AVX-512")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    chosen = set()
    for wanted in options.rows:
        named = {wanted} & ROWS.keys() or {name for name in ROWS if name.startswith(wanted)}
        if not named:
            parser.error(f"expected a row ({', '.join(ROWS)}), or a beginning of several names, got {wanted!r}")
        chosen |= named
    options.rows = [name for name in ROWS if name in chosen or not chosen]
    if options.quick:
        options.rounds, options.steps = 1, 1
    return options


def main() -> None:
    """The command line."""
    options = parsed()
    if options.side:
        print(json.dumps(measure(*options.side, options.threads, options.steps, 1 if options.quick else WARM_UP)))
        return
    changes = machine.avx2() if options.emulate_avx2 else {}
    command = [sys.executable, "-c", "import json; from benchmarks import machine; print(json.dumps(machine.description()))"]
    described = json.loads(subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | changes
    ).stdout)                                                   # in a process with the changes, which BLAS's kernel follows
    sides = [side for side in SIDES if side == "tinymae" or side in options.sides]
    print(heading(described, options), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if "vit-large" in options.rows:
            changes[WEIGHTS] = _random_weights(Path(folder, "vit-large.pth"))
        rounds = {row: [] for row in options.rows}
        for number in range(options.rounds):
            for row in options.rows:
                rounds[row].append({})
                for side in sides:
                    print(f"\rround {number + 1}: {row}, {side}".ljust(60), end="", file=sys.stderr, flush=True)
                    rounds[row][-1][side] = run(row, side, options, changes)
    print("\r".ljust(61), end="\r", file=sys.stderr, flush=True)
    report = {row: summary(rounds[row], ROWS[row].agree) for row in options.rows}
    warnings = [line for row in options.rows for line in warnings_of(ROWS[row].title, rounds[row], report[row])]
    print(table(report))
    for line in warnings:
        print(f"WARNING: {line}")
    if options.json:
        for each in (result for row in rounds.values() for sides in row for result in sides.values()):
            each.pop("answer", None)
        content = {
            "machine": described, "threads": options.threads, "steps": options.steps, "emulated AVX2": options.emulate_avx2,
            "quick": options.quick, "table": report, "warnings": warnings, "rounds": rounds,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _random_weights(path):
    """A file of ViT-L's size in the official format, 1.3 GB, with random weights; its path as a string."""
    from tinymae.models.mae import mae_init
    from tinymae.weights.export import export_mae

    config = ROWS["vit-large"].config
    export_mae(path, config, mae_init(config, np.random.default_rng(0)))
    return str(path)


if __name__ == "__main__":
    main()
