"""The Chinese catalogs are complete, fit the English, and are compiled: docs/catalogs.py brings them up to date."""
import importlib.util
import re
import string
from pathlib import Path

import pytest

from tinymae.learn.lessons import find_lesson, lesson_in_language
from tinymae.learn.prose import code_in_language, in_language, units

ROOT = Path(__file__).parents[1]
babel = pytest.importorskip("babel")
spec = importlib.util.spec_from_file_location("catalogs", ROOT / "docs" / "catalogs.py")
catalogs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(catalogs)


@pytest.mark.parametrize("name", ["tinymae", "lessons", "argparse"])
def test_everything_is_translated(name):
    assert catalogs.complaints(name) == []


@pytest.mark.parametrize("name", catalogs.PAGES)
def test_the_pages_are_translated(name):
    pytest.importorskip("sphinx_design")
    assert catalogs.complaints(name) == []


@pytest.mark.parametrize("name", ["tinymae", "lessons", "argparse"])
def test_the_compiled_catalog_is_the_newest(name):
    assert (catalogs.folder_of(name) / f"{name}.mo").read_bytes() == catalogs.compiled(catalogs.catalog(name))


def fields(text):
    return {(field, spec) for _, field, spec, _ in string.Formatter().parse(text) if field is not None}


def different(english, chinese):
    """Complaints: placeholders, commands or code that one side has and the other has not."""
    found = []
    if "{" in english and {name for name, _ in fields(english)} != {name for name, _ in fields(chinese)}:
        found.append(f"placeholders: {english!r}")
    if sorted(re.findall(r"%\(?\w*\)?[sr]", english)) != sorted(re.findall(r"%\(?\w*\)?[sr]", chinese)):
        found.append(f"%: {english!r}")
    if set(re.findall(r"`python [^`]+`", english)) != set(re.findall(r"`python [^`]+`", chinese)):
        found.append(f"commands: {english!r}")
    return found


@pytest.mark.parametrize("name", ["tinymae", "argparse"])
def test_placeholders_and_commands_are_those_of_the_english(name):
    pairs = [(message.id, message.string) for message in catalogs.catalog(name) if message.id and isinstance(message.id, str)]
    assert pairs and [text for pair in pairs for text in different(*pair)] == []


def test_a_wrong_translation_is_seen():
    assert different("lesson {number}", "第 {numer} 课") and different("expected %s", "应为")
    assert different("run `python -m tinymae lessons`", "运行 `python -m tinymae lesson`")
    assert not different("{a:.3g} of {b!r}", "{b!r} 中的 {a}")


def test_what_is_missing_is_seen(monkeypatch):
    """With one message more in the source, and one less."""
    messages = catalogs.package_messages()
    monkeypatch.setattr(catalogs, "package_messages", lambda: [*messages[1:], ("a new sentence", "x.py", 1)])
    found = catalogs.complaints("tinymae")
    assert "tinymae: not translated: 'a new sentence'" in found
    still = messages[0][0] in [text for text, *_ in messages[1:]]
    assert any("no longer in the source" in line for line in found) != still


def test_what_is_to_be_written_is_translated():
    assert catalogs.blanks('def f():\n    raise NotImplementedError("equation (1)")\n') == [("equation (1)", 2)]
    assert ("equations (5) to (9)", "lessons/exercises/attention.py") in [found[:2] for found in catalogs.lesson_messages()]


# ---- prose -------------------------------------------------------------------------------------------------------------

PROSE = """A paragraph of
two lines.

.. math::

   y = x w

- an item
- another, which is
  longer

1. Replace ``None``.
2. Write it.

    (1)  y = x w                    over the rows"""


def test_tasks_in_code_are_translated():
    code = "x = 1  # 2. no task\n\n# 1. How\n#    many?\nanswer_1 = None\n\n# 2. Write it.\n"
    assert code_in_language(code, lambda text: text) == code
    chinese = {"How many?": "多少" * 22, "Write it.": "写。"}
    assert code_in_language(code, chinese.get) == (
        f"x = 1  # 2. no task\n\n# 1. {'多少' * 20}多\n#    少多少\nanswer_1 = None\n\n# 2. 写。\n"
    )


def test_units_are_paragraphs_and_items():
    assert units(PROSE) == [
        "A paragraph of two lines.", "an item", "another, which is longer", "Replace ``None``.", "Write it.", "over the rows",
    ]
    assert units("===  ===\nA    B\n===  ===\n     and      more\n===  ===") == []                  # a table
    assert in_language(PROSE, str) == PROSE
    assert in_language(PROSE, str.upper) == PROSE.replace("A paragraph of\ntwo lines.", "A PARAGRAPH OF TWO LINES.").replace(
        "an item\n- another, which is\n  longer", "AN ITEM\n- ANOTHER, WHICH IS LONGER").replace(
        "Replace ``None``.\n2. Write it.", "REPLACE ``NONE``.\n2. WRITE IT.")


def test_a_lesson_is_spoken_in_chinese(monkeypatch):
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    lesson = find_lesson(10)
    chinese = lesson_in_language(lesson)
    assert [cell.code for cell in chinese.cells] == [cell.code for cell in lesson.cells]
    for before, after in zip(lesson.cells, chinese.cells, strict=True):
        assert not units(before.prose) or re.search("[\u4e00-\u9fff]", after.prose)
    monkeypatch.setenv("LANGUAGE", "C")
    assert lesson_in_language(lesson) == lesson or [units(cell.prose) for cell in lesson_in_language(lesson).cells] == [
        units(cell.prose) for cell in lesson.cells]
