"""python -m tinymae: train a masked autoencoder, restore images that it was not trained on, write the table, and draw."""
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from tinymae import tree
from tinymae.files import remove_leftovers, whole_file
from tinymae.images.hide import hidden_patches
from tinymae.images.pixels import to_picture
from tinymae.messages import message as _
from tinymae.messages import padded
from tinymae.models.attention_maps import mae_attention
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.ops.patches import image_sides, patchify_forward
from tinymae.tasks.photograph import DETAIL, grid_of, hidden_pixels, restore_photo
from tinymae.tasks.reconstruct import draw_restored
from tinymae.tasks.restore import MAE_SIZES, Task, prepare, restore, steps_that_fit, table, table_lines, train_mae
from tinymae.train import checkpoint
from tinymae.train.folder import remove_if_empty
from tinymae.train.loop import Run, check_length
from tinymae.train.parallel import Workers

SHORT_RUN = {"embed_dim": 96, "depth": 3}       # for a few minutes, with the decoder of restore.MAE_SIZES
ENOUGH = 300                                # steps of it that beat linear interpolation, see docs/numbers.rst
MANY = 5000                                 # steps of it, from which on a larger model is taken


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
    dict, as in demo.json: "validation", {name of a photograph: see `table`}, "seconds" and "steps" of training

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
    task = prepare(data, mask_ratio, norm_pix_loss, SHORT_RUN if data == "photos" else None)
    if task.config.in_chans not in (1, 3):
        raise ValueError(_("{data}: expected 1 or 3 channels to draw, got {channels}: `train mae` takes any number",
                           data=data, channels=task.config.in_chans))
    model, older = out / "mae.npz", _earlier_demo(out)
    remove_leftovers(out)
    rows, cols = image_sides(task.config.img_size)
    say(_("A masked autoencoder learns from {data!r}, on images of {rows} x {cols} pixels.", data=data, rows=rows, cols=cols))
    fits = steps_that_fit(task, minutes, threads) if minutes else steps
    if data == "photos":
        chosen = suited(task, fits)
        enough = math.ceil(minutes * ENOUGH / max(fits, 1)) if minutes and fits < ENOUGH else None
        if minutes and chosen is not task:
            fits = steps_that_fit(chosen, minutes, threads)
        task = chosen
    if minutes:
        say(_("In {minutes:g} minutes about {steps:,} steps of {batch} images will fit on this machine.",
              minutes=minutes, steps=fits, batch=task.batch))
    if data == "photos" and enough:
        say(_("That is too few to be better than linear interpolation: --minutes {enough} would be enough.", enough=enough))
    count = tree.count(mae_init(task.config, None))
    say(_("The model has {count:,} parameters. Ctrl-C ends early and still draws what it has.", count=count))
    run = train_mae(
        task, out / "training", steps=steps, minutes=minutes, seed=seed, threads=threads, overwrite=True,
        extra={"data": str(data), "demo": True},
    )
    if not run.losses:
        raise ValueError(_("interrupted before the first step: there is nothing to show"))
    os.replace(out / "training" / "mae.npz", model)
    remove_if_empty(out / "training")
    if older:
        say(_("{model}: replaces the model of an earlier demo", model=model))
    if run.interrupted:
        say(_("stopped after {steps} steps; this is how far the model got", steps=run.step))
    seconds, after = round(run.seconds, 1), time.perf_counter()
    layout = _("measuring and drawing: {percentage:3.0f} % |{bar}| {remaining} left")
    parts = len(task.validation) + 5 + bool(task.photos)
    with (
        Workers(os.cpu_count() if threads is None else threads) as workers,
        tqdm(total=parts, leave=False, bar_format=layout) as bar,
    ):
        measured = {}
        tables = workers.map(lambda it: table(it, run.params, task.config, 8 if task.photos else 1), task.validation.values())
        for name, rows in zip(task.validation, tables, strict=True):
            measured[name] = rows
            bar.update()
        results = {"validation": measured, "seconds": seconds, "steps": run.step}
        with whole_file(out / "demo.json") as file:
            file.write((json.dumps(results, indent=2) + "\n").encode())
        paths = []
        for path in draw(task, run, measured, out, workers.map):
            paths.append(path)
            bar.update()
    for line in table_lines(measured):
        say(line)
    after = time.perf_counter() - after
    say(_("after {steps:,} steps, {seconds:.0f} s of training; measured and drawn in {after:.0f} s",
          steps=run.step, seconds=seconds, after=after) + "\n")
    for label, path in [(_("model"), model), (_("table"), out / "demo.json"), *paths]:
        say(f"{padded(label, 24)}{path}")
    return results


