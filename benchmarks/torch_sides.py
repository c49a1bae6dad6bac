"""PyTorch's sides of the table, eager and through torch.compile. See `rows` for what a side is."""
import math
import os
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import rows
from tinymae import tree
from tinymae.ops.positional import sinusoidal_interleaved


def side(row: rows.Row, threads: int, compiled: bool) -> Iterator[np.ndarray | None]:
    """The steps of a row."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return STEPS[row.kind](row, torch.compile if compiled else eager)


def eager(it: Callable) -> Callable:
    """In place of torch.compile: nothing is compiled."""
    return it


class Layer(nn.Module):
    """A pre-norm encoder layer."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


def stack(depth: int, width: int, heads: int, norm: bool = True) -> nn.Sequential:
    """Layers, and a layer norm after them."""
    return nn.Sequential(*(Layer(width, heads) for _ in range(depth)), *([nn.LayerNorm(width, 1e-6)] if norm else []))


def patches_of(images, config):
    """(B, rows, cols, C) -> (B, N, P)."""
    side, size = config.patch_size, config.img_size // config.patch_size
    return images.unflatten(1, (size, side)).unflatten(3, (size, side)).transpose(2, 3).reshape(len(images), size * size, -1)


class MAE(nn.Module):
    """A masked autoencoder; its output is the loss."""

    def __init__(self, config):
        super().__init__()
        self.config, width, narrow = config, config.embed_dim, config.decoder_embed_dim
        self.embed, self.decoder_embed = nn.Linear(config.values, width), nn.Linear(width, narrow)
        self.cls_token, self.mask_token = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 1, narrow))
        self.register_buffer("positions", torch.randn(config.num_patches, width))
        self.register_buffer("decoder_positions", torch.randn(config.num_patches, narrow))
        self.encoder = stack(config.depth, width, config.num_heads)
        self.decoder = stack(config.decoder_depth, narrow, config.decoder_num_heads)
        self.pred = nn.Linear(narrow, config.values)

    def forward(self, images, noise):
        size, number = len(images), self.config.num_patches
        kept = int(number * (1 - self.config.mask_ratio))
        patches = patches_of(images, self.config)
        shuffle = noise.argsort(1)
        restore = shuffle.argsort(1)
        mask = (restore >= kept).float()
        x = self.embed(patches) + self.positions
        x = x.gather(1, shuffle[:, :kept, None].expand(-1, -1, x.shape[2]))
        x = self.decoder_embed(self.encoder(torch.cat([self.cls_token.expand(size, -1, -1), x], 1)))
        y = torch.cat([x[:, 1:], self.mask_token.expand(size, number - kept, -1)], 1)
        y = y.gather(1, restore[:, :, None].expand(-1, -1, y.shape[2])) + self.decoder_positions
        pred = self.pred(self.decoder(torch.cat([x[:, :1], y], 1))[:, 1:])
        target = patches
        if self.config.norm_pix_loss:
            target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6) ** 0.5
        return (((pred - target) ** 2).mean(-1) * mask).sum() / mask.sum()


class ViT(nn.Module):
    """A classifier; its output are the logits."""

    def __init__(self, config):
        super().__init__()
        self.config, width = config, config.embed_dim
        self.embed, self.cls_token = nn.Linear(config.values, width), nn.Parameter(torch.zeros(1, 1, width))
        positions = torch.randn(config.num_patches, width)
        if config.position_encoding == "learned":
            self.positions = nn.Parameter(positions)
        else:
            self.register_buffer("positions", positions)
        self.encoder = stack(config.depth, width, config.num_heads, norm=False)
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, config.num_classes)

    def forward(self, images):
        x = self.embed(patches_of(images, self.config)) + self.positions
        x = self.encoder(torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1))
        if self.config.pool == "token":
            return self.head(self.norm(x)[:, 0])
        return self.head(self.norm(x[:, 1:].mean(1)))


