"""Restore a photograph of yours: read it, hide a part of it, restore that with a model, write it.

    photo.jpg, mask, model  -->  the photograph with what was hidden restored, and a panel that shows how
"""
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from tinymae.files import whole_file
from tinymae.images.hide import MASKS, hidden_patches
from tinymae.images.load import load_picture
from tinymae.images.pixels import MEAN
from tinymae.images.resize import by_band
from tinymae.images.sources import unseen_photos
from tinymae.messages import message as _
from tinymae.models.fine_tuning import resize_mae
from tinymae.models.mae import MAEConfig, mae_init
from tinymae.tasks.photograph import DETAIL, PhotoModel, Restored, fitting_detail, grid_of, hidden_pixels, restore_photo
from tinymae.train import checkpoint
from tinymae.train.parallel import Workers
from tinymae.weights.shipped import read_model, shipped


def own_model(model: Path | str | None = None, img_size: int | tuple[int, int] | None = None) -> PhotoModel:
    """A model that was trained here.

    Parameters
    ----------
    model : the folder that holds mae.npz, that file, or a .safetensors file that `export --to tinymae` wrote; None for the
        model that comes with the package
    img_size : of an image, or of the tiles of a model that was trained on crops; None for the one it was trained with. For any
        other, positions are interpolated

    Raises
    ------
    FileNotFoundError, ValueError
        if there is no such file, it is damaged or no masked autoencoder, or the model's channels are neither 1 nor 3
    """
    path = shipped("mae") if model is None else Path(model)
    if path.suffix == ".safetensors":
        config, params, extra = read_model(path, "mae")
    else:
        saved = checkpoint.load(path / "mae.npz" if path.is_dir() else path, "mae", MAEConfig, mae_init)
        config, params, extra = saved.config, saved.params, saved.extra
    if config.in_chans not in (1, 3):
        raise ValueError(_("{path}: a model of {channels} channels cannot restore a photograph: it has 1 or 3",
                           path=path, channels=config.in_chans))
    if "crops" not in extra:
        raise ValueError(_("{path}: does not say whether it was trained on crops: expected a file that train_mae wrote",
                           path=path))
    config = config if img_size is None else resize_mae(config, img_size)
    return PhotoModel(config, params, DETAIL if extra["crops"] else None, turned=bool(extra["crops"]))


def published_model(
    weights: Path | str, img_size: int | tuple[int, int] | None = None, *, heads: int | None = None,
    decoder_heads: int | None = None, norm_pix_loss: bool | None = None, key: str | None = None,
) -> PhotoModel:
    """A published masked autoencoder: an official .pth, or a Hugging Face folder.

    Parameters
    ----------
    img_size : as `own_model`
    weights, heads, decoder_heads, norm_pix_loss, key : as `weights.published.load_mae`

    Differs: the demo notebook of He et al. squeezes the photograph into a square; here it keeps its shape, and a long one is
    restored in several tiles. Which patches are hidden depends on our seed, not PyTorch's. A model of normalised pixels is
    shown with the contrast of the visible patches: the notebook takes that of the hidden ones, which are part of the answer.
    """
    from tinymae.weights.preparation import preparation
    from tinymae.weights.published import load_mae

    config, params = load_mae(
        weights, heads=heads, decoder_heads=decoder_heads, norm_pix_loss=norm_pix_loss, img_size=img_size, key=key
    )
    prepared = preparation(weights, key=key)
    prepared.check(config.img_size if img_size is None else None, config.in_chans)
    if config.in_chans != 3:
        raise ValueError(_("{path}: a model of {channels} channels cannot restore a photograph: expected 3",
                           path=weights, channels=config.in_chans))
    mean, std = (np.array(value, np.float32) for value in (prepared.mean, prepared.std))
    return PhotoModel(config, params, mean=mean, std=std)


