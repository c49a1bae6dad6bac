"""
Attention in O(T) memory · 内存占用 O(T) 的注意力
=================================================

Attention compares every word with every word, so its weights are a table of T x T numbers, and training keeps that table for
the backward. Twice the words, four times the memory. Does it have to be so? The answer is one idea, "online softmax", and with
it the same numbers come out of memory that grows with T only.

Read beside: Rabe & Staats 2021; Dao et al. 2022 (FlashAttention), algorithms 1 and 4; article E, the summary ("quadratic").
"""

# %%
# The question: who needs T x T?
# ------------------------------
# ``tracemalloc`` counts what NumPy allocates. One head, forward and backward, float32:

import math
import time
import tracemalloc
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tinymae import plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.memory_efficient_attention import memory_efficient_attention_backward, memory_efficient_attention_forward

figures = Path("figures")
at_once = scaled_dot_product_attention_forward, scaled_dot_product_attention_backward
in_tiles = memory_efficient_attention_forward, memory_efficient_attention_backward


def run(pair, length, **options):
    """y and the gradients of one head of width 32."""
    forward, backward = pair
    q, k, v, dy = np.random.default_rng(0).standard_normal((4, 1, 1, length, 32), np.float32)
    y, cache = forward(q, k, v, **options)
    return y, *backward(dy, cache)


def peak(pair, length, **options):
    """The most memory that a run holds at one time, in MiB."""
    tracemalloc.start()
    run(pair, length, **options)
    most = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return most


# %%
# About three tables at the worst moment, in the backward: the weights, their gradient, and that of the scores.

lengths = [256, 512, 1024, 2048, 4096]
whole = [peak(at_once, length) for length in lengths]
for length, memory in zip(lengths, whole, strict=True):
    print(f"T = {length:4}: {memory:6.1f} MiB, of which one table of T x T is {4 * length**2 / 2**20:5.1f} MiB")
assert 3.8 < whole[-1] / whole[-2] < 4.2 and 2.9 < whole[-1] / (4 * 4096**2 / 2**20) < 3.3

# %%
# Online softmax, one number at a time
# ------------------------------------
# A softmax seems to need all scores of a row at once: first their maximum, then the sum, then the division. But a maximum and a
# sum can be kept up to date while the scores come by one at a time. The only difficulty: what was summed under an old maximum
# has to be moved under the new one, by the factor :math:`e^{old - new}`. The weighted sum of values goes the same way.


def online(scores, values):
    maximum, total, y = -math.inf, 0.0, 0.0
    for score, value in zip(scores, values, strict=True):
        higher = max(maximum, score)
        shrink = math.exp(maximum - higher)                     # 1, unless the maximum has just moved
        e = math.exp(score - higher)
        total = total * shrink + e
        y = y * shrink + e * value
        maximum = higher
    return y / total, maximum + math.log(total)


rng = np.random.default_rng(0)
scores, values = rng.normal(size=9), rng.normal(size=9)
weights = np.exp(scores) / np.exp(scores).sum()
y, logsumexp = online(scores, values)
assert math.isclose(y, weights @ values) and math.isclose(logsumexp, math.log(np.exp(scores).sum()))
assert math.isclose(online(1000 + scores, values)[0], y)        # and nothing overflows: e^1000 would
print(f"nine scores, one at a time: {y:.12f}; all at once: {weights @ values:.12f}")

# %%
# Tiles of keys
# -------------
# One score at a time would be slow. So a whole tile of keys, all queries at once; :math:`k_j` and :math:`v_j` are its rows:
#
# .. math::
#    (1) \quad & scores = q k_j^T / \sqrt{d_k} \\
#    (2) \quad & higher = \max(maximum, \max scores), \quad shrink = \exp(maximum - higher), \quad e = \exp(scores - higher) \\
#    (3) \quad & total \leftarrow total \cdot shrink + \sum e \\
#    (4) \quad & y \leftarrow y \cdot shrink + e \, v_j, \quad maximum \leftarrow higher \\
#    (5) \quad & y \leftarrow y / total, \quad logsumexp = maximum + \ln total \quad \text{after the last tile}


