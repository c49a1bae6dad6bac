"""Read a file of weights without PyTorch: .pth (the zip format and the one before it) or .safetensors, in one file or several.

The first bytes tell the format. Its reader (`pth`, `safetensors`) returns a record of each tensor, and this module turns the
records into arrays. Nothing in a file is ever executed.

A file can hold several tables of tensors: a model and its moving average, a student and a teacher, the state of an optimiser.
The one that is a model is read, or else the one that is not inside another; if there are several, `key` chooses.

Weights stay in the file: arrays are views of it (memory map), and the system reads their bytes when they are used. The map is
private: writing into an array changes memory and never the file.

Every size is compared with the file before memory is allocated. The checksums of a zip are compared in one pass, at a few GB/s.
"""
import json
import math
import mmap
import os
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinymae.files import never_downloaded
from tinymae.messages import message as _
from tinymae.weights.names import ask, left_out, model_prefixes
from tinymae.weights.pth import read_legacy, read_zip
from tinymae.weights.records import BFLOAT16, FileRecord, item_size, shortened, unique
from tinymae.weights.safetensors import read_safetensors

INDEX = ".index.json"           # ends the name of the file that lists several files of one model
LONGEST_INDEX = 1 << 22         # room for 30,000 tensors
MOST_MODELS = 10                # beside a plain one; every name is compared with each of them


@dataclass(frozen=True, eq=False)
class Weights:
    """The tensors of a file, and what it says beside them."""

    tensors: dict[str, np.ndarray]  # views of the file if dtype and alignment allow; bfloat16 as float32
    dtypes: dict[str, str]          # as they are in the file
    meta: dict                      # numbers and texts: epoch, args (a dict), the metadata of safetensors; see `list_weights`
    mapped: tuple[mmap.mmap, ...] = ()      # the files, of which the tensors are views

    def release(self) -> None:
        """Free the memory that views took when they were read; it is read again when it is needed.

        What was written into a view is lost. No effect on systems without this call (Windows).
        """
        for mapped in self.mapped:
            if hasattr(mapped, "madvise"):
                mapped.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True, eq=False)
class _Part:
    """One of the files of a model."""

    path: Path
    record: FileRecord


def read_weights(path: Path | str, *, key: str | None = None) -> Weights:
    """Read a .pth or .safetensors file, whose first bytes tell which of the two it is, or all files that an index lists.

    Parameters
    ----------
    path : the file, or the .index.json beside several
    key : in a file with several models, the name of the one to read, such as "teacher"; after a full stop, that of a table in
        it, or the beginning of names: "state_dict.teacher"

    Returns
    -------
    Weights
        of a training checkpoint, only the model: the state of its optimiser is not read. You may write into the arrays: the
        file does not change. Tensors that share numbers in the file share them here.

    Raises
    ------
    FileNotFoundError
        if there is no such file, or an index lists one that is missing
    ValueError
        if the file is cut short, damaged, of another format, claims more than it has, or names what is not a tensor; if it has
        several models and key chooses none; the message gives the file and the reason
    """
    parts = _parts(path)
    chosen, meta = _choose(path, parts, key)
    _compare_checksums(chosen)
    arrays, tensors = {}, {}
    for name, (part, record) in chosen.items():
        where = (part.path, record.start, record.count, record.dtype)
        if where not in arrays:
            arrays[where] = _numbers(part, record)
        array = arrays[where]
        strides = [step * array.itemsize for step in record.strides]
        # given a buffer, NumPy checks the bounds once more, which as_strided does not
        tensors[name] = (
            np.ndarray(record.shape, array.dtype, array, record.offset * array.itemsize, strides) if 0 not in record.shape
            else np.empty(record.shape, array.dtype)
        )
    mapped = tuple(part.record.raw.base.obj for part in parts)      # the map under the array's memoryview
    return Weights(tensors, {name: record.dtype for name, (_part, record) in chosen.items()}, meta, mapped)


