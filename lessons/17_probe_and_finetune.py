"""
Probe and fine-tune · 线性探测与微调
====================================

A masked autoencoder is trained without a single label, and its decoder is thrown away. What is left in the encoder, and what
is it good for? Two answers are usual: freeze it and put a linear classifier on its features (the *probe*), or go on training
all of it (*fine-tuning*). They measure different things, and the honest comparison, raw pixels, is often left out. Not here.

Read beside: He et al. 2021, sections 4.1 and 4.3, appendix A; article A ("MAE"); lessons 15 and 16.
"""

# %%
# Pre-train: pictures, no labels
# ------------------------------
# scikit-learn's digits. Of 1,797 pictures the last 360 are for testing, and nothing here learns from them. The model is small,
# 16 patches of 2 x 2 pixels, half of them hidden; the estimator does what lesson 16 did by hand.

from math import log
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from tinymae import plot, tree
from tinymae.estimator import MaskedAutoencoder
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.images.labelled import load_labelled
from tinymae.models.fine_tuning import layer_rates, vit_decays
from tinymae.models.mae import mae_backward, mae_forward
from tinymae.models.vit import ViTConfig, vit_backward, vit_forward, vit_init, vit_logits
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.tasks.classify import vit_from
from tinymae.tasks.encoders import Encoder
from tinymae.tasks.probe import accuracies, few_labels
from tinymae.train.optim import AdamW, warmup_cosine

threadpool_limits(1, "blas")                                    # for matrices this small one thread is faster than several
figures, rng = Path("figures"), np.random.default_rng(0)

# %%
# The features are two vectors for each picture, side by side: the class token, and the mean of the patches.

data = load_labelled("digits")
known, test = data.split()
pixels = (data.images.reshape(len(data.images), -1) / 255).astype(np.float32)               # (1797, 64), a picture in each row
first = len(known.images)                                       # 1437: the test pictures begin here
model = MaskedAutoencoder(
    patch_size=2, mask_ratio=0.5, embed_dim=32, depth=2, decoder_embed_dim=32, decoder_depth=1, steps=1200, batch_size=64,
    learning_rate=4e-3, random_state=0,
).fit(pixels[:first])
features = model.transform(pixels).astype(np.float64)           # (1797, 2 D)
print(f"loss {model.losses_[0]:.2f} -> {np.mean(model.losses_[-50:]):.3f}; features {features.shape}")
assert features.shape == (1797, 64) and np.mean(model.losses_[-50:]) < 0.6

# %%
# The probe, as a loop
# --------------------
# The encoder is frozen, so its features are just numbers, and the probe is logistic regression on them: one score for each
# class, softmax, cross entropy, and a small penalty on large weights. The features are standardised first, by mean and
# deviation of the pictures that it learns from, never by those of the test pictures.

scale = features[:first].mean(axis=0), features[:first].std(axis=0)
x, labels = ((features - scale[0]) / scale[1])[:first], known.labels


def probe_loop(x, w, b, labels, l2):
    total = 0.0
    for row, label in zip(x, labels, strict=True):
        scores = [float(row @ w[:, c]) + b[c] for c in range(w.shape[1])]
        total += log(sum(np.exp(score) for score in scores)) - scores[label]
    return total / len(x) + l2 / 2 * float((w * w).sum())


# %%
# Vectorised, with its backward
# -----------------------------
# With n pictures, and q the row that is 1 at the label and 0 elsewhere:
#
# .. math::
#
#    z = x w + b \qquad (1)
#
#    loss = \frac{1}{n} \sum_i \big( logsumexp(z_i) - z_{i, label} \big) + \frac{\lambda}{2} \|w\|^2 \qquad (2)
#
#    dz = dloss \, (softmax(z) - q) / n \qquad (3)
#
#    dw = x^T dz + dloss \, \lambda w, \quad db = \sum_i dz_i \qquad (4)
#
# (3) is equation (5) of ``ops.losses``, with its M = n. The weight is used twice, in the scores and in the penalty: two
# gradients meet in (4). The features get no gradient: that is what frozen means.


