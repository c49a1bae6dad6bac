"""Scaled dot-product attention in O(T) memory: Rabe & Staats 2021; Dao et al. 2022 (FlashAttention), algorithms 1 and 4.

The keys come in tiles, and an array of Tq x Tk never exists. Softmax needs the maximum and the sum of each row of scores; both
are updated tile by tile: "online softmax", Milakov & Gimelshein 2018. Before the first tile, maximum is -infinity, total and
y are 0. For each tile, with keys k_j and values v_j:

    (1)  scores = q k_j^T / sqrt(d_k)                           (Tq, tile), -infinity for forbidden keys
    (2)  higher = max(maximum, max scores)                      the maximum of all keys so far
         shrink = exp(maximum - higher)                         less than 1 if this tile raised the maximum
         e      = exp(scores - higher)
    (3)  total  = total * shrink + sum e                        the old sum, rescaled to the new maximum
    (4)  y      = y * shrink + e v_j                            likewise
         maximum = higher

and after the last tile

    (5)  y = y / total,   logsumexp = maximum + log total

Backward, from dy. The weights were not stored. They are computed again, tile by tile, from one number per query, logsumexp:

    (6)  weights  = exp(scores - logsumexp)                     = exp(scores - maximum) / total, the scores from (1) again
    (7)  dv_j     = weights^T dy                                y = weights v
    (8)  dweights = dy v_j^T
    (9)  dscores  = weights * (dweights - delta) / sqrt(d_k)    softmax backward, and the factor of (1)
         delta    = sum_k dweights_k weights_k                  over all keys of a row, also those of other tiles; but it
                  = sum_k (dy . v_k) weights_k = dy . y         follows from dy and y alone
    (10) dq       = sum_j dscores k_j,   dk_j = dscores^T q     from (1)

Time: (1) is computed twice, so forward and backward take seven matrix products where `ops.attention` takes six.
Memory: the scores of one tile, Tq x tile numbers, where `ops.attention` keeps Tq x Tk.

Differs: FlashAttention cuts the queries too, so that all of a tile fits a GPU's fast memory; here only memory is saved. The
single division, in (5), and the single number per query are from FlashAttention-2 (Dao 2023). There is no dropout, and the
weights are not returned: use `ops.attention` for these.
"""
import math

import numpy as np

from tinymae.arguments import check_gradient, check_scalars
from tinymae.ops.attention import check_shapes


def memory_efficient_attention_forward(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None, *, tile: int = 128
) -> tuple[np.ndarray, tuple]:
    """`scaled_dot_product_attention_forward`, without an array of the size Tq x Tk.

    Parameters
    ----------
    q : ndarray of shape (B, H, Tq, d_k), float32 or float64
    k : ndarray of shape (B, H, Tk, d_k)
    v : ndarray of shape (B, H, Tk, d_v)
    mask : boolean ndarray broadcastable to (B, H, Tq, Tk) with a last axis of Tk, True = may attend; or None
    tile : number of keys in a tile

    Returns
    -------
    y : ndarray of shape (B, H, Tq, d_v)
    cache : (q, k, v, y, logsumexp, tiles); y is the array returned: do not write into it before the backward. logsumexp
        (B, H, Tq, 1); tiles is a list of (slice of the keys, their part of the mask or None)

    Raises
    ------
    TypeError
        if q, k, v are not float32 or float64 arrays of one dtype, or the mask is not a boolean one
    ValueError
        if the shapes of q, k, v or the mask do not fit, or tile is not positive
    """
    check_shapes(q, k, v, mask)
    check_scalars("attention", "count", tile=tile)
    slices = [slice(start, start + tile) for start in range(0, k.shape[2], tile)]
    tiles = [(keys, None if mask is None else mask[..., keys]) for keys in slices]
    # the maximum starts at a finite number, so that a row of -inf becomes exp(-inf) = 0 and not exp(-inf + inf) = NaN
    maximum = np.full((*q.shape[:3], 1), np.finfo(q.dtype).min, q.dtype)
    total = np.zeros_like(maximum)                              # (B, H, Tq, 1)
    y = np.zeros((*q.shape[:3], v.shape[3]), q.dtype)           # (B, H, Tq, d_v)
    for keys, allowed in tiles:
        scores = _scores(q, k[:, :, keys], allowed)             # (1)  (B, H, Tq, tile)
        higher = np.maximum(maximum, scores.max(axis=-1, keepdims=True))
        shrink = np.exp(maximum - higher)                       # (2)
        scores -= higher
        e = np.exp(scores, out=scores)
        total *= shrink                                         # (3)
        total += (e @ np.ones(e.shape[-1], e.dtype))[..., None]
        y *= shrink                                             # (4)
        y += e @ v[:, :, keys]
        maximum = higher
    total[total == 0] = 1                                       # a query that may attend to no key: y stays 0
    y /= total                                                  # (5)
    logsumexp = maximum + np.log(total)
    return y, (q, k, v, y, logsumexp, tiles)


def memory_efficient_attention_backward(dy: np.ndarray, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients (dq, dk, dv) of `memory_efficient_attention_forward`, from dy (B, H, Tq, d_v)."""
    q, k, v, y, logsumexp, tiles = cache
    check_gradient("attention", y.shape, y.dtype, dy=dy)
    delta = np.vecdot(dy, y)[..., None]                         # (9)  (B, H, Tq, 1)
    dq, dk, dv = (np.zeros(x.shape, x.dtype) for x in (q, k, v))
    for keys, allowed in tiles:
        weights = _scores(q, k[:, :, keys], allowed)            # (6)  (B, H, Tq, tile)
        weights -= logsumexp
        np.exp(weights, out=weights)
        dv[:, :, keys] = weights.swapaxes(-1, -2) @ dy          # (7)  y = weights v
        dscores = dy @ v[:, :, keys].swapaxes(-1, -2)           # (8)
        dscores -= delta                                        # (9)
        dscores *= weights
        dscores *= 1 / math.sqrt(q.shape[-1])
        dq += dscores @ k[:, :, keys]                           # (10)  scores = q k^T / sqrt(d_k)
        dk[:, :, keys] = dscores.swapaxes(-1, -2) @ q
    return dq, dk, dv


def _scores(q, k, allowed):
    """Equation (1) for the keys of one tile."""
    scores = q @ k.swapaxes(-1, -2)
    scores *= 1 / math.sqrt(q.shape[-1])
    if allowed is not None:
        np.copyto(scores, -np.inf, where=~allowed)
    return scores
