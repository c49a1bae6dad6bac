"""
Training a translator · 训练一个翻译模型
========================================

The model of lessons 09 to 11 knows nothing yet. Training is ten lines; what is hard is to know whether it goes well. "My loss
stops at 3", "it repeats one word", "accuracy is fine and BLEU is 0" (BLEU scores translations, lesson 13): here the corpus is
so small (41 French sentences around article D's *je suis étudiant*) that each of these can be made in seconds, and looked at.

Read beside: Vaswani et al. 2017, section 5; article D (training); articles A and C for what is fed to the decoder.
"""

# %%
# Sentences as numbers, and teacher forcing
# -----------------------------------------
# The whole corpus is one batch. The decoder is fed the *true* sentence, one place to the right, and asked for the next word
# at every place at once: that is teacher forcing. In use there is no true sentence; there it is fed what it said (lesson 13).

import math
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
from threadpoolctl import threadpool_limits

from tinymae import blocks, init, plot, tree
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.gradcheck.invariants import assert_causal, assert_pad_invariant
from tinymae.masks import shift_right
from tinymae.models import transformer
from tinymae.models.decoding import greedy
from tinymae.models.transformer import decode, encode, to_vocabulary, transformer_backward, transformer_forward
from tinymae.ops import attention
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward
from tinymae.tasks.train_translator import train_translator
from tinymae.tasks.translate import Translator, encode_pairs, score
from tinymae.text.batches import pad_batch
from tinymae.text.corpus import load_corpus
from tinymae.text.language import Language
from tinymae.train.loop import Run, train
from tinymae.train.optim import AdamW, clip_grad_norm, noam

threadpool_limits(1, "blas")                                   # for matrices this small one thread is faster than several
figures = Path("figures")
rng = np.random.default_rng(0)

# %%

corpus = load_corpus(["french"])
languages = [Language.learn("words", side) for side in zip(*corpus.train, strict=True)]
V = len(languages[1].vocabulary)
src, targets = (pad_batch(side) for side in encode_pairs(corpus.train, languages))     # (B, Tk), (B, Tq)
print(f"{len(src)} pairs, {V} English words; src {src.shape}, targets {targets.shape}; held out:", *corpus.held_out, sep="\n  ")
assert src.shape == targets.shape == (41, 6)
one = [pair[0] for pair in corpus.train].index("je suis étudiant")
words = languages[1].vocabulary.words
print("fed:  ", *(words[i] for i in shift_right(targets, 1)[one]), "\nasked:", *(words[i] for i in targets[one]))

# %%
# The loss, one word at a time
# ----------------------------
# What teacher forcing computes at once, as a loop: every sentence alone, without padding, and every word alone, from the true
# words before it. That it comes out the same says that padding is not seen, and that no word sees a later one.

config = transformer.TransformerConfig(
    len(languages[0].vocabulary), V, d_model=64, encoder_layers=3, decoder_layers=3, heads=4, d_ff=128, tie="output"
)  # post-norm, ReLU, dropout 0.1: the paper's model, but small


def loss_loop(params):
    losses = []
    for french, english in corpus.train:
        source, ids = np.array([languages[0].encode(french)]), languages[1].encode(english)
        memory, _ = encode(source, params, config)
        for t in range(len(ids)):
            x, _ = decode(np.array([[1, *ids[:t]]]), memory, source, params, config)    # <bos> and the true words so far
            p, _ = softmax_forward(to_vocabulary(x[:, -1], params, config)[0])
            losses.append(-math.log(p[0, ids[t]]))
    return np.mean(losses)


params = transformer.transformer_init(config, np.random.default_rng(0), np.float64)
together, _ = transformer_forward(src, targets, params, config)
np.testing.assert_allclose(loss_loop(params), together)

# %%
# One step of Adam, as a loop
# ---------------------------
# The gradient says which way, Adam how far. The equations of ``optim.py``, for one number p with gradient g, in step t:
#
# .. math::
#
#    m = b_1 m + (1 - b_1) g \quad (1) \qquad v = b_2 v + (1 - b_2) g^2 \quad (2)
#
#    p = p - lr \, \frac{m / (1 - b_1^t)}{\sqrt{v / (1 - b_2^t)} + \epsilon} \quad (3)
#
# Multiply all gradients by 1000, and m and the root of v are 1000 times as large: (3) is what it was. **Adam hides scale**,
# so a falling loss proves no gradient. And the first step has the length lr for every number, however small its gradient: a
# reason for warm-up. (The package's (3) also has weight decay, which is 0 here.)


