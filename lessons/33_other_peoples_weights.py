"""
Reading someone else's weights · 读取别人的权重
===============================================

You have downloaded a model: one file, a gigabyte large. What is in it, is it safe to
open, and how do you know that you have read it correctly?

You will be able to look into a .pth and a .safetensors file, to map names and layouts
to your own model, and to test the result against an oracle.

Time: 20 minutes to read, 3 seconds to run. Needs: lesson 29.

Read beside: the demo notebook of He et al. 2021; article A (MAE:Masked Autoencoders Are
Scalable Vision Learners), "MAE"; article C (Transformer模型详解), 3.2.
"""

# %%
# A published file, but a small one
# ---------------------------------
# Meta's files are large and have a licence of their own. So here is the model of this
# package in the same format, with the official names. ``inspect`` reads names and
# shapes only. The file has two tensors more than our tree: the tables of positions.

import json
import os
import pickle
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from tinymae import blocks, plot, tree
from tinymae.gradcheck import gradcheck
from tinymae.images.crops import unseen_crops
from tinymae.images.fills import removed_pixels
from tinymae.images.pixels import to_picture, to_pixels
from tinymae.images.sources import unseen_photo
from tinymae.models import mae
from tinymae.tasks.reconstruct import published_model, reconstruct
from tinymae.weights import export, inspect
from tinymae.weights.pth import write_pth
from tinymae.weights.published import load_mae
from tinymae.weights.read import read_weights
from tinymae.weights.safetensors import write_safetensors
from tinymae.weights.shipped import read_model, shipped

figures, folder = Path("figures"), Path(tempfile.mkdtemp())
config, params, _ = read_model(shipped("mae"), "mae")
published = export.export_mae(folder / "mae_visualize_tiny.pth", config, params)
seen = inspect.inspect(published)
print(f"{published.stat().st_size:,} bytes, {seen.what}. Good for: {seen.can}")
print(*seen.tensors[:6], sep="\n")
assert seen.kind == "mae" and len(seen.tensors) == len(list(tree.leaves(params))) + 2

# %%
# What is in a .pth? A program
# ----------------------------
# A zip archive: one entry for the numbers of each tensor, and ``data.pkl``, a *pickle*,
# Python's way to write down any object. Here it holds names and shapes. But a pickle is
# a program: "call this function with these arguments". The author of the file chooses
# the function. The trap below only makes a folder. The reader of this package builds
# arrays and calls nothing else. In PyTorch: ``torch.load(path, weights_only=True)``.

with zipfile.ZipFile(published) as archive:
    entries = archive.namelist()
print(len(entries), "entries:", ", ".join(entries[:4]), "...")
assert sum("/data/" in entry for entry in entries) == len(seen.tensors)


class Trap:
    def __reduce__(self):
        return os.mkdir, (str(folder / "the file did this"),)


trap, mark = pickle.dumps({"model": Trap()}, protocol=2), folder / "the file did this"
pickle.loads(trap)                                              # a careless loader
assert mark.is_dir()
mark.rmdir()
with zipfile.ZipFile(folder / "bad.pth", "w") as archive:
    archive.writestr("archive/data.pkl", trap)
try:
    read_weights(folder / "bad.pth")
except ValueError as error:
    refused = str(error).partition("bad.pth: ")[2]
print(refused)
assert "mkdir" in refused and not mark.exists()

# %%
# A .safetensors file, as a loop
# ------------------------------
# Eight bytes say how long the header is; the header is JSON and says where each tensor
# is. The rest is numbers. Nothing in such a file can be run.

tensors = read_weights(published).tensors
safe = write_safetensors(folder / "model.safetensors", tensors)


