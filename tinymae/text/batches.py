"""From sentences of ids to rectangular batches: which sentences go into a batch, and how they fill one array.

    lengths  --token_batches-->  indices of the sentences of each batch  --pad_batch-->  ids (B, T), padded at the end
"""
from collections.abc import Sequence

import numpy as np

from tinymae.text.vocabulary import PAD


def pad_batch(rows: Sequence[Sequence[int] | np.ndarray], pad: int = PAD) -> np.ndarray:
    """Rows of ids as one array, with padding at the end of the short ones.

    Parameters
    ----------
    rows : lists of int, or integer arrays of one axis
    pad : the id of padding

    Returns
    -------
    ids : ndarray int64 (B, T), T the length of the longest row

    Raises
    ------
    TypeError
        if a row does not hold integers (tokens that were not encoded?)
    ValueError
        if there are no rows, a row is not flat, or all rows are empty
    """
    arrays = [np.asarray(row) for row in rows]
    for b, array in enumerate(arrays):
        if array.ndim != 1:
            raise ValueError(f"row {b} has shape {array.shape}; expected one sentence, a flat list of ids (is rows "
                             "one sentence only?)")
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(f"row {b} holds {array.dtype}; expected integer ids (Vocabulary.encode makes them)")
    longest = max((len(array) for array in arrays), default=0)
    if not longest:
        raise ValueError(f"expected at least one row with at least one id, got {len(arrays)} rows, all empty")
    ids = np.full((len(arrays), longest), pad, dtype=np.int64)
    for row, array in zip(ids, arrays, strict=True):
        row[: len(array)] = array
    return ids


def token_batches(
    source_lengths: Sequence[int] | np.ndarray, target_lengths: Sequence[int] | np.ndarray, tokens: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """One epoch of batches that hold about equally many tokens: many short sentences, or few long ones.

    Sentences of similar length share a batch, so little of it is padding. A little noise is added to the lengths first, so
    that the batches differ from epoch to epoch. Then the batches are shuffled, so that the short ones do not come first
    (Vaswani et al. 2017, section 5.1: pairs batched together by approximate length).

    Parameters
    ----------
    source_lengths, target_lengths : (N,) integers, with <eos>, as the rows will be
    tokens : the maximum of rows * longest, with the longest row of both sides
    rng : the same state gives the same batches

    Returns
    -------
    batches : list of int64 arrays of indices; every index from 0 to N - 1 is in exactly one of them

    Raises
    ------
    ValueError
        if the lengths are not two equally long flat lists, there are none, or one pair is longer than `tokens`
    """
    source, target = np.asarray(source_lengths), np.asarray(target_lengths)
    if source.ndim != 1 or source.shape != target.shape or not len(source):
        raise ValueError(f"lengths have shapes {source.shape} and {target.shape}; expected (N,) twice, one number "
                         "for each pair")
    lengths = np.maximum(source, target)
    if lengths.max() > tokens:
        i = int(lengths.argmax())
        raise ValueError(f"pair {i} is {lengths[i]} tokens long, but a batch may hold {tokens}: allow more, or drop "
                         "long pairs")
    noise = rng.integers(-1, 2, (2, len(source)))
    # The last key counts first: the noisy target length, then the noisy source length, then a random number.
    order = np.lexsort((rng.random(len(source)), source + noise[0], target + noise[1]))
    batches, start, longest = [], 0, 0
    for end, i in enumerate(order):
        longest = max(longest, lengths[i])
        if (end + 1 - start) * longest > tokens:
            batches.append(order[start:end])
            start, longest = end, lengths[i]
    batches.append(order[start:])
    return [batches[i] for i in rng.permutation(len(batches))]
