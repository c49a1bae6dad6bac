"""Checks of the feed forward and its GELU."""
import math

import numpy as np

from tinymae import blocks, init
from tinymae.gradcheck.cases import perturbed
from tinymae.learn.compare import spelled
from tinymae.learn.inputs import TQ, B, D, F, gaussian, normal_cdf
from tinymae.learn.judge import Tables
from tinymae.learn.pairs import check_pair
from tinymae.messages import message as _
from tinymae.ops import activation


def check_gelu(names: dict) -> Tables:
    """In its exact form."""
    def pdf(x):
        return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)

    def slip(slope):
        return lambda dy, x: dy * slope(x, normal_cdf(x), pdf(x))

    def formula(ours, dy, x):
        cdf = normal_cdf(x)
        terms = {"": 1 + 0 * x, "x": x, "cdf(x)": cdf, "x cdf(x)": x * cdf, "x^2 cdf(x)": x * x * cdf, "cdf(x)^2": cdf * cdf,
                 "pdf(x)": pdf(x), "x pdf(x)": x * pdf(x), "x^2 pdf(x)": x * x * pdf(x), "cdf(x) pdf(x)": cdf * pdf(x)}
        right = dy * (cdf + x * pdf(x))
        formula = spelled(ours, {words: dy * term for words, term in terms.items()}, (right,))
        return formula and _("it is dy * ({formula}): it should be dy * (cdf(x) + x pdf(x))", formula=formula)

    yield from check_pair(names, "gelu", activation.gelu_forward, gaussian(B, TQ, F), variants={
        _("the tanh form, an approximation, is used"): lambda x: activation.gelu_forward(x, "tanh")[0],
    }, formulas={"x": formula}, gradients={"x": {
        _("the derivative is cdf(x) alone: x is also inside cdf"): slip(lambda x, cdf, pdf: cdf),
        _("the derivative is cdf(x) + pdf(x): the second term has the factor x"): slip(lambda x, cdf, pdf: cdf + pdf),
        _("the derivative is x pdf(x) alone: x is also the factor of cdf"): slip(lambda x, cdf, pdf: x * pdf),
        _("the derivative is pdf(x): y is a product, x cdf(x)"): slip(lambda x, cdf, pdf: pdf),
        _("the second term of (3) is subtracted: it is added"): slip(lambda x, cdf, pdf: cdf - x * pdf),
        _("the two terms of (3) are multiplied: the derivative of a product is a sum"): slip(lambda x, cdf, pdf: cdf * x * pdf),
        _("cdf(x) and pdf(x) are multiplied: the derivative of a product is a sum, cdf(x) + x pdf(x)"):
            slip(lambda x, cdf, pdf: cdf * pdf),
        _("cdf and pdf are swapped: the derivative is cdf(x) + x pdf(x)"): slip(lambda x, cdf, pdf: pdf + x * cdf),
        _("the first term of (3) is x cdf(x), that is y: the derivative of the factor x is 1"):
            slip(lambda x, cdf, pdf: x * cdf + x * pdf),
        _("the derivative is x cdf(x), that is y"): slip(lambda x, cdf, pdf: x * cdf),
        _("the sum of (3) is multiplied by x: the first term has no factor x"): slip(lambda x, cdf, pdf: x * (cdf + x * pdf)),
        _("the second term of (3) has x twice, x^2 pdf(x): it is x pdf(x)"): slip(lambda x, cdf, pdf: cdf + x * x * pdf),
        _("the second term of (3) is y pdf(x): it is x pdf(x)"): slip(lambda x, cdf, pdf: cdf + x * cdf * pdf),
        _("the second term of (3) has the derivative of pdf, -x pdf(x), in place of pdf: pdf is already the derivative of cdf"):
            slip(lambda x, cdf, pdf: cdf - x * x * pdf),
        _("the derivative of cdf is taken to be cdf (1 - cdf), which is that of the logistic function: it is pdf"):
            slip(lambda x, cdf, pdf: cdf + x * cdf * (1 - cdf)),
        _("the derivative is that of ReLU, 1 where x > 0: that of GELU is cdf(x) + x pdf(x)"): slip(lambda x, cdf, pdf: x > 0),
        _("pdf has exp(-x^2), without the 1 / 2: it is exp(-x^2 / 2) / sqrt(2 pi)"):
            slip(lambda x, cdf, pdf: cdf + x * np.exp(-x * x) / math.sqrt(2 * math.pi)),
        _("pdf has exp(x^2 / 2), without the minus: it is exp(-x^2 / 2) / sqrt(2 pi)"):
            slip(lambda x, cdf, pdf: cdf + x * np.exp(x * x / 2) / math.sqrt(2 * math.pi)),
        _("pdf lacks the factor 1 / sqrt(2 pi)"): slip(lambda x, cdf, pdf: cdf + x * pdf * math.sqrt(2 * math.pi)),
        _("dy multiplies the first term of (3) alone: put (3) into parentheses, dy * (cdf + x * pdf)"):
            lambda dy, x: dy * normal_cdf(x) + x * pdf(x),
        _("dy multiplies the second term of (3) alone: put (3) into parentheses, dy * (cdf + x * pdf)"):
            lambda dy, x: normal_cdf(x) + dy * x * pdf(x),
        _("dy is added to (3): it is multiplied by it"): lambda dy, x: dy + normal_cdf(x) + x * pdf(x),
    }})