def list_weights(path: Path | str, *, key: str | None = None) -> tuple[list[tuple[str, tuple, str]], dict]:
    """([(name, shape, dtype)], meta) of a file, without reading its numbers.

    meta holds an `Unread` in the place of tensors that are not part of the model, and of objects that are not known here.
    Parameters and errors are those of `read_weights`.
    """
    chosen, meta = _choose(path, _parts(path), key)
    return [(name, record.shape, record.dtype) for name, (_part, record) in chosen.items()], meta


def _parts(path):
    """The files of a model."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(_("{path}: no such file of weights", path=path))
    if not path.is_file():
        raise ValueError(_("{path}: expected a file of weights, .pth or .safetensors, got a folder", path=path))
    if path.name.endswith(INDEX):
        return _indexed(path)
    return [_Part(path, _read_record(path))]


def _indexed(path):
    """The files that an index lists: {"weight_map": {name of a tensor: file beside the index}}."""
    if path.stat().st_size > LONGEST_INDEX:
        raise ValueError(_("{path}: expected at most {most} bytes of an index, got {size}",
                           path=path, most=LONGEST_INDEX, size=path.stat().st_size))
    raw = path.read_bytes()
    try:
        index = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        wrong = never_downloaded(path) or _("expected an index of weights, JSON: {error}", error=error)
        raise ValueError(_("{file}: {reason}", file=path, reason=wrong)) from error
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(_("{path}: expected a weight_map in it, from the name of each tensor to a file", path=path))
    parts, names = [], sorted(set(files.values()))
    for file in names:
        if "/" in file or "\\" in file or ":" in file or file in ("", ".", ".."):
            raise ValueError(_("{path}: lists {file}: expected the name of a file in the same folder",
                               path=path, file=shortened(file)))
        if not path.with_name(file).is_file():
            raise FileNotFoundError(_("{path}: lists {file}, which is not in the folder: download all of its files",
                                      path=path, file=shortened(file)))
    for file in names:
        parts.append(_Part(path.with_name(file), _read_record(path.with_name(file))))
        found = {name for table in parts[-1].record.tables.values() for name in table}
        for name in sorted(found ^ {name for name, place in files.items() if place == file}):
            wrong = _("{path}: has a tensor that its index does not list there, {name}: are these parts of one model?",
                      path=path.with_name(file), name=shortened(name))
            if name not in found:
                wrong = _("{path}: has not a tensor that its index lists there, {name}: are these parts of one model?",
                          path=path.with_name(file), name=shortened(name))
            raise ValueError(wrong)
    return parts


def _read_record(path):
    if wrong := never_downloaded(path):
        raise ValueError(_("{file}: {reason}", file=path, reason=wrong))
    with path.open("rb") as file:
        start = file.read(16)
        if len(start) < 10:
            raise ValueError(_("{path}: empty, or cut short: it has {count} bytes, weights have more: fetch it again",
                               path=path, count=len(start)))
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)   # copy on write: the file does not change
    raw = np.frombuffer(mapped, np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)     # pickletools warns of odd names, which are refused
            if start.startswith(b"PK\x03\x04"):
                record = read_zip(raw, path)
            elif start[8:9] == b"{":
                record = read_safetensors(raw)
            elif start.startswith(b"\x80"):
                record = read_legacy(raw)
            else:
                raise ValueError(_("expected .pth or .safetensors, got a file that begins with {start!r}", start=start))
        if not record.tables:
            raise ValueError(_("it contains no tensors"))
    except (ValueError, RecursionError) as error:
        raise ValueError(_("{file}: {reason}", file=path, reason=error)) from error
    return record


def _choose(path, parts, key):
    """({name: (part, record)}, meta): the table of the model, or what a key says."""
    tables, meta = {}, {}
    for part in parts:
        for table, tensors in part.record.tables.items():
            tables.setdefault(table, {}).update({name: (part, record) for name, record in tensors.items()})
        meta |= part.record.meta
    try:
        key = _table(tables) if key is None else key
        begins = f"{key}." if key else ""
        chosen, others = {}, []
        for table, tensors in tables.items():
            for name, found in tensors.items():
                whole = f"{table}.{name}" if table else name
                if not (whole.startswith(begins) if key else not table):
                    others.append(whole)
                elif whole.removeprefix(begins) in chosen:
                    raise ValueError(_("two of its tensors are called {whole!r}: damaged", whole=whole))
                else:
                    chosen[whole.removeprefix(begins)] = found
        if not chosen:
            known = ", ".join(map(repr, _keys(tables)[:10]))
            raise ValueError(_("it has no tensors under the key {key!r}: expected one of {known}", key=key, known=known))
        models = model_prefixes(chosen)
        if len(models) > (MOST_MODELS if "" in models else 1):
            raise ValueError(ask(begins + prefix[:-1] for prefix in models))
        # Views of one storage take no memory until they are copied. A tied matrix has at most four names.
        claimed = sum(math.prod(record.shape) * item_size(record.dtype) for _part, record in chosen.values())
        size = sum(part.record.raw.size for part in parts)
        if claimed > 8 * size + 4096:
            raise ValueError(_("its tensors claim {claimed} bytes, and the file has {size}", claimed=claimed, size=size))
    except ValueError as error:
        raise ValueError(_("{file}: {reason}", file=path, reason=error)) from error
    return chosen, meta | left_out(others, begins)


def _keys(tables):
    """The keys of the models in a file, or of all of its tables if there is none."""
    keys = []
    for table, tensors in tables.items():
        found = model_prefixes(tensors)
        keys += [table] if len(found) == 1 and table else [f"{table}.{prefix[:-1]}".strip(".") for prefix in found]
    return keys or list(tables)


def _table(tables):
    """The key of the table to read: the only one with a model; or if none is known, the only one that is in no other."""
    models = {table: prefixes for table, tensors in tables.items() if (prefixes := model_prefixes(tensors))}
    if "" in models.get("", {}):
        return ""                                               # what stands beside a plain model is `Unread`
    depths = {table: len(table.split(".")) if table else 0 for table in tables}
    least = min(depths.values())
    found = list(models) or [table for table, depth in depths.items() if depth == least]
    if len(found) > 1:
        raise ValueError(ask(_keys(tables)))
    return found[0]


def _stored(part, record):
    return part.record.raw[record.start : record.start + record.count * item_size(record.dtype)]


def _compare_checksums(chosen):
    """Raise a ValueError if a storage has changed since it was written. A file has many storages: they are read in parallel."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        summed = {(part.path, record.start): (name, part, record) for name, (part, record) in chosen.items() if record.crc}
        sums = pool.map(lambda found: zlib.crc32(_stored(*found[1:])), summed.values())
        for (name, part, record), found in zip(summed.values(), sums, strict=True):
            if found != record.crc:
                raise ValueError(_("{path}: the numbers of {name!r} do not match their checksum: damaged, fetch the file again",
                                   path=part.path, name=name))


def _numbers(part, record):
    """The storage of a tensor as an ndarray: a view of the file, or a copy if it cannot be one."""
    data = _stored(part, record)
    if record.dtype == "bool":
        return data != 0                                        # a bool of NumPy's has to be the byte 0 or 1
    if record.dtype == BFLOAT16:
        wide = np.zeros((record.count, 2), "<u2")
        wide[:, 1] = data.view("<u2")                           # the lower half of a float32 comes first
        return wide.reshape(-1).view("<f4")
    dtype = np.dtype(record.dtype).newbyteorder("<")
    if record.start % dtype.itemsize == 0:
        return data.view(dtype)
    with part.path.open("rb") as stream:                       # not from the map: its pages would take memory, too
        stream.seek(record.start)
        return np.fromfile(stream, dtype, record.count)
