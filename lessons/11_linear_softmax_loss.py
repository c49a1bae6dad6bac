"""
Linear, softmax, loss · 线性层、softmax 与损失
==============================================

The decoder ends in a vector, and the reader wants a word. A linear map gives every word of the vocabulary a number, the
softmax makes probabilities of these numbers, and training needs one number more, the loss: how bad was that? Softmax and loss
together have the simplest backward of the whole model. Taken apart they overflow, and a softmax too many spoils the training.

Read beside: Vaswani et al. 2017, sections 3.4 and 5.4; articles D (linear + softmax, training) and C (section 5).
"""

# %%
# From a vector to a word, as a loop
# ----------------------------------
# Article D's vocabulary has six words. The decoder has looked at *je suis étudiant* and gives one vector of width D for each
# place of *i am a student <eos>*; here they are random. ``logits`` are what the linear map says: any numbers, one per word.

import math
from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.embedding import embedding_backward, embedding_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward

figures = Path("figures")
rng = np.random.default_rng(0)
words = ["a", "am", "i", "thanks", "student", "<eos>"]
sentence = ["i", "am", "a", "student", "<eos>"]
M, D, V = len(sentence), 8, len(words)                          # M places whose answer counts
x, w, b = rng.normal(size=(M, D)), 0.3 * rng.normal(size=(D, V)), 0.1 * rng.normal(size=V)


def probabilities(x, w, b):
    p = np.zeros((len(x), len(b)))
    for t in range(len(x)):                                     # every place
        logits = [sum(x[t, i] * w[i, v] for i in range(len(w))) + b[v] for v in range(len(b))]
        total = sum(math.exp(z) for z in logits)
        for v in range(len(b)):                                 # every word
            p[t, v] = math.exp(logits[v]) / total
    return p


# %%
# Vectorised, and equal to the package. The word is the one with the largest probability; untrained, that is nonsense.

logits, _ = linear_forward(x, w, b)                             # (M, V)
p, _ = softmax_forward(logits)                                  # (M, V), rows sum to 1
np.testing.assert_allclose(probabilities(x, w, b), p, atol=1e-12)
print("untrained:", *(words[v] for v in p.argmax(axis=1)))

# %%
# The loss, as a loop
# -------------------
# The target of a place is *one-hot*: 1 for the right word, 0 for the others. The cross entropy sums :math:`-q \log p` over
# the vocabulary, so five of six terms are zero, and what is left is minus the logarithm of the right word's probability. For
# a target of one word there is thus no need to build the one-hot rows: the word's number will do.

targets = np.array([words.index(word) for word in sentence])    # (M,)
one_hot = np.eye(V)[targets]                                    # (M, V)
print(one_hot.astype(int))


def cross_entropy(p, q):
    loss = 0.0
    for t in range(len(p)):
        for v in range(p.shape[1]):
            if q[t, v]:
                loss -= q[t, v] * math.log(p[t, v])
    return loss / len(p)


# %%
# Vectorised, from the logits z: :math:`-\log p_t = \log \sum_v e^{z_v} - z_t` for the target t. It is equation (4) below.

loss, cache = cross_entropy_forward(logits, targets)
np.testing.assert_allclose(cross_entropy(p, one_hot), loss)
np.testing.assert_allclose((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(M), targets]).mean(), loss)

# %%
# The first loss is ln V
# ----------------------
# Who knows nothing says 1/V for every word, and :math:`-\log(1/V) = \ln V`. Logits that are random with standard deviation s
# cost about :math:`s^2 / 2` more: the model is sure of itself without a reason. So print the first loss: well above ln V, and
# the initialisation is too large (or the last layer is).

many = rng.integers(0, 1000, 5000)                              # 5000 places, 1000 words
noise = rng.normal(size=(5000, 1000))
first = {s: float(cross_entropy_forward(s * noise, many)[0]) for s in (0.0, 0.1, 1.0, 2.0)}
for s, value in first.items():
    print(f"logits of size {s}: first loss {value:.2f} = ln V + {value - math.log(1000):.2f}")
