"""Ops against slow loops that follow the formulas, and at the edges: empty masks, huge numbers, wrong arguments."""
import ast
import inspect
import math
import re
import traceback
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from tinymae import arguments
from tinymae.ops import (
    activation,
    attention,
    dropout,
    embedding,
    layernorm,
    linear,
    losses,
    memory_efficient_attention,
    patches,
    positional,
    softmax,
)
from tinymae.ops.activation import (
    gelu_backward,
    gelu_forward,
    relu_backward,
    relu_forward,
    swish_backward,
    swish_forward,
)
from tinymae.ops.attention import scaled_dot_product_attention_backward, scaled_dot_product_attention_forward
from tinymae.ops.dropout import dropout_backward, dropout_forward
from tinymae.ops.embedding import embedding_backward, embedding_forward
from tinymae.ops.layernorm import layernorm_forward
from tinymae.ops.linear import linear_backward, linear_forward
from tinymae.ops.losses import (
    cross_entropy_backward,
    cross_entropy_forward,
    masked_mse_backward,
    masked_mse_forward,
    normalise_patches,
    soft_cross_entropy_backward,
    soft_cross_entropy_forward,
)
from tinymae.ops.memory_efficient_attention import (
    memory_efficient_attention_backward,
    memory_efficient_attention_forward,
)
from tinymae.ops.patches import (
    gather_backward,
    gather_forward,
    patchify_backward,
    patchify_forward,
    unpatchify,
    unshuffle_backward,
    unshuffle_forward,
)
from tinymae.ops.positional import (
    get_positional_encoding,
    positional_backward,
    positional_forward,
    sincos_2d,
    sinusoidal_halves,
    sinusoidal_interleaved,
)
from tinymae.ops.softmax import softmax_backward, softmax_forward

B, H, TQ, TK, DK, DV = 2, 3, 4, 5, 6, 7


@pytest.fixture(autouse=True)
def arithmetic_errors_raise():
    """NaN, infinity and division by zero are failures, not warnings."""
    before = np.seterr(invalid="raise", divide="raise", over="raise")
    yield
    np.seterr(**before)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def close(a, b, tolerance=1e-13):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# ---- softmax -----------------------------------------------------------------------------------------------------------

def softmax_row(scores, allowed):
    """One row, number by number."""
    top = max((s for s, a in zip(scores, allowed, strict=True) if a), default=0.0)
    e = [math.exp(s - top) if a else 0.0 for s, a in zip(scores, allowed, strict=True)]
    return [number / (sum(e) or 1.0) for number in e]


def test_softmax_row_by_row(rng):
    scores, mask = rng.normal(size=(B, TQ, TK)), rng.random((B, TQ, TK)) < 0.6
    mask[1, 2] = False
    p, _ = softmax_forward(scores, mask)
    for index in np.ndindex(B, TQ):
        close(p[index], softmax_row(scores[index], mask[index]))


def test_softmax_backward_is_the_jacobian(rng):
    scores, dp = rng.normal(size=TK), rng.normal(size=TK)
    p, cache = softmax_forward(scores)
    jacobian = [[p[j] * ((j == k) - p[k]) for k in range(TK)] for j in range(TK)]       # equation (2)
    close(softmax_backward(dp, cache), dp @ np.array(jacobian))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_of_nothing_is_zero(dtype):
    scores, mask = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], dtype), np.array([[False] * 3, [True, False, True]])
    p, cache = softmax_forward(scores, mask)
    assert not p[0].any()
    close(p[1], softmax_row([1, 2, 3], mask[1]), 1e-6)
    dscores = softmax_backward(np.ones_like(p) * np.array([1, 5, 2], dtype), cache)
    assert not dscores[0].any()
    assert dscores[1, 1] == 0 and dscores[1, 0] != 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_softmax_of_huge_scores(dtype, size):
    p, cache = softmax_forward(np.array([[size, size, -size], [-size, -size, -size], [0, 1, size]], dtype))
    close(p, [[0.5, 0.5, 0], [1 / 3] * 3, [0, 0, 1]], 1e-6)
    assert np.isfinite(softmax_backward(np.array([[1, 2, 3]] * 3, dtype), cache)).all()


def test_softmax_with_a_huge_score_under_the_mask():
    p, _ = softmax_forward(np.array([0.0, 1e30, 0.0]), np.array([True, False, True]))
    np.testing.assert_array_equal(p, [0.5, 0, 0.5])


# ---- attention ---------------------------------------------------------------------------------------------------------

def attention_loops(q, k, v, mask):
    """Equations (1) to (4), one query at a time."""
    y, weights = np.zeros((*q.shape[:3], v.shape[3])), np.zeros((*q.shape[:3], k.shape[2]))
    for b, h, i in np.ndindex(q.shape[:3]):
        scores = [sum(q[b, h, i, c] * k[b, h, j, c] for c in range(q.shape[3])) / math.sqrt(q.shape[3])
                  for j in range(k.shape[2])]
        weights[b, h, i] = softmax_row(scores, mask[b, h, i])
        for j in range(k.shape[2]):
            y[b, h, i] += weights[b, h, i, j] * v[b, h, j]
    return y, weights


@pytest.fixture
def qkv(rng):
    return rng.normal(size=(B, H, TQ, DK)), rng.normal(size=(B, H, TK, DK)), rng.normal(size=(B, H, TK, DV))


MASKS = {
    "none": None,
    "one for each key": np.array([True, False, True, True, False]),
    "padding": np.array([[True, True, True, False, False], [True] * 5])[:, None, None],
    "one for each pair": np.arange(TQ)[:, None] >= np.arange(TK) - 1,
    "one for each head": (np.arange(H)[:, None, None] + np.arange(TK)) % 2 == 0,
    "a query without keys": np.arange(TQ)[:, None] != np.full(TK, 2),
    "everything": np.random.default_rng(0).random((B, H, TQ, TK)) < 0.5,
}


@pytest.mark.parametrize("name", MASKS)
def test_attention_query_by_query(name, qkv):
    mask = MASKS[name]
    y, cache = scaled_dot_product_attention_forward(*qkv, mask)
    expected, weights = attention_loops(*qkv, np.broadcast_to(True if mask is None else mask, (B, H, TQ, TK)))
    close(y, expected)
    close(cache.weights, weights)


def test_a_query_that_may_attend_to_nothing(qkv, rng):
    y, cache = scaled_dot_product_attention_forward(*qkv, MASKS["a query without keys"])
    assert not y[:, :, 2].any() and y[:, :, 1].all()
    dq, dk, dv = scaled_dot_product_attention_backward(rng.normal(size=y.shape), cache)
    assert not dq[:, :, 2].any() and dq[:, :, 1].all()
    only = np.zeros(y.shape)
    only[:, :, 2] = 1                                           # a gradient for that query alone goes nowhere
    assert not any(gradient.any() for gradient in scaled_dot_product_attention_backward(only, cache))
    assert np.isfinite(dk).all() and np.isfinite(dv).all()


def test_a_hidden_key_gets_no_gradient(qkv, rng):
    y, cache = scaled_dot_product_attention_forward(*qkv, MASKS["one for each key"])
    _, dk, dv = scaled_dot_product_attention_backward(rng.normal(size=y.shape), cache)
    hidden = ~MASKS["one for each key"]
    assert not dk[:, :, hidden].any() and not dv[:, :, hidden].any()
    assert dk[:, :, ~hidden].all() and dv[:, :, ~hidden].all()


def test_one_key_takes_everything(qkv):
    q, k, v = qkv
    y, cache = scaled_dot_product_attention_forward(q, k[:, :, :1], v[:, :, :1])
    assert (cache.weights == 1).all()
    np.testing.assert_array_equal(y, np.broadcast_to(v[:, :, :1], y.shape))


def test_dropout_acts_on_the_weights(qkv):
    y, (_, _, v, weights, dropped, _) = scaled_dot_product_attention_forward(*qkv, dropout=0.5, rng=np.random.default_rng(0))
    close(weights.sum(axis=-1), 1)
    assert 0 < np.count_nonzero(dropped) < dropped.size
    kept = dropped != 0
    close(dropped[kept], 2 * weights[kept])
    close(y, dropped @ v)


