"""
Tokens and embedding · 词元与词嵌入
===================================

A network computes with numbers, and a sentence is letters. How does one become the other? In two steps: the sentence is
cut into *tokens*, and each token gets a row of a table, its *embedding*, which training moves to where it is useful.
Then: why does the paper multiply that row by the root of its width, and can rows be learned before there is a
Transformer at all?

Read beside: Vaswani et al. 2017, section 3.4; article C, section 2 (word embedding); articles A and D for their
sentences. Word2vec: Mikolov et al. 2013.
"""

# %%
# Cut a sentence into tokens
# --------------------------
# English has spaces, Chinese has none: there every character is a token. The vocabulary numbers the tokens, the most frequent
# first; 0 to 3 are ``<pad>``, ``<bos>`` (the articles: ``<start>``, ``<Begin>``), ``<eos>`` (``<end>``) and ``<unk>``. Our
# corpus is the English side of a phrasebook that a small grammar writes.

import importlib.util
import itertools
import math
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.special import expit

from tinymae import init, plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.ops.embedding import embedding_backward, embedding_forward
from tinymae.ops.losses import cross_entropy_forward
from tinymae.ops.positional import sinusoidal_interleaved
from tinymae.text.batches import pad_batch
from tinymae.text.bpe import train_bpe
from tinymae.text.grammar import phrasebook
from tinymae.text.tokens import tokenize_characters, tokenize_words
from tinymae.text.vectors import load_word_vectors
from tinymae.text.vocabulary import PAD, UNK, Vocabulary
from tinymae.train.optim import AdamW

figures = Path("figures")
rng = np.random.default_rng(2)
print(tokenize_words("Why do we work?"), tokenize_characters("为什么要工作"), tokenize_characters("我有一只猫"))
english = [sentence for sentence, _ in phrasebook()]
vocabulary = Vocabulary.build([tokenize_words(sentence) for sentence in english])
print(len(english), "sentences,", len(vocabulary), "tokens:", *vocabulary.words[:12], "...")

# %%
# A word that is not in the vocabulary becomes ``<unk>``, and all unknown words become the same one: what they said is lost.
# Sentences of one batch get one length; short ones are filled with ``<pad>``.

tokens = tokenize_words("The smallest cat likes tea")
print(tokens, "->", vocabulary.encode(tokens), "unknown:", vocabulary.unknown(tokens))
assert vocabulary.unknown(tokens) == ["smallest"] and vocabulary.encode(tokens)[1] == UNK
print(pad_batch([vocabulary.encode(tokens), vocabulary.encode(["hello"])]))

# %%
# Pieces of words
# ---------------
# *Byte pair encoding* has no unknown words. It starts from characters, and again and again joins the two pieces that stand side
# by side most often. Frequent words become one piece, rare ones stay in parts; _ marks where a word begins. All of it:

words = [["_", *word] for word in "old old old older oldest cold cold colder coldest warm warmer warmest".split()]
for _ in range(8):
    pairs = Counter(pair for word in words for pair in itertools.pairwise(word))
    left, right = pairs.most_common(1)[0][0]
    for word in words:
        for i in range(len(word) - 2, -1, -1):
            if word[i : i + 2] == [left, right]:
                word[i : i + 2] = [left + right]
print(*("|".join(word) for word in dict.fromkeys(map(tuple, words))))
assert ["_old"] in words and ["_cold", "est"] in words and ["_", *"warm", "est"] in words

# %%
# ``tinymae.text.bpe`` leaves this to the ``tokenizers`` library, which is an extra (``pip install 'tinymae[text]'``).

if importlib.util.find_spec("tokenizers"):
    bpe = train_bpe(english, 500)
    print("smallest ->", bpe.tokens("the smallest cat"), bpe.encode("the smallest cat"))
    assert not bpe.unknown("the smallest cat") and bpe.decode(bpe.encode("the smallest cat")) == "the smallest cat"
else:
    print("the tokenizers library is not installed: this cell shows nothing")

# %%
# A row of a table
# ----------------
# The table has a row for each token, D numbers wide. Embedding a sentence means to look up the rows of its ids:
#
# .. math::
#
#    y_{bt} = table[ids_{bt}] \qquad (1)
#
# Books write a product with *one-hot* vectors, which are 0 but for a single 1. It is the same, and shows that an embedding is a
# linear map. Nobody computes it like that: nearly all of its work is multiplying by 0.

ids = np.array([[5, 2, 5, 7], [2, 5, 0, 3]])                    # (B, T) = (2, 4); 5 occurs three times
table = rng.normal(size=(9, 3))                                 # (V, D)
loop = np.array([[[table[i, column] for column in range(3)] for i in sentence] for sentence in ids])
one_hot = np.eye(9)[ids]                                        # (B, T, V)
y, cache = embedding_forward(ids, table)                        # (B, T, D)
for other in (loop, one_hot @ table, table[ids]):
    np.testing.assert_array_equal(y, other)

