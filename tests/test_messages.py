"""Sentences are translated as a whole: what is marked is found by gettext's tools, and placeholders have names.

The rules about the source are functions from a source to a list of complaints, each with planted offenders. Below them small
catalogs are written, in which placeholders change their order, and the commands speak from them.
"""
import ast
import os
import re
import shutil
import string
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinymae
from tinymae import messages
from tinymae.__main__ import main
from tinymae.gradcheck import gradcheck
from tinymae.learn.exercises import CAUSES, hints, list_exercises, story
from tinymae.learn.lessons import lessons_folder
from tinymae.messages import either, message, padded, set_language, translated

PACKAGE = Path(tinymae.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


# ---- the source ------------------------------------------------------------------------------------------------------

def called(node):
    """The name of the function that a node calls, or ''."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def is_literal(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def wrongly_marked(source):
    """Complaints: what gettext's tools do not find, what no catalog can hold, and a `_` that means something else as well."""
    tree, complaints = ast.parse(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            complaints += [f"line {each.lineno}: _() in an f-string" for each in ast.walk(node) if called(each) == "_"]
        if called(node) in ("_", "marked") and not (len(node.args) == 1 and is_literal(node.args[0])):
            complaints.append(f"line {node.lineno}: expected one literal sentence in {node.func.id}()")
        elif called(node) == "_":
            given = {keyword.arg for keyword in node.keywords}
            parsed = string.Formatter().parse(node.args[0].value) if given else []
            fields = {name for _, name, _, _ in parsed if name is not None}
            if given != fields:
                complaints.append(f"line {node.lineno}: placeholders {sorted(fields)}, values {sorted(map(str, given))}")
        elif called(node) == "translated" and not isinstance(node.args[0], (ast.Name, ast.Subscript, ast.Attribute, ast.Call)):
            complaints.append(f"line {node.lineno}: expected a variable in translated(): a literal is for _()")
    if any(isinstance(node, ast.ImportFrom) and "_" in [alias.asname for alias in node.names] for node in ast.walk(tree)):
        complaints += [f"line {node.lineno}: _ is the marking function" for node in ast.walk(tree)
                       if (isinstance(node, ast.Name) and node.id == "_" and not isinstance(node.ctx, ast.Load))
                       or (isinstance(node, ast.arg) and node.arg == "_")]
    return complaints


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_marked_sentences_can_be_translated(path):
    assert wrongly_marked(path.read_text("utf-8")) == []


IMPORT = "from tinymae.messages import message as _\n"


@pytest.mark.parametrize("planted", [
    '_(f"lesson {n}")', '_("lesson " + n)', '_("lesson {number}", count=3)', '_("lesson {}", number=3)', "_(sentence)",
    '_("lesson {number}", **values)', "f'{_(\"a lesson\")}!'", "marked(sentence)", 'marked(f"{n} lessons")',
    'translated("a lesson")', 'translated(f"lesson {n}")', 'translated("lesson " + n)',
    IMPORT + "for _ in range(3):\n pass", IMPORT + "a, _ = pair", IMPORT + "lambda _: 0",
])
def test_a_wrongly_marked_sentence_is_seen(planted):
    assert wrongly_marked(planted)


def unmarked(source):
    """[(line, text)] of the texts of at least two words that are not marked; an f-string has {} where its values are."""
    tree, seen, found = ast.parse(source), set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and is_literal(node.value):
            seen.add(node.value)                                # a docstring
        elif isinstance(node, ast.JoinedStr):
            seen.update(node.values)
        elif called(node) in ("_", "marked"):
            seen.update(node.args)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if is_literal(part) else "{}" for part in node.values)
        else:
            text = node.value if is_literal(node) and node not in seen else ""
        if re.search(r"[A-Za-z]{2,}[,;:]? [a-z]{2,}", text):
            found.append((node.lineno, text))
    return found


# Where a learner reads: every sentence is marked. The names of the gradient checker's own cases (gradcheck/cases.py) are names.
ROOMS = [path for path in SOURCES if path.parent.name in ("gradcheck", "learn", "checks", "cli") or path.name == "__main__.py"]
ROOMS = [path for path in ROOMS if path.name != "cases.py"] + [PACKAGE / room for room in (     # the latter: errors of commands
    "files.py", "packed.py", "images/hide.py", "images/labelled.py", "images/load.py", "tasks/classify.py", "tasks/demo.py",
    "tasks/encoders.py", "tasks/export_model.py", "tasks/photograph.py", "tasks/probe.py", "tasks/reconstruct.py",
    "tasks/translate.py", "text/language.py", "text/pairs.py", "text/vectors.py", "train/folder.py", "train/loop.py",
    "train/ranks.py", "weights/marian.py", "weights/names.py", "weights/preparation.py", "weights/pth.py", "weights/read.py",
    "weights/safetensors.py",
)]
EXCEPTIONS = (
    "expected a docstring with the title", "articles.md: ",         # for those who write lessons
    "# ---- why nobody noticed", "inhomogeneous shape", "mismatch in its core",     # what stands in a file, or in a message
    "be broadcast together",                                        # of NumPy
    "padding_mask, pad={}", "xhat mean(",                 # a formula
    "import sys; ", 'r"""',                                         # Python
)


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_learners_read_is_marked(path):
    found = unmarked(path.read_text("utf-8"))
    assert [(line, text) for line, text in found if not any(words in text for words in EXCEPTIONS)] == []


def test_every_exception_is_needed():
    texts = [text for path in ROOMS for _, text in unmarked(path.read_text("utf-8"))]
    assert [words for words in EXCEPTIONS if not any(words in text for text in texts)] == []


@pytest.mark.parametrize("planted", [
    'print("no such lesson")', 'print(f"lesson {n} is done")', 'raise ValueError("no such lesson")',
    'raise ValueError(f"{path}: no such file")', 'def f():\n return "all zeros here"', 'def f():\n yield "the gradient", rows',
    'parser.add_argument("--seed", help="of random numbers")', 'ArgumentParser(description=f"the {name} of it")',
    'TABLE = {"axis": "the wrong axis"}', 'print("  " + "cell " + "raises an error")', 'text += f"; wrong only at {where}"',
    '_("{what}", what="a part of it")', 'print("hint, please: " + _("the first one"))',
])
def test_an_unmarked_sentence_is_seen(planted):
    assert unmarked(planted)


@pytest.mark.parametrize("fine", [
    'print(_("no such lesson"))', '"""A docstring of it."""', 'print(f"{name:12} {count}")', 'print("python")',
    'TABLE = {"axis": marked("the wrong axis")}', 'json.dumps({"check": name})',
])
def test_what_is_marked_or_no_sentence_is_fine(fine):
    assert unmarked(fine) == []


# ---- the functions ---------------------------------------------------------------------------------------------------

def test_placeholders_are_filled():
    assert message("{share:.0%} of {what}", what="it", share=0.5) == "50% of it"
    assert message("50 % {of it}") == "50 % {of it}"
    assert message("{sentence!r}", sentence="a") == "'a'"


def test_names_to_choose_from():
    assert [either(names) for names in (["a"], ["a", "b"], {"a": 1, "b": 2, "c": 3})] == ["a", "a or b", "a, b or c"]


def test_cells_of_a_table_are_as_wide_as_they_look():
    assert [padded(text, 4) for text in ("错", "ok", "too wide")] == ["错  ", "ok  ", "too wide"]
    assert padded("错", 4, right=True) == "  错"


def test_the_language_is_one_option_before_the_command(capsys, monkeypatch):
    monkeypatch.setenv("LANGUAGE", "en")
    for option in (["--lang", "en"], ["--lang=en"]):
        assert main([*option, "lessons"]) == 0
    capsys.readouterr()
    assert main(["--lang", "tlh", "lessons"]) == 2
    assert "expected a language, en or zh, after --lang, got 'tlh'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--lang"):
        set_language("")


