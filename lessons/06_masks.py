"""
Masks · 掩码
============

Attention looks at everything unless it is told not to. Two things must not be seen: padding, which is no word, and, in the
decoder, the words that are still to be said. A wrong mask crashes nothing: the loss falls, with a leak even faster than it
should, and the model is useless.

Read beside: Vaswani et al. 2017, section 3.2.3; articles A (part 2) and C (section 5.1).
"""

# %%
# One rule: True may be looked at
# -------------------------------
# A mask is boolean and broadcasts to the scores (B, H, Tq, Tk). It stands on the axis of the *keys*, the last one: a padded
# word is not looked at. (That it looks itself does no harm: nobody reads its answer.)

from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.gradcheck.invariants import assert_causal, assert_pad_invariant
from tinymae.masks import causal_mask, causal_padding_mask, padding_mask, shift_right
from tinymae.models.transformer import TransformerConfig, decode, encode, to_vocabulary, transformer_init
from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward

figures = Path("figures")
src = np.array([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]])              # two sentences; 0 is <pad>
print("padding", padding_mask(src).shape, padding_mask(src)[:, 0, 0].astype(int), sep="\n")
print("causal", causal_mask(5).shape, causal_mask(5)[0, 0].astype(int), sep="\n")
assert (causal_padding_mask(src) == (padding_mask(src) & causal_mask(5))).all()         # both: (B, 1, T, T)

# %%
# As a loop, and at once
# ----------------------
# The softmax runs over the words that may be seen, and the others get exactly 0. At once: a hidden score becomes minus
# infinity, and e to the power of that is 0.
#
# .. math::
#
#    p_j = e^{s_j} / \sum_{k\ seen} e^{s_k} \quad \text{where } j \text{ may be seen, else } 0 \qquad (1)


def masked_softmax(scores, mask):
    weights = np.zeros_like(scores)
    for row in range(len(scores)):
        seen = [key for key in range(scores.shape[1]) if mask[row, key]]
        total = sum(np.exp(scores[row, key]) for key in seen)
        for key in seen:
            weights[row, key] = np.exp(scores[row, key]) / total                        # (1)
    return weights


rng = np.random.default_rng(0)
scores, causal = rng.normal(size=(5, 5)), causal_mask(5)[0, 0]
weights, _ = softmax_forward(scores, causal)
np.testing.assert_allclose(masked_softmax(scores, causal), weights, atol=1e-15)
hidden = np.exp(np.where(causal, scores, -np.inf))
np.testing.assert_allclose(hidden / hidden.sum(axis=1, keepdims=True), weights, atol=1e-15)

# %%
# Before and after the softmax
# ----------------------------
# Article C numbers ``<Begin> I have a cat <end>`` from 0 to 5. The decoder is fed 0 to 4 and asked for 1 to 5: row 2, "have",
# has seen ``<Begin> I have`` and is asked for "a". So the diagonal is open: a word sees itself, and what it must say stands one
# place to the right.

sentence = ["<Begin>", "I", "have", "a", "cat", "<end>"]
targets = np.arange(1, 6)[None]                                 # I have a cat <end>
inputs = shift_right(targets, bos=0)                            # <Begin> I have a cat
for t in range(5):
    seen = [sentence[inputs[0, key]] for key in range(5) if causal[t, key]]
    print(f"{' '.join(seen):25} -> {sentence[targets[0, t]]}")
np.testing.assert_array_equal(inputs[0], np.arange(5))

print(plot.save(plot.masks(scores, causal, sentence[:5], sentence[:5]), figures / "mask_causal.png"))

# %%
# Padding with 0
# --------------
# Sentences of one batch must be equally long, so article A fills short ones with 0. That 0 is an id, and its row of the
# embedding a vector like others: without a mask it takes part. Even a vector of zeros would: its score is q.0 = 0, and e to the
# 0 is 1.

