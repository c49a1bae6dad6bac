"""The probe: whose features, standardised by what, which labels, and the pixels beside them."""
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tinymae import tree
from tinymae.images.labelled import Labelled, load_labelled
from tinymae.images.pixels import to_pixels
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.models.patch_encoder import vit_encoder_forward
from tinymae.models.vit import ViTConfig, vit_init
from tinymae.ops.patches import patchify_forward
from tinymae.tasks.classify import vit_from
from tinymae.tasks.encoders import Encoder, features, load_encoder
from tinymae.tasks.probe import accuracies, few_labels, probe
from tinymae.train import checkpoint
from tinymae.weights.export import export_mae, export_vit_mae
from tinymae.weights.shipped import shipped

MAE = MAEConfig(8, 2, 1, 16, 2, 4, 8, 1, 2, eps=1e-3)
VIT = ViTConfig(8, 4, 1, 3, 16, 2, 4, pool="mean", eps=1e-3)


def perturbed(params, seed=0):
    """Params of a model whose layer norms do something."""
    rng = np.random.default_rng(seed)
    return tree.map(lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape).astype(leaf.dtype), params)


@pytest.fixture
def folder(tmp_path):
    """A folder with a masked autoencoder that knows nothing."""
    checkpoint.save(tmp_path / "mae.npz", "mae", MAE, perturbed(mae_init(MAE, np.random.default_rng(0))))
    return tmp_path


@pytest.fixture(scope="module")
def digits():
    data = load_labelled("digits")
    return Labelled(data.images[:500], data.labels[:500], data.names)


