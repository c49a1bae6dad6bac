"""Answers to the exercises of lesson 27, and a plausible wrong one for each."""

answer_1 = 7  # 3^6 = 729, 3^7 = 2187
wrong_1 = 6

answer_2 = 1024
wrong_2 = 512  # table 1's count: T^2 D against T D^2
