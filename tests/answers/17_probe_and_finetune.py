"""Answers to the exercises of lesson 17, and plausible wrong ones."""

answer_1 = 768 * 1000 + 1000
wrong_1 = 768 * 1000                                            # without the biases

answer_2 = 0.65**13
wrong_2 = 0.65**12


def answer_3(dloss, cache):
    x, y = cache
    return dloss * 2 * x.T @ y / len(x)


def wrong_3(dloss, cache):                                      # the mean is over rows, not over all numbers
    x, y = cache
    return dloss * 2 * x.T @ y / y.size
