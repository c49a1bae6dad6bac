"""Checks of the encoder layer: the forward alone, the pair, and several layers."""
import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np

from tinymae import blocks, init, tree
from tinymae.gradcheck import Row
from tinymae.gradcheck.cases import perturbed
from tinymae.learn.demands import Problem, function
from tinymae.learn.inputs import TQ, B, D, F, H, gaussian
from tinymae.learn.judge import judge
from tinymae.learn.pairs import check_forward, check_pair
from tinymae.messages import listed
from tinymae.messages import message as _
from tinymae.ops import layernorm

FRAMES = {                                                      # what there may be around a sublayer f, and its norm
    "norm(x + f(x))": lambda x, f, norm: norm(x + f(x)),
    "x + f(norm(x))": lambda x, f, norm: x + f(norm(x)),
    "norm(x) + f(x)": lambda x, f, norm: norm(x) + f(x),
    "norm(x) + f(norm(x))": lambda x, f, norm: norm(x) + f(norm(x)),
    "x + norm(f(x))": lambda x, f, norm: x + norm(f(x)),
    "x + norm(x + f(x))": lambda x, f, norm: x + norm(x + f(x)),
    "norm(x + f(norm(x)))": lambda x, f, norm: norm(x + f(norm(x))),
    "norm(x) + norm(f(x))": lambda x, f, norm: norm(x) + norm(f(x)),
    "norm(f(x))": lambda x, f, norm: norm(f(x)),
    "norm(f(f(x)))": lambda x, f, norm: norm(f(f(x))),
    "norm(x + f(f(x)))": lambda x, f, norm: norm(x + f(f(x))),
    "f(norm(x))": lambda x, f, norm: f(norm(x)),
    "x + f(x)": lambda x, f, norm: x + f(x),
    "f(x)": lambda x, f, norm: f(x),
    "norm(x)": lambda x, f, norm: norm(x),
    "norm(norm(x + f(x)))": lambda x, f, norm: norm(norm(x + f(x))),
}


