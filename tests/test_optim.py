"""AdamW: its blocks, a learning rate for each leaf, and what it refuses. What it shares with PyTorch is in test_golden.py,
layer-wise decay in test_vit.py."""
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tinymae import tree
from tinymae.train.optim import BLOCK, SGD, AdamW, Muon, clip_grad_norm, noam, orthogonal, warmup_cosine


def tree_of(rng):
    return {"low": rng.normal(size=(3, 4)), "high": [rng.normal(size=5), rng.normal(size=(2, 2))]}


def moved(rates, lr, steps=6):
    """The parameters after some steps."""
    rng = np.random.default_rng(0)
    params = tree_of(rng)
    decays = {"low": True, "high": [False, True]}
    optimizer = AdamW(params, betas=(0.9, 0.99), weight_decay=0.3, decays=decays, rates=rates)
    for _ in range(steps):
        optimizer.step(params, tree_of(rng), lr)
    return params


def test_a_rate_is_a_learning_rate_of_ones_own():
    """Each leaf moves, and decays, as in a run with its rate times the learning rate."""
    both = moved({"low": 0.25, "high": [1.0, 0.5]}, lr=0.125)
    np.testing.assert_array_equal(both["low"], moved(None, 0.25 * 0.125)["low"])
    np.testing.assert_array_equal(both["high"][0], moved(None, 0.125)["high"][0])
    np.testing.assert_array_equal(both["high"][1], moved(None, 0.5 * 0.125)["high"][1])
    assert not np.allclose(both["low"], moved(None, 0.125)["low"])


def test_a_rate_of_zero_holds_a_leaf_still():
    start = tree_of(np.random.default_rng(0))
    after = moved({"low": 0.0, "high": [1.0, 1.0]}, lr=0.125)
    np.testing.assert_array_equal(after["low"], start["low"])
    assert not np.allclose(after["high"][0], start["high"][0])


def test_rates_of_another_shape():
    with pytest.raises(ValueError, match="expected the keys"):
        moved({"low": 1.0}, 0.1)


@pytest.mark.parametrize("max_norm", [0, -1.0, float("nan")])
def test_a_norm_to_clip_to_is_positive(max_norm):
    with pytest.raises(ValueError, match=f"positive norm, got {max_norm}"):
        clip_grad_norm({"w": np.ones(2)}, max_norm)


@pytest.mark.parametrize("step", [-1, 11])
def test_a_cosine_has_an_end(step):
    with pytest.raises(ValueError, match=rf"a step in \[0, 10\], got {step}: past its end the cosine rises again"):
        warmup_cosine(step, 10, 2, 0.1)
    assert warmup_cosine(10, 10, 2, 0.1) == 0


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_every_number_of_a_large_tensor_is_trained(size, dtype):
    """Blocks that are full, too short, and one number more than fits: equations (1) to (3), for all numbers at once."""
    rng = np.random.default_rng(size)
    (b1, b2), eps, decay, rate = (0.9, 0.99), 1e-8, 0.1, 0.5
    params = {"w": rng.normal(size=size).astype(dtype), "b": rng.normal(size=size).astype(dtype)}
    expected = {name: leaf.astype(np.float64) for name, leaf in params.items()}
    m, v = ({name: np.zeros(size) for name in params} for _ in "mv")
    optimizer = AdamW(params, betas=(b1, b2), eps=eps, weight_decay=decay, decays={"w": True, "b": False},
                      rates={"w": rate, "b": 1.0})
    for t in (1, 2, 3):
        grads = {name: rng.normal(size=size).astype(dtype) for name in params}
        given = {name: g.copy() for name, g in grads.items()}
        optimizer.step(params, grads, 0.1 / t)
        for name, g in grads.items():
            np.testing.assert_array_equal(g, given[name])       # a gradient is read, not written
            m[name] = b1 * m[name] + (1 - b1) * g
            v[name] = b2 * v[name] + (1 - b2) * g.astype(np.float64)**2
            lr = 0.1 / t * (rate if name == "w" else 1)
            mhat, vhat = m[name] / (1 - b1**t), v[name] / (1 - b2**t)
            expected[name] = expected[name] * (1 - lr * decay * (name == "w")) - lr * mhat / (np.sqrt(vhat) + eps)
    assert optimizer.t == 3
    for name in params:
        assert params[name].dtype == optimizer.m[name].dtype == optimizer.v[name].dtype == dtype
        tolerance = dict.fromkeys(("rtol", "atol"), 1e-13 if dtype == np.float64 else 1e-6)
        for ours, theirs in ((params, expected), (optimizer.m, m), (optimizer.v, v)):
            np.testing.assert_allclose(ours[name], theirs[name], **tolerance)


