"""Is a backward pass the derivative of its forward pass?  The forward pass itself can tell.

    y, cache = forward(*args, **options)
    grads    = backward(dy, cache)              one gradient per differentiable argument, in the same order

For one number x_i of one argument, and for L = <dy, y> with a random dy,

    (1)  numeric  = (L(x_i + h) - L(x_i - h)) / 2h         two forward passes, no backward
    (2)  analytic = what backward returns for x_i
    (3)  error    = |analytic - numeric| / max(|analytic|, |numeric|)      if |analytic - numeric| > noise
    (4)  noise    = 10 eps |L| / h                         the error of (1) by rounding alone; eps = 2.2e-16, and |L| is
                                                           the norm of dy * y, in which no signs cancel

dy is random because dy = 1 hides bugs: the gradient of sum(softmax(x)) is 0, so a softmax backward that is 1000 times
too large passes that test.  Choose random arguments for the same reason (a gamma that is not 1, a beta that is not 0),
sizes that all differ, masks on, dropout on.

Why h = 1e-5: (1) has an error of about h*h/6 third derivatives (1e-11) and of eps / h by rounding (1e-11); the two are equal
near eps ** (1/3).  Why tolerance = 1e-6: (1) is accurate to 1e-8 if the gradient is not tiny, and the smallest real mistake we
know, a layer normalisation whose backward forgets eps = 1e-5, is an error of 1e-5.  An element that misses the tolerance is
measured again with four steps; the two neighbouring steps that agree best with each other decide.  They do not use the
analytic gradient, so this settles kinks (ReLU) and curvature, and never passes a wrong backward.

What a gradient check cannot see: it compares backward with forward only.  A wrong forward with the right derivative of
itself passes.  Forward passes need other evidence: reference numbers, slow loops, invariants.
"""
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from tinymae.gradcheck.diagnosis import diagnose, explain_shape
from tinymae.gradcheck.evidence import MATCH, Case
from tinymae.gradcheck.measure import (
    FILL,
    hidden_by_noise,
    judge_tensor,
    kink,
    largest_element,
    measure,
    relative_errors,
    step_size,
)
from tinymae.gradcheck.pair import Pair, arrays_of, differentiable, float_parts, joint_norm, leaves_of, rebuild
from tinymae.messages import columns, padded
from tinymae.messages import message as _


@dataclass(frozen=True)
class Row:
    """The verdict on one tensor.

    tensor is the argument's name and the path in its tree (`p.q.w`), or `y`, `dy`, `cache.0`, `backward` for what is not a
    gradient.  worst is the index of the worst element; analytic, numeric and error are its numbers (nan, nan, inf if there is
    none).  diagnosis is a sentence in the user's language, '' if ok.  cause names the kind of mistake in any language, for
    programs: the name of the function in `hypotheses` that has written the sentence ("constant_factor", "permuted", "unknown"),
    or one of

        "noise"     rounding hides the gradient     "shape"     the gradient has the wrong shape
        "kink"      forward has a kink here         "returned"  backward returned no gradient for it, or no array
        "write"     a function writes into          "y"         y is not float64, not finite, or not
                    an array of its caller                      the same in two calls
        "memory"    something outlives the call

    and '' if ok, or if the row is not from `gradcheck`.
    """

    tensor: str
    worst: tuple
    analytic: float
    numeric: float
    error: float
    ok: bool
    diagnosis: str
    cause: str = ""


def gradcheck(
    forward: Callable, backward: Callable, *args: object,
    seed: int = 0, h: float = 1e-5, tolerance: float = 1e-6, samples: int | None = None, **options: object,
) -> list[Row]:
    """Compare a hand-written backward with central differences of its forward.

    Parameters
    ----------
    forward : y, cache = forward(*args, **options)
        y is a float, an array, or a tuple of them
    backward : gradients = backward(dy, cache)
        a tuple, or the only gradient.  dy is like y: a float for a float, a tuple for a tuple, with None for an output that
        is not floating
    *args : the arguments of forward
        float64 arrays, and dicts and lists that hold them, are differentiated.  Everything else is constant: integer and bool
        arrays, numbers, strings, callables, tuples, None.  For a constant, backward returns nothing, or None.
    seed : for dy and the sampled elements
    h : the step of the differences, times max(1, |x_i|)
    tolerance : the largest relative error that passes
    samples : for whole models
        check this number of random elements of each tensor (None: all), and the derivative along one random direction, which
        covers the rest
    **options : passed to forward, never differentiated
        So give a float array that is a constant for backward (a target) by keyword.  `rng` is an int here: forward gets a
        fresh np.random.default_rng(rng) in every call, so that dropout always draws the same mask.

    Returns
    -------
    rows : one per differentiable array, in order, and one for anything else that is wrong
        The pair is right if all(row.ok for row in rows).  A tensor that is hidden by noise is not ok either: it cannot be
        judged.  A forbidden write and a bad y are reported alone: they make the rest meaningless.

    Raises
    ------
    TypeError
        if an argument or y is complex, an argument is float32, rng is a Generator, or forward does not return (y, cache)
    ValueError
        if no positional argument is a float64 array, or if h, tolerance or samples is not positive

    Notes
    -----
    The arguments are copied.  Forward sees them read-only, backward gets dy and the cache read-only.

    Differs: torch.autograd.gradcheck compares the whole Jacobian; here one random dy represents all its rows.
    """
    inputs = _named(forward, args, options)
    _demand(inputs, len(args), h, tolerance, samples)
    functions, point = (forward, backward, inputs), {"positional": len(args), "seed": seed}
    try:
        return _check(Pair(*functions, **point), h, tolerance, samples)
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        guilty = _find_write(*functions, **point)
        if guilty is None:                      # an array that was read-only before the check
            raise
        function, array = guilty
        return [_refusal(array, "write", _(
            "{function} writes into {array}: a function writes in place only into arrays that it made in this call; write "
            "a = a * b instead of a *= b, or copy first", function=function, array=array,
        ))]


