"""The main job from the command line: what it writes and prints, that it can be resumed, and how it fails."""
import gzip
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinymae import __version__, plot
from tinymae.__main__ import main
from tinymae.images import crops
from tinymae.images.fills import linear_fill, mean_fill, nearest_fill
from tinymae.images.pixels import STD, to_picture, to_pixels
from tinymae.models.mae import MAEConfig, mae_forward, mae_init, mae_reconstruct, random_masking
from tinymae.tasks import demo, restore
from tinymae.train import checkpoint, loop

TINY = {
    "img_size": 12, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2, "decoder_embed_dim": 8, "decoder_depth": 1,
    "decoder_num_heads": 2,
}


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def small_pictures(folder, count=12, channels=3, side=8):
    """An .npz of pictures that are small enough to train on whole."""
    path = folder / "small.npz"
    np.savez(path, images=numbers(count, side, side, channels))
    return str(path)


def files(folder):
    """Everything in a folder, with what is in it."""
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


def arrays(path):
    """(arrays, meta without the time it took) of a model file."""
    with np.load(path) as file:
        found = dict(file)
    meta = json.loads(str(found.pop("meta")))
    assert meta["extra"].pop("seconds") > 0
    return found, meta


def assert_same_model(a, b):
    (ours, meta), (theirs, expected) = arrays(a), arrays(b)
    assert ours.keys() == theirs.keys() and meta == expected
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def assert_picture(path, least=200):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        picture.load()
        assert min(picture.size) > least and len(np.unique(picture.convert("L"))) > 10, path


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


@pytest.fixture
def interrupt(monkeypatch):
    """interrupt(n): somebody presses Ctrl-C, once, in step n (from 1) of the training that follows."""
    def at(step):
        real, calls = restore.mae_gradient, []

        def mae_gradient(*arguments, **options):
            gradient = real(*arguments, **options)

            def interrupted(params, rng):
                calls.append(None)
                if len(calls) == step:
                    signal.raise_signal(signal.SIGINT)
                return gradient(params, rng)

            return interrupted

        monkeypatch.setattr(restore, "mae_gradient", mae_gradient)

    return at


# The demo, once on digits and once on photographs


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """(folder, what was printed) of three steps on digits."""
    return run_demo(tmp_path_factory.mktemp("digits"), "demo", "--data", "digits", "--steps", "3")


@pytest.fixture(scope="module")
def photos_with_task(tmp_path_factory):
    """((folder, what was printed), task) of two steps on the photographs: no command, no data, as a newcomer would."""
    tasks = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "prepare", lambda *arguments: tasks.append(restore.prepare(*arguments)) or tasks[-1])
        found = run_demo(tmp_path_factory.mktemp("photos"), "--steps", "2")
    (task,) = tasks
    return found, task


@pytest.fixture(scope="module")
def photos(photos_with_task):
    return photos_with_task[0]


def run_demo(folder, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *values, **options: printed.append(" ".join(map(str, values))))
        assert main([*arguments, "--out", str(folder / "made" / "here")]) == 0
    return folder / "made" / "here", "\n".join(printed)


DIGITS_FILES = {"mae.npz", "demo.json", "restored_75.png", "restored_95.png", "loss.png", "attention.png"}


