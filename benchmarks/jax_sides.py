"""JAX's sides of the table: the models in plain jax.numpy, on tinymae's own parameter trees, each step one jitted function."""
import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import rows
from tinymae.models.fine_tuning import layer_rates, vit_decays
from tinymae.models.mae import mae_decays, mae_init
from tinymae.models.transformer import transformer_init
from tinymae.models.vit import vit_init, vit_positions
from tinymae.ops.positional import sinusoidal_interleaved


def side(row: rows.Row) -> Iterator[None]:
    """The steps of a row."""
    return STEPS[row.kind](row)


# ---- layers ------------------------------------------------------------------------------------------------------------

def linear(x, p):
    return x @ p["w"] + p["b"]


def layernorm(x, p, eps):
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + eps) * p["gamma"] + p["beta"]


def dropout(x, rate, key):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0) if rate else x


def attention(xq, xkv, p, heads, *, causal=False, rate=0.0, key=None):
    q, k, v = jnp.split(linear(xq, p["qkv"]), 3, -1) if "qkv" in p else (
        linear(x, p[name]) for x, name in ((xq, "q"), (xkv, "k"), (xkv, "v"))
    )
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2) for x in (q, k, v))
    scores = q @ k.swapaxes(2, 3) / math.sqrt(q.shape[3])
    if causal:
        scores = jnp.where(jnp.tri(scores.shape[2], dtype=bool), scores, -jnp.inf)
    z = dropout(jax.nn.softmax(scores), rate, key) @ v
    return linear(z.swapaxes(1, 2).reshape(xq.shape), p["out"])


def encoder(x, p, heads, eps):
    """Pre-norm layers, as in ViT and MAE."""
    for layer in p["blocks"]:
        h = layernorm(x, layer["ln1"], eps)
        x = x + attention(h, h, layer["attn"], heads)
        h = layernorm(x, layer["ln2"], eps)
        x = x + linear(jax.nn.gelu(linear(h, layer["ffn"]["fc1"]), approximate=False), layer["ffn"]["fc2"])
    return layernorm(x, p["norm"], eps) if "norm" in p else x


def patches_of(images, config):
    """(B, rows, cols, C) -> (B, N, P)."""
    rows, cols = config.grid
    side = config.patch_size
    x = images.reshape(len(images), rows, side, cols, side, -1).swapaxes(2, 3)
    return x.reshape(len(images), rows * cols, -1)


def with_class_token(x, p):
    return jnp.concatenate([jnp.broadcast_to(p["cls_token"], (len(x), 1, x.shape[2])), x], 1)


# ---- models ------------------------------------------------------------------------------------------------------------

def mae_loss(params, images, noise, config):
    p, q = params["encoder"], params["decoder"]
    positions, decoder_positions = config.position_tables()
    number, kept = config.num_patches, int(config.num_patches * (1 - config.mask_ratio))
    patches = patches_of(images, config)
    shuffle = jnp.argsort(noise, 1)
    restore = jnp.argsort(shuffle, 1)
    mask = restore >= kept
    x = jnp.take_along_axis(linear(patches, p["patch_embed"]) + positions, shuffle[:, :kept, None], 1)
    x = linear(encoder(with_class_token(x, p), p, config.num_heads, config.eps), q["embed"])
    hidden = jnp.broadcast_to(q["mask_token"], (len(x), number - kept, x.shape[2]))
    y = jnp.take_along_axis(jnp.concatenate([x[:, 1:], hidden], 1), restore[:, :, None], 1) + decoder_positions
    x = encoder(jnp.concatenate([x[:, :1], y], 1), q, config.decoder_num_heads, config.eps)
    target = patches
    if config.norm_pix_loss:
        target = (patches - patches.mean(-1, keepdims=True)) / jnp.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)
    return (((linear(x[:, 1:], q["pred"]) - target) ** 2).mean(-1) * mask).sum() / mask.sum()


def vit_logits(params, images, config):
    positions = params["positions"] if config.position_encoding == "learned" else vit_positions(params, config)
    x = linear(patches_of(images, config), params["encoder"]["patch_embed"]) + positions
    x = encoder(with_class_token(x, params["encoder"]), params["encoder"], config.num_heads, config.eps)
    pooled = x[:, 0] if config.pool == "token" else layernorm(x[:, 1:].mean(1), params["fc_norm"], config.eps)
    return linear(pooled, params["head"])


def cross_entropy(logits, labels, smoothing=0.0):
    log_probs = jax.nn.log_softmax(logits)
    right = jnp.take_along_axis(log_probs, labels[..., None], -1)[..., 0]
    return -((1 - smoothing) * right + smoothing * log_probs.mean(-1)).mean()


