"""
Cost and length · 计算代价与序列长度
====================================

Article E (67 自注意力) sums attention up: fully parallel, 最长序列为1, expensive for long
sequences. What has length 1 is the *path* between two tokens. This lesson counts table
1 of the paper, and measures what a short path buys and costs.

You will be able to count the cost of a layer and the steps that wait, and to explain
why a plain RNN forgets the first token.

Time: 25 minutes to read, 3 seconds to run. Needs: lesson 26.

Read beside: Vaswani et al. 2017, section 4 and table 1; article E, 总结.
"""

# %%
# The recurrent layer, and a convolution with gaps
# ------------------------------------------------
# The recurrent layer is that of lesson 26. A convolution with windows of 3 can leave
# gaps (dilation): if layer n takes tokens :math:`3^n` apart, each layer triples what an
# output sees.

import math
import timeit
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tinymae import init, plot
from tinymae.blocks import multi_head_attention_backward, multi_head_attention_forward
from tinymae.ops.embedding import embedding_backward, embedding_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.positional import sinusoidal_interleaved
from tinymae.train.optim import AdamW, clip_grad_norm


def rnn_forward(x, p):
    z, linear = linear_forward(x, p["wx"], p["b"])  # (B, T, D)
    h = np.zeros((len(x), x.shape[1] + 1, z.shape[2]), x.dtype)
    for t in range(x.shape[1]):
        h[:, t + 1] = np.tanh(z[:, t] + h[:, t] @ p["wh"])
    return h[:, 1:].copy(), (h, p["wh"], linear)


def rnn_backward(dy, cache):
    h, wh, linear = cache
    dz = np.zeros_like(dy)
    later = np.zeros_like(dy[:, 0])
    for t in reversed(range(dy.shape[1])):
        dz[:, t] = (dy[:, t] + later) * (1 - h[:, t + 1] * h[:, t + 1])
        later = dz[:, t] @ wh.T
    dwh = h[:, :-1].reshape(-1, len(wh)).T @ dz.reshape(-1, len(wh))
    dx, dwx, db = linear_backward(dz, linear)
    return dx, {"wx": dwx, "wh": dwh, "b": db}


def layers_needed(length, widen):
    sees, depth = 1, 0  # one output, its own token
    while sees < length:
        sees += 2 * widen**depth  # two more, with gaps (widen = 3) or without (1)
        depth += 1
    return depth


def attention_forward(x, p):
    return multi_head_attention_forward(x, x, p, heads=4)


def attention_backward(dy, cache):
    dq, dkv, dp = multi_head_attention_backward(dy, cache)
    return dq + dkv, dp


def fresh(name, width):
    rng = np.random.default_rng(0)
    if name == "attention":
        return init.multi_head_attention(width, 4, rng)
    wx, wh = (init.xavier_uniform((width, width), rng) for _ in range(2))
    return {"wx": wx, "wh": wh, "b": np.zeros(width, np.float32)}


pairs = {"RNN": (rnn_forward, rnn_backward),
         "attention": (attention_forward, attention_backward)}

# %%
# Table 1, counted
# ----------------
# For T tokens of dimension D: *cost* counts multiplications, *wait* the steps that need
# each other, *path* the layers (or RNN steps) from the first token to the last.

D = 64
table = {  # cost, wait, path
    "RNN": lambda t: (2 * t * D**2, t, t - 1),
    "CNN": lambda t: (3 * t * D**2, 1, layers_needed(t, 1)),
    "CNN, dilated": lambda t: (3 * t * D**2, 1, layers_needed(t, 3)),
    "attention": lambda t: (4 * t * D**2 + 2 * t**2 * D, 1, 1),  # projections, pairs
}
print("D = 64         cost, wait, path for T =", *(f"{t:<20}" for t in (16, 64, 256)))
for name, row in table.items():
    rows = [row(t) for t in (16, 64, 256)]
    print(f"{name:14}", *(f"{c / 1e6:10.2f} M{w:5}{p:5}" for c, w, p in rows))
assert table["CNN"](256)[2] == 128 and table["CNN, dilated"](256)[2] == 6

# %%
# What has length 1?
# ------------------
# Not the sequence: one layer reads 16, 64 or 256 tokens alike. A change of the first
# token changes the last output, through one layer. That is a path of 1.

params = {name: fresh(name, D) for name in pairs}
rng = np.random.default_rng(1)
for t in (16, 64, 256):
    x = rng.normal(size=(1, t, D)).astype(np.float32)
    before, _ = attention_forward(x, params["attention"])
    x[0, 0] += 1
    after, _ = attention_forward(x, params["attention"])
    assert before.shape == (1, t, D) and np.abs(after - before)[0, -1].max() > 1e-4

# %%
# Time against length
# -------------------
# One forward pass on one core. Twice the tokens cost the RNN twice the time. In
# attention the pairs of tokens win in the end: the time grows with the square (faster
# where the weights leave the processor's cache). In the same time attention does more
# multiplications than the RNN, whose steps wait.

lengths = [32, 64, 128, 256, 512, 1024]
times = {name: (lengths, []) for name in pairs}
with threadpool_limits(1, "blas"):  # one core
    for name, (forward, _) in pairs.items():
        for t in lengths:
            x = rng.normal(size=(1, t, D)).astype(np.float32)
            runs = timeit.repeat(partial(forward, x, params[name]), number=1, repeat=10)
            times[name][1].append(1000 * min(runs))  # the others were disturbed
        print(f"{name:10}", *(f"{ms:7.2f}" for ms in times[name][1]), "ms")
