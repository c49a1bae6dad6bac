"""Layer normalisation: Ba et al. 2016; Vaswani et al. 2017, section 3.1; article A, part 3; article C, section 4.1.

Each position is normalised to mean 0 and variance 1 over its D features, then scaled and shifted by learned parameters.

    (1)  xhat = (x - mean(x)) * rstd,    rstd = 1 / sqrt(var(x) + eps)      mean and var over the last axis
    (2)  y    = gamma * xhat + beta

Backward, from dy:

    (3)  dbeta = sum dy,   dgamma = sum dy * xhat               all positions share gamma and beta
    (4)  dxhat = dy * gamma
    (5)  dx    = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))

(5) is dxhat without its components along 1 and along xhat. Moving x along 1 only changes the mean, moving it along xhat only
changes the scale, and (1) removes both. Hence the gradient of any loss has no component along either (up to eps). gamma
comes before the means, in (4): a backward that multiplies by it afterwards is correct only if gamma is 1.

Differs: var is biased (1/D) and eps is inside the square root, as in PyTorch; in the Annotated Transformer, neither holds.
The article calls gamma alpha.
"""
import numpy as np

from tinymae.arguments import check_arrays, check_gradient, check_scalars


def layernorm_forward(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, *, eps: float = 1e-5
) -> tuple[np.ndarray, tuple]:
    """Normalise the last axis of x.

    Parameters
    ----------
    x : ndarray of shape (..., D), float32 or float64
    gamma, beta : ndarray of shape (D,)
    eps : added to the variance

    Returns
    -------
    y : ndarray of shape (..., D), dtype of x
    cache : (xhat, rstd, gamma); xhat is as large as x

    Raises
    ------
    TypeError
        if they are not float32 or float64 arrays of one dtype
    ValueError
        if gamma or beta is not (D,), D is 0, or eps is negative
    """
    check_arrays("layernorm", x=x, gamma=gamma, beta=beta)
    check_scalars("layernorm", "not_negative", eps=eps)
    if not x.shape[-1]:
        raise ValueError(f"layernorm: expected x (..., D) with D of at least 1, got {x.shape}")
    if gamma.shape != x.shape[-1:] or beta.shape != x.shape[-1:]:
        raise ValueError(
            f"layernorm: expected gamma and beta of shape {x.shape[-1:]} for x {x.shape}, got {gamma.shape} and {beta.shape}: "
            "only the last axis is normalised"
        )
    width = x.shape[-1]
    average = np.full(width, 1 / width, x.dtype)                # its dot product with a row: the mean, faster than x.mean
    mean = np.vecdot(x, average)[..., None]
    xhat = x - mean                                             # (..., D)  a fresh array: in place from here
    var = np.vecdot(xhat, xhat)[..., None] / width
    far = (mean * mean > 100 * (var + eps))[..., 0]             # from 0: there, rounding leaves a part of the mean in xhat
    if far.any():
        moved = x[far] - x[far][..., :1]                        # exact: they are near their first feature
        xhat[far] = moved - np.vecdot(moved, average)[..., None]
        var[far] = np.vecdot(xhat[far], xhat[far])[..., None] / width
    rstd = 1.0 / np.sqrt(var + eps)
    xhat *= rstd                                                # (1)
    y = xhat * gamma                                            # (2)
    y += beta
    return y, (xhat, rstd, gamma)


def layernorm_backward(dy: np.ndarray, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients (dx, dgamma, dbeta) of `layernorm_forward`: dy (..., D) -> dx (..., D), dgamma (D,), dbeta (D,)."""
    xhat, rstd, gamma = cache
    check_gradient("layernorm", xhat.shape, xhat.dtype, dy=dy)
    width = dy.shape[-1]
    ones, mean = np.ones(dy.size // width, dy.dtype), np.full(width, 1 / width, dy.dtype)
    dbeta = ones @ dy.reshape(-1, width)                        # (3)
    dgamma = ones @ (dy * xhat).reshape(-1, width)
    dxhat = dy * gamma                                          # (4)
    dx = dxhat - np.vecdot(dxhat, mean)[..., None]             # (5)
    dx -= xhat * (np.vecdot(dxhat, xhat)[..., None] / width)
    dx *= rstd
    return dx, dgamma, dbeta