def training(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable, max_norm: float | None = None
) -> Iterator[None]:
    """Training steps of `loss()`."""
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()                        # makes its moments, as tinymae's has done already
    while True:
        optimizer.zero_grad()
        yield
        loss().backward()
        if max_norm:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()


def mae(row, compiled):
    model, images = MAE(row.config), torch.from_numpy(rows.images_of(row.config, row.batch))
    groups = [
        {"params": [p for p in model.parameters() if (p.ndim > 1) == decays], "weight_decay": 0.05 * decays}
        for decays in (True, False)
    ]
    forward = compiled(model)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95))
    return training(model, optimizer, lambda: forward(images, torch.rand(row.batch, row.config.num_patches)))


def vit(row, compiled):
    model, images = ViT(row.config), torch.from_numpy(rows.images_of(row.config, row.batch))
    forward = compiled(model)
    with torch.inference_mode():
        while True:
            yield
            forward(images)


def fine_tuning(row, compiled):
    config = row.config
    model, images = ViT(config), torch.from_numpy(rows.images_of(config, row.batch))
    labels = torch.from_numpy(rows.labels_of(config, row.batch))
    heights = [(model.embed, 0), *((layer, 1 + i) for i, layer in enumerate(model.encoder))]
    heights += [(model.norm, config.depth + 1), (model.head, config.depth + 1)]
    groups = [{"params": [model.cls_token], "weight_decay": 0.0, "lr": 1e-4 * rows.LAYER_DECAY ** (config.depth + 1)}]
    for module, height in heights:
        rate = 1e-4 * rows.LAYER_DECAY ** (config.depth + 1 - height)
        for decays in (True, False):
            params = [p for p in module.parameters() if (p.ndim > 1) == decays]
            if params:
                groups.append({"params": params, "weight_decay": 0.05 * decays, "lr": rate})
    forward = compiled(model)
    return training(
        model, torch.optim.AdamW(groups), lambda: F.cross_entropy(forward(images), labels, label_smoothing=rows.SMOOTHING),
        rows.MAX_NORM,
    )


class Translator(nn.Module):
    """nn.Transformer with what it leaves to its user; its output is the loss."""

    def __init__(self, config):
        super().__init__()
        self.config, width = config, config.d_model
        self.source, self.target = nn.Embedding(config.src_vocab, width), nn.Embedding(config.tgt_vocab, width)
        self.transformer = nn.Transformer(
            width, config.heads, config.encoder_layers, config.decoder_layers, config.d_ff, config.dropout, batch_first=True
        )
        self.out = nn.Linear(width, config.tgt_vocab)
        self.register_buffer("causal", nn.Transformer.generate_square_subsequent_mask(rows.LENGTH))
        self.register_buffer("positions", torch.randn(rows.LENGTH, width))

    def forward(self, src, targets):
        inputs = torch.cat([torch.full_like(targets[:, :1], self.config.bos), targets[:, :-1]], 1)
        x, y = (
            F.dropout(embedding(ids) * math.sqrt(self.config.d_model) + self.positions, self.config.dropout)
            for embedding, ids in ((self.source, src), (self.target, inputs))
        )
        logits = self.out(self.transformer(x, y, tgt_mask=self.causal, tgt_is_causal=True))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=self.config.pad)


def translation(row, compiled):
    model = Translator(row.config)
    src, targets = (torch.from_numpy(ids) for ids in rows.sentences_of(row.config, row.batch))
    forward = compiled(model)
    return training(model, torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98)), lambda: forward(src, targets))


