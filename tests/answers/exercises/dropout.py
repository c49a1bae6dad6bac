def dropout_forward(x, dropout, rng=None):
    if rng is None:
        return x.copy(), None
    keep = (rng.random(x.shape) >= dropout) / (1 - dropout)
    return x * keep, (keep,)                                    # (1)


def dropout_backward(dy, cache):
    if cache is None:
        return dy.copy()
    (keep,) = cache
    return dy * keep                                            # (2)