def read_safetensors(path):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    found = {}
    for name, entry in json.loads(raw[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = [8 + length + offset for offset in entry["data_offsets"]]
            found[name] = np.frombuffer(raw[begin:end], "<f4").reshape(entry["shape"])
    return found


ours = read_safetensors(safe)
assert all(np.array_equal(ours[name], tensors[name]) for name in tensors)

# %%
# Names and transposes
# --------------------
# PyTorch's linear layer from 2 to 3 dimensions computes x W^T + b and stores W as (out,
# in) = (3, 2). Here, and in article C, it is x W, with (2, 3). The patch embedding is a
# convolution (D, C, p, p) there; our patches have the order (row, column, channel), so
# the axes move. The table of positions has a first row for the class token, zeros.

encoder = params["encoder"]
qkv = tensors["blocks.0.attn.qkv.weight"]                       # (3 D, D)
assert np.array_equal(qkv.T, encoder["blocks"][0]["attn"]["qkv"]["w"])
kernel = tensors["patch_embed.proj.weight"]                     # (D, C, p, p)
matrix = kernel.transpose(2, 3, 1, 0).reshape(6 * 6 * 3, 128)   # (p p C, D)
assert np.array_equal(matrix, encoder["patch_embed"]["w"])
table = tensors["pos_embed"][0]                                 # (1 + N, D)
assert np.array_equal(table[1:], config.position_tables()[0]) and not table[0].any()

# %%
# An oracle in place of a gradient check
# --------------------------------------
# Reading weights has no backward pass to check. Instead compare with an *oracle*, which
# knows the right answer. Here it is the model before it was written. For a real file it
# is what the original code computes for a known image (``tests/golden`` has some).

read_config, read_params = load_mae(published)
images = to_pixels(unseen_crops(unseen_photo(), 48, 16))        # (16, 48, 48, 3)
noise = np.random.default_rng(1).random((16, 64))


def loss_of(params, config=config):
    return float(mae.mae_forward(images, params, config, noise)[0])


oracle = loss_of(params)
print(f"loss {oracle:.6f} before, {loss_of(read_params):.6f} as read")
assert read_config == config and loss_of(read_params) == oracle

# %%
# What is not in the file
# -----------------------
# An official file does not say how many heads there are: the shapes are the same for
# any number. A wrong one changes the loss by 1 %, and only an oracle sees it. Nor does
# the file say whether the model predicts normalised pixels, or who made it. Meta's
# files are CC-BY-NC 4.0: no commercial use. So the loader asks, and ``inspect`` warns.

stranger = write_pth(folder / "stranger.pth", tensors)          # without our settings
try:
    load_mae(stranger)
except ValueError as error:
    asked = str(error).partition("stranger.pth: ")[2]
print(asked)
assert "give heads" in asked and "CC-BY-NC" in inspect.inspect(stranger).licence
other, same = load_mae(stranger, heads=8, decoder_heads=4, norm_pix_loss=False)
wrong_loss = loss_of(same, other)
print(f"loss with 4 heads {oracle:.4f}, with 8 {wrong_loss:.4f}")
assert 1.001 < wrong_loss / oracle < 1.03

# %%
# Mask a photo, look
# ------------------
# This is article A's demo ("作者提供了预训练模型", a released checkpoint), with the small
# file. For a real one and a photo of your own:
#
# ``python -m tinymae reconstruct photo.jpg --weights mae_visualize_vit_large.pth``

panel = figures / "weights_restored.png"
model, out = published_model(published), folder / "restored.png"
reconstruct("grace_hopper", model, out, figure=panel, detail=32)
print(panel)

# %%
# It paints what was not there, and not like a GAN
# ------------------------------------------------
# Two images agree on the visible patches only. The model sees no difference, so it
# paints the same into both. By hand: a hidden pixel is -1 or 1, equally often. A guess
# g has the mean squared error ((g + 1)^2 + (g - 1)^2) / 2 = g^2 + 1. The best guess is
# 0, a grey that never occurs: squared error paints the mean of what is possible, hence
# the blur. A GAN's adversary would reject that grey. Meta's demo has a second file,
# trained with a GAN loss in addition: ``mae_visualize_vit_large_ganloss.pth``.

errors = [((g + 1) ** 2 + (g - 1) ** 2) / 2 for g in (-1, -0.5, 0, 0.5, 1)]
assert errors == [2, 1.25, 1, 1.25, 2]
hidden = mae.random_masking(noise[:1], 0.75)[2]                 # (1, N)
removed = removed_pixels(hidden, 48, 48, 6)[0, ..., None]       # (48, 48, 1)
pair = np.stack([images[0], np.where(removed, images[1], images[0])])
made = mae.mae_reconstruct(pair, params, config, noise[[0, 0]])
np.testing.assert_allclose(made.pasted[0], made.pasted[1], atol=1e-5)
assert np.abs(pair[0] - pair[1]).max() > 1
caption = "How to read it: the originals differ where nothing is visible; one guess."
columns = [to_picture(it) for it in (*made[:3], pair)]
figure = plot.reconstructions(*columns, caption=caption)
print(plot.save(figure, figures / "weights_guess.png"))

# %%
# Break it: forget the transpose
# ------------------------------
# In most layers (in, out) and (out, in) differ, and the first product fails. But the
# output projection of attention is D x D, and loads either way. The gradient check is
# blind: this attention is correct, but not the trained one. The oracle sees it.

flat = dict(tree.leaves(params))
for path in flat:
    if path.endswith("attn.out.w"):
        flat[path] = flat[path].T
wrong = tree.unflatten(flat, params)
print(f"loss {oracle:.3f}, with square matrices not transposed {loss_of(wrong):.3f}")
assert loss_of(wrong) > 2 * oracle
p = tree.map(lambda leaf: leaf.astype(float), wrong["encoder"]["blocks"][0]["attn"])
x = np.random.default_rng(3).normal(size=(2, 1, 3, 128))        # for q, and for k and v
pair = blocks.multi_head_attention_forward, blocks.multi_head_attention_backward
assert all(row.ok for row in gradcheck(*pair, x[0], x[1], p, heads=4, samples=5))

# %%
# Exercises
# ---------
# 1. How many numbers has the fused q, k, v weight of ViT-L (D = 1024), without bias?
# 2. Write a function that turns a convolution kernel (D, C, p, p) into our matrix.

answer_1 = None
if answer_1 is not None:
    assert answer_1 == np.zeros((1024, 3 * 1024)).size, "three matrices side by side"

answer_2 = None
if answer_2 is not None:
    some = np.random.default_rng(2).normal(size=(5, 3, 2, 2))
    matrix = answer_2(some)                                     # (p p C, D)
    for d, c, row, column in np.ndindex(some.shape):
        assert matrix[6 * row + 3 * column + c, d] == some[d, c, row, column]

# %%
# In the articles
# ---------------
# - **A, "MAE"**: "就像 GAN 一样", like a GAN. It is not: no adversary, but the mean of
#   what is possible: "It paints what was not there, and not like a GAN".
# - **C, 3.2**: W_Q is (in, out), as here, not (out, in): "Names and transposes".

shutil.rmtree(folder, ignore_errors=True)       # Windows keeps a file that is in use
