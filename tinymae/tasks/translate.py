"""Translation with a trained model: `Translator` translates, `evaluate_translator` compares with reference translations.

    sentence -> tokens -> ids -> greedy decoding or beam search -> ids -> sentence

The folder with model and vocabularies is written by `tasks.train_translator`; a small trained model comes with the package, and
`Translator.load()` reads it. Translating needs NumPy and the standard library alone, so it works in a browser, too.
"""
import itertools
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymae import tree
from tinymae.messages import message as _
from tinymae.messages import translated
from tinymae.models.decoding import Decoded, beam_search, greedy
from tinymae.models.transformer import TransformerConfig, transformer_forward, transformer_init
from tinymae.text.batches import pad_batch
from tinymae.text.language import Language
from tinymae.text.vocabulary import UNK
from tinymae.train import checkpoint
from tinymae.weights.shipped import read_model, shipped

KEPT = 5        # the parameters of this many evaluations stay in the folder, for `last_mean`


class Encoded(NamedTuple):
    """Pairs as ids: two lists of sentences, each a list of ids that ends in <eos>."""

    source: list[list[int]]
    target: list[list[int]]


def encode_pairs(pairs: list[tuple[str, str]], languages: list[Language]) -> Encoded:
    """Pairs of strings -> Encoded."""
    sides = zip(*pairs, strict=True)
    return Encoded(*([language.encode(text) for text in side] for language, side in zip(languages, sides, strict=True)))


class Score(NamedTuple):
    """Teacher-forced measures of a model on pairs; float() of it is the loss."""

    loss: float                 # mean cross entropy of a token, natural logarithm
    perplexity: float           # exp(loss): as uncertain as a fair choice among that many tokens
    accuracy: float             # fraction of tokens that are predicted, given all tokens before

    def __float__(self) -> float:
        return self.loss


def score(
    params: dict, config: TransformerConfig, pairs: Encoded, rows: int = 64, workers: object | None = None
) -> Score:
    """Loss, perplexity and accuracy of `params` on Encoded pairs, without dropout and smoothing.

    Batches of `rows` pairs are computed one after another, or side by side on open `train.parallel.Workers`.
    """
    order = sorted(range(len(pairs.source)), key=lambda i: len(pairs.source[i]))

    def part(start):
        piece = order[start : start + rows]
        src, targets = (pad_batch([side[i] for i in piece], config.pad) for side in pairs)
        loss, cache = transformer_forward(src, targets, params, config)
        words = cache["targets"]
        return float(loss) * len(words), np.count_nonzero(cache["logits"].argmax(axis=-1) == words), len(words)

    parts = (workers.map if workers else map)(part, range(0, len(order), rows))
    total, right, words = map(sum, zip(*parts, strict=True))
    loss = total / words
    if not math.isfinite(loss):
        raise FloatingPointError(_("the model gives a loss of {loss}: its training diverged, train it again", loss=loss))
    return Score(loss, math.exp(loss) if loss < 700 else math.inf, right / words)


def last_evaluations(out: Path, step: int | None = None) -> Path:
    """The folder of the last evaluations' parameters, or the file of one step."""
    return out / "last" if step is None else out / "last" / f"step-{step:08d}.npz"


def load_translator(folder: Path | str) -> tuple[checkpoint.Checkpoint, list[Language]]:
    """Checkpoint and [source Language, target Language] of a folder that `train_translator` wrote."""
    path = Path(folder) / "transformer.npz"
    saved = checkpoint.load(path, "transformer", TransformerConfig, transformer_init)
    return saved, _languages(path, saved.config, saved.extra)


def _languages(path, config, extra):
    """[source Language, target Language] of what stands beside a model."""
    languages = []
    for side in ("source", "target"):
        content = extra.get(side)
        if isinstance(content, str):                            # tinymae 0.2 wrote the vocabularies beside the model
            file = path.with_name(f"{side}.json")
            try:
                content = {"kind": content, **json.loads(file.read_bytes())}
            except (ValueError, TypeError, RecursionError) as error:        # not UTF-8, not JSON, or no object
                raise ValueError(_("{file}: damaged, or no vocabulary ({error})", file=file, error=error)) from error
        if not isinstance(content, dict):
            raise ValueError(_("{path}: lacks the {side} vocabulary: expected a file that train_translator wrote",
                               path=path, side=translated(side)))
        try:
            languages.append(Language.of(content))
        except ValueError as error:
            raise ValueError(_("{path}: its {side} language is {error}",
                               path=path, side=translated(side), error=error)) from error
    for language, size in zip(languages, (config.src_vocab, config.tgt_vocab), strict=True):
        if len(language.vocabulary) != size:
            raise ValueError(_("{path}: a vocabulary of {count} tokens, and a model of {size}",
                               path=path, count=len(language.vocabulary), size=size))
    return languages


