"""The loop: how long it runs, how it stops, what it calls and when, and that the gradient it is given trains."""
import copy
import math
import re
import signal
import threading
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from tinymae import tree
from tinymae.arguments import check_settings
from tinymae.models.mae import MAEConfig, mae_backward, mae_decays, mae_forward, mae_init
from tinymae.tasks.restore import mae_gradient
from tinymae.train import loop
from tinymae.train.loop import Run, cosine, train
from tinymae.train.optim import AdamW, noam, warmup_cosine
from tinymae.train.parallel import Workers
from tinymae.train.signals import stop_signals

CONFIG = MAEConfig(
    img_size=12, patch_size=4, in_chans=1, embed_dim=8, depth=1, num_heads=2, decoder_embed_dim=8, decoder_depth=1,
    decoder_num_heads=2,
)


class Recorder:
    """An optimiser that moves nothing and keeps what it is given."""

    def __init__(self):
        self.rates, self.gradients = [], []

    def step(self, params, grads, lr):
        self.rates.append(lr)
        self.gradients.append(tree.map(np.copy, grads))


def simple_run(optimizer=None):
    """A run on five numbers in three leaves."""
    params = {"w": np.ones(3), "b": [np.zeros(1), np.zeros(1)]}
    return Run(params, optimizer or Recorder(), np.random.default_rng(0))


def ones(params, rng):
    return 1.0, tree.map(np.ones_like, params)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until somebody moves it."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def slow(clock, seconds):
    def gradient(params, rng):
        clock.now += seconds
        return ones(params, rng)

    return gradient


# How long


@pytest.mark.parametrize("length", [
    {}, {"steps": 3, "minutes": 1.0}, {"steps": 0}, {"steps": -1}, {"minutes": 0.0}, {"minutes": -1.0},
    {"steps": 0, "minutes": 1.0}, {"minutes": math.nan}, {"minutes": math.inf},
])
def test_steps_or_minutes_one_of_them_and_positive(length):
    run = simple_run()
    with pytest.raises(ValueError, match="one of steps, minutes and epochs, positive"):
        train(run, ones, cosine(1e-3), batch=4, **length, bar=False)
    assert run.step == 0 and run.losses == []


def test_steps():
    run = simple_run()
    assert train(run, ones, cosine(1e-3), batch=4, steps=7, bar=False) is run
    assert run.step == 7 and run.losses == [1.0] * 7 and not run.interrupted
    train(run, ones, cosine(1e-3), batch=4, steps=10, bar=False)              # in all, not once more
    assert run.step == len(run.losses) == 10
    train(run, ones, cosine(1e-3), batch=4, steps=10, bar=False)
    assert run.step == len(run.losses) == 10


def test_minutes(clock):
    run = train(simple_run(), slow(clock, 7), cosine(1e-3), batch=4, minutes=1, bar=False)
    assert run.step == 9 and run.seconds == 63                  # 56 s are not yet a minute
    clock.now += 1000                                           # a pause between two parts does not count
    train(run, slow(clock, 7), cosine(1e-3), batch=4, minutes=2, bar=False)
    assert run.step == 18 and run.seconds == 126


def test_minutes_with_a_real_clock():
    run = train(simple_run(), ones, cosine(1e-3), batch=4, minutes=0.02, bar=False)
    assert run.step > 0 and run.seconds >= 1.2


def test_seconds_add_up(clock):
    run = simple_run()
    for total in (3, 5):
        train(run, slow(clock, 2), cosine(1e-3), batch=4, steps=total, bar=False)
    assert run.seconds == 10


# What is called, and when


def test_one_learning_rate_for_each_step():
    run = train(simple_run(), ones, cosine(0.5, 0.1), batch=4, steps=40, bar=False)
    rates = run.optimizer.rates
    assert rates == [warmup_cosine(step / 40, 1.0, 0.1, 0.5) for step in range(40)]
    assert rates[0] == 0 and max(rates) == rates[4] == 0.5 and 0 < rates[-1] < 0.02
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_with_minutes_the_learning_rate_follows_the_clock(clock):
    run = train(simple_run(), slow(clock, 6), cosine(0.5), batch=4, minutes=1, bar=False)
    assert run.optimizer.rates == [warmup_cosine(step / 10, 1.0, 0.05, 0.5) for step in range(10)]


