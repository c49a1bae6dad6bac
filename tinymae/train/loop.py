"""The training loop, in sight: gradient -> clip -> step, with progress, evaluation, checkpoints, and a clean way to stop.

    for each step:   rate = schedule;  loss, dparams = gradient;  clip;  AdamW;  now and then: evaluate, save

Ctrl-C is heard between two steps, never inside one, so that what is saved is a state the run was really in. A second
Ctrl-C does not wait.
"""
import bisect
import math
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

from tqdm import tqdm

from tinymae.train.checkpoint import restore_optimizer
from tinymae.train.optim import AdamW, clip_grad_norm, warmup_cosine


@dataclass
class Run:
    """A training run: all that changes from step to step."""

    params: dict
    optimizer: AdamW
    rng: object
    step: int = 0
    seconds: float = 0.0                                # spent in the loop so far
    losses: list = field(default_factory=list)          # one for each step
    evaluations: list = field(default_factory=list)     # (step, value)
    interrupted: bool = False

    @property
    def history(self):
        """dict that goes into a checkpoint's `extra`, for `resumed`."""
        return {"losses": self.losses, "evaluations": self.evaluations, "seconds": self.seconds}


def resumed(saved, optimizer, path):
    """The run that a checkpoint holds, to go on with.

    Parameters
    ----------
    saved : train.checkpoint.Checkpoint, with `Run.history` in its extra
    optimizer : train.optim.AdamW, fresh, made for saved.params
    path : where the checkpoint came from, for the messages

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        where the checkpoint holds a model only
    """
    if saved.moments is None or saved.rng is None:
        raise ValueError(f"{path}: holds a model, but no optimiser and rng to go on with")
    if not {"seconds", "losses", "evaluations"} <= saved.extra.keys():
        raise ValueError(f"{path}: holds a model, but not the history of its training")
    restore_optimizer(optimizer, saved.moments)
    evaluations = [tuple(pair) for pair in saved.extra["evaluations"]]
    return Run(
        saved.params, optimizer, saved.rng, saved.step, saved.extra["seconds"], saved.extra["losses"], evaluations
    )


def cosine(lr, warmup=0.05):
    """`optim.warmup_cosine` as a schedule for `train`: up to lr over the first fraction `warmup`, then down to 0."""
    return lambda step, progress: warmup_cosine(progress, 1.0, warmup, lr)


TWENTIETHS = tuple(i / 20 for i in range(1, 21))


def train(
    run, gradient, schedule, batch, steps=None, minutes=None, max_norm=None, evaluate=None, evaluate_at=TWENTIETHS, save=None,
    bar=True, unit="images",
):
    """Go on with a run until it has done its steps, its minutes are over, or somebody presses Ctrl-C.

    Parameters
    ----------
    run : Run, changed in place
    gradient : callable; gradient(params, rng) -> (loss, dparams)
    schedule : callable; schedule(step, progress) -> learning rate, with the steps done, from 0, and the share of the run, 0..1
    batch : int, examples in a step, to show a rate
    steps, minutes : how long to train in all, one of them. With steps a run is the same every time; with minutes
        `progress` follows the clock. Over MPI ranks steps only: with minutes each rank would follow its own clock, take other
        steps, and wait for ever for a rank that stopped before it
    max_norm : float, clip gradients to this norm; or None
    evaluate : callable; evaluate(params) -> float, or None
    evaluate_at : increasing shares of the run, 0..1, at which to call it; it is called at the end in any case
    save : callable; save(run), called every half minute and at the end; or None
    bar : bool, show progress
    unit : str, what a batch is made of

    Returns
    -------
    Run, the one given; run.interrupted says whether Ctrl-C ended it

    Raises
    ------
    ValueError
        where not exactly one of steps and minutes is given, or it is not positive
    FloatingPointError
        where the loss is no longer finite; params are those before that step, and nothing is saved over the last checkpoint
    """
    if (steps is None) == (minutes is None) or not 0 < (minutes if steps is None else steps) < math.inf:
        raise ValueError(f"expected steps or minutes, one of them and positive, got steps={steps}, minutes={minutes}")
    run.interrupted = False
    before, started = run.seconds, time.perf_counter()
    saved = started

    def progress():
        return run.step / steps if steps else run.seconds / (60 * minutes)

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
                run.evaluations.append((run.step, float(evaluate(run.params))))
            if save and now - saved > 30:
                save(run)
                saved = time.perf_counter()
        run.interrupted = stop.is_set()
        if evaluate and (not run.evaluations or run.evaluations[-1][0] != run.step):
            run.evaluations.append((run.step, float(evaluate(run.params))))
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
def stop_between_steps():
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
