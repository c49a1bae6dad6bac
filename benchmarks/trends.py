"""The trends of He et al. 2021, table 1, on a small scale: what makes the features of a masked autoencoder good?

    python benchmarks/trends.py [--data digits] [--steps 1000] [--seeds 1] [--json FILE] [--figure FILE]

One masked autoencoder is trained for each setting, all else equal, and its frozen encoder is judged by a linear probe:

    mask ratio      25, 50, 75, 90 %                                            table 1f and figure 5
    decoder depth   1, 2, 4 layers                                              table 1a
    mask tokens     left out of the encoder, or in it: accuracy and time        table 1c
    masks           random, one block, every other row and column (grid)        table 1e

A short run on small pictures need not show what 800 epochs on ImageNet show: the figure says what it is, not what it should be.
All pictures to be judged by are kept apart. With more seeds a point is the mean, and the bar its standard deviation.
"""
import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.blocks import encoder_backward, encoder_forward
from tinymae.files import whole_file
from tinymae.images.labelled import fit_pictures, load_labelled
from tinymae.images.pixels import to_pixels
from tinymae.models.mae import (
    mae_backward,
    mae_decays,
    mae_decoder_backward,
    mae_decoder_forward,
    mae_forward,
    mae_init,
    random_masking,
)
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import masked_mse_backward, masked_mse_forward, normalise_patches
from tinymae.ops.patches import patchify_forward
from tinymae.ops.positional import positional_backward, positional_forward
from tinymae.plot import style
from tinymae.tasks.encoders import features
from tinymae.tasks.probe import accuracies
from tinymae.tasks.restore import prepare
from tinymae.train.loop import Run, cosine, train
from tinymae.train.optim import AdamW
from tinymae.train.parallel import Workers, micro_batches, value_and_grad

BATCH, MICRO_BATCH = 32, 16
LEARNING_RATE = 2e-3
RATIOS, DEPTHS, MASKS = (0.25, 0.5, 0.75, 0.9), (1, 2, 4), ("random", "block", "grid")


# ---- masks: noise (B, N), large where a patch is to be hidden --------------------------------------------------------

def random_noise(rng, count, grid):
    """Any patch as likely as any other."""
    return rng.random((count, grid[0] * grid[1]))


