"""Training a classifier: what it learns from, what it keeps, how it goes on, and what it may start from."""
import json
import signal
from dataclasses import replace

import numpy as np
import pytest

from tinymae import tree
from tinymae.images.labelled import Labelled, load_labelled
from tinymae.images.pixels import MEAN, STD, to_pixels
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.models.patch_encoder import encoder_features
from tinymae.models.vit import ViTConfig, vit_backward, vit_forward, vit_init, vit_logits, vit_positions
from tinymae.tasks import classify
from tinymae.tasks.classify import (
    Classifier,
    ClassifierSettings,
    classifier_settings,
    evaluate_classifier,
    image_batches,
    train_vit,
    vit_from,
    vit_gradient,
)
from tinymae.tasks.encoders import load_encoder
from tinymae.train import checkpoint
from tinymae.train.loop import endless
from tinymae.train.parallel import Workers
from tinymae.weights.export import export_mae
from tinymae.weights.pth import write_pth
from tinymae.weights.read import read_weights

SIZES = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "pool": "mean", "position_encoding": "fixed"}
QUICK = ClassifierSettings(SIZES, 1e-2, batch=10, micro_batch=4, shift=1)
MAE = MAEConfig(8, 4, 1, 16, 2, 2, 8, 1, 2, eps=1e-5)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def small(count=50, side=8, channels=1, classes=3, seed=0):
    """Pictures of nothing, with labels."""
    return Labelled(numbers(count, side, side, channels, seed=seed), np.arange(count) % classes, tuple("abcdef"[:classes]))


def quick(data, out, settings=QUICK, **options):
    return train_vit(data, out, settings, **{"steps": 6, "threads": 1, "bar": False, "say": lambda line: None, **options})


def model(folder):
    """Everything in the file but the time it took."""
    with np.load(folder / "vit.npz") as file:
        found = dict(file)
    meta = json.loads(str(found.pop("meta")))
    assert meta["extra"].pop("seconds") > 0
    return found, meta


def assert_same_model(a, b):
    (ours, meta), (theirs, expected) = model(a), model(b)
    assert ours.keys() == theirs.keys() and meta == expected
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.fixture
def mae_folder(tmp_path):
    folder = tmp_path / "mae"
    checkpoint.save(folder / "mae.npz", "mae", MAE, mae_init(MAE, np.random.default_rng(5)))
    return folder


# Learning


def test_learns_digits(tmp_path):
    data = load_labelled("digits")
    lines = []
    settings = replace(classifier_settings(data), lr=3e-3, batch=32, mixup=0, config=SIZES | {"embed_dim": 32})
    run = train_vit(data, tmp_path, settings, steps=200, bar=False, say=lines.append)
    report = evaluate_classifier(tmp_path, data)
    assert report["accuracy"] > 0.5 and report["pictures"] == 360
    assert run.evaluations[-1] == (200, report["accuracy"]) and len(run.evaluations) == 20
    assert lines[-1] == f"step 200: accuracy on 360 validation images {report['accuracy']:.2%}"
    assert sum(run.losses[-20:]) < 0.7 * sum(run.losses[:20])


def test_default_settings():
    grey, colour = classifier_settings(small()), classifier_settings(small(side=32, channels=3))
    assert grey.flip is False and colour.flip is True           # a mirrored digit is another sign
    assert (grey.shift, colour.shift) == (1, 4)
    assert [classifier_settings(small(side=side)).config["patch_size"] for side in (8, 28, 10)] == [4, 7, 5]
    assert "patch_size" not in colour.config                    # that of `model_size`, as a masked autoencoder has it
    assert grey.layer_decay == 1 and classifier_settings(small(), fine_tune=True).layer_decay == 0.75


