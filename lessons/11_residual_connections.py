"""
Residual connections · 残差连接
===============================

A network of 20 layers can do everything that one of 2 layers can: let the other 18 do
nothing. Yet train both on handwritten digits, and the deep one learns almost nothing.
One addition, x + f(x), repairs it. What exactly does it repair?

You will be able to write x + f(x) and its backward pass, to draw the gradient layer by
layer, and to tell vanishing gradients from degradation.

Time: 20 minutes to read, 4 seconds to run. Needs: lesson 2.

Read beside: He et al. 2015, sections 1, 3.1 and 4.1; Vaswani et al. 2017, section 3.1;
article A (MAE:Masked Autoencoders Are Scalable Vision Learners), 3、残差链接和层归一化;
article C (Transformer模型详解), 4.1 Add & Norm; article D (笔记 | 深入理解Transformer),
part 六, Residuals.
"""

# %%
# Twenty layers, by hand
# ----------------------
# Let f map one number to one number, with slope 0.5. The chain rule multiplies slopes,
# so twenty layers pass on a millionth of the gradient. The slope of x + f(x) is 1.5,
# and twenty layers multiply the gradient by 3325.

from pathlib import Path

import numpy as np

from tinymae import init, plot, tree
from tinymae.blocks import feed_forward_backward, feed_forward_forward
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.images.labelled import load_labelled
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward

figures = Path("figures")
rng = np.random.default_rng(0)

print(f"slope of 20 layers: f(x) {0.5**20:.1e}, x + f(x) {1.5**20:.0f}")
assert 0.5**20 < 1e-6 and round(1.5**20) == 3325

# %%
# x + f(x), and its backward pass
# -------------------------------
# f is a sublayer: attention, or a feed forward. Here it is a feed forward (lesson 13),
# two linear maps with a ReLU between them. With J the matrix of the derivatives of f,
#
# .. math::
#
#    y = x + f(x) \qquad (1) \qquad\qquad dx = dy + J^T dy \qquad (2)
#
# The first dy of (2) is the short cut: it arrives whatever f does. The code has two
# switches: x is added or not; f has a layer norm (lesson 12) in front of it or not. At
# the end the weights of f are 0: f(x) is 0, and no gradient gets through. With x + f(x)
# both pass unchanged, so f has to learn the difference only (article C: 差异的部分).


def layer_forward(x, p, norm, residual):
    D = x.shape[-1]
    h, ln = layernorm_forward(x, np.ones(D), np.zeros(D)) if norm else (x, None)
    f, ffn = feed_forward_forward(h, p)                         # (B, T, D)
    y = x + f if residual else f                                # (1)
    return y, (ln, ffn, residual)


def layer_backward(dy, cache):
    ln, ffn, residual = cache
    dx, dp = feed_forward_backward(dy, ffn)
    if ln is not None:
        dx, _, _ = layernorm_backward(dx, ln)
    return dy + dx if residual else dx, dp                      # (2)


x, dy = rng.normal(size=(2, 2, 3, 6))                           # (B, T, D) each
block = init.feed_forward(6, 8, rng, dtype=np.float64)
block["fc1"]["b"] += 0.1                                        # no bias is 0
for norm, residual in ((True, True), (True, False), (False, True), (False, False)):
    switches = {"norm": norm, "residual": residual}
    rows = gradcheck(layer_forward, layer_backward, x, block, **switches)
    assert all(row.ok for row in rows)

zero = tree.map(np.zeros_like, block)
for residual in (True, False):
    y, cache = layer_forward(x, zero, norm=False, residual=residual)
    dx, _ = layer_backward(dy, cache)
    assert np.array_equal(y, residual * x) and np.array_equal(dx, residual * dy)

# %%
# The gradient, layer by layer
# ----------------------------
# Article A's reason is vanishing gradients (梯度消失). In 20 untrained layers of f(x) the
# gradient vanishes on its way from the top to the bottom; in x + f(x) it explodes. With
# a layer norm in front of f both keep its size. So far, a norm would be enough.


def stack_forward(x, layers, norm, residual):
    caches = []
    for p in layers:
        x, cache = layer_forward(x, p, norm, residual)
        caches.append(cache)
    return x, caches


def stack_backward(dx, caches):
    grads, norms = [], [np.linalg.norm(dx)]
    for cache in reversed(caches):
        dx, dp = layer_backward(dx, cache)
        grads.insert(0, dp)
        norms.insert(0, np.linalg.norm(dx))
    return grads, norms                                         # norms[0]: bottom


layers = [init.feed_forward(64, 64, rng, dtype=np.float64) for _ in range(20)]
start, dtop = rng.normal(size=(2, 1, 50, 64))
arriving = {}
for norm in (False, True):
    for residual in (False, True):
        _, caches = stack_forward(start, layers, norm, residual)
        _, norms = stack_backward(dtop, caches)
        fraction = np.array(norms) / norms[-1]
        name = ("x + " if residual else "") + ("f(norm(x))" if norm else "f(x)")
        print(f"{name:14} the bottom receives {fraction[0]:.1e} of the gradient")
        arriving[name] = (np.arange(21), fraction)
vanishing, exploding, *fine = [fraction[0] for _, fraction in arriving.values()]
assert vanishing < 0.01 and exploding > 10 and 0.1 < min(fine) and max(fine) < 10

caption = (
    "How to read it: from the right to the left. The gradient enters at the top, layer "
    "20, with norm 1; a line shows its norm at each layer, down to the bottom, 0."
)
figure = plot.curves(arriving, "layer", "norm of dx", caption, yscale="log")
print(plot.save(figure, figures / "residual_gradient_by_layer.png"))

