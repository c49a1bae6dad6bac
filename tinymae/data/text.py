"""Sentences as rows of numbers: tokens, vocabularies, batches and files of pairs.

A Transformer reads integers. Between a line of text and a batch stand four steps, each a function here:

    "Why do we work?"  ->  why do we work ?  ->  9 4 7 12 6 2  ->  one row of (B, T), zeros at its end
                 tokenize                 encode, <eos>      pad_batch

Four numbers are the same in every vocabulary: 0 <pad>, 1 <bos> (the articles: <start>, <Begin>), 2 <eos> (<end>),
3 <unk>. A source row is words, <eos>, padding; so is a target row. The words' own numbers begin at 4.

Bad data is common and fails late: a line lost in one of two parallel files shifts all pairs after it, and a model
learns from them without complaint. So whatever is read here is checked, and an error names the file and the line.
"""
import gzip
import json
import math
import re
import unicodedata
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

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
    text = _normal(text)
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
    return _CHARACTER.findall(_normal(text))


def detokenize(tokens, characters=False):
    """Tokens as a sentence that people read.

    Parameters
    ----------
    tokens : iterable of str
    characters : bool, False to set spaces between words, but none before ? or after (; True for
        `tokenize_characters`: no spaces, but between two runs of Latin letters or digits

    Returns
    -------
    text : str

    Raises
    ------
    TypeError
        when tokens is one str

    Differs: where the spaces were cannot always be told: t-shirt comes back as t - shirt.
    """
    _check_tokens(tokens)
    text = ""
    previous = ""
    for token in tokens:
        if characters:
            space = _is_run(previous) and _is_run(token)
        else:
            space = previous and token not in _CLOSING and previous not in _OPENING
        text += f" {token}" if space else token
        previous = token
    return text


def _normal(text):
    if not isinstance(text, str):
        raise TypeError(f"text is {type(text).__name__}; expected one sentence, a str (a list is cut sentence by "
                        "sentence)")
    return unicodedata.normalize("NFC", text)


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


# Byte pair encoding


class Bpe:
    """Pieces of words in place of words, so that no word is unknown: Sennrich et al. 2016, by the `tokenizers` library.

    It takes text where `Vocabulary` takes tokens; the four specials have the same numbers. `train_bpe` and
    `Bpe.load` make it.
    """

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __len__(self):
        return self._tokenizer.get_vocab_size()

    def tokens(self, text):
        """The pieces of a text, a list of str; \u2581 marks where a word begins."""
        return self._tokenizer.encode(_normal(text)).tokens

    def encode(self, text):
        """The numbers of a text's pieces, a list of int; 3, <unk>, for a character never seen. No <eos> is added."""
        return self._tokenizer.encode(_normal(text)).ids

    def decode(self, ids):
        """The text (a str) of numbers: up to the first <eos>, without <pad> and <bos>."""
        ids = [int(i) for i in ids]
        for i in ids:
            if not 0 <= i < len(self):
                raise ValueError(f"id {i} is not in this vocabulary of {len(self)} pieces; is it another one's?")
        if EOS in ids:
            ids = ids[: ids.index(EOS)]
        return self._tokenizer.decode([i for i in ids if i not in (PAD, BOS)], skip_special_tokens=False)

    def save(self, path):
        """Write it as the JSON of the `tokenizers` library."""
        with whole_file(path) as file:
            file.write(self._tokenizer.to_str(pretty=True).encode())

    @classmethod
    def load(cls, path):
        """Read what `save` wrote; ValueError with the file and the reason when it is something else."""
        library = _tokenizers()
        try:
            tokenizer = library.Tokenizer.from_str(Path(path).read_bytes().decode())
        except Exception as error:                      # the library raises bare Exception for all that it cannot read
            if isinstance(error, OSError):
                raise
            raise ValueError(f"{path} is not a file that Bpe.save wrote: {error}") from error
        if tuple(tokenizer.id_to_token(i) for i in range(4)) != SPECIALS:
            raise ValueError(f"{path} is a tokeniser of another project: expected {' '.join(SPECIALS)} as 0 to 3")
        return cls(tokenizer)


def train_bpe(sentences, size):
    """Learn pieces of words: begin with characters; again and again join the two pieces most often side by side.

    Parameters
    ----------
    sentences : iterable of str
    size : int, pieces at most, the four specials and all single characters counted

    Returns
    -------
    Bpe

    Raises
    ------
    ImportError
        when the `tokenizers` library is not installed
    ValueError
        when size leaves no room beside the specials, or there are no sentences
    """
    if size <= len(SPECIALS):
        raise ValueError(f"size is {size}; expected more than {len(SPECIALS)}, the specials: thousands are usual")
    _check_tokens(sentences)
    sentences = [_normal(text) for text in sentences]
    if not sentences:
        raise ValueError("there are no sentences to learn from")
    library = _tokenizers()
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = library.Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIALS), show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    return Bpe(tokenizer)


def _tokenizers():
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError("byte pair encoding needs the `tokenizers` library: pip install 'tinymae[text]'. "
                          "Words and characters (Vocabulary) work without it") from error
    return tokenizers


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


# Files


