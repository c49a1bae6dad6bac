"""Vision Transformer, images in, class logits out: Dosovitskiy et al. 2020; article A, "ViT".

    patches -> linear map -> + positions -> class token in front -> pre-norm encoder layers -> layer norm
    -> the class token, or the mean of the patches -> linear map to classes -> cross entropy with the label

The first line is `patch_encoder`, shared with the masked autoencoder; article B's [7, 257, 512] is the input of its layers.
Both lines are the classifier, which is also what a masked autoencoder's encoder is fine-tuned as (He et al. 2021, appendix A).

Differs: the class token's own position is part of the class token, since neither is ever used alone. Patches are ordered
(row, column, channel); PyTorch's convolution of stride patch_size is the same map with its weight ordered (channel, row,
column). Mean pooling is as in the code of He et al.: without the class token, and with a layer norm after the mean instead of
the one before. Dropout, if on, also acts on the attention weights: see `blocks`.
"""
from dataclasses import dataclass

import numpy as np

from tinymae import init
from tinymae.arguments import check_scalars, check_settings
from tinymae.messages import marked, message
from tinymae.models.patch_encoder import (
    check_images,
    check_sizes,
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
from tinymae.ops.patches import image_sides, patch_grid, patchify_forward
from tinymae.ops.positional import sincos_2d


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of a classifier; the names are those of `MAEConfig`, the defaults ViT-B/16.

    Raises
    ------
    ValueError
        if the sizes do not fit each other, or a setting has a value that is not allowed
    """

    img_size: int | tuple[int, int] = 224       # side of a square image, or (rows, cols); multiples of patch_size
    patch_size: int = 16
    in_chans: int = 3
    num_classes: int = 1000
    embed_dim: int = 768            # D: a multiple of num_heads unless head_dim is given, of 4 for fixed positions
    depth: int = 12                 # L
    num_heads: int = 12
    head_dim: int | None = None     # d, dimension of one head, as in article B; D / H if None
    mlp_ratio: float = 4.0          # F / D
    pool: str = "token"             # or "mean"
    position_encoding: str = "learned"      # or "fixed", `sincos_2d`
    dropout: float = 0.0
    eps: float = 1e-6               # of every layer norm

    def __post_init__(self) -> None:
        rows, cols = image_sides(self.img_size)
        object.__setattr__(self, "img_size", rows if rows == cols else (rows, cols))    # (224, 224) is 224; a list is a tuple
        check_settings(
            self, counts=("patch_size", "in_chans", "num_classes", "embed_dim", "num_heads", "head_dim"), sizes=("depth",),
            positive=("mlp_ratio",), not_negative=("eps",),
        )
        check_scalars("", "fraction", hint=marked("it is the fraction to drop, not to keep"), dropout=self.dropout)
        check_sizes(self.img_size, self.patch_size)
        if self.pool not in ("token", "mean"):
            raise ValueError(message(marked("expected pool 'token' or 'mean', got {pool!r}"), pool=self.pool))
        if self.position_encoding not in ("learned", "fixed"):
            raise ValueError(message(
                marked("expected position_encoding 'learned' or 'fixed', got {got!r}"), got=self.position_encoding
            ))
        if self.head_dim is None and self.embed_dim % self.num_heads:
            raise ValueError(message(
                marked("expected embed_dim to be a multiple of {heads} heads, got {width}: or give head_dim"),
                heads=self.num_heads, width=self.embed_dim,
            ))
        if self.position_encoding == "fixed" and self.embed_dim % 4:
            raise ValueError(message(
                marked("expected embed_dim to be a multiple of 4 for fixed positions, got {width}"), width=self.embed_dim
            ))

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


def vit_init(config: ViTConfig, rng: np.random.Generator | None, dtype: type = np.float32) -> dict:
    """Fresh parameters: xavier for each matrix, normal with 0.02 for class token and positions, normal with 2e-5 for the head.

    With rng=None all weights are zero: the shapes, without the draws.

    Returns
    -------
    {"encoder": as `vit_encoder_init`, without "norm" if pool is "mean";
     "positions" (N, D) if they are learned; "fc_norm" if pool is "mean"; "head": {"w" (D, classes), "b"}}

    Notes
    -----
    The head starts near 0 (standard deviation 2e-5, as He et al. fine-tune), so that the first loss is ln(classes).
    """
    width = config.embed_dim
    encoder = vit_encoder_init(
        config.values, width, rng, depth=config.depth, heads=config.num_heads, hidden=int(width * config.mlp_ratio),
        head_dim=config.head_dim, dtype=dtype,
    )
    params = {"encoder": encoder}
    if config.position_encoding == "learned":
        params["positions"] = init.normal((config.num_patches, width), rng, dtype=dtype)
    if config.pool == "mean":
        params["fc_norm"] = encoder.pop("norm")
    head = init.normal((width, config.num_classes), rng, 2e-5, dtype)
    return params | {"head": {"w": head, "b": np.zeros(config.num_classes, dtype)}}


def vit_positions(params: dict, config: ViTConfig, dtype: type = np.float32) -> np.ndarray:
    """The positions (N, D) of the patches: the learned ones as they are, or `sincos_2d` in dtype."""
    if config.position_encoding == "learned":
        return params["positions"]
    return sincos_2d(config.grid, config.embed_dim).astype(dtype)


def check_labels(labels: np.ndarray, count: int, config: ViTConfig) -> None:
    """Raise a TypeError, ValueError or IndexError that says why labels do not fit `count` images and the config."""
    classes = config.num_classes
    soft = np.issubdtype(labels.dtype, np.floating)
    if not soft and not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"expected class numbers or probabilities, got {labels.dtype}: number the names, see np.unique")
    if labels.shape != ((count, classes) if soft else (count,)):
        raise ValueError(
            f"expected labels ({count},) of class numbers, or ({count}, {classes}) of probabilities, got {labels.shape} of "
            f"{labels.dtype}"
        )
    if not soft and count and not 0 <= labels.min() <= labels.max() < classes:
        raise IndexError(
            f"expected labels in [0, {classes}), got [{labels.min()}, {labels.max()}]: does num_classes fit the data?"
        )


def vit_forward(
    images: np.ndarray, labels: np.ndarray, params: dict, config: ViTConfig, *,
    label_smoothing: float = 0.0, rng: np.random.Generator | None = None,
) -> tuple[np.floating, dict]:
    """The loss of a batch of labelled images.

    Parameters
    ----------
    images : ndarray of shape (B, rows, cols, C), float32 or float64; data, so they get no gradient
    labels : integer ndarray of shape (B,), class numbers; or float ndarray of shape (B, classes), probabilities (`mixup`)
    params : tree of `vit_init`, dtype of images
    label_smoothing : in [0, 1)
    rng : None for no dropout

    Returns
    -------
    loss : scalar, mean cross entropy; ln(classes) before training
    cache : dict; cache["logits"] is (B, classes)

    Raises
    ------
    TypeError, ValueError, IndexError
        if images or labels do not fit the config, or pixels are not finite
    """
    check_images(images, config.img_size, config.in_chans)
    check_labels(labels, len(images), config)
    patches, _ = patchify_forward(images, config.patch_size)                                # (B, N, P)
    latent, encoder = vit_encoder_forward(
        patches, params["encoder"], vit_positions(params, config, images.dtype),
        heads=config.num_heads, eps=config.eps, dropout=config.dropout, rng=rng,
    )
    pooled, pool = _pool(latent, params, config)                                            # (B, D)
    logits, head = linear_forward(pooled, **params["head"])                                 # (B, classes)
    soft = labels.ndim == 2
    loss, entropy = (soft_cross_entropy_forward if soft else cross_entropy_forward)(
        logits, labels.astype(logits.dtype, copy=False) if soft else labels, label_smoothing=label_smoothing
    )
    return loss, {
        "encoder": encoder, "pool": pool, "head": head, "entropy": entropy, "soft": soft, "logits": logits, "config": config,
    }


def vit_backward(dloss: float, cache: dict) -> dict:
    """Gradient dparams of `vit_forward`, in the tree of params, from the scalar dloss. The cache serves once: it is emptied."""
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


def vit_logits(images: np.ndarray, params: dict, config: ViTConfig) -> np.ndarray:
    """Logits (B, classes) of images (B, rows, cols, C): those of `vit_forward` without dropout. Keeps no cache."""
    check_images(images, config.img_size, config.in_chans)
    positions = vit_positions(params, config, images.dtype)
    latent = encoder_features(
        images, params["encoder"], positions, heads=config.num_heads, patch_size=config.patch_size, eps=config.eps
    )
    pooled, _ = _pool(latent, params, config)
    return linear_forward(pooled, **params["head"])[0]


def _pool(latent, params, config):
    """Latent (B, 1 + N, D) -> one vector for each image (B, D), and a cache."""
    if config.pool == "token":
        return latent[:, 0], (latent.shape, None)
    mean = latent[:, 1:].mean(axis=1)                           # without the class token
    pooled, fc_norm = layernorm_forward(mean, **params["fc_norm"], eps=config.eps)
    return pooled, (latent.shape, fc_norm)


def _pool_backward(dpooled, cache):
    """Gradients (dlatent (B, 1 + N, D), dfc_norm or None) of `_pool`: zero for the tokens that the pooling leaves out."""
    shape, fc_norm = cache
    dlatent = np.zeros(shape, dpooled.dtype)
    if fc_norm is None:
        dlatent[:, 0] = dpooled
        return dlatent, None
    dmean, dgamma, dbeta = layernorm_backward(dpooled, fc_norm)
    dlatent[:, 1:] = (dmean / (shape[1] - 1))[:, None]
    return dlatent, {"gamma": dgamma, "beta": dbeta}
