"""Train in processes of their own, end these badly, and look at what is left. A program: `python tests/faults.py KIND KILLS`.

Python, NumPy and tinymae are imported once; each training is a fork of this process, so that one costs a tenth of a second.
KIND is mae, vit or translate. The program ends with an AssertionError if a run, or a part of one, is lost.
"""
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from tinymae.__main__ import main
from tinymae.tasks import classify, demo, train_translator  # noqa: F401    imported here, not in each child
from tinymae.train.folder import RunFolder

STEPS = 30
SMALL = ["--embed-dim", "8", "--depth", "1", "--heads", "1"]
OPTIONS = {
    "mae": [*SMALL, "--decoder-embed-dim", "8", "--decoder-depth", "1", "--decoder-heads", "1"],
    "vit": [*SMALL, "--batch", "10"],
    "translate": ["--d-model", "8", "--encoder-layers", "1", "--decoder-layers", "1", "--heads", "1", "--d-ff", "8",
                  "--tokens", "40"],
}
FILES = {"mae": "mae.npz", "vit": "vit.npz", "translate": "transformer.npz"}


def write_data(kind, folder):
    """A data set of this kind; returns the value of --data."""
    rng = np.random.default_rng(0)
    if kind == "translate":
        path = folder / "pairs.tsv"
        path.write_text("".join(f"{a} see {b}\t{b} sees {a}\n" for a in "ijklm" for b in "abcdefgh"), encoding="utf-8")
    else:
        path = folder / "images.npz"
        images = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
        np.savez(path, images=images, labels=np.arange(40) % 2)
    return str(path)


def command(kind, data, out, *more, steps=STEPS):
    return ["train", kind, "--data", data, "--out", str(out), "--steps", str(steps), "--threads", "1", "--save-every", "1e-9",
            *OPTIONS[kind], *more]


def start(arguments, *, output=os.devnull, prepare=lambda: None):
    """Run a command of tinymae in a fork; returns its process number. `output` is a file, or the number of one."""
    process = os.fork()
    if process == 0:
        try:
            file = output if isinstance(output, int) else os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            prepare()
            status = main(arguments)
        finally:
            os._exit(status if "status" in locals() else 99)    # 99: an exception that `main` does not know
    return process


def end(process):
    """The exit status of a process, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run(arguments, **options):
    return end(start(arguments, **options))


def content(path):
    """What a model file holds, without the seconds it took: {name: array}."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(str(arrays.pop("meta")))
    meta["extra"].pop("seconds", None)
    return arrays, meta


def assert_equal(path, other):
    (ours, meta), (theirs, expected) = content(path), content(other)
    assert meta == expected, (meta, expected)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert np.array_equal(array, theirs[name]), name


def killed(kind, folder, kills):
    """Kill a run again and again, at any moment, and resume it: nothing is ever lost, and the result is the same to the bit."""
    rng = np.random.default_rng(kills)
    data, whole, out = write_data(kind, folder), folder / "whole", folder / "out"
    began = time.monotonic()
    assert run(command(kind, data, whole)) == 0
    longest = time.monotonic() - began
    done, lost = 0, 0
    while done < kills:
        path, steps = out / FILES[kind], 0
        while True:
            resume = ["--resume"] if path.exists() else []
            process = start(command(kind, data, out, *resume), output=folder / "log")
            if done < kills:
                time.sleep(rng.uniform(0, 0.7 * longest))
                number = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP][done % 3]
                os.kill(process, number)
            status = end(process)
            if status == 0:                                     # it was done before, or was not killed
                break
            assert status in (-number, 128 + number), (status, (folder / "log").read_text())
            done += 1
            if path.exists():
                reached = content(path)[1]["step"]              # a whole file, and no step back
                assert reached >= steps, (reached, steps)
                steps = reached
            else:
                assert steps == 0
                lost += 1
        assert_equal(path, whole / FILES[kind])
        assert [it.name for it in out.rglob(".*.tmp")] == []
        if kind == "translate":
            assert (out / "held_out.tsv").read_bytes() == (whole / "held_out.tsv").read_bytes()
            for kept in sorted((whole / "last").iterdir()):
                assert_equal(out / "last" / kept.name, kept)
        shutil.rmtree(out)
    print(f"{kind}: {done} kills, {lost} of them before the first save")


