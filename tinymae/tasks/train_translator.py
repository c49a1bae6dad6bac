"""Train a translator: sentence pairs in, a file with the model and its two vocabularies out.

    pairs -> tokens -> ids -> batches of about as many tokens -> training -> transformer.npz

The pairs that are held out are the validation set: the loss on them is reported during training, and they are never trained on.
"""
import bisect
import itertools
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tinymae.arguments import check_settings
from tinymae.files import fingerprint, whole_file
from tinymae.messages import marked, translated
from tinymae.messages import message as _
from tinymae.models.transformer import TransformerConfig, transformer_backward, transformer_forward, transformer_init
from tinymae.tasks.translate import (
    KEPT,
    Encoded,
    Score,
    Translator,
    encode_pairs,
    last_evaluations,
    last_mean,
    load_translator,
    score,
)
from tinymae.text.batches import pad_batch, token_batches
from tinymae.text.corpus import Corpus
from tinymae.text.language import TOKENISERS, Language
from tinymae.text.vectors import load_word_vectors
from tinymae.train import checkpoint
from tinymae.train.folder import run_folder
from tinymae.train.loop import (
    SAVE_EVERY,
    TWENTIETHS,
    Run,
    check_length,
    cosine,
    epoch_ends,
    resumed,
    save_run,
    train,
)
from tinymae.train.optim import AdamW, noam
from tinymae.train.parallel import Workers, value_and_grad
from tinymae.train.ranks import Ranks

HELD_OUT = "held_out.tsv"       # the validation set, in the folder


@dataclass(frozen=True)
class TranslatorSettings:
    """What to train, and how."""

    config: dict                # fields of TransformerConfig, without the vocabularies
    lr: float                   # the highest learning rate
    tokens: int                 # in a batch, on the longer side
    micro_batch: int            # tokens in a part of it
    label_smoothing: float
    schedule: str = "cosine"    # or "noam"
    warmup: int = 4000          # steps, of "noam"; "cosine" warms up over a twentieth of the run
    min_count: int = 1          # rarer tokens become <unk>
    pieces: int | None = None   # size of a vocabulary of subwords (BPE) in place of words
    bpe_dropout: float | None = None    # of the subwords: in each epoch the training sentences are cut in other ways

    def __post_init__(self):
        check_settings(
            self, positive=("lr",), fractions=("label_smoothing", "bpe_dropout"),
            counts=("tokens", "micro_batch", "warmup", "min_count", "pieces"),
        )
        if self.bpe_dropout and not self.pieces:
            raise ValueError(_("expected a number of subwords (--bpe) with bpe_dropout={dropout}: words are not cut",
                               dropout=self.bpe_dropout))

    def rate(self) -> Callable[[int, float], float]:
        """The schedule as `train.loop.train` takes it. Raises a ValueError if it is unknown."""
        if self.schedule == "cosine":
            return cosine(self.lr)
        if self.schedule != "noam":
            raise ValueError(_("expected schedule 'cosine' or 'noam', got {schedule!r}", schedule=self.schedule))
        dim = self.config["d_model"]
        factor = self.lr * math.sqrt(dim * self.warmup)         # so that its highest rate is lr; the paper's factor is 1
        return lambda step, progress: noam(step + 1, dim, self.warmup, factor)


SMALL = TranslatorSettings(
    {"d_model": 128, "encoder_layers": 2, "decoder_layers": 2, "heads": 4, "d_ff": 256, "dropout": 0.1, "norm_first": True,
     "activation": "gelu", "tie": "output"},
    lr=2e-3, tokens=1536, micro_batch=768, label_smoothing=0.1,
)
LARGE = TranslatorSettings(
    {"d_model": 256, "encoder_layers": 3, "decoder_layers": 3, "heads": 8, "d_ff": 512, "dropout": 0.1, "norm_first": True,
     "activation": "gelu", "tie": "output"},
    lr=1e-3, tokens=1024, micro_batch=512, label_smoothing=0.1, min_count=2,
)


def translator_settings(corpus: Corpus) -> TranslatorSettings:
    """SMALL for sentences that are made of fewer than 1,000 different words, characters or letters, LARGE for all others."""
    tokens = {token for text, _target in corpus.train[:5000] for token in TOKENISERS[corpus.source](text)}
    return SMALL if len(tokens) < 1000 else LARGE


