"""Run several implementations of one step in turn, each in a process of its own, and compare them round by round.

A side is a generator: up to its first `yield` it gets ready, and from each `yield` to the next it does one step. What it yields
is its answer, or None. Printed is the median of the rounds, and of ratios the median of those round by round.

    seconds   median of a round's steps, without the first few, which warm up
    peak      MiB of RAM the process held at most: interpreter, libraries and their code, parameters, steps
    added     MiB of RAM it held at most during the steps (the first ones too), less what it held just before them

`peak` is what the machine must have, and much of it is the libraries (every side has imported the script, and so tinymae; only
PyTorch's has PyTorch too). `added` is what the steps are to blame for: gradients, activations, temporary arrays. A high-water
mark alone would not tell, since getting ready may take more than it leaves behind. So the present size is read before the first
step, and the mark set back to it. What one side makes in its first step and another before, such as an optimiser's moments,
would count on one side only: so all sides make it before their first `yield`. Two things still blur `added`: memory that was
freed while getting ready, but kept by the process, is used again for nothing; and libraries that load code or start threads at
first use add that (where `added` is but a few MiB, it is mostly this).

Linux tells all this in /proc. macOS tells the mark only, so that there `added` is what the steps raised it by, which may be too
little. Elsewhere memory is not reported.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

WARM_UP = 3     # steps whose time does not count


def compare(script, sides, ratios, unit="steps", work=None, agree=None):
    """The command line of a benchmark.

    Parameters
    ----------
    script : str, `__file__` of the benchmark: it runs itself once for each side and round
    sides : dict {name: callable(threads) -> generator}, see the top of this file
    ratios : list of (name, name), what to divide by what
    unit, work : str, and dict {name: how many of them a step does}, to print a rate as well; or None
    agree : float, the share of numbers that the last answers of each pair in `ratios` must have in common; or None

    Raises
    ------
    SystemExit
        where a pair agrees less than that
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help=f"in a round, behind {WARM_UP} to warm up (default 12)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=sides, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(_measure(sides[options.side](options.threads), options.steps)))
        return

    def run(side):
        command = [sys.executable, script, "--side", side, "--threads", str(options.threads), "--steps", str(options.steps)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    rounds, equal = [], {pair: 1.0 for pair in ratios}
    for _ in range(options.rounds):
        rounds.append({side: run(side) for side in sides})
        answers = {side: np.array(result.pop("answer")) for side, result in rounds[-1].items()}
        for a, b in ratios if agree is not None else []:
            equal[a, b] = min(equal[a, b], float((answers[a] == answers[b]).mean()))
            if equal[a, b] < agree:
                sys.exit(f"{a} and {b}: expected a share of {agree} equal answers at least, got {equal[a, b]:.4f}")

    figures = list(rounds[0][ratios[0][0]])
    report = {figure: {side: statistics.median(r[side][figure] for r in rounds) for side in sides} for figure in figures}
    if work is not None:
        report[f"{unit} a second"] = {side: work[side] / report["seconds"][side] for side in sides}
    report["ratios"] = {
        f"{a} / {b}": {figure: statistics.median(r[a][figure] / r[b][figure] for r in rounds) for figure in figures}
        for a, b in ratios
    }
    if agree is not None:
        report["equal answers"] = {f"{a} / {b}": share for (a, b), share in equal.items()}
    report |= {"rounds": rounds, "threads": options.threads, "steps": options.steps}

    for side in sides:
        line = f"{side:24}{report['seconds'][side]:9.4f} s a step"
        if work is not None:
            line += f"{report[f'{unit} a second'][side]:9.0f} {unit}/s"
        if "peak" in figures:
            line += f"{report['peak'][side]:8.0f} MiB peak{report['added'][side]:9.1f} MiB added"
        print(line)
    for pair, ratio in report["ratios"].items():
        line = f"{pair:44}" + "".join(f"{figure:>9} {ratio[figure]:.2f}" for figure in figures)
        print(line + (f"   equal answers {report['equal answers'][pair]:.4f}" if agree is not None else ""))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _measure(side, steps):
    """Figures of one side, a generator, in this process: {"seconds", "peak", "added", "answer"}, memory where it is known."""
    next(side)
    before = _memory(forget=True)
    seconds = []
    for _ in range(WARM_UP + steps):
        start = time.perf_counter()
        answer = next(side)
        seconds.append(time.perf_counter() - start)
    after = _memory()
    side.close()
    result = {"seconds": statistics.median(seconds[WARM_UP:])}
    if before is not None:
        result["peak"] = max(before[1], after[1])
        result["added"] = max(after[1] - before[0], 2**-10)         # a KiB at least, to divide by
    return result | {"answer": None if answer is None else answer.tolist()}


def _memory(forget=False):
    """MiB of RAM this process holds, (now, at most so far), or None where unknown. forget: the mark starts again from now."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        status = dict(line.split(":", 1) for line in lines)
        if forget:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        # Not getrusage's mark, which a child takes over from the process that started it.
        return tuple(int(status[key].removesuffix("kB")) / 2**10 for key in ("VmRSS", "VmHWM"))
    if sys.platform == "darwin":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20       # bytes here
        return peak, peak
    return None
