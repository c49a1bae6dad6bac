"""The lessons: where their files are, how a file is read into cells, and how a lesson is run.

A lesson is a Python script in percent cells, the format of VS Code, Spyder and sphinx-gallery: a docstring with the title, then
cells that start with a line `# %%`. The comment directly below that line is the prose of the cell (reST), the rest is its code:

    # %%
    # The formula, as a loop
    # ----------------------
    # Each pair of columns is the hand of a clock.

    table = loop(10, 64)

So a lesson runs as a plain script, and `stepper.step` runs the same file one cell at a time.
"""
import ast
import re
import runpy
from dataclasses import dataclass, replace
from pathlib import Path

from tinymae.learn.prose import from_lessons, in_language
from tinymae.messages import message as _


@dataclass(frozen=True)
class Cell:
    """One cell of a lesson."""

    heading: str                # "" if the cell continues the section of the cell above
    prose: str
    code: str
    line: int                   # where the code starts in the file, counted from 1


@dataclass(frozen=True)
class Lesson:
    """The content of a lesson's file."""

    number: int
    path: Path
    title: str
    chinese: str                # the title in Chinese
    cells: list[Cell]           # the first is the docstring: it asks the question


def lessons_folder() -> Path:
    """The folder of the lessons: inside an installed package, or beside the package in a checkout.

    Raises
    ------
    FileNotFoundError
        if there are none
    """
    package = Path(__file__).parents[1]
    for folder in (package / "lessons", package.parent / "lessons"):
        if any(folder.glob("[0-9][0-9]_*.py")):
            return folder
    raise FileNotFoundError(_("no lessons in {package} or beside it: was tinymae installed without them? Install it again",
                              package=package))


def lessons() -> list[Lesson]:
    """All lessons, in their order."""
    return [read_lesson(path) for path in sorted(lessons_folder().glob("[0-9][0-9]_*.py"))]


def find_lesson(number: int) -> Lesson:
    """The lesson with this number.

    Raises
    ------
    ValueError
        if there is none
    """
    found = [lesson for lesson in lessons() if lesson.number == number]
    if not found:
        raise ValueError(_("there is no lesson {number}: `python -m tinymae lessons` lists them", number=number))
    return found[0]


def read_lesson(path: Path) -> Lesson:
    """Title and cells of a lesson's file NN_name.py.

    Raises
    ------
    ValueError
        if the file does not start with a docstring whose first line is `Title · 标题`
    """
    source = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source))
    title, _newline, question = (docstring or "").partition("\n")
    english, dot, chinese = title.partition(" · ")
    if not dot:
        raise ValueError(f"{path}: expected a docstring with the title `English · 中文`, got {title!r}")
    lines = source.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("# %%")]
    first = Cell(english, _without_underline(question), "", 1)
    cells = [_cell(lines, start, stop) for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True)]
    return Lesson(int(path.name[:2]), path, english, chinese, [first, *cells])


def _cell(lines, start, stop):
    """The cell of lines[start:stop], whose first line is `# %%`."""
    end = start + 1
    while end < stop and lines[end].startswith("#"):
        end += 1
    prose = [line.removeprefix("#").removeprefix(" ") for line in lines[start + 1 : end]]
    heading = ""
    if len(prose) > 1 and re.fullmatch(r"[-=~]{3,}", prose[1]):
        heading, prose = prose[0], prose[2:]
    while end < stop and not lines[end].strip():
        end += 1
    return Cell(heading, "\n".join(prose).strip("\n"), "\n".join(lines[end:stop]).rstrip(), end + 1)


def _without_underline(prose):
    return re.sub(r"\A\s*[-=~]{3,}\n", "", prose).strip("\n")


def lesson_in_language(lesson: Lesson) -> Lesson:
    """The lesson with headings and prose in the user's language; its code stays as it is."""
    cells = [replace(cell, heading=from_lessons(cell.heading), prose=in_language(cell.prose, from_lessons))
             for cell in lesson.cells]
    return replace(lesson, title=from_lessons(lesson.title), cells=cells)


def run(lesson: Lesson) -> None:
    """Run a lesson from top to bottom, as `python lessons/NN_name.py` does. Its figures are written to ./figures."""
    runpy.run_path(str(lesson.path), run_name="__main__")
