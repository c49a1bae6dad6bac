"""What a vision model attends to: images in; the attention weights of each layer, or their product over all layers, out."""
import numpy as np

from tinymae.blocks import attention_weights
from tinymae.models.mae import MAEConfig
from tinymae.models.patch_encoder import check_images, vit_encoder_forward
from tinymae.models.vit import ViTConfig, vit_positions
from tinymae.ops.patches import patchify_forward


def mae_attention(images: np.ndarray, params: dict, config: MAEConfig) -> list[np.ndarray]:
    """Attention weights of the encoder, with no patch hidden: a list of (B, H, 1 + N, 1 + N), one for each layer."""
    return _encoder_attention(images, params, config, config.position_tables(images.dtype)[0])


def vit_attention(images: np.ndarray, params: dict, config: ViTConfig) -> list[np.ndarray]:
    """Attention weights of a classifier: a list of (B, H, 1 + N, 1 + N), one for each layer."""
    return _encoder_attention(images, params, config, vit_positions(params, config, images.dtype))


def _encoder_attention(images, params, config, positions):
    check_images(images, config.img_size, config.in_chans)
    patches, _ = patchify_forward(images, config.patch_size)
    _, cache = vit_encoder_forward(patches, params["encoder"], positions, heads=config.num_heads, eps=config.eps)
    return [attention_weights(block["attn"]["sublayer"]) for block in cache["encoder"]["blocks"]]


def attention_rollout(attentions: list[np.ndarray]) -> np.ndarray:
    """How much of each input token reaches each output token, through all layers: Abnar & Zuidema 2020, section 3.

        (1)  a_l     = (mean over heads of layer l + identity) / 2      half of a residual sum is the token itself
        (2)  rollout = a_L a_(L-1) ... a_1

    Parameters
    ----------
    attentions : L arrays (B, H, T, T), the lowest layer first, of `vit_attention` or `mae_attention`

    Returns
    -------
    rollout : ndarray of shape (B, T, T); a row is an output token and sums to 1. rollout[:, 0, 1:] is how much of each patch
        reaches the class token

    Raises
    ------
    ValueError
        if there is no layer, or a layer is not (B, H, T, T)

    Notes
    -----
    Rollout follows attention weights only. It ignores that values, feed forwards and heads weigh tokens differently.
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
