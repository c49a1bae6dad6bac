"""Answers to the exercises of lesson 21, and a plausible wrong one for each."""

import math

import numpy as np

answer_1 = math.log(37000)
wrong_1 = math.log2(37000)


def answer_2(gradients, most):
    norm = math.sqrt(sum((g**2).sum() for g in gradients))
    return [g * min(1, most / norm) for g in gradients]


def wrong_2(gradients, most):
    return [g * min(1, most / np.linalg.norm(g)) for g in gradients]