def adam(p, gradients, lr, b1=0.9, b2=0.98, eps=1e-9):
    p, m, v = p.copy(), np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients, 1):                        # t counts steps, not tensors
        for i in range(len(p)):
            m[i] = b1 * m[i] + (1 - b1) * g[i]                  # (1)
            v[i] = b2 * v[i] + (1 - b2) * g[i] ** 2             # (2)
            p[i] -= lr * m[i] / (1 - b1**t) / (math.sqrt(v[i] / (1 - b2**t)) + eps)     # (3)
    return p


start, gradients = rng.normal(size=6), rng.normal(size=(10, 6))
packaged = {"w": start.copy()}
optimizer = AdamW(packaged, betas=(0.9, 0.98), eps=1e-9)
for g in gradients:
    optimizer.step(packaged, {"w": g}, 0.01)
np.testing.assert_allclose(adam(start, gradients, 0.01), packaged["w"], atol=1e-12)
np.testing.assert_allclose(adam(start, 1000 * gradients, 0.01), packaged["w"], atol=1e-8)
np.testing.assert_allclose(adam(start, 1e-3 * gradients[:1], 0.01), start - 0.01 * np.sign(gradients[0]), atol=1e-5)

# %%
# The learning rate: up, then down
# --------------------------------
# Vaswani et al., equation 3: :math:`lr = D^{-1/2} \min(step^{-1/2},\; step \cdot warmup^{-3/2})`, often called Noam. It
# counts steps from 1. Its top is :math:`(D \cdot warmup)^{-1/2}`, at the last step of the warm-up: short warm-ups have high
# tops.


def rate(step):
    return noam(step, d_model=64, warmup=40, factor=0.5)


steps = np.arange(1, 101)
tensors = sum(1 for _ in tree.leaves(params))
rates = {
    "as it should be": rate,
    "no warm-up": lambda step: rate(max(step, 40)),
    "5 times too high": lambda step: 5 * rate(step),
    "counted per tensor": lambda step: rate(tensors * step),
}
print(f"top of the paper's: {noam(4000, 512, 4000):.1e}; of ours: {rate(40):.1e}; {tensors} tensors")
assert rate(40) == max(map(rate, steps)) and math.isclose(noam(4000, 512, 4000), (512 * 4000) ** -0.5)
shown = {name: np.array([r(step) for step in steps]) for name, r in rates.items() if name != "5 times too high"}
print(plot.save(plot.learning_rates(shown), figures / "training_rates.png"))

# %%
# The loop
# --------
# Gradient, clip, step: this is all of training. The package's ``train`` is the same, with progress, evaluation and
# checkpoints around it; so it has the same losses.


def fit(rate=rate, steps=100, params=None):
    rng = np.random.default_rng(0)
    fresh = transformer.transformer_init(config, rng)
    params, losses = params or fresh, []
    optimizer = AdamW(params, betas=(0.9, 0.98), eps=1e-9)
    for step in range(1, steps + 1):
        loss, cache = transformer_forward(src, targets, params, config, label_smoothing=0.1, rng=rng)
        dparams = transformer_backward(1.0, cache)
        clip_grad_norm(dparams, 1.0)
        optimizer.step(params, dparams, rate(step))
        losses.append(float(loss))
    return params, losses


def gradient(params, rng):
    loss, cache = transformer_forward(src, targets, params, config, label_smoothing=0.1, rng=rng)
    return loss, transformer_backward(1.0, cache)


same = np.random.default_rng(0)
params = transformer.transformer_init(config, same)
run = Run(params, AdamW(params, betas=(0.9, 0.98), eps=1e-9), same)
train(run, gradient, lambda step, progress: rate(step + 1), batch=len(src), steps=10, max_norm=1.0, bar=False)
np.testing.assert_allclose(run.losses, fit(steps=10)[1], rtol=1e-5)

