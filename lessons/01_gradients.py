"""
Gradients, and how to check them · 梯度与梯度检查
=================================================

A network learns because it knows, for each of its numbers, whether the loss rises or falls when that number grows a
little. That is the gradient. Here every gradient is written by hand, and a mistake in one raises no error: often the
loss still falls, only less. So this first lesson has two questions. Where does a gradient come from? And how do you
know that yours is right, before you train for an hour with it?

Read beside: article A, part 3 (a residual is a short cut for gradients), and article D, training (a target and a loss).
The articles show the way forward; here you see the way back, too.
"""

# %%
# How to walk through a lesson
# ----------------------------
# You need some Python, NumPy, and the derivative from school: how fast does y change when x changes?
#
# ``python -m tinymae lesson 1 --step`` shows this file cell by cell: read, press Enter to run the cell, look at what came
# out; ``i`` lets you play with the variables, ``b`` goes back. Or run the whole file: ``python lessons/01_gradients.py``.
# Pictures go to the folder ``figures``. You cannot break anything here, so try things.

import math
from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.layernorm import layernorm_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward

figures = Path("figures")
rng = np.random.default_rng(1)

# %%
# Why a gradient
# --------------
# The smallest network there is: one weight, which should turn 2 into 6. The loss is the squared error. In this project ``d``
# and a name is the gradient of the loss with respect to that name: ``dweight`` says how fast the loss rises when the
# weight grows. It points uphill, so training subtracts it.

weight, target = 0.0, 6.0
for step in range(20):
    error = weight * 2.0 - target
    loss = error * error
    derror = 2 * error                                          # how fast the loss rises with the error
    dweight = derror * 2.0                                      # the chain rule: times how fast the error rises with the weight
    if step % 5 == 0:
        print(f"step {step:2}   weight {weight:.4f}   loss {loss:7.4f}   dweight {dweight:8.4f}")
    weight -= 0.05 * dweight
print(f"after 20 steps: {weight:.4f} * 2 = {weight * 2:.4f}")
assert abs(weight - 3) < 1e-3

# %%
# The chain rule, one number at a time
# ------------------------------------
# A real layer has many weights and many positions. The most common one is the linear map; t counts positions, i inputs, j
# outputs:
#
# .. math::
#
#    y_{tj} = \sum_i x_{ti} w_{ij} + b_j \qquad (1)
#
# The layer above hands us ``dy``: how fast the loss rises with each :math:`y_{tj}`. What the loss is, we need not know. The
# chain rule for one number: go through every y that it reaches, multiply the gradient of that y by how strongly the number
# reaches it, and add up. In (1), :math:`x_{ti}` reaches :math:`y_{tj}` with strength :math:`w_{ij}`, and :math:`w_{ij}`
# reaches it with strength :math:`x_{ti}`. So one loop serves both passes.


def linear_loop(x, w, b, dy):
    y, dx, dw, db = np.zeros(dy.shape) + b, np.zeros_like(x), np.zeros_like(w), np.zeros_like(b)
    for t, i, j in np.ndindex(len(x), *w.shape):
        y[t, j] += x[t, i] * w[i, j]                            # (1)
        dx[t, i] += dy[t, j] * w[i, j]                          # (2)
        dw[i, j] += x[t, i] * dy[t, j]                          # (3)
    for t, j in np.ndindex(dy.shape):
        db[j] += dy[t, j]                                       # (4)
    return y, dx, dw, db


# %%
# The same without loops
# ----------------------
# Read the loop's sums as matrix products. A gradient has the shape of what it belongs to, and that leaves only one way to put
# the factors together:
#
# .. math::
#
#    dx = dy \, w^T \quad (2) \qquad dw = x^T dy \quad (3) \qquad db = \sum_t dy_t \quad (4)
#
# The same numbers stand in ``tinymae/ops/linear.py``, in its docstring and behind the lines of its code. Every op of the
# package is such a pair: a forward that also returns a *cache*, what the way back will need, and right below it the backward.

x, w, b = rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)          # 5 positions, 3 in, 4 out
dy = rng.normal(size=(5, 4))
y, cache = linear_forward(x, w, b)
package = (y, *linear_backward(dy, cache))
ours = (x @ w + b, dy @ w.T, x.T @ dy, dy.sum(axis=0))
for name, a, loop, p in zip(("y", "dx", "dw", "db"), ours, linear_loop(x, w, b, dy), package, strict=True):
    np.testing.assert_allclose(a, loop)
    np.testing.assert_allclose(a, p)
    print(f"{name:2} {a.shape}: loop, matrix product and package agree")

