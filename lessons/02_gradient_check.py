"""
Gradient checks · 梯度检查
==========================

A mistake in a backward pass raises no error. Often the loss still falls, only less far.
How do you know that a gradient is right, before you train with it?

You will be able to check any backward pass with finite differences, to choose the step,
to read what the checker of this project prints, and to say what a check cannot see.

Time: 25 minutes to read, 3 seconds to run.
Needs: lesson 1.
Read beside: article A (MAE:Masked Autoencoders Are Scalable Vision Learners), 层归一化.
"""

# %%
# A wrong gradient raises no error
# --------------------------------
# A network of two layers learns to imitate another one: once with its right backward
# pass, and once with one that forgets the slope of tanh, :math:`1 - \tanh^2`. In both
# runs the loss falls. If you saw only the second run, you would believe it.

from functools import partial
from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward

rng = np.random.default_rng(2)


def network_forward(w1, w2, x, target):
    a = np.tanh(x @ w1)                                         # (B, F)
    error = a @ w2 - target                                     # (B, 1)
    return float(np.mean(error * error)), (x, a, error, w2)


def network_backward(dloss, cache, forget=False):
    x, a, error, w2 = cache
    dy = dloss * 2 * error / error.size
    slope = 1.0 if forget else 1 - a * a
    return x.T @ (dy @ w2.T * slope), a.T @ dy                  # dw1, dw2 (lesson 1)


x = rng.normal(size=(64, 5))
target = np.tanh(x @ rng.normal(size=(5, 8))) @ rng.normal(size=(8, 1))
initial = 0.5 * rng.normal(size=(5, 8)), 0.5 * rng.normal(size=(8, 1))
ends = []
for forget in (False, True):
    (w1, w2), losses = initial, []
    for _ in range(401):
        loss, cache = network_forward(w1, w2, x, target)
        losses.append(loss)
        dw1, dw2 = network_backward(1.0, cache, forget)
        w1, w2 = w1 - 0.1 * dw1, w2 - 0.1 * dw2
    print(f"forget {forget!s:5}: loss at steps 0, 100 ...", np.round(losses[::100], 3))
    assert losses[-1] < 0.75 * losses[0]
    ends.append(losses[-1])
assert ends[1] > 1.5 * ends[0]

# %%
# Ask the forward pass
# --------------------
# Move one number a little up and a little down, run the forward pass twice, and divide
# the change of the loss by the distance. This is a *central difference*:
#
# .. math::
#
#    \frac{dL}{dx_i} \approx \frac{L(x_i + h) - L(x_i - h)}{2 h} \qquad (1)
#
# It shares no mistake with a backward pass. But it needs two forward passes for each
# number: it is for checks, not for training.


def differences(loss, x, h=1e-5):
    dx = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        value = x[index]
        x[index] = value + h
        above = loss()
        x[index] = value - h
        dx[index] = (above - loss()) / (2 * h)                  # (1)
        x[index] = value
    return dx


numeric = differences(lambda: network_forward(w1, w2, x, target)[0], w1)
_, cache = network_forward(w1, w2, x, target)
for forget in (False, True):
    dw1, _ = network_backward(1.0, cache, forget)
    apart = np.abs(dw1 - numeric).max()
    print(f"forget {forget!s:5}: dw1 and the differences are up to {apart:.0e} apart")
    assert (apart > 1e-8) == forget

# %%
# How small a step?
# -----------------
# A large h is wrong because the function bends between the two points: an error like
# :math:`h^2`. A small h is wrong because two nearly equal losses are subtracted: their
# rounding, :math:`\epsilon = 2 \cdot 10^{-16}` in float64, is divided by h. Both errors
# are equal if :math:`h^3 = \epsilon`, near 6e-6. We try it on a softmax (lesson 7),
# which makes probabilities of each row of scores.

scores, dp = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
exact = softmax_backward(dp, softmax_forward(scores)[1])
steps = 10.0 ** np.arange(-13, 0.1, 0.25)
curves = {}
for dtype in ("float64", "float32"):
    s, w = scores.astype(dtype), dp.astype(dtype)
    errors = []
    for h in steps.tolist():
        numeric = differences(lambda s=s, w=w: (w * softmax_forward(s)[0]).sum(), s, h)
        errors.append(np.linalg.norm(numeric - exact) / np.linalg.norm(exact))
    curves[dtype] = (steps, np.array(errors))
best, smallest = steps[curves["float64"][1].argmin()], curves["float32"][1].min()
print(f"float64: best step {best:.0e}; float32: smallest error {smallest:.0e}")
assert 6e-6 / 10 < best < 6e-6 * 10 and smallest > 1e-6
caption = (
    "How to read it: from right to left. With a smaller step the error first falls "
    "(less bending), then rises (rounding). A check works only below the dashes."
)
figure = plot.curves(
    curves, "step h", "relative error of the difference", caption,
    levels={"gradcheck tolerates 1e-6": 1e-6}, xscale="log", yscale="log",
)
print(plot.save(figure, Path("figures") / "gradient_check_step.png"))

# %%
# The checker, and what it prints
# -------------------------------
# ``gradcheck`` does this in float64, with the loss sum(dy * y) and a random dy. It
# prints a line for each array: the index of the worst element, its gradient by the
# backward pass (analytic) and by (1) (numeric), the error. ``x=x`` stays constant.

forgetful = partial(network_backward, forget=True)
rows = gradcheck(network_forward, forgetful, w1, w2, x=x, target=target)
print(format_rows("wrong backward", rows))
assert [row.ok for row in rows] == [False, True]                # w1, w2

