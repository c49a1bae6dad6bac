"""
BLEU · BLEU 评分
================

How good is a translation? BLEU compares it with a reference that a person wrote. Papers
report it as one number, and the same sentences can get 48 or 100, depending on how they
are cut into tokens.

You will be able to compute BLEU by hand and as a loop, get the number of ``sacrebleu``,
and say what must be published beside a BLEU.

Time: 20 minutes to read, 4 seconds to run. Needs: lesson 23.

Read beside: Papineni et al. 2002; Post 2018, "A Call for Clarity in Reporting BLEU
Scores"; Vaswani et al. 2017, table 2; article C (Transformer模型详解), its comments.
"""

# %%
# By hand
# -------
# The translation is 我有一只小狗吗, with 狗 (dog) where the reference has 猫 (cat). How much
# is right? An n-gram is n tokens in a row. Count those that the reference has, too:
#
# - 6 of 7 characters, 4 of 6 pairs, 3 of 5 triples, 2 of 4 sequences of four.
#
# BLEU is the geometric mean of the four fractions, times 100: 64.3.

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.models.decoding import beam_search
from tinymae.tasks.train_translator import SMALL, train_translator
from tinymae.tasks.translate import Translator
from tinymae.text.batches import pad_batch
from tinymae.text.corpus import Corpus, load_corpus
from tinymae.text.tokens import tokenize_words
from tinymae.text.vocabulary import UNK

dog, cat = list("我有一只小狗吗"), list("我有一只小猫吗")
by_hand = 100 * (6 / 7 * 4 / 6 * 3 / 5 * 2 / 4) ** (1 / 4)
print(f"by hand: {by_hand:.1f}")
assert round(by_hand, 1) == 64.3

# %%
# BLEU, as a loop
# ---------------
# Two details make it fair. An n-gram counts at most as often as the reference has it:
# for a reference with one "the", "the the the" is right once, not three times
# (*clipping*). And the counts of *all* sentences are added before anything is divided.
# With m_n of t_n n-grams matched, c tokens in the translations, r in the references:
#
# .. math::  BLEU = 100 \min(1, e^{1 - r/c}) \prod_{n=1}^4 (m_n / t_n)^{1/4}
#
# The factor before the mean is the brevity penalty. BLEU has no gradient: counts do not
# change with small changes of the parameters. So it is measured, not trained on.


