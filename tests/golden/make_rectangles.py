"""Models of rectangular images, and square ones used at other sizes: rectangles.npz beside this file; see README.md.

Nothing here imports tinymae. The files are those of Hugging Face, with random tensors; the numbers are computed in float64.
"""
import numpy as np
import torch
from make_golden import normal, on_grid, randomise, save
from make_pretrained import folder_of, singles
from transformers import ViTConfig, ViTForImageClassification, ViTMAEConfig, ViTMAEForPreTraining

PATCH, SIZES = 4, {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "patch_size": 4}
DECODER = {
    "decoder_hidden_size": 4, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 1, "decoder_intermediate_size": 6,
}


def pictures(rows, cols):
    return normal(2, 3, rows, cols)


def vit(image_size):
    return singles(randomise(ViTForImageClassification(ViTConfig(**SIZES, image_size=image_size, num_labels=3))))


def mae(side):
    model = randomise(ViTMAEForPreTraining(ViTMAEConfig(**SIZES, **DECODER, image_size=side, mask_ratio=0.5)))
    model.vit.embeddings.position_embeddings.data = normal(*model.vit.embeddings.position_embeddings.shape)
    model.decoder.decoder_pos_embed.data = normal(*model.decoder.decoder_pos_embed.shape)
    return singles(model)


def main():
    torch.manual_seed(12)
    out, files = {}, {}
    model, images = vit([8, 16]), pictures(8, 16)
    files["rectangle"] = folder_of(model.float())
    out |= {"rectangle.images": images, "rectangle.logits": model.double()(images).logits}
    model = vit(12)
    files["square"] = folder_of(model.float())
    for case, size in (("wider", (8, 20)), ("larger", (16, 24))):
        images = pictures(*size)
        out[f"square.{case}.images"] = images
        out[f"square.{case}.logits"] = model.double()(images, interpolate_pos_encoding=True).logits
    model, images = mae(12), pictures(8, 20)
    files["mae"] = folder_of(model.float())
    noise = on_grid(torch.rand(2, 10), 20)
    found = model.double().vit(images, noise=noise, interpolate_pos_encoding=True)
    out |= {"mae.images": images, "mae.noise": noise}
    out |= {"mae.latent": found.last_hidden_state, "mae.ids_restore": found.ids_restore}
    out = {key: v.permute(0, 2, 3, 1) if key.endswith("images") else v for key, v in out.items()}
    for name, (weights, config) in files.items():
        for part, data in (("model.safetensors", weights), ("config.json", config.encode())):
            out[f"file.{name}/{part}"] = np.frombuffer(data, np.uint8)
    save("rectangles.npz", out)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    main()
