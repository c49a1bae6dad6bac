"""
Linear probe · 线性探测
=======================

A masked autoencoder is trained without a single label. Afterwards its decoder is thrown
away. What are the features of the encoder good for? Freeze them, put a linear
classifier on top, and compare it with one on the raw pixels.

You will be able to write a linear probe and its backward pass, to compare it with
scikit-learn, and to find the test images that leaked into your training set.

Time: 20 minutes to read, 6 seconds to run. Needs: lessons 2, 20 and 29.

Read beside: He et al. 2021, section 4.1 and appendix A.1; article A (MAE:Masked
Autoencoders Are Scalable Vision Learners), "MAE".
"""

# %%
# Grass, gravel or brick?
# -----------------------
# Which of three photographs is a small square cut from? Training images are from the
# left 70 % of each, test images from the rest: no pixel is in both sets. A guess is
# right for a third of them, the nearest neighbour by pixels for about half.

from math import log
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from tinymae import plot
from tinymae.gradcheck import gradcheck
from tinymae.images.labelled import load_labelled
from tinymae.images.pixels import to_pixels
from tinymae.images.sources import load_images
from tinymae.models.mae import mae_backward, mae_forward
from tinymae.tasks.encoders import load_encoder
from tinymae.tasks.probe import accuracies
from tinymae.weights.shipped import shipped

figures, rng = Path("figures"), np.random.default_rng(0)
photos = load_images("photos")[8:11]                            # (512, 512, 3), grey


def crops(photo, count, first, end):
    corners = rng.integers((0, first), (488, end - 24), size=(count, 2))
    return np.stack([photo[r : r + 24, c : c + 24] for r, c in corners])


left = np.concatenate([crops(photo, 300, 0, 358) for photo in photos])
test = np.concatenate([crops(photo, 100, 358, 512) for photo in photos])
labels, t_labels = np.repeat([0, 1, 2], 300), np.repeat([0, 1, 2], 100)
x_pixels = left[..., 0].reshape(900, -1) / 255                  # (900, 576)
t_pixels = test[..., 0].reshape(300, -1) / 255                  # (300, 576)
nearest = KNeighborsClassifier(1).fit(x_pixels, labels).score(t_pixels, t_labels)
print(f"nearest neighbour by pixels: {nearest:.0%} right")
assert 0.35 < nearest < 0.65

# %%
# Why pixels fail, by hand
# ------------------------
# A stripe may be on the left, (1, 0), or on the right, (0, 1). The plain grey image
# (0.5, 0.5) is the mean of the two. Any linear score of it is therefore the mean of
# their scores. If both stripes score high for "stripe", the grey image does, too.

w = np.array([3.0, 2.0])                                        # any two weights
scores = np.array([[1, 0], [0, 1], [0.5, 0.5]]) @ w             # left, right, grey
assert scores.tolist() == [3, 2, 2.5]

# %%
# The features: two vectors for each image
# ----------------------------------------
# The encoder comes with the package. In training 5 to 95 % of the patches were
# hidden; to probe it, none is. Each image gives 1 + 16 vectors: the class token and the
# patches. The features are the class token and the mean of the patches, side by side.
# (It learned from 35 images, and our three are among them, which flatters it.)

encoder = load_encoder(shipped("mae"), img_size=24)
x_features = encoder.features(left)                             # (900, 2 D)
t_features = encoder.features(test)                             # (300, 256)
noise = rng.random((16, 16))                                    # hides 12 patches of 16
_, hiding = mae_forward(to_pixels(left[:16]), encoder.params, encoder.config, noise)
print("features", x_features.shape, "latent in training", hiding["latent"].shape)
assert hiding["latent"].shape == (16, 1 + 4, 128)

# %%
# The probe, as a loop
# --------------------
# The encoder is frozen: its features are just numbers. On them we put one score for
# each class, softmax, cross entropy, and a small penalty on large weights. Features are
# standardised by the mean and standard deviation of the *training* images. With all
# weights zero the three classes are equally likely, and the loss is ln 3 = 1.10.

