"""`play --model`: what a folder or a file holds is seen from its content, and both tabs work with it."""
import base64
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinymae.__main__ import main
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.play.api import Models, answer_json
from tinymae.play.attention_tab import EXAMPLES
from tinymae.play.own import chosen_models, model_at
from tinymae.play.translators import ShownTranslator, marian, ours
from tinymae.tasks.export_model import export_model
from tinymae.tasks.photograph import PhotoModel
from tinymae.tasks.translate import Translator
from tinymae.train import checkpoint
from tinymae.weights.export import export_mae
from tinymae.weights.marian import load_marian, parse_ids, translate_ids
from tinymae.weights.safetensors import write_safetensors
from tinymae.weights.shipped import read_model, shipped

GOLDEN = Path(__file__).parent / "golden"
WORDS = "The sea"


def write_golden(name, folder, prefix="file."):
    """Published files out of one of the golden files."""
    folder.mkdir(exist_ok=True)
    with np.load(GOLDEN / name) as file:
        for key in file:
            if key.startswith(prefix):
                (folder / key.removeprefix(prefix)).write_bytes(file[key].tobytes())
    return folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with a model of each kind: {name: path}."""
    shelf = tmp_path_factory.mktemp("models")
    config, params, extra = read_model(shipped("transformer"), "transformer")
    checkpoint.save(shelf / "mine" / "transformer.npz", "transformer", config, params, extra=extra)
    small = MAEConfig(img_size=16, patch_size=4, in_chans=1, embed_dim=8, depth=1, num_heads=2, decoder_embed_dim=8,
                      decoder_depth=1, decoder_num_heads=2)
    checkpoint.save(shelf / "grey" / "mae.npz", "mae", small, mae_init(small, np.random.default_rng(0)), extra={"crops": None})
    export_model(shelf / "grey", shelf / "grey.safetensors")
    export_model(shelf / "mine", shelf / "mine.safetensors")
    write_golden("marian.npz", shelf / "opus")
    write_golden("pretrained.npz", shelf / "vit_mae", "file.vit_mae/")
    write_golden("pretrained.npz", shelf / "vit", "file.vit/")
    coloured = replace(small, in_chans=3)
    export_mae(shelf / "official.pth", coloured, mae_init(coloured, np.random.default_rng(0)))
    with np.load(GOLDEN / "pretrained.npz") as file:
        (shelf / "visualize.pth").write_bytes(file["file.visualize.pth"].tobytes())
    return shelf


def asked(models, name, **question):
    answer = json.loads(answer_json(name, json.dumps(question), models, "en"))
    assert "error" not in answer, answer
    return answer


@pytest.mark.parametrize(("name", "kind"), [
    ("mine", "translator"), ("mine/transformer.npz", "translator"), ("mine.safetensors", "translator"),
    ("grey", "mae"), ("grey/mae.npz", "mae"), ("grey.safetensors", "mae"), ("vit_mae", "mae"),
    ("vit_mae/model.safetensors", "mae"), ("official.pth", "mae"),
])
def test_the_content_says_what_a_model_is(shelf, name, kind):
    assert isinstance(model_at(shelf / name), {"translator": ShownTranslator, "mae": PhotoModel}[kind])


def test_a_model_takes_the_place_of_one_that_comes_with_the_package(shelf):
    both = chosen_models([shelf / "grey", shelf / "mine"])
    assert both.translator.name == "mine" and both.photos.config.in_chans == 1
    one, none = chosen_models([shelf / "vit_mae"]), chosen_models([])
    assert (one.translator.name, none.translator.name) == ("", "")
    assert one.photos.config.img_size != none.photos.config.img_size and none.photos.turned


def test_the_name_of_the_current_folder_is_its_own(shelf, monkeypatch):
    monkeypatch.chdir(shelf / "mine")
    assert model_at(Path(".")).name == "mine"


@pytest.mark.parametrize("name", ["grey", "vit_mae"])
def test_the_mae_tab_works_with_it(shelf, name):
    models = chosen_models([shelf / name])
    about = asked(models, "mae_model")
    down, across = about["grid"]
    size = {"rows": down * about["patch"], "cols": across * about["patch"]}
    photo = np.random.default_rng(0).integers(0, 256, (size["rows"], size["cols"], 3), np.uint8)
    hidden = asked(models, "mae_hide", kind="random", ratio=0.5, seed=0, **size)["hidden"]
    picture = {"pixels": base64.b64encode(photo.tobytes()).decode(), "hidden": hidden, **size}
    restored = np.frombuffer(base64.b64decode(asked(models, "mae_restore", **picture)["pixels"]), np.uint8).reshape(photo.shape)
    seen = ~np.kron(np.array(hidden, bool), np.ones((about["patch"],) * 2, bool))
    if name == "grey":
        from PIL import Image

        photo = np.repeat(np.asarray(Image.fromarray(photo).convert("L"))[..., None], 3, axis=2)
    np.testing.assert_array_equal(restored[seen], photo[seen])
    assert len(asked(models, "mae_attention", **picture, patch=[0, 0])["decoder"]) == about["layers"]["decoder"]


# ---- Marian ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def published(shelf):
    pytest.importorskip("sentencepiece")
    return chosen_models([shelf / "opus"])


def test_the_attention_tab_works_with_a_published_translator(shelf, published):
    from tinymae.weights.marian import MarianTokenizer

    tokenizer = MarianTokenizer(shelf / "opus")
    config, params = load_marian(shelf / "opus")
    about = asked(published, "translator")
    assert about["name"] == "opus" and set(about["examples"]) <= set(EXAMPLES)
    answer = asked(published, "translate", text=WORDS)
    ids = answer["ids"][:-1] if answer["ended"] else answer["ids"]
    found = translate_ids([tokenizer.encode(WORDS)], params, config)[0]
    assert ids[: len(found)] == found and answer["text"] == tokenizer.decode(ids)
    assert answer["source"] == [*tokenizer.pieces(WORDS), "</s>"] and answer["inputs"][0] == "<pad>"
    assert answer["target"] == [tokenizer.words[i] for i in answer["ids"]]
    assert np.shape(answer["attention"]["cross"]["weights"]) == (2, 3, len(answer["ids"]), len(answer["source"]))
    found = asked(published, "gradient", text=WORDS, target=answer["ids"], position=0)
    assert found["token"] == answer["target"][0] and len(found["source"]) == len(answer["source"])
    assert found["p"] == pytest.approx(answer["steps"][0]["p"], rel=1e-3)


def test_unknown_subwords_of_a_published_translator(published):
    answer = asked(published, "translate", text="7 seas!", temperature=1)
    assert [answer["source"][i] for i in answer["unknown"]] == ["7", "!"]
    assert all(step["drawn"] > 0 for step in answer["steps"])


def fake_tokenizer(monkeypatch):
    """Words in place of SentencePiece's subwords: what is tested is what the tab makes of a published model."""
    class Words:
        def __init__(self, folder):
            self.ids = json.loads((folder / "vocab.json").read_text("utf-8"))
            self.words = {i: word for word, i in self.ids.items()}

        def pieces(self, text):
            return [f"\u2581{word}" for word in text.split()]

        def encode(self, text):
            return [self.ids.get(piece, self.ids["<unk>"]) for piece in self.pieces(text)] + [self.ids["</s>"]]

        def decode(self, ids):
            return " ".join(self.words[i] for i in ids)

    monkeypatch.setattr("tinymae.weights.marian.MarianTokenizer", Words)


