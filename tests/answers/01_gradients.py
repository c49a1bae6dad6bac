"""Lesson 1: right and wrong answers."""
answer_1 = 0.125
wrong_1 = 0.25                                  # lands at 6, as far from 3 on the other side


def answer_2(dy, cache):
    x, w = cache
    return dy @ w.T + dy, x.T @ dy


def wrong_2(dy, cache):                         # no residual path
    x, w = cache
    return dy @ w.T, x.T @ dy
