"""Encoder layer: write the backward of a whole block, residuals included.

Lesson 14; Vaswani et al. 2017, section 3.1; articles A (part 3), C (section 4) and D. Here pre-norm, as in ViT and MAE;
the lesson writes post-norm, as the paper does.

    (1)  h  = layernorm1(x)
    (2)  x1 = x + attention(h, h)                               residual 1; h goes to the queries and to the keys and values
    (3)  h  = layernorm2(x1)
    (4)  y  = x1 + feed_forward(h)                              residual 2

Backward, from dy, is the same read upwards:

    (5)  dx1 = dy + layernorm2_backward(feed_forward_backward(dy))              from (4), (3)
    (6)  dx  = dx1 + layernorm1_backward(attention_backward(dx1))               from (2), (1)

Where a tensor went two ways, two gradients come back, and they add up. The backwards of the parts are there:

    feed_forward_backward(dy, cache)             -> dx, dp
    multi_head_attention_backward(dy, cache)     -> dxq, dxkv, dp
    layernorm_backward(dy, cache)                -> dx, dgamma, dbeta
"""
import numpy as np

from tinymae.blocks import (
    feed_forward_backward,
    feed_forward_forward,
    multi_head_attention_backward,
    multi_head_attention_forward,
)
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward

EXERCISE = "encoder_layer"                                      # python -m tinymae check encoder_layer.py


def encoder_layer_forward(x, p, heads, mask=None):
    """x (B, T, D) -> y (B, T, D); p is {"ln1": {"gamma", "beta"}, "attn": tree, "ln2": {"gamma", "beta"}, "ffn": tree}."""
    h, ln1 = layernorm_forward(x, **p["ln1"])                   # (1)
    a, attn = multi_head_attention_forward(h, h, p["attn"], heads, mask)
    x = x + a                                                   # (2)
    h, ln2 = layernorm_forward(x, **p["ln2"])                   # (3)
    f, ffn = feed_forward_forward(h, p["ffn"])
    y = x + f                                                   # (4)
    return y, {"ln1": ln1, "attn": attn, "ln2": ln2, "ffn": ffn}


def encoder_layer_backward(dy, cache):
    """Gradients (dx, dp), from dy (B, T, D); dp is a tree like p."""
    raise NotImplementedError("equations (5) and (6)")


# ---- hints ----
# 1. A residual path splits x in two and adds the results, so two gradients come back to it and add up.
# 2. Equation (5): dy passes unchanged along the residual path, and once more through feed forward and its layer norm.
# 3. For each sublayer: its backward, its layer norm's backward, one sum. Attention's backward returns two gradients of the
# same h.
