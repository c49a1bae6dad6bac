"""An encoder layer of which every part passes its own check.

One thing in this file is wrong. Read it, guess what and why nobody noticed; then `check` it, and mend it.

    (1)  h  = layernorm1(x)
    (2)  x1 = x + attention(h, h)                               residual 1; h goes to the queries and to the keys and values
    (3)  h  = layernorm2(x1)
    (4)  y  = x1 + feed_forward(h)                              residual 2
    (5)  dx1 = dy + layernorm2_backward(feed_forward_backward(dy))              from (4), (3)
    (6)  dx  = dx1 + layernorm1_backward(attention_backward(dx1))               from (2), (1)
"""
from tinymae.blocks import (
    feed_forward_backward,
    feed_forward_forward,
    multi_head_attention_backward,
    multi_head_attention_forward,
)
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward

EXERCISE = "no_residual_backward"                               # python -m tinymae check no_residual_backward.py


def encoder_layer_forward(x, p, heads, mask=None):
    h, ln1 = layernorm_forward(x, **p["ln1"])                   # (1)
    a, attn = multi_head_attention_forward(h, h, p["attn"], heads, mask)
    x = x + a                                                   # (2)
    h, ln2 = layernorm_forward(x, **p["ln2"])                   # (3)
    f, ffn = feed_forward_forward(h, p["ffn"])
    y = x + f                                                   # (4)
    return y, {"ln1": ln1, "attn": attn, "ln2": ln2, "ffn": ffn}


def encoder_layer_backward(dy, cache):
    dh, dffn = feed_forward_backward(dy, cache["ffn"])          # (5)
    dx, dgamma2, dbeta2 = layernorm_backward(dh, cache["ln2"])
    dhq, dhkv, dattn = multi_head_attention_backward(dx, cache["attn"])                     # (6)
    dx, dgamma1, dbeta1 = layernorm_backward(dhq + dhkv, cache["ln1"])
    norms = {"ln1": {"gamma": dgamma1, "beta": dbeta1}, "ln2": {"gamma": dgamma2, "beta": dbeta2}}
    return dx, {**norms, "attn": dattn, "ffn": dffn}


# ---- why nobody noticed: stop here, and guess first ----
# The backward of each sublayer is right; the path around it is missing, twice. Every op passed its own check, and the sum
# of the two paths belonged to none of them. What a residual is for, a short way back for the gradient, was gone.
