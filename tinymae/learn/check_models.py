"""Checks of the exercises about losses, optimisers, decoding and masked autoencoders; check_layers explains what a check is."""
import copy
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tinymae.gradcheck import Row
from tinymae.gradcheck.cases import perturbed
from tinymae.gradcheck.invariants import assert_mask_hides
from tinymae.learn.judge import UNKNOWN, check_pair, close, frozen, function, gaussian, judge, judge_all
from tinymae.masks import shift_right
from tinymae.models import mae
from tinymae.ops import losses, patches, softmax
from tinymae.train.optim import AdamW, noam


def check_shift_right(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Sentences of three lengths, and two ids for <bos>."""
    targets, shift = np.array([[5, 6, 7, 2], [8, 2, 0, 0], [9, 5, 2, 0]]), function(names, "shift_right")
    moved = shift_right(targets, 0)

    def row(bos):
        return judge("inputs", shift(frozen(targets), bos), shift_right(targets, bos), {
            "the tokens move to the left: at position t the decoder would get the token after the one that it has to predict":
                lambda: np.concatenate([targets[:, 1:], np.full((3, 1), bos)], axis=1),
            "nothing moves: the decoder would get exactly the token that it has to predict": lambda: targets,
            "nothing moves, <bos> replaces the first token": lambda: np.where(np.arange(4) == 0, bos, targets),
            "the last token moves to the front: <bos> should be there": lambda: np.roll(targets, 1, axis=1),
            "whole sentences move: the tokens are axis 1": lambda: np.concatenate([np.full((1, 4), bos), targets[:-1]]),
            "the first token is 1, for every bos": lambda: shift_right(targets, 1),
            "only the first sentence begins with bos: each one does":
                lambda: np.where((np.arange(4) == 0) & (np.arange(3) == 0)[:, None], bos, moved),
            "the last token of a sentence moves into the next one: shift each row by itself":
                lambda: np.concatenate([[bos], targets.ravel()[:-1]]).reshape(targets.shape),
        })

    for bos in (1, 4):
        yield f"bos = {bos}", [row(bos)]


def check_cross_entropy(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With label smoothing, and padding that does not count."""
    def loss(logits, targets, ignore_index=None, label_smoothing=0.1):
        return losses.cross_entropy_forward(logits, targets, ignore_index=ignore_index, label_smoothing=label_smoothing)[0]

    def slip(target, spread):
        def dlogits(dloss, logits, targets, **_):
            q = target * np.eye(11)[targets] + spread / 11
            counts = targets != 0
            return dloss * (softmax.softmax_forward(logits)[0] - q) * counts[..., None] / counts.sum()
        return dlogits

    targets = np.random.default_rng(0).integers(1, 11, (3, 5)) * (np.arange(5) < np.array([5, 3, 4])[:, None])
    yield from check_pair(
        names, "cross_entropy", losses.cross_entropy_forward, gaussian(3, 5, 11),
        targets=targets, ignore_index=0, label_smoothing=0.1, variants={
            "the mean is taken over all positions: it should be over those that count":
                lambda logits, targets, **_: loss(logits, targets, 0) * (targets != 0).mean(),
            "padding counts like a token: a target that is ignore_index does not count": lambda logits, targets, **_: loss(
                logits, targets
            ),
            "the labels are not smoothed": lambda logits, targets, **_: loss(logits, targets, 0, 0.0),
        }, slips={
            "the smoothing is missing in (5): q is 1 at the target, and 0 elsewhere": slip(1.0, 0.0),
            "e / V is missing in the q of (5)": slip(0.9, 0.0),
            "the factor 1 - e is missing in the q of (5)": slip(1.0, 0.1),
            "e is not divided by V in the q of (5)": slip(0.9, 0.1 * 11),
        },
    )


BETAS, ADAM_EPS, DECAY, RATES = (0.8, 0.95), 1e-3, 0.1, (0.02, 0.03, 0.01, 0.04, 0.02)


def trajectory(step: Callable, start: dict, grads: list[dict]) -> np.ndarray:
    """The parameters after each call of step(params, grads, t, lr): (steps, numbers)."""
    params, rows = copy.deepcopy(start), []
    arrays = list(params.values())                              # the model holds these arrays: new ones in params do not count
    for t, (g, lr) in enumerate(zip(grads, RATES, strict=True), 1):
        step(params, {name: frozen(array) for name, array in g.items()}, t, lr)
        rows.append(np.concatenate([array.ravel() for array in arrays]))
    return np.array(rows)


def move(p: np.ndarray, mhat: np.ndarray, vhat: np.ndarray, lr: float) -> np.ndarray:
    """Equation (3) of AdamW."""
    return p - lr * DECAY * p - lr * mhat / (np.sqrt(vhat) + ADAM_EPS)


def adam(
    start: dict,
    *,
    move: Callable = move,
    clock: Callable = lambda t, i: (t, t),
    betas: tuple[float, float] = BETAS,
    mean: Callable = lambda m, g, b: b * m + (1 - b) * g,
    gradient: Callable = lambda g, p: g,
    square: Callable = np.square,
    keep_hats: bool = False,
) -> Callable:
    """A step of AdamW without mistakes, for `trajectory`; the options are mistakes.

    clock(t, i) returns the t in mhat and vhat of array i.
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


def check_adamw(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Five steps, each with its own gradient and learning rate, against the package, which equals PyTorch; then again."""
    start = {"w": gaussian(3, 4), "b": gaussian(7)}
    grads = [{name: gaussian(*p.shape, seed=t) for name, p in start.items()} for t in range(1, 6)]

    def run(optimizer_class):
        optimizer = optimizer_class(copy.deepcopy(start), betas=BETAS, eps=ADAM_EPS, weight_decay=DECAY)
        return trajectory(lambda params, grads, t, lr: optimizer.step(params, grads, lr), start, grads)

    def wrong(**options):
        return lambda: trajectory(adam(start, **options), start, grads)

    def moved(move):
        return wrong(move=move)

    ours, expected = run(function(names, "AdamW")), run(AdamW)
    first = next((t for t in range(5) if not close(ours[t], expected[t], 1e-9)), 0)
    where = f"{UNKNOWN}: step {first + 1} is the first that is wrong"
    if not np.isfinite(ours).all():
        where = "it holds nan: is t still 0 in the first step? Then 1 - b^t is 0, so count the step first"
    yield "five steps", [judge("parameters", ours, expected, {
        "t stays at 1: it counts the steps, so keep it in self (self.t += 1)": wrong(clock=lambda t, i: (1, 1)),
        "t advances once for each array: it advances once for each step": wrong(clock=lambda t, i: (2 * t - 1 + i,) * 2),
        "t is one step ahead: in the first step it is 1": wrong(clock=lambda t, i: (t + 1, t + 1)),
        "mhat and vhat are not used: mhat = m / (1 - b1^t), vhat = v / (1 - b2^t)": wrong(clock=lambda t, i: (np.inf, np.inf)),
        "mhat is not used: mhat = m / (1 - b1^t)": wrong(clock=lambda t, i: (np.inf, t)),
        "vhat is not used: vhat = v / (1 - b2^t)": wrong(clock=lambda t, i: (t, np.inf)),
        "mhat and vhat are stored as m and v: they are for (3) alone": wrong(keep_hats=True),
        "(1) and (2) have no factor 1 - b": wrong(mean=lambda m, g, b: b * m + g),
        "the factor 1 - b2 of (2) is squared with g: it is (1 - b2) g^2": wrong(square=lambda g: (1 - BETAS[1]) * g * g),
        "the weight decay is added to the gradient, Adam with L2: AdamW subtracts it from p itself":
            wrong(gradient=lambda g, p: g + DECAY * p, move=lambda p, m, v, lr: p - lr * m / (np.sqrt(v) + ADAM_EPS)),
        "there is no weight decay": moved(lambda p, m, v, lr: p - lr * m / (np.sqrt(v) + ADAM_EPS)),
        "the weight decay is not multiplied by lr": moved(lambda p, m, v, lr: p - DECAY * p - lr * m / (np.sqrt(v) + ADAM_EPS)),
        "the weight decay comes after the step: it subtracts lr wd p, with p from before the step":
            moved(lambda p, m, v, lr: (p - lr * m / (np.sqrt(v) + ADAM_EPS)) * (1 - lr * DECAY)),
        "eps is inside the square root": moved(lambda p, m, v, lr: p - lr * DECAY * p - lr * m / np.sqrt(v + ADAM_EPS)),
        "eps is missing": moved(lambda p, m, v, lr: p - lr * DECAY * p - lr * m / np.sqrt(v)),
        "the square root of vhat is missing": moved(lambda p, m, v, lr: p - lr * DECAY * p - lr * m / (v + ADAM_EPS)),
        "v is a mean of the gradients: it should be a mean of their squares": wrong(square=lambda g: g),
        "b1 and b2 are swapped": wrong(betas=BETAS[::-1]),
        "p moves along the gradient, uphill: subtract": moved(lambda p, m, v, lr: move(p, -m, v, lr)),
        "the arrays of params do not change: write into them (params[name] -= ...); the model holds these arrays and does not "
        "get a new one": moved(lambda p, m, v, lr: p),
    }, otherwise=where)]
    yield "a second optimiser", [judge("parameters", run(function(names, "AdamW")), expected, otherwise=(
        "it does not start like the first one: keep m, v and t in self, and nothing outside"
    ))]


def check_schedule(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With ten batches of a model with three arrays."""
    width, warmup, factor, steps = 64, 4, 2.0, np.arange(1, 11)
    params = {"w": np.ones((2, 3)), "b": np.ones(3), "gamma": np.ones(3)}
    ours = function(names, "learning_rates")(params, len(steps), width, warmup, factor)
    up, down = steps * warmup**-1.5, steps**-0.5

    def rates(steps):
        return np.array([noam(int(step), width, warmup, factor) for step in steps])

    yield "ten batches", [judge("rates", ours, rates(steps), {
        "the step advances once for each array: it advances once for each batch": lambda: rates(len(params) * steps),
        "the first batch is step 2: it is step 1": lambda: rates(steps + 1),
        "the warm-up is missing: the rate starts at its maximum": lambda: factor * width**-0.5 * down,
        "the rate never falls: after the warm-up it falls with the square root of the step": lambda: factor * width**-0.5 * up,
        "D^-0.5 is missing": lambda: width**0.5 * rates(steps),
        "it is multiplied by the square root of D: it is divided": lambda: width * rates(steps),
        "the factor is missing": lambda: rates(steps) / factor,
        "(step * warmup) is raised to -1.5: warmup alone is": lambda: factor * width**-0.5 * np.minimum(
            steps**-0.5, (steps * warmup) ** -1.5),
        "warmup is raised to 1.5: it should be -1.5": lambda: factor * width**-0.5 * np.minimum(
            steps**-0.5, steps * warmup**1.5),
        "max is used instead of min": lambda: factor * width**-0.5 * np.maximum(up, down),
    })]
    fewer = function(names, "learning_rates")(params, 7, 16, warmup, factor)
    yield "seven batches, D = 16", [judge("rates", fewer, np.array([noam(step, 16, warmup, factor) for step in range(1, 8)]))]


def check_beam_step(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With a hypothesis that is not continued, despite a probable next token, one continued twice and one once."""
    totals, log_probs = np.array([-9.0, -1.0, -1.4]), np.log(np.random.default_rng(7).dirichlet(np.ones(11), 3))
    scores, width = totals[:, None] + log_probs, log_probs.shape[1]
    product = totals[:, None] * log_probs
    best, alone, least, most = (np.argsort(x, axis=None)[:3] for x in (-scores, -log_probs, scores, -product))
    row, column = np.divmod(best, width)
    once = "every hypothesis is continued once: the W best of all W * V continuations should be kept"
    bare = "the totals are not added before the choice: the probability of the hypothesis counts, too"
    worst, last = "the worst are kept: take the largest", "the best is last"
    times = "totals and log_probs are multiplied: logarithms of probabilities are added"
    yield "three hypotheses", judge_all(function(names, "beam_step")(frozen(totals), frozen(log_probs)), {
        "origin": (row, {
            once: lambda: np.arange(3), bare: lambda: alone // width, worst: lambda: least // width, last: lambda: row[::-1],
            times: lambda: most // width,
            "the index is divided by W: a row of the scores has V tokens": lambda: best // 3,
        }),
        "word": (column, {
            once: lambda: scores.argmax(1), bare: lambda: alone % width, worst: lambda: least % width,
            last: lambda: column[::-1], times: lambda: most % width,
            "the remainder is taken by W: a row of the scores has V tokens": lambda: best % 3,
            "the indices are those of the flat array of W * V scores: the token is the remainder by V": lambda: best,
        }),
        "totals": (scores[row, column], {
            once: lambda: scores.max(1), bare: lambda: scores.ravel()[alone], worst: lambda: scores.ravel()[least],
            last: lambda: scores[row, column][::-1], times: lambda: product.ravel()[most],
            "the totals of the hypotheses are not added": lambda: log_probs[row, column],
            "they are the old totals in their order: the new total is that of the hypothesis and its token": lambda: totals,
            "they are the old totals of the hypotheses that go on: the log probability of the token is added":
                lambda: totals[row],
            "the totals are added twice": lambda: totals[row] + scores[row, column],
            "the totals are never added: the probability of the hypothesis counts, too": lambda: log_probs.ravel()[alone],
        }),
    })
    totals, log_probs = np.array([-1.0, -2.0, -0.5, -1.5]), np.log(np.random.default_rng(3).dirichlet(np.ones(6), 4))
    best = np.argsort(-(totals[:, None] + log_probs), axis=None)[:4]
    yield "four hypotheses", judge_all(function(names, "beam_step")(frozen(totals), frozen(log_probs)), {
        "origin": (best // 6, {}), "word": (best % 6, {}), "totals": ((totals[:, None] + log_probs).ravel()[best], {}),
    })


def check_patchify(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With images that are not square."""
    def cut(order, images, patch_size):
        batch, rows, cols, channels = images.shape
        x = images.reshape(batch, rows // patch_size, patch_size, cols // patch_size, patch_size, channels)
        return x.transpose(order).reshape(batch, -1, patch_size * patch_size * channels)

    yield from check_pair(names, "patchify", patches.patchify_forward, gaussian(5, 4, 6, 3), patch_size=2, slips={
        "dpatches is reshaped at once: split it as the last line of forward merged it, then swap the axes back":
            lambda dpatches, images, patch_size: dpatches.reshape(images.shape),
    }, variants={
        "the image is reshaped at once, which cuts it into strips: split rows and cols first, then swap the axes":
            partial(cut, (0, 1, 2, 3, 4, 5)),
        "the patches are numbered column by column: here row by row": partial(cut, (0, 3, 1, 2, 4, 5)),
        "the channel comes before row and column in each patch (PyTorch's order): here it comes last":
            partial(cut, (0, 1, 3, 5, 2, 4)),
        "row and column are swapped in each patch": partial(cut, (0, 1, 3, 4, 2, 5)),
    })
    yield from check_pair(
        names, "patchify", patches.patchify_forward, gaussian(2, 6, 9, 2), patch_size=3, title="patches of 3 x 3"
    )


def check_random_masking(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With two images of seven patches, of which three are kept: as many as are removed would hide a mistake."""
    noise, hide = frozen(np.random.default_rng(2).random((2, 7))), function(names, "random_masking")
    keep, restore, mask = mae.random_masking(noise, 0.5)
    shuffle = np.argsort(noise, axis=1)
    large = "the patches with the largest noise are kept: keep those with the smallest"
    yield "ratio 0.5", judge_all(hide(noise, 0.5), {
        "ids_keep": (keep, {
            large: lambda: shuffle[:, ::-1][:, :3],
            "the removed patches are returned: keep the first K": lambda: shuffle[:, 3:],
            "the patches are sorted: keep them in the order of the shuffle": lambda: np.sort(keep, axis=1),
        }),
        "ids_restore": (restore, {
            large: lambda: 6 - restore,
            "ids_shuffle is returned, the patch at each position: ids_restore is its inverse, np.argsort of it":
                lambda: shuffle,
        }),
        "mask": (mask.astype(float), {                          # bool and integers are as good
            large: lambda: restore < 4,
            "0 and 1 are swapped: 1 = removed": lambda: 1 - mask,
            "every image gets the kept patches of all images: index each row with its own, as np.put_along_axis does":
                lambda: np.where(np.isin(np.arange(7), keep), 0.0, 1.0) + 0 * noise,
            "the mask is that of the shuffled patches: bring it into the order of the image with ids_restore":
                lambda: np.repeat([[0, 0, 0, 1, 1, 1, 1]], 2, axis=0),
            "ids_shuffle is compared with K: the position of patch n is ids_restore[n]": lambda: shuffle >= 3,
            "one patch too many is kept: only the positions 0 ... K - 1 are": lambda: restore > 3,
        }),
    })
    right = dict(zip(("ids_keep", "ids_restore", "mask"), mae.random_masking(noise, 0.75), strict=True))
    yield "ratio 0.75, K = int(7 * 0.25) = 1", judge_all(
        hide(noise, 0.75), {name: (array.astype(float) if name == "mask" else array, {}) for name, array in right.items()}
    )


def check_unshuffle(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With two visible tokens of five."""
    ids_restore = np.stack([np.random.default_rng(seed).permutation(5) for seed in (1, 2, 3)])

    def shuffled(x, mask_token):
        hidden = np.broadcast_to(mask_token, (len(x), ids_restore.shape[1] - x.shape[1], x.shape[2]))
        return np.concatenate([x, hidden], axis=1)

    def moved(dy, order):
        return np.take_along_axis(dy, order[..., None], axis=1)[:, :2]

    yield from check_pair(
        names, "unshuffle", patches.unshuffle_forward, gaussian(3, 2, 8), gaussian(1, 1, 8), ids_restore=ids_restore, slips={
            "dy is ordered by ids_restore once more: backward needs the inverse order, np.argsort(ids_restore)":
                lambda dy, x, mask_token, ids_restore: moved(dy, ids_restore),
            "dx is the first K of dy: visible token j went to the position n where ids_restore[n] is j":
                lambda dy, *_, **__: dy[:, :2],
        }, variants={
            "the visible tokens come first and the mask tokens after them: they are not moved to their positions (unshuffle)":
                lambda x, mask_token, ids_restore: shuffled(x, mask_token),
            "the order is the inverse of ids_restore": lambda x, mask_token, ids_restore: np.take_along_axis(
                shuffled(x, mask_token), np.argsort(ids_restore, axis=1)[..., None], axis=1
            ),
        },
    )


def check_masked_mse(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With six removed patches of fifteen, not equally many in each image: their mean is not a mean of means."""
    mask, width = np.array([[1, 0, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]), 7

    def variant(counts, number):
        return lambda pred, target, mask: np.vdot(counts, np.square(pred - target).sum(axis=-1)) / number

    yield from check_pair(
        names, "masked_mse", losses.masked_mse_forward, gaussian(3, 5, width),
        target=gaussian(3, 5, width, seed=1), mask=mask, variants={
            "the mean is taken over all patches: it should be over the removed patches":
                variant(mask, mask.size * width),
            "the mask is not used: visible patches do not count": variant(np.ones_like(mask), mask.size * width),
            "the mask is inverted: 1 = removed, and removed patches count":
                variant(1 - mask, (1 - mask).sum() * width),
            "the squares in a patch are summed: take their mean": variant(mask, mask.sum()),
            "nothing is divided: take the mean": variant(mask, 1),
            "the mean is taken in each image first, then over the images: it should be over all removed patches at once":
                lambda pred, target, mask: variant(mask / mask.sum(axis=1, keepdims=True), 3 * width)(pred, target, mask),
        },
    )


def check_reconstruct(names: dict) -> Iterator[tuple[str, list[Row]]]:
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
            "each hidden patch gets its mean and contrast from the true image: part of the answer leaks; take them from the "
            "visible patches": lambda: getattr(leaks, name),
        }, invariants=[lambda: assert_mask_hides(
            lambda images: getattr(reconstruct(images, params, config, noise), name), images, right.mask, config.patch_size
        )])

    yield "reconstruct", [row(name) for name in ("masked", "reconstruction", "pasted")]
