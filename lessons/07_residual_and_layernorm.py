"""
Residual connections and layer normalisation · 残差连接与层归一化
=================================================================

"Add & Norm" stands behind every sublayer of a Transformer. Why? Without both, hardly any gradient reaches the bottom of a deep
stack; with the addition alone, the numbers grow from layer to layer, and training must crawl or it breaks. And the details
differ from code to code: biased or unbiased, eps inside or outside the root, norm before or behind the sublayer. Which of these
can you see?

Read beside: Vaswani et al. 2017, section 3.1; Ba et al. 2016; articles A (part 3), C (section 4.1) and D (residuals).
"""

# %%
# x + sublayer(x): a short cut for gradients
# ------------------------------------------
# The residual connection of He et al. 2015. With J the Jacobian of the sublayer f, the table of its derivatives,
#
# .. math::
#
#    y = x + f(x) \qquad (a) \qquad\qquad dx = dy + J^T dy \qquad (b)
#
# The first dy of (b) is the short cut: it comes through whatever f does. The sublayer below is a feed forward (lesson 8): two
# linear maps, and between them a ReLU, which turns negative numbers into 0. With all of them at 0 it is dead, and alone lets no
# gradient through. With the residual path the gradient passes unchanged.

import math
from pathlib import Path

import numpy as np

from tinymae import init, plot, tree
from tinymae.blocks import (
    encoder_backward,
    encoder_forward,
    encoder_layer_backward,
    encoder_layer_forward,
    feed_forward_backward,
    feed_forward_forward,
    multi_head_attention_backward,
    multi_head_attention_forward,
)
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.images.labelled import load_labelled
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.train.optim import clip_grad_norm

figures = Path("figures")
rng = np.random.default_rng(0)

# %%


def residual_forward(x, p):
    f, cache = feed_forward_forward(x, p)
    return x + f, cache                                         # (a)


def residual_backward(dy, cache):
    dx, dp = feed_forward_backward(dy, cache)
    return dy + dx, dp                                          # (b)


x, dy = rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 3, 6))
p = init.feed_forward(6, 8, rng, dtype=np.float64)
p["fc1"]["b"] += 0.1
rows = gradcheck(residual_forward, residual_backward, x, p)
assert all(row.ok for row in rows)

p["fc1"]["b"][:] = -100                                         # every ReLU is off
alone = feed_forward_backward(dy, feed_forward_forward(x, p)[1])[0]
shortcut = residual_backward(dy, residual_forward(x, p)[1])[0]
print(f"a dead sublayer lets through {np.linalg.norm(alone):.1f}, with a residual path {np.linalg.norm(shortcut):.1f}")
assert not alone.any() and np.array_equal(shortcut, dy)

# %%
# Layer normalisation, as a loop
# ------------------------------
# Article A writes :math:`LayerNorm(x) = \alpha (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta`, where :math:`\mu` and
# :math:`\sigma^2` are taken over the D features of *one* word: not over the words, and not over the batch. We call
# :math:`\alpha` gamma. It starts at 1 and beta at 0, so a fresh layer norm only normalises.
#
# .. math::
#
#    \hat{x} = (x - \mu) \, rstd, \quad rstd = 1 / \sqrt{\sigma^2 + \epsilon} \qquad (1)
#
#    y = \gamma \hat{x} + \beta \qquad (2)


def layernorm_loop(x, gamma, beta, eps=1e-5):
    y = np.zeros_like(x)
    for t in range(len(x)):
        mean = sum(x[t]) / len(x[t])
        variance = sum((value - mean) ** 2 for value in x[t]) / len(x[t])
        rstd = 1 / math.sqrt(variance + eps)
        for i in range(len(x[t])):
            y[t, i] = gamma[i] * (x[t, i] - mean) * rstd + beta[i]                      # (1), (2)
    return y


# %%
# The same in four lines
# ----------------------
# The cache holds what the backward will need: xhat, rstd and gamma.


def forward(x, gamma, beta, eps=1e-5):
    rstd = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    xhat = (x - x.mean(axis=-1, keepdims=True)) * rstd          # (1)
    return gamma * xhat + beta, (xhat, rstd, gamma)             # (2)


