"""Embedding: row ids[b, t] of a table. Vaswani et al. 2017, section 3.4; article C, section 2.1.

    (1)  y[b, t] = table[ids[b, t]]

Backward, from dy:

    (2)  dtable[v] = sum dy[b, t]          over all positions (b, t) with ids[b, t] = v

A token that occurs five times is used five times, so its row receives the sum of five gradients; a token that does not occur
gets zero. (1) is a product with a one-hot matrix, and (2) the product with its transpose, but nearly all of that work is
multiplication by zero. ``np.add.at(dtable, ids, dy)`` is (2) in one line; on large tables it takes three to four times as
long as the code below. The code groups the tokens by how often they occur: those that occur n times give an array
(tokens, n, D), and its sum over the middle axis gives their rows. The positions of a token are added from first to last.

Differs: nothing is scaled here; Vaswani et al. multiply by sqrt(d_model) afterwards. There is no padding_idx: padding
is handled by masks.
"""
import numpy as np

from tinymae.arguments import check_arrays, check_gradient, check_integers


def embedding_forward(ids: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Look up rows of a table.

    Parameters
    ----------
    ids : integer ndarray of shape (...), values in [0, V)
    table : ndarray of shape (V, D), float32 or float64

    Returns
    -------
    y : ndarray of shape (..., D), dtype of table
    cache : (ids, shape of table)

    Raises
    ------
    TypeError
        if ids is not an array of integers, or table not a float32 or float64 one
    ValueError
        if table is not (V, D)
    IndexError
        if an id is negative or not below V
    """
    check_integers("embedding", hint="are ids and table in the right order?", ids=ids)
    check_arrays("embedding", table=table)
    if table.ndim != 2 or not table.shape[1]:
        raise ValueError(f"embedding: expected table (V, D) with D of at least 1, got {table.shape}")
    if ids.size and not 0 <= ids.min() <= ids.max() < len(table):
        raise IndexError(
            f"embedding: expected ids in [0, {len(table)}), got [{ids.min()}, {ids.max()}]: "
            "was the text encoded with another vocabulary?"
        )
    return table[ids], (ids, table.shape)                       # (1)


def embedding_backward(dy: np.ndarray, cache: tuple) -> np.ndarray:
    """Gradient dtable (V, D) of `embedding_forward`, from dy (..., D). The ids have none."""
    ids, shape = cache
    check_gradient("embedding", (*ids.shape, shape[1]), None, dy=dy)
    ids, dy = ids.reshape(-1), dy.reshape(-1, shape[1])
    dtable = np.zeros(shape, dy.dtype)
    order = np.argsort(ids, kind="stable")                      # positions, sorted by token
    tokens, first, count = np.unique(ids[order], return_index=True, return_counts=True)
    for n in np.unique(count):
        some = count == n                                       # the tokens that occur n times
        positions = order[first[some, None] + np.arange(n)]     # (tokens, n)
        dtable[tokens[some]] = dy[positions].sum(axis=1)        # (2)
    return dtable
