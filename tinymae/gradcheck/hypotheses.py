"""The known mistakes, one function for each: it returns a sentence if the evidence fits, and '' if not.

The name of the function is the `cause` in the Row of the check.
`diagnose` asks them in the order of HYPOTHESES, at the end of this file. The last one always has a sentence.
"""
import itertools
import math
from functools import reduce

import numpy as np

from tinymae.gradcheck.evidence import MATCH, Case, arrays, exchange, same, wrong_elements, zero_sums
from tinymae.messages import either, listed
from tinymae.messages import message as _
from tinymae.ops.activation import gelu_forward

BRANCHES = 8            # subtrees of the arguments that are switched off one by one: each takes a forward and a backward


def not_finite(case: Case) -> str:
    if np.isinf(case.numeric).any():
        return _("forward is not finite next to this point: a log or a division close to 0, or an overflow")
    return ""


def vanished(case: Case) -> str:
    known = np.isfinite(case.numeric)
    true, given = np.linalg.norm(case.numeric[known]), np.linalg.norm(case.analytic[known])
    if not np.any(case.analytic):
        return _("all zeros: no gradient reaches it; a path from y back to it is missing")
    if true <= 1e-6 * given:
        return _("the true gradient is 0 here: y does not depend on it, or its effects cancel")
    return ""


def nearly(case: Case) -> str:
    """This one precedes all that compare up to MATCH: so near to the right gradient, they would fit by themselves."""
    if not same(case.analytic, case.numeric):
        return ""
    known = np.isfinite(case.numeric)
    off = np.linalg.norm(case.analytic[known] - case.numeric[known]) / np.linalg.norm(case.numeric[known])
    return _("right up to {off:.0e} of its norm: does backward leave out an eps of forward, or add it elsewhere (to a square "
             "root, not to what is inside)? does a line cast to float32, or a constant have too few digits?", off=off)


def blind_to_dy(case: Case) -> str:
    double = np.asarray(case.rescaled(2.0))
    if same(double, case.analytic):
        return _("it does not change when dy is doubled: backward ignores dy, multiply by it")
    if not same(double, 2.0 * case.analytic):
        return _("it does not double when dy is doubled: a backward has to be linear in dy")
    return ""


def constant_factor(case: Case) -> str:
    known = np.isfinite(case.numeric)
    analytic, numeric = case.analytic[known], case.numeric[known]
    if known.sum() < min(2, case.numeric.size):
        return ""
    factor = float(np.vdot(analytic, numeric) / np.vdot(numeric, numeric))
    spread = np.linalg.norm(analytic - factor * numeric) / np.linalg.norm(analytic)
    if spread > min(MATCH, 0.05 * abs(factor - 1.0)):
        return ""
    ratio = max(abs(factor), 1 / abs(factor))
    if abs(ratio - 1.0) <= MATCH:                               # a factor of 1 has been `nearly`
        return _("the sign is wrong everywhere, the size is right")
    finding = _factor(factor, ratio, one=case.numeric.size == 1)
    names = [name for number, name in _known_numbers(case) if abs(number / ratio - 1.0) <= 1e-4]
    if names:
        listed = reduce(lambda some, other: _("{some}, or {other}", some=some, other=other), names[:3])
        if names[0] == _batch_size(next(iter(arrays(case, "f")))):
            return _("{finding}: {ratio:.6g} is {names}; divide by it in one place only",
                     finding=finding, ratio=ratio, names=listed)
        return _("{finding}: {ratio:.6g} is {names}", finding=finding, ratio=ratio, names=listed)
    if abs(ratio - round(ratio)) <= 1e-4 * ratio and abs(factor) < 1:
        return _("{finding}: no size among the arguments is {count}, but if forward uses {tensor} {count} times, the gradients "
                 "of all uses are added, not averaged", finding=finding, count=round(ratio), tensor=case.tensor)
    return _("{finding}: no size among the arguments explains this number", finding=finding)