assert all(abs(value - math.log(1000) - s * s / 2) < 0.1 for s, value in first.items())

# %%
# Where is the softmax?
# ---------------------
# Many models end in the linear map, and readers look for the softmax in vain. It is in the loss: ``cross_entropy_forward``
# takes *logits*, as PyTorch's ``CrossEntropyLoss`` does. Fused, the two are simpler (the backward below is one subtraction)
# and safer: a probability that is too small for a float is 0, and its logarithm minus infinity. In use you need no softmax
# either, since the largest logit is the likeliest word; take it to look at probabilities, or to search with them (lesson 13).

sure_and_wrong, right_word = np.array([[0.0, 1000.0]]), np.array([0])
with np.errstate(divide="ignore"):
    apart = -np.log(softmax_forward(sure_and_wrong)[0][0, 0])
fused, _ = cross_entropy_forward(sure_and_wrong, right_word)
print(f"softmax, then logarithm: {apart}; fused: {fused}")
assert math.isinf(apart) and fused == 1000
assert np.array_equal(logits.argmax(axis=1), p.argmax(axis=1))

# %%
# The backward: p - one_hot
# -------------------------
# With the target q of a place (one-hot, or smoothed as below), and M places; the numbers are those of ``ops/losses.py``:
#
# .. math::
#
#    loss &= \frac1M \sum_{places} \left( \log \sum_u e^{z_u} - \sum_v q_v z_v \right) \quad (4) \\
#    \frac{\partial}{\partial z_v} \log \sum_u e^{z_u} &= \frac{e^{z_v}}{\sum_u e^{z_u}} = p_v,
#    \qquad \frac{\partial}{\partial z_v} \sum_u q_u z_u = q_v \\
#    dz_v &= dloss \, (p_v - q_v) / M \quad (5)
#
# What the model says, less what it should say. Each row sums to zero: what one word is to gain, the others are to lose. And
# it is bounded: however wrong the model, no entry is larger than 1/M.


def cross_entropy_backward_loop(dloss, p, q):
    dlogits = np.zeros_like(p)
    for t in range(len(p)):
        for v in range(p.shape[1]):
            dlogits[t, v] = dloss * (p[t, v] - q[t, v]) / len(p)                        # (5)
    return dlogits


np.testing.assert_allclose(cross_entropy_backward_loop(1.0, p, one_hot), cross_entropy_backward(1.0, cache), atol=1e-15)
np.testing.assert_allclose(cross_entropy_backward(1.0, cache).sum(axis=1), 0, atol=1e-15)

# %%
# gradcheck: linear map and loss together, the targets by keyword, since they have no gradient.


def head_forward(x, w, b, **options):
    logits, linear = linear_forward(x, w, b)
    loss, entropy = cross_entropy_forward(logits, **options)
    return loss, (linear, entropy)


def head_backward(dloss, cache):
    linear, entropy = cache
    return linear_backward(cross_entropy_backward(dloss, entropy), linear)              # dx, dw, db


for options in ({}, {"label_smoothing": 0.1}, {"ignore_index": 4}):
    rows = gradcheck(head_forward, head_backward, x, w, b, targets=targets, **options)
    print(format_rows(f"head {options}", rows))
    assert all(row.ok for row in rows)

# %%
# Training it
# -----------
# 200 steps of plain gradient descent on w and b. The first picture is article D's: target outputs against the outputs before
# and after. The second is (5) itself: what every logit is told.

trained_w, trained_b, losses, outputs = w.copy(), b.copy(), [], []
for _ in range(200):
    loss, cache = head_forward(x, trained_w, trained_b, targets=targets)
    _, dw, db = head_backward(1.0, cache)
    trained_w -= dw
    trained_b -= db
    losses.append(float(loss))
    outputs.append(cache[1][0])                                 # p of this step: the loss keeps it for its backward
