"""
Attention in O(T) memory · 内存占用 O(T) 的注意力
=================================================

Attention compares every token with every token. Its weights are a table of T x T
numbers, and training keeps that table for the backward pass. Twice the tokens take four
times the memory. Can the same numbers be had without the table?

You will be able to take a softmax of scores that arrive one by one ("online softmax"),
to write attention and its backward pass in tiles of keys, and to say what tiles save.

Time: 25 minutes to read, 5 seconds to run. Needs: lesson 8.

Read beside: Rabe & Staats 2021; Dao et al. 2022 (FlashAttention), algorithms 1 and 4;
article E (67 自注意力), 总结.
"""

# %%
# The question: how much memory does the table take?
# --------------------------------------------------
# ``tracemalloc`` counts the bytes that NumPy allocates. We run one head of dimension 32
# in float32, forward and backward. At the peak, in the backward pass, attention holds
# about three tables: the weights, their gradient, and the gradient of the scores.

import math
import time
import tracemalloc
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tinymae import plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops import attention
from tinymae.ops import memory_efficient_attention as tiled_attention

at_once = (
    attention.scaled_dot_product_attention_forward,
    attention.scaled_dot_product_attention_backward,
)
in_tiles = (
    tiled_attention.memory_efficient_attention_forward,
    tiled_attention.memory_efficient_attention_backward,
)


def run(pair, length):
    forward, backward = pair
    rng = np.random.default_rng(0)
    q, k, v, dy = rng.standard_normal((4, 1, 1, length, 32), np.float32)
    y, cache = forward(q, k, v)
    return y, *backward(dy, cache)  # y, dq, dk, dv: each (1, 1, T, 32)


def peak(pair, length):  # in MiB
    tracemalloc.start()
    run(pair, length)
    most = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return most


lengths = [256, 512, 1024, 2048, 4096]
whole = [peak(at_once, length) for length in lengths]
table = 4 * 4096**2 / 2**20  # 4 bytes a number
print(f"T = 2048: {whole[3]:.0f} MiB; T = 4096: {whole[4]:.0f}, one table {table:.0f}")
assert 3.8 < whole[4] / whole[3] < 4.2 and 2.9 < whole[4] / table < 3.3

# %%
# Online softmax, one number at a time
# ------------------------------------
# A softmax seems to need all scores of a row at once. But a maximum and a sum can be
# updated while the scores arrive one by one. When the maximum rises, everything that
# was summed under the old one is multiplied by :math:`shrink = e^{old - new}`.
#
# By hand: three keys have the scores ln 1, ln 2, ln 4 and the values 1, 2, 3. The
# softmax is 1/7, 2/7, 4/7, so y = 1/7 + 4/7 + 12/7 = 17/7. One by one, shrink is 1/2
# at the second key and at the third:
#
# - total: 1, then 1/2 + 1 = 3/2, then 3/4 + 1 = 7/4;
# - y: 1, then 1/2 + 2 = 5/2, then 5/4 + 3 = 17/4. At the end, y / total = 17/7.


def online(scores, values):
    maximum, total, y = -math.inf, 0.0, 0.0
    for score, value in zip(scores, values, strict=True):
        higher = max(maximum, score)
        shrink = math.exp(maximum - higher)  # 1, unless the maximum has just risen
        e = math.exp(score - higher)
        total = total * shrink + e
        y = y * shrink + e * value
        maximum = higher
    return y / total, maximum + math.log(total)


scores, values = np.log([1, 2, 4]), [1, 2, 3]
y, logsumexp = online(scores, values)
print(f"one at a time: {y:.12f}; 17/7 is {17 / 7:.12f}")
assert math.isclose(y, 17 / 7) and math.isclose(logsumexp, math.log(1 + 2 + 4))
assert math.isclose(online(1000 + scores, values)[0], 17 / 7)  # e^1000 would overflow

