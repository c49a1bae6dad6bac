"""
Feed forward · 前馈网络
=======================

Attention carries vectors from position to position, but what arrives is a weighted average. Where does a Transformer work
on what it has gathered? In the feed forward: two linear maps with an activation function between them, the same for every
position; no position sees another. It looks like the dull half of a layer, and holds two thirds of its parameters.

Read beside: Vaswani et al. 2017, section 3.3; article C, section 4 (feed forward); article A, code
(PositionwiseFeedForward). gelu: Hendrycks & Gimpel 2016.
"""

# %%
# One position at a time
# ----------------------
# .. math::
#
#    h = x W_1 + b_1 \quad (1) \qquad a = \max(0, h) \quad (2) \qquad y = a W_2 + b_2 \quad (3)
#
# Read it unit by unit. Hidden unit j measures how much of its direction (column j of :math:`W_1`) is in x, and adds its bias.
# Where that is positive, it adds its answer (row j of :math:`W_2`) to y, the more of it the larger h is. Else it is silent.

import time
from pathlib import Path

import numpy as np

from tinymae import init, plot, tree
from tinymae.blocks import (
    feed_forward_backward,
    feed_forward_forward,
    multi_head_attention_backward,
    multi_head_attention_forward,
)
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.activation import gelu_backward, gelu_forward, relu_backward, relu_forward, swish_forward
from tinymae.ops.dropout import dropout_forward
from tinymae.ops.layernorm import layernorm_forward
from tinymae.train.optim import AdamW

figures = Path("figures")
rng = np.random.default_rng(8)


def feed_forward_loop(x, w1, b1, w2, b2):
    y = np.zeros((len(x), len(b2))) + b2
    for t in range(len(x)):                                     # every position for itself
        for j in range(len(b1)):
            h = x[t] @ w1[:, j] + b1[j]                         # (1)
            if h > 0:                                           # (2)
                y[t] += h * w2[j]                               # (3)
    return y


# %%
# All positions at once
# ---------------------
# Two matrix products do the same for all positions of all sentences. The package keeps :math:`W_1` and :math:`W_2` as ``fc1``
# and ``fc2``; the hidden width F is four times D in the paper (512 and 2048).

B, T, D, F = 2, 5, 4, 7
p = init.feed_forward(D, F, rng, dtype=np.float64)
p["fc1"]["b"], p["fc2"]["b"] = rng.normal(size=F), rng.normal(size=D)
w1, b1, w2, b2 = p["fc1"]["w"], p["fc1"]["b"], p["fc2"]["w"], p["fc2"]["b"]
x = rng.normal(size=(B, T, D))
y, cache = feed_forward_forward(x, p)                           # (B, T, D)
np.testing.assert_allclose(y, np.maximum(0, x @ w1 + b1) @ w2 + b2)
np.testing.assert_allclose(y[0], feed_forward_loop(x[0], w1, b1, w2, b2))
print("loop, two products and package agree:", x.shape, "->", (B, T, F), "->", y.shape)

# %%
# A convolution of width 1
# ------------------------
# The paper calls it two convolutions with kernel size 1. A convolution slides a window along the positions; a window that is
# one position wide is a linear map for each of them. Change one word, and see which outputs notice.


def convolution(x, w, b):
    """x (T, I), w (width, I, O): the sum over a window of `width` positions."""
    return np.array([sum(x[t + i] @ w[i] for i in range(len(w))) + b for t in range(len(x) - len(w) + 1)])


np.testing.assert_allclose(convolution(np.maximum(0, convolution(x[0], w1[None], b1)), w2[None], b2), y[0])
other = x[0].copy()
other[2] += 1
for width in (1, 3):
    kernel = rng.normal(size=(width, D, D))
    noticed = np.flatnonzero(np.abs(convolution(other, kernel, 0) - convolution(x[0], kernel, 0)).max(axis=1))
    print(f"kernel size {width}: changing position 2 changes the outputs", noticed)
    assert len(noticed) == width
assert np.array_equal(np.flatnonzero((feed_forward_forward(other[None], p)[0] != y[:1]).any(axis=-1)), [2])

# %%
# Why an activation?
# ------------------
# Without (2), two linear maps are one: :math:`(x W_1 + b_1) W_2 + b_2 = x (W_1 W_2) + (b_1 W_2 + b_2)`. The wide layer between
# them would be wasted. The package has three activations: relu (the paper), gelu (ViT, MAE, BERT) and swish, also called SiLU
# (Marian). The two smooth ones let a little of the negative side through.

