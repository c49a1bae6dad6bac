"""Checks of layer normalisation: the forward alone, and the pair."""
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from tinymae.learn.compare import spelled
from tinymae.learn.demands import function, parts
from tinymae.learn.inputs import TQ, B, D, gaussian, mean, total
from tinymae.learn.judge import Tables, judge
from tinymae.learn.pairs import check_forward, check_pair
from tinymae.messages import marked
from tinymae.messages import message as _
from tinymae.ops import layernorm


def normalise(
    x: np.ndarray, gamma: np.ndarray | float, beta: np.ndarray | float, *, axis: int | None = -1, ddof: int = 0,
    deviation: Callable[[np.ndarray], np.ndarray] = lambda var: np.sqrt(var + 1e-5),
) -> np.ndarray:
    """Layer normalisation without mistakes; the options are mistakes."""
    return gamma * (x - mean(x, axis=axis)) / deviation(x.var(axis, ddof=ddof, keepdims=True)) + beta


FAR_FROM_ZERO = marked(
    "right near 0 and wrong far from it: is the variance computed as mean(x^2) - mean(x)^2? Those are two large numbers, and "
    "in float32 nothing is left of their difference; take mean((x - mean(x))^2)"
)
LAYERNORM_VARIANTS = {
    marked("the variance is the unbiased one, 1 / (D - 1): layer normalisation has 1 / D"): partial(normalise, ddof=1),
    marked("eps is added to the square root: it belongs inside, to the variance"):
        partial(normalise, deviation=lambda var: np.sqrt(var) + 1e-5),
    marked("the variance is the unbiased one, 1 / (D - 1), and eps is added to its square root, as in the Annotated "
           "Transformer: layer normalisation has 1 / D, and eps inside"):
        partial(normalise, ddof=1, deviation=lambda var: np.sqrt(var) + 1e-5),
    marked("eps is missing"): partial(normalise, deviation=np.sqrt),
    marked("x is divided by the variance: it should be its square root"): partial(normalise, deviation=lambda var: var + 1e-5),
    marked("mean and variance are taken along axis -2: each position is normalised over its own features, axis -1"):
        partial(normalise, axis=-2),
    marked("mean and variance are taken over the whole array: each position has its own"): partial(normalise, axis=None),
    marked("gamma and beta are not used"): lambda x, gamma, beta: normalise(x, 1, 0),
}


