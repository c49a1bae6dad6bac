"""Every lesson runs as a plain script, offline and without a screen; its pictures are there, and its exercises have answers."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinymae.learn.lessons import read_lesson

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "lessons").glob("[0-9]*.py"))
HEADINGS = ("Exercises", "In the articles")
DRIVER = [sys.executable, ROOT / "tests" / "lesson_driver.py"]
ENVIRONMENT = {"MPLBACKEND": "Agg", "PYTHONIOENCODING": "utf-8",
               "PYTHONWARNINGS": "error,ignore:no font on this machine:UserWarning"}


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def lesson(request):
    return read_lesson(request.param)


@pytest.fixture(scope="session")
def run():
    """Runs a lesson and its exercises in a folder: (exit status, what it printed, its errors).

    In a process of its own: a fork of one that has imported the large packages, or, where forks are not safe, a new one.
    """
    environment = {**os.environ, **ENVIRONMENT}
    if not hasattr(os, "fork") or sys.platform == "darwin":
        def anew(*paths, folder):
            result = subprocess.run(
                [*DRIVER, *paths], cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
            )
            return result.returncode, result.stdout, result.stderr

        yield anew
        return
    with subprocess.Popen(DRIVER, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        def in_fork(*paths, folder):
            print(json.dumps([*map(str, paths), str(folder)]), file=driver.stdin, flush=True)
            status = int(driver.stdout.readline())
            return status, *((folder / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))

        yield in_fork
        driver.stdin.close()


def test_they_are_numbered():
    assert [int(path.name[:2]) for path in LESSONS] == list(range(1, 36))


def test_it_has_its_parts(lesson):
    headings = [cell.heading for cell in lesson.cells if cell.heading]
    assert not set(HEADINGS) - set(headings), f"missing: {set(HEADINGS) - set(headings)}"
    assert sum(heading.startswith("Break it") for heading in headings) == 1
    assert headings[-2:] == list(HEADINGS)
    assert len(set(headings)) == len(headings), "two cells have the same heading: the article map could not tell them apart"
    assert lesson.cells[0].prose, "the docstring asks the question"
    assert re.search("[\u4e00-\u9fff]", lesson.chinese)


def test_it_is_one_sitting(lesson):
    """Short enough to finish, narrow enough for half a screen, and it says what one can do afterwards and how long it takes."""
    lines = lesson.path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 255 and len(lesson.cells) - 1 <= 12 and max(map(len, lines)) <= 88
    assert re.search(r"You will be able", lesson.cells[0].prose) and re.search(r"Time: .*to run", lesson.cells[0].prose)
    assert re.search(r"Needs: (nothing|lessons? \d+)", lesson.cells[0].prose)


def test_it_draws_with_tinymae_only(lesson):
    code = lesson.path.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) (matplotlib|seaborn|torch)", code, re.MULTILINE)


def test_it_runs_and_its_exercises_have_answers(lesson, run, tmp_path):
    status, printed, errors = run(lesson.path, ROOT / "tests" / "answers" / lesson.path.name, folder=tmp_path)
    assert status == 0, errors
    drawn = [line for line in printed.splitlines() if line.endswith(".png")]
    assert drawn and all((tmp_path / path).stat().st_size > 1000 for path in drawn)
