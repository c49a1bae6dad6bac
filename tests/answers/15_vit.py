"""Answers to the exercises of lesson 15, and plausible wrong ones."""
import numpy as np

answer_1 = 16 * 16 * 3 * 768 + 768
wrong_1 = 196 * 16 * 16 * 3 * 768 + 768                         # a matrix for each patch


def answer_2(patches, p, grid):
    images = np.zeros((len(patches), grid[0] * p, grid[1] * p, patches.shape[2] // p**2))
    for n in range(patches.shape[1]):
        row, col = divmod(n, grid[1])
        images[:, row * p : (row + 1) * p, col * p : (col + 1) * p] = patches[:, n].reshape(len(patches), p, p, -1)
    return images


def wrong_2(patches, p, grid):                                  # a reshape moves no number
    return patches.reshape(len(patches), grid[0] * p, grid[1] * p, -1)


def answer_3(dpooled, shape):
    dlatent = np.zeros(shape)
    dlatent[:, 1:] = dpooled[:, None] / (shape[1] - 1)
    return dlatent


def wrong_3(dpooled, shape):                                    # the class token is not in the mean
    return np.broadcast_to(dpooled[:, None] / shape[1], shape).copy()
