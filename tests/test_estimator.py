"""The scikit-learn estimators: all of scikit-learn's own checks, pipelines, pictures and what is no picture."""
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from tinymae import tree
from tinymae.estimator import Layout, MaskedAutoencoder, VisionTransformerClassifier, threads
from tinymae.models.mae import mae_reconstruct
from tinymae.tasks.encoders import features

TINY = {"embed_dim": 8, "depth": 1, "num_heads": 2, "n_jobs": 1, "random_state": 0}


def autoencoder(**options):
    decoder = {"decoder_embed_dim": 8, "decoder_depth": 1, "decoder_num_heads": 2}
    return MaskedAutoencoder(**{"steps": 3, **decoder, **TINY, **options})


def classifier(**options):
    return VisionTransformerClassifier(**{"steps": 30, "batch_size": 32, "learning_rate": 1e-2, **TINY, **options})


# No check is expected to fail. scikit-learn skips its one for other array types unless SCIPY_ARRAY_API is set.
@parametrize_with_checks([autoencoder(), classifier()])
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    """(X, y, X of other digits, their y)."""
    X, y = load_digits(return_X_y=True)
    return X[:600], y[:600], X[600:900], y[600:900]


@pytest.fixture(scope="module")
def fitted(digits):
    return autoencoder(steps=60, embed_dim=16).fit(digits[0])


def test_a_linear_probe_in_one_line(digits):
    X, y, other, answers = digits
    probe = make_pipeline(autoencoder(embed_dim=32, steps=30), LogisticRegression(max_iter=2000)).fit(X, y)
    assert probe.score(other, answers) > 0.3                    # guessing: 0.1


def test_classifier_learns_digits(digits):
    X, y, other, answers = digits
    names = np.array("zero one two three four five six seven eight nine".split())
    model = classifier(steps=150, patch_size=4, embed_dim=32, learning_rate=3e-3, mixup=0.2, shift=1).fit(X, names[y])
    assert model.score(other, names[answers]) > 0.5             # guessing: 0.1
    assert model.predict_proba(other).shape == model.decision_function(other).shape == (300, 10)
    assert set(model.predict(other)) <= set(names)


def test_grid_search_and_cross_validation(digits):
    X, y = digits[0][:60], digits[1][:60] % 2
    search = GridSearchCV(autoencoder(), {"mask_ratio": [0.5, 0.75]}, cv=2, error_score="raise").fit(X)
    assert search.best_params_["mask_ratio"] in (0.5, 0.75)
    assert cross_val_score(classifier(steps=5), X, y, cv=2, error_score="raise").shape == (2,)


# Rows and pictures


@pytest.mark.parametrize(("features", "channels", "patch_size", "side", "size", "patch"), [
    (64, 1, None, 8, 8, 2),                                     # digits
    (784, 1, None, 28, 28, 4),                                  # MNIST
    (3072, 3, None, 32, 32, 4),                                 # CIFAR-10
    (64, 1, 4, 8, 8, 4),
    (1, 1, None, 1, 4, 2),                                      # nothing is too small: at least 2 x 2 patches
    (10, 1, None, 4, 4, 2),                                     # no square: filled up
    (100, 1, 4, 10, 12, 4),                                     # a square that patches do not divide
    (10, 3, None, 2, 4, 2),
])
def test_layout(features, channels, patch_size, side, size, patch):
    X = np.random.default_rng(0).normal(3, 2, (5, features))
    layout = Layout(X, channels, patch_size)
    assert (layout.side, layout.size, layout.patch_size) == (side, size, patch)
    pictures = layout.pictures(X)
    assert pictures.shape == (5, size, size, channels)
    np.testing.assert_allclose(layout.rows(pictures), X, rtol=1e-12)
    expected = ((X - X.mean()) / X.std())
    assert pictures[0, 0, 0, 0] == pytest.approx(expected[0, 0])
    np.testing.assert_allclose(np.sort(pictures[pictures != 0]), np.sort(expected, axis=None), rtol=1e-12)    # and zeros
    if features == side * side * channels:
        np.testing.assert_allclose(pictures[:, :side, :side], expected.reshape(5, side, side, channels), rtol=1e-12)


