"""`reconstruct`: a photograph of one's own, hidden and restored, with the shipped model or another."""
import hashlib
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinymae import plot
from tinymae.__main__ import main
from tinymae.images.crops import unseen_crops
from tinymae.images.fills import linear_fill
from tinymae.images.hide import hidden_patches
from tinymae.images.pixels import MEAN, to_pixels
from tinymae.images.sources import unseen_photos
from tinymae.models.mae import MAEConfig, mae_init, mae_restore
from tinymae.plot import style
from tinymae.tasks import photograph, restore
from tinymae.tasks.photograph import LEAST_VISIBLE, fitting_detail, grid_of, hidden_pixels, restore_photo, restored_tiles
from tinymae.tasks.reconstruct import own_model
from tinymae.train import checkpoint
from tinymae.weights.shipped import shipped

TINY = {
    "img_size": 12, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2, "decoder_embed_dim": 8, "decoder_depth": 1,
    "decoder_num_heads": 2,
}


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def read(path):
    with Image.open(path) as image:
        return np.array(image)


def run(picture, *options, model=None, out):
    """main(["reconstruct", ...]), and the array that it wrote."""
    arguments = ["reconstruct", str(picture), "--out", str(out), "--threads", "1", *map(str, options)]
    assert main([*arguments, *(["--model", str(model)] if model else [])]) == 0
    return read(out)


# Which patches are hidden


@pytest.mark.parametrize("kind", ["random", "block", "grid"])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("grid", [(48, 64), (8, 8), (9, 31)])
def test_as_many_patches_are_hidden_as_asked(kind, ratio, grid):
    hidden = hidden_patches(kind, grid, ratio, np.random.default_rng(0))
    assert hidden.shape == grid and hidden.dtype == bool
    most = 0.02 if kind == "grid" else 1 / hidden.size          # a grid has 64ths, and a margin that they do not fill
    assert hidden.mean() == pytest.approx(ratio, abs=most + (0.06 if kind == "grid" and grid == (9, 31) else 0))
    again = hidden_patches(kind, grid, ratio, np.random.default_rng(0))
    np.testing.assert_array_equal(hidden, again)


def test_a_grid_shows_one_of_four_and_blocks_are_blocks():
    grid = hidden_patches("grid", (8, 12), 0.75, np.random.default_rng(0))
    np.testing.assert_array_equal(~grid, np.arange(8)[:, None] % 2 + np.arange(12) % 2 == 0)
    rng = np.random.default_rng(0)
    lonely = {}
    for kind in ("block", "random"):
        hidden = np.pad(hidden_patches(kind, (40, 40), 0.3, rng), 1)
        neighbours = hidden[:-2, 1:-1] | hidden[2:, 1:-1] | hidden[1:-1, :-2] | hidden[1:-1, 2:]
        lonely[kind] = (hidden[1:-1, 1:-1] & ~neighbours).sum()
    assert lonely["block"] < 10 < 60 < lonely["random"]


@pytest.mark.parametrize(("kind", "ratio", "reason"), [
    ("round", 0.5, "expected a mask random, block, grid, got 'round'"), ("grid", 0.0, "above 0 and below 1"),
    ("random", 1.0, "above 0 and below 1"), ("block", float("nan"), "above 0 and below 1"),
])
def test_masks_that_are_none(kind, ratio, reason):
    with pytest.raises(ValueError, match=reason):
        hidden_patches(kind, (8, 8), ratio, np.random.default_rng(0))


# The photograph


def tiny(**changed):
    config = MAEConfig(**TINY | changed)
    return mae_init(config, np.random.default_rng(0)), config