after = outputs[-1]
print(f"loss {losses[0]:.2f} -> {losses[-1]:.3f} (ln 6 = {math.log(6):.2f});", *(words[v] for v in after.argmax(axis=1)))
assert [words[v] for v in after.argmax(axis=1)] == sentence and losses[-1] < 0.05 and after[one_hot == 1].min() > 0.9

Panel = plot.Panel
panels = [Panel("target", one_hot, 1.0, False, sentence, words), Panel("untrained", p, 1.0, False, sentence, words),
          Panel("after 200 steps", after, 1.0, False, sentence, words)]
caption = (
    "How to read it: a row is a place of the sentence, named by the word that is right there; a column is a word of the "
    "vocabulary; the brighter, the likelier. Each row sums to 1. Training moves the map in the middle towards the left one."
)
print(plot.save(plot.heatmaps(panels, "word", "place", caption), figures / "loss_outputs.png"))

# %%
# The gradient itself. Red logits go down, blue ones up: training subtracts the gradient.

before, later = (cross_entropy_backward_loop(1.0, outputs[step], one_hot) for step in (0, 5))
panels = [Panel("dL/dlogits, untrained", before, 1 / M, True, sentence, words),
          Panel("dL/dlogits, after 5 steps", later, 1 / M, True, sentence, words)]
assert np.abs(later).max() < 0.6 * np.abs(before).max() and np.argwhere(before < 0).tolist() == np.argwhere(one_hot).tolist()
caption = (
    "How to read it: (p - one_hot) / M, a row for each place. Blue is negative, the logit of the right word, which is to grow; "
    "red is positive, the words that took its probability. Each row sums to zero. The range is that of the largest possible "
    "gradient, 1/M, on both sides. Right: the less is wrong, the less there is to say."
)
print(plot.save(plot.heatmaps(panels, "word", "place", caption, columns=2), figures / "loss_gradient.png"))

# %%
# Padding is not asked for
# ------------------------
# *thanks <eos>* beside *i am a student <eos>* needs three places of padding. No answer is wanted there, so they are left out
# of the sum *and* of the count M. The classic mistake is the mean over all places: the loss of 7 words is divided by 10,
# looks better the more padding a batch has, and the gradient shrinks with it.

PAD = -1                                                        # article D's vocabulary has no word for it
batch = np.array([targets, [words.index("thanks"), words.index("<eos>"), PAD, PAD, PAD]])       # (2, 5)
z = rng.normal(size=(2, 5, V))
loss, cache = cross_entropy_forward(z, batch, ignore_index=PAD)
counts = batch != PAD
np.testing.assert_allclose(loss, cross_entropy_forward(z[counts], batch[counts])[0])            # the 7 words alone
dz = cross_entropy_backward(1.0, cache)
assert not dz[~counts].any() and np.abs(dz[counts]).min() > 0
all_places = loss * counts.sum() / counts.size
print(f"mean over {counts.sum()} words {loss:.3f}; over {counts.size} places {all_places:.3f}, as if the model were better")
assert all_places < 0.8 * loss

# %%
# Label smoothing: the loss does not go to 0
# ------------------------------------------
# Vaswani et al. ask for :math:`q = (1 - e)\, one\_hot + e / V` (3), with e = 0.1: be sure, but not too sure. The best the
# model can say is q itself, where (5) is zero, and there the loss is the entropy of q, not 0. It grows with the vocabulary. A
# model that is entirely sure is punished: its loss is *above* that floor. So losses with other e or other V cannot be
# compared; report the loss without smoothing, or its exponential, the *perplexity*.


def floor(e, V):
    likely, rest = 1 - e + e / V, e / V
    return -likely * math.log(likely) - (V - 1) * rest * math.log(rest)


