"""Embedding: row ids[b, t] of a table. Vaswani et al. 2017, section 3.4; article C, section 2.1.

    (1)  y[b, t] = table[ids[b, t]]

Backward, from dy:

    (2)  dtable[v] = sum of dy[b, t] over all positions where ids[b, t] = v

A word that occurs five times is used five times, so five gradients meet in its row; a word that does not occur gets zero.
(1) is a product with a one-hot matrix, and (2) the product with its transpose. We store that matrix by its ones only
(scipy.sparse): the dense product is thousands of times slower, ``np.add.at`` ten times.

Differs: nothing is scaled here; Vaswani multiply by sqrt(d_model) afterwards. There is no padding_idx: a mask does that.
"""
import numpy as np
from scipy.sparse import csc_array


def embedding_forward(ids, table):
    """Look up rows of a table.

    Parameters
    ----------
    ids : integer ndarray of any shape, values in [0, V)
    table : ndarray of shape (V, D), float32 or float64

    Returns
    -------
    y : ndarray of shape ids.shape + (D,), dtype of table
    cache : (ids, V)

    Raises
    ------
    TypeError
        where ids are not integers
    IndexError
        where an id is negative or not below V
    """
    if not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"embedding: expected integer ids, got {ids.dtype}: are ids and table in the right order?")
    if ids.size and not 0 <= ids.min() <= ids.max() < len(table):
        raise IndexError(
            f"embedding: expected ids in [0, {len(table)}), got [{ids.min()}, {ids.max()}]: "
            "was the text encoded with another vocabulary?"
        )
    return table[ids], (ids, len(table))                        # (1)


def embedding_backward(dy, cache):
    """Gradient dtable (V, D) of `embedding_forward`, from dy of shape ids.shape + (D,). The ids have none."""
    ids, rows = cache
    width = dy.shape[-1]
    # (V, positions): column t has a single 1, in row ids[t]
    onehot = csc_array((np.ones(ids.size, dy.dtype), ids.reshape(-1), np.arange(ids.size + 1)), shape=(rows, ids.size))
    return onehot @ dy.reshape(-1, width)                       # (2)
