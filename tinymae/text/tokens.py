"""Text to tokens and back: words with punctuation, or Chinese characters.

A Transformer reads integers. Cutting text into tokens is the first of three steps from a sentence to a batch:

    "Why do we work?"  ->  why do we work ?  ->  9 4 7 12 6 2  ->  one row of (B, T), zeros at its end
             tokenize_words           encode, <eos>          pad_batch

`vocabulary.py` has the second step, `batches.py` the third. `bpe.py` cuts words into subwords instead, `pairs.py` reads the
sentences from files, and `vectors.py` initialises embeddings with pretrained word vectors.
"""
import itertools
import re
import unicodedata
from collections.abc import Iterable

from tinymae.text.vocabulary import check_tokens

# A number with its points (1,000 and 3.5), a word with its inner apostrophes (\u2019 is the curly one), or a punctuation mark.
_WORD = re.compile("\\d+(?:[.,]\\d+)+|\\w+(?:['\u2019]\\w+)*|[^\\w\\s]")

# A run of Latin letters and digits, or any one character that is not a space.
_CHARACTER = re.compile("[A-Za-z0-9\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]+|\\S")
_CLOSING = frozenset(",.?!;:)]}%\u2026")
_OPENING = frozenset("([{")


def tokenize_words(text: str, lower: bool = True) -> list[str]:
    """Cut a sentence into words and punctuation marks: `Why do we work?` gives why do we work ? (article A, worked example).

    An apostrophe inside a word stays (didn't), and so do the points of a number (3.5). Every other mark is a token. A letter
    and its accent written as two characters become one (Unicode NFC), so that étudiant is always the same word.

    Parameters
    ----------
    text : one sentence
    lower : whether to convert to lower case

    Raises
    ------
    TypeError
        if text is not a str

    Differs: many tokenisers cut didn't into did and n't; here it is one word. A run of a script without spaces becomes one
    token: `tokenize_characters` is for those.
    """
    text = nfc(text)
    if lower:
        text = text.lower()
    return [word.replace("\u2019", "'") if len(word) > 1 else word for word in _WORD.findall(text)]


def tokenize_characters(text: str) -> list[str]:
    """Cut Chinese into characters: 我有一只猫 gives 我 有 一 只 猫 (article C, section 1).

    Runs of Latin letters and digits stay whole (T恤 is T 恤, 2024年 is 2024 年). Spaces are dropped.

    Raises
    ------
    TypeError
        if text is not a str
    """
    return _CHARACTER.findall(nfc(text))


def detokenize(tokens: Iterable[str], characters: bool = False) -> str:
    """Tokens as a sentence that people read.

    Parameters
    ----------
    tokens : as `tokenize_words` or `tokenize_characters` makes them
    characters
        False puts spaces between words, but none before ? or after (, none around a hyphen between two words (t-shirt), and
        none inside a pair of double quotes: the first opens, the second closes, and so on. True, for `tokenize_characters`,
        puts spaces only between two runs of Latin letters or digits.

    Raises
    ------
    TypeError
        if tokens is one str

    Differs: the original spaces cannot always be recovered. A hyphen usually joins, so 5 - 3 becomes 5-3; a slash does not,
    so and/or becomes and / or; nor does an apostrophe at the end of a word.
    """
    check_tokens(tokens)
    text, previous, quoted, tight = "", "", False, True         # tight: no space after the text so far
    for token, following in itertools.pairwise([*tokens, ""]):
        if characters:
            space = _is_run(previous) and _is_run(token)
        else:
            before, after = token in _CLOSING, token in _OPENING        # whether a space is wrong there
            if token == "-":
                before = after = _is_word(previous) and _is_word(following)
            elif token == '"':
                before, after, quoted = quoted, not quoted, not quoted
            space = not (tight or before)
            tight = after
        text += f" {token}" if space else token
        previous = token
    return text


def nfc(text: str) -> str:
    """The text in Unicode NFC: a letter and its accent are one character. TypeError if it is not a str."""
    if not isinstance(text, str):
        raise TypeError(f"text is {type(text).__name__}; expected one sentence, a str (a list is cut sentence by "
                        "sentence)")
    return unicodedata.normalize("NFC", text)


def _is_word(token):
    return len(token) > 1 or token.isalnum()                    # a punctuation mark is one character; <unk> stands for a word


def _is_run(token):
    return bool(token) and token[0].isalnum() and _CHARACTER.match(token[0]) is not None and ord(token[0]) < 0x250
