def multi_head_attention(x, p, heads, mask=None):
    def cut(y):
        return y.reshape(*y.shape[:2], heads, -1).swapaxes(1, 2)

    q, k, v = (cut(x @ p[name]["w"]) for name in "qkv")
    z, _ = scaled_dot_product_attention_forward(q, k, v, mask)
    return z.swapaxes(1, 2).reshape(x.shape) @ p["out"]["w"]
