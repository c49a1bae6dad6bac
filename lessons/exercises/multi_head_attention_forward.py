"""Multi-head self-attention: write the forward.

Lesson 9; Vaswani et al. 2017, section 3.2.2; articles A (code), B, C (section 3.4), D. Without biases, as in article A.

    (1)  q = x W_q,  k = x W_k,  v = x W_v                      each cut into heads, (B, T, H d) -> (B, H, T, d)
    (2)  z = attention(q, k, v)                                 in every head
    (3)  y = concat(z) W_out                                    the heads of z side by side, (B, H, T, d) -> (B, T, H d)

scaled_dot_product_attention_forward(q, k, v, mask) -> (z, cache) is there.

Shapes: x and y (B, T, D), with D = H d.
"""
import numpy as np

from tinymae.ops.attention import scaled_dot_product_attention_forward

EXERCISE = "multi_head_attention_forward"                       # python -m tinymae check multi_head_attention_forward.py


def multi_head_attention(x, p, heads, mask=None):
    """x (B, T, D) -> y (B, T, D); p is {"q": {"w"}, "k": {"w"}, "v": {"w"}, "out": {"w"}}, each w (D, D)."""
    raise NotImplementedError("equations (1) to (3)")


# ---- hints ----
# 1. The same attention runs in every head, on a part of the features: cut, attend, put the parts side by side, mix.
# 2. Equation (1): head h has the columns h d ... (h + 1) d - 1. Reshape to (B, T, H, d) first, then swap two axes.
# 3. Equation (3) undoes the cut in the reverse order: swap the axes back, then reshape to (B, T, D), then @ W_out.
