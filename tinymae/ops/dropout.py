"""Dropout: Srivastava et al. 2014; Vaswani et al. 2017, section 5.4; article E, `PositionalEncoding`.

    (1)  y = x * keep,   keep = 1 / (1 - rate) with probability 1 - rate, else 0

Backward, from dy:

    (2)  dx = dy * keep         the same draw: what was dropped on the way up gets nothing on the way down

The factor 1 / (1 - rate) keeps the mean of y at x, so that nothing has to change when dropout is switched off.
"""


def dropout_forward(x, rate, rng=None):
    """Zero each entry of x with probability `rate`.

    Parameters
    ----------
    x : ndarray of any shape, float32 or float64
    rate : float in [0, 1)
    rng : numpy.random.Generator, or None to switch dropout off

    Returns
    -------
    y : ndarray like x; x itself (not a copy) when dropout is off: do not write into it
    cache : (keep,), or None when dropout is off

    Raises
    ------
    ValueError
        where rate is outside [0, 1)
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: expected a rate in [0, 1), got {rate}: it is the share to drop, not to keep")
    if rng is None or rate == 0:
        return x, None
    keep = (rng.random(x.shape, dtype=x.dtype) >= rate).astype(x.dtype)
    keep *= 1 / (1 - rate)
    return x * keep, (keep,)                                    # (1)


def dropout_backward(dy, cache):
    """Gradient dx of `dropout_forward`, of the shape of dy; dy itself when dropout was off."""
    if cache is None:
        return dy
    (keep,) = cache
    return dy * keep                                            # (2)
