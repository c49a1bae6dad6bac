"""
Multi-head attention · 多头注意力
=================================

One softmax gives one weighted mean. But "sat" in "the cat sat on the mat" has two
questions: who sat, and where? So several heads attend side by side, each with its own
small queries, keys and values. Most bugs are in the reshaping.

You will be able to write multi-head attention and its backward pass, and to explain
why the code reshapes first and transposes afterwards.

Time: 25 minutes to read, 3 seconds to run. Needs: lessons 7 and 8.

Read beside: Vaswani et al. 2017, section 3.2.2; article A (MAE:Masked Autoencoders Are
Scalable Vision Learners), code; article B (「解析」Attention 关键点); article C
(Transformer模型详解), 3.4; article D (笔记 | 深入理解Transformer), Multi-headed 完善.
"""

# %%
# One softmax, two questions
# --------------------------
# Three tokens of 2 numbers are their own queries, keys and values. Token 2 has two
# questions: token 0 answers in column 0, and token 1 answers in column 1. One head adds
# the columns up, so both answers get the same weight. Two heads see one column each. By
# hand: the scores of head 0 are 4, 0, 1; exp(4) = 54.6 of a sum of 58.3 is 0.94.

from pathlib import Path

import numpy as np

from tinymae import init, plot, tree
from tinymae.blocks import multi_head_attention_forward
from tinymae.gradcheck import gradcheck
from tinymae.ops.attention import (
    scaled_dot_product_attention_backward,
    scaled_dot_product_attention_forward,
)
from tinymae.ops.softmax import softmax_forward

x = np.array([[4.0, 0.0], [0.0, 4.0], [1.0, 1.0]])
one_head, _ = softmax_forward(x @ x.T / 2**0.5)                 # (3, 3)
head_0, _ = softmax_forward(x[:, :1] @ x[:, :1].T)              # (3, 3), width 1
head_1, _ = softmax_forward(x[:, 1:] @ x[:, 1:].T)
assert one_head[2].round(2).tolist() == [0.45, 0.45, 0.11]
assert head_0[2].round(2).tolist() == [0.94, 0.02, 0.05]
maps = {"one head of width 2": one_head, "head 0": head_0, "head 1": head_1}
panels = [plot.Panel(title, weights) for title, weights in maps.items()]
caption = "How to read it: in row 2, one head weighs 0 and 1 the same, two choose."
figure = plot.heatmaps(panels, "key", "query", caption)
print(plot.save(figure, Path("figures") / "multi_head_two_questions.png"))

# %%
# As a loop: concat and Linear is a sum over heads
# ------------------------------------------------
# In the paper and in article D, x is 512 wide, and each of 8 heads has its own matrices
# (512, 64). The results side by side ("concat") are 512 wide again, and W_O mixes them.
# Head h meets only its own 64 rows of W_O, so y is a sum over heads, in any order.
# Article D calls heads 时间点 and 时间戳, points in time; but those have an order.

rng = np.random.default_rng(0)
T, D, H, d = 5, 512, 8, 64
x = rng.normal(size=(T, D))
small = {name: rng.normal(size=(H, D, d)) / D**0.5 for name in "qkv"}
w_out = rng.normal(size=(H * d, D)) / D**0.5
z = []
for h in range(H):
    q, k, v = [x @ small[name][h] for name in "qkv"]            # (T, d) each
    weights, _ = softmax_forward(q @ k.T / d**0.5)              # (T, T)
    z.append(weights @ v)                                       # (T, d)
y = np.concatenate(z, axis=1) @ w_out                           # (T, H d) -> (T, D)
parts = [z[h] @ w_out[h * d : (h + 1) * d] for h in (3, 1, 4, 0, 5, 7, 2, 6)]
np.testing.assert_allclose(sum(parts), y, atol=1e-12)

# %%
# Do heads split d, or multiply it?
# ---------------------------------
# Article C sends X into 8 attentions. A comment below it says that the product of X and
# W_Q is split (拆分); article B multiplies first (扩增). All three are one model: the 8
# small matrices side by side are one matrix, and its product with x is the 8 small
# products side by side. To split x itself, or to make heads 512 wide, is not.

p = {name: {"w": np.concatenate(list(small[name]), axis=1)} for name in "qkv"}
p["out"] = {"w": w_out}
np.testing.assert_allclose((x @ p["q"]["w"])[:, :d], x @ small["q"][0], atol=1e-12)
assert not np.allclose(x[:, :d] @ small["q"][0][:d], x @ small["q"][0], atol=0.1)
wide = init.multi_head_attention(D, H, None, d_k=D, d_v=D, bias=False)
assert tree.count(wide) == H * tree.count(p) == H * 4 * D * D