# %%
# The backward of the whole model
# -------------------------------
# ``transformer_backward`` is the forward read upwards: loss, linear map (lesson 11), decoder (10), encoder (09), embeddings
# (02); what the memory and a tied matrix gave to several places is summed there. Two numbers of every tensor, and a random
# direction through all of it, against differences of the loss; dropout, padding and label smoothing are on.

tiny = transformer.TransformerConfig(9, 11, d_model=8, encoder_layers=1, decoder_layers=1, heads=2, d_ff=5, tie="output")
small = tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), transformer.transformer_init(tiny, rng, np.float64))


def check_model():
    return gradcheck(
        lambda params, src, targets, **options: transformer_forward(src, targets, params, **options), transformer_backward,
        small, src=np.array([[3, 8, 5, 2], [4, 2, 0, 0]]), targets=np.array([[7, 9, 2, 0], [10, 2, 0, 0]]), config=tiny,
        label_smoothing=0.1, rng=5, samples=2,
    )


rows = check_model()
print(f"{len(rows)} tensors, worst relative error {max(row.error for row in rows):.1e}")
assert all(row.ok for row in rows), format_rows("transformer", rows)

# %%
# What loss should I see?
# -----------------------
# Three levels are known before the first step:
#
# - ln V: it knows nothing. The first loss is near it, or somewhat above (lesson 11: tied weights say back what they
#   were fed). Many times as much means a bad initialisation.
# - the entropy of word frequencies: it knows how often each word occurs, and does not look at the source. **A loss that stays
#   here does not use the source yet.**
# - the floor of label smoothing: it knows everything. No healthy run goes below, and none reaches it exactly while dropout is
#   on.


def entropy(q):
    return -(q * np.log(q)).sum()


frequencies = np.bincount(targets[targets != 0], minlength=V) / np.count_nonzero(targets)
levels = {
    "ln V: knows nothing": math.log(V),
    "knows word frequencies only": entropy(0.9 * frequencies + 0.1 / V),
    "floor of label smoothing": entropy(0.9 * np.eye(V)[0] + 0.1 / V),
}
print({name: round(float(level), 2) for name, level in levels.items()})

# %%
# The good run, and what it says. Accuracy is with teacher forcing. Exact is whole sentences, greedy, each word said after the
# model's own words. 4-grams is the share of the reference's four words in a row that were said: where it is 0, so is BLEU,
# a product of which one factor counts them (lesson 13).


def judge(params):
    _, cache = transformer_forward(src, targets, params, config)
    accuracy = (cache["logits"].argmax(axis=1) == cache["targets"]).mean()
    said = [languages[1].words(ids.tolist()) for ids in greedy(src, params, config, never=(0, 1, 3)).ids]
    true = [languages[1].words(ids.tolist()) for ids in targets]
    exact = np.mean([a == b for a, b in zip(said, true, strict=True)])
    said, true = ([[tuple(s[i : i + 4]) for i in range(len(s) - 3)] for s in side] for side in (said, true))
    return accuracy, exact, np.mean([four in a for a, b in zip(said, true, strict=True) for four in b])


good, losses = fit()
runs, judged = {"as it should be": losses}, {"as it should be": judge(good)}
accuracy, exact, fours = judged["as it should be"]
print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}; accuracy {accuracy:.0%}, exact {exact:.0%}, 4-grams {fours:.0%}")
nothing, counting, floor = levels.values()
assert abs(losses[0] - nothing) < 1 and floor < losses[-1] < floor + 0.25 and accuracy > 0.9

# %%
# Break it: five that the curve shows
# -----------------------------------
# ``patch`` puts a broken function in the place of one of the package's, for as long as its ``with`` lasts.
#
# - *no warm-up*: the first steps are as long as Adam can make them, with moments from one or two gradients. A post-norm stack
#   does not come back from there soon: the loss stays at the word frequencies.
# - *learning rate too high*: falls well at first, then climbs back towards the word frequencies, warm-up or not.
# - *softmax twice* (lesson 11): starts at ln V, and stays near it.
# - *bad initialisation*, all weights from N(0, 1): the first loss is many times ln V, and 100 steps only undo that.
# - *schedule counted once per tensor*: the most innocent curve. The warm-up is over in the first step (the paper's 4000 steps
#   would last as many batches as 4000 / tensors), and after it the rate is too small. Print the rate beside the loss.