x, gamma, beta = rng.normal(3, 5, (4, 6)), rng.normal(1, 0.5, 6), rng.normal(size=6)
np.testing.assert_allclose(forward(x, gamma, beta)[0], layernorm_loop(x, gamma, beta), atol=1e-13)
np.testing.assert_allclose(forward(x, gamma, beta)[0], layernorm_forward(x, gamma, beta)[0], atol=1e-13)

fresh = init.layernorm(6, np.float64)
assert (fresh["gamma"] == 1).all() and not fresh["beta"].any()
y, _ = layernorm_forward(x, **fresh)
print("mean of each word", y.mean(axis=-1).round(6), "variance", y.var(axis=-1).round(6))
np.testing.assert_allclose(np.linalg.norm(y, axis=-1), math.sqrt(6), rtol=1e-4)         # every word has the same length

# %%
# Biased or unbiased deviation, eps inside or outside the root?
# -------------------------------------------------------------
# The paper does not say. PyTorch and this package: biased (divide by D), eps = 1e-5 inside the root. The Annotated Transformer:
# unbiased (divide by D - 1), eps = 1e-6 added to the deviation, outside. How far apart are they? Unbiased makes every number
# smaller by the factor sqrt((D - 1) / D), so it depends on the width: the largest difference below is more than 0.1 at width 8,
# and less than 0.01 at the paper's 512. Training absorbs it: gamma can grow by the inverse factor. It matters where weights
# trained with one are used with the other.


def annotated(x, eps=1e-6):
    return (x - x.mean(axis=-1, keepdims=True)) / (x.std(axis=-1, keepdims=True, ddof=1) + eps)


largest = {}
for width in (4, 8, 16, 64, 512):
    words, one = rng.normal(size=(64, width)), init.layernorm(width, np.float64)
    largest[width] = np.abs(layernorm_forward(words, **one)[0] - annotated(words)).max()
print("width: largest difference ", {width: round(float(value), 4) for width, value in largest.items()})
assert largest[8] > 0.1 and largest[512] < 0.01

# %%
# Where does eps stand, and how large is it? That shows only where a word is nearly constant. Below, words of ever smaller
# deviation, and the deviation that comes out: 1 is perfect. Down to 0.1 all conventions agree. At 0.001 an eps of 1e-5
# *inside* the root already shrinks the word to 0.3, and 1e-6 (article A's) to 0.7; outside the root neither does. So take eps
# from the code that the weights come from. With no eps at all, a constant word would be 0/0.

print("deviation in   inside 1e-5   inside 1e-6   outside 1e-5   outside 1e-6")
for scale in (1, 0.1, 0.01, 0.001):
    words, one = scale * rng.normal(size=(64, 512)), init.layernorm(512, np.float64)
    inside = [layernorm_forward(words, **one, eps=eps)[0].std() for eps in (1e-5, 1e-6)]
    outside = [annotated(words, eps).std() for eps in (1e-5, 1e-6)]
    print(f"{scale:12}   " + "   ".join(f"{value:11.3f}" for value in inside + outside))
    assert scale < 0.1 or min(inside + outside) > 0.99
assert 0.25 < inside[0] < 0.35 and 0.65 < inside[1] < 0.75 and min(outside) > 0.98      # of the last scale, 0.001

# %%
# The backward
# ------------
# gamma and beta are shared by all words, so their gradients are sums over words. For x, differentiate (1): each number moves
# its own xhat, and through mean and deviation those of all its neighbours in the word.
#
# .. math::
#
#    d\beta = \sum dy, \quad d\gamma = \sum dy \, \hat{x} \qquad (3)
#
#    d\hat{x} = dy \, \gamma \qquad (4)
#
#    dx = rstd \, (d\hat{x} - mean(d\hat{x}) - \hat{x} \, mean(d\hat{x} \, \hat{x})) \qquad (5)
#
# gamma, in (4), comes before the means. Lesson 1, "Break it: at the initial values", runs one that multiplies last.


