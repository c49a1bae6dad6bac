"""The harmonic fill: a stretched membrane through the visible pixels. With NumPy alone, as the live page needs it."""
import numpy as np

SWEEPS = 24                     # at each scale; more change the error by less than one part in a thousand


def harmonic_fill(images: np.ndarray, removed: np.ndarray, sweeps: int = SWEEPS) -> np.ndarray:
    """Fill removed pixels as a membrane would that is stretched between the visible ones.

        (1)  a removed pixel is the mean of its four neighbours; beyond the edge of the image its own value goes on

    In one dimension that is linear interpolation. (1) is repeated for all removed pixels at once, which brings light only one
    pixel further each time. So the images are first filled at half the size, in the same way, and (1) starts from that.

    Parameters
    ----------
    images : ndarray (B, rows, cols, C), floats
    removed : ndarray bool (B, rows, cols); at least one pixel of each image is visible
    sweeps : how often (1) is repeated, at each size

    Returns
    -------
    filled : ndarray like images; visible pixels unchanged
    """
    check_fill(images, removed)
    rows, cols = removed.shape[1:]
    if not removed.any():
        return images.copy()
    visible = (~removed[..., None]).astype(images.dtype)
    count, total = _blocks(visible), _blocks(np.where(removed[..., None], 0, images))
    half = harmonic_fill(total / np.maximum(count, 1), count[..., 0] == 0, sweeps)      # the mean of what is visible
    filled = np.where(removed[..., None], half.repeat(2, axis=1).repeat(2, axis=2)[:, :rows, :cols], images)
    for _ in range(sweeps):
        around = np.pad(filled, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        mean = (around[:, :-2, 1:-1] + around[:, 2:, 1:-1] + around[:, 1:-1, :-2] + around[:, 1:-1, 2:]) / 4
        filled = np.where(removed[..., None], mean, images)     # (1)
    return filled


def check_fill(images: np.ndarray, removed: np.ndarray) -> None:
    """Raise a TypeError or a ValueError unless images (B, rows, cols, C) and removed (B, rows, cols) can be given to a fill."""
    if images.dtype.kind != "f":
        raise TypeError(f"images are {images.dtype}; expected floats (to_pixels makes them)")
    if removed.dtype != bool:
        raise TypeError(f"removed is {removed.dtype}; expected bool, one value for each pixel (removed_pixels makes it)")
    if images.ndim != 4 or removed.shape != images.shape[:3]:
        raise ValueError(f"images have shape {images.shape} and removed {removed.shape}; expected (B, rows, cols, C) "
                         "and (B, rows, cols)")
    blind = removed.all(axis=(1, 2))
    if blind.any():
        raise ValueError(f"image {int(blind.argmax())} has no visible pixel: there is nothing to fill it from")


def _blocks(images):
    """Sums over blocks of 2 x 2 pixels: (B, rows, cols, C) -> half of rows and cols, rounded up."""
    batch, rows, cols, channels = images.shape
    padded = np.pad(images, ((0, 0), (0, rows % 2), (0, cols % 2), (0, 0)))
    return padded.reshape(batch, -(-rows // 2), 2, -(-cols // 2), 2, channels).sum(axis=(2, 4))
