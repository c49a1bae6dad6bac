"""PyTorch's .pth files, the zip format and the one before it: read without executing anything, and written.

    .pth            a zip, nothing compressed: NAME/data.pkl says which tensors there are, NAME/data/KEY holds a storage
    legacy .pth     five pickles (magic number, protocol, system, the object, the keys), then for each key: count, numbers

A storage is a row of numbers. A tensor is a view of a storage: where it starts, its shape, and how far apart its neighbours are
along each axis (stride). So several tensors can share one storage. `pickles` runs the pickles; every size that they claim is
compared with the file before memory is allocated.

A zip has a checksum for each storage, which `read` compares. The legacy format has none: a flipped bit is not noticed.

Differs: torch.load compares no checksums.
"""
import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tinymae.files import whole_file
from tinymae.weights.pickles import STORAGES, Tensor, expect, unpickle, write_pickle
from tinymae.weights.records import FileRecord, TensorRecord, check_tensors, item_size, raw_bytes, shortened

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

# No file of weights needs more. A longer one was made to fill the memory.
LONGEST_PICKLE = 1 << 24
LONGEST_DIRECTORY = 1 << 22     # of a zip: room for 40,000 storages
FEW_STEPS = 1000                # of the three small pickles before the object, in the legacy format


def _record_of_pickle(raw, found, starts):
    """The FileRecord of an unpickled object; starts: {key of a storage: (its first byte, checksum)}."""
    if not isinstance(found, dict):
        raise ValueError(f"expected a table of tensors, got {shortened(found)}: was one tensor saved, or a whole model?")
    state = next((found[key] for key in ("model", "state_dict") if isinstance(found.get(key), dict)), found)
    meta = _plain(found)
    meta |= {key: _plain(found[key]) for key in ("args", "config") if isinstance(found.get(key), dict)}
    tensors = {}
    for name, tensor in state.items():
        if isinstance(tensor, Tensor):
            storage = tensor.storage
            start, crc = starts[storage.key]
            if str(name) in tensors:
                raise ValueError(f"two of its tensors are called {str(name)!r}, once as a text and once as a number: damaged")
            tensors[str(name)] = TensorRecord(
                start, storage.count, storage.dtype, tensor.offset, tensor.shape, tensor.strides, crc
            )
    if not tensors:
        raise ValueError(f"it contains no tensors; its keys are {', '.join(shortened(key) for key in list(state)[:5])}")
    return FileRecord(raw, tensors, meta)


def _plain(found):
    """The entries of a dict that are numbers or texts, or pairs of them, as the sides of a rectangle."""
    plain = (str, int, float, type(None))
    return {
        str(k): v for k, v in found.items()
        if isinstance(v, plain) or (isinstance(v, tuple) and len(v) == 2 and all(isinstance(part, plain) for part in v))
    }


def read_zip(raw: np.ndarray, path: Path) -> FileRecord:
    """The record of a .pth that is a zip, given as uint8. Raises a ValueError if it is damaged or claims more than it has."""
    entries = _zip_entries(raw, path)
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError("a zip, but not a .pth: expected one data.pkl in it; open a tinymae checkpoint (.npz) with --model")

    def content(name):
        start, size, crc = entries[roots[0] + name]
        if size > LONGEST_PICKLE:
            raise ValueError(f"its {name} has {size} bytes, expected at most {LONGEST_PICKLE}")
        data = raw[start : start + size].tobytes()
        if crc and zlib.crc32(data) != crc:
            raise ValueError(f"its {name} does not match its checksum: damaged, fetch the file again")
        return data

    if roots[0] + "byteorder" in entries and content("byteorder") != b"little":
        raise ValueError("written on a big-endian machine, which is not supported: save it on another")
    found, storages = unpickle(io.BytesIO(content("data.pkl")))
    starts = {}
    for storage in storages:
        entry = f"{roots[0]}data/{storage.key}"
        if entry not in entries:
            raise ValueError(f"the storage {entry!r} is missing: damaged")
        start, size, crc = entries[entry]
        if size != storage.count * item_size(storage.dtype):
            raise ValueError(f"{entry!r} has {size} bytes, expected {storage.count} numbers of {storage.dtype}")
        starts[storage.key] = start, crc
    return _record_of_pickle(raw, found, starts)


