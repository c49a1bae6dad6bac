"""Models as one small file: written, read, exported; and the translator that comes with the package."""
import hashlib
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinymae import plot, tree
from tinymae.__main__ import main
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.models.transformer import TransformerConfig, transformer_init
from tinymae.tasks import translate
from tinymae.tasks.export_model import export_model
from tinymae.tasks.translate import Translator
from tinymae.text.corpus import load_corpus
from tinymae.text.language import Language
from tinymae.train import checkpoint
from tinymae.weights.shipped import read_model, shipped, write_model

CARD = shipped("transformer").with_suffix(".md")
SHA256 = "55dcc9f4c572247b6cea8c8ce283a1c75cefce3c73e49d9d4f64836a45fc3cae"
MAE = MAEConfig((8, 16), 4, 1, 8, 1, 2, 8, 2, 2)
LANGUAGES = [Language.learn("words", ["i see cats"]), Language.learn("letters", ["cats"])]
TRANSFORMER = TransformerConfig(*(len(one.vocabulary) for one in LANGUAGES), 8, 1, 1, 2, 8, tie="output")
MODELS = {"mae": (MAE, mae_init), "transformer": (TRANSFORMER, transformer_init)}
EXTRA = {"source": LANGUAGES[0].content(), "target": LANGUAGES[1].content(), "options": {"seed": 5}}


def written(path, kind="mae", extra=None, seed=0):
    """The parameters of a small model, which was written to path."""
    config, init = MODELS[kind]
    params = init(config, np.random.default_rng(seed))
    write_model(path, config, params, extra)
    return params


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_written_is_read(tmp_path, kind):
    params = written(tmp_path / "a.safetensors", kind, {"data": "狗", "crops": [1, None, 0.5]})
    config, found, extra = read_model(tmp_path / "a.safetensors", kind)
    assert config == MODELS[kind][0] and extra == {"data": "狗", "crops": [1, None, 0.5]}
    for (name, leaf), (other, expected) in zip(tree.leaves(found), tree.leaves(params), strict=True):
        assert name == other and leaf.dtype == np.float32
        np.testing.assert_array_equal(leaf, expected.astype(np.float16))
        np.testing.assert_allclose(leaf, expected, rtol=2**-11, atol=2**-25)
    again = write_model(tmp_path / "b.safetensors", config, found, extra)       # nothing is rounded twice
    assert again.read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_what_cannot_be_written(tmp_path):
    path, params = tmp_path / "a.safetensors", mae_init(MAE, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"a\.npz: expected a path that ends in \.safetensors"):
        write_model(tmp_path / "a.npz", MAE, params)
    with pytest.raises(TypeError, match="of a model mae or transformer, got dict"):
        write_model(path, {}, params)
    with pytest.raises(ValueError, match=r"expected encoder\.patch_embed\.w of the shape \(64, 8\), got \(16, 8\)"):
        write_model(path, replace(MAE, patch_size=8, img_size=8), params)
    for wrong in (np.nan, np.inf, 65520.0):
        params["decoder"]["embed"]["b"][1] = wrong
        with pytest.raises(ValueError, match=r"decoder\.embed\.b has a number that is not finite or above 65504"):
            write_model(path, MAE, params)
    assert list(tmp_path.iterdir()) == []


def change(path, **texts):
    """Replace texts of the metadata; None deletes one."""
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    for name, text in texts.items():
        header["__metadata__"] |= {name: text}
        if text is None:
            del header["__metadata__"][name]
    header = json.dumps(header).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw[end:])


