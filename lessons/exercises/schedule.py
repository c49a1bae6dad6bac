"""The learning rate of every batch: warm up, then decay.

Lesson 12; Vaswani et al. 2017, equation 3, section 5.3 ("Noam"):

    (1)  rate = factor * D^-0.5 * min(step^-0.5, step * warmup^-1.5)

up for `warmup` steps, then down with the root of the step. The step counts from 1, once for every batch.
"""
import math

EXERCISE = "schedule"                                           # python -m tinymae check schedule.py


def learning_rates(params, batches, d_model, warmup, factor=1.0):
    """The rates of the first `batches` batches, a list of floats, for a model with these params (a dict of arrays)."""
    raise NotImplementedError("equation (1)")
