"""Whatever a model was wrapped in before it was saved, the same model is loaded; what else is in the file is named."""
import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinymae import tree
from tinymae.__main__ import main
from tinymae.images.load import load_picture
from tinymae.images.sources import load_images
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.models.vit import ViTConfig, vit_init, vit_logits
from tinymae.tasks.encoders import features, load_encoder
from tinymae.text.pairs import read_lines
from tinymae.weights.export import export_mae, export_vit, export_vit_mae
from tinymae.weights.inspect import LICENCE, inspect
from tinymae.weights.names import known_names, left_out
from tinymae.weights.pickles import write_pickle
from tinymae.weights.published import load_mae, load_published_encoder, load_vit
from tinymae.weights.read import list_weights, read_weights
from tinymae.weights.records import Unread
from tinymae.weights.safetensors import write_safetensors

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 3, "embed_dim": 8, "depth": 1, "num_heads": 2}
VIT = ViTConfig(**SIZES, num_classes=3)
MAE = MAEConfig(**SIZES, decoder_embed_dim=4, decoder_depth=1, decoder_num_heads=1)
BUFFER = {"center": np.ones(2, np.float32)}


def random_params(init, config):
    rng = np.random.default_rng(3)
    return tree.map(lambda leaf: (leaf + rng.normal(size=leaf.shape)).astype(np.float32), init(config, None))


def equal(ours, theirs):
    for (path, a), (other, b) in zip(tree.leaves(ours), tree.leaves(theirs), strict=True):
        assert path == other and a.dtype == b.dtype, path
        np.testing.assert_array_equal(a, b, err_msg=path)


def arrays(content):
    """Of nested dicts, in order."""
    for value in content.values():
        if isinstance(value, dict):
            yield from arrays(value)
        elif isinstance(value, np.ndarray):
            yield value


