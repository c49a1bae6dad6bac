"""
The decoder and teacher forcing · 解码器与教师强制
==================================================

The decoder writes. It looks back at what it has said (masked self-attention) and across at the source (cross attention). In
training it is given the whole true sentence at once; in use it has to say one word after the other. How can that be the same
model? And what happens when it is not: a decoder that sees the future has a splendid loss, and says nonsense.

Read beside: Vaswani et al. 2017, sections 3.1 and 3.2.3; articles A (worked example), C (section 5) and D (residuals).
"""

# %%
# Encoder and decoder, drawn
# --------------------------
# Article D's picture, 2 + 2 layers. A decoder layer has three sublayers, each with Add & Norm. Every decoder layer gets the
# output of the *last* encoder layer, the memory C: as keys and values. The queries are the decoder's own.

import math
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tinymae import init, plot, tree
from tinymae.blocks import (
    attention_weights,
    decoder_backward,
    decoder_forward,
    decoder_layer_backward,
    decoder_layer_forward,
    encoder_layer_backward,
    encoder_layer_forward,
    feed_forward_backward,
    feed_forward_forward,
    multi_head_attention_backward,
    multi_head_attention_forward,
)
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.gradcheck.invariants import assert_causal
from tinymae.masks import causal_mask, padding_mask, shift_right
from tinymae.models.transformer import (
    TransformerConfig,
    decode,
    encode,
    to_vocabulary,
    transformer_backward,
    transformer_forward,
    transformer_init,
)
from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.embedding import embedding_backward, embedding_forward
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.positional import positional_forward, sinusoidal_interleaved
from tinymae.ops.softmax import softmax_forward
from tinymae.text.batches import pad_batch
from tinymae.text.language import Language
from tinymae.text.phrases import FIXED
from tinymae.text.vocabulary import BOS, EOS, PAD
from tinymae.train.optim import AdamW, warmup_cosine

threadpool_limits(1, "blas")                                    # for matrices this small one thread is faster than several
figures = Path("figures")
rng = np.random.default_rng(0)

# %%

print(plot.save(plot.encoder_decoder(2, 2), figures / "decoder_layers.png"))

# %%
# Cross attention, as a loop
# --------------------------
# K, V from C and Q from the decoder, one head. Each word of the decoder asks; all words of the source answer. So the output
# has a row for each *target* word, and the attention is (Tq, Tk), in general not square.


def cross_attention_loop(x, memory, p):
    keys, values = ([word @ p[name]["w"] + p[name]["b"] for word in memory] for name in "kv")
    y = np.zeros_like(x)
    for t, word in enumerate(x):
        query = word @ p["q"]["w"] + p["q"]["b"]
        weights = np.exp([query @ key / math.sqrt(len(query)) for key in keys])
        z = sum(weight * value for weight, value in zip(weights / weights.sum(), values, strict=True))
        y[t] = z @ p["out"]["w"] + p["out"]["b"]
    return y


def random_layer(width, heads, hidden):
    zeros = init.decoder_layer(width, heads, hidden, None, dtype=np.float64)
    return tree.map(lambda leaf: rng.normal(0.3, 0.5, leaf.shape), zeros)               # no gamma is 1, no bias is 0


x, memory, p = rng.normal(size=(2, 3, 8)), rng.normal(size=(2, 5, 8)), random_layer(8, 2, 12)       # Tq = 3, Tk = 5
y, cache = multi_head_attention_forward(x[:1], memory[:1], p["cross_attn"], heads=1)
np.testing.assert_allclose(y[0], cross_attention_loop(x[0], memory[0], p["cross_attn"]), atol=1e-12)
print("x", x.shape, "memory", memory.shape, "-> y", y.shape, "attention", attention_weights(cache).shape)

