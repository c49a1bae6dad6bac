"""The parameters of an encoder, six layers in one line.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. The layers of an
encoder have the same structure:

    (1)  p_1, ..., p_L          the parameters of the layers, drawn at random for each

init.encoder_layer draws the parameters of one layer, a tree of arrays. An optimiser writes into these arrays.
"""
import numpy as np

from tinymae import init

EXERCISE = "one_layer_six_times"                                # python -m tinymae check one_layer_six_times.py


def encoder_layers(depth, d_model, heads, hidden, rng):
    """The parameters of `depth` layers, a list of trees."""
    return [init.encoder_layer(d_model, heads, hidden, rng, dtype=np.float64)] * depth                     # (1)


# ---- why nobody noticed: stop here, and guess first ----
# A list times 6 repeats one object six times: all layers have the same arrays, and a step of one layer moves all of them. The
# output has the right shape, each gradient is right, the loss falls, and a count that adds up the layers gives the number that
# was expected. It stood in a textbook (Deep Learning with PyTorch, chapter 8: deep-learning-with-pytorch/dlwpt-code, issue 89).
# It shows when one layer is changed and another is looked at.
