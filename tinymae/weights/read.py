"""Read a file of weights without PyTorch: .pth (the zip format and the one before it) or .safetensors.

The first bytes tell the format. Its reader (`pth`, `safetensors`) returns a record of each tensor, and this module turns the
records into arrays. Nothing in a file is ever executed.

Weights stay in the file: arrays are views of it (memory map), and the system reads their bytes when they are used. The map is
private: writing into an array changes memory and never the file.

Every size is compared with the file before memory is allocated. The checksums of a zip are compared in one pass, at a few GB/s.
"""
import math
import mmap
import os
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinymae.weights.pth import read_legacy, read_zip
from tinymae.weights.records import BFLOAT16, item_size
from tinymae.weights.safetensors import read_safetensors


@dataclass(frozen=True, eq=False)
class Weights:
    """The tensors of a file, and what it says beside them."""

    tensors: dict[str, np.ndarray]  # views of the file if dtype and alignment allow; bfloat16 as float32
    dtypes: dict[str, str]          # as they are in the file
    meta: dict                      # plain numbers and texts: epoch, args (a dict), the metadata of safetensors
    mapped: mmap.mmap | None = None     # the file, of which the tensors are views

    def release(self) -> None:
        """Free the memory that views took when they were read; it is read again when it is needed.

        What was written into a view is lost. No effect on systems without this call (Windows).
        """
        if self.mapped is not None and hasattr(self.mapped, "madvise"):
            self.mapped.madvise(mmap.MADV_DONTNEED)


def read_weights(path: Path | str) -> Weights:
    """Read a .pth or .safetensors file; its first bytes tell which of the two it is.

    Returns
    -------
    Weights
        of a training checkpoint, only what is under "model" (or "state_dict"), or else at the top level: the state of its
        optimiser is not read. You may write into the arrays: the file does not change. Tensors that share numbers in the file
        share them here.

    Raises
    ------
    FileNotFoundError
        if there is no such file
    ValueError
        if the file is cut short, damaged, of another format, claims more than it has, or names what is not a tensor; the
        message gives the file and the reason
    """
    file = _read_record(path)
    _compare_checksums(path, file)
    arrays = {}
    tensors = {}
    for name, record in file.tensors.items():
        key = (record.start, record.count, record.dtype)
        if key not in arrays:
            arrays[key] = _numbers(path, file, record)
        array = arrays[key]
        strides = [step * array.itemsize for step in record.strides]
        # given a buffer, NumPy checks the bounds once more, which as_strided does not
        tensors[name] = (
            np.ndarray(record.shape, array.dtype, array, record.offset * array.itemsize, strides) if 0 not in record.shape
            else np.empty(record.shape, array.dtype)
        )
    mapped = file.raw.base.obj                                      # the map under the array's memoryview
    return Weights(tensors, {name: record.dtype for name, record in file.tensors.items()}, file.meta, mapped)


def list_weights(path: Path | str) -> tuple[list[tuple[str, tuple, str]], dict]:
    """([(name, shape, dtype)], meta) of a file, without reading its numbers. Raises as `read_weights`."""
    file = _read_record(path)
    return [(name, record.shape, record.dtype) for name, record in file.tensors.items()], file.meta


def _read_record(path):
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file of weights")
    if not path.is_file():
        raise ValueError(f"{path}: expected a file of weights, .pth or .safetensors, got a folder")
    if path.stat().st_size < 10:
        raise ValueError(f"{path}: cut short: it has {path.stat().st_size} bytes, a file of weights has more")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)   # copy on write: the file does not change
    raw = np.frombuffer(mapped, np.uint8)
    start = raw[:16].tobytes()
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
                raise ValueError(f"expected .pth or .safetensors, got a file that begins with {start!r}")
        if not record.tensors:
            raise ValueError("it contains no tensors")
        # Views of one storage take no memory until they are copied. A tied matrix has at most four names.
        claimed = sum(math.prod(tensor.shape) * item_size(tensor.dtype) for tensor in record.tensors.values())
        if claimed > 8 * raw.size + 4096:
            raise ValueError(f"its tensors claim {claimed} bytes, and the file has {raw.size}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    return record


def _stored(file, record):
    return file.raw[record.start : record.start + record.count * item_size(record.dtype)]


def _compare_checksums(path, file):
    """Raise a ValueError if a storage has changed since it was written. A file has many storages: they are read in parallel."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        summed = {record.start: (name, record) for name, record in file.tensors.items() if record.crc}
        sums = pool.map(lambda found: zlib.crc32(_stored(file, found[1])), summed.values())
        for (name, record), found in zip(summed.values(), sums, strict=True):
            if found != record.crc:
                raise ValueError(f"{path}: the numbers of {name!r} do not match their checksum: damaged, fetch the file again")


def _numbers(path, file, record):
    """The storage of a tensor as an ndarray: a view of the file, or a copy if it cannot be one."""
    data = _stored(file, record)
    if record.dtype == "bool":
        return data != 0                                        # a bool of NumPy's has to be the byte 0 or 1
    if record.dtype == BFLOAT16:
        wide = np.zeros((record.count, 2), "<u2")
        wide[:, 1] = data.view("<u2")                           # the lower half of a float32 comes first
        return wide.reshape(-1).view("<f4")
    dtype = np.dtype(record.dtype).newbyteorder("<")
    if record.start % dtype.itemsize == 0:
        return data.view(dtype)
    with Path(path).open("rb") as stream:                       # not from the map: its pages would take memory, too
        stream.seek(record.start)
        return np.fromfile(stream, dtype, record.count)
