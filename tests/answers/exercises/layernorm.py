def layernorm_backward(dy, cache):
    xhat, rstd, gamma = cache
    positions = tuple(range(dy.ndim - 1))
    dbeta = dy.sum(axis=positions)                              # (3)
    dgamma = (dy * xhat).sum(axis=positions)
    dxhat = dy * gamma                                          # (4)
    dx = dxhat - dxhat.mean(axis=-1, keepdims=True)             # (5)
    dx = dx - xhat * (dxhat * xhat).mean(axis=-1, keepdims=True)
    return rstd * dx, dgamma, dbeta
