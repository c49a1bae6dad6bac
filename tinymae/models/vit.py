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
from dataclasses import dataclass, replace

import numpy as np

from tinymae import init, tree
from tinymae.blocks import attention_weights, encoder_backward, encoder_forward, encoder_layer_forward
from tinymae.ops.dropout import dropout_backward, dropout_forward
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import (
    cross_entropy_backward,
    cross_entropy_forward,
    soft_cross_entropy_backward,
    soft_cross_entropy_forward,
)
from tinymae.ops.patches import gather_backward, gather_forward, patchify_forward
from tinymae.ops.positional import positional_backward, positional_forward, sincos_2d


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
    positions: str = "learned"      # or "fixed", `sincos_2d`
    dropout: float = 0.0
    eps: float = 1e-6               # of every layer norm

    def __post_init__(self):
        if self.img_size < 1 or self.patch_size < 1 or self.img_size % self.patch_size:
            raise ValueError(f"expected img_size to be a multiple of patch_size {self.patch_size}, got {self.img_size}")
        if self.pool not in ("token", "mean"):
            raise ValueError(f"expected pool 'token' or 'mean', got {self.pool!r}")
        if self.positions not in ("learned", "fixed"):
            raise ValueError(f"expected positions 'learned' or 'fixed', got {self.positions!r}")
        if self.num_heads < 1 or self.embed_dim < 1 or (self.head_dim is None and self.embed_dim % self.num_heads):
            raise ValueError(
                f"expected embed_dim to be a multiple of {self.num_heads} heads, got {self.embed_dim}: or give head_dim"
            )
        if self.head_dim is not None and self.head_dim < 1:
            raise ValueError(f"expected head_dim of at least 1, got {self.head_dim}")
        if self.positions == "fixed" and self.embed_dim % 4:
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
    def values(self):
        """int, P: numbers in a patch."""
        return self.patch_size**2 * self.in_chans


# ---- the encoder -----------------------------------------------------------------------------------------------------

def vit_encoder_init(values, width, depth, heads, hidden, rng, dtype=np.float32, head_dim=None):
    """Parameters of `vit_encoder_forward`.

    Parameters
    ----------
    values : int, P, numbers in a patch
    width, depth, heads, hidden : int, D, L, H and F
    rng : numpy.random.Generator, or None for zeros
    head_dim : int, d; D / H where not given. Given, article B's rule holds: one head as wide as the model has no output
        projection

    Returns
    -------
    {"patch_embed": {"w" (P, D), "b"}, "cls_token" (1, 1, D), "blocks": L layers with fused q/k/v, "norm"}
    """
    attention = {"fused": True, "d_k": head_dim, "d_v": head_dim, "out": heads > 1 or head_dim != width}
    return {
        "patch_embed": init.linear(values, width, rng, dtype=dtype),
        "cls_token": init.normal((1, 1, width), rng, dtype=dtype),
        "blocks": [init.encoder_layer(width, heads, hidden, rng, dtype, **attention) for _ in range(depth)],
        "norm": init.layernorm(width, dtype),
    }


def vit_encoder_forward(patches, p, heads, positions, ids_keep=None, eps=1e-6, dropout=0.0, rng=None):
    """Encode patches.

    Parameters
    ----------
    patches : ndarray of shape (B, N, P)
    p : tree of `vit_encoder_init`; "norm" may be missing
    heads : int, H
    positions : ndarray of shape (N, D), dtype of patches: fixed or learned
    ids_keep : integer ndarray of shape (B, K), the patches to look at; or None for all
    eps : float, of the layer norms
    dropout : float, of the tokens and of every layer
    rng : numpy.random.Generator, or None for no dropout

    Returns
    -------
    latent : ndarray of shape (B, 1 + K, D), the class token first
    cache : dict; attention_weights(cache["encoder"]["blocks"][i]["attn"]) is (B, H, 1 + K, 1 + K)
    """
    x, cache = _tokens(patches, p, positions, ids_keep)
    x, cache["drop"] = dropout_forward(x, dropout, rng)
    latent, cache["encoder"] = encoder_forward(x, p, heads, dropout=dropout, rng=rng, eps=eps)
    return latent, cache