# %%
# Ask the forward pass
# --------------------
# They agree, but one head wrote them all, and the same error in reasoning would be in each. There is a witness that knows no
# backward. Move one number a little up and a little down, run the forward twice, and see how much the loss changed:
#
# .. math::
#
#    \frac{dL}{dx_i} \approx \frac{L(x_i + h) - L(x_i - h)}{2 h}
#
# This is a *central difference*. Which loss? Any will do. With :math:`L = \sum dy \cdot y` its gradient with respect to y is
# the dy that we chose.


def differences(loss, x, h=1e-5):
    dx = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        here = x[place]
        x[place] = here + h
        above = loss()
        x[place] = here - h
        dx[place] = (above - loss()) / (2 * h)
        x[place] = here
    return dx


for name, array, gradient in zip(("dx", "dw", "db"), (x, w, b), linear_backward(dy, cache), strict=True):
    error = np.abs(gradient - differences(lambda: np.sum(dy * linear_forward(x, w, b)[0]), array)).max()
    print(f"{name}: backward and differences are at most {error:.0e} apart")
    assert error < 1e-8

# %%
# How small a step?
# -----------------
# A derivative is what remains as h goes to 0. In a computer, h must not: the two losses agree in more and more digits, so
# their difference keeps fewer and fewer, and dividing by h blows up the rounding. A large h is wrong, too: the function bends
# between the two points. Watch both errors in float64 and in float32, on a *softmax*: it raises e to the power of each score
# and divides by the sum, so that a row becomes positive numbers that sum to 1.

scores, dp = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
true = softmax_backward(dp, softmax_forward(scores)[1])


def error_of(h, dtype):
    s = scores.astype(dtype)
    numeric = differences(lambda: np.sum(dp.astype(dtype) * softmax_forward(s)[0]), s, h)
    return np.linalg.norm(numeric - true) / np.linalg.norm(true)


steps = 10.0 ** np.arange(-13, 0.1, 0.25)
errors = {dtype: [error_of(float(h), dtype) for h in steps] for dtype in ("float64", "float32")}
for name, curve in errors.items():
    print(f"{name}: best step {steps[np.argmin(curve)]:.0e}, error {min(curve):.0e}")
assert 1e-6 < steps[np.argmin(errors["float64"])] < 1e-4 and min(errors["float64"]) < 1e-9
assert min(errors["float32"]) > 1e-6                            # it cannot tell right from nearly right
caption = (
    "How to read it: from right to left the step gets smaller. First the error falls, because the function bends less over a "
    "smaller step; then it rises, because rounding is all that is left. Below the dashed line a difference is good enough to "
    "judge a backward: blue is there for a wide range of steps, orange never."
)
curves = {name: (steps, curve) for name, curve in errors.items()}
levels = {"gradcheck tolerates 1e-6": 1e-6}
figure = plot.curves(curves, "step h", "relative error of the difference", caption, levels=levels, xscale="log", yscale="log")
print(plot.save(figure, figures / "gradients_step.png"))

# %%
# The checker, and what it says
# -----------------------------
# ``tinymae.gradcheck`` is this idea made careful: float64, a random dy, a step where the blue curve is lowest, and a second
# look where a function has a corner. One line for each argument: its worst place, what your backward says there, what the
# differences say, the relative error. A wrong gradient usually leaves a fingerprint, and the last column reads it. Three
# mistakes that everybody makes once:

rows = gradcheck(linear_forward, linear_backward, x, w, b)
print(format_rows("linear", rows))
assert all(row.ok for row in rows)
mistakes = {
    "a mean, twice": (lambda dy, dx, dw, db: (dx, dw / len(dy), db), "5 is the batch size"),
    "no sum for b": (lambda dy, dx, dw, db: (dx, dw, dy), "summed over axes (0,)"),
    "dy^T x": (lambda dy, dx, dw, db: (dx, dw.T, db), "transpose(1, 0)"),
}
for name, (mistake, cause) in mistakes.items():
    rows = gradcheck(linear_forward, lambda dy, cache, m=mistake: m(dy, *linear_backward(dy, cache)), x, w, b)
    print("", format_rows(name, rows), sep="\n")
    assert cause in "".join(row.diagnosis for row in rows)

