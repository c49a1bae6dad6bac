"""Files of weights, without PyTorch: .pth (the zip format and the one before it) and .safetensors, read and written.

    safetensors     8 bytes: length of the header | JSON: {name: {"dtype", "shape", "data_offsets"}} | the numbers
    .pth            a zip, nothing compressed: NAME/data.pkl says which tensors there are, NAME/data/KEY holds a storage
    legacy .pth     five pickles (magic number, protocol, system, the object, the keys), then for each key: count, numbers

A storage is a row of numbers; a tensor is a view of one: where it starts, its shape, and how far apart its neighbours are
along each axis (stride). So several tensors can share one storage.

A pickle is a program for a small stack machine, and Python's own machine calls whatever the program names: a .pth from a
stranger can run anything. The machine here (`_unpickle`) has no such instruction. A global becomes a name, never an object;
applying it knows five names and builds a dict or a note of where a tensor lies; every other name is refused. Nothing is
imported, called or set on an object.

Weights stay in the file: arrays are windows on it (memory map), which the system fetches when they are used. The map is
private: writing into an array changes memory and never the file.

Every size is compared with the file before memory is taken. A zip has checksums, and those of the tensors asked for are
compared, one pass at a few GB/s; the other two formats have none, so that a flipped bit in their numbers goes unseen.

Differs: the `safetensors` library hands NumPy a copy of each tensor in place of a window, and no bfloat16; its format is a page
of code, and that page is here. torch.load compares no checksums.
"""
import io
import json
import math
import mmap
import os
import pickletools
import struct
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymae.files import whole_file

BFLOAT16 = "bfloat16"       # the upper half of a float32; NumPy has no such dtype, so it is read as uint16 and widened

