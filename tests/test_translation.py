"""From sentence pairs to a model and back: training, resuming, translating, evaluating, and the commands."""
import itertools
import json
import sys
import threading
import types
from dataclasses import replace

import numpy as np
import pytest

from tinymae import tree
from tinymae.__main__ import main
from tinymae.models.transformer import TransformerConfig, transformer_forward, transformer_init
from tinymae.tasks import train_translator as training
from tinymae.tasks import translate
from tinymae.tasks.train_translator import TranslatorSettings, average, fitting_pairs, train_translator, translator_settings
from tinymae.tasks.translate import Encoded, Translator, evaluate_translator, score
from tinymae.text.batches import pad_batch
from tinymae.text.corpus import Corpus, load_corpus, read_pairs
from tinymae.text.language import Language
from tinymae.text.tokens import tokenize_words
from tinymae.train.ranks import Ranks

TINY = TranslatorSettings(
    {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "d_ff": 24, "dropout": 0.1, "norm_first": True,
     "tie": "output"},
    lr=5e-3, tokens=60, micro_batch=24, label_smoothing=0.1,
)
WHO, WHAT = ["i", "you", "we"], ["cats", "dogs", "birds", "books"]
PAIRS = [(f"{who} see {what}", f"{what} {who}") for who in WHO for what in WHAT]
CORPUS = Corpus(PAIRS, PAIRS[:4], "words", "words")


def run_it(out, steps=12, settings=TINY, corpus=CORPUS, say=lambda line: None, **options):
    return train_translator(corpus, out, settings, steps=steps, bar=False, say=say, **options)


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
    real, calls = translate.transformer_forward, []

    def interrupt(*args, **options):
        calls.append(None)
        if len(calls) == 15:
            import signal
            signal.raise_signal(signal.SIGINT)
        return real(*args, **options)

    for module in (translate, training):
        monkeypatch.setattr(module, "transformer_forward", interrupt)
    monkeypatch.setattr(training, "score", lambda *args, **options: translate.Score(1.0, 1.0, 0.0))
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
    saved, languages = translate.load_translator(tmp_path)
    config = saved.config.__class__(**{**vars(saved.config), "dropout": 0.0})
    pairs = translate.encode_pairs([*PAIRS, ("i", "i i i i i i")], languages)
    params = tree.map(lambda leaf: leaf.astype(np.float64), run.params)
    results = []
    for micro_batch in (1000, 12):
        with training.Workers(2) as workers:
            gradient = training.transformer_gradient(config, micro_batch=micro_batch, workers=workers)
            results.append(gradient(params, np.random.default_rng(0), pairs))
    (loss, whole), (other, parts) = results
    assert loss == pytest.approx(other, rel=1e-12)
    for (path, a), (_, b) in zip(tree.leaves(whole), tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=path)


def test_score_is_the_loss_over_all_words(tmp_path):
    run = run_it(tmp_path, steps=2)
    saved, languages = translate.load_translator(tmp_path)
    pairs = translate.encode_pairs(PAIRS, languages)
    small, large = score(run.params, saved.config, pairs, rows=5), score(run.params, saved.config, pairs, rows=50)
    assert small.loss == pytest.approx(large.loss, rel=1e-5) and small.accuracy == large.accuracy
    assert small.perplexity == pytest.approx(np.exp(small.loss))
    src, targets = (pad_batch(side) for side in pairs)
    assert small.loss == pytest.approx(float(transformer_forward(src, targets, run.params, saved.config)[0]), rel=1e-5)


