"""
Training a translator · 训练一个翻译模型
========================================

A new Transformer is full of random numbers. Ten lines of code train it. It is harder to
know whether a loss is good: is 3.0, is 0.7? Here a model learns 41 French sentences.

You will be able to write Adam and the training loop, and to say which losses to expect.

Time: 25 minutes to read, 7 seconds to run. Needs: lessons 16, 17 and 20.

Read beside: Vaswani et al. 2017, section 5; article D (笔记 | 深入理解Transformer),
九、回顾训练过程; article C (Transformer模型详解), 5.1.
"""

# %%
# Sentences as numbers
# --------------------
# A batch is two arrays of token numbers, padded with 0. In training, the decoder is fed
# the *true* sentence, shifted right, and predicts the next token at all positions at
# once. This is teacher forcing (lesson 16). A target of padding is not counted.

import math
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tinymae import plot
from tinymae.masks import shift_right
from tinymae.models import transformer
from tinymae.models.decoding import greedy
from tinymae.ops.softmax import softmax_forward
from tinymae.tasks.translate import encode_pairs
from tinymae.text.batches import pad_batch
from tinymae.text.corpus import load_corpus
from tinymae.text.language import Language
from tinymae.train.optim import AdamW, clip_grad_norm, noam

corpus = load_corpus(["french"])
french, english = (Language.learn("words", s) for s in zip(*corpus.train, strict=True))
words = english.vocabulary.words
V = len(words)
src, targets = map(pad_batch, encode_pairs(corpus.train, [french, english]))
assert src.shape == targets.shape == (41, 6) and V == 37  # (B, Tk), (B, Tq)
student = corpus.train.index(("je suis étudiant", "i am a student"))
fed = shift_right(targets, bos=1)
for row in (fed[student], targets[student]):
    print(row, [words[i] for i in row])

# %%
# One step of Adam, as a loop
# ---------------------------
# Gradient descent makes large steps where the gradient is large. Adam gives each
# parameter a step length of its own. For a parameter p, in step t:
#
# .. math::
#
#    m &= b_1 m + (1 - b_1) g \quad (1) \qquad v = b_2 v + (1 - b_2) g^2 \quad (2) \\
#    p &= p - lr \, \frac{m / (1 - b_1^t)}{\sqrt{v / (1 - b_2^t)} + \epsilon} \quad (3)
#
# m is a running mean of the gradient, v of its square. If all gradients are 1000 times
# as large, (3) stays as it was. **Adam hides the scale of a gradient**: a falling loss
# does not prove that it is right. Every parameter's first step has the length lr.


def adam(p, gradients, lr, b1=0.9, b2=0.98, eps=1e-9):
    p, m, v = p.copy(), np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients, 1):  # t counts steps, from 1
        for i in range(len(p)):
            m[i] = b1 * m[i] + (1 - b1) * g[i]  # (1)
            v[i] = b2 * v[i] + (1 - b2) * g[i] ** 2  # (2)
            root = math.sqrt(v[i] / (1 - b2**t))
            p[i] -= lr * m[i] / (1 - b1**t) / (root + eps)  # (3)
    return p


rng = np.random.default_rng(0)
start, gradients = rng.normal(size=6), rng.normal(size=(10, 6))
p = {"w": start.copy()}
optimizer = AdamW(p, betas=(0.9, 0.98), eps=1e-9)
for g in gradients:
    optimizer.step(p, {"w": g}, 0.01)
np.testing.assert_allclose(adam(start, gradients, 0.01), p["w"], atol=1e-12)
np.testing.assert_allclose(adam(start, 1000 * gradients, 0.01), p["w"], atol=1e-8)
first = adam(start, gradients[:1], 0.01) - start
np.testing.assert_allclose(first, -0.01 * np.sign(gradients[0]), atol=1e-5)

# %%
# The learning rate: up, then down
# --------------------------------
# Vaswani et al., equation 3, counts steps from 1:
#
# .. math:: lr = factor \cdot D^{-1/2} \min(step^{-1/2},\; step \cdot warmup^{-3/2})
#
# Where the two terms meet, the warm-up ends and the rate is highest. A short warm-up
# has a high peak, so our factor is 0.5. The paper's is 1.


def rate(step):
    return noam(step, d_model=64, warmup=40, factor=0.5)


print(f"highest rate: ours {rate(40):.1e}, the paper's {noam(4000, 512, 4000):.1e}")
assert rate(40) == max(map(rate, range(1, 151)))

# %%
# The training loop
# -----------------
# Loss, gradient, clip, step: this is all of training. All 41 pairs are in one batch.
# Clipping shortens a gradient longer than 1. ``AdamW`` without weight decay is Adam.

config = transformer.TransformerConfig(
    len(french.vocabulary), V, d_model=64, encoder_layers=2, decoder_layers=2, heads=4,
    d_ff=128, tie="output",
)  # post-norm, ReLU, dropout 0.1: the paper's model, but small


@threadpool_limits.wrap(limits=1, user_api="blas")  # fastest for small matrices
def fit(rate):
    rng = np.random.default_rng(0)
    params = transformer.transformer_init(config, rng)
    optimizer = AdamW(params, betas=(0.9, 0.98), eps=1e-9)
    losses = []
    for step in range(1, 151):
        loss, cache = transformer.transformer_forward(
            src, targets, params, config, label_smoothing=0.1, rng=rng)
        dparams = transformer.transformer_backward(1.0, cache)
        clip_grad_norm(dparams, 1.0)
        optimizer.step(params, dparams, rate(step))
        losses.append(float(loss))
    return params, losses


params, losses = fit(rate)

