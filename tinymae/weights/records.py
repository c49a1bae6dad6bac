"""What a file says about its tensors before their numbers are read, in one form for every format.

The readers of the formats (`safetensors`, `pth`) return a `FileRecord`: the bytes of the file, and for each tensor its dtype,
shape, strides and position in the file. `read` turns it into arrays. Below are the checks that readers and writers share.
"""
import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from tinymae.messages import message as _

BFLOAT16 = "bfloat16"       # the upper half of a float32; NumPy has no such dtype, so it is read as uint16 and widened


@dataclass(frozen=True)
class TensorRecord:
    """Where a tensor lies in the file."""

    start: int      # of its storage, in bytes
    count: int      # numbers in its storage
    dtype: str
    offset: int     # from here on in numbers
    shape: tuple
    strides: tuple
    crc: int        # of the storage; 0 if there is none


@dataclass(frozen=True)
class Unread:
    """In the place of something in a file that was not read."""

    what: str       # "300 tensors", or the name of a class that is not known here


@dataclass(frozen=True, eq=False)
class FileRecord:
    """A file, and what it says about its tensors."""

    raw: np.ndarray                                 # the file, uint8
    tables: dict[str, dict[str, TensorRecord]]      # {key: {name: tensor}}; "" is the top level, "a.b" a table b in a table a
    meta: dict                                      # numbers and texts beside the tensors, `Unread` for what is neither


def item_size(dtype: str) -> int:
    """Bytes of one number."""
    return 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize


def are_sizes(value: object) -> bool:
    """Is it a list or tuple of at most 64 (NumPy's limit) plain integers of at least 0, each within 63 bits?"""
    return (
        isinstance(value, (list, tuple)) and len(value) <= 64
        and all(type(size) is int and 0 <= size < 1 << 63 for size in value)
    )


def is_shape(value: object) -> bool:
    """Can it be the shape of an array? The sizes of an empty array are multiplied, too."""
    return are_sizes(value) and math.prod(max(size, 1) for size in value) < 1 << 60


def strides_of(shape: tuple) -> tuple:
    """Strides of an array in C order, in numbers."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * max(size, 1))
    return tuple(strides[: len(shape)])


def shortened(value: object) -> str:
    """A value for an error message, at most 80 characters."""
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def unique(pairs: list[tuple]) -> dict:
    """An object in a JSON text, for `json.loads`. Raises a ValueError if a name occurs twice in it."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(_("a name occurs twice in its header"))
    return found


def check_tensors(tensors: dict[str, np.ndarray], dtypes: Collection[str]) -> None:
    """Raise an error unless the tensors can be written to a format with these dtypes."""
    if not tensors:
        raise ValueError("expected at least one tensor to write, got none")
    for name, array in tensors.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray) or array.dtype.name not in dtypes:
            got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"expected texts as names and arrays of {', '.join(dtypes)}; got {name!r}, {got}")


def raw_bytes(array: np.ndarray) -> memoryview:
    """The numbers of an array in C order, low byte first, as a flat memoryview."""
    array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    return memoryview(array.reshape(-1).view(np.uint8))
