"""The safetensors format, read and written.

    8 bytes: length of the header | JSON: {name: {"dtype", "shape", "data_offsets"}} | the numbers

The header says everything, so a file is checked completely before a number is read: the tensors have to fill the rest of the
file without gap or overlap. The format has no checksums: a flipped bit in the numbers is not noticed.

Differs: the `safetensors` library gives NumPy a copy of each tensor instead of a view of the file, and has no bfloat16 for it.
"""
import json
import math
from pathlib import Path

import numpy as np

from tinymae.files import whole_file
from tinymae.messages import message as _
from tinymae.weights.records import (
    BFLOAT16,
    FileRecord,
    TensorRecord,
    are_sizes,
    check_tensors,
    is_shape,
    item_size,
    raw_bytes,
    shortened,
    strides_of,
    unique,
)

SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": BFLOAT16, "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}
LONGEST_HEADER = 1 << 21        # room for 15,000 tensors


def read_safetensors(raw: np.ndarray) -> FileRecord:
    """The record of a file, given as uint8. Raises a ValueError if the file is damaged or claims more than it has."""
    length = int.from_bytes(raw[:8].tobytes(), "little")
    if length > raw.size - 8:
        raise ValueError(_("cut short, or not a safetensors file: it claims a header of {length} bytes and has {size}",
                           length=length, size=raw.size - 8))
    if length > LONGEST_HEADER:
        raise ValueError(_("its header has {length} bytes, expected at most {most}",
                           length=length, most=LONGEST_HEADER))
    try:
        header = json.loads(raw[8 : 8 + length].tobytes().decode("utf-8"), object_pairs_hook=unique)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(_("its header is not JSON ({error}): damaged, or not a safetensors file", error=error)) from error
    if not isinstance(header, dict):
        raise ValueError(_("its header is not a JSON object: damaged, or not a safetensors file"))
    meta = header.pop("__metadata__", {})
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        raise ValueError(_("its __metadata__ is not a table of texts"))
    tensors = {}
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(_("expected dtype, shape and data_offsets of tensor {name!r}, got {got}",
                               name=name, got=shortened(entry)))
        code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(code, str) or code not in SAFETENSORS:
            raise ValueError(_("tensor {name!r} has the dtype {code}, expected one of {known}",
                               name=name, code=shortened(code), known=", ".join(SAFETENSORS)))
        if not is_shape(shape) or not are_sizes(offsets) or len(offsets) != 2:
            raise ValueError(_("tensor {name!r} has the shape {shape} and the offsets {offsets}",
                               name=name, shape=shortened(shape), offsets=shortened(offsets)))
        begin, end = offsets
        count = math.prod(shape)
        if end - begin != count * item_size(SAFETENSORS[code]):
            raise ValueError(_("tensor {name!r} {shape} of {code} does not fill its bytes {begin} to {end}",
                               name=name, shape=tuple(shape), code=code, begin=begin, end=end))
        tensors[name] = TensorRecord(8 + length + begin, count, SAFETENSORS[code], 0, tuple(shape), strides_of(shape), 0)
    position = 8 + length
    for name, record in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].count)):
        if record.start != position:
            wrong = _("tensor {name!r} overlaps the one before it: it begins at {start}, expected {position}",
                      name=name, start=record.start, position=position)
            if record.start > position:
                wrong = _("tensor {name!r} leaves a gap before it: it begins at {start}, expected {position}",
                          name=name, start=record.start, position=position)
            raise ValueError(wrong)
        position += record.count * item_size(record.dtype)
    if position != raw.size:
        raise ValueError(_("expected {position} bytes, the file has {size}: cut short, or something follows the tensors",
                           position=position, size=raw.size))
    return FileRecord(raw, {"": tensors} if tensors else {}, meta)


def write_safetensors(path: Path | str, tensors: dict[str, np.ndarray], meta: dict[str, str] | None = None) -> Path:
    """Write a .safetensors file. A write that is interrupted leaves no part of it.

    Parameters
    ----------
    path : its folder is created if it is missing
    tensors : arrays of floats, integers or bools
    meta : None for {"format": "pt"}, which Hugging Face's loaders require

    Raises
    ------
    ValueError
        if there are no tensors
    TypeError
        if a name is not a text, or an array has a dtype that the format lacks
    """
    path = Path(path)
    codes = {dtype: code for code, dtype in SAFETENSORS.items()}
    check_tensors(tensors, codes)
    # large dtypes first: every tensor then starts at a multiple of its item size
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
            file.write(raw_bytes(array))
    return path
