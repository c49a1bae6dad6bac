"""
Gradients · 梯度
================

A network learns by changing its numbers a little, again and again, so that a loss
falls. How does training know, for each of a million numbers, whether to raise it or to
lower it? The gradient answers this. In this project every gradient is written by hand.

You will be able to say what a gradient is, to derive one with the chain rule, and to
write the backward pass of a linear layer, as a loop and with matrix products.

Time: 20 minutes to read, 2 seconds to run.
Needs: nothing.
Read beside: article A (MAE:Masked Autoencoders Are Scalable Vision Learners), 残差设计;
article D (笔记 | 深入理解Transformer), 九、回顾训练过程. They show the forward pass only.
"""

# %%
# How to walk through a lesson
# ----------------------------
# You need some Python and NumPy, the product of two matrices, and the derivative: how
# fast does y change when x changes? ``python -m tinymae lesson 1 --step`` shows this
# file cell by cell; ``python lessons/01_gradients.py`` runs it as a whole. Figures go
# to the folder ``figures``.

from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.linear import linear_backward, linear_forward

figures = Path("figures")
rng = np.random.default_rng(1)

# %%
# The five articles
# -----------------
# The lessons are read beside five Chinese articles, and call them by a letter. One is
# enough. Each lesson ends with "In the articles": what they say, and what is wrong.
#
# - **A**: MAE:Masked Autoencoders Are Scalable Vision Learners, 2022-01-13. A blog that
#   credits Jack Cui: MAE, then the Transformer from its parts, as PyTorch classes.
# - **B**: 「解析」Attention 关键点, 2022-02-19. A short note on an aggregator page:
#   attention as in ViT, in code.
# - **C**: Transformer模型详解（图解最完整版）, edited in November 2021. 初识CV on Zhihu:
#   the encoder-decoder in pictures, with readers' questions below it.
# - **D**: 笔记 | 深入理解Transformer, 2021-11-11. 小白学视觉, after Jay Alammar's
#   Illustrated Transformer.
# - **E**: 67 自注意力, without a date. Notes to 李沐, 动手学深度学习 v2: self-attention and
#   positional encoding, with two exercises.

# %%
# Why a gradient
# --------------
# Here is the smallest network: one weight, which should turn the input 2 into the
# target 6. The loss is the squared error. In this project ``dname`` is the gradient of
# the loss with respect to ``name`` (for short: the gradient *in* it): ``dweight`` says
# how fast the loss rises when the weight grows. The loss should fall, so training
# subtracts the gradient times a small number, the *learning rate*.


def train(rate, steps=20):
    weight, losses = 0.0, []
    for _ in range(steps):
        error = weight * 2.0 - 6.0
        losses.append(error * error)
        derror = 2 * error                  # how fast the loss rises with the error
        dweight = derror * 2.0              # times how fast the error rises with weight
        weight -= rate * dweight
    return weight, losses


weight, losses = train(rate=0.05)
print(*(f"loss {loss:.4f}" for loss in losses[::5]), f"weight {weight:.4f}", sep="; ")
assert abs(weight - 3) < 1e-3

# %%
# What a gradient is
# ------------------
# For one weight the gradient is the slope of a curve, drawn here at two points. With
# two weights it is two slopes: a vector. It points in the direction in which the loss
# rises fastest, and its length is the slope there: the cell measures it by a tiny step
# in each of 360 directions.

weights = np.linspace(-1, 7, 81)
drawn = {"loss": (weights, (weights * 2 - 6) ** 2)}
for at in (0, 4):
    slope = 2 * (at * 2 - 6) * 2                                # dweight of `train`
    near = np.array([at - 0.8, at + 0.8])
    line = (at * 2 - 6) ** 2 + slope * (near - at)
    drawn[f"slope {slope} at weight {at}"] = (near, line)
caption = (
    "How to read it: a straight line touches the curve at one weight; its slope is the "
    "gradient. Subtract it: at 0 the weight moves right, at 4 left; the loss falls."
)
figure = plot.curves(drawn, "weight", "loss", caption)
print(plot.save(figure, figures / "gradients_slope.png"))

inputs, error = np.array([2.0, 1.0]), -6.0      # loss (2 w0 + 1 w1 - 6) ** 2 at (0, 0)
gradient = 2 * error * inputs                                           # (2,)
angles = np.radians(np.arange(360))
directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)         # (360, 2)
moved = error + 1e-6 * directions @ inputs                              # (360,)
slopes = (moved * moved - error * error) / 1e-6
steepest = slopes.max() * directions[slopes.argmax()]                   # (2,)
print(f"gradient {gradient}; steepest slope times its direction {steepest.round(1)}")
np.testing.assert_allclose(steepest, gradient, atol=0.25)               # to a degree

# %%
# The chain rule on numbers
# -------------------------
# A network is a chain of small steps. The *chain rule* joins their slopes: go backward
# from the loss, and multiply by the slope of each step. If a number is used twice, the
# loss depends on it on two paths, and the two gradients are *added*: a is in b and c.

a = 2.0
b = 3 * a                                   # 6
c = a * a                                   # 4
loss = b * c                                # 24
dloss = 1.0                                 # the loss rises as fast as itself
db = dloss * c                              # 4: b is multiplied by c
dc = dloss * b                              # 6
da = db * 3 + dc * 2 * a                    # 12 + 24: one summand for each path
print(f"loss {loss:.0f}, da = {db * 3:.0f} + {dc * 2 * a:.0f} = {da:.0f}")
assert da == 9 * a * a                      # since loss = 3 a a a

