def learning_rates(params, batches, d_model, warmup, factor=1.0):
    return [factor * d_model**-0.5 * min(step**-0.5, step * warmup**-1.5) for step in range(1, batches + 1)]    # (1)
