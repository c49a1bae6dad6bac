"""
Attention against RNN and CNN · 注意力与 RNN、CNN 的比较
========================================================

Before 2017 a sentence went through a recurrent network (RNN), word by word, or through a convolution (CNN), window by window.
Vaswani et al. replaced both by attention, and their table 1 gives three reasons: the cost of a layer, how many steps have to
wait for each other, and how long the path is from one word to another. Here we build all three layers and measure the reasons.

Read beside: Vaswani et al. 2017, section 4 and table 1; article E, the summary; lesson 04 for attention itself.
"""

# %%
# The recurrent layer, as a loop
# ------------------------------
# A recurrent layer reads one word after another and keeps a state :math:`h` of :math:`D` numbers, at first all 0:
#
# .. math:: (1) \quad z_t = x_t W_x + b, \qquad h_t = \tanh(z_t + h_{t-1} W_h)

import math
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tinymae import init, plot
from tinymae.blocks import multi_head_attention_backward, multi_head_attention_forward
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.activation import relu_backward, relu_forward
from tinymae.ops.embedding import embedding_backward, embedding_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.positional import positional_forward, sinusoidal_interleaved
from tinymae.train.loop import Run, train
from tinymae.train.optim import AdamW

figures = Path("figures")


def rnn_loop(x, wx, wh, b):
    h, states = [0.0] * len(b), []
    for word in x:
        h = [math.tanh(b[j] + sum(word[i] * wx[i, j] for i in range(len(word)))
                       + sum(h[i] * wh[i, j] for i in range(len(h)))) for j in range(len(b))]
        states.append(h)
    return np.array(states)


# %%
# Vectorised, and one loop stays
# ------------------------------
# Words, batch and features become matrix products. The loop over time stays: a step needs the result of the step before. The
# backward walks the same way back ("backpropagation through time"). A state was used twice, as the output (:math:`y_t = h_t`)
# and by the next step, so two gradients meet in (2):
#
# .. math::
#    (2) \quad & dh_t = dy_t + dz_{t+1} W_h^T \\
#    (3) \quad & dz_t = dh_t \, (1 - h_t^2) \\
#    (4) \quad & dW_h = \sum_t h_{t-1}^T dz_t, \quad dx_t = dz_t W_x^T, \quad dW_x = \sum_t x_t^T dz_t, \quad db = \sum_t dz_t


def rnn_forward(x, p):
    z, linear = linear_forward(x, p["wx"], p["b"])              # (B, T, D), all words at once: nobody has to wait
    h = np.zeros((len(x), x.shape[1] + 1, z.shape[2]), x.dtype)
    for t in range(x.shape[1]):
        h[:, t + 1] = np.tanh(z[:, t] + h[:, t] @ p["wh"])      # (1)
    return h[:, 1:].copy(), (h, p["wh"], linear)


def rnn_backward(dy, cache):
    h, wh, linear = cache
    dz, later = np.zeros_like(dy), 0                            # nothing comes after the last word
    for t in reversed(range(dy.shape[1])):
        dh = dy[:, t] + later                                   # (2)
        dz[:, t] = dh * (1 - h[:, t + 1] * h[:, t + 1])         # (3)
        later = dz[:, t] @ wh.T
    dwh = h[:, :-1].reshape(-1, len(wh)).T @ dz.reshape(-1, len(wh))                        # (4)
    dx, dwx, db = linear_backward(dz, linear)                   # z is a linear map of x
    return dx, {"wx": dwx, "wh": dwh, "b": db}


rng = np.random.default_rng(0)
x = rng.normal(size=(2, 6, 4))                                  # B, T, D: two sentences of six words
rnn = {"wx": rng.normal(size=(4, 4)), "wh": rng.normal(size=(4, 4)), "b": rng.normal(size=4)}
np.testing.assert_allclose(rnn_forward(x, rnn)[0], [rnn_loop(sentence, **rnn) for sentence in x], atol=1e-13)

