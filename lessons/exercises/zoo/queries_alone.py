"""Self-attention with a right gradient for every weight matrix.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Without biases:

    (1)  q = x W_q,  k = x W_k,  v = x W_v                      each cut into heads
    (2)  z = attention(q, k, v)                                 in every head
    (3)  y = concat(z) W_out                                    the heads of z side by side
    (4)  dz = dy W_out^T,  dW_out                               from (3)
    (5)  dq, dk, dv                                             from (2)
    (6)  dx, dW_q, dW_k, dW_v                                   from (1)

Shapes: x and y (B, T, D).
"""
from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.linear import linear_backward, linear_forward

EXERCISE = "queries_alone"                                      # python -m tinymae check queries_alone.py


def split_heads(x, heads):
    """(B, T, D) -> (B, H, T, d)."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def merge_heads(x):
    """(B, H, T, d) -> (B, T, D)."""
    x = x.swapaxes(1, 2)
    return x.reshape(*x.shape[:2], -1)


def multi_head_attention_forward(x, p, heads, mask=None):
    """p is {"q": {"w"}, "k": {"w"}, "v": {"w"}, "out": {"w"}}, each w (D, D)."""
    q, q_cache = linear_forward(x, **p["q"])                    # (1)
    k, k_cache = linear_forward(x, **p["k"])
    v, v_cache = linear_forward(x, **p["v"])
    z, core = scaled_dot_product_attention_forward(*(split_heads(y, heads) for y in (q, k, v)), mask)      # (2)
    y, out = linear_forward(merge_heads(z), **p["out"])         # (3)
    return y, (q_cache, k_cache, v_cache, core, out, heads)


def multi_head_attention_backward(dy, cache):
    q_cache, k_cache, v_cache, core, out, heads = cache
    dz, dout, _ = linear_backward(dy, out)                      # (4)
    dq, dk, dv = scaled_dot_product_attention_backward(split_heads(dz, heads), core)                        # (5)
    dx, dwq, _ = linear_backward(merge_heads(dq), q_cache)      # (6)
    _, dwk, _ = linear_backward(merge_heads(dk), k_cache)
    _, dwv, _ = linear_backward(merge_heads(dv), v_cache)
    return dx, {"q": {"w": dwq}, "k": {"w": dwk}, "v": {"w": dwv}, "out": {"w": dout}}


# ---- why nobody noticed: stop here, and guess first ----
# x was used three times, for queries, keys and values, and only the gradient through the queries was returned. It has the right
# shape, and the four weight matrices of this layer get their true gradients, so a model of one layer on fixed inputs trains as
# it should; only what comes before gets a wrong one. A check of attention with three separate inputs cannot see it, because the
# sum is taken where they are one. Commonly seen in backward passes that are written by hand.