@pytest.mark.parametrize(("rows", "cols", "channels"), [(40, 60, 3), (61, 37, 3), (72, 72, 1), (7, 100, 3), (13, 5, 1)])
def test_visible_pixels_stay_as_they_are(rows, cols, channels):
    params, config = tiny()
    photo, config_grid = numbers(rows, cols, channels), grid_of((rows, cols), 10, config)
    hidden = hidden_pixels(hidden_patches("random", config_grid, 0.6, np.random.default_rng(0)), photo.shape)
    before = photo.copy()
    restored = restore_photo(photo, hidden, params, config, detail=10)
    assert restored.photo.shape == photo.shape and restored.photo.dtype == np.uint8
    np.testing.assert_array_equal(photo, before)
    np.testing.assert_array_equal(restored.photo[~hidden], photo[~hidden])
    assert not np.array_equal(restored.photo[hidden], photo[hidden])
    assert restored.small.shape == restored.pasted.shape == (config_grid[0] * 4, config_grid[1] * 4, channels)


def test_a_photograph_of_one_tile_is_what_the_model_predicts():
    params, config = tiny()
    photo, mask = numbers(12, 12, 3), np.array([[1, 0, 1, 1, 0, 1, 1, 1, 0]])
    hidden = hidden_pixels(mask.reshape(3, 3) == 1, photo.shape)
    restored = restore_photo(photo, hidden, params, config, detail=3, turned=False)
    pasted = mae_restore(to_pixels(photo)[None], params, config, mask).pasted[0]
    np.testing.assert_allclose(restored.photo, np.rint((pasted * 0.25 + 0.45) * 255).clip(0, 255), atol=1)
    assert (np.abs(restored.photo.astype(int) - photo)[hidden]).max() > 20


def test_turning_a_tile_turns_its_restoration():
    """The mean over the eight orientations does not depend on the orientation of the tile."""
    params, config = tiny()
    images, mask = to_pixels(numbers(2, 12, 12, 3)), np.random.default_rng(0).random((2, 3, 3)) < 0.6
    straight, _ = restored_tiles(images, mask, params, config, 8)
    turned, _ = restored_tiles(np.rot90(images, axes=(1, 2)).copy(), np.rot90(mask, axes=(1, 2)).copy(), params, config, 8)
    np.testing.assert_allclose(turned, np.rot90(straight, axes=(1, 2)), atol=1e-5)
    once, _ = restored_tiles(images, mask, params, config)
    assert np.abs(once - straight).max() > 0.01


