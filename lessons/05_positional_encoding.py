"""
Positional encoding · 位置编码
==============================

吃饭没 (have you eaten?), 没吃饭 (I have not eaten) and 没饭吃 (there is nothing to eat)
are the same three characters. An encoder without positions cannot tell them apart: it
sees a bag of words. So a vector that depends on the position is added to every token.

You will be able to write the sinusoidal encoding with and without a loop, to tell its
two layouts apart, and to compute PE(pos + k) from PE(pos) with a rotation.

Time: 25 minutes to read, 3 seconds to run. Needs: lesson 3.

Read beside: Vaswani et al. 2017, section 3.5; article A (MAE:Masked Autoencoders Are
Scalable Vision Learners), 1、位置嵌入; article C (Transformer模型详解), 2.2 and 6;
article D (笔记 | 深入理解Transformer), 使用位置编码; article E (67 自注意力), 位置编码.
"""

# %%
# Without positions: a bag of words
# ---------------------------------
# Two encoder layers with random weights read the three sentences; lessons 7 to 14 say
# what is in a layer. Without positions, the output of 吃 is the same in all three:
# permute the input, and the outputs permute with it. A classifier takes their mean,
# which is then the same, too. With positions (the table comes below) the means differ.

from pathlib import Path

import numpy as np

from tinymae import init, masks, plot
from tinymae.blocks import encoder_layer_forward
from tinymae.ops.positional import (
    get_positional_encoding,
    sinusoidal_halves,
    sinusoidal_interleaved,
)

figures = Path("figures")
rng = np.random.default_rng(0)
characters = rng.normal(size=(3, 16))           # one vector each for 吃, 饭 and 没
layers = [init.encoder_layer(16, 2, 32, rng, dtype=np.float64) for _ in range(2)]


def read(order, positions, depth=2, mask=None):
    x = (characters[order] + positions)[None]   # (1, 3, 16)
    for layer in layers[:depth]:
        x, _ = encoder_layer_forward(x, layer, 2, mask)
    return x[0]                                 # (3, 16)


none, sines, means = np.zeros((3, 16)), sinusoidal_interleaved(3, 16), []
for order in ([0, 1, 2], [2, 0, 1], [2, 1, 0]):
    without = read(order, none)
    np.testing.assert_allclose(without, read([0, 1, 2], none)[order], atol=1e-12)
    means.append(read(order, sines).mean(axis=0))
    print("without", without.mean(axis=0)[:3].round(2), "with", means[-1][:3].round(2))