def test_it_says_what_looks_wrong(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(training, "score", lambda *args, **options: translate.Score(9.0, 8000.0, 0.99))
    train_translator(CORPUS, tmp_path, TINY, steps=1, bar=False, say=lines.append)
    text = "\n".join(lines)
    assert "far from ln V" in text and "does the future leak?" in text and "i see cats -> " in text


def test_the_commands(tmp_path, capsys, monkeypatch):
    path, model = tmp_path / "pairs.tsv", tmp_path / "model"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS), encoding="utf-8")
    assert main(["train", "translate", "--data", str(path), "--steps", "2", "--out", str(model)]) == 0
    assert "exact match on 1 validation pairs" in capsys.readouterr().out
    assert set(read_pairs([model / "held_out.tsv"])) < set(PAIRS)
    assert main(["translate", "--model", str(model), "i see cats", "you see dogs"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    monkeypatch.setattr(sys, "stdin", iter(["i see cats\n", "\r\n", "i see cats\r\n"]))
    assert main(["translate", "--model", str(model)]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 4 and lines[0] == lines[2] and lines[1] == ""      # an empty line for an empty line
    assert main(["translate", "--model", str(model), " "]) == 0
    assert capsys.readouterr().out == "\n"
    assert main(["translate", "--model", str(model), "", "--attention", "a.png"]) == 1
    assert "expected a sentence, got ''" in capsys.readouterr().err
    picture = tmp_path / "attention.png"
    assert main(["translate", "--model", str(model), "i see cats", "--attention", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["translate", "--model", str(model), "i see cats", "--attention", str(picture), "--layer", "1"]) == 0
    assert main(["translate", "--model", str(model), "i see cats", "--attention", str(picture), "--layer", "3"]) == 1
    assert "the decoder has the layers 0 to" in capsys.readouterr().err
    assert main(["translate", "--model", str(model), "i see cats", "--layer", "0"]) == 1
    assert "--layer is for a picture" in capsys.readouterr().err
    assert main(["average", "--model", str(model), "--last", "2", "--out", str(tmp_path / "mean")]) == 0
    assert "after 1, 2 steps" in capsys.readouterr().out
    assert main(["train", "translate", "--data", str(path), "--valid", str(path), "--reverse", "--epochs", "1", "--lr", "0.01",
                 "--d-model", "32", "--post-norm", "--schedule", "noam", "--out", str(tmp_path / "other")]) == 0
    assert "exact match on 12 validation pairs" in capsys.readouterr().out
    other = Translator.load(tmp_path / "other")
    assert (other.config.d_model, other.config.norm_first) == (32, False) and other.languages[0].unknown("cats see") == ["see"]
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
    result = evaluate_translator(Translator.load(tmp_path), PAIRS)
    assert result["bleu"] == 12.5 and result["signature"] == "signature" and result["exact"] == 1.0 == result["accuracy"]
    references = [target for _, target in PAIRS]
    assert asked["pairs"] == (references, [references]) and asked["lowercase"] and asked["tokenize"] == "13a"
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(ImportError, match=r"\[text\]"):
        evaluate_translator(Translator.load(tmp_path), PAIRS)


@pytest.mark.parametrize("beam", [1, 3])
def test_a_translation_does_not_depend_on_its_neighbours(beam):
    """A model that never ends a sentence: each text gives, in any batch, what it gives alone."""
    languages = [Language.learn("letters", ["abcde"]), Language.learn("words", ["i have a cat and you a dog"])]
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "d_ff": 8, "tie": "none", "output_bias": True}
    config = TransformerConfig(*(len(language.vocabulary) for language in languages), **sizes)
    params = transformer_init(config, np.random.default_rng(0), np.float64)
    params["out"]["b"][config.eos] = -1e3
    translator = Translator(params, config, languages, 0)
    texts = ["abc", "e", "edcbaabcde", "da", "bdca"]
    alone = [translator.translate([text], beam)[0] for text in texts]
    assert [len(text.split()) for text in alone] == [2 * (len(text) + 1) + 10 for text in texts]
    for rows in (2, 3, 5):
        assert translator.translate(texts, beam, rows) == alone


def test_exact_counts_tokens_not_spaces(tmp_path):
    run_it(tmp_path, steps=1)
    translator = Translator.load(tmp_path)
    assert translator.exact("why do we work?", "why do we work ?") and not translator.exact("a b", "b a")
    assert tokenize_words("why do we work?") == ["why", "do", "we", "work", "?"]


def test_batches_are_the_same_for_the_same_seed():
    pairs = Encoded([[5, 2]] * 30, [[6, 7, 2]] * 30)
    pairs = Encoded([[5 + i, 2] for i in range(30)], [[6, 7 + i, 2] for i in range(30)])
    taken = [list(itertools.islice(training.training_batches(pairs, 12, seed), 16)) for seed in (0, 0, 1)]
    assert taken[0] == taken[1] != taken[2]
    assert sorted(pair for batch in taken[0][:8] for pair in zip(*batch, strict=True)) == sorted(zip(*pairs, strict=True))
    for start in (0, 3, 8, 11):                                 # continues within an epoch, and at the start of one
        assert list(itertools.islice(training.training_batches(pairs, 12, 0, start), 5)) == taken[0][start : start + 5]


def test_subwords_vary_from_epoch_to_epoch(tmp_path):
    """The same sentences, cut in other ways; a run that was interrupted ends as one that was not."""
    pytest.importorskip("tokenizers")
    settings = replace(TINY, pieces=30, bpe_dropout=0.3)
    whole = run_it(tmp_path / "whole", steps=9, settings=settings)
    plain = run_it(tmp_path / "plain", steps=9, settings=replace(settings, bpe_dropout=None))
    assert whole.losses != plain.losses
    stop = threading.Event()
    lines = []

    def stopped(line):
        lines.append(line)
        if line.startswith("step 4:"):
            stop.set()

    first = run_it(tmp_path / "parts", steps=9, settings=settings, say=stopped, stop=stop)
    assert first.interrupted and first.step < 9, lines
    assert run_it(tmp_path / "parts", steps=9, settings=settings, resume=True).losses == whole.losses
    with pytest.raises(ValueError, match=r"expected a number of subwords \(--bpe\) with bpe_dropout=0.1"):
        replace(TINY, bpe_dropout=0.1)


def test_a_model_without_history_cannot_be_resumed(tmp_path):
    run_it(tmp_path, steps=1)
    saved, _ = translate.load_translator(tmp_path)
    path = tmp_path / "transformer.npz"
    said = {name: saved.extra[name] for name in ("source", "target", "options", "frozen")}
    translate.checkpoint.save(path, "transformer", saved.config, saved.params, extra=said)
    with pytest.raises(ValueError, match="no optimiser and rng"):
        run_it(tmp_path, resume=True)
    run = training.Run(saved.params, training.translator_optimizer(saved.params), np.random.default_rng(0))
    translate.checkpoint.save(
        path, "transformer", saved.config, saved.params, step=1, optimizer=run.optimizer, rng=run.rng, extra=said
    )
    with pytest.raises(ValueError, match="not the history"):
        run_it(tmp_path, resume=True)
    translate.checkpoint.save(path, "transformer", saved.config, saved.params, step=1, optimizer=run.optimizer, rng=run.rng)
    with pytest.raises(ValueError, match="lacks the source vocabulary"):
        run_it(tmp_path, resume=True)


def test_a_folder_of_tinymae_02(tmp_path):
    """Its vocabularies are files beside the model; it translates, and is not continued."""
    run_it(tmp_path, steps=2)
    expected = Translator.load(tmp_path).translate(["i see cats"])
    path = tmp_path / "transformer.npz"
    with np.load(path) as file:
        contents = {name: file[name] for name in file.files}
    meta = json.loads(str(contents["meta"]))
    meta["format"], extra = "tinymae checkpoint 2", meta["extra"]
    for side in ("source", "target"):
        words = {"words": extra[side]["words"]}
        (tmp_path / f"{side}.json").write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
        extra[side] = extra[side]["kind"]
    extra |= {"seed": 0, "settings": extra.pop("options")["settings"]}
    np.savez(path, **contents | {"meta": np.array(json.dumps(meta))})
    assert Translator.load(tmp_path).translate(["i see cats"]) == expected
    with pytest.raises(ValueError, match=r"tinymae 0\.2 wrote it"):
        run_it(tmp_path, resume=True)
    (tmp_path / "source.json").write_text('{"words": ["<pad>", "<bos>", "<eos>", "<unk>", "a"]}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a vocabulary of 5 tokens, and a model of 12"):
        Translator.load(tmp_path)
    for content in ("[1]", "{", '{"words": 1}'):
        (tmp_path / "source.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=r"source\.json: damaged|its source language is no vocabulary"):
            Translator.load(tmp_path)


def test_a_run_is_resumed_with_the_options_it_was_begun_with(tmp_path):
    run_it(tmp_path, steps=1)
    with pytest.raises(ValueError, match=r"same ones\n    d_ff: 24, now 32\n    lr: 0\.005, now 0\.1$"):
        run_it(tmp_path, resume=True, settings=replace(TINY, lr=0.1, config=TINY.config | {"d_ff": 32}))
    with pytest.raises(ValueError, match=r"same ones\n    seed: 0, now 1$"):
        run_it(tmp_path, resume=True, seed=1)
    other = Corpus([*PAIRS[:-1], ("you see", PAIRS[-1][1])], CORPUS.held_out, "words", "words")
    with pytest.raises(ValueError, match=r"data: (.*) \(fingerprint \w+\), now \1 \(fingerprint \w+\)$"):
        run_it(tmp_path, resume=True, corpus=other)
    with pytest.raises(ValueError, match=r"ones\n    freeze: False, now True\n    source vectors: not given, now fingerprint"):
        run_it(tmp_path, resume=True, vectors={"source": write_vectors(tmp_path / "v.txt", ["i"])}, freeze=True)


def test_epochs(tmp_path):
    lines = []
    run = run_it(tmp_path, steps=None, epochs=3, say=lines.append)
    per_epoch = [len(training.sentence_batches(encoded(tmp_path), TINY.tokens, 0, epoch)) for epoch in range(3)]
    assert [step for step, _ in run.evaluations] == list(np.cumsum(per_epoch))
    text = "\n".join(lines)
    for epoch, (step, loss) in enumerate(run.evaluations, 1):
        assert f"epoch {epoch}, step {step}: validation loss {loss:.4f}" in text
    assert [path.name for path in sorted((tmp_path / "last").iterdir())] == [f"step-{n:08d}.npz" for n in np.cumsum(per_epoch)]


def encoded(folder, pairs=PAIRS):
    return translate.encode_pairs(pairs, Translator.load(folder).languages)


@pytest.mark.parametrize("length", [{}, {"steps": 2, "epochs": 2}, {"steps": None, "epochs": 0}])
def test_one_length(tmp_path, length):
    with pytest.raises(ValueError, match=r"one of steps, minutes and epochs, positive"):
        train_translator(CORPUS, tmp_path, TINY, **length, bar=False)


def test_average_is_the_mean_of_the_last_parameters(tmp_path):
    run_it(tmp_path / "run", steps=9)
    steps = average(tmp_path / "run", tmp_path / "mean", last=3)
    assert steps == [7, 8, 9]
    paths = [tmp_path / "run" / "last" / f"step-{step:08d}.npz" for step in steps]
    config, init = translate.TransformerConfig, translate.transformer_init
    kept = [dict(tree.leaves(translate.checkpoint.load(path, "transformer", config, init).params)) for path in paths]
    mean = Translator.load(tmp_path / "mean")
    for path, leaf in tree.leaves(mean.params):
        assert leaf.dtype == np.float32
        np.testing.assert_allclose(leaf, np.mean([one[path] for one in kept], axis=0), rtol=1e-5, atol=1e-7)
    assert len(mean.translate(["i see cats"])) == 1
    with pytest.raises(ValueError, match="no optimiser"):
        run_it(tmp_path / "mean", resume=True)
    with pytest.raises(ValueError, match="from 1 to 5"):
        average(tmp_path / "run", tmp_path / "mean", last=6)
    with pytest.raises(ValueError, match="another folder"):
        average(tmp_path / "run", tmp_path / "run")


def test_evaluating_an_average_needs_no_second_folder(tmp_path, capsys, monkeypatch):
    """--average N evaluates what `average` would have written."""
    run, seen = tmp_path / "run", []
    run_it(run, steps=9)
    average(run, tmp_path / "mean", last=3)
    pairs = encoded(run)

    def evaluate(translator, given, beam):
        seen.append(translator.params)
        return {"perplexity": score(translator.params, translator.config, pairs).perplexity}

    monkeypatch.setattr(translate, "evaluate_translator", evaluate)
    before = sorted(run.rglob("*"))
    data = ["--data", str(run / "held_out.tsv")]
    assert main(["evaluate", "translate", "--model", str(tmp_path / "mean"), *data]) == 0
    assert main(["evaluate", "translate", "--model", str(run), *data, "--average", "3"]) == 0
    assert main(["evaluate", "translate", "--model", str(run), *data]) == 0
    mean, same, last = capsys.readouterr().out.splitlines()
    assert mean == same != last and sorted(run.rglob("*")) == before
    for (name, one), (_, other) in zip(tree.leaves(seen[0]), tree.leaves(seen[1]), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    for number in ("0", "6"):
        assert main(["evaluate", "translate", "--model", str(run), *data, "--average", number]) == 1
        assert f"expected a number from 1 to 5, the evaluations kept, got {number}" in capsys.readouterr().err


def test_a_fresh_run_leaves_nothing_of_an_old_one_to_average(tmp_path):
    run_it(tmp_path, steps=9)
    run_it(tmp_path, steps=2, overwrite=True)
    assert average(tmp_path, tmp_path / "mean", last=2) == [1, 2]
    with pytest.raises(ValueError, match="from 1 to 2"):
        average(tmp_path, tmp_path / "mean", last=3)


def write_vectors(path, words, width=16):
    rng = np.random.default_rng(3)
    path.write_text("".join(f"{word} {' '.join(f'{x:.4f}' for x in rng.normal(size=width))}\n" for word in words))
    return path


@pytest.mark.parametrize("freeze", [True, False])
def test_word_vectors(tmp_path, freeze):
    path, lines = write_vectors(tmp_path / "vectors.txt", ["i", "you", "cats"]), []
    run_it(tmp_path / "run", steps=6, vectors={"source": path, "target": path}, freeze=freeze, say=lines.append)
    assert any(line.startswith("source: vectors for 37.5% of 12 words, not for ") for line in lines)
    run = run_it(tmp_path / "run", steps=12, resume=True)               # resumed, they stay frozen
    translator = Translator.load(tmp_path / "run")
    for name, language in zip(("src_embed", "tgt_embed"), translator.languages, strict=True):
        ids = language.vocabulary.encode(["i", "you", "cats"])
        expected = np.loadtxt(path, usecols=range(1, 17))
        ratio = run.params[name][ids] / expected
        assert (np.ptp(ratio) < 1e-4) == freeze                         # scaled by one number, or trained on
        others = np.setdiff1d(np.arange(len(language.vocabulary)), ids)
        assert np.ptp(run.params[name][others]) > 0.1


def test_word_vectors_of_another_width(tmp_path):
    path = write_vectors(tmp_path / "vectors.txt", ["i"], width=7)
    with pytest.raises(ValueError, match="dimension 7, and the model's is 16"):
        run_it(tmp_path / "run", vectors={"source": path})
    assert not (tmp_path / "run").exists()


def test_pieces_of_words(tmp_path):
    pytest.importorskip("tokenizers")
    run_it(tmp_path, steps=150, settings=replace(TINY, pieces=30))
    translator = Translator.load(tmp_path)
    assert [language.kind for language in translator.languages] == ["bpe", "bpe"]
    sources, references = zip(*PAIRS, strict=True)
    hypotheses = translator.translate(sources)
    assert sum(map(translator.exact, hypotheses, references)) > 6
    pieces, words, decoded = translator.decode("we see dogs")
    assert pieces[-1] == words[-1] == "<eos>" and decoded.cross.shape[-2:] == (len(words), len(pieces))
    with pytest.raises(ValueError, match="word vectors are for words"):
        vectors = {"source": write_vectors(tmp_path / "v.txt", ["i"])}
        run_it(tmp_path / "other", settings=replace(TINY, pieces=30), vectors=vectors)


def test_noam(tmp_path):
    rate = replace(TINY, schedule="noam", warmup=10).rate()
    rates = [rate(step, 0.0) for step in range(40)]
    assert np.argmax(rates) == 9 and rates[9] == pytest.approx(TINY.lr) and rates[39] == pytest.approx(TINY.lr / 2)
    run = run_it(tmp_path, steps=60, settings=replace(TINY, schedule="noam", warmup=10))
    assert run.losses[-1] < run.losses[0]
    with pytest.raises(ValueError, match="'cosine' or 'noam', got 'linear'"):
        run_it(tmp_path, settings=replace(TINY, schedule="linear"))


def test_long_pairs_are_left_out_and_counted(tmp_path):
    texts = [("i see", "i"), ("i " * 9, "i"), ("i", "see " * 8)]
    languages = [Language.learn("words", side) for side in zip(*texts, strict=True)]
    kept, ids = fitting_pairs(texts, languages, 7)
    assert kept == texts[:1] and ids == translate.encode_pairs(kept, languages)
    with pytest.raises(ValueError, match="all 3 are longer"):
        fitting_pairs(texts, languages, 0)
    lines = []
    long = Corpus([*PAIRS, ("i " * 70, "you")], PAIRS[:4], "words", "words")
    run_it(tmp_path, steps=2, corpus=long, say=lines.append)
    assert any(line.startswith("1 pairs are longer than a batch of 60 tokens") for line in lines)


def test_unknown_words_are_reported_and_never_said(tmp_path, capsys):
    lines = []
    corpus = Corpus(PAIRS, [("i see mice", "mice i")], "words", "words")
    run = run_it(tmp_path, steps=2, corpus=corpus, say=lines.append)
    assert "source: 12 words; unknown in the validation set: 33.33%, such as mice" in lines
    assert main(["translate", "--model", str(tmp_path), "you see mice"]) == 0
    assert "unknown to the model: mice" in capsys.readouterr().err
    translator = Translator.load(tmp_path)
    translator.params["tgt_embed"][translate.UNK] = 30 * np.sign(run.params["decoder"]["norm"]["beta"] + 1e-9)
    for beam in (1, 2):
        assert "<unk>" not in translator.translate(["you see mice"], beam)[0]


def test_settings_fit_the_corpus():
    assert translator_settings(load_corpus(["dates"])) is translator_settings(load_corpus(["french"])) is training.SMALL
    many = [(f"word{i} word{i + 1}", "target") for i in range(1000)]
    assert translator_settings(Corpus(many, many[:3], "words", "words")) is training.LARGE


def test_an_interruption_leaves_nothing_in_the_average(tmp_path, monkeypatch):
    settings = replace(TINY, tokens=20, micro_batch=100)        # several steps in an epoch
    run_it(tmp_path / "whole", steps=None, epochs=4, settings=settings, threads=1)
    real, calls = translate.transformer_forward, []

    def interrupt(*args, **options):
        calls.append(None)
        if len(calls) == 3:                                     # the first is that of the score before training
            import signal
            signal.raise_signal(signal.SIGINT)
        return real(*args, **options)

    for module in (translate, training):
        monkeypatch.setattr(module, "transformer_forward", interrupt)
    monkeypatch.setattr(training, "Workers", InTheMainThread)
    first = run_it(tmp_path / "parts", steps=None, epochs=4, settings=settings, threads=1)
    assert first.interrupted and first.step == 2 and not (tmp_path / "parts" / "last").exists()
    monkeypatch.undo()
    run_it(tmp_path / "parts", steps=None, epochs=4, settings=settings, threads=1, resume=True)
    kept = [sorted(path.name for path in (tmp_path / part / "last").iterdir()) for part in ("whole", "parts")]
    assert kept[0] == kept[1] and len(kept[0]) == 4


class InTheMainThread:
    """A stand-in for Workers: a signal is raised in the main thread only."""

    def __init__(self, threads, ranks=None):
        self.ranks = ranks or Ranks()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def map(self, function, items):
        return map(function, items)
