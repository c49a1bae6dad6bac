def linear_backward(dy, cache):
    x, w = cache
    dx = dy @ w.T                                               # (2)
    rows = dy.reshape(-1, w.shape[1])
    dw = x.reshape(-1, w.shape[0]).T @ rows                     # (3)
    db = rows.sum(axis=0)                                       # (4)
    return dx, dw, db
