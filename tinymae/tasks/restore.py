"""Restore images with a masked autoencoder: train it, measure it, apply it to a photograph of your own.

    images --prepare--> Task --train_mae--> mae.npz --table--> its error beside those of simple fills
                                                    --reconstruct--> your photograph, hidden and restored

The error is measured on validation images: no model is trained on them, and `train_mae` reports it as it goes.
"""
import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from tinymae.files import fingerprint
from tinymae.images.crops import picture_bank, random_crops, random_pictures, unseen_crops
from tinymae.images.fills import linear_fill, mean_fill, nearest_fill, removed_pixels
from tinymae.images.labelled import model_size
from tinymae.images.pixels import MEAN, STD, load_picture, resize_picture, to_picture, to_pixels
from tinymae.images.sources import load_images, unseen_photo
from tinymae.models.fine_tuning import resize_mae
from tinymae.models.mae import MAEConfig, check_mask_ratio, mae_backward, mae_decays, mae_forward, mae_init, mae_reconstruct
from tinymae.ops.patches import image_sides
from tinymae.train import checkpoint
from tinymae.train.folder import run_folder
from tinymae.train.loop import SAVE_EVERY, Run, check_length, cosine, resumed, save_run, train
from tinymae.train.optim import AdamW
from tinymae.train.parallel import Workers, micro_batches, value_and_grad

BATCH, MICRO_BATCH = 32, 16
CROP, CROP_PATCH = 48, 6        # of photographs, in pixels
TILES = 6                       # crops along the shorter side of a photograph that is restored whole
LEARNING_RATE = 2e-3


@dataclass(frozen=True, eq=False)
class Task:
    """What to train on, and what to evaluate on."""

    config: MAEConfig
    sample: Callable            # sample(rng, count) -> float32 pixels (count, rows, cols, C)
    validation: np.ndarray      # float32 pixels (B, rows, cols, C), never trained on
    photo: np.ndarray | None    # the photograph they are crops of, uint8; None if they are whole images
    data: str                   # how many images, and their fingerprint: a run is resumed with the same ones only