def _zip_entries(raw, path):
    """{name: (its first byte, bytes, checksum)} of a zip in which nothing is compressed and nothing overlaps."""
    tail = raw[-42:].tobytes()
    if tail[-22:-18] != b"PK\5\6":
        raise ValueError("cut short: it begins but does not end as a zip")
    # the length of the directory, which zipfile reads into memory; in a zip of more than 4 GB it is stored earlier
    large = tail[:4] == b"PK\6\7"
    length = int.from_bytes(raw[-58:-50].tobytes() if large else tail[-10:-6], "little")
    if length > LONGEST_DIRECTORY:
        raise ValueError(f"the directory of the zip claims {length} bytes, expected at most {LONGEST_DIRECTORY}")
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
            raise ValueError(f"{name!r} in it is cut short, or occurs twice: damaged")
        entries[name] = start, info.file_size, info.CRC
    return entries


def read_legacy(raw: np.ndarray) -> FileRecord:
    """The record of a .pth in the legacy format, given as uint8. Raises a ValueError as `read_zip`."""
    file = io.BytesIO(raw[:LONGEST_PICKLE].tobytes())
    if unpickle(file, FEW_STEPS)[0] != LEGACY_MAGIC:
        raise ValueError("a pickle, but not a .pth: the magic number of PyTorch's legacy format is missing")
    (protocol, _), (system, _) = [unpickle(file, FEW_STEPS) for _ in range(2)]
    (found, storages), (keys, _) = [unpickle(file) for _ in range(2)]
    if protocol != 1001 or not isinstance(system, dict) or not isinstance(keys, list):
        raise ValueError(f"expected protocol 1001 of the legacy format, got {shortened(protocol)}")
    if system.get("little_endian") is not True:
        raise ValueError("written on a big-endian machine, which is not supported: save it on another")
    known = {storage.key: (storage.dtype, storage.count) for storage in storages}
    if {(key, *known[key]) for key in known} != {(s.key, s.dtype, s.count) for s in storages}:
        raise ValueError("its pickle gives one storage two dtypes or lengths: damaged")
    starts, position = {}, file.tell()
    for key in keys:
        if expect(str, key) not in known or key in starts:
            raise ValueError(f"its storage {shortened(key)} belongs to no tensor, or occurs twice: damaged")
        dtype, count = known[key]
        stored = int.from_bytes(raw[position : position + 8].tobytes(), "little")
        position += 8
        if stored != count:
            raise ValueError(f"its storage {shortened(key)} claims {stored} numbers, expected {count}: damaged or cut short")
        starts[key] = position, 0
        position += count * item_size(dtype)
        if position > raw.size:
            raise ValueError(f"cut short: it has {raw.size} bytes, its storage {shortened(key)} ends at {position}")
    if position != raw.size or starts.keys() != known.keys():
        raise ValueError(f"its {len(starts)} storages end at byte {position}, expected {len(known)} and {raw.size}: damaged")
    return _record_of_pickle(raw, found, starts)


def write_pth(path: Path | str, tensors: dict[str, np.ndarray], meta: dict | None = None) -> Path:
    """Write {"model": tensors, **meta} as a .pth that torch.load reads, weights_only or not.

    Parameters
    ----------
    path : its folder is created if it is missing
    tensors : arrays of floats, signed integers, uint8 or bools
    meta : {str: number, text, None, or a dict of those}

    Raises
    ------
    ValueError
        if there are no tensors
    TypeError
        if a name is not a text, or an array or an entry of meta has a type that the format lacks
    """
    path = Path(path)
    check_tensors(tensors, STORAGES.values())
    entries = {"data.pkl": write_pickle({"model": tensors, **(meta or {})}), "byteorder": b"little"}
    entries |= {f"data/{key}": array for key, array in enumerate(tensors.values())}
    entries["version"] = b"3\n"
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(f"archive/{name}")           # no date: the same weights give the same file
            content = raw_bytes(content) if isinstance(content, np.ndarray) else content
            info.file_size = len(content)
            # as torch.save does: padding in front, so that numbers start at a multiple of 64 and can be mapped
            space = -(file.tell() + 30 + len(info.filename) + 4) % 64
            info.extra = b"FB" + space.to_bytes(2, "little") + bytes(space)
            with archive.open(info, "w") as entry:
                entry.write(content)
    return path
