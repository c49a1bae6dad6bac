"""The command line of the gradient check: what it prints, writes and returns."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tinymae.__main__ import main
from tinymae.cli import options
from tinymae.gradcheck import cases
from tinymae.images.sources import KNOWN_IMAGES, KNOWN_LABELLED, SOURCES, Source
from tinymae.learn import lessons
from tinymae.ops.softmax import softmax_backward, softmax_forward
from tinymae.text.corpus import CORPORA, FILE_EPOCHS, KNOWN_CORPORA


def some_checks(backward):
    def find(seed=0):
        x = np.random.default_rng(seed).normal(size=(2, 5))
        return [cases.Check("softmax", softmax_forward, softmax_forward, backward, (x,), {})]

    return find


def test_a_right_gradient_is_one_row_and_status_0(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cases, "checks", some_checks(softmax_backward))
    assert main(["gradcheck", "--json", str(tmp_path / "rows.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-2:] == ["error", "verdict"]
    assert lines[1].startswith("softmax ") and lines[1].endswith(" ok")
    assert "1 tensors, 0 wrong" in lines
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["check"] == "softmax" and row["tensor"] == "scores" and row["ok"] and row["error"] < 1e-6


@pytest.mark.parametrize(("bug", "cause"), [
    (lambda dy, cache: softmax_backward(dy, cache) / 2, "2 is the batch size"),
    (lambda dy, cache: softmax_backward(dy, cache)[0], "shape"),
])
def test_a_wrong_one_is_named_explained_and_status_1(monkeypatch, capsys, tmp_path, bug, cause):
    monkeypatch.setattr(cases, "checks", some_checks(bug))
    assert main(["gradcheck", "--json", str(tmp_path / "rows.json")]) == 1
    output = capsys.readouterr().out
    assert "WRONG" in output and cause in output and "1 tensors, 1 wrong" in output
    text = (tmp_path / "rows.json").read_text()
    assert "NaN" not in text and "Infinity" not in text         # JSON knows neither
    (row,) = json.loads(text)
    assert not row["ok"] and cause in row["diagnosis"]


# Published weights, end to end: a model trained here goes out and comes back


@pytest.fixture(scope="module")
def mae_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mae")
    assert main(["train", "mae", "--data", "digits", "--steps", "2", "--embed-dim", "16", "--depth", "1", "--heads", "2",
                 "--decoder-embed-dim", "8", "--decoder-depth", "1", "--decoder-heads", "2", "--out", str(folder)]) == 0
    return folder


def test_the_sizes_of_train_mae(mae_folder, capsys):
    from tinymae.tasks.encoders import load_encoder

    config = load_encoder(mae_folder).config
    assert (config.embed_dim, config.depth, config.decoder_embed_dim, config.patch_size) == (16, 1, 8, 2)
    assert main(["probe", "--model", str(mae_folder), "--data", "digits", "--per-class", "2"]) == 0
    output = capsys.readouterr().out
    assert "trained on 20 labels" in output and "logistic regression" in output and "nearest neighbours" in output


@pytest.mark.parametrize(("to", "name"), [("mae", "mae.pth"), ("vit-mae", "hugging-face")])
def test_export_and_inspect(mae_folder, tmp_path, capsys, to, name):
    target = tmp_path / name
    assert main(["export", "--model", str(mae_folder), "--to", to, str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert main(["inspect", str(target)]) == 0
    output = capsys.readouterr().out
    assert "a masked autoencoder" in output and "it can: reconstruct" in output and "numbers" in output
    assert main(["export", "--model", str(mae_folder), "--to", "vit", str(target)]) == 1
    assert "expected --to mae or vit-mae" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "nothing.pth")]) == 1


def test_a_published_model_restores_a_photograph(tmp_path, capsys):
    from PIL import Image

    from tinymae.models.mae import MAEConfig, mae_init
    from tinymae.weights.export import export_mae
    from tinymae.weights.preparation import IMAGENET_MEAN, preparation
    from tinymae.weights.pth import write_pth
    from tinymae.weights.read import read_weights

    sizes = {"embed_dim": 16, "depth": 1, "num_heads": 2, "decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 16}
    config = MAEConfig(16, 4, 3, **sizes)
    ours = export_mae(tmp_path / "ours.pth", config, mae_init(config, np.random.default_rng(0)))
    assert preparation(ours).mean == 0.45
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(photo)
    picture = tmp_path / "restored.png"
    assert main(["reconstruct", str(photo), "--weights", str(ours), "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG") and "CC-BY-NC" not in capsys.readouterr().err
    theirs = write_pth(tmp_path / "theirs.pth", read_weights(ours).tensors)         # nothing in it says that it is ours
    assert preparation(theirs).mean == IMAGENET_MEAN
    assert main(["reconstruct", str(photo), "--weights", str(theirs), "--out", str(picture)]) == 1
    error = capsys.readouterr().err
    assert "CC-BY-NC" in error and "heads" in error                                 # of a width that nobody published
    with pytest.raises(SystemExit):
        main(["reconstruct", str(photo), "--weights", str(ours), "--model", str(tmp_path)])


def test_vit_commands(tmp_path, capsys, mae_folder):
    folder = str(tmp_path / "vit")
    small = ["--embed-dim", "16", "--depth", "1", "--heads", "2"]
    assert main(["train", "vit", "--data", "digits", "--steps", "2", *small, "--out", folder]) == 0
    assert "accuracy" in capsys.readouterr().out
    picture = tmp_path / "rollout.png"
    assert main(["evaluate", "vit", "--model", folder, "--data", "digits", "--rollout", str(picture)]) == 0
    output = capsys.readouterr().out
    assert "on 360 images" in output and "true class down" in output and picture.stat().st_size > 1000
    tuned = str(tmp_path / "tuned")
    assert main(["train", "vit", "--data", "digits", "--steps", "2", "--from", str(mae_folder), "--out", tuned]) == 0
    assert main(["export", "--model", folder, "--to", "vit", str(tmp_path / "vit.pth")]) == 0
    assert main(["export", "--model", folder, "--to", "mae", str(tmp_path / "mae.pth")]) == 1
    assert "expected --to vit" in capsys.readouterr().err


def test_published_translators(tmp_path, capsys):
    assert main(["translate", "--weights", str(tmp_path), "hello"]) == 1
    assert "config.json" in capsys.readouterr().err
    assert main(["translate", "--model", str(tmp_path), "--tokens", "3 4"]) == 1
    assert "--tokens is for published models" in capsys.readouterr().err
    assert main(["translate", "--weights", str(tmp_path), "--attention", "a.png", "hello"]) == 1
    assert "--attention is for models trained here" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough():
    """`python -m tinymae lessons | head -1`: no complaint about the closed pipe."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        result = subprocess.run(
            [sys.executable, "-m", "tinymae", "lessons"], stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize("error", [
    ZeroDivisionError("division by zero"), IndexError("list index out of range"), RecursionError("too deep"), MemoryError(),
    NotImplementedError(), OverflowError("too large"), KeyError("x"), AttributeError("no"), AssertionError(),
])
def test_any_error_is_one_line_and_a_traceback_with_debug(monkeypatch, capsys, error):
    def fails():
        raise error

    monkeypatch.setattr(lessons, "lessons", fails)
    assert main(["lessons"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err == f"tinymae: {type(error).__name__}: {error} (the same command with --debug says where)\n"
    for arguments in (["lessons", "--debug"], ["--debug", "lessons"]):
        with pytest.raises(type(error)):
            main(arguments)


def test_output_to_a_file_with_a_small_code_page(tmp_path):
    """As on Windows, where a file has the code page of the system: what is printed does not depend on it."""
    with (tmp_path / "out").open("wb") as file:
        code = (
            "import io, sys; sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='cp1252'); "
            "from tinymae.__main__ import main; sys.exit(main(['lessons']))"
        )
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True, env=environment)
    assert "注意力" in (tmp_path / "out").read_text(encoding="utf-8")


def test_help_names_the_sources_and_their_minutes(capsys):
    """The help texts are written out, so that `--help` imports no NumPy: they are those of the tables."""
    known = [text.replace("'", "") for text in (KNOWN_IMAGES, KNOWN_LABELLED, KNOWN_CORPORA)]
    assert [options.IMAGE_DATA, options.LABELLED_DATA, options.PAIR_DATA] == known
    for command, default in (
        (["train", "mae"], f"default: {Source.mae_minutes}, digits {SOURCES['digits'].mae_minutes}"),
        (["train", "vit"], f"default: {Source.vit_minutes}, digits {SOURCES['digits'].vit_minutes}"),
        (["train", "translate"], "default: " + ", ".join(f"{name} {each.minutes}" for name, each in CORPORA.items())),
        (["train", "translate"], f"default for files: {FILE_EPOCHS}"),
    ):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        assert default in " ".join(capsys.readouterr().out.split())


def test_help_needs_no_numpy():
    code = "import sys; from tinymae.__main__ import _parser; _parser(); print('numpy' in sys.modules, 'PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False False\n", done.stderr
