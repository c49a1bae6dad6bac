"""
Multi-head attention · 多头注意力
=================================

One softmax gives one weighted mean. But a word wants to know several things at once: who did it, to whom, which word stands
before it. So attention runs h times side by side, each head with its own small queries, keys and values, and the answers are
put together. The mathematics is short; most bugs are in the reshaping.

Read beside: Vaswani et al. 2017, section 3.2.2; articles A (code), B (code), C (section 3), D (multi-head).
"""

# %%
# As a loop over heads
# --------------------
# The sizes of the paper and of article D: x is 512 wide, and each of 8 heads has its own matrices (512, 64). A head is the
# attention of lesson 4. The 8 results side by side are 512 wide again ("concat"), and one more matrix, W_O, mixes them.

import math
import timeit
from pathlib import Path

import numpy as np

from tinymae import init, plot, tree
from tinymae.blocks import attention_weights, multi_head_attention_backward, multi_head_attention_forward
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.dropout import dropout_backward, dropout_forward
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.positional import sinusoidal_interleaved
from tinymae.ops.softmax import softmax_forward

figures = Path("figures")
rng = np.random.default_rng(0)
T, D, H, d = 5, 512, 8, 64
x = rng.normal(size=(T, D))
small = {name: [rng.normal(size=(D, d)) / math.sqrt(D) for _ in range(H)] for name in "qkv"}
w_out = rng.normal(size=(H * d, D)) / math.sqrt(D)

z = []
for h in range(H):
    q, k, v = (x @ small[name][h] for name in "qkv")            # (T, d) each
    weights, _ = softmax_forward(q @ k.T / math.sqrt(d))        # (T, T)
    z.append(weights @ v)                                       # (T, d)
y = np.concatenate(z, axis=1) @ w_out                           # (T, H d) -> (T, D)

# %%
# One big matrix, or h small ones?
# --------------------------------
# Both give the same numbers. Put the 8 small matrices side by side: x times the big one is the 8 small products side by side,
# since the columns of a product do not know each other. What differs is the time, which is printed.

p = {name: {"w": np.concatenate(small[name], axis=1)} for name in "qkv"} | {"out": {"w": w_out}}
packaged, cache = multi_head_attention_forward(x[None], x[None], p, H)
np.testing.assert_allclose(packaged[0], y, atol=1e-12)

many = rng.normal(size=(1000, D))
apart = timeit.timeit(lambda: [many @ w for w in small["q"]], number=5) / 5
once = timeit.timeit(lambda: many @ p["q"]["w"], number=5) / 5
print(f"1000 words: 8 products {1000 * apart:.1f} ms, one product {1000 * once:.1f} ms")

# %%
# Why reshape, then transpose, and not reshape directly?
# ------------------------------------------------------
# In the array below, 23 is word 2, column 3. Head h must get columns h d to (h + 1) d of *every* word. But a reshape moves no
# number in memory, where all columns of word 0 come first, then all of word 1. So ``reshape(H, T, d)`` gives head 0 the first
# words, whole, and head 1 the others. First name the axes as they lie in memory, (T, H, d), then swap two of them.

numbered = 10 * np.arange(4)[:, None] + np.arange(4)            # (T, D) = (4, 4), two heads
right = numbered.reshape(4, 2, 2).swapaxes(0, 1)                # (T, H, d) -> (H, T, d)
wrong = numbered.reshape(2, 4, 2)
print("x", numbered, "head 0, right", right[0], "head 0, wrong: words 0 and 1 only", wrong[0], sep="\n")
np.testing.assert_array_equal(right[0], numbered[:, :2])
np.testing.assert_array_equal(wrong[0].reshape(2, 4), numbered[:2])

# %%
# Do heads split d, or multiply it?
# ---------------------------------
# The argument under article C. Both views are right: each head projects the whole x (512) to 64, and 8 heads make 8 times 64;
# the code projects 512 to 512, and splits that. The numbers are the same, as asserted above. Two other readings are other
# models:
#
# - split x itself, and let head h see only its 64 columns of x: fewer parameters, and other numbers;
# - let every head be 512 wide: 8 times the parameters and the work. (Allowed, and ``d_k`` in article A's code can do it.)

