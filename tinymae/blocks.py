"""Blocks: multi-head attention, feed forward, encoder layer, decoder layer, and a stack of encoder layers.

Vaswani et al. 2017, sections 3.1 to 3.3; articles A (parts 2 and 3), C (sections 3 to 5) and D. Each forward reads like its
figure, each backward is the figure read upwards. Where a tensor goes two ways, two gradients come back, and their sum is a
line of its own.

A block takes a parameter tree p (made by `init`) and returns gradients in the same tree.

Post-norm (norm_first=False) is the paper and the articles, y = LayerNorm(x + sublayer(x)); pre-norm (norm_first=True) is
ViT, MAE and GPT-2, y = x + sublayer(LayerNorm(x)): the gradient has a path without any normalisation from top to bottom.

Differs: dropout stands where PyTorch's layers have it: on the attention weights, after the activation, and on each sublayer's
output before it is added; Vaswani et al. name only the last. Article A's residuals and norms are inside its attention and
feed forward classes; here they are lines of the layer.
"""
import numpy as np

from tinymae.ops.activation import (
    gelu_backward,
    gelu_forward,
    relu_backward,
    relu_forward,
    swish_backward,
    swish_forward,
)
from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.dropout import dropout_backward, dropout_forward
from tinymae.ops.layernorm import layernorm_backward, layernorm_forward
from tinymae.ops.linear import linear_backward, linear_forward


def multi_head_attention_forward(xq, xkv, p, heads, mask=None, dropout=0.0, rng=None):
    """Attention in `heads` subspaces at once: queries from xq, keys and values from xkv.

    Self-attention passes one tensor twice, and adds the two gradients that come back.

        (1)  q = xq W_q,  k = xkv W_k,  v = xkv W_v,  each cut into heads, (B, T, H d) -> (B, H, T, d)
        (2)  z = attention(q, k, v) in every head
        (3)  y = (the heads of z side by side) W_out

    Backward, from dy:

        (4)  through (3): dz and dW_out
        (5)  through (2): dq, dk, dv
        (6)  through (1): dW_q, dW_k, dW_v;  dxq from the queries alone,  dxkv from the keys and from the values

    Parameters
    ----------
    xq : ndarray of shape (B, Tq, D)
    xkv : ndarray of shape (B, Tk, D)
    p : {"q": (D, H d_k), "k": (D, H d_k), "v": (D, H d_v), "out": (H d_v, D)}, each {"w", "b"} or {"w"};
        or fused, {"qkv": (D, 3 H d), "out"}: q, k and v are then the thirds of its columns. Without "out" the heads side by
        side are y, (B, Tq, H d_v): so article B where heads == 1 and head_dim == dim
    heads : int, H
    mask : boolean ndarray broadcastable to (B, H, Tq, Tk), True = may attend; or None
    dropout : float, on the attention weights
    rng : numpy.random.Generator, or None for no dropout

    Returns
    -------
    y : ndarray of shape (B, Tq, D)
    cache : dict; cache["attention"][3] is the attention (B, H, Tq, Tk): see `attention_weights`

    Raises
    ------
    ValueError
        where the columns of a projection cannot be shared out among the heads
    """
    fused = "qkv" in p
    projections = _split_fused(p["qkv"]) if fused else p
    q, q_cache = linear_forward(xq, **projections["q"])         # (B, Tq, H d_k)
    k, k_cache = linear_forward(xkv, **projections["k"])        # (B, Tk, H d_k)
    v, v_cache = linear_forward(xkv, **projections["v"])        # (B, Tk, H d_v)
    q, k, v = (_split_heads(x, heads) for x in (q, k, v))       # (B, H, T, d)
    z, attention = scaled_dot_product_attention_forward(q, k, v, mask, dropout, rng)
    z = _merge_heads(z)                                         # (B, Tq, H d_v)
    y, out = linear_forward(z, **p["out"]) if "out" in p else (z, None)                     # (B, Tq, D)
    return y, {"q": q_cache, "k": k_cache, "v": v_cache, "attention": attention, "out": out, "fused": fused}


