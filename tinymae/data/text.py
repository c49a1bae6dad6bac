"""Sentences as rows of numbers: tokens, vocabularies and batches.

A Transformer reads integers. Between a line of text and a batch stand four steps, each a function here:

    "Why do we work?"  ->  why do we work ?  ->  9 4 7 12 6 2  ->  one row of (B, T), zeros at its end
                 tokenize                 encode, <eos>      pad_batch

Four numbers are the same in every vocabulary: 0 <pad>, 1 <bos> (the articles: <start>, <Begin>), 2 <eos> (<end>),
3 <unk>. A source row is words, <eos>, padding; so is a target row. The words' own numbers begin at 4.

Around it: `pairs.py` reads the lines, `bpe.py` cuts words into pieces, `vectors.py` starts embeddings from trained ones.
"""
import itertools
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np

from tinymae.files import whole_file

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, UNK = range(4)

# A number with its points (1,000 and 3.5), or a word with its inner apostrophes (\u2019 is the curly one), or one sign.
_WORD = re.compile("\\d+(?:[.,]\\d+)+|\\w+(?:['\u2019]\\w+)*|[^\\w\\s]")
# A run of Latin letters and digits, or any one character that is not a space.
_CHARACTER = re.compile("[A-Za-z0-9\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]+|\\S")
_CLOSING = frozenset(",.?!;:)]}%\u2026")
_OPENING = frozenset("([{")


# Text to tokens and back


def tokenize_words(text, lower=True):
    """Cut a sentence into words and signs: `Why do we work?` gives why do we work ? (article A, worked example).

    An apostrophe inside a word stays (didn't), and so do the points of a number (3.5). Other signs stand alone. A
    letter and its accent written as two characters become one (Unicode NFC), else étudiant would not always be
    étudiant.

    Parameters
    ----------
    text : str
    lower : bool, whether to make all letters small

    Returns
    -------
    tokens : list of str

    Raises
    ------
    TypeError
        when text is not a str

    Differs: many tokenisers cut didn't into did and n't; here it is one word. A script without spaces comes out in
    one piece: `tokenize_characters` is for those.
    """
    text = nfc(text)
    if lower:
        text = text.lower()
    return [word.replace("\u2019", "'") if len(word) > 1 else word for word in _WORD.findall(text)]


def tokenize_characters(text):
    """Cut Chinese into characters: 我有一只猫 gives 我 有 一 只 猫 (article C, section 1).

    Runs of Latin letters and digits stay whole (T恤 is T 恤, 2024年 is 2024 年). Spaces are dropped.

    Parameters
    ----------
    text : str

    Returns
    -------
    tokens : list of str

    Raises
    ------
    TypeError
        when text is not a str
    """
    return _CHARACTER.findall(nfc(text))


def detokenize(tokens, characters=False):
    """Tokens as a sentence that people read.

    Parameters
    ----------
    tokens : iterable of str
    characters : bool, False to set spaces between words, but none before ? or after (, none around a hyphen between two
        words (t-shirt), and none inside a pair of double quotes: the first opens, the second closes, and so on; True for
        `tokenize_characters`: no spaces, but between two runs of Latin letters or digits

    Returns
    -------
    text : str

    Raises
    ------
    TypeError
        when tokens is one str

    Differs: where the spaces were cannot always be told. A hyphen mostly joins, so 5 - 3 comes back as 5-3; a slash stands
    alone, so and/or comes back as and / or; so does an apostrophe at the end of a word.
    """
    _check_tokens(tokens)
    text, previous, quoted, tight = "", "", False, True         # tight: no space after what is there
    for token, following in itertools.pairwise([*tokens, ""]):
        if characters:
            space = _is_run(previous) and _is_run(token)
        else:
            before, after = token in _CLOSING, token in _OPENING        # whether no space may stand there
            if token == "-":
                before = after = _is_word(previous) and _is_word(following)
            elif token == '"':
                before, after, quoted = quoted, not quoted, not quoted
            space = not (tight or before)
            tight = after
        text += f" {token}" if space else token
        previous = token
    return text