@pytest.mark.parametrize(("name", "expected", "steps"), [
    ("digits", DIGITS_FILES, 3), ("photos", DIGITS_FILES | {"photo.png"}, 2),
])
def test_demo_writes_what_it_promises_and_says_where(name, expected, steps, request):
    folder, printed = request.getfixturevalue(name)
    assert {path.name for path in folder.iterdir()} == expected
    lines = printed.splitlines()
    for file in expected:
        assert sum(line.endswith(str(folder / file)) for line in lines) == 1, file
        if file.endswith(".png"):
            assert_picture(folder / file)
    results = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    assert list(results) == ["validation", "seconds", "steps"] and results["steps"] == steps and results["seconds"] > 0
    photographs = ["grace_hopper", "cat", "coffee"] if name == "photos" else ["validation images"]
    assert list(results["validation"]) == photographs
    (head,) = (line for line in lines if line.split() == " ".join(photographs).split())
    for method in ("mae", "linear", "nearest", "mean"):            # the table, for people
        label = restore.LABELS[method]
        (line,) = (line for line in lines if line.startswith(f"  {label}"))
        numbers = [float(number) for number in line.replace(label, "").split()]
        found = [results["validation"][photo][method] for photo in photographs]
        assert list(found[0]) == ["error", "psnr", "ssim"]
        assert numbers == pytest.approx([value for cell in found for value in cell.values()], abs=0.051), head
    if name == "photos":                                        # linear interpolation of the same crops: known before
        assert results["validation"]["grace_hopper"]["linear"]["error"] == pytest.approx(0.546, abs=1e-3)


def test_the_model_of_the_demo_is_the_one_in_the_table(digits):
    folder, _ = digits
    saved = checkpoint.load(folder / "mae.npz", "mae", MAEConfig, mae_init)
    task = restore.prepare("digits")
    results = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    assert saved.config == task.config and saved.step == results["steps"] == len(saved.extra["losses"])
    ((name, images),) = task.validation.items()
    assert restore.table(images, saved.params, task.config) == results["validation"][name]
    assert saved.extra["evaluations"][-1][0] == saved.step and saved.extra["data"] == "digits"