@pytest.mark.parametrize(("texts", "message"), [
    ({"format": "other"}, r"expected the format 'tinymae model 1', got 'other'"),
    ({"format": None}, r"expected the format 'tinymae model 1', got 'None'"),
    ({"model": "vit"}, r"expected a 'mae' model, got 'vit'"),
    ({"config": None}, "its config is not JSON"),
    ({"config": "[]"}, "expected a table as its config, got a list"),
    ({"config": "[" * 9999}, "recursion"),
    ({"extra": "{"}, "its extra is not JSON"),
    ({"config": '{"img_size": 8, "img_size": 8}'}, "a name occurs twice"),
    ({"config": '{"side": 8}'}, "unexpected keyword argument 'side'"),
    ({"config": '{"img_size": "8"}'}, ""),
    ({"config": '{"depth": 1000000000}'}, r"depth is 1000000000, and it has \d+ tensors"),
    ({"config": '{"img_size": 16000000}'}, "its config has 1000000000000 patches"),
    ({"config": '{"mlp_ratio": 1e300}'}, ""),
    ({"config": '{"depth": 1}'}, r"leaves are missing"),
])
def test_an_edited_file_is_refused_in_one_line(tmp_path, texts, message):
    path = tmp_path / "a.safetensors"
    written(path)
    change(path, **texts)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: .*{message}.*$") as error:
        read_model(path, "mae")
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_refused_in_one_line(tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    written(path, "transformer", EXTRA)
    assert main(["translate", "--model", str(path), "i see cats"]) == 0
    capsys.readouterr()
    raw = path.read_bytes()
    for damaged in (b"", raw[:4], raw[:200], raw[:-1], raw + b"x", b"<!doctype html>", raw[:-2] + b"\xff\x7f"):
        path.write_bytes(damaged)
        assert main(["translate", "--model", str(path), "i see cats"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert str(path) in line and "Error" not in line
    path.write_bytes(raw)
    change(path, extra=json.dumps(EXTRA | {"options": {}}))
    with pytest.raises(ValueError, match="lacks the seed"):
        Translator.load(path)
    change(path, extra=json.dumps(EXTRA | {"target": EXTRA["source"]}))
    with pytest.raises(ValueError, match="a vocabulary of 7 tokens, and a model of 8"):
        Translator.load(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_model(tmp_path / "nothing.safetensors", "mae")
    with pytest.raises(ValueError, match="expected one of mae, transformer"):
        shipped("vit")


def test_export(tmp_path, capsys):
    mae, translator = tmp_path / "mae", tmp_path / "translator"
    params = mae_init(MAE, np.random.default_rng(1))
    checkpoint.save(mae / "mae.npz", "mae", MAE, params, extra={"crops": True, "data": "photo", "options": {"seed": 0}})
    assert main(["export", "--model", str(mae), "--to", "tinymae", str(tmp_path / "mae.safetensors")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'mae.safetensors'}\n"
    config, found, extra = read_model(tmp_path / "mae.safetensors", "mae")
    assert config == MAE and extra == {"crops": True, "data": "photo"}
    np.testing.assert_array_equal(found["decoder"]["mask_token"], params["decoder"]["mask_token"].astype(np.float16))

    params = transformer_init(TRANSFORMER, np.random.default_rng(1))
    checkpoint.save(translator / "transformer.npz", "transformer", TRANSFORMER, params, extra=EXTRA | {"frozen": {}})
    file = export_model(translator, tmp_path / "translator.safetensors")
    first, second = Translator.load(translator), Translator.load(file)
    assert read_model(file, "transformer")[2] == EXTRA
    assert (second.seed, second.config) == (5, first.config) and second.languages[0].tokens("I see") == ["i", "see"]
    assert second.translate(["i see cats"]) == first.translate(["i see cats"])

    for folder, message in ((tmp_path, "it has neither"), (tmp_path / "no", "no such folder")):
        assert main(["export", "--model", str(folder), "--to", "tinymae", str(file)]) == 1
        assert message in capsys.readouterr().err
    (mae / "transformer.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="it has both"):
        export_model(mae, file)


# ---- the translator that comes with the package ----------------------------------------------------------------------

@pytest.fixture(scope="module")
def translator():
    return Translator.load()


def test_the_card_is_that_of_the_file():
    raw, card = shipped("transformer").read_bytes(), CARD.read_text(encoding="utf-8")
    assert hashlib.sha256(raw).hexdigest() == SHA256
    assert SHA256 in card and f"{len(raw):,} bytes" in card


def test_it_is_small_and_read_at_once():
    assert shipped("transformer").stat().st_size < 2_000_000
    times = []
    for _ in range(3):
        start = time.perf_counter()
        Translator.load()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1


def test_it_translates_what_it_was_not_trained_on(translator):
    sources, references = zip(*load_corpus(["phrasebook"], translator.seed).held_out[:200], strict=True)
    exact = sum(map(translator.exact, translator.translate(sources), references))
    assert exact >= 198
    assert sum(map(translator.exact, translator.translate(sources[:20], beam=4), references)) >= 19


def test_translate_without_a_model(capsys, tmp_path, monkeypatch):
    assert main(["translate", "我有一只猫", "为什么要工作"]) == 0
    out, err = capsys.readouterr()
    assert out == "i have a cat\nwhy do we work?\n"
    assert "Chinese to English" in err and len(err.splitlines()) == 2
    number = re.search(r"it knows (\d+) Chinese characters, such as ((?:\S )+)\S; (\d+) English words, such as", err)
    assert [int(number[1]), int(number[3])] == [len(one.vocabulary) - 4 for one in Translator.load().languages]
    drawn = []
    monkeypatch.setattr(plot, "attention", lambda *args, caption: drawn.append(args))
    monkeypatch.setattr(plot, "save", lambda figure, path: path)
    assert main(["translate", "--beam", "3", "--attention", str(tmp_path / "a.png"), "我有一只龘"]) == 0
    out, err = capsys.readouterr()
    assert "unknown to the model: 龘\n" in err and out.startswith("i have a ") and "<unk>" not in out
    ((weights, words, sources),) = drawn
    assert sources == [*"我有一只龘", "<eos>"] and words[:3] == ["i", "have", "a"] and weights.shape == (4, len(words), 6)


def test_evaluate_without_a_model(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(translate, "evaluate_translator", lambda *args: asked.append(args) or {"exact": 1.0})
    assert main(["evaluate", "translate"]) == 0
    (model, pairs, beam), = asked
    assert model.config == Translator.load().config and len(pairs) == 2000 and beam == 1
    assert main(["evaluate", "translate", "--average", "2"]) == 1
    assert "give --model DIR" in capsys.readouterr().err
    assert main(["evaluate", "translate", "--model", "DIR"]) == 1
    assert "expected --data" in capsys.readouterr().err


SCRIPT = '''
import sys, threading

allowed = {*sys.stdlib_module_names, "numpy", "tinymae"}


class OnlyNumPy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError(f"{name} is neither NumPy nor the standard library")


sys.meta_path.insert(0, OnlyNumPy())


def start(self):
    raise RuntimeError("a thread was started")


threading.Thread.start = start
from tinymae.tasks.translate import Translator

translator = Translator.load()
print(translator.translate(["我有一只猫"])[0])
objects = "猫", "车", "一只猫", "两只猫", "书", "水", "一本书", "帽子"
sources = [a + b for a in ("我有", "他有", "她看见", "我们想买", "孩子们喜欢") for b in objects]
found = translator.translate(sources, threads=1)
assert len(set(map(len, sources))) > 3 and len(found) == 40
assert found == [translator.translate([source])[0] for source in sources]
try:
    translator.translate(sources, threads=2)
except ImportError as error:
    print(error)
'''


def test_translating_needs_numpy_alone_and_no_threads():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, encoding="utf-8", timeout=60,
                          cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "i have a cat\nthreadpoolctl is neither NumPy nor the standard library\n"