# %%
# The way back: what is used twice gets two gradients
# ---------------------------------------------------
# A row's gradient is the sum over all places where its word stands. A word that does not occur gets 0.
#
# .. math::
#
#    dtable_v = \sum_{b,t:\ ids_{bt} = v} dy_{bt} \qquad (2)
#
# With one-hot rows this is (3) of lesson 1, :math:`x^T dy`. ``np.add.at`` adds at places, also where a place comes twice.

dy = rng.normal(size=y.shape)
by_loop, by_add_at = np.zeros_like(table), np.zeros_like(table)
for b, t in np.ndindex(ids.shape):
    by_loop[ids[b, t]] += dy[b, t]                              # (2)
np.add.at(by_add_at, ids, dy)
for ours in (by_loop, by_add_at, np.einsum("btv,btd->vd", one_hot, dy)):
    np.testing.assert_allclose(ours, embedding_backward(dy, cache), atol=1e-12)
rows = gradcheck(embedding_forward, embedding_backward, ids, table)
print(format_rows("embedding", rows))
assert all(row.ok for row in rows)

# %%
# Break it
# --------
# ``dtable[ids] += dy`` looks right. But NumPy reads all the rows first, adds, and writes them back: of a word that stands three
# times, the last one wins. With ids that are all different, no check can see it.


def last_one_wins(dy, cache):
    ids, shape = cache
    dtable = np.zeros(shape)
    dtable[ids] += dy
    return dtable


rows = gradcheck(embedding_forward, last_one_wins, ids, table)
blind = gradcheck(embedding_forward, last_one_wins, np.array([[5, 2, 8, 7], [1, 4, 0, 3]]), table)
print(format_rows("ids repeated", rows), format_rows("ids all different", blind), sep="\n\n")
assert not rows[0].ok and "more than once" in rows[0].diagnosis and blind[0].ok

# %%
# Why multiply the embedding by sqrt(d_model)?
# --------------------------------------------
# The paper does so and gives no reason. The usual one: it uses one matrix twice, as embedding and as the last layer, which
# compares what the decoder says with each word. There its entries must be about :math:`1/\sqrt{D}`, or the first loss is far
# above ln V, the loss of a model that knows nothing (lesson 11). But rows of such entries have length 1, and the positions
# that are added to them (lesson 3) have length :math:`\sqrt{D/2}`, 16 at width 512. Times :math:`\sqrt{D}` the word is the
# longer one again. Who starts with entries of size 1 (PyTorch's ``nn.Embedding`` does) and shares no matrix needs no factor.

width, words_known = 512, 1000
positions = np.linalg.norm(sinusoidal_interleaved(60, width), axis=1).mean()
spoken, targets = rng.normal(size=(200, width)), rng.integers(0, words_known, 200)      # size 1, as a layer norm leaves it
for name, std in (("1 / sqrt(D)", width**-0.5), ("1", 1.0)):
    matrix = init.normal((words_known, width), rng, std, np.float64)
    length = np.linalg.norm(matrix, axis=1).mean()
    loss, _ = cross_entropy_forward(spoken @ matrix.T, targets)
    print(f"entries of {name:11}: a word is {length:5.2f} long, times sqrt(D) {length * math.sqrt(width):6.2f}, a position "
          f"{positions:.2f}; first loss {loss:5.2f}, ln V = {math.log(words_known):.2f}")
    if std < 1:
        assert 0.9 < length < 1.1 and abs(positions - 16) < 1e-9 and length * math.sqrt(width) > positions
        assert loss < math.log(words_known) + 1
assert loss > 5 * math.log(words_known)

# %%
# Word2vec: vectors from the company of words
# -------------------------------------------
# *Skip-gram with negative sampling* needs no Transformer. Two tables: u for a word, v for a word as a neighbour. Take a word c,
# one of its true neighbours, and K words drawn at random. The product of u and v should be large for the true one (k = 0), and
# small for the others; :math:`\sigma(s) = 1 / (1 + e^{-s})` makes a probability of it:
#
# .. math::
#
#    s_k = u_c \cdot v_{o_k} \quad (3) \qquad
#    loss = -\frac{1}{B} \sum \Big( \log \sigma(s_0) + \sum_{k=1}^{K} \log \sigma(-s_k) \Big) \quad (4)
#
# The derivative of :math:`-\log \sigma(s)` is :math:`\sigma(s) - 1`, that of :math:`-\log \sigma(-s)` is :math:`\sigma(s)`:
# what the model says, minus what it should say, 1 or 0. Then come two products, and (2) for each table.
#
# .. math::
#
#    ds_k = \frac{\sigma(s_k) - [k = 0]}{B} \quad (5) \qquad
#    du_c = \sum_k ds_k \, v_{o_k} \quad (6) \qquad dv_{o_k} = ds_k \, u_c \quad (7)


