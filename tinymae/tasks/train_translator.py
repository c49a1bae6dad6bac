"""Train a translator: sentence pairs, two vocabularies, batches of about as many tokens, a folder with the model."""
import bisect
import itertools
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymae.files import whole_file
from tinymae.models.transformer import TransformerConfig, transformer_backward, transformer_forward, transformer_init
from tinymae.tasks.translate import KEPT, Encoded, Translator, encode_pairs, last_evaluations, load_translator, score
from tinymae.text.batches import pad_batch, token_batches
from tinymae.text.language import TOKENISERS, Language
from tinymae.text.vectors import load_word_vectors
from tinymae.train import checkpoint
from tinymae.train.loop import TWENTIETHS, Run, cosine, resumed, train
from tinymae.train.optim import AdamW, noam
from tinymae.train.parallel import Workers, value_and_grad


def epoch_batches(pairs, tokens, seed, epoch):
    """Index arrays of the batches of one epoch, with about `tokens` words on the longer side, the same for the same seed."""
    source, target = ([len(sentence) for sentence in side] for side in pairs)
    return token_batches(source, target, tokens, np.random.default_rng([seed, epoch]))


def endless_batches(pairs, tokens, seed):
    """The batches of one epoch after the other."""
    for epoch in itertools.count():
        yield from epoch_batches(pairs, tokens, seed, epoch)


