"""
The backward of attention · 注意力的反向传播
============================================

A token attended to the wrong one. Which score has to rise, which has to fall, and how
far? The answer passes through a softmax, where every weight depends on every score of
its row. And where the softmax is saturated, hardly any answer comes through.

You will be able to write the backward pass of a softmax and of attention from
equations, to check it, and to read a heatmap of gradients beside attention weights.

Time: 30 minutes to read, 3 seconds to run. Needs: lessons 2, 6 (dropout) and 7.

Read beside: Vaswani et al. 2017, section 3.2.1 and its footnote; article A (MAE:Masked
Autoencoders Are Scalable Vision Learners), the code of ScaledDotProductAttention.
"""

# %%
# The backward of a softmax
# -------------------------
# One row of scores s gives weights p. If score k rises, weight k rises, and all others
# fall:
#
# .. math::
#
#    \partial p_j / \partial s_k = p_j (\delta_{jk} - p_k) \qquad (1)
#
#    ds_k = \sum_j dp_j \, \partial p_j / \partial s_k
#         = p_k (dp_k - \sum_j dp_j \, p_j) \qquad (2)
#
# (:math:`\delta_{jk}` is 1 if j = k, otherwise 0.) In words: a score has a positive
# gradient if its dp is above the row's mean by p; it is in proportion to the weight.

import math
from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.attention import scaled_dot_product_attention_backward as packaged
from tinymae.ops.attention import scaled_dot_product_attention_forward as forward
from tinymae.ops.dropout import dropout_backward, dropout_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward

figures = Path("figures")
rng = np.random.default_rng(0)
p, cache = softmax_forward(rng.normal(size=5))
dp, ds = rng.normal(size=5), np.zeros(5)
for k in range(5):
    for j in range(5):
        ds[k] += dp[j] * p[j] * ((j == k) - p[k])                       # (1)
np.testing.assert_allclose(p * (dp - dp @ p), ds, atol=1e-14)           # (2)
np.testing.assert_allclose(softmax_backward(dp, cache), ds, atol=1e-14)

# %%
# A saturated softmax
# -------------------
# (2) multiplies with p. If one weight is 1 and the others are 0, ds is 0: a wrong
# choice is not unlearned. Scores without the square root have variance d_k, and their
# softmax saturates (lesson 7). A typical query (the median of 500) then loses more than
# half of its gradient at the scores at d_k = 64, and almost all of it at 1024. At q one
# more factor counts: the square root also divides dq. Without it, at 1024, the typical
# dq is far smaller, but the *mean* is larger: a few undecided queries get a huge
# gradient.

widths, at_q = [4, 16, 64, 256, 1024], {}
at_scores = {"no root": [], "sqrt(d_k)": []}
for d in widths:
    q, k = rng.normal(size=(500, d)), rng.normal(size=(500, 32, d))     # 32 keys each
    dweights = rng.normal(size=(500, 32))
    products = (k @ q[:, :, None])[:, :, 0]             # (500, 32)
    for name, divisor in (("no root", 1), ("sqrt(d_k)", math.sqrt(d))):
        _, cache = softmax_forward(products / divisor)
        dscores = softmax_backward(dweights, cache)
        dq = (dscores[:, None] @ k)[:, 0] / divisor     # (500, d)
        at_scores[name].append(np.median(np.linalg.norm(dscores, axis=1)))
        at_q[name] = np.linalg.norm(dq, axis=1)         # the last one is d = 1024
no_root, root = np.array(list(at_scores.values()))
print("at the scores, no root / root:", (no_root / root).round(4))
assert no_root[2] < root[2] / 2 and no_root[4] < root[4] / 100
no_root, root = at_q.values()
print(f"mean length of dq at 1024: {no_root.mean():.2f} and {root.mean():.2f}")
assert np.median(no_root) < np.median(root) / 10 and no_root.mean() > 3 * root.mean()

