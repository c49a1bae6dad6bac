"""One language of a pair: how its text becomes numbers, and its numbers text.

    words         why do we work ?      a vocabulary of words and signs
    characters    我 有 一 只 猫         Chinese, without spaces
    letters       3   M a y             every character counts, spaces too
    bpe           ▁cot ton .            pieces of words, so that none is unknown (needs the `tokenizers` library)
"""
from typing import NamedTuple

from tinymae.text.bpe import Bpe, train_bpe
from tinymae.text.tokens import detokenize, tokenize_characters, tokenize_words
from tinymae.text.vocabulary import EOS, Vocabulary

TOKENISERS = {"words": tokenize_words, "characters": tokenize_characters, "letters": list}


class Language(NamedTuple):
    """A tokeniser with its vocabulary."""

    kind: str                   # a key of TOKENISERS, or "bpe"
    vocabulary: object          # Vocabulary; for "bpe" Bpe

    @classmethod
    def learn(cls, kind, sentences, min_count=1, pieces=None):
        """Collect the words of sentences, or with "bpe" learn at most `pieces` pieces of them.

        Parameters
        ----------
        kind : str, "words", "characters", "letters" or "bpe"
        sentences : iterable of str
        min_count : int, rarer words become <unk>
        pieces : int, for "bpe" only
        """
        if kind == "bpe":
            return cls(kind, train_bpe([text.lower() for text in sentences], pieces))
        return cls(kind, Vocabulary.build([TOKENISERS[kind](text) for text in sentences], min_count))

    @classmethod
    def load(cls, kind, path):
        """From the JSON file of its vocabulary."""
        return cls(kind, (Bpe if kind == "bpe" else Vocabulary).load(path))

    def __str__(self):
        return f"{len(self.vocabulary):,} {'pieces' if self.kind == 'bpe' else self.kind}"

    def tokens(self, text):
        """A sentence as a list of tokens; words and pieces in small letters."""
        return self.vocabulary.tokens(text.lower()) if self.kind == "bpe" else TOKENISERS[self.kind](text)

    def encode(self, text):
        """A sentence as a list of int, with <eos> behind it."""
        return [*self.vocabulary.encode(text.lower() if self.kind == "bpe" else self.tokens(text)), EOS]

    def unknown(self, text):
        """What becomes <unk> in a sentence, a list of str."""
        return self.vocabulary.unknown(text.lower() if self.kind == "bpe" else self.tokens(text))

    def words(self, ids):
        """The tokens of numbers, a list of str, up to the first <eos>."""
        return self.vocabulary.pieces(ids) if self.kind == "bpe" else self.vocabulary.decode(ids)

    def text(self, ids):
        """Numbers as a sentence that people read, up to the first <eos>."""
        if self.kind == "bpe":
            return self.vocabulary.decode(ids)
        words = self.words(ids)
        return "".join(words) if self.kind == "letters" else detokenize(words, self.kind == "characters")
