"""The exercises of a lesson, each as a file of its own: what it needs is in it, and no more."""
import pytest

from tinymae.__main__ import main
from tinymae.learn.lesson_exercises import exercise_source, write_lesson_exercise
from tinymae.learn.lessons import read_lesson

LESSON = """\"\"\"
Sums · 求和
===========

How much?
\"\"\"
# %%
# A loop
# ------

import math

import numpy as np

state = [1]
state.append(2)
big = math.factorial(5000)                                      # what no exercise needs
x = np.ones(3)
x[0] = 5
row = "not this one"


def total(values):
    result = 0
    for each in values:
        result += each
    return result * scale


scale = 2
print("the lesson runs")

# %%
# Exercises
# ---------
# 1. What is the total of x?
#
# 2. Write a sum of state. It
#    has two lines.

answer_1 = None
if answer_1 is not None:
    assert answer_1 == total(x), "count again"


def reference(values):
    return sum(values)


answer_2 = None
if answer_2 is not None:
    rows = [answer_2(state), reference(state)]
    assert all(row == rows[0] for row in rows), "not the sum"

# %%
# In the articles
# ---------------
# None.
"""


@pytest.fixture
def lesson(tmp_path):
    path = tmp_path / "03_sums.py"
    path.write_text(LESSON, encoding="utf-8")
    return read_lesson(path)


def test_an_exercise_has_what_it_needs(lesson):
    first, second = exercise_source(lesson, 1), exercise_source(lesson, 2)
    assert "1. What is the total of x?" in first and "x[0] = 5" in first and "scale = 2" in first and "import numpy" in first
    assert not any(word in first for word in ("factorial", "state", "the lesson runs", "answer_2", "row ="))
    assert "2. Write a sum of state. It\n   has two lines." in second
    assert "state.append(2)" in second and "def reference" in second
    assert not any(word in second for word in ("np", "scale", "answer_1", "row = "))


@pytest.mark.parametrize(("number", "answer", "said", "status"), [
    (1, "14.0", "right", 0), (1, "7", "not right yet: count again", 1), (2, "sum", "right", 0), (2, "len", "not the sum", 1),
])
def test_the_command(lesson, tmp_path, monkeypatch, capsys, number, answer, said, status):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinymae.learn.lessons.lessons_folder", lambda: tmp_path)
    command = ["lesson", "3", "--exercise", str(number)]
    assert main(command) == 0
    path = tmp_path / f"lesson_03_exercise_{number}.py"
    assert main(command) == 0 and capsys.readouterr().out.splitlines()[-1] == "not answered yet"
    source = path.read_text(encoding="utf-8")
    path.write_text(source.replace(f"answer_{number} = None", f"answer_{number} = {answer}"), encoding="utf-8")
    assert main(command) == status
    assert said in capsys.readouterr().out
    with pytest.raises(FileExistsError, match="not overwritten"):
        write_lesson_exercise(lesson, number)


def test_there_is_no_such_exercise(lesson):
    with pytest.raises(ValueError, match="lesson 3 has no exercise 3: it has 1, 2"):
        exercise_source(lesson, 3)
