"""The models as scikit-learn estimators: fit, transform, predict, score, in pipelines and grid searches.

    make_pipeline(MaskedAutoencoder(), LogisticRegression())            a linear probe in one line

X is (samples, features), a flat square image in each row: (rows, cols, C) as `image.ravel()` orders them. A row that is no
square image is padded with average values to one. So you can train on any table of numbers; only images can be expected to give
much, because a model of patches relies on which numbers are neighbours.

All features are standardised by one mean and one standard deviation, those of the training data, as in
`images.pixels.to_pixels`. Training runs in float32; prediction in the type of X.
"""
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from tinymae import tree
from tinymae.images.fills import removed_pixels
from tinymae.models.fine_tuning import resize_mae
from tinymae.models.mae import MAEConfig, mae_decays, mae_init, mae_reconstruct
from tinymae.models.vit import ViTConfig, vit_init, vit_logits
from tinymae.ops.patches import image_sides
from tinymae.ops.softmax import softmax_forward
from tinymae.tasks.classify import ClassifierSettings, image_batches, vit_from, vit_gradient, vit_optimizer
from tinymae.tasks.encoders import Encoder, features
from tinymae.tasks.restore import check_hides, mae_gradient
from tinymae.train.loop import Run, cosine, endless, train
from tinymae.train.optim import AdamW
from tinymae.train.parallel import Workers, micro_batches
from tinymae.weights.shipped import read_model, shipped

TYPES = (np.float64, np.float32)
ROWS = 256                      # images at a time: memory


class Layout:
    """How a row of X becomes a picture, and comes back.

    Parameters
    ----------
    X : ndarray of shape (samples, features), the training data
    channels : int
    patch_size : int, or None for about eight patches along a side

    Attributes
    ----------
    features, channels : int
    side : of the image that a row is: the row is padded to side * side * channels numbers
    size, patch_size : of the model's image: the first multiple of patch_size, at least two patches along a side
    mean, scale : float, mean and standard deviation of all numbers of X, the latter 1 if they are all the same
    """

    def __init__(self, X: np.ndarray, channels: int, patch_size: int | None):
        if channels < 1 or (patch_size is not None and patch_size < 1):
            raise ValueError(f"expected channels and patch_size of at least 1, got {channels} and {patch_size}")
        self.features, self.channels = X.shape[1], channels
        self.side = math.ceil(math.sqrt(math.ceil(self.features / channels)))
        self.patch_size = patch_size or max(2, round(self.side / 8))
        self.size = self.patch_size * max(2, math.ceil(self.side / self.patch_size))
        self.mean, self.scale = float(X.mean(dtype=np.float64)), float(X.std(dtype=np.float64)) or 1.0

    def pictures(self, X: np.ndarray) -> np.ndarray:
        """X (B, features) -> pixels (B, size, size, channels), dtype of X: standardised, 0 in the padding."""
        rows = (X - X.dtype.type(self.mean)) / X.dtype.type(self.scale)
        rows = np.pad(rows, ((0, 0), (0, self.side**2 * self.channels - self.features)))
        pictures = rows.reshape(len(rows), self.side, self.side, self.channels)
        more = self.size - self.side
        return np.pad(pictures, ((0, 0), (0, more), (0, more), (0, 0)))

    def rows(self, pictures: np.ndarray) -> np.ndarray:
        """The inverse of `pictures`: pixels (B, size, size, channels) -> X (B, features)."""
        return self.cut(pictures) * pictures.dtype.type(self.scale) + pictures.dtype.type(self.mean)

    def cut(self, pictures: np.ndarray) -> np.ndarray:
        """What of (B, size, size, channels) stands for a feature: (B, features)."""
        return pictures[:, : self.side, : self.side].reshape(len(pictures), -1)[:, : self.features]


class MaskedAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Masked autoencoder (He et al. 2021) as a scikit-learn transformer: learns features from images without labels.

    Parameters
    ----------
    channels : int, C of the images in X
    patch_size : int, or None for about eight patches along a side
    mask_ratio : float, fraction of the patches that are hidden in training
    norm_pix_loss : bool, whether patches are predicted without their mean and contrast
    embed_dim, depth, num_heads, decoder_embed_dim, decoder_depth, decoder_num_heads : int, as `models.mae.MAEConfig`
    steps, batch_size : int, how long to train
    learning_rate : float, the highest one
    weight_decay : float
    random_state : int, RandomState or None
    n_jobs : int, threads; -1 for one for each core. The result does not depend on it
    verbose : bool, show progress
    pretrained : bool, whether to start from the model that comes with the package instead of random parameters, and train it
        further for `steps`, which may be 0. It is a model of colour images (channels=3) and of patches of 6 x 6 pixels: other
        images are refused, and so are other sizes of the model than the defaults

    Attributes
    ----------
    config_ : MAEConfig
    params_ : tree of `models.mae.mae_init`, float32
    layout_ : Layout, how rows become images
    losses_ : list of float, one for each step
    n_features_in_ : int
    """

    def __init__(
        self, channels=1, patch_size=None, mask_ratio=0.75, norm_pix_loss=False, embed_dim=128, depth=4, num_heads=4,
        decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=4, steps=2000, batch_size=32, learning_rate=2e-3,
        weight_decay=0.05, random_state=None, n_jobs=-1, verbose=False, pretrained=False,
    ):
        self.channels = channels
        self.patch_size = patch_size
        self.mask_ratio = mask_ratio
        self.norm_pix_loss = norm_pix_loss
        self.embed_dim = embed_dim
        self.depth = depth
        self.num_heads = num_heads
        self.decoder_embed_dim = decoder_embed_dim
        self.decoder_depth = decoder_depth
        self.decoder_num_heads = decoder_num_heads
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.pretrained = pretrained

    def fit(self, X: ArrayLike, y: object = None) -> "MaskedAutoencoder":
        """Train on X (samples, features); y is ignored. Returns self."""
        X = validate_data(self, X, dtype=TYPES)
        rng = generator(self.random_state)
        if self.pretrained:
            ready, params = shipped_mae()
            self.layout_ = Layout(X, self.channels, self.patch_size or ready.patch_size)
            check_pretrained(self, ready)
            config = replace(ready, mask_ratio=self.mask_ratio, norm_pix_loss=self.norm_pix_loss)
            size = self.layout_.size                            # smaller: a part of the positions, larger: interpolated
            self.config_ = replace(config, img_size=size) if size <= ready.img_size else resize_mae(config, size)
        else:
            self.layout_ = Layout(X, self.channels, self.patch_size)
            self.config_ = MAEConfig(
                self.layout_.size, self.layout_.patch_size, self.channels, self.embed_dim, self.depth, self.num_heads,
                self.decoder_embed_dim, self.decoder_depth, self.decoder_num_heads, mask_ratio=self.mask_ratio,
                norm_pix_loss=self.norm_pix_loss,
            )
            params = mae_init(self.config_, rng)
        check_hides(self.config_)
        pictures = self.layout_.pictures(X).astype(np.float32)
        optimizer = AdamW(params, betas=(0.9, 0.95), weight_decay=self.weight_decay, decays=mae_decays(params))
        with Workers(threads(self.n_jobs)) as workers:
            gradient = mae_gradient(
                self.config_, lambda rng, count: pictures[rng.integers(len(pictures), size=count)], self.batch_size, 16, workers
            )
            run = Run(params, optimizer, rng)
            if self.steps or not self.pretrained:
                run = fitted(run, gradient, self.learning_rate, self.batch_size, self.steps, verbose=self.verbose)
        self.params_, self.losses_ = run.params, run.losses
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Features of X: (samples, 2 embed_dim), the class token and the mean of the patches, nothing hidden."""
        X, params = validated(self, X)
        return by_rows(lambda part: features(self.layout_.pictures(part), params, self.config_), X)

    def reconstruct(self, X: ArrayLike, mask_ratio: float | None = None, seed: int = 0) -> np.ndarray:
        """Hide patches of X and restore them.

        Parameters
        ----------
        X : array of shape (samples, features)
        mask_ratio : float, or None for the one of training
        seed : int, which patches are hidden

        Returns
        -------
        ndarray of shape (samples, features), in the units of X: restored where it was hidden, unchanged elsewhere
        """
        X, params = validated(self, X)
        config = self.config_ if mask_ratio is None else replace(self.config_, mask_ratio=mask_ratio)
        restored, hidden = self._restored(X, params, config, seed)
        return np.where(hidden, self.layout_.rows(restored), X)

    def score(self, X: ArrayLike, y: object = None) -> float:
        """The fraction of the variance of hidden features that is restored: 1 all of it, 0 as by their mean; y is ignored.

        The same patches are hidden every time.
        """
        X, params = validated(self, X)
        restored, hidden = self._restored(X, params, self.config_, seed=1)
        true = X[hidden]
        error, variance = np.mean((self.layout_.rows(restored)[hidden] - true) ** 2), np.var(true)
        return float(1 - error / variance) if variance > 0 else 0.0

    def _restored(self, X, params, config, seed):
        """Images (B, size, size, C) as the model restores them; and bool (B, features), which features of X were hidden."""
        noise = np.random.default_rng(seed).random((len(X), config.num_patches))
        parts = micro_batches(len(X), ROWS)
        shown = [mae_reconstruct(self.layout_.pictures(X[part]), params, config, noise[part]) for part in parts]
        mask = np.concatenate([it.mask for it in shown])
        hidden = removed_pixels(mask, *image_sides(config.img_size), config.patch_size)[..., None]
        hidden = np.repeat(hidden, config.in_chans, axis=3)
        return np.concatenate([it.pasted for it in shown]), self.layout_.cut(hidden)

    @property
    def _n_features_out(self):
        return 2 * self.config_.embed_dim

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class VisionTransformerClassifier(ClassifierMixin, BaseEstimator):
    """Vision Transformer (Dosovitskiy et al. 2020) as a scikit-learn classifier.

    Parameters
    ----------
    channels, patch_size : as `MaskedAutoencoder`
    embed_dim, depth, num_heads, pool, position_encoding, dropout : as `models.vit.ViTConfig`
    steps, batch_size : int, how long to train
    learning_rate : float, the highest one
    weight_decay, label_smoothing, mixup, shift, flip : as `tasks.classify.ClassifierSettings`. The last three change the
        images, and are off by default: not every table of numbers may be moved or mirrored
    random_state, n_jobs, verbose : as `MaskedAutoencoder`
    pretrained : bool, whether to start from the encoder of the model that comes with the package, as `MaskedAutoencoder`

    Attributes
    ----------
    classes_ : ndarray of the labels, sorted
    config_ : ViTConfig
    params_ : tree of `models.vit.vit_init`, float32
    layout_ : Layout, how rows become images
    losses_ : list of float, one for each step
    n_features_in_ : int
    """

    def __init__(
        self, channels=1, patch_size=None, embed_dim=128, depth=4, num_heads=4, pool="mean", position_encoding="fixed",
        dropout=0.0,
        steps=1000, batch_size=64, learning_rate=1e-3, weight_decay=0.05, label_smoothing=0.1, mixup=0.0, shift=0, flip=False,
        random_state=None, n_jobs=-1, verbose=False, pretrained=False,
    ):
        self.channels = channels
        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.depth = depth
        self.num_heads = num_heads
        self.pool = pool
        self.position_encoding = position_encoding
        self.dropout = dropout
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.shift = shift
        self.flip = flip
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.pretrained = pretrained

    def fit(self, X: ArrayLike, y: ArrayLike) -> "VisionTransformerClassifier":
        """Train on X (samples, features) and its labels y (samples,). Returns self."""
        X, y = validate_data(self, X, y, dtype=TYPES)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"expected at least two classes, got one class: {self.classes_[0]!r}")
        rng = generator(self.random_state)
        if self.pretrained:
            ready, encoder = shipped_mae()
            self.layout_ = Layout(X, self.channels, self.patch_size or ready.patch_size)
            check_pretrained(self, ready)
            changes = {"pool": self.pool, "dropout": self.dropout, "img_size": self.layout_.size}
            self.config_, params = vit_from(Encoder("mae", ready, encoder), len(self.classes_), rng, changes)
        else:
            self.layout_ = Layout(X, self.channels, self.patch_size)
            self.config_ = ViTConfig(
                self.layout_.size, self.layout_.patch_size, self.channels, len(self.classes_), self.embed_dim, self.depth,
                self.num_heads, pool=self.pool, position_encoding=self.position_encoding, dropout=self.dropout,
            )
            params = vit_init(self.config_, rng)
        settings = ClassifierSettings(
            {}, self.learning_rate, self.batch_size, weight_decay=self.weight_decay, label_smoothing=self.label_smoothing,
            mixup=self.mixup, shift=self.shift, flip=self.flip,
        )
        pictures = self.layout_.pictures(X).astype(np.float32)
        optimizer = vit_optimizer(params, self.config_, settings)
        seed = int(rng.integers(2**31))
        batches = endless(lambda epoch: image_batches(len(pictures), self.batch_size, seed, epoch))
        with Workers(threads(self.n_jobs)) as workers:
            gradient = vit_gradient(self.config_, lambda indices: pictures[indices], labels, settings, workers)
            run = fitted(
                Run(params, optimizer, rng), gradient, self.learning_rate, self.batch_size, self.steps, verbose=self.verbose,
                batches=batches,
            )
        self.params_, self.losses_ = run.params, run.losses
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Logits (samples, classes); with two classes their difference (samples,), above 0 for the second."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities (samples, classes), in the order of classes_."""
        return softmax_forward(self._logits(X))[0]

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The most probable label of each row of X."""
        best = self._logits(X).argmax(axis=1)
        return self.classes_[best]

    def _logits(self, X):
        X, params = validated(self, X)
        return by_rows(lambda part: vit_logits(self.layout_.pictures(part), params, self.config_), X)


def shipped_mae() -> tuple[MAEConfig, dict]:
    """The masked autoencoder that comes with the package: its config and its parameters, fresh."""
    config, params, _ = read_model(shipped("mae"), "mae")
    return config, params


def check_pretrained(estimator: BaseEstimator, config: MAEConfig) -> None:
    """Raise a ValueError that says why a pretrained model of this config does not fit an estimator and its images."""
    layout, asked = estimator.layout_, estimator.get_params()
    names = [name for name in ("embed_dim", "depth", "num_heads", "decoder_embed_dim", "decoder_depth", "decoder_num_heads")
             if asked.get(name, getattr(config, name)) != getattr(config, name)]
    if names:
        raise ValueError(f"pretrained: expected {names[0]}={getattr(config, names[0])}, that of the model in the package, got "
                         f"{asked[names[0]]}")
    if layout.channels != config.in_chans or layout.patch_size != config.patch_size:
        raise ValueError(f"pretrained: expected channels={config.in_chans} and patch_size={config.patch_size}, those of the "
                         f"model, got {layout.channels} and {layout.patch_size}: repeat the numbers of grey images three times")
    if layout.size != layout.side or layout.side**2 * layout.channels != layout.features:
        raise ValueError(f"pretrained: expected square images with a side that is a multiple of {config.patch_size} and at "
                         f"least {2 * config.patch_size}, got {layout.features} features: resize the images first")


def generator(random_state: int | np.random.RandomState | None) -> np.random.Generator:
    """numpy.random.Generator from scikit-learn's random_state: int, RandomState, or None for different numbers every time."""
    return np.random.default_rng(check_random_state(random_state).randint(2**31))


