"""From sentence pairs to a model and back: training, resuming, translating, evaluating, and the commands."""
import sys
import types

import numpy as np
import pytest

from tinymae import translation, tree
from tinymae.__main__ import main
from tinymae.data.text import tokenize_words
from tinymae.models.transformer import transformer_forward
from tinymae.translation import Corpus, Encoded, Settings, Translator, evaluate, load_corpus, score, train_translator

TINY = Settings(
    {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "d_ff": 24, "dropout": 0.1, "norm_first": True,
     "tie": "output"},
    lr=5e-3, tokens=60, micro_batch=24, label_smoothing=0.1,
)  # fmt: skip
WHO, WHAT = ["i", "you", "we"], ["cats", "dogs", "birds", "books"]
PAIRS = [(f"{who} see {what}", f"{what} {who}") for who in WHO for what in WHAT]
CORPUS = Corpus(PAIRS, PAIRS[:4], "words", "words")


def run_it(out, steps=12, **options):
    return train_translator(CORPUS, out, TINY, steps=steps, bar=False, say=lambda line: None, **options)


def leaves(run):
    return dict(tree.leaves(run.params))


def test_it_learns_to_translate(tmp_path):
    run = run_it(tmp_path, steps=300)
    assert run.losses[0] > 1.5 > run.losses[-1]
    translator = Translator.load(tmp_path)
    sources, references = zip(*PAIRS, strict=True)
    assert translator.translate(sources) == list(references)
    assert translator.translate(sources, beam=3) == list(references)
    assert translator.translate([]) == []
    words, answer, decoded = translator.decode("we see dogs")
    assert words == ["we", "see", "dogs", "<eos>"] and answer == ["dogs", "we", "<eos>"]
    np.testing.assert_allclose(decoded.cross.sum(axis=-1), 1, rtol=1e-5)
    assert decoded.cross.shape == (1, 1, 2, 3, 4)


def test_interrupted_and_resumed_is_never_interrupted(tmp_path, monkeypatch):
    whole = run_it(tmp_path / "whole")
    real, calls = translation.transformer_forward, []

    def interrupt(*args, **options):
        calls.append(None)
        if len(calls) == 15:
            import signal
            signal.raise_signal(signal.SIGINT)
        return real(*args, **options)

    monkeypatch.setattr(translation, "transformer_forward", interrupt)
    monkeypatch.setattr(translation, "score", lambda *args: translation.Score(1.0, 1.0, 0.0))
    first = run_it(tmp_path / "parts", threads=1)
    assert first.interrupted and 0 < first.step < 12
    monkeypatch.undo()
    second = run_it(tmp_path / "parts", resume=True, threads=2)
    assert second.step == 12 and second.losses == whole.losses
    for path, leaf in leaves(whole).items():
        np.testing.assert_array_equal(leaves(second)[path], leaf, err_msg=path)


def test_the_gradient_does_not_depend_on_how_the_batch_is_cut(tmp_path):
    """Words, not sentences, are what the mean is over."""
    run = run_it(tmp_path, steps=2)
    saved, vocabularies = translation.load_translator(tmp_path)
    config = saved.config.__class__(**{**vars(saved.config), "dropout": 0.0})
    pairs = translation.encode_pairs([*PAIRS, ("i", "i i i i i i")], CORPUS, vocabularies)
    params = tree.map(lambda leaf: leaf.astype(np.float64), run.params)
    results = []
    for micro_batch in (1000, 12):
        with translation.Workers(2) as workers:
            gradient = translation.transformer_gradient(config, pairs, iter([np.arange(13)]), micro_batch, workers)
            results.append(gradient(params, np.random.default_rng(0)))
    (loss, whole), (other, parts) = results
    assert loss == pytest.approx(other, rel=1e-12)
    for (path, a), (_, b) in zip(tree.leaves(whole), tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=path)


def test_score_is_the_loss_over_all_words(tmp_path):
    run = run_it(tmp_path, steps=2)
    saved, vocabularies = translation.load_translator(tmp_path)
    pairs = translation.encode_pairs(PAIRS, CORPUS, vocabularies)
    small, large = score(run.params, saved.config, pairs, rows=5), score(run.params, saved.config, pairs, rows=50)
    assert small.loss == pytest.approx(large.loss, rel=1e-5) and small.accuracy == large.accuracy
    assert small.perplexity == pytest.approx(np.exp(small.loss))
    src, targets = (translation.pad_batch(side) for side in pairs)
    assert small.loss == pytest.approx(float(transformer_forward(src, targets, run.params, saved.config)[0]), rel=1e-5)


