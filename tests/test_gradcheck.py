"""The checker: right pairs pass, and every planted bug is found and named."""
import json
import math
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest

from tinymae.gradcheck import format_rows, gradcheck
from tinymae.gradcheck.evidence import Case, exchange, same, wrong_elements, zero_sums

B, T, TK, D, H = 2, 3, 5, 4, 2


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def ok(rows):
    assert all(row.ok for row in rows), "\n" + format_rows("expected ok", rows)
    return True


def wrong(rows, *tensors):
    """{tensor: diagnosis} of the rows that fail; they are exactly the named ones."""
    found = {row.tensor: row.diagnosis for row in rows if not row.ok}
    assert set(found) == set(tensors), "\n" + format_rows("expected others", rows)
    return found


# ---- right pairs -----------------------------------------------------------------------------------------------------

def linear_forward(x, w, b=None):
    y = x @ w
    return (y if b is None else y + b), (x, w, b)


def linear_backward(dy, cache):
    x, w, b = cache
    rows = tuple(range(dy.ndim - 1))
    return dy @ w.T, np.tensordot(x, dy, (rows, rows)), None if b is None else dy.sum(axis=rows)


def softmax_forward(x):
    y = np.exp(x - x.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)
    return y, y


def softmax_backward(dy, y):
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def layernorm_forward(x, gamma, beta, eps=1e-5):
    xhat = x - x.mean(axis=-1, keepdims=True)
    rstd = 1.0 / np.sqrt((xhat * xhat).mean(axis=-1, keepdims=True) + eps)
    xhat *= rstd
    return xhat * gamma + beta, (xhat, rstd, gamma)


def layernorm_backward(dy, cache):
    xhat, rstd, gamma = cache
    rows = tuple(range(dy.ndim - 1))
    dxhat = dy * gamma
    dx = dxhat - dxhat.mean(axis=-1, keepdims=True) - xhat * (dxhat * xhat).mean(axis=-1, keepdims=True)
    return dx * rstd, (dy * xhat).sum(axis=rows), dy.sum(axis=rows)


def dropout_forward(x, rate, rng=None):
    if rng is None:
        return x, None
    keep = (rng.random(x.shape) >= rate) / (1.0 - rate)
    return x * keep, keep


def dropout_backward(dy, keep):
    return dy if keep is None else dy * keep


def attention_forward(q, k, v, mask=None, rate=0.0, rng=None):
    """q (B, H, Tq, d), k and v (B, H, Tk, d)."""
    scale = q.shape[-1] ** -0.5
    scores = q @ k.mT * scale
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    weights, _ = softmax_forward(scores)
    dropped, keep = dropout_forward(weights, rate, rng)
    return dropped @ v, (q, k, v, weights, dropped, (keep, scale))


def attention_backward(dy, cache):
    q, k, v, weights, dropped, (keep, scale) = cache
    dv = dropped.mT @ dy
    dscores = softmax_backward(dropout_backward(dy @ v.mT, keep), weights) * scale
    return dscores @ k, dscores.mT @ q, dv


def residual_forward(x, p):
    """y = x + relu(x w1 + b1) w2: a block with a tree."""
    pre, one = linear_forward(x, **p["in"])
    y, two = linear_forward(np.maximum(pre, 0.0), **p["out"][0])
    return x + y, {"one": one, "pre": pre, "two": [two]}


def residual_backward(dy, cache):
    dh, dw2, db2 = linear_backward(dy, cache["two"].pop())          # this cache is consumed
    dx, dw1, db1 = linear_backward(dh * (cache["pre"] > 0), cache["one"])
    return dx + dy, {"in": {"w": dw1, "b": db1}, "out": [{"w": dw2, "b": db2}]}


def mse_forward(x, target):
    error = x - target
    return (error * error).mean(), error


def mse_backward(dloss, error):
    return dloss * 2.0 / error.size * error


def block_tree(rng, width=D, hidden=6):
    return {"in": {"w": rng.standard_normal((width, hidden)), "b": rng.standard_normal(hidden)},
            "out": [{"w": rng.standard_normal((hidden, width)), "b": rng.standard_normal(width)}]}


@pytest.fixture
def qkv(rng):
    return rng.standard_normal((B, H, T, D)), rng.standard_normal((B, H, TK, D)), rng.standard_normal((B, H, TK, D))


@pytest.fixture
def x(rng):
    return rng.standard_normal((B, T, D))


@pytest.fixture
def norm(rng):
    return rng.standard_normal((B, T, 6)), rng.uniform(0.5, 2.0, 6), rng.standard_normal(6)


def test_linear(x, rng):
    w, b = rng.standard_normal((D, 5)), rng.standard_normal(5)
    rows = gradcheck(linear_forward, linear_backward, x, w, b)
    assert ok(rows) and [row.tensor for row in rows] == ["x", "w", "b"]
    assert max(row.error for row in rows) < 1e-8
    assert [len(row.worst) for row in rows] == [3, 2, 1] and all(row.diagnosis == "" for row in rows)
    assert ok(gradcheck(linear_forward, linear_backward, x, w, None))       # backward returns (dx, dw, None)
    assert ok(gradcheck(linear_forward, linear_backward, x, w))


def test_softmax_and_layernorm(x, norm):
    assert ok(gradcheck(softmax_forward, softmax_backward, x))
    assert ok(gradcheck(layernorm_forward, layernorm_backward, *norm))
    assert ok(gradcheck(layernorm_forward, layernorm_backward, *norm, eps=0.1))


def test_dropout_draws_the_same_mask_every_time(x):
    assert ok(gradcheck(dropout_forward, dropout_backward, x, 0.5, rng=3))
    assert ok(gradcheck(dropout_forward, dropout_backward, x, 0.5))
    assert ok(gradcheck(dropout_forward, dropout_backward, x, 0.5, 3))      # rng by position


def test_attention_with_mask_and_dropout(qkv):
    mask = np.arange(TK) < np.array([5, 3])[:, None, None, None]
    with np.errstate(invalid="raise", divide="raise", over="raise"):
        assert ok(gradcheck(attention_forward, attention_backward, *qkv, mask, rate=0.3, rng=1))
        assert ok(gradcheck(attention_forward, attention_backward, *qkv, mask=mask))


def test_tree_with_a_consumed_cache_and_a_relu(x, rng):
    rows = gradcheck(residual_forward, residual_backward, x, block_tree(rng))
    assert ok(rows) and [row.tensor for row in rows] == ["x", "p.in.w", "p.in.b", "p.out.0.w", "p.out.0.b"]


def test_loss_is_a_number(x, rng):
    target = rng.standard_normal(x.shape)
    assert ok(gradcheck(mse_forward, mse_backward, x, target=target))
    assert ok(gradcheck(lambda x: (float((x * x).sum()), x), lambda dy, x: 2 * dy * x, x))
    assert "ignores dy" in wrong(gradcheck(mse_forward, lambda dy, e: mse_backward(1.0, e), x, target=target), "x")["x"]


def test_tuple_of_outputs_and_an_integer_one(x):
    def forward(x):
        return (x * x, x.sum(), x.argmax(axis=-1)), x

    def backward(dy, x):
        dsquare, dsum, dargmax = dy
        assert dargmax is None
        return 2 * x * dsquare + dsum

    assert ok(gradcheck(forward, backward, x))
    wrong(gradcheck(forward, lambda dy, x: 2 * x * dy[0], x), "x")


