"""
Learned positions · 可学习的位置编码
====================================

BERT, GPT-2 and ViT do not use sines: their table of positions is a parameter. BERT's
has 512 rows, so there is no row for token 513, and nothing says that row 3 comes after
row 2. Which gradient trains such a table, and what does it learn?

You will be able to write the backward pass of a table that a batch shares, to train a
table of positions, and to say what happens after the last position of the training.

Time: 25 minutes to read, 6 seconds to run. Needs: lessons 2 and 5.

Read beside: article E (67 自注意力), 位置编码 and 练习 2; article C (Transformer模型详解),
2.2; article A (MAE:Masked Autoencoders Are Scalable Vision Learners), 1、位置嵌入.
"""

# %%
# Add positions, and the backward pass
# ------------------------------------
# y[b, t] = x[b, t] + table[t]. In article A, the seven characters of 我们为什么工作 are ids
# (1, 7), then vectors (1, 7, 512), to which seven rows of a table are added. The
# backward pass:
#
# .. math::
#
#    dx = dy \qquad (1) \qquad\qquad dtable[t] = \sum_b dy[b, t] \qquad (2)
#
# A sum passes its gradient on unchanged: (1). All sentences of a batch use the same row
# t, so their gradients add up in it: (2). Unused rows get 0.

from pathlib import Path

import numpy as np

from tinymae import init, plot
from tinymae.blocks import multi_head_attention_backward, multi_head_attention_forward
from tinymae.gradcheck import gradcheck
from tinymae.gradcheck.invariants import assert_batch_independent
from tinymae.ops.dropout import dropout_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.positional import positional_backward, positional_forward
from tinymae.ops.positional import sinusoidal_interleaved as sinusoidal
from tinymae.train.optim import AdamW, warmup_cosine

figures = Path("figures")
rng = np.random.default_rng(0)
x = rng.normal(size=(7, 512))[np.array([[0, 1, 2, 3, 4, 5, 6]])]        # ids (1, 7)
assert positional_forward(x, sinusoidal(100, 512))[0].shape == (1, 7, 512)


def backward(dy, cache):
    _, rows = cache
    dtable = np.zeros((rows, dy.shape[2]))
    for sentence in dy:
        for t in range(len(sentence)):
            dtable[t] += sentence[t]            # (2)
    return dy.copy(), dtable                    # (1)


x, table = rng.normal(size=(3, 4, 6)), rng.normal(size=(5, 6))          # one row unused
y, cache = positional_forward(x, table)
dy = rng.normal(size=y.shape)
_, dtable = backward(dy, cache)
np.testing.assert_allclose(dtable, positional_backward(dy, cache)[1], atol=1e-14)
np.testing.assert_allclose(dtable[:4], dy.sum(axis=0), atol=1e-14)      # without a loop
assert all(row.ok for row in gradcheck(positional_forward, backward, x, table))

# %%
# Article E's PositionalEncoding
# ------------------------------
# ``PositionalEncoding(num_hiddens, dropout, max_len=1000)`` adds sines, then drops
# entries of the *sum* (dropout): each becomes 0 with probability p, the others are
# divided by 1 - p, so their mean stays x + P. Article E's reason is 防止模型对P太过于敏感: no
# entry can be relied on alone. The class fails at an odd width: of 7 columns, four are
# even and three odd: four cosines for three columns. The package leaves out the last.

P = sinusoidal(1000, 6)                         # max_len = 1000
draws = np.array([dropout_forward(x + P[:4], 0.1, rng)[0] for _ in range(2000)])
assert 0.09 < np.mean(draws == 0) < 0.11
np.testing.assert_allclose(draws.mean(axis=0), x + P[:4], atol=0.1)

angles = np.arange(1000)[:, None] / 10000 ** (np.arange(0, 7, 2) / 7)   # (1000, 4)
P = np.zeros((1000, 7))
P[:, 0::2] = np.sin(angles)
try:
    P[:, 1::2] = np.cos(angles)
    raise RuntimeError("expected an error")