def test_a_matrix_in_blocks_is_trained_like_its_rows():
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(3, BLOCK // 2 + 1))
    rows = [row.copy() for row in whole]
    gradient = rng.normal(size=whole.shape)
    together, apart = AdamW({"w": whole}), AdamW({"w": rows})
    for _ in range(2):
        together.step({"w": whole}, {"w": gradient}, 0.1)
        apart.step({"w": rows}, {"w": list(gradient)}, 0.1)
    np.testing.assert_array_equal(whole, rows)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("leaf", [
    pytest.param(lambda: np.ones((3, 4)).T, id="not contiguous"), pytest.param(lambda: np.ones(8)[::2], id="every second"),
    pytest.param(lambda: read_only(np.ones((3, 4))), id="read-only"),
])
def test_parameters_that_cannot_be_trained(leaf):
    """Each reason alone is one: a block of a copy would be trained, and the parameter would stay."""
    with pytest.raises(ValueError, match=r"contiguous, writeable arrays, high\.0\.w is not: pass leaf\.copy\(\)"):
        AdamW({"low": np.ones(2), "high": [{"w": leaf()}]})


@pytest.mark.parametrize("shape", [(3, 2), (6,), (1, 2, 3), (1,)], ids=str)
def test_a_gradient_of_another_shape(shape):
    """(3, 2), (6,) and (1, 2, 3) have as many numbers, and would move the wrong ones."""
    params = {"w": np.ones((2, 3))}
    with pytest.raises(ValueError, match=rf"gradient of shape \(2, 3\), got \({shape[0]},"):
        AdamW(params).step(params, {"w": np.ones(shape)}, 0.1)
    np.testing.assert_array_equal(params["w"], 1)


@pytest.mark.parametrize("step", [0, -1])
def test_noam_counts_from_one(step):
    with pytest.raises(ValueError, match=f"step of at least 1, got {step}: 0 to the power"):
        noam(step, 512)
    assert noam(1, 512) == pytest.approx(512**-0.5 * 4000**-1.5)


def test_a_cosine_of_one_step():
    assert [warmup_cosine(step, 3, 2, 0.1) for step in range(4)] == pytest.approx([0, 0.05, 0.1, 0])
    assert warmup_cosine(2, 2, 2, 0.1) == 0.1                   # no step is left to fall


def test_the_defaults_are_those_of_adam():
    """Kingma & Ba 2015, and no decay: the first step is the learning rate, whatever the gradient, but for eps."""
    params = {"w": np.zeros(2)}
    optimizer = AdamW(params)
    assert (optimizer.betas, optimizer.eps, optimizer.weight_decay) == ((0.9, 0.999), 1e-8, 0.0)
    optimizer.step(params, {"w": np.array([3.0, 1e-8])}, 0.1)
    np.testing.assert_allclose(params["w"], [-0.1, -0.05], rtol=1e-6)


@pytest.mark.parametrize("max_norm", [1e-6, 1.0, math.inf])     # 1e-6: the factor is 1 exactly
def test_what_is_short_enough_is_not_written_to(max_norm):
    assert clip_grad_norm({"w": read_only(np.zeros(3))}, max_norm) == 0


def test_a_norm_that_is_only_measured():
    grads = {"a": np.array([3.0, 0.0]), "b": [np.array([[4.0]])]}
    assert clip_grad_norm(grads, math.inf) == 5 and grads["a"][0] == 3 and grads["b"][0] == 4
    assert clip_grad_norm(grads, 2.5) == 5
    np.testing.assert_allclose([*grads["a"], *grads["b"][0][0]], [1.5, 0, 2], rtol=1e-6)


@pytest.mark.parametrize(("call", "message"), [
    (lambda p: AdamW(p, betas=(0.9, 1.0)), r"AdamW: expected betas\[1\] to be a number in \[0, 1\), got 1\.0"),
    (lambda p: AdamW(p, eps=-1e-8), "AdamW: expected eps to be a number of at least 0, got -1e-08"),
    (lambda p: AdamW(p, weight_decay=math.nan), "AdamW: expected weight_decay to be .* got nan"),
    (lambda p: AdamW(p).step(p, p, math.nan), "AdamW: expected lr to be .* got nan"),
    (lambda p: AdamW(p).step(p, p, -0.1), "AdamW: expected lr to be .* got -0.1"),
    (lambda p: SGD(p, momentum=1), "SGD: expected momentum to be .* got 1"),
    (lambda p: SGD(p, weight_decay="0"), "SGD: expected weight_decay to be .* got '0'"),
    (lambda p: SGD(p).step(p, p, math.inf), "SGD: expected lr to be .* got inf"),
    (lambda p: SGD(p).step(p, {"w": np.ones((1, 2))}, 0.1), r"SGD: expected a gradient of shape \(2,\), got \(1, 2\)"),
    (lambda p: SGD({"w": np.ones((2, 3)).T}), "SGD: expected contiguous, writeable arrays, w is not"),
    (lambda p: warmup_cosine(1, 10, -1, 0.1), "expected warmup to be"), (lambda p: noam(1, 8, 0), "expected warmup to be"),
    (lambda p: warmup_cosine(11, 10, 1, 0.1), r"step in \[0, 10\], got 11: past its end the cosine rises again"),
])
def test_numbers_out_of_range(call, message):
    params = {"w": np.ones(2)}
    with pytest.raises(ValueError, match=message):
        call(params)
    np.testing.assert_array_equal(params["w"], 1)


@pytest.mark.parametrize("optimiser", [AdamW, SGD])
def test_parameters_of_another_dtype(optimiser):
    with pytest.raises(TypeError, match=r"expected low\.w to be a float32 or float64 array, got int64 of shape \(2,\)"):
        optimiser({"low": {"w": np.array([1, 2])}})


def test_plain_sgd_is_gradient_descent():
    for dtype in (np.float32, np.float64):
        params = {"w": np.array([1, -2], dtype)}
        optimizer = SGD(params)
        optimizer.step(params, {"w": np.array([4, 2], dtype)}, 0.25)
        optimizer.step(params, {"w": np.array([2, 0], dtype)}, 0.5)
        np.testing.assert_array_equal(params["w"], np.array([-1, -2.5], dtype), strict=True)
    assert (optimizer.t, optimizer.m["w"].tolist()) == (2, [2, 0])


# Muon


def five_steps(s):
    """What equation (12) makes of singular values: the same polynomial, on numbers in place of matrices."""
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-5), (np.float32, 1e-4)])
@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (1, 5), (5, 1)])
def test_orthogonal_keeps_the_singular_vectors(shape, dtype, tolerance):
    u = np.random.default_rng(3).normal(size=shape).astype(dtype)
    before = u.copy()
    o = orthogonal(u)
    assert o.shape == u.shape and o.dtype == dtype
    np.testing.assert_array_equal(u, before)
    w, s, v = np.linalg.svd(u.astype(np.float64), full_matrices=False)
    values = five_steps(s / np.linalg.norm(s))
    np.testing.assert_allclose(o, w * values @ v, atol=tolerance)
    assert (values[s > 0.01 * s[0]] > 0.6).all() and (values < 1.3).all()
    assert (orthogonal(np.zeros(shape, dtype)) == 0).all()


