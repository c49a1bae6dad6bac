"""
Scaled dot-product attention · 缩放点积注意力
=============================================

In 我有一只猫 the characters 一 and 猫 make 只 a measure word; alone it could mean "only".
A token must learn from the others. Attention lets each token take a weighted mean of
all tokens. Which weights, and why is a score divided by a square root?

You will be able to compute attention for three tokens by hand, to write it as a loop
and as matrices, and to say why the square root of d_k is there.

Time: 25 minutes to read, 2 seconds to run. Needs: lesson 3.

Read beside: Vaswani et al. 2017, equation 1; article A (MAE:Masked Autoencoders Are
Scalable Vision Learners), 2、自注意力层; article B (「解析」Attention 关键点); article C
(Transformer模型详解), 3.1 to 3.4; article D (笔记 | 深入理解Transformer), Self-Attention的细节;
article E (67 自注意力), 自注意力.
"""

# %%
# Three tokens of width 2, by hand
# --------------------------------
# The tokens are 我 = (1, 0), 有 = (0, 1) and 猫 = (1, 1). What does 我 receive? Take a
# pocket calculator:
#
# - Dot products of 我 with 我, 有, 猫: 1, 0, 1. These are the *scores*.
# - Divide by the square root of the dimension 2, 1.414: 0.71, 0, 0.71.
# - Take exp: 2.03, 1, 2.03. Their sum is 5.06.
# - Divide by the sum: 0.40, 0.20, 0.40. These are the *attention weights*.
# - The weighted mean of the tokens: 0.40 (1, 0) + 0.20 (0, 1) + 0.40 (1, 1) = (0.80,
#   0.60).
#
# So 我 has become a mixture, and it attends to 猫 as much as to itself.

import math
from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.ops.attention import scaled_dot_product_attention_forward
from tinymae.ops.softmax import softmax_forward

figures = Path("figures")
rng = np.random.default_rng(0)
tokens = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])                 # 我 有 猫
by_hand = 0.40 * tokens[0] + 0.20 * tokens[1] + 0.40 * tokens[2]        # (0.80, 0.60)

# %%
# One output, as a loop
# ---------------------
# Article E writes it as :math:`y_i = f(x_i, (x_1, x_1), \ldots, (x_n, x_n))`: a *query*
# :math:`x_i`, and n pairs of a *key* and a *value*. The query is compared with each
# key; the values are averaged. Here all three are the token itself.


def f(query, pairs):
    exps = [math.exp(query @ key / math.sqrt(len(query))) for key, _ in pairs]
    weights = [e / sum(exps) for e in exps]
    y = np.zeros(len(pairs[0][1]))
    for weight, (_, value) in zip(weights, pairs, strict=True):
        y += weight * value
    return y, weights


pairs = [(token, token) for token in tokens]
y, weights = np.zeros((3, 2)), np.zeros((3, 3))
for i in range(3):
    y[i], weights[i] = f(tokens[i], pairs)
np.testing.assert_allclose(y[0], by_hand, atol=0.01)
x = tokens[None, None]                          # (B, H, T, d) = (1, 1, 3, 2)
packaged, _ = scaled_dot_product_attention_forward(x, x, x)
np.testing.assert_allclose(y, packaged[0, 0], atol=1e-12)

scores = plot.Panel("dot products", tokens @ tokens.T, top=2.0)
panels = [scores, plot.Panel("attention weights", weights)]
caption = "How to read it: a row is the query of one token; its weights sum to 1."
figure = plot.heatmaps(panels, "key", "query", caption, columns=2)
print(plot.save(figure, figures / "attention_by_hand.png"))

# %%
# Six steps, token by token
# -------------------------
# Above, one vector is query, key and value. But what a token looks for is not what it
# offers. So article D makes three vectors of 64 numbers from each x of 512, with three
# trained matrices: a query, a key, a value. 8 is the square root of 64. (The paper has
# 8 heads, too: a coincidence.)