# %%
# The convolution: windows that look back
# ---------------------------------------
# A window of :math:`k` words ends at the word itself (a "causal" convolution) and takes every :math:`s`-th word (``dilation``).
# Words before the first count as 0, and all places are computed at once:
#
# .. math::
#    (5) \quad & y_t = \sum_{i<k} x_{t - i s} \, w_i + b \\
#    (6) \quad & dw_i = \sum_t x_{t - i s}^T dy_t, \quad db = \sum_t dy_t, \quad dx_t = \sum_{i<k} dy_{t + i s} \, w_i^T


def conv_forward(x, p, dilation=1):
    k, length = len(p["w"]), x.shape[1]
    shifts = [min(i * dilation, length) for i in range(k)]
    windows = np.zeros((*x.shape[:2], k, x.shape[2]), x.dtype)  # (B, T, k, D)
    for i, back in enumerate(shifts):
        windows[:, back:, i] = x[:, : length - back]
    y, linear = linear_forward(windows.reshape(*x.shape[:2], -1), p["w"].reshape(k * x.shape[2], -1), p["b"])       # (5)
    return y, (p["w"], shifts, linear)


def conv_backward(dy, cache):
    w, shifts, linear = cache
    dwindows, dw, db = linear_backward(dy, linear)              # (6)
    dwindows = dwindows.reshape(*dy.shape[:2], *w.shape[:2])
    dx = np.zeros((*dy.shape[:2], w.shape[1]), dy.dtype)
    for i, back in enumerate(shifts):
        dx[:, : dy.shape[1] - back] += dwindows[:, back:, i]
    return dx, {"w": dw.reshape(w.shape), "b": db}


conv = {"w": rng.normal(size=(3, 4, 4)), "b": rng.normal(size=4)}
for t in range(6):                                              # (5), place by place
    y = sum(x[:, t - 2 * i] @ conv["w"][i] for i in range(3) if t - 2 * i >= 0) + conv["b"]
    np.testing.assert_allclose(conv_forward(x, conv, dilation=2)[0][:, t], y, atol=1e-13)

# %%
# One window of 3 sees 3 words. Layers see more: 2 more for each layer, or, where every layer is dilated 3 times as much as the
# one below, 3, 9, 27, 81. The CNN is a stack of them, each with relu and a residual path. Attention is the package's.


def cnn_forward(x, layers, widen=3):
    caches = []
    for i, p in enumerate(layers):
        y, conv = conv_forward(x, p, widen**i)
        y, relu = relu_forward(y)
        x = x + y
        caches.append((conv, relu))
    return x, caches


def cnn_backward(dy, caches):
    dlayers = []
    for conv, relu in reversed(caches):
        dx, dp = conv_backward(relu_backward(dy, relu), conv)
        dy = dy + dx                                            # around the layer, and through it
        dlayers.insert(0, dp)
    return dy, dlayers


def attention_forward(x, p):
    return multi_head_attention_forward(x, x, p, heads=4)


def attention_backward(dy, cache):
    dxq, dxkv, dp = multi_head_attention_backward(dy, cache)
    return dxq + dxkv, dp


# %%
# All three pass the check, and at the edges they are the package's linear map: a window of one word, a state without memory.

pairs = {
    "RNN": (rnn_forward, rnn_backward),
    "CNN": (cnn_forward, cnn_backward),
    "attention": (attention_forward, attention_backward),
}
small = {"RNN": rnn, "CNN": [conv, conv], "attention": init.multi_head_attention(4, 4, rng, dtype=np.float64)}
for name, (forward, backward) in pairs.items():
    rows = gradcheck(forward, backward, x, small[name])
    print(format_rows(name, rows))
    assert all(row.ok for row in rows)
linear, _ = linear_forward(x, conv["w"][0], conv["b"])
np.testing.assert_allclose(conv_forward(x, {"w": conv["w"][:1], "b": conv["b"]})[0], linear, atol=1e-13)
memoryless = {"wx": conv["w"][0], "wh": np.zeros((4, 4)), "b": conv["b"]}
np.testing.assert_allclose(rnn_forward(x, memoryless)[0], np.tanh(linear), atol=1e-13)

# %%
# Break it: a backward that forgets the hidden state
# --------------------------------------------------
# A usual mistake in a recurrent backward is to leave out the second half of (2). The check says where: at all places of axis 1
# (the time) but the last, whose state nobody used again. With sentences of one word there is no other, and it stays blind.


