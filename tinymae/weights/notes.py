"""What a file says of a tensor before its numbers are read: type, sizes, strides, place."""
import math
from typing import NamedTuple

import numpy as np

BFLOAT16 = "bfloat16"       # the upper half of a float32; NumPy has no such dtype, so it is read as uint16 and widened


class Note(NamedTuple):
    """Where a tensor lies in the file."""

    start: int      # of its storage, in bytes
    count: int      # numbers in its storage
    dtype: str
    offset: int     # from here on in numbers
    shape: tuple
    strides: tuple
    crc: int        # of the storage; 0 where there is none


class Notes(NamedTuple):
    raw: np.ndarray     # the file, uint8
    tensors: dict       # {name: _Note}
    meta: dict


def item_size(dtype):
    """Bytes of one number."""
    return 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize


def are_sizes(value):
    """Is it a list or tuple of at most 64 (NumPy's limit) plain integers of at least 0, each within 63 bits?"""
    return (
        isinstance(value, (list, tuple)) and len(value) <= 64
        and all(type(size) is int and 0 <= size < 1 << 63 for size in value)
    )


def is_shape(value):
    """Is it a shape that an array can have? The sizes of an empty one are multiplied too."""
    return are_sizes(value) and math.prod(max(size, 1) for size in value) < 1 << 60


def strides_of(shape):
    """Of an array in C order, in numbers."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * max(size, 1))
    return tuple(strides[: len(shape)])


def shortened(value):
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def check_tensors(tensors, dtypes):
    if not tensors:
        raise ValueError("expected at least one tensor to write, got none")
    for name, array in tensors.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray) or array.dtype.name not in dtypes:
            got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"expected texts as names and arrays of {', '.join(dtypes)}; got {name!r}, {got}")


def raw_bytes(array):
    """The numbers of an array in C order, low byte first, as a flat memoryview."""
    array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    return memoryview(array.reshape(-1).view(np.uint8))
