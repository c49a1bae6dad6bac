"""Translation: from sentence pairs to a model, and from a model to translations.

    pairs -> tokens -> two vocabularies -> batches of about as many words -> training -> a folder with model and vocabularies

`train_translator` trains and keeps, `Translator` loads and translates, `evaluate` compares with what people wrote.
"""
import itertools
import math
import os
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymae import tree
from tinymae.models.decoding import beam_search, greedy
from tinymae.models.transformer import TransformerConfig, transformer_forward, transformer_init
from tinymae.text.batches import pad_batch
from tinymae.text.language import Language
from tinymae.text.vocabulary import UNK
from tinymae.train import checkpoint
from tinymae.train.parallel import Workers

KEPT = 5        # parameters of so many evaluations stay in the folder, for `average`


class Encoded(NamedTuple):
    """Pairs as ids: two lists of lists, each sentence with <eos> behind it."""

    source: list
    target: list


def encode_pairs(pairs, languages):
    """Pairs of strings -> Encoded."""
    sides = zip(*pairs, strict=True)
    return Encoded(*([language.encode(text) for text in side] for language, side in zip(languages, sides, strict=True)))


class Score(NamedTuple):
    """Teacher-forced measures of a model on pairs."""

    loss: float                 # mean cross entropy of a word, natural logarithm
    perplexity: float           # exp(loss): among how many words it hesitates
    accuracy: float             # share of words that are right when all words before are given


def score(params, config, pairs, rows=64, workers=None):
    """Loss, perplexity and accuracy of `params` on Encoded pairs, without dropout and smoothing; side by side on workers."""
    order = sorted(range(len(pairs.source)), key=lambda i: len(pairs.source[i]))

    def part(start):
        piece = order[start : start + rows]
        src, targets = (pad_batch([side[i] for i in piece], config.pad) for side in pairs)
        loss, cache = transformer_forward(src, targets, params, config)
        words = cache["targets"]
        return float(loss) * len(words), np.count_nonzero(cache["logits"].argmax(axis=-1) == words), len(words)

    parts = (workers.map if workers else map)(part, range(0, len(order), rows))
    total, right, words = map(sum, zip(*parts, strict=True))
    return Score(total / words, math.exp(total / words), right / words)


def last_evaluations(out, step=None):
    return out / "last" if step is None else out / "last" / f"step-{step:08d}.npz"


def load_translator(folder):
    """(train.checkpoint.Checkpoint, [source Language, target Language]) of a folder that `train_translator` wrote."""
    folder = Path(folder)
    saved = checkpoint.load(folder / "transformer.npz", "transformer", TransformerConfig, transformer_init)
    lacking = {"source", "target", "seed", "settings", "frozen"} - saved.extra.keys()
    if lacking:
        raise ValueError(f"{folder}: the model does not say its {', '.join(sorted(lacking))}: is it of another version?")
    return saved, [Language.load(saved.extra[side], folder / f"{side}.json") for side in ("source", "target")]


def average(folder, out, last=KEPT):
    """Write the mean of the parameters of a run's last evaluations as a model of its own (Vaswani et al. 2017, section 6.1).

    Parameters
    ----------
    folder : str or Path, that `train_translator` wrote to
    out : str or Path, another folder
    last : int, how many, at most 5

    Returns
    -------
    list of int, the steps that were averaged

    Raises
    ------
    ValueError
        where folder and out are the same, or the run has not so many evaluations
    """
    folder, out = Path(folder), Path(out)
    if folder.resolve() == out.resolve():
        raise ValueError(f"expected another folder to write to than {folder}: the model there can still be trained on")
    saved, languages = load_translator(folder)
    paths = sorted(last_evaluations(folder).glob("*.npz"))
    if not 1 <= last <= len(paths):
        raise ValueError(f"{folder}: expected a number from 1 to {len(paths)}, the evaluations kept, got {last}")
    models = [checkpoint.load(path, "transformer", TransformerConfig, transformer_init) for path in paths[-last:]]
    mean = tree.map(lambda *leaves: np.mean(leaves, axis=0, dtype=np.float64).astype(leaves[0].dtype), *(
        model.params for model in models
    ))
    extra = {name: saved.extra[name] for name in ("source", "target", "seed", "settings", "frozen")}
    for language, name in zip(languages, ("source.json", "target.json"), strict=True):
        language.vocabulary.save(out / name)
    checkpoint.save(out / "transformer.npz", "transformer", saved.config, mean, step=models[-1].step, extra=extra)
    return [model.step for model in models]


