"""
The decoder layer · 解码器层
============================

A decoder layer has three sublayers: it attends to the tokens generated so far, then to
the source, and then comes the feed forward. Which of its inputs gives the queries, and
which the keys and values? The articles and their readers do not agree.

You will be able to write a decoder layer forward and backward, and to say where its Q,
K and V come from, also for the first token.

Time: 25 minutes to read, 3 seconds to run. Needs: lessons 10, 14 and 16.

Read beside: Vaswani et al. 2017, sections 3.1 and 3.2.3; article C (Transformer模型详解),
"5. Decoder 结构" and "5.2 第二个 Multi-Head Attention"; article D
(笔记 | 深入理解Transformer), "六、残差神经网络 Residuals" and "七、Decoder".
"""

# %%
# Encoder and decoder, drawn
# --------------------------
# Article D draws 2 + 2 layers. Each sublayer has its Add & Norm. Every decoder layer
# receives the output of the *last* encoder layer, the memory C, as keys and values.

import math
from pathlib import Path

import numpy as np

from tinymae import init, plot, tree
from tinymae.blocks import (
    attention_weights,
    decoder_layer_forward,
    feed_forward_backward,
    feed_forward_forward,
    multi_head_attention_backward,
    multi_head_attention_forward,
)
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.masks import causal_mask
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward
from tinymae.tasks.translate import Translator

figures = Path("figures")
rng = np.random.default_rng(0)
print(plot.save(plot.encoder_decoder(2, 2), figures / "decoder_layers.png"))

# %%
# Cross-attention by hand, then as a loop
# ---------------------------------------
# The encoder has made three vectors of dimension 2. One decoder position has the query
# (1, 0). Without projections the scores are the dot products 2, 0, 1 divided by
# :math:`\sqrt 2`; their exponentials are 4.11, 1 and 2.03. Divided by their sum, 7.14,
# they are the attention weights; the result is the weighted mean of the three vectors.

c = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])              # (Tk, D) = (3, 2)
weights = np.exp(c @ [1, 0] / math.sqrt(2))
weights /= weights.sum()
print("weights", weights.round(3), "result", (weights @ c).round(3))
np.testing.assert_allclose(weights, [4.11 / 7.14, 1 / 7.14, 2.03 / 7.14], atol=0.002)


def cross_attention_loop(x, memory, p):
    """One head: queries from x (Tq, D), keys and values from memory (Tk, D)."""
    keys = [token @ p["k"]["w"] + p["k"]["b"] for token in memory]
    values = [token @ p["v"]["w"] + p["v"]["b"] for token in memory]
    y = []
    for token in x:
        query = token @ p["q"]["w"] + p["q"]["b"]
        scores = [query @ key / math.sqrt(len(query)) for key in keys]
        weights = np.exp(scores) / np.exp(scores).sum()
        z = sum(weights[k] * values[k] for k in range(len(memory)))
        y.append(z @ p["out"]["w"] + p["out"]["b"])
    return np.array(y)


p = init.decoder_layer(8, 2, 12, None, dtype=np.float64)        # D = 8, H = 2, F = 12
p = tree.map(lambda leaf: rng.normal(0.3, 0.5, leaf.shape), p)  # no bias is 0
x = rng.normal(size=(2, 3, 8))                                  # (B, Tq, D)
memory = rng.normal(size=(2, 5, 8))                             # (B, Tk, D)
y, cache = multi_head_attention_forward(x, memory, p["cross_attn"], heads=1)
np.testing.assert_allclose(y[1], cross_attention_loop(x[1], memory[1], p["cross_attn"]))

# %%
# Two lengths, and two inputs
# ---------------------------
# May the two lengths differ? Yes: the weights are (Tq, Tk), the output has Tq rows. Is
# the decoder's input "encoder输出 + 第(i-1)个decoder输出", as a comment under article C
# writes? Read its plus sign as *and*. The two are never added: here x has 3 rows and C
# has 5. x enters at the bottom, as embeddings of tokens; C enters in the middle of
# every layer. What is fed back is the generated token, not an output vector.