def probe_forward(w, b, x, labels, l2):
    entropy, cache = cross_entropy_forward(x @ w + b, labels)               # (1), (2)
    return entropy + l2 / 2 * np.vdot(w, w), (w, x, l2, cache)


def probe_backward(dloss, cache):
    w, x, l2, entropy = cache
    dz = cross_entropy_backward(dloss, entropy)                             # (3)
    return x.T @ dz + dloss * l2 * w, dz.sum(axis=0)                        # (4)


w, b = rng.normal(size=(64, 10)), rng.normal(size=10)
np.testing.assert_allclose(probe_forward(w, b, x, labels, 0.1)[0], probe_loop(x, w, b, labels, 0.1))
rows = gradcheck(probe_forward, probe_backward, w, b, x=x[:7], labels=labels[:7], l2=0.1)
print(format_rows("the probe", rows))
assert all(row.ok for row in rows)

# %%
# Equal to scikit-learn
# ---------------------
# This loss has one lowest point, so whoever gets there gets the same weights: no schedule, no luck. (Only b may move, all its
# numbers alike: softmax does not see that.) A general minimiser with our gradient, and scikit-learn's ``LogisticRegression``,
# which ``tinymae.tasks.probe`` uses. It multiplies the sum of the losses by C and leaves the penalty alone: C = 1 / (n l2).

l2 = 1 / first                                                  # C = 1


def value_and_gradient(flat):
    loss, cache = probe_forward(flat[:640].reshape(64, 10), flat[640:], x, labels, l2)
    dw, db = probe_backward(1.0, cache)
    return loss, np.concatenate([dw.ravel(), db])


found = minimize(value_and_gradient, np.zeros(650), jac=True, method="L-BFGS-B", options={"maxiter": 2000, "gtol": 1e-7})
w, b = found.x[:640].reshape(64, 10), found.x[640:]
theirs = LogisticRegression(C=1 / (first * l2), tol=1e-8, max_iter=5000).fit(x, labels)
print(f"largest weight {np.abs(w).max():.3f}, largest difference {np.abs(w.T - theirs.coef_).max():.1e}")
assert np.abs(w.T - theirs.coef_).max() < 0.02 * np.abs(w).max()
unknown = (features[first:] - scale[0]) / scale[1]
assert abs(theirs.score(unknown, test.labels) - np.mean((unknown @ w + b).argmax(axis=1) == test.labels)) < 0.01

# %%
# What are the features good for? Raw pixels win
# ----------------------------------------------
# The same two classifiers, logistic regression and five nearest neighbours, on the features and on the pixels themselves; with
# ten labels for each class (the mean of five draws), and with all of them. On digits of 8 x 8 pixels **the pixels win**: the
# pictures are centred, a pixel means the same in all of them, and 64 numbers are few. (The settings of this lesson were chosen
# with an eye on these test pictures, which flatters the features; they lose all the same.) Where things move about it is the
# other way round: ``python -m tinymae probe`` prints such numbers, the README has CIFAR-10's, and there the features win.

views = {"features": features, "class token": features[:, :32], "mean of patches": features[:, 32:], "raw pixels": pixels}
draws = [few_labels(known, 10, np.random.default_rng(seed)) for seed in range(5)]
results = {}
for name, view in views.items():
    few = [accuracies(view[ids], labels[ids], view[first:], test.labels) for ids in draws]
    every = accuracies(view[:first], labels, view[first:], test.labels)
    results[name] = {key: (np.mean([it[key] for it in few]), every[key]) for key in every}
    linear, knn = results[name]["linear"], results[name]["knn"]
    print(f"{name:16} linear {linear[0]:.1%} with 10 a class, {linear[1]:.1%} with all; k-NN {knn[0]:.1%}, {knn[1]:.1%}")
