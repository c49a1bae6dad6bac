"""
Layer normalisation · 层归一化
==============================

Every sublayer of a Transformer has a layer norm. Mean and variance of what, exactly? If
you take them over the wrong axis, the shapes fit, the gradient check passes, and each
token depends on its neighbours. Article A's formula, read literally, does that.

You will be able to write layer norm and its backward pass, to say what "normalised"
means, and to tell pre-norm from post-norm.

Time: 25 minutes to read, 2 seconds to run. Needs: lesson 11.

Read beside: Ba et al. 2016; Vaswani et al. 2017, section 3.1; article A (MAE:Masked
Autoencoders Are Scalable Vision Learners), 3、残差链接和层归一化; article C
(Transformer模型详解), 4.1 Add & Norm; article D (笔记 | 深入理解Transformer), part 六,
Residuals; article B (「解析」Attention 关键点), ``LayerNorX``.
"""

# %%
# Three tokens, as a loop
# -----------------------
# Layer norm takes mean and variance over the D features of *one* position. Try it by
# hand. The first token below, 1, 1, 3, 3, has mean 2 and variance 1, so it becomes -1,
# -1, 1, 1. The second is ten times as large, and becomes the same: the scale is lost.
#
# .. math::
#
#    \hat{x} = (x - \mu) \, rstd, \quad rstd = 1 / \sqrt{\sigma^2 + \epsilon} \qquad (1)
#
#    y = \gamma \hat{x} + \beta \qquad (2)
#
# Article A writes alpha for gamma. At the start gamma is 1 and beta 0.

import math
from pathlib import Path

import numpy as np

from tinymae import init, plot
from tinymae.blocks import encoder_backward, encoder_forward
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward

figures = Path("figures")
rng = np.random.default_rng(0)


def layernorm_loop(x, gamma, beta, eps=1e-5):
    y = np.zeros_like(x)                                        # (T, D)
    for t in range(len(x)):
        mean = sum(x[t]) / len(x[t])
        variance = sum((value - mean) ** 2 for value in x[t]) / len(x[t])
        rstd = 1 / math.sqrt(variance + eps)
        for i in range(len(x[t])):
            y[t, i] = gamma[i] * (x[t, i] - mean) * rstd + beta[i]      # (1), (2)
    return y


tokens = np.array([[1.0, 1, 3, 3], [10, 10, 30, 30], [0, 2, 2, 4]])    # (T, D)
y = layernorm_loop(tokens, np.ones(4), np.zeros(4))
np.testing.assert_allclose(y[:2], [[-1, -1, 1, 1], [-1, -1, 1, 1]], atol=1e-4)

# %%
# All positions at once
# ---------------------
# The axis is an argument here: it is what can go wrong.


def forward(x, gamma, beta, eps=1e-5, axis=-1):
    rstd = 1 / np.sqrt(x.var(axis=axis, keepdims=True) + eps)   # (T, 1)
    xhat = (x - x.mean(axis=axis, keepdims=True)) * rstd        # (1)  (T, D)
    return gamma * xhat + beta, (xhat, rstd, gamma, axis)       # (2)


x = rng.normal(3, 5, (4, 6))                                    # (T, D)
gamma, beta = rng.normal(1, 0.5, (2, 6))
y, cache = forward(x, gamma, beta)
np.testing.assert_allclose(y, layernorm_loop(x, gamma, beta), atol=1e-13)
np.testing.assert_allclose(y, layernorm_forward(x, gamma, beta)[0], atol=1e-13)

# %%
# Mean 0 and variance 1 are not a normal distribution
# ---------------------------------------------------
# Article A: the numbers become a 标准正态分布, a standard normal distribution, and i.i.d. But
# layer norm only shifts and scales each position. A token with two heaps of numbers (a
# bimodal one) keeps them. Nor do the numbers become independent: the second half of
# this token copies the first, before and after.

half = np.concatenate([rng.normal(-3, 0.5, 2000), rng.normal(5, 0.5, 2000)])
token = np.concatenate([half, half])[None]                      # (1, 8000)
y, _ = forward(token, 1.0, 0.0)
middle = (np.abs(y) < 0.5).mean()
print(f"mean {y.mean():.3f}, variance {y.var():.3f}, from -0.5 to 0.5: {middle:.1%}")
assert abs(y.mean()) < 1e-12 and abs(y.var() - 1) < 1e-5 and middle < 0.01
assert np.array_equal(y[0, :4000], y[0, 4000:])