def suited(task: Task, steps: int) -> Task:
    """The task with the model that suits so many steps of the small one: a larger one needs more of them.

    The batch stays: half of it is one part, for one thread, and takes as long.
    """
    return replace(task, config=replace(task.config, **MAE_SIZES)) if steps >= MANY else task


def _earlier_demo(out):
    """Whether an earlier demo left its model in the folder. Raises a FileExistsError if it is not that of a demo."""
    path = out / "mae.npz"
    if not path.exists():
        return False
    extra = checkpoint.load(path, "mae", MAEConfig, mae_init).extra
    old = "options" not in extra and (out / "demo.json").exists()           # tinymae 0.2 did not write who trained it
    if not (old or extra.get("demo")):
        raise FileExistsError(_("{path}: is not the model of a demo, and is not replaced by one: give another --out",
                                path=path))
    return True


def draw(task: Task, run: Run, measured: dict, out: Path, mapped: Callable = map) -> Iterator[tuple[str, Path]]:
    """Draw the figures of the demo into the folder `out`; yields (label, path) as they are written.

    measured: {name of a validation set: `table`}; mapped: as `photograph.restore_photo`.
    """
    from tinymae import plot  # matplotlib is slow to import: only when we draw

    config, params = task.config, run.params
    few = next(iter(task.validation.values()))[:4]
    for ratio in sorted({config.mask_ratio, 0.75, 0.95}):
        pictures, original, mode = restore(few, params, config, ratio)
        title = _("{ratio:.0%} of the patches hidden, of images it was not trained on", ratio=ratio)
        figure = plot.reconstructions(*pictures, original, title=title, mode=mode)
        yield _("{ratio:.0%} hidden", ratio=ratio), plot.save(figure, out / f"restored_{100 * ratio:g}.png")
    for photo in list(task.photos.values())[:1]:
        grid = grid_of(photo.shape, DETAIL, config)
        hidden = hidden_patches("random", grid, config.mask_ratio, np.random.default_rng(1))
        restored = restore_photo(photo, hidden_pixels(hidden, photo.shape), params, config, mapped=mapped)
        path = draw_restored(restored, config, _("A photograph it was not trained on"), out / "photo.png")
        yield _("the whole photograph"), path
    means = {name: np.mean([rows[name]["error"] for rows in measured.values()]) for name in ("mean", "nearest", "linear")}
    labels = {"mean": _("mean"), "nearest": _("nearest"), "linear": _("linear")}
    baselines = {} if config.norm_pix_loss else {labels[name]: mean for name, mean in means.items()}
    figure = plot.loss_curve(range(1, run.step + 1), run.losses, evaluations=dict(run.evaluations), baselines=baselines)
    yield _("loss curve"), plot.save(figure, out / "loss.png")
    last = mae_attention(few[:1], params, config)[-1][0]        # (H, 1 + N, 1 + N)
    patches = patchify_forward(few[:1], config.patch_size)[0]
    patch = int(np.argmax(patches[0].std(axis=-1)))             # the one with the most to see
    figure = plot.attention_over_picture(to_picture(few[0]), last[:, 0, 1:], last[:, 1 + patch, 1:], patch, config.grid)
    yield _("attention"), plot.save(figure, out / "attention.png")