def test_muon_as_its_equations():
    """Equations (7) to (10) written anew, with a singular value decomposition for (9); a fused matrix moves as its parts do."""
    rng = np.random.default_rng(0)
    params = {"qkv": rng.normal(size=(4, 12)), "fc": rng.normal(size=(4, 6)), "b": rng.normal(size=6)}
    matrices, decays = {"qkv": 3, "fc": 1, "b": 0}, {"qkv": True, "fc": False, "b": False}
    expected = {name: leaf.copy() for name, leaf in params.items()}
    momentum = {name: np.zeros_like(leaf) for name, leaf in params.items()}
    plain = {"b": params["b"].copy()}
    muon = Muon(params, matrices, rate=7.0, momentum=0.9, betas=(0.8, 0.9), weight_decay=0.3, decays=decays)
    adamw = AdamW(plain, betas=(0.8, 0.9))
    for lr in (0.1, 0.02):
        grads = {name: rng.normal(size=leaf.shape) for name, leaf in params.items()}
        muon.step(params, grads, lr)
        adamw.step(plain, {"b": grads["b"]}, lr)
        for name, parts in (("qkv", 3), ("fc", 1)):
            momentum[name] = 0.9 * momentum[name] + grads[name]
            moved = []
            for u in np.split(grads[name] + 0.9 * momentum[name], parts, axis=1):
                w, s, v = np.linalg.svd(u, full_matrices=False)
                wide = max(1, u.shape[1] / u.shape[0]) ** 0.5
                moved.append(lr * 7.0 * wide * (w * five_steps(s / np.linalg.norm(s)) @ v))
            expected[name] = expected[name] * (1 - lr * 0.3 * decays[name]) - np.concatenate(moved, axis=1)
            np.testing.assert_allclose(params[name], expected[name], atol=1e-5)
        np.testing.assert_array_equal(params["b"], plain["b"])
    assert muon.t == 2 and not muon.v["qkv"].any()


def test_muon_in_threads_moves_to_the_same_bits():
    rng = np.random.default_rng(0)
    params = {"w": [rng.normal(size=(8, 24)).astype(np.float32) for _ in range(5)], "b": rng.normal(size=24)}
    matrices = {"w": [3, 1, 1, 3, 1], "b": 0}
    both = []
    with ThreadPoolExecutor(3) as pool:
        for mapped in (map, pool.map):
            moved, grads = tree.map(np.copy, params), np.random.default_rng(1)
            muon = Muon(moved, matrices, weight_decay=0.1, mapped=mapped)
            for _ in range(3):
                muon.step(moved, tree.map(lambda leaf, rng=grads: rng.normal(size=leaf.shape).astype(leaf.dtype), params), 0.01)
            both.append(moved)
    tree.map(np.testing.assert_array_equal, *both)


def test_muon_refuses_what_adamw_refuses():
    params = {"w": np.zeros((2, 2))}
    with pytest.raises(ValueError, match="momentum"):
        Muon(params, {"w": 1}, momentum=1.0)
    with pytest.raises(ValueError, match=r"expected a gradient of shape \(2, 2\)"):
        Muon(params, {"w": 1}).step(params, {"w": np.zeros((2, 3))}, 0.1)
