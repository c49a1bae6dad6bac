"""The rows of the table: what one step is, and how tinymae does it. The other libraries do the same in their own files.

A side is a generator: up to its first `yield` it gets ready, and from each `yield` to the next it does one step. What it yields
is its answer (an array), or None. Everything that is kept from step to step, such as an optimiser's moments, is made before the
first `yield`, so that it counts as added memory on no side.
"""
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar
from unittest import mock

import numpy as np
from numpy.lib.stride_tricks import as_strided
from threadpoolctl import threadpool_limits

from tinymae import arguments, tree
from tinymae.models.decoding import beam_search, greedy
from tinymae.models.fine_tuning import layer_rates, vit_decays
from tinymae.models.mae import MAEConfig, mae_backward, mae_decays, mae_forward, mae_init, mae_reconstruct
from tinymae.models.transformer import TransformerConfig, transformer_backward, transformer_forward, transformer_init
from tinymae.models.vit import ViTConfig, vit_backward, vit_forward, vit_init, vit_logits
from tinymae.tasks.classify import at_a_time
from tinymae.train.optim import AdamW, clip_grad_norm
from tinymae.train.parallel import Workers, micro_batches, value_and_grad

MAE_32 = MAEConfig(
    img_size=32, patch_size=4, embed_dim=192, depth=6, num_heads=3, decoder_embed_dim=96, decoder_depth=2, decoder_num_heads=3,
    norm_pix_loss=True,
)
MAE_64 = MAEConfig(                     # the sizes of `tasks.restore.MAE_SIZES`, with as many patches as its crops have
    img_size=64, patch_size=8, embed_dim=128, depth=4, num_heads=4, decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=4,
)
VIT_B = ViTConfig()                     # ViT-B/16, 224 x 224, 1,000 classes
VIT_L = MAEConfig(embed_dim=1024, depth=24, num_heads=16)
SMALL_VIT = ViTConfig(                  # what `tasks.classify.classifier_settings` chooses for small colour images
    img_size=32, patch_size=4, num_classes=10, embed_dim=128, depth=4, num_heads=4, pool="mean", position_encoding="fixed",
)
LENGTH = 32                             # tokens of each sentence, on both sides
TRANSLATOR = TransformerConfig(
    src_vocab=7801, tgt_vocab=5959, d_model=256, encoder_layers=3, decoder_layers=3, heads=8, d_ff=512, tie="none",
)
SMOOTHING, LAYER_DECAY, MAX_NORM = 0.1, 0.75, 1.0               # of fine-tuning, as in `tasks.classify`
WEIGHTS = "TINYMAE_BENCHMARK_WEIGHTS"   # the variable that holds the path of ViT-L's file


@dataclass(frozen=True)
class Row:
    """One row: which kind of step, and its sizes."""

    title: str
    kind: str                           # a key of WORK, of `torch_sides.STEPS` and perhaps of `jax_sides.STEPS`
    config: object
    batch: int = 1
    beam: int = 1
    agree: float | None = None          # the fraction of the answer's numbers that must be those of tinymae


ROWS = {
    "mae": Row("MAE training step, 32 x 32, batch 64", "mae", MAE_32, 64),
    "mae-64": Row("MAE training step, 64 x 64, batch 32", "mae", MAE_64, 32),
    "vit": Row("ViT-B/16 forward, 224 x 224, batch 8", "vit", VIT_B, 8),
    "fine-tuning": Row("ViT fine-tuning step, 32 x 32, batch 64", "fine-tuning", SMALL_VIT, 64),
    "translation-16": Row("translation step, 16 sentences", "translation", TRANSLATOR, 16),
    "translation-64": Row("translation step, 64 sentences", "translation", TRANSLATOR, 64),
    "decoding-1": Row("greedy decoding, 1 sentence", "decoding", TRANSLATOR, 1, agree=0.99),
    "decoding-16": Row("greedy decoding, 16 sentences", "decoding", TRANSLATOR, 16, agree=0.99),
    "decoding-64": Row("greedy decoding, 64 sentences", "decoding", TRANSLATOR, 64, agree=0.99),
    "beam": Row("beam search of 4, 16 sentences", "decoding", TRANSLATOR, 16, beam=4, agree=0.99),
    "vit-large": Row("one image restored, MAE of ViT-L's size", "vit-large", VIT_L, agree=0.98),
}


# ---- inputs, the same on every side ------------------------------------------------------------------------------------

