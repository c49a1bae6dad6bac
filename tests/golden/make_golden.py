"""Reference numbers from PyTorch, written to mae.npz, ops.npz and optim.npz beside this file; README.md describes them.

Nothing here imports tinymae. The masked autoencoder is written a second time, from the paper (He et al. 2021,
section 3), with torch.nn and autograd: an error has to be made twice, in two ways, to go unnoticed.
Random inputs are multiples of 1/64, which float32 holds exactly and a file holds cheaply.
"""
import itertools
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def on_grid(x, bits):
    return torch.round(x * 2**bits) / 2**bits                   # the nearest multiple of 2**-bits


def normal(*shape, scale=1.0):
    return on_grid(scale * torch.randn(*shape), 6)


def randomise(module):
    """Give every trainable tensor random values that keep activations near 1: no gamma is 1, no bias is 0."""
    for name, p in module.named_parameters():
        if p.requires_grad:                                     # not the fixed positions
            scale = 1.0 if name.endswith("token") else 0.3 if p.ndim == 1 else p[0].numel() ** -0.5
            p.data = normal(*p.shape, scale=scale) + (p.ndim == 1 and name.endswith("weight"))      # a gamma: around 1
    return module


def save(name, values):
    arrays = {}
    for key, v in values.items():
        a = v.detach().numpy() if isinstance(v, torch.Tensor) else np.asarray(v)
        assert a.dtype in (np.float64, np.int64, np.bool_, np.uint8) and np.isfinite(a).all(), key
        arrays[key] = a
    path = Path(__file__).with_name(name)
    np.savez_compressed(path, **arrays)
    print(f"{name:10} {len(arrays):4} arrays {path.stat().st_size / 1000:6.1f} kB")


def sincos_2d(width, side):
    """Fixed positions (1, 1 + side * side, width): row 0 is the class token's, zeros; column first, then row."""
    omega = 10000.0 ** -(torch.arange(width // 4) / (width // 4))
    row, col = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [torch.outer(x.flatten(), omega) for x in (col, row)]
    grid = torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(1, width), grid])[None]


def to_patches(images, p):
    """(B, C, rows, cols) -> (B, N, p * p * C), each patch vector in the order row, column, channel."""
    b, c = images.shape[:2]
    columns = F.unfold(images, p, stride=p)                     # (B, C * p * p, N)
    return columns.reshape(b, c, p * p, -1).permute(0, 3, 2, 1).flatten(2)


def pick(x, index):
    """Take the tokens at index (B, K) from x (B, T, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


class Block(nn.Module):
    """Pre-norm encoder layer, hidden width 4 times the width, exact GELU."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x):
        b, t, _ = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(*qkv)                # (B, H, T, d)
        x = x + self.attn["proj"](a.transpose(1, 2).flatten(2))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class Encoder(nn.Module):
    """A ViT without its head; tensors are named as in the official checkpoints."""

    def __init__(self, side, patch, channels, width, depth, heads):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(sincos_2d(width, side), requires_grad=False)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(channels, width, patch, stride=patch)})
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def encode(self, images, keep):
        tokens = self.patch_embed["proj"](images).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(images), -1, -1)
        return self.norm(self.blocks(torch.cat([first, pick(tokens, keep)], dim=1)))


