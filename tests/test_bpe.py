"""Pieces of words: learnt, there and back, and kept in a file."""
import builtins
import json

import numpy as np
import pytest

from tinymae.text.bpe import Bpe, train_bpe
from tinymae.text.vocabulary import BOS, EOS, PAD, UNK

SENTENCES = ["the lowest of the low", "the newest and the widest", "lower and lower and newer", "je suis étudiant"] * 5


def test_bpe():
    pytest.importorskip("tokenizers")
    bpe = train_bpe(SENTENCES, 60)
    assert 30 < len(bpe) <= 60
    for text in (*SENTENCES, "the slowest water"):
        ids = bpe.encode(text)
        assert all(i > UNK for i in ids), text                                  # no word is unknown, even a new one
        assert bpe.decode([BOS, *ids, EOS, PAD, 5]) == text
        assert len(bpe.tokens(text)) == len(ids) < len(text)
    assert bpe.encode("the 猫").count(UNK) == 1
    again = Bpe.of(json.loads(json.dumps(bpe.content())))
    assert len(again) == len(bpe) and again.encode("the newest") == bpe.encode("the newest")
    assert again.encode("e\u0301tudiant") == bpe.encode("\u00e9tudiant")


def test_bpe_errors():
    pytest.importorskip("tokenizers")
    bpe = train_bpe(SENTENCES, 60)
    with pytest.raises(ValueError, match="id 900 is not in this vocabulary"):
        bpe.decode([900])
    with pytest.raises(ValueError, match="no subwords"):
        Bpe.of({"words": []})


@pytest.mark.parametrize(("sentences", "size", "error", "message"), [
    (["a"], 4, ValueError, "size is 4"), ([], 60, ValueError, "no sentences"), ("a cat", 60, TypeError, "one str"),
])
def test_train_bpe_errors(sentences, size, error, message):
    with pytest.raises(error, match=message):
        train_bpe(sentences, size)


def test_bpe_without_its_library(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "tokenizers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'tinymae\[text\]'"):
        train_bpe(SENTENCES, 60)
    with pytest.raises(ImportError, match=r"pip install 'tinymae\[text\]'"):
        Bpe.of({})


def test_varied_is_another_spelling_of_the_same_text():
    pytest.importorskip("tokenizers")
    bpe = train_bpe(SENTENCES, 60)
    texts = [*SENTENCES, "tomorrow!", "", "x\u00e9y"]
    plain = [bpe.encode(text) for text in texts]
    assert bpe.varied(texts, 0.0, np.random.default_rng(0)) == plain
    varied = bpe.varied(texts, 0.3, np.random.default_rng(0))
    assert varied == bpe.varied(texts, 0.3, np.random.default_rng(0)) != bpe.varied(texts, 0.3, np.random.default_rng(1))
    assert [bpe.decode(ids) for ids in varied] == [bpe.decode(ids) for ids in plain]
    assert sum(map(len, varied)) > sum(map(len, plain))
    letters = bpe.varied(texts, 1.0, np.random.default_rng(0))
    assert all(len(bpe.pieces([i])[0]) == 1 for ids in letters for i in ids if i != UNK)