def test_a_table_with_one_value_stays_finite():
    model = autoencoder().fit(np.full((4, 9), 7.0))
    assert model.layout_.scale == 1 and np.isfinite(model.transform(np.full((4, 9), 7.0))).all()
    assert model.score(np.full((4, 9), 7.0)) == 0


@pytest.mark.parametrize(("options", "message"), [
    ({"mask_ratio": 0.0}, "hides some of the 16 patches and shows some, got 0.0, which shows 16"),
    ({"mask_ratio": 0.99}, "which shows 0"),
    ({"mask_ratio": 1.0}, r"mask_ratio to be a number in \[0, 1\)"),
    ({"channels": 0}, "channels and patch_size of at least 1, got 0"),
    ({"patch_size": 0}, "got 1 and 0"),
    ({"embed_dim": 9}, "embed_dim to be a multiple of 4"),
    ({"n_jobs": 0}, "n_jobs of at least 1"),
    ({"steps": 0}, "one of steps, minutes and epochs, positive"),
])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        autoencoder(**options).fit(np.random.default_rng(0).normal(size=(4, 64)))


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="at least two classes, got one class"):
        classifier().fit(np.zeros((4, 9)), np.ones(4))


# Features, reconstruction, score


def test_transform_is_the_encoder(fitted, digits):
    X = digits[2][:300]
    pictures = fitted.layout_.pictures(X.astype(np.float32))
    np.testing.assert_array_equal(
        fitted.transform(X.astype(np.float32)),
        np.concatenate([features(part, fitted.params_, fitted.config_) for part in (pictures[:256], pictures[256:])]),
    )
    assert fitted.transform(X).dtype == np.float64 and fitted.transform(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(fitted.transform(X), fitted.transform(X.astype(np.float32)), atol=1e-4)
    assert list(fitted.get_feature_names_out()[[0, -1]]) == ["maskedautoencoder0", "maskedautoencoder31"]


def test_reconstruct_changes_hidden_features_only(fitted, digits):
    X, mean, scale = digits[2], digits[0].mean(), digits[0].std()
    restored = fitted.reconstruct(X)
    changed = (restored != X).reshape(-1, 4, 2, 4, 2).swapaxes(2, 3).reshape(len(X), 16, 4)
    assert (changed.all(axis=2).sum(axis=1) == 12).all()        # 12 of 16 patches, whole ones
    assert (changed.any(axis=2).sum(axis=1) == 12).all()
    noise = np.random.default_rng(0).random((len(X), 16))
    params = tree.map(lambda leaf: leaf.astype(np.float64), fitted.params_)
    expected = mae_reconstruct((X.reshape(-1, 8, 8, 1) - mean) / scale, params, fitted.config_, noise).pasted
    np.testing.assert_allclose(restored, expected.reshape(len(X), 64) * scale + mean, atol=1e-9)
    assert (fitted.reconstruct(X, mask_ratio=0.5) == X).mean() == pytest.approx(0.5)
    np.testing.assert_array_equal(fitted.reconstruct(X, mask_ratio=0.0), X)
    assert (fitted.reconstruct(X, seed=1) != restored).any()


def test_score_is_the_variance_explained(fitted, digits):
    X = digits[2]
    hidden = fitted.reconstruct(X, seed=1) != X                 # the masks of `score`
    errors, true = (fitted.reconstruct(X, seed=1) - X)[hidden], X[hidden]
    assert fitted.score(X) == pytest.approx(1 - np.mean(errors**2) / np.var(true), rel=1e-9)
    assert autoencoder(steps=1, embed_dim=16).fit(digits[0]).score(X) < 0.05 < 0.1 < fitted.score(X)


def test_the_same_seed_is_the_same_model(digits):
    X = digits[0][:50]
    first, other = autoencoder().fit(X), autoencoder(random_state=1).fit(X)
    again = clone(first).set_params(n_jobs=2).fit(X)            # for any number of threads
    np.testing.assert_array_equal(first.transform(X), again.transform(X))
    assert (first.transform(X) != other.transform(X)).all()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(first)).transform(X), first.transform(X))


