answer_1 = 0.04
wrong_1 = 0.25                                                  # a quarter: four parts, but not four equal ones


def answer_2(results):
    return sum(mean * words for mean, words in results) / sum(words for _, words in results)


def wrong_2(results):
    return sum(mean for mean, _ in results) / len(results)


def answer_3(dloss, cache):
    w, x, y, pieces = cache
    return sum(dloss * 2 * x[piece].T @ (x[piece] @ w - y[piece]) for piece in pieces)


def wrong_3(dloss, cache):
    w, x, y, pieces = cache
    return sum(dloss * len(x[piece]) / len(x) * 2 * x[piece].T @ (x[piece] @ w - y[piece]) for piece in pieces)
