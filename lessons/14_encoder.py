"""
The encoder · 编码器
====================

The encoder turns X, a matrix with a row for each token, into C of the same shape, whose
rows know about each other. Does the row of "it" then know about the animal?

You will be able to write an encoder layer and its backward pass from the figure, to
wire six encoders to six decoders, and to read which token a head attends to.

Time: 30 minutes to read, 4 seconds to run. Needs: lessons 9, 11, 12 and 13.

Read beside: Vaswani et al. 2017, section 3.1; article A (MAE:Masked Autoencoders Are
Scalable Vision Learners), 首先来看看神魔是 Transformer; article C (Transformer模型详解),
1 and 4; article D (笔记 | 深入理解Transformer), 二 and 四.
"""

# %%
# X (n x d) -> C (n x d)
# ----------------------
# The paper's encoder at its real size. Article C's 我 有 一只 猫 goes in as 4 rows (random
# ones, for the shapes), and comes out as 4 rows. The layers have the same structure and
# do not share weights, as article D says (权值不共享).

from pathlib import Path

import numpy as np

from tinymae import blocks, init, plot, tree
from tinymae.gradcheck import gradcheck
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.positional import sinusoidal_interleaved
from tinymae.train.optim import AdamW, warmup_cosine

figures = Path("figures")
rng = np.random.default_rng(0)
paper = {"norm_first": False, "activation": "relu"}

X = rng.normal(size=(1, 4, 512)).astype(np.float32)             # (B, n, d)
layers = [init.encoder_layer(512, 8, 2048, rng) for _ in range(6)]
C, _ = blocks.encoder_forward(X, {"blocks": layers}, heads=8, **paper)
print(f"X {X.shape[1:]} -> C {C.shape[1:]}, {tree.count(layers):,} parameters")
assert C.shape == X.shape and tree.count(layers) == 6 * tree.count(layers[0])
assert (layers[0]["ffn"]["fc1"]["w"] != layers[1]["ffn"]["fc1"]["w"]).any()

# %%
# A layer, token by token
# -----------------------
# Only the attention looks at other tokens: it takes their keys and values.


def layer_loop(x, p, heads):
    y = np.empty_like(x)                                        # (T, D)
    for t in range(len(x)):
        token = x[None, t : t + 1]                              # (1, 1, D)
        z, _ = blocks.multi_head_attention_forward(token, x[None], p["attn"], heads)
        x1, _ = layernorm_forward(token + z, **p["ln1"])
        f, _ = blocks.feed_forward_forward(x1, p["ffn"])
        y[t], _ = layernorm_forward((x1 + f)[0, 0], **p["ln2"])
    return y


# %%
# All tokens at once
# ------------------
# The figure of the paper, read from the bottom to the top:
#
# .. math::
#
#    X_1 = LayerNorm_1(X + MultiHead(X, X, X)) \qquad (1)
#
#    Y = LayerNorm_2(X_1 + FeedForward(X_1)) \qquad (2)


def layer_forward(x, p, heads):
    a, attn = blocks.multi_head_attention_forward(x, x, p["attn"], heads)
    x1, ln1 = layernorm_forward(x + a, **p["ln1"])              # (1)
    f, ffn = blocks.feed_forward_forward(x1, p["ffn"])
    y, ln2 = layernorm_forward(x1 + f, **p["ln2"])              # (2)
    return y, (attn, ln1, ffn, ln2)


x = rng.normal(size=(2, 5, 8))                                  # (B, T, D)
p = init.encoder_layer(8, 2, 12, None, dtype=np.float64)
p = tree.map(lambda leaf: rng.normal(0.3, 0.5, leaf.shape), p)
y, _ = layer_forward(x, p, heads=2)
np.testing.assert_allclose(y[0], layer_loop(x[0], p, heads=2), atol=1e-12)

# %%
# The backward pass: the figure read downwards
# --------------------------------------------
# Where an arrow forks in the figure, two gradients are added. X goes to the attention
# (as query, and as key and value) and past it, X1 to the feed forward and past it.
# Below, f' is the backward of f, and s is the sum that enters a norm.
#
# .. math::
#
#    ds_2 = LayerNorm_2'(dY), \qquad dX_1 = ds_2 + FeedForward'(ds_2) \qquad (3)
#
#    ds_1 = LayerNorm_1'(dX_1), \qquad dX = ds_1 + dX_q + dX_{kv} \qquad (4)


