"""
Scaled dot-product attention · 缩放点积注意力
=============================================

A word has to know about the others: in 我有一只猫 it is 一 and 猫 that make 只 a measure word (it could be "only"). Attention
lets every word ask all words a question, and take from each as much as its answer fits. Here it is word by word, then as
matrices, then backwards; and why one divides by the root of d_k, and what happens without.

Read beside: Vaswani et al. 2017, equation 1; articles A (part 2), B, C (section 3), D (the six steps) and E.
"""

# %%
# One output, as a loop
# ---------------------
# Article E writes self-attention as :math:`y_i = f(x_i, (x_1, x_1), \ldots, (x_n, x_n))`: a query :math:`x_i`, and pairs of key
# and value. The function f is a weighted mean of the values, with large weights where the key is like the query.

import math
from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.dropout import dropout_backward, dropout_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward

figures = Path("figures")
rng = np.random.default_rng(0)


def f(query, pairs):
    weights = [math.exp(query @ key / math.sqrt(len(query))) for key, _ in pairs]
    y = np.zeros_like(pairs[0][1])
    for weight, (_, value) in zip(weights, pairs, strict=True):
        y += weight / sum(weights) * value
    return y


x = rng.normal(size=(5, 4))                                     # five words of width 4
y = np.array([f(x_i, list(zip(x, x, strict=True))) for x_i in x])
packaged, _ = scaled_dot_product_attention_forward(*[x[None, None]] * 3)                # q = k = v: (B, H, T, d) = (1, 1, 5, 4)
np.testing.assert_allclose(y, packaged[0, 0], atol=1e-12)

# %%
# Six steps, word by word
# -----------------------
# A word should not ask with the same vector with which it answers. So article D makes three vectors of width 64 from each x of
# width 512, with three trained matrices: a query, a key, a value. Then, for each word:

x = rng.normal(size=(2, 512))                                   # two words
w_q, w_k, w_v = (rng.normal(size=(512, 64)) / math.sqrt(512) for _ in range(3))
z = np.zeros((2, 64))
for i in range(2):
    q = x[i] @ w_q                                              # step 1: q of this word, k and v of all words
    k, v = [x[j] @ w_k for j in range(2)], [x[j] @ w_v for j in range(2)]
    scores = [q @ k[0], q @ k[1]]                               # step 2: q1.k1, q1.k2
    scores = [score / 8 for score in scores]                    # step 3: divide by the root of 64
    weights = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]        # step 4: softmax
    weighed = [weights[j] * v[j] for j in range(2)]             # step 5: weigh the values
    z[i] = weighed[0] + weighed[1]                              # step 6: add them up
    print(f"word {i}: scores {np.round(scores, 2)}, weights {np.round(weights, 2)}")

print("the Illustrated Transformer's 112 and 96, divided by 8 ->", softmax_forward(np.array([112.0, 96.0]) / 8)[0].round(2))

# %%
# The same as matrices
# --------------------
# All words at once. Rows are words in every matrix, so row i of the scores belongs to query i, and the softmax runs along rows.
#
# .. math::
#
#    scores = Q K^T / \sqrt{d_k} \quad (1) \qquad weights = softmax(scores) \quad (2) \qquad y = weights\, V \quad (4)
#
# (The package's numbers; its (3) is dropout on the weights.)

Q, K, V = x @ w_q, x @ w_k, x @ w_v                             # (2, 64) each
scores = Q @ K.T / math.sqrt(64)                                # (1)  (2, 2)
weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)                    # (2)
np.testing.assert_allclose(weights @ V, z, atol=1e-12)          # (4)
packaged, cache = scaled_dot_product_attention_forward(Q[None, None], K[None, None], V[None, None])
np.testing.assert_allclose(packaged[0, 0], z, atol=1e-12)
np.testing.assert_allclose(cache.weights[0, 0], weights, atol=1e-12)                    # kept, to plot

