"""A learner's file, and the report on it: what `check_file` and `judge_file` take and return.

It imports no NumPy: a process that only waits for a report starts at once.
"""
from dataclasses import dataclass
from pathlib import Path

from tinymae.messages import message as _


@dataclass(frozen=True)
class Report:
    """The result of `check_file` and `judge_file`: whether everything is right, and the text for the learner."""

    ok: bool
    text: str
    exercise: str = ""          # its name, once the file has said it
    points: int = 0             # for a right solution
    most: int = 0               # points that the exercise has


def existing_file(path: Path | str) -> Path:
    """The path of a learner's file.

    Raises
    ------
    FileNotFoundError
        if there is no such file
    """
    path = Path(path)
    if not path.is_file():
        script = path.with_suffix(".py")
        if script.is_file():
            raise FileNotFoundError(_("there is no file {path}: did you mean {script}?", path=path, script=script))
        raise FileNotFoundError(_("there is no file {path}: `python -m tinymae exercise NAME` writes one", path=path))
    return path