def layer_backward(dy, cache):
    attn, ln1, ffn, ln2 = cache
    ds2, dgamma2, dbeta2 = layernorm_backward(dy, ln2)
    df, dffn = blocks.feed_forward_backward(ds2, ffn)
    dx1 = ds2 + df                                              # (3)  two paths
    ds1, dgamma1, dbeta1 = layernorm_backward(dx1, ln1)
    dxq, dxkv, dattn = blocks.multi_head_attention_backward(ds1, attn)
    dx = ds1 + dxq + dxkv                                       # (4)  three paths
    dln1, dln2 = {"gamma": dgamma1, "beta": dbeta1}, {"gamma": dgamma2, "beta": dbeta2}
    return dx, {"ln1": dln1, "attn": dattn, "ln2": dln2, "ffn": dffn}


assert all(row.ok for row in gradcheck(layer_forward, layer_backward, x, p, heads=2))

# %%
# Six encoders, then six decoders
# -------------------------------
# Article A speaks of 6 encoder-decoder structures. They are no pairs: *every* decoder
# layer attends to C, the output of the last encoder (lesson 17). The loop builds pairs,
# decoder i with the output of encoder i, and gets a different result.

encoders = [init.encoder_layer(8, 2, 12, rng, dtype=np.float64) for _ in range(6)]
decoders = [init.decoder_layer(8, 2, 12, rng, dtype=np.float64) for _ in range(6)]
target = rng.normal(size=(2, 3, 8))                             # (B, Tq, D)
state, pairs = x, target
for encoder, decoder in zip(encoders, decoders, strict=True):
    state, _ = layer_forward(state, encoder, heads=2)
    pairs, _ = blocks.decoder_layer_forward(pairs, state, decoder, heads=2)
C, _ = blocks.encoder_forward(x, {"blocks": encoders}, heads=2, **paper)
right, _ = blocks.decoder_forward(target, C, {"blocks": decoders}, heads=2)
assert np.allclose(state, C) and not np.allclose(pairs, right, atol=0.01)

# %%
# Break it: one layer, six times
# ------------------------------
# ``[layer] * 6`` is a list of six references to *one* layer. Shapes and the number of
# parameters look right. But a change of one layer changes all. Count the arrays.

shared = [encoders[0]] * 6
assert tree.count(shared) == tree.count(encoders)               # blind
arrays = [len({id(leaf) for _, leaf in tree.leaves(p)}) for p in (encoders, shared)]
shared[0]["ffn"]["fc1"]["b"] += 1
assert arrays == [96, 16] and (shared[5]["ffn"]["fc1"]["b"] == 1).all()

# %%
# "The animal didn't cross the street because it was too tired"
# -------------------------------------------------------------
# In article D two heads of a large model attend from "it" to *animal* and to *tired*.
# Train a small encoder to predict, from the row of C at "it", the noun that it stands
# for: an animal is tired, a street is wide. A quarter of the noun pairs is a test set.

animals = "animal dog cat horse cow sheep fox child".split()
streets = "street road bridge river field square path garden".split()
reasons = "tired scared hungry lazy wide busy long dark".split()
sentences, answers, test = [], [], []
for i, animal in enumerate(animals):
    for j, street in enumerate(streets):
        for reason in reasons:
            text = f"The {animal} didn't cross the {street} because it was too {reason}"
            sentences.append(text.split())
            answers.append(animal if reason in reasons[:4] else street)
            test.append((i - j) % 4 == 0)
vocabulary = sorted({token for sentence in sentences for token in sentence})
ids = np.array([[vocabulary.index(token) for token in text] for text in sentences])
nouns, test = np.array([vocabulary.index(noun) for noun in answers]), np.array(test)
ANIMAL, STREET, IT = 1, 5, 7                                    # positions


def model_forward(p, ids, nouns, mask=None):
    x = p["embed"][ids] + sinusoidal_interleaved(11, 32)        # (B, 11, 32)
    y, encoder = blocks.encoder_forward(x, p["encoder"], 2, mask, **paper)
    logits = y[:, IT] @ p["out"]                                # (B, V)
    _, entropy = cross_entropy_forward(logits, nouns)
    return logits, (ids, y, encoder, entropy, p)


