"""Sentences as rows of numbers: tokens, vocabularies and batches.

A Transformer reads integers. Between a line of text and a batch stand four steps, each a function here:

    "Why do we work?"  ->  why do we work ?  ->  9 4 7 12 6 2  ->  one row of (B, T), zeros at its end
                 tokenize                 encode, <eos>      pad_batch

Four numbers are the same in every vocabulary: 0 <pad>, 1 <bos> (the articles: <start>, <Begin>), 2 <eos> (<end>),
3 <unk>. A source row is words, <eos>, padding; so is a target row. The words' own numbers begin at 4.

Around it: `pairs.py` reads the lines, `bpe.py` cuts words into pieces, `vectors.py` starts embeddings from trained ones.
"""
import itertools
import re
import unicodedata

from tinymae.text.vocabulary import check_tokens

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
    check_tokens(tokens)
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