# %%
# The decoder layer, vectorised
# -----------------------------
# Three sublayers, each a line of the figure, post-norm:
#
# .. math::
#
#    X_1 = LayerNorm_1(X + MultiHead(X, X, X; causal)) \qquad (1)
#
#    X_2 = LayerNorm_2(X_1 + MultiHead(X_1, C, C)) \qquad (2)
#
#    Y = LayerNorm_3(X_2 + FeedForward(X_2)) \qquad (3)


def layer_forward(x, memory, p, heads):
    a, self_attn = multi_head_attention_forward(x, x, p["self_attn"], heads, causal_mask(x.shape[1]))
    x, ln1 = layernorm_forward(x + a, **p["ln1"])               # (1)
    a, cross_attn = multi_head_attention_forward(x, memory, p["cross_attn"], heads)
    x, ln2 = layernorm_forward(x + a, **p["ln2"])               # (2)
    f, ffn = feed_forward_forward(x, p["ffn"])
    y, ln3 = layernorm_forward(x + f, **p["ln3"])               # (3)
    return y, (self_attn, ln1, cross_attn, ln2, ffn, ln3)


y, cache = layer_forward(x, memory, p, heads=2)
packaged, packaged_cache = decoder_layer_forward(x, memory, p, heads=2, mask=causal_mask(3))
np.testing.assert_allclose(y, packaged, atol=1e-12)

# %%
# The backward: two gradients come out
# ------------------------------------
# Upwards again, each line undoing one above (f' is the backward of f, s the sum that goes into a norm). The layer had two
# inputs, so two gradients leave it: dX for the layer below, and dC for the encoder. This is the only way in which the encoder
# ever learns anything.
#
# .. math::
#
#    ds_3 = LayerNorm_3'(dY), \qquad dX_2 = ds_3 + FeedForward'(ds_3) \qquad (4)
#
#    ds_2 = LayerNorm_2'(dX_2), \qquad dX_1 = ds_2 + dX_q, \quad dC = dX_{kv} \qquad (5)
#
#    ds_1 = LayerNorm_1'(dX_1), \qquad dX = ds_1 + (dX_q + dX_{kv}) \qquad (6)


def layer_backward(dy, cache):
    self_attn, ln1, cross_attn, ln2, ffn, ln3 = cache
    ds, *dln3 = layernorm_backward(dy, ln3)
    dx, dffn = feed_forward_backward(ds, ffn)
    dx = ds + dx                                                # (4)
    ds, *dln2 = layernorm_backward(dx, ln2)
    dx, dmemory, dcross = multi_head_attention_backward(ds, cross_attn)
    dx = ds + dx                                                # (5)  queries are x's, keys and values the memory's
    ds, *dln1 = layernorm_backward(dx, ln1)
    dxq, dxkv, dself = multi_head_attention_backward(ds, self_attn)
    dx = ds + (dxq + dxkv)                                      # (6)
    dp = {f"ln{i}": dict(zip(("gamma", "beta"), dln, strict=True)) for i, dln in enumerate((dln1, dln2, dln3), 1)}
    return dx, dmemory, dp | {"self_attn": dself, "cross_attn": dcross, "ffn": dffn}


rows = gradcheck(layer_forward, layer_backward, x, memory, p, heads=2)
print(format_rows("decoder layer", rows[:4]), f"  ... and {len(rows) - 4} more", sep="\n")
assert all(row.ok for row in rows)
dy = rng.normal(size=x.shape)
for ours, theirs in zip(layer_backward(dy, cache)[:2], decoder_layer_backward(dy, packaged_cache)[:2], strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-11)

# %%
# In a stack every layer looks at the same memory, so their dC add up. The sum is one line in ``decoder_backward``; without it
# the encoder would learn from one decoder layer only.

stack = {"blocks": [random_layer(8, 2, 12) for _ in range(3)]}
rows = gradcheck(decoder_forward, decoder_backward, x, memory, stack, samples=3, heads=2, mask=causal_mask(3))
assert all(row.ok for row in rows)

