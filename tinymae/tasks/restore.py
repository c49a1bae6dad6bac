"""Restore images with a masked autoencoder: train it, measure it, apply it to a photograph of your own.

    images --prepare--> Task --train_mae--> mae.npz --table--> its error beside those of simple fills
                                                    --reconstruct--> your photograph, hidden and restored

The error is measured on validation images: no model is trained on them, and `train_mae` reports it as it goes.
"""
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from tinymae.files import fingerprint
from tinymae.images.crops import picture_bank, random_crops, random_pictures, unseen_crops
from tinymae.images.dead_leaves import dead_leaves
from tinymae.images.fills import biharmonic_fill, linear_fill, mean_fill, nearest_fill, removed_pixels
from tinymae.images.harmonic import harmonic_fill
from tinymae.images.labelled import model_size
from tinymae.images.pixels import MEAN, STD, to_picture, to_pixels
from tinymae.images.resize import resize_picture
from tinymae.images.sources import load_images, unseen_photos
from tinymae.messages import marked, padded, translated
from tinymae.messages import message as _
from tinymae.models.mae import (
    MAEConfig,
    check_mask_ratio,
    mae_backward,
    mae_decays,
    mae_forward,
    mae_init,
    mae_matrices,
    mae_reconstruct,
    random_masking,
)
from tinymae.ops.patches import image_sides
from tinymae.tasks.photograph import restored_tiles
from tinymae.train import checkpoint
from tinymae.train.folder import run_folder
from tinymae.train.loop import SAVE_EVERY, TWENTIETHS, Run, check_length, cosine, resumed, save_run, train
from tinymae.train.optim import Muon
from tinymae.train.parallel import Workers, micro_batches, value_and_grad
from tinymae.train.ranks import Ranks

BATCH, MICRO_BATCH = 32, 16
CROP, CROP_PATCH = 48, 6        # of photographs, in pixels
LEARNING_RATE = 4e-3
MADE_UP = 24                    # images that are added to the sample photographs


@dataclass(frozen=True, eq=False)
class Task:
    """What to train on, and what to evaluate on."""

    config: MAEConfig
    sample: Callable            # sample(rng, count) -> float32 pixels (count, rows, cols, C)
    validation: dict[str, np.ndarray]   # {name: float32 pixels (B, rows, cols, C)}, never trained on
    photos: dict[str, np.ndarray]       # {name: photograph, uint8} that they are crops of; empty if they are whole images
    data: str                   # how many images, and their fingerprint: a run is resumed with the same ones only
    batch: int = BATCH          # images in a step
    vary: bool = False          # hide another fraction in each part of a batch, see `mae_gradient`