# %%
# Break it: dy = 1
# ----------------
# Some checkers start from :math:`L = \sum y`, which is dy = 1 everywhere. Look what that does to a softmax: a row sums to 1
# whatever its scores are, so the true gradient is 0. A backward that is *1000 times* too large says 1000 times 0, and passes.
# With a random dy nothing cancels.


def thousand(dp, cache):
    return 1000 * softmax_backward(dp, cache)


ones = np.ones_like(scores)
numeric = differences(lambda: np.sum(ones * softmax_forward(scores)[0]), scores)
blind = np.abs(thousand(ones, softmax_forward(scores)[1]) - numeric).max()
rows = gradcheck(softmax_forward, thousand, scores)
print(f"with dy = 1 the two are at most {blind:.0e} apart: it passes", format_rows("dy random", rows), sep="\n")
assert blind < 1e-9 and not rows[0].ok and "1000 times too large" in rows[0].diagnosis

# %%
# Break it: at the initial values
# -------------------------------
# A *layer normalisation* moves each row to mean 0 and variance 1, then multiplies by gamma and adds beta, which start at 1 and
# 0 (article A: alpha and beta). Its backward multiplies dy by gamma *before* it takes two means; lesson 7 derives it. This one
# does so afterwards, and while gamma is 1 nobody can tell. So check with a gamma that is not 1 and a beta that is not 0.


def gamma_last(dy, cache):
    xhat, rstd, gamma = cache
    dx = gamma * rstd * (dy - dy.mean(axis=-1, keepdims=True) - xhat * (dy * xhat).mean(axis=-1, keepdims=True))
    return dx, (dy * xhat).sum(axis=0), dy.sum(axis=0)


h, gamma, beta = rng.normal(size=(5, 6)), rng.normal(size=6), rng.normal(size=6)
start = gradcheck(layernorm_forward, gamma_last, h, np.ones(6), np.zeros(6))
later = gradcheck(layernorm_forward, gamma_last, h, gamma, beta)
print(format_rows("at the start", start), format_rows("in training", later), sep="\n\n")
assert all(row.ok for row in start)
assert not later[0].ok and "right only while gamma = 1" in later[0].diagnosis

# %%
# Break it: equal sizes
# ---------------------
# The mean over all positions, as a classifier takes it. Its backward hands dy to every position, divided by how many there
# are. This one divides by the wrong size, and is right when there are as many positions as features. So give every axis a
# size of its own, such as 2, 3, 5, 4. A size of 1 hides even more: in a batch of one, "only the first item" is right.

for shape in ((4, 4), (5, 3)):
    rows = gradcheck(
        lambda x: (x.mean(axis=0), x),                              # (T, D) -> (D,)
        lambda dy, x: np.broadcast_to(dy / x.shape[1], x.shape),    # x.shape[0] would be right
        rng.normal(size=shape),
    )
    print(format_rows(f"mean of {shape}", rows))
    assert rows[0].ok == (shape[0] == shape[1])

# %%
# The noise floor
# ---------------
# Rounding shifts a difference by up to about :math:`10 \, \epsilon |L| / h`, with :math:`\epsilon = 2.2 \cdot 10^{-16}`. A
# small gradient behind a large loss is below that, and no check can judge it. An honest one says so: "cannot be judged" is not
# "right". Make the loss smaller and look again. For the same reason ``gradcheck`` refuses float32.

for offset in (0.0, 1e6):
    rows = gradcheck(
        lambda x, offset: (float(1e-6 * (x * x).sum() + offset), x), lambda dloss, x: dloss * 2e-6 * x, x[0], offset=offset
    )
    print(format_rows(f"loss + {offset:g}", rows))
    assert rows[0].ok == (offset == 0)
assert "cannot be judged" in rows[0].diagnosis

# %%
# How a check goes blind
# ----------------------
# It compares backward with forward, and nothing else. A *wrong forward* with the right derivative of itself passes. Here
# attention (lesson 4) divides its scores by :math:`\sqrt{d_{model}}`, where the paper has :math:`\sqrt{d_k}`, the width of one
# of its heads. Both passes agree, so the check passes, and a model would even learn. Other witnesses find it: a loop written
# from the formula, as here; numbers from another program (``tests/golden`` has PyTorch's); and *invariants*, what must hold
# for any weights, such as "no word sees a later one" (``tinymae.gradcheck.invariants``, lessons 6 and 10).

