"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
import math


def answer_1(ways, n):
    return n * math.log(ways) / (n + 1)


def wrong_1(ways, n):
    return math.log(ways)               # as if <eos> were uncertain too


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


answer_3, wrong_3 = 0, 1
