"""
Greedy search and beam search · 贪心搜索与束搜索
================================================

A trained model does not translate. It gives a probability to every possible next token.
A loop has to choose tokens, feed them back, and stop in time. A translator with a
perfect loss still fails if this loop is wrong.

You will be able to write greedy search and beam search as loops, make them faster with
a cache, and say what a beam finds that greedy search misses.

Time: 25 minutes to read, 5 seconds to run. Needs: lessons 16 and 21.

Read beside: Vaswani et al. 2017, section 6.1; Wu et al. 2016, section 7; article A
(MAE:Masked Autoencoders Are Scalable Vision Learners), "首先来看看神魔是 Transformer"; article
C (Transformer模型详解), section 5 and its comments.
"""

# %%
# A choice that you can make by hand
# ----------------------------------
# Two steps, two tokens each. The first token is A with probability 0.6, or B with 0.4.
# After A, the model is unsure: 0.55 or 0.45. After B, it is sure: 0.9 or 0.1. The most
# probable first token is A, but the most probable sentence starts with B.

import difflib
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinymae import plot, tree
from tinymae.models.decoding import State, beam_search, greedy
from tinymae.models.transformer import decode, encode, to_vocabulary
from tinymae.tasks.train_translator import SMALL, train_translator
from tinymae.tasks.translate import Translator
from tinymae.text.batches import pad_batch
from tinymae.text.corpus import Corpus, load_corpus
from tinymae.text.vocabulary import BOS, EOS, PAD, UNK

sentences = {"Ax": 0.6 * 0.55, "Ay": 0.6 * 0.45, "Bx": 0.4 * 0.9, "By": 0.4 * 0.1}
print({sentence: round(p, 2) for sentence, p in sentences.items()})
assert max(sentences, key=sentences.get) == "Bx"  # greedy search ends in Ax

# %%
# A translator that is half trained
# ---------------------------------
# English to Chinese, as in article A: the phrasebook's questions with *why*. A model
# that is sure of every token needs no search: this one is trained for only 200 steps.

