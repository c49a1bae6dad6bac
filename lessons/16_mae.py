"""
MAE: hide and restore · MAE：遮住再还原
=======================================

Labels are rare, pictures are not. So hide three quarters of a picture and ask the model to restore them: whoever can do that
must have understood something of pictures. Two things make it cheap, and both make it easy to get wrong: the encoder sees only
the visible patches, in shuffled order, and the decoder has to put every patch back into its own place.

Read beside: He et al. 2021, section 3 and figure 1; article A (opening figures, "MAE").
"""

# %%
# Argsort twice?
# --------------
# Which patches are hidden? Give each a random number, sort, keep the first K. ``ids_shuffle[j]`` says which patch comes j-th.
# The decoder asks the opposite: patch n, where did you go? That is ``ids_restore``, the inverse permutation. As a loop:

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tinymae import plot, tree
from tinymae.gradcheck import format_rows, gradcheck
from tinymae.gradcheck.invariants import assert_mask_hides
from tinymae.images.crops import picture_bank, random_crops, unseen_crops
from tinymae.images.fills import linear_fill, mean_fill, removed_pixels
from tinymae.images.pixels import to_picture, to_pixels
from tinymae.images.resize import resize_picture
from tinymae.images.sources import load_images, unseen_photo
from tinymae.models import mae
from tinymae.models.patch_encoder import encoder_features, vit_encoder_forward
from tinymae.ops.losses import masked_mse_backward, masked_mse_forward
from tinymae.ops.patches import patchify_forward, unpatchify, unshuffle_backward, unshuffle_forward
from tinymae.tasks.restore import restore
from tinymae.train.optim import AdamW, warmup_cosine
from tinymae.weights import export, published
from tinymae.weights.pth import write_pth
from tinymae.weights.read import read_weights

threadpool_limits(1, "blas")                                    # for matrices this small one thread is faster than several
figures, rng = Path("figures"), np.random.default_rng(0)

# %%
# Nine patches, three of them kept. A mask says **1 = removed**, 0 = visible, here and in the paper's code.


def random_masking_loop(noise, kept):
    ids_shuffle = sorted(range(len(noise)), key=lambda patch: noise[patch])
    ids_restore, mask = [None] * len(noise), [None] * len(noise)
    for place, patch in enumerate(ids_shuffle):
        ids_restore[patch] = place                              # undoes line 1
        mask[patch] = int(place >= kept)
    return ids_shuffle, ids_restore, mask


noise = np.array([0.62, 0.28, 0.91, 0.35, 0.07, 0.77, 0.54, 0.19, 0.83])
ids_shuffle, ids_restore, mask = random_masking_loop(noise, 3)
print("ids_shuffle", ids_shuffle, "\nids_restore", ids_restore, "\nmask       ", mask)

# %%
# Vectorised, the inverse is the ``argsort`` of the ``argsort``: sorting ``ids_shuffle`` lists the places at which 0, 1, 2 ...
# stand in it. That is why published code calls it twice.

assert np.array_equal(np.argsort(noise), ids_shuffle)
assert np.array_equal(np.argsort(np.argsort(noise)), ids_restore)
kept_ids, restore_ids, hidden = mae.random_masking(noise[None], 2 / 3)                      # a batch of one
assert kept_ids[0].tolist() == ids_shuffle[:3] and restore_ids[0].tolist() == ids_restore and hidden[0].tolist() == mask

# %%
# Shuffle and unshuffle
# ---------------------
# The nine patches on their way: shuffled, cut, encoded, mask tokens put behind, and back. ``token[ids_restore]`` is the whole
# unshuffle: place n takes the token that lies at ``ids_restore[n]``.

tokens = [str(patch) for patch in ids_shuffle[:3]] + ["M"] * 6
print("after the encoder", tokens)
print("unshuffled       ", [tokens[place] for place in ids_restore])
flower = resize_picture(load_images("photos")[1], 96)
figure = plot.shuffle(flower, ids_shuffle, ids_restore, 3, (3, 3))
print(plot.save(figure, figures / "mae_shuffle.png"))

# %%
# The encoder sees visible patches only
# -------------------------------------
# The encoder is the ViT of lesson 15. Hidden patches are not zeroed and not masked in attention: they are not there. The class
# token and 16 of 64 patches are 17 rows in place of 65, and attention compares 14 times fewer pairs. ``assert_mask_hides``
# changes all pixels under the mask and demands the same output to the last bit.