def test_a_language_alone_runs_the_demo(monkeypatch, capsys):
    monkeypatch.setenv("LANGUAGE", "en")
    with pytest.raises(SystemExit):
        main(["--lang", "en", "--minutes", "x"])
    assert "--minutes" in capsys.readouterr().err


# ---- catalogs --------------------------------------------------------------------------------------------------------

def write_catalog(folder, translations):
    """The catalogs of a folder, all with these translations, as `msgfmt` writes them: two tables of (length, place), texts."""
    head = {"": "Content-Type: text/plain; charset=UTF-8\n"}
    pairs = sorted((english.encode(), other.encode()) for english, other in (head | translations).items())
    tables, texts, start = [], b"", 28 + 16 * len(pairs)
    for text in [english for english, _ in pairs] + [other for _, other in pairs]:
        tables.append(struct.pack("<II", len(text), start + len(texts)))
        texts += text + b"\0"
    path = folder / "zh_CN" / "LC_MESSAGES"
    path.mkdir(parents=True)
    numbers = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    for name in ("tinymae", "lessons", "argparse"):
        (path / f"{name}.mo").write_bytes(numbers + b"".join(tables) + texts)


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    """A function(translations): they become the Chinese catalog, which --lang zh or LANGUAGE=zh_CN selects."""
    monkeypatch.setenv("LANGUAGE", "en")                        # what `set_language` writes there is undone in the end
    monkeypatch.setattr(messages, "CATALOGS", tmp_path / "locale")
    yield lambda translations: write_catalog(tmp_path / "locale", translations)
    monkeypatch.undo()
    messages.speak_like_us()                                    # argparse, too, is back at the catalogs of the package


def swapped_backward(dy, cache):
    a, b = cache
    return dy * a, dy * b