def save(path, content):
    """torch.save of nested dicts."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", write_pickle(content))
        for key, array in enumerate(arrays(content)):
            archive.writestr(f"archive/data/{key}", np.ascontiguousarray(array).tobytes())
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """{layout: (names and tensors, config.json, how to load)}."""
    folder = tmp_path_factory.mktemp("plain")
    vit, mae = random_params(vit_init, VIT), random_params(mae_init, MAE)
    export_vit(folder / "vit", VIT, vit)
    export_vit_mae(folder / "mae", MAE, mae)
    return {
        "official": (
            read_weights(export_mae(folder / "mae.pth", MAE, mae)).tensors, "{}",
            lambda path, key: load_mae(path, heads=2, decoder_heads=1, norm_pix_loss=False, key=key),
        ),
        "classifier": (
            read_weights(export_vit(folder / "vit.pth", VIT, vit)).tensors, "{}",
            lambda path, key: load_vit(path, heads=2, key=key),
        ),
        "Hugging Face": (
            read_weights(folder / "mae" / "model.safetensors").tensors, (folder / "mae" / "config.json").read_text("utf-8"),
            lambda path, key: load_mae(path, key=key),
        ),
        "Hugging Face encoder": (
            {name.removeprefix("vit."): it for name, it in read_weights(folder / "vit" / "model.safetensors").tensors.items()
             if name.startswith("vit.")},
            (folder / "vit" / "config.json").read_text("utf-8"), lambda path, key: load_published_encoder(path, key=key),
        ),
    }


@pytest.fixture
def vit_tensors(plain):
    return plain["classifier"][0]


WRAPPERS = ["module", "model", "encoder", "backbone", "decoder", "vit", "blocks", "head", "0"]
PART = st.sampled_from(WRAPPERS) | st.text("abz_9", min_size=1)


FIXED = {"deadline": None, "derandomize": True, "database": None}


@settings(max_examples=30, **FIXED, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_prefix_under_any_key(plain, tmp_path, data):
    """Also with others beside it: the loaded tree is that of the plain file, bit for bit."""
    tensors, config, load = plain[data.draw(st.sampled_from(list(plain)))]
    prefix = "".join(f"{part}." for part in data.draw(st.lists(PART, max_size=3)))
    keys = data.draw(st.lists(PART | st.text(min_size=1, max_size=3), max_size=3))
    content = {prefix + name: array for name, array in tensors.items()}
    if prefix and data.draw(st.booleans()):
        content["~projector.0.weight"] = np.ones((2, 3), np.float32)
    for key in reversed(keys):
        content = {key: content, "~optimizer": {"state": {0: BUFFER, 1: BUFFER}}, "~epoch": 3}
    key = None
    if keys and data.draw(st.booleans()):
        content["~ema"], key = {name: array + 1 for name, array in tensors.items()}, ".".join(keys)
    (tmp_path / "config.json").write_text(config, "utf-8")
    path = save(tmp_path / "wrapped.pth", content)
    expected, found = load(save(tmp_path / "plain.pth", tensors), None), load(path, key)
    assert found[0] == expected[0]
    equal(found[1], expected[1])
    if key:
        with pytest.raises(ValueError, match=r"tensors under several keys, .*'~ema'"):
            load(path, None)


# ---- several models, and what is not part of one ---------------------------------------------------------------------

def wrapped(tensors, prefix, add=0):
    return {prefix + name: array + np.float32(add) for name, array in tensors.items()}


@pytest.fixture
def both(vit_tensors, tmp_path):
    """A student and a teacher, as DINO writes them."""
    return save(tmp_path / "both.pth", {
        "student": wrapped(vit_tensors, "module.backbone."), "teacher": wrapped(vit_tensors, "backbone.", 1), "epoch": 9,
        "dino_loss": BUFFER,
    })


def test_several_models_are_asked_for(both, vit_tensors, capsys):
    message = r"under several keys, 'student', 'teacher': choose one with --key NAME \(in Python, key=\)"
    for read in (read_weights, list_weights, inspect, load_encoder):
        with pytest.raises(ValueError, match=rf"both\.pth: it has tensors {message}"):
            read(both)
    assert read_weights(both, key="teacher").meta == {
        "epoch": 9, "student": Unread(f"{len(vit_tensors)} tensors"), "dino_loss": Unread("1 tensor"),
    }
    for key, add in (("student", 0), ("student.module", 0), ("teacher", 1), ("teacher.backbone", 1)):
        _, params = load_vit(both, heads=2, key=key)
        np.testing.assert_array_equal(params["head"]["b"], vit_tensors["head.bias"] + add)
        assert "both.pth: not read: 'dino_loss' (1 tensor), " in capsys.readouterr().err
    for key in ("nobody", "", "teach", "teacher.backbone.norm.weight"):
        with pytest.raises(ValueError, match=rf"no tensors under the key '{key}': expected one of 'student', 'teacher'"):
            load_vit(both, heads=2, key=key)


def test_two_encoders_in_one_table(vit_tensors, tmp_path):
    """As MoCo v3 writes them: the keys are beginnings of names."""
    path = save(tmp_path / "moco.pth", {
        "state_dict": wrapped(vit_tensors, "module.base.") | wrapped(vit_tensors, "module.momentum.", 1), "epoch": 3,
    })
    with pytest.raises(ValueError, match=r"keys, 'state_dict\.module\.base', 'state_dict\.module\.momentum': choose"):
        load_vit(path, heads=2)
    with pytest.raises(ValueError, match=r"keys, 'state_dict\.module\.base', 'state_dict\.module\.momentum': choose"):
        inspect(path, key="state_dict")
    _, params = load_vit(path, heads=2, key="state_dict.module.momentum")
    np.testing.assert_array_equal(params["head"]["b"], vit_tensors["head.bias"] + 1)


def test_a_plain_model_is_the_model(vit_tensors, tmp_path, capsys):
    """What stands beside it under other names is listed, and can be chosen."""
    path = tmp_path / "plain.safetensors"
    write_safetensors(path, vit_tensors | wrapped(vit_tensors, "ema.", 1))
    np.testing.assert_array_equal(load_vit(path, heads=2)[1]["head"]["b"], vit_tensors["head.bias"])
    assert f"not read: 'ema' ({len(vit_tensors)} tensors)" in capsys.readouterr().err
    np.testing.assert_array_equal(load_vit(path, heads=2, key="ema")[1]["head"]["b"], vit_tensors["head.bias"] + 1)
    save(path := tmp_path / "plain.pth", {**vit_tensors, "ema": wrapped(vit_tensors, "", 1)})
    np.testing.assert_array_equal(load_vit(path, heads=2)[1]["head"]["b"], vit_tensors["head.bias"])
    assert f"not read: 'ema' ({len(vit_tensors)} tensors)" in capsys.readouterr().err


def test_a_plain_model_beside_many(vit_tensors, tmp_path):
    """Each name is compared with each prefix: a file with very many was made to take time."""
    path, one = tmp_path / "a.pth", {"patch_embed.proj.weight": np.ones((1, 1, 1, 1), np.float32)}
    save(path, vit_tensors | {f"m{i}.{name}": array for i in range(9) for name, array in one.items()})
    assert inspect(path).kind == "mae-vit"
    save(path, vit_tensors | {f"m{i}.{name}": array for i in range(10) for name, array in one.items()})
    with pytest.raises(ValueError, match="under several keys, '', 'm0', 'm1'"):
        inspect(path)


def test_tensors_outside_of_the_prefix_are_named(vit_tensors, tmp_path, capsys):
    names = wrapped(vit_tensors, "module.backbone.") | {
        "module.projector.0.weight": np.ones((2, 2), np.float32), "module.projector.0.bias": np.ones(2, np.float32),
        "module.temperature": np.ones((), np.float32), "n": np.ones(1, np.float32),
    }
    path = save(tmp_path / "a.pth", {"model": names})
    load_vit(path, heads=2)
    said = "'module.projector' (2 tensors), 'module.temperature' (1 tensor), 'n' (1 tensor)"
    assert capsys.readouterr().err == f"{path}: not read: {said}\n"
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"not part of it: {said}" in out and "module.projector.0.weight" in out
    with pytest.raises(ValueError, match=r"'module\.backbone\.more' \(2,\) does not belong to"):
        load_vit(save(path, names | {"module.backbone.more": np.ones(2, np.float32)}), heads=2)


def test_left_out():
    names = ["a.b.c", "a.b.d", "a.x", "y.z", "a"]
    assert left_out(names, "a.q.") == {"a": Unread("1 tensor"), "a.b": Unread("2 tensors"), "a.x": Unread("1 tensor"),
                                       "y": Unread("1 tensor")}
    assert left_out([], "") == {}


def test_names_of_a_tensor(plain):
    """Hugging Face's older and newer names of one tensor, both in a file."""
    names = list(plain["Hugging Face"][0])
    old = next(name for name in names if ".attention.attention.query.weight" in name)
    with pytest.raises(ValueError, match="are two names of one tensor"):
        known_names([*names, old.replace("attention.attention.query", "attention.q_proj")])


