"""What a learner's loss, optimiser, decoder or masked autoencoder is held to, as in `exercise_layers`."""
import copy
from functools import partial

import numpy as np

from tinymae.gradcheck.cases import perturbed
from tinymae.gradcheck.invariants import assert_mask_hides
from tinymae.learn.judge import check_pair, close, frozen, function, judge, judge_all, normal
from tinymae.masks import shift_right
from tinymae.models import mae
from tinymae.ops import losses, patches
from tinymae.train.optim import AdamW, noam


def check_shift_right(names):
    """Sentences of three lengths, and two words that <bos> may be."""
    targets, shift = np.array([[5, 6, 7, 2], [8, 2, 0, 0], [9, 5, 2, 0]]), function(names, "shift_right")

    def row(bos):
        return judge("inputs", shift(frozen(targets), bos), shift_right(targets, bos), {
            "the words move to the left: at place t the decoder would be fed the word that comes after the one it is to say":
                lambda: np.concatenate([targets[:, 1:], np.full((3, 1), bos)], axis=1),
            "nothing moves: the decoder would be fed the very word that it is to say": lambda: targets,
            "nothing moves, <bos> takes the place of the first word": lambda: np.where(np.arange(4) == 0, bos, targets),
            "the last word comes round to the front: <bos> stands there": lambda: np.roll(targets, 1, axis=1),
            "whole sentences move: the words are axis 1": lambda: np.concatenate([np.full((1, 4), bos), targets[:-1]]),
            "the first word is 1, whatever bos is": lambda: shift_right(targets, 1),
        })

    for bos in (1, 4):
        yield f"bos = {bos}", [row(bos)]


def check_cross_entropy(names):
    """Smoothed, with padding that does not count."""
    def loss(logits, targets, ignore_index=None, label_smoothing=0.1):
        return losses.cross_entropy_forward(logits, targets, ignore_index=ignore_index, label_smoothing=label_smoothing)[0]

    targets = np.random.default_rng(0).integers(1, 11, (3, 5)) * (np.arange(5) < np.array([5, 3, 4])[:, None])
    yield from check_pair(
        names, "cross_entropy", losses.cross_entropy_forward, normal(3, 5, 11),
        targets=targets, ignore_index=0, label_smoothing=0.1, variants={
            "the mean is taken over all positions: it should be over those that count":
                lambda logits, targets, **_: loss(logits, targets, 0) * (targets != 0).mean(),
            "padding counts like a word: a target that is ignore_index does not count": lambda logits, targets, **_: loss(
                logits, targets
            ),
            "the labels are not smoothed": lambda logits, targets, **_: loss(logits, targets, 0, 0.0),
        },
    )


BETAS, EPS, DECAY, RATES = (0.8, 0.95), 1e-3, 0.1, (0.02, 0.03, 0.01, 0.04, 0.02)


def trajectory(step, start, grads):
    """Where step(params, grads, t, lr) moves the arrays of the parameters: (steps, numbers)."""
    params, rows = copy.deepcopy(start), []
    arrays = list(params.values())                              # others may hold them, too: new ones in params do not count
    for t, (g, lr) in enumerate(zip(grads, RATES, strict=True), 1):
        step(params, {name: frozen(array) for name, array in g.items()}, t, lr)
        rows.append(np.concatenate([array.ravel() for array in arrays]))
    return np.array(rows)


def move(p, mhat, vhat, lr):
    """(3)"""
    return p - lr * DECAY * p - lr * mhat / (np.sqrt(vhat) + EPS)


def adam(start, move=move, clock=lambda t, i: (t, t), betas=BETAS, mean=lambda m, g, b: b * m + (1 - b) * g,
         gradient=lambda g, p: g, square=np.square, keep_hats=False):
    """A step of AdamW as it should be, for `trajectory`; the options are what may be wrong.

    clock(t, i) is the t in the hats of m and v, for array i.
    """
    (b1, b2), means = betas, {name: (0.0, 0.0) for name in start}

    def step(params, grads, t, lr):
        for i, (name, p) in enumerate(params.items()):
            (m, v), g = means[name], gradient(grads[name], p)
            m, v = mean(m, g, b1), mean(v, square(g), b2)       # (1), (2)
            hats = m / (1 - b1 ** clock(t, i)[0]), v / (1 - b2 ** clock(t, i)[1])
            means[name] = hats if keep_hats else (m, v)
            p[...] = move(p, *hats, lr)                         # (3)

    return step


