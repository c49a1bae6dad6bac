"""
Greedy search, beam search, BLEU · 贪心搜索、束搜索与 BLEU
==========================================================

A trained model does not translate. It says how likely each next word is; somebody has to choose words, feed them back, stop in
time, and at the end say how good the sentence is. "How do I translate a sentence, how does beam search work, and why is my BLEU
a number that nobody else gets?" Here are the loops, and what goes wrong in them.

Read beside: article A (the worked example), article C (section 5), Vaswani et al. 2017, section 6.1; Wu et al. 2016, section 7;
Papineni et al. 2002 (BLEU).
"""

# %%
# Two translators, one of them half trained
# -----------------------------------------
# English to Chinese, as in article A's example. The corpus is the phrasebook's questions with *why*. A model that is sure of
# everything needs no search, so there are two: one trained for 200 steps, one for 500.

import math
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tinymae import plot, tree
from tinymae.models.decoding import State, beam_search, greedy, sample
from tinymae.models.transformer import decode, encode, to_vocabulary
from tinymae.ops.softmax import softmax_forward
from tinymae.tasks.train_translator import SMALL, train_translator
from tinymae.tasks.translate import Translator
from tinymae.text.batches import pad_batch
from tinymae.text.corpus import Corpus, load_corpus
from tinymae.text.tokens import tokenize_words
from tinymae.text.vocabulary import BOS, EOS, PAD, UNK

threadpool_limits(1, "blas")                                   # for matrices this small one thread is faster than several
figures = Path("figures")
rng = np.random.default_rng(0)
full = load_corpus(["phrasebook"]).reversed()
why = [[pair for pair in part if pair[0].startswith("why")] for part in (full.train, full.held_out)]
corpus = Corpus(*why, full.source, full.target)
assert ("why do we work ?", "为什么要工作") in corpus.train               # article A's sentence

# %%
# Training both takes some seconds. float64, so that the searches below can be compared to the last digits.