def test_a_pooler_is_not_read(plain, tmp_path, capsys):
    """The layer behind ViTModel: no model here has it."""
    tensors, config, load = plain["Hugging Face encoder"]
    (tmp_path / "config.json").write_text(config, "utf-8")
    more = {"pooler.dense.weight": np.ones((8, 8), np.float32), "embeddings.mask_token": np.ones((1, 1, 8), np.float32)}
    write_safetensors(tmp_path / "model.safetensors", tensors | more)
    load(tmp_path, None)
    assert "not read: 'pooler' (1 tensor)" in capsys.readouterr().err


def test_keys_of_tables(tmp_path):
    """Of models that are not known here, too: the table that is in no other, if it is the only one."""
    one, two = {"w": np.ones(2, np.float32)}, {"w": np.zeros(2, np.float32)}
    assert list(read_weights(save(tmp_path / "a.pth", {"net": {"a": one, "w": two["w"]}})).tensors) == ["w", "a.w"]
    path = save(tmp_path / "b.pth", {"one": one, "more": {"two": two}})
    assert read_weights(path).tensors["w"].all() and read_weights(path, key="one").tensors["w"].all()
    assert not read_weights(path, key="more.two").tensors["w"].any()
    with pytest.raises(ValueError, match="under several keys, 'one', 'two': choose one"):
        read_weights(save(path, {"one": one, "two": two}))
    with pytest.raises(ValueError, match=r"two of its tensors are called 'a\.b\.w': damaged"):
        read_weights(save(path, {"a": {"b.w": one["w"], "b": two}}), key="a")
    with pytest.raises(ValueError, match=r"two of its tables have the key 'a\.b': damaged"):
        read_weights(save(path, {"a.b": one, "a": {"b": two}}))


@pytest.mark.parametrize("name", ["epoch=3.ckpt", "a.pt", "a.pth.tar", "weights"])
def test_a_file_of_any_name_is_read(name, vit_tensors, tmp_path):
    path = save(tmp_path / name, {"state_dict": wrapped(vit_tensors, "model.")})
    assert load_encoder(path, heads=2).config == VIT


def test_a_key_of_our_own_models(tmp_path):
    with pytest.raises(ValueError, match="holds one model of ours, got the key 'teacher': leave it out"):
        load_encoder(tmp_path, key="teacher")


