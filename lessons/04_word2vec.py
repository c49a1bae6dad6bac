"""
Word2Vec: vectors from neighbours · Word2Vec：从邻居学词向量
============================================================

One article says that Word2Vec computes the embedding, another that it may. How can
vectors be learned from text alone, and which ones should a model use?

You will be able to train word vectors with skip-gram and negative sampling, to say what
it means that two are near, and to choose between trained, frozen and loaded vectors.

Time: 25 minutes to read, 5 seconds to run.
Needs: lessons 1 to 3.
Read beside: Mikolov et al. 2013 (arXiv 1310.4546), section 2.2; article A (MAE:Masked
Autoencoders Are Scalable Vision Learners), 1、位置嵌入; article C
(Transformer模型详解（图解最完整版）), 2.1 单词 Embedding.
"""

# %%
# Words with the same neighbours
# ------------------------------
# Count, for each word, how often each of the V words stands at most two positions from
# it. *cat* and *dog* have the same neighbours: the cosine of their rows of counts is 1.
# For *cat* and *monday* it is 0.1. Word2Vec finds vectors with this property that have
# few numbers: 16 instead of V. The last 3000 sentences are the validation set.

import math
import tempfile
from pathlib import Path

import numpy as np
from scipy.special import expit as sigmoid

from tinymae import init, plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.embedding import embedding_backward, embedding_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.text.batches import pad_batch
from tinymae.text.grammar import phrasebook
from tinymae.text.tokens import tokenize_words
from tinymae.text.vectors import load_word_vectors
from tinymae.text.vocabulary import PAD, Vocabulary
from tinymae.train.optim import AdamW

rng = np.random.default_rng(14)
sentences = [tokenize_words(english) for english, _ in phrasebook()]
vocabulary = Vocabulary.build(sentences)
V = len(vocabulary)
ids = pad_batch([vocabulary.encode(words) for words in sentences])      # (B, T)
ids = rng.permutation(ids)                                      # rows in random order


def neighbours(ids, apart):
    left, right = ids[:, :-apart].ravel(), ids[:, apart:].ravel()
    return np.stack([left, right], axis=1)[(left != PAD) & (right != PAD)]


def unit(table):
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)


pairs = np.concatenate([neighbours(ids[:-3000], apart) for apart in (1, 2)])
pairs = np.concatenate([pairs, pairs[:, ::-1]])                 # (pairs, 2): both ways
counts = np.zeros((V, V))
np.add.at(counts, (pairs[:, 0], pairs[:, 1]), 1)
cat, dog, monday = unit(counts)[vocabulary.encode(["cat", "dog", "monday"])]
print(f"{len(pairs)} pairs; cat, dog: {cat @ dog:.2f}; cat, monday: {cat @ monday:.2f}")
assert cat @ dog > 0.99 and abs(cat @ monday - 0.1) < 0.05

# %%
# Skip-gram with negative sampling
# --------------------------------
# There are two tables: u for a word, v for a word as a neighbour. Take a word c, one of
# its true neighbours (k = 0), and K random words. The product of u and v should be
# large for the true neighbour and small for the others. The *sigmoid*,
# :math:`\sigma(s) = 1 / (1 + e^{-s})`, makes a probability of it. The gradient (3) is
# what the model predicts minus what is true: [k = 0] is 1 for k = 0, otherwise 0.
#
# .. math::
#
#    s_k = u_c \cdot v_{o_k} \quad (1) \qquad
#    loss = -\log \sigma(s_0) - \sum_{k=1}^{K} \log \sigma(-s_k) \quad (2)
#
#    ds_k = \sigma(s_k) - [k = 0] \quad (3) \qquad
#    du_c = \sum_k ds_k \, v_{o_k} \quad (4) \qquad dv_{o_k} = ds_k \, u_c \quad (5)