def twice_forward(logits, words, label_smoothing):
    p, softmax = softmax_forward(logits)
    loss, entropy = cross_entropy_forward(p, words, label_smoothing=label_smoothing)
    return loss, (entropy, softmax)


def twice_backward(dloss, cache):
    return softmax_backward(cross_entropy_backward(dloss, cache[0]), cache[1])


for name in ("no warm-up", "5 times too high", "counted per tensor"):
    _, runs[name] = fit(rates[name])
with patch.multiple(transformer, cross_entropy_forward=twice_forward, cross_entropy_backward=twice_backward):
    _, runs["softmax twice"] = fit()
_, runs["weights from N(0, 1)"] = fit(params=tree.map(
    lambda leaf: leaf.copy() if leaf.ndim < 2 else rng.normal(size=leaf.shape).astype(leaf.dtype),
    transformer.transformer_init(config, rng),
))
for name, losses in runs.items():
    print(f"{name:22} first {losses[0]:6.2f}  after 20 {losses[19]:5.2f}  last {losses[-1]:5.2f}")
last = {name: losses[-1] for name, losses in runs.items()}
assert min(last["no warm-up"], last["softmax twice"], last["weights from N(0, 1)"]) > 2.3 and last["5 times too high"] > 1.5
assert abs(last["no warm-up"] - counting) < 0.5
assert min(runs["5 times too high"]) < last["5 times too high"] - 0.2
assert abs(runs["softmax twice"][0] - nothing) < 0.1 and abs(last["softmax twice"] - nothing) < 0.3
assert tensors > 40 and runs["weights from N(0, 1)"][0] > 3 * nothing
assert last["counted per tensor"] > last["as it should be"] + 0.05

# %%
caption = (
    "How to read it: training loss of one model on one batch; only what the legend says is different. Look first at where a "
    "curve starts (ln V?), then at where it stops: at the word frequencies nothing of the source is used, at the floor of "
    "label smoothing all is learned. The run from N(0, 1) comes down from far above the picture."
)
figure = plot.curves(runs, "step", "loss (label smoothing 0.1)", caption, levels=levels, ylim=(0.4, 5))
print(plot.save(figure, figures / "training_losses.png"))

# %%
# Break it: three that the curve does not show
# --------------------------------------------
# - *no causal mask*: every word sees the one it is to say. The loss ends a little lower, and greedy decoding, where there is no
#   future to copy, says nonsense: **accuracy is fine and BLEU is 0**, or next to it.
# - *padding mask on the wrong axis*: it hides what padding asks, and leaves padding to be looked at. Sources and targets of
#   this batch are both 6 wide, so every shape fits; where they differ, the package refuses it. The model gets used to looking
#   at padding, and translates worse where it cannot: in decoding, here with the right mask.
# - *softmax backward divided by the batch size*: all gradients of queries and keys are 41 times too small. Adam divides that
#   out, and the model is good. With plain gradient descent it would be a learning rate 41 times too small for them.


def padding_on_queries(ids, pad=0):
    return np.broadcast_to((ids != pad)[:, None, :, None], (len(ids), 1, ids.shape[1], ids.shape[1]))


def softmax_backward_by_batch(dp, cache):
    return softmax_backward(dp, cache) / len(dp)


bugs = {
    "no causal mask": patch.object(transformer, "causal_mask", lambda length: np.ones((1, 1, length, length), bool)),
    "padding on the wrong axis": patch.object(transformer, "padding_mask", padding_on_queries),
    "softmax backward / batch": patch.object(attention, "softmax_backward", softmax_backward_by_batch),
}
hidden = {"as it should be": runs["as it should be"]}
for name, bug in bugs.items():
    with bug:
        broken, hidden[name] = fit()
        own = (transformer_forward(src, targets, broken, config)[1]["logits"].argmax(axis=1) == targets[targets != 0]).mean()
    judged[name] = (own, *judge(broken)[1:])                    # accuracy as its author sees it, with the bug
for name, (accuracy, exact, fours) in judged.items():
    print(f"{name:26} loss {hidden[name][-1]:.2f}  accuracy {accuracy:4.0%}  exact {exact:4.0%}  4-grams {fours:4.0%}")