def test_an_interrupted_fit_is_none(monkeypatch, digits):
    model = autoencoder()
    monkeypatch.setattr("tinymae.estimator.train", lambda run, *rest, **options: setattr(run, "interrupted", True))
    with pytest.raises(KeyboardInterrupt):
        model.fit(digits[0])
    assert not hasattr(model, "params_")


def test_threads(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert [threads(n) for n in (None, 1, 3, -1, -2, -9)] == [1, 1, 3, 4, 3, 1]


# The model that comes with the package


@pytest.fixture(scope="module")
def colours():
    """X (40, 24 x 24 x 3): ramps in random directions, as flat rows; y: whether they rise from left to right."""
    rng = np.random.default_rng(0)
    slope, at = rng.normal(size=(40, 3, 2)), np.linspace(-1, 1, 24)
    images = slope[:, None, None, :, 0] * at[:, None, None] + slope[:, None, None, :, 1] * at[:, None]
    return images.reshape(40, -1), (slope[..., 1].mean(axis=1) > 0).astype(int)


def test_a_pretrained_autoencoder_transforms_without_training_and_restores_better(colours):
    X, _ = colours
    ready = MaskedAutoencoder(channels=3, pretrained=True, steps=0, n_jobs=1, random_state=0).fit(X)
    assert ready.losses_ == [] and ready.transform(X).shape == (40, 2 * ready.config_.embed_dim)
    fresh = MaskedAutoencoder(channels=3, patch_size=6, steps=1, n_jobs=1, random_state=0).fit(X)
    assert ready.score(X) > 0.3 + max(fresh.score(X), 0)
    tuned = MaskedAutoencoder(channels=3, pretrained=True, steps=3, learning_rate=1e-4, n_jobs=1, random_state=0).fit(X)
    assert len(tuned.losses_) == 3 and tuned.losses_[0] < 0.5 * fresh.losses_[0]
    again = MaskedAutoencoder(channels=3, pretrained=True, steps=0, n_jobs=1).fit(X)           # training changed its own copy
    np.testing.assert_array_equal(again.transform(X), ready.transform(X))


def test_a_pretrained_classifier(colours):
    X, y = colours
    model = VisionTransformerClassifier(channels=3, pretrained=True, steps=30, batch_size=16, n_jobs=1, random_state=0)
    assert model.fit(X, y).score(X, y) > 0.8


@pytest.mark.parametrize(("options", "features", "reason"), [
    ({"channels": 1}, 24 * 24, "expected channels=3 and patch_size=6, .* got 1 and 6: repeat the numbers of grey"),
    ({"patch_size": 4}, 24 * 24 * 3, "got 3 and 4"), ({"depth": 2}, 24 * 24 * 3, "expected depth=4, .* got 2"),
    ({}, 20 * 20 * 3, "side that is a multiple of 6 and at least 12, got 1200 features: resize"),
    ({}, 6 * 6 * 3, "at least 12"), ({}, 24 * 24 * 3 - 1, "square images"),
])
def test_what_the_pretrained_model_is_not_for(options, features, reason):
    X, y = np.random.default_rng(0).random((10, features)), np.arange(10) % 2
    for estimator in (MaskedAutoencoder, VisionTransformerClassifier):
        with pytest.raises(ValueError, match=reason):
            estimator(**{"channels": 3, "pretrained": True, "n_jobs": 1} | options).fit(X, y)
