"""Reference numbers of the Vision Transformer, written to vit.npz beside this file; README.md describes them.

Nothing here imports tinymae. The class-token model is Hugging Face's ViTForImageClassification, which has no mean pooling: that
model is written around the blocks of make_golden.py, as in the fine-tuning code of He et al. 2021.
"""
import torch
import transformers
from make_golden import Block, normal, on_grid, randomise, save, sincos_2d
from torch import nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTForImageClassification

D, DEPTH, HEADS, CLASSES, SIDE, PATCH = 8, 2, 2, 5, 3, 4
LABELS = torch.tensor([3, 0, 4])


class ClassToken(ViTForImageClassification):
    def __init__(self, width=D, depth=DEPTH, heads=HEADS, side=SIDE, patch=PATCH, classes=CLASSES):
        super().__init__(ViTConfig(
            hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * width,
            image_size=side * patch, patch_size=patch, num_channels=3, num_labels=classes, hidden_act="gelu",
            layer_norm_eps=1e-6, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, qkv_bias=True,
        ))

    def forward(self, images, **options):
        return super().forward(images, **options).logits


class MeanPool(nn.Module):
    """The mean of the patches, then a layer norm, then the head; positions are the fixed ones, trained further."""

    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        self.pos_embed = nn.Parameter(torch.zeros(1, SIDE * SIDE, D))           # the class token's is zeros: left out
        self.patch_embed = nn.Conv2d(3, D, PATCH, stride=PATCH)
        self.blocks = nn.Sequential(*[Block(D, HEADS) for _ in range(DEPTH)])
        self.fc_norm = nn.LayerNorm(D, eps=1e-6)
        self.head = nn.Linear(D, CLASSES)

    def forward(self, images):
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2) + self.pos_embed
        x = self.blocks(torch.cat([self.cls_token.expand(len(images), -1, -1), tokens], dim=1))
        return self.head(self.fc_norm(x[:, 1:].mean(dim=1)))


# Every parameter by its path in ours, weights (in, out); `of` takes a tensor's value or its gradient.

def linear_tree(path, of, *linears):
    """One linear map, or several side by side."""
    return {f"{path}.w": torch.cat([of(x.weight).T for x in linears], dim=1),
            f"{path}.b": torch.cat([of(x.bias) for x in linears])}


def norm_tree(path, of, norm):
    return {f"{path}.gamma": of(norm.weight), f"{path}.beta": of(norm.bias)}


def embed_tree(of, convolution):
    weight = of(convolution.weight).permute(2, 3, 1, 0)         # (D, C, p, p) -> row, column, channel, D
    return {"encoder.patch_embed.w": weight.flatten(0, 2), "encoder.patch_embed.b": of(convolution.bias)}


def token_tree(model, of):
    e = model.vit.embeddings
    found = embed_tree(of, e.patch_embeddings.projection)
    found["positions"] = of(e.position_embeddings)[0, 1:]
    token, first = of(e.cls_token), of(e.position_embeddings)[:, :1]
    # the class token and its position are added: one tensor for us, and their gradients are the same
    found["encoder.cls_token"] = token + first if of is value else token
    assert of is value or torch.equal(token, first)
    for i, layer in enumerate(model.vit.layers):
        path, a = f"encoder.blocks.{i}", layer.attention
        found |= norm_tree(f"{path}.ln1", of, layer.layernorm_before) | norm_tree(f"{path}.ln2", of, layer.layernorm_after)
        found |= linear_tree(f"{path}.attn.qkv", of, a.q_proj, a.k_proj, a.v_proj)
        found |= linear_tree(f"{path}.attn.out", of, a.o_proj)
        found |= linear_tree(f"{path}.ffn.fc1", of, layer.mlp.fc1) | linear_tree(f"{path}.ffn.fc2", of, layer.mlp.fc2)
    found |= norm_tree("encoder.norm", of, model.vit.layernorm) | linear_tree("head", of, model.classifier)
    assert sum(leaf.numel() for leaf in found.values()) + D == sum(p.numel() for p in model.parameters())
    return found