def check_encoder_layer_forward(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Post-norm with ReLU, as in the paper; then with a padding mask."""
    def right(x, p, heads, mask=None, norm_first=False):
        return blocks.encoder_layer_forward(x, p, heads, mask, norm_first=norm_first, activation="relu")[0]

    def layer(first=lambda x, a: x + a, second=lambda x, x1, f: x1 + f, fed=lambda x, a, x1: x1, norms=(True, True)):
        """A post-norm layer with mistakes: what is added to what, what the feed forward gets, which norms there are."""
        def y(x, p, heads, mask=None):
            a, _cache = blocks.multi_head_attention_forward(x, x, p["attn"], heads, mask)
            x1 = first(x, a)
            x1 = layernorm.layernorm_forward(x1, **p["ln1"])[0] if norms[0] else x1
            f, _cache = blocks.feed_forward_forward(fed(x, a, x1), p["ffn"])
            y = second(x, x1, f)
            return layernorm.layernorm_forward(y, **p["ln2"])[0] if norms[1] else y
        return y

    def norm_first(x, p, heads, mask=None):
        """x + norm(f(x)), which is neither pre-norm nor post-norm."""
        a, _cache = blocks.multi_head_attention_forward(x, x, p["attn"], heads, mask)
        x = x + layernorm.layernorm_forward(a, **p["ln1"])[0]
        f, _cache = blocks.feed_forward_forward(x, p["ffn"])
        return x + layernorm.layernorm_forward(f, **p["ln2"])[0]

    def framed(first, second):
        """A layer whose sublayers have these frames."""
        def y(x, p, heads, mask=None):
            x1 = first(x, lambda h: blocks.multi_head_attention_forward(h, h, p["attn"], heads, mask)[0],
                       lambda h: layernorm.layernorm_forward(h, **p["ln1"])[0])
            return second(x1, lambda h: blocks.feed_forward_forward(h, p["ffn"])[0],
                          lambda h: layernorm.layernorm_forward(h, **p["ln2"])[0])
        return y

    def unnormed_residual(x, p, heads, mask=None):
        h = x + blocks.multi_head_attention_forward(x, x, p["attn"], heads, mask)[0]
        f, _cache = blocks.feed_forward_forward(layernorm.layernorm_forward(h, **p["ln1"])[0], p["ffn"])
        return layernorm.layernorm_forward(h + f, **p["ln2"])[0]

    def residual_outside(x, p, heads, mask=None):
        x1 = layer(second=lambda x, x1, f: x1, norms=(True, False))(x, p, heads, mask)
        return x1 + layer()(x, p, heads, mask)

    def feed_forward_first(x, p, heads, mask=None):
        x = layernorm.layernorm_forward(x + blocks.feed_forward_forward(x, p["ffn"])[0], **p["ln1"])[0]
        return layernorm.layernorm_forward(
            x + blocks.multi_head_attention_forward(x, x, p["attn"], heads, mask)[0], **p["ln2"])[0]

    p = perturbed(init.encoder_layer(D, H, F, np.random.default_rng(0), dtype=np.float64), np.random.default_rng(1))
    def steps(x, p, heads, mask=None):
        a, _cache = blocks.multi_head_attention_forward(x, x, p["attn"], heads, mask)
        x1, _cache = layernorm.layernorm_forward(x + a, **p["ln1"])
        f, _cache = blocks.feed_forward_forward(x1, p["ffn"])
        return {_("the result of attention"): [a], _("x + attention"): [x + a], _("x1 of (1)"): [x1],
                _("the result of the feed forward"): [f], _("x1 + feed forward"): [x1 + f]}

    core = partial(check_forward, names, "encoder_layer", right, gaussian(B, TQ, D), p, heads=H, steps=steps, variants={
        _("each norm comes before its sublayer (pre-norm): here it comes after the sum (post-norm)"):
            partial(right, norm_first=True),
        _("x is not added to the result of attention"): layer(first=lambda x, a: a),
        _("the input of the feed forward is not added to its result"): layer(second=lambda x, x1, f: f),
        _("neither sublayer has its residual path"): layer(first=lambda x, a: a, second=lambda x, x1, f: f),
        _("the layer norms are missing"): layer(norms=(False, False)),
        _("the first layer norm is missing"): layer(norms=(False, True)),
        _("the second layer norm is missing"): layer(norms=(True, False)),
        _("the second sum adds x, which came in: it adds x1, the output of (1)"): layer(second=lambda x, x1, f: x + f),
        _("the feed forward gets x, which came in: it gets x1, the output of (1)"): layer(fed=lambda x, a, x1: x),
        _("the feed forward gets the result of attention: it gets x1, the output of (1)"): layer(fed=lambda x, a, x1: a),
        _("the result of attention is added twice"): layer(first=lambda x, a: x + 2 * a),
        _("x and the result of attention are multiplied: they are added"): layer(first=lambda x, a: x * a),
        _("each norm is taken of the sublayer's result alone, before the sum: it is taken of the sum"): norm_first,
        _("the mask is not used"): lambda x, p, heads, mask=None: layer()(x, p, heads),
        _("both norms use ln1: the second has its own gain and offset, ln2"):
            lambda x, p, heads, mask=None: layer()(x, p | {"ln2": p["ln1"]}, heads, mask),
        **{_("the first sublayer is {first} and the second {second}, where f is attention or the feed forward: each is "
             "norm(x + f(x))", first=first, second=second): framed(FRAMES[first], FRAMES[second])
           for first in FRAMES for second in FRAMES if (first, second) != ("norm(x + f(x))", "norm(x + f(x))")},
        _("both norms use ln2: the first has its own gain and offset, ln1"):
            lambda x, p, heads, mask=None: layer()(x, p | {"ln1": p["ln2"]}, heads, mask),
        **{_("gamma and beta are swapped in {norms}: the call is layernorm_forward(x, gamma, beta)", norms=listed(chosen)):
           lambda x, p, heads, mask=None, chosen=chosen: layer()(
               x, p | {name: {"gamma": p[name]["beta"], "beta": p[name]["gamma"]} for name in chosen}, heads, mask)
           for chosen in (("ln1", "ln2"), ("ln1",), ("ln2",))},
        _("the mask is inverted: True = may attend"):
            lambda x, p, heads, mask=None: layer()(x, p, heads, None if mask is None else ~mask),
        _("attention is missing: the first sum adds x and its attention"): layer(first=lambda x, a: x),
        _("the first sum adds x to itself: it adds x and the result of attention"): layer(first=lambda x, a: 2 * x),
        _("the feed forward is missing: the second sum adds x1 and its feed forward"): layer(second=lambda x, x1, f: x1),
        _("the second sum adds x, too: it adds x1 and its feed forward"): layer(second=lambda x, x1, f: x + x1 + f),
        _("x is added twice in the first sum"): layer(first=lambda x, a: 2 * x + a),
        _("x1 is added twice in the second sum"): layer(second=lambda x, x1, f: 2 * x1 + f),
        _("x1 and its feed forward are multiplied: they are added"): layer(second=lambda x, x1, f: x1 * f),
        _("the second sum takes what stands before the first norm, x + attention: it takes x1, the output of (1)"):
            unnormed_residual,
        _("x1 is added again after the second norm: the residual path is inside it"): residual_outside,
        _("the feed forward comes before attention: attention is the first sublayer"): feed_forward_first,
        _("the two layer norms are swapped"):
            lambda x, p, heads, mask=None: layer()(x, p | {"ln1": p["ln2"], "ln2": p["ln1"]}, heads, mask),
    })
    yield from core()
    yield from core(title=_("with a mask"), mask=np.arange(TQ) < np.array([5, 3, 4, 5])[:, None, None, None])


def check_encoder_layer(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Pre-norm with ReLU; then with a padding mask."""
    def reference(x, p, heads, mask=None, norm_first=True):
        return blocks.encoder_layer_forward(x, p, heads, mask, norm_first=norm_first, activation="relu")

    def slip(
        first="ln1", second="ln2", residual=(True, True), attention=lambda dq, dkv: dq + dkv,
        into=lambda dy, dh: dy + dh, last=lambda dy, dx1: dx1, skip="", early=(False, False),
    ):
        """A backward with mistakes: whose caches of the norms are used, and what is added.

        attention makes one gradient of dxq and dxkv, into(dy, dh) is what goes back through attention, last(dy, dx1) what
        goes past it. skip is the norm whose dx is not used. early says which residual gradient is added before the backward of
        the norm, not after it, as in post-norm.
        """
        def norm(name, dh, cache, past):
            dx, dgamma, dbeta = layernorm.layernorm_backward(dh + past, cache)
            return dh if name == skip else dx, {"gamma": dgamma, "beta": dbeta}

        def gradients(dy, x, p, heads, mask=None):
            h, ln1 = layernorm.layernorm_forward(x, **p["ln1"])
            a, attn = blocks.multi_head_attention_forward(h, h, p["attn"], heads, mask)
            h, ln2 = layernorm.layernorm_forward(x + a, **p["ln2"])
            _y, ffn = blocks.feed_forward_forward(h, p["ffn"])
            caches = {"ln1": ln1, "ln2": ln2}
            past = dy * residual[1]
            dh, dffn = blocks.feed_forward_backward(dy, ffn)
            dh, dln2 = norm("ln2", dh, caches[second], past * early[1])
            past = past * (not early[1])
            dx1 = past + dh
            dq, dkv, dattn = blocks.multi_head_attention_backward(into(past, dh), attn)
            past = last(dy, dx1) * residual[0]
            dh, dln1 = norm("ln1", attention(dq, dkv), caches[first], past * early[0])
            return past * (not early[0]) + dh, {"ln1": dln1, "attn": dattn, "ln2": dln2, "ffn": dffn}
        return gradients

    p = perturbed(init.encoder_layer(D, H, F, np.random.default_rng(0), dtype=np.float64), np.random.default_rng(1))
    layer = partial(check_pair, names, "encoder_layer", reference, gaussian(B, TQ, D), p, heads=H, variants={
        _("each norm comes after its sum (post-norm): here it comes before its sublayer (pre-norm)"):
            lambda x, p, heads, mask=None: reference(x, p, heads, mask, norm_first=False)[0],
    }, slips={
        _("the caches of the two layer norms are swapped: ln2 belongs to the feed forward, ln1 to attention"):
            slip("ln2", "ln1"),
        _("the cache ln1 is used for both layer norms"): slip("ln1", "ln1"),
        _("the cache ln2 is used for both layer norms"): slip("ln2", "ln2"),
        _("neither residual path brings its gradient"): slip(residual=(False, False)),
        _("the residual path of (5) is missing: dx1 is dy plus what comes back through layernorm2"):
            slip(residual=(True, False)),
        _("the residual path of (6) is missing: dx is dx1 plus what comes back through layernorm1"):
            slip(residual=(False, True)),
        _("dy is added before the backward of layernorm2, as in post-norm: it goes past the norm, so add it after"):
            slip(early=(False, True)),
        _("dx1 is added before the backward of layernorm1, as in post-norm: it goes past the norm, so add it after"):
            slip(early=(True, False)),
        _("dy and dx1 are added before the backward of the norms, as in post-norm: they go past them, so add them after"):
            slip(early=(True, True)),
        _("the gradient from attention does not go back through layernorm1"): slip(skip="ln1"),
        _("the gradient from the feed forward does not go back through layernorm2"): slip(skip="ln2"),
        _("dxkv is missing: h went to the queries and to the keys and values, so dxq and dxkv are added"):
            slip(attention=lambda dq, dkv: dq),
        _("dxq is missing: h went to the queries and to the keys and values, so dxq and dxkv are added"):
            slip(attention=lambda dq, dkv: dkv),
        _("dxq and dxkv are averaged: h is used twice, so they are added"): slip(attention=lambda dq, dkv: (dq + dkv) / 2),
        _("dxkv is subtracted from dxq: h is used twice, so they are added"): slip(attention=lambda dq, dkv: dq - dkv),
        _("dy goes back through attention and is added in (6): it should be dx1 in both places, the gradient of (5)"):
            slip(into=lambda dy, dh: dy, last=lambda dy, dx1: dy),
        _("dy goes back through attention: it should be dx1, the gradient of (5)"): slip(into=lambda dy, dh: dy),
        _("dy is added in (6): it should be dx1, the gradient of (5)"): slip(last=lambda dy, dx1: dy),
        _("what goes back through attention lacks the residual path of (5): it should be dx1"): slip(into=lambda dy, dh: dh),
    })
    yield from layer()
    yield from layer(title=_("with a mask"), mask=np.arange(TQ) < np.array([5, 3, 4, 5])[:, None, None, None])


def check_layers(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Three layers: arrays of their own, and numbers of their own."""
    layers = function(names, "encoder_layers")(3, D, H, F, np.random.default_rng(0))
    if not isinstance(layers, list):
        raise Problem(_("expected encoder_layers to return a list of trees, got a {kind}", kind=type(layers).__name__))
    pairs = [(a, b) for one, other in itertools.combinations(layers, 2)
             for (_path, a), (_other, b) in zip(tree.leaves(one), tree.leaves(other), strict=True)]
    shared = sum(np.shares_memory(a, b) for a, b in pairs)
    alike = sum(a.ndim > 1 and np.array_equal(a, b) and not np.shares_memory(a, b) for a, b in pairs)
    yield _("three layers"), [
        judge("layers", len(layers), np.array(3)),
        judge(_("arrays that two layers share"), shared, np.array(0), otherwise=_(
            "the layers have the same arrays, so a step of one moves the others: [layer] * n repeats one object n times"
        )),
        judge(_("equal matrices in two layers"), alike, np.array(0), otherwise=_(
            "the layers start from the same numbers: draw those of each layer anew"
        )),
    ]