def test_what_is_kept(tmp_path):
    data = small(channels=3, side=12)
    quick(data, tmp_path, ClassifierSettings(SIZES, 1e-2, batch=10), seed=3)
    saved = checkpoint.load(tmp_path / "vit.npz", "vit", ViTConfig, vit_init)
    assert saved.config == ViTConfig(12, in_chans=3, num_classes=3, **SIZES)
    assert saved.extra["names"] == ["a", "b", "c"] and saved.extra["options"]["seed"] == 3
    assert (saved.extra["mean"], saved.extra["std"]) == (MEAN, STD)
    assert saved.moments["t"] == saved.step == 6 and len(saved.extra["losses"]) == 6
    classifier = Classifier.load(tmp_path)
    assert classifier.names == ("a", "b", "c") and classifier.config == saved.config
    np.testing.assert_array_equal(
        classifier.logits(data.images), vit_logits(to_pixels(data.images), saved.params, saved.config)
    )
    with Workers(2) as workers:
        np.testing.assert_allclose(
            classifier.logits(data.images, workers), classifier.logits(data.images), rtol=1e-4, atol=1e-5
        )
    assert classifier.predict(numbers(2, 30, 40, 1)).shape == (2,)              # of another size, and grey


def test_the_last_fifth_is_not_learned_from(tmp_path):
    data = small()
    other = replace(data, images=np.concatenate([data.images[:40], numbers(10, 8, 8, 1, seed=9)]))
    runs = [quick(it, tmp_path / str(i)) for i, it in enumerate((data, other, small(seed=1)))]
    assert runs[0].losses == runs[1].losses != runs[2].losses


def test_epochs(tmp_path):
    run = quick(small(), tmp_path, steps=None, epochs=3)        # 40 pictures, 10 in a batch
    assert run.step == 12 and [step for step, _ in run.evaluations] == [4, 8, 12]


def test_batches():
    batches = image_batches(23, 5, 0, 0)
    assert [len(batch) for batch in batches] == [5] * 4 and len(set(np.concatenate(batches).tolist())) == 20
    assert sorted(np.concatenate(image_batches(3, 5, 0, 0)).tolist()) == [0, 1, 2]          # fewer than a batch
    forever = endless(lambda epoch: image_batches(23, 5, 0, epoch))
    eight = [next(forever) for _ in range(8)]
    np.testing.assert_array_equal(eight, np.concatenate([image_batches(23, 5, 0, epoch) for epoch in (0, 1)]))
    assert (np.concatenate(eight[:4]) != np.concatenate(eight[4:])).any()
    assert (image_batches(23, 5, 1, 0)[0] != batches[0]).any()


def test_gradient_is_that_of_the_batch():
    config = ViTConfig(8, in_chans=1, num_classes=3, **SIZES)
    data, rng = small(10), np.random.default_rng(0)
    params = vit_init(config, rng)
    settings = ClassifierSettings({}, 1e-3, micro_batch=4, mixup=0, label_smoothing=0.1)
    chosen = np.array([7, 3, 1, 0, 9])
    with Workers(1) as workers:
        loss, dparams = vit_gradient(
            config, lambda indices: to_pixels(data.images[indices]), data.labels, settings, workers
        )(params, rng, chosen)
    expected, cache = vit_forward(to_pixels(data.images[chosen]), data.labels[chosen], params, config, label_smoothing=0.1)
    assert loss == pytest.approx(float(expected), rel=1e-5)
    tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), dparams, vit_backward(1.0, cache))


