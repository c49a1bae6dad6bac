"""One training step of a translating Transformer: tinymae and PyTorch eager, batches of 16 and 64 sentences.

    python benchmarks/translation_step.py [--rounds 5] [--threads 2] [--json FILE]

256 wide, 3 + 3 layers, 8 heads, feed forward 512, vocabularies of 7,801 and 5,959 words, 32 words on each side, post-norm,
dropout 0.1, AdamW.
"""
import numpy as np
from side_by_side import compare

from tinymae.models.transformer import TransformerConfig, transformer_backward, transformer_forward, transformer_init
from tinymae.train.optim import AdamW
from tinymae.train.parallel import Workers, micro_batches, value_and_grad

SOURCE, TARGET, LENGTH = 7801, 5959, 32
CONFIG = TransformerConfig(
    src_vocab=SOURCE, tgt_vocab=TARGET, d_model=256, encoder_layers=3, decoder_layers=3, heads=8, d_ff=512, tie="none",
)


def sentences(batch):
    rng = np.random.default_rng(0)
    return rng.integers(4, SOURCE, (batch, LENGTH)), rng.integers(4, TARGET, (batch, LENGTH))


def run_tinymae(batch, threads):
    rng = np.random.default_rng(0)
    params = transformer_init(CONFIG, rng)
    optimizer = AdamW(params, betas=(0.9, 0.98))
    src, targets = sentences(batch)
    pieces = micro_batches(batch, max(8, batch // 4))

    def part(job):
        child, piece = job
        share = (piece.stop - piece.start) / batch
        loss, cache = transformer_forward(src[piece], targets[piece], params, CONFIG, rng=child)
        return loss * share, transformer_backward(share, cache)

    with Workers(threads) as workers:
        while True:
            yield
            _, dparams = value_and_grad(part, list(zip(rng.spawn(len(pieces)), pieces, strict=True)), workers)
            optimizer.step(params, dparams, 1e-4)


def run_torch(batch, threads):
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    transformer = nn.Transformer(256, 8, 3, 3, 512, dropout=0.1, batch_first=True)
    model = nn.ModuleDict({
        "source": nn.Embedding(SOURCE, 256), "target": nn.Embedding(TARGET, 256), "transformer": transformer,
        "out": nn.Linear(256, TARGET),
    })
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()                        # makes its moments, as tinymae's has done already
    src, targets = (torch.from_numpy(side) for side in sentences(batch))
    causal = nn.Transformer.generate_square_subsequent_mask(LENGTH)
    positions = torch.randn(LENGTH, 256)
    while True:
        optimizer.zero_grad()
        yield
        inputs = torch.cat([torch.ones_like(targets[:, :1]), targets[:, :-1]], 1)
        x, y = (F.dropout(model[side](ids) * 16 + positions, 0.1) for side, ids in (("source", src), ("target", inputs)))
        logits = model["out"](transformer(x, y, tgt_mask=causal, tgt_is_causal=True))
        F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0).backward()
        optimizer.step()


if __name__ == "__main__":
    compare(
        __file__,
        {
            f"{name}, batch {batch}": lambda threads, run=run, batch=batch: run(batch, threads)
            for batch in (16, 64) for name, run in (("tinymae", run_tinymae), ("torch", run_torch))
        },
        [(f"tinymae, batch {batch}", f"torch, batch {batch}") for batch in (16, 64)],
    )