def block_noise(rng, count, grid):
    """The patches nearest to a random one are hidden: one block, cut by the border."""
    rows, cols = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    middle = rng.integers(grid[0] * grid[1], size=(count, 1))
    distance = np.maximum(abs(rows - middle // grid[1]), abs(cols - middle % grid[1]))      # (B, N)
    return rng.random(distance.shape) - distance


def grid_noise(rng, count, grid):
    """Every other row and column stays visible, shifted at random: 75 % hidden; at other ratios the rest is random."""
    rows, cols = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    down, across = rng.integers(2, size=(2, count, 1))
    shown = (rows % 2 == down) & (cols % 2 == across)                                       # (B, N)
    return rng.random(shown.shape) - shown


# ---- the paper's encoder with mask tokens ----------------------------------------------------------------------------

def with_mask_tokens(images, params, config, noise, dloss):
    """(loss, dparams) of a masked autoencoder whose encoder sees every position, hidden ones as a token.

    params as `mae_init`, with "mask_token" (1, 1, D) in the encoder as well.
    """
    p = params["encoder"]
    positions, decoder_positions = config.position_tables(images.dtype)
    patches, _ = patchify_forward(images, config.patch_size)
    _, ids_restore, mask = random_masking(noise, config.mask_ratio)
    hidden = mask[..., None] == 1
    x, embed = linear_forward(patches, **p["patch_embed"])
    x, positional = positional_forward(np.where(hidden, p["mask_token"], x), positions)
    x = np.concatenate([np.broadcast_to(p["cls_token"], (len(x), 1, x.shape[2])), x], axis=1)
    latent, encoder = encoder_forward(x, p, config.num_heads, eps=config.eps)
    in_order = np.broadcast_to(np.arange(patches.shape[1]), ids_restore.shape)              # nothing was taken out
    pred, decoder = mae_decoder_forward(
        latent, params["decoder"], decoder_positions, heads=config.decoder_num_heads, ids_restore=in_order, eps=config.eps
    )
    target = normalise_patches(patches)[0] if config.norm_pix_loss else patches
    loss, loss_cache = masked_mse_forward(pred, target, mask)

    dlatent, ddecoder = mae_decoder_backward(masked_mse_backward(dloss, loss_cache), decoder)
    dx, dp = encoder_backward(dlatent, encoder)
    dcls_token = dx[:, :1].sum(axis=0, keepdims=True)
    dx, _ = positional_backward(dx[:, 1:], positional)
    dmask_token = (dx * hidden).sum(axis=(0, 1), keepdims=True)
    _, dw, db = linear_backward(np.where(hidden, 0, dx), embed)
    dencoder = {"patch_embed": {"w": dw, "b": db}, "cls_token": dcls_token, **dp, "mask_token": dmask_token}
    return loss, {"encoder": dencoder, "decoder": ddecoder}


def without_mask_tokens(images, params, config, noise, dloss):
    """(loss, dparams) of `mae_forward`."""
    loss, cache = mae_forward(images, params, config, noise)
    return loss, mae_backward(dloss, cache)


# ---- one point -------------------------------------------------------------------------------------------------------

def measure(data, pictures, config, masks, tokens, steps, seed, threads):
    """Train one masked autoencoder and probe it: {"linear", "knn": accuracies, "seconds": of a step, "loss": the last ones}."""
    noise, step = NOISES[masks], with_mask_tokens if tokens else without_mask_tokens
    rng = np.random.default_rng(seed)
    params = mae_init(config, rng)
    if tokens:
        params["encoder"]["mask_token"] = np.zeros((1, 1, config.embed_dim), np.float32)
    run = Run(params, AdamW(params, betas=(0.9, 0.95), weight_decay=0.05, decays=mae_decays(params)), rng)
    known, apart = pictures
    times = []

    with Workers(threads) as workers:

        def gradient(params, rng):
            start = time.perf_counter()
            slices = micro_batches(BATCH, MICRO_BATCH)

            def part(job):
                child, piece = job
                count = piece.stop - piece.start
                images = to_pixels(known[child.integers(len(known), size=count)])
                loss, dparams = step(images, params, config, noise(child, count, config.grid), count / BATCH)
                return loss * (count / BATCH), dparams

            found = value_and_grad(part, list(zip(rng.spawn(len(slices)), slices, strict=True)), workers)
            times.append(time.perf_counter() - start)
            return found

        train(run, gradient, cosine(LEARNING_RATE), batch=BATCH, steps=steps, bar=False)
    if run.interrupted:
        raise KeyboardInterrupt
    views = [
        np.concatenate([features(to_pixels(part[piece]), params, config) for piece in micro_batches(len(part), 256)])
        for part in (known, apart)
    ]
    train_part, test_part = data.split()
    found = accuracies(views[0], train_part.labels, views[1], test_part.labels)
    return {**found, "seconds": float(np.median(times)), "loss": float(np.mean(run.losses[-50:]))}


NOISES = {"random": random_noise, "block": block_noise, "grid": grid_noise}


def trends(source, steps, seeds, threads, say=print):
    """Every point of the figure: {"pixels": accuracies, "settings": {...}, "points": [{"trend", "value", ...}, ...]}."""
    data = load_labelled(source)
    task = prepare(source)
    base = task.config
    parts = data.split()
    pictures = [fit_pictures(part.images, base.img_size, base.in_chans) for part in parts]
    rows = [part.reshape(len(part), -1) / 255.0 for part in pictures]
    pixels = accuracies(rows[0], parts[0].labels, rows[1], parts[1].labels)
    say(f"pixels: linear {pixels['linear']:.1%}, k-NN {pixels['knn']:.1%}")
    number = base.num_patches
    wanted = [("mask ratio", ratio, replace(base, mask_ratio=ratio), "random", False) for ratio in RATIOS]
    wanted = [it for it in wanted if 0 < int(number * (1 - it[1]))]                # with few patches 90 % may be all
    wanted += [("decoder depth", depth, replace(base, decoder_depth=depth), "random", False) for depth in DEPTHS]
    wanted += [("mask tokens", name, base, "random", name == "in the encoder") for name in ("left out", "in the encoder")]
    wanted += [("masks", masks, base, masks, False) for masks in MASKS]
    done, points = {}, []
    for trend, value, config, masks, tokens in wanted:
        key = (config, masks, tokens)                           # the default stands in several trends: trained once
        if key not in done:
            done[key] = [measure(data, pictures, config, masks, tokens, steps, seed, threads) for seed in range(seeds)]
        point = {"trend": trend, "value": value}
        for name in ("linear", "knn", "seconds", "loss"):
            found = [it[name] for it in done[key]]
            point |= {name: float(np.mean(found)), f"{name}_deviation": float(np.std(found))}
        points.append(point)
        say(
            f"{trend:14} {value!s:14} linear {point['linear']:.1%}, k-NN {point['knn']:.1%}, "
            f"{1000 * point['seconds']:.1f} ms a step"
        )
    settings = {"data": str(source), "steps": steps, "seeds": seeds, "batch": BATCH, "test": len(parts[1].images)}
    return {"pixels": pixels, "settings": settings, "points": points}


@style.styled()
def draw(report):
    """The figure of a report of `trends`."""
    settings = report["settings"]
    caption = (
        f"How to read it: accuracy of a linear probe on the frozen features, on {settings['test']} pictures never trained on "
        f"({settings['data']}, {settings['steps']} steps of {settings['batch']}, {settings['seeds']} "
        f"{'seed' if settings['seeds'] == 1 else 'seeds; bars are standard deviations'}). Dashed: the same probe on raw "
        "pixels. The accuracy axis does not start at 0. Last panel: time of a training step."
    )
    figure = style.page(5.2, caption)
    axes = figure.subplots(2, 3)
    shown = [point["linear"] for point in report["points"]] + [report["pixels"]["linear"]]
    spare = 0.1 * (max(shown) - min(shown)) + 0.01
    for ax, trend in zip(axes.ravel(), ("mask ratio", "decoder depth", "masks", "mask tokens"), strict=False):
        points = [point for point in report["points"] if point["trend"] == trend]
        names = [f"{p['value']:.0%}" if trend == "mask ratio" else str(p["value"]) for p in points]
        line = "o-" if trend in ("mask ratio", "decoder depth") else "o"                    # others have no order
        ax.errorbar(names, [p["linear"] for p in points], [p["linear_deviation"] for p in points], fmt=line, capsize=3)
        ax.axhline(report["pixels"]["linear"], linestyle="--", color="#777777", linewidth=1)
        ax.set(title=trend, ylim=(min(shown) - spare, max(shown) + spare), ylabel="linear probe")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        ax.margins(x=0.2)
    ax = axes[1, 1]
    points = [point for point in report["points"] if point["trend"] == "mask tokens"]
    ax.bar([p["value"] for p in points], [1000 * p["seconds"] for p in points], width=0.5)
    ax.set(title="mask tokens: time", ylabel="ms a step")
    axes[1, 2].set_axis_off()
    return figure


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="digits", help="labelled pictures: digits, openml:NAME, an IDX file (.gz), .npz")
    parser.add_argument("--steps", type=int, default=1000, help="of training, for each point")
    parser.add_argument("--seeds", type=int, default=1, help="how often each point is trained anew")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("figures/trends.json"))
    parser.add_argument("--figure", type=Path, default=Path("figures/trends.png"))
    options = parser.parse_args()
    report = trends(options.data, options.steps, options.seeds, options.threads)
    with whole_file(options.json) as file:
        file.write((json.dumps(report, indent=1) + "\n").encode())
    print(options.json)
    print(plot.save(draw(report), options.figure))


if __name__ == "__main__":
    main()