def prepare(
    data: str, mask_ratio: float = 0.75, norm_pix_loss: bool = False, sizes: dict | None = None, *, vary: bool = False
) -> Task:
    """Images, and a model of a size that fits them.

    Parameters
    ----------
    data : as `images.sources.load_images`
    mask_ratio, norm_pix_loss : as `MAEConfig`
    sizes : further fields of MAEConfig (embed_dim, depth, patch_size ...), or None for a small model
    vary : as `mae_gradient`

    Notes
    -----
    Photographs (sides over 64, or of several sizes) become random crops, small images of one size are used whole. The last
    fifth is the validation set, as for images with labels; with 'photos' these are the three of `unseen_photos`, and the
    training set has made-up images, too, see `images.dead_leaves`.
    """
    check_mask_ratio(mask_ratio)
    pictures = load_images(data)
    channels = {picture.shape[2] for picture in pictures}
    if len(channels) > 1:
        raise ValueError(_("{data}: expected pictures with the same number of channels, got {channels}",
                           data=data, channels=sorted(channels)))
    made_up = []
    if data == "photos":
        named = unseen_photos()
        kept = list(named.values())
        with ThreadPoolExecutor() as pool:
            made_up = list(pool.map(lambda i: dead_leaves(np.random.default_rng(i)), range(MADE_UP)))
    elif len(pictures) < 2:
        raise ValueError(_("{data}: expected at least two images, one to train on and one for validation, got one", data=data))
    else:
        apart = math.ceil(len(pictures) / 5)
        pictures, kept = pictures[:-apart], pictures[-apart:]
    described = describe_pictures([*pictures, *made_up, *kept])
    channels = pictures[0].shape[2]
    common = {"in_chans": channels, "mask_ratio": mask_ratio, "norm_pix_loss": norm_pix_loss, **MAE_SIZES, **(sizes or {})}
    if len({picture.shape for picture in (*pictures, *kept)}) == 1 and max(pictures[0].shape[:2]) <= 64:
        size, patch = model_size(pictures[0].shape)
        config = MAEConfig(**{"img_size": size, "patch_size": patch, **common})
        pictures, kept = (
            np.stack([resize_picture(picture, config.img_size) for picture in part]) for part in (pictures, kept[:256])
        )
        check_hides(config)
        validation = {marked("validation images"): to_pixels(kept)}
        return Task(config, lambda rng, count: random_pictures(pictures, rng, count), validation, {}, described, vary=vary)
    config = MAEConfig(**{"img_size": CROP, "patch_size": CROP_PATCH, **common})
    check_hides(config)
    rows, cols = image_sides(config.img_size)
    side = max(rows, cols)                                      # a rectangle is cut out of a square crop
    bank = picture_bank(pictures, side)
    if made_up:
        bank += picture_bank(made_up, side, most=2 * MADE_UP)
    if data == "photos":
        validation = {name: unseen_crops(photo, side, 64) for name, photo in named.items()}
    else:
        crops = [unseen_crops(picture, side, max(1, 64 // len(kept))) for picture in kept[:64]]
        named, validation = {"validation photograph": kept[0]}, {marked("validation photographs"): np.concatenate(crops)}
    validation = {name: to_pixels(crops[:, :rows, :cols]) for name, crops in validation.items()}

    def sample(rng, count):
        return random_crops(bank, side, rng, count)[:, :rows, :cols]

    return Task(config, sample, validation, named, described, vary=vary)


def describe_pictures(pictures: Sequence[np.ndarray]) -> str:
    """How many images there are, and a fingerprint of their numbers: "60 images (fingerprint 0123456789abcdef)"."""
    parts = (part for picture in pictures for part in (str(picture.shape), np.ascontiguousarray(picture).data.cast("B")))
    return f"{len(pictures)} images (fingerprint {fingerprint(parts)})"


MAE_SIZES = {
    "embed_dim": 128, "depth": 4, "num_heads": 4,
    "decoder_embed_dim": 64, "decoder_depth": 2, "decoder_num_heads": 4,
}


def check_hides(config: MAEConfig) -> None:
    """Raise a ValueError unless the mask ratio hides some of the patches and shows some."""
    number = config.num_patches
    kept = int(number * (1 - config.mask_ratio))
    if not 0 < kept < number:
        raise ValueError(_("expected a mask ratio that hides some of the {number} patches and shows some, got {ratio}, which "
                           "shows {kept}", number=number, ratio=config.mask_ratio, kept=kept))


def train_mae(
    task: Task, out: Path | str, *, steps: int | None = None, minutes: float | None = None, seed: int = 0,
    threads: int | None = None, resume: bool = False, overwrite: bool = False, save_every: float = SAVE_EVERY,
    extra: dict | None = None, bar: bool = True, stop: threading.Event | None = None,
    ranks: Ranks | None = None,
) -> Run:
    """Train a masked autoencoder and write it to out/mae.npz; with `resume`, continue with the one that is there.

    Parameters
    ----------
    task : of `prepare`
    out : the folder
    steps, minutes : how long in all, one of them
    seed : of parameters, crops and masks
    threads : None for one per core, which the ranks of a machine share
    resume : continue; the data, the seed and the model must be the same
    overwrite : replace a model that is in the folder
    save_every : seconds between two saves
    extra : kept in the file beside losses and evaluations
    bar : show progress
    stop : stop.set(), from any thread, ends the run as Ctrl-C does; or None
    ranks : `train.ranks.world()`, processes that share each batch, all of them in this call; None for this process alone

    Returns
    -------
    Run; its evaluations are losses on the validation images

    Raises
    ------
    ValueError
        if not exactly one length is given, or a run is resumed with options other than its own
    FileExistsError, BlockingIOError, OSError
        as `train.folder.run_folder`
    """
    check_length(steps, minutes)
    ranks = ranks or Ranks()
    options = {
        "data": task.data, "seed": seed, "config": asdict(task.config), "optimizer": "Muon", "batch": task.batch,
        "vary": task.vary,
    }
    ranks.check_options(options)
    extra = {"crops": bool(task.photos), **(extra or {})}
    with (
        run_folder(out, "mae.npz", resume=resume, overwrite=overwrite, rank=ranks.rank) as folder,
        Workers(ranks.threads() if threads is None else threads, ranks) as workers,
    ):
        if resume:
            path = folder.path / "mae.npz"
            saved = checkpoint.load(path, "mae", MAEConfig, mae_init)
            run = resumed(saved, mae_optimizer(saved.params, workers.map), path, options)
        else:
            rng = np.random.default_rng(seed)
            params = mae_init(task.config, rng)
            run = Run(params, mae_optimizer(params, workers.map), rng)
        gradient = mae_gradient(task.config, task.sample, task.batch, MICRO_BATCH, workers, vary=task.vary)
        return train(
            run, gradient, cosine(LEARNING_RATE), batch=task.batch, steps=steps, minutes=minutes,
            evaluate=validation_loss(task, workers),
            save=lambda run: save_run(run, folder, "mae", task.config, options, extra), save_every=save_every, bar=bar,
            stop=stop,
            ranks=ranks,
        )


def mae_optimizer(params: dict, mapped: Callable = map) -> Muon:
    """Muon for the matrices of the blocks; for all else AdamW as He et al. 2021 pre-train, appendix A.1."""
    return Muon(
        params, mae_matrices(params), betas=(0.9, 0.95), weight_decay=0.05, decays=mae_decays(params), mapped=mapped
    )


def mae_gradient(
    config: MAEConfig, sample: Callable, batch: int, micro_batch: int, workers: Workers, *, vary: bool = False
) -> Callable:
    """The gradient of a masked autoencoder on fresh images, as a function(params, rng) -> (loss, dparams) for `train`.

    Parameters
    ----------
    config : the model
    sample : sample(rng, count) -> images (count, rows, cols, C). Runs in the worker threads
    batch, micro_batch : images in a step, and in a part of it
    workers : the threads
    vary : hide another fraction of the patches in each part, from 0.05 to 0.95, mostly large: for a model that is to restore
        whatever is hidden. Otherwise config.mask_ratio
    """
    number = config.num_patches

    def gradient(params, rng):
        slices = micro_batches(batch, micro_batch)

        def part(job):
            child, piece = job
            count = piece.stop - piece.start
            images, noise = sample(child, count), child.random((count, number))
            varied = replace(config, mask_ratio=0.95 - 0.9 * child.random() ** 2) if vary else config
            loss, cache = mae_forward(images, params, varied, noise)
            return loss * (count / batch), mae_backward(count / batch, cache)

        return value_and_grad(part, list(zip(rng.spawn(len(slices)), slices, strict=True)), workers)

    return gradient


def validation_loss(task: Task, workers: Workers) -> Callable[[dict], float]:
    """The loss on all validation images, as a function(params) for `train`."""
    images = np.concatenate(list(task.validation.values()))
    noise = np.concatenate([validation_noise(each, task.config) for each in task.validation.values()])
    parts = micro_batches(len(images), 2 * MICRO_BATCH)

    def evaluate(params):                                       # equally many patches are hidden in each image
        losses = workers.map(lambda part: mae_forward(images[part], params, task.config, noise[part])[0], parts)
        return sum(float(loss) * (part.stop - part.start) for loss, part in zip(losses, parts, strict=True)) / len(images)

    return evaluate


def validation_noise(images: np.ndarray, config: MAEConfig) -> np.ndarray:
    """The noise that hides patches of the validation images of one photograph, (B, N): always the same."""
    return np.random.default_rng(1).random((len(images), config.num_patches))


def table(
    images: np.ndarray, params: dict, config: MAEConfig, orientations: int = 1, *, biharmonic: bool = False
) -> dict[str, dict[str, float]]:
    """How well the hidden pixels of images are restored, by the model and by fills that learn nothing.

    Parameters
    ----------
    images : pixels (B, rows, cols, C), of which `validation_noise` hides config.mask_ratio
    params, config : of the model
    orientations : as `photograph.restored_tiles`
    biharmonic : with `fills.biharmonic_fill`, which takes as long as all the rest

    Returns
    -------
    {"mae", "biharmonic", "harmonic", "linear", "nearest", "mean": {"error", "psnr", "ssim"}}, all for the same masks.
    error: mean squared error of the hidden pixels, in the units of `to_pixels`; psnr: the same in decibels,
    10 log10(1 / error) in units of black 0 to white 1; ssim: structural similarity of whole images (Wang et al. 2004), visible
    pixels included, 1 if they are the same

    Notes
    -----
    A model of normalised pixels is measured as a user sees it, with mean and contrast from the visible patches.
    """
    from skimage.metrics import structural_similarity

    mask = random_masking(validation_noise(images, config), config.mask_ratio)[2]
    removed = removed_pixels(mask, *image_sides(config.img_size), config.patch_size)
    predicted = restored_tiles(images, mask, params, config, orientations)[0]
    fills = {
        "mae": np.where(removed[..., None], predicted, images),
        **({"biharmonic": biharmonic_fill(images, removed)} if biharmonic else {}),
        "harmonic": harmonic_fill(images, removed),
        "linear": linear_fill(images, removed),
        "nearest": nearest_fill(images, removed),
        "mean": mean_fill(images, removed),
    }
    measured, side = {}, min(image_sides(config.img_size))
    for name, filled in fills.items():
        error = float(np.mean((filled - images)[removed] ** 2, dtype=np.float64))
        similar = [
            structural_similarity(*(np.clip(it * STD + MEAN, 0, 1) for it in pair), data_range=1, channel_axis=2,
                                  win_size=min(7, side - (side + 1) % 2))
            for pair in zip(images, filled, strict=True)
        ]
        psnr = -10 * math.log10(error * STD**2) if error else math.inf
        measured[name] = {"error": error, "psnr": psnr, "ssim": float(np.mean(similar))}
    return measured


def table_lines(measured: dict[str, dict]) -> Iterator[str]:
    """{name of a validation set: `table`} as lines to print."""
    yield "\n" + _("images that it was not trained on: mean squared error of the hidden pixels (the lower the better), and "
                   "PSNR in dB and SSIM (the higher the better)")
    yield f"{'':46}" + "".join(padded(translated(name), 24, right=True) for name in measured)
    for method in next(iter(measured.values())):
        label, cells = translated(LABELS[method]), (rows[method] for rows in measured.values())
        yield f"  {padded(label, 44)}" + "".join(f"{it['error']:10.3f}{it['psnr']:7.1f}{it['ssim']:7.3f}" for it in cells)


LABELS = {
    "mae": marked("masked autoencoder"),
    "biharmonic": marked("biharmonic inpainting"),
    "harmonic": marked("harmonic fill, a stretched membrane"),
    "linear": marked("linear interpolation of the visible pixels"),
    "nearest": marked("nearest visible pixel"),
    "mean": marked("mean of the visible pixels"),
}


def steps_that_fit(task: Task, minutes: float, threads: int | None = None, seconds: float = 1.5) -> int:
    """How many training steps fit into so many minutes on this machine, evaluations included.

    It is measured for so many seconds, on a model that is then thrown away.
    """
    params = mae_init(task.config, np.random.default_rng(0))
    rng, done = np.random.default_rng(0), 0
    with Workers(os.cpu_count() if threads is None else threads) as workers:
        optimizer = mae_optimizer(params, workers.map)
        gradient = mae_gradient(task.config, task.sample, task.batch, MICRO_BATCH, workers)
        gradient(params, rng)                                   # the first is slower
        started = time.perf_counter()
        validation_loss(task, workers)(params)
        evaluations = len(TWENTIETHS) * (time.perf_counter() - started)
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            optimizer.step(params, gradient(params, rng)[1], 1e-3)
            done += 1
        return max(0, round((60 * minutes - evaluations) * done / (time.perf_counter() - started)))


def restore(
    images: np.ndarray, params: dict, config: MAEConfig, mask_ratio: float, *,
    seed: int = 1, mean: float | np.ndarray = MEAN, std: float | np.ndarray = STD,
) -> tuple[list[np.ndarray], np.ndarray, str]:
    """Hide patches of pixels (B, rows, cols, C), restore them, and return uint8 images to draw.

    Returns
    -------
    [masked, reconstruction, pasted], original : uint8 ndarrays like images
    mode : see `models.mae.Reconstruction`
    """
    config = replace(config, mask_ratio=mask_ratio)
    noise = np.random.default_rng(seed).random((len(images), config.num_patches))
    restored = mae_reconstruct(images, params, config, noise)
    return [to_picture(restored[i], mean, std) for i in range(3)], to_picture(images, mean, std), restored.mode
