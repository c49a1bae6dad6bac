"""Answers to the exercises of lesson 13, and a plausible wrong one for each."""

from collections import Counter

import numpy as np

from tinymae.ops.softmax import softmax_forward

answer_1 = -3 / ((5 + 7) / 6)
wrong_1 = -3 / 7


def answer_2(said, true, n):
    ours, theirs = (Counter(tuple(s[i : i + n]) for i in range(len(s) - n + 1)) for s in (said, true))
    return sum(min(count, theirs[gram]) for gram, count in ours.items())


def wrong_2(said, true, n):
    theirs = {tuple(true[i : i + n]) for i in range(len(true) - n + 1)}
    return sum(tuple(said[i : i + n]) in theirs for i in range(len(said) - n + 1))


def answer_3(logits, k):
    kept = logits >= np.sort(logits)[-k]
    return softmax_forward(np.where(kept, logits, -np.inf))[0]


def wrong_3(logits, k):
    return np.where(logits >= np.sort(logits)[-k], softmax_forward(logits)[0], 0)


answer_4 = "never stops"
wrong_4 = "first place"
