"""Every lesson runs as a plain script, offline and without a screen, and its pictures are there."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

LESSONS = sorted((Path(__file__).parents[1] / "lessons").glob("[0-9]*.py"))


def test_there_are_lessons():
    assert len(LESSONS) >= 3


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson(lesson, tmp_path):
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONWARNINGS": "error,ignore:no font on this machine:UserWarning"}
    result = subprocess.run(
        [sys.executable, lesson], cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert result.returncode == 0, result.stderr
    drawn = [line for line in result.stdout.splitlines() if line.endswith(".png")]
    assert drawn and all((tmp_path / path).stat().st_size > 1000 for path in drawn)
