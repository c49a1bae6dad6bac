"""Text to tokens and back: words with punctuation, or the characters of a script without spaces.

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

# What belongs to the character before it: U+0300, in the place of all combining marks and characters that are not seen (see
# `_find`), the joiner, and the skin tones of emoji.
_PERHAPS_MARKS = re.compile("[\u00ad\u0300-\U0010ffff]")
_MORE = "[\u0300\u200d\U0001f3fb-\U0001f3ff]"
_FLAG = f"[\U0001f1e6-\U0001f1ff][\U0001f1e6-\U0001f1ff]{_MORE}*"
_REST = rf"(?:{_MORE}+(?:(?<=\u200d)[^\w\s]{_MORE}*)*)?"        # the rest of a sign, with the emoji that a joiner links to it

# Signs that may stand inside a word: apostrophes (\u2019 is the curly one), the Armenian marks of stress, exclamation and
# question, the Hebrew geresh and gershayim, and the point of Catalan col·lecció.
_INNER = "['\u2019\u055b\u055c\u055e\u05f3\u05f4]|(?<=[lL])\u00b7(?=[lL])"
_LETTERS = rf"\w+(?:{_MORE}+\w*)*"

# A number with its points (1,000 and 3.5), a word, a flag, or a punctuation mark.
_WORD = re.compile(rf"\d+(?:[.,]\d+)+{_MORE}*|{_LETTERS}(?:(?:{_INNER}){_LETTERS})*|{_FLAG}|[^\w\s]{_REST}")

# A run of Latin letters and digits, a flag, or any one character that is not a space.
_LATIN = "[A-Za-z0-9\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]"
_CHARACTER = re.compile(rf"{_LATIN}+(?:{_MORE}+{_LATIN}*)*|{_FLAG}|\S{_REST}")

# Signs that follow a word without a space: ASCII, Armenian, Arabic, Indian, Burmese, Ethiopic, Khmer, Chinese.
_CLOSING = frozenset(
    ",.?!;:)]}%\u2026" "\u055b\u055c\u055e\u0589" "\u060c\u061b\u061f\u06d4" "\u0964\u0965" "\u104a\u104b"
    "\u1362\u1363\u1364\u1365\u1366\u1367" "\u17d4\u17d5" "\u3001\u3002\uff01\uff0c\uff0e\uff1a\uff1b\uff1f"
)
_OPENING = frozenset("([{")
_HYPHENS = frozenset("-\u2010\u05be")
_JOINTS = frozenset("\u200b\u0f0b\u1361")                        # between words or syllables in place of a space


def tokenize_words(text: str, lower: bool = True) -> list[str]:
    """Cut a sentence into words and punctuation marks: `Why do we work?` gives why do we work ? (article A, worked example).

    An apostrophe inside a word stays (didn't; a curly one becomes straight), and so do the points of a number (3.5). Every
    other punctuation mark is a token, and so is an emoji. A letter and its accent written as two characters become one (Unicode
    NFC), so that étudiant is always the same word. The vowel signs of Hindi and the points of Hebrew are no letters to Unicode,
    but combining marks (categories Mn, Mc, Me): each belongs to the character before it. So do the characters that are not seen
    (Cf: joiners, non-joiners, soft hyphens, marks of direction) and the skin tones of emoji. A zero-width space parts words.

    Parameters
    ----------
    text : one sentence
    lower : whether to convert to lower case

    Raises
    ------
    TypeError
        if text is not a str

    Differs: many tokenisers cut didn't into did and n't; here it is one word. Of Unicode's word boundaries (UAX 29) the rules
    for marks, apostrophes, flags and joined emoji are kept; points join the digits of a number only. A run of a script without
    spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) becomes one token, unless zero-width spaces part its words:
    `tokenize_characters` is for those.
    """
    text = nfc(text)
    if lower:
        text = nfc(text.lower())                                # İ becomes two characters, which may be out of order
    return [word.replace("\u2019", "'") if len(word) > 1 else word for word in _find(_WORD, text)]


def tokenize_characters(text: str) -> list[str]:
    """Cut Chinese into characters: 我有一只猫 gives 我 有 一 只 猫 (article C, section 1).

    It is for every script that puts no spaces between words. A character keeps its combining marks: Thai ที่นี่ gives ที่ นี่.
    Runs of Latin letters and digits stay whole (T恤 is T 恤, 2024年 is 2024 年). Spaces are dropped.

    Raises
    ------
    TypeError
        if text is not a str
    """
    return _find(_CHARACTER, nfc(text))


def detokenize(tokens: Iterable[str], characters: bool = False) -> str:
    """Tokens as a sentence that people read.

    Parameters
    ----------
    tokens : as `tokenize_words` or `tokenize_characters` makes them
    characters
        False puts spaces between words, but none before ? or after (, none around a hyphen between two words (t-shirt) or a
        zero-width space, and none inside a pair of double quotes: the first opens, the second closes, and so on. True, for
        `tokenize_characters`, puts spaces only between two runs of Latin letters or digits.

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
            before, after = token[:1] in _CLOSING, token[:1] in _OPENING        # whether a space is wrong there
            if token in _JOINTS:
                before = after = True
            elif token in _HYPHENS:
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


def _find(pattern, text):
    """The tokens of a text in NFC."""
    shape = text
    for letter in set(_PERHAPS_MARKS.findall(text)):
        if unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf") and letter not in "\u200b\u200d":
            shape = shape.replace(letter, "\u0300")
    if shape == text:
        return pattern.findall(text)
    return [text[match.start() : match.end()] for match in pattern.finditer(shape)]


def _is_word(token):
    return len(token) > 1 or token.isalnum()                    # <unk> stands for a word; an emoji may be longer than 1 too


def _is_run(token):
    return bool(token) and token[0].isalnum() and ord(token[0]) < 0x250