config = mae.MAEConfig(
    img_size=48, patch_size=6, embed_dim=64, depth=2, num_heads=4, decoder_embed_dim=48, decoder_depth=1, decoder_num_heads=4
)
bank = picture_bank(load_images("photos")[:2], 48)                  # the temple and the flower, at many scales
pool = np.concatenate([random_crops(bank, 48, rng, 64) for _ in range(32)])                 # to learn from
unseen = to_pixels(unseen_crops(unseen_photo(), 48, 64))        # of a third photograph
ids_keep, ids_restore, mask = mae.random_masking(rng.random((2, 64)), 0.75)
params = mae.mae_init(config, rng)


def encode(images):
    patches, _ = patchify_forward(images, config.patch_size)
    positions, _ = config.position_tables()
    return vit_encoder_forward(patches, params["encoder"], positions, heads=config.num_heads, ids_keep=ids_keep)[0]


print(f"tokens in the encoder {encode(unseen[:2]).shape}; pairs: {65**2 / 17**2:.1f} times fewer")
assert encode(unseen[:2]).shape == (2, 17, 64) and 14 < 65**2 / 17**2 < 15
assert_mask_hides(encode, unseen[:2], mask, config.patch_size)

# %%
# A leak that is easily made: standardise each picture by its own mean, *then* hide. The mean has seen everything.

try:
    assert_mask_hides(lambda images: encode(images - images.mean(axis=(1, 2, 3), keepdims=True)), unseen[:2], mask, 6)
    leaked = ""
except AssertionError as error:
    leaked = str(error)
print(leaked)
assert "pixels under the mask reach the output" in leaked

# %%
# The decoder sees every place
# ----------------------------
# It gets the encoded patches, back in their places, and one learned *mask token* everywhere else. Only the positions tell one
# mask token from another, so they are added after the unshuffle. It is asymmetric: the decoder has all 65 tokens, but is narrow
# and shallow, and is thrown away after the training.
#
# The whole forward, with three switches for the experiments below; all on, it is the package's ``mae_forward``.


def forward(images, params, config, noise, unshuffle=True, positions=True, hidden_only=True):
    encoder_positions, decoder_positions = config.position_tables(images.dtype)
    patches, _ = patchify_forward(images, config.patch_size)                                # (B, N, P)
    ids_keep, ids_restore, mask = mae.random_masking(noise, config.mask_ratio)
    latent, encoder = vit_encoder_forward(
        patches, params["encoder"], encoder_positions, heads=config.num_heads, ids_keep=ids_keep, eps=config.eps
    )
    if not unshuffle:
        ids_restore = np.broadcast_to(np.arange(noise.shape[1]), noise.shape)               # visible first, then mask tokens
    pred, decoder = mae.mae_decoder_forward(
        latent, params["decoder"], decoder_positions * positions,
        heads=config.decoder_num_heads, ids_restore=ids_restore, eps=config.eps,
    )
    loss, loss_cache = masked_mse_forward(pred, patches, mask if hidden_only else np.ones_like(mask))
    return loss, {"encoder": encoder, "decoder": decoder, "loss": loss_cache, "pred": pred, "mask": mask}


noise = rng.random((2, 64))
assert forward(unseen[:2], params, config, noise)[0] == mae.mae_forward(unseen[:2], params, config, noise)[0]
counts = {name: tree.count(part) for name, part in params.items()}
print(f"numbers: {counts}; the decoder works on {65 / 17:.1f} times as many tokens")
assert counts["decoder"] < counts["encoder"]

# %%
# The loss counts hidden patches only
# -----------------------------------
# As a loop: the mean over the hidden patches of the mean over their pixels. What the model says about visible patches is free.


def loss_loop(pred, target, mask):
    errors = []
    for b, n in np.ndindex(mask.shape):
        if mask[b, n] == 1:
            errors.append(np.mean((pred[b, n] - target[b, n]) ** 2))
    return np.mean(errors)


pred, target = rng.normal(size=(2, 64, 5)), rng.normal(size=(2, 64, 5))
loss, loss_cache = masked_mse_forward(pred, target, mask)
np.testing.assert_allclose(loss_loop(pred, target, mask), loss)

