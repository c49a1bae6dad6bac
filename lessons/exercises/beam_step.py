"""Beam search: write one step.

Lesson 23; Wu et al. 2016; article A, worked example (there with a beam of one). W beginnings, of which `totals` are the log
probabilities, and for each of them the log probabilities of the next word, (W, V):

    (1)  score[w, v] = totals[w] + log_probs[w, v]
    (2)  kept = top_W(score)                            the W largest of all W * V scores, best first

A good beginning may go on twice, and a bad one not at all.
"""
import numpy as np

EXERCISE = "beam_step"                                          # python -m tinymae check beam_step.py


def beam_step(totals, log_probs):
    """totals (W,), log_probs (W, V) -> origin (W,), word (W,), new totals (W,).

    origin[i] says which beginning the i-th new one continues, word[i] by which word.
    """
    raise NotImplementedError("equations (1) and (2); np.argsort and divmod help")


# ---- hints ----
# 1. All W beginnings compete with all their continuations at once, W * V candidates in one list.
# 2. Equation (1): a total belongs to a row, so it needs a second axis before it is added.
# 3. Sort the flattened scores, take the first W of the order, and divmod by V: the quotient is the row, the remainder the
# word.
