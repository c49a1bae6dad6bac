"""Answers to the exercises of lesson 11, and a plausible wrong one for each."""

import math

answer_1 = math.log(37000)
wrong_1 = 1 / 37000

answer_2 = math.log(math.e + 36999) - 1
wrong_2 = 0.0


def answer_3(dy, cache):
    (p,) = cache
    return dy - p * dy.sum(axis=-1, keepdims=True)


def wrong_3(dy, cache):
    (p,) = cache
    return dy - p * dy


answer_4 = 0.8 + 0.2 / 6
wrong_4 = 0.8
