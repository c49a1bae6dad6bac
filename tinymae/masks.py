"""Attention masks and shifted targets: article C, section 5.1; Vaswani et al. 2017, section 3.2.3.

A mask is boolean, True = may attend, and broadcasts to (B, H, Tq, Tk): what it hides are keys, on the last axis.

    (1)  padding     (B, 1, 1, Tk)       no token attends to the padding after a short sentence
    (2)  causal      (1, 1, T, T)        token t attends to the tokens 0..t, itself included: the lower triangle
    (3)  both        (B, 1, T, T)        & of the two

Teacher forcing feeds the decoder the true sentence, shifted right by one position (`shift_right`): at position t its inputs
are targets 0..t-1, and it predicts target t.

Differs: nn.Transformer's masks say True = may NOT attend; article A's masked_fill hides positions where the mask is 0, as here.
"""
import numpy as np

from tinymae.arguments import check_integers, check_scalars


def padding_mask(ids: np.ndarray, pad: int = 0) -> np.ndarray:
    """True for tokens, False for padding.

    Parameters
    ----------
    ids : integer ndarray of shape (B, T)
    pad : the id of padding

    Returns
    -------
    mask : boolean ndarray of shape (B, 1, 1, T)
    """
    _check("padding_mask", "pad", pad, ids=ids)
    return (ids != pad)[:, None, None, :]


def causal_mask(length: int) -> np.ndarray:
    """The lower triangle, boolean ndarray of shape (1, 1, T, T): no token attends to a later one."""
    check_scalars("causal_mask", "size", length=length)
    return np.tri(length, dtype=bool)[None, None]


def causal_padding_mask(ids: np.ndarray, pad: int = 0) -> np.ndarray:
    """Both at once, for a decoder's self-attention: ids (B, T) -> boolean ndarray of shape (B, 1, T, T)."""
    return padding_mask(ids, pad) & causal_mask(ids.shape[1])


def shift_right(targets: np.ndarray, bos: int) -> np.ndarray:
    """The inputs of the decoder with which it predicts `targets`.

        (1)  inputs[b, 0] = bos
        (2)  inputs[b, t] = targets[b, t - 1]

    Parameters
    ----------
    targets : integer ndarray of shape (B, T), each row tokens, <eos>, padding
    bos : the id of <bos>, with which every input starts

    Returns
    -------
    inputs : integer ndarray of shape (B, T): <bos>, then all targets but the last. After a short sentence the inputs are
        <eos> and padding; the predictions there do not count, since the targets are padding.
    """
    _check("shift_right", "bos", bos, targets=targets)
    if not np.iinfo(targets.dtype).min <= bos <= np.iinfo(targets.dtype).max:
        raise ValueError(f"shift_right: expected bos to be a number of {targets.dtype}, as the targets are, got {bos}")
    return np.concatenate([np.full_like(targets[:, :1], bos), targets[:, :-1]], axis=1)


def _check(mask, special, number, **ids):
    check_integers(mask, **ids)
    check_scalars(mask, "whole", **{special: number})
    ((name, array),) = ids.items()
    if array.ndim != 2:
        raise ValueError(f"{mask}: expected {name} (B, T), got {array.shape}: is the batch axis missing?")
