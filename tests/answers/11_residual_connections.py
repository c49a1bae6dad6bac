"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
import numpy as np

from tinymae.blocks import feed_forward_backward

answer_1 = np.hstack([np.eye(64), -np.eye(64)]), np.vstack([np.eye(64), -np.eye(64)])      # relu(x) - relu(-x) = x
wrong_1 = np.hstack([np.eye(64), np.eye(64)]), np.vstack([np.eye(64), np.eye(64)]) / 2     # relu(x): x < 0 is lost


def answer_2(dy, cache):
    f, ffn, s = cache
    df, dp = feed_forward_backward(s * dy, ffn)
    return dy + df, dp, np.array((dy * f).sum())


def wrong_2(dy, cache):
    f, ffn, s = cache
    df, dp = feed_forward_backward(dy, ffn)
    return dy + s * df, dp, np.array((dy * f).sum())            # the weights of f never see s
