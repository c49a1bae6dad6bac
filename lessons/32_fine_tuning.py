"""
Fine-tuning · 微调
==================

You have a trained encoder and ten labelled images for each class. A linear probe leaves
the encoder as it is; fine-tuning goes on training all of it. Which is better? And what
do He et al. do so that few labels do not destroy what the encoder has learned?

You will be able to build a classifier on a trained encoder, to give each layer its own
learning rate, and to notice that an encoder is frozen by accident.

Time: 20 minutes to read, 8 seconds to run. Needs: lesson 31.

Read beside: He et al. 2021, section 4.3, figure 9 and appendix A; article A (MAE:Masked
Autoencoders Are Scalable Vision Learners), code; article C (Transformer模型详解), 2.1.
"""

# %%
# Ten labels for each class
# -------------------------
# The task of lesson 31: is it grass, gravel or brick? A linear head on the mean of the
# patches learns 387 numbers from 30 labelled images: 128 weights for each class, and
# three biases. (The probe of lesson 31 has 771, for twice as many features.) The
# encoder has 807,168 parameters. Can 30 images train those without harm?

from pathlib import Path

import numpy as np

from tinymae import plot, tree
from tinymae.gradcheck import gradcheck
from tinymae.images.pixels import to_pixels
from tinymae.images.sources import load_images
from tinymae.models import vit
from tinymae.models.fine_tuning import layer_rates, vit_decays
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward
from tinymae.tasks.classify import vit_from
from tinymae.tasks.encoders import load_encoder
from tinymae.tasks.probe import accuracies
from tinymae.train.optim import AdamW, warmup_cosine
from tinymae.weights.shipped import shipped

rng = np.random.default_rng(0)
photos = load_images("photos")[8:11]                            # (512, 512, 3), grey


def crops(photo, count, first, end):
    corners = rng.integers((0, first), (488, end - 24), size=(count, 2))
    return np.stack([photo[r : r + 24, c : c + 24] for r, c in corners])


left = np.concatenate([crops(photo, 300, 0, 358) for photo in photos])
test = np.concatenate([crops(photo, 100, 358, 512) for photo in photos])
labels, t_labels = np.repeat([0, 1, 2], 300), np.repeat([0, 1, 2], 100)
x, t = to_pixels(left), to_pixels(test)                         # (900, 24, 24, 3), 300
every = np.arange(900)
ten = every[every % 300 < 10]                                   # 30 images

# %%
# Mean pooling, as a loop
# -----------------------
# A classifier needs one vector for each image. The fine-tuning code of He et al. takes
# the mean of the patches, not the class token, and puts a fresh layer norm after it.
#
# .. math::
#
#    m = \frac{1}{N} \sum_{n=1}^{N} latent_n \; (1) \quad y = layernorm(m) \; (2)
#    \quad dlatent_n = dm / N \; (3) \quad dlatent_0 = 0 \; (4)
#
# Position 0 is the class token. It is left out of the mean, so its gradient is zero.


def pool_loop(latent):
    means = np.zeros((len(latent), latent.shape[2]))            # (B, D)
    for image, mean in zip(latent, means, strict=True):
        for patch in image[1:]:
            mean += patch / (len(image) - 1)
    return means


def pool_forward(latent, gamma, beta):
    mean = latent[:, 1:].mean(axis=1)                           # (B, D)
    y, norm = layernorm_forward(mean, gamma, beta)                      # (1), (2)
    return y, (latent.shape, norm)


def pool_backward(dy, cache):
    shape, norm = cache
    dmean, dgamma, dbeta = layernorm_backward(dy, norm)                 # (B, D)
    dlatent = np.zeros(shape)                                           # (4)
    dlatent[:, 1:] = dmean[:, None] / (shape[1] - 1)                    # (3)
    return dlatent, dgamma, dbeta


latent = rng.normal(size=(2, 5, 4))                             # B = 2, N = 4, D = 4
gamma, beta = rng.normal(size=(2, 4))
np.testing.assert_allclose(latent[:, 1:].mean(axis=1), pool_loop(latent))
rows = gradcheck(pool_forward, pool_backward, latent, gamma, beta)
assert all(row.ok for row in rows)

