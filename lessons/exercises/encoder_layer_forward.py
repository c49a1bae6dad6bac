"""Encoder layer: write the forward of a whole block.

Lesson 14; Vaswani et al. 2017, figure 1 and section 3.1; articles A (part 3), C (section 4) and D. Post-norm, as in the paper.

    (1)  x1 = layernorm1(x + attention(x, x))                   Add & Norm; queries, keys and values come from x
    (2)  y  = layernorm2(x1 + feed_forward(x1))                 Add & Norm

The parts are there; each returns (y, cache):

    multi_head_attention_forward(xq, xkv, p, heads, mask)       p["attn"]
    feed_forward_forward(x, p)                                  p["ffn"]
    layernorm_forward(x, gamma, beta)                           p["ln1"] and p["ln2"] are {"gamma", "beta"}

Shapes: x and y (B, T, D).
"""
import numpy as np

from tinymae.blocks import feed_forward_forward, multi_head_attention_forward
from tinymae.ops.layernorm import layernorm_forward

EXERCISE = "encoder_layer_forward"                              # python -m tinymae check encoder_layer_forward.py


def encoder_layer(x, p, heads, mask=None):
    """x (B, T, D) -> y (B, T, D); p is {"attn": tree, "ln1": {"gamma", "beta"}, "ffn": tree, "ln2": {"gamma", "beta"}}."""
    raise NotImplementedError("equations (1) and (2)")


# ---- hints ----
# 1. Two sublayers, and around each the same frame: add the input to the result, then normalise the sum.
# 2. Equation (2) adds x1, the output of (1), and not the x that came in.
# 3. Six calls or sums in this order: attention, sum, norm, feed forward, sum, norm. Each part returns (y, cache).
# `layernorm_forward(x, **p["ln1"])`.