assert attention_weights(cache).shape == (2, 1, 3, 5) and y.shape == x.shape

# %%
# The decoder layer, vectorised
# -----------------------------
# Post-norm, as in the paper. In (2), Q comes from :math:`X_1`, the masked attention of
# the *same* layer.
#
# .. math::
#
#    X_1 &= LayerNorm_1(X + MultiHead(X, X, X; causal)) \quad (1) \\
#    X_2 &= LayerNorm_2(X_1 + MultiHead(X_1, C, C)) \quad (2) \\
#    Y &= LayerNorm_3(X_2 + FeedForward(X_2)) \quad (3)


def layer_forward(x, memory, p, heads):
    causal = causal_mask(x.shape[1])
    a, self_attn = multi_head_attention_forward(x, x, p["self_attn"], heads, causal)
    x, ln1 = layernorm_forward(x + a, **p["ln1"])               # (1)
    a, cross_attn = multi_head_attention_forward(x, memory, p["cross_attn"], heads)
    x, ln2 = layernorm_forward(x + a, **p["ln2"])               # (2)
    f, ffn = feed_forward_forward(x, p["ffn"])
    y, ln3 = layernorm_forward(x + f, **p["ln3"])               # (3)
    return y, (self_attn, ln1, cross_attn, ln2, ffn, ln3)


y, cache = layer_forward(x, memory, p, heads=2)
package, package_cache = decoder_layer_forward(x, memory, p, 2, mask=causal_mask(3))
np.testing.assert_allclose(y, package, atol=1e-12)

# %%
# The backward: two gradients come out
# ------------------------------------
# Each line undoes one line of the forward; f' is the backward of f. Two inputs went in,
# so two gradients come out: dX for the layer below, and dC for the encoder, its only
# gradient. All layers of a stack attend to the same C, so their dC are added.
#
# .. math::
#
#    ds_3 &= LayerNorm_3'(dY), \quad dX_2 = ds_3 + FeedForward'(ds_3) \quad (4) \\
#    ds_2 &= LayerNorm_2'(dX_2), \quad dX_1 = ds_2 + dX_q, \; dC = dX_{kv} \quad (5) \\
#    ds_1 &= LayerNorm_1'(dX_1), \quad dX = ds_1 + (dX_q + dX_{kv}) \quad (6)


def norm_backward(dy, cache):
    ds, dgamma, dbeta = layernorm_backward(dy, cache)
    return ds, {"gamma": dgamma, "beta": dbeta}


def layer_backward(dy, cache):
    self_attn, ln1, cross_attn, ln2, ffn, ln3 = cache
    dp = {}
    ds, dp["ln3"] = norm_backward(dy, ln3)
    df, dp["ffn"] = feed_forward_backward(ds, ffn)
    dx = ds + df                                                # (4)
    ds, dp["ln2"] = norm_backward(dx, ln2)
    dxq, dmemory, dp["cross_attn"] = multi_head_attention_backward(ds, cross_attn)
    dx = ds + dxq                                               # (5)
    ds, dp["ln1"] = norm_backward(dx, ln1)
    dxq, dxkv, dp["self_attn"] = multi_head_attention_backward(ds, self_attn)
    dx = ds + (dxq + dxkv)                                      # (6)
    return dx, dmemory, dp


rows = gradcheck(layer_forward, layer_backward, x, memory, p, heads=2)
assert all(row.ok for row in rows)

# %%
# Where does Q come from, for the first token?
# --------------------------------------------
# Position 0 is fed <bos>, a token with a learned embedding like any other. In masked
# self-attention it can attend to itself only, with weight 1. So in the first layer its
# query to the source is the same for every sentence: only K and V differ.

