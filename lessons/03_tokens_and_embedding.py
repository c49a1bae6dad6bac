"""
Tokens and embedding · 词元与词嵌入
===================================

A network computes with numbers, and a sentence is text. One of the articles writes
[1, 7] for the sentence 我们为什么工作, and [1, 7, 512] after the embedding. Where do the
seven numbers come from, and where the 512 for each of them?

You will be able to cut text into tokens and number them, to look up their vectors in a
table, and to write the backward pass of this table when a token occurs more than once.

Time: 20 minutes to read, 4 seconds to run.
Needs: lessons 1 and 2.
Read beside: Vaswani et al. 2017, section 3.4; article A (MAE:Masked Autoencoders Are
Scalable Vision Learners), 1、位置嵌入; article C (Transformer模型详解（图解最完整版）), 2.1
单词 Embedding; article D (笔记 | 深入理解Transformer), 九、回顾训练过程.
"""

# %%
# Cut a sentence into tokens
# --------------------------
# A *token* is a unit of text that the model treats as one. English has spaces, so words
# and punctuation marks can be tokens. Chinese has none; here each character is a token.
# Other choices are possible: article C draws 我有一只猫 as four words, with 一只 as one.

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.embedding import embedding_backward, embedding_forward
from tinymae.ops.losses import cross_entropy_forward
from tinymae.ops.positional import sinusoidal_interleaved
from tinymae.text.batches import pad_batch
from tinymae.text.grammar import phrasebook
from tinymae.text.tokens import tokenize_characters, tokenize_words
from tinymae.text.vocabulary import UNK, Vocabulary

rng = np.random.default_rng(3)
why = tokenize_characters("我们为什么工作")
print(tokenize_words("Why do we work?"), why)
assert len(why) == 7 and len(tokenize_characters("我有一只猫")) == 5

# %%
# Number the tokens
# -----------------
# The *vocabulary* is the list of all tokens that the model knows. The *id* of a token
# is its index in it. Ids 0 to 3 are special: ``<pad>``, ``<bos>`` (in A ``<start>``),
# ``<eos>`` (``<end>``) and ``<unk>``, which stands for each token that is not in the
# vocabulary. In a batch, short sentences are filled up with ``<pad>`` (id 0) to one
# length. Our text is the Chinese half of a phrasebook that a small grammar generates.

chinese = [tokenize_characters(sentence) for _, sentence in phrasebook()]
vocabulary = Vocabulary.build(chinese)                  # the most frequent tokens first
ids = np.array([vocabulary.encode(why)])
print(len(vocabulary), "tokens:", *vocabulary.words[:10], "...")
print("".join(why), "->", ids, ids.shape)
unknown = vocabulary.encode(tokenize_characters("我们为什么犹豫"))
print(pad_batch([unknown, vocabulary.encode(tokenize_characters("我有猫"))]))
assert ids.shape == (1, 7) and unknown[5:] == [UNK, UNK]

# %%
# Subwords
# --------
# *Byte pair encoding* cuts a word into known parts. It starts from characters. Again
# and again it finds the two neighbours that occur most often, and joins them. Frequent
# words end as one token, rare words as parts that they share with others. ``_`` marks
# the start of a word, ``|`` a cut in what is printed.

text = "old old old older oldest cold cold colder coldest warm warmer warmest"
words = [["_", *word] for word in text.split()]
for _ in range(8):
    neighbours = Counter()
    for word in words:
        neighbours.update(itertools.pairwise(word))
    left, right = max(neighbours, key=neighbours.get)
    for word in words:
        for i in reversed(range(len(word) - 1)):
            if word[i] == left and word[i + 1] == right:
                word[i : i + 2] = [left + right]
print(*sorted({"|".join(word) for word in words}))
assert ["_old"] in words and ["_cold", "est"] in words
assert ["_", "w", "a", "r", "m", "est"] in words

# %%
# A row of a table
# ----------------
# The *embedding* is a table with a row of D numbers for each token of the vocabulary.
# Before training the rows are random. The vector of a token is its row:
#
# .. math::
#
#    y_{bt} = table[ids_{bt}] \qquad (1)
#
# This is how [1, 7] becomes [1, 7, 512]. D is the *model dimension*, 512 in the paper.

table = rng.normal(size=(len(vocabulary), 512))                 # (V, D)
loop = np.zeros((1, 7, 512))
for b in range(ids.shape[0]):
    for t in range(ids.shape[1]):
        loop[b, t] = table[ids[b, t]]                           # (1)
vectorised = table[ids]                                         # (B, T) -> (B, T, D)
y, _ = embedding_forward(ids, table)
print(ids.shape, "->", y.shape)
assert y.shape == (1, 7, 512)
np.testing.assert_array_equal(vectorised, loop)
np.testing.assert_array_equal(y, loop)

# %%
# The same as a matrix product
# ----------------------------
# Article D writes words as *one-hot* vectors: 1 at the id of the word, 0 elsewhere. A
# one-hot row times the table is a row of the table. So an embedding is a linear layer
# (lesson 1) without bias. It is not computed like this: nearly all products are with 0.

six = ["a", "am", "i", "thanks", "student", "<eos>"]            # article D's vocabulary
sentence = ["a", "student", "thanks", "a", "student"]
ids = np.array([[six.index(word) for word in sentence]])        # (1, 5)
table = rng.normal(size=(6, 3))                                 # (V, D)
one_hot = np.eye(6)[ids]                                        # (1, 5, 6)
y, cache = embedding_forward(ids, table)                        # (1, 5, 3)
print("am:", np.eye(6)[six.index("am")])
np.testing.assert_array_equal(one_hot @ table, y)

