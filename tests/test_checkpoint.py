"""Checkpoints: what is saved comes back to the last bit, and a file that is not whole or not ours says so by its name."""
import gc
import json
import os
import signal
import tracemalloc
import warnings
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from tinymae import packed, tree
from tinymae.models.mae import MAEConfig, mae_decays, mae_init
from tinymae.models.transformer import TransformerConfig, transformer_init
from tinymae.models.vit import ViTConfig, vit_init
from tinymae.tasks.restore import mae_gradient
from tinymae.train import checkpoint
from tinymae.train.loop import Run, cosine, resumed, train
from tinymae.train.optim import AdamW
from tinymae.train.parallel import Workers

CONFIG = MAEConfig(
    img_size=4, patch_size=2, in_chans=1, embed_dim=4, depth=1, num_heads=1, decoder_embed_dim=4, decoder_depth=1,
    decoder_num_heads=2, mlp_ratio=1.0, mask_ratio=0.3,
)


def trained_optimizer(params):
    """An optimiser with moments in which no two numbers are the same."""
    optimizer = AdamW(params, betas=(0.9, 0.95), weight_decay=0.05, decays=mae_decays(params))
    rng = np.random.default_rng(8)
    for _ in range(3):
        optimizer.step(params, tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), params), 1e-2)
    return optimizer


def write(path, dtype=np.float32, rng=None, extra=None):
    """A checkpoint with everything in it; returns (params, optimizer)."""
    params = mae_init(CONFIG, np.random.default_rng(0), dtype)
    optimizer = trained_optimizer(params)
    rng = rng or np.random.default_rng(1)
    checkpoint.save(path, "mae", CONFIG, params, step=7, optimizer=optimizer, rng=rng, extra=extra)
    return params, optimizer


def load(path):
    return checkpoint.load(path, "mae", MAEConfig, mae_init)


def assert_equal(a, b):
    for (path, x), (same, y) in zip(tree.leaves(a), tree.leaves(b), strict=True):
        assert path == same and x.dtype == y.dtype, path
        np.testing.assert_array_equal(x, y, err_msg=path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mae.npz"


def rewritten(path, **changed):
    """The file with some arrays replaced, added, or with None removed."""
    with np.load(path) as file:
        arrays = dict(file) | changed
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def meta_rewritten(path, **changed):
    with np.load(path) as file:
        meta = json.loads(str(file["meta"])) | changed
    rewritten(path, meta=np.array(json.dumps({key: value for key, value in meta.items() if value != "GONE"})))


# What is saved comes back


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(path, dtype):
    extra = {"losses": [0.1, 1 / 3, 1e-300], "evaluations": [[1, 2.5]], "data": "日本 \" \\", "crops": True, "none": None}
    params, optimizer = write(path, dtype, extra=extra)
    saved = load(path)
    assert saved.config == CONFIG and isinstance(saved.config, MAEConfig)
    assert saved.step == 7 and saved.extra == extra
    assert saved.moments["t"] == optimizer.t == 3
    assert_equal(saved.params, params)
    assert_equal(saved.moments["m"], optimizer.m)
    assert_equal(saved.moments["v"], optimizer.v)
    assert all(leaf.dtype == dtype and leaf.flags.writeable for _, leaf in tree.leaves(saved.params))


def test_round_trip_of_odd_numbers(path):
    """Minus zero and the smallest number are bits like all others; a loss may be what it was."""
    params = mae_init(CONFIG, None)
    odd = np.array([-0.0, 1e-45, -1e-45, 3e38], np.float32)
    params["encoder"]["norm"]["beta"][:] = odd
    checkpoint.save(path, "mae", CONFIG, params, extra={"losses": [float("nan"), float("inf")]})
    saved = load(path)
    assert saved.params["encoder"]["norm"]["beta"].tobytes() == odd.tobytes()
    assert np.isnan(saved.extra["losses"][0]) and saved.extra["losses"][1] == float("inf")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["params", "m", "v"])
