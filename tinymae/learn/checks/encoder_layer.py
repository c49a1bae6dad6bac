"""Checks of the encoder layer: the forward alone, the pair, and several layers."""
import itertools
from functools import partial

import numpy as np

from tinymae import blocks, init, tree
from tinymae.gradcheck.cases import perturbed
from tinymae.learn.demands import Problem, function
from tinymae.learn.inputs import TQ, B, D, F, H, gaussian
from tinymae.learn.judge import Tables, judge
from tinymae.learn.pairs import check_forward, check_pair
from tinymae.messages import listed
from tinymae.messages import message as _
from tinymae.ops import layernorm

POST_NORM = "norm(x + f(x))"
FRAMES = {words: eval(f"lambda x, f, norm: {words}") for words in (     # what there may be around a sublayer f, and its norm
    "norm(x + f(x))", "x + f(norm(x))", "norm(x) + f(x)", "norm(x) + f(norm(x))", "x + norm(f(x))", "x + norm(x + f(x))",
    "norm(x + f(norm(x)))", "norm(x) + norm(f(x))", "norm(f(x))", "norm(f(f(x)))", "norm(x + f(f(x)))", "f(norm(x))",
    "x + f(x)", "f(x)", "norm(x)", "norm(norm(x + f(x)))",
)}


