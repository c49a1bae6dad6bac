"""Text, code and pictures of a lesson for a terminal: mathematics as Unicode, colours, and pictures where they can be shown."""
import base64
import os
import re
import sys
from pathlib import Path
from shutil import get_terminal_size

from tinymae.learn.prose import ITEM, MARK
from tinymae.messages import columns, in_lines

LINE_WIDTH = 100             # columns of a line of a report, where the terminal is not narrower


def readable(prose: str, width: int = 88) -> str:
    """reST for a terminal of this width: without the marks that only a browser needs, formulas as Unicode, lines that fit."""
    prose = re.sub(r"^\.\. math::\n*((?:\n|[ ]+.*\n?)+)", lambda found: _formula_block(found[1]), prose, flags=re.MULTILINE)
    prose = re.sub(r":math:`([^`]*)`", lambda found: formula(found[1]), prose)
    prose = re.sub(r":[a-z:]+:`([^`<]*?)(?: <[^`]*>)?`", r"\1", prose)
    prose = re.sub(r"`([^`<]+) <([^`>]+)>`__?", r"\1 (\2)", prose)
    prose = re.sub(r"\n{3,}", "\n\n", prose.replace("``", "")).strip("\n")
    return "\n\n".join(_fitted(paragraph, width) for paragraph in prose.split("\n\n"))


def formula(tex: str) -> str:
    """A formula of TeX as Unicode: \\\\sqrt{d_k} becomes √(d_k)."""
    from pylatexenc.latex2text import LatexNodes2Text

    tex = re.sub(r"\\frac\{((?:[^{}]|\{[^{}]*\})*)\}\{((?:[^{}]|\{[^{}]*\})*)\}", _fraction, tex)
    tex = re.sub(r"_\{([^{}]{2,})\}", r"_[\1]", tex)          # x_{ij + 1}: without its braces, it would not end
    text = LatexNodes2Text(math_mode="text").latex_to_text(re.sub(r"\\(Big|big)[lr]?", "", tex))
    text = re.sub(r"\^([0-9]+)\b", lambda found: found[1].translate(_HIGH), text)
    return re.sub(r"\^T\b", "ᵀ", text)


_HIGH = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def _fraction(found):
    """a / b, with brackets where they are needed."""
    above, below = (part if re.fullmatch(r"\\?\w+", part) else f"({part})" for part in found.groups())
    return f"{above} / {below}"


def _formula_block(block):
    lines = [formula(line.strip()) for line in block.strip().splitlines()]
    return "\n".join(f"    {line}" for line in lines) + "\n\n"


def _fitted(paragraph, width):
    """A paragraph in lines of at most `width`; what is indented, or a list, keeps its lines."""
    lines = paragraph.splitlines()
    if max(map(columns, lines), default=0) <= width or any(line.startswith((" ", "|", "+", "=")) for line in lines):
        return paragraph
    items = filter(None, re.split(ITEM, paragraph))
    return "\n".join(in_lines(item, width, "  " if re.match(MARK, item) else "") for item in items)


def filled(text: str) -> str:
    """A text in lines that fit; lines that begin with a space, such as code and those of a list, stay as they are."""
    width = min(LINE_WIDTH, get_terminal_size((LINE_WIDTH, 0)).columns)
    return "\n".join(line if line.startswith(" ") else in_lines(line, width) for line in text.split("\n"))


def narrow(code: str, width: int) -> str:
    """Code with its comments moved to the left where a line is too long for the terminal."""
    return "\n".join(re.sub(r" {3,}(?=# )", "  ", line) if columns(line) > width else line for line in code.splitlines())


def coloured(code: str) -> str:
    """Python in the colours of Pygments, for a terminal."""
    from pygments import highlight
    from pygments.formatters import TerminalFormatter
    from pygments.lexers import PythonLexer

    return highlight(code, PythonLexer(), TerminalFormatter()).rstrip("\n")


def inline_picture(path: Path) -> str:
    """The escape sequence that shows a .png in this terminal; empty if it is not one that is known to show pictures.

    Kitty's and Ghostty's graphics protocol, and iTerm2's, which WezTerm knows, too.
    """
    if not sys.stdout.isatty():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    program = os.environ.get("TERM_PROGRAM", "")
    if os.environ.get("KITTY_WINDOW_ID") or program == "ghostty":
        parts = [data[start : start + 4096] for start in range(0, len(data), 4096)]
        return "".join(
            f"\033_G{'a=T,f=100,' * (i == 0)}m={int(i < len(parts) - 1)};{part}\033\\" for i, part in enumerate(parts)
        )
    if program in ("iTerm.app", "WezTerm"):
        return f"\033]1337;File=inline=1;size={path.stat().st_size}:{data}\a"
    return ""