def forgets_backward(dy, cache):
    h, wh, linear = cache
    dz = dy * (1 - h[:, 1:] * h[:, 1:])                         # (3), with dy where dh belongs
    dwh = h[:, :-1].reshape(-1, len(wh)).T @ dz.reshape(-1, len(wh))
    dx, dwx, db = linear_backward(dz, linear)
    return dx, {"wx": dwx, "wh": dwh, "b": db}


rows = gradcheck(rnn_forward, forgets_backward, x, rnn)
print(f"{rows[0].tensor}: {rows[0].diagnosis}")
assert not any(row.ok for row in rows) and "wrong only at 0, 1, 2, 3, 4 of axis 1" in rows[0].diagnosis
assert all(row.ok for row in gradcheck(rnn_forward, forgets_backward, x[:, :1], rnn))

# %%
# Table 1, counted
# ----------------
# *Cost*: multiplications in the matrix products of a forward, for :math:`T` words of width :math:`D`. *Wait*: steps that need
# each other's results. *Path*: layers, or steps of the RNN, from the first word to the last. The CNN's path is measured: we
# stack layers until the first word, the only one that is not 0, arrives at the last place.


def layers_needed(length, widen):
    x, depth = np.zeros((1, length, 1)), 0
    x[0, 0] = 1
    while not x[0, -1]:
        y, _ = conv_forward(x, {"w": np.ones((3, 1, 1)), "b": np.zeros(1)}, widen**depth)
        x, depth = x + y, depth + 1                             # weights of 1: nothing is 0 by chance
    return depth


WIDTH, lengths = 64, (16, 64, 256)
table = {                                                       # name: cost, wait, path
    "RNN": (lambda t: 2 * t * WIDTH**2, lambda t: t, lambda t: t - 1),
    "CNN": (lambda t: 3 * t * WIDTH**2, lambda t: 1, lambda t: layers_needed(t, 1)),
    "CNN, dilated": (lambda t: 3 * t * WIDTH**2, lambda t: 1, lambda t: layers_needed(t, 3)),
    "attention": (lambda t: 4 * t * WIDTH**2 + 2 * t**2 * WIDTH, lambda t: 1, lambda t: 1),
}
print(f"one layer, D = {WIDTH}", *(f"   T = {t:<4} cost  wait  path" for t in lengths))
for name, (cost, wait, path) in table.items():
    print(f"{name:<17}", *(f"{cost(t) / 1e6:12.2f} M {wait(t):5} {path(t):5}" for t in lengths))
assert [layers_needed(t, 1) for t in lengths] == [math.ceil((t - 1) / 2) for t in lengths]
assert [layers_needed(t, 3) for t in lengths] == [math.ceil(math.log(t, 3)) for t in lengths]

# %%
# Time against length
# -------------------
# One layer, forward and backward. Attention pays with the square of the length (lesson 19 is about its memory). To see what
# waiting costs, we cut the same 4,096 words into fewer, longer sentences. RNN and CNN then have as much to multiply as before,
# and to the CNN it is all the same. But the RNN's steps are more and smaller, and each step has a fixed price, on a GPU above
# all.


def parameters(rng, width, depth):
    square = [init.xavier_uniform((width, width), rng) for _ in range(2)]
    windows = [init.normal((3, width, width), rng, (3 * width) ** -0.5) for _ in range(depth)]
    zeros = np.zeros(width, np.float32)
    return {
        "RNN": {"wx": square[0], "wh": square[1], "b": zeros.copy()},
        "CNN": [{"w": w, "b": zeros.copy()} for w in windows],
        "attention": init.multi_head_attention(width, 4, rng),
    }


def milliseconds(name, batch, length):
    (forward, backward), p = pairs[name], parameters(np.random.default_rng(0), WIDTH, 1)[name]
    x = np.random.default_rng(2).normal(size=(batch, length, WIDTH)).astype(np.float32)
    best = math.inf
    with threadpool_limits(1, "blas"):                          # one core
        for _ in range(4):                                      # the fastest of four: the others were disturbed
            start = time.perf_counter()
            y, cache = forward(x, p)
            backward(y, cache)
            best = min(best, 1e3 * (time.perf_counter() - start))
    return best