assert times["attention"][1][-1] > 10 * times["attention"][1][2]  # 8 times the tokens
speed = {name: table[name](64)[0] / times[name][1][1] for name in pairs}  # for T = 64
assert speed["attention"] > 2 * speed["RNN"]
figure = plot.curves(
    times, "tokens in the sentence (T)", "milliseconds for one forward pass",
    "How to read it: both axes are logarithmic, so a power of T is a straight line. "
    "The RNN rises with slope 1; attention becomes steeper.",
    xscale="log", yscale="log", markers=True)
print(plot.save(figure, Path("figures") / "cost_time.png"))

# %%
# How far does the gradient reach?
# --------------------------------
# Each step of a path multiplies the gradient by one more matrix. Both layers are fresh
# from their initialisation, and the sentence has 100 tokens. What is measured is the
# gradient of the last output with respect to each token.

x = rng.normal(size=(1, 100, D)).astype(np.float32)
reach = {}
for name, (forward, backward) in pairs.items():
    y, cache = forward(x, params[name])
    dy = np.zeros_like(y)
    dy[:, -1] = np.random.default_rng(1).normal(size=D)
    dx, _ = backward(dy, cache)
    reach[name] = np.linalg.norm(dx[0, ::-1], axis=-1)  # 0, 1, 2, ... tokens back
    print(f"{name:10}", *(f"{t} back: {reach[name][t]:.0e} " for t in (1, 10, 99)))
assert reach["RNN"][99] < 1e-12
assert reach["attention"][50:].mean() > 0.1 * reach["attention"][1:50].mean()
figure = plot.curves(
    {name: (np.arange(100), norms) for name, norms in reach.items()},
    "tokens back", "norm of the gradient of the last output",
    "How to read it: a straight line downwards is a gradient that shrinks by the same "
    "factor at every step. Attention reaches far tokens like near ones.",
    yscale="log", ylim=(1e-12, 10))
print(plot.save(figure, Path("figures") / "cost_reach.png"))

# %%
# Recall the first token
# ----------------------
# A task that needs the long path: read T random tokens out of 8, then name the first.
# Only the last position predicts. Every batch is new, so the last 20 batches are a fair
# test. Attention needs positions (lesson 5).


@threadpool_limits.wrap(limits=1, user_api="blas")  # fastest for small matrices
def recall(name, length, positions=True, width=32):
    forward, backward = pairs[name]
    rng = np.random.default_rng(0)
    table = positions * sinusoidal_interleaved(length, width).astype(np.float32)
    params = {"tokens": init.normal((8, width), rng, 1.0), "layer": fresh(name, width),
              "head": init.linear(width, 8, rng)}
    optimizer, results = AdamW(params), []
    for step in range(1, 201):
        ids = rng.integers(0, 8, (32, length))
        x, embedding = embedding_forward(ids, params["tokens"])  # (B, T, D)
        y, cache = forward(x + table, params["layer"])
        logits, head = linear_forward(y[:, -1], **params["head"])  # (B, 8)
        loss, entropy = cross_entropy_forward(logits, ids[:, 0])
        results.append((loss, np.mean(logits.argmax(axis=1) == ids[:, 0])))
        dy = np.zeros_like(y)
        dy[:, -1], dw, db = linear_backward(cross_entropy_backward(1.0, entropy), head)
        dx, dlayer = backward(dy, cache)
        grads = {"tokens": embedding_backward(dx, embedding), "layer": dlayer,
                 "head": {"w": dw, "b": db}}
        clip_grad_norm(grads, 1.0)
        optimizer.step(params, grads, 0.003 * min(1, step / 20))
    return np.mean(results[-20:], axis=0)  # loss and accuracy


accuracy = {}
for name in pairs:
    for between in (3, 15):
        loss, accuracy[name, between] = recall(name, between + 2)
        print(f"{name}, {between} between: {loss:.2f}, {accuracy[name, between]:.2f}")
assert min(accuracy["attention", 3], accuracy["attention", 15]) > 0.95
assert accuracy["RNN", 3] > 0.9 and accuracy["RNN", 15] < 0.3  # 1/8 by chance

# %%
# Break it: attention without positions
# -------------------------------------
# The path is still 1, but the model sees a bag of tokens, and the first is one of many.
# The best possible loss is then the entropy of the tokens of a sentence. It can be
# computed, and the loss stops near it.

loss, share = recall("attention", 17, positions=False)
ids = rng.integers(0, 8, (5000, 17))
bag = np.stack([(ids == token).mean(axis=1) for token in range(8)], axis=1)  # (5000, 8)
entropy = -(bag * np.log(np.maximum(bag, 1e-9))).sum(axis=1).mean()
print(f"loss {loss:.2f}, a bag of tokens {entropy:.2f}, ln 8 {math.log(8):.2f}")
assert entropy - 0.05 < loss < math.log(8) - 0.05 and share < 0.5

# %%
# Exercises
# ---------
# 1. How many dilated layers (windows of 3) does a CNN need to see 1,000 tokens?
answer_1 = None
if answer_1 is not None:
    assert answer_1 == layers_needed(1000, 3), "each layer triples: 3, 9, 27, ..."

# 2. D = 512. For which T do the pairs (:math:`2 T^2 D`) cost the projections' 4 T D D?
answer_2 = None
if answer_2 is not None:
    assert 2 * answer_2**2 * 512 == 4 * answer_2 * 512**2, "divide both by 2 T D"

# %%
# In the articles
# ---------------
# - Article E, 总结: 最长序列为1 (the longest sequence is 1) is wrong: it must be the longest
#   *path*, as E's 小结 says. "What has length 1?" sends 256 tokens through a path of 1.
# - Article E, 小结: long sequences are 非常慢 (very slow): "Time against length".
# - Article E, 位置编码: attention records no positions. "Break it" shows what is lost.