def test_numbers_that_are_not_finite_are_neither_written_nor_read(path, part, bad):
    params, optimizer = write(path)
    before = path.read_bytes()
    {"params": params, "m": optimizer.m, "v": optimizer.v}[part]["encoder"]["norm"]["beta"][1:3] = bad
    message = rf"2 of the 4 numbers of {part}\.encoder\.norm\.beta are not finite"
    with pytest.raises(FloatingPointError, match=rf"mae\.npz: not written, because {message}"):
        checkpoint.save(path, "mae", CONFIG, params, optimizer=optimizer)
    assert path.read_bytes() == before
    name = f"{part}.encoder.norm.beta"
    rewritten(path, **{name: np.array([0, bad, bad, 1], np.float32)})
    assert_refused(path, f"{message}: its training diverged")


def test_a_model_alone(path):
    params = mae_init(CONFIG, np.random.default_rng(0))
    assert checkpoint.save(str(path), "mae", CONFIG, params) == path
    saved = load(str(path))
    assert_equal(saved.params, params)
    assert saved.step == 0 and saved.moments is None and saved.rng is None and saved.extra == {}


@pytest.mark.parametrize("make", [
    lambda: np.random.default_rng(5),
    lambda: np.random.default_rng(2**127 + 1),
    lambda: np.random.default_rng([1, 2, 3]),
    lambda: np.random.default_rng(),
    lambda: np.random.default_rng(5).spawn(3)[2].spawn(2)[1],
])
def test_the_rng_goes_on_where_it_was(path, make):
    rng = make()
    rng.random(5)
    rng.integers(10, dtype=np.uint32)                           # half of a 64-bit draw is kept for the next
    rng.spawn(2)
    write(path, rng=rng)
    resumed = load(path).rng
    np.testing.assert_array_equal(resumed.integers(1000, size=3, dtype=np.uint32), rng.integers(1000, size=3, dtype=np.uint32))
    np.testing.assert_array_equal(resumed.normal(size=7), rng.normal(size=7))
    for ours, theirs in zip(resumed.spawn(3), rng.spawn(3), strict=True):
        np.testing.assert_array_equal(ours.random(4), theirs.random(4))
        np.testing.assert_array_equal(ours.spawn(1)[0].random(4), theirs.spawn(1)[0].random(4))
    assert resumed.random() == rng.random()


def test_saving_draws_nothing(path):
    rng, same = np.random.default_rng(5), np.random.default_rng(5)
    write(path, rng=rng)
    assert rng.random() == same.random() and rng.spawn(1)[0].random() == same.spawn(1)[0].random()


def test_restore_optimizer(path):
    _, optimizer = write(path)
    saved = load(path)
    other = AdamW(saved.params)
    checkpoint.restore_optimizer(other, saved.moments)
    assert other.t == 3
    assert_equal(other.m, optimizer.m)
    assert_equal(other.v, optimizer.v)


def test_no_pickle_inside(path):
    write(path)
    with np.load(path, allow_pickle=False) as file:
        assert all(not file[name].dtype.hasobject for name in file.files)


def test_a_folder_is_made_and_a_file_replaced(tmp_path):
    path = tmp_path / "a" / "b" / "mae.npz"
    write(path)
    checkpoint.save(path, "mae", CONFIG, mae_init(CONFIG, None), step=9)
    assert load(path).step == 9
    assert [file.name for file in path.parent.iterdir()] == ["mae.npz"]


def test_others_may_read_it(path):
    """As every file that a program writes; a temporary file is for its owner alone."""
    write(path)
    (path.parent / "plain").write_text("")
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode


# A run that stops and goes on


def sample(rng, count):
    return rng.normal(size=(count, 4, 4, 1)).astype(np.float32)


def fresh_run():
    rng = np.random.default_rng(3)
    params = mae_init(CONFIG, rng)
    return Run(params, AdamW(params, betas=(0.9, 0.95), weight_decay=0.05, decays=mae_decays(params)), rng)


