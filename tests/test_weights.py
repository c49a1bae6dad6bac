"""Files of weights: every dtype and layout comes out right, what is written is read by others, a bad file does no harm."""
import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tinymae.weights import pickles, pth
from tinymae.weights.pth import write_pth
from tinymae.weights.read import list_weights, read_weights
from tinymae.weights.records import Unread
from tinymae.weights.safetensors import write_safetensors

with np.load(Path(__file__).parent / "golden" / "pretrained.npz") as file:
    FILES = {key.removeprefix("file."): file[key].tobytes() for key in file.files if key.startswith("file.")}
    VIEWS = {key.removeprefix("views."): file[key] for key in file.files if key.startswith("views.")}

TENSORS = {
    "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.half": np.linspace(-1, 1, 5).astype(np.float16),
    "double": np.array([[1 / 3]]), "scalar": np.array(2.5, np.float32), "empty": np.zeros((0, 4), np.float32),
    "long": np.array([1 << 40, -1]), "int": np.arange(3, dtype=np.int32), "short": np.arange(3, dtype=np.int16),
    "char": np.arange(-2, 2, dtype=np.int8), "byte": np.arange(3, dtype=np.uint8), "bool": np.array([True, False, True]),
    "été": np.ones(2, np.float32),
}


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture
def put(tmp_path):
    def write(data, name="file"):
        path = tmp_path / name
        path.write_bytes(data)
        return path
    return write


# ---- reading ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["views.pth", "views_4.pth", "views_legacy.pth", "views.safetensors"])
def test_every_dtype_and_layout(name, put):
    path = put(FILES[name])
    found = read_weights(path)
    same(found.tensors, VIEWS)
    assert found.dtypes["bfloat16"] == "bfloat16" and found.dtypes["half"] == "float16" and found.dtypes["bool"] == "bool"
    assert found.meta == {}
    listed, meta = list_weights(path)
    assert listed == [(name, VIEWS[name].shape, found.dtypes[name]) for name in found.tensors] and meta == {}


def test_shared_numbers_are_shared(put):
    tensors = read_weights(put(FILES["views.pth"])).tensors
    assert np.shares_memory(tensors["transposed"], tensors["whole"])
    assert np.shares_memory(tensors["row"], tensors["whole"])
    assert not np.shares_memory(tensors["double"], tensors["whole"])


@pytest.mark.parametrize("name", ["views.pth", "views.safetensors"])
def test_arrays_are_windows_that_do_not_write_through(name, put):
    path = put(FILES[name])
    found = read_weights(path).tensors

    def owner(array):
        return array if array.base is None else owner(array.base) if isinstance(array.base, np.ndarray) else array.base

    mapped = {name for name, array in found.items() if not isinstance(owner(array), np.ndarray)}
    assert mapped == found.keys() - {"bfloat16", "bool", "empty", "empty_view"}
    found["whole"][...] = 7
    assert path.read_bytes() == FILES[name]


def test_training_checkpoint(put):
    found = read_weights(put(FILES["training.pth"]))
    same(found.tensors, read_weights(put(FILES["visualize.pth"], "other")).tensors)
    args = {"model": "mae_vit_tiny", "lr": None, "distributed": False, "data_path": "pictures", "norm_pix_loss": True,
            "mask_ratio": 0.5}
    assert found.meta == {"epoch": 7, "args": args, "optimizer": Unread("6 tensors")}


# ---- writing ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("write, name", [(write_pth, "w.pth"), (write_safetensors, "w.safetensors")])
def test_round_trip(write, name, tmp_path):
    path = tmp_path / "new" / name
    tensors = TENSORS | {"transposed": TENSORS["b.weight"].T, "swapped": np.arange(3, dtype=">f4")}
    assert write(path, tensors) == path
    same(read_weights(path).tensors, tensors | {"swapped": np.arange(3, dtype=np.float32)})
    first = path.read_bytes()
    write(path, tensors)
    assert path.read_bytes() == first and [p.name for p in path.parent.iterdir()] == [name]


def test_numbers_start_where_they_can_be_mapped(tmp_path):
    data = write_pth(tmp_path / "w.pth", {"a": np.full(3, 7.0), "b": np.full(2, 9, np.float32)}).read_bytes()
    assert data.index(np.full(3, 7.0).tobytes()) % 64 == 0 and data.index(np.full(2, 9, np.float32).tobytes()) % 64 == 0


