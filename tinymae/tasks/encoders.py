"""A trained encoder, ours or a published one, and its features."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinymae.images.pixels import to_pixels
from tinymae.messages import message as _
from tinymae.models.fine_tuning import resize_mae, resize_vit
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.models.patch_encoder import encoder_features
from tinymae.models.vit import ViTConfig, vit_init, vit_positions
from tinymae.train import checkpoint
from tinymae.weights import published
from tinymae.weights.preparation import Preparation, preparation
from tinymae.weights.shipped import is_model, read_model

OURS = Preparation()


@dataclass(frozen=True, eq=False)
class Encoder:
    """A trained model whose encoder is used."""

    model: str                          # "mae" or "vit"
    config: MAEConfig | ViTConfig
    params: dict                        # of the whole model
    preparation: Preparation = OURS     # of the images it was trained on

    def features(self, pictures: np.ndarray, rows: int = 256) -> np.ndarray:
        """Features (N, 2 D), float32, of uint8 images (N, rows, cols, C) of any size; `rows` at a time."""
        pictures = self.preparation.fit(pictures, self.config.img_size, self.config.in_chans)
        mean, std = (np.asarray(value, np.float32) for value in (self.preparation.mean, self.preparation.std))
        parts = (to_pixels(pictures[start : start + rows], mean=mean, std=std) for start in range(0, len(pictures), rows))
        return np.concatenate([features(part, self.params, self.config) for part in parts])


def load_encoder(
    folder: Path | str, *, heads: int | None = None, img_size: int | tuple[int, int] | None = None, key: str | None = None,
) -> Encoder:
    """The encoder that a training run left in a folder, or of a published model.

    Parameters
    ----------
    folder : a folder with mae.npz or vit.npz, one of these files, a masked autoencoder that `weights.shipped.write_model`
        wrote, or what `weights.published.load_published_encoder` reads
    heads : of published weights that do not say it; or None
    key : of the model to read in a file that has several, such as "teacher"; see `weights.read.read_weights`
    img_size : of the images to come, if it is not the model's: its positions are interpolated; or None

    Raises
    ------
    FileNotFoundError, ValueError
        as `train.checkpoint.load`; if the folder has neither model, or both, or a number of heads other than the one given
    """
    path = Path(folder)
    if is_published(path):
        config, params = published.load_published_encoder(path, heads=heads, img_size=img_size, key=key)
        prepared = preparation(path, key=key)
        prepared.check(config.img_size if img_size is None else None, config.in_chans)
        return Encoder("vit", config, params, prepared)
    if key is not None:
        raise ValueError(_("{path}: holds one model of ours, got the key {key!r}: leave it out", path=path, key=key))
    if path.is_dir():
        found = [file for file in (path / "mae.npz", path / "vit.npz") if file.is_file()]
        if len(found) != 1:
            wrong = _("{folder}: expected a folder with mae.npz or vit.npz, it has neither: give the file itself",
                      folder=folder)
            if found:
                wrong = _("{folder}: expected a folder with mae.npz or vit.npz, it has both: give the file itself",
                      folder=folder)
            raise ValueError(wrong)
        path = found[0]
    model = "vit" if path.name == "vit.npz" else "mae"
    if path.suffix == ".safetensors":
        config, params, _extra = read_model(path, "mae")
    else:
        saved = checkpoint.load(path, model, *((ViTConfig, vit_init) if model == "vit" else (MAEConfig, mae_init)))
        config, params = saved.config, saved.params
    if heads not in (None, config.num_heads):
        raise ValueError(_("{path}: has {num_heads} heads, got heads={heads}: leave the number out",
                           path=path, num_heads=config.num_heads, heads=heads))
    if img_size is not None and model == "vit":
        params, config = resize_vit(params, config, img_size)
    elif img_size is not None:
        config = resize_mae(config, img_size)
    return Encoder(model, config, params)


def is_published(path: Path) -> bool:
    """Whether a file or folder is to be read as a published model: all files are but ours, and folders with a config.json."""
    is_file = path.is_file() or path.suffix in (".pth", ".bin", ".safetensors")
    return (path / "config.json").is_file() or (is_file and path.suffix != ".npz" and not is_model(path))


def features(images: np.ndarray, params: dict, config: MAEConfig | ViTConfig) -> np.ndarray:
    """Features of images, nothing hidden.

    Parameters
    ----------
    images : ndarray of shape (B, rows, cols, C), float32 or float64, in the units of `images.pixels.to_pixels`
    params : tree of `models.mae.mae_init` or `models.vit.vit_init`, dtype of images
    config : of the model

    Returns
    -------
    ndarray of shape (B, 2 D): the class token, and the mean of the patches
    """
    if isinstance(config, MAEConfig):
        positions, _decoder = config.position_tables(images.dtype)
    else:
        positions = vit_positions(params, config, images.dtype)
    latent = encoder_features(
        images, params["encoder"], positions, heads=config.num_heads, patch_size=config.patch_size, eps=config.eps
    )
    return np.concatenate([latent[:, 0], latent[:, 1:].mean(axis=1)], axis=1)
