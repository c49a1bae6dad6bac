"""Classification: from labelled pictures to a Vision Transformer, from scratch or from an encoder that is already trained.

    pictures -> moved, flipped, mixed -> batches, epoch by epoch -> training -> a folder with model and class names

`train_vit` trains and keeps, `evaluate` compares with the labels of pictures that were kept apart, `Classifier` names pictures.
"""
import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymae import tree
from tinymae.images.augment import crop_and_flip, mixup
from tinymae.images.labelled import fit_pictures, model_size
from tinymae.images.pixels import MEAN, STD, to_pixels
from tinymae.models.fine_tuning import layer_rates, vit_decays
from tinymae.models.vit import ViTConfig, vit_backward, vit_forward, vit_init, vit_logits
from tinymae.tasks.encoders import load_encoder
from tinymae.train import checkpoint
from tinymae.train.loop import TWENTIETHS, Run, cosine, resumed, train
from tinymae.train.optim import AdamW
from tinymae.train.parallel import Workers, micro_batches, value_and_grad

GLANCE = 1000                   # pictures that are looked at during training; all of them at its end


class Settings(NamedTuple):
    """What to train, and how."""

    config: dict                # fields of ViTConfig, without the sizes of pictures and the number of classes
    lr: float                   # the highest learning rate
    batch: int = 64
    micro_batch: int = 16       # pictures that a thread handles at a time
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    mixup: float = 0.2          # alpha of the shares in which two pictures are mixed; 0 mixes none
    shift: int = 0              # pixels by which a picture is moved, at most, in each direction
    flip: bool = False          # half of the pictures are mirrored, left to right
    layer_decay: float = 1.0    # factor of the learning rate from one layer to the one below
    max_norm: float = 1.0       # gradients are clipped to it


