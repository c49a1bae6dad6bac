from tinymae.ops.attention import scaled_dot_product_attention_backward
from tinymae.ops.linear import linear_backward


def cross_attention_backward(dy, cache):
    dz, dout, _ = linear_backward(dy, cache["out"])             # (4)
    dq, dk, dv = scaled_dot_product_attention_backward(split_heads(dz, cache["heads"]), cache["core"])      # (5)
    dx, dwq, _ = linear_backward(merge_heads(dq), cache["q"])   # (6)
    dmemory_k, dwk, _ = linear_backward(merge_heads(dk), cache["k"])
    dmemory_v, dwv, _ = linear_backward(merge_heads(dv), cache["v"])
    dmemory = dmemory_k + dmemory_v
    return dx, dmemory, {"q": {"w": dwq}, "k": {"w": dwk}, "v": {"w": dwv}, "out": {"w": dout}}
