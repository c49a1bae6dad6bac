"""Checks of the bugs of the zoo that no exercise's check names; check_layers explains what a check is."""
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from tinymae import tree
from tinymae.gradcheck import Row
from tinymae.gradcheck.invariants import assert_batch_independent
from tinymae.learn.judge import TQ, B, D, F, H, Problem, check_forward, check_pair, function, gaussian, judge, normal_cdf, parts
from tinymae.messages import message as _
from tinymae.ops import activation, patches
from tinymae.ops.positional import positional_forward


def check_positions(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With a table that has more rows than the batch has sequences or positions."""
    x, table = gaussian(B, TQ, D), gaussian(11, D)

    def alone(y):
        assert_batch_independent(lambda x: y(x, table), x)

    yield from check_pair(names, "positional", positional_forward, x, table, invariants=[alone], variants={
        _("the positions count the sequences of the batch, axis 0: they count the tokens of a sequence, axis 1"):
            lambda x, table: x + table[:B, None],
        _("every token gets the position of the last one"): lambda x, table: x + table[TQ - 1],
        _("positions count from 1: the first is 0"): lambda x, table: x + table[1 : TQ + 1],
    })


def check_gelu_slope(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With the slopes of related functions."""
    yield from check_pair(names, "gelu", activation.gelu_forward, gaussian(B, TQ, F), slips={
        _("the derivative is that of ReLU, 1 where x > 0 and 0 elsewhere: the forward is GELU"): lambda dy, x: dy * (x > 0),
        _("the derivative is cdf(x) alone: x is also inside cdf"): lambda dy, x: dy * normal_cdf(x),
        _("the derivative is that of GELU's tanh form: the forward has the exact form"):
            lambda dy, x: activation.gelu_backward(dy, activation.gelu_forward(x, "tanh")[1]),
    })


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


def check_layers(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Three layers: arrays of their own, and numbers of their own."""
    layers = function(names, "encoder_layers")(3, D, H, F, np.random.default_rng(0))
    if not isinstance(layers, list):
        raise Problem(_("expected encoder_layers to return a list of trees, got a {kind}", kind=type(layers).__name__))
    pairs = [(a, b) for one, other in itertools.combinations(layers, 2)
             for (_path, a), (_other, b) in zip(tree.leaves(one), tree.leaves(other), strict=True)]
    shared = sum(np.shares_memory(a, b) for a, b in pairs)
    alike = sum(a.ndim > 1 and np.array_equal(a, b) and not np.shares_memory(a, b) for a, b in pairs)
    yield _("three layers"), [
        judge("layers", len(layers), np.array(3)),
        judge(_("arrays that two layers share"), shared, np.array(0), otherwise=_(
            "the layers have the same arrays, so a step of one moves the others: [layer] * n repeats one object n times"
        )),
        judge(_("equal matrices in two layers"), alike, np.array(0), otherwise=_(
            "the layers start from the same numbers: draw those of each layer anew"
        )),
    ]


def check_greedy(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """With sentences that end in different steps, and a model that goes on after <eos>; then with one that is cut."""
    bos, eos, pad = 1, 2, 0
    plan = np.array([[5, 2, 7, 2, 8, 9, 2], [6, 8, 9, 5, 2, 2, 7], [9, 7, 2, 6, 5, 8, 5]])
    ended = (np.cumsum(plan == eos, axis=1) - (plan == eos)) > 0
    right = np.where(ended, pad, plan)

    def rows(longest, steps):
        def filled(ids):
            return np.pad(ids, ((0, 0), (0, longest)), constant_values=pad)[:, :longest]

        ours = function(names, "greedy")(lambda ids: np.eye(10)[plan[:, ids.shape[1] - 1]], 3, bos, eos, pad, longest)
        count = np.shape(ours)[-1] if np.ndim(ours) == 2 else 0
        return [
            judge("ids", filled(np.asarray(ours)) if 0 < count < longest else ours, right[:, :longest], {
                _("a sentence that has ended goes on until all generate <eos> in one step: remember which ones have ended"):
                    lambda: plan[:, :longest],
                _("tokens after <eos> are kept: they become padding"): lambda: filled(plan[:, :steps]),
                _("decoding ends when the first sentence has ended"): lambda: filled(plan[:, :2]),
                _("<eos> is left out: it is the last token of a sentence"):
                    lambda: np.where(right == eos, pad, right)[:, :longest],
                _("<bos> is returned, too: it is not generated"):
                    lambda: filled(np.concatenate([np.full((3, 1), bos), right[:, :steps]], axis=1)),
            }),
            judge("steps", count, np.array(steps), otherwise=_(
                "expected {steps} steps, got {count}: decoding ends when all sentences have ended", steps=steps, count=count
            )),
        ]

    yield _("sentences of 2, 5 and 3 tokens"), rows(7, 5)
    yield _("at most 4 tokens"), rows(4, 4)


def check_rnn(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """The states of all steps."""
    def states(x, wx, wh, b, start=lambda h: h, end=lambda h: h):
        h, found = np.zeros((len(x), len(b))), []
        for t in range(x.shape[1]):
            h = np.tanh(x[:, t] @ wx + start(h) @ wh + b)
            found.append(h)
        return end(np.stack(found, axis=1))

    def changed(**wrong: Callable) -> Callable:
        return lambda *args: states(*args, **wrong)

    arguments = gaussian(B, TQ, D), gaussian(D, F) / 4, gaussian(F, F), gaussian(F)
    yield from check_forward(names, "rnn", states, *arguments, variants={
        _("every step starts from h = 0, so nothing is remembered: it starts from the state of the step before"):
            changed(start=np.zeros_like),
        _("the states come in the reverse order"): changed(end=lambda states: states[:, ::-1]),
        _("the last state stands in the place of all"): changed(end=lambda states: 0 * states + states[:, -1:]),
    })


def check_whole_gradient(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Linear regression on parts of 2, 5 and 9 tokens, against all 16 at once."""
    params, x, y = {"w": gaussian(D), "b": np.array([0.5])}, gaussian(16, D), gaussian(16)
    cut = [(x[:2], y[:2]), (x[2:7], y[2:7]), (x[7:], y[7:])]

    def gradient(params, part):
        x, y = part
        error = x @ params["w"] + params["b"] - y
        return (error @ error) / len(y), {"w": 2 * error @ x / len(y), "b": 2 * error.mean(keepdims=True)}, len(y)

    loss, grads = parts(function(names, "whole_gradient")(params, cut, gradient), "loss", "grads")
    grads = grads if isinstance(grads, dict) else {}
    (right, right_grads, count), single = gradient(params, (x, y)), [gradient(params, part) for part in cut]

    def row(name, ours, right, numbers):
        return judge(name, ours, right, {
            _("the mean is taken over the means of the parts: a part counts by its number of tokens"):
                lambda: sum(numbers) / len(cut),
            _("the parts are added, and the sum is not divided"): lambda: sum(numbers),
            _("the last part replaces those before: add it to them"): lambda: numbers[-1],
            _("the sum over all tokens is not divided by their number"): lambda: count * right,
        })

    yield _("16 tokens in three parts"), [row("loss", loss, right, [part[0] for part in single])] + [
        row(f"d{name}", grads.get(name), right_grads[name], [part[1][name] for part in single]) for name in params
    ]
