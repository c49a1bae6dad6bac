"""Mistakes in ops, layers and models are explained by their cause: one row for each kind; and unusual answers are right.

A row is the answer of an exercise with one edit, and words of the sentence that the check has to print.
"""
from pathlib import Path

import numpy as np
import pytest

from tinymae.learn.compare import factors, spelled
from tinymae.learn.judge import judge, judge_together, recognised
from tinymae.learn.solution import judge_file
from tinymae.learn.write_exercise import write_exercise

ANSWERS = Path(__file__).parent / "answers" / "exercises"


@pytest.fixture
def check(tmp_path):
    """The report, on one line, of an exercise with its answer and some edits of it."""
    def run(name, *edits):
        path = write_exercise(name, tmp_path)
        source = (ANSWERS / f"{name}.py").read_text(encoding="utf-8")
        for old, new in edits:
            assert old in source, f"{old!r} is not in the answer"
            source = source.replace(old, new)
        path.write_text(f"{path.read_text(encoding='utf-8')}\n\n{source}", encoding="utf-8")
        report = judge_file(path)
        path.unlink()
        return report.ok, " ".join(report.text.split())

    return run


MISTAKES = [
    ("numerical_gradient", "(up - down) / (2 * h)", "(down - up) / (2 * h)", "the two points are swapped"),
    ("numerical_gradient", "/ (2 * h)", "/ 2 * h", "divided by 2 and multiplied by h"),
    ("numerical_gradient", "return (up", "return abs(up", "its sign is lost"),
    ("numerical_gradient", "x[index] = here - h", "x[index] = -h", "by 0.002, then by"),
    ("numerical_gradient", "(up - down) / (2 * h)", "(up - down) ** 2 / (2 * h)", "f is called at the right two points"),
    ("numerical_gradient", "up = f(x)", "up = f(1.5 * x)", "f is called with other numbers of x moved, too"),
    ("numerical_gradient", "    up = f(x)", "    up = np.float32(f(x))", "it is nearly right: are x, h or f(x) cast"),
    ("numerical_gradient", "    here = x[index]\n", "    here = x[index]\n    h = h * here\n", "the step is x[index] * h"),
    ("embedding", "np.add.at(dtable, ids, dy)", "np.add.at(dtable, ids[ids > 0], dy[ids > 0])", "row 0 gets no gradient"),
    ("embedding", "np.add.at(dtable, ids, dy)", "for t in range(4):\n        dtable[ids[:, t]] += dy[:, t]",
     "wrong only in rows that ids names more than once"),
    ("embedding", "np.add.at(dtable, ids, dy)", "np.add.at(dtable, ids, dy.sum(-1, keepdims=True))",
     "each gradient is summed over its features"),
    ("embedding", "np.add.at(dtable, ids, dy)", "np.add.at(dtable, ids[0], dy[0])", "only the first sentence of the batch"),
    ("embedding", "np.add.at(dtable, ids, dy)", "np.add.at(dtable, ids[-1], dy[-1])", "only the last sentence of the batch"),
    ("positional_encoding", "    return table", "    table[0] = 0\n    return table", "row 0 stays 0, as in article A's code"),
    ("positional_encoding", ", 2) / width)", ", 2))", "the exponent does not divide by D"),
    ("positional_encoding", "np.sin(angles)", "np.sin(2 * angles)", "the odd columns, the cosines, are right"),
    ("positional_encoding", "10000", "9999", "columns 0 and 1 are right"),
    ("positional_encoding", "angles[:, : width // 2]", "angles", "With an odd D there is one cosine less than sines"),
    ("dropout", "rng.random(x.shape)", "rng.random()", "each call drops all numbers or none"),
    ("dropout", "rng.random(x.shape)", "np.random.rand(*x.shape)", "two rngs of the same seed drop different numbers"),
    ("linear_forward", "x @ w", "x @ w.T", "w is (I, O) as it is, not transposed as in PyTorch"),
    ("linear_forward", "x @ w", "np.einsum('bti,io->bto', x, w)", "x may have any number of axes before the last"),
    ("softmax_forward", "scores.max(axis=-1, keepdims=True)", "scores.max()", "the largest score of the whole array"),
    ("softmax_forward", "e.sum(axis=-1, keepdims=True)", "e.sum()", "after the largest of each row was subtracted"),
    ("softmax_forward", "e = np.exp(scores - scores.max(axis=-1, keepdims=True))",
     "e = scores - scores.min(axis=-1, keepdims=True)", "exp is missing, after the smallest of the row"),
    ("dropout", "    (keep,) = cache\n    return dy * keep", "    return dy * cache", "the cache is a tuple of one"),
    ("dropout", "x * keep, (keep,)", "x * keep, (x * keep,)", "dy is multiplied by y"),
    ("dropout", "return dy * keep", "return dy * (keep == 0)", "backward passes what forward dropped"),
    ("softmax", "axis=-1", "axis=0", "the sum of (4) runs along axis 0"),
    ("softmax", "p * (dp - (dp * p).sum(axis=-1, keepdims=True))", "p - dp", "as for softmax and cross entropy together"),
    ("softmax", "(dp - (dp * p)", "(3 * dp - (dp * p)", "it is 3 p_k dp_k - p_k sum_j dp_j p_j: it should be"),
    ("softmax", "(dp * p).sum(axis=-1", "(dp * p).max(axis=-1", "one number c for each row"),
    ("layernorm", "dbeta = dy.sum", "dbeta = (dy * gamma).sum", "dbeta is the sum of dxhat, which has the factor gamma"),
    ("layernorm", "(dy * xhat).sum", "(dy * xhat / rstd).sum", "dgamma is the sum of dy * (x - mean(x)), without rstd"),
    ("layernorm", "(dxhat * xhat).mean(axis=-1", "(dxhat * xhat).mean(axis=0", "the last mean of (5) is taken along axis 0"),
    ("layernorm", "dxhat - dxhat.mean", "dxhat - 2 * dxhat.mean",
     "it is rstd dxhat - 2 rstd mean(dxhat) - rstd xhat mean("),
    ("gelu", "cdf + x", "cdf - x", "the second term of (3) is subtracted"),
    ("gelu", "cdf + x * pdf", "cdf * x * pdf", "the two terms of (3) are multiplied"),
    ("gelu", "(cdf + x * pdf)", "cdf + x * pdf", "dy multiplies the first term of (3) alone"),
    ("gelu", "(cdf + x * pdf)", "(cdf + 3 * x * x * pdf)", "it is dy * (cdf(x) + 3 x^2 pdf(x))"),
    ("feed_forward", "a.reshape(len", "h.reshape(len", "dW2 is h^T dy, with h from before the ReLU"),
    ("feed_forward", "dw1, db1 = x", "hidden = a.reshape(len(rows), -1)\n    dw1, db1 = x", "dW1 is x^T a, with the output of"),
    ("feed_forward", "hidden = dh", "hidden = da", "p.fc1.w, p.fc1.b: it is the result if the ReLU is missing"),
    ("feed_forward", "da * (h > 0)", "da * (h > 1)", "look at (5), da where h > 0"),
    ("linear", "x.reshape(-1, w.shape[0]).T", "x.reshape(w.shape[0], -1)", "by a reshape, which does not transpose"),
    ("linear", "db = rows.sum(axis=0)", "db = dy.sum(-1)", "dy is summed over its features"),
    ("encoder_layer", "dx = dx1 + dh", "dx = dy + dh", "dy is added in (6)"),
    ("encoder_layer", "layernorm_backward(dhq + dhkv,", "layernorm_backward(dhq,",
     "x, p.ln1.gamma, p.ln1.beta: it is the result if dxkv is missing"),
    ("encoder_layer", "layernorm_backward(dhq + dhkv, cache[\"ln1\"])\n    dx = dx1 + dh",
     "layernorm_backward(dx1 + dhq + dhkv, cache[\"ln1\"])\n    dx = dh", "dx1 is added before the backward of layernorm1"),
    ("encoder_layer", "layernorm_backward(dh, cache[\"ln2\"])\n    dx1 = dy + dh",
     "layernorm_backward(dy + dh, cache[\"ln2\"])\n    dx1 = dh", "dy is added before the backward of layernorm2"),
    ("shift_right", "inputs[:, 1:] = targets[:, :-1]", "inputs[1:] = targets[:-1]", "whole sentences move"),
    ("encoder_layer", "layernorm_backward(dhq + dhkv, cache[\"ln1\"])",
     "(dhq + dhkv, *layernorm_backward(dhq + dhkv, cache[\"ln1\"])[1:])", "does not go back through layernorm1"),
    ("shift_right", "return inputs", "return np.concatenate([inputs, targets[:, -1:]], axis=1)", "the last token is kept"),
    ("shift_right", "= bos ", "= 7 ", "the first token is 7, for every bos"),
    ("shift_right", "return inputs", "return np.where(inputs == 7, 3, inputs)", "wrong where the token 7 should be"),
    ("shift_right", "[:, 1:] = targets[:, :-1]", "[:, :-1] = targets[:, 1:]\n    inputs[:, -1] = 0", "to the left, with 0"),
    ("shift_right", "    inputs = np", "    targets = TARGETS\n    inputs = np", "TARGETS of the file is shifted"),
    ("cross_entropy", "counts.sum()", "len(p)", "(5) is divided by the size of the batch"),
    ("cross_entropy", "/ counts.sum()", "/ counts.sum(1)[:, None, None]", "the number of positions that count in each row"),
    ("cross_entropy", "(p - q)", "p * (p - q)", "p - q is multiplied by p"),
    ("cross_entropy", "* counts[", "* ~counts[", "only the positions that do not count get a gradient"),
    ("adamw", "+ (1 - b1) * g", "+ g", "(1) has no factor 1 - b1"),
    ("adamw", "(1 - b2**self.t)", "(1 - b1**self.t)", "mhat and vhat are both divided by 1 - b1^t"),
    ("adamw", "(1 - b1**self.t)", "(1 - b1 * self.t)", "what is wrong is in (3), which includes mhat"),
    ("adamw", "params[name] -= lr * mhat", "params[name] = params[name] - lr * mhat", "only the first weight decay is written"),
    ("adamw", "(1 - b2) * g * g", "(1 - b2) * self.m[name] ** 2", "(2) has the square of m"),
    ("adamw", "b1 * self.m[name] +", "0 * self.m[name] +", "m is not stored"),
    ("adamw", "(1 - b2) * g * g", "(1 - b2) * abs(g) ** 3", "v is the first that is wrong, after step 1: look at (2)"),
    ("adamw", "(np.sqrt(vhat) + self.eps)", "(np.cbrt(vhat) + self.eps)", "m and v are right in all steps, and t, too"),
    ("adamw", "self.weight_decay * params[name]", "self.weight_decay * g", "the weight decay multiplies g"),
    ("schedule", "range(1, batches + 1)", "range(1, batches)", "the last batch is missing"),
    ("schedule", "range(1, batches + 1)", "range(batches)", "The step counts from 1"),
    ("schedule", "step in range(1, batches + 1)", "step in map(lambda s: max(s, 1), range(batches))",
     "the first two batches are both step 1"),
    ("schedule", "step * warmup**-1.5", "step / warmup", "the warm-up is step / warmup"),
    ("schedule", "step**-0.5", "step**-0.6", "those after it are wrong"),
    ("beam_step", "[:beam] ", "[:beam + 2] ", "7 continuations are kept: it should be W, 5 here"),
    ("beam_step", "scores[origin, word]", "scores[origin, word] / 4", "the sums are divided by 4, as by a length"),
    ("beam_step", "scores[origin, word]", "totals + log_probs[origin, word]", "the old totals are added in their order"),
    ("beam_step", "    best = ", "    scores[:, 2] = -np.inf\n    best = ", "the tokens 2 are never chosen"),
    ("beam_step", "    best = ", "    scores[1:] = -np.inf\n    best = ", "only the first hypothesis is continued"),
    ("beam_step", "np.argsort(-scores, axis=None)[:beam] ", "np.argpartition(-scores, beam, axis=None)[:beam] ",
     "the right continuations in a different order"),
    ("beam_step", "-scores, axis=None)[:beam] ", "-scores, axis=None)[1 : beam + 1] ",
     "as in (1), but these are not the W best"),
    ("beam_step", "origin, word = np.divmod", "word, origin = np.divmod", "makes origin, word of it, in this order"),
    ("beam_step", "totals[:, None]", "totals", "totals[:, None] is a column"),
    ("patchify", "return x.transpose(0, 1, 3, 2, 4, 5).reshape", "return x.transpose(0, 1, 4, 2, 3, 5).reshape",
     "as if row and column were swapped in each patch"),
    ("patchify", "return x.transpose(0, 1, 3, 2, 4, 5).reshape", "return x.transpose(0, 3, 1, 4, 2, 5).reshape",
     "its axes then go into the order (0, 3, 1, 4, 2, 5)"),
    ("patchify", "(batch, rows // patch_size, cols // patch_size, patch_size",
     "(batch, cols // patch_size, rows // patch_size, patch_size", "dpatches is split into (7, 5, 3, 2, 2, 4)"),
    ("random_masking", "(1 - mask_ratio)", "mask_ratio", "mask_ratio is the fraction that is kept"),
    ("random_masking", "np.argsort(noise, axis=1)", "np.argsort(noise, axis=0)", "sorted along axis 0, over the images"),
    ("random_masking", "ids_restore >= kept", "noise > mask_ratio", "the noise is compared with mask_ratio"),
    ("random_masking", "np.argsort(ids_shuffle, axis=1) ", "ids_shuffle[:, ::-1] ", "each row is an order of the patches"),
    ("unshuffle", "dshuffled[:, kept:].sum", "dy.sum", "the sum of all of dy"),
    ("unshuffle", "dshuffled[:, kept:].sum(", "dshuffled[:, kept:].mean(", "a mean over images and positions"),
    ("unshuffle", "dshuffled[:, kept:].sum", "(np.arange(5) * dshuffled.swapaxes(1, 2)).swapaxes(1, 2).sum",
     "with the factors 0, 1, 2, 3, 4"),
    ("masked_mse", "(error * error)", "abs(error)", "it has the absolute error"),
    ("masked_mse", "mask.sum()) ", "mask.sum(1)[:, None, None]) ", "the number of removed patches in each image"),
    ("masked_mse", "* mask[..., None] *", "* (1 - mask)[..., None] *", "the mask is inverted in backward"),
    ("masked_mse", "(error.shape[-1] * mask.sum())", "mask.sum()", "(2) is not divided by P"),
]