def translation_loss(params, src, targets, key, config):
    keys = iter(jax.random.split(key, 2 + 4 * config.encoder_layers + 6 * config.decoder_layers))     # each used once
    positions = sinusoidal_interleaved(rows.LENGTH, config.d_model).astype(np.float32)

    def drop(x):
        return dropout(x, config.dropout, next(keys))

    def embed(ids, table):
        return drop(table[ids] * math.sqrt(config.d_model) + positions)

    def add_attention(x, xkv, p, norm, causal=False):
        y = attention(x, xkv, p, config.heads, causal=causal, rate=config.dropout, key=next(keys))
        return layernorm(x + drop(y), norm, config.eps)

    def add_feed_forward(x, p, norm):
        y = linear(drop(jax.nn.relu(linear(x, p["fc1"]))), p["fc2"])
        return layernorm(x + drop(y), norm, config.eps)

    x = embed(src, params["src_embed"])
    for p in params["encoder"]["blocks"]:
        x = add_attention(x, x, p["attn"], p["ln1"])
        x = add_feed_forward(x, p["ffn"], p["ln2"])
    inputs = jnp.concatenate([jnp.full_like(targets[:, :1], config.bos), targets[:, :-1]], 1)
    y = embed(inputs, params["tgt_embed"])
    for p in params["decoder"]["blocks"]:
        y = add_attention(y, y, p["self_attn"], p["ln1"], causal=True)
        y = add_attention(y, x, p["cross_attn"], p["ln2"])
        y = add_feed_forward(y, p["ffn"], p["ln3"])
    return cross_entropy(linear(y, params["out"]), targets)


# ---- steps -------------------------------------------------------------------------------------------------------------

def adamw(params, grads, m, v, t, decays, rates, *, lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Equations (1) to (3) of `tinymae.train.optim`: (params, m, v)."""
    m = jax.tree.map(lambda m, g: betas[0] * m + (1 - betas[0]) * g, m, grads)
    v = jax.tree.map(lambda v, g: betas[1] * v + (1 - betas[1]) * g * g, v, grads)

    def move(p, m, v, decay, rate):
        step = m / (1 - betas[0] ** t) / (jnp.sqrt(v / (1 - betas[1] ** t)) + eps)
        return p - lr * rate * (weight_decay * decay * p + step)

    return jax.tree.map(move, params, m, v, decays, rates), m, v


def training(
    params: dict, loss: Callable, inputs: Callable, *, decays: dict | None = None, rates: dict | None = None,
    max_norm: float | None = None, **options,
) -> Iterator[None]:
    """Training steps of loss(params, *inputs()), compiled before the first."""
    decays = decays or jax.tree.map(lambda _: True, params)
    rates = rates or jax.tree.map(lambda _: 1.0, params)

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params, m, v, t, *inputs):
        value, grads = jax.value_and_grad(loss)(params, *inputs)
        if max_norm:
            norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads)))
            grads = jax.tree.map(lambda g: g * jnp.minimum(1, max_norm / (norm + 1e-6)), grads)
        return value, *adamw(params, grads, m, v, t, decays, rates, **options)

    state = jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params)
    t = 0
    while True:
        yield
        t += 1
        value, *state = step(*state, float(t), *inputs())
        jax.block_until_ready((value, state))


def mae(row):
    config, rng, images = row.config, np.random.default_rng(0), jnp.asarray(rows.images_of(row.config, row.batch))
    params = mae_init(config, rng)
    return training(
        params, partial(mae_loss, config=config), lambda: (images, rng.random((row.batch, config.num_patches), np.float32)),
        decays=mae_decays(params), betas=(0.9, 0.95), weight_decay=0.05,
    )


def vit(row):
    params = jax.tree.map(jnp.asarray, vit_init(row.config, np.random.default_rng(0)))
    images = jnp.asarray(rows.images_of(row.config, row.batch))
    forward = jax.jit(partial(vit_logits, config=row.config))
    while True:
        yield
        forward(params, images).block_until_ready()


def fine_tuning(row):
    config = row.config
    params = vit_init(config, np.random.default_rng(0))
    images, labels = jnp.asarray(rows.images_of(config, row.batch)), jnp.asarray(rows.labels_of(config, row.batch))
    return training(
        params, lambda params, images, labels: cross_entropy(vit_logits(params, images, config), labels, rows.SMOOTHING),
        lambda: (images, labels), decays=vit_decays(params), rates=layer_rates(params, config, rows.LAYER_DECAY),
        weight_decay=0.05, max_norm=rows.MAX_NORM,
    )


def translation(row):
    src, targets = map(jnp.asarray, rows.sentences_of(row.config, row.batch))
    keys = itertools.count()
    return training(
        transformer_init(row.config, np.random.default_rng(0)), partial(translation_loss, config=row.config),
        lambda: (src, targets, jax.random.key(next(keys), impl="rbg")),         # JAX's faster generator
        betas=(0.9, 0.98),
    )


STEPS = {"mae": mae, "vit": vit, "fine-tuning": fine_tuning, "translation": translation}
