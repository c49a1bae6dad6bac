"""Run several implementations of one step in turn, each in a process of its own, and compare them round by round."""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

WARM_UP = 3     # steps that do not count


def compare(script, sides, ratios):
    """The command line of a benchmark.

    Parameters
    ----------
    script : str, `__file__` of the benchmark: it runs itself once for each side and round
    sides : dict {name: callable(threads) -> list of seconds, one for each step}
    ratios : list of (name, name), what to divide by what
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=sides, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(sides[options.side](options.threads)))
        return

    def measure(side):
        command = [sys.executable, script, "--side", side, "--threads", str(options.threads)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return statistics.median(json.loads(output)[WARM_UP:])

    rounds = [{side: measure(side) for side in sides} for _ in range(options.rounds)]
    report = {
        "seconds": {side: statistics.median(r[side] for r in rounds) for side in sides},
        "ratios": {f"{a} / {b}": statistics.median(r[a] / r[b] for r in rounds) for a, b in ratios},
        "rounds": rounds,
        "threads": options.threads,
    }
    for side, seconds in report["seconds"].items():
        print(f"{side:24} {seconds:.4f} s a step")
    for name, ratio in report["ratios"].items():
        print(f"{name:40} {ratio:.2f}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
