"""Fresh training pictures: from few photographs, crops that never repeat; from many small pictures, a random few.

Two photographs are little to learn from: a network soon knows them by heart. What it should learn instead is what all
pictures share, so everything else is made random: where a crop lies, how large it is and how it is turned, its shape, the eight
ways to lay a square on a square, its colours, its contrast, which side is light, and what it borders on.
"""
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from tinymae.images.pixels import resize_picture, to_pixels


def picture_bank(pictures, size, sides=(0.1, 0.5), most=144):
    """Photographs at many scales, squeezed and stretched, upright and turned, so that a crop is a slice.

    Parameters
    ----------
    pictures : list of ndarray uint8, (rows, cols, C), C 1 or 3
    size : int, side of the crops to come
    sides : (float, float), the smallest and the largest crop, as a share of the photograph's shorter side
    most : int, variants in all, shared out among the photographs: at most 72 of each, at least 2

    Returns
    -------
    list of ndarray uint8 (rows, cols, C), no side below `size`
    """
    count = min(72, max(2, most // len(pictures)))
    jobs = []
    for picture in pictures:
        image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
        smallest = max(sides[0] * min(image.size), 0.9 * size)              # hardly ever larger than life
        largest = max(sides[1] * min(image.size), smallest)
        for i in range(count):
            side = smallest * (largest / smallest) ** (i / (count - 1))
            shape = (0.8, 1.0, 1.25)[i % 3]
            angle = 10 + 70 * (0.618 * i % 1) if i % 2 else 0               # golden section: never twice the same angle
            jobs.append((image, size / side, shape, angle, size))
    with ThreadPoolExecutor() as pool:                                      # Pillow lets go of the interpreter lock
        return list(pool.map(lambda job: _variant(*job), jobs))


def _variant(image, scale, shape, angle, size):
    """The picture turned, its corners cut off, scaled and squeezed: uint8 (rows, cols, C)."""
    if angle:
        wide, high = image.size
        side = min(wide, high) / (math.cos(math.radians(angle)) + math.sin(math.radians(angle)))    # fits in the turned one
        box = ((wide - side) / 2, (high - side) / 2, (wide + side) / 2, (high + side) / 2)
        image = image.rotate(angle, Image.Resampling.BICUBIC).crop([round(edge) for edge in box])
    wide, high = (max(size, round(image.size[i] * scale * shape**power)) for i, power in ((0, 0.5), (1, -0.5)))
    variant = np.asarray(image.resize((wide, high), Image.Resampling.LANCZOS))
    return variant.reshape(high, wide, -1)


def random_crops(bank, size, rng, count):
    """Crops from a bank, changed in every way that leaves them pictures.

    Parameters
    ----------
    bank : list of ndarray uint8 (rows, cols, C), all with the same C
    size : int
    rng : numpy.random.Generator
    count : int, B

    Returns
    -------
    pixels : float32 ndarray of shape (B, size, size, C), in the units of `to_pixels`
    """
    weights = np.sqrt([picture.shape[0] * picture.shape[1] for picture in bank])
    crops = np.empty((count, size, size, bank[0].shape[2]), np.uint8)
    for crop, which in zip(crops, rng.choice(len(bank), count, p=weights / weights.sum()), strict=True):
        picture = bank[which]
        places = [[rng.integers(side - size + 1) for side in picture.shape[:2]] for _ in range(2)]
        tries = [picture[top : top + size, left : left + size] for top, left in places]
        crop[:] = _turn(max(tries, key=np.var), rng.integers(8))            # of two, the one with more to see: skies are flat
    return _recolour(_paste(to_pixels(crops), rng), rng)


def random_pictures(pictures, rng, count):
    """`count` of the pictures (N, rows, cols, C) uint8 as they are, as float32 pixels (count, rows, cols, C)."""
    return to_pixels(pictures[rng.integers(len(pictures), size=count)])


def _turn(crop, way):
    """One of the eight ways to lay a square on a square."""
    crop = crop[::-1] if way & 1 else crop
    crop = crop[:, ::-1] if way & 2 else crop
    return crop.swapaxes(0, 1) if way & 4 else crop


def _paste(pixels, rng):
    """Lay, over every second picture, a part of another behind a straight edge, or all of it half transparent."""
    count, size = pixels.shape[:2]
    choice, other = rng.random(count), pixels[rng.permutation(count)]
    angle, offset = rng.uniform(0, 2 * np.pi, count), rng.uniform(-0.35, 0.35, count)
    down, across = np.mgrid[:size, :size] - (size - 1) / 2
    side = np.multiply.outer(np.cos(angle), down) + np.multiply.outer(np.sin(angle), across)
    share = np.clip(side - size * offset[:, None, None] + 0.5, 0, 1)        # (B, size, size), an edge one pixel soft
    share[choice > 0.35] = 0
    blend = (choice > 0.35) & (choice < 0.5)
    share[blend] = rng.uniform(0, 0.5, blend.sum())[:, None, None]
    pixels += (other - pixels) * share[..., None].astype(pixels.dtype)
    return pixels


def _recolour(pixels, rng):
    """Mix the channels of each picture, fade some towards grey, and change contrast, sign and brightness. In place."""
    count, channels = len(pixels), pixels.shape[-1]
    mix = np.stack([np.eye(channels)[rng.permutation(channels)] for _ in range(count)])     # (B, C, C)
    fade = (rng.random(count) * (rng.random(count) < 0.8))[:, None, None]
    mix += (1 / channels - mix) * fade
    contrast = np.exp(rng.normal(0, 0.3, count)) * rng.choice([1, 1, -1], count)            # every third a negative
    mix *= contrast[:, None, None]
    middle = rng.uniform(-1, 1, (count, 1)) + rng.normal(0, 0.4, (count, channels))
    mean = pixels.mean(axis=(1, 2), dtype=np.float64)                                       # (B, C)
    shift = middle - np.einsum("bc,bcd->bd", mean, mix)
    flat = pixels.reshape(count, -1, channels)
    pixels = (flat @ mix.astype(pixels.dtype) + shift[:, None].astype(pixels.dtype)).reshape(pixels.shape)
    return np.clip(pixels, *to_pixels(np.array([0, 255], np.uint8)), out=pixels)            # no blacker than black


def fit_whole(picture, size):
    return picture if picture.shape[:2] == (size, size) else resize_picture(picture, size)


def unseen_crops(photo, size, count, sides=(0.1, 0.3), seed=0):
    """The crops of a photograph that a model is judged by: always the same ones.

    No model was trained on `grace_hopper.jpg`, but the settings of the demo were chosen by the error on other crops of it.

    Parameters
    ----------
    photo : ndarray uint8 (rows, cols, C)
    size, count : int
    sides : (float, float), how much of the photograph's shorter side a crop covers, evenly in between
    seed : int

    Returns
    -------
    ndarray uint8 (count, size, size, C)
    """
    rng = np.random.default_rng(seed)
    rows, cols, channels = photo.shape
    image = Image.fromarray(photo[..., 0] if channels == 1 else photo)
    crops = []
    for _ in range(count):
        side = rng.uniform(*sides) * min(rows, cols)
        left, top = rng.uniform(0, cols - side), rng.uniform(0, rows - side)
        box = (left, top, left + side, top + side)
        crops.append(np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, box)).reshape(size, size, channels))
    return np.stack(crops)
