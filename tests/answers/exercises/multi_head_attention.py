from tinymae.ops.attention import scaled_dot_product_attention_backward
from tinymae.ops.linear import linear_backward


def multi_head_attention_backward(dy, cache):
    dz, dout, _ = linear_backward(dy, cache["out"])             # (4)
    dq, dk, dv = scaled_dot_product_attention_backward(split_heads(dz, cache["heads"]), cache["core"])      # (5)
    dxq, dwq, _ = linear_backward(merge_heads(dq), cache["q"])  # (6)
    dxk, dwk, _ = linear_backward(merge_heads(dk), cache["k"])
    dxv, dwv, _ = linear_backward(merge_heads(dv), cache["v"])
    dx = dxq + dxk + dxv
    return dx, {"q": {"w": dwq}, "k": {"w": dwk}, "v": {"w": dwv}, "out": {"w": dout}}
