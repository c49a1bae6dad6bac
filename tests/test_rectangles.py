"""Rectangular images, and models used at sizes they were not trained on: the numbers of transformers, and files."""
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinymae import tree
from tinymae.__main__ import main
from tinymae.images.labelled import fit_pictures
from tinymae.images.pixels import to_pixels
from tinymae.images.resize import resize_picture
from tinymae.models.fine_tuning import interpolate_positions, resize_mae, resize_vit
from tinymae.models.mae import MAEConfig, StoredPositions, mae_forward, mae_init, mae_reconstruct
from tinymae.models.vit import ViTConfig, vit_init, vit_logits
from tinymae.ops.patches import image_sides, patch_grid
from tinymae.tasks.classify import vit_from
from tinymae.tasks.encoders import Encoder, load_encoder
from tinymae.tasks.photograph import grid_of, restore_photo
from tinymae.train import checkpoint
from tinymae.weights.export import export_mae, export_vit, export_vit_mae
from tinymae.weights.pth import write_pth
from tinymae.weights.published import load_mae, load_published_encoder, load_vit
from tinymae.weights.read import read_weights

with np.load(Path(__file__).parent / "golden" / "rectangles.npz") as file:
    GOLDEN = dict(file)
TINY = {"patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
TINY_MAE = TINY | {"decoder_embed_dim": 8, "decoder_depth": 1, "decoder_num_heads": 2}
PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])


@pytest.fixture
def put(tmp_path):
    def write(name):
        folder = tmp_path / name
        folder.mkdir()
        for part in ("model.safetensors", "config.json"):
            (folder / part).write_bytes(GOLDEN[f"file.{name}/{part}"].tobytes())
        return folder
    return write


def run(*words):
    assert main([str(word) for word in words]) == 0


# ---- the numbers of transformers -------------------------------------------------------------------------------------

@PRECISIONS
def test_a_model_of_rectangles(put, dtype, tolerance):
    config, params = load_vit(put("rectangle"), dtype=dtype)
    assert config.img_size == (8, 16) and config.grid == (2, 4)
    logits = vit_logits(GOLDEN["rectangle.images"].astype(dtype), params, config)
    assert logits.dtype == dtype
    np.testing.assert_allclose(logits, GOLDEN["rectangle.logits"], rtol=0, atol=tolerance * 10)


@PRECISIONS
@pytest.mark.parametrize(("case", "size"), [("wider", (8, 20)), ("larger", (16, 24))])
def test_a_model_of_squares_on_rectangles(put, case, size, dtype, tolerance):
    """interpolate_pos_encoding=True."""
    config, params = load_vit(put("square"), img_size=size, dtype=dtype)
    logits = vit_logits(GOLDEN[f"square.{case}.images"].astype(dtype), params, config)
    np.testing.assert_allclose(logits, GOLDEN[f"square.{case}.logits"], rtol=0, atol=tolerance * 10)


@PRECISIONS
def test_a_masked_autoencoder_on_rectangles(put, dtype, tolerance):
    """The encoder as transformers; the decoder's positions on the grid, where transformers takes them for one row."""
    folder = put("mae")
    config, params = load_mae(folder, decoder_heads=1, img_size=(8, 20), dtype=dtype)
    _, cache = mae_forward(GOLDEN["mae.images"].astype(dtype), params, config, GOLDEN["mae.noise"])
    np.testing.assert_array_equal(cache["ids_restore"], GOLDEN["mae.ids_restore"])
    np.testing.assert_allclose(cache["latent"], GOLDEN["mae.latent"], rtol=0, atol=tolerance * 10)
    stored = read_weights(folder / "model.safetensors").tensors["decoder.decoder_pos_embed"][0].astype(dtype)
    expected = interpolate_positions(stored[1:] - stored[0], (3, 3), (2, 5))    # the class token's is in its own vector
    np.testing.assert_allclose(config.position_tables(dtype)[1], expected, rtol=0, atol=tolerance * 10)


# ---- sizes -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make", [MAEConfig, ViTConfig])
def test_one_size_has_one_spelling(make):
    assert make(img_size=(32, 32)) == make(img_size=[32, 32]) == make(img_size=32)
    wide = make(img_size=[32, 48])
    assert wide.img_size == (32, 48) and wide.grid == (2, 3) == patch_grid((32, 48), 16) and wide.num_patches == 6
    hash(wide)
    for wrong in ((32, 40), (32,), (32, 32, 32), (0, 32), 32.0, True, "32", None, (32, -16)):
        with pytest.raises(ValueError, match="img_size"):
            make(img_size=wrong)