# %%
# Q K^T or Q^T K?
# ---------------
# Article B asks what each computes. With words in rows, Q K^T is (T, T): one number for each pair of words, which is what a
# softmax over words needs. Q^T K is (d, d): features against features, summed over all words. Shuffle the words, and it stays
# the same: it cannot say who looks at whom. But a text that keeps its words in *columns* writes Q^T K for the very same
# numbers. So look at the shape: attention needs the (T, T) one.

Q, K = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))         # (T, d)
print("Q K^T", (Q @ K.T).shape, " Q^T K", (Q.T @ K).shape)
shuffle = [3, 0, 4, 1, 2]
np.testing.assert_allclose(Q[shuffle].T @ K[shuffle], Q.T @ K, atol=1e-12)              # blind to words
assert not np.allclose(Q[shuffle] @ K[shuffle].T, Q @ K.T)
in_columns = Q.T, K.T                                           # (d, T)
np.testing.assert_allclose(in_columns[0].T @ in_columns[1], Q @ K.T, atol=1e-12)

# %%
# sqrt(d_k) or sqrt(d_model)?
# ---------------------------
# Entries of q and k with mean 0 and variance 1 give a q.k of variance d_k: it is a sum of d_k products of variance 1. Dividing
# by the root of d_k brings it back to 1 at every width. d_k is the width of *one head*. In the paper it is 64, and its root 8;
# that there are also 8 heads is an accident. The root of d_model = 512 makes the scores too small, by the root of 8.

widths, H = [4, 16, 64, 256, 1024], 8
products = {d: np.vecdot(*rng.normal(size=(2, 4000, d))) for d in widths}               # 4000 times q.k
variance = {
    "q.k": [products[d].var() for d in widths],
    "q.k / sqrt(d_k)": [(products[d] / math.sqrt(d)).var() for d in widths],
    "q.k / sqrt(d_model), 8 heads": [(products[d] / math.sqrt(H * d)).var() for d in widths],
}
for name, measured in variance.items():
    print(f"{name:30}", np.round(measured, 2))
for measured, theory in zip(variance.values(), (np.array(widths), 1, 1 / H), strict=True):
    np.testing.assert_allclose(np.array(measured) / theory, 1, atol=0.15)

caption = (
    "How to read it: the variance of q.k over 4000 random pairs, against the width of a head, both axes logarithmic. Without "
    "a root it grows like d_k; with the root of d_k it stays at 1; the root of d_model makes it 8 times too small."
)
figure = plot.curves({name: (widths, v) for name, v in variance.items()}, "d_k", "variance", caption,
                             levels={"1": 1.0}, xscale="log", yscale="log", markers=True)
print(plot.save(figure, figures / "attention_variance.png"))

# %%
# What a saturated softmax does to its gradient
# ---------------------------------------------
# Scores of variance d_k are far apart: one weight is almost 1, the others almost 0. The softmax backward multiplies with
# products of two weights, which are then all almost 0. Hardly any gradient reaches the scores, and a wrong choice is not
# unlearned. In the paper's heads of 64 a typical query (the median) has less than half of its gradient; in wider heads it dies
# out. The root of d_model errs on the other side: the weights are too even, every word looks at everything. There the gradient
# lives and the loss falls, so nothing tells you about the bug. Nor does a gradient check, where both passes have it: lesson 1,
# "How a check goes blind", runs that.

gradients = {"without a root": [], "sqrt(d_k)": [], "sqrt(d_model), 8 heads": []}
for d in widths:
    q, k = rng.normal(size=(500, 1, d)), rng.normal(size=(500, 32, d))                  # 500 queries, 32 keys each
    dweights = rng.normal(size=(500, 32))
    for (name, kept), divisor in zip(gradients.items(), (1, math.sqrt(d), math.sqrt(H * d)), strict=True):
        weights, cache = softmax_forward(np.vecdot(q, k) / divisor)
        kept.append(np.median(np.linalg.norm(softmax_backward(dweights, cache), axis=1)))
        print(f"d_k {d:4} {name:22} largest of 32 weights {weights.max(axis=1).mean():.2f}, gradient {kept[-1]:.4f}")