def check_gelu_slope(names: dict) -> Tables:
    """With the slopes of related functions."""
    yield from check_pair(names, "gelu", activation.gelu_forward, gaussian(B, TQ, F), slips={
        _("the derivative is that of ReLU, 1 where x > 0 and 0 elsewhere: the forward is GELU"): lambda dy, x: dy * (x > 0),
        _("the derivative is cdf(x) alone: x is also inside cdf"): lambda dy, x: dy * normal_cdf(x),
        _("the derivative is that of GELU's tanh form: the forward has the exact form"):
            lambda dy, x: activation.gelu_backward(dy, activation.gelu_forward(x, "tanh")[1]),
    })


def check_feed_forward(names: dict) -> Tables:
    """With ReLU."""
    p = perturbed(init.feed_forward(D, F, np.random.default_rng(0), dtype=np.float64), np.random.default_rng(1))

    def arrays(dy, x, p):
        """What forward and backward compute, one row for each position; `open` is where the ReLU passes."""
        h, da = x @ p["fc1"]["w"] + p["fc1"]["b"], dy @ p["fc2"]["w"].T
        dh = da * (h > 0)
        found = {"x": x, "h": h, "a": np.maximum(h, 0), "open": h > 0, "dy": dy, "da": da, "dh": dh, "dx": dh @ p["fc1"]["w"].T}
        return {name: z.reshape(-1, z.shape[-1]) for name, z in found.items()}

    def product(left, right):
        def wrong(*args):
            found = arrays(*args)
            return found[left].T @ found[right]
        return wrong

    def summed(name):
        return lambda *args: arrays(*args)[name].sum(axis=0)

    gates = {                                                   # what dh is, from da, h and a
        _("the ReLU is missing in backward: dh is da where h > 0, and 0 elsewhere"): lambda da, h, a: da,
        _("the sign of da decides what passes: it should be the sign of h"): lambda da, h, a: np.maximum(da, 0),
        _("the sign of da * h decides what passes: it should be the sign of h"): lambda da, h, a: da * (da * h > 0),
        _("da passes where h < 0: it should be where h > 0"): lambda da, h, a: da * (h < 0),
        _("da is multiplied by a: it passes unchanged where h > 0"): lambda da, h, a: da * a,
        _("da is multiplied by h: it passes unchanged where h > 0"): lambda da, h, a: da * h,
        _("da is multiplied by the sign of h: it is 0 where h < 0"): lambda da, h, a: da * np.sign(h),
        _("da is multiplied by a (1 - a), as with a logistic function: with ReLU it passes unchanged where h > 0"):
            lambda da, h, a: da * a * (1 - a),
    }

    def through(gradient):
        """The gates that are wrong, as slips of the gradient that comes from dh: gradient(dh, x, p), rows of positions."""
        def slip(gate):
            def wrong(dy, x, p):
                found = arrays(dy, x, p)
                return gradient(gate(found["da"], found["h"], found["a"]), found["x"], p)
            return wrong
        return {words: slip(gate) for words, gate in gates.items()}

    def formula(ours, dy, x, p):
        if np.linalg.lstsq(p["fc1"]["w"], ours.reshape(-1, D).T, rcond=None)[1].max(initial=0.0) > 1e-18:
            return ""
        return _("dx is a product with W1^T, as it should be, but what is multiplied by it is not dh: look at (5), da where "
                 "h > 0 and 0 elsewhere, and at da in (4)")

    x = gaussian(B, TQ, D)
    yield from check_pair(names, "feed_forward", blocks.feed_forward_forward, x, p, formulas={"x": formula}, gradients={
        "x": through(lambda dh, x, p: (dh @ p["fc1"]["w"].T).reshape(B, TQ, D)),
        "p.fc1.w": through(lambda dh, x, p: x.T @ dh) | {
            _("dW1 is x^T a, with the output of the ReLU: it is x^T dh"): product("x", "a"),
            _("dW1 is x^T h, with the output of the first linear map: it is x^T dh"): product("x", "h"),
            _("dW1 has dx in place of x: it is x^T dh"): product("dx", "dh"),
            _("dW1 has dy in place of x: it is x^T dh"): product("dy", "dh"),
            _("dW1 is dW2 transposed: it is x^T dh"): product("dy", "a"),
        },
        "p.fc1.b": through(lambda dh, x, p: dh.sum(axis=0)) | {
            _("db1 is the sum of a: it is the sum of dh"): summed("a"),
            _("db1 is the sum of h: it is the sum of dh"): summed("h"),
        },
        "p.fc2.w": {
            _("dW2 is h^T dy, with h from before the ReLU: the second linear map got a, so it is a^T dy"): product("h", "dy"),
            _("dW2 is da^T dy, with a gradient in place of the input: it is a^T dy"): product("da", "dy"),
            _("dW2 is dh^T dy, with a gradient in place of the input: it is a^T dy"): product("dh", "dy"),
            _("dW2 is a^T x: it is a^T dy"): product("a", "x"),
            _("dW2 has 1 in place of a where h > 0, which is the derivative of the ReLU: it is a^T dy"): product("open", "dy"),
            _("dW2 is dW1 transposed: it is a^T dy"): product("dh", "x"),
        },
        "p.fc2.b": {
            _("db2 is the sum of x: it is the sum of dy"): summed("x"),
        },
    })
