"""
Training goes wrong · 训练出了问题
==================================

"My loss stops at 3." "It repeats one word." "Accuracy is 99 %, and no translation is
right." A few numbers can name the cause. Here eight models are trained with one mistake
each, and a short list of rules finds the mistake.

You will be able to tell a bad learning rate, a bad initialisation, a wrong loss and a
leaking mask from the numbers of a run, and to name a bug that no curve shows.

Time: 25 minutes to read, 12 seconds to run.
Needs: lesson 21.

Read beside: Vaswani et al. 2017, sections 3.2.3 and 5.3; article A (MAE:Masked
Autoencoders Are Scalable Vision Learners), 2、自注意力层; article C (Transformer模型详解), 5.1.
"""

# %%
# Five numbers of a run
# ---------------------
# The corpus and the loop are those of lesson 21; the model is one layer deeper. Five
# numbers judge a run: the first loss, the lowest and the last, the *accuracy* with
# teacher forcing, and the fraction of sentences that greedy decoding gets *exactly*
# right. The losses are compared with the three levels of lesson 21.

import math
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
from threadpoolctl import threadpool_limits

from tinymae import blocks, init, plot, tree
from tinymae.gradcheck import gradcheck
from tinymae.masks import shift_right
from tinymae.models import transformer
from tinymae.models.decoding import greedy
from tinymae.ops import attention
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward
from tinymae.tasks.translate import encode_pairs
from tinymae.text.batches import pad_batch
from tinymae.text.corpus import load_corpus
from tinymae.text.language import Language
from tinymae.train.optim import AdamW, clip_grad_norm, noam

threadpool_limits(1, "blas")  # for small matrices one thread is the fastest
pairs = load_corpus(["french"]).train
languages = [Language.learn("words", side) for side in zip(*pairs, strict=True)]
encoded = encode_pairs(pairs, languages)
src, targets = pad_batch(encoded.source), pad_batch(encoded.target)  # (B, Tk), (B, Tq)
V = len(languages[1].vocabulary)
config = transformer.TransformerConfig(
    len(languages[0].vocabulary), V, d_model=48, encoder_layers=3, decoder_layers=3,
    heads=4, d_ff=96, tie="output")  # post-norm
levels = {"ln V": math.log(V)}
frequencies = np.bincount(targets[targets != 0], minlength=V) / (targets != 0).sum()
for name, q in (("token frequencies", frequencies), ("floor", np.eye(V)[0])):
    smooth = 0.9 * q + 0.1 / V
    levels[name] = -(smooth * np.log(smooth)).sum()
print({name: round(float(level), 2) for name, level in levels.items()})


def fresh():
    return transformer.transformer_init(config, np.random.default_rng(1))


def rate(step):
    return noam(step, d_model=48, warmup=30, factor=0.5)


def fit(params, rate=rate, steps=80):
    rng = np.random.default_rng(1)
    optimizer = AdamW(params, betas=(0.9, 0.98), eps=1e-9)
    losses = []
    for step in range(1, steps + 1):
        loss, cache = transformer.transformer_forward(
            src, targets, params, config, label_smoothing=0.1, rng=rng)
        dparams = transformer.transformer_backward(1.0, cache)
        clip_grad_norm(dparams, 1.0)
        optimizer.step(params, dparams, rate(step))
        losses.append(float(loss))
    _, cache = transformer.transformer_forward(src, targets, params, config)
    accuracy = np.mean(cache["logits"].argmax(axis=1) == cache["targets"])
    return losses, accuracy


def decode(params):
    ids = greedy(src, params, config, never=(0, 1, 3)).ids
    return [" ".join(languages[1].words(row.tolist())) for row in ids]


# %%
# A model that repeats one word
# -----------------------------
# Stop a healthy run early. After 10 steps its loss is at the token frequencies. It does
# not use the source: the output is empty for every sentence, as ``<eos>`` is the most
# frequent token. After 18 steps it uses the source a little, and repeats words. This is
# a stage, not a bug, as long as the loss is high *and falling*.

