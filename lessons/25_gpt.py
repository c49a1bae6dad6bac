"""
GPT: an encoder with a causal mask · GPT：带因果掩码的编码器
============================================================

A translator needs a source. A language model has none: it continues a text, token by
token. GPT is the encoder of lesson 14 with one change, a causal mask. It needs no new
layer and no labels: every sentence is its own target, shifted by one token.

You will be able to build a small GPT from blocks you know, check its backward pass,
train it in seconds, and sample from it with temperature, top-k and top-p.

Time: 35 minutes to read, 4 seconds to run. Needs: lessons 10, 14, 20 and 21.

Read beside: Radford et al. 2018 and 2019 (GPT, GPT-2); Holtzman et al. 2020 (top-p);
Touvron et al. 2023 (Llama), section 2.2; article C (Transformer模型详解), section 6.
"""

# %%
# What comes next?
# ----------------
# The short English sentences of the phrasebook. The simplest model counts pairs: what
# follows *the*? Perplexity is e to the mean cross entropy: n, for n equally probable
# tokens.

import math
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tinymae import init, plot
from tinymae.blocks import attention_weights, encoder_backward, encoder_forward
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.masks import causal_mask
from tinymae.ops.embedding import embedding_backward, embedding_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.positional import positional_backward, positional_forward
from tinymae.ops.softmax import softmax_forward
from tinymae.text.batches import pad_batch
from tinymae.text.corpus import load_corpus
from tinymae.text.language import Language
from tinymae.text.vocabulary import BOS, EOS, PAD
from tinymae.train.optim import AdamW

HEADS = 4
corpus = load_corpus(["phrasebook"])
train = sorted({text for _, text in corpus.train if len(text.split()) < 6})
validation = sorted({text for _, text in corpus.held_out if len(text.split()) < 6})
language = Language.learn("words", train)
V = len(language.vocabulary)
train_ids = pad_batch([[BOS, *language.encode(text)] for text in train])  # (N, T + 1)
ids = pad_batch([[BOS, *language.encode(text)] for text in validation])

pairs = np.full((V, V), 0.01)  # a little for pairs that never occur
np.add.at(pairs, (train_ids[:, :-1], train_ids[:, 1:]), 1)
scores = np.log(pairs)[ids[:, :-1]]  # softmax(log(counts)) is counts / sum(counts)
bigram_loss, _ = cross_entropy_forward(scores, ids[:, 1:], ignore_index=PAD)
print(f"{V} tokens; validation perplexity of pairs: {math.exp(bigram_loss):.2f}")

# %%
# The model, forward and backward
# -------------------------------
# Inputs are all tokens but the last, targets all but the first. As in GPT-2: learned
# positions, pre-norm, gelu (tanh form), and the embedding is also the output matrix.
#
# (1)  x = embed[inputs] + positions
# (2)  h = encoder(x), with the causal mask
# (3)  loss = cross entropy of h embed^T with the targets
# (4)  dembed = (from the lookup in 1) + (from the product in 3): used twice


def gpt_init(rng, dim, layers, vocabulary=V, dtype=np.float32):
    size = dim, HEADS, 2 * dim, rng
    layer = [init.encoder_layer(*size, dtype=dtype) for _ in range(layers)]
    return {
        "embed": init.normal((vocabulary, dim), rng, dtype=dtype),
        "positions": init.normal((16, dim), rng, dtype=dtype),
        "stack": {"blocks": layer, "norm": init.layernorm(dim, dtype)},
    }


def logits_forward(inputs, params, mask):
    x, embed = embedding_forward(inputs, params["embed"])  # (1)  (B, T, D)
    x, positions = positional_forward(x, params["positions"])
    h, stack = encoder_forward(x, params["stack"], HEADS, mask, activation="gelu_tanh")
    logits, out = linear_forward(h, params["embed"].T)  # (3)  (B, T, V)
    return logits, (embed, positions, stack, out)