def test_demo_names_normalised_pixels_in_its_pictures(tmp_path, drawn, capsys):
    data = small_pictures(tmp_path)
    options = ["--norm-pix-loss", "--mask-ratio", "0.5", "--out", str(tmp_path / "out")]
    assert main(["demo", "--data", data, "--steps", "2", *options]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == DIGITS_FILES | {"restored_50.png"}
    assert len(drawn) == 3 and all("visible patches" in call["mode"] and "TRUE" not in call["mode"] for call in drawn)
    saved = checkpoint.load(tmp_path / "out" / "mae.npz", "mae", MAEConfig, mae_init)
    task = restore.prepare(data, mask_ratio=0.5, norm_pix_loss=True)
    assert saved.config == task.config and saved.config.norm_pix_loss and saved.config.mask_ratio == 0.5
    validation = task.validation["validation images"][:2]
    pictures, original, mode = restore.restore(validation, saved.params, saved.config, 0.5)
    assert mode == drawn[0]["mode"]
    np.testing.assert_array_equal(original, to_picture(validation))
    assert all(picture.shape == original.shape and picture.dtype == np.uint8 for picture in pictures)


def test_demo_that_is_interrupted_still_shows_how_far_it_got(tmp_path, interrupt, capsys):
    interrupt(2)
    assert main(["demo", "--data", small_pictures(tmp_path), "--steps", "50", "--out", str(tmp_path / "out")]) == 0
    assert "stopped after 2 steps" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == DIGITS_FILES
    assert json.loads((tmp_path / "out" / "demo.json").read_text(encoding="utf-8"))["steps"] == 2


@pytest.mark.parametrize("options", [
    ["--mask-ratio", "0"], ["--mask-ratio", "0.97"], ["--data", "two channels"], ["--out", "a file"],
])
def test_a_demo_that_cannot_be_finished_does_not_start(tmp_path, capsys, options):
    """Nobody should wait for minutes of training to read that there will be no table, or no picture."""
    (tmp_path / "a file").write_text("in the way")
    channels = 2 if "two channels" in options else 1
    data, out = small_pictures(tmp_path, channels=channels), tmp_path / ("a file" if "a file" in options else "out")
    before = files(tmp_path)
    ratio = options if options[0] == "--mask-ratio" else []
    status = main(["demo", "--data", data, "--steps", "2", "--out", str(out), *ratio])
    err = capsys.readouterr().err
    if status:
        assert err.count("\n") == 1 and err.startswith("tinymae: ")      # no progress bar: it did not train
        assert files(tmp_path) == before
    else:
        results = json.loads((out / "demo.json").read_text(encoding="utf-8"))
        assert all(np.isfinite(cell["error"]) for cell in results["validation"]["validation images"].values())
        assert {"mae.npz", "demo.json", "loss.png"} <= {path.name for path in out.iterdir()}


def test_a_table_that_cannot_be_written_leaves_nothing_half_written(tmp_path, monkeypatch, capsys):
    data, replace = small_pictures(tmp_path), os.replace

    def fails(source, target):
        if str(target).endswith("demo.json"):
            raise OSError("no room for demo.json")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    assert main(["demo", "--data", data, "--steps", "1", "--out", str(tmp_path / "out")]) == 1
    assert "no room for demo.json" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mae.npz"]


@pytest.fixture(scope="module")
def photo_task(photos_with_task):
    return photos_with_task[1]


@pytest.mark.parametrize(("speed", "dim", "said"), [
    (1.0, 96, "too few to be better than linear interpolation: --minutes 5 would be enough"),
    (3.0, 96, "too few to be better than linear interpolation: --minutes 2 would be enough"),
    (5.0, 96, None), (100.0, 128, None),
])
def test_the_demo_fits_itself_to_the_machine(tmp_path, monkeypatch, photo_task, speed, dim, said):
    """Before it trains, it says how many steps will fit, and whether they will be enough."""
    monkeypatch.setattr(demo, "prepare", lambda *arguments: photo_task)
    monkeypatch.setattr(demo, "steps_that_fit", lambda task, minutes, threads: round(60 * minutes * speed))
    trained = []
    monkeypatch.setattr(demo, "train_mae", lambda task, *arguments, **options: trained.append(task) or 1 / 0)
    lines = []
    with pytest.raises(ZeroDivisionError):
        demo.demo("photos", tmp_path / "out", minutes=1.0, say=lines.append)
    (task,) = trained
    assert (task.batch, task.config.embed_dim) == (32, dim)
    printed = "\n".join(lines)
    assert f"In 1 minutes about {60 * speed:,.0f} steps of 32 images will fit on this machine." in printed
    assert said in printed if said else "enough" not in printed


def test_steps_that_fit_are_those_left_after_evaluations(tmp_path, monkeypatch):
    """Of a minute, twenty evaluations of one second each leave 40 s."""
    task = restore.prepare(small_pictures(tmp_path))
    clock = iter(range(0, 10**6))

    def loss(task, workers):
        return lambda params: None

    monkeypatch.setattr(restore, "validation_loss", loss)
    monkeypatch.setattr(restore.time, "perf_counter", lambda: float(next(clock)))       # each look at the clock is a second
    assert restore.steps_that_fit(task, 1.0, threads=1, seconds=9.5) == round(40 * 9 / 11)
    assert restore.steps_that_fit(task, 0.3, threads=1, seconds=3.5) == 0


# The table


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_table_is_measured_on_the_same_hidden_pixels(norm_pix_loss):
    config = MAEConfig(**TINY, norm_pix_loss=norm_pix_loss)
    params = mae_init(config, np.random.default_rng(0))
    unseen = to_pixels(numbers(5, 12, 12, 3))
    noise = restore.validation_noise(unseen, config)
    assert noise.shape == (5, 9) and np.array_equal(noise, restore.validation_noise(unseen, config))
    *_, mask = random_masking(noise, config.mask_ratio)
    removed = np.array([np.kron(row.reshape(3, 3), np.ones((4, 4))) for row in mask]) == 1
    constant = []
    for picture, gone in zip(unseen.astype(np.float64), removed, strict=True):
        constant.append(((picture[gone] - picture[~gone].mean(axis=0)) ** 2).mean())
    measured = restore.table(unseen, params, config)
    assert list(measured) == ["mae", "harmonic", "linear", "nearest", "mean"]
    assert all(type(value) is float for row in measured.values() for value in row.values())
    table = {name: row["error"] for name, row in measured.items()}
    bytes_off = ((mean_fill(unseen, removed) - unseen)[removed] * STD * 255).astype(np.float64)       # PSNR as in textbooks
    assert measured["mean"]["psnr"] == pytest.approx(20 * np.log10(255 / np.sqrt((bytes_off**2).mean())), rel=1e-5)
    assert all(-1 <= row["ssim"] < 1 for row in measured.values())
    assert table["mean"] == pytest.approx(np.mean(constant), rel=1e-5)
    for name, fill in (("nearest", nearest_fill), ("linear", linear_fill)):
        error = (fill(unseen, removed) - unseen)[removed].astype(np.float64)
        assert table[name] == pytest.approx((error**2).mean(), rel=1e-5), name
    if norm_pix_loss:                                           # as a user would see it: nothing from the true picture
        shown = mae_reconstruct(unseen, params, config, noise).pasted.astype(np.float64)
        assert table["mae"] == pytest.approx(((shown - unseen)[removed] ** 2).mean(), rel=1e-5)
    else:
        assert table["mae"] == pytest.approx(float(mae_forward(unseen, params, config, noise)[0]), rel=1e-5)


# What to learn from


def test_small_pictures_are_used_whole_and_the_last_fifth_is_kept_apart(tmp_path):
    task = restore.prepare(small_pictures(tmp_path, count=25))
    pictures = numbers(25, 8, 8, 3)
    assert task.config.img_size == 8 and task.config.in_chans == 3 and not task.photos
    np.testing.assert_array_equal(to_picture(task.validation["validation images"]), pictures[-5:])
    sample = task.sample(np.random.default_rng(0), 200)
    assert sample.shape == (200, 8, 8, 3) and sample.dtype == np.float32
    seen = {picture.tobytes() for picture in to_picture(sample)}
    assert len(seen) > 15 and not seen & {picture.tobytes() for picture in pictures[-5:]}
    np.testing.assert_array_equal(sample, task.sample(np.random.default_rng(0), 200))


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (2, 2), (7, 7), (28, 28), (31, 31), (61, 61), (64, 64), (20, 13)])
def test_small_pictures_of_any_size(tmp_path, rows, cols):
    np.savez(tmp_path / "small.npz", images=numbers(3, rows, cols))
    task = restore.prepare(str(tmp_path / "small.npz"))
    config = task.config
    assert config.img_size % config.patch_size == 0 and config.patch_size >= 2 and config.grid[0] >= 4
    assert task.validation["validation images"].shape == (1, config.img_size, config.img_size, 1)
    assert task.sample(np.random.default_rng(0), 2).shape == (2, config.img_size, config.img_size, 1)


