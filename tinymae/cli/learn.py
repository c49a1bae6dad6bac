"""Commands of the course: lessons, lesson, exercise, check, gradcheck."""
import argparse
import math
from pathlib import Path


def add_lessons(commands: argparse._SubParsersAction) -> None:
    """`lessons`."""
    lessons = commands.add_parser("lessons", help="list the lessons")
    lessons.set_defaults(command=_lessons)


def _lessons():
    from tinymae.learn.lessons import lessons

    for lesson in lessons():
        print(f"{lesson.number:2}  {lesson.title:50} {lesson.chinese}")
    print("\npython -m tinymae lesson 1 --step      walks through the first one, cell by cell")
    return 0


def add_lesson(commands: argparse._SubParsersAction) -> None:
    """`lesson`."""
    lesson = commands.add_parser("lesson", help="run a lesson, or walk through it cell by cell")
    lesson.add_argument("number", type=int, metavar="N", help="its number in the list")
    lesson.add_argument("--step", action="store_true", help="cell by cell: read, press Enter, look, go on")
    lesson.set_defaults(command=_lesson)


def _lesson(number, step):
    from tinymae.learn.lessons import find_lesson, run
    from tinymae.learn.stepper import step as walk

    (walk if step else run)(find_lesson(number))
    return 0


def add_exercise(commands: argparse._SubParsersAction) -> None:
    """`exercise`."""
    exercise = commands.add_parser("exercise", help="write an exercise, or a bug of the zoo, for you to solve")
    exercise.add_argument("name", nargs="?", metavar="NAME", help="which one (default: list them)")
    exercise.set_defaults(command=_exercise)


def _exercise(name):
    from tinymae.learn.exercises import list_exercises, write_exercise

    if name is None:
        for each, kind, lesson, summary in list_exercises():
            print(f"{each:32} {kind:9} lesson {lesson:2}  {summary}")
        print("\npython -m tinymae exercise NAME      writes NAME.py here; then: python -m tinymae check NAME.py")
        return 0
    path = write_exercise(name)
    print(f"{path}\nread it, complete it, then: python -m tinymae check {path}")
    return 0


def add_check(commands: argparse._SubParsersAction) -> None:
    """`check`."""
    check = commands.add_parser("check", help="check your solution of an exercise, and say what is wrong with it")
    check.add_argument("file", type=Path, metavar="FILE", help="what `exercise` wrote and you completed; it is executed")
    check.set_defaults(command=_check)


def _check(file):
    from tinymae.learn.process import check_file

    report = check_file(file)
    print(report.text)
    return 0 if report.ok else 1


def add_gradcheck(commands: argparse._SubParsersAction) -> None:
    """`gradcheck`."""
    gradcheck = commands.add_parser("gradcheck", help="check every gradient against finite differences")
    gradcheck.add_argument("--seed", type=int, default=0)
    gradcheck.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file, too")
    gradcheck.set_defaults(command=_gradcheck)


def _gradcheck(seed, json):
    from dataclasses import asdict
    from json import dumps

    from tinymae.gradcheck import format_rows
    from tinymae.gradcheck.cases import run_checks

    layout = "{:52} {:>7}  {:34} {:14} {:>8}  {}"
    print(layout.format("op, block or model", "tensors", "worst of them", "at", "error", "verdict"))
    report = []
    for check, rows in run_checks(seed):
        worst = max(rows, key=lambda row: row.error)
        verdict = "ok" if all(row.ok for row in rows) else "WRONG"
        print(layout.format(check.name, len(rows), worst.tensor, str(list(worst.worst)), f"{worst.error:.1e}", verdict))
        if verdict == "WRONG":
            print(format_rows(check.name, [row for row in rows if not row.ok]))
        report += [{"check": check.name, **{k: _json(v) for k, v in asdict(row).items()}} for row in rows]
    wrong = sum(not row["ok"] for row in report)
    print(f"\n{len(report)} tensors, {wrong} wrong")
    if json:
        json.write_text(dumps(report, indent=1) + "\n", encoding="utf-8")
        print(json)
    return 1 if wrong else 0


def _json(value):
    """JSON has no NaN and no infinity: null stands for both."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
