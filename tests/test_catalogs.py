"""The Chinese catalogs are complete, fit the English, and are compiled: docs/catalogs.py brings them up to date."""
import ast
import importlib.util
import re
import string
from pathlib import Path

import pytest

from tinymae.learn.exercises import EXERCISES, ZOO
from tinymae.learn.lessons import find_lesson, lesson_in_language, lessons
from tinymae.learn.prose import code_in_language, from_lessons, in_language, units
from tinymae.learn.solution import judge_file
from tinymae.learn.write_exercise import write_exercise
from tinymae.messages import columns, spoken

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


def test_all_words_of_an_exercise_are_wanted():
    """Of its docstrings, comments and blanks; and of a comment in a lesson."""
    assert catalogs.words('''"""Title."""

def f():
    """What it returns."""
    assert x == ["a", "b"], "too many"
    raise NotImplementedError("equation (1)")   # (2)  why
''') == ["Title.", "What it returns.", "too many", "equation (1)", "why"]
    found = [text for text, *_ in catalogs.lesson_messages()]
    assert {"equations (5) to (9)", "Gradients (dq, dk, dv), from dy (B, H, Tq, d_v).", "False on padding",
            "through (3)", "step 3: divide by 8", "the scores are 1, 1 and 2"} <= set(found)
    assert not any("python -m tinymae check" in text for text in found)


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
    chinese = {"no task": "不是", "How many?": "多少" * 22, "Write it.": "写。"}
    assert code_in_language(code, chinese.get) == (
        f"x = 1  # 2. 不是\n\n# 1. {'多少' * 20}多\n#    少多少\nanswer_1 = None\n\n# 2. 写。\n"
    )


CODE = '''"""Title.

    (1)  y = x                      beside it
"""
x = "# no comment"                  # (1)  (B, T)  beside
y = x   # (B, T)
z = {"a": f'{x}"""'}                # of z

def f():
    """First line.

    Second
    paragraph.
    """
    # of its
    # own
    assert x in ("a", "b"), f"no {x}"
    assert x == ", " or \
        f("a", "b")
    assert (x, "y"), 'y is wrong'
    raise NotImplementedError("a blank")
'''


def test_words_in_code_are_translated():
    """Strings, shapes and numbers stay; what has lines of its own is filled, with its indent."""
    found = []
    assert code_in_language(CODE, lambda text: found.append(text) or text) == CODE
    assert found == ["Title.", "beside it", "beside", "of z", "First line.", "Second paragraph.", "of its own", "y is wrong",
                     "a blank"]
    assert code_in_language(CODE, lambda text: "中" * 12 if text[0] in "Soa" else f"{text}。", 24) == (
        CODE.replace("Title.", "Title.。").replace("beside it", "beside it。").replace("(B, T)  beside", "(B, T)  beside。")
        .replace("of z", "中" * 12).replace("First line.", "First line.。").replace("a blank", "中" * 12)
        .replace("y is wrong", "y is wrong。")
        .replace("Second\n    paragraph.", f"{'中' * 10}\n    {'中' * 2}")
        .replace("of its\n    # own", f"{'中' * 9}\n    # {'中' * 3}")
    )


@pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: str(lesson.number))
def test_the_code_of_a_lesson_is_the_same_in_chinese(lesson):
    for cell in lesson.cells:
        with spoken("zh"):
            chinese = code_in_language(cell.code, from_lessons)
        assert program(chinese) == program(cell.code)
        assert [line for line in chinese.splitlines() if columns(line) > 88] == []


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("name", [*EXERCISES, *ZOO])
def test_a_chinese_exercise_is_the_same_program(name, bare, tmp_path):
    """So its check is the same; and no three English words follow each other in what a student reads."""
    english = write_exercise(name, tmp_path, bare=bare).read_text("utf-8")
    (tmp_path / f"{name}.py").unlink()
    with spoken("zh"):
        chinese = write_exercise(name, tmp_path, bare=bare).read_text("utf-8")
    assert chinese != english and program(chinese) == program(english)
    assert [line for line in chinese.splitlines() if columns(line) > 128] == []
    read = [text for text in catalogs.words(chinese) if not text.startswith("python -m ")]
    assert [text for text in read if re.search("[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}", text)] == []


@pytest.mark.parametrize("name", ["linear", "dropout", "split_heads"])
def test_a_chinese_exercise_is_checked(name, tmp_path):
    answer = (ROOT / "tests" / "answers" / "exercises" / f"{name}.py").read_text("utf-8")
    with spoken("zh"):
        path = write_exercise(name, tmp_path)
        blank = judge_file(path)
        path.write_text(f"{path.read_text('utf-8')}\n\n{answer}", encoding="utf-8")
        assert not blank.ok and re.search("：式 \\(\\d\\)", blank.text) and judge_file(path).ok


def program(code):
    """What a program does: its syntax tree without docstrings, and without the messages of asserts and NotImplementedErrors."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            del node.body[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "NotImplementedError":
            node.args.clear()
        elif isinstance(node, ast.Assert) and isinstance(node.msg, ast.Constant):
            node.msg = None
    return ast.dump(tree)


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