# %%
# Reshape, then transpose
# -----------------------
# Article B cuts with ``'b n (h d) -> b h n d'``: the last axis is made of h blocks of d
# columns. Name them as an axis of their own (reshape), and move that axis to the front
# (transpose). Below, 23 is token 2, column 3. Head 0 must get columns 0 and 1 of all
# tokens. A reshape alone moves no number in memory, and token 0 comes first there.


def split_heads(x, heads):
    B, T, width = x.shape
    x = x.reshape(B, T, heads, width // heads)                  # (B, T, H, d)
    return x.swapaxes(1, 2)                                     # (B, H, T, d)


def merge_heads(z):
    B, H, T, d = z.shape
    return z.swapaxes(1, 2).reshape(B, T, H * d)                # 'b h n d -> b n (h d)'


numbered = 10 * np.arange(4)[:, None] + np.arange(4)            # (T, D) = (4, 4)
right, wrong = split_heads(numbered[None], 2)[0], numbered.reshape(2, 4, 2)
print("x", numbered, "head 0, right", right[0], "head 0, wrong", wrong[0], sep="\n")
np.testing.assert_array_equal(right[0], numbered[:, :2])

# %%
# Article B's Attention
# ---------------------
# ``to_qkv`` is the three big matrices as one, and ``chunk`` cuts its product in three.
# (``project_out`` leaves W_O out where one head is as wide as the input.) The string
# ``'b h i d, b h j d -> b h i j'`` sums over d, the letter that is missing after the
# arrow, for each image b, head h, query i, key j. B's input is [7, 257, 512]; ours 2.

images = rng.normal(size=(2, 257, 512)).astype(np.float32)
fused = init.multi_head_attention(512, 8, rng, fused=True, bias=False)
chunks = np.split(images @ fused["qkv"]["w"], 3, axis=-1)       # (2, 257, 512) each
q, k, v = [split_heads(chunk, 8) for chunk in chunks]           # (2, 8, 257, 64) each
dots = np.einsum("b h i d, b h j d -> b h i j", q, k)           # (2, 8, 257, 257)
weights, _ = softmax_forward(dots * 64**-0.5)
out = merge_heads(weights @ v) @ fused["out"]["w"]              # (2, 257, 512)
packaged, _ = multi_head_attention_forward(images, images, fused, 8)
np.testing.assert_allclose(out, packaged, atol=1e-4)

# %%
# The backward
# ------------
# .. math::
#
#    q = x W_Q, \ldots \; (1) \quad z_h = attention(q_h, k_h, v_h) \; (2) \quad
#    y = z W_O \; (3) \quad dz = dy\, W_O^T, \; dW_O = z^T dy \; (4)
#
#    dq_h, dk_h, dv_h = attention'(dz_h) \; (5) \quad dW_Q = x^T dq, \ldots \; (6) \quad
#    dx = dq\, W_Q^T + dk\, W_K^T + dv\, W_V^T \; (7)
#
# In (5), attention' is the backward pass of lesson 8, in each head. x is used three
# times, so (7) has three terms. Split and merge only move numbers, and each undoes the
# other, so each is the backward pass of the other.


def forward(x, p, heads, split=split_heads, merge=merge_heads):
    q, k, v = [split(x @ p[name]["w"], heads) for name in "qkv"]        # (1)
    z, attention = scaled_dot_product_attention_forward(q, k, v)        # (2)
    z = merge(z)                                                # (B, T, H d)
    return z @ p["out"]["w"], (x, p, z, attention, split, merge)        # (3)


def backward(dy, cache):
    x, p, z, attention, split, merge = cache
    dz = split(dy @ p["out"]["w"].T, attention.q.shape[1])              # (4)
    dx, dp = np.zeros_like(x), {"out": {"w": np.einsum("bti,bto->io", z, dy)}}
    gradients = scaled_dot_product_attention_backward(dz, attention)    # (5)
    for name, gradient in zip("qkv", gradients, strict=True):
        gradient = merge(gradient)                              # (B, T, H d)
        dp[name] = {"w": np.einsum("bti,bto->io", x, gradient)}         # (6)
        dx += gradient @ p[name]["w"].T                                 # (7)
    return dx, dp


np.testing.assert_allclose(forward(x[None], p, H)[0][0], y, atol=1e-12)
x = rng.normal(size=(2, 8, 6))                                  # B = 2, T = 8, D = 6
tiny = init.multi_head_attention(6, 2, rng, bias=False, dtype=np.float64)
assert all(row.ok for row in gradcheck(forward, backward, x, tiny, heads=2))

# %%
# Are W_q, W_k, W_v random at first?
# ----------------------------------
# A reader of article C asks. Yes. Heads that start equal receive equal gradients, and
# stay equal: two such heads are one.

twin = {name: {"w": np.tile(tiny[name]["w"][:, :3], 2)} for name in "qkv"}
twin["out"] = {"w": np.tile(tiny["out"]["w"][:3], (2, 1))}
for start, stays_one in ((tiny, False), (twin, True)):
    y, cache = forward(x, start, 2)
    dw = backward(x, cache)[1]["q"]["w"]                        # dy = x, any will do
    assert np.allclose(dw[:, :3], dw[:, 3:], rtol=1e-9) == stays_one

# %%
# Break it: reshape alone
# -----------------------
# All shapes fit, and the gradient check is blind: the backward pass fits this forward.
# But in attention over tokens, token 7 changes all 8 outputs. Here it changes only 4.


def reshape_alone(x, heads):
    return x.reshape(len(x), heads, x.shape[1], -1)             # (B, H, T, d)


def merge_alone(z):
    return z.reshape(len(z), z.shape[2], -1)                    # (B, T, H d)


wrong = {"heads": 2, "split": reshape_alone, "merge": merge_alone}
assert all(row.ok for row in gradcheck(forward, backward, x, tiny, **wrong))
other = x + (np.arange(8) == 7)[:, None]                        # token 7 is different
for options, count in (({"heads": 2}, 8), (wrong, 4)):
    change = forward(other, tiny, **options)[0] - forward(x, tiny, **options)[0]
    reached = np.abs(change).max(axis=(0, 2)) > 1e-9            # (8,)
    print("token 7 reaches", np.flatnonzero(reached))
    assert reached.sum() == count

# %%
# Article A's MultiHeadAttention
# ------------------------------
# The listing does not run: ``sz_b`` and ``len_q`` (``len_k``, ``len_v``) are never
# assigned; ``n_head``, ``d_k``, ``d_v`` lack their ``self.``. And ``dropout`` does not
# reach the attention weights: theirs stays at 0.1. Residual and norm are in lesson 12.

x = rng.normal(size=(2, 100, 512))
sz_b, len_q, n_head, d_k = 2, 100, 8, 64                        # what the listing lacks
w_qs, w_ks, w_vs, fc = [p[name]["w"] for name in ("q", "k", "v", "out")]
cut = [(x @ w).reshape(sz_b, len_q, n_head, d_k) for w in (w_qs, w_ks, w_vs)]
q, k, v = [part.swapaxes(1, 2) for part in cut]     # (b, 100, 8, 64) -> (b, 8, 100, 64)
z, _ = scaled_dot_product_attention_forward(q, k, v)
stuck, _ = scaled_dot_product_attention_forward(q, k, v, dropout=0.1, rng=rng)
assert z.shape == (2, 8, 100, 64) and not np.allclose(z, stuck)
packaged, _ = multi_head_attention_forward(x, x, p, 8)          # (b, 100, 512)
np.testing.assert_allclose(merge_heads(z) @ fc, packaged, atol=1e-12)

# %%
# Exercises
# ---------
# 1. D = 512, no biases, W_O included. How many parameters do 16 heads of 32 have?
# 2. *Multi-query attention* (Shazeer 2019): all heads share one k and one v. So k is
#    repeated, (B, T, d) -> (B, H, T, d). Write the backward pass, ``answer_2(dy)``.
#
# Whole files: ``python -m tinymae exercise split_heads``, ``multi_head_attention``.

answer_1 = None
if answer_1 is not None:
    assert answer_1 == tree.count(p), "as many as 8 heads of 64 have"

answer_2 = None
if answer_2 is not None:
    dy = rng.normal(size=(2, 3, 5, 4))                          # H = 3
    assert np.allclose(answer_2(dy), dy[:, 0] + dy[:, 1] + dy[:, 2]), "used 3 times"

# %%
# In the articles
# ---------------
# - **A**: names never assigned, dropout stuck: "Article A's MultiHeadAttention".
# - **B**: "patch 的尺度", 512, is the width of the embedding, not a patch's (lesson 28).
# - **C, comments**: one matrix or 8 is one model: "Do heads split d, or multiply it?".
# - **D**: "8个时间点" are heads: "As a loop: concat and Linear is a sum over heads".