def backward(dy, cache):
    xhat, rstd, gamma = cache
    dbeta, dgamma = dy.sum(axis=0), (dy * xhat).sum(axis=0)     # (3)
    dxhat = dy * gamma                                          # (4)
    along_one = dxhat.mean(axis=-1, keepdims=True)
    along_xhat = xhat * (dxhat * xhat).mean(axis=-1, keepdims=True)
    return rstd * (dxhat - along_one - along_xhat), dgamma, dbeta                       # (5)


dy, (_, cache) = rng.normal(size=x.shape), forward(x, gamma, beta)
for ours, packaged in zip(backward(dy, cache), layernorm_backward(dy, cache), strict=True):
    np.testing.assert_allclose(ours, packaged, atol=1e-13)
rows = gradcheck(forward, backward, x, gamma, beta)
print(format_rows("layernorm", rows))
assert all(row.ok for row in rows)

# %%
# What (5) takes away
# -------------------
# Adding a constant to a word, or stretching it, does not change y. So no loss can ask for either, and the gradient has no
# component along 1 and none along xhat. (5) is exactly that: dxhat with the two components removed. (Along xhat the eps
# leaves a trace, below 1e-5 here.) Use it as a test of any layer norm backward, without any finite difference.

dx, xhat = backward(dy, cache)[0], cache[0]
along_one, along_xhat = np.abs(dx.sum(axis=-1)).max(), np.abs((dx * xhat).sum(axis=-1)).max()
print(f"along 1: {along_one:.0e}, along xhat: {along_xhat:.0e}")
assert along_one < 1e-13 and along_xhat < 1e-5
np.testing.assert_allclose(forward(7 * x + 100, gamma, beta)[0], forward(x, gamma, beta)[0], atol=1e-5)

# %%
# Break it: the variance as E[x^2] - E[x]^2
# -----------------------------------------
# One pass over the data instead of two, and the same on paper. In float32, which keeps 7 digits, numbers around 5000 have
# squares around 25,000,000, and a variance of 1 is lost in their rounding. The difference may even be negative, and its root
# is NaN. The gradient check is blind twice: it runs in float64, where the formula is good enough, and near 0.


def one_pass_forward(x, gamma, beta, eps=1e-5):
    mean = x.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) - mean * mean + eps)
    xhat = (x - mean) * rstd
    return gamma * xhat + beta, (xhat, rstd, gamma)


assert all(row.ok for row in gradcheck(one_pass_forward, backward, x, gamma, beta))     # blind
words, one = 5000 + rng.normal(size=(200, 64)), init.layernorm(64)
right = layernorm_forward(words, **init.layernorm(64, np.float64))[0]
with np.errstate(invalid="ignore"):
    broken = one_pass_forward(words.astype(np.float32), **one)[0]
two_pass = layernorm_forward(words.astype(np.float32), **one)[0]
print(f"one pass: {np.isnan(broken).any(axis=-1).mean():.0%} of the words are NaN, the others are off by up to "
      f"{np.nanmax(np.abs(broken - right)):.3g}; two passes: off by {np.abs(two_pass - right).max():.1g}")
assert np.isnan(broken).any() and np.nanmax(np.abs(broken - right)) > 0.5 and np.abs(two_pass - right).max() < 0.01

# %%
# Pre-norm or post-norm? The code does not match the figure
# ---------------------------------------------------------
# The paper's figure, and articles A, C and D, are post-norm: :math:`y = LayerNorm(x + f(x))`. The code behind the paper
# (Tensor2Tensor, in its later defaults), the Annotated Transformer, GPT-2, ViT and MAE are pre-norm:
# :math:`y = x + f(LayerNorm(x))`. Layers of both have the same parameters, so weights of one load into the other without
# complaint, and give something else. Post-norm's output is normalised. Pre-norm's x is never normalised itself, it grows with
# every layer, and so one more norm stands behind the stack.

D, H, F, DEPTH = 32, 4, 64, 24
stack = [init.encoder_layer(D, H, F, rng, dtype=np.float64) for _ in range(DEPTH)]
tokens = rng.normal(size=(8, 10, D))                            # (B, T, D)
sizes = {}
for name, norm_first in (("post-norm", False), ("pre-norm", True)):
    x, sizes[name] = tokens, []
    for layer in stack:
        x, _ = encoder_layer_forward(x, layer, H, norm_first=norm_first, activation="relu")
        sizes[name].append(math.sqrt((x**2).mean()))
    print(f"{name}: root mean square after layer 1 {sizes[name][0]:.2f}, after layer {DEPTH} {sizes[name][-1]:.2f}")
