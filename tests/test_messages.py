"""Sentences are translated as a whole: what is marked is found by gettext's tools, and placeholders have names."""
import ast
import string
from pathlib import Path

import pytest

import tinymae
from tinymae.__main__ import main
from tinymae.messages import message, set_language

SOURCES = sorted(Path(tinymae.__file__).parent.rglob("*.py"))


def wrongly_marked(source):
    """Complaints: a call of _() whose sentence is no literal, or whose placeholders are not the values it gets."""
    complaints = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_"):
            continue
        if not (len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)):
            complaints.append(f"line {node.lineno}: expected one literal sentence in _()")
            continue
        given = {keyword.arg for keyword in node.keywords}
        parsed = string.Formatter().parse(node.args[0].value) if given else []
        fields = {name for _, name, _, _ in parsed if name is not None}
        if given != fields:
            complaints.append(f"line {node.lineno}: placeholders {sorted(fields)}, values {sorted(given)}")
    return complaints


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_marked_sentences_can_be_translated(path):
    assert wrongly_marked(path.read_text("utf-8")) == []


@pytest.mark.parametrize("planted", [
    '_(f"lesson {n}")', '_("lesson " + n)', '_("lesson {number}", count=3)', '_("lesson {}", number=3)', "_(sentence)",
])
def test_a_wrongly_marked_sentence_is_seen(planted):
    assert wrongly_marked(planted)


def test_placeholders_are_filled():
    assert message("{share:.0%} of {what}", what="it", share=0.5) == "50% of it"
    assert message("50 % {of it}") == "50 % {of it}"


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