def _factor(factor, ratio, one):
    """A sentence on a gradient that is wrong by this factor, or 1 / ratio; one if it is a single number, which proves less."""
    if factor > 1:
        return (_("{ratio:.6g} times too large (it is one number only)", ratio=ratio) if one else
                _("{ratio:.6g} times too large everywhere", ratio=ratio))
    if factor > 0:
        return (_("{ratio:.6g} times too small (it is one number only)", ratio=ratio) if one else
                _("{ratio:.6g} times too small everywhere", ratio=ratio))
    if factor < -1:
        return (_("{ratio:.6g} times too large, and the sign is wrong (it is one number only)", ratio=ratio) if one else
                _("{ratio:.6g} times too large everywhere, and the sign is wrong", ratio=ratio))
    return (_("{ratio:.6g} times too small, and the sign is wrong (it is one number only)", ratio=ratio) if one else
            _("{ratio:.6g} times too small everywhere, and the sign is wrong", ratio=ratio))


def row_factor(case: Case) -> str:
    """A factor that is the same for a row and differs between rows, such as the rstd of a normalisation."""
    if case.numeric.ndim < 2 or case.numeric.shape[-1] < 3 or not np.isfinite(case.numeric).all():
        return ""
    size = np.vecdot(case.numeric, case.numeric)[..., None]
    if not size.all():
        return ""
    factor = np.vecdot(case.analytic, case.numeric)[..., None] / size
    if not same(factor * case.numeric, case.analytic) or (factor <= 0).any():
        return ""
    return _("each row is right but for a factor of its own, from {least:.3g} to {most:.3g}: a number that belongs to a row, "
             "such as rstd in a normalisation, is missing, or multiplied where it divides, or there twice",
             least=factor.min(), most=factor.max())


def _batch_size(path):
    return _("the batch size (axis 0 of {path})", path=path)


