"""Answers to the exercises of lesson 18, and plausible wrong ones."""

answer_1 = 3 * 1024 * 1024
wrong_1 = 1024 * 1024                                           # q only

answer_2 = {"mae", "vit-mae"}
wrong_2 = {"mae", "mae-encoder", "vit-mae"}


def answer_3(kernel):
    return kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))


def wrong_3(kernel):                                            # channel, row, column
    return kernel.reshape(len(kernel), -1).T