def transformer_gradient(config, pairs, batches, micro_batch, workers, label_smoothing=0.0, frozen=None):
    """The gradient of a Transformer on the next batch, as a function(params, rng) -> (loss, dparams) for `train.loop.train`.

    Parameters
    ----------
    config : TransformerConfig
    pairs : Encoded
    batches : iterator of index arrays
    micro_batch : int, words in a part, roughly: gradients of parts are accumulated, so a batch may be larger than the memory
    workers : train.parallel.Workers
    label_smoothing : float
    frozen : dict {name of a parameter: boolean ndarray of its rows that stay as they are}, or None
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
            loss, cache = transformer_forward(src, targets, params, config, label_smoothing=label_smoothing, rng=child)
            return loss * share, transformer_backward(share, cache)

        loss, dparams = value_and_grad(part, list(zip(rng.spawn(len(parts)), parts, strict=True)), workers)
        for name, rows in (frozen or {}).items():
            dparams[name][rows] = 0
        return loss, dparams

    return gradient


class Settings(NamedTuple):
    """What to train, and how."""

    config: dict                # of TransformerConfig, without the vocabularies
    lr: float                   # the highest learning rate
    tokens: int                 # words in a batch
    micro_batch: int            # words in a part of it
    label_smoothing: float
    schedule: str = "cosine"    # or "noam"
    warmup: int = 4000          # steps, of "noam"; "cosine" warms up over a twentieth of the run
    min_count: int = 1          # rarer words become <unk>
    pieces: int = None          # a vocabulary of so many pieces (BPE) in place of words

    def rate(self):
        """The schedule as `train.loop.train` takes it."""
        if self.schedule == "cosine":
            return cosine(self.lr)
        if self.schedule != "noam":
            raise ValueError(f"expected schedule 'cosine' or 'noam', got {self.schedule!r}")
        width = self.config["d_model"]
        factor = self.lr * math.sqrt(width * self.warmup)       # so that its highest rate is lr; the paper's factor is 1
        return lambda step, progress: noam(step + 1, width, self.warmup, factor)


SMALL = Settings(
    {"d_model": 128, "encoder_layers": 2, "decoder_layers": 2, "heads": 4, "d_ff": 256, "dropout": 0.1, "norm_first": True,
     "activation": "gelu", "tie": "output"},
    lr=2e-3, tokens=1536, micro_batch=768, label_smoothing=0.1,
)
LARGE = Settings(
    {"d_model": 256, "encoder_layers": 3, "decoder_layers": 3, "heads": 8, "d_ff": 512, "dropout": 0.1, "norm_first": True,
     "activation": "gelu", "tie": "output"},
    lr=1e-3, tokens=1024, micro_batch=512, label_smoothing=0.1, min_count=2,
)


def settings_for(corpus):
    """SMALL for sentences that are made of fewer than 1,000 different words, characters or letters, LARGE for all others."""
    tokens = {token for text, _ in corpus.train[:5000] for token in TOKENISERS[corpus.source](text)}
    return SMALL if len(tokens) < 1000 else LARGE


def train_translator(
    corpus, out, settings=None, steps=None, minutes=None, epochs=None, seed=0, threads=None, resume=False, vectors=None,
    freeze=False, bar=True, say=print,
):
    """Train a Transformer on sentence pairs and keep it in a folder.

    transformer.npz is the model with all that is needed to go on; source.json and target.json are the vocabularies;
    held_out.tsv has the pairs it was not trained on; last/ the parameters of the last five evaluations, for `average`.

    Parameters
    ----------
    corpus : text.corpus.Corpus
    out : str or Path, a folder
    settings : Settings, or None for those that fit the corpus
    steps, minutes, epochs : how long in all, one of them. The model is evaluated after each epoch, or else twenty times
    seed : int
    threads : int, or None for one per core
    resume : bool, go on with the model in the folder
    vectors : dict {"source" or "target": file of word vectors to start the embedding from}, or None
    freeze : bool, whether the words that are in those files keep their vectors
    bar : bool, show progress
    say : callable(str), for what is worth a line: losses and translations at each evaluation, warnings

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        where not one length is given, or a run is resumed with other settings than it was begun with
    """
    if [steps, minutes, epochs].count(None) != 2:
        raise ValueError(f"expected steps, minutes or epochs, one of them, got {steps}, {minutes} and {epochs}")
    if epochs is not None and epochs < 1:
        raise ValueError(f"expected at least one epoch, got {epochs}")
    out, settings = Path(out), settings or settings_for(corpus)
    schedule = settings.rate()                                  # a wrong setting is heard of before the work begins
    if resume:
        run, translator, frozen = _resumed(out, settings, seed)
    else:
        run, translator, found = _begun(corpus, out, settings, seed, vectors or {}, say)
        frozen = found if freeze else {}
    config, languages = translator.config, translator.languages
    pairs, left_out = drop_long(encode_pairs(corpus.train, languages), settings.tokens)
    if left_out:
        say(f"{left_out} pairs are longer than a batch of {settings.tokens} words, and left out")
    glance = 1024 if epochs else 512                            # evaluated twenty times in minutes, or once in an epoch
    held_out, _ = drop_long(encode_pairs(corpus.held_out[:glance], languages), settings.tokens)
    _say_unknown(corpus, languages, say)
    if not run.step:
        first = score(run.params, config, Encoded(held_out.source[:64], held_out.target[:64])).loss
        expected = math.log(config.tgt_vocab)
        if abs(first - expected) > 1:
            why = "" if config.tie == "none" else " (a fresh model with tied embeddings tends to repeat the word it was fed)"
            say(f"the first loss is {first:.2f}, far from ln V = {expected:.2f} of knowing nothing{why}")
    evaluate_at = TWENTIETHS
    if epochs:
        ends = list(itertools.accumulate(len(epoch_batches(pairs, settings.tokens, seed, epoch)) for epoch in range(epochs)))
        steps, evaluate_at = ends[-1], [end / ends[-1] for end in ends]
    kinds = {"source": languages[0].kind, "target": languages[1].kind}
    meta = {
        **kinds, "seed": seed, "settings": settings._asdict(),
        "frozen": {name: np.flatnonzero(rows).tolist() for name, rows in frozen.items()},
    }

    def save(run):
        path, extra = out / "transformer.npz", {**run.history, **meta}
        checkpoint.save(
            path, "transformer", config, run.params, step=run.step, optimizer=run.optimizer, rng=run.rng, extra=extra
        )

    def evaluate(params):
        if not run.interrupted:                                 # an average of a resumed run must be that of a whole one
            checkpoint.save(last_evaluations(out, run.step), "transformer", config, params, step=run.step, extra=meta)
        for path in sorted(last_evaluations(out).glob("*.npz"))[:-KEPT]:
            path.unlink()
        measured = score(params, config, held_out, workers=workers)
        when = f"step {run.step}"
        if epochs:
            done = bisect.bisect_right(ends, run.step)
            when = f"epoch {done}, {when}" if run.step in ends else f"in epoch {done + 1}, {when}"
        say(
            f"{when}: held-out loss {measured.loss:.4f}, perplexity {measured.perplexity:.3f}, accuracy {measured.accuracy:.2%}"
        )
        sources, references = zip(*corpus.held_out[:4], strict=True)
        hypotheses = translator.translate(sources)
        for source, reference, hypothesis in zip(sources, references, hypotheses, strict=True):
            right = translator.exact(hypothesis, reference)
            say(f"    {source} -> {hypothesis}" + ("" if right else f"   (expected: {reference})"))
        if measured.accuracy > 0.9 and not any(map(translator.exact, hypotheses, references)):
            say("    nearly every word is right when the words before are given, and no sentence is: does the future leak?")
        return measured.loss

    batches = itertools.islice(endless_batches(pairs, settings.tokens, seed), run.step, None)   # where it was interrupted
    with Workers(os.cpu_count() if threads is None else threads) as workers:
        gradient = transformer_gradient(
            config, pairs, batches, settings.micro_batch, workers, settings.label_smoothing, frozen
        )
        rows = round(len(pairs.target) / len(epoch_batches(pairs, settings.tokens, seed, 0)))
        return train(
            run, gradient, schedule, rows, steps, minutes, max_norm=1.0, evaluate=evaluate, evaluate_at=evaluate_at, save=save,
            bar=bar, unit="sentences",
        )


def _begun(corpus, out, settings, seed, vectors, say):
    """A fresh run: (Run, Translator, {embedding: rows that have a vector})."""
    languages = [
        Language.learn("bpe" if settings.pieces else kind, side, settings.min_count, settings.pieces)
        for kind, side in zip((corpus.source, corpus.target), zip(*corpus.train, strict=True), strict=True)
    ]
    config = TransformerConfig(
        src_vocab=len(languages[0].vocabulary), tgt_vocab=len(languages[1].vocabulary), **settings.config
    )
    rng = np.random.default_rng(seed)
    params = transformer_init(config, rng)
    rows = {}
    for side, path in vectors.items():
        name, language = {"source": ("src_embed", languages[0]), "target": ("tgt_embed", languages[1])}[side]
        if language.kind == "bpe" or name not in params:
            raise ValueError(f"{path}: word vectors are for words, and the {side} is made of {language}")
        found = load_word_vectors(path, language.vocabulary, rng, config.d_model)
        # as large as fresh embeddings are, or the first logits would be far too sure of themselves
        params[name] = found.table * np.float32(config.d_model**-0.5 / found.table.std())
        rows[name] = found.found
        missing = f", not for {', '.join(found.missing[:5])} ..." if found.missing else ""
        say(f"{side}: vectors for {found.share:.1%} of {language}{missing}")
    for old in last_evaluations(out).glob("*.npz"):                        # of an earlier run: an average must not mix the two
        old.unlink()
    for language, name in zip(languages, ("source.json", "target.json"), strict=True):
        language.vocabulary.save(out / name)
    with whole_file(out / "held_out.tsv") as file:
        for pair in corpus.held_out:
            file.write(("\t".join(" ".join(text.split("\t")) for text in pair) + "\n").encode())
    return Run(params, _optimizer(params), rng), Translator(params, config, languages, seed), rows


def _resumed(out, settings, seed):
    """The run in the folder, to go on with: (Run, Translator, frozen rows)."""
    saved, languages = load_translator(out)
    run = resumed(saved, _optimizer(saved.params), out)
    begun, now = saved.extra, {"settings": settings._asdict(), "seed": seed}
    if begun["settings"] != now["settings"] or begun["seed"] != seed:
        was, now = ({"seed": it["seed"], **it["settings"], **it["settings"]["config"]} for it in (begun, now))
        other = ", ".join(f"{k} {was.get(k)!r} (now {v!r})" for k, v in now.items() if k != "config" and was.get(k) != v)
        raise ValueError(f"{out}: the run was begun with {other}: resume with the same options")
    frozen = {}
    for name, rows in begun["frozen"].items():
        frozen[name] = np.zeros(len(saved.params[name]), bool)
        frozen[name][rows] = True
    return run, Translator(saved.params, saved.config, languages, seed), frozen


def drop_long(pairs, most):
    """(Encoded without the pairs that have more than `most` words on one side, how many those were)."""
    kept = [(a, b) for a, b in zip(*pairs, strict=True) if max(len(a), len(b)) <= most]
    if not kept:
        raise ValueError(f"expected pairs of at most {most} words, all {len(pairs.source)} are longer: allow larger batches")
    return Encoded(*map(list, zip(*kept, strict=True))), len(pairs.source) - len(kept)


def _say_unknown(corpus, languages, say):
    """One line for each language: how large it is, and which of the held-out words it does not know."""
    sides = zip(*corpus.held_out[:1024], strict=True)
    for name, language, side in zip(("source", "target"), languages, sides, strict=True):
        total = sum(len(language.tokens(text)) for text in side)
        unknown = [word for text in side for word in language.unknown(text)]
        such = f", such as {', '.join(list(dict.fromkeys(unknown))[:5])}" if unknown else ""
        say(f"{name}: {language}; unknown on the held-out side: {len(unknown) / total:.2%}{such}")


def _optimizer(params):
    return AdamW(params, betas=(0.9, 0.98), eps=1e-9)