@pytest.mark.parametrize("channels", [2, 4, 10, 16])
@pytest.mark.parametrize(("rows", "cols"), [(33, 33), (64, 48), (70, 66), (90, 3)])
def test_images_of_many_bands(tmp_path, rows, cols, channels):
    """Used whole or in crops; a band that is black in all images stays black in the validation set."""
    pictures = numbers(3, rows, cols, channels)
    pictures[..., -1] = 0
    np.savez(tmp_path / "bands.npz", images=pictures)
    task = restore.prepare(str(tmp_path / "bands.npz"))
    size = task.config.img_size
    (validation,) = map(to_picture, task.validation.values())
    assert task.config.in_chans == channels and validation.shape[1:] == (size, size, channels)
    assert not validation[..., -1].any() and validation[..., :-1].std() > 20
    assert task.sample(np.random.default_rng(0), 2).shape == (2, size, size, channels)


def test_photographs_become_crops(tmp_path):
    """Of several sizes: the last one of three is kept apart, whole and in crops."""
    for i, (rows, cols) in enumerate([(70, 90), (100, 66), (80, 120)]):
        Image.fromarray(numbers(rows, cols, 3, seed=i)).save(tmp_path / f"{i}.png")
    task = restore.prepare(str(tmp_path))
    size = task.config.img_size
    assert task.config.in_chans == 3
    np.testing.assert_array_equal(task.photos["validation photograph"], numbers(80, 120, 3, seed=2))
    (validation,), (again,) = (each.validation.values() for each in (task, restore.prepare(str(tmp_path))))
    assert len(validation) >= 1 and validation.shape[1:] == (size, size, 3) and validation.dtype == np.float32
    np.testing.assert_array_equal(validation, again)            # always the same ones
    sample = task.sample(np.random.default_rng(0), 7)
    assert sample.shape == (7, size, size, 3) and sample.dtype == np.float32 and np.isfinite(sample).all()
    assert len({picture.tobytes() for picture in sample}) == 7
    np.testing.assert_array_equal(sample, task.sample(np.random.default_rng(0), 7))


