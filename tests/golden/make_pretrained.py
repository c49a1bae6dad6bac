"""Files of weights as others publish them, and what their models compute: pretrained.npz beside this file; see README.md.

Nothing here imports tinymae. Models by the official names are made of make_golden.py's parts, Hugging Face's are its own.
Every trainable tensor is random. Numbers are computed in float64 from what stands in the file, positions included.
"""
import argparse
import io
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from make_golden import MAE, Encoder, normal, on_grid, randomise
from make_vit import embed_tree, linear_tree, norm_tree, token_tree
from safetensors.torch import save as safetensors
from torch import nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTForImageClassification, ViTMAEConfig, ViTMAEForPreTraining

SIDE, PATCH, D, DEPTH, HEADS, E, DECODER_HEADS, CLASSES = 3, 4, 8, 2, 2, 12, 3, 5
LABELS = torch.tensor([3, 0])
TRAINED = {"norm_pix_loss": True, "mask_ratio": 0.5}


def gradient(p):
    return p.grad


# Every parameter by its path in ours, weights (in, out); `of` takes something of a tensor: here, its gradient.

def block_tree(path, of, block):
    found = norm_tree(f"{path}.ln1", of, block.norm1) | norm_tree(f"{path}.ln2", of, block.norm2)
    found |= linear_tree(f"{path}.attn.qkv", of, block.attn["qkv"]) | linear_tree(f"{path}.attn.out", of, block.attn["proj"])
    return found | linear_tree(f"{path}.ffn.fc1", of, block.mlp["fc1"]) | linear_tree(f"{path}.ffn.fc2", of, block.mlp["fc2"])


def hugging_block_tree(path, of, layer):
    a = layer.attention
    found = norm_tree(f"{path}.ln1", of, layer.layernorm_before) | norm_tree(f"{path}.ln2", of, layer.layernorm_after)
    found |= linear_tree(f"{path}.attn.qkv", of, a.q_proj, a.k_proj, a.v_proj) | linear_tree(f"{path}.attn.out", of, a.o_proj)
    return found | linear_tree(f"{path}.ffn.fc1", of, layer.mlp.fc1) | linear_tree(f"{path}.ffn.fc2", of, layer.mlp.fc2)


def encoder_tree(model, of):
    found = embed_tree(of, model.patch_embed["proj"]) | {"encoder.cls_token": of(model.cls_token)}
    for i, block in enumerate(model.blocks):
        found |= block_tree(f"encoder.blocks.{i}", of, block)
    return found


def mae_tree(model, of):
    found = encoder_tree(model, of) | norm_tree("encoder.norm", of, model.norm)
    found |= linear_tree("decoder.embed", of, model.decoder_embed) | {"decoder.mask_token": of(model.mask_token)}
    for i, block in enumerate(model.decoder_blocks):
        found |= block_tree(f"decoder.blocks.{i}", of, block)
    found |= norm_tree("decoder.norm", of, model.decoder_norm)
    return found | linear_tree("decoder.pred", of, model.decoder_pred)


def hugging_mae_tree(model, of):
    vit, decoder = model.vit, model.decoder
    found = embed_tree(of, vit.embeddings.patch_embeddings.projection) | {"encoder.cls_token": of(vit.embeddings.cls_token)}
    for i, layer in enumerate(vit.layers):
        found |= hugging_block_tree(f"encoder.blocks.{i}", of, layer)
    found |= norm_tree("encoder.norm", of, vit.layernorm)
    found |= linear_tree("decoder.embed", of, decoder.decoder_embed) | {"decoder.mask_token": of(decoder.mask_token)}
    for i, layer in enumerate(decoder.decoder_layers):
        found |= hugging_block_tree(f"decoder.blocks.{i}", of, layer)
    found |= norm_tree("decoder.norm", of, decoder.decoder_norm)
    return found | linear_tree("decoder.pred", of, decoder.decoder_pred)


