"""Answers to the exercises of lesson 16, and plausible wrong ones."""
import numpy as np

answer_1 = 14 * 14 // 4 + 1
wrong_1 = 14 * 14 + 1                                           # the mask left on the decoder's side

answer_2 = [1, 3, 0, 2]
wrong_2 = [2, 0, 3, 1]                                          # the shuffle itself


def answer_3(dy, cache):
    ids_keep, number = cache
    dx = np.zeros((len(dy), number, dy.shape[2]))
    np.put_along_axis(dx, ids_keep[..., None], dy, axis=1)
    return dx


def wrong_3(dy, cache):                                         # the visible patches are not the first ones
    ids_keep, number = cache
    dx = np.zeros((len(dy), number, dy.shape[2]))
    dx[:, : ids_keep.shape[1]] = dy
    return dx