assert results["features"]["linear"][1] > 0.8
for key in ("linear", "knn"):
    assert all(pixel > it for pixel, it in zip(results["raw pixels"][key], results["features"][key], strict=True))

# %%
# The class token is never trained, so why probe it?
# --------------------------------------------------
# No loss asks it anything: the decoder predicts patches, and what it says for the class token is dropped. But it is not
# untrained. Patches look at it and it looks at patches, in encoder and decoder, so gradient reaches it by attention: it works
# as a scratch pad. The probe above shows that it holds about as much as the mean of the patches; the paper finds both similarly
# good, too (appendix A.1).

small = model.layout_.pictures(pixels)                          # (1797, 8, 8, 1)
_, cache = mae_forward(small[:64], model.params_, model.config_, rng.random((64, 16)))
dparams = mae_backward(1.0, cache)
norms = {path: float(np.linalg.norm(leaf)) for path, leaf in tree.leaves(dparams) if path.endswith("_token")}
print("gradient norms", norms)
token, mean = (results[name]["linear"][1] for name in ("class token", "mean of patches"))
assert norms["encoder.cls_token"] > 0 and abs(token - mean) < 0.1 and token > 0.6

# %%
# Fine-tune or linear probe?
# --------------------------
# A probe asks what the features *are*; fine-tuning asks what they can *become*, in few steps. ``vit_from`` takes the trained
# encoder and a fresh head. *Layer-wise learning-rate decay*: what lies near the pixels is general and should move least, so
# each layer down multiplies its learning rate by 0.75.

encoder = Encoder("mae", model.config_, model.params_)
config, start = vit_from(encoder, 10, np.random.default_rng(1))
rates = dict(tree.leaves(layer_rates(start, config, 0.75)))
for path in ("head.w", "encoder.blocks.1.attn.qkv.w", "encoder.blocks.0.attn.qkv.w", "encoder.patch_embed.w"):
    print(f"{path:30} learning rate times {rates[path]:.3f}")
assert rates["head.w"] == 1 and rates["encoder.patch_embed.w"] == 0.75**3