def test_constant_arguments_need_no_gradient(rng):
    table, ids = rng.standard_normal((7, D)), np.array([[1, 2, 1], [0, 5, 5]])

    def forward(table, ids, kind, function, flag):
        return function(table[ids]), (ids, table.shape, table[ids])

    def backward(dy, cache):
        ids, shape, rows = cache
        dtable = np.zeros(shape)
        np.add.at(dtable, ids, dy * np.cos(rows))
        return dtable

    assert ok(gradcheck(forward, backward, table, ids, "rows", np.sin, True))
    assert ok(gradcheck(forward, lambda dy, c: (backward(dy, c), None, None, None, None), table, ids, "rows", np.sin, True))


def test_strided_arguments_stay_strided_and_ours_stay_ours(rng):
    wide, turned = rng.standard_normal((B, T, 2 * D))[..., ::2], rng.standard_normal((5, D)).T
    before = wide.copy(), turned.copy()
    seen = []

    def forward(x, w):
        seen.append(x.flags.c_contiguous or w.flags.c_contiguous or x.flags.writeable)
        return linear_forward(x, w)

    assert ok(gradcheck(forward, linear_backward, wide, turned)) and not any(seen)
    assert np.array_equal(wide, before[0]) and np.array_equal(turned, before[1])
    assert wide.flags.writeable and turned.flags.writeable


def test_small_shapes():
    assert ok(gradcheck(lambda s: (s * s, s), lambda dy, s: 2 * s * dy, np.array(1.5)))
    assert ok(gradcheck(linear_forward, linear_backward, np.ones((2, 3)), np.ones((3, 2)), np.ones(2)))
    assert ok(gradcheck(lambda x, none: (x * 2, None), lambda dy, _: (2 * dy, np.zeros((0, 3))),
                        np.ones(2), np.ones((0, 3))))


def test_gradients_of_zero(qkv, x):
    """The scores do not notice what is added to every key: its gradient is 0 but for rounding."""
    q, k, v = qkv

    def forward(q, k, v, bias):
        y, cache = attention_forward(q, k + bias, v)
        return y, cache

    def backward(dy, cache):
        dq, dk, dv = attention_backward(dy, cache)
        return dq, dk, dv, dk.sum(axis=(0, 1, 2))

    assert ok(gradcheck(forward, backward, q, k, v, np.full(D, 0.3)))
    assert ok(gradcheck(lambda x: (softmax_forward(x)[0].sum(axis=-1), x), lambda dy, x: np.zeros_like(x), x))
    assert ok(gradcheck(lambda x: (0.0 * x, x), lambda dy, x: 0.0 * dy, x))
    bad = gradcheck(forward, lambda dy, c: (*backward(dy, c)[:3], np.full(D, 1e-3)), q, k, v, np.full(D, 0.3))
    assert "true gradient is 0" in wrong(bad, "bias")["bias"]


def test_kinks_next_to_the_point_are_settled():
    x = np.array([-1.0, 4e-6, -3e-5, 7e-8 + 1e-6, 2.0])
    relu = (lambda x: (np.maximum(x, 0.0), x)), (lambda dy, x: dy * (x > 0))
    assert ok(gradcheck(*relu, x))
    at_kink = gradcheck(*relu, np.array([1.0, 0.0, -1.0]))
    assert "kink" in wrong(at_kink, "x")["x"] and at_kink[0].worst == (1,)
    wrong(gradcheck(relu[0], lambda dy, x: dy * (x < 0), x), "x")


def test_large_arguments_and_steep_curves():
    x = np.array([1e10, -3e10, 2e11])
    assert ok(gradcheck(lambda x: (x * x / 1e10, x), lambda dy, x: dy * 2 * x / 1e10, x))
    tiny = np.random.default_rng(0).standard_normal((3, 6)) * 0.02
    assert ok(gradcheck(layernorm_forward, layernorm_backward, tiny, np.ones(6), np.zeros(6)))


def test_an_epsilon_forgotten_by_backward_is_found(norm):
    def forward(x, gamma, beta):
        y, (_, rstd, gamma) = layernorm_forward(x, gamma, beta)
        variance = x.var(axis=-1, keepdims=True)
        return y, ((x - x.mean(axis=-1, keepdims=True)) / np.sqrt(variance), rstd, gamma)

    assert not all(row.ok for row in gradcheck(forward, layernorm_backward, *norm))


# ---- the bug zoo: found and named ------------------------------------------------------------------------------------

def test_softmax_divided_by_the_batch(rng):
    scores = rng.standard_normal((4, 3, 5))
    rows = gradcheck(softmax_forward, lambda dy, y: softmax_backward(dy, y) / len(y), scores)
    assert "4 times too small everywhere: 4 is the batch size" in wrong(rows, "x")["x"]
    assert rows[0].error == pytest.approx(0.75, rel=1e-4)
    assert rows[0].analytic == pytest.approx(rows[0].numeric / 4, rel=1e-4)


def test_softmax_that_a_dy_of_ones_cannot_see(x):
    bug = lambda dy, y: 1000 * softmax_backward(dy, y)                  # noqa: E731
    y, _ = softmax_forward(x)
    assert np.abs(bug(np.ones_like(y), y)).max() < 1e-12                # ones: nothing to see
    assert "1000 times too large everywhere" in wrong(gradcheck(softmax_forward, bug, x), "x")["x"]


def test_softmax_diagonal_only(x, qkv):
    diagonal = lambda dy, y: y * (1 - y) * dy                           # noqa: E731
    assert "diagonal of the softmax" in wrong(gradcheck(softmax_forward, diagonal, x), "x")["x"]

    def forward(scores, v):
        weights, _ = softmax_forward(scores)
        return weights @ v, (weights, v)

    def backward(dy, cache):                                            # hidden inside: the sums still tell
        weights, v = cache
        return diagonal(dy @ v.mT, weights), weights.mT @ dy

    scores = np.random.default_rng(1).standard_normal((B, H, T, TK))
    assert "along axis 3 of the true gradient is 0" in wrong(gradcheck(forward, backward, scores, qkv[2]), "scores")["scores"]


def test_sum_along_the_wrong_axis(x):
    def forward(x):                                                     # centred over axis 1
        return np.tanh(x - x.mean(axis=1, keepdims=True)), x

    def backward(dy, x):
        y, _ = forward(x)
        dcentred = dy * (1 - y * y)
        return dcentred - dcentred.mean(axis=2, keepdims=True)

    text = wrong(gradcheck(forward, backward, x), "x")["x"]
    assert "axis 1" in text and "axis 2" in text and "wrong axis" in text


def test_mean_broadcast_back_over_the_wrong_axis(x):
    def forward(x):
        return x.mean(axis=1), x.shape

    def backward(dy, shape):                                            # right shape, wrong axis: T and D exchanged
        return np.broadcast_to(dy[:, :T, None], shape) / shape[1]

    assert "constant along axis" in wrong(gradcheck(forward, backward, x), "x")["x"]


