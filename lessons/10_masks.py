"""
Masks · 掩码
============

Attention attends to everything unless a mask forbids it. Two things must be hidden:
padding, and, in the decoder, the tokens that it must still predict. A wrong mask does
not crash. With a leak the loss even falls faster, and the model is useless.

You will be able to build both masks, to put them where they belong, and to test whether
a model sees its own future.

Time: 20 minutes to read, 3 seconds to run. Needs: lessons 7 and 8.

Read beside: Vaswani et al. 2017, section 3.2.3; article A (MAE:Masked Autoencoders Are
Scalable Vision Learners), part 2 and code; article C (Transformer模型详解), 5.1, 5.2.
"""

# %%
# True may attend
# ---------------
# A mask is an array of booleans. A row says which keys a query may attend to: the keys
# are on the last axis. By hand: one query and three keys, whose scores have the
# exponentials 1, 2 and 3. The weights are 1/6, 2/6, 3/6. With the last key hidden they
# are 1/3, 2/3, 0. A score of 0 hides nothing, as exp(0) = 1: the key still gets 1/4.

from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.gradcheck import gradcheck
from tinymae.gradcheck.invariants import assert_causal
from tinymae.masks import causal_mask, causal_padding_mask, padding_mask, shift_right
from tinymae.ops.attention import scaled_dot_product_attention_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward

figures = Path("figures")
three, seen = np.log([1.0, 2.0, 3.0]), np.array([True, True, False])
np.testing.assert_allclose(softmax_forward(three)[0], [1 / 6, 2 / 6, 3 / 6])
np.testing.assert_allclose(softmax_forward(three, seen)[0], [1 / 3, 2 / 3, 0])
np.testing.assert_allclose(softmax_forward(three * seen)[0], [1 / 4, 2 / 4, 1 / 4])

# %%
# As a loop, and at once
# ----------------------
# .. math::
#
#    p_j = mask_j\, e^{s_j} / \sum_k mask_k\, e^{s_k} \qquad (1)
#
# Here True counts as 1 and False as 0, so a key that is hidden is left out of the sum.
# At once: a hidden score becomes minus infinity, whose exponential is exactly 0.


def masked_softmax(scores, mask):
    weights = np.zeros_like(scores)
    for row in range(len(scores)):
        keys = np.flatnonzero(mask[row])
        total = sum(np.exp(scores[row, key]) for key in keys)
        for key in keys:
            weights[row, key] = np.exp(scores[row, key]) / total        # (1)
    return weights


rng = np.random.default_rng(0)
scores = rng.normal(size=(5, 5))
causal = causal_mask(5)[0, 0]                                   # (5, 5), lower triangle
at_once, _ = softmax_forward(np.where(causal, scores, -np.inf))
packaged, _ = softmax_forward(scores, causal)
np.testing.assert_allclose(masked_softmax(scores, causal), packaged, atol=1e-15)
np.testing.assert_array_equal(at_once, packaged)

# %%
# Before and after the softmax
# ----------------------------
# Article C numbers ``<Begin> I have a cat <end>`` from 0 to 5. The decoder receives 0
# to 4 and predicts 1 to 5. Row 2 may attend to ``<Begin> I have`` and predicts "a". The
# diagonal is open: what a token must predict stands one position to its right.
#
# C says that Mask QK^T is multiplied by V (使用 Mask QK^T 与矩阵 V 相乘). It is not: the
# softmax stands between them. A sum of values times minus infinity is not a finite
# number. And Z_1 holds tokens 0 *and* 1, as C's own mask shows, not "单词 1" only.

tokens = ["<Begin>", "I", "have", "a", "cat", "<end>"]
targets = np.arange(1, 6)[None]                                 # I have a cat <end>
inputs = shift_right(targets, bos=0)[0]                         # <Begin> I have a cat
for t in range(5):
    seen = [tokens[i] for i in inputs[causal[t]]]               # C's first step
    print(f"{' '.join(seen):22} -> {tokens[targets[0, t]]}")
q, k, v = rng.normal(size=(3, 5, 4))
scores = q @ k.T / 4**0.5                                       # second step
masked = np.where(causal, scores, -np.inf)                      # third step, before
weights, _ = softmax_forward(masked)                            # third step, after
z = weights @ v                                                 # fourth step
with np.errstate(invalid="ignore"):
    assert not np.isfinite((masked @ v)[:4]).any()
np.testing.assert_allclose(z[1], weights[1, 0] * v[0] + weights[1, 1] * v[1])
assert (weights[1] > 0).tolist() == [True, True, False, False, False]
figure = plot.masks(scores, causal, tokens[:5], tokens[:5])
print(plot.save(figure, figures / "mask_causal.png"))

# %%
# Padding with 0
# --------------
# Sentences of one batch must be equally long, so article A fills short ones with 0.
# That 0 is an id like others. Even a key of zeros takes part: its score is q.0 = 0, and
# exp(0) is 1. So padding has to be masked, in a decoder together with the future: a key
# must be allowed by both masks. The same holds where the decoder attends to the encoder
# (lesson 17). Article C needs no mask there (无需 Mask): true for a sentence without
# padding only.

src = np.array([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]])              # 0 is <pad>
pad = padding_mask(src)                                         # (B, 1, 1, Tk)
scores = q @ (k * pad[1, 0, 0, :, None]).T / 4**0.5             # padded keys of zeros
unmasked, _ = softmax_forward(scores)
print("weight of padding without a mask:", unmasked[:, 3:].sum(axis=1).round(2))
np.testing.assert_allclose(unmasked[:, 3], 1 / np.exp(scores).sum(axis=1))  # exp(0)
both = causal_padding_mask(src)                                 # (B, 1, T, T)
assert (both == (pad & causal)).all()
names = ["I", "like", "cats", "<pad>", "<pad>"]
figure = plot.masks(scores, np.broadcast_to(pad[1, 0], (5, 5)), names, names)
print(plot.save(figure, figures / "mask_padding.png"))

