"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
import math

from tinymae.blocks import feed_forward_backward
from tinymae.ops.layernorm import layernorm_backward

answer_1 = math.sqrt(511 / 512)         # the unbiased deviation is larger, so its output is smaller
wrong_1 = math.sqrt(512 / 511)


def answer_2(dy, cache):
    xhat, rstd, gamma = cache
    dxhat = dy * gamma
    return rstd * (dxhat - xhat * (dxhat * xhat).mean(axis=-1, keepdims=True)), (dy * xhat).sum(axis=0)


def wrong_2(dy, cache):
    dx, dgamma, _ = layernorm_backward(dy, cache)         # layer norm's own: takes the component along 1 away as well
    return dx, dgamma


def answer_3(dy, cache):
    ffn, norm = cache
    dsum, dgamma, dbeta = layernorm_backward(dy, norm)
    dx, dp = feed_forward_backward(dsum, ffn)
    return dx + dsum, dp, dgamma, dbeta


def wrong_3(dy, cache):
    ffn, norm = cache
    dsum, dgamma, dbeta = layernorm_backward(dy, norm)
    dx, dp = feed_forward_backward(dsum, ffn)
    return dx + dy, dp, dgamma, dbeta           # the residual stands before the norm, dy behind it
