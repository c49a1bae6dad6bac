"""Sentence pairs to learn from, and pairs that are held out to be judged by."""
import math
from collections import Counter
from typing import NamedTuple

import numpy as np

from tinymae.text import grammar, toys
from tinymae.text.pairs import read_parallel, read_tsv
from tinymae.text.phrases import FIXED

NAMES = ("phrasebook", "dates", "french")


class Corpus(NamedTuple):
    """Sentence pairs, and how they are cut into tokens."""

    train: list                 # of (source, target) strings
    held_out: list
    source: str                 # kind of text.language.Language
    target: str

    def reversed(self):
        """The same pairs in the other direction."""
        train, held_out = ([(target, source) for source, target in part] for part in (self.train, self.held_out))
        return Corpus(train, held_out, self.target, self.source)


def load_corpus(data, seed=0, valid=None):
    """Sentence pairs by name or from files.

    Parameters
    ----------
    data : list of str: ["phrasebook"] (Chinese -> English), ["dates"], ["french"] (French -> English), a tab-separated file, or
        a source and a target file
    seed : int, for what is held out: of files, one pair in fifty, at most 2000
    valid : list of one or two files with the pairs to hold out instead, or None

    Returns
    -------
    Corpus
    """
    if data[0] in NAMES and (len(data) > 1 or valid):
        raise ValueError(f"{data[0]} comes with its own held-out pairs and stands alone, got {[*data, *(valid or [])]}")
    if data == ["phrasebook"]:
        known, held_out = split(grammar.phrasebook(), held_out=2000, seed=seed)
        known = known + 20 * list(FIXED)                     # the articles' own sentences, each alone of its kind
        return Corpus(known, held_out, "words", "characters").reversed()
    if data == ["dates"]:
        pairs = toys.dates(44000, np.random.default_rng(seed))
        days = list(dict.fromkeys(iso for _, iso in pairs))
        apart = set(days[: len(days) // 20])                    # days that are never seen, in no format
        return Corpus([p for p in pairs if p[1] not in apart], [p for p in pairs if p[1] in apart], "letters", "letters")
    if data == ["french"]:
        sides, fixed = (str.split, str.split), toys.FRENCH_FIXED
        parts = split(toys.french(), 4, seed, words=sides, fixed=fixed, least=2)
        return Corpus(*parts, "words", "words")
    pairs = read_pairs(data)
    held_out = read_pairs(valid) if valid else None
    if held_out is None:
        pairs = [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))]
        apart = min(2000, math.ceil(len(pairs) / 50))
        pairs, held_out = pairs[apart:], pairs[:apart]
        if not pairs:
            raise ValueError(f"{data}: expected at least two pairs, one to learn from and one to be judged by, got one")
    kinds = ("characters" if _is_chinese(side) else "words" for side in zip(*pairs[:1000], strict=True))
    return Corpus(pairs, held_out, *kinds)


def read_pairs(files):
    """The (source, target) pairs of one tab-separated file, or of a source and a target file."""
    if len(files) > 2:
        raise ValueError(f"expected one tab-separated file, or a source and a target file, got {len(files)}: {files}")
    return read_parallel(*files) if len(files) == 2 else read_tsv(*files)


def _is_chinese(sentences):
    """Whether more than half of the sentences hold a Chinese character."""
    return sum(any("一" <= c <= "鿿" for c in sentence) for sentence in sentences) > len(sentences) / 2


LEAST_SEEN = 5                          # a word seen once is hardly learned: `split` leaves it in more sentences


def split(pairs, held_out=1000, seed=0, *, words=(str.split, list), fixed=FIXED, least=LEAST_SEEN):
    """Keep sentences apart, to ask a trained model what it never saw.

    A held-out sentence is a new combination of known words: each of its English words and Chinese characters is in at
    least five training sentences. The articles' own sentences (`FIXED`) are always trained on.

    For the 45 pairs of `french` both sides are words, and fewer sentences can be asked for:

        split(french(), 4, words=(str.split, str.split), fixed=FRENCH_FIXED, least=2)

    Parameters
    ----------
    pairs : list of (str, str); the defaults are for those of `phrasebook`, (english, chinese) in this direction
    held_out : int, how many to keep apart
    seed : int, which ones
    words : (function, function), how each side is cut into words; the same word on both sides counts as two
    fixed : list of pairs, never held out
    least : int, how many training sentences each word of a held-out one must be in

    Returns
    -------
    train, held : lists of pairs; train in the order of pairs, held in random order, so that its first hundred are a
        fair sample too

    Raises
    ------
    ValueError
        when a pair comes twice, held_out is below 1, or not so many pairs can be spared
    """
    if len(set(pairs)) != len(pairs):
        raise ValueError(f"{len(pairs) - len(set(pairs))} pairs come twice: one could be trained on and tested on")
    if held_out < 1:
        raise ValueError(f"held_out is {held_out}; expected at least 1")
    known = [{(side, word) for side in (0, 1) for word in words[side](pair[side])} for pair in pairs]
    left = Counter(word for sentence in known for word in sentence)
    fixed, held = set(fixed), []
    for i in np.random.default_rng(seed).permutation(len(pairs)).tolist():
        if len(held) == held_out:
            break
        if pairs[i] not in fixed and all(left[word] > least for word in known[i]):
            held.append(i)
            left.subtract(known[i])
    if len(held) < held_out:
        raise ValueError(f"held_out is {held_out}, and of {len(pairs)} pairs only {len(held)} can be spared: the "
                         f"words of a held-out sentence must be in {least} others")
    apart = set(held)
    return [pair for i, pair in enumerate(pairs) if i not in apart], [pairs[i] for i in held]