def test_grey_photographs_become_crops(tmp_path):
    np.savez(tmp_path / "grey.npz", images=numbers(3, 70, 90))
    task = restore.prepare(str(tmp_path / "grey.npz"))
    assert task.config.in_chans == 1 and task.photos["validation photograph"].shape == (70, 90, 1)
    assert task.sample(np.random.default_rng(0), 2).shape == (2, task.config.img_size, task.config.img_size, 1)


@pytest.mark.parametrize(("rows", "cols", "channels"), [(60, 90, 3), (90, 60, 1), (1, 1, 3), (3, 200, 3)])
def test_unseen_crops(rows, cols, channels):
    """Parts of the photograph; of one colour where it has one colour."""
    photo = numbers(rows, cols, channels)
    found = crops.unseen_crops(photo, 12, 5)
    assert found.shape == (5, 12, 12, channels) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, crops.unseen_crops(photo, 12, 5))
    flat = crops.unseen_crops(np.full_like(photo, 77), 12, 5)
    assert (flat == 77).all()


@pytest.mark.parametrize("kind", ["folder", "npz", "idx", "idx.gz"])
def test_every_source_trains(tmp_path, kind, capsys):
    pictures = numbers(5, 8, 8)
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(path / f"{i}.png")
    elif kind == "npz":
        path = tmp_path / "data.npz"
        np.savez(path, images=pictures)
    else:
        data = bytes([0, 0, 8, 3]) + struct.pack(">3I", *pictures.shape) + pictures.tobytes()
        path.write_bytes(gzip.compress(data) if kind == "idx.gz" else data)
    assert main(["train", "mae", "--data", str(path), "--steps", "1", "--out", str(tmp_path / "out")]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("1 steps, loss on validation images ") and out.strip().endswith(str(tmp_path / "out" / "mae.npz"))
    saved = checkpoint.load(tmp_path / "out" / "mae.npz", "mae", MAEConfig, mae_init)
    assert saved.config.in_chans == (3 if kind == "folder" else 1) and saved.extra["data"] == str(path)


def test_any_number_of_channels_trains(tmp_path, capsys):
    for channels in (2, 5):
        data = small_pictures(tmp_path, channels=channels)
        assert main(["train", "mae", "--data", data, "--steps", "1", "--out", str(tmp_path / str(channels))]) == 0
        assert checkpoint.load(tmp_path / str(channels) / "mae.npz", "mae", MAEConfig, mae_init).config.in_chans == channels


# Training, and going on with it


def train_small(out, *options, status=0):
    """Train on a few small pictures; returns the path of the model."""
    data = small_pictures(out.parent)
    assert main(["train", "mae", "--data", data, "--out", str(out), *options]) == status
    return out / "mae.npz"


def test_interrupted_and_resumed_equals_straight(tmp_path, interrupt, capsys):
    straight = train_small(tmp_path / "straight", "--steps", "8")
    interrupt(4)
    parts = train_small(tmp_path / "parts", "--steps", "8")
    assert "interrupted; the same command with --resume continues" in capsys.readouterr().out
    assert arrays(parts)[1]["step"] == 4
    train_small(tmp_path / "parts", "--steps", "8", "--resume")
    assert arrays(parts)[1]["step"] == 8 == len(arrays(parts)[1]["extra"]["losses"])
    assert_same_model(parts, straight)


def test_a_finished_run_can_be_trained_on(tmp_path, capsys):
    path = train_small(tmp_path / "out", "--steps", "4")
    _, before = arrays(path)
    train_small(tmp_path / "out", "--steps", "6", "--resume")
    _, after = arrays(path)
    assert after["step"] == after["t"] == 6 and after["extra"]["losses"][:4] == before["extra"]["losses"]
    train_small(tmp_path / "out", "--steps", "6", "--resume")          # nothing left to do
    assert arrays(path)[1] == after
    out, _ = capsys.readouterr()
    assert out.splitlines()[-1] == out.splitlines()[-2]


def test_threads_do_not_change_the_result(tmp_path, capsys):
    paths = [train_small(tmp_path / str(threads), "--steps", "3", "--threads", str(threads)) for threads in (1, 2, 3)]
    for path in paths[1:]:
        assert_same_model(path, paths[0])


def test_the_seed_changes_the_result(tmp_path, capsys):
    first, same, other = (train_small(tmp_path / str(i), "--steps", "1", "--seed", s) for i, s in enumerate("001"))
    assert_same_model(first, same)
    assert arrays(first)[1]["extra"]["losses"] != arrays(other)[1]["extra"]["losses"]


def of_version_2(path, extra):
    """Rewrite a checkpoint as tinymae 0.2 wrote it: without the options, the data and the vocabularies."""
    with np.load(path) as file:
        contents = {name: file[name] for name in file.files}
    meta = json.loads(str(contents["meta"]))
    meta["format"] = "tinymae checkpoint 2"
    history = {name: meta["extra"][name] for name in ("losses", "evaluations", "seconds")}
    meta["extra"] = history | extra
    np.savez(path, **contents | {"meta": np.array(json.dumps(meta))})


def test_a_file_of_tinymae_02_is_used_and_not_continued(tmp_path, capsys):
    path = train_small(tmp_path / "out", "--steps", "1")
    photo = tmp_path / "photo.png"
    Image.fromarray(numbers(1, 20, 20, 3)[0]).save(photo)
    of_version_2(path, {"seed": 0, "crops": False, "data": "small.npz"})
    reconstruct = ["reconstruct", str(photo), "--model", str(tmp_path / "out"), "--out", str(tmp_path / "restored.png")]
    assert main(reconstruct) == 0 and (tmp_path / "restored.png").exists()
    capsys.readouterr()
    train_small(tmp_path / "out", "--steps", "2", "--resume", status=1)
    assert_one_line(capsys, str(path), "tinymae 0.2 wrote it, and only that version can continue its training")


def test_the_demo_replaces_its_own_model_only(tmp_path, capsys, monkeypatch):
    data, out = small_pictures(tmp_path), tmp_path / "out"
    monkeypatch.setattr(demo, "draw", lambda *arguments: ())    # figures are looked at elsewhere
    first = demo.demo(data, out, steps=2)
    assert sorted(path.name for path in out.iterdir()) == ["demo.json", "mae.npz"]
    lines = []
    assert demo.demo(data, out, steps=2, say=lines.append)["validation"] == first["validation"]
    assert f"{out / 'mae.npz'}: replaces the model of an earlier demo" in lines
    of_version_2(out / "mae.npz", {"seed": 0, "crops": False, "data": data})
    demo.demo(data, out, steps=2)
    before = files(out)
    monkeypatch.setattr(demo, "train_mae", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):                      # whatever ends it, the old model is there with its table
        demo.demo(data, out, steps=2)
    assert files(out) == before
    path = train_small(tmp_path / "other", "--steps", "1")
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"mae\.npz: is not the model of a demo"):
        demo.demo(data, tmp_path / "other", steps=2)
    assert path.read_bytes() == before


