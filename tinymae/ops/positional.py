"""Positional encodings: without them, a Transformer is a bag of words. Five layouts, each a table (T, D), and the addition.

Vaswani et al. 2017, section 3.5; articles A (part 1), C (section 2.2), D and E; He et al. 2021 for images.

    (1)  PE(pos, 2i)     = sin(pos / 10000^(2i / D))
    (2)  PE(pos, 2i + 1) = cos(pos / 10000^(2i / D))

Each pair (sin, cos) is the hand of a clock, from fast on the left to slow on the right. A fixed offset k turns every hand by a
fixed angle, so PE(pos + k) is a rotation of PE(pos), the same for all pos. The formula is defined for any length.

    sinusoidal_interleaved      sin on even, cos on odd columns: the paper, articles C and E, the second figure of D
    sinusoidal_halves           all sines, then all cosines: Tensor2Tensor, the first figure of D, Marian
    get_positional_encoding     article A's code, with its two quirks
    sincos_2d                   images, as in MAE: half of the dimensions for the column, half for the row
    learned                     a parameter (T, D): see `init.normal`, and `positional_forward`, which returns its gradient
"""
import numpy as np

from tinymae.arguments import check_arrays, check_gradient, check_patch_grid, check_scalars


def sinusoidal_interleaved(length: int, dim: int) -> np.ndarray:
    """Sine on even, cosine on odd columns, equations (1) and (2).

    Parameters
    ----------
    length : T
    dim : D; if it is odd, the last column is a sine without its cosine

    Returns
    -------
    table : float64 ndarray of shape (T, D), values in [-1, 1]
    """
    check_scalars("positional", "count", length=length, dim=dim)
    angles = _angles(np.arange(length), (dim + 1) // 2, dim)
    table = np.empty((length, dim))
    table[:, 0::2] = np.sin(angles)                             # (1)
    table[:, 1::2] = np.cos(angles[:, : dim // 2])              # (2)
    return table


def sinusoidal_halves(length: int, dim: int) -> np.ndarray:
    """All sines in the left half, all cosines in the right; the same numbers as `sinusoidal_interleaved`, reordered.

    Parameters
    ----------
    length : T
    dim : D, even

    Returns
    -------
    table : float64 ndarray of shape (T, D), values in [-1, 1]

    Raises
    ------
    ValueError
        if dim is odd: the two halves would not be equal

    Notes
    -----
    Differs: Tensor2Tensor spreads the frequencies so that the last is exactly 1 / 10000 (it divides by D/2 - 1); here, as
    in the paper, the exponent is 2i / D.
    """
    check_scalars("positional", "count", length=length, dim=dim)
    if dim % 2:
        raise ValueError(f"sinusoidal_halves: expected an even dimension, got {dim}: use sinusoidal_interleaved")
    angles = _angles(np.arange(length), dim // 2, dim)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def get_positional_encoding(max_seq_len: int = 100, embed_dim: int = 16, *, normalise: bool = False) -> np.ndarray:
    """The encoding of article A's code, quirks included, to compare numbers with the article.

    Parameters
    ----------
    max_seq_len, embed_dim : T and D
    normalise : divide every row except row 0 by its Euclidean norm, as the article suggests

    Returns
    -------
    table : float64 ndarray of shape (T, D)

    Notes
    -----
    Quirk 1: column j is sin or cos of pos / 10000^(2j / D) with j the *full* column index. The paper's exponent is
    2 (j // 2) / D, so a sine and its cosine share a frequency there, but not here; the slow half of the columns hardly changes.
    Quirk 2: row 0 stays zero. The paper's row 0 is (0, 1, 0, 1, ...), since cos(0) = 1.
    """
    check_scalars("positional", "count", max_seq_len=max_seq_len, embed_dim=embed_dim)
    columns = np.arange(embed_dim)
    table = np.arange(max_seq_len)[:, None] / 10000.0 ** (2 * columns / embed_dim)              # quirk 1
    table[:, 0::2] = np.sin(table[:, 0::2])
    table[:, 1::2] = np.cos(table[:, 1::2])
    table[0] = 0                                                                                # quirk 2
    if normalise:
        table[1:] /= np.linalg.norm(table[1:], axis=1, keepdims=True)
    return table


def sincos_2d(grid: tuple[int, int], dim: int) -> np.ndarray:
    """Positions of patches on a grid, in the layout of the paper's code (He et al. 2021).

    Parameters
    ----------
    grid : patches down and across
    dim : D, a multiple of 4

    Returns
    -------
    table : float64 ndarray of shape (grid rows * grid cols, D), row by row: [sin col, cos col, sin row, cos row]

    Raises
    ------
    ValueError
        if dim is not a multiple of 4

    Notes
    -----
    In the paper's code the class token's position is a row of zeros on top of this table: adding it changes nothing, so it is
    omitted here. The column comes first, as in the paper's code and its checkpoints (one would expect the row).
    """
    check_patch_grid("sincos_2d", "count", grid)
    check_scalars("sincos_2d", "count", dim=dim)
    rows, cols = grid
    if dim % 4:
        raise ValueError(f"sincos_2d: expected a dimension that is a multiple of 4 (sin and cos, of row and column), got {dim}")
    by_row, by_col = (sinusoidal_halves(side, dim // 2) for side in grid)
    table = np.empty((rows, cols, dim))
    table[:, :, : dim // 2] = by_col
    table[:, :, dim // 2 :] = by_row[:, None]
    return table.reshape(rows * cols, dim)


def positional_forward(x: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Add positions to tokens.

    Parameters
    ----------
    x : ndarray of shape (B, T, D), float32 or float64
    table : ndarray of shape (rows, D), dtype of x, with at least T rows

    Returns
    -------
    y : ndarray of shape (B, T, D), x + table[:T]
    cache : (shape of x, rows of the table)

    Raises
    ------
    TypeError
        if they are not float32 or float64 arrays of one dtype
    ValueError
        if the table is too short or has another dimension
    """
    check_arrays("positional", x=x, table=table)
    if x.ndim != 3 or table.ndim != 2:
        raise ValueError(f"positional: expected x (B, T, D) and a table (T, D), got {x.shape} and {table.shape}")
    length = x.shape[1]
    if length > len(table) or x.shape[2] != table.shape[1]:
        raise ValueError(
            f"positional: expected a table (at least {length}, {x.shape[2]}) for x {x.shape}, got {table.shape}: a learned "
            "table ends at the longest training sequence, a sinusoidal one can be made longer"
        )
    return x + table[:length], (x.shape, len(table))


def positional_backward(dy: np.ndarray, cache: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Gradients (dx, dtable) of `positional_forward`: dy (B, T, D) -> dx (B, T, D), dtable (rows, D)."""
    shape, rows = cache
    check_gradient("positional", shape, None, dy=dy)
    dtable = np.zeros((rows, shape[2]), dy.dtype)
    dtable[: dy.shape[1]] = dy.sum(axis=0)                      # every sequence adds the same table
    return dy.copy(), dtable


def _angles(positions, frequencies, dim):
    return positions[:, None] / 10000.0 ** (2 * np.arange(frequencies) / dim)
