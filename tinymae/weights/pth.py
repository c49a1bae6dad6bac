"""PyTorch's .pth files, the zip format and the one before it: read without executing anything, and written."""
import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tinymae.files import whole_file
from tinymae.weights.notes import Note, Notes, check_tensors, item_size, raw_bytes, shortened
from tinymae.weights.pickles import STORAGES, Tensor, expect, unpickle, write_pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

# No file of weights needs more, and what is longer was made to fill the memory.
LONGEST_PICKLE = 1 << 24
LONGEST_DIRECTORY = 1 << 22     # of a zip: room for 40,000 storages


def _notes_of_pickle(raw, found, places):
    """The _Notes of an unpickled object; places: {key of a storage: (where it starts, checksum)}."""
    if not isinstance(found, dict):
        raise ValueError(f"expected a table of tensors, got {shortened(found)}: was one tensor saved, or a whole model?")
    state = next((found[key] for key in ("model", "state_dict") if isinstance(found.get(key), dict)), found)
    meta = _plain(found)
    meta |= {key: _plain(found[key]) for key in ("args", "config") if isinstance(found.get(key), dict)}
    tensors = {}
    for name, tensor in state.items():
        if isinstance(tensor, Tensor):
            storage = tensor.storage
            start, crc = places[storage.key]
            tensors[str(name)] = Note(
                start, storage.count, storage.dtype, tensor.offset, tensor.shape, tensor.strides, crc
            )
    if not tensors:
        raise ValueError(f"there are no tensors in it; its keys are {', '.join(shortened(key) for key in list(state)[:5])}")
    return Notes(raw, tensors, meta)


def _plain(found):
    """Those entries of a dict that are numbers or texts."""
    return {str(k): v for k, v in found.items() if isinstance(v, (str, int, float, type(None)))}


def read_zip(raw, path):
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
    found = unpickle(io.BytesIO(content("data.pkl")), storages)
    places = {}
    for storage in storages:
        entry = f"{roots[0]}data/{storage.key}"
        if entry not in entries:
            raise ValueError(f"the storage {entry!r} is missing: damaged")
        start, size, crc = entries[entry]
        if size != storage.count * item_size(storage.dtype):
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


def read_legacy(raw):
    file = io.BytesIO(raw[:LONGEST_PICKLE].tobytes())
    storages = set()
    if unpickle(file, storages) != LEGACY_MAGIC:
        raise ValueError("a pickle, but no .pth: the magic number of PyTorch's older format is missing")
    protocol, system, found, keys = [unpickle(file, storages) for _ in range(4)]
    if protocol != 1001 or not isinstance(system, dict) or not isinstance(keys, list):
        raise ValueError(f"expected protocol 1001 of the older format, got {shortened(protocol)}")
    if system.get("little_endian") is not True:
        raise ValueError("written on a big-endian machine: such files are not read")
    known = {storage.key: (storage.dtype, storage.count) for storage in storages}
    if {(key, *known[key]) for key in known} != {(s.key, s.dtype, s.count) for s in storages}:
        raise ValueError("its pickle gives one storage two types or lengths: damaged")
    places, position = {}, file.tell()
    for key in keys:
        if expect(str, key) not in known or key in places:
            raise ValueError(f"its storage {shortened(key)} belongs to no tensor, or is there twice: damaged")
        dtype, count = known[key]
        stored = int.from_bytes(raw[position : position + 8].tobytes(), "little")
        position += 8
        if stored != count:
            raise ValueError(f"its storage {shortened(key)} claims {stored} numbers, expected {count}: damaged or cut short")
        places[key] = position, 0
        position += count * item_size(dtype)
        if position > raw.size:
            raise ValueError(f"cut short: it has {raw.size} bytes, the storage {shortened(key)} alone goes up to {position}")
    if position != raw.size or places.keys() != known.keys():
        raise ValueError(f"its storages end at {position} of {raw.size} bytes, {len(places)} of {len(known)}: damaged")
    return _notes_of_pickle(raw, found, places)


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
    check_tensors(tensors, STORAGES.values())
    entries = {"data.pkl": write_pickle({"model": tensors, **(meta or {})}), "byteorder": b"little"}
    entries |= {f"data/{key}": array for key, array in enumerate(tensors.values())}
    entries["version"] = b"3\n"
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(f"archive/{name}")           # no date: the same weights make the same file
            content = raw_bytes(content) if isinstance(content, np.ndarray) else content
            info.file_size = len(content)
            # as torch.save does: a filler in front, so that numbers start at a multiple of 64, ready to be mapped
            space = -(file.tell() + 30 + len(info.filename) + 4) % 64
            info.extra = b"FB" + space.to_bytes(2, "little") + bytes(space)
            with archive.open(info, "w") as entry:
                entry.write(content)
    return path