padded = ["我", "有", "猫", "<pad>", "<pad>"]
mask = np.broadcast_to(padding_mask(src)[1, 0], (5, 5))
keys = rng.normal(size=(5, 4)) * mask[0][:, None]               # the two padded keys are all zero
weights, _ = softmax_forward(rng.normal(size=(5, 4)) @ keys.T)
print(f"weight that padding of zeros takes without a mask: {weights[:, 3:].sum(axis=1).round(2)}")
assert weights[:, 3:].sum(axis=1).min() > 0.05

print(plot.save(plot.masks(scores, mask, padded, padded), figures / "mask_padding.png"))

# %%
# Which axis, and does 0 mean keep?
# ---------------------------------
# Two of the most asked questions. Here: the last axis, and True (not 0) means keep. A mask of numbers could mean either, and
# one on the axis of the queries often has a shape that fits, so both are refused, with a message.

q, k, v = (rng.normal(size=(2, 1, 5, 4)) for _ in range(3))
refusals = []
for wrong in ((src != 0).astype(int)[:, None, None, :], (src != 0)[:, None, :, None]):
    try:
        scaled_dot_product_attention_forward(q, k, v, wrong)
    except (TypeError, ValueError) as error:
        refusals.append(str(error))
        print(f"{type(error).__name__}: {error}")
assert "write mask != 0" in refusals[0] and "is the mask on the query axis?" in refusals[1]

# %%
# Others have other rules. Read theirs before you carry a mask over:
#
# - ``F.scaled_dot_product_attention`` of PyTorch: boolean, True = may attend, as here; a mask of *floats* is added to the
#   scores (0 keeps, minus infinity hides).
# - ``nn.MultiheadAttention`` and ``nn.Transformer``: boolean ``key_padding_mask`` and ``attn_mask`` mean True = may **not**.
# - ``nn.Transformer.generate_square_subsequent_mask``: floats to be added, minus infinity above the diagonal.
# - Article A's ``masked_fill(mask == 0)``: numbers, 0 is hidden.
# - MAE's mask is not an attention mask at all: 1 = patch removed.

key_padding_mask = src == 0                                     # (B, Tk), nn.MultiheadAttention's: True = ignore
np.testing.assert_array_equal(~key_padding_mask[:, None, None, :], padding_mask(src))
to_add = np.where(causal, 0.0, -np.inf)                         # the mask of floats
np.testing.assert_allclose(softmax_forward(scores + to_add)[0], softmax_forward(scores, causal)[0], atol=1e-15)

# %%
# A row with nothing to attend to
# -------------------------------
# A sentence of padding only, or a mask that hides too much: every score of the row is minus infinity, and the softmax divides 0
# by 0. The NaN reaches the loss, and from there every gradient. The usual remedy, -1e9 instead of infinity, hides the problem:
# all scores are equal then, and the row looks at all that is forbidden. Here it looks at nothing: output 0, gradient 0.

row = np.full(5, -np.inf)
with np.errstate(invalid="ignore"):
    plain = np.exp(row) / np.exp(row).sum()
print("plain softmax", plain, "with -1e9", softmax_forward(np.full(5, -1e9))[0])
assert np.isnan(plain).all() and np.allclose(softmax_forward(np.full(5, -1e9))[0], 1 / 5)

mask = np.repeat(causal_padding_mask(src), 3, axis=1)           # (B, H, Tq, Tk) = (2, 3, 5, 5)
mask[1, 1, 2] = False                                           # this query may look at nothing
q, k, v = (rng.normal(size=(2, 3, 5, 4)) for _ in range(3))
z, cache = scaled_dot_product_attention_forward(q, k, v, mask)
dq, dk, dv = scaled_dot_product_attention_backward(rng.normal(size=z.shape), cache)
assert not z[1, 1, 2].any() and not dq[1, 1, 2].any() and all(np.isfinite(g).all() for g in (z, dq, dk, dv))

# %%
# The backward
# ------------
# The mask needs no line of its own. In the softmax backward
#
# .. math::
#
#    ds_k = p_k \Big( dp_k - \sum_j dp_j\, p_j \Big) \qquad (4)
#
# (the package's number) p is 0 wherever the mask forbids: hidden scores get exactly 0, and they drop out of the sum. Nothing
# else has to be remembered, not even the mask.


