"""What the tabs share: numbers as the page shows them, and the check of a whole number."""
import numpy as np

from tinymae.messages import message as _


def rounded(values: object) -> object:
    """Nested lists of an array or a number, to four significant digits: a page shows no more, and JSON stays small."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    return [rounded(value) for value in values] if isinstance(values, list) else float(f"{values:.4g}")


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Raise a ValueError that names the argument, unless it is a whole number from low to high."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(_("{name} is {value!r}, expected a whole number from {low} to {high}", name=name, value=value, low=low,
                           high=high))