def test_minutes_end(tmp_path, capsys):
    path = train_small(tmp_path / "out", "--minutes", "0.005")
    assert arrays(path)[1]["step"] >= 1


@pytest.mark.parametrize("options", [["--mask-ratio", "0.5"], ["--norm-pix-loss"], ["--data", "small"]])
def test_resume_with_other_options(tmp_path, capsys, options):
    path = train_small(tmp_path / "out", "--steps", "1")
    before = path.read_bytes()
    capsys.readouterr()
    if options[0] == "--data":
        (tmp_path / "other").mkdir()
        options = ["--data", small_pictures(tmp_path / "other", channels=1)]
    train_small(tmp_path / "out", "--steps", "2", "--resume", *options, status=1)
    assert_one_line(capsys, str(path), "other options: resume with the same ones", lines=3 if "--data" in options else 2)
    assert path.read_bytes() == before


def test_resume_with_nothing_there(tmp_path, capsys):
    train_small(tmp_path / "out", "--steps", "2", "--resume", status=1)
    assert_one_line(capsys, str(tmp_path / "out" / "mae.npz"), "no such checkpoint")
    assert files(tmp_path).keys() == {"small.npz"}


@pytest.mark.parametrize("with_optimizer", [False, True])
def test_resume_from_a_model_that_was_saved_otherwise(tmp_path, capsys, with_optimizer):
    """Without an optimiser, or without the history that training keeps."""
    config = restore.prepare(small_pictures(tmp_path)).config
    params, rng = mae_init(config, np.random.default_rng(0)), np.random.default_rng(0)
    optimizer = loop.AdamW(params) if with_optimizer else None
    path = checkpoint.save(tmp_path / "out" / "mae.npz", "mae", config, params, step=1, optimizer=optimizer, rng=rng)
    before = path.read_bytes()
    train_small(tmp_path / "out", "--steps", "2", "--resume", status=1)
    assert_one_line(capsys, str(path))
    assert path.read_bytes() == before


