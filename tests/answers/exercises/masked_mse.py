def masked_mse_forward(pred, target, mask):
    error = pred - target
    loss = (mask * (error * error).mean(axis=-1)).sum() / mask.sum()                        # (1)
    return loss, (error, mask)


def masked_mse_backward(dloss, cache):
    error, mask = cache
    return dloss * mask[..., None] * 2 * error / (error.shape[-1] * mask.sum())             # (2)
