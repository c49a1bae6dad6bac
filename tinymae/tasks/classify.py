"""Classification: from labelled images to a Vision Transformer, from scratch or from an encoder that is already trained.

    images -> moved, flipped, mixed -> batches, epoch by epoch -> training -> a folder with the model and its class names

`train_vit` trains and writes, `Classifier` classifies images, `evaluate_classifier` compares it with labels. The last fifth of
a data set is the validation set: it is evaluated during training, and never trained on.
"""
import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from tinymae import tree
from tinymae.arguments import check_settings
from tinymae.files import fingerprint
from tinymae.images.augment import crop_and_flip, mixup
from tinymae.images.labelled import Labelled, fit_pictures, model_size
from tinymae.images.pixels import MEAN, STD, to_pixels
from tinymae.messages import message as _
from tinymae.models.fine_tuning import layer_rates, resize_vit, vit_decays
from tinymae.models.mae import StoredPositions
from tinymae.models.vit import ViTConfig, vit_backward, vit_forward, vit_init, vit_logits
from tinymae.tasks.encoders import Encoder, load_encoder
from tinymae.train import checkpoint
from tinymae.train.folder import run_folder
from tinymae.train.loop import (
    SAVE_EVERY,
    TWENTIETHS,
    Run,
    check_length,
    cosine,
    endless,
    epoch_ends,
    resumed,
    save_run,
    train,
)
from tinymae.train.optim import AdamW
from tinymae.train.parallel import Workers, micro_batches, value_and_grad
from tinymae.train.ranks import Ranks
from tinymae.weights.preparation import Preparation

GLANCE = 1000                   # validation images that are evaluated during training; all of them at its end


@dataclass(frozen=True)
class ClassifierSettings:
    """What to train, and how."""

    config: dict                # fields of ViTConfig, without the sizes of images and the number of classes
    lr: float                   # the highest learning rate
    batch: int = 64
    micro_batch: int = 16       # images that a thread handles at a time
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    mixup: float = 0.2          # alpha of the fractions in which two images are mixed; 0 mixes none
    shift: int = 0              # pixels by which an image is moved, at most, in each direction
    flip: bool = False          # half of the images are mirrored, left to right
    layer_decay: float = 1.0    # factor of the learning rate from one layer to the one below
    max_norm: float = 1.0       # gradients are clipped to it

    def __post_init__(self):
        check_settings(
            self, positive=("lr", "layer_decay", "max_norm"), not_negative=("weight_decay", "mixup"),
            fractions=("label_smoothing",), counts=("batch", "micro_batch"), sizes=("shift",), switches=("flip",),
        )


