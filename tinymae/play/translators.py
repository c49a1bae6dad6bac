"""Translators as the tab "attention" needs them: a model, and its tokens as people read them.

    ours(Translator.load())     one that was trained here
    marian(folder)              a published one, Marian's, in Hugging Face's format
"""
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinymae.messages import message as _
from tinymae.models.transformer import TransformerConfig
from tinymae.tasks.translate import Translator
from tinymae.text.vocabulary import SPECIALS, UNK


@dataclass(frozen=True, eq=False)
class ShownTranslator:
    """A translator with what the page shows of it."""

    name: str                                   # "" for the model that comes with the package
    params: dict
    config: TransformerConfig
    tokens: Callable[[str], list[str]]          # of a source sentence, without the one that ends it
    encode: Callable[[str], list[int]]          # their ids, with the one that ends it
    token: Callable[[int], str]                 # the target's token of an id
    text: Callable[[list[int]], str]            # a sentence of such ids
    unknown: int                                # the id of tokens that are not in the source vocabulary
    never: tuple[int, ...]                      # ids that are not generated, beside those that `models.decoding` rules out


def ours(translator: Translator, name: str = "") -> ShownTranslator:
    """A translator that was trained here; its special tokens have the names of `text.vocabulary`."""
    source, target = translator.languages

    def token(i):
        return SPECIALS[i] if i < len(SPECIALS) else target.words([i])[0]

    return ShownTranslator(name, translator.params, translator.config, source.tokens, source.encode, token, target.text, UNK,
                           (UNK,))


def marian(folder: Path | str) -> ShownTranslator:
    """A translator in the folder of a MarianMT model; its tokens are SentencePiece's.

    Raises
    ------
    ImportError, FileNotFoundError, ValueError
        as `weights.marian.MarianTokenizer` and `weights.marian.load_marian`
    """
    from tinymae.weights.marian import MarianTokenizer, load_marian  # a browser has no such folder

    tokenizer = MarianTokenizer(folder)
    config, params = load_marian(folder)
    unnamed = sorted({*range(config.tgt_vocab)} - tokenizer.words.keys())
    if unnamed:
        raise ValueError(_("{folder}: vocab.json has no subword for the id {unnamed} of {tgt_vocab}: is it another model's?",
                           folder=folder, unnamed=unnamed[0], tgt_vocab=config.tgt_vocab))
    return ShownTranslator(Path(folder).name, params, config, tokenizer.pieces, tokenizer.encode, tokenizer.words.__getitem__,
                           tokenizer.decode, tokenizer.ids["<unk>"], ())
