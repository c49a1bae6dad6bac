"""Answers to the exercises of lesson 35, and a plausible wrong one for each."""

answer_1 = 0.04
wrong_1 = 0.25  # a quarter: four parts, but not four equal ones


def answer_2(results):
    return sum(mean * tokens for mean, tokens in results) / sum(tokens for _, tokens in results)


def wrong_2(results):
    return sum(mean for mean, _ in results) / len(results)
