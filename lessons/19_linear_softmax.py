"""
Linear and softmax: from a vector to a word · 线性层与 softmax：从向量到词
============================================================================

The decoder ends in a vector, and the reader wants a word. A linear layer gives each
word of the vocabulary a number, the softmax makes probabilities of the numbers.
Article C leaves the linear layer out, and then there is no word.

You will be able to compute logits and probabilities, to say what the Output Embedding
is, and to write the backward of a matrix that is used at both ends of the decoder.

Time: 20 minutes to read, 2 seconds to run. Needs: lessons 3 and 17.

Read beside: Vaswani et al. 2017, section 3.4; article C (Transformer模型详解), "5.3
Softmax 预测输出单词"; article D (笔记 | 深入理解Transformer), "八、Linear 和 Softmax层" and
"九、回顾训练过程".
"""

# %%
# Six words in a plane
# --------------------
# Article D's vocabulary: *a am i thanks student <eos>*. Let the decoder's vector have
# dimension 2. The linear layer W has a column for each word, an arrow in the same
# plane. The logit of a word is the dot product of the vector with its arrow: for x =
# (2, 1) and *am* = (1, 1) it is 3. The softmax makes probabilities of the logits, and
# the largest wins.

import math
from pathlib import Path

import numpy as np

from tinymae import init, plot
from tinymae.gradcheck import gradcheck
from tinymae.models.transformer import decode, embedding_table, encode, to_vocabulary
from tinymae.ops.embedding import embedding_backward, embedding_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward
from tinymae.tasks.translate import Translator
from tinymae.text.vocabulary import BOS

figures = Path("figures")
words = ["a", "am", "i", "thanks", "student", "<eos>"]
w = np.array([[0.0, 1.0, 1.0, -1.0, -1.0, 0.0],
              [1.0, 1.0, 0.0, 1.0, 0.0, -1.0]])                 # (D, V) = (2, 6)
x = np.array([2.0, 1.0])                                        # (D,)
logits = x @ w                                                  # (V,)
p = np.exp(logits) / np.exp(logits).sum()
for word, logit, probability in zip(words, logits, p, strict=True):
    print(f"{word:8} logit {logit:4.0f}   probability {probability:.3f}")
assert logits.tolist() == [1, 3, 2, -1, -2, -1] and words[p.argmax()] == "am"
one_hot = np.eye(6)[words.index("am")]
assert one_hot.tolist() == [0, 1, 0, 0, 0, 0]                   # article D's row for am

caption = (
    "How to read it: each word of the vocabulary is a point, its column of W. The "
    "logit of a word is large where its point lies in the direction of x and far from "
    "the origin. Here am is first and i second."
)
groups = {"words (columns of W)": (w.T, words), "x, from the decoder": (x[None], ["x"])}
figure = plot.points(groups, "dimension 0", "dimension 1", caption)
print(plot.save(figure, figures / "logits_plane.png"))

# %%
# As a loop, and vectorised
# -------------------------
# For each position t and each word v:
#
# .. math::
#
#    z_{tv} &= \sum_i x_{ti} w_{iv} + b_v \quad (1) \\
#    p_{tv} &= e^{z_{tv}} / \sum_u e^{z_{tu}} \quad (2)
#
# The vectors of five positions are random here, as those of an untrained decoder are.

rng = np.random.default_rng(0)
T, D, V = 5, 8, 6
x = rng.normal(size=(T, D))
w = rng.normal(size=(D, V))
b = rng.normal(size=V)


def probabilities_loop(x, w, b):
    p = np.zeros((len(x), len(b)))
    for t in range(len(x)):                                     # every position
        z = [b[v] + sum(x[t, i] * w[i, v] for i in range(D)) for v in range(V)]  # (1)
        total = sum(math.exp(each) for each in z)
        for v in range(V):                                      # every word
            p[t, v] = math.exp(z[v]) / total                    # (2)
    return p


logits, _ = linear_forward(x, w, b)                             # (T, V)
p, _ = softmax_forward(logits)                                  # (T, V)
np.testing.assert_allclose(probabilities_loop(x, w, b), p, atol=1e-12)
np.testing.assert_allclose(p.sum(axis=1), 1)
assert np.array_equal(logits.argmax(axis=1), p.argmax(axis=1))  # no softmax to choose
print("the most probable words, untrained:", *(words[v] for v in p.argmax(axis=1)))

# %%
# The softmax alone gives no word
# -------------------------------
# Article C, 5.3, goes from the decoder's matrix Z straight to the softmax. Then a row
# has D probabilities, of dimensions and not of words. In the package's translator Z has
# 128 columns, and the vocabulary 415 tokens. Each row of Z does predict one token, as C
# says: row t the token after token t. How does a row become a word, a reader asks? By
# (1), (2) and the largest entry.

translator = Translator.load()
chinese, english = translator.languages
params, config = translator.params, translator.config
source = np.array([chinese.encode("我是学生")])
fed = np.array([[BOS, *english.encode("i am a student")[:-1]]])
memory, _ = encode(source, params, config)
z, _ = decode(fed, memory, source, params, config)              # (1, 5, 128)
straight, _ = softmax_forward(z[0])                             # (5, 128): no words
logits, _ = to_vocabulary(z[0], params, config)                 # (5, 415)
print("softmax of Z", straight.shape, "| Linear, then softmax", logits.shape)
print("predicted:", *(english.vocabulary.words[v] for v in logits.argmax(axis=1)))
assert straight.shape[1] == 128 and logits.shape[1] == len(english.vocabulary) == 415
assert english.text(logits.argmax(axis=1).tolist()) == "i am a student"

