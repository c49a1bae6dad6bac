"""Whether a learner's numbers agree with others, or are a sum of them."""
import numpy as np


def close(ours: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
    """Whether shapes and numbers agree; NaN agrees with nothing."""
    return np.shape(ours) == np.shape(other) and bool(distance(ours, np.asarray(other, np.float64)) <= tolerance)


def agrees(ours: np.ndarray, variant: np.ndarray, tolerance: float) -> bool:
    """As `close`, but a mistake that gives NaN is the cause of the same NaN."""
    variant = np.asarray(variant, np.float64)
    known = ~np.isnan(ours)
    if ours.shape != variant.shape or not known.any() or not np.array_equal(known, ~np.isnan(variant)):
        return False
    return close(ours[known], variant[known], tolerance)


def distance(ours: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest expected number."""
    largest = np.abs(expected).max(initial=0.0)
    return float(np.abs(ours - expected).max(initial=0.0) / (largest or 1.0))


def numbers(result: object) -> np.ndarray | None:
    """What a learner's function returned, as an array of floats; None if it is none."""
    try:
        return np.asarray(result, np.float64)
    except (TypeError, ValueError):
        return None


def factors(ours: np.ndarray, *terms: np.ndarray) -> np.ndarray | None:
    """The factors by which the terms add up to exactly the learner's numbers; None if there are none."""
    columns = np.stack([np.broadcast_to(term, ours.shape).ravel() for term in terms], axis=1)
    found = np.linalg.lstsq(columns, ours.ravel(), rcond=None)[0]
    return found if close(ours.ravel(), columns @ found, 1e-9) else None


def spelled(ours: np.ndarray, terms: dict[str, np.ndarray], known: tuple[np.ndarray, ...], most: int = 4) -> str:
    """The learner's numbers as a sum of a few of these terms, such as `2 x pdf(x) - cdf(x)`; '' if they are none.

    '' also for a multiple of a gradient in `known`, for which the gradient checker has a sentence.
    """
    found = factors(ours, *terms.values())
    if found is None or any(factors(ours, gradient) is not None for gradient in known):
        return ""
    found = np.round(found, 6)
    if np.count_nonzero(found) > most:
        return ""
    signed = [f"{'-' if factor < 0 else '+'} {'' if abs(factor) == 1 else f'{abs(factor):.6g} '}{term}"
              for term, factor in zip(terms, found, strict=True) if factor]
    return " ".join(signed).removeprefix("+ ")
