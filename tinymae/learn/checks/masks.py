"""Checks of what a decoder may see: the padding mask, the causal mask, and the targets shifted to the right."""
from functools import partial

import numpy as np

from tinymae.gradcheck.invariants import assert_pad_invariant
from tinymae.learn.compare import numbers
from tinymae.learn.demands import function
from tinymae.learn.inputs import DK, TQ, frozen, gaussian
from tinymae.learn.judge import Tables, because, judge, recognised
from tinymae.masks import causal_mask, padding_mask, shift_right
from tinymae.messages import message as _
from tinymae.ops import attention


def check_padding_mask(names: dict) -> Tables:
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


def check_masks(names: dict) -> Tables:
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


def check_shift_right(names: dict) -> Tables:
    """Sentences of three lengths, and two ids for <bos>."""
    targets, shift = np.array([[5, 6, 7, 2], [8, 2, 0, 0], [9, 5, 2, 0]]), function(names, "shift_right")
    moved, first = shift_right(targets, 0), np.arange(4) == 0
    example = numbers(names.get("TARGETS"))

    def column(token):
        return np.full((3, 1), token)

    def row(bos):
        right, ours = shift_right(targets, bos), shift(frozen(targets), bos)

        def joined(*parts):
            return lambda: np.concatenate(parts, axis=1)

        found = recognised(judge("inputs", ours, right, {
            _("the tokens move to the left: at position t the decoder would get the token after the one that it has to "
              "predict"): joined(targets[:, 1:], column(bos)),
            _("the tokens move to the left, with 0 at the end: at position t the decoder would get the token after the one "
              "that it has to predict"): joined(targets[:, 1:], column(0)),
            _("bos is at the front, and the tokens move to the left, not to the right"):
                lambda: np.where(first, bos, np.concatenate([targets[:, 1:], targets[:, -1:]], axis=1)),
            _("bos is at the front, and the tokens move to the left, not to the right, with 0 at the end"):
                lambda: np.where(first, bos, np.concatenate([targets[:, 1:], column(0)], axis=1)),
            _("bos is at the front, and the tokens move to the left, not to the right, with bos at the end, too"):
                lambda: np.where(first, bos, np.concatenate([targets[:, 1:], column(bos)], axis=1)),
            _("nothing moves: the decoder would get exactly the token that it has to predict"): lambda: targets,
            _("nothing moves, <bos> replaces the first token"): lambda: np.where(first, bos, targets),
            _("nothing moves, <bos> replaces the last token"): joined(targets[:, :-1], column(bos)),
            _("nothing moves, 0 replaces the last token"): joined(targets[:, :-1], column(0)),
            _("the last token moves to the front: <bos> should be there"): lambda: np.roll(targets, 1, axis=1),
            _("whole sentences move: the tokens are axis 1"): lambda: np.concatenate([np.full((1, 4), bos), targets[:-1]]),
            _("the tokens move by two positions: they move by one"): joined(column(bos), column(bos), targets[:, :-2]),
            _("the tokens move by two positions, with 0 in the gap: they move by one"):
                joined(column(bos), column(0), targets[:, :-2]),
            **{_("the first token is {token}, for every bos", token=token): lambda token=token: shift_right(targets, token)
               for token in range(10) if token != bos},
            _("only the first sentence begins with bos: each one does"):
                lambda: np.where(first & (np.arange(3) == 0)[:, None], bos, moved),
            _("the last token of a sentence moves into the next one: shift each row by itself"):
                lambda: np.concatenate([[bos], targets.ravel()[:-1]]).reshape(targets.shape),
            _("<eos> becomes padding: all targets but the last of a row are fed as they are"):
                lambda: np.where(right == 2, 0, right),
            _("<eos> becomes padding before the shift: all targets but the last of a row are fed as they are"):
                lambda: np.where(first, bos, np.where(right == 2, 0, right)),
            _("padding becomes bos: only the first position is"): lambda: np.where(right == 0, bos, right),
        }, otherwise=_wrong_tokens(ours, right, bos)), ours, {
            _("the last token is kept, which gives one position too many: the decoder is never fed the last target"):
                joined(column(bos), targets),
            _("bos is missing: inputs[b, 0] is bos, and inputs are as many as targets"): lambda: targets[:, :-1],
            _("the first token is dropped and bos is missing: inputs[b, 0] is bos, and inputs are as many as targets"):
                lambda: targets[:, 1:],
            _("bos comes after the tokens: it is the first"): joined(targets, column(bos)),
            _("only the first sentence is returned: all are"): lambda: right[0],
            _("all sentences are joined to one: shift each row by itself"): lambda: right.ravel(),
        })
        if example is not None and example.ndim == 2 and not found.ok:
            found = recognised(found, ours, {
                _("TARGETS of the file is shifted: shift the argument `targets`"):
                    lambda: np.where(np.arange(example.shape[1]) == 0, bos, np.roll(example, 1, axis=1)),
            })
        return found

    for bos in (1, 4):
        yield f"bos = {bos}", [row(bos)]


def _wrong_tokens(ours, right, bos):
    """Which tokens of a shifted target are wrong; '' if that says nothing."""
    ours = numbers(ours)
    if ours is None or ours.shape != right.shape:
        return ""
    wrong = ours != right
    if np.array_equal(ours[1:, 1:-1], right[:-1, 2:]):          # row 0 may hold any numbers, as those of np.empty
        return because(_("whole sentences move: the tokens are axis 1"))
    if not wrong[:, 1:].any():
        return _("the first position is wrong, all others are right: it is bos, {bos} here", bos=bos)
    tokens = np.unique(right[:, 1:][wrong[:, 1:]])
    if len(tokens) == 1 and not wrong[:, 0].any() and wrong[right == tokens[0]].all():
        return _("wrong where the token {token} should be, and nowhere else: all targets but the last of a row are fed as they "
                 "are, whatever they stand for", token=tokens[0])
    if not wrong[:, 0].any():
        return _("the first position is right, the others are not: inputs[b, t] is targets[b, t - 1]")
    return ""