def tiles_forward(q, k, v, tile):
    maximum, total, y = np.full((len(q), 1), -np.inf), 0.0, 0.0
    for start in range(0, len(k), tile):
        scores = q @ k[start : start + tile].T / math.sqrt(q.shape[1])                      # (1)  (Tq, tile)
        higher = np.maximum(maximum, scores.max(axis=1, keepdims=True))                     # (2)
        shrink, e = np.exp(maximum - higher), np.exp(scores - higher)
        total = total * shrink + e.sum(axis=1, keepdims=True)   # (3)
        y = y * shrink + e @ v[start : start + tile]            # (4)
        maximum = higher
    y = y / total                                               # (5)
    return y, (q, k, v, y, maximum + np.log(total), tile)


q, k, v = rng.normal(size=(5, 4)), rng.normal(size=(7, 4)), rng.normal(size=(7, 3))
expected, _ = scaled_dot_product_attention_forward(q[None, None], k[None, None], v[None, None])
for tile in (1, 2, 3, 7, 100):                                  # 2 and 3 do not divide 7
    np.testing.assert_allclose(tiles_forward(q, k, v, tile)[0], expected[0, 0], atol=1e-14)
    package, _ = memory_efficient_attention_forward(q[None, None], k[None, None], v[None, None], tile=tile)
    np.testing.assert_allclose(package, expected, atol=1e-14)

# %%
# The backward: compute the weights again
# ---------------------------------------
# The weights are gone. But one number for each query, ``logsumexp``, brings any tile of them back: (6). The softmax backward
# also wants :math:`\delta`, a sum over *all* keys of a row, those of other tiles too. It turns out to need no key: (9).
#
# .. math::
#    (6) \quad & weights = \exp(scores - logsumexp), \quad \text{the scores from (1) again} \\
#    (7) \quad & dv_j = weights^T dy \\
#    (8) \quad & dweights = dy \, v_j^T \\
#    (9) \quad & dscores = weights \cdot (dweights - \delta) / \sqrt{d_k}, \quad
#    \delta = \sum_k dweights_k \, weights_k = \sum_k (dy \cdot v_k) \, weights_k = dy \cdot y \\
#    (10) \quad & dq = \sum_j dscores \, k_j, \quad dk_j = dscores^T q


def tiles_backward(dy, cache):
    q, k, v, y, logsumexp, tile = cache
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    delta = (dy * y).sum(axis=1, keepdims=True)                 # (9)
    for start in range(0, len(k), tile):
        keys = slice(start, start + tile)
        weights = np.exp(q @ k[keys].T / math.sqrt(q.shape[1]) - logsumexp)                 # (6)
        dv[keys] = weights.T @ dy                               # (7)
        dweights = dy @ v[keys].T                               # (8)
        dscores = weights * (dweights - delta) / math.sqrt(q.shape[1])                      # (9)
        dq += dscores @ k[keys]                                 # (10)
        dk[keys] = dscores.T @ q
    return dq, dk, dv


for tile in (1, 3, 100):
    rows = gradcheck(tiles_forward, tiles_backward, q, k, v, tile=tile)
    print(format_rows(f"tiles of {tile}", rows))
    assert all(row.ok for row in rows)
mask = rng.random((2, 1, 5, 7)) < 0.6
four = rng.normal(size=(2, 3, 5, 4)), rng.normal(size=(2, 3, 7, 4)), rng.normal(size=(2, 3, 7, 6))
assert all(row.ok for row in gradcheck(*in_tiles, *four, mask=mask, tile=2))                # the package's, with a mask

# %%
# The same numbers as attention that keeps its weights, forward and backward, in float32 too:

for mine, theirs in zip(run(in_tiles, 512), run(at_once, 512), strict=True):
    assert mine.dtype == np.float32
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())

