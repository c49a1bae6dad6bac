"""What the files beside published weights say about images: the numbers of transformers' processors, and what is refused."""
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinymae.__main__ import main
from tinymae.images.pixels import MEAN, STD, to_pixels
from tinymae.models.vit import ViTConfig, vit_init, vit_logits
from tinymae.tasks.classify import vit_from
from tinymae.tasks.encoders import load_encoder
from tinymae.weights.export import export_vit
from tinymae.weights.preparation import IMAGENET_MEAN, IMAGENET_STD, PREPROCESSOR, Preparation, preparation
from tinymae.weights.pth import write_pth
from tinymae.weights.read import read_weights

with np.load(Path(__file__).parent / "golden" / "preparation.npz") as file:
    GOLDEN = dict(file)
PROCESSORS = ["half", "bicubic", "bytes", "plain", "cut"]
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 8, "width": 12}}


@pytest.fixture
def folder(tmp_path):
    """A Hugging Face folder without a preprocessor_config.json."""
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes(GOLDEN[f"file.{name}"].tobytes())
    return tmp_path


def say(folder, content, name=PREPROCESSOR):
    (folder / name).write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("kind", ["fitting", "wide"])
def test_features_are_those_of_transformers(name, kind, folder, capsys):
    """Mean, standard deviation, rescaling, filter, squeezing and cutting: the same features, of images of any size."""
    (folder / PREPROCESSOR).write_bytes(GOLDEN[f"{name}.preprocessor"].tobytes())
    features = load_encoder(folder).features(GOLDEN[kind])
    np.testing.assert_allclose(features, GOLDEN[f"{name}.{kind}"], rtol=0, atol=2e-5)
    assert "ImageNet" not in capsys.readouterr().err


def test_nothing_said_is_imagenets_and_that_is_said(folder, capsys):
    found = preparation(folder)
    assert found == Preparation(IMAGENET_MEAN, IMAGENET_STD)
    assert "no file says how its pixels are normalised: ImageNet's" in capsys.readouterr().err


def test_timm(folder):
    config = json.loads((folder / "config.json").read_text("utf-8"))
    said = {"input_size": [3, 8, 8], "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "crop_pct": 0.9}
    say(folder, config | {"pretrained_cfg": said}, "config.json")
    found = preparation(folder)
    assert found == Preparation((0.5,) * 3, (0.25,) * 3, (8, 8), edge=8, resample=Image.Resampling.BICUBIC)
    with pytest.raises(ValueError, match=r"takes images of \(8, 12\) pixels, and the files beside it scale them to \(8, 8\)"):
        load_encoder(folder)
    assert load_encoder(folder, img_size=(8, 8)).config.img_size == 8
    del said["interpolation"]
    say(folder, config | {"architecture": "vit_tiny_patch4_8"} | said, "config.json")       # as older files have it
    assert preparation(folder) == found
    for changed, message in (({"crop_mode": "squash"}, "crop_mode 'center', got 0.9 and 'squash'"),
                             ({"interpolation": "random"}, "filter of Pillow, .*bicubic.*, got 'random'"),
                             ({"mean": None}, "expected mean and std as finite numbers"), ({"input_size": 8}, "input_size as")):
        say(folder, config | {"pretrained_cfg": said | changed}, "config.json")
        with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
            preparation(folder)


@pytest.mark.parametrize(("changed", "message"), [
    ({"image_std": [0.5, 0.0, 0.5]}, r"image_std as finite numbers, the second positive, got .* \[0\.5, 0\.0, 0\.5\]"),
    ({"image_std": [-1.0] * 3}, "the second positive"), ({"image_mean": [float("nan")] * 3}, "finite numbers"),
    ({"image_mean": "0.5"}, "finite numbers"), ({"image_mean": None}, "finite numbers"), ({"image_mean": []}, "finite numbers"),
    ({"do_normalize": "yes"}, "do_normalize as bool, got 'yes'"), ({"rescale_factor": 0}, "positive rescale_factor, got 0"),
    ({"rescale_factor": None}, "rescale_factor as float, got None"), ({"resample": 9}, "filter of Pillow, .*, got 9"),
    ({"size": {"longest_edge": 8}}, "size as height and width, or as shortest_edge"), ({"size": None}, "img_size .* got None"),
    ({"size": {"height": 0, "width": 8}}, r"got \(0, 8\)"), ({"do_pad": True}, "no do_pad, got True"),
    ({"do_center_crop": True}, "img_size .* got None"), ({"do_flip_channel_order": True}, "no do_flip_channel_order, got True"),
    ({"rescale_offset": True}, "no rescale_offset"), ({"crop_pct": 0.9}, "no crop_pct, got 0.9"),
    ({"do_center_crop": True, "do_resize": False}, "do_resize true with do_center_crop"),
    ({"do_center_crop": True, "size": 9, "crop_size": None}, "img_size .* got None"),
])
def test_what_is_not_done_here(changed, message, folder):
    say(folder, HALF | changed)
    with pytest.raises(ValueError, match=rf"{PREPROCESSOR}: .*{message}"):
        preparation(folder)


def test_channels_that_do_not_fit(folder):
    say(folder, HALF | {"image_mean": [0.5]})
    assert load_encoder(folder).preparation.mean == (0.5,)      # one number for all
    say(folder, HALF | {"image_mean": [0.5] * 4, "image_std": [0.5] * 4})
    with pytest.raises(ValueError, match=r"pixels of 3 channels, got \(0.5, 0.5, 0.5, 0.5\)"):
        load_encoder(folder)


def test_an_image_that_is_too_narrow_to_cut(folder):
    (folder / PREPROCESSOR).write_bytes(GOLDEN["cut.preprocessor"].tobytes())
    say(folder, json.loads((folder / PREPROCESSOR).read_text("utf-8")) | {"size": {"shortest_edge": 8}})
    with pytest.raises(ValueError, match=r"covers 8 x 12 when it is scaled, got \(9, 9, 3\), which is scaled to 8 x 8"):
        load_encoder(folder).features(np.zeros((1, 9, 9, 3), np.uint8))


def test_a_classifier_from_other_pixels(folder):
    """Fine-tuning goes on with our pixels: the first layer takes up the difference, and the function is the same."""
    (folder / PREPROCESSOR).write_bytes(GOLDEN["bicubic.preprocessor"].tobytes())
    encoder = load_encoder(folder)
    config, params = vit_from(encoder, 3, np.random.default_rng(0))
    before = encoder.params["encoder"]["patch_embed"]["w"].copy()
    theirs = params | {"encoder": params["encoder"] | {"patch_embed": encoder.params["encoder"]["patch_embed"]}}
    images = GOLDEN["fitting"]
    mean, std = np.float32(encoder.preparation.mean), np.float32(encoder.preparation.std)
    expected = vit_logits(to_pixels(images, mean=mean, std=std), theirs, config)
    assert np.ptp(expected) > 1e-5
    ours = vit_logits(to_pixels(images), params, config)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * np.ptp(expected))
    np.testing.assert_array_equal(encoder.params["encoder"]["patch_embed"]["w"], before)


