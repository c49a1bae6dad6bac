"""Masked Autoencoder, images in, predicted patches out: He et al. 2021; article A.

    hide 75 % of the patches at random -> encode the visible ones (a ViT) -> put mask tokens where patches are hidden
    -> a light decoder receives all positions -> predict the pixels -> squared error on the hidden patches only

Most patches are hidden, because images are redundant: a single missing patch can be filled in from its neighbours (section 1
and figure 5 of the paper). The encoder sees the few visible ones only, and never a mask token: that makes it several times
faster.
In a mask 1 = removed, 0 = visible, as in the paper's code.

Differs: fixed positions are computed when they are needed and are not parameters; images are (B, rows, cols, C). A batch with
nothing removed has loss 0, where the paper's code divides by zero.
"""
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tinymae import init, tree
from tinymae.arguments import check_scalars, check_settings
from tinymae.blocks import encoder_backward, encoder_forward
from tinymae.messages import marked, message
from tinymae.models.patch_encoder import (
    check_images,
    check_sizes,
    vit_encoder_backward,
    vit_encoder_forward,
    vit_encoder_init,
)
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import masked_mse_backward, masked_mse_forward, normalise_patches
from tinymae.ops.patches import image_sides, patch_grid, patchify_forward, unpatchify, unshuffle_backward, unshuffle_forward
from tinymae.ops.positional import positional_backward, positional_forward, sincos_2d


@dataclass(frozen=True)
class MAEConfig:
    """Sizes of a masked autoencoder; the names are those of the paper's code, the defaults its ViT-B.

    Raises
    ------
    ValueError
        if the sizes do not fit each other, or mask_ratio is outside [0, 1)
    """

    img_size: int | tuple[int, int] = 224       # side of a square image, or (rows, cols); multiples of patch_size
    patch_size: int = 16
    in_chans: int = 3               # any number of channels
    embed_dim: int = 768            # D of the encoder: a multiple of 4 (positions) and of num_heads
    depth: int = 12                 # L of the encoder
    num_heads: int = 12
    decoder_embed_dim: int = 512    # D of the decoder, likewise
    decoder_depth: int = 8
    decoder_num_heads: int = 16
    mlp_ratio: float = 4.0          # F / D, in both
    mask_ratio: float = 0.75        # fraction of the patches to hide
    norm_pix_loss: bool = False     # predict each patch with mean 0 and variance 1
    eps: float = 1e-6               # of every layer norm, as in the paper's code (PyTorch's default is 1e-5)

    def __post_init__(self) -> None:
        rows, cols = image_sides(self.img_size)
        object.__setattr__(self, "img_size", rows if rows == cols else (rows, cols))    # (224, 224) is 224; a list is a tuple
        check_settings(
            self, counts=("patch_size", "in_chans", "embed_dim", "num_heads", "decoder_embed_dim", "decoder_num_heads"),
            sizes=("depth", "decoder_depth"), positive=("mlp_ratio",), not_negative=("eps",), switches=("norm_pix_loss",),
        )
        for name, width, heads in (
            ("embed_dim", self.embed_dim, self.num_heads),
            ("decoder_embed_dim", self.decoder_embed_dim, self.decoder_num_heads),
        ):
            if width % 4 or width % heads:
                raise ValueError(message(
                    marked("expected {name} to be a multiple of 4 and of its {heads} heads, got {width}"),
                    name=name, heads=heads, width=width,
                ))
        check_sizes(self.img_size, self.patch_size)
        check_mask_ratio(self.mask_ratio)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return patch_grid(self.img_size, self.patch_size)

    @property
    def num_patches(self) -> int:
        """N, patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def values(self) -> int:
        """P, numbers in a patch."""
        return self.patch_size**2 * self.in_chans

    def position_tables(self, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
        """The fixed positions of encoder (N, D) and decoder (N, E); the class token's would be zeros."""
        return tuple(sincos_2d(self.grid, d).astype(dtype) for d in (self.embed_dim, self.decoder_embed_dim))


def check_mask_ratio(mask_ratio: float) -> None:
    """Raise a ValueError unless mask_ratio is in [0, 1)."""
    check_scalars("", "fraction", hint=marked("0.75 hides three quarters of the patches"), mask_ratio=mask_ratio)


