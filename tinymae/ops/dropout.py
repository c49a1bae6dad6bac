"""Dropout: Srivastava et al. 2014; Vaswani et al. 2017, section 5.4; article E, `PositionalEncoding`.

    (1)  y = x * keep,   keep = 1 / (1 - dropout) with probability 1 - dropout, else 0

Backward, from dy:

    (2)  dx = dy * keep         the same random draw: an entry that was dropped in the forward receives no gradient

The factor 1 / (1 - dropout) keeps the mean of y equal to that of x, so nothing has to change when dropout is switched off.
"""
import numpy as np

from tinymae.arguments import check_arrays, check_gradient, check_scalars


def dropout_forward(x: np.ndarray, dropout: float, rng: np.random.Generator | None = None) -> tuple[np.ndarray, tuple | None]:
    """Set each entry of x to zero with probability `dropout`.

    Parameters
    ----------
    x : ndarray of any shape, float32 or float64
    dropout : probability, in [0, 1)
    rng : source of the random draws, or None to switch dropout off

    Returns
    -------
    y : ndarray like x; x itself (not a copy) when dropout is off: do not write into it
    cache : (keep,), or None when dropout is off

    Raises
    ------
    TypeError
        if x is not a float32 or float64 array
    ValueError
        if dropout is outside [0, 1): it is the fraction to drop, not to keep
    """
    check_arrays("dropout", x=x)
    check_scalars("dropout", "fraction", hint="it is the fraction to drop, not to keep", dropout=dropout)
    if rng is None or dropout == 0:
        return x, None
    keep = (rng.random(x.shape, dtype=x.dtype) >= dropout).astype(x.dtype)
    keep *= 1 / (1 - dropout)
    return x * keep, (keep,)                                    # (1)


def dropout_backward(dy: np.ndarray, cache: tuple | None) -> np.ndarray:
    """Gradient dx of `dropout_forward`, of the shape of dy; dy itself if dropout was off."""
    if cache is None:
        check_arrays("dropout", dy=dy)
        return dy
    (keep,) = cache
    check_gradient("dropout", keep.shape, keep.dtype, dy=dy)
    return dy * keep                                            # (2)