assert max(losses[-1] for losses in hidden.values()) < 1
assert np.mean(hidden["no causal mask"][-10:]) < np.mean(hidden["as it should be"][-10:])
assert judged["no causal mask"][0] > 0.97 and judged["no causal mask"][2] < 0.2 < 0.7 < judged["as it should be"][2]
assert judged["padding on the wrong axis"][1] < judged["as it should be"][1] and judged["softmax backward / batch"][1] > 0.8

# %%
caption = (
    "How to read it: training loss as in the picture before. Four curves that nobody can tell apart; three of the runs have a "
    "bug. What tells is a translation, an invariant, or a gradient check."
)
figure = plot.curves(hidden, "step", "loss (label smoothing 0.1)", caption, levels=levels, ylim=(0.4, 5))
print(plot.save(figure, figures / "training_hidden.png"))

# %%
# What catches the first two: change a later word, and no earlier answer may change; add padding, and no word may change. Both
# must hold whatever the weights are. The gradient check is blind: the backward fits the forward, and the forward is wrong.


def answers(inputs):
    memory, _ = encode(src[:2], good, config)
    return to_vocabulary(decode(inputs, memory, src[:2], good, config)[0], good, config)[0]


def memories(ids, mask):
    return encode(np.where(mask, ids, 0), good, config)[0][mask]


def complaint(check, *arguments):
    try:
        check(*arguments)
    except AssertionError as error:
        return str(error)
    return ""


seen, padded = (assert_causal, answers, shift_right(targets[:2], 1)), (assert_pad_invariant, memories, src, src != 0)
assert not complaint(*seen) and not complaint(*padded)
for name, check in (("no causal mask", seen), ("padding on the wrong axis", padded)):
    with bugs[name]:
        print(f"{name}: {complaint(*check)}")
        assert complaint(*check) and all(row.ok for row in check_model())               # blind

# %%
# The third is a wrong backward. The gradient check finds it in q and k, and names it by its number, the batch size (here 3).

p = tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), init.multi_head_attention(6, 2, rng, dtype=np.float64))
x, pair = rng.normal(size=(3, 4, 6)), (blocks.multi_head_attention_forward, blocks.multi_head_attention_backward)
assert all(row.ok for row in gradcheck(*pair, x, x[:, :2], p, heads=2))
with bugs["softmax backward / batch"]:
    rows = gradcheck(*pair, x, x[:, :2], p, heads=2)
wrong = {row.tensor: row.diagnosis for row in rows if not row.ok}
print("wrong:", *wrong, "|", wrong["p.q.w"])
assert not any(name.startswith(("p.v", "p.out")) for name in wrong) and "3 times too small" in wrong["p.q.w"]

# %%
# The package's training, and a model that repeats one word
# ---------------------------------------------------------
# ``train_translator`` is the loop with vocabularies, batches of like length, checkpoints, and translations of held-out
# sentences along the way. Its model is twice as wide, and pre-norm. Look at the first lines: **it repeats one word.** It has
# learned which words are frequent, and does not read the source yet, so nothing tells it which words are said already and
# when to stop. That is a stage, not a bug, *if* the loss is then near the word frequencies and falling. If it goes on when
# the loss is far below, decoding differs from training: look for a leak (above), or at what the decoder is fed in use
# (lesson 13).

folder, lines = tempfile.TemporaryDirectory(), []
run = train_translator(corpus, folder.name, steps=200, bar=False, say=lines.append)
translator = Translator.load(folder.name)
starts = [i for i, line in enumerate(lines) if line.startswith("step")]
for i in (starts[0], starts[2], starts[-1]):
    print(*lines[i : i + 5], sep="\n")
measured = score(translator.params, translator.config, encode_pairs(corpus.held_out, translator.languages))
print(f"loss {run.losses[0]:.2f} -> {run.losses[-1]:.2f}, its floor {floor:.2f}; held out: accuracy {measured.accuracy:.0%}")
early = lines[starts[0] + 2].split(" -> ")[1].split("   (")[0].split()
assert len(set(early)) < len(early)                             # it repeats a word
assert floor < run.losses[-1] < floor + 0.1 and measured.accuracy > 0.9
assert translator.translate(["je suis étudiant"]) == ["i am a student"]

# %%
# Target outputs against trained outputs
# --------------------------------------
# Article D's two tables: what the loss asks for, and what the trained model says, word by word. It is sure, but not quite:
# label smoothing asks for 0.9 and some.