def full_disk(kind, folder):
    """A save that does not fit: the last one stays, whole, and the run says so."""
    data, out = write_data(kind, folder), folder / "out"
    assert run(command(kind, data, out, steps=3)) == 0
    path = out / FILES[kind]
    before, size = path.read_bytes(), path.stat().st_size
    limit = size // 2
    status = run(
        command(kind, data, out, "--resume"), output=os.open(folder / "log", os.O_WRONLY | os.O_CREAT),
        prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert status == 1 and path.read_bytes() == before
    assert "File too large" in (folder / "log").read_text()
    assert not list(out.rglob(".*.tmp"))
    assert run(command(kind, data, out, "--resume")) == 0 and content(path)[1]["step"] == STEPS


def wait_for(path, read=lambda: time.sleep(0.01)):
    """Wait until a file is there."""
    began = time.monotonic()
    while not path.exists():
        assert time.monotonic() < began + 60, f"{path} is not there after a minute"
        read()


def closed_pipe(kind, folder):
    """The reader of the output closes it: the run ends, saved."""
    data, out = write_data(kind, folder), folder / "out"
    read, write = os.pipe()
    process = start(command(kind, data, out, steps=100_000), output=write, prepare=lambda: os.close(read))
    os.close(write)
    wait_for(out / FILES[kind], lambda: os.read(read, 4096))
    os.close(read)
    status = end(process)
    assert status == 1, status
    assert content(out / FILES[kind])[1]["step"] > 0


def second_run(kind, folder):
    """A second run in the folder is refused, and the first goes on."""
    data, out = write_data(kind, folder), folder / "out"
    first = start(command(kind, data, out, steps=100_000))
    wait_for(out / FILES[kind])
    for more in ([], ["--resume"], ["--overwrite"]):
        assert run(command(kind, data, out, *more), output=folder / "log") == 1
        assert f"process {first} on " in (folder / "log").read_text()
        (folder / "log").unlink()
    os.kill(first, signal.SIGTERM)
    assert end(first) == 128 + signal.SIGTERM


def deleted_folder(kind, folder):
    """The folder is deleted under the run: the next save writes the whole model again."""
    data, out = write_data(kind, folder), folder / "out"
    process = start(command(kind, data, out, steps=100_000), output=folder / "log")
    wait_for(out / FILES[kind])
    os.rename(out, folder / "gone")                             # to the run this is a folder that is deleted, all at once
    shutil.rmtree(folder / "gone", ignore_errors=True)
    wait_for(out / FILES[kind])
    os.kill(process, signal.SIGTERM)
    # deleted while it wrote, the run saves and ends by itself: with 1, or by the signal once it no longer handles it
    status = end(process)
    assert status in (128 + signal.SIGTERM, 1, -signal.SIGTERM), status
    step = content(out / FILES[kind])[1]["step"]                # 0 if it was deleted during the first save
    assert run(command(kind, data, out, "--resume", steps=step + 3), output=folder / "log") == 0, (folder / "log").read_text()
    folder = RunFolder(out)
    folder.hold()
    folder.release()


def not_a_folder(kind, folder):
    """--out that cannot be written: found before the training."""
    data = write_data(kind, folder)
    (folder / "file").write_text("in the way")
    assert run(command(kind, data, folder / "file" / "out", steps=100_000), output=folder / "log") == 1
    assert "file" in (folder / "log").read_text()


def begun_wrongly(kind, folder):
    """A new run with settings that cannot work leaves the model that it should have overwritten as it was."""
    data, out = write_data(kind, folder), folder / "out"
    assert run(command(kind, data, out, steps=3)) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    wrong = {"mae": ["--heads", "3"], "vit": ["--label-smoothing", "2"], "translate": ["--label-smoothing", "2"]}[kind]
    assert run(command(kind, data, out, "--overwrite", *wrong), output=folder / "log") == 1
    assert run(command(kind, data, out)) == 1                   # a model is there already
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)         # of a fork beside BLAS's idle threads
    kind, kills = sys.argv[1], int(sys.argv[2])
    for fault in (begun_wrongly, not_a_folder, full_disk, closed_pipe, second_run, deleted_folder):
        with tempfile.TemporaryDirectory() as folder:
            fault(kind, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        killed(kind, Path(folder), kills)
