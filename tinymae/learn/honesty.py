"""Solutions that are right and yet no solution: the package's own function, or a difference of the forward.

A check compares numbers, so a file that calls the function it should write passes it. So the check runs under a profiler, which
sees every call, however it was imported. That is slow, and a gradient check calls a forward thousands of times: only the first
calls of each table are watched.
"""
import sys
from collections.abc import Iterator
from pathlib import Path

from tinymae.messages import message as _

PACKAGE = Path(__file__).parents[1]
CALLS = 500                                 # of functions in the file, in each table
OTHER_NAMES = {                             # what an exercise's function is called in the package, if it is called differently
    "attention": "scaled_dot_product_attention_forward", "encoder_layer": "encoder_layer_forward",
    "layernorm": "layernorm_forward", "linear": "linear_forward", "multi_head_attention": "multi_head_attention_forward",
    "positional_encoding": "sinusoidal_interleaved", "softmax": "softmax_forward", "cross_attention_forward":
    "multi_head_attention_forward", "cross_attention_backward": "multi_head_attention_backward",
    "self_attention_forward": "multi_head_attention_forward", "self_attention_backward": "multi_head_attention_backward",
    "reconstruct": "mae_reconstruct",
}


def watched(tables: Iterator, names: dict, path: Path, defined: set[str], complaints: list[str]) -> Iterator:
    """The tables of a check of a file with this namespace; `complaints` gets what is wrong if all of their numbers are right.

    `defined` are the names of the functions that the file is to define.
    """
    copied = {OTHER_NAMES.get(name, name) for name in defined} | defined | {"gradcheck", "numerical_gradient"}
    complaints += [complaint] if (complaint := borrowed(names, defined)) else []
    forwards, calls, before = {}, 0, sys.getprofile()

    def watch(frame, event, argument):
        nonlocal calls
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename == str(path):
            calls += 1
            if calls == CALLS:
                sys.setprofile(before)
            above = _above(frame, path) if code.co_name.endswith("_forward") else None
            if above is not None:
                forwards[above] = forwards.get(above, 0) + 1
                if forwards[above] > 2:
                    complaints.append(_(
                        "{backward} calls {forward} again and again: a difference of the forward is what the check computes "
                        "itself. It is right to a few digits, and takes a forward for each number: derive the gradient instead",
                        backward=above.f_code.co_name, forward=code.co_name,
                    ))
        elif code.co_name in copied and PACKAGE in Path(code.co_filename).parents and _called_from(frame, path):
            complaints.append(_is_ours(code.co_name))

    def watched_table():
        nonlocal calls
        calls = 0
        sys.setprofile(watch)
        try:
            return next(tables, None)
        finally:
            sys.setprofile(before)

    yield from iter(watched_table, None)


def borrowed(names: dict, defined: set[str]) -> str:
    """A sentence on the first of the functions `defined` that is the package's own in `names`; empty if there is none."""
    return next((_is_ours(name) for name in sorted(defined) if str(PACKAGE) in _file(names.get(name))), "")


def _is_ours(name):
    return _("it calls {name} of tinymae, and that one is right. The exercise is to write it: read it there, close it, and "
             "write yours", name=name)


def _file(value):
    """The file that a function or a class comes from; empty for anything else."""
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    return getattr(module, "__file__", None) or ""


def _above(frame, path):
    """The backward of the file that a frame was called from; None if there is none."""
    while (frame := frame.f_back) is not None:
        if frame.f_code.co_filename == str(path) and frame.f_code.co_name.endswith("_backward"):
            return frame
    return None


def _called_from(frame, path):
    """Whether the file has called this function of the package, and not a check, nor a part that the file may use."""
    while (frame := frame.f_back) is not None:
        file = frame.f_code.co_filename
        if file == str(path):
            return True
        if PACKAGE in Path(file).parents:
            return False
    return False