def test_a_resumed_run_goes_on_in_its_schedule():
    straight = train(simple_run(), ones, cosine(0.5), batch=4, steps=12, bar=False)
    run = train(simple_run(), interrupts_at(5), cosine(0.5), batch=4, steps=12, bar=False)
    assert run.interrupted and run.step == 5
    train(run, ones, cosine(0.5), batch=4, steps=12, bar=False)
    assert run.optimizer.rates == straight.optimizer.rates


def test_evaluations_where_they_are_asked_for():
    ends = (3 / 11, 7 / 11, 11 / 11)                            # epochs of 3, 4 and 4 steps
    run = train(simple_run(), ones, cosine(0.5), batch=4, steps=11, evaluate=lambda params: 1.0, evaluate_at=ends, bar=False)
    assert [step for step, _ in run.evaluations] == [3, 7, 11]


def test_a_schedule_that_counts_steps():
    run = train(simple_run(), ones, lambda step, progress: noam(step + 1, 64, 4), batch=4, steps=9, bar=False)
    assert run.optimizer.rates == [noam(step, 64, 4) for step in range(1, 10)] and np.argmax(run.optimizer.rates) == 3


@pytest.mark.parametrize(("steps", "count"), [(100, 20), (1000, 20), (30, 20), (7, 7), (1, 1)])
def test_twenty_evaluations_and_one_at_the_end(steps, count):
    seen = []

    def evaluate(params):
        seen.append(params)
        return np.float32(len(seen))

    run = train(simple_run(), ones, cosine(1e-3), batch=4, steps=steps, evaluate=evaluate, bar=False)
    at = [step for step, _ in run.evaluations]
    assert len(at) == count and at[-1] == steps
    assert max(np.diff([0, *at])) <= math.ceil(steps / 20) + 1  # evenly
    assert [value for _, value in run.evaluations] == list(range(1, count + 1))
    assert all(type(value) is float for _, value in run.evaluations)
    assert all(params is run.params for params in seen)


def test_evaluation_at_the_end_of_an_interrupted_run():
    run = train(simple_run(), interrupts_at(3), cosine(1e-3), batch=4, steps=1000, evaluate=lambda params: 2.0, bar=False)
    assert run.evaluations == [(3, 2.0)]


def test_no_step_to_do_means_no_second_evaluation():
    run = train(simple_run(), ones, cosine(1e-3), batch=4, steps=5, evaluate=lambda params: 2.0, bar=False)
    before = list(run.evaluations)
    train(run, ones, cosine(1e-3), batch=4, steps=5, evaluate=lambda params: 3.0, bar=False)
    assert run.evaluations == before


def test_saved_at_once_every_half_minute_and_at_the_end(clock):
    saved = []
    train(simple_run(), slow(clock, 7), cosine(1e-3), batch=4, steps=12, save=lambda run: saved.append(run.step), bar=False)
    assert saved == [0, 5, 10, 12]                              # after 7, 42, 77 and 84 seconds
    train(simple_run(), slow(clock, 7), cosine(1e-3), batch=4, steps=3, save=lambda run: saved.append(run.step), bar=False)
    assert saved[4:] == [0, 3]
    saved.clear()
    train(simple_run(), slow(clock, 7), cosine(1e-3), batch=4, steps=4, save=lambda run: saved.append(run.step),
          save_every=10, bar=False)
    assert saved == [0, 2, 4]


def test_what_is_saved_is_whole(clock):
    """When save is called, losses, steps and the optimiser agree."""
    def save(run):
        assert run.step == len(run.losses) == len(run.optimizer.rates)
        assert run.evaluations[-1][0] == run.step if run.step else not run.evaluations

    train(simple_run(), slow(clock, 40), cosine(1e-3), batch=4, steps=3, save=save, evaluate=lambda params: 1.0, bar=False)


