"""Answers to the exercises of lesson 22, and a plausible wrong one for each."""

answer_1 = 32  # 128 tensors: 31.25, rounded up
wrong_1 = 4000

answer_2 = "rate, warm-up"
wrong_2 = "output or loss"  # it is below ln V: the frequencies are learned