def check_encoder_layer_forward(names: dict) -> Tables:
    """Post-norm with ReLU, as in the paper; then with a padding mask."""
    def right(x, p, heads, mask=None):
        return blocks.encoder_layer_forward(x, p, heads, mask, norm_first=False, activation="relu")

    def attended(h, p, heads, mask=None):
        return blocks.multi_head_attention_forward(h, h, p["attn"], heads, mask)[0]

    def fed_forward(h, p):
        return blocks.feed_forward_forward(h, p["ffn"])[0]

    def normed(h, p, name):
        return layernorm.layernorm_forward(h, **p[name])[0]

    def layer(first=lambda x, a: x + a, second=lambda x, x1, f: x1 + f, fed=lambda x, a, x1: x1, parameters=lambda p: p,
              masked=lambda mask: mask):
        """A post-norm layer with mistakes: what is added to what, what the feed forward gets, the parameters and the mask."""
        def y(x, p, heads, mask=None):
            p = parameters(p)
            a = attended(x, p, heads, masked(mask))
            x1 = normed(first(x, a), p, "ln1")
            return normed(second(x, x1, fed_forward(fed(x, a, x1), p)), p, "ln2")
        return y

    def framed(first, second=POST_NORM):
        """A layer whose sublayers have these frames."""
        def y(x, p, heads, mask=None):
            x1 = FRAMES[first](x, lambda h: attended(h, p, heads, mask), lambda h: normed(h, p, "ln1"))
            return FRAMES[second](x1, lambda h: fed_forward(h, p), lambda h: normed(h, p, "ln2"))
        return y

    def unnormed_residual(x, p, heads, mask=None):
        h = x + attended(x, p, heads, mask)
        return normed(h + fed_forward(normed(h, p, "ln1"), p), p, "ln2")

    def residual_outside(x, p, heads, mask=None):
        return normed(x + attended(x, p, heads, mask), p, "ln1") + layer()(x, p, heads, mask)

    def feed_forward_first(x, p, heads, mask=None):
        x = normed(x + fed_forward(x, p), p, "ln1")
        return normed(x + attended(x, p, heads, mask), p, "ln2")

    def steps(x, p, heads, mask=None):
        a = attended(x, p, heads, mask)
        x1 = normed(x + a, p, "ln1")
        f = fed_forward(x1, p)
        return {_("the result of attention"): [a], _("x + attention"): [x + a], _("x1 of (1)"): [x1],
                _("the result of the feed forward"): [f], _("x1 + feed forward"): [x1 + f]}

    p = perturbed(init.encoder_layer(D, H, F, np.random.default_rng(0), dtype=np.float64), np.random.default_rng(1))
    core = partial(check_forward, names, "encoder_layer", right, gaussian(B, TQ, D), p, heads=H, steps=steps, variants={
        _("each norm comes before its sublayer (pre-norm): here it comes after the sum (post-norm)"):
            framed("x + f(norm(x))", "x + f(norm(x))"),
        _("x is not added to the result of attention"): framed("norm(f(x))"),
        _("the input of the feed forward is not added to its result"): framed(POST_NORM, "norm(f(x))"),
        _("neither sublayer has its residual path"): framed("norm(f(x))", "norm(f(x))"),
        _("the layer norms are missing"): framed("x + f(x)", "x + f(x)"),
        _("the first layer norm is missing"): framed("x + f(x)"),
        _("the second layer norm is missing"): framed(POST_NORM, "x + f(x)"),
        _("the second sum adds x, which came in: it adds x1, the output of (1)"): layer(second=lambda x, x1, f: x + f),
        _("the feed forward gets x, which came in: it gets x1, the output of (1)"): layer(fed=lambda x, a, x1: x),
        _("the feed forward gets the result of attention: it gets x1, the output of (1)"): layer(fed=lambda x, a, x1: a),
        _("the result of attention is added twice"): layer(first=lambda x, a: x + 2 * a),
        _("x and the result of attention are multiplied: they are added"): layer(first=lambda x, a: x * a),
        _("each norm is taken of the sublayer's result alone, before the sum: it is taken of the sum"):
            framed("x + norm(f(x))", "x + norm(f(x))"),
        _("the mask is not used"): layer(masked=lambda mask: None),
        _("both norms use ln1: the second has its own gain and offset, ln2"): layer(parameters=lambda p: p | {"ln2": p["ln1"]}),
        **{_("the first sublayer is {first} and the second {second}, where f is attention or the feed forward: each is "
             "norm(x + f(x))", first=first, second=second): framed(first, second)
           for first in FRAMES for second in FRAMES if not first == second == POST_NORM},
        _("both norms use ln2: the first has its own gain and offset, ln1"): layer(parameters=lambda p: p | {"ln1": p["ln2"]}),
        **{_("gamma and beta are swapped in {norms}: the call is layernorm_forward(x, gamma, beta)", norms=listed(chosen)):
           layer(parameters=lambda p, chosen=chosen: p | {
               name: {"gamma": p[name]["beta"], "beta": p[name]["gamma"]} for name in chosen})
           for chosen in (("ln1", "ln2"), ("ln1",), ("ln2",))},
        _("the mask is inverted: True = may attend"): layer(masked=lambda mask: None if mask is None else ~mask),
        _("attention is missing: the first sum adds x and its attention"): framed("norm(x)"),
        _("the first sum adds x to itself: it adds x and the result of attention"): layer(first=lambda x, a: 2 * x),
        _("the feed forward is missing: the second sum adds x1 and its feed forward"): framed(POST_NORM, "norm(x)"),
        _("the second sum adds x, too: it adds x1 and its feed forward"): layer(second=lambda x, x1, f: x + x1 + f),
        _("x is added twice in the first sum"): layer(first=lambda x, a: 2 * x + a),
        _("x1 is added twice in the second sum"): layer(second=lambda x, x1, f: 2 * x1 + f),
        _("x1 and its feed forward are multiplied: they are added"): layer(second=lambda x, x1, f: x1 * f),
        _("the second sum takes what stands before the first norm, x + attention: it takes x1, the output of (1)"):
            unnormed_residual,
        _("x1 is added again after the second norm: the residual path is inside it"): residual_outside,
        _("the feed forward comes before attention: attention is the first sublayer"): feed_forward_first,
        _("the two layer norms are swapped"): layer(parameters=lambda p: p | {"ln1": p["ln2"], "ln2": p["ln1"]}),
    })
    yield from core()
    yield from core(title=_("with a mask"), mask=np.arange(TQ) < np.array([5, 3, 4, 5])[:, None, None, None])


def check_encoder_layer(names: dict) -> Tables:
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

    width, hidden = 6, 7                                        # small: each number of p takes two forwards
    p = perturbed(init.encoder_layer(width, H, hidden, np.random.default_rng(0), dtype=np.float64), np.random.default_rng(1))
    layer = partial(check_pair, names, "encoder_layer", reference, gaussian(B, TQ, width), p, heads=H, variants={
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


def check_layers(names: dict) -> Tables:
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
