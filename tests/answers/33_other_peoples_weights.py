"""Answers to the exercises of lesson 33, and plausible wrong ones."""

answer_1 = 3 * 1024 * 1024
wrong_1 = 1024 * 1024                                           # q only


def answer_2(kernel):
    return kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))


def wrong_2(kernel):                                            # channel, row, column
    return kernel.reshape(len(kernel), -1).T