def check_layernorm_forward(names: dict) -> Tables:
    """With x near 0; for one position; then in float32 and far from 0, where rounding can destroy a variance."""
    gamma, beta, right = gaussian(D), gaussian(D, seed=1), layernorm.layernorm_forward
    core = partial(check_forward, names, "layernorm", right)

    def centred(x):
        return x - mean(x)

    def rstd(x, eps=1e-5):
        return 1 / np.sqrt(x.var(-1, keepdims=True) + eps)

    def xhat(x):
        return centred(x) * rstd(x)

    def hat(wrong):
        """Something else in place of xhat."""
        return lambda x, gamma, beta: gamma * wrong(x) + beta

    def apart(x, gamma, beta, first, second, squares=False):
        """Mean and variance along axes of their own."""
        moved = x - mean(x, axis=first)
        var = mean(moved * moved, axis=second) if squares else x.var(second, keepdims=True)
        return gamma * moved / np.sqrt(var + 1e-5) + beta

    def steps(x, gamma, beta):
        return {_("the mean of each position"): [x.mean(-1)], _("x minus its mean"): [centred(x)],
                _("the variance"): [centred(x), x.var(-1)],
                _("the square root of variance + eps"): [centred(x), 1 / rstd(x)], _("xhat of (1)"): [xhat(x)],
                _("gamma * xhat"): [gamma * xhat(x)]}

    yield from core(gaussian(B, TQ, D), gamma, beta, steps=steps, variants=LAYERNORM_VARIANTS | {
        _("beta is not added"): lambda x, gamma, beta: gamma * xhat(x),
        _("gamma is not used"): lambda x, gamma, beta: xhat(x) + beta,
        _("gamma and beta are swapped"): lambda x, gamma, beta: beta * xhat(x) + gamma,
        _("beta is subtracted"): lambda x, gamma, beta: gamma * xhat(x) - beta,
        _("beta is added before gamma multiplies"): lambda x, gamma, beta: gamma * (xhat(x) + beta),
        _("the mean is not subtracted from x"): hat(lambda x: x * rstd(x)),
        _("no mean is subtracted, neither from x nor in the variance: that is RMSNorm"):
            hat(lambda x: x / np.sqrt(mean(x * x) + 1e-5)),
        _("the sum is subtracted in place of the mean"): hat(lambda x: (x - total(x)) * rstd(x)),
        _("the variance is the mean of x^2: x minus its mean is squared"):
            hat(lambda x: centred(x) / np.sqrt(mean(x * x) + 1e-5)),
        _("x is divided by the mean distance to the mean: it should be the square root of the variance"):
            hat(lambda x: centred(x) / (mean(np.abs(centred(x))) + 1e-5)),
        _("x is multiplied by the square root: it should be divided"): hat(lambda x: centred(x) / rstd(x)),
        _("eps is subtracted from the variance"): hat(lambda x: centred(x) * rstd(x, -1e-5)),
        **{_("eps is {eps:g} in place of the argument", eps=eps):
           hat(lambda x, eps=eps: centred(x) * rstd(x, eps)) for eps in (1e-3, 1e-6, 1e-8, 1e-12)},
        _("eps is added to the quotient: brackets are missing around variance + eps"):
            hat(lambda x: (centred(x) * rstd(x, 0.0) + 1e-5)),
        **{_("mean and variance are taken along axis {axis}: each position is normalised over its own features, axis -1",
             axis=axis): partial(normalise, axis=axis) for axis in (0, (0, 1), (1, 2))},
        **{_("the mean is taken along axis {first} and the variance along axis {second}: both along axis -1", first=first,
             second=second): partial(apart, first=first, second=second)
           for first in (0, 1, -1, None) for second in (0, 1, -1, None) if first != second},
        **{_("the variance is the mean along axis {second} of the squares of x minus its mean along axis {first}: both along "
             "axis -1", first=first, second=second): partial(apart, first=first, second=second, squares=True)
           for first in (0, 1, -1, None) for second in (0, 1, -1, None) if first != second},
        _("eps is squared: it is added as it is"): hat(lambda x: centred(x) * rstd(x, 1e-10)),
        _("the square root of eps is added to that of the variance: eps is added to the variance, inside one root"):
            hat(lambda x: centred(x) / (x.std(-1, keepdims=True) + math.sqrt(1e-5))),
        _("gamma is added to 1: here gamma itself multiplies"): lambda x, gamma, beta: (1 + gamma) * xhat(x) + beta,
        _("only the mean is divided by the square root: brackets are missing around x - mean"):
            hat(lambda x: (x - mean(x) * rstd(x))),
        _("the variance is a sum: it is a mean, with 1 / D"):
            hat(lambda x: centred(x) / np.sqrt(total(centred(x) ** 2) + 1e-5)),
        _("x - mean is divided by its length, the square root of a sum: it is that of a mean, with 1 / D"):
            hat(lambda x: centred(x) / np.linalg.norm(centred(x), axis=-1, keepdims=True)),
        _("x is not divided by anything: after the mean is subtracted, divide by the square root of the variance"):
            hat(lambda x: centred(x)),
        _("x is divided by gamma: gamma multiplies"): lambda x, gamma, beta: xhat(x) / gamma + beta,
        _("gamma is added: it multiplies"): lambda x, gamma, beta: xhat(x) + gamma + beta,
        _("x is added: the residual path belongs to the layer"): lambda x, gamma, beta: x + gamma * xhat(x) + beta,
        _("the mean of x is added where it is subtracted"): hat(lambda x: (x + mean(x)) * rstd(x)),
        _("the mean alone is taken along axis 1: each position has its own"): hat(lambda x: (x - mean(x, axis=1)) * rstd(x)),
    })
    yield from core(gaussian(D, seed=2), gamma, beta, title=_("one position (D,)"))
    yield from core(
        gaussian(B, D), gamma, beta, title="eps = 0.5", eps=0.5,
        otherwise=_("right for an eps of 1e-5 only: use the argument"),
    )
    x = (5000 + gaussian(8, D)).astype(np.float32)

    def exact(x, gamma, beta):
        return right(*(array.astype(np.float64) for array in (x, gamma, beta)))

    yield from check_forward(
        names, "layernorm", exact, x, np.ones(D, np.float32), np.zeros(D, np.float32), title=_("float32, inputs near 5000"),
        tolerance=2e-3, otherwise=FAR_FROM_ZERO,
    )