pair = (pad_batch([language.encode(text)]) for language, text in
        zip(translator.languages, ("je suis étudiant", "i am a student"), strict=True))
loss, cache = transformer_forward(*pair, translator.params, translator.config)
probabilities = softmax_forward(cache["logits"])[0]             # (5, V)
one_hot = np.eye(V)[cache["targets"]]
print("probability of each right word:", probabilities[one_hot == 1].round(2))
figure = plot.output_probabilities(one_hot, probabilities, words)
print(plot.save(figure, figures / "training_outputs.png"))
assert 0.7 < probabilities[one_hot == 1].min() < probabilities[one_hot == 1].max() < 0.999

# %%
# Where each word looked
# ----------------------
# Greedy decoding keeps the cross-attention of every layer and head. Heads are not told what to do, so do not expect every map
# to be readable. Mind the row of *not*: French says it twice, *ne* and *pas*, and that is where it looks.

sources, said, decoded = translator.decode("je ne suis pas étudiant")
print(" ".join(said))
for layer, weights in enumerate(decoded.cross[0]):              # (H, T, Tk)
    print(plot.save(plot.attention(weights, said, sources), figures / f"training_attention_{layer}.png"))

# %%
# All heads of one word as lines, in the last layer.

negation = decoded.cross[0][:, :, said.index("not"), [sources.index("ne"), sources.index("pas")]].sum(axis=-1)      # (L, H)
print(f"share of its attention that 'not' gives to ne and pas, by layer: {negation.mean(axis=1).round(2)}")
assert negation.mean() > 0.5
lines_of_not = plot.attention_lines(said, decoded.cross[0][-1], said.index("not"), sources)
print(plot.save(lines_of_not, figures / "training_lines.png"))
folder.cleanup()

# %%
# Exercises
# ---------
# Write your answer in the place of ``None`` and run the cell again.

# 1. What is the highest learning rate of the paper's base model (512 wide, 4000 steps of warm-up)?
answer_1 = None
if answer_1 is not None:
    top = max(noam(step, 512, 4000) for step in range(1, 8001))
    assert math.isclose(answer_1, top, rel_tol=0.01), "both arms of the formula meet at the last step of the warm-up"

# 2. Somebody's schedule counts one for each of our tensors. After how many batches are 4000 steps of warm-up over? Round up.
answer_2 = None
if answer_2 is not None:
    assert answer_2 == math.ceil(4000 / len(list(tree.leaves(good)))), "each batch counts as many steps as there are tensors"

# 3. Write the clipping: a function (gradients, most) -> list. All arrays are scaled down by one common factor, so that the
#    root of the sum of all squares is at most `most`; short gradients stay as they are.
answer_3 = None
if answer_3 is not None:
    for size in (0.01, 1.0):
        given = [size * np.random.default_rng(i).normal(size=(4, 3)) for i in range(3)]
        clipped = [g.copy() for g in given]
        clip_grad_norm(clipped, 1.0)
        for yours, ours in zip(answer_3(given, 1.0), clipped, strict=True):
            np.testing.assert_allclose(yours, ours, rtol=1e-4, err_msg="one norm for all together; never longer steps")

# 4. Whose author sees an accuracy of nearly 100 % (with teacher forcing), while hardly a sentence is right? Write the name of
#    the run, as it is printed above.
answer_4 = None
if answer_4 is not None:
    assert answer_4 == min(judged, key=lambda name: judged[name][1]), "look for the fewest exact sentences"

# %%
# In the articles
# ---------------
# - Article D, training: *je suis étudiant*, target outputs against trained outputs. Here the section of that name. Its
#   picture has the six words of lesson 11's vocabulary; this one all words of a trained model.
# - Article D, the loss: what the number means is in "What loss should I see?"; its formula and its gradient are in lesson 11.
# - Article C, section 5 (teacher forcing in training, one word at a time in use): here "The loss, one word at a time" shows
#   that both compute the same when they are fed the same.
# - Article A, the worked example (``Why do we work?``): its decoder is fed what it said, which is use, not training. Lesson
#   13 runs it, from English to Chinese as in the article.
# - The schedule is the paper's (section 5.3); it counts steps of the optimiser. Without it, see "Break it: five that the curve
#   shows".