def format_rows(title: str, rows: list[Row]) -> str:
    """The rows as an aligned table: tensor, worst index, both numbers there, relative error, verdict, diagnosis."""
    gradients = any(np.isfinite([row.analytic, row.numeric]).any() for row in rows)
    heads = (_("worst"), _("analytic"), _("numeric")) if gradients else ("", "", "")
    lines = [(title, *heads, _("error"), "", "")]
    for row in rows:
        worst = "[" + ", ".join(map(str, row.worst)) + "]" if row.worst else ""
        numbers = ["" if np.isnan(number) else f"{number:.6g}" for number in (row.analytic, row.numeric)]
        error = f"{row.error:.1e}" if np.isfinite(row.error) else ""
        lines.append((f"  {row.tensor}", worst, *numbers, error, _("ok") if row.ok else _("WRONG"), row.diagnosis))
    widths = [max(columns(line[column]) for line in lines) for column in range(6)] + [0]
    return "\n".join("  ".join(padded(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)


def _named(forward, args, options):
    """{name: value} of all arguments: first the positional ones, under the names in forward's signature."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except ValueError:                                          # some builtins have no signature
        parameters = ()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:len(args)]
    names += [f"arg{i}" for i in range(len(names), len(args))]
    if twice := sorted(set(names) & options.keys()):
        raise TypeError(_("{name!r} is given twice: by position and by keyword", name=twice[0]))
    return dict(zip(names, args, strict=True)) | options


def _demand(inputs, positional, h, tolerance, samples):
    if not h > 0 or not tolerance > 0:
        raise ValueError(_("h is {h} and tolerance is {tolerance}, expected small positive numbers such as 1e-5 and 1e-6",
                           h=h, tolerance=tolerance))
    for path, leaf in leaves_of(inputs):
        if isinstance(leaf, np.random.Generator):
            raise TypeError(_("{path} is a Generator, expected an int seed: forward runs many times and has to draw the same "
                              "numbers every time; pass rng=0, and forward gets a fresh default_rng(0) in each call",
                              path=path))
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "c":
            raise TypeError(_("{path} is {dtype}, a gradient check needs real numbers: a complex number moves in two "
                              "directions; pass {path}.real and {path}.imag as two arguments", path=path, dtype=leaf.dtype))
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f" and leaf.dtype != np.float64:
            raise TypeError(_not_float64(path, leaf.dtype))
    if not differentiable(inputs, positional):
        raise ValueError(_("nothing to differentiate: among {names} no positional argument is a float64 array, or a dict or "
                           "list with one; keyword arguments are constants", names=list(inputs)))
    if samples is not None and samples < 1:
        raise ValueError(_("samples is {samples}, expected at least 1, or None for every element", samples=samples))


def _not_float64(path, dtype):
    """A sentence on an argument of another floating type."""
    if dtype.itemsize >= 8:
        return _("{path} is {dtype}, a gradient check needs float64 in the byte order of this machine; pass "
                 "{path}.astype(np.float64)", path=path, dtype=dtype)
    return _("{path} is {dtype}, a gradient check needs float64 in the byte order of this machine: {dtype} keeps {digits} "
             "digits, and the difference over a step of 1e-5 is hidden by rounding; pass {path}.astype(np.float64)",
             path=path, dtype=dtype, digits=np.finfo(dtype).precision)


def _check(pair, h, tolerance, samples):
    if problem := _output_problem(pair):
        return [_refusal("y", "y", problem)]
    gradients = pair.backward(pair.forward()[1])
    rng = np.random.default_rng([pair.seed, 1])
    measured = {path: measure(pair, path, h=h, samples=FILL if gradient.shape != pair.leaves[path].shape else samples, rng=rng)
                for path, gradient in gradients.items() if not isinstance(gradient, str)}
    judged = {path: judge_tensor(pair, path, gradients[path], numeric, slack, h=h, tolerance=tolerance, rng=rng)
              for path, (numeric, slack) in measured.items() if gradients[path].shape == numeric.shape}
    largest = max(largest_element(array) for array in [*pair.weights, *(numeric for numeric, _slack in measured.values())])

    rows = []
    for path, gradient in gradients.items():
        if isinstance(gradient, str):
            rows.append(_refusal(path, "returned", gradient))
        elif path not in judged:
            others = {other: (gradients[other], numeric) for other, (numeric, _slack) in measured.items()}
            rows.append(_refusal(path, "shape", explain_shape(path, gradient, others.pop(path)[1], others)))
        else:
            worst, error = judged[path]
            numeric, slack = measured[path]
            if error <= tolerance:
                cause, why = "noise", hidden_by_noise(gradient, numeric, slack, largest=largest, tolerance=tolerance)
            elif found := kink(pair, path, worst, gradient[worst], h=h):
                cause, why = "kink", found
            else:
                cause, why = _explain(pair, path, gradients, measured, h, rng)
            here = (float(gradient[worst]), float(numeric[worst])) if gradient.size else (np.nan, np.nan)
            rows.append(Row(path, worst, *here, error, not why, why, cause if why else ""))
    # pair.cache comes from the first forward.  Its backward runs last, after a forward with different numbers: a backward
    # that reads what a later forward left behind, or adds to what an earlier backward left, now returns another gradient.
    pair.forward_elsewhere(h)
    late = pair.backward(pair.cache)
    if any(not _equal(gradient, late.get(path)) for path, gradient in gradients.items()):
        rows.append(_refusal("backward", "memory", _(
            "the same arguments gave another gradient later: something outlives the call; backward must read only its cache, "
            "and add to no stored gradient"
        )))
    return rows


def _output_problem(pair):
    for part in pair.y:
        if part.dtype != np.float64:
            return _("y is {dtype} for float64 arguments: which line of forward casts it?", dtype=part.dtype)
        if not np.isfinite(part).all():
            return _("y contains {number}: forward itself fails at this point", number=part[~np.isfinite(part)][0])
    again = float_parts(pair.forward()[0])
    if len(again) != len(pair.y) or any(not _equal(a, b) for a, b in zip(again, pair.y, strict=True)):
        return _("not deterministic: two calls of forward with the same arguments differ; pass rng=0 if it draws random "
                 "numbers, and look for state that outlives the call if not")
    return ""


def _explain(pair, path, gradients, measured, h, rng):
    """Collect the evidence for diagnose."""
    numeric, slack = measured[path]
    if numeric.size <= FILL:
        for index in zip(*np.nonzero(np.isnan(numeric)), strict=True):
            numeric[index], slack[index] = pair.slope(path, index, 1.0, step_size(h, pair.leaves[path][index]))

    def elsewhere(changes):
        altered = rebuild(lambda where, leaf: changes.get(where, leaf), pair.inputs)
        other = Pair(*pair.functions, altered, positional=pair.positional, seed=pair.seed)
        return other, other.backward(other.cache)[path]

    def passes(changes):
        try:
            other, gradient = elsewhere(changes)
            return _agrees(other, path, gradient, h, rng)
        except Exception:           # functions of the user, with arguments that the user did not give: anything may be raised
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
            where: (gradients[where], n) for where, (n, _slack) in measured.items() if gradients[where].shape == n.shape},
        inputs=dict(leaves_of(pair.inputs)), dy=[np.asarray(d) for d in pair.weights], y=pair.y,
        rescaled=lambda scale: pair.backward(pair.forward()[1], scale)[path], passes=passes, lost=lost))


def _agrees(pair, path, analytic, h, rng):
    """Three random directions agree, and show more than noise."""
    seen = False
    for _trial in range(3):
        v = rng.standard_normal(analytic.shape)
        slope, noise = pair.slope(path, ..., v, h)
        scale = joint_norm([analytic * v])
        if relative_errors(np.vdot(analytic, v), slope, noise, tolerance=MATCH, scale=scale) > MATCH:
            return False
        seen = seen or abs(slope) > 100 * noise
    return seen


def _find_write(forward, backward, inputs, **point):
    """(function, array) of the first forbidden write, or None: one array at a time is frozen."""
    pair = partial(Pair, forward, backward, inputs, **point)
    if _writes(pair, freeze=""):                # not because of the freezing: the array was read-only before
        return None
    for path, _array in arrays_of(inputs):
        if _writes(pair, freeze=path):
            return "forward", path
    loose = pair(freeze="")
    candidates = arrays_of(inputs) + arrays_of({"dy": loose.dy, "cache": loose.cache})
    if _writes(loose.backward, loose.cache):
        return None
    for path, _array in candidates:
        frozen = pair(freeze=path)
        if _writes(frozen.backward, frozen.cache):
            return "backward", path
    return None


def _writes(function, *args, **options):
    try:
        function(*args, **options)
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        return True
    return False


def _refusal(tensor, cause, diagnosis):
    return Row(tensor, (), np.nan, np.nan, np.inf, False, diagnosis, cause)


def _equal(a, b):
    """Equal up to the last digits, which threads may change."""
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        return type(a) is type(b)           # messages
    return a.shape == b.shape and bool(np.all(np.abs(a - b) <= 1e-10 * max(largest_element(a), largest_element(b))))