def test_keys_on_the_command_line(both, tmp_path, capsys):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8), np.arange(30) % 3
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    data, out = str(tmp_path / "data.npz"), str(tmp_path / "out")
    assert main(["inspect", str(both)]) == 1 and "choose one with --key NAME" in capsys.readouterr().err
    assert main(["inspect", str(both), "--key", "teacher"]) == 0 and "a classifier" in capsys.readouterr().out
    assert main(["probe", "--model", str(both), "--heads", "2", "--key", "student", "--data", data]) == 0
    train = ["train", "vit", "--data", data, "--steps", "1", "--out", out, "--threads", "1"]
    assert main([*train, "--from", str(both), "--key", "teacher", "--heads", "2", "--patch-size", "4"]) == 0
    assert main([*train, "--key", "teacher"]) == 1
    assert "got the key 'teacher' of published weights and none to start from" in capsys.readouterr().err
    assert main(["reconstruct", "x.png", "--model", out, "--key", "teacher"]) == 1
    assert "got --key, for published weights alone (--weights)" in capsys.readouterr().err
    assert main(["reconstruct", "x.png", "--weights", str(both), "--key", "teacher"]) == 1
    assert "expected a masked autoencoder with its decoder, got a classifier" in capsys.readouterr().err
    assert main(["export", "--model", str(both), "--to", "vit", str(tmp_path / "x.pth")]) == 1
    assert "both.pth: a published model: expected the folder of a model trained here" in capsys.readouterr().err


# ---- linear probes ---------------------------------------------------------------------------------------------------

def probe_head(vit_tensors, **changed):
    rng = np.random.default_rng(4)
    head = {
        "0.running_mean": rng.normal(size=8), "0.running_var": rng.uniform(0, 2, size=8), "1.weight": rng.normal(size=(3, 8)),
        "1.bias": rng.normal(size=3), "0.num_batches_tracked": np.array(5),
    } | changed
    plain = {name: array for name, array in vit_tensors.items() if not name.startswith("head.")}
    return plain | {f"head.{name}": array for name, array in head.items() if array is not None}


def test_linear_probe(vit_tensors, tmp_path):
    """The official code's head: BatchNorm1d(affine=False, eps=1e-6), then a linear layer, of the class token."""
    tensors = probe_head(vit_tensors)
    path = save(tmp_path / "probe.pth", {"model": tensors})
    images = np.random.default_rng(5).normal(size=(4, 8, 8, 3))
    config, params = load_vit(path, heads=2, dtype=np.float64)
    encoder_config, encoder = load_published_encoder(path, heads=2, dtype=np.float64)
    assert config == encoder_config == VIT and inspect(path).kind == "mae-vit"
    token = features(images, encoder, encoder_config)[:, :8]
    normal = (token - tensors["head.0.running_mean"]) / np.sqrt(tensors["head.0.running_var"] + 1e-6)
    expected = normal @ tensors["head.1.weight"].T + tensors["head.1.bias"]
    np.testing.assert_allclose(vit_logits(images, params, config), expected, rtol=1e-10)


@pytest.mark.parametrize("changed", [
    {"0.running_mean": None}, {"0.running_var": np.full(8, -1.0)}, {"0.running_var": np.ones(7)}, {"1.bias": None},
    {"1.bias": np.full(3, np.nan)}, {"2.weight": np.ones(2)},
])
def test_heads_that_are_not_a_linear_probe(changed, vit_tensors, tmp_path):
    path = save(tmp_path / "probe.pth", {"model": probe_head(vit_tensors, **changed)})
    with pytest.raises(ValueError, match=r"probe\.pth: .*'head\.\d\.\w*' .*(in the head of a linear probe|does not belong)"):
        load_vit(path, heads=2)
    load_published_encoder(path, heads=2)


# ---- several files ---------------------------------------------------------------------------------------------------

@pytest.fixture(params=["model.safetensors", "pytorch_model.bin"])
def shards(request, plain, tmp_path):
    """(folder, index, rewrite): a Hugging Face folder in three files, and a function that writes its weight_map anew."""
    tensors, config, _ = plain["Hugging Face"]
    stem, _, suffix = request.param.partition(".")
    (tmp_path / "config.json").write_text(config, "utf-8")
    files = {f"{stem}-{i}.{suffix}": dict(list(tensors.items())[i::3]) for i in range(3)}
    for file, part in files.items():
        write_safetensors(tmp_path / file, part) if suffix == "safetensors" else save(tmp_path / file, part)
    index, places = tmp_path / f"{request.param}.index.json", {name: file for file, part in files.items() for name in part}

    def rewrite(**changed):
        entries = {name: file for name, file in (places | changed).items() if file is not None}
        index.write_text(json.dumps({"metadata": {}, "weight_map": entries}), "utf-8")
    rewrite()
    return tmp_path, index, rewrite