def last_mean(folder: Path | str, last: int = KEPT) -> tuple[dict, list[checkpoint.Checkpoint]]:
    """The mean of the parameters of a run's last evaluations (Vaswani et al. 2017, section 6.1), and these evaluations.

    Parameters
    ----------
    folder : that `train_translator` wrote to
    last : how many, at most 5

    Raises
    ------
    ValueError
        if the run has fewer evaluations
    """
    paths = sorted(last_evaluations(Path(folder)).glob("*.npz"))
    if not 1 <= last <= len(paths):
        raise ValueError(_("{folder}: expected a number from 1 to {most}, the evaluations kept, got {last}",
                           folder=folder, most=len(paths), last=last))
    models = [checkpoint.load(path, "transformer", TransformerConfig, transformer_init) for path in paths[-last:]]
    mean = tree.map(lambda *leaves: np.mean(leaves, axis=0, dtype=np.float64).astype(leaves[0].dtype), *(
        model.params for model in models
    ))
    return mean, models


@dataclass(frozen=True, eq=False)
class Translator:
    """A trained model with its two languages. It never generates <unk>, but the most probable other token."""

    params: dict
    config: TransformerConfig
    languages: list[Language]   # source, target
    seed: int                   # with which the validation pairs were drawn

    @classmethod
    def load(cls, path: Path | str | None = None) -> "Translator":
        """A trained model from the disk.

        Parameters
        ----------
        path : a folder that `train_translator` or `average` wrote, a .safetensors file that `export_model` wrote, or None for
            the translator that comes with the package: the phrasebook, from Chinese to English

        Raises
        ------
        FileNotFoundError, ValueError
            as `train.checkpoint.load` or `weights.shipped.read_model`, and if vocabularies or seed are missing or damaged
        """
        path = shipped("transformer") if path is None else Path(path)
        if path.suffix == ".safetensors":
            config, params, extra = read_model(path, "transformer")
            languages = _languages(path, config, extra)
        else:
            saved, languages = load_translator(path)
            config, params, extra = saved.config, saved.params, saved.extra
        options = extra.get("options", extra)
        seed = options.get("seed") if isinstance(options, dict) else None
        if type(seed) is not int:
            raise ValueError(_("{path}: lacks the seed of its validation pairs: expected a file that train_translator wrote",
                               path=path))
        return cls(params, config, languages, seed)

    def exact(self, hypothesis: str, reference: str) -> bool:
        """Whether two translations have the same tokens; spaces do not count."""
        return self.languages[1].tokens(hypothesis) == self.languages[1].tokens(reference)

    def decode(self, text: str, beam: int = 1) -> tuple[list[str], list[str], Decoded]:
        """Source tokens, target tokens and all that was computed for one sentence, for its attention."""
        source, target = self.languages
        if not source.tokens(text):
            raise ValueError(_("expected a sentence, got {text!r}: it has no tokens to attend to", text=text))
        decoded = self._decode(np.array([source.encode(text)]), beam, attention=True)
        words = [*target.words(decoded.ids[0].tolist()), "<eos>"][: decoded.ids.shape[1]]
        return [*source.tokens(text), "<eos>"], words, decoded

    def translate(self, texts: list[str], beam: int = 1, rows: int = 32, threads: int | None = None) -> list[str]:
        """Translations of sentences.

        Sentences of similar length are decoded together, at most `rows` of them; each gives what it gives alone. Several
        batches have a thread each (None: as many as there are cores); one alone has all cores. With threads=1, none is started.
        A text without tokens, such as an empty line, gives an empty text.
        """
        source, target = self.languages
        sources = [source.encode(text) for text in texts]
        order = sorted((i for i, text in enumerate(texts) if source.tokens(text)), key=lambda i: len(sources[i]))
        pieces = [order[start : start + rows] for start in range(0, len(order), rows)]
        batches = [pad_batch([sources[i] for i in piece], self.config.pad) for piece in pieces]
        results = [""] * len(sources)
        threads = (os.cpu_count() or 1) if threads is None else threads

        def ids_of(src):
            return self._decode(src, beam).ids.tolist()

        if len(pieces) < 2 or threads == 1:
            found = map(ids_of, batches)
        else:
            from tinymae.train.parallel import Workers  # needs more than NumPy

            with Workers(threads) as workers:
                found = list(workers.map(ids_of, batches))
        for i, ids in zip(itertools.chain(*pieces), itertools.chain(*found), strict=True):
            results[i] = target.text(ids)
        return results

    def _decode(self, src, beam, attention=False):
        if beam == 1:
            return greedy(src, self.params, self.config, never=(UNK,), attention=attention)
        return beam_search(src, self.params, self.config, beam=beam, never=(UNK,), attention=attention)


def evaluate_translator(translator: Translator, pairs: list[tuple[str, str]], beam: int = 1) -> dict:
    """Compare translations with reference translations.

    Parameters
    ----------
    translator : the model
    pairs : (source, reference) strings
    beam : 1 is greedy

    Returns
    -------
    {"bleu": float, "signature": str of sacrebleu, "exact": fraction with the same tokens,
     "perplexity" and "accuracy": with teacher forcing}

    Raises
    ------
    ImportError
        if sacrebleu, of the extra `text`, is not installed

    Notes
    -----
    BLEU is of lower-cased text with sacrebleu's own tokeniser ("13a"; "zh" if the target is Chinese). The model's tokeniser
    plays no part in it, so that numbers of different models can be compared.
    """
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise ImportError(_('BLEU needs sacrebleu: python -m pip install -e ".[text]"')) from error
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