def model_backward(cache):                                      # from dloss = 1
    ids, y, encoder, entropy, p = cache
    dlogits = cross_entropy_backward(1.0, entropy)
    dy, dembed = np.zeros_like(y), np.zeros_like(p["embed"])
    dy[:, IT] = dlogits @ p["out"].T
    dx, dencoder = blocks.encoder_backward(dy, encoder)
    np.add.at(dembed, ids, dx)
    return {"embed": dembed, "encoder": dencoder, "out": y[:, IT].T @ dlogits}


draw, V = np.random.default_rng(0), len(vocabulary)
two = [init.encoder_layer(32, 2, 64, draw, dtype=np.float64) for _ in range(2)]
model = {"embed": init.normal((V, 32), draw, 1.0, np.float64),
         "encoder": {"blocks": two}, "out": init.normal((32, V), draw, 0.2, np.float64)}
optimizer, train = AdamW(model, weight_decay=0.01), np.flatnonzero(~test)
for step in range(300):
    batch = draw.choice(train, 64)
    _, cache = model_forward(model, ids[batch], nouns[batch])
    optimizer.step(model, model_backward(cache), warmup_cosine(step, 300, 20, 0.003))
logits, cache = model_forward(model, ids, nouns)
right = logits.argmax(axis=-1) == nouns                         # (N,)
print(f"right: {right[train].mean():.0%} training, {right[test].mean():.0%} test")
assert right[test].mean() > 0.8                                 # guess a noun: 1/17

# %%
# What does "it" attend to?
# -------------------------
# The weights of "it" in the last layer, means over the test sentences: the noun that
# "it" stands for gets several times the weight of the other one, as in D. Which head
# does it depends on the seed. And attention to a token does not prove that the answer
# comes from it: hide the token (exercise 2).

weights = blocks.attention_weights(cache[2]["blocks"][1]["attn"]["sublayer"])
means = {}
roles = "The ANIMAL didn't cross the STREET because it was too REASON".split()
for noun, kind in (("animal", animals), ("street", streets)):
    mean = weights[test & np.isin(answers, kind)].mean(axis=0)  # (H, T, T)
    caption = f'How to read it: what "it" attends to if it is the {noun}: mean weights.'
    figure = plot.attention_lines(roles, mean, IT, caption=caption)
    print(plot.save(figure, figures / f"encoder_it_{noun}.png"))
    means[noun] = mean[:, IT].mean(axis=0)                      # (T,), over the heads
same = (means["animal"][ANIMAL] + means["street"][STREET]) / 2
other = (means["animal"][STREET] + means["street"][ANIMAL]) / 2
print(f'"it" attends to the right noun with {same:.2f}, to the other with {other:.2f}')
assert same > 1 / 11 and same > 1.5 * other                     # if equal: 1/11 each

# %%
# Exercises
# ---------
# 1. How many numbers does the paper's encoder learn? Write ``answer_1(D, F, layers)``.
# 2. Hide the last token, tired or wide, from every token, itself included: write the
#    mask, broadcastable to (1, H, 11, 11). Then the model cannot tell them apart.

answer_1 = None
if answer_1 is not None:
    assert answer_1(512, 2048, 6) == tree.count(layers), "6 matrices, 6 biases, 2 norms"

answer_2 = None
if answer_2 is not None:
    logits, _ = model_forward(model, ids, nouns, answer_2)      # 0: tired, 4: wide
    assert np.allclose(logits[0], logits[4]), "which axis is the token attended to?"
    assert not np.allclose(logits[0], logits[16], atol=0.01), "16 has another noun"

# %%
# In the articles
# ---------------
# - **A, 首先来看看神魔是 Transformer.** "由 6 个这样的结构组成": not 6 pairs, but 6 encoders, then 6
#   decoders. **C, 1 and 4.** X (n x d) -> C (n x d), (1) and (2).
# - **D, 二、高层次理解.** "权值不共享" is right. "自监督" must be self-attention. The feed forwards
#   share their parameters ("都是相同的") within one layer only.
# - **D, 四.** "it" attends to "animal和tire": the last section. "时间戳" must be heads.