caption = "How to read it: median of 500 queries; without the root it falls (log axes)."
curves = {name: (widths, lengths) for name, lengths in at_scores.items()}
log = {"xscale": "log", "yscale": "log", "markers": True}
figure = plot.curves(curves, "d_k", "length of dL/dscores", caption, **log)
print(plot.save(figure, figures / "attention_saturation.png"))

# %%
# Attention, backwards: loop and matrices
# ---------------------------------------
# Forward: scores = Q K^T / sqrt(d_k), P = softmax(scores), P' = dropout(P) = P · keep,
# y = P' V. Backward, from dy, each line undoes one of these, the last first:
#
# .. math::
#
#    dV = P'^T dy \ (5) \qquad dP' = dy\, V^T \ (6) \qquad dP = dP' \cdot keep \ (7)
#
#    dscores = P \cdot (dP - \textstyle\sum dP \cdot P) / \sqrt{d_k} \quad (8)
#
#    dQ = dscores\, K, \qquad dK = dscores^T Q \quad (9)
#
# (8) is (2) for each row, with the factor of the scores. The loop shows the sums: every
# query uses a key and its value, so the gradients of all queries add up in them. Loop,
# matrices and package must agree. Then comes the gradient check (lesson 2): all sizes
# different, dropout on, and a mask whose query 2 may attend to nothing.


def loop_backward(dy, cache):
    q, k, v, weights, dropped, keep = cache
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    dweights = dropout_backward(dy @ v.swapaxes(-1, -2), keep)          # (6), (7)
    for b, h, i in np.ndindex(q.shape[:3]):             # every query
        p, dp = weights[b, h, i], dweights[b, h, i]
        dscores = p * (dp - dp @ p) / math.sqrt(q.shape[-1])            # (8)
        for j in range(k.shape[2]):                     # every key
            dv[b, h, j] += dropped[b, h, i, j] * dy[b, h, i]            # (5)
            dq[b, h, i] += dscores[j] * k[b, h, j]      # (9)
            dk[b, h, j] += dscores[j] * q[b, h, i]
    return dq, dk, dv


def backward(dy, cache):
    q, k, v, weights, dropped, keep = cache
    dv = dropped.swapaxes(-1, -2) @ dy                  # (5)
    dweights = dropout_backward(dy @ v.swapaxes(-1, -2), keep)          # (6), (7)
    mean = (dweights * weights).sum(axis=-1, keepdims=True)
    dscores = weights * (dweights - mean) / math.sqrt(q.shape[-1])      # (8)
    return dscores @ k, dscores.swapaxes(-1, -2) @ q, dv                # (9)


q = rng.normal(size=(2, 3, 4, 7))                       # (B, H, Tq, d_k)
k = rng.normal(size=(2, 3, 5, 7))                       # (B, H, Tk, d_k)
v = rng.normal(size=(2, 3, 5, 6))                       # (B, H, Tk, d_v)
mask = np.array([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 0, 1]])
options = {"mask": mask != 0, "dropout": 0.3}
y, cache = forward(q, k, v, **options, rng=np.random.default_rng(1))
dy = rng.normal(size=y.shape)
for ours in (loop_backward, backward):
    for one, two in zip(ours(dy, cache), packaged(dy, cache), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-12)
rows = gradcheck(forward, backward, q, k, v, **options, rng=0)
assert all(row.ok for row in rows), format_rows("attention", rows)

# %%
# Attention beside its gradient
# -----------------------------
# Five tokens; the loss asks each for the value of the token before it (the first for
# its own). A step raises the scores with a negative gradient (blue) and lowers the
# others (red). Each row sums to 0. Where the weight is near 0, so is the gradient.

wanted = [0, 0, 1, 2, 3]
scores, values = rng.normal(size=(5, 5)), rng.normal(size=(5, 8))


def loss_and_dscores(scores):
    weights, cache = softmax_forward(scores)
    error = weights @ values - values[wanted]           # loss = |error|^2 / 2
    return weights, (error * error).sum() / 2, softmax_backward(error @ values.T, cache)


