def feed_forward_backward(dy, cache):
    x, h, a, p = cache
    w1, w2 = p["fc1"]["w"], p["fc2"]["w"]
    rows = dy.reshape(-1, dy.shape[-1])
    dw2, db2 = a.reshape(len(rows), -1).T @ rows, rows.sum(axis=0)                          # (4)
    da = dy @ w2.T
    dh = da * (h > 0)                                           # (5)
    hidden = dh.reshape(len(rows), -1)
    dw1, db1 = x.reshape(len(rows), -1).T @ hidden, hidden.sum(axis=0)                      # (6)
    dx = dh @ w1.T
    return dx, {"fc1": {"w": dw1, "b": db1}, "fc2": {"w": dw2, "b": db2}}
