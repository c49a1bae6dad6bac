"""
Reading someone else's weights · 读取别人的权重
===============================================

A published model is a file of numbers with names. To read it you need no PyTorch: you need to know which number goes where.
What goes wrong is quiet: a matrix that should have been transposed, pixels in another order, heads that nobody wrote down. And
the usual format can run any program on your machine.

Read beside: the demo notebook of He et al. 2021; article A (demo); lesson 16.
"""

# %%
# A tiny published file
# ---------------------
# The real files are large and have a licence, so here is one of our own in the same format: a masked autoencoder, trained for a
# few seconds on crops of two photographs, and written with the names and layouts of the official code.

import json
import os
import pickle
import shutil
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tinymae import plot, tree
from tinymae.gradcheck import gradcheck
from tinymae.images.crops import picture_bank, random_crops, unseen_crops
from tinymae.images.fills import removed_pixels
from tinymae.images.pixels import to_picture, to_pixels
from tinymae.images.sources import load_images, unseen_photo
from tinymae.models import mae
from tinymae.ops.linear import linear_forward
from tinymae.tasks.reconstruct import published_model, reconstruct
from tinymae.train.optim import AdamW, warmup_cosine
from tinymae.weights import export, inspect
from tinymae.weights.pth import write_pth
from tinymae.weights.published import load_mae
from tinymae.weights.read import read_weights
from tinymae.weights.safetensors import write_safetensors

figures, rng = Path("figures"), np.random.default_rng(0)
folder = Path(tempfile.mkdtemp())

# %%
# Training and writing. ``inspect`` reads the names and shapes only, and says what the file is good for.

config = mae.MAEConfig(48, 6, embed_dim=64, depth=2, num_heads=4, decoder_embed_dim=48, decoder_depth=1, decoder_num_heads=4)
params, bank = mae.mae_init(config, rng), picture_bank(load_images("photos")[:2], 48)
optimizer = AdamW(params, betas=(0.9, 0.95), weight_decay=0.05, decays=mae.mae_decays(params))
for step in range(200):
    loss, cache = mae.mae_forward(random_crops(bank, 48, rng, 32), params, config, rng.random((32, 64)))
    optimizer.step(params, mae.mae_backward(1.0, cache), warmup_cosine(step, 200, 10, 4e-3))
published = export.export_mae(folder / "mae_visualize_tiny.pth", config, params)
seen = inspect.inspect(published)
print(f"{published.stat().st_size:,} bytes: {seen.what}. Good for: {seen.can}")
for name, shape, dtype in seen.tensors[:7]:
    print(f"  {name:28} {shape!s:16} {dtype}")
assert seen.kind == "mae" and len(seen.tensors) == len(list(tree.leaves(params))) + 2       # two tables of positions

# %%
# A file of tensors, as a loop
# ----------------------------
# The simplest format is safetensors: eight bytes say how long the header is, the header is JSON and says where each tensor
# lies, and the rest is numbers. A reader fits into ten lines, and there is nothing in such a file that could be run.

tensors = read_weights(published).tensors
safe = write_safetensors(folder / "model.safetensors", tensors)


