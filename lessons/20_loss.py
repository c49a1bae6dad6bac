"""
The loss: cross entropy · 损失：交叉熵
======================================

The model has given a probability to each word. How bad was that? The answer must be one
number, and its gradient must say what to do better. Article D takes "a simple
subtraction". That is not the loss; it is the loss's gradient.

You will be able to compute the cross entropy, to say which first loss to expect, to
derive the gradient, and to leave padding out.

Time: 25 minutes to read, 3 seconds to run. Needs: lesson 19.

Read beside: Vaswani et al. 2017, section 5.4; article D (笔记 | 深入理解Transformer),
"九、回顾训练过程".
"""

# %%
# The loss, as a loop
# -------------------
# Article D's vocabulary, and the sentence *i am a student <eos>*. The target of a
# position is *one-hot*: 1 for the right word. The cross entropy sums :math:`-q \log p`
# over the words. Five of six terms are 0: what remains is minus the logarithm of the
# right word's probability. Probability 1 costs 0, 1/2 costs 0.69, 1/100 costs 4.61.

import math
from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.gradcheck import gradcheck
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward

rng = np.random.default_rng(0)
words = ["a", "am", "i", "thanks", "student", "<eos>"]
sentence = ["i", "am", "a", "student", "<eos>"]
M, D, V = len(sentence), 8, len(words)                          # M positions that count
x = rng.normal(size=(M, D))                                     # from the decoder
w = 0.3 * rng.normal(size=(D, V))
b = np.zeros(V)
targets = np.array([words.index(word) for word in sentence])    # (M,)
one_hot = np.eye(V)[targets]                                    # (M, V)
logits, _ = linear_forward(x, w, b)                             # (M, V)
p, _ = softmax_forward(logits)
costs = [round(-math.log(probability), 2) for probability in (1, 1 / 2, 1 / 100)]
assert costs == [0, 0.69, 4.61]


def cross_entropy_loop(p, q):
    loss = 0.0
    for t in range(len(p)):                                     # every position
        for v in range(p.shape[1]):                             # every word
            if q[t, v] > 0:
                loss -= q[t, v] * math.log(p[t, v])
    return loss / len(p)


loss, cache = cross_entropy_forward(logits, targets)
np.testing.assert_allclose(cross_entropy_loop(p, one_hot), loss)

# %%
# Where is the softmax?
# ---------------------
# Many models end in the linear layer: the softmax is inside the loss. The package's
# ``cross_entropy_forward`` takes *logits* z, as PyTorch's ``CrossEntropyLoss`` does,
# and computes :math:`-\log p_t = \log \sum_v e^{z_v} - z_t`. Apart, the two can fail: a
# probability too small for a float is 0, and its logarithm minus infinity.

z = np.array([[0.0, 1000.0]])                                   # sure, and wrong
underflow, _ = softmax_forward(z)                               # [[0, 1]]
with np.errstate(divide="ignore"):
    apart = -np.log(underflow[0, 0])
together, _ = cross_entropy_forward(z, np.array([0]))
assert math.isinf(apart) and together == 1000

# %%
# The first loss is ln V
# ----------------------
# A model that knows nothing assigns 1/V to every word, and :math:`-\log(1/V) = \ln V`.
# Normal logits of standard deviation s cost about :math:`s^2 / 2` more: the mean of
# their :math:`e^z` is :math:`e^{s^2/2}`. So print the first loss: if it is well above
# ln V, the last layer starts too large.

random_targets = rng.integers(0, 1000, 10_000)
noise = rng.standard_normal((10_000, 1000), np.float32)
for s in (0.0, 1.0, 2.0):
    first, _ = cross_entropy_forward(s * noise, random_targets)
    print(f"logits of size {s}: first loss {first:.2f}; ln V is {math.log(1000):.2f}")
    assert abs(first - math.log(1000) - s * s / 2) < 0.1

# %%
# The backward: p - one_hot
# -------------------------
# With the target q and M positions (equations numbered as in ``ops/losses.py``):
#
# .. math::
#
#    loss &= \frac1M \sum_t \left( \log \sum_u e^{z_{tu}}
#            - \sum_v q_{tv} z_{tv} \right) \quad (4) \\
#    \frac{d}{d z_v} \log \sum_u e^{z_u} &= e^{z_v} / \sum_u e^{z_u} = p_v \\
#    dz_{tv} &= dloss \, (p_{tv} - q_{tv}) / M \quad (5)
#
# This is article D's subtraction, "做一个简单的减法", of target and output. It cannot be the
# loss: it is a matrix, and its sum is 0 for every model, good or bad.

dz = cross_entropy_backward(1.0, cache)
np.testing.assert_allclose(dz, (p - one_hot) / M, atol=1e-12)   # (5), the subtraction
sure, _ = softmax_forward(20 * one_hot)                         # a perfect model
assert max(abs((model - one_hot).sum()) for model in (p, sure)) < 1e-12
print(f"loss: {loss:.3f} untrained, {cross_entropy_loop(sure, one_hot):.3f} perfect")
assert loss > 1 and cross_entropy_loop(sure, one_hot) < 1e-6    # these differ


def head_forward(x, w, b, **options):
    logits, linear = linear_forward(x, w, b)
    loss, entropy = cross_entropy_forward(logits, **options)
    return loss, (linear, entropy)


def head_backward(dloss, cache):
    linear, entropy = cache
    return linear_backward(cross_entropy_backward(dloss, entropy), linear)


for options in ({}, {"label_smoothing": 0.1}, {"ignore_index": 4}):
    rows = gradcheck(head_forward, head_backward, x, w, b, targets=targets, **options)
    assert all(row.ok for row in rows)