# %%
# Backward: unshuffle and loss
# ----------------------------
# Equation (2) of ``ops.patches``: with :math:`j = ids\_restore_{b,n}`,
#
# .. math::
#
#    y_{b,n} = x_{b,j} \;\text{ if } j < K, \;\text{ else } mask\_token
#
#    dx_{b,j} = dy_{b,n} \;\text{ for } j < K, \qquad dmask\_token = \sum_{j \ge K} dy_{b,n} \qquad (2)
#
# Each gradient goes home the way its token came. ``ids_restore`` brought the token at j to place n; the inverse,
# ``ids_shuffle``, brings the gradient at place n to j. The mask token stood in many places, so their gradients add up.
#
# Equations (1) and (2) of ``ops.losses``, with n hidden patches in the batch and P numbers in a patch:
#
# .. math::
#
#    loss = \frac{1}{n P} \sum mask \, (pred - target)^2 \qquad (1)
#
#    dpred = dloss \; mask \, \frac{2\, (pred - target)}{n P} \qquad (2)


def unshuffle(x, mask_token, ids_restore):
    batch, kept, width = x.shape
    masks = np.broadcast_to(mask_token, (batch, ids_restore.shape[1] - kept, width))
    y = np.take_along_axis(np.concatenate([x, masks], axis=1), ids_restore[..., None], axis=1)      # (2)  (B, N, E)
    return y, (kept, ids_restore)


def home(dy, cache):
    kept, ids_restore = cache
    ids_shuffle = np.argsort(ids_restore, axis=1)
    dtokens = np.take_along_axis(dy, ids_shuffle[..., None], axis=1)                                # (2)
    return dtokens[:, :kept], dtokens[:, kept:].sum(axis=(0, 1), keepdims=True)


def loss_backward(dloss, cache):
    pred, target, mask = cache
    return dloss * mask[..., None] * 2 * (pred - target) / (mask.sum() * pred.shape[2])             # losses (2)


# %%
# gradcheck
# ---------
# Ours against differences, then ours against the package, then the whole model: two numbers of every tensor of encoder and
# decoder.

x, mask_token = rng.normal(size=(2, 16, 5)), rng.normal(size=(1, 1, 5))
rows = gradcheck(unshuffle, home, x, mask_token, ids_restore)
rows += gradcheck(lambda pred, target, mask: (masked_mse_forward(pred, target, mask)[0], (pred, target, mask)), loss_backward,
                  pred, target=target, mask=mask)
print(format_rows("unshuffle, loss", rows))
assert all(row.ok for row in rows)

dy = rng.normal(size=(2, 64, 5))
for gradient, same in zip(home(dy, (16, ids_restore)), unshuffle_backward(dy, unshuffle_forward(x, mask_token, ids_restore)[1]),
                          strict=True):
    np.testing.assert_allclose(gradient, same)
np.testing.assert_allclose(loss_backward(1.0, (pred, target, mask)), masked_mse_backward(1.0, loss_cache))

tiny = mae.MAEConfig(12, 3, 1, 8, 1, 2, 4, 1, 1)
inputs = {"images": rng.normal(size=(2, 12, 12, 1)), "noise": rng.random((2, 16)), "config": tiny}
tiny_params = mae.mae_init(tiny, rng, np.float64)
rows = gradcheck(lambda params, **inputs: mae.mae_forward(params=params, **inputs), mae.mae_backward, tiny_params, samples=2,
                 **inputs)
print(f"the whole model: {sum(row.ok for row in rows)} of {len(rows)} tensors right")
assert all(row.ok for row in rows)

# %%
# Break it: the gradient goes home by the wrong map
# -------------------------------------------------
# Using ``ids_restore`` itself in the backward, where its inverse belongs: shapes fit, and nothing complains. The check sees it.


def lost(dy, cache):
    kept, ids_restore = cache
    dtokens = np.take_along_axis(dy, ids_restore[..., None], axis=1)
    return dtokens[:, :kept], dtokens[:, kept:].sum(axis=(0, 1), keepdims=True)


rows = gradcheck(unshuffle, lost, x, mask_token, ids_restore)
print(format_rows("by the wrong map", rows))
assert not any(row.ok for row in rows)

# %%
# Break it: no unshuffle
# ----------------------
# Leave the unshuffle out, and every token is at a place that says nothing about where it belongs. The backward is right for
# this wrong forward, so a gradient check is blind to it. What sees it: the picture of nine patches, whose last row is not in
# the order of the first, and the loss, which falls, and then stays at that of painting each picture in its mean colour. The
# next section runs it.