def test_layernorm_gamma_taken_out_of_the_means(norm):
    def backward(dy, cache):
        xhat, rstd, gamma = cache
        dx = gamma * rstd * (dy - dy.mean(axis=-1, keepdims=True) - xhat * (dy * xhat).mean(axis=-1, keepdims=True))
        return (dx, *layernorm_backward(dy, cache)[1:])

    x, gamma, beta = norm
    text = wrong(gradcheck(layernorm_forward, backward, x, gamma, beta), "x")["x"]
    assert "right only while gamma = 1" in text and "before the means" in text
    assert ok(gradcheck(layernorm_forward, backward, x, np.ones_like(gamma), beta))


def test_layernorm_gamma_inside_a_tree(norm):
    x, gamma, beta = norm
    p = {"a": {"gamma": gamma, "beta": beta}, "b": {"gamma": gamma[::-1].copy(), "beta": beta}}

    def forward(x, p):
        h, one = layernorm_forward(x, **p["a"])
        y, two = layernorm_forward(h, **p["b"])
        return y, (one, two)

    def buggy(dy, cache):
        xhat, rstd, gamma = cache
        dx = gamma * rstd * (dy - dy.mean(axis=-1, keepdims=True) - xhat * (dy * xhat).mean(axis=-1, keepdims=True))
        return (dx, *layernorm_backward(dy, cache)[1:])

    def backward(dy, cache):
        dh, dgamma2, dbeta2 = buggy(dy, cache[1])
        dx, dgamma1, dbeta1 = buggy(dh, cache[0])
        return dx, {"a": {"gamma": dgamma1, "beta": dbeta1}, "b": {"gamma": dgamma2, "beta": dbeta2}}

    found = wrong(gradcheck(forward, backward, x, p), "x", "p.a.gamma", "p.a.beta")
    assert "p.b.gamma = 1" in found["p.a.beta"] and "p.a.gamma = 1, p.b.gamma = 1" in found["x"]


def test_dgamma_with_y_in_the_place_of_xhat(norm):
    def forward(x, gamma, beta):
        y, cache = layernorm_forward(x, gamma, beta)
        return y, (*cache, y)

    def backward(dy, cache):
        dx, _, dbeta = layernorm_backward(dy, cache[:3])
        return dx, (dy * cache[3]).sum(axis=(0, 1)), dbeta

    assert "right only while gamma = 1, beta = 0" in wrong(gradcheck(forward, backward, *norm), "gamma")["gamma"]


def test_no_residual_path(x, rng):
    def backward(dy, cache):
        dx, dp = residual_backward(dy, cache)
        return dx - dy, dp

    p = block_tree(rng)
    assert "residual path is missing" in wrong(gradcheck(residual_forward, backward, x, p), "x")["x"]
    only = lambda dy, cache: (dy, residual_backward(dy, cache)[1])       # noqa: E731
    assert "only the residual path" in wrong(gradcheck(residual_forward, only, x, p), "x")["x"]

    def twice(dy, cache):
        dx, dp = residual_backward(dy, cache)
        return dx + dy, dp

    assert "once too often" in wrong(gradcheck(residual_forward, twice, x, p), "x")["x"]


def test_one_of_two_uses_forgotten(x):
    def forward(x, c):
        both = x + c                        # c reaches y by sin and by cos, x is used in both as well
        return (np.sin(x) * c, np.cos(both)), (x, c, both)

    def backward(dy, cache):
        x, c, both = cache
        dboth = -dy[1] * np.sin(both)
        return dy[0] * np.cos(x) * c + dboth, dboth

    def other(dy, cache):
        x, c, both = cache
        return dy[0] * np.cos(x) * c, -dy[1] * np.sin(both) + dy[0] * np.sin(x)

    c = x[::-1] * 0.7
    assert "c" in wrong(gradcheck(forward, backward, x, c), "c")
    assert "x" in wrong(gradcheck(forward, other, x, c), "x")

    def tied_forward(h, shift):             # h + shift goes two ways; dh has one of them only
        z = h + shift
        return (np.sin(z), h * h), (h, z)

    def tied_backward(dy, cache):
        h, z = cache
        return 2 * h * dy[1], dy[0] * np.cos(z)

    text = wrong(gradcheck(tied_forward, tied_backward, x, c), "h")["h"]
    assert "numeric - analytic is the gradient of shift" in text


def two_blocks_forward(x, p):
    h, one = linear_forward(x, **p["a"])
    x = x + np.sin(h)
    k, two = linear_forward(x, **p["b"])
    return x + np.sin(k), (one, h, two, k)


def two_blocks_backward(dy, cache, around_b=1.0, around_a=1.0, k=None):
    one, h, two, here = cache
    dx, dw2, db2 = linear_backward(dy * np.cos(here if k is None else k), two)
    dx = dx + around_b * dy
    dx0, dw1, db1 = linear_backward(dx * np.cos(h), one)
    return dx0 + around_a * dx, {"a": {"w": dw1, "b": db1}, "b": {"w": dw2, "b": db2}}


def square_tree(rng):
    return {name: {"w": rng.standard_normal((D, D)), "b": rng.standard_normal(D)} for name in "ab"}


def test_no_way_around_a_block(x, rng):
    p = square_tree(rng)
    assert ok(gradcheck(two_blocks_forward, two_blocks_backward, x, p))
    rows = gradcheck(two_blocks_forward, lambda dy, c: two_blocks_backward(dy, c, around_b=0.0), x, p)
    found = wrong(rows, "x", "p.a.w", "p.a.b")
    assert all(text.startswith("all zeros once p.b is 0") and "a residual path" in text for text in found.values())
    rows = gradcheck(two_blocks_forward, lambda dy, c: two_blocks_backward(dy, c, around_a=0.0), x, p)
    assert "all zeros once p.a is 0" in wrong(rows, "x")["x"]
    rows = gradcheck(two_blocks_forward, lambda dy, c: two_blocks_backward(dy, c, 0.0, 0.0), x, p)
    assert "all zeros once p.a or p.b is 0" in wrong(rows, "x", "p.a.w", "p.a.b")["x"]


def test_the_way_back_through_one_block(x, rng):
    p = square_tree(rng)
    rows = gradcheck(two_blocks_forward, lambda dy, c: two_blocks_backward(dy, c, k=0.5 * c[3]), x, p)
    found = wrong(rows, "x", "p.a.w", "p.a.b", "p.b.w", "p.b.b")
    assert all("right once p.b is 0" in found[tensor] and "comes back through it" in found[tensor]
               for tensor in ("x", "p.a.w", "p.a.b"))
    assert "right once" not in found["p.b.w"] + found["p.b.b"]