for steps in (10, 18):
    params = fresh()
    losses, _ = fit(params, steps=steps)
    outputs = set(decode(params))
    output = max(outputs, key=len).split()
    print(f"step {steps}: loss {losses[-1]:.2f}, {len(outputs)} outputs:", *output[:9])
    assert steps == 18 or len(outputs) < 4  # nearly one output for all 41 sentences
    assert steps == 18 or abs(losses[-1] - levels["token frequencies"]) < 0.3
assert len(set(output)) < len(output) / 2

# %%
# Break it: eight mistakes, one at a time
# ---------------------------------------
# Four mistakes are in the training and four in the model. ``patch`` replaces a function
# of the package as long as its ``with`` lasts. Source and target are both 6 tokens long
# here, so even a mask on the wrong axis fits every shape.


def twice_forward(logits, ids, label_smoothing=0.0):
    p, softmax = softmax_forward(logits)  # the loss contains a softmax already
    loss, cache = cross_entropy_forward(p, ids, label_smoothing=label_smoothing)
    return loss, (cache, softmax)


def twice_backward(dloss, cache):
    return softmax_backward(cross_entropy_backward(dloss, cache[0]), cache[1])


def all_true(length):
    return np.ones((1, 1, length, length), bool)  # later tokens are attended to


def on_queries(ids, pad=0):
    mask = (ids != pad)[:, None, :, None]  # (B, 1, Tq, 1), should be (B, 1, 1, Tk)
    return np.broadcast_to(mask, (len(ids), 1, ids.shape[1], ids.shape[1]))


def by_batch(dp, cache):
    return softmax_backward(dp, cache) / len(dp)  # dq and dk are 41 times too small


tensors = len(list(tree.leaves(fresh())))
rng = np.random.default_rng(1)
wild = tree.map(lambda w: rng.normal(size=w.shape).astype(w.dtype), fresh())
bugs = {
    "softmax twice": patch.multiple(transformer, cross_entropy_forward=twice_forward,
                                    cross_entropy_backward=twice_backward),
    "no causal mask": patch.object(transformer, "causal_mask", all_true),
    "padding mask on queries": patch.object(transformer, "padding_mask", on_queries),
    "softmax backward / B": patch.object(attention, "softmax_backward", by_batch),
}
schedules = {
    "no warm-up": lambda step: rate(max(step, 30)),  # starts at the highest rate
    "rate 5 times too high": lambda step: 5 * rate(step),
    "one step per tensor": lambda step: rate(tensors * step),  # 128 tensors in a batch
}
expected = [" ".join(languages[1].words(row.tolist())) for row in targets]
runs = {}
for name in ("as it should be", *schedules, "all weights from N(0, 1)", *bugs):
    params = wild if "N(0, 1)" in name else fresh()
    with bugs.get(name, nullcontext()):
        losses, accuracy = fit(params, schedules.get(name, rate))
    runs[name] = (losses, accuracy, np.mean(np.array(decode(params)) == expected))

# %%
# What is wrong? Read the numbers in this order
# ---------------------------------------------
# The rules are asked from top to bottom, and the first that applies is the answer. It
# names a place to look at, not a line of code.


def diagnose(losses, accuracy, exact):
    first, lowest, last = losses[0], min(losses), losses[-1]
    nothing, counting, floor = levels.values()
    if first > 2 * nothing:
        return "initialisation"
    if last > (nothing + counting) / 2:
        return "output and loss"  # not even frequencies are learned
    if last > (counting + floor) / 2 and lowest < counting - 0.3:
        return "rate too high"  # it used the source, and lost it again
    if last > (counting + floor) / 2:
        return "source not used: warm-up"
    if last > floor + 0.4:
        return "slow: print the rate"
    if exact < 0.75 * accuracy:
        return "decoding differs: masks"
    return "nothing to see"