# %%
# The backward pass: what is used twice gets two gradients
# --------------------------------------------------------
# By the chain rule, the gradient of a row is the sum over all positions that use it.
# "student" occurs twice: its row gets two summands. "am" does not occur: its row gets
# 0, and gradient descent on this sentence leaves it where it is.
#
# .. math::
#
#    dtable_v = \sum_{b,t:\ ids_{bt} = v} dy_{bt} \qquad (2)
#
# This is (3) of lesson 1, :math:`x^T dy`, with one-hot rows as x.

dy = rng.normal(size=y.shape)
loop = np.zeros_like(table)
for b in range(ids.shape[0]):
    for t in range(ids.shape[1]):
        loop[ids[b, t]] += dy[b, t]                             # (2)
vectorised = np.zeros_like(table)
np.add.at(vectorised, ids, dy)                                  # (2)
dtable = embedding_backward(dy, cache)
np.testing.assert_allclose(vectorised, loop)
np.testing.assert_allclose(dtable, loop)
np.testing.assert_allclose(one_hot[0].T @ dy[0], loop)
assert not dtable[six.index("am")].any()
rows = gradcheck(embedding_forward, embedding_backward, ids, table)
print(format_rows("embedding", rows))
assert all(row.ok for row in rows)

caption = (
    "How to read it: forward, each one-hot row picks a row of the table (see y). "
    "Backward, the rows of a and student are sums of two gradients, am has none."
)
panels = [
    plot.Panel("one-hot (T, V)", one_hot[0], down=sentence, across=six),
    plot.Panel("table (V, D)", table, top=5, signed=True, down=six),
    plot.Panel("y (T, D)", y[0], top=5, signed=True, down=sentence),
    plot.Panel("dtable (V, D)", dtable, top=5, signed=True, down=six),
]
figure = plot.heatmaps(panels, "column", "row", caption, columns=2)
print(plot.save(figure, Path("figures") / "embedding_lookup.png"))

# %%
# Break it: dtable[ids] += dy
# ---------------------------
# It looks like (2) in one line. But NumPy reads all rows first, adds, and writes them
# back. If a token occurs twice, only its last position counts. With ids that all
# differ, the two are equal, and a gradient check finds nothing.


def last_one_wins(dy, cache):
    ids, shape = cache
    dtable = np.zeros(shape)
    dtable[ids] += dy
    return dtable


repeated = gradcheck(embedding_forward, last_one_wins, ids, table)
different = gradcheck(embedding_forward, last_one_wins, np.array([[0, 4, 3, 1]]), table)
print(format_rows("repeated", repeated), format_rows("different", different), sep="\n")
assert repeated[0].cause == "repeated_ids" and different[0].ok

# %%
# Why multiply by sqrt(d_model)?
# ------------------------------
# The paper multiplies the rows by :math:`\sqrt{D}` and gives no reason. A usual
# explanation: it uses the table twice. As the last layer, a product with each row of
# the table gives the score of each token (lesson 19). Entries should then be about
# :math:`1/\sqrt{D}`: with entries of 1 the first loss is far above ln V, the loss of a
# model that knows nothing (lesson 20). But then, as the first layer, a row has length
# 1, and the vector of its position, which is added, has length :math:`\sqrt{D/2} = 16`
# (lesson 5). Times :math:`\sqrt{D}`, 22.6, the row is the longer one.

D, V = 512, 1000
positions = np.linalg.norm(sinusoidal_interleaved(60, D), axis=1)
last = rng.normal(size=(200, D))                # entries of 1, as after a layer norm
targets = rng.integers(0, V, 200)
for std in (1 / math.sqrt(D), 1.0):
    table = std * rng.normal(size=(V, D))
    length = np.linalg.norm(table, axis=1).mean()
    scaled = length * math.sqrt(D)
    loss, _ = cross_entropy_forward(last @ table.T, targets)
    print(f"entries of {std:.3f}: length {length:.2f}, times sqrt(D) {scaled:.1f}",
          f"first loss {loss:.2f}, ln V {math.log(V):.2f}", sep="; ")
    assert (loss < 2 * math.log(V)) == (std < 1)
    assert abs(length - std * math.sqrt(D)) < 0.02 * length
np.testing.assert_allclose(positions, 16)

# %%
# Exercises
# ---------
# Write your answers in place of ``None``, and run the file again. For a whole file to
# complete: ``python -m tinymae exercise embedding``.

# 1. Article D speaks of 10,000 words. How many numbers are in their table (D = 512)?
answer_1 = None
if answer_1 is not None:
    assert answer_1 == 10_000 * 512, "a row for each word"


# 2. The embedding times sqrt(D). Write def answer_2(dy, cache), the gradient of table.
def scaled_forward(ids, table):
    return math.sqrt(table.shape[1]) * table[ids], (ids, table.shape)


answer_2 = None
if answer_2 is not None:
    rows = gradcheck(scaled_forward, answer_2, ids, rng.normal(size=(6, 3)))
    assert all(row.ok for row in rows), "\n" + format_rows("your backward", rows)

# %%
# In the articles
# ---------------
# - **A, 1**: [1, 7] to [1, 7, 512] is "A row of a table". A says that the vectors come
#   from Word2Vec (用到的方法就是 Word2Vec), which also decides their size. Neither is so: the
#   table is a parameter of the model, which chooses D and trains the rows with the
#   rest. Lesson 4 shows Word2Vec and the difference.
# - **C, 2.1** is right: the rows come from Word2Vec or GloVe, or are trained with the
#   model. A reader asks about the Output Embedding: it is the table of the target
#   language, looked up for the decoder's input (lesson 19).
# - **C, 1** numbers four words in 我有一只猫; cut into characters there are five tokens.
# - **D, 九**: the one-hot vector of "am" is printed in "The same as a matrix product".
