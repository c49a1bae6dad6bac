"""The folder of a run: one process writes to it, no model is lost by accident, nothing half-written stays."""
import errno
import os
import shutil
import subprocess
import sys

import pytest
from filelock import FileLock

from tinymae.files import fingerprint, whole_file
from tinymae.train import folder as module
from tinymae.train.folder import RunFolder, run_folder


def model(path, name="mae.npz"):
    path.mkdir(exist_ok=True)
    (path / name).write_bytes(b"a model")
    return path / name


def test_a_folder_with_a_model_is_refused_unless_it_is_resumed_or_overwritten(tmp_path):
    path = model(tmp_path)
    with pytest.raises(FileExistsError, match=r"mae\.npz: a model is there already.* --resume.*--overwrite, or give another"):
        with run_folder(tmp_path, "mae.npz"):
            pass
    for option in ({"resume": True}, {"overwrite": True}):
        with run_folder(tmp_path, "mae.npz", **option) as folder:
            assert folder.path == tmp_path
    assert path.read_bytes() == b"a model"


@pytest.mark.parametrize("option", [{}, {"overwrite": True}])
@pytest.mark.parametrize("other", ["vit.npz", "transformer.npz"])
def test_a_model_of_a_different_kind_is_never_joined(tmp_path, other, option):
    model(tmp_path, other)
    with pytest.raises(FileExistsError, match=other), run_folder(tmp_path, "mae.npz", **option):
        pass


def test_nothing_to_resume_makes_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume"), run_folder(tmp_path / "new", "mae.npz", resume=True):
        pass
    with pytest.raises(ValueError, match="resume or overwrite, got both"):
        with run_folder(tmp_path / "new", "mae.npz", resume=True, overwrite=True):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_goes_again_if_nothing_came_of_it(tmp_path):
    with pytest.raises(ZeroDivisionError), run_folder(tmp_path / "new", "mae.npz"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").mkdir()
    with run_folder(tmp_path / "old", "mae.npz"):
        pass
    assert (tmp_path / "old").is_dir()                          # that one is somebody else's


def test_the_lock_names_who_holds_it(tmp_path):
    with run_folder(tmp_path, "mae.npz"):
        expected = rf"process {os.getpid()} on .*, since \d{{4}}-\d\d-\d\d .* is training in this folder: wait"
        with pytest.raises(BlockingIOError, match=expected), run_folder(tmp_path, "mae.npz"):
            pass
        (tmp_path / ".lock-owner").unlink()
        with pytest.raises(BlockingIOError, match="another process is training in this folder"):
            RunFolder(tmp_path).hold()
    with run_folder(tmp_path, "mae.npz"):                       # it is free again
        pass
    assert not (tmp_path / ".lock-owner").exists()


def test_the_lock_dies_with_its_process(tmp_path):
    code = (
        "import os, sys; from tinymae.train.folder import RunFolder; folder = RunFolder(sys.argv[1]); folder.hold(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError, match=f"process {process.pid} on "):
        RunFolder(tmp_path).hold()
    process.kill()
    process.communicate()
    folder = RunFolder(tmp_path)
    folder.hold()
    assert (tmp_path / ".lock-owner").read_text().startswith(f"process {os.getpid()} on ")
    folder.release()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not delete a file that is open")
def test_a_folder_that_is_deleted_under_the_run_is_locked_again(tmp_path):
    path = tmp_path / "run"
    with run_folder(path, "mae.npz") as folder:
        shutil.rmtree(path)
        folder.hold()
        with pytest.raises(BlockingIOError):
            RunFolder(path).hold()
        model(path)
        shutil.rmtree(path)
        with run_folder(path, "mae.npz"), pytest.raises(BlockingIOError, match="is training in this folder"):
            folder.hold()                                       # it belongs to another run now
    with run_folder(path, "mae.npz"):                           # nobody holds it any more
        pass


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "last").mkdir()
    left = [tmp_path / f".mae.npz.{'0' * 32}.tmp", tmp_path / "last" / f".step-1.npz.{'a' * 32}.tmp"]
    kept = [tmp_path / name for name in (".mae.npz.tmp", f"mae.npz.{'0' * 32}.tmp", f".mae.npz.{'0' * 31}.tmp", "notes.txt")]
    for path in left + kept:
        path.write_text("")
    with run_folder(tmp_path, "mae.npz"):
        assert [path.exists() for path in left + kept] == [False] * 2 + [True] * 4


def test_a_leftover_has_the_name_that_is_removed(tmp_path, monkeypatch):
    with whole_file(tmp_path / "mae.npz") as file:
        name = os.path.basename(file.name)
    (tmp_path / name).write_text("")
    module.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mae.npz"]


def test_fingerprint():
    assert fingerprint(["ab", "c"]) == fingerprint([b"ab", b"c"]) == fingerprint(iter(["ab", "c"]))
    assert len({fingerprint(parts) for parts in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"], [], [""])}) == 6
    assert len(fingerprint([])) == 16


@pytest.mark.parametrize("below", ["", "deeper/model"])
def test_out_is_a_file(tmp_path, below):
    """Before training, and the file stays as it is."""
    (tmp_path / "a").write_text("precious")
    with pytest.raises(NotADirectoryError, match=r"a: expected a folder for the model, got a file"):
        RunFolder(tmp_path / "a" / below).hold()
    assert (tmp_path / "a").read_text() == "precious"


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    message = r"model: cannot be written to \(Read-only file system\): give another folder"
    with pytest.raises(OSError, match=message), run_folder(tmp_path / "model", "mae.npz"):
        pytest.fail("training has started")


def test_an_error_without_a_name_gets_one(tmp_path):
    """A full disk says what is wrong, and not where."""
    with pytest.raises(OSError, match=r"No space left on device: .*mae\.npz") as caught, whole_file(tmp_path / "mae.npz"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC and list(tmp_path.iterdir()) == []
