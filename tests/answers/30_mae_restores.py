"""Answers to the exercises of lesson 30, and plausible wrong ones."""
answer_1 = 14 * 14 // 4 + 1
wrong_1 = 14 * 14 + 1                               # the decoder's tokens

answer_2 = 0.8
wrong_2 = 1                                         # the most frequent value