assert 0.99 < sizes["post-norm"][-1] < 1.01 and sizes["pre-norm"][-1] > 3

# %%
# The gradient on its way down
# ----------------------------
# A layer in which residual and norm can be switched off one by one. With both on it is the package's post-norm layer.


def layer_forward(x, p, residual, norm):
    a, attn = multi_head_attention_forward(x, x, p["attn"], H)
    x = x + a if residual else a
    x, ln1 = layernorm_forward(x, **p["ln1"]) if norm else (x, None)
    f, ffn = feed_forward_forward(x, p["ffn"])
    y = x + f if residual else f
    y, ln2 = layernorm_forward(y, **p["ln2"]) if norm else (y, None)
    return y, (attn, ln1, ffn, ln2, residual)


def layer_backward(dy, cache):
    attn, ln1, ffn, ln2, residual = cache
    dy = layernorm_backward(dy, ln2)[0] if ln2 else dy
    dh, _ = feed_forward_backward(dy, ffn)
    dx = dh + dy if residual else dh
    dx = layernorm_backward(dx, ln1)[0] if ln1 else dx
    dq, dkv, _ = multi_head_attention_backward(dx, attn)
    return dq + dkv + dx if residual else dq + dkv


for switches in ({"residual": True, "norm": True}, {"residual": False, "norm": True}, {"residual": True, "norm": False}):
    assert all(row.ok for row in gradcheck(layer_forward, layer_backward, tokens[:2, :3], p=stack[0], **switches))
packaged, _ = encoder_layer_forward(tokens, stack[0], H, norm_first=False, activation="relu")
np.testing.assert_allclose(layer_forward(tokens, stack[0], residual=True, norm=True)[0], packaged, atol=1e-12)

# %%
# A random gradient of length 1 enters at the top of 24 fresh layers. How much arrives? With neither, about a ten-thousandth.
# The residual alone keeps the path open, but each layer adds to x, and the gradient explodes. The norm alone keeps the numbers
# in order, but without residuals all words become the same (lesson 9). Both together, before or behind, is what everybody
# uses.

dtop = rng.normal(size=tokens.shape)
dtop /= np.linalg.norm(dtop)


def norms_on_the_way(forward, backward):
    x, dx, caches, norms = tokens, dtop, [], []
    for layer in stack:
        x, cache = forward(x, layer)
        caches.append(cache)
    while caches:
        dx = backward(dx, caches.pop())
        norms.append(np.linalg.norm(dx))
    return np.arange(DEPTH), np.array(norms[::-1])              # layer 0 is the one at the bottom


arriving = {
    "post-norm": norms_on_the_way(lambda x, p: layer_forward(x, p, True, True), layer_backward),
    "pre-norm": norms_on_the_way(
        lambda x, p: encoder_layer_forward(x, p, H, activation="relu"), lambda dy, cache: encoder_layer_backward(dy, cache)[0]),
    "residual, no norm": norms_on_the_way(lambda x, p: layer_forward(x, p, True, False), layer_backward),
    "norm, no residual": norms_on_the_way(lambda x, p: layer_forward(x, p, False, True), layer_backward),
    "neither": norms_on_the_way(lambda x, p: layer_forward(x, p, False, False), layer_backward),
}

# %%

for name, (_, norms) in arriving.items():
    print(f"{name:18} at the bottom {norms[0]:.1e}")
assert 1e-5 < arriving["neither"][1][0] < 1e-3 and arriving["residual, no norm"][1][0] > 1e6
assert all(0.1 < arriving[name][1].min() and arriving[name][1].max() < 10 for name in ("post-norm", "pre-norm"))

caption = (
    "How to read it: the norm of the gradient with respect to the input of each of 24 fresh encoder layers, when a gradient "
    "of norm 1 enters at the top (right). A line that stays level brings the same gradient to every layer. The scale is "
    "logarithmic."
)
figure = plot.curves(arriving, "layer", "norm of dx", caption, yscale="log", markers=True)
print(plot.save(figure, figures / "residual_gradient_by_layer.png"))