def check_adamw(names):
    """Five steps, each with another gradient and rate, against the package's, which are PyTorch's; then a second optimiser."""
    start = {"w": normal(3, 4), "b": normal(7)}
    grads = [{name: normal(*p.shape, seed=t) for name, p in start.items()} for t in range(1, 6)]

    def run(optimizer_class):
        optimizer = optimizer_class(copy.deepcopy(start), betas=BETAS, eps=EPS, weight_decay=DECAY)
        return trajectory(lambda params, grads, t, lr: optimizer.step(params, grads, lr), start, grads)

    def wrong(**options):
        return lambda: trajectory(adam(start, **options), start, grads)

    def moved(move):
        return wrong(move=move)

    ours, expected = run(function(names, "AdamW")), run(AdamW)
    first = next((t for t in range(5) if not close(ours[t], expected[t], 1e-9)), 0)
    where = f"no known pattern: step {first + 1} is the first that is wrong"
    if not np.isfinite(ours).all():
        where = "it holds nan: is t still 0 in the first step? Then 1 - b^t is 0, so count the step first"
    yield "five steps", [judge("parameters", ours, expected, {
        "t stands still at 1: it counts the steps, so keep it (self.t += 1)": wrong(clock=lambda t, i: (1, 1)),
        "t advances once for each array: it advances once for each step": wrong(clock=lambda t, i: (2 * t - 1 + i,) * 2),
        "t runs one step ahead: in the first step it is 1": wrong(clock=lambda t, i: (t + 1, t + 1)),
        "the hats are missing: mhat = m / (1 - b1^t), vhat = v / (1 - b2^t)": wrong(clock=lambda t, i: (np.inf, np.inf)),
        "the hat of m is missing: mhat = m / (1 - b1^t)": wrong(clock=lambda t, i: (np.inf, t)),
        "the hat of v is missing: vhat = v / (1 - b2^t)": wrong(clock=lambda t, i: (t, np.inf)),
        "the hats are kept as m and v: they are for (3) alone": wrong(keep_hats=True),
        "(1) and (2) have no factor 1 - b": wrong(mean=lambda m, g, b: b * m + g),
        "the factor 1 - b2 of (2) is squared with g: it is (1 - b2) g^2": wrong(square=lambda g: (1 - BETAS[1]) * g * g),
        "the weight decay is added to the gradient, Adam with L2: AdamW takes it from p itself":
            wrong(gradient=lambda g, p: g + DECAY * p, move=lambda p, m, v, lr: p - lr * m / (np.sqrt(v) + EPS)),
        "there is no weight decay": moved(lambda p, m, v, lr: p - lr * m / (np.sqrt(v) + EPS)),
        "the weight decay is not multiplied by lr": moved(lambda p, m, v, lr: p - DECAY * p - lr * m / (np.sqrt(v) + EPS)),
        "the weight decay comes after the step: it takes lr wd p from the p before it":
            moved(lambda p, m, v, lr: (p - lr * m / (np.sqrt(v) + EPS)) * (1 - lr * DECAY)),
        "eps stands inside the root": moved(lambda p, m, v, lr: p - lr * DECAY * p - lr * m / np.sqrt(v + EPS)),
        "eps is missing": moved(lambda p, m, v, lr: p - lr * DECAY * p - lr * m / np.sqrt(v)),
        "the root of vhat is missing": moved(lambda p, m, v, lr: p - lr * DECAY * p - lr * m / (v + EPS)),
        "v is a mean of gradients: it should be of their squares": wrong(square=lambda g: g),
        "b1 and b2 have changed places": wrong(betas=BETAS[::-1]),
        "p moves along the gradient, uphill: subtract": moved(lambda p, m, v, lr: move(p, -m, v, lr)),
        "the arrays of params stay what they were: write into them (params[name] -= ...); whoever holds them does not see a "
        "new one": moved(lambda p, m, v, lr: p),
    }, otherwise=where)]
    yield "a second optimiser", [judge("parameters", run(function(names, "AdamW")), expected, otherwise=(
        "it does not begin where the first one began: keep m, v and t in self, and nothing outside"
    ))]


