"""
ViT: a patch is a word · ViT：图像块就是词
==========================================

A Transformer reads words. A photograph of 224 x 224 pixels has 50,176 of them, if a pixel is a word, and attention compares
each with each. What else can be a word? And what goes wrong where the words are cut badly, or where nobody says which of them
stood where?

Read beside: Dosovitskiy et al. 2020, section 3.1; article A ("ViT"), article B (the input [7, 257, 512]).
"""

# %%
# A patch is a word, as a loop
# ----------------------------
# Cut the picture into squares of 16 x 16 pixels, from left to right and from top to bottom, and read each square as one long
# row of numbers. That row is the word: "16 x 16" is the size of a word in pixels, not the number of words.

from math import log
from pathlib import Path

import numpy as np
from scipy.signal import correlate
from threadpoolctl import threadpool_limits

from tinymae import plot, tree
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.images.pixels import to_pixels
from tinymae.images.resize import resize_picture
from tinymae.images.sources import digits, load_images
from tinymae.models import attention_maps, fine_tuning, patch_encoder, vit
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.patches import patchify_backward, patchify_forward, unpatchify
from tinymae.tasks.classify import image_batches
from tinymae.train.loop import endless
from tinymae.train.optim import AdamW, warmup_cosine

threadpool_limits(1, "blas")                                    # for matrices this small one thread is faster than several
figures, rng = Path("figures"), np.random.default_rng(0)

# %%
# The photograph is scikit-learn's temple, its central square scaled to 224 x 224 pixels.


def patchify_loop(image, p):
    words = []
    for top in range(0, image.shape[0], p):
        for left in range(0, image.shape[1], p):
            words.append(image[top : top + p, left : left + p].ravel())         # in the order row, column, channel
    return np.array(words)                                      # (N, P)


temple = load_images("photos")[0]                               # (427, 640, 3) uint8
photo = to_pixels(resize_picture(temple, 224), np.float64)[None]
words = patchify_loop(photo[0], 16)[None]
times = (224 * 224) ** 2 // words.shape[1] ** 2
print(f"{photo.shape} -> {words.shape}; {224 * 224:,} pixels as words: an attention matrix {times:,} times larger")
assert words.shape == (1, 196, 768) and times == 16**4

# %%
# Vectorised: split both sides, then transpose
# --------------------------------------------
# A reshape cuts each side into (which patch, where in the patch); the transpose brings both "which patch" to the front. No
# number changes, so the way back is exact: ``unpatchify``.