q = 0.9 * one_hot + 0.1 / V                                     # (3)
loss, cache = cross_entropy_forward(np.log(q), targets, label_smoothing=0.1)
np.testing.assert_allclose([loss, np.abs(cross_entropy_backward(1.0, cache)).max()], [floor(0.1, V), 0], atol=1e-12)
too_sure, _ = cross_entropy_forward(20 * one_hot, targets, label_smoothing=0.1)
print(f"e = 0.1, {V} words: not below {floor(0.1, V):.3f}; a model that is entirely sure has {too_sure:.3f}")
print("the floor with 37, 1,000, 37,000 words:", *(f"{floor(0.1, size):.2f}" for size in (37, 1000, 37000)))
assert too_sure > 2 * floor(0.1, V) and 0.6 < floor(0.1, 37) < 0.7 and 1.3 < floor(0.1, 37000) < 1.4

# %%
# Tied weights
# ------------
# The embedding has a row for each word, the last linear map a column for each: Vaswani et al. (section 3.4) take the same
# matrix for both. It is used twice, so two gradients meet in it, and both must be added. And a fresh tied model says back the
# word it was fed, since nothing is so like a row as the row itself: its first loss is above ln V. (Lesson 12 shows one doing
# it.)


def tied_forward(table, **options):
    x, lookup = embedding_forward(options["ids"], table)        # (M, D)
    loss, (linear, entropy) = head_forward(x, table.T, None, targets=options["targets"])
    return loss, (lookup, linear, entropy)


def tied_backward(dloss, cache):
    lookup, linear, entropy = cache
    dx, dw, _ = linear_backward(cross_entropy_backward(dloss, entropy), linear)
    return embedding_backward(dx, lookup) + dw.T                # one matrix, used in two places


def forgets_the_embedding(dloss, cache):
    _, linear, entropy = cache
    return linear_backward(cross_entropy_backward(dloss, entropy), linear)[1].T


table, fed = rng.normal(size=(V, D)), np.array([5, 2, 1, 0, 4])                         # <eos> i am a student
given = {"ids": fed, "targets": targets}
assert all(row.ok for row in gradcheck(tied_forward, tied_backward, table, **given))
(forgotten,) = gradcheck(tied_forward, forgets_the_embedding, table, **given)
print("without the embedding's part:", forgotten.diagnosis)
assert not forgotten.ok
said = (table[fed] @ table.T).argmax(axis=1)
print("fed:", *(words[v] for v in fed), "| said:", *(words[v] for v in said), f"| loss {tied_forward(table, **given)[0]:.2f}")
assert (said == fed).mean() > 0.5 and tied_forward(table, **given)[0] > math.log(V)

# %%
# Break it: softmax twice
# -----------------------
# A model that ends in a softmax, and a loss that has one inside: nothing complains. The second softmax gets numbers between 0
# and 1, so its answers can differ by a factor of e at most. The right word with 1 and the others with 0 is the best there is,
# and its loss is :math:`\ln(e + V - 1) - 1`. The gradient check is blind: this is the right gradient of a wrong loss.


def twice_forward(x, w, b, **options):
    logits, linear = linear_forward(x, w, b)
    p, softmax = softmax_forward(logits)                        # the one too many
    loss, entropy = cross_entropy_forward(p, **options)
    return loss, (linear, softmax, entropy)


def twice_backward(dloss, cache):
    linear, softmax, entropy = cache
    return linear_backward(softmax_backward(cross_entropy_backward(dloss, entropy), softmax), linear)


assert all(row.ok for row in gradcheck(twice_forward, twice_backward, x, w, b, targets=targets))        # blind

# %%
# The same training with it.

twice_w, twice_b, twice = w.copy(), b.copy(), []
for _ in range(200):
    loss, cache = twice_forward(x, twice_w, twice_b, targets=targets)
    _, dw, db = twice_backward(1.0, cache)
    twice_w -= dw
    twice_b -= db
    twice.append(float(loss))