def test_interrupted_and_resumed_is_never_interrupted(path):
    def save(run):
        extra = {"losses": run.losses}
        checkpoint.save(path, "mae", CONFIG, run.params, step=run.step, optimizer=run.optimizer, rng=run.rng, extra=extra)

    with Workers(2) as workers:
        gradient = mae_gradient(CONFIG, sample, 7, 3, workers)
        straight = train(fresh_run(), gradient, cosine(1e-2), batch=7, steps=10, bar=False)
        calls = []

        def interrupted_in_the_fourth(params, rng):
            calls.append(None)
            if len(calls) == 4:
                signal.raise_signal(signal.SIGINT)
            return gradient(params, rng)

        first = train(fresh_run(), interrupted_in_the_fourth, cosine(1e-2), batch=7, steps=10, save=save, bar=False)
        assert first.interrupted and first.step == 4
        saved = load(path)
        run = fresh_run()                                       # nothing of the first run but its file
        run = Run(saved.params, AdamW(saved.params, betas=run.optimizer.betas, weight_decay=0.05, decays=run.optimizer.decays),
                  saved.rng, saved.step, losses=saved.extra["losses"])
        checkpoint.restore_optimizer(run.optimizer, saved.moments)
        train(run, gradient, cosine(1e-2), batch=7, steps=10, bar=False)
    assert run.step == straight.step == run.optimizer.t == 10
    assert run.losses == straight.losses
    assert_equal(run.params, straight.params)
    assert_equal(run.optimizer.m, straight.optimizer.m)
    assert_equal(run.optimizer.v, straight.optimizer.v)
    assert run.rng.random() == straight.rng.random()


# Whatever happens, a whole file


class Halfway(Exception):
    pass


