"""
Leaks, and the decoder's own mistakes · 信息泄漏与解码器自己的错误
==================================================================

Two decoders are trained on one task. The second has by far the lower validation loss,
and all that it generates is wrong: in training it saw the future. A sound decoder has a
smaller gap between training and use: in use it is fed its own mistakes.

You will be able to say which loss to expect, to find a leak without training, and to
measure how much a decoder's own mistakes cost.

Time: 25 minutes to read, 6 seconds to run. Needs: lessons 10, 16 and 17.

Read beside: Vaswani et al. 2017, section 3.2.3; article C (Transformer模型详解), "5.1
第一个 Multi-Head Attention" and the comment that asks about 作弊.
"""

# %%
# A language with a coin in it
# ----------------------------
# The source is a row of turns, the target the heading after each turn, starting north.
# A coin decides whether a heading is written in English or in Chinese. So even a
# perfect model has a mean loss of ln 2 = 0.693 for a heading (and 0 for <eos>). A model
# that is far below this floor has seen the answer.

import math
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tinymae import blocks, init, plot, tree
from tinymae.gradcheck import gradcheck
from tinymae.gradcheck.invariants import assert_causal
from tinymae.masks import padding_mask, shift_right
from tinymae.ops.embedding import embedding_backward, embedding_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.positional import sinusoidal_interleaved
from tinymae.text.vocabulary import BOS, EOS, PAD, SPECIALS
from tinymae.train.optim import AdamW, warmup_cosine

TURNS = [*SPECIALS, "right", "back", "left"]
HEADINGS = [*SPECIALS, "north", "east", "south", "west", "北", "东", "南", "西"]
T, D, H = 8, 48, 4


def draw_batch(count, rng):                     # 4 to 7 tokens, <eos>, padding
    n = rng.integers(4, T, (count, 1))
    turns = rng.integers(1, 4, (count, T))                      # quarters to the right
    coin = rng.integers(0, 2, (count, T))
    headings = turns.cumsum(axis=1) % 4 + 4 * coin
    end = np.where(np.arange(T) == n, EOS, PAD)
    source = np.where(np.arange(T) < n, 4 + turns - 1, end)
    target = np.where(np.arange(T) < n, 4 + headings, end)
    return source, target


source, target = draw_batch(256, np.random.default_rng(3))      # the validation set
floor = math.log(2) * (target > EOS).sum() / (target != PAD).sum()
print("turns   ", *(TURNS[i] for i in source[0]))
print("headings", *(HEADINGS[i] for i in target[0]))
print(f"the lowest honest loss, a mean over headings and <eos>: {floor:.3f}")

# %%
# The model
# ---------
# One encoder layer, one decoder layer, whose mask of self-attention, (T, T), is an
# argument. With teacher forcing the loss falls to the floor.

table = sinusoidal_interleaved(T, D).astype(np.float32)


def model_forward(p, src, inputs, targets, mask):
    x, embed_src = embedding_forward(src, p["src"])
    memory, encoder = blocks.encoder_layer_forward(
        x + table, p["encoder"], H, padding_mask(src), norm_first=False)
    x, embed_tgt = embedding_forward(inputs, p["tgt"])
    x, decoder = blocks.decoder_layer_forward(
        x + table, memory, p["decoder"], H, mask, padding_mask(src))
    logits, out = linear_forward(x, **p["out"])                 # (B, T, V)
    loss, entropy = cross_entropy_forward(logits, targets, ignore_index=PAD)
    return loss, (embed_src, encoder, embed_tgt, decoder, out, entropy, logits)


def model_backward(dloss, cache):
    embed_src, encoder, embed_tgt, decoder, out, entropy, _ = cache
    dx, dw, db = linear_backward(cross_entropy_backward(dloss, entropy), out)
    dx, dmemory, ddecoder = blocks.decoder_layer_backward(dx, decoder)
    dtgt = embedding_backward(dx, embed_tgt)
    dx, dencoder = blocks.encoder_layer_backward(dmemory, encoder)
    dsrc = embedding_backward(dx, embed_src)
    return {"src": dsrc, "encoder": dencoder, "tgt": dtgt, "decoder": ddecoder,
            "out": {"w": dw, "b": db}}


def model_init(rng):
    return {"src": init.normal((len(TURNS), D), rng, 1.0),
            "encoder": init.encoder_layer(D, H, 2 * D, rng),
            "tgt": init.normal((len(HEADINGS), D), rng, 1.0),
            "decoder": init.decoder_layer(D, H, 2 * D, rng),
            "out": init.linear(D, len(HEADINGS), rng)}


@threadpool_limits.wrap(limits=1, user_api="blas")   # faster for small matrices
def train(mask, steps):      # parameters at the end, after 100 steps; validation losses
    rng = np.random.default_rng(4)
    p = model_init(rng)
    optimizer = AdamW(p)
    losses = []
    for step in range(steps):
        if step % 10 == 0:
            loss, _ = model_forward(p, source, shift_right(target, BOS), target, mask)
            losses.append((step, float(loss)))
        if step == 100:
            early = tree.map(np.copy, p)
        src, tgt = draw_batch(64, rng)
        _, cache = model_forward(p, src, shift_right(tgt, BOS), tgt, mask)
        rate = warmup_cosine(step, steps, 30, 0.005)
        optimizer.step(p, model_backward(1.0, cache), rate)
    return p, early, np.array(losses).T


causal = np.tri(T, dtype=bool)
params, early, honest = train(causal, 300)
print(f"validation loss: {honest[1, 0]:.2f} at first, {honest[1, -1]:.3f} at the end")
assert floor - 0.02 < honest[1, -1] < floor + 0.05

