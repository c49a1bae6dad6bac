"""Blocks: multi-head attention, feed forward, Add & Norm, encoder layer, decoder layer, and stacks of them.

Vaswani et al. 2017, sections 3.1 to 3.3; articles A (parts 2 and 3), C (sections 3 to 5) and D. Each forward reads like its
figure, each backward is the figure read upwards. If a tensor is used twice, two gradients come back, and their sum is a line of
its own.

A block takes a parameter tree p (made by `init`) and returns gradients in the same tree.

The layer norm is placed by one function, `add_norm_forward`. Post-norm (norm_first=False) is as in the paper and the articles,
y = LayerNorm(x + sublayer(x)). Pre-norm (norm_first=True) is as in ViT, MAE and GPT-2, y = x + sublayer(LayerNorm(x)): its
gradient has a path from top to bottom without any normalisation.

Differs: dropout is applied as in PyTorch's layers: to the attention weights, after the activation, and to each sublayer's
output before it is added; Vaswani et al. name only the last. Article A's residuals and norms are inside its attention and
feed forward classes; here `add_norm_forward` has them.
"""
from collections.abc import Callable
from functools import partial

import numpy as np

from tinymae.arguments import check_arrays, check_gradient, check_scalars
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

ACTIVATIONS = {
    "relu": (relu_forward, relu_backward),                                  # Vaswani et al. 2017
    "gelu": (gelu_forward, gelu_backward),                                  # ViT, MAE
    "gelu_tanh": (partial(gelu_forward, approximate="tanh"), gelu_backward),            # GPT-2
    "swish": (swish_forward, swish_backward),                               # Marian
}


def multi_head_attention_forward(
    xq: np.ndarray, xkv: np.ndarray, p: dict, heads: int, mask: np.ndarray | None = None, *,
    dropout: float = 0.0, rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, dict]:
    """Attention in `heads` subspaces at once: queries from xq, keys and values from xkv.

    For self-attention, pass one tensor twice and add the two gradients that come back.

        (1)  q = xq W_q,  k = xkv W_k,  v = xkv W_v                 each cut into heads, (B, T, H d) -> (B, H, T, d)
        (2)  z = attention(q, k, v)                                 in every head
        (3)  y = concat(z) W_out                                    the heads of z side by side

    Backward, from dy:

        (4)  dz, dW_out                                             through (3)
        (5)  dq, dk, dv                                             through (2)
        (6)  dxq, dxkv, dW_q, dW_k, dW_v                            through (1): dxq from q alone, dxkv from k and v

    Parameters
    ----------
    xq : ndarray of shape (B, Tq, D)
    xkv : ndarray of shape (B, Tk, D)
    p : {"q": (D, H d_k), "k": (D, H d_k), "v": (D, H d_v), "out": (H d_v, D)}, each {"w", "b"} or {"w"};
        or fused, {"qkv": (D, 3 H d), "out"}: q, k and v are then the thirds of its columns. Without "out" the heads side by
        side are y, (B, Tq, H d_v): as in article B if heads == 1 and head_dim == dim
    heads : H
    mask : boolean ndarray broadcastable to (B, H, Tq, Tk), True = may attend; or None
    dropout : on the attention weights
    rng : None for no dropout

    Returns
    -------
    y : ndarray of shape (B, Tq, D)
    cache : cache["attention"].weights are the attention weights (B, H, Tq, Tk): see `attention_weights`

    Raises
    ------
    TypeError, ValueError
        if xq or xkv does not fit, heads is no whole number, or p has no such branches
    ValueError
        if the columns of a projection are not a multiple of the heads, or those of a fused one are not three equal parts
    """
    _check_tokens("attention", xq=xq, xkv=xkv)
    check_scalars("attention", "count", heads=heads)
    _check_tree("attention", {"p": p}, "p")
    fused = "qkv" in p
    _check_tree("attention", p, *(("qkv",) if fused else ("q", "k", "v")), *(("out",) if "out" in p else ()))
    projections = _split_fused(p) if fused else p
    q, q_cache = linear_forward(xq, **projections["q"])         # (1)  (B, Tq, H d_k)
    k, k_cache = linear_forward(xkv, **projections["k"])        #      (B, Tk, H d_k)
    v, v_cache = linear_forward(xkv, **projections["v"])        #      (B, Tk, H d_v)
    q, k, v = (_split_heads(x, heads) for x in (q, k, v))       #      (B, H, T, d)
    z, attention = scaled_dot_product_attention_forward(q, k, v, mask, dropout=dropout, rng=rng)            # (2)
    z = _merge_heads(z)                                         #      (B, Tq, H d_v)
    y, out = linear_forward(z, **p["out"]) if "out" in p else (z, None)                     # (3)  (B, Tq, D)
    return y, {"q": q_cache, "k": k_cache, "v": v_cache, "attention": attention, "out": out, "fused": fused}


