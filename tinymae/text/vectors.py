"""Word vectors that others trained, as the start of an embedding: Word2Vec or GloVe (article C, section 2).

An embedding usually starts from random numbers, and a word seen twice in training stays near them. Vectors learnt from
billions of words know already which words are alike. The files are large, written by many hands and often cut off by a
download: so each line is checked, and an error names the file and the line.
"""
import math
from typing import NamedTuple

import numpy as np

from tinymae.text.pairs import read_lines
from tinymae.text.vocabulary import PAD, SPECIALS


class WordVectors(NamedTuple):
    """What `load_word_vectors` found."""

    table: np.ndarray           # (V, D) float32
    found: np.ndarray           # (V,) bool, the rows whose vector stands in the file; never that of <pad>
    share: float                # of the vocabulary's words, specials not counted, those that have a vector in the file
    missing: list               # the other words, str


def load_word_vectors(path, vocabulary, rng, width=None):
    """Start embeddings from vectors that others trained: Word2Vec or GloVe (article C, section 2).

    Both are text: a word and its D numbers on each line. Word2Vec has one line before, the number of words and D.
    Where a word comes twice the first counts.

    Parameters
    ----------
    path : str or Path, UTF-8, also packed with gzip
    vocabulary : Vocabulary
    rng : numpy.random.Generator, for the words without a vector: drawn with the mean and spread of those found,
        number by number
    width : int, the model's D, which the file must have; or None to take the file's

    Returns
    -------
    WordVectors : table (V, D) float32, found (V,) bool, share and missing; the row of <pad> is zero, the other rows
        that are not found are drawn

    Raises
    ------
    ValueError
        for another width, a broken line (with its number), fewer or more vectors than the first line says, a file
        that is not UTF-8 text, or one that has none of the words
    OSError
        when the file cannot be read
    """
    ids = {word: i for i, word in enumerate(vocabulary.words)}
    found = np.zeros(len(vocabulary), bool)
    table = promised = None
    for number, line in enumerate(read_lines(path), 1):
        if table is None:
            head = line.split()
            if promised is None and len(head) == 2 and all(field.isdecimal() for field in head):
                promised, found_width = map(int, head)                  # word2vec; the vectors follow
            elif promised is None:
                found_width = len(head) - 1
            if found_width < 1:
                raise ValueError(f"{path}, line {number}: has no numbers: {line[:60]!r}; expected a word and its "
                                 "vector")
            if width not in (None, found_width):
                raise ValueError(f"{path}, line {number}: the vectors have width {found_width}, and the model's is "
                                 f"{width}; take vectors of that width, or set the model's to the file's")
            if promised is not None and number == 1:
                continue
            table = np.zeros((len(vocabulary), found_width), dtype=np.float32)
        word, values = _vector(path, number, line, found_width)
        i = ids.get(word)
        if i is not None and not found[i]:
            table[i], found[i] = values, True
    if table is None:
        raise ValueError(f"{path}, line 1: {line!r} is the first line of Word2Vec, and no vectors follow")
    if promised not in (None, number - 1):
        raise ValueError(f"{path}, line 1: promises {promised} vectors, and {number - 1} lines follow; is the file "
                         "cut off?")
    words = range(len(SPECIALS), len(vocabulary))
    missing = [vocabulary.words[i] for i in words if not found[i]]
    if len(missing) == len(words):
        raise ValueError(f"{path} has none of the {len(words)} words, such as {missing[:5]}; is it of another "
                         "language, or are its words in capitals?")
    found[PAD], table[PAD] = False, 0                       # whatever the file says
    known, drawn = table[found], ~found
    drawn[PAD] = False
    table[drawn] = rng.normal(known.mean(axis=0), known.std(axis=0), (int(drawn.sum()), found_width))
    return WordVectors(table, found, 1 - len(missing) / len(words), missing)


def _vector(path, number, line, width):
    """A line as its word and `width` floats, whatever it takes to know that it is one."""
    fields = line.rsplit(None, width)                       # from the right: some words of GloVe hold spaces
    try:
        values = [float(field) for field in fields[1:]]
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: is broken ({error}); expected a word and {width} numbers") from error
    if len(values) != width:
        raise ValueError(f"{path}, line {number}: has {len(values)} numbers; expected a word and {width}, as on the "
                         "lines before; is the file cut off?")
    if not math.isfinite(sum(values)):
        raise ValueError(f"{path}, line {number}: holds a number that is not finite")
    word = fields[0].strip()
    if " " in word and _is_number(word.split()[-1]):
        raise ValueError(f"{path}, line {number}: has more than {width} numbers; expected as many as on the lines "
                         "before")
    return word, values


def _is_number(field):
    try:
        float(field)
    except ValueError:
        return False
    return True
