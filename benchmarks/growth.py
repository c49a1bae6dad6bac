"""How cost grows: time and memory of an encoder layer and of a masked autoencoder, beside what theory says.

    python -m benchmarks.growth [--threads 2] [--figure figures/growth.png]

Each law changes one size and measures a few values of it. Its exponent is the slope of a straight line through the logarithms:
2 means that twice the size costs four times as much. Theory counts multiplications and stored numbers; `expected` is the slope
of its formula over the same sizes, so that a sum such as a T + b T^2 has an exponent between 1 and 2.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import machine
from tinymae import init
from tinymae.blocks import encoder_layer_backward, encoder_layer_forward
from tinymae.models.mae import MAEConfig, mae_backward, mae_forward, mae_init
from tinymae.train.parallel import Workers, micro_batches, value_and_grad

ROOT = Path(__file__).parents[1]
LONG = 16384                            # tokens of tiled attention
LIMIT = 2048                            # MiB that its process may hold at most
SECONDS = 4.0                           # of measuring for each size, at most


@dataclass(frozen=True)
class Law:
    """One size that changes, with what theory says of time and memory."""

    name: str
    xlabel: str
    sizes: tuple
    step: Callable                      # step(size) -> a function that does one step
    time: Callable                      # time(size) ~ multiplications
    memory: Callable | None = None      # memory(size) ~ numbers that are kept; None: not measured


def layer(batch: int = 4, length: int = 128, width: int = 256, heads: int = 4, depth: int = 1) -> Callable:
    """Forward and backward of `depth` encoder layers."""
    rng = np.random.default_rng(0)
    params = [init.encoder_layer(width, heads, 4 * width, rng) for _ in range(depth)]
    start, dy = (rng.normal(size=(batch, length, width)).astype(np.float32) for _ in range(2))

    def step():
        x, caches = start, []
        for p in params:
            x, cache = encoder_layer_forward(x, p, heads)
            caches.append(cache)
        dx = dy
        for _ in params:
            dx, _ = encoder_layer_backward(dx, caches.pop())

    return step


def layer_products(batch: float = 4, length: float = 128, width: float = 256) -> float:
    """Multiplications of one layer's forward: 12 D^2 for each token in its maps, 2 T D in its attention."""
    return batch * length * (12 * width**2 + 2 * length * width)


def kept(tokens: float, length: float, width: float, heads: int) -> float:
    """Numbers that a layer keeps for its backward: about 17 D for each token, and the weights of its attention, H T."""
    return tokens * (17 * width + heads * length)


def passing(tokens: float, length: float, width: float, heads: int) -> float:
    """Numbers that a layer's backward adds: the larger of 12 D (feed forward) and 3 H T (attention) for each token."""
    return tokens * max(12 * width, 3 * heads * length)


def layer_numbers(batch: float = 4, length: float = 128, width: float = 256, heads: int = 4, depth: int = 1) -> float:
    """Numbers at the start of the backward: what all layers keep, what one adds, and its gradient, 12 D^2."""
    sizes = batch * length, length, width, heads
    return depth * kept(*sizes) + passing(*sizes) + 12 * width**2


MAE = MAEConfig(
    img_size=64, patch_size=4, embed_dim=192, depth=4, num_heads=3, decoder_embed_dim=96, decoder_depth=1, decoder_num_heads=3
)


def mae(hidden: float, batch: int = 8) -> Callable:
    """Loss and gradient of a masked autoencoder that hides this fraction."""
    config, rng = replace(MAE, mask_ratio=hidden), np.random.default_rng(0)
    params, images = mae_init(config, rng), rng.normal(size=(batch, 64, 64, 3)).astype(np.float32)
    noise = rng.random((batch, config.num_patches))
    return lambda: mae_backward(1.0, mae_forward(images, params, config, noise)[1])


def _mae_sizes(visible, batch=8):
    """(batch, tokens of an image, dimension) of the encoder's layers and of the decoder's."""
    number = MAE.num_patches
    return (batch, 1 + int(number * visible), MAE.embed_dim), (batch, 1 + number, MAE.decoder_embed_dim)


