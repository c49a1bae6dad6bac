"""Commands of the course: articles, lessons, lesson, exercise, hint, check, progress, gradcheck."""
import argparse
import math
import time
from pathlib import Path

from tinymae.messages import message as _
from tinymae.messages import padded, translated


def add_articles(commands: argparse._SubParsersAction) -> None:
    """`articles`."""
    articles = commands.add_parser("articles", help=_("the five articles: which lesson runs which place in them"))
    articles.add_argument("letter", nargs="?", type=str.upper, choices="ABCDE", metavar="A..E", help=_("one of them"))
    articles.set_defaults(command=_articles)


def _articles(letter):
    from tinymae.learn.articles import read_articles

    for article in read_articles():
        if letter not in (None, article.letter):
            continue
        print(f"{article.letter}. {article.title}\n   {article.about}\n")
        for row in article.rows:
            print(f"   {row.place}: {row.what}".replace("`", ""))
            for number, heading, file, line in row.cells:
                where = f"{_near(file)}:{line}"
                print("       " + _("lesson {number}: {heading}  ({where})", number=number, heading=heading, where=where))
            for file, line in row.code:
                where = f"{_near(file)}:{line}"
                print("       " + _("code: {where}", where=where))
        print()
    return 0


def _near(path):
    """A path as it is written from here."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def add_lessons(commands: argparse._SubParsersAction) -> None:
    """`lessons`."""
    lessons = commands.add_parser("lessons", help=_("list the lessons"))
    lessons.set_defaults(command=_lessons)


def _lessons():
    from tinymae.learn.lessons import lessons

    for lesson in lessons():
        print(f"{lesson.number:2}  {lesson.title:50} {lesson.chinese}")
    print("\n" + _("python -m tinymae lesson 1 --step      walks through the first one, cell by cell"))
    return 0


def add_lesson(commands: argparse._SubParsersAction) -> None:
    """`lesson`."""
    lesson = commands.add_parser("lesson", help=_("run a lesson, or walk through it cell by cell"))
    lesson.add_argument("number", type=int, nargs="?", metavar="N", help=_("its number (default: go on where you left)"))
    how = lesson.add_mutually_exclusive_group()
    how.add_argument("--step", action="store_true", help=_("cell by cell: read, press Enter, look, go on"))
    how.add_argument("--exercise", type=int, metavar="K", help=_("write its exercise K here; the second time, run it"))
    lesson.set_defaults(command=_lesson)


def _lesson(number, step, exercise):
    from tinymae.learn import progress
    from tinymae.learn.lessons import find_lesson, lessons, run
    from tinymae.learn.stepper import step as walk

    done = progress.load_progress()["lessons"]
    if number is None:
        number = next((each.number for each in lessons() if done.get(str(each.number)) != "done"), None)
        if number is None:
            print(_("you have been through all lessons: python -m tinymae lessons"))
            return 0
    lesson = find_lesson(number)
    if exercise is not None:
        return _lesson_exercise(lesson, exercise)
    if not step:
        with _small_matrices():
            run(lesson)
        progress.note_lesson(number)
        return 0
    start = done.get(str(number), 0)
    with _small_matrices():
        left = walk(lesson, 0 if start == "done" else start)
    progress.note_lesson(number, None if left == len(lesson.cells) else left)
    return 0


def _small_matrices():
    """A block in which BLAS has one thread: several are slower for small matrices, on a busy machine up to a hundred times."""
    import numpy  # noqa: F401  its BLAS is loaded now, and can be limited
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")


def _lesson_exercise(lesson, exercise):
    """Write an exercise of a lesson, or run it if it is there already."""
    import runpy

    from tinymae.learn.lesson_exercises import file_name, write_lesson_exercise

    name = file_name(lesson, exercise)
    if not Path(name).exists():
        path = write_lesson_exercise(lesson, exercise)
        print(path)
        print(_("write the answer in it, then: python -m tinymae lesson {lesson} --exercise {exercise}",
                lesson=lesson.number, exercise=exercise))
        return 0
    try:
        runpy.run_path(name, run_name="__main__")
    except AssertionError as wrong:
        reason = str(wrong) or _("its assert fails")
        print(_("{name}: not right yet: {reason}", name=name, reason=reason))
        return 1
    return 0


def add_exercise(commands: argparse._SubParsersAction) -> None:
    """`exercise`."""
    exercise = commands.add_parser("exercise", help=_("write an exercise, or a bug of the zoo, for you to solve"))
    exercise.add_argument("name", nargs="?", metavar="NAME", help=_("which one (default: list them)"))
    exercise.add_argument("--bare", action="store_true", help=_("without the equations: derive them yourself"))
    exercise.set_defaults(command=_exercise)


def _exercise(name, bare):
    from tinymae.learn.exercises import ZOO, list_exercises
    from tinymae.learn.terminal import filled
    from tinymae.learn.write_exercise import write_exercise

    if name is None:
        for each, kind, it, summary in list_exercises():
            lesson = _("lesson {number:2}", number=it.lesson)
            print(f"{each:32} {padded(translated(kind), 9)} {lesson}  {padded(translated(it.level), 8)} {summary}")
        print("\n" + _("python -m tinymae exercise NAME      writes NAME.py here; then: python -m tinymae check NAME.py"))
        return 0
    path = write_exercise(name, bare=bare)
    print(path)
    if name in ZOO:
        then = _("read it, write your guess into the line CAUSE, then: python -m tinymae check {path}, and mend it", path=path)
    else:
        then = _("read it, complete it, then: python -m tinymae check {path}; stuck? python -m tinymae hint {path}", path=path)
    print(filled(then))
    return 0


def add_hint(commands: argparse._SubParsersAction) -> None:
    """`hint`."""
    hint = commands.add_parser("hint", help=_("the next of three hints for an exercise"))
    hint.add_argument("file", type=Path, metavar="FILE", help=_("what `exercise` wrote; it is not executed"))
    hint.set_defaults(command=_hint)


def _hint(file):
    from tinymae.learn import progress
    from tinymae.learn.exercises import hints, name_of
    from tinymae.learn.terminal import filled

    name = name_of(file)
    found = hints(name)
    number = progress.next_hint(name, len(found))
    print(filled(_("hint {number} of {count}: {hint}", number=number + 1, count=len(found), hint=found[number])))
    return 0


def add_check(commands: argparse._SubParsersAction) -> None:
    """`check`."""
    check = commands.add_parser("check", help=_("check your solution of an exercise, and say what is wrong with it"))
    check.add_argument("file", type=Path, metavar="FILE", help=_("what `exercise` wrote and you completed; it is executed"))
    how = check.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help=_("check it each time that it is saved, until Ctrl-C"))
    how.add_argument("--json", action="store_true", help=_("the report and the points as JSON, for a grader"))
    check.add_argument("--story", action="store_true", help=_("of a bug of the zoo: tell it without a guess"))
    check.set_defaults(command=_check)


def _check(file, watch, json, story):
    if watch:
        return _watch(file, story)
    report = _checked(file, story, quiet=json)
    if json:
        from dataclasses import asdict
        from json import dumps

        print(dumps({"file": str(file), **asdict(report)}, ensure_ascii=False))
    else:
        print(report.text)
    return 0 if report.ok else 1


def _checked(file, story, quiet=False):
    """The Report of a file; what is solved is kept."""
    from tinymae.learn import progress
    from tinymae.learn.process import check_file

    report = check_file(file, tell=story, quiet=quiet)
    if report.ok:
        progress.note_solved(report.exercise)
    return report


def _watch(file, story):
    """Check a file each time that it changes, until all of it is right."""
    from tinymae.learn.report import existing_file

    seen = None
    while True:
        try:
            stamp = existing_file(file).stat().st_mtime_ns
        except FileNotFoundError:
            if seen is None:
                raise
            stamp = seen                                        # an editor that writes a new file in its place
        if stamp != seen:
            seen = stamp
            report = _checked(file, story)
            print(f"\n{report.text}\n", flush=True)
            if report.ok:
                return 0
            print(_("watching {file}: save it to check again, Ctrl-C to stop", file=file), flush=True)
        _pause()


def _pause():
    time.sleep(0.3)


def add_progress(commands: argparse._SubParsersAction) -> None:
    """`progress`."""
    progress = commands.add_parser("progress", help=_("which lessons and exercises you have done"))
    progress.add_argument("--reset", action="store_true", help=_("forget it"))
    progress.set_defaults(command=_progress)


def _progress(reset):
    from tinymae.learn import progress
    from tinymae.learn.exercises import POINTS, list_exercises
    from tinymae.learn.lessons import lessons
    from tinymae.learn.prose import from_lessons

    if reset:
        progress.reset()
        print(_("{path}: gone", path=progress.progress_file()))
        return 0
    done = progress.load_progress()
    for lesson in lessons():
        at, state = done["lessons"].get(str(lesson.number)), ""
        if at == "done":
            state = _("done")
        elif at:
            state = _("at cell {number} of {count}", number=at + 1, count=len(lesson.cells))
        print(f"{lesson.number:2}  {padded(from_lessons(lesson.title), 50)} {state}".rstrip())
    points = [0, 0]
    for name, _kind, it, _summary in list_exercises():
        mine = done["exercises"].get(name, {"hints": 0, "solved": False})
        points[0] += mine["solved"] * POINTS[it.level]
        points[1] += POINTS[it.level]
        if mine["solved"] or mine["hints"]:
            print(f"    {name:50} {_so_far(**mine)}")
    through = sum(state == "done" for state in done["lessons"].values())
    print("\n" + _("{through} of {lessons} lessons, {points} of {most} points; kept in {path}",
                   through=through, lessons=len(lessons()), points=points[0], most=points[1], path=progress.progress_file()))
    return 0


def _so_far(hints, solved):
    """What is done of an exercise, in words."""
    state = _("solved") if solved else _("begun")
    if hints == 1:
        return _("{state}, 1 hint", state=state)
    return _("{state}, {hints} hints", state=state, hints=hints) if hints else state


def add_gradcheck(commands: argparse._SubParsersAction) -> None:
    """`gradcheck`."""
    gradcheck = commands.add_parser("gradcheck", help=_("check every gradient against finite differences"))
    gradcheck.add_argument("--seed", type=int, default=0)
    gradcheck.add_argument("--json", type=Path, metavar="FILE", help=_("write the rows to a file, too"))
    gradcheck.set_defaults(command=_gradcheck)


def _gradcheck(seed, json):
    with _small_matrices():
        return _check_gradients(seed, json)


def _check_gradients(seed, json):
    from dataclasses import asdict
    from json import dumps

    from tinymae.gradcheck import format_rows
    from tinymae.gradcheck.cases import run_checks

    print(_tensor_line(_("op, block or model"), _("tensors"), _("worst of them"), _("at"), _("error"), _("verdict")))
    report = []
    for check, rows in run_checks(seed):
        worst = max(rows, key=lambda row: row.error)
        right = all(row.ok for row in rows)
        verdict = _("ok") if right else _("WRONG")
        at, error = str(list(worst.worst)), f"{worst.error:.1e}"
        print(_tensor_line(check.name, str(len(rows)), worst.tensor, at, error, verdict))
        if not right:
            print(format_rows(check.name, [row for row in rows if not row.ok]))
        report += [{"check": check.name, **{k: _json(v) for k, v in asdict(row).items()}} for row in rows]
    wrong = sum(not row["ok"] for row in report)
    print("\n" + _("{tensors} tensors, {wrong} wrong", tensors=len(report), wrong=wrong))
    if json:
        json.write_text(dumps(report, indent=1) + "\n", encoding="utf-8")
        print(json)
    return 1 if wrong else 0


def _tensor_line(name, tensors, worst, at, error, verdict):
    tensors, error = padded(tensors, 7, right=True), padded(error, 8, right=True)
    return f"{padded(name, 52)} {tensors}  {padded(worst, 34)} {padded(at, 14)} {error}  {verdict}"


def _json(value):
    """JSON has no NaN and no infinity: null stands for both."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
