"""Cross entropy: write the backward of softmax, logarithm and mean at once.

Lesson 20; Vaswani et al. 2017, section 5.4 (smoothing); article D, the loss. Numbered as in tinymae.ops.losses. Logits z,
targets t smoothed by e, M positions that count (padding does not):

    (3)  q = (1 - e) 1[v = t] + e / V
    (4)  loss = -sum q log softmax(z) / M = sum_positions (logsumexp(z) - sum_v q_v z_v) / M

Backward, from the number dloss:

    (5)  dz   = dloss * (softmax(z) - q) / M                    0 where a position does not count

Shapes: logits (B, T, V), targets (B, T).
"""
import numpy as np

EXERCISE = "cross_entropy"                                      # python -m tinymae check cross_entropy.py


def cross_entropy_forward(logits, targets, ignore_index=0, label_smoothing=0.0):
    counts = targets != ignore_index                            # (B, T)  False on padding
    vocabulary = logits.shape[-1]
    q = (1 - label_smoothing) * np.eye(vocabulary)[targets] + label_smoothing / vocabulary          # (3)  (B, T, V)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    loss = -(q * log_p).sum(axis=-1)[counts].sum() / counts.sum()                                   # (4)
    return loss, (np.exp(log_p), q, counts)


def cross_entropy_backward(dloss, cache):
    """Gradient dlogits (B, T, V), from the number dloss."""
    p, q, counts = cache
    raise NotImplementedError("equation (5)")


# ---- hints ----
# 1. The gradient of a logit is the probability that the model gave, minus the one that it should have given.
# 2. Equation (5): p - q, divided by the number of positions that count, and 0 at the positions that do not.
# 3. One line: four factors; the one that removes padding has shape (B, T) and needs a last axis of size 1.
