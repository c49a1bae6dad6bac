def encoder_layer(x, p, heads, mask=None):
    a, _ = multi_head_attention_forward(x, x, p["attn"], heads, mask)
    x, _ = layernorm_forward(x + a, **p["ln1"])
    f, _ = feed_forward_forward(x, p["ffn"])
    return layernorm_forward(x + f, **p["ln2"])[0]