# %%
# Training it
# -----------
# 200 steps of gradient descent on w and b with learning rate 1, drawn as in article D.


def train(forward, backward, steps=200):
    now_w, now_b, losses = w.copy(), b.copy(), []
    for _ in range(steps):
        loss, cache = forward(x, now_w, now_b, targets=targets)
        _, dw, db = backward(1.0, cache)
        now_w -= dw
        now_b -= db
        losses.append(float(loss))
    trained, _ = softmax_forward(linear_forward(x, now_w, now_b)[0])
    return trained, losses


trained, losses = train(head_forward, head_backward)
output = [words[v] for v in trained.argmax(axis=1)]
assert output == sentence and losses[-1] < 0.05
panels = [plot.Panel("target", one_hot, 1.0, False, sentence, words),
          plot.Panel("untrained", p, 1.0, False, sentence, words),
          plot.Panel("after 200 steps", trained, 1.0, False, sentence, words)]
caption = (
    "How to read it: a row is a position, named by the right word; a column, a word of "
    "the vocabulary; a number, a probability. Training brings it close to the target."
)
figure = plot.heatmaps(panels, "word", "position", caption)
print(plot.save(figure, Path("figures") / "loss_outputs.png"))

# %%
# Padding is not counted
# ----------------------
# *thanks <eos>* beside *i am a student <eos>* needs three positions of padding. They
# are left out of the sum *and* of the count M. The classic mistake divides the loss of
# 7 words by all 10 positions: it looks better the more padding there is.

PAD = -1                                                        # article D has none
batch = np.array([targets, [3, 5, PAD, PAD, PAD]])              # thanks <eos>
z = rng.normal(size=(2, 5, V))
loss, cache = cross_entropy_forward(z, batch, ignore_index=PAD)
counts = batch != PAD
alone, _ = cross_entropy_forward(z[counts], batch[counts])      # the 7 words alone
dz = cross_entropy_backward(1.0, cache)
print(f"mean over 7 words {loss:.3f}; divided by 10 {loss * 7 / 10:.3f}")
assert math.isclose(loss, alone) and counts.sum() == 7
assert not dz[~counts].any() and dz[counts].all()

# %%
# Label smoothing: the loss does not go to 0
# ------------------------------------------
# Vaswani et al. use the target :math:`q = (1 - e)\, one\_hot + e / V` (3), e = 0.1. The
# best prediction is then q itself. Its loss is the entropy of q, not 0. A model that is
# entirely sure has a *higher* loss. So compare models by the loss without smoothing, or
# by its exponential, the *perplexity*.

q = 0.9 * one_hot + 0.1 / V                                     # (3)
best, cache = cross_entropy_forward(np.log(q), targets, label_smoothing=0.1)
entropy = -(q[0] * np.log(q[0])).sum()
sure, _ = cross_entropy_forward(20 * one_hot, targets, label_smoothing=0.1)
print(f"lowest loss with e = 0.1: {best:.3f}; entirely sure: {sure:.3f}")
assert math.isclose(best, entropy) and sure > 2 * best
np.testing.assert_allclose(cross_entropy_backward(1.0, cache), 0, atol=1e-12)

# %%
# Break it: softmax twice
# -----------------------
# The model ends in a softmax, and the loss has one inside. The gradient check is blind:
# this is the right gradient of a wrong loss. The second softmax gets numbers from 0 to
# 1: at best, 1 for the right word and 0 for the others. By (4) the loss is then
# :math:`\ln(e + V - 1) - 1`, not 0. If a loss starts near ln V and hardly moves, count
# your softmaxes.


def twice_forward(x, w, b, **options):
    logits, linear = linear_forward(x, w, b)
    p, softmax = softmax_forward(logits)                        # the one too many
    loss, entropy = cross_entropy_forward(p, **options)
    return loss, (linear, softmax, entropy)


def twice_backward(dloss, cache):
    linear, softmax, entropy = cache
    dp = cross_entropy_backward(dloss, entropy)
    return linear_backward(softmax_backward(dp, softmax), linear)


rows = gradcheck(twice_forward, twice_backward, x, w, b, targets=targets)
assert all(row.ok for row in rows)                              # blind
_, twice = train(twice_forward, twice_backward)
lowest = math.log(math.e + V - 1) - 1
print(f"once: {losses[0]:.2f} -> {losses[-1]:.3f}")
print(f"twice: {twice[0]:.2f} -> {twice[-1]:.3f}; the lowest possible is {lowest:.3f}")
assert abs(twice[0] - math.log(V)) < 0.2 and lowest < twice[-1] < 1.2 * lowest

# %%
# Exercises
# ---------
# 1. A model with a vocabulary of 37,000 words knows nothing. What is its loss?
# 2. The same vocabulary, softmax twice: what is the lowest loss that it can reach?

answer_1 = None
if answer_1 is not None:
    uniform, _ = cross_entropy_forward(np.zeros((1, 37000)), np.array([0]))
    assert math.isclose(answer_1, uniform, rel_tol=1e-3), "-ln of 1/V"

answer_2 = None
if answer_2 is not None:
    best, _ = cross_entropy_forward(np.eye(1, 37000), np.array([0]))
    assert math.isclose(answer_2, best, rel_tol=1e-3), "1 for one word, 0 for 36,999"

# %%
# In the articles
# ---------------
# - **Article D, 九**: "做一个简单的减法" is not the loss. The loss is cross entropy, and its
#   gradient is the subtraction p - one_hot: "The backward: p - one_hot". D's target and
#   trained outputs are drawn in "Training it".
# - **Article D, 八**: its softmax layer is here in the loss: "Where is the softmax?".
