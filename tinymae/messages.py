"""Sentences for people, in their language: gettext, with English in the source.

A module that prints or raises such sentences imports `message as _`, gettext's usual name, and marks each whole sentence:

    raise ValueError(_("there is no lesson {number}: `python -m tinymae lessons` lists them", number=number))

Values enter by named placeholders, because another language has another order of words; an f-string inside `_()` could not be
found in a catalog, and a sentence that is put together from parts could not be translated. The catalogs are in
`locale/LANGUAGE/LC_MESSAGES/tinymae.mo`; without one for the user's language the sentence stays as it is.
"""
import gettext
import os
from pathlib import Path

CATALOGS = Path(__file__).parent / "locale"
SPOKEN = {"en": "en", "zh": "zh_CN"}         # what `--lang` takes: the name of the catalog


def message(sentence: str, **values: object) -> str:
    """The sentence in the user's language, with its placeholders filled in.

    The language is that of the environment (`LANGUAGE`, `LC_ALL`, `LC_MESSAGES`, `LANG`, as gettext reads them), so a process
    that is started for a check speaks the same one.

    Parameters
    ----------
    sentence : the English, with placeholders as for `str.format`: `{name}`, `{ratio:.3g}`. Braces of its own are doubled if
        there are values
    values : for the placeholders
    """
    catalog = gettext.translation("tinymae", CATALOGS, fallback=True)
    found = catalog.gettext(sentence)
    return found.format(**values) if values else found


def set_language(name: str) -> None:
    """Let this process and those that it starts speak one of SPOKEN.

    Raises
    ------
    ValueError
        if it is none of them
    """
    if name not in SPOKEN:
        raise ValueError(f"expected a language, {' or '.join(SPOKEN)}, after --lang, got {name!r}")
    os.environ["LANGUAGE"] = SPOKEN[name]
