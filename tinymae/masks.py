"""Attention masks and shifted targets, built in one place: article C, section 5.1; Vaswani et al. 2017, section 3.2.3.

A mask is boolean, True = may attend, and broadcasts to (B, H, Tq, Tk): it is always keys that are hidden, on the last axis.

    (1)  padding     (B, 1, 1, Tk)       no token attends to the padding after a short sentence
    (2)  causal      (1, 1, T, T)        token t attends to the tokens 0..t, itself included: the lower triangle
    (3)  both        (B, 1, T, T)        & of the two

Teacher forcing feeds the decoder the true sentence one place to the right, `shift_right`: at place t it has seen targets
0..t-1 and is asked for target t.

Differs: nn.Transformer's masks say True = may NOT attend; article A's masked_fill hides where the mask is 0, as here.
"""
import numpy as np


def padding_mask(ids, pad=0):
    """True where there is a word.

    Parameters
    ----------
    ids : integer ndarray of shape (B, T)
    pad : int, the id that fills short sentences up

    Returns
    -------
    mask : boolean ndarray of shape (B, 1, 1, T)
    """
    _check(ids)
    return (ids != pad)[:, None, None, :]


def causal_mask(length):
    """The lower triangle, boolean ndarray of shape (1, 1, T, T): no word looks at a later one."""
    return np.tri(length, dtype=bool)[None, None]


def causal_padding_mask(ids, pad=0):
    """Both at once, for a decoder's self-attention: ids (B, T) -> boolean ndarray of shape (B, 1, T, T)."""
    return padding_mask(ids, pad) & causal_mask(ids.shape[1])


def shift_right(targets, bos):
    """What the decoder is fed when it is to say `targets`.

        (1)  inputs[b, 0] = bos
        (2)  inputs[b, t] = targets[b, t - 1]

    Parameters
    ----------
    targets : integer ndarray of shape (B, T), each row words, <eos>, padding
    bos : int, the id of <bos>, with which every sentence starts

    Returns
    -------
    inputs : integer ndarray of shape (B, T): <bos>, then all targets but the last. Where a short sentence is over the decoder
        is fed <eos> and padding; what it answers there is not asked for, since the targets there are padding.
    """
    _check(targets)
    return np.concatenate([np.full_like(targets[:, :1], bos), targets[:, :-1]], axis=1)


def _check(ids):
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"expected integer ids (B, T), got {ids.dtype} {ids.shape}: is the batch axis missing?")
