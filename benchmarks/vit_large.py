"""One picture restored by a masked autoencoder of ViT-L's size (329,541,888 parameters): tinymae and PyTorch eager.

    python benchmarks/vit_large.py [--rounds 3] [--steps 3] [--threads 2] [--json FILE]

Random weights in the official format are written first, to the system's folder for temporary files (1.3 GB, removed at the
end). "open" sides open the file anew in each step, PyTorch with a memory map (`torch.load(mmap=True)`), which is its fastest
way. Both must restore the same picture.
"""
import sys
import tempfile
from pathlib import Path

import numpy as np
from side_by_side import compare
from threadpoolctl import threadpool_limits

from tinymae.models.mae import MAEConfig, mae_count, mae_init, mae_reconstruct
from tinymae.weights.export import export_mae
from tinymae.weights.published import load_mae

PATH = Path(tempfile.gettempdir(), "tinymae-vit-large.pth")
CONFIG = MAEConfig(embed_dim=1024, depth=24, num_heads=16)


def task():
    rng = np.random.default_rng(0)
    return rng.normal(size=(1, 224, 224, 3)).astype(np.float32), rng.random((1, 196))


def to_bytes(picture):
    return np.rint(np.clip(picture * 32 + 128, 0, 255)).astype(np.uint8)


def run_tinymae(threads, anew):
    images, noise = task()
    with threadpool_limits(threads, user_api="blas"):
        config, params = load_mae(PATH)
        answer = None
        while True:
            yield answer
            if anew:
                del params                                      # or the old windows would be counted beside the new
                config, params = load_mae(PATH)
            answer = to_bytes(mae_reconstruct(images, params, config, noise).reconstruction)


def run_torch(threads, anew):
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    images, noise = (torch.from_numpy(x) for x in task())
    images = images.permute(0, 3, 1, 2).contiguous()

    def load():
        return torch.load(PATH, mmap=True, weights_only=True)["model"]

    def norm(x, p, name):
        return F.layer_norm(x, x.shape[2:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-6)

    def linear(x, p, name):
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def layer(x, p, name):
        qkv = linear(norm(x, p, f"{name}.norm1"), p, f"{name}.attn.qkv")
        q, k, v = qkv.unflatten(2, (3, 16, -1)).permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + linear(z, p, f"{name}.attn.proj")
        return x + linear(F.gelu(linear(norm(x, p, f"{name}.norm2"), p, f"{name}.mlp.fc1")), p, f"{name}.mlp.fc2")

    @torch.inference_mode()
    def restore(p):
        x = F.conv2d(images, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=16).flatten(2).transpose(1, 2)
        x = x + p["pos_embed"][:, 1:]
        shuffle = noise.argsort(stable=True, dim=1)
        x = x.gather(1, shuffle[:, :49, None].expand(-1, -1, 1024))
        x = torch.cat([p["cls_token"] + p["pos_embed"][:, :1], x], 1)
        for i in range(24):
            x = layer(x, p, f"blocks.{i}")
        x = linear(norm(x, p, "norm"), p, "decoder_embed")
        y = torch.cat([x[:, 1:], p["mask_token"].expand(1, 147, -1)], 1)
        y = y.gather(1, shuffle.argsort(1)[:, :, None].expand(-1, -1, 512))
        x = torch.cat([x[:, :1], y], 1) + p["decoder_pos_embed"]
        for i in range(8):
            x = layer(x, p, f"decoder_blocks.{i}")
        pred = linear(norm(x, p, "decoder_norm"), p, "decoder_pred")[:, 1:]
        return pred.unflatten(1, (14, 14)).unflatten(3, (16, 16, 3)).transpose(2, 3).reshape(1, 224, 224, 3).numpy()

    params, answer = load(), None
    while True:
        yield answer
        if anew:
            del params
            params = load()
        answer = to_bytes(restore(params))


if __name__ == "__main__":
    inside = "--side" in sys.argv                               # one of the processes that measure
    if not inside:
        export_mae(PATH, CONFIG, mae_init(CONFIG, np.random.default_rng(0)))
        print(f"{mae_count(CONFIG):,} parameters, {PATH.stat().st_size / 2**20:.0f} MiB of file")
    try:
        compare(
            __file__,
            {
                f"{name}{', open' if anew else ''}": lambda threads, run=run, anew=anew: run(threads, anew)
                for anew in (False, True) for name, run in (("tinymae", run_tinymae), ("torch", run_torch))
            },
            [("tinymae", "torch"), ("tinymae, open", "torch, open")],
            agree=0.98,
        )
    finally:
        if not inside:
            PATH.unlink()
