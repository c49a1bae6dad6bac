"""What a learner has done: a small JSON file in the user's data folder.

    {"lessons": {"3": "done", "7": 4}, "exercises": {"layernorm": {"hints": 1, "solved": true}}}

A lesson is "done", or the number is the cell at which its walk was left. Nothing else is kept, and nothing leaves the machine.
"""
import json
import os
from pathlib import Path

from platformdirs import user_data_path

from tinymae.files import whole_file
from tinymae.messages import message as _


def progress_file() -> Path:
    """The file, which need not exist yet: in the user's data folder, or in that of the environment variable TINYMAE_DATA."""
    folder = os.environ.get("TINYMAE_DATA")
    return (Path(folder) if folder else user_data_path("tinymae", appauthor=False)) / "progress.json"


def load_progress() -> dict:
    """{"lessons": {number as a string: "done" or a cell}, "exercises": {name: {"hints": count, "solved": bool}}}.

    Raises
    ------
    ValueError
        if the file is damaged
    """
    path = progress_file()
    if not path.is_file():
        return {"lessons": {}, "exercises": {}}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        lessons = {str(int(number)): "done" if cell == "done" else int(cell) for number, cell in found["lessons"].items()}
        exercises = {
            name: {"hints": int(each["hints"]), "solved": bool(each["solved"])} for name, each in found["exercises"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(_("{path}: is not what tinymae wrote ({error}): `python -m tinymae progress --reset` begins anew",
                           path=path, error=error)) from error
    return {"lessons": lessons, "exercises": exercises}


def note_lesson(number: int, cell: int | None = None) -> None:
    """Keep that a lesson is done, or the cell at which it was left. What is done stays done."""
    found = load_progress()
    if found["lessons"].get(str(number)) != "done":
        found["lessons"][str(number)] = "done" if cell is None else cell
        _save(found)


def note_solved(name: str) -> None:
    """Keep that an exercise is solved."""
    found = load_progress()
    found["exercises"].setdefault(name, {"hints": 0})["solved"] = True
    _save(found)


def next_hint(name: str, count: int) -> int:
    """The number of the next of an exercise's `count` hints, from 0, which is kept as taken; the last one again and again."""
    found = load_progress()
    taken = found["exercises"].setdefault(name, {"hints": 0, "solved": False})
    number = min(taken["hints"], count - 1)
    taken["hints"] = number + 1
    _save(found)
    return number


def reset() -> None:
    """Forget everything."""
    progress_file().unlink(missing_ok=True)


def _save(found):
    with whole_file(progress_file()) as file:
        file.write((json.dumps(found, indent=1) + "\n").encode())
