"""Every lesson runs as a plain script, offline and without a screen; its pictures are there, and its exercises have answers."""
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


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def lesson(request):
    return read_lesson(request.param)


def test_there_are_twenty():
    assert [int(path.name[:2]) for path in LESSONS] == list(range(1, 21))


def test_it_has_its_parts(lesson):
    headings = [cell.heading for cell in lesson.cells if cell.heading]
    assert not set(HEADINGS) - set(headings), f"missing: {set(HEADINGS) - set(headings)}"
    assert any(heading.startswith("Break it") for heading in headings)
    assert len(set(headings)) == len(headings), "two cells have the same heading: the article map could not tell them apart"
    assert lesson.cells[0].prose, "the docstring asks the question"
    assert re.search("[\u4e00-\u9fff]", lesson.chinese)


def test_it_draws_with_tinymae_only(lesson):
    code = lesson.path.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) (matplotlib|seaborn|torch)", code, re.MULTILINE)


def test_it_runs_and_its_exercises_have_answers(lesson, tmp_path):
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONIOENCODING": "utf-8",
                   "PYTHONWARNINGS": "error,ignore:no font on this machine:UserWarning"}
    answers = ROOT / "tests" / "answers" / lesson.path.name
    result = subprocess.run(
        [sys.executable, ROOT / "tests" / "lesson_driver.py", lesson.path, answers], cwd=tmp_path, env=environment,
        capture_output=True, text=True, encoding="utf-8", check=False,
    )
    assert result.returncode == 0, result.stderr
    drawn = [line for line in result.stdout.splitlines() if line.endswith(".png")]
    assert drawn and all((tmp_path / path).stat().st_size > 1000 for path in drawn)