def test_a_diagnosis_is_translated(catalog, monkeypatch):
    catalog({
        "swapped with the gradient of {other}: {advice}": "{advice}：它和 {other} 的梯度对调了",
        "return one for each, in the order of forward's arguments": "按前向参数的顺序各返回一个",
    })
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))

    def diagnosis():
        return gradcheck(lambda a, b: (a * b, (a, b)), swapped_backward, a, b)[0].diagnosis

    assert diagnosis() == "swapped with the gradient of b: return one for each, in the order of forward's arguments"
    monkeypatch.setenv("LANGUAGE", "zh_CN:en")
    assert diagnosis() == "按前向参数的顺序各返回一个：它和 b 的梯度对调了"


def test_help_and_errors_are_translated(catalog, capsys):
    catalog({
        "usage: ": "用法：", "options": "选项", "list the lessons": "列出各课",
        "invalid %(type)s value: %(value)r": "%(value)r 不是 %(type)s",
        "train for this long ({minutes})": "训练时间（{minutes}）", "default: 2.5, digits 0.5": "默认 2.5，digits 0.5",
        "phrasebook, dates, french, a tab-separated file, or a source and a target file (.gz too)": "某种数据",
        "there is no lesson {number}: `python -m tinymae lessons` lists them": "没有第 {number} 课",
        "there is no exercise {name!r}: did you mean {names}? `python -m tinymae exercise` lists them":
            "是不是 {names}？没有 {name!r} 这道练习",
        "{names} or {last}": "{last} 或 {names}",
    })
    with pytest.raises(SystemExit):
        main(["--lang", "zh", "--help"])
    out = capsys.readouterr().out
    assert out.startswith("用法：python -m tinymae") and "选项:" in out and "列出各课" in out
    with pytest.raises(SystemExit):
        main(["--lang=zh", "demo", "--help"])
    assert "训练时间（默认 2.5，digits 0.5）" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--lang=zh", "train", "translate", "--help"])
    assert "某种数据" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--lang", "zh", "gradcheck", "--seed", "x"])
    assert "'x' 不是 int" in capsys.readouterr().err
    assert main(["--lang", "zh", "lesson", "99"]) == 1
    assert capsys.readouterr().err == "tinymae: 没有第 99 课\n"
    assert main(["--lang", "zh", "exercise", "softmaxx"]) == 1
    assert re.fullmatch(r"tinymae: 是不是 \w+ 或 softmax.*？没有 'softmaxx' 这道练习\n", capsys.readouterr().err)
    with pytest.raises(SystemExit):
        main(["--lang", "en", "--help"])
    assert capsys.readouterr().out.startswith("usage: python -m tinymae")


def test_texts_of_exercises_are_translated_when_they_are_used(catalog, monkeypatch):
    summary = next(each for name, _, _, each in list_exercises() if name == "linear")
    first, why, cause = hints("linear")[0], story("softmax_by_batch"), CAUSES["axis"]
    catalog({summary: "小结", first: "提示", why: "故事", cause: "轴错了"})
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    assert next(each for name, _, _, each in list_exercises() if name == "linear") == "小结"
    assert (hints("linear")[0], story("softmax_by_batch"), translated(CAUSES["axis"])) == ("提示", "故事", "轴错了")
    assert translated("") == ""                                 # and not the head of the catalog


MISTAKE = 'EXERCISE = "linear_forward"\n\n\ndef linear(x, w, b):\n    return 2.0 * (x @ w + b)\n'


def test_the_process_of_a_check_speaks_the_same_language(tmp_path):
    """The whole way: a copy of the package with a catalog, `check`, and the process in which it executes the file."""
    shutil.copytree(PACKAGE, tmp_path / "tinymae", ignore=shutil.ignore_patterns("__pycache__", "shipped", "locale"))
    shutil.copytree(lessons_folder(), tmp_path / "lessons", ignore=shutil.ignore_patterns("__pycache__"))
    write_catalog(tmp_path / "tinymae" / "locale", {
        "{path}: {name}, lesson {number}": "第 {number} 课 {name}（{path}）",
        "it is {factor:.6g} times what it should be, everywhere": "处处是应有值的 {factor:.6g} 倍",
        "WRONG": "错",
    })
    (tmp_path / "mine.py").write_text(MISTAKE, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in messages.VARIABLES}
    environment |= {"PYTHONPATH": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
    for option, words in ((["--lang", "zh"], ["第 1 课 linear_forward（mine.py）", "y: 处处是应有值的 2 倍", "  错"]),
                          ([], ["mine.py: linear_forward, lesson 1", "y: it is 2 times what it should be, everywhere"])):
        done = subprocess.run(
            [sys.executable, "-m", "tinymae", *option, "check", "mine.py"], cwd=tmp_path, env=environment, capture_output=True,
            encoding="utf-8", timeout=120, check=False,
        )
        assert done.returncode == 1 and not done.stderr, done.stderr
        assert [each for each in words if each not in done.stdout] == [], done.stdout