bare, scaled, flat = gradients.values()
assert 0.2 < bare[2] / scaled[2] < 0.5 and bare[4] < scaled[4] / 100
assert max(scaled) < 1.2 * min(scaled) and flat[4] > 0.5 * scaled[4]
assert weights.max(axis=1).mean() < 0.1                         # sqrt(d_model): 1/32 = 0.03 would be quite even

caption = (
    "How to read it: the length of dL/dscores of a typical query (the median of 500) for a random dL/dweights, 32 keys, both "
    "axes logarithmic. Without a root it dies out as heads become wider; with a root it does not depend on the width."
)
figure = plot.curves({name: (widths, v) for name, v in gradients.items()}, "d_k", "length of dL/dscores", caption,
                             xscale="log", yscale="log", markers=True)
print(plot.save(figure, figures / "attention_saturation.png"))

# %%
# Article A's ScaledDotProductAttention
# -------------------------------------
# It divides q by a ``temperature``, which its caller must set to the root of d_k; hides with ``masked_fill(mask == 0)``, by a
# large negative number; drops out weights (dropout is explained in lesson 3); and returns the output *and* ``attn``. Know
# three things when you compare. Its ``attn`` is the one after dropout, so its rows do not sum to 1; we keep the one before, to
# look at. Its mask is numbers; ours is boolean. And a query that may look at nothing has equal scores there, so it looks at
# everything; here it looks at nothing.


def article_a(q, k, v, temperature, mask, dropout, rng):
    scores = (q / temperature) @ k.swapaxes(-1, -2)
    scores = np.where(mask == 0, -1e9, scores)
    attn, _ = dropout_forward(softmax_forward(scores)[0], dropout, rng)
    return attn @ v, attn


q, k, v = (rng.normal(size=(2, 3, T, d)) for T, d in ((4, 7), (5, 7), (5, 6)))          # (B, H, T, d); Tq = 4, Tk = 5
mask = np.array([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 0, 1]])   # query 2 may look at nothing
output, attn = article_a(q, k, v, math.sqrt(7), mask, 0.3, np.random.default_rng(1))
y, cache = scaled_dot_product_attention_forward(q, k, v, mask != 0, dropout=0.3, rng=np.random.default_rng(1))
looks = [0, 1, 3]
np.testing.assert_allclose(output[:, :, looks], y[:, :, looks], atol=1e-12)
np.testing.assert_allclose(attn[:, :, looks], cache[4][:, :, looks], atol=1e-12)        # dropped, not weights
print("sums of rows: theirs", attn[0, 0].sum(axis=1).round(2), "ours, before dropout", cache.weights[0, 0].sum(axis=1).round(2))
assert not y[:, :, 2].any() and np.abs(output[:, :, 2]).min() > 0

# %%
# The backward
# ------------
# From dy, each line undoes one above. P are the weights, P' the dropped ones:
#
# .. math::
#
#    dV = P'^T dy \quad (5) \qquad dP' = dy\, V^T \quad (6) \qquad dP = dP' \cdot keep \quad (7)
#
#    dscores_{ij} = P_{ij} \Big( dP_{ij} - \sum_k dP_{ik} P_{ik} \Big) / \sqrt{d_k} \quad (8)
#    \qquad dQ = dscores\, K, \quad dK = dscores^T Q \quad (9)
#
# As a loop one sees the sums: a key and a value are used by every query, so gradients from all queries meet in them.


def attention_backward(dy, cache):
    q, k, v, weights, dropped, keep = cache
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    dweights = dropout_backward(dy @ v.swapaxes(-1, -2), keep)                          # (6), (7)
    for b, h, i in np.ndindex(q.shape[:3]):                     # every query
        p, dp = weights[b, h, i], dweights[b, h, i]
        dscores = p * (dp - dp @ p) / math.sqrt(q.shape[-1])    # (8)
        for j in range(k.shape[2]):                             # every key
            dv[b, h, j] += dropped[b, h, i, j] * dy[b, h, i]    # (5)
            dq[b, h, i] += dscores[j] * k[b, h, j]              # (9)
            dk[b, h, j] += dscores[j] * q[b, h, i]
    return dq, dk, dv