# %%
# Its own mistakes
# ----------------
# In training the previous token is the true one; in use it is the model's own. After
# 100 steps the model still makes mistakes. With teacher forcing each costs one token.
# In use the next heading is counted from the wrong one, and is wrong too. So token
# accuracy with teacher forcing is too high, as article C's reader feared.


def generate(p, mask):          # target is for the loss only, which is not used here
    inputs = np.full((len(source), T + 1), PAD)                 # padding: not yet known
    inputs[:, 0] = BOS
    for t in range(T):
        _, cache = model_forward(p, source, inputs[:, :-1], target, mask)
        inputs[:, t + 1] = cache[-1][:, t].argmax(axis=1)  # generated, and fed next
    return inputs[:, 1:]


def right(ids):                                 # in either language; padding is right
    heading = (ids > EOS) & ((ids - target) % 4 == 0)
    return np.where(target > EOS, heading, (ids == target) | (target == PAD))


_, cache = model_forward(early, source, shift_right(target, BOS), target, causal)
forced, tokens, lines = cache[-1].argmax(axis=2), {}, {}        # cache[-1]: the logits
for name, ids in (("teacher forcing", forced), ("own tokens", generate(early, causal))):
    hits = right(ids)
    tokens[name] = hits[target != PAD].mean()
    each = [hits[target[:, t] > EOS, t].mean() for t in range(T - 1)]
    lines[name] = np.arange(T - 1), each
    print(f"{name:15}: {tokens[name]:.0%} of the tokens are right")
assert tokens["teacher forcing"] > tokens["own tokens"] + 0.05
caption = (
    "How to read it: the fraction of right headings at each position, after 100 steps. "
    "Fed its own tokens (the lower line), the decoder makes more mistakes."
)
figure = plot.curves(lines, "position", "fraction right", caption, ylim=(0, 1.05),
                     levels={"guessing a heading": 0.25}, markers=True)
print(plot.save(figure, Path("figures") / "decoder_own_mistakes.png"))

# %%
# Break it: a future that leaks
# -----------------------------
# One diagonal too many: with ``np.tri(T, k=1)`` position t attends to position t + 1 of
# the input, which is target t, the answer. The gradient check finds nothing: forward
# and backward agree. ``assert_causal`` finds it, even before training: it changes later
# tokens and compares earlier outputs.

leaky = np.tri(T, k=1, dtype=bool)
p64 = tree.map(np.float64, model_init(np.random.default_rng(2)))
few, answers = source[:2], target[:2]
inputs = shift_right(answers, BOS)


def outputs(ids, mask):
    return model_forward(p64, few, ids, answers, mask)[1][-1]   # logits (2, T, V)


for mask in (causal, leaky):
    arguments = (p64, few, inputs, answers)
    rows = gradcheck(model_forward, model_backward, *arguments, samples=1, mask=mask)
    assert all(row.ok for row in rows)                          # blind to the leak
assert_causal(lambda ids: outputs(ids, causal), inputs)
try:
    assert_causal(lambda ids: outputs(ids, leaky), inputs)
    raise RuntimeError("it should have leaked")
except AssertionError as complaint:
    print(complaint)

# %%
# What loss should I see?
# -----------------------
# Equal probabilities give ln V = 2.48; random weights start above it. The honest loss
# then stops at the floor of the task, the leaky one falls through. In use there is no
# future to see, so what the leaky decoder generates is wrong. So compute the floor, use
# ``assert_causal``, and measure what the model *generates*.

cheat, _, cheating = train(leaky, 150)
fooled = generate(cheat, leaky)
print("generated", *(HEADINGS[i] for i in fooled[0]))
exact = {"honest": right(generate(params, causal)).all(axis=1).mean(),
         "leaky": right(fooled).all(axis=1).mean()}
for name, losses in (("honest", honest), ("leaky", cheating)):
    print(f"{name}: loss {losses[1, -1]:.3f}, {exact[name]:.1%} of sentences right")
assert cheating[1, -1] < 0.5 * floor and exact["leaky"] < 0.05 < 0.9 < exact["honest"]

caption = (
    "How to read it: validation loss with teacher forcing. The honest decoder stops at "
    "the floor. The one below it, trained for half as long, sees the answers."
)
curves = {"causal mask": tuple(honest), "one diagonal too many": tuple(cheating)}
figure = plot.curves(curves, "step", "validation loss", caption,
                     levels={"floor": floor, "ln V": math.log(len(HEADINGS))})
print(plot.save(figure, Path("figures") / "decoder_leak.png"))

# %%
# Exercises
# ---------
# 1. Each heading could be written in ``ways`` ways, all equally likely. What is the
#    lowest honest loss, the mean over the n headings of a sentence and its <eos>?
# 2. Write ``def answer_2(function, ids, t): ...`` which is True if the tokens from
#    position t on change an output before t. ``function(ids)`` is (B, T, V).

answer_1 = None
if answer_1 is not None:
    n = (target[0] > EOS).sum()
    lowest = math.log(2) * n / (target[0] != PAD).sum()
    assert math.isclose(answer_1(2, n), lowest), "the coin costs ln 2, <eos> nothing"

answer_2 = None
if answer_2 is not None:
    for mask in (causal, leaky):
        found = answer_2(lambda ids, mask=mask: outputs(ids, mask), inputs, 3)
        assert found == (mask is leaky), "compare the outputs before t only"

# %%
# In the articles
# ---------------
# - **Article C, 5.1** hides the later tokens (lesson 10). If one of them is visible:
#   "Break it: a future that leaks".
# - **The comments under article C**: to test with the true target, is it "作弊"? Token
#   accuracy is then too high: "Its own mistakes".
