"""What does a wrong gradient look like?

A wrong backward usually leaves a fingerprint: it is wrong by one factor, or transposed, or one summand is missing, or it is
right if gamma is 1 or dropout is off.  Each of the `hypotheses` is a function of the evidence (a Case) that returns one
sentence, or '' if it does not fit.  `diagnose` returns the first sentence, and the name of its function.  They are ordered from
exact arithmetic (the numbers agree to five digits once the mistake is undone) to circumstance (the check passes if something is
switched off).

A sentence names its evidence.  The evidence is certain; the cause that it suggests is a guess, the most likely one.
"""
import itertools

import numpy as np

from tinymae.gradcheck.evidence import Case, exchange, same
from tinymae.gradcheck.hypotheses import HYPOTHESES
from tinymae.messages import listed
from tinymae.messages import message as _


def diagnose(case: Case) -> tuple[str, str]:
    """(cause, sentence): the name of the first of HYPOTHESES that fits, and its sentence on what the error looks like."""
    return next((hypothesis.__name__, sentence) for hypothesis in HYPOTHESES if (sentence := hypothesis(case)))


def explain_shape(
    tensor: str, analytic: np.ndarray, numeric: np.ndarray, others: dict[str, tuple[np.ndarray, np.ndarray]],
) -> str:
    """One sentence on a gradient of the wrong shape; others is {tensor: (analytic, numeric)} of the other tensors."""
    cause = _cause_of_shape(tensor, analytic, numeric, others)
    if not cause:
        return _("the gradient has shape {shape}, expected {expected}", shape=analytic.shape, expected=numeric.shape)
    return _("the gradient has shape {shape}, expected {expected}: {cause}",
             shape=analytic.shape, expected=numeric.shape, cause=cause)


def _cause_of_shape(tensor, analytic, numeric, others):
    """A sentence on what the gradient of the wrong shape is, or '' if it is nothing known."""
    taken = [other for other, (_analytic, gradient) in others.items() if same(analytic, gradient)]
    for other in taken:
        if not same(others[other][0], others[other][1]):        # where it belongs, there is something else
            return _("it is the gradient of {other}; {advice}", other=other, advice=exchange(tensor, other))
    if analytic.size == numeric.size and same(analytic.reshape(numeric.shape), numeric):
        return _("the numbers are right, reshape it")
    for axes in itertools.permutations(range(analytic.ndim)):
        turned = analytic.transpose(axes)
        if turned.shape == numeric.shape and same(turned, numeric):
            return _("it is right after transpose{axes}", axes=axes)
    for count in range(1, analytic.ndim + 1):
        for axes in itertools.combinations(range(analytic.ndim), count):
            total = analytic.sum(axis=axes)
            if total.size == numeric.size and same(total.reshape(numeric.shape), numeric):
                return _("it is right when summed over axes {axes}, along which forward repeated {tensor}",
                         axes=axes, tensor=tensor)
    for count in range(1, numeric.ndim + 1):
        for axes in itertools.combinations(range(numeric.ndim), count):
            total = numeric.sum(axis=axes)
            if total.size == analytic.size and same(analytic.reshape(total.shape), total):
                return _("it is the sum of the true gradient over axis {axes}: one axis too many; the gradient of what all "
                         "positions share is the sum over all axes but its own", axes=listed(axes))
    if taken:
        return _("it is the gradient of {other}; {advice}", other=taken[0], advice=exchange(tensor, taken[0]))
    return ""
