"""Lesson 2: right and wrong answers."""
answer_1 = 2 * (3 * 4 + 4)
wrong_1 = 3 * 4 + 4 + 1                         # one-sided


def answer_2(dy, cache):
    xhat, rstd, gamma = cache
    dxhat = dy * gamma
    means = dxhat.mean(axis=1, keepdims=True) + xhat * (dxhat * xhat).mean(axis=1, keepdims=True)
    return rstd * (dxhat - means), (dy * xhat).sum(axis=0), dy.sum(axis=0)


def wrong_2(dy, cache):
    return gamma_last(dy, cache)