# %%
# RNN and attention connect all words, one layer of a CNN only neighbours. See whether the lines of these two cross, and where:
# on one core attention is the faster one for short sentences only. On a GPU, which works on many words side by side, waiting
# costs more.

lengths = [32, 64, 128, 256, 512, 1024]
times = {name: (lengths, [milliseconds(name, 1, t) for t in lengths]) for name in pairs}
for name, (_, taken) in times.items():
    print(f"{name:<10} one sentence, T = 32 to 1024:", *(f"{ms:6.2f}" for ms in taken), "ms")
for name in ("RNN", "CNN"):
    print(f"{name:<10} 64 x 64 words: {milliseconds(name, 64, 64):.1f} ms; 4 x 1024: {milliseconds(name, 4, 1024):.1f} ms")
assert times["attention"][1][-1] > 10 * times["attention"][1][2]
print(plot.save(plot.curves(
    times, "words in the sentence (T)", "milliseconds, forward + backward",
    "How to read it: on two logarithmic axes a power of T is a straight line. RNN and CNN rise with slope 1 (twice the words, "
    "twice the time); attention turns towards slope 2, where the pairs of words outweigh the projections.",
    xscale="log", yscale="log", markers=True), figures / "attention_rnn_cnn_time.png"))

# %%
# How far does the gradient reach?
# --------------------------------
# Path length matters because each step of a path multiplies the gradient by one more matrix. Layers fresh from their
# initialisation, a sentence of 100 words: the norm of the gradient of the last output with respect to each word.


def gradient_of_last(forward, backward, x, p, **options):
    """Norm of the gradient of the last output, in a random direction, with respect to the word 0, 1, 2 ... places back."""
    y, cache = forward(x, p, **options)
    dy = np.zeros_like(y)
    dy[:, -1] = np.random.default_rng(1).normal(size=dy[:, -1].shape)
    dx, _ = backward(dy, cache)
    return np.linalg.norm(dx[0, ::-1], axis=-1)


x100 = np.random.default_rng(3).normal(size=(1, 100, WIDTH)).astype(np.float32)
fresh = parameters(np.random.default_rng(4), WIDTH, depth=5)
reach = {
    "RNN": gradient_of_last(*pairs["RNN"], x100, fresh["RNN"]),
    "CNN, 5 layers, dilated": gradient_of_last(*pairs["CNN"], x100, fresh["CNN"]),
    "attention": gradient_of_last(*pairs["attention"], x100, fresh["attention"]),
    "CNN, 5 layers": gradient_of_last(*pairs["CNN"], x100, fresh["CNN"], widen=1),
}
for name, norms in reach.items():
    print(f"{name:<23} 1 word back {norms[1]:.1e}, 10 back {norms[10]:.1e}, 99 back {norms[99]:.1e}")
print(plot.save(plot.curves(
    {name: (np.arange(100), norms) for name, norms in reach.items()}, "words back", "norm of the gradient of the last output",
    "How to read it: a straight line downwards is a gradient that shrinks by the same factor at every step (logarithmic axis). "
    "A line that falls at once has reached exactly 0: the layers do not see that far. Attention and the dilated CNN reach far "
    "words like near ones.", yscale="log", ylim=(1e-12, 1e2)), figures / "attention_rnn_cnn_reach.png"))
assert reach["RNN"][99] < 1e-12 and reach["CNN, 5 layers"][10] > 0 == reach["CNN, 5 layers"][11:].max()
for name in ("attention", "CNN, 5 layers, dilated"):
    assert 0.1 < reach[name][50:].mean() / reach[name][1:50].mean() < 10

# %%
# Recall the first word
# ---------------------
# A task that needs the long path: read ``T`` random words out of 8, then name the first. The loss is asked at the last place.
# Attention gets positions (lesson 03).

WORDS, D = 8, 32