def check_schedule(names):
    """Ten batches of a model with three arrays."""
    width, warmup, factor, steps = 64, 4, 2.0, np.arange(1, 11)
    params = {"w": np.ones((2, 3)), "b": np.ones(3), "gamma": np.ones(3)}
    ours = function(names, "learning_rates")(params, len(steps), width, warmup, factor)
    up, down = steps * warmup**-1.5, steps**-0.5

    def rates(steps):
        return np.array([noam(int(step), width, warmup, factor) for step in steps])

    yield "ten batches", [judge("rates", ours, rates(steps), {
        "the step advances once for each array: it advances once for each batch": lambda: rates(len(params) * steps),
        "the first batch is step 2: it is step 1": lambda: rates(steps + 1),
        "the warm-up is missing: the rate starts at its highest": lambda: factor * width**-0.5 * down,
        "the rate never falls: after the warm-up comes the root of the step": lambda: factor * width**-0.5 * up,
        "max stands in the place of min": lambda: factor * width**-0.5 * np.maximum(up, down),
    })]


def check_beam_step(names):
    """A beginning that does not go on, likely as its next word is; one that goes on twice; and one that goes on once."""
    totals, log_probs = np.array([-9.0, -1.0, -1.4]), np.log(np.random.default_rng(7).dirichlet(np.ones(11), 3))
    scores, width = totals[:, None] + log_probs, log_probs.shape[1]
    best, alone, least = (np.argsort(x, axis=None)[:3] for x in (-scores, -log_probs, scores))
    row, column = np.divmod(best, width)
    once = "every beginning goes on once: the W best of all W * V go on"
    bare = "the totals are not added before the choice: a beginning brings its own probability along"
    worst, last = "the worst are kept: take the largest", "the best stands last"
    yield "three beginnings", judge_all(function(names, "beam_step")(frozen(totals), frozen(log_probs)), {
        "origin": (row, {
            once: lambda: np.arange(3), bare: lambda: alone // width, worst: lambda: least // width, last: lambda: row[::-1],
            "it is divided by W: a row of the scores has V words": lambda: best // 3,
        }),
        "word": (column, {
            once: lambda: scores.argmax(1), bare: lambda: alone % width, worst: lambda: least % width,
            last: lambda: column[::-1],
            "it is the remainder by W: a row of the scores has V words": lambda: best % 3,
            "these are places in the flat array of W * V scores: the word is the remainder by V": lambda: best,
        }),
        "totals": (scores[row, column], {
            once: lambda: scores.max(1), bare: lambda: scores.ravel()[alone], worst: lambda: scores.ravel()[least],
            last: lambda: scores[row, column][::-1],
            "the totals of the beginnings are not added": lambda: log_probs[row, column],
            "the totals are added nowhere: a beginning brings its own probability along": lambda: log_probs.ravel()[alone],
        }),
    })


