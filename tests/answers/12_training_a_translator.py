"""Answers to the exercises of lesson 12, and a plausible wrong one for each."""

import math

import numpy as np

answer_1 = (512 * 4000) ** -0.5
wrong_1 = 512**-0.5

answer_2 = 32                                                   # 128 tensors: 31.25, rounded up
wrong_2 = 4000


def answer_3(gradients, most):
    norm = math.sqrt(sum((g**2).sum() for g in gradients))
    return [g * min(1, most / norm) for g in gradients]


def wrong_3(gradients, most):
    return [g * min(1, most / np.linalg.norm(g)) for g in gradients]


answer_4 = "no causal mask"
wrong_4 = "softmax backward / batch"