def test_rectangles_are_named():
    config = MAEConfig(**TINY_MAE, img_size=(8, 12))
    params = mae_init(config, np.random.default_rng(0))
    with pytest.raises(ValueError, match="expected images of 8 x 12 pixels, got"):
        mae_forward(np.zeros((2, 12, 8, 3), np.float32), params, config, np.zeros((2, 6)))
    images = np.random.default_rng(1).normal(size=(2, 8, 12, 3)).astype(np.float32)
    restored = mae_reconstruct(images, params, config, np.random.default_rng(2).random((2, 6)))
    assert restored.pasted.shape == images.shape
    hidden = np.kron(restored.mask.reshape(2, 2, 3), np.ones((4, 4))) == 1
    np.testing.assert_array_equal(restored.pasted[~hidden], images[~hidden])


def test_image_sides():
    assert image_sides(5) == (5, 5) and image_sides((3, 5)) == (3, 5) and image_sides(np.int64(5)) == (5, 5)


def test_the_same_size_is_the_same_model():
    """A grid of the same shape needs no interpolation, and fixed positions stay fixed."""
    config = MAEConfig(**TINY_MAE, img_size=(8, 12))
    assert resize_mae(config, [8, 12]) is config
    wide = resize_mae(config, (8, 24))
    assert type(wide) is StoredPositions and resize_mae(wide, (8, 24)) is wide and resize_mae(wide, (8, 12)).grid == (2, 3)
    vit = ViTConfig(**TINY, img_size=(8, 12), position_encoding="fixed")
    params = vit_init(vit, None)
    assert resize_vit(params, vit, (8, 12)) == (params, vit)
    resized, changed = resize_vit({"encoder": params["encoder"]}, vit, 16)                  # no head is needed
    assert resized["positions"].shape == (16, 8) and changed.position_encoding == "learned"


# ---- pictures --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("shape", "size", "box"), [
    ((40, 60), (10, 30), (0, 10, 60, 30)),      # the full breadth, the middle rows
    ((40, 60), (20, 10), (20, 0, 40, 40)),      # the full height, the middle columns
    ((40, 60), (20, 30), (0, 0, 60, 40)),       # the same shape: all of it
    ((40, 60), 20, (10, 0, 50, 40)),
])
def test_resize_to_rectangles(shape, size, box):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    rows, cols = image_sides(size)
    expected = Image.fromarray(picture).crop(box).resize((cols, rows), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(resize_picture(picture, size), np.asarray(expected))
    np.testing.assert_array_equal(fit_pictures(picture[None], size, 3)[0], np.asarray(expected))


def test_a_photograph_in_rectangular_tiles():
    """The tiles come back where they were cut: what is not hidden is the photograph, made smaller."""
    config = MAEConfig(**TINY_MAE, img_size=(8, 16))
    params = mae_init(config, np.random.default_rng(0))
    photo = np.random.default_rng(1).integers(0, 256, (60, 150, 3), dtype=np.uint8)
    hidden = np.zeros((60, 150), bool)
    hidden[20:30, 40:70] = True
    restored = restore_photo(photo, hidden, params, config, detail=6)
    rows, cols, _ = restored.small.shape
    assert (rows // config.patch_size, cols // config.patch_size) == restored.hidden.shape == grid_of(photo.shape, 6, config)
    assert 0.8 < cols / rows / (150 / 60) < 1.25 and 0 < restored.hidden.sum() <= 2 * 4
    shown = ~np.kron(restored.hidden, np.ones((config.patch_size,) * 2, bool))
    np.testing.assert_array_equal(restored.pasted[shown], restored.small[shown])
    np.testing.assert_array_equal(restored.photo[~hidden], photo[~hidden])


# ---- files -----------------------------------------------------------------------------------------------------------

def test_export_and_back(tmp_path):
    rng = np.random.default_rng(0)
    mae = MAEConfig(**TINY_MAE, img_size=(8, 12))
    params = mae_init(mae, rng)
    for path in (export_mae(tmp_path / "mae.pth", mae, params), export_vit_mae(tmp_path / "mae", mae, params)):
        config, back = load_mae(path)
        assert config == mae, path
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(tree.leaves(params), tree.leaves(back), strict=True))
    assert json.loads((tmp_path / "mae" / "config.json").read_text("utf-8"))["image_size"] == [8, 12]
    vit = ViTConfig(**TINY, img_size=(8, 12), num_classes=3)
    params = vit_init(vit, rng)
    for path in (export_vit(tmp_path / "vit.pth", vit, params), export_vit(tmp_path / "vit", vit, params)):
        config, back = load_vit(path)
        assert config == vit, path
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(tree.leaves(params), tree.leaves(back), strict=True))