x = rng.normal(size=(2, 512))                   # two tokens
w_q, w_k, w_v = rng.normal(size=(3, 512, 64)) / math.sqrt(512)
z = np.zeros((2, 64))
for i in range(2):
    q = x[i] @ w_q                              # step 1: q of this token,
    k = [x[0] @ w_k, x[1] @ w_k]                #         k and v of all tokens
    v = [x[0] @ w_v, x[1] @ w_v]
    scores = [q @ k[0], q @ k[1]]               # step 2: q1·k1, q1·k2
    scores = [scores[0] / 8, scores[1] / 8]     # step 3: divide by 8
    exps = [math.exp(score) for score in scores]
    a = [exps[0] / sum(exps), exps[1] / sum(exps)]      # step 4: softmax
    weighted = [a[0] * v[0], a[1] * v[1]]       # step 5: weigh the values
    z[i] = weighted[0] + weighted[1]            # step 6: add them up
    print(f"token {i + 1}: scores {np.round(scores, 2)}, weights {np.round(a, 2)}")

# %%
# The same as matrices
# --------------------
# All tokens at once. A row is a token in every matrix (article C: X, Q, K, V). Row i of
# the scores belongs to query i, and the softmax runs along each row.
#
# .. math::
#
#    scores = Q K^T / \sqrt{d_k} \quad (1) \qquad weights = softmax(scores) \quad (2)
#
#    y = weights\, V \quad (4)
#
# The numbers are the package's; its (3) is dropout on the weights (lesson 8). Article A
# calls the result of (1) 注意力矩阵. It is n x n.

Q, K, V = x @ w_q, x @ w_k, x @ w_v             # (2, 64) each
scores = Q @ K.T / math.sqrt(64)                # (1)  (2, 2)
weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)    # (2)
np.testing.assert_allclose(weights @ V, z, atol=1e-12)                  # (4)  (2, 64)
four_axes = [array[None, None] for array in (Q, K, V)]                  # (1, 1, 2, 64)
packaged, cache = scaled_dot_product_attention_forward(*four_axes)
np.testing.assert_allclose(packaged[0, 0], z, atol=1e-12)
np.testing.assert_allclose(cache.weights[0, 0], weights, atol=1e-12)

# %%
# Q K^T, K Q^T, Q^T K
# -------------------
# Article B: K^T Q and Q^T K are the same (一样). They are transposes of each other. But a
# softmax runs along rows, and the rows of one are the columns of the other, so the
# weights differ. And with tokens in rows, as in B, both are (d, d): features against
# features, summed over all tokens: shuffle the tokens, and Q^T K is the same. Attention
# needs a weight for each two tokens: the (T, T) matrix with queries as rows, Q K^T.

Q, K = rng.normal(size=(2, 20, 8))              # (T, d) each
for one, two in ((K.T @ Q, Q.T @ K), (K @ Q.T, Q @ K.T)):
    np.testing.assert_allclose(one, two.T, atol=1e-12)                  # transposes
    difference = np.abs(softmax_forward(one)[0] - softmax_forward(two)[0].T).max()
    print(one.shape, f"the row softmaxes differ by up to {difference:.2f}")
    assert difference > 0.3                     # and these are not
shuffle = rng.permutation(20)
np.testing.assert_allclose(Q[shuffle].T @ K[shuffle], Q.T @ K, atol=1e-12)

# %%
# A larger dot product is not simply closer
# -----------------------------------------
# Article A: 点积值越大，说明两个向量越接近. A dot product is a cosine times both lengths: if the
# cosine is positive, it grows with the length of the key. Here (5, 5) gets a larger
# score than (1, 0.1), but its distance and its angle to the query are larger, too. And
# a score is not symmetric as a distance is, because q and k come from different
# matrices.

q = np.array([1.0, 0.0])
keys = np.array([[1.0, 0.1], [5.0, 5.0]])       # near and far
products = keys @ q
distances = np.linalg.norm(keys - q, axis=1)
cosines = products / np.linalg.norm(keys, axis=1)                       # |q| is 1
print("q·k", products, "distance", distances.round(2), "cosine", cosines.round(2))
assert products[1] > products[0] and distances[1] > distances[0]
assert cosines[1] < cosines[0]
assert np.abs(Q @ K.T - K @ Q.T).max() > 0.5    # i for j, j for i: Q, K from above

# %%
# Why a square root of d_k
# ------------------------
# If the entries of q and k have mean 0 and variance 1, q·k is a sum of d_k products of
# variance 1: its variance is d_k. Divided by the square root of d_k it is 1 at every
# width. d_k is the width of *one head*. With d_model = 8 d_k instead, the variance is 8
# times too small.

