"""Sentence pairs to learn from, and pairs that are held out to be judged by."""
import math
from typing import NamedTuple

import numpy as np

from tinymae.data import phrasebook
from tinymae.data.pairs import read_parallel, read_tsv

NAMES = ("phrasebook", "dates", "french")


class Corpus(NamedTuple):
    """Sentence pairs, and how they are cut into tokens."""

    train: list                 # of (source, target) strings
    held_out: list
    source: str                 # kind of data.language.Language
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
        known, held_out = phrasebook.split(phrasebook.phrasebook(), held_out=2000, seed=seed)
        known = known + 20 * list(phrasebook.FIXED)             # the articles' own sentences, each alone of its kind
        return Corpus(known, held_out, "words", "characters").reversed()
    if data == ["dates"]:
        pairs = phrasebook.dates(44000, np.random.default_rng(seed))
        days = list(dict.fromkeys(iso for _, iso in pairs))
        apart = set(days[: len(days) // 20])                    # days that are never seen, in no format
        return Corpus([p for p in pairs if p[1] not in apart], [p for p in pairs if p[1] in apart], "letters", "letters")
    if data == ["french"]:
        sides, fixed = (str.split, str.split), phrasebook.FRENCH_FIXED
        parts = phrasebook.split(phrasebook.french(), 4, seed, words=sides, fixed=fixed, least=2)
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
