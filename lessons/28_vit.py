"""
ViT: an image becomes tokens · ViT：图像变成词元
================================================

A Transformer reads tokens. With a token for each of the 50,176 pixels of a small
photograph, the attention weights of one head fill 10 GB. What else can be a token?

You will be able to cut images into patches without a loop, to say what each number of
[7, 257, 512] counts, and to recognise patches that were cut in the wrong order.

Time: 20 minutes to read, 6 seconds to run.
Needs: lesson 14.

Read beside: Dosovitskiy et al. 2020, section 3.1; article A (MAE:Masked Autoencoders
Are Scalable Vision Learners), "Vit"; article B (「解析」Attention 关键点), [7, 257, 512].
"""

# %%
# A patch is a token, as a loop
# -----------------------------
# Cut the image into squares, from left to right and from top to bottom, and read each
# square as one list of numbers, in the order row, column, channel: that is the token.
# By hand: an image of 4 x 4 pixels with the values 0 to 15 has four patches of 2 x 2
# pixels, and the first one holds 0, 1, 4 and 5. Article A's patches are 16 * 16 的小方块:
# 16 counts pixels. A photograph of 224 x 224 pixels has 14 x 14 such patches.

from pathlib import Path

import numpy as np
from scipy.signal import correlate
from threadpoolctl import threadpool_limits

from tinymae import plot, tree
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.images.pixels import to_pixels
from tinymae.images.sources import digits, load_images
from tinymae.models import attention_maps, fine_tuning, patch_encoder, vit
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.patches import patchify_backward, patchify_forward, unpatchify
from tinymae.train.optim import AdamW, warmup_cosine

figures, rng = Path("figures"), np.random.default_rng(0)


def patchify_loop(image, p):
    patches = []
    for top in range(0, image.shape[0], p):
        for left in range(0, image.shape[1], p):
            patches.append(image[top : top + p, left : left + p].ravel())
    return np.array(patches)                                        # (N, P)


small = np.arange(16.0).reshape(4, 4, 1)
assert patchify_loop(small, 2)[0].tolist() == [0, 1, 4, 5]
temple = load_images("photos")[0]                                   # (427, 640, 3)
photo = to_pixels(temple[:224, :224], np.float64)[None]             # (1, 224, 224, 3)
patches = patchify_loop(photo[0], 16)[None]
memory = 4 * (224 * 224) ** 2 / 1e9         # 4 bytes for each pair of pixels, in GB
print(f"{photo.shape} -> {patches.shape}; with pixels as tokens {memory:.1f} GB")
assert patches.shape == (1, 14 * 14, 768) and round(memory) == 10

# %%
# Without a loop: reshape, then transpose
# ---------------------------------------
# The reshape splits each side in two: which patch, and where in the patch. The
# transpose brings both "which patch" to the front. ``unpatchify`` is the opposite.


