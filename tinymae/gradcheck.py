"""Is a backward pass the derivative of its forward pass?  Ask the forward pass.

    y, cache = forward(*args, **options)
    grads    = backward(dy, cache)              one gradient per differentiable argument, in the same order

For one number x_i of one argument, and for L = <dy, y> with a random dy,

    (1)  numeric  = (L(x_i + h) - L(x_i - h)) / 2h         two forward passes, no backward
    (2)  analytic = what backward returns for x_i
    (3)  error    = |analytic - numeric| / max(|analytic|, |numeric|)      where |analytic - numeric| > noise
    (4)  noise    = 10 eps |L| / h                         what rounding alone does to (1); eps = 2.2e-16, and |L| is
                                                           the norm of dy * y, which no lucky signs make small

dy is random because dy = 1 hides bugs: the gradient of sum(softmax(x)) is 0, so a softmax backward that is 1000 times
too large passes that test.  Choose random arguments for the same reason (a gamma that is not 1, a beta that is not 0),
sizes that all differ, masks on, dropout on.

Why h = 1e-5: (1) is off by about h*h/6 third derivatives (1e-11) and by eps / h of rounding (1e-11); the two meet near
eps ** (1/3).  Why tolerance = 1e-6: (1) is good to 1e-8 where the gradient is not tiny, and the smallest real mistake we
know, a layer normalisation whose backward forgets eps = 1e-5, is an error of 1e-5.  An element that misses the tolerance
is measured again with four steps; the two neighbouring steps that agree best with each other decide.  They never look
at the analytic gradient, so this settles kinks (ReLU) and curvature, and saves no wrong backward.

What a gradient check cannot see: it compares backward with forward only.  A wrong forward with the right derivative of
itself passes.  Forward passes need other witnesses: reference numbers, slow loops, invariants.
"""
import inspect
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tinymae import tree
from tinymae.diagnosis import MATCH, Case, diagnose, explain_shape

EPS = float(np.finfo(np.float64).eps)
FILL = 256              # a wrong tensor of up to this size is measured completely before it is diagnosed


@dataclass(frozen=True)
class Row:
    """The verdict on one tensor.

    tensor is the argument's name and the path in its tree (`p.q.w`); `y`, `dy`, `cache.0`, `backward` name what is not a
    gradient.  worst is the index of the worst element; analytic, numeric and error are its numbers (nan, nan, inf where
    there is none).  diagnosis is '' when ok.
    """

    tensor: str
    worst: tuple
    analytic: float
    numeric: float
    error: float
    ok: bool
    diagnosis: str


def gradcheck(forward, backward, *args, seed=0, h=1e-5, tolerance=1e-6, samples=None, **options):
    """Compare a hand-written backward with central differences of its forward.

    Parameters
    ----------
    forward : callable, y, cache = forward(*args, **options)
        y is a float, an array, or a tuple of them
    backward : callable, gradients = backward(dy, cache)
        a tuple, or the lone gradient.  dy is like y: a float for a float, a tuple for a tuple; None stands in it for an
        output that is not floating
    *args : the arguments of forward
        float64 arrays, and dicts and lists that hold them, are differentiated.  All else is constant: integer and bool
        arrays, numbers, strings, callables, tuples, None.  For a constant backward returns nothing, or None.
    seed : int, for dy and the sampled elements
    h : float, the step of the differences, times max(1, |x_i|)
    tolerance : float, the largest relative error that passes
    samples : int or None
        check that many random elements of each tensor (None: all), and the derivative along one random direction, which
        covers the rest; for whole models
    **options : passed to forward, never differentiated
        So a float array that is a constant for backward (a target) is given by keyword.  `rng` is an int here: forward
        gets a fresh np.random.default_rng(rng) in every call, so that dropout always draws the same mask.

    Returns
    -------
    rows : list of Row
        one per differentiable array, in order, and one for anything else that is wrong.  The pair is right when
        all(row.ok for row in rows).  A tensor that drowns in noise is not ok either: nobody can tell.  A forbidden
        write and a bad y are reported alone: they void the rest.

    Raises
    ------
    TypeError
        for float32 arguments, an rng that is a Generator, or a forward that does not return (y, cache)
    ValueError
        when no positional argument is a float64 array, or samples < 1

    Notes
    -----
    The arguments are copied.  Forward sees them read-only, backward gets dy and the cache read-only.

    Differs: torch.autograd.gradcheck compares the whole Jacobian; here one random dy stands for all its rows.
    """
    inputs = _named(forward, args, options)
    _demand(inputs, len(args), samples)
    try:
        return _check(_Pair(forward, backward, inputs, len(args), seed), h, tolerance, samples)
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        guilty = _find_write(forward, backward, inputs, len(args), seed)
        if guilty is None:                      # an array that was read-only before it came here
            raise
        return [_refusal(guilty[1], "{} writes into {}: a function writes in place only into arrays that it made in this "
                                    "call; write a = a * b instead of a *= b, or copy first".format(*guilty))]


