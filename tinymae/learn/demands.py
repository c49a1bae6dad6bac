"""What a learner's file has to define and to return, or a Problem that says so."""
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinymae.messages import message as _


class Problem(Exception):
    """A reason why a learner's file cannot be checked; the message says what to do."""


def function(names: dict, name: str) -> Callable:
    """The function or class `name` in the namespace of a learner's file; a Problem if there is none."""
    if not callable(names.get(name)):
        raise Problem(_("expected a function or class {name} in the file, found none: was it renamed?", name=name))
    return names[name]


def parts(result: object, *expected: str) -> tuple:
    """The tuple that a learner's function returned; a Problem if it is not a tuple of the expected length."""
    if isinstance(result, tuple) and len(result) == len(expected):
        return result
    names = ", ".join(expected)
    if result is None:
        raise Problem(_("expected a function to return ({names}), got None: is its return missing?", names=names))
    if isinstance(result, tuple):
        raise Problem(_("expected a function to return ({names}), got a tuple of {count}: look at its return",
                        names=names, count=len(result)))
    if isinstance(result, list):
        raise Problem(_("expected a function to return ({names}), got a list: `return a, b` makes a tuple, brackets make a "
                        "list", names=names))
    raise Problem(_("expected a function to return ({names}), got a {kind}: look at its return",
                    names=names, kind=type(result).__name__))


@contextmanager
def hint(kind: type[Exception], words: str, part: str = "") -> Iterator[None]:
    """Add a sentence on the likely cause to an exception of this kind whose message contains `part`."""
    try:
        yield
    except kind as error:
        if part in str(error):
            error.args = (f"{str(error).rstrip()}\n{words}",)
        raise
