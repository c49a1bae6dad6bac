"""Encoder-decoder Transformer, token ids in, the loss out: Vaswani et al. 2017, section 3; articles A, C and D.

    source ids -> embedding * sqrt(D) + positions -> L encoder layers -> memory
    target ids, shifted right by one -> embedding * sqrt(D) + positions -> L decoder layers, which attend to memory
    -> linear to the vocabulary -> cross entropy with the target ids

Why sqrt(D): an embedding matrix that is also the output matrix starts with entries of size 1 / sqrt(D), so that logits start
near 1. Multiplied by sqrt(D), its rows are as large as the positions that are added to them.

The vocabulary matrix is the largest of all, so only positions with a real target are multiplied by it, never padding.

Differs: positions are added before dropout, as in the paper. nn.Transformer leaves embedding, positions and output to its
user, and puts a layer norm after both stacks even in post-norm (`final_norm`). The paper ties all three matrices
(`tie="all"`).
"""
import math
from dataclasses import dataclass

import numpy as np

from tinymae import init
from tinymae.arguments import check_scalars, check_settings
from tinymae.blocks import activation_pair, decoder_backward, decoder_forward, encoder_backward, encoder_forward
from tinymae.masks import causal_mask, padding_mask, shift_right
from tinymae.messages import marked, message
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
        if the sizes do not fit each other, or a setting has a value that is not allowed
    """

    src_vocab: int = 37000
    tgt_vocab: int = 37000
    d_model: int = 512                  # D
    encoder_layers: int = 6
    decoder_layers: int = 6
    heads: int = 8                      # H
    d_ff: int = 2048                    # F
    d_k: int | None = None              # of one head; D / H if None
    d_v: int | None = None
    dropout: float = 0.1
    norm_first: bool = False            # post-norm is the paper's
    final_norm: bool | None = None      # a layer norm after each stack; None: if norm_first
    activation: str = "relu"            # or "gelu", "gelu_tanh", "swish"
    bias: bool = True                   # in the projections of attention; article A has none
    eps: float = 1e-5
    tie: str = "all"                    # "all": one matrix for source, target, output; "output": target and output; "none"
    output_bias: bool = False           # for a tied output; with tie "none" the output always has a bias
    scale_embedding: bool = True        # multiply by sqrt(D)
    position_encoding: str = "interleaved"      # or "halves", "article_a", "learned"
    max_len: int = 512                  # number of learned positions
    pad: int = 0
    bos: int = 1                        # may equal pad, as in Marian's models
    eos: int = 2

    def __post_init__(self) -> None:
        check_settings(
            self, counts=("src_vocab", "tgt_vocab", "d_model", "heads", "d_ff", "d_k", "d_v", "max_len"), not_negative=("eps",),
            sizes=("encoder_layers", "decoder_layers", "pad", "bos", "eos"),
            switches=("norm_first", "final_norm", "bias", "output_bias", "scale_embedding"),
        )
        check_scalars("", "fraction", hint=marked("it is the fraction to drop, not to keep"), dropout=self.dropout)
        if self.decoder_layers < 1:
            raise ValueError(message(
                marked("expected at least one decoder layer, got {layers}: no other part attends to the source"),
                layers=self.decoder_layers,
            ))
        if self.tie not in ("all", "output", "none"):
            raise ValueError(f"expected tie 'all', 'output' or 'none', got {self.tie!r}")
        if self.tie == "all" and self.src_vocab != self.tgt_vocab:
            raise ValueError(
                f"expected one vocabulary for tie='all', got {self.src_vocab} and {self.tgt_vocab} tokens: tie='output' shares "
                "the target's matrix only"
            )
        if self.position_encoding not in (*POSITION_ENCODINGS, "learned"):
            known = ", ".join(POSITION_ENCODINGS)
            raise ValueError(f"expected position_encoding {known} or learned, got {self.position_encoding!r}")
        activation_pair(self.activation)                        # refuses an unknown one
        if self.d_model % self.heads and not (self.d_k and self.d_v):
            raise ValueError(message(
                marked("expected d_model to be a multiple of {heads} heads, got {width}: or give d_k, d_v"),
                heads=self.heads, width=self.d_model,
            ))

    @property
    def has_final_norm(self) -> bool:
        """final_norm, or norm_first if that is None."""
        return self.norm_first if self.final_norm is None else self.final_norm

    @property
    def layer(self) -> dict:
        """The options of every layer of both stacks."""
        return {
            "heads": self.heads, "norm_first": self.norm_first, "activation": self.activation, "dropout": self.dropout,
            "eps": self.eps,
        }


def transformer_init(config: TransformerConfig, rng: np.random.Generator | None, dtype: type = np.float32) -> dict:
    """Fresh parameters: xavier for the layers, normal with standard deviation D^-1/2 for embeddings.

    With rng=None all weights are zero: the shapes, without the draws.

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


