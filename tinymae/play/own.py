"""Models for the live page in the place of those that come with the package: what a folder or a file holds, its content says.

    transformer.npz, or a .safetensors file of `export --to tinymae`            a translator that was trained here
    config.json, weights, vocab.json, source.spm, target.spm                    a published translator, Marian's
    mae.npz, or a .safetensors file of `export --to tinymae`                    a masked autoencoder that was trained here
    a .pth file of the official code, or a Hugging Face folder                  a published masked autoencoder
"""
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinymae.messages import message as _
from tinymae.play.api import Models, shipped_models
from tinymae.play.translators import ShownTranslator, marian, ours
from tinymae.tasks.photograph import PhotoModel
from tinymae.tasks.reconstruct import own_model, published_model
from tinymae.tasks.translate import Translator
from tinymae.weights.inspect import inspect
from tinymae.weights.safetensors import read_safetensors
from tinymae.weights.shipped import is_model

TRAINED_HERE = ("transformer.npz", "mae.npz")


def chosen_models(paths: Iterable[Path | str]) -> Models:
    """The models at some paths, and those of the package for the rest.

    Parameters
    ----------
    paths : folders or files, at most one translator and one masked autoencoder

    Raises
    ------
    FileNotFoundError, ValueError
        if there is no such path, it holds neither, its model is damaged, or two of them are for the same tab
    """
    found = {}
    for path in map(Path, paths):
        model = model_at(path)
        tab = "translator" if isinstance(model, ShownTranslator) else "photos"
        if tab in found:
            raise ValueError(_("{first} and {second}: two models for one tab: expected at most one translator and one masked "
                               "autoencoder", first=found[tab][0], second=path))
        found[tab] = path, model
    return replace(shipped_models(), **{tab: model for tab, (_path, model) in found.items()})


def model_at(path: Path) -> ShownTranslator | PhotoModel:
    """The translator or masked autoencoder in a folder or file; errors as `chosen_models`."""
    if not path.exists():
        raise FileNotFoundError(_("{path}: no such folder or file: expected one with a translator or a masked autoencoder",
                                  path=path))
    if path.is_dir():
        trained = [name for name in TRAINED_HERE if (path / name).is_file()]
        if len(trained) == 2:
            raise ValueError(_("{path}: has a translator and a masked autoencoder: name the file, {path}/transformer.npz or "
                               "{path}/mae.npz", path=path))
        if trained:
            return model_at(path / trained[0])
        if not any(file.suffix in (".safetensors", ".bin") or file.name.endswith(".index.json") for file in path.iterdir()):
            raise FileNotFoundError(_(
                "{path}: expected a folder with transformer.npz or mae.npz, which a training run wrote, or with the weights of "
                "a published model, model.safetensors or pytorch_model.bin", path=path))
        return _published(path)
    if path.name == "transformer.npz":
        return ours(Translator.load(path.parent), path.absolute().parent.name)
    if path.suffix == ".npz":
        return own_model(path)
    if is_model(path):
        if read_safetensors(np.memmap(path, np.uint8, "r")).meta.get("model") == "transformer":
            return ours(Translator.load(path), path.name)
        return own_model(path)
    return _published(path)


def _published(path):
    """A model that others have published: the names of its tensors say which."""
    found = inspect(path)
    if found.kind == "marian":
        return marian(path if path.is_dir() else path.parent)
    if found.kind not in ("mae", "vit-mae"):
        raise ValueError(_("{path}: holds {what}: expected a translator, or a masked autoencoder with its decoder",
                           path=path, what=found.what))
    if found.asks:
        raise ValueError(_("{path}: does not say everything about its model, {options}: expected the folder of a Hugging Face "
                           "model, whose config.json does, or give it to `reconstruct --weights` with these options",
                           path=path, options=", ".join(found.asks)))
    return published_model(path)
