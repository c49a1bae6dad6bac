"""Byte pair encoding: subwords in place of words, so that no word is unknown.

A vocabulary of whole words can never be complete, and each missing word becomes <unk>. Subwords can spell every word: frequent
words stay whole, rare ones are cut into parts that they share with different words (Sennrich et al. 2016, section 3.2).
`train_bpe` finds them.

A word is always cut in the same way, so a model sees its parts in that company only. `Bpe.varied` cuts the sentences of a
training set at random, by leaving out some of the joins: BPE-dropout (Provilkov et al. 2020). A model then learns what the
smaller subwords mean, which helps most where there are few sentences.

Only this module needs the `tokenizers` library. It is imported when it is used, so that words and characters work without it.
"""
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from tinymae.messages import message as _
from tinymae.text.tokens import nfc
from tinymae.text.vocabulary import BOS, EOS, PAD, SPECIALS, UNK


class Bpe:
    """A vocabulary of subwords: Sennrich et al. 2016, by the `tokenizers` library.

    It encodes text where `Vocabulary` encodes tokens; the four special tokens have the same ids. `train_bpe` and `Bpe.of`
    make it.
    """

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def tokens(self, text: str) -> list[str]:
        """The subwords of a text; \u2581 marks the beginning of a word."""
        return self._tokenizer.encode(nfc(text)).tokens

    def encode(self, text: str) -> list[int]:
        """The ids of a text's subwords; 3, <unk>, for a character that is not in the vocabulary. No <eos> is added."""
        return self._tokenizer.encode(nfc(text)).ids

    def varied(self, texts: Sequence[str], dropout: float, rng: np.random.Generator, ways: int = 4) -> list[list[int]]:
        """The ids of texts whose words are cut into subwords at random; with a dropout of 0 as `encode`.

        Parameters
        ----------
        texts : sentences
        dropout : the probability that a join is left out: 0.1 is usual, 1 gives characters
        rng : decides all
        ways : each word is cut in so many ways, and each time it occurs, one of them is taken

        Differs: Provilkov et al. cut a word anew each time that it occurs, which takes longer.
        """
        model = self.content()["model"]
        ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
        ids = model["vocab"]
        lines = [[word for word, _place in self._tokenizer.pre_tokenizer.pre_tokenize_str(nfc(text))] for text in texts]
        words = dict.fromkeys(word for line in lines for word in line)
        cuts = {word: [_joined(word, ranks, dropout, rng) for _way in range(ways)] for word in words}
        found = []
        for line in lines:
            chosen = rng.integers(ways, size=len(line)).tolist()
            parts = (part for word, way in zip(line, chosen, strict=True) for part in cuts[word][way])
            found.append([ids.get(part, UNK) for part in parts])
        return found

    def unknown(self, text: str) -> list[str]:
        """The characters of a text that `encode` makes <unk>."""
        text = nfc(text)
        encoded = self._tokenizer.encode(text)
        return [text[start:end] for i, (start, end) in zip(encoded.ids, encoded.offsets, strict=True) if i == UNK]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The subwords of ids: up to the first <eos>, without <pad> and <bos>."""
        return [self._tokenizer.id_to_token(i) for i in self._content(ids)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids: up to the first <eos>, without <pad> and <bos>."""
        return self._tokenizer.decode(self._content(ids), skip_special_tokens=False)

    def _content(self, ids):
        ids = [int(i) for i in ids]
        for i in ids:
            if not 0 <= i < len(self):
                raise ValueError(f"id {i} is not in this vocabulary of {len(self)} subwords; is it from a different one?")
        if EOS in ids:
            ids = ids[: ids.index(EOS)]
        return [i for i in ids if i not in (PAD, BOS)]

    def content(self) -> dict:
        """It as the JSON of the `tokenizers` library."""
        return json.loads(self._tokenizer.to_str())

    @classmethod
    def of(cls, content: object) -> "Bpe":
        """The subwords of which this is the `content`.

        Raises
        ------
        ImportError
            if the `tokenizers` library is not installed
        ValueError
            if it is something else; the message names the reason
        """
        library = _tokenizers()
        try:
            tokenizer = library.Tokenizer.from_str(json.dumps(content))
        except Exception as error:                      # the library raises a bare Exception for all that it cannot read
            raise ValueError(f"no subwords: {error}") from error
        if tuple(tokenizer.id_to_token(i) for i in range(4)) != SPECIALS:
            raise ValueError(f"subwords from elsewhere: expected {' '.join(SPECIALS)} as 0 to 3")
        return cls(tokenizer)


def train_bpe(sentences: Iterable[str], size: int) -> Bpe:
    """Learn subwords: begin with characters, then repeatedly join the pair of subwords that is most often side by side.

    Parameters
    ----------
    sentences : not one str
    size : the maximum number of subwords, including the four special tokens and all single characters

    Raises
    ------
    ImportError
        if the `tokenizers` library is not installed
    TypeError
        if sentences is one str, or a sentence is not a str
    ValueError
        if size is not above the number of special tokens, or there are no sentences
    """
    if size <= len(SPECIALS):
        raise ValueError(_("size is {size}; expected more than {count}, the special tokens: thousands are usual",
                           size=size, count=len(SPECIALS)))
    if isinstance(sentences, str):
        raise TypeError(f"sentences are one str, {sentences[:40]!r}; expected a list of sentences")
    sentences = [nfc(text) for text in sentences]
    if not sentences:
        raise ValueError("there are no sentences to learn from")
    library = _tokenizers()
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = library.Tokenizer(models.BPE(unk_token="<unk>"))
    # Punctuation is separate: otherwise work and work. would share nothing.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIALS), show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    return Bpe(tokenizer)


def _joined(word, ranks, dropout, rng):
    """The subwords of a word: the earliest join that is possible, and not left out by chance, is made, again and again."""
    parts = list(word)
    while len(parts) > 1:
        chances = rng.random(len(parts) - 1)
        joins = [(ranks[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in ranks and chances[i] >= dropout]
        if not joins:
            break
        _rank, i = min(joins)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def _tokenizers():
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(_("byte pair encoding needs the `tokenizers` library: pip install 'tinymae[text]'. Words and "
                            "characters (Vocabulary) work without it")) from error
    return tokenizers