def test_what_is_exported_says_it(tmp_path, capsys):
    """transformers reads our preparation in a file of its own, and so do we."""
    config = ViTConfig(img_size=(8, 12), patch_size=4, embed_dim=8, depth=1, num_heads=2, num_classes=3)
    params = vit_init(config, np.random.default_rng(0))
    export_vit(tmp_path / "vit", config, params)
    found = preparation(tmp_path / "vit")
    assert found.mean == (MEAN,) * 3 and found.std == (STD,) * 3 and found.size == (8, 12) and found.squeeze
    path = export_vit(tmp_path / "vit.pth", config, params)
    assert preparation(path) == Preparation()
    write_pth(path, read_weights(path).tensors, {})
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(20) % 2)
    capsys.readouterr()
    probe = ["probe", "--data", str(tmp_path / "data.npz"), "--model"]
    assert main([*probe, str(path), "--heads", "2", "--img-size", "8x12"]) == 0
    assert "ImageNet's mean and standard deviation are assumed" in capsys.readouterr().err
    assert main([*probe, str(tmp_path / "vit")]) == 0 and "assumed" not in capsys.readouterr().err


def test_squeezed_and_then_cut(folder):
    """The form of DeiT's processor: both sides to 10 x 16, and the middle of that."""
    said = HALF | {"size": {"height": 10, "width": 16}, "do_center_crop": True, "crop_size": {"height": 8, "width": 12}}
    say(folder, said | {"resample": 3})
    picture = GOLDEN["wide"][0]
    squeezed = np.asarray(Image.fromarray(picture).resize((16, 10), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(preparation(folder).resize(picture, (8, 12)), squeezed[1:9, 2:14])
    assert preparation(folder).resize(picture, (16, 24)).shape == (16, 24, 3)


def test_training_from_it_says_that_it_scales_in_its_own_way(folder, tmp_path, capsys):
    (folder / PREPROCESSOR).write_bytes(GOLDEN["cut.preprocessor"].tobytes())
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(20) % 2)
    train = ["train", "vit", "--data", str(tmp_path / "data.npz"), "--steps", "1", "--threads", "1", "--from", str(folder)]
    assert main([*train, "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr()
    assert "images are scaled as always here (the centre, Lanczos), not as" in output.out + output.err
