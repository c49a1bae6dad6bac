"""The functions of the tab "mae" of the live page: each takes the models and JSON values, and returns what JSON can write.

A picture is base64 of raw bytes, red, green and blue of each pixel, with its `rows` and `cols` in pixels. The page scales a
photograph so that a patch of it is a patch of the model: 48 x 48 pixels are 8 x 8 patches, and one image of the shipped model.
A larger picture is restored in overlapping tiles of that size. `hidden` is a list of rows of patches, 1 = hidden, 0 = visible.
"""
import base64
import importlib.util
import time

import numpy as np

from tinymae.blocks import attention_weights
from tinymae.images.harmonic import harmonic_fill
from tinymae.images.hide import hidden_patches
from tinymae.images.pixels import MEAN, to_pixels
from tinymae.messages import message as _
from tinymae.models.mae import mae_decoder_forward
from tinymae.models.patch_encoder import vit_encoder_forward
from tinymae.ops.patches import patchify_forward
from tinymae.play.shown import rounded
from tinymae.tasks.photograph import hidden_pixels, restore_photo

try:
    from tinymae.images.fills import linear_fill
except ImportError:             # it needs SciPy, which a browser does not have
    linear_fill = None

MOST_TILES_ALONG = 3            # tiles along the shorter side, side by side; 1.5 times as many along the longer one
MADE_UP_SAMPLE = "made_up"             # the sample that needs no other package


def mae_model(models: object) -> dict:
    """What the page needs to know of the model, and the names of the samples.

    Returns
    -------
    {"patch": side of a patch in pixels, "grid": patches down and across of a tile, "details": how many patches the shorter side
     of a picture may have, "longest": its longer side / its shorter side at most, "layers": of each stack, "grey": colour of
     hidden patches, "samples": names}
    """
    config = models.photos.config
    return {
        "patch": config.patch_size, "grid": list(config.grid),
        "details": [times * max(config.grid) for times in range(1, MOST_TILES_ALONG + 1)], "longest": 1.5,
        "layers": {"encoder": config.depth, "decoder": config.decoder_depth}, "grey": round(255 * MEAN), "samples": _samples(),
    }


def mae_sample(models: object, *, name: str) -> dict:
    """A picture to start with: one of `model`'s samples. No model of this project was trained on any of them.

    Raises
    ------
    ValueError
        if there is no such sample
    """
    if name not in _samples():
        names = ", ".join(_samples())
        raise ValueError(_("expected the name of a sample, one of {names}, got {name!r}", names=names, name=name))
    if name == MADE_UP_SAMPLE:
        photo = made_up(np.random.default_rng(0))
    else:
        from tinymae.images.sources import unseen_photos  # only there where the package has all that it depends on

        photo = unseen_photos()[name]
    return {"name": name, "rows": len(photo), "cols": photo.shape[1], "pixels": _encoded(photo)}


def mae_hide(models: object, *, kind: str, ratio: float, rows: int, cols: int, seed: int) -> dict:
    """Patches to hide of a picture of this size: {"hidden"}.

    Parameters
    ----------
    kind, ratio : "random", "block" or "grid", and the fraction to hide; see `images.hide.hidden_patches`
    rows, cols : of the picture, in pixels
    seed : another one hides others

    Raises
    ------
    ValueError
        if an argument does not fit
    """
    grid = _grid(rows, cols, models.photos.config)
    if not isinstance(ratio, (int, float)):
        raise ValueError(_("expected a ratio above 0 and below 1, the fraction to hide, got {ratio!r}", ratio=ratio))
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(_("expected a seed, a whole number from 0 up, got {seed!r}", seed=seed))
    return {"hidden": hidden_patches(kind, grid, ratio, np.random.default_rng(seed)).astype(int).tolist()}


def restored_photo(models: object, *, pixels: str, rows: int, cols: int, hidden: list) -> dict:
    """What the model makes of the hidden patches, and how large its error is.

    Returns
    -------
    {"pixels": the picture restored, with its visible pixels unchanged,
     "errors": mean squared error of the hidden pixels, in the units of `images.pixels.to_pixels`: of the "model"; of "linear"
     interpolation (`images.fills.linear_fill`), None if SciPy is not there; of "harmonic", `harmonic_fill`,
     "milliseconds": that the model took}

    Raises
    ------
    ValueError
        if an argument does not fit, or nothing is hidden or nothing visible

    Notes
    -----
    One orientation only, where the command `reconstruct` takes the mean of two: it takes half the time, for an error that is
    larger by about 1 %.
    """
    photos = models.photos
    grid = _grid(rows, cols, photos.config)
    photo = _decoded(pixels, rows, cols, photos.config.in_chans)
    removed = hidden_pixels(_hidden(hidden, grid), photo.shape)
    if (photo == photo[..., :1]).all():
        photo = photo[..., :1]                                  # a grey photograph stays grey
    start = time.perf_counter()
    pasted = restore_photo(
        photo, removed, photos.params, photos.config, detail=min(grid), turned=False, mean=photos.mean, std=photos.std
    ).pasted
    milliseconds = 1000 * (time.perf_counter() - start)
    true = to_pixels(photo)
    errors = {
        "model": to_pixels(pasted),
        "linear": linear_fill and linear_fill(true[None], removed[None])[0],
        "harmonic": harmonic_fill(true[None], removed[None])[0],
    }
    for name, image in errors.items():
        errors[name] = None if image is None else rounded(np.mean((image - true)[removed] ** 2, dtype=np.float64))
    return {"pixels": _encoded(pasted), "errors": errors, "milliseconds": rounded(milliseconds)}


