"""Patches that are put back, each of them in its place.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Numbered as in
tinymae.ops.patches:

    (1)  patches[b, n] = images[b, i p : (i + 1) p, j p : (j + 1) p],  n = i (cols / p) + j
    (2)  (p, p, C) -> (P,)        the numbers of a patch in the order row, column, channel

The backward moves the gradients back to where the numbers came from; it also puts generated patches together to an image.

Shapes: images (B, rows, cols, C), patches (B, N, P), N = rows cols / p^2, P = p^2 C.
"""
EXERCISE = "patch_order"                                        # python -m tinymae check patch_order.py


def patchify_forward(images, patch_size):
    batch, rows, cols, channels = images.shape
    x = images.reshape(batch, rows // patch_size, patch_size, cols // patch_size, patch_size, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)                           # (1)  (B, rows / p, cols / p, p, p, C)
    return x.reshape(batch, -1, patch_size * patch_size * channels), (patch_size, images.shape)             # (2)


def patchify_backward(dpatches, cache):
    patch_size, (batch, rows, cols, channels) = cache
    x = dpatches.reshape(batch, rows // patch_size, cols // patch_size, channels, patch_size, patch_size)   # (2)
    x = x.transpose(0, 1, 4, 2, 5, 3)                           # (1)  (B, rows / p, p, cols / p, p, C)
    return x.reshape(batch, rows, cols, channels)


# ---- why nobody noticed: stop here, and guess first ----
# The forward orders the numbers of a patch (row, column, channel), the backward reads them as (channel, row, column), PyTorch's
# order. No number leaves its patch, and with one channel, in a grey image, both orders are the same. A generative model had
# such a pair (cloneofsimo/minRF, issue 6), and its author could not see it in training: the exchange is the same in every
# patch, so the linear map next to it can learn it. It shows when patchify and its inverse are applied one after the other.