class MeanPool(Encoder):
    """The classifier of the official fine-tuning code, by its names; positions are trained, the class token's too."""

    def __init__(self):
        super().__init__(SIDE, PATCH, 3, D, DEPTH, HEADS)
        self.norm = nn.Identity()
        self.pos_embed.requires_grad = True
        self.fc_norm = nn.LayerNorm(D, eps=1e-6)
        self.head = nn.Linear(D, CLASSES)

    def forward(self, images):
        everything = torch.arange(SIDE * SIDE).expand(len(images), -1)
        return self.head(self.fc_norm(self.encode(images, everything)[:, 1:].mean(dim=1)))

    def tree(self, of):
        found = encoder_tree(self, of) | norm_tree("fc_norm", of, self.fc_norm) | linear_tree("head", of, self.head)
        return found | {"positions": of(self.pos_embed)[0, 1:]}


# Files

def saved(content, **options):
    """The bytes that torch.save writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mae_visualize_tiny.pth"
        torch.save(content, path, **options)
        return path.read_bytes()


def of_2021(data):
    """A .pth with the entries that files had then, at any byte."""
    new = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(new, "w") as zipped:
        for name in old.namelist():
            if "/data" in name or name.endswith("/version"):
                zipped.writestr(name.replace("mae_visualize_tiny/", "archive/"), old.read(name))
    return new.getvalue()


def folder_of(model):
    """(bytes of model.safetensors, text of config.json) that save_pretrained writes."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads(Path(folder, "config.json").read_text())
        return Path(folder, "model.safetensors").read_bytes(), json.dumps(config)


def halves(state, dtype):
    return {name: tensor.to(dtype) for name, tensor in state.items()}


def singles(model):
    """Round every number, positions too, to what float32 holds, and go on in float64."""
    return model.float().double()


def mae_numbers(case, result, tree):
    loss, pred, mask = result
    out = {f"{case}.loss": loss, f"{case}.pred": pred, f"{case}.mask": mask}
    if tree is not None:
        loss.backward()
        out |= {f"{case}.grad.{path}": leaf for path, leaf in tree(gradient).items()}
    return out


def classifier_numbers(case, logits, tree):
    loss = F.cross_entropy(logits, LABELS)
    loss.backward()
    return {f"{case}.loss": loss, f"{case}.logits": logits} | {
        f"{case}.grad.{path}": leaf for path, leaf in tree(gradient).items()
    }


def make_views():
    """Tensors of every dtype and of every shape, some on one storage: (files, {"views.NAME": as NumPy has it})."""
    base, count = normal(4, 5).float(), torch.arange(-2, 4)
    tensors = {
        "transposed": base.t(), "inner": base[1:3, 1:4], "row": base[2], "strided": base[::2, ::3], "whole": base,
        "expanded": torch.tensor([1.5, 2.5, 3.5], dtype=torch.float32).expand(2, 3), "empty": torch.zeros(0, 3),
        "empty_view": base[4:], "scalar": torch.tensor(2.5), "parameter": nn.Parameter(normal(2, 2)),
        "half": normal(3).half()[1:], "bfloat16": normal(3, 4).bfloat16()[1:, ::2], "double": normal(3), "long": count,
        "int": count.int(), "short": count.short(), "char": count.char(), "byte": count.abs().byte(), "bool": count > 0,
    }
    contiguous = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    files = {
        "views.pth": saved(tensors), "views_4.pth": saved({"state_dict": tensors}, pickle_protocol=4),
        "views_legacy.pth": saved(tensors, _use_new_zipfile_serialization=False), "views.safetensors": safetensors(contiguous),
    }
    as_numpy = {name: t.float() if t.dtype == torch.bfloat16 else t for name, t in contiguous.items()}
    return files, {f"views.{name}": t.numpy() for name, t in as_numpy.items()}


def official():
    return MAE(SIDE, PATCH, 3, (D, DEPTH, HEADS), (E, 1, DECODER_HEADS))


