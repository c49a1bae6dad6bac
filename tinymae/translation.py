"""Translation: from sentence pairs to a model, and from a model to translations.

    pairs -> tokens -> two vocabularies -> batches of about as many words -> training -> a folder with model and vocabularies

`train_translator` trains and keeps, `Translator` loads and translates, `evaluate` compares with what people wrote.
"""
import itertools
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymae import checkpoint
from tinymae.data import phrasebook
from tinymae.data.text import (
    Vocabulary,
    detokenize,
    pad_batch,
    read_parallel,
    read_tsv,
    token_batches,
    tokenize_characters,
    tokenize_words,
)
from tinymae.decode import beam_search, greedy
from tinymae.models.transformer import TransformerConfig, transformer_backward, transformer_forward, transformer_init
from tinymae.optim import AdamW
from tinymae.parallel import Workers, value_and_grad
from tinymae.training import Run, resumed, train

TOKENISERS = {"words": tokenize_words, "characters": tokenize_characters, "letters": list}


class Corpus(NamedTuple):
    """Sentence pairs, and how they are cut into tokens."""

    train: list                 # of (source, target) strings
    held_out: list
    source: str                 # a key of TOKENISERS
    target: str


def load_corpus(data, seed=0):
    """Sentence pairs by name or from files.

    Parameters
    ----------
    data : list of str: ["phrasebook"] (Chinese -> English), ["dates"], a tab-separated file, or a source and a target file
    seed : int, for what is held out: of files, one pair in fifty, at most 2000

    Returns
    -------
    Corpus
    """
    if data == ["phrasebook"]:
        known, held_out = phrasebook.split(phrasebook.phrasebook(), held_out=2000, seed=seed)
        known = known + 20 * list(phrasebook.FIXED)             # the articles' own sentences, each alone of its kind
        sides = ([(chinese, english) for english, chinese in part] for part in (known, held_out))
        return Corpus(*sides, "characters", "words")
    if data == ["dates"]:
        pairs = phrasebook.dates(44000, np.random.default_rng(seed))
        days = list(dict.fromkeys(iso for _, iso in pairs))
        apart = set(days[: len(days) // 20])                    # days that are never seen, in no format
        return Corpus([p for p in pairs if p[1] not in apart], [p for p in pairs if p[1] in apart], "letters", "letters")
    pairs = read_pairs(data)
    pairs = [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))]
    apart = min(2000, math.ceil(len(pairs) / 50))
    kinds = ("characters" if _is_chinese(side) else "words" for side in zip(*pairs[:1000], strict=True))
    return Corpus(pairs[apart:], pairs[:apart], *kinds)


def read_pairs(files):
    """The (source, target) pairs of one tab-separated file, or of a source and a target file."""
    if len(files) > 2:
        raise ValueError(f"expected one tab-separated file, or a source and a target file, got {len(files)}: {files}")
    return read_parallel(*files) if len(files) == 2 else read_tsv(*files)


def _is_chinese(sentences):
    """Whether more than half of the sentences hold a Chinese character."""
    return sum(any("一" <= c <= "鿿" for c in sentence) for sentence in sentences) > len(sentences) / 2


class Encoded(NamedTuple):
    """Pairs as ids: two lists of lists, each sentence with <eos> behind it."""

    source: list
    target: list


def encode_pairs(pairs, corpus, vocabularies):
    """Pairs of strings -> Encoded."""
    sides = zip(*pairs, strict=True)
    return Encoded(*(
        [[*vocabulary.encode(TOKENISERS[kind](text)), 2] for text in texts]
        for texts, kind, vocabulary in zip(sides, (corpus.source, corpus.target), vocabularies, strict=True)
    ))  # fmt: skip


def endless_batches(pairs, tokens, seed):
    """Index arrays of batches with about `tokens` words on the longer side, epoch after epoch, the same for the same seed."""
    source, target = ([len(sentence) for sentence in side] for side in pairs)
    for epoch in itertools.count():
        yield from token_batches(source, target, tokens, np.random.default_rng([seed, epoch]))