# %%
# The noise floor
# ---------------
# Rounding changes (1) by up to about :math:`10 \, \epsilon |L| / h`, the *noise floor*.
# A small gradient of a large loss is below it, and no check can judge it. ``gradcheck``
# says so: "cannot be judged" is not "right". Make the loss smaller, and check again.

for offset in (0.0, 1e6):
    rows = gradcheck(
        lambda x, offset: (float(np.sum(1e-6 * x * x) + offset), x),
        lambda dloss, x: dloss * 2e-6 * x, dp[0], offset=offset,
    )
    print(format_rows(f"loss + {offset:g}", rows))
    assert rows[0].ok == (offset == 0)
assert rows[0].cause == "noise"

# %%
# Break it: dy = 1
# ----------------
# A check can be blind in four ways. The first is to use the sum of y as the loss, which
# is dy = 1. A softmax row sums to 1 for any scores, so the right gradient is 0. And
# 1000 times 0 is 0: a gradient 1000 times too large passes. With a random dy it fails.

p, cache = softmax_forward(scores)
numeric = differences(lambda: softmax_forward(scores)[0].sum(), scores)
apart = np.abs(1000 * softmax_backward(np.ones_like(p), cache) - numeric).max()
rows = gradcheck(softmax_forward, lambda dp, c: 1000 * softmax_backward(dp, c), scores)
print(f"dy = 1: at most {apart:.0e} apart", format_rows("dy random", rows), sep="\n")
assert apart < 1e-9 and rows[0].cause == "constant_factor"

# %%
# Blind at the initial values
# ---------------------------
# *Layer normalisation* (lesson 12) gives each row mean 0 and variance 1, multiplies by
# gamma and adds beta, which are 1 and 0 before training. Its backward pass multiplies
# dy by gamma *before* it takes two means. This one does so afterwards, with the same
# result while gamma is 1. So check with a random gamma and a random beta.


def gamma_last(dy, cache):
    xhat, rstd, gamma = cache
    mean_dy, mean_both = dy.mean(axis=1), (dy * xhat).mean(axis=1)
    dx = gamma * rstd * (dy - mean_dy[:, None] - xhat * mean_both[:, None])
    return dx, (dy * xhat).sum(axis=0), dy.sum(axis=0)


z, gamma, beta = rng.normal(size=(5, 6)), rng.normal(size=6), rng.normal(size=6)
start = gradcheck(layernorm_forward, gamma_last, z, np.ones(6), np.zeros(6))
later = gradcheck(layernorm_forward, gamma_last, z, gamma, beta)
print(format_rows("initial", start), format_rows("random", later), sep="\n\n")
assert start[0].ok and later[0].cause == "gain_of_one"

# %%
# Blind when sizes are equal
# --------------------------
# The backward pass of a mean over positions divides by their number. This one divides
# by the number of features: right if the two are equal. Give each axis its own size.

for shape in ((4, 4), (5, 3)):
    rows = gradcheck(
        lambda x: (x.mean(axis=0), x),                          # (T, D) -> (D,)
        lambda dy, x: np.broadcast_to(dy / x.shape[1], x.shape),        # x.shape[0]!
        rng.normal(size=shape),
    )
    print(format_rows(f"mean of {shape}", rows))
    assert rows[0].ok == (shape == (4, 4))

# %%
# Blind to a wrong forward pass
# -----------------------------
# If the forward pass is wrong, and the backward pass is its derivative, they agree.
# Here a layer norm is given x transposed: its means are over positions. Other evidence
# finds it: a loop from the formula, PyTorch's numbers (``tests/golden``), or an
# *invariant* such as "the result of a position does not depend on other positions".

g, b = 1 + rng.random(5), rng.normal(size=5)
rows = gradcheck(layernorm_forward, layernorm_backward, z.T, g, b)
print(format_rows("transposed", rows))
z_other = np.concatenate([z[:1], z[1:] ** 2])                   # position 0 stays
y, _ = layernorm_forward(z.T, g, b)                             # (D, T)
y_other, _ = layernorm_forward(z_other.T, g, b)
print("position 0:", y[:, 0].round(2), "then", y_other[:, 0].round(2))
assert all(row.ok for row in rows) and np.abs(y - y_other)[:, 0].max() > 0.1

# %%
# Exercises
# ---------
# Write your answers in place of ``None``, and run the file again. For whole files:
# ``python -m tinymae exercise numerical_gradient`` and ``exercise softmax``.

# 1. w (3, 4) and b (4,) are checked by (1). How often does the forward pass run?
answer_1 = None
if answer_1 is not None:
    assert answer_1 == 2 * (3 * 4 + 4), "each number moves once up and once down"

# 2. Write def answer_2(dy, cache), the right backward pass of ``layernorm_forward``.
answer_2 = None
if answer_2 is not None:
    rows = gradcheck(layernorm_forward, answer_2, z, gamma, beta)
    assert all(row.ok for row in rows), "\n" + format_rows("your backward", rows)

# %%
# In the articles
# ---------------
# - **A, 层归一化**: its mean is :math:`\mu_i = \frac{1}{m} \sum_{i=1}^{m} x_{ij}`, a sum
#   over i, and its variance subtracts :math:`\mu_j`: the indices are mixed. Read
#   literally, it is the mean over positions of "Blind to a wrong forward pass", which a
#   gradient check does not find. A's words are right: 每一行的每一个元素减去这行的均值.
# - **A** starts alpha with 全 1, beta with 全 0: right, and why a check is blind there.
