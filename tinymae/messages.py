"""Sentences for people, in their language: gettext, with English in the source.

A module that prints or raises such sentences imports `message as _`, gettext's usual name, and marks each whole sentence:

    raise ValueError(_("there is no lesson {number}: `python -m tinymae lessons` lists them", number=number))

Values enter by named placeholders, because another language has another order of words; an f-string inside `_()` could not be
found in a catalog, and a sentence that is put together from parts could not be translated. The catalogs are in
`locale/LANGUAGE/LC_MESSAGES/tinymae.mo`; without one for the user's language the sentence stays as it is.

A sentence in a table is written when its module is imported, and translated when it is used:

    LEVELS = {"warm-up": marked("a few lines")}
    print(translated(LEVELS["warm-up"]))

Tools find the sentences by `-k _ -k marked`. The texts of lessons and exercises have a catalog of their own, lessons.mo, which
the site shares: `translated(text, "lessons")`.
"""
import gettext
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

CATALOGS = Path(__file__).parent / "locale"
SPOKEN = {"en": "en", "zh": "zh_CN"}         # what `--lang` takes: the name of the catalog
NEVER_FIRST = "，。、；：！？）】》」”’…—·,.;:!?)]}%"       # in a line, next to a Chinese character
NEVER_LAST = "（【《「“‘([{"
_ASKED = ContextVar("_ASKED", default=None)      # the catalog of `spoken`, of this thread
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")       # of the environment, in which gettext finds the language


def message(sentence: str, /, **values: object) -> str:
    """The sentence in the user's language, with its placeholders filled in.

    The language is that of the environment (`LANGUAGE`, `LC_ALL`, `LC_MESSAGES`, `LANG`, as gettext reads them), so a process
    that is started for a check speaks the same one. Within `spoken` it is the one given there.

    Parameters
    ----------
    sentence : the English, with placeholders as for `str.format`: `{name}`, `{ratio:.3g}`. Braces of its own are doubled if
        there are values
    values : for the placeholders
    """
    found = _catalog(CATALOGS, _languages(), "tinymae").gettext(sentence)
    return found.format(**values) if values else found


_ = message


def _languages():
    """The languages that the user reads, the best first, with colons between them."""
    return _ASKED.get() or next(filter(None, map(os.environ.get, VARIABLES)), "C")


def language() -> str:
    """The language of the sentences: a catalog's name, such as "zh_CN", or "en" where there is no catalog."""
    return _catalog(CATALOGS, _languages(), "tinymae").info().get("language", "en")


@cache
def _catalog(folder, languages, name):
    """The first catalog of a name that there is for some languages; one that changes nothing if there is none."""
    return gettext.translation(name, folder, languages.split(":"), fallback=True)


def marked(sentence: str) -> str:
    """The sentence as it is: a literal of a table, for the tools that make a catalog. `translated` translates it."""
    return sentence


def translated(sentence: str, catalog: str = "tinymae") -> str:
    """A sentence that a variable holds, in the user's language: `marked` in a table or, from "lessons", the text of a file."""
    return _catalog(CATALOGS, _languages(), catalog).gettext(sentence) if sentence else ""      # "" is the catalog's head


def either(names: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`: names to choose from, as the user's language lists them."""
    *others, last = names
    return _("{names} or {last}", names=_(", ").join(others), last=last) if others else last


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """A cell of a table: the text with spaces to so many columns of a terminal, after it or, to stand on the right, before."""
    spaces = " " * (width - columns(text))
    return spaces + text if right else text + spaces


@contextmanager
def spoken(name: str | None) -> Iterator[None]:
    """Sentences of this thread in one of SPOKEN as long as the block runs, whatever the environment says; None changes nothing.

    A server has users with different languages at the same time, and one environment.

    Raises
    ------
    ValueError
        if the language is none of them
    """
    if name is not None and name not in SPOKEN:
        raise ValueError(_("expected a language, {names}, got {name!r}", names=either(SPOKEN), name=name))
    before = _ASKED.set(SPOKEN[name] if name is not None else _ASKED.get())
    try:
        yield
    finally:
        _ASKED.reset(before)


def in_lines(text: str, width: int, indent: str = "") -> str:
    """A text in lines of at most `width` columns, the second and later ones with an indent.

    A line ends at a space or next to a Chinese character; but no line begins with a punctuation mark or ends with an opening
    one. A word that is too long has a line of its own.
    """
    lines, line = [], ""
    for word in text.split():
        gap = " "
        for part in _unbreakable(word):
            if line.strip() and columns(line + gap + part) > width:
                lines.append(line)
                line = indent + part
            else:
                line = line + gap + part if line else part
            gap = ""
    return "\n".join([*lines, line])


def _unbreakable(word):
    """The parts of a word between which a line may end."""
    part = ""
    for letter in word:
        if part and columns(part[-1] + letter) > 2 and part[-1] not in NEVER_LAST and letter not in NEVER_FIRST:
            yield part
            part = ""
        part += letter
    yield part


def speak_like_us() -> None:
    """Let argparse, whose words come from gettext's global domain, take them from our catalogs: "usage:", and its errors."""
    gettext.bindtextdomain("argparse", CATALOGS)
    gettext.textdomain("argparse")


def set_language(name: str) -> None:
    """Let this process and those that it starts speak one of SPOKEN.

    Raises
    ------
    ValueError
        if it is none of them
    """
    if name not in SPOKEN:
        raise ValueError(_("expected a language, {names}, after --lang, got {name!r}", names=either(SPOKEN), name=name))
    os.environ["LANGUAGE"] = SPOKEN[name]
