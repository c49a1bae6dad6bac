"""Scaled dot-product attention: Vaswani et al. 2017, equation 1; articles A (part 2), B, C (section 3), D, E.

    (1)  scores  = q k^T / sqrt(d_k)                            (Tq, Tk): row = query, column = key
    (2)  weights = softmax(scores)                              forbidden keys get weight 0
    (3)  dropped = dropout(weights) = weights * keep
    (4)  y       = dropped v                                    each output is a weighted sum of values

Backward, from dy; each line undoes one line above:

    (5)  dv       = dropped^T dy                                from (4): the weights after dropout, which were used
    (6)  ddropped = dy v^T
    (7)  dweights = ddropped * keep                             from (3)
    (8)  dscores  = softmax_backward(dweights) / sqrt(d_k)      from (2), and the factor of (1)
    (9)  dq = dscores k,   dk = dscores^T q                     from (1)

Why sqrt(d_k): if the entries of q and k have variance 1, their product q.k has variance d_k. Without the division, softmax
saturates and (8) vanishes. d_k is the dimension of one head, not d_model.

Why q k^T and not q^T k (article B): q k^T is (Tq, Tk), one number for each pair of tokens. q^T k is (d, d) and mixes
features over all tokens; through it, no token can attend to another.

Differs: the mask is boolean with True = may attend, as in PyTorch's function of this name; nn.MultiheadAttention, and the
articles' masked_fill(mask == 0), each read it their own way. A query that may attend to no key gives zeros, not NaN.
"""
import math
from typing import NamedTuple

import numpy as np

from tinymae.arguments import check_arrays, check_gradient, check_mask
from tinymae.ops.dropout import dropout_backward, dropout_forward
from tinymae.ops.softmax import softmax_backward, softmax_forward


class AttentionCache(NamedTuple):
    """What the backward needs; `weights` is also what the attention heatmaps show."""

    q: np.ndarray                       # (B, H, Tq, d_k)
    k: np.ndarray                       # (B, H, Tk, d_k)
    v: np.ndarray                       # (B, H, Tk, d_v)
    weights: np.ndarray                 # (B, H, Tq, Tk), before dropout: each row sums to 1
    dropped: np.ndarray                 # (B, H, Tq, Tk), after dropout
    keep: tuple | None                  # the cache of dropout


def scaled_dot_product_attention_forward(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, AttentionCache]:
    """Each query attends to the keys that the mask allows, and receives a weighted sum of their values.

    Parameters
    ----------
    q : ndarray of shape (B, H, Tq, d_k), float32 or float64
    k : ndarray of shape (B, H, Tk, d_k)
    v : ndarray of shape (B, H, Tk, d_v)
    mask : boolean ndarray broadcastable to (B, H, Tq, Tk) with a last axis of Tk, True = may attend; or None
    dropout : probability, in [0, 1), of dropping a weight
    rng : source of the random draws, or None for no dropout

    Returns
    -------
    y : ndarray of shape (B, H, Tq, d_v)
    cache : AttentionCache; cache.weights is an ndarray of shape (B, H, Tq, Tk), the attention weights before dropout

    Raises
    ------
    TypeError
        if q, k, v are not float32 or float64 arrays of one dtype, or the mask is not a boolean one
    ValueError
        if the shapes of q, k, v or the mask do not fit, or dropout is outside [0, 1)
    """
    check_shapes(q, k, v, mask)
    scores = q @ k.swapaxes(-1, -2)                             # (B, H, Tq, Tk)
    scores *= 1 / math.sqrt(q.shape[-1])                        # (1)
    weights, _ = softmax_forward(scores, mask)                  # (2)
    dropped, keep = dropout_forward(weights, dropout, rng)      # (3)
    y = dropped @ v                                             # (4)  (B, H, Tq, d_v)
    return y, AttentionCache(q, k, v, weights, dropped, keep)


def scaled_dot_product_attention_backward(
    dy: np.ndarray, cache: AttentionCache
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients (dq, dk, dv) of `scaled_dot_product_attention_forward`, from dy (B, H, Tq, d_v)."""
    q, k, v, weights, dropped, keep = cache
    check_gradient("attention", (*q.shape[:3], v.shape[3]), q.dtype, dy=dy)
    dv = dropped.swapaxes(-1, -2) @ dy                          # (5)  y = dropped v
    ddropped = dy @ v.swapaxes(-1, -2)                          # (6)
    dweights = dropout_backward(ddropped, keep)                 # (7)
    dscores = softmax_backward(dweights, (weights,))            # (8)
    dscores *= 1 / math.sqrt(q.shape[-1])
    dq = dscores @ k                                            # (9)  scores = q k^T / sqrt(d_k)
    dk = dscores.swapaxes(-1, -2) @ q
    return dq, dk, dv


def check_shapes(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None) -> None:
    """Raise a ValueError or TypeError that names what does not fit among q, k, v (B, H, T, d) and the mask."""
    check_arrays("attention", q=q, k=k, v=v)
    if not q.ndim == k.ndim == v.ndim == 4:
        raise ValueError(f"attention: expected q, k, v (B, H, T, d), got {q.shape}, {k.shape}, {v.shape}")
    if q.shape[:2] != k.shape[:2] or k.shape[:3] != v.shape[:3] or q.shape[3] != k.shape[3] or not q.shape[3]:
        raise ValueError(
            f"attention: expected q (B, H, Tq, d_k), k (B, H, Tk, d_k), v (B, H, Tk, d_v), got {q.shape}, {k.shape}, "
            f"{v.shape}: keys and values come from the same tokens, queries and keys have the same size"
        )
    if mask is None:
        return
    check_mask("attention", mask)
    full = q.shape[:3] + k.shape[2:3]
    fits = mask.ndim <= 4 and all(m in (1, n) for m, n in zip(mask.shape[::-1], full[::-1], strict=False))
    if not fits or mask.ndim == 0 or mask.shape[-1] != full[-1]:
        raise ValueError(
            f"attention: expected a mask broadcastable to (B, H, Tq, Tk) = {full} with a last axis of Tk = {full[-1]}, "
            f"got {np.shape(mask)}: is the mask on the query axis? A padding mask (B, Tk) becomes mask[:, None, None, :]"
        )