def skip_gram_forward(centres, others, p):
    u, cache_u = embedding_forward(centres, p["u"])             # (B, D)
    v, cache_v = embedding_forward(others, p["v"])              # (B, 1 + K, D)
    s = (u[:, None] * v).sum(axis=2)                            # (1)  (B, 1 + K)
    true = np.arange(s.shape[1]) == 0
    loss = -np.log(sigmoid(np.where(true, s, -s))).sum() / len(s)           # (2), mean
    return loss, (u, v, s, true, cache_u, cache_v)


def skip_gram_backward(dloss, cache):
    u, v, s, true, cache_u, cache_v = cache
    ds = dloss * (sigmoid(s) - true) / len(s)                   # (3), mean
    du = (ds[:, :, None] * v).sum(axis=1)                       # (4)
    dv = ds[:, :, None] * u[:, None]                            # (5)
    return {"u": embedding_backward(du, cache_u), "v": embedding_backward(dv, cache_v)}


small = {"u": rng.normal(size=(9, 4)), "v": rng.normal(size=(9, 4))}
centres, others = rng.integers(0, 9, 6), rng.integers(0, 9, (6, 3))
loop = 0.0
for b, k in np.ndindex(6, 3):
    s = small["u"][centres[b]] @ small["v"][others[b, k]]       # (1)
    loop -= math.log(sigmoid(s if k == 0 else -s)) / 6          # (2)
np.testing.assert_allclose(skip_gram_forward(centres, others, small)[0], loop)
rows = gradcheck(skip_gram_forward, skip_gram_backward, centres, others, small)
print(format_rows("skip-gram", rows))
assert all(row.ok for row in rows)

# %%
# Train it
# --------
# If v starts at 0, each of the 1 + K probabilities is 1/2, and the first loss is
# :math:`(1 + K) \ln 2`. It cannot reach 0: a word has many neighbours, and some random
# words are among them. (The paper draws frequent words more often; lesson 21 has
# AdamW.)


def train(K, steps):
    p = {"u": init.normal((V, 16), rng, 0.25), "v": np.zeros((V, 16), np.float32)}
    optimizer, losses = AdamW(p), []
    for step in range(steps):
        batch = pairs[rng.integers(0, len(pairs), 1024)]
        random = rng.integers(4, V, (1024, K))          # from 4: no special token
        others = np.concatenate([batch[:, 1:], random], axis=1)         # (B, 1 + K)
        loss, cache = skip_gram_forward(batch[:, 0], others, p)
        optimizer.step(p, skip_gram_backward(1.0, cache), 0.02 * (1 - step / steps))
        losses.append(float(loss))
    return p["u"], losses


vectors, losses = train(K=5, steps=800)
print(f"loss {losses[0]:.3f} (6 ln 2 = {6 * math.log(2):.3f}) to {losses[-1]:.2f}")
assert abs(losses[0] - 6 * math.log(2)) < 1e-5 and 0.8 < losses[-1] < 2

# %%
# What near means
# ---------------
# Near is a large cosine. The nearest to an animal is mostly an animal: no label said
# so. But near means the same neighbours, not the same meaning: *hot* is near *cold*.

groups = {
    "animals": ["cat", "dog", "bird", "rabbit", "cow"],
    "drinks": ["water", "tea", "coffee", "milk", "juice"],
    "cities": ["beijing", "tokyo", "london", "paris", "berlin"],
    "weather": ["hot", "cold", "warm", "cool"],
}


def nearest(table, word):
    order = np.argsort(-unit(table) @ unit(table)[vocabulary.encode([word])[0]])
    return [vocabulary.words[i] for i in order if i > 3][1:]    # first: word itself


def score(table):               # the fraction whose nearest word is in their group
    return np.mean([nearest(table, w)[0] in g for g in groups.values() for w in g])


print("cat ->", *nearest(vectors, "cat")[:4], "; hot ->", *nearest(vectors, "hot")[:4])
print(f"the nearest word is in the same group for {score(vectors):.0%} of the words")
assert score(vectors) > 0.7 and "cold" in nearest(vectors, "hot")[:3]

