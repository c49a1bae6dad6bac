"""Checks of images as patches: cut and put back, masked at random, unshuffled, reconstructed."""
import itertools
from collections.abc import Callable
from functools import partial

import numpy as np

from tinymae.gradcheck.cases import perturbed
from tinymae.gradcheck.invariants import assert_mask_hides
from tinymae.learn.compare import close, factors, numbers
from tinymae.learn.demands import function
from tinymae.learn.inputs import frozen, gaussian, total
from tinymae.learn.judge import Tables, because, diagnosed, judge, judge_together, recognised
from tinymae.learn.pairs import check_pair
from tinymae.messages import listed
from tinymae.messages import message as _
from tinymae.models import mae
from tinymae.ops import patches

RIGHT_ORDER = (0, 1, 3, 2, 4, 5)        # of the axes, in both passes: (B, rows / p, p, cols / p, p, C) and back


def pasted(split: tuple[int, ...], order: tuple[int, ...]) -> Callable:
    """A backward of patchify, which splits dpatches (B, N, P) so, and then brings its axes into this order."""
    return lambda dpatches, images, patch_size: dpatches.reshape(len(images), *split).transpose(order).reshape(images.shape)


def check_patchify(names: dict) -> Tables:
    """With images that are not square; all sizes but the two of a patch are different."""
    def cut(order, images, patch_size):
        batch, rows, cols, channels = images.shape
        x = images.reshape(batch, rows // patch_size, patch_size, cols // patch_size, patch_size, channels)
        return x.transpose(order).reshape(batch, -1, patch_size * patch_size * channels)

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
    core = partial(check_pair, names, "patchify", patches.patchify_forward)
    yield from core(images, patch_size=2, gradients={"images": backs}, variants={
        _("the image is reshaped at once, which cuts it into strips: split rows and cols first, then swap the axes"):
            partial(cut, (0, 1, 2, 3, 4, 5)),
        _("the patches are numbered column by column: here row by row"): partial(cut, (0, 3, 1, 2, 4, 5)),
        _("the channel comes before row and column in each patch (PyTorch's order): here it comes last"):
            partial(cut, (0, 1, 3, 5, 2, 4)),
        _("row and column are swapped in each patch"): partial(cut, (0, 1, 3, 4, 2, 5)),
        **{_("rows and cols are split, and the axes then go into the order {order}: it should be {right}", order=order,
             right=RIGHT_ORDER): partial(cut, order) for order in orders},
    })
    yield from core(gaussian(2, 6, 9, 2), patch_size=3, title=_("patches of 3 x 3"))


def check_patch_order(names: dict) -> Tables:
    """With three channels, and images that are not square."""
    yield from check_pair(names, "patchify", patches.patchify_forward, gaussian(5, 4, 6, 3), patch_size=2, slips={
        _("the backward reads a patch as (channel, row, column): the forward writes it as (row, column, channel)"):
            pasted((2, 3, 3, 2, 2), (0, 1, 4, 2, 5, 3)),
        _("the backward swaps row and column in each patch"): pasted((2, 3, 2, 2, 3), (0, 1, 4, 2, 3, 5)),
        _("dpatches is reshaped at once: swap the axes back, too"): pasted((4, 6, 3), (0, 1, 2, 3)),
    })


def check_random_masking(names: dict) -> Tables:
    """With five images of seven patches, of which three are kept: as many as are removed would hide a mistake."""
    noise, hide = frozen(np.random.default_rng(2).random((5, 7))), function(names, "random_masking")

    def outputs(shuffle, kept):
        """ids_keep, ids_restore and mask of an order, which may be a wrong one."""
        restore = np.argsort(shuffle, axis=1)
        return shuffle[:, :kept], restore, (restore >= kept).astype(float)

    def rows(ratio):
        keep, restore, mask = mae.random_masking(noise, ratio)
        shuffle, kept = np.argsort(noise, axis=1), keep.shape[1]
        columns, positions = np.argsort(noise, axis=0), np.arange(7)
        in_any, in_first = (np.where(np.isin(positions, ids), 0.0, 1.0) + 0 * noise for ids in (keep, keep[0]))
        joint = {
            _("np.argsort is applied twice to get ids_shuffle, which gives the rank of each patch, ids_restore: apply it once"):
                outputs(restore, kept),
            _("the patches with the largest noise are kept: keep those with the smallest"): outputs(shuffle[:, ::-1], kept),
            _("the noise is sorted along axis 0, over the images: each image sorts its own patches, axis 1"):
                (columns[:, :kept], np.argsort(columns, axis=0), (np.argsort(columns, axis=0) >= kept).astype(float)),
            _("the noise is sorted along axis 0, over the images, and then along axis 1: each image sorts its own patches"):
                outputs(columns, kept),
            _("mask_ratio is the fraction that is kept: it is the fraction that is removed"): outputs(shuffle, int(7 * ratio)),
            _("K is rounded up: K = int(N (1 - mask_ratio))"): outputs(shuffle, kept + 1),
            _("all images get the order of the first one: each has its own"): outputs(np.repeat(shuffle[:1], 5, axis=0), kept),
            _("the patches are not sorted by their noise: ids_shuffle = np.argsort(noise, axis=1)"):
                outputs(positions + 0 * shuffle, kept),
            _("ids_shuffle is returned, the patch at each position, and the mask is taken in its order: ids_restore is its "
              "inverse, np.argsort of it"): (keep, shuffle, (shuffle >= kept).astype(float)),
        }
        expected = {"ids_keep": keep, "ids_restore": restore, "mask": mask.astype(float)}     # bool and integers are as good
        alone = {
            "ids_keep": {
                _("the removed patches are returned: keep the first K"): shuffle[:, kept:],
                _("the last K are returned, with the largest noise: keep the first K"): shuffle[:, -kept:],
                _("the patches are sorted: keep them in the order of the shuffle"): np.sort(keep, axis=1),
                _("the positions of the first K patches in the shuffle are returned: keep the patches, ids_shuffle[:, :K]"):
                    restore[:, :kept],
                _("the noise of the kept patches is returned: keep their numbers"): np.sort(noise, axis=1)[:, :kept],
            },
            "ids_restore": {
                _("ids_shuffle is returned, the patch at each position: ids_restore is its inverse, np.argsort of it"): shuffle,
                _("it is sorted twice, which gives ids_shuffle back or 0 ... N - 1: ids_restore is np.argsort(ids_shuffle)"):
                    positions + 0 * shuffle,
                _("ids_shuffle is sorted along axis 0: each image sorts its own, axis 1"): np.argsort(shuffle, axis=0),
            },
            "mask": {
                _("the noise is compared with mask_ratio: the mask is 1 for the patches that are not among the first K"):
                    noise > ratio,
                _("the noise is compared with 1 - mask_ratio: the mask is 1 for the patches that are not among the first K"):
                    noise > 1 - ratio,
                _("noise below mask_ratio is removed: the mask is 1 for the patches that are not among the first K"):
                    noise < ratio,
                _("noise below 1 - mask_ratio is removed: the mask is 1 for the patches that are not among the first K"):
                    noise < 1 - ratio,
                _("the patches with the largest noise are kept: keep those with the smallest"): restore < 7 - kept,
                _("0 and 1 are swapped: 1 = removed"): 1 - mask,
                _("every image gets the kept patches of all images: index each row with its own, as np.put_along_axis does"):
                    in_any,
                _("every image gets the mask of the first image: each has its own"): in_first,
                _("the mask is that of the shuffled patches: bring it into the order of the image with ids_restore"):
                    (positions >= kept) + 0 * noise,
                _("0 and 1 are swapped, and the mask is that of the shuffled patches: 1 = removed, in the order of the image"):
                    (positions < kept) + 0 * noise,
                _("ids_shuffle is compared with K: the position of patch n is ids_restore[n]"): shuffle >= kept,
                _("one patch too many is kept: only the positions 0 ... K - 1 are"): restore > kept,
                _("the mask is 0 everywhere: it is 1 for the patches that are removed"): 0 * noise,
                _("the mask is 1 everywhere: it is 0 for the patches that are kept"): 0 * noise + 1,
            },
        }
        ours = hide(noise, ratio)
        found = judge_together(ours, expected, joint)
        known = {because(words) for words in joint}
        found = [row if row.diagnosis in known else recognised(row, part, {
            words: lambda wrong=wrong: wrong for words, wrong in alone[row.tensor].items()
        }) for row, part in zip(found, ours, strict=True)]
        order = numbers(ours[1])
        named = found[1].ok or found[1].diagnosis in known | {because(words) for words in alone["ids_restore"]}
        if not named and order is not None and order.shape == restore.shape and close(
            np.sort(order, axis=1), positions + 0 * restore, 1e-9):
            found[1] = diagnosed(found[1], _(
                "each row is an order of the patches, but not the inverse of ids_shuffle, which is np.argsort of it: "
                "ids_shuffle[b, ids_restore[b, n]] should be n"
            ))
        return found

    yield _("ratio 0.5"), rows(0.5)
    yield _("ratio 0.75, K = int(7 * 0.25) = 1"), rows(0.75)


def check_unshuffle(names: dict) -> Tables:
    """With two visible tokens of five."""
    ids_restore = np.stack([np.random.default_rng(seed).permutation(5) for seed in (1, 2, 3, 4)])

    def shuffled(x, mask_token):
        hidden = np.broadcast_to(mask_token, (len(x), ids_restore.shape[1] - x.shape[1], x.shape[2]))
        return np.concatenate([x, hidden], axis=1)

    def taken(dy, ids):
        return np.take_along_axis(dy, ids[..., None], axis=1)

    def ordered(dy, ids_restore):
        return taken(dy, np.argsort(ids_restore, axis=1))

    def slip(gradient):
        """A gradient with a mistake: gradient(dy, dy in shuffled order, ids_restore)."""
        return lambda dy, x, mask_token, ids_restore: gradient(dy, ordered(dy, ids_restore), ids_restore)

    def token(numbers):
        """A gradient of the mask token: the sum of these numbers over images and positions."""
        return slip(lambda dy, back, ids: total(numbers(dy, back, ids), axis=(0, 1)))

    def formula(ours, dy, x, mask_token, ids_restore):
        found = factors(ours.ravel(), *ordered(dy, ids_restore).sum(axis=0))
        return "" if found is None else _(
            "dmask_token is a sum over the tokens in shuffled order, j = 0 ... N - 1, with the factors {factors}: they are 0 "
            "where j < K = 2, and 1 where j >= K", factors=listed(f"{factor:.3g}" for factor in np.round(found, 9) + 0.0)
        )

    orders = {                                                  # that are wrong, in the gradients of both
        _("dy is ordered by ids_restore once more: backward needs the inverse order, np.argsort(ids_restore)"): taken,
        _("ids_restore is sorted along axis 0, over the images: each image has its own order, axis 1"):
            lambda dy, ids: taken(dy, np.argsort(ids, axis=0)),
        _("all images get the order of the first one: each has its own"): lambda dy, ids: dy[:, np.argsort(ids[0])],
    }
    x, mask_token = gaussian(4, 2, 8), gaussian(1, 1, 8)
    yield from check_pair(
        names, "unshuffle", patches.unshuffle_forward, x, mask_token, ids_restore=ids_restore,
        formulas={"mask_token": formula}, gradients={
            "x": {
                **{words: slip(lambda dy, back, ids, order=order: order(dy, ids)[:, :2]) for words, order in orders.items()},
                _("dx is the first K of dy: visible token j went to the position n where ids_restore[n] is j"):
                    slip(lambda dy, back, ids: dy[:, :2]),
                _("dx is the last K of the tokens in shuffled order: the visible tokens are the first K"):
                    slip(lambda dy, back, ids: back[:, -2:]),
                _("dx is the last K of dy: visible token j went to the position n where ids_restore[n] is j"):
                    slip(lambda dy, back, ids: dy[:, -2:]),
                _("ids_restore is sorted, np.sort: backward needs the order that sorts it, np.argsort"):
                    slip(lambda dy, back, ids: taken(dy, np.sort(ids, axis=1))[:, :2]),
            },
            "mask_token": {
                _("dmask_token is the sum of all of dy: only where j >= K, at the hidden positions"):
                    token(lambda dy, back, ids: dy),
                _("dmask_token is the sum over the visible positions: it is the sum where j >= K, at the hidden ones"):
                    token(lambda dy, back, ids: back[:, :2]),
                _("dmask_token is the sum over the first K of the tokens of dy: it is the sum where j >= K, in shuffled order"):
                    token(lambda dy, back, ids: dy[:, :2]),
                _("dmask_token is the sum over the last tokens of dy: dy is in the order of the image, and the hidden "
                  "positions are those where ids_restore is K or more"): token(lambda dy, back, ids: dy[:, 2:]),
                _("dmask_token is the sum over the first tokens in shuffled order: the hidden ones are the last"):
                    token(lambda dy, back, ids: back[:, :-2]),
                **{words: token(lambda dy, back, ids, order=order: order(dy, ids)[:, 2:]) for words, order in orders.items()},
                _("dmask_token is a mean over images and positions: the one token is used at all of them, so they are summed"):
                    token(lambda dy, back, ids: back[:, 2:] / 12),
                _("dmask_token is a mean over the images: the one token is used in all of them, so they are summed"):
                    token(lambda dy, back, ids: back[:, 2:] / 4),
                _("dmask_token is a mean over the hidden positions: the one token is used at all of them, so they are summed"):
                    token(lambda dy, back, ids: back[:, 2:] / 3),
                _("dmask_token is a mean over all of dy: it is the sum where j >= K"): token(lambda dy, back, ids: dy / 20),
                _("dmask_token is the gradient of the first hidden token of each image: it is the sum of all of them"):
                    token(lambda dy, back, ids: back[:, 2:3]),
                _("dmask_token is the gradient of the last hidden token of each image: it is the sum of all of them"):
                    token(lambda dy, back, ids: back[:, -1:]),
                _("dmask_token is the sum over the first image alone: the one token is used in all of them"):
                    token(lambda dy, back, ids: back[:1, 2:]),
                _("dmask_token is 0: the token stands at all hidden positions, and gets the sum of their gradients"):
                    token(lambda dy, back, ids: 0 * dy),
                _("dmask_token is the number of hidden positions: it is the sum of dy there"):
                    token(lambda dy, back, ids: 0 * back[:, 2:] + 1),
            },
        }, variants={
            _("the visible tokens come first and the mask tokens after them: they are not moved to their positions "
              "(unshuffle)"): lambda x, mask_token, ids_restore: shuffled(x, mask_token),
            _("the order is the inverse of ids_restore"):
                lambda x, mask_token, ids_restore: ordered(shuffled(x, mask_token), ids_restore),
        },
    )


def check_reconstruct(names: dict) -> Tables:
    """With the reconstructions of a small model, against those that use visible patches only."""
    config = mae.MAEConfig(
        img_size=12, patch_size=4, in_chans=2, embed_dim=8, depth=1, num_heads=2, decoder_embed_dim=8, decoder_depth=1,
        decoder_num_heads=2, mask_ratio=0.7, norm_pix_loss=True,
    )
    params = perturbed(mae.mae_init(config, np.random.default_rng(0), np.float64), np.random.default_rng(1))
    images, noise = gaussian(2, 12, 12, 2), np.random.default_rng(2).random((2, 9))
    reconstruct = function(names, "reconstruct")
    ours, right, leaks = (make(frozen(images), params, config, frozen(noise)) for make in (
        reconstruct, mae.mae_reconstruct, partial(mae.mae_reconstruct, statistics="true")
    ))

    def row(name):
        return judge(name, getattr(ours, name, None), getattr(right, name), {
            _("each hidden patch gets its mean and contrast from the true image: part of the answer leaks; take them from the "
              "visible patches"): lambda: getattr(leaks, name),
        }, invariants=[lambda: assert_mask_hides(
            lambda images: getattr(reconstruct(images, params, config, noise), name), images, right.mask, config.patch_size
        )])

    yield _("reconstruct"), [row(name) for name in ("masked", "reconstruction", "pasted")]
