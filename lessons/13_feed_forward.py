"""
Feed forward · 前馈网络
=======================

Attention carries vectors between positions, but what arrives is a weighted mean. Where
does a Transformer work on what it has gathered? In the feed forward: two linear maps
with an activation between them. It holds two thirds of a layer's parameters.

You will be able to write a feed forward and its backward pass, and to say which
parameters are shared, and what is left without the activation.

Time: 20 minutes to read, 2 seconds to run. Needs: lessons 2 and 12.

Read beside: Vaswani et al. 2017, section 3.3; article A (MAE:Masked Autoencoders Are
Scalable Vision Learners), 4、前馈网络; article C (Transformer模型详解), 4.2; article D
(笔记 | 深入理解Transformer), 二、高层次理解.
"""

# %%
# Three units make a bump
# -----------------------
# One number x goes in, three hidden units receive it, and one number y comes out:
#
# .. math::
#
#    y = \max(0, x + 1) - 2 \max(0, x) + \max(0, x - 1)
#
# By hand: at x = 0 the units are 1, 0, 0, and y is 1. At x = 2 they are 3, 2, 1, and y
# is 3 - 4 + 1 = 0. So three lines with corners make a bump. One straight line cannot:
# the line that fits best is more than 0.8 away from it at the top.

from pathlib import Path

import numpy as np

from tinymae import init, plot, tree
from tinymae.blocks import feed_forward_forward
from tinymae.gradcheck import gradcheck
from tinymae.ops.activation import gelu_forward, relu_forward, swish_forward
from tinymae.ops.layernorm import layernorm_forward
from tinymae.train.optim import AdamW

figures = Path("figures")
line = np.linspace(-3, 3, 61)
parts = np.maximum(0, line[:, None] + [1, 0, -1]) * [1, -2, 1]  # (61, 3)
bump = parts.sum(axis=1)
np.testing.assert_allclose(bump[[0, 20, 30, 50]], [0, 0, 1, 0], atol=1e-12)
fit = np.polynomial.Polynomial.fit(line, bump, 1)(line)
assert bump[30] - fit[30] > 0.8
curves = {f"unit {j}": (line, parts[:, j]) for j in range(3)} | {"sum": (line, bump)}
caption = "How to read it: what each hidden unit adds to y at x. The sum is the bump."
figure = plot.curves(curves, "x", "y", caption)
print(plot.save(figure, figures / "feed_forward_bump.png"))

# %%
# One position at a time
# ----------------------
# .. math::
#
#    h = x W_1 + b_1 \; (1) \quad a = \max(0, h) \; (2) \quad y = a W_2 + b_2 \; (3)
#
# Hidden unit j takes the dot product of x and column j of W_1, plus a bias. If that is
# above 0, it adds so many times row j of W_2 to y. No position affects another.


def feed_forward_loop(x, w1, b1, w2, b2):
    y = np.tile(b2, (len(x), 1))                                # (T, D)
    for t in range(len(x)):
        for j in range(len(b1)):
            h = x[t] @ w1[:, j] + b1[j]                         # (1)
            if h > 0:                                           # (2)
                y[t] += h * w2[j]                               # (3)
    return y


# %%
# All positions at once
# ---------------------
# Two matrix products do it for all positions of all sentences. The package calls the
# maps ``fc1`` and ``fc2``. In the paper F = 2048, four times D = 512.


def forward(x, p, activate=True):
    h = x @ p["fc1"]["w"] + p["fc1"]["b"]                       # (1)  (B, T, F)
    a = np.maximum(0, h) if activate else h                     # (2)
    y = a @ p["fc2"]["w"] + p["fc2"]["b"]                       # (3)  (B, T, D)
    return y, (x, p, h, a, activate)


