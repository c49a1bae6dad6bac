"""Answers to the exercises of lesson 26, and a plausible wrong one for each."""

answer_1 = 7
wrong_1 = 9  # 3 times 3

answer_2 = 10  # 0.5^10 = 1/1024
wrong_2 = 500  # linear, not exponential
