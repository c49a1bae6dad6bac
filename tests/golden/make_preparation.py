"""What transformers makes of images before a model, and the features of a ViT on them: preparation.npz beside this file.

Nothing here imports tinymae. The processors are those that work with Pillow, so that numbers can be compared exactly.
"""
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from make_golden import randomise, save
from make_pretrained import folder_of, singles
from transformers import CLIPImageProcessorPil, ViTConfig, ViTImageProcessorPil, ViTModel

SIZE = {"height": 8, "width": 12}
PROCESSORS = {
    "half": ViTImageProcessorPil(size=SIZE, image_mean=[0.5] * 3, image_std=[0.5] * 3),
    "bicubic": ViTImageProcessorPil(size=SIZE, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], resample=3),
    "bytes": ViTImageProcessorPil(size=SIZE, do_rescale=False, image_mean=[100, 110, 120], image_std=[60, 70, 80]),
    "plain": ViTImageProcessorPil(size=SIZE, do_normalize=False),
    "cut": CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=SIZE, do_convert_rgb=False),
}


def main():
    torch.manual_seed(13)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    model = singles(randomise(ViTModel(ViTConfig(**sizes, image_size=[8, 12], patch_size=4), add_pooling_layer=False)))
    weights, config = folder_of(model.float())
    rng = np.random.default_rng(13)
    wide, fitting = rng.integers(0, 256, (3, 20, 25, 3), dtype=np.uint8), rng.integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    out = {"wide": wide, "fitting": fitting, "file.model.safetensors": np.frombuffer(weights, np.uint8)}
    out["file.config.json"] = np.frombuffer(config.encode(), np.uint8)
    for name, processor in PROCESSORS.items():
        with tempfile.TemporaryDirectory() as folder:
            processor.save_pretrained(folder)
            said = json.loads(Path(folder, "preprocessor_config.json").read_text())
        out[f"{name}.preprocessor"] = np.frombuffer(json.dumps(said).encode(), np.uint8)
        for kind, images in (("wide", wide), ("fitting", fitting)):
            pixels = processor(list(images), return_tensors="pt")["pixel_values"]
            latent = model.double()(pixels.double()).last_hidden_state
            out[f"{name}.{kind}"] = torch.cat([latent[:, 0], latent[:, 1:].mean(dim=1)], dim=1).detach().numpy()
    save("preparation.npz", out)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    main()