def trained(steps):
    size = {"d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "heads": 4, "d_ff": 128}
    with tempfile.TemporaryDirectory() as folder:
        train_translator(corpus, folder, replace(SMALL, config=SMALL.config | size, tokens=512), steps=steps, bar=False)
        translator = Translator.load(folder)
    return replace(translator, params=tree.map(lambda leaf: leaf.astype(np.float64), translator.params))


half, whole = trained(200), trained(500)
config, (english, chinese) = whole.config, whole.languages      # the same for both
sources, references = zip(*corpus.held_out, strict=True)
src = pad_batch([english.encode(source) for source in sources])
true = [chinese.tokens(reference) for reference in references]
print(f"{len(corpus.train)} pairs, {len(src)} held out; {english}, {chinese}")

# %%
# Greedy, as a loop
# -----------------
# Say the likeliest word, feed it back, stop at ``<eos>`` (article A: ``<start>`` and ``<end>``). Only the *last* place is
# asked: the others say again what was said before. ``<pad>``, ``<bos>`` and ``<unk>`` are never said.
#
# Nothing is learned by choosing words, so this lesson has no backward, and nothing for gradcheck. What proves a search is
# another search that is simpler: these loops, without batch and cache.


def next_log_probs(ids, src, memory, params):
    x, _ = decode(np.array([ids]), memory, src, params, config)
    logits, _ = to_vocabulary(x[0, -1], params, config)         # (V,): the last place
    log_probs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    log_probs[[PAD, BOS, UNK]] = -np.inf
    return log_probs


def greedy_loop(text, translator, most=30, show=False):
    src = np.array([english.encode(text)])
    memory, _ = encode(src, translator.params, config)          # once: the source does not change
    ids, total = [BOS], 0.0
    while ids[-1] != EOS and len(ids) <= most:
        log_probs = next_log_probs(ids, src, memory, translator.params)
        word = int(log_probs.argmax())
        if show:
            fed = " ".join(chinese.vocabulary.words[i] for i in ids)
            print(f"  fed {fed}: says {chinese.vocabulary.words[word]} with probability {math.exp(log_probs[word]):.2f}")
        ids, total = [*ids, word], total + log_probs[word]
    return ids[1:], total


ids, total = greedy_loop("Why do we work?", whole, show=True)
print(f"{chinese.text(ids)}, probability {math.exp(total):.2f}")
assert chinese.text(ids) == "为什么要工作" and 0.2 < math.exp(total) < 1

# %%
# Equal to the package, which takes all sentences at once: those that have ended wait for the others, and say padding.

for translator in (half, whole):
    decoded = greedy(src, translator.params, config, max_len=30, never=(UNK,))
    for row, log_prob, text in zip(decoded.ids.tolist(), decoded.log_probs, sources, strict=True):
        ids, total = greedy_loop(text, translator)
        assert ids + [PAD] * (len(row) - len(ids)) == row
        np.testing.assert_allclose(total, log_prob)

# %%
# Where it looked while it said that: the package keeps the cross-attention.

tokens, said, decoded = whole.decode("why do we work ?")
print(plot.save(plot.attention(decoded.cross[0][0], said, tokens), figures / "decoding_attention.png"))

# %%
# With a cache: the same numbers, less work
# -----------------------------------------
# The loop computes all words again for each new one. But a causal decoder's keys and values of earlier words do not change
# when a word is added: ``State`` keeps them and computes one query a step.

line = rng.integers(4, config.tgt_vocab, 100)                   # 100 words; it does not matter which
line[0] = BOS
seconds = {}
start = time.perf_counter()
state = State(src[:1], whole.params, config, length=100)
cached = np.array([state.step(line[t : t + 1])[0][0] for t in range(100)])
seconds["cache"] = time.perf_counter() - start
start = time.perf_counter()
memory, _ = encode(src[:1], whole.params, config)
again = [decode(line[None, : t + 1], memory, src[:1], whole.params, config)[0][0, -1] for t in range(100)]
seconds["no cache"] = time.perf_counter() - start
np.testing.assert_allclose(to_vocabulary(np.array(again), whole.params, config)[0], cached, atol=1e-10)
print({name: f"{1000 * value:.0f} ms" for name, value in seconds.items()}, "for 100 words")

# %%
# Beam search, as a loop
# ----------------------
# The likeliest first word need not begin the likeliest sentence. So keep the W best beginnings, try all words behind each,
# and keep the W best of those. A beginning that says ``<eos>`` is finished and keeps its place. With W = 1 this is greedy.
#
# Every further word makes a sentence less likely, so finished ones cannot be compared by probability without favouring the
# short ones. Wu et al. divide by a length penalty:
#
# .. math::  score = \frac{\log p}{((5 + length) / 6)^{\alpha}}


def beam_loop(text, translator, beam, alpha=0.6, most=30):
    src = np.array([english.encode(text)])
    memory, _ = encode(src, translator.params, config)
    beginnings, finished = [(0.0, [BOS])], []
    while beginnings:
        candidates = []
        for total, ids in beginnings:
            log_probs = next_log_probs(ids, src, memory, translator.params)
            candidates += [(total + log_probs[v], [*ids, v]) for v in np.flatnonzero(log_probs > -np.inf)]
        candidates.sort(key=lambda candidate: -candidate[0])
        best = candidates[: beam - len(finished)]
        ended = [(total, ids) for total, ids in best if ids[-1] == EOS or len(ids) > most]
        beginnings = [candidate for candidate in best if candidate not in ended]
        finished += ended
    total, ids = max(finished, key=lambda found: found[0] / ((5 + len(found[1]) - 1) / 6) ** alpha)
    return ids[1:], total


def search(translator, beam, alpha=0.6):
    return beam_search(src, translator.params, config, beam=beam, alpha=alpha, max_len=30, never=(UNK,))


for beam in (1, 2, 4):
    decoded = search(half, beam)
    for row, log_prob, text in list(zip(decoded.ids.tolist(), decoded.log_probs, sources, strict=True))[:15]:
        ids, total = beam_loop(text, half, beam)
        assert ids + [PAD] * (len(row) - len(ids)) == row
        np.testing.assert_allclose(total, log_prob)
        assert beam > 1 or (ids, total) == greedy_loop(text, half)

# %%
# What the search finds
# ---------------------
# For how many held-out sentences does a beam of 4 find a translation that the model itself calls more probable than the greedy
# one? The half-trained model hesitates, and there search helps; the trained one is sure, and search finds next to nothing
# new. (A beam is no guarantee: it can lose the greedy beginning on the way, and end with something worse.)

first = greedy(src, half.params, config, max_len=30, never=(UNK,))
better = search(half, 4, alpha=0.0)
gain = better.log_probs - first.log_probs
print(f"half trained: {(gain > 1e-6).sum()} of {len(src)} more probable, {(gain < -1e-6).sum()} less")
sure = search(whole, 4, alpha=0.0).log_probs - greedy(src, whole.params, config, max_len=30, never=(UNK,)).log_probs
print(f"trained:      {(sure > 1e-6).sum()} of {len(src)} more probable, {(sure < -1e-6).sum()} less")
assert (gain > 1e-6).sum() > 10 and (sure > 1e-6).sum() < 5
said = [[chinese.words(row) for row in found.ids.tolist()] for found in (first, better)]
won = np.array([a != b and c == b and len(a) < 12 for a, c, b in zip(*said, true, strict=True)])
case = int(np.where(won, gain, 0).argmax())                     # the beam is right, greedy is not, and it does end
for name, found in (("greedy", first), ("beam 4", better)):
    print(f"  {name}: {sources[case]} -> {chinese.text(found.ids[case].tolist())}, log p = {found.log_probs[case]:.2f}")
assert won[case] and better.log_probs[case] > first.log_probs[case] + 0.1

# %%
# Word by word: the logarithm of the probability so far. Characters invite this: a first character gathers the probability of
# all words that begin with it, and can lose most of it when the second is said.


def so_far(row):
    ids = [i for i in row.tolist() if i != PAD]
    memory, _ = encode(src[case : case + 1], half.params, config)
    steps = [next_log_probs([BOS, *ids[:t]], src[case : case + 1], memory, half.params)[ids[t]] for t in range(len(ids))]
    return np.cumsum(steps)


paths = {"greedy": so_far(first.ids[case]), "beam of 4": so_far(better.ids[case])}
np.testing.assert_allclose([path[-1] for path in paths.values()], [first.log_probs[case], better.log_probs[case]])
caption = (
    f"How to read it: the logarithm of the probability of the translation so far, of {sources[case]!r}; higher is likelier. "
    "Greedy takes the likeliest word at every step, which is not always the way to the likeliest sentence: where the lines "
    "cross, greedy has to pay for its choice, and the beam has kept the other beginning."
)
figure = plot.curves(paths, "character of the translation", "log p so far", caption, markers=True)
print(plot.save(figure, figures / "decoding_beam_path.png"))

# %%
# BLEU, as a loop
# ---------------
# How much of the translation is in the reference? Count words, pairs, triples and fours in a row that both have, each at most
# as often as the reference has it, over *all* sentences; take the geometric mean of the four shares. So that nobody wins by
# saying little, the brevity penalty multiplies it by exp(1 - r/c) where the c words said are fewer than the reference's r.


def bleu(hypotheses, references, most=4):
    matched, total, c, r = np.zeros(most), np.zeros(most), 0, 0
    for said, true in zip(hypotheses, references, strict=True):                         # lists of tokens
        c, r = c + len(said), r + len(true)
        for n in range(1, most + 1):
            ours, theirs = (Counter(tuple(s[i : i + n]) for i in range(len(s) - n + 1)) for s in (said, true))
            matched[n - 1] += (ours & theirs).total()           # & takes the smaller count: "clipped"
            total[n - 1] += ours.total()
    if not matched.all():
        return 0.0                                              # a product with 0
    return 100 * min(1.0, math.exp(1 - r / c)) * math.exp(np.log(matched / total).mean())


outputs = {
    f"{name}, {how}": [chinese.words(row) for row in found.ids.tolist()]
    for name, translator in (("half trained", half), ("trained", whole))
    for how, found in (("greedy", search(translator, 1)), ("beam 4", search(translator, 4)))
}
for name, output in outputs.items():
    exact = np.mean([a == b for a, b in zip(output, true, strict=True)])
    print(f"{name:22} BLEU {bleu(output, true):5.1f}, exact {exact:4.0%}")
assert bleu(outputs["half trained, greedy"], true) + 3 < bleu(outputs["half trained, beam 4"], true) < 95
assert bleu(outputs["trained, greedy"], true) > 95

# %%
# Equal to sacrebleu
# ------------------
# Papers compare by ``sacrebleu``, which has its own tokeniser, so that the model's tokeniser cannot flatter. It is in the
# extra ``text``; where it is missing, only this comparison is left out. Its smoothing acts only where a count is 0.

try:
    from sacrebleu.metrics import BLEU
except ImportError:
    print("not compared: sacrebleu is not installed, it is in the extra `text`")
else:
    by_tokens, by_zh = BLEU(tokenize="none", smooth_method="none"), BLEU(tokenize="zh")
    for output in outputs.values():
        ours = by_tokens.corpus_score([" ".join(words) for words in output], [[" ".join(words) for words in true]])
        theirs = by_zh.corpus_score(["".join(words) for words in output], [list(references)])
        np.testing.assert_allclose([ours.score, theirs.score], bleu(output, true))
    print("equal; the signature to publish beside the number:", by_zh.get_signature())

# %%
# Nobody else gets my BLEU
# ------------------------
# The very same sentences, as people write them and as a phrasebook has them: a perfect translation, cut in four ways. Chinese
# has no spaces: cut at spaces, a sentence is one "word", there are no pairs, and BLEU is 0 even where all is right. So say how
# you cut and whether capitals count; better, let sacrebleu do it and publish its signature. A BLEU of characters and one of
# words are different numbers.

written = [source[0].upper() + source[1:].replace(" ?", "?") for source in sources]
numbers = {
    "at spaces, capitals count": bleu([s.split() for s in sources], [s.split() for s in written]),
    "at spaces, small letters": bleu([s.split() for s in sources], [s.lower().split() for s in written]),
    "words and signs, capitals count": bleu(
        [tokenize_words(s, lower=False) for s in sources], [tokenize_words(s, lower=False) for s in written]),
    "words and signs, small letters": bleu(*([tokenize_words(s) for s in side] for side in (sources, written))),
}
print(f"perfect English, {sources[0]!r} against {written[0]!r}:")
for name, value in numbers.items():
    print(f"  {name:32} {value:5.1f}")
assert max(list(numbers.values())[:3]) < 85 and abs(numbers["words and signs, small letters"] - 100) < 1e-9
perfect = [reference.split() for reference in references]
print(f"perfect Chinese, cut at spaces: {bleu(perfect, perfect)}")
assert bleu(perfect, perfect) == 0

# %%
# BLEU of one sentence
# --------------------
# 谢谢 for 谢谢 is right, and has no four in a row: BLEU 0. One wrong character in the middle of six: no four in a row are
# left, BLEU 0 again. BLEU was made for a corpus, where the counts of all sentences are summed *before* anything is
# multiplied. The mean over sentences is another number. (sacrebleu by default smooths a count of 0 matches, as in the second
# sentence, but not a length without any fours, as in the first: another reason to publish signatures.)

right, one_wrong = bleu([list("谢谢")], [list("谢谢")]), bleu([list("我有一条猫吗")], [list("我有一只猫吗")])
output = outputs["half trained, beam 4"]
mean = np.mean([bleu([a], [b]) for a, b in zip(output, true, strict=True)])
print(f"right but short: {right}, one wrong character: {one_wrong}")
print(f"half trained, beam 4: corpus {bleu(output, true):.1f}, mean of sentences {mean:.1f}")
assert right == one_wrong == 0 and abs(mean - bleu(output, true)) > 0.01

# %%
# How wide a beam, and which alpha?
# ---------------------------------
# For the half-trained model: wider beams find more probable sentences, but BLEU soon stops rising. A larger alpha makes
# longer sentences win; with alpha = 2 too long ones, and BLEU falls. The paper takes a beam of 4 and alpha = 0.6.

widths = (1, 2, 3, 4, 6, 8)
swept = {name: [search(translator, W) for W in widths] for name, translator in (("half trained", half), ("trained", whole))}
scores = {
    name: (widths, [bleu([chinese.words(row) for row in found.ids.tolist()], true) for found in sweep])
    for name, sweep in swept.items()
}
log_probs = [float(found.log_probs.mean()) for found in swept["half trained"]]
print("half trained: mean log p by width", np.round(log_probs, 2), "BLEU", np.round(scores["half trained"][1], 1))
one, *more = scores["half trained"][1]
assert log_probs[-1] > log_probs[0] and min(more) > one and abs(more[-1] - more[2]) < more[2] - one
caption = (
    f"How to read it: BLEU of characters on the {len(src)} held-out questions, against the width of the beam; 1 is greedy. "
    "Search helps the model that hesitates, up to a point; the trained one needs none."
)
figure = plot.curves(scores, "width of the beam", "BLEU", caption, markers=True)
print(plot.save(figure, figures / "decoding_beam_bleu.png"))

measured = []
for alpha in (0.0, 0.6, 2.0):
    output = [chinese.words(row) for row in search(half, 4, alpha).ids.tolist()]
    length, quality = sum(map(len, output)), bleu(output, true)
    print(f"alpha {alpha}: {length} characters (reference: {sum(map(len, true))}), BLEU {quality:.1f}")
    measured.append((length, quality))
none, paper, large = measured
assert none[0] <= paper[0] < large[0] and large[1] < paper[1] - 5

# %%
# Sampling, with a temperature
# ----------------------------
# For a poem one does not want the likeliest sentence. ``sample`` draws each word by its probability, from logits divided by a
# temperature: below 1 the likely words gain, above 1 the unlikely ones, and near 0 it is greedy. Drawn often enough, the
# shares are the softmax.

text = src[:1].repeat(4000, axis=0)
logits, _ = State(src[:1], half.params, config, length=1).step(np.array([BOS]))
logits[:, [PAD, BOS, UNK]] = -np.inf
for temperature in (0.5, 1.0, 2.0):
    drawn = sample(
        text, half.params, config, rng=np.random.default_rng(0), temperature=temperature, max_len=1, never=(UNK,)
    ).ids[:, 0]
    shares, expected = np.bincount(drawn, minlength=config.tgt_vocab) / 4000, softmax_forward(logits / temperature)[0][0]
    likely = np.argsort(-expected)[:4]
    print(f"temperature {temperature}:", *(f"{chinese.vocabulary.words[i]} {shares[i]:.2f}" for i in likely))
    assert np.abs(shares - expected).max() < 0.04
cold = sample(src, half.params, config, rng=np.random.default_rng(0), temperature=1e-9, max_len=30, never=(UNK,))
assert np.array_equal(cold.ids, first.ids)

# %%
# Break it: three loops that almost translate
# -------------------------------------------
# Gradient checks and the training loss are blind to them: the model is fine, it is the loop that is wrong. Compare with the
# loop above.
#
# - *never stops*: ``<eos>`` is ruled out together with the other specials. The sentence is said, and then whatever comes; the
#   right words are all there, and BLEU counts the others against them.
# - *first place*: it asks the first place, not the last, so the answer behind ``<bos>`` comes again and again. **It repeats
#   one word**, and here it is the loop, not the model. (A model that does so is half trained, lesson 12: its loss tells.)
# - *no <bos>*: it is fed padding in its place, another beginning than in training.


def broken_loop(text, never=(PAD, BOS, UNK), place=-1, begin=BOS):
    src = np.array([english.encode(text)])
    memory, _ = encode(src, whole.params, config)
    ids = [begin]
    while len(ids) <= 15 and ids[-1] != EOS:
        logits, _ = to_vocabulary(decode(np.array([ids]), memory, src, whole.params, config)[0][0, place], whole.params, config)
        logits[list(never)] = -np.inf
        ids.append(int(logits.argmax()))
    return [chinese.vocabulary.words[i] for i in ids[1:] if i != EOS]


loops = {"right": {}, "never stops": {"never": (PAD, BOS, EOS, UNK)}, "first place": {"place": 0}, "no <bos>": {"begin": PAD}}
results = {name: [broken_loop(source, **how) for source in sources] for name, how in loops.items()}
for name, output in results.items():
    print(f"{name:12} BLEU {bleu(output, true):5.1f}  {''.join(output[0])}")
assert results["right"] == [output[:15] for output in outputs["trained, greedy"]] and len(set(results["first place"][0])) == 1
assert max(bleu(output, true) for output in list(results.values())[1:]) < bleu(results["right"], true) - 2

# %%
# Break it: fed the reference
# ---------------------------
# The last one flatters. Take the likeliest word at every place of *one* pass over the shifted reference: fast, and each word
# is said after the true ones. That is accuracy with teacher forcing, and no translation: in use there is no reference to
# feed.

forced = []
for source, reference in corpus.held_out:
    ids, given = chinese.encode(reference), np.array([english.encode(source)])
    x, _ = decode(np.array([[BOS, *ids[:-1]]]), encode(given, half.params, config)[0], given, half.params, config)
    forced.append(chinese.words(to_vocabulary(x[0], half.params, config)[0].argmax(axis=1)))
honest = bleu(outputs["half trained, greedy"], true)
print(f"half trained: BLEU {bleu(forced, true):.1f} when fed the reference, {honest:.1f} when fed what it says itself")
assert bleu(forced, true) > honest + 3

# %%
# Exercises
# ---------
# Write your answer in the place of ``None`` and run the cell again.

# 1. A sentence of 7 words, <eos> included, has log p = -3. What is its score with alpha = 1?
answer_1 = None
if answer_1 is not None:
    assert math.isclose(answer_1, -3 * 6 / (5 + 7)), "divide by (5 + length) / 6; a score is below 0, too"

# 2. Write the clipped matches of one n: a function (said, true, n) -> int, both lists of tokens.
answer_2 = None
if answer_2 is not None:
    assert answer_2(["the"] * 4, ["the", "cat", "the"], 1) == 2, "each n-gram counts as often as the reference has it, at most"
    assert answer_2(list("abcab"), list("cabab"), 2) == 3, "ab twice, ca once"

# 3. Write sampling among the k likeliest: a function (logits (V,), k) -> probabilities (V,), 0 for all others.
answer_3 = None
if answer_3 is not None:
    p = answer_3(np.log([0.1, 0.4, 0.2, 0.3]), 2)
    np.testing.assert_allclose(p, [0, 4 / 7, 0, 3 / 7], atol=1e-12, err_msg="the k kept ones share out all of the probability")

# 4. Which of the three broken loops says every right sentence whole, and loses BLEU all the same? Write its name, as printed.
answer_4 = None
if answer_4 is not None:
    assert answer_4 in list(results)[1:], f"write one of {list(results)[1:]}"
    both = zip(results[answer_4], results["right"], strict=True)
    assert all(output[: len(right)] == right for output, right in both), "compare its words with those of the right loop"

# %%
# In the articles
# ---------------
# - Article A, the worked example: ``Why do we work?`` to 为什么要工作, one character at a time from ``<start>`` to ``<end>``,
#   here "Greedy, as a loop", in the same direction. Its ``<start>`` and ``<end>`` are our ``<bos>`` and ``<eos>``. It has six
#   layers; one is enough for questions with *why*.
# - Article C, section 5: its decoder's input ``<Begin> I have a cat`` is the true sentence in training and its own words in
#   use. "Break it: fed the reference" shows what happens to the number when the two are mixed up.
# - Article D, linear and softmax: the word with the highest probability is taken. That is greedy search, one step of it.
# - The paper (section 6.1) searches with a beam of 4 and alpha = 0.6, and reports BLEU of a whole test set.
