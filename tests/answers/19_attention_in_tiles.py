import numpy as np

answer_1 = 3072
wrong_1 = 256                                                   # one head


def answer_2(a, b):
    higher = max(a[0], b[0])
    return higher, *(x * np.exp(a[0] - higher) + y * np.exp(b[0] - higher) for x, y in zip(a[1:], b[1:], strict=True))


def wrong_2(a, b):
    return max(a[0], b[0]), a[1] + b[1], a[2] + b[2]


def answer_3(dlogsumexp, cache):
    scores, logsumexp = cache
    return dlogsumexp * np.exp(scores - logsumexp)


def wrong_3(dlogsumexp, cache):
    scores, _ = cache
    return dlogsumexp * np.exp(scores)