def multi_head_attention_backward(dy, cache):
    """Gradients (dxq, dxkv, dp) of `multi_head_attention_forward`, from dy (B, Tq, D)."""
    heads = cache["attention"][0].shape[1]
    dz, *dout = linear_backward(dy, cache["out"]) if cache["out"] is not None else (dy,)
    dq, dk, dv = scaled_dot_product_attention_backward(_split_heads(dz, heads), cache["attention"])
    dxq, *dq = linear_backward(_merge_heads(dq), cache["q"])
    dxkv, *dk = linear_backward(_merge_heads(dk), cache["k"])
    dxv, *dv = linear_backward(_merge_heads(dv), cache["v"])
    dxkv += dxv                                                 # xkv went to the keys and to the values
    last = {"out": _tree(dout)} if dout else {}
    if cache["fused"]:
        dqkv = [None if parts[0] is None else np.concatenate(parts, axis=-1) for parts in zip(dq, dk, dv, strict=True)]
        return dxq, dxkv, {"qkv": _tree(dqkv)} | last
    return dxq, dxkv, {"q": _tree(dq), "k": _tree(dk), "v": _tree(dv)} | last


def attention_weights(cache):
    """The attention (B, H, Tq, Tk) in a cache of `multi_head_attention_forward`: softmax's, before dropout."""
    return cache["attention"][3]


def _split_fused(qkv):
    """The thirds of the columns, as views: {"w": (D, 3 H d), "b"} -> {"q": {"w": (D, H d), "b"}, "k": ..., "v": ...}."""
    thirds = {name: np.split(array, 3, axis=-1) for name, array in qkv.items()}
    return {key: {name: parts[i] for name, parts in thirds.items()} for i, key in enumerate("qkv")}