def test_what_does_not_count(x):
    """A mask of 0 and 1, and ids of which one means padding: both mark positions that the loss leaves out."""
    def forward(x, ids, pad):
        counts = (ids != pad)[..., None]
        return (np.sin(x) * counts).sum() / counts.sum(), (x, counts)

    def backward(dy, cache, share=1.0, counted=True):
        x, counts = cache
        return dy * np.cos(x) * (counts if counted else 1.0) / counts.sum() * share

    for ids, pad in (([[1, 1, 1], [1, 1, 0]], 0), ([[7, 3, 9], [4, 6, 8]], 9)):
        ids = np.array(ids)
        assert ok(gradcheck(forward, backward, x, ids, pad))
        text = wrong(gradcheck(forward, lambda dy, c: backward(dy, c, counted=False), x, ids, pad), "x")["x"]
        assert f"wrong only where ids is {pad}: what does not count in forward gets no gradient" in text
        text = wrong(gradcheck(forward, lambda dy, c: backward(dy, c, share=5.0), x, ids, pad), "x")["x"]
        assert f"5 is the number of ids that are not {pad} (mean or sum?)" in text
        text = wrong(gradcheck(forward, lambda dy, c: backward(dy, c, share=5 / 6), x, ids, pad), "x")["x"]
        assert f"1.2 is the size of ids by the number of ids that are not {pad} (over which is the mean?)" in text


def test_values_with_the_weights_before_dropout(qkv):
    def backward(dy, cache):
        dq, dk, _ = attention_backward(dy, cache)
        return dq, dk, cache[3].mT @ dy

    rows = gradcheck(attention_forward, backward, *qkv, rate=0.3, rng=1)
    assert "right without dropout" in wrong(rows, "v")["v"]
    assert ok(gradcheck(attention_forward, backward, *qkv))
    assert "right without dropout" in wrong(gradcheck(attention_forward, backward, *qkv, rng=1, rate=0.3), "v")["v"]


def test_scale_of_the_whole_width(rng):
    heads = 3

    def forward(q, k, v, heads):
        return attention_forward(*(z.reshape(*z.shape[:2], heads, -1).swapaxes(1, 2) for z in (q, k, v)))

    def backward(dy, cache):
        q, k, v, weights, dropped, (keep, scale) = cache
        scale = (q.shape[1] * q.shape[3]) ** -0.5                       # sqrt(d_model) for sqrt(d_k)
        grads = attention_backward(dy, (q, k, v, weights, dropped, (keep, scale)))
        return tuple(g.swapaxes(1, 2).reshape(g.shape[0], g.shape[2], -1) for g in grads)

    args = [rng.standard_normal((2, t, 12)) for t in (4, 5, 5)]
    found = wrong(gradcheck(forward, backward, *args, heads), "q", "k")
    assert all("1.73205 times too small" in text and "sqrt(heads)" in text and "d_model / d_k" in text
               for text in found.values())


@pytest.mark.parametrize(("factor", "words"), [
    (-1.0, "the sign is wrong everywhere"), (-2.0, "2 times too large everywhere, and the sign is wrong"),
    (3.0, "axis 1 of x"), (1 / 24, "number of elements of x"), (24.0, "mean or sum"),
    (2.0, "the 2 of a square"), (5 ** 0.5, "square root of the last dimension"), (1 / 0.7, "1 - rate"), (0.123, "no size"),
])
def test_constant_factors(factor, words, rng):
    x = rng.standard_normal((7, 3, 5))[:, :, :] if factor == 5 ** 0.5 else rng.standard_normal((8, 3, 1))
    forward = lambda x, rate: (np.sin(x), x)                            # noqa: E731
    rows = gradcheck(forward, lambda dy, x: factor * dy * np.cos(x), x, 0.3)
    assert words in wrong(rows, "x")["x"]


def test_not_linear_in_dy(x):
    assert "linear in dy" in wrong(gradcheck(softmax_forward, lambda dy, y: y * dy * dy, x), "x")["x"]


def test_all_zeros(x):
    assert "all zeros" in wrong(gradcheck(softmax_forward, lambda dy, y: 0 * dy, x), "x")["x"]


def test_transposed_weight_and_permuted_heads(x, rng):
    w = rng.standard_normal((D, D))

    def transposed(dy, cache):
        dx, dw, _ = linear_backward(dy, cache)
        return dx, dw.T

    assert "transpose(1, 0)" in wrong(gradcheck(linear_forward, transposed, x, w), "w")["w"]
    rows = gradcheck(linear_forward, transposed, x, w[:, :3])
    assert "expected (4, 3): it is right after transpose(1, 0)" in wrong(rows, "w")["w"]

    def split(x):                                                       # (B, T, H d) -> (B, H, T, d)
        return np.sin(x.reshape(B, T, H, -1).swapaxes(1, 2)), x

    def reshaped(dy, x):
        return (dy * np.cos(x.reshape(B, T, H, -1).swapaxes(1, 2))).reshape(x.shape)

    def unflat(x):
        return np.sin(x.swapaxes(1, 2)), x

    assert not all(row.ok for row in gradcheck(split, reshaped, x))
    rows = gradcheck(unflat, lambda dy, x: (dy * np.cos(x.swapaxes(1, 2))).reshape(x.shape), x)
    assert "a reshape does not replace" in wrong(rows, "x")["x"]


def test_swapped_gradients(qkv):
    def backward(dy, cache):
        dq, dk, dv = attention_backward(dy, cache)
        return dq, dv, dk

    found = wrong(gradcheck(attention_forward, backward, *qkv), "k", "v")
    assert "swapped with the gradient of v" in found["k"] and "swapped with the gradient of k" in found["v"]
    twice = lambda dy, cache: (*attention_backward(dy, cache)[:2], attention_backward(dy, cache)[1])    # noqa: E731
    assert "this is the gradient of k" in wrong(gradcheck(attention_forward, twice, *qkv), "v")["v"]


def test_order_of_the_patches_lost(rng):
    x, order = rng.standard_normal((2, 6, 3)), np.stack([rng.permutation(6), rng.permutation(6)])

    def forward(x, order):
        return np.take_along_axis(x, order[..., None], axis=1), order

    rows = gradcheck(forward, lambda dy, order: np.take_along_axis(dy, order[..., None], axis=1), x, order)
    assert "a different order along axis 1" in wrong(rows, "x")["x"]
    restore = lambda dy, order: np.take_along_axis(dy, np.argsort(order)[..., None], axis=1)    # noqa: E731
    assert ok(gradcheck(forward, restore, x, order))


def test_repeated_ids(rng):
    def backward(dy, cache):
        ids, shape = cache
        dw = np.zeros(shape)
        dw[ids] += dy
        return dw

    ids = np.array([[1, 2, 1], [0, 5, 3]])
    rows = gradcheck(lambda w, ids: (w[ids], (ids, w.shape)), backward, rng.standard_normal((7, D)), ids)
    assert "ids names more than once" in wrong(rows, "w")["w"]


def test_averaged_over_repeated_ids(rng):
    def backward(dy, cache):
        ids, w = cache
        dw = np.zeros_like(w)
        np.add.at(dw, ids, dy / np.bincount(ids.ravel())[ids][..., None])
        return dw * np.cos(w)

    w = rng.standard_normal((7, D))
    for ids in ([[1, 2, 1], [0, 5, 3]], [[1, 1, 1], [0, 0, 4]], [[1, 1, 0], [0, 1, 1]]):
        rows = gradcheck(lambda w, ids: (np.sin(w)[ids], (ids, w)), backward, w, np.array(ids))
        assert "each row is divided by the number of times that ids names it" in wrong(rows, "w")["w"]


