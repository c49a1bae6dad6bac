"""A learning-rate schedule that is right for a model of one matrix.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it.

    (1)  rate = factor * D^-0.5 * min(step^-0.5, step * warmup^-1.5)

up for `warmup` steps, then down with the root of the step. The step counts from 1, once for every batch.
"""

EXERCISE = "schedule_by_tensor"                                 # python -m tinymae check schedule_by_tensor.py


def learning_rates(params, batches, d_model, warmup, factor=1.0):
    """The rates of the first `batches` batches, a list of floats, for a model with these params (a dict of arrays)."""
    step, rates = 0, []
    for _ in range(batches):
        for _ in params:                                        # every array is moved with the rate of its step
            step += 1
            rate = factor * d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)            # (1)
        rates.append(rate)
    return rates


# ---- why nobody noticed: stop here, and guess first ----
# Every array asked the schedule for the rate, and moved it on. A model has a hundred arrays: 4000 steps of warm-up were
# over after 40 batches. No error, no NaN, only a loss that fell less; and there was no test.
