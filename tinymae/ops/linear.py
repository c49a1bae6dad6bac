"""Linear map: the projections W_Q, W_K, W_V, W_O and both layers of the feed forward.

Vaswani et al. 2017, sections 3.2.2 and 3.3; article C, sections 3 and 4.2.

    (1)  y = x w + b

Backward, from dy, where every position is one row of a matrix:

    (2)  dx = dy w^T         entry x_i reaches each y_j through w_ij
    (3)  dw = x^T dy         all positions share w, so their contributions are summed
    (4)  db = sum dy         over all positions

The shapes allow nothing else: (2) is the only product of dy and w with the shape of x, (3) the only product of x and dy
with the shape of w.

Differs: w is (in, out), so that the line reads as in the articles; PyTorch stores the transpose, (out, in).
"""
import numpy as np

from tinymae.arguments import check_arrays, check_gradient


def linear_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> tuple[np.ndarray, tuple]:
    """Map the last axis of x.

    Parameters
    ----------
    x : ndarray of shape (..., I), float32 or float64
    w : ndarray of shape (I, O)
    b : ndarray of shape (O,), or None for no bias

    Returns
    -------
    y : ndarray of shape (..., O)
    cache : (x, w, b)

    Raises
    ------
    TypeError
        if they are not float32 or float64 arrays of one dtype
    ValueError
        if w is not (I, O), the last axis of x is not the first of w, or b is not (O,)
    """
    check_arrays("linear", x=x, w=w, b=w if b is None else b)
    if w.ndim != 2 or 0 in w.shape:
        raise ValueError(f"linear: expected w (in, out), each at least 1, got {w.shape}")
    if x.shape[-1:] != w.shape[:1]:
        raise ValueError(
            f"linear: expected x (..., {w.shape[0]}) for w {w.shape}, got {x.shape}: "
            "is w stored as (out, in), the PyTorch way? Here it is (in, out)"
        )
    if b is not None and b.shape != w.shape[1:]:
        raise ValueError(f"linear: expected b {w.shape[1:]} for w {w.shape}, got {b.shape}: one bias for each output")
    rows = x.reshape(-1, w.shape[0])                            # one large 2-D product, not one per batch row
    if w.flags.f_contiguous and not w.flags.c_contiguous:       # a view of (out, in), as published weights are stored
        y = np.ascontiguousarray((w.T @ rows.T).T)              # (1)  the same, up to an eighth faster for few rows
    else:
        y = rows @ w                                            # (1)
    if b is not None:
        y += b
    return y.reshape(*x.shape[:-1], w.shape[1]), (x, w, b)


def linear_backward(dy: np.ndarray, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Gradients (dx, dw, db) of `linear_forward`; db is None if there was no bias.

    Shapes: dy (..., O) -> dx (..., I), dw (I, O), db (O,).
    """
    x, w, b = cache
    check_gradient("linear", (*x.shape[:-1], w.shape[1]), x.dtype, dy=dy)
    dy = dy.reshape(-1, w.shape[1])                             # y = x w + b
    dx = (dy @ w.T).reshape(x.shape)                            # (2)
    dw = x.reshape(-1, w.shape[0]).T @ dy                       # (3)
    db = None if b is None else dy.sum(axis=0)                  # (4)
    return dx, dw, db