def gelu_forward(x, form):
    """GELU in one of three forms, with the slope of all three."""
    cdf = np.vectorize(lambda x: math.erfc(-x / math.sqrt(2)) / 2)(x)
    root, s = math.sqrt(2 / math.pi), 1 / (1 + np.exp(-1.702 * x))
    t = np.tanh(root * (x + 0.044715 * x**3))
    forms = {
        "exact": (x * cdf, cdf + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)),
        "tanh": (x * (1 + t) / 2, (1 + t) / 2 + x * (1 - t * t) / 2 * root * (1 + 3 * 0.044715 * x * x)),
        "logistic": (x * s, s + 1.702 * x * s * (1 - s)),
    }
    return forms[form][0], {name: slope for name, (_, slope) in forms.items()}


@pytest.mark.parametrize("form", ["exact", "tanh", "logistic"])
@pytest.mark.parametrize("other", ["exact", "tanh", "logistic"])
def test_forms_of_gelu(form, other, x):
    rows = gradcheck(gelu_forward, lambda dy, slopes: dy * slopes[other], x, form=form)
    if other == form:
        assert ok(rows)
    else:
        text = wrong(rows, "x")["x"]
        assert f"forward is GELU in its {form} form" in text and f"this is the derivative of its {other} form" in text


def test_the_component_along_x(norm, x):
    def backward(dy, cache, factor):
        xhat, rstd, gamma = cache
        dxhat = dy * gamma
        dx = dxhat - dxhat.mean(axis=-1, keepdims=True) - factor * xhat * (dxhat * xhat).mean(axis=-1, keepdims=True)
        return (dx * rstd, *layernorm_backward(dy, cache)[1:])

    for factor in (0.0, 6 / 5, -1.0):
        text = wrong(gradcheck(layernorm_forward, partial(backward, factor=factor), *norm), "x")["x"]
        assert "right but for a multiple of x - mean(x) in each row" in text and "D - 1" in text
    # A mistake along y - mean(y) is another one.
    bug = lambda dy, y: softmax_backward(dy, y) + 0.1 * (y - y.mean(axis=-1, keepdims=True)) * dy.sum()    # noqa: E731
    assert "multiple of x" not in wrong(gradcheck(softmax_forward, bug, x), "x")["x"]


def test_a_variance_of_two_kinds(rng):
    x = rng.standard_normal((2, 9))
    variance = lambda x: (x.var(axis=-1), x - x.mean(axis=-1, keepdims=True))              # noqa: E731
    rows = gradcheck(variance, lambda dy, centred: dy[:, None] * 2 * centred / 8, x)
    assert "1.125 is n / (n - 1) with n = 9, the last dimension (axis 1 of x): a variance has 1 / n" in wrong(rows, "x")["x"]

    def deviation(x):
        centred = x - x.mean(axis=-1, keepdims=True)
        return x.std(axis=-1), centred / (9 * x.std(axis=-1, ddof=1, keepdims=True))

    text = wrong(gradcheck(deviation, lambda dy, slope: dy[:, None] * slope, x), "x")["x"]
    assert "the square root of n / (n - 1) with n = 9" in text and text.count("n = 9") == 1


def test_an_eps_in_one_pass_only(norm):
    """So near to the right gradient, every transformation that changes little would explain it."""
    def backward(dy, cache):
        xhat, rstd, gamma = cache
        centred = xhat / rstd
        rstd = 1 / (centred.std(axis=-1, keepdims=True) + 1e-5)
        return layernorm_backward(dy, (centred * rstd, rstd, gamma))

    found = wrong(gradcheck(layernorm_forward, backward, *norm), "x", "gamma")
    assert all(text.startswith("right up to ") and "leave out an eps of forward" in text for text in found.values())


def test_an_option_that_backward_forgot(norm, x):
    def backward(dy, cache):
        xhat, rstd, gamma = cache
        centred = xhat / rstd
        rstd = 1 / centred.std(axis=-1, keepdims=True)
        return layernorm_backward(dy, (centred * rstd, rstd, gamma))

    found = wrong(gradcheck(layernorm_forward, backward, *norm, eps=0.1), "x", "gamma")
    assert all("right with eps = 0: backward leaves it out" in text for text in found.values())

    def smoothed(x, targets, smoothing):
        p, _ = softmax_forward(x)
        onehot = np.eye(D)[targets]
        return -(((1 - smoothing) * onehot + smoothing / D) * np.log(p)).sum(), p - onehot

    rows = gradcheck(smoothed, lambda dy, slope: dy * slope, x, np.array([[0, 1, 3], [2, 1, 1]]), smoothing=0.1)
    assert "right with smoothing = 0" in wrong(rows, "x")["x"]


def test_only_the_first_item_of_the_batch(qkv):
    def backward(dy, cache):
        dq, dk, dv = attention_backward(dy, cache)
        return np.repeat(dq[:1], B, axis=0), dk, dv

    rows = gradcheck(attention_forward, backward, *qkv)
    assert "only item 0 is used" in wrong(rows, "q")["q"]


def test_a_weight_that_sees_the_first_item_only(x, rng):
    def backward(dy, cache):
        x, w, _ = cache
        return dy @ w.T, x[0].T @ dy[0]

    rows = gradcheck(linear_forward, backward, x, rng.standard_normal((D, 5)))
    assert "right for a batch of one, wrong for a batch of 2" in wrong(rows, "w")["w"]


def test_masked_places(qkv, x):
    keep = np.arange(T) < np.array([[3], [1]])                          # (B, T)
    forward = lambda x, keep: (np.where(keep[..., None], np.sin(x), 0.0), (x, keep))     # noqa: E731
    rows = gradcheck(forward, lambda dy, cache: dy * np.cos(cache[0]), x, keep)
    assert "wrong only where keep is False" in wrong(rows, "x")["x"]

    mask = np.arange(TK) < np.array([4, 3])[:, None, None, None]

    def backward(dy, cache):                                            # unmasked weights in the softmax backward
        q, k, v, _, dropped, rest = cache
        free, _ = softmax_forward(q @ k.mT * rest[1])
        return attention_backward(dy, (q, k, v, free, dropped, rest))

    found = wrong(gradcheck(attention_forward, backward, *qkv, mask), "q", "k")
    assert "right when mask is True everywhere" in found["q"]
    assert ok(gradcheck(attention_forward, backward, *qkv))


def test_no_pattern_is_said_to_be_none(x, rng):
    noise = rng.standard_normal(x.shape)
    text = wrong(gradcheck(lambda x: (np.sin(x), x), lambda dy, x: dy * noise, x), "x")["x"]
    assert "no known pattern: 24 of 24" in text and "cosine" in text

    def one_row(dy, x):
        dx = dy * np.cos(x)
        dx[0, 2] *= noise[0, 2]
        return dx

    text = wrong(gradcheck(lambda x: (np.sin(x), x), one_row, x), "x")["x"]
    assert "4 of 24" in text and "wrong only at 0 of axis 0; wrong only at 2 of axis 1" in text


def tripled(x):
    return 3 * x, ()