# %%
# Shifted targets, and where <eos> goes in a padded batch
# -------------------------------------------------------
# Our toy language: the source is a row of turns, the target is where one looks after each turn, starting north. Each heading
# is written in English or in Chinese, by the toss of a coin. A row of targets is words, then <eos>, *then* padding: <eos>
# comes right after the last word of each sentence, not at the end of the batch's rows. The decoder is fed the same row one
# place to the right. Read the printed rows: at each place the decoder has seen "is fed" up to there, and the loss asks for the
# word below it. For padding it does not ask.

TURNS, HEADINGS = ["right", "back", "left"], ["north", "east", "south", "west", "北", "东", "南", "西"]
SPECIALS = ["<pad>", "<bos>", "<eos>", "<unk>"]
D, H, LONGEST = 48, 4, 9


def draw_batch(count, rng):
    n = rng.integers(4, LONGEST, (count, 1))                    # 4 to 8 turns, then <eos>
    turns = rng.integers(1, 4, (count, LONGEST))                # quarters to the right
    headings = turns.cumsum(axis=1) % 4 + 4 * rng.integers(0, 2, turns.shape)
    place = np.arange(LONGEST)
    return tuple(np.select([place < n, place == n], [words, EOS], PAD) for words in (3 + turns, 4 + headings))


def words(ids, own=HEADINGS):
    return [(SPECIALS + own)[i] for i in ids]


src, targets = draw_batch(2, np.random.default_rng(1))
for row in range(2):
    fed = shift_right(targets, BOS)
    for name, ids, own in (("source", src, TURNS), ("is fed", fed, HEADINGS), ("asked for", targets, HEADINGS)):
        print(f"{name:9}", " ".join(word.ljust(5 if word > "\u2e80" else 6) for word in words(ids[row], own)))
last = np.argmax(targets == EOS, axis=1)
assert all((row[at + 1 :] == PAD).all() and (row[:at] > EOS).all() for row, at in zip(targets, last, strict=True))

# %%
# The model: one encoder layer, one decoder layer. ``decoder`` is a pair of functions, so that it can be broken below. (The
# positions are constants that are added: their backward hands the gradient through.)


def right_forward(x, memory, mask, p):
    return decoder_layer_forward(x, memory, p, H, causal_mask(x.shape[1]), mask)


right = right_forward, decoder_layer_backward
table = sinusoidal_interleaved(LONGEST, D).astype(np.float32)


def model_forward(p, src, inputs, targets, decoder=right):
    x, src_embedding = embedding_forward(src, p["src"])
    x, _ = positional_forward(x, table.astype(x.dtype))
    memory, encoder = encoder_layer_forward(x, p["encoder"], H, padding_mask(src), norm_first=False, activation="relu")
    x, tgt_embedding = embedding_forward(inputs, p["tgt"])
    x, _ = positional_forward(x, table.astype(x.dtype))
    x, cache = decoder[0](x, memory, padding_mask(src), p["decoder"])
    logits, out = linear_forward(x, **p["out"])                 # (B, Tq, V)
    loss, entropy = cross_entropy_forward(logits, targets, ignore_index=PAD)
    return loss, (src_embedding, encoder, tgt_embedding, decoder, cache, out, entropy, logits)


def model_backward(dloss, cache):
    src_embedding, encoder, tgt_embedding, decoder, cache, out, entropy, _ = cache
    dx, dw, db = linear_backward(cross_entropy_backward(dloss, entropy), out)
    dx, dmemory, ddecoder = decoder[1](dx, cache)
    dsrc, dencoder = encoder_layer_backward(dmemory, encoder)   # all that the encoder hears
    return {"src": embedding_backward(dsrc, src_embedding), "encoder": dencoder, "tgt": embedding_backward(dx, tgt_embedding),
            "decoder": ddecoder, "out": {"w": dw, "b": db}}

# %%
# Its parameters, and the gradient check of the whole model with whatever decoder it has.


