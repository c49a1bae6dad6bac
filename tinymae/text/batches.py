"""Sentences of ids made into rectangular batches."""
import numpy as np

from tinymae.text.vocabulary import PAD

# Rows to batches


def pad_batch(rows, pad=PAD):
    """Rows of ids as one array, the short ones filled up at their end.

    Parameters
    ----------
    rows : list of lists of int, or of integer arrays of one axis
    pad : int

    Returns
    -------
    ids : ndarray int64 (B, T), T the length of the longest row

    Raises
    ------
    TypeError
        when a row holds something else than integers (words that were not encoded?)
    ValueError
        when there are no rows, a row is not flat, or all rows are empty
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


def token_batches(source_lengths, target_lengths, tokens, rng):
    """One epoch of batches that hold about equally many tokens: many short sentences, or few long ones.

    Sentences of like length go together, so little of a batch is padding. The lengths get a little noise first, so
    that the same sentences do not meet in every epoch; then the batches are shuffled, so that the model does not
    read short ones first (Vaswani et al. 2017, section 5.1: pairs batched together by approximate length).

    Parameters
    ----------
    source_lengths, target_lengths : (N,) integers, with <eos>, as the rows will be
    tokens : int, the most that rows * longest may be, longest counted over both sides
    rng : numpy.random.Generator; the same state gives the same batches

    Returns
    -------
    batches : list of int64 arrays of indices; every index from 0 to N - 1 is in exactly one of them

    Raises
    ------
    ValueError
        when the lengths are not two equally long flat lists, there are none, or a pair alone is longer than tokens
    """
    source, target = np.asarray(source_lengths), np.asarray(target_lengths)
    if source.ndim != 1 or source.shape != target.shape or not len(source):
        raise ValueError(f"lengths have shapes {source.shape} and {target.shape}; expected (N,) twice, one number "
                         "for each pair")
    lengths = np.maximum(source, target)
    if lengths.max() > tokens:
        i = int(lengths.argmax())
        raise ValueError(f"pair {i} is {lengths[i]} tokens long, and a batch may hold {tokens}: allow more, or drop "
                         "long pairs")
    noise = rng.integers(-1, 2, (2, len(source)))
    # The last key counts first: the noisy target length; then source length; then chance.
    order = np.lexsort((rng.random(len(source)), source + noise[0], target + noise[1]))
    batches, start, longest = [], 0, 0
    for end, i in enumerate(order):
        longest = max(longest, lengths[i])
        if (end + 1 - start) * longest > tokens:
            batches.append(order[start:end])
            start, longest = end, lengths[i]
    batches.append(order[start:])
    return [batches[i] for i in rng.permutation(len(batches))]