def masked_softmax_backward(dp, p):
    ds = np.zeros_like(dp)
    for row in range(len(dp)):
        mean = sum(dp[row, key] * p[row, key] for key in range(dp.shape[1]))
        for key in range(dp.shape[1]):
            ds[row, key] = p[row, key] * (dp[row, key] - mean)                          # (4)
    return ds


weights, cache = softmax_forward(scores, causal)
dweights = rng.normal(size=(5, 5))
dscores = softmax_backward(dweights, cache)
np.testing.assert_allclose(masked_softmax_backward(dweights, weights), dscores, atol=1e-15)
assert not dscores[~causal].any() and not dscores[0].any()      # row 0 sees one word only: its weight is 1, whatever its score

rows = gradcheck(softmax_forward, softmax_backward, scores, causal)
rows += gradcheck(scaled_dot_product_attention_forward, scaled_dot_product_attention_backward, q, k, v, mask)
print(format_rows("with masks", rows))
assert all(row.ok for row in rows)

caption = (
    "How to read it: a causal mask. Left, the weights; right, the gradient of their scores for a random dL/dweights. A bare 0 "
    "is exactly zero: what was hidden gets no gradient. Row 0 has one word to look at, so nothing to decide."
)
panels = [plot.Panel("attention", weights), plot.Panel("dL/dscores", dscores, 1.0, signed=True)]
figure = plot.heatmaps(panels, "key (is looked at)", "query (looks)", caption, columns=2)
print(plot.save(figure, figures / "mask_gradient.png"))

# %%
# Break it: multiply by the mask
# ------------------------------
# A score of 0 is not "do not look": e to the 0 is 1, so a hidden word gets weight, and more than any seen one whose score is
# negative. The gradient check is blind. It asks whether the backward belongs to the forward, and it does.


def multiplied_forward(scores, mask):
    weights, cache = softmax_forward(scores * mask)
    return weights, (cache, mask)


def multiplied_backward(dweights, cache):
    softmax, mask = cache
    return softmax_backward(dweights, softmax) * mask


assert all(row.ok for row in gradcheck(multiplied_forward, multiplied_backward, scores, causal))        # blind
broken = multiplied_forward(scores, causal)[0]
print(f"weight on words that must not be seen: {broken[~causal].sum():.2f}, of 5 rows with a sum of 1 each")
assert broken[~causal].min() > 0 and broken[~causal].sum() > 1 and weights[~causal].max() == 0

# %%
# Break it: mask after the softmax
# --------------------------------
# "Then I set the forbidden weights to 0." The weights look right, and no value of a hidden word comes through. But the
# denominator has seen all scores: later words still change earlier outputs. ``assert_causal`` changes a later word, and looks.


def decoder(attend):
    def function(x):                                            # (B, T, D): words as vectors, which are q, k and v
        scores = x @ x.swapaxes(-1, -2)
        return attend(scores, np.tri(x.shape[1], dtype=bool)) @ x

    return function


def complaint_of(attend):
    try:
        assert_causal(decoder(attend), rng.normal(size=(2, 5, 4)))
    except AssertionError as complaint:
        return str(complaint)
    return ""


attempts = {
    "right": lambda scores, mask: softmax_forward(scores, mask)[0],
    "mask after the softmax": lambda scores, mask: softmax_forward(scores)[0] * mask,
    "multiplied": lambda scores, mask: softmax_forward(scores * mask)[0],
    "transposed": lambda scores, mask: softmax_forward(scores, mask.T)[0],
    "0 for keep": lambda scores, mask: softmax_forward(scores, ~mask)[0],
}
complaints = {name: complaint_of(attend) for name, attend in attempts.items()}
for name, complaint in complaints.items():
    print(f"{name:23} {complaint or 'nothing leaks'}")
assert not complaints.pop("right") and all("reach an earlier output" in complaint for complaint in complaints.values())