def test_it_says_what_looks_wrong(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(translation, "score", lambda *args: translation.Score(9.0, 8000.0, 0.99))
    train_translator(CORPUS, tmp_path, TINY, steps=1, bar=False, say=lines.append)
    text = "\n".join(lines)
    assert "far from ln V" in text and "does the future leak?" in text and "i see cats -> " in text


def test_load_corpus(tmp_path):
    phrasebook = load_corpus(["phrasebook"])
    assert (phrasebook.source, phrasebook.target) == ("characters", "words") and len(phrasebook.held_out) == 2000
    assert ("我有一只猫", "i have a cat") in phrasebook.train
    assert not set(phrasebook.train) & set(phrasebook.held_out)
    dates = load_corpus(["dates"])
    assert (dates.source, dates.target) == ("letters", "letters") and len(dates.held_out) > 1000
    assert not {iso for _, iso in dates.train} & {iso for _, iso in dates.held_out}
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"Hello {i} .\t你好{i}。\n" for i in range(100)), encoding="utf-8")
    corpus = load_corpus([str(path)])
    assert (corpus.source, corpus.target, len(corpus.train), len(corpus.held_out)) == ("words", "characters", 98, 2)
    with pytest.raises(ValueError, match="a source and a target file, got 3"):
        load_corpus(["a", "b", "c"])


def test_the_commands(tmp_path, capsys, monkeypatch):
    path, model = tmp_path / "pairs.tsv", tmp_path / "model"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS), encoding="utf-8")
    assert main(["train", "translate", "--data", str(path), "--steps", "2", "--out", str(model)]) == 0
    assert "exact match on 1 held-out pairs" in capsys.readouterr().out
    assert main(["translate", "--model", str(model), "i see cats", "you see dogs"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    monkeypatch.setattr(sys, "stdin", iter(["i see cats\n"]))
    assert main(["translate", "--model", str(model)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    picture = tmp_path / "attention.png"
    assert main(["translate", "--model", str(model), "i see cats", "--attention", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["translate", "--model", str(tmp_path / "nothing"), "i"]) == 1
    assert "nothing" in capsys.readouterr().err


def test_evaluate_asks_sacrebleu(tmp_path, monkeypatch):
    """sacrebleu is an extra: a stand-in with its interface is enough to see what it is asked."""
    run_it(tmp_path, steps=300)
    asked = {}

    class BLEU:
        def __init__(self, **options):
            asked.update(options)

        def corpus_score(self, hypotheses, references):
            asked["pairs"] = hypotheses, references
            return types.SimpleNamespace(score=12.5)

        def get_signature(self):
            return "signature"

    monkeypatch.setitem(sys.modules, "sacrebleu", types.ModuleType("sacrebleu"))
    metrics = types.ModuleType("sacrebleu.metrics")
    metrics.BLEU = BLEU
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", metrics)
    result = evaluate(Translator.load(tmp_path), PAIRS)
    assert result["bleu"] == 12.5 and result["signature"] == "signature" and result["exact"] == 1.0 == result["accuracy"]
    references = [target for _, target in PAIRS]
    assert asked["pairs"] == (references, [references]) and asked["lowercase"] and asked["tokenize"] == "13a"
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(ImportError, match=r"\[text\]"):
        evaluate(Translator.load(tmp_path), PAIRS)


def test_exact_counts_tokens_not_spaces(tmp_path):
    run_it(tmp_path, steps=1)
    translator = Translator.load(tmp_path)
    assert translator.exact("why do we work?", "why do we work ?") and not translator.exact("a b", "b a")
    assert tokenize_words("why do we work?") == ["why", "do", "we", "work", "?"]


def test_batches_are_the_same_for_the_same_seed():
    pairs = Encoded([[5, 2]] * 30, [[6, 7, 2]] * 30)
    first, again, other = (translation.endless_batches(pairs, 12, seed) for seed in (0, 0, 1))
    taken = [np.concatenate([next(batches) for _ in range(16)]) for batches in (first, again, other)]
    np.testing.assert_array_equal(taken[0], taken[1])
    assert not np.array_equal(taken[0], taken[2])


def test_a_model_without_history_cannot_be_resumed(tmp_path):
    run_it(tmp_path, steps=1)
    saved, _ = translation.load_translator(tmp_path)
    path = tmp_path / "transformer.npz"
    translation.checkpoint.save(path, "transformer", saved.config, saved.params)
    with pytest.raises(ValueError, match="no optimiser and rng"):
        run_it(tmp_path, resume=True)
    run = translation.Run(saved.params, translation._optimizer(saved.params), np.random.default_rng(0))
    translation.checkpoint.save(path, "transformer", saved.config, saved.params, 1, run.optimizer, run.rng)
    with pytest.raises(ValueError, match="not the history"):
        run_it(tmp_path, resume=True)
