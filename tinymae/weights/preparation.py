"""How a published model wants its images: to which size they are scaled and how, and which mean and standard deviation its
pixels have. The files beside the weights say it:

    preprocessor_config.json    Hugging Face: size, resample, rescale_factor, image_mean, image_std
    config.json                 timm: pretrained_cfg with input_size, interpolation, crop_pct, mean, std
                                this package, in what it exported: image_mean, image_std

Hugging Face and timm write a pixel of byte p as (p f - m) / s, with the rescale_factor f; here it is (p / 255 - mean) / std, so
mean = m / (255 f) and std = s / (255 f). If no file says anything, ImageNet's are assumed, and a line on stderr says so.
"""
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tinymae.files import visible
from tinymae.images.labelled import fit_pictures
from tinymae.images.pixels import MEAN, STD
from tinymae.images.resize import by_band, resize_picture
from tinymae.messages import message as _
from tinymae.ops.patches import image_sides
from tinymae.weights.inspect import find_weights, perhaps_metas, read_json, recognise, stated
from tinymae.weights.names import known_names
from tinymae.weights.read import list_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSOR = "preprocessor_config.json"
DONE = {"do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb"}     # all others are refused
FILTERS = {int(it): it for it in Image.Resampling} | {it.name.lower(): it for it in Image.Resampling}