# %%
# A trained encoder and a fresh head
# ----------------------------------
# ``vit_from`` copies the encoder, and puts mean pooling and a fresh head on it. The
# head starts near 0, so all classes are equally likely, and the first loss is ln 3. The
# model was trained on 48 x 48 pixels; its positions are interpolated for 24 x 24.

encoder = load_encoder(shipped("mae"))
config, start = vit_from(encoder, 3, np.random.default_rng(1), {"img_size": 24})
scratch = vit.vit_init(config, np.random.default_rng(3))        # the same, untrained
first, _ = vit.vit_forward(x[ten], labels[ten], start, config)
assert abs(first - np.log(3)) < 0.01 and config.eps == encoder.config.eps == 1e-6
assert tree.count(start["head"]) == 387 and tree.count(start["encoder"]) == 807168

# %%
# Layer-wise decay of the learning rate
# -------------------------------------
# Layers near the pixels find what is general: edges, shades. They should change least.
# So each layer has its own learning rate: the head's is the full one, and each layer
# further down multiplies it by a decay, 0.75 here. This is not weight decay.

by_hand, rate = {}, 1.0                                         # the head
for layer in (3, 2, 1, 0):
    rate *= 0.75
    by_hand[f"encoder.blocks.{layer}.attn.qkv.w"] = rate
by_hand["encoder.patch_embed.w"] = rate * 0.75
packaged = dict(tree.leaves(layer_rates(start, config, 0.75)))
for path, rate in by_hand.items():
    print(f"{path:30} learning rate times {rate:.3f}")
    assert abs(packaged[path] - rate) < 1e-12

# %%
# The training loop
# -----------------
# It is that of any classifier; only ``rates`` is new. A network from scratch has no
# features to protect. It gets no decay, and a smaller learning rate that suits it. How
# far does each layer move? With decay the lower ones stay closer to where they were.


def train(start, chosen, lr, decay, steps=45, backward=vit.vit_backward):
    rng, params = np.random.default_rng(2), tree.map(np.copy, start)
    rates = layer_rates(params, config, decay)
    optimizer = AdamW(params, weight_decay=0.05, decays=vit_decays(params), rates=rates)
    losses = []
    for step in range(steps):
        batch = chosen[rng.integers(len(chosen), size=8)]
        loss, cache = vit.vit_forward(x[batch], labels[batch], params, config)
        gradient = backward(1.0, cache)
        optimizer.step(params, gradient, warmup_cosine(step, steps, steps // 10, lr))
        losses.append(float(loss))
    right = vit.vit_logits(t, params, config).argmax(axis=1) == t_labels
    return losses, right.mean(), params


tuned = train(start, ten, 0.004, 0.75)
alike = train(start, ten, 0.004, 1.0)
for path in list(by_hand)[1:]:
    w, *now = [dict(tree.leaves(p))[path] for p in (start, tuned[2], alike[2])]
    moved, free = [np.linalg.norm(it - w) / np.linalg.norm(w) for it in now]
    print(f"{path:30} moved {moved:.0%}, without decay {free:.0%}")
    assert moved < free

# %%
# Fine-tune or linear probe?
# --------------------------
# A probe asks what the features *are*; fine-tuning asks what they can *become*. With 10
# labels a class fine-tuning is above the same net from scratch. Another draw of labels
# moves each accuracy by several points: too much to say whether a probe is better. With
# 300, 45 steps of 8 images do not beat a probe at its minimum. Given ImageNet and 50
# epochs, fine-tuning is far ahead (He et al., section 4.3). Read our numbers with care:
# learning rates were chosen by these test images, and the encoder has seen the three
# photographs, test part included, without labels. That flatters it.

small = load_encoder(shipped("mae"), img_size=24)
features = small.features(left)[:, 128:]                        # mean of the patches
t_features = small.features(test)[:, 128:]
few = accuracies(features[ten], labels[ten], t_features, t_labels)["linear"]
many = accuracies(features, labels, t_features, t_labels)["linear"]
untrained = train(scratch, ten, 0.001, 1.0)
longer = train(start, every, 0.004, 0.75)
print(f"10 each: probe {few:.0%}, tuned {tuned[1]:.0%}, scratch {untrained[1]:.0%}")
print(f"300 each: probe {many:.0%}, tuned {longer[1]:.0%}")
assert untrained[1] < tuned[1] and longer[1] < many + 0.05

# %%
# Break it: an encoder that is frozen by accident
# -----------------------------------------------
# A line that was right for the probe, "no gradient for the encoder", is left in. The
# loss still falls, since the head learns. You measure a slow probe and call it
# fine-tuning. "Did the weights change?" is no test: weight decay changes them without
# any gradient. The gradient check, on a tiny classifier, names the encoder's tensors.


def frozen_backward(dloss, cache):
    dparams = vit.vit_backward(dloss, cache)
    return dparams | {"encoder": tree.map(np.zeros_like, dparams["encoder"])}


tiny = vit.ViTConfig(4, 2, 1, 3, 8, 1, 2, pool="mean")          # one layer, D = 8
wide = tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape), vit.vit_init(tiny, None))
batch = rng.normal(size=(3, 4, 4, 1)), np.array([0, 1, 2])
rows = gradcheck(lambda p: vit.vit_forward(*batch, p, tiny), frozen_backward, wide)
wrong = [row for row in rows if not row.ok]
print(f"{len(wrong)} of {len(rows)} tensors are wrong: {wrong[0].diagnosis}")
assert all(".encoder." in row.tensor for row in wrong) and len(wrong) > 10
frozen = train(start, ten, 0.004, 0.75, backward=frozen_backward)
before, after = [p["encoder"]["patch_embed"]["w"] for p in (start, frozen[2])]
assert not np.array_equal(before, after)                        # weight decay