# %%
# Tiles of keys
# -------------
# One score at a time is slow in NumPy. So all queries meet a whole tile of keys at
# once; :math:`k_j` and :math:`v_j` are its rows. (5) follows after the last tile.
#
# .. math::
#    (1) \quad & scores = q k_j^T / \sqrt{d_k} \\
#    (2) \quad & higher = \max(maximum, \max scores), \quad
#                shrink = e^{maximum - higher}, \quad e = e^{scores - higher} \\
#    (3) \quad & total \leftarrow total \cdot shrink + \sum e \\
#    (4) \quad & y \leftarrow y \cdot shrink + e \, v_j \\
#    (5) \quad & y \leftarrow y / total, \quad logsumexp = maximum + \ln total


def tiles_forward(q, k, v, tile, rescale=True):
    maximum, total, y = np.full((len(q), 1), -np.inf), 0.0, 0.0
    for start in range(0, len(k), tile):
        keys = slice(start, start + tile)
        scores = q @ k[keys].T / math.sqrt(q.shape[1])  # (1)  (Tq, tile)
        higher = np.maximum(maximum, scores.max(axis=1, keepdims=True))  # (2)  (Tq, 1)
        shrink = np.exp(maximum - higher)
        e = np.exp(scores - higher)
        total = total * (shrink if rescale else 1)  # False only in "Break it"
        total = total + e.sum(axis=1, keepdims=True)  # (3)  (Tq, 1)
        y = y * shrink + e @ v[keys]  # (4)  (Tq, d_v)
        maximum = higher
    y = y / total  # (5)
    return y, (q, k, v, y, maximum + np.log(total), tile)


rng = np.random.default_rng(0)
q, k, v = rng.normal(size=(5, 4)), rng.normal(size=(7, 4)), rng.normal(size=(7, 3))
expected, _ = at_once[0](q[None, None], k[None, None], v[None, None])
for tile in (1, 2, 3, 7, 100):  # 2 and 3 do not divide 7
    np.testing.assert_allclose(tiles_forward(q, k, v, tile)[0], expected[0, 0])

# %%
# The backward pass computes the weights again
# --------------------------------------------
# The weights were not stored. One number for each query, ``logsumexp``, brings any tile
# of them back: (6). The softmax backward also needs :math:`\delta`, a sum over *all*
# keys of a row, those of other tiles too. It follows from dy and y alone: (9).
#
# .. math::
#    (6) \quad & weights = e^{scores - logsumexp} \\
#    (7) \quad & dv_j = weights^T dy \\
#    (8) \quad & dweights = dy \, v_j^T \\
#    (9) \quad & \delta = \sum_k dweights_k weights_k = \sum_k (dy \cdot v_k) weights_k
#                = dy \cdot y, \quad
#                dscores = weights \cdot (dweights - \delta) / \sqrt{d_k} \\
#    (10) \quad & dq = \sum_j dscores \, k_j, \quad dk_j = dscores^T q


def tiles_backward(dy, cache):
    q, k, v, y, logsumexp, tile = cache
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    delta = (dy * y).sum(axis=1, keepdims=True)  # (9)  (Tq, 1)
    for start in range(0, len(k), tile):
        keys = slice(start, start + tile)
        scores = q @ k[keys].T / math.sqrt(q.shape[1])  # (1)
        weights = np.exp(scores - logsumexp)  # (6)  (Tq, tile)
        dv[keys] = weights.T @ dy  # (7)
        dweights = dy @ v[keys].T  # (8)
        dscores = weights * (dweights - delta) / math.sqrt(q.shape[1])  # (9)
        dq += dscores @ k[keys]  # (10)
        dk[keys] = dscores.T @ q
    return dq, dk, dv


rows = gradcheck(tiles_forward, tiles_backward, q, k, v, tile=3)
print(format_rows("tiles of 3", rows))
assert all(row.ok for row in rows)
# The package's op, in float32, against attention that keeps its weights
for mine, theirs in zip(run(in_tiles, 512), run(at_once, 512), strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())

