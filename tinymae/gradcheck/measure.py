"""Measure one gradient by central differences, and judge the analytic one: equal, wrong, or hidden by rounding noise.

The numbers in brackets are those of `check`: (1) the numeric gradient, (3) the error, (4) the noise, here called slack.
"""
import numpy as np

from tinymae.gradcheck.pair import EPS, Pair, joint_norm, unravel
from tinymae.messages import message as _

FILL = 512              # a wrong tensor of up to this size is measured completely before it is diagnosed


def measure(
    pair: Pair, path: str, *, h: float, samples: int | None, rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """(numeric, slack): (1) and (4) for every element, or for `samples` of them, and NaN elsewhere."""
    leaf = pair.leaves[path]
    numeric, slack = np.full(leaf.shape, np.nan), np.zeros(leaf.shape)
    everything = samples is None or samples >= leaf.size
    for flat in range(leaf.size) if everything else rng.choice(leaf.size, samples, replace=False):
        index = unravel(flat, leaf.shape)
        numeric[index], slack[index] = pair.slope(path, index, 1.0, step_size(h, leaf[index]))
    return numeric, slack


def judge_tensor(
    pair: Pair, path: str, analytic: np.ndarray, numeric: np.ndarray, slack: np.ndarray, *,
    h: float, tolerance: float, rng: np.random.Generator,
) -> tuple[tuple, float]:
    """(index of the worst element, its error). Writes into numeric and slack what it had to measure more exactly."""
    if not numeric.size:
        return (), 0.0
    error = np.where(np.isnan(numeric), -1.0, relative_errors(analytic, numeric, slack, tolerance=tolerance))
    while error.max() > tolerance:
        worst = unravel(np.argmax(error), error.shape)
        error[worst] = _sharpen(pair, path, worst, analytic, numeric, slack, h, tolerance)
        if error[worst] > tolerance:                            # one that is certainly wrong is enough
            return worst, float(error[worst])
    if np.isnan(numeric).any() and (found := _search(pair, path, analytic, h, tolerance, rng)):
        worst, along = found
        return worst, max(along, float(_sharpen(pair, path, worst, analytic, numeric, slack, h, tolerance)))
    worst = unravel(np.argmax(error), error.shape)
    return worst, float(error[worst])


def _sharpen(pair, path, index, analytic, numeric, slack, h, tolerance):
    """Measure one element again, more exactly; the new error."""
    numeric[index], slack[index] = pair.sharp_slope(path, index, 1.0, step_size(h, pair.leaves[path][index]))
    return relative_errors(analytic[index], numeric[index], slack[index], tolerance=tolerance)


def _search(pair, path, analytic, h, tolerance, rng):
    """A wrong element that the sample missed, and the error that revealed it; None if there is none.

    The derivative along a random direction v is <analytic, v>.  If that is wrong, it is wrong in one half of the tensor,
    and so on down to one element: log2(size) steps.
    """
    leaf = pair.leaves[path]
    v = rng.standard_normal(leaf.shape) * np.maximum(1.0, np.abs(leaf))

    def error(part):
        along = np.zeros(leaf.size)
        along[part] = v.flat[part]
        along = along.reshape(leaf.shape)
        expected, scale = np.vdot(analytic, along), joint_norm([analytic * along])
        found = relative_errors(expected, *pair.slope(path, ..., along, h), tolerance=tolerance, scale=scale)
        if found > tolerance:
            found = relative_errors(expected, *pair.sharp_slope(path, ..., along, h), tolerance=tolerance, scale=scale)
        return float(found)

    part = np.arange(leaf.size)
    whole = error(part)
    if whole <= tolerance:
        return None
    while part.size > 1:
        half, rest = np.array_split(part, 2)
        part = half if error(half) > tolerance else rest
    return unravel(part[0], leaf.shape), whole


def relative_errors(
    analytic: np.ndarray, numeric: np.ndarray, slack: np.ndarray, *, tolerance: float, scale: float = 0.0,
) -> np.ndarray:
    """(3), elementwise; inf where forward was not finite next to the point.

    A difference within slack counts as tolerance * difference / slack, or as (3) if that is smaller.
    """
    difference = np.abs(analytic - numeric)
    size = np.maximum(np.maximum(np.abs(analytic), np.abs(numeric)), scale)
    size = np.where(difference <= slack, np.maximum(size, slack / tolerance), size)
    error = np.divide(difference, size, out=np.zeros(np.shape(difference)), where=np.isfinite(difference) & (size > 0))
    return np.where(np.isinf(difference), np.inf, error)


def hidden_by_noise(
    analytic: np.ndarray, numeric: np.ndarray, slack: np.ndarray, *, largest: float, tolerance: float,
) -> str:
    """A sentence on a tensor without errors that the noise hides too well to be judged; '' if it is right.

    Right means that the noise leaves a digit of the largest element; or that the gradient is 0 up to rounding, and the noise
    is below the tolerance compared with `largest`, the largest gradient (dy included).
    """
    noise = largest_element(slack)
    zero = largest_element(analytic) <= 1000 * EPS * largest and noise <= tolerance * largest
    if zero or noise <= 0.1 * max(largest_element(analytic), largest_element(numeric)):
        return ""
    return _("cannot be judged: rounding in forward makes differences of up to {noise:.0e}, and the gradient is not larger (at "
             "most {most:.0e}); make y smaller (subtract a constant, mean for sum), or h larger",
             noise=noise, most=largest_element(analytic))


def kink(pair: Pair, path: str, index: tuple, analytic: float, *, h: float) -> str:
    """A sentence if forward has a kink at the point itself, and analytic is between its two slopes; otherwise ''.

    With curvature, too, the two slopes differ, but ten times less if the step is ten times smaller.
    """
    here, gaps = pair.moved(path, index, 1.0, 0.0), []
    for step in step_size(h, pair.leaves[path][index]) * np.array([0.1, 0.01]):
        low, high = sorted((pair.change(here, pair.moved(path, index, 1.0, -step)) / step,
                            pair.change(pair.moved(path, index, 1.0, step), here) / step))
        gaps.append(high - low if np.isfinite(low) and np.isfinite(high) else np.inf)
    noise = 20 * EPS * pair.size / step
    if gaps[1] > max(0.5 * gaps[0], 0.01 * abs(low), 0.01 * abs(high), 2 * noise) \
            and low - noise <= analytic <= high + noise:
        return _("forward has a kink at this very point (slopes {low:.4g} and {high:.4g}, as ReLU has at 0), and the gradient "
                 "is between them: move the argument a little and check again", low=low, high=high)
    return ""


def step_size(h: float, x: float) -> float:
    """The step for an argument x: relative to x if that is larger than 1."""
    return h * max(1.0, abs(float(x)))


def largest_element(array: np.ndarray) -> float:
    """The largest finite absolute value; 0.0 if there is none."""
    array = np.abs(array)
    return float(np.max(array, where=np.isfinite(array), initial=0.0))
