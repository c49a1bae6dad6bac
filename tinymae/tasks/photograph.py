"""Restore a photograph of any size with a masked autoencoder of small images. NumPy alone, without threads.

    photograph  --shrink-->  a few pixels a patch  --overlapping tiles, each restored, blended-->  --enlarge-->  photograph

The model knows images of a few patches a side. So the photograph is shrunk until `detail` patches fit along its shorter side,
and cut into tiles of the model's size, each a quarter of a tile from the next. A tile is restored in two orientations, and the
mean is taken. Where tiles overlap, each counts the less the nearer its edge is, so that no edge can be seen.

What was hidden is restored at the smaller scale, and enlarged; what was visible stays as it is, to the last bit.
"""
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinymae.images.pixels import MEAN, STD, check_bytes, to_picture, to_pixels
from tinymae.messages import message as _
from tinymae.models.mae import MAEConfig, mae_restore
from tinymae.ops.patches import image_sides

DETAIL = 48                     # patches along the shorter side of a photograph
LEAST_VISIBLE = 1 / 8           # of a tile's patches, for a detail that is chosen here
TILES_AT_A_TIME, ROWS_AT_A_TIME = 16, 64                        # memory, and what threads share


@dataclass(frozen=True, eq=False)
class PhotoModel:
    """A masked autoencoder, and how it sees photographs."""

    config: MAEConfig
    params: dict
    detail: int | None = None           # patches along the shorter side of a photograph; None: the whole side is one tile
    turned: bool = False                # it was trained on images in all orientations
    mean: float | np.ndarray = MEAN
    std: float | np.ndarray = STD


@dataclass(frozen=True, eq=False)
class Restored:
    """A photograph restored; the small images are uint8 (h, w, C), at the scale at which the model worked."""

    photo: np.ndarray           # uint8, of the photograph's shape: hidden pixels restored, visible ones unchanged
    small: np.ndarray           # the photograph, shrunk
    masked: np.ndarray          # hidden patches mid grey
    reconstruction: np.ndarray  # what the model predicts, for visible patches too
    pasted: np.ndarray          # with the visible patches put back
    hidden: np.ndarray          # bool (down, across): the hidden patches
    mode: str                   # see `models.mae.Reconstruction`