def test_a_published_translator_without_sentencepiece(shelf, monkeypatch):
    """The numbers, in a place that has no tokenizer: words stand for subwords."""
    fake_tokenizer(monkeypatch)
    models = chosen_models([shelf / "opus"])
    config, params = load_marian(shelf / "opus")
    answer = asked(models, "translate", text="The sea")
    source = [models.translator.encode("The sea")]
    found = translate_ids(source, params, config)[0]
    assert answer["ids"][: len(found)] == found and source[0] == parse_ids(" ".join(map(str, source[0])), config)
    assert answer["source"][-1] == "</s>" and answer["inputs"][0] == "<pad>"


def test_a_vocabulary_that_does_not_name_every_token(shelf, tmp_path, monkeypatch):
    fake_tokenizer(monkeypatch)
    folder = shutil.copytree(shelf / "opus", tmp_path / "opus")
    ids = json.loads((folder / "vocab.json").read_text("utf-8"))
    word = next(word for word, i in ids.items() if i == 7)
    (folder / "vocab.json").write_text(json.dumps({key: i for key, i in ids.items() if key != word}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab\.json has no subword for the id 7 of 61"):
        marian(folder)


# ---- what the tab starts with ------------------------------------------------------------------------------------------

def test_examples_are_sentences_that_the_model_knows():
    translator = Translator.load()
    about = asked(Models(ours(translator), None), "translator")
    assert about == {"name": "", "examples": list(EXAMPLES[:4])}
    other = Translator(translator.params, translator.config, translator.languages[::-1], 0)         # reads English
    assert asked(Models(ours(other, "mine"), None), "translator") == {"name": "mine", "examples": list(EXAMPLES[4:])}


# ---- errors ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("names", "words"), [
    (["nowhere"], "nowhere: no such folder or file: expected one with a translator or a masked autoencoder"),
    (["mine", "mine.safetensors"], "two models for one tab: expected at most one translator and one masked autoencoder"),
    (["grey", "vit_mae"], "two models for one tab"),
    (["empty"], "empty: expected a folder with transformer.npz or mae.npz, which a training run wrote, or with the weights"),
    (["both"], "both: has a translator and a masked autoencoder: name the file"),
    (["vit"], "vit: holds a classifier, Hugging Face ViTForImageClassification: expected a translator, or a masked"),
    (["visualize.pth"], "does not say everything about its model, --heads, --decoder-heads"),
    (["other.safetensors"], "holds no model that is known here: expected a translator"),
    (["notes.txt"], "notes.txt"),
    (["mine/mae.npz"], "no such folder or file"),
])
def test_what_is_no_model_is_one_line(shelf, tmp_path, names, words, capsys):
    (shelf / "empty").mkdir(exist_ok=True)
    (shelf / "both").mkdir(exist_ok=True)
    for name in ("mine/transformer.npz", "grey/mae.npz"):
        shutil.copy(shelf / name, shelf / "both")
    write_safetensors(shelf / "other.safetensors", {"layer.weight": np.ones((2, 3), np.float32)})
    (shelf / "notes.txt").write_text("buy milk", encoding="utf-8")
    options = [word for name in names for word in ("--model", str(shelf / name))]
    assert main(["play", "--no-browser", *options]) == 1
    out, err = capsys.readouterr()
    assert out == "" and words in err.splitlines()[-1]


def test_text_of_a_published_translator_needs_sentencepiece(shelf, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    assert main(["play", "--no-browser", "--model", str(shelf / "opus")]) == 1
    assert "text needs sentencepiece" in capsys.readouterr().err