def test_pictures_are_moved_flipped_and_mixed(monkeypatch):
    """Each setting reaches its function, and none is called where it is off."""
    called = []

    def crop_and_flip(images, rng, pad, flip):
        called.append((pad, flip))
        return images

    def mixup(images, labels, classes, rng, alpha):
        called.append((classes, alpha))
        return images, np.eye(classes, dtype=images.dtype)[labels]

    monkeypatch.setattr(classify, "crop_and_flip", crop_and_flip)
    monkeypatch.setattr(classify, "mixup", mixup)
    config = ViTConfig(8, in_chans=1, num_classes=3, **SIZES)
    data, params = small(10), vit_init(config, np.random.default_rng(0))
    for settings, expected in (
        (ClassifierSettings({}, 1e-3, shift=2, flip=True, mixup=0.4), [(2, True), (3, 0.4)]),
        (ClassifierSettings({}, 1e-3, shift=0, flip=True, mixup=0), [(0, True)]),
        (ClassifierSettings({}, 1e-3, shift=2, flip=False, mixup=0), [(2, False)]),
        (ClassifierSettings({}, 1e-3, shift=0, flip=False, mixup=0), []),
    ):
        called.clear()
        with Workers(1) as workers:
            vit_gradient(
                config, lambda indices: to_pixels(data.images[indices]), data.labels, settings, workers
            )(params, np.random.default_rng(0), np.arange(10))
        assert called == expected


# Going on


def interrupt(monkeypatch, step):
    """Somebody presses Ctrl-C, once, in a step (from 1) of the training that follows."""
    real, calls = classify.vit_gradient, []

    def vit_gradient(*arguments):
        gradient = real(*arguments)

        def interrupted(params, rng, chosen):
            calls.append(None)
            if len(calls) == step:
                signal.raise_signal(signal.SIGINT)
            return gradient(params, rng, chosen)

        return interrupted

    monkeypatch.setattr(classify, "vit_gradient", vit_gradient)


@pytest.mark.parametrize("options", [{}, {"steps": None, "epochs": 2}])
def test_interrupted_and_resumed_is_the_same_to_the_last_bit(tmp_path, monkeypatch, options):
    data = small()
    quick(data, tmp_path / "whole", **options)
    interrupt(monkeypatch, 3)
    run = quick(data, tmp_path / "parts", **options)
    assert run.interrupted and run.step == 3
    run = quick(data, tmp_path / "parts", resume=True, threads=2, **options)
    assert not run.interrupted and run.step == (8 if options else 6)
    (ours, meta), (theirs, expected) = model(tmp_path / "parts"), model(tmp_path / "whole")
    assert meta["extra"].pop("evaluations")[-1] == expected["extra"].pop("evaluations")[-1]  # one more, at the interruption
    assert meta == expected
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_any_number_of_threads_gives_the_same_model(tmp_path):
    for threads in (1, 2, 3):
        quick(small(), tmp_path / str(threads), threads=threads)
    assert_same_model(tmp_path / "1", tmp_path / "2")
    assert_same_model(tmp_path / "1", tmp_path / "3")


def test_resumed_without_settings_goes_on_with_its_own(tmp_path):
    quick(small(), tmp_path / "a", steps=6)
    quick(small(), tmp_path / "b", steps=3)
    quick(small(), tmp_path / "b", settings=None, steps=6, resume=True)
    assert model(tmp_path / "b")[1]["extra"]["options"] == model(tmp_path / "a")[1]["extra"]["options"]
    assert model(tmp_path / "b")[1]["step"] == 6


@pytest.mark.parametrize(("data", "options", "message"), [
    (small(), {"seed": 1}, r"other options: resume with the same ones\n    seed: 0, now 1$"),
    (small(), {"settings": replace(QUICK, lr=1.0)}, r"ones\n    lr: 0.01, now 1.0$"),
    (small(60), {}, r"ones\n    data: 50 images \(fingerprint \w{16}\), now 60 images \(fingerprint \w{16}\)$"),
    (small(seed=1), {}, r"ones\n    data: 50 images \(fingerprint \w{16}\), now 50 images \(fingerprint \w{16}\)$"),
    (small(classes=4), {}, "data: "),
    (replace(small(), names=("a", "b", "d")), {}, "data: "),
    (small(), {"settings": replace(QUICK, config=SIZES | {"dropout": 0.1})}, r"ones\n    dropout: not given, now 0.1$"),
])
def test_resumed_with_something_else(tmp_path, data, options, message):
    quick(small(), tmp_path)
    with pytest.raises(ValueError, match=message):
        quick(data, tmp_path, resume=True, **options)