def mean_tree(model, of):
    found = embed_tree(of, model.patch_embed)
    found |= {"positions": of(model.pos_embed)[0], "encoder.cls_token": of(model.cls_token)}
    for i, block in enumerate(model.blocks):
        path = f"encoder.blocks.{i}"
        found |= norm_tree(f"{path}.ln1", of, block.norm1) | norm_tree(f"{path}.ln2", of, block.norm2)
        found |= linear_tree(f"{path}.attn.qkv", of, block.attn["qkv"])
        found |= linear_tree(f"{path}.attn.out", of, block.attn["proj"])
        found |= linear_tree(f"{path}.ffn.fc1", of, block.mlp["fc1"]) | linear_tree(f"{path}.ffn.fc2", of, block.mlp["fc2"])
    found |= norm_tree("fc_norm", of, model.fc_norm) | linear_tree("head", of, model.head)
    assert sum(leaf.numel() for leaf in found.values()) == sum(p.numel() for p in model.parameters())
    return found


def value(p):
    return p.detach().clone()


def gradient(p):
    return p.grad.clone()


def height(name):
    """The layer that a tensor belongs to: 0 below the blocks, 1 for the first block, ... DEPTH + 1 above them."""
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return 0 if name.startswith(("cls_token", "pos_embed", "patch_embed")) else DEPTH + 1


def train(model, images, targets, decay=0.65, steps=10):
    """AdamW with layer-wise decay of the rate; no weight decay on vectors, class token and positions (He et al. 2021, A.1)."""
    groups = []
    for name, p in model.named_parameters():
        skipped = p.ndim == 1 or name in ("cls_token", "pos_embed")
        rate = 4e-3 * decay ** (DEPTH + 1 - height(name))
        groups.append({"params": [p], "lr": rate, "weight_decay": 0.0 if skipped else 0.05})
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(images), targets, label_smoothing=0.1)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def interpolations(out):
    """Bicubic, as the position tables of ViT are resized; up, down, to a rectangle, from a single patch."""
    sizes = [((3, 3), (5, 5)), ((4, 6), (3, 9)), ((7, 7), (4, 4)), ((1, 2), (3, 3)), ((14, 14), (24, 24))]
    for i, (grid, new) in enumerate(sizes):
        table = normal(grid[0] * grid[1], 2)
        x = table.reshape(1, *grid, 2).permute(0, 3, 1, 2)
        y = F.interpolate(x, size=new, mode="bicubic", align_corners=False).permute(0, 2, 3, 1).reshape(-1, 2)
        out |= {f"interpolate.{i}.grid": torch.tensor(grid), f"interpolate.{i}.new_grid": torch.tensor(new)}
        out |= {f"interpolate.{i}.positions": table, f"interpolate.{i}.y": y}


def make_vit():
    torch.manual_seed(5)
    images, large = normal(3, SIDE * PATCH, SIDE * PATCH, 3), normal(2, 5 * PATCH, 5 * PATCH, 3)
    shares = on_grid(torch.rand(3, CLASSES), 8)
    shares = on_grid(shares / shares.sum(1, keepdim=True), 16)
    shares[:, 0] += 1 - shares.sum(1)                           # exact in float32, and the sum is exactly 1
    out = {"images": images, "large": large, "labels": LABELS, "shares": shares}
    images, large = images.permute(0, 3, 1, 2), large.permute(0, 3, 1, 2)
    models = {"token": (randomise(ClassToken()), token_tree), "mean": (randomise(MeanPool()), mean_tree)}
    models["mean"][0].pos_embed.data = sincos_2d(D, SIDE)[:, 1:]
    for case, (model, tree) in models.items():
        out |= {f"{case}.param.{path}": leaf for path, leaf in tree(model, value).items()}
        out[f"{case}.logits"] = model(images)
        for name, targets, smoothing in (("plain", LABELS, 0.0), ("smooth", LABELS, 0.1), ("shares", shares, 0.1)):
            model.zero_grad()
            loss = F.cross_entropy(model(images), targets, label_smoothing=smoothing)
            loss.backward()
            out[f"{case}.{name}.loss"] = loss
            out |= {f"{case}.{name}.grad.{path}": leaf for path, leaf in tree(model, gradient).items()}
    model, tree = models["token"]
    out["token.large.logits"] = model(large, interpolate_pos_encoding=True)
    model.set_attn_implementation("eager")                      # the other one does not give its weights away
    out |= {f"token.attention.{i}": a for i, a in enumerate(model.vit(images, output_attentions=True).attentions)}
    model, tree = models["mean"]
    out["train.losses"] = train(model, images, shares)
    out |= {f"train.param.{path}": leaf for path, leaf in tree(model, value).items()}
    interpolations(out)
    with torch.device("meta"):
        out["count"] = sum(p.numel() for p in ClassToken(768, 12, 12, 14, 16, 1000).parameters())
    assert out["count"] == 86_567_656
    save("vit.npz", out)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print(f"PyTorch {torch.__version__}, transformers {transformers.__version__}")
    make_vit()