q, k, v = rng.normal(size=(2, 4, 3, 8)), rng.normal(size=(2, 4, 5, 8)), rng.normal(size=(2, 4, 5, 6))     # (B, H, T, d)
root = math.sqrt(q.shape[1])                                    # sqrt(d_model) = sqrt(H) sqrt(d_k)


def wrong_forward(q, k, v):
    return scaled_dot_product_attention_forward(q / root, k, v)


def wrong_backward(dy, cache):
    dq, dk, dv = scaled_dot_product_attention_backward(dy, cache)
    return dq / root, dk, dv


rows = gradcheck(wrong_forward, wrong_backward, q, k, v)
exps = [math.exp(q[0, 0, 0] @ key / math.sqrt(8)) for key in k[0, 0]]           # one query of one head, by the formula
by_hand = sum(e * value for e, value in zip(exps, v[0, 0], strict=True)) / sum(exps)
off = np.abs(wrong_forward(q, k, v)[0][0, 0, 0] - by_hand).max()
print(format_rows("sqrt(d_model)", rows), f"against the formula it is off by {off:.2f}", sep="\n")
np.testing.assert_allclose(scaled_dot_product_attention_forward(q, k, v)[0][0, 0, 0], by_hand)
assert all(row.ok for row in rows) and off > 0.05

# %%
# Exercises
# ---------
# Write your answers in place of ``None``, and run the file again. A wrong answer stops with a hint.

# 1. x (5, 3), w (3, 4) and b (4,) are checked by central differences, one number after the other.
#    How many times do the differences run the forward?
answer_1 = None
if answer_1 is not None:
    assert answer_1 == 2 * (x.size + w.size + b.size), "each number moves once up and once down, while the others stand still"


# 2. A residual: x goes into a linear map, and is added to what comes out. Write def answer_2(dy, cache), which returns
#    (dx, dw). Remember that x reaches y in two ways.
def residual_forward(x, w):
    return x @ w + x, (x, w)


answer_2 = None
if answer_2 is not None:
    rows = gradcheck(residual_forward, answer_2, rng.normal(size=(5, 3)), rng.normal(size=(3, 3)))
    assert all(row.ok for row in rows), "\n" + format_rows("your backward", rows)

# 3. Four wrong backwards of a softmax, each given dp and p. dy = 1 catches one of them only: write its name.
suspects = {
    "twice": lambda dp, p: 2 * p * (dp - np.sum(dp * p, axis=-1, keepdims=True)),
    "sign": lambda dp, p: -p * (dp - np.sum(dp * p, axis=-1, keepdims=True)),
    "diagonal": lambda dp, p: p * (1 - p) * dp,
    "plain mean": lambda dp, p: p * (dp - dp.mean(axis=-1, keepdims=True)),
}
answer_3 = None
if answer_3 is not None:
    p = softmax_forward(scores)[0]
    caught = [name for name, wrong in suspects.items() if np.abs(wrong(ones, p)).max() > 1e-9]
    assert [answer_3] == caught, "put dp = 1 into each formula: the true gradient is 0, and so are three of these"

# %%
# In the articles
# ---------------
# - **A, part 3** calls X + SubLayer(X) a short cut for gradients. In exercise 2 it is one summand: dy comes through the plus
#   sign unchanged, whatever w is. Lesson 7 measures how much that does in a deep stack.
# - **A, part 3**: alpha starts at 1 and beta at 0, the very values at which "Break it: at the initial values" is blind.
# - **B** writes :math:`\sqrt{d}`, **D** divides by 8, the root of a head's 64: d is the width of one head. "How a check goes
#   blind" shows why a gradient check cannot tell it from the width of the model; lesson 4 goes into it.
# - **D, training**: targets and a loss. "Why a gradient" has the smallest of both; lesson 11 has the real loss.
# - Code for PyTorch, as in **A**, leaves the way back to ``loss.backward()``, which runs the same sums as ``linear_backward``.

# %%
# Where to go next
# ----------------
# ``python -m tinymae lesson 2 --step`` goes on: from words to numbers. Or write a backward of your own now:
#
# - ``python -m tinymae exercise softmax`` writes ``softmax.py``, with the forward, the equations and a blank backward;
# - ``python -m tinymae check softmax.py`` checks what you wrote, and says what is wrong with it;
# - ``python -m tinymae exercise numerical_gradient`` asks for the differences of this lesson;
# - ``python -m tinymae exercise`` lists all exercises, ``python -m tinymae lessons`` all lessons.
#
# A good first attempt is a wrong one: leave a term out, and read what the check says.
