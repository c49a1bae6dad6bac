"""
MAE: hide and restore · MAE：遮住再还原
=======================================

Labels are rare, images are not: hide three quarters of an image, and let a model
predict them. No label is needed. How is such a model built, and trained?

You will be able to write random masking with two argsorts, the unshuffle with its
backward pass, and the loss; and to recognise a mistake that no gradient check sees.

Time: 20 minutes to read, 4 seconds to run.
Needs: lesson 28.

Read beside: He et al. 2021, section 3 and figure 1; article A (MAE:Masked Autoencoders
Are Scalable Vision Learners), "MAE".
"""

# %%
# Hide 75 % of a photograph, and restore it
# -----------------------------------------
# A small model comes with the package; it was not trained on this photograph. Three of
# four patches are hidden. The model predicts them, with less than half the error of the
# mean colour of what is visible. How?

from pathlib import Path

import numpy as np

from tinymae import plot
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.gradcheck.invariants import assert_mask_hides
from tinymae.images.hide import hidden_patches
from tinymae.images.pixels import to_pixels
from tinymae.images.sources import unseen_photos
from tinymae.models import mae
from tinymae.models.patch_encoder import vit_encoder_forward
from tinymae.ops.losses import masked_mse_forward
from tinymae.ops.patches import patchify_forward, unshuffle_forward
from tinymae.tasks.photograph import grid_of, hidden_pixels, restore_photo
from tinymae.tasks.reconstruct import draw_restored, own_model

figures, rng = Path("figures"), np.random.default_rng(0)
photo, model = unseen_photos()["grace_hopper"], own_model()     # (600, 512, 3) uint8
config, params = model.config, model.params
grid = grid_of(photo.shape, 48, config)                         # 48 patches across
hidden = hidden_patches("random", grid, 0.75, np.random.default_rng(1))
gone = hidden_pixels(hidden, photo.shape)                       # bool (600, 512)
restored = restore_photo(photo, gone, params, config, detail=48, turned=False)
true, painted = to_pixels(photo), to_pixels(restored.photo)
error = np.mean((painted - true)[gone] ** 2)
grey = np.mean((true[~gone].mean(axis=0) - true[gone]) ** 2)
print(f"{hidden.mean():.0%} hidden; error {error:.2f}, with the mean colour {grey:.2f}")
assert hidden.mean() == 0.75 and error < grey / 2
print(draw_restored(restored, config, "75 % hidden", figures / "mae_restored.png"))

# %%
# Argsort twice?
# --------------
# Which patches are hidden? Give each a random number, sort, and keep the first K:
# ``ids_shuffle[j]`` is the patch that comes j-th. The decoder asks the opposite: where
# in ``ids_shuffle`` is patch n? The second argsort answers, with ``ids_restore[n]``:
# the argsort of ``ids_shuffle`` lists where 0 is, where 1 is, and so on. First as a
# loop: 3 of 9 patches are kept. In a mask, 1 = removed and 0 = visible.


def random_masking_loop(noise, kept):
    ids_shuffle = sorted(range(len(noise)), key=lambda patch: noise[patch])
    ids_restore, mask = [None] * len(noise), [None] * len(noise)
    for place, patch in enumerate(ids_shuffle):
        ids_restore[patch] = place
        mask[patch] = int(place >= kept)
    return ids_shuffle, ids_restore, mask


noise = np.array([0.62, 0.28, 0.91, 0.35, 0.07, 0.77, 0.54, 0.19, 0.83])
shuffled, restore, mask = random_masking_loop(noise, 3)
print("ids_shuffle", shuffled, "\nids_restore", restore, "\nmask       ", mask)
assert np.argsort(noise).tolist() == shuffled
assert np.argsort(np.argsort(noise)).tolist() == restore
ids_keep, _, removed = mae.random_masking(noise[None], 2 / 3)       # a batch of one
assert ids_keep[0].tolist() == shuffled[:3] and removed[0].tolist() == mask

# %%
# Shuffle and unshuffle
# ---------------------
# Shuffle, keep the first three, encode them, append mask tokens (M), and unshuffle:
# position n takes the token at ``ids_restore[n]``.

