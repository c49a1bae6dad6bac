"""Answers to the exercises of lesson 24, and a plausible wrong one for each."""

import math
from collections import Counter

answer_1 = 100 * math.exp(1 - 10 / 8)
wrong_1 = 100 * 8 / 10


def answer_2(output, references, n):
    most = Counter()
    for reference in references:
        most |= Counter(ngrams(reference, n))
    return (Counter(ngrams(output, n)) & most).total()


def wrong_2(output, references, n):
    most = Counter()
    for reference in references:
        most += Counter(ngrams(reference, n))
    return (Counter(ngrams(output, n)) & most).total()


def answer_3(output, reference):
    product = 1.0
    for n in (1, 2, 3, 4):
        ours, theirs = Counter(ngrams(output, n)), Counter(ngrams(reference, n))
        more = int(n > 1)
        product *= ((ours & theirs).total() + more) / (ours.total() + more)
    brevity = min(1.0, math.exp(1 - len(reference) / len(output)))
    return 100 * brevity * product**0.25


def wrong_3(output, reference):
    return bleu([output], [reference])
