import math

from tinymae.ops.softmax import softmax_backward


def scaled_dot_product_attention_backward(dy, cache):
    q, k, v, weights, dropped, keep = cache
    dv = dropped.swapaxes(-1, -2) @ dy                          # (5)
    ddropped = dy @ v.swapaxes(-1, -2)                          # (6)
    dweights = ddropped * keep                                  # (7)
    dscores = softmax_backward(dweights, (weights,)) / math.sqrt(q.shape[-1])               # (8)
    dq = dscores @ k                                            # (9)
    dk = dscores.swapaxes(-1, -2) @ q
    return dq, dk, dv
