"""The encoder that ViT and MAE share: patches in, one latent vector for each token out. Dosovitskiy et al. 2020, section 3.1.

    patches (B, N, P) -> linear map -> + positions -> [keep the visible ones] -> class token in front
    -> pre-norm encoder layers -> layer norm -> latent (B, 1 + K, D)

A MAE keeps K of the N patches, a ViT keeps all. `vit_encoder_forward` keeps a cache for training; `encoder_features` does not.
The checks at the end are for both models: sizes in a config, images in a batch.
"""
import numpy as np

from tinymae import init
from tinymae.blocks import encoder_backward, encoder_forward, encoder_layer_forward
from tinymae.messages import marked, message
from tinymae.ops.dropout import dropout_backward, dropout_forward
from tinymae.ops.layernorm import layernorm_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.patches import gather_backward, gather_forward, image_sides, patchify_forward
from tinymae.ops.positional import positional_backward, positional_forward


def vit_encoder_init(
    values: int, dim: int, rng: np.random.Generator | None, *,
    depth: int, heads: int, hidden: int, head_dim: int | None = None, dtype: type = np.float32,
) -> dict:
    """Parameters of `vit_encoder_forward`.

    Parameters
    ----------
    values : P, numbers in a patch
    dim : D
    rng : None for zeros
    depth, heads, hidden : L, H and F
    head_dim : d; D / H if None. If given, article B's rule holds: one head of dimension D has no output projection

    Returns
    -------
    {"patch_embed": {"w" (P, D), "b"}, "cls_token" (1, 1, D), "blocks": L layers with fused q/k/v, "norm"}
    """
    attention = {"fused": True, "d_k": head_dim, "d_v": head_dim, "out": heads > 1 or head_dim != dim}
    return {
        "patch_embed": init.linear(values, dim, rng, dtype=dtype),
        "cls_token": init.normal((1, 1, dim), rng, dtype=dtype),
        "blocks": [init.encoder_layer(dim, heads, hidden, rng, dtype=dtype, **attention) for _ in range(depth)],
        "norm": init.layernorm(dim, dtype),
    }


def vit_encoder_forward(
    patches: np.ndarray, p: dict, positions: np.ndarray, *,
    heads: int, ids_keep: np.ndarray | None = None,
    eps: float = 1e-6, dropout: float = 0.0, rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, dict]:
    """Encode patches.

    Parameters
    ----------
    patches : ndarray of shape (B, N, P)
    p : tree of `vit_encoder_init`; "norm" may be missing
    positions : ndarray of shape (N, D), dtype of patches: fixed or learned
    heads : H
    ids_keep : integer ndarray of shape (B, K), the visible patches; None for all
    eps : of the layer norms
    dropout : of the tokens and in every layer
    rng : None for no dropout

    Returns
    -------
    latent : ndarray of shape (B, 1 + K, D), the class token first
    cache : dict; attention_weights(cache["encoder"]["blocks"][i]["attn"]["sublayer"]) is (B, H, 1 + K, 1 + K)
    """
    x, cache = _tokens(patches, p, positions, ids_keep)
    x, cache["drop"] = dropout_forward(x, dropout, rng)
    latent, cache["encoder"] = encoder_forward(x, p, heads, dropout=dropout, rng=rng, eps=eps)
    return latent, cache


def vit_encoder_backward(dlatent: np.ndarray, cache: dict) -> tuple[np.ndarray, dict, np.ndarray]:
    """Gradients (dpatches, dp, dpositions) of `vit_encoder_forward`, from dlatent (B, 1 + K, D).

    dpositions (N, D) is for learned positions; a model with fixed ones ignores it.
    """
    dx, dp = encoder_backward(dlatent, cache["encoder"])
    dx = dropout_backward(dx, cache["drop"])
    dcls_token = dx[:, :1].sum(axis=0, keepdims=True)           # all images have the same class token
    dx = dx[:, 1:]
    if cache["gather"] is not None:
        dx = gather_backward(dx, cache["gather"])               # (B, N, D), zero for hidden patches
    dx, dpositions = positional_backward(dx, cache["positional"])
    dpatches, dw, db = linear_backward(dx, cache["embed"])
    return dpatches, {"patch_embed": {"w": dw, "b": db}, "cls_token": dcls_token, **dp}, dpositions


def encoder_features(
    images: np.ndarray, p: dict, positions: np.ndarray, *, heads: int, patch_size: int, eps: float = 1e-6
) -> np.ndarray:
    """The latent of whole images, with no patch hidden, for a ViT or a masked autoencoder. Keeps no cache.

    Parameters
    ----------
    images : ndarray of shape (B, rows, cols, C)
    p : tree of `vit_encoder_init`; "norm" may be missing
    positions : ndarray of shape (N, D), dtype of images
    heads : H
    patch_size : side of a patch in pixels
    eps : of the layer norms

    Returns
    -------
    latent : ndarray of shape (B, 1 + N, D), the class token first: the latent of `vit_encoder_forward`
    """
    patches, _ = patchify_forward(images, patch_size)
    x, _ = _tokens(patches, p, positions)
    for layer in p["blocks"]:
        x = encoder_layer_forward(x, layer, heads, eps=eps)[0]  # [0]: each layer's cache is freed at once
    return layernorm_forward(x, **p["norm"], eps=eps)[0] if "norm" in p else x


def _tokens(patches, p, positions, ids_keep=None):
    """Patches (B, N, P) -> the class token and the tokens of the visible patches (B, 1 + K, D), and a cache."""
    x, embed = linear_forward(patches, **p["patch_embed"])      # (B, N, D)
    x, positional = positional_forward(x, positions)            # before hiding: a patch keeps its own position
    gather = None
    if ids_keep is not None:
        x, gather = gather_forward(x, ids_keep)                 # (B, K, D)
    cls_token = np.broadcast_to(p["cls_token"], (len(x), 1, x.shape[2]))
    x = np.concatenate([cls_token, x], axis=1)                  # (B, 1 + K, D)
    return x, {"embed": embed, "positional": positional, "gather": gather}


def check_sizes(img_size: int | tuple[int, int], patch_size: int) -> None:
    """Raise a ValueError unless patches fill an image."""
    if any(side % patch_size for side in image_sides(img_size)):
        raise ValueError(message(
            marked("expected img_size to be a multiple of patch_size {patch_size}, got {img_size}"),
            patch_size=patch_size, img_size=img_size,
        ))


def check_images(images: np.ndarray, img_size: int | tuple[int, int], in_chans: int) -> None:
    """Raise a TypeError or ValueError that says why these images are not finite (B, rows, cols, in_chans) of this img_size."""
    rows, cols = image_sides(img_size)
    if images.dtype not in (np.float32, np.float64):
        raise TypeError(f"expected float32 or float64 pixels, got {images.dtype}: images.pixels.to_pixels converts uint8")
    if images.ndim != 4:
        expected = f"(B, {rows}, {cols}, {in_chans})"
        raise ValueError(f"expected images {expected}, got {images.shape}: is the batch axis missing?")
    if images.shape[3] != in_chans:
        hint = "are the channels first, as in PyTorch?" if images.shape[1] == in_chans else "grey and colour do not mix"
        raise ValueError(f"expected {in_chans} channels on the last axis, got images {images.shape}: {hint}")
    if images.shape[1:3] != (rows, cols):
        raise ValueError(f"expected images of {rows} x {cols} pixels, got {images.shape}: crop or resize them first")
    if not np.isfinite(images).all():
        raise ValueError("expected finite pixels, got NaN or infinity: look for a division by zero before this call")
