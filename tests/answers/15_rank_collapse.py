"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
import numpy as np

from tinymae.masks import causal_mask

answer_1 = 3                                    # 1e-3, 1e-9, 1e-27
wrong_1 = 15                                    # a factor of 10 in each layer: exponential

answer_2 = np.eye(10, dtype=bool)               # each token attends to itself: no sentence is read any more
wrong_2 = causal_mask(10)                       # all tokens become the first one, only more slowly