# %%
# Which axis, and does 0 mean keep?
# ---------------------------------
# tinymae and PyTorch's ``F.scaled_dot_product_attention``: boolean, True = may attend.
# Article A's ``masked_fill(mask == 0)``: numbers, 0 is hidden. PyTorch's
# ``nn.MultiheadAttention`` and ``nn.Transformer``: boolean, True = may *not* attend. A
# mask of floats is added to the scores: 0 keeps, minus infinity hides. MAE's mask is
# none of these: 1 = patch removed. So tinymae refuses numbers, and masks of queries.

heads = rng.normal(size=(2, 1, 5, 4))                           # (B, H, T, d)
on_queries = pad.swapaxes(2, 3)                                 # (B, 1, Tq, 1)
for wrong, hint in ((pad.astype(int), "mask != 0"), (on_queries, "query axis?")):
    try:
        scaled_dot_product_attention_forward(heads, heads, heads, wrong)
        raise RuntimeError("it should have been refused")
    except (TypeError, ValueError) as error:
        print(error)
        assert hint in str(error)

# %%
# A row with nothing to attend to
# -------------------------------
# In a sentence of padding only every key is hidden: the softmax divides 0 by 0, and the
# NaN reaches every gradient. Article A's -1e9 in place of minus infinity avoids the
# NaN, but then all scores are equal, and the row attends to everything that is
# forbidden. In tinymae the weights are 0, and so is the gradient.

row = np.full(5, -np.inf)
with np.errstate(invalid="ignore"):
    assert np.isnan(np.exp(row) / np.exp(row).sum()).all()
np.testing.assert_allclose(softmax_forward(np.full(5, -1e9))[0], 1 / 5)
none, cache = softmax_forward(scores, np.zeros((5, 5), bool))
assert not none.any() and not softmax_backward(scores, cache).any()

# %%
# The backward
# ------------
# The mask needs no line of its own. In the softmax's backward pass (lesson 8)
#
# .. math::
#
#    ds_k = p_k \Big( dp_k - \sum_j dp_j\, p_j \Big) \qquad (2)
#
# p is 0 wherever the mask forbids, so hidden scores receive exactly 0.

weights, cache = softmax_forward(scores, causal)
dweights = rng.normal(size=(5, 5))
mean = (dweights * weights).sum(axis=1, keepdims=True)
dscores = weights * (dweights - mean)                           # (2)
np.testing.assert_allclose(softmax_backward(dweights, cache), dscores, atol=1e-15)
assert not dscores[~causal].any()
rows = gradcheck(softmax_forward, softmax_backward, scores, causal)
assert all(row.ok for row in rows)

# %%
# Break it: mask after the softmax
# --------------------------------
# "Then I set the forbidden weights to 0." The gradient check passes, and no value of a
# hidden token comes through. But the denominator has added up all scores, so the
# weights of row 0 sum to less than 1, and by how much depends on later tokens.


def after_forward(scores, mask):
    weights, cache = softmax_forward(scores)
    return weights * mask, (cache, mask)


def after_backward(dweights, cache):
    softmax, mask = cache
    return softmax_backward(dweights * mask, softmax)


assert all(row.ok for row in gradcheck(after_forward, after_backward, scores, causal))
broken, _ = after_forward(scores, causal)
print("sums of the rows:", broken.sum(axis=1).round(2))
assert not broken[~causal].any() and broken[0].sum() < 0.9

# %%
# Does the future leak?
# ---------------------
# "My validation loss is too good." Change a later token: no earlier output may change.
# ``assert_causal`` does that for any function of tokens, also for a whole model (lesson
# 18). It finds the mask after the softmax, and a mask that is transposed.


def outputs(softmax, mask):
    return lambda x: softmax(x @ x.swapaxes(1, 2), mask)[0] @ x         # x = q = k = v


x = rng.normal(size=(2, 5, 4))                                  # (B, T, D)
assert_causal(outputs(softmax_forward, causal), x)
for softmax, mask in ((after_forward, causal), (softmax_forward, causal.T)):
    try:
        assert_causal(outputs(softmax, mask), x)
        raise RuntimeError("it should have leaked")
    except AssertionError as complaint:
        print(complaint)

# %%
# Exercises
# ---------
# 1. A sentence of 3 tokens is padded to 5. How many of the 25 entries of its causal
#    padding mask are True?
# 2. *Sliding window*: token t may attend to itself and to the ``window - 1`` tokens
#    before it, never to padding. Write ``answer_2(ids, window)``, a boolean mask (B, 1,
#    T, T).
#
# For a whole file: ``python -m tinymae exercise masks``.

answer_1 = None
if answer_1 is not None:
    assert answer_1 == both[1].sum(), "rows 0 to 2 see 1, 2, 3 tokens; what of 3, 4?"

answer_2 = None
if answer_2 is not None:
    window_mask = answer_2(src, 2)
    assert window_mask.shape == (2, 1, 5, 5) and window_mask.dtype == bool
    for b, query, key in np.ndindex(2, 5, 5):
        expected = key in (query - 1, query) and src[b, key] != 0
        assert window_mask[b, 0, query, key] == expected, (b, query, key)

# %%
# In the articles
# ---------------
# - **A, 2、自注意力层 and code**: padding with 0, and -1e9: "Padding with 0" and "A row with
#   nothing to attend to".
# - **C, 5.1**: "Z_1 是只包含单词 1 信息的" and Mask QK^T times V are both wrong: "Before and
#   after the softmax".
# - **C, 5.2**: "无需 Mask" forgets padding: "Padding with 0".