found = {}
for name, (losses, accuracy, share) in runs.items():
    found[name] = diagnose(losses, accuracy, share)
    numbers = [losses[0], min(losses), losses[-1], accuracy, share]
    print(f"{name:25}", *(f"{number:5.2f}" for number in numbers), f" {found[name]}")
assert list(found.values()) == [
    "nothing to see", "source not used: warm-up", "rate too high",
    "slow: print the rate", "initialisation", "output and loss",
    "decoding differs: masks", "decoding differs: masks", "nothing to see"]
assert runs["no causal mask"][1] > 0.95 and runs["no causal mask"][2] < 0.3
figure = plot.curves(
    {name: run[0] for name, run in runs.items() if name != "as it should be"},
    "step", "loss (label smoothing 0.1)",
    "How to read it: one mistake in each run. Four curves end near the frequencies, "
    "one falls slowly. The last three look healthy, but two of these models translate "
    "badly.", levels=levels, ylim=(0.5, 5))
print(plot.save(figure, Path("figures") / "wrong_losses.png"))

# %%
# Masks: two tests that need no training
# --------------------------------------
# Change a later token: no earlier output may change. Add padding: no output may change.
# Both hold for any weights. A gradient check is blind here, as the backward fits the
# wrong forward. The package has ``assert_causal`` and ``assert_pad_invariant``.

params = fresh()
fed = shift_right(targets, bos=1)
changed = np.where(np.arange(6) < 3, fed, 5)  # other tokens from position 3 on
longer = np.pad(src, ((0, 0), (0, 2)))


def future_leaks():
    memory, _ = transformer.encode(src, params, config)
    before, _ = transformer.decode(fed, memory, src, params, config)
    after, _ = transformer.decode(changed, memory, src, params, config)
    return not np.allclose(before[:, :3], after[:, :3], atol=1e-4)


def padding_leaks():
    before, _ = transformer.encode(src, params, config)
    after, _ = transformer.encode(longer, params, config)
    return not np.allclose(before[src != 0], after[longer != 0], atol=1e-4)


assert not future_leaks() and not padding_leaks()
with bugs["no causal mask"]:
    assert future_leaks()
with bugs["padding mask on queries"]:
    assert padding_leaks()

# %%
# The bug that no number shows
# ----------------------------
# Adam divides a constant factor out (lesson 21): a gradient that is B times too small
# trains as well as the right one. The gradient check finds it in q and k, and names it.

small = init.multi_head_attention(6, 2, rng, dtype=np.float64)
x = rng.normal(size=(3, 4, 6))  # B = 3
both = (blocks.multi_head_attention_forward, blocks.multi_head_attention_backward)
assert all(row.ok for row in gradcheck(*both, x, x, small, heads=2))
with bugs["softmax backward / B"]:
    rows = gradcheck(*both, x, x, small, heads=2)
wrong = {row.tensor: row.diagnosis for row in rows if not row.ok}
print(wrong["p.q.w"])
assert "p.v.w" not in wrong and "3 times too small" in wrong["p.q.w"]

# %%
# Exercises
# ---------
# Write your answer in the place of ``None`` and run the cell again.

# 1. A schedule with 4000 steps of warm-up is asked once for each of our 128 tensors. In
#    which batch is the warm-up over?
answer_1 = None
if answer_1 is not None:
    assert answer_1 == math.ceil(4000 / tensors), "a batch counts as 128 steps"

# 2. V = 1000, and the entropy of the token frequencies is 6.2. The loss was 6.9 first,
#    5.1 at its lowest, and 6.2 at the end. What does ``diagnose`` return?
answer_2 = None
if answer_2 is not None:
    assert answer_2 == found["rate 5 times too high"], "it was much better before"

# %%
# In the articles
# ---------------
# - Article A, 2: short sentences are padded with 0 (用 0 来进行填充). Padding must then be
#   masked, on the axis of the keys: "Masks: two tests that need no training".
# - Article C, 5.1: the mask hides the later tokens. The same cell tests a mask, and the
#   table shows what a model without one looks like: accurate, and useless.
# - No article says which loss to expect, or how a wrong model looks.
