"""Right and wrong answers to the exercises of the lesson of this name; executed in its namespace."""
answer_1 = 64 / 2
wrong_1 = 64


def answer_2(dy, cache):
    (width,) = cache
    return dy[:, :, :width].copy(), dy[:, :, width:].sum(axis=0)


def wrong_2(dy, cache):
    """The mean over the batch."""
    (width,) = cache
    return dy[:, :, :width].copy(), dy[:, :, width:].mean(axis=0)


def answer_3(dy, cache):
    (turns,) = cache
    return (turns.swapaxes(-1, -2) @ dy[..., None])[..., 0]


def wrong_3(dy, cache):
    """Turned on instead of back."""
    (turns,) = cache
    return (turns @ dy[..., None])[..., 0]