rows = unit(vectors)[vocabulary.encode([word for g in groups.values() for word in g])]
_, _, directions = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
flat = unit(vectors) @ directions[:2].T                         # (V, 2)
drawn = {name: (flat[vocabulary.encode(g)], g) for name, g in groups.items()}
caption = (
    "How to read it: of the 16 dimensions you see the two directions in which these "
    "words differ most. Near means the same neighbours. The axes have no meaning."
)
figure = plot.points(drawn, "first direction", "second direction", caption)
print(plot.save(figure, Path("figures") / "word2vec_map.png"))

# %%
# Break it: no random words
# -------------------------
# With K = 0 only true neighbours are left, whose products should be large. This is easy
# if all vectors point the same way. The loss goes to 0, and little is learned.

collapsed, losses = train(K=0, steps=200)
print(f"last loss {losses[-1]:.3f}; nearest in the same group: {score(collapsed):.0%}")
assert losses[-1] < 0.01 and score(collapsed) < score(vectors) - 0.2

# %%
# Trained, frozen, or someone else's
# ----------------------------------
# Vectors are published as text, a word and its numbers on each line. We write ours to
# such a file and load it. Then a model of two matrices learns to predict the next word
# from one word. Its embedding starts at random or from the file, and is trained or
# *frozen*: its gradient is set to 0. With few sentences the loaded vectors know more
# than the model can learn. With many, a table that is trained for the task is better.

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "vectors.txt"
    lines = np.column_stack([vocabulary.words[4:], vectors[4:].astype(str)])
    np.savetxt(path, lines, fmt="%s", encoding="utf-8")
    loaded = load_word_vectors(path, vocabulary, rng)
validation = neighbours(ids[-3000:], 1)                         # (pairs, 2)


def next_word(start, count, frozen):
    p = {"table": start.copy(), "w": np.zeros((16, V), np.float32)}
    data, optimizer = neighbours(ids[:count], 1), AdamW(p)
    for _ in range(200):
        batch = data[rng.integers(0, len(data), 256)]
        x, embedding = embedding_forward(batch[:, 0], p["table"])
        _, cache = cross_entropy_forward(x @ p["w"], batch[:, 1])
        dlogits = cross_entropy_backward(1.0, cache)
        dtable = embedding_backward(dlogits @ p["w"].T, embedding) * (not frozen)
        optimizer.step(p, {"table": dtable, "w": x.T @ dlogits}, 0.02)
    assert frozen == np.array_equal(p["table"], start)          # training moves it
    logits = p["table"][validation[:, 0]] @ p["w"]
    return cross_entropy_forward(logits, validation[:, 1])[0]


for count in (300, 10_000):
    random = next_word(init.normal((V, 16), rng, 0.5), count, frozen=False)
    frozen = next_word(loaded.table, count, frozen=True)
    trained = next_word(loaded.table, count, frozen=False)
    print(f"{count} sentences, validation loss: random {random:.2f},",
          f"loaded and frozen {frozen:.2f}, loaded and trained {trained:.2f}")
    assert (frozen < min(random, trained)) == (count == 300)

# %%
# Exercises
# ---------
# Write your answers in place of ``None``, and run the file again.

# 1. With 10 random words for each true neighbour, and v = 0: what is the first loss?
answer_1 = None
if answer_1 is not None:
    _, losses = train(K=10, steps=1)
    assert abs(answer_1 - losses[0]) < 0.01, "all products are 0, and sigmoid(0) is 1/2"

# 2. Write def answer_2(dtable, found), which freezes the rows where found is True.
answer_2 = None
if answer_2 is not None:
    moved = answer_2(np.ones_like(loaded.table), loaded.found).any(axis=1)
    assert [*np.flatnonzero(moved)] == [0, 1, 2, 3], "only <pad> to <unk> are not found"

# %%
# In the articles
# ---------------
# - **A, 1** is wrong: 用到的方法就是 Word2Vec. The Transformer's table is trained with its
#   other parameters; Word2Vec is one possible start. "Trained, frozen, or someone
#   else's" has both, and asserts that training moves the table.
# - **C, 2.1** names both ways, and is right.
