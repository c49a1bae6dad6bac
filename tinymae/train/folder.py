"""The folder of a training run: one process at a time writes to it, and no model in it is replaced by accident.

    with run_folder(out, "mae.npz", resume=False, overwrite=False) as folder:
        ...                     # train; folder.hold() before each save

The lock is a file that the operating system unlocks when the process ends, however it ends. Beside it stands who holds it.
"""
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tinymae.files import remove_leftovers
from tinymae.messages import message as _

MODELS = ("mae.npz", "vit.npz", "transformer.npz")              # a folder holds one of them
LOCK, OWNER = ".lock", ".lock-owner"


class RunFolder:
    """A folder that this process alone writes to, once `hold` has been called. See `run_folder`."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._lock, self._identity = None, None

    def hold(self) -> None:
        """Lock the folder, and lock it again if it was deleted or moved away since: a save then writes the whole model again.

        Raises
        ------
        BlockingIOError
            if another process, or another run of this one, writes to the folder; the message names it
        OSError
            if the folder cannot be created or written to
        """
        if self._lock is not None and _identity(self.path / LOCK) == self._identity:
            return
        self.release()
        file = next((path for path in (self.path, *self.path.parents) if path.exists() and not path.is_dir()), None)
        if file:
            raise NotADirectoryError(_("{file}: expected a folder for the model, got a file: give another name", file=file))
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise BlockingIOError(_(
                "{path}: {owner} is training in this folder: wait until it ends, or give another folder",
                path=self.path, owner=_owner(self.path),
            )) from error
        except OSError as error:                                # some file systems name no file
            raise type(error)(_(
                "{path}: cannot be written to ({reason}): give another folder, or change its permissions",
                path=self.path, reason=error.strerror or error,
            )) from error
        self._lock, self._identity = lock, _identity(self.path / LOCK)
        owner = _("process {number} on {host}, since {when},",
                  number=os.getpid(), host=platform.node(), when=time.strftime("%Y-%m-%d %H:%M:%S"))
        (self.path / OWNER).write_text(owner, encoding="utf-8")
        for folder in (self.path, self.path / "last"):
            remove_leftovers(folder)

    def release(self) -> None:
        """Unlock the folder."""
        if self._lock is None:
            return
        if _identity(self.path / LOCK) == self._identity:
            (self.path / OWNER).unlink(missing_ok=True)
        self._lock.release()
        self._lock = None


def _identity(path):
    """What tells a file from one that took its name later; None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _owner(folder):
    try:
        return (folder / OWNER).read_text(encoding="utf-8")
    except FileNotFoundError:                                   # it has locked the folder this very moment
        return _("another process")


@contextmanager
def run_folder(
    out: Path | str, model: str, *, resume: bool = False, overwrite: bool = False, rank: int = 0
) -> Iterator[RunFolder]:
    """A folder to train in, locked until the block ends.

    Parameters
    ----------
    out : the folder; it is created. If it is new and still empty in the end, it is removed
    model : the name of the model's file, one of MODELS
    resume : whether the model in the folder is continued
    overwrite : whether it may be replaced
    rank : of this process among those of the run. Rank 0 alone looks into the folder and locks it

    Raises
    ------
    FileExistsError
        if the folder holds a model and is neither resumed nor overwritten, or holds a model of a different kind
    FileNotFoundError
        if there is no model to resume
    ValueError
        if both resume and overwrite are given
    BlockingIOError, OSError
        as `RunFolder.hold`
    """
    if resume and overwrite:
        raise ValueError(_("expected resume or overwrite, got both: a model is continued, or replaced by a new one"))
    folder = RunFolder(out)
    if rank:
        yield folder
        return
    if resume and not (folder.path / model).is_file():
        raise FileNotFoundError(_("{path}: no such checkpoint: there is nothing to resume", path=folder.path / model))
    new = not folder.path.exists()
    folder.hold()
    try:
        found = [name for name in MODELS if (folder.path / name).is_file()]
        if found and not (resume or overwrite):
            raise FileExistsError(_("{path}: a model is there already: `train` with --resume continues it. Replace it with "
                                    "--overwrite, or give another folder", path=folder.path / found[0]))
        if set(found) - {model}:
            raise FileExistsError(_("{path}: holds {models}, not {model} alone: give another folder",
                                    path=folder.path, models=", ".join(found), model=model))
        yield folder
    finally:
        folder.release()
        if new:
            remove_if_empty(folder.path)


def remove_if_empty(path: Path) -> None:
    """Delete a folder that holds nothing but a lock."""
    if path.is_dir() and {file.name for file in path.iterdir()} <= {LOCK}:
        (path / LOCK).unlink(missing_ok=True)
        path.rmdir()