def test_shrinking_averages_and_enlarging_does_not_shift():
    """Of a ramp, everything but one patch is shown."""
    params, config = tiny()
    ramp = np.repeat(np.linspace(0, 250, 120).astype(np.uint8)[None, :, None], 120, axis=0).repeat(3, axis=2)
    hidden = np.zeros((120, 120), bool)
    hidden[0, 0] = True
    restored = restore_photo(ramp, hidden, params, config, detail=10)
    small = ramp.reshape(40, 3, 40, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(restored.small, small, atol=0.51)


def test_a_large_hole_is_restored_coarsely():
    _, config = tiny(img_size=32)
    hidden = np.zeros((300, 400), bool)
    hidden[150, 200] = True
    assert fitting_detail(hidden, config) == 48
    hidden[100:200, 100:200] = True                             # a third of the shorter side: a tile must not drown in it
    detail = fitting_detail(hidden, config)
    assert 8 <= detail <= 28
    assert LEAST_VISIBLE * 64 == 8
    hidden[:] = True
    hidden[0] = False
    assert fitting_detail(hidden, config) == 8


@pytest.mark.parametrize(("photo", "hidden", "error", "reason"), [
    (numbers(20, 20, 3), np.zeros((20, 20), bool), ValueError, "some pixels to be hidden, got none"),
    (numbers(20, 20, 3), np.ones((20, 20), bool), ValueError, "expected a visible patch"),
    (numbers(20, 20, 3), np.ones((20, 21), bool), ValueError, r"bool \(20, 20\), one for each pixel"),
    (numbers(20, 20, 3), np.ones((20, 20)), ValueError, "got float64"),
    (numbers(20, 20, 2), np.ones((20, 20), bool), ValueError, r"\(rows, cols, 3\), or with 1 channel"),
    (numbers(20, 20, 3) / 255, np.ones((20, 20), bool), TypeError, "expected uint8"),
])
def test_photographs_that_cannot_be_restored(photo, hidden, error, reason):
    params, config = tiny()
    with pytest.raises(error, match=reason):
        restore_photo(photo, hidden, params, config)


@pytest.mark.parametrize("detail", [0, -3])
def test_a_detail_of_nothing(tmp_path, detail, capsys):
    assert main(["reconstruct", "cat", "--detail", str(detail), "--out", str(tmp_path / "cat.png")]) == 1
    assert f"at least 1 patch along the shorter side, got --detail {detail}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# From the command line


@pytest.fixture
def drawn(monkeypatch):
    """What is handed to plot.reconstructions: a list of dicts."""
    calls = []
    real = plot.reconstructions

    def recorded(masked, reconstruction, pasted, original, **options):
        calls.append({"masked": masked, "reconstruction": reconstruction, "pasted": pasted, "original": original, **options})
        return real(masked, reconstruction, pasted, original, **options)

    monkeypatch.setattr(plot, "reconstructions", recorded)
    return calls


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of tiny models: for crops of photographs, for whole grey pictures, for crops of normalised grey ones."""
    folder = tmp_path_factory.mktemp("models")
    made = {
        "crops": ({"in_chans": 3}, {"crops": True}),
        "grey": ({"in_chans": 1}, {"crops": False}),
        "grey crops": ({"in_chans": 1, "norm_pix_loss": True}, {"crops": True}),
        "two channels": ({"in_chans": 2}, {}),
    }
    for name, (changed, extra) in made.items():
        config = MAEConfig(**TINY, **changed)
        params = mae_init(config, np.random.default_rng(0))
        checkpoint.save(folder / name / "mae.npz", "mae", config, params, extra=extra)
    return folder


def write_picture(folder, kind):
    """A picture of some kind, and what it is: (path, mode, pixels (rows, cols, 3))."""
    path = folder / f"{kind}.png"
    rgb = numbers(40, 60, 3)
    if kind == "rgba":                                          # transparent all over: white paper
        Image.fromarray(np.dstack([rgb, np.zeros((40, 60), np.uint8)])).save(path)
        rgb = np.full_like(rgb, 255)
    elif kind == "grey":
        Image.fromarray(rgb[..., 0]).save(path)
        rgb = np.repeat(rgb[..., :1], 3, axis=2)
    elif kind == "sideways":                                    # bright on the left, and the camera turned by 90 degrees
        path = path.with_suffix(".jpg")
        rgb = np.zeros((40, 160, 3), np.uint8)
        rgb[:, :80] = 255
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(rgb).save(path, exif=exif, quality=95)
        rgb = np.rot90(rgb, -1)
    elif kind == "wide":
        rgb = numbers(5, 300, 3)
        Image.fromarray(rgb).save(path)
    elif kind == "tall":
        rgb = numbers(72, 6, 3)
        Image.fromarray(rgb).save(path)
    else:
        Image.fromarray(rgb).save(path)
    return path, rgb


@pytest.mark.parametrize(("model", "kind"), [
    *(("crops", kind) for kind in ("rgb", "rgba", "grey", "sideways", "wide", "tall")),
    *(("grey", kind) for kind in ("rgb", "rgba", "sideways", "wide")),
    ("grey crops", "rgb"), ("grey crops", "grey"),
])
def test_reconstruct(tmp_path, models, drawn, capsys, model, kind):
    """The result has the size of the photograph, stands upright, and is grey if the photograph or the model is."""
    picture, rgb = write_picture(tmp_path, kind)
    out, figure = tmp_path / "new" / "restored.png", tmp_path / "panel.png"
    restored = run(picture, "--figure", figure, model=models / model, out=out)
    said, *paths = capsys.readouterr().out.splitlines()
    rows, cols = rgb.shape[:2]
    assert said.startswith(f"{cols} x {rows} pixels; ") and "of the photograph's scale" in said
    assert paths == [str(out), str(figure)]
    assert restored.shape == (rgb.shape if model == "crops" and kind not in ("grey", "rgba", "sideways") else (rows, cols))
    assert [path.name for path in out.parent.iterdir()] == ["restored.png"]
    (call,) = drawn
    original = call["original"]
    assert picture.name in call["title"] and ("visible" in call["mode"]) == (model == "grey crops")
    if kind == "rgba":
        assert (original == 255).all()
    if kind == "sideways":                                      # bright on top once it stands upright
        assert original[0, 0].mean() > 200 and original[0, -1].mean() < 50
    if model == "crops" and kind == "rgb":                      # unchanged where nothing was hidden: about a quarter
        assert (restored == rgb).all(axis=2).mean() == pytest.approx(0.25, abs=0.03)


def test_a_photograph_is_drawn_in_its_own_resolution(tmp_path, models, drawn, capsys):
    """The result is what is written; hidden patches are grey and the others as in the photograph."""
    photo = numbers(600, 800, 3)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    result = run(tmp_path / "photo.png", "--figure", tmp_path / "f.png", model=models / "crops", out=tmp_path / "r.png")
    ((masked,), (reconstruction,), (pasted,), (original,)) = (
        drawn[0][name] for name in ("masked", "reconstruction", "pasted", "original")
    )
    np.testing.assert_array_equal(original, photo)
    np.testing.assert_array_equal(pasted, result)
    hidden = (result != photo).any(axis=2)
    assert (masked[hidden] == round(255 * MEAN)).all() and (masked[~hidden] == photo[~hidden]).mean() > 0.99
    inner = hidden[2:-2, 2:-2] & (reconstruction[2:-2, 2:-2] == pasted[2:-2, 2:-2]).all(axis=2)
    assert reconstruction.shape == photo.shape and inner.sum() > 0.3 * hidden.sum()
    assert read(tmp_path / "f.png").shape[1] == pytest.approx(1646, abs=1)


def test_title_and_caption_are_english_if_no_font_has_the_language(tmp_path, models, drawn, capsys, monkeypatch):
    picture, _rgb = write_picture(tmp_path, "rgb")
    monkeypatch.setattr(style, "FALLBACKS", ())
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        run(picture, "--figure", tmp_path / "f.png", model=models / "crops", out=tmp_path / "r.png")
    out, err = capsys.readouterr()
    assert "个图像块" in out and err.count("图中的文字改用英文") == 1          # what is printed needs no font
    (call,) = drawn
    assert call["title"] == "rgb.png, 75% hidden" and call["caption"].startswith("How to read it: 75% of")


def test_reconstruct_writes_to_figures_unless_told(tmp_path, models, capsys, monkeypatch):
    picture, rgb = write_picture(tmp_path, "rgb")
    monkeypatch.chdir(tmp_path)
    assert main(["reconstruct", str(picture), "--model", str(models / "crops")]) == 0
    assert Path(capsys.readouterr().out.splitlines()[-1]) == Path("figures", "rgb_restored.png")
    assert read(tmp_path / "figures" / "rgb_restored.png").shape == rgb.shape


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp", "tif", "PNG"])
def test_reconstruct_writes_any_format(tmp_path, models, suffix, capsys):
    picture, rgb = write_picture(tmp_path, "rgb")
    assert run(picture, model=models / "crops", out=tmp_path / f"r.{suffix}").shape == rgb.shape


def test_reconstruct_hides_what_it_is_told(tmp_path, models, capsys):
    picture, rgb = write_picture(tmp_path, "rgb")
    options = (["--seed", 2], ["--seed", 3], ["--seed", 3], ["--mask-ratio", 0.1], ["--mask", "grid"], ["--mask", "block"])
    made = [run(picture, *each, model=models / "crops", out=tmp_path / "r.png") for each in options]
    same = [(each == rgb).all(axis=2) for each in made]
    assert not np.array_equal(same[0], same[1])
    np.testing.assert_array_equal(made[1], made[2])
    assert [part.mean() for part in same] == pytest.approx([0.25, 0.25, 0.25, 0.9, 0.25, 0.25], abs=0.05)
    coarse = run(picture, "--detail", 3, model=models / "crops", out=tmp_path / "r.png")
    assert "of 12 patches hidden, 3 along the shorter side" in capsys.readouterr().out
    assert (coarse == rgb).all(axis=2).mean() == pytest.approx(0.25, abs=0.05)
    run(picture, "--detail", 1000, model=models / "crops", out=tmp_path / "r.png")
    assert "--detail 1000: the photograph and the model's tiles allow 10" in capsys.readouterr().out


def test_a_painted_hole_is_filled(tmp_path, models, capsys):
    picture, rgb = write_picture(tmp_path, "rgb")
    painted = np.zeros((40, 60), np.uint8)
    painted[10:22, 5:30] = 255
    Image.fromarray(painted).save(tmp_path / "mask.png")
    restored = run(picture, "--mask", tmp_path / "mask.png", model=models / "crops", out=tmp_path / "r.png")
    np.testing.assert_array_equal(restored[painted == 0], rgb[painted == 0])
    assert (restored[painted == 255] != rgb[painted == 255]).any(axis=1).mean() > 0.9
    Image.fromarray(painted[:30]).save(tmp_path / "mask.png")
    model = ["--model", str(models / "crops")]
    wrong = (tmp_path / "mask.png", "60 x 40 pixels, got 60 x 30"), ("none.png", "no file 'none.png': expected a")
    for mask, reason in wrong:
        assert main(["reconstruct", str(picture), "--mask", str(mask), *model, "--out", str(tmp_path / "n.png")]) == 1
        assert reason in capsys.readouterr().err and not (tmp_path / "n.png").exists()


# How it fails: status 1, one line that names the file, and nothing is written


def files(folder):
    """Everything in a folder, with what is in it."""
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


def assert_one_line(capsys, *expected):
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tinymae: ") and err.endswith("\n") and err.count("\n") == 1, err
    for text in expected:
        assert text in err


def damaged_files(folder):
    good = folder / "good.png"
    Image.fromarray(numbers(40, 60, 3)).save(good)
    (folder / "cut.png").write_bytes(good.read_bytes()[:3000])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "folder.png").mkdir()
    return good


@pytest.mark.parametrize("name", ["missing.png", "cut.png", "text.png", "empty.png", "folder.png"])
def test_reconstruct_of_what_is_no_picture(tmp_path, models, capsys, name):
    damaged_files(tmp_path)
    before = files(tmp_path)
    arguments = ["reconstruct", str(tmp_path / name), "--model", str(models / "crops"), "--out", str(tmp_path / "r.png")]
    assert main(arguments) == 1
    assert_one_line(capsys, str(tmp_path / name))
    assert files(tmp_path) == before


@pytest.mark.parametrize("model", ["missing", "folder.png", "empty.npz", "cut.npz", "text.png", "other.npz", "channels.npz"])
def test_reconstruct_with_what_is_no_model(tmp_path, models, capsys, model):
    good = damaged_files(tmp_path)
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes((models / "crops" / "mae.npz").read_bytes()[:5000])
    np.savez(tmp_path / "other.npz", images=numbers(2, 8, 8))
    (tmp_path / "channels.npz").write_bytes((models / "two channels" / "mae.npz").read_bytes())
    before = files(tmp_path)
    assert main(["reconstruct", str(good), "--model", str(tmp_path / model), "--out", str(tmp_path / "r.png")]) == 1
    assert_one_line(capsys, str(tmp_path / model))
    assert files(tmp_path) == before


@pytest.mark.parametrize("options", [
    ["--mask-ratio", "1.0"], ["--mask-ratio", "-0.1"], ["--mask-ratio", "nan"], ["--seed", "-1"], ["--detail", "-1"],
    ["--out", "r.txt"], ["--out", "."], ["--figure", "f.jpg"],
])
def test_reconstruct_with_options_that_do_not_fit(tmp_path, models, capsys, monkeypatch, options):
    picture, _ = write_picture(tmp_path, "rgb")
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    assert main(["reconstruct", str(picture), "--model", str(models / "grey"), *options]) == 1
    assert_one_line(capsys)
    assert files(tmp_path) == before


# The model that comes with the package

CARD = shipped("mae").with_suffix(".md")
SHA256 = "3e9ca2f3d29b4696e4f257f6f028169e0950ceb2d871299505e3a6b023ed43ae"
SCRIPT = """
import sys, threading

allowed = {*sys.stdlib_module_names, "numpy", "tinymae"}


class OnlyNumPy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError(f"{name} is neither NumPy nor the standard library")


sys.meta_path.insert(0, OnlyNumPy())


def start(self):
    raise RuntimeError("a thread was started")


threading.Thread.start = start
import numpy as np

from tinymae.images.hide import hidden_patches
from tinymae.tasks.photograph import grid_of, hidden_pixels, restore_photo
from tinymae.weights.shipped import read_model, shipped

config, params, _ = read_model(shipped("mae"), "mae")
down, across = np.mgrid[:100, :140]
photo = np.stack([down, across, 128 + 0 * down], axis=2).astype(np.uint8)
hidden = hidden_pixels(hidden_patches("random", grid_of(photo.shape, 12, config), 0.75, np.random.default_rng(0)), photo.shape)
restored = restore_photo(photo, hidden, params, config, detail=12).photo
print(np.abs(restored.astype(float) - photo)[hidden].mean() < 0.3 * photo[hidden].std())
"""


def test_restoring_needs_numpy_alone_and_no_threads():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60,
                          cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_the_card_is_that_of_the_file():
    raw, card = shipped("mae").read_bytes(), CARD.read_text(encoding="utf-8")
    assert hashlib.sha256(raw).hexdigest() == SHA256
    assert SHA256 in card and f"{len(raw):,} bytes" in card and len(raw) < 2_000_000
    times = []
    for _ in range(3):
        start = time.perf_counter()
        own_model()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1


@pytest.fixture(scope="module")
def unseen():
    """{name: photograph}, of the table."""
    return unseen_photos()


def test_its_error_is_that_of_the_card(unseen):
    """On one photograph of three: the card is that of this very file, and each photograph takes seconds."""
    model, card = own_model(), CARD.read_text(encoding="utf-8")
    rows = restore.table(to_pixels(unseen_crops(unseen["cat"], 48, 64)), model.params, model.config, 8)
    (line,) = (line for line in card.splitlines() if line.startswith("| cat |"))
    error, psnr, ssim, linear = (float(number) for number in line.split("|")[2:6])
    assert rows["mae"]["error"] == pytest.approx(error, abs=0.001) and rows["mae"]["psnr"] == pytest.approx(psnr, abs=0.06)
    assert rows["mae"]["ssim"] == pytest.approx(ssim, abs=1e-3)
    assert rows["linear"]["error"] == pytest.approx(linear, abs=1e-3)
    assert rows["mae"]["error"] < rows["linear"]["error"]


def test_evaluate(tmp_path, models, capsys):
    """The table of a model of one's own, on a folder of images; channels have to be the model's."""
    np.savez(tmp_path / "grey.npz", images=numbers(6, 8, 8))
    assert main(["evaluate", "mae", "--model", str(models / "grey"), "--data", str(tmp_path / "grey.npz")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip().split("  ")[0] for line in lines[-len(restore.LABELS):]] == list(restore.LABELS.values())
    assert len(lines[-1].split()[-3:]) == 3 and all(float(number) for number in lines[-1].split()[-3:])
    assert main(["evaluate", "mae", "--model", str(models / "crops"), "--data", str(tmp_path / "grey.npz")]) == 1
    assert "expected images of 3 channels, as the model's, got 1" in capsys.readouterr().err


@pytest.mark.parametrize("apart", [False, True])
def test_a_gradient_has_no_seams(monkeypatch, apart):
    """Across the sides of tiles a restored gradient jumps as at all borders of patches; tiles that do not overlap are seen."""
    if apart:
        monkeypatch.setattr(photograph, "_tiles", lambda grid, tile: [
            (slice(top, top + tile[0]), slice(left, left + tile[1]))
            for top in range(0, grid[0], tile[0]) for left in range(0, grid[1], tile[1])
        ])
    model = own_model()
    y, x = np.mgrid[:144, :192]
    photo = np.stack([60 + x / 2, 40 + y / 2 + x / 5, 200 - x / 3 - y / 5], axis=2).astype(np.uint8)
    grid = grid_of(photo.shape, 24, model.config)
    hidden = hidden_pixels(hidden_patches("random", grid, 0.75, np.random.default_rng(0)), photo.shape)
    restored = restore_photo(photo, hidden, model.params, model.config, detail=24)
    off, ratios = restored.pasted.astype(float) - photo, []
    for axis in (0, 1):
        jump = np.abs(np.diff(off, axis=axis)).mean(axis=(1 - axis, 2))[5::6]           # across the borders of patches
        side = np.arange(1, len(jump) + 1) % 8 == 0
        ratios.append(jump[side].mean() / jump[~side].mean())
    assert (np.mean(ratios) > 1.5) if apart else (np.mean(ratios) < 1.15), ratios


def test_no_tile_can_be_seen(unseen):
    """Across the four sides of tiles side by side the image jumps no more than elsewhere, and near them the error is no larger.

    Some patches of a photograph are harder than others: the error is compared with that of a fill that has no tiles.
    """
    model, ratios = own_model(), []
    for photo in unseen.values():
        grid = grid_of(photo.shape, 32, model.config)
        hidden = hidden_patches("random", grid, 0.75, np.random.default_rng(1))
        restored = restore_photo(photo, hidden_pixels(hidden, photo.shape), model.params, model.config, detail=32)
        made, true = restored.reconstruction.astype(float), restored.small.astype(float)
        down, across = np.mgrid[: grid[0], : grid[1]] % 8           # where a patch is in a tile
        jumps = []
        for axis in (0, 1):
            jump = np.abs(np.diff(made, axis=axis)).mean(axis=(1 - axis, 2))[5::6]      # across the borders of patches
            side = np.arange(1, grid[axis]) % 8 == 0
            jumps.append(jump[side].mean() / jump[~side].mean())
        ring = (down % 7 == 0) | (across % 7 == 0)
        middle = (abs(down - 3.5) < 2) & (abs(across - 3.5) < 2)
        plain = linear_fill(true[None], np.kron(hidden, np.ones((6, 6), bool))[None])[0]
        squared = (((image - true) ** 2).mean(axis=2) for image in (made, plain))
        errors = (pixels.reshape(grid[0], 6, grid[1], 6).mean(axis=(1, 3)) for pixels in squared)
        ours, without_tiles = (error[ring & hidden].mean() / error[middle & hidden].mean() for error in errors)
        ratios.append([np.mean(jumps), ours / without_tiles])
    jump, error = np.mean(ratios, axis=0)
    assert jump < 1.1 and error < 1.1, (jump, error)


def test_reconstruct_without_a_model(tmp_path, capsys, unseen):
    """At once, at the photograph's size, and nearer to it than a grey image; with masks of every kind."""
    block, few = ["--mask", "block", "--mask-ratio", "0.3"], ["--mask-ratio", "0.95"]
    for options, limit in (([], 0.7), (block, 0.7), (["--mask", "grid"], 0.7), (few, 0.95)):
        options = [*options, "--detail", "16"] if options else []
        restored = run("cat", *options, out=tmp_path / "cat.png").astype(float)
        cat = unseen["cat"]
        hidden = (restored != cat).any(axis=2)
        plain = ((cat[~hidden].mean(axis=0) - cat)[hidden] ** 2).mean()
        assert restored.shape == cat.shape and ((restored - cat)[hidden] ** 2).mean() < limit * plain, options
    assert "451 x 300 pixels; 95% of 384 patches hidden, 16 along the shorter side" in capsys.readouterr().out
