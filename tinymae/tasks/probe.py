"""What has an encoder learned? Its features, frozen, in front of classifiers that learn little themselves.

    images, nothing hidden -> encoder -> class token and mean of the patches -> standardise -> logistic regression
                                                                                           -> nearest neighbours

He et al. 2021, section 4.3 ("linear probing"). The same classifiers are also trained on the raw pixels: useful features
beat them, most clearly if there are few labels.

Differs: the paper trains its linear layer by gradient descent on augmented images, after a batch norm; here scikit-learn
finds the optimum of a regularised one on the images as they are, and class token and mean of patches stand side by side.
"""
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from tinymae.images.labelled import Labelled
from tinymae.messages import message as _
from tinymae.tasks.encoders import load_encoder

NEIGHBOURS = 5
DRAWS = 10                      # of few labels: which ones they are matters


def accuracies(train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> dict[str, float]:
    """The accuracy of each classifier.

    Parameters
    ----------
    train, test : ndarray of shape (N, features), standardised here by mean and standard deviation of `train`
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


def probe(
    folder: Path | str, data: Labelled, *, per_class: int | None = None, draws: int = DRAWS, seed: int = 0,
    heads: int | None = None, img_size: int | tuple[int, int] | None = None, key: str | None = None,
) -> dict:
    """The accuracy of simple classifiers on an encoder's frozen features, and on the raw pixels.

    Parameters
    ----------
    folder : as `load_encoder`
    data : its last fifth is for testing
    per_class : labels of each class to train on; or None for all there are
    draws : how often `per_class` labels are drawn anew
    seed : of the draws
    heads, key : as `load_encoder`

    Returns
    -------
    {"features": {"linear": float, "knn": float}, "pixels": likewise: mean accuracies over the draws,
     "deviations": {"features": {...}, "pixels": {...}}: their standard deviations over the draws, 0 if all labels are used,
     "train", "test": int, how many images to train on and to test on}

    Raises
    ------
    ValueError
        if a class has fewer than `per_class` images to train on; as `load_encoder` and `fit_pictures`
    """
    encoder = load_encoder(folder, heads=heads, img_size=img_size, key=key)
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


def few_labels(train: Labelled, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of `per_class` images of each class, drawn at random."""
    counts = np.bincount(train.labels, minlength=len(train.names))
    if not 1 <= per_class <= counts.min():
        raise ValueError(_("expected per_class from 1 to {most}, as many as there are of class {name!r}, got {per_class}",
                           most=counts.min(), name=train.names[counts.argmin()], per_class=per_class))
    classes = range(len(train.names))
    return np.concatenate([rng.choice(np.flatnonzero(train.labels == c), per_class, replace=False) for c in classes])
