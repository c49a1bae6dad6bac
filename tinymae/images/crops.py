"""New training images in every step: from few photographs, random crops; from many small images, a random selection.

Two photographs are few, and a network soon overfits to them. It should learn what all images have in common, so everything
else is made random: the position, size, rotation and shape of a crop, its orientation (the eight symmetries of a square), its
colours, its contrast and sign, and what it borders on.

    photographs  --picture_bank, once-->  variants  --random_crops, in every step-->  float32 pixels (B, size, size, C)
"""
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from tinymae.images.pixels import to_pixels
from tinymae.images.resize import by_band


def picture_bank(
    pictures: list[np.ndarray], size: int, *, sides: tuple[float, float] = (0.1, 0.5), most: int = 144,
) -> list[np.ndarray]:
    """Variants of photographs: many scales, squeezed and stretched, upright and rotated, so that a crop is a slice.

    Parameters
    ----------
    pictures : list of ndarray uint8, (rows, cols, C), any C
    size : side of the crops to come
    sides : the smallest and the largest crop, as a fraction of the photograph's shorter side
    most : number of variants, divided among the photographs: at most 72 of each, at least 2

    Raises
    ------
    ValueError
        if there are no photographs

    Returns
    -------
    list of ndarray uint8 (rows, cols, C), no side below `size`
    """
    if not pictures:
        raise ValueError("picture_bank: expected at least one photograph, got none")
    count = min(72, max(2, most // len(pictures)))
    jobs = []
    for picture in pictures:
        shorter = min(picture.shape[:2])
        smallest = max(sides[0] * shorter, 0.9 * size)                      # enlarged by 1 / 0.9 at most
        largest = max(sides[1] * shorter, smallest)
        for i in range(count):
            side = smallest * (largest / smallest) ** (i / (count - 1))
            shape = (0.8, 1.0, 1.25)[i % 3]
            angle = 10 + 70 * (0.618 * i % 1) if i % 2 else 0               # golden section: no angle comes twice
            jobs.append((picture, size / side, shape, angle, size))
    with ThreadPoolExecutor() as pool:                                      # Pillow releases the interpreter lock
        return list(pool.map(lambda job: _variant(*job), jobs))


def _variant(picture, scale, shape, angle, size):
    """The image rotated, its corners cut off, scaled and squeezed: uint8 (rows, cols, C)."""
    return by_band(picture, lambda image: _vary(image, scale, shape, angle, size))


def _vary(image, scale, shape, angle, size):
    """As `_variant`, for a Pillow image."""
    if angle:
        wide, high = image.size
        side = min(wide, high) / (math.cos(math.radians(angle)) + math.sin(math.radians(angle)))    # fits into the rotated one
        box = ((wide - side) / 2, (high - side) / 2, (wide + side) / 2, (high + side) / 2)
        image = image.rotate(angle, Image.Resampling.BICUBIC).crop([round(edge) for edge in box])
    wide, high = (max(size, round(image.size[i] * scale * shape**power)) for i, power in ((0, 0.5), (1, -0.5)))
    return image.resize((wide, high), Image.Resampling.LANCZOS)


def random_crops(bank: list[np.ndarray], size: int, rng: np.random.Generator, count: int) -> np.ndarray:
    """Crops from a bank, each oriented, mixed and recoloured at random.

    Parameters
    ----------
    bank : list of ndarray uint8 (rows, cols, C), all with the same C, as `picture_bank` returns it
    size : side of the crops
    count : number of crops, B

    Returns
    -------
    pixels : float32 ndarray of shape (B, size, size, C), in the units of `to_pixels`
    """
    weights = np.sqrt([picture.shape[0] * picture.shape[1] for picture in bank])
    crops = np.empty((count, size, size, bank[0].shape[2]), np.uint8)
    for crop, which in zip(crops, rng.choice(len(bank), count, p=weights / weights.sum()), strict=True):
        picture = bank[which]
        corners = [[rng.integers(side - size + 1) for side in picture.shape[:2]] for _ in range(2)]
        tries = [picture[top : top + size, left : left + size] for top, left in corners]
        crop[:] = _orient(max(tries, key=np.var), rng.integers(8))          # of two, the one with more variance: skies are flat
    return _recolour(_paste(to_pixels(crops), rng), rng)


def random_pictures(pictures: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` of the images (N, rows, cols, C) uint8, unchanged, as float32 pixels (count, rows, cols, C)."""
    return to_pixels(pictures[rng.integers(len(pictures), size=count)])


def _orient(crop, symmetry):
    """The crop under one of the eight symmetries of a square, 0 to 7."""
    crop = crop[::-1] if symmetry & 1 else crop
    crop = crop[:, ::-1] if symmetry & 2 else crop
    return crop.swapaxes(0, 1) if symmetry & 4 else crop


def _paste(pixels, rng):
    """Cover half of the images with another one: its part behind a straight edge, or all of it, half transparent. In place."""
    count, size = pixels.shape[:2]
    choice, other = rng.random(count), pixels[rng.permutation(count)]
    angle, offset = rng.uniform(0, 2 * np.pi, count), rng.uniform(-0.35, 0.35, count)
    down, across = np.mgrid[:size, :size] - (size - 1) / 2
    side = np.multiply.outer(np.cos(angle), down) + np.multiply.outer(np.sin(angle), across)
    alpha = np.clip(side - size * offset[:, None, None] + 0.5, 0, 1)        # (B, size, size), opacity; the edge is a pixel wide
    alpha[choice > 0.35] = 0
    blend = (choice > 0.35) & (choice < 0.5)
    alpha[blend] = rng.uniform(0, 0.5, blend.sum())[:, None, None]
    pixels += (other - pixels) * alpha[..., None].astype(pixels.dtype)
    return pixels


def _recolour(pixels, rng):
    """Mix the channels of each image, fade some towards grey, and change contrast, sign and brightness."""
    count, channels = len(pixels), pixels.shape[-1]
    mix = np.stack([np.eye(channels)[rng.permutation(channels)] for _ in range(count)])     # (B, C, C)
    fade = (rng.random(count) * (rng.random(count) < 0.8))[:, None, None]
    mix += (1 / channels - mix) * fade
    contrast = np.exp(rng.normal(0, 0.3, count)) * rng.choice([1, 1, -1], count)            # one in three is a negative
    mix *= contrast[:, None, None]
    middle = rng.uniform(-1, 1, (count, 1)) + rng.normal(0, 0.4, (count, channels))
    mean = pixels.mean(axis=(1, 2), dtype=np.float64)                                       # (B, C)
    shift = middle - np.einsum("bc,bcd->bd", mean, mix)
    flat = pixels.reshape(count, -1, channels)
    pixels = (flat @ mix.astype(pixels.dtype) + shift[:, None].astype(pixels.dtype)).reshape(pixels.shape)
    return np.clip(pixels, *to_pixels(np.array([0, 255], np.uint8)), out=pixels)            # from black to white


def unseen_crops(
    photo: np.ndarray, size: int, count: int, *, sides: tuple[float, float] = (0.1, 0.3), seed: int = 0,
) -> np.ndarray:
    """The crops of a photograph that a model is tested on: always the same ones.

    No model was trained on `grace_hopper.jpg`, but the settings of the demo were chosen by the error on different crops of it.

    Parameters
    ----------
    photo : ndarray uint8 (rows, cols, C)
    size, count : the side of a crop, and the number of crops
    sides : the fraction of the photograph's shorter side that a crop covers is uniform between these two

    Returns
    -------
    ndarray uint8 (count, size, size, C)
    """
    rng = np.random.default_rng(seed)
    rows, cols, _ = photo.shape
    crops = []
    for _ in range(count):
        side = rng.uniform(*sides) * min(rows, cols)
        left, top = rng.uniform(0, cols - side), rng.uniform(0, rows - side)
        box = (left, top, left + side, top + side)
        crops.append(by_band(photo, lambda image, box=box: image.resize((size, size), Image.Resampling.LANCZOS, box)))
    return np.stack(crops)