def test_several_files(shards, plain, tmp_path_factory):
    folder, index, _ = shards
    whole = tmp_path_factory.mktemp("whole")
    tensors, config, load = plain["Hugging Face"]
    (whole / "config.json").write_text(config, "utf-8")
    write_safetensors(whole / "model.safetensors", tensors)
    expected = load(whole, None)
    for path in (folder, index):
        found = load(path, None)
        assert found[0] == expected[0]
        equal(found[1], expected[1])
    assert {name: (shape, dtype) for name, shape, dtype in inspect(folder).tensors} == {
        name: (array.shape, "float32") for name, array in tensors.items()
    }
    assert load_encoder(folder).config == load_encoder(whole).config == load_encoder(index).config


def test_bad_indexes(shards):
    folder, index, rewrite = shards
    file = next(file.name for file in folder.iterdir() if file.name != index.name and "-0." in file.name)
    for place in ("../a", "/etc/passwd", "a/b", r"a\b", "C:a", "", "..", "."):
        rewrite(more=place)
        with pytest.raises(ValueError, match=r"index\.json: lists .*: expected the name of a file in the same folder"):
            inspect(folder)
    for change, match in (
        ({"more": file}, "has not a tensor that its index lists there, 'more'"),
        ({"vit.layernorm.bias": None}, "has a tensor that its index does not list there, 'vit.layernorm.bias'"),
        ({"vit.layernorm.bias": "none"}, "lists 'none', which is not in the folder: download all of its files"),
        ({"vit.layernorm.bias": 3}, "expected a weight_map in it"),
    ):
        rewrite(**change)
        with pytest.raises((ValueError, FileNotFoundError), match=match):
            inspect(folder)
    for text, match in (
        ("[]", "expected a weight_map in it"), ('{"weight_map": {}}', "expected a weight_map in it"),
        ("{", "expected an index of"), ('{"weight_map": {"a": "b", "a": "c"}}', "a name occurs twice"),
        ("[" * 100_000, "expected an index of weights"),
        ("version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"), (" " * (5 << 20), "bytes of an index, got"),
    ):
        index.write_text(text, "utf-8")
        with pytest.raises(ValueError, match=rf"index\.json: .*{match}"):
            inspect(folder)


# ---- what is not weights ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("content, match", [
    ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a Git LFS pointer, not the data itself: run git"),
    ("<!DOCTYPE html>\n<html>", "a web page, not the data itself"), ("\ufeff\n <HTML lang='en'>", "a web page"),
    ('<?xml version="1.0"?><Error>', "a web page"), ('{"error": "not found"}', "a message of a server, .*not found"),
    ("", "empty, or cut short: it has 0 bytes"),
])
def test_what_was_never_downloaded(content, match, tmp_path):
    path = tmp_path / "a.pth"
    path.write_text(content, "utf-8")
    for read in (read_weights, inspect, load_encoder):
        with pytest.raises(ValueError, match=rf"a\.pth: .*{match}"):
            read(path)


def test_a_config_that_was_never_downloaded(tmp_path):
    (tmp_path / "config.json").write_text("version https://git-lfs.github.com/spec/v1\noid", "utf-8")
    write_safetensors(tmp_path / "model.safetensors", BUFFER)
    with pytest.raises(ValueError, match=r"config\.json is not JSON: a Git LFS pointer"):
        inspect(tmp_path)