# How it fails: status 1, one line that names the file, and nothing is written


def assert_one_line(capsys, *expected, lines=1):
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tinymae: ") and err.endswith("\n") and err.count("\n") == lines, err
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


@pytest.mark.parametrize("command", [["demo"], ["train", "mae"]])
@pytest.mark.parametrize("name", ["missing", "empty", "lonely", "cut.gz", "cut.idx", "text.txt", "broken", "nothing.npz"])
def test_data_that_is_none(tmp_path, capsys, command, name):
    for folder in ("empty", "lonely", "broken"):
        (tmp_path / folder).mkdir()
    Image.fromarray(numbers(8, 8)).save(tmp_path / "lonely" / "1.png")
    for file in ("1.png", "2.png"):
        (tmp_path / "broken" / file).write_bytes((tmp_path / "lonely" / "1.png").read_bytes()[:50])
    idx = bytes([0, 0, 8, 3]) + struct.pack(">3I", 4, 8, 8) + bytes(4 * 64)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(idx, mtime=0)[:-12])
    (tmp_path / "cut.idx").write_bytes(idx[:-1])
    (tmp_path / "text.txt").write_text("no pictures")
    np.savez(tmp_path / "nothing.npz", pictures=np.zeros(3))
    before = files(tmp_path)
    assert main([*command, "--data", str(tmp_path / name), "--steps", "1", "--out", str(tmp_path / "out")]) == 1
    assert_one_line(capsys, str(tmp_path / name))
    assert files(tmp_path) == before


@pytest.mark.parametrize(("options", "reason"), [
    (["--mask-ratio", "1.0"], "mask_ratio to be a number in [0, 1), got 1.0"),
    (["--mask-ratio", "nan"], "mask_ratio to be a number in [0, 1), got nan"),
    (["--steps", "0"], "one of steps, minutes and epochs, positive"),
    (["--steps", "-3"], "one of steps, minutes and epochs, positive"),
    (["--minutes", "0"], "one of steps, minutes and epochs, positive"),
    (["--minutes", "nan"], "one of steps, minutes and epochs, positive"),
    (["--minutes", "inf"], "one of steps, minutes and epochs, positive"),
    (["--threads", "0"], "at least 1 thread, got 0"),
    (["--threads", "-1"], "at least 1 thread, got -1"),
    (["--seed", "-1"], "non-negative"),
])
def test_options_that_do_not_fit(tmp_path, capsys, options, reason):
    length = [] if options[0] in ("--steps", "--minutes") else ["--steps", "1"]
    assert main(["train", "mae", "--data", "digits", "--out", str(tmp_path / "out"), *length, *options]) == 1
    assert_one_line(capsys, reason)
    assert files(tmp_path) == {}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")        # overflow, on the way to a loss that is not finite