@pytest.mark.parametrize("error", [Halfway, KeyboardInterrupt, OSError])
def test_a_write_that_fails_halfway_leaves_the_old_file(path, monkeypatch, error):
    write(path)
    before = path.read_bytes()

    def savez(file, **arrays):
        file.write(before[: len(before) // 2])
        raise error("disk full")

    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(error, match="disk full"):
        write(path)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ["mae.npz"]


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_a_move_that_fails_leaves_the_old_file(path, monkeypatch, name):
    write(path)
    before = path.read_bytes()

    def fails(*arguments):
        raise OSError("no")

    monkeypatch.setattr(os, name, fails)
    with pytest.raises(OSError, match="no"):
        write(path)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ["mae.npz"]


def test_the_file_is_whole_before_it_is_moved(path, monkeypatch):
    moved = []
    replace = os.replace

    def watched(source, target):
        assert Path(source).parent == path.parent and not path.exists()
        assert Path(target) == path
        with zipfile.ZipFile(source) as file:
            assert file.testzip() is None
        moved.append(source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    write(path)
    assert len(moved) == 1 and load(path).step == 7


def test_an_extra_that_json_cannot_write_leaves_nothing(path):
    with pytest.raises(TypeError):
        write(path, extra={"array": np.ones(2)})
    assert list(path.parent.iterdir()) == []


def test_a_generator_that_cannot_be_restored_leaves_nothing(path):
    with pytest.raises(ValueError, match="PCG64 generator, got MT19937"):
        write(path, rng=np.random.Generator(np.random.MT19937(0)))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["mae", "mae.npy", "mae.npz.bak"])
def test_a_path_with_another_ending(tmp_path, name):
    with pytest.raises(ValueError, match=f"path ending in .npz, got .*{name}"):
        write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write(tmp_path / "file" / "mae.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(OSError, match=r"folder\.npz"):
        write(tmp_path / "folder.npz")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.npz"]


# Files that are not whole, or not ours


def assert_refused(path, reason):
    """Whatever is wrong with it, the error is a ValueError that names the file and the reason."""
    with pytest.raises(ValueError, match=reason) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_no_such_file(path, make):
    make(path)
    with pytest.raises(FileNotFoundError, match=r"mae\.npz: no such checkpoint"):
        load(path)


@pytest.mark.parametrize("share", [0.0, 1e-3, 0.1, 0.5, 0.9, 0.99, "all but one"])
def test_cut_short(path, share):
    write(path)
    data = path.read_bytes()
    path.write_bytes(data[: -1 if share == "all but one" else int(share * len(data))])
    assert_refused(path, "damaged, or no .npz file")


@pytest.mark.parametrize("name", ["meta", "params.encoder.patch_embed.w", "m.decoder.norm.gamma", "v.decoder.pred.b"])
def test_a_flipped_bit_in_an_array(path, name):
    write(path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        info = file.getinfo(f"{name}.npy")
    start = data.index(f"{name}.npy".encode(), info.header_offset) + len(f"{name}.npy")
    for at in (start + info.file_size - 1, start + info.file_size // 2 + 60):
        damaged = bytearray(data)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        assert_refused(path, "damaged, or no .npz file")


def test_a_flipped_bit_anywhere(path):
    """Refused, or in one of the bytes that carry nothing (dates, padding): never another model, never another error."""
    params, optimizer = write(path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        directory = file.start_dir
    rng = np.random.default_rng(0)
    end = len(data) - 22                                        # where the last record of the archive starts
    places = [*rng.integers(len(data), size=200), *rng.integers(directory, end, size=100), *range(end, len(data))]
    refused = 0
    for at in places:
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            saved = load(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert_equal(saved.params, params)
            assert_equal(saved.moments["m"], optimizer.m)
            assert saved.config == CONFIG and saved.step == 7
    assert refused > 150


def test_a_file_that_asks_for_a_password(path):
    """One flipped bit in the directory of the archive says 'encrypted'."""
    write(path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        data[file.start_dir + 8] ^= 1
    path.write_bytes(data)
    assert_refused(path, "damaged")


def test_a_damaged_compressed_file(path):
    """Not written by us, but np.savez_compressed is what people know."""
    write(path)
    with np.load(path) as file:
        np.savez_compressed(path, **dict(file))
    assert load(path).step == 7
    data = bytearray(path.read_bytes())
    for at in (50, 60, 70, 80):
        data[at] ^= 255
    path.write_bytes(data)
    assert_refused(path, "damaged")


def test_other_kinds_of_file(path):
    for content in (b"", b"hello, I am a text\n", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(1000)):
        path.write_bytes(content)
        assert_refused(path, "damaged, or no .npz file")
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert_refused(path, "npz")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    assert_refused(path, "no tinymae checkpoint")


@pytest.mark.parametrize("arrays", [
    {"images": np.zeros((2, 8, 8), np.uint8)}, {}, {"meta": np.zeros(3)}, {"meta": np.array("{")}, {"meta": np.array("[1]")},
    {"meta": np.array('"format"')}, {"meta": np.array("{}")}, {"meta": np.array("null")},
])
def test_a_foreign_npz(path, arrays):
    np.savez(path, **arrays)
    assert_refused(path, "no tinymae checkpoint")


def test_another_model_and_another_format(path):
    write(path)
    with pytest.raises(ValueError, match=r"mae\.npz: expected a 'transformer' model, got 'mae'"):
        checkpoint.load(path, "transformer", MAEConfig, mae_init)
    meta_rewritten(path, format="tinymae checkpoint 99")
    assert_refused(path, "expected the format 'tinymae checkpoint 3' or 'tinymae checkpoint 2', got 'tinymae checkpoint 99'")


@pytest.mark.parametrize("changed", [
    {"model": "GONE"}, {"config": "GONE"}, {"step": "GONE"}, {"extra": "GONE"}, {"config": [1]}, {"config": {"size": 4}},
    {"config": {"img_size": 5, "patch_size": 2}}, {"config": {"img_size": "4"}}, {"config": None}, {"t": "GONE"},
    {"rng": {}}, {"rng": {"state": {}, "seeds": {}}}, {"rng": None},
])
def test_meta_that_is_not_whole(path, changed):
    write(path)
    meta_rewritten(path, **changed)
    assert_refused(path, r"mae\.npz: ")


@pytest.mark.parametrize(("changed", "reason"), [
    ({"params.encoder.cls_token": None}, r"1 of 36 leaves are missing, the first is 'encoder\.cls_token'"),
    ({"m.encoder.cls_token": None}, "1 of 36 leaves are missing"),
    ({"v.decoder.blocks.0.attn.qkv.b": None}, r"the first is 'decoder\.blocks\.0\.attn\.qkv\.b'"),
    ({"params.encoder.extra": np.zeros(2, np.float32)}, r"1 leaves have no place in the tree, the first is 'encoder\.extra'"),
    ({"other": np.zeros(2)}, "holds 1 arrays that the model does not have, the first is 'other'"),
    ({"params.encoder.cls_token": np.zeros((1, 4), np.float32)},
     r"expected params\.encoder\.cls_token \(1, 1, 4\) of floats, got \(1, 4\) of float32"),
    ({"m.encoder.cls_token": np.zeros((1, 1, 5), np.float32)}, r"expected m\.encoder\.cls_token \(1, 1, 4\)"),
    ({"params.encoder.cls_token": np.zeros((1, 1, 4), int)}, "of floats, got .* of int64"),
    ({"v.encoder.cls_token": np.zeros((1, 1, 4), np.float16)}, "of floats, got .* of float16"),
    ({"params.encoder.cls_token": np.zeros((1, 1, 4), complex)}, "of floats, got .* of complex128"),
    ({"params.encoder.cls_token": np.full((1, 1, 4), "x")}, "of floats, got .* of <U1"),
    ({"params.encoder.cls_token": np.full((1, 1, 4), None)}, "damaged, or no .npz file .*Object arrays"),
    ({"meta": np.array({"format": 1}, dtype=object)}, "damaged, or no .npz file .*Object arrays"),
])
def test_arrays_that_do_not_fit(path, changed, reason):
    write(path)
    rewritten(path, **changed)
    assert_refused(path, reason)


def test_a_config_of_another_size(path):
    """Each part is whole, but they do not belong together."""
    write(path)
    with np.load(path) as file:
        config = json.loads(str(file["meta"]))["config"]
    meta_rewritten(path, config=config | {"embed_dim": 8})
    assert_refused(path, r"does not fit its own config: expected params\.encoder\.patch_embed\.w \(4, 8\) .* got \(4, 4\)")
    meta_rewritten(path, config=config | {"depth": 2})
    assert_refused(path, "does not fit its own config: 12 of 48 leaves are missing")


def test_loading_leaves_the_file_closed(path):
    """On Windows nobody could replace or delete an open file."""
    write(path)
    data = path.read_bytes()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        load(path)
        for content in (data[:1000], b"PK\x03\x04", b""):
            path.write_bytes(content)
            assert_refused(path, "damaged, or no .npz file")
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


# Files that claim more than they have


def claiming(path, model, config, init, **changed):
    """A whole checkpoint whose config says something else."""
    checkpoint.save(path, model, config, init(config, None))
    meta_rewritten(path, config=vars(config) | changed)


MODELS = {
    "mae": (CONFIG, mae_init),
    "vit": (ViTConfig(img_size=4, patch_size=2, in_chans=1, num_classes=3, embed_dim=4, depth=1, num_heads=1), vit_init),
    "transformer": (
        TransformerConfig(src_vocab=5, tgt_vocab=5, d_model=4, encoder_layers=1, decoder_layers=1, heads=1, d_ff=8),
        transformer_init,
    ),
}


def refused_in_little_memory(path, model, match):
    config, init = MODELS[model]
    tracemalloc.start()
    with pytest.raises(ValueError, match=match) as error:
        checkpoint.load(path, model, type(config), init)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6 and str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("model, name", [
    (model, field.name) for model, (config, _) in MODELS.items() for field in fields(config)
    if field.name.endswith(("size", "dim", "depth", "layers", "vocab", "classes", "d_model", "d_ff", "mlp_ratio"))
])
def test_a_config_that_claims_another_size(path, model, name):
    """Every size of every model, in every form: refused before a tree of this size is made."""
    for size in (10**5, 10**9, 10**400, -1, "many", float("inf"), 2.5):
        claiming(path, model, *MODELS[model], **{name: size})
        with pytest.raises(ValueError, match=r"mae\.npz: does not fit its own config"):
            checkpoint.load(path, model, type(MODELS[model][0]), MODELS[model][1])


@pytest.mark.parametrize("model, changed, match", [
    ("mae", {"depth": 60_000}, "depth is 60000, and the file has .* arrays: fewer than layers"),
    ("transformer", {"decoder_layers": 10**9}, "decoder_layers is above 65536, in a file of"),
    ("mae", {"embed_dim": 60_000}, "it asks for .* parameters, and the file has .* numbers"),
    ("vit", {"depth": 15, "embed_dim": 4000}, "it asks for .* parameters"),
    ("transformer", {"position_encoding": "learned", "max_len": 60_000, "d_model": 400}, "it asks for .* parameters"),
    ("transformer", {"encoder_layers": 40, "decoder_layers": 40, "d_model": 1000}, "it asks for .* parameters"),
    ("mae", {"img_size": 60_000}, "num_patches is above 65536"),
])
def test_sizes_are_compared_with_the_file(path, model, changed, match):
    claiming(path, model, *MODELS[model], **changed)
    refused_in_little_memory(path, model, match)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_any_number_of_layers_is_read(path, model, layers):
    config, init = MODELS[model]
    names = [field.name for field in fields(config) if field.name.endswith(("depth", "layers"))]
    if not layers:
        names = [name for name in names if name == "encoder_layers"]            # the only stack that may be empty
    config = replace(config, **dict.fromkeys(names, layers))
    checkpoint.save(path, model, config, init(config, None))
    assert checkpoint.load(path, model, type(config), init).config == config


def test_an_archive_of_zeros(path, monkeypatch):
    """A megabyte of zeros packs into a kilobyte."""
    write(path)
    with np.load(path) as file:
        np.savez_compressed(path, **dict(file), zeros=np.zeros(1 << 19))
    assert_refused(path, "arrays that the model does not have, the first is 'zeros'")       # 4 MB: small files may
    monkeypatch.setattr(packed, "ALWAYS_ALLOWED", 1 << 20)
    refused_in_little_memory(path, "mae", "it unpacks to .* bytes, expected at most .*, 32 times its size.*np.savez")


@pytest.mark.parametrize("header, match", [
    ({"descr": "<f4", "fortran_order": False, "shape": (10**12,)}, r"claims \(1000000000000,\) of float32, 4000000000000 by"),
    ({"descr": "<f4", "fortran_order": False, "shape": (10**6,)}, "4000000 bytes, and has"),
    ({"descr": "<U100000000", "fortran_order": False, "shape": ()}, "400000000 bytes, and has"),
    ({"descr": "|V0", "fortran_order": False, "shape": (10**18,)}, "leaves have no place in the tree, the first is 'more'"),
])
def test_an_array_that_claims_more_than_it_has(path, header, match):
    write(path)
    with zipfile.ZipFile(path, "a") as archive, archive.open("params.more.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(100))
    refused_in_little_memory(path, "mae", match)


def test_an_array_of_no_bytes_is_no_place_for_parameters(path):
    claiming(path, "mae", *MODELS["mae"], embed_dim=60_000)
    with zipfile.ZipFile(path, "a") as archive, archive.open("params.more.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|V0", "fortran_order": False, "shape": (10**18,)})
    refused_in_little_memory(path, "mae", "it asks for .* parameters")


@pytest.mark.parametrize("way", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_packed_in_another_way(path, way):
    with zipfile.ZipFile(path, "w", way) as archive:
        archive.writestr("meta.npy", bytes(1000))
    assert_refused(path, "'meta.npy' in it is packed in a way that np.savez_compressed does not have")


def test_meta_that_claims_time(path):
    write(path)
    with np.load(path) as file:
        rng = json.loads(str(file["meta"]))["rng"]
    meta_rewritten(path, rng=rng | {"seeds": rng["seeds"] | {"pool_size": 10**9}})
    refused_in_little_memory(path, "mae", "expected a pool_size from 1 to 1024")
    rewritten(path, meta=np.array("[" * 100_000))
    refused_in_little_memory(path, "mae", "no tinymae checkpoint")


@pytest.mark.parametrize("changed, match", [
    ({"step": -5}, "expected an integer from 0 on as 'step' in its meta, got '-5': damaged, or edited"),
    ({"step": 2.5}, "as 'step'"), ({"step": "7"}, "as 'step'"), ({"step": True}, "as 'step'"), ({"step": 1 << 70}, "as 'step'"),
    ({"t": -1}, "expected an integer from 0 on as 't'"), ({"t": None}, "as 't'"), ({"t": [3]}, "as 't'"),
    ({"extra": [1]}, r"expected a table as 'extra' in its meta, got '\[1\]'"), ({"extra": None}, "as 'extra'"),
    ({"config": [1]}, "expected a table as 'config'"), ({"rng": "x"}, "expected a table as 'rng'"),
    ({"config": {"eps": "x"}}, "does not fit its own config: expected a number as eps, got 'x'"),
    ({"config": {"eps": float("nan")}}, "expected a number as eps, got 'nan'"),
    ({"config": {"mlp_ratio": True}}, "expected a number as mlp_ratio, got 'True'"),
])
def test_meta_is_checked(path, changed, match):
    write(path)
    if "config" in changed and isinstance(changed["config"], dict):
        changed = {"config": vars(CONFIG) | changed["config"]}
    meta_rewritten(path, **changed)
    assert_refused(path, match)


@pytest.mark.parametrize("odd", [-1, 1 << 70, "x", [1], {}])
def test_odd_values_anywhere_in_the_rng(path, odd):
    """A ValueError that names the file, or a generator; no other error."""
    write(path)
    with np.load(path) as file:
        whole = str(file["meta"])
    names = [
        ("state",), ("seeds",), ("state", "state"), ("state", "bit_generator"), ("state", "has_uint32"), ("state", "uinteger"),
        ("state", "state", "state"), ("state", "state", "inc"),
        *(("seeds", name) for name in json.loads(whole)["rng"]["seeds"]),
    ]
    refused = 0
    for place in names:
        meta = json.loads(whole)
        inner = meta["rng"]
        for name in place[:-1]:
            inner = inner[name]
        inner[place[-1]] = odd
        rewritten(path, meta=np.array(json.dumps(meta)))
        try:
            assert isinstance(load(path).rng, np.random.Generator)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
    assert refused >= 4


@pytest.mark.parametrize("changed", [
    {"losses": 1}, {"losses": ["x"]}, {"losses": [[1]]}, {"evaluations": [1]}, {"evaluations": [[1]]}, {"evaluations": {}},
    {"seconds": "x"}, {"seconds": None}, {"evaluation_due": 1}, {"options": [1]}, {},
])
def test_the_history_of_a_run_is_checked(path, changed):
    history = {"losses": [0.5, float("nan")], "evaluations": [[1, 2.5]], "seconds": 1, "evaluation_due": False, "options": {}}
    write(path, extra=history | changed)
    saved = load(path)
    if not changed:
        assert resumed(saved, AdamW(saved.params), path, {}).evaluations == [(1, 2.5)]
    else:
        with pytest.raises(ValueError, match="the history of its training is not one of numbers: damaged, or edited"):
            resumed(saved, AdamW(saved.params), path, {})