class MAE(Encoder):
    def __init__(self, side, patch, channels, encoder, decoder):
        super().__init__(side, patch, channels, *encoder)
        width, depth, heads = decoder
        self.patch = patch
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed = nn.Parameter(sincos_2d(width, side), requires_grad=False)
        self.decoder_embed = nn.Linear(encoder[0], width)
        self.decoder_blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.decoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder_pred = nn.Linear(width, patch * patch * channels)

    def forward(self, images, noise, ratio, norm_pix):
        """Images (B, C, rows, cols), noise (B, N) -> loss, pred (B, N, P), mask (B, N) with 1 = removed."""
        b, n = noise.shape
        kept = int(n * (1 - ratio))
        shuffle = noise.argsort(dim=1)
        restore = shuffle.argsort(dim=1)                        # the inverse permutation
        mask = (restore >= kept).double()                       # a patch is kept when its noise ranks below kept
        x = self.decoder_embed(self.encode(images, shuffle[:, :kept]))
        tokens = torch.cat([x[:, 1:], self.mask_token.expand(b, n - kept, -1)], dim=1)
        x = torch.cat([x[:, :1], pick(tokens, restore)], dim=1) + self.decoder_pos_embed
        pred = self.decoder_pred(self.decoder_norm(self.decoder_blocks(x)))[:, 1:]

        target = to_patches(images, self.patch)
        if norm_pix:
            var, mean = torch.var_mean(target, dim=2, keepdim=True, correction=1)
            target = (target - mean) / torch.sqrt(var + 1e-6)
        per_patch = ((pred - target) ** 2).mean(dim=2)
        return (per_patch * mask).sum() / mask.sum(), pred, mask


def tiny_mae(start):
    model = MAE(side=3, patch=4, channels=3, encoder=(8, 2, 4), decoder=(12, 1, 3))         # width, depth, heads
    model.load_state_dict(start, strict=False)
    return model, {name: p for name, p in model.named_parameters() if p.requires_grad}