def model_init(rng):
    return {"src": init.normal((7, D), rng, 1.0), "encoder": init.encoder_layer(D, H, 2 * D, rng),
            "tgt": init.normal((12, D), rng, 1.0), "decoder": init.decoder_layer(D, H, 2 * D, rng),
            "out": init.linear(D, 12, rng)}


def check(decoder):
    p = tree.map(np.float64, model_init(np.random.default_rng(2)))
    return gradcheck(model_forward, model_backward, p, src, shift_right(targets, BOS), targets, samples=2, decoder=decoder)


assert all(row.ok for row in check(right))

# %%
# Train with teacher forcing: one pass for all places of 64 sentences. A perfect model still cannot know whether the coin says
# north or 北, so an honest loss is at least ln 2 for each heading (and 0 for <eos>). Remember that floor: who gets below it
# has seen the answer.

judge = draw_batch(256, np.random.default_rng(3))
honest = math.log(2) * (judge[1] > EOS).sum() / (judge[1] != PAD).sum()


def train(decoder, steps=300, spoil=lambda targets: targets):
    """(parameters at the end, those after 120 steps, validation losses: (steps, losses))"""
    rng = np.random.default_rng(4)
    p, validation = model_init(rng), []
    optimizer = AdamW(p)
    for step in range(steps):
        src, targets = draw_batch(64, rng)
        targets = spoil(targets)
        _, cache = model_forward(p, src, shift_right(targets, BOS), targets, decoder)
        optimizer.step(p, model_backward(1.0, cache), warmup_cosine(step, steps, 30, 0.005))
        if step % 10 == 9:
            validation.append((step + 1, model_forward(p, judge[0], shift_right(judge[1], BOS), judge[1], decoder)[0]))
        if step == 119:
            halfway = tree.map(np.copy, p)
    return p, halfway, tuple(np.array(validation).T)


params, halfway, honest_losses = train(right)
print(f"validation loss {honest_losses[1][-1]:.3f}, the honest floor is {honest:.3f}")
assert honest - 0.02 < honest_losses[1][-1] < honest + 0.05

# %%
# In use: one word at a time
# --------------------------
# Article A's flow: the decoder starts from ``<start>`` (our <bos>), says a word, is fed it, and stops at ``<end>`` (<eos>).
# Here the row always has its full length, filled with padding behind what was said. The causal mask hides it, so it changes
# nothing.


def say(p, src, decoder=right):
    """Greedy: (B, LONGEST) ids, one pass of the decoder for each word."""
    inputs = np.full((len(src), LONGEST + 1), PAD)
    inputs[:, 0] = BOS
    for t in range(LONGEST):
        logits = model_forward(p, src, inputs[:, :-1], src, decoder)[1][-1]             # the loss is not asked for
        inputs[:, t + 1] = logits[:, t].argmax(axis=-1)         # said at place t, fed at place t + 1
    said = inputs[:, 1:]
    over = np.cumsum(said == EOS, axis=1) - (said == EOS) > 0   # behind the first <eos>
    return np.where(over, PAD, said)


def agree(said, targets):
    """Whether each word is right, in either language."""
    return np.where(targets > EOS, (said > EOS) & ((said - targets) % 4 == 0), said == targets)


said = say(params, judge[0])
print("turns", " ".join(words(judge[0][0], TURNS)), "-> says", " ".join(words(said[0])))
print(f"{agree(said, judge[1]).all(axis=1).mean():.1%} of {len(said)} sentences right from the first word to <eos>")
assert agree(said, judge[1]).all(axis=1).mean() > 0.9

# %%
# Teacher forcing is the same model
# ---------------------------------
# The most asked question under article C: training shows the decoder the whole sentence at once, use does not. How can that
# agree? By the causal mask: what is said at place t depends on the words before it only. Feed the model its own sentence
# once, all places in parallel, then again word by word: the distributions are the same, to the last digits. So one pass
# answers for all nine places, and brings nine gradients: that is why a Transformer trains faster than it speaks.

