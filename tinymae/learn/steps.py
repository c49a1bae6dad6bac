"""Which line of a learner's function is the last that is right, where no mistake that we know explains the numbers."""
import sys
from collections.abc import Callable

import numpy as np

from tinymae.learn.compare import close
from tinymae.messages import message as _


def arrays_assigned(function: Callable, call: Callable[[], object]) -> list[tuple[int, np.ndarray]]:
    """[(line, array)]: every array that the learner's function, or one in the same file, assigned during call()."""
    file, found, last = getattr(getattr(function, "__code__", None), "co_filename", None), [], {}

    def trace(frame, event, arg):
        if frame.f_code.co_filename != file or len(found) > 1000:                           # a loop repeats itself
            return None
        line, known = last.get(frame, (frame.f_lineno, {}))
        for name, value in frame.f_locals.items():
            if isinstance(value, np.ndarray) and not (name in known and np.array_equal(known[name], value)):
                known[name] = value.copy()
                found.append((line, known[name]))
        last[frame] = frame.f_lineno, known
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return found


def last_right(steps: dict[str, list[np.ndarray]], result: str, arrays: list[tuple[int, np.ndarray]]) -> str:
    """One sentence about the last of the steps that is among the arrays; the result comes after the steps."""
    words = [*steps, result]
    for number in reversed(range(len(steps))):
        found = [_line_of(part, arrays) for part in steps[words[number]]]
        if all(found):
            return _("it is right as far as line {line}, which computes {step}; wrong is {next}, or what comes after it",
                     line=max(found), step=words[number], next=words[number + 1])
    return _("no line computes the first step, {step}: either it is wrong already, or it has no name; give each step a line "
             "and a name of its own, and check again", step=words[0])


def _line_of(step, arrays):
    """The line that assigned an array with the numbers of this step, whatever its axes of size 1, or 0."""
    return next((line for line, array in arrays if array.dtype.kind == "f" and array.size == step.size
                 and close(array.reshape(step.shape), step, 1e-9)), 0)