def seen_from_patch(models: object, *, pixels: str, rows: int, cols: int, hidden: list, patch: list) -> dict:
    """Attention weights from one patch to the patches of the tile around it, the mean over the heads.

    Parameters
    ----------
    pixels, rows, cols, hidden : as `restore`
    patch : its row and column

    Returns
    -------
    {"top", "left": of the tile, in patches,
     "encoder": for each layer {"patches": rows of weights, None where the encoder has no patch because it is hidden,
     "class_token": weight}; None if the patch itself is hidden,
     "decoder": likewise, with a weight for every patch}; the weights of a layer sum to 1

    Raises
    ------
    ValueError
        if an argument does not fit
    """
    photos, config = models.photos, models.photos.config
    grid = _grid(rows, cols, config)
    photo, patches = _decoded(pixels, rows, cols, config.in_chans), _hidden(hidden, grid)
    at = _place(patch, grid)
    corner = [min(max(0, where - side // 2), count - side) for where, count, side in zip(at, grid, config.grid, strict=True)]
    tile = tuple(slice(start, start + side) for start, side in zip(corner, config.grid, strict=True))
    area = tuple(slice(part.start * config.patch_size, part.stop * config.patch_size) for part in tile)
    image = to_pixels(photo[area], mean=photos.mean, std=photos.std)[None]
    mask = patches[tile].reshape(-1)                            # (N,)
    encoder, decoder, ids_keep = _attentions(image, mask, photos.params, config)
    number = (at[0] - corner[0]) * config.grid[1] + at[1] - corner[1]           # of the patch, in its tile
    every = np.arange(config.num_patches)
    return {
        "top": corner[0], "left": corner[1],
        "encoder": None if mask[number] else [_row(layer, number, ids_keep, config.grid) for layer in encoder],
        "decoder": [_row(layer, number, every, config.grid) for layer in decoder],
    }


def _attentions(image, mask, params, config):
    """Weights of an image (1, rows, cols, C): lists of (1 + K, 1 + K) and of (1 + N, 1 + N), and the visible patches (K,)."""
    ids_shuffle = np.argsort(mask, kind="stable")[None]
    ids_keep, ids_restore = ids_shuffle[:, : np.count_nonzero(~mask)], np.argsort(ids_shuffle, axis=1)
    positions, decoder_positions = config.position_tables(image.dtype)
    patches, _cache = patchify_forward(image, config.patch_size)
    latent, encoder = vit_encoder_forward(
        patches, params["encoder"], positions, heads=config.num_heads, ids_keep=ids_keep, eps=config.eps
    )
    _pred, decoder = mae_decoder_forward(
        latent, params["decoder"], decoder_positions, heads=config.decoder_num_heads, ids_restore=ids_restore, eps=config.eps
    )
    encoder, decoder = (
        [attention_weights(block["attn"]["sublayer"])[0].mean(axis=0) for block in cache["blocks"]]
        for cache in (encoder["encoder"], decoder["decoder"])
    )
    return encoder, decoder, ids_keep[0]


def _row(weights, number, ids, grid):
    """One row of weights (1 + K, 1 + K), the class token first, for the page; ids (K,) says which patches the others are."""
    row = weights[1 + int(np.flatnonzero(ids == number)[0])]
    patches = [None] * (grid[0] * grid[1])
    for where, weight in zip(ids.tolist(), row[1:].tolist(), strict=True):
        patches[where] = rounded(weight)
    return {"patches": [patches[i : i + grid[1]] for i in range(0, len(patches), grid[1])], "class_token": rounded(row[0])}


def made_up(rng: np.random.Generator, size: int = 192, shapes: int = 250) -> np.ndarray:
    """A picture of ellipses and bars that hide one another, uint8 (size, size, 3): `images.dead_leaves` with NumPy alone."""
    down, across = np.mgrid[:size, :size] / size
    image = np.full((size, size, 3), MEAN)
    for radius in 0.04 / np.sqrt(1 - rng.random(shapes) * (1 - (0.04 / 0.6) ** 2)):     # density ~ radius^-3, as there
        (row, col), turn, thin = rng.random(2), rng.uniform(0, np.pi), rng.uniform(0.25, 1)
        x = (across - col) * np.cos(turn) + (down - row) * np.sin(turn)
        y = ((down - row) * np.cos(turn) - (across - col) * np.sin(turn)) / thin
        inside = np.hypot(x, y) < radius if rng.random() < 0.6 else np.maximum(abs(x), abs(y)) < 0.8 * radius
        colour = rng.uniform(0.1, 0.9) + rng.normal(0, 0.15, 3) * rng.random()
        image[inside] = colour + 0.2 * rng.normal() * (x / radius)[inside, None]        # shaded from one side to the other
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def _samples():
    """Names: photographs where scikit-image and Matplotlib bring them, and the picture that is made up."""
    there = all(importlib.util.find_spec(name) for name in ("skimage", "matplotlib", "PIL"))
    return [*(("cat", "coffee", "grace_hopper") if there else ()), MADE_UP_SAMPLE]


def _grid(rows, cols, config):
    """Patches down and across of a picture, after a check of its size."""
    patch, least = config.patch_size, [side * config.patch_size for side in config.grid]
    if not all(isinstance(side, int) and side > 0 and side % patch == 0 for side in (rows, cols)):
        raise ValueError(_("expected rows and cols that are multiples of {patch}, the side of a patch, got {rows!r} x "
                           "{cols!r}: scale the picture first", patch=patch, rows=rows, cols=cols))
    if rows < least[0] or cols < least[1]:
        smallest = f"{least[0]} x {least[1]}"
        raise ValueError(_("expected a picture of at least {least} pixels, one image of the model, got {rows} x {cols}",
                           least=smallest, rows=rows, cols=cols))
    most = int(1.5 * (MOST_TILES_ALONG * max(config.grid)) ** 2)
    if rows * cols > most * patch**2:
        raise ValueError(_("expected a picture of at most {most} patches, or its restoration would take too long, got {count}",
                           most=most, count=rows * cols // patch**2))
    return rows // patch, cols // patch


def _decoded(pixels, rows, cols, channels):
    """A picture (rows, cols, 3) from base64, or (rows, cols, 1), grey, for a model of one channel."""
    if not isinstance(pixels, str) or len(pixels) != 4 * rows * cols:       # three bytes are four letters
        got = len(pixels) if isinstance(pixels, str) else type(pixels).__name__
        raise ValueError(_("expected pixels, base64 of {rows} x {cols} x 3 bytes, {count} letters, got {got}: red, green and "
                           "blue, without opacity", rows=rows, cols=cols, count=4 * rows * cols, got=got))
    try:
        raw = base64.b64decode(pixels, validate=True)
    except ValueError as error:
        raise ValueError(_("expected pixels, base64 of bytes: {error}", error=error)) from error
    if len(raw) != 3 * rows * cols:
        raise ValueError(_("expected {count} bytes in pixels, got {got}: was a part cut off?",
                           count=3 * rows * cols, got=len(raw)))
    photo = np.frombuffer(raw, np.uint8).reshape(rows, cols, 3)
    if channels == 3:
        return photo
    weighted = photo @ np.array([19595, 38470, 7471])           # of 65536: the lightness as Pillow has it
    return ((weighted + 32768) >> 16).astype(np.uint8)[..., None]


def _encoded(picture):
    """base64 of a picture (rows, cols, C); a grey one becomes one of three colours."""
    return base64.b64encode(np.broadcast_to(picture, (*picture.shape[:2], 3)).tobytes()).decode("ascii")


def _hidden(hidden, grid):
    """The hidden patches as bool (down, across)."""
    down, across = grid
    fits = isinstance(hidden, list) and len(hidden) == down
    fits = fits and all(isinstance(row, list) and len(row) == across for row in hidden)
    if not fits or not all(patch in (0, 1) for row in hidden for patch in row):
        raise ValueError(_("expected hidden, {down} rows of {across} patches, each 1 (hidden) or 0 (visible): was the picture "
                           "changed and the mask not?", down=down, across=across))
    return np.array(hidden, bool)


def _place(patch, grid):
    """A patch's row and column, after a check."""
    whole = isinstance(patch, list) and len(patch) == 2 and all(isinstance(where, int) for where in patch)
    if not whole or not all(0 <= where < count for where, count in zip(patch, grid, strict=True)):
        raise ValueError(_("expected a patch, [row, column] counted from 0, of {down} x {across}, got {patch!r}",
                           down=grid[0], across=grid[1], patch=patch))
    return patch


FUNCTIONS = {                   # all tabs share one table of names
    "mae_model": mae_model, "mae_sample": mae_sample, "mae_hide": mae_hide, "mae_restore": restored_photo,
    "mae_attention": seen_from_patch,
}
