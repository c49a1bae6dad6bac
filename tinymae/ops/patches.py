"""Images as patches, and patches hidden and put back: Dosovitskiy et al. 2020, section 3.1; He et al. 2021, section 3.

    patchify     (B, rows, cols, C) -> (B, N, P): "a patch is a word" (article A)
    gather       (B, N, D) -> (B, K, D): the K patches that stay visible, in the order of ids
    unshuffle    (B, K, E) -> (B, N, E): every kept token at its position, the mask token at all others

All three only move numbers, so each backward moves the gradients back to where the numbers came from:

    (1)  y[b, k] = x[b, ids[b, k]]                dx[b, n] = sum of dy[b, k] over all k with ids[b, k] = n
    (2)  y[b, n] = x[b, j] if j < K else mask_token,  j = ids_restore[b, n]
    (3)  dx[b, j] = dy[b, n] if j < K,  dmask_token = sum dy[b, n] if j >= K,  j = ids_restore[b, n]

A gather is an embedding lookup whose table is the batch, and is written that way.

Differs: images are (B, rows, cols, C) as in NumPy and matplotlib; in PyTorch, (B, C, rows, cols). The values of a patch
are ordered (row, column, channel), as in the target of the paper's code.
"""
import numpy as np

from tinymae.arguments import check_arrays, check_gradient, check_integers, check_patch_grid, check_scalars
from tinymae.ops.embedding import embedding_backward, embedding_forward


