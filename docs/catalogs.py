"""The catalogs of the Chinese course: find what has to be translated, bring the catalogs up to date, compile them.

    python docs/catalogs.py             update and compile; lists what is missing or stale
    python docs/catalogs.py --check     only list it, and fail if there is any

    tinymae     sentences of the package, marked with _() or marked()
    lessons     prose and comments of lessons, words and hints of exercises; for the terminal and for the site
    argparse    Python's own words for commands; kept by hand
    PAGES       of the site: each has a catalog of its own in docs/locale; sphinx.po beside them, kept by hand, is for the theme

English is the source. If a sentence changes, its old translation moves to the end of the file, behind #~, for the translator
to adapt and to delete. Gettext's tools (Poedit, Weblate) open the files as they are.
"""
import argparse
import ast
import io
import re
import sys
import tempfile
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from tinymae.learn.exercises import EXERCISES, ZOO, hints, story, unwritten  # noqa: E402  (found by the line above)
from tinymae.learn.lessons import lessons  # noqa: E402
from tinymae.learn.prose import code_in_language, units  # noqa: E402
from tinymae.messages import spoken  # noqa: E402

LANGUAGE = "zh_CN"
PAGES = "index", "run", "errata", "questions", "notation", "glossary"           # of the site


def folder_of(name: str) -> Path:
    """Where the catalog of this name is."""
    return (ROOT / "docs" if name in PAGES else ROOT / "tinymae") / "locale" / LANGUAGE / "LC_MESSAGES"


# ---- what has to be translated -----------------------------------------------------------------------------------------

def package_messages() -> list[tuple[str, str, int]]:
    """(sentence, file, line) of each sentence that the package marks."""
    found = extract_from_dir(str(ROOT / "tinymae"), [("**.py", "python")], keywords={"_": None, "marked": None})
    return [(text, f"tinymae/{file}", line) for file, line, text, _comments, _context in found]


def lesson_messages() -> list[tuple[str, str, int]]:
    """(text, file, line) of titles, headings, paragraphs and captions of the lessons, and of the texts of the exercises."""
    found = []
    for lesson in lessons():
        file, source = f"lessons/{lesson.path.name}", lesson.path.read_text("utf-8")
        found.append((lesson.title, file, 1))
        for cell in lesson.cells:
            texts = [cell.heading] * (cell.line > 1) + units(cell.prose) + words(cell.code)
            found += [(text, file, cell.line) for text in texts]
        found += [(text, file, line) for text, line in captions(source)]
    header = (ROOT / "docs" / "lessons_header.rst").read_text("utf-8")       # above the list of lessons
    found += [(text, "docs/lessons_header.rst", 1) for text in (header.partition("\n")[0], *units(header.split("\n", 2)[2]))]
    for name in EXERCISES | ZOO:
        path = ROOT / "lessons" / "exercises" / ("zoo" if name in ZOO else "") / f"{name}.py"
        source, file = path.read_text("utf-8"), path.relative_to(ROOT).as_posix()
        found += [(text, file, 1) for text in words(unwritten(name))]
        with spoken("en"):
            texts = [story(name)] if name in ZOO else hints(name)
        found += [(text, file, 1 + source.count("\n")) for text in texts]
    return [(text, file, line) for text, file, line in found
            if re.search("[A-Za-z]{2}", text) and not text.startswith("python -m ")]


def words(code: str) -> list[str]:
    """The texts of some code that have a translation."""
    found = []
    code_in_language(code, lambda text: found.append(text) or text)
    return found


