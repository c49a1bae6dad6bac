"""Sentence pairs to train on, and a validation set of pairs that are not trained on: by name or from files.

    "phrasebook", "dates", "french" or files  --load_corpus-->  Corpus: pairs of strings, and how they are cut into tokens

The three names stand for pairs that the package makes itself, so they need no download. `split` chooses a validation set whose
words all occur in the training set.
"""
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinymae.messages import marked, translated
from tinymae.messages import message as _
from tinymae.text import grammar, toys
from tinymae.text.pairs import read_parallel, read_tsv
from tinymae.text.phrases import FIXED
from tinymae.text.tokens import nfc

SentencePair = tuple[str, str]

# Thai, Lao, Tibetan; Burmese; Khmer; Japanese kana; Chinese.
_UNSPACED = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u4e00-\u9fff]")


@dataclass(frozen=True)
class Corpus:
    """Sentence pairs (source, target), and how they are cut into tokens."""

    train: list[SentencePair]
    held_out: list[SentencePair]        # the validation set
    source: str                 # the kind of a text.language.Language
    target: str
    note: str = ""              # how the validation set was chosen, if that was done here

    def reversed(self) -> "Corpus":
        """The same pairs in the opposite direction."""
        train, held_out = ([(target, source) for source, target in part] for part in (self.train, self.held_out))
        return Corpus(train, held_out, self.target, self.source, self.note)


@dataclass(frozen=True)
class NamedCorpus:
    """How to make a corpus from a seed, and how long a model trains on it if no length is given."""

    load: Callable[[int], Corpus]
    minutes: float


def _phrasebook(seed):
    train, held_out = split(grammar.phrasebook(), held_out=2000, seed=seed)
    train = train + 20 * list(FIXED)                        # the articles' own sentences, each the only one of its pattern
    return Corpus(train, held_out, "words", "characters").reversed()