def multi_head_attention_backward(dy: np.ndarray, cache: dict) -> tuple[np.ndarray, np.ndarray, dict]:
    """Gradients (dxq, dxkv, dp) of `multi_head_attention_forward`, from dy (B, Tq, D)."""
    attention = cache["attention"]
    batch, heads, length, _ = attention.q.shape
    if cache["out"] is None:
        check_gradient("attention", (batch, length, heads * attention.v.shape[3]), attention.v.dtype, dy=dy)
    dz, *dout = linear_backward(dy, cache["out"]) if cache["out"] is not None else (dy,)                     # (4)
    dq, dk, dv = scaled_dot_product_attention_backward(_split_heads(dz, heads), attention)                    # (5)
    dxq, *dq = linear_backward(_merge_heads(dq), cache["q"])    # (6)
    dxkv, *dk = linear_backward(_merge_heads(dk), cache["k"])
    dxv, *dv = linear_backward(_merge_heads(dv), cache["v"])
    dxkv += dxv                                                 # xkv went to the keys and to the values
    last = {"out": _tree(dout)} if dout else {}
    if cache["fused"]:
        dqkv = [None if parts[0] is None else np.concatenate(parts, axis=-1) for parts in zip(dq, dk, dv, strict=True)]
        return dxq, dxkv, {"qkv": _tree(dqkv)} | last
    return dxq, dxkv, {"q": _tree(dq), "k": _tree(dk), "v": _tree(dv)} | last


def _self_attention_backward(dy: np.ndarray, cache: dict) -> tuple[np.ndarray, dict]:
    """Gradients (dx, dp) of `multi_head_attention_forward(x, x, ...)`, from dy (B, T, D)."""
    dxq, dxkv, dp = multi_head_attention_backward(dy, cache)
    return dxq + dxkv, dp                                       # x went to the queries and to the keys and values


def attention_weights(cache: dict) -> np.ndarray:
    """The attention weights (B, H, Tq, Tk) in a cache of `multi_head_attention_forward`: after the softmax, before dropout."""
    return cache["attention"].weights


def _split_fused(p):
    """The thirds of the columns, as views: {"w": (D, 3 H d), "b"} -> {"q": {"w": (D, H d), "b"}, "k": ..., "v": ...}."""
    check_arrays("attention", **p["qkv"])
    shapes = [array.shape for array in p["qkv"].values()]
    columns = shapes[0][-1]
    if any(shape[-1] != columns for shape in shapes):
        raise ValueError(f"attention: expected w (D, 3 H d) and b (3 H d,) in 'qkv', got {' and '.join(map(str, shapes))}")
    if "out" in p:
        check_arrays("attention", **p["out"])
    if columns % 3 or ("out" in p and columns != 3 * p["out"]["w"].shape[0]):
        after = f", with an output projection of {p['out']['w'].shape[0]} rows" if "out" in p else ""
        raise ValueError(
            f"attention: expected a fused projection of three equal parts, queries, keys and values, got {columns} columns"
            f"{after}: if d_k and d_v differ, use one projection each"
        )
    third = columns // 3
    parts = {key: slice(i * third, (i + 1) * third) for i, key in enumerate("qkv")}     # np.split takes ten times as long
    return {key: {name: array[..., part] for name, array in p["qkv"].items()} for key, part in parts.items()}