mean, std = x_features.mean(axis=0), x_features.std(axis=0)
x = (x_features - mean).astype(float) / std                     # (900, 256)
t = (t_features - mean).astype(float) / std                     # (300, 256)


def probe_loop(x, w, b, labels, l2):
    total = 0.0
    for row, label in zip(x, labels, strict=True):
        scores = [float(row @ w[:, c]) + b[c] for c in range(len(b))]
        total += log(sum(np.exp(score) for score in scores)) - scores[label]
    return total / len(x) + l2 / 2 * float((w * w).sum())


assert abs(probe_loop(x, np.zeros((256, 3)), np.zeros(3), labels, 0.1) - log(3)) < 1e-9

# %%
# Vectorised, with its backward
# -----------------------------
# With n images, and q the matrix that is 1 at each label and 0 elsewhere:
#
# .. math::
#
#    z = x w + b \; (1) \qquad p = softmax(z) \; (2) \qquad
#    loss = -\frac{1}{n} \sum_i \log p_{i, label_i}
#    + \frac{\lambda}{2} \|w\|^2 \; (3)
#
#    dz = dloss \, (p - q) / n \; (4) \qquad
#    dw = x^T dz + dloss \, \lambda w, \quad db = \sum_i dz_i \; (5)
#
# The weights are used twice, in the scores and in the penalty, so dw has two terms. The
# features receive no gradient: they are *frozen*.


def probe_forward(w, b, x, labels, l2):
    z = x @ w + b                                               # (n, classes)  (1)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)                                # (2)
    entropy = -np.log(p[np.arange(len(x)), labels]).mean()
    return entropy + l2 / 2 * (w * w).sum(), (w, x, labels, l2, p)      # (3)


def probe_backward(dloss, cache):
    w, x, labels, l2, p = cache
    q = np.eye(p.shape[1])[labels]                              # (n, classes)
    dz = dloss * (p - q) / len(x)                                       # (4)
    return x.T @ dz + dloss * l2 * w, dz.sum(axis=0)                    # (5)


w, b = rng.normal(size=(256, 3)), rng.normal(size=3)
loss, _ = probe_forward(w, b, x, labels, 0.1)
np.testing.assert_allclose(loss, probe_loop(x, w, b, labels, 0.1))
ten = {"x": x[::90], "labels": labels[::90], "l2": 0.1}
assert all(row.ok for row in gradcheck(probe_forward, probe_backward, w, b, **ten))

# %%
# Equal to scikit-learn
# ---------------------
# scikit-learn's ``LogisticRegression`` multiplies the *sum* of the losses by C and
# leaves the penalty alone, so C = 1 / (n l2). With the penalty the loss is convex and
# has one minimum, where the gradient is zero: no learning rate to choose, no luck. At
# scikit-learn's weights our gradient is zero.

theirs = LogisticRegression(C=1, tol=1e-8, max_iter=5000).fit(x, labels)
w, b = theirs.coef_.T, theirs.intercept_                        # (256, 3), (3,)
loss, cache = probe_forward(w, b, x, labels, 1 / 900)
dw, db = probe_backward(1.0, cache)
print(f"loss {loss:.3f}, largest gradient {np.abs(dw).max():.0e}")
assert max(np.abs(dw).max(), np.abs(db).max()) < 1e-5

# %%
# The rival: raw pixels
# ---------------------
# The same classifier on the features and on the pixels, with 5 to 300 labels for each
# class. The features win: a texture has no fixed position, so one pixel says little. On
# handwritten digits **the pixels win**: the digits are centred, one pixel means the
# same in all of them, and this encoder learned from photographs. Features are good for
# some tasks. Without the comparison you would not know for which.