def read_safetensors(path):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    found = {}
    for name, entry in json.loads(raw[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(raw[begin:end], "<f4").reshape(entry["shape"])      # all float32 here
    return found


ours, theirs = read_safetensors(safe), read_weights(safe).tensors
assert ours.keys() == theirs.keys() == tensors.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)
print(len(ours), "tensors, the same as with the package, and as in the .pth")

# %%
# What is in a .pth?
# ------------------
# A zip. One entry for the numbers of each tensor, a few short notes (version, order of bytes), and ``data.pkl``, a *pickle*:
# Python's own way to write down any object. Here it says what the tensors are called, and which shape they have.

with zipfile.ZipFile(published) as archive:
    entries = archive.namelist()
    program = archive.read("archive/data.pkl")
print(len(entries), "entries:", ", ".join(entries[:4]), "...")
print("the pickle begins", program[:60])
assert "archive/data.pkl" in entries and len([entry for entry in entries if "/data/" in entry]) == len(tensors)

# %%
# A pickle can run anything
# -------------------------
# A pickle is not data, it is a program: "call this function with these arguments". Whoever made the file chooses the function.
# This one only makes a folder; it could as well delete yours.


class Trap:
    def __reduce__(self):
        return os.mkdir, (str(folder / "the file did this"),)


trap, mark = pickle.dumps({"model": Trap()}, protocol=2), folder / "the file did this"
pickle.loads(trap)                                              # what a careless loader does
print("after pickle.loads, the folder is there:", mark.is_dir())
assert mark.is_dir()
mark.rmdir()

bad = folder / "bad.pth"
with zipfile.ZipFile(published) as good, zipfile.ZipFile(bad, "w") as archive:
    for entry in good.namelist():
        archive.writestr(entry, trap if entry.endswith("data.pkl") else good.read(entry))
try:
    read_weights(bad)
    refused = ""
except ValueError as error:
    refused = str(error).partition("bad.pth: ")[2]
print(refused)
assert "mkdir" in refused and "nothing was executed" in refused and not mark.exists()

# %%
# The reader here is a small machine of its own: it knows the handful of names that tensors need, builds arrays, and has no
# instruction that calls anything. If you use PyTorch: ``torch.load(path, weights_only=True)``, or take the safetensors file.

# %%
# Names and transposes
# --------------------
# Three differences between their numbers and ours, (1), (2) and (4) of ``pretrained``, each undone by hand. A linear layer is
# (out, in) there, (in, out) here. The patch embedding is a convolution (D, C, p, p) there; our words are read as (row, column,
# channel), so the axes turn. And the table of positions has a row for the class token, zeros, in front.

D, p = config.embed_dim, config.patch_size
encoder = params["encoder"]
by_hand = {
    "blocks.0.attn.qkv.weight": (tensors["blocks.0.attn.qkv.weight"].T, encoder["blocks"][0]["attn"]["qkv"]["w"]),
    "patch_embed.proj.weight": (tensors["patch_embed.proj.weight"].transpose(2, 3, 1, 0).reshape(p * p * 3, D),
                                encoder["patch_embed"]["w"]),
    "pos_embed": (tensors["pos_embed"][0, 1:], config.position_tables()[0]),
}
for name, (turned, own) in by_hand.items():
    print(f"{name:26} {tensors[name].shape!s:16} -> {turned.shape}")
    assert np.array_equal(turned, own)
assert not tensors["pos_embed"][0, 0].any()

# %%
# No backward here: an oracle instead
# -----------------------------------
# Reading weights moves numbers and trains nothing, so there is no backward of its own, and no gradient to check. The check is
# an *oracle*: somebody who knows the right answer. Here it is the model before it was written; with a real file, numbers that
# the original code printed for a known picture (for this package: ``tests/golden``, made with PyTorch).

read_config, read_params = load_mae(published)
assert read_config == config
for (path, before), (_, after) in zip(tree.leaves(params), tree.leaves(read_params), strict=True):
    assert np.array_equal(before, after), path
images = to_pixels(unseen_crops(unseen_photo(), 48, 64))
noise = np.random.default_rng(1).random((64, 64))


def loss_of(params, config=config):
    return float(mae.mae_forward(images, params, config, noise)[0])


oracle = loss_of(params)
assert loss_of(read_params) == oracle
_, again = load_mae(export.export_vit_mae(folder / "vit-mae", config, params))
print(f"loss {oracle:.4f} before, {loss_of(read_params):.4f} from the .pth, {loss_of(again):.4f} from a Hugging Face folder")
assert loss_of(again) == oracle

# %%
# Mask a photo, look
# ------------------
# This is the paper's demo notebook. With a real file, after you have read its licence and fetched it yourself:
#
# ``python -m tinymae reconstruct photo.jpg --weights mae_visualize_vit_large.pth``
#
# The same function, with the tiny file. The model has seen seconds of training and 48 x 48 pixels: expect blur.

photo = folder / "photo.png"
Image.fromarray(unseen_photo()).save(photo)
panel = figures / "weights_restored.png"
reconstruct(photo, published_model(published), folder / "restored.png", figure=panel, mask_ratio=0.75)
print(panel)

# %%
# It generates content that was not there
# ---------------------------------------
# Two pictures that agree on every visible patch, and on no other. The model answers the same, to the last bit: it cannot know.
# What it paints under the mask is a guess from what it was trained on, never a recovery, however real a large model's guess
# looks.

removed = removed_pixels(mae.random_masking(noise[6:7], 0.75)[2], 48, 48, 6)[0, ..., None]              # (48, 48, 1)
other = random_crops(bank, 48, np.random.default_rng(5), 1)[0]
pair = np.stack([images[6], np.where(removed, other, images[6])])
shown = [mae.mae_reconstruct(picture[None], read_params, config, noise[6:7]) for picture in pair]
assert np.array_equal(shown[0].pasted, shown[1].pasted) and not np.array_equal(pair[0], pair[1])
caption = (
    "How to read it: two different originals (right) whose visible patches (left) are the same. So is what the model makes of "
    "them: it paints what is likely, not what was there."
)
columns = [np.concatenate([it[column] for it in shown]) for column in range(3)]
figure = plot.reconstructions(*map(to_picture, (*columns, pair)), title="The same guess for two pictures", caption=caption)
print(plot.save(figure, figures / "weights_guess.png"))

# %%
# Break it: forget the transpose
# ------------------------------
# Most layers defend themselves: (in, out) and (out, in) are different shapes, and the first product fails. But the output
# projection of attention is D x D, and loads either way. So does a kernel whose pixels are read in the order of its own axes
# (channel, row, column), and a model with twice as many heads: how many there are is not in an official file.

try:
    linear_forward(np.zeros((1, 64), np.float32), tensors["decoder_embed.weight"])          # 64 in, 48 out
    refused = ""
except ValueError as error:
    refused = str(error)
print(refused)
assert "PyTorch" in refused


def read_wrongly(changes):
    flat = dict(tree.leaves(params))
    return tree.unflatten(flat | {path: change(flat[path]) for path, change in changes.items()}, params)


squares = [path for path, leaf in tree.leaves(params) if path.endswith("attn.out.w")]
kernel = tensors["patch_embed.proj.weight"]                     # (D, C, p, p)
wrong = {
    "square matrices not transposed": (read_wrongly({path: np.transpose for path in squares}), config),
    "pixels of a patch in their order": (read_wrongly({"encoder.patch_embed.w": lambda w: kernel.reshape(D, -1).T}), config),
    "8 heads instead of 4": (params, replace(config, num_heads=8)),
}
losses = {name: loss_of(*model) for name, model in wrong.items()}
print(f"right {oracle:.3f};", {name: round(loss, 3) for name, loss in losses.items()})
assert losses["square matrices not transposed"] > 1.1 * oracle
assert all(abs(loss - oracle) > 1e-5 * oracle for loss in losses.values())
assert abs(losses["8 heads instead of 4"] - oracle) < 0.05 * oracle

# %%
# No error anywhere. A gradient check is blind to all three: each is a correct model, only not the one that was trained. The
# wrong heads change the loss of this little-trained model so little that nobody would look twice (one that relies on its heads
# suffers more); an oracle, compared to the last digits, sees all three.

for name, (model, its_config) in wrong.items():
    double = tree.map(lambda leaf: leaf.astype(np.float64), model)
    rows = gradcheck(lambda params, **inputs: mae.mae_forward(params=params, **inputs), mae.mae_backward, double, samples=1,
                     images=images[:1].astype(np.float64), noise=noise[:1], config=its_config)
    print(f"{name}: {sum(row.ok for row in rows)} of {len(rows)} tensors right, says the check")
    assert all(row.ok for row in rows)
ways = [(params, config), *wrong.values()]
drawn = [mae.mae_reconstruct(images[6:7], *model, noise[6:7]) for model in ways]
columns = [np.concatenate([it[column] for it in drawn]) for column in range(3)]
caption = (
    "How to read it: one picture, four ways to read the same file. Row 1 is right. Row 2: the square matrices are not "
    "transposed. Row 3: the pixels of each patch are in another order. Row 4: twice as many heads. Only row 1 is what the "
    "model has learned; compare the third column."
)
columns = [to_picture(column) for column in (*columns, images[[6] * 4])]
figure = plot.reconstructions(*columns, caption=caption, mode="rows 2 to 4 are read wrongly")
print(plot.save(figure, figures / "weights_read_wrongly.png"))

# %%
# What is not in the file, and what you may do with it
# ----------------------------------------------------
# An official file has no number of heads, no eps (1e-6) and does not say whether it predicts normalised pixels. For the
# published sizes the heads are known; for everything else the loader asks. A file with a decoder of those names could be
# Meta's, and then it is CC-BY-NC 4.0: free for non-commercial use only, with attribution. The reader says that each time;
# nothing here downloads or contains such a file.

stranger = write_pth(folder / "stranger.pth", {name: it.copy() for name, it in tensors.items()})
print(inspect.inspect(stranger).licence)
assert "CC-BY-NC" in inspect.inspect(stranger).licence and not seen.licence          # ours says that it is ours
try:
    load_mae(stranger)
    asked = ""
except ValueError as error:
    asked = str(error).partition("stranger.pth: ")[2]
print(asked)
assert "give heads" in asked
_, named = load_mae(stranger, heads=4, decoder_heads=4, norm_pix_loss=False)
assert loss_of(named) == oracle

# %%
# Exercises
# ---------
# Replace ``None`` and run the cell again; an assert compares at once.

# 1. How many numbers are in one fused q, k, v weight of ViT-L (width 1024), without its bias?
answer_1 = None
if answer_1 is not None:
    large = mae.mae_init(mae.MAEConfig(embed_dim=1024, depth=1, num_heads=16), None)
    assert answer_1 == large["encoder"]["blocks"][0]["attn"]["qkv"]["w"].size, "three matrices of width x width, side by side"

# 2. Which kinds of file can restore a picture? Write a set of keys of weights.inspect.KINDS.
answer_2 = None
if answer_2 is not None:
    able = {kind for kind, (_, can) in inspect.KINDS.items() if can.startswith("reconstruct")}
    assert set(answer_2) == able, "only those with a decoder: an encoder, or a classifier, has nothing to paint with"

# 3. Write a function that turns a convolution kernel (D, C, p, p) into our matrix (P, D), without looking above.
answer_3 = None
if answer_3 is not None:
    some = np.random.default_rng(2).normal(size=(5, 3, 2, 2))
    matrix = answer_3(some)
    assert matrix.shape == (12, 5), "a word of 2 x 2 pixels and 3 channels has 12 numbers, and becomes 5"
    for d, c, row, col in np.ndindex(some.shape):
        assert matrix[6 * row + 3 * col + c, d] == some[d, c, row, col], "the order of a word is row, column, channel"

# %%
# In the articles
# ---------------
# - Article A, demo: the official notebook loads a released checkpoint, masks a photo, and shows the restored one. Here: "Mask a
#   photo, look". The notebook squeezes a photograph into a square; ours takes its central square.
# - Article A, "generates content that was not there": the section of that name makes it exact. Two pictures with the same
#   visible patches get the same answer.
# - Article A, opening figures: lesson 16 draws the same rows with a small model of its own.
# - Article C writes Q = X W_Q and max(0, x W1 + b1) W2 + b2: the weights are (in, out), as here. PyTorch's ``nn.Linear`` stores
#   (out, in).

shutil.rmtree(folder, ignore_errors=True)                      # Windows keeps files that are still mapped
