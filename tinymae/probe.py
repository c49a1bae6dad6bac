"""What has an encoder learned? Its features, frozen, in front of classifiers that learn little themselves.

    pictures, nothing hidden -> encoder -> class token and mean of the patches -> standardise -> logistic regression
                                                                                             -> nearest neighbours

He et al. 2021, section 4.3 ("linear probing"). The same classifiers see the raw pixels, too: features that are worth having
beat them, most clearly where there are few labels.

Differs: the paper trains its linear layer by gradient descent on augmented pictures, behind a batch norm; here scikit-learn
finds the optimum of a regularised one on the pictures as they are, and class token and mean of patches stand side by side.
"""
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from tinymae import checkpoint, pretrained
from tinymae.images.labelled import fit_pictures
from tinymae.images.pixels import MEAN, STD, to_pixels
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.models.patch_encoder import encoder_features
from tinymae.models.vit import ViTConfig, vit_init, vit_positions

NEIGHBOURS = 5
DRAWS = 10                      # of few labels: which ones they are matters


class Encoder(NamedTuple):
    """A trained model whose encoder is used."""

    model: str                  # "mae" or "vit"
    config: object              # MAEConfig or ViTConfig
    params: dict                # of the whole model
    mean: object = MEAN         # of the pixels it was trained on, and their deviation, see `images.pixels.to_pixels`
    std: object = STD

    def features(self, pictures, rows=256):
        """Features (N, 2 D), float32, of uint8 pictures (N, rows, cols, C) of any size; `rows` at a time."""
        pictures = fit_pictures(pictures, self.config.img_size, self.config.in_chans)
        mean, std = (np.asarray(value, np.float32) for value in (self.mean, self.std))
        parts = (to_pixels(pictures[start : start + rows], mean=mean, std=std) for start in range(0, len(pictures), rows))
        return np.concatenate([features(part, self.params, self.config) for part in parts])


def load_encoder(folder):
    """The encoder that a training run left in a folder, or of a published model.

    Parameters
    ----------
    folder : str or Path, a folder with mae.npz or vit.npz, or one of these files; or what `pretrained.load_encoder` reads

    Returns
    -------
    Encoder

    Raises
    ------
    FileNotFoundError, ValueError
        as `checkpoint.load`; where the folder has neither model, or both
    """
    path = Path(folder)
    if path.suffix in (".pth", ".bin", ".safetensors") or (path / "config.json").is_file():
        config, params = pretrained.load_encoder(path)
        return Encoder("vit", config, params, *pretrained.normalisation(path))
    if path.is_dir():
        found = [file for file in (path / "mae.npz", path / "vit.npz") if file.is_file()]
        if len(found) != 1:
            have = "both" if found else "neither"
            raise ValueError(f"{folder}: expected a folder with mae.npz or vit.npz, it has {have}: give the file itself")
        path = found[0]
    model = "vit" if path.name == "vit.npz" else "mae"
    saved = checkpoint.load(path, model, *((ViTConfig, vit_init) if model == "vit" else (MAEConfig, mae_init)))
    return Encoder(model, saved.config, saved.params)


def features(images, params, config):
    """Features of pictures, nothing hidden.

    Parameters
    ----------
    images : ndarray of shape (B, img_size, img_size, C), float32 or float64, in the units of `images.pixels.to_pixels`
    params : tree of `models.mae.mae_init` or `models.vit.vit_init`, dtype of images
    config : MAEConfig or ViTConfig

    Returns
    -------
    ndarray of shape (B, 2 D): the class token, and the mean of the patches
    """
    if isinstance(config, MAEConfig):
        positions, _ = config.positions(images.dtype)
    else:
        positions = vit_positions(params, config, images.dtype)
    latent = encoder_features(images, params["encoder"], positions, config.num_heads, config.patch_size, config.eps)
    return np.concatenate([latent[:, 0], latent[:, 1:].mean(axis=1)], axis=1)


def accuracies(train, labels, test, test_labels):
    """The share of rows that each classifier names right.

    Parameters
    ----------
    train, test : ndarray of shape (N, features), standardised here by mean and deviation of `train`
    labels, test_labels : integer ndarray of shape (N,)

    Returns
    -------
    {"linear": float, of logistic regression; "knn": float, of the five nearest neighbours}
    """
    scaler = StandardScaler()
    train, test = scaler.fit_transform(train), scaler.transform(test)
    classifiers = {
        "linear": LogisticRegression(max_iter=2000),
        "knn": KNeighborsClassifier(min(NEIGHBOURS, len(train))),
    }
    return {name: float(it.fit(train, labels).score(test, test_labels)) for name, it in classifiers.items()}


def probe(folder, data, per_class=None, draws=DRAWS, seed=0):
    """How well simple classifiers do on an encoder's frozen features, and on the raw pixels.

    Parameters
    ----------
    folder : as `load_encoder`
    data : images.labelled.Labelled; its last fifth is for testing
    per_class : int, labels of each class to learn from; or None for all there are
    draws : int, how often `per_class` labels are drawn anew
    seed : int, of the draws

    Returns
    -------
    {"features": {"linear": float, "knn": float}, "pixels": likewise: mean accuracies over the draws,
     "deviations": {"features": {...}, "pixels": {...}}: how much they differ from draw to draw, 0 where all labels are used,
     "train", "test": int, pictures to learn from and to be judged by}

    Raises
    ------
    ValueError
        where a class has fewer than `per_class` pictures to learn from; as `load_encoder` and `fit_pictures`
    """
    encoder = load_encoder(folder)
    train, test = data.split()
    chosen = [np.arange(len(train.images))]
    if per_class is not None:
        chosen = [few_labels(train, per_class, np.random.default_rng([seed, draw])) for draw in range(draws)]
    needed, places = np.unique(np.concatenate(chosen), return_inverse=True)
    places, labels = places.reshape(len(chosen), -1), train.labels[needed]
    report, deviations = {}, {}
    for name, view in (("features", encoder.features), ("pixels", lambda images: images.reshape(len(images), -1) / 255.0)):
        known, unknown = view(train.images[needed]), view(test.images)
        found = [accuracies(known[place], labels[place], unknown, test.labels) for place in places]
        report[name] = {key: float(np.mean([it[key] for it in found])) for key in found[0]}
        deviations[name] = {key: float(np.std([it[key] for it in found])) for key in found[0]}
    return {**report, "deviations": deviations, "train": len(chosen[0]), "test": len(test.images)}


def few_labels(train, per_class, rng):
    """Indices of `per_class` pictures of each class of a Labelled, drawn at random."""
    counts = np.bincount(train.labels, minlength=len(train.names))
    if not 1 <= per_class <= counts.min():
        raise ValueError(
            f"expected per_class from 1 to {counts.min()}, as many as there are of class {train.names[counts.argmin()]!r}, got "
            f"{per_class}"
        )
    classes = range(len(train.names))
    return np.concatenate([rng.choice(np.flatnonzero(train.labels == c), per_class, replace=False) for c in classes])
