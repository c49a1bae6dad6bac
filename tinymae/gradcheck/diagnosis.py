"""What does a wrong gradient look like?

A wrong backward usually leaves a fingerprint: it is off by one factor, or transposed, or one summand short, or right
again when gamma is 1 or dropout is off.  Each hypothesis below is a function of the evidence (a Case) that returns one
sentence, or '' when it does not fit.  `diagnose` returns the first that fits; they are ordered from exact arithmetic
(the numbers agree to five digits once the mistake is undone) to circumstance (it passes when something is switched off).

A sentence names its evidence.  The evidence is certain; the cause it suggests is a guess, the likeliest we know.
"""
import itertools

from tinymae.gradcheck.evidence import places, same
from tinymae.gradcheck.hypotheses import HYPOTHESES


def diagnose(case):
    """One sentence on what the error looks like."""
    return next(filter(None, (hypothesis(case) for hypothesis in HYPOTHESES)))


def explain_shape(tensor, analytic, numeric, others=()):
    """One sentence on a gradient of the wrong shape; others is {tensor: numeric} of the other tensors."""
    text = f"the gradient has shape {analytic.shape}, expected {numeric.shape}"
    for other, gradient in dict(others).items():
        if same(analytic, gradient):
            return f"{text}: it is the gradient of {other}; {places(tensor, other)}"
    if analytic.size == numeric.size and same(analytic.reshape(numeric.shape), numeric):
        return f"{text}: the numbers are right, reshape it"
    for axes in itertools.permutations(range(analytic.ndim)):
        turned = analytic.transpose(axes)
        if turned.shape == numeric.shape and same(turned, numeric):
            return f"{text}: it is right after transpose{axes}"
    for count in range(1, analytic.ndim + 1):
        for axes in itertools.combinations(range(analytic.ndim), count):
            total = analytic.sum(axis=axes)
            if total.size == numeric.size and same(total.reshape(numeric.shape), numeric):
                return f"{text}: it is right when summed over axes {axes}, along which forward repeated the argument"
    return text