assert min(np.abs(means[a] - means[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > 0.1

# %%
# A causal stack is not a bag
# ---------------------------
# In a decoder, a token attends only to itself and to the tokens before it (lesson 10).
# Compare the last token of 没饭吃 and 饭没吃. After one causal layer it is the same in both:
# it has read the bag of all three. But the first token has read itself alone, and the
# second has read both. So after a second causal layer the last token differs: a causal
# stack sees some of the order even without positions (Haviv et al. 2022).

for depth in (1, 2):
    for name, mask in (("encoder", None), ("causal", masks.causal_mask(3))):
        one = read([2, 1, 0], none, depth, mask)[-1]                    # 没饭吃
        two = read([1, 2, 0], none, depth, mask)[-1]                    # 饭没吃
        difference = np.abs(one - two).max()
        print(f"{name}, layers: {depth}, the last token differs by {difference:.3f}")
        sees = (name, depth) == ("causal", 2)
        assert difference > 0.1 if sees else difference < 1e-12

# %%
# Why not simply 0, 1, 2?
# -----------------------
# Article A calls the bare number the simplest way (绝对坐标 0,1,2). Add it to all 64
# dimensions of a token whose entries have standard deviation 1. At position 99 the
# number is far larger than the token: two random tokens have a cosine of almost 1. And
# the dot product of positions p and q is 64 p q: for every p it is largest with the
# last q, not with a near one. A row of sines has its largest dot product with itself.

numbers = np.arange(100.0)[:, None] * np.ones(64)                       # (100, 64)
first, second = rng.normal(size=(2, 64))                                # two tokens
for name, table in (("0, 1, 2", numbers), ("sines", sinusoidal_interleaved(100, 64))):
    a, b = first + table[99], second + table[99]
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    best = (table @ table.T)[1:].argmax(axis=1)                         # for 1 to 99
    print(f"{name}: cosine {cosine:.4f}; positions 1, 2, 3: largest with {best[:3]}")
    assert (cosine > 0.999) == (name == "0, 1, 2")
    assert (best == (99 if name == "0, 1, 2" else np.arange(1, 100))).all()

# %%
# The formula, as a loop and without one
# --------------------------------------
# As pos grows, each pair of columns turns like the hand of a clock, the first fastest.
#
# .. math::
#
#    PE(pos, 2i) = \sin(pos / 10000^{2i/D}) \qquad (1)
#
#    PE(pos, 2i + 1) = \cos(pos / 10000^{2i/D}) \qquad (2)
#
# "Is it 2i for both?" Yes: *i* counts pairs, not columns. Columns 6 and 7 are pair 3,
# and both exponents are 6/D. So i runs while 2i < D; article C's 2i ≤ d is one pair too
# many. Article D's ``get_angles`` starts from the column, so it needs ``i//2``. The
# figure is D's: 10 positions, 64 dimensions. Article E calls them i (pos) and j (i).


def loop(length, width):
    table = np.zeros((length, width))
    for pos in range(length):
        for column in range(width):
            angle = pos / 10000 ** (2 * (column // 2) / width)
            if column % 2 == 0:
                table[pos, column] = np.sin(angle)                      # (1)
            else:
                table[pos, column] = np.cos(angle)                      # (2)
    return table


i = np.arange(64 // 2)                                                  # pairs
angles = np.arange(10)[:, None] / 10000 ** (2 * i / 64)                 # (10, 32)
pairs = np.stack([np.sin(angles), np.cos(angles)], axis=-1)             # (10, 32, 2)
vectorised = pairs.reshape(10, 64)                                      # sin, cos, ...
np.testing.assert_allclose(vectorised, loop(10, 64), atol=1e-14)
np.testing.assert_allclose(vectorised, sinusoidal_interleaved(10, 64), atol=1e-14)
assert 2 * sum(2 * i < 64 for i in range(99)) == 64                     # columns
assert 2 * sum(2 * i <= 64 for i in range(99)) == 66                    # two too many
figure = plot.positional_encoding(vectorised)
print(plot.save(figure, figures / "positional_interleaved.png"))

# %%
# Interleaved, or in halves?
# --------------------------
# Article D shows two layouts: sines and cosines in turn (above), and, for 20 positions
# of 512 dimensions, all sines on the left and all cosines on the right. They hold the
# same numbers in a different order of columns. A model can learn with either: reorder
# the rows of its next weight matrix to match. Trained weights need their own layout.
#
# D's example with 4 dimensions, from the Illustrated Transformer, is in halves, too.
# But by the paper's formula its second column should change 100 times as fast. The
# numbers are those of the Tensor2Tensor code, whose exponent is i / (D/2 - 1) and not i
# / (D/2).

interleaved, halves = sinusoidal_interleaved(20, 512), sinusoidal_halves(20, 512)
order = np.concatenate([np.arange(0, 512, 2), np.arange(1, 512, 2)])    # even, then odd
np.testing.assert_array_equal(interleaved[:, order], halves)
w = rng.normal(size=(512, 4))
np.testing.assert_allclose(interleaved @ w, halves @ w[order], atol=1e-12)
print(plot.save(plot.positional_encoding(halves), figures / "positional_halves.png"))

drawn = [[0, 0, 1, 1], [0.84, 0.0001, 0.54, 1], [0.91, 0.0002, -0.42, 1]]
angles = np.arange(3)[:, None] / 10000 ** (np.arange(2) / (4 / 2 - 1))  # (3, 2)
tensor2tensor = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
np.testing.assert_allclose(tensor2tensor, drawn, atol=0.005)
paper = sinusoidal_halves(3, 4)
print("column 1: D", tensor2tensor[:, 1].round(4), "paper", paper[:, 1].round(4))
np.testing.assert_allclose(paper[1, 1] / tensor2tensor[1, 1], 100, rtol=1e-3)

# %%
# PE(pos + k) from PE(pos)
# ------------------------
# Article C prints two addition formulas. They are the proof; put A = ω pos, B = ω k:
#
# .. math::
#
#    \sin(A + B) = \sin A \cos B + \cos A \sin B \qquad (3)
#
#    \cos(A + B) = \cos A \cos B - \sin A \sin B \qquad (4)
#
# cos B and sin B do not depend on pos. So (3) and (4) are one 2 x 2 matrix per pair, a
# rotation, and the same matrix takes *every* row to the row k further on. A model can
# learn "three tokens back" once for all positions. It follows that PE(p) · PE(q)
# depends only on p - q.


def rotation(k, width):
    matrix = np.zeros((width, width))
    for column in range(0, width, 2):
        b = k / 10000 ** (column / width)
        matrix[column, column : column + 2] = np.cos(b), np.sin(b)      # (3)
        matrix[column + 1, column : column + 2] = -np.sin(b), np.cos(b)         # (4)
    return matrix


table = sinusoidal_interleaved(21, 8)
np.testing.assert_allclose(table[:-3] @ rotation(3, 8).T, table[3:], atol=1e-12)
for offset in range(21):
    products = np.diag(table @ table.T, offset)                         # one p - q
    np.testing.assert_allclose(products, table[0] @ table[offset], atol=1e-12)
print(plot.save(plot.position_rotation(table, 3), figures / "positional_rotation.png"))

# %%
# Break it: article A's get_positional_encoding
# ---------------------------------------------
# ``get_positional_encoding(max_seq_len=100, embed_dim=16)`` differs from the paper
# twice. Its i is the column, not the pair, so a sine and its cosine have different
# speeds, and the right half hardly moves. And row 0 is all zero, where the paper has
# cos(0) = 1. No error is raised. But (3) needs the sine *and* the cosine of one angle.
# The best matrix (least squares) for "three further on" misses by 0.91; for the paper's
# table it is exact.

article = get_positional_encoding(max_seq_len=100, embed_dim=16)
paper = sinusoidal_interleaved(100, 16)
angles = 5 / 10000 ** (2 * np.arange(16) / 16)                          # all columns
np.testing.assert_allclose(article[5, 0::2], np.sin(angles[0::2]))
np.testing.assert_allclose(article[5, 1::2], np.cos(angles[1::2]))
assert (article[0] == 0).all() and (paper[0] == np.tile([0, 1], 8)).all()
for name, rows in (("paper", paper), ("article A", article[1:])):
    closest, *_ = np.linalg.lstsq(rows[:-3], rows[3:])
    miss = np.abs(rows[:-3] @ closest - rows[3:]).max()
    moves = np.ptp(rows[:, 8:], axis=0).max()
    print(f"{name}: misses by {miss:.1e}; columns 8 to 15 move by at most {moves:.2f}")
    assert (miss < 1e-9) == (moves > 0.8) == (name == "paper")
figure = plot.positional_encoding(article)
print(plot.save(figure, figures / "positional_article_a.png"))

# %%
# Exercises
# ---------
# 1. What is PE(pos) · PE(pos) for D = 64? Replace ``None`` by your answer.
#
# 2. Which matrix takes PE(pos) to PE(pos - 2)? Write ``answer_2(width)``.

answer_1 = None
if answer_1 is not None:
    row = sinusoidal_interleaved(5, 64)[3]
    assert np.isclose(answer_1, row @ row), "sin² + cos² is 1. How many pairs?"

answer_2 = None
if answer_2 is not None:
    assert np.allclose(table[2:] @ answer_2(8).T, table[:-2]), "which k goes back?"

# %%
# In the articles
# ---------------
# - **A, 1、位置嵌入.** 吃饭没 is "Without positions: a bag of words"; 绝对坐标 0,1,2 is "Why not
#   simply 0, 1, 2?". A's code takes i to be the column ("i 指的是字嵌入的维度"); in the paper i
#   counts pairs. "Break it" asserts that, and the zeros of row 0.
# - **C, 2.2.** "2i≤d" should be 2i < d: "The formula, as a loop and without one". Its
#   two addition formulas are (3) and (4). Lesson 6 tries the 21st token.
# - **C, 6.** 词袋模型 (bag of words) is true of an encoder: "A causal stack is not a bag".
# - **D.** Its numbers for 4 dimensions are not those of its formula: "Interleaved, or
#   in halves?". **E** has the same formula, as p(i, 2j). Its class is in lesson 6.
