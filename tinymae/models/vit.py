"""Vision Transformer encoder: Dosovitskiy et al. 2020; article A, "ViT"; article B's [7, 257, 512] is its input.

    patches -> linear map -> + positions -> [keep some] -> class token in front -> pre-norm encoder layers -> layer norm

With ids_keep it is the encoder of a masked autoencoder: a ViT on the visible patches only.

Differs: the class token's position is a row of zeros in MAE's fixed table and is left out here. Patches come in already cut,
ordered (row, column, channel); a convolution of stride patch_size, PyTorch's way, is the same map with its weight
ordered (channel, row, column).
"""
import numpy as np

from tinymae import init
from tinymae.blocks import encoder_backward, encoder_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.patches import gather_backward, gather_forward
from tinymae.ops.positional import positional_backward, positional_forward


def vit_encoder_init(values, width, depth, heads, hidden, rng, dtype=np.float32):
    """Parameters of `vit_encoder_forward`.

    Parameters
    ----------
    values : int, P, numbers in a patch
    width, depth, heads, hidden : int, D, L, H and F
    rng : numpy.random.Generator, or None for zeros

    Returns
    -------
    {"patch_embed": {"w" (P, D), "b"}, "cls_token" (1, 1, D), "blocks": L layers with fused q/k/v, "norm"}
    """
    return {
        "patch_embed": init.linear(values, width, rng, dtype=dtype),
        "cls_token": init.normal((1, 1, width), rng, dtype=dtype),
        "blocks": [init.encoder_layer(width, heads, hidden, rng, dtype, fused=True) for _ in range(depth)],
        "norm": init.layernorm(width, dtype),
    }


def vit_encoder_forward(patches, p, heads, positions, ids_keep=None, eps=1e-6):
    """Encode patches.

    Parameters
    ----------
    patches : ndarray of shape (B, N, P)
    p : tree of `vit_encoder_init`
    heads : int, H
    positions : ndarray of shape (N, D), dtype of patches: fixed or learned
    ids_keep : integer ndarray of shape (B, K), the patches to look at; or None for all
    eps : float, of the layer norms

    Returns
    -------
    latent : ndarray of shape (B, 1 + K, D), the class token first
    cache : dict; attention_weights(cache["encoder"]["blocks"][i]["attn"]) is (B, H, 1 + K, 1 + K)
    """
    x, embed = linear_forward(patches, **p["patch_embed"])      # (B, N, D)
    x, positional = positional_forward(x, positions)            # before hiding: a patch keeps its own position
    gather = None
    if ids_keep is not None:
        x, gather = gather_forward(x, ids_keep)                 # (B, K, D)
    cls_token = np.broadcast_to(p["cls_token"], (len(x), 1, x.shape[2]))
    x = np.concatenate([cls_token, x], axis=1)                  # (B, 1 + K, D)
    latent, encoder = encoder_forward(x, p, heads, eps=eps)
    return latent, {"embed": embed, "positional": positional, "gather": gather, "encoder": encoder}


def vit_encoder_backward(dlatent, cache):
    """Gradients (dpatches, dp, dpositions) of `vit_encoder_forward`, from dlatent (B, 1 + K, D).

    dpositions (N, D) is for learned positions; a model with fixed ones drops it.
    """
    dx, dp = encoder_backward(dlatent, cache["encoder"])
    dcls_token = dx[:, :1].sum(axis=0, keepdims=True)           # every picture has the same class token
    dx = dx[:, 1:]
    if cache["gather"] is not None:
        dx = gather_backward(dx, cache["gather"])               # (B, N, D), zero for hidden patches
    dx, dpositions = positional_backward(dx, cache["positional"])
    dpatches, dw, db = linear_backward(dx, cache["embed"])
    return dpatches, {"patch_embed": {"w": dw, "b": db}, "cls_token": dcls_token, **dp}, dpositions