@pytest.mark.parametrize(("max_norm", "norm"), [(None, math.sqrt(5)), (0.5, 0.5), (100.0, math.sqrt(5))])
def test_clip(max_norm, norm):
    run = train(simple_run(), ones, cosine(1e-3), batch=4, steps=2, max_norm=max_norm, bar=False)
    for gradients in run.optimizer.gradients:
        assert math.sqrt(sum((leaf**2).sum() for _, leaf in tree.leaves(gradients))) == pytest.approx(norm, rel=1e-5)


def test_bar(capfd):
    train(simple_run(), ones, cosine(1e-3), batch=4, steps=3, bar=False, evaluate=lambda params: 1.0)
    train(simple_run(), ones, cosine(1e-3), batch=4, minutes=1e-4, bar=False)
    out, err = capfd.readouterr()
    assert out == err == ""
    train(simple_run(), ones, cosine(1e-3), batch=4, steps=3)
    out, err = capfd.readouterr()
    assert out == "" and "100 %" in err and "3/3 steps" in err and "loss 1.0000" in err and "images/s" in err


# How it stops


def interrupts_at(step, times=1):
    """A gradient during whose call number `step` (from 1) somebody presses Ctrl-C."""
    calls = []

    def gradient(params, rng):
        calls.append(None)
        if len(calls) == step:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return ones(params, rng)

    return gradient


def test_ctrl_c_finishes_the_step_and_saves():
    before = signal.getsignal(signal.SIGINT)
    saved = []
    run = train(simple_run(), interrupts_at(4), cosine(1e-3), batch=4,
              steps=9, save=lambda run: saved.append(run.step), bar=False)
    assert run.interrupted and run.step == len(run.losses) == len(run.optimizer.rates) == 4 and saved == [0, 4]
    assert signal.getsignal(signal.SIGINT) is before
    train(run, ones, cosine(1e-3), batch=4, steps=9, bar=False)
    assert not run.interrupted and run.step == 9


def test_the_second_ctrl_c_does_not_wait():
    before = signal.getsignal(signal.SIGINT)
    run, saved = simple_run(), []
    with pytest.raises(KeyboardInterrupt) as error:
        train(run, interrupts_at(3, times=2), cosine(1e-3), batch=4, steps=9, bar=False,
              save=lambda run: saved.append(run.step))
    assert run.step == 2 and saved == [0, 2]
    assert error.value.__notes__ == ["the run is saved as it was after 2 steps, and can be resumed from there"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_gives_ctrl_c_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError):
        train(simple_run(), lambda params, rng: 1 / 0, cosine(1e-3), batch=4, steps=9, bar=False)
    assert signal.getsignal(signal.SIGINT) is before


def test_stop_signals():
    with stop_signals() as stop:
        assert not stop.stop.is_set()
        signal.raise_signal(signal.SIGINT)
        assert stop.stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGTERM)
        assert ended.value.code == 128 + signal.SIGTERM
        done = []
        with pytest.raises(SystemExit), stop.put_off():         # what has begun ends first
            with stop.put_off():
                signal.raise_signal(signal.SIGTERM)
                done.append(1)
            done.append(2)
        assert done == [1, 2]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_is_ignored_or_handled_elsewhere_stays_so():
    """As SIGHUP is under nohup."""
    received = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
        assert received == [signal.SIGTERM] and not stop.stop.is_set()
    finally:
        signal.signal(signal.SIGTERM, previous)
        signal.signal(signal.SIGINT, interrupt)


class Halfway(Exception):
    pass


