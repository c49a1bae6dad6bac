"""The training loop: gradient -> clip -> step, with progress, evaluation, checkpoints, and a clean way to stop.

    for each step:   rate = schedule;  loss, dparams = gradient;  clip;  AdamW;  now and then: evaluate, save

It knows no model: a task hands it a gradient function, an evaluation, and a function that saves.

Ctrl-C takes effect between two steps, never inside one, so that what is saved is a state in which the run really was. A second
Ctrl-C does not wait.
"""
import bisect
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tinymae.train import checkpoint
from tinymae.train.optim import AdamW, clip_grad_norm, warmup_cosine

TWENTIETHS = tuple(i / 20 for i in range(1, 21))


@dataclass
class Run:
    """A training run: all that changes from step to step."""

    params: dict
    optimizer: AdamW
    rng: np.random.Generator
    step: int = 0
    seconds: float = 0.0                                # spent in the loop so far
    losses: list[float] = field(default_factory=list)   # one for each step
    evaluations: list[tuple[int, float]] = field(default_factory=list)      # (step, value)
    interrupted: bool = False

    @property
    def history(self) -> dict:
        """What a checkpoint's `extra` holds of it, for `resumed`."""
        return {"losses": self.losses, "evaluations": self.evaluations, "seconds": self.seconds}


def save_run(run: Run, path: Path, model: str, config: object, extra: dict) -> None:
    """Write a checkpoint from which `resumed` continues; `extra` holds the options that must stay the same."""
    checkpoint.save(
        path, model, config, run.params, step=run.step, optimizer=run.optimizer, rng=run.rng, extra={**run.history, **extra}
    )


def resumed(saved: checkpoint.Checkpoint, optimizer: AdamW, path: Path, options: dict) -> Run:
    """The run in a checkpoint, ready to continue. It then gives exactly the same result as an uninterrupted run.

    Parameters
    ----------
    saved : written by `save_run`
    optimizer : a fresh one, made for saved.params
    path : of the checkpoint, for the messages
    options : those of now, in dicts within dicts; each must be what it was in saved.extra or saved.config

    Raises
    ------
    ValueError
        if the checkpoint holds no run, or one with other options: names each with its value then and now
    """
    if saved.moments is None or saved.rng is None:
        raise ValueError(f"{path}: holds a model, but no optimiser and rng to go on with")
    if not {"seconds", "losses", "evaluations"} <= saved.extra.keys():
        raise ValueError(f"{path}: holds a model, but not the history of its training")
    began = dict(_flat({**saved.extra, **asdict(saved.config)}))
    changed = [(name, began.get(name), now) for name, now in _flat(options) if name not in began or began[name] != now]
    if changed:
        difference = ", ".join(f"{name} {then!r} (now {now!r})" for name, then, now in changed)
        raise ValueError(f"{path}: the run was begun with {difference}: resume with the same options")
    checkpoint.restore_optimizer(optimizer, saved.moments)
    return Run(
        saved.params, optimizer, saved.rng, saved.step, saved.extra["seconds"], saved.extra["losses"],
        [tuple(pair) for pair in saved.extra["evaluations"]],
    )


def _flat(options):
    """(name, value) of dicts within dicts."""
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield name, value


def check_length(steps: int | None = None, minutes: float | None = None, epochs: int | None = None) -> None:
    """Raise a ValueError unless exactly one length is given, and is positive."""
    given = [length for length in (steps, minutes, epochs) if length is not None]
    if len(given) != 1 or not 0 < given[0] < math.inf:
        raise ValueError(
            f"expected one of steps, minutes and epochs, positive, got steps={steps}, minutes={minutes}, epochs={epochs}"
        )


def endless(epoch_batches: Callable[[int], list]) -> Iterator:
    """The batches of epoch 0, then of epoch 1, and so on: epoch_batches(epoch) is a list of batches."""
    for epoch in itertools.count():
        yield from epoch_batches(epoch)


def epoch_ends(epoch_batches: Callable[[int], list], epochs: int) -> list[int]:
    """The step at which each of the first `epochs` epochs of `endless` ends."""
    return list(itertools.accumulate(len(epoch_batches(epoch)) for epoch in range(epochs)))