@pytest.mark.parametrize(("name", "old", "new", "words"), MISTAKES)
def test_the_cause_is_named(name, old, new, words, check):
    ok, text = check(name, (old, new))
    assert not ok and words in text, text


RIGHT = [
    ("softmax", "p * (dp - (dp * p).sum(axis=-1, keepdims=True))", "np.einsum('...j,...jk->...k', dp, "
     "p[..., None] * (np.eye(p.shape[-1]) - p[..., None, :]))"),
    ("linear", "x.reshape(-1, w.shape[0]).T @ rows", "sum(np.outer(a, g) for a, g in zip(x.reshape(-1, len(w)), rows))"),
    ("embedding", "np.add.at(dtable, ids, dy)", "dtable += np.einsum('btv,btd->vd', np.eye(len(dtable))[ids], dy)"),
    ("adamw", "params[name] -= lr * self.weight_decay * params[name]", "params[name] *= 1 - lr * self.weight_decay"),
    ("beam_step", "np.argsort(-scores, axis=None)[:beam]", "np.lexsort((np.arange(scores.size), -scores.ravel()))[:beam]"),
    ("random_masking", "np.argsort(ids_shuffle, axis=1)", "(noise[:, None] < noise[..., None]).sum(-1)"),
    ("unshuffle", "dshuffled[:, kept:].sum(axis=(0, 1), keepdims=True)", "dy[ids_restore >= kept].sum(0)[None, None]"),
    ("shift_right", "return inputs", "return np.pad(targets, ((0, 0), (1, 0)), constant_values=bos)[:, :-1]"),
]


