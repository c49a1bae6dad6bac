"""Byte pair encoding: pieces of words in place of words, so that no word is unknown.

A vocabulary of whole words can never be complete, and each word that it lacks becomes <unk>. Pieces can spell every word:
frequent words stay whole, rare ones fall into parts that other words share (Sennrich et al. 2016, section 3.2). How the
pieces are found is in `train_bpe`.

This is the one module that needs the `tokenizers` library. It is imported where it is used, so that words and characters
work without it.
"""
from pathlib import Path

from tinymae.files import whole_file
from tinymae.text.tokens import nfc
from tinymae.text.vocabulary import BOS, EOS, PAD, SPECIALS, UNK


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
        return self._tokenizer.encode(nfc(text)).tokens

    def encode(self, text):
        """The numbers of a text's pieces, a list of int; 3, <unk>, for a character never seen. No <eos> is added."""
        return self._tokenizer.encode(nfc(text)).ids

    def unknown(self, text):
        """The characters of a text that `encode` makes <unk>, a list of str."""
        text = nfc(text)
        encoded = self._tokenizer.encode(text)
        return [text[start:end] for i, (start, end) in zip(encoded.ids, encoded.offsets, strict=True) if i == UNK]

    def pieces(self, ids):
        """The pieces (a list of str) of numbers: up to the first <eos>, without <pad> and <bos>."""
        return [self._tokenizer.id_to_token(i) for i in self._said(ids)]

    def decode(self, ids):
        """The text (a str) of numbers: up to the first <eos>, without <pad> and <bos>."""
        return self._tokenizer.decode(self._said(ids), skip_special_tokens=False)

    def _said(self, ids):
        ids = [int(i) for i in ids]
        for i in ids:
            if not 0 <= i < len(self):
                raise ValueError(f"id {i} is not in this vocabulary of {len(self)} pieces; is it another one's?")
        if EOS in ids:
            ids = ids[: ids.index(EOS)]
        return [i for i in ids if i not in (PAD, BOS)]

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
    TypeError
        when sentences is one str, or a sentence is not a str
    ValueError
        when size leaves no room beside the specials, or there are no sentences
    """
    if size <= len(SPECIALS):
        raise ValueError(f"size is {size}; expected more than {len(SPECIALS)}, the specials: thousands are usual")
    if isinstance(sentences, str):
        raise TypeError(f"sentences are one str, {sentences[:40]!r}; expected a list of sentences")
    sentences = [nfc(text) for text in sentences]
    if not sentences:
        raise ValueError("there are no sentences to learn from")
    library = _tokenizers()
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = library.Tokenizer(models.BPE(unk_token="<unk>"))
    # A sign is a piece of its own: else work and work. would share nothing.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
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