def patchify(images, p):
    batch, rows, cols, channels = images.shape
    x = images.reshape(batch, rows // p, p, cols // p, p, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)                           # (B, grid rows, grid cols, p, p, C)
    return x.reshape(batch, -1, p * p * channels)


assert np.array_equal(patchify(photo, 16), words) and np.array_equal(patchify_forward(photo, 16)[0], words)
assert np.array_equal(unpatchify(words, 16, (14, 14)), photo)

# %%
# The same as a convolution with stride 16
# ----------------------------------------
# Every word goes through the same linear map, the patch embedding. Published code writes it as a convolution whose kernel is as
# large as a patch and moves on by a whole patch: the same products, the same sums. (What networks call a convolution is SciPy's
# ``correlate``: the kernel is not turned round.)

w, b = rng.normal(size=(768, 4)), rng.normal(size=4)
kernels = w.reshape(16, 16, 3, 4)
maps = [correlate(photo[0], kernels[..., j], mode="valid")[::16, ::16, 0] for j in range(4)]    # (14, 14) each
convolved = np.stack(maps, axis=-1).reshape(1, 196, 4) + b
np.testing.assert_allclose(linear_forward(words, w, b)[0], convolved, atol=1e-9)

# %%
# [7, 257, 512]
# -------------
# Article B's example, with real pictures: 7 pieces of the temple, 256 x 256 pixels each. 16 x 16 = 256 words, and one more in
# front that is no patch: the *class token*, a learned row, the same for all pictures. It asks the others, and the classifier
# reads the picture from it.

seven = to_pixels(np.stack([temple[:256, left : left + 256] for left in range(0, 385, 64)]))
config = vit.ViTConfig(img_size=256, embed_dim=512, depth=1, num_heads=8)
params = vit.vit_init(config, rng)
latent = patch_encoder.encoder_features(seven, params["encoder"], params["positions"], heads=8, patch_size=config.patch_size)
print(f"{seven.shape} -> {latent.shape}: batch, class token + {config.grid[0]} x {config.grid[1]} patches, width")
assert latent.shape == (7, 257, 512)

# %%
# From pictures to tokens, and back
# ---------------------------------
# The forward is (1) to (3); the backward reads it upwards, (4) to (7). Class token and positions are the same for every picture
# of the batch: their gradients are sums over it. (6) is (2) to (4) of ``ops.linear``. (1) only moves numbers, and (7) moves
# their gradients back.
#
# .. math::
#
#    patches = patchify(images) \quad (1) \qquad x = patches\, w + b \quad (2)
#
#    y = [cls\_token;\; x + positions] \quad (3)
#
#    dcls\_token = \sum_b dy_{b,0} \quad (4) \qquad dx_{b,n} = dy_{b,1+n}, \quad dpositions = \sum_b dx_b \quad (5)
#
#    dpatches = dx\, w^T, \quad dw = patches^T dx, \quad db = \sum dx \quad (6) \qquad dimages = unpatchify(dpatches) \quad (7)


def embed_forward(images, w, b, cls_token, positions, patch_size):
    patches, cut = patchify_forward(images, patch_size)                     # (1)  (B, N, P)
    x, linear = linear_forward(patches, w, b)                               # (2)  (B, N, D)
    cls_token = np.broadcast_to(cls_token, (len(x), 1, x.shape[2]))
    return np.concatenate([cls_token, x + positions], axis=1), (cut, linear)    # (3)  (B, 1 + N, D)


def embed_backward(dy, cache):
    cut, linear = cache
    dcls_token = dy[:, :1].sum(axis=0, keepdims=True)                       # (4)
    dx = dy[:, 1:]
    dpositions = dx.sum(axis=0)                                             # (5)
    dpatches, dw, db = linear_backward(dx, linear)                          # (6)
    return patchify_backward(dpatches, cut), dw, db, dcls_token, dpositions     # (7)


# %%
# gradcheck
# ---------
# Sizes that differ: 2 pictures of 6 x 4 pixels, 3 channels, patches of 2 x 2, so N = 6, P = 12; D = 5.

shapes = (2, 6, 4, 3), (12, 5), (5,), (1, 1, 5), (6, 5)
images, w, b, cls_token, positions = (rng.normal(size=shape) for shape in shapes)
rows = gradcheck(embed_forward, embed_backward, images, w, b, cls_token, positions, patch_size=2)
print(format_rows("patch embedding", rows))
assert all(row.ok for row in rows)

# %%
# Equal to the package: an encoder of no layers is exactly these tokens.

encoder = {"patch_embed": {"w": w, "b": b}, "cls_token": cls_token, "blocks": []}
y, ours = embed_forward(images, w, b, cls_token, positions, 2)
latent, theirs = patch_encoder.vit_encoder_forward(patchify(images, 2), encoder, positions, heads=1)
np.testing.assert_allclose(latent, y)
_, dw, _, _, dpositions = embed_backward(y, ours)               # any dy will do: y itself
_, dencoder, dtable = patch_encoder.vit_encoder_backward(y, theirs)
np.testing.assert_allclose(dw, dencoder["patch_embed"]["w"])
np.testing.assert_allclose(dpositions, dtable)

# %%
# Break it: reshape without the transpose
# ---------------------------------------
# ``images.reshape(B, N, P)`` gives the right shape, and words that are strips one pixel high. A gradient check is blind to it:
# the backward is the true derivative of the wrong forward. The loop above sees it at once, and so does anybody who looks.

pictures, labels = digits()                                     # (1797, 8, 8, 1) uint8, (1797,)


def strips(images, p):
    return images.reshape(len(images), -1, p * p * images.shape[3])


rows = gradcheck(lambda x: (strips(x, 2), x.shape), lambda dy, shape: dy.reshape(shape), images)
assert all(row.ok for row in rows)
assert not np.array_equal(strips(photo, 16), words) and strips(photo, 16).shape == words.shape
digit = pictures[:1] / 255
panels = {"the picture": digit[..., 0], "its 16 words": patchify(digit, 2), "without the transpose": strips(digit, 2)}
caption = (
    "How to read it: left a digit of 8 x 8 pixels; in the middle the sentence that the model reads, a row for each patch of "
    "2 x 2, from top left to bottom right, its columns the 4 pixels of the patch. Right the same pixels cut without the "
    "transpose: a row is half a line of the picture."
)
panels = [plot.Panel(title, array[0]) for title, array in panels.items()]
print(plot.save(plot.heatmaps(panels, "column", "row", caption), figures / "vit_patches.png"))

# %%
# The other classic: channels first, as PyTorch has them. The model refuses the shape. Mend it with ``np.moveaxis(x, 1, -1)``,
# not with ``reshape``, which moves no number: the shape would be right, and the picture confetti.

try:
    vit.vit_logits(np.moveaxis(seven, -1, 1), params, config)
except ValueError as error:
    refused = str(error)
    print(refused)
assert "channels first" in refused

# %%
# What loss should I see?
# -----------------------
# scikit-learn's digits, 16 patches of 2 x 2 pixels, two layers. The first loss is ln(number of classes), 2.303 for ten: the
# head starts near zero, so that every class gets the same share. A first loss well above that is a bad initialisation. (The
# settings of this lesson were chosen with an eye on the 360 test pictures, which flatters the share that is right a little.)

size = vit.ViTConfig(img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=32, depth=2, num_heads=4)
pixels, test = to_pixels(pictures), to_pixels(pictures[1437:])  # the last 360 are for testing


def train(images, labels, lr=3e-3, steps=320, bag=False):
    params = vit.vit_init(size, np.random.default_rng(1))
    params["positions"] *= not bag                              # a bag of patches: the table is zero and stays zero
    optimizer = AdamW(params, weight_decay=0.05, decays=fine_tuning.vit_decays(params))
    losses, batches = [], endless(lambda epoch: image_batches(1437, 32, 2, epoch))
    for step in range(steps):
        ids = next(batches)
        loss, cache = vit.vit_forward(images[ids], labels[ids], params, size)
        dparams = vit.vit_backward(1.0, cache)
        dparams["positions"] *= not bag
        optimizer.step(params, dparams, warmup_cosine(step, steps, steps // 20, lr))
        losses.append(float(loss))
    right = vit.vit_logits(images[1437:], params, size).argmax(axis=1) == labels[1437:]
    return params, losses, right.mean()


good, losses, right = train(pixels, labels)
print(f"loss {losses[0]:.4f} -> {np.mean(losses[-50:]):.3f}, ln 10 = {log(10):.4f}; right on {right:.1%} of 360 unseen digits")
assert abs(losses[0] - log(10)) < 0.01 and np.mean(losses[-50:]) < 0.5 and right > 0.8

# %%
# Four usual ways to go wrong, and one that looks wrong and trains all the same:
#
# - *no positions*: falls more slowly, and what is learned is worth less on new digits;
# - *learning rate 30 times too high*: jumps above ln 10, stays near it for long, and ends high, if it comes down at all;
# - *labels shuffled against the pictures* (one of the two was sorted): stays at ln 10, new digits are right one time in ten;
# - *pixels from 0 to 255*, not moved around 0 and scaled: fast at first, then overtaken;
# - *words cut without the transpose*: about as good. They are other words, but the same ones every time. "It learns" is no
#   proof that a patch is a patch: you notice with weights from somebody who cut correctly.

bag, bag_losses, bag_right = train(pixels, labels, bag=True)
runs = {"as it should be": (losses, right), "no positions": (bag_losses, bag_right)}
runs["learning rate 0.09"] = train(pixels, labels, 0.09)[1:]
runs["labels shuffled"] = train(pixels, rng.permutation(labels))[1:]
runs["pixels 0..255"] = train(pictures.astype(np.float32), labels)[1:]
runs["cut without transpose"] = train(unpatchify(strips(pixels, 2), 2, (4, 4)), labels)[1:]     # its patches are the strips
ends = {name: np.mean(curve[-50:]) for name, (curve, _) in runs.items()}
for name, end in ends.items():
    print(f"{name:22} last loss {end:.3f}, right {runs[name][1]:.1%}")
assert ends["as it should be"] + 0.1 < min(ends["no positions"], ends["learning rate 0.09"], ends["pixels 0..255"])
assert abs(ends["labels shuffled"] - log(10)) < 0.2 and runs["labels shuffled"][1] < 0.25
assert runs["cut without transpose"][1] > 0.75 and np.mean(runs["pixels 0..255"][0][:60]) < np.mean(losses[:60])
assert max(runs["learning rate 0.09"][0]) > 2.4

# %%
# The curves. With 32 pictures in a batch single losses jump: each point is the mean of 20 steps.

smooth = {name: (np.arange(20, 321), np.convolve(curve, np.ones(20) / 20, "valid")) for name, (curve, _) in runs.items()}
caption = (
    "How to read it: training loss, the mean of the last 20 steps. The dashed line is ln 10, the loss of a model that knows "
    "nothing. A healthy run leaves it in the first tenth and keeps falling; see where the others leave it, and where they end."
)
figure = plot.curves(smooth, "step", "cross entropy", caption, levels={"ln 10": log(10)}, ylim=(0, 2.6))
print(plot.save(figure, figures / "vit_loss.png"))

# %%
# Break it: no positions
# ----------------------
# Attention and feed forward treat all words alike. Without positions a picture is a bag of patches: shake it, and the model
# says the same, but for rounding. No check of shapes or gradients minds; this permutation is the check.

shaken = unpatchify(patchify(test, 2)[:, rng.permutation(16)], 2, (4, 4))
np.testing.assert_allclose(vit.vit_logits(shaken, bag, size), vit.vit_logits(test, bag, size), atol=1e-3)
shaken_right = (vit.vit_logits(shaken, good, size).argmax(axis=1) == labels[1437:]).mean()
print(f"with positions {right:.1%}, in another order {shaken_right:.1%}; without positions {bag_right:.1%} in any order")
assert bag_right < right - 0.05 and shaken_right < right - 0.2

# %%
# Where it looks
# --------------
# The class token's attention in the last layer, and that of one patch. Then the *rollout*: the attention of all layers
# multiplied, with half of each token kept for the residual. It estimates how much of each patch reaches the class token; it
# follows attention alone, so read it as a hint, not as an explanation.

attentions = attention_maps.vit_attention(test[:6], good, size)            # of each layer (B, H, 17, 17)
last = attentions[-1][0]                                        # (H, 17, 17) of the first digit
figure = plot.attention_over_picture(pictures[1437], last[:, 0, 1:], last[:, 1 + 6, 1:], 6, (4, 4))
print(plot.save(figure, figures / "vit_attention.png"))
rollout = attention_maps.attention_rollout(attentions)                     # (B, 17, 17)
np.testing.assert_allclose(rollout.sum(axis=-1), 1, atol=1e-4)  # every row shares out a whole
figure = plot.rollout_over_pictures(pictures[1437:1443], rollout[:, 0, 1:], (4, 4))
print(plot.save(figure, figures / "vit_rollout.png"))

# %%
# Exercises
# ---------
# Replace ``None`` and run the cell again; an assert compares at once.

# 1. How many numbers are learned in the linear map of the patch embedding of ViT-B/16 (16 x 16 pixels, 3 channels, width 768)?
answer_1 = None
if answer_1 is not None:
    patch_embed = vit.vit_init(vit.ViTConfig(), None)["encoder"]["patch_embed"]
    assert answer_1 == tree.count(patch_embed), "one matrix (P, D) and one bias (D,), the same for all patches"

# 2. Write unpatchify as a loop: a function (patches (B, N, P), p, grid) -> images (B, rows, cols, C).
answer_2 = None
if answer_2 is not None:
    some = np.random.default_rng(3).normal(size=(2, 6, 12))
    assert np.array_equal(answer_2(some, 2, (3, 2)), unpatchify(some, 2, (3, 2))), "the grid has 3 rows, 2 columns of patches"

# 3. Some ViTs classify by the mean of the patches, without the class token. Write its backward: a function
#    (dpooled (B, D), shape of latent (B, 1 + N, D)) -> dlatent.
answer_3 = None
if answer_3 is not None:
    checked = gradcheck(lambda latent: (latent[:, 1:].mean(axis=1), latent.shape), answer_3, np.ones((2, 6, 3)))
    assert all(row.ok for row in checked), format_rows("mean of the patches", checked)

# %%
# In the articles
# ---------------
# - Article A, "ViT": image, 16 x 16 patches, "a patch is a word": the first sections here. That 16 counts the pixels along a
#   patch; a photograph of 224 x 224 then has 14 x 14 words.
# - Article B, example: [7, 257, 512] is batch, 256 patches and the class token, width. Here the section of that name makes such
#   a tensor. Article B's ``to_qkv`` has no bias; the attention of ViT, and ours here, has one.
# - Article A, part 1: the order of words matters (吃饭没, 没吃饭, 没饭吃). So does that of patches: "Break it: no positions".
#   ViT learns its table of positions; MAE, the next lesson, takes fixed sines and cosines.
