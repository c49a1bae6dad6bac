"""Answers to the exercises of lesson 29, and plausible wrong ones."""
import numpy as np

answer_1 = [1, 3, 0, 2]
wrong_1 = [2, 0, 3, 1]                              # the shuffle itself


def answer_2(dy, cache):
    ids_keep, number = cache
    dx = np.zeros((len(dy), number, dy.shape[2]))
    np.put_along_axis(dx, ids_keep[..., None], dy, axis=1)
    return dx


def wrong_2(dy, cache):                             # not the first K patches
    ids_keep, number = cache
    dx = np.zeros((len(dy), number, dy.shape[2]))
    dx[:, : ids_keep.shape[1]] = dy
    return dx