counts, curves = (5, 30, 100, 300), {}
views = {"features": (x_features, t_features), "raw pixels": (x_pixels, t_pixels)}
for name, (view, t_view) in views.items():
    few = [np.arange(900) % 300 < count for count in counts]    # of 300 a class
    right = [accuracies(view[it], labels[it], t_view, t_labels)["linear"] for it in few]
    curves[name] = (counts, right)
    print(name, [f"{value:.0%}" for value in right])
caption = "How to read it: the left end of the upper line is above the lower line."
options = {"xscale": "log", "ylim": (0, 1), "levels": {"guessing": 1 / 3}}
figure = plot.curves(curves, "labels for each class", "accuracy", caption, **options)
print(plot.save(figure, figures / "probe_accuracy.png"))
assert min(curves["features"][1]) > max(curves["raw pixels"][1]) + 0.1

data = load_labelled("digits")                                  # (1797, 8, 8, 1)
digits, numbers = data.images[::3], data.labels[::3]            # 599 are enough
right = []
for view in (encoder.features(digits), digits.reshape(599, -1)):
    found = accuracies(view[:480], numbers[:480], view[480:], numbers[480:])
    right.append(found["linear"])
print(f"digits: features {right[0]:.0%}, raw pixels {right[1]:.0%}")
assert right[1] > right[0] + 0.05

# %%
# The class token is never trained, so why probe it?
# --------------------------------------------------
# The decoder predicts patches. What it computes at the class token's position is
# dropped: no loss depends on it directly. But the token *is* trained: patches attend
# to it, so gradient reaches it through attention. Here it is nearly as good as the
# mean of the patches. He et al. find the two similarly good (appendix A.1).

dtoken = mae_backward(1.0, hiding)["encoder"]["cls_token"]      # (1, 1, D)
token = accuracies(x[:, :128], labels, t[:, :128], t_labels)["linear"]
patches = accuracies(x[:, 128:], labels, t[:, 128:], t_labels)["linear"]
print(f"class token {token:.0%}, mean of the patches {patches:.0%}")
assert np.linalg.norm(dtoken) > 1e-4 and token > 0.7 and abs(token - patches) < 0.12

# %%
# Break it: the test images among the neighbours
# ----------------------------------------------
# The features of *all* images go into the index of a nearest neighbour search, so each
# test image finds itself. No gradient check can see this leak. A control that must fail
# sees it: shuffle the labels. A classifier that is still right has looked them up.

everything = np.concatenate([x, t])                             # (1200, 256)
nonsense = rng.integers(3, size=1200)
leaky = KNeighborsClassifier(1).fit(everything, nonsense).score(t, nonsense[900:])
honest = KNeighborsClassifier(1).fit(x, nonsense[:900]).score(t, nonsense[900:])
print(f"random labels: {leaky:.0%} with the leak, {honest:.0%} without")
assert leaky > 0.95 and honest < 0.45

# %%
# Exercises
# ---------
# 1. Which l2 belongs to ``LogisticRegression(C=10)`` on the 900 training images?
# 2. A probe by squared error: y = x w - targets, loss = sum of y * y over everything,
#    divided by the number of rows. Write its backward: ``answer_2(dloss, (x, y))``.

answer_1 = None
if answer_1 is not None:
    other = LogisticRegression(C=10, tol=1e-8, max_iter=5000).fit(x, labels)
    _, cache = probe_forward(other.coef_.T, other.intercept_, x, labels, answer_1)
    assert np.abs(probe_backward(1.0, cache)[0]).max() < 1e-5, "not at its minimum"

answer_2 = None
if answer_2 is not None:
    def ridge(w, x, targets):
        y = x @ w - targets
        return (y * y).sum() / len(x), (x, y)

    rows = gradcheck(ridge, answer_2, w, x=x[:7], targets=np.eye(3)[labels[:7]])
    assert all(row.ok for row in rows), "y depends on w through x"

# %%
# In the articles
# ---------------
# - **A, "MAE"**: the encoder gives "每个块的特征", features of each patch. In training
#   these are the visible patches only, 4 of 16 above; a probe hides nothing: "The
#   features: two vectors for each image".
