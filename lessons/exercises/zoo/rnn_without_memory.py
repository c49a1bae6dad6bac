"""A recurrent network that learns about as much as one without recurrence.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. One step for each
token:

    (1)  h_t = tanh(x_t W_x + h_(t-1) W_h + b)             h before the first step is 0

Shapes: x (B, T, I), W_x (I, O), W_h (O, O), b (O,), the states (B, T, O).
"""
import numpy as np

EXERCISE = "rnn_without_memory"                                 # python -m tinymae check rnn_without_memory.py


def rnn(x, wx, wh, b):
    """The states h_t of all steps, (B, T, O)."""
    h, states = np.zeros((len(x), len(b)), x.dtype), []
    for t in range(x.shape[1]):
        new = np.tanh(x[:, t] @ wx + h @ wh + b)                # (1)
        states.append(new)
    return np.stack(states, axis=1)


# ---- why nobody noticed: stop here, and guess first ----
# h is never replaced by the new state, so every step starts from 0, and W_h has no effect. The shapes are right, no step sees a
# later token, and the last token alone often tells enough about the next one, so the loss falls. In a recommender a typing
# error in the name of the state did the same, and the question was whether one step was the intention
# (hungpthanh/GRU4REC-pytorch, issue 1). It shows when an earlier token is changed and no later state moves.
