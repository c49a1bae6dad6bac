"""Every gradient of this package, as cases for `gradcheck`: one or more for each op, block and model.

The sizes differ pairwise (which reveals a wrong axis), gamma is not 1 and beta not 0 (which reveals a gamma in the wrong
position), masks and dropout are on, ids repeat, some inputs are not contiguous. Arguments are differentiated, options are
constants.
"""
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from tinymae import blocks, init, tree
from tinymae.gradcheck.check import Row, gradcheck
from tinymae.models import mae, patch_encoder, transformer, vit
from tinymae.ops import (
    activation,
    attention,
    dropout,
    embedding,
    layernorm,
    linear,
    losses,
    memory_efficient_attention,
    patches,
    positional,
    softmax,
)

B, TQ, TK, D, H, F, V = 2, 3, 5, 12, 4, 7, 11
DK, DV = 2, 6                       # of one head: neither is D / H = 3, and they differ


@dataclass(frozen=True, eq=False)
class Check:
    """One pair of functions, and the arguments to call it with."""

    name: str
    function: Callable              # the forward of the package that is checked
    forward: Callable
    backward: Callable
    args: tuple
    options: dict
    samples: int | None = None      # elements to measure in each tensor; None for all


def checks(seed: int = 0) -> list[Check]:
    """All the cases, with float64 arrays drawn from the seed."""
    rng = np.random.default_rng(seed)
    return [*_op_checks(rng), *_block_checks(rng), *_model_checks(rng), *_transformer_checks(rng), *_vit_checks(rng)]


def run_checks(seed: int = 0) -> Iterator[tuple[Check, list[Row]]]:
    """Yield (Check, rows of `gradcheck`) for every case."""
    for check in checks(seed):
        yield check, gradcheck(
            check.forward, check.backward, *check.args, seed=seed, samples=check.samples, **check.options
        )


def _op_checks(rng):
    def x(*shape):
        return rng.normal(size=shape)

    def pair(name, module, *args, title=None, **options):
        forward, backward = getattr(module, f"{name}_forward"), getattr(module, f"{name}_backward")
        return Check(title or name, forward, forward, backward, args, options)

    attend = rng.random((B, 1, TQ, TK)) < 0.6
    attend[:, :, 0, 2] = True
    attend[1, 0, 1] = False         # one query that may attend to nothing
    q, k, v = x(B, H, TQ, DK), x(B, H, TK, DK), x(B, H, TK, DV)
    ids = np.array([[3, 1, 3], [0, 3, 1]])
    shuffled = np.stack([rng.permutation(TK) for _ in range(B)])
    gelus = [
        pair("gelu", activation, x(B, TQ, F), title=f"gelu, {form}", approximate=form) for form in ("none", "tanh")
    ]
    entropy = Check(
        "cross_entropy, smoothed, padded", losses.cross_entropy_forward, losses.cross_entropy_forward,
        losses.cross_entropy_backward, (x(B, TK, V),),
        {"targets": rng.integers(1, V, (B, TK)) * np.array([1, 1, 0, 1, 0]), "ignore_index": 0, "label_smoothing": 0.1},
    )
    return [
        pair("linear", linear, x(B, TQ, D), x(D, F), x(F)),
        pair("linear", linear, x(TQ, B, D).swapaxes(0, 1), x(F, D).T, title="linear, no bias, not contiguous"),
        Check(
            "embedding, repeated ids", embedding.embedding_forward,
            lambda table, ids: embedding.embedding_forward(ids, table), embedding.embedding_backward,
            (x(V, D),), {"ids": ids},
        ),
        pair("softmax", softmax, x(B, H, TQ, TK)),
        pair("softmax", softmax, x(B, H, TQ, TK), title="softmax, mask", mask=attend),
        pair("dropout", dropout, x(B, TQ, D), dropout=0.3, rng=1),
        pair("scaled_dot_product_attention", attention, q, k, v),
        pair(
            "scaled_dot_product_attention", attention, q, k, v,
            title="scaled_dot_product_attention, mask, dropout", mask=attend, dropout=0.3, rng=2,
        ),
        *(pair(
            "memory_efficient_attention", memory_efficient_attention, q, k, v,
            title=f"memory_efficient_attention, mask, tiles of {tile}", mask=attend, tile=tile,
        ) for tile in (1, 2, 3, TK)),
        pair("layernorm", layernorm, x(B, TQ, D), 1 + x(D), x(D)),
        pair("relu", activation, x(B, TQ, F)),
        *gelus,
        pair("swish", activation, x(B, TQ, F)),
        pair("patchify", patches, x(B, 4, 6, 3), patch_size=2),
        pair("gather", patches, x(B, TK, D), ids=ids),
        pair("unshuffle", patches, x(B, TQ, D), x(1, 1, D), ids_restore=shuffled),
        Check(
            "masked_mse", losses.masked_mse_forward,
            lambda pred, target, mask: losses.masked_mse_forward(pred, target, mask), losses.masked_mse_backward,
            (x(B, TK, D),), {"target": x(B, TK, D), "mask": np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1]])},
        ),
        entropy,
        Check(
            "soft_cross_entropy, smoothed", losses.soft_cross_entropy_forward, losses.soft_cross_entropy_forward,
            losses.soft_cross_entropy_backward, (x(B, TK, V),),
            {"targets": rng.dirichlet(np.ones(V), (B, TK)), "label_smoothing": 0.1},
        ),
        pair("positional", positional, x(B, TQ, D), x(TK, D)),
    ]


