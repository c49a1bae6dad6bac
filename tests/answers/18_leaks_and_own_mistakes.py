"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
import math


def answer_1(ways, n):
    return n * math.log(ways) / (n + 1)


def wrong_1(ways, n):
    return math.log(ways)               # as if <eos> were uncertain too


def _changed(ids, t):
    other = ids.copy()
    other[:, t:] = 4 + (other[:, t:] + 1) % 8
    return other


def answer_2(function, ids, t):
    return not np.array_equal(function(ids)[:, :t], function(_changed(ids, t))[:, :t])


def wrong_2(function, ids, t):
    return not np.array_equal(function(ids), function(_changed(ids, t)))        # later outputs may change
