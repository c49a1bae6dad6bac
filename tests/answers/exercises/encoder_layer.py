from tinymae.blocks import feed_forward_backward, multi_head_attention_backward
from tinymae.ops.layernorm import layernorm_backward


def encoder_layer_backward(dy, cache):
    dh, dffn = feed_forward_backward(dy, cache["ffn"])
    dh, dgamma2, dbeta2 = layernorm_backward(dh, cache["ln2"])
    dx1 = dy + dh                                               # (5)
    dhq, dhkv, dattn = multi_head_attention_backward(dx1, cache["attn"])
    dh, dgamma1, dbeta1 = layernorm_backward(dhq + dhkv, cache["ln1"])
    dx = dx1 + dh                                               # (6)
    norms = {"ln1": {"gamma": dgamma1, "beta": dbeta1}, "ln2": {"gamma": dgamma2, "beta": dbeta2}}
    return dx, {**norms, "attn": dattn, "ffn": dffn}