def _known_numbers(case):
    """[(number, its name)]: sizes, square roots and probabilities by which a gradient may be wrongly multiplied or divided."""
    batch, last, sizes, roots, rates = [], [], [], [], []
    floating = arrays(case, "f")
    first = next(iter(floating))
    for path, leaf in arrays(case, "fiub").items():
        for axis, size in enumerate(leaf.shape):
            if path == first and leaf.ndim > 1 and axis == 0:
                batch.append((size, _batch_size(path)))
            elif path == first and axis == leaf.ndim - 1:
                last.append((size, _("the last dimension (axis {axis} of {path})", axis=axis, path=path)))
            else:
                sizes.append((size, _("the size of axis {axis} of {path}", axis=axis, path=path)))
    for path, leaf in floating.items():
        if leaf.ndim > 1:
            sizes += [
                (leaf.size, _("the number of elements of {path} (mean or sum?)", path=path)),
                (leaf.size // max(1, leaf.shape[-1]), _("the number of rows of {path} (mean or sum?)", path=path)),
            ]
    sizes += [(part.size, _("the number of elements of y (mean or sum?)")) for part in case.y]
    for path, leaf in case.inputs.items():
        if isinstance(leaf, int) and not isinstance(leaf, bool) and leaf > 1 and path != "rng":
            sizes.append((leaf, path))
            roots.append((math.sqrt(leaf), _("sqrt({path}), which is sqrt(d_model / d_k) if {path} counts heads: scores are "
                                             "scaled by sqrt(d_k), in both passes", path=path)))
        elif isinstance(leaf, float) and 0 < leaf < 1:
            rates += [(1 / leaf, path), (1 / (1 - leaf), f"1 / (1 - {path})")]
    roots += [(math.sqrt(size), _("the square root of {name}", name=name)) for size, name in last + batch + sizes
              if name not in case.inputs]                       # an option, such as heads, has its sentence above
    widths = {path: leaf.shape[-1] for path, leaf in floating.items() if leaf.ndim > 1}
    roots += [
        (math.sqrt(a / b), _("the square root of {a} / {b}, the last dimensions of {one} and {other}: the root of one was "
                             "taken where that of the other belongs", a=a, b=b, one=one, other=other))
        for one, a in widths.items() for other, b in widths.items() if a > b
    ]
    two = [(2.0, _("the 2 of a square, or one path counted twice or forgotten"))]
    unbiased, fractions = [], []
    for n, name in {n: name for n, name in reversed(last + batch + sizes) if n > 2}.items():
        unbiased += [
            (n / (n - 1), _("n / (n - 1) with n = {n}, {name}: a variance has 1 / n in one pass, 1 / (n - 1) in the other",
                            n=n, name=name)),
            (math.sqrt(n / (n - 1)), _("the square root of n / (n - 1) with n = {n}, {name}: a standard deviation has 1 / n in "
                                       "one pass, 1 / (n - 1) in the other", n=n, name=name)),
        ]
    for path, value, counts in _markings(case):
        if counts.any():
            fractions += [
                (counts.size / counts.sum(), _("the size of {path} by the number of {path} that are not {value} (over which is "
                                               "the mean?)", path=path, value=value)),
                (counts.sum(), _("the number of {path} that are not {value} (mean or sum?)", path=path, value=value)),
            ]
    named = {}
    for number, name in batch + last + sizes + two + rates + roots + fractions + unbiased:
        if number > 1:
            named.setdefault(name, number)
    return [(number, name) for name, number in named.items()]


def permuted(case: Case) -> str:
    analytic, shape = case.analytic, case.numeric.shape
    if analytic.ndim > 5:
        return ""
    for axes in itertools.permutations(range(analytic.ndim)):
        if axes == tuple(range(analytic.ndim)):
            continue
        turned = analytic.transpose(axes)
        if same(turned, case.numeric):
            return _("it is the true gradient with its axes permuted: right after transpose{axes}", axes=axes)
        forgotten = analytic.reshape([shape[axis] for axis in axes]).transpose(np.argsort(axes))
        if same(turned.reshape(shape), case.numeric) or same(forgotten, case.numeric):
            return _("the true gradient, but with its numbers in wrong positions: a reshape does not replace transpose{axes}; "
                     "split or join an axis first, then transpose", axes=axes)
    return ""


def swapped(case: Case) -> str:
    for other, (analytic, numeric) in case.gradients.items():
        if other != case.tensor and same(case.analytic, numeric):
            if same(analytic, case.numeric):
                advice = exchange(case.tensor, other)
                return _("swapped with the gradient of {other}: {advice}", other=other, advice=advice)
            return _("this is the gradient of {other}", other=other)
    return ""


def passed_by(case: Case) -> str:
    missing = case.numeric - case.analytic
    for dy in case.dy:
        if same(dy, missing):
            return _("numeric - analytic is dy: the residual path is missing (y = x + f(x) gives dx = dy + ...)")
        if same(dy, -missing):
            return _("analytic - numeric is dy: dy is added once too often")
        if same(case.analytic, dy):
            return _("it is dy itself: only the residual path has a gradient, the path through the function is missing")
    return ""


def summand(case: Case) -> str:
    missing = case.numeric - case.analytic
    for other, (analytic, _numeric) in case.gradients.items():
        if other != case.tensor and same(analytic, missing):
            return _("numeric - analytic is the gradient of {other}: {tensor} is used twice, and the gradients of all uses are "
                     "added", other=other, tensor=case.tensor)
        if other != case.tensor and same(analytic, -missing):
            return _("analytic - numeric is the gradient of {other}: it does not belong here", other=other)
    return ""


def reordered(case: Case) -> str:
    if not np.isfinite(case.numeric).all():
        return ""
    for axis in range(case.numeric.ndim):
        if same(np.sort(case.analytic, axis=axis), np.sort(case.numeric, axis=axis)):
            return _("the right numbers in a different order along axis {axis}: undo a gather with the inverse order "
                     "(np.argsort of the order), not with the order itself", axis=axis)
    return ""


def softmax_diagonal(case: Case) -> str:
    for y, dy in zip(case.y, case.dy, strict=True):
        if y.shape == case.analytic.shape and same(case.analytic, y * (1 - y) * dy):
            return _("it is y * (1 - y) * dy, the diagonal of the softmax Jacobian: every output of a row depends on every "
                     "input of it, dx = y * (dy - sum(dy * y))")
    return ""


def logistic_gelu_forward(x: np.ndarray) -> tuple[np.ndarray, tuple]:
    """(y, (slope,)) of the approximation x / (1 + exp(-1.702 x)) (Hendrycks & Gimpel 2016)."""
    s = 0.5 * (1 + np.tanh(0.851 * x))
    return x * s, (s + 1.702 * x * s * (1 - s),)


def other_gelu(case: Case) -> str:
    x = case.inputs[case.tensor]
    if all(y.shape != x.shape for y in case.y):
        return ""
    with np.errstate(all="ignore"):
        forms = {_("exact form"): gelu_forward(x), _("tanh form"): gelu_forward(x, "tanh"),
                 _("logistic form, x / (1 + exp(-1.702 x))"): logistic_gelu_forward(x)}
    for y, dy in zip(case.y, case.dy, strict=True):
        used = [name for name, (value, _cache) in forms.items() if same(y, value)]
        derived = [name for name, (_value, (slope,)) in forms.items() if y.shape == x.shape and same(case.analytic, dy * slope)]
        if used and derived:
            return _("forward is GELU in its {used}, this is the derivative of its {derived}: take one form for both",
                     used=used[0], derived=derived[0])
    return ""


def along_x(case: Case) -> str:
    """The last term of the backward of a layer norm removes the component along xhat."""
    x, analytic, numeric = case.inputs[case.tensor], case.analytic, case.numeric
    if not x.ndim or x.shape[-1] < 3 or not np.isfinite(numeric).all() or {x.ndim - 1} - zero_sums(numeric):
        return ""
    xhat = x - x.mean(axis=-1, keepdims=True)
    xhat = xhat / np.maximum(np.linalg.norm(xhat, axis=-1, keepdims=True), np.finfo(float).tiny)
    ours, true = (np.vecdot(gradient, xhat)[..., None] for gradient in (analytic, numeric))
    if np.linalg.norm(true) > 1e-3 * np.linalg.norm(ours) or not same(analytic - ours * xhat, numeric - true * xhat):
        return ""
    return _("right but for a multiple of x - mean(x) in each row, to which the true gradient is orthogonal, as that of a "
             "layer normalisation: the term xhat * mean(dxhat * xhat) is missing, has a wrong factor, or its mean divides by D "
             "- 1 instead of D")


def repeated_ids(case: Case) -> str:
    if not case.numeric.ndim:
        return ""
    rows = case.numeric.shape[0]
    bad = wrong_elements(case).reshape(rows, -1).any(axis=1)
    for path, ids in arrays(case, "iu").items():
        if ids.size and ids.min() >= 0 and ids.max() < rows:
            counts = np.bincount(ids.ravel().astype(int), minlength=rows)
            if same(case.analytic * np.maximum(counts, 1).reshape(-1, *[1] * (case.numeric.ndim - 1)), case.numeric):
                return _("each row is divided by the number of times that {path} names it: the gradients of all uses are "
                         "added, not averaged", path=path)
            lost = not case.analytic[bad].any()                 # rows without any gradient are another mistake
            if bad.any() and not bad[counts < 2].any() and (counts == 1).any() and not lost:
                return _("wrong only in rows that {path} names more than once: their gradients add up (np.add.at), "
                         "dw[{path}] += dy keeps the last one", path=path)
    return ""


def masked(case: Case) -> str:
    bad = wrong_elements(case)
    masks = arrays(case, "b")
    for path, mask in masks.items():
        for shape in (mask.shape, (*mask.shape, 1)):
            try:
                allowed = np.broadcast_to(mask.reshape(shape), bad.shape)
            except ValueError:                                  # this mask does not belong to this tensor
                continue
            if bad.any() and not bad[allowed].any() and allowed.any():
                return _("wrong only where {path} is False: what was masked in forward gets no gradient (or a fixed one)",
                         path=path)
    if not masks or not case.passes({path: np.ones_like(mask) for path, mask in masks.items()}):
        return ""
    if len(masks) > 1:
        return _("right when {masks} are True everywhere: backward treats masked positions wrongly", masks=listed(masks))
    return _("right when {mask} is True everywhere: backward treats masked positions wrongly", mask=next(iter(masks)))


def _markings(case):
    """[(path, value, counts)]: integer or boolean arrays in which one value marks what does not count; there, counts is False.

    In a mask the value is False or 0; in other integers it is a number that is also an option, as ignore_index is.
    """
    options = {leaf for path, leaf in case.inputs.items() if type(leaf) is int and path != "rng"}
    found = []
    for path, leaf in arrays(case, "iub").items():
        values = {leaf.dtype.type(0).item()} if leaf.size > 1 and set(np.unique(leaf)) == {0, 1} else options
        found += [(path, value, leaf != value) for value in values if (leaf == value).any()]
    return found


def not_counted(case: Case) -> str:
    bad = wrong_elements(case)
    for path, value, counts in _markings(case):
        if bad.ndim < counts.ndim or bad.shape[:counts.ndim] != counts.shape or not bad.any():
            continue
        wrong = bad.reshape(*counts.shape, -1).any(axis=-1)
        if not wrong[counts].any() and counts.any():
            return _("wrong only where {path} is {value}: what does not count in forward gets no gradient",
                     path=path, value=value)
    return ""


def gain_of_one(case: Case) -> str:
    vectors = {path: leaf for path, leaf in arrays(case, "f").items() if leaf.ndim == 1 and leaf.size and path != case.tensor}
    offsets = {path: np.zeros_like(leaf) for path, leaf in vectors.items() if path.split(".")[-1].startswith("b")}
    gains = {path: np.ones_like(leaf) for path, leaf in vectors.items() if path not in offsets}
    own = case.inputs[case.tensor]
    if own.ndim == 1 and case.tensor.split(".")[-1] in ("g", "gamma", "gain", "weight", "scale"):
        gains[case.tensor] = np.ones_like(own)
    for group in (gains, offsets, gains | offsets):
        if not group or not case.passes(group):
            continue
        changes = next(({path: leaf} for path, leaf in group.items() if case.passes({path: leaf})), group)
        state = listed(f"{path} = {leaf.flat[0]:.0f}" for path, leaf in changes.items())
        if changes.keys() == {case.tensor}:
            return _("right only while {state}: the gradient of a factor does not contain that factor", state=state)
        if changes.keys() <= gains.keys():
            return _("right only while {state}: in a normalisation gamma multiplies dy before the means are taken, not after",
                     state=state)
        if own.ndim == 1:
            return _("right only while {state}: does dgamma use y instead of xhat? at the initial values they are the same",
                     state=state)
        return _("right only while {state}", state=state)
    return ""


def dropout(case: Case) -> str:
    changes = {path: 0.0 for path, leaf in case.inputs.items()
               if isinstance(leaf, float) and 0 < leaf < 1 and (path == "p" or "rate" in path or "drop" in path)}
    trials = [{"rng": None}] * (case.inputs.get("rng") is not None) + [changes] * bool(changes)
    if any(case.passes(trial) for trial in trials):
        return _("right without dropout, wrong with it: backward has to use the mask and scale that forward drew, and in each "
                 "product the factor that forward used, before dropout or after it")
    return ""


def option(case: Case) -> str:
    """A number such as label_smoothing or eps, which 0 switches off."""
    numbers = [path for path, leaf in case.inputs.items() if isinstance(leaf, float) and leaf]
    with np.errstate(all="ignore"):                             # forward may divide by it
        off = [path for path in numbers if case.passes({path: 0.0})]
    if not off:
        return ""
    return _("right with {path} = 0: backward leaves it out, or is wrong in what it brings in", path=off[0])


def batch(case: Case) -> str:
    first = next(leaf for leaf in arrays(case, "f").values())
    if first.ndim < 2 or first.shape[0] < 2:
        return ""
    size = first.shape[0]
    if case.numeric.ndim > 1 and case.numeric.shape[0] == size:
        bad = wrong_elements(case).reshape(size, -1).mean(axis=1)
        if bad[0] == 0 and bad[1:].min() > 0.5:
            return _("the first item of the batch is right, all others are wrong: only item 0 is used")
    items = {path: leaf[:1] for path, leaf in arrays(case, "fiub").items()
             if leaf.ndim and leaf.shape[0] == size and "." not in path and path != case.tensor}
    tensor = case.inputs[case.tensor]
    if "." not in case.tensor and tensor.ndim > 1 and tensor.shape[0] == size:
        items[case.tensor] = tensor[:1]
    if case.passes(items):
        return _("right for a batch of one, wrong for a batch of {size}: is one item used for all, or are items mixed or "
                 "counted twice?", size=size)
    return ""


def wrong_axis(case: Case) -> str:
    analytic, numeric = case.analytic, case.numeric
    if not np.isfinite(numeric).all() or not numeric.ndim:
        return ""
    ours, true = zero_sums(analytic), zero_sums(numeric)
    if true - ours and ours - true:
        return _("every sum along axis {right} of the true gradient is 0, yours is 0 along axis {wrong}: the sum in backward "
                 "runs along the wrong axis", right=min(true - ours), wrong=min(ours - true))
    if true - ours:
        return _("every sum along axis {axis} of the true gradient is 0, as with a softmax or a subtracted mean, and yours is "
                 "not: the term that couples the elements along that axis is missing or wrong", axis=min(true - ours))
    for axis in range(numeric.ndim):
        ours, true = (np.ptp(g, axis=axis).max() <= MATCH * np.abs(g).max() for g in (analytic, numeric))
        if numeric.shape[axis] > 1 and ours and not true:
            return _("yours is constant along axis {axis}, the true gradient is not: a sum or mean over the wrong axis",
                     axis=axis)
        if numeric.shape[axis] > 1 and true and not ours:
            return _("the true gradient is constant along axis {axis}, yours is not: a sum or mean over the wrong axis",
                     axis=axis)
    return ""


def _branches(case):
    """{prefix: {path: zeros}} of the largest subtrees of the arguments without this tensor, all their numbers set to 0."""
    found = {}
    for path, leaf in arrays(case, "f").items():
        parts = path.split(".")
        for depth in range(2, len(parts)):
            prefix = ".".join(parts[:depth])
            if not f"{case.tensor}.".startswith(f"{prefix}."):
                found.setdefault(prefix, {})[path] = np.zeros_like(leaf)
    return {prefix: found[prefix] for prefix in sorted(found, key=lambda prefix: prefix.count("."))[:BRANCHES]}


def _outermost(prefixes):
    """The prefixes that are in no other one."""
    return [prefix for prefix in prefixes if not any(prefix.startswith(f"{other}.") for other in prefixes)]


def residual(case: Case) -> str:
    off = _outermost([prefix for prefix, zeros in _branches(case).items() if case.lost(zeros)])
    if not off:
        return ""
    return _("all zeros once {parts} is 0, though y still depends on it: a path around is missing, another use of it or a "
             "residual path (y = x + f(x) gives dx = dy + ...)", parts=either(off))


def one_path(case: Case) -> str:
    off = _outermost([prefix for prefix, zeros in _branches(case).items() if case.passes(zeros)])
    if not off:
        return ""
    if len(off) > 1:
        return _("right once {parts} is 0: what is wrong or missing is the gradient that comes back through one of them; if a "
                 "tensor is on several paths, their gradients add up", parts=either(off))
    return _("right once {part} is 0: what is wrong or missing is the gradient that comes back through it; if a tensor is on "
             "several paths, their gradients add up", part=off[0])


def unknown(case: Case) -> str:
    known = np.isfinite(case.numeric)
    analytic, numeric = case.analytic[known], case.numeric[known]
    bad = wrong_elements(case)
    cosine = float(np.vdot(analytic, numeric) / (np.linalg.norm(analytic) * np.linalg.norm(numeric)))
    text = _("no known pattern: {wrong} of {measured} measured elements differ, the cosine of the two gradients is "
             "{cosine:.3f}, their norms are {ours:.3g} and {true:.3g}",
             wrong=int(bad[known].sum()), measured=int(known.sum()), cosine=cosine, ours=np.linalg.norm(analytic),
             true=np.linalg.norm(numeric))
    for axis in range(bad.ndim):
        where = np.flatnonzero(bad.any(axis=tuple(i for i in range(bad.ndim) if i != axis)))
        if 0 < len(where) < bad.shape[axis] and len(where) <= 5:
            text = _("{text}; wrong only at {where} of axis {axis}", text=text, where=listed(where), axis=axis)
    return text


HYPOTHESES = (
    not_finite, vanished, nearly, blind_to_dy, constant_factor, row_factor, permuted, swapped, passed_by, residual, summand,
    reordered, softmax_diagonal, other_gelu, along_x, not_counted, repeated_ids, gain_of_one, dropout, option, masked, batch,
    wrong_axis, one_path, unknown,
)