# %%
# What is the Output Embedding?
# -----------------------------
# A reader of article C asks: is it the input X, or the encoder's output C? It is
# neither, but the lookup of the *decoder's* input, the target tokens shifted right.
# They have a table of their own, (V, D), a row for each target token.
#
# The last linear layer is (D, V), a column for each target token. Vaswani et al., 3.4,
# use one matrix for both: *tied weights*. (In the lookup they multiply it by the square
# root of D.) The package's translator does so too: no matrix of its own for the output,
# 53,120 parameters less. For article D's 10,000 words and D = 512: 5.12 million less.

table = embedding_table("tgt", params, config)                  # (V, D)
assert "out" not in params and table.shape == (415, 128) and table.size == 53120
assert init.linear(512, 10_000, None)["w"].size == 5_120_000
np.testing.assert_allclose(logits, z[0] @ table.T, atol=1e-4)   # its rows are columns
embedded, _ = embedding_forward(fed, table)                     # (1, 5, D)
assert np.array_equal(embedded[0, 0], table[BOS])

# %%
# The backward
# ------------
# With (1) and (2), from dp:
#
# .. math::
#
#    dz_{tv} &= p_{tv} (dp_{tv} - \sum_u dp_{tu} p_{tu}) \quad (3) \\
#    dx &= dz\, W^T, \quad dW = x^T dz, \quad db = \sum_t dz_t \quad (4)
#
# (3) is long because each probability depends on all logits. With the loss of lesson 20
# it becomes a subtraction. For tied weights, W is the table E transposed, and the
# tokens fed were looked up in E too. So E is used twice, and two gradients are added.
# The second, *dtable*, is that of the lookup (lesson 3), and comes from dx:
#
# .. math::
#
#    dE = dW^T + dtable \quad (5)


def head_forward(x, w, b):
    logits, linear = linear_forward(x, w, b)                    # (1)
    p, softmax = softmax_forward(logits)                        # (2)
    return p, (linear, softmax)


def head_backward(dp, cache):
    linear, softmax = cache
    dz = softmax_backward(dp, softmax)                          # (3)
    return linear_backward(dz, linear)                          # (4)  dx, dw, db


def tied_forward(table, ids):
    x, lookup = embedding_forward(ids, table)                   # (T, D)
    p, head = head_forward(x, table.T, None)                    # (T, V)
    return p, (lookup, head)


def tied_backward(dp, cache):
    lookup, head = cache
    dx, dw, _ = head_backward(dp, head)
    return embedding_backward(dx, lookup) + dw.T                # (5)


assert all(row.ok for row in gradcheck(head_forward, head_backward, x, w, b))
small = rng.normal(size=(V, D))
ids = np.array([5, 2, 1, 0, 4])  # <eos> (as <bos>) i am a student
assert all(row.ok for row in gradcheck(tied_forward, tied_backward, small, ids=ids))

# %%
# Break it: one of the two gradients is forgotten
# -----------------------------------------------
# The lookup's part of (5) is left out. Every shape is right, and no error is raised. It
# is easy to forget: the two uses stand at opposite ends of the program. The gradient
# check sees it. All rows are wrong but that of *thanks*, which was not fed.


def forgets_the_lookup(dp, cache):
    _, head = cache
    _, dw, _ = head_backward(dp, head)
    return dw.T


(row,) = gradcheck(tied_forward, forgets_the_lookup, small, ids=ids)
print("without the lookup's part:", row.diagnosis)
assert not row.ok
never_fed = words.index("thanks")  # only dw reaches its row
dp = rng.normal(size=(T, V))
_, cache = tied_forward(small, ids)
difference = tied_backward(dp, cache) - forgets_the_lookup(dp, cache)
assert np.flatnonzero(~difference.any(axis=1)).tolist() == [never_fed]

# %%
# Exercises
# ---------
# 1. D = 512, 37,000 tokens. How many parameters has the last linear layer, with a bias?
# 2. Every logit of a row is made larger by 100. What is added to the probabilities?
# 3. Write a softmax of z (T, V) that survives logits of 1000: ``def answer_3(z): ...``

answer_1 = None
if answer_1 is not None:
    assert answer_1 == np.zeros((512, 37_000)).size + 37_000, "W (D, V), and b (V,)"

answer_2 = None
if answer_2 is not None:
    shifted, _ = softmax_forward(np.log(p) + 100)
    assert abs(answer_2 - np.abs(shifted - p).max()) < 1e-9, "the factor cancels in (2)"

answer_3 = None
if answer_3 is not None:
    large = np.array([[1000.0, 999.0, 0.0], [-1000.0, 0.0, 1.0]])
    with np.errstate(over="ignore", invalid="ignore"):
        found = answer_3(large)
    expected, _ = softmax_forward(large)
    assert np.allclose(found, expected), "subtract each row's own maximum first"

# %%
# In the articles
# ---------------
# - **Article C, 5.3**: "Softmax 根据输出矩阵的每一行预测下一个单词". Wrong as it stands: a
#   Linear comes before the softmax. "The softmax alone gives no word" asserts it.
# - **Article C, the comments**: what is the "Output Embedding", X or C? The author
#   answers with Q, K and V. It is neither: "What is the Output Embedding?".
# - **Article D, 八**: logits, "1万个英语单词", the largest probability, and in 九 the
#   one-hot row of "am": "Six words in a plane".
# - **Vaswani et al., 3.4**: tied weights. In the paper the source's embedding is the
#   same matrix, too.