double = tree.map(np.float64, params)                           # float64, to compare to the last digits
at_once = softmax_forward(model_forward(double, judge[0], shift_right(said, BOS), said)[1][-1])[0]
one_by_one = np.zeros_like(at_once)
for t in range(LONGEST):
    fed = shift_right(said, BOS)[:, : t + 1]                    # what was said before place t: there is nothing behind it
    one_by_one[:, t] = softmax_forward(model_forward(double, judge[0], fed, said[:, : t + 1])[1][-1])[0][:, t]
print(f"largest difference between the probabilities: {np.abs(at_once - one_by_one).max():.1e}")
np.testing.assert_allclose(at_once, one_by_one, atol=1e-12)

# %%
# Where the two differ: its own mistakes
# --------------------------------------
# In training the word before is always true; in use it is the model's own. The weights after 120 steps still make mistakes.
# With teacher forcing a mistake costs one word. In use the next heading is counted from a wrong one, so the rest is wrong,
# too, until a second mistake undoes the first. Word accuracy under teacher forcing flatters. Whole sentences do not: one
# without a mistake is fed the right headings both times.

teacher = model_forward(halfway, judge[0], shift_right(judge[1], BOS), judge[1])[1][-1].argmax(axis=-1)
real, places, shares = judge[1] != PAD, {}, {}
for name, ids in (("teacher forcing", teacher), ("fed its own words", say(halfway, judge[0]))):
    hits = agree(ids, judge[1])
    places[name] = np.array([hits[real[:, t], t].mean() for t in range(LONGEST - 1)])
    shares[name] = hits[real].mean(), (hits | ~real).all(axis=1).mean()
    print(f"{name:17}: {shares[name][0]:.0%} of the words, {shares[name][1]:.0%} of the sentences")
assert shares["teacher forcing"][0] - shares["fed its own words"][0] > 0.05
assert abs(shares["teacher forcing"][1] - shares["fed its own words"][1]) < 0.1

caption = (
    "How to read it: how often the word at each place is right, after 120 steps of training. With teacher forcing every "
    "place starts from the truth. Fed its own words, the model starts from its mistakes, and the gap opens from left to "
    "right. (From place 4 on a share of the words is <eos>, which does not depend on the headings before.)"
)
figure = plot.curves({name: (np.arange(LONGEST - 1), rates) for name, rates in places.items()}, "place in the sentence",
                             "share right", caption, levels={"guessing a heading": 1 / 4}, ylim=(0, 1.05), markers=True)
print(plot.save(figure, figures / "decoder_own_mistakes.png"))

# %%
# Where cross attention looks
# ---------------------------
# To say heading t, the decoder needs turn t. Nobody told it so; the gradient did. One head looks there at every place; the
# others look around it.

sentence = int(np.argmax((judge[1] == EOS).argmax(axis=1)))     # one of the longest
_, cache = model_forward(params, judge[0][[sentence]], shift_right(judge[1][[sentence]], BOS), judge[1][[sentence]])
weights = attention_weights(cache[4]["cross_attn"]["sublayer"])[0]          # (H, Tq, Tk)
on_its_turn = weights[:, np.arange(LONGEST - 1), np.arange(LONGEST - 1)]                # (H, 8)
print("attention of heading t to turn t, mean by head:", on_its_turn.mean(axis=1).round(2))
assert on_its_turn.min(axis=1).max() > 0.5                      # a head that does so at every place
caption = (
    "How to read it: a row is a word that the decoder says, a column a word of the source; a row sums to 1. Where a head's "
    "diagonal is bright, heading t is made from turn t. What it is counted from, the heading before, is fed to the decoder."
)
figure = plot.attention(weights, words(judge[1][sentence]), words(judge[0][sentence], TURNS), caption=caption)
print(plot.save(figure, figures / "decoder_cross_attention.png"))