@pytest.mark.parametrize(("forward", "backward", "x", "cause"), [
    (tripled, lambda dy, _: 3 * dy, [1.0, 2.0], ""),
    (tripled, lambda dy, _: 6 * dy, [1.0, 2.0], "constant_factor"),
    (tripled, lambda dy, _: 3 * dy * [1, 1.5, -2], [1.0, 2.0, 4.0], "unknown"),
    (lambda x: (x + 3 * x, ()), lambda dy, _: 3 * dy, [1.0, 2.0], "constant_factor"),
    (lambda x: (x + np.sin(x), x), lambda dy, x: dy * np.cos(x), [1.0, 2.0], "passed_by"),
    (tripled, lambda dy, _: 3 * dy.sum(), [1.0, 2.0], "shape"),
    (tripled, lambda dy, _: None, [1.0, 2.0], "returned"),
    (tripled, lambda dy, _: np.multiply(dy, 3, out=dy), [1.0, 2.0], "write"),
    (lambda x: (np.maximum(x, 0), x), lambda dy, x: dy * 0.3, [0.0], "kink"),
    (lambda x: (1e-6 * x + 1e9, ()), lambda dy, _: 1e-6 * dy, [1.0, 2.0], "noise"),
    (lambda x: (x.astype(np.float32), ()), lambda dy, _: dy, [1.0, 2.0], "y"),
])
def test_a_cause_is_a_name_in_any_language(forward, backward, x, cause, monkeypatch):
    """The same in Chinese, though no sentence is."""
    monkeypatch.setenv("LANGUAGE", "en")
    (row,) = gradcheck(forward, backward, np.array(x))
    assert (row.cause, row.ok) == (cause, not cause), row
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    (translated,) = gradcheck(forward, backward, np.array(x))
    assert translated.cause == cause and (translated.diagnosis != row.diagnosis) == bool(cause), translated


def test_nothing_is_claimed_on_thin_evidence(x, rng):
    noise = rng.standard_normal(x.shape)
    # Without dropout both gradients are 0: that they agree then proves nothing.
    rows = gradcheck(lambda x, rate: (rate * np.sin(x), rate), lambda dy, rate: dy * noise * rate, x, 0.5)
    assert "no known pattern" in wrong(rows, "x")["x"]
    # Twice the gradient, nearly.
    rows = gradcheck(lambda x: (np.sin(x), x), lambda dy, x: dy * np.cos(x) * (2 + 0.01 * noise), x)
    assert "no known pattern" in wrong(rows, "x")["x"]
    # Zeros of a wrong shape are no right numbers.
    rows = gradcheck(lambda x: (0.0 * x, x), lambda dy, x: np.zeros(x.size), x)
    assert wrong(rows, "x")["x"] == "the gradient has shape (24,), expected (2, 3, 4)"


# ---- the contract ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "function", "forward", "backward"), [
    ("x", "forward", lambda x, w: (np.negative(x, out=x) @ w, (x, w)), None),
    ("w", "forward", lambda x, w: (x @ w.__imul__(2.0), (x, w)), None),
    ("x", "backward", None, lambda dy, c: (dy @ c[1].T, np.tensordot(c[0].__iadd__(1.0), dy, ((0, 1), (0, 1))))),
    ("dy", "backward", None, lambda dy, c: (dy.__imul__(1.0) @ c[1].T, np.tensordot(c[0], dy, ((0, 1), (0, 1))))),
])
def test_forbidden_writes(name, function, forward, backward, x, rng):
    w = rng.standard_normal((D, 5))
    keep = x.copy()
    rows = gradcheck(forward or linear_forward, backward or (lambda dy, c: linear_backward(dy, c)[:2]), x, w)
    assert f"{function} writes into {name}:" in wrong(rows, name)[name] and len(rows) == 1
    assert np.array_equal(x, keep) and x.flags.writeable and w.flags.writeable


def test_write_into_the_cache_and_an_option(x, norm):
    def backward(dy, cache):
        xhat, rstd, _ = cache
        grads = layernorm_backward(dy, cache)
        xhat *= rstd
        return grads

    assert "backward writes into cache.0:" in wrong(gradcheck(layernorm_forward, backward, *norm), "cache.0")["cache.0"]

    def deep(dy, cache):
        cache["two"][0][0][...] = 0.0
        return residual_backward(dy, cache)

    p = block_tree(np.random.default_rng(0))
    wrong(gradcheck(residual_forward, deep, x, p), "cache.two.0.0")
    target = np.zeros_like(x)
    rows = gradcheck(lambda x, target: mse_forward(x, np.add(target, 1.0, out=target)), mse_backward, x, target=target)
    assert "target" in wrong(rows, "target") and not target.any()


def test_arrays_of_the_caller_in_a_cache_stay_writeable(x):
    w = np.full(D, 2.0)                                                 # not an argument: a closure
    assert ok(gradcheck(lambda x: (x * w, (w, w[1:])), lambda dy, cache: dy * cache[0], x))
    assert w.flags.writeable


def test_containers_of_the_caller_stay_whole(x, rng):
    p = block_tree(rng)

    def forward(x, p):
        return residual_forward(x, {"in": p.pop("in"), "out": p.pop("out")})

    assert ok(gradcheck(forward, residual_backward, x, p)) and set(p) == {"in", "out"}


def test_another_read_only_error_is_not_swallowed(x):
    table = np.ones(D)
    table.flags.writeable = False

    def forward(x):
        table[0] = 2.0
        return x * table, None

    with pytest.raises(ValueError, match="read-only"):
        gradcheck(forward, lambda dy, _: dy * table, x)


def test_shapes_and_dtypes_of_gradients(x, rng):
    w, b = rng.standard_normal((D, 5)), rng.standard_normal(5)
    grads = lambda f: lambda dy, cache: f(*linear_backward(dy, cache))  # noqa: E731
    rows = gradcheck(linear_forward, lambda dy, c: (*linear_backward(dy, c)[:2], dy), x, w, b)
    assert "(2, 3, 5), expected (5,): it is right when summed over axes (0, 1)" in wrong(rows, "b")["b"]
    rows = gradcheck(linear_forward, grads(lambda dx, dw, db: (dx, dw, db[None])), x, w, b)
    assert "the numbers are right, reshape it" in wrong(rows, "b")["b"]
    rows = gradcheck(linear_forward, grads(lambda dx, dw, db: (dx, dw, 2 * dw)), x, w, b)
    assert wrong(rows, "b")["b"] == "the gradient has shape (4, 5), expected (5,)"
    plus = lambda x, b: (x + b, None)                                   # noqa: E731    dx is dy, and db is dy before its sum
    b = rng.standard_normal(D)
    assert "it is right when summed over axes (0, 1), along which forward repeated b" in wrong(
        gradcheck(plus, lambda dy, _: (dy, dy), x, b), "b")["b"]
    found = wrong(gradcheck(plus, lambda dy, _: (dy.sum(axis=(0, 1)), dy), x, b), "x", "b")
    assert "it is the gradient of b; return one" in found["x"] and "it is the gradient of x; return one" in found["b"]
    b = rng.standard_normal(5)
    found = wrong(gradcheck(linear_forward, grads(lambda dx, dw, db: (dx, db, dw)), x, w, b), "w", "b")
    assert "expected (4, 5): it is the gradient of b; return one for each" in found["w"] and "gradient of w" in found["b"]
    rows = gradcheck(linear_forward, grads(lambda dx, dw, db: (dx.astype(np.float32), dw, "db")), x, w, b)
    found = wrong(rows, "x", "b")
    assert "float32" in found["x"] and "is a str" in found["b"]
    rows = gradcheck(linear_forward, grads(lambda dx, dw, db: (dx + np.nan, dw, db)), x, w, b)
    assert "has nan at (0, 0, 0)" in wrong(rows, "x")["x"]