def validated(estimator: BaseEstimator, X: ArrayLike) -> tuple[np.ndarray, dict]:
    """(X, params) of a fitted estimator: X as an array that fits what it was trained on, params in its type."""
    check_is_fitted(estimator)
    X = validate_data(estimator, X, dtype=TYPES, reset=False)
    return X, tree.map(lambda leaf: leaf.astype(X.dtype, copy=False), estimator.params_)


def by_rows(function: Callable[[np.ndarray], np.ndarray], X: np.ndarray) -> np.ndarray:
    """function(X), a few rows at a time."""
    return np.concatenate([function(X[part]) for part in micro_batches(len(X), ROWS)])


def threads(n_jobs: int | None) -> int:
    """Threads as scikit-learn counts them: None is one, -1 one for each core, -2 one less."""
    if n_jobs == 0:
        raise ValueError("expected n_jobs of at least 1, or below 0 to count from the number of cores, got 0")
    return 1 if n_jobs is None else n_jobs if n_jobs > 0 else max(1, os.cpu_count() + 1 + n_jobs)


def fitted(
    run: Run, gradient: Callable, learning_rate: float, batch: int, steps: int, *, verbose: bool,
    batches: Iterator | None = None,
) -> Run:
    """The run after training. A Ctrl-C that ended it early is raised again: half a fit is none."""
    train(run, gradient, cosine(learning_rate), batch=batch, batches=batches, steps=steps, bar=verbose)
    if run.interrupted:
        raise KeyboardInterrupt
    return run