def transformer_gradient(config, pairs, batches, micro_batch, workers, label_smoothing=0.0):
    """The gradient of a Transformer on the next batch, as a function(params, rng) -> (loss, dparams) for `training.train`.

    Parameters
    ----------
    config : TransformerConfig
    pairs : Encoded
    batches : iterator of index arrays
    micro_batch : int, words in a part, roughly
    workers : parallel.Workers
    label_smoothing : float
    """

    def gradient(params, rng):
        chosen = sorted(next(batches), key=lambda i: (len(pairs.target[i]), len(pairs.source[i])))
        words = sum(len(pairs.target[i]) for i in chosen)
        longest = max(max(len(pairs.target[i]), len(pairs.source[i])) for i in chosen)
        rows = max(1, micro_batch // longest)
        parts = [chosen[start : start + rows] for start in range(0, len(chosen), rows)]         # short ones together

        def part(job):
            child, piece = job
            src, targets = (pad_batch([side[i] for i in piece], config.pad) for side in pairs)
            share = np.count_nonzero(targets != config.pad) / words
            loss, cache = transformer_forward(src, targets, params, config, label_smoothing, child)
            return loss * share, transformer_backward(share, cache)

        return value_and_grad(part, list(zip(rng.spawn(len(parts)), parts, strict=True)), workers)

    return gradient


class Score(NamedTuple):
    """Teacher-forced measures of a model on pairs."""

    loss: float                 # mean cross entropy of a word, natural logarithm
    perplexity: float           # exp(loss): among how many words it hesitates
    accuracy: float             # share of words that are right when all words before are given


def score(params, config, pairs, rows=64):
    """Loss, perplexity and accuracy of `params` on Encoded pairs, without dropout and smoothing."""
    total = right = words = 0
    order = sorted(range(len(pairs.source)), key=lambda i: len(pairs.source[i]))
    for start in range(0, len(order), rows):
        piece = order[start : start + rows]
        src, targets = (pad_batch([side[i] for i in piece], config.pad) for side in pairs)
        loss, cache = transformer_forward(src, targets, params, config)
        count = len(cache["words"])
        total += float(loss) * count
        right += np.count_nonzero(cache["logits"].argmax(axis=-1) == cache["words"])
        words += count
    return Score(total / words, math.exp(total / words), right / words)


class Settings(NamedTuple):
    """What to train, and how."""

    config: dict                # of TransformerConfig, without the vocabularies
    lr: float
    tokens: int                 # words in a batch
    micro_batch: int            # words in a part of it
    label_smoothing: float


SMALL = Settings(
    {"d_model": 128, "encoder_layers": 2, "decoder_layers": 2, "heads": 4, "d_ff": 256, "dropout": 0.1, "norm_first": True,
     "activation": "gelu", "tie": "output"},
    lr=2e-3, tokens=1536, micro_batch=768, label_smoothing=0.1,
)  # fmt: skip
LARGE = Settings(
    {"d_model": 256, "encoder_layers": 3, "decoder_layers": 3, "heads": 8, "d_ff": 512, "dropout": 0.1, "norm_first": True,
     "activation": "gelu", "tie": "output"},
    lr=1e-3, tokens=2048, micro_batch=512, label_smoothing=0.1,
)  # fmt: skip


def settings_for(corpus):
    """SMALL for what is made of few words or letters, LARGE for files of real sentences."""
    return SMALL if corpus.source != "words" and len({w for s, _ in corpus.train[:5000] for w in s}) < 1000 else LARGE


def train_translator(
    corpus, out, settings=None, steps=None, minutes=None, seed=0, threads=None, resume=False, min_count=1, bar=True, say=print
):
    """Train a Transformer on sentence pairs and keep it in a folder: transformer.npz, source.json, target.json.

    Parameters
    ----------
    corpus : Corpus
    out : str or Path, a folder
    settings : Settings, or None for those that fit the corpus
    steps, minutes : how long in all, one of them
    seed : int
    threads : int, or None for one per core
    resume : bool, go on with the model in the folder
    min_count : int, rarer words become <unk>
    bar : bool, show progress
    say : callable(str), for what is worth a line: translations at each evaluation, warnings

    Returns
    -------
    Run
    """
    out, settings = Path(out), settings or settings_for(corpus)
    if resume:
        run, config, vocabularies = _resumed(out)
    else:
        vocabularies = [
            Vocabulary.build([TOKENISERS[kind](text) for text in side], min_count)
            for side, kind in zip(zip(*corpus.train, strict=True), (corpus.source, corpus.target), strict=True)
        ]
        config = TransformerConfig(src_vocab=len(vocabularies[0]), tgt_vocab=len(vocabularies[1]), **settings.config)
        rng = np.random.default_rng(seed)
        params = transformer_init(config, rng)
        run = Run(params, _optimizer(params), rng)
        for vocabulary, name in zip(vocabularies, ("source.json", "target.json"), strict=True):
            vocabulary.save(out / name)
    pairs, held_out = (encode_pairs(part, corpus, vocabularies) for part in (corpus.train, corpus.held_out))
    few = Encoded(held_out.source[:512], held_out.target[:512])
    if not run.step:
        first = score(run.params, config, Encoded(few.source[:64], few.target[:64])).loss
        expected = math.log(len(vocabularies[1]))
        if abs(first - expected) > 1:
            say(f"the first loss is {first:.2f}, far from ln V = {expected:.2f} of knowing nothing: look at the initial values")

    def save(run):
        meta = {**run.history, "source": corpus.source, "target": corpus.target}
        checkpoint.save(out / "transformer.npz", "transformer", config, run.params, run.step, run.optimizer, run.rng, meta)

    translator = Translator(run.params, config, vocabularies, corpus.source, corpus.target)

    def evaluate(params):
        measured = score(params, config, few)
        sources, references = zip(*corpus.held_out[:4], strict=True)
        hypotheses = translator.translate(sources)
        say(f"step {run.step}: perplexity {measured.perplexity:.3f}, accuracy {measured.accuracy:.2%} on held-out words")
        for source, reference, hypothesis in zip(sources, references, hypotheses, strict=True):
            right = translator.exact(hypothesis, reference)
            say(f"    {source} -> {hypothesis}" + ("" if right else f"   (expected: {reference})"))
        if measured.accuracy > 0.9 and not any(map(translator.exact, hypotheses, references)):
            say("    nearly every word is right when the words before are given, and no sentence is: does the future leak?")
        return measured.loss

    batches = itertools.islice(endless_batches(pairs, settings.tokens, seed), run.step, None)   # where it was interrupted
    with Workers(os.cpu_count() if threads is None else threads) as workers:
        gradient = transformer_gradient(config, pairs, batches, settings.micro_batch, workers, settings.label_smoothing)
        rows = round(settings.tokens / np.mean([len(target) for target in pairs.target]))
        return train(
            run, gradient, settings.lr, rows, steps, minutes, max_norm=1.0, evaluate=evaluate, save=save, bar=bar,
            unit="sentences",
        )  # fmt: skip


def _optimizer(params):
    return AdamW(params, betas=(0.9, 0.98), eps=1e-9)


def _resumed(out):
    saved, vocabularies = load_translator(out)
    return resumed(saved, _optimizer(saved.params), out), saved.config, vocabularies


def load_translator(folder):
    """(checkpoint.Checkpoint, [source vocabulary, target vocabulary]) of a folder that `train_translator` wrote."""
    folder = Path(folder)
    saved = checkpoint.load(folder / "transformer.npz", "transformer", TransformerConfig, transformer_init)
    return saved, [Vocabulary.load(folder / name) for name in ("source.json", "target.json")]


class Translator(NamedTuple):
    """A trained model with its vocabularies."""

    params: dict
    config: TransformerConfig
    vocabularies: list
    source: str                 # a key of TOKENISERS
    target: str

    @classmethod
    def load(cls, folder):
        """From a folder that `train_translator` wrote."""
        saved, vocabularies = load_translator(folder)
        return cls(saved.params, saved.config, vocabularies, saved.extra["source"], saved.extra["target"])

    def exact(self, hypothesis, reference):
        """Whether two translations have the same tokens; spaces do not count."""
        return TOKENISERS[self.target](hypothesis) == TOKENISERS[self.target](reference)

    def decode(self, text, beam=1):
        """(source tokens, target tokens, decode.Decoded) of one sentence, for its attention."""
        tokens = TOKENISERS[self.source](text)
        src = np.array([[*self.vocabularies[0].encode(tokens), self.config.eos]])
        decoded = greedy(src, self.params, self.config) if beam == 1 else beam_search(src, self.params, self.config, beam)
        words = self.vocabularies[1].decode(decoded.ids[0].tolist())
        return [*tokens, "<eos>"], [*words, "<eos>"][: decoded.ids.shape[1]], decoded

    def translate(self, texts, beam=1, rows=64):
        """Translations of a list of sentences, as strings; sentences of like length go through the model together."""
        sources = [[*self.vocabularies[0].encode(TOKENISERS[self.source](text)), self.config.eos] for text in texts]
        order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        results = [None] * len(sources)
        for start in range(0, len(order), rows):
            piece = order[start : start + rows]
            src = pad_batch([sources[i] for i in piece], self.config.pad)
            decoded = greedy(src, self.params, self.config) if beam == 1 else beam_search(src, self.params, self.config, beam)
            for i, ids in zip(piece, decoded.ids.tolist(), strict=True):
                words = self.vocabularies[1].decode(ids)
                results[i] = "".join(words) if self.target == "letters" else detokenize(words, self.target == "characters")
        return results


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
    metric = BLEU(lowercase=True, tokenize="zh" if translator.target == "characters" else "13a")
    bleu = metric.corpus_score(hypotheses, [list(references)])
    corpus = Corpus([], list(pairs), translator.source, translator.target)
    measured = score(translator.params, translator.config, encode_pairs(pairs, corpus, translator.vocabularies))
    exact = sum(map(translator.exact, hypotheses, references)) / len(pairs)
    return {
        "bleu": bleu.score, "signature": str(metric.get_signature()), "exact": exact,
        "perplexity": measured.perplexity, "accuracy": measured.accuracy,
    }  # fmt: skip