# %%
# Why post-norm needs a warm-up
# -----------------------------
# dx is of the same order for both. What the optimiser sees, the gradient of the weights, does not. In post-norm the last layer
# gets a gradient of the same size however deep the stack is. In pre-norm the last norm divides by the size of x, which has
# grown with the root of the depth, so the gradient there falls with 1/sqrt(L): deep stacks start gently (Xiong et al. 2020).
# Post-norm starts hard at the top, and wants a learning rate that begins small.


def weight_gradients(depth, norm_first):
    p = {"blocks": stack[:depth]} | ({"norm": init.layernorm(D, np.float64)} if norm_first else {})
    _, cache = encoder_forward(tokens, p, H, norm_first=norm_first, activation="relu")
    _, grads = encoder_backward(dtop, cache)
    return np.array([clip_grad_norm(block["ffn"], math.inf) for block in grads["blocks"]])      # infinity: the norm only


by_layer = {f"{name}, {depth} layers": (np.arange(depth), weight_gradients(depth, norm_first))
            for name, norm_first in (("post-norm", False), ("pre-norm", True)) for depth in (6, 24)}
top = {name: norms[-1] for name, (_, norms) in by_layer.items()}
print("gradient of the feed forward in the last layer:", {name: round(float(norm), 2) for name, norm in top.items()})
assert 0.6 < top["post-norm, 24 layers"] / top["post-norm, 6 layers"] < 1.7             # the same size
assert 0.35 < top["pre-norm, 24 layers"] / top["pre-norm, 6 layers"] < 0.75             # sqrt(6 / 24) is 0.5
caption = (
    "How to read it: the gradient of the feed forward's weights in each layer of a fresh stack, for two depths. Look at the "
    "right end of each line: post-norm's last layer gets the same at any depth, pre-norm's gets less, the deeper the stack "
    "is."
)
figure = plot.curves(by_layer, "layer", "norm of the weights' gradient", caption, ylim=(0, 9), markers=True)
print(plot.save(figure, figures / "residual_pre_and_post_norm.png"))

# %%
# Training with the norm on and off
# ---------------------------------
# Does it matter for real? 16 residual feed forwards in a row learn handwritten digits, 64 pixels each, with plain gradient
# descent: no Adam that could hide a scale, no warm-up. The only difference is the norm (pre-norm, and one at the end).

train_set, test_set = load_labelled("digits").split()
pixels, test_pixels = (part.images.reshape(1, -1, 64) / 128 - 1 for part in (train_set, test_set))                 # (1, N, 64)


def network_init(norm, rng):
    blocks = [{"ffn": init.feed_forward(64, 64, rng, dtype=np.float64)} for _ in range(16)]
    p = {"blocks": blocks, "out": init.linear(64, 10, rng, dtype=np.float64)}
    for place in (*blocks, p) if norm else ():
        place["norm"] = init.layernorm(64, np.float64)
    return p


def network_forward(p, x, labels):
    caches, sizes = [], []
    for block in p["blocks"]:
        h, ln = layernorm_forward(x, **block["norm"]) if "norm" in block else (x, None)
        f, ffn = feed_forward_forward(h, block["ffn"])
        x = x + f                                               # (a)
        caches.append((ln, ffn))
        sizes.append(math.sqrt((x**2).mean()))
    x, last = layernorm_forward(x, **p["norm"]) if "norm" in p else (x, None)
    logits, out = linear_forward(x, **p["out"])                 # (1, N, 10)
    loss, entropy = cross_entropy_forward(logits[0], labels)
    return loss, {"blocks": caches, "last": last, "out": out, "entropy": entropy, "sizes": sizes, "logits": logits[0]}

# %%
# Its backward is the forward read upwards.