def test_training_that_diverges_keeps_the_last_model(tmp_path, capsys, monkeypatch):
    path = train_small(tmp_path / "out", "--steps", "2")
    before = path.read_bytes()
    capsys.readouterr()
    monkeypatch.setattr(restore, "LEARNING_RATE", 1e30)
    train_small(tmp_path / "out", "--steps", "40", "--resume", status=1)
    err = capsys.readouterr().err
    wrong, note = err.splitlines()[-2:]
    assert wrong.startswith("tinymae: step ") and "lower learning rate" in wrong and "came out of " in wrong
    assert note == f"tinymae: the run is saved as it was after 2 steps, in {path}, and can be resumed from there"
    assert path.read_bytes() == before


# The command line


@pytest.fixture
def asked(monkeypatch):
    """What the command line asks of tasks.demo.demo: a list of (data, out, options)."""
    calls = []
    monkeypatch.setattr(demo, "demo", lambda data, out, **options: calls.append((data, out, options)))
    return calls


def test_no_command_is_the_demo(asked, monkeypatch):
    assert main([]) == main(["demo"]) == 0
    monkeypatch.setattr(sys, "argv", ["tinymae"])
    assert main() == 0
    assert asked[0] == asked[1] == asked[2]
    data, out, options = asked[0]
    assert data == "photos" and out == Path("figures") and options["mask_ratio"] == 0.75 and options["threads"] is None
    assert options["steps"] is None and options["minutes"] > 0
    assert main(["--steps", "3", "--norm-pix-loss"]) == main(["demo", "--steps", "3", "--norm-pix-loss"]) == 0
    assert asked[3] == asked[4] and asked[3][2]["steps"] == 3 and asked[3][2]["minutes"] is None
    assert asked[3][2]["norm_pix_loss"] is True


def test_digits_take_less_time(asked):
    for arguments in ([], ["--data", "digits"], ["--data", "digits", "--minutes", "7"]):
        main(arguments)
    photos, digits, told = (options["minutes"] for _, _, options in asked)
    assert 0 < digits < photos and told == 7


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["demo", "--help"], ["train", "mae", "-h"], ["reconstruct", "-h"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    out, err = capsys.readouterr()
    assert leaving.value.code == 0 and out.startswith("usage: python -m tinymae") and err == ""
    if len(arguments) == 1:
        assert all(command in out for command in ("demo", "train", "reconstruct", "gradcheck"))


def test_version(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0 and capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("arguments", [
    ["paint"], ["train"], ["train", "gpt"], ["train", "mae"], ["reconstruct"],
    ["reconstruct", "a.png", "--model", "a", "--weights", "b"], ["--steps", "three"],
    ["--steps", "3", "--minutes", "1"], ["--mask-ratio"], ["--unknown"],
])
def test_a_command_line_that_is_wrong(arguments, capsys, asked):
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2 and "usage: python -m tinymae" in capsys.readouterr().err and asked == []


def test_as_a_program(tmp_path):
    """python -m tinymae: the exit status counts, and nobody waits for matplotlib who asks for no picture."""
    failing = [sys.executable, "-m", "tinymae", "--data", str(tmp_path / "none")]
    done = subprocess.run(failing, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith("tinymae: ")
    training = (
        "import sys; from tinymae.__main__ import main; "
        f"main(['train', 'mae', '--data', {small_pictures(tmp_path)!r}, '--steps', '1', '--out', {str(tmp_path)!r}]); "
        "print({'matplotlib', 'seaborn', 'torch'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", training], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "set()", done.stderr
