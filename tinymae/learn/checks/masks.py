"""Checks of the padding mask and the causal mask."""
from collections.abc import Iterator
from functools import partial

import numpy as np

from tinymae.gradcheck import Row
from tinymae.gradcheck.invariants import assert_pad_invariant
from tinymae.learn.demands import function
from tinymae.learn.inputs import DK, TQ, frozen, gaussian
from tinymae.learn.judge import judge
from tinymae.masks import causal_mask, padding_mask
from tinymae.messages import message as _
from tinymae.ops import attention


def check_padding_mask(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """The mask itself, and attention with it."""
    hide, vectors = function(names, "padding_mask"), gaussian(10, DK)
    ids = np.array([[5, 6, 7, 8, 9], [5, 6, 0, 0, 0], [7, 9, 8, 5, 0]])

    def attended(ids, real):
        x, mask = vectors[ids][:, None], np.asarray(hide(np.where(real, ids, 0)))               # (B, 1, T, d)
        try:
            y, _cache = attention.scaled_dot_product_attention_forward(x, x, x, mask)
        except ValueError as error:
            raise ValueError(_("attention refuses a mask of shape {shape}: its last axis, that of the keys, has to have size "
                               "{keys}", shape=mask.shape, keys=ids.shape[1])) from error
        return y[:, 0][real]

    def row(pad):
        mask, expected = hide(frozen(ids), pad), padding_mask(ids, pad)
        full = len(ids), 1, ids.shape[1], ids.shape[1]
        if np.ndim(mask) == 4 and all(size in (1, most) for size, most in zip(np.shape(mask), full, strict=True)):
            mask, expected = np.broadcast_to(mask, full), np.broadcast_to(expected, full)
        return judge("mask", mask, expected, {
            _("the padding is on the axis of the queries: keys are hidden, the last axis, mask[:, None, None, :]"):
                lambda: expected.swapaxes(2, 3),
            _("the mask is inverted: True = may attend"): lambda: ~expected,
            _("padding is id 0 for every `pad`"): lambda: np.broadcast_to(padding_mask(ids), expected.shape),
            _("ids above pad are tokens: all that differ from it are"):
                lambda: np.broadcast_to((ids > pad)[:, None, None], expected.shape),
            _("the queries that are padding are masked, too: it is enough to hide the keys"):
                lambda: expected & expected.swapaxes(2, 3),
        }, invariants=[lambda: assert_pad_invariant(attended, ids, ids != 0)] if pad == 0 else ())

    for pad in (0, 9):
        yield f"padding_mask, pad={pad}", [row(pad)]


def check_masks(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """The padding mask and the causal mask."""
    yield from check_padding_mask(names)
    mask, expected = function(names, "causal_mask")(TQ), causal_mask(TQ)
    mask = np.asarray(mask)[None, None] if np.ndim(mask) == 2 else mask
    pair = ""
    if np.shape(mask) == expected.shape and (wrong := np.argwhere(np.asarray(mask) != expected)).size:
        query, key = map(int, wrong[0, 2:])
        pair = _("query {query} may not attend to key {key}: token t attends to 0..t", query=query, key=key)
        if key > query:
            pair = _("query {query} may attend to key {key}: token t attends to 0..t", query=query, key=key)
    yield "causal_mask", [judge("mask", mask, expected, otherwise=pair, variants={
        _("the future is visible and the past is hidden: a row is a query, and token t attends to the tokens 0..t"):
            partial(expected.swapaxes, 2, 3),
        _("no token attends to itself: token t attends to 0..t, including itself"): lambda: np.tri(TQ, k=-1)[None, None],
        _("a token attends to the next one, too: token t attends to 0..t"): lambda: np.tri(TQ, k=1)[None, None],
        _("each token attends to itself only: token t attends to 0..t"): lambda: np.eye(TQ)[None, None],
        _("each token attends to all: token t attends to 0..t"): lambda: np.ones((1, 1, TQ, TQ)),
        _("positions are compared each with itself: compare a column, np.arange(T)[:, None], with a row"):
            lambda: np.ones((1, 1, TQ)),
        _("the mask is inverted: True = may attend"): lambda: ~expected,
    })]