def grid_of(shape: tuple[int, ...], detail: int, config: MAEConfig) -> tuple[int, int]:
    """Patches down and across, for a photograph of this shape (rows, cols, ...).

    There are `detail` along the shorter side, but not more than the photograph has pixels for, and not fewer than a tile has.
    """
    if detail < 1:
        raise ValueError(_("expected a detail of at least 1, the patches along the shorter side, got {detail}", detail=detail))
    shorter = min(shape[:2])
    patch = shorter / min(detail, max(1, shorter // config.patch_size))         # side of a patch, in pixels of the photograph
    return tuple(max(least, round(side / patch)) for side, least in zip(shape[:2], config.grid, strict=True))


def hidden_pixels(hidden: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Hidden patches (down, across) as hidden pixels of a photograph of this shape: bool (rows, cols)."""
    counts = zip(hidden.shape, shape[:2], strict=True)
    rows, cols = (np.repeat(np.arange(count), np.diff(_edges(count, side))) for count, side in counts)
    return hidden[rows[:, None], cols]


def fitting_detail(hidden: np.ndarray, config: MAEConfig) -> int:
    """The finest detail, at most DETAIL, at which every tile has something to see around its holes.

    Parameters
    ----------
    hidden : bool (rows, cols), True = to be restored
    config : the model's

    Notes
    -----
    So a large hole is restored coarsely. If it is too large for every detail, the coarsest is taken: one tile along the shorter
    side of the photograph.
    """
    coarsest = min(config.grid)
    for detail in range(DETAIL, coarsest, -4):
        patches = _any_hidden(hidden, grid_of(hidden.shape, detail, config))
        if all(1 - tile.mean() >= LEAST_VISIBLE for tile in (patches[part] for part in _tiles(patches.shape, config.grid))):
            return detail
    return coarsest


def restore_photo(
    photo: np.ndarray, hidden: np.ndarray, params: dict, config: MAEConfig, *, detail: int = DETAIL, turned: bool = True,
    mean: float | np.ndarray = MEAN, std: float | np.ndarray = STD, mapped: Callable = map,
) -> Restored:
    """Restore the hidden pixels of a photograph.

    Parameters
    ----------
    photo : ndarray uint8 (rows, cols, C), of any size; a grey one (C = 1) is restored by a model of colours, too
    hidden : ndarray bool (rows, cols), True = to be restored; the model sees no patch of which a pixel is hidden
    params, config : of `models.mae`
    detail : patches along the shorter side, see `grid_of`
    turned : restore each tile in two orientations; for a model that was trained on all of them
    mean, std : of the model's pixels, see `images.pixels.to_pixels`
    mapped : as the built-in `map`; a pool's does the work in threads

    Returns
    -------
    Restored

    Raises
    ------
    TypeError, ValueError
        if the photograph is not uint8, hidden does not fit it, or nothing is hidden or nothing visible
    """
    check_bytes(photo)
    if photo.ndim != 3 or photo.shape[2] not in {1, config.in_chans} or not photo.size:
        raise ValueError(_("expected a photograph (rows, cols, {channels}), or with 1 channel, got {shape}",
                           channels=config.in_chans, shape=photo.shape))
    if hidden.dtype != bool or hidden.shape != photo.shape[:2]:
        raise ValueError(_("expected hidden, bool {size}, one for each pixel, got {dtype} {shape}",
                           size=photo.shape[:2], dtype=hidden.dtype, shape=hidden.shape))
    grid = grid_of(photo.shape, detail, config)
    patches = _any_hidden(hidden, grid)
    if not hidden.any():
        raise ValueError(_("expected some pixels to be hidden, got none: there is nothing to restore"))
    if patches.all():
        down, across = grid
        raise ValueError(_("expected a visible patch, got {down} x {across} of which each has hidden pixels: a detail above "
                           "{detail} makes smaller patches", down=down, across=across, detail=detail))
    size = config.patch_size
    small = _shrunk(photo, tuple(count * size for count in grid))
    shown = to_pixels(small, mean=mean, std=std)
    if small.shape[2] < config.in_chans:
        shown = shown.repeat(config.in_chans, axis=2)
    tiles = [part for part in _tiles(grid, config.grid) if patches[part].any()]
    tiles.sort(key=lambda part: np.count_nonzero(patches[part]))    # equally much to see: computed at once
    areas = [tuple(slice(each.start * size, each.stop * size) for each in part) for part in tiles]
    batches = [slice(start, start + TILES_AT_A_TIME) for start in range(0, len(tiles), TILES_AT_A_TIME)]

    def predict(batch):
        images = np.stack([shown[area] for area in areas[batch]])
        return restored_tiles(images, np.stack([patches[part] for part in tiles[batch]]), params, config, 1 + turned)

    window = _window(config)
    total, weight = np.zeros_like(shown), np.zeros((*shown.shape[:2], 1), shown.dtype)
    results = list(mapped(predict, batches))
    for batch, (predicted, _mode) in zip(batches, results, strict=True):
        for part, area, image in zip(tiles[batch], areas[batch], predicted, strict=True):
            share = window * (1e-3 + np.mean(~patches[part], dtype=window.dtype))       # a tile that sees little counts little
            total[area] += share * image
            weight[area] += share
    reconstruction = to_picture(np.where(weight > 0, total / np.maximum(weight, 1e-9), shown), mean, std)
    if small.shape[2] < config.in_chans:
        reconstruction = np.rint(reconstruction.mean(axis=2, keepdims=True)).astype(np.uint8)
    removed = np.kron(patches, np.ones((size, size), bool))[..., None]
    pasted = np.where(removed, reconstruction, small)
    return Restored(
        photo=_enlarged_into(photo, hidden, pasted, mapped), small=small,
        masked=np.where(removed, np.uint8(round(255 * MEAN)), small), reconstruction=reconstruction, pasted=pasted,
        hidden=patches, mode=results[0][1],
    )


def restored_tiles(
    images: np.ndarray, mask: np.ndarray, params: dict, config: MAEConfig, orientations: int = 1
) -> tuple[np.ndarray, str]:
    """Images as the model predicts them.

    Parameters
    ----------
    images : pixels (B, rows, cols, C), of the model's size
    mask : (B, N), 1 = removed, 0 = visible
    params, config : of the model
    orientations : 1, 2, 4 or 8: in how many orientations the images are restored; the mean is taken. More than one is for a
        model that was trained on all of them. Rectangles have 4 at most

    Returns
    -------
    images : like images; visible patches are predictions, too
    mode : see `models.mae.Reconstruction`
    """
    mask = mask.reshape(-1, *config.grid)
    most = 8 if config.grid[0] == config.grid[1] else 4
    orientations = min(orientations, most)
    total = np.zeros_like(images)
    for symmetry in range(0, most, most // orientations):
        turned, hidden = (np.ascontiguousarray(_turn(array, symmetry)) for array in (images, mask))
        restored = mae_restore(turned, params, config, hidden.reshape(len(mask), -1))
        total += _turn_back(restored.reconstruction, symmetry)
    return total / orientations, restored.mode


def _tiles(grid, tile):
    """The parts of a grid of patches that are restored by themselves, as pairs of slices, a quarter of a tile apart."""
    starts = [np.unique(np.linspace(0, count - side, -(-4 * (count - side) // side) + 1).round().astype(int))
              for count, side in zip(grid, tile, strict=True)]
    corners = itertools.product(*(start.tolist() for start in starts))
    return [(slice(top, top + tile[0]), slice(left, left + tile[1])) for top, left in corners]


def _window(config):
    """How much each pixel of a tile counts where tiles overlap: (rows, cols, 1), falling towards the edges."""
    down, across = (np.sin(np.pi * (np.arange(side) + 0.5) / side, dtype=np.float32) ** 2 for side in
                    image_sides(config.img_size))
    return np.multiply.outer(down, across)[..., None]


def _turn(arrays, symmetry):
    """Arrays (B, rows, cols, ...) in one of the eight orientations of a square, 0 to 7."""
    arrays = arrays[:, ::-1] if symmetry & 1 else arrays
    arrays = arrays[:, :, ::-1] if symmetry & 2 else arrays
    return arrays.swapaxes(1, 2) if symmetry & 4 else arrays


def _turn_back(arrays, symmetry):
    """The inverse of `_turn`."""
    arrays = arrays.swapaxes(1, 2) if symmetry & 4 else arrays
    return _turn(arrays, symmetry & 3)


def _edges(count, side):
    """Where `count` parts of a side of pixels begin and end: integers, count + 1 of them."""
    return np.linspace(0, side, count + 1).round().astype(int)


def _any_hidden(hidden, grid):
    """Hidden pixels (rows, cols) -> patches (down, across) of which at least one pixel is hidden."""
    for axis, count in enumerate(grid):
        side = hidden.shape[axis]
        hidden = np.logical_or.reduceat(hidden, np.minimum(_edges(count, side)[:-1], side - 1), axis)
    return hidden


def _shrunk(photo, size):
    """A photograph with each block of its pixels averaged: uint8 (*size, C). If there are too few, they repeat."""
    for axis, count in enumerate(size):
        edges = _edges(count, photo.shape[axis])
        starts = np.minimum(edges[:-1], photo.shape[axis] - 1)
        pixels = np.maximum(np.diff(edges), 1).astype(np.float32)
        photo = np.add.reduceat(photo, starts, axis, dtype=np.float32) / np.expand_dims(pixels, (1 - axis, 2))
    return np.rint(photo).astype(np.uint8)


def _enlarged_into(photo, hidden, small, mapped):
    """The photograph with its hidden pixels taken from the small image (h, w, C), enlarged by linear interpolation."""
    restored = photo.copy()
    (rows, down), (cols, across) = (_between(count, side) for count, side in zip(small.shape, photo.shape[:2], strict=False))
    strips = [slice(start, start + ROWS_AT_A_TIME) for start in range(0, len(photo), ROWS_AT_A_TIME)]

    def fill(strip):
        where = hidden[strip]
        if where.any():
            part = _between_rows(small.astype(np.float32), rows[strip], down[strip])
            part = _between_rows(part.swapaxes(0, 1), cols, across).swapaxes(0, 1)
            restored[strip][where] = np.rint(part[where]).astype(np.uint8)

    for _filled in mapped(fill, strips):
        pass
    return restored


def _between(count, side):
    """For each of `side` pixels: the one of `count` small pixels before it, and how far it is on the way to the next."""
    position = np.clip((np.arange(side, dtype=np.float32) + 0.5) * (count / side) - 0.5, 0, count - 1)
    before = np.minimum(position.astype(int), max(count - 2, 0))
    return before, (position - before).astype(np.float32)


def _between_rows(image, before, far):
    """Rows of an image interpolated between `before` and the next."""
    first, second = image[before], image[np.minimum(before + 1, len(image) - 1)]
    return first + (second - first) * far[:, None, None]
