def softmax_backward(dp, cache):
    (p,) = cache
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))      # (4)
