"""Cross-attention: write the backward of the decoder's look at the encoder.

Lesson 17; Vaswani et al. 2017, section 3.2.3; article C, section 5.2. Without biases. Queries come from the decoder (x), keys
and values from the encoder (memory):

    (1)  q = x W_q,  k = memory W_k,  v = memory W_v            each cut into heads, (B, T, H d) -> (B, H, T, d)
    (2)  z = attention(q, k, v)                                 in every head
    (3)  y = concat(z) W_out                                    the heads of z side by side

Backward, from dy:

    (4)  dz, dW_out                                             through (3)
    (5)  dq, dk, dv                                             through (2)
    (6)  dx, dmemory, dW_q, dW_k, dW_v                          through (1): dx from q alone, dmemory from k and v

Use linear_backward(dy, cache) -> (dx, dw, db), where db is None without a bias, and
scaled_dot_product_attention_backward(dy, cache) -> (dq, dk, dv).

Shapes: x and y (B, Tq, D), memory (B, Tk, D), with D = H d.
"""
import numpy as np

from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.linear import linear_backward, linear_forward

EXERCISE = "cross_attention"                                    # python -m tinymae check cross_attention.py


def split_heads(x, heads):
    """(B, T, D) -> (B, H, T, d)."""
    batch, length, width = x.shape
    return x.reshape(batch, length, heads, width // heads).swapaxes(1, 2)


def merge_heads(x):
    """(B, H, T, d) -> (B, T, D)."""
    batch, heads, length, width = x.shape
    return x.swapaxes(1, 2).reshape(batch, length, heads * width)


def cross_attention_forward(x, memory, p, heads):
    """p is {"q": {"w"}, "k": {"w"}, "v": {"w"}, "out": {"w"}}, each w (D, D)."""
    q, q_cache = linear_forward(x, **p["q"])                    # (1)
    k, k_cache = linear_forward(memory, **p["k"])
    v, v_cache = linear_forward(memory, **p["v"])
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)           # (B, H, T, d)
    z, core = scaled_dot_product_attention_forward(q, k, v)     # (2)
    y, out = linear_forward(merge_heads(z), **p["out"])         # (3)
    return y, {"q": q_cache, "k": k_cache, "v": v_cache, "core": core, "out": out, "heads": heads}


def cross_attention_backward(dy, cache):
    """Gradients (dx, dmemory, dp), from dy (B, Tq, D); dp is a tree like p: {"q": {"w": dw}, ...}."""
    raise NotImplementedError("equations (4) to (6)")


# ---- hints ----
# 1. As in self-attention, but the keys and values come from somewhere else: their gradients go there.
# 2. Equation (6): dx comes from the queries alone; dmemory is a sum of two gradients, from the keys and from the values.
# 3. linear_backward, split_heads, the backward of the core, merge_heads three times, linear_backward three times, one sum of
# two.
