"""One gradient from several small batches, to save memory.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. A batch that does not
fit into memory is cut into parts. Part i has n_i tokens, and its loss L_i is the mean over them:

    (1)  L      the mean over the tokens of all parts
    (2)  dL     the gradient of (1), from the gradients dL_i of the parts
"""
import numpy as np

EXERCISE = "mean_of_means"                                      # python -m tinymae check mean_of_means.py


def whole_gradient(params, parts, gradient):
    """(loss, grads) of all parts together; gradient(params, part) -> (loss, grads, number of tokens) of one."""
    loss, grads = 0.0, {name: np.zeros_like(p) for name, p in params.items()}
    for part in parts:
        part_loss, part_grads, count = gradient(params, part)
        loss += part_loss / len(parts)                          # (1)
        for name, g in part_grads.items():
            grads[name] += g / len(parts)                       # (2)
    return loss, grads


# ---- why nobody noticed: stop here, and guess first ----
# Every part counts the same here, however few tokens it has: a token in a short part moves the model more than one in a long
# part. If all parts have the same number of tokens there is no difference, and tests are made of such parts; but sentences
# differ in length, and padding does not count. Two libraries that train large language models had it, one of them for more than
# a year after it was reported (huggingface/transformers, issue 24725; meta-pytorch/torchtune, pull request 1875).