dy = rng.normal(size=y.shape)
for ours, packaged in zip(attention_backward(dy, cache), scaled_dot_product_attention_backward(dy, cache), strict=True):
    np.testing.assert_allclose(ours, packaged, atol=1e-12)

# %%
# Is it right? Ask the forward: all sizes different, the mask with its empty row, dropout on.

options = {"mask": mask != 0, "dropout": 0.3, "rng": 0}
pair = scaled_dot_product_attention_forward, scaled_dot_product_attention_backward
for name, backward in (("package", pair[1]), ("loop", attention_backward)):
    rows = gradcheck(pair[0], backward, q, k, v, **options)
    print(format_rows(name, rows))
    assert all(row.ok for row in rows)

# %%
# Break it: dV from the weights before dropout
# --------------------------------------------
# The weights are at hand under two names, and the wrong one is right as long as dropout is off. So a check without dropout is
# blind. This bug stands in published code.


def before_dropout(dy, cache):
    dq, dk, _ = scaled_dot_product_attention_backward(dy, cache)
    return dq, dk, cache.weights.swapaxes(-1, -2) @ dy


blind = gradcheck(pair[0], before_dropout, q, k, v, mask=mask != 0)
rows = gradcheck(pair[0], before_dropout, q, k, v, **options)
print(format_rows("with dropout", rows))
assert all(row.ok for row in blind)                             # dropout off: not seen
assert [row.ok for row in rows] == [True, True, False] and "right without dropout" in rows[2].diagnosis

# %%
# Break it: the diagonal of the softmax's Jacobian
# ------------------------------------------------
# p (1 - p) is the derivative of a sigmoid. A softmax is not one: to raise one weight lowers all others of its row. The loss may
# still fall with it: the cosine that is printed says that it points roughly the right way.


def diagonal(dy, cache):
    q, k, v, weights, dropped, keep = cache
    dweights = dropout_backward(dy @ v.swapaxes(-1, -2), keep)
    dscores = weights * (1 - weights) * dweights / math.sqrt(q.shape[-1])
    return dscores @ k, dscores.swapaxes(-1, -2) @ q, dropped.swapaxes(-1, -2) @ dy


rows = gradcheck(pair[0], diagonal, q, k, v, **options)
print(format_rows("diagonal only", rows))
assert [row.ok for row in rows] == [False, False, True]         # dV does not come through the softmax
p, cache = softmax_forward(rng.normal(size=(3, 5)))
(row,) = gradcheck(softmax_forward, lambda dp, cache: cache[0] * (1 - cache[0]) * dp, rng.normal(size=(3, 5)))
print(row.diagnosis)                                            # checked alone, the softmax is named
assert "diagonal of the softmax Jacobian" in row.diagnosis

# %%
# Attention beside its gradient
# -----------------------------
# Five words; the loss asks each to fetch the value of the word before it (the first, its own). Where dL/dscores is negative
# (blue), a step raises the score; where it is positive (red), a step lowers it. Each row sums to 0, for only differences
# between scores count. A score whose weight is near 0 gets hardly any gradient, even where it is far from right.

words, wanted = ["我", "有", "一", "只", "猫"], [0, 0, 1, 2, 3]
scores, values = rng.normal(size=(5, 5)), rng.normal(size=(5, 8))
target = values[wanted]


def loss_and_dscores(scores):
    weights, cache = softmax_forward(scores)
    error = weights @ values - target                           # loss = |error|^2 / 2, so its gradient is error
    return weights, (error * error).sum() / 2, softmax_backward(error @ values.T, cache)


