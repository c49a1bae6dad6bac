"""Marian's translators, in the folders that Hugging Face publishes (opus-mt and others): weights, and text to ids and back.

    model.safetensors or pytorch_model.bin      the weights, and config.json their sizes: load_marian(folder)
    source.spm, target.spm, vocab.json          text -> subwords -> ids, and back: MarianTokenizer(folder), by SentencePiece

The model is our Transformer with post-norm, one matrix for source, target and output, a bias on the output, and positions that
are all sines, then all cosines. Every sentence starts with <pad>, so `bos` is `pad`. PyTorch's matrices are (out, in), ours are
their transposes: views of the file, nothing is copied.

Differs: greedy decoding gives the tokens that `transformers` gives. Its beam search has different rules (the score is
log p / length^penalty; hypotheses are followed until none can win), it may force </s> as the last token, and it normalises
punctuation before the tokenizer if sacremoses is installed; none of this is done here. It has no gradient for the embedding of
<pad>; here that embedding is trained, since every sentence starts with it.
"""
import re
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from tinymae import tree
from tinymae.messages import message as _
from tinymae.models.decoding import beam_search, greedy
from tinymae.models.transformer import TransformerConfig, transformer_init
from tinymae.ops.positional import sinusoidal_halves
from tinymae.text.batches import pad_batch
from tinymae.weights.inspect import read_json, read_published

TABLES = (                                                      # one matrix under four names; a file has one or all of them
    "model.shared.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight",
)
POSITION_TENSORS = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")     # fixed; in old files
ENCODER = {"ln1": "self_attn_layer_norm", "attn": "self_attn", "ln2": "final_layer_norm"}
DECODER = {
    "ln1": "self_attn_layer_norm", "ln2": "encoder_attn_layer_norm", "cross_attn": "encoder_attn", "ln3": "final_layer_norm",
}
PARTS = {
    "q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "out_proj", "w": "weight", "b": "bias", "gamma": "weight",
    "beta": "bias",
}
ACTIVATION_NAMES = {"swish": "swish", "silu": "swish", "relu": "relu", "gelu": "gelu"}
SIZES = (
    "vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads",
    "encoder_ffn_dim", "decoder_ffn_dim",
)
IDS = ("pad_token_id", "decoder_start_token_id", "eos_token_id")


def load_marian(folder: Path | str, *, dtype: DTypeLike = np.float32) -> tuple[TransformerConfig, dict]:
    """A published translation model as ours.

    Parameters
    ----------
    folder : with config.json and model.safetensors or pytorch_model.bin
    dtype : of the parameters, float32 or float64; files in half precision are widened

    Returns
    -------
    config : TransformerConfig; config.bos is config.pad, with which these models start a sentence
    params : tree of `models.transformer.transformer_init`; views of the file if it has that dtype

    Raises
    ------
    FileNotFoundError
        if a file is missing
    ValueError
        if config.json is not of such a model, or does not fit the weights; the message names the key or the tensor
    """
    folder = Path(folder)
    _demand(folder / "config.json")
    weights, given = read_published(folder)
    try:
        config = _config(given, "final_logits_bias" in weights.tensors)
        return config, _params(config, weights.tensors, dtype)
    except ValueError as error:
        raise ValueError(_("{folder} (config.json and weights): {error}", folder=folder, error=error)) from error


def _config(given, output_bias):
    """TransformerConfig of a config.json (dict)."""
    if given.get("model_type") != "marian":
        raise ValueError(_("expected model_type 'marian', got {got!r}: only Marian's models are supported",
                           got=given.get("model_type")))
    needed = (*SIZES, *IDS, "activation_function", "scale_embedding")
    if missing := [key for key in needed if key not in given]:
        raise ValueError(_("expected the keys {needed}; {missing} is missing", needed=", ".join(needed), missing=missing[0]))
    for keys, least in ((SIZES, 1), (IDS, 0)):
        for key in keys:
            if type(given[key]) is not int or given[key] < least:
                raise ValueError(_("expected {key} to be an integer of at least {least}, got {got!r}",
                                   key=key, least=least, got=given[key]))
    for key in IDS:
        if given[key] >= given["vocab_size"]:
            raise ValueError(_("expected {key} below vocab_size {size}, got {got}",
                               key=key, size=given["vocab_size"], got=given[key]))
    for key in ("attention_heads", "ffn_dim"):
        if given[f"encoder_{key}"] != given[f"decoder_{key}"]:
            raise ValueError(_("expected encoder_{key} and decoder_{key} to be equal, got {encoder} and {decoder}: our "
                               "encoder and decoder have one size",
                               key=key, encoder=given[f"encoder_{key}"], decoder=given[f"decoder_{key}"]))
    if given["activation_function"] not in ACTIVATION_NAMES:
        raise ValueError(_("expected activation_function to be one of {names}, got {got!r}",
                           names=", ".join(ACTIVATION_NAMES), got=given["activation_function"]))
    if type(given["scale_embedding"]) is not bool:
        raise ValueError(_("expected scale_embedding to be true or false, got {got!r}", got=given["scale_embedding"]))
    if type(given.get("dropout", 0.1)) not in (int, float) or not 0 <= given.get("dropout", 0.1) < 1:
        raise ValueError(_("expected dropout to be a number in [0, 1), got {got!r}", got=given["dropout"]))
    if given.get("static_position_embeddings", True) is not True:
        raise ValueError(_("expected static_position_embeddings to be true, got {got!r}: Marian's published models have sines "
                           "and cosines, learned positions are another model", got=given["static_position_embeddings"]))
    if given.get("normalize_before"):
        raise ValueError(_("expected normalize_before to be false: Marian's published models are post-norm"))
    return TransformerConfig(
        src_vocab=given["vocab_size"], tgt_vocab=given["vocab_size"], d_model=given["d_model"],
        encoder_layers=given["encoder_layers"], decoder_layers=given["decoder_layers"],
        heads=given["encoder_attention_heads"], d_ff=given["encoder_ffn_dim"], dropout=given.get("dropout", 0.1),
        activation=ACTIVATION_NAMES[given["activation_function"]], output_bias=output_bias,
        scale_embedding=given["scale_embedding"], position_encoding="halves", pad=given["pad_token_id"],
        bos=given["decoder_start_token_id"], eos=given["eos_token_id"],
    )


