"""Reference numbers from torch.nn.Transformer, written to transformer.npz beside this file; README.md describes them.

Nothing here imports tinymae. nn.Transformer is the two stacks only, with a layer norm behind each; embeddings, positions and
the output layer are written around it. Its boolean masks say True = may NOT attend.
"""
import math

import torch
from make_golden import layer_tree, randomise, save
from torch import nn
from torch.nn import functional as F

D, HEADS, LAYERS, HIDDEN = 12, 3, 2, 20
SRC_VOCAB, VOCAB, PAD, BOS = 9, 11, 0, 1
SRC = torch.tensor([[4, 7, 3, 5, 2], [6, 3, 2, 0, 0], [8, 2, 0, 0, 0]])
TARGETS = torch.tensor([[5, 3, 8, 2, 0, 0], [4, 10, 2, 0, 0, 0], [9, 6, 7, 6, 3, 2]])
CASES = {
    "post": {"tie": "all", "norm_first": False, "activation": "relu"},
    "pre": {"tie": "none", "norm_first": True, "activation": "gelu"},
}


def sinusoids(length, width):
    """Sine on even, cosine on odd columns, entry by entry."""
    angle = [[pos / 10000 ** (j // 2 * 2 / width) for j in range(width)] for pos in range(length)]
    return torch.tensor([[(math.cos if j % 2 else math.sin)(a) for j, a in enumerate(row)] for row in angle])


class Translator(nn.Module):
    def __init__(self, tie, src_vocab=SRC_VOCAB, vocab=VOCAB, width=D, heads=HEADS, layers=LAYERS, hidden=HIDDEN, **options):
        super().__init__()
        self.stacks = nn.Transformer(width, heads, layers, layers, hidden, dropout=0.0, batch_first=True, **options)
        self.tgt = nn.Embedding(vocab, width)
        self.src = self.tgt if tie == "all" else nn.Embedding(src_vocab, width)
        self.out = nn.Linear(width, vocab, bias=tie != "all")
        if tie == "all":
            self.out.weight = self.tgt.weight

    def embed(self, ids, table):
        return table(ids) * math.sqrt(D) + sinusoids(ids.shape[1], D)

    def forward(self, src, targets):
        """Logits (B, Tq, V), padding's too."""
        inputs = torch.cat([torch.full_like(targets[:, :1], BOS), targets[:, :-1]], dim=1)
        length = inputs.shape[1]
        x = self.stacks(
            self.embed(src, self.src), self.embed(inputs, self.tgt),
            tgt_mask=torch.ones(length, length, dtype=torch.bool).triu(1),                  # True = may not attend
            src_key_padding_mask=src == PAD, memory_key_padding_mask=src == PAD, tgt_key_padding_mask=inputs == PAD,
        )
        return self.out(x)


def tree(model, tie, of):
    """Every parameter by its path in ours, weights (in, out); `of` takes a tensor's value or its gradient."""
    if tie == "all":
        found = {"embed": of(model.tgt.weight)}
    else:
        found = {"src_embed": of(model.src.weight), "tgt_embed": of(model.tgt.weight)}
        found |= {"out.w": of(model.out.weight).T, "out.b": of(model.out.bias)}
    for name, stack in (("encoder", model.stacks.encoder), ("decoder", model.stacks.decoder)):
        for i, layer in enumerate(stack.layers):
            found |= {f"{name}.blocks.{i}.{path}": leaf for path, leaf in layer_tree(layer, of).items()}
        found |= {f"{name}.norm.gamma": of(stack.norm.weight), f"{name}.norm.beta": of(stack.norm.bias)}
    assert sum(leaf.numel() for leaf in found.values()) == sum(p.numel() for p in model.parameters())
    return found


def loss_of(model, smoothing):
    logits = model(SRC, TARGETS).flatten(0, 1)
    return F.cross_entropy(logits, TARGETS.flatten(), ignore_index=PAD, label_smoothing=smoothing)


def train(model, steps=30):
    """AdamW on one batch; everything decays."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)
    losses = []
    for _ in range(steps):
        loss = loss_of(model, 0.1)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def check_masks(model):
    """A later target and a longer padding change nothing, a word of the source does: the masks are the right way round."""
    words = TARGETS != PAD
    before = model(SRC, TARGETS)[words]
    later = TARGETS.clone()
    later[2, 3:] = torch.tensor([4, 10, 5])                     # the last sentence's inputs 4 and 5, of six
    after = model(SRC, later)[words]
    assert torch.allclose(after[:-2], before[:-2], rtol=0, atol=1e-14)
    assert not torch.isclose(after[-2:], before[-2:], rtol=0, atol=1e-3).all(1).any()
    longer = F.pad(TARGETS, (0, 3))
    assert torch.allclose(model(F.pad(SRC, (0, 2)), longer)[longer != PAD], before, rtol=0, atol=1e-14)
    other = SRC.clone()
    other[:, 0] = 3
    assert not torch.isclose(model(other, TARGETS)[words], before, rtol=0, atol=1e-3).all(1).any()


def count(tie, **sizes):
    """Parameters of nn.Transformer, its embeddings and output layer."""
    with torch.device("meta"):
        return sum(p.numel() for p in Translator(tie, **sizes).parameters())


def make_transformer():
    torch.manual_seed(4)
    out = {"src": SRC, "targets": TARGETS}
    for case, options in CASES.items():
        model = randomise(Translator(**options))
        check_masks(model)
        out |= {f"{case}.param.{path}": leaf.clone() for path, leaf in tree(model, options["tie"], lambda p: p).items()}
        out[f"{case}.logits"] = model(SRC, TARGETS)[TARGETS != PAD]
        for name, smoothing in (("plain", 0.0), ("smooth", 0.1)):
            model.zero_grad()
            loss = loss_of(model, smoothing)
            loss.backward()
            out[f"{case}.{name}.loss"] = loss
            grads = tree(model, options["tie"], lambda p: p.grad)
            out |= {f"{case}.{name}.grad.{path}": leaf.clone() for path, leaf in grads.items()}
        if case == "pre":                                       # nn.Transformer's own names
            out |= {f"{case}.state.{name}": leaf.clone() for name, leaf in model.stacks.state_dict().items()}
        out[f"{case}.losses"] = train(model)
    base = {"width": 512, "heads": 8, "layers": 6, "hidden": 2048}
    out["count.all"] = count("all", vocab=37000, **base)        # with the two last norms, 2048 numbers, that the paper has not
    out["count.none"] = count("none", src_vocab=7801, vocab=5959, **base)
    save("transformer.npz", out)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print(f"PyTorch {torch.__version__}")
    make_transformer()
