"""Images that are made, not photographed: "dead leaves", shapes that hide one another, as objects do in front of a camera.

Whatever photographs show, they have a few properties in common: objects of every size, sharp edges where one hides another,
and smooth shading and texture in between. A model can learn these properties from made-up images, too, and of those there
are as many as it needs.

    (1)  a shape falls on the image, on top of those before it; its radius r has the density  p(r) ~ r^-3
    (2)  colour of a pixel = colour of its shape + a slope across the shape + texture
    (3)  texture: noise of which the amplitude at a frequency f is 1 / f

Lee, Mumford & Huang 2001, "Occlusion models for natural images", has (1), and why the power is 3: the image then looks the same
at every scale. (3) is what photographs have (Field 1987).
"""
import math

import numpy as np
from PIL import Image, ImageDraw

SHAPES = 700                    # that fall on one image
SMALLEST_SHAPE, LARGEST_SHAPE = 0.04, 0.7     # radius, as a fraction of the image's side


def dead_leaves(rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """One image of shapes that hide one another.

    Parameters
    ----------
    rng : decides all
    size : side of the image

    Returns
    -------
    image : ndarray uint8 (size, size, 3)
    """
    fine = 2 * size                                             # edges are smooth: four pixels become one
    which = Image.new("I", (fine, fine))                        # the number of the shape that each pixel belongs to
    draw = ImageDraw.Draw(which)
    u = rng.random(SHAPES)
    far, near = LARGEST_SHAPE**-2, SMALLEST_SHAPE**-2
    radius = fine * (near + u * (far - near)) ** -0.5           # (1): inverse of the distribution
    centre = rng.random((SHAPES, 2)) * fine
    for number in range(1, SHAPES):
        draw.polygon(_outline(rng, centre[number], radius[number]), fill=number)
    which = np.asarray(which)
    grey = rng.uniform(0, 1, (SHAPES, 1))
    colour = grey + rng.normal(0, 0.15, (SHAPES, 3)) * rng.random((SHAPES, 1))
    slope = rng.normal(0, 0.25, (SHAPES, 2)) * rng.random((SHAPES, 1))
    rough = 0.15 * rng.random(SHAPES) ** 2
    at = np.stack(np.mgrid[:fine, :fine], axis=-1) / fine       # (fine, fine, 2)
    light = np.einsum("rcx,rcx->rc", at - (centre / fine)[which], slope[which])            # (2)
    light += rough[which] * _noise(rng, fine)[which % 4, np.arange(fine)[:, None], np.arange(fine)]
    image = colour[which] + light[..., None]
    image = image.reshape(size, 2, size, 2, 3).mean(axis=(1, 3))
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def _outline(rng, centre, radius):
    """The corners of a shape: an ellipse, a polygon, or a long rectangle, turned by any angle."""
    kind = rng.random()
    if kind < 0.4:
        angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    elif kind < 0.8:
        angles = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(3, 9)))
    else:
        angles = np.array([0.4, math.pi - 0.4, math.pi + 0.4, -0.4])
    thin = rng.uniform(0.25, 1)
    x, y, turn = radius * np.cos(angles), thin * radius * np.sin(angles), rng.uniform(0, math.pi)
    corners = np.stack([x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)], axis=1)
    return [tuple(corner) for corner in (centre[::-1] + corners).tolist()]


def _noise(rng, size):
    """Four planes of noise (4, size, size) with mean 0 and variance 1: equation (3)."""
    down, across = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    frequency = np.hypot(down, across)
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=(4, size, size))) / frequency
    spectrum[:, 0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return noise / noise.std(axis=(1, 2), keepdims=True)