np.testing.assert_allclose((x @ w1 + b1) @ w2 + b2, x @ (w1 @ w2) + (b1 @ w2 + b2))
line = np.linspace(-4, 4, 401)
activations = {"relu": relu_forward, "gelu": gelu_forward, "swish": swish_forward}
values = {name: (line, forward(line)[0]) for name, forward in activations.items()}
slopes = {name: (line, forward(line)[1][0] * 1.0) for name, forward in activations.items()}       # the cache is the slope
for name, (_, slope) in slopes.items():
    print(f"{name:5} slope from {slope.min():.2f} to {slope.max():.2f}; at -2 it is {slope[100]:.3f}")
assert slopes["relu"][1][100] == 0 > slopes["gelu"][1][100] > slopes["swish"][1][100]
assert min(slopes["gelu"][1].max(), slopes["swish"][1].max()) > 1.05
caption = (
    "How to read it: what goes into a hidden unit across, what comes out up. On the far right all three let nearly everything "
    "through, on the far left nearly nothing. gelu and swish dip below 0 on the way, and have no corner."
)
print(plot.save(plot.curves(values, "h", "a", caption), figures / "feed_forward_bends.png"))
caption = (
    "How to read it: the slopes of the same curves; the backward multiplies by them. Left of 0 relu lets no gradient pass; "
    "gelu and swish pass some, in part with the other sign. Where their slope is above 1 they amplify a little."
)
print(plot.save(plot.curves(slopes, "h", "slope, da/dh", caption), figures / "feed_forward_slopes.png"))

# %%
# The way back
# ------------
# The figure read upwards: a linear map, the slope, a linear map. (4) and (6) are (2) to (4) of ``ops/linear.py``; (5) is the
# slope of ``ops/activation.py``: there (1) for relu, (3) for gelu, (5) for gelu's tanh form, (7) for swish. The sums run over
# all positions of all sentences.
#
# .. math::
#
#    da = dy\,W_2^T, \quad dW_2 = a^T dy, \quad db_2 = \sum_t dy_t \qquad (4)
#
# .. math::
#
#    dh = da \cdot slope(h), \qquad slope(h) = [h > 0] \text{ for relu} \qquad (5)
#
# .. math::
#
#    dx = dh\,W_1^T, \quad dW_1 = x^T dh, \quad db_1 = \sum_t dh_t \qquad (6)

dy = rng.normal(size=y.shape)
dx, dp = feed_forward_backward(dy, cache)
h = x @ w1 + b1
da = dy @ w2.T                                                  # (4)
dh = da * (h > 0)                                               # (5)
np.testing.assert_allclose(dx, dh @ w1.T)                       # (6)
np.testing.assert_allclose(dp["fc1"]["w"], x.reshape(-1, D).T @ dh.reshape(-1, F))
np.testing.assert_allclose(dp["fc1"]["b"], dh.sum(axis=(0, 1)))
np.testing.assert_allclose(dp["fc2"]["w"], np.maximum(0, h).reshape(-1, F).T @ dy.reshape(-1, D))
for activation in ("relu", "gelu", "gelu_tanh", "swish"):
    rows = gradcheck(feed_forward_forward, feed_forward_backward, x, p, activation=activation, dropout=0.2, rng=0)
    assert all(row.ok for row in rows)
    print(f"{activation:9} worst relative error of {len(rows)} tensors: {max(row.error for row in rows):.0e}")

# %%
# A kink is no mistake
# --------------------
# At h = 0 relu has two slopes, 0 from the left and 1 from the right. A random h never hits the corner; padding of zeros does,
# while the biases are still 0. Any slope between the two is a fair answer there (here 0, as in PyTorch). The checker sees the
# corner and says so: move the argument a little. gelu has no corner.

corner = np.array([[0.5, 0.0, -1.0]])
rows, smooth = gradcheck(relu_forward, relu_backward, corner), gradcheck(gelu_forward, gelu_backward, corner)
print(format_rows("relu", rows), format_rows("gelu", smooth), sep="\n")
assert rows[0].worst[-1] == 1 and "kink" in rows[0].diagnosis and smooth[0].ok

# %%
# Break it: another activation, the old slope
# -------------------------------------------
# For relu, a > 0 says the same as h > 0, so a backward may as well look at the output. Then somebody changes relu to gelu, and
# forgets that line. Read the cosine in the last column: this gradient still points nearly the right way, so the loss would
# fall, and nobody would ask. What comes behind the activation, the second map, is right.


def slope_of_relu(dy, cache):
    a = cache["fc2"][0]                                         # what went into the second map
    return feed_forward_backward(dy, cache | {"act": ((a > 0).astype(a.dtype),)})


for activation in ("relu", "gelu"):
    rows = gradcheck(feed_forward_forward, slope_of_relu, x, p, activation=activation)
    print(format_rows(activation, rows), end="\n\n")
    assert all(row.ok for row in rows) == (activation == "relu")