def prepare(data: str, mask_ratio: float = 0.75, norm_pix_loss: bool = False, sizes: dict | None = None) -> Task:
    """Images, and a model of a size that fits them.

    Parameters
    ----------
    data : as `images.sources.load_images`
    mask_ratio, norm_pix_loss : as `MAEConfig`
    sizes : further fields of MAEConfig (embed_dim, depth, patch_size ...), or None for a small model

    Notes
    -----
    Photographs (sides over 64, or of several sizes) become random crops, small images of one size are used whole. The last
    fifth is the validation set, as for images with labels; with 'photos' that is matplotlib's `grace_hopper.jpg`.
    """
    check_mask_ratio(mask_ratio)
    pictures = load_images(data)
    channels = {picture.shape[2] for picture in pictures}
    if len(channels) > 1:
        raise ValueError(f"{data}: expected pictures with the same number of channels, got {sorted(channels)}")
    if data == "photos":
        kept = [unseen_photo()]
    elif len(pictures) < 2:
        raise ValueError(f"{data}: expected at least two images, one to train on and one for validation, got one")
    else:
        apart = math.ceil(len(pictures) / 5)
        pictures, kept = pictures[:-apart], pictures[-apart:]
    described = describe_pictures([*pictures, *kept])
    channels = pictures[0].shape[2]
    common = {"in_chans": channels, "mask_ratio": mask_ratio, "norm_pix_loss": norm_pix_loss, **_SIZES, **(sizes or {})}
    if len({picture.shape for picture in (*pictures, *kept)}) == 1 and max(pictures[0].shape[:2]) <= 64:
        size, patch = model_size(pictures[0].shape)
        config = MAEConfig(**{"img_size": size, "patch_size": patch, **common})
        pictures, kept = (
            np.stack([resize_picture(picture, config.img_size) for picture in part]) for part in (pictures, kept[:256])
        )
        check_hides(config)
        return Task(config, lambda rng, count: random_pictures(pictures, rng, count), to_pixels(kept), None, described)
    config = MAEConfig(**{"img_size": CROP, "patch_size": CROP_PATCH, **common})
    check_hides(config)
    rows, cols = image_sides(config.img_size)
    side = max(rows, cols)                                      # a rectangle is cut out of a square crop
    bank = picture_bank(pictures, side)
    validation = np.concatenate([unseen_crops(picture, side, max(1, 64 // len(kept))) for picture in kept[:64]])

    def sample(rng, count):
        return random_crops(bank, side, rng, count)[:, :rows, :cols]

    return Task(config, sample, to_pixels(validation[:, :rows, :cols]), kept[0], described)


def describe_pictures(pictures: Sequence[np.ndarray]) -> str:
    """How many images there are, and a fingerprint of their numbers: "60 images (fingerprint 0123456789abcdef)"."""
    parts = (part for picture in pictures for part in (str(picture.shape), np.ascontiguousarray(picture).data.cast("B")))
    return f"{len(pictures)} images (fingerprint {fingerprint(parts)})"


_SIZES = {
    "embed_dim": 128, "depth": 4, "num_heads": 4,
    "decoder_embed_dim": 64, "decoder_depth": 2, "decoder_num_heads": 4,
}


def check_hides(config: MAEConfig) -> None:
    """Raise a ValueError unless the mask ratio hides some of the patches and shows some."""
    number = config.num_patches
    kept = int(number * (1 - config.mask_ratio))
    if not 0 < kept < number:
        raise ValueError(
            f"expected a mask ratio that hides some of the {number} patches and shows some, got {config.mask_ratio}, "
            f"which shows {kept}"
        )


def train_mae(
    task: Task, out: Path | str, *, steps: int | None = None, minutes: float | None = None, seed: int = 0,
    threads: int | None = None, resume: bool = False, overwrite: bool = False, save_every: float = SAVE_EVERY,
    extra: dict | None = None, bar: bool = True, stop: threading.Event | None = None,
) -> Run:
    """Train a masked autoencoder and write it to out/mae.npz; with `resume`, continue with the one that is there.

    Parameters
    ----------
    task : of `prepare`
    out : the folder
    steps, minutes : how long in all, one of them
    seed : of parameters, crops and masks
    threads : None for one per core
    resume : continue; the data, the seed and the model must be the same
    overwrite : replace a model that is in the folder
    save_every : seconds between two saves
    extra : kept in the file beside losses and evaluations
    bar : show progress
    stop : stop.set(), from any thread, ends the run as Ctrl-C does; or None

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
    options = {"data": task.data, "seed": seed, "config": asdict(task.config)}
    extra = {"crops": task.photo is not None, **(extra or {})}
    noise = validation_noise(task)

    def evaluate(params):
        return mae_forward(task.validation, params, task.config, noise)[0]

    with (
        run_folder(out, "mae.npz", resume=resume, overwrite=overwrite) as folder,
        Workers(os.cpu_count() if threads is None else threads) as workers,
    ):
        if resume:
            path = folder.path / "mae.npz"
            saved = checkpoint.load(path, "mae", MAEConfig, mae_init)
            run = resumed(saved, mae_optimizer(saved.params), path, options)
        else:
            rng = np.random.default_rng(seed)
            params = mae_init(task.config, rng)
            run = Run(params, mae_optimizer(params), rng)
        gradient = mae_gradient(task.config, task.sample, BATCH, MICRO_BATCH, workers)
        return train(
            run, gradient, cosine(LEARNING_RATE), batch=BATCH, steps=steps, minutes=minutes, evaluate=evaluate,
            save=lambda run: save_run(run, folder, "mae", task.config, options, extra), save_every=save_every, bar=bar,
            stop=stop,
        )


def mae_optimizer(params: dict, weight_decay: float = 0.05) -> AdamW:
    """AdamW as He et al. 2021 pre-train, appendix A.1."""
    return AdamW(params, betas=(0.9, 0.95), weight_decay=weight_decay, decays=mae_decays(params))


def mae_gradient(config: MAEConfig, sample: Callable, batch: int, micro_batch: int, workers: Workers) -> Callable:
    """The gradient of a masked autoencoder on fresh images, as a function(params, rng) -> (loss, dparams) for `train`.

    Parameters
    ----------
    config : the model
    sample : sample(rng, count) -> images (count, rows, cols, C). Runs in the worker threads
    batch, micro_batch : images in a step, and in a part of it
    workers : the threads
    """
    number = config.num_patches

    def gradient(params, rng):
        slices = micro_batches(batch, micro_batch)

        def part(job):
            child, piece = job
            count = piece.stop - piece.start
            images, noise = sample(child, count), child.random((count, number))
            loss, cache = mae_forward(images, params, config, noise)
            return loss * (count / batch), mae_backward(count / batch, cache)

        return value_and_grad(part, list(zip(rng.spawn(len(slices)), slices, strict=True)), workers)

    return gradient


def validation_noise(task: Task) -> np.ndarray:
    """The noise that hides patches of the validation images, (B, N): always the same."""
    return np.random.default_rng(1).random((len(task.validation), task.config.num_patches))


def table(task: Task, params: dict) -> dict[str, float]:
    """Mean squared error on the hidden pixels of the validation images, for the model and three fills that learn nothing.

    Returns
    -------
    {"mae": float, "mean": float, "nearest": float, "linear": float}, all for the same masks, in the units of `to_pixels`

    Notes
    -----
    A model of normalised pixels is measured as a user sees it, with mean and contrast from the visible patches.
    """
    images, config = task.validation, task.config
    shown = mae_reconstruct(images, params, config, validation_noise(task))
    removed = removed_pixels(shown.mask, *image_sides(config.img_size), config.patch_size)
    restored = {
        "mae": shown.pasted,
        "mean": mean_fill(images, removed),
        "nearest": nearest_fill(images, removed),
        "linear": linear_fill(images, removed),
    }
    return {name: float(np.mean((filled - images)[removed] ** 2, dtype=np.float64)) for name, filled in restored.items()}


def tiled(config: MAEConfig, mask_ratio: float) -> str:
    """The caption of a photograph that `restore_photo` restored."""
    rows, cols = image_sides(config.img_size)
    return (
        f"The photograph is cut into tiles of {rows} x {cols} pixels, {TILES} along its shorter side; the model restores each "
        f"tile by itself, from what is left when {mask_ratio:.0%} of its patches are hidden."
    )


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


def restore_photo(
    photo: np.ndarray, params: dict, config: MAEConfig, mask_ratio: float, *, seed: int = 1
) -> tuple[list[np.ndarray], np.ndarray, str]:
    """As `restore`, for one photograph of any size, tile by tile; the images returned are (1, rows, cols, C).

    A photograph more than four times as long as wide is cut down to its middle.
    """
    rows, cols = image_sides(config.img_size)
    *sides, channels = photo.shape
    tiles = [side / tile for side, tile in zip(sides, (rows, cols), strict=True)]       # at the photograph's own size
    down, across = (min(4 * TILES, max(TILES, round(TILES * number / min(tiles)))) for number in tiles)
    small = resize_picture(photo, (down * rows, across * cols))
    cut = small.reshape(down, rows, across, cols, channels).swapaxes(1, 2).reshape(-1, rows, cols, channels)
    pictures, _, mode = restore(to_pixels(cut), params, config, mask_ratio, seed=seed)
    whole = [
        picture.reshape(down, across, rows, cols, channels).swapaxes(1, 2).reshape(1, *small.shape) for picture in pictures
    ]
    return whole, small[None], mode


def reconstruct(
    picture: Path | str, model: Path | str, out: Path | str, *, mask_ratio: float | None = None,
    img_size: int | tuple[int, int] | None = None, seed: int = 1,
) -> Path:
    """Restore your own photograph with a model that `demo` or `train_mae` wrote. Returns the path of the figure.

    Parameters
    ----------
    picture : an image file of any size and mode
    model : the folder that holds mae.npz, or the file itself
    out : the .png to write
    mask_ratio : None for the one the model was trained with
    img_size : of the image, or of the tiles of a model that was trained on crops; None for the one it was trained with. For any
        other, positions are interpolated
    seed : which patches are hidden
    """
    from tinymae import plot

    path = Path(model)
    saved = checkpoint.load(path / "mae.npz" if path.is_dir() else path, "mae", MAEConfig, mae_init)
    config = saved.config if img_size is None else resize_mae(saved.config, img_size)
    ratio = config.mask_ratio if mask_ratio is None else mask_ratio
    photo = load_picture(picture)
    if config.in_chans == 1:
        photo = np.asarray(Image.fromarray(photo).convert("L"))[..., None]
    elif config.in_chans != 3:
        raise ValueError(f"{path}: a model of {config.in_chans} channels cannot restore a photograph: it has 1 or 3")
    if "crops" not in saved.extra:
        raise ValueError(f"{path}: does not say whether it was trained on crops: expected a file that train_mae wrote")
    if saved.extra["crops"]:
        pictures, original, mode = restore_photo(photo, saved.params, config, ratio, seed=seed)
        caption = tiled(config, ratio)
    else:
        pixels = to_pixels(resize_picture(photo, config.img_size))[None]
        pictures, original, mode = restore(pixels, saved.params, config, ratio, seed=seed)
        caption = None
    title = f"{Path(picture).name}, {ratio:.0%} hidden"
    return plot.save(plot.reconstructions(*pictures, original, title=title, mode=mode, caption=caption), out)


def reconstruct_published(
    picture: Path | str, weights: Path | str, out: Path | str, *, mask_ratio: float | None = None,
    img_size: int | tuple[int, int] | None = None, seed: int = 1, heads: int | None = None, decoder_heads: int | None = None,
    norm_pix_loss: bool | None = None, key: str | None = None,
) -> Path:
    """Restore a photograph with a published masked autoencoder, as the demo notebook of He et al. 2021 does.

    Parameters
    ----------
    picture, out, mask_ratio, img_size, seed : as `reconstruct`
    weights : an official .pth, or a Hugging Face folder
    heads, decoder_heads, norm_pix_loss, key : as `weights.published.load_mae`

    Differs: the notebook squeezes the photograph into a square, here its centre is taken; which patches are hidden
    depends on our seed, not PyTorch's. A model of normalised pixels is shown with the contrast of the visible patches: the
    notebook takes that of the hidden ones, which are part of the answer.
    """
    from tinymae import plot
    from tinymae.weights.preparation import preparation
    from tinymae.weights.published import load_mae

    config, params = load_mae(
        weights, heads=heads, decoder_heads=decoder_heads, norm_pix_loss=norm_pix_loss, img_size=img_size, key=key
    )
    prepared = preparation(weights, key=key)
    prepared.check(config.img_size if img_size is None else None, config.in_chans)
    mean, std = (np.array(value, np.float32) for value in (prepared.mean, prepared.std))
    photo = load_picture(picture)
    if config.in_chans != 3:
        raise ValueError(f"{weights}: a model of {config.in_chans} channels cannot restore a photograph: expected 3")
    ratio = config.mask_ratio if mask_ratio is None else mask_ratio
    pixels = to_pixels(resize_picture(photo, config.img_size), mean=mean, std=std)[None]
    pictures, original, mode = restore(pixels, params, config, ratio, seed=seed, mean=mean, std=std)
    title = f"{Path(picture).name}, {ratio:.0%} hidden"
    return plot.save(plot.reconstructions(*pictures, original, title=title, mode=mode), out)