@pytest.mark.parametrize(("options", "message"), [
    ({"steps": None}, "one of steps, minutes and epochs, positive, got steps=None, minutes=None, epochs=None"),
    ({"epochs": 2}, "got steps=6, minutes=None, epochs=2"),
    ({"steps": None, "epochs": 0}, "positive, got steps=None, minutes=None, epochs=0"),
])
def test_bad_lengths(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        quick(small(), tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_resume(tmp_path, mae_folder):
    with pytest.raises(FileNotFoundError, match=r"vit\.npz: no such checkpoint"):
        quick(small(), tmp_path, resume=True)
    classifier = ViTConfig(8, in_chans=1, num_classes=3, **SIZES)
    checkpoint.save(tmp_path / "vit.npz", "vit", classifier, vit_init(classifier, None))
    with pytest.raises(ValueError, match="lacks the names of its classes"):
        Classifier.load(tmp_path)


# Fine-tuning


def test_from_a_masked_autoencoder(tmp_path, mae_folder):
    encoder = load_encoder(mae_folder)
    config, params = vit_from(encoder, 3, np.random.default_rng(0))
    assert config == ViTConfig(8, 4, 1, 3, 16, 2, 2, pool="mean", position_encoding="fixed", eps=1e-5)
    assert "norm" not in params["encoder"] and set(params) == {"encoder", "fc_norm", "head"}
    images = to_pixels(numbers(2, 8, 8, 1))
    shared = {name: branch for name, branch in encoder.params["encoder"].items() if name != "norm"}
    expected = encoder_features(images, shared, MAE.position_tables()[0], heads=2, patch_size=4)
    positions = vit_positions(params, config)
    features = encoder_features(images, params["encoder"], positions, heads=2, patch_size=4)
    np.testing.assert_array_equal(features, expected)
    for (name, ours), (_, theirs) in zip(tree.leaves(params["encoder"]), tree.leaves(shared), strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
        assert not np.shares_memory(ours, theirs)
    config, params = vit_from(encoder, 3, np.random.default_rng(0), {"pool": "token", "dropout": 0.1})
    assert (config.pool, config.dropout) == ("token", 0.1)
    np.testing.assert_array_equal(params["encoder"]["norm"]["gamma"], encoder.params["encoder"]["norm"]["gamma"])


def test_fine_tuning_moves_the_bottom_least(tmp_path, mae_folder):
    before = load_encoder(mae_folder).params["encoder"]
    settings = replace(classifier_settings(small(), fine_tune=True), layer_decay=0.01, weight_decay=0.0, batch=10)
    quick(small(), tmp_path, settings, from_folder=mae_folder)
    after = Classifier.load(tmp_path).params["encoder"]
    moved = [np.abs(after["patch_embed"]["w"] - before["patch_embed"]["w"]).max()]
    for a, b in zip(after["blocks"], before["blocks"], strict=True):
        moved.append(np.abs(a["ffn"]["fc1"]["w"] - b["ffn"]["fc1"]["w"]).max())
    assert 0 < 30 * moved[0] < moved[1] and 30 * moved[1] < moved[2]
    quick(small(), tmp_path, None, resume=True)                 # it knows what it started from
    with pytest.raises(ValueError, match=r"ones\n    from: mae encoder \(fingerprint \w{16}\), now vit encoder \("):
        quick(small(), tmp_path, None, resume=True, from_folder=tmp_path)


@pytest.mark.parametrize("positions", ["learned", "fixed"])
def test_from_a_classifier_of_other_classes(tmp_path, positions):
    quick(small(), tmp_path / "a", replace(QUICK, config=SIZES | {"position_encoding": positions}))
    config, params = vit_from(load_encoder(tmp_path / "a"), 5, np.random.default_rng(0))
    assert config.num_classes == 5 and params["head"]["w"].shape == (16, 5)
    old = Classifier.load(tmp_path / "a")
    for name in ("encoder", "positions") if positions == "learned" else ("encoder",):
        tree.map(np.testing.assert_array_equal, params[name], old.params[name])
    run = quick(small(classes=5), tmp_path / "b", settings=None, from_folder=tmp_path / "a" / "vit.npz")
    assert run.step == 6 and Classifier.load(tmp_path / "b").names == tuple("abcde")


def test_pictures_of_another_size_are_scaled_to_the_encoder(tmp_path, mae_folder):
    data = small(side=20, channels=3)
    quick(data, tmp_path, None, from_folder=mae_folder)
    assert Classifier.load(tmp_path).config.img_size == 8
    assert evaluate_classifier(tmp_path, data)["pictures"] == 10


def test_from_published_weights_that_do_not_say_their_heads(tmp_path, mae_folder):
    encoder = load_encoder(mae_folder)
    write_pth(tmp_path / "mae.pth", read_weights(export_mae(tmp_path / "a.pth", encoder.config, encoder.params)).tensors)
    with pytest.raises(ValueError, match="the number of heads is not in the file: give heads"):
        quick(small(channels=MAE.in_chans), tmp_path / "vit", None, from_folder=tmp_path / "mae.pth")
    settings = ClassifierSettings({"num_heads": MAE.num_heads}, 1e-3, batch=10)
    with pytest.raises(ValueError, match=r"pixels of 1 channels, got \(0.485, .* write image_mean and image_std into a prepro"):
        quick(small(channels=MAE.in_chans), tmp_path / "vit", settings, from_folder=tmp_path / "mae.pth")
    said = {"do_resize": False, "image_mean": 0.5, "image_std": 0.25}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said), "utf-8")
    run = quick(small(channels=MAE.in_chans), tmp_path / "vit", settings, from_folder=tmp_path / "mae.pth")
    assert run.step == 6 and Classifier.load(tmp_path / "vit").config.num_heads == MAE.num_heads
    with pytest.raises(ValueError, match=r"has 2 heads, got heads=4: leave the number out"):
        load_encoder(mae_folder, heads=4)


def test_settings_that_do_not_fit_the_encoder(tmp_path, mae_folder):
    with pytest.raises(ValueError, match=r"settings that fit the trained encoder.*leave its sizes out"):
        quick(small(), tmp_path, from_folder=mae_folder)


# Evaluation


def test_evaluate_counts(tmp_path):
    data = small(classes=3)
    quick(data, tmp_path)
    report, classifier = evaluate_classifier(tmp_path, data, threads=1), Classifier.load(tmp_path)
    predicted, labels = classifier.predict(data.images[40:]), data.labels[40:]
    expected = [[int(np.sum((labels == i) & (predicted == j))) for j in range(3)] for i in range(3)]
    assert report["confusion"].tolist() == expected
    assert report["accuracy"] == np.mean(labels == predicted) == np.trace(report["confusion"]) / 10
    assert report["names"] == ("a", "b", "c") and report["pictures"] == 10
    assert evaluate_classifier(tmp_path, data, whole=True)["confusion"].sum() == 50


def test_evaluate_finds_classes_by_name(tmp_path):
    data = small(classes=3)
    quick(data, tmp_path)
    some = np.flatnonzero(data.labels != 1)                     # without "b", so that "c" is number 1
    fewer = Labelled(data.images[some], (data.labels[some] == 2).astype(np.int64), ("a", "c"))
    report = evaluate_classifier(tmp_path, fewer, whole=True)
    whole = evaluate_classifier(tmp_path, data, whole=True)["confusion"]
    assert report["confusion"][[0, 2]].tolist() == whole[[0, 2]].tolist() and report["confusion"][1].sum() == 0
    with pytest.raises(ValueError, match="expected the model's classes a, b, c, got d"):
        evaluate_classifier(tmp_path, small(classes=4))