def train(start, images, noise, norm_pix):
    """AdamW on one batch; as in the authors' code, what has two or more axes decays (both tokens too), no bias does."""
    model, params = tiny_mae(start)
    groups = [{"params": [p for p in params.values() if p.ndim > 1], "weight_decay": 0.05},
              {"params": [p for p in params.values() if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step_noise in noise:
        loss = model(images, step_noise, 0.75, norm_pix)[0]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return params, losses


def make_mae():
    torch.manual_seed(1)
    model, params = tiny_mae({})
    randomise(model)
    start = {name: p.detach().clone() for name, p in params.items()}
    images = normal(2, 12, 12, 3)                               # stored as (B, rows, cols, C)
    noise, train_noise = on_grid(torch.rand(2, 9), 20), on_grid(torch.rand(20, 2, 9), 20)
    assert all(len(row.unique()) == 9 for row in (*noise, *train_noise.flatten(0, 1))), "equal noise: no defined order"
    out = {"images": images, "noise": noise, "pos_embed": model.pos_embed, "decoder_pos_embed": model.decoder_pos_embed}
    out |= {f"param.{name}": p for name, p in start.items()}
    images = images.permute(0, 3, 1, 2)
    for norm_pix, ratio in itertools.product((False, True), (0.5, 0.75)):
        case = f"{'norm' if norm_pix else 'plain'}.{ratio}"
        model, params = tiny_mae(start)
        loss, pred, mask = model(images, noise, ratio, norm_pix)
        loss.backward()
        out |= {f"{case}.loss": loss, f"{case}.pred": pred, f"{case}.mask": mask}
        out |= {f"{case}.grad.{name}": p.grad for name, p in params.items()}
    out["train.noise"] = train_noise
    params, out["train.plain.losses"] = train(start, images, train_noise, False)
    out |= {f"train.plain.param.{name}": p for name, p in params.items()}
    _, out["train.norm.losses"] = train(start, images, train_noise, True)
    save("mae.npz", out)
    check_mae(start, images, noise)


def check_mae(start, images, noise):
    """Ask what needs no second implementation, and count the parameters of the published sizes."""
    model, _ = tiny_mae(start)
    for col, row, k in ((2, 1, 1), (1, 2, 0), (0, 1, 1)):       # positions, entry by entry: 8 / 4 = 2 frequencies
        expected = [f(x / 10000 ** (k / 2)) for x in (col, row) for f in (math.sin, math.cos)]
        assert np.allclose(model.pos_embed[0, 1 + 3 * row + col, k::2], expected, rtol=0, atol=1e-15)
    patches = to_patches(images, 4)                             # patch 5: grid row 1, column 2
    assert torch.equal(patches[:, 5], images[:, :, 4:8, 8:12].permute(0, 2, 3, 1).flatten(1))
    _, pred, mask = model(images, noise, 0.75, False)
    for which, seen in ((mask, False), (1 - mask, True)):       # removed pixels are not seen, kept pixels are
        pixels = which.reshape(2, 1, 3, 3).repeat_interleave(4, 2).repeat_interleave(4, 3)
        assert torch.allclose(model(images + pixels, noise, 0.75, False)[1], pred, rtol=0, atol=1e-12) != seen
    assert torch.autograd.gradcheck(randomise(Block(8, 2)), normal(2, 3, 8).requires_grad_())
    assert torch.autograd.gradcheck(lambda x: model(x, noise, 0.5, True)[:2], images.clone().requires_grad_(),
                                    fast_mode=True)
    base, large, decoder = (768, 12, 12), (1024, 24, 16), (512, 8, 16)                      # width, depth, heads
    with torch.device("meta"):
        counts = {("MAE ViT-B/16", 111_907_840): [MAE(14, 16, 3, base, decoder)],
                  ("MAE ViT-L/16", 329_541_888): [MAE(14, 16, 3, large, decoder)],
                  ("ViT-B/16 classifier", 86_567_656): [Encoder(14, 16, 3, *base), nn.Linear(768, 1000)]}
    for (name, expected), modules in counts.items():
        number = sum(p.numel() for m in modules for p in m.parameters())                    # fixed positions included
        print(f"{name:20}{number:12,} parameters")
        assert number == expected, (name, number, expected)


def record(out, case, f, module=None, tree=None, **inputs):
    """Run y = f(**inputs) and its backward from a random dy; store inputs, y, dy, the module's tree, all gradients."""
    leaves = {k: v.clone().requires_grad_(v.is_floating_point()) for k, v in inputs.items()}
    y = f(**leaves)
    dy = normal(*y.shape)
    y.backward(dy)
    out |= {f"{case}.{k}": v for k, v in inputs.items()} | {f"{case}.y": y, f"{case}.dy": dy}
    out |= {f"{case}.d{k}": v.grad for k, v in leaves.items() if v.requires_grad}
    if module is not None:
        out |= {f"{case}.param.{name}": v for name, v in tree(module, lambda p: p).items()}
        out |= {f"{case}.grad.{name}": v for name, v in tree(module, lambda p: p.grad).items()}


def attention_tree(attn, of):
    """nn.MultiheadAttention as q, k, v, out with (in, out) weights; `of` takes a tensor's value or its gradient."""
    weights = [*of(attn.in_proj_weight).chunk(3), of(attn.out_proj.weight)]
    biases = [*of(attn.in_proj_bias).chunk(3), of(attn.out_proj.bias)]
    return {f"{n}.{kind}": v for n, w, b in zip(("q", "k", "v", "out"), weights, biases, strict=True)
            for kind, v in (("w", w.T), ("b", b))}


def layer_tree(layer, of):
    parts = {"attn": layer.self_attn}
    if isinstance(layer, nn.TransformerDecoderLayer):
        parts = {"self_attn": layer.self_attn, "cross_attn": layer.multihead_attn}
    tree = {f"{part}.{n}": v for part, attn in parts.items() for n, v in attention_tree(attn, of).items()}
    for i, linear in enumerate((layer.linear1, layer.linear2), start=1):
        tree |= {f"ffn.fc{i}.w": of(linear.weight).T, f"ffn.fc{i}.b": of(linear.bias)}
    norms = [m for m in layer.children() if isinstance(m, nn.LayerNorm)]                    # norm1, norm2 (, norm3)
    for i, norm in enumerate(norms, start=1):
        tree |= {f"ln{i}.gamma": of(norm.weight), f"ln{i}.beta": of(norm.bias)}
    return tree


def make_ops():
    torch.manual_seed(2)
    out = {}
    record(out, "linear", lambda x, w, b: F.linear(x, w.T, b), x=normal(2, 3, 4), w=normal(4, 5), b=normal(5))
    record(out, "embedding", lambda ids, table: F.embedding(ids, table),
           ids=torch.tensor([[3, 1, 3, 5], [1, 3, 0, 3]]), table=normal(7, 5))              # 2, 4 and 6 are never used
    record(out, "softmax", lambda x: x.softmax(-1), x=normal(2, 3, 5, scale=2.0))
    record(out, "layernorm", lambda x, gamma, beta: F.layer_norm(x, (5,), gamma, beta, eps=1e-5),
           x=normal(2, 3, 5), gamma=1 + normal(5, scale=0.3), beta=normal(5))
    record(out, "relu", lambda x: F.relu(x), x=normal(3, 7))
    record(out, "gelu", lambda x: F.gelu(x), x=normal(3, 7, scale=2.0))
    record(out, "gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), x=normal(3, 7, scale=2.0))
    mask = torch.rand(2, 1, 4, 5) < 0.6
    mask[..., 0] |= ~mask.any(-1)                               # every query may attend to something
    qkv = {"q": normal(2, 3, 4, 6), "k": normal(2, 3, 5, 6), "v": normal(2, 3, 5, 7)}
    record(out, "attention", lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
           **qkv, mask=mask)
    scores = (qkv["q"] @ qkv["k"].mT / math.sqrt(6)).masked_fill(~mask, -math.inf)
    out["attention.weights"] = scores.softmax(-1)               # (B, H, Tq, Tk); torch does not return them here
    assert torch.allclose(out["attention.weights"] @ qkv["v"], out["attention.y"], rtol=0, atol=1e-14)
    logits, targets = normal(2, 4, 7, scale=2.0), torch.tensor([[3, 6, 0, 0], [1, 2, 5, 0]])
    out |= {"cross_entropy.logits": logits, "cross_entropy.targets": targets}               # id 0 is ignored
    for case, smoothing in (("plain", 0.0), ("smooth", 0.1)):
        leaf = logits.clone().requires_grad_()
        loss = F.cross_entropy(leaf.flatten(0, 1), targets.flatten(), ignore_index=0, label_smoothing=smoothing)
        loss.backward()
        out |= {f"cross_entropy.{case}.loss": loss, f"cross_entropy.{case}.dlogits": leaf.grad}
    causal = torch.ones(5, 5, dtype=torch.bool).tril()          # True = may attend; torch's modules want the opposite
    inputs = {"x": normal(2, 5, 12), "memory": normal(2, 7, 12)}

    def attend(module, case, x, memory, blocked=None):
        y, out[f"{case}.weights"] = module(x, memory, memory, attn_mask=blocked, average_attn_weights=False)
        return y

    mha = [randomise(nn.MultiheadAttention(12, 3, batch_first=True)) for _ in range(2)]
    record(out, "mha_self", lambda x, mask: attend(mha[0], "mha_self", x, x, ~mask),
           mha[0], attention_tree, x=inputs["x"], mask=causal)
    record(out, "mha_cross", lambda x, memory: attend(mha[1], "mha_cross", x, memory), mha[1], attention_tree, **inputs)
    for case, pre_norm, activation in (("post", False, "relu"), ("pre", True, "gelu")):     # "gelu" is the exact one
        options = {"dropout": 0.0, "activation": activation, "norm_first": pre_norm, "batch_first": True}
        layer = randomise(nn.TransformerEncoderLayer(12, 3, 20, **options))
        record(out, f"encoder_{case}", lambda x, layer=layer: layer(x), layer, layer_tree, x=inputs["x"])
        layer = randomise(nn.TransformerDecoderLayer(12, 3, 20, **options))
        record(out, f"decoder_{case}", lambda x, memory, mask, layer=layer: layer(x, memory, tgt_mask=~mask),
               layer, layer_tree, **inputs, mask=causal)
    save("ops.npz", out)


def warmup_cosine(step, lr, min_lr, warmup, total):             # step 0, 1, ...
    if step < warmup:
        return lr * step / warmup
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def noam(index, factor, d_model, warmup):
    step = index + 1                                            # step 1, 2, ...
    return factor * d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)


def make_optim():
    torch.manual_seed(3)
    a, b = nn.Parameter(normal(3, 4)), nn.Parameter(normal(5))  # a decays, b does not
    grad_a, grad_b, rates = normal(10, 3, 4), normal(10, 5), on_grid(0.01 + 0.05 * torch.rand(10), 16)
    out = {"adamw.betas": (0.9, 0.95), "adamw.eps": 1e-8, "adamw.weight_decay": 0.1, "adamw.lr": rates,
           "adamw.start.a": a.detach().clone(), "adamw.start.b": b.detach().clone(),
           "adamw.grad.a": grad_a, "adamw.grad.b": grad_b}
    groups = [{"params": [a], "weight_decay": 0.1}, {"params": [b], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    path = []
    for t, lr in enumerate(rates.tolist()):
        a.grad, b.grad = grad_a[t], grad_b[t]
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = lr
        optimizer.step()
        path.append((a.detach().clone(), b.detach().clone()))
    out["adamw.param.a"], out["adamw.param.b"] = (torch.stack(values) for values in zip(*path, strict=True))

    for case, max_norm in (("above", 1.5), ("below", 20.0)):    # the norm is above, or below, max_norm
        tree = {"a": nn.Parameter(normal(3, 4)), "b": nn.Parameter(normal(5)), "c": nn.Parameter(normal(2, 2, 3))}
        for name, p in tree.items():
            p.grad = normal(*p.shape)
            out[f"clip.{case}.before.{name}"] = p.grad.clone()
        total = nn.utils.clip_grad_norm_(tree.values(), max_norm)
        out |= {f"clip.{case}.max_norm": max_norm, f"clip.{case}.total_norm": total}
        out |= {f"clip.{case}.after.{name}": p.grad for name, p in tree.items()}

    for case, f, options in (("cosine", warmup_cosine, {"lr": 1.5e-3, "min_lr": 0.0, "warmup": 6, "total": 30}),
                             ("cosine_min", warmup_cosine, {"lr": 1e-3, "min_lr": 1e-5, "warmup": 4, "total": 30}),
                             ("noam", noam, {"factor": 2.0, "d_model": 64, "warmup": 8})):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)                 # LambdaLR multiplies by 1
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step, f=f, kw=options: f(step, **kw))
        rates = []
        for _ in range(30):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        out |= {f"schedule.{case}.{name}": v for name, v in options.items()} | {f"schedule.{case}.rates": rates}
    for case, options in (("plain", {}), ("momentum", {"momentum": 0.9, "weight_decay": 0.1}),
                          ("nesterov", {"momentum": 0.8, "weight_decay": 0.05, "nesterov": True})):
        a, b = nn.Parameter(normal(3, 4)), nn.Parameter(normal(5))      # a decays, b does not
        grad_a, grad_b, rates = normal(10, 3, 4), normal(10, 5), on_grid(0.01 + 0.05 * torch.rand(10), 16)
        out |= {f"sgd.{case}.{name}": value for name, value in options.items()}
        out |= {f"sgd.{case}.lr": rates, f"sgd.{case}.start.a": a.detach().clone(), f"sgd.{case}.start.b": b.detach().clone(),
                f"sgd.{case}.grad.a": grad_a, f"sgd.{case}.grad.b": grad_b}
        optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b], "weight_decay": 0.0}], lr=1.0, **options)
        path = []
        for t, lr in enumerate(rates.tolist()):
            a.grad, b.grad = grad_a[t].clone(), grad_b[t].clone()
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = lr
            optimizer.step()
            path.append((a.detach().clone(), b.detach().clone()))
        out[f"sgd.{case}.param.a"], out[f"sgd.{case}.param.b"] = (torch.stack(values) for values in zip(*path, strict=True))
    save("optim.npz", out)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print(f"PyTorch {torch.__version__}")
    make_mae()
    make_ops()
    make_optim()
