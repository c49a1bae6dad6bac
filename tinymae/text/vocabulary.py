"""A vocabulary: tokens to ids and back.

    why do we work ?  --Vocabulary.encode-->  9 4 7 12 6  --Vocabulary.decode-->  why do we work ?

Four ids are the same in every vocabulary: 0 <pad>, 1 <bos> (the articles: <start>, <Begin>), 2 <eos> (<end>), 3 <unk>. The ids
of the words begin at 4.
"""
from collections import Counter
from collections.abc import Iterable

from tinymae.messages import message as _

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
        return cls([word for _order, word in ranked])

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

    def content(self) -> dict:
        """The words in the order of their ids, as JSON can hold them."""
        return {"words": list(self.words)}

    @classmethod
    def of(cls, content: object) -> "Vocabulary":
        """The vocabulary of which this is the `content`.

        Raises
        ------
        ValueError
            if it is not the content of a vocabulary
        """
        words = content.get("words") if isinstance(content, dict) else None
        if not isinstance(words, list) or tuple(words[:4]) != SPECIALS:
            raise ValueError(_('no vocabulary: expected {{"words": [...]}} that begins with {specials}',
                               specials=" ".join(SPECIALS)))
        try:
            return cls(words[4:])
        except (TypeError, ValueError) as error:
            raise ValueError(_("not a valid vocabulary: {error}", error=error)) from error
