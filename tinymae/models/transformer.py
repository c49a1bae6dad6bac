"""Encoder-decoder Transformer: Vaswani et al. 2017, section 3; articles A, C and D.

    source ids -> embedding * sqrt(D) + positions -> L encoder layers -> memory
    target ids, one place to the right -> embedding * sqrt(D) + positions -> L decoder layers, which look at memory
    -> linear to the vocabulary -> cross entropy with the target ids

Why sqrt(D): an embedding matrix that is also the output matrix starts with entries of size 1 / sqrt(D), so that logits start
near 1; times sqrt(D) its rows are as large as the positions they are added to.

The vocabulary matrix is the largest of all. The loss multiplies it with the words that count, never with padding.

Differs: positions are added before dropout, as in the paper; nn.Transformer leaves embedding, positions and output to its
user, and puts a layer norm behind both stacks even in post-norm (`final_norm`). The paper ties all three matrices
(`tie="all"`).
"""
import math
from dataclasses import dataclass

import numpy as np

from tinymae import init
from tinymae.blocks import activation_pair, decoder_backward, decoder_forward, encoder_backward, encoder_forward
from tinymae.masks import causal_mask, padding_mask, shift_right
from tinymae.ops.dropout import dropout_backward, dropout_forward
from tinymae.ops.embedding import embedding_backward, embedding_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import cross_entropy_backward, cross_entropy_forward
from tinymae.ops.positional import (
    get_positional_encoding,
    positional_backward,
    positional_forward,
    sinusoidal_halves,
    sinusoidal_interleaved,
)

