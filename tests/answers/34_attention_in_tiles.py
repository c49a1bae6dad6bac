"""Answers to the exercises of lesson 34, and a plausible wrong one for each."""

import numpy as np

answer_1 = 3072
wrong_1 = 256  # one head


def answer_2(a, b):
    higher = max(a[0], b[0])
    move_a, move_b = np.exp(a[0] - higher), np.exp(b[0] - higher)
    return higher, a[1] * move_a + b[1] * move_b, a[2] * move_a + b[2] * move_b


def wrong_2(a, b):
    return max(a[0], b[0]), a[1] + b[1], a[2] + b[2]