def test_features_of_a_masked_autoencoder(folder, digits):
    encoder = load_encoder(folder)
    assert encoder.model == "mae" and encoder.config == MAE
    patches, _ = patchify_forward(to_pixels(digits.images[:5]), 2)
    latent, _ = vit_encoder_forward(patches, encoder.params["encoder"], MAE.position_tables()[0], heads=4, eps=MAE.eps)
    expected = np.concatenate([latent[:, 0], latent[:, 1:].mean(axis=1)], axis=1)
    np.testing.assert_allclose(encoder.features(digits.images[:5]), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(encoder.features(digits.images[:5], rows=2), expected, rtol=1e-4, atol=1e-5)
    assert load_encoder(folder / "mae.npz").config == MAE


def test_the_encoder_in_the_package():
    """The file that comes with the package, or another of its kind, is a trained encoder like any folder."""
    encoder = load_encoder(shipped("mae"), img_size=30)
    assert encoder.model == "mae" and encoder.config.img_size == 30 and encoder.config.in_chans == 3
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    assert encoder.features(pictures).shape == (3, 2 * encoder.config.embed_dim)
    config, params = vit_from(encoder, 5, np.random.default_rng(0), {"pool": "token"})      # with the norm of the encoder
    assert config.num_classes == 5 and config.img_size == 30
    np.testing.assert_allclose(Encoder("vit", config, params).features(pictures), encoder.features(pictures), atol=1e-4)
    with pytest.raises(ValueError, match="has 4 heads, got heads=3"):
        load_encoder(shipped("mae"), heads=3)


def test_features_of_a_vision_transformer(tmp_path, digits):
    params = perturbed(vit_init(VIT, np.random.default_rng(0)))
    checkpoint.save(tmp_path / "vit.npz", "vit", VIT, params)
    encoder = load_encoder(tmp_path)
    assert encoder.model == "vit" and encoder.config == VIT
    patches, _ = patchify_forward(to_pixels(digits.images[:5]), 4)
    latent, _ = vit_encoder_forward(patches, params["encoder"], params["positions"], heads=4, eps=VIT.eps)
    expected = np.concatenate([latent[:, 0], latent[:, 1:].mean(axis=1)], axis=1)
    np.testing.assert_allclose(encoder.features(digits.images[:5]), expected, rtol=1e-4, atol=1e-5)


def test_features_keep_the_dtype():
    params = mae_init(MAE, np.random.default_rng(0), np.float64)
    assert features(np.zeros((2, 8, 8, 1)), params, MAE).dtype == np.float64


def test_pictures_of_another_size_and_colour(folder):
    colour = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
    assert load_encoder(folder).features(colour).shape == (3, 32)


def test_no_model_or_two(tmp_path, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"expected a folder with mae\.npz or vit.npz, it has neither"):
        load_encoder(empty)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load_encoder(tmp_path / "nowhere")
    checkpoint.save(folder / "vit.npz", "vit", VIT, vit_init(VIT, None))
    with pytest.raises(ValueError, match="it has both: give the file itself"):
        load_encoder(folder)
    assert load_encoder(folder / "vit.npz").model == "vit"


def test_accuracies_standardise_by_the_training_rows():
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(3, size=60), rng.integers(3, size=40)
    train, test = (np.eye(3)[it] + rng.normal(0, 0.4, (len(it), 3)) for it in (labels, answers))
    found = accuracies(train, labels, test, answers)
    mean, std = train.mean(axis=0), train.std(axis=0)
    expected = LogisticRegression(max_iter=2000).fit((train - mean) / std, labels).score((test - mean) / std, answers)
    assert found["linear"] == expected
    assert 0.5 < found["knn"] <= 1
    scale, shift = np.array([1e3, 1.0, 1e-3]), np.array([5.0, -100.0, 0.0])     # the units of a feature do not matter
    moved = accuracies(train * scale + shift, labels, test * scale + shift, answers)
    assert moved == found


def test_probe_uses_all_labels(folder, digits):
    report = probe(folder, digits)
    assert report["train"] == 400 and report["test"] == 100
    for view in ("features", "pixels"):
        assert report["deviations"][view] == {"linear": 0.0, "knn": 0.0}
        assert all(0.2 < accuracy <= 1 for accuracy in report[view].values()), view
    train, test = digits.split()
    rows = [part.images.reshape(len(part.images), 64) for part in (train, test)]
    assert report["pixels"] == accuracies(rows[0] / 255, train.labels, rows[1] / 255, test.labels)
    encoder = load_encoder(folder)
    rows = [encoder.features(part.images) for part in (train, test)]
    assert report["features"] == pytest.approx(accuracies(rows[0], train.labels, rows[1], test.labels), abs=0.011)


def test_probe_with_few_labels(folder, digits):
    report = probe(folder, digits, per_class=3, draws=4)
    assert report["train"] == 30 and report["test"] == 100
    assert report["deviations"]["pixels"]["linear"] > 0
    assert report["pixels"]["linear"] < probe(folder, digits)["pixels"]["linear"]
    assert probe(folder, digits, per_class=3, draws=4) == report
    assert probe(folder, digits, per_class=3, draws=4, seed=1) != report
    train, test = digits.split()
    found = []
    for draw in range(4):                                       # pixels and features see the same labels
        chosen = few_labels(train, 3, np.random.default_rng([0, draw]))
        rows = [it.reshape(len(it), 64) / 255 for it in (train.images[chosen], test.images)]
        found.append(accuracies(rows[0], train.labels[chosen], rows[1], test.labels)["linear"])
    assert report["pixels"]["linear"] == pytest.approx(np.mean(found), abs=0.003)


def test_few_labels(digits):
    chosen = few_labels(digits, 7, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 70
    assert np.bincount(digits.labels[chosen]).tolist() == [7] * 10
    most = np.bincount(digits.labels).min()
    assert len(few_labels(digits, most, np.random.default_rng(0))) == 10 * most
    for wrong in (0, most + 1):
        with pytest.raises(ValueError, match=f"per_class from 1 to {most}, as many as there are of class .*, got {wrong}"):
            few_labels(digits, wrong, np.random.default_rng(0))


def test_published_encoders(tmp_path):
    """A masked autoencoder that goes out and comes back as a file of others gives the same features, to a rounding."""
    config = MAEConfig(8, 2, 1, embed_dim=16, depth=1, num_heads=2, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2)
    params = mae_init(config, np.random.default_rng(0))
    checkpoint.save(tmp_path / "mae.npz", "mae", config, params)
    pictures = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    expected = load_encoder(tmp_path).features(pictures)
    for path in (export_mae(tmp_path / "mae.pth", config, params), export_vit_mae(tmp_path / "folder", config, params)):
        found = load_encoder(path)
        assert found.model == "vit" and found.config.position_encoding == "fixed"
        np.testing.assert_allclose(found.features(pictures), expected, rtol=1e-5, atol=1e-5)
        tuned, tuned_params = vit_from(found, 3, np.random.default_rng(2))
        assert tuned.num_classes == 3 and tuned_params["head"]["w"].shape == (16, 3)