def mae_products(visible: float) -> float:
    """`layer_products` of all layers."""
    encoder, decoder = _mae_sizes(visible)
    return MAE.depth * layer_products(*encoder) + MAE.decoder_depth * layer_products(*decoder)


def mae_numbers(visible: float) -> float:
    """What all layers keep, and what one of the decoder's adds."""
    encoder, decoder = (
        (batch * length, length, width, heads)
        for (batch, length, width), heads in zip(_mae_sizes(visible), (MAE.num_heads, MAE.decoder_num_heads), strict=True)
    )
    return MAE.depth * kept(*encoder) + MAE.decoder_depth * kept(*decoder) + passing(*decoder)


def threaded(threads: int, batch: int = 16) -> Callable:
    """A step of a masked autoencoder in eight parts on so many threads."""
    rng = np.random.default_rng(0)
    params, images = mae_init(MAE, rng), rng.normal(size=(batch, 64, 64, 3)).astype(np.float32)
    noise = rng.random((batch, MAE.num_patches))

    def part(piece):
        loss, cache = mae_forward(images[piece], params, MAE, noise[piece])
        return loss, mae_backward(1.0, cache)

    def step():
        with Workers(threads) as workers:
            value_and_grad(part, micro_batches(batch, batch // 8), workers)

    return step


def laws(threads: int) -> list[Law]:
    """All laws, with at most so many threads."""
    return [
        Law("length", "T, tokens (layer)", (128, 256, 512, 1024), lambda n: layer(1, n),
            lambda n: layer_products(1, n), lambda n: layer_numbers(1, n)),
        Law("batch", "B, sequences (layer)", (2, 4, 8, 16), lambda n: layer(n), layer_products, layer_numbers),
        Law("width", "D, dimension (layer)", (128, 256, 512, 1024), lambda n: layer(width=n),
            lambda n: layer_products(width=n), lambda n: layer_numbers(width=n)),
        Law("depth", "L, layers", (1, 2, 4, 8), lambda n: layer(depth=n), lambda n: n,
            lambda n: layer_numbers(depth=n)),
        Law("visible patches", "1 - mask ratio (MAE)", (0.125, 0.25, 0.5, 0.75), lambda v: mae(1 - v),
            mae_products, mae_numbers),
        Law("threads", "threads (MAE)", tuple(sorted({1, *(2**i for i in range(1, 7) if 2**i <= threads), threads})),
            threaded, lambda n: 1 / n),
    ]


def exponent(sizes: tuple, values: list[float]) -> float:
    """The slope of the line through log(sizes), log(values)."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def measure(law: Law, threads: int) -> dict:
    """{"sizes", "seconds": median step of each size, "MiB": its highest memory, or None}."""
    seconds, mib = [], []
    for size in law.sizes:
        step, times = law.step(size), []
        # Outside of Workers BLAS takes the threads; NumPy's own loops have one.
        with threadpool_limits(threads, user_api="blas"):
            if law.memory:
                tracemalloc.start()                             # NumPy reports each of its arrays to it
                step()
                mib.append(tracemalloc.get_traced_memory()[1] / 2**20)
                tracemalloc.stop()
            step()
            begin = time.perf_counter()
            while len(times) < 3 or (len(times) < 15 and time.perf_counter() - begin < SECONDS):
                start = time.perf_counter()
                step()
                times.append(time.perf_counter() - start)
        seconds.append(statistics.median(times))
    return {"sizes": law.sizes, "seconds": seconds, "MiB": mib or None}


def rows(law: Law, found: dict) -> list[tuple[str, str, float, float]]:
    """(law, what, measured exponent, expected exponent)."""
    pairs = [("time", found["seconds"], law.time)]
    if law.memory:
        pairs.append(("memory", found["MiB"], law.memory))
    return [
        (law.name, what, exponent(law.sizes, values), exponent(law.sizes, [theory(size) for size in law.sizes]))
        for what, values, theory in pairs
    ]


def table(found: dict[Law, dict]) -> str:
    """Measured exponents beside expected ones."""
    lines = [f"{'law':18}{'what':10}{'measured':>10}{'expected':>10}    sizes"]
    for law, result in found.items():
        for name, what, measured, expected in rows(law, result) if len(law.sizes) > 1 else []:
            sizes = ", ".join(f"{size:g}" for size in law.sizes)
            lines.append(f"{name:18}{what:10}{measured:10.2f}{expected:10.2f}    {sizes}")
    return "\n".join(lines)


def draw(found: dict):
    """The figure: a panel for each law, log-log, measured points and the line of theory."""
    from tinymae.plot import style

    with style.styled():
        caption = (
            "How to read it: each panel changes one size; both axes are logarithmic, so a power law is a straight line whose "
            "slope is its exponent. Dots: measured (blue: ms of a step, left axis; orange: highest memory in MiB, right axis). "
            "Dashed: what theory counts, moved up or down to fit the dots. Dots that leave their line show what theory "
            "leaves out, such as caches and fixed costs."
        )
        figure = style.page(6.6, caption)
        for ax, (law, result) in zip(figure.subplots(3, 2).ravel(), found.items(), strict=True):
            _panel(ax, law, 1000 * np.array(result["seconds"]), law.time, style.COLOURS[0])
            ax.set(title=law.name, xlabel=law.xlabel, ylabel="ms")
            if law.memory:
                right = ax.twinx()
                _panel(right, law, np.array(result["MiB"]), law.memory, style.COLOURS[1])
                right.set_ylabel("MiB")
                right.spines.right.set_visible(True)
        return figure


def _panel(ax, law, values, theory, colour):
    from matplotlib.ticker import FuncFormatter, NullLocator

    expected = np.array([theory(size) for size in law.sizes], float)
    expected *= np.exp(np.mean(np.log(values) - np.log(expected)))
    ax.loglog(law.sizes, values, "o", color=colour, markersize=5)
    ax.loglog(law.sizes, expected, "--", color=colour, linewidth=1)
    ax.set_xticks(law.sizes, [f"{size:g}" for size in law.sizes])
    low, high = min(*values, *expected), max(*values, *expected)
    ax.set_ylim(low / 1.3, high * 1.3)
    ax.set_yticks(np.geomspace(low, high, 3))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{float(f'{value:.2g}'):g}"))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())


def long_attention() -> dict:
    """Tiled attention over LONG tokens, forward and backward, in this process: {"seconds", "peak": MiB or None}."""
    from tinymae.ops.memory_efficient_attention import memory_efficient_attention_backward, memory_efficient_attention_forward

    rng = np.random.default_rng(0)
    q, k, v, dy = (rng.normal(size=(1, 1, LONG, 64)).astype(np.float32) for _ in range(4))
    start = time.perf_counter()
    _, cache = memory_efficient_attention_forward(q, k, v)
    memory_efficient_attention_backward(dy, cache)
    seconds, held = time.perf_counter() - start, machine.memory()
    return {"seconds": seconds, "peak": held and held[1]}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.growth", description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--figure", type=Path, default=Path("figures/growth.png"))
    parser.add_argument("--long", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.long:
        print(json.dumps(long_attention()))
        return
    others, found = machine.Others(), {}
    for law in laws(options.threads):
        print(f"\r{law.name}".ljust(30), end="", file=sys.stderr, flush=True)
        found[law] = measure(law, options.threads)
    busy = others.cores()
    print("\r".ljust(31), end="\r", file=sys.stderr, flush=True)
    print(table(found))
    if busy > machine.BUSY:
        print(f"WARNING: other processes used {busy:.1f} cores, so times may be too long")
    command = [sys.executable, "-m", "benchmarks.growth", "--long"]
    tiled = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout)
    peak = "memory unknown on this system" if tiled["peak"] is None else f"{tiled['peak']:.0f} MiB at most (goal: {LIMIT})"
    print(f"tiled attention, {LONG:,} tokens, 1 head of 64, forward and backward: {tiled['seconds']:.1f} s, {peak}")
    print(f"all attention weights would be {4 * LONG**2 / 2**20:,.0f} MiB")

    from tinymae import plot

    print(plot.save(draw(found), options.figure))


if __name__ == "__main__":
    main()
