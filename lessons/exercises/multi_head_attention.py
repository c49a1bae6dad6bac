"""Multi-head self-attention: write the backward of a block.

Lesson 9; Vaswani et al. 2017, section 3.2.2; articles A (code), B, C (section 3.4), D. Without biases, as in article A.

    (1)  q = x W_q,  k = x W_k,  v = x W_v                      each cut into heads, (B, T, H d) -> (B, H, T, d)
    (2)  z = attention(q, k, v)                                 in every head
    (3)  y = concat(z) W_out                                    the heads of z side by side

Backward, from dy, is the same read upwards:

    (4)  dz, dW_out                                             through (3)
    (5)  dq, dk, dv                                             through (2)
    (6)  dx, dW_q, dW_k, dW_v                                   through (1): x went three ways, three gradients add up

Use linear_backward(dy, cache) -> (dx, dw, db), where db is None without a bias, and
scaled_dot_product_attention_backward(dy, cache) -> (dq, dk, dv).

Shapes: x and y (B, T, D), with D = H d.
"""
import numpy as np

from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.linear import linear_backward, linear_forward

EXERCISE = "multi_head_attention"                               # python -m tinymae check multi_head_attention.py


def split_heads(x, heads):
    """(B, T, D) -> (B, H, T, d)."""
    batch, length, width = x.shape
    return x.reshape(batch, length, heads, width // heads).swapaxes(1, 2)


def merge_heads(x):
    """(B, H, T, d) -> (B, T, D)."""
    batch, heads, length, width = x.shape
    return x.swapaxes(1, 2).reshape(batch, length, heads * width)


def multi_head_attention_forward(x, p, heads, mask=None):
    """x (B, T, D) -> y (B, T, D); p is {"q": {"w"}, "k": {"w"}, "v": {"w"}, "out": {"w"}}, each w (D, D)."""
    q, q_cache = linear_forward(x, **p["q"])                    # (1)
    k, k_cache = linear_forward(x, **p["k"])
    v, v_cache = linear_forward(x, **p["v"])
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)           # (B, H, T, d)
    z, core = scaled_dot_product_attention_forward(q, k, v, mask)                           # (2)
    y, out = linear_forward(merge_heads(z), **p["out"])         # (3)
    return y, {"q": q_cache, "k": k_cache, "v": v_cache, "core": core, "out": out, "heads": heads}


def multi_head_attention_backward(dy, cache):
    """Gradients (dx, dp), from dy (B, T, D); dp is a tree like p: {"q": {"w": dw}, ...}."""
    raise NotImplementedError("equations (4) to (6)")


# ---- hints ----
# 1. The forward read from its last line to its first. x was used three times, so three gradients come back to it.
# 2. Equation (4) gives dz and dW_out at once, with linear_backward. dz then has to be split into heads, as z was.
# 3. linear_backward, split_heads, the backward of the core, merge_heads three times, linear_backward three times, one sum of
# three.
