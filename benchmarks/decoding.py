"""Greedy decoding with a key/value cache: tinymae and PyTorch eager, 32 source words, 32 said words, batches of 1, 16 and 64.

    python benchmarks/decoding.py [--rounds 5] [--steps 12] [--threads 2] [--json FILE]

256 wide, 3 + 3 layers, 8 heads, feed forward 512, vocabularies of 7,801 and 5,959 words, post-norm, float32. A step is the
encoder, once, and 32 words for each sentence. Nobody ends early: the bias of <eos> is -1e9, as are those of <pad> and <bos>.
Both sides have the same parameters, and the run fails where less than 99 in 100 of their words are the same.

Both look through a mask of padding, though no word here is padding, and both look out for sentences that are over. PyTorch's
side keeps keys and values in arrays made once, has one product for queries, keys and values, makes the source's keys and values
once, and returns the words alone. tinymae's `greedy` returns the probability of each sentence and all attention as well.
"""
import math

import numpy as np
from side_by_side import compare
from threadpoolctl import threadpool_limits
from translation_step import CONFIG, LENGTH, SOURCE

from tinymae import tree
from tinymae.models.decoding import greedy
from tinymae.models.transformer import transformer_init
from tinymae.ops.positional import sinusoidal_interleaved
from tinymae.train.parallel import Workers, micro_batches

BATCHES = 1, 16, 64


def task(batch):
    """Parameters and sources (batch, LENGTH), such that a side that gets anything wrong says other words."""
    rng = np.random.default_rng(0)
    params = transformer_init(CONFIG, rng)
    for _, leaf in tree.leaves(params):
        if leaf.ndim == 1:                                  # no bias is 0, no gamma 1
            leaf += rng.normal(0, 0.1, leaf.shape).astype(leaf.dtype)
    for p in params["decoder"]["blocks"]:                   # as they are, fresh layers say one word again and again
        for last in (p["self_attn"]["out"], p["cross_attn"]["out"], p["ffn"]["fc2"]):
            last["w"] *= 0.25
    params["out"]["b"][[CONFIG.pad, CONFIG.bos, CONFIG.eos]] = -1e9
    return params, rng.integers(4, SOURCE, (batch, LENGTH))


def run_tinymae(batch, threads):
    params, src = task(batch)
    ids = None
    pieces = micro_batches(batch, 32)                           # as `Translator.translate` does
    several = len(pieces) > 1
    with Workers(threads) if several else threadpool_limits(threads, user_api="blas") as workers:
        while True:
            yield ids
            parts = (workers.map if several else map)(
                lambda piece: greedy(src[piece], params, CONFIG, max_len=LENGTH).ids, pieces
            )
            ids = np.concatenate(list(parts))


def run_torch(batch, threads):
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    params, src = task(batch)
    params, src = tree.map(torch.from_numpy, params), torch.from_numpy(src)
    positions = torch.from_numpy(sinusoidal_interleaved(LENGTH, CONFIG.d_model).astype(np.float32))

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
        return F.linear(x, w, b).unflatten(2, (-1, CONFIG.heads, CONFIG.d_model // CONFIG.heads)).permute(2, 0, 3, 1, 4)

    def add_attention(x, q, k, v, mask, out, norm):
        z = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)
        return F.layer_norm(x + F.linear(z, *out), x.shape[2:], *norm, CONFIG.eps)

    def add_feed_forward(x, p, norm):
        return F.layer_norm(x + F.linear(F.relu(F.linear(x, *p["fc1"])), *p["fc2"]), x.shape[2:], *norm, CONFIG.eps)

    @torch.inference_mode()
    def translate():
        mask = (src != CONFIG.pad)[:, None, None]
        x = F.embedding(src, source) * math.sqrt(CONFIG.d_model) + positions
        for p in encoder:
            x = add_attention(x, *heads(x, *p["qkv"]), mask, p["out"], p["ln1"])
            x = add_feed_forward(x, p, p["ln2"])
        memory = [heads(x, *p["kv"]) for p in decoder]
        shape = 2, batch, CONFIG.heads, LENGTH, CONFIG.d_model // CONFIG.heads
        past = [torch.empty(shape) for _ in decoder]
        ids = torch.full((batch, LENGTH), CONFIG.pad)
        word, running = torch.full((batch,), CONFIG.bos), torch.ones(batch, dtype=torch.bool)
        for t in range(LENGTH):
            x = (F.embedding(word, target) * math.sqrt(CONFIG.d_model) + positions[t])[:, None]
            for p, kept, (k, v) in zip(decoder, past, memory, strict=True):
                new = heads(x, *p["qkv"])
                kept[:, :, :, t] = new[1:, :, :, 0]
                x = add_attention(x, new[0], *kept[:, :, :, : t + 1], None, p["out"], p["ln1"])
                x = add_attention(x, *heads(x, *p["q"]), k, v, mask, p["cross_out"], p["ln2"])
                x = add_feed_forward(x, p, p["ln3"])
            word = torch.where(running, F.linear(x[:, 0], *vocabulary).argmax(1), CONFIG.pad)
            ids[:, t] = word
            running &= word != CONFIG.eos
            if not running.any():
                break
        return ids.numpy()

    ids = None
    while True:
        yield ids
        ids = translate()


if __name__ == "__main__":
    runs = {
        (name, batch): lambda threads, run=run, batch=batch: run(batch, threads)
        for batch in BATCHES for name, run in (("tinymae", run_tinymae), ("torch", run_torch))
    }
    compare(
        __file__,
        {f"{name}, batch {batch}": run for (name, batch), run in runs.items()},
        [(f"tinymae, batch {batch}", f"torch, batch {batch}") for batch in BATCHES],
        unit="words",
        work={f"{name}, batch {batch}": batch * LENGTH for name, batch in runs},
        agree=0.99,
    )
