"""Run a lesson as a plain script; then its exercises again, with the right answers, and with each wrong one.

    python tests/lesson_driver.py lessons/NN_name.py tests/answers/NN_name.py
    python tests/lesson_driver.py               for each line ["lesson", "answers", "folder"] of its input

The second form prints the exit status of each lesson, and writes its output to the files stdout and stderr of the folder. Each
lesson runs in a fork of this process, which has imported the packages that take seconds to import, but nothing that it draws or
trains with from tinymae.
"""
import importlib
import json
import os
import re
import sys
import warnings
from pathlib import Path

from tinymae.learn.lesson_exercises import exercise_source
from tinymae.learn.lessons import read_lesson

BLANK = re.compile(r"^(answer_\d+) = None$", re.MULTILINE)


def exercises(lesson):
    """The code of the cell "Exercises", and of the cells without a heading that go on with it."""
    start = next(i for i, cell in enumerate(lesson.cells) if cell.heading == "Exercises")
    codes = [lesson.cells[start].code]
    for cell in lesson.cells[start + 1 :]:
        if cell.heading:
            break
        codes.append(cell.code)
    return "\n".join(codes)


def main(path, answers):
    """Raises where the lesson does, where a right answer fails, or where a wrong one passes."""
    namespace = {"__name__": "__main__", "__file__": str(path)}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), namespace)
    source = exercises(read_lesson(path))
    names = BLANK.findall(source)
    assert len(names) >= 2, f"{path.name}: expected at least two exercises, found {names}"
    cell = compile(BLANK.sub("", source), f"{path.name}: Exercises", "exec")
    exec(compile(answers.read_text(encoding="utf-8"), str(answers), "exec"), namespace)
    exec(cell, dict(namespace))
    for name in names:
        wrong = name.replace("answer", "wrong")
        try:
            exec(cell, namespace | {name: namespace[wrong]})
        except AssertionError:
            continue
        raise ValueError(f"{path.name}: {wrong} passes, though it is wrong")
    for name in names:                                          # the exercise alone has all that it needs
        compile(exercise_source(read_lesson(path), int(name.removeprefix("answer_"))), name, "exec")
    print(f"{len(names)} exercises")


def serve():
    """The second form. A child returns, and ends as any script does."""
    for name in ("matplotlib.backends.backend_agg", "seaborn", "sklearn.datasets", "sklearn.linear_model", "sklearn.neighbors"):
        importlib.import_module(name)
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)      # BLAS's idle threads
    for line in sys.stdin:
        path, answers, folder = map(Path, json.loads(line))
        process = os.fork()
        if process == 0:
            os.chdir(folder)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
            return main(path, answers)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:])) if sys.argv[1:] else serve()