def sentence_batches(pairs: Encoded, tokens: int, seed: int, epoch: int) -> list:
    """Index arrays of the batches of one epoch, with about `tokens` tokens on the longer side, the same for the same seed."""
    source, target = ([len(sentence) for sentence in side] for side in pairs)
    return token_batches(source, target, tokens, np.random.default_rng([seed, epoch]))


def training_batches(
    pairs: Encoded, tokens: int, seed: int, start: int = 0, vary: Callable[[int], Encoded] | None = None
) -> Iterator[Encoded]:
    """The batches of one epoch after another, without end.

    Parameters
    ----------
    pairs : the training set
    tokens, seed : as `sentence_batches`
    start : how many batches to leave out, those of the steps that are done
    vary : vary(epoch) -> the same pairs, with other ids; or None. Batches are cut by the lengths of `pairs`
    """
    for epoch in itertools.count():
        chosen = sentence_batches(pairs, tokens, seed, epoch)
        if start < len(chosen):
            these = vary(epoch) if vary else pairs
            for batch in chosen[start:]:
                yield Encoded(*([side[i] for i in batch] for side in these))
        start = max(0, start - len(chosen))


def transformer_gradient(
    config: TransformerConfig, *, micro_batch: int, workers: Workers, label_smoothing: float = 0.0,
    frozen: dict[str, np.ndarray] | None = None,
) -> Callable:
    """The gradient of a Transformer, as a function(params, rng, Encoded pairs) -> (loss, dparams) for `train.loop.train`.

    Parameters
    ----------
    config : the model
    micro_batch : tokens in a part, roughly: gradients of parts are accumulated, so a batch may be larger than the memory
    workers : the threads
    label_smoothing : of the loss
    frozen : {name of a parameter: boolean ndarray of its rows that stay as they are}, or None
    """

    def gradient(params, rng, batch):
        chosen = sorted(zip(*batch, strict=True), key=lambda pair: (len(pair[1]), len(pair[0])))
        total = sum(len(target) for _source, target in chosen)
        longest = max(max(map(len, pair)) for pair in chosen)
        rows = max(1, micro_batch // longest)
        parts = [chosen[start : start + rows] for start in range(0, len(chosen), rows)]         # short ones together

        def part(job):
            child, piece = job
            src, targets = (pad_batch(side, config.pad) for side in zip(*piece, strict=True))
            share = np.count_nonzero(targets != config.pad) / total
            loss, cache = transformer_forward(src, targets, params, config, label_smoothing=label_smoothing, rng=child)
            return loss * share, transformer_backward(share, cache)

        loss, dparams = value_and_grad(part, list(zip(rng.spawn(len(parts)), parts, strict=True)), workers)
        for name, rows in (frozen or {}).items():
            dparams[name][rows] = 0
        return loss, dparams

    return gradient


def train_translator(
    corpus: Corpus, out: Path | str, settings: TranslatorSettings | None = None, *,
    steps: int | None = None, minutes: float | None = None, epochs: int | None = None,
    seed: int = 0, threads: int | None = None, resume: bool = False, overwrite: bool = False, save_every: float = SAVE_EVERY,
    vectors: dict[str, Path] | None = None, freeze: bool = False,
    bar: bool = True, say: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    ranks: Ranks | None = None,
) -> Run:
    """Train a Transformer on sentence pairs and write it to a folder.

    transformer.npz is the model with its vocabularies and all that is needed to continue; held_out.tsv is the validation set;
    last/ has the parameters of the last five evaluations, for `average`.

    Parameters
    ----------
    corpus : training and validation pairs
    out : the folder
    settings : None for those that fit the corpus
    steps, minutes, epochs : how long in all, one of them. The model is evaluated after each epoch, or else twenty times
    seed : of parameters, batches and dropout
    threads : None for one per core, which the ranks of a machine share
    resume : continue with the model in the folder; corpus, seed and settings must be the same, and vectors if they are given
    overwrite : replace a model that is in the folder
    save_every : seconds between two saves
    vectors : {"source" or "target": file of word vectors to start the embedding from}, or None
    freeze : whether the words that are in those files keep their vectors
    bar : show progress
    say : say(line), with losses and translations at each evaluation, and warnings; or None
    stop : stop.set(), from any thread, ends the run as Ctrl-C does; or None
    ranks : `train.ranks.world()`, processes that share each batch, all of them in this call; None for this process alone

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        if not exactly one length is given, or a run is resumed with options other than its own
    FileExistsError, BlockingIOError, OSError
        as `train.folder.run_folder`
    """
    check_length(steps, minutes, epochs)
    ranks = ranks or Ranks()
    tell = say or (lambda line: None)
    settings, vectors = settings or translator_settings(corpus), vectors or {}
    schedule = settings.rate()                                  # an invalid schedule is reported before training starts
    options = {
        "data": describe_corpus(corpus), "seed": seed, "settings": asdict(settings), "freeze": freeze,
        "vectors": {f"{side} vectors": f"fingerprint {fingerprint(_blocks(path))}" for side, path in vectors.items()},
    }
    ranks.check_options(options)
    with (
        run_folder(out, "transformer.npz", resume=resume, overwrite=overwrite, rank=ranks.rank) as folder,
        Workers(ranks.threads() if threads is None else threads, ranks) as workers,
    ):
        if resume:
            run, translator, frozen = _resumed(folder.path, options, workers.map)
        else:
            run, translator, found = _new_run(corpus, settings, seed, vectors, workers.map, tell)
            frozen = found if freeze else {}
        config, languages = translator.config, translator.languages
        texts, pairs = fitting_pairs(corpus.train, languages, settings.tokens)
        if left_out := len(corpus.train) - len(texts):
            tell(_("{count} pairs are longer than a batch of {tokens} tokens, and left out",
                   count=left_out, tokens=settings.tokens))
        glance = 1024 if epochs else 512                        # evaluated twenty times in minutes, or once in an epoch
        validation = fitting_pairs(corpus.held_out[:glance], languages, settings.tokens)[1]
        _say_unknown(corpus, languages, tell)
        if not run.step:
            _say_first_loss(run.params, config, validation, tell)

        def epoch(number):
            return sentence_batches(pairs, settings.tokens, seed, number)

        ends, evaluate_at = None, TWENTIETHS
        if epochs:
            ends = epoch_ends(epoch, epochs)
            steps, evaluate_at = ends[-1], [end / ends[-1] for end in ends]
        extra = {
            "source": languages[0].content(), "target": languages[1].content(),
            "frozen": {name: np.flatnonzero(rows).tolist() for name, rows in frozen.items()},
        }

        def save(run):
            if not run.step:                                    # what an earlier run left: its evaluations, its validation set
                for old in (*last_evaluations(folder.path).glob("*.npz"), folder.path / HELD_OUT):
                    old.unlink(missing_ok=True)
            path = save_run(run, folder, "transformer", config, options, extra)
            if not (folder.path / HELD_OUT).is_file():
                _write_pairs(folder.path / HELD_OUT, corpus.held_out)
            return path

        def report(measured):
            if not run.interrupted:                             # an average of a resumed run must be that of a whole one
                _keep(folder, run, config, {"options": options, **extra})
            if say:                                             # translating takes time
                _say_score(measured, run.step, ends, say)
                _say_translations(translator, corpus.held_out[:4], measured, say)

        def varied(number):
            rng, sides = np.random.default_rng([seed, number, 1]), zip(*texts, strict=True)
            return Encoded(*(
                language.varied(side, settings.bpe_dropout, rng) for language, side in zip(languages, sides, strict=True)
            ))

        vary = varied if settings.pieces and settings.bpe_dropout else None
        batches = training_batches(pairs, settings.tokens, seed, run.step, vary)        # continues where it was interrupted
        gradient = transformer_gradient(
            config, micro_batch=settings.micro_batch, workers=workers, label_smoothing=settings.label_smoothing, frozen=frozen
        )
        return train(
            run, gradient, schedule, batch=round(len(pairs.target) / len(epoch(0))), unit=marked("sentences"), batches=batches,
            steps=steps, minutes=minutes, max_norm=1.0,
            evaluate=lambda params: score(params, config, validation, workers=workers), evaluate_at=evaluate_at, report=report,
            save=save, save_every=save_every, bar=bar, stop=stop,
            ranks=ranks,
        )


def average(folder: Path | str, out: Path | str, last: int = KEPT, *, overwrite: bool = False) -> list[int]:
    """Write the mean of the parameters of a run's last evaluations as a model of its own.

    Parameters
    ----------
    folder : that `train_translator` wrote to
    out : another folder
    last : how many, at most 5
    overwrite : replace a model that is in `out`

    Returns
    -------
    The steps that were averaged

    Raises
    ------
    ValueError
        if folder and out are the same, or the run has fewer evaluations
    FileExistsError, BlockingIOError, OSError
        as `train.folder.run_folder`
    """
    folder, out = Path(folder), Path(out)
    if folder.resolve() == out.resolve():
        raise ValueError(_("expected another folder to write to than {folder}: the model there can still be trained on",
                           folder=folder))
    saved = load_translator(folder)[0]
    mean, models = last_mean(folder, last)
    with run_folder(out, "transformer.npz", overwrite=overwrite) as held:
        path = held.path / "transformer.npz"
        checkpoint.save(path, "transformer", saved.config, mean, step=models[-1].step, extra=models[-1].extra)
    return [model.step for model in models]


def describe_corpus(corpus: Corpus) -> str:
    """How many pairs there are, and a fingerprint of them and of how they are cut into tokens."""
    sentences = (text for part in (corpus.train, corpus.held_out) for pair in part for text in pair)
    digits = fingerprint([corpus.source, corpus.target, str(len(corpus.train)), *sentences])
    return f"{len(corpus.train)} training pairs, {len(corpus.held_out)} validation pairs (fingerprint {digits})"


def _blocks(path):
    """The bytes of a file, a megabyte at a time."""
    with open(path, "rb") as file:
        yield from iter(lambda: file.read(1 << 20), b"")


def _write_pairs(path, pairs):
    with whole_file(path) as file:
        for pair in pairs:
            file.write(("\t".join(" ".join(text.split("\t")) for text in pair) + "\n").encode())


def _keep(folder, run, config, extra):
    """Write the parameters of an evaluation to last/, where those of the last KEPT evaluations are."""
    folder.hold()
    path = last_evaluations(folder.path, run.step)
    checkpoint.save(path, "transformer", config, run.params, step=run.step, extra=extra)
    for old in sorted(last_evaluations(folder.path).glob("*.npz"))[:-KEPT]:
        old.unlink()


def _say_first_loss(params, config, validation, say):
    """A line if the first loss is not that of a model that knows nothing."""
    first = score(params, config, Encoded(validation.source[:64], validation.target[:64])).loss
    expected = math.log(config.tgt_vocab)
    if abs(first - expected) > 1:
        if config.tie == "none":
            say(_("the first loss is {first:.2f}, far from ln V = {expected:.2f} of a model that knows nothing",
                  first=first, expected=expected))
        else:
            say(_("the first loss is {first:.2f}, far from ln V = {expected:.2f} of a model that knows nothing (a fresh model "
                  "with tied embeddings tends to repeat its input token)", first=first, expected=expected))


def _say_score(measured: Score, step, ends, say):
    when = _("step {step}", step=step)
    if ends:
        done = bisect.bisect_right(ends, step)
        if step in ends:
            when = _("epoch {epoch}, step {step}", epoch=done, step=step)
        else:
            when = _("in epoch {epoch}, step {step}", epoch=done + 1, step=step)
    say(_("{when}: validation loss {loss:.4f}, perplexity {perplexity:.3f}, accuracy {accuracy:.2%}",
          when=when, loss=measured.loss, perplexity=measured.perplexity, accuracy=measured.accuracy))


def _say_translations(translator, pairs, measured, say):
    sources, references = zip(*pairs, strict=True)
    hypotheses = translator.translate(sources)
    for source, reference, hypothesis in zip(sources, references, hypotheses, strict=True):
        line = f"    {source} -> {hypothesis}"
        right = translator.exact(hypothesis, reference)
        say(line if right else _("{line}   (expected: {reference})", line=line, reference=reference))
    if measured.accuracy > 0.9 and not any(map(translator.exact, hypotheses, references)):
        leak = _("nearly every token is right if the tokens before it are given, and no sentence is: does the future leak?")
        say(f"    {leak}")


def _new_run(corpus, settings, seed, vectors, mapped, say):
    """(Run at step 0, Translator, {embedding: rows that have a vector})."""
    languages = [
        Language.learn("bpe" if settings.pieces else kind, side, min_count=settings.min_count, pieces=settings.pieces)
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
            raise ValueError(_("{path}: word vectors are for words, and the {side} is made of {language}",
                               path=path, side=translated(side), language=language))
        found = load_word_vectors(path, language.vocabulary, rng, config.d_model)
        # as large as fresh embeddings are, or the first logits would be far too large
        params[name] = found.table * np.float32(config.d_model**-0.5 / found.table.std())
        rows[name] = found.found
        if found.missing:
            say(_("{side}: vectors for {share:.1%} of {language}, not for {missing} ...",
                  side=translated(side), share=found.fraction, language=language, missing=", ".join(found.missing[:5])))
        else:
            say(_("{side}: vectors for {share:.1%} of {language}",
                  side=translated(side), share=found.fraction, language=language))
    return Run(params, translator_optimizer(params, mapped), rng), Translator(params, config, languages, seed), rows


def _resumed(folder, options, mapped):
    """The run in the folder, ready to continue: (Run, Translator, frozen rows)."""
    saved, languages = load_translator(folder)
    if not options["vectors"]:                                  # the run knows what it started from
        options |= {name: saved.extra.get("options", options)[name] for name in ("vectors", "freeze")}
    run = resumed(saved, translator_optimizer(saved.params, mapped), folder / "transformer.npz", options)
    for path in last_evaluations(folder).glob("*.npz"):         # evaluated after the last save: the run may go on differently
        if path > last_evaluations(folder, run.step):
            path.unlink(missing_ok=True)                        # several ranks resume at once
    frozen = {}
    try:
        for name, rows in saved.extra["frozen"].items():
            frozen[name] = np.zeros(len(saved.params[name]), bool)
            frozen[name][rows] = True
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(
            _("{folder}: its frozen rows are not rows of its embeddings: damaged, or edited", folder=folder)
        ) from error
    return run, Translator(saved.params, saved.config, languages, options["seed"]), frozen


def fitting_pairs(
    texts: list[tuple[str, str]], languages: list[Language], most: int
) -> tuple[list[tuple[str, str]], Encoded]:
    """The pairs that have at most `most` tokens on each side, as strings and as ids. Raises a ValueError if there are none."""
    encoded = zip(*encode_pairs(texts, languages), strict=True)
    kept = [(text, ids) for text, ids in zip(texts, encoded, strict=True) if max(map(len, ids)) <= most]
    if not kept:
        raise ValueError(_("expected pairs of at most {most} tokens, all {count} are longer: allow larger batches",
                           most=most, count=len(texts)))
    return [text for text, _ids in kept], Encoded(*map(list, zip(*(ids for _text, ids in kept), strict=True)))


def _say_unknown(corpus, languages, say):
    """One line for each language: its size, and which tokens of the validation set it lacks."""
    sides = zip(*corpus.held_out[:1024], strict=True)
    for name, language, side in zip((marked("source"), marked("target")), languages, sides, strict=True):
        total = sum(len(language.tokens(text)) for text in side)
        unknown = [word for text in side for word in language.unknown(text)]
        share, some = len(unknown) / total, ", ".join(list(dict.fromkeys(unknown))[:5])
        if unknown:
            say(_("{side}: {language}; unknown in the validation set: {share:.2%}, such as {some}",
                  side=translated(name), language=language, share=share, some=some))
        else:
            say(_("{side}: {language}; unknown in the validation set: {share:.2%}",
                  side=translated(name), language=language, share=share))


def translator_optimizer(params: dict, mapped: Callable = map) -> AdamW:
    """Adam as in Vaswani et al. 2017, section 5.3."""
    return AdamW(params, betas=(0.9, 0.98), eps=1e-9, mapped=mapped)