# %%
# Degradation: more layers, a larger training loss
# ------------------------------------------------
# He et al. 2015 call it degradation (article C: 退化). It is not overfitting: the loss on
# the *training* data is the larger one. Below, networks learn digits of 64 pixels. Of
# f(norm(x)), 8 layers learn much less than 2, though their gradient does not vanish:
# see bottom/top, its median over the steps. 20 layers stay near ln 10 = 2.30, the loss
# of guessing; their gradient vanishes as well. With x + f(norm(x)), deep networks are
# better. Without it, they could copy the shallow one (exercise 1), but do not learn it.


def network_forward(p, x, labels, residual):
    x, caches = stack_forward(x, p["layers"], True, residual)
    h, norm = layernorm_forward(x, np.ones(64), np.zeros(64))   # (N, 64)
    logits, out = linear_forward(h, **p["out"])                 # (N, 10)
    loss, entropy = cross_entropy_forward(logits, labels)
    return loss, (caches, norm, out, entropy)


def network_backward(cache):                                    # from dloss = 1
    caches, norm, out, entropy = cache
    dh, dw, db = linear_backward(cross_entropy_backward(1.0, entropy), out)
    dx, _, _ = layernorm_backward(dh, norm)
    grads, norms = stack_backward(dx, caches)
    return {"layers": grads, "out": {"w": dw, "b": db}}, norms


def train(depth, residual):
    draw = np.random.default_rng(0)
    layers = [init.feed_forward(64, 64, draw, dtype=np.float64) for _ in range(depth)]
    p = {"layers": layers, "out": init.linear(64, 10, draw, dtype=np.float64)}
    arrived = []
    for _ in range(140):
        batch = draw.integers(0, len(labels), 64)
        _, cache = network_forward(p, pixels[batch], labels[batch], residual)
        grads, norms = network_backward(cache)
        p = tree.map(lambda leaf, grad: leaf - 0.1 * grad, p, grads)
        arrived.append(norms[0] / norms[-1])
    loss, _ = network_forward(p, pixels, labels, residual)
    return p, loss, np.median(arrived)


digits, _ = load_labelled("digits").split()
pixels, labels = digits.images.reshape(-1, 64) / 128 - 1, digits.labels  # (N, 64), (N,)
trained, curves = {}, {}
for residual in (False, True):
    name = "x + f(norm(x))" if residual else "f(norm(x))"
    for depth in (2, 8, 20):
        trained[residual, depth] = _, loss, arrived = train(depth, residual)
        print(f"{name:14} {depth:2} layers: loss {loss:.3f}, bottom/top {arrived:.2g}")
    curves[name] = ([2, 8, 20], [trained[residual, depth][1] for depth in (2, 8, 20)])
worse, better = curves["f(norm(x))"][1], curves["x + f(norm(x))"][1]
assert worse[1] > 2 * worse[0] and worse[2] > 2 and max(better[1:]) < 0.7 * better[0]
assert trained[False, 8][2] > 0.2 and trained[False, 20][2] < 0.05

caption = "How to read it: each dot is a network, its loss that of its training data."
figure = plot.curves(curves, "layers", "loss", caption, yscale="log", markers=True)
print(plot.save(figure, figures / "residual_degradation.png"))

# %%
# Break it: a backward pass without the short cut
# -----------------------------------------------
# The forward pass adds x, the backward pass forgets dy. The feed forward alone passes
# its check. Only a check of the whole layer finds the mistake.


def no_shortcut(dy, cache):
    ln, ffn, _ = cache
    return layer_backward(dy, (ln, ffn, False))


rows = gradcheck(layer_forward, no_shortcut, x, block, norm=False, residual=True)
print(format_rows("no short cut", rows[:1]))
assert rows[0].cause == "passed_by"

# %%
# Exercises
# ---------
# 1. A layer f(x) can do nothing, too: find W1 (64, 128) and W2 (128, 64), so that
#    relu(x W1) W2 is x for every x. Then 18 such layers more do not change the loss of
#    the trained network of 2. ``answer_1`` is (W1, W2).
#
# 2. ReZero (Bachlechner et al. 2020) learns one number s, at first 0: y = x + s f(x).
#    Write its backward, ``answer_2(dy, cache)``, which returns (dx, dp, ds).

answer_1 = None
if answer_1 is not None:
    idle = {"fc1": {"w": answer_1[0], "b": None}, "fc2": {"w": answer_1[1], "b": None}}
    shallow, right, _ = trained[False, 2]
    deep = {"layers": shallow["layers"] + [idle] * 18, "out": shallow["out"]}
    loss, _ = network_forward(deep, pixels, labels, residual=False)
    assert abs(loss - right) < 1e-3, f"20 layers: {loss:.3f}, 2 layers: {right:.3f}"


def rezero_forward(x, p, s):
    f, cache = feed_forward_forward(x, p)
    return x + s * f, (f, cache, s)


answer_2 = None
if answer_2 is not None:
    rows = gradcheck(rezero_forward, answer_2, x, block, np.array(0.7))
    assert all(row.ok for row in rows), format_rows("s scales f's part only", rows)

# %%
# In the articles
# ---------------
# - **A, 3、残差链接和层归一化.** "使梯度直接走捷径反传到最初始层": the dy of (2). A's reason, "防止梯度消失", is half
#   of the truth: a norm lets the gradient through, too ("The gradient, layer by
#   layer"), and still deep networks learn less ("Degradation").
# - **C, 3 and 4.1 Add & Norm.** X + MultiHeadAttention(X) is there "防止网络退化", and lets a
#   layer learn only the difference, "差异的部分": "Degradation", and (1) with weights 0.
# - **D, 六 Residuals.** The arrow past each sublayer. Lesson 17 draws D's 2 + 2 layers.
