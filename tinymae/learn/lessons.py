"""The lessons: where they are, what they are called, and how to walk through one cell by cell.

A lesson is a Python script in percent cells, as VS Code, Spyder and sphinx-gallery know them: a docstring with the title, then
cells that start with a line `# %%`. The comment right below that line is the cell's prose (reST), the rest is its code:

    # %%
    # The formula, as a loop
    # ----------------------
    # Each pair of columns is the hand of a clock.

    table = loop(10, 64)

So a lesson runs as a plain script, and the same file can be read and run one cell at a time: `step`.
"""
import ast
import re
import runpy
from pathlib import Path
from typing import NamedTuple


class Cell(NamedTuple):
    """One cell of a lesson."""

    heading: str                # "" where the cell goes on with what the one before began
    prose: str
    code: str
    line: int                   # where the code starts in the file, from 1


class Lesson(NamedTuple):
    """What a lesson's file says."""

    number: int
    path: Path
    title: str
    chinese: str                # the title in Chinese
    cells: list                 # of Cell; the first is the docstring: it asks the question


def lessons_folder():
    """Where the lessons are: inside an installed package, or beside the package in a checkout.

    Raises
    ------
    FileNotFoundError
        where there are none
    """
    package = Path(__file__).parents[1]
    for folder in (package / "lessons", package.parent / "lessons"):
        if any(folder.glob("[0-9][0-9]_*.py")):
            return folder
    raise FileNotFoundError(f"no lessons in {package} or beside it: was tinymae installed without them? Install it again")


def lessons():
    """All lessons, in their order.

    Returns
    -------
    list of Lesson
    """
    return [read_lesson(path) for path in sorted(lessons_folder().glob("[0-9][0-9]_*.py"))]


def find_lesson(number):
    """The lesson of a number.

    Raises
    ------
    ValueError
        where there is none
    """
    found = [lesson for lesson in lessons() if lesson.number == number]
    if not found:
        raise ValueError(f"there is no lesson {number}: `python -m tinymae lessons` lists them")
    return found[0]


def read_lesson(path):
    """Title and cells of a lesson's file.

    Parameters
    ----------
    path : Path of a file NN_name.py

    Returns
    -------
    Lesson

    Raises
    ------
    ValueError
        where the file does not start with a docstring whose first line is `Title · 标题`
    """
    source = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source))
    title, _, question = (docstring or "").partition("\n")
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


def run(lesson):
    """Run a lesson from top to bottom, as `python lessons/NN_name.py` would. Pictures go to ./figures."""
    runpy.run_path(str(lesson.path), run_name="__main__")