bos = np.repeat(x[:1, :1], 2, axis=0)                           # one <bos>, two sources
_, cache = layer_forward(bos, memory, p, heads=2)
q, k = cache[2]["attention"].q, cache[2]["attention"].k         # (B, H, T, d)
assert (attention_weights(cache[0]) == 1).all()
assert np.allclose(q[0], q[1]) and not np.allclose(k[0], k[1], atol=1)

# %%
# What a trained layer attends to
# -------------------------------
# The package's translator, 我有一只猫 -> I have a cat: six source tokens, five target
# tokens, the weights of the last layer.

source_tokens, target_tokens, decoded = Translator.load().decode("我有一只猫")
cross = decoded.cross[0, -1]  # (H, Tq, Tk) = (4, 5, 6)
most = [source_tokens[k] for k in cross.mean(axis=0).argmax(axis=1)]
print(*(f"{a} -> {b}," for a, b in zip(target_tokens, most, strict=True)))
assert most == ["我", "有", "一", "猫", "<eos>"]
caption = (
    "How to read it: a row is the token that the decoder generates, a column a token "
    "of the source; a row sums to 1. Most heads attend to the token's translation."
)
figure = plot.attention(cross, target_tokens, source_tokens, caption=caption)
print(plot.save(figure, figures / "decoder_cross_attention.png"))

# %%
# Break it: Q from the previous decoder block
# -------------------------------------------
# Article C computes the queries of (2) from the output of the previous block, in the
# first block from X. Then a query in the first block depends on its own token and
# position alone: *cat* in *I have a cat* and in *he sees the cat* has the same query.
# Below, only the first token is changed. Do the cross-attention weights of the last
# token change?

changed = x.copy()
changed[:, 0] = rng.normal(size=(2, 8))
paper, article = [], []
for given in (x, changed):
    _, cache = layer_forward(given, memory, p, heads=2)         # Q from X1
    paper.append(attention_weights(cache[2])[:, :, 2])          # the last token's
    _, cross_c = multi_head_attention_forward(given, memory, p["cross_attn"], heads=2)
    article.append(attention_weights(cross_c)[:, :, 2])         # Q from X
change = np.abs(paper[1] - paper[0]).max()
change_c = np.abs(article[1] - article[0]).max()
print(f"the last token's weights change by {change:.3f}, with C's Q by {change_c}")
assert change > 0.01 and change_c < 1e-12

# %%
# Exercises
# ---------
# 1. A batch of 2, 8 heads, a source of 12 tokens, a target of 7. Which shape do the
#    cross-attention weights have? Write a tuple.
# 2. ``stack_forward`` is a stack of our layers. Write its backward, which returns (dx,
#    dmemory, list of dp): ``def answer_2(dx, caches): ...``

answer_1 = None
if answer_1 is not None:
    target, source = np.zeros((2, 7, 8)), np.zeros((2, 12, 8))
    _, found = multi_head_attention_forward(target, source, p["cross_attn"], heads=8)
    assert answer_1 == attention_weights(found).shape, "a row for each query"


def stack_forward(x, memory, layers, heads):
    caches = []
    for p in layers:
        x, cache = layer_forward(x, memory, p, heads)
        caches.append(cache)
    return x, caches


answer_2 = None
if answer_2 is not None:
    layers = [p, tree.map(np.copy, p)]
    rows = gradcheck(stack_forward, answer_2, x, memory, layers, samples=3, heads=2)
    assert all(row.ok for row in rows), format_rows("all dmemory are added", rows)

# %%
# In the articles
# ---------------
# - **Article C, 5 and 5.2**: "Q使用上一个 Decoder block 的输出计算" is wrong, as a reader says.
#   Q comes from the masked attention of the same block: "Break it: Q from the previous
#   decoder block". K, V from C is right.
# - **The comments under article C**: "长度不一样" and "第(i-1)个decoder输出": "Two lengths,
#   and two inputs"; and "Where does Q come from, for the first token?".
# - **Article D, 七**: its set "(K,V)": each decoder layer makes its own K and V from C.
