"""
Training goes wrong · 训练出了问题
==================================

"My loss stops at 3." "It repeats one word." "All tokens are right in training, and no
translation is." A few numbers can name the cause. Here eight models are trained with
one mistake each, and a short list of rules finds the mistake.

You will be able to tell a bad learning rate, a bad initialisation, a wrong loss and a
wrong mask from the numbers of a run, and to name a bug that no curve shows.

Time: 25 minutes to read, 5 seconds to run. Needs: lessons 21 and 23.

Read beside: Vaswani et al. 2017, sections 3.2.3 and 5.3; article A (MAE:Masked
Autoencoders Are Scalable Vision Learners), 2、自注意力层; article C (Transformer模型详解), 5.1.
"""

# %%
# Four numbers of a run
# ---------------------
# The corpus and the loop are those of lesson 21; the model is narrower, but one layer
# deeper, and has no dropout. Four numbers judge a run of 45 steps: the first loss, the
# loss at step 30 (a mean of ten), and two fractions at the end: how many sentences are
# right as a whole when the decoder is *fed* the targets, and when it decodes *alone*.
# By lesson 23 they must be equal.

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
from tinymae.train.loop import Run, train
from tinymae.train.optim import AdamW, noam

pairs = load_corpus(["french"]).train
languages = [Language.learn("words", side) for side in zip(*pairs, strict=True)]
src, targets = map(pad_batch, encode_pairs(pairs, languages))  # (B, Tk), (B, Tq)
V = len(languages[1].vocabulary)
config = transformer.TransformerConfig(
    len(languages[0].vocabulary), V, d_model=32, encoder_layers=3, decoder_layers=3,
    heads=4, d_ff=64, dropout=0.0, tie="output")  # post-norm
levels = {"ln V": math.log(V)}  # those of lesson 21
frequencies = np.bincount(targets[targets != 0], minlength=V) / (targets != 0).sum()
for name, q in (("token frequencies", frequencies), ("floor", np.eye(V)[0])):
    smooth = 0.9 * q + 0.1 / V
    levels[name] = -(smooth * np.log(smooth)).sum()


def fresh():
    return transformer.transformer_init(config, np.random.default_rng(1))


def rate(step):
    return noam(step, d_model=32, warmup=20, factor=0.5)


def gradient(params, rng):
    loss, cache = transformer.transformer_forward(
        src, targets, params, config, label_smoothing=0.1, rng=rng)
    return float(loss), transformer.transformer_backward(1.0, cache)


@threadpool_limits.wrap(limits=1, user_api="blas")  # fastest for small matrices
def fit(params, rate=rate, steps=45):
    optimizer = AdamW(params, betas=(0.9, 0.98), eps=1e-9)
    run = Run(params, optimizer, np.random.default_rng(1))
    train(run, gradient, lambda step, _: rate(step + 1), steps=steps, max_norm=1.0,
          batch=len(src), bar=False)  # lesson 21's loop: gradient, clip, step
    return run.losses


def decode(params):
    ids = greedy(src, params, config, never=(0, 1, 3)).ids  # <pad>, <bos>, <unk>
    return [" ".join(languages[1].words(row)) for row in ids.tolist()]


def judge(params):
    _, cache = transformer.transformer_forward(src, targets, params, config)
    fed = np.ones(targets.shape, bool)  # padding is never wrong
    fed[targets != 0] = cache["logits"].argmax(axis=1) == cache["targets"]
    alone = np.array(decode(params)) == [target for _, target in pairs]
    return fed.all(axis=1).mean(), alone.mean()


# %%
# A model that repeats one word
# -----------------------------
# Stop a healthy run early. Its loss is near the token frequencies: it hardly uses the
# source. An output is empty, as ``<eos>`` is the most frequent token, or repeats a word
# or two. This is a stage, not a bug, as long as the loss is high *and falling*.

for steps in (8, 12):
    params = fresh()
    losses = fit(params, steps=steps)
    outputs = [output.split() for output in decode(params)]
    different = np.mean([len(set(output)) for output in outputs])
    print(f"step {steps}: loss {losses[-1]:.2f};", *max(outputs, key=len)[:12])
    assert different < 3 and losses[-1] > 0.75 * levels["token frequencies"]

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


tensors = len(list(tree.leaves(fresh())))
rng = np.random.default_rng(1)
wild = tree.map(lambda w: rng.normal(size=w.shape).astype(w.dtype), fresh())
bugs = {
    "softmax twice": patch.multiple(transformer, cross_entropy_forward=twice_forward,
                                    cross_entropy_backward=twice_backward),
    "no causal mask": patch.object(
        transformer, "causal_mask", lambda length: np.ones((1, 1, length, length)) > 0),
    "padding mask on queries": patch.object(  # whole rows (B, 1, Tq, Tk), not columns
        transformer, "padding_mask", lambda ids, pad=0: np.repeat(
            (ids != pad)[:, None, :, None], ids.shape[1], axis=3)),
    "softmax backward / B": patch.object(attention, "softmax_backward",
        lambda dp, cache: softmax_backward(dp, cache) / len(dp)),  # 41 times too small
}
schedules = {
    "no warm-up": lambda step: rate(max(step, 20)),  # starts at the highest rate
    "rate 5 times too high": lambda step: 5 * rate(step),
    "rate 10 times too low": lambda step: rate(step) / 10,
}