def perturbed(params: dict, rng: np.random.Generator) -> dict:
    """The tree with noise on every leaf, so that no gamma is 1 and no bias 0."""
    return tree.map(lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape), params)


def _block_checks(rng):
    x, y = rng.normal(size=(B, TQ, D)), rng.normal(size=(B, TK, D))
    causal = np.tri(TQ, dtype=bool)
    padding = np.ones((B, 1, 1, TK), bool)
    padding[1, ..., 3:] = False
    f64 = {"rng": rng, "dtype": np.float64}
    separate = perturbed(init.multi_head_attention(D, H, d_k=DK, d_v=DV, **f64), rng)
    no_bias = perturbed(init.multi_head_attention(D, H, bias=False, **f64), rng)
    fused = perturbed(init.multi_head_attention(D, H, fused=True, **f64), rng)
    no_out = perturbed(init.multi_head_attention(D, H, fused=True, out=False, **f64), rng)
    encoder = perturbed(init.encoder_layer(D, H, F, fused=True, **f64), rng)
    decoder = perturbed(init.decoder_layer(D, H, F, **f64), rng)
    stack = perturbed({"blocks": [init.encoder_layer(D, H, F, **f64) for _ in range(2)], "norm": init.layernorm(D)}, rng)
    decoders = {"blocks": [init.decoder_layer(D, H, F, d_k=DK, d_v=DV, **f64) for _ in range(2)], "norm": init.layernorm(D)}
    decoders = perturbed(decoders, rng)
    feed = perturbed(init.feed_forward(D, F, **f64), rng)

    def mha(name, p, *xs, **options):
        function = blocks.multi_head_attention_forward
        if len(xs) == 2:
            return Check(name, function, function, blocks.multi_head_attention_backward, (*xs, p), {"heads": H, **options})
        return Check(name, function, _self_attention_forward, _self_attention_backward, (*xs, p), {"heads": H, **options})

    def block(name, function, backward, *args, samples=None, **options):
        return Check(name, function, function, backward, args, options, samples)

    layers = []
    for norm in ("pre", "post"):
        for activate in ("relu", "gelu_tanh") if norm == "post" else ("gelu",):
            options = {"heads": H, "norm_first": norm == "pre", "activation": activate, "dropout": 0.2, "rng": 3}
            layers.append(block(
                f"encoder_layer, {norm}-norm, {activate}", blocks.encoder_layer_forward, blocks.encoder_layer_backward,
                y, encoder, mask=padding, **options,
            ))
            layers.append(block(
                f"decoder_layer, {norm}-norm, {activate}", blocks.decoder_layer_forward, blocks.decoder_layer_backward,
                x, y, decoder, mask=causal, memory_mask=padding, **options, samples=20,
            ))
    return [
        mha("multi_head_attention, self, causal", no_bias, x, mask=causal),
        mha("multi_head_attention, cross, d_k, d_v, mask, dropout", separate, x, y, mask=padding, dropout=0.3, rng=2),
        mha("multi_head_attention, fused, self", fused, y, mask=padding),
        mha("multi_head_attention, fused, cross", fused, x, y),
        mha("multi_head_attention, fused, no output projection", no_out, y, mask=padding, dropout=0.3, rng=2),
        *(block(f"feed_forward, {a}", blocks.feed_forward_forward, blocks.feed_forward_backward, x, feed,
                activation=a, dropout=0.2, rng=1) for a in ("relu", "gelu", "gelu_tanh", "swish")),
        *layers,
        *(Check(
            f"add_norm, {norm}-norm", blocks.add_norm_forward, _add_norm_forward, _add_norm_backward, (x, decoder["ln1"], feed),
            {"norm_first": norm == "pre", "dropout": 0.2, "rng": 5},
        ) for norm in ("pre", "post")),
        block("encoder", blocks.encoder_forward, blocks.encoder_backward, y, stack, heads=H, mask=padding,
              dropout=0.2, rng=4, samples=20),
        block("decoder", blocks.decoder_forward, blocks.decoder_backward, x, y, decoders, heads=H, mask=causal,
              memory_mask=padding, dropout=0.2, rng=4, samples=10),
    ]


def _add_norm_forward(x, norm, p, **options):
    return blocks.add_norm_forward(x, norm, lambda h: blocks.feed_forward_forward(h, p), **options)


def _add_norm_backward(dy, cache):
    return blocks.add_norm_backward(dy, cache, blocks.feed_forward_backward)


def _self_attention_forward(x, p, **options):
    return blocks.multi_head_attention_forward(x, x, p, **options)