def vit_encoder_backward(dlatent, cache):
    """Gradients (dpatches, dp, dpositions) of `vit_encoder_forward`, from dlatent (B, 1 + K, D).

    dpositions (N, D) is for learned positions; a model with fixed ones drops it.
    """
    dx, dp = encoder_backward(dlatent, cache["encoder"])
    dx = dropout_backward(dx, cache["drop"])
    dcls_token = dx[:, :1].sum(axis=0, keepdims=True)           # every picture has the same class token
    dx = dx[:, 1:]
    if cache["gather"] is not None:
        dx = gather_backward(dx, cache["gather"])               # (B, N, D), zero for hidden patches
    dx, dpositions = positional_backward(dx, cache["positional"])
    dpatches, dw, db = linear_backward(dx, cache["embed"])
    return dpatches, {"patch_embed": {"w": dw, "b": db}, "cls_token": dcls_token, **dp}, dpositions


def encoder_features(images, p, positions, heads, patch_size, eps=1e-6):
    """What an encoder says about whole pictures, nothing hidden; of a ViT or of a masked autoencoder. Keeps no cache.

    Parameters
    ----------
    images : ndarray of shape (B, rows, cols, C)
    p : tree of `vit_encoder_init`; "norm" may be missing
    positions : ndarray of shape (N, D), dtype of images
    heads, patch_size : int
    eps : float, of the layer norms

    Returns
    -------
    latent : ndarray of shape (B, 1 + N, D), the class token first: the latent of `vit_encoder_forward`
    """
    patches, _ = patchify_forward(images, patch_size)
    x, _ = _tokens(patches, p, positions)
    for layer in p["blocks"]:
        x = encoder_layer_forward(x, layer, heads, eps=eps)[0]  # [0]: each layer's cache is let go at once
    return layernorm_forward(x, **p["norm"], eps=eps)[0] if "norm" in p else x


def _tokens(patches, p, positions, ids_keep=None):
    """Patches (B, N, P) -> the class token and the tokens of the patches to look at (B, 1 + K, D), and a cache."""
    x, embed = linear_forward(patches, **p["patch_embed"])      # (B, N, D)
    x, positional = positional_forward(x, positions)            # before hiding: a patch keeps its own position
    gather = None
    if ids_keep is not None:
        x, gather = gather_forward(x, ids_keep)                 # (B, K, D)
    cls_token = np.broadcast_to(p["cls_token"], (len(x), 1, x.shape[2]))
    x = np.concatenate([cls_token, x], axis=1)                  # (B, 1 + K, D)
    return x, {"embed": embed, "positional": positional, "gather": gather}


# ---- the classifier --------------------------------------------------------------------------------------------------

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
    if config.positions == "learned":
        params["positions"] = init.normal((config.grid[0] * config.grid[1], width), rng, dtype=dtype)
    if config.pool == "mean":
        params["fc_norm"] = encoder.pop("norm")
    head = init.normal((width, config.num_classes), rng, 2e-5, dtype)
    return params | {"head": {"w": head, "b": np.zeros(config.num_classes, dtype)}}


def vit_count(config):
    """How many numbers a model of this config has, with a position for each token, as published checkpoints count."""
    fixed = 0 if config.positions == "learned" else config.grid[0] * config.grid[1]
    return tree.count(vit_init(config, None)) + (1 + fixed) * config.embed_dim             # 1: the class token's


def vit_positions(params, config, dtype=np.float32):
    """The positions (N, D) of the patches: the learned ones, or `sincos_2d` in dtype."""
    return params["positions"] if config.positions == "learned" else sincos_2d(config.grid, config.embed_dim).astype(dtype)


