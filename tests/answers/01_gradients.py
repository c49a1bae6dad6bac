"""Lesson 1: right and wrong answers."""
answer_1 = 2 * (5 * 3 + 3 * 4 + 4)
wrong_1 = 5 * 3 + 3 * 4 + 4 + 1                 # one-sided


def answer_2(dy, cache):
    x, w = cache
    return dy @ w.T + dy, x.T @ dy


def wrong_2(dy, cache):                         # no residual path
    x, w = cache
    return dy @ w.T, x.T @ dy


answer_3 = "diagonal"
wrong_3 = "twice"
