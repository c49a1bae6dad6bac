"""A model that was trained here as one small file: its folder in, a .safetensors file of `weights.shipped` out."""
from pathlib import Path

from tinymae.messages import message as _
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.tasks.translate import Translator
from tinymae.train import checkpoint
from tinymae.weights.shipped import write_model


def export_model(folder: Path | str, file: Path | str) -> Path:
    """Write a trained masked autoencoder or translator as one file, in half precision, without what only training needs.

    Parameters
    ----------
    folder : with mae.npz, that `train_mae` wrote to, or transformer.npz, that `train_translator` or `average` wrote to
    file : ends in .safetensors. Beside the parameters, it has what the images of a masked autoencoder were ("crops", "data"),
        or the languages of a translator and the seed of its validation pairs

    Raises
    ------
    ValueError
        if the folder has neither model, or both, and as `train.checkpoint.load` and `weights.shipped.write_model`
    FileNotFoundError, OSError
        if there is no such folder, or the file cannot be written
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(_("{folder}: no such folder: expected one that train mae or train translate wrote to",
                                  folder=folder))
    found = [name for name in ("mae.npz", "transformer.npz") if (folder / name).is_file()]
    if len(found) != 1:
        wrong = _("{folder}: expected a folder with mae.npz or transformer.npz, it has neither", folder=folder)
        if found:
            wrong = _("{folder}: expected a folder with mae.npz or transformer.npz, it has both", folder=folder)
        raise ValueError(wrong)
    if found == ["mae.npz"]:
        model = checkpoint.load(folder / "mae.npz", "mae", MAEConfig, mae_init)
        extra = {name: model.extra[name] for name in ("crops", "data") if name in model.extra}
    else:
        model = Translator.load(folder)
        source, target = (language.content() for language in model.languages)
        extra = {"source": source, "target": target, "options": {"seed": model.seed}}
    return write_model(file, model.config, model.params, extra)