def check_images(images, config):
    """Raise a TypeError or ValueError that says why images (B, rows, cols, C) cannot go into the model."""
    side, channels = config.img_size, config.in_chans
    if images.dtype not in (np.float32, np.float64):
        raise TypeError(f"expected float32 or float64 pixels, got {images.dtype}: images.pixels.to_pixels makes them from uint8")
    if images.ndim != 4:
        raise ValueError(f"expected images (B, {side}, {side}, {channels}), got {images.shape}: is the batch axis missing?")
    if images.shape[3] != channels:
        hint = "are the channels first, the PyTorch way?" if images.shape[1] == channels else "grey and colour do not mix"
        raise ValueError(f"expected {channels} channels on the last axis, got images {images.shape}: {hint}")
    if images.shape[1:3] != (side, side):
        raise ValueError(f"expected pictures of {side} x {side} pixels, got {images.shape}: crop or resize them first")
    if not np.isfinite(images).all():
        raise ValueError("expected finite pixels, got NaN or infinity: look for a division by zero before this call")


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
    if config.positions == "learned":
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


# ---- fine-tuning -----------------------------------------------------------------------------------------------------

def vit_decays(params):
    """A tree of bool: what weight decay acts on.

    As in the fine-tuning code of He et al. 2021: no vector (bias, layer norm), not the class token, not the positions. In their
    pre-training the token does decay, see `mae_decays`.
    """
    skipped = ("encoder.cls_token", "positions")
    return tree.unflatten({path: leaf.ndim > 1 and path not in skipped for path, leaf in tree.leaves(params)}, params)