# %%
# Break it: a sum that is not rescaled
# ------------------------------------
# Forget ``shrink`` in (3). What was summed under an older, lower maximum then counts too much: the total is too large, the
# weights are too small. A test with a tile of 128 and a sentence of 7 words stays blind, for the maximum never moves. Smaller
# tiles show it, in q and k. In v they do not: dv is the true gradient of this wrong forward, and a gradient check compares a
# backward with its own forward, not with attention.


def forgets_forward(q, k, v, tile):
    maximum, total, y = np.full((len(q), 1), -np.inf), 0.0, 0.0
    for start in range(0, len(k), tile):
        scores = q @ k[start : start + tile].T / math.sqrt(q.shape[1])
        higher = np.maximum(maximum, scores.max(axis=1, keepdims=True))
        shrink, e = np.exp(maximum - higher), np.exp(scores - higher)
        total = total + e.sum(axis=1, keepdims=True)            # (3), without shrink
        y = y * shrink + e @ v[start : start + tile]
        maximum = higher
    y = y / total
    return y, (q, k, v, y, maximum + np.log(total), tile)


blind = gradcheck(forgets_forward, tiles_backward, q, k, v, tile=128)
seen = gradcheck(forgets_forward, tiles_backward, q, k, v, tile=2)
print(format_rows("tiles of 2", seen))
assert all(row.ok for row in blind) and [row.ok for row in seen] == [False, False, True]

# %%
# A check that needs no second implementation: values that are all 1 must give 1. And values that are the identity matrix give
# the weights themselves, although no function here has ever stored them. That is how the picture was made.

length = 8
q8, k8 = np.random.default_rng(35).normal(size=(2, length, 4)) * 1.5
right, wrong = (forward(q8, k8, np.eye(length), tile=2)[0] for forward in (tiles_forward, forgets_forward))
np.testing.assert_allclose(right.sum(axis=1), 1)
print("broken: the rows of weights sum to", np.round(wrong.sum(axis=1), 2))
early = right.argmax(axis=1) < 2                                # the largest weight of a row is in the first tile
np.testing.assert_allclose(wrong[early], right[early])
assert early.any() and (wrong[~early] < right[~early]).all() and wrong.sum(axis=1).min() < 0.5
print(plot.save(plot.heatmaps(
    [plot.Panel("right: each row sums to 1", right), plot.Panel("broken: the sum is not rescaled", wrong)], "key", "query",
    "How to read it: weights from tiles of 2 keys. Compare row by row: where the largest score stands in the first tile (keys "
    "0 and 1) both are the same; where it comes later the broken row is too dark everywhere, as its total is too large.",
    columns=2), figures / "attention_in_tiles_broken.png"))

# %%
# Memory against length
# ---------------------
# The package's op, forward and backward: what grows with T is q, k, v, y and their gradients, and a tile of T x 128 scores.

tiled = [peak(in_tiles, length) for length in lengths]
for length, one, other in zip(lengths, whole, tiled, strict=True):
    print(f"T = {length:4}: {one:6.1f} MiB at once, {other:5.2f} MiB in tiles, {one / other:4.1f} times less")
assert 1.9 < tiled[-1] / tiled[-2] < 2.1 and whole[-1] > 15 * tiled[-1]
print(plot.save(plot.curves(
    {"all at once": (lengths, whole), "in tiles of 128 keys": (lengths, tiled)}, "words (T)", "MiB at the worst moment",
    "How to read it: both axes are logarithmic. Twice the words: four times the memory at once (slope 2), twice the memory in "
    "tiles (slope 1). One head of width 32, float32, forward and backward.",
    xscale="log", yscale="log", markers=True), figures / "attention_in_tiles_memory.png"))

# %%
# And the time?
# -------------
# The work stays quadratic, and (6) makes it a little more: seven products of T x T x d instead of six, and every exponential
# twice. On a GPU FlashAttention is several times faster all the same, because the table never travels to the slow memory and
# back. Here each NumPy operation walks through its whole array; a tile that stays in the processor's cache wins back some of
# what the extra product costs. Expect about the same time, not a faster attention. Very small tiles are slow: many small calls.