def _dates(seed):
    pairs = toys.dates(44000, np.random.default_rng(seed))
    days = list(dict.fromkeys(iso for _date, iso in pairs))
    apart = set(days[: len(days) // 20])                    # days that are not trained on in any format
    return Corpus([p for p in pairs if p[1] not in apart], [p for p in pairs if p[1] in apart], "letters", "letters")


def _french(seed):
    parts = split(toys.french(), 4, seed, words=(str.split, str.split), fixed=toys.FRENCH_FIXED, least=2)
    return Corpus(*parts, "words", "words")


CORPORA = {"phrasebook": NamedCorpus(_phrasebook, 3), "dates": NamedCorpus(_dates, 1), "french": NamedCorpus(_french, 0.2)}
FILE_EPOCHS = 10                # how long a model trains on files if no length is given
KNOWN_CORPORA = marked("phrasebook, dates, french, a tab-separated file, or a source and a target file (.gz too)")


def load_corpus(data: list[str], seed: int = 0, valid: list[str] | None = None) -> Corpus:
    """Sentence pairs by name or from files.

    Parameters
    ----------
    data
        ["phrasebook"] (Chinese -> English), ["dates"], ["french"] (French -> English), a tab-separated file, or a source and a
        target file. A side of files is cut into characters if most of its first 1000 sentences are of a script without spaces
        between words (Chinese, Japanese, Thai, Lao, Tibetan, Burmese, Khmer), else into words.
    seed : chooses the validation set; of files, one pair in fifty, at most 2000, by `split_connected`
    valid : one or two files with the pairs of the validation set, or None to choose it

    Raises
    ------
    FileNotFoundError
        if `data` is neither a known name nor existing files
    TypeError
        if data or valid is one string
    ValueError
        if a name is given together with something else, or as for `read_pairs`
    """
    _check_files(data)
    names = [name for name in data if name in CORPORA]
    if names and (len(data) > 1 or valid):
        raise ValueError(_("{name} comes with its own validation set and stands alone, got {given}",
                           name=names[0], given=[*data, *(valid or [])]))
    if names:
        return CORPORA[names[0]].load(seed)
    pairs = read_pairs(data)
    held_out = read_pairs(valid) if valid else None
    if held_out is None:
        try:
            pairs, held_out, note = split_connected(pairs, min(2000, math.ceil(len(pairs) / 50)), seed)
        except ValueError as error:
            raise ValueError(_("{file}: {reason}", file=", ".join(map(str, data)), reason=error)) from error
    else:
        known = {sentence for pair in pairs for sentence in _sides(pair)}
        shared = sum(not known.isdisjoint(_sides(pair)) for pair in held_out)
        note = _("{shared} of the {count} validation pairs have a sentence that is also in the training set",
                 shared=shared, count=len(held_out))
    kinds = ("characters" if _has_no_spaces(side) else "words" for side in zip(*pairs[:1000], strict=True))
    return Corpus(pairs, held_out, *kinds, note)


def split_connected(
    pairs: list[SentencePair], held_out: int, seed: int = 0
) -> tuple[list[SentencePair], list[SentencePair], str]:
    """Split pairs into a training set and a validation set that have no sentence in common, on neither side.

    Collections of translations hold a sentence many times, each time with another translation. In both sets, it would be a
    question whose answer was trained on. So pairs that share a source or a target sentence, directly or through other pairs,
    form a group, and groups are never divided. Two sentences are the same if they differ in case and spaces only.

    Parameters
    ----------
    pairs : (source, target)
    held_out : the largest size of the validation set. Groups are taken in random order as long as they fit; if each of them is
        larger, the smallest is the validation set
    seed : chooses the groups

    Returns
    -------
    train, held : both in random order
    note : how many groups there are, in words

    Raises
    ------
    ValueError
        if there are fewer than two groups
    """
    root = list(range(len(pairs)))                              # of each pair: another of its group, or itself

    def find(i):
        while root[i] != i:
            root[i] = i = root[root[i]]                         # halves the path
        return i

    first = {}
    for i, pair in enumerate(pairs):
        for sentence in _sides(pair):
            root[find(i)] = find(first.setdefault(sentence, i))
    groups = {}
    for i in range(len(pairs)):
        groups.setdefault(find(i), []).append(i)
    if len(groups) < 2:
        raise ValueError(_("expected pairs for training and others for validation, got {count} that all share sentences: give "
                           "a file of validation pairs (--valid)", count=len(pairs)))
    rng = np.random.default_rng(seed)
    groups, held = list(groups.values()), set()
    for g in rng.permutation(len(groups)).tolist():
        if len(held) + len(groups[g]) <= min(held_out, len(pairs) - 1):         # one is left to train on
            held.update(groups[g])
    held = held or set(min(groups, key=len))
    order = rng.permutation(len(pairs)).tolist()
    train, apart = ([pairs[i] for i in order if (i in held) == side] for side in (False, True))
    largest = max(map(len, groups))
    note = _("no sentence is in both: {count} groups of up to {largest} pairs that share sentences are kept whole",
             count=len(groups), largest=largest)
    return train, apart, note


def _sides(pair):
    """What makes two sentences of a side the same: (0, text of the source), (1, text of the target)."""
    return [(side, "".join(nfc(text).lower().split()).replace("\u2019", "'")) for side, text in enumerate(pair)]


def read_pairs(files: list[str]) -> list[SentencePair]:
    """The (source, target) pairs of one tab-separated file, or of a source and a target file.

    Raises
    ------
    FileNotFoundError
        if a file does not exist; the message lists the known names too
    TypeError
        if files is one string
    ValueError
        if there are no files or more than two, or as for `read_parallel` and `read_tsv`
    """
    _check_files(files)
    if len(files) not in (1, 2):
        raise ValueError(_("expected one tab-separated file, or a source and a target file, got {count}: {files}",
                           count=len(files), files=files))
    for path in files:
        if not Path(path).exists():
            raise FileNotFoundError(_("no file {path!r}; expected {known}",
                                      path=str(path), known=translated(KNOWN_CORPORA)))
    return read_parallel(*files) if len(files) == 2 else read_tsv(*files)


def _check_files(files):
    # A str is a sequence too: without this, "ab" would be the files a and b.
    if isinstance(files, (str, Path)):
        raise TypeError(f"data is {str(files)!r}; expected a list: one name, or one or two files")


def _has_no_spaces(sentences):
    """Whether more than half of the sentences hold a letter of a script without spaces between words."""
    return sum(_UNSPACED.search(sentence) is not None for sentence in sentences) > len(sentences) / 2


def split(
    pairs: list[SentencePair], held_out: int = 1000, seed: int = 0, *,
    words: tuple[Callable[[str], Iterable[str]], Callable[[str], Iterable[str]]] = (str.split, list),
    fixed: Iterable[SentencePair] = FIXED, least: int = 5,
) -> tuple[list[SentencePair], list[SentencePair]]:
    """Split sentence pairs into a training set and a validation set.

    A sentence of the validation set is a new combination of known words: each of its English words and Chinese characters
    is in at least five training sentences, because a word seen once is hardly learned. The articles' own sentences (`FIXED`)
    are always in the training set.

    For the 45 pairs of `french` both sides are words, and each can only be required in fewer sentences:

        split(french(), 4, words=(str.split, str.split), fixed=FRENCH_FIXED, least=2)

    Parameters
    ----------
    pairs : the defaults are for those of `phrasebook`, (english, chinese) in this direction
    held_out : the size of the validation set
    seed : chooses the validation set
    words : how each side is cut into words; the same word on both sides counts as two
    fixed : pairs that stay in the training set
    least : the number of training sentences that each word of the validation set must be in

    Returns
    -------
    train, held : the training set in the order of pairs; the validation set in random order, so that its first hundred are
        a fair sample too

    Raises
    ------
    ValueError
        if a pair comes twice, held_out is below 1, or not so many pairs can be taken out of the training set
    """
    if len(set(pairs)) != len(pairs):
        raise ValueError(f"{len(pairs) - len(set(pairs))} pairs come twice: one could be in both training and validation set")
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
                         f"words of a held-out sentence must be in {least} training sentences")
    apart = set(held)
    return [pair for i, pair in enumerate(pairs) if i not in apart], [pairs[i] for i in held]