def mae_init(config: MAEConfig, rng: np.random.Generator | None, dtype: type = np.float32) -> dict:
    """Fresh parameters: xavier for every matrix, normal with 0.02 for the two tokens, as in the paper's code.

    Every bias is 0 except that of the patch embedding, which the paper's code leaves at the default of nn.Conv2d: uniform in
    +-1 / sqrt(P).

    With rng=None all weights are zero: the shapes, without the draws.

    Returns
    -------
    {"encoder": as `vit_encoder_init`,
     "decoder": {"embed", "mask_token" (1, 1, E), "blocks", "norm", "pred": {"w" (E, P), "b"}}}
    """
    width = config.decoder_embed_dim
    encoder = vit_encoder_init(
        config.values, config.embed_dim, rng, depth=config.depth, heads=config.num_heads,
        hidden=int(config.embed_dim * config.mlp_ratio), dtype=dtype,
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
    if rng is not None:
        bound = 1 / math.sqrt(config.values)
        encoder["patch_embed"]["b"] = rng.uniform(-bound, bound, config.embed_dim).astype(dtype)
    return {"encoder": encoder, "decoder": decoder}


def mae_count(config: MAEConfig) -> int:
    """The number of parameters of a model, including the fixed positions, as the paper's checkpoints count them."""
    fixed = (1 + config.num_patches) * (config.embed_dim + config.decoder_embed_dim)
    return tree.count(mae_init(config, None)) + fixed


def mae_decays(params: dict) -> dict:
    """A tree of bool, True where weight decay acts: as in the paper's code, on all but vectors (bias, layer norm)."""
    return tree.map(lambda leaf: leaf.ndim > 1, params)


def mae_matrices(params: dict) -> dict:
    """A tree of int for `train.optim.Muon`: 3 for a fused q/k/v of a block, 1 for its other matrices, 0 for all else."""
    def count(path, leaf):
        return (3 if path.endswith("qkv.w") else 1) if ".blocks." in path and leaf.ndim == 2 else 0

    return tree.unflatten({path: count(path, leaf) for path, leaf in tree.leaves(params)}, params)


def random_masking(noise: np.ndarray, mask_ratio: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose the patches to hide: sort noise, and keep the patches with the smallest.

        (1)  ids_shuffle[b] = order(noise[b])                           the patches in the order of their noise, smallest first
        (2)  ids_keep[b] = ids_shuffle[b, :K],  K = int(N (1 - mask_ratio))      the first K of them
        (3)  ids_shuffle[b, ids_restore[b, n]] = n                      ids_restore[b, n]: where patch n is in the shuffle
        (4)  mask[b, n] = 1 or 0                                        1: patch n is removed, 0: it stays visible

    Parameters
    ----------
    noise : ndarray of shape (B, N), one number for each patch
    mask_ratio : in [0, 1)

    Returns
    -------
    ids_keep : int ndarray of shape (B, K), the visible patches in the order of the shuffle
    ids_restore : int ndarray of shape (B, N), where each patch is in the shuffle
    mask : int8 ndarray of shape (B, N), 1 = removed, 0 = visible

    Notes
    -----
    Why argsort twice: ids_shuffle[j] is the patch that comes j-th in the shuffle; its argsort is the inverse permutation,
    which gives the position of each patch in the shuffle.
    """
    check_mask_ratio(mask_ratio)
    number = noise.shape[1]
    kept = int(number * (1 - mask_ratio))
    ids_shuffle = np.argsort(noise, axis=1, kind="stable")      # small: keep; large: remove
    ids_restore = np.argsort(ids_shuffle, axis=1, kind="stable")
    return ids_shuffle[:, :kept], ids_restore, (ids_restore >= kept).astype(np.int8)


def mae_forward(
    images: np.ndarray, params: dict, config: MAEConfig, noise: np.ndarray
) -> tuple[np.floating, dict]:
    """Hide patches, predict them, and measure the error.

    Parameters
    ----------
    images : ndarray of shape (B, rows, cols, C), float32 or float64; data, so they get no gradient
    params : tree of `mae_init`, of the same dtype
    noise : ndarray of shape (B, N), as rng.random((B, N)): chooses the hidden patches, see `random_masking`

    Returns
    -------
    loss : scalar, mean squared error on the hidden patches
    cache : dict; cache["pred"] (B, N, P) is the prediction (of normalised pixels with norm_pix_loss),
        cache["mask"] (B, N) has 1 where a patch was removed, cache["latent"] (B, 1 + K, D) is the encoder's output, and
        cache["ids_restore"] (B, N) says where each patch is in the shuffle, see `random_masking`

    Raises
    ------
    TypeError, ValueError
        if images or noise do not fit the config, or pixels are not finite
    """
    check_images(images, config.img_size, config.in_chans)
    _check_noise(images, config, noise)
    positions, decoder_positions = config.position_tables(images.dtype)
    patches, _ = patchify_forward(images, config.patch_size)                            # (B, N, P)
    ids_keep, ids_restore, mask = random_masking(noise, config.mask_ratio)
    latent, encoder = vit_encoder_forward(
        patches, params["encoder"], positions, heads=config.num_heads, ids_keep=ids_keep, eps=config.eps
    )
    pred, decoder = mae_decoder_forward(
        latent, params["decoder"], decoder_positions, heads=config.decoder_num_heads, ids_restore=ids_restore, eps=config.eps
    )
    target = normalise_patches(patches)[0] if config.norm_pix_loss else patches
    loss, loss_cache = masked_mse_forward(pred, target, mask)
    return loss, {
        "encoder": encoder, "decoder": decoder, "loss": loss_cache,
        "latent": latent, "pred": pred, "mask": mask, "ids_restore": ids_restore,
    }


def mae_backward(dloss: float, cache: dict) -> dict:
    """Gradient dparams of `mae_forward`, in the tree of params, from the scalar dloss. The cache serves once: it is emptied."""
    dpred = masked_mse_backward(dloss, cache["loss"])
    dlatent, ddecoder = mae_decoder_backward(dpred, cache["decoder"])
    _, dencoder, _ = vit_encoder_backward(dlatent, cache["encoder"])
    return {"encoder": dencoder, "decoder": ddecoder}


def mae_decoder_forward(
    latent: np.ndarray, p: dict, positions: np.ndarray, *, heads: int, ids_restore: np.ndarray, eps: float = 1e-6
) -> tuple[np.ndarray, dict]:
    """Predict every patch from the visible ones.

    Parameters
    ----------
    latent : ndarray of shape (B, 1 + K, D), the encoder's output, class token first
    p : {"embed", "mask_token", "blocks", "norm", "pred"}
    positions : ndarray of shape (N, E): without them all mask tokens would be the same
    heads : H of the decoder
    ids_restore : int ndarray of shape (B, N), of `random_masking`
    eps : of the layer norms

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


def mae_decoder_backward(dpred: np.ndarray, cache: dict) -> tuple[np.ndarray, dict]:
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


def _check_noise(images, config, noise):
    if noise.shape != (len(images), config.num_patches):
        raise ValueError(f"expected noise (B, N) = ({len(images)}, {config.num_patches}), got {noise.shape}")


class Reconstruction(NamedTuple):
    """The result of `mae_restore` and `mae_reconstruct`; images are (B, rows, cols, C), in the units of the input."""

    masked: np.ndarray              # hidden patches are 0, which is mid grey
    reconstruction: np.ndarray      # the prediction, for every patch
    pasted: np.ndarray              # the prediction for hidden patches, the true pixels for visible ones
    mask: np.ndarray                # (B, N), 1 = removed
    mode: str                       # how the prediction was turned into pixels; "" for a model of plain pixels


def mae_reconstruct(
    images: np.ndarray, params: dict, config: MAEConfig, noise: np.ndarray, *, statistics: str = "visible"
) -> Reconstruction:
    """Hide patches of images at random, as in training, and restore them: `mae_restore` with the mask of `random_masking`.

    Parameters
    ----------
    images, params, config, noise : as `mae_forward`
    statistics : as `mae_restore`
    """
    check_images(images, config.img_size, config.in_chans)
    _check_noise(images, config, noise)
    _, ids_restore, mask = random_masking(noise, config.mask_ratio)
    return _restored(images, params, config, np.argsort(ids_restore, axis=1), mask, statistics)


def mae_restore(
    images: np.ndarray, params: dict, config: MAEConfig, mask: np.ndarray, *, statistics: str = "visible"
) -> Reconstruction:
    """Restore images of which any patches are hidden, and not equally many in each.

    Parameters
    ----------
    images, params, config : as `mae_forward`; config.mask_ratio plays no part
    mask : ndarray of shape (B, N), integers or bool: 1 = removed, 0 = visible
    statistics : "visible" or "true"; matters only with config.norm_pix_loss. Such a model predicts each patch without its
        mean and contrast, which have to come from somewhere. "visible": the mean and standard deviation of the image's visible
        patches, averaged; they contain nothing of the answer. "true": each patch's own, from the hidden image:
        **part of the answer leaks into the reconstruction**, and `mode` says so.

    Raises
    ------
    TypeError, ValueError
        as `mae_forward`; if mask does not fit the images, or holds other numbers than 0 and 1

    Notes
    -----
    Visible patches look bad in `reconstruction`, since no loss was ever computed on them. `pasted` covers them.
    """
    check_images(images, config.img_size, config.in_chans)
    if mask.shape != (len(images), config.num_patches) or not np.isin(mask, (0, 1)).all():
        raise ValueError(f"expected a mask (B, N) = ({len(images)}, {config.num_patches}) of 0 and 1, got {mask.shape}: is it "
                         "a list of patch indices, or one number for each pixel?")
    mask = mask.astype(np.int8)
    return _restored(images, params, config, np.argsort(mask, axis=1, kind="stable"), mask, statistics)


def _restored(images, params, config, ids_shuffle, mask, statistics):
    """Reconstruction of images whose visible patches come first in ids_shuffle (B, N)."""
    if statistics not in ("visible", "true"):
        raise ValueError(f"expected statistics 'visible' or 'true', got {statistics!r}")
    patches, _ = patchify_forward(images, config.patch_size)
    pred = _predict(patches, params, config, ids_shuffle, mask)
    mode = ""
    if config.norm_pix_loss:
        _, mean, std = normalise_patches(patches)                                       # (B, N, 1)
        mode = message(marked("normalised pixels: mean and contrast of each patch taken from the TRUE image (leaks)"))
        if statistics == "visible":
            visible = (1 - mask)[..., None].astype(patches.dtype)
            shown = np.maximum(visible.sum(axis=1, keepdims=True), 1)
            mean, std = ((s * visible).sum(axis=1, keepdims=True) / shown for s in (mean, std))
            mode = message(marked("normalised pixels: mean and contrast taken from the visible patches"))
        pred = pred * std + mean
    hidden = mask[..., None] == 1
    drawn = (np.where(hidden, 0, patches), pred, np.where(hidden, pred, patches))
    pictures = (unpatchify(x.astype(patches.dtype, copy=False), config.patch_size, config.grid) for x in drawn)
    return Reconstruction(*pictures, mask, mode)


def _predict(patches, params, config, ids_shuffle, mask):
    """Predicted patches (B, N, P), without a cache; images with equally many visible patches K are computed together."""
    positions, decoder_positions = config.position_tables(patches.dtype)
    ids_restore = np.argsort(ids_shuffle, axis=1, kind="stable")
    visible = config.num_patches - np.count_nonzero(mask, axis=1)
    pred = np.empty_like(patches)
    for kept in np.unique(visible):
        rows = visible == kept
        latent = vit_encoder_forward(
            patches[rows], params["encoder"], positions, heads=config.num_heads, ids_keep=ids_shuffle[rows, :kept],
            eps=config.eps,
        )[0]                                                    # [0]: the cache is freed at once
        pred[rows] = mae_decoder_forward(
            latent, params["decoder"], decoder_positions, heads=config.decoder_num_heads, ids_restore=ids_restore[rows],
            eps=config.eps,
        )[0]
    return pred


@dataclass(frozen=True)
class StoredPositions(MAEConfig):
    """A MAEConfig whose fixed positions are those of a file, not the computed tables.

    A model from the file then computes with the file's own numbers, even if they were rounded to half precision, or are not
    sines and cosines at all. It is for using a model; a training checkpoint cannot hold the tables.

    Raises
    ------
    ValueError
        as `MAEConfig`, and if the tables are not (N, D) and (N, E)
    """

    tables: tuple = field(default=(), compare=False, repr=False)    # of encoder (N, D) and decoder (N, E)

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes = [(self.num_patches, self.embed_dim), (self.num_patches, self.decoder_embed_dim)]
        if [table.shape for table in self.tables] != shapes:
            raise ValueError(f"expected tables of shapes {shapes}, got {[table.shape for table in self.tables]}")

    def position_tables(self, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
        """The positions of encoder (N, D) and decoder (N, E)."""
        return tuple(table.astype(dtype) for table in self.tables)