def read_parallel(source_path, target_path):
    """Pairs from two text files: line n of one is the translation of line n of the other.

    Parameters
    ----------
    source_path, target_path : str or Path, UTF-8, also packed with gzip; a byte order mark is skipped

    Returns
    -------
    pairs : list of (str, str)

    Raises
    ------
    ValueError
        for text that is not UTF-8, an empty line, unequal numbers of lines, an empty file or a broken gzip file,
        with the file and the line
    OSError
        when a file cannot be read
    """
    sides = [[line.strip() for line in _lines(path)] for path in (source_path, target_path)]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"{source_path} has {len(sides[0])} lines and {target_path} has {len(sides[1])}: line n of "
                         f"one must be the translation of line n of the other, and line {min(map(len, sides)) + 1} "
                         "has none. Was a line lost, or is a file cut off?")
    for path, lines in zip((source_path, target_path), sides, strict=True):
        for number, line in enumerate(lines, 1):
            if not line:
                raise ValueError(f"{path}, line {number}: is empty; expected a sentence. Remove the line from both "
                                 "files")
    return list(zip(*sides, strict=True))


def read_tsv(path, columns=(0, 1)):
    """Pairs from a file with columns between tabs, such as those of Tatoeba (English, Chinese, attribution).

    Parameters
    ----------
    path : str or Path, UTF-8, also packed with gzip; a byte order mark is skipped
    columns : (int, int), the columns of source and target, counted from 0: (1, 0) reads Tatoeba as Chinese -> English

    Returns
    -------
    pairs : list of (str, str)

    Raises
    ------
    ValueError
        for text that is not UTF-8, an empty line or field, too few columns, an empty file or a broken gzip file,
        with the file and the line; for columns that are not two different ones
    OSError
        when the file cannot be read
    """
    columns = tuple(columns)
    if len(columns) != 2 or columns[0] == columns[1] or min(columns) < 0:
        raise ValueError(f"columns are {columns}; expected two different ones, counted from 0")
    pairs = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            raise ValueError(f"{path}, line {number}: is empty; expected columns between tabs. Remove the line")
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) <= max(columns):
            raise ValueError(f"{path}, line {number}: has {len(fields)} column(s), and column {max(columns)} (from "
                             f"0) is wanted; are the columns between tabs, not spaces or commas? {line[:60]!r}")
        for column in columns:
            if not fields[column]:
                raise ValueError(f"{path}, line {number}: column {column} (from 0) is empty; expected a sentence")
        pairs.append((fields[columns[0]], fields[columns[1]]))
    return pairs


def _lines(path):
    """The lines of a text file without their ends, one at a time: word vectors can be larger than the memory."""
    number = 0
    with Path(path).open("rb") as raw:
        mark = raw.read(3)
        raw.seek(0)
        packed = mark.startswith(b"\x1f\x8b")
        if Path(path).suffix == ".gz" and not packed:
            raise ValueError(f"{path} is named .gz but does not begin as gzip does; is it unpacked already, or an "
                             "error page?")
        try:
            for row in gzip.GzipFile(fileobj=raw) if packed else raw:       # cut at \n only, not at signs inside a line
                number += 1
                if number == 1:
                    row = row.removeprefix(b"\xef\xbb\xbf")
                    if row.startswith((b"\xff\xfe", b"\xfe\xff")):
                        raise ValueError(f"{path}, line 1: is UTF-16, by its first two bytes; save it as UTF-8")
                yield _decoded(path, number, row).rstrip("\r\n")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}, after line {number}: the gzip file is broken ({error}); was its download cut "
                             "off?") from error
    if not number:
        raise ValueError(f"{path} is empty; expected text")


def _decoded(path, number, row):
    try:
        return row.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number}: is not UTF-8 ({error.reason}, byte 0x{row[error.start]:02x} at "
                         f"{error.start}); Chinese files may be GB18030, German ones Latin-1: convert it, say with "
                         "iconv") from error


class WordVectors(NamedTuple):
    """What `load_word_vectors` found."""

    table: np.ndarray           # (V, D) float32
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
    WordVectors : table (V, D) float32, share and missing; the row of <pad> is zero

    Raises
    ------
    ValueError
        for another width, a broken line (with its number), fewer or more vectors than the first line says, a file
        that is not UTF-8 text, or one that has none of the words
    OSError
        when the file cannot be read
    """
    ids = {word: i for i, word in enumerate(vocabulary.words)}
    seen = np.zeros(len(vocabulary), bool)
    table = promised = None
    for number, line in enumerate(_lines(path), 1):
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
        if i is not None and not seen[i]:
            table[i], seen[i] = values, True
    if table is None:
        raise ValueError(f"{path}, line 1: {line!r} is the first line of Word2Vec, and no vectors follow")
    if promised not in (None, number - 1):
        raise ValueError(f"{path}, line 1: promises {promised} vectors, and {number - 1} lines follow; is the file "
                         "cut off?")
    words = range(len(SPECIALS), len(vocabulary))
    missing = [vocabulary.words[i] for i in words if not seen[i]]
    if len(missing) == len(words):
        raise ValueError(f"{path} has none of the {len(words)} words, such as {missing[:5]}; is it of another "
                         "language, or are its words in capitals?")
    known = table[seen]
    seen[PAD] = True
    table[PAD] = 0
    drawn = rng.normal(known.mean(axis=0), known.std(axis=0), (int((~seen).sum()), found_width))
    table[~seen] = drawn
    return WordVectors(table, 1 - len(missing) / len(words), missing)


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