def gpt_forward(ids, params, mask):
    logits, cache = logits_forward(ids[:, :-1], params, mask)
    loss, entropy = cross_entropy_forward(logits, ids[:, 1:], ignore_index=PAD)
    return loss, (*cache, entropy)


def gpt_backward(dloss, cache):
    embed, positions, stack, out, entropy = cache
    dh, dout, _ = linear_backward(cross_entropy_backward(dloss, entropy), out)  # (3)
    dx, dstack = encoder_backward(dh, stack)  # (2)
    dx, dpositions = positional_backward(dx, positions)
    dembed = embedding_backward(dx, embed) + dout.T  # (4)
    return {"embed": dembed, "positions": dpositions, "stack": dstack}


small = gpt_init(np.random.default_rng(0), 8, 1, vocabulary=7, dtype=np.float64)
few = np.array([[1, 4, 5, 4, 2], [1, 6, 2, 0, 0]])  # a repeated token, and padding
rows = gradcheck(gpt_forward, gpt_backward, few, small, causal_mask(4))
assert len(rows) > 15 and all(row.ok for row in rows), format_rows("gpt", rows)

# %%
# Causal, and not a bag of words
# ------------------------------
# Without positions, an encoder is a bag of words: exchange two tokens, and the output
# at a third position stays the same. With a causal mask this holds for one layer only.
# In the second layer, the exchanged positions have attended to different beginnings.

x = np.random.default_rng(0).normal(size=(1, 5, 16))
swapped = x[:, [1, 0, 2, 3, 4]]
moved = {}
for layers in (1, 2):
    stack = gpt_init(np.random.default_rng(1), 16, layers, dtype=np.float64)["stack"]
    for name, mask in (("encoder", None), ("causal", causal_mask(5))):
        y, z = (encoder_forward(a, stack, HEADS, mask)[0] for a in (x, swapped))
        moved[layers, name] = np.abs(y - z)[0, -1].max()  # at the last position
changed = [at for at, difference in moved.items() if difference > 1e-12]
assert changed == [(2, "causal")]

# %%
# Training
# --------
# The loss starts near ln V. The validation perplexity ends far below that of the pairs.


@threadpool_limits.wrap(limits=1, user_api="blas")  # fastest for small matrices
def trained(steps, causal=True):
    rng = np.random.default_rng(0)
    params = gpt_init(rng, 48, layers=2)
    optimiser, losses = AdamW(params), []
    for step in range(steps):
        batch = train_ids[rng.integers(len(train_ids), size=48)]
        batch = batch[:, : (batch != PAD).sum(axis=1).max()]  # no column of padding
        mask = causal_mask(batch.shape[1] - 1) if causal else None
        loss, cache = gpt_forward(batch, params, mask)
        optimiser.step(params, gpt_backward(1.0, cache), lr=8e-3 * (1 - step / steps))
        losses.append(float(loss))
    loss, _ = gpt_forward(ids, params, causal_mask(ids.shape[1] - 1))  # as in use
    print(f"loss {losses[0]:.2f} to {losses[-1]:.2f}, perplexity {math.exp(loss):.2f}")
    return params, losses, math.exp(loss)


params, losses, perplexity = trained(250)
assert abs(losses[0] - math.log(V)) < 0.3 and perplexity < 0.8 * math.exp(bigram_loss)

# %%
# Sampling: temperature, top-k, top-p
# -----------------------------------
# Draw the next token by its probability, feed it back, stop at ``<eos>``. (GPT-2 has
# ``<|endoftext|>`` at both ends.) A temperature below 1 favours probable tokens. Top-k
# keeps the k most probable tokens, top-p as many as have a probability of p together.


def keep_probable(p, top_k=V, top_p=math.inf):
    kept, total = np.zeros_like(p), 0.0
    for rank, token in enumerate(np.argsort(-p)):  # the most probable first
        if rank == top_k or total >= top_p:
            break
        kept[token] = p[token]
        total += p[token]
    return kept / total