# ---- what a file is --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("more, parts", [
    ({"mask_token": 8, "blocks.0.ls1.gamma": 8}, ["LayerScale"]),
    ({"mask_token": 8, "blocks.0.ls1.gamma": 8, "register_tokens": 8, "blocks.0.mlp.w12.weight": 8},
     ["LayerScale", "register tokens", "SwiGLU"]),
    ({"dist_token": 8}, ["a distillation token"]),
    ({"blocks.0.attn.q_bias": 8, "blocks.0.attn.relative_position_bias_table": 8, "blocks.0.gamma_1": 8,
      "blocks.0.attn.qkv.bias": 0},
     ["LayerScale", "relative positions", "a bias of queries and values"]),
    ({"blocks.0.attn.qkv.bias": 0}, ["without bias"]), ({"blocks.0.attn.q_norm.weight": 4}, ["normalised queries and keys"]),
    ({"norm_pre.weight": 8}, ["in front of the blocks"]), ({"mask_token": 8}, []), ({}, []),
])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_parts_that_are_not_supported(more, parts, prefix, vit_tensors, tmp_path, monkeypatch):
    """DINOv2, DeiT, BEiT and others have names of their own; a mask token alone is no decoder."""
    tensors = {name: array for name, array in vit_tensors.items() if not name.startswith("head.") and more.get(name) != 0}
    tensors |= {name: np.ones(size, np.float32) for name, size in more.items() if size}
    path = save(tmp_path / "a.pth", wrapped(tensors, prefix))
    found = inspect(path)
    assert found.what.startswith("an encoder") and found.licence == "" and found.kind == "mae-encoder"
    assert all(part in found.what for part in parts) and ("not supported here" in found.what) == bool(parts)
    if parts:
        assert found.can == "nothing"
        monkeypatch.setenv("LANGUAGE", "zh_CN")
        assert inspect(path).can == "没有" and "supported" not in inspect(path).what
        monkeypatch.setenv("LANGUAGE", "en")
        with pytest.raises(ValueError, match=f"expected a plain Vision Transformer, got an encoder.*{parts[0]}"):
            load_published_encoder(path, heads=2)
    else:
        load_published_encoder(path, heads=2)


@pytest.mark.parametrize("names, what", [
    (["visual.conv1.weight", "visual.transformer.x"], "CLIP"),
    (["model.vision_model.embeddings.patch_embedding.weight"], "CLIP or"),
    (["patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight"], "another architecture"),
    (["layer1.0.conv1.weight"], "a ResNet"), (["x"], "no model that is known here"),
])
def test_other_models_are_named(names, what, tmp_path):
    path = save(tmp_path / "a.pth", dict.fromkeys(names, np.ones((2, 2, 2, 2), np.float32)))
    assert what in inspect(path).what and inspect(path).kind == ""
    with pytest.raises(ValueError, match=f"expected an image encoder, got .*{what}"):
        load_published_encoder(path)


def test_the_licence_is_said_where_the_file_says_whose_it_is(plain, vit_tensors, tmp_path):
    mae = plain["official"][0]
    encoder = {name: array for name, array in vit_tensors.items() if not name.startswith("head.")}
    for content, name, said in (
        (mae, "a.pth", LICENCE), (encoder, "a.pth", ""), (vit_tensors, "a.pth", ""),
        (encoder, "mae_pretrain_vit_base.pth", LICENCE),
        (vit_tensors, "mae_finetuned_vit_base.pth", LICENCE), (vit_tensors, "my_mae_finetuned_vit.pth", ""),
        ({"model": encoder, "args": {"mask_ratio": 0.75, "norm_pix_loss": True}}, "a.pth", LICENCE),
        ({"model": encoder, "args": {"lr": 0.75}}, "a.pth", ""), ({"model": mae, "config": {"eps": 1e-6}}, "a.pth", ""),
    ):
        assert inspect(save(tmp_path / name, content)).licence == said


def test_names_cannot_colour_the_terminal(vit_tensors, tmp_path, capsys):
    """An escape sequence in a name, in a file's name, in a key or in an error is shown, not obeyed."""
    red = "\x1b[31mred\x1b[2J"
    path = save(tmp_path / "a.pth", {"model": vit_tensors | {red: np.ones(2, np.float32)}, red: {red: BUFFER["center"]}})
    for command in (
        ["inspect", str(path)], ["inspect", str(path), "--key", red], ["inspect", str(tmp_path / red)],
        ["probe", "--model", str(path), "--heads", "2", "--data", "digits"],
    ):
        main(command)
        out = "".join(capsys.readouterr())
        assert "\x1b" not in out and r"\x1b[31mred\x1b[2J" in out


@pytest.mark.parametrize("name, load", [
    ("a.png", load_picture), ("a.npz", load_images), ("a-idx3-ubyte", load_images),
    ("a.tsv", lambda path: list(read_lines(path))), ("mae.npz", load_encoder), ("a.safetensors", read_weights),
])
def test_data_that_was_never_downloaded(name, load, tmp_path):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "utf-8")
    with pytest.raises(ValueError, match=rf"{name}.*: .*a Git LFS pointer, not the data itself: run git lfs pull"):
        load(tmp_path / name)
