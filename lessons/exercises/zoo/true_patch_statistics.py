"""MAE's reconstructions in colours that are strangely good.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it.

A model of normalised pixels predicts each patch without its mean and contrast. To draw the prediction, those have to come from
somewhere: here the same two numbers for all patches of a picture,

    (1)  mean, std                           the means over the visible patches of each patch's mean and standard deviation
    (2)  picture   = prediction * std + mean

Patches are (B, N, P), the mask (B, N) is 1 where a patch was removed.
"""
import numpy as np

from tinymae.models.mae import Reconstruction, mae_forward
from tinymae.ops.losses import normalise_patches
from tinymae.ops.patches import patchify_forward, unpatchify

EXERCISE = "true_patch_statistics"                              # python -m tinymae check true_patch_statistics.py


def reconstruct(images, params, config, noise):
    """images (B, img_size, img_size, C) -> Reconstruction: pictures with patches masked, predicted, and pasted."""
    _, cache = mae_forward(images, params, config, noise)
    pred, mask = cache["pred"], cache["mask"]                   # (B, N, P), (B, N)
    patches, _ = patchify_forward(images, config.patch_size)
    _, mean, std = normalise_patches(patches)                   # (1)  (B, N, 1)
    pred = pred * std + mean                                    # (2)
    hidden = mask[..., None] == 1
    drawn = np.where(hidden, 0, patches), pred, np.where(hidden, pred, patches)
    return Reconstruction(*(unpatchify(x, config.patch_size, config.grid) for x in drawn), mask, "normalised pixels")


# ---- why nobody noticed: stop here, and guess first ----
# Each hidden patch was drawn with its own mean and contrast, and those come from the hidden picture: part of the answer
# leaks into the reconstruction. Nobody complained, for the picture looked good. It shows when the pixels under the mask are
# changed: the picture changes with them.