POSITION_ENCODINGS = {
    "interleaved": sinusoidal_interleaved, "halves": sinusoidal_halves, "article_a": get_positional_encoding,
}


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a Transformer; the defaults are the paper's base model.

    Raises
    ------
    ValueError
        where the sizes do not fit each other
    """

    src_vocab: int = 37000
    tgt_vocab: int = 37000
    d_model: int = 512                  # D
    encoder_layers: int = 6
    decoder_layers: int = 6
    heads: int = 8                      # H
    d_ff: int = 2048                    # F
    d_k: int = None                     # of one head; D / H where not given
    d_v: int = None
    dropout: float = 0.1
    norm_first: bool = False            # post-norm is the paper's
    final_norm: bool = None             # a layer norm behind each stack; as norm_first where not given
    activation: str = "relu"            # or "gelu", "gelu_tanh", "swish"
    bias: bool = True                   # in the projections of attention; article A has none
    eps: float = 1e-5
    tie: str = "all"                    # "all": one matrix for source, target, output; "output": target and output; "none"
    output_bias: bool = False           # of a tied output; with tie "none" the output has a bias anyway
    scale_embedding: bool = True        # times sqrt(D)
    position_encoding: str = "interleaved"      # or "halves", "article_a", "learned"
    max_len: int = 512                  # of learned positions
    pad: int = 0
    bos: int = 1                        # may be pad, as in Marian's models
    eos: int = 2

    def __post_init__(self):
        if self.decoder_layers < 1:
            raise ValueError(
                f"expected at least one decoder layer, got {self.decoder_layers}: no other part looks at the source"
            )
        if self.tie not in ("all", "output", "none"):
            raise ValueError(f"expected tie 'all', 'output' or 'none', got {self.tie!r}")
        if self.tie == "all" and self.src_vocab != self.tgt_vocab:
            raise ValueError(
                f"expected one vocabulary for tie='all', got {self.src_vocab} and {self.tgt_vocab} words: tie='output' shares "
                "the target's matrix only"
            )
        if self.position_encoding not in (*POSITION_ENCODINGS, "learned"):
            known = ", ".join(POSITION_ENCODINGS)
            raise ValueError(f"expected position_encoding {known} or learned, got {self.position_encoding!r}")
        activation_pair(self.activation)                        # refuses an unknown one
        if self.d_model % self.heads and not (self.d_k and self.d_v):
            raise ValueError(f"expected d_model to be a multiple of {self.heads} heads, got {self.d_model}: or give d_k, d_v")

    @property
    def has_final_norm(self):
        """bool: final_norm, or norm_first where that is None."""
        return self.norm_first if self.final_norm is None else self.final_norm

    @property
    def layer(self):
        """dict: the options of every layer of both stacks."""
        return {
            "heads": self.heads, "norm_first": self.norm_first, "activation": self.activation, "dropout": self.dropout,
            "eps": self.eps,
        }


def transformer_init(config, rng, dtype=np.float32):
    """Fresh parameters: xavier for the layers, normal with D^-1/2 for embeddings.

    Parameters
    ----------
    config : TransformerConfig
    rng : numpy.random.Generator, or None for zeros (the shapes without the work)

    Returns
    -------
    {"embed" (V, D) with tie="all", else "src_embed", "tgt_embed"; "encoder": {"blocks", "norm"}, "decoder": likewise;
     "out": {"w" (D, V), "b"} with tie="none", {"b" (V,)} with output_bias and a tie;
     "src_positions", "tgt_positions" (max_len, D) with learned positions}
    """
    width, std = config.d_model, config.d_model**-0.5
    attention = {"d_k": config.d_k, "d_v": config.d_v, "bias": config.bias}

    def stack(layer, layers):
        blocks = [layer(width, config.heads, config.d_ff, rng, dtype=dtype, **attention) for _ in range(layers)]
        return {"blocks": blocks, "norm": init.layernorm(width, dtype)} if config.has_final_norm else {"blocks": blocks}

    params = {}
    if config.tie == "all":
        params["embed"] = init.normal((config.tgt_vocab, width), rng, std, dtype)
    else:
        params["src_embed"] = init.normal((config.src_vocab, width), rng, std, dtype)
        params["tgt_embed"] = init.normal((config.tgt_vocab, width), rng, std, dtype)
    params["encoder"] = stack(init.encoder_layer, config.encoder_layers)
    params["decoder"] = stack(init.decoder_layer, config.decoder_layers)
    if config.tie == "none":
        params["out"] = init.linear(width, config.tgt_vocab, rng, dtype=dtype)
    elif config.output_bias:
        params["out"] = {"b": np.zeros(config.tgt_vocab, dtype)}
    if config.position_encoding == "learned":
        params["src_positions"] = init.normal((config.max_len, width), rng, dtype=dtype)
        params["tgt_positions"] = init.normal((config.max_len, width), rng, dtype=dtype)
    return params


def _embed_forward(ids, table, positions, config, rng):
    """ids (B, T) -> (B, T, D): embedding * sqrt(D) + positions, then dropout."""
    x, lookup = embedding_forward(ids, table)
    if config.scale_embedding:
        x *= math.sqrt(config.d_model)
    x, positional = positional_forward(x, positions)
    x, drop = dropout_forward(x, config.dropout, rng)
    return x, (lookup, positional, drop)


def _embed_backward(dx, cache, config):
    """Gradients (dtable, dpositions) of `_embed_forward`."""
    lookup, positional, drop = cache
    dx, dpositions = positional_backward(dropout_backward(dx, drop), positional)
    if config.scale_embedding:
        dx *= math.sqrt(config.d_model)
    return embedding_backward(dx, lookup), dpositions


def _positions(params, side, length, config, dtype):
    """The table (at least length, D) of one side."""
    if config.position_encoding == "learned":
        return params[f"{side}_positions"]
    return POSITION_ENCODINGS[config.position_encoding](length, config.d_model).astype(dtype)


def encode(src, params, config, rng=None):
    """The encoder: what the source says, in the light of all its words.

    Parameters
    ----------
    src : integer ndarray of shape (B, Tk), padded with config.pad
    params : tree of `transformer_init`
    config : TransformerConfig
    rng : numpy.random.Generator, or None for no dropout

    Returns
    -------
    memory : ndarray of shape (B, Tk, D)
    cache : dict; attention_weights(cache["encoder"]["blocks"][i]["attn"]["sublayer"]) is (B, H, Tk, Tk)
    """
    table = params["embed"] if config.tie == "all" else params["src_embed"]
    x, embed = _embed_forward(src, table, _positions(params, "src", src.shape[1], config, table.dtype), config, rng)
    memory, encoder = encoder_forward(x, params["encoder"], mask=padding_mask(src, config.pad), rng=rng, **config.layer)
    return memory, {"embed": embed, "encoder": encoder}


def decode(inputs, memory, src, params, config, rng=None):
    """The decoder: what it would say next at each place, before the vocabulary.

    Parameters
    ----------
    inputs : integer ndarray of shape (B, Tq), <bos> first: `masks.shift_right` of the targets
    memory : ndarray of shape (B, Tk, D), of `encode`
    src : integer ndarray of shape (B, Tk), for its padding
    params, config, rng : as `encode`

    Returns
    -------
    x : ndarray of shape (B, Tq, D)
    cache : dict; in cache["decoder"]["blocks"][i] are "self_attn" (B, H, Tq, Tq) and "cross_attn" (B, H, Tq, Tk)

    Notes
    -----
    The causal mask hides the padding of the targets as well: it stands behind the words, and a word looks back only. What the
    decoder says at the padding's own places is not asked for. So <bos> may be the padding's id: a padding mask would hide it.

    Differs: article A also masks the padding in this place; its loss is the same.
    """
    table = params["embed"] if config.tie == "all" else params["tgt_embed"]
    x, embed = _embed_forward(inputs, table, _positions(params, "tgt", inputs.shape[1], config, table.dtype), config, rng)
    x, decoder = decoder_forward(
        x, memory, params["decoder"], mask=causal_mask(inputs.shape[1]),
        memory_mask=padding_mask(src, config.pad), rng=rng, **config.layer,
    )
    return x, {"embed": embed, "decoder": decoder}


def to_vocabulary(x, params, config):
    """x (..., D) -> logits (..., V), with a matrix of its own or the target's embedding; no softmax: the loss has it.

    Returns what `linear_forward` returns, so `linear_backward` is its backward.
    """
    if config.tie == "none":
        return linear_forward(x, **params["out"])
    table = params["embed"] if config.tie == "all" else params["tgt_embed"]
    return linear_forward(x, table.T, **params.get("out", {}))


def transformer_forward(src, targets, params, config, label_smoothing=0.0, rng=None):
    """The loss of a batch of sentence pairs, with teacher forcing.

    Parameters
    ----------
    src : integer ndarray of shape (B, Tk): words, <eos> if the data has it, padding
    targets : integer ndarray of shape (B, Tq): words, <eos>, padding
    params : tree of `transformer_init`
    config : TransformerConfig
    label_smoothing : float in [0, 1)
    rng : numpy.random.Generator, or None for no dropout

    Returns
    -------
    loss : scalar, mean cross entropy over the targets that are not padding; about ln V before training
    cache : dict; cache["logits"] (M, V) and cache["words"] (M,) are of the M targets that count, in reading order

    Raises
    ------
    ValueError
        where the shapes do not fit, or no target counts
    """
    if src.ndim != 2 or targets.ndim != 2 or len(src) != len(targets):
        raise ValueError(f"expected src (B, Tk) and targets (B, Tq), got {src.shape} and {targets.shape}")
    memory, encoder = encode(src, params, config, rng)
    x, decoder = decode(shift_right(targets, config.bos), memory, src, params, config, rng)
    rows = np.flatnonzero(targets != config.pad)                # the M places whose answer counts
    if not rows.size:
        raise ValueError(f"expected targets to hold words, got padding ({config.pad}) only")
    flat = x.reshape(-1, config.d_model)
    logits, vocabulary = to_vocabulary(flat[rows], params, config)                 # (M, V)
    words = targets.reshape(-1)[rows]
    loss, entropy = cross_entropy_forward(logits, words, label_smoothing=label_smoothing)
    return loss, {
        "encoder": encoder, "decoder": decoder, "rows": (rows, x.shape), "vocabulary": vocabulary, "entropy": entropy,
        "logits": logits, "words": words, "config": config,
    }


def transformer_backward(dloss, cache):
    """Gradient dparams of `transformer_forward`, in the tree of params, from the scalar dloss. Empties the cache on the way."""
    config = cache["config"]
    rows, shape = cache["rows"]
    dlogits = cross_entropy_backward(dloss, cache["entropy"])
    dflat, dw, db = linear_backward(dlogits, cache["vocabulary"])
    dx = np.zeros((shape[0] * shape[1], shape[2]), dflat.dtype)
    dx[rows] = dflat                                            # padding said nothing, and hears nothing
    dx, dmemory, ddecoder = decoder_backward(dx.reshape(shape), cache["decoder"]["decoder"])
    dtgt, dtgt_positions = _embed_backward(dx, cache["decoder"]["embed"], config)
    dx, dencoder = encoder_backward(dmemory, cache["encoder"]["encoder"])
    dsrc, dsrc_positions = _embed_backward(dx, cache["encoder"]["embed"], config)
    dparams = {}
    if config.tie == "all":
        dparams["embed"] = dsrc + dtgt + dw.T                   # one matrix, used in three places
    else:
        dparams["src_embed"] = dsrc
        dparams["tgt_embed"] = dtgt if config.tie == "none" else dtgt + dw.T
    dparams["encoder"], dparams["decoder"] = dencoder, ddecoder
    if config.tie == "none":
        dparams["out"] = {"w": dw, "b": db}
    elif config.output_bias:
        dparams["out"] = {"b": db}
    if config.position_encoding == "learned":
        dparams["src_positions"], dparams["tgt_positions"] = dsrc_positions, dtgt_positions
    return dparams