assert [row.tensor for row in rows if not row.ok] == ["x", "p.fc1.w", "p.fc1.b"]
assert "cosine of the two gradients is 0.9" in rows[0].diagnosis

# %%
# What hidden units do
# --------------------
# One number in, one out, four hidden units: learn a sine. Each unit is silent on one side of its corner. The rest is addition.

points = np.linspace(-3, 3, 61)[None, :, None]                  # (1, 61, 1): 61 positions, one number wide
wave = np.sin(1.5 * points)


def train(activation, hidden, rate, steps, seed):
    """A feed forward that learns sin(1.5 x); its parameters, losses, and the share of units that no gradient reaches."""
    rng = np.random.default_rng(seed)
    p = init.feed_forward(1, hidden, rng, dtype=np.float64)
    p["fc1"] = {"w": rng.choice([-1.0, 1.0], (1, hidden)), "b": rng.uniform(-3, 3, hidden)}     # corners all over the line
    optimizer, losses, dead = AdamW(p), [], []
    for _ in range(steps):
        y, cache = feed_forward_forward(points, p, activation)
        error = y - wave
        dp = feed_forward_backward(2 * error / error.size, cache)[1]
        optimizer.step(p, dp, rate)
        losses.append((error * error).mean())
        dead.append((np.abs(cache["act"][0]).max(axis=(0, 1)) < 0.01).mean())                   # the slope at every point
    return p, losses, dead


# %%
# The parts of the output, unit by unit, and their sum.

four, losses, _ = train("relu", 4, 0.02, 1000, 1)
across = points.ravel()
y, cache = feed_forward_forward(points, four)
parts = cache["fc2"][0][0] * four["fc2"]["w"][:, 0]             # (61, 4): a_j times row j of W2
np.testing.assert_allclose(parts.sum(axis=1) + four["fc2"]["b"], y.ravel())
print(f"mean squared error {losses[0]:.2f} -> {losses[-1]:.4f}; the mean of the squared wave is {(wave * wave).mean():.2f}")
assert losses[-1] < 0.02
curves = {f"unit {j}": (across, parts[:, j]) for j in range(4)}
curves |= {"their sum + b2": (across, y.ravel()), "the sine to learn": (across, wave.ravel())}
caption = (
    "How to read it: what each of four hidden units adds to the output, for every x. Each is 0 on one side of its corner and a "
    "straight line on the other. Their sum bends where one of them has its corner, and follows the sine."
)
print(plot.save(plot.curves(curves, "x", "y", caption), figures / "feed_forward_units.png"))

# %%
# Break it: dead units
# --------------------
# A step that is too long can push a unit so far that h is below 0 for every input. Then its slope is 0 for every input, and its
# gradient is 0: no later gradient moves it. Is the backward wrong? No, 0 is the true gradient, and **the check stays blind**,
# because there is no mistake to see. Count silent units instead. (At first some come back: they still move by what Adam
# remembers of earlier gradients. In a stack, a layer below that changes the inputs can wake one, too.)

curves = {}
for activation, rate in (("relu", 0.01), ("relu", 0.1), ("relu", 0.3), ("gelu", 0.3), ("swish", 0.3)):
    trained, losses, dead = train(activation, 64, rate, 200, 0)
    curves[f"{activation}, learning rate {rate}"] = dead
    print(f"{activation:5} learning rate {rate:<4}: {dead[-1]:4.0%} dead, loss {losses[-1]:.4f}")
    if (activation, rate) == ("relu", 0.3):
        rows = gradcheck(feed_forward_forward, feed_forward_backward, points, trained)
        assert all(row.ok for row in rows) and dead[0] == 0 and dead[-1] > 0.4 and np.diff(dead).min() < 0
low, middle, high, gelu, swish = (curve[-1] for curve in curves.values())
assert low < 0.2 < high and low < middle < high and max(gelu, swish) < high / 2
caption = (
    "How to read it: the share of 64 hidden units whose slope is below 0.01 at every input, so that gradients hardly move "
    "them. With relu it is the larger the longer the steps are. gelu and swish still have a slope on the negative side: fewer "
    "units are lost, only those that were pushed very far."
)
print(plot.save(plot.curves(curves, "step", "dead units", caption, ylim=(-0.03, 1)), figures / "feed_forward_dead.png"))

# %%
# How much of a layer is here?
# ----------------------------
# The paper's base model: D = 512, 8 heads, F = 2048. Attention has four matrices D x D, the feed forward two of D x 4 D. For T
# tokens that is 16 D D T multiplications and additions against 8 D D T; on top attention has the two products with T x T
# weights, 4 D T T. So the feed forward is the larger part until a sentence has 2 D tokens.

