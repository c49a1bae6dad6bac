"""A vocabulary: tokens to ids and back."""
import json
from collections import Counter
from pathlib import Path

from tinymae.files import whole_file

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, UNK = range(4)


def check_tokens(tokens):
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
        check_tokens(sentences)
        counts = Counter()
        for tokens in sentences:
            check_tokens(tokens)
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
        check_tokens(tokens)
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
        check_tokens(tokens)
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