def decoding(row, compiled):
    """Greedy decoding or beam search with a key/value cache.

    Keys and values are kept in arrays made once, queries, keys and values have one product, and the keys and values of the
    source are made once. The mask of padding and the search for finished sentences are there, though no sentence needs them.
    Eager, a token attends to the tokens so far. Compiled, shapes must not change from token to token, or each is compiled anew:
    it attends to all positions, behind a mask of those that are there.
    """
    fixed = compiled is not eager
    config, width, batch, beam = row.config, row.config.d_model, row.batch, row.beam
    params = tree.map(torch.from_numpy, rows.decoding_params(config))
    src = torch.from_numpy(rows.sentences_of(config, batch)[0])
    positions = torch.from_numpy(sinusoidal_interleaved(rows.LENGTH, width).astype(np.float32))

    def joined(*maps):
        """One linear map for several, its matrix (out, in) as in nn.Linear."""
        return torch.cat([p["w"].T for p in maps]).contiguous(), torch.cat([p["b"] for p in maps])

    def layer(p):
        own, cross = p.get("attn") or p["self_attn"], p.get("cross_attn")
        maps = {"qkv": joined(own["q"], own["k"], own["v"]), "out": joined(own["out"])}
        if cross:
            maps |= {"q": joined(cross["q"]), "kv": joined(cross["k"], cross["v"]), "cross_out": joined(cross["out"])}
        maps |= {name: joined(p["ffn"][name]) for name in ("fc1", "fc2")}
        return maps | {name: (p[name]["gamma"], p[name]["beta"]) for name in ("ln1", "ln2", "ln3") if name in p}

    encoder, decoder = ([layer(p) for p in params[side]["blocks"]] for side in ("encoder", "decoder"))
    source, target, vocabulary = params["src_embed"], params["tgt_embed"], joined(params["out"])
    del params

    def heads(x, w, b):
        """x (B, T, D) -> queries, keys, values, or some of them, each (B, H, T, d)."""
        return F.linear(x, w, b).unflatten(2, (-1, config.heads, width // config.heads)).permute(2, 0, 3, 1, 4)

    def add_attention(x, q, k, v, mask, out, norm):
        z = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)
        return F.layer_norm(x + F.linear(z, *out), x.shape[2:], *norm, config.eps)

    def add_feed_forward(x, p, norm):
        return F.layer_norm(x + F.linear(F.relu(F.linear(x, *p["fc1"])), *p["fc2"]), x.shape[2:], *norm, config.eps)

    @compiled
    def encode(mask):
        x = F.embedding(src, source) * math.sqrt(width) + positions
        for p in encoder:
            x = add_attention(x, *heads(x, *p["qkv"]), mask, p["out"], p["ln1"])
            x = add_feed_forward(x, p, p["ln2"])
        return [heads(x, *p["kv"]).repeat_interleave(beam, 1) for p in decoder]

    @compiled
    def next_logits(token, t, past, memory, mask):
        x = (F.embedding(token, target) * math.sqrt(width) + positions[t])[:, None]
        for p, kept, (k, v) in zip(decoder, past, memory, strict=True):
            new = heads(x, *p["qkv"])
            if fixed:
                seen = (torch.arange(rows.LENGTH) <= t)[None]             # t is a tensor (1,) here
                x = add_attention(x, new[0], *kept.index_copy_(3, t, new[1:]), seen, p["out"], p["ln1"])
            else:
                kept[:, :, :, t] = new[1:, :, :, 0]
                x = add_attention(x, new[0], *kept[:, :, :, : t + 1], None, p["out"], p["ln1"])
            x = add_attention(x, *heads(x, *p["q"]), k, v, mask, p["cross_out"], p["ln2"])
            x = add_feed_forward(x, p, p["ln3"])
        return F.linear(x[:, 0], *vocabulary)

    def step(token, t, *state):
        return next_logits(token, torch.tensor([t]) if fixed else t, *state)

    def start():
        mask = (src != config.pad)[:, None, None]
        past = [torch.zeros(2, beam * batch, config.heads, rows.LENGTH, width // config.heads) for _ in decoder]
        return encode(mask), past, mask.repeat_interleave(beam, 0), torch.full((beam * batch,), config.bos)

    def greedy():
        memory, past, mask, token = start()
        ids, running = torch.full((batch, rows.LENGTH), config.pad), torch.ones(batch, dtype=torch.bool)
        for t in range(rows.LENGTH):
            token = torch.where(running, step(token, t, past, memory, mask).argmax(1), config.pad)
            ids[:, t] = token
            running &= token != config.eos
            if not running.any():
                break
        return ids.numpy()

    def beam_search():
        memory, past, mask, token = start()
        ids = torch.full((batch * beam, rows.LENGTH), config.pad)
        total = torch.full((batch, beam), -math.inf)
        total[:, 0] = 0                                         # all beginnings are the same at first
        first = beam * torch.arange(batch)[:, None]
        for t in range(rows.LENGTH):
            log_probs = F.log_softmax(step(token, t, past, memory, mask), 1)
            scores = total[..., None] + log_probs.unflatten(0, (batch, beam))
            total, best = scores.flatten(1).topk(beam)
            chosen, token = (first + best // config.tgt_vocab).flatten(), (best % config.tgt_vocab).flatten()
            ids = ids[chosen]
            ids[:, t] = token
            for kept in past:
                kept[:, :, :, : t + 1] = kept[:, chosen, :, : t + 1]
            if (token == config.eos).all():
                break
        return ids[::beam].numpy()                              # the best is the first of each sentence

    answer = None
    with torch.inference_mode():
        while True:
            yield answer
            answer = greedy() if beam == 1 else beam_search()


def vit_large(row, compiled):
    images, noise = (torch.from_numpy(x) for x in rows.restoring_inputs(row.config))
    images = images.permute(0, 3, 1, 2).contiguous()
    params = torch.load(os.environ[rows.WEIGHTS], mmap=True, weights_only=True)["model"]

    def norm(x, p, name):
        return F.layer_norm(x, x.shape[2:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-6)

    def linear(x, p, name):
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    @compiled
    def layer(x, p):
        q, k, v = linear(norm(x, p, "norm1"), p, "attn.qkv").unflatten(2, (3, 16, -1)).permute(2, 0, 3, 1, 4)
        x = x + linear(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2), p, "attn.proj")
        return x + linear(F.gelu(linear(norm(x, p, "norm2"), p, "mlp.fc1")), p, "mlp.fc2")

    def layers(stack, depth):
        prefixes = [f"{stack}.{i}." for i in range(depth)]
        return [{name.removeprefix(it): p for name, p in params.items() if name.startswith(it)} for it in prefixes]

    encoder, decoder = layers("blocks", 24), layers("decoder_blocks", 8)

    def restore(p):
        x = F.conv2d(images, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=16).flatten(2).transpose(1, 2)
        x = x + p["pos_embed"][:, 1:]
        shuffle = noise.argsort(stable=True, dim=1)
        x = x.gather(1, shuffle[:, :49, None].expand(-1, -1, 1024))
        x = torch.cat([p["cls_token"] + p["pos_embed"][:, :1], x], 1)
        for each in encoder:
            x = layer(x, each)
        x = linear(norm(x, p, "norm"), p, "decoder_embed")
        y = torch.cat([x[:, 1:], p["mask_token"].expand(1, 147, -1)], 1)
        y = y.gather(1, shuffle.argsort(1)[:, :, None].expand(-1, -1, 512))
        x = torch.cat([x[:, :1], y], 1) + p["decoder_pos_embed"]
        for each in decoder:
            x = layer(x, each)
        pred = linear(norm(x, p, "decoder_norm"), p, "decoder_pred")[:, 1:]
        return pred.unflatten(1, (14, 14)).unflatten(3, (16, 16, 3)).transpose(2, 3).reshape(1, 224, 224, 3).numpy()

    answer = None
    with torch.inference_mode():
        while True:
            yield answer
            answer = rows.to_bytes(restore(params))


STEPS = {
    "mae": mae, "vit": vit, "fine-tuning": fine_tuning, "translation": translation, "decoding": decoding,
    "vit-large": vit_large,
}