def _embed_forward(side, ids, params, config, rng):
    """ids (B, T) -> (B, T, D): embedding * sqrt(D) + positions, then dropout."""
    x, lookup = embedding_forward(ids, embedding_table(side, params, config))
    if config.scale_embedding:
        x *= math.sqrt(config.d_model)
    x, positional = positional_forward(x, position_table(side, ids.shape[1], params, config))
    x, drop = dropout_forward(x, config.dropout, rng)
    return x, (lookup, positional, drop)


def _embed_backward(dx, cache, config):
    """Gradients (dtable, dpositions) of `_embed_forward`."""
    lookup, positional, drop = cache
    dx, dpositions = positional_backward(dropout_backward(dx, drop), positional)
    if config.scale_embedding:
        dx *= math.sqrt(config.d_model)
    return embedding_backward(dx, lookup), dpositions


def embedding_table(side: str, params: dict, config: TransformerConfig) -> np.ndarray:
    """The embedding matrix (V, D) of one side, "src" or "tgt"; with tie="all" both sides share one."""
    return params["embed" if config.tie == "all" else f"{side}_embed"]


def position_table(side: str, length: int, params: dict, config: TransformerConfig) -> np.ndarray:
    """The positions (at least length, D) of one side, "src" or "tgt": the learned ones, or a fixed table of their dtype."""
    if config.position_encoding == "learned":
        return params[f"{side}_positions"]
    dtype = embedding_table(side, params, config).dtype
    return POSITION_ENCODINGS[config.position_encoding](length, config.d_model).astype(dtype)


def encode(
    src: np.ndarray, params: dict, config: TransformerConfig, *, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, dict]:
    """The encoder: a vector for each source token, which has attended to all tokens of its sentence.

    Parameters
    ----------
    src : integer ndarray of shape (B, Tk), padded with config.pad
    params : tree of `transformer_init`
    rng : None for no dropout

    Returns
    -------
    memory : ndarray of shape (B, Tk, D)
    cache : dict; attention_weights(cache["encoder"]["blocks"][i]["attn"]["sublayer"]) is (B, H, Tk, Tk)
    """
    x, embed = _embed_forward("src", src, params, config, rng)
    memory, encoder = encoder_forward(x, params["encoder"], mask=padding_mask(src, config.pad), rng=rng, **config.layer)
    return memory, {"embed": embed, "encoder": encoder}


def decode(
    inputs: np.ndarray, memory: np.ndarray, src: np.ndarray, params: dict, config: TransformerConfig, *,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, dict]:
    """The decoder: a vector for each target position, from which `to_vocabulary` predicts the next token.

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
    The causal mask also hides the padding of the targets, which comes after the tokens: a token attends only to those before
    it. The outputs at padding positions are not used. So <bos> may have the id of the padding, which a padding mask would hide.

    Differs: article A also masks the padding here; its loss is the same.
    """
    x, embed = _embed_forward("tgt", inputs, params, config, rng)
    x, decoder = decoder_forward(
        x, memory, params["decoder"], mask=causal_mask(inputs.shape[1]),
        memory_mask=padding_mask(src, config.pad), rng=rng, **config.layer,
    )
    return x, {"embed": embed, "decoder": decoder}