def skip_gram_forward(centres, others, p):
    """Mean loss of B words, centres (B,), with others (B, 1 + K): a true neighbour first. p = {"word", "neighbour"}."""
    u, word = embedding_forward(centres, p["word"])             # (B, D)
    v, neighbour = embedding_forward(others, p["neighbour"])    # (B, 1 + K, D)
    s = np.einsum("bd,bkd->bk", u, v)                           # (3)
    true = np.arange(s.shape[1]) == 0
    loss = np.logaddexp(0, np.where(true, -s, s)).sum() / len(s)            # (4): -log sigma(s) = log(1 + exp(-s))
    return loss, (u, v, s, true, word, neighbour)


def skip_gram_backward(dloss, cache):
    u, v, s, true, word, neighbour = cache
    ds = dloss * (expit(s) - true) / len(s)                     # (5)
    du = np.einsum("bk,bkd->bd", ds, v)                         # (6)
    dv = np.einsum("bk,bd->bkd", ds, u)                         # (7)
    return {"word": embedding_backward(du, word), "neighbour": embedding_backward(dv, neighbour)}


small = {"word": rng.normal(size=(9, 4)), "neighbour": rng.normal(size=(9, 4))}
rows = gradcheck(skip_gram_forward, skip_gram_backward, rng.integers(0, 9, 6), rng.integers(0, 9, (6, 3)), small)
print(format_rows("skip-gram", rows))
assert all(row.ok for row in rows)

# %%
# Train it on the phrasebook: all pairs of words at most two places apart. Noise words are drawn by how often they occur, to the
# power of 3/4. What loss should you see? A table v of zeros makes every product 0, so the first is :math:`(1 + K) \ln 2`,
# whatever the corpus. It never reaches 0: a word has many true neighbours, and sometimes the noise is one of them. (AdamW takes
# the steps; lesson 12 opens it.)

sentences = pad_batch([vocabulary.encode(tokenize_words(sentence)) for sentence in english])
pairs = [(sentences[:, :-apart].ravel(), sentences[:, apart:].ravel()) for apart in (1, 2)]
pairs = np.concatenate([np.stack(pair, axis=1) for a, b in pairs for pair in ((a, b), (b, a))])         # (pairs, 2)
pairs = pairs[(pairs != PAD).all(axis=1)]
often = np.bincount(pairs[:, 0], minlength=len(vocabulary)) ** 0.75

K, D, steps = 5, 16, 1200
p = {"word": init.normal((len(vocabulary), D), rng, D**-0.5), "neighbour": np.zeros((len(vocabulary), D), np.float32)}
optimizer, losses = AdamW(p), []
for step in range(steps):
    batch = pairs[rng.integers(0, len(pairs), 1024)]
    noise = rng.choice(len(vocabulary), (1024, K), p=often / often.sum())
    loss, cache = skip_gram_forward(batch[:, 0], np.column_stack([batch[:, 1], noise]), p)
    optimizer.step(p, skip_gram_backward(1.0, cache), 0.02 * (1 - step / steps))
    losses.append(float(loss))
first, last = losses[0], np.mean(losses[-100:])
print(f"{len(pairs)} pairs; first loss {first:.3f} (knowing nothing: {(1 + K) * math.log(2):.3f}), last {last:.2f}")
assert abs(first - (1 + K) * math.log(2)) < 1e-5 and 1 < last < 2

# %%
# What the neighbours look like
# -----------------------------
# The nearest words by the cosine of their u. Nobody told the model what an animal is, or a city: words that keep the same
# company get the same vector. That is not the same as meaning the same. *Hot* and *cold* keep the same company, too.

unit = p["word"] / np.linalg.norm(p["word"], axis=1, keepdims=True)


def nearest(word, count=5):
    cosine = unit @ unit[vocabulary.encode([word])[0]]
    cosine[:4] = -1                                             # <pad> and the like were never trained
    return [vocabulary.words[i] for i in np.argsort(-cosine)[1 : count + 1]]


groups = {
    "animals": "cat dog bird rabbit sheep horse cow", "drinks": "water tea coffee milk juice",
    "cities": "beijing shanghai nanjing tokyo london paris berlin",
    "days": "monday tuesday wednesday thursday friday saturday sunday",
    "activities": "swimming running singing dancing reading studying working cooking driving sleeping",
    "weather": "hot cold warm cool", "comparisons": "bigger smaller newer cheaper fatter cuter thinner",
}
groups = {name: members.split() for name, members in groups.items()}
for name, members in groups.items():
    print(f"{name:12} {members[0]:9} ->", *nearest(members[0]))
    assert len(set(nearest(members[0], 3)) & set(members)) >= 2, name
assert "cold" in nearest("hot", 3)