variants = {"all at once": (at_once, {})} | {f"in tiles of {tile}": (in_tiles, {"tile": tile}) for tile in (8, 128, 1024)}
took = {name: np.full(len(lengths), np.inf) for name in variants}
with threadpool_limits(1, "blas"):                              # one core, so that others on the machine disturb less
    for _ in range(2):                                          # the faster of two rounds
        for name, (pair, options) in variants.items():
            for i, length in enumerate(lengths):
                start = time.perf_counter()
                run(pair, length, **options)
                took[name][i] = min(took[name][i], time.perf_counter() - start)
for name, curve in took.items():
    print(f"{name:<17}", *(f"T = {length}: {1000 * s:6.1f} ms " for length, s in zip(lengths, curve, strict=True)))
print(plot.save(plot.curves(
    {name: (lengths, curve) for name, curve in took.items()}, "words (T)", "seconds, forward + backward",
    "How to read it: all lines turn towards slope 2 (logarithmic axes): tiles save memory, not work. Compare the heights: "
    "tiles of 128 cost about as much as all at once, tiles of 8 more.",
    xscale="log", yscale="log", markers=True), figures / "attention_in_tiles_time.png"))
assert 1 / 10 < took["in tiles of 128"][-1] / took["all at once"][-1] < 10

# %%
# What is given up: nobody can look at the weights, and the package's op has no dropout on them. So every model here uses
# ``ops.attention``: sentences of 50 words and pictures of 200 patches are short.

# %%
# Exercises
# ---------
# 1. A model with 12 heads reads one text of 8,192 words in float32. How many MiB does one table of weights take, all heads?

answer_1 = None
if answer_1 is not None:
    assert answer_1 == np.dtype(np.float32).itemsize * 12 * 8192**2 / 2**20, "bytes of a number x heads x T x T / 2^20"

# %%
# 2. Two machines hold one half of the keys each, and each has the (maximum, total, y) of its half, y not yet divided by total.
#    Write ``answer_2(a, b)``, which returns (maximum, total, y) of all keys.


def part(scores, values):
    maximum = scores.max()
    e = np.exp(scores - maximum)
    return maximum, e.sum(), e @ values


answer_2 = None
if answer_2 is not None:
    left, right_half = part(scores[:4], values[:4]), part(scores[4:], values[4:])
    for first, second in ((left, right_half), (right_half, left)):
        np.testing.assert_allclose(
            answer_2(first, second), part(scores, values), err_msg="both halves have to move under the higher maximum"
        )

# %%
# 3. Write the backward of ``logsumexp`` itself, ``answer_3(dlogsumexp, cache)``. What is it? (The cross entropy of lesson 11
#    begins with it.)


def logsumexp_forward(scores):
    maximum = scores.max(axis=-1, keepdims=True)
    logsumexp = maximum + np.log(np.exp(scores - maximum).sum(axis=-1, keepdims=True))
    return logsumexp, (scores, logsumexp)


answer_3 = None
if answer_3 is not None:
    rows = gradcheck(logsumexp_forward, answer_3, np.random.default_rng(1).normal(size=(3, 5)))
    assert all(row.ok for row in rows), "its derivative is softmax: exp(scores - logsumexp)\n" + format_rows("", rows)

# %%
# In the articles
# ---------------
# - *Article E, summary*: "quadratic in the length" is true of the work, and of the memory only as long as the table is kept.
# - *Article B, formula*, *article C, part 3*, *article D, six steps*: softmax(Q K^T / sqrt(d)) V computes Q K^T as a whole
#   matrix, then the softmax, then the product with V. The result here is the same; no step of it is a whole matrix.
# - *Article A, code*: ``ScaledDotProductAttention`` returns ``attn`` beside the output. Tiles cannot: the pictures of attention
#   need the table. With V = the identity matrix one gets it back, at its full price ("Break it").
# - *FlashAttention* keeps maximum and total of each row; its second version (Dao 2023) ``logsumexp`` only, as here. It cuts the
#   queries into tiles too, which is what a GPU needs, and skips the tiles that a causal mask hides.