STORAGES = {
    "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": BFLOAT16, "DoubleStorage": "float64",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": BFLOAT16, "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

# No file of weights needs more, and what is longer was made to fill the memory.
LONGEST_PICKLE = 1 << 24
MOST_INSTRUCTIONS = 300_000     # a training checkpoint of ViT-H has about 100,000
LONGEST_HEADER = 1 << 21        # of safetensors: room for 15,000 tensors
LONGEST_DIRECTORY = 1 << 22     # of a zip: room for 40,000 storages


class Weights(NamedTuple):
    """What `read_weights` returns."""

    tensors: dict   # {name: ndarray}; windows on the file where dtype and alignment allow; bfloat16 as float32
    dtypes: dict    # {name: str}, as they are in the file
    meta: dict      # the plain numbers and texts beside the tensors: epoch, args (a dict), safetensors' own metadata
    window: mmap.mmap = None    # the file, on which the tensors are windows

    def release(self):
        """Let go of the memory that windows took when they were read; it is read again where it is needed.

        What was written into a window is lost. Without effect on systems that cannot do it (Windows).
        """
        if self.window is not None and hasattr(self.window, "madvise"):
            self.window.madvise(mmap.MADV_DONTNEED)


def read_weights(path):
    """Read a .pth or .safetensors file; which of the two it is, its first bytes say.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Weights
        of a training checkpoint only what is under "model" (or "state_dict") is read, or else what is at the top; the moments
        of its optimiser are not touched. Arrays may be written to: the file does not change. Tensors that share numbers in
        the file share them here.

    Raises
    ------
    FileNotFoundError
        where there is no such file
    ValueError
        where the file is cut short, damaged, of another format, claims more than it has, or names what is not a tensor; says
        which file and why. Nothing in the file is ever executed.
    """
    notes = _read_notes(path)
    _compare_checksums(path, notes)
    arrays = {}
    tensors = {}
    for name, note in notes.tensors.items():
        key = (note.start, note.count, note.dtype)
        if key not in arrays:
            arrays[key] = _numbers(path, notes, note)
        array = arrays[key]
        strides = [step * array.itemsize for step in note.strides]
        # with a buffer NumPy checks the ends once more, which as_strided does not
        tensors[name] = (
            np.ndarray(note.shape, array.dtype, array, note.offset * array.itemsize, strides) if 0 not in note.shape
            else np.empty(note.shape, array.dtype)
        )
    window = notes.raw.base.obj                                     # the map behind the array's memoryview
    return Weights(tensors, {name: note.dtype for name, note in notes.tensors.items()}, notes.meta, window)


def list_weights(path):
    """([(name, shape, dtype)], meta) of a file that `read_weights` reads, without its numbers.  Raises as `read_weights`."""
    notes = _read_notes(path)
    return [(name, note.shape, note.dtype) for name, note in notes.tensors.items()], notes.meta


# ---- where the tensors lie -------------------------------------------------------------------------------------------

class _Note(NamedTuple):
    """Where a tensor lies in the file."""

    start: int      # of its storage, in bytes
    count: int      # numbers in its storage
    dtype: str
    offset: int     # from here on in numbers
    shape: tuple
    strides: tuple
    crc: int        # of the storage; 0 where there is none


class _Notes(NamedTuple):
    raw: np.ndarray     # the file, uint8
    tensors: dict       # {name: _Note}
    meta: dict


def _read_notes(path):
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file of weights")
    if not path.is_file():
        raise ValueError(f"{path}: expected a file of weights, .pth or .safetensors, got a folder")
    if path.stat().st_size < 10:
        raise ValueError(f"{path}: cut short: {path.stat().st_size} bytes are no file of weights")
    with path.open("rb") as file:
        window = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)   # copy on write: the file stays as it is
    raw = np.frombuffer(window, np.uint8)
    start = raw[:16].tobytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)     # pickletools warns of odd names, which are refused anyway
            if start.startswith(b"PK\x03\x04"):
                notes = _read_zip(raw, path)
            elif start[8:9] == b"{":
                notes = _read_safetensors(raw)
            elif start.startswith(b"\x80"):
                notes = _read_legacy(raw)
            else:
                raise ValueError(f"neither .pth nor .safetensors: it begins with {start!r}")
        if not notes.tensors:
            raise ValueError("there are no tensors in it")
        # Views of one storage cost nothing until somebody copies them. A tied matrix has four names at the most.
        claimed = sum(math.prod(note.shape) * _width(note.dtype) for note in notes.tensors.values())
        if claimed > 8 * raw.size + 4096:
            raise ValueError(f"its tensors claim {claimed} bytes, and the file has {raw.size}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    return notes


def _width(dtype):
    """Bytes of one number."""
    return 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize


def _stored(notes, note):
    return notes.raw[note.start : note.start + note.count * _width(note.dtype)]


def _compare_checksums(path, notes):
    """ValueError where a storage is not what it was when it was written; side by side, for a file has many of them."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        kept = {note.start: (name, note) for name, note in notes.tensors.items() if note.crc}
        sums = pool.map(lambda found: zlib.crc32(_stored(notes, found[1])), kept.values())
        for (name, note), found in zip(kept.values(), sums, strict=True):
            if found != note.crc:
                raise ValueError(f"{path}: the numbers of {name!r} do not match their checksum: damaged, fetch the file again")


def _numbers(path, notes, note):
    """The storage of a note as an ndarray: a window on the file, or a copy where it cannot be one."""
    data = _stored(notes, note)
    if note.dtype == "bool":
        return data != 0                                        # any other byte than 0 and 1 would be no bool of NumPy's
    if note.dtype == BFLOAT16:
        wide = np.zeros((note.count, 2), "<u2")
        wide[:, 1] = data.view("<u2")                           # the lower half of a float32 comes first
        return wide.reshape(-1).view("<f4")
    dtype = np.dtype(note.dtype).newbyteorder("<")
    if note.start % dtype.itemsize == 0:
        return data.view(dtype)
    with Path(path).open("rb") as file:                         # not from the map: its pages would count twice
        file.seek(note.start)
        return np.fromfile(file, dtype, note.count)


# ---- safetensors -----------------------------------------------------------------------------------------------------

def _read_safetensors(raw):
    length = int.from_bytes(raw[:8].tobytes(), "little")
    if length > raw.size - 8:
        raise ValueError(f"cut short, or no safetensors file: it claims a header of {length} bytes and has {raw.size - 8}")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes, more than the {LONGEST_HEADER} that are read")
    try:
        header = json.loads(raw[8 : 8 + length].tobytes().decode("utf-8"), object_pairs_hook=_unique)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"its header is no JSON ({error}): damaged, or no safetensors file") from error
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object: damaged, or no safetensors file")
    meta = header.pop("__metadata__", {})
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        raise ValueError("its __metadata__ is no table of texts")
    tensors = {}
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"expected dtype, shape and data_offsets of tensor {name!r}, got {_short(entry)}")
        code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(code, str) or code not in SAFETENSORS:
            raise ValueError(f"tensor {name!r} has the dtype {_short(code)}; read are {', '.join(SAFETENSORS)}")
        if not _shape(shape) or not _sizes(offsets) or len(offsets) != 2:
            raise ValueError(f"tensor {name!r} has the shape {_short(shape)} and the offsets {_short(offsets)}")
        begin, end = offsets
        count = math.prod(shape)
        if end - begin != count * _width(SAFETENSORS[code]):
            raise ValueError(f"tensor {name!r} {tuple(shape)} of {code} does not fill its bytes {begin} to {end}")
        tensors[name] = _Note(8 + length + begin, count, SAFETENSORS[code], 0, tuple(shape), _strides(shape), 0)
    position = 8 + length
    for name, note in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].count)):
        if note.start != position:
            wrong = "overlaps the one before it" if note.start < position else "leaves a gap before it"
            raise ValueError(f"tensor {name!r} {wrong}: it begins at {note.start}, expected {position}")
        position += note.count * _width(note.dtype)
    if position != raw.size:
        raise ValueError(f"expected {position} bytes, the file has {raw.size}: cut short, or something follows")
    return _Notes(raw, tensors, meta)


def _unique(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return found


def _sizes(value):
    """Is it a list or tuple of at most 64 (NumPy's limit) plain integers of at least 0, each within 63 bits?"""
    return (
        isinstance(value, (list, tuple)) and len(value) <= 64
        and all(type(size) is int and 0 <= size < 1 << 63 for size in value)
    )


def _shape(value):
    """Is it a shape that an array can have? The sizes of an empty one are multiplied too."""
    return _sizes(value) and math.prod(max(size, 1) for size in value) < 1 << 60


def _strides(shape):
    """Of an array in C order, in numbers."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * max(size, 1))
    return tuple(strides[: len(shape)])


def _short(value):
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


# ---- .pth ------------------------------------------------------------------------------------------------------------

class _Global(NamedTuple):
    """A name in a pickle; stays a name."""

    name: str


class _Storage(NamedTuple):
    key: str
    dtype: str
    count: int
    offset: int     # where a view of a storage begins, in the legacy format


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


class _Namespace(dict):
    """What argparse.Namespace becomes: its attributes, as a dict."""


def _unpickle(file, storages):
    """Run the pickle that begins at the file's position; stops behind it.

    Parameters
    ----------
    file : binary file
    storages : set, to which the _Storages that it mentions are added

    Returns
    -------
    dicts, lists, tuples, _Namespace, _Tensor, numbers, texts
    """
    stack, marks, memo = [], [], {}

    def take():
        """What lies above the last mark."""
        start = marks.pop()
        taken = stack[start:]
        del stack[start:]
        return taken

    try:
        for done, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if done == MOST_INSTRUCTIONS:
                raise ValueError(f"its pickle has more than {MOST_INSTRUCTIONS} instructions: no list of tensors is so long")
            match opcode.name:
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    if len(stack) != 1 or marks:
                        raise ValueError(f"its pickle is damaged: it leaves {len(stack)} values")
                    return stack[0]
                case "MARK":
                    marks.append(len(stack))
                case "NONE":
                    stack.append(None)
                case "NEWTRUE":
                    stack.append(True)
                case "NEWFALSE":
                    stack.append(False)
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                    stack.append(argument)
                case "BINSTRING" | "SHORT_BINSTRING":           # texts of Python 2
                    stack.append(argument)
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_TUPLE":
                    stack.append(())
                case "TUPLE":
                    stack.append(tuple(take()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    size = int(opcode.name[-1])
                    stack[-size:] = [tuple(stack[-size:])]
                case "APPEND":
                    value = stack.pop()
                    _a(list, stack[-1]).append(value)
                case "APPENDS":
                    values = take()
                    _a(list, stack[-1]).extend(values)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    _set(stack[-1], [key, value])
                case "SETITEMS":
                    values = take()
                    _set(stack[-1], values)
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    stack.append(_known(argument.replace(" ", ".", 1)))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    stack.append(_known(f"{_a(str, module)}.{_a(str, name)}"))
                case "BINPERSID":
                    storage = _storage(stack.pop())
                    storages.add(storage)
                    stack.append(storage)
                case "REDUCE" | "NEWOBJ":
                    arguments, function = stack.pop(), stack.pop()
                    stack.append(_apply(_a(_Global, function).name, _a(tuple, arguments)))
                case "BUILD":                                   # the state of an object: we have attributes for one kind only
                    state = stack.pop()
                    if isinstance(_a(dict, stack[-1]), _Namespace):
                        _set(stack[-1], [part for item in _a(dict, state).items() for part in item])
                case name:
                    raise ValueError(f"its pickle has the instruction {name}, which no file of weights needs: refused")
    except (IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise ValueError(f"its pickle is damaged ({type(error).__name__}: {error})") from error


def _a(kind, value):
    if not isinstance(value, kind):
        raise ValueError(f"its pickle is damaged: expected a {kind.__name__}, got {_short(value)}")
    return value


def _set(target, values):
    """Put [key, value, key, value, ...] into a dict; keys are texts and integers: a nested tuple takes forever to hash."""
    for key, value in zip(values[::2], values[1::2], strict=True):
        if type(key) not in (str, int):
            raise ValueError(f"its pickle is damaged: expected a text or a number as a key, got {_short(key)}")
        _a(dict, target)[key] = value


def _known(name):
    known = {f"torch.{storage}" for storage in STORAGES} | {
        "collections.OrderedDict", "argparse.Namespace", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter",
    }
    if name not in known:
        raise ValueError(f"its pickle asks for {_short(name)}, which is no part of a tensor: refused, nothing was executed")
    return _Global(name)


def _storage(found):
    """("storage", type, key, place, count[, (view key, offset, count)]) -> _Storage."""
    if len(_a(tuple, found)) not in (5, 6) or found[0] != "storage":
        raise ValueError(f"its pickle is damaged: expected a storage, got {_short(found)}")
    kind = _a(_Global, found[1]).name.removeprefix("torch.")
    key, count = _a(str, found[2]), found[4]
    if kind not in STORAGES or not _sizes([count]):
        raise ValueError(f"its pickle is damaged: a storage of {_short(count)} numbers of {_short(kind)}")
    offset = 0
    if len(found) == 6 and found[5] is not None:
        _, offset, _ = _a(tuple, found[5])
        if not _sizes([offset]):
            raise ValueError(f"its pickle is damaged: a view of a storage from {_short(offset)} on")
    return _Storage(key, STORAGES[kind], count, offset)


def _apply(name, arguments):
    """What the functions and classes that a pickle may name would have made of the arguments."""
    if name == "argparse.Namespace" and not arguments:
        return _Namespace()
    if name == "collections.OrderedDict" and len(arguments) < 2:
        found = {}
        for pair in _a(list, [*arguments, []][0]):
            _set(found, pair)
        return found
    if name == "torch._utils._rebuild_parameter" and arguments:
        return _a(_Tensor, arguments[0])
    if name == "torch._utils._rebuild_tensor_v2" and len(arguments) in (6, 7):
        storage, offset, shape, strides = arguments[:4]
        if not _sizes([offset]) or not _shape(shape) or not _sizes(strides) or len(shape) != len(strides):
            raise ValueError(f"its pickle has a tensor of shape {_short(shape)}, offset {_short(offset)}")
        offset += _a(_Storage, storage).offset
        # a stride is never walked along an axis of length 1, nor in an empty tensor, and may be anything there
        strides = tuple(step if size > 1 and 0 not in shape else 0 for size, step in zip(shape, strides, strict=True))
        last = offset - (0 in shape) + sum((size - 1) * step for size, step in zip(shape, strides, strict=True) if step)
        if last >= storage.count:
            raise ValueError(f"a tensor {tuple(shape)} reaches beyond its storage of {storage.count} numbers")
        return _Tensor(storage, offset, tuple(shape), strides)
    raise ValueError(f"its pickle applies {name} to {len(arguments)} values: refused")


def _notes_of_pickle(raw, found, places):
    """The _Notes of an unpickled object; places: {key of a storage: (where it starts, checksum)}."""
    if not isinstance(found, dict):
        raise ValueError(f"expected a table of tensors, got {_short(found)}: was one tensor saved, or a whole model?")
    state = next((found[key] for key in ("model", "state_dict") if isinstance(found.get(key), dict)), found)
    meta = _plain(found)
    meta |= {key: _plain(found[key]) for key in ("args", "config") if isinstance(found.get(key), dict)}
    tensors = {}
    for name, tensor in state.items():
        if isinstance(tensor, _Tensor):
            storage = tensor.storage
            start, crc = places[storage.key]
            tensors[str(name)] = _Note(
                start, storage.count, storage.dtype, tensor.offset, tensor.shape, tensor.strides, crc
            )
    if not tensors:
        raise ValueError(f"there are no tensors in it; its keys are {', '.join(_short(key) for key in list(state)[:5])}")
    return _Notes(raw, tensors, meta)


def _plain(found):
    """Those entries of a dict that are numbers or texts."""
    return {str(k): v for k, v in found.items() if isinstance(v, (str, int, float, type(None)))}


def _read_zip(raw, path):
    entries = _zip_entries(raw, path)
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError("a zip, but no .pth: expected one data.pkl in it; a tinymae checkpoint (.npz) is opened by --model")

    def content(name):
        start, size, crc = entries[roots[0] + name]
        if size > LONGEST_PICKLE:
            raise ValueError(f"its {name} has {size} bytes, more than the {LONGEST_PICKLE} that are read")
        data = raw[start : start + size].tobytes()
        if crc and zlib.crc32(data) != crc:
            raise ValueError(f"its {name} does not match its checksum: damaged, fetch the file again")
        return data

    if roots[0] + "byteorder" in entries and content("byteorder") != b"little":
        raise ValueError("written on a big-endian machine: such files are not read")
    storages = set()
    found = _unpickle(io.BytesIO(content("data.pkl")), storages)
    places = {}
    for storage in storages:
        entry = f"{roots[0]}data/{storage.key}"
        if entry not in entries:
            raise ValueError(f"the storage {entry!r} is missing: damaged")
        start, size, crc = entries[entry]
        if size != storage.count * _width(storage.dtype):
            raise ValueError(f"{entry!r} has {size} bytes, expected {storage.count} numbers of {storage.dtype}")
        places[storage.key] = start, crc
    return _notes_of_pickle(raw, found, places)


def _zip_entries(raw, path):
    """{name: (where its bytes start, how many, checksum)} of a zip in which nothing is compressed and nothing overlaps."""
    tail = raw[-42:].tobytes()
    if tail[-22:-18] != b"PK\5\6":
        raise ValueError("cut short: it begins as a zip and does not end as one")
    # the length of the directory, which zipfile reads into memory; in a zip of more than 4 GB it stands further up
    large = tail[:4] == b"PK\6\7"
    length = int.from_bytes(raw[-58:-50].tobytes() if large else tail[-10:-6], "little")
    if length > LONGEST_DIRECTORY:
        raise ValueError(f"the directory of the zip claims {length} bytes, more than the {LONGEST_DIRECTORY} that are read")
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, IndexError, OverflowError, OSError, struct.error) as error:
        raise ValueError(f"the directory of the zip is damaged ({error})") from error
    entries = {}
    position = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        name = info.orig_filename
        if info.compress_type or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise ValueError(f"{name!r} in it is compressed or encrypted; PyTorch writes plain entries")
        header = raw[info.header_offset : info.header_offset + 30].tobytes() if info.header_offset >= position else b""
        sizes = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        start = info.header_offset + 30 + sum(sizes)
        coded = raw[info.header_offset + 30 :][: sizes[0]].tobytes()
        if header[:4] != b"PK\3\4" or coded != name.encode("utf-8" if info.flag_bits & 0x800 else "cp437"):
            raise ValueError(f"{name!r} is not where the directory of the zip says, or overlaps its neighbour: damaged")
        position = start + info.file_size
        if position > raw.size or name in entries:
            raise ValueError(f"{name!r} in it is cut short, or there twice: damaged")
        entries[name] = start, info.file_size, info.CRC
    return entries


def _read_legacy(raw):
    file = io.BytesIO(raw[:LONGEST_PICKLE].tobytes())
    storages = set()
    if _unpickle(file, storages) != LEGACY_MAGIC:
        raise ValueError("a pickle, but no .pth: the magic number of PyTorch's older format is missing")
    protocol, system, found, keys = [_unpickle(file, storages) for _ in range(4)]
    if protocol != 1001 or not isinstance(system, dict) or not isinstance(keys, list):
        raise ValueError(f"expected protocol 1001 of the older format, got {_short(protocol)}")
    if system.get("little_endian") is not True:
        raise ValueError("written on a big-endian machine: such files are not read")
    known = {storage.key: (storage.dtype, storage.count) for storage in storages}
    if {(key, *known[key]) for key in known} != {(s.key, s.dtype, s.count) for s in storages}:
        raise ValueError("its pickle gives one storage two types or lengths: damaged")
    places, position = {}, file.tell()
    for key in keys:
        if _a(str, key) not in known or key in places:
            raise ValueError(f"its storage {_short(key)} belongs to no tensor, or is there twice: damaged")
        dtype, count = known[key]
        stored = int.from_bytes(raw[position : position + 8].tobytes(), "little")
        position += 8
        if stored != count:
            raise ValueError(f"its storage {_short(key)} claims {stored} numbers, expected {count}: damaged or cut short")
        places[key] = position, 0
        position += count * _width(dtype)
        if position > raw.size:
            raise ValueError(f"cut short: it has {raw.size} bytes, the storage {_short(key)} alone goes up to {position}")
    if position != raw.size or places.keys() != known.keys():
        raise ValueError(f"its storages end at {position} of {raw.size} bytes, {len(places)} of {len(known)}: damaged")
    return _notes_of_pickle(raw, found, places)


# ---- writing ---------------------------------------------------------------------------------------------------------

def write_safetensors(path, tensors, meta=None):
    """Write a .safetensors file in one piece.

    Parameters
    ----------
    path : str or Path; its folder is made where it is missing
    tensors : {name: ndarray} of floats, integers or bools
    meta : {str: str}, or None; Hugging Face's loaders want {"format": "pt"}, which is the default

    Returns
    -------
    Path
    """
    path = Path(path)
    codes = {dtype: code for code, dtype in SAFETENSORS.items()}
    _check_tensors(tensors, codes)
    # wide dtypes first: every tensor then starts at a multiple of its width
    ordered = dict(sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])))
    header, position = {"__metadata__": meta or {"format": "pt"}}, 0
    for name, array in ordered.items():
        end = position + array.nbytes
        header[name] = {"dtype": codes[array.dtype.name], "shape": array.shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with whole_file(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for array in ordered.values():
            file.write(_bytes(array))
    return path


def write_pth(path, tensors, meta=None):
    """Write {"model": tensors, **meta} as a .pth that torch.load reads, weights_only or not.

    Parameters
    ----------
    path : str or Path; its folder is made where it is missing
    tensors : {name: ndarray} of floats, signed integers, uint8 or bools
    meta : {str: number, text, None, or a dict of those}, or None

    Returns
    -------
    Path
    """
    path = Path(path)
    _check_tensors(tensors, STORAGES.values())
    entries = {"data.pkl": _pickle({"model": tensors, **(meta or {})}), "byteorder": b"little"}
    entries |= {f"data/{key}": array for key, array in enumerate(tensors.values())}
    entries["version"] = b"3\n"
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(f"archive/{name}")           # no date: the same weights make the same file
            content = _bytes(content) if isinstance(content, np.ndarray) else content
            info.file_size = len(content)
            # as torch.save does: a filler in front, so that numbers start at a multiple of 64, ready to be mapped
            space = -(file.tell() + 30 + len(info.filename) + 4) % 64
            info.extra = b"FB" + space.to_bytes(2, "little") + bytes(space)
            with archive.open(info, "w") as entry:
                entry.write(content)
    return path


def _check_tensors(tensors, dtypes):
    if not tensors:
        raise ValueError("expected at least one tensor to write, got none")
    for name, array in tensors.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray) or array.dtype.name not in dtypes:
            got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"expected texts as names and arrays of {', '.join(dtypes)}; got {name!r}, {got}")


def _bytes(array):
    """The numbers of an array in C order, low byte first, as a flat memoryview."""
    array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    return memoryview(array.reshape(-1).view(np.uint8))


def _pickle(content):
    """A pickle of nested dicts of tensors, numbers and texts; storages are numbered as the tensors come."""
    storages = {dtype: storage for storage, dtype in STORAGES.items()}
    keys = iter(range(1 << 31))

    def instructions(value):
        if isinstance(value, dict):
            return b"}(" + b"".join(instructions(part) for item in value.items() for part in item) + b"u"
        if isinstance(value, (tuple, list)):
            return b"(" + b"".join(instructions(part) for part in value) + b"t"
        if isinstance(value, np.ndarray):
            storage = b"(%sctorch\n%s\n%s%s%stQ" % (
                instructions("storage"), storages[value.dtype.name].encode(), instructions(str(next(keys))),
                instructions("cpu"), instructions(value.size),
            )
            layout = instructions(0) + instructions(value.shape) + instructions(_strides(value.shape))
            return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + layout + b"\x89ccollections\nOrderedDict\n)RtR"
        if value is None or isinstance(value, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        if isinstance(value, int):
            coded = value.to_bytes(8, "little", signed=True)
            return b"J" + coded[:4] if -(1 << 31) <= value < 1 << 31 else b"\x8a\x08" + coded
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        if isinstance(value, str):
            coded = value.encode("utf-8")
            return b"X" + len(coded).to_bytes(4, "little") + coded
        raise TypeError(f"expected numbers, texts and dicts of them beside the tensors, got {type(value).__name__}")

    return b"\x80\x02" + instructions(content) + b"."
