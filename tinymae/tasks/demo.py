"""python -m tinymae: train a masked autoencoder, restore images that it was not trained on, write the table, and draw."""
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tinymae import tree
from tinymae.files import remove_leftovers, whole_file
from tinymae.images.pixels import to_picture
from tinymae.models.attention_maps import mae_attention
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.ops.patches import patchify_forward
from tinymae.tasks.restore import Task, prepare, restore, restore_photo, table, tiled, train_mae
from tinymae.train import checkpoint
from tinymae.train.folder import remove_if_empty
from tinymae.train.loop import Run, check_length


def demo(
    data: str, out: Path | str, *, steps: int | None = None, minutes: float | None = None, mask_ratio: float = 0.75,
    norm_pix_loss: bool = False, seed: int = 0, threads: int | None = None, say: Callable[[str], None] | None = None,
) -> dict:
    """Train, then write table, figures and model to the folder `out`, and report where each file is.

    The model is trained in out/training, and takes its place in `out` when it is done, with table and figures: one that an
    earlier demo left there is replaced.

    Parameters
    ----------
    data : as `images.sources.load_images`
    out : the folder
    steps, minutes, seed, threads : as `train_mae`
    mask_ratio, norm_pix_loss : as `MAEConfig`
    say : say(line), for all that it reports; or None

    Returns
    -------
    dict, as in demo.json: "mae", "mean", "nearest", "linear" (see `table`), "seconds" and "steps" of training

    Raises
    ------
    ValueError
        if not exactly one length is given, or images cannot be drawn
    FileExistsError
        if the folder holds a model that the demo did not train
    BlockingIOError, OSError
        as `train.folder.run_folder`
    """
    check_length(steps, minutes)
    say = say or (lambda line: None)
    out = Path(out)
    task = prepare(data, mask_ratio, norm_pix_loss)
    if task.config.in_chans not in (1, 3):
        raise ValueError(f"{data}: expected 1 or 3 channels to draw, got {task.config.in_chans}: `train mae` takes any number")
    size, number = task.config.img_size, tree.count(mae_init(task.config, None))
    say(f"A masked autoencoder of {number:,} parameters learns from {data!r}, on images of {size} x {size} pixels.")
    say("Ctrl-C ends early and still draws what it has.")
    model, older = out / "mae.npz", _earlier_demo(out)
    remove_leftovers(out)
    run = train_mae(
        task, out / "training", steps=steps, minutes=minutes, seed=seed, threads=threads, overwrite=True,
        extra={"data": str(data), "demo": True},
    )
    if not run.losses:
        raise ValueError("interrupted before the first step: there is nothing to show")
    os.replace(out / "training" / "mae.npz", model)
    remove_if_empty(out / "training")
    if older:
        say(f"{model}: replaces the model of an earlier demo")
    if run.interrupted:
        say(f"stopped after {run.step} steps; this is how far the model got")
    results = {**table(task, run.params), "seconds": round(run.seconds, 1), "steps": run.step}
    say(f"\nmean squared error on the hidden pixels of {len(task.validation)} images that it was not trained on")
    for name, label in _LABELS.items():
        say(f"  {results[name]:.3f}  {label}")
    say(f"after {run.step} steps, {run.seconds:.0f} s of training\n")
    with whole_file(out / "demo.json") as file:
        file.write((json.dumps(results, indent=2) + "\n").encode())
    say(f"{'model':24}{model}\n{'table':24}{out / 'demo.json'}")
    for label, path in draw(task, run, results, out):
        say(f"{label:24}{path}")
    return results


def _earlier_demo(out):
    """Whether an earlier demo left its model in the folder. Raises a FileExistsError if it is not that of a demo."""
    path = out / "mae.npz"
    if not path.exists():
        return False
    extra = checkpoint.load(path, "mae", MAEConfig, mae_init).extra
    old = "options" not in extra and (out / "demo.json").exists()           # tinymae 0.2 did not write who trained it
    if not (old or extra.get("demo")):
        raise FileExistsError(f"{path}: is not the model of a demo, and is not replaced by one: give another --out")
    return True


_LABELS = {
    "mae": "masked autoencoder",
    "linear": "linear interpolation of the visible pixels",
    "nearest": "nearest visible pixel",
    "mean": "mean of the visible pixels",
}


def draw(task: Task, run: Run, results: dict, out: Path) -> Iterator[tuple[str, Path]]:
    """Draw the figures of the demo into the folder `out`; yields (label, path) as they are written."""
    from tinymae import plot  # matplotlib is slow to import: only when we draw

    config, params = task.config, run.params
    few = task.validation[:4]
    hidden = sorted({config.mask_ratio, 0.75, 0.95})
    for ratio in hidden:
        pictures, original, mode = restore(few, params, config, ratio)
        title = f"{ratio:.0%} of the patches hidden, of images it was not trained on"
        figure = plot.reconstructions(*pictures, original, title=title, mode=mode)
        yield f"{ratio:.0%} hidden", plot.save(figure, out / f"restored_{100 * ratio:g}.png")
    if task.photo is not None:
        pictures, original, mode = restore_photo(task.photo, params, config, config.mask_ratio)
        figure = plot.reconstructions(
            *pictures, original, mode=mode, title="A photograph it was not trained on",
            caption=tiled(config, config.mask_ratio) + " The error table is measured on different crops.",
        )
        yield "the whole photograph", plot.save(figure, out / "photo.png")
    evaluations = dict(run.evaluations)
    baselines = {} if config.norm_pix_loss else {name: results[name] for name in ("mean", "nearest", "linear")}
    figure = plot.loss_curve(range(1, run.step + 1), run.losses, evaluations=evaluations, baselines=baselines)
    yield "loss curve", plot.save(figure, out / "loss.png")
    last = mae_attention(few[:1], params, config)[-1][0]        # (H, 1 + N, 1 + N)
    patches, _ = patchify_forward(few[:1], config.patch_size)
    patch = int(np.argmax(patches[0].std(axis=-1)))             # the one with the most to see
    figure = plot.attention_over_picture(to_picture(few[0]), last[:, 0, 1:], last[:, 1 + patch, 1:], patch, config.grid)
    yield "attention", plot.save(figure, out / "attention.png")
