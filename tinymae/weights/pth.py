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
from tinymae.messages import message as _
from tinymae.weights.pickles import STORAGES, Tensor, expect, refusal, unpickle, write_pickle
from tinymae.weights.records import FileRecord, TensorRecord, Unread, check_tensors, item_size, raw_bytes, shortened

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

# No file of weights needs more. A longer one was made to fill the memory.
LONGEST_PICKLE = 1 << 24
LONGEST_DIRECTORY = 1 << 22     # of a zip: room for 40,000 storages
LONGEST_PATH = 200              # characters, of a table inside of tables; those beyond are not read
FEW_STEPS = 1000                # of the three small pickles before the object, in the legacy format


def _record_of_pickle(raw, found, starts):
    """The FileRecord of an unpickled object; starts: {key of a storage: (its first byte, checksum)}."""
    if isinstance(found, Unread):
        raise ValueError(_("{refused}; was a whole model saved? Save its state_dict()", refused=refusal(found.what)))
    if not isinstance(found, dict):
        raise ValueError(_("expected a table of tensors, got {got}: was one tensor saved, or a whole model?",
                           got=shortened(found)))
    meta = _plain(found)
    meta |= {key: _plain(found[key]) for key in ("args", "config") if isinstance(found.get(key), dict)}
    tables, seen, waiting = {}, set(), [("", found)]
    for key, table in waiting:                                  # grows: tables inside of tables, each of them once
        if id(table) in seen:
            continue
        seen.add(id(table))
        tensors = {}
        for name, value in table.items():
            if isinstance(value, Tensor):
                name, (start, crc) = str(name), starts[value.storage.key]
                if name in tensors:
                    raise ValueError(_("two of its tensors are called {name!r}, once as a text and once as a number: damaged",
                                       name=name))
                tensors[name] = TensorRecord(
                    start, value.storage.count, value.storage.dtype, value.offset, value.shape, value.strides, crc
                )
            elif isinstance(value, (dict, Unread)) and len(inner := f"{key}.{name}" if key else str(name)) <= LONGEST_PATH:
                if isinstance(value, Unread):
                    meta[inner] = value
                else:
                    waiting.append((inner, value))
        if tensors:
            if key in tables:
                raise ValueError(_("two of its tables have the key {key!r}: damaged", key=key))
            tables[key] = tensors
    if not tables:
        keys = [
            f"{shortened(key)} ({refusal(value.what)})" if isinstance(value, Unread) else shortened(key)
            for key, value in list(found.items())[:5]
        ]
        raise ValueError(_("it contains no tensors; its keys are {keys}", keys=", ".join(keys)))
    return FileRecord(raw, tables, meta)


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
        raise ValueError(_("a zip, but not a .pth: expected one data.pkl in it; open a tinymae checkpoint (.npz) with --model"))

    def content(name):
        start, size, crc = entries[roots[0] + name]
        if size > LONGEST_PICKLE:
            raise ValueError(_("its {name} has {size} bytes, expected at most {most}",
                               name=name, size=size, most=LONGEST_PICKLE))
        data = raw[start : start + size].tobytes()
        if crc and zlib.crc32(data) != crc:
            raise ValueError(_("its {name} does not match its checksum: damaged, fetch the file again", name=name))
        return data

    if roots[0] + "byteorder" in entries and content("byteorder") != b"little":
        raise ValueError(_("written on a big-endian machine, which is not supported: save it on another"))
    found, storages = unpickle(io.BytesIO(content("data.pkl")))
    starts = {}
    for storage in storages:
        entry = f"{roots[0]}data/{storage.key}"
        if entry not in entries:
            raise ValueError(_("the storage {entry!r} is missing: damaged", entry=entry))
        start, size, crc = entries[entry]
        if size != storage.count * item_size(storage.dtype):
            raise ValueError(_("{entry!r} has {size} bytes, expected {count} numbers of {dtype}",
                               entry=entry, size=size, count=storage.count, dtype=storage.dtype))
        starts[storage.key] = start, crc
    return _record_of_pickle(raw, found, starts)