def test_meta(tmp_path):
    meta = {"epoch": 3, "note": "日本", "big": -(1 << 40), "small": -5, "ratio": 0.1, "none": None, "config": {"yes": True}}
    write_pth(tmp_path / "w.pth", TENSORS, meta)
    assert read_weights(tmp_path / "w.pth").meta == meta
    write_safetensors(tmp_path / "w.safetensors", TENSORS, {"format": "pt", "by": "me"})
    assert read_weights(tmp_path / "w.safetensors").meta == {"format": "pt", "by": "me"}


@pytest.mark.parametrize("write", [write_pth, write_safetensors])
def test_what_cannot_be_written(write, tmp_path):
    with pytest.raises(ValueError, match="at least one tensor"):
        write(tmp_path / "w", {})
    for name, array in (("a", np.ones(2, complex)), ("a", [1.0]), (3, np.ones(2))):
        with pytest.raises(TypeError, match="expected texts as names and arrays of"):
            write(tmp_path / "w", {name: array})
    with pytest.raises(TypeError, match="expected numbers, texts and dicts"):
        write_pth(tmp_path / "w", TENSORS, {"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_the_libraries_read_what_we_write(tmp_path):
    torch = pytest.importorskip("torch")
    load_file = pytest.importorskip("safetensors.torch").load_file
    write_pth(tmp_path / "w.pth", TENSORS, {"epoch": 3, "config": {"eps": 1e-6}})
    write_safetensors(tmp_path / "w.safetensors", TENSORS)
    for options in ({}, {"weights_only": False}, {"mmap": True}):
        found = torch.load(tmp_path / "w.pth", **options)
        assert found["epoch"] == 3 and found["config"] == {"eps": 1e-6}
        same({name: tensor.numpy() for name, tensor in found["model"].items()}, TENSORS)
    same({name: tensor.numpy() for name, tensor in load_file(tmp_path / "w.safetensors").items()}, TENSORS)


# ---- bad files -------------------------------------------------------------------------------------------------------

@pytest.fixture
def refused(put, tmp_path):
    """refused(data, match): reading raises a ValueError with that text and the file's name, takes little and leaves nothing."""
    def check(data, match):
        path = put(data)
        before = sorted(tmp_path.rglob("*"))
        for read in (read_weights, list_weights):
            tracemalloc.start()
            with pytest.raises(ValueError, match=match) as caught:
                read(path)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 100e6 and str(caught.value).startswith(f"{path}: ")
        assert sorted(tmp_path.rglob("*")) == before
    return check


def zipped(pickled, entries=None, name="archive", **options):
    """A .pth with this data.pkl."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr(f"{name}/data.pkl", pickled)
        for entry, data in (entries or {"data/0": bytes(24), "version": b"3\n"}).items():
            archive.writestr(f"{name}/{entry}", data)
    return file.getvalue()


def legacy(pickled, rest=b""):
    """A .pth of the older format with this object."""
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join(head) + pickled + (rest or pickle.dumps([], 2))


def tensors_pickle(offset=0, shape=(2, 3), strides=(3, 1), storage="FloatStorage", count=6, key="0", extra=b""):
    """The data.pkl of {"w": a tensor}."""
    def number(value):
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    place = b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"
    layout = number(offset) + b"(" + b"".join(map(number, shape)) + b"t(" + b"".join(map(number, strides)) + b"t"
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + layout + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}(" + text("w") + made + extra + b"u."


def test_the_helpers_make_good_files(put):
    """So that the refusals below are for the reason given."""
    for data in (zipped(tensors_pickle()), zipped(tensors_pickle(offset=3, shape=(3,), strides=(1,)))):
        assert not read_weights(put(data)).tensors["w"].any()
    rest = pickle.dumps(["0"], 2) + struct.pack("<q", 6) + bytes(24)
    assert read_weights(put(legacy(tensors_pickle(), rest))).tensors["w"].shape == (2, 3)


@pytest.mark.parametrize("name", ["views.pth", "views_legacy.pth", "views.safetensors"])
def test_cut_short(name, put):
    """At every length."""
    data = FILES[name]
    for length in range(0, len(data), 29):
        with pytest.raises(ValueError, match="file"):
            read_weights(put(data[:length]))
    for more in (b"\0", bytes(100)):
        with pytest.raises(ValueError, match="file"):
            read_weights(put(data + more))


def test_flipped_bits_in_a_zip(put):
    """At every byte: refused, or in a place that says nothing about the tensors."""
    data = zipped(tensors_pickle(), {"data/0": np.arange(6, dtype=np.float32).tobytes(), "byteorder": b"little"})
    good = read_weights(put(data)).tensors["w"].copy()
    refusals = 0
    for i in range(len(data)):
        try:
            tensors = read_weights(put(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :])).tensors
            np.testing.assert_array_equal(tensors["w"], good)
        except ValueError:
            refusals += 1
    start = data.index(good.tobytes())
    for i in range(start, start + 24):
        with pytest.raises(ValueError, match="'w' do not match their checksum: damaged, fetch the file again"):
            read_weights(put(data[:i] + bytes([data[i] ^ 16]) + data[i + 1 :]))
    assert refusals > len(data) / 2


@pytest.mark.parametrize("name", ["views_legacy.pth", "views.safetensors"])
def test_flipped_bits_elsewhere(name, put):
    """These formats have no checksums: a ValueError, or tensors; nothing else."""
    data = FILES[name]
    end = data.index(b"}") + 1200 if name.endswith("pth") else 8 + int.from_bytes(data[:8], "little")
    refusals = 0
    for i in range(0, end, 5):
        try:
            read_weights(put(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :]))
        except ValueError:
            refusals += 1
    assert refusals > end / 20


def safe(header, data=bytes(24)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize("data, match", [
    (b"hello", "it has 5 bytes, weights have more"),
    (b"hello, I am a text\n", "expected .pth or .safetensors, got a file that begins with b'hello"),
    (safe(b"{" + b" " * 8)[:12], "cut short"),
    (struct.pack("<Q", 1 << 62) + b"{}", "claims a header of 4611686018427387904 bytes and has 2"),
    (safe(b"{" + b" " * (3 << 20) + b"}"), "its header has 3145730 bytes, expected at most"),
    (safe(b'{"a": ' + b"[" * 100_000), "is not JSON|recursion"),
    (safe(b"{\xff}"), "its header is not JSON"),
    (safe(b"{{}"), "its header is not JSON"),
    (safe(b'{"a": {}, "a": {}}'), "a name occurs twice"),
    (safe({"__metadata__": {"a": 1}, "w": entry()}), "__metadata__ is not a table of texts"),
    (safe({}, b""), "it contains no tensors"),
    (safe({"w": [1]}), "expected dtype, shape and data_offsets of tensor 'w'"),
    (safe({"w": {**entry(), "more": 1}}), "expected dtype, shape and data_offsets of tensor 'w'"),
    (safe({"w": entry("F8_E4M3")}), "'w' has the dtype 'F8_E4M3', expected one of F64, F32"),
    (safe({"w": entry(shape=[-2, -3])}), "'w' has the shape"),
    (safe({"w": entry(shape=[2.0, 3])}), "'w' has the shape"),
    (safe({"w": entry(shape=[True, 6])}), "'w' has the shape"),
    (safe({"w": entry(shape=[1] * 65)}), "'w' has the shape"),
    (safe({"w": entry(shape=[1 << 40, 1 << 40])}), "'w' has the shape"),
    (safe({"w": entry(shape=[0, 1 << 62], offsets=[0, 0])}, b""), "'w' has the shape"),
    (safe({"w": entry(offsets=[24, 0])}), "does not fill its bytes 24 to 0"),
    (safe({"w": entry(offsets=[0, 20])}), "does not fill its bytes 0 to 20"),
    (safe({"w": entry(shape=[1 << 30], offsets=[0, 1 << 32])}), "expected .* bytes, the file has .*: cut short"),
    (safe({"w": entry(), "v": entry(shape=[2], offsets=[20, 28])}, bytes(28)), "'v' overlaps the one before it"),
    (safe({"w": entry(), "v": entry()}), "overlaps the one before it"),
    (safe({"w": entry(), "v": entry(shape=[1], offsets=[28, 32])}, bytes(32)), "'v' leaves a gap before it"),
    (safe({"w": entry()}, bytes(30)), "or something follows the tensors"),
])
def test_bad_safetensors(data, match, refused):
    refused(data, match)


@pytest.mark.parametrize("pickled, match", [
    (tensors_pickle(count=1 << 50), "'archive/data/0' has 24 bytes, expected 1125899906842624 numbers of float32"),
    (tensors_pickle(count=1 << 65), "a storage of 36893488147419103232 numbers"),
    (tensors_pickle(count=-1), "a storage of -1 numbers"),
    (tensors_pickle(shape=(1 << 40,), strides=(1,)), "reaches beyond its storage of 6 numbers"),
    (tensors_pickle(shape=(1 << 40, 1 << 40), strides=(0, 0)), "a tensor of shape"),
    (tensors_pickle(shape=(1 << 33,), strides=(0,)), "claim 34359738368 bytes, and the file has"),
    (tensors_pickle(offset=1), "reaches beyond its storage"),
    (tensors_pickle(offset=-1), "a tensor of shape"),
    (tensors_pickle(strides=(3, -1)), "a tensor of shape"),
    (tensors_pickle(strides=(3,)), "a tensor of shape"),
    (tensors_pickle(shape=(0, 1 << 62)), "a tensor of shape"),
    (tensors_pickle(shape=(0,), strides=(1,), offset=7), "reaches beyond its storage"),
    (tensors_pickle(key="1"), "the storage 'archive/data/1' is missing"),
    (tensors_pickle(key="../../etc/passwd"), "is missing"),
    (tensors_pickle(storage="ComplexFloatStorage"), r"asks for 'torch\.ComplexFloatStorage', which is not part of a tensor"),
    (b"\x80\x02}.", "it contains no tensors"),
    (b"\x80\x02K\x01.", "expected a table of tensors, got 1"),
    (b"\x80\x02.", "its pickle is damaged"),
    (b"\x80\x02}", "pickle exhausted"),
    (b"\x80\x02h\x05.", "its pickle is damaged"),
    (b"\x80\x02tttt.", "its pickle is damaged"),
    (b"\x80\x02}]K\x01s.", "expected a text or a number as a key, got a list"),
    (b"\x80\x02K\x01Q.", "expected a tuple, got 1"),
    (b"\x80\x02K\x01K\x02R.", "expected a _Global, got 1"),
    (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "expected a list, got 1"),
    (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "applies torch._utils._rebuild_tensor_v2 to 0 values: refused"),
    (b"\x80\x02ctorch\nFloatStorage\n)R.", "applies torch.FloatStorage to 0 values: refused"),
    (b"\x80\x02cargparse\nNamespace\nK\x01\x85R.", "applies argparse.Namespace to 1 values: refused"),
], ids=range(28))
def test_bad_pickles(pickled, match, refused):
    refused(zipped(pickled), match)


NESTED = b"\x80\x02)" + b"q\x00h\x00\x86" * 60      # a tuple of 2 of 2 of 2 ...: 2^60 leaves to walk


@pytest.mark.parametrize("pickled, match", [
    (b"\x80\x02Nr\xff\xff\xff\x7f.", "expected a table of tensors"),                        # a memo of 2^31 places
    (b"\x80\x02X\xff\xff\xff\xff.", "damaged|exhausted|expected"),                          # a text of 4 GB
    (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.", "damaged|exhausted|expected|requested"),     # a text of 2^63
    (b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.", "damaged|exhausted|expected|requested"),     # a bytearray of 2^63
    (b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f.", "damaged"),                                  # a frame of 2^63
    (b"\x80\x02}" + NESTED[2:] + b"Ns.", "expected a text or a number as a key, got a tuple"),
    (NESTED + b".", "expected a table of tensors, got a tuple"),
    (b"\x80\x02}X\x01\x00\x00\x00a" + NESTED[2:] + b"s.", "it contains no tensors; its keys are 'a'"),
    (b"\x80\x02]q\x00h\x00a.", "expected a table of tensors, got a list"),                  # a list in itself
    (b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.", "it contains no tensors; its keys are 'model'"),
    (b"\x80\x02" + b"}" * 400_000 + b".", "more than 300000 steps"),
    (b"\x80\x02" + b"(" * 400_000 + b".", "more than 300000 steps"),
    (b"\x80\x02" + b"I" + b"9" * 100_000 + b"\n.", "damaged|limit|refused"),
    (bytes(17 << 20), "data.pkl has 17825792 bytes, expected at most"),
], ids=range(14))
def test_pickle_bombs(pickled, match, refused):
    refused(zipped(pickled), match)


ORDERED, NAMESPACE, TENSOR = (b"c%s\n%s\n" % name for name in (
    (b"collections", b"OrderedDict"), (b"argparse", b"Namespace"), (b"torch._utils", b"_rebuild_tensor_v2"),
))
STORED = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"


def text(length):
    return b"X" + struct.pack("<I", length) + b"a" * length


@pytest.mark.parametrize("pickled, match", [
    # a list of pairs, walked again by every REDUCE
    (b"](]q\x00(" + b"K\x01K\x01\x86" * 2000 + b"e" + ORDERED + b"q\x01" + b"h\x01h\x00\x85R" * 2500 + b"e.", "300000 steps"),
    # pairs that are one long tuple
    (b"(" + b"K\x01K\x01" * 3000 + b"tq\x00](" + b"h\x00" * 6000 + b"eq\x01" + ORDERED + b"h\x01\x85R.", "a key and a value"),
    (ORDERED + b"](X\x02\x00\x00\x00abe\x85R.", "expected a key and a value, got 'ab'"),
    # a dict, walked again by every BUILD
    (b"}q\x00(" + b"".join(b"M" + struct.pack("<H", i) + b"N" for i in range(3000)) + b"u" + NAMESPACE + b")R"
     + b"h\x00b" * 5000 + b".", "300000 steps"),
    # a shape of 64 sizes, in one tensor after another
    (b"](" + TENSOR + b"q\x01(" + STORED + b"K\x00" + 2 * (b"(" + b"K\x01" * 64 + b"t") + b"NNtq\x02" + b"h\x01h\x02R" * 3000
     + b"e.", "300000 steps"),
    # integers that all have one hash, and equal texts that are compared to their end
    (b"}(" + b"".join(b"\x8a\x09" + (i * ((1 << 61) - 1)).to_bytes(9, "little") + b"N" for i in range(1, 50)) + b"u.",
     "the key 2305843009213693951: expected a text of at most 1000 characters, or an integer of 32 bits"),
    (b"}" + text(1001) + b"Ns.", "the key 'aaa.*expected a text of at most 1000 characters"),
    (STORED.replace(b"X\x01\x00\x00\x000", text(1001)) + b".", "a storage with the key 'aaa.*at most 1000 characters"),
], ids=["list", "pairs", "a pair of letters", "dict", "shape", "hash", "key", "storage"])
def test_work_is_bounded(pickled, match):
    """A step is an instruction, or an element that one walks: 25 kB took 15 seconds, and take half a second."""
    with pytest.raises(ValueError, match=match):
        pickles.unpickle(io.BytesIO(b"\x80\x02" + pickled))


def test_steps_are_counted(monkeypatch):
    """170 instructions, two of which walk a list of 50 pairs: at 250 steps that is too much, at 300 it is not."""
    pickled = b"\x80\x02](](" + b"K\x01N\x86" * 50 + b"eq\x00" + ORDERED + b"h\x00\x85R" + ORDERED + b"h\x00\x85Re."
    monkeypatch.setattr(pickles, "MOST_STEPS", 300)
    assert pickles.unpickle(io.BytesIO(pickled))[0][1:] == [{1: None}, {1: None}]
    monkeypatch.setattr(pickles, "MOST_STEPS", 250)
    with pytest.raises(ValueError, match="more than 250 steps"):
        pickles.unpickle(io.BytesIO(pickled))


def test_many_names_for_one_storage(refused):
    """Copied one by one, they would fill the memory."""
    one = tensors_pickle(count=100_000, shape=(100_000,), strides=(1,))
    name, made = one.split(b"w", 1)[0], one.split(b"w", 1)[1].removesuffix(b"u.")
    names = b"".join(name[4:][:1] + struct.pack("<I", 4) + b"%04d" % i + made for i in range(1000))
    refused(zipped(b"\x80\x02}(" + names + b"u.", {"data/0": bytes(400_000)}), "claim 400000000 bytes, and the file has")


# ---- nothing is executed ---------------------------------------------------------------------------------------------

class Trap:
    """Pickled, it is a program that makes a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def traps(canary):
    """{name: pickle that makes the file `canary` when Python's machine runs it}."""
    code = f"open({str(canary)!r}, 'w').close()"
    found = {f"eval, protocol {p}": pickle.dumps({"model": Trap(eval, code)}, p) for p in range(6)}
    found |= {f"exec, protocol {p}": pickle.dumps(Trap(exec, code), p) for p in range(6)}
    text = b"X" + struct.pack("<I", len(code)) + code.encode()
    found["INST"] = b"(" + text + b"ibuiltins\nexec\n."
    found["OBJ"] = b"(cbuiltins\nexec\n" + text + b"o."
    found["as a storage"] = b"\x80\x02(X\x07\x00\x00\x00storagecbuiltins\nexec\n" + text + text + b"K\x01tQ."
    found["Path.touch"] = pickle.dumps(Trap(Path.touch, canary))
    return found


def test_the_traps_work(tmp_path):
    """Python's own machine falls into them: so the next test shows something."""
    for name, trap in traps(tmp_path / "canary").items():
        loader = pickle.Unpickler(io.BytesIO(trap))
        if not name.startswith("as a"):                         # this one needs torch
            loader.load()
            (tmp_path / "canary").unlink()


@pytest.mark.parametrize("form", [zipped, legacy])
@pytest.mark.parametrize("name", traps("x"))
def test_nothing_is_executed(name, form, refused, tmp_path):
    refused(form(traps(tmp_path / "canary")[name]), "refused, nothing was executed|which no file of weights needs: refused")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("make", [
    lambda code: Trap(exec, code), lambda code: Trap(eval, code), lambda code: {"a": {"b": Trap(exec, code)}},
    lambda code: Trap(exec, code, {"a": Trap(exec, code)}),
])
def test_what_stands_beside_the_tensors_is_skipped_and_named(make, put, tmp_path):
    """Not executed, and not in the way."""
    canary = tmp_path / "canary"
    made = pickle.dumps(make(f"open({str(canary)!r}, 'w').close()"), 2)[2:-1]
    pickled = tensors_pickle(extra=b"X\x01\x00\x00\x00v" + made)
    storage = pickle.dumps(["0"], 2) + struct.pack("<q", 6) + bytes(24)
    for data in (zipped(pickled), legacy(pickled, storage)):
        found = read_weights(put(data))
        assert list(found.tensors) == ["w"] and not canary.exists()
        (name, what), = found.meta.items()
        assert name in ("v", "v.a.b") and what in (Unread("__builtin__.exec"), Unread("__builtin__.eval"))


def test_what_torch_and_others_write_beside_the_tensors(put):
    """torch.save of {"w": ..., "size": torch.Size([16, 8]), "device": torch.device("cuda", 0), "dtype": torch.float32, ...}."""
    def apply(name, *arguments):
        return b"c" + name.encode() + b"\n" + pickle.dumps(arguments, 2)[2:-1] + b"R"

    def text(word):
        return pickle.dumps(word, 2)[2:-1]

    dtype = apply("numpy\ndtype", "f8", False, True) + pickle.dumps((3, "<", None, None, None, -1, -1, 0), 2)[2:-1] + b"b"
    scalar = b"cnumpy._core.multiarray\nscalar\n" + dtype + apply("_codecs\nencode", "abcdefgh", "latin1") + b"\x86R"
    entries = {
        "size": apply("torch\nSize", (16, 8)), "device": apply("torch\ndevice", "cuda", 0), "dtype": b"ctorch\nfloat32\n",
        "best": scalar, "out": apply("pathlib\nPosixPath", "runs", "7"), "names": apply("__builtin__\nset", ["a", "b"]),
        "when": apply("datetime\ndatetime", b"x") + text({"zone": 1}) + b"b",
        "counts": apply("collections\nCounter") + b"(" + text("a") + b"K\x01u",
        "loss": b"ctorch.nn.modules.loss\nCrossEntropyLoss\n)\x81" + text({"training": True}) + b"b",
        "activation": b"ctorch._C._nn\ngelu\n", "layout": apply("torch.serialization\n_get_layout", "strided"),
        "when_4": b"\x8f(" + text("a") + b"\x90", "frozen": b"(" + text("a") + b"\x91",
        "args": apply("argparse\nNamespace") + b"}(" + text("lr") + b"K\x02" + text("dir")
        + apply("pathlib\nWindowsPath") + b"ub",
    }
    extra = b"".join(text(name) + value for name, value in entries.items())
    found = read_weights(put(zipped(tensors_pickle(extra=extra))))
    assert list(found.tensors) == ["w"]
    assert found.meta == {
        "device": "cuda:0", "dtype": "torch.float32", "args": {"lr": 2}, "size": (16, 8), "names": ("a", "b"),
        "activation": Unread("torch._C._nn.gelu"),
        "layout": Unread("torch.serialization._get_layout"),
        "best": Unread("numpy._core.multiarray.scalar"), "out": Unread("pathlib.PosixPath"),
        "when": Unread("datetime.datetime"), "counts": Unread("collections.Counter"),
        "loss": Unread("torch.nn.modules.loss.CrossEntropyLoss"), "args.dir": Unread("pathlib.WindowsPath"),
    }


@pytest.mark.parametrize("program, name", [
    (b"ctorch._tensor\n_rebuild_from_type_v2\n", "torch._tensor._rebuild_from_type_v2"),
    (b"ctorch._utils\n_rebuild_sparse_tensor\n", "torch._utils._rebuild_sparse_tensor"),
    (b"cmine\nMyTensor\n" + tensors_pickle()[10:-2] + b"\x85R", "mine.MyTensor"),
    (b"cmine\nMyTensor\n" + STORED + b"\x85\x81", "mine.MyTensor"),
])
def test_tensors_of_unknown_classes_are_refused(program, name, refused):
    """Without them the model would be another."""
    refused(zipped(tensors_pickle(extra=b"X\x01\x00\x00\x00v" + program)), f"asks for '{name}', which is not part of a tensor")


def test_a_whole_model_is_refused_with_advice(refused):
    model = b"cmodels_mae\nMaskedAutoencoderViT\n)\x81}b"
    refused(zipped(b"\x80\x02" + model + b"."), r"asks for 'models_mae\.Mask.*Save its state_dict\(\)")
    refused(zipped(b"\x80\x02}X\x05\x00\x00\x00model" + model + b"s."), "no tensors; its keys are 'model' .*asks for 'mo")


@pytest.mark.parametrize("module, name", [
    ("os", "system"), ("posix", "system"), ("builtins", "getattr"), ("builtins", "__import__"),
    ("torch.storage", "_load_from_bytes"), ("torch", "load"), ("torch.hub", "load"), ("numpy", "fromfile"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("tinymae.weights.pickles", "_Namespace"), ("argparse", "Namespace.__init__"), ("collections", "OrderedDict.__class__"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"), ("torch", "FloatStorage x"),
])
def test_other_globals_are_refused_by_name(module, name, refused):
    message = f"asks for '{module}.{name}', which is not part of a tensor: refused, nothing was executed"
    refused(zipped(f"\x80\x02c{module}\n{name}\n.".encode("latin-1")), message.replace(".", r"\."))
    texts = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    refused(zipped(b"\x80\x04" + texts + b"\x93."), message.replace(".", r"\."))


def test_state_cannot_be_set_on_what_is_ours(refused):
    """BUILD gives an object attributes; on a function or a class, ours would stay changed."""
    state = b"}X\x01\x00\x00\x00aK\x01s"
    for name in ("torch._utils\n_rebuild_tensor_v2", "argparse\nNamespace", "torch\nFloatStorage"):
        refused(zipped(b"\x80\x02c" + name.encode() + b"\n" + state + b"b."), "expected a dict, got")
        refused(zipped(b"\x80\x02c" + name.encode() + b"\nN" + state + b"\x86b."), "expected a dict, got")


def test_a_namespace_is_a_table(put):
    """Also with attributes that would be methods of a dict."""
    attributes = pickle.dumps({"items": 1, "__class__": 2, "get": "x", "nested": {"a": 1}}, 2)[2:-1]
    extra = b"X\x04\x00\x00\x00argscargparse\nNamespace\n)\x81" + attributes + b"b"
    found = read_weights(put(zipped(tensors_pickle(extra=extra))))
    assert found.meta == {"args": {"items": 1, "__class__": 2, "get": "x"}} and list(found.tensors) == ["w"]


def test_two_names_that_become_one(refused):
    """A key may be a number; as a text it must not hide another tensor."""
    pickled = tensors_pickle().replace(b"X\x01\x00\x00\x00w", b"X\x01\x00\x00\x001")
    tensor = pickled[pickled.index(b"ctorch._utils") : -2]
    refused(zipped(pickled[:-2] + b"K\x01" + tensor + b"u."), "two of its tensors are called '1'")


def test_random_programs(put):
    """Pickles with a few bytes changed, their checksums right: a ValueError or tensors, and nothing else."""
    rng = np.random.default_rng(5)
    with zipfile.ZipFile(io.BytesIO(FILES["views.pth"])) as archive:
        names = archive.namelist()
        content = {name.partition("/")[2]: archive.read(name) for name in names}
    good = content.pop("data.pkl")
    codes = np.frombuffer(b"().0123FNPQRSTUX]abcdeghiloqrstu}\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x93\x94", np.uint8)
    read = 0
    for _ in range(400):
        program = np.frombuffer(good, np.uint8).copy()
        places = rng.integers(0, len(program), rng.integers(1, 6))
        program[places] = rng.choice(codes, len(places))
        try:
            read += bool(read_weights(put(zipped(program.tobytes(), content))).tensors)
        except ValueError:
            pass
    assert read < 300


# ---- the zip and the older format themselves -------------------------------------------------------------------------

def test_bad_zips(refused, put):
    good = zipped(tensors_pickle())
    refused(zipped(tensors_pickle(), compression=zipfile.ZIP_DEFLATED), "is compressed or encrypted")
    refused(zipped(tensors_pickle(), {"data/0": bytes(24), "byteorder": b"big"}), "big-endian")
    refused(zipped(b"", {"x": b""}).replace(b"data.pkl", b"data.pkx"), "expected one data.pkl in it; open a tinymae")
    refused(zipped(tensors_pickle(), {"b/data.pkl": b"", "data/0": bytes(24)}), "expected one data.pkl")
    end = good.rindex(b"PK\5\6")
    huge = good[: end + 12] + struct.pack("<I", 1 << 31) + good[end + 16 :]
    refused(huge, "the directory of the zip claims 2147483648 bytes")
    refused(good[: end + 16] + struct.pack("<I", len(good) - 30) + good[end + 20 :], "damaged|not where the directory")
    refused(good.replace(b"archive/data/0", b"archive/data/1", 1), "is not where the directory of the zip says")
    # two entries on one place
    first, second = (i for i in range(len(good)) if good.startswith(b"PK\1\2", i) and b"data" in good[i + 46 : i + 60])
    overlapping = good[: second + 42] + good[first + 42 : first + 46] + good[second + 46 :]
    refused(overlapping, "not where the directory of the zip says, or overlaps its neighbour")


def test_checkpoints_of_ours_are_sent_elsewhere(refused):
    file = io.BytesIO()
    np.savez(file, meta=np.array("x"))
    refused(file.getvalue(), r"not a \.pth: expected one data\.pkl in it; open a tinymae checkpoint \(\.npz\) with --model")


def test_a_zip_without_checksums(put):
    """torch.save can be told to leave them out; they are zeros then."""
    data = zipped(tensors_pickle())
    for i in range(len(data)):
        if data.startswith(b"PK\1\2", i):
            data = data[: i + 16] + bytes(4) + data[i + 20 :]
    assert read_weights(put(data)).tensors["w"].shape == (2, 3)


@pytest.mark.parametrize("rest, match", [
    (pickle.dumps([], 2), r"its 0 storages end at byte \d+, expected 1 and \d+: damaged"),
    (pickle.dumps(["1"], 2), "'1' belongs to no tensor"),
    (pickle.dumps(["0", "0"], 2) + struct.pack("<q", 6) + bytes(24), "occurs twice"),
    (pickle.dumps([3], 2), "expected a str, got 3"),
    (pickle.dumps(["0"], 2) + struct.pack("<q", 1 << 60) + bytes(24), "claims 1152921504606846976 numbers, expected 6"),
    (pickle.dumps(["0"], 2) + struct.pack("<q", 6) + bytes(20), "cut short"),
    (pickle.dumps(["0"], 2) + struct.pack("<q", 6) + bytes(28), "its 1 storages end at byte"),
])
def test_bad_legacy(rest, match, refused):
    refused(legacy(tensors_pickle(), rest), match)


def test_each_pickle_of_a_legacy_file_is_bounded(refused):
    """What says the protocol and the system is short: it may not take the time of a list of tensors."""
    work = b"\x80\x02](" + b"N" * 2000 + b"e."
    magic, protocol, system = (pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    for head in ([work, protocol, system], [magic, work, system], [magic, protocol, work]):
        refused(b"".join(head) + tensors_pickle() + pickle.dumps([], 2), "more than 1000 steps")
    refused(b"".join([magic, protocol, system]) + work + pickle.dumps([], 2), "expected a table of tensors|storages end at")


def test_other_pickles(refused):
    refused(pickle.dumps({"model": 3}), "a pickle, but not a .pth: the magic number")
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    other = pickle.dumps(1002, 2) + pickle.dumps({}, 2) + tensors_pickle() + pickle.dumps([], 2)
    refused(head + other, "expected protocol 1001")
    big = pickle.dumps(1001, 2) + pickle.dumps({"little_endian": False}, 2) + tensors_pickle() + pickle.dumps([], 2)
    refused(head + big, "big-endian")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file of weights"):
        read_weights(tmp_path / "none")
    with pytest.raises(ValueError, match="got a folder"):
        read_weights(tmp_path)


def test_limits_are_above_the_largest_model(monkeypatch):
    """A training checkpoint of ViT-H: 600 tensors, each three times, some 40 instructions for a tensor."""
    state = {f"blocks.{i}.mlp.fc1.weight": np.zeros((1, 1), np.float32) for i in range(1800)}
    pickled = pickles.write_pickle({"model": state})
    assert 4 * len(pickled) < pth.LONGEST_PICKLE
    assert 4 * sum(1 for _ in pickles.pickletools.genops(pickled)) < pickles.MOST_STEPS
    monkeypatch.setattr(pickles, "MOST_STEPS", pickles.MOST_STEPS // 3)
    assert len(pickles.unpickle(io.BytesIO(pickled))[1]) == 1800


def test_released_windows_are_read_again(tmp_path):
    tensors = {"a": np.arange(5000, dtype=np.float32), "b": np.ones((3, 4), np.float16)}
    for path in (write_pth(tmp_path / "a.pth", tensors), write_safetensors(tmp_path / "a.safetensors", tensors)):
        weights = read_weights(path)
        weights.release()
        for name, array in tensors.items():
            np.testing.assert_array_equal(weights.tensors[name], array)
