"""Marian's folders: the numbers, words and texts of `transformers`, and folders with something wrong in them."""
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tinymae import tree
from tinymae.models.decoding import greedy
from tinymae.models.transformer import transformer_backward, transformer_forward
from tinymae.ops.positional import sinusoidal_halves
from tinymae.weights import inspect, marian
from tinymae.weights.marian import MarianTokenizer, load_marian, parse_ids, translate_ids
from tinymae.weights.read import Weights, read_weights
from tinymae.weights.safetensors import write_safetensors

with np.load(Path(__file__).parent / "golden" / "marian.npz") as file:
    GOLDEN = dict(file)
WEIGHTS = "model.safetensors", "pytorch_model.bin"
DTYPES = {np.float64: 1e-12, np.float32: 1e-5}


def write_folder(folder, weights=WEIGHTS):
    """The published files, with these weights."""
    for key, content in GOLDEN.items():
        name = key.removeprefix("file.")
        if key.startswith("file.") and (name not in WEIGHTS or name in weights):
            (folder / name).write_bytes(content.tobytes())
    return folder


@pytest.fixture(params=WEIGHTS)
def folder(request, tmp_path):
    return write_folder(tmp_path, [request.param])


def check(name, ours, reference):
    """Close, relative to the largest number of the reference, and of the dtype under test."""
    ours = np.asarray(ours)
    assert ours.shape == reference.shape, name
    # a key's bias moves all scores of a query alike, softmax ignores it, its gradient is zero but for rounding
    scale = 1.0 if name.endswith("k.b") else np.abs(reference).max()
    error = np.abs(ours - reference).max() / scale
    assert error < DTYPES[ours.dtype.type], f"{name}: relative error {error:.1e}"


