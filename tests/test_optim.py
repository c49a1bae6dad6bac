"""AdamW with a learning rate for each leaf. What it shares with PyTorch is in test_golden.py, layer-wise decay in test_vit."""
import numpy as np
import pytest

from tinymae.train.optim import AdamW, clip_grad_norm, warmup_cosine


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
