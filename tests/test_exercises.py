"""Exercises and the zoo: what is written, that every answer passes, and that mistakes fail with a message that helps."""
import ast
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tinymae.__main__ import main
from tinymae.learn import checks, compare, pairs, process
from tinymae.learn import judge as judge_module
from tinymae.learn.exercises import CAUSES, EXERCISES, POINTS, ZOO, hints, list_exercises, story
from tinymae.learn.lessons import lessons_folder
from tinymae.learn.process import STAGES, check_file
from tinymae.learn.solution import judge_file
from tinymae.learn.write_exercise import write_exercise
from tinymae.messages import columns, spoken

FOLDER = lessons_folder() / "exercises"


def answer(name):
    """The right answer, which is appended to its exercise."""
    return (Path(__file__).parent / "answers" / "exercises" / f"{name}.py").read_text(encoding="utf-8")


@pytest.fixture
def check(tmp_path):
    """The Report of an exercise as it is written, edited, with something appended; its sentences on one line each."""
    def run(name, edit=lambda source: source, append="", cause="term"):
        path = write_exercise(name, tmp_path)
        path.write_text(path.read_text(encoding="utf-8").replace("CAUSE = None", f"CAUSE = {cause!r}"), encoding="utf-8")
        path.write_text(f"{edit(path.read_text(encoding='utf-8'))}\n\n{append}", encoding="utf-8")
        stages = []
        report = judge_file(path, lambda: stages.append(path))
        assert len(stages) <= STAGES
        path.unlink()
        return replace(report, text=" ".join(report.text.split()))

    return run


def replaced(source, old, new):
    assert source.count(old) >= 1, f"{old!r} is not in the answer"
    return source.replace(old, new)


# ---- what there is -----------------------------------------------------------------------------------------------------

def test_list():
    found = list_exercises()
    assert [name for name, *_ in found] == [*EXERCISES, *ZOO]
    assert len(EXERCISES) >= 14 and len(ZOO) >= 16
    for kind, table in (("exercise", EXERCISES), ("zoo", ZOO)):
        numbers = [it.lesson for _, each, it, _ in found if each == kind]
        assert all(it.level in POINTS and (it.cause in CAUSES) == (kind == "zoo") for _, each, it, _ in found if each == kind)
        assert len(numbers) == len(table) and numbers == sorted(numbers) and numbers[0] >= 1 and numbers[-1] <= 35
    assert all(10 < len(summary) < 80 and summary.endswith((".", "?")) for *_, summary in found)


def test_the_folders_hold_what_is_listed():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(EXERCISES)
    assert {path.stem for path in (FOLDER / "zoo").glob("*.py")} == set(ZOO)


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_names_its_lesson_and_itself(name):
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert f"Lesson {EXERCISES[name].lesson}" in ast.get_docstring(ast.parse(source))
    assert f'EXERCISE = "{name}"' in source and "raise NotImplementedError" in source


@pytest.mark.parametrize("name", ZOO)
def test_a_zoo_file_keeps_its_story_for_later(name, tmp_path):
    source = write_exercise(name, tmp_path).read_text(encoding="utf-8")
    assert f'EXERCISE = "{name}"' in source and "\nCAUSE = None  " in source
    assert "guess what" in source and "nobody noticed: stop here" not in source
    assert len(story(name)) > 100 and story(name)[:60] not in source


# ---- blanks, answers, mistakes -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", EXERCISES)
def test_a_blank_is_not_written_yet(name, check):
    report = check(name)
    assert not report.ok and "is not written yet (line" in report.text
    assert not any(line.strip() in report.text for line in answer(name).splitlines() if len(line) > 20)


