"""Text to numbers and back, for each kind of language."""
import json
import re

import pytest

from tinymae.text.language import Language

SENTENCES = ["Why do we work?", "We work.", "Do we?"]


@pytest.mark.parametrize(("kind", "sentences", "shown"), [
    ("words", SENTENCES, "why do we work?"), ("letters", ["3 May"], "3 May"), ("characters", ["我有一只猫"], "我有一只猫"),
    ("words", ["मैं पानी पीती हूँ।"], "मैं पानी पीती हूँ।"), ("characters", ["ที่นี่ดี"], "ที่นี่ดี"),
])
def test_there_and_back(kind, sentences, shown):
    language = Language.learn(kind, sentences)
    ids = language.encode(sentences[0])
    assert ids[-1] == 2 and len(ids) == len(language.tokens(sentences[0])) + 1
    assert language.text(ids) == shown and language.words(ids) == language.tokens(sentences[0])
    again = Language.of(json.loads(json.dumps(language.content())))
    assert again.encode(sentences[0]) == ids
    assert str(language) == f"{len(language.vocabulary)} {kind}"


def test_a_language_is_described_in_the_language_of_the_user(monkeypatch):
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    shown = {kind: str(Language.learn(kind, ["a b"])) for kind in ("words", "characters", "letters")}
    assert [re.sub(r"\d+ ", "", text) for text in shown.values()] == ["个词", "个字符", "个字母"]


@pytest.mark.parametrize(("kind", "pieces", "message"), [
    ("word", None, "kind is 'word'; expected one of words, characters, letters, bpe"),
    ("words", 40, "kind is 'words' and pieces 40"), ("bpe", None, "kind is 'bpe' and pieces None"),
])
def test_kinds_that_are_refused(kind, pieces, message):
    with pytest.raises(ValueError, match=message):
        Language.learn(kind, SENTENCES, pieces=pieces)


def test_unknown():
    language = Language.learn("words", SENTENCES, min_count=2)
    assert language.unknown("Why do cats work, why?") == ["why", "cats", ","]
    assert language.encode("cats do")[0] == 3


def test_pieces():
    pytest.importorskip("tokenizers")
    language = Language.learn("bpe", SENTENCES, pieces=40)
    ids = language.encode("We do work?")
    assert ids[-1] == 2 and language.text(ids) == "we do work?"
    assert "".join(language.words(ids)).replace("\u2581", " ").strip() == "we do work?"
    assert language.tokens("We do")[0] == "\u2581we"
    assert language.words(ids) == language.tokens("We do work?")
    marked = Language.learn("bpe", ["मैं पानी पीती हूँ।"], pieces=40)
    assert marked.text(marked.encode("मैं पानी पीती हूँ।")) == "मैं पानी पीती हूँ।"
    assert language.unknown("we 猫") == ["猫"] and language.unknown("we do") == []
    assert Language.of(json.loads(json.dumps(language.content()))).encode("We do work?") == ids
