"""Pretrained word vectors as initial values of an embedding: Word2Vec or GloVe (article C, section 2).

An embedding is usually initialised at random, and a word that is rare in the training set stays near its random vector.
Vectors that were trained on billions of words already place similar words near each other. The files are large, come from many
sources, and downloads are often cut off: so each line is checked, and an error names the file and the line.
"""
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymae.messages import message as _
from tinymae.text.pairs import read_lines
from tinymae.text.vocabulary import PAD, SPECIALS, Vocabulary

LARGEST = float(np.finfo(np.float32).max)


class WordVectors(NamedTuple):
    """What `load_word_vectors` found."""

    table: np.ndarray           # (V, D) float32
    found: np.ndarray           # (V,) bool, the rows whose vector is in the file; never that of <pad>
    fraction: float             # of the vocabulary's words (without the special tokens) that have a vector in the file
    missing: list[str]          # the words that have none


def load_word_vectors(
    path: Path | str, vocabulary: Vocabulary, rng: np.random.Generator, dimension: int | None = None,
) -> WordVectors:
    """Initialise an embedding with pretrained word vectors: Word2Vec or GloVe (article C, section 2).

    Both are text: a word and its D numbers on each line. Word2Vec has one line before them, the number of words and D. If a
    word comes twice, its first vector is used.

    Parameters
    ----------
    path : UTF-8, also compressed with gzip
    vocabulary : the words that need a vector
    rng : draws the vectors of missing words from normal distributions, with mean and standard deviation of those found, for
        each of the D numbers
    dimension : the model's D, which the file must have, or None to take the file's

    Returns
    -------
    WordVectors : the row of <pad> is zero, all rows that are not found are drawn, also those whose vector is 0, with a warning

    Raises
    ------
    ValueError
        if the file has a different dimension, a broken line, fewer or more vectors than its first line promises, or none of
        the words, or if it is not UTF-8 text
    OSError
        if the file cannot be read
    """
    ids = {word: i for i, word in enumerate(vocabulary.words)}
    found = np.zeros(len(vocabulary), bool)
    table, promised, zeros = None, None, []
    for number, line in enumerate(read_lines(path), 1):
        if table is None:
            head = line.split()
            if promised is None and len(head) == 2 and all(field.isdecimal() and len(field) < 16 for field in head):
                promised, found_dimension = map(int, head)              # word2vec; the vectors follow
            elif promised is None:
                found_dimension = len(head) - (not line[:1].isspace())      # a word may be a no-break space
            if found_dimension < 1:
                raise ValueError(_("{path}, line {number}: has no numbers: {text!r}; expected a word and its vector",
                                   path=path, number=number, text=line[:60]))
            if dimension not in (None, found_dimension):
                raise ValueError(_("{path}, line {number}: the vectors have dimension {found_dimension}, and the model's is "
                                   "{dimension}; take vectors of this dimension, or set the model's to that of the file",
                                   path=path, number=number, found_dimension=found_dimension, dimension=dimension))
            if promised is not None and number == 1:
                continue
        word, values = _vector(path, number, line, found_dimension)
        if table is None:                                       # this line has as many numbers as the first promises
            table = np.zeros((len(vocabulary), found_dimension), dtype=np.float32)
        i = ids.get(word)
        if i is not None and not found[i] and any(values):
            table[i], found[i] = values, True
        elif i is not None and not found[i]:
            zeros.append(f"{word!r} (line {number})")
    if table is None:
        raise ValueError(_("{path}, line 1: {line!r} is the first line of Word2Vec, and no vectors follow",
                           path=path, line=line))
    if promised not in (None, number - 1):
        raise ValueError(_("{path}, line 1: promises {promised} vectors, and {found} lines follow; is the file cut off?",
                           path=path, promised=promised, found=number - 1))
    if zeros and not found.any():
        raise ValueError(_("{path}: the vectors of all {count} words that the model needs are 0: expected trained ones",
                           path=path, count=len(zeros)))
    if zeros:
        some = ", ".join(zeros[:5])
        some = _("{some} and {count} more", some=some, count=len(zeros) - 5) if len(zeros) > 5 else some
        warnings.warn(_("{path}: vectors of 0 are drawn at random, like those of missing words: {words}",
                        path=path, words=some), stacklevel=2)
    words = range(len(SPECIALS), len(vocabulary))
    missing = [vocabulary.words[i] for i in words if not found[i]]
    if len(missing) == len(words):
        raise ValueError(_("{path} has none of the {count} words, such as {some}; is it of a different language, or are its "
                           "words in capitals?", path=path, count=len(words), some=missing[:5]))
    found[PAD], table[PAD] = False, 0                       # even if the file has a vector for it
    known, drawn = table[found], ~found
    drawn[PAD] = False
    table[drawn] = rng.normal(known.mean(axis=0), known.std(axis=0), (int(drawn.sum()), found_dimension))
    return WordVectors(table, found, 1 - len(missing) / len(words), missing)


def _vector(path, number, line, dimension):
    """A line as its word and `dimension` floats, checked."""
    fields = line.rsplit(None, dimension)                     # from the right: some words of GloVe hold spaces
    if len(fields) == dimension and line[:1].isspace():       # or are nothing but a no-break space
        fields = ["", *fields]
    try:
        values = [float(field) for field in fields[1:]]
    except ValueError as error:
        raise ValueError(_("{path}, line {number}: is broken ({error}); expected a word and {dimension} numbers",
                           path=path, number=number, error=error, dimension=dimension)) from error
    if len(values) != dimension:
        raise ValueError(_("{path}, line {number}: has {found} numbers; expected a word and {dimension}, as on the lines "
                           "before; is the file cut off?", path=path, number=number, found=len(values), dimension=dimension))
    word = fields[0].strip()
    if not (math.isfinite(sum(values)) and max(map(abs, values)) <= LARGEST):
        bad = next(value for value in values if not abs(value) <= LARGEST)
        raise ValueError(_("{path}, line {number}: the vector of {word!r} holds {bad}, not finite in float32",
                           path=path, number=number, word=word, bad=bad))
    if " " in word and _is_number(word.split()[-1]):
        raise ValueError(_("{path}, line {number}: has more than {dimension} numbers; expected as many as on the lines before",
                           path=path, number=number, dimension=dimension))
    return word, values


def _is_number(field):
    try:
        float(field)
    except ValueError:
        return False
    return True
