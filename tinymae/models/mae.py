"""Masked Autoencoder: He et al. 2021, "Masked Autoencoders Are Scalable Vision Learners"; article A.

    hide 75 % of the patches at random -> encode the visible ones (a ViT) -> put mask tokens where patches are hidden
    -> a light decoder sees all positions -> predict the pixels -> squared error on the hidden patches only

The encoder never sees a mask token: that makes it several times faster, and it is the reason for the high ratio.
In a mask 1 = removed, 0 = visible, as in the paper's code.

Differs: fixed positions are computed where they are needed and are no parameters; pictures are (B, rows, cols, C) and may be
any rectangle of patches. A batch with nothing removed has loss 0 where the paper's code divides by zero.
"""
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tinymae import init, tree
from tinymae.blocks import encoder_backward, encoder_forward
from tinymae.models.patch_encoder import check_images, vit_encoder_backward, vit_encoder_forward, vit_encoder_init
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import masked_mse_backward, masked_mse_forward, normalise_patches
from tinymae.ops.patches import patchify_forward, unpatchify, unshuffle_backward, unshuffle_forward
from tinymae.ops.positional import positional_backward, positional_forward, sincos_2d


@dataclass(frozen=True)
class MAEConfig:
    """Sizes of a masked autoencoder; the names are those of the paper's code, the defaults its ViT-B.

    Raises
    ------
    ValueError
        where the sizes do not fit each other, or mask_ratio is outside [0, 1)
    """

    img_size: int = 224             # side of the square picture; a multiple of patch_size
    patch_size: int = 16
    in_chans: int = 3               # any number of channels
    embed_dim: int = 768            # D of the encoder: a multiple of 4 (positions) and of num_heads
    depth: int = 12                 # L of the encoder
    num_heads: int = 12
    decoder_embed_dim: int = 512    # D of the decoder, likewise
    decoder_depth: int = 8
    decoder_num_heads: int = 16
    mlp_ratio: float = 4.0          # F / D, in both
    mask_ratio: float = 0.75        # share of the patches to hide
    norm_pix_loss: bool = field(default=False)  # predict each patch with mean 0 and variance 1
    eps: float = 1e-6               # of every layer norm, as in the paper's code (PyTorch's default is 1e-5)

    def __post_init__(self):
        if self.img_size < 1 or self.patch_size < 1 or self.img_size % self.patch_size:
            raise ValueError(f"expected img_size to be a multiple of patch_size {self.patch_size}, got {self.img_size}")
        for name, width, heads in (
            ("embed_dim", self.embed_dim, self.num_heads),
            ("decoder_embed_dim", self.decoder_embed_dim, self.decoder_num_heads),
        ):
            if width < 1 or heads < 1 or width % 4 or width % heads:
                raise ValueError(f"expected {name} to be a multiple of 4 and of its {heads} heads, got {width}")
        check_mask_ratio(self.mask_ratio)

    @property
    def grid(self):
        """(int, int), patches down and across."""
        return (self.img_size // self.patch_size,) * 2

    @property
    def num_patches(self) -> int:
        """N, patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def values(self):
        """int, P: numbers in a patch."""
        return self.patch_size**2 * self.in_chans

    def position_tables(self, dtype=np.float32):
        """The fixed positions of encoder and decoder, (N, D) each; the class token's would be zeros."""
        return tuple(sincos_2d(self.grid, d).astype(dtype) for d in (self.embed_dim, self.decoder_embed_dim))


def check_mask_ratio(mask_ratio):
    """Raise a ValueError unless mask_ratio is in [0, 1)."""
    if not 0 <= mask_ratio < 1:
        raise ValueError(f"expected a mask ratio in [0, 1), got {mask_ratio}: 0.75 hides three quarters of the patches")


def mae_init(config, rng, dtype=np.float32):
    """Fresh parameters: xavier for every matrix, 0.02 normal for the two tokens, as in the paper's code.

    Parameters
    ----------
    config : MAEConfig
    rng : numpy.random.Generator, or None for zeros (the shapes without the work)

    Returns
    -------
    {"encoder": as `vit_encoder_init`,
     "decoder": {"embed", "mask_token" (1, 1, E), "blocks", "norm", "pred": {"w" (E, P), "b"}}}
    """
    width = config.decoder_embed_dim
    encoder = vit_encoder_init(
        config.values, config.embed_dim, config.depth, config.num_heads, int(config.embed_dim * config.mlp_ratio), rng, dtype
    )
    hidden = int(width * config.mlp_ratio)
    decoder = {
        "embed": init.linear(config.embed_dim, width, rng, dtype=dtype),
        "mask_token": init.normal((1, 1, width), rng, dtype=dtype),
        "blocks": [
            init.encoder_layer(width, config.decoder_num_heads, hidden, rng, dtype=dtype, fused=True)
            for _ in range(config.decoder_depth)
        ],
        "norm": init.layernorm(width, dtype),
        "pred": init.linear(width, config.values, rng, dtype=dtype),
    }
    return {"encoder": encoder, "decoder": decoder}


def mae_count(config):
    """How many numbers a model of this config has, with the fixed positions, as the paper's checkpoints count."""
    fixed = (1 + config.num_patches) * (config.embed_dim + config.decoder_embed_dim)
    return tree.count(mae_init(config, None)) + fixed


def mae_decays(params):
    """A tree of bool: what weight decay acts on. As in the paper's code, all but vectors: no bias, no layer norm."""
    return tree.map(lambda leaf: leaf.ndim > 1, params)


def random_masking(noise, mask_ratio):
    """Choose the patches to hide: sort noise, keep the small ones.

        (1)  ids_shuffle[b] = the patches in the order of their noise, smallest first
        (2)  ids_keep[b]    = the first K of them,  K = int(N (1 - mask_ratio))
        (3)  ids_restore[b, n] = where patch n is in the shuffle: ids_shuffle[b, ids_restore[b, n]] = n
        (4)  mask[b, n]     = 1 where patch n is removed, 0 where it stays visible

    Parameters
    ----------
    noise : ndarray of shape (B, N), one number for each patch
    mask_ratio : float in [0, 1)

    Returns
    -------
    ids_keep : int ndarray of shape (B, K), K = int(N (1 - mask_ratio)), visible patches in the order of the shuffle
    ids_restore : int ndarray of shape (B, N), where each patch is in the shuffle
    mask : int8 ndarray of shape (B, N), 1 = removed, 0 = visible

    Notes
    -----
    Why argsort twice: ids_shuffle[j] is the patch that comes j-th in the shuffle; its argsort is its inverse permutation,
    which says for each patch where it went.
    """
    check_mask_ratio(mask_ratio)
    number = noise.shape[1]
    kept = int(number * (1 - mask_ratio))
    ids_shuffle = np.argsort(noise, axis=1, kind="stable")      # small: keep; large: remove
    ids_restore = np.argsort(ids_shuffle, axis=1, kind="stable")
    return ids_shuffle[:, :kept], ids_restore, (ids_restore >= kept).astype(np.int8)


def mae_forward(images, params, config, noise):
    """Hide patches, restore them, and say how well.

    Parameters
    ----------
    images : ndarray of shape (B, img_size, img_size, C), float32 or float64; data, they get no gradient
    params : tree of `mae_init`, of the same dtype
    config : MAEConfig
    noise : ndarray of shape (B, N), as rng.random((B, N)): chooses what is hidden, see `random_masking`

    Returns
    -------
    loss : scalar, mean squared error on the hidden patches
    cache : dict; cache["pred"] (B, N, P) is the prediction (of normalised pixels with norm_pix_loss),
        cache["mask"] (B, N) has 1 where a patch was removed

    Raises
    ------
    TypeError, ValueError
        where images or noise do not fit the config, or pixels are not finite
    """
    check_images(images, config)
    if noise.shape != (len(images), config.num_patches):
        raise ValueError(f"expected noise (B, N) = ({len(images)}, {config.num_patches}), got {noise.shape}")
    positions, decoder_positions = config.position_tables(images.dtype)
    patches, _ = patchify_forward(images, config.patch_size)                            # (B, N, P)
    ids_keep, ids_restore, mask = random_masking(noise, config.mask_ratio)
    latent, encoder = vit_encoder_forward(patches, params["encoder"], config.num_heads, positions, ids_keep, config.eps)
    pred, decoder = mae_decoder_forward(
        latent, ids_restore, params["decoder"], config.decoder_num_heads, decoder_positions, config.eps
    )
    target = normalise_patches(patches)[0] if config.norm_pix_loss else patches
    loss, loss_cache = masked_mse_forward(pred, target, mask)
    return loss, {"encoder": encoder, "decoder": decoder, "loss": loss_cache, "pred": pred, "mask": mask}


def mae_backward(dloss, cache):
    """Gradient dparams of `mae_forward`, in the tree of params, from the scalar dloss. Empties the cache on the way."""
    dpred = masked_mse_backward(dloss, cache["loss"])
    dlatent, ddecoder = mae_decoder_backward(dpred, cache["decoder"])
    _, dencoder, _ = vit_encoder_backward(dlatent, cache["encoder"])
    return {"encoder": dencoder, "decoder": ddecoder}


def mae_decoder_forward(latent, ids_restore, p, heads, positions, eps=1e-6):
    """Predict every patch from the visible ones.

    Parameters
    ----------
    latent : ndarray of shape (B, 1 + K, D), the encoder's output, class token first
    ids_restore : int ndarray of shape (B, N), of `random_masking`
    p : {"embed", "mask_token", "blocks", "norm", "pred"}
    heads : int
    positions : ndarray of shape (N, E): without them all mask tokens would be the same
    eps : float, of the layer norms

    Returns
    -------
    pred : ndarray of shape (B, N, P)
    cache : dict
    """
    x, embed = linear_forward(latent, **p["embed"])                                     # (B, 1 + K, E)
    patches, unshuffle = unshuffle_forward(x[:, 1:], p["mask_token"], ids_restore)      # (B, N, E)
    patches, positional = positional_forward(patches, positions)
    x = np.concatenate([x[:, :1], patches], axis=1)                                     # (B, 1 + N, E)
    x, decoder = encoder_forward(x, p, heads, eps=eps)
    pred, pred_cache = linear_forward(x[:, 1:], **p["pred"])                            # (B, N, P), without the class token
    return pred, {"embed": embed, "unshuffle": unshuffle, "positional": positional, "decoder": decoder, "pred": pred_cache}


def mae_decoder_backward(dpred, cache):
    """Gradients (dlatent, dp) of `mae_decoder_forward`, from dpred (B, N, P)."""
    dpatches, dw, db = linear_backward(dpred, cache["pred"])
    dx = np.concatenate([np.zeros_like(dpatches[:, :1]), dpatches], axis=1)             # the class token predicts nothing
    dx, dp = encoder_backward(dx, cache["decoder"])
    dpatches, _ = positional_backward(dx[:, 1:], cache["positional"])
    dpatches, dmask_token = unshuffle_backward(dpatches, cache["unshuffle"])
    dx = np.concatenate([dx[:, :1], dpatches], axis=1)                                  # (B, 1 + K, E)
    dlatent, dembed_w, dembed_b = linear_backward(dx, cache["embed"])
    return dlatent, {
        "embed": {"w": dembed_w, "b": dembed_b},
        "mask_token": dmask_token,
        **dp,
        "pred": {"w": dw, "b": db},
    }


class Reconstruction(NamedTuple):
    """What `mae_reconstruct` returns; every picture is (B, img_size, img_size, C), in the units of the input."""

    masked: np.ndarray              # hidden patches at 0, which is mid grey
    reconstruction: np.ndarray      # the prediction, everywhere
    pasted: np.ndarray              # the prediction where it was hidden, the true pixels where it was not
    mask: np.ndarray                # (B, N), 1 = removed
    mode: str                       # how the prediction became pixels; "" for a model of plain pixels


def mae_reconstruct(images, params, config, noise, statistics="visible"):
    """Hide patches and draw what the model makes of the rest.

    Parameters
    ----------
    images, params, config, noise : as `mae_forward`
    statistics : "visible" or "true"; matters only where config.norm_pix_loss. Such a model predicts each patch without its
        mean and contrast, and those have to come from somewhere. "visible": the mean and the typical deviation of the
        picture's visible patches, nothing of the answer. "true": each patch's own, from the hidden picture:
        **part of the answer leaks into the picture**, and `mode` says so.

    Returns
    -------
    Reconstruction

    Notes
    -----
    Visible patches look bad in `reconstruction`: no loss ever asked for them. `pasted` covers them.
    """
    if statistics not in ("visible", "true"):
        raise ValueError(f"expected statistics 'visible' or 'true', got {statistics!r}")
    _, cache = mae_forward(images, params, config, noise)
    pred, mask = cache["pred"], cache["mask"]
    patches, _ = patchify_forward(images, config.patch_size)
    mode = ""
    if config.norm_pix_loss:
        _, mean, std = normalise_patches(patches)                                       # (B, N, 1)
        mode = "normalised pixels: mean and contrast of each patch taken from the TRUE picture (leaks)"
        if statistics == "visible":
            visible = (1 - mask)[..., None].astype(patches.dtype)
            shown = np.maximum(visible.sum(axis=1, keepdims=True), 1)
            mean, std = ((s * visible).sum(axis=1, keepdims=True) / shown for s in (mean, std))
            mode = "normalised pixels: mean and contrast taken from the visible patches"
        pred = pred * std + mean
    hidden = mask[..., None] == 1
    drawn = (np.where(hidden, 0, patches), pred, np.where(hidden, pred, patches))
    pictures = (unpatchify(x.astype(patches.dtype, copy=False), config.patch_size, config.grid) for x in drawn)
    return Reconstruction(*pictures, mask, mode)


@dataclass(frozen=True)
class StoredPositions(MAEConfig):
    """A MAEConfig whose fixed positions are those of a file, not the computed table.

    So a file is computed with its own numbers, to the last bit: also where they were rounded to half precision, or are not
    sines and cosines at all. It is for using a model; a training checkpoint cannot hold the tables.
    """

    tables: tuple = field(default=(), compare=False, repr=False)    # of encoder (N, D) and decoder (N, E)

    def position_tables(self, dtype=np.float32):
        """The positions of encoder and decoder, (N, D) each."""
        return tuple(table.astype(dtype) for table in self.tables)