rng = np.random.default_rng(8)
x = rng.normal(size=(2, 5, 4))                                  # B = 2, T = 5
p = init.feed_forward(4, 7, rng, dtype=np.float64)              # D = 4, F = 7
p["fc1"]["b"] = rng.normal(size=7)                              # zeros at first
p["fc2"]["b"] = rng.normal(size=4)
y, _ = forward(x, p)
w1, b1, w2, b2 = p["fc1"]["w"], p["fc1"]["b"], p["fc2"]["w"], p["fc2"]["b"]
np.testing.assert_allclose(y[0], feed_forward_loop(x[0], w1, b1, w2, b2))
np.testing.assert_allclose(y, feed_forward_forward(x, p)[0])

# %%
# Same at every position, not in every layer
# ------------------------------------------
# Article D says that every encoder's feed forward has the same parameters (参数都是相同的).
# Shortly before it says that encoders do not share weights (权值不共享). That is right: each
# layer has a feed forward of its own, so the order of two layers matters. Within a
# layer, all positions share one: reversed positions give reversed outputs, and a change
# at position 2 changes output 2 only.

np.testing.assert_allclose(forward(x[:, ::-1], p)[0], y[:, ::-1])
other = x.copy()
other[:, 2] += 1
change = np.abs(forward(other, p)[0] - y).max(axis=(0, 2))      # (T,)
assert np.flatnonzero(change > 1e-9).tolist() == [2]
next_p = init.feed_forward(4, 7, rng, dtype=np.float64)         # of the next layer
y_12, _ = forward(forward(x, p)[0], next_p)
y_21, _ = forward(forward(x, next_p)[0], p)
assert np.abs(y_12 - y_21).max() > 0.1                          # the order matters

# %%
# Three activations
# -----------------
# The paper has relu, ViT and MAE have gelu (Hendrycks & Gimpel 2016), some translators
# have swish, also called SiLU. Left of 0, relu is 0 and passes no gradient. The two
# smooth ones pass a little; where they fall, their slope is negative.

h = np.array([-2.0, -1.0, 1.0, 2.0])
activations = {"relu": relu_forward, "gelu": gelu_forward, "swish": swish_forward}
for name, activation in activations.items():
    a, (slope,) = activation(h)                                 # the cache is the slope
    print(f"{name:5} of", h, "is", a.round(2), "with slopes", (slope * 1.0).round(2))
    assert (slope[0] == 0) == (name == "relu") and a[0] <= 0 < slope[3]

# %%
# The backward
# ------------
# .. math::
#
#    da = dy\,W_2^T, \quad dW_2 = a^T dy, \quad db_2 = \sum_t dy_t \qquad (4)
#
#    dh = da \cdot [h > 0] \qquad (5)
#
#    dx = dh\,W_1^T, \quad dW_1 = x^T dh, \quad db_1 = \sum_t dh_t \qquad (6)
#
# In (5), [h > 0] is 1 where h > 0, and 0 elsewhere. All positions share the parameters,
# so (4) and (6) sum over all of them.


def backward(dy, cache):
    x, p, h, a, activate = cache
    da = dy @ p["fc2"]["w"].T                                   # (4)
    dh = da * (h > 0) if activate else da                       # (5)
    dp = {
        "fc1": {"w": np.einsum("bti,bto->io", x, dh), "b": dh.sum(axis=(0, 1))},
        "fc2": {"w": np.einsum("bti,bto->io", a, dy), "b": dy.sum(axis=(0, 1))},
    }
    return dh @ p["fc1"]["w"].T, dp                             # (6)


assert all(row.ok for row in gradcheck(forward, backward, x, p))

# %%
# Break it: no activation
# -----------------------
# Without (2), two linear maps are one: (x W_1 + b_1) W_2 + b_2 = x W + b, with W = W_1
# W_2 and b = b_1 W_2 + b_2. The gradient check passes, the loss falls, and 64 hidden
# units learn no more than one straight line.

target = np.sin(1.5 * line)[None, :, None]                      # (1, 61, 1)
points = line[None, :, None]                                    # 61 positions, D = 1