# ---- the model -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_logits_and_every_gradient(folder, dtype):
    """From files of today (float32) and of 2020 (float16, with all names of the one matrix, and positions)."""
    config, params = load_marian(folder, dtype=dtype)
    loss, cache = transformer_forward(GOLDEN["src"], GOLDEN["targets"], params, config)
    assert loss.dtype == dtype
    check("loss", loss, GOLDEN["loss"])
    check("logits", cache["logits"], GOLDEN["logits"])
    ours = dict(tree.leaves(transformer_backward(1.0, cache)))
    assert ours.keys() == {key.removeprefix("grad.") for key in GOLDEN if key.startswith("grad.")}
    for path, gradient in ours.items():
        assert gradient.dtype == dtype, path
        check(path, gradient, GOLDEN[f"grad.{path}"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_greedy_words(folder, dtype):
    config, params = load_marian(folder, dtype=dtype)
    found = greedy(GOLDEN["src"], params, config, max_len=15).ids
    width = found.shape[1]
    np.testing.assert_array_equal(found, GOLDEN["greedy"][:, :width])
    assert (GOLDEN["greedy"][:, width:] == config.pad).all()


def test_positions():
    """All sines, then all cosines, as transformers' table, which is rounded to float32."""
    np.testing.assert_allclose(sinusoidal_halves(32, 8), GOLDEN["positions"], rtol=0, atol=6e-8)


def test_config(folder):
    config, params = load_marian(folder)
    words = len(json.loads((folder / "vocab.json").read_text()))
    assert (config.pad, config.bos, config.eos) == (words - 1, words - 1, 0)
    assert (config.src_vocab, config.tgt_vocab, config.d_model, config.d_ff, config.heads) == (words, words, 8, 12, 2)
    assert (config.encoder_layers, config.decoder_layers) == (1, 2)
    assert (config.activation, config.position_encoding, config.tie) == ("swish", "halves", "all")
    assert config.output_bias and config.scale_embedding and not config.norm_first and config.eps == 1e-5
    assert {leaf.dtype for _, leaf in tree.leaves(params)} == {np.dtype(np.float32)}


def test_large_matrices_are_windows_on_the_file(tmp_path, monkeypatch):
    write_folder(tmp_path)
    weights = read_weights(tmp_path / "model.safetensors")
    monkeypatch.setattr(inspect, "read_weights", lambda path, key: weights)
    _, params = load_marian(tmp_path)
    assert np.shares_memory(params["embed"], weights.tensors["model.shared.weight"])
    fc1 = weights.tensors["model.decoder.layers.1.fc1.weight"]
    assert np.shares_memory(params["decoder"]["blocks"][1]["ffn"]["fc1"]["w"], fc1)


def test_safetensors_come_first(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not looked at")
    load_marian(tmp_path)


# ---- ids and text ----------------------------------------------------------------------------------------------------

def test_translate_ids(folder):
    """In the order of the sources, though sentences of like length go together; a beam of one is greedy."""
    config, params = load_marian(folder, dtype=np.float64)
    sources = [row[row != config.pad].tolist() for row in GOLDEN["src"]]
    for rows in (1, 2, 16):
        found = translate_ids(sources, params, config, rows=rows)
        for ids, row in zip(found, GOLDEN["greedy"].tolist(), strict=True):
            expected = [word for word in row if word not in (config.pad, config.eos)]
            assert ids[: len(expected)] == expected             # ours may be longer: it was not cut off
            assert ids == expected or 0 not in row
    narrow, wide = (translate_ids(sources, params, config, beam=beam) for beam in (1, 4))
    assert narrow == found != wide
    assert translate_ids([], params, config) == []


@pytest.mark.parametrize("beam", [1, 3])
def test_a_translation_does_not_depend_on_its_neighbours(tmp_path, beam):
    """A model that never ends a sentence: in any batch each source gives what it gives alone, twice its length and ten."""
    config, params = load_marian(write_folder(tmp_path), dtype=np.float64)
    params["out"]["b"] = params["out"]["b"].copy()
    params["out"]["b"][config.eos] = -1e3
    rng = np.random.default_rng(0)
    lengths = 7, 1, 3, 12, 3
    sources = [[*rng.integers(1, config.src_vocab - 1, length - 1).tolist(), config.eos] for length in lengths]
    alone = [translate_ids([source], params, config, beam=beam)[0] for source in sources]
    assert [len(ids) for ids in alone] == [2 * length + 10 for length in lengths]
    for rows in (1, 2, 5):
        for order in (range(5), rng.permutation(5).tolist()):
            found = translate_ids([sources[i] for i in order], params, config, beam=beam, rows=rows)
            assert found == [alone[i] for i in order]


def test_parse_ids(folder):
    config, _ = load_marian(folder)
    assert parse_ids("12 3  7", config) == [12, 3, 7, 0]
    assert parse_ids("12 3 0\n", config) == [12, 3, 0]
    assert parse_ids("", config) == [0]
    for word in (str(config.pad), "99", "-1", "1.5", "sea", "\u0663", "9" * 5000):
        with pytest.raises(ValueError, match=r"expected ids from 0 to 60 and not 60, <pad>; got '"):
            parse_ids(f"12 {word}", config)


@pytest.fixture
def tokenizer(tmp_path):
    pytest.importorskip("sentencepiece")
    return MarianTokenizer(write_folder(tmp_path))


def test_texts_become_the_ids_of_transformers(tokenizer):
    pad = tokenizer.ids["<pad>"]
    for text, row in zip(GOLDEN["texts"].tolist(), GOLDEN["src"].tolist(), strict=True):
        assert tokenizer.encode(text) == [i for i in row if i != pad]


def test_ids_become_the_texts_of_transformers(tokenizer):
    assert [tokenizer.decode(row) for row in GOLDEN["greedy"].tolist()] == GOLDEN["greedy.texts"].tolist()
    targets = zip(GOLDEN["targets"].tolist(), GOLDEN["labels"].tolist(), strict=True)
    assert [tokenizer.decode(row) for row, _ in targets] == GOLDEN["labels"].tolist()
    with pytest.raises(ValueError, match=r"expected ids of vocab\.json, got 61: is it another model's vocabulary"):
        tokenizer.decode([3, 61])


def test_what_the_model_does_not_know(tokenizer):
    assert tokenizer.unknown("The sea") == []
    assert tokenizer.unknown("7 seas!") == ["7", "!"]
    assert tokenizer.unknown(">>deu<< The sea") == [">>deu<<"]
    assert tokenizer.pieces(">>fra<< The sea") == [">>fra<<", *tokenizer.pieces("The sea")]
    assert tokenizer.encode("") == [0]


def test_text_needs_sentencepiece_and_ids_do_not(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    write_folder(tmp_path)
    with pytest.raises(ImportError, match=r"text needs sentencepiece: python -m pip install .*\[interop\].*--tokens, do not"):
        MarianTokenizer(tmp_path)
    config, params = load_marian(tmp_path)
    assert translate_ids([parse_ids("5 6", config)], params, config)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("vocab.json", b"{", r"vocab\.json is not JSON"),
    ("vocab.json", b"\xff\xfe", r"vocab\.json is not JSON"),
    ("vocab.json", b"[]", r"vocab\.json: expected an object \{\.\.\.\}, got list"),
    ("vocab.json", b"[" * 100_000, r"vocab\.json is not JSON: .*recursion"),
    ("vocab.json", b'{"</s>": 0, "<unk>": 1}', r"vocab\.json: expected subwords with their ids, <pad> is missing"),
    ("vocab.json", b'{"</s>": 0, "<unk>": [1], "<pad>": 2}', r"expected subwords with their ids, got \[1\]"),
    ("vocab.json", b'{"</s>": 0, "<unk>": 1, "<pad>": 2, "a": 1}', r"vocab\.json: expected 4 different ids, got 3: damaged"),
    ("source.spm", b"", r"source\.spm is not a SentencePiece model"),
    ("target.spm", b"hello" * 20, r"target\.spm is not a SentencePiece model"),
])
def test_a_damaged_tokenizer(tmp_path, name, content, message):
    pytest.importorskip("sentencepiece")
    (write_folder(tmp_path) / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        MarianTokenizer(tmp_path)


@pytest.mark.parametrize("name", ["vocab.json", "source.spm", "target.spm"])
def test_an_incomplete_tokenizer(tmp_path, name):
    pytest.importorskip("sentencepiece")
    (write_folder(tmp_path) / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing: a Marian folder has config.json, vocab.json"):
        MarianTokenizer(tmp_path)


# ---- folders with something wrong in them ----------------------------------------------------------------------------

@pytest.mark.parametrize(("change", "message"), [
    ({"model_type": "bart"}, "expected model_type 'marian', got 'bart'"),
    ({"model_type": None}, "expected model_type 'marian', got None"),
    ({"d_model": None}, "d_model is missing"),
    ({"d_model": "8"}, "expected d_model to be an integer of at least 1, got '8'"),
    ({"encoder_layers": 0}, "expected encoder_layers to be an integer of at least 1, got 0"),
    ({"pad_token_id": True}, "expected pad_token_id to be an integer of at least 0, got True"),
    ({"eos_token_id": 61}, "expected eos_token_id below vocab_size 61, got 61"),
    ({"decoder_ffn_dim": 16}, "expected encoder_ffn_dim and decoder_ffn_dim to be equal, got 12 and 16"),
    ({"decoder_attention_heads": 4}, "expected encoder_attention_heads and decoder_attention_heads to be equal, got 2 and 4"),
    ({"encoder_attention_heads": 3, "decoder_attention_heads": 3}, "multiple of 3 heads"),
    ({"activation_function": "tanh"}, "one of swish, silu, relu, gelu, got 'tanh'"),
    ({"scale_embedding": "yes"}, "expected scale_embedding to be true or false, got 'yes'"),
    ({"dropout": "0.1"}, r"expected dropout to be a number in \[0, 1\), got '0\.1'"),
    ({"dropout": 1}, r"expected dropout to be a number in \[0, 1\), got 1"),
    ({"normalize_before": True}, "expected normalize_before to be false"),
    ({"static_position_embeddings": False}, "expected static_position_embeddings to be true, got False"),
    ({"d_model": 10**12}, r"expected model\.shared\.weight to be floats \(61, 1000000000000\), got float32 \(61, 8\)"),
    ({"vocab_size": 10**12}, r"expected model\.shared\.weight to be floats \(1000000000000, 8\)"),
    ({"decoder_layers": 10**12}, r"model\.decoder\.layers\.999999999999\.fc1\.weight, since decoder_layers is 10{12}"),
    ({"encoder_layers": 2}, r"expected the tensor model\.encoder\.layers\.1\.fc1\.weight, since encoder_layers is 2"),
    ({"decoder_layers": 1}, r"26 tensors do not belong to the model, the first is model\.decoder\.layers\.1\.encoder_attn"),
    ({"encoder_ffn_dim": 16, "decoder_ffn_dim": 16}, r"fc1\.weight to be floats \(16, 8\), got float32 \(12, 8\)"),
])
def test_a_config_that_does_not_fit(tmp_path, change, message):
    path = write_folder(tmp_path) / "config.json"
    given = {key: value for key, value in (json.loads(path.read_text()) | change).items() if change.get(key, 0) is not None}
    path.write_text(json.dumps(given))
    with pytest.raises(ValueError, match=message) as caught:
        load_marian(tmp_path)
    assert "config.json" in str(caught.value)


def without(name):
    return lambda tensors: tensors.pop(name)


def replaced(name, change):
    return lambda tensors: tensors.update({name: change(tensors[name])})


QUERY, POSITION_TENSOR = "model.encoder.layers.0.self_attn.q_proj.weight", "model.decoder.embed_positions.weight"


@pytest.mark.parametrize(("change", "message"), [
    (without("model.decoder.layers.1.fc2.bias"), r"1 of 70 tensors are missing, the first is model\.decoder\.layers\.1\.fc2"),
    (lambda tensors: tensors.update({"model.encoder.layer_norm.weight": np.ones(8)}),
     r"1 tensors do not belong to the model, the first is model\.encoder\.layer_norm\.weight"),
    (replaced(QUERY, lambda w: w[:4]), r"q_proj\.weight to be floats \(8, 8\), got float16 \(4, 8\)"),
    (replaced(QUERY, lambda w: w.astype(int)), r"q_proj\.weight to be floats \(8, 8\), got int64 \(8, 8\)"),
    (replaced("final_logits_bias", lambda b: b[0]), r"final_logits_bias to be floats \(1, 61\), got float16 \(61,\)"),
    (replaced("lm_head.weight", lambda w: w + 1), r"lm_head\.weight is not model\.shared\.weight: expected one matrix"),
    (replaced("lm_head.weight", lambda w: w[:5]), r"lm_head\.weight is not model\.shared\.weight"),
    (replaced(POSITION_TENSOR, lambda w: w[:, [0, 4, 1, 5, 2, 6, 3, 7]]), r"embed_positions\.weight: expected fixed positions"),
    (replaced(POSITION_TENSOR, lambda w: w[:, :6]), r"embed_positions\.weight: expected fixed positions"),
    (lambda tensors: [tensors.pop(name) for name in marian.TABLES], r"expected the tensor model\.shared\.weight"),
])
def test_tensors_that_do_not_fit(tmp_path, monkeypatch, change, message):
    write_folder(tmp_path)
    tensors = dict(read_weights(tmp_path / "pytorch_model.bin").tensors)
    change(tensors)
    monkeypatch.setattr(inspect, "read_weights", lambda path, key: Weights(tensors, {}, {}))
    with pytest.raises(ValueError, match=message):
        load_marian(tmp_path)


def test_one_matrix_under_any_of_its_names(tmp_path, monkeypatch):
    """A file holds a shared tensor once, under a name that its writer chose; old ones have no bias on the output."""
    write_folder(tmp_path)
    config, params = load_marian(tmp_path)
    tensors = dict(read_weights(tmp_path / "model.safetensors").tensors)
    tensors["lm_head.weight"] = tensors.pop("model.shared.weight")
    del tensors["final_logits_bias"]
    monkeypatch.setattr(inspect, "read_weights", lambda path, key: Weights(tensors, {}, {}))
    other, again = load_marian(tmp_path)
    np.testing.assert_array_equal(again["embed"], params["embed"])
    assert "out" not in again and config.output_bias and not other.output_bias


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_incomplete_folder(tmp_path, name):
    (write_folder(tmp_path, ["model.safetensors"]) / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing|expected model\.safetensors or pytorch_model\.bin"):
        load_marian(tmp_path)


def test_a_layer_with_a_large_number(tmp_path):
    """Names are free: the last of a billion layers is there, and the others are not."""
    tensors = {"model.shared.weight": np.zeros((8, 4), np.float32)}
    for side in ("encoder", "decoder"):
        tensors |= {f"model.{side}.layers.{i}.fc1.weight": np.zeros((8, 4), np.float32) for i in (0, 999_999_999)}
    write_safetensors(tmp_path / "model.safetensors", tensors)
    given = json.loads((write_folder(tmp_path, []) / "config.json").read_text()) | {
        "vocab_size": 8, "d_model": 4, "encoder_layers": 10**9, "decoder_layers": 10**9, "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8, "encoder_attention_heads": 1, "decoder_attention_heads": 1, "pad_token_id": 0,
        "decoder_start_token_id": 0, "eos_token_id": 1,
    }
    (tmp_path / "config.json").write_text(json.dumps(given))
    with pytest.raises(ValueError, match=r"expected the tensor model\.encoder\.layers\.999999998\.fc1\.weight"):
        load_marian(tmp_path)