# %%
# Break it: the future leaks
# --------------------------
# "Validation is too good." Two real bugs. First: the causal mask is forgotten. Second, found in a hand-written Transformer:
# cross attention takes Q and K from the encoder and V from the decoder. It only runs because both sides are padded to the
# same length, and no mask hides the values: heading t is read off the decoder's input at place t + 1, where teacher forcing
# has put it.

no_mask = (lambda x, memory, mask, p: decoder_layer_forward(x, memory, p, H, None, mask), decoder_layer_backward)


def swapped_forward(x, memory, mask, p):
    a, self_attn = multi_head_attention_forward(x, x, p["self_attn"], H, causal_mask(x.shape[1]))
    x, ln1 = layernorm_forward(x + a, **p["ln1"])
    cross = p["cross_attn"]
    qkv = [linear_forward(source, **cross[name]) for source, name in ((memory, "q"), (memory, "k"), (x, "v"))]     # the bug
    z, attention = scaled_dot_product_attention_forward(*(y[:, None] for y, _ in qkv), mask)                        # one head
    a, out = linear_forward(z[:, 0], **cross["out"])
    x, ln2 = layernorm_forward(x + a, **p["ln2"])
    f, ffn = feed_forward_forward(x, p["ffn"])
    y, ln3 = layernorm_forward(x + f, **p["ln3"])
    return y, (self_attn, ln1, [cache for _, cache in qkv], attention, out, ln2, ffn, ln3)


# %%
# Its backward is the right backward of that wrong forward.


def swapped_backward(dy, cache):
    self_attn, ln1, qkv, attention, out, ln2, ffn, ln3 = cache
    ds, *dln3 = layernorm_backward(dy, ln3)
    dx, dffn = feed_forward_backward(ds, ffn)
    ds, *dln2 = layernorm_backward(ds + dx, ln2)
    dz, *dout = linear_backward(ds, out)
    dqkv = [linear_backward(d[:, 0], c) for d, c in
            zip(scaled_dot_product_attention_backward(dz[:, None], attention), qkv, strict=True)]
    ds, *dln1 = layernorm_backward(ds + dqkv[2][0], ln1)        # the values were x's
    dxq, dxkv, dself = multi_head_attention_backward(ds, self_attn)
    dmaps = {"q": dqkv[0][1:], "k": dqkv[1][1:], "v": dqkv[2][1:], "out": dout}
    dp = {f"ln{i}": dict(zip(("gamma", "beta"), dln, strict=True)) for i, dln in enumerate((dln1, dln2, dln3), 1)}
    dp["cross_attn"] = {name: dict(zip("wb", dmap, strict=True)) for name, dmap in dmaps.items()}
    return ds + dxq + dxkv, dqkv[0][0] + dqkv[1][0], dp | {"self_attn": dself, "ffn": dffn}


swapped = swapped_forward, swapped_backward

# %%
# **The gradient check is blind** to both: forward and backward agree, it is the forward that is wrong. ``assert_causal``
# changes later words and looks at earlier outputs. It needs no training: a leak leaks with any weights.

causal_inputs = shift_right(targets, BOS)
for name, decoder in (("right", right), ("no causal mask", no_mask), ("Q, K and V swapped", swapped)):
    assert all(row.ok for row in check(decoder))                # blind
    verdict = "causal"
    try:
        assert_causal(lambda ids, decoder=decoder: model_forward(params, src, ids, targets, decoder)[1][-1], causal_inputs)
    except AssertionError as complaint:
        verdict = str(complaint)
    print(f"{name}: {verdict}")
    assert ("reach an earlier output" in verdict) == (name != "right")

