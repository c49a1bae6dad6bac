"""
Positional encoding · 位置编码
==============================

Attention sees a set of words. 吃饭没 (have you eaten?), 没吃饭 (I have not eaten) and 没饭吃 (there is nothing to eat) are the
same three characters, so without positions they are the same to it. Where a word stands must be added to the word. Nothing
in a falling loss tells you that you forgot it, or added it to the wrong axis.

Read beside: Vaswani et al. 2017, section 3.5; articles A (part 1), C (sections 2.2 and 6), D and E.
"""

# %%
# Without positions: a bag of words
# ---------------------------------
# One encoder layer (lesson 9; here it is a box around attention) with random weights reads the three sentences. Without
# positions, the output of 吃 is the same wherever 吃 stands: permute the input, and the outputs permute with it. Their mean,
# all that a classifier would see, is then the same for all three sentences. (Article C, section 6, says so; here it runs.)
# With positions, the three means differ.

from pathlib import Path

import numpy as np

from tinymae import init, plot
from tinymae.blocks import (
    attention_weights,
    encoder_layer_forward,
    multi_head_attention_backward,
    multi_head_attention_forward,
)
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.gradcheck.invariants import assert_batch_independent
from tinymae.ops.dropout import dropout_backward, dropout_forward
from tinymae.ops.embedding import embedding_backward, embedding_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.positional import (
    get_positional_encoding,
    positional_backward,
    positional_forward,
    sincos_2d,
    sinusoidal_halves,
    sinusoidal_interleaved,
)
from tinymae.train.optim import AdamW, warmup_cosine

figures = Path("figures")

# %%

rng = np.random.default_rng(0)
characters = rng.normal(size=(3, 16))                           # 吃 饭 没
layer = init.encoder_layer(16, 2, 32, rng, dtype=np.float64)
sentences = {"吃饭没": [0, 1, 2], "没吃饭": [2, 0, 1], "没饭吃": [2, 1, 0]}


def read(order, table):
    return encoder_layer_forward((characters[order] + table)[None], layer, heads=2)[0][0]       # (3, 16)


nowhere, somewhere = np.zeros((3, 16)), sinusoidal_interleaved(3, 16)
unmoved, means = read([0, 1, 2], nowhere), []
for name, order in sentences.items():
    np.testing.assert_allclose(read(order, nowhere), unmoved[order], atol=1e-12)                # permuted in, permuted out
    means.append(read(order, somewhere).mean(axis=0))
    print(f"{name}  without positions {read(order, nowhere).mean(axis=0)[:3].round(3)}  with {means[-1][:3].round(3)}")
assert len(np.unique(np.round(means, 2), axis=0)) == 3

# %%
# The formula, as a loop
# ----------------------
# Each pair of columns is the hand of a clock: fast on the left, slow on the right.
#
# .. math::
#
#    PE(pos, 2i) = \sin(pos / 10000^{2i/D}) \qquad (1)
#
#    PE(pos, 2i + 1) = \cos(pos / 10000^{2i/D}) \qquad (2)
#
# "Is it 2i for both?" Yes: *i* counts pairs, not columns. Column 6 and column 7 belong to pair 3, and both exponents are 6/D.