def _split_heads(x, heads):
    """(B, T, H d) -> (B, H, T, d), a view. First reshape, then swap.

        (1)  split[b, h, t, i] = x[b, t, h d + i]         head h owns the columns h d ... (h + 1) d of every token
    """
    batch, length, width = x.shape
    if width % heads:
        raise ValueError(f"attention: expected a projection whose columns are a multiple of {heads} heads, got {width}")
    return x.reshape(batch, length, heads, width // heads).swapaxes(1, 2)


def _merge_heads(x):
    """(B, H, T, d) -> (B, T, H d), the inverse of `_split_heads`: heads side by side.

        (2)  merged[b, t, h d + i] = x[b, h, t, i]        the inverse: "concat"
    """
    batch, heads, length, width = x.shape
    return x.swapaxes(1, 2).reshape(batch, length, heads * width)


def _tree(gradients):
    """[dw, db] -> {"w": dw, "b": db}, or {"w": dw} for a map without bias."""
    dw, db = gradients
    return {"w": dw} if db is None else {"w": dw, "b": db}


def feed_forward_forward(x, p, activation="relu", dropout=0.0, rng=None):
    """Two linear maps with an activation between, the same at every position: Vaswani et al. 2017, equation 2.

        (1)  h = x W1 + b1
        (2)  a = max(0, h)
        (3)  y = a W2 + b2

    Backward, from dy, with every position one row of a matrix:

        (4)  da = dy W2^T,   dW2 = a^T dy,   db2 = sum dy           from (3)
        (5)  dh = da where h > 0, else 0                            from (2)
        (6)  dx = dh W1^T,   dW1 = x^T dh,   db1 = sum dh           from (1)

    (2) and (5) are relu's; `ops.activation` has those of the others.

    Parameters
    ----------
    x : ndarray of shape (B, T, D)
    p : {"fc1": (D, F), "fc2": (F, D)}, each {"w", "b"} or {"w"}
    activation : "relu" (the paper), "gelu" (ViT, MAE), "gelu_tanh" (GPT-2) or "swish" (Marian)
    dropout : float, after the activation
    rng : numpy.random.Generator, or None for no dropout

    Returns
    -------
    y : ndarray of shape (B, T, D)
    cache : dict

    Raises
    ------
    ValueError
        for another activation
    """
    h, fc1 = linear_forward(x, **p["fc1"])                      # (B, T, F)
    if activation == "relu":
        a, act = relu_forward(h)
    elif activation in ("gelu", "gelu_tanh"):
        a, act = gelu_forward(h, "none" if activation == "gelu" else "tanh")
    elif activation == "swish":
        a, act = swish_forward(h)
    else:
        raise ValueError(f"feed_forward: expected activation 'relu', 'gelu', 'gelu_tanh' or 'swish', got {activation!r}")
    a, drop = dropout_forward(a, dropout, rng)
    y, fc2 = linear_forward(a, **p["fc2"])                      # (B, T, D)
    return y, {"fc1": fc1, "act": act, "drop": drop, "fc2": fc2, "activation": activation}


def feed_forward_backward(dy, cache):
    """Gradients (dx, dp) of `feed_forward_forward`, from dy (B, T, D)."""
    da, *dfc2 = linear_backward(dy, cache["fc2"])
    da = dropout_backward(da, cache["drop"])
    backward = {"relu": relu_backward, "swish": swish_backward}.get(cache["activation"], gelu_backward)
    dh = backward(da, cache["act"])
    dx, *dfc1 = linear_backward(dh, cache["fc1"])
    return dx, {"fc1": _tree(dfc1), "fc2": _tree(dfc2)}


def encoder_layer_forward(x, p, heads, mask=None, norm_first=True, activation="gelu", dropout=0.0, rng=None, eps=1e-5):
    """Self-attention, then feed forward, each with a residual and a layer norm. Here pre-norm, without dropout:

        (1)  h  = layernorm1(x)
        (2)  x1 = x + attention(h, h)                               residual 1; h goes to the queries and to the keys and values
        (3)  h  = layernorm2(x1)
        (4)  y  = x1 + feed_forward(h)                              residual 2

    Backward, from dy, is the same read upwards:

        (5)  dx1 = dy + (dy taken back through feed_forward and layernorm2)         from (4), (3)
        (6)  dx  = dx1 + (dx1 taken back through attention and layernorm1)          from (2), (1)

    Post-norm is x1 = layernorm1(x + attention(x, x)), y = layernorm2(x1 + feed_forward(x1)).

    Parameters
    ----------
    x : ndarray of shape (B, T, D)
    p : {"ln1", "attn", "ln2", "ffn"}
    heads : int, H
    mask : boolean ndarray broadcastable to (B, H, T, T), True = may attend; or None
    norm_first : bool, pre-norm (ViT, MAE) or post-norm (the paper, the articles)
    activation : as `feed_forward_forward`
    dropout : float
    rng : numpy.random.Generator, or None for no dropout
    eps : float, of both layer norms

    Returns
    -------
    y : ndarray of shape (B, T, D)
    cache : dict; attention_weights(cache["attn"]) is (B, H, T, T)
    """
    h, ln1 = layernorm_forward(x, **p["ln1"], eps=eps) if norm_first else (x, None)
    a, attn = multi_head_attention_forward(h, h, p["attn"], heads, mask, dropout, rng)
    a, drop1 = dropout_forward(a, dropout, rng)
    x = x + a                                                   # residual 1
    if not norm_first:
        x, ln1 = layernorm_forward(x, **p["ln1"], eps=eps)
    h, ln2 = layernorm_forward(x, **p["ln2"], eps=eps) if norm_first else (x, None)
    f, ffn = feed_forward_forward(h, p["ffn"], activation, dropout, rng)
    f, drop2 = dropout_forward(f, dropout, rng)
    y = x + f                                                   # residual 2
    if not norm_first:
        y, ln2 = layernorm_forward(y, **p["ln2"], eps=eps)
    cache = {"ln1": ln1, "attn": attn, "drop1": drop1, "ln2": ln2, "ffn": ffn, "drop2": drop2, "norm_first": norm_first}
    return y, cache


def encoder_layer_backward(dy, cache):
    """Gradients (dx, dp) of `encoder_layer_forward`, from dy (B, T, D)."""
    norm_first = cache["norm_first"]
    dp = {}
    if not norm_first:
        dy, dp["ln2"] = _norm_backward(dy, cache["ln2"])
    dh, dp["ffn"] = feed_forward_backward(dropout_backward(dy, cache["drop2"]), cache["ffn"])
    if norm_first:
        dh, dp["ln2"] = _norm_backward(dh, cache["ln2"])
    dx = dh + dy                                                # residual 2: y = x + f(x), both paths bring gradient
    if not norm_first:
        dx, dp["ln1"] = _norm_backward(dx, cache["ln1"])
    dhq, dhkv, dp["attn"] = multi_head_attention_backward(dropout_backward(dx, cache["drop1"]), cache["attn"])
    dh = dhq + dhkv                                             # h went to the queries and to the keys and values
    if norm_first:
        dh, dp["ln1"] = _norm_backward(dh, cache["ln1"])
    dx = dh + dx                                                # residual 1
    return dx, {key: dp[key] for key in ("ln1", "attn", "ln2", "ffn")}


def _norm_backward(dy, cache):
    """`layernorm_backward` with its parameter gradients as a tree."""
    dx, dgamma, dbeta = layernorm_backward(dy, cache)
    return dx, {"gamma": dgamma, "beta": dbeta}


def decoder_layer_forward(
    x, memory, p, heads, mask=None, memory_mask=None, norm_first=False, activation="relu", dropout=0.0, rng=None, eps=1e-5
):
    """Masked self-attention, cross-attention to the encoder's output, feed forward; each with residual and layer norm.

    Queries come from the decoder, keys and values from the encoder's output (`memory`): never the other way round.

    Parameters
    ----------
    x : ndarray of shape (B, Tq, D)
    memory : ndarray of shape (B, Tk, D), the encoder's output
    p : {"ln1", "self_attn", "ln2", "cross_attn", "ln3", "ffn"}
    heads : int, H
    mask : boolean ndarray broadcastable to (B, H, Tq, Tq), True = may attend (causal, target padding); or None
    memory_mask : boolean ndarray broadcastable to (B, H, Tq, Tk) (source padding); or None
    norm_first, activation, dropout, rng, eps : as `encoder_layer_forward`; the defaults are the paper's

    Returns
    -------
    y : ndarray of shape (B, Tq, D)
    cache : dict; attention_weights(cache["self_attn"]) is (B, H, Tq, Tq), of cache["cross_attn"] (B, H, Tq, Tk)
    """
    h, ln1 = layernorm_forward(x, **p["ln1"], eps=eps) if norm_first else (x, None)
    a, self_attn = multi_head_attention_forward(h, h, p["self_attn"], heads, mask, dropout, rng)
    a, drop1 = dropout_forward(a, dropout, rng)
    x = x + a                                                   # residual 1
    if not norm_first:
        x, ln1 = layernorm_forward(x, **p["ln1"], eps=eps)
    h, ln2 = layernorm_forward(x, **p["ln2"], eps=eps) if norm_first else (x, None)
    a, cross_attn = multi_head_attention_forward(h, memory, p["cross_attn"], heads, memory_mask, dropout, rng)
    a, drop2 = dropout_forward(a, dropout, rng)
    x = x + a                                                   # residual 2
    if not norm_first:
        x, ln2 = layernorm_forward(x, **p["ln2"], eps=eps)
    h, ln3 = layernorm_forward(x, **p["ln3"], eps=eps) if norm_first else (x, None)
    f, ffn = feed_forward_forward(h, p["ffn"], activation, dropout, rng)
    f, drop3 = dropout_forward(f, dropout, rng)
    y = x + f                                                   # residual 3
    if not norm_first:
        y, ln3 = layernorm_forward(y, **p["ln3"], eps=eps)
    return y, {
        "ln1": ln1, "self_attn": self_attn, "drop1": drop1, "ln2": ln2, "cross_attn": cross_attn, "drop2": drop2,
        "ln3": ln3, "ffn": ffn, "drop3": drop3, "norm_first": norm_first,
    }


def decoder_layer_backward(dy, cache):
    """Gradients (dx, dmemory, dp) of `decoder_layer_forward`, from dy (B, Tq, D)."""
    norm_first = cache["norm_first"]
    dp = {}
    if not norm_first:
        dy, dp["ln3"] = _norm_backward(dy, cache["ln3"])
    dh, dp["ffn"] = feed_forward_backward(dropout_backward(dy, cache["drop3"]), cache["ffn"])
    if norm_first:
        dh, dp["ln3"] = _norm_backward(dh, cache["ln3"])
    dx = dh + dy                                                # residual 3
    if not norm_first:
        dx, dp["ln2"] = _norm_backward(dx, cache["ln2"])
    dh, dmemory, dp["cross_attn"] = multi_head_attention_backward(dropout_backward(dx, cache["drop2"]), cache["cross_attn"])
    if norm_first:
        dh, dp["ln2"] = _norm_backward(dh, cache["ln2"])
    dx = dh + dx                                                # residual 2
    if not norm_first:
        dx, dp["ln1"] = _norm_backward(dx, cache["ln1"])
    dhq, dhkv, dp["self_attn"] = multi_head_attention_backward(dropout_backward(dx, cache["drop1"]), cache["self_attn"])
    dh = dhq + dhkv                                             # h went to the queries and to the keys and values
    if norm_first:
        dh, dp["ln1"] = _norm_backward(dh, cache["ln1"])
    dx = dh + dx                                                # residual 1
    return dx, dmemory, {key: dp[key] for key in ("ln1", "self_attn", "ln2", "cross_attn", "ln3", "ffn")}


def encoder_forward(x, p, heads, mask=None, norm_first=True, activation="gelu", dropout=0.0, rng=None, eps=1e-5):
    """A stack of encoder layers ("same structure, weights not shared"), then a layer norm where p has one.

    Parameters
    ----------
    x : ndarray of shape (B, T, D)
    p : {"blocks": list of L layers, "norm": layer norm}; pre-norm needs the last norm, post-norm ends in one already
    heads, mask, norm_first, activation, dropout, rng, eps : as `encoder_layer_forward`

    Returns
    -------
    y : ndarray of shape (B, T, D)
    cache : {"blocks": list of L caches, "norm"}; the backward empties the list
    """
    blocks = []
    for layer in p["blocks"]:
        x, block = encoder_layer_forward(x, layer, heads, mask, norm_first, activation, dropout, rng, eps)
        blocks.append(block)
    norm = None
    if "norm" in p:
        x, norm = layernorm_forward(x, **p["norm"], eps=eps)
    return x, {"blocks": blocks, "norm": norm}


def encoder_backward(dy, cache):
    """Gradients (dx, dp) of `encoder_forward`, from dy (B, T, D). Each layer's cache is let go as soon as it is used."""
    dx, dp = dy, {"blocks": []}
    if cache["norm"] is not None:
        dx, dp["norm"] = _norm_backward(dx, cache["norm"])
    while cache["blocks"]:
        dx, dblock = encoder_layer_backward(dx, cache["blocks"].pop())
        dp["blocks"].insert(0, dblock)
    return dx, dp


def decoder_forward(
    x, memory, p, heads, mask=None, memory_mask=None, norm_first=False, activation="relu", dropout=0.0, rng=None, eps=1e-5
):
    """A stack of decoder layers, all looking at the same memory, then a layer norm where p has one.

    Parameters
    ----------
    x : ndarray of shape (B, Tq, D)
    memory : ndarray of shape (B, Tk, D)
    p : {"blocks": list of L layers, "norm": layer norm}; "norm" may be missing
    heads, mask, memory_mask, norm_first, activation, dropout, rng, eps : as `decoder_layer_forward`

    Returns
    -------
    y : ndarray of shape (B, Tq, D)
    cache : {"blocks": list of L caches, "norm"}; the backward empties the list
    """
    blocks = []
    for layer in p["blocks"]:
        x, block = decoder_layer_forward(
            x, memory, layer, heads, mask, memory_mask, norm_first, activation, dropout, rng, eps
        )
        blocks.append(block)
    norm = None
    if "norm" in p:
        x, norm = layernorm_forward(x, **p["norm"], eps=eps)
    return x, {"blocks": blocks, "norm": norm}


def decoder_backward(dy, cache):
    """Gradients (dx, dmemory, dp) of `decoder_forward`, from dy (B, Tq, D)."""
    dx, dp, dmemory = dy, {"blocks": []}, 0
    if cache["norm"] is not None:
        dx, dp["norm"] = _norm_backward(dx, cache["norm"])
    while cache["blocks"]:
        dx, dlayer_memory, dblock = decoder_layer_backward(dx, cache["blocks"].pop())
        dmemory = dmemory + dlayer_memory                       # every layer looked at the same memory
        dp["blocks"].insert(0, dblock)
    return dx, dmemory, dp
