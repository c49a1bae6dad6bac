"""Vision Transformer: Dosovitskiy et al. 2020; article A, "ViT"; article B's [7, 257, 512] is the input of its layers.

    patches -> linear map -> + positions -> [keep some] -> class token in front -> pre-norm encoder layers -> layer norm
    -> the class token, or the mean of the patches -> linear map to classes -> cross entropy with the label

The first line is the encoder; with ids_keep it is that of a masked autoencoder, a ViT on the visible patches only. Both lines
are the classifier, which is also what a masked autoencoder's encoder is fine-tuned as (He et al. 2021, appendix A).

Differs: the class token's own position is part of the class token, since nothing ever uses one without the other. Patches are
ordered (row, column, channel); a convolution of stride patch_size, PyTorch's way, is the same map with its weight ordered
(channel, row, column). Mean pooling is as in the code of He et al.: no class token in it, and a layer norm after the mean in
place of the one before. Dropout, where it is on, also stands on the attention weights: see `blocks`.
"""
from dataclasses import dataclass

import numpy as np

from tinymae import init, tree
from tinymae.models.patch_encoder import (
    check_images,
    encoder_features,
    vit_encoder_backward,
    vit_encoder_forward,
    vit_encoder_init,
)
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import (
    cross_entropy_backward,
    cross_entropy_forward,
    soft_cross_entropy_backward,
    soft_cross_entropy_forward,
)
from tinymae.ops.patches import patchify_forward
from tinymae.ops.positional import sincos_2d


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of a classifier; the names are those of `MAEConfig`, the defaults ViT-B/16.

    Raises
    ------
    ValueError
        where the sizes do not fit each other, or a word or number is none of those it may be
    """

    img_size: int = 224             # side of the square picture; a multiple of patch_size
    patch_size: int = 16
    in_chans: int = 3
    num_classes: int = 1000
    embed_dim: int = 768            # D: a multiple of num_heads unless head_dim is given, of 4 for fixed positions
    depth: int = 12                 # L
    num_heads: int = 12
    head_dim: int = None            # d, width of one head, as in article B; D / H where not given
    mlp_ratio: float = 4.0          # F / D
    pool: str = "token"             # or "mean"
    position_encoding: str = "learned"      # or "fixed", `sincos_2d`
    dropout: float = 0.0
    eps: float = 1e-6               # of every layer norm

    def __post_init__(self):
        if self.img_size < 1 or self.patch_size < 1 or self.img_size % self.patch_size:
            raise ValueError(f"expected img_size to be a multiple of patch_size {self.patch_size}, got {self.img_size}")
        if self.pool not in ("token", "mean"):
            raise ValueError(f"expected pool 'token' or 'mean', got {self.pool!r}")
        if self.position_encoding not in ("learned", "fixed"):
            raise ValueError(f"expected position_encoding 'learned' or 'fixed', got {self.position_encoding!r}")
        if self.num_heads < 1 or self.embed_dim < 1 or (self.head_dim is None and self.embed_dim % self.num_heads):
            raise ValueError(
                f"expected embed_dim to be a multiple of {self.num_heads} heads, got {self.embed_dim}: or give head_dim"
            )
        if self.head_dim is not None and self.head_dim < 1:
            raise ValueError(f"expected head_dim of at least 1, got {self.head_dim}")
        if self.position_encoding == "fixed" and self.embed_dim % 4:
            raise ValueError(f"expected embed_dim to be a multiple of 4 for fixed positions, got {self.embed_dim}")
        if self.num_classes < 1:
            raise ValueError(f"expected num_classes of at least 1, got {self.num_classes}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"expected dropout in [0, 1), got {self.dropout}: it is the share to drop, not to keep")

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


def vit_init(config, rng, dtype=np.float32):
    """Fresh parameters: xavier for every matrix, normal with 0.02 for class token and positions, a head that says nothing.

    Parameters
    ----------
    config : ViTConfig
    rng : numpy.random.Generator, or None for zeros (the shapes without the work)

    Returns
    -------
    {"encoder": as `vit_encoder_init`, without "norm" where pool is "mean";
     "positions" (N, D) where they are learned; "fc_norm" where pool is "mean"; "head": {"w" (D, classes), "b"}}

    Notes
    -----
    The head starts near 0 (standard deviation 2e-5, as He et al. fine-tune), so that the first loss is ln(classes).
    """
    width = config.embed_dim
    encoder = vit_encoder_init(
        config.values, width, config.depth, config.num_heads, int(width * config.mlp_ratio), rng, dtype, config.head_dim
    )
    params = {"encoder": encoder}
    if config.position_encoding == "learned":
        params["positions"] = init.normal((config.num_patches, width), rng, dtype=dtype)
    if config.pool == "mean":
        params["fc_norm"] = encoder.pop("norm")
    head = init.normal((width, config.num_classes), rng, 2e-5, dtype)
    return params | {"head": {"w": head, "b": np.zeros(config.num_classes, dtype)}}


def vit_count(config):
    """How many numbers a model of this config has, with a position for each token, as published checkpoints count."""
    fixed = 0 if config.position_encoding == "learned" else config.num_patches
    return tree.count(vit_init(config, None)) + (1 + fixed) * config.embed_dim             # 1: the class token's


def vit_positions(params, config, dtype=np.float32):
    """The positions (N, D) of the patches: the learned ones, or `sincos_2d` in dtype."""
    if config.position_encoding == "learned":
        return params["positions"]
    return sincos_2d(config.grid, config.embed_dim).astype(dtype)


def check_labels(labels, count, config):
    """Raise a TypeError, ValueError or IndexError that says why labels do not fit `count` pictures and the config."""
    classes = config.num_classes
    soft = np.issubdtype(labels.dtype, np.floating)
    if not soft and not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"expected class numbers or shares, got labels of {labels.dtype}: number the names, np.unique does it")
    if labels.shape != ((count, classes) if soft else (count,)):
        raise ValueError(
            f"expected labels ({count},) of class numbers, or ({count}, {classes}) of shares, got {labels.shape} of "
            f"{labels.dtype}"
        )
    if not soft and count and not 0 <= labels.min() <= labels.max() < classes:
        raise IndexError(
            f"expected labels in [0, {classes}), got [{labels.min()}, {labels.max()}]: does num_classes fit the data?"
        )


def vit_forward(images, labels, params, config, label_smoothing=0.0, rng=None):
    """The loss of a batch of labelled pictures.

    Parameters
    ----------
    images : ndarray of shape (B, img_size, img_size, C), float32 or float64; data, they get no gradient
    labels : integer ndarray of shape (B,), class numbers; or float ndarray of shape (B, classes), shares, as `mixup` makes them
    params : tree of `vit_init`, dtype of images
    config : ViTConfig
    label_smoothing : float in [0, 1)
    rng : numpy.random.Generator, or None for no dropout

    Returns
    -------
    loss : scalar, mean cross entropy; ln(classes) before training
    cache : dict; cache["logits"] is (B, classes)

    Raises
    ------
    TypeError, ValueError, IndexError
        where images or labels do not fit the config, or pixels are not finite
    """
    check_images(images, config)
    check_labels(labels, len(images), config)
    patches, _ = patchify_forward(images, config.patch_size)                                # (B, N, P)
    latent, encoder = vit_encoder_forward(
        patches, params["encoder"], config.num_heads, vit_positions(params, config, images.dtype), eps=config.eps,
        dropout=config.dropout, rng=rng,
    )
    pooled, pool = _pool(latent, params, config)                                            # (B, D)
    logits, head = linear_forward(pooled, **params["head"])                                 # (B, classes)
    soft = labels.ndim == 2
    loss, entropy = (soft_cross_entropy_forward if soft else cross_entropy_forward)(
        logits, labels, label_smoothing=label_smoothing
    )
    return loss, {
        "encoder": encoder, "pool": pool, "head": head, "entropy": entropy, "soft": soft, "logits": logits, "config": config,
    }


def vit_backward(dloss, cache):
    """Gradient dparams of `vit_forward`, in the tree of params, from the scalar dloss. Empties the cache on the way."""
    config = cache["config"]
    dlogits = (soft_cross_entropy_backward if cache["soft"] else cross_entropy_backward)(dloss, cache["entropy"])
    dpooled, dw, db = linear_backward(dlogits, cache["head"])
    dlatent, dfc_norm = _pool_backward(dpooled, cache["pool"])
    _, dencoder, dpositions = vit_encoder_backward(dlatent, cache["encoder"])
    dparams = {"encoder": dencoder}
    if config.position_encoding == "learned":
        dparams["positions"] = dpositions
    if config.pool == "mean":
        dparams["fc_norm"] = dfc_norm
    return dparams | {"head": {"w": dw, "b": db}}


def vit_logits(images, params, config):
    """Logits (B, classes) of images (B, img_size, img_size, C): those of `vit_forward` without dropout. Keeps no cache."""
    check_images(images, config)
    positions = vit_positions(params, config, images.dtype)
    latent = encoder_features(images, params["encoder"], positions, config.num_heads, config.patch_size, config.eps)
    pooled, _ = _pool(latent, params, config)
    return linear_forward(pooled, **params["head"])[0]


def _pool(latent, params, config):
    """Latent (B, 1 + N, D) -> one vector for each picture (B, D), and a cache."""
    if config.pool == "token":
        return latent[:, 0], (latent.shape, None)
    mean = latent[:, 1:].mean(axis=1)                           # without the class token
    pooled, fc_norm = layernorm_forward(mean, **params["fc_norm"], eps=config.eps)
    return pooled, (latent.shape, fc_norm)


def _pool_backward(dpooled, cache):
    """Gradients (dlatent (B, 1 + N, D), dfc_norm or None) of `_pool`: zero for the tokens that the head does not see."""
    shape, fc_norm = cache
    dlatent = np.zeros(shape, dpooled.dtype)
    if fc_norm is None:
        dlatent[:, 0] = dpooled
        return dlatent, None
    dmean, dgamma, dbeta = layernorm_backward(dpooled, fc_norm)
    dlatent[:, 1:] = (dmean / (shape[1] - 1))[:, None]
    return dlatent, {"gamma": dgamma, "beta": dbeta}
