"""One language of a pair: how its text becomes ids, and its ids text.

    words         why do we work ?      a vocabulary of words and punctuation marks
    characters    我 有 一 只 猫         Chinese and other scripts without spaces
    letters       3   M a y             every character is a token, spaces too
    bpe           ▁cot ton .            subwords, so that no word is unknown (needs the `tokenizers` library)
"""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tinymae.messages import message as _
from tinymae.text.bpe import Bpe, train_bpe
from tinymae.text.tokens import detokenize, tokenize_characters, tokenize_words
from tinymae.text.vocabulary import EOS, Vocabulary

TOKENISERS = {"words": tokenize_words, "characters": tokenize_characters, "letters": list}


@dataclass(frozen=True)
class Language:
    """A tokeniser with its vocabulary."""

    kind: str                   # a key of TOKENISERS, or "bpe"
    vocabulary: Vocabulary | Bpe

    def __post_init__(self):
        _check_kind(self.kind)

    @classmethod
    def learn(cls, kind: str, sentences: Iterable[str], *, min_count: int = 1, pieces: int | None = None) -> "Language":
        """Collect the tokens of sentences, or for "bpe" learn at most `pieces` subwords.

        Parameters
        ----------
        kind : "words", "characters", "letters" or "bpe"
        sentences : not one str
        min_count : rarer tokens become <unk>; for "bpe" it is not used
        pieces : the number of subwords, for "bpe" only

        Raises
        ------
        ValueError
            if the kind is unknown, or pieces is missing for "bpe" or given for a different kind
        """
        _check_kind(kind)
        if (kind == "bpe") != (pieces is not None):
            raise ValueError(_("kind is {kind!r} and pieces {pieces}; expected a number of subwords for 'bpe', and for it only",
                               kind=kind, pieces=pieces))
        if kind == "bpe":
            return cls(kind, train_bpe([text.lower() for text in sentences], pieces))
        return cls(kind, Vocabulary.build([TOKENISERS[kind](text) for text in sentences], min_count))

    def content(self) -> dict:
        """It as JSON can hold it."""
        return {"kind": self.kind, **self.vocabulary.content()}

    @classmethod
    def of(cls, content: dict) -> "Language":
        """The language of which this is the `content`.

        Raises
        ------
        ValueError
            if the kind is unknown, or the rest is not the content of its vocabulary
        """
        kind = content.get("kind")
        _check_kind(kind)
        rest = {name: value for name, value in content.items() if name != "kind"}
        return cls(kind, (Bpe if kind == "bpe" else Vocabulary).of(rest))

    def __str__(self) -> str:
        count = len(self.vocabulary)
        return {
            "words": _("{count:,} words", count=count), "characters": _("{count:,} characters", count=count),
            "letters": _("{count:,} letters", count=count), "bpe": _("{count:,} subwords", count=count),
        }[self.kind]

    def tokens(self, text: str) -> list[str]:
        """The tokens of a sentence; words and subwords in lower case."""
        return self.vocabulary.tokens(text.lower()) if self.kind == "bpe" else TOKENISERS[self.kind](text)

    def encode(self, text: str) -> list[int]:
        """The ids of a sentence, with <eos> at the end."""
        return [*self.vocabulary.encode(text.lower() if self.kind == "bpe" else self.tokens(text)), EOS]

    def varied(self, texts: Sequence[str], dropout: float, rng: np.random.Generator) -> list[list[int]]:
        """As `encode`, of many sentences whose subwords vary: see `bpe.Bpe.varied`. Other kinds than "bpe" do not vary."""
        if self.kind != "bpe":
            return [self.encode(text) for text in texts]
        return [[*ids, EOS] for ids in self.vocabulary.varied([text.lower() for text in texts], dropout, rng)]

    def unknown(self, text: str) -> list[str]:
        """The parts of a sentence that become <unk>."""
        return self.vocabulary.unknown(text.lower() if self.kind == "bpe" else self.tokens(text))

    def words(self, ids: Iterable[int]) -> list[str]:
        """The tokens of ids, up to the first <eos>."""
        return self.vocabulary.pieces(ids) if self.kind == "bpe" else self.vocabulary.decode(ids)

    def text(self, ids: Iterable[int]) -> str:
        """Ids as a sentence that people read, up to the first <eos>."""
        if self.kind == "bpe":
            return self.vocabulary.decode(ids)
        words = self.words(ids)
        return "".join(words) if self.kind == "letters" else detokenize(words, self.kind == "characters")


def _check_kind(kind):
    if kind not in (*TOKENISERS, "bpe"):
        raise ValueError(_("kind is {kind!r}; expected one of {names}", kind=kind, names=", ".join([*TOKENISERS, "bpe"])))