except ValueError as error:
    print(error)
assert sinusoidal(1000, 7).shape == (1000, 7)

# %%
# Break it: positions along the batch
# -----------------------------------
# Code for tokens of shape (T, B, D) adds ``table[: len(x)]`` along axis 0. Fed with (B,
# T, D), it gives one position to each *sentence*, the same to all its tokens. No error
# is raised. An invariant finds it: a sentence gives the same result alone and in a
# batch.

try:
    assert_batch_independent(lambda x: x + table[: len(x), None], x)
    raise RuntimeError("the invariant should have seen it")
except AssertionError as complaint:
    print(complaint)

# %%
# A learnable encoding
# --------------------
# Article E's exercise 2. The simplest answer: the table is a parameter, and (2) trains
# it. The task needs the order: sentences have 20 tokens, drawn from 10; predict at each
# position the token *before* it. The model is one head of attention (lesson 7): its
# input is vector + position, and its last matrix gives a score for each token. Three
# tables: none, sines, and one that starts from noise of size 0.02 and is trained.
# Without positions the loss stays near 2.1 (guessing: ln 10 = 2.30): the model sees
# which tokens there are, not their order. The learned table does as well as the sines.

V, D, T = 10, 32, 20
vectors = rng.normal(size=(V, D)) / 2           # of the tokens; not trained


def model_forward(ids, targets, p):
    x, position = positional_forward(vectors[ids], p["table"])          # (B, T, D)
    logits, attention = multi_head_attention_forward(x, x, p["attn"], heads=1)
    loss, entropy = cross_entropy_forward(logits, targets, ignore_index=-1)
    return loss, (position, attention, entropy)


def model_backward(dloss, cache):
    position, attention, entropy = cache
    dlogits = cross_entropy_backward(dloss, entropy)
    dxq, dxkv, dattn = multi_head_attention_backward(dlogits, attention)
    _, dtable = positional_backward(dxq + dxkv, position)               # (2)
    return {"table": dtable, "attn": dattn}


def sentences(length, count, rng):
    ids = rng.integers(0, V, (count, length))
    targets = np.roll(ids, 1, axis=1)
    targets[:, 0] = -1                          # no token stands before position 0
    return ids, targets


def train(table, learn=False, seed=0, steps=200):
    rng = np.random.default_rng(seed)
    attn = init.multi_head_attention(D, 1, rng, bias=False, dtype=np.float64)
    attn["out"] = init.linear(D, V, rng, bias=False, dtype=np.float64)
    params = {"table": table.copy(), "attn": attn}
    optimizer = AdamW(params)
    for step in range(steps):
        loss, cache = model_forward(*sentences(T, 32, rng), params)
        grads = model_backward(1.0, cache)
        grads["table"] *= learn                 # False: the table stays as it is
        optimizer.step(params, grads, warmup_cosine(step, 200, 50, 0.01))
    return params, loss


small = rng.normal(size=(T, D)) * 0.02
fresh, _ = train(small, steps=1)
rows = gradcheck(model_forward, model_backward, *sentences(T, 2, rng), fresh, samples=5)
assert all(row.ok for row in rows)
_, none = train(np.zeros((T, D)))
_, sines = train(sinusoidal(T, D))
learned, loss = train(small, learn=True)
print(f"no positions {none:.2f}, sines {sines:.3f}, learned {loss:.3f}")
assert 1.9 < none < np.log(V) and sines < 0.05 and loss < 0.05

# %%
# What it learned
# ---------------
# Positions alone, without any token, give scores between all positions. With the
# learned table the largest score of nearly every row is just left of the diagonal: the
# position before. No rule said that positions have an order: gradient (2) found it.

q = learned["table"] @ learned["attn"]["q"]["w"]
k = learned["table"] @ learned["attn"]["k"]["w"]
scores = q @ k.T                                                        # (T, T)
_, cache = model_forward(*sentences(T, 64, rng), learned)
weights = cache[1]["attention"].weights[:, 0].mean(axis=0)
assert (scores[1:].argmax(axis=1) == np.arange(T - 1)).mean() > 0.8
assert np.diag(weights, -1).mean() > 0.7

