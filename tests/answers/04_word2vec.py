"""Lesson 4: right and wrong answers."""
import math

answer_1 = 11 * math.log(2)
wrong_1 = math.log(11)                          # a softmax over 11 words would start there


def answer_2(dtable, found):
    return dtable * ~found[:, None]


def wrong_2(dtable, found):                     # freezes the others
    return dtable * found[:, None]
