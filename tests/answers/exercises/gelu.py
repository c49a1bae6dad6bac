def gelu_backward(dy, cache):
    x, cdf, pdf = cache
    return dy * (cdf + x * pdf)                                 # (3)