caption = "How to read it: a row is a query. Bright is the position before; 0 has none."
figure = plot.attention(weights, caption=caption)
print(plot.save(figure, figures / "positional_learned.png"))

# %%
# Position 21 after 20
# --------------------
# Article C: after training on 20 tokens, the formula still has a row for token 21. A
# learned table has none. But a row does not mean that the model can use it. Here, three
# models trained with sines on 20 tokens read longer sentences. At token 21 most
# predictions are right, from 23 on far fewer. A better solution exists: by lesson 5, a
# rotation turns the query PE(pos) into PE(pos - 1), whose product is largest with the
# position before, everywhere. Training on 20 positions did not need it.

far, lengths, curves = sinusoidal(60, D), [10, 15, 20, 21, 22, 23, 25, 30, 40, 60], {}
assert ((far[:-1] @ far.T).argmax(axis=1) == np.arange(59)).all()       # the rotation
for seed in range(3):
    params, accuracy = train(far[:T], seed=seed)[0], []
    for length in lengths:
        ids, targets = sentences(length, 256, rng)
        _, cache = model_forward(ids, targets, params | {"table": far})
        predicted = cache[-1][0].argmax(axis=-1)                        # most probable
        accuracy.append((predicted == targets)[:, -1].mean())
    curves[f"trained on 20 tokens, seed {seed}"] = lengths, accuracy
mean = np.mean([accuracy for _, accuracy in curves.values()], axis=0)
print(f"20 tokens {mean[2]:.2f}, 21 {mean[3]:.2f}, 23 to 60 {mean[5:].mean():.2f}")
assert mean[2] > 0.95 and mean[3] > 0.7 and mean[5:].mean() < 0.75

caption = "How to read it: how often the last position predicts the token before it."
figure = plot.curves(curves, "tokens in the sentence", "accuracy", caption,
                     levels={"guessing": 1 / V}, markers=True)
print(plot.save(figure, figures / "positional_extrapolation.png"))

# %%
# Exercises
# ---------
# 1. Concatenate instead of adding: write the backward of ``concatenate_forward``, (dx,
#    dtable). (A matrix follows in any case, ``(x + p) W = x W + p W`` or
#    ``x W1 + p W2``: adding is concatenating with W1 = W2.)
#
# 2. A batch has 32 sentences of 20 tokens, the table 25 rows, and dy is 1 everywhere.
#    What is the sum of one column of dtable?


def concatenate_forward(x, table):
    rows = np.broadcast_to(table, (len(x), *table.shape))               # (B, T, E)
    return np.concatenate([x, rows], axis=2), (x.shape[2],)             # (B, T, D + E)


answer_1 = None
if answer_1 is not None:
    rows = gradcheck(concatenate_forward, answer_1, np.ones((3, 4, 5)), np.ones((4, 2)))
    assert all(row.ok for row in rows), "every sentence of the batch got the same table"

answer_2 = None
if answer_2 is not None:
    _, dtable = backward(np.ones((32, 20, 1)), ((32, 20, 1), 25))
    assert answer_2 == dtable.sum(), "what do the five unused rows get?"

# %%
# In the articles
# ---------------
# - **E.** 练习 2 is "A learnable encoding". "Article E's PositionalEncoding" raises an
#   error at an odd num_hiddens. "会减少并行性" (positions inside the model cost parallelism)
#   is true of a recurrent model, not of every one: RoPE (Su et al. 2021) rotates
#   queries and keys in each layer. "自编码输入" (an autoencoder's input) should be 自注意力: X +
#   P is the input of self-attention.
# - **C, 2.2.** Token 21 mostly works; from 23 on far less: "Position 21 after 20".
# - **A, 1、位置嵌入.** [1, 7, 512] and the sum are "Add positions, and the backward pass".