def train(activate):
    rng = np.random.default_rng(0)
    p = init.feed_forward(1, 64, rng, dtype=np.float64)
    p["fc1"]["b"] = rng.uniform(-3, 3, 64)                      # spread the corners
    optimizer = AdamW(p)
    for _ in range(400):
        y, cache = forward(points, p, activate)
        error = y - target
        _, dp = backward(2 * error / error.size, cache)
        optimizer.step(p, dp, 0.01)
    return y.ravel(), (error * error).mean()


assert all(row.ok for row in gradcheck(forward, backward, x, p, activate=False))
np.testing.assert_allclose(forward(x, p, False)[0], x @ (w1 @ w2) + (b1 @ w2 + b2))
with_relu, loss = train(activate=True)
without, linear_loss = train(activate=False)
fit = np.polynomial.Polynomial.fit(line, target.ravel(), 1)(line)
best_line = ((fit - target.ravel()) ** 2).mean()
print(f"loss: relu {loss:.4f}, without {linear_loss:.4f}, best line {best_line:.4f}")
assert loss < 0.01 and abs(linear_loss - best_line) < 0.001
curves = {"with relu": (line, with_relu), "no activation": (line, without)}
curves["sin(1.5 x), to learn"] = (line, target.ravel())
caption = "How to read it: what 64 units learn of the sine, with and without relu."
figure = plot.curves(curves, "x", "y", caption)
print(plot.save(figure, figures / "feed_forward_line.png"))

# %%
# Two thirds of the parameters
# ----------------------------
# Article A says that the network consists entirely of attention (完全由 Attention 机制组成).
# In the paper's sizes, D = 512 and F = 2048, attention has four matrices D x D, the
# feed forward two of D x 4 D: 8 D^2 of 12 D^2, two thirds of an encoder layer. (A
# decoder layer has two attentions, so there it is half.)

layer = init.encoder_layer(512, 8, 2048, None)
total, ffn = tree.count(layer), tree.count(layer["ffn"])
print(f"encoder layer: {total:,} parameters, feed forward: {ffn:,}, {ffn / total:.0%}")
assert 0.66 < ffn / total < 0.67
decoder = init.decoder_layer(512, 8, 2048, None)
assert 0.49 < ffn / tree.count(decoder) < 0.51

# %%
# Article A's PositionwiseFeedForward
# -----------------------------------
# ``PositionwiseFeedForward(d_in, d_hid)`` has ``w_1``, ``w_2``, and also dropout, the
# residual and a layer norm with eps=1e-6. Here those are separate (lessons 11, 12).

a = np.maximum(0, x @ w1 + b1) @ w2 + b2 + x                    # w_1, w_2, residual
spread = np.sqrt(a.var(axis=-1, keepdims=True) + 1e-6)
theirs = (a - a.mean(axis=-1, keepdims=True)) / spread
ours, _ = layernorm_forward(x + forward(x, p)[0], np.ones(4), np.zeros(4), eps=1e-6)
np.testing.assert_allclose(theirs, ours)

# %%
# Exercises
# ---------
# 1. How many parameters has ViT-B's feed forward, D = 768, F = 3072, with biases?
# 2. x = relu(x) - relu(-x). Write ``answer_2(width)``, the parameters {"fc1": {"w",
#    "b"}, "fc2": {"w", "b"}} of a feed forward that hands every x through unchanged.
#
# For whole files: ``python -m tinymae exercise feed_forward``, and ``exercise gelu``.

answer_1 = None
if answer_1 is not None:
    assert answer_1 == tree.count(init.feed_forward(768, 3072, None)), "and the biases?"

answer_2 = None
if answer_2 is not None:
    z = 1e6 * rng.normal(size=(2, 3, 5))                        # no bias can lift it
    assert np.allclose(forward(z, answer_2(5))[0], z), "two units for each number"

# %%
# In the articles
# ---------------
# - **A**: "完全由 Attention 机制组成" is not true: "Two thirds of the parameters".
# - **C, 4.2**: its formula is (1) to (3), with relu between the two maps only.
# - **D**: "参数都是相同的" is true of positions: "Same at every position, not in every layer".