weights, loss, dscores = loss_and_dscores(scores)
np.testing.assert_allclose(dscores.sum(axis=1), 0, atol=1e-12)
assert (dscores[np.arange(5), wanted] < 0).all()        # to be raised, in every row
for _ in range(100):
    scores = scores - 0.5 * loss_and_dscores(scores)[2]
after, end, _ = loss_and_dscores(scores)
print(f"loss {loss:.2f} -> {end:.2f} after 100 steps of gradient descent on the scores")
assert end < loss / 20 and (after.argmax(axis=1) == wanted).all()

caption = "How to read it: a step raises the blue scores (middle), and lowers the red."
left, right = plot.Panel("weights", weights), plot.Panel("100 steps later", after)
panels = [left, plot.Panel("dL/dscores", dscores, top=2.0, signed=True), right]
figure = plot.heatmaps(panels, "key", "query", caption)
print(plot.save(figure, figures / "attention_gradient.png"))

# %%
# Article A's ScaledDotProductAttention
# -------------------------------------
# Its listing divides q by a ``temperature``, which the caller must set to the square
# root of d_k, hides keys with ``masked_fill(mask == 0, -1e9)``, drops out weights, and
# returns the output and ``attn``. Two things differ from the package. Its ``attn`` is
# the one after dropout: right for (5), wrong for (8), and its rows do not sum to 1. And
# a query that may attend to nothing has equal scores everywhere, so it attends to all
# keys, allowed or not; in the package it gets zeros.


def article_a(q, k, v, temperature, mask, rng):
    scores = np.where(mask == 0, -1e9, (q / temperature) @ k.swapaxes(-1, -2))
    attn, _ = dropout_forward(softmax_forward(scores)[0], 0.3, rng)
    return attn @ v, attn


output, attn = article_a(q, k, v, math.sqrt(7), mask, np.random.default_rng(1))
for query in (0, 1, 3):
    np.testing.assert_allclose(output[:, :, query], y[:, :, query], atol=1e-12)
print("rows of attn sum to", attn[0, 0].sum(axis=1).round(2))
assert np.abs(attn.sum(axis=3) - 1).max() > 0.1
assert (y[:, :, 2] == 0).all() and (output[:, :, 2] != 0).all()

# %%
# Break it: the diagonal of the Jacobian
# --------------------------------------
# All derivatives (1) are a matrix, the *Jacobian*; its diagonal, j = k, is p (1 - p).
# But raising one weight lowers the others of its row: that part is missing here.


def diagonal(dp, cache):
    (p,) = cache
    return p * (1 - p) * dp


(row,) = gradcheck(softmax_forward, diagonal, rng.normal(size=(3, 5)))
print(row.diagnosis)
assert not row.ok and row.cause == "softmax_diagonal"

# %%
# Exercises
# ---------
# 1. A row of weights is (0.5, 0.5, 0), dp is (1, 0, 7). What is ds, by (2)?
#
# 2. ``before_dropout`` takes dV from P instead of P'. Which options of gradcheck find
#    this bug? ``answer_2 = {"mask": mask != 0}``, or another dict.

answer_1 = None
if answer_1 is not None:
    expected = softmax_backward(np.array([1.0, 0.0, 7.0]), (np.array([0.5, 0.5, 0.0]),))
    assert np.allclose(answer_1, expected), "the mean of the row is 0.5, by p"


def before_dropout(dy, cache):
    dq, dk, _ = backward(dy, cache)
    return dq, dk, cache.weights.swapaxes(-1, -2) @ dy


answer_2 = None
if answer_2 is not None:
    rows = gradcheck(forward, before_dropout, q, k, v, **answer_2)
    assert not all(row.ok for row in rows), "blind: when do P and P' differ?"

# %%
# In the articles
# ---------------
# - **A, code.** 防止梯度过大: the paper's reason is the opposite, gradients that are too
#   small: "A saturated softmax". The caller sets the temperature, ``attn`` is the one
#   after dropout, an empty row attends to all: "Article A's ScaledDotProductAttention".
#   Its dropout stays at 0.1: A's ``MultiHeadAttention`` passes no other value.