def test_count_of_gradients(x, rng):
    w = rng.standard_normal((D, 5))
    for bad in (lambda dy, c: linear_backward(dy, c)[0], lambda dy, c: None,
                lambda dy, c: (*linear_backward(dy, c)[:2], dy), lambda dy, c: list(linear_backward(dy, c)[:2])):
        assert "expected a tuple of 2: x, w" in wrong(gradcheck(linear_forward, bad, x, w), "backward")["backward"]
    brackets = wrong(gradcheck(linear_forward, lambda dy, c: list(linear_backward(dy, c)[:2]), x, w), "backward")["backward"]
    assert "returned a list" in brackets and "brackets make a list" in brackets
    many = wrong(gradcheck(lambda x: (x, None), lambda dy, _: (dy, dy), x), "backward")["backward"]
    assert "2 gradient(s) in a tuple, expected the gradient of x alone" in many and "integers" in many
    swapped = gradcheck(linear_forward, lambda dy, c: ({"w": dy}, [dy]), x, w)
    assert wrong(swapped, "x", "w") == {
        "x": "the gradient is a dict, expected an array of shape (2, 3, 4)",
        "w": "the gradient is a list, expected an array of shape (4, 5)",
    }
    nothing = wrong(gradcheck(linear_forward, lambda dy, c: None, x, w), "backward")["backward"]
    assert "returned None" in nothing and "is its return missing?" in nothing


def test_trees_of_gradients(x, rng):
    p = block_tree(rng)

    def edited(edit):
        def backward(dy, cache):
            dx, dp = residual_backward(dy, cache)
            return dx, edit(dp)
        return wrong_of(gradcheck(residual_forward, backward, x, p))

    def wrong_of(rows):
        return {row.tensor: row.diagnosis for row in rows if not row.ok}

    assert edited(lambda dp: dp) == {}
    assert "no gradient" in edited(lambda dp: {"in": dp["in"], "out": [{"w": dp["out"][0]["w"]}]})["p.out.0.b"]
    found = edited(lambda dp: {"in": dp["in"], "out": dp["out"], "bias": np.zeros(3)})
    assert list(found) == ["p.bias"] and "misspelt" in found["p.bias"]
    found = edited(lambda dp: dp["in"]["w"])
    assert found == {"p": "the gradient is a ndarray, expected a tree like p: p.in.w, p.in.b, p.out.0.w, p.out.0.b"}


def test_constants_inside_a_tree(x):
    p = {"w": np.full(D, 1.5), "ids": np.arange(D), "eps": 0.5}
    forward = lambda x, p: (x * p["w"][p["ids"]] + p["eps"], (x, p))    # noqa: E731
    grads = lambda dy, c: {"w": (dy * c[0]).sum(axis=(0, 1))}           # noqa: E731
    assert ok(gradcheck(forward, lambda dy, c: (dy * c[1]["w"], grads(dy, c)), x, p))
    assert ok(gradcheck(forward, lambda dy, c: (dy * c[1]["w"], grads(dy, c) | {"ids": None, "eps": None}), x, p))


def test_what_is_refused(x):
    with pytest.raises(TypeError, match=r"x is float32.*hidden by rounding"):
        gradcheck(softmax_forward, softmax_backward, x.astype(np.float32))
    with pytest.raises(TypeError, match=r"x is complex128, a gradient check needs real numbers: .*; pass x\.real and x\.imag"):
        gradcheck(softmax_forward, softmax_backward, x + 0j)
    with pytest.raises(TypeError, match=r"y of complex128, .* return \(y\.real, y\.imag\)"):
        gradcheck(lambda x: (np.exp(1j * x), x), lambda dy, _: dy, x)
    swapped = x.astype(x.dtype.newbyteorder())
    with pytest.raises(TypeError, match=r"needs float64 in the byte order of this machine; pass x\.astype\(np\.float64\)"):
        gradcheck(softmax_forward, softmax_backward, swapped)
    with pytest.raises(TypeError, match="target is float32"):
        gradcheck(mse_forward, mse_backward, x, target=x.astype(np.float32))
    with pytest.raises(TypeError, match="Generator, expected an int seed"):
        gradcheck(dropout_forward, dropout_backward, x, 0.5, rng=np.random.default_rng(0))
    with pytest.raises(TypeError, match="given twice"):
        gradcheck(softmax_forward, softmax_backward, x, x=x)
    with pytest.raises(TypeError, match=r"expected the tuple \(y, cache\)"):
        gradcheck(lambda x: x, softmax_backward, x)
    with pytest.raises(TypeError, match="y of type int"):
        gradcheck(lambda x: (3, None), softmax_backward, x)
    with pytest.raises(ValueError, match="nothing to differentiate"):
        gradcheck(softmax_forward, softmax_backward, np.arange(3))
    for options in ({"h": 0.0}, {"h": -1e-5}, {"tolerance": 0.0}, {"tolerance": float("nan")}):
        with pytest.raises(ValueError, match="expected small positive numbers such as 1e-5 and 1e-6"):
            gradcheck(softmax_forward, softmax_backward, x, **options)
    with pytest.raises(ValueError, match="samples is 0"):
        gradcheck(softmax_forward, softmax_backward, x, samples=0)


def test_outputs_that_spoil_the_check(x):
    rows = gradcheck(lambda x: (x.astype(np.float32), None), lambda dy, _: dy, x)
    assert "y is float32" in wrong(rows, "y")["y"]
    with np.errstate(invalid="ignore"):
        rows = gradcheck(lambda x: (np.log(x), x), lambda dy, x: dy / x, x)
    assert "nan" in wrong(rows, "y")["y"]
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = gradcheck(lambda x: (np.log(x), x), lambda dy, x: dy / x, np.array([1.0, 1e-6]))
    assert "not finite next to" in wrong(rows, "x")["x"]


def test_not_deterministic(x):
    dice = np.random.default_rng(0)
    rows = gradcheck(lambda x: (x * dice.random(x.shape), x), lambda dy, x: dy, x)
    assert "not deterministic" in wrong(rows, "y")["y"] and "pass rng=0" in rows[0].diagnosis
    state = np.zeros(D)

    def forward(x):
        np.add(state, 1.0, out=state)                                   # in place, and it outlives the call
        return x * state, None

    assert "not deterministic" in wrong(gradcheck(forward, lambda dy, _: dy, x), "y")["y"]


def test_backward_that_keeps_state(x):
    class Square:
        total = 0.0

        def forward(self, x):
            self.x = x.copy()
            return x * x, x.copy()

        def backward(self, dy, cache):
            return 2 * self.x * dy

        def accumulate(self, dy, x):
            self.total += 2 * x * dy
            return self.total

    square = Square()
    rows = gradcheck(square.forward, square.backward, x)
    assert "outlives the call" in wrong(rows, "backward")["backward"] and rows[-1].cause == "memory"
    assert "outlives the call" in wrong(gradcheck(square.forward, square.accumulate, x), "backward")["backward"]