# %%
# What loss should I see?
# -----------------------
# Three levels can be computed before the first step:
#
# - **ln V**: the model assigns 1/V to every token. The first loss is near it or above.
# - **the entropy of the token frequencies**: the model knows how often each token
#   occurs. A loss that stays here does not use the source.
# - **the floor of label smoothing**: the model knows everything. No loss lies below it.
#
# A model can learn its training set by heart. So measure the validation set, too, and
# translate it: there the decoder is fed its own tokens. With four sentences, one more
# that is right may be luck.

levels = {"ln V": math.log(V)}
frequencies = np.bincount(targets[targets != 0], minlength=V) / (targets != 0).sum()
for name, q in (("token frequencies", frequencies), ("floor", np.eye(V)[0])):
    smooth = 0.9 * q + 0.1 / V
    levels[name] = -(smooth * np.log(smooth)).sum()
print({name: round(float(level), 2) for name, level in levels.items()})
print(f"loss: first {losses[0]:.2f}, last {losses[-1]:.2f}")
assert levels["ln V"] - 0.1 < losses[0] < 2 * levels["ln V"]
assert levels["floor"] < losses[-1] < levels["floor"] + 0.1


def translate(params, texts):
    ids = pad_batch([french.encode(text) for text in texts])
    decoded = greedy(ids, params, config, never=(0, 1, 3))  # <pad>, <bos>, <unk>
    return [" ".join(english.words(row.tolist())) for row in decoded.ids], decoded


def validate(params):
    ids = map(pad_batch, encode_pairs(corpus.held_out, [french, english]))
    loss, _ = transformer.transformer_forward(*ids, params, config, label_smoothing=0.1)
    outputs, _ = translate(params, [source for source, _ in corpus.held_out])
    print(f"loss {loss:.2f}", *zip(corpus.held_out, outputs, strict=True), sep="\n")
    return loss


validation_loss = validate(params)
assert validation_loss < levels["token frequencies"]

# %%
# Target outputs against trained outputs
# --------------------------------------
# Article D's two tables. The target is certain of each token, the model nearly so, as
# label smoothing asks for 0.9 + 0.1/37. The loss is the mean of -ln p.

pair = src[[student]], targets[[student]]
loss, cache = transformer.transformer_forward(*pair, params, config)
p, _ = softmax_forward(cache["logits"])  # (5, V)
one_hot = np.eye(V)[cache["targets"]]
p_right = p[one_hot == 1]
print(f"probabilities of the right tokens {p_right.round(2)}, loss {loss:.3f}")
assert (p.argmax(axis=1) == cache["targets"]).all() and 0.7 < p_right.min() < 0.999
np.testing.assert_allclose(loss, -np.log(p_right).mean(), rtol=1e-5)
figure = plot.output_probabilities(one_hot, p, words)
print(plot.save(figure, Path("figures") / "training_outputs.png"))

# %%
# Where each token attended
# -------------------------
# No head of the cross-attention was told what to do, so not every map can be read. Look
# at the row of *not*: French has *ne* and *pas*. Uniform weights would give them 2/6.

negated = "je ne suis pas étudiant"
(output,), decoded = translate(params, [negated])
cross = decoded.cross[0]  # (L, H, T, Tk)
rows, columns = (f"{sentence} <eos>".split() for sentence in (output, negated))
figure = plot.attention(cross[-1], rows, columns, caption="How to read it: "
    "the last layer's cross-attention, a map for each head. A row is the step that "
    "outputs a token, a column a token of the source. Each row sums to 1.")
print(plot.save(figure, Path("figures") / "training_attention.png"))
negation = cross[:, :, 2, [1, 3]].sum(axis=-1)  # (L, H): from not to ne and pas
print("not: weight of ne and pas, by layer and head:", *negation.round(2))
assert output == "i am not a student" and negation.max() > 2 / 6

# %%
# Break it: no warm-up
# --------------------
# Training starts at the highest rate, with means m and v of one or two gradients. The
# loss falls more slowly. A deeper post-norm model suffers more: lesson 22.

broken, slow = fit(lambda step: rate(max(step, 40)))
validate(broken)
assert np.mean(slow[20:100]) > np.mean(losses[20:100])
figure = plot.curves(
    {"with warm-up": losses, "without": slow}, "step", "loss (label smoothing 0.1)",
    "How to read it: a run starts at ln V or above, falls below the token frequencies "
    "when it uses the source, and approaches the floor.", levels=levels)
print(plot.save(figure, Path("figures") / "training_losses.png"))

# %%
# Exercises
# ---------
# 1. The paper's vocabulary has 37,000 tokens. Which first loss do you expect?
answer_1 = None
if answer_1 is not None:
    assert abs(answer_1 - math.log(37000)) < 0.01, "-ln(1/V): a natural logarithm"

# 2. Write the clipping: a function (gradients, most) -> list. All arrays are multiplied
#    by one factor, so that the square root of the sum of all squares is at most `most`.
answer_2 = None
if answer_2 is not None:
    long, short = [np.array([3.0]), np.array([4.0])], [np.array([0.3]), np.array([0.4])]
    assert np.allclose(answer_2(long, 1.0), [[0.6], [0.8]]), "one norm for all arrays"
    assert np.allclose(answer_2(short, 1.0), short), "short gradients stay as they are"

# %%
# In the articles
# ---------------
# - Article D, 九: "Target outputs against trained outputs" draws its tables for *je suis
#   étudiant*. D's loss, 做一个简单的减法 (a simple subtraction), is wrong: lesson 20.
# - Article C, 5.1: the decoder is fed the true sentence: "Sentences as numbers".
