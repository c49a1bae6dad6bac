"""Initial parameters from an rng, as in He et al. 2021 (their code), PyTorch and Vaswani et al. 2017.

Each function returns a parameter tree for the op or block of its name. With rng=None every weight is zero: the shapes of a
model, to count its parameters or to load weights into. (np.zeros takes no memory until it is written to, so even ViT-L's tree
is made at once.)
"""
import math

import numpy as np


def xavier_uniform(shape: tuple[int, int], rng: np.random.Generator | None, dtype: type = np.float32) -> np.ndarray:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) for a weight of shape (in, out): Glorot & Bengio 2010.

    It keeps the variance of activations in the forward pass, and of gradients in the backward pass, near 1.
    """
    bound = math.sqrt(6 / (shape[0] + shape[1]))
    return np.zeros(shape, dtype) if rng is None else rng.uniform(-bound, bound, shape).astype(dtype)


def normal(
    shape: tuple[int, ...], rng: np.random.Generator | None, std: float = 0.02, dtype: type = np.float32
) -> np.ndarray:
    """Normal with standard deviation std, for the class token, mask token, learned positions and embeddings."""
    return np.zeros(shape, dtype) if rng is None else rng.normal(0, std, shape).astype(dtype)


def linear(inputs: int, outputs: int, rng: np.random.Generator | None, *, bias: bool = True, dtype: type = np.float32) -> dict:
    """{"w": (inputs, outputs), "b": (outputs,)} or without b, for `ops.linear`."""
    w = xavier_uniform((inputs, outputs), rng, dtype)
    return {"w": w, "b": np.zeros(outputs, dtype)} if bias else {"w": w}


def layernorm(dim: int, dtype: type = np.float32) -> dict:
    """{"gamma": ones, "beta": zeros} of shape (dim,), for `ops.layernorm`."""
    return {"gamma": np.ones(dim, dtype), "beta": np.zeros(dim, dtype)}


def multi_head_attention(
    dim: int,
    heads: int,
    rng: np.random.Generator | None,
    *,
    d_k: int | None = None,
    d_v: int | None = None,
    fused: bool = False,
    bias: bool = True,
    out: bool = True,
    dtype: type = np.float32,
) -> dict:
    """Parameters of `blocks.multi_head_attention_forward`.

    Parameters
    ----------
    dim : D
    heads : H
    rng : source of the random draws, or None for zeros
    d_k, d_v : dimension of one head's queries and keys, and of its values; D / H if None
    fused : q, k and v as the columns of one matrix; xavier's bound is then that of the whole matrix, as in ViT
    bias : False for article A's attention
    out : with an output projection; article B omits it for one head of dimension D

    Raises
    ------
    ValueError
        if heads do not divide dim and d_k or d_v is not given, one of them is not positive, or a fused d_k differs from d_v
    """
    if dim % heads and (d_k is None or d_v is None):
        raise ValueError(f"attention: expected a dimension that is a multiple of {heads} heads, got {dim}: or give d_k, d_v")
    d_k, d_v = (dim // heads if size is None else size for size in (d_k, d_v))
    if d_k < 1 or d_v < 1:
        raise ValueError(f"attention: expected d_k and d_v of at least 1, got {d_k} and {d_v}")
    if fused and d_k != d_v:
        raise ValueError(
            f"attention: expected d_k equal to d_v in a fused projection, got {d_k} and {d_v}: q, k and v are the thirds of "
            "its columns"
        )
    last = {"out": linear(heads * d_v, dim, rng, bias=bias, dtype=dtype)} if out else {}
    if fused:
        return {"qkv": linear(dim, 3 * heads * d_k, rng, bias=bias, dtype=dtype)} | last
    return {
        "q": linear(dim, heads * d_k, rng, bias=bias, dtype=dtype),
        "k": linear(dim, heads * d_k, rng, bias=bias, dtype=dtype),
        "v": linear(dim, heads * d_v, rng, bias=bias, dtype=dtype),
    } | last


def feed_forward(
    dim: int, hidden: int, rng: np.random.Generator | None, *, bias: bool = True, dtype: type = np.float32
) -> dict:
    """Parameters of `blocks.feed_forward_forward`."""
    return {
        "fc1": linear(dim, hidden, rng, bias=bias, dtype=dtype),
        "fc2": linear(hidden, dim, rng, bias=bias, dtype=dtype),
    }


def encoder_layer(
    dim: int, heads: int, hidden: int, rng: np.random.Generator | None, *, dtype: type = np.float32, **attention
) -> dict:
    """Parameters of `blocks.encoder_layer_forward`; `attention` goes to `multi_head_attention`."""
    return {
        "ln1": layernorm(dim, dtype),
        "attn": multi_head_attention(dim, heads, rng, dtype=dtype, **attention),
        "ln2": layernorm(dim, dtype),
        "ffn": feed_forward(dim, hidden, rng, dtype=dtype),
    }


def decoder_layer(
    dim: int, heads: int, hidden: int, rng: np.random.Generator | None, *, dtype: type = np.float32, **attention
) -> dict:
    """Parameters of `blocks.decoder_layer_forward`; `attention` goes to both attentions."""
    return {
        "ln1": layernorm(dim, dtype),
        "self_attn": multi_head_attention(dim, heads, rng, dtype=dtype, **attention),
        "ln2": layernorm(dim, dtype),
        "cross_attn": multi_head_attention(dim, heads, rng, dtype=dtype, **attention),
        "ln3": layernorm(dim, dtype),
        "ffn": feed_forward(dim, hidden, rng, dtype=dtype),
    }
