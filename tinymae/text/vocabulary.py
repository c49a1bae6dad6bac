"""A vocabulary: tokens to ids and back.

    why do we work ?  --Vocabulary.encode-->  9 4 7 12 6  --Vocabulary.decode-->  why do we work ?

Four ids are the same in every vocabulary: 0 <pad>, 1 <bos> (the articles: <start>, <Begin>), 2 <eos> (<end>), 3 <unk>. The ids
of the words begin at 4.
"""
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tinymae.files import whole_file

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, UNK = range(4)


def check_tokens(tokens: Iterable[str]) -> None:
    """TypeError if tokens are one str, which is iterable too: "cat" would silently become c a t."""
    if isinstance(tokens, str):
        raise TypeError(f"tokens are one str, {tokens[:40]!r}; expected a list of tokens: tokenize_words or "
                        "tokenize_characters makes it, list(text) makes a token of every character")


class Vocabulary:
    """The words of a model, each with its id.

    Parameters
    ----------
    words : all different, without the four special tokens: <pad> <bos> <eos> <unk> have the ids 0 to 3, words those from 4

    Raises
    ------
    TypeError
        if words is one str, or a word is not a str
    ValueError
        if a word comes twice, is empty, or is a special token
    """

    def __init__(self, words: Iterable[str]):
        check_tokens(words)
        self.words = (*SPECIALS, *words)
        for word in self.words:
            if not isinstance(word, str):
                raise TypeError(f"word {word!r} is {type(word).__name__}; expected str")
            if not word:
                raise ValueError("a word is empty; expected at least one character")
        self._ids = {word: i for i, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            word, times = Counter(self.words).most_common(1)[0]
            why = "the special tokens are added here; leave them out" if word in SPECIALS else "each word has one id"
            raise ValueError(f"word {word!r} comes {times} times: {why}")

    @classmethod
    def build(cls, sentences: Iterable[list[str]], min_count: int = 1) -> "Vocabulary":
        """Collect the words of sentences, the most frequent first; equally frequent ones in alphabetical order.

        Parameters
        ----------
        sentences : lists of tokens
        min_count : words that are less frequent are left out, and so become <unk>

        Raises
        ------
        TypeError
            if a sentence is a str: it has to be cut into tokens first
        ValueError
            if min_count is below 1
        """
        if min_count < 1:
            raise ValueError(f"min_count is {min_count}; expected at least 1")
        check_tokens(sentences)
        counts = Counter()
        for tokens in sentences:
            check_tokens(tokens)
            counts.update(tokens)
        # <unk> in the text itself (some corpora have it) is the special token.
        ranked = sorted((-count, word) for word, count in counts.items() if count >= min_count and word not in SPECIALS)
        return cls([word for _, word in ranked])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """The ids of tokens; 3, <unk>, for those that are not in the vocabulary. No <eos> is added."""
        check_tokens(tokens)
        return [self._ids.get(token, UNK) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words of ids: up to the first <eos>, without <pad> and <bos>; <unk> stays visible.

        Raises
        ------
        ValueError
            if an id is not in this vocabulary (is it from the source, in place of the target?)
        """
        words = []
        for i in ids:
            if not 0 <= i < len(self.words):
                raise ValueError(f"id {i} is not in this vocabulary of {len(self.words)} words; is it from a different one?")
            if i == EOS:
                break
            if i not in (PAD, BOS):
                words.append(self.words[i])
        return words

    def unknown(self, tokens: Iterable[str]) -> list[str]:
        """The tokens that `encode` makes <unk>, each once, in their order."""
        check_tokens(tokens)
        return [token for token in dict.fromkeys(tokens) if token not in self._ids]

    def save(self, path: Path | str) -> None:
        """Write the words to a JSON file, in the order of their ids; the file is written completely or not at all."""
        with whole_file(path) as file:
            file.write(json.dumps({"words": self.words}, ensure_ascii=False, indent=0).encode())

    @classmethod
    def load(cls, path: Path | str) -> "Vocabulary":
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            if the file is not a vocabulary; the message names the file and the reason
        OSError
            if it cannot be read
        """
        try:
            content = json.loads(Path(path).read_bytes().decode())
        except (ValueError, RecursionError) as error:   # UnicodeDecodeError and JSONDecodeError are ValueErrors
            raise ValueError(f"{path} is not JSON in UTF-8 ({error}); was it cut off, or is it a different file?"
                             ) from error
        words = content.get("words") if isinstance(content, dict) else None
        if not isinstance(words, list) or tuple(words[:4]) != SPECIALS:
            raise ValueError(f"{path} is JSON but no vocabulary: expected {{\"words\": [...]}} that begins with "
                             f"{' '.join(SPECIALS)}")
        try:
            return cls(words[4:])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} holds a vocabulary that is not valid: {error}") from error