def check_patchify(names):
    """Pictures that are not square."""
    def cut(order, images, patch_size):
        batch, rows, cols, channels = images.shape
        x = images.reshape(batch, rows // patch_size, patch_size, cols // patch_size, patch_size, channels)
        return x.transpose(order).reshape(batch, -1, patch_size * patch_size * channels)

    yield from check_pair(names, "patchify", patches.patchify_forward, normal(5, 4, 6, 3), patch_size=2, slips={
        "dpatches is reshaped at once: split it as the forward's last line joined it, then swap the axes back":
            lambda dpatches, images, patch_size: dpatches.reshape(images.shape),
    }, variants={
        "the picture is reshaped at once, which cuts it into strips: split rows and cols first, then swap the axes":
            partial(cut, (0, 1, 2, 3, 4, 5)),
        "the patches are numbered column by column: here row by row": partial(cut, (0, 3, 1, 2, 4, 5)),
        "the channel stands before row and column in each patch (PyTorch's order): here it stands last":
            partial(cut, (0, 1, 3, 5, 2, 4)),
        "row and column have changed places in each patch": partial(cut, (0, 1, 3, 4, 2, 5)),
    })


def check_random_masking(names):
    """Two pictures of six patches."""
    noise, hide = frozen(np.random.default_rng(1).random((2, 6))), function(names, "random_masking")
    keep, restore, mask = mae.random_masking(noise, 0.5)
    shuffle = np.argsort(noise, axis=1)
    yield "ratio 0.5", judge_all(hide(noise, 0.5), {
        "ids_keep": (keep, {
            "the largest are kept: the small ones stay": lambda: shuffle[:, ::-1][:, :3],
            "the removed ones are returned: keep the first K": lambda: shuffle[:, 3:],
            "they are sorted: keep them in the order of the shuffle": lambda: np.sort(keep, axis=1),
        }),
        "ids_restore": (restore, {
            "it is ids_shuffle, the patch at each place: ids_restore is its inverse, the place of each patch, np.argsort of it":
                lambda: shuffle,
        }),
        "mask": (mask.astype(float), {                          # bool and integers are as good
            "0 and 1 have changed places: 1 = removed": lambda: 1 - mask,
            "it is the mask of the shuffled patches: bring it into the order of the picture with ids_restore":
                lambda: np.repeat([[0, 0, 0, 1, 1, 1]], 2, axis=0),
            "it asks ids_shuffle where patch n is: ids_restore knows": lambda: shuffle >= 3,
            "one patch too many stays: the places 0 ... K - 1 do": lambda: restore > 3,
        }),
    })
    yield "ratio 0.75", [judge("ids_keep, K = int(6 * 0.25) = 1", hide(noise, 0.75)[0], shuffle[:, :1])]


def check_unshuffle(names):
    """Two kept tokens of five."""
    ids_restore = np.stack([np.random.default_rng(seed).permutation(5) for seed in (1, 2, 3)])

    def shuffled(x, mask_token):
        hidden = np.broadcast_to(mask_token, (len(x), ids_restore.shape[1] - x.shape[1], x.shape[2]))
        return np.concatenate([x, hidden], axis=1)

    def moved(dy, order):
        return np.take_along_axis(dy, order[..., None], axis=1)[:, :2]

    yield from check_pair(
        names, "unshuffle", patches.unshuffle_forward, normal(3, 2, 8), normal(1, 1, 8), ids_restore=ids_restore, slips={
            "dy moves by ids_restore once more: the way back is the inverse order, np.argsort(ids_restore)":
                lambda dy, x, mask_token, ids_restore: moved(dy, ids_restore),
            "dx is the first K of dy: kept token j went to the place n where ids_restore[n] is j":
                lambda dy, *_, **__: dy[:, :2],
        }, variants={
            "the kept tokens stand first and the mask tokens after them: nobody put them back in their places (unshuffle)":
                lambda x, mask_token, ids_restore: shuffled(x, mask_token),
            "the order is the inverse of ids_restore": lambda x, mask_token, ids_restore: np.take_along_axis(
                shuffled(x, mask_token), np.argsort(ids_restore, axis=1)[..., None], axis=1
            ),
        },
    )


def check_masked_mse(names):
    """Six removed patches of fifteen, and not as many in each picture: their mean is not a mean of means."""
    mask, width = np.array([[1, 0, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]), 7

    def variant(counts, number):
        return lambda pred, target, mask: np.vdot(counts, np.square(pred - target).sum(axis=-1)) / number

    yield from check_pair(
        names, "masked_mse", losses.masked_mse_forward, normal(3, 5, width),
        target=normal(3, 5, width, seed=1), mask=mask, variants={
            "the mean is taken over all patches: it should be over the removed ones":
                variant(mask, mask.size * width),
            "the mask is not used: visible patches do not count": variant(np.ones_like(mask), mask.size * width),
            "the mask is read the wrong way round: 1 = removed, which counts":
                variant(1 - mask, (1 - mask).sum() * width),
            "the squares of a patch are summed: take their mean": variant(mask, mask.sum()),
            "nothing is divided: take the mean": variant(mask, 1),
            "the mean is taken in each picture first, then over the pictures: it is over all removed patches at once":
                lambda pred, target, mask: variant(mask / mask.sum(axis=1, keepdims=True), 3 * width)(pred, target, mask),
        },
    )


def check_reconstruct(names):
    """Pictures of a small model, against those that use visible patches only."""
    config = mae.MAEConfig(
        img_size=12, patch_size=4, in_chans=2, embed_dim=8, depth=1, num_heads=2, decoder_embed_dim=8, decoder_depth=1,
        decoder_num_heads=2, mask_ratio=0.7, norm_pix_loss=True,
    )
    params = perturbed(mae.mae_init(config, np.random.default_rng(0), np.float64), np.random.default_rng(1))
    images, noise = normal(2, 12, 12, 2), np.random.default_rng(2).random((2, 9))
    reconstruct = function(names, "reconstruct")
    ours, right, leaks = (make(frozen(images), params, config, frozen(noise)) for make in (
        reconstruct, mae.mae_reconstruct, partial(mae.mae_reconstruct, statistics="true")
    ))

    def row(name):
        return judge(name, getattr(ours, name, None), getattr(right, name), {
            "each hidden patch gets its mean and contrast from the true picture: part of the answer leaks; take them from the "
            "visible patches": lambda: getattr(leaks, name),
        }, [lambda: assert_mask_hides(
            lambda images: getattr(reconstruct(images, params, config, noise), name), images, right.mask, config.patch_size
        )])

    yield "reconstruct", [row(name) for name in ("masked", "reconstruction", "pasted")]