def check_layernorm(names: dict) -> Tables:
    """With x near 0; with one axis less; then in float32 and far from 0, where rounding can destroy a variance."""
    def centred(x):
        return x - mean(x)

    def roots(x, ddof=0, inside=1e-5, outside=0.0):
        """The square root of the variance, and rstd; eps is added inside of the root or outside."""
        root = np.sqrt(x.var(axis=-1, ddof=ddof, keepdims=True) + inside)
        return root, 1 / (root + outside)

    def slip(equation, **variance):
        """(5) with a mistake, or with a mistake in the variance; equation(dxhat, xhat, rstd)."""
        def dx(dy, x, gamma, beta):
            _root, rstd = roots(x, **variance)
            return equation(dy * gamma, centred(x) * rstd, rstd)
        return dx

    def scaled(bracket):
        """(5) with something else in the brackets after rstd."""
        return slip(lambda dxhat, xhat, rstd: rstd * bracket(dxhat, xhat))

    def derivative(ddof=0, **variance):
        """(5) right for a forward with another variance."""
        def dx(dy, x, gamma, beta):
            root, rstd = roots(x, ddof, **variance)
            return rstd * projected(dy * gamma, centred(x) * rstd, (D - ddof) * rstd * root)
        return dx

    def projected(dxhat, xhat, count=D):
        return centred(dxhat) - xhat * total(dxhat * xhat) / count

    def shared(factor):
        """A gradient of gamma or beta: the sum over all positions of factor(dy, x, gamma, beta)."""
        return lambda dy, x, gamma, beta: factor(dy, x, gamma, beta).reshape(-1, D).sum(axis=0)

    def along(first, last):
        """(5) with its means along other axes."""
        return scaled(lambda dxhat, xhat: dxhat - mean(dxhat, axis=first) - xhat * mean(dxhat * xhat, axis=last))

    def both(dxhat, xhat, rstd):
        return rstd * projected(dxhat, xhat)

    def rstd_alone(dxhat, xhat, rstd):
        return rstd * projected(dxhat, normalise(xhat / rstd, 1, 0))

    def sums(first, last):
        return scaled(lambda dxhat, xhat: dxhat - first * mean(dxhat) - last * xhat * mean(dxhat * xhat))

    unbiased, added = {"ddof": 1}, {"inside": 0.0, "outside": 1e-5}
    slips = {
        _("the last term of (5) is missing, xhat * mean(dxhat * xhat)"): sums(1, 0),
        _("rstd divides: in (5) it multiplies"): slip(lambda dxhat, xhat, rstd: projected(dxhat, xhat) / rstd),
        _("rstd is multiplied twice in (5)"): slip(lambda dxhat, xhat, rstd: projected(dxhat, xhat) * rstd * rstd),
        _("the factor xhat before the last mean of (5) is missing"):
            scaled(lambda dxhat, xhat: centred(dxhat) - mean(dxhat * xhat)),
        _("the last mean of (5) is one of dxhat alone: it is one of dxhat * xhat"):
            scaled(lambda dxhat, xhat: centred(dxhat) - xhat * mean(dxhat)),
        _("the last mean of (5) is one of dy * xhat, without gamma: it is one of dxhat * xhat"):
            lambda dy, *args: scaled(lambda dxhat, xhat: centred(dxhat) - xhat * mean(dy * xhat))(dy, *args),
        _("the first mean of (5) is one of dy, without gamma: it is one of dxhat"):
            lambda dy, *args: scaled(lambda dxhat, xhat: dxhat - mean(dy) - xhat * mean(dxhat * xhat))(dy, *args),
        _("(5) has x in place of xhat, in its last term"):
            lambda dy, x, *args: scaled(lambda dxhat, xhat: centred(dxhat) - x * mean(dxhat * x))(dy, x, *args),
        _("(5) has x - mean(x) in place of xhat, in its last term"):
            slip(lambda dxhat, xhat, rstd: rstd * projected(dxhat, xhat / rstd)),
        _("the last term of (5) is added: it is subtracted"): sums(1, -1),
        _("the first mean of (5) is added: it is subtracted"): sums(-1, 1),
        _("both means of (5) are added: they are subtracted"): sums(-1, -1),
        _("the first mean of (5) is missing"): sums(0, 1),
        _("both means of (5) are sums"): sums(D, D),
        _("the first mean of (5) is a sum"): sums(D, 1),
        _("the last mean of (5) is a sum"): sums(1, D),
        _("all of (5) is divided by D, and its means are sums: dxhat is multiplied by D then, or the sums are means"):
            scaled(lambda dxhat, xhat: (dxhat - total(dxhat) - xhat * total(dxhat * xhat)) / D),
        _("the means of (5) are taken along axis -2: each position has its own, along axis -1"): along(-2, -2),
        _("the means of (5) are taken along axis 0: each position has its own, along axis -1"): along(0, 0),
        _("the means of (5) are taken over the whole array: each position has its own, along axis -1"): along(None, None),
        **{_("the first mean of (5) is taken along axis {axis}: each position has its own, along axis -1", axis=axis):
           along(axis, -1) for axis in (-2, 0)},
        **{_("the last mean of (5) is taken along axis {axis}: each position has its own, along axis -1", axis=axis):
           along(-1, axis) for axis in (-2, 0)},
        _("the first mean of (5) is taken over the whole array: each position has its own, along axis -1"): along(None, -1),
        _("the last mean of (5) is taken over the whole array: each position has its own, along axis -1"): along(-1, None),
        _("the factor rstd of (5) is missing"): slip(lambda dxhat, xhat, rstd: projected(dxhat, xhat)),
        _("(5) stops after rstd * dxhat: mean and variance depend on x, too"): sums(0, 0),
        _("(5) stops after dxhat: x is also in the factor rstd, the mean and the variance"):
            slip(lambda dxhat, xhat, rstd: dxhat),
        _("rstd is squared in the gradient of the variance, where it is cubed: the last term of (5) lacks a factor rstd"):
            slip(lambda dxhat, xhat, rstd: rstd * centred(dxhat) - xhat * mean(dxhat * xhat)),
        _("rstd is multiplied once more in the last term of (5)"):
            slip(lambda dxhat, xhat, rstd: rstd * (centred(dxhat) - rstd * xhat * mean(dxhat * xhat))),
        _("rstd multiplies the first term of (5) alone: it multiplies the parentheses"):
            slip(lambda dxhat, xhat, rstd: rstd * dxhat - (dxhat - projected(dxhat, xhat))),
        _("the last mean of (5) divides by D - 1: it is a mean over D features"):
            scaled(lambda dxhat, xhat: projected(dxhat, xhat, D - 1)),
        _("rstd and xhat in (5) have the unbiased variance, 1 / (D - 1): it should be 1 / D"): slip(both, **unbiased),
        _("rstd in (5) has the unbiased variance, 1 / (D - 1): it should be 1 / D"): slip(rstd_alone, **unbiased),
        _("(5) is the derivative for the unbiased variance, 1 / (D - 1): it should be 1 / D"): derivative(**unbiased),
        _("rstd and xhat in (5) have eps added to the square root: it belongs inside the square root"): slip(both, **added),
        _("rstd in (5) has eps added to the square root: it belongs inside the square root"): slip(rstd_alone, **added),
        _("(5) is the derivative for eps added to the square root: it belongs inside the square root"): derivative(**added),
        _("rstd and xhat in (5) have the unbiased variance, 1 / (D - 1), and eps added to its square root: it should be "
          "1 / D, and eps inside the square root"): slip(both, **unbiased, **added),
        _("rstd in (5) has the unbiased variance, 1 / (D - 1), and eps added to its square root: it should be 1 / D, and eps "
          "inside the square root"): slip(rstd_alone, **unbiased, **added),
        _("(5) is the derivative for the unbiased variance, 1 / (D - 1), and eps added to its square root: it should be "
          "1 / D, and eps inside the square root"): derivative(**unbiased, **added),
        _("rstd and xhat in (5) have no eps: it belongs to the variance, inside the square root"): slip(both, inside=0.0),
        _("rstd in (5) has no eps: it belongs to the variance, inside the square root"): slip(rstd_alone, inside=0.0),
        _("(5) is the derivative without eps: it belongs to the variance, inside the square root"): derivative(inside=0.0),
    }

    def formula(ours, dy, x, gamma, beta):
        dxhat, xhat, rstd = dy * gamma, normalise(x, 1, 0), 1 / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        terms = {}
        for name, gradient in (("dxhat", dxhat), ("dy", dy)):
            terms |= {
                name: gradient, f"mean({name})": mean(gradient), f"xhat mean({name})": xhat * mean(gradient),
                f"mean({name} xhat)": mean(gradient * xhat), f"xhat mean({name} xhat)": xhat * mean(gradient * xhat),
                f"xhat {name}": xhat * gradient,
            }
        terms |= {f"rstd {words}": rstd * term for words, term in terms.items()}
        formula = spelled(ours, terms, tuple(rstd * projected(gradient, xhat) for gradient in (dxhat, dy)))
        return formula and _("it is {formula}: it should be rstd dxhat - rstd mean(dxhat) - rstd xhat mean(dxhat xhat)",
                             formula=formula)

    gamma, beta = gaussian(D), gaussian(D, seed=1)
    yield from check_pair(
        names, "layernorm", layernorm.layernorm_forward, gaussian(B, TQ, D), gamma, beta, variants=LAYERNORM_VARIANTS,
        formulas={"x": formula},
        gradients={
            "x": slips,
            "gamma": {
                _("dgamma is the sum of dy * y: it is the sum of dy * xhat"):
                    shared(lambda dy, x, gamma, beta: dy * normalise(x, gamma, beta)),
                _("dy and xhat are summed before they are multiplied: dgamma is the sum of the products dy * xhat"):
                    lambda dy, x, gamma, beta: dy.sum((0, 1)) * normalise(x, 1, 0).sum((0, 1)),
                _("dgamma is the sum of dy * x: it is the sum of dy * xhat"): shared(lambda dy, x, gamma, beta: dy * x),
                _("dgamma is the sum of dy * (x - mean(x)), without rstd: it is the sum of dy * xhat"):
                    shared(lambda dy, x, gamma, beta: dy * centred(x)),
            },
            "beta": {
                _("dbeta is the sum of dxhat, which has the factor gamma: beta is added after gamma, so it is the sum of dy"):
                    shared(lambda dy, x, gamma, beta: dy * gamma),
                _("dbeta is the sum of dy * xhat * gamma: it is the sum of dy"):
                    shared(lambda dy, x, gamma, beta: dy * normalise(x, gamma, 0)),
            },
        },
    )
    yield from check_pair(
        names, "layernorm", layernorm.layernorm_forward, gaussian(TQ, D), gamma, beta, title=_("x of shape (T, D)")
    )
    x, gamma, beta = 5000 + gaussian(8, D), np.ones(D), np.zeros(D)
    arrays = [array.astype(np.float32) for array in (x, gamma, beta)]
    y, _cache = parts(function(names, "layernorm_forward")(*arrays), "y", "cache")
    expected, _cache = layernorm.layernorm_forward(*(array.astype(np.float64) for array in arrays))
    yield _("float32, inputs near 5000"), [judge("y", y, expected, tolerance=2e-3, otherwise=FAR_FROM_ZERO)]
