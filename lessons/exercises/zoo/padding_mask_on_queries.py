"""A padding mask whose shape is just right.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it.

A mask is boolean, True = may attend, and broadcasts to the scores (B, H, Tq, Tk): a row is a query, a column a key. No word
may look at padding, id `pad`.
"""
import numpy as np

EXERCISE = "padding_mask_on_queries"                            # python -m tinymae check padding_mask_on_queries.py


def padding_mask(ids, pad=0):
    """ids (B, T) -> boolean mask (B, 1, T, T)."""
    batch, length = ids.shape
    words = ids != pad                                          # (B, T)
    return np.broadcast_to(words[:, None, :, None], (batch, 1, length, length))


# ---- why nobody noticed: stop here, and guess first ----
# It stops padding from looking, which harms nobody, and lets every word look at padding. In self-attention Tq = Tk, so the
# shape fits the wrong way round, too. It shows when the same sentence comes out otherwise in a batch with a longer one.
