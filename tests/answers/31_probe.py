"""Answers to the exercises of lesson 31, and plausible wrong ones."""

answer_1 = 1 / (900 * 10)
wrong_1 = 1 / 10                                                # as if the loss were no mean over images


def answer_2(dloss, cache):
    x, y = cache
    return dloss * 2 * x.T @ y / len(x)


def wrong_2(dloss, cache):                                      # the mean is over rows, not over all numbers
    x, y = cache
    return dloss * 2 * x.T @ y / y.size