def reconstruct(
    picture: Path | str, model: PhotoModel, out: Path | str, *, figure: Path | str | None = None, mask: Path | str = "random",
    mask_ratio: float | None = None, detail: int | None = None, seed: int = 1, threads: int | None = None, bar: bool = False,
) -> Restored:
    """Hide a part of a photograph, restore it, and write the result, which has the size of the photograph.

    Parameters
    ----------
    picture : an image file of any size and mode, or the name of a photograph of `images.sources.unseen_photos`, such as "cat"
    model : of `own_model` or `published_model`
    out : the image to write, in any format that Pillow writes
    figure : the .png of the panel to write: what the model saw, what it made of it, and the original; or None
    mask : "random", "block" or "grid", as `images.hide.hidden_patches`; or an image file of the photograph's size, white where
        the photograph is to be restored
    mask_ratio : fraction of the patches to hide, of the first three; None for the one the model was trained with
    detail : patches along the shorter side of the photograph; None for as many as suits the model and the mask
    seed : which patches are hidden
    threads : None for one per core
    bar : show progress

    Raises
    ------
    ValueError
        if a file is not an image, the mask does not fit, detail is below 1, or `out` has no suffix of a format
    OSError
        if a file cannot be read or written
    """
    if detail is not None and detail < 1:
        raise ValueError(_("expected at least 1 patch along the shorter side, got --detail {detail}", detail=detail))
    writes = _writer(Path(out))
    if figure is not None and Path(figure).suffix.lower() != ".png":
        raise ValueError(_("{figure}: expected the name of a .png for the figure", figure=figure))
    samples = {} if Path(picture).exists() or Path(picture).suffix else unseen_photos()
    photo = samples[str(picture)] if str(picture) in samples else load_picture(picture)
    if (photo == photo[..., :1]).all():
        photo = photo[..., :1]                                  # a grey photograph stays grey
    if model.config.in_chans == 1 and photo.shape[2] == 3:
        photo = np.asarray(Image.fromarray(photo).convert("L"))[..., None]
    ratio = model.config.mask_ratio if mask_ratio is None else mask_ratio
    if mask in MASKS:
        detail = detail or model.detail or min(model.config.grid)
        grid = grid_of(photo.shape, detail, model.config)
        hidden = hidden_pixels(hidden_patches(mask, grid, ratio, np.random.default_rng(seed)), photo.shape)
    else:
        if mask_ratio is not None:
            raise ValueError(_("{mask}: a painted mask says itself what is hidden: leave the mask ratio out", mask=mask))
        hidden = load_mask(mask, photo.shape)
        detail = detail or (fitting_detail(hidden, model.config) if model.detail else min(model.config.grid))
    with Workers(os.cpu_count() if threads is None else threads) as workers:
        restored = restore_photo(
            photo, hidden, model.params, model.config, detail=detail, turned=model.turned, mean=model.mean, std=model.std,
            mapped=_with_bar(workers.map) if bar else workers.map,
        )
    with whole_file(out) as file:
        writes(Image.fromarray(restored.photo.squeeze(2) if restored.photo.shape[2] == 1 else restored.photo), file)
    if figure is not None:
        from tinymae.plot.style import styled  # matplotlib is slow to import: only when we draw

        with styled():                                          # the title in a language that the figure can show
            title = _("{name}, {ratio:.0%} hidden", name=Path(picture).name, ratio=restored.hidden.mean())
            draw_restored(restored, model.config, title, figure, photo=photo)
    return restored


def load_mask(path: Path | str, shape: tuple[int, ...]) -> np.ndarray:
    """A painted mask as bool (rows, cols), True where the image is light. Raises a ValueError if it has another size."""
    if not Path(path).exists():
        raise FileNotFoundError(_("no file {path!r}: expected a mask {masks}, or an image file",
                                  path=str(path), masks=", ".join(MASKS)))
    painted = load_picture(path)
    if painted.shape[:2] != shape[:2]:
        size, own = (f"{cols} x {rows}" for rows, cols in (shape[:2], painted.shape[:2]))
        raise ValueError(_("{path}: expected a mask of the photograph's size, {size} pixels, got {own}",
                           path=path, size=size, own=own))
    return painted.mean(axis=2) > 127


def _writer(out):
    """A function(image, file) that writes in the format of a suffix. Raises a ValueError if Pillow writes no such format."""
    formats = {suffix: name for suffix, name in Image.registered_extensions().items() if name in Image.SAVE}
    name = formats.get(out.suffix.lower())
    if name is None or out.is_dir():
        raise ValueError(_("{out}: expected the name of an image to write, such as restored.png or restored.jpg", out=out))
    options = {"quality": 95} if name in ("JPEG", "WEBP") else {}
    return lambda image, file: image.save(file, format=name, **options)


def _with_bar(mapped):
    def shown(function: Callable, items: list) -> Iterator:
        layout = _("{percentage:3.0f} % |{bar}| {remaining} left")
        return tqdm(mapped(function, items), total=len(items), leave=False, bar_format=layout)

    return shown


def draw_restored(
    restored: Restored, config: MAEConfig, title: str, path: Path | str, *, photo: np.ndarray | None = None
) -> Path:
    """Draw what the model saw of a photograph, what it made of it, and the original: a .png of `plot.reconstructions`.

    Parameters
    ----------
    photo : uint8 (rows, cols, C), the photograph that was restored: it and the result are drawn in their own resolution. None
        for that of the model, which sees few pixels of a large photograph
    """
    from tinymae import plot  # matplotlib is slow to import: only when we draw
    from tinymae.plot.style import styled

    (down, across), (high, wide) = restored.hidden.shape, config.grid
    pictures = (restored.masked, restored.reconstruction, restored.pasted, restored.small)
    if photo is not None:
        removed = hidden_pixels(restored.hidden, photo.shape)[..., None]
        enlarged = by_band(restored.reconstruction, lambda band: band.resize(photo.shape[1::-1], Image.Resampling.BILINEAR))
        pictures = np.where(removed, np.uint8(round(255 * MEAN)), photo), enlarged, restored.photo, photo
    with styled():                                              # the caption in a language that the figure can show
        caption = _(
            "How to read it: {ratio:.0%} of {down} x {across} patches are hidden. The model restores tiles of {high} x {wide} "
            "patches that overlap; where they do, their mean is taken. The speckles in the third image are the visible patches "
            "as the model predicts them: the loss counts hidden patches only, so it never learns to. The second image has the "
            "true ones there.",
            ratio=restored.hidden.mean(), down=down, across=across, high=high, wide=wide,
        )
    figure = plot.reconstructions(*(it[None] for it in pictures), title=title, mode=restored.mode, caption=caption)
    return plot.save(figure, path)