def _zip_entries(raw, path):
    """{name: (its first byte, bytes, checksum)} of a zip in which nothing is compressed and nothing overlaps."""
    tail = raw[-42:].tobytes()
    if tail[-22:-18] != b"PK\5\6":
        raise ValueError(_("cut short: it begins but does not end as a zip"))
    # the length of the directory, which zipfile reads into memory; in a zip of more than 4 GB it is stored earlier
    large = tail[:4] == b"PK\6\7"
    length = int.from_bytes(raw[-58:-50].tobytes() if large else tail[-10:-6], "little")
    if length > LONGEST_DIRECTORY:
        raise ValueError(_("the directory of the zip claims {length} bytes, expected at most {most}",
                           length=length, most=LONGEST_DIRECTORY))
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, IndexError, OverflowError, OSError, struct.error) as error:
        raise ValueError(_("the directory of the zip is damaged ({error})", error=error)) from error
    entries = {}
    position = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        name = info.orig_filename
        if info.compress_type or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise ValueError(_("{name!r} in it is compressed or encrypted; PyTorch writes plain entries", name=name))
        header = raw[info.header_offset : info.header_offset + 30].tobytes() if info.header_offset >= position else b""
        sizes = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        start = info.header_offset + 30 + sum(sizes)
        coded = raw[info.header_offset + 30 :][: sizes[0]].tobytes()
        if header[:4] != b"PK\3\4" or coded != name.encode("utf-8" if info.flag_bits & 0x800 else "cp437"):
            raise ValueError(_("{name!r} is not where the directory of the zip says, or overlaps its neighbour: damaged",
                               name=name))
        position = start + info.file_size
        if position > raw.size or name in entries:
            raise ValueError(_("{name!r} in it is cut short, or occurs twice: damaged", name=name))
        entries[name] = start, info.file_size, info.CRC
    return entries


def read_legacy(raw: np.ndarray) -> FileRecord:
    """The record of a .pth in the legacy format, given as uint8. Raises a ValueError as `read_zip`."""
    file = io.BytesIO(raw[:LONGEST_PICKLE].tobytes())
    if unpickle(file, FEW_STEPS)[0] != LEGACY_MAGIC:
        raise ValueError(_("a pickle, but not a .pth: the magic number of PyTorch's legacy format is missing"))
    (protocol, _none), (system, _none) = [unpickle(file, FEW_STEPS) for _time in range(2)]
    (found, storages), (keys, _none) = [unpickle(file) for _time in range(2)]
    if protocol != 1001 or not isinstance(system, dict) or not isinstance(keys, list):
        raise ValueError(_("expected protocol 1001 of the legacy format, got {protocol}", protocol=shortened(protocol)))
    if system.get("little_endian") is not True:
        raise ValueError(_("written on a big-endian machine, which is not supported: save it on another"))
    known = {storage.key: (storage.dtype, storage.count) for storage in storages}
    if {(key, *known[key]) for key in known} != {(s.key, s.dtype, s.count) for s in storages}:
        raise ValueError(_("its pickle gives one storage two dtypes or lengths: damaged"))
    starts, position = {}, file.tell()
    for key in keys:
        if expect(str, key) not in known or key in starts:
            raise ValueError(_("its storage {key} belongs to no tensor, or occurs twice: damaged", key=shortened(key)))
        dtype, count = known[key]
        stored = int.from_bytes(raw[position : position + 8].tobytes(), "little")
        position += 8
        if stored != count:
            raise ValueError(_("its storage {key} claims {stored} numbers, expected {count}: damaged or cut short",
                               key=shortened(key), stored=stored, count=count))
        starts[key] = position, 0
        position += count * item_size(dtype)
        if position > raw.size:
            raise ValueError(_("cut short: it has {size} bytes, its storage {key} ends at {position}",
                               size=raw.size, key=shortened(key), position=position))
    if position != raw.size or starts.keys() != known.keys():
        raise ValueError(_("its {count} storages end at byte {position}, expected {expected} and {size}: damaged",
                           count=len(starts), position=position, expected=len(known), size=raw.size))
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
