"""Prose of lessons and exercises in the user's language: reST in, the same reST with its sentences translated out.

The unit of a catalog is a paragraph or an item of a list, its lines joined by spaces, as Sphinx makes them for the site. So one
catalog, `lessons.po`, serves the site and the terminal. Formulas, tables and whatever is indented have no translation.

In code, docstrings, comments, and the messages of asserts and NotImplementedErrors are translated. Words beside an equation
stand at least three spaces to its right; words after the number or the shape in a comment, two spaces.
"""
import re
from collections.abc import Callable

from tinymae.messages import in_lines, translated

MARK = r"[-*] |\d+\. |\(\d+\)  "                               # of an item of a list
ITEM = rf"(?m)^(?={MARK})"                                      # where one begins
EQUATION = r"^( +\(\d+\) .*?\S {3,}|    .*?\S {3,})(\S.*)$"     # a line of an equation with words beside it
# A docstring, a comment or a message; and any other string, in which no comment begins.
WORDS_IN_CODE = re.compile(r"""
    (?P<indent>^[ ]*)? (?: """ r'''"""(?P<doc>(?s:.*?))"""''' r"""
        | \#(?P<head>[ ]*(?:\d+\.[ ])?(?:\([^()\n]*\)(?:,?[ ]{2,}|,[ ](?=\()|$))*)(?P<words>.*(?:\n[ ]*\#.*)*) )
    | (?P<before>NotImplementedError\(|\bassert[ ].*,[ ](?=(?P<end>["'])(?:(?!(?P=end)).)*(?P=end)$))
        (?P<mark>["'])(?P<message>(?:(?!(?P=mark))[^\\\n])*)(?P=mark)
    | (?P<quote>["'])(?:\\.|(?!(?P=quote))[^\\\n])*(?P=quote)
    """, re.MULTILINE | re.VERBOSE)


def from_lessons(text: str) -> str:
    """A text of lessons or exercises in the user's language."""
    return translated(text, "lessons")


def units(prose: str) -> list[str]:
    """The texts of some prose that have a translation, in their order."""
    found = []

    def note(text):
        found.append(text)
        return text

    equations_in_language(prose, note)
    return found


def in_language(prose: str, translate: Callable[[str], str]) -> str:
    """The prose with translate(text) for each paragraph and item; formulas, tables and indented blocks as they are."""
    blocks = re.split(r"(\n[ \t]*\n+)", prose)
    return "".join(block if index % 2 else _block(block, translate) for index, block in enumerate(blocks))


def _block(block, translate):
    if not block.strip() or block.startswith((" ", ".. ", "|", "=", "+-")):
        return block
    return "".join(_marked(part, translate) for part in re.split(ITEM, block) if part)


def _marked(part, translate):
    mark = re.match(MARK, part)
    head = mark[0] if mark else ""
    text = " ".join(part[len(head) :].split())
    other = translate(text)
    return part if other == text else head + other + "\n" * part.endswith("\n")


def equations_in_language(text: str, translate: Callable[[str], str]) -> str:
    """The docstring of an exercise: like `in_language`, and with the words beside its equations."""
    blocks = re.split(r"(\n[ \t]*\n+)", in_language(text, translate))
    return "".join(block if block.startswith("=") else _equations(block, translate) for block in blocks)


def _equations(block, translate):
    return "\n".join(_equation(line, translate) for line in block.split("\n"))


def _equation(line, translate):
    found = re.match(EQUATION, line)
    return found[1] + translate(found[2]) if found else line


def code_in_language(code: str, translate: Callable[[str], str], width: int = 88) -> str:
    """Code with its docstrings, its comments, and the messages of its asserts and NotImplementedErrors translated.

    What has lines of its own is filled to the width; the rest stays in its line.
    """
    def part(found):
        indent = found["indent"] or ""
        if found["message"]:
            return found["before"] + found["mark"] + translate(found["message"]) + found["mark"]
        if found["doc"]:
            plain = re.sub(rf"(?m)^{indent}", "", found["doc"])
            other = equations_in_language(plain, translate)
            lines = [line if line.startswith(" ") else in_lines(line, width - len(indent))
                     for line in f'"""{other}"""'.split("\n")]
            return found[0] if other == plain else re.sub(r"(?m)^(?=.)", indent, "\n".join(lines))
        if found["words"]:
            plain = " ".join(re.sub(r"\n *#", "\n", found["words"]).split())
            other, before = translate(plain), f"{indent}#{found['head']}"
            if found["indent"] is not None:
                margin = f"\n{indent}#{' ' * len(found['head'])}"
                other = in_lines(other, width - len(before)).replace("\n", margin)
            return found[0] if other == plain else before + other
        return found[0]

    return WORDS_IN_CODE.sub(part, code)