MISTAKES = [
    ("numerical_gradient", "/ (2 * h)", "/ h", "it is 2h from x - h to x + h"),
    ("numerical_gradient", "    x[index] = here\n", "", "put each number back"),
    ("numerical_gradient", "x[index] = here - h", "x[index] = here", "one of the two points is x itself"),
    ("embedding", "np.add.at(dtable, ids, dy)", "dtable[ids] += dy", "rows that ids names more than once"),
    ("embedding", "np.add.at(dtable, ids, dy)", "np.add.at(dtable, ids, 1.0)", "backward ignores dy"),
    ("embedding", "np.add.at(dtable, ids, dy)",
     "np.add.at(dtable, ids, dy / (ids[..., None, None] == ids).sum((-1, -2))[..., None])",
     "each row is divided by the number of times that ids names it"),
    ("positional_encoding", "(np.arange(0, width, 2) / width)", "(np.arange(0, width, 2) / 2 / width)", "exponent is i / D"),
    ("positional_encoding", "np.arange(length)[:, None]", "np.arange(1, length + 1)[:, None]", "count from 1"),
    ("positional_encoding", "= np.cos(", "= np.sin(", "all columns are sines"),
    ("dropout", " / (1 - dropout)\n", "\n", "not divided by 1 - dropout"),
    ("dropout", ">= dropout)", "< dropout)", "the fraction to drop, not to keep"),
    ("dropout", "return dy * keep", "return dy * (keep > 0)", "1.42857 is 1 / (1 - dropout)"),
    ("attention", "/ math.sqrt(q.shape[-1])", "", "the factor 1 / sqrt(d_k) of (1) is missing: dq, dk"),
    ("attention", "dropped.swapaxes(-1, -2) @ dy", "weights.swapaxes(-1, -2) @ dy", "the weights before dropout are used"),
    ("attention", "dweights = ddropped * keep", "dweights = ddropped", "ddropped is not multiplied by keep"),
    ("attention", "dk = dscores.swapaxes(-1, -2) @ q", "dk = dscores @ q", "dk = dscores @ q ValueError: matmul"),
    ("attention", "return dq, dk, dv", "return dk, dq, dv", "it is the gradient of k; return one for each, in the order"),
    ("attention", "return dq, dk, dv", "return dq, dk", "returned 2 gradient(s) in a tuple, expected a tuple of 3: q, k, v"),
    ("split_heads", "x.reshape(batch, length, heads, width // heads).swapaxes(1, 2)",
     "x.reshape(batch, heads, length, width // heads)", "x is reshaped at once, which splits positions"),
    ("split_heads", "x.swapaxes(1, 2).reshape(batch", "x.reshape(batch", "swap the axes back first"),
    ("multi_head_attention", "dxq + dxk + dxv", "dxk + dxv", "x: it is the result if dx is dxk + dxv"),
    ("multi_head_attention", "dxq + dxk + dxv", "dxq", "x: it is the result if dx is dxq: x went three ways"),
    ("multi_head_attention", '"k": {"w": dwk}', '"k": {"w": dwv}', "this is the gradient of p.v.w"),
    ("multi_head_attention", '"k": {"w": dwk}', '"key": {"w": dwk}', "a misspelt key?"),
    ("multi_head_attention", "dq, dk, dv = ", "dq, dv, dk = ", "unpack the gradients of another backward in the order"),
    ("cross_attention", "dmemory_k + dmemory_v", "dmemory_k", "memory: it is the result if dmemory is dmemory_k:"),
    ("cross_attention", "return dx, dmemory,", "return dmemory, dx,", "swapped with the gradient of memory"),
    ("masks", "(ids != pad)[", "(ids == pad)[", "the mask is inverted"),
    ("masks", "[:, None, None, :]", "[:, None, :, None]", "keys are hidden, the last axis"),
    ("masks", "ids != pad", "ids != 0", "padding is id 0 for every `pad`"),
    ("masks", "(ids != pad)[:, None, None, :]", "ids != pad", "it has shape (3, 5), expected (3, 1, 1, 5)"),
    ("masks", "np.tri(length, dtype=bool)", "np.tri(length)", "it is float64, expected bool"),
    ("masks", "np.tri(length, dtype=bool)", "np.tri(length, k=-1, dtype=bool)", "no token attends to itself"),
    ("masks", "np.tri(length, dtype=bool)", "np.tri(length, dtype=bool).T", "the future is visible and the past is hidden"),
    ("layernorm", "    dx = dx - xhat * (dxhat * xhat).mean(axis=-1, keepdims=True)\n", "", "the last term of (5) is missing"),
    ("layernorm", "return rstd * dx,", "return dx,", "the factor rstd of (5) is missing"),
    ("layernorm", "dxhat = dy * gamma", "dxhat = dy", "right only while gamma = 1"),
    ("layernorm", "dxhat = dy * gamma", "dy *= gamma\n    dxhat = dy", "backward writes into dy"),
    ("layernorm", "dy.sum(axis=positions)", "dy.mean(axis=positions)", "beta: 20 times too small everywhere"),
    ("layernorm", "dy.sum(axis=positions)", "dy.sum(axis=0)", "it is right when summed over axes (0,)"),
    ("layernorm", "dxhat.mean(axis=-1, keepdims=True)", "dxhat.mean(axis=1, keepdims=True)",
     "the first mean of (5) is taken along axis -2"),
    ("layernorm", "return rstd * dx, dgamma, dbeta", "return rstd * dx, dbeta, dgamma", "swapped with the gradient of beta"),
    ("layernorm", "    return rstd * dx, dgamma, dbeta", "", "expected a tuple of 3: x, gamma, beta; is its return missing?"),
    ("layernorm", "(dxhat * xhat).mean(axis=-1, keepdims=True)", "(dxhat * xhat).sum(-1, keepdims=True) / (len(gamma) - 1)",
     "the last mean of (5) divides by D - 1"),
    *(("layernorm", "    dxhat = dy * gamma", f"    x = xhat / rstd\n    {code}\n    dxhat = dy * gamma", words)
      for code, words in (
          ("rstd = 1 / np.sqrt(x.var(-1, ddof=1, keepdims=True) + 1e-5)", "it is the result if rstd in (5) has the unbiased"),
          ("rstd = 1 / np.sqrt(x.var(-1, ddof=1, keepdims=True) + 1e-5); xhat = x * rstd",
           "x: it is the result if rstd and xhat in (5) have the unbiased variance, 1 / (D - 1): it should be 1 / D"),
          ("rstd = 1 / (x.std(-1, keepdims=True) + 1e-5)", "if rstd in (5) has eps added to the square root"),
          ("rstd = 1 / (x.std(-1, keepdims=True) + 1e-5); xhat = x * rstd", "if rstd and xhat in (5) have eps added to the"),
          ("rstd = 1 / (x.std(-1, ddof=1, keepdims=True) + 1e-5); xhat = x * rstd",
           "if rstd and xhat in (5) have the unbiased variance, 1 / (D - 1), and eps added to its square root"),
          ("rstd = 1 / x.std(-1, keepdims=True); xhat = x * rstd", "if rstd and xhat in (5) have no eps"),
      )),
    ("layernorm", "    return rstd * dx,", """    x = xhat / rstd
    std = x.std(-1, keepdims=True)
    rstd = 1 / (std + 1e-5)
    dx = dxhat - dxhat.mean(-1, keepdims=True) - x * rstd * (dxhat * x / std).mean(-1, keepdims=True)
    return rstd * dx,""", "if (5) is the derivative for eps added to the square root"),
    ("gelu", "cdf + x * pdf", "cdf", "x is also inside cdf"),
    ("gelu", "    return dy * (cdf + x * pdf)", """    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    dt = (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return dy * (1 + t + x * dt) / 2""", "forward is GELU in its exact form, this is the derivative of its tanh form"),
    ("gelu", "    return dy * (cdf + x * pdf)", """    s = 1 / (1 + np.exp(-1.702 * x))
    return dy * (s + 1.702 * x * s * (1 - s))""",
     "forward is GELU in its exact form, this is the derivative of its logistic form"),
    ("gelu", "dy * (cdf + x * pdf)", "cdf + x * pdf", "backward ignores dy"),
    ("feed_forward", " * (h > 0)", "", "the ReLU is missing in backward"),
    ("feed_forward", " * (h > 0)", " * (da > 0)", "the sign of da decides what passes"),
    ("feed_forward", "rows.sum(axis=0)", "rows.mean(axis=0)", "p.fc2.b: 20 times too small everywhere"),
    ("feed_forward", "dh @ w1.T", "dy + dh @ w1.T", "dy is added once too often"),
    ("encoder_layer", "dx1 = dy + dh", "dx1 = dh", "the residual path of (5) is missing"),
    ("encoder_layer", "dx = dx1 + dh", "dx = dh", "the residual path of (6) is missing"),
    ("encoder_layer", "dhq + dhkv", "dhkv", "x, p.ln1.gamma, p.ln1.beta: it is the result if dxq is missing"),
    ("shift_right", "[:, 1:] = targets[:, :-1]", "[:, :-1] = targets[:, 1:]", "12 numbers are wrong: "),
    ("shift_right", "targets[:, :-1]", "targets[:, 1:]", "nothing moves"),
    ("linear", "@ rows", "@ rows / len(x)", "4 is the batch size (axis 0 of x); divide by it in one place only"),
    ("linear", "rows.sum(axis=0)", "rows.sum()", "b: the gradient has shape (), expected (10,)"),
    ("linear", "rows.sum(axis=0)", "dy", "b: the gradient has shape (4, 5, 10), expected (10,): it is right when summed over"),
    ("linear", "return dx, dw, db", "return dx, db, dw", "(10,), expected (14, 10): it is the gradient of b; return one"),
    ("softmax", "(dp - (dp * p).sum(axis=-1, keepdims=True))", "dp * (1 - p)", "the diagonal of the softmax Jacobian"),
    ("softmax", "(dp - (dp * p).sum(axis=-1, keepdims=True))", "dp",
     "it is p_k dp_k: it should be p_k dp_k - p_k sum_j dp_j p_j"),
    ("cross_entropy", " * counts[..., None]", "", "wrong only where targets is 0"),
    ("cross_entropy", "counts.sum()", "counts.size", "(5) is divided by the number of all positions"),
    ("cross_entropy", " / counts.sum()", "", "12 is the number of targets that are not 0 (mean or sum?)"),
    ("cross_entropy", "(p - q)", "(q - p)", "the sign is wrong everywhere"),
    ("cross_entropy", "(p - q)", "(p - (q == q.max(-1, keepdims=True)))", "the smoothing is missing in (5)"),
    ("cross_entropy", "(p - q)", "(p - np.where(q == q.max(-1, keepdims=True), 0.9, 0))", "e / V is missing in the q of (5)"),
    ("cross_entropy", "(p - q)", "(p - q - 0.1 * (q == q.max(-1, keepdims=True)))", "the factor 1 - e is missing"),
    ("cross_entropy", "(p - q)", "(p - np.where(q == q.max(-1, keepdims=True), 1, 0.1))", "e is not divided by V in the q"),
    ("adamw", "self.t += 1", "self.t = 1", "t stays at 1"),
    ("adamw", "    self.t += 1\n", "", "is t still 0 in the first step?"),
    ("adamw", "self.m[name] / (1 - b1**self.t)", "self.m[name]", "mhat is not used"),
    ("adamw", "self.v[name] / (1 - b2**self.t)", "self.v[name]", "vhat is not used"),
    ("adamw", "lr * self.weight_decay * params", "self.weight_decay * params", "the weight decay is not multiplied by lr"),
    ("adamw", "+ (1 - b1) * g", "+ g", "(1) has no factor 1 - b1"),
    ("adamw", "params[name] -= lr * mhat", "params[name] = params[name] - lr * mhat", "only the first weight decay is written"),
    ("adamw", "np.sqrt(vhat)", "vhat", "the square root of vhat is missing"),
    ("adamw", "params[name] -= lr * mhat", "params[name] += lr * mhat", "uphill: subtract"),
    ("adamw", "params[name] -= lr * self.weight_decay * params[name]", "pass", "there is no weight decay"),
    ("adamw", "(1 - b2**self.t)", "(1 - b1**self.t)", "mhat and vhat are both divided by 1 - b1^t"),
    ("schedule", "range(1, batches + 1)", "range(2, batches + 2)", "the first batch is step 2"),
    ("schedule", "range(1, batches + 1)", "range(batches)", "ZeroDivisionError"),
    ("schedule", "min(", "max(", "max is used instead of min"),
    ("beam_step", "totals[:, None] + log_probs", "log_probs", "the totals are never added"),
    ("beam_step", "scores[origin, word]", "log_probs[origin, word]", "the totals of the hypotheses are not added"),
    ("beam_step", "return origin, word,", "return word, origin,", "origin: it is the result if word is returned in its"),
    ("beam_step", "return origin, word, scores[origin, word]", "return [origin, word, scores[origin, word]]",
     "got a list: `return a, b` makes a tuple"),
    ("beam_step", "return origin, word,", "return origin, best,", "the token is the remainder by V"),
    ("beam_step", "np.argsort(-scores", "np.argsort(scores", "the worst are kept"),
    ("beam_step", "totals[:, None] + log_probs", "totals[:, None] * log_probs", "totals and log_probs are multiplied"),
    # what strangers handed in and the check could not name
    ("softmax", "p * (dp - (dp * p)", "(dp - (dp * p)", "the factor p_k before the bracket of (4) is missing"),
    ("softmax", "p * (dp - (dp * p).sum", "p * (dp - dp.sum", "the sum of (4) lacks the factor p_j"),
    ("layernorm", "return rstd * dx,", "return dx / rstd,", "rstd divides: in (5) it multiplies"),
    ("layernorm", "dy.sum(axis=positions)", "dy.sum()", "one axis too many"),
    ("unshuffle", ".sum(axis=(0, 1), keepdims=True)", ".mean(axis=(0, 1), keepdims=True)",
     "a mean over images and positions: the one token is used at all of them"),
    ("multi_head_attention", "dxq + dxk + dxv", "(dxq + dxk + dxv) / 3", "the three gradients of x are averaged"),
    ("multi_head_attention", "merge_heads(", "(lambda z: z.reshape(len(z), z.shape[2], -1))(",
     "dq, dk and dv are put together by a reshape alone"),
    ("encoder_layer", 'cache["ln2"]', 'cache["ln1"]', "the cache ln1 is used for both layer norms"),
    ("random_masking", "np.argsort(noise", "np.argsort(-noise", "the patches with the largest noise are kept"),
    ("patchify", "    x = x.transpose(0, 1, 3, 2, 4, 5) ", "    #", "the image is reshaped at once"),
    ("patchify", "x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows", "x.reshape(batch, rows", "dpatches is reshaped at once"),
    ("random_masking", "np.argsort(ids_shuffle, axis=1)", "ids_shuffle", "ids_shuffle is returned, the patch at each position"),
    ("random_masking", ">= kept", "< kept", "0 and 1 are swapped"),
    ("random_masking", "int(noise", "round(noise", "K is rounded up"),
    ("random_masking", "ids_keep, ids_restore, mask\n", "ids_keep, mask, ids_restore\n", "mask is returned in its place"),
    ("random_masking", ">= kept", "> kept", "one patch too many is kept"),
    ("unshuffle", "np.argsort(ids_restore, axis=1)", "ids_restore", "backward needs the inverse order"),
    ("unshuffle", ".sum(axis=(0, 1), keepdims=True)", ".sum(axis=(0, 1))", "the numbers are right, reshape it"),
    ("masked_mse", ".sum() / mask.sum() ", ".mean() ", "the mean is taken over all patches"),
    ("masked_mse", " * 2 * error", " * error", "the factor 2 of (2) is missing"),
    ("masked_mse", "dloss * mask[..., None]", "dloss", "wrong only where mask is 0"),
]


@pytest.mark.parametrize(("name", "old", "new", "words"), MISTAKES)
def test_a_mistake_fails_with_its_cause(name, old, new, words, check):
    report = check(name, append=replaced(answer(name), old, new))
    assert not report.ok and words in report.text, report.text
    assert "All of it is right" not in report.text


