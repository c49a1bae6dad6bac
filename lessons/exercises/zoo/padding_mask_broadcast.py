"""A padding mask that leaves the rest to broadcasting.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it.

A mask is boolean, True = may attend, and broadcasts to the scores (B, H, Tq, Tk): a row is a query, a column a key. No word
may look at padding, id `pad`.
"""

EXERCISE = "padding_mask_broadcast"                             # python -m tinymae check padding_mask_broadcast.py


def padding_mask(ids, pad=0):
    """ids (B, T) -> boolean mask with four axes."""
    words = ids != pad                                          # (B, T)
    return words[:, None, :, None]


# ---- why nobody noticed: stop here, and guess first ----
# The same as padding_mask_on_queries, as it is usually written: the axis of the keys has size 1, and NumPy stretches it
# without a word. Attention here refuses such a mask; most implementations take it.
