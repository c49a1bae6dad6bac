"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
import math

from tinymae.ops.softmax import softmax_backward

answer_1 = math.sqrt(64 / 512)
wrong_1 = 1 / math.sqrt(512)


def answer_2(dy, cache):
    q, k, v, weights = cache
    dscores = dy @ v.swapaxes(-1, -2) * weights * (1 - weights) / math.sqrt(q.shape[-1])
    return dscores @ k, dscores.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ dy


def wrong_2(dy, cache):
    """The softmax's backward."""
    q, k, v, weights = cache
    dscores = softmax_backward(dy @ v.swapaxes(-1, -2), (weights,)) / math.sqrt(q.shape[-1])
    return dscores @ k, dscores.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ dy


answer_3 = "k"
wrong_3 = "q"
