"""Whole files or none: what is written appears under its name only when it is complete."""
import os
import uuid
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path):
    """A binary file to write into, which takes its name when the block ends without an error.

    It is written beside its place under another name, flushed to the disk, and renamed. When something goes wrong, the old
    file is still there and nothing else is. A missing folder is made.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    OSError
        where the folder cannot be made or written to, or path is a folder
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
