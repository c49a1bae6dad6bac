"""Checks of patchify and its backward."""
import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np

from tinymae.gradcheck import Row
from tinymae.learn.inputs import gaussian
from tinymae.learn.pairs import check_pair
from tinymae.messages import message as _
from tinymae.ops import patches

RIGHT_ORDER = (0, 1, 3, 2, 4, 5)        # of the axes, in both passes: (B, rows / p, p, cols / p, p, C) and back


def check_patchify(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With images that are not square; all sizes but the two of a patch are different."""
    def cut(order, images, patch_size):
        batch, rows, cols, channels = images.shape
        x = images.reshape(batch, rows // patch_size, patch_size, cols // patch_size, patch_size, channels)
        return x.transpose(order).reshape(batch, -1, patch_size * patch_size * channels)

    def pasted(split, order):
        return lambda dpatches, images, patch_size: dpatches.reshape(7, *split).transpose(order).reshape(images.shape)

    images, sizes = gaussian(7, 6, 10, 4), (3, 5, 2, 2, 4)
    orders = [(0, *order) for order in itertools.permutations(range(1, 6)) if (0, *order) != RIGHT_ORDER]
    ways = {(sizes, order) for order in orders}                 # (how dpatches is split, the order of the axes that follows)
    for parts in itertools.permutations(range(5)):
        split = tuple(sizes[part] for part in parts)
        if split != sizes:
            ways |= {(split, RIGHT_ORDER), (split, (0, *(1 + parts.index(part) for part in (0, 2, 1, 3, 4))))}
    right = np.arange(images.size, dtype=np.float64).reshape(images.shape)
    dpatches, _cache = patches.patchify_forward(right, 2)
    backs = {
        _("dpatches is reshaped at once: split it as the last line of forward merged it, then swap the axes back"):
            lambda dpatches, images, patch_size: dpatches.reshape(images.shape),
        _("dpatches goes back as if the patches were numbered column by column: here row by row"):
            pasted((5, 3, 2, 2, 4), (0, 2, 3, 1, 4, 5)),
        _("dpatches goes back as if the channel came before row and column in a patch (PyTorch's order): here it comes last"):
            pasted((3, 5, 4, 2, 2), (0, 1, 4, 2, 5, 3)),
        _("dpatches goes back as if row and column were swapped in each patch"): pasted(sizes, (0, 1, 4, 2, 3, 5)),
        **{_("dpatches is split into {split}, and its axes then go into the order {order}: it should be split into "
             "{right_split}, and the axes then go into the order {right_order}", split=(7, *split), order=order,
             right_split=(7, *sizes), right_order=RIGHT_ORDER): pasted(split, order)
           for split, order in sorted(ways, key=lambda way: (way[0] != sizes, way))
           if not np.array_equal(pasted(split, order)(dpatches, images, 2), right)},            # axes that stay neighbours
    }
    yield from check_pair(names, "patchify", patches.patchify_forward, images, patch_size=2, gradients={
        "images": backs,
    }, variants={
        _("the image is reshaped at once, which cuts it into strips: split rows and cols first, then swap the axes"):
            partial(cut, (0, 1, 2, 3, 4, 5)),
        _("the patches are numbered column by column: here row by row"): partial(cut, (0, 3, 1, 2, 4, 5)),
        _("the channel comes before row and column in each patch (PyTorch's order): here it comes last"):
            partial(cut, (0, 1, 3, 5, 2, 4)),
        _("row and column are swapped in each patch"): partial(cut, (0, 1, 3, 4, 2, 5)),
        **{_("rows and cols are split, and the axes then go into the order {order}: it should be {right}", order=order,
             right=RIGHT_ORDER): partial(cut, order) for order in orders},
    })
    yield from check_pair(
        names, "patchify", patches.patchify_forward, gaussian(2, 6, 9, 2), patch_size=3, title=_("patches of 3 x 3")
    )


def check_patch_order(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With three channels, and images that are not square."""
    def read(shape, order):
        return lambda dpatches, images, patch_size: dpatches.reshape(shape).transpose(order).reshape(images.shape)

    yield from check_pair(names, "patchify", patches.patchify_forward, gaussian(5, 4, 6, 3), patch_size=2, slips={
        _("the backward reads a patch as (channel, row, column): the forward writes it as (row, column, channel)"):
            read((5, 2, 3, 3, 2, 2), (0, 1, 4, 2, 5, 3)),
        _("the backward swaps row and column in each patch"): read((5, 2, 3, 2, 2, 3), (0, 1, 4, 2, 3, 5)),
        _("dpatches is reshaped at once: swap the axes back, too"): read((5, 4, 6, 3), (0, 1, 2, 3)),
    })
