"""The learning rate of every batch: warm up, then decay.

Lesson 21; Vaswani et al. 2017, equation 3, section 5.3 ("Noam"):

    (1)  rate = factor * D^-0.5 * min(step^-0.5, step * warmup^-1.5)

up for `warmup` steps, then down with the root of the step. The step counts from 1, once for every batch.
"""
import math

EXERCISE = "schedule"                                           # python -m tinymae check schedule.py


def learning_rates(params, batches, d_model, warmup, factor=1.0):
    """The rates of the first `batches` batches, a list of floats, for a model with these params (a dict of arrays)."""
    raise NotImplementedError("equation (1)")


# ---- hints ----
# 1. One rate for each batch: the number of the step does not depend on how many arrays the model has.
# 2. Equation (1): the smaller of a falling and a rising curve. The first batch is step 1, since 0 has no power -1/2.
# 3. One list comprehension over range(1, batches + 1).