def _self_attention_backward(dy, cache):
    dxq, dxkv, dp = blocks.multi_head_attention_backward(dy, cache)
    return dxq + dxkv, dp


def _model_checks(rng):
    config = mae.MAEConfig(
        img_size=(8, 12), patch_size=4, in_chans=2, embed_dim=D, depth=2, num_heads=3, decoder_embed_dim=8, decoder_depth=1,
        decoder_num_heads=2, mlp_ratio=1.5, mask_ratio=0.5,
    )
    normalised = replace(config, norm_pix_loss=True, mask_ratio=0.75)
    params = perturbed(mae.mae_init(config, rng, np.float64), rng)
    images, noise = rng.normal(size=(B, 8, 12, 2)), rng.random((B, 6))
    ids_keep, ids_restore, _ = mae.random_masking(noise, 0.5)
    positions, decoder_positions = config.position_tables(np.float64)
    latent = rng.normal(size=(B, 1 + ids_keep.shape[1], D))
    cut, _ = patches.patchify_forward(images, 4)
    return [
        Check(
            "vit_encoder, all patches, learned positions", patch_encoder.vit_encoder_forward,
            patch_encoder.vit_encoder_forward, patch_encoder.vit_encoder_backward,
            (cut, params["encoder"], positions), {"heads": 3}, 20,
        ),
        Check(
            "vit_encoder, visible patches", patch_encoder.vit_encoder_forward,
            patch_encoder.vit_encoder_forward, patch_encoder.vit_encoder_backward,
            (cut, params["encoder"], positions), {"heads": 3, "ids_keep": ids_keep}, 20,
        ),
        Check(
            "vit_encoder, dropout", patch_encoder.vit_encoder_forward,
            patch_encoder.vit_encoder_forward, patch_encoder.vit_encoder_backward,
            (cut, params["encoder"], positions), {"heads": 3, "dropout": 0.2, "rng": 6}, 20,
        ),
        Check(
            "mae_decoder", mae.mae_decoder_forward, mae.mae_decoder_forward, mae.mae_decoder_backward,
            (latent, params["decoder"]),
            {"ids_restore": ids_restore, "heads": 2, "positions": decoder_positions}, 20,
        ),
        *(Check(
            f"mae, {name}", mae.mae_forward,
            lambda params, images, **options: mae.mae_forward(images, params, **options), mae.mae_backward,
            (params,), {"images": images, "config": c, "noise": noise}, 10,
        ) for name, c in (("plain pixels", config), ("normalised pixels", normalised))),
    ]


def _transformer_checks(rng):
    base = transformer.TransformerConfig(
        src_vocab=V, tgt_vocab=V, d_model=D, encoder_layers=1, decoder_layers=2, heads=H, d_ff=F, dropout=0.2, max_len=8,
    )
    configs = {
        "post-norm, relu, one matrix": base,
        "pre-norm, gelu, two matrices, learned positions": replace(
            base, src_vocab=9, tie="output", norm_first=True, activation="gelu", position_encoding="learned"
        ),
        "post-norm, three matrices, no biases, d_k, d_v": replace(
            base, src_vocab=9, tie="none", final_norm=True, bias=False, d_k=DK, d_v=DV, position_encoding="halves"
        ),
        "post-norm, one matrix and a bias, starts with padding": replace(base, output_bias=True, bos=0),
    }
    src = rng.integers(3, 9, (B, TK)) * np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])        # padded with 0
    targets = rng.integers(3, V, (B, TQ)) * np.array([[1, 1, 0], [1, 1, 1]])
    return [
        Check(
            f"transformer, {name}", transformer.transformer_forward,
            lambda params, src, targets, **options: transformer.transformer_forward(src, targets, params, **options),
            transformer.transformer_backward, (perturbed(transformer.transformer_init(config, rng, np.float64), rng),),
            {"src": src, "targets": targets, "config": config, "label_smoothing": 0.1, "rng": 5}, 4,
        ) for name, config in configs.items()
    ]


def _vit_checks(rng):
    base = vit.ViTConfig(
        img_size=(8, 12), patch_size=4, in_chans=2, num_classes=V, embed_dim=D, depth=2, num_heads=3, mlp_ratio=1.5,
        dropout=0.2,
    )
    numbers, shares = rng.integers(0, V, B), rng.dirichlet(np.ones(V), B)
    cases = {
        "class token, learned positions": (base, numbers, 0.1),
        "mean, fixed positions, shares": (replace(base, pool="mean", position_encoding="fixed", head_dim=5), shares, 0.1),
        "one head, no output projection": (replace(base, num_heads=1, head_dim=D), numbers, 0.0),
    }
    images = rng.normal(size=(B, 8, 12, 2))
    return [
        Check(
            f"vit, {name}", vit.vit_forward,
            lambda params, images, labels, **options: vit.vit_forward(images, labels, params, **options), vit.vit_backward,
            (perturbed(vit.vit_init(config, rng, np.float64), rng),),
            {"images": images, "labels": labels, "config": config, "label_smoothing": smoothing, "rng": 7}, 10,
        ) for name, (config, labels, smoothing) in cases.items()
    ]
