def attention(q, k, v, mask=None):
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    weights, _ = softmax_forward(scores, mask)
    return weights @ v