class Translator(NamedTuple):
    """A trained model with its two languages. It never says <unk>: the likeliest word that it knows stands there."""

    params: dict
    config: TransformerConfig
    languages: list             # of text.language.Language: source, target
    seed: int                   # with which held-out pairs were drawn

    @classmethod
    def load(cls, folder):
        """From a folder that `train_translator` or `average` wrote."""
        saved, languages = load_translator(folder)
        return cls(saved.params, saved.config, languages, saved.extra["seed"])

    def exact(self, hypothesis, reference):
        """Whether two translations have the same tokens; spaces do not count."""
        return self.languages[1].tokens(hypothesis) == self.languages[1].tokens(reference)

    def decode(self, text, beam=1):
        """(source tokens, target tokens, models.decoding.Decoded) of one sentence, for its attention."""
        source, target = self.languages
        decoded = self._decode(np.array([source.encode(text)]), beam)
        words = [*target.words(decoded.ids[0].tolist()), "<eos>"][: decoded.ids.shape[1]]
        return [*source.tokens(text), "<eos>"], words, decoded

    def translate(self, texts, beam=1, rows=32, threads=None):
        """Translations of a list of sentences, as strings.

        Sentences of like length go through the model together, at most `rows` of them. Several batches have a thread each; one
        alone has all cores.
        """
        source, target = self.languages
        sources = [source.encode(text) for text in texts]
        order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        pieces = [order[start : start + rows] for start in range(0, len(order), rows)]
        batches = [pad_batch([sources[i] for i in piece], self.config.pad) for piece in pieces]
        results = [None] * len(sources)
        with Workers(os.cpu_count() if threads is None else threads) if len(pieces) > 1 else nullcontext() as workers:
            found = (workers.map if workers else map)(lambda src: self._decode(src, beam).ids.tolist(), batches)
            for i, ids in zip(itertools.chain(*pieces), itertools.chain(*found), strict=True):
                results[i] = target.text(ids)
        return results

    def _decode(self, src, beam):
        if beam == 1:
            return greedy(src, self.params, self.config, never=(UNK,))
        return beam_search(src, self.params, self.config, beam=beam, never=(UNK,))


def evaluate(translator, pairs, beam=1):
    """Compare translations with what people wrote.

    Parameters
    ----------
    translator : Translator
    pairs : list of (source, reference) strings
    beam : int, 1 is greedy

    Returns
    -------
    {"bleu": float, "signature": str of sacrebleu, "exact": share with the same tokens,
     "perplexity" and "accuracy": with teacher forcing}

    Raises
    ------
    ImportError
        where sacrebleu, of the extra `text`, is not installed

    Notes
    -----
    BLEU is of lower-cased text with sacrebleu's own tokeniser ("13a"; "zh" where the target is Chinese): the model's tokeniser
    has no say, so that numbers of different models can be compared.
    """
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise ImportError('BLEU needs sacrebleu: python -m pip install -e ".[text]"') from error
    sources, references = zip(*pairs, strict=True)
    hypotheses = translator.translate(sources, beam)
    chinese = any("一" <= c <= "鿿" for reference in references for c in reference)
    metric = BLEU(lowercase=True, tokenize="zh" if chinese else "13a")
    bleu = metric.corpus_score(hypotheses, [list(references)])
    measured = score(translator.params, translator.config, encode_pairs(pairs, translator.languages))
    exact = sum(map(translator.exact, hypotheses, references)) / len(pairs)
    return {
        "bleu": bleu.score, "signature": str(metric.get_signature()), "exact": exact,
        "perplexity": measured.perplexity, "accuracy": measured.accuracy,
    }