@dataclass(frozen=True)
class Preparation:
    """What to do with images before a model."""

    mean: float | tuple[float, ...] = MEAN      # for `images.pixels.to_pixels`
    std: float | tuple[float, ...] = STD
    size: tuple[int, int] | None = None         # (rows, cols) of the result; None: that of the model
    edge: int | tuple[int, int] | None = None   # scale the shorter side, or both, to this, and cut `size` out of the middle
    squeeze: bool = False                       # scale both sides to `size`, whatever the shape. Neither: see `resize_picture`
    resample: Image.Resampling = Image.Resampling.LANCZOS

    def check(self, img_size: int | tuple[int, int] | None, channels: int) -> None:
        """Raise a ValueError unless a model of this size (None: of any) and these channels takes what comes out."""
        if img_size is not None and self.size not in (None, image_sides(img_size)):
            raise ValueError(_("the model takes images of {own} pixels, and the files beside it scale them to {size}: are "
                               "they of another model? Or give img_size (--img-size)",
                               own=image_sides(img_size), size=self.size))
        if {np.size(self.mean), np.size(self.std)} - {1, channels}:
            raise ValueError(_("expected the mean and standard deviation of pixels of {channels} channels, got {mean} and "
                               "{std}: write image_mean and image_std into a {file} beside the weights",
                               channels=channels, mean=self.mean, std=self.std, file=PREPROCESSOR))

    def fit(self, images: np.ndarray, size: int | tuple[int, int], channels: int) -> np.ndarray:
        """uint8 images (N, rows, cols, C) as (N, *size, channels), as `images.labelled.fit_pictures` does."""
        return fit_pictures(images, size, channels, self.resize)

    def resize(self, picture: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
        """One uint8 image (rows, cols, C) as (*size, C)."""
        rows, cols = image_sides(size)
        if self.edge is not None:
            larger = min(rows, cols) / min(self.size)           # another size keeps the part that is cut out
            if isinstance(self.edge, tuple):
                down, across = (round(side * larger) for side in self.edge)
            else:
                edge, shorter = round(self.edge * larger), min(picture.shape[:2])
                down, across = (int(edge * side / shorter) for side in picture.shape[:2])
            if down < rows or across < cols:
                scaled = _("{shape}, which is scaled to {down} x {across}", shape=picture.shape, down=down, across=across)
                raise ValueError(_("expected an image that covers {rows} x {cols} when it is scaled, got {scaled}",
                                   rows=rows, cols=cols, scaled=scaled))
            whole = by_band(picture, lambda image: image.resize((across, down), self.resample))
            top, left = (down - rows) // 2, (across - cols) // 2
            return whole[top : top + rows, left : left + cols]
        if self.squeeze:
            return by_band(picture, lambda image: image.resize((cols, rows), self.resample))
        return resize_picture(picture, (rows, cols), self.resample)


def preparation(path: Path | str, *, key: str | None = None) -> Preparation:
    """What the files beside published weights say about images; ours for a file that this package wrote.

    Parameters
    ----------
    path, key : as `weights.inspect.read_published`

    Raises
    ------
    FileNotFoundError, ValueError
        as `read_published`, and if something is asked for that is not done here; the message names the file and the entry
    """
    file, config = find_weights(path)
    beside = file.with_name(PREPROCESSOR)
    try:
        if beside.is_file():
            return _hugging_face(read_json(beside))
        if "pretrained_cfg" in config:
            return _timm(_entry(config, "pretrained_cfg", dict))
        if "architecture" in config and "mean" in config:       # timm's files of older years
            return _timm(config)
        if "image_mean" in config:
            return Preparation(*_statistics(config, "image_mean", "image_std"))
    except ValueError as error:
        file = beside if beside.is_file() else file.with_name("config.json")
        raise ValueError(_("{file}: {reason}", file=file, reason=error)) from error
    names, meta = list_weights(file, key=key)
    if "eps" in stated(meta):
        return Preparation()
    kind = recognise(known_names([name for name, _shape, _dtype in names])[0])
    if not perhaps_metas(kind, meta, file):                     # the official code uses ImageNet's, always
        print(visible(
            _("{path}: no file says how its pixels are normalised: ImageNet's mean and standard deviation are assumed; a "
              "{file} beside the weights with image_mean and image_std would say", path=path, file=PREPROCESSOR)
        ), file=sys.stderr)
    return Preparation(IMAGENET_MEAN, IMAGENET_STD)


def _hugging_face(config):
    """Preparation of a preprocessor_config.json."""
    factor = _entry(config, "rescale_factor", float, 1 / 255) if _entry(config, "do_rescale", bool, True) else 1.0
    if not 0 < factor < math.inf:
        raise ValueError(_("expected a positive rescale_factor, got {factor}", factor=factor))
    mean, std = (0.0, 1.0)
    if _entry(config, "do_normalize", bool, True):
        mean, std = _statistics(config, "image_mean", "image_std")
    mean, std = (_scaled(value, 255 * factor) for value in (mean, std))
    others = {key for key, value in config.items() if key.startswith("do_") and value} - DONE
    others |= {key for key in ("rescale_offset", "offset", "crop_pct") if config.get(key)}
    if others:
        raise ValueError(_("expected no {name}, got {got!r}: that is not done here", name=min(others), got=config[min(others)]))
    if not _entry(config, "do_resize", bool, True):
        if _entry(config, "do_center_crop", bool, False):
            raise ValueError(_("expected do_resize true with do_center_crop, got false: images of other sizes are scaled here"))
        return Preparation(mean, std)
    resample = _filter(config.get("resample", 2))               # their default, bilinear
    size = config.get("size")
    cut = _entry(config, "do_center_crop", bool, False)
    if isinstance(size, dict) and set(size) == {"height", "width"}:
        size = (size["height"], size["width"])
    elif isinstance(size, dict) and set(size) == {"shortest_edge"} and cut:
        size = size["shortest_edge"]
    elif isinstance(size, dict):
        raise ValueError(_("expected size as height and width, or as shortest_edge with do_center_crop, got {size!r}",
                           size=size))
    sides = image_sides(size)
    if not cut:
        return Preparation(mean, std, sides, squeeze=True, resample=resample)
    crop = config.get("crop_size")
    crop = image_sides((crop.get("height"), crop.get("width")) if isinstance(crop, dict) else crop)
    return Preparation(mean, std, crop, edge=size, resample=resample)


def _timm(config):
    """Preparation of timm's pretrained_cfg."""
    mean, std = _statistics(config, "mean", "std")
    size = config.get("input_size")
    if not isinstance(size, list) or len(size) != 3:
        raise ValueError(_("expected input_size as [channels, rows, cols], got {size!r}", size=size))
    rows, cols = image_sides(tuple(size[1:]))
    fraction, mode = _entry(config, "crop_pct", float, 0.875), config.get("crop_mode") or "center"
    if not 0 < fraction <= 1 or mode != "center":
        raise ValueError(_("expected crop_pct in (0, 1] and crop_mode 'center', got {fraction} and {mode!r}",
                           fraction=fraction, mode=mode))
    resample = _filter(config.get("interpolation", "bicubic"))                # their default
    return Preparation(mean, std, (rows, cols), edge=math.floor(min(rows, cols) / fraction), resample=resample)


def _statistics(config, *names):
    """Mean and standard deviation, each a number or a tuple of one for each channel."""
    mean, std = found = [config.get(name) for name in names]
    values = [value if isinstance(value, list) else [value] for value in found]
    numbers = [number for value in values for number in value]
    wrong = any(type(number) not in (int, float) or not math.isfinite(number) for number in numbers)
    if wrong or not all(values) or min(values[1]) <= 0:
        raise ValueError(_("expected {name} and {other} as finite numbers, the second positive, got {mean!r} and {std!r}",
                           name=names[0], other=names[1], mean=mean, std=std))
    return [tuple(map(float, value)) if isinstance(value, list) else float(value) for value in found]


def _scaled(value, factor):
    if abs(factor - 1) < 1e-12:                                 # 255 * (1 / 255) may not be 1 to the last bit
        return value
    return tuple(part / factor for part in value) if isinstance(value, tuple) else value / factor


def _filter(value):
    if type(value) not in (int, str) or value not in FILTERS:
        raise ValueError(_("expected a filter of Pillow, {names}, got {value!r}",
                           names=", ".join(it.name.lower() for it in Image.Resampling), value=value))
    return FILTERS[value]


def _entry(config, name, kind, default=None):
    """An entry of this type, or the default if it is missing. Raises a ValueError for any other type."""
    value = config.get(name, default)
    if type(value) is int and kind is float:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(_("expected {name} as {kind}, got {value!r}", name=name, kind=kind.__name__, value=value))
    return value
