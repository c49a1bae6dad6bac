"""Multi-head attention of one sentence, with output of the right shape.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. The words of one
sentence, x (T, D), and no biases:

    (1)  q = x W_q,  k = x W_k,  v = x W_v                      each cut into heads
    (2)  z = attention(q, k, v)                                 in every head
    (3)  y = concat(z) W_out                                    the heads of z side by side

scaled_dot_product_attention takes q, k, v of shape (B, H, T, d).
"""
from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.linear import linear_backward, linear_forward

EXERCISE = "sentence_as_batch"                                  # python -m tinymae check sentence_as_batch.py


def split_heads(x, heads):
    """(T, D) -> four axes, as attention wants them."""
    return x.reshape(len(x), heads, 1, -1)


def merge_heads(x):
    """The inverse: four axes -> (T, D)."""
    return x.reshape(len(x), -1)


def self_attention_forward(x, p, heads):
    """x (T, D) -> y (T, D); p is {"q": {"w"}, "k": {"w"}, "v": {"w"}, "out": {"w"}}, each w (D, D)."""
    parts = [linear_forward(x, **p[name]) for name in "qkv"]    # (1)
    z, core = scaled_dot_product_attention_forward(*(split_heads(y, heads) for y, _ in parts))             # (2)
    y, out = linear_forward(merge_heads(z), **p["out"])         # (3)
    return y, ([cache for _, cache in parts], core, out, heads)


def self_attention_backward(dy, cache):
    parts, core, out, heads = cache
    dz, dw, _ = linear_backward(dy, out)                        # (3)
    dqkv = scaled_dot_product_attention_backward(split_heads(dz, heads), core)                              # (2)
    dx, dp = 0, {}
    for name, part, dpart in zip("qkv", parts, dqkv, strict=True):
        dsource, dweight, _ = linear_backward(merge_heads(dpart), part)                                    # (1)
        dx = dx + dsource                                       # x went three ways
        dp[name] = {"w": dweight}
    return dx, {**dp, "out": {"w": dw}}


# ---- why nobody noticed: stop here, and guess first ----
# The first axis of x is the words, and attention took it for the batch: T sentences of one word each. A word alone can only
# look at itself, so every weight was 1.0, whatever q and k were. The tests looked at the shape of y, and it was right.