def make_official(images, noise):
    model = singles(randomise(official()))
    state = halves(model.state_dict(), torch.float32)
    files = {
        "visualize.pth": saved({"model": state}),
        "legacy.pth": saved({"model": state}, _use_new_zipfile_serialization=False),
        "archive.pth": of_2021(saved({"model": state})),
        "half.pth": saved({"model": halves(state, torch.float16)}),
        "bfloat16.pth": saved(halves(state, torch.bfloat16), _use_new_zipfile_serialization=False),
    }
    optimizer = torch.optim.AdamW(model.decoder_norm.parameters())
    for p in model.decoder_norm.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    model.load_state_dict({name: tensor.double() for name, tensor in state.items()})
    model.zero_grad()
    files["training.pth"] = saved({
        "model": state, "optimizer": optimizer.state_dict(), "epoch": 7, "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(model="mae_vit_tiny", lr=None, distributed=False, data_path="pictures", **TRAINED),
    })
    decoder = ("decoder", "mask_token")
    files["encoder.pth"] = saved({"model": {name: t for name, t in state.items() if not name.startswith(decoder)}})
    out = mae_numbers("visualize", model(images, noise, 0.75, False), lambda of: mae_tree(model, of))
    out |= mae_numbers("training", model(images, noise, TRAINED["mask_ratio"], True), None)
    out["encoder.latent"] = model.encode(images, torch.arange(SIDE * SIDE).expand(len(images), -1))
    for name in ("half", "bfloat16"):
        rounded = official()
        rounded.load_state_dict({k: t.to(getattr(torch, name.replace("half", "float16"))).double() for k, t in state.items()})
        out |= mae_numbers(name, rounded(images, noise, 0.75, False), None)

    model = randomise(MeanPool())
    model = singles(model)
    files["finetuned.pth"] = saved({"model": halves(model.state_dict(), torch.float32)})
    return files, out | classifier_numbers("finetuned", model(images), model.tree)


def make_hugging_face(images, noise):
    sizes = {
        "hidden_size": D, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "intermediate_size": 20,
        "image_size": SIDE * PATCH, "patch_size": PATCH,
    }
    files, out = {}, {}
    for case, eps, fixed in (("vit_mae", 1e-5, True), ("vit_mae_other_positions", 1e-12, False)):
        model = ViTMAEForPreTraining(ViTMAEConfig(
            **sizes, layer_norm_eps=eps, decoder_hidden_size=E, decoder_num_hidden_layers=1, mask_ratio=0.5,
            decoder_num_attention_heads=DECODER_HEADS, decoder_intermediate_size=30, norm_pix_loss=True,
        ))
        randomise(model)
        table = official()
        for ours, theirs in ((table.pos_embed, model.vit.embeddings.position_embeddings),
                             (table.decoder_pos_embed, model.decoder.decoder_pos_embed)):
            theirs.data = ours.detach().clone() if fixed else normal(*ours.shape)
        model = singles(model)
        files[f"{case}/model.safetensors"], files[f"{case}/config.json"] = folder_of(model.float())
        model = model.double()
        found = model(images, noise=noise)
        tree = (lambda of, model=model: hugging_mae_tree(model, of)) if fixed else None
        out |= mae_numbers(case, (found.loss, found.logits, found.mask), tree)

    model = randomise(ViTForImageClassification(ViTConfig(**sizes, layer_norm_eps=1e-5, num_labels=CLASSES)))
    files["vit/model.safetensors"], files["vit/config.json"] = folder_of(model.float())
    model = model.double()
    return files, out | classifier_numbers("vit", model(images).logits, lambda of: token_tree(model, of))


def main():
    torch.manual_seed(11)
    images, noise = normal(2, SIDE * PATCH, SIDE * PATCH, 3), on_grid(torch.rand(2, SIDE * SIDE), 20)
    out = {"images": images, "noise": noise, "labels": LABELS}
    assert all(len(row.unique()) == len(row) for row in noise), "equal noise: no defined order"
    pictures = images.permute(0, 3, 1, 2).contiguous()
    for files, numbers in (make_official(pictures, noise), make_hugging_face(pictures, noise), make_views()):
        out |= numbers
        for name, data in files.items():
            out[f"file.{name}"] = np.frombuffer(data.encode() if isinstance(data, str) else data, np.uint8)
    arrays = {key: v.detach().numpy() if isinstance(v, torch.Tensor) else v for key, v in out.items()}
    for key, array in arrays.items():
        assert key.startswith("views.") or array.dtype in (np.float64, np.int64, np.uint8), (key, array.dtype)
        assert np.isfinite(array).all(), key
    path = Path(__file__).with_name("pretrained.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path.name} {len(arrays)} arrays {path.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    main()
