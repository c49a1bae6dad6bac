"""What each rank of measure.py runs: whole training steps, then sums of gradients. Rank 0 prints one JSON object a line.

    mpiexec -n 2 python benchmarks/scaling/on_rank.py '{"network": "one machine", "seconds": 1, ...}'
"""
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinymae import tree
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.tasks.restore import MICRO_BATCH, mae_gradient, mae_optimizer
from tinymae.train.optim import AdamW, clip_grad_norm
from tinymae.train.parallel import Workers
from tinymae.train.ranks import Ranks, world

IMAGES = 32                                     # of each rank in a step: two micro-batches
SIZES = ((96, 3), (192, 6), (384, 6))           # dimension and layers of the encoder; the decoder has half of one and 2 layers
COUNTER = Path("/sys/class/net/eth0/statistics/tx_bytes")


class Timed(Ranks):
    """Ranks that remember when the last gradient was computed, when all ranks had theirs, and when the sum was there."""

    def summed(self, results, add):
        result = super().summed(results, add)
        if self.size == 1:
            self.computed = self.agreed = self.received = time.perf_counter()
        return result

    def agree(self, *numbers):
        total = super().agree(*numbers)
        self.agreed = time.perf_counter()
        return total

    def _allreduce(self, total):
        self.computed = time.perf_counter()
        result = super()._allreduce(total)
        self.received = time.perf_counter()
        return result


def config(dim: int, depth: int) -> MAEConfig:
    """The masked autoencoder of one of SIZES."""
    return MAEConfig(
        img_size=32, patch_size=4, in_chans=3, embed_dim=dim, depth=depth, num_heads=dim // 32, decoder_embed_dim=dim // 2,
        decoder_depth=2, decoder_num_heads=dim // 32, norm_pix_loss=True,
    )


def largest(ranks: Ranks, value: float) -> float:
    """The largest value of all ranks."""
    if ranks.size == 1:
        return value
    return max(ranks._comm.allgather(value))


def repeated(ranks: Ranks, call: Callable, seconds: float) -> tuple[list[float], float]:
    """Times of a collective call on the slowest rank, and the most bytes that eth0 of a rank sent in a call.

    The first call is not counted: it opens connections. Then as many as fit into `seconds`, 3 to 50.
    """
    def once():
        ranks.agree()
        start = time.perf_counter()
        call()
        return largest(ranks, time.perf_counter() - start)

    count = min(50, max(3, int(seconds / once())))
    before = sent_bytes()
    times = [once() for _ in range(count)]
    return times, largest(ranks, (sent_bytes() - before) / count)


def sent_bytes() -> int:
    """What eth0 of this host has sent so far."""
    return int(COUNTER.read_text()) if COUNTER.exists() else 0


def sums(ranks: Ranks, millions: float, exact: bool, seconds: float) -> dict:
    """The time to sum one flat gradient."""
    flat = np.ones(int(millions * 1e6), np.float32)
    if exact:
        its = Ranks(ranks._comm, exact=True)
        times, sent = repeated(ranks, lambda: its.summed([(1.0, {"w": flat})], add), seconds)
    else:
        times, sent = repeated(ranks, lambda: ranks._sum(flat), seconds)
    return {"kind": "exact" if exact else "allreduce", "parameters": flat.size, "seconds": statistics.median(times),
            "best": min(times), "calls": len(times), "sent": sent}


def add(total, results):
    """As `train.parallel` adds gradients."""
    for loss, dparams in results:
        total = (loss, dparams) if total is None else (total[0] + loss, tree.add_to(total[1], dparams))
    return total


def adamw_step(params: dict) -> float:
    """Seconds of clipping and a step of AdamW, which trains the other models; `mae_optimizer` is Muon."""
    optimizer, times = AdamW(params), []
    for _ in range(4):
        start = time.perf_counter()
        clip_grad_norm(params, np.inf)
        optimizer.step(params, params, 0.0)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])                         # the first one touches the memory of the moments


def noise(rng: np.random.Generator, count: int) -> np.ndarray:
    """Images of noise: what they show does not change the time."""
    return rng.standard_normal((count, 32, 32, 3), np.float32)


def steps(ranks: Timed, dim: int, depth: int, seconds: float) -> dict:
    """Training steps as `train.loop` takes them, with the time of each part; medians over the steps, means over the ranks."""
    shape = config(dim, depth)
    rng = np.random.default_rng(0)
    params = mae_init(shape, rng)
    parts = []
    with Workers(1, ranks) as workers:
        optimizer = mae_optimizer(params, workers.map)
        gradient = mae_gradient(shape, noise, IMAGES * ranks.size, MICRO_BATCH, workers)

        def step():
            ranks.agree(0.0, 0.0)
            start = time.perf_counter()
            _, dparams = gradient(params, rng)
            clip_grad_norm(dparams, np.inf)
            optimizer.step(params, dparams, 1e-3)
            end = time.perf_counter()
            parts.append((end - start, ranks.computed - start, ranks.agreed - ranks.computed,
                          ranks.received - ranks.agreed, end - ranks.received))
            return largest(ranks, end - start)

        count = min(30, max(3, int(seconds / step())))
        parts.clear()
        for _ in range(count):
            step()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        adamw = adamw_step(params)
    own = np.median(np.array(parts), axis=0)
    mean = ranks.agree(*own) / ranks.size
    return {
        "kind": "step", "dim": dim, "parameters": sum(leaf.size for _, leaf in tree.leaves(params)), "calls": count,
        **dict(zip(("seconds", "gradient", "wait", "sum", "optimiser"), mean.tolist(), strict=True)),
        "adamw": adamw, "memory": memory, "images": IMAGES,
    }


def main(task: dict) -> None:
    """All measurements of a task: {"network", "megabits", "delay", "hosts", "millions", "exact", "sizes", "seconds"}."""
    with world() as plain:
        ranks = Timed(plain._comm)
        common = {key: task[key] for key in ("network", "megabits", "delay", "hosts")}
        common |= {"ranks": ranks.size, "cores": os.cpu_count()}

        def say(result):
            if "sent" in result and task["hosts"] == 1:
                result["sent"] = None                           # nothing of it goes over a network
            if ranks.rank == 0:
                print(json.dumps(common | result | {"load": os.getloadavg()[0]}), flush=True)

        for dim, depth in SIZES[: task["sizes"]]:                # from small to large, and first: memory is the most so far
            say(steps(ranks, dim, depth, task["seconds"]))
        if ranks.size > 1:
            for exact in (False, True):
                for millions in task["exact" if exact else "millions"]:
                    say(sums(ranks, millions, exact, task["seconds"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