edges = np.linspace(-6, 7, 131)
middles = (edges[1:] + edges[:-1]) / 2
densities = {"standard normal distribution":
             (middles, np.exp(-(middles**2) / 2) / math.sqrt(2 * math.pi))}
for name, numbers in (("before", token), ("after layer norm", y)):
    densities[name] = (middles, np.histogram(numbers, edges, density=True)[0])
caption = "How to read it: how often a value occurs in one token. Two heaps stay two."
figure = plot.curves(densities, "value", "density", caption)
print(plot.save(figure, figures / "layernorm_two_heaps.png"))

# %%
# eps, and which variance
# -----------------------
# PyTorch and this package divide by D (the biased variance) and add eps = 1e-5 under
# the square root. The Annotated Transformer divides by D - 1: every number is smaller
# by sqrt((D - 1) / D). Article A's code has eps = 1e-6. That shows only where a token
# is nearly constant: at a standard deviation of 0.001, an eps of 1e-5 leaves 0.30, and
# 1e-6 leaves 0.71. Take both from the code that your weights come from.

token = rng.normal(size=(1, 512))
unbiased = (token - token.mean()) / token.std(ddof=1)
ratio = unbiased / forward(token, 1.0, 0.0, eps=0)[0]
np.testing.assert_allclose(ratio, math.sqrt(511 / 512))
flat = 0.001 * token / token.std()
left = {eps: float(forward(flat, 1.0, 0.0, eps=eps)[0].std()) for eps in (1e-5, 1e-6)}
print(f"unbiased / biased {ratio.max():.3f}; standard deviation by eps {left}")
assert f"{left[1e-5]:.2f} {left[1e-6]:.2f}" == "0.30 0.71"

# %%
# The backward pass
# -----------------
# gamma and beta serve all positions, so their gradients are sums over positions. Each x
# moves its own xhat, and through mean and variance those of its whole token.
#
# .. math::
#
#    d\beta = \sum dy, \quad d\gamma = \sum dy \, \hat{x} \qquad (3)
#
#    d\hat{x} = dy \, \gamma \qquad (4)
#
#    dx = rstd \, (d\hat{x} - mean(d\hat{x}) - \hat{x} \,
#         mean(d\hat{x} \, \hat{x})) \qquad (5)
#
# (5) removes two components, along 1 and along xhat: to shift or to stretch a token
# does not change y, so no loss can ask for it.


def backward(dy, cache):
    xhat, rstd, gamma, axis = cache
    dbeta = dy.sum(axis=0)                                      # (3)
    dgamma = (dy * xhat).sum(axis=0)
    dxhat = dy * gamma                                          # (4)
    along_one = dxhat.mean(axis=axis, keepdims=True)
    along_xhat = xhat * (dxhat * xhat).mean(axis=axis, keepdims=True)
    return rstd * (dxhat - along_one - along_xhat), dgamma, dbeta       # (5)


rows = gradcheck(forward, backward, x, gamma, beta)
print(format_rows("layernorm", rows))
assert all(row.ok for row in rows)
dy = rng.normal(size=x.shape)
dx, _, _ = backward(dy, cache)
_, packaged = layernorm_forward(x, gamma, beta)
np.testing.assert_allclose(dx, layernorm_backward(dy, packaged)[0], atol=1e-13)
assert np.abs(dx.sum(axis=-1)).max() < 1e-13                    # nothing along 1

# %%
# Break it: article A's indices, read literally
# ---------------------------------------------
# A's text says one row at a time. Its formulas sum over i, the rows, and subtract mu_j:
# mean and variance of a *column*, over the positions, as in batch norm. The gradient
# check passes. But now a change of the last token, 3, changes the first, 0.

assert all(row.ok for row in gradcheck(forward, backward, x, gamma, beta, axis=0))
changed = x.copy()
changed[3] += 10
for axis in (-1, 0):
    y, _ = forward(x, gamma, beta, axis=axis)
    after, _ = forward(changed, gamma, beta, axis=axis)
    moved = np.abs(after[0] - y[0]).max()
    print(f"axis {axis:2}: a change of token 3 moves token 0 by {moved:.2f}")
    assert moved > 0.1 if axis == 0 else moved == 0