# %%
# What is wrong? Read the numbers in this order
# ---------------------------------------------
# The rules are asked from top to bottom, and the first that applies is the answer. It
# names a place to look at, not a line of code.


def diagnose(first, later, fed, alone):
    nothing, frequencies, floor = levels.values()
    rules = {
        "initialisation": first > 2 * nothing,
        "output or loss": later > (nothing + frequencies) / 2,  # not even frequencies
        "rate, warm-up": later > floor + 1,  # the source is hardly used
        "masks": alone < fed - 0.05,  # decoding differs
        "nothing to see": True,
    }
    return next(cause for cause, applies in rules.items() if applies)


curves, found = {}, {}
for name in ("as it should be", *schedules, "all weights from N(0, 1)", *bugs):
    params = wild if "N(0, 1)" in name else fresh()
    with bugs.get(name, nullcontext()):
        curves[name] = fit(params, schedules.get(name, rate))
        numbers = curves[name][0], np.mean(curves[name][20:30]), *judge(params)
    found[name] = diagnose(*numbers)
    print(f"{name:25}", *(f"{number:5.2f}" for number in numbers), found[name])
assert list(found.values()) == [
    "nothing to see", "rate, warm-up", "rate, warm-up", "rate, warm-up",
    "initialisation", "output or loss", "masks", "masks", "nothing to see"]
del curves["as it should be"]
figure = plot.curves(
    curves, "step", "loss (label smoothing 0.1)",
    "How to read it: one mistake in each run. Four curves stay near the token "
    "frequencies or above, the low rate is slow. The last three look healthy, but two "
    "of these models translate badly.", levels=levels, ylim=(0.5, 5))
print(plot.save(figure, Path("figures") / "wrong_losses.png"))

# %%
# Masks: two tests that need no training
# --------------------------------------
# Change a later token: no earlier output may change. Add padding: no output may change.
# Both hold for any weights. A gradient check is blind: the backward fits the forward.

params, fed = fresh(), shift_right(targets, bos=1)
changed = np.where(np.arange(6) < 3, fed, 5)  # other tokens from position 3 on
longer = np.pad(src, ((0, 0), (0, 2)))


def leaks():
    memory, _ = transformer.encode(src, params, config)
    before, _ = transformer.decode(fed, memory, src, params, config)
    after, _ = transformer.decode(changed, memory, src, params, config)
    padded, _ = transformer.encode(longer, params, config)
    future = not np.allclose(before[:, :3], after[:, :3], atol=1e-4)
    return future, not np.allclose(memory[src != 0], padded[longer != 0], atol=1e-4)


assert leaks() == (False, False)  # the future, the padding
with bugs["no causal mask"]:
    assert leaks() == (True, False)
with bugs["padding mask on queries"]:
    assert leaks()[1]

# %%
# The bug that no number shows
# ----------------------------
# Adam divides a constant factor out (lesson 21): a gradient that is B times too small
# trains as well as the right one. The gradient check finds it in q and k, and names it.

small = init.multi_head_attention(6, 2, rng, dtype=np.float64)
x = rng.normal(size=(3, 4, 6))  # B = 3
both = (blocks.multi_head_attention_forward, blocks.multi_head_attention_backward)
with bugs["softmax backward / B"]:
    rows = gradcheck(*both, x, x, small, heads=2)
wrong = {row.tensor: row for row in rows if not row.ok}
print(wrong["p.q.w"].diagnosis)
assert "p.v.w" not in wrong and wrong["p.q.w"].cause == "constant_factor"
assert math.isclose(3 * wrong["p.q.w"].analytic, wrong["p.q.w"].numeric, rel_tol=1e-4)

# %%
# Exercises
# ---------
# 1. By mistake a schedule counts a step for each of our 128 tensors, not one a batch.
#    Its warm-up has 4000 steps. In which batch is it over?
answer_1 = None
if answer_1 is not None:
    assert answer_1 == math.ceil(4000 / tensors), "a batch counts as 128 steps"

# 2. V = 1000, token frequencies 6.2; first loss 6.9, later 6.1. What is the diagnosis?
answer_2 = None
if answer_2 is not None:
    assert answer_2 == found["no warm-up"], "it learned no more than frequencies"

# %%
# In the articles
# ---------------
# - Article A, 2: 用 0 来进行填充 (padding with 0): its keys must be masked. Article C, 5.1:
#   later tokens are masked. "Masks: two tests that need no training" tests both.