# %%
# A map: 16 numbers a word, seen from the two directions in which these words differ most (the first two of an SVD).

drawn = {name: members[:6] for name, members in groups.items()}
vectors = unit[vocabulary.encode([word for members in drawn.values() for word in members])]
vectors = vectors - vectors.mean(axis=0)
_, sizes, directions = np.linalg.svd(vectors, full_matrices=False)
flat = iter(vectors @ directions[:2].T)
share = (sizes[:2] ** 2).sum() / (sizes**2).sum()
caption = (
    f"How to read it: each dot is the vector of a word; close together means the same company in the phrasebook. The two axes "
    f"hold {share:.0%} of how these words differ: what lies apart here is apart, what lies together may differ in a direction "
    "that is not drawn. Left and right, above and below mean nothing by themselves."
)
placed = {name: (np.array([next(flat) for _ in members]), members) for name, members in drawn.items()}
figure = plot.points(placed, "first direction", "second direction", caption)
print(plot.save(figure, figures / "embedding_map.png"))

# %%
# Trained, frozen, or somebody else's
# -----------------------------------
# Article C names the sources: a table trained with the model, or Word2Vec's or GloVe's vectors to start from. These come as
# text, a word and its numbers on each line. Here our own table makes such a file, for a vocabulary with two words that it
# lacks: those are drawn at random. To *freeze* vectors is to give their rows no gradient; the new words still learn.

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "vectors.txt"
    known = zip(vocabulary.words[4:], p["word"][4:].tolist(), strict=True)
    path.write_text("\n".join(f"{word} {' '.join(map(str, row))}" for word, row in known), encoding="utf-8")
    other = Vocabulary(["cat", "dog", "unicorn", "tea", "pizza"])
    loaded = load_word_vectors(path, other, rng)
print(f"{loaded.fraction:.0%} of the words found; missing:", *loaded.missing)
_, cache = embedding_forward(np.array(other.encode(["cat", "unicorn"])), loaded.table)
dtable = embedding_backward(np.ones((2, D), np.float32), cache)
dtable[loaded.found] = 0                                        # frozen
moved = [word for word, row in zip(other.words, dtable, strict=True) if row.any()]
print("a step moves:", *moved)
assert moved == ["unicorn"] and loaded.missing == ["unicorn", "pizza"]

# %%
# Exercises
# ---------
# Write your answers in place of ``None``, and run the file again. A wrong answer stops with a hint.
# For a whole file to complete: ``python -m tinymae exercise embedding``.

# 1. Skip-gram with 10 noise words for each true neighbour, and a table v of zeros. What is its loss before the first step?
answer_1 = None
if answer_1 is not None:
    nothing = {"word": p["word"], "neighbour": np.zeros_like(p["neighbour"])}
    start, _ = skip_gram_forward(np.array([7]), np.arange(11)[None], nothing)
    assert abs(answer_1 - start) < 0.01, "every product is 0, sigma(0) is one half, and there are 11 of them"


# 2. The embedding as a Transformer has it, times sqrt(D). Write def answer_2(dy, cache), the gradient of the table.
def scaled_forward(ids, table):
    return math.sqrt(table.shape[1]) * table[ids], (ids, table.shape)


answer_2 = None
if answer_2 is not None:
    rows = gradcheck(scaled_forward, answer_2, ids, table)
    assert all(row.ok for row in rows), "\n" + format_rows("your backward", rows)

# 3. Write def answer_3(a, b, c): the word w so that "a is to b as c is to w", by arithmetic on the rows of `unit`: the nearest
#    to b - a + c by cosine that is none of the three. It is asked for (beijing, china, tokyo). Then try (cat, cats, dog): a
#    plural, but whose?
answer_3 = None
if answer_3 is not None:
    three = ["beijing", "china", "tokyo"]
    capital, country, other_capital = unit[vocabulary.encode(three)]
    cosine = unit @ (country - capital + other_capital)
    cosine[[*range(4), *vocabulary.encode(three)]] = -np.inf
    expected = vocabulary.words[int(cosine.argmax())]
    assert answer_3(*three) == expected, f"expected {expected!r}: are the three words themselves left out?"

# %%
# In the articles
# ---------------
# - **A, worked example**: ``Why do we work?`` and ``为什么要工作``; here one is cut into words, the other into characters. Its
#   ``[1, 7] -> [1, 7, 512]`` is "A row of a table": (B, T) ids become (B, T, D).
# - **C, section 1**: ``我有一只猫``, cut into characters, is five tokens. **C, section 2** (word embedding): trained, or from
#   Word2Vec or GloVe; both are here. The paper's factor :math:`\sqrt{D}` is easily overlooked: it stands in section 3.4, not in
#   the figure.
# - **D, training**: words as one-hot vectors over ``a am i thanks student <eos>``. Times the table, they are the lookup.