before, loss, dscores = loss_and_dscores(scores)
np.testing.assert_allclose(dscores.sum(axis=1), 0, atol=1e-12)
assert (dscores[np.arange(5), wanted] < 0).all()                # the wanted score is to be raised, in every row
for _ in range(40):
    scores = scores - 0.5 * loss_and_dscores(scores)[2]
after, end, dscores_after = loss_and_dscores(scores)
print(f"loss {loss:.2f} -> {end:.2f} after 40 steps of gradient descent on the scores")
assert end < loss / 20 and np.abs(dscores_after).max() < 0.2 and (after.argmax(axis=1) == wanted).all()

# %%
# The two side by side, before and after.

caption = (
    "How to read it: rows are queries, columns keys. Left, attention; right, the gradient of the loss beside it: blue scores "
    "will be raised, red ones lowered. Below, the same 40 steps later: each word looks at the one before it, and little "
    "gradient is left."
)
top, names = float(np.ceil(np.abs(dscores).max())), {"down": words, "across": words}
panels = [
    plot.Panel("attention", before, **names),
    plot.Panel("dL/dscores", dscores, top, signed=True, **names),
    plot.Panel("attention, 40 steps later", after, **names),
    plot.Panel("dL/dscores, 40 steps later", dscores_after, top, signed=True, **names),
]
figure = plot.heatmaps(panels, "key (is looked at)", "query (looks)", caption, columns=2)
print(plot.save(figure, figures / "attention_gradient.png"))

# %%
# Exercises
# ---------
# 1. d_model = 512, 8 heads. Somebody divides by the root of d_model. What is the standard deviation of the scores at the start,
#    when entries of q and k have variance 1?
#
# 2. ``sigmoid_attention_forward`` has a sigmoid in the place of the softmax: weights need not sum to 1. Write its backward,
#    (dq, dk, dv).
#
# 3. One of the three projections could lose its bias without any change of the output, ever. Which one: "q", "k" or "v"?
#
# For a whole file to complete: ``python -m tinymae exercise attention``.

answer_1 = None
if answer_1 is not None:
    assert abs(answer_1 - math.sqrt(512 / 8) / math.sqrt(512)) < 0.005, "q.k has variance d_k, not 1: what is d_k here?"


def sigmoid_attention_forward(q, k, v):
    weights = 1 / (1 + np.exp(-(q @ k.swapaxes(-1, -2)) / math.sqrt(q.shape[-1])))
    return weights @ v, (q, k, v, weights)


answer_2 = None
if answer_2 is not None:
    rows = gradcheck(sigmoid_attention_forward, answer_2, q, k, v)
    assert all(row.ok for row in rows), f"here p (1 - p) is right: a weight knows only its own score\n{format_rows('', rows)}"

answer_3 = None
if answer_3 is not None:
    inputs, unmoved = {"q": q, "k": k, "v": v}, pair[0](q, k, v)[0]
    moved = {name: pair[0](**inputs | {name: inputs[name] + 1.0})[0] for name in inputs}        # a bias of 1 everywhere
    same = [name for name in inputs if np.allclose(moved[name], unmoved)]
    assert [answer_3] == same, "which bias adds the same number to all scores of a row?"

# %%
# In the articles
# ---------------
# - **A, part 2 (自注意力).** QK^T is the attention matrix, the similarity of every character with every other. Its class is
#   rebuilt above. The temperature is a parameter there: whoever passes the root of d_model has the bug of this lesson.
# - **B.** The formula; and the claim about Q^T K, which is a matter of rows or columns.
# - **C, section 3.** Q = X W_Q and so on; QK^T is n x n; softmax per row; Z_i is a weighted sum of V: "The same as matrices".
# - **D, the six steps.** From x of width 512 to q, k, v of width 64: "Six steps, word by word". The Illustrated Transformer,
#   which it follows, has scores of 112 and 96: far larger than those of random q and k of width 64, whose size is 8.
# - **E.** The query is x_i, keys and values are all x_j, and f is a weighted mean: "One output, as a loop".
# - **Vaswani et al., section 3.2.1**, footnote 4, has the argument about variance.