def network_backward(dloss, cache):
    dx, dw, db = linear_backward(cross_entropy_backward(dloss, cache["entropy"])[None], cache["out"])
    grads = {"blocks": [], "out": {"w": dw, "b": db}}
    if cache["last"]:
        dx, *dnorm = layernorm_backward(dx, cache["last"])
        grads["norm"] = dict(zip(("gamma", "beta"), dnorm, strict=True))
    for ln, ffn in reversed(cache["blocks"]):
        dh, dffn = feed_forward_backward(dx, ffn)
        grads["blocks"].insert(0, {"ffn": dffn})
        if ln:
            dh, *dnorm = layernorm_backward(dh, ln)
            grads["blocks"][0]["norm"] = dict(zip(("gamma", "beta"), dnorm, strict=True))
        dx = dx + dh                                            # (b)
    return grads


for norm in (True, False):
    p = network_init(norm, rng)
    rows = gradcheck(network_forward, network_backward, p, samples=2, x=pixels[:, :3], labels=train_set.labels[:3])
    assert all(row.ok for row in rows)

# %%
# 150 steps, at learning rates a factor of 10 apart.


def train(norm, lr):
    rng = np.random.default_rng(0)
    p, history = network_init(norm, rng), []
    for _ in range(150):
        batch = rng.integers(0, len(train_set.labels), 64)
        loss, cache = network_forward(p, pixels[:, batch], train_set.labels[batch])
        grads = network_backward(1.0, cache)
        history.append((loss, clip_grad_norm(grads, math.inf), cache["sizes"]))         # infinity clips nothing: the norm only
        if loss > 1000:                                         # it will not come back
            break
        tree.map(lambda leaf, gradient: np.subtract(leaf, lr * gradient, out=leaf), p, grads)
    losses, gradients, sizes = zip(*history, strict=True)
    return np.array(losses), np.array(gradients), sizes, p

# %%
# With the norm on or off, one rate is slow, one is right and one breaks, but with the norm on they are 100 times larger.
# Without it even the first loss is absurd, where a network that knows nothing should have ln 10: x has grown through 16
# layers.

rates = {"on": (0.01, 0.1, 1), "off": (0.0001, 0.001, 0.01)}    # slow, right, too large
runs = {(norm, lr): train(norm == "on", lr) for norm in rates for lr in rates[norm]}
for (norm, lr), (losses, _, _, p) in runs.items():
    if losses[-1] > 1000:
        end = f"broken in step {len(losses)}"
    else:
        logits = network_forward(p, test_pixels, test_set.labels)[1]["logits"]
        right = (logits.argmax(axis=-1) == test_set.labels).mean()
        end = f"last losses {losses[-10:].mean():5.3f}, right on {right:.0%} of the test digits"
    print(f"norm {norm:3}  lr {lr:<6}  first loss {losses[0]:6.2f}, {end}")
for norm, (slow, good, too_large) in rates.items():
    assert runs[norm, good][0][-10:].mean() < runs[norm, slow][0][-10:].mean() and runs[norm, too_large][0][-1] > 1000
assert runs["on", 0.1][0][0] < 5 and runs["off", 0.001][0][0] > 50

# %%
# The same runs as pictures: first the loss, and the gradient of all parameters together.

names = {run: f"norm {run[0]}, lr {run[1]:g}" for run in runs}
caption = (
    "How to read it: the training loss of 16 residual layers. Below the dashed line the network knows more than nothing. A "
    "line that leaves through the top is a training that broke. Compare the learning rates in the names, too."
)
losses = {names[run]: losses for run, (losses, *_) in runs.items()}
level = {"ln 10, knowing nothing": math.log(10)}
figure = plot.curves(losses, "step", "loss", caption, levels=level, yscale="log", ylim=(0.01, 1000))
print(plot.save(figure, figures / "layernorm_on_off_loss.png"))

caption = (
    "How to read it: the norm of the gradient of all parameters at each step. With the norm off it starts a hundred times "
    "larger, so a learning rate must be as much smaller. It is the product of the two that moves the weights."
)
gradients = {names[run]: gradients for run, (_, gradients, *_) in runs.items()}
figure = plot.curves(gradients, "step", "norm of the gradient", caption, yscale="log", ylim=(0.1, 1e5))
print(plot.save(figure, figures / "layernorm_on_off_gradient.png"))
assert 30 < runs["off", 0.001][1][0] / runs["on", 0.1][1][0] < 300

