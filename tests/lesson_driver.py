"""Run a lesson as a plain script; then its exercises again, with the right answers, and with each wrong one.

    python tests/lesson_driver.py lessons/NN_name.py tests/answers/NN_name.py
"""
import re
import sys
from pathlib import Path

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
    print(f"{len(names)} exercises")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
