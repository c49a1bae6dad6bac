"""Answers to the exercises of lesson 25, and a plausible wrong one for each."""

import numpy as np

from tinymae.ops.activation import swish_backward, swish_forward


def rmsnorm_forward(x, gamma):
    rms = np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)
    return x / rms * gamma, (x / rms, rms, gamma)


def rmsnorm_backward(dy, cache):
    xhat, rms, gamma = cache
    dxhat = dy * gamma
    dx = (dxhat - xhat * (dxhat * xhat).mean(axis=-1, keepdims=True)) / rms
    return dx, (dy * xhat).sum(axis=0)


def rmsnorm_without_mean(dy, cache):
    xhat, rms, gamma = cache
    return dy * gamma / rms, (dy * xhat).sum(axis=0)


answer_1 = rmsnorm_forward, rmsnorm_backward
wrong_1 = rmsnorm_forward, rmsnorm_without_mean


def swiglu_forward(a, b):
    s, cache = swish_forward(a)
    return s * b, (s, b, cache)


def swiglu_backward(dy, cache):
    s, b, cache = cache
    return swish_backward(dy * b, cache), dy * s


def swiglu_swapped(dy, cache):
    s, b, cache = cache
    return swish_backward(dy * s, cache), dy * b


answer_2 = swiglu_forward, swiglu_backward
wrong_2 = swiglu_forward, swiglu_swapped