# %%
# Does the future leak?
# ---------------------
# "My validation loss is too good." Ask the whole model: change a later word, and no earlier output may change. Ask what padding
# does: change what stands under it, or add more of it, and no output may change. The comparison is exact (but for rounding,
# where padding is added): what is hidden is not multiplied by something small, it is not there.

config = TransformerConfig(12, 12, d_model=16, encoder_layers=1, decoder_layers=2, heads=2, d_ff=32)
params = transformer_init(config, rng, np.float64)


def say(inputs):
    return to_vocabulary(decode(inputs, encode(src, params, config)[0], src, params, config)[0], params, config)[0]


def attend_to_words(x, mask):                                   # (B, T, D), (B, T) -> what the words say, not the padding
    return scaled_dot_product_attention_forward(*[x[:, None]] * 3, mask[:, None, None, :])[0][:, 0][mask]


def attend_from_words(x, mask):                                 # the mask on the queries, made to fit
    T = x.shape[1]
    wrong = np.broadcast_to(mask[:, None, :, None], (len(x), 1, T, T))
    return scaled_dot_product_attention_forward(*[x[:, None]] * 3, wrong)[0][:, 0][mask]


assert_causal(say, shift_right(rng.integers(4, 12, (2, 6)), config.bos))
assert_pad_invariant(attend_to_words, rng.normal(size=(2, 5, 4)), src != 0)
try:
    assert_pad_invariant(attend_from_words, rng.normal(size=(2, 5, 4)), src != 0)
    raise RuntimeError("the invariant should have seen it")
except AssertionError as complaint:
    print(f"a padding mask on the queries: {complaint}")

# %%
# Exercises
# ---------
# 1. A sentence of 3 words is padded to 5. How many of the 25 entries of its causal padding mask are True?
#
# 2. *Sliding window*: word t may look at itself and the ``window - 1`` words before it, never at padding. Write
#    ``answer_2(ids, window)``, a boolean mask (B, 1, T, T).
#
# 3. A mask of floats is added to the scores, and it could just as well be *learned*. In ``biased_forward`` one bias (Tq, Tk)
#    serves all sentences. Write its backward: (dscores, dbias).
#
# For a whole file to complete: ``python -m tinymae exercise masks``.

answer_1 = None
if answer_1 is not None:
    assert answer_1 == causal_padding_mask(src)[1].sum(), "rows 0, 1, 2 see 1, 2, 3 words; what do the padded rows see?"

answer_2 = None
if answer_2 is not None:
    window_mask = answer_2(src, 2)
    assert window_mask.shape == (2, 1, 5, 5) and window_mask.dtype == bool, "boolean, (B, 1, T, T)"
    for b, query, key in np.ndindex(2, 5, 5):
        expected = key in (query - 1, query) and src[b, key] != 0
        assert window_mask[b, 0, query, key] == expected, f"sentence {b}: may word {query} look at word {key}?"


def biased_forward(scores, bias):
    weights, cache = softmax_forward(scores + bias)             # (B, Tq, Tk) + (Tq, Tk)
    return weights, cache


answer_3 = None
if answer_3 is not None:
    rows = gradcheck(biased_forward, answer_3, np.random.default_rng(1).normal(size=(2, 3, 4)), np.ones((3, 4)))
    assert all(row.ok for row in rows), f"the bias is used once for each sentence\n{format_rows('', rows)}"

# %%
# In the articles
# ---------------
# - **A, part 2 (自注意力).** Mini-batches padded with 0, hidden by ``masked_fill(mask == 0)``: 0 is hidden, so its masks read
#   as ours do, as numbers. With a large negative number, a row with nothing to attend to looks at everything.
# - **C, section 5.1.** Masked self-attention: the 5 x 5 mask of "Before and after the softmax". It stands between QK^T and the
#   softmax; "Break it: mask after the softmax" shows why not behind.
# - **C, section 5, cross attention.** With more than one sentence in a batch it needs a mask too: the padding of the source.
# - **Vaswani et al., section 3.2.3**, set what is forbidden to minus infinity in the input of the softmax. They do not mention
#   padding.