def loop(length, width):
    table = np.zeros((length, width))
    for pos in range(length):
        for column in range(width):
            angle = pos / 10000 ** (2 * (column // 2) / width)
            table[pos, column] = np.sin(angle) if column % 2 == 0 else np.cos(angle)    # (1), (2)
    return table


# %%
# The same in three lines
# -----------------------
# All angles at once, (T, D/2), then sine and cosine in turn. What about an odd width? The last sine has no room for its cosine.

i = np.arange(32)                                               # pairs
angles = np.arange(10)[:, None] / 10000 ** (2 * i / 64)         # (10, 32)
vectorised = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(10, 64)        # sin, cos, sin, cos ...
np.testing.assert_allclose(vectorised, loop(10, 64), atol=1e-14)
np.testing.assert_allclose(vectorised, sinusoidal_interleaved(10, 64), atol=1e-14)
np.testing.assert_allclose(sinusoidal_interleaved(10, 7), loop(10, 7), atol=1e-14)      # 4 sines, 3 cosines

print(plot.save(plot.positional_encoding(sinusoidal_interleaved(10, 64)), figures / "positional_interleaved.png"))

# %%
# Interleaved, or in halves?
# --------------------------
# Article D shows both: 10 words of width 64 with sines and cosines in turn (above), and 20 words of width 512 with all sines on
# the left and all cosines on the right (below). They hold the same numbers in another order. A model does not care: the weights
# behind the table can be reordered likewise. But weights trained with one layout must be used with that layout.

interleaved, halves = sinusoidal_interleaved(20, 512), sinusoidal_halves(20, 512)
order = np.r_[0:512:2, 1:512:2]                                 # even columns, then odd ones
np.testing.assert_array_equal(interleaved[:, order], halves)
w = rng.normal(size=(512, 4))
np.testing.assert_allclose(interleaved @ w, halves @ w[order], atol=1e-12)
try:
    sinusoidal_halves(20, 7)
except ValueError as error:
    print(error)

print(plot.save(plot.positional_encoding(halves), figures / "positional_halves.png"))

# %%
# Article D's example of width 4
# ------------------------------
# Article D follows the Illustrated Transformer, whose three rows are (0, 0, 1, 1), (0.84, 0.0001, 0.54, 1) and (0.91, 0.0002,
# -0.42, 1): two sines, then two cosines, so halves. By the paper's formula the second column is 100 times faster. The rows come
# from Tensor2Tensor's code, which divides by D/2 - 1 instead of D/2, so that its slowest hand turns by exactly 1/10000 a
# position; the paper's turns by 1/100.

paper = sinusoidal_halves(3, 4)
pos, i = np.arange(3)[:, None], np.arange(2)
tensor2tensor = np.concatenate([f(pos / 10000 ** (i / (4 / 2 - 1))) for f in (np.sin, np.cos)], axis=1)
with np.printoptions(suppress=True):
    print("paper", paper.round(4), "Tensor2Tensor", tensor2tensor.round(4), sep="\n")
np.testing.assert_allclose(tensor2tensor, [[0, 0, 1, 1], [0.84, 0.0001, 0.54, 1], [0.91, 0.0002, -0.42, 1]], atol=0.005)
np.testing.assert_allclose(paper[1, 1] / tensor2tensor[1, 1], 100, rtol=1e-3)

# %%
# Article A's encoding, and its quirks
# ------------------------------------
# ``get_positional_encoding(max_seq_len=100, embed_dim=16)`` differs from the paper twice. In its exponent 2i/D, i is the *full*
# column index: a sine and its cosine run at different speeds, and the right half of the columns hardly moves. And row 0 stays
# zero, where the paper has cos(0) = 1. It also offers to divide each row by its norm. The paper's rows all have the same norm,
# the root of D/2 = 8; rows of norm 1 are almost three times weaker beside the word they are added to.

article, paper = get_positional_encoding(max_seq_len=100, embed_dim=16), sinusoidal_interleaved(100, 16)
assert not article[0].any() and (paper[0, 1::2] == 1).all() and not paper[0, 0::2].any()
moved = np.ptp(article[1:, 8:], axis=0).max(), np.ptp(paper[1:, 8:], axis=0).max()
print(f"columns 8 to 15 move by at most {moved[0]:.4f} (article), {moved[1]:.2f} (paper) over 99 positions")
assert moved[0] < 0.01 and moved[1] > 0.8
normalised = get_positional_encoding(100, 16, normalise=True)
np.testing.assert_allclose(np.linalg.norm(normalised[1:], axis=1), 1)
np.testing.assert_allclose(np.linalg.norm(paper, axis=1), np.sqrt(8))                   # sin^2 + cos^2 = 1, 8 pairs

print(plot.save(plot.positional_encoding(article), figures / "positional_article_a.png"))

# %%
# Two positions for a picture
# ---------------------------
# A patch has a row and a column. MAE gives half of the width to the column and half to the row, each in halves again. In the
# picture, the positions of near patches are the most alike, and half of the numbers are equal along a row or a column.

table = sincos_2d((8, 8), 128)                                  # (64, 128)
np.testing.assert_array_equal(table[8 * 3 + 5], np.r_[sinusoidal_halves(8, 64)[5], sinusoidal_halves(8, 64)[3]])

print(plot.save(plot.position_grid(table, (8, 8)), figures / "positional_2d.png"))

# %%
# An offset is a rotation
# -----------------------
# Why sines and cosines? One 2 x 2 rotation per pair takes *every* PE(pos) to PE(pos + k):
#
# .. math::
#
#    \begin{pmatrix} \sin \omega (pos + k) \\ \cos \omega (pos + k) \end{pmatrix} =
#    \begin{pmatrix} \cos \omega k & \sin \omega k \\ -\sin \omega k & \cos \omega k \end{pmatrix}
#    \begin{pmatrix} \sin \omega\, pos \\ \cos \omega\, pos \end{pmatrix} \qquad (3)
#
# So a matrix can learn "three words back" once, for all positions, and PE(p) . PE(q) depends on p - q only. Article A's table
# has lost this: no matrix takes its rows to the rows three below, because a sine without its cosine cannot be turned.


def rotation(k, width):
    turn = np.zeros((width, width))
    for pair in range(width // 2):
        angle, at = k / 10000 ** (2 * pair / width), slice(2 * pair, 2 * pair + 2)
        turn[at, at] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]        # (3)
    return turn


table = sinusoidal_interleaved(21, 8)
np.testing.assert_allclose(table[:-3] @ rotation(3, 8).T, table[3:], atol=1e-12)
for offset in range(21):
    np.testing.assert_allclose(np.diag(table @ table.T, offset), table[0] @ table[offset], atol=1e-12)

for name, rows in (("paper", paper), ("article A", article[1:])):
    best, *_ = np.linalg.lstsq(rows[:-3], rows[3:])             # the matrix that comes closest
    print(f"{name}: the best matrix for 'three on' misses by up to {np.abs(rows[:-3] @ best - rows[3:]).max():.1e}")
    assert (np.abs(rows[:-3] @ best - rows[3:]).max() < 1e-6) == (name == "paper")

print(plot.save(plot.position_rotation(table, 3), figures / "positional_rotation.png"))

# %%
# Add or concatenate?
# -------------------
# The two are close. What follows the sum is a matrix: ``(x + p) W = x W + p W``. Concatenation followed by a matrix is
# ``x W1 + p W2``. So adding is concatenating with W1 = W2: less freedom, but no wider model.

x, w = rng.normal(size=(10, 64)), rng.normal(size=(64, 5))
added = (x + vectorised) @ w
joined = np.concatenate([x, vectorised], axis=1) @ np.concatenate([w, w])               # (10, 128) @ (128, 5)
np.testing.assert_allclose(added, joined, atol=1e-12)

# %%
# The backward
# ------------
# y[b, t] = x[b, t] + table[t], so
#
# .. math::
#
#    dx = dy \qquad (4) \qquad\qquad dtable[t] = \sum_b dy[b, t] \qquad (5)
#
# (4) is trivial: a sum hands its gradient on unchanged. (5) matters only for a learned table: every sentence of the batch adds
# the same row t, so their gradients add up. Rows that no sentence reached get 0. For sines nobody needs (5).


def backward(dy, cache):
    _, rows = cache
    dtable = np.zeros((rows, dy.shape[2]))
    for sentence in dy:
        dtable[: len(sentence)] += sentence                     # (5)
    return dy.copy(), dtable                                    # (4)


x, table = rng.normal(size=(3, 4, 6)), rng.normal(size=(5, 6))  # (B, T, D), and one row more than T
dy, cache = rng.normal(size=x.shape), positional_forward(x, table)[1]
for ours, packaged in zip(backward(dy, cache), positional_backward(dy, cache), strict=True):
    np.testing.assert_allclose(ours, packaged, atol=1e-14)
rows = gradcheck(positional_forward, positional_backward, x, table)
print(format_rows("positional", rows))
assert all(row.ok for row in rows)

# %%
# Article E's PositionalEncoding, and why it drops out
# ----------------------------------------------------
# ``PositionalEncoding(num_hiddens, dropout, max_len=1000)`` adds a fixed table, then drops entries of the *sum*. *Dropout*
# sets each entry to 0 with probability p, and divides the others by 1 - p, so that the mean over many draws is still x + P;
# its backward does the same to the same entries of dy. Article E's reason: so that the model is not too sensitive to P. A sine
# that is sometimes missing cannot be relied on alone; the same position has to be read from several hands.


def positional_encoding_forward(x, table, dropout, rng=None):
    summed, position = positional_forward(x, table)
    y, drop = dropout_forward(summed, dropout, rng)
    return y, (position, drop)


def positional_encoding_backward(dy, cache):
    position, drop = cache
    return positional_backward(dropout_backward(dy, drop), position)


P = sinusoidal_interleaved(1000, 6)                             # max_len=1000
draws = np.array([positional_encoding_forward(x, P, 0.1, rng)[0] for _ in range(2000)])
off = np.abs(draws.mean(axis=0) - x - P[:4]).max()
print(f"share dropped: {np.mean(draws == 0):.3f}; the mean of 2000 draws differs from x + P by at most {off:.2f}")
assert 0.09 < np.mean(draws == 0) < 0.11 and off < 0.2
rows = gradcheck(positional_encoding_forward, positional_encoding_backward, x, table, dropout=0.3, rng=0)
assert all(row.ok for row in rows)

# %%
# Break it: positions along the batch
# -----------------------------------
# Code written for (T, B, D), as in PyTorch's tutorial, adds ``table[: len(x)]`` along axis 0. Fed with (B, T, D), it gives a
# position to each *sentence*, the same to all its words, and nothing complains. The gradient check stays blind: forward and
# backward agree with each other. An invariant sees it: a sentence comes out otherwise alone than in its batch.


def along_batch_forward(x, table):
    return x + table[: len(x), None], (len(table),)


def along_batch_backward(dy, cache):
    (rows,) = cache
    dtable = np.zeros((rows, dy.shape[2]))
    dtable[: len(dy)] = dy.sum(axis=1)
    return dy.copy(), dtable


assert all(row.ok for row in gradcheck(along_batch_forward, along_batch_backward, x, table))   # blind
assert_batch_independent(lambda x: positional_forward(x, table)[0], x)
try:
    assert_batch_independent(lambda x: along_batch_forward(x, table)[0], x)
    raise RuntimeError("the invariant should have seen it")
except AssertionError as complaint:
    print(complaint)

# %%
# A learnable encoding
# --------------------
# Article E's exercise 2. The simplest design: the table is a parameter. The task needs order: sentences of twenty words, drawn
# from ten; at each place the model must name the word *before* it. The model is one head of attention (lesson 4; for now: a
# place takes words from where its query fits their keys) between an embedding and a linear map.

V, D, T = 10, 32, 20


def model_forward(ids, targets, p, table):
    words, embedding = embedding_forward(ids, p["words"])
    x, position = positional_forward(words, table)              # (B, T, D)
    z, attention = multi_head_attention_forward(x, x, p["attn"], heads=1)
    logits, out = linear_forward(z, **p["out"])                 # (B, T, V)
    loss, cross_entropy = cross_entropy_forward(logits, targets, ignore_index=-1)
    return loss, (embedding, position, attention, out, cross_entropy)


def model_backward(dloss, cache):
    embedding, position, attention, out, cross_entropy = cache
    dz, dw, db = linear_backward(cross_entropy_backward(dloss, cross_entropy), out)
    dxq, dxkv, dattn = multi_head_attention_backward(dz, attention)
    dx, dtable = positional_backward(dxq + dxkv, position)      # x went to the queries, and to the keys and values
    return {"words": embedding_backward(dx, embedding), "attn": dattn, "out": {"w": dw, "b": db}}, dtable


# %%
# Three tables: none, learned, sines. Without positions the loss stays a little under ln 10: the model sees which words there
# are, not which one came before. The learned table, from noise of size 0.02, solves the task as the sines do.


def model_init(rng):
    attention = init.multi_head_attention(D, 1, rng, bias=False, dtype=np.float64)
    words = init.normal((V, D), rng, 0.5, np.float64)
    return {"words": words, "attn": attention, "out": init.linear(D, V, rng, dtype=np.float64)}


def sentences_of(length, count, rng):
    ids = rng.integers(0, V, (count, length))
    return ids, np.concatenate([np.full((count, 1), -1), ids[:, :-1]], axis=1)          # nothing stands before place 0


def train(table, learn=False, seed=0, steps=200):
    rng = np.random.default_rng(seed)
    params = model_init(rng) | ({"table": table.copy()} if learn else {})
    optimizer = AdamW(params)
    for step in range(steps):
        loss, cache = model_forward(*sentences_of(T, 32, rng), params, params.get("table", table))
        grads, dtable = model_backward(1.0, cache)
        optimizer.step(params, grads | ({"table": dtable} if learn else {}), warmup_cosine(step, steps, 50, 0.01))
    return params, loss


# %%

ids, targets = sentences_of(T, 2, rng)
start = init.normal((T, D), rng, 0.02, np.float64)
rows = gradcheck(model_forward, model_backward, ids, targets, model_init(rng), start, samples=5)
assert all(row.ok for row in rows)                              # the whole model, its table included

_, none = train(np.zeros((T, D)))
_, sines = train(sinusoidal_interleaved(T, D))
learned, loss = train(start, learn=True)
print(f"loss at the end: no positions {none:.2f} (ln 10 = {np.log(V):.2f}), sines {sines:.3f}, learned {loss:.3f}")
assert 1.9 < none < np.log(V) and sines < 0.05 and loss < 0.05

# %%
# What it learned
# ---------------
# Positions alone, without any word, give scores between all places: table W_Q (table W_K)^T. With the learned table the line
# below the diagonal stands out: "the place before me". Nobody told it that places have an order; the gradient (5) did.

p = learned["attn"]
scores = (learned["table"] @ p["q"]["w"]) @ (learned["table"] @ p["k"]["w"]).T / np.sqrt(D)
_, cache = model_forward(*sentences_of(T, 64, rng), learned, learned["table"])
weights = attention_weights(cache[2])[:, 0].mean(axis=0)       # (T, T), mean of 64 sentences
assert (scores[1:].argmax(axis=1) == np.arange(T - 1)).all() and np.diag(weights, -1).mean() > 0.7

caption = (
    "How to read it: rows are places that look, columns places that are looked at. Left, scores from the learned positions "
    "alone; right, the attention, mean of 64 sentences. The line is 'the place before me'. Place 0 has none, and is not asked."
)
top = float(np.ceil(np.abs(scores).max()))
panels = [plot.Panel("scores of positions", scores, top, signed=True), plot.Panel("attention", weights)]
print(plot.save(plot.heatmaps(panels, "key (place)", "query (place)", caption, columns=2), figures / "positional_learned.png"))

# %%
# Does it extrapolate?
# --------------------
# Article C: trained on 20 words, the formula still has a row for word 21; a learned table has none, and says so. But having the
# row is not knowing what to do with it: the models below, trained with sines, still answer most questions at word 21, and soon
# only some. A better solution was there: the rotation (3) with k = -1 as W_Q finds the place before, however far out. Twenty
# places never asked for it, and training found another.

try:
    positional_forward(np.zeros((1, 21, D)), learned["table"])
except ValueError as error:
    print(error)

far, places = sinusoidal_interleaved(60, D), np.arange(1, 60)
rates = {}
ids, targets = sentences_of(60, 256, rng)
for seed in range(3):
    _, cache = model_forward(ids, targets, train(far[:T], seed=seed)[0], far)
    right = (cache[-1][0].argmax(axis=-1) == targets).mean(axis=0)[1:]                  # at places 1 to 59
    rates[f"trained on 20 words, seed {seed}"] = places, right
    print(f"seed {seed}: words 2 to 20 {right[:19].mean():.2f}, word 21 {right[19]:.2f}, word 25 on {right[23:].mean():.2f}")
    assert right[:19].mean() > 0.95 and right[19] > 0.5 and right[23:].mean() < 0.55
found = (far @ rotation(-1, D).T @ far.T).argmax(axis=1)       # query: my place, turned one back; keys: all places
rates["rotation set by hand"] = places, (found[1:] == places - 1).astype(float)
assert (found[1:] == places - 1).all()

caption = (
    "How to read it: how often the word before is named, at each place of 60-word sentences. Training saw places 0 to 19. "
    "Beyond them the trained models are right only here and there, though the sines go on; the rotation (3) never fails."
)
figure = plot.curves(rates, "place", "share right", caption, levels={"guessing": 1 / V}, ylim=(0, 1.05))
print(plot.save(figure, figures / "positional_extrapolation.png"))

# %%
# Exercises
# ---------
# 1. What is PE(pos) . PE(pos), the square of its length, for width D = 64? Think before you compute.
#
# 2. Somebody concatenates positions instead of adding them. Write the backward of ``concatenate_forward``, (dx, dtable).
#
# 3. Rotate instead of add (RoPE, Su et al. 2021): ``rotate_forward`` turns each pair of x[t] by t times its speed, as (3) does.
#    Write its backward; the cache holds the matrices. You need no derivation if you know what undoes a rotation.
#
# For a whole file to complete: ``python -m tinymae exercise positional_encoding``, and ``exercise dropout``.

answer_1 = None
if answer_1 is not None:
    assert np.isclose(answer_1, (sinusoidal_interleaved(5, 64)[3] ** 2).sum()), "sin^2 + cos^2 is 1: how many pairs are there?"


def concatenate_forward(x, table):
    rows = np.broadcast_to(table, (len(x), *table.shape))       # (B, T, D) and (T, E) -> (B, T, D + E)
    return np.concatenate([x, rows], axis=2), (x.shape[2],)


answer_2 = None
if answer_2 is not None:
    rows = gradcheck(concatenate_forward, answer_2, np.ones((3, 4, 5)), np.ones((4, 2)))
    assert all(row.ok for row in rows), f"every sentence of the batch got the same table\n{format_rows('', rows)}"


def rotate_forward(x):
    turns = np.stack([rotation(t, x.shape[2]) for t in range(x.shape[1])])              # (T, D, D)
    return (turns @ x[..., None])[..., 0], (turns,)             # y[b, t] = turns[t] x[b, t]


answer_3 = None
if answer_3 is not None:
    rows = gradcheck(rotate_forward, answer_3, np.random.default_rng(1).normal(size=(2, 4, 6)))
    assert all(row.ok for row in rows), f"y = R x gives dx = R^T dy: turn back\n{format_rows('', rows)}"

# %%
# In the articles
# ---------------
# - **A, part 1 (位置编码).** [1, 7] ids become [1, 7, 512], then positions are added; 吃饭没 / 没吃饭 / 没饭吃 is its example.
#   The two quirks of its code, the optional division by the norm and its heatmap have a section here.
# - **C, section 2.2.** Gives both reasons for sines: they go on past the training length (20 -> 21 words), and PE(pos + k) is
#   linear in PE(pos). The second is exactly true; the first is true of the table, and hardly of a model trained on 20 words.
# - **C, section 6.** Without positions a Transformer is a bag of words: the first section runs it.
# - **D, positional encoding.** The example of width 4 and the picture 20 x 512 are in halves, the picture 10 x 64 interleaved.
# - **E, positional encoding.** Writes p(i, 2j) with i for the position and j for the pair: our pos and i. The section "Article
#   E's PositionalEncoding" rebuilds its class. Exercise 2 is "A learnable encoding"; exercise 1 is answered in lesson 9.
# - **Vaswani et al., section 3.5**, tried learned positions too, with nearly the same result. ViT learns them; MAE does not.
