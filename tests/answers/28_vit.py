"""Answers to the exercises of lesson 28, and plausible wrong ones."""
import numpy as np

answer_1 = 16 * 16 * 3 * 768 + 768
wrong_1 = 196 * 16 * 16 * 3 * 768 + 768             # a matrix for each patch


def answer_2(patches, p, grid):
    channels = patches.shape[2] // p**2
    images = np.zeros((len(patches), grid[0] * p, grid[1] * p, channels))
    for n in range(patches.shape[1]):
        row, col = divmod(n, grid[1])
        square = patches[:, n].reshape(len(patches), p, p, channels)
        images[:, row * p : (row + 1) * p, col * p : (col + 1) * p] = square
    return images


def wrong_2(patches, p, grid):                      # a reshape moves no number
    return patches.reshape(len(patches), grid[0] * p, grid[1] * p, -1)