x_split = [x[:, h * d : (h + 1) * d] @ p["q"]["w"][h * d : (h + 1) * d, h * d : (h + 1) * d] for h in range(H)]
assert not np.allclose(np.concatenate(x_split, axis=1), x @ p["q"]["w"], atol=0.1)
count = {
    "8 heads of 64": tree.count(p),
    "x split before": 3 * H * d * d + D * D,
    "8 heads of 512": tree.count(init.multi_head_attention(D, H, None, d_k=D, d_v=D, bias=False)),
}
print(count)
assert count["8 heads of 64"] == 4 * D * D and count["8 heads of 512"] == H * count["8 heads of 64"]

# %%
# Concat and Linear is a sum over heads
# -------------------------------------
# Heads side by side, times W_O, is the sum of z_h W_h, where W_h are the 64 rows of W_O that head h meets. So each head adds
# its own part to y, without the others, and the order of heads means nothing.

y_sum = sum(z[h] @ w_out[h * d : (h + 1) * d] for h in range(H))
np.testing.assert_allclose(y_sum, y, atol=1e-12)
order = np.concatenate([np.arange(h * d, (h + 1) * d) for h in (3, 1, 4, 0, 5, 7, 2, 6)])
shuffled = {name: {"w": p[name]["w"][:, order]} for name in "qkv"} | {"out": {"w": w_out[order]}}
np.testing.assert_allclose(multi_head_attention_forward(x[None], x[None], shuffled, H)[0], packaged, atol=1e-12)

# %%
# The backward
# ------------
# Forward, for head h, with xq asking and xkv answering:
#
# .. math::
#
#    q_h = x_q W^Q_h, \quad k_h = x_{kv} W^K_h, \quad v_h = x_{kv} W^V_h \quad (1) \qquad
#    z_h = attention(q_h, k_h, v_h) \quad (2) \qquad y = \sum_h z_h W_h \quad (3)
#
# Backward, each line undoing one above:
#
# .. math::
#
#    dz_h = dy\, W_h^T, \quad dW_h = z_h^T dy \quad (4) \qquad dq_h, dk_h, dv_h: \text{lesson 4} \quad (5)
#
#    dx_q = \sum_h dq_h W^{Q\,T}_h, \qquad dx_{kv} = \sum_h dk_h W^{K\,T}_h + dv_h W^{V\,T}_h \quad (6)
#
# In self-attention xq and xkv are one x, which went three ways: dx = dxq + dxkv (7).


def self_attention_backward(dy, x, p, heads):
    dx, dp, d = np.zeros_like(x), tree.map(np.zeros_like, p), p["q"]["w"].shape[1] // heads
    for h in range(heads):
        cols = slice(h * d, (h + 1) * d)
        qkv = [(x @ p[name]["w"][:, cols])[None, None] for name in "qkv"]               # (1)
        z, cache = scaled_dot_product_attention_forward(*qkv)                           # (2)
        dz = dy @ p["out"]["w"][cols].T                                                 # (4)
        dp["out"]["w"][cols] = z[0, 0].T @ dy
        dqkv = scaled_dot_product_attention_backward(dz[None, None], cache)             # (5)
        for name, gradient in zip("qkv", dqkv, strict=True):
            dx += gradient[0, 0] @ p[name]["w"][:, cols].T                              # (6), (7)
            dp[name]["w"][:, cols] = x.T @ gradient[0, 0]
    return dx, dp


dy = rng.normal(size=y.shape)
dx, dp = self_attention_backward(dy, x, p, H)
dxq, dxkv, packaged_dp = multi_head_attention_backward(dy[None], cache)
np.testing.assert_allclose(dx, (dxq + dxkv)[0], atol=1e-10)     # (7)
tree.map(lambda ours, packaged: np.testing.assert_allclose(ours, packaged, atol=1e-10), dp, packaged_dp)

# %%
# Is it right? All sizes different, cross-attention, a mask, dropout, d_k other than d_v.