# %%
# Break it: a sum that is not rescaled
# ------------------------------------
# Forget ``shrink`` in (3): the total is too large, the weights are too small. One tile
# of 128 holds all 7 keys, so nothing has to be rescaled, and that check passes. Tiles
# of 2 show the mistake in q and k, but not in v: dv is the true gradient of this wrong
# forward, and a gradient check compares a backward with its own forward. Another check
# needs no gradient: with V the identity matrix, y is the table; its rows sum to 1.

blind = gradcheck(tiles_forward, tiles_backward, q, k, v, tile=128, rescale=False)
seen = gradcheck(tiles_forward, tiles_backward, q, k, v, tile=2, rescale=False)
assert all(row.ok for row in blind)
assert [row.ok for row in seen] == [False, False, True]  # q, k, v
right, _ = tiles_forward(q, k, np.eye(7), tile=2)  # (5, 7)
wrong, _ = tiles_forward(q, k, np.eye(7), tile=2, rescale=False)
print("broken, the rows of weights sum to", wrong.sum(axis=1).round(2))
assert np.allclose(right.sum(axis=1), 1) and wrong.sum(axis=1).min() < 0.8

# %%
# Memory and time against length
# ------------------------------
# The package's op takes 128 keys at a time. The arrays that grow with T are q, k, v, y,
# their gradients, and a tile of T x 128 scores. The work stays quadratic, and (6)
# computes (1) once more. On a GPU FlashAttention is faster all the same: the table
# never travels to slow memory. The op has no dropout: our models use ``ops.attention``.

tiled = [peak(in_tiles, length) for length in lengths]
assert 1.9 < tiled[4] / tiled[3] < 2.1 and whole[4] > 15 * tiled[4]
caption = (
    "How to read it: both axes are logarithmic. Twice the tokens take about four times "
    "the memory at once (slope 2), and twice the memory in tiles (slope 1)."
)
curves = {"all at once": (lengths, whole), "in tiles of 128": (lengths, tiled)}
axes = {"xscale": "log", "yscale": "log", "markers": True}
figure = plot.curves(curves, "tokens (T)", "MiB at the peak", caption, **axes)
print(plot.save(figure, Path("figures/attention_in_tiles_memory.png")))
seconds = []
with threadpool_limits(1, "blas"):  # one core, for comparable times
    for length in (1024, 4096):
        start = time.process_time()
        run(in_tiles, length)
        seconds.append(time.process_time() - start)
print(f"time in tiles: T = 1024 {seconds[0]:.3f} s, T = 4096 {seconds[1]:.3f} s")
assert seconds[1] > 6 * seconds[0]  # 4, if the work grew with T only

# %%
# Exercises
# ---------
# Write your answer in the place of ``None`` and run the cell again.

# 1. A model with 12 heads reads one text of 8,192 tokens in float32. How many MiB does
#    one table of weights take, all heads together?
answer_1 = None
if answer_1 is not None:
    assert answer_1 == 4 * 12 * 8192**2 / 2**20, "4 bytes x heads x T x T / 2^20"

# 2. Two machines hold a part of the keys each, and each has (maximum, total, y) of its
#    part, y not yet divided. A function (a, b) -> (maximum, total, y) of all keys.
answer_2 = None
if answer_2 is not None:
    a, b = (math.log(2), 3 / 2, 5 / 2), (math.log(4), 1, 3)  # two keys, and the third
    for merged in (answer_2(a, b), answer_2(b, a)):
        assert np.allclose(merged, (math.log(4), 7 / 4, 17 / 4)), "as by hand"

# %%
# In the articles
# ---------------
# - Article E: the cost is "二次方" (quadratic) in the length. That is true of the
#   computation; of the memory only while the table is kept: "Memory and time ...".
# - Article A (MAE), the code: ``ScaledDotProductAttention`` returns ``attn`` beside the
#   output. Tiles cannot. V = the identity matrix gives it back: "Break it".
