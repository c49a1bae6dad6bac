"""One MAE training step: tinymae, PyTorch eager, its matrix products alone, and an encoder that sees mask tokens.

    python benchmarks/mae_step.py [--rounds 5] [--threads 2] [--json FILE]

The sides take turns, and a round's figure is the median of its steps; printed is the median of the rounds and of the ratios
round by round, so that a machine that slows down in between slows all sides. The products have their arrays beforehand: added
memory says nothing there.
"""
import numpy as np
from side_by_side import compare

from tinymae import tree
from tinymae.models.mae import MAEConfig, mae_backward, mae_forward, mae_init
from tinymae.train.optim import AdamW
from tinymae.train.parallel import Workers, micro_batches, value_and_grad

CONFIG = MAEConfig(
    img_size=32, patch_size=4, in_chans=3, embed_dim=192, depth=6, num_heads=3, decoder_embed_dim=96, decoder_depth=2,
    decoder_num_heads=3, mask_ratio=0.75, norm_pix_loss=True,
)
BATCH, MICRO_BATCH = 64, 16


def tinymae_steps(gradient, params, threads):
    """Training steps with `gradient(images, noise, share) -> (loss, dparams)`."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
    decays = tree.map(lambda leaf: leaf.ndim > 1, params)
    optimizer = AdamW(params, betas=(0.9, 0.95), weight_decay=0.05, decays=decays)
    with Workers(threads) as workers:
        while True:
            yield
            noise = rng.random((BATCH, 64))
            parts = [(images[s], noise[s], (s.stop - s.start) / BATCH) for s in micro_batches(BATCH, MICRO_BATCH)]
            _, dparams = value_and_grad(lambda part: gradient(*part), parts, workers)
            optimizer.step(params, dparams, 1e-3)


def run_tinymae(threads):
    params = mae_init(CONFIG, np.random.default_rng(0))

    def gradient(images, noise, share):
        loss, cache = mae_forward(images, params, CONFIG, noise)
        return loss * share, mae_backward(share, cache)

    return tinymae_steps(gradient, params, threads)


def run_mask_tokens(threads):
    """The paper's "encoder with mask tokens" (table 1c): every patch goes through the encoder, hidden ones as a token."""
    from trends import with_mask_tokens  # here: it brings Matplotlib, which would count as memory of every side

    params = mae_init(CONFIG, np.random.default_rng(0))
    params["encoder"]["mask_token"] = np.zeros((1, 1, CONFIG.embed_dim), np.float32)

    def gradient(images, noise, share):
        loss, dparams = with_mask_tokens(images, params, CONFIG, noise, share)
        return loss * share, dparams

    return tinymae_steps(gradient, params, threads)


def run_products(threads):
    """Only the matrix products of `run_tinymae`'s step, into arrays that are already there."""
    kept, number = 17, 65
    linears, attentions = [(MICRO_BATCH * 64, CONFIG.values, CONFIG.embed_dim)], []
    for layers, heads, width, tokens in ((6, 3, 192, kept), (2, 3, 96, number)):
        rows = MICRO_BATCH * tokens
        linears += layers * [(rows, width, n * width) for n in (1, 1, 1, 1, 4)] + layers * [(rows, 4 * width, width)]
        attentions += layers * [(MICRO_BATCH, heads, tokens, width // heads)]
    linears += [(MICRO_BATCH * kept, 192, 96), (MICRO_BATCH * 64, 96, CONFIG.values)]

    def arrays(*shapes):
        return [np.ones(shape, np.float32) for shape in shapes]

    def part(_):
        for x, w, y, dx, dw in linear_arrays:
            np.matmul(x, w, out=y)
            np.matmul(y, w.T, out=dx)
            np.matmul(x.T, y, out=dw)
        for q, k, v, weights, y, dq, dk, dv in attention_arrays:
            np.matmul(q, k.swapaxes(2, 3), out=weights)
            np.matmul(weights, v, out=y)
            np.matmul(weights.swapaxes(2, 3), y, out=dv)
            np.matmul(y, v.swapaxes(2, 3), out=weights)
            np.matmul(weights, k, out=dq)
            np.matmul(weights.swapaxes(2, 3), q, out=dk)

    linear_arrays = [arrays((m, i), (i, o), (m, o), (m, i), (i, o)) for m, i, o in linears]
    attention_arrays = [arrays(*[(b, h, t, d)] * 3, (b, h, t, t), *[(b, h, t, d)] * 4) for b, h, t, d in attentions]
    with Workers(threads) as workers:
        while True:
            yield
            list(workers.map(part, micro_batches(BATCH, MICRO_BATCH)))


def run_torch(threads):
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Layer(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.heads = heads
            self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))

    class MAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.decoder_embed = nn.Linear(48, 192), nn.Linear(192, 96)
            self.cls_token, self.mask_token = nn.Parameter(torch.zeros(1, 1, 192)), nn.Parameter(torch.zeros(1, 1, 96))
            self.register_buffer("positions", torch.randn(64, 192))
            self.register_buffer("decoder_positions", torch.randn(64, 96))
            self.encoder = nn.Sequential(*(Layer(192, 3) for _ in range(6)), nn.LayerNorm(192, 1e-6))
            self.decoder = nn.Sequential(*(Layer(96, 3) for _ in range(2)), nn.LayerNorm(96, 1e-6))
            self.pred = nn.Linear(96, 48)

        def forward(self, images, noise):
            size = len(images)
            patches = images.unflatten(1, (8, 4)).unflatten(3, (8, 4)).transpose(2, 3).reshape(size, 64, 48)
            shuffle = noise.argsort(1)
            restore = shuffle.argsort(1)
            mask = (restore >= 16).float()
            x = self.embed(patches) + self.positions
            x = x.gather(1, shuffle[:, :16, None].expand(-1, -1, 192))
            x = self.decoder_embed(self.encoder(torch.cat([self.cls_token.expand(size, -1, -1), x], 1)))
            y = torch.cat([x[:, 1:], self.mask_token.expand(size, 48, -1)], 1)
            y = y.gather(1, restore[:, :, None].expand(-1, -1, 96)) + self.decoder_positions
            pred = self.pred(self.decoder(torch.cat([x[:, :1], y], 1))[:, 1:])
            target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6) ** 0.5
            return (((pred - target) ** 2).mean(-1) * mask).sum() / mask.sum()

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, images = MAE(), torch.randn(BATCH, 32, 32, 3)
    decays = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decays, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()                        # makes its moments, as tinymae's has done already
    while True:
        optimizer.zero_grad()
        yield
        model(images, torch.rand(BATCH, 64)).backward()
        optimizer.step()


if __name__ == "__main__":
    compare(
        __file__,
        {"tinymae": run_tinymae, "torch": run_torch, "products": run_products, "mask tokens": run_mask_tokens},
        [("tinymae", "torch"), ("tinymae", "products"), ("mask tokens", "tinymae")],
    )
