"""Cross-attention with the best validation loss of all.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it. Without biases:

    (1)  q = ? W_q,  k = ? W_k,  v = ? W_v                      each ? is x (decoder) or memory (the encoder's output)
    (2)  z = attention(q, k, v)                                 in every head
    (3)  y = concat(z) W_out                                    the heads of z side by side

Shapes: x and y (B, Tq, D), memory (B, Tk, D).
"""
from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.linear import linear_backward, linear_forward

EXERCISE = "cross_attention_swapped"                            # python -m tinymae check cross_attention_swapped.py


def split_heads(x, heads):
    """(B, T, D) -> (B, H, T, d)."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def merge_heads(x):
    """(B, H, T, d) -> (B, T, D)."""
    x = x.swapaxes(1, 2)
    return x.reshape(*x.shape[:2], -1)


def cross_attention_forward(x, memory, p, heads):
    """p is {"q": {"w"}, "k": {"w"}, "v": {"w"}, "out": {"w"}}, each w (D, D)."""
    q, q_cache = linear_forward(memory, **p["q"])               # (1)
    k, k_cache = linear_forward(memory, **p["k"])
    v, v_cache = linear_forward(x, **p["v"])
    z, core = scaled_dot_product_attention_forward(*(split_heads(y, heads) for y in (q, k, v)))             # (2)
    y, out = linear_forward(merge_heads(z), **p["out"])         # (3)
    return y, (q_cache, k_cache, v_cache, core, out, heads)


def cross_attention_backward(dy, cache):
    q_cache, k_cache, v_cache, core, out, heads = cache
    dz, dout, _ = linear_backward(dy, out)                      # (3)
    dq, dk, dv = scaled_dot_product_attention_backward(split_heads(dz, heads), core)                        # (2)
    dmemory_q, dwq, _ = linear_backward(merge_heads(dq), q_cache)                                           # (1)
    dmemory_k, dwk, _ = linear_backward(merge_heads(dk), k_cache)
    dx, dwv, _ = linear_backward(merge_heads(dv), v_cache)
    return dx, dmemory_q + dmemory_k, {"q": {"w": dwq}, "k": {"w": dwk}, "v": {"w": dwv}, "out": {"w": dout}}


# ---- why nobody noticed: stop here, and guess first ----
# Queries and keys came from the encoder, values from the decoder: y mixes the decoder's own words, later ones too, and no
# causal mask is there to stop it. In training the later words are the answer, so validation was too good; in use there are
# none, and it said "the the the". Source and target had the same length in the tests, or the shapes would not have fitted.