xq, xkv = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 5, 6))                        # B = 2, Tq = 4, Tk = 5, D = 6
p = init.multi_head_attention(6, 3, rng, d_k=7, d_v=8, bias=False, dtype=np.float64)    # H = 3
mask = rng.random((2, 1, 4, 5)) < 0.7
pair = multi_head_attention_forward, multi_head_attention_backward
rows = gradcheck(*pair, xq, xkv, p, heads=3, mask=mask, dropout=0.2, rng=0)
print(format_rows("multi-head attention", rows))
assert all(row.ok for row in rows)

# %%
# Break it: one of the two gradients
# ----------------------------------
# In self-attention a backward that returns dxq alone looks finished: it has the right shape. The block's own check, with xq and
# xkv apart, passes; it is the *sum* at the place of use that was forgotten. Check that place too.


def self_attention_forward(x, p, heads):
    return multi_head_attention_forward(x, x, p, heads)


def forgetful_backward(dy, cache):
    dxq, _, dp = multi_head_attention_backward(dy, cache)
    return dxq, dp                                              # should be dxq + dxkv


rows = gradcheck(self_attention_forward, forgetful_backward, xq, p, heads=3)
print(format_rows("dxq alone", rows[:2]))
assert not rows[0].ok and all(row.ok for row in rows[1:])


def self_attention_gradient(dy, cache):
    dxq, dxkv, dp = multi_head_attention_backward(dy, cache)
    return dxq + dxkv, dp


assert all(row.ok for row in gradcheck(self_attention_forward, self_attention_gradient, xq, p, heads=3))

# %%
# Break it: reshape directly
# --------------------------
# Cut and joined by reshape alone, in both passes. The shapes fit and the gradient check is blind: the backward is the true
# derivative of this function, which only is not attention over words.