def predict(params, ids, name, positions):
    x, embedding = embedding_forward(ids, params["words"])      # (B, T, D)
    table = sinusoidal_interleaved(ids.shape[1], D).astype(x.dtype)
    x, _ = positional_forward(x, table if positions else 0 * table)
    y, layer = pairs[name][0](x, params["layer"])
    logits, head = linear_forward(y[:, -1], **params["head"])   # (B, WORDS)
    return logits, (embedding, y, layer, head)


def gradient_of_recall(params, ids, name, positions):
    logits, (embedding, y, layer, head) = predict(params, ids, name, positions)
    loss, entropy = cross_entropy_forward(logits, ids[:, 0])
    dy = np.zeros_like(y)
    dy[:, -1], dw, db = linear_backward(cross_entropy_backward(1.0, entropy), head)
    dx, dlayer = pairs[name][1](dy, layer)
    return float(loss), {"words": embedding_backward(dx, embedding), "layer": dlayer, "head": {"w": dw, "b": db}}


# %%
# The dilated CNN gets as many layers as it needs to see the first word, RNN and attention one. All are trained for the same 300
# steps on sentences that are always new, with the same seed.


def recall(name, length, lr=3e-3, positions=True, depth=None):
    """Train, and return the share of right answers (1 / 8 by chance) and the losses."""
    rng, positions = np.random.default_rng(0), positions and name == "attention"
    layer = parameters(rng, D, depth or layers_needed(length, 3))[name]
    params = {"words": init.normal((WORDS, D), rng, 1.0), "layer": layer, "head": init.linear(D, WORDS, rng)}

    def gradient(params, rng):
        return gradient_of_recall(params, rng.integers(0, WORDS, (32, length)), name, positions)

    run = Run(params, AdamW(params), rng)
    with threadpool_limits(1, "blas"):                          # these products are too small for more threads: lesson 20
        train(run, gradient, lambda step, progress: lr * min(1, (step + 1) / 20), batch=32, steps=300, max_norm=1.0, bar=False)
    ids = np.random.default_rng(99).integers(0, WORDS, (1000, length))
    logits, _ = predict(params, ids, name, positions)
    return float((logits.argmax(axis=-1) == ids[:, 0]).mean()), np.array(run.losses)


# %%
# The result, as it is. The RNN loses the first word somewhere between 3 and 15 words; where, is luck (try other seeds). This is
# a plain RNN: gated ones (LSTM, GRU) were invented for exactly this, and exercise 3 shows their idea. The CNN pays with its
# layers: four of them for 63 words between, where attention has one. If it is not at 100 % there, it needs more steps.

between = [3, 7, 15, 63]
trained = {}
for name in pairs:
    start = time.perf_counter()
    trained[name] = [recall(name, n + 2) for n in between]
    shares = ", ".join(f"{100 * share:.1f} % over {n}" for n, (share, _) in zip(between, trained[name], strict=True))
    print(f"{name:<10} {shares} ({time.perf_counter() - start:.1f} s)")
right = {name: [share for share, _ in runs] for name, runs in trained.items()}
print(plot.save(plot.curves(
    {name: (between, shares) for name, shares in right.items()}, "words between the first and the last", "share right",
    "How to read it: of 1,000 new sentences, the share whose first word is named. All three can do it over a short distance. "
    "The RNN cannot learn it over a long one: the gradient that should teach it has shrunk to nothing.",
    levels={"by chance": 1 / WORDS}, ylim=(0, 1.05), markers=True), figures / "attention_rnn_cnn_recall.png"))
assert min(right["attention"]) > 0.95 and right["RNN"][0] > 0.9 and max(right["RNN"][2:]) < 0.3
assert min(right["CNN"][:3]) > 0.9 and layers_needed(63 + 2, 3) == 4

# %%
# What loss should I see?
# -----------------------
# Knowing nothing: ln 8. Knowing which words occur but not their order: less, and it can be computed, as the first word is one
# of them. A loss that stays on a level says what is missing. One way to succeed with 17 words, and four ways to fail. (A higher
# learning rate does not help an RNN that has no gradient to follow.)