def images_of(config: MAEConfig | ViTConfig, batch: int) -> np.ndarray:
    """Images (batch, rows, cols, C) of random pixels."""
    return np.random.default_rng(0).normal(size=(batch, config.img_size, config.img_size, config.in_chans)).astype(np.float32)


def labels_of(config: ViTConfig, batch: int) -> np.ndarray:
    """Class numbers (batch,)."""
    return np.random.default_rng(1).integers(config.num_classes, size=batch)


def sentences_of(config: TransformerConfig, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Source and target ids (batch, LENGTH), without padding."""
    rng = np.random.default_rng(0)
    return rng.integers(4, config.src_vocab, (batch, LENGTH)), rng.integers(4, config.tgt_vocab, (batch, LENGTH))


def decoding_params(config: TransformerConfig) -> dict:
    """Parameters with which any mistake of a side changes its output. No sentence ends early: <eos> has a bias of -1e9."""
    rng = np.random.default_rng(0)
    params = transformer_init(config, rng)
    for _, leaf in tree.leaves(params):
        if leaf.ndim == 1:                                      # no bias is 0, no gamma 1
            leaf += rng.normal(0, 0.1, leaf.shape).astype(leaf.dtype)
    for p in params["decoder"]["blocks"]:                       # fresh layers would generate one token again and again
        for last in (p["self_attn"]["out"], p["cross_attn"]["out"], p["ffn"]["fc2"]):
            last["w"] *= 0.25
    params["out"]["b"][[config.pad, config.bos, config.eos]] = -1e9
    return params


def restoring_inputs(config: MAEConfig) -> tuple[np.ndarray, np.ndarray]:
    """An image (1, rows, cols, C), and noise (1, N) that hides its patches."""
    return images_of(config, 1), np.random.default_rng(1).random((1, config.num_patches))


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Pixels around 0 as whole numbers from 0 to 255."""
    return np.rint(np.clip(image * 32 + 128, 0, 255)).astype(np.uint8)


# ---- tinymae -----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Work:
    """A step of tinymae: `part` for each piece of the batch, and in training one step of the optimiser."""

    params: dict
    pieces: list[slice]
    part: Callable                      # part(params, rng, piece) -> (loss, dparams) in training, else an answer
    optimizer: Callable | None = None   # optimizer(params, mapped=...), or None
    max_norm: float | None = None       # gradients are clipped to it


def mae_work(row: Row) -> Work:
    config, images = row.config, images_of(row.config, row.batch)
    params = mae_init(config, np.random.default_rng(0))

    def part(params, rng, piece):
        share = len(images[piece]) / row.batch
        loss, cache = mae_forward(images[piece], params, config, rng.random((len(images[piece]), config.num_patches)))
        return loss * share, mae_backward(share, cache)

    optimizer = partial(AdamW, betas=(0.9, 0.95), weight_decay=0.05, decays=mae_decays(params))
    return Work(params, micro_batches(row.batch, 16), part, optimizer)


def vit_work(row: Row) -> Work:
    images = images_of(row.config, row.batch)
    return Work(
        vit_init(row.config, np.random.default_rng(0)), micro_batches(row.batch, at_a_time(row.config)),
        lambda params, rng, piece: vit_logits(images[piece], params, row.config),
    )


def fine_tuning_work(row: Row) -> Work:
    config, images, labels = row.config, images_of(row.config, row.batch), labels_of(row.config, row.batch)
    params = vit_init(config, np.random.default_rng(0))

    def part(params, rng, piece):
        share = len(images[piece]) / row.batch
        loss, cache = vit_forward(images[piece], labels[piece], params, config, label_smoothing=SMOOTHING, rng=rng)
        return loss * share, vit_backward(share, cache)

    rates = layer_rates(params, config, LAYER_DECAY)
    optimizer = partial(AdamW, weight_decay=0.05, decays=vit_decays(params), rates=rates)
    return Work(params, micro_batches(row.batch, 16), part, optimizer, MAX_NORM)


def translation_work(row: Row) -> Work:
    config, (src, targets) = row.config, sentences_of(row.config, row.batch)

    def part(params, rng, piece):
        share = len(src[piece]) / row.batch
        loss, cache = transformer_forward(src[piece], targets[piece], params, config, rng=rng)
        return loss * share, transformer_backward(share, cache)

    params = transformer_init(config, np.random.default_rng(0))
    return Work(params, micro_batches(row.batch, max(8, row.batch // 4)), part, partial(AdamW, betas=(0.9, 0.98)))


def decoding_work(row: Row) -> Work:
    config, src = row.config, sentences_of(row.config, row.batch)[0]
    decode = greedy if row.beam == 1 else partial(beam_search, beam=row.beam)
    return Work(
        decoding_params(config), micro_batches(row.batch, 32),          # as `Translator.translate` cuts sentences
        lambda params, rng, piece: decode(src[piece], params, config, max_len=LENGTH, attention=False).ids,
    )


def vit_large_work(row: Row) -> Work:
    from tinymae.weights.published import load_mae

    (images, noise), (config, params) = restoring_inputs(row.config), load_mae(os.environ[WEIGHTS])
    return Work(
        params, [slice(1)],
        lambda params, rng, piece: to_bytes(mae_reconstruct(images, params, config, noise).reconstruction),
    )


WORK = {
    "mae": mae_work, "vit": vit_work, "fine-tuning": fine_tuning_work, "translation": translation_work,
    "decoding": decoding_work, "vit-large": vit_large_work,
}


def tinymae_side(row: Row, threads: int) -> Iterator[np.ndarray | None]:
    """The steps of a row."""
    work, answer = WORK[row.kind](row), None
    rng = np.random.default_rng(0)

    def part(job):
        return work.part(work.params, *job)

    with _threads(work, threads) as workers:
        mapped = workers.map if workers else map
        optimizer = work.optimizer and work.optimizer(work.params, mapped=mapped)
        while True:
            yield answer
            jobs = list(zip(rng.spawn(len(work.pieces)), work.pieces, strict=True))
            if optimizer:
                _, dparams = value_and_grad(part, jobs, workers)
                if work.max_norm:
                    clip_grad_norm(dparams, work.max_norm)
                optimizer.step(work.params, dparams, 1e-4)
            else:
                answer = np.concatenate(list(mapped(part, jobs)))


@contextlib.contextmanager
def _threads(work, threads):
    """Workers for several pieces; None for a single one, and then BLAS has all threads."""
    with Workers(threads) if len(work.pieces) > 1 else threadpool_limits(threads, user_api="blas") as opened:
        yield opened if len(work.pieces) > 1 else None


# ---- the matrix products alone -----------------------------------------------------------------------------------------

class Recorded(np.ndarray):
    """An array that notes every matrix product it takes part in, and so do all arrays computed from it."""

    __array_priority__ = 1              # np.concatenate with plain arrays gives one of these
    products: ClassVar[list] = []       # (shape, strides) of both factors

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [x.view(np.ndarray) if isinstance(x, Recorded) else x for x in inputs]
        if out is not None:
            options["out"] = tuple(x.view(np.ndarray) if isinstance(x, Recorded) else x for x in out)
        if ufunc is np.matmul and min(x.ndim for x in plain) > 1:       # a product with a vector is a sum over rows
            Recorded.products.append([(x.shape, x.strides) for x in plain])
        result = getattr(ufunc, method)(*plain, **options)
        if out is not None:
            return out[0]
        return result.view(Recorded) if isinstance(result, np.ndarray) else result


def recorded_products(work: Work) -> list:
    """Shapes and strides of the factors of all matrix products in the first piece of a step."""
    allowed = (*arguments.ARRAYS, Recorded)                     # tinymae takes no subclass of ndarray, but here it has to
    modules = [module for module in list(sys.modules.values()) if getattr(module, "ARRAYS", None) is arguments.ARRAYS]
    Recorded.products.clear()
    with contextlib.ExitStack() as changes:
        for module in modules:
            changes.enter_context(mock.patch.object(module, "ARRAYS", allowed))
        zeros = np.zeros
        changes.enter_context(mock.patch.object(np, "zeros", lambda *sizes, **kind: zeros(*sizes, **kind).view(Recorded)))
        changes.enter_context(mock.patch.object(np, "ascontiguousarray", partial(np.asanyarray, order="C")))    # keeps the type
        work.part(tree.map(lambda leaf: leaf.view(Recorded), work.params), np.random.default_rng(0), work.pieces[0])
    return list(Recorded.products)


def products_side(row: Row, threads: int) -> Iterator[None]:
    """The matrix products of tinymae's step and nothing else, from arrays that exist into arrays that exist."""
    work = WORK[row.kind](row)

    def array(shape, strides):
        numbers = np.ones(1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) // 4, np.float32)
        return as_strided(numbers, shape, strides)

    factors = [(array(*a), array(*b)) for a, b in recorded_products(work)]
    jobs = [(a, b, a @ b) for a, b in factors]

    def part(_piece):
        for a, b, out in jobs:
            np.matmul(a, b, out=out)

    with _threads(work, threads) as workers:
        while True:
            yield
            list((workers.map if workers else map)(part, work.pieces))