def nfc(text):
    """The text with a letter and its accent as one character (Unicode NFC), however they were written; TypeError for no str."""
    if not isinstance(text, str):
        raise TypeError(f"text is {type(text).__name__}; expected one sentence, a str (a list is cut sentence by "
                        "sentence)")
    return unicodedata.normalize("NFC", text)


def _is_word(token):
    return len(token) > 1 or token.isalnum()                    # a sign is always one character; <unk> stands for a word


def _is_run(token):
    return bool(token) and token[0].isalnum() and _CHARACTER.match(token[0]) is not None and ord(token[0]) < 0x250


def _check_tokens(tokens):
    # A str is iterable too: without this, "cat" would silently become c a t.
    if isinstance(tokens, str):
        raise TypeError(f"tokens are one str, {tokens[:40]!r}; expected a list of tokens: tokenize_words or "
                        "tokenize_characters makes it, list(text) takes every character")


# Tokens to numbers and back


class Vocabulary:
    """The words a model knows, each with its number.

    Parameters
    ----------
    words : iterable of str, all different, without the four specials: <pad> <bos> <eos> <unk> take 0 to 3, words
        follow from 4

    Raises
    ------
    TypeError
        when words is one str, or a word is not a str
    ValueError
        when a word comes twice, is empty, or is a special
    """

    def __init__(self, words):
        _check_tokens(words)
        self.words = (*SPECIALS, *words)
        for word in self.words:
            if not isinstance(word, str):
                raise TypeError(f"word {word!r} is {type(word).__name__}; expected str")
            if not word:
                raise ValueError("a word is empty; expected at least one character")
        self._ids = {word: i for i, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            word, times = Counter(self.words).most_common(1)[0]
            why = "the specials are added here; leave them out" if word in SPECIALS else "each word has one number"
            raise ValueError(f"word {word!r} comes {times} times: {why}")

    @classmethod
    def build(cls, sentences, min_count=1, most=None):
        """Collect the words of sentences, the most frequent first; equally frequent ones in the order of letters.

        Parameters
        ----------
        sentences : iterable of lists of str
        min_count : int, words seen less often are left out, and so become <unk>
        most : int, the number of words to keep at most, specials not counted; or None

        Returns
        -------
        Vocabulary

        Raises
        ------
        TypeError
            when a sentence is a str: it has to be cut into tokens first
        ValueError
            when min_count or most is below 1
        """
        if min_count < 1 or (most is not None and most < 1):
            raise ValueError(f"expected min_count and most of at least 1, got {min_count} and {most}")
        _check_tokens(sentences)
        counts = Counter()
        for tokens in sentences:
            _check_tokens(tokens)
            counts.update(tokens)
        # Text that holds <unk> already (some corpora do) means the special.
        ranked = sorted((-count, word) for word, count in counts.items() if count >= min_count and word not in SPECIALS)
        return cls([word for _, word in ranked[:most]])

    def __len__(self):
        return len(self.words)

    def __contains__(self, word):
        return word in self._ids

    def encode(self, tokens):
        """The numbers of tokens, as a list of int; 3, <unk>, for those it does not know. No <eos> is added."""
        _check_tokens(tokens)
        return [self._ids.get(token, UNK) for token in tokens]

    def decode(self, ids):
        """The words of numbers, a list of str: up to the first <eos>, without <pad> and <bos>; <unk> stays, to be seen.

        Raises
        ------
        ValueError
            when a number is not one of this vocabulary's (is it the source's, in place of the target's?)
        """
        words = []
        for i in ids:
            if not 0 <= i < len(self.words):
                raise ValueError(f"id {i} is not in this vocabulary of {len(self.words)} words; is it another one's?")
            if i == EOS:
                break
            if i not in (PAD, BOS):
                words.append(self.words[i])
        return words

    def unknown(self, tokens):
        """Those of the tokens that `encode` makes <unk>, each once, in their order."""
        _check_tokens(tokens)
        return [token for token in dict.fromkeys(tokens) if token not in self._ids]

    def save(self, path):
        """Write the words to a JSON file, one number after the other; whole or not at all."""
        with whole_file(path) as file:
            file.write(json.dumps({"words": self.words}, ensure_ascii=False, indent=0).encode())

    @classmethod
    def load(cls, path):
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            when the file is not a vocabulary; the message names the file and the reason
        OSError
            when it cannot be read
        """
        try:
            content = json.loads(Path(path).read_bytes().decode())
        except ValueError as error:                     # UnicodeDecodeError and JSONDecodeError are both
            raise ValueError(f"{path} is not JSON in UTF-8 ({error}); was it cut off, or is it another file?"
                             ) from error
        words = content.get("words") if isinstance(content, dict) else None
        if not isinstance(words, list) or tuple(words[:4]) != SPECIALS:
            raise ValueError(f"{path} is JSON but no vocabulary: expected {{\"words\": [...]}} that begins with "
                             f"{' '.join(SPECIALS)}")
        try:
            return cls(words[4:])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} holds a vocabulary that is not valid: {error}") from error


# Rows to batches


def pad_batch(rows, pad=PAD):
    """Rows of ids as one array, the short ones filled up at their end.

    Parameters
    ----------
    rows : list of lists of int, or of integer arrays of one axis
    pad : int

    Returns
    -------
    ids : ndarray int64 (B, T), T the length of the longest row

    Raises
    ------
    TypeError
        when a row holds something else than integers (words that were not encoded?)
    ValueError
        when there are no rows, a row is not flat, or all rows are empty
    """
    arrays = [np.asarray(row) for row in rows]
    for b, array in enumerate(arrays):
        if array.ndim != 1:
            raise ValueError(f"row {b} has shape {array.shape}; expected one sentence, a flat list of ids (is rows "
                             "one sentence only?)")
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(f"row {b} holds {array.dtype}; expected integer ids (Vocabulary.encode makes them)")
    longest = max((len(array) for array in arrays), default=0)
    if not longest:
        raise ValueError(f"expected at least one row with at least one id, got {len(arrays)} rows, all empty")
    ids = np.full((len(arrays), longest), pad, dtype=np.int64)
    for row, array in zip(ids, arrays, strict=True):
        row[: len(array)] = array
    return ids


def token_batches(source_lengths, target_lengths, tokens, rng):
    """One epoch of batches that hold about equally many tokens: many short sentences, or few long ones.

    Sentences of like length go together, so little of a batch is padding. The lengths get a little noise first, so
    that the same sentences do not meet in every epoch; then the batches are shuffled, so that the model does not
    read short ones first (Vaswani et al. 2017, section 5.1: pairs batched together by approximate length).

    Parameters
    ----------
    source_lengths, target_lengths : (N,) integers, with <eos>, as the rows will be
    tokens : int, the most that rows * longest may be, longest counted over both sides
    rng : numpy.random.Generator; the same state gives the same batches

    Returns
    -------
    batches : list of int64 arrays of indices; every index from 0 to N - 1 is in exactly one of them

    Raises
    ------
    ValueError
        when the lengths are not two equally long flat lists, there are none, or a pair alone is longer than tokens
    """
    source, target = np.asarray(source_lengths), np.asarray(target_lengths)
    if source.ndim != 1 or source.shape != target.shape or not len(source):
        raise ValueError(f"lengths have shapes {source.shape} and {target.shape}; expected (N,) twice, one number "
                         "for each pair")
    lengths = np.maximum(source, target)
    if lengths.max() > tokens:
        i = int(lengths.argmax())
        raise ValueError(f"pair {i} is {lengths[i]} tokens long, and a batch may hold {tokens}: allow more, or drop "
                         "long pairs")
    noise = rng.integers(-1, 2, (2, len(source)))
    # The last key counts first: the noisy target length; then source length; then chance.
    order = np.lexsort((rng.random(len(source)), source + noise[0], target + noise[1]))
    batches, start, longest = [], 0, 0
    for end, i in enumerate(order):
        longest = max(longest, lengths[i])
        if (end + 1 - start) * longest > tokens:
            batches.append(order[start:end])
            start, longest = end, lengths[i]
    batches.append(order[start:])
    return [batches[i] for i in rng.permutation(len(batches))]