def stopped(where, error=Halfway, call=4):
    """A run that an error ends in a call of `where`: (what was saved, the error)."""
    calls, saved = {"gradient": 0, "evaluate": 0, "report": 0, "step": 0}, []

    def count(name):
        calls[name] += 1
        if name == where and calls[name] == call:
            raise error

    class Optimizer(Recorder):
        def step(self, params, grads, lr):
            params["w"][0] += 1
            count("step")
            super().step(params, grads, lr)

    def gradient(params, rng):
        rng.random()
        rng.spawn(1)
        count("gradient")
        return ones(params, rng)

    def evaluate(params):
        count("evaluate")
        return 1.0

    def save(run):
        saved.append((run.step, run.rng.random(), run.rng.spawn(1)[0].random(), run.evaluation_due, len(run.evaluations)))

    def report(value):
        count("report")

    with pytest.raises(error) as caught:
        train(simple_run(Optimizer()), gradient, cosine(1e-3), batch=4, steps=20, evaluate=evaluate, report=report,
              save=lambda run: save(copy.deepcopy(run)), bar=False)
    return saved, caught.value


@pytest.mark.parametrize("error", [Halfway, BrokenPipeError, SystemExit, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("where", ["gradient", "evaluate", "report"])
def test_whatever_ends_it_the_last_state_between_two_steps_is_saved(where, error):
    saved, caught = stopped(where, error)
    steps = 3 if where == "gradient" else 4
    fresh = np.random.default_rng(0)                            # the generator after so many steps, whatever happened since
    for _ in range(steps):
        fresh.random()
        fresh.spawn(1)
    assert [step for step, *_ in saved] == [0, steps]
    assert saved[-1][1:3] == (fresh.random(), fresh.spawn(1)[0].random())
    assert saved[-1][3:] == ((False, 3) if where == "gradient" else (True, 3))
    assert caught.__notes__ == [f"the run is saved as it was after {steps} steps, and can be resumed from there"]


def test_half_a_step_is_not_saved():
    saved, caught = stopped("step")
    assert [step for step, *_ in saved] == [0]
    assert caught.__notes__ == ["the run is saved as it was after 0 steps, and can be resumed from there"]


def test_an_evaluation_that_was_missed_is_made_up_for():
    run = simple_run()
    run.step, run.losses, run.evaluation_due = 7, [1.0] * 7, True
    train(run, ones, cosine(1e-3), batch=4, steps=20, evaluate=lambda params: 2.0, bar=False)
    assert [step for step, _ in run.evaluations] == list(range(7, 21))


def test_an_error_before_the_first_gradient_saves_nothing():
    saved = []
    with pytest.raises(ZeroDivisionError) as error:
        train(simple_run(), lambda params, rng: 1 / 0, cosine(1e-3), batch=4, steps=9, save=saved.append, bar=False)
    assert saved == [] and not hasattr(error.value, "__notes__")


def test_a_save_that_fails_ends_the_run_and_says_what_stands(clock):
    def save(run):
        if run.step:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left") as error:
        train(simple_run(), slow(clock, 20), cosine(1e-3), batch=4, steps=9, save=save, bar=False)
    assert error.value.__notes__[-1] == "the run is saved as it was after 0 steps, and can be resumed from there"


@pytest.mark.parametrize("save_every", [0, -1, math.nan, math.inf])
def test_how_often_to_save(save_every):
    with pytest.raises(ValueError, match="positive number of seconds between two saves"):
        train(simple_run(), ones, cosine(1e-3), batch=4, steps=1, save_every=save_every, bar=False)


@pytest.mark.parametrize(("kind", "good", "bad"), [
    ("positive", [1e-9, 3], [0, -1.0, math.nan, math.inf]), ("not_negative", [0, 2.5], [-1e-9, math.nan, math.inf]),
    ("fractions", [0, 0.99], [-0.1, 1, 2, math.nan]), ("counts", [1, 7], [0, -5, 1.5, math.nan]),
])
def test_check_settings(kind, good, bad):
    @dataclass
    class Optional:
        batch: int | None = None

    check_settings(Optional(), **{kind: ["batch"]})
    for value in good:
        check_settings(SimpleNamespace(batch=value, lr=-1), **{kind: ["batch"]})
    for value in bad:
        with pytest.raises(ValueError, match=f"expected batch to be a .*, got {value}$"):
            check_settings(SimpleNamespace(batch=value), **{kind: ["batch"]})


def test_each_step_has_the_next_batch():
    taken = []

    def gradient(params, rng, batch):
        taken.append(batch)
        return ones(params, rng)

    train(simple_run(), gradient, cosine(1e-3), batch=4, batches=iter("abcd"), steps=3, bar=False)
    assert taken == ["a", "b", "c"]


def test_outside_the_main_thread_it_trains_too():
    before = signal.getsignal(signal.SIGINT)
    run = simple_run()
    thread = threading.Thread(target=train, args=(run, ones, cosine(1e-3)), kwargs={"batch": 4, "steps": 3, "bar": False})
    thread.start()
    thread.join(timeout=60)
    assert run.step == 3 and not run.interrupted and signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("in_a_thread", [False, True])
def test_an_event_stops_a_run_in_any_thread(in_a_thread):
    stop, saved = threading.Event(), []

    def gradient(params, rng):
        if rng.spawn(1)[0].bit_generator.seed_seq.spawn_key == (4,):        # in the fifth step
            stop.set()
        return ones(params, rng)

    run = simple_run()
    options = {"batch": 4, "steps": 50, "bar": False, "save": lambda run: saved.append(run.step), "stop": stop}
    if in_a_thread:
        thread = threading.Thread(target=train, args=(run, gradient, cosine(1e-3)), kwargs=options)
        thread.start()
        thread.join(timeout=60)
    else:
        train(run, gradient, cosine(1e-3), **options)
    assert run.interrupted and run.step == 5 and saved == [0, 5]


@pytest.mark.parametrize(("loss", "gradient", "reason"), [
    (math.nan, 1.0, "the loss is nan"), (math.inf, 1.0, "the loss is inf"), (-math.inf, math.nan, "the loss is -inf"),
    (1.0, math.nan, "the loss is finite, and the gradient of w is not"),
    (1.0, -math.inf, "the loss is finite, and the gradient of w is not"),
    (1.0, 1e25, r"the gradient of w reaches 1e\+25, and its square is too large for its dtype"),
])
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_a_number_that_is_not_finite_stops_before_it_does_harm(loss, gradient, reason, max_norm):
    params = {"v": np.ones(1, np.float32), "w": np.array([1.0, 2.0], np.float32)}
    run = Run(params, AdamW(params), np.random.default_rng(0))
    states, saved = [], []

    def bad_in_the_fourth(params, rng):
        if run.step < 3:
            states.append(tree.map(np.copy, (params, run.optimizer.m, run.optimizer.v)[0]))
        worse = gradient if run.step == 3 else 1.0
        return loss if run.step == 3 else 1.0, {"v": np.ones(1, np.float32), "w": np.array([1.0, worse], np.float32)}

    with pytest.raises(FloatingPointError, match=rf"step 3: {reason}; .*: try a lower learning rate than 0\.081") as error:
        train(run, bad_in_the_fourth, cosine(0.1), batch=4, steps=9, save=lambda run: saved.append(run.step),
              evaluate=lambda params: 1.0, max_norm=max_norm, bar=False)
    assert run.optimizer.t == run.step == len(run.losses) == 3 and saved == [0]
    for part in (run.params, run.optimizer.m, run.optimizer.v):
        assert all(np.isfinite(leaf).all() for _, leaf in tree.leaves(part))
    assert not np.array_equal(run.params["w"], [1, 2])          # it had trained before
    assert [step for step, _ in run.evaluations] == [1, 2, 3]
    assert error.value.__notes__ == ["the run is saved as it was after 0 steps, and can be resumed from there"]


def test_at_step_0_the_learning_rate_is_not_blamed():
    def bad(params, rng):
        return math.nan, tree.map(np.ones_like, params)

    with pytest.raises(FloatingPointError, match="look at the data and the initial parameters"):
        train(simple_run(), bad, cosine(1e-3), batch=4, steps=9, bar=False)


def test_an_evaluation_that_is_not_finite_ends_the_run_without_saving():
    saved = []
    with pytest.raises(FloatingPointError, match="step 2: the evaluation gives nan: try a lower learning rate"):
        train(simple_run(), ones, cosine(1e-3), batch=4, steps=2, evaluate_at=(), evaluate=lambda params: math.nan,
              save=lambda run: saved.append(run.step), bar=False)
    assert saved == [0]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")          # overflow, in the threads
def test_where_a_number_that_is_not_finite_came_from():
    """Parameters so large that a product overflows: the op, its layer, and the largest number that went in."""
    config, rng = replace(CONFIG, depth=2), np.random.default_rng(0)
    params = mae_init(config, rng)
    params["encoder"]["blocks"][1]["ffn"]["fc2"]["w"][:, 0] = 3e38
    params["encoder"]["blocks"][1]["ffn"]["fc1"]["b"][:] = 10
    where = (
        "linear_forward in mae > vit_encoder 0 > encoder 0 > encoder_layer 1 > add_norm 1 > feed_forward 0, into which numbers "
        "up to 3e+38 went: look at the data"
    )
    with Workers(2) as workers, pytest.raises(FloatingPointError, match=re.escape(where)):
        train(Run(params, AdamW(params), rng), mae_gradient(config, pictures, 10, 4, workers), cosine(1e-3), batch=10, steps=3,
              bar=False)


# The gradient of a masked autoencoder


def pictures(rng, count):
    """The same waves, in a brightness that the visible patches tell."""
    brightness = rng.normal(size=(count, 1, 1, 1))
    return (np.sin(np.arange(12)[:, None, None] + np.arange(12)[:, None]) + brightness).astype(np.float32)


def mae_run(seed=0):
    rng = np.random.default_rng(seed)
    params = mae_init(CONFIG, rng)
    return Run(params, AdamW(params, betas=(0.9, 0.95), weight_decay=0.05, decays=mae_decays(params)), rng)


def trained(steps, seed=0, threads=1, batch=10, micro_batch=4, lr=1e-2):
    with Workers(threads) as workers:
        gradient = mae_gradient(CONFIG, pictures, batch, micro_batch, workers)
        return train(mae_run(seed), gradient, cosine(lr), batch=batch, steps=steps, bar=False)


def test_the_loss_falls():
    losses = trained(250, batch=16).losses
    assert losses[0] > 1.5                                      # the variance of the pictures: 1 / 2 + 1
    assert np.mean(losses[-20:]) < 0.2                          # so it knows the waves, and the brightness


def test_the_same_seed_gives_the_same_run():
    first, again, other = trained(5), trained(5, threads=2), trained(5, seed=1)
    assert first.losses == again.losses and first.losses != other.losses
    for (path, a), (_, b) in zip(tree.leaves(first.params), tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=path)
    assert len(set(first.losses)) == 5                          # fresh pictures in every step


def test_the_gradient_is_that_of_the_whole_batch():
    """Every micro-batch has a child of the rng of its own, and counts by its share."""
    params = mae_init(CONFIG, np.random.default_rng(0), np.float64)

    def sample(rng, count):
        return rng.normal(size=(count, 12, 12, 1))

    with Workers(2) as workers:
        loss, dparams = mae_gradient(CONFIG, sample, 10, 4, workers)(params, np.random.default_rng(7))
    children = np.random.default_rng(7).spawn(3)
    drawn = [(sample(child, count), child.random((count, 9))) for child, count in zip(children, (4, 4, 2), strict=True)]
    images, noise = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
    assert len(np.unique(images)) == images.size                # no two micro-batches see the same
    whole, cache = mae_forward(images, params, CONFIG, noise)
    assert loss == pytest.approx(float(whole), rel=1e-12)
    for (path, ours), (_, expected) in zip(tree.leaves(dparams), tree.leaves(mae_backward(1.0, cache)), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12, err_msg=path)