tokens = [str(patch) for patch in shuffled[:3]] + ["M"] * 6
back = [tokens[place] for place in restore]
print("after the encoder", tokens, "\nunshuffled       ", back)
figure = plot.shuffle(restored.small, shuffled, restore, 3, (3, 3))
print(plot.save(figure, figures / "mae_shuffle.png"))

# %%
# The encoder sees visible patches only
# -------------------------------------
# The encoder is the ViT of lesson 28. It reads 48 x 48 pixels, so the photograph is cut
# into 42 tiles, a batch. Of the 64 patches of a tile 16 are visible. The others are not
# zeros: they are not there. With the class token 17 of 65 tokens are left, a fifteenth
# of the pairs. ``assert_mask_hides`` changes hidden pixels: the output stays the same.

encoder, decoder = params["encoder"], params["decoder"]
table, decoder_table = config.position_tables()     # positions
tiles = patchify_forward(to_pixels(restored.small)[None], 48)[0]
tiles = tiles.reshape(-1, 48, 48, 3)                # (42, 48, 48, 3), the photograph
patches, _ = patchify_forward(tiles, 6)             # (42, 64, 108)
noise = rng.random((42, 64))
ids_keep, ids_restore, mask = mae.random_masking(noise, 0.75)


def encode(images):
    x, _ = patchify_forward(images, 6)
    return vit_encoder_forward(x, encoder, table, heads=4, ids_keep=ids_keep)[0]


latent = encode(tiles)
assert latent.shape == (42, 1 + 16, 128) and round(65**2 / 17**2) == 15
assert_mask_hides(encode, tiles, mask, 6)

# %%
# The decoder sees every position
# -------------------------------
# It gets the encoded patches, back in their positions, and one learned *mask token* at
# all others. So it has four times as many patches as the encoder, but is narrower and
# shallower (article A: 非对称), and is thrown away after training. Only the positions tell
# mask tokens apart: without them, all hidden patches of an image get one prediction.


def decode(latent, table, ids):
    return mae.mae_decoder_forward(latent, decoder, table, heads=4, ids_restore=ids)[0]


pred = decode(latent, decoder_table, ids_restore)                   # (42, 64, 108)
alike = decode(latent, np.zeros_like(decoder_table), ids_restore)
hidden = mask[0] == 1                                               # of the first tile
spread = [np.ptp(it[0, hidden], axis=0).max() for it in (pred, alike)]
assert spread[0] > 0.5 and spread[1] < 1e-4

# %%
# The loss counts hidden patches only
# -----------------------------------
# The mean over the hidden patches of the mean over their pixels: what is predicted for
# visible patches does not count. In article A's 普通的 MSE it does: a different number.


def loss_loop(pred, target, mask):
    errors = []
    for b, n in np.ndindex(mask.shape):
        if mask[b, n] == 1:
            errors.append(np.mean((pred[b, n] - target[b, n]) ** 2))
    return np.mean(errors)


loss, loss_cache = masked_mse_forward(pred, patches, mask)
np.testing.assert_allclose(loss_loop(pred, patches, mask), loss, rtol=1e-5)
assert np.isclose(loss, mae.mae_forward(tiles, params, config, noise)[0])
plain = np.mean((pred - patches) ** 2)
print(f"error of hidden patches {loss:.2f}, of all patches {plain:.2f}")
assert not np.isclose(plain, loss, rtol=0.01)

# %%
# Backward: unshuffle and loss
# ----------------------------
# With :math:`j = ids\_restore_{b,n}`, K kept patches in each image, P numbers in each
# patch, and *count* hidden patches in the batch:
#
# .. math::
#
#    & y_{b,n} = \begin{cases} x_{b,j} & j < K \\
#        mask\_token & j \ge K \end{cases} \quad (1) \\
#    & dx_{b,j} = dy_{b,n} \quad (j < K) \\
#    & dmask\_token = \sum_{j \ge K} dy_{b,n} \quad (2) \\
#    & loss = \frac{1}{count \, P} \sum mask \, (pred - target)^2 \quad (3) \\
#    & dpred = dloss \; mask \, \frac{2\, (pred - target)}{count \, P} \quad (4)
#
# ``ids_restore`` brought the token at j to position n; its inverse brings the gradient
# back. The mask token was used at many positions: its gradients add up.