def generate(params, rng, temperature=1.0, **cut):
    ids = [BOS]
    while ids[-1] != EOS and len(ids) < 16:
        logits, _ = logits_forward(np.array([ids]), params, causal_mask(len(ids)))
        scores = logits[0, -1].astype(np.float64) / temperature  # (V,)
        scores[[PAD, BOS]] = -np.inf
        p, _ = softmax_forward(scores)
        ids.append(int(rng.choice(V, p=keep_probable(p, **cut))))
    return ids


for how in ({"top_k": 2}, {"top_p": 0.7}):
    assert math.isclose(keep_probable(np.array([0.1, 0.6, 0.3]), **how)[1], 2 / 3)
known = {english for _, english in [*corpus.train, *corpus.held_out]}


def sampled(params, **how):
    rng = np.random.default_rng(0)
    texts = [language.text(generate(params, rng, **how)[1:]) for _ in range(60)]
    correct = np.mean([text in known for text in texts])
    print(f"{how}: {correct:.0%} in the phrasebook; {texts[0]!r}, {texts[1]!r}")
    return correct


plain = sampled(params)
for how in ({"temperature": 0.5}, {"top_k": 5}, {"top_p": 0.8}):
    assert sampled(params, **how) > plain
assert 0.2 < plain and sampled(params, temperature=3.0) < plain

# %%
# What a sampled sentence attends to
# ----------------------------------
# The second of the two layers. Each row is a token that predicts the next one.

text = generate(params, np.random.default_rng(5), top_p=0.8)[:-1]  # without <eos>
_, (_, _, stack, _) = logits_forward(np.array([text]), params, causal_mask(len(text)))
weights = attention_weights(stack["blocks"][1]["attn"]["sublayer"])[0]  # (H, T, T)
assert (np.triu(weights, 1) == 0).all()
names = [language.vocabulary.words[i] for i in text]
figure = plot.attention(weights, names, names, caption="How to read it: a map is a "
    "head, a row a token, a column one that it attends to. Later tokens are masked.")
print(plot.save(figure, Path("figures/gpt.png")))

# %%
# Break it: the mask forgotten
# ----------------------------
# Each position now sees the next token, its target. The loss falls far below that of
# the right model, because this one copies. In use there is nothing to copy.

copying, copied, in_use = trained(100, causal=False)
assert np.mean(copied[-10:]) < 0.5 * np.mean(losses[-10:])
assert in_use > 100 and sampled(copying) < 0.05

# %%
# Exercises
# ---------
# Llama has RMSNorm (no mean, no beta) and SwiGLU, (swish(x W1) * (x W3)) W2, as feed
# forward. Its positions (RoPE) turn pairs of features of q and k by an angle, so that
# q k^T depends on the positions only through their distance.

# 1. RMSNorm, y = gamma x / sqrt(mean(x^2) + 1e-5), as a pair: (x (N, D), gamma) -> y,
#    cache and (dy, cache) -> dx, dgamma.
answer_1 = None
rng = np.random.default_rng(0)
if answer_1 is not None:
    rows = gradcheck(*answer_1, rng.normal(size=(3, 6)), rng.normal(size=6))
    assert all(row.ok for row in rows), format_rows("rmsnorm", rows)

# 2. The gate of SwiGLU: y = swish(a) * b, with da and db.
answer_2 = None
if answer_2 is not None:
    rows = gradcheck(*answer_2, rng.normal(size=(3, 6)), rng.normal(size=(3, 6)))
    assert all(row.ok for row in rows), format_rows("swiglu", rows)

# %%
# In the articles
# ---------------
# - Article C, 6: without positions, "词袋模型" (a bag of words)? True for an encoder, wrong
#   for a stack of causal layers: "Causal, and not a bag of words" asserts both.