def reshaped_forward(x, p, heads):
    B, T, D = x.shape
    projected = [linear_forward(x, **p[name]) for name in "qkv"]
    z, attention = scaled_dot_product_attention_forward(*[y.reshape(B, heads, T, D // heads) for y, _ in projected])
    y, out = linear_forward(z.reshape(B, T, D), **p["out"])
    return y, ([cache for _, cache in projected], attention, out)


def reshaped_backward(dy, cache):
    projected, attention, out = cache
    dz, dw, _ = linear_backward(dy, out)
    dqkv = scaled_dot_product_attention_backward(dz.reshape(attention.q.shape), attention)
    dx, dp = np.zeros_like(dz), {"out": {"w": dw}}
    for name, gradient, linear in zip("qkv", dqkv, projected, strict=True):
        dpart, dw, _ = linear_backward(gradient.reshape(dz.shape), linear)
        dx, dp[name] = dx + dpart, {"w": dw}
    return dx, dp


x, p = rng.normal(size=(2, 8, 6)), init.multi_head_attention(6, 2, rng, bias=False, dtype=np.float64)
rows = gradcheck(reshaped_forward, reshaped_backward, x, p, heads=2)
assert all(row.ok for row in rows)                              # blind

# %%
# What sees it? Lesson 3: without positions, permuted words must give permuted outputs. And the backward shows who has looked
# at whom: send dy into one word's output only, and dx is zero at the words that it cannot see. With two heads, words 0 to 3
# never meet words 4 to 7.


def moves_along(forward):
    shuffle = np.random.default_rng(1).permutation(8)
    return np.allclose(forward(x[:, shuffle], p, 2)[0], forward(x, p, 2)[0][:, shuffle])


def reach(forward, backward):
    y, cache = forward(x, p, 2)
    maps = []
    for word in range(8):
        dy = np.zeros_like(y)
        dy[:, word] = 1
        maps.append(np.linalg.norm(backward(dy, cache)[0][0], axis=1))                  # a number for each word of sentence 0
    return np.array(maps)


assert moves_along(self_attention_forward) and not moves_along(reshaped_forward)
good, bad = reach(self_attention_forward, self_attention_gradient), reach(reshaped_forward, reshaped_backward)
assert good.min() > 0 and not bad[:4, 4:].any() and not bad[4:, :4].any()
caption = (
    "How to read it: row i, column j says how strongly the output of word i depends on the input of word j. Left, every word "
    "reaches every word. Right, heads cut by reshape alone: two blocks that never meet, and no gradient check complains."
)
top = float(np.ceil(max(good.max(), bad.max())))
panels = [plot.Panel("reshape, then swap", good, top), plot.Panel("reshape alone", bad, top)]
print(plot.save(plot.heatmaps(panels, "input word", "output word", caption, columns=2), figures / "multi_head_reshape.png"))

# %%
# Article A's MultiHeadAttention
# ------------------------------
# ``MultiHeadAttention(n_head, d_model, d_k, d_v)`` has no biases, and holds the residual and a LayerNorm(eps=1e-6) behind it
# (post-norm; lesson 7). From our pieces it is three lines up, and three down.


def article_a_forward(q, kv, p, n_head, mask=None, dropout=0.0, rng=None):
    a, attention = multi_head_attention_forward(q, kv, p["attn"], n_head, mask, dropout=dropout, rng=rng)
    a, drop = dropout_forward(a, dropout, rng)
    y, norm = layernorm_forward(q + a, **p["ln"], eps=1e-6)     # the residual is q
    return y, (attention, drop, norm)


def article_a_backward(dy, cache):
    attention, drop, norm = cache
    dsum, dgamma, dbeta = layernorm_backward(dy, norm)
    dq, dkv, dattn = multi_head_attention_backward(dropout_backward(dsum, drop), attention)
    return dq + dsum, dkv, {"attn": dattn, "ln": {"gamma": dgamma, "beta": dbeta}}


p = {"attn": init.multi_head_attention(6, 3, rng, d_k=7, d_v=8, bias=False, dtype=np.float64),
     "ln": {"gamma": rng.normal(size=6), "beta": rng.normal(size=6)}}
rows = gradcheck(article_a_forward, article_a_backward, xq, xkv, p, n_head=3, mask=mask, dropout=0.1, rng=0)
assert all(row.ok for row in rows)

# %%
# Article B's Attention
# ---------------------
# ``Attention(dim, heads=8, head_dim=64)``, ViT style: q, k, v are the thirds of one fused ``to_qkv`` without bias, and there is
# an output projection only when heads > 1 or head_dim != dim. Its example is [7, 257, 512]: 7 pictures, 256 patches and a class
# token, width 512. Here it runs with 2 pictures.


def article_b(dim, heads=8, head_dim=64):
    needs_out = heads > 1 or head_dim != dim
    p = init.multi_head_attention(dim, heads, rng, d_k=head_dim, d_v=head_dim, fused=True, bias=False, out=needs_out)
    return p | ({"out": p["out"] | {"b": np.zeros(dim, np.float32)}} if needs_out else {})


x = rng.normal(size=(2, 257, 512)).astype(np.float32)
p = article_b(512)
y, cache = multi_head_attention_forward(x, x, p, 8)
weights = attention_weights(cache)
print("to_qkv", p["qkv"]["w"].shape, "q", cache["attention"].q.shape, "attention", weights.shape, "y", y.shape)
apart = {name: {"w": w} for name, w in zip("qkv", np.split(p["qkv"]["w"], 3, axis=1), strict=True)} | {"out": p["out"]}
np.testing.assert_allclose(multi_head_attention_forward(x, x, apart, 8)[0], y, atol=1e-5)       # fused or not: the same
assert "out" in article_b(512, 1, 64) and "out" not in article_b(512, 1, 512)
assert weights.shape == (2, 8, 257, 257) and y.shape == x.shape

# %%
# Four heads, four questions
# --------------------------
# What heads are for, with weights set by hand. A word is its one-hot name beside its position. Heads 0 to 2 compare positions:
# the query is my own position turned one back, left alone, or turned one on (lesson 3: one matrix does that for all
# positions). Head 3 compares names. Clark et al. 2019 found heads for the word before and for the word after in a trained
# BERT, among many that are harder to name.

sentence = "the cat sat on the mat".split()
names = sorted(set(sentence))
x = np.concatenate([np.eye(5)[[names.index(word) for word in sentence]], sinusoidal_interleaved(6, 16)], axis=1)     # (6, 21)
places = sinusoidal_interleaved(50, 16)
back, on = np.linalg.lstsq(places[1:], places[:-1])[0], np.linalg.lstsq(places[:-1], places[1:])[0]
by_name, by_place = np.eye(21, 16), np.concatenate([np.zeros((5, 16)), np.eye(16)])
by_name[5:] = 0
sharp = 60                                                      # how clearly the best key wins
p = {
    "q": {"w": np.concatenate([by_place @ back, by_place, by_place @ on, by_name], axis=1) * sharp},            # (21, 4 * 16)
    "k": {"w": np.concatenate([by_place, by_place, by_place, by_name], axis=1)},
    "v": {"w": np.tile(by_name, 4)},
}
_, cache = multi_head_attention_forward(x[None], x[None], p, heads=4)
weights = attention_weights(cache)[0]                           # (4, 6, 6)
for head, (i, j) in enumerate([(3, 2), (3, 3), (3, 4), (0, 4)]):
    print(f"head {head}: {sentence[i]!r} (place {i}) looks at {sentence[j]!r} (place {j}): {weights[head, i, j]:.2f}")
assert weights[0, 3, 2] > 0.9 and weights[1, 3, 3] > 0.9 and weights[2, 3, 4] > 0.9 and 0.45 < weights[3, 0, 4] < 0.55

caption = (
    "How to read it: each map is one head, each row one query. Head 0 looks at the word before, head 1 at its own place, head "
    "2 at the word after, head 3 at the same word wherever it stands: the two 'the' share their attention. At the ends, where "
    "there is no word before or after, the nearest place wins."
)
print(plot.save(plot.attention(weights, sentence, sentence, caption=caption), figures / "multi_head_four_questions.png"))

# %%
# Exercises
# ---------
# 1. d_model = 512, no biases, W_O included. How many parameters has multi-head attention with 16 heads?
#
# 2. Write the way back, ``answer_2(z)``: (B, H, T, d) -> (B, T, H d), heads side by side.
#
# 3. *Multi-query attention*: all heads share one key, so ``share_forward`` hands it to each of them. Write its backward.
#
# For a whole file to complete: ``python -m tinymae exercise split_heads``, and ``exercise multi_head_attention``.

answer_1 = None
if answer_1 is not None:
    assert answer_1 == tree.count(init.multi_head_attention(512, 16, None, bias=False)), "more heads are narrower heads"

answer_2 = None
if answer_2 is not None:
    heads_apart = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    joined = [np.concatenate(list(example), axis=1) for example in heads_apart]         # (T, H d) each
    np.testing.assert_array_equal(answer_2(heads_apart), joined, "swap heads and words back, then reshape")


def share_forward(k, heads):
    return np.repeat(k[:, None], heads, axis=1), None           # (B, T, d) -> (B, H, T, d)


answer_3 = None
if answer_3 is not None:
    rows = gradcheck(share_forward, answer_3, np.random.default_rng(2).normal(size=(2, 3, 4)), heads=5)
    assert all(row.ok for row in rows), f"used five times: what becomes of five gradients?\n{format_rows('', rows)}"

# %%
# In the articles
# ---------------
# - **A, code.** Its residual and norm are inside the class; in the package they are lines of the encoder layer. Its d_k and d_v
#   need not be d_model / n_head: nor do ours.
# - **B, code.** ``to_qkv`` goes one step further than "One big matrix": all three projections are one product. Its columns are
#   q's heads, then k's, then v's.
# - **C, section 3.** h = 8, concat, then Linear. "Do heads split d, or multiply it?" answers the argument in its comments.
# - **D, multi-head.** Draws 8 heads of 64, concatenates, multiplies by W_O: the loop at the top, and "Concat and Linear is a
#   sum over heads". Its figures of what "it" looks at, with two heads and with all, are in lesson 9.