def _params(config, tensors, dtype):
    """The tensors as our tree."""
    tables = [name for name in TABLES if name in tensors]
    if not tables:
        raise ValueError(_("expected the tensor {name}, the embedding matrix: is this a MarianMTModel?", name=TABLES[0]))
    # Before memory is allocated for the sizes in config.json, the file must have these sizes.
    _check(tables[0], tensors[tables[0]], (config.tgt_vocab, config.d_model))
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        for i in reversed(range(layers)):                       # ends at the first that is missing
            name = f"model.{side}.layers.{i}.fc1.weight"
            if name not in tensors:
                raise ValueError(_("expected the tensor {name}, since {side}_layers is {layers}: the file has fewer",
                                   name=name, side=side, layers=layers))
            _check(name, tensors[name], (config.d_ff, config.d_model))
    for name in tables[1:]:
        if not np.array_equal(tensors[name], tensors[tables[0]]):
            raise ValueError(_("{name} is not {table}: expected one matrix for source, target and output",
                               name=name, table=tables[0]))
    for name in POSITION_TENSORS:
        if name in tensors and not _are_halves(tensors[name], config.d_model):
            raise ValueError(_("{name}: expected fixed positions, all sines, then all cosines, got a different table",
                               name=name))

    like = transformer_init(config, None, tree.NO_BYTES)      # the shapes alone
    expected = dict(tree.leaves(like))
    names = {path: _name(path, tables[0]) for path in expected}
    if missing := [name for name in names.values() if name not in tensors]:
        raise ValueError(_("{count} of {names} tensors are missing, the first is {missing}",
                           count=len(missing), names=len(names), missing=missing[0]))
    if extra := sorted(tensors.keys() - {*names.values(), *TABLES, *POSITION_TENSORS}):
        raise ValueError(_("{count} tensors do not belong to the model, the first is {extra}: another config.json?",
                           count=len(extra), extra=extra[0]))
    flat = {}
    for path, leaf in expected.items():
        name, shape = names[path], leaf.shape
        if not np.isfinite(tensors[name]).all():
            raise ValueError(_("{name} is not finite: damaged, or training diverged", name=name))
        if path == "out.b":
            _check(name, tensors[name], (1, *shape))
            flat[path] = np.asarray(tensors[name][0], dtype)
        else:
            _check(name, tensors[name], shape[::-1] if path.endswith(".w") else shape)
            flat[path] = np.asarray(tensors[name], dtype)
            if path.endswith(".w"):
                flat[path] = flat[path].T                       # PyTorch's (out, in) -> (in, out)
    return tree.unflatten(flat, like)


def _name(path, table):
    """Their name for a path in our tree: encoder.blocks.0.attn.q.w -> model.encoder.layers.0.self_attn.q_proj.weight."""
    if path in ("embed", "out.b"):
        return table if path == "embed" else "final_logits_bias"
    side, _blocks, i, *parts = path.split(".")
    names = PARTS | (ENCODER if side == "encoder" else DECODER)
    return ".".join(["model", side, "layers", i, *(names.get(part, part) for part in parts if part != "ffn")])


def _check(name, tensor, shape):
    if tensor.shape != shape or tensor.dtype.kind != "f":
        raise ValueError(_("expected {name} to be floats {shape}, got {dtype} {got}",
                           name=name, shape=shape, dtype=tensor.dtype, got=tensor.shape))


def _are_halves(table, width):
    """Whether a stored table (T, D) is ours, up to rounding to half precision."""
    if table.ndim != 2 or table.shape[1] != width:
        return False
    return bool(np.abs(table - sinusoidal_halves(*table.shape)).max() < 1e-3)