# %%
# What loss should I see?
# -----------------------
# Every run starts near ln 3, since the head is fresh. The fine-tuned run comes near 0
# on its 30 images. The frozen one falls slowly and stays high: that is the sign.

runs = {"fine-tuned": tuned, "from scratch": untrained, "frozen by accident": frozen}
curves = {}
for name, (losses, right, _) in runs.items():
    print(f"{name}: last loss {np.mean(losses[-8:]):.2f}, {right:.0%} right")
    curves[name] = (np.arange(8, 46), np.convolve(losses, np.ones(8) / 8, "valid"))
caption = "How to read it: near 0 a model fits its 30 images. Each point: 8 steps."
figure = plot.curves(curves, "step", "loss", caption, levels={"ln 3": np.log(3)})
print(plot.save(figure, Path("figures") / "fine_tuning_loss.png"))
assert np.mean(frozen[0][-8:]) > np.mean(tuned[0][-8:]) + 0.3

# %%
# Exercises
# ---------
# 1. Layer-wise decay 0.65 in ViT-B, 12 layers: which factor for the patch embedding?
# 2. Pool by the class token instead: y = latent[:, 0]. Write the backward,
#    ``answer_2(dy, shape) -> dlatent``, with shape (B, 1 + N, D).

answer_1 = None
if answer_1 is not None:
    deep = vit.ViTConfig()                                      # ViT-B/16
    factors = layer_rates(vit.vit_init(deep, None), deep, 0.65)
    assert abs(answer_1 - factors["encoder"]["patch_embed"]["w"]) < 1e-6, "12 and 1"

answer_2 = None
if answer_2 is not None:
    rows = gradcheck(lambda z: (z[:, 0], z.shape), answer_2, latent)
    assert all(row.ok for row in rows), "only the class token is used"

# %%
# In the articles
# ---------------
# - **A, code**: LayerNorm with eps 1e-6. MAE has the same, and a classifier must keep
#   it: "A trained encoder and a fresh head".
# - **C, 2.1**: word vectors from Word2Vec or GloVe are the same idea, earlier: learn
#   without labels, then freeze the result or train it further.
