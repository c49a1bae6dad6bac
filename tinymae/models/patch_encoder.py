"""The encoder of a ViT and of a masked autoencoder: patches in, tokens out. Dosovitskiy et al. 2020, section 3.1."""
import numpy as np

from tinymae import init
from tinymae.blocks import encoder_backward, encoder_forward, encoder_layer_forward
from tinymae.ops.dropout import dropout_backward, dropout_forward
from tinymae.ops.layernorm import layernorm_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.patches import gather_backward, gather_forward, patchify_forward
from tinymae.ops.positional import positional_backward, positional_forward


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
        "blocks": [init.encoder_layer(width, heads, hidden, rng, dtype=dtype, **attention) for _ in range(depth)],
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
    cache : dict; attention_weights(cache["encoder"]["blocks"][i]["attn"]["sublayer"]) is (B, H, 1 + K, 1 + K)
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


def check_images(images, config):
    """Raise a TypeError or ValueError that says why images (B, rows, cols, C) cannot go into the model."""
    side, channels = config.img_size, config.in_chans
    if images.dtype not in (np.float32, np.float64):
        raise TypeError(f"expected float32 or float64 pixels, got {images.dtype}: images.pixels.to_pixels converts uint8")
    if images.ndim != 4:
        raise ValueError(f"expected images (B, {side}, {side}, {channels}), got {images.shape}: is the batch axis missing?")
    if images.shape[3] != channels:
        hint = "are the channels first, the PyTorch way?" if images.shape[1] == channels else "grey and colour do not mix"
        raise ValueError(f"expected {channels} channels on the last axis, got images {images.shape}: {hint}")
    if images.shape[1:3] != (side, side):
        raise ValueError(f"expected pictures of {side} x {side} pixels, got {images.shape}: crop or resize them first")
    if not np.isfinite(images).all():
        raise ValueError("expected finite pixels, got NaN or infinity: look for a division by zero before this call")