def cosine(lr: float, warmup: float = 0.05) -> Callable[[int, float], float]:
    """`optim.warmup_cosine` as a schedule for `train`: up to lr over the first fraction `warmup`, then down to almost 0.

    With the default warmup it ends at 0.6 % of lr, because the cosine is as long as the whole run and starts after the warmup.
    """
    return lambda step, progress: warmup_cosine(progress, 1.0, warmup, lr)


def train(
    run: Run, gradient: Callable, schedule: Callable[[int, float], float], *,
    batch: int, unit: str = "images", steps: int | None = None, minutes: float | None = None, max_norm: float | None = None,
    evaluate: Callable[[dict], object] | None = None, evaluate_at: Sequence[float] = TWENTIETHS,
    report: Callable[[object], None] | None = None, save: Callable[[Run], None] | None = None, bar: bool = True,
) -> Run:
    """Continue a run until it has done its steps, its minutes are over, or you press Ctrl-C.

    Parameters
    ----------
    run : changed in place
    gradient : gradient(params, rng) -> (loss, dparams)
    schedule : schedule(step, progress) -> learning rate; step counts from 0, progress is the fraction of the run done, 0..1
    batch, unit : how many examples are in a step, and what they are, to show a rate
    steps, minutes : how long to train in all, one of them. With steps a run is the same every time; with minutes
        `progress` follows the clock. Over MPI ranks steps only: with minutes each rank would follow its own clock, take a
        different number of steps, and wait forever for a rank that stopped before it
    max_norm : clip gradients to this norm; or None
    evaluate : evaluate(params) -> a number, or what float() makes one of; kept in run.evaluations
    evaluate_at : increasing fractions of the run, 0..1, at which to evaluate; it is done at the end in any case
    report : report(what evaluate returned), after each evaluation
    save : called every half minute and at the end
    bar : show progress

    Returns
    -------
    Run, the one given; run.interrupted says whether Ctrl-C ended it

    Raises
    ------
    ValueError
        if not exactly one of steps and minutes is given, or it is not positive
    FloatingPointError
        if the loss is not finite; params are those before that step, and nothing is saved over the last checkpoint
    """
    check_length(steps, minutes)
    run.interrupted = False
    before, started = run.seconds, time.perf_counter()
    saved = started

    def progress():
        return run.step / steps if steps else run.seconds / (60 * minutes)

    def measure():
        value = evaluate(run.params)
        run.evaluations.append((run.step, float(value)))
        if report:
            report(value)

    evaluated = bisect.bisect_right(evaluate_at, progress())
    total = steps if steps else round(60 * minutes)
    with stop_between_steps() as stop, _progress_bar(run, steps, total, bar) as shown:
        while progress() < 1 and not stop.is_set():
            rate = schedule(run.step, progress())
            loss, dparams = gradient(run.params, run.rng)
            if not math.isfinite(loss):
                raise FloatingPointError(f"step {run.step}: the loss is {loss}: try a lower learning rate than {rate:.2g}")
            if max_norm is not None:
                clip_grad_norm(dparams, max_norm)
            run.optimizer.step(run.params, dparams, rate)
            run.step += 1
            run.losses.append(loss)
            now = time.perf_counter()
            run.seconds = before + now - started
            recent = run.losses[-50:]
            shown.set_postfix_str(
                f"loss {sum(recent) / len(recent):.4f}, {batch * run.step / run.seconds:.0f} {unit}/s", refresh=False
            )
            shown.update(1 if steps else min(run.seconds, total) - shown.n)
            if evaluate and bisect.bisect_right(evaluate_at, progress()) > evaluated:
                evaluated = bisect.bisect_right(evaluate_at, progress())
                measure()
            if save and now - saved > 30:
                save(run)
                saved = time.perf_counter()
        run.interrupted = stop.is_set()
        if evaluate and (not run.evaluations or run.evaluations[-1][0] != run.step):
            measure()
        if save:
            save(run)
    return run


def _progress_bar(run, steps, total, bar):
    unit, layout = ("step", "{n_fmt}/{total_fmt} steps") if steps else ("s", "{n:.0f}/{total} s")
    return tqdm(
        total=total,
        initial=run.step if steps else min(run.seconds, total),
        disable=not bar,
        unit=unit,
        bar_format="{percentage:3.0f} % |{bar}| " + layout + ", {remaining} left{postfix}",
    )


@contextmanager
def stop_between_steps() -> Iterator[threading.Event]:
    """A threading.Event that Ctrl-C sets; the second Ctrl-C interrupts at once. Outside the main thread it stays unset."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number, frame):
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
