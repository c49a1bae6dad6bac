"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
answer_1 = 2, 8, 7, 12
wrong_1 = 2, 8, 12, 7                   # a row for each key


def answer_2(dx, caches):
    dmemory, grads = 0, []
    for cache in reversed(caches):
        dx, dlayer_memory, dp = layer_backward(dx, cache)
        dmemory = dmemory + dlayer_memory
        grads.insert(0, dp)
    return dx, dmemory, grads


def wrong_2(dx, caches):
    grads = []
    for cache in reversed(caches):
        dx, dmemory, dp = layer_backward(dx, cache)
        grads.insert(0, dp)
    return dx, dmemory, grads           # of the lowest layer only