losses = {
    "attention": trained["attention"][between.index(15)][1],
    "attention without positions": recall("attention", 17, positions=False)[1],
    "CNN, dilated, a layer too few": recall("CNN", 17, depth=2)[1],
    "RNN": trained["RNN"][between.index(15)][1],
    "RNN, learning rate 10 times as high": recall("RNN", 17, lr=3e-2)[1],
}
sentences = np.random.default_rng(6).integers(0, WORDS, (20000, 17))
shares = np.array([np.bincount(ids, minlength=WORDS) for ids in sentences]) / 17
bag = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1).mean()
levels = {f"ln 8 = {math.log(8):.2f}: nothing known": math.log(8), f"{bag:.2f}: the words, not their order": bag}
print(plot.save(plot.curves(
    {name: np.convolve(curve, np.ones(20) / 20, "valid") for name, curve in losses.items()}, "step (mean of 20)", "loss",
    "How to read it: at which level does a curve stop? At ln 8 or above nothing about the first word arrives: the windows do "
    "not reach it (CNN), or the gradient does not (RNN). Near the dotted line the words are known, not their order.",
    levels=levels, ylim=(0, 2.6)), figures / "attention_rnn_cnn_losses.png"))
last = {name: curve[-50:].mean() for name, curve in losses.items()}
print("; ".join(f"{name}: {loss:.2f}" for name, loss in last.items()))
assert last["attention"] < 0.1 and bag - 0.05 < last["attention without positions"] < math.log(8) - 0.1
assert all(abs(last[name] - math.log(8)) < 0.1 for name in ("CNN, dilated, a layer too few", "RNN"))
assert last["RNN, learning rate 10 times as high"] > math.log(8) - 0.1

# %%
# Exercises
# ---------
# 1. How many dilated layers (windows of 3) does the CNN need to see 1,000 words?

answer_1 = None
if answer_1 is not None:
    assert answer_1 == layers_needed(1000, 3), "each layer triples what is seen: 3, 9, 27, ..."

# %%
# 2. Attention with D = 512: at which length do the pairs (:math:`2 T^2 D`) cost as much as the projections (:math:`4 T D^2`)?

answer_2 = None
if answer_2 is not None:
    assert 2 * answer_2 * 512 == 4 * 512**2, "divide both costs by T: for each word, 2 T D and 4 D^2"

# %%
# 3. Give the state a short cut around tanh, as below. Write ``answer_3(dy, cache)``, its backward, which returns what
#    ``rnn_backward`` does. How far does the gradient reach now, and is it too much of a good thing?


def shortcut_forward(x, p):
    z, linear = linear_forward(x, p["wx"], p["b"])
    h, a = np.zeros((len(x), x.shape[1] + 1, z.shape[2]), x.dtype), np.zeros_like(z)
    for t in range(x.shape[1]):
        a[:, t] = np.tanh(z[:, t] + h[:, t] @ p["wh"])
        h[:, t + 1] = h[:, t] + a[:, t]
    return h[:, 1:].copy(), (h, a, p["wh"], linear)


answer_3 = None
if answer_3 is not None:
    rows = gradcheck(shortcut_forward, answer_3, x, rnn)
    assert all(row.ok for row in rows), "dh_{t-1} gets dh_t itself, and what came through tanh\n" + format_rows("", rows)
    far = gradient_of_last(shortcut_forward, answer_3, x100, fresh["RNN"])[99]
    print(f"99 words back: {far:.1e} with the short cut, {reach['RNN'][99]:.1e} without")

# %%
# In the articles
# ---------------
# - *Article E, summary*: attention is parallel, its longest path is 1, its cost quadratic in the length, against CNN and RNN:
#   counted in the table above, measured in the pictures. The book behind E gives the CNN's path as T / k, windows without
#   dilation; Vaswani et al. give the logarithm of T to the base k, dilated windows. Both rows are in the table.
# - *Article C, part 1*: the sentence goes in as one matrix X, all words at once: the column "wait" says 1. That is the encoder,
#   and training. *Article A, Transformer*: in use the decoder emits one character after another, each waits for the one before,
#   as in an RNN (lesson 10).
# - *Vaswani et al., table 1*: n is our T, d our D; its row "restricted" is attention with a mask that lets r neighbours through
#   (lesson 06). It counts :math:`T^2 D` and leaves the projections out, the larger part up to T = 2 D (exercise 2).