full = load_corpus(["phrasebook"]).reversed()
train = [pair for pair in full.train if pair[0].startswith("why")]
validation = [pair for pair in full.held_out if pair[0].startswith("why")]
assert ("why do we work ?", "为什么要工作") in train  # article A's sentence
corpus = Corpus(train, validation, full.source, full.target)
size = {"d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "d_ff": 128}
settings = replace(SMALL, config=SMALL.config | size, tokens=256, lr=4e-3)
with tempfile.TemporaryDirectory() as folder:
    train_translator(corpus, folder, settings, steps=200, bar=False)
    translator = Translator.load(folder)
params = tree.map(lambda leaf: leaf.astype(np.float64), translator.params)
config, (english, chinese) = translator.config, translator.languages
sources, references = zip(*validation, strict=True)
src = pad_batch([english.encode(source) for source in sources])  # (B, Tk)

# %%
# Greedy, as a loop
# -----------------
# Article A's steps: encode the source once, feed ``<start>`` (here ``<bos>``) to the
# decoder, take the most probable token, feed it back, stop at ``<end>`` (``<eos>``).
# Only the *last* position is needed: the others repeat earlier predictions. The name of
# the first token does not matter (fairseq feeds ``<eos>`` as ``<bos>``), but training
# and use must agree. ``<pad>``, ``<bos>`` and ``<unk>`` are ruled out. The package's
# search must give the same tokens as this loop, and the same probabilities.


def read(text):
    src = np.array([english.encode(text)])
    return src, encode(src, params, config)[0]  # memory (1, Tk, D)


def log_probs_after(fed, src, memory):
    x, _ = decode(np.array([fed]), memory, src, params, config)  # (1, t, D)
    logits, _ = to_vocabulary(x[0], params, config)  # (t, V)
    logits -= logits.max(axis=1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    log_probs[:, [PAD, BOS, UNK]] = -np.inf
    return log_probs


def greedy_loop(text, most=30, show=False):
    source = read(text)  # once: the source does not change
    ids, total = [BOS], 0.0
    while ids[-1] != EOS and len(ids) <= most:
        log_probs = log_probs_after(ids, *source)[-1]
        token = int(log_probs.argmax())
        if show:
            words = chinese.vocabulary.words
            print("  fed", *(words[i] for i in ids), "->", words[token])
        ids.append(token)
        total += log_probs[token]
    return ids[1:], total


ids, total = greedy_loop("Why do we work?", show=True)
assert chinese.text(ids) == "为什么要工作" and len(ids) == 7 and ids[-1] == EOS

# The package decodes a batch: a sentence that has ended is filled with padding.
first = greedy(src, params, config, max_len=30, never=(UNK,))
for row, log_p, text in zip(first.ids, first.log_probs, sources, strict=True):
    ids, total = greedy_loop(text)
    assert ids + [PAD] * (len(row) - len(ids)) == row.tolist()
    np.testing.assert_allclose(total, log_p)

# %%
# With a cache: the same numbers, less work
# -----------------------------------------
# For 100 tokens the loop computes 1 + 2 + ... + 100 = 5050 positions. But in a causal
# decoder, keys and values of earlier tokens do not change. ``State`` keeps them, so
# each step computes one position. Without its past, a token predicts something else.

line = np.random.default_rng(0).integers(4, config.tgt_vocab, 100)  # any 100 tokens
source, memory = read(sources[0])
x, _ = decode(line[None], memory, source, params, config)
logits, _ = to_vocabulary(x[0], params, config)  # (100, V)
state = State(source, params, config, length=100)
cached = [state.step(line[t : t + 1])[0][0] for t in range(100)]
np.testing.assert_allclose(cached, logits, atol=1e-10)
x, _ = decode(line[None, -1:], memory, source, params, config)  # without its past
assert np.abs(to_vocabulary(x[0, -1], params, config)[0] - logits[-1]).max() > 0.1

# %%
# Beam search, as a loop
# ----------------------
# Keep the W best beginnings, extend each by every token, and keep the W best of the
# results. A beginning that ends in ``<eos>`` is finished and keeps its place in the
# beam. With W = 1 this is greedy search. Each token makes a sentence less probable, so
# finished sentences are compared by a score (Wu et al. 2016; length counts ``<eos>``):
#
# .. math::  score = \frac{\log p}{((5 + length) / 6)^{\alpha}}


def beam_loop(text, beam, alpha=0.6, most=30):
    source = read(text)
    beginnings, finished = [(0.0, [BOS])], []
    while beginnings:
        candidates = []
        for total, ids in beginnings:
            log_probs = log_probs_after(ids, *source)[-1]
            for token in np.flatnonzero(log_probs > -np.inf):
                candidates.append((total + log_probs[token], [*ids, token]))
        candidates.sort(key=lambda candidate: -candidate[0])
        beginnings = []
        for total, ids in candidates[: beam - len(finished)]:
            ended = ids[-1] == EOS or len(ids) > most
            (finished if ended else beginnings).append((total, ids))
    # <bos> does not count: the length is len(ids) - 1
    total, ids = max(finished, key=lambda f: f[0] / ((5 + len(f[1]) - 1) / 6) ** alpha)
    return ids[1:], total


for beam in (1, 4):
    few = beam_search(src[:16], params, config, beam=beam, max_len=30, never=(UNK,))
    for row, log_p, text in zip(few.ids, few.log_probs, sources[:16], strict=True):
        ids, total = beam_loop(text, beam)
        assert ids + [PAD] * (len(row) - len(ids)) == row.tolist()
        np.testing.assert_allclose(total, log_p)
        assert beam > 1 or (ids, total) == greedy_loop(text)

# %%
# What the search finds
# ---------------------
# For some sentences a beam of 4 finds a translation that the *same model* calls more
# probable than the greedy one. (A beam guarantees nothing: it can lose the greedy
# beginning.) The figure shows one: greedy search takes the character that is a little
# more probable, and the sentence can only go on with improbable ones.

best = beam_search(src, params, config, beam=4, alpha=0.0, max_len=30, never=(UNK,))
gain = best.log_probs - first.log_probs
more, less = (gain > 1e-6).sum(), (gain < -1e-6).sum()
print(f"of {len(src)} sentences {more} are more probable with the beam, {less} less")
assert more > 10 > less
one, other = ([chinese.text(row) for row in d.ids.tolist()] for d in (first, best))
won = [a != b == c for a, b, c in zip(one, other, references, strict=True)]
case = np.where(won, gain, 0).argmax()
print(f"{sources[case]}  greedy: {one[case]}  beam of 4: {other[case]}")
paths = {}
for name, decoded in (("greedy", first), ("beam of 4", best)):
    ids = [int(i) for i in decoded.ids[case] if i != PAD]
    log_probs = log_probs_after([BOS, *ids[:-1]], *read(sources[case]))
    paths[name] = np.cumsum(log_probs[range(len(ids)), ids])
assert won[case] and paths["beam of 4"][-1] > paths["greedy"][-1] + 0.1
caption = (
    f"How to read it: log p so far, translating {sources[case]!r}; higher is "
    "more probable. Greedy search takes the most probable token at each step; the beam "
    "kept another path, which ends higher."
)
figure = plot.curves(paths, "token", "log p so far", caption, markers=True)
print(plot.save(figure, Path("figures/decoding_beam_path.png")))

# %%
# Break it: fed the reference
# ---------------------------
# A test that predicts each token after the *true* tokens is fast, and it flatters: in
# use there is no reference, and the model's mistakes are fed back. One number stays the
# same. If every token is right after true tokens, greedy search feeds exactly these
# tokens. So a sentence is right as a whole in both ways, or in neither.

true = [chinese.encode(reference) for reference in references]
honest = [[int(i) for i in row if i != PAD] for row in first.ids]
forced = []
for source, ids in zip(sources, true, strict=True):
    log_probs = log_probs_after([BOS, *ids[:-1]], *read(source))  # shifted right
    forced.append(log_probs.argmax(axis=1).tolist())

alike = {}
for name, output in (("fed the reference", forced), ("fed its own tokens", honest)):
    pairs = zip(output, true, strict=True)
    alike[name] = [difflib.SequenceMatcher(None, a, b).ratio() for a, b in pairs]
    print(f"{name}: {np.mean(alike[name]):.1%} alike, {alike[name].count(1)} right")
given, own = map(np.array, alike.values())
assert given.mean() > own.mean() + 0.01 and ((given == 1) == (own == 1)).all()

# %%
# Exercises
# ---------
# 1. A sentence of 7 tokens, <eos> included, has log p = -3. Its score with alpha = 1?
answer_1 = None
if answer_1 is not None:
    assert math.isclose(answer_1, -1.5), "divide by (5 + length) / 6; it stays negative"

# 2. One step of a beam: (totals (W,), log_probs (W, V)) -> the W best (row, token).
answer_2 = None
if answer_2 is not None:
    pairs = answer_2(np.log([0.6, 0.4]), np.log([[0.55, 0.45], [0.9, 0.1]]))
    assert [tuple(pair) for pair in pairs] == [(1, 0), (0, 0)], "compare beginnings"

# %%
# In the articles
# ---------------
# - Article A, the worked example, runs in "Greedy, as a loop". "将得到的第二字再落下来": not that
#   character alone is fed, but all so far (or a cache has kept the others).
# - Article C, a comment: "第i个decoder的输入 = encoder输出 + 第(i-1)个decoder输出". Nothing is
#   added: the input is all tokens so far, and cross-attention reads the encoder.
# - Article C, another: to feed the true target in a test, is that "作弊" (cheating)? As a
#   measure of translations, yes: "Break it: fed the reference" shows by how much.
