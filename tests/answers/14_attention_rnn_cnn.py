import numpy as np

from tinymae.ops.linear import linear_backward

answer_1 = 7                                                    # 3^6 = 729, 3^7 = 2187
wrong_1 = 6

answer_2 = 1024
wrong_2 = 512                                                   # table 1's count, T^2 D against T D^2


def through_time(dy, cache, around):
    h, a, wh, linear = cache
    dz, later = np.zeros_like(dy), 0
    for t in reversed(range(dy.shape[1])):
        dh = dy[:, t] + later
        dz[:, t] = dh * (1 - a[:, t] * a[:, t])
        later = around * dh + dz[:, t] @ wh.T
    dwh = h[:, :-1].reshape(-1, len(wh)).T @ dz.reshape(-1, len(wh))
    dx, dwx, db = linear_backward(dz, linear)
    return dx, {"wx": dwx, "wh": dwh, "b": db}


def answer_3(dy, cache):
    return through_time(dy, cache, around=1)


def wrong_3(dy, cache):
    return through_time(dy, cache, around=0)
