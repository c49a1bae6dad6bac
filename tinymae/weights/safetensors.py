"""The safetensors format: read through a memory map, and written."""
import json
import math
from pathlib import Path

from tinymae.files import whole_file
from tinymae.weights.notes import (
    BFLOAT16,
    Note,
    Notes,
    are_sizes,
    check_tensors,
    is_shape,
    item_size,
    raw_bytes,
    shortened,
    strides_of,
)

SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": BFLOAT16, "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}
LONGEST_HEADER = 1 << 21        # of safetensors: room for 15,000 tensors


def read_safetensors(raw):
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
            raise ValueError(f"expected dtype, shape and data_offsets of tensor {name!r}, got {shortened(entry)}")
        code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(code, str) or code not in SAFETENSORS:
            raise ValueError(f"tensor {name!r} has the dtype {shortened(code)}; read are {', '.join(SAFETENSORS)}")
        if not is_shape(shape) or not are_sizes(offsets) or len(offsets) != 2:
            raise ValueError(f"tensor {name!r} has the shape {shortened(shape)} and the offsets {shortened(offsets)}")
        begin, end = offsets
        count = math.prod(shape)
        if end - begin != count * item_size(SAFETENSORS[code]):
            raise ValueError(f"tensor {name!r} {tuple(shape)} of {code} does not fill its bytes {begin} to {end}")
        tensors[name] = Note(8 + length + begin, count, SAFETENSORS[code], 0, tuple(shape), strides_of(shape), 0)
    position = 8 + length
    for name, note in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].count)):
        if note.start != position:
            wrong = "overlaps the one before it" if note.start < position else "leaves a gap before it"
            raise ValueError(f"tensor {name!r} {wrong}: it begins at {note.start}, expected {position}")
        position += note.count * item_size(note.dtype)
    if position != raw.size:
        raise ValueError(f"expected {position} bytes, the file has {raw.size}: cut short, or something follows")
    return Notes(raw, tensors, meta)


def _unique(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return found


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
    check_tensors(tensors, codes)
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
            file.write(raw_bytes(array))
    return path
