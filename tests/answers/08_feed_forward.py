"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
import numpy as np

answer_1 = 2 * 768 * 3072 + 3072 + 768
wrong_1 = 2 * 768 * 3072                        # without biases


def answer_2(da, cache):
    (r,) = cache
    return 2 * r * da


def wrong_2(da, cache):                         # the slope of relu, not that of its square
    (r,) = cache
    return (r > 0) * da


def answer_3(width):
    both = np.hstack([np.eye(width), -np.eye(width)])
    return {"fc1": {"w": both, "b": np.zeros(2 * width)}, "fc2": {"w": both.T, "b": np.zeros(width)}}


def wrong_3(width):                             # loses what is negative
    return {name: {"w": np.eye(width), "b": np.zeros(width)} for name in ("fc1", "fc2")}
