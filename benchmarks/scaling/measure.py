"""How long the ranks of a training job need to sum their gradients, and for whole steps: JSON lines.

    python benchmarks/scaling/measure.py --json scaling.jsonl              # ranks on this machine
    python benchmarks/scaling/measure.py --json scaling.jsonl --hosts      # also hosts of their own; root, Linux, iproute2

Each rank has one thread. With --hosts each rank is alone on its host, a network namespace (see hosts.py), with networks of
several speeds; the bytes that a host sent are counted on its network device. --sizes 1 --seconds 0 only tries everything.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from hosts import ENVIRONMENT, Joined, Network, hosts

ROOT = Path(__file__).parents[2]
ON_RANK = Path(__file__).with_name("on_rank.py")
MILLIONS = (0.1, 0.3, 1, 3, 10, 30)             # parameters
EXACT = (0.1, 1, 10)
NETWORKS = (Network(1000), Network(100), Network(), Network(1000, 1), Network(100, 1))
LONGEST = 4.0                                   # seconds for a single sum on a slow network: larger ones are left out
TIMEOUT = 300                                   # seconds for all measurements with one network and number of ranks


def task(network: Network | None, ranks: int, sizes: int, seconds: float) -> dict:
    """What on_rank.py is to measure; network None is one machine."""
    per_second = (network.megabits if network and network.megabits else 1e5) / 8 / 4        # millions of parameters

    def possible(millions):
        return [it for it in millions if 2 * it / per_second < LONGEST]

    return {
        "network": network.name if network else "one machine", "megabits": network and network.megabits,
        "delay": network.delay if network else 0.0, "hosts": ranks if network else 1, "millions": possible(MILLIONS),
        "exact": possible(EXACT), "sizes": sizes, "seconds": seconds,
    }


def run(command: list[str], environment: dict, file) -> None:
    """Run a command, and write the lines that it prints to the file as they come, and to the screen."""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        signal.alarm(TIMEOUT)
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                print(line_of(json.loads(line)), flush=True)
        finally:
            signal.alarm(0)
            if sys.exc_info()[0]:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:               # it waits for a host that does not answer
                    process.kill()
    if process.returncode:
        raise ChildProcessError(f"{' '.join(command[:12])} ...: ended with {process.returncode}; its own message stands above")


def line_of(row: dict) -> str:
    """A result to read."""
    text = f"{row['network']:>18} {row['ranks']} ranks {row['parameters'] / 1e6:6.2f} M {row['kind']:9} {row['seconds']:8.4f} s"
    if row["kind"] == "step":
        return text + f" = gradient {row['gradient']:.4f} + wait {row['wait']:.4f} + sum {row['sum']:.4f} + " \
                      f"optimiser {row['optimiser']:.4f}; {row['memory'] / 1e6:.0f} MB"
    counted = "" if row["sent"] is None else f"; eth0 sent {row['sent'] / (4 * row['parameters']):.3f} of the gradient's bytes"
    return text + counted


def stop(number, frame):
    """A signal ends the measurements as Ctrl-C does: the namespaces are removed."""
    raise SystemExit(f"ended by signal {number}" + f": over {TIMEOUT} s" * (number == signal.SIGALRM))


def main() -> None:
    """Measure on one machine, then on hosts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="the file to write")
    parser.add_argument("--hosts", action="store_true", help="also network namespaces as hosts (needs root)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3, 4], help="numbers of ranks (1 2 3 4)")
    parser.add_argument("--sizes", type=int, default=3, help="how many of the three models are trained (3)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row, but at least three calls (1)")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, stop)
    mpiexec = shutil.which("mpiexec", path=os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"])))
    if mpiexec is None:
        parser.error("expected an mpiexec beside python or on PATH: pip install 'tinymae[mpi]'")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(options.json, "w", encoding="utf-8") as file:
        for network in (None, *(NETWORKS if options.hosts else ())):
            for ranks in (count for count in options.ranks if count > 1 or network is None):
                job = task(network, ranks, options.sizes, options.seconds)
                program = [sys.executable, str(ON_RANK), json.dumps(job)]
                with ExitStack() as stack:
                    if network is None:
                        run([mpiexec, "-n", str(ranks), *program], environment, file)
                    else:
                        joined: Joined = stack.enter_context(hosts(ranks, network))
                        run(joined.mpiexec(program, mpiexec), environment | ENVIRONMENT, file)


if __name__ == "__main__":
    main()
