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
import math
import mmap
import os
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymae.weights.notes import BFLOAT16, item_size
from tinymae.weights.pth import read_legacy, read_zip
from tinymae.weights.safetensors import read_safetensors


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
                notes = read_zip(raw, path)
            elif start[8:9] == b"{":
                notes = read_safetensors(raw)
            elif start.startswith(b"\x80"):
                notes = read_legacy(raw)
            else:
                raise ValueError(f"neither .pth nor .safetensors: it begins with {start!r}")
        if not notes.tensors:
            raise ValueError("there are no tensors in it")
        # Views of one storage cost nothing until somebody copies them. A tied matrix has four names at the most.
        claimed = sum(math.prod(note.shape) * item_size(note.dtype) for note in notes.tensors.values())
        if claimed > 8 * raw.size + 4096:
            raise ValueError(f"its tensors claim {claimed} bytes, and the file has {raw.size}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    return notes


def _stored(notes, note):
    return notes.raw[note.start : note.start + note.count * item_size(note.dtype)]


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