# Wrong, and right in one place or another: each would pass a check that is a little blinder.
BLIND_SPOTS = [
    # the other numbers do not stay where they are: the gradient of a sum of functions of one number would be right
    ("numerical_gradient", "all other numbers of x become 0", """
        def difference(f, x, index, h):
            up, down = np.zeros_like(x), np.zeros_like(x)
            up[index], down[index] = x[index] + h, x[index] - h
            return (f(up) - f(down)) / (2 * h)
    """),
    ("numerical_gradient", "an h different from the argument is used", """
        def difference(f, x, index, h):
            step = np.zeros_like(x)
            step[index] = 1e-5
            return (f(x + step) - f(x - step)) / 2e-5
    """),
    # the padding's row gets nothing: not the mistake of dtable[ids] += dy
    ("embedding", "row 0 gets no gradient", """
        def embedding_backward(dy, cache):
            ids, shape = cache
            dtable = np.zeros(shape)
            np.add.at(dtable, ids, dy)
            dtable[0] = 0
            return dtable
    """),
    # the same draws in every call, though backward keeps to them
    ("dropout", "two calls with one rng drop the same numbers", """
        def dropout_forward(x, dropout, rng=None):
            if rng is None:
                return x, None
            keep = (np.random.default_rng(0).random(x.shape) >= dropout) / (1 - dropout)
            return x * keep, keep


        def dropout_backward(dy, cache):
            return dy if cache is None else dy * cache
    """),
    ("dropout", "whole rows or columns are dropped", """
        def dropout_forward(x, dropout, rng=None):
            if rng is None:
                return x, None
            keep = (rng.random(x.shape[-1]) >= dropout) / (1 - dropout)
            return x * keep, keep


        def dropout_backward(dy, cache):
            return dy if cache is None else dy * cache
    """),
    # nothing is dropped, in either pass
    ("attention", "fraction of zeros: a fraction of 0.00 is dropped, expected 0.3", """
        def scaled_dot_product_attention_forward(q, k, v, mask=None, dropout=0.0, rng=None):
            weights, _ = softmax_forward(q @ k.mT / math.sqrt(q.shape[-1]), mask)
            return weights @ v, (q, k, v, weights)


        def scaled_dot_product_attention_backward(dy, cache):
            q, k, v, weights = cache
            dscores = softmax_backward(dy @ v.mT, (weights,)) / math.sqrt(q.shape[-1])
            return dscores @ k, dscores.mT @ q, weights.mT @ dy
    """),
    # (B, T, D) alone
    ("layernorm", "x of shape (T, D) worst", """
        def layernorm_backward(dy, cache):
            xhat, rstd, gamma = cache
            dxhat = dy * gamma
            dx = dxhat - dxhat.mean(-1, keepdims=True) - xhat * (dxhat * xhat).mean(-1, keepdims=True)
            return rstd * dx, (dy * xhat).sum((0, 1)), dy.sum((0, 1))
    """),
    # beta moves last in a check, and the cache does not depend on it
    ("layernorm", "backward: the same arguments gave another gradient later", """
        right, left = layernorm_forward, {}


        def layernorm_forward(x, gamma, beta, eps=1e-5):
            y, left["cache"] = right(x, gamma, beta, eps)
            return y, None


        def layernorm_backward(dy, cache):
            xhat, rstd, gamma = left["cache"]
            positions = tuple(range(dy.ndim - 1))
            dxhat = dy * gamma
            dx = dxhat - dxhat.mean(-1, keepdims=True) - xhat * (dxhat * xhat).mean(-1, keepdims=True)
            return rstd * dx, (dy * xhat).sum(positions), dy.sum(positions)
    """),
    ("layernorm", "gamma: right only while gamma = 1: the gradient of a factor does not contain that factor", """
        def layernorm_backward(dy, cache):
            xhat, rstd, gamma = cache
            positions = tuple(range(dy.ndim - 1))
            dxhat = dy * gamma
            dx = dxhat - dxhat.mean(-1, keepdims=True) - xhat * (dxhat * xhat).mean(-1, keepdims=True)
            return rstd * dx, (dxhat * xhat).sum(positions), dy.sum(positions)
    """),
    # right for the decoder, and the targets of the loss are gone
    ("shift_right", "A function must not write into its arguments", """
        def shift_right(targets, bos):
            targets[:, 1:] = targets[:, :-1]
            targets[:, 0] = bos
            return targets
    """),
    ("shift_right", "the first token is 1, for every bos", """
        def shift_right(targets, bos):
            return np.concatenate([np.ones((len(targets), 1), int), targets[:, :-1]], axis=1)
    """),
    ("shift_right", "it is float64, expected integers", """
        def shift_right(targets, bos):
            return np.concatenate([np.full((len(targets), 1), float(bos)), targets[:, :-1]], axis=1)
    """),
    ("adamw", "the arrays of params do not change", """
        def step(self, params, grads, lr):
            params.update({name: p - lr * grads[name] for name, p in params.items()})


        AdamW.step = step
    """),
    ("adamw", "A function must not write into its arguments", """
        def step(self, params, grads, lr):
            for name, g in grads.items():
                g += self.weight_decay * params[name]


        AdamW.step = step
    """),
    # every optimiser goes on where the last one stopped
    ("adamw", "it does not start like the first one", """
        ms, vs = {}, {}


        def step(self, params, grads, lr):
            self.t += 1
            b1, b2 = self.betas
            for name, g in grads.items():
                ms[name] = b1 * ms.get(name, 0) + (1 - b1) * g
                vs[name] = b2 * vs.get(name, 0) + (1 - b2) * g * g
                params[name] -= lr * self.weight_decay * params[name]
                params[name] -= lr * ms[name] / (1 - b1**self.t) / (np.sqrt(vs[name] / (1 - b2**self.t)) + self.eps)


        AdamW.step = step
    """),
    # chooses by the next word alone, and adds the totals afterwards
    ("beam_step", "the totals are not added before the choice", """
        def beam_step(totals, log_probs):
            best = np.argsort(-log_probs, axis=None)[: len(totals)]
            origin, word = np.divmod(best, log_probs.shape[1])
            return origin, word, totals[origin] + log_probs[origin, word]
    """),
    # the mean of the pictures' means
    ("masked_mse", "in each image first", """
        def masked_mse_forward(pred, target, mask):
            share = mask / mask.sum(axis=1, keepdims=True) / len(mask)
            error = pred - target
            return (share * (error * error).mean(-1)).sum(), (error, share)


        def masked_mse_backward(dloss, cache):
            error, share = cache
            return dloss * share[..., None] * 2 * error / error.shape[-1]
    """),
    # the kept rows in the order of the picture
    ("unshuffle", "the right numbers in a different order along axis 1", """
        def unshuffle_backward(dy, cache):
            kept, ids_restore = cache
            seen = ids_restore < kept
            return dy[seen].reshape(len(dy), kept, -1), dy[~seen].sum(axis=0)[None, None]
    """),
]


# The answer, spoilt: right for one batch of random numbers, one size or one constant.
NARROW = [
    ("random_masking", "mask: ", """
        right = random_masking


        def random_masking(noise, mask_ratio):
            ids_keep, ids_restore, mask = right(noise, mask_ratio)
            return ids_keep, ids_restore, noise > mask_ratio
    """),
    ("random_masking", "every image gets the kept patches of all images", """
        right = random_masking


        def random_masking(noise, mask_ratio):
            ids_keep, ids_restore, mask = right(noise, mask_ratio)
            mask = np.ones(noise.shape)
            mask[:, ids_keep] = 0
            return ids_keep, ids_restore, mask
    """),
    ("softmax_forward", "subtract the largest score of each row, from that row", """
        def softmax(scores):
            e = np.exp(scores - scores.mean(axis=-1, keepdims=True))
            return e / e.sum(axis=-1, keepdims=True)
    """),
    ("softmax", "subtract the largest score of each row, from that row", """
        def softmax_forward(scores):
            p = np.exp(scores - scores.max())
            p = p / p.sum(axis=-1, keepdims=True)
            return p, (p,)
    """),
    ("multi_head_attention_forward", "right for two heads only", """
        right = multi_head_attention


        def multi_head_attention(x, p, heads, mask=None):
            return right(x, p, 2, mask)
    """),
    ("split_heads", "it has shape (4, 2, 5, 7), expected (4, 7, 5, 2)", """
        right = split_heads


        def split_heads(x, heads):
            return right(x, 2)
    """),
    ("layernorm_forward", "right for an eps of 1e-5 only", """
        right = layernorm


        def layernorm(x, gamma, beta, eps=1e-5):
            return right(x, gamma, beta)
    """),
]


@pytest.mark.parametrize(("name", "words", "code"), BLIND_SPOTS)
def test_no_blind_spot(name, words, code, check):
    report = check(name, append=textwrap.dedent(code))
    assert not report.ok and words in report.text, report.text


@pytest.mark.parametrize(("name", "words", "code"), NARROW)
def test_what_is_right_in_one_case_only_is_wrong(name, words, code, check):
    report = check(name, append=answer(name) + "\n\n" + textwrap.dedent(code))
    assert not report.ok and words in report.text, report.text


# Right, and not as the answers have it.
UNUSUAL = [
    ("numerical_gradient", """
        def difference(f, x, index, h):
            step = np.zeros_like(x)
            step[index] = h
            return (f(x + step) - f(x - step)) / (2 * h)
    """),
    ("embedding", """
        def embedding_backward(dy, cache):
            ids, (words, width) = cache
            return None, np.eye(words)[ids].reshape(-1, words).T @ dy.reshape(-1, width)
    """),
    ("positional_encoding", """
        def positional_encoding(length, width):
            waves = [[pos / 10000 ** (column // 2 * 2 / width) for column in range(width)] for pos in range(length)]
            return [[(math.cos if column % 2 else math.sin)(wave) for column, wave in enumerate(row)] for row in waves]


        import math
    """),
    ("dropout", """
        def dropout_forward(x, dropout, rng=None):
            if rng is None:
                return x, None
            kept = rng.binomial(1, 1 - dropout, x.shape).astype(bool)
            return np.where(kept, x / (1 - dropout), 0), (kept, dropout)


        def dropout_backward(dy, cache):
            return dy if cache is None else np.where(cache[0], dy / (1 - cache[1]), 0)
    """),
    ("attention", """
        def scaled_dot_product_attention_backward(dy, cache):
            q, k, v, weights, dropped, keep = cache
            dweights = np.einsum("bhid,bhjd->bhij", dy, v) * keep
            dscores = weights * (dweights - np.einsum("bhij,bhij->bhi", dweights, weights)[..., None]) / q.shape[-1] ** 0.5
            dq, dk = np.einsum("bhij,bhjd->bhid", dscores, k), np.einsum("bhij,bhid->bhjd", dscores, q)
            return dq, dk, np.einsum("bhij,bhid->bhjd", dropped, dy)
    """),
    ("split_heads", """
        def split_heads(x, heads):
            return np.stack(np.split(x, heads, axis=-1), axis=1)


        def merge_heads(x):
            return np.concatenate(list(x.swapaxes(0, 1)), axis=-1)
    """),
    ("masks", """
        def padding_mask(ids, pad=0):
            batch, length = ids.shape
            return np.broadcast_to((ids != pad)[:, None, None], (batch, 1, length, length))


        def causal_mask(length):
            return [[j <= i for j in range(length)] for i in range(length)]
    """),
    ("feed_forward", """
        def feed_forward_backward(dy, cache):
            x, h, a, p = cache
            da = np.einsum("btd,fd->btf", dy, p["fc2"]["w"])
            da[a == 0] = 0
            dp = {"fc1": {"w": np.einsum("btd,btf->df", x, da), "b": da.sum((0, 1))},
                  "fc2": {"w": np.tensordot(a, dy, ((0, 1), (0, 1))), "b": dy.sum((0, 1))}}
            return np.einsum("btf,df->btd", da, p["fc1"]["w"]), dp
    """),
    ("linear", """
        def linear_backward(dy, cache):
            x, w = cache
            dw, db = np.zeros_like(w), np.zeros(w.shape[1])
            for b, t in np.ndindex(x.shape[:2]):
                dw += np.outer(x[b, t], dy[b, t])
                db += dy[b, t]
            return dy @ w.T, dw, db
    """),
    ("softmax", """
        def softmax_forward(scores):
            e = np.exp(scores - scores.max(-1, keepdims=True))
            return e / e.sum(-1, keepdims=True), {"e": e}


        def softmax_backward(dp, cache):
            p = cache["e"] / cache["e"].sum(-1, keepdims=True)
            jacobian = p[..., :, None] * (np.eye(p.shape[-1]) - p[..., None, :])
            return (np.einsum("...j,...jk->...k", dp, jacobian),)
    """),
    ("cross_entropy", """
        def cross_entropy_backward(dloss, cache):
            p, q, counts = cache
            dlogits = dloss * (p - q) / counts.sum()
            dlogits[~counts] = 0
            return dlogits
    """),
    ("schedule", """
        import numpy as np


        def learning_rates(params, batches, d_model, warmup, factor=1.0):
            step = np.arange(1.0, batches + 1)
            return factor / math.sqrt(d_model) * np.minimum(1 / np.sqrt(step), step / warmup**1.5)
    """),
    ("beam_step", """
        def beam_step(totals, log_probs):
            beam, words = log_probs.shape
            scores = [(totals[w] + log_probs[w, v], w, v) for w in range(beam) for v in range(words)]
            new, origin, word = zip(*sorted(scores, reverse=True)[:beam])
            return origin, word, new
    """),
    ("patchify", """
        def patchify_forward(images, patch_size):
            rows, cols, p = *images.shape[1:3], patch_size
            cut = [images[:, i : i + p, j : j + p] for i in range(0, rows, p) for j in range(0, cols, p)]
            return np.stack([patch.reshape(len(images), -1) for patch in cut], axis=1), (images.shape, p)


        def patchify_backward(dpatches, cache):
            shape, p = cache
            dimages = np.empty(shape)
            places = [(i, j) for i in range(0, shape[1], p) for j in range(0, shape[2], p)]
            for n, (i, j) in enumerate(places):
                dimages[:, i : i + p, j : j + p] = dpatches[:, n].reshape(shape[0], p, p, -1)
            return dimages
    """),
    ("random_masking", """
        def random_masking(noise, mask_ratio):
            shuffle = noise.argsort(1)
            keep = shuffle[:, : int(noise.shape[1] * (1 - mask_ratio))]
            restore, mask = np.empty_like(shuffle), np.ones(noise.shape, bool)
            np.put_along_axis(restore, shuffle, np.arange(noise.shape[1])[None], axis=1)
            np.put_along_axis(mask, keep, False, axis=1)
            return keep, restore, mask
    """),
    ("unshuffle", """
        def unshuffle_backward(dy, cache):
            kept, ids_restore = cache
            dshuffled = np.empty_like(dy)
            np.put_along_axis(dshuffled, ids_restore[..., None], dy, axis=1)
            return dshuffled[:, :kept], dshuffled[:, kept:].sum((0, 1), keepdims=True)
    """),
    ("masked_mse", """
        def masked_mse_forward(pred, target, mask):
            hidden = mask == 1
            error = pred[hidden] - target[hidden]
            return float((error**2).mean()), (pred.shape, hidden, error)


        def masked_mse_backward(dloss, cache):
            shape, hidden, error = cache
            dpred = np.zeros(shape)
            dpred[hidden] = dloss * 2 * error / error.size
            return dpred
    """),
]