# %%
# A backward pass, as a loop
# --------------------------
# The most common layer is the linear map. t counts positions, i inputs, j outputs:
#
# .. math::
#
#    y_{tj} = \sum_i x_{ti} w_{ij} + b_j \qquad (1)
#
# The next layer's backward pass gives us ``dy``: how fast the loss rises with each
# :math:`y_{tj}`. We need to know nothing else about the loss. Apply the chain rule to
# one number at a time: find every y that uses it, multiply dy there by the slope, and
# add. In (1), the slope of :math:`y_{tj}` in :math:`x_{ti}` is :math:`w_{ij}`, its
# slope in :math:`w_{ij}` is :math:`x_{ti}`, and its slope in :math:`b_j` is 1.


def linear_loop(x, w, b, dy):
    y = np.zeros(dy.shape) + b
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(b.shape)
    for t in range(x.shape[0]):
        for j in range(w.shape[1]):
            for i in range(w.shape[0]):
                y[t, j] += x[t, i] * w[i, j]                    # (1)
                dx[t, i] += dy[t, j] * w[i, j]                  # (2)
                dw[i, j] += x[t, i] * dy[t, j]                  # (3)
            db[j] += dy[t, j]                                   # (4)
    return y, dx, dw, db

# %%
# The same, vectorised
# --------------------
# Each sum of the loop is a matrix product. A gradient has the shape of its array, and
# for these shapes there is only one way to multiply:
#
# .. math::
#
#    dx = dy \, w^T \ (2) \qquad dw = x^T dy \ (3) \qquad db = \sum_t dy_t \ (4)
#
# ``tinymae/ops/linear.py`` has the same lines with the same numbers. Every *op* of the
# package is such a pair: a forward pass, which returns its result and a *cache* (what
# the backward pass will need), and below it the backward pass.

x = rng.normal(size=(5, 3))                                     # 5 positions, 3 inputs
w = rng.normal(size=(3, 4))                                     # 3 inputs, 4 outputs
b = rng.normal(size=4)
dy = rng.normal(size=(5, 4))
dx, dw, db = dy @ w.T, x.T @ dy, dy.sum(axis=0)                 # (2), (3), (4)
vectorised = (x @ w + b, dx, dw, db)                            # (1)
loop = linear_loop(x, w, b, dy)
y, cache = linear_forward(x, w, b)
package = (y, *linear_backward(dy, cache))
for i, name in enumerate(("y", "dx", "dw", "db")):
    np.testing.assert_allclose(vectorised[i], loop[i])
    np.testing.assert_allclose(vectorised[i], package[i])
    print(f"{name:2} {vectorised[i].shape}: loop, matrix product and package agree")

# %%
# Check one number
# ----------------
# All three could share one mistake. The forward pass gives independent evidence: move
# one weight a little up and a little down, and measure how much the loss changes. As
# loss we take the sum of dy * y: its gradient in y is dy. Lesson 2 goes on from here.

h = 1e-5
up, down = w.copy(), w.copy()
up[1, 2] += h
down[1, 2] -= h
change = np.sum(dy * (x @ up + b)) - np.sum(dy * (x @ down + b))
print(f"dw[1, 2]: backward pass {dw[1, 2]:.8f}, measured {change / (2 * h):.8f}")
assert abs(change / (2 * h) - dw[1, 2]) < 1e-8

# %%
# Break it: too long a step
# -------------------------
# A gradient is the slope at one point. After too long a step you are on the other side
# of the minimum, and higher than before. There the gradient is larger, the next step is
# longer, and the loss grows without end. Each gradient is right; the learning rate is
# wrong. (The error is multiplied by ``1 - 8 * rate``, which at 0.25 is -1.)

for rate in (0.05, 0.24, 0.26):
    _, losses = train(rate)
    print(f"rate {rate:.2f}: losses {np.round(losses[:4], 1)} ... {losses[-1]:.1f}")
    assert (losses[-1] < losses[0]) == (rate < 0.25)
assert losses == sorted(losses)                                 # at 0.26 it only grows

# %%
# Exercises
# ---------
# Write your answers in place of ``None``, and run the file again: a wrong one stops
# with a hint. For a whole file to complete: ``python -m tinymae exercise linear``.

# 1. For which learning rate does `train` reach the weight 3 in a single step?
answer_1 = None
if answer_1 is not None:
    reached, _ = train(answer_1, steps=1)
    assert abs(reached - 3) < 1e-9, "the weight starts at 0, and dweight is -24"


# 2. A residual connection: x goes through a linear map, and is added to the result.
#    Write def answer_2(dy, cache), which returns (dx, dw). x reaches y on two paths.
def residual_forward(x, w):
    return x @ w + x, (x, w)


answer_2 = None
if answer_2 is not None:
    rows = gradcheck(residual_forward, answer_2, x, rng.normal(size=(3, 3)))
    assert all(row.ok for row in rows), "\n" + format_rows("your backward", rows)

# %%
# In the articles
# ---------------
# - **A, 残差设计**: 使梯度直接走捷径反传到最初始层, the gradient takes a short cut. That is right: in
#   exercise 2, dy passes the plus sign unchanged, whatever w is. It is one of the two
#   gradients that add up to dx. Lesson 11 measures it in a deep stack.
# - **D, 九** says that the loss is 做一个简单的减法, a simple subtraction. It is not. In "Why a
#   gradient" the subtraction is ``error``; the loss is its square. The *gradient* is a
#   subtraction: here twice the error, and for D's loss, the cross entropy, see lesson
#   20.