widths = [4, 16, 64, 256, 1024]
names = "q·k", "q·k / sqrt(d_k)", "q·k / sqrt(d_model), 8 heads"
variance = {name: [] for name in names}
for d in widths:
    q, k = rng.normal(size=(2, 4000, d))
    products = (q * k).sum(axis=1)              # 4000 times q·k
    for name, divisor in zip(names, (1, math.sqrt(d), math.sqrt(8 * d)), strict=True):
        variance[name].append((products / divisor).var())
for name, expected in zip(names, (np.array(widths), 1, 1 / 8), strict=True):
    print(f"{name:30}", np.round(variance[name], 2))
    np.testing.assert_allclose(np.array(variance[name]) / expected, 1, atol=0.15)

caption = "How to read it: only the orange line is at 1 for every d_k (log axes)."
figure = plot.curves({name: (widths, variance[name]) for name in names}, "d_k",
                     "variance", caption, xscale="log", yscale="log", markers=True)
print(plot.save(figure, figures / "attention_variance.png"))

# %%
# Break it: no square root
# ------------------------
# Leave it out: the softmax saturates. One of 32 weights is almost 1, and a small change
# of the scores hardly changes any weight: the gradient of the scores is almost 0. So
# article A's 防止梯度过大 (against gradients that are too *large*) is the wrong way round: at
# the scores, the square root keeps them from becoming too *small*. Article C's 防止内积过大
# is right: the dot products are too large. With the square root of d_model the weights
# are too even instead. Neither mistake raises an error.

q, k = rng.normal(size=(500, 1, 1024)), rng.normal(size=(500, 32, 1024))
products = (q * k).sum(axis=2)                  # 500 queries, 32 keys
nudge = 0.01 * rng.normal(size=(500, 32))
moved = {}
for name, divisor in (("no root", 1), ("d_k", 32), ("d_model", math.sqrt(8192))):
    before, _ = softmax_forward(products / divisor)
    after, _ = softmax_forward(products / divisor + nudge)
    largest = before.max(axis=1).mean()
    moved[name] = np.median(np.abs(after - before).sum(axis=1))
    print(f"{name:8} largest of 32 weights {largest:.2f}, moved by {moved[name]:.1e}")
    assert (largest > 0.9) == (name == "no root")
    assert (largest < 0.1) == (name == "d_model")
assert moved["no root"] < moved["d_k"] / 100 and moved["d_model"] > moved["d_k"] / 2

# %%
# Exercises
# ---------
# 1. In the first cell, what does 猫 = (1, 1) receive? Compute by hand, to two decimals:
#    ``answer_1 = (..., ...)``.
#
# 2. d_model = 512, 8 heads, and someone divides by the square root of d_model. What is
#    the standard deviation of the scores, if entries of q and k have variance 1?
#
# 3. One of the three projections may lose its bias without any change of the output,
#    ever. Which one: "q", "k" or "v"?

answer_1 = None
if answer_1 is not None:
    assert np.allclose(answer_1, y[2], atol=0.01), "the scores are 1, 1 and 2"

answer_2 = None
if answer_2 is not None:
    assert abs(answer_2 - math.sqrt(64 / 512)) < 0.005, "the variance of q·k is d_k"

answer_3 = None
if answer_3 is not None:
    inputs = {name: rng.normal(size=(1, 1, 5, 4)) for name in "qkv"}
    plain, _ = scaled_dot_product_attention_forward(**inputs)
    with_bias = inputs | {answer_3: inputs[answer_3] + 1.0}
    biased, _ = scaled_dot_product_attention_forward(**with_bias)
    assert np.allclose(biased, plain), "which bias adds one number to a whole row?"

# %%
# In the articles
# ---------------
# - **A.** "越接近" (closer): a larger score can also come from a longer key. 防止梯度过大, in
#   its code: the square root prevents gradients that are too small ("Break it").
# - **B.** "一样": transposes, whose softmaxes differ ("Q K^T, K Q^T, Q^T K"). And Q and K
#   are projections: laid out, they do not show the picture (复现 “原图”).
# - **C, 3.1 to 3.4.** Right: QK^T is n x n, one softmax per row (in its 3.3), Z_i a
#   weighted sum of the V_j: "The same as matrices". In 6, 通过输出 should be the input.
# - **D** is "Six steps, token by token"; its 自监督 (self-supervised) should be 自注意力.
#   **E** is "One output, as a loop".