lowest = math.log(math.e + V - 1) - 1
print(f"once: {losses[-1]:.3f}, twice: {twice[-1]:.3f}, its floor: {lowest:.3f}")
assert lowest < twice[-1] < 1.2 * lowest and losses[-1] < 0.05

caption = (
    "How to read it: the same data, the same gradient descent. With two softmaxes the loss starts near ln V, as a healthy one "
    "does, falls more slowly, and stops at its floor. The floor is far above 0, and close to ln V where V is large: if a "
    "loss stays near ln V and hardly moves, count your softmaxes."
)
figure = plot.curves({"softmax once": losses, "softmax twice": twice}, "step", "loss", caption,
                             levels={"ln V, knowing nothing": math.log(V), "ln(e + V - 1) - 1, floor of twice": lowest})
print(plot.save(figure, figures / "loss_softmax_twice.png"))

# %%
# Worse than the floor is what it does to the gradient of a mistake. Once, a model that is sure of a wrong word is told so
# with full force, :math:`p - one\_hot`. Twice, that has to pass the saturated first softmax, and almost nothing comes
# through.

wrong = np.array([[12.0, 0, 0, 0, 0, 0]])                       # sure of "a", and "thanks" is right
once = cross_entropy_backward(1.0, cross_entropy_forward(wrong, np.array([3]))[1])
first_p, softmax = softmax_forward(wrong)
second = softmax_backward(cross_entropy_backward(1.0, cross_entropy_forward(first_p, np.array([3]))[1]), softmax)
print("sure and wrong, gradient of the right word: once", once[0, 3].round(3), f"twice {second[0, 3]:.1e}")
assert once[0, 3] < -0.99 and abs(second[0, 3]) < 1e-4

# %%
# Break it: the maximum along the wrong axis
# ------------------------------------------
# The maximum is subtracted before ``exp`` so that nothing overflows; it cancels, as long as it is *one number for each row*.
# With ``max(axis=0)`` each column loses another number, the rows still sum to 1, and it is not a softmax. With the usual
# backward the gradient check sees it, since the maxima no longer cancel. (It believes the forward and blames the backward:
# read the axes in its message.) With a backward that knows of the maxima it is blind: that is a function and its derivative.
# The loop at the top is not blind.


def columns_forward(z):
    p = np.exp(z - z.max(axis=0))                               # should be axis=-1, keepdims=True
    p /= p.sum(axis=-1, keepdims=True)
    return p, (p, z.argmax(axis=0))


def columns_backward(dp, cache):
    p, top = cache
    dz = softmax_backward(dp, (p,))
    dz[top, np.arange(p.shape[1])] -= dz.sum(axis=0)            # the maximum of a column moves with its entry
    return dz


z = 2 * rng.normal(size=(M, V))
broken, exact = columns_forward(z)[0], softmax_forward(z)[0]
np.testing.assert_allclose(broken.sum(axis=1), 1)
(usual,) = gradcheck(columns_forward, lambda dp, cache: softmax_backward(dp, cache[:1]), z)
print("the usual backward:", usual.diagnosis)
assert not usual.ok and gradcheck(columns_forward, columns_backward, z)[0].ok           # seen, and blind
print(f"rows sum to 1, and yet a probability is off by {np.abs(broken - exact).max():.2f}")
np.testing.assert_allclose(probabilities(z, np.eye(V), np.zeros(V)), exact, atol=1e-12)         # the loop knows
assert np.abs(broken - exact).max() > 0.2

# %%
# Break it: the diagonal Jacobian
# -------------------------------
# Softmax *without* the fused loss needs the whole Jacobian :math:`\partial p_j / \partial z_k = p_j (1[j = k] - p_k)`, from
# which the backward of ``ops/softmax.py`` comes: :math:`dz = p\,(dp - \sum dp\, p)`. The diagonal alone is the derivative of a
# sigmoid. This one is seen, and named.