def _split_heads(x, heads):
    """(B, T, H d) -> (B, H, T, d), a view. First reshape, then swap.

        (1)  split[b, h, t, i] = x[b, t, h d + i]         head h owns the columns h d ... (h + 1) d - 1 of every token
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


def feed_forward_forward(
    x: np.ndarray, p: dict, activation: str = "relu", *, dropout: float = 0.0, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, dict]:
    """Two linear maps with an activation between them, the same at every position: Vaswani et al. 2017, equation 2.

        (1)  h = x W1 + b1
        (2)  a = max(0, h)
        (3)  y = a W2 + b2

    Backward, from dy, with every position one row of a matrix:

        (4)  da = dy W2^T,   dW2 = a^T dy,   db2 = sum dy           from (3)
        (5)  dh = da * 1[h > 0]                                     from (2); 1[h > 0] is 1 where h > 0, else 0
        (6)  dx = dh W1^T,   dW1 = x^T dh,   db1 = sum dh           from (1)

    (2) and (5) are those of relu; the other activations are in `ops.activation`.

    Parameters
    ----------
    x : ndarray of shape (B, T, D)
    p : {"fc1": (D, F), "fc2": (F, D)}, each {"w", "b"} or {"w"}
    activation : a name in ACTIVATIONS
    dropout : after the activation
    rng : None for no dropout

    Returns
    -------
    y : ndarray of shape (B, T, D)
    cache : dict

    Raises
    ------
    ValueError
        if the activation is unknown, also in the backward
    """
    activation_forward, _ = activation_pair(activation)
    check_arrays("feed_forward", x=x)
    _check_tree("feed_forward", p, "fc1", "fc2")
    h, fc1 = linear_forward(x, **p["fc1"])                      # (1)  (B, T, F)
    a, act = activation_forward(h)                              # (2)
    a, drop = dropout_forward(a, dropout, rng)
    y, fc2 = linear_forward(a, **p["fc2"])                      # (3)  (B, T, D)
    return y, {"fc1": fc1, "act": act, "drop": drop, "fc2": fc2, "activation": activation}


def feed_forward_backward(dy: np.ndarray, cache: dict) -> tuple[np.ndarray, dict]:
    """Gradients (dx, dp) of `feed_forward_forward`, from dy (B, T, D)."""
    _, activation_backward = activation_pair(cache["activation"])
    da, *dfc2 = linear_backward(dy, cache["fc2"])               # (4)
    da = dropout_backward(da, cache["drop"])
    dh = activation_backward(da, cache["act"])                  # (5)
    dx, *dfc1 = linear_backward(dh, cache["fc1"])               # (6)
    return dx, {"fc1": _tree(dfc1), "fc2": _tree(dfc2)}


def activation_pair(name: str) -> tuple[Callable, Callable]:
    """Forward and backward of an activation, by its name in ACTIVATIONS. Raises a ValueError if there is none."""
    if name not in ACTIVATIONS:
        raise ValueError(f"expected an activation among {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


def add_norm_forward(
    x: np.ndarray, norm: dict, sublayer: Callable, *,
    norm_first: bool, dropout: float = 0.0, rng: np.random.Generator | None = None, eps: float = 1e-5,
) -> tuple[np.ndarray, dict]:
    """Add & Norm: x plus what a sublayer makes of it, and their layer norm.

        (1)  y = x + sublayer(layernorm(x))                         pre-norm
        (2)  y = layernorm(x + sublayer(x))                         post-norm, as the paper has it

    Backward, from dy:

        (3)  dx = dy + layernorm_backward(sublayer_backward(dy))                from (1)
        (4)  dx = ds + sublayer_backward(ds),  ds = layernorm_backward(dy)      from (2)

    In both, x is used twice, so two gradients are added. The first is that of the residual connection.

    Parameters
    ----------
    x : ndarray of shape (B, T, D)
    norm : {"gamma", "beta"}, (D,) each
    sublayer : maps h (B, T, D) to (y (B, T, D), cache)
    norm_first : (1) or (2)
    dropout : on the sublayer's output, before it is added
    rng : None for no dropout
    eps : of the layer norm

    Returns
    -------
    y : ndarray of shape (B, T, D)
    cache : cache["sublayer"] is the sublayer's own
    """
    check_arrays("add_norm", x=x)
    _check_tree("add_norm", {"norm": norm}, "norm")
    h, ln = layernorm_forward(x, **norm, eps=eps) if norm_first else (x, None)
    y, sublayer_cache = sublayer(h)
    if y.shape != x.shape:
        raise ValueError(f"add_norm: expected a sublayer that keeps the shape {x.shape}, got {y.shape}: x is added to it")
    y, drop = dropout_forward(y, dropout, rng)
    y = x + y                                                   # residual
    if not norm_first:
        y, ln = layernorm_forward(y, **norm, eps=eps)
    return y, {"ln": ln, "sublayer": sublayer_cache, "drop": drop, "norm_first": norm_first}


def add_norm_backward(dy: np.ndarray, cache: dict, sublayer_backward: Callable) -> tuple:
    """Gradients (dx, dnorm, *rest) of `add_norm_forward`, from dy (B, T, D).

    sublayer_backward maps (dy, cache) to (dh, *rest): with cross-attention, rest is (dmemory, dp), else (dp,).
    """
    xhat = cache["ln"][0]
    check_gradient("add_norm", xhat.shape, xhat.dtype, dy=dy)
    if not cache["norm_first"]:
        dy, dnorm = _norm_backward(dy, cache["ln"])
    dh, *rest = sublayer_backward(dropout_backward(dy, cache["drop"]), cache["sublayer"])
    if cache["norm_first"]:
        dh, dnorm = _norm_backward(dh, cache["ln"])
    return dh + dy, dnorm, *rest                                # residual: y = x + sublayer(x), both paths bring gradient


def _norm_backward(dy, cache):
    """`layernorm_backward` with its parameter gradients as a tree."""
    dx, dgamma, dbeta = layernorm_backward(dy, cache)
    return dx, {"gamma": dgamma, "beta": dbeta}


def encoder_layer_forward(
    x: np.ndarray, p: dict, heads: int, mask: np.ndarray | None = None, *,
    norm_first: bool = True, activation: str = "gelu",
    dropout: float = 0.0, rng: np.random.Generator | None = None, eps: float = 1e-5,
) -> tuple[np.ndarray, dict]:
    """Self-attention, then feed forward, each with Add & Norm. Here pre-norm, without dropout:

        (1)  h  = layernorm1(x)
        (2)  x1 = x + attention(h, h)                               residual 1; h goes to the queries and to the keys and values
        (3)  h  = layernorm2(x1)
        (4)  y  = x1 + feed_forward(h)                              residual 2

    Backward, from dy, is the same read upwards:

        (5)  dx1 = dy + layernorm2_backward(feed_forward_backward(dy))              from (4), (3)
        (6)  dx  = dx1 + layernorm1_backward(attention_backward(dx1))               from (2), (1)

    Post-norm is x1 = layernorm1(x + attention(x, x)), y = layernorm2(x1 + feed_forward(x1)).

    Parameters
    ----------
    x : ndarray of shape (B, T, D)
    p : {"ln1", "attn", "ln2", "ffn"}
    heads : H
    mask : boolean ndarray broadcastable to (B, H, T, T), True = may attend; or None
    norm_first : pre-norm (ViT, MAE) or post-norm (the paper, the articles)
    activation : as `feed_forward_forward`
    dropout : see the top of this file
    rng : None for no dropout
    eps : of both layer norms

    Returns
    -------
    y : ndarray of shape (B, T, D)
    cache : dict; attention_weights(cache["attn"]["sublayer"]) is (B, H, T, T)
    """
    _check_tokens("encoder_layer", x=x)
    _check_tree("encoder_layer", p, "ln1", "attn", "ln2", "ffn")
    drop = {"dropout": dropout, "rng": rng}
    norm = {"norm_first": norm_first, "eps": eps}
    x, attn = add_norm_forward(                                                             # (1) (2)
        x, p["ln1"], lambda h: multi_head_attention_forward(h, h, p["attn"], heads, mask, **drop), **norm, **drop
    )
    y, ffn = add_norm_forward(                                                              # (3) (4)
        x, p["ln2"], lambda h: feed_forward_forward(h, p["ffn"], activation, **drop), **norm, **drop
    )
    return y, {"attn": attn, "ffn": ffn}


def encoder_layer_backward(dy: np.ndarray, cache: dict) -> tuple[np.ndarray, dict]:
    """Gradients (dx, dp) of `encoder_layer_forward`, from dy (B, T, D)."""
    dx, dln2, dffn = add_norm_backward(dy, cache["ffn"], feed_forward_backward)             # (5)
    dx, dln1, dattn = add_norm_backward(dx, cache["attn"], _self_attention_backward)         # (6)
    return dx, {"ln1": dln1, "attn": dattn, "ln2": dln2, "ffn": dffn}


def decoder_layer_forward(
    x: np.ndarray, memory: np.ndarray, p: dict, heads: int,
    mask: np.ndarray | None = None, memory_mask: np.ndarray | None = None, *,
    norm_first: bool = False, activation: str = "relu",
    dropout: float = 0.0, rng: np.random.Generator | None = None, eps: float = 1e-5,
) -> tuple[np.ndarray, dict]:
    """Masked self-attention, cross-attention to the encoder's output, feed forward; each with Add & Norm.

    Queries come from the decoder, keys and values from the encoder's output (`memory`): not the reverse.

    Parameters
    ----------
    x : ndarray of shape (B, Tq, D)
    memory : ndarray of shape (B, Tk, D), the encoder's output
    p : {"ln1", "self_attn", "ln2", "cross_attn", "ln3", "ffn"}
    heads : H
    mask : boolean ndarray broadcastable to (B, H, Tq, Tq), True = may attend (causal, target padding); or None
    memory_mask : boolean ndarray broadcastable to (B, H, Tq, Tk) (source padding); or None
    norm_first, activation, dropout, rng, eps : as `encoder_layer_forward`; the defaults are the paper's

    Returns
    -------
    y : ndarray of shape (B, Tq, D)
    cache : dict; attention_weights(cache["self_attn"]["sublayer"]) is (B, H, Tq, Tq), of cache["cross_attn"] (B, H, Tq, Tk)
    """
    _check_tokens("decoder_layer", x=x, memory=memory)
    _check_tree("decoder_layer", p, "ln1", "self_attn", "ln2", "cross_attn", "ln3", "ffn")
    drop = {"dropout": dropout, "rng": rng}
    norm = {"norm_first": norm_first, "eps": eps}
    x, self_attn = add_norm_forward(
        x, p["ln1"], lambda h: multi_head_attention_forward(h, h, p["self_attn"], heads, mask, **drop), **norm, **drop
    )
    x, cross_attn = add_norm_forward(
        x, p["ln2"], lambda h: multi_head_attention_forward(h, memory, p["cross_attn"], heads, memory_mask, **drop),
        **norm, **drop,
    )
    y, ffn = add_norm_forward(
        x, p["ln3"], lambda h: feed_forward_forward(h, p["ffn"], activation, **drop), **norm, **drop
    )
    return y, {"self_attn": self_attn, "cross_attn": cross_attn, "ffn": ffn}


def decoder_layer_backward(dy: np.ndarray, cache: dict) -> tuple[np.ndarray, np.ndarray, dict]:
    """Gradients (dx, dmemory, dp) of `decoder_layer_forward`, from dy (B, Tq, D)."""
    dx, dln3, dffn = add_norm_backward(dy, cache["ffn"], feed_forward_backward)
    dx, dln2, dmemory, dcross = add_norm_backward(dx, cache["cross_attn"], multi_head_attention_backward)
    dx, dln1, dself = add_norm_backward(dx, cache["self_attn"], _self_attention_backward)
    return dx, dmemory, {"ln1": dln1, "self_attn": dself, "ln2": dln2, "cross_attn": dcross, "ln3": dln3, "ffn": dffn}


def encoder_forward(
    x: np.ndarray, p: dict, heads: int, mask: np.ndarray | None = None, *, eps: float = 1e-5, **layer
) -> tuple[np.ndarray, dict]:
    """A stack of encoder layers, then a layer norm if p has one.

    Parameters
    ----------
    x : ndarray of shape (B, T, D)
    p : {"blocks": list of L layers, "norm": layer norm}; pre-norm needs the last norm, post-norm ends in one already
    heads, mask : as `encoder_layer_forward`
    eps : of every layer norm
    layer : further options of each layer: norm_first, activation, dropout, rng

    Returns
    -------
    y : ndarray of shape (B, T, D)
    cache : {"blocks": list of L caches, "norm", "layers": L}; the backward empties the list
    """
    _check_tokens("encoder", x=x)
    _check_tree("encoder", p, "blocks")
    blocks = []
    for layer_p in p["blocks"]:
        x, block = encoder_layer_forward(x, layer_p, heads, mask, eps=eps, **layer)
        blocks.append(block)
    return _last_norm(x, p, blocks, eps)


def encoder_backward(dy: np.ndarray, cache: dict) -> tuple[np.ndarray, dict]:
    """Gradients (dx, dp) of `encoder_forward`, from dy (B, T, D). Each layer's cache is removed as soon as it is used.

    Raises
    ------
    ValueError
        if the cache has served a backward before
    """
    dx, dp = _last_norm_backward(dy, cache)
    while cache["blocks"]:
        dx, dblock = encoder_layer_backward(dx, cache["blocks"].pop())
        dp["blocks"].insert(0, dblock)
    return dx, dp


def decoder_forward(
    x: np.ndarray, memory: np.ndarray, p: dict, heads: int,
    mask: np.ndarray | None = None, memory_mask: np.ndarray | None = None, *,
    eps: float = 1e-5, **layer,
) -> tuple[np.ndarray, dict]:
    """A stack of decoder layers, all attending to the same memory, then a layer norm if p has one.

    Parameters
    ----------
    x : ndarray of shape (B, Tq, D)
    memory : ndarray of shape (B, Tk, D)
    p : {"blocks": list of L layers, "norm": layer norm}; "norm" may be missing
    heads, mask, memory_mask : as `decoder_layer_forward`
    eps : of every layer norm
    layer : further options of each layer: norm_first, activation, dropout, rng

    Returns
    -------
    y : ndarray of shape (B, Tq, D)
    cache : {"blocks": list of L caches, "norm", "layers": L}; the backward empties the list
    """
    _check_tokens("decoder", x=x, memory=memory)
    _check_tree("decoder", p, "blocks")
    blocks = []
    for layer_p in p["blocks"]:
        x, block = decoder_layer_forward(x, memory, layer_p, heads, mask, memory_mask, eps=eps, **layer)
        blocks.append(block)
    return _last_norm(x, p, blocks, eps)


def decoder_backward(dy: np.ndarray, cache: dict) -> tuple[np.ndarray, np.ndarray, dict]:
    """Gradients (dx, dmemory, dp) of `decoder_forward`, from dy (B, Tq, D). Raises as `encoder_backward`."""
    (dx, dp), dmemory = _last_norm_backward(dy, cache), 0
    while cache["blocks"]:
        dx, dlayer_memory, dblock = decoder_layer_backward(dx, cache["blocks"].pop())
        dmemory = dmemory + dlayer_memory                       # every layer attended to the same memory
        dp["blocks"].insert(0, dblock)
    return dx, dmemory, dp


def _check_tokens(block, **tokens):
    """Raise a TypeError or ValueError that names the argument, unless tokens are (B, T, D)."""
    check_arrays(block, **tokens)
    for name, x in tokens.items():
        if x.ndim != 3:
            raise ValueError(f"{block}: expected {name} (B, T, D), got {x.shape}: is the batch axis missing?")


def _check_tree(block, p, *branches):
    """Raise a ValueError that names the first branch that p lacks: a list of layers for "blocks", a dict for all others."""
    for name in branches:
        kind = list if name == "blocks" else dict
        if not isinstance(p, dict) or not isinstance(p.get(name), kind):
            got = f"the keys {', '.join(map(repr, p))}" if isinstance(p, dict) and name not in p else "something else"
            raise ValueError(f"{block}: expected parameters with a {kind.__name__} {name!r}, got {got}: see `init`")


def _last_norm(x, p, blocks, eps):
    """What a stack returns: x after the layer norm of p, if there is one, and the cache."""
    norm = None
    if "norm" in p:
        x, norm = layernorm_forward(x, **p["norm"], eps=eps)
    return x, {"blocks": blocks, "norm": norm, "layers": len(blocks)}


def _last_norm_backward(dy, cache):
    """(dx, dp) of `_last_norm`, with an empty list for the layers; refuses a cache without its layers."""
    if len(cache["blocks"]) != cache["layers"]:
        raise ValueError(
            f"expected a fresh cache, got one with {len(cache['blocks'])} of its {cache['layers']} layers: it has served a "
            "backward, which frees each layer as it goes. Run the forward again"
        )
    if cache["norm"] is None:
        return dy, {"blocks": []}
    dx, dnorm = _norm_backward(dy, cache["norm"])
    return dx, {"blocks": [], "norm": dnorm}
