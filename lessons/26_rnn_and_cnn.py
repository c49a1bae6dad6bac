"""
The recurrent layer and the convolution · 循环层与卷积层
========================================================

Before 2017 a sentence was read by a recurrent network (RNN), token by token, or by a
convolutional network (CNN), window by window. Attention replaced both. To see what it
replaced, build both layers: each is a few lines, forward and backward.

You will be able to write a recurrent layer with backpropagation through time, and a
causal convolution, and to say which of their loops can be vectorised.

Time: 20 minutes to read, 2 seconds to run. Needs: lessons 2 and 7.

Read beside: Vaswani et al. 2017, sections 1, 2 and 4; article E (67 自注意力), 位置编码 and
总结; article A (MAE:Masked Autoencoders Are Scalable Vision Learners), 首先来看看神魔是
Transformer.
"""

# %%
# The recurrent layer, as a loop
# ------------------------------
# A recurrent layer reads one token after another and keeps a state h of D numbers:
#
# .. math:: h_t = \tanh(x_t W_x + b + h_{t-1} W_h) \quad (1) \qquad h_{-1} = 0
#
# In the example a state of one number reads 1, 0, 0 with :math:`W_x = 1`,
# :math:`W_h = 0.5` and b = 0. Two steps later the first token is still there, but
# weaker.

import math
from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.linear import linear_backward, linear_forward


def rnn_loop(x, wx, wh, b):
    h = [0.0] * len(b)
    states = []
    for token in x:
        z = list(b)
        for j in range(len(z)):
            z[j] += sum(token[i] * wx[i, j] for i in range(len(token)))
            z[j] += sum(h[i] * wh[i, j] for i in range(len(h)))
        h = [math.tanh(value) for value in z]  # (1)
        states.append(h)
    return np.array(states)


one = np.ones((1, 1))
states = rnn_loop(np.array([[1.0], [0.0], [0.0]]), one, 0.5 * one, np.zeros(1))[:, 0]
print("states after 1, 0, 0:", states.round(2))
np.testing.assert_allclose(states, [0.76, 0.36, 0.18], atol=0.005)

# %%
# Vectorised: one loop stays
# --------------------------
# The products with :math:`W_x` are one matrix product for all tokens. The loop over
# time stays, because a step needs the result of the previous step.


def rnn_forward(x, p):
    z, linear = linear_forward(x, p["wx"], p["b"])  # (B, T, D), all tokens at once
    h = np.zeros((len(x), x.shape[1] + 1, z.shape[2]), x.dtype)  # h[:, 0] is the start
    for t in range(x.shape[1]):
        h[:, t + 1] = np.tanh(z[:, t] + h[:, t] @ p["wh"])  # (1)
    return h[:, 1:].copy(), (h, p["wh"], linear)


rng = np.random.default_rng(0)
x = rng.normal(size=(2, 6, 4))  # B, T, D: two sentences of six tokens
square = rng.normal(size=(2, 4, 4))
rnn = {"wx": square[0], "wh": square[1], "b": rng.normal(size=4)}
expected = [rnn_loop(sentence, **rnn) for sentence in x]
np.testing.assert_allclose(rnn_forward(x, rnn)[0], expected, atol=1e-13)

# %%
# The backward: through time
# --------------------------
# A state is used twice: as the output :math:`y_t`, and by the next step. (2) adds both
# gradients, and the loop runs from the last token to the first.
#
# .. math::
#
#    dh_t &= dy_t + dz_{t+1} W_h^T \quad (2) \qquad dz_t = dh_t (1 - h_t^2) \quad (3) \\
#    dW_h &= \sum_t h_{t-1}^T dz_t \quad (4)
#
# z is a linear map of x, so dx, :math:`dW_x` and db are those of lesson 1.


def rnn_backward(dy, cache):
    h, wh, linear = cache
    dz = np.zeros_like(dy)
    later = np.zeros_like(dy[:, 0])  # no token comes after the last
    for t in reversed(range(dy.shape[1])):
        dh = dy[:, t] + later  # (2)
        dz[:, t] = dh * (1 - h[:, t + 1] * h[:, t + 1])  # (3)
        later = dz[:, t] @ wh.T
    dwh = h[:, :-1].reshape(-1, len(wh)).T @ dz.reshape(-1, len(wh))  # (4)
    dx, dwx, db = linear_backward(dz, linear)
    return dx, {"wx": dwx, "wh": dwh, "b": db}


# %%
# The convolution, as a loop and vectorised
# -----------------------------------------
# A window of k tokens slides over the sentence. Here it ends at the token itself (a
# causal convolution), and tokens before the first count as 0:
#
# .. math:: y_t = \sum_{i<k} x_{t-i} w_i + b \quad (5)
#
# No output needs another output, so all windows are multiplied at once.


def conv_loop(x, w, b):
    y = np.zeros((len(x), w.shape[2]))
    for t in range(len(x)):
        y[t] = b
        for i in range(min(len(w), t + 1)):
            y[t] += x[t - i] @ w[i]  # (5)
    return y


def conv_forward(x, p):
    batch, length, width = x.shape
    k = len(p["w"])
    windows = np.zeros((batch, length, k, width), x.dtype)
    for i in range(k):
        windows[:, i:, i] = x[:, : length - i]
    flat = windows.reshape(batch, length, k * width)
    y, linear = linear_forward(flat, p["w"].reshape(k * width, -1), p["b"])  # (5)
    return y, (p["w"], linear)