# %%
# What loss should I see?
# -----------------------
# A healthy loss starts near ln V, falls, and stops above the floor that the task has. Now train the two broken decoders, for
# half as many steps as the right one. Their validation loss falls through the floor of ln 2 a heading, which nobody can who
# does not see the coin. And then they have to speak: there is no future to look at, and what they say is noise. So compute the
# floor where you can, run ``assert_causal``, and always look at what the model *says*.

losses = {"right": honest_losses}
said_right = {"right": agree(say(params, judge[0]), judge[1]).all(axis=1).mean()}
for name, decoder in (("no causal mask", no_mask), ("Q, K from the encoder, V from the decoder", swapped)):
    leaky, _, losses[name] = train(decoder, steps=150)
    babble = say(leaky, judge[0], decoder)
    said_right[name] = agree(babble, judge[1]).all(axis=1).mean()
    print(name, "| asked for:", *words(judge[1][0]), "| says:", *words(babble[0]))
for name, (_, loss) in losses.items():
    print(f"{name:42} validation loss {loss[-1]:.3f} (floor {honest:.3f}), says {said_right[name]:.1%} of the sentences right")
    assert (loss[-1] < 0.5 * honest and said_right[name] < 0.05) == (name != "right")

caption = (
    "How to read it: validation loss with teacher forcing. No honest model gets below the dashed line, where it knows "
    "everything but which language the coin chose. The two that do (trained for half as long) have seen the answer."
)
levels = {"honest floor": honest, "ln 12, knowing nothing": math.log(12)}
figure = plot.curves(losses, "step", "validation loss", caption, levels=levels)
print(plot.save(figure, figures / "decoder_leak.png"))

# %%
# Break it: <eos> at the end of the row
# -------------------------------------
# ``<eos>`` is appended after padding, so that a row is words, padding, ``<eos>``. No shape complains and the loss is fine,
# since padding is not asked for. But "what comes after the last word?" is never asked either, except for the longest
# sentences. The model learns headings, and to stop at the end of the row only.


def eos_last(targets):
    row = np.where(targets == EOS, PAD, targets)
    row[:, -1] = EOS
    return row


print("asked for", *words(eos_last(targets)[0]))
endless, _, _ = train(right, spoil=eos_last)
at, short = (judge[1] == EOS).argmax(axis=1), judge[1][:, -1] == PAD                    # short: does not fill the row
for name, p in (("behind the last word", params), ("at the end of the row", endless)):
    said = say(p, judge[0])
    headings, stops = agree(said, judge[1])[judge[1] > EOS].mean(), ((said == EOS).argmax(axis=1) == at)[short].mean()
    print(f"<eos> {name}: {headings:.0%} of the headings right, {stops:.0%} of the short sentences stop in time")
    assert headings > 0.6 and (stops > 0.95 if p is params else stops < 0.05)
print("says", *words(said[0]), "for", *words(judge[1][0]))

# %%
# Why do we work?
# ---------------
# Article A's example with the package's Transformer, 1 + 1 layers, which learns the articles' own sentences by heart in
# seconds. The source becomes ``hidden`` (the memory) once. Then the decoder starts with <bos>, and each character it says is
# fed back, until it says <eos>. Lesson 12 trains a translator that can do more than remember.

english = Language.learn("words", [source for source, _ in FIXED])
chinese = Language.learn("characters", [target for _, target in FIXED])
sources, answers = (pad_batch([language.encode(text) for text in side])
                    for language, side in zip((english, chinese), zip(*FIXED, strict=True), strict=True))
config = TransformerConfig(len(english.vocabulary), len(chinese.vocabulary), d_model=D, encoder_layers=1, decoder_layers=1,
                           heads=H, d_ff=2 * D, dropout=0.0, tie="none")
translator = transformer_init(config, np.random.default_rng(5))
optimizer = AdamW(translator)
for step in range(150):
    loss, cache = transformer_forward(sources, answers, translator, config)
    optimizer.step(translator, transformer_backward(1.0, cache), warmup_cosine(step, 150, 15, 0.01))