# %%
# Then the size of x in each layer, which explains both.

stream = {f"{names[run]}, {when}": runs[run][2][step]
          for run in (("on", 0.1), ("off", 0.001)) for when, step in (("first step", 0), ("last step", -1))}
caption = (
    "How to read it: the root mean square of x behind each layer. Pre-norm never normalises x itself, so it grows in both. But "
    "with the norm on, each sublayer sees numbers of size 1 and adds as much to a large x as to a small one."
)
figure = plot.curves(stream, "layer", "root mean square of x", caption, yscale="log", markers=True)
print(plot.save(figure, figures / "layernorm_on_off_activation.png"))
assert stream["norm off, lr 0.001, first step"][-1] > 2 * stream["norm on, lr 0.1, first step"][-1]

# %%
# Exercises
# ---------
# 1. You load weights that were trained with the unbiased deviation into a layer norm with the biased one, D = 512. By which
#    number do you multiply every gamma, so that nothing changes (take eps = 0)?
#
# 2. RMSNorm (Zhang & Sennrich 2019) leaves the mean alone: y = gamma x / sqrt(mean(x^2) + eps). Write its backward, (dx,
#    dgamma); which of the two components of (5) goes, and which stays?
#
# 3. Article A's classes have residual and norm inside: y = LayerNorm(x + f(x)). Write the backward of
#    ``add_and_norm_forward``, in which f is a feed forward. It returns (dx, dp, dgamma, dbeta), and one line of it is (b).
#
# For a whole file to complete: ``python -m tinymae exercise layernorm``.

answer_1 = None
if answer_1 is not None:
    word = np.arange(512.0)
    unbiased, biased = annotated(word, eps=0), layernorm_forward(word, np.ones(512), np.zeros(512), eps=0)[0]
    assert np.allclose(answer_1 * biased, unbiased, rtol=1e-4, atol=0), "which deviation is larger, and by how much?"


def rmsnorm_forward(x, gamma, eps=1e-5):
    rstd = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    return gamma * x * rstd, (x * rstd, rstd, gamma)            # (xhat, rstd, gamma)


answer_2 = None
if answer_2 is not None:
    rows = gradcheck(rmsnorm_forward, answer_2, np.random.default_rng(1).normal(2, 1, (4, 6)), np.linspace(0.5, 2, 6))
    assert all(row.ok for row in rows), f"the mean is not subtracted any more\n{format_rows('', rows)}"


def add_and_norm_forward(x, p, gamma, beta):
    f, ffn = feed_forward_forward(x, p)
    y, norm = layernorm_forward(x + f, gamma, beta)
    return y, (ffn, norm)


answer_3 = None
if answer_3 is not None:
    draw = np.random.default_rng(2)
    p = init.feed_forward(6, 8, draw, dtype=np.float64)
    numbers = [draw.normal(size=(2, 3, 6)), p, draw.normal(1, 0.5, 6), draw.normal(size=6)]
    rows = gradcheck(add_and_norm_forward, answer_3, *numbers)
    assert all(row.ok for row in rows), f"undo the norm first; then two paths lead to x\n{format_rows('', rows)}"

# %%
# In the articles
# ---------------
# - **A, part 3 (残差连接与层归一化).** X + SubLayer(X) as a short cut for gradients: the first section, and the picture by
#   layer. It writes alpha for our gamma, starts it at 1 and beta at 0, and has eps inside the root.
# - **A, code.** ``MultiHeadAttention`` and ``PositionwiseFeedForward`` carry residual and norm inside, post-norm; exercise 3 is
#   the second of them. Here they are lines of the layer. The first has ``LayerNorm(eps=1e-6)``; PyTorch's default, and ours, is
#   1e-5.
# - **C, section 4.1 (Add & Norm).** LayerNorm(X + MultiHeadAttention(X)), LayerNorm(X + FeedForward(X)): post-norm.
# - **D, residuals (残差).** Draws encoder and decoder of 2 + 2 layers with Add & Norm; lesson 10 draws that picture.
# - **Vaswani et al., section 3.1,** is post-norm in text and figure; dropout on f(x), before the sum, is in section 5.4. They
#   say nothing about bias or eps.
