"""Parameters from an rng: what He et al. 2021 (their code), PyTorch and Vaswani et al. 2017 start from.

With rng=None every function returns zeros: the shapes of a model without the work, to count it or to load weights into.
(np.zeros takes no memory until somebody writes into it: ViT-L's tree is there at once.)
"""
import math

import numpy as np


def xavier_uniform(shape, rng, dtype=np.float32):
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) for a weight of shape (in, out): Glorot & Bengio 2010.

    It keeps the variance of activations going up, and of gradients going down, near 1.
    """
    bound = math.sqrt(6 / (shape[0] + shape[1]))
    return np.zeros(shape, dtype) if rng is None else rng.uniform(-bound, bound, shape).astype(dtype)


def normal(shape, rng, std=0.02, dtype=np.float32):
    """Normal with standard deviation std: class token, mask token, learned positions, embeddings."""
    return np.zeros(shape, dtype) if rng is None else rng.normal(0, std, shape).astype(dtype)


def linear(inputs, outputs, rng, bias=True, dtype=np.float32):
    """{"w": (inputs, outputs), "b": (outputs,)} or without b, for `ops.linear`."""
    w = xavier_uniform((inputs, outputs), rng, dtype)
    return {"w": w, "b": np.zeros(outputs, dtype)} if bias else {"w": w}


def layernorm(width, dtype=np.float32):
    """{"gamma": ones, "beta": zeros} of shape (width,), for `ops.layernorm`."""
    return {"gamma": np.ones(width, dtype), "beta": np.zeros(width, dtype)}


def multi_head_attention(width, heads, rng, d_k=None, d_v=None, fused=False, bias=True, out=True, dtype=np.float32):
    """Parameters of `blocks.multi_head_attention_forward`.

    Parameters
    ----------
    width : int, D
    heads : int, H
    rng : numpy.random.Generator or None
    d_k, d_v : int, width of one head's queries and keys, and of its values; D / H where not given
    fused : bool, q, k and v as the columns of one matrix; xavier's bound is then that of the whole matrix, as in ViT
    bias : bool; article A's attention has none
    out : bool, an output projection; article B leaves it out for one head as wide as the model

    Raises
    ------
    ValueError
        where heads do not divide width and d_k or d_v is not given
    """
    if width % heads and (d_k is None or d_v is None):
        raise ValueError(f"attention: expected a width that is a multiple of {heads} heads, got {width}: or give d_k, d_v")
    d_k, d_v = d_k or width // heads, d_v or width // heads
    if fused and d_k != d_v:
        raise ValueError(
            f"attention: expected d_k = d_v for a fused projection, which is cut into three equal parts, got {d_k} and {d_v}: "
            "use fused=False"
        )
    last = {"out": linear(heads * d_v, width, rng, bias, dtype)} if out else {}
    if fused:
        return {"qkv": linear(width, 3 * heads * d_k, rng, bias, dtype)} | last
    return {
        "q": linear(width, heads * d_k, rng, bias, dtype),
        "k": linear(width, heads * d_k, rng, bias, dtype),
        "v": linear(width, heads * d_v, rng, bias, dtype),
    } | last


def feed_forward(width, hidden, rng, bias=True, dtype=np.float32):
    """Parameters of `blocks.feed_forward_forward`."""
    return {"fc1": linear(width, hidden, rng, bias, dtype), "fc2": linear(hidden, width, rng, bias, dtype)}


def encoder_layer(width, heads, hidden, rng, dtype=np.float32, **attention):
    """Parameters of `blocks.encoder_layer_forward`; `attention` goes to `multi_head_attention`."""
    return {
        "ln1": layernorm(width, dtype),
        "attn": multi_head_attention(width, heads, rng, dtype=dtype, **attention),
        "ln2": layernorm(width, dtype),
        "ffn": feed_forward(width, hidden, rng, dtype=dtype),
    }


def decoder_layer(width, heads, hidden, rng, dtype=np.float32, **attention):
    """Parameters of `blocks.decoder_layer_forward`; `attention` goes to both attentions."""
    return {
        "ln1": layernorm(width, dtype),
        "self_attn": multi_head_attention(width, heads, rng, dtype=dtype, **attention),
        "ln2": layernorm(width, dtype),
        "cross_attn": multi_head_attention(width, heads, rng, dtype=dtype, **attention),
        "ln3": layernorm(width, dtype),
        "ffn": feed_forward(width, hidden, rng, dtype=dtype),
    }
