"""Check of the shift of targets."""
from collections.abc import Iterator

import numpy as np

from tinymae.gradcheck import Row
from tinymae.learn.compare import numbers
from tinymae.learn.demands import function
from tinymae.learn.inputs import frozen
from tinymae.learn.judge import because, judge, recognised
from tinymae.masks import shift_right
from tinymae.messages import message as _


def check_shift_right(names: dict) -> Iterator[tuple[str, list[Row]]]:
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