def test_a_file_that_does_not_name_its_size(tmp_path):
    """Six positions are no square; nine are, and then another size means interpolation."""
    vit = ViTConfig(**TINY, img_size=(8, 12), num_classes=3)
    path = export_vit(tmp_path / "vit.pth", vit, vit_init(vit, np.random.default_rng(0)))
    write_pth(path, read_weights(path).tensors, {})
    with pytest.raises(ValueError, match=r"8 x 8 pixels, got 7 in 'pos_embed': if it was trained on rectangles, say which"):
        load_published_encoder(path, heads=2)
    config, params = load_published_encoder(path, heads=2, img_size=(8, 12))
    assert config.grid == (2, 3) and params["positions"].shape == (6, 8)
    with pytest.raises(ValueError, match="12 x 16 pixels, got 7"):
        load_published_encoder(path, heads=2, img_size=(12, 16))


def test_a_config_of_another_size(put):
    folder = put("rectangle")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for wrong, message in (([16, 12], "16 x 12 pixels, got 9"), (13, "13 x 13 pixels, got 9"), ("big", "img_size .* 'big'")):
        (folder / "config.json").write_text(json.dumps(config | {"image_size": wrong}), "utf-8")
        with pytest.raises(ValueError, match=message):
            load_vit(folder)


# ---- from the command line -------------------------------------------------------------------------------------------

def test_train_and_use_rectangles(tmp_path, capsys):
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    images = (rng.integers(0, 100, (20, 9, 14, 2)) + 100 * labels[:, None, None, None]).astype(np.uint8)
    data = tmp_path / "wide.npz"
    np.savez(data, images=images, labels=labels)
    length = ("--steps", 2, "--threads", 1)
    sizes = ("--img-size", "8x12", "--patch-size", 4, "--embed-dim", 8, "--depth", 1, "--heads", 2)
    run("train", "mae", "--data", data, "--out", tmp_path / "mae", *length, *sizes)
    run("train", "mae", "--data", data, "--out", tmp_path / "mae", "--steps", 3, "--threads", 1, *sizes, "--resume")
    saved = checkpoint.load(tmp_path / "mae" / "mae.npz", "mae", MAEConfig, mae_init)
    assert saved.config.img_size == (8, 12) and saved.step == 3
    run("train", "vit", "--data", data, "--from", tmp_path / "mae", "--out", tmp_path / "vit", *length, "--img-size", "12x8")
    config = checkpoint.load(tmp_path / "vit" / "vit.npz", "vit", ViTConfig, vit_init).config
    assert config.img_size == (12, 8) and config.position_encoding == "learned"
    run("train", "vit", "--data", data, "--from", tmp_path / "mae", "--out", tmp_path / "vit", "--steps", 3, "--resume")
    for model in ("mae", "vit"):
        run("probe", "--model", tmp_path / model, "--data", data, "--img-size", "16x12")
    encoder = load_encoder(tmp_path / "vit", img_size=(16, 12))
    assert encoder.features(images).shape == (20, 16) and encoder.config.grid == (4, 3)
    with pytest.raises(SystemExit):
        main(["probe", "--model", str(tmp_path / "vit"), "--data", str(data), "--img-size", "16x"])
    assert "--img-size: expected ROWS" in capsys.readouterr().err


def test_restore_at_another_size(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    config = MAEConfig(**TINY_MAE, img_size=8)
    params = mae_init(config, np.random.default_rng(0))
    checkpoint.save(tmp_path / "mae.npz", "mae", config, params, extra={"crops": False})
    export_mae(tmp_path / "mae.pth", config, params)
    for source in (("--model", tmp_path / "mae.npz"), ("--weights", tmp_path / "mae.pth")):
        out = tmp_path / f"{source[0][2:]}.png"
        run("reconstruct", tmp_path / "photo.png", *source, "--img-size", "16x24", "--out", out)
        assert out.is_file()


def test_a_fine_tuned_encoder_keeps_its_positions():
    """`vit_from` interpolates the table of the masked autoencoder; the encoder stays as it was."""
    config = MAEConfig(**TINY_MAE, img_size=8)
    params = mae_init(config, np.random.default_rng(0))
    changed, vit = vit_from(Encoder("mae", config, params), 3, np.random.default_rng(1), {"img_size": (8, 16)})
    expected = interpolate_positions(config.position_tables(np.float32)[0], (2, 2), (2, 4))
    np.testing.assert_array_equal(vit["positions"], expected)
    np.testing.assert_array_equal(vit["encoder"]["cls_token"], params["encoder"]["cls_token"])
    assert vit_logits(to_pixels(np.zeros((1, 8, 16, 3), np.uint8)), vit, changed).shape == (1, 3)