def patchify_forward(images: np.ndarray, patch_size: int) -> tuple[np.ndarray, tuple]:
    """Cut images into square patches, row by row.

        (1)  patches[b, n] = images[b, i p : (i + 1) p, j p : (j + 1) p],  n = i (cols / p) + j
        (2)  (p, p, C) -> (P,)        the numbers of a patch in the order row, column, channel

    Parameters
    ----------
    images : ndarray of shape (B, rows, cols, C)
    patch_size : divides rows and cols

    Returns
    -------
    patches : ndarray of shape (B, N, P), N = rows cols / patch_size^2, P = patch_size^2 C
    cache : (patch_size, shape of images)

    Raises
    ------
    TypeError
        if images is not a float32 or float64 array
    ValueError
        if images are not 4-D, patch_size is not positive, or a side is not a multiple of it
    """
    check_arrays("patchify", images=images)
    check_scalars("patchify", "count", patch_size=patch_size)
    if images.ndim != 4:
        raise ValueError(f"patchify: expected images (B, rows, cols, C), got {images.shape}: is the batch axis missing?")
    batch, rows, cols, channels = images.shape
    if rows % patch_size or cols % patch_size:
        raise ValueError(
            f"patchify: expected sides that are multiples of patch_size {patch_size}, got {rows} x {cols}: resize or "
            "crop the image first"
        )
    x = images.reshape(batch, rows // patch_size, patch_size, cols // patch_size, patch_size, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)                           # (B, grid rows, grid cols, p, p, C)
    patches = x.reshape(batch, rows * cols // patch_size**2, patch_size**2 * channels).copy()
    return patches, (patch_size, images.shape)


def patchify_backward(dpatches: np.ndarray, cache: tuple) -> np.ndarray:
    """Gradient dimages (B, rows, cols, C) of `patchify_forward`, from dpatches (B, N, P)."""
    patch_size, (batch, rows, cols, channels) = cache
    check_gradient(
        "patchify", (batch, rows * cols // patch_size**2, patch_size**2 * channels), None, dpatches=dpatches
    )
    return unpatchify(dpatches, patch_size, (rows // patch_size, cols // patch_size))


def image_sides(img_size: int | tuple[int, int]) -> tuple[int, int]:
    """(rows, cols) of an image in pixels: `img_size` is the side of a square, or both sides of a rectangle.

    Raises
    ------
    ValueError
        if it is neither
    """
    sides = tuple(img_size) if isinstance(img_size, tuple | list) else (img_size, img_size)
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int | np.integer) or side < 1 for side in sides):
        raise ValueError(f"expected img_size as one whole number from 1 up, or two, (rows, cols), got {img_size!r}")
    return sides


def patch_grid(img_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Patches down and across an image."""
    return tuple(side // patch_size for side in image_sides(img_size))


def unpatchify(patches: np.ndarray, patch_size: int, grid: tuple[int, int]) -> np.ndarray:
    """Put patches (B, N, P) back together: a fresh (B, rows, cols, C). The inverse of `patchify_forward`.

    Parameters
    ----------
    patches : ndarray of shape (B, N, P)
    patch_size : number of rows and columns of a patch
    grid : patches down and across; their product is N
    """
    if not isinstance(patches, np.ndarray):
        raise TypeError(f"unpatchify: expected patches to be an array, got {type(patches).__name__}: np.array makes one")
    check_scalars("unpatchify", "count", patch_size=patch_size)
    check_patch_grid("unpatchify", "size", grid)
    if patches.ndim != 3 or patches.shape[1] != grid[0] * grid[1] or patches.shape[2] % (patch_size * patch_size):
        raise ValueError(
            f"unpatchify: expected patches (B, {grid[0] * grid[1]}, a multiple of {patch_size * patch_size}) for grid "
            f"{grid}, got {patches.shape}: is the class token still there?"
        )
    batch, _, values = patches.shape
    x = patches.reshape(batch, *grid, patch_size, patch_size, values // patch_size**2)
    x = x.transpose(0, 1, 3, 2, 4, 5)                           # (B, grid rows, p, grid cols, p, C)
    return x.reshape(batch, grid[0] * patch_size, grid[1] * patch_size, values // patch_size**2).copy()


def gather_forward(x: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Take tokens by their index.

    Parameters
    ----------
    x : ndarray of shape (B, N, D)
    ids : integer ndarray of shape (B, K), values in [0, N); may repeat

    Returns
    -------
    y : ndarray of shape (B, K, D)
    cache : (shape of x, cache of the lookup)

    Raises
    ------
    ValueError
        if x is not (B, N, D) or ids are not (B, K)
    TypeError, IndexError
        as `embedding_forward`
    """
    check_arrays("gather", x=x)
    check_integers("gather", ids=ids)
    if x.ndim != 3 or ids.ndim != 2 or len(ids) != len(x):
        raise ValueError(f"gather: expected x (B, N, D) and ids (B, K), got {x.shape} and {ids.shape}: one row for each image")
    batch, number, width = x.shape
    if ids.size and not 0 <= ids.min() <= ids.max() < number:
        raise IndexError(
            f"gather: expected ids in [0, {number}), got [{ids.min()}, {ids.max()}]: is the class token counted as a patch?"
        )
    rows = ids.astype(np.intp, copy=False) + number * np.arange(batch)[:, None]     # row of x seen as (B N, D)
    y, lookup = embedding_forward(rows, x.reshape(batch * number, width))           # (1)  (B, K, D)
    return y, (x.shape, lookup)


def gather_backward(dy: np.ndarray, cache: tuple) -> np.ndarray:
    """Gradient dx (B, N, D) of `gather_forward`, from dy (B, K, D). The ids have none."""
    shape, lookup = cache
    return embedding_backward(dy, lookup).reshape(shape)


def unshuffle_forward(x: np.ndarray, mask_token: np.ndarray, ids_restore: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Put the kept tokens back at the positions of their patches, and the mask token at all other positions.

    Parameters
    ----------
    x : ndarray of shape (B, K, E), the kept tokens in shuffled order
    mask_token : ndarray of shape (1, 1, E), shared by all hidden patches
    ids_restore : integer ndarray of shape (B, N), each row a permutation of 0..N-1: the position of each patch in the shuffle

    Returns
    -------
    y : ndarray of shape (B, N, E)
    cache : (K, shape of mask_token, cache of the gather)

    Raises
    ------
    TypeError
        if x and mask_token are not float32 or float64 arrays of one dtype, or ids_restore is not an array of integers
    ValueError
        if there are fewer positions than kept tokens, mask_token is not (1, 1, E), or ids_restore is no permutation
    """
    check_arrays("unshuffle", x=x, mask_token=mask_token)
    check_integers("unshuffle", ids_restore=ids_restore)
    if x.ndim != 3 or ids_restore.ndim != 2 or len(x) != len(ids_restore):
        raise ValueError(f"unshuffle: expected x (B, K, E) and ids_restore (B, N), got {x.shape} and {ids_restore.shape}")
    batch, kept, width = x.shape
    if mask_token.shape != (1, 1, width):
        raise ValueError(f"unshuffle: expected a mask_token (1, 1, {width}) for x {x.shape}, got {mask_token.shape}")
    hidden = ids_restore.shape[1] - kept
    if hidden < 0:
        raise ValueError(f"unshuffle: expected ids_restore (B, N) with N >= K = {kept}, got {ids_restore.shape}")
    if (np.sort(ids_restore, axis=1) != np.arange(ids_restore.shape[1])).any():
        raise ValueError("unshuffle: expected every row of ids_restore to hold 0..N-1 once each: is it ids_keep, or the mask?")
    shuffled = np.concatenate([x, np.broadcast_to(mask_token, (batch, hidden, width))], axis=1)
    y, gather = gather_forward(shuffled, ids_restore)           # (2)  (B, N, E)
    return y, (kept, mask_token.shape, gather)


def unshuffle_backward(dy: np.ndarray, cache: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Gradients (dx, dmask_token) of `unshuffle_forward`: dy (B, N, E) -> dx (B, K, E), dmask_token (1, 1, E)."""
    kept, token_shape, gather = cache
    dshuffled = gather_backward(dy, gather)
    dx = dshuffled[:, :kept].copy()
    dmask_token = dshuffled[:, kept:].sum(axis=(0, 1)).reshape(token_shape)
    return dx, dmask_token