def _demand(path):
    if not path.is_file():
        raise FileNotFoundError(_("{path} is missing: a Marian folder has config.json, vocab.json, source.spm, target.spm and "
                                  "the weights", path=path))


def parse_ids(text: str, config: TransformerConfig) -> list[int]:
    """A sentence given as numbers, "12 45 7" -> [12, 45, 7, 0]: </s> is appended if it is missing.

    Raises
    ------
    ValueError
        if something is not a number, or not the id of a token
    """
    ids = []
    for word in text.split():
        if not re.fullmatch(r"\d{1,9}", word, re.ASCII) or int(word) >= config.src_vocab or int(word) == config.pad:
            raise ValueError(_("expected ids from 0 to {most} and not {pad}, <pad>; got {word!r}",
                               most=config.src_vocab - 1, pad=config.pad, word=word))
        ids.append(int(word))
    return ids if ids[-1:] == [config.eos] else [*ids, config.eos]


def translate_ids(
    sources: list[list[int]], params: dict, config: TransformerConfig, *, beam: int = 1, rows: int = 16,
) -> list[list[int]]:
    """Translate sentences of ids; sentences of similar length go through the model together.

    Parameters
    ----------
    sources : each ends in </s>, as from `MarianTokenizer.encode` or `parse_ids`
    params, config : from `load_marian`
    beam : 1 is greedy
    rows : sentences in a batch; each needs memory for beam times the vocabulary

    Returns
    -------
    the translations without </s>, in the order of the sources; each is what its source gives alone. One that does not end is
    cut off at twice the number of ids in its source and ten
    """
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    found = [None] * len(sources)
    for start in range(0, len(order), rows):
        batch = order[start : start + rows]
        src = pad_batch([sources[i] for i in batch], config.pad)
        searched = greedy if beam == 1 else partial(beam_search, beam=beam)
        decoded = searched(src, params, config, attention=False)
        for i, ids in zip(batch, decoded.ids.tolist(), strict=True):
            found[i] = [token for token in ids if token not in (config.eos, config.pad)]
    return found


class MarianTokenizer:
    """Text to ids and back, by SentencePiece: the extra `interop`.

    Parameters
    ----------
    folder : with vocab.json, source.spm and target.spm

    Raises
    ------
    ImportError
        if sentencepiece is not installed
    FileNotFoundError, ValueError
        if a file is missing, or is not what its name says
    """

    def __init__(self, folder: Path | str):
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise ImportError(_(
                'text needs sentencepiece: python -m pip install -e ".[interop]" (ids, with --tokens, do not)'
            )) from error
        folder = Path(folder)
        for name in ("vocab.json", "source.spm", "target.spm"):
            _demand(folder / name)
        self.ids = read_json(folder / "vocab.json")
        if missing := [subword for subword in ("</s>", "<unk>", "<pad>") if subword not in self.ids]:
            raise ValueError(_("{path}: expected subwords with their ids, {missing} is missing",
                               path=folder / "vocab.json", missing=missing[0]))
        if strange := [i for i in self.ids.values() if type(i) is not int]:
            raise ValueError(_("{path}: expected subwords with their ids, got {strange!r}",
                               path=folder / "vocab.json", strange=strange[0]))
        self.words = {i: subword for subword, i in self.ids.items()}
        if len(self.words) < len(self.ids):
            raise ValueError(_("{path}: expected {count} different ids, got {found}: damaged",
                               path=folder / "vocab.json", count=len(self.ids), found=len(self.words)))
        models = []
        for name in ("source.spm", "target.spm"):
            try:
                models.append(SentencePieceProcessor(model_file=str(folder / name)))
            except RuntimeError as error:
                raise ValueError(_("{path} is not a SentencePiece model: {error}", path=folder / name, error=error)) from error
        self.source, self.target = models

    def pieces(self, text: str) -> list[str]:
        """The subwords (SentencePiece: pieces) of a sentence; a language code in front, >>fra<<, is one."""
        code, text = re.fullmatch(r"(>>.*?<<)?(.*)", text, re.DOTALL).groups()
        return ([code] if code else []) + self.source.encode(text, out_type=str)

    def unknown(self, text: str) -> list[str]:
        """The subwords of a sentence that are not in the vocabulary; `encode` gives them the id of <unk>."""
        return [piece for piece in self.pieces(text) if piece not in self.ids]

    def encode(self, text: str) -> list[int]:
        """Ids of a sentence of the source language, then that of </s>."""
        return [self.ids.get(piece, self.ids["<unk>"]) for piece in self.pieces(text)] + [self.ids["</s>"]]

    def decode(self, ids: list[int]) -> str:
        """The sentence of the target language with these ids; </s> and <pad> are left out."""
        if strange := [i for i in ids if i not in self.words]:
            raise ValueError(_("expected ids of vocab.json, got {strange}: is it another model's vocabulary?",
                               strange=strange[0]))
        pieces = [self.words[i] for i in ids if self.words[i] not in ("</s>", "<pad>")]
        return self.target.decode_pieces(pieces).replace("\u2581", " ").strip()