def ngrams(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def bleu(outputs, references, brevity=True):
    matched, total, c, r = [0] * 4, [0] * 4, 0, 0
    for output, reference in zip(outputs, references, strict=True):  # lists of tokens
        c += len(output)
        r += len(reference)
        for n in (1, 2, 3, 4):
            left = ngrams(reference, n)
            for gram in ngrams(output, n):
                total[n - 1] += 1
                if gram in left:
                    matched[n - 1] += 1
                    left.remove(gram)  # clipping: it is used up
    if 0 in matched:
        return 0.0
    product = 1.0
    for n in range(4):
        product *= matched[n] / total[n]
    penalty = min(1.0, math.exp(1 - r / c)) if brevity else 1.0
    return 100 * penalty * product**0.25


assert math.isclose(bleu([dog], [cat]), by_hand)

# %%
# A translator to score
# ---------------------
# English to Chinese, the phrasebook's questions with *why*, trained for 150 steps only.
# It is unsure, so the search of lesson 23 makes a difference. Tokens are characters.

full = load_corpus(["phrasebook"]).reversed()
train = [pair for pair in full.train if pair[0].startswith("why")]
validation = [pair for pair in full.held_out if pair[0].startswith("why")]
corpus = Corpus(train, validation, full.source, full.target)
size = {"d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "d_ff": 128}
settings = replace(SMALL, config=SMALL.config | size, tokens=256, lr=4e-3)
with tempfile.TemporaryDirectory() as folder:
    train_translator(corpus, folder, settings, steps=150, bar=False)
    model = Translator.load(folder)
english, chinese = model.languages
sources, references = zip(*validation, strict=True)
true = [chinese.tokens(reference) for reference in references]
src = pad_batch([english.encode(source) for source in sources])  # (B, Tk)


def translated(beam, alpha=0.6):
    how = {"beam": beam, "alpha": alpha, "max_len": 30, "never": (UNK,)}
    decoded = beam_search(src, model.params, model.config, **how)
    return [chinese.words(row) for row in decoded.ids.tolist()]


outputs = {beam: translated(beam) for beam in (1, 2, 3, 4, 6, 8)}  # 1 is greedy
scores = {beam: bleu(output, true) for beam, output in outputs.items()}
print("BLEU by beam:", {beam: round(score, 1) for beam, score in scores.items()})

# %%
# Equal to sacrebleu
# ------------------
# Papers compare by ``sacrebleu``. It has its own tokeniser, so that a model's tokeniser
# cannot flatter, and prints a signature that says which one. The package is optional
# (the extra ``text``). Without it, only this comparison is left out. Its smoothing
# (``smooth:exp``) changes nothing here: it acts only where no n-gram matches.

try:
    from sacrebleu.metrics import BLEU
except ImportError:
    print("not compared: sacrebleu is not installed, it is in the extra `text`")
else:
    metric = BLEU(tokenize="zh")
    for output in outputs.values():
        lines = ["".join(tokens) for tokens in output]
        theirs = metric.corpus_score(lines, [list(references)])
        np.testing.assert_allclose(theirs.score, bleu(output, true))
    print("equal; the signature:", metric.get_signature())

# %%
# Why nobody else gets my BLEU
# ----------------------------
# Take a *perfect* translation into English: the phrasebook's text, compared with the
# same text as people write it, cut into tokens in four ways. BLEU is 48 to 100. Then
# perfect Chinese, cut at spaces: each sentence is one token, there are no pairs, and
# BLEU is 0. So say how you cut, or let ``sacrebleu`` cut and publish its signature.

written = [source[0].upper() + source[1:].replace(" ?", "?") for source in sources]
print(f"{sources[0]!r} against {written[0]!r}:")
numbers = {}
for name, cut in {
    "at spaces, capitals count": str.split,
    "at spaces, lower case": lambda text: text.lower().split(),
    "words and marks, capitals count": lambda text: tokenize_words(text, lower=False),
    "words and marks, lower case": tokenize_words,
}.items():
    numbers[name] = bleu(list(map(cut, sources)), list(map(cut, written)))
    print(f"  {name:32} {numbers[name]:5.1f}")
*wrong, right = numbers.values()
assert round(wrong[0]) == 48 and max(wrong) < 85 and math.isclose(right, 100)
perfect = [reference.split() for reference in references]
assert bleu(perfect, perfect) == 0

# %%
# BLEU of one sentence
# --------------------
# 谢谢 for 谢谢 is right, and it has no four tokens in a row: BLEU 0. One wrong character in
# the middle of six leaves no four in a row that match: BLEU 0 again. BLEU was made for
# many sentences. The mean of the sentences' BLEU is another number than the BLEU of
# all, and ways of smoothing give yet others (exercise 3).

assert bleu([list("谢谢")], [list("谢谢")]) == 0
assert bleu([list("我有一条猫吗")], [list("我有一只猫吗")]) == 0
mean = np.mean([bleu([a], [b]) for a, b in zip(outputs[4], true, strict=True)])
print(f"beam of 4: all sentences {scores[4]:.1f}, mean of single sentences {mean:.1f}")
assert abs(mean - scores[4]) > 0.5

# %%
# How wide a beam, and which alpha?
# ---------------------------------
# BLEU rises from greedy search to a beam of 4 and changes little after that. A large
# alpha (lesson 23) lets long sentences win: with alpha = 4 they are too long, and BLEU
# falls. The paper searches with a beam of 4 and alpha = 0.6.

caption = (
    f"How to read it: BLEU on {len(src)} validation sentences against the width of the "
    "beam; 1 is greedy search. The model is half trained, so search helps."
)
curve = {"half trained": (list(scores), list(scores.values()))}
figure = plot.curves(curve, "width of the beam", "BLEU", caption, markers=True)
print(plot.save(figure, Path("figures") / "bleu_beam.png"))
assert scores[4] > scores[1] + 3
assert abs(scores[8] - scores[4]) < (scores[4] - scores[1]) / 2
long = translated(4, alpha=4.0)
for name, output in (("alpha 0.6", outputs[4]), ("alpha 4", long), ("reference", true)):
    length = sum(map(len, output))
    print(f"{name}: {length} characters, BLEU {bleu(output, true):.1f}")
assert bleu(long, true) < scores[4] - 5 and sum(map(len, long)) > sum(map(len, true))

# %%
# Break it: the brevity penalty forgotten
# ---------------------------------------
# Without the penalty, BLEU counts only how much of the *output* is right. A translator
# that stops after five characters, before it becomes difficult, then beats the one that
# translates whole sentences. The penalty makes it lose.

stopped = [output[:5] for output in outputs[4]]
for name, output in (("whole", outputs[4]), ("stopped", stopped)):
    print(f"{name:8} {bleu(output, true):5.1f},", end=" ")
    print(f"without penalty {bleu(output, true, brevity=False):5.1f}")
assert bleu(stopped, true, brevity=False) > bleu(outputs[4], true, brevity=False)
assert bleu(stopped, true) < scores[4] - 20

# %%
# Exercises
# ---------
# 1. 8 tokens, all right and in order; the reference has 10. What is BLEU?
answer_1 = None
if answer_1 is not None:
    assert math.isclose(answer_1, 77.8800783), "only the brevity penalty is below 1"

# 2. Several references: an n-gram counts at most as often as the *one* reference that
#    has it most often. A function (output, references, n) -> matched.
answer_2 = None
if answer_2 is not None:
    given = [["the", "cat", "the"], ["the", "dog"]]
    assert answer_2(["the"] * 4 + ["dog"], given, 1) == 3, "2 times the, 1 time dog"

# 3. BLEU of one sentence, smoothed (Lin & Och 2004): add 1 to matched and total for
#    n = 2, 3, 4. A function (output, reference) -> BLEU; it may use ``ngrams``.
answer_3 = None
if answer_3 is not None:
    assert math.isclose(answer_3(list("谢谢"), list("谢谢")), 100), "1/1 for n = 3, 4"
    assert 48 < answer_3(list("我有一条猫吗"), list("我有一只猫吗")) < 49

# %%
# In the articles
# ---------------
# - None of the five articles measures a translation. The paper (table 2) reports BLEU
#   of a whole test set, with a beam of 4 and alpha = 0.6.
# - Article C, the comments: a reader suspects that "测试指标" (test measures) are too good
#   because the true target is fed in the test. A BLEU is of sentences that the model
#   has translated alone; lesson 23, "Break it: fed the reference", shows the
#   difference.