@pytest.mark.parametrize(("name", "old", "new"), RIGHT)
def test_an_unusual_answer_is_right(name, old, new, check):
    ok, text = check(name, (old, new))
    assert ok, text


def test_one_output_may_agree_by_chance():
    """A mistake of three outputs is the cause if it explains all of them, or two wrong ones; not if it explains one."""
    expected = {name: np.array(numbers) for name, numbers in {"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [5.0, 6.0]}.items()}
    mistake = {"they are reversed": tuple(array[::-1] for array in expected.values())}
    good, worse = expected.values(), [array[::-1] for array in expected.values()]
    for ours, named in (
        (worse, 3), ([*worse[:2], np.zeros(2)], 2), ([worse[0], np.zeros(2), np.zeros(2)], 0), ([worse[0], *list(good)[1:]], 0),
    ):
        rows = judge_together(tuple(ours), expected, mistake)
        assert sum("they are reversed" in row.diagnosis for row in rows) == named, rows


def test_a_formula_is_spelled_if_it_fits():
    x, y = np.array([1.0, 2.0, 3.0, 5.0]), np.array([2.0, -1.0, 4.0, 1.0])
    terms = {"x": x, "y": y, "x y": x * y}
    assert spelled(2 * x - y, terms, ()) == "2 x - y" and spelled(-x, terms, ()) == "- x"
    assert spelled(2 * x - y, terms, (4 * x - 2 * y,)) == ""    # a multiple of a known gradient
    assert spelled(2 * x - y, terms, (), most=1) == "" and spelled(x**4, terms, ()) == ""
    assert factors(x**4, x, y) is None


def test_a_mistake_is_recognised_in_any_shape():
    right = np.arange(3.0)
    row = judge("y", right[:2], right)
    mistakes = {"the last one is missing": lambda: right[:-1], "another": lambda: right + 1}
    assert recognised(row, right[:2], mistakes).diagnosis == "it is the result if the last one is missing"
    assert recognised(row, None, mistakes) is row and recognised(row, [[1], [2, 3]], mistakes) is row
    assert recognised(judge("y", right, right), right, mistakes).ok