def unshuffle(x, mask_token, ids_restore):
    batch, kept, width = x.shape
    masks = np.broadcast_to(mask_token, (batch, ids_restore.shape[1] - kept, width))
    tokens = np.concatenate([x, masks], axis=1)                         # (B, N, E)
    y = np.take_along_axis(tokens, ids_restore[..., None], axis=1)      # (1)
    return y, (kept, ids_restore)


def backward(dy, cache):
    kept, ids_restore = cache
    ids_shuffle = np.argsort(ids_restore, axis=1)
    dtokens = np.take_along_axis(dy, ids_shuffle[..., None], axis=1)    # (2)
    return dtokens[:, :kept], dtokens[:, kept:].sum(axis=(0, 1), keepdims=True)


def loss_backward(dloss, cache):
    error, mask, count = cache
    return dloss * mask[..., None] * 2 * error / (count * error.shape[2])       # (4)


x, mask_token = rng.normal(size=(4, 16, 3)), rng.normal(size=(1, 1, 3))     # 4 tiles
inputs = x, mask_token, ids_restore[:4]
rows = gradcheck(unshuffle, backward, *inputs)
pred, target = rng.normal(size=(2, 4, 64, 3))
rows += gradcheck(masked_mse_forward, loss_backward, pred, target=target, mask=mask[:4])
print(format_rows("unshuffle, loss", rows))
assert all(row.ok for row in rows)
assert np.array_equal(unshuffle(*inputs)[0], unshuffle_forward(*inputs)[0])

# %%
# Break it: no unshuffle
# ----------------------
# Leave it out: visible patches come first, then mask tokens. The gradient check passes:
# the backward pass is right for the wrong forward pass. The error sees it, more than
# twice as high, and so does the figure.

in_order = np.broadcast_to(np.arange(64), ids_restore.shape)
rows = gradcheck(unshuffle, backward, x, mask_token, in_order[:4])
assert all(row.ok for row in rows)
broken = loss_loop(decode(latent, decoder_table, in_order), patches, mask)
print(f"error of hidden patches {loss:.2f}, without unshuffle {broken:.2f}")
assert broken > 2 * loss
text = "How to read it: as before, but patch 4 is now below the 0 of the first row."
figure = plot.shuffle(restored.small, shuffled, range(9), 3, (3, 3), caption=text)
print(plot.save(figure, figures / "mae_no_unshuffle.png"))

# %%
# Exercises
# ---------
# Replace ``None`` and run the cell again; an assert compares at once.

# 1. ids_shuffle is [2, 0, 3, 1]. What is ids_restore? Write a list.
answer_1 = None
if answer_1 is not None:
    assert list(answer_1) == np.argsort([2, 0, 3, 1]).tolist(), "where is patch 0? At 1"

# 2. Hiding, y[b, k] = x[b, ids_keep[b, k]], has a backward pass, too. Write it: a
#    function (dy (B, K, D), (ids_keep (B, K), N)) -> dx (B, N, D).
answer_2 = None
if answer_2 is not None:
    def hide(x, ids):
        return np.take_along_axis(x, ids[..., None], axis=1), (ids, x.shape[1])

    checked = gradcheck(hide, answer_2, np.ones((4, 64, 3)), ids_keep[:4])
    assert all(row.ok for row in checked), format_rows("hiding", checked)

# %%
# In the articles
# ---------------
# - Article A, "它的损失函数就是普通的 MSE": **not quite**. The paper counts hidden patches
#   only (section 3): "The loss counts hidden patches only" prints both numbers.
# - The paper's figure 1 draws the mask tokens between the encoded patches at once. Its
#   code, and ours, appends them and unshuffles: "Shuffle and unshuffle".