def layer_rates(params, config, decay):
    """A tree of float, each leaf's factor of the learning rate: layer-wise decay, for `AdamW(rates=...)`.

    Parameters
    ----------
    params : tree of `vit_init`
    config : ViTConfig
    decay : float in (0, 1], the factor from one layer to the one below; He et al. use 0.65 (ViT-B) and 0.75 (ViT-L, ViT-H)

    Returns
    -------
    tree : 1 for the head and the last norm, decay for the top layer, ... decay^L for the bottom one, decay^(L + 1) for patch
        embedding, class token and positions

    Notes
    -----
    What lies near the pixels is general and was learned with much more data: it should move least. Clark et al. 2020 (ELECTRA),
    Bao et al. 2021 (BEiT); He et al. 2021, appendix A.2 and table 9, `util/lr_decay.py` in their code.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"layer_rates: expected a decay in (0, 1], got {decay}: 1 moves all layers alike")
    top = config.depth + 1

    def height(path):
        if path.startswith("encoder.blocks."):
            return 1 + int(path.split(".")[2])
        return 0 if path.startswith(("encoder.patch_embed", "encoder.cls_token", "positions")) else top

    return tree.unflatten({path: decay ** (top - height(path)) for path, _ in tree.leaves(params)}, params)


def interpolate_positions(positions, grid, new_grid):
    """Positions for another number of patches, by bicubic interpolation on the grid.

    Parameters
    ----------
    positions : ndarray of shape (N, D), row by row, without the class token's
    grid : (int, int), patches down and across, N in all
    new_grid : (int, int)

    Returns
    -------
    ndarray of shape (N', D), dtype of positions, fresh

    Raises
    ------
    ValueError
        where positions do not fill the grid, or a side of the new one is below 1

    Notes
    -----
    Equals torch.nn.functional.interpolate(mode="bicubic", align_corners=False), which the code of He et al. 2021 uses: Keys'
    cubic with a = -0.75, border positions repeated outwards. Fewer patches are sampled, not averaged. Dosovitskiy et al. 2020,
    section 3.2.
    """
    if len(positions) != grid[0] * grid[1]:
        hint = ": leave the class token's out" if len(positions) == grid[0] * grid[1] + 1 else ""
        raise ValueError(f"expected {grid[0] * grid[1]} positions for the grid {grid}, got {positions.shape}{hint}")
    if min(new_grid) < 1:
        raise ValueError(f"expected a grid of at least 1 x 1, got {new_grid}")
    down, across = (_cubic(old, new) for old, new in zip(grid, new_grid, strict=True))
    x = positions.reshape(*grid, -1)
    x = np.tensordot(across, x, axes=(1, 1))                    # (new cols, rows, D)
    x = np.tensordot(down, x, axes=(1, 1))                      # (new rows, new cols, D)
    return x.reshape(new_grid[0] * new_grid[1], -1).astype(positions.dtype)


def _cubic(old, new, a=-0.75):
    """The matrix (new, old) that resamples a row of `old` numbers to `new`: Keys 1981, equation 4."""
    place = (np.arange(new) + 0.5) * old / new - 0.5            # where the middle of each new one lies among the old
    left = np.floor(place).astype(int)
    matrix = np.zeros((new, old))
    for tap in (-1, 0, 1, 2):
        s = np.abs(place - (left + tap))
        near = (a + 2) * s * s * s - (a + 3) * s * s + 1        # 0 <= s <= 1
        far = a * (s * s * s - 5 * s * s + 8 * s - 4)           # 1 <= s <= 2
        np.add.at(matrix, (np.arange(new), np.clip(left + tap, 0, old - 1)), np.where(s <= 1, near, far))
    return matrix


def resize_vit(params, config, img_size):
    """The same model for pictures of another size: more or fewer patches, interpolated positions.

    Parameters
    ----------
    params : tree of `vit_init`
    config : ViTConfig
    img_size : int, a multiple of patch_size

    Returns
    -------
    params : tree; only "positions" is new, all other leaves are those given
    config : ViTConfig; its positions are "learned", since interpolated ones are in no formula (the code of He et al. 2021
        likewise goes on to train them)
    """
    if img_size == config.img_size:
        return params, config
    changed = replace(config, img_size=img_size, positions="learned")
    positions = vit_positions(params, config, params["head"]["w"].dtype)
    positions = interpolate_positions(positions, config.grid, changed.grid)
    return {"encoder": params["encoder"], "positions": positions} | {
        name: branch for name, branch in params.items() if name not in ("encoder", "positions")
    }, changed


# ---- looking inside --------------------------------------------------------------------------------------------------

def vit_attention(images, params, config):
    """Attention over whole pictures: a list of (B, H, 1 + N, 1 + N), one for each layer."""
    check_images(images, config)
    patches, _ = patchify_forward(images, config.patch_size)
    positions = vit_positions(params, config, images.dtype)
    _, cache = vit_encoder_forward(patches, params["encoder"], config.num_heads, positions, eps=config.eps)
    return [attention_weights(block["attn"]) for block in cache["encoder"]["blocks"]]


def attention_rollout(attentions):
    """How much of each input token reaches each output token, through all layers: Abnar & Zuidema 2020, section 3.

        (1)  a_l     = (mean over heads of layer l + identity) / 2      half of a residual sum is the token itself
        (2)  rollout = a_L a_(L-1) ... a_1

    Parameters
    ----------
    attentions : list of L arrays (B, H, T, T), the lowest layer first: of `vit_attention` or `mae_attention`

    Returns
    -------
    rollout : ndarray of shape (B, T, T); a row is an output token and sums to 1. rollout[:, 0, 1:] is the class token's view of
        the patches

    Raises
    ------
    ValueError
        where there is no layer, or a layer is not (B, H, T, T)

    Notes
    -----
    It follows attention only: that values, feed forwards and heads weigh tokens differently is left out.
    """
    if not len(attentions):
        raise ValueError("attention_rollout: expected at least one layer, got none")
    rollout = None
    for attention in attentions:
        if attention.ndim != 4 or attention.shape[2] != attention.shape[3]:
            raise ValueError(f"attention_rollout: expected layers (B, H, T, T), got {attention.shape}: self-attention only")
        layer = (attention.mean(axis=1) + np.eye(attention.shape[2], dtype=attention.dtype)) / 2        # (1)
        rollout = layer if rollout is None else layer @ rollout                                         # (2)
    return rollout