def settings_for(data, fine_tune=False):
    """Settings that fit the data; only colour pictures are mirrored: a mirrored digit or letter is another sign.

    Parameters
    ----------
    data : images.labelled.Labelled
    fine_tune : bool, whether the encoder is already trained
    """
    size, patch = model_size(data.images.shape[1:])
    colour = data.images.shape[3] == 3
    common = {"shift": size // 8, "flip": colour}
    if fine_tune:
        return Settings({}, 1e-3, layer_decay=0.75, **common)
    sizes = {"embed_dim": 128, "depth": 4, "num_heads": 4, "pool": "mean", "position_encoding": "fixed"}
    if not colour:              # signs: fewer, larger patches, so that the same minutes hold several times the steps
        sizes["patch_size"] = next((it for it in range(patch + 1, size // 2 + 1) if size % it == 0), patch)
    return Settings(sizes, 1e-3, **common)


class Classifier(NamedTuple):
    """A trained Vision Transformer with the names of its classes."""

    params: dict
    config: ViTConfig
    names: tuple                # of str

    @classmethod
    def load(cls, folder):
        """From a folder that `train_vit` wrote, or its file vit.npz."""
        saved = _load(folder)
        return cls(saved.params, saved.config, tuple(saved.extra["names"]))

    def logits(self, pictures, workers=None, rows=128):
        """Logits (N, classes) of uint8 pictures (N, rows, cols, C) of any size; `rows` at a time, side by side on workers."""
        pictures = fit_pictures(pictures, self.config.img_size, self.config.in_chans)

        def part(piece):
            return vit_logits(to_pixels(pictures[piece]), self.params, self.config)

        return np.concatenate(list((workers.map if workers else map)(part, micro_batches(len(pictures), rows))))

    def predict(self, pictures, workers=None):
        """Class numbers (N,) of uint8 pictures."""
        return self.logits(pictures, workers).argmax(axis=1)


def epoch_batches(count, batch, seed, epoch):
    """Index arrays of one epoch: `count` pictures in an order that seed and epoch decide, whole batches only."""
    batch = min(batch, count)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return [order[start : start + batch] for start in range(0, count - batch + 1, batch)]


def endless_batches(count, batch, seed):
    """The batches of one epoch after the other."""
    for epoch in itertools.count():
        yield from epoch_batches(count, batch, seed, epoch)


def vit_gradient(config, pixels, labels, batches, settings, workers):
    """The gradient of a classifier on the next batch, as a function(params, rng) -> (loss, dparams) for `train.loop.train`.

    Parameters
    ----------
    config : ViTConfig
    pixels : callable; pixels(indices) -> fresh float32 pictures (B, img_size, img_size, C). Runs in the worker threads
    labels : integer ndarray (N,)
    batches : iterator of index arrays
    settings : Settings
    workers : train.parallel.Workers
    """

    def gradient(params, rng):
        chosen = next(batches)
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
    data, out, settings=None, steps=None, minutes=None, epochs=None, from_folder=None, seed=0, threads=None, resume=False,
    bar=True, say=print,
):
    """Train a Vision Transformer on labelled pictures and keep it in a folder, as vit.npz.

    Parameters
    ----------
    data : images.labelled.Labelled; its last fifth is kept apart
    out : str or Path, a folder
    settings : Settings, or None for those that fit, or those that a resumed run was begun with
    steps, minutes, epochs : how long in all, one of them. The model is evaluated after each epoch, or else twenty times
    from_folder : folder or file of a model, ours or a published one, whose encoder to start from, or None to start from scratch
    seed : int
    threads : int, or None for one per core
    resume : bool, go on with the model in the folder
    bar : bool, show progress
    say : callable(str), for the accuracy at each evaluation

    Returns
    -------
    Run; its evaluations are accuracies on (at most a thousand of) the pictures kept apart

    Raises
    ------
    ValueError
        where not one length is given, a run is resumed with other settings than it was begun with, or the model of from_folder
        does not fit the data or the settings
    """
    if [steps, minutes, epochs].count(None) != 2:
        raise ValueError(f"expected steps, minutes or epochs, one of them, got {steps}, {minutes} and {epochs}")
    if epochs is not None and epochs < 1:
        raise ValueError(f"expected at least one epoch, got {epochs}")
    out = Path(out)
    if settings is None:
        settings = Settings(**_load(out).extra["settings"]) if resume else settings_for(data, from_folder is not None)
    known, apart = data.split()
    meta = {
        "names": list(data.names), "seed": seed, "settings": settings._asdict(), "pictures": len(known.images), "mean": MEAN,
        "std": STD, "from": None if from_folder is None else str(from_folder),
    }
    run, config = _resumed(out, settings, meta) if resume else _begun(data, settings, seed, from_folder)
    pictures, glance = (fit_pictures(part, config.img_size, config.in_chans) for part in (known.images, apart.images[:GLANCE]))
    evaluate_at = TWENTIETHS
    if epochs:
        steps = epochs * len(epoch_batches(len(pictures), settings.batch, seed, 0))
        evaluate_at = [epoch / epochs for epoch in range(1, epochs + 1)]

    def save(run):
        checkpoint.save(
            out / "vit.npz", "vit", config, run.params,
            step=run.step, optimizer=run.optimizer, rng=run.rng, extra={**run.history, **meta},
        )

    batches = endless_batches(len(pictures), settings.batch, seed)
    batches = itertools.islice(batches, run.step, None)         # goes on where it was interrupted
    with Workers(os.cpu_count() if threads is None else threads) as workers:

        def evaluate(params):
            named = Classifier(params, config, data.names).predict(glance, workers)
            accuracy = np.mean(named == apart.labels[:GLANCE])
            say(f"step {run.step}: accuracy on {len(glance)} pictures it has never seen {accuracy:.2%}")
            return accuracy

        gradient = vit_gradient(
            config, lambda indices: to_pixels(pictures[indices]), known.labels, batches, settings, workers
        )
        return train(
            run, gradient, cosine(settings.lr), min(settings.batch, len(pictures)), steps, minutes, settings.max_norm, evaluate,
            evaluate_at, save, bar,
        )


def _begun(data, settings, seed, from_folder):
    """A fresh run: (Run, ViTConfig)."""
    rng = np.random.default_rng(seed)
    if from_folder is None:
        size, patch = model_size(data.images.shape[1:])
        sizes = {"img_size": size, "patch_size": patch, "in_chans": data.images.shape[3], "num_classes": len(data.names)}
        config = ViTConfig(**sizes | settings.config)
        params = vit_init(config, rng)
    else:
        config, params = vit_from(load_encoder(from_folder), len(data.names), rng, settings.config)
    return Run(params, _optimizer(params, config, settings), rng), config


def vit_from(encoder, num_classes, rng, changes=None):
    """A classifier with a trained encoder and a fresh head.

    It is trained on pixels as `images.pixels.to_pixels` makes them; to an encoder that was trained on others' (ImageNet's mean
    and deviation are near) the first layer adapts.

    Parameters
    ----------
    encoder : tasks.encoders.Encoder
    num_classes : int
    rng : numpy.random.Generator
    changes : dict of fields of ViTConfig that do not change the encoder ("pool", "dropout"), or None. By default the encoder of
        a masked autoencoder is pooled by mean, as He et al. fine-tune it, and that of a ViT as it was

    Returns
    -------
    config : ViTConfig
    params : tree of `models.vit.vit_init`

    Raises
    ------
    ValueError
        where `changes` has a size that is not the encoder's
    """
    it = encoder.config
    if encoder.model == "mae":
        config = ViTConfig(
            it.img_size, it.patch_size, it.in_chans, num_classes, it.embed_dim, it.depth, it.num_heads, mlp_ratio=it.mlp_ratio,
            pool="mean", position_encoding="fixed", eps=it.eps,
        )
    else:
        config = replace(it, num_classes=num_classes)
    changed = replace(config, **(changes or {}))
    if replace(changed, pool=config.pool, dropout=config.dropout) != config:
        raise ValueError(f"expected settings that fit the trained encoder, {config}, got {changes}: leave its sizes out")
    params = vit_init(changed, rng)
    kept = {name: encoder.params["encoder"][name] for name in params["encoder"] if name in encoder.params["encoder"]}
    params["encoder"] |= tree.map(np.copy, kept)
    if "positions" in params:
        params["positions"] = encoder.params["positions"].copy()
    return changed, params


def _resumed(out, settings, meta):
    """The run in the folder, to go on with: (Run, ViTConfig)."""
    saved = _load(out)
    run = resumed(saved, _optimizer(saved.params, saved.config, settings), out)
    was, now = ({**it["settings"], **{name: it[name] for name in ("seed", "names", "pictures")}} for it in (saved.extra, meta))
    other = ", ".join(f"{name} {was.get(name)!r} (now {value!r})" for name, value in now.items() if was.get(name) != value)
    if other:
        raise ValueError(f"{out}: the run was begun with {other}: resume with the same options")
    return run, saved.config


def _optimizer(params, config, settings):
    rates = layer_rates(params, config, settings.layer_decay)
    return AdamW(params, weight_decay=settings.weight_decay, decays=vit_decays(params), rates=rates)


def _load(folder):
    """train.checkpoint.Checkpoint of a folder that `train_vit` wrote, or of its file."""
    path = Path(folder)
    saved = checkpoint.load(path / "vit.npz" if path.is_dir() else path, "vit", ViTConfig, vit_init)
    lacking = {"names", "seed", "settings", "pictures"} - saved.extra.keys()
    if lacking:
        raise ValueError(f"{folder}: the model does not say its {', '.join(sorted(lacking))}: is it of another version?")
    return saved


def evaluate(folder, data, whole=False, threads=None):
    """Compare what a model sees in pictures with their labels.

    Parameters
    ----------
    folder : str or Path, that `train_vit` wrote to
    data : images.labelled.Labelled; its classes are found by name
    whole : bool; all pictures, where none of them was trained on. Otherwise the last fifth, which `train_vit` keeps apart
    threads : int, or None for one per core

    Returns
    -------
    {"accuracy": float, "confusion": int ndarray (classes, classes), true class down, predicted class across, in the order of
     "names": tuple of the model's class names, "pictures": int, how many there were}

    Raises
    ------
    ValueError
        where the data has a class that the model does not know
    """
    classifier = Classifier.load(folder)
    unknown = [name for name in data.names if name not in classifier.names]
    if unknown:
        known = ", ".join(classifier.names)
        raise ValueError(f"{folder}: a model of the classes {known}: it does not know {', '.join(unknown)}")
    test = data if whole else data.split()[1]
    labels = np.array([classifier.names.index(name) for name in data.names])[test.labels]
    with Workers(os.cpu_count() if threads is None else threads) as workers:
        predicted = classifier.predict(test.images, workers)
    confusion = np.zeros((len(classifier.names),) * 2, np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    accuracy = float(np.mean(labels == predicted))
    return {"accuracy": accuracy, "confusion": confusion, "names": classifier.names, "pictures": len(labels)}