def patchify(images, p):
    batch, rows, cols, channels = images.shape
    x = images.reshape(batch, rows // p, p, cols // p, p, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)           # (B, grid rows, grid cols, p, p, C)
    return x.reshape(batch, -1, p * p * channels)                   # (B, N, P)


assert np.array_equal(patchify(photo, 16), patches)
assert np.array_equal(patchify_forward(photo, 16)[0], patches)
assert np.array_equal(unpatchify(patches, 16, (14, 14)), photo)

# %%
# The same as a convolution with stride 16
# ----------------------------------------
# The embedding of a text token is looked up in a table. Patches have no vocabulary: the
# embedding of a patch is a linear map of its 768 numbers, the same for all patches.
# Published code writes it as a convolution (SciPy: ``correlate``) whose kernel is as
# large as a patch and moves by a whole patch.

w, b = rng.normal(size=(768, 4)), rng.normal(size=4)
kernels = w.reshape(16, 16, 3, 4)
maps = [correlate(photo[0], kernels[..., j], mode="valid") for j in range(4)]
convolved = np.stack([m[::16, ::16, 0].ravel() for m in maps], axis=-1) + b   # (196, 4)
np.testing.assert_allclose(linear_forward(patches, w, b)[0][0], convolved, atol=1e-9)

# %%
# [7, 257, 512]
# -------------
# Article B's example, with real images: 7 is the batch, here crops of the temple. 257
# is 16 x 16 patches and one token more, the *class token*: a learned row, the same for
# all images; the classifier reads its output. 512 is the dimension of the embedding.
# Article B calls it the patch's (patch 的尺度), but a patch has 16 x 16 x 3 = 768 numbers.

seven = to_pixels(np.stack([temple[:256, x : x + 256] for x in range(0, 385, 64)]))
params = vit.vit_init(vit.ViTConfig(256, embed_dim=512, depth=1, num_heads=8), rng)
latent = patch_encoder.encoder_features(
    seven, params["encoder"], params["positions"], heads=8, patch_size=16
)
print(f"patches {patchify(seven, 16).shape}, tokens {latent.shape}")
assert patchify(seven, 16).shape == (7, 256, 768) and latent.shape == (7, 257, 512)

# %%
# From images to tokens, and back
# -------------------------------
# Class token and positions are the same for every image, so their gradients are sums
# over the batch. (6) moves each gradient to its pixel.
#
# .. math::
#
#    x = patchify(images)\, w + b \quad (1)
#    \qquad y = [cls\_token;\, x + positions] \quad (2)
#
#    dcls\_token = \sum_b dy_{b,0} \quad (3)
#    \qquad dx_{b,n} = dy_{b,1+n}, \quad dpositions = \sum_b dx_b \quad (4)
#
#    dpatches = dx\, w^T, \quad dw = patches^T dx, \quad db = \sum dx \quad (5)
#    \qquad dimages = unpatchify(dpatches) \quad (6)


def embed_forward(images, w, b, cls_token, positions, patch_size):
    patches, cut = patchify_forward(images, patch_size)                 # (B, N, P)
    x, linear = linear_forward(patches, w, b)                           # (1)  (B, N, D)
    cls_token = np.broadcast_to(cls_token, (len(x), 1, x.shape[2]))
    return np.concatenate([cls_token, x + positions], axis=1), (cut, linear)    # (2)


def embed_backward(dy, cache):
    cut, linear = cache
    dcls_token = dy[:, :1].sum(axis=0, keepdims=True)                   # (3)
    dx = dy[:, 1:]                                                      # (4)
    dpatches, dw, db = linear_backward(dx, linear)                      # (5)
    dimages = patchify_backward(dpatches, cut)                          # (6)
    return dimages, dw, db, dcls_token, dx.sum(axis=0)                  # (4)


shapes = [(2, 6, 4, 3), (12, 5), (5,), (1, 1, 5), (6, 5)]
inputs = [rng.normal(size=shape) for shape in shapes]
rows = gradcheck(embed_forward, embed_backward, *inputs, patch_size=2)
print(format_rows("patch embedding", rows))
assert all(row.ok for row in rows)

# %%
# Train a small ViT
# -----------------
# scikit-learn's digits: 8 x 8 pixels, 16 patches of 2 x 2, two layers. A model that
# knows nothing assigns 1/10 to each of ten classes, so the first loss is ln 10 = 2.303.
# The last 360 digits are the validation set.

size = vit.ViTConfig(8, 2, 1, num_classes=10, embed_dim=32, depth=2, num_heads=4)
pictures, labels = digits()                                 # (1797, 8, 8, 1), (1797,)
pixels = to_pixels(pictures)


def train(images, steps=300):
    rng, losses = np.random.default_rng(1), []
    params = vit.vit_init(size, rng)
    optimizer = AdamW(params, weight_decay=0.05, decays=fine_tuning.vit_decays(params))
    with threadpool_limits(1, "blas"):                      # faster for small matrices
        for step in range(steps):
            ids = rng.integers(1437, size=32)
            loss, cache = vit.vit_forward(images[ids], labels[ids], params, size)
            rate = warmup_cosine(step, steps, steps // 20, 6e-3)
            optimizer.step(params, vit.vit_backward(1.0, cache), rate)
            losses.append(float(loss))
    return params, losses


def accuracy(params, images):
    predicted = vit.vit_logits(images[1437:], params, size).argmax(axis=1)
    return np.mean(predicted == labels[1437:])


params, losses = train(pixels)
right = accuracy(params, pixels)
print(f"loss {losses[0]:.3f} -> {np.mean(losses[-50:]):.3f}, accuracy {right:.1%}")
assert abs(losses[0] - np.log(10)) < 0.01 and right > 0.8

# %%
# Where it attends
# ----------------
# The attention weights of the last layer, of the class token and of patch 6. A row sums
# to 1 over all 17 tokens; the figure leaves out the class token's column. It is a hint
# and no more: attention weights alone do not say why the model predicts a class.

last = attention_maps.vit_attention(pixels[1437:1438], params, size)[-1][0]  # (H, T, T)
np.testing.assert_allclose(last.sum(axis=-1), 1, atol=1e-5)
rows = last[:, 0, 1:], last[:, 1 + 6, 1:]                   # each (H, 16)
figure = plot.attention_over_picture(pictures[1437], *rows, patch=6, grid=(4, 4))
print(plot.save(figure, figures / "vit_attention.png"))

# %%
# Break it: reshape without the transpose
# ---------------------------------------
# ``images.reshape(B, N, P)`` has the right shape, but its rows are strips of the image.
# The gradient check passes: the backward pass is right for the wrong forward pass. A
# model can learn from strips, too. The loop sees the mistake, and so does a model that
# was trained on patches: given strips, it is wrong about most digits.

x = inputs[0].ravel()                                       # two images of 6 x 4 x 3
rows = gradcheck(lambda x: (x.reshape(2, 6, 12), 0), lambda dy, _: dy.ravel(), x)
assert rows[0].ok
assert not np.array_equal(photo.reshape(patches.shape), patches)    # the loop's
strips = pixels.reshape(1797, 16, 4)
mixed = unpatchify(strips, 2, (4, 4))           # images whose patches are these strips
own, other = accuracy(train(mixed)[0], mixed), accuracy(params, mixed)
print(f"strips: accuracy {own:.1%}, of the model trained on patches {other:.1%}")
assert own > 0.8 and other < 0.5
cut = {"patches": patchify_loop(small, 2), "reshape alone": small.reshape(4, 4)}
panels = [plot.Panel(title, tokens, 15) for title, tokens in cut.items()]
caption = (
    "How to read it: the image of 4 x 4 pixels with the values 0 to 15 as four tokens, "
    "one a row. Left, a token is a patch of 2 x 2 pixels; right, a line of the image."
)
figure = plot.heatmaps(panels, "number in the token", "token", caption, columns=2)
print(plot.save(figure, figures / "vit_patches.png"))

# %%
# Exercises
# ---------
# Replace ``None`` and run the cell again; an assert compares at once.

# 1. How many numbers does ViT-B/16, D = 768, learn for its patch embedding?
answer_1 = None
if answer_1 is not None:
    patch_embed = vit.vit_init(vit.ViTConfig(), None)["encoder"]["patch_embed"]
    assert answer_1 == tree.count(patch_embed), "one w (P, D) and one b (D,) for all"

# 2. Write unpatchify as a loop: a function (patches (B, N, P), p, grid) -> images.
answer_2 = None
if answer_2 is not None:
    some = np.random.default_rng(3).normal(size=(2, 6, 12))
    correct = unpatchify(some, 2, (3, 2))
    assert np.array_equal(answer_2(some, 2, (3, 2)), correct), "3 rows of 2 patches"

# %%
# In the articles
# ---------------
# - Article A, "Vit": "16 * 16 的小方块" is the size of a patch in pixels, not the number
#   of patches; "每个方块做成一个词" is run in "A patch is a token, as a loop". A leaves out
#   how: by a linear map, see "The same as a convolution with stride 16".
# - Article B, "patch 的尺度" (512): **wrong**. 512 is the embedding's dimension; a patch
#   has 768 numbers, as "[7, 257, 512]" asserts. 257 is right.