def test_state_that_the_last_argument_does_not_change(x, rng):
    left = {}

    def forward(x, b):
        left["x"] = x.copy()
        return x * x + b, None

    def backward(dy, cache):
        return 2 * left["x"] * dy, dy.sum(axis=(0, 1))

    rows = gradcheck(forward, backward, x, rng.standard_normal(D))
    assert "outlives the call" in wrong(rows, "backward")["backward"]


# ---- noise and samples -----------------------------------------------------------------------------------------------

def test_what_the_noise_hides_is_not_called_right(x):
    forward = lambda x: (1e10 + np.sin(x).sum(), x)                      # noqa: E731
    right, half = (lambda dy, x: dy * np.cos(x)), (lambda dy, x: 0.5 * dy * np.cos(x))
    for backward in (right, half, lambda dy, x: 0 * x):
        assert "cannot be judged" in wrong(gradcheck(forward, backward, x), "x")["x"]
    wrong(gradcheck(forward, lambda dy, x: 100 * dy * np.cos(x), x), "x")
    small = lambda x, y: (x.sum() * 1e-9 + (10 + y).sum(), (x, y))      # noqa: E731
    rows = gradcheck(small, lambda dy, c: (dy * np.full(x.shape, 2e-9), dy * np.ones(x.shape)), x, x + 1)
    assert "cannot be judged" in wrong(rows, "x")["x"]


def test_samples_and_the_direction_that_covers_the_rest(rng):
    w = rng.standard_normal((60, 50))
    calls = []

    def forward(w):
        calls.append(1)
        return np.tanh(w).sum(axis=0), w

    def backward(dy, w):
        return dy / np.cosh(w) ** 2

    assert ok(gradcheck(forward, backward, w, samples=5)) and len(calls) < 30

    def one_wrong(dy, w):
        dw = backward(dy, w)
        dw[41, 17] *= 3
        return dw

    rows = gradcheck(forward, one_wrong, w, samples=5)
    wrong(rows, "w")
    assert rows[0].worst == (41, 17) and rows[0].analytic == pytest.approx(3 * rows[0].numeric)
    rows = gradcheck(forward, lambda dy, w: backward(dy, w) * 2, w, samples=5)
    assert "2 times too large everywhere" in wrong(rows, "w")["w"]


def test_seeds(x):
    first, second, third = (gradcheck(softmax_forward, softmax_backward, x, seed=seed)[0].analytic for seed in (0, 0, 1))
    assert first == second != third


# ---- the table -------------------------------------------------------------------------------------------------------

def test_format_rows_and_json(x, rng):
    rows = gradcheck(linear_forward, lambda dy, c: (-linear_backward(dy, c)[0], "dw"), x, rng.standard_normal((D, 5)))
    lines = format_rows("linear", rows).splitlines()
    assert len(lines) == 3 and lines[0].startswith("linear") and not any(line.endswith(" ") for line in lines)
    assert lines[1].split()[0] == "x" and "WRONG" in lines[1] and "sign" in lines[1]
    assert lines[1].index("WRONG") == lines[2].index("WRONG")
    ok_rows = gradcheck(softmax_forward, softmax_backward, x)
    assert json.loads(json.dumps(asdict(ok_rows[0])))["ok"] is True


def test_dy_is_none_of_the_arguments():
    """Arguments are often drawn from default_rng(0), and seed is 0: dy comes from another stream, or it would equal x."""
    seen = []

    def backward(dy, cache):
        seen.append(dy.copy())
        return 2 * dy

    x = np.random.default_rng(0).normal(size=(3, 4))
    assert all(row.ok for row in gradcheck(lambda x: (2 * x, None), backward, x, seed=0))
    assert not any(np.array_equal(dy, x) for dy in seen)


@pytest.mark.parametrize(("tensor", "other", "advice"), [
    ("q", "k", "return one for each, in the order of forward's arguments"),
    ("p.q.w", "p.k.w", "put each under its own key"),
    ("x", "p.w", "return one for each, in the order of forward's arguments"),
    ("p.w", "x", "return one for each, in the order of forward's arguments"),
])
def test_how_to_correct_two_exchanged_gradients(tensor, other, advice):
    """Keys help only if both gradients are leaves of trees."""
    assert exchange(tensor, other).startswith(advice)


def test_gradients_exchanged_between_an_argument_and_a_leaf(rng):
    x, w = rng.normal(size=(4, 4)), rng.normal(size=(4, 4))

    def forward(x, p):
        return x @ p["w"], (x, p["w"])

    def backward(dy, cache):
        x, w = cache
        return x.T @ dy, {"w": dy @ w.T}

    for diagnosis in wrong(gradcheck(forward, backward, x, {"w": w}), "x", "p.w").values():
        assert "swapped with the gradient of" in diagnosis and "in the order of forward's arguments" in diagnosis


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_a_late_gradient_is_compared_relative_to_its_largest_number(x, scale):
    """1e-9 of the largest number is a gradient that changed, 1e-12 of it is rounding."""
    for change, seen in ((1e-9, True), (1e-12, False)):
        calls = []

        def backward(dy, cache, calls=calls, change=change):
            calls.append(1)
            return scale * dy * (1 + change * (len(calls) > 1))

        rows = gradcheck(lambda x: (scale * x, None), backward, x)
        assert ("backward" in [row.tensor for row in rows]) == seen, format_rows("late", rows)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_evidence_is_relative_to_the_size_of_the_gradient(scale):
    """Up to 1e-5 of the norm two gradients are the same, up to 1e-5 of the largest number an element is right."""
    numeric = scale * np.array([4.0, 1.0, np.nan, 1e-4])
    for change, wrong_ones in ((2e-5, [False, True, False, True]), (2e-6, [False] * 4)):
        analytic = np.nan_to_num(numeric, nan=7.0) + change * 4 * scale * np.array([0, 1, 0, -1])
        case = Case("x", analytic, numeric, {}, {}, [], [], None, None, None)
        np.testing.assert_array_equal(wrong_elements(case), wrong_ones)
        assert same(analytic, numeric) == (not any(wrong_ones))
    assert zero_sums(scale * np.array([[1.0, -1.0], [2.0, -2.0]])) == {1}


def test_a_factor_for_each_row_is_seen():
    """rstd that divides in the backward, where it should multiply: one ratio along each row, another in each."""
    def forward(x):
        rstd = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
        return x * rstd, (x, rstd)

    def backward(dy, cache):
        x, rstd = cache
        return (dy - x * rstd**2 * (dy * x).mean(-1, keepdims=True)) / rstd

    rows = gradcheck(forward, backward, np.random.default_rng(0).normal(size=(3, 5)))
    assert "each row is right but for a factor of its own, from " in wrong(rows, "x")["x"]


def test_a_sum_over_one_axis_too_many_is_seen():
    def backward(dy, cache):
        x, w = cache
        return dy @ w.T, np.einsum("bti,bto->io", x, dy), dy.sum()

    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 5)), rng.normal(size=5)
    rows = gradcheck(lambda x, w, b: (x @ w + b, (x, w)), backward, *inputs)
    told = wrong(rows, "b")["b"]
    assert "has shape (), expected (5,): it is the sum of the true gradient over axis 0: one axis too many" in told