# %%
# Pre-norm or post-norm?
# ----------------------
# Post-norm, the paper's figure and articles A, C and D, is :math:`y = LayerNorm(x +
# f(x))`. Pre-norm, as in GPT-2, ViT and MAE, is :math:`y = x + f(LayerNorm(x))`.
# Article B is pre-norm: its attention takes ``LayerNorX``, a normalised x. Both have
# the same parameters, so weights of one load into the other without complaint. In
# pre-norm x grows with every layer, so one more norm ends the stack.
#
# In post-norm the last layer's weights receive a gradient of the same size at any
# depth. In pre-norm the last norm divides by the size of x, so the gradient shrinks
# with the square root of the depth: by half from 6 layers to 24. In post-norm it stays
# large, and the first steps must be small: a warm-up (Xiong et al. 2020; lesson 21).

ratio = {}
stack = [init.encoder_layer(32, 4, 64, rng, dtype=np.float64) for _ in range(24)]
tokens, dtop = rng.normal(size=(2, 8, 10, 32))                  # (B, T, D) each
for name, norm_first in (("post-norm", False), ("pre-norm", True)):
    options = {"heads": 4, "norm_first": norm_first, "activation": "relu"}
    sizes, gradients = [], []
    for depth in (6, 24):
        p = {"blocks": stack[:depth]}
        y, _ = encoder_forward(tokens, p, **options)
        sizes.append(math.sqrt((y**2).mean()))
        if norm_first:
            p["norm"] = init.layernorm(32, np.float64)          # after the last layer
        _, cache = encoder_forward(tokens, p, **options)
        _, grads = encoder_backward(dtop, cache)
        gradients.append(np.linalg.norm(grads["blocks"][-1]["ffn"]["fc2"]["w"]))
    print(f"{name}, 6 and 24 layers: size of x {sizes[0]:.2f} and {sizes[1]:.2f}, "
          f"gradient in the last layer {gradients[0]:.0f} and {gradients[1]:.0f}")
    assert sizes[1] > 3 if norm_first else abs(sizes[1] - 1) < 0.01
    ratio[name] = gradients[1] / gradients[0]                   # expected: 1 and 0.5
assert 0.25 < ratio["pre-norm"] < 0.65 < ratio["post-norm"] < 1.5

# %%
# Exercises
# ---------
# 1. RMSNorm (Zhang & Sennrich 2019) leaves the mean alone: y = gamma x / sqrt(mean(x^2)
#    + eps). Write its backward, ``answer_1(dy, cache)``, which returns (dx, dgamma).
#
# 2. Your weights were trained with the unbiased variance, and your layer norm has the
#    biased one, D = 512. By which number do you multiply every gamma (take eps = 0)?


def rmsnorm(x, gamma, eps=1e-5):
    rstd = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    return gamma * x * rstd, (x * rstd, rstd, gamma)            # (xhat, rstd, gamma)


answer_1 = None
if answer_1 is not None:
    rows = gradcheck(rmsnorm, answer_1, rng.normal(2, 1, (4, 6)), gamma)
    assert all(row.ok for row in rows), format_rows("the mean stays in x now", rows)

answer_2 = None
if answer_2 is not None:
    biased, _ = forward(token, answer_2, 0.0, eps=0)
    assert np.allclose(biased, unbiased, rtol=1e-4, atol=0), "which one is larger?"

# %%
# In the articles
# ---------------
# - **A, 3、残差链接和层归一化.** The formulas mix their indices: mu_i is a sum over i, and
#   sigma_j uses mu_j. "Break it" runs them as they stand. Mean and variance are over
#   the features of one position, as A's sentences and its code (在512维度) say. And the
#   result is no "标准正态分布" and not "独立同分布": see the section with two heaps.
# - **A, code.** ``LayerNorm(eps=1e-6)`` in both classes: "eps, and which variance".
# - **B.** ``LayerNorX``: pre-norm. **C, 4.1 Add & Norm, D, 六 Residuals.** Post-norm. C
#   is right that only mean and variance become equal (均值方差).