def format_rows(title, rows):
    """The rows as an aligned table: tensor, worst index, both numbers there, relative error, verdict, diagnosis."""
    lines = [(title, "worst", "analytic", "numeric", "error", "", "")]
    for row in rows:
        worst = "[" + ", ".join(map(str, row.worst)) + "]" if row.worst else ""
        numbers = ["" if np.isnan(number) else f"{number:.6g}" for number in (row.analytic, row.numeric)]
        error = f"{row.error:.1e}" if np.isfinite(row.error) else ""
        lines.append((f"  {row.tensor}", worst, *numbers, error, "ok" if row.ok else "WRONG", row.diagnosis))
    widths = [max(len(line[column]) for line in lines) for column in range(6)] + [0]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)


# ---- what goes in and what comes back --------------------------------------------------------------------------------

def _named(forward, args, options):
    """{name: value} of all arguments: the positional ones first, by the names in forward's signature."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except ValueError:                                          # some builtins have none
        parameters = ()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:len(args)]
    names += [f"arg{i}" for i in range(len(names), len(args))]
    if twice := sorted(set(names) & options.keys()):
        raise TypeError(f"{twice[0]!r} is given twice: by position and by keyword")
    return dict(zip(names, args, strict=True)) | options


def _demand(inputs, positional, samples):
    for path, leaf in _leaves(inputs):
        if isinstance(leaf, np.random.Generator):
            raise TypeError(f"{path} is a Generator, expected an int seed: forward runs many times and has to draw the "
                            f"same numbers every time; pass rng=0 and forward gets a fresh default_rng(0) in each call")
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fc" and leaf.dtype != np.float64:
            raise TypeError(f"{path} is {leaf.dtype}, a gradient check needs float64: float32 keeps 7 digits, and the "
                            f"difference over a step of 1e-5 drowns in its rounding; pass {path}.astype(np.float64)")
    if not _differentiable(inputs, positional):
        raise ValueError(f"nothing to differentiate: among {list(inputs)} no positional argument is a float64 array, or "
                         f"a dict or list with one; keyword arguments are constants")
    if samples is not None and samples < 1:
        raise ValueError(f"samples is {samples}, expected at least 1, or None for every element")


def _differentiable(inputs, positional):
    """{argument: {path: array}} of the arguments that have a gradient."""
    found = {}
    for name in list(inputs)[:positional]:
        leaves = {path: leaf for path, leaf in tree.leaves(inputs[name], name)
                  if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f"}
        if leaves:
            found[name] = leaves
    return found


def _match(returned, wanted, inputs):
    """What backward returned as {path: array}, with a str that says what is wrong in the place of a bad one."""
    given = [g for g in (returned if isinstance(returned, tuple) else (returned,)) if g is not None]
    if len(given) != len(wanted):
        return {"backward": _wrong_number(returned, given, wanted)}
    found = {}
    for (name, leaves), gradient in zip(wanted.items(), given, strict=True):
        if isinstance(inputs[name], np.ndarray):
            found[name] = _one_gradient(gradient, inputs[name])
            continue
        if not isinstance(gradient, (dict, list)):
            found[name] = f"the gradient is a {type(gradient).__name__}, expected a tree like {name}: {', '.join(leaves)}"
            continue
        branches = dict(tree.leaves(gradient, name))
        for path, leaf in leaves.items():
            found[path] = _one_gradient(branches.get(path), leaf)
        for path in sorted(branches.keys() - dict(tree.leaves(inputs[name], name)).keys()):
            found[path] = "backward returned a gradient where the arguments have nothing: a misspelt key?"
    return found


def _wrong_number(returned, given, wanted):
    """What to say of a backward that returns too many gradients, too few, or none."""
    names = ", ".join(wanted)
    expected = f"a tuple of {len(wanted)}: {names}" if len(wanted) > 1 else f"the gradient of {names} alone"
    if returned is None:
        return f"backward returned None, expected {expected}; is its return missing?"
    if isinstance(returned, list):
        return f"backward returned a list, expected {expected}; `return a, b` makes a tuple, brackets make a list"
    got = f"{len(given)} gradient(s) in a tuple" if isinstance(returned, tuple) else f"one {type(returned).__name__}"
    hint = "one for each (gradcheck takes what has none by keyword)"
    if len(given) > len(wanted):
        hint = "integers, booleans and keyword arguments have no gradient"
    return f"backward returned {got}, expected {expected}; {hint}"


def _one_gradient(gradient, leaf):
    if gradient is None:
        return "backward returned no gradient for it"
    if not isinstance(gradient, (np.ndarray, np.generic, float)):
        return f"the gradient is a {type(gradient).__name__}, expected an array of shape {leaf.shape}"
    gradient = np.array(gradient)                               # a copy: the original may be dy itself
    if gradient.dtype != np.float64:
        return f"the gradient is {gradient.dtype}, expected float64 as the argument: which line casts it?"
    if not np.isfinite(gradient).all():
        index = _index(np.argmin(np.isfinite(gradient)), gradient.shape)
        return f"the gradient has {gradient[index]} at {index}: a division by 0, log of 0 or overflow in backward?"
    return gradient


# ---- the pair at one point -------------------------------------------------------------------------------------------

class _Pair:
    """The two functions, our own copy of the arguments, and a random dy.

    freeze is the path of the only array that is read-only; None makes all of them so.
    """

    def __init__(self, forward, backward, inputs, positional, seed, freeze=None):
        self.functions = forward, backward
        self.positional, self.seed, self.freeze = positional, seed, freeze
        self.inputs = _rebuild(lambda path, leaf: _copy(leaf), inputs)      # we write into these
        self.views = _rebuild(self._view, self.inputs)                      # the functions see these
        self.wanted = _differentiable(self.inputs, positional)
        self.leaves = {path: leaf for leaves in self.wanted.values() for path, leaf in leaves.items()}
        y, self.cache = self.forward()
        self.y = _floats(y)
        # not default_rng(seed): whoever drew the arguments from that would find his x in dy again
        self.dy = _random_like(y, np.random.default_rng([seed, 2]))
        self.weights = [d for d in _parts(self.dy) if d is not None]
        self.size = _norm([d * part for d, part in zip(self.weights, self.y, strict=True)])     # |L|, no lucky signs

    def _view(self, path, leaf):
        if isinstance(leaf, np.ndarray):
            leaf = leaf.view()
            leaf.flags.writeable = self.freeze not in (None, path)
        return leaf

    def forward(self):
        """Run forward, with containers of its own and a fresh rng."""
        def fresh(path, leaf):
            return np.random.default_rng(leaf) if path == "rng" and leaf is not None else leaf

        inputs = _rebuild(fresh, self.views)
        args = [inputs.pop(name) for name in list(inputs)[:self.positional]]
        result = self.functions[0](*args, **inputs)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(f"forward returned a {type(result).__name__}, expected the tuple (y, cache)")
        return result

    def backward(self, cache, scale=1.0):
        """Run backward on scale * dy; the result is that of _match."""
        dy = tuple(None if d is None else d * scale for d in _parts(self.dy))
        dy = dy if isinstance(self.dy, tuple) else dy[0]
        with _frozen([leaf for path, leaf in _arrays({"dy": dy, "cache": cache}) if self.freeze in (None, path)]):
            return _match(self.functions[1](dy, cache), self.wanted, self.inputs)

    def moved(self, path, index, v, offset):
        """The outputs with leaf[index] moved by offset * v."""
        leaf = self.leaves[path]
        here = leaf[index].copy()
        leaf[index] = here + offset * v
        y = _floats(self.forward()[0])
        leaf[index] = here
        return y

    def forward_elsewhere(self, h):
        """Run forward with all numbers moved by a step, as another call would: it may leave something behind."""
        here = {path: leaf.copy() for path, leaf in self.leaves.items()}
        for leaf in self.leaves.values():
            leaf += h * np.maximum(1.0, np.abs(leaf))
        self.forward()
        for path, leaf in self.leaves.items():
            leaf[...] = here[path]

    def change(self, y1, y0):
        """<dy, y1 - y0>: outputs that did not move bring no rounding error."""
        with np.errstate(all="ignore"):
            change = sum(float(np.vdot(d, a - b)) for d, a, b in zip(self.weights, y1, y0, strict=True))
        return np.inf if np.isnan(change) else change           # NaN is kept for "not measured"

    def slope(self, path, index, v, step):
        """(1) for leaf[index] moved along v, and its noise (4)."""
        change = self.change(self.moved(path, index, v, step), self.moved(path, index, v, -step))
        return change / (2 * step), 10 * EPS * self.size / step

    def sharp_slope(self, path, index, v, step):
        """The slope that two neighbouring ones of four steps agree on best, and how far they leave it open."""
        slopes, noise = np.array([self.slope(path, index, v, step * factor) for factor in (10, 1, 0.1, 0.01)]).T
        with np.errstate(invalid="ignore"):
            doubt = np.nan_to_num(np.abs(np.diff(slopes)) + noise[1:], nan=np.inf, posinf=np.inf)
        best = np.argmin(doubt)
        return (slopes[best + 1], doubt[best]) if np.isfinite(doubt[best]) else (np.inf, 0.0)


def _parts(y):
    return y if isinstance(y, tuple) else (y,)


def _is_float(part):
    return isinstance(part, (float, np.floating, np.ndarray)) and np.asarray(part).dtype.kind == "f"


def _floats(y):
    """Copies of the floating parts of y; y itself may be a view of the argument that moves next."""
    return [np.array(part) for part in _parts(y) if _is_float(part)]


def _random_like(y, rng):
    """A random dy: normal for arrays, for a number one of either sign that is clearly neither 0, 1 nor 2."""
    if not any(_is_float(part) for part in _parts(y)):
        raise TypeError(f"forward returned a y of type {type(y).__name__}, expected a float, a floating array, or a tuple "
                        f"with one of them")
    dy = tuple(None if not _is_float(part) else rng.standard_normal(part.shape) if np.ndim(part) else
               float(rng.choice([-1, 1]) * rng.uniform(1.2, 1.8)) for part in _parts(y))
    return dy if isinstance(y, tuple) else dy[0]


# ---- the check -------------------------------------------------------------------------------------------------------

def _check(pair, h, tolerance, samples):
    if problem := _output_problem(pair):
        return [_refusal("y", problem)]
    gradients = pair.backward(pair.forward()[1])
    rng = np.random.default_rng([pair.seed, 1])
    measured = {path: _measure(pair, path, h, FILL if gradient.shape != pair.leaves[path].shape else samples, rng)
                for path, gradient in gradients.items() if not isinstance(gradient, str)}
    judged = {path: _judge(pair, path, gradients[path], numeric, slack, h, tolerance, rng)
              for path, (numeric, slack) in measured.items() if gradients[path].shape == numeric.shape}
    largest = max(_largest(array) for array in [*pair.weights, *(numeric for numeric, _ in measured.values())])

    rows = []
    for path, gradient in gradients.items():
        if isinstance(gradient, str):
            rows.append(_refusal(path, gradient))
        elif path not in judged:
            others = {other: numeric for other, (numeric, _) in measured.items()}
            rows.append(_refusal(path, explain_shape(path, gradient, others.pop(path), others)))
        else:
            worst, error = judged[path]
            numeric, slack = measured[path]
            if error > tolerance:
                why = _kink(pair, path, worst, gradient[worst], h) or _explain(pair, path, gradients, measured, h, rng)
            else:
                why = _unseen(gradient, numeric, slack, largest, tolerance)
            here = (float(gradient[worst]), float(numeric[worst])) if gradient.size else (np.nan, np.nan)
            rows.append(Row(path, worst, *here, error, not why, why))
    # pair.cache comes from the very first forward.  Its backward runs last, after a forward in which everything was
    # different: a backward that secretly reads what a later forward left behind, or adds to what an earlier backward left,
    # now returns something else.
    pair.forward_elsewhere(h)
    late = pair.backward(pair.cache)
    if any(not _equal(gradient, late.get(path)) for path, gradient in gradients.items()):
        rows.append(_refusal("backward", "the same arguments gave another gradient later: something outlives the call; "
                                         "read all that backward needs from its cache, and add to no stored gradient"))
    return rows


def _output_problem(pair):
    for part in pair.y:
        if part.dtype != np.float64:
            return f"y is {part.dtype} for float64 arguments: which line of forward casts it?"
        if not np.isfinite(part).all():
            return f"y holds {part[~np.isfinite(part)][0]}: forward itself fails at this point"
    again = _floats(pair.forward()[0])
    if len(again) != len(pair.y) or any(not _equal(a, b) for a, b in zip(again, pair.y, strict=True)):
        return ("not deterministic: two calls of forward with the same arguments differ; pass rng=0 if it draws random "
                "numbers, and look for state that outlives the call if not")
    return ""


def _measure(pair, path, h, samples, rng):
    """(numeric, slack): (1) and (4) for every element, or for `samples` of them and NaN elsewhere."""
    leaf = pair.leaves[path]
    numeric, slack = np.full(leaf.shape, np.nan), np.zeros(leaf.shape)
    everything = samples is None or samples >= leaf.size
    for flat in range(leaf.size) if everything else rng.choice(leaf.size, samples, replace=False):
        index = _index(flat, leaf.shape)
        numeric[index], slack[index] = pair.slope(path, index, 1.0, _step(h, leaf[index]))
    return numeric, slack


def _judge(pair, path, analytic, numeric, slack, h, tolerance, rng):
    """(index of the worst element, its error); what had to be measured better is changed in numeric and slack."""
    if not numeric.size:
        return (), 0.0
    error = np.where(np.isnan(numeric), -1.0, _relative(analytic, numeric, slack, tolerance))
    while error.max() > tolerance:
        worst = _index(np.argmax(error), error.shape)
        error[worst] = _sharpen(pair, path, worst, analytic, numeric, slack, h, tolerance)
        if error[worst] > tolerance:                            # one that is surely wrong is enough
            return worst, float(error[worst])
    if np.isnan(numeric).any() and (found := _search(pair, path, analytic, h, tolerance, rng)):
        worst, along = found
        return worst, max(along, float(_sharpen(pair, path, worst, analytic, numeric, slack, h, tolerance)))
    worst = _index(np.argmax(error), error.shape)
    return worst, float(error[worst])


def _sharpen(pair, path, index, analytic, numeric, slack, h, tolerance):
    """Measure one element again, better; the new error."""
    numeric[index], slack[index] = pair.sharp_slope(path, index, 1.0, _step(h, pair.leaves[path][index]))
    return _relative(analytic[index], numeric[index], slack[index], tolerance)


def _search(pair, path, analytic, h, tolerance, rng):
    """A wrong element that the sample missed, and the error that gave it away; None if there is none.

    The derivative along a random direction v is <analytic, v>.  If that is wrong, it is wrong in one half of the tensor,
    and so on down to one element: log2(size) steps.
    """
    leaf = pair.leaves[path]
    v = rng.standard_normal(leaf.shape) * np.maximum(1.0, np.abs(leaf))

    def error(part):
        along = np.zeros(leaf.size)
        along[part] = v.flat[part]
        along = along.reshape(leaf.shape)
        expected, scale = np.vdot(analytic, along), _norm([analytic * along])
        found = _relative(expected, *pair.slope(path, ..., along, h), tolerance, scale)
        if found > tolerance:
            found = _relative(expected, *pair.sharp_slope(path, ..., along, h), tolerance, scale)
        return float(found)

    part = np.arange(leaf.size)
    whole = error(part)
    if whole <= tolerance:
        return None
    while part.size > 1:
        half, rest = np.array_split(part, 2)
        part = half if error(half) > tolerance else rest
    return _index(part[0], leaf.shape), whole


def _relative(analytic, numeric, slack, tolerance, scale=0.0):
    """(3), elementwise; inf where forward was not finite next to the point.

    A difference within slack counts as that part of the tolerance which it fills of the slack, or as (3) if smaller.
    """
    difference = np.abs(analytic - numeric)
    size = np.maximum(np.maximum(np.abs(analytic), np.abs(numeric)), scale)
    size = np.where(difference <= slack, np.maximum(size, slack / tolerance), size)
    error = np.divide(difference, size, out=np.zeros(np.shape(difference)), where=np.isfinite(difference) & (size > 0))
    return np.where(np.isinf(difference), np.inf, error)


def _unseen(analytic, numeric, slack, largest, tolerance):
    """What to say of a tensor without errors that the noise hides too well to call right; '' if it is right.

    Right means: the noise leaves a digit of the largest element; or the gradient is 0 but for rounding, and the noise
    is below the tolerance when compared with `largest`, the largest gradient (dy included).
    """
    noise = _largest(slack)
    zero = _largest(analytic) <= 1000 * EPS * largest and noise <= tolerance * largest
    if zero or noise <= 0.1 * max(_largest(analytic), _largest(numeric)):
        return ""
    return (f"cannot be judged: rounding in forward makes differences of up to {noise:.0e}, and the gradient is not larger "
            f"(at most {_largest(analytic):.0e}); make y smaller (subtract a constant, mean for sum), or give a larger h")


def _kink(pair, path, index, analytic, h):
    """'' unless forward has a kink at the point itself, and analytic lies between its two slopes.

    Curvature parts the two slopes as well, but ten times less when the step is ten times smaller.
    """
    here, gaps = pair.moved(path, index, 1.0, 0.0), []
    for step in _step(h, pair.leaves[path][index]) * np.array([0.1, 0.01]):
        low, high = sorted((pair.change(here, pair.moved(path, index, 1.0, -step)) / step,
                            pair.change(pair.moved(path, index, 1.0, step), here) / step))
        gaps.append(high - low if np.isfinite(low) and np.isfinite(high) else np.inf)
    noise = 20 * EPS * pair.size / step
    if gaps[1] > max(0.5 * gaps[0], 0.01 * abs(low), 0.01 * abs(high), 2 * noise) \
            and low - noise <= analytic <= high + noise:
        return (f"forward has a kink at this very point (slopes {low:.4g} and {high:.4g}, as ReLU has at 0), and the "
                f"gradient lies between: move the argument a little and check again")
    return ""


def _explain(pair, path, gradients, measured, h, rng):
    """Collect the evidence for diagnose."""
    numeric, slack = measured[path]
    if numeric.size <= FILL:
        for index in zip(*np.nonzero(np.isnan(numeric)), strict=True):
            numeric[index], slack[index] = pair.slope(path, index, 1.0, _step(h, pair.leaves[path][index]))

    def elsewhere(changes):
        altered = _rebuild(lambda where, leaf: changes.get(where, leaf), pair.inputs)
        other = _Pair(*pair.functions, altered, pair.positional, pair.seed)
        return other, other.backward(other.cache)[path]

    def passes(changes):
        try:
            other, gradient = elsewhere(changes)
            return _agrees(other, path, gradient, h, rng)
        except Exception:           # the functions owe us nothing for arguments that nobody gave them
            return False

    def lost(changes):
        try:
            other, gradient = elsewhere(changes)
            if np.any(gradient):
                return False
            slope, noise = other.slope(path, ..., rng.standard_normal(gradient.shape), h)
            return abs(slope) > 100 * noise
        except Exception:           # as above
            return False

    return diagnose(Case(
        tensor=path, analytic=gradients[path], numeric=numeric, gradients={
            where: (gradients[where], n) for where, (n, _) in measured.items() if gradients[where].shape == n.shape},
        inputs=dict(_leaves(pair.inputs)), dy=[np.asarray(d) for d in pair.weights], y=pair.y,
        rescaled=lambda scale: pair.backward(pair.forward()[1], scale)[path], passes=passes, lost=lost))


def _agrees(pair, path, analytic, h, rng):
    """Three random directions agree, and show more than noise."""
    seen = False
    for _ in range(3):
        v = rng.standard_normal(analytic.shape)
        slope, noise = pair.slope(path, ..., v, h)
        if _relative(np.vdot(analytic, v), slope, noise, MATCH, _norm([analytic * v])) > MATCH:
            return False
        seen = seen or abs(slope) > 100 * noise
    return seen


def _find_write(forward, backward, inputs, positional, seed):
    """(function, array) of the first forbidden write, or None: one array at a time is frozen."""
    point = forward, backward, inputs, positional, seed
    if _writes(_Pair, *point, ""):              # not for our freezing: the array was read-only before
        return None
    for path, _ in _arrays(inputs):
        if _writes(_Pair, *point, path):
            return "forward", path
    loose = _Pair(*point, freeze="")
    candidates = _arrays(inputs) + _arrays({"dy": loose.dy, "cache": loose.cache})
    if _writes(loose.backward, loose.cache):
        return None
    for path, _ in candidates:
        pair = _Pair(*point, freeze=path)
        if _writes(pair.backward, pair.cache):
            return "backward", path
    return None


def _writes(function, *args):
    try:
        function(*args)
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        return True
    return False


# ---- small tools -----------------------------------------------------------------------------------------------------

def _refusal(tensor, diagnosis):
    return Row(tensor, (), np.nan, np.nan, np.inf, False, diagnosis)


def _step(h, x):
    return h * max(1.0, abs(float(x)))


def _index(flat, shape):
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def _norm(arrays):
    return float(np.sqrt(sum(np.vdot(a, a) for a in arrays)))


def _largest(array):
    array = np.abs(array)
    return float(np.max(array, where=np.isfinite(array), initial=0.0))


def _equal(a, b):
    """The same up to the last digits, which threads may change."""
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        return type(a) is type(b)           # messages
    return a.shape == b.shape and bool(np.all(np.abs(a - b) <= 1e-10 * max(_largest(a), _largest(b))))


def _rebuild(function, value, path=""):
    """The nest of dicts, lists and tuples again, with function(path, leaf) in the place of every leaf."""
    if isinstance(value, dict):
        return {key: _rebuild(function, branch, f"{path}.{key}" if path else str(key)) for key, branch in value.items()}
    if isinstance(value, (list, tuple)):
        branches = [_rebuild(function, branch, f"{path}.{i}" if path else str(i)) for i, branch in enumerate(value)]
        return value._make(branches) if hasattr(value, "_make") else type(value)(branches)
    return function(path, value)


def _leaves(value):
    """[(path, leaf)]: tree.leaves, but it goes into tuples too, as caches have them."""
    found = []
    _rebuild(lambda path, leaf: found.append((path, leaf)), value)
    return found


def _arrays(value):
    return [(path, leaf) for path, leaf in _leaves(value) if isinstance(leaf, np.ndarray)]


def _copy(leaf):
    """A writeable copy of an array that is contiguous only if the array is: strided arguments stay strided."""
    if not isinstance(leaf, np.ndarray):
        return leaf
    copy = leaf.copy(order="K")
    if copy.flags.c_contiguous and not leaf.flags.c_contiguous:
        copy = np.repeat(copy, 2, axis=-1)[..., ::2]
    return copy


@contextmanager
def _frozen(arrays):
    arrays = [array for array in arrays if array.flags.writeable]
    arrays.sort(key=lambda array: array.base is not None)       # owners first: their views are freed after them
    for array in arrays:
        array.flags.writeable = False
    try:
        yield
    finally:
        for array in arrays:
            array.flags.writeable = True
