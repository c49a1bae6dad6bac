def patchify_forward(images, patch_size):
    batch, rows, cols, channels = images.shape
    x = images.reshape(batch, rows // patch_size, patch_size, cols // patch_size, patch_size, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)                           # (B, grid rows, grid cols, p, p, C)
    return x.reshape(batch, -1, patch_size * patch_size * channels).copy(), (patch_size, images.shape)


def patchify_backward(dpatches, cache):
    patch_size, (batch, rows, cols, channels) = cache
    x = dpatches.reshape(batch, rows // patch_size, cols // patch_size, patch_size, patch_size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, cols, channels)