# ---- attention in tiles ----------------------------------------------------------------------------------------------

def attention_and_gradients(forward, backward, inputs, dy, **options):
    y, cache = forward(*inputs, **options)
    return y, *backward(dy, cache)


def in_tiles(inputs, dy, **options):
    return attention_and_gradients(
        memory_efficient_attention_forward, memory_efficient_attention_backward, inputs, dy, **options
    )


def at_once(inputs, dy, mask=None):
    return attention_and_gradients(
        scaled_dot_product_attention_forward, scaled_dot_product_attention_backward, inputs, dy, mask=mask
    )


@pytest.mark.parametrize("tile", [1, 2, 3, TK, 128])
@pytest.mark.parametrize("name", MASKS)
def test_tiles_are_attention(name, tile, qkv, rng):
    dy = rng.normal(size=(B, H, TQ, DV))
    for ours, expected in zip(in_tiles(qkv, dy, mask=MASKS[name], tile=tile), at_once(qkv, dy, MASKS[name]), strict=True):
        close(ours, expected, 1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("tile", [7, 32, 128])
def test_many_tiles_are_attention(dtype, tolerance, tile, rng):
    q, dy = (rng.normal(size=(1, 2, 150, width)).astype(dtype) for width in (16, 8))
    k, v = (rng.normal(size=(1, 2, 300, width)).astype(dtype) for width in (16, 8))
    mask = rng.random((1, 1, 1, 300)) < 0.7
    for ours, expected in zip(in_tiles((q, k, v), dy, mask=mask, tile=tile), at_once((q, k, v), dy, mask), strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_tiles_keep_logsumexp_and_no_weights(qkv):
    q, k, _ = qkv
    _, (*_, logsumexp, tiles) = memory_efficient_attention_forward(*qkv, tile=2)
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(DK)
    close(logsumexp[..., 0], np.log(np.exp(scores).sum(axis=-1)))
    assert tiles == [(slice(0, 2), None), (slice(2, 4), None), (slice(4, 6), None)]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiles_of_huge_scores(dtype, order):
    """The maximum moves from tile to tile by more than exp can hold, upwards and downwards."""
    q, k = np.ones((1, 1, 1, 1), dtype), np.array([-1e30, 0, 1e30], dtype)[order].reshape(1, 1, 3, 1)
    v = np.array([1, 2, 3], dtype)[order].reshape(1, 1, 3, 1)
    y, cache = memory_efficient_attention_forward(q, k, v, tile=1)
    assert y.item() == 3
    _, _, dv = memory_efficient_attention_backward(np.ones_like(y), cache)
    np.testing.assert_array_equal(dv.ravel(), (v == 3).ravel())


def test_tiles_for_a_query_that_may_attend_to_nothing(qkv, rng):
    y, cache = memory_efficient_attention_forward(*qkv, MASKS["a query without keys"], tile=2)
    assert not y[:, :, 2].any() and y[:, :, 1].all()
    only = np.zeros(y.shape)
    only[:, :, 2] = 1                                           # a gradient for that query alone goes nowhere
    assert not any(gradient.any() for gradient in memory_efficient_attention_backward(only, cache))


def peak_memory(function, length):
    """Bytes that function(inputs, dy) allocates at most, over what it was given, with `length` queries and keys."""
    q, k, v, dy = (np.random.default_rng(i).normal(size=(1, 1, length, 8)) for i in range(4))
    tracemalloc.start()
    function((q, k, v), dy)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_of_tiles_grows_with_the_length_not_with_its_square():
    lengths = (256, 512, 1024)
    tiles = [peak_memory(lambda *given: in_tiles(*given, tile=32), length) for length in lengths]
    whole = [peak_memory(at_once, length) for length in lengths]
    for i in range(2):
        assert 1.9 < tiles[i + 1] / tiles[i] < 2.1
        assert 3.6 < whole[i + 1] / whole[i] < 4.1
    assert whole[-1] > 20 * tiles[-1]


# ---- layer normalisation -----------------------------------------------------------------------------------------------

def layernorm_row(x, gamma, beta, eps):
    x = [float(number) for number in x]
    mean = math.fsum(x) / len(x)
    var = math.fsum((number - mean) ** 2 for number in x) / len(x)
    return [g * (number - mean) / math.sqrt(var + eps) + b for number, g, b in zip(x, gamma, beta, strict=True)]


@pytest.mark.parametrize(("dtype", "offset", "tolerance"), [
    (np.float64, 0, 1e-13), (np.float64, 5000, 1e-11), (np.float32, 0, 1e-5), (np.float32, 5000, 2e-3),
])
def test_layernorm_row_by_row(dtype, offset, tolerance, rng):
    x = (offset + rng.normal(size=(B, TQ, 64))).astype(dtype)
    gamma, beta = rng.normal(size=64).astype(dtype), rng.normal(size=64).astype(dtype)
    y, _ = layernorm_forward(x, gamma, beta)
    assert y.dtype == dtype
    for index in np.ndindex(B, TQ):
        np.testing.assert_allclose(y[index], layernorm_row(x[index], gamma, beta, 1e-5), rtol=0, atol=tolerance)


def test_layernorm_of_equal_numbers_is_beta(rng):
    beta = rng.normal(size=8)
    y, cache = layernorm_forward(np.full((2, 8), 3.0), np.ones(8), beta)
    np.testing.assert_array_equal(y, [beta, beta])
    assert np.isfinite(layernorm.layernorm_backward(rng.normal(size=(2, 8)), cache)[0]).all()


def test_layernorm_keeps_eps_inside_the_root():
    y, _ = layernorm_forward(np.array([-1.0, 1.0]), np.ones(2), np.zeros(2), eps=3.0)
    np.testing.assert_allclose(y, [-0.5, 0.5], rtol=1e-15)      # 1 / sqrt(1 + 3); outside it would be 1 / 4
    # biased: var of (0, 0, 3) is 2, not 3
    y, _ = layernorm_forward(np.array([0.0, 0.0, 3.0]), np.ones(3), np.zeros(3), eps=0.0)
    close(y, np.array([-1, -1, 2]) / math.sqrt(2))


def test_layernorm_gradient_has_no_part_along_1_and_xhat(rng):
    _, cache = layernorm_forward(rng.normal(size=(B, TQ, 16)), rng.normal(size=16), rng.normal(size=16), eps=0.0)
    dx, _, _ = layernorm.layernorm_backward(rng.normal(size=(B, TQ, 16)), cache)
    close(dx.sum(axis=-1), 0)
    close((dx * cache[0]).sum(axis=-1), 0)


# ---- activations -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu(dtype):
    x = np.array([-2, -1e-30, -0.0, 0.0, 1e-30, 3], dtype)
    y, cache = relu_forward(x)
    np.testing.assert_array_equal(y, np.array([0, 0, 0, 0, 1e-30, 3], dtype))
    np.testing.assert_array_equal(relu_backward(np.full(6, 7, dtype), cache), [0, 0, 0, 0, 7, 7])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_number_by_number(dtype):
    x = np.linspace(-12, 12, 4801).astype(dtype)
    y, cache = gelu_forward(x)
    slope = gelu_backward(np.ones_like(x), cache)
    assert y.dtype == slope.dtype == dtype
    numbers = [float(number) for number in x]
    # erfc is exact in the left tail, where 1 + erf is not
    expected = np.array([a * math.erfc(-a / math.sqrt(2)) / 2 for a in numbers])
    slopes = np.array([math.erfc(-a / math.sqrt(2)) / 2 + a * math.exp(-a * a / 2) / math.sqrt(2 * math.pi) for a in numbers])
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    assert (np.abs(y - expected) <= tolerance * np.maximum(1, np.abs(x))).all()
    assert (np.abs(slope - slopes) <= tolerance).all()


def test_the_normal_distribution_to_the_rounding_of_float64():
    tiny = np.geomspace(1e-320, 1, 500)
    x = np.concatenate([np.linspace(-40, 40, 16001), tiny, -tiny, [-1e100, 1e100]])
    cdf, _ = activation._normal(x)
    expected = np.array([math.erfc(-a / math.sqrt(2)) / 2 for a in x.tolist()])
    assert np.abs(cdf - expected).max() <= 1e-15
    np.testing.assert_array_equal(activation._normal(np.array([-0.0, 0.0, 5e-324, -50, 50]))[0], [0.5, 0.5, 0.5, 0, 1])


def test_the_normal_distribution_keeps_its_digits_in_the_left_tail():
    # computed with mpmath to 30 digits
    known = {
        -37: 5.72557122252457682e-300, -20: 2.7536241186062337e-89, -10: 7.61985302416052607e-24, -5: 2.86651571879193912e-7,
        -1: 0.158655253931457051, -0.5: 0.308537538725986896, 0.5: 0.691462461274013104, 3: 0.998650101968369905,
    }
    cdf, _ = activation._normal(np.array(list(known), float))
    np.testing.assert_allclose(cdf, list(known.values()), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_of_nan_is_nan(dtype):
    y, (slope,) = gelu_forward(np.array([[np.nan, 0, 1]], dtype))
    np.testing.assert_array_equal(np.isnan(y), [[True, False, False]])
    np.testing.assert_array_equal(np.isnan(slope), [[True, False, False]])


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_of_any_layout(shape, dtype, rng):
    x = rng.normal(size=shape[::-1]).astype(dtype).T             # the axes of the memory are in reverse order
    y, (slope,) = gelu_forward(x)
    expected, (slopes,) = gelu_forward(np.ascontiguousarray(x))
    assert y.shape == slope.shape == shape and y.dtype == slope.dtype == dtype
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(slope, slopes)


def test_gelu_tanh_number_by_number():
    x = np.linspace(-6, 6, 241)
    expected = [a * (1 + math.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3))) / 2 for a in x]
    close(gelu_forward(x, "tanh")[0], expected, 1e-14)
    # an approximation indeed, and no more: 5e-4 away
    assert 1e-4 < np.abs(gelu_forward(x, "tanh")[0] - gelu_forward(x)[0]).max() < 5e-4


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_at_the_edges(dtype, approximate):
    x = np.array([-1e4, -50, -0.0, 0.0, 50, 1e4], dtype)
    y, cache = gelu_forward(x, approximate)
    np.testing.assert_array_equal(y, np.array([0, 0, 0, 0, 50, 1e4], dtype))
    np.testing.assert_array_equal(gelu_backward(np.ones_like(x), cache), np.array([0, 0, 0.5, 0.5, 1, 1], dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_swish_number_by_number(dtype):
    x = np.linspace(-12, 12, 481).astype(dtype)
    y, cache = swish_forward(x)
    slope = swish_backward(np.ones_like(x), cache)
    assert y.dtype == slope.dtype == dtype
    numbers = [float(number) for number in x]
    expected = np.array([a / (1 + math.exp(-a)) for a in numbers])
    slopes = np.array([1 / (1 + math.exp(-a)) + a * math.exp(-a) / (1 + math.exp(-a)) ** 2 for a in numbers])
    tolerance = 2e-7 if dtype == np.float32 else 1e-15
    assert (np.abs(y - expected) <= tolerance * np.maximum(1, np.abs(x))).all()
    assert (np.abs(slope - slopes) <= 4 * tolerance).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_swish_at_the_edges(dtype):
    x = np.array([-1e30, -1e4, -50, -0.0, 0.0, 50, 1e4, 1e30], dtype)
    y, cache = swish_forward(x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(swish_backward(np.ones_like(x), cache), np.array([0, 0, 0, 0.5, 0.5, 1, 1, 1], dtype))


# ---- linear and dropout ------------------------------------------------------------------------------------------------

def test_linear_number_by_number(rng):
    x, w, b = rng.normal(size=(B, TQ, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)
    y, cache = linear_forward(x, w, b)
    dy = rng.normal(size=y.shape)
    dx, dw, db = linear_backward(dy, cache)
    expected, wanted = np.zeros_like(y), [np.zeros_like(a) for a in (x, w, b)]
    for s, t, j in np.ndindex(y.shape):
        expected[s, t, j] = b[j] + sum(x[s, t, i] * w[i, j] for i in range(3))
        wanted[2][j] += dy[s, t, j]
        for i in range(3):
            wanted[0][s, t, i] += dy[s, t, j] * w[i, j]
            wanted[1][i, j] += dy[s, t, j] * x[s, t, i]
    close(y, expected)
    for ours, loops in zip((dx, dw, db), wanted, strict=True):
        close(ours, loops)


def test_linear_without_bias(rng):
    x, w = rng.normal(size=(B, 3)), rng.normal(size=(3, 2))
    y, cache = linear_forward(x, w)
    close(y, x @ w)
    assert linear_backward(y, cache)[2] is None


def test_linear_on_a_single_vector(rng):
    x, w, b = rng.normal(size=3), rng.normal(size=(3, 2)), rng.normal(size=2)
    y, cache = linear_forward(x, w, b)
    close(y, x @ w + b)
    dx, dw, db = linear_backward(np.ones(2), cache)
    close(dx, w.sum(axis=1))
    close(dw, np.stack([x, x], axis=1))
    close(db, [1, 1])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_keeps_the_mean(rate, dtype):
    number = 100_000
    x = np.full(number, 3, dtype)
    y, cache = dropout_forward(x, rate, np.random.default_rng(0))
    kept = y != 0
    assert abs(kept.mean() - (1 - rate)) < 5 * math.sqrt(rate * (1 - rate) / number)
    np.testing.assert_allclose(y[kept], 3 / (1 - rate), rtol=1e-6)
    dx = dropout_backward(np.full(number, 2, dtype), cache)
    np.testing.assert_array_equal(dx != 0, kept)                # the same draw on the way down
    np.testing.assert_allclose(dx[kept], 2 / (1 - rate), rtol=1e-6)


@pytest.mark.parametrize("options", [{"dropout": 0.0, "rng": 1}, {"dropout": 0.5, "rng": None}])
def test_dropout_off_hands_through(options):
    options["rng"] = options["rng"] and np.random.default_rng(options["rng"])
    x, dy = np.ones(3), np.ones(3)
    y, cache = dropout_forward(x, **options)
    assert y is x
    assert cache is None
    assert dropout_backward(dy, cache) is dy


def test_dropout_draws_what_the_rng_says():
    x = np.ones((4, 5))
    first, second, other = (dropout_forward(x, 0.5, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


# ---- embedding ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("ids", [np.array([[3, 1, 3], [0, 3, 4]]), np.array([2, 2]), np.array([[1]], np.uint8)])
def test_embedding_word_by_word(ids, rng):
    table = rng.normal(size=(5, 2))
    y, cache = embedding_forward(ids, table)
    dy = rng.normal(size=(*ids.shape, 2))
    dtable = np.zeros_like(table)
    for index in np.ndindex(ids.shape):
        np.testing.assert_array_equal(y[index], table[ids[index]])
        dtable[ids[index]] += dy[index]
    close(embedding_backward(dy, cache), dtable)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_embedding_of_no_words(shape, dtype):
    y, cache = embedding_forward(np.zeros(shape, int), np.ones((5, 2), dtype))
    assert y.shape == (*shape, 2)
    dtable = embedding_backward(y, cache)
    assert dtable.dtype == dtype
    np.testing.assert_array_equal(dtable, np.zeros((5, 2)))


EMBEDDING_IDS = {
    "frequent and rare tokens": np.random.default_rng(0).geometric(0.1, size=(8, 50)).clip(max=60) - 1,
    "distinct tokens": np.random.default_rng(0).permutation(60).reshape(3, 20),
    "one token": np.full((4, 25), 59),
    "one position": np.array(7),
}


@pytest.mark.parametrize("name", EMBEDDING_IDS)
@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_embedding_backward_adds_in_the_order_of_the_positions(name, kind, dtype, rng):
    ids = EMBEDDING_IDS[name].astype(kind)
    dy = rng.normal(size=(*ids.shape, 14)).astype(dtype)[..., ::2]      # not contiguous
    _, cache = embedding_forward(ids, np.zeros((60, 7), dtype))
    expected = np.zeros((60, 7), dtype)
    for index in np.ndindex(ids.shape):
        expected[ids[index]] += dy[index]
    dtable = embedding_backward(dy, cache)
    assert dtable.dtype == dtype
    np.testing.assert_array_equal(dtable, expected)                     # to the last bit


# ---- losses ------------------------------------------------------------------------------------------------------------

def test_masked_mse_patch_by_patch(rng):
    pred, target = rng.normal(size=(2, B, 5, 3))
    mask = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0]])
    loss, cache = masked_mse_forward(pred, target, mask)
    expected, dpred = 0.0, np.zeros_like(pred)
    for b, n in zip(*np.nonzero(mask), strict=True):
        for p in range(3):
            expected += (pred[b, n, p] - target[b, n, p]) ** 2 / (3 * 4)
            dpred[b, n, p] = 1.7 * 2 * (pred[b, n, p] - target[b, n, p]) / (3 * 4)
    close(loss, expected)
    close(masked_mse_backward(1.7, cache), dpred)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mask_dtype", [bool, np.int8, np.float64])
def test_masked_mse_with_nothing_removed(dtype, mask_dtype):
    loss, cache = masked_mse_forward(np.ones((2, 3, 4), dtype), np.zeros((2, 3, 4), dtype), np.zeros((2, 3), mask_dtype))
    assert loss == 0
    assert loss.dtype == dtype
    dpred = masked_mse_backward(1.0, cache)
    assert not dpred.any()
    assert dpred.dtype == dtype


def test_normalise_patches_number_by_number(rng):
    x = 4 + 3 * rng.normal(size=(B, 3, 6))
    normalised, mean, std = normalise_patches(x)
    for index in np.ndindex(B, 3):
        m = sum(x[index]) / 6
        s = math.sqrt(sum((number - m) ** 2 for number in x[index]) / 5 + 1e-6)         # unbiased: 5, not 6
        close(mean[index], m)
        close(std[index], s)
        close(normalised[index], [(number - m) / s for number in x[index]])
    close(normalised * std + mean, x)


def test_normalise_patches_of_one_colour():
    normalised, mean, std = normalise_patches(np.full((1, 1, 4), 0.25))
    assert not normalised.any()
    np.testing.assert_array_equal(mean, [[[0.25]]])
    close(std, 1e-3)                                            # sqrt(eps): nothing to divide by


def cross_entropy_loops(logits, targets, ignore_index, e):
    """Equations (3) to (5), number by number; the loss and its gradient."""
    loss, dlogits, vocabulary = 0.0, np.zeros_like(logits), logits.shape[-1]
    count = sum(targets[index] != ignore_index for index in np.ndindex(targets.shape))
    for index in np.ndindex(targets.shape):
        if targets[index] == ignore_index:
            continue
        p = softmax_row(logits[index], [True] * vocabulary)
        for v in range(vocabulary):
            q = (1 - e) * (v == targets[index]) + e / vocabulary
            loss -= q * math.log(p[v]) / count
            dlogits[(*index, v)] = (p[v] - q) / count
    return loss, dlogits


@pytest.mark.parametrize("e", [0.0, 0.1])
def test_soft_cross_entropy_is_linear_in_its_targets(e, rng):
    """Shares s and 1 - s of two words: s times the loss of one and 1 - s times that of the other, and so the gradient."""
    logits, (one, other) = 3 * rng.normal(size=(6, 5)), rng.integers(0, 5, (2, 6))
    share = rng.random(6)
    targets = share[:, None] * np.eye(5)[one] + (1 - share)[:, None] * np.eye(5)[other]
    loss, cache = soft_cross_entropy_forward(logits, targets, label_smoothing=e)
    expected, dlogits = 0.0, np.zeros((6, 5))
    for i in range(6):
        for word, weight in ((one[i], share[i]), (other[i], 1 - share[i])):
            hard, d = cross_entropy_loops(logits[i : i + 1], np.array([word]), None, e)
            expected += weight * hard / 6
            dlogits[i] += weight * d[0] / 6
    close(loss, expected)
    close(soft_cross_entropy_backward(1.0, cache), dlogits)
    close(soft_cross_entropy_backward(-2.5, cache), -2.5 * dlogits)
    loss, cache = soft_cross_entropy_forward(logits.reshape(2, 3, 5), targets.reshape(2, 3, 5), label_smoothing=e)
    close(loss, expected)                                       # the axes before the classes are all positions
    close(soft_cross_entropy_backward(1.0, cache), dlogits.reshape(2, 3, 5))


@pytest.mark.parametrize("forward", [
    pytest.param(lambda z: cross_entropy_forward(z, np.array([1, 0])), id="hard"),
    pytest.param(lambda z: soft_cross_entropy_forward(z, np.eye(2)[[1, 0]]), id="soft"),
    pytest.param(lambda z: (softmax.softmax_forward(z)[0][[0, 1], [1, 0]].mean(), None), id="softmax"),
])
def test_each_row_is_shifted_by_its_own_maximum(forward):
    """Rows 2000 apart: relative to the maximum of the other, every number of a row would be exp(-2000) = 0."""
    far, near = (forward(np.array([[1000 * by, 1 + 1000 * by], [-1000.0 * by, -2 - 1000 * by]]))[0] for by in (1, 0))
    close(far, near)


def test_a_mean_over_one():
    """One removed patch, one target that counts: the mean is its loss."""
    pred, mask = np.arange(12.0).reshape(2, 2, 3), np.array([[0, 0], [0, 1]])
    loss, cache = masked_mse_forward(pred, pred - 2, mask)
    assert loss == 4
    np.testing.assert_allclose(masked_mse_backward(1.0, cache)[1, 1], 4 / 3)
    logits, targets = np.array([[0.0, 1], [2, 0], [0, 0]]), np.array([0, 1, 0])
    loss, cache = cross_entropy_forward(logits, targets, ignore_index=0)
    close(loss, math.log(math.exp(2) + 1))
    share = 1 / (1 + math.exp(-2))
    close(cross_entropy_backward(1.0, cache), [[0, 0], [share, -share], [0, 0]])


@pytest.mark.parametrize(("wrong", "found"), [(3, r"\[0, 3\]"), (-1, r"\[-1, 2\]")])
def test_the_first_id_that_is_not_in_the_table(wrong, found):
    ids = np.array([0, 1, 2])
    assert embedding_forward(ids, z(3, 4))[0].shape == (3, 4)
    with pytest.raises(IndexError, match=rf"embedding: expected ids in \[0, 3\), got {found}"):
        embedding_forward(np.where(ids == (0 if wrong < 0 else 1), wrong, ids), z(3, 4))
    with pytest.raises(IndexError, match=r"cross_entropy: expected targets in \[0, 3\)"):
        cross_entropy_forward(z(2, 3), np.array([0, wrong]))
    with pytest.raises(IndexError, match=r"gather: expected ids in \[0, 3\)"):
        gather_forward(z(1, 3, 4), np.array([[0, wrong]]))


def test_tiles_of_rows_that_are_far_apart(rng):
    q, k, v = rng.normal(size=(1, 2, 3, 4)), rng.normal(size=(1, 2, 5, 4)), rng.normal(size=(1, 2, 5, 6))
    k[..., 0], q[0, :, :, 0] = 1000, [[1, -1, 0], [0, 2, -3]]
    y, _ = memory_efficient_attention_forward(q, k, v, tile=2)
    close(y, scaled_dot_product_attention_forward(q, k, v)[0])


def test_soft_cross_entropy_of_one_hot_rows_and_huge_logits():
    logits = np.array([[1e4, 0, -1e4], [0, 1e4, 0]])
    targets = np.array([0, 0])
    soft = soft_cross_entropy_forward(logits, np.eye(3)[targets])
    hard = cross_entropy_forward(logits, targets)
    assert soft[0] == hard[0] == 5000
    np.testing.assert_array_equal(soft_cross_entropy_backward(1.0, soft[1]), cross_entropy_backward(1.0, hard[1]))


@pytest.mark.parametrize("e", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("ignore_index", [None, 0, -100])
def test_cross_entropy_word_by_word(e, ignore_index, rng):
    logits, targets = 3 * rng.normal(size=(B, 4, 5)), rng.integers(0, 5, (B, 4))
    targets[0, :2] = 0
    if ignore_index is not None:
        targets[1, 1] = ignore_index
    loss, cache = cross_entropy_forward(logits, targets, ignore_index=ignore_index, label_smoothing=e)
    expected, dlogits = cross_entropy_loops(logits, targets, ignore_index, e)
    close(loss, expected)
    close(cross_entropy_backward(1.0, cache), dlogits)
    close(cross_entropy_backward(-2.5, cache), -2.5 * dlogits)


@pytest.mark.parametrize("e", [0.0, 0.1])
def test_a_model_that_knows_nothing_starts_at_ln_v(e):
    loss, _ = cross_entropy_forward(np.zeros((B, 3, 7)), np.ones((B, 3), int), label_smoothing=e)
    close(loss, math.log(7))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("e", [0.0, 0.1])
def test_cross_entropy_where_nothing_counts(dtype, e, rng):
    logits = rng.normal(size=(B, 3, 7)).astype(dtype)
    loss, cache = cross_entropy_forward(logits, np.full((B, 3), -1), ignore_index=-1, label_smoothing=e)
    assert loss == 0
    assert loss.dtype == dtype
    assert not cross_entropy_backward(1.0, cache).any()


def test_cross_entropy_of_huge_logits():
    logits = np.array([[1e30, 0, -1e30], [0, 1e30, 0]])
    loss, cache = cross_entropy_forward(logits, np.array([0, 0]))
    np.testing.assert_allclose(loss, 0.5e30, rtol=1e-15)
    np.testing.assert_array_equal(cross_entropy_backward(1.0, cache), [[0, 0, 0], [-0.5, 0.5, 0]])


# ---- patches -----------------------------------------------------------------------------------------------------------

def patchify_loops(images, p):
    """Patch by patch, row by row, in the order (row, column, channel)."""
    return np.array([
        [
            [image[r + i, c + j, channel] for i in range(p) for j in range(p) for channel in range(image.shape[2])]
            for r in range(0, image.shape[0], p)
            for c in range(0, image.shape[1], p)
        ]
        for image in images
    ])


@pytest.mark.parametrize(("shape", "p"), [((2, 4, 6, 3), 2), ((1, 6, 3, 1), 3), ((3, 5, 5, 2), 5), ((2, 2, 3, 4), 1)])
def test_patchify_pixel_by_pixel(shape, p, rng):
    images = rng.normal(size=shape)
    cut, cache = patchify_forward(images, p)
    np.testing.assert_array_equal(cut, patchify_loops(images, p))
    np.testing.assert_array_equal(unpatchify(cut, p, (shape[1] // p, shape[2] // p)), images)
    dpatches = rng.normal(size=cut.shape)
    dimages = patchify_backward(dpatches, cache)
    assert dimages.shape == shape                               # rows and columns exchanged have the same patches
    np.testing.assert_array_equal(patchify_loops(dimages, p), dpatches)
    # fresh, even where nothing has to move (p = 1, or a single patch)
    assert not np.shares_memory(cut, images)
    assert not np.shares_memory(dimages, dpatches)


def test_unpatchify_knows_upright_from_lying(rng):
    cut = rng.normal(size=(1, 6, 4))
    upright, lying = unpatchify(cut, 2, (3, 2)), unpatchify(cut, 2, (2, 3))
    assert upright.shape == (1, 6, 4, 1)
    assert lying.shape == (1, 4, 6, 1)
    np.testing.assert_array_equal(patchify_loops(upright, 2), cut)
    np.testing.assert_array_equal(patchify_loops(lying, 2), cut)


def test_gather_with_repeats(rng):
    x, ids = rng.normal(size=(2, 4, 3)), np.array([[2, 0, 2, 2, 1], [3, 3, 0, 1, 2]])
    y, cache = gather_forward(x, ids)
    dy = rng.normal(size=y.shape)
    dx = np.zeros_like(x)
    for b, k in np.ndindex(ids.shape):
        np.testing.assert_array_equal(y[b, k], x[b, ids[b, k]])
        dx[b, ids[b, k]] += dy[b, k]
    close(gather_backward(dy, cache), dx)
    assert not gather_backward(dy, cache)[0, 3].any()           # nobody asked for it


def test_gather_nothing(rng):
    y, cache = gather_forward(rng.normal(size=(2, 4, 3)), np.zeros((2, 0), int))
    assert y.shape == (2, 0, 3)
    np.testing.assert_array_equal(gather_backward(y, cache), np.zeros((2, 4, 3)))


@pytest.mark.parametrize("kept", [0, 1, 2, 5])
def test_unshuffle_patch_by_patch(kept, rng):
    x, token = rng.normal(size=(B, kept, 3)), rng.normal(size=(1, 1, 3))
    ids_restore = np.stack([rng.permutation(5) for _ in range(B)])
    y, cache = unshuffle_forward(x, token, ids_restore)
    dy = rng.normal(size=(B, 5, 3))
    dx, dtoken = np.zeros_like(x), np.zeros_like(token)
    for b, n in np.ndindex(B, 5):
        j = ids_restore[b, n]
        np.testing.assert_array_equal(y[b, n], x[b, j] if j < kept else token[0, 0])
        if j < kept:
            dx[b, j] += dy[b, n]
        else:
            dtoken[0, 0] += dy[b, n]
    ours = unshuffle_backward(dy, cache)
    close(ours[0], dx)
    close(ours[1], dtoken)


# ---- positions ---------------------------------------------------------------------------------------------------------

def frequency(i, width):
    return 10000 ** (-2 * i / width)


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_interleaved_number_by_number(width):
    table = sinusoidal_interleaved(11, width)
    for pos, column in np.ndindex(11, width):
        wave = math.cos if column % 2 else math.sin
        assert table[pos, column] == pytest.approx(wave(pos * frequency(column // 2, width)), abs=1e-14)


def test_halves_number_by_number():
    table = sinusoidal_halves(11, 8)
    for pos, i in np.ndindex(11, 4):
        assert table[pos, i] == pytest.approx(math.sin(pos * frequency(i, 8)), abs=1e-14)
        assert table[pos, 4 + i] == pytest.approx(math.cos(pos * frequency(i, 8)), abs=1e-14)


def test_row_0():
    np.testing.assert_array_equal(sinusoidal_interleaved(1, 5), [[0, 1, 0, 1, 0]])
    np.testing.assert_array_equal(sinusoidal_halves(1, 4), [[0, 0, 1, 1]])


@pytest.mark.parametrize("make", [sinusoidal_interleaved, sinusoidal_halves, get_positional_encoding])
def test_a_longer_table_begins_with_the_shorter(make):
    np.testing.assert_array_equal(make(5000, 12)[:7], make(7, 12))


@pytest.mark.parametrize("k", [1, 5, 100])
def test_an_offset_is_a_rotation(k):
    """PE(pos + k) = R(k) PE(pos), one turn for each pair, whatever pos is."""
    table = sinusoidal_interleaved(50 + k, 8)
    turn = np.zeros((8, 8))
    for i in range(4):
        angle = k * frequency(i, 8)
        turn[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [
            [math.cos(angle), math.sin(angle)],
            [-math.sin(angle), math.cos(angle)],
        ]
    close(table[k:], table[:50] @ turn.T)


def test_article_a_and_its_quirks():
    table = get_positional_encoding(11, 6)
    for pos, column in np.ndindex(11, 6):
        wave = math.cos if column % 2 else math.sin
        # quirk 1: the exponent counts columns, not pairs; quirk 2: row 0 stays zero, cosines too
        expected = wave(pos / 10000 ** (2 * column / 6)) if pos else 0.0
        assert table[pos, column] == pytest.approx(expected, abs=1e-14)
    difference = np.abs(table - sinusoidal_interleaved(11, 6))
    assert difference[1:, 1].max() > 1                          # the first cosine turns at another pace than its sine
    np.testing.assert_array_equal(difference[0], [0, 1, 0, 1, 0, 1])
    normalised = get_positional_encoding(11, 6, normalise=True)
    assert not normalised[0].any()
    close(np.linalg.norm(normalised[1:], axis=1), 1)
    close(normalised[1:] * np.linalg.norm(table[1:], axis=1, keepdims=True), table[1:])


def test_sincos_2d_number_by_number():
    rows, cols, width = 3, 4, 8
    table = sincos_2d((rows, cols), width)
    assert table.shape == (12, 8)
    for r, c, i in np.ndindex(rows, cols, 2):                   # [sin col, cos col, sin row, cos row], each width / 4
        entry = table[r * cols + c]
        angles = c * frequency(i, 4), r * frequency(i, 4)
        expected = [f(angle) for angle in angles for f in (math.sin, math.cos)]
        close([entry[i], entry[2 + i], entry[4 + i], entry[6 + i]], expected)


def test_every_patch_has_a_place_of_its_own():
    table = sincos_2d((14, 14), 32)
    distance = np.linalg.norm(table[:, None] - table, axis=-1) + np.eye(196)
    assert distance.min() > 0.1


def test_learned_positions_get_the_sum_over_the_batch(rng):
    x, table = rng.normal(size=(B, 3, 4)), rng.normal(size=(5, 4))
    y, cache = positional_forward(x, table)
    for b, t in np.ndindex(B, 3):
        np.testing.assert_array_equal(y[b, t], x[b, t] + table[t])
    dy = rng.normal(size=y.shape)
    dx, dtable = positional_backward(dy, cache)
    np.testing.assert_array_equal(dx, dy)
    close(dtable[:3], dy[0] + dy[1])
    np.testing.assert_array_equal(dtable[3:], np.zeros((2, 4)))      # nobody stood there


# ---- errors that teach -------------------------------------------------------------------------------------------------

def z(*shape):
    return np.zeros(shape)


def attend(q=(B, H, TQ, DK), k=(B, H, TK, DK), v=(B, H, TK, DV), mask=None):
    return lambda: scaled_dot_product_attention_forward(z(*q), z(*k), z(*v), mask)


def yes(*shape):
    return np.ones(shape, bool)


def shares(*targets, **options):
    return lambda: soft_cross_entropy_forward(z(2, 3), np.array(targets, float), **options)


def entropy(logits=(2, 5), targets=(0, 1), **options):
    return lambda: cross_entropy_forward(z(*logits), np.array(targets), **options)


# what is called, what it raises, and what the message says: the offending value, what was expected, the likely cause
ERRORS = {
    "gelu, unknown form": (lambda: gelu_forward(z(1), "erf"), ValueError, "expected approximate 'none' or 'tanh', got 'erf'"),
    "dropout of everything": (
        lambda: dropout_forward(z(1), 1.0), ValueError, r"number in \[0, 1\), got 1\.0: it is the fraction to drop"
    ),
    "dropout, negative": (lambda: dropout_forward(z(1), -0.1), ValueError, r"got -0\.1: .*to drop"),
    "dropout in percent": (lambda: dropout_forward(z(1), 10, np.random.default_rng(0)), ValueError, "got 10: .*to drop"),
    "dropout, NaN": (lambda: dropout_forward(z(1), float("nan")), ValueError, "got nan"),
    "linear, PyTorch's orientation": (
        lambda: linear_forward(z(2, 3, 4), z(5, 4)), ValueError,
        r"expected x \(\.\.\., 5\) for w \(5, 4\), got \(2, 3, 4\): is w stored as \(out, in\), the PyTorch way",
    ),
    "linear, one bias for all": (
        lambda: linear_forward(z(2, 4), z(4, 5), z(1)), ValueError, r"b \(5,\) for w \(4, 5\), got \(1,\): one bias for each"
    ),
    "embedding, floats": (
        lambda: embedding_forward(z(2), z(5, 3)), TypeError, "array of integers, got float64 .*: are ids and table in"
    ),
    "embedding, arguments swapped": (lambda: embedding_forward(z(5, 3), np.array([1])), TypeError, "in the right order"),
    "embedding, negative": (
        lambda: embedding_forward(np.array([2, -1]), z(5, 3)), IndexError, r"ids in \[0, 5\), got \[-1, 2\]: .*vocabulary"
    ),
    "embedding, one too many": (
        lambda: embedding_forward(np.array([[0, 5]]), z(5, 3)), IndexError, r"\[0, 5\), got \[0, 5\]: .*another vocabulary"
    ),
    "attention without heads": (
        attend(q=(B, TQ, DK)), ValueError, r"q, k, v \(B, H, T, d\), got \(2, 4, 6\), \(2, 3, 5, 6\), \(2, 3, 5, 7\)"
    ),
    "attention, other batch": (attend(q=(1, H, TQ, DK)), ValueError, r"got \(1, 3, 4, 6\), \(2, 3, 5, 6\)"),
    "attention, other heads": (attend(q=(B, 1, TQ, DK)), ValueError, r"got \(2, 1, 4, 6\), \(2, 3, 5, 6\)"),
    "attention, more values than keys": (
        attend(v=(B, H, TQ, DV)), ValueError, r"\(2, 3, 4, 7\): keys and values come from the same tokens"
    ),
    "attention, other width": (
        attend(q=(B, H, TQ, DV)), ValueError, r"got \(2, 3, 4, 7\).*queries and keys have the same size"
    ),
    "mask of numbers": (attend(mask=z(TQ, TK)), TypeError, "boolean array, True = may attend, got float64 .*: write mask"),
    "mask of integers": (attend(mask=np.ones(TK, int)), TypeError, r"got int64 of shape \(5,\): write mask != 0"),
    "mask on the query axis": (
        attend(mask=yes(B, 1, TQ, 1)), ValueError,
        r"\(B, H, Tq, Tk\) = \(2, 3, 4, 5\) with a last axis of Tk = 5, got \(2, 1, 4, 1\): is the mask on the query axis\? "
        r"A padding mask \(B, Tk\) becomes mask\[:, None, None, :\]",
    ),
    "mask of the other sentence": (attend(mask=yes(B, 1, 1, TQ)), ValueError, r"Tk = 5, got \(2, 1, 1, 4\)"),
    "padding mask as it is": (attend(mask=yes(B, TK)), ValueError, r"got \(2, 5\): .*becomes mask\[:, None, None, :\]"),
    "mask of another batch": (attend(mask=yes(3, 1, 1, TK)), ValueError, r"got \(3, 1, 1, 5\)"),
    "mask with an axis too many": (attend(mask=yes(1, B, H, TQ, TK)), ValueError, r"got \(1, 2, 3, 4, 5\)"),
    "mask without an axis": (attend(mask=np.array(True)), ValueError, r"Tk = 5, got \(\)"),
    "attention in tiles, other width": (
        lambda: memory_efficient_attention_forward(z(B, H, TQ, DV), z(B, H, TK, DK), z(B, H, TK, DV)), ValueError,
        r"got \(2, 3, 4, 7\).*queries and keys have the same size",
    ),
    "attention in tiles, mask of numbers": (
        lambda: memory_efficient_attention_forward(*(z(1, 1, 2, 2),) * 3, mask=z(2)), TypeError, "write mask != 0"
    ),
    "attention in no tiles": (
        lambda: memory_efficient_attention_forward(*(z(1, 1, 2, 2),) * 3, tile=0), ValueError, "tile to be .*at least 1, got 0"
    ),
    "masked_mse, class token": (
        lambda: masked_mse_forward(z(2, 5, 3), z(2, 4, 3), z(2, 4)), ValueError,
        r"got \(2, 5, 3\), \(2, 4, 3\), \(2, 4\): is the class token still in pred",
    ),
    "masked_mse, mask of pixels": (lambda: masked_mse_forward(z(2, 4, 3), z(2, 4, 3), z(2, 4, 3)), ValueError, "mask"),
    "masked_mse, ids_restore for mask": (
        lambda: masked_mse_forward(z(1, 3, 2), z(1, 3, 2), np.array([[2, 0, 1]])), ValueError, "from 0 to 2: is it ids_restore"
    ),
    "normalise_patches, one pixel": (
        lambda: normalise_patches(z(2, 4, 1)), ValueError, r"at least 2 values in a patch, got \(2, 4, 1\)"
    ),
    "cross_entropy, one-hot": (
        entropy(targets=np.eye(2)), TypeError, "targets to be .* integers, got float64 .*: class numbers, not one-hot rows"
    ),
    "cross_entropy, shapes": (
        entropy(targets=[1, 2, 3]), ValueError, r"expected targets \(2,\) for logits \(2, 5\), got \(3,\)"
    ),
    "cross_entropy, smoothing": (
        entropy(label_smoothing=1.0), ValueError, r"label_smoothing to be a number in \[0, 1\), got 1\.0"
    ),
    "cross_entropy, not in the vocabulary": (
        entropy(targets=[0, 5]), IndexError, r"targets in \[0, 5\), got \[0, 5\]: is the padding not the ignore_index"
    ),
    "cross_entropy, padding": (entropy(targets=[-100, 1]), IndexError, r"got \[-100, 1\]: is the padding not"),
    "soft_cross_entropy, class numbers": (
        shares(0, 1), ValueError, r"expected targets \(2, 3\) like the logits, got \(2,\)"
    ),
    "soft_cross_entropy, smoothing": (shares([1, 0, 0], [0, 1, 0], label_smoothing=1), ValueError, r"in \[0, 1\), got 1"),
    "soft_cross_entropy, no shares": (shares([1, 1, 0], [0, 1, 0]), ValueError, "with the sum 1, got sums from 1 to 2"),
    "soft_cross_entropy, negative": (shares([2, -1, 0], [0, 1, 0]), ValueError, "entries from -1"),
    "soft_cross_entropy, NaN": (shares([np.nan, 1, 0], [0, 1, 0]), ValueError, "got sums from nan"),
    "patchify, one picture": (
        lambda: patchify_forward(z(4, 4, 3), 2), ValueError, r"\(B, rows, cols, C\), got \(4, 4, 3\): is the batch axis missing"
    ),
    "patchify, rows": (
        lambda: patchify_forward(z(1, 5, 4, 3), 2), ValueError, "multiples of patch_size 2, got 5 x 4: resize or crop"
    ),
    "patchify, columns": (lambda: patchify_forward(z(1, 4, 5, 3), 2), ValueError, "patch_size 2, got 4 x 5: resize or crop"),
    "unpatchify, class token": (
        lambda: unpatchify(z(1, 7, 4), 2, (3, 2)), ValueError, r"got \(1, 7, 4\): is the class token still there"
    ),
    "image_sides, three": (lambda: patches.image_sides((4, 4, 3)), ValueError, r"\(rows, cols\), got \(4, 4, 3\)"),
    "unpatchify, a list": (
        lambda: unpatchify([[[0.0] * 4] * 6], 2, (3, 2)), TypeError, "patches to be an array, got list: np.array makes one"
    ),
    "unpatchify, other values": (lambda: unpatchify(z(1, 6, 5), 2, (3, 2)), ValueError, r"a multiple of 4.*got \(1, 6, 5\)"),
    "gather, ids of one picture": (
        lambda: gather_forward(z(2, 4, 3), np.array([0, 1])), ValueError, r"got \(2, 4, 3\) and \(2,\): one row for each image"
    ),
    "gather, ids of other pictures": (
        lambda: gather_forward(z(2, 4, 3), np.array([[0, 1]])), ValueError, r"got \(2, 4, 3\) and \(1, 2\): one row"
    ),
    "gather, too large": (
        lambda: gather_forward(z(2, 4, 3), np.array([[0], [4]])), IndexError, r"ids in \[0, 4\), got \[0, 4\]"
    ),
    "gather, negative": (lambda: gather_forward(z(2, 4, 3), np.array([[0], [-1]])), IndexError, r"got \[-1, 0\]"),
    "gather, floats": (lambda: gather_forward(z(2, 4, 3), z(2, 1)), TypeError, "ids to be an array of integers, got float64"),
    "unshuffle, more kept than patches": (
        lambda: unshuffle_forward(z(2, 5, 3), z(1, 1, 3), np.zeros((2, 4), int)), ValueError,
        r"\(B, N\) with N >= K = 5, got \(2, 4\)",
    ),
    "unshuffle, mask token of one number": (
        lambda: unshuffle_forward(z(2, 1, 3), z(1, 1, 1), np.zeros((2, 4), int)), ValueError,
        r"\(1, 1, 3\) for x \(2, 1, 3\), got \(1, 1, 1\)",
    ),
    "unshuffle, no permutation": (
        lambda: unshuffle_forward(z(2, 1, 3), z(1, 1, 3), np.zeros((2, 4), int)), ValueError, "once each: is it ids_keep"
    ),
    "patchify, no size": (lambda: patchify_forward(z(1, 4, 4, 3), 0), ValueError, "patch_size to be .*at least 1, got 0"),
    "softmax, a mask to add": (lambda: softmax_forward(z(3), np.array([0, 0, -np.inf])), TypeError, "float64 .*: write mask"),
    "softmax, a mask larger than the scores": (
        lambda: softmax_forward(z(4, 3), yes(2, 4, 3)), ValueError, r"to scores \(4, 3\), got \(2, 4, 3\)"
    ),
    "softmax, a mask of other keys": (lambda: softmax_forward(z(1, 3), yes(4, 3)), ValueError, r"got \(4, 3\)"),
    "layernorm, gamma of other axes": (
        lambda: layernorm_forward(z(2, 3, 3), z(3, 1), z(3)), ValueError, r"for x \(2, 3, 3\), got \(3, 1\) and \(3,\)"
    ),
    "positions, no batch": (lambda: positional_forward(z(5, 4), z(5, 4)), ValueError, r"got \(5, 4\) and \(5, 4\)"),
    "no halves": (lambda: sinusoidal_halves(0, 8), ValueError, "length to be a whole number of at least 1, got 0"),
    "halves without a dimension": (lambda: sinusoidal_halves(3, 0), ValueError, "dim to be .*at least 1, got 0"),
    "article A, no positions": (lambda: get_positional_encoding(0, 8), ValueError, "max_seq_len to be .*at least 1, got 0"),
    "halves of an odd dimension": (lambda: sinusoidal_halves(3, 7), ValueError, "even dimension, got 7: use sinusoidal_inter"),
    "sincos_2d, width": (lambda: sincos_2d((2, 2), 6), ValueError, "multiple of 4 .*, got 6"),
    "sincos_2d, one side": (lambda: sincos_2d(4, 8), ValueError, r"grid to be \(rows, cols\), .* got 4"),
    "sincos_2d, no patches": (lambda: sincos_2d((0, 2), 8), ValueError, r"grid\[0\] to be .*at least 1, got 0"),
    "no positions": (lambda: sinusoidal_interleaved(0, 8), ValueError, "length to be .*at least 1, got 0"),
    "no width": (lambda: get_positional_encoding(8, 0), ValueError, "embed_dim to be .*at least 1, got 0"),
    "positions, too short": (
        lambda: positional_forward(z(1, 5, 4), z(3, 4)), ValueError,
        r"\(at least 5, 4\) for x \(1, 5, 4\), got \(3, 4\): a learned table ends at the longest",
    ),
    "linear, w of one axis": (lambda: linear_forward(z(2, 3), z(3)), ValueError, r"w \(in, out\), each at least 1, got \(3,\)"),
    "linear, no inputs": (lambda: linear_forward(z(2, 0), z(0, 3)), ValueError, r"each at least 1, got \(0, 3\)"),
    "linear, dy transposed": (
        lambda: linear_backward(z(3, 2), linear_forward(z(2, 4), z(4, 3))[1]), ValueError,
        r"linear: expected dy of shape \(2, 3\), as the forward returned it, got \(3, 2\): is it transposed",
    ),
    "linear, dy to broadcast": (
        lambda: linear_backward(z(1, 3), linear_forward(z(2, 4), z(4, 3))[1]), ValueError, r"got \(1, 3\): nothing is broadcast"
    ),
    "linear, dy of float32": (
        lambda: linear_backward(z(2, 3).astype(np.float32), linear_forward(z(2, 4), z(4, 3))[1]), TypeError,
        "expected dy of float64, as the forward returned it, got float32",
    ),
    "linear, two dtypes": (
        lambda: linear_forward(z(2, 4), z(4, 3).astype(np.float32)), TypeError, "got x of float64 and w of float32: w.astype"
    ),
    "relu, a list": (lambda: relu_forward([1.0, 2.0]), TypeError, r"relu: expected x to be .* got \[1.0, 2.0\] \(list"),
    "layernorm, no features": (
        lambda: layernorm_forward(z(2, 0), z(0), z(0)), ValueError, r"D of at least 1, got \(2, 0\)"
    ),
    "softmax of one number": (lambda: softmax_forward(z()), TypeError, r"scores to be .* got float64 of shape \(\)"),
    "embedding, no dimension": (
        lambda: embedding_forward(np.array([0]), z(5, 0)), ValueError, r"table \(V, D\) with D of at least 1, got \(5, 0\)"
    ),
    "masked_mse, a mask of text": (
        lambda: masked_mse_forward(z(1, 2, 3), z(1, 2, 3), np.array([["1", "0"]])), TypeError, "mask to be an array of 0 and 1"
    ),
    "cross_entropy, no classes": (entropy((2, 0)), ValueError, r"V of at least 1, got \(2, 0\)"),
    "soft_cross_entropy, no classes": (
        lambda: soft_cross_entropy_forward(z(2, 0), z(2, 0)), ValueError, r"V of at least 1, got \(2, 0\)"
    ),
    "unshuffle, no batch": (
        lambda: unshuffle_forward(z(1, 3), z(1, 1, 3), np.zeros((2, 4), int)), ValueError, r"got \(1, 3\) and \(2, 4\)"
    ),
    "settings, a switch": (
        lambda: arguments.check_settings(SimpleNamespace(bias=1), switches=["bias"]), ValueError,
        "expected bias to be True or False, got 1",
    ),
    "settings, a number": (
        lambda: arguments.check_scalars("", "count", heads=0), ValueError,
        "^expected heads to be a whole number of at least 1, got 0$",
    ),
    "positions, other width": (
        lambda: positional_forward(z(1, 2, 4), z(3, 8)), ValueError, r"\(at least 2, 4\) .*got \(3, 8\)"
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_is_wrong(name):
    call, kind, message = ERRORS[name]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert type(caught.value) is kind


MODULES = [
    arguments, activation, attention, dropout, embedding, layernorm, linear, losses, memory_efficient_attention, patches,
    positional, softmax,
]


def test_every_error_of_every_op_is_tested():
    """Each `raise` in tinymae/ops is the end of some call in ERRORS."""
    raised = set()
    for call, kind, _ in ERRORS.values():
        with pytest.raises(kind) as caught:
            call()
        last = traceback.extract_tb(caught.value.__traceback__)[-1]
        raised.add((last.filename, last.lineno))
    untested = [
        f"{module.__name__}, line {node.lineno}: {re.sub(' +', ' ', ast.unparse(node))}"
        for module in MODULES
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Raise)
        and not any(file == module.__file__ and node.lineno <= line <= node.end_lineno for file, line in raised)
    ]
    assert untested == []


# ---- at the edges of the numbers ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", ["none", "tanh"])
def test_gelu_of_any_finite_number(form, dtype):
    """x^2 and x^3 overflow from 1e13 on in float32; gelu is x or 0 there, and its slope 1 or 0."""
    huge = np.array([40, 1e4, 1e14, 3e19, 1e38, *([1e200] if dtype == np.float64 else [])], dtype)
    y, cache = gelu_forward(np.concatenate([huge, -huge]), form)
    np.testing.assert_array_equal(y, np.concatenate([huge, np.zeros_like(huge)]))
    dx = gelu_backward(np.ones_like(y), cache)
    np.testing.assert_array_equal(dx, np.repeat(np.array([1, 0], dtype), len(huge)), strict=True)


@pytest.mark.parametrize("value", [-12345.678, 0.1, 7e4, 1e-30, -3e12])
@pytest.mark.parametrize("width", [5, 12, 192])
def test_layernorm_of_equal_features(value, width):
    """Their mean is the value itself, up to rounding; what rounding leaves must not become the output."""
    gamma, beta = np.ones(width, np.float32), np.zeros(width, np.float32)
    y, (_, rstd, _) = layernorm_forward(np.full((3, width), value, np.float32), gamma, beta)
    assert np.abs(y).max() < 2e-5
    np.testing.assert_allclose(rstd, math.sqrt(1e5), rtol=1e-5)


@pytest.mark.parametrize("offset", [0, 30, 1000, -12345.678, 1e5])
def test_layernorm_far_from_zero(offset):
    """Against float64; without the second mean it is off by 2e-3 at -12345.678, and by 2e-2 at 1e5."""
    x = (np.random.default_rng(0).normal(size=(40, 192)) + offset).astype(np.float32)
    gamma, beta = np.ones(192, np.float32), np.zeros(192, np.float32)
    exact = x - x.mean(axis=-1, keepdims=True, dtype=np.float64)
    exact /= np.sqrt((exact * exact).mean(axis=-1, keepdims=True) + 1e-5)
    for rows in (x, x[:1], x[0]):
        y = layernorm_forward(rows, gamma, beta)[0]
        assert np.abs(y - exact[: len(rows)].reshape(-1, 192)[: y.size // 192].reshape(y.shape)).max() < 2e-6
    near = (x - np.float32(offset))[1:]                         # a row far from 0 changes nothing in its neighbours
    together = layernorm_forward(np.concatenate([x[:1], near]), gamma, beta)[0][1:]
    np.testing.assert_array_equal(together, layernorm_forward(np.concatenate([near[:1], near]), gamma, beta)[0][1:])


def test_soft_cross_entropy_of_impossible_classes():
    """0 log 0 is 0: a logit of -infinity where the target is 0 is a class that can be left out."""
    logits = np.array([[1.0, -np.inf, 2.0, 0.5], [0.0, 1.0, -1.0, -np.inf]])
    targets = np.array([[0.25, 0, 0.75, 0], [0.5, 0.5, 0, 0]])
    loss, cache = soft_cross_entropy_forward(logits, targets)
    rest = [soft_cross_entropy_forward(logits[:1, [0, 2, 3]], targets[:1, [0, 2, 3]])[0],
            soft_cross_entropy_forward(logits[1:, :3], targets[1:, :3])[0]]
    assert loss == pytest.approx(np.mean(rest), rel=1e-14)
    dlogits = soft_cross_entropy_backward(1.0, cache)
    assert np.isfinite(dlogits).all() and dlogits[0, 1] == dlogits[1, 3] == 0


def test_cross_entropy_ignores_all_of_a_row():
    logits = np.array([[0.0, 1.0, 2.0], [-np.inf, 0.0, 1.0]])   # the ignored row has -infinity where a target would be
    loss, cache = cross_entropy_forward(logits, np.array([2, -100]), ignore_index=-100)
    assert loss == cross_entropy_forward(logits[:1], np.array([2]))[0]
    assert (cross_entropy_backward(1.0, cache)[1] == 0).all()


def test_losses_of_nothing():
    loss, cache = soft_cross_entropy_forward(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))
    assert loss == 0 and loss.dtype == np.float32 and soft_cross_entropy_backward(1.0, cache).shape == (0, 3)
    loss, cache = cross_entropy_forward(np.zeros((0, 3)), np.zeros(0, int))
    assert loss == 0 and cross_entropy_backward(1.0, cache).shape == (0, 3)


def test_a_setting_of_numpy_keeps_float32():
    """np.float64(0.1) is no Python float to NumPy: it would have made float64 of the gradient."""
    logits = np.ones((2, 3), np.float32)
    _, cache = cross_entropy_forward(logits, np.array([0, 1]), label_smoothing=np.float64(0.1))
    assert cross_entropy_backward(np.float64(1.0), cache).dtype == np.float32
    _, cache = soft_cross_entropy_forward(logits, np.eye(3, dtype=np.float32)[:2], label_smoothing=np.float64(0.1))
    assert soft_cross_entropy_backward(np.float64(1.0), cache).dtype == np.float32


@pytest.mark.parametrize("value", [0.5, -1, 2, np.nan])
def test_a_mask_of_halves(value):
    mask = np.array([[1.0, value]])
    with pytest.raises(ValueError, match="masked_mse: expected a mask of 0"):
        masked_mse_forward(z(1, 2, 3), z(1, 2, 3), mask)