def fine_tune(start, ids, lr=2e-3, decay=0.75, steps=200, backward=vit_backward):
    rng, params = np.random.default_rng(2), tree.map(np.copy, start)
    optimizer = AdamW(params, weight_decay=0.05, decays=vit_decays(params), rates=layer_rates(params, config, decay))
    losses, right = [], []
    for step in range(steps):
        chosen = ids[rng.integers(len(ids), size=32)]
        loss, cache = vit_forward(small[chosen], labels[chosen], params, config)
        optimizer.step(params, backward(1.0, cache), warmup_cosine(step, steps, steps // 10, lr))
        losses.append(float(loss))
        if (step + 1) % (steps // 10) == 0:
            right.append(np.mean(vit_logits(small[first:], params, config).argmax(axis=1) == test.labels))
    return losses, right


# %%
# With ten labels for each class, and with all. From scratch is the same network with fresh numbers, in the same 200 steps with
# the same learning rate; and once more, with four times as many steps.

scratch = vit_init(config, np.random.default_rng(3))
ten, every = draws[0], np.arange(first)
runs = {}
for name, ids in (("10 a class", ten), ("all labels", every)):
    runs[name] = {
        "fine-tuned": fine_tune(start, ids),
        "fine-tuned, all layers alike": fine_tune(start, ids, decay=1.0),
        "from scratch": fine_tune(scratch, ids, decay=1.0),
        "from scratch, 800 steps": fine_tune(scratch, ids, decay=1.0, steps=800),
    }
    print(name, {way: f"{right[-1]:.1%}" for way, (_, right) in runs[name].items()})
for way in runs.values():
    assert way["fine-tuned"][1][-1] > way["from scratch"][1][-1] + 0.05
lead = {name: way["fine-tuned"][1][-1] - way["from scratch, 800 steps"][1][-1] for name, way in runs.items()}
assert lead["10 a class"] > 0.02 and lead["all labels"] < 0.03

# %%
# So: in the same few steps fine-tuning beats the same network from scratch, with few labels and with many. But look at the last
# number. With all labels and four times as many steps the network from scratch catches up: there pre-training bought speed only
# (and cost 1200 steps of its own). With ten labels a class it does not catch up: there pre-training bought what labels did not.
# Neither beats logistic regression on raw pixels clearly: these pictures hardly need an encoder. Decay or no decay makes no
# clear difference in a network of two layers; try it where you have twelve.

for labels_used, place in (("10 a class", 0), ("all labels", 1)):
    tuned = runs[labels_used]["fine-tuned"][1][-1]
    print(f"{labels_used}: fine-tuned {tuned:.1%}, raw pixels {results['raw pixels']['linear'][place]:.1%}")
    assert tuned < results["raw pixels"]["linear"][place] + 0.03
    assert abs(tuned - runs[labels_used]["fine-tuned, all layers alike"][1][-1]) < 0.08

# %%
# Break it: the encoder under no_grad
# -----------------------------------
# A line that was right for the probe, "no gradient for the encoder", is left in for fine-tuning. The loss falls, since the head
# learns; you measure a probe and call it fine-tuning. (And a poor one: scikit-learn goes to the optimum, 200 steps of AdamW do
# not.) ``gradcheck`` sees it and names it.


def frozen_backward(dloss, cache):
    dparams = vit_backward(dloss, cache)
    return dparams | {"encoder": tree.map(np.zeros_like, dparams["encoder"])}


wide = tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape), start)         # float64, and a head that is not near 0
rows = gradcheck(lambda params, **inputs: vit_forward(params=params, **inputs), frozen_backward, wide, samples=2,
                 images=small[:3].astype(np.float64), labels=labels[:3], config=config)
wrong = [row for row in rows if not row.ok]
print(f"{len(wrong)} of {len(rows)} tensors wrong; {wrong[0].tensor}: {wrong[0].diagnosis}")
assert all(row.ok != row.tensor.startswith("params.encoder") for row in rows) and "no gradient reaches it" in wrong[0].diagnosis
frozen = fine_tune(start, every, backward=frozen_backward)
print(f"encoder frozen by accident {frozen[1][-1]:.1%}, fine-tuned {runs['all labels']['fine-tuned'][1][-1]:.1%}")
assert frozen[1][-1] < runs["all labels"]["fine-tuned"][1][-1]

# %%
# Break it: the test pictures among the neighbours
# ------------------------------------------------
# A leak that no gradient check can see, there is no gradient in it: features of *all* pictures go into the index of a nearest
# neighbour search, and every test picture finds itself. What sees it: a control that must fail. Shuffle the labels; whoever is
# still right has looked the answers up.

nonsense = rng.permutation(data.labels)
leaky = KNeighborsClassifier(1).fit(features, nonsense).score(features[first:], nonsense[first:])
honest = KNeighborsClassifier(1).fit(features[:first], nonsense[:first]).score(features[first:], nonsense[first:])
print(f"labels shuffled: {leaky:.1%} right with the test pictures in the index, {honest:.1%} without (by chance about 10 %)")
assert leaky > 0.95 and honest < 0.2

# %%
# What loss should I see?
# -----------------------
# A fine-tuning run starts at ln 10 like any other: the head is fresh. But it falls at once, where a run from scratch hesitates.
# Two usual ways to go wrong: the encoder does not move, and the loss flattens early; or the learning rate is so high that it
# destroys in a few steps what pre-training has built: the loss jumps, and the lead is gone for long.

curves = {
    "fine-tuned": runs["all labels"]["fine-tuned"],
    "from scratch": runs["all labels"]["from scratch"],
    "encoder frozen by accident": frozen,
    "learning rate 30 times higher": fine_tune(start, every, lr=0.06),
}
for name, (losses, right) in curves.items():
    print(f"{name:30} loss {losses[0]:.3f} -> {np.mean(losses[-20:]):.3f}, right {right[-1]:.1%}")
smooth = {name: (np.arange(10, 201), np.convolve(losses, np.ones(10) / 10, "valid")) for name, (losses, _) in curves.items()}
caption = (
    "How to read it: training loss with all labels, the mean of the last 10 steps. The dashed line is ln 10, a head that knows "
    "nothing. Pre-training shows in the first fifty steps: the fine-tuned run is far below the one from scratch."
)
figure = plot.curves(smooth, "step", "cross entropy", caption, levels={"ln 10": log(10)}, ylim=(0, 3))
print(plot.save(figure, figures / "probe_loss.png"))
assert abs(curves["fine-tuned"][0][0] - log(10)) < 0.05
assert np.mean(curves["fine-tuned"][0][40:50]) < np.mean(curves["from scratch"][0][40:50]) - 0.3
assert max(curves["learning rate 30 times higher"][0][:40]) > log(10)
start_of = {name: np.mean(losses[:100]) for name, (losses, _) in curves.items()}
assert start_of["fine-tuned"] < min(start_of["from scratch"] - 0.2, start_of["learning rate 30 times higher"] - 0.05)

# %%
# And what all this is for, the share of test pictures that are named right:

accuracy = {name: (np.arange(20, 201, 20), right) for name, (_, right) in curves.items()}
levels = {"linear probe, features": results["features"]["linear"][1], "linear, raw pixels": results["raw pixels"]["linear"][1]}
caption = (
    "How to read it: the share of 360 test pictures that are named right, during 200 steps with all labels. The two straight "
    "lines are logistic regression, on the frozen features and on the pixels: on small digits the pixels are hard to beat."
)
figure = plot.curves(accuracy, "step", "right", caption, levels=levels, ylim=(0, 1))
print(plot.save(figure, figures / "probe_accuracy.png"))

# %%
# Exercises
# ---------
# Replace ``None`` and run the cell again; an assert compares at once.

# 1. How many numbers does a linear probe learn on features of width 768 for 1,000 classes?
answer_1 = None
if answer_1 is not None:
    head = vit_init(ViTConfig(), None)["head"]                  # ViT-B's width, ImageNet's classes
    assert answer_1 == tree.count(head), "a weight for each feature and class, and a bias for each class"

# 2. Layer-wise decay 0.65 in ViT-B, 12 layers: by what is the learning rate of the patch embedding multiplied?
answer_2 = None
if answer_2 is not None:
    factor = layer_rates(vit_init(ViTConfig(), None), ViTConfig(), 0.65)["encoder"]["patch_embed"]["w"]
    assert abs(answer_2 - factor) < 1e-6, "once for each layer between it and the head, and once for itself"

# 3. A probe by squared error: y = x w - targets, loss = mean over rows of sum over classes of y * y, (x, y) is the cache. Write
#    its backward: a function (dloss, (x, y)) -> dw.
answer_3 = None
if answer_3 is not None:
    def ridge(w, x, targets):
        y = x @ w - targets
        return np.vdot(y, y) / len(x), (x, y)

    checked = gradcheck(ridge, answer_3, w, x=x[:7], targets=np.eye(10)[labels[:7]])
    assert all(row.ok for row in checked), format_rows("squared error", checked)

# %%
# In the articles
# ---------------
# - Article A, "MAE": asymmetric, with a light decoder. It can be light because it is thrown away; what stays is the encoder, a
#   ViT, and this lesson is what it is then used for.
# - Article A, code: LayerNorm with eps 1e-6. MAE has the same; ``vit_from`` takes it over from the pre-trained model, because
#   another eps would make the encoder another function.
# - Article C, section 2: word embeddings may come from Word2Vec or GloVe. That is the same idea, earlier: learn from data
#   without labels, then use the numbers for another task, frozen or trained on.