layer = init.encoder_layer(512, 8, 2048, rng)
counts = {name: tree.count(layer[name]) for name in ("attn", "ffn")}
share = counts["ffn"] / tree.count(layer)
print(f"parameters: layer {tree.count(layer):,}; attention {counts['attn']:,}, feed forward {counts['ffn']:,}, {share:.0%}")
assert 0.66 < share < 0.67 and 16 * 512**2 == 8 * 512**2 + 4 * 512 * (2 * 512)
tokens = rng.normal(size=(4, 64, 512)).astype(np.float32)
seconds = {"attn": [], "ffn": []}
for _ in range(4):
    start = time.perf_counter()
    z, attn = multi_head_attention_forward(tokens, tokens, layer["attn"], 8)
    multi_head_attention_backward(z, attn)
    between = time.perf_counter()
    z, ffn = feed_forward_forward(tokens, layer["ffn"])
    feed_forward_backward(z, ffn)
    seconds["attn"].append(between - start)
    seconds["ffn"].append(time.perf_counter() - between)
attn, ffn = (min(times) for times in seconds.values())
print(f"time for 4 x 64 tokens, there and back: attention {1e3 * attn:.0f} ms, feed forward {1e3 * ffn:.0f} ms")
assert 0.2 < ffn / (attn + ffn) < 0.95

# %%
# Article A's PositionwiseFeedForward
# -----------------------------------
# Its class holds more than (1) to (3): dropout, the residual, and the layer norm behind it (post-norm; eps = 1e-6 as in its
# MultiHeadAttention). Here these are functions of their own, and the residual is a line that you can see. Same random numbers,
# same result.


def positionwise_feed_forward(x, rate, rng):
    y = np.maximum(0, x @ w1 + b1) @ w2 + b2
    y = y * (rng.random(y.shape) >= rate) / (1 - rate) + x
    spread = np.sqrt(y.var(axis=-1, keepdims=True) + 1e-6)
    return alpha * (y - y.mean(axis=-1, keepdims=True)) / spread + beta


alpha, beta = rng.normal(size=D), rng.normal(size=D)
f, _ = feed_forward_forward(x, p)
f, _ = dropout_forward(f, 0.1, np.random.default_rng(3))
ours, _ = layernorm_forward(x + f, alpha, beta, eps=1e-6)
np.testing.assert_allclose(ours, positionwise_feed_forward(x, 0.1, np.random.default_rng(3)))
print("article A's class = feed forward, dropout, residual, layer norm")

# %%
# Exercises
# ---------
# Write your answers in place of ``None``, and run the file again. A wrong answer stops with a hint.
# For whole files to complete: ``python -m tinymae exercise feed_forward``, and ``exercise gelu``.

# 1. How many parameters has a feed forward of width 768 with a hidden width of 3072 (ViT-B), biases included?
answer_1 = None
if answer_1 is not None:
    assert answer_1 == tree.count(init.feed_forward(768, 3072, None)), "two matrices, and a bias as long as each output"


# 2. Squared relu (So et al. 2021): a = max(0, h)^2. Its forward keeps r = max(0, h). Write def answer_2(da, cache), which
#    returns the gradient dh.
def squared_relu_forward(h):
    r = np.maximum(0, h)
    return r * r, (r,)


answer_2 = None
if answer_2 is not None:
    rows = gradcheck(squared_relu_forward, answer_2, rng.normal(size=(5, 3)))
    assert all(row.ok for row in rows), "\n" + format_rows("your backward", rows)

# 3. x = relu(x) - relu(-x). Write def answer_3(width), the parameters {"fc1": {"w", "b"}, "fc2": {"w", "b"}} of a feed forward
#    with relu that hands every input (..., width) through unchanged. How large must F be?
answer_3 = None
if answer_3 is not None:
    z = 1e6 * rng.normal(size=(2, 3, 5))                        # so large that no bias can lift it above 0
    assert np.allclose(feed_forward_forward(z, answer_3(5))[0], z), "each number needs two units, one for each sign"

# %%
# In the articles
# ---------------
# - **A, code, PositionwiseFeedForward**: relu, dropout, residual and norm in one class: see the section of its name. Our layers
#   have dropout behind the activation, too, as PyTorch's do.
# - **C, section 4 (feed forward)**: (1) to (3) as one line, :math:`\max(0, x W_1 + b_1) W_2 + b_2`. What comes out has the
#   shape of what goes in, as it must: a residual adds the two.
# - **D, high level**: same structure, weights not shared, is said of the *layers*: each has a feed forward of its own. Within a
#   layer all positions share one, and that is why (4) and (6) sum over positions.
