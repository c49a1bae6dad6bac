"""Positional encodings: without one, a Transformer is a bag of words. Five layouts, each a table (T, D), and the addition.

Vaswani et al. 2017, section 3.5; articles A (part 1), C (section 2.2), D and E; He et al. 2021 for pictures.

    (1)  PE(pos, 2i)     = sin(pos / 10000^(2i / D))
    (2)  PE(pos, 2i + 1) = cos(pos / 10000^(2i / D))

Each pair (sin, cos) is the hand of a clock, from fast on the left to slow on the right.  Any fixed offset k turns every hand by
a fixed angle, so PE(pos + k) is a rotation of PE(pos): the same for all pos. The formula goes on past any length.

    sinusoidal_interleaved      sin on even, cos on odd columns: the paper, articles C and E, the second picture of D
    sinusoidal_halves           all sines, then all cosines: Tensor2Tensor, the first picture of D, Marian
    get_positional_encoding     article A's code, with its two quirks
    sincos_2d                   pictures, as in MAE: half of the width for the column, half for the row
    learned                     a parameter (T, D): see `init.normal`, and `positional_forward`, which returns its gradient
"""
import numpy as np


def sinusoidal_interleaved(length, width):
    """Sine on even, cosine on odd columns, equations (1) and (2).

    Parameters
    ----------
    length : int, T, any
    width : int, D; where it is odd, the last column is a sine whose cosine has no room

    Returns
    -------
    table : float64 ndarray of shape (T, D), values in [-1, 1]
    """
    _check_table(length, width)
    angles = _angles(np.arange(length), (width + 1) // 2, width)
    table = np.empty((length, width))
    table[:, 0::2] = np.sin(angles)                             # (1)
    table[:, 1::2] = np.cos(angles[:, : width // 2])            # (2)
    return table


def sinusoidal_halves(length, width):
    """All sines in the left half, all cosines in the right; the same numbers as `sinusoidal_interleaved`, reordered.

    Parameters
    ----------
    length : int, T, any
    width : int, D, even

    Returns
    -------
    table : float64 ndarray of shape (T, D), values in [-1, 1]

    Raises
    ------
    ValueError
        where width is odd: two halves would not be equal

    Notes
    -----
    Differs: Tensor2Tensor spreads the frequencies so that the last is exactly 1 / 10000 (it divides by D/2 - 1); here, as
    in the paper, the exponent is 2i / D.
    """
    _check_table(length, width)
    if width % 2:
        raise ValueError(f"sinusoidal_halves: expected an even width, got {width}: use sinusoidal_interleaved")
    angles = _angles(np.arange(length), width // 2, width)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def get_positional_encoding(max_seq_len=100, embed_dim=16, normalise=False):
    """The encoding of article A's code, quirks included, for readers who compare numbers.

    Parameters
    ----------
    max_seq_len, embed_dim : int, T and D
    normalise : bool, divide every row but row 0 by its Euclidean norm, as the article suggests

    Returns
    -------
    table : float64 ndarray of shape (T, D)

    Notes
    -----
    Quirk 1: column j is sin or cos of pos / 10000^(2j / D) with j the *full* column index. The paper's exponent is
    2 (j // 2) / D, so a sine and its cosine share a frequency there and do not here; the slow half of the columns hardly moves.
    Quirk 2: row 0 stays zero. The paper's row 0 is (0, 1, 0, 1, ...), since cos(0) = 1.
    """
    _check_table(max_seq_len, embed_dim)
    columns = np.arange(embed_dim)
    table = np.arange(max_seq_len)[:, None] / 10000.0 ** (2 * columns / embed_dim)              # quirk 1
    table[:, 0::2] = np.sin(table[:, 0::2])
    table[:, 1::2] = np.cos(table[:, 1::2])
    table[0] = 0                                                                                # quirk 2
    if normalise:
        table[1:] /= np.linalg.norm(table[1:], axis=1, keepdims=True)
    return table


def sincos_2d(grid, width):
    """Positions of patches on a grid, in the layout of the paper's code (He et al. 2021).

    Parameters
    ----------
    grid : (int, int), patches down and across
    width : int, D, a multiple of 4

    Returns
    -------
    table : float64 ndarray of shape (grid rows * grid cols, D), row by row: [sin col, cos col, sin row, cos row]

    Raises
    ------
    ValueError
        where width is not a multiple of 4

    Notes
    -----
    The class token's position is a row of zeros on top of this table: adding it changes nothing, and so it is left out.
    The column comes first, as in the paper's code and its checkpoints (a reader would expect the row).
    """
    rows, cols = grid
    _check_table(rows * cols, width)
    if width % 4:
        raise ValueError(
            f"sincos_2d: expected a width that is a multiple of 4 (sin and cos, for row and column), got {width}"
        )
    by_row, by_col = (sinusoidal_halves(side, width // 2) for side in grid)
    table = np.empty((rows, cols, width))
    table[:, :, : width // 2] = by_col
    table[:, :, width // 2 :] = by_row[:, None]
    return table.reshape(rows * cols, width)


def positional_forward(x, table):
    """Add positions to tokens.

    Parameters
    ----------
    x : ndarray of shape (B, T, D), float32 or float64
    table : ndarray of shape (at least T, D), dtype of x

    Returns
    -------
    y : ndarray of shape (B, T, D), x + table[:T]
    cache : (rows of the table,)

    Raises
    ------
    ValueError
        where the table is too short or has another width
    """
    if x.ndim != 3 or table.ndim != 2:
        raise ValueError(f"positional: expected x (B, T, D) and a table (T, D), got {x.shape} and {table.shape}")
    length = x.shape[1]
    if length > len(table) or x.shape[2] != table.shape[1]:
        raise ValueError(
            f"positional: expected a table (at least {length}, {x.shape[2]}) for x {x.shape}, got {table.shape}: a learned "
            "table ends where training ended, a sinusoidal one can be made longer"
        )
    return x + table[:length], (len(table),)


def positional_backward(dy, cache):
    """Gradients (dx, dtable) of `positional_forward`: dy (B, T, D) -> dx (B, T, D), dtable (table rows, D)."""
    (rows,) = cache
    dtable = np.zeros((rows, dy.shape[2]), dy.dtype)
    dtable[: dy.shape[1]] = dy.sum(axis=0)                      # every sentence adds the same table
    return dy.copy(), dtable


def _angles(positions, frequencies, width):
    return positions[:, None] / 10000.0 ** (2 * np.arange(frequencies) / width)


def _check_table(length, width):
    if length < 1 or width < 1:
        raise ValueError(f"positional: expected a length and a width of at least 1, got {length} and {width}")