rows = gradcheck(softmax_forward, lambda dp, cache: dp * cache[0] * (1 - cache[0]), z)
print(rows[0].diagnosis)
assert not rows[0].ok and "diagonal" in rows[0].diagnosis

# %%
# Break it: overflow
# ------------------
# Without the maximum the largest whole logit that works is 88 in float32, 709 in float64. Then ``exp`` is infinite and the
# quotient NaN. The gradient check is blind once more: it runs in float64, with logits near 0.


def naive_forward(z):
    p = np.exp(z)
    p /= p.sum(axis=-1, keepdims=True)
    return p, (p,)


assert gradcheck(naive_forward, softmax_backward, z)[0].ok                              # blind
large = np.array([[100.0, 0.0, -100.0]], np.float32)
with np.errstate(over="ignore", invalid="ignore"):
    naive, _ = naive_forward(large)
    for works, dtype in ((88, np.float32), (709, np.float64)):
        assert np.isfinite(np.exp(dtype(works))) and np.isinf(np.exp(dtype(works + 1)))
print("naive", naive, "package", softmax_forward(large)[0])
assert np.isnan(naive[0, 0]) and softmax_forward(large)[0][0, 0] == 1

# %%
# Exercises
# ---------
# Write your answer in the place of ``None`` and run the cell again.

# 1. A model with a vocabulary of 37,000 words knows nothing. What is its loss?
answer_1 = None
if answer_1 is not None:
    uniform, _ = cross_entropy_forward(np.zeros((1, 37000)), np.array([0]))
    assert math.isclose(answer_1, uniform, rel_tol=1e-3), "it says 1/V for each word; the loss is -ln of that"

# 2. The same vocabulary, softmax twice: what is the lowest loss that it can reach?
answer_2 = None
if answer_2 is not None:
    best, _ = cross_entropy_forward(np.eye(1, 37000), np.array([0]))
    assert math.isclose(answer_2, best, rel_tol=1e-3), "the second softmax is given 1 for the right word, 0 for 36,999 others"

# 3. Write the backward of y = log softmax(z): a function (dy, cache) -> dz, where cache is (p,), p = softmax(z).
answer_3 = None
if answer_3 is not None:
    rows = gradcheck(lambda z: (np.log(softmax_forward(z)[0]), softmax_forward(z)[1]), answer_3, z)
    assert all(row.ok for row in rows), rows[0].diagnosis

# 4. Label smoothing 0.2 over 6 words: which probability should the model give to the right word?
answer_4 = None
if answer_4 is not None:
    smoothed = cross_entropy_backward(1.0, cross_entropy_forward(np.zeros((1, 6)), np.array([0]), label_smoothing=0.2)[1])
    assert math.isclose(answer_4, 1 / 6 - smoothed[0, 0], rel_tol=1e-3), "(3): it keeps 1 - e, and gets its share of e too"

# %%
# In the articles
# ---------------
# - Article D, linear + softmax: logits over the vocabulary, probabilities, the word with the highest one. Here the first
#   section. There the softmax is a part of the model; in our model, and in most code, it is inside the loss.
# - Article D, training: the vocabulary *a am i thanks student <eos>*, one-hot targets, the loss, and target outputs against
#   trained outputs. Here "The loss, as a loop" and the first picture. Its targets are plain one-hot rows; those of the paper
#   are smoothed. The same picture from a whole trained Transformer is in lesson 12.
# - Article C, section 5: the softmax over the vocabulary behind the decoder. Here row t of ``logits`` predicts word t. That it
#   only knows the words before t is the causal mask's doing (lessons 06 and 10).
# - The paper ties the two embeddings and the last linear map (section 3.4), and smooths labels with e = 0.1 (section 5.4). It
#   says that this hurts perplexity, as it must: the model is asked to be a little unsure.
