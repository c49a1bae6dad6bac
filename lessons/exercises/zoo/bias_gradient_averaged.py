"""A linear map whose biases learn, only more slowly than its weights.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.ops.linear:

    (1)  y = x w + b
    (2)  dx = dy w^T         entry x_i reaches each y_j through w_ij
    (3)  dw = x^T dy         all positions share w, so their contributions are summed
    (4)  db = sum dy         over all positions

Shapes: x (B, T, I), w (I, O), b (O,), y and dy (B, T, O).
"""
EXERCISE = "bias_gradient_averaged"                             # python -m tinymae check bias_gradient_averaged.py


def linear_forward(x, w, b):
    y = x @ w + b                                               # (1)
    return y, (x, w)


def linear_backward(dy, cache):
    x, w = cache
    dx = dy @ w.T                                               # (2)
    dw = x.reshape(-1, len(w)).T @ dy.reshape(-1, dy.shape[-1])                             # (3)
    db = dy.reshape(-1, dy.shape[-1]).mean(axis=0)              # (4)
    return dx, dw, db


# ---- why nobody noticed: stop here, and guess first ----
# Every position uses b, so its gradient is a sum over all positions, and here it was divided by their number. The mean over
# the batch belongs to the loss, and is already in dy. With one position both are the same, the direction is right, and Adam
# divides a constant factor out of each gradient; with plain gradient descent the biases hardly move. A reader found it in
# published notes, by comparing with the gradients of JAX (kvfrans/notes, issue 5).
