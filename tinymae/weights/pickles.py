"""A small machine for the pickles in .pth files: it builds dicts and records of tensors, and executes nothing.

A pickle is a program for a small stack machine, and Python's own machine calls whatever the program names: a .pth from an
unknown source can run anything. The machine here has no such instruction. A global becomes a name, never an object. Applying a
name that belongs to tensors builds a dict, a tuple, a text or a record of where a tensor lies. Applying any other gives an
`Unread`, which keeps the name alone: so a file may hold a path or a NumPy number beside its tensors. What torch makes tensors
of, and is not known here, is refused: half a model is none. Nothing is imported, called or set on an object.

Its time is bounded, too. One instruction can walk a list that is as long as the file, and ten thousand can walk it again, so an
instruction counts as many steps as it walks elements. A key of a dict is short, because Python hashes and compares all of it.
"""
import pickletools
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from tinymae.messages import message as _
from tinymae.weights.records import BFLOAT16, Unread, are_sizes, is_shape, shortened, strides_of

STORAGES = {
    "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": BFLOAT16, "DoubleStorage": "float64",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
DTYPES = {f"torch.{name}" for name in (     # which become their own names
    *STORAGES.values(), "uint16", "uint32", "uint64", "complex32", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
)}
# what `_apply` applies, and the types of storages
APPLIED = {
    "argparse.Namespace", "collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter",
    "torch.Size", "torch.device", "builtins.set", "builtins.frozenset", "__builtin__.set", "__builtin__.frozenset",
    *(f"torch.{storage}" for storage in STORAGES),
}
HARMLESS = ("torch.nn.modules.", "torch.optim.", "torch.serialization.", "torch._C._nn.")        # of torch, and no tensors
MOST_STEPS = 300_000            # a training checkpoint of ViT-H has about 100,000
LONGEST_KEY = 1000              # characters: the name of a tensor has about 50


@dataclass(frozen=True)
class _Global:
    """A name in a pickle; it stays a name."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A row of numbers in the file."""

    key: str
    dtype: str
    count: int
    offset: int     # the start of a view of a storage, in the legacy format


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides are in numbers."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple


class _Namespace(dict):
    """The attributes of an argparse.Namespace, as a dict."""


def unpickle(file: BinaryIO, most: int | None = None) -> tuple[object, set[Storage]]:
    """Run the pickle that begins at the file's position, and leave the position after it.

    Parameters
    ----------
    file : open for reading
    most : steps; None for MOST_STEPS

    Returns
    -------
    found : nested dicts, lists and tuples of Tensors, numbers and texts
    storages : all those that the pickle names

    Raises
    ------
    ValueError
        if the pickle is damaged, takes too many steps, or needs anything else than tensors do
    """
    stack, marks, memo, storages, steps = [], [], {}, set(), 0
    most = MOST_STEPS if most is None else most

    def take():
        """Pop all values above the last mark."""
        start = marks.pop()
        taken = stack[start:]
        del stack[start:]
        return taken

    try:
        for opcode, argument, _position in pickletools.genops(file):
            steps += 1
            if steps > most:
                raise ValueError(_("its pickle takes more than {most} steps: no list of tensors is so long", most=most))
            match opcode.name:
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    if len(stack) != 1 or marks:
                        raise ValueError(_("its pickle is damaged: it leaves {count} values", count=len(stack)))
                    return stack[0], storages
                case "MARK":
                    marks.append(len(stack))
                case "NONE":
                    stack.append(None)
                case "NEWTRUE":
                    stack.append(True)
                case "NEWFALSE":
                    stack.append(False)
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                    stack.append(argument)
                case "BINSTRING" | "SHORT_BINSTRING" | "BINBYTES" | "SHORT_BINBYTES" | "BYTEARRAY8":
                    stack.append(argument)
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_LIST" | "EMPTY_SET":                # a set of its own could take forever to hash
                    stack.append([])
                case "EMPTY_TUPLE":
                    stack.append(())
                case "TUPLE" | "FROZENSET":
                    stack.append(tuple(take()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    size = int(opcode.name[-1])
                    stack[-size:] = [tuple(stack[-size:])]
                case "APPEND":
                    value = stack.pop()
                    if not isinstance(stack[-1], Unread):
                        expect(list, stack[-1]).append(value)
                case "APPENDS" | "ADDITEMS":
                    values = take()
                    if not isinstance(stack[-1], Unread):
                        expect(list, stack[-1]).extend(values)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    _set(stack[-1], [key, value])
                case "SETITEMS":
                    values = take()
                    _set(stack[-1], values)
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    stack.append(_known(argument.replace(" ", ".", 1)))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    stack.append(_known(f"{expect(str, module)}.{expect(str, name)}"))
                case "BINPERSID":
                    found = stack.pop()
                    if isinstance(found, tuple) and found[:1] == ("module",) and isinstance(found[1], Unread):
                        stack.append(found[1])                  # the class of a module, with its source
                        continue
                    storage = _storage(found)
                    storages.add(storage)
                    stack.append(storage)
                case "REDUCE" | "NEWOBJ":
                    arguments, function = stack.pop(), stack.pop()
                    apply = _unread if isinstance(function, Unread) else _apply
                    name = function.what if apply is _unread else expect(_Global, function).name
                    steps += sum(1 + len(part) if isinstance(part, (list, tuple)) else 1 for part in expect(tuple, arguments))
                    stack.append(apply(name, arguments))
                case "BUILD":                                   # the state of an object: only a Namespace keeps it
                    state = stack.pop()
                    if not isinstance(stack[-1], Unread) and isinstance(expect(dict, stack[-1]), _Namespace):
                        steps += len(expect(dict, state))
                        _set(stack[-1], [part for item in state.items() for part in item])
                case name:
                    raise ValueError(_("its pickle has the instruction {name}, which no file of weights needs: refused",
                                       name=name))
    except (IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise ValueError(_("its pickle is damaged ({kind}: {error})", kind=type(error).__name__, error=error)) from error


def expect(expected: type, value: object) -> object:
    """The value. Raises a ValueError if it has another type."""
    if not isinstance(value, expected):
        raise ValueError(_("its pickle is damaged: expected a {kind}, got {got}", kind=expected.__name__, got=shortened(value)))
    return value


def _set(target, values):
    """Put [key, value, key, value, ...] into a dict. Keys are texts and integers: hashing a nested tuple can take forever.

    They are short: many long integers have one hash, and equal texts are compared to their end.
    """
    if isinstance(target, Unread):
        return
    for key, value in zip(values[::2], values[1::2], strict=True):
        if type(key) not in (str, int):
            raise ValueError(_("its pickle is damaged: expected a text or a number as a key, got {key}", key=shortened(key)))
        if len(key) > LONGEST_KEY if type(key) is str else not -(1 << 31) <= key < 1 << 31:
            raise ValueError(_("its pickle has the key {key}: expected a text of at most {most} characters, or an "
                               "integer of 32 bits", key=shortened(key), most=LONGEST_KEY))
        expect(dict, target)[key] = value


def _known(name):
    """What a global becomes."""
    if name in APPLIED:
        return _Global(name)
    if name in DTYPES:
        return name
    if name.partition(".")[0] == "torch" and not name.startswith(HARMLESS):
        raise ValueError(refusal(name))
    return Unread(name)


def refusal(name: str) -> str:
    """The message that a name in a pickle was met where no other than those of tensors may be."""
    return _("its pickle asks for {name}, which is not part of a tensor: refused, nothing was executed", name=shortened(name))


def _unread(name, arguments):
    if any(isinstance(part, (Storage, Tensor)) for part in arguments):
        raise ValueError(refusal(name))
    return Unread(name)


def _storage(found):
    """("storage", type, key, device, count[, (view key, offset, count)]) -> Storage."""
    if len(expect(tuple, found)) not in (5, 6) or found[0] != "storage":
        raise ValueError(_("its pickle is damaged: expected a storage, got {got}", got=shortened(found)))
    if isinstance(found[1], Unread):
        raise ValueError(refusal(found[1].what))
    name = expect(_Global, found[1]).name.removeprefix("torch.")
    key, count = expect(str, found[2]), found[4]
    if len(key) > LONGEST_KEY:
        raise ValueError(_("its pickle has a storage with the key {key}: expected at most {most} characters",
                           key=shortened(key), most=LONGEST_KEY))
    if name not in STORAGES or not are_sizes([count]):
        raise ValueError(_("its pickle is damaged: a storage of {count} numbers of {name}",
                           count=shortened(count), name=shortened(name)))
    offset = 0
    if len(found) == 6 and found[5] is not None:
        _key, offset, _count = expect(tuple, found[5])
        if not are_sizes([offset]):
            raise ValueError(_("its pickle is damaged: a view of a storage that starts at {offset}", offset=shortened(offset)))
    return Storage(key, STORAGES[name], count, offset)


def _apply(name, arguments):
    """The result of a function or class that a pickle may name, for these arguments."""
    if name == "argparse.Namespace" and not arguments:
        return _Namespace()
    if name == "collections.OrderedDict" and len(arguments) < 2:
        found = {}
        pairs = expect(list, [*arguments, []][0])
        for pair in pairs:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ValueError(_("its pickle is damaged: expected a key and a value, got {got}", got=shortened(pair)))
        _set(found, [part for pair in pairs for part in pair])
        return found
    if name.endswith("set") and len(arguments) < 2:
        return tuple(expect(list, [*arguments, []][0]))
    if name == "torch.Size" and len(arguments) == 1:
        return expect(tuple, arguments[0])
    if name == "torch.device" and arguments:
        return ":".join(map(shortened, arguments)).replace("'", "")
    if name == "torch._utils._rebuild_parameter" and arguments:
        return expect(Tensor, arguments[0])
    if name == "torch._utils._rebuild_tensor_v2" and len(arguments) in (6, 7):
        storage, offset, shape, strides = arguments[:4]
        if not are_sizes([offset]) or not is_shape(shape) or not are_sizes(strides) or len(shape) != len(strides):
            raise ValueError(_("its pickle has a tensor of shape {shape}, offset {offset}",
                               shape=shortened(shape), offset=shortened(offset)))
        offset += expect(Storage, storage).offset
        # along an axis of length 1, and in an empty tensor, no stride is used: it may be anything
        strides = tuple(step if size > 1 and 0 not in shape else 0 for size, step in zip(shape, strides, strict=True))
        last = offset - (0 in shape) + sum((size - 1) * step for size, step in zip(shape, strides, strict=True) if step)
        if last >= storage.count:
            raise ValueError(_("a tensor {shape} reaches beyond its storage of {count} numbers",
                               shape=tuple(shape), count=storage.count))
        return Tensor(storage, offset, tuple(shape), strides)
    raise ValueError(_("its pickle applies {name} to {count} values: refused", name=name, count=len(arguments)))


def write_pickle(content: dict) -> bytes:
    """A pickle of nested dicts of tensors, numbers and texts; storages are numbered in the order of the tensors."""
    storages = {dtype: storage for storage, dtype in STORAGES.items()}
    keys = iter(range(1 << 31))

    def instructions(value):
        if isinstance(value, dict):
            return b"}(" + b"".join(instructions(part) for item in value.items() for part in item) + b"u"
        if isinstance(value, (tuple, list)):
            return b"(" + b"".join(instructions(part) for part in value) + b"t"
        if isinstance(value, np.ndarray):
            storage = b"(%sctorch\n%s\n%s%s%stQ" % (
                instructions("storage"), storages[value.dtype.name].encode(), instructions(str(next(keys))),
                instructions("cpu"), instructions(value.size),
            )
            layout = instructions(0) + instructions(value.shape) + instructions(strides_of(value.shape))
            return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + layout + b"\x89ccollections\nOrderedDict\n)RtR"
        if value is None or isinstance(value, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        if isinstance(value, int):
            coded = value.to_bytes(8, "little", signed=True)
            return b"J" + coded[:4] if -(1 << 31) <= value < 1 << 31 else b"\x8a\x08" + coded
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        if isinstance(value, str):
            coded = value.encode("utf-8")
            return b"X" + len(coded).to_bytes(4, "little") + coded
        raise TypeError(f"expected numbers, texts and dicts of them beside the tensors, got {type(value).__name__}")

    return b"\x80\x02" + instructions(content) + b"."