question = np.array([english.encode("Why do we work?")])
hidden, _ = encode(question, translator, config)
said = [BOS]
while said[-1] != EOS and len(said) < 20:
    x, _ = decode(np.array([said]), hidden, question, translator, config)
    probabilities = softmax_forward(to_vocabulary(x[0, -1], translator, config)[0])[0]
    print("fed", " ".join(["<bos>", *chinese.words(said[1:])]).ljust(25 - len(said)), end=" ")
    said.append(int(probabilities.argmax()))
    print("says", *(chinese.words(said[-1:]) or ["<eos>"]), f"with probability {probabilities.max():.3f}")
assert chinese.text(said[1:]) == "为什么要工作"

# %%
# Exercises
# ---------
# 1. Suppose each heading could be written in ``ways`` ways, all equally likely. What is the lowest honest loss, the mean over
#    the n headings of a sentence and its <eos>? Write ``def answer_1(ways, n): ...``
#
# 2. ``stack_forward`` below is a stack of our decoder layers. Write its backward, which returns (dx, dmemory, list of dp).
#    Every layer looked at the same memory.
#
# 3. Somebody drops the last *place* of a padded batch, ``targets[:, :-1]``, to feed the decoder, and asks for ``targets[:,
#    1:]``; the rows have no <bos>. Which word of each sentence is never asked for? Write its place, counted from 0.

answer_1 = None
if answer_1 is not None:
    for ways, n in ((2, 5), (3, 4)):
        fair = np.vstack([np.r_[np.zeros(ways), -1e9]] * n + [np.r_[np.full(ways, -1e9), 0]])          # logits of who knows all
        lowest, _ = cross_entropy_forward(fair, np.array([0] * n + [ways]))
        assert np.isclose(answer_1(ways, n), lowest), "each heading costs the logarithm of its ways, <eos> nothing"


def stack_forward(x, memory, layers, heads):
    caches = []
    for p in layers:
        x, cache = layer_forward(x, memory, p, heads)
        caches.append(cache)
    return x, caches


answer_2 = None
if answer_2 is not None:
    draw = np.random.default_rng(6)
    numbers = draw.normal(size=(2, 3, 8)), draw.normal(size=(2, 5, 8)), stack["blocks"][:2]
    rows = gradcheck(stack_forward, answer_2, *numbers, samples=3, heads=2)
    wrong = [row for row in rows if not row.ok]
    assert not wrong, f"all layers' dmemory add up, and dp[i] belongs to layer i\n{format_rows('wrong', wrong)}"

answer_3 = None
if answer_3 is not None:
    asked = np.zeros(targets.shape, bool)
    asked[:, 1:] = targets[:, 1:] != PAD
    never = np.flatnonzero((~asked & (targets != PAD)).all(axis=0))
    assert answer_3 == never[0], "the word at place t is asked for where the one before it is fed: which has none before it?"

# %%
# In the articles
# ---------------
# - **A, worked example (Why do we work? -> 为什么要工作).** encoder -> hidden; the decoder starts from ``<start>``, emits one
#   character, feeds it back, and stops at ``<end>``: "Why do we work?". Our names are <bos> and <eos>. It stacks 6
#   layers; here there is one.
# - **C, section 5 (decoder).** The first attention is masked (the 5 x 5 mask before and after the softmax is in lesson 6).
#   The second takes K, V from C and Q from the decoder: equation (2), and "Break it: the future leaks" for the other way round.
#   The softmax over the vocabulary is in lesson 11. Teacher forcing, asked so often below the article: "Teacher forcing is the
#   same model" and "Where the two differ: its own mistakes".
# - **D, residuals.** The picture of 2 + 2 layers with Add & Norm: "Encoder and decoder, drawn".
# - **Vaswani et al., section 3.1,** shifts the targets by one place, so that with the mask place t depends on the places
#   before t only: "Shifted targets, and where <eos> goes in a padded batch".