def to_vocabulary(x: np.ndarray, params: dict, config: TransformerConfig) -> tuple[np.ndarray, tuple]:
    """x (..., D) -> logits (..., V), with its own matrix or the target's embedding. No softmax: the loss contains it.

    Returns what `linear_forward` returns, so `linear_backward` is its backward.
    """
    if config.tie == "none":
        return linear_forward(x, **params["out"])
    table = embedding_table("tgt", params, config)
    return linear_forward(x, table.T, params["out"]["b"] if config.output_bias else None)


def transformer_forward(
    src: np.ndarray, targets: np.ndarray, params: dict, config: TransformerConfig, *,
    label_smoothing: float = 0.0, rng: np.random.Generator | None = None,
) -> tuple[np.floating, dict]:
    """The loss of a batch of sentence pairs, with teacher forcing.

    Parameters
    ----------
    src : integer ndarray of shape (B, Tk): tokens, <eos> if the data has it, padding
    targets : integer ndarray of shape (B, Tq): tokens, <eos>, padding
    params : tree of `transformer_init`
    label_smoothing : in [0, 1)
    rng : None for no dropout

    Returns
    -------
    loss : scalar, mean cross entropy over the targets that are not padding; about ln V before training
    cache : dict; cache["logits"] (M, V) and cache["targets"] (M,) belong to the M targets that are not padding, row by row

    Raises
    ------
    ValueError
        if the shapes do not fit, or all targets are padding
    """
    if src.ndim != 2 or targets.ndim != 2 or len(src) != len(targets):
        raise ValueError(f"expected src (B, Tk) and targets (B, Tq), got {src.shape} and {targets.shape}")
    memory, encoder = encode(src, params, config, rng=rng)
    x, decoder = decode(shift_right(targets, config.bos), memory, src, params, config, rng=rng)
    rows = np.flatnonzero(targets != config.pad)                # the M positions whose target is not padding
    if not rows.size:
        raise ValueError(f"expected targets to hold tokens, got padding ({config.pad}) only")
    flat = x.reshape(-1, config.d_model)
    logits, vocabulary = to_vocabulary(flat[rows], params, config)                 # (M, V)
    targets = targets.reshape(-1)[rows]                                            # (M,)
    loss, entropy = cross_entropy_forward(logits, targets, label_smoothing=label_smoothing)
    return loss, {
        "encoder": encoder, "decoder": decoder, "rows": (rows, x.shape), "vocabulary": vocabulary, "entropy": entropy,
        "logits": logits, "targets": targets, "config": config,
    }


def transformer_backward(dloss: float, cache: dict) -> dict:
    """Gradient dparams of `transformer_forward`, in the tree of params, from dloss. The cache serves once: it is emptied."""
    config = cache["config"]
    rows, shape = cache["rows"]
    dlogits = cross_entropy_backward(dloss, cache["entropy"])
    dflat, dw, db = linear_backward(dlogits, cache["vocabulary"])
    dx = np.zeros((shape[0] * shape[1], shape[2]), dflat.dtype)
    dx[rows] = dflat                                            # padding positions predict nothing and receive no gradient
    dx, dmemory, ddecoder = decoder_backward(dx.reshape(shape), cache["decoder"]["decoder"])
    dtgt, dtgt_positions = _embed_backward(dx, cache["decoder"]["embed"], config)
    dx, dencoder = encoder_backward(dmemory, cache["encoder"]["encoder"])
    dsrc, dsrc_positions = _embed_backward(dx, cache["encoder"]["embed"], config)
    dparams = {}
    if config.tie == "all":
        dparams["embed"] = dsrc + dtgt + dw.T                   # one matrix, used three times
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
