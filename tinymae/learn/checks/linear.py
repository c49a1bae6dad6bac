"""Checks of linear maps: the forward alone, and the pair."""

import numpy as np

from tinymae.learn.demands import hint
from tinymae.learn.inputs import TQ, B, D, F, gaussian, total
from tinymae.learn.judge import Tables
from tinymae.learn.pairs import check_forward, check_pair
from tinymae.messages import message as _
from tinymae.ops import linear


def check_linear_forward(names: dict) -> Tables:
    """On a batch of sentences, and on one position."""
    x, w, b = gaussian(B, TQ, D), gaussian(D, F), gaussian(F)
    variants = {
        _("b is not added"): lambda x, w, b: x @ w,
        _("b is subtracted"): lambda x, w, b: x @ w - b,
        _("b is added once for each input: it is added once to each output"): lambda x, w, b: x @ w + b * len(w),
        _("b is multiplied: it is added"): lambda x, w, b: x @ w * b,
        _("b is added to w: it is added to the product"): lambda x, w, b: x @ (w + b),
        _("the sum of b is added: each output has its own number"): lambda x, w, b: x @ w + b.sum(),
        _("negative outputs become 0: a linear map has no activation"): lambda x, w, b: np.maximum(x @ w + b, 0),
        _("only the last input counts: add up the products of all inputs (+=, not =)"): lambda x, w, b: x[..., -1:] * w[-1] + b,
        _("the inputs are summed over the positions: each position has its own output"):
            lambda x, w, b: (x if x.ndim == 1 else x.sum(-2)) @ w + b,
        _("the inputs are averaged over the positions: each position has its own output"):
            lambda x, w, b: (x if x.ndim == 1 else x.mean(-2)) @ w + b,
    }
    layout = _("The product is x w: x comes first, and w is (I, O) as it is, not transposed as in PyTorch.")
    letters = _("x may have any number of axes before the last, even none: x @ w takes them all.")
    for title, part in (("sentences (B, T, I)", x), (_("one position (I,)"), x[0, 0])):
        with hint(ValueError, layout, "matmul"), hint(ValueError, letters, "einstein"):
            yield from check_forward(names, "linear", linear.linear_forward, part, w, b, title=title,
                                     variants=variants, steps=lambda x, w, b: {_("the product x w"): [x @ w]})


def check_linear(names: dict) -> Tables:
    """With a bias."""
    def weights(product):
        return lambda dy, x, w, b: product(x, dy)

    def only(part):
        return lambda dy, x, w, b: part(x).T @ part(dy)

    def flat(z):
        return z.reshape(-1, z.shape[-1])

    x, w, b = gaussian(B, TQ, D), gaussian(D, F), gaussian(F)
    yield from check_pair(names, "linear", linear.linear_forward, x, w, b, gradients={"w": {
        _("x is brought to (I, positions) by a reshape, which does not transpose: x.reshape(-1, I).T"):
            weights(lambda x, dy: x.reshape(D, -1) @ flat(dy)),
        _("dy is brought to (O, positions) by a reshape, which does not transpose"):
            weights(lambda x, dy: (dy.reshape(F, -1) @ flat(x)).T),
        _("x^T dy is brought from (O, I) to (I, O) by a reshape, which does not transpose"):
            weights(lambda x, dy: (flat(dy).T @ flat(x)).reshape(D, F)),
        _("x and dy are summed over the batch before the product: each position is multiplied by its own gradient"):
            only(lambda z: z.sum(0)),
        _("x and dy are summed over all positions before the product: each position is multiplied by its own gradient"):
            only(lambda z: total(flat(z), axis=0)),
        _("only the last position of each row counts: all positions share w, so their contributions are summed"):
            only(lambda z: z[:, -1]),
        _("only the first position of each row counts: all positions share w, so their contributions are summed"):
            only(lambda z: z[:, 0]),
        _("only the last item of the batch counts: all positions share w, so their contributions are summed"):
            only(lambda z: z[-1]),
        _("only the first item of the batch counts: all positions share w, so their contributions are summed"):
            only(lambda z: z[0]),
    }, "b": {
        _("only the last item of the batch counts: all positions share b, so their contributions are summed"):
            lambda dy, x, w, b: dy[-1].sum(0),
        _("only the last position of each row counts: all positions share b, so their contributions are summed"):
            lambda dy, x, w, b: dy[:, -1].sum(0),
        _("dy is summed over its features, the last axis: it is summed over the positions, all axes but the last"):
            lambda dy, x, w, b: dy.sum(-1),
    }})