def captions(source: str) -> list[tuple[str, int]]:
    """(text, line) of the captions in a lesson: literals that are assigned to a name caption..., or given as caption=."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.startswith("caption"):
            found.append(node.value)
        elif isinstance(node, ast.keyword) and node.arg == "caption":
            found.append(node.value)
    return [(node.value, node.lineno) for node in found if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def page_messages(name: str) -> list[tuple[str, str, int]]:
    """(text, file, line) of a page of the site, as Sphinx finds them. It needs the extra `docs`."""
    from sphinx.application import Sphinx

    with tempfile.TemporaryDirectory() as folder:
        extensions = ["sphinx_design", "myst_parser", "catalogs"]
        settings = {"extensions": extensions, "include_patterns": [f"{name}.*"], "root_doc": name,
                    "default_role": "literal", "gettext_compact": False}
        sys.path.insert(0, str(ROOT / "docs"))
        app = Sphinx(ROOT / "docs", None, folder, folder, "gettext", settings, status=None, warning=io.StringIO())
        app.build(force_all=True)
        with open(Path(folder, f"{name}.pot"), "rb") as file:
            found = [(message.id, f"docs/{name}", message.locations[0][1]) for message in read_po(file) if message.id]
    if name == "index":                                         # the bar above each page, whose pages are not there now
        source = (ROOT / "docs" / "index.rst").read_text("utf-8")
        found += [(title, "docs/index", 1) for title in re.findall(r"^   (\w+) <", source, re.MULTILINE)]
    if name == "glossary":                                      # what is not a cell of its tables, which have both languages
        found = [entry for entry in found if " · " in entry[0] or entry[0].endswith(".")]
    return [(text, file, line) for text, file, line in found if _english(text)]


def _english(text):
    """Whether a text of a page has to be translated: not a number, code, a link to a cell, or a quotation of an article.

    Of a title `English · 中文` the translation is the Chinese part.
    """
    text = re.sub(r"`([^`<]+) <[^`]+>`__", r"\1", text)         # of a link its words
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r":\w+:`[^`]+`|``[^`]+``|`[^`]+`_*", "", text))
    return len(words) > (3 if re.search("[\u4e00-\u9fff]", text) and " · " not in text else 0)


def setup(app) -> None:
    """As an extension of Sphinx, for `page_messages`: the roles of tinymae_site, without what they lead to."""
    from docutils import nodes

    for role in ("cell", "line"):
        app.add_role(role, lambda name, rawtext, text, *_rest: ([nodes.literal(rawtext, text)], []))


# ---- catalogs ----------------------------------------------------------------------------------------------------------

def template(name: str) -> Catalog:
    """All messages that belong into a catalog."""
    if name == "argparse":
        return catalog(name)
    messages = {"tinymae": package_messages, "lessons": lesson_messages}.get(name, lambda: page_messages(name))()
    found = Catalog(project="tinymae")
    for text, file, line in messages:
        found.add(text, locations=[(file, line)])
    return found


def catalog(name: str) -> Catalog:
    """The catalog as it is; empty if there is none yet."""
    path = folder_of(name) / f"{name}.po"
    if not path.is_file():
        return Catalog(LANGUAGE, project="tinymae")
    with path.open("rb") as file:
        return read_po(file, locale=LANGUAGE)


def complaints(name: str) -> list[str]:
    """What is missing, fuzzy or stale in a catalog."""
    have, wanted = catalog(name), template(name)
    found = [f"{name}: not translated: {message.id[:70]!r}" for message in wanted
             if message.id and not (have.get(message.id) and have.get(message.id).string)]
    found += [f"{name}: fuzzy: {message.id[:70]!r}" for message in have if message.id and message.fuzzy]
    stale = [*have.obsolete, *(message.id for message in have if message.id and message.id not in wanted)]
    return found + [f"{name}: no longer in the source: {str(text)[:70]!r}" for text in stale]


def update(name: str) -> None:
    """Bring the catalog up to date with the source; and compile it."""
    path, have = folder_of(name) / f"{name}.po", catalog(name)
    if name != "argparse":
        made = have.creation_date                               # or each run would change the file
        have.update(template(name), no_fuzzy_matching=True)
        have.creation_date = made
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, have, width=120, omit_header=False, sort_by_file=name != "argparse", include_lineno=False)
    if name not in PAGES:                                       # Sphinx compiles those of pages itself
        path.with_suffix(".mo").write_bytes(compiled(have))


def compiled(messages: Catalog) -> bytes:
    """The .mo file of a catalog."""
    file = io.BytesIO()
    write_mo(file, messages)
    return file.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description="Bring the catalogs up to date.")
    parser.add_argument("--check", action="store_true", help="only list what is missing or stale, and fail if there is any")
    parser.add_argument("names", nargs="*", metavar="NAME", help="catalogs (default: all)")
    options = parser.parse_args()
    names = options.names or ["tinymae", "lessons", "argparse", *PAGES]
    for name in names:
        if not options.check:
            update(name)
    found = [line for name in names for line in complaints(name)]
    print("\n".join(found) or "all catalogs are complete")
    return bool(found) and options.check


if __name__ == "__main__":
    sys.exit(main())
