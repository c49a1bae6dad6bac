"""Teacher forcing: what is the decoder fed when it is to say the target?

Lesson 16; Vaswani et al. 2017, section 3.1; article C, section 5. The decoder is fed the true sentence one place to the right:

    (1)  inputs[b, 0] = bos
    (2)  inputs[b, t] = targets[b, t - 1]

So at place t it has seen the targets 0..t-1, and is asked for target t. Each row of targets is words, <eos>, padding.
"""
import numpy as np

EXERCISE = "shift_right"                                        # python -m tinymae check shift_right.py
TARGETS = np.array([[5, 6, 7, 2], [8, 2, 0, 0]])                # to play with; 2 is <eos>, 0 is <pad>


def shift_right(targets, bos):
    """targets, integers (B, T) -> inputs, integers (B, T)."""
    raise NotImplementedError("equations (1) and (2)")


# ---- hints ----
# 1. At each position the decoder sees the token before the one that it has to predict.
# 2. Equation (2): column t of the result is column t - 1 of the targets; the last column of the targets is not needed.
# 3. Make a new integer array like targets, fill its first column, and copy all but the last column of targets behind it.
