"""Checks of decoding: a step of beam search, and greedy decoding."""
import itertools

import numpy as np

from tinymae.learn.compare import close, numbers
from tinymae.learn.demands import function, hint
from tinymae.learn.inputs import frozen, gaussian
from tinymae.learn.judge import Tables, because, diagnosed, judge, judge_together
from tinymae.messages import listed
from tinymae.messages import message as _


def check_beam_step(names: dict) -> Tables:
    """With a hypothesis that is not continued, despite a probable next token; then with a beam so wide that a partial sort
    leaves it unsorted."""
    step = function(names, "beam_step")

    def descending(first, vocabulary, seed):
        """Log probabilities that fall from token first[w] on, in row w: among the best are small ids, often special ones."""
        p = np.sort(np.random.default_rng(seed).dirichlet(np.ones(vocabulary), len(first)))[:, ::-1]
        return np.log([np.roll(row, token) for row, token in zip(p, first, strict=True)])

    def kept(scores, count):
        origin, word = np.divmod(np.argsort(-scores, axis=None)[:count], scores.shape[1])
        return origin, word, scores[origin, word]

    def mistakes(totals, log_probs):
        beam, vocabulary = log_probs.shape
        scores, product = totals[:, None] + log_probs, totals[:, None] * log_probs
        right = row, column, total = kept(scores, beam)

        def chosen(by, numbers):
            origin, word, _by = kept(by, beam)
            return origin, word, numbers[origin, word]

        def without(tokens):
            return kept(np.where(np.isin(np.arange(vocabulary), tokens), -np.inf, scores), beam)

        def of_one(hypothesis):
            word = np.argsort(-scores[hypothesis])[:beam]
            return np.full(beam, hypothesis), word, scores[hypothesis, word]

        ranks = np.argsort(np.argsort(-log_probs, axis=1), axis=1)
        by_hypothesis, by_token = np.argsort(-scores.max(1)), np.argsort(-scores.max(0))[:beam]
        flat = row * vocabulary + column
        return {
            _("every hypothesis is continued once: the W best of all W * V continuations should be kept"):
                (np.arange(beam), scores.argmax(1), scores.max(1)),
            _("every hypothesis is continued once, by its best token, and these are sorted: the W best of all W * V "
              "continuations should be kept"): (by_hypothesis, scores.argmax(1)[by_hypothesis], scores.max(1)[by_hypothesis]),
            _("only the best hypothesis is continued: the W best continuations of all hypotheses should be kept"):
                of_one(totals.argmax()),
            _("only the first hypothesis is continued: the W best continuations of all hypotheses should be kept"): of_one(0),
            _("every token is used once, by its best hypothesis: two hypotheses may go on with the same token"):
                (scores.argmax(0)[by_token], by_token, scores.max(0)[by_token]),
            _("the best continuation is returned W times: the W best should be kept"): tuple(
                np.repeat(part[:1], beam) for part in right),
            _("the totals are never added: the probability of the hypothesis counts, too"): chosen(log_probs, log_probs),
            _("the totals are not added before the choice: the probability of the hypothesis counts, too"):
                chosen(log_probs, scores),
            _("the totals of the hypotheses are not added"): (row, column, log_probs[row, column]),
            _("totals and log_probs are multiplied: logarithms of probabilities are added"): chosen(product, product),
            _("totals and log_probs are multiplied, and the smallest products kept: logarithms of probabilities are added"):
                chosen(-product, product),
            _("log_probs are subtracted from the totals: they are added"): chosen(
                totals[:, None] - log_probs, totals[:, None] - log_probs),
            _("the worst are kept: take the largest"): chosen(-scores, scores),
            _("the worst are kept, with the worst last: take the largest"): tuple(
                part[::-1] for part in chosen(-scores, scores)),
            _("the best is last"): tuple(part[::-1] for part in right),
            _("the index is divided by W: a row of the scores has V tokens"): (flat // beam, flat % beam, total),
            _("the index is divided by W for the origin, and by V for the token: a row of the scores has V tokens"):
                (flat // beam, column, total),
            _("the index is divided by W, and origin and token are swapped: divide by V, the origin is the quotient"):
                (flat % beam, flat // beam, total),
            _("the remainder is taken by W: a row of the scores has V tokens"): (row, flat % beam, total),
            _("the indices are those of the flat array of W * V scores: the token is the remainder by V"): (row, flat, total),
            _("the index into a list of the best tokens of each hypothesis is returned: look up the token in that list"):
                (row, ranks[row, column], total),
            _("the new totals are probabilities: keep their logarithms"): (row, column, np.exp(total)),
            _("the new totals have the wrong sign: logarithms of probabilities are negative"): (row, column, -total),
            _("probabilities and not their logarithms are added: probabilities are multiplied, their logarithms added"):
                chosen(np.exp(totals)[:, None] + np.exp(log_probs), np.exp(totals)[:, None] + np.exp(log_probs)),
            _("the new totals are normalised, so that the probabilities of all continuations sum to 1: keep the sums"):
                (row, column, total - np.log(np.exp(scores).sum())),
            _("they are the old totals in their order: the new total is that of the hypothesis and its token"):
                (row, column, totals),
            _("they are the old totals of the hypotheses that go on: the log probability of the token is added"):
                (row, column, totals[row]),
            _("the totals are added twice"): (row, column, totals[row] + total),
            _("the old totals are added in their order: each continuation needs that of its own origin, totals[origin]"):
                (row, column, totals + log_probs[row, column]),
            _("the totals and the log probabilities are averaged: they are added"): (row, column, total / 2),
            **{_("{count} continuations are kept: it should be W, {beam} here", count=count, beam=beam): kept(scores, count)
               for count in range(1, 2 * (beam + vocabulary)) if count != beam},
            **{_("the tokens {tokens} are never chosen: here every token counts, whatever it stands for",
                 tokens=listed(tokens)): without(tokens)
               for count in (1, 2, 3) for tokens in itertools.combinations(range(4), count)
               if not all(close(wrong, part, 1e-9) for wrong, part in zip(without(tokens), right, strict=True))},
        }

    def rows(totals, log_probs, known):
        index = _("Is it an index of the flat scores? np.divmod(i, V) makes origin, word of it, in this order.")
        column = _("If these are totals and log_probs: totals[:, None] is a column, one number for each row.")
        with hint(IndexError, index), hint(ValueError, column, "broadcast"):
            ours = step(frozen(totals), frozen(log_probs))
        right = kept(totals[:, None] + log_probs, len(totals))
        found = judge_together(ours, dict(zip(("origin", "word", "totals"), right, strict=True)), known)
        causes = {because(words) for words in known}
        if any(row.diagnosis in causes for row in found):
            return found
        return _beam_otherwise(found, ours, right, totals, log_probs)

    for title, totals, log_probs in (
        (_("five hypotheses"), np.array([-1.9, -1.0, -1.3, -3.0, -9.0]), descending((2, 4, 0, 3, 1), 11, 7)),
        (_("eight hypotheses"), gaussian(8) - 3, descending((1, 2, 0, 1, 3, 3, 1, 0), 13, 1)),
    ):
        yield title, rows(totals, log_probs, mistakes(totals, log_probs))
    yield _("300 hypotheses"), rows(gaussian(300) - 3, descending([0] * 300, 7, 1), {})


def _beam_otherwise(rows, ours, right, totals, log_probs):
    """The rows with a sentence on which equation is right, if that is known, and how far the numbers are right."""
    ours = [numbers(part) for part in ours]
    if any(part is None or part.shape != good.shape for part, good in zip(ours, right, strict=True)):
        return rows
    if not (rows[0].ok and rows[1].ok):
        order, ordered = np.lexsort(ours[1::-1]), np.lexsort(right[1::-1])
        if all(close(part[order], good[ordered], 1e-9) for part, good in zip(ours, right, strict=True)):
            words = _("they are the right continuations in a different order: the best one comes first")
            return [row if row.ok else diagnosed(row, words) for row in rows]
    factor = np.vdot(ours[2], right[2]) / np.vdot(right[2], right[2])
    if rows[0].ok and rows[1].ok and not rows[2].ok and close(ours[2], factor * right[2], 1e-9) and 0 < factor < 1:
        words = _("the sums are divided by {number:.6g}, as by a length: the hypotheses of one step are equally long, and "
                  "their totals are sums of log probabilities", number=1 / factor)
        return [*rows[:2], diagnosed(rows[2], words)]
    origin, word = ours[0].astype(int), ours[1].astype(int)
    possible = all((0 <= index).all() and (index < size).all()
                   for index, size in zip((origin, word), log_probs.shape, strict=True))
    if possible and not rows[2].ok and close(ours[2], totals[origin] + log_probs[origin, word], 1e-9):
        words = _("each total is that of its origin and its token, as in (1), but these are not the W best of all W * V "
                  "continuations: look at (2)")
        return [row if row.ok else diagnosed(row, words) for row in rows]
    return rows


def check_greedy(names: dict) -> Tables:
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