conv = {"w": rng.normal(size=(3, 4, 4)), "b": rng.normal(size=4)}
expected = [conv_loop(sentence, **conv) for sentence in x]
np.testing.assert_allclose(conv_forward(x, conv)[0], expected, atol=1e-13)

# %%
# The backward of the convolution
# -------------------------------
# A token was copied into k windows, so it receives k gradients:
#
# .. math:: dw_i = \sum_t x_{t-i}^T dy_t \; (6), \; dx_t = \sum_i dy_{t+i} w_i^T \; (7)
#
# Both layers are then compared with finite differences.


def conv_backward(dy, cache):
    w, linear = cache
    dflat, dw, db = linear_backward(dy, linear)  # (6)
    batch, length, _ = dy.shape
    dwindows = dflat.reshape(batch, length, len(w), -1)
    dx = np.zeros((batch, length, w.shape[1]), dy.dtype)
    for i in range(len(w)):
        dx[:, : length - i] += dwindows[:, i:, i]  # (7)
    return dx, {"w": dw.reshape(w.shape), "b": db}


rows = gradcheck(rnn_forward, rnn_backward, x, rnn)
rows += gradcheck(conv_forward, conv_backward, x, conv)
print(format_rows("RNN, convolution", rows))
assert all(row.ok for row in rows)

# %%
# Which token reaches which output?
# ---------------------------------
# The figure shows how strongly each output (the sum of its features) depends on each
# token: the norm of the gradient. In the RNN the past fades. In the convolution it ends
# after a window of 3. Attention without a mask (lesson 7) would fill the whole square.


def influence(forward, backward, x, p):
    length = x.shape[1]
    table = np.zeros((length, length))  # [output, token]
    for t in range(length):
        y, cache = forward(x, p)
        dy = np.zeros_like(y)
        dy[:, t] = 1
        dx, _ = backward(dy, cache)
        table[t] = np.linalg.norm(dx[0], axis=-1)
    return table / table.max()


x8 = np.random.default_rng(3).normal(size=(1, 8, 4))
small = {"wx": 0.5 * rnn["wx"], "wh": 0.5 * np.eye(4), "b": np.zeros(4)}
past = influence(rnn_forward, rnn_backward, x8, small)
window = influence(conv_forward, conv_backward, x8, conv)
assert not np.triu(past, 1).any() and 0 < past[7, 0] < 0.05
assert not np.triu(window, 1).any() and not np.tril(window, -3).any()
figure = plot.heatmaps(
    [plot.Panel("RNN", past), plot.Panel("convolution, window of 3", window)],
    "token", "output", "How to read it: a row is an output, a column a token, and a "
    "number the norm of the gradient (1: the largest of the panel). Both layers are "
    "causal, so nothing stands above the diagonal.", columns=2)
print(plot.save(figure, Path("figures") / "rnn_cnn_influence.png"))

# %%
# Break it: a backward that forgets the state
# -------------------------------------------
# The usual mistake is to leave the second half of (2) out. The check says where it is
# wrong: at all positions but the last, whose state is not used again. With sentences of
# one token the mistake is invisible.


def forgets_backward(dy, cache):
    h, wh, linear = cache
    dz = dy * (1 - h[:, 1:] * h[:, 1:])  # (3) with dy in the place of dh
    dwh = h[:, :-1].reshape(-1, len(wh)).T @ dz.reshape(-1, len(wh))
    dx, dwx, db = linear_backward(dz, linear)
    return dx, {"wx": dwx, "wh": dwh, "b": db}


rows = gradcheck(rnn_forward, forgets_backward, x, rnn)
print(f"{rows[0].tensor}: {rows[0].diagnosis}")
assert not rows[0].ok and "0, 1, 2, 3, 4" in rows[0].diagnosis
assert all(row.ok for row in gradcheck(rnn_forward, forgets_backward, x[:, :1], rnn))

# %%
# Exercises
# ---------
# 1. Three convolutions with windows of 3 are stacked. How many outputs of the last one
#    does the first token reach?
answer_1 = None
if answer_1 is not None:
    y = np.zeros((1, 20, 4))
    y[:, 0] = 1
    for _ in range(3):
        y, _ = conv_forward(y, {"w": np.ones((3, 4, 4)), "b": np.zeros(4)})
    assert answer_1 == np.count_nonzero(y[0, :, 0]), "each adds 2 to the first 1"

# 2. A state of one number, :math:`W_h = 0.5`, b = 0, and all inputs are 0. How many
#    steps back is the gradient below 1/1000 of the last token's for the first time?
answer_2 = None
if answer_2 is not None:
    p = {"wx": one, "wh": 0.5 * one, "b": np.zeros(1)}
    back = influence(rnn_forward, rnn_backward, np.zeros((1, 20, 1)), p)[-1, ::-1]
    assert answer_2 == np.flatnonzero(back < 0.001)[0], "each step multiplies it by 0.5"

# %%
# In the articles
# ---------------
# - Article E, 位置编码: an RNN processes tokens 逐个 (one by one). That is the loop which
#   stays in "Vectorised: one loop stays". E's 小结 says that convolution and attention
#   are both parallel: "The convolution, as a loop and vectorised" has no such loop.
# - Article A: the Transformer 抛弃了传统的 CNN 和 RNN (discards them). What is gained, and
#   what it costs, is lesson 27.