def classifier_settings(data: Labelled, fine_tune: bool = False) -> ClassifierSettings:
    """Settings that fit the data, for training from scratch or from a trained encoder.

    Only colour images are mirrored: a mirrored digit or letter is a different sign.
    """
    size, patch = model_size(data.images.shape[1:])
    colour = data.images.shape[3] == 3
    common = {"shift": size // 8, "flip": colour}
    if fine_tune:
        return ClassifierSettings({}, 1e-3, layer_decay=0.75, **common)
    sizes = {"embed_dim": 128, "depth": 4, "num_heads": 4, "pool": "mean", "position_encoding": "fixed"}
    if not colour:              # signs: fewer, larger patches, so that the same minutes hold several times the steps
        sizes["patch_size"] = next((it for it in range(patch + 1, size // 2 + 1) if size % it == 0), patch)
    return ClassifierSettings(sizes, 1e-3, **common)


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained Vision Transformer with the names of its classes."""

    params: dict
    config: ViTConfig
    names: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path | str) -> "Classifier":
        """From a folder that `train_vit` wrote, or its file vit.npz."""
        saved = _load(folder)
        return cls(saved.params, saved.config, tuple(saved.extra["names"]))

    def logits(self, images: np.ndarray, workers: Workers | None = None) -> np.ndarray:
        """Logits (N, classes) of uint8 images (N, rows, cols, C) of any size; a few at a time, side by side on workers."""
        images = fit_pictures(images, self.config.img_size, self.config.in_chans)

        def part(piece):
            return vit_logits(to_pixels(images[piece]), self.params, self.config)

        parts = micro_batches(len(images), at_a_time(self.config))
        logits = np.concatenate(list((workers.map if workers else map)(part, parts)))
        if not np.isfinite(logits).all():
            raise FloatingPointError(_("the model gives logits that are not finite: its training diverged, train it again"))
        return logits

    def predict(self, images: np.ndarray, workers: Workers | None = None) -> np.ndarray:
        """Class numbers (N,) of uint8 images."""
        return self.logits(images, workers).argmax(axis=1)


def at_a_time(config: ViTConfig) -> int:
    """Images whose logits a thread computes at a time: as many as have about 512 tokens, which stay in the cache."""
    return max(1, 512 // (config.num_patches + 1))


def image_batches(count: int, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Index arrays of one epoch: `count` images in an order that seed and epoch decide, whole batches only."""
    batch = min(batch, count)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return [order[start : start + batch] for start in range(0, count - batch + 1, batch)]


def vit_gradient(
    config: ViTConfig, pixels: Callable[[np.ndarray], np.ndarray], labels: np.ndarray, settings: ClassifierSettings,
    workers: Workers,
) -> Callable:
    """The gradient of a classifier, as a function(params, rng, index array) -> (loss, dparams) for `train.loop.train`.

    Parameters
    ----------
    config : the model
    pixels : pixels(indices) -> fresh float32 images (B, rows, cols, C). Runs in the worker threads
    labels : integer ndarray (N,)
    settings : augmentation, label smoothing, micro-batch
    workers : the threads
    """

    def gradient(params, rng, chosen):
        slices = micro_batches(len(chosen), settings.micro_batch)

        def part(job):
            child, piece = job
            images, targets = pixels(chosen[piece]), labels[chosen[piece]]
            if settings.shift or settings.flip:
                images = crop_and_flip(images, child, pad=settings.shift, flip=settings.flip)
            if settings.mixup:
                images, targets = mixup(images, targets, config.num_classes, child, alpha=settings.mixup)
            share = len(images) / len(chosen)
            loss, cache = vit_forward(images, targets, params, config, label_smoothing=settings.label_smoothing, rng=child)
            return loss * share, vit_backward(share, cache)

        return value_and_grad(part, list(zip(rng.spawn(len(slices)), slices, strict=True)), workers)

    return gradient


def train_vit(
    data: Labelled, out: Path | str, settings: ClassifierSettings | None = None, *,
    steps: int | None = None, minutes: float | None = None, epochs: int | None = None,
    from_folder: Path | str | None = None, key: str | None = None, seed: int = 0, threads: int | None = None,
    resume: bool = False, overwrite: bool = False, save_every: float = SAVE_EVERY, bar: bool = True,
    say: Callable[[str], None] | None = None, stop: threading.Event | None = None,
    ranks: Ranks | None = None,
) -> Run:
    """Train a Vision Transformer on labelled images and write it to a folder, as vit.npz.

    Parameters
    ----------
    data : its last fifth is the validation set
    out : the folder
    settings : None for those that fit, or for those of the run that is resumed
    steps, minutes, epochs : how long in all, one of them. The model is evaluated after each epoch, or else twenty times
    from_folder : folder or file of a model, ours or a published one, whose encoder to start from; None to start from scratch,
        or to continue a run however it was begun
    key : of from_folder, as `tasks.encoders.load_encoder`
    seed : of parameters, batches and augmentation
    threads : None for one per core, which the ranks of a machine share
    resume : continue with the model in the folder; the data, the seed and the settings must be the same
    overwrite : replace a model that is in the folder
    save_every : seconds between two saves
    bar : show progress
    say : say(line), with the accuracy at each evaluation; or None
    stop : stop.set(), from any thread, ends the run as Ctrl-C does; or None
    ranks : `train.ranks.world()`, processes that share each batch, all of them in this call; None for this process alone

    Returns
    -------
    Run; its evaluations are accuracies on (at most a thousand of) the validation images

    Raises
    ------
    ValueError
        if not exactly one length is given, a run is resumed with settings other than its own, or the model of from_folder does
        not fit the data or the settings
    FileExistsError, BlockingIOError, OSError
        as `train.folder.run_folder`
    """
    check_length(steps, minutes, epochs)
    ranks = ranks or Ranks()
    if key is not None and from_folder is None:
        raise ValueError(_("got the key {key!r} of published weights and none to start from: expected --from (from_folder)",
                           key=key))
    training, validation = data.split()
    with (
        run_folder(out, "vit.npz", resume=resume, overwrite=overwrite, rank=ranks.rank) as folder,
        Workers(ranks.threads() if threads is None else threads, ranks) as workers,
    ):
        saved = _load(folder.path) if resume else None
        begun = saved.extra.get("options", {}) if saved else {}
        if settings is None:
            settings = ClassifierSettings(**begun["settings"]) if begun else classifier_settings(data, from_folder is not None)
        encoder = load_encoder(from_folder, heads=settings.config.get("num_heads"), key=key) if from_folder else None
        ours = Preparation()
        if say and encoder and replace(encoder.preparation, mean=ours.mean, std=ours.std, size=None) != ours:
            say(_("images are scaled as always here (the centre, Lanczos), not as the files beside the encoder say"))
        options = {
            "data": describe_labelled(data), "from": describe_encoder(encoder) if encoder else begun.get("from"), "seed": seed,
            "settings": asdict(settings),
        }
        ranks.check_options(options)
        if saved:
            config = saved.config
            run = resumed(saved, vit_optimizer(saved.params, config, settings, workers.map), folder.path / "vit.npz", options)
        else:
            run, config = _new_run(data, settings, seed, encoder, workers.map)
        images, glance = (
            fit_pictures(part, config.img_size, config.in_chans) for part in (training.images, validation.images[:GLANCE])
        )

        def epoch(number):
            return image_batches(len(images), settings.batch, seed, number)

        evaluate_at = TWENTIETHS
        if epochs:
            ends = epoch_ends(epoch, epochs)
            steps, evaluate_at = ends[-1], [end / ends[-1] for end in ends]

        def save(run):
            return save_run(run, folder, "vit", config, options, {"names": list(data.names), "mean": MEAN, "std": STD})

        def evaluate(params):
            predicted = Classifier(params, config, data.names).predict(glance, workers)
            return np.mean(predicted == validation.labels[:GLANCE])

        def report(accuracy):
            say(_("step {step}: accuracy on {count} validation images {accuracy:.2%}",
                  step=run.step, count=len(glance), accuracy=accuracy))

        batches = itertools.islice(endless(epoch), run.step, None)          # continues where it was interrupted
        gradient = vit_gradient(config, lambda indices: to_pixels(images[indices]), training.labels, settings, workers)
        return train(
            run, gradient, cosine(settings.lr), batch=min(settings.batch, len(images)), batches=batches, steps=steps,
            minutes=minutes, max_norm=settings.max_norm, evaluate=evaluate, evaluate_at=evaluate_at,
            report=report if say else None, save=save, save_every=save_every, bar=bar, stop=stop,
            ranks=ranks,
        )


def describe_labelled(data: Labelled) -> str:
    """How many images there are, and a fingerprint of them, their labels and the names of the classes."""
    parts = (np.ascontiguousarray(data.images).data.cast("B"), data.labels.astype("<i8").tobytes())
    return f"{len(data.images)} images (fingerprint {fingerprint([str(data.images.shape), *parts, *map(str, data.names)])})"


def describe_encoder(encoder: Encoder) -> str:
    """The kind of an encoder, and a fingerprint of its parameters."""
    parts = (part for name, leaf in tree.leaves(encoder.params["encoder"]) for part in (name, leaf.tobytes()))
    return f"{encoder.model} encoder (fingerprint {fingerprint(parts)})"


def _new_run(data, settings, seed, encoder, mapped):
    """(Run, ViTConfig) at step 0."""
    rng = np.random.default_rng(seed)
    if encoder is None:
        size, patch = model_size(data.images.shape[1:])
        sizes = {"img_size": size, "patch_size": patch, "in_chans": data.images.shape[3], "num_classes": len(data.names)}
        config = ViTConfig(**sizes | settings.config)
        params = vit_init(config, rng)
    else:
        config, params = vit_from(encoder, len(data.names), rng, settings.config)
    return Run(params, vit_optimizer(params, config, settings, mapped), rng), config


def vit_from(
    encoder: Encoder, num_classes: int, rng: np.random.Generator, changes: dict | None = None
) -> tuple[ViTConfig, dict]:
    """A classifier with a trained encoder and a fresh head: its config and its parameters, a tree of `models.vit.vit_init`.

    It takes pixels as `images.pixels.to_pixels` makes them, x = (p - MEAN) / STD. If the encoder was trained on (p - m) / s,
    its patch embedding is changed so that it computes the same function of x: (p - m) / s = (x STD + MEAN - m) / s.

    Parameters
    ----------
    encoder : of a masked autoencoder, or of a ViT
    num_classes : of the head
    rng : for the head
    changes : fields of ViTConfig that do not change the encoder ("pool", "dropout"), and "img_size", for which positions are
        interpolated; or None. By default the encoder of a masked autoencoder is pooled by mean, as He et al. fine-tune it, and
        that of a ViT as it was. Positions that a masked autoencoder has from a file, or interpolated, are learned from then on

    Raises
    ------
    ValueError
        if `changes` has a size that is not the encoder's
    """
    it, encoder_params = encoder.config, encoder.params
    if encoder.model == "mae":
        stored = isinstance(it, StoredPositions)                # interpolated, or a file's own: not those that can be computed
        config = ViTConfig(
            it.img_size, it.patch_size, it.in_chans, num_classes, it.embed_dim, it.depth, it.num_heads, mlp_ratio=it.mlp_ratio,
            pool="mean", position_encoding="learned" if stored else "fixed", eps=it.eps,
        )
        if stored:
            encoder_params = encoder_params | {"positions": it.position_tables(np.float32)[0]}
    else:
        config = replace(it, num_classes=num_classes)
    changes = changes or {}
    resized, config = resize_vit(encoder_params, config, changes.get("img_size", config.img_size))
    changed = replace(config, **changes)
    if replace(changed, pool=config.pool, dropout=config.dropout) != config:
        raise ValueError(_("expected settings that fit the trained encoder, {config}, got {changes}: leave its sizes out",
                           config=config, changes=changes))
    params = vit_init(changed, rng)
    kept = {name: encoder.params["encoder"][name] for name in params["encoder"] if name in encoder.params["encoder"]}
    params["encoder"] |= tree.map(lambda leaf: np.array(leaf, order="C"), kept)         # published ones are transposed views
    mean, std = (np.broadcast_to(value, it.in_chans) for value in (encoder.preparation.mean, encoder.preparation.std))
    embed = params["encoder"]["patch_embed"]
    by_channel = embed["w"].reshape(-1, it.in_chans, it.embed_dim).astype(np.float64)           # (p p, C, D)
    embed["b"] += np.einsum("pcd,c->d", by_channel, (MEAN - mean) / std).astype(embed["b"].dtype)
    embed["w"] *= np.tile(STD / std, it.patch_size**2)[:, None].astype(embed["w"].dtype)
    if "positions" in params:
        params["positions"] = resized["positions"].copy()
    return changed, params


def vit_optimizer(params: dict, config: ViTConfig, settings: ClassifierSettings, mapped: Callable = map) -> AdamW:
    """AdamW with layer-wise learning rates, and weight decay as in the fine-tuning code of He et al. 2021."""
    rates = layer_rates(params, config, settings.layer_decay)
    return AdamW(params, weight_decay=settings.weight_decay, decays=vit_decays(params), rates=rates, mapped=mapped)


def _load(folder):
    """checkpoint.Checkpoint of a folder that `train_vit` wrote, or of its file."""
    path = Path(folder)
    saved = checkpoint.load(path / "vit.npz" if path.is_dir() else path, "vit", ViTConfig, vit_init)
    names = saved.extra.get("names")
    if not isinstance(names, list) or [type(name) for name in names] != [str] * saved.config.num_classes:
        raise ValueError(_("{folder}: the file lacks the names of its classes: expected one that train_vit wrote",
                           folder=folder))
    return saved


def evaluate_classifier(folder: Path | str, data: Labelled, *, whole: bool = False, threads: int | None = None) -> dict:
    """Compare the predictions of a model with labels.

    Parameters
    ----------
    folder : that `train_vit` wrote to
    data : its classes are found by name
    whole : all images, if none of them was trained on; otherwise the validation set, the last fifth
    threads : None for one per core

    Returns
    -------
    {"accuracy": float, "confusion": int ndarray (classes, classes), true class down, predicted class across, in the order of
     "names": tuple of the model's class names, "pictures": int, how many images}

    Raises
    ------
    ValueError
        if the data has a class that is not one of the model's
    """
    classifier = Classifier.load(folder)
    unknown = [name for name in data.names if name not in classifier.names]
    if unknown:
        raise ValueError(_("{folder}: expected the model's classes {known}, got {unknown}",
                           folder=folder, known=", ".join(classifier.names), unknown=", ".join(unknown)))
    test = data if whole else data.split()[1]
    labels = np.array([classifier.names.index(name) for name in data.names])[test.labels]
    with Workers(os.cpu_count() if threads is None else threads) as workers:
        predicted = classifier.predict(test.images, workers)
    confusion = np.zeros((len(classifier.names),) * 2, np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    accuracy = float(np.mean(labels == predicted))
    return {"accuracy": accuracy, "confusion": confusion, "names": classifier.names, "pictures": len(labels)}
