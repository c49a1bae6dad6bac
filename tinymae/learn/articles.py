"""The five articles that are read beside tinymae: for each place in them a lesson that runs it, and the line of code.

The map is lessons/articles.md, in Chinese articles.zh-CN.md, a table for each article: place, what is there, cells of lessons,
lines of code. A cell stands there as [05: Heading](05_name.py), a line as [ops/softmax.py](../tinymae/ops/softmax.py)
`a part of it`. `read_articles` reads it and finds the lines.
"""
import re
from dataclasses import dataclass
from pathlib import Path

from tinymae.learn.lessons import lessons_folder
from tinymae.learn.prose import from_lessons
from tinymae.messages import language

CELL = re.compile(r"\[(\d\d): (.+?)\]\((\d\d_\w+\.py)\)")
CODE = re.compile(r"\[([\w/]+\.py)\]\(\.\./tinymae/[\w/]+\.py\) `([^`]+)`")


@dataclass(frozen=True)
class Place:
    """A place in an article."""

    place: str                  # heading, as the article has it
    what: str
    cells: list[tuple[int, str, Path, int]]     # (lesson, heading, file, line) where it is run
    code: list[tuple[Path, int]]                # (file, line) of the package


@dataclass(frozen=True)
class Article:
    """One of the five."""

    letter: str
    title: str
    about: str                  # date, and what it is
    rows: list[Place]


def read_articles() -> list[Article]:
    """The map.

    Raises
    ------
    ValueError
        if a row leads nowhere; names the row
    """
    folder, package = lessons_folder(), Path(__file__).parents[1]
    text = (folder / ("articles.zh-CN.md" if language() == "zh_CN" else "articles.md")).read_text(encoding="utf-8")
    parts = re.split(r"^## ([A-E]) · (.+)\n", text, flags=re.MULTILINE)
    found = []
    for letter, title, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        about, _, table = body.strip().partition("\n\n|")
        rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in f"|{table}".splitlines()[2:]
                if line.startswith("|")]
        found.append(Article(letter, title.strip(), about, [_row(folder, package, row) for row in rows]))
    return found


def _row(folder, package, row):
    if len(row) != 4:
        raise ValueError(f"articles.md: expected four columns, got {len(row)}: {' | '.join(row)[:80]}")
    place, what, run, code = row
    cells = [(int(number), from_lessons(heading), folder / file, _line(folder / file, f"# {heading}", place, whole=True))
             for number, heading, file in CELL.findall(run)]
    lines = [(package / file, _line(package / file, part, place)) for file, part in CODE.findall(code)]
    if not cells:
        raise ValueError(f"articles.md: {place!r} leads to no lesson")
    return Place(place, what, cells, lines)


def _line(path, part, place, whole=False):
    """The number of the one line that is, or has, a text."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines, 1) if (line == part if whole else part in line)]
    if len(found) != 1:
        raise ValueError(f"articles.md: {place!r}: {part!r} is in {len(found)} lines of {path.name}, expected one")
    return found[0]