@pytest.mark.parametrize(("name", "code"), UNUSUAL, ids=[name for name, _ in UNUSUAL])
def test_an_unusual_answer_is_right(name, code, check):
    report = check(name, append=textwrap.dedent(code))
    assert report.ok, report.text


@pytest.mark.parametrize("name", EXERCISES)
def test_the_answer_is_right_and_every_variant_is_wrong_somewhere(name, check, monkeypatch):
    """A variant that gives the right numbers in all tables of a check is a mistake that this check cannot see."""
    same = {}

    def judge(row, ours, expected, variants=(), *args, tolerance=1e-9, **options):
        for words, variant in dict(variants).items():
            agrees = compare.close(np.asarray(expected, float), variant(), tolerance)
            same[row, words] = same.get((row, words), True) and agrees
        return judged(row, ours, expected, variants, *args, tolerance=tolerance, **options)

    judged = judge_module.judge
    for module in (judge_module, pairs, *vars(checks).values()):
        if getattr(module, "judge", None) is judged:
            monkeypatch.setattr(module, "judge", judge)
    report = check(name, append=answer(name))
    assert report.ok and report.text.endswith("All of it is right."), report.text
    assert not any(same.values()), [key for key, agrees in same.items() if agrees]


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_tolerance_is_relative_to_the_largest_number(scale):
    """2e-9 of the largest number is wrong, 5e-10 of it is right, for large numbers, for small ones and next to large ones."""
    expected = scale * np.array([2.0, -1.0, 1e-6])
    for part, ok in ((2e-9, False), (5e-10, True)):
        for index in range(3):
            ours = expected.copy()
            ours[index] += part * 2 * scale
            row = judge_module.judge("y", ours, expected)
            assert row.ok == ok and compare.close(ours, expected, 1e-9) == ok
            assert row.ok or "nearly right, off by 2e-09 of the largest number" in row.diagnosis
            if ok:
                assert row.error == pytest.approx(part, rel=1e-3)
    assert compare.close(np.full(2, 5e-10), np.zeros(2), 1e-9)        # nothing to be relative to
    assert not compare.close(np.full(2, 2e-9), np.zeros(2), 1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_wrong_numbers_are_counted_relative_to_the_largest(scale):
    expected = scale * np.array([[3.0, 1.0], [2.0, 1.0]])
    ours = expected + scale * np.array([[0, 0.5], [2e-9, 0.7]])         # 2e-9 is less than 1e-9 of 3
    row = judge_module.judge("y", ours, expected)
    assert not row.ok and row.diagnosis.startswith("2 of 4 numbers are wrong: [1, 1] is ")


# A split that is wrong, and a merge that is its inverse: with their own gradients, so only the numbers show it.
SPLITS = {
    "every second column": ("x.reshape(batch, length, width // heads, heads).transpose(0, 3, 1, 2)",
                            "x.transpose(0, 2, 3, 1).reshape(batch, length, -1)"),
    "one column too far": ("np.roll(x, 1, -1).reshape(batch, length, heads, width // heads).swapaxes(1, 2)",
                           "np.roll(x.swapaxes(1, 2).reshape(batch, length, -1), -1, -1)"),
    "positions backwards": ("x.reshape(batch, length, heads, width // heads).swapaxes(1, 2)[:, :, ::-1]",
                            "x[:, :, ::-1].swapaxes(1, 2).reshape(batch, length, -1)"),
}


@pytest.mark.parametrize(("name", "split"), [
    *(("multi_head_attention", split) for split in SPLITS), ("split_heads", "one column too far"),
    ("split_heads", "positions backwards"),
])
def test_a_wrong_split_of_heads_that_no_variant_names(name, split, check):
    apart, together = SPLITS[split]
    report = check(name, append=answer(name) + textwrap.dedent(f"""

        def split_heads(x, heads):
            batch, length, width = x.shape
            return {apart}


        def merge_heads(x):
            batch, heads, length, width = x.shape
            return {together}
    """))
    assert not report.ok and " numbers are wrong: [" in report.text and "it is the result if" not in report.text, report.text


FORWARD_MISTAKES = [
    ("softmax", "scores.max(axis=-1, ", "scores.max(axis=-2, ", "the maximum is subtracted along axis -2"),
    ("softmax", "scores - scores.max(axis=-1, keepdims=True)", "scores", "exp(1000) overflows"),
    ("softmax", "p.sum(axis=-1, keepdims=True) ", "p.sum(axis=0, keepdims=True) ", "the sum is taken along axis 0"),
    ("attention", "math.sqrt(q.shape[-1])", "math.sqrt(q.shape[1] * q.shape[-1])", "divided by sqrt(d_model)"),
    ("attention", " / math.sqrt(q.shape[-1])", "", "the scores are not divided by sqrt(d_k)"),
    ("attention", "scores, mask)", "scores, None if mask is None else ~mask)", "the mask is inverted"),
    ("attention", "scores, mask)", "np.where(True if mask is None else mask, scores, 0.0))", "exp(0) is 1"),
    ("attention", "= softmax_forward(scores, mask)", "= softmax_forward(scores)", "the mask is not used"),
    ("multi_head_attention", "x.reshape(batch, length, heads, width // heads).swapaxes(1, 2)",
     "x.reshape(batch, heads, length, width // heads)", "the heads are split by a reshape alone"),
    ("multi_head_attention", "x.swapaxes(1, 2).reshape(batch", "x.reshape(batch", "the heads are merged by a reshape alone"),
    ("layernorm", "(xhat * xhat).mean(axis=-1, keepdims=True)", "x.var(axis=-1, ddof=1, keepdims=True)", "1 / (D - 1)"),
    ("layernorm", "1 / np.sqrt((xhat * xhat).mean(axis=-1, keepdims=True) + eps)",
     "1 / (np.sqrt((xhat * xhat).mean(axis=-1, keepdims=True)) + eps)", "it belongs inside, to the variance"),
    ("layernorm", "1 / np.sqrt((xhat * xhat).mean(axis=-1, keepdims=True) + eps)",
     "1 / (x.std(axis=-1, ddof=1, keepdims=True) + eps)", "eps is added to its square root, as in the Annotated Transformer"),
    ("layernorm", "return y, (xhat, rstd, gamma)", "return y", "expected a function to return (y, cache), got a ndarray"),
    ("cross_attention", 'linear_forward(memory, **p["v"])', 'linear_forward(x, **p["v"])', "values come from the decoder"),
    ("encoder_layer", 'h, ln1 = layernorm_forward(x, **p["ln1"])', 'h, ln1 = x, layernorm_forward(x, **p["ln1"])[1]',
     "numbers are wrong: ["),
    ("cross_entropy", "[counts].sum() / counts.sum()", "[counts].sum() / counts.size", "taken over all positions"),
]


@pytest.mark.parametrize(("name", "old", "new", "words"), FORWARD_MISTAKES)
def test_a_forward_that_was_edited_is_compared_with_the_right_one(name, old, new, words, check):
    report = check(name, lambda source: replaced(source, old, new), answer(name))
    assert not report.ok and words in report.text, report.text


# ---- the zoo -----------------------------------------------------------------------------------------------------------

# {file: (the cause, which the report has to name, what is broken, and what mends it)}
ZOO_CAUSES = {
    "softmax_by_batch": ("4 times too small everywhere: 4 is the batch size", [("dscores / len(dp)", "dscores")]),
    "softmax_diagonal": ("the diagonal of the softmax Jacobian",
                         [("dp * p * (1 - p)", "p * (dp - (dp * p).sum(axis=-1, keepdims=True))")]),
    "softmax_wrong_axis": ("the maximum is subtracted along axis -2, the wrong axis", [("axis=-2", "axis=-1")]),
    "layernorm_gamma_outside": ("right only while gamma = 1: in a normalisation gamma multiplies dy before the means", [
        ("    dx = dy - dy.mean(axis=-1, keepdims=True) - xhat * (dy * xhat)",
         "    dxhat = dy * gamma\n    dx = dxhat - dxhat.mean(axis=-1, keepdims=True) - xhat * (dxhat * xhat)"),
        ("gamma * rstd * dx", "rstd * dx")]),
    "layernorm_of_squares": ("is the variance computed as mean(x^2) - mean(x)^2?", [
        ("(x * x).mean(axis=-1, keepdims=True) - mean * mean", "((x - mean) * (x - mean)).mean(axis=-1, keepdims=True)")]),
    "dv_before_dropout": ("v: it is the result if the weights before dropout are used",
                          [("dv = weights.swapaxes(-1, -2) @ dy", "dv = (weights * keep).swapaxes(-1, -2) @ dy")]),
    "attention_item_0": ("only item 0 of the batch is used", [
        ("k[0]", "k"), ("v[0]", "v"), (".sum(axis=0)", "")]),
    "scaled_by_d_model": ("the scores are divided by sqrt(d_model)", [("q.shape[1] * q.shape[3]", "q.shape[3]")]),
    "sentence_as_batch": ("every weight is 1.0 and every token attends to itself only", [
        ("x.reshape(len(x), heads, 1, -1)", "x.reshape(1, len(x), heads, -1).swapaxes(1, 2)"),
        ("x.reshape(len(x), -1)", "x.swapaxes(1, 2).reshape(x.shape[2], -1)")]),
    "padding_mask_on_queries": ("the padding is on the axis of the queries: keys are hidden",
                                [("words[:, None, :, None]", "words[:, None, None, :]")]),
    "padding_mask_broadcast": ("the padding is on the axis of the queries: keys are hidden",
                               [("words[:, None, :, None]", "words[:, None, None, :]")]),
    "no_residual_backward": ("neither residual path brings its gradient", [
        ('dx, dgamma2, dbeta2 = layernorm_backward(dh, cache["ln2"])',
         'dh, dgamma2, dbeta2 = layernorm_backward(dh, cache["ln2"])\n    dx1 = dy + dh'),
        ("multi_head_attention_backward(dx, ", "multi_head_attention_backward(dx1, "), ("return dx, {", "return dx1 + dx, {")]),
    "cross_attention_swapped": ("queries and keys come from the encoder, values from the decoder", [
        ('linear_forward(memory, **p["q"])', 'linear_forward(x, **p["q"])'),
        ('linear_forward(x, **p["v"])', 'linear_forward(memory, **p["v"])'),
        ("dmemory_q, dwq", "dx, dwq"), ("dx, dwv", "dmemory_v, dwv"), ("dmemory_q + dmemory_k", "dmemory_k + dmemory_v")]),
    "adam_stands_still": ("t stays at 1", [("t = self.t + 1", "t = self.t = self.t + 1")]),
    "schedule_by_tensor": ("the step advances once for each array: it advances once for each batch", [
        ("        for _ in params:", "        for _ in range(1):")]),
    "mae_without_unshuffle": ("the visible tokens come first and the mask tokens after them: they are not moved", [
        ("    return y, (kept,)",
         "    y = np.take_along_axis(y, ids_restore[..., None], axis=1)\n    return y, (kept, ids_restore)"),
        ("    (kept,) = cache\n", "    kept, ids_restore = cache\n    order = np.argsort(ids_restore, axis=1)\n"
                                  "    dy = np.take_along_axis(dy, order[..., None], axis=1)\n")]),
    "true_patch_statistics": ("each hidden patch gets its mean and contrast from the true image: part of the answer", [
        ("    pred = pred * std + mean",
         "    visible = 1 - mask[..., None]\n"
         "    mean, std = ((part * visible).sum(1, keepdims=True) / visible.sum(1, keepdims=True) for part in (mean, std))\n"
         "    pred = pred * std + mean")]),
    "bias_gradient_averaged": ("20 times too small everywhere: 20 is the number of rows of x", [
        (".mean(axis=0)", ".sum(axis=0)")]),
    "positions_along_batch": ("the positions count the sequences of the batch, axis 0", [
        ("np.arange(x.shape[0])", "np.arange(x.shape[1])"), ("table[positions][:, None]", "table[positions]"),
        ("dy.sum(axis=1)", "dy.sum(axis=0)")]),
    "queries_alone": ("dx is dxq: x went three ways", [
        ("dx, dwq, _", "dxq, dwq, _"), ("_, dwk, _", "dxk, dwk, _"), ("_, dwv, _", "dxv, dwv, _"),
        ("return dx, {", "return dxq + dxk + dxv, {")]),
    "mask_multiplied": ("forbidden scores become 0: exp(0) is 1, so they must become minus infinity", [
        ("softmax_forward(scores * keep)", "softmax_forward(np.where(keep, scores, -np.inf))")]),
    "gelu_with_relu_slope": ("the derivative is that of ReLU, 1 where x > 0 and 0 elsewhere: the forward is GELU", [
        ("(x > 0).astype(x.dtype)", "cdf + x * pdf")]),
    "one_layer_six_times": ("the layers have the same arrays, so a step of one moves the others", [
        ("[init.encoder_layer(d_model, heads, hidden, rng, dtype=np.float64)] * depth",
         "[init.encoder_layer(d_model, heads, hidden, rng, dtype=np.float64) for _ in range(depth)]")]),
    "greedy_ends_together": ("a sentence that has ended goes on until all generate <eos> in one step", [
        ("    ids = np.full((batch, 1), bos)", "    ids, ended = np.full((batch, 1), bos), np.zeros(batch, bool)"),
        ("token = next_logits(ids).argmax(axis=-1)", "token = np.where(ended, pad, next_logits(ids).argmax(axis=-1))"),
        ("        if (token == eos).all():", "        ended |= token == eos\n        if ended.all():")]),
    "rnn_without_memory": ("every step starts from h = 0, so nothing is remembered", [
        ("        new = ", "        h = "), ("append(new)", "append(h)")]),
    "patch_order": ("the backward reads a patch as (channel, row, column): the forward writes it as (row, column, channel)", [
        ("channels, patch_size, patch_size)   #", "patch_size, patch_size, channels)   #"),
        ("x.transpose(0, 1, 4, 2, 5, 3)", "x.transpose(0, 1, 3, 2, 4, 5)")]),
    "order_for_its_inverse": ("dy is ordered by ids_restore once more: backward needs the inverse order", [
        ("np.take_along_axis(dy, ids_restore[..., None], axis=1)",
         "np.take_along_axis(dy, np.argsort(ids_restore, axis=1)[..., None], axis=1)")]),
    "mean_of_means": ("the mean is taken over the means of the parts: a part counts by its number of tokens", [
        ("    loss, grads = 0.0,", "    total, loss, grads = 0, 0.0,"), ("        loss += part_loss / len(parts)",
         "        total += count\n        loss += part_loss * count"), ("g / len(parts)", "g * count"),
        ("    return loss, grads", "    return loss / total, {name: g / total for name, g in grads.items()}")]),
}


def test_the_zoo_is_complete():
    assert ZOO_CAUSES.keys() == ZOO.keys()


SAME_CHECK = [(bug, name) for bug, held in ZOO.items() for name, other in EXERCISES.items() if held.check is other.check]


@pytest.mark.parametrize("name", ZOO)
def test_the_cause_is_named_and_the_story_told(name, check):
    """And the same code under the name of the exercise gets the same verdict: it is known by what it does."""
    report = check(name)
    cause, _ = ZOO_CAUSES[name]
    verdict = report.text
    assert not report.ok and cause in verdict and "Why nobody noticed" not in verdict, report.text
    for exercise in [exercise for bug, exercise in SAME_CHECK if bug == name]:
        renamed = check(name, lambda source, to=exercise: replaced(source, f'EXERCISE = "{name}"', f'EXERCISE = "{to}"')).text
        lesson = re.compile(r"^.*?lesson \d+")
        assert lesson.sub("", renamed).strip() == lesson.sub("", verdict).strip()


def mended(name, source):
    for old, new in ZOO_CAUSES[name][1]:
        source = replaced(source, old, new)
    return source


@pytest.mark.parametrize("name", ZOO)
def test_a_mended_bug_passes(name, check, monkeypatch):
    bug, mend, tables = ZOO[name], partial(mended, name), []

    def recorded(names):
        for table in bug.check(names):
            tables.append(table)
            yield table

    monkeypatch.setitem(ZOO, name, replace(bug, check=recorded))
    report = check(name, mend, cause=bug.cause)
    assert report.ok and report.points == report.most == POINTS[ZOO[name].level]
    assert f"All of it is right. Your guess, '{ZOO[name].cause}', is right: " in report.text, report.text
    assert report.text.endswith(f"Why nobody noticed. {story(name)}")
    other = next(key for key in CAUSES if key != ZOO[name].cause)
    monkeypatch.setitem(ZOO, name, replace(bug, check=lambda names: iter(tables)))      # only the guess differs: same tables
    assert f"Your guess was '{other}'" in check(name, mend, cause=other).text


MENDED_WRONGLY = [
    ("positions_along_batch", "np.arange(x.shape[1])", "x.shape[1] - 1", "every token gets the position of the last one"),
    ("positions_along_batch", "np.arange(x.shape[1])", "np.arange(1, x.shape[1] + 1)", "positions count from 1"),
    ("gelu_with_relu_slope", "cdf + x * pdf", "cdf", "the derivative is cdf(x) alone"),
    ("gelu_with_relu_slope", "return dy * slope",
     "from tinymae.ops import activation\n    return dy * activation.gelu_forward(x, 'tanh')[1][0]", "of GELU's tanh form"),
    ("patch_order", "x.transpose(0, 1, 3, 2, 4, 5)  ", "x.transpose(0, 1, 4, 2, 3, 5)  ", "swaps row and column"),
    ("patch_order", "return x.reshape(batch, rows, cols, channels)", "return dpatches.reshape(batch, rows, cols, channels)",
     "dpatches is reshaped at once"),
    ("one_layer_six_times", "    return [init", "    layer = init.encoder_layer(d_model, heads, hidden, rng)\n"
     "    return [__import__('copy').deepcopy(layer) for _ in range(depth)]\n    return [init", "start from the same numbers"),
    ("one_layer_six_times", "range(depth)", "range(depth - 1)", "layers: it is 2, expected 3"),
    ("one_layer_six_times", "    return [", "    [", "expected encoder_layers to return a list of trees, got a NoneType"),
    ("greedy_ends_together", "np.where(ended, pad, next_logits(ids).argmax(axis=-1))", "next_logits(ids).argmax(axis=-1)",
     "tokens after <eos> are kept"),
    ("greedy_ends_together", "ended.all()", "ended.any()", "decoding ends when the first sentence has ended"),
    ("greedy_ends_together", "            break", "            pass", "expected 5 steps, got 7"),
    ("greedy_ends_together", "return ids[:, 1:]", "return np.where(ids == eos, pad, ids)[:, 1:]", "<eos> is left out"),
    ("greedy_ends_together", "return ids[:, 1:]", "return ids", "<bos> is returned, too"),
    ("greedy_ends_together", "return ids[:, 1:]", "return None", "ids: it is None"),
    ("rnn_without_memory", "np.stack(states, axis=1)", "np.stack(states[::-1], axis=1)", "in the reverse order"),
    ("rnn_without_memory", "np.stack(states, axis=1)", "np.stack([h] * len(states), axis=1)", "the last state stands"),
    ("mean_of_means", "loss / total, {name: g / total ", "loss, {name: g ", "the sum over all tokens is not divided"),
    ("mean_of_means", "part_loss * count", "part_loss * total", "loss: "),
    ("mean_of_means", "return loss / total, {name: g / total for name, g in grads.items()}", "return part_loss, part_grads",
     "the last part replaces those before"),
    ("mean_of_means", "return loss / total, {name: g / total for name, g in grads.items()}", "return loss / total, None",
     "dw, db: it is None"),
]


@pytest.mark.parametrize(("name", "old", "new", "words"), MENDED_WRONGLY)
def test_a_bug_that_is_mended_wrongly(name, old, new, words, check):
    report = check(name, lambda source: replaced(mended(name, source), old, new))
    assert not report.ok and words in report.text, report.text


def test_parts_that_are_added(check):
    """The sum of the means, which is a mistake of its own."""
    report = check("mean_of_means", lambda source: replaced(source, " / len(parts)", ""))
    assert "the parts are added, and the sum is not divided" in report.text, report.text


def test_a_bug_is_guessed_first(tmp_path):
    path = write_exercise("softmax_diagonal", tmp_path)
    report = judge_file(path)
    assert not report.ok and "guess what is wrong" in report.text and "diagonal" not in report.text.partition("lesson")[2]
    assert all(f"\n    {key} " in report.text for key in CAUSES)
    path.write_text(path.read_text(encoding="utf-8").replace("CAUSE = None", "CAUSE = 'the sum'"), encoding="utf-8")
    assert "CAUSE is 'the sum'. Read the file first" in judge_file(path).text
    told = judge_file(path, tell=True)
    assert not told.ok and "the diagonal of the softmax Jacobian" in told.text
    assert " ".join(told.text.split()).endswith(f"Why nobody noticed. {story('softmax_diagonal')}")


# ---- solutions that are none -------------------------------------------------------------------------------------------

DIFFERENCES = """
    def softmax_backward(dp, cache):
        (p,) = cache
        scores, dscores = np.log(p), np.zeros_like(p)
        for index in np.ndindex(p.shape):
            step = np.zeros_like(p)
            step[index] = 1e-6
            dscores[index] = (dp * (softmax_forward(scores + step)[0] - softmax_forward(scores - step)[0])).sum() / 2e-6
        return dscores
"""


@pytest.mark.parametrize(("name", "code", "words"), [
    ("layernorm", "from tinymae.ops.layernorm import layernorm_backward", "it calls layernorm_backward of tinymae"),
    ("layernorm", """
        def layernorm_backward(dy, cache):
            import importlib
            return getattr(importlib.import_module("tinymae.ops." + "layernorm"), "layernorm" + "_backward")(dy, cache)
     """, "it calls layernorm_backward of tinymae"),
    ("linear_forward", """
        def linear(x, w, b):
            from tinymae.ops.linear import linear_forward
            return linear_forward(x, w, b)[0]
     """, "it calls linear_forward of tinymae"),
    ("positional_encoding", """
        def positional_encoding(length, width):
            from tinymae.ops.positional import sinusoidal_interleaved
            return sinusoidal_interleaved(length, width)
     """, "it calls sinusoidal_interleaved of tinymae"),
    ("adamw", """
        from tinymae.train.optim import AdamW as Theirs


        class AdamW:
            def __init__(self, params, **options):
                self.inner = Theirs(params, **options)

            def step(self, params, grads, lr):
                self.inner.step(params, grads, lr)
     """, "it calls step of tinymae"),
    ("softmax", DIFFERENCES, "softmax_backward calls softmax_forward again and again"),
    ("softmax_forward", """                                         # in the second table of the check
        def softmax(scores):
            from tinymae.ops.softmax import softmax_forward
            e = np.exp(scores)
            return softmax_forward(scores)[0] if scores.max() > 100 else e / e.sum(axis=-1, keepdims=True)
     """, "it calls softmax_forward of tinymae"),
])
def test_a_solution_that_is_none_is_recognised(name, code, words, check):
    report = check(name, append=textwrap.dedent(code))
    assert not report.ok and words in report.text and not report.points, report.text


# ---- hints, bare files, points -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", EXERCISES)
def test_three_hints_that_are_not_the_answer(name, tmp_path):
    found = hints(name)
    assert len(found) == 3 and all(40 < len(hint) < 260 and hint.endswith(".") for hint in found)
    lines = [" ".join(line.partition("#")[0].split()) for line in answer(name).splitlines()]
    assert not any(line in " ".join(found) for line in lines if len(line) > 12)
    source = write_exercise(name, tmp_path).read_text(encoding="utf-8")
    assert "hints" not in source and found[0] not in source


@pytest.mark.parametrize("name", [*EXERCISES, *ZOO])
def test_a_bare_file_has_no_equations(name, tmp_path):
    whole = write_exercise(name, tmp_path).read_text(encoding="utf-8")
    (tmp_path / f"{name}.py").unlink()
    path = write_exercise(name, tmp_path, bare=True)
    source = path.read_text(encoding="utf-8")
    assert len(source) <= len(whole) and not re.search(r"# \(\d|equations? \(", source), source
    assert not re.search(r"\(\d\)", ast.get_docstring(ast.parse(source)))
    assert [node.name for node in ast.parse(source).body if hasattr(node, "name")] == [
        node.name for node in ast.parse(whole).body if hasattr(node, "name")]
    if name == "layernorm":
        assert len(source) < len(whole) - 400
        path.write_text(f"{source}\n\n{answer(name)}", encoding="utf-8")
        assert judge_file(path).ok


def test_a_bug_has_no_hints():
    with pytest.raises(ValueError, match="a bug of the zoo has no hints"):
        hints("softmax_diagonal")


def test_the_commands_of_a_learner(tmp_path, monkeypatch, capsys):
    """hint, check --json, progress and its reset, as a learner and a grader use them."""
    monkeypatch.chdir(tmp_path)
    assert main(["exercise", "gelu"]) == 0
    for number in (1, 2, 3, 3):
        capsys.readouterr()
        assert main(["hint", "gelu.py"]) == 0
        said = " ".join(capsys.readouterr().out.split())        # its lines are filled
        assert said.startswith(" ".join(f"hint {number} of 3: {hints('gelu')[number - 1]}".split()))
    assert main(["check", "--json", "gelu.py"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"] and found["exercise"] == "gelu" and (found["points"], found["most"]) == (0, 2)
    with open("gelu.py", "a", encoding="utf-8") as file:
        file.write(f"\n\n{answer('gelu')}\nprint('not JSON')\n")
    assert main(["check", "--json", "gelu.py"]) == 0
    assert json.loads(capsys.readouterr().out)["points"] == 2
    assert main(["progress"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^    gelu +solved, 3 hints$", output, re.MULTILINE) and f"2 of {sum_of_points()} points" in output
    assert main(["progress", "--reset"]) == 0 and main(["progress"]) == 0
    assert f"0 of {sum_of_points()} points" in capsys.readouterr().out


def sum_of_points():
    return sum(POINTS[it.level] for it in (EXERCISES | ZOO).values())


def test_a_damaged_progress_is_not_thrown_away(capsys):
    from tinymae.learn import progress

    path = progress.progress_file()
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"lessons": {"x": 1}}', encoding="utf-8")
    assert main(["progress"]) == 1 and "progress --reset" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == '{"lessons": {"x": 1}}'
    assert main(["progress", "--reset"]) == 0 and not path.exists()


def test_watch_checks_at_each_save(tmp_path, monkeypatch, capsys):
    path = write_exercise("gelu", tmp_path)
    slept = []

    def pause():
        slept.append(path)
        if len(slept) == 2:                                     # nothing has changed once: no report
            path.write_text(f"{path.read_text(encoding='utf-8')}\n\n{answer('gelu')}", encoding="utf-8")
            os.utime(path, (time.time() + 5, time.time() + 5))

    monkeypatch.setattr("tinymae.cli.learn._pause", pause)
    assert main(["check", "--watch", str(path)]) == 0
    output = capsys.readouterr().out
    assert output.count("is not written yet") == 1 and output.count("All of it is right.") == 1 and len(slept) == 2


def test_most_bugs_share_the_check_of_an_exercise():
    assert len(SAME_CHECK) >= 11


# ---- what else can go wrong --------------------------------------------------------------------------------------------

def test_unknown_name():
    with pytest.raises(ValueError, match=r"no exercise 'layernrom': did you mean layernorm"):
        write_exercise("layernrom")
    with pytest.raises(ValueError, match=r"no exercise 'xyz': `python -m tinymae exercise` lists them"):
        write_exercise("xyz")


def test_only_a_bug_has_a_story():
    with pytest.raises(ValueError, match="the zoo has no bug 'layernorm', and only a bug has a story"):
        story("layernorm")


def test_existing_work_is_not_overwritten(tmp_path):
    path = write_exercise("gelu", tmp_path)
    path.write_text("my work", encoding="utf-8")
    with pytest.raises(FileExistsError, match="is not overwritten"):
        write_exercise("gelu", tmp_path)
    assert path.read_text(encoding="utf-8") == "my work"


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="`python -m tinymae exercise NAME` writes one"):
        judge_file(tmp_path / "gelu.py")
    write_exercise("gelu", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"did you mean .*gelu\.py\?"):
        judge_file(tmp_path / "gelu")


SLOPE = "return dy * (cdf + x * pdf)"                           # the last line of gelu's answer
FIRST = "def gelu_backward(dy, cache):"                         # and its first


@pytest.mark.parametrize(("old", "new", "words"), [
    (SLOPE, SLOPE[:-1], "is not Python: '(' was never closed return dy * (cdf + x * pdf"),
    (SLOPE, "return dy * (cdf + z * pdf)", "in gelu_backward: return dy * (cdf + z * pdf)"),
    (SLOPE, "return dy * (cdf + z * pdf)", "NameError: name 'z' is not defined"),
    (SLOPE, "return dy * np.nan", "has nan at (0, 0, 0)"),
    (SLOPE, "return dy / (x - x)", "a division by 0"),
    (SLOPE, "return (dy * (cdf + x * pdf)).astype(np.float32)", "is float32, expected float64"),
    (SLOPE, "return 'dx'", "is a str"),
    (FIRST, "def backward(dy, cache):", "gelu_backward is not written yet"),
    (FIRST, "gelu_backward = None\n\n\ndef backward(dy, cache):", "expected a function or class gelu_backward in the file"),
    (FIRST, "def gelu_backward(dy):\n    cache = None", "positional argument but 2 were given: leave the arguments as"),
    (FIRST, f"def gelu_forward(x):\n    return None\n\n\n{FIRST}",
     "expected a function to return (y, cache), got None: is its return missing?"),
    (FIRST, f"def gelu_forward(x):\n    return [x, None]\n\n\n{FIRST}", "got a list"),
    (FIRST, f"def gelu_forward(x):\n    return x, None, None\n\n\n{FIRST}", "got a tuple of 3"),
    (FIRST, f"def gelu_forward(x):\n    return 'y', None\n\n\n{FIRST}", "expected numbers of shape (4, 5, 10), got a str"),
    (FIRST, f"def gelu_forward(x):\n    return np.array([{{}}, None]), None\n\n\n{FIRST}", "got an array of object"),
    (FIRST, f"import sys\n\nsys.exit()\n\n\n{FIRST}", "in <module>: sys.exit() SystemExit: it ends Python itself"),
    (SLOPE, "raise SystemExit(0)\n", "in gelu_backward: raise SystemExit(0) SystemExit: it ends Python itself"),
    (FIRST, f"import sys\n\ngelu_forward = sys.exit\n\n\n{FIRST}", "SystemExit: it ends Python itself"),
    (SLOPE, "raise GeneratorExit('mine')\n", "in gelu_backward: raise GeneratorExit('mine') GeneratorExit: mine"),
    (SLOPE, "raise type('Mine', (BaseException,), {})('no')\n", "raise type('Mine', (BaseException,), {})('no') Mine: no"),
    (SLOPE, "raise KeyboardInterrupt\n", "in gelu_backward: raise KeyboardInterrupt KeyboardInterrupt"),
    (SLOPE, "return gelu_backward(dy, cache)\n", "return gelu_backward(dy, cache) RecursionError: maximum recursion"),
    (SLOPE, "return np.zeros(10**15)\n", "in gelu_backward: return np.zeros(10**15) MemoryError: Unable to allocate"),
    (FIRST, "gelu_backward = lambda dy: dy\n\n\ndef backward(dy, cache):", "<lambda>() takes 1 positional argument but 2 were"),
    (FIRST, "class gelu_backward:\n    pass\n\n\ndef backward(dy, cache):", "gelu_backward() takes no arguments: leave the"),
    (FIRST, f"def gelu_forward(y):\n    return y, z\n\n\n{FIRST}", "NameError: name 'z' is not defined"),
    (FIRST, f"def gelu_forward(x):\n    return x * np.ones(3), None\n\n\n{FIRST}", "(4,5,10) (3,) Shapes: x (4, 5, 10)"),
    (FIRST, f"def gelu_forward(x):\n    x *= 2\n    return x, None\n\n\n{FIRST}", "x: forward writes into x"),
    (FIRST, f"def gelu_forward(x):\n    return [[1], [1, 2]], None\n\n\n{FIRST}", "got a list that is not an array"),
    (FIRST, f"def gelu_forward(x):\n    return None, None\n\n\n{FIRST}", "y: it is None: is the return missing?"),
    (FIRST, f"def gelu_forward(x):\n    return x.sum(), None\n\n\n{FIRST}", "it has shape (), expected (4, 5, 10)"),
    (FIRST, f"def gelu_forward(x):\n    return 2 * x, 2\n\n\n{FIRST}\n    return 2 * dy",
     "The gradients are right for this forward: a gradient check cannot detect a wrong forward."),
    (FIRST, f"f = gelu_forward\n\n\ndef gelu_forward(x):\n    y, cache = f(x)\n    return y.tolist(), cache\n\n\n{FIRST}",
     "forward returned a y of type list"),
    (FIRST, f"import nowhere\n\n\n{FIRST}",
     "in <module>: import nowhere ModuleNotFoundError: No module named 'nowhere' An exercise needs NumPy, and nothing else"),
    (FIRST, f"EXERCISE = 3\n\n\n{FIRST}", 'expected a line such as EXERCISE = "layernorm"'),
    (FIRST, f"EXERCISE = 'gellu'\n\n\n{FIRST}", "there is no exercise 'gellu': did you mean gelu?"),
])
def test_what_a_learner_may_do(old, new, words, check):
    report = check("gelu", append=replaced(answer("gelu"), old, new))
    assert not report.ok and words in report.text, report.text


def test_a_borrowed_function_that_fails_is_no_mistake_of_the_check(check):
    report = check("gelu", append="from tinymae.ops.activation import gelu_backward")       # its cache is a different one
    assert not report.ok and "it calls gelu_backward of tinymae" in report.text, report.text


@pytest.mark.parametrize(("old", "new", "words"), [
    ("x @ w + b", "x @ w.T + b", "last but one of the right: is a transpose missing?"),
    ("x @ w + b", "x @ w + b[:3]", "two sizes have to be equal, or one of them 1"),
])
def test_what_the_messages_of_numpy_mean(old, new, words, check):
    report = check("linear_forward", append=replaced(answer("linear_forward"), old, new))
    assert not report.ok and words in report.text, report.text


CHINESE = [                                                     # the causes are tables of a module, or in the wrong shape
    ("softmax_forward", "max(axis=-1", "max(axis=-2", "减去的是沿轴 -2 的最大值"),
    ("layernorm_forward", "variance + eps", "variance", "缺少 eps"),
    ("attention_forward", "/ math.sqrt(q.shape[-1])", "", "注意力分数没有除以 sqrt(d_k)"),
    ("split_heads", "heads, width // heads).swapaxes(1, 2)", "width // heads, heads).swapaxes(1, 2)", "切成了 d 个头"),
    ("embedding", "np.add.at(dtable, ids, dy)", "dtable[ids] += dy", "table：只有在 ids 中出现不止一次的行是错的"),
]


@pytest.mark.parametrize(("name", "old", "new", "words"), CHINESE, ids=[case[0] for case in CHINESE])
def test_a_report_speaks_one_language_and_fits_the_terminal(name, old, new, words, check, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    path = write_exercise(name, tmp_path)
    path.write_text(path.read_text("utf-8") + "\n\n" + replaced(answer(name), old, new), encoding="utf-8")
    with spoken("zh"):
        report = judge_file(path)
    _head, *lines = report.text.splitlines()
    assert not report.ok and words in "".join(lines), report.text
    assert not re.search("[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}", "".join(lines)), report.text
    assert all(columns(line) <= 60 for line in lines if "  " not in line), report.text


@pytest.mark.parametrize("content", ["EXERCISE = 'gelu'".encode("utf-16"), "# 层".encode("gbk"), b"x = '\0'"])
def test_a_file_that_is_not_utf_8(content, tmp_path):
    (tmp_path / "gelu.py").write_bytes(content)
    report = judge_file(tmp_path / "gelu.py")
    text = " ".join(report.text.split())
    assert not report.ok and ("not a text file in UTF-8" in text or "not Python" in text), text


@pytest.mark.parametrize(("y", "words"), [
    ("2 * y", "it is 2 times what it should be, everywhere"),
    ("0 * y", "it is 0 everywhere"),
    ("y / 0", "a division by 0, the log of 0, or an overflow"),
    ("y * np.nan", "a division by 0, the log of 0, an overflow, or None instead of a number"),
    ("y.astype(np.float32)", "it is nearly right, off by"),
    ("y.astype(int)", "it is int64, which cuts off the digits after the decimal point"),
    ("y[:1] + 0 * y", "item 0 of axis 0 is right, and all others are wrong"),
    ("y + (y > 1)", "numbers are wrong: ["),
])
def test_what_wrong_numbers_look_like(y, words, check):
    forward = f"def gelu_forward(x):\n    y = x * (1 + erf(x / math.sqrt(2))) / 2\n    return {y}, None\n"
    report = check("gelu", append=f"{answer('gelu')}\n\n{forward}")
    assert f"y: {words}" in report.text or words in report.text, report.text


def test_axes_in_a_different_order(check):
    right = "table[:, 1::2] = np.cos(angles[:, : width // 2])            # (2)\n    return table"
    report = check("positional_encoding", append=replaced(answer("positional_encoding"), right, f"{right}[::-1]"))
    assert "80 numbers are wrong: [" in report.text, report.text
    square = replaced(answer("split_heads"), ".swapaxes(1, 2)                   #", ".swapaxes(1, 2).swapaxes(1, 2)  #")
    assert "it has shape (4, 5, 2, 7), expected (4, 2, 5, 7)" in check("split_heads", append=square).text


def test_a_file_may_have_another_name(tmp_path):
    path = write_exercise("gelu", tmp_path).rename(tmp_path / "mine.py")
    path.write_text(path.read_text(encoding="utf-8") + "\n\n" + answer("gelu"), encoding="utf-8")
    assert judge_file(path).ok


@pytest.mark.parametrize("error", [
    KeyError("ours"), TypeError("ours"), TypeError("ours() takes 1 positional argument but 2 were given"),
    KeyboardInterrupt("ours"),
])
def test_an_error_of_our_own_is_not_blamed_on_the_learner(error, tmp_path, monkeypatch):
    def broken(names):
        raise error
        yield

    monkeypatch.setitem(EXERCISES, "gelu", replace(EXERCISES["gelu"], check=broken))
    with pytest.raises(type(error), match="ours"):
        judge_file(write_exercise("gelu", tmp_path))


# ---- in a process of its own -------------------------------------------------------------------------------------------

@pytest.fixture
def solution(tmp_path):
    """The path of gelu's exercise with its right answer, in which FIRST or SLOPE is replaced."""
    def write(old=FIRST, new=FIRST):
        path = write_exercise("gelu", tmp_path)
        with open(path, "a", encoding="utf-8") as file:
            file.write("\n\n" + replaced(answer("gelu"), old, new + "\n" * (old == SLOPE)))
        return path

    return write


def line_of(path, words):
    (number,) = [i for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if line.strip() == words]
    return f"line {number}, in "


def test_a_right_solution_with_loose_ends(solution, capfd):
    """It prints, leaves a thread behind that does not end, and closes its output; what it does as a script is not done."""
    path = solution(FIRST, f"""import sys
import threading

threading.Thread(target=threading.Event().wait).start()
print("hello from the file")
sys.stdout.close()
if __name__ == "__main__":
    raise ValueError("a script")


{FIRST}""")
    assert main(["check", str(path)]) == 0
    printed, errors = capfd.readouterr()
    assert "hello from the file" in printed and printed.endswith("All of it is right.\n") and not errors


LOOPS = [
    (FIRST, f"while True:\n    pass\n\n\n{FIRST}", "pass", "<module>"),
    (SLOPE, "while True: x = x + 1", "while True: x = x + 1", "gelu_backward"),
    (SLOPE, "sum(iter(int, 1))", "sum(iter(int, 1))", "gelu_backward"),         # inside of C: no signal gets through
    (SLOPE, "__import__('threading').Event().wait()", "__import__('threading').Event().wait()", "gelu_backward"),
    (SLOPE, "print('so far')\n    while True: pass", "while True: pass", "gelu_backward"),
]


def test_a_loop_without_end(solution, tmp_path, capfd):
    """All at once, since each takes its second; what one has printed before it loops is not lost."""
    paths = [solution(old, new).rename(tmp_path / f"{i}.py") for i, (old, new, *_) in enumerate(LOOPS)]
    with ThreadPoolExecutor(len(paths)) as pool:
        reports = list(pool.map(partial(check_file, seconds=1), paths))
    for path, report, (*_, line, name) in zip(paths, reports, LOOPS, strict=True):
        assert not report.ok
        assert report.text.endswith("\nstill running after 1 s: does the loop end?")
        if name == "<module>":                                  # `while` or `pass`
            assert ", in <module>:\n    " in report.text
        else:
            assert report.text.startswith(f"{line_of(path, line)}{name}:\n    {line}\n")
    assert capfd.readouterr().out == "so far\n"


@pytest.mark.parametrize(("old", "status"), [(FIRST, 0), (SLOPE, 0), (SLOPE, 3)])
def test_a_process_that_ends_is_not_right(old, status, solution, capfd):
    new = f"print('All of it is right.', flush=True); __import__('os')._exit({status})"
    path = solution(old, f"{new}\n\n\n{FIRST}" if old == FIRST else new)
    assert main(["check", str(path)]) == 1
    *printed, said = capfd.readouterr().out.splitlines()
    assert printed == ["All of it is right."]
    assert said.startswith(f"{path}: it ended Python with status {status} before all checks were done, by os._exit() or")


def test_exit_is_not_right(solution, capfd):
    path = solution(SLOPE, "raise SystemExit(0)")
    assert main(["check", str(path)]) == 1
    printed, errors = capfd.readouterr()
    assert f"{line_of(path, 'raise SystemExit(0)')}gelu_backward:" in printed and not errors


def test_a_crash_says_where(solution):
    path = solution(SLOPE, "__import__('os').abort()")
    report = check_file(path)
    line = line_of(path, "__import__('os').abort()")
    assert not report.ok and report.text.startswith(f"{line}gelu_backward:\n    __import__('os').abort()\nPython ")
    assert "signal 6" in report.text or os.name == "nt"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")
@pytest.mark.parametrize(("name", "words"), [
    ("SIGKILL", "Python was ended by signal 9 (Killed"), ("SIGINT", "it was interrupted (SIGINT) before all checks were done"),
])
def test_a_signal_from_outside(name, words, solution):
    report = check_file(solution(SLOPE, f"import os, signal; os.kill(os.getpid(), signal.{name})"))
    assert not report.ok and words in report.text


def test_a_process_that_does_not_end_itself_is_ended(solution, monkeypatch):
    monkeypatch.setattr(process, "START", 1.0)
    monkeypatch.setattr(process, "STAGES", 1)
    path = solution(SLOPE, "__import__('faulthandler').cancel_dump_traceback_later()\n    while True: pass")
    assert check_file(path, seconds=0.5).text == f"{path}: still running after 0.5 s: does the loop end?"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups to interrupt")
def test_ctrl_c_ends_both(solution):
    path = solution(SLOPE, "print('looping')\n    while True: pass")
    check = subprocess.Popen(
        [sys.executable, "-m", "tinymae", "check", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )
    assert check.stdout.readline() == "looping\n"
    os.killpg(check.pid, signal.SIGINT)
    printed, errors = check.communicate(timeout=60)             # until all that hold the pipe have ended, the second one too
    assert (check.returncode, printed, errors) == (130, "", "tinymae: interrupted\n")


def test_a_check_that_fails_itself_blames_nobody(solution):
    path = solution(FIRST, f"from tinymae.learn.checks import feed_forward\n\nfeed_forward.check_pair = None\n\n\n{FIRST}")
    with pytest.raises(RuntimeError, match=r"the check itself failed, not your file:\n(.*\n)*TypeError"):
        check_file(path)


def test_a_process_that_does_not_begin(solution, monkeypatch, capfd):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(RuntimeError, match="ended with status 1 before it began: its message is above"):
        check_file(solution())
    assert "ModuleNotFoundError" in capfd.readouterr().err


def test_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["exercise"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in [*EXERCISES, *ZOO])
    assert main(["exercise", "layernorm"]) == 0 and (tmp_path / "layernorm.py").is_file()
    assert main(["exercise", "layernorm"]) == 1
    assert "is not overwritten" in capsys.readouterr().err
    assert main(["check", "layernorm.py"]) == 1
    assert "layernorm_backward is not written yet" in capsys.readouterr().out
    with open("layernorm.py", "a", encoding="utf-8") as file:
        file.write("\n\n" + answer("layernorm"))
    assert main(["check", "layernorm.py"]) == 0
    assert "All of it is right." in capsys.readouterr().out
    assert main(["check", "nowhere.py"]) == 1
    assert "there is no file nowhere.py" in capsys.readouterr().err


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("name", ["layernorm", "no_residual_backward"])
def test_what_exercise_and_hint_say_fits_the_terminal(name, language, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("LANGUAGE", language)
    assert main(["exercise", name]) == 0 and (name in ZOO or main(["hint", f"{name}.py"]) == 0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2 and max(map(columns, lines)) <= 50


# ---- attention and the forwards: one row for each kind of mistake ------------------------------------------------------

RESHAPED = "(lambda z: z.reshape(len(z), z.shape[2], -1))("
CUT = "y.reshape(*y.shape[:2], heads, -1).swapaxes(1, 2)"
KINDS = [
    # the backward of attention: the softmax, the dropout, the factor, a transpose
    ("attention", "softmax_backward(dweights, (weights,))", "(dweights * weights * (1 - weights))",
     "q, k: it is the result if the softmax backward is w * (1 - w) * dweights"),
    ("attention", "softmax_backward(dweights, (weights,))", "softmax_backward(dweights, (dropped,))",
     "q, k: it is the result if the softmax backward gets the weights after dropout"),
    ("attention", "= dscores @ k", "= dscores @ k / math.sqrt(q.shape[-1])", "or counts twice: dq;"),
    ("attention", "math.sqrt(q.shape[-1])", "math.sqrt(v.shape[-1])",
     "the factor of (1) has d_v, the dimension of the values: dq, dk"),
    ("attention", "dscores.swapaxes(-1, -2) @ q", "dscores.reshape(*dscores.shape[:2], k.shape[2], -1) @ q",
     "k: it is the result if dscores is reshaped in place of a transpose"),
    ("attention", "dscores.swapaxes(-1, -2) @ q", "dscores.swapaxes(-1, -2) @ dq", "was q overwritten?"),
    # the backward of heads: reshapes, caches, sums
    ("multi_head_attention", "merge_heads(dk)", f"{RESHAPED}dk)",
     "x, p.k.w: it is the result if dk is put together by a reshape"),
    ("multi_head_attention", "split_heads(dz,", "split_heads(dy,", "dz is dy itself: first dy goes back through W_out"),
    ("multi_head_attention", 'merge_heads(dq), cache["q"]', 'merge_heads(dq), cache["v"]', "through the caches of v, k and v"),
    ("multi_head_attention", "dxq + dxk + dxv", "dxq + dxk + dxk", "dx is dxq + dxk + dxk"),
    ("cross_attention", "merge_heads(", RESHAPED, "dq, dk and dv are put together by a reshape alone"),
    ("cross_attention", 'split_heads(dz, cache["heads"])', 'dz.reshape(len(dz), cache["heads"], dz.shape[1], -1)',
     "x, memory, p.q.w, p.k.w and 1 more: it is the result if dz is split into heads by a reshape alone"),
    ("cross_attention", 'merge_heads(dv), cache["v"]', 'merge_heads(dv), cache["k"]', "through the caches of q, k and k"),
    ("cross_attention", "dq, dk, dv = ", "dq, dv, dk = ", "memory, p.k.w, p.v.w: it is the result if the core's gradients are"),
    ("cross_attention", "dmemory_k + dmemory_v", "(dmemory_k + dmemory_v) / 2", "the two gradients of memory are averaged"),
    ("cross_attention", "return dx, dmemory,", "return dx + dmemory, dmemory,", "dx is the sum of all three gradients"),
    # shapes that show their cause
    ("split_heads", "width // heads).swapaxes(1, 2)", "width // heads)", "it is right after transpose(0, 2, 1, 3)"),
    ("masks", "(ids != pad)[:, None, None, :]", "ids != pad",
     "the numbers are right and in the right order, only the axes are not"),
    ("attention_forward", "weights @ v", "weights @ k",
     "expected (4, 2, 5, 8): it is the result if the weights are multiplied with k"),
    ("attention_forward", "return weights @ v", "return weights, weights @ v",
     "the right y is returned, but not in the first place"),
    # forwards
    ("split_heads", "x.swapaxes(1, 2).reshape", "x.transpose(0, 2, 3, 1).reshape", "the columns of the heads take turns"),
    ("softmax_forward", "e / e.sum(", "e / np.exp(scores).sum(", "subtracted in the numerator only"),
    ("softmax_forward", "e / e.sum(axis=-1, keepdims=True)", "e / (e.sum(axis=-1, keepdims=True) + 1e-7)",
     "1e-07 is added to the sum"),
    ("attention_forward", "weights @ v", "softmax_forward(weights, mask)[0] @ v", "the softmax is applied twice"),
    ("multi_head_attention_forward", '(x @ p[name]["w"])', '(x @ p["v"]["w"])', "made with W_v, W_v and W_v"),
    ("multi_head_attention_forward", '(x @ p[name]["w"])', '(x @ (p[name]["w"] if name == "q" else p[name]["w"].T))',
     "these matrices are transposed: W_k, W_v;"),
    ("multi_head_attention_forward", CUT, "y.reshape(*y.shape[:2], -1, heads).transpose(0, 3, 1, 2)",
     "assigned to the heads in turn"),
    ("layernorm_forward", "return gamma *", "return (1 + gamma) *", "gamma is added to 1"),
    ("layernorm_forward", "variance + eps", "variance + 1e-8", "eps is 1e-08 in place of the argument"),
    ("layernorm_forward", "(centred * centred).mean(", "(centred * centred).sum(", "the variance is a sum"),
    ("encoder_layer_forward", '**p["ln1"]', 'p["ln1"]["beta"], p["ln1"]["gamma"]', "gamma and beta are swapped in ln1:"),
    ("encoder_layer_forward", "(x + f, ", "(2 * x + f, ", "x1 is added twice in the second sum"),
    # what is generated: pairs of axes, of cuts, of frames, of factors
    ("softmax_forward", "scores.max(axis=-1", "scores.max(axis=1",
     "the maximum is taken along axis 1 and the sum along axis -1"),
    ("layernorm_forward", "(centred * centred).mean(axis=-1", "(centred * centred).mean(axis=0",
     "the variance is the mean along axis 0 of the squares of x minus its mean along axis -1"),
    ("multi_head_attention_forward", CUT, "y.swapaxes(1, 2).reshape(len(y), heads, y.shape[1], -1)",
     "the heads are split as x.swapaxes(1, 2).reshape(B, H, T, d) and merged as z.swapaxes(1, 2).reshape(B, T, D)"),
    ("encoder_layer_forward", 'layernorm_forward(x + f, **p["ln2"])[0]', 'layernorm_forward(x, **p["ln2"])[0] + f',
     "the first sublayer is norm(x + f(x)) and the second norm(x) + f(x)"),
    ("attention", "softmax_backward(dweights, (weights,))",
     "weights * (dweights - (weights * ddropped).sum(axis=-1, keepdims=True))",
     "weights * (dweights - sum(weights * ddropped))"),
    ("linear_forward", "return x @ w + b", "y = x @ w + b\n    y[..., -1] = 0\n    return y", "wrong only at 9 of axis 2"),
]


@pytest.mark.parametrize(("name", "old", "new", "words"), KINDS)
def test_a_kind_of_mistake_is_named(name, old, new, words, check):
    report = check(name, append=replaced(answer(name), old, new))
    assert not report.ok and words in report.text, report.text


def test_a_slip_that_would_spoil_what_is_right_is_not_the_cause(check):
    """dv's matrix stands under the key of dk, and all else is right: so dk and dv were not swapped when they were unpacked."""
    name = "cross_attention"
    report = check(name, append=replaced(answer(name), '"k": {"w": dwk}', '"k": {"w": dwv}'))
    assert "p.k.w: this is the gradient of p.v.w" in report.text and "unpacked" not in report.text, report.text


def test_a_factor_in_all_gradients_is_not_taken_for_an_average_of_one(check):
    report = check("cross_attention", append=replaced(answer("cross_attention"), "split_heads(dz,", "split_heads(dz / 2,"))
    assert "2 times too small everywhere" in report.text and "averaged" not in report.text, report.text


def test_gradients_of_a_wrong_forward_are_not_the_first_thing_to_mend(check):
    report = check("masked_mse", append=replaced(answer("masked_mse"), "mean(axis=-1)).sum()", "mean(axis=-1)).sum() / 2"))
    assert "make y right first" in report.text and "2 times too large" in report.text, report.text
    report = check("masked_mse", append=replaced(answer("masked_mse"), " * 2 * error", " * error"))
    assert not report.ok and "make y right first" not in report.text, report.text


def test_one_random_number_for_all_is_named(check):
    report = check("dropout", append=replaced(answer("dropout"), "rng.random(x.shape)", "rng.random()"))
    assert "one random number is drawn for the whole array" in report.text, report.text
    assert "two calls with one rng drop the same numbers" not in report.text


# Mistakes that no variant knows: the last line whose array is right is named.
UNHEARD_OF = [
    ("softmax_forward", "e.sum(axis=-1, ", "e.sum(axis=(0, -1), ", "which computes exp of these; wrong is the sum of"),
    ("attention_forward", "return weights @ v", "return np.sin(weights) @ v",
     "which computes the weights of (2); wrong is the output"),
    ("multi_head_attention_forward", "(q, k, v, mask)", "(q + 1, k, v, mask)",
     "which computes q, k and v in heads, (B, H, T, d); wrong is z of (2)"),
    ("multi_head_attention_forward", '(x @ p[name]["w"])', '(x @ p[name]["w"] + (name == "q"))',
     "no line computes the first step, x W_q, x W_k and x W_v: either it is wrong already, or it has no name"),
    ("layernorm_forward", "gamma * centred / ", "gamma * np.sin(centred) / ",
     "which computes the variance; wrong is the square root"),
    ("encoder_layer_forward", "layernorm_forward(x + f", "layernorm_forward(a + f",
     "which computes the result of the feed forward; wrong is x1 + feed forward"),
    ("layernorm_forward", "(centred * centred).mean", "(centred ** 4).mean",
     "which computes x minus its mean; wrong is the variance"),
    ("attention", "dq = dscores @ k", "dq = dscores[..., ::-1] @ k", "which computes dscores of (8); wrong is the gradient"),
    ("multi_head_attention", "dxq + dxk + dxv", "dxq + dxk + dxv + dz",
     "which computes dxq, dxk and dxv; wrong is the gradient"),
    ("cross_attention", 'split_heads(dz, cache["heads"])', 'split_heads(dz[..., ::-1], cache["heads"])',
     "which computes dz; wrong is dz in heads"),
]


@pytest.mark.parametrize(("name", "old", "new", "words"), UNHEARD_OF)
def test_the_last_right_line_is_named(name, old, new, words, check):
    report = check(name, append=replaced(answer(name), old, new))
    assert not report.ok and words in report.text, report.text


def test_a_causal_mask_that_is_wrong_in_no_known_way_shows_a_pair(check):
    report = check("masks", append=replaced(answer("masks"), "np.tri(length, dtype=bool)", "np.tri(length, dtype=bool)[::-1]"))
    assert "query 0 may attend to key 1: token t attends to 0..t" in report.text, report.text