broken = {"unshuffle": False, **inputs}
rows = gradcheck(lambda params, **inputs: forward(params=params, **inputs), mae.mae_backward, tiny_params, samples=1, **broken)
print(f"without unshuffle: {sum(row.ok for row in rows)} of {len(rows)} tensors right, says the check")
assert all(row.ok for row in rows)
figure = plot.shuffle(flower, np.argsort(restore_ids[0]), np.arange(9), 3, (3, 3))
print(plot.save(figure, figures / "mae_no_unshuffle.png"))

# %%
# What loss should I see?
# -----------------------
# Measure what is free before you train. The level that counts is the *mean fill*: hidden pixels get the mean colour of the
# visible ones, wherever they are. The curve drops to that level within a hundred steps, pauses, and then falls again: from here
# on the model uses what is next to what.


def train(steps, stop=None, lr=4e-3, config=config, **switches):
    rng = np.random.default_rng(1)
    params = mae.mae_init(config, rng)
    optimizer = AdamW(params, betas=(0.9, 0.95), weight_decay=0.05, decays=mae.mae_decays(params))
    step_forward = mae.mae_forward if config.norm_pix_loss else forward
    losses = []
    for step in range(stop or steps):
        images, noise = pool[rng.integers(len(pool), size=32)], rng.random((32, 64))
        loss, cache = step_forward(images, params, config, noise, **switches)
        optimizer.step(params, mae.mae_backward(1.0, cache), warmup_cosine(step, steps, steps // 20, lr))
        losses.append(float(loss))
    return params, losses


noise = np.random.default_rng(2).random((64, 64))               # hides patches of 64 pictures, always the same ones
removed = removed_pixels(mae.random_masking(noise, 0.75)[2], 48, 48, 6)


def error(restored, images):
    return float(np.mean((restored - images)[removed] ** 2))


levels = {fill.__name__: error(fill(pool[:64], removed), pool[:64]) for fill in (mean_fill, linear_fill)}
params, losses = train(400)
print(f"loss {losses[0]:.2f} -> {np.mean(losses[-50:]):.3f};", {name: round(level, 3) for name, level in levels.items()})
assert abs(np.mean(losses[80:110]) / levels["mean_fill"] - 1) < 0.2 and np.mean(losses[-50:]) < 0.8 * levels["mean_fill"]

# %%
# Four ways to go wrong, each as the good run but for one thing, for its first 200 steps:
#
# - *no unshuffle*: stays at the mean fill;
# - *no positions in the decoder*: the same. All mask tokens are one token, so all hidden patches of a picture get one answer;
# - *learning rate 20 times too high*: stays above the mean fill;
# - *loss on all patches*: a lower curve, and no better model: a quarter of what it counts can be seen. Never compare losses
#   that count different things.

runs = {"as it should be": (params, losses)}
for name, switches in {
    "no unshuffle": {"unshuffle": False},
    "no positions in the decoder": {"positions": False},
    "learning rate 0.08": {"lr": 0.08},
    "loss on all patches": {"hidden_only": False},
}.items():
    runs[name] = train(400, 200, **switches)
ends = {name: np.mean(curve[150:200]) for name, (_, curve) in runs.items()}
for name, end in ends.items():
    print(f"{name:28} mean loss of steps 150 to 200: {end:.3f}")
everywhere = mae.mae_reconstruct(pool[:64], runs["loss on all patches"][0], config, noise).pasted
print(f"loss on all patches: {error(everywhere, pool[:64]):.3f} on the hidden pixels")
assert ends["as it should be"] < 0.85 * levels["mean_fill"] < min(ends["no unshuffle"], ends["no positions in the decoder"])
assert ends["loss on all patches"] < ends["as it should be"] and ends["learning rate 0.08"] > levels["mean_fill"]
assert error(everywhere, pool[:64]) > 0.9 * ends["as it should be"]

# %%
# The curves, each point the mean of 20 steps.

smooth = {name: np.convolve(curve, np.ones(20) / 20, "valid") for name, (_, curve) in runs.items()}
smooth = {name: (np.arange(20, 20 + len(curve)), curve) for name, curve in smooth.items()}
caption = (
    "How to read it: training loss, the mean of the last 20 steps, on crops of two photographs. The dashed line is the mean "
    "fill: a run that stays there has lost the places. The dotted line is linear interpolation between the visible pixels. The "
    "yellow run counts other pixels in its loss: it cannot be compared with the others."
)
names = {"mean fill": levels["mean_fill"], "linear interpolation": levels["linear_fill"]}
figure = plot.curves(smooth, "step", "mean squared error", caption, levels=names, ylim=(0.2, 1.4))
print(plot.save(figure, figures / "mae_loss.png"))

# %%
# Hide and restore: 75 %, 80 %, 95 %
# ----------------------------------
# Crops of a photograph that the model never saw (but settings of such models were chosen by other crops of it, says the README:
# a third photograph would be a stricter judge). The honest number first: after so short a training, linear interpolation
# between the visible pixels is still better. ``python -m tinymae`` trains for two and a half minutes and passes it.

shown = mae.mae_reconstruct(unseen, params, config, noise)
results = {"MAE": error(shown.pasted, unseen)}
results |= {fill.__name__: error(fill(unseen, removed), unseen) for fill in (mean_fill, linear_fill)}
print("error on hidden pixels, never seen:", {name: round(value, 3) for name, value in results.items()})
assert results["MAE"] < 0.95 * results["mean_fill"]
for percent in (75, 80, 95):
    pictures, original, _ = restore(unseen[4:7], params, config, percent / 100)
    figure = plot.reconstructions(*pictures, original, title=f"{percent} % of the patches hidden")
    print(plot.save(figure, figures / f"mae_{percent}.png"))

# %%
# My MAE pictures look wrong
# --------------------------
# *The visible patches look worst.* Right: no loss ever asked for them, their outputs are whatever came out. Paste the true
# ones over them, as the third column does; do not train on them to make the picture nicer.

seen = float(np.mean((shown.reconstruction - unseen)[~removed] ** 2))
print(f"error of the reconstruction on visible pixels {seen:.3f}, on hidden pixels {results['MAE']:.3f}")
assert seen > results["MAE"] and error(shown.reconstruction, unseen) == results["MAE"]

# %%
# *Grey, or blocky.* The model was trained on normalised pixels (``norm_pix_loss``): each patch without its mean and contrast.
# Drawn as it is, its prediction has neither. To draw it you need a mean and a contrast for each hidden patch. From the visible
# patches: honest, and still grey. From the true picture: pretty, blocky, and **part of the answer leaks**. How much, shows a
# model that predicts nothing at all.

normalised = replace(config, norm_pix_loss=True)
norm_params, _ = train(400, 100, config=normalised)
silent = tree.map(np.zeros_like, norm_params)                   # predicts 0 everywhere
raw = unpatchify(mae.mae_forward(unseen, norm_params, normalised, noise)[1]["pred"], 6, (8, 8))
drawn = {"as predicted": raw} | {
    f"{statistics} statistics": mae.mae_reconstruct(
        unseen, norm_params, normalised, noise, statistics=statistics
    ).reconstruction for statistics in ("visible", "true")
}
drawn["nothing, true statistics"] = mae.mae_reconstruct(unseen, silent, normalised, noise, statistics="true").reconstruction
mistakes = {name: error(picture, unseen) for name, picture in drawn.items()}
print({name: round(mistake, 3) for name, mistake in mistakes.items()})
assert mistakes["nothing, true statistics"] < results["linear_fill"] < mistakes["visible statistics"] < mistakes["as predicted"]

# %%
# The same picture four times. The last row comes from a model that says nothing, and shows more than the honest one.

one = np.stack([picture[6] for picture in drawn.values()])      # (4, 48, 48, 3)
original, gone = np.broadcast_to(unseen[6], one.shape), removed[6, ..., None]
columns = [np.where(gone, 0, original), one, np.where(gone, one, original), original]
caption = (
    "How to read it: one picture, four ways to draw a model of normalised pixels. Row 1: the prediction as it is. 2: with mean "
    "and contrast of the visible patches. 3: with those of the true patches, better than the model is. 4: a model that says "
    "nothing, with the true mean of each patch: all that you see under the mask is leaked."
)
figure = plot.reconstructions(*map(to_picture, columns), caption=caption, mode="rows 3 and 4 use the hidden patches (leaks)")
print(plot.save(figure, figures / "mae_normalised.png"))

# %%
# *No decoder weights in the file.* ``mae_pretrain_*`` holds the encoder only: enough for features and fine-tuning (lesson 17),
# not for pictures. A loader that fills the decoder with random numbers gives you noise; ours refuses.

with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:     # Windows keeps files that are mapped
    whole = read_weights(export.export_mae(Path(folder, "mae_visualize.pth"), config, params))
    encoder_only = {name: it.copy() for name, it in whole.tensors.items() if not name.startswith(("decoder_", "mask_token"))}
    try:
        published.load_mae(write_pth(Path(folder, "mae_pretrain.pth"), encoder_only, {"config": whole.meta["config"]}))
        refused = ""
    except ValueError as problem:
        refused = str(problem).partition("mae_pretrain.pth: ")[2]
print(refused)
assert "no reconstruction" in refused

# %%
# Is the mask on at inference?
# ----------------------------
# To restore, yes: there is nothing to restore otherwise. To use the encoder (features, fine-tuning), **no**: all patches go in,
# as into any ViT, and nothing is random. It has never seen so many patches at once, and gets along (lesson 17 measures it),
# since attention takes any number. Left on by accident, the features of one picture change from call to call, and three
# quarters of it are lost.

positions, _ = config.position_tables()
whole = encoder_features(unseen, params["encoder"], positions, heads=config.num_heads, patch_size=config.patch_size)
patches, _ = patchify_forward(unseen, config.patch_size)
calls = []
for draw in rng.random((2, 64, 64)):                            # two calls, with the mask left on
    visible, _, _ = mae.random_masking(draw, config.mask_ratio)
    latent, _ = vit_encoder_forward(patches, params["encoder"], positions, heads=config.num_heads, ids_keep=visible)
    calls.append(latent[:, 1:].mean(axis=1))                    # (64, D) features
moved = np.linalg.norm(calls[0] - calls[1], axis=1).mean()
apart = np.linalg.norm(calls[0] - calls[0][::-1], axis=1).mean()
print(f"nothing hidden {whole.shape}; mask left on {latent.shape}, and between two calls the features of one picture move by "
      f"{moved / apart:.0%} of the distance between two pictures")
assert whole.shape == (64, 65, 64) and latent.shape == (64, 17, 64) and moved > 0.1 * apart

# %%
# Exercises
# ---------
# Replace ``None`` and run the cell again; an assert compares at once.

# 1. A picture of 224 x 224, patches of 16 x 16, 75 % hidden: how many tokens does the encoder see, with the class token?
answer_1 = None
if answer_1 is not None:
    kept_ids, _, _ = mae.random_masking(np.random.default_rng(0).random((1, (224 // 16) ** 2)), 0.75)
    assert answer_1 == 1 + kept_ids.shape[1], "a quarter of 14 x 14, and one more in front"

# 2. ids_shuffle is [2, 0, 3, 1]. What is ids_restore? Write a list.
answer_2 = None
if answer_2 is not None:
    assert list(answer_2) == np.argsort([2, 0, 3, 1]).tolist(), "patch 0 stands at place 1 of the shuffle: it begins with 1"

# 3. Hiding, y[b, k] = x[b, ids_keep[b, k]], needs a backward too: equation (1) of ops.patches. Write it, a function
#    (dy (B, K, D), (ids_keep (B, K), N)) -> dx (B, N, D).
answer_3 = None
if answer_3 is not None:
    checked = gradcheck(lambda x, ids: (np.take_along_axis(x, ids[..., None], axis=1), (ids, x.shape[1])), answer_3,
                        np.ones((2, 64, 3)), ids_keep)
    assert all(row.ok for row in checked), format_rows("hiding", checked)

# %%
# In the articles
# ---------------
# - Article A, opening figures (rows of masked, reconstruction, original, at 75 to 80 % and at 95 %): "Hide and restore" draws
#   the same rows, with one column more, and with a model of a few seconds: expect less.
# - Article A, "MAE": random mask, an encoder that is a ViT on visible patches, a light decoder, mean squared error. The paper
#   counts the error on the hidden patches only; "What loss should I see?" shows what it means to count all. Normalised pixels,
#   the paper's other target, are in "My MAE pictures look wrong".
# - The paper's figure 1 draws the mask tokens between the encoded patches at once; its code, and ours, puts them behind and
#   unshuffles: "Shuffle and unshuffle".
# - Article A's demo notebook, which loads published weights, is lesson 18.
