"""The training loop: gradient -> clip -> step, with progress, evaluation, checkpoints, and a clean way to stop.

    for each step:   rate = schedule;  loss, dparams = gradient;  clip;  save if it is time;  AdamW;  evaluate if it is time

It knows no model: a task hands it a gradient function, an evaluation, and a function that saves.

A run is saved after its first gradient, every half minute, at its end, and whatever else ends it: SIGTERM, SIGHUP, a closed
pipe, any exception. What is saved is always a state between two steps, with finite numbers, from which it can be resumed.
Ctrl-C takes effect between two steps, a second Ctrl-C does not wait, and a run in a thread is stopped by an Event.

A number that is not finite ends the run before it reaches the parameters, and the error says where it came from.
"""
import bisect
import copy
import itertools
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm  # a widget in a notebook, a line of text elsewhere

from tinymae import tree
from tinymae.messages import marked, translated
from tinymae.messages import message as _
from tinymae.trace import first_fault
from tinymae.train import checkpoint
from tinymae.train.folder import RunFolder
from tinymae.train.optim import AdamW, clip_grad_norm, warmup_cosine
from tinymae.train.ranks import Ranks
from tinymae.train.signals import stop_signals

SAVE_EVERY = 30                 # seconds
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
    evaluation_due: bool = False                        # the run stopped before an evaluation that belongs to its step
    interrupted: bool = False


_HISTORY = ("losses", "evaluations", "seconds", "evaluation_due")


def save_run(run: Run, folder: RunFolder, model: str, config: object, options: dict, extra: dict | None = None) -> Path:
    """Write a checkpoint from which `resumed` continues to the folder, as MODEL.npz.

    Parameters
    ----------
    run : to save
    folder : locked here, see `RunFolder.hold`
    model, config : as `checkpoint.save`
    options : all that decides the result but the length: the fingerprint of the data, the seed, settings in dicts within dicts
    extra : what else the file should hold

    Returns
    -------
    Path, of the file

    Raises
    ------
    BlockingIOError, FloatingPointError, OSError
        as `RunFolder.hold` and `checkpoint.save`
    """
    folder.hold()
    history = {name: getattr(run, name) for name in _HISTORY}
    return checkpoint.save(
        folder.path / f"{model}.npz", model, config, run.params, step=run.step, optimizer=run.optimizer, rng=run.rng,
        extra={**history, "options": options, **(extra or {})},
    )


def resumed(saved: checkpoint.Checkpoint, optimizer: AdamW, path: Path, options: dict) -> Run:
    """The run in a checkpoint, ready to continue. It then gives exactly the same result as an uninterrupted run.

    Parameters
    ----------
    saved : written by `save_run`
    optimizer : a fresh one, made for saved.params
    path : of the checkpoint, for the messages
    options : those of now; each must be what it was

    Raises
    ------
    ValueError
        if the checkpoint holds no run, or one with other options: names each with its value then and now, one a line
    """
    if saved.moments is None or saved.rng is None:
        raise ValueError(_("{path}: holds a model, but no optimiser and rng to go on with", path=path))
    if "options" not in saved.extra:
        raise ValueError(_("{path}: tinymae 0.2 wrote it, and only that version can continue its training: it does not say on "
                           "which data", path=path))
    if not set(_HISTORY) <= saved.extra.keys():
        raise ValueError(_("{path}: holds a model, but not the history of its training", path=path))
    losses, evaluations, seconds, due = (saved.extra[name] for name in _HISTORY)
    if not (
        _numbers(losses) and isinstance(evaluations, list) and all(_numbers(pair) and len(pair) == 2 for pair in evaluations)
        and _numbers([seconds]) and type(due) is bool and isinstance(saved.extra["options"], dict)
    ):
        raise ValueError(_("{path}: the history of its training is not one of numbers: damaged, or edited", path=path))
    check_options(path, saved.extra["options"], options)
    checkpoint.restore_optimizer(optimizer, saved.moments)
    run = Run(saved.params, optimizer, saved.rng, saved.step, **{name: saved.extra[name] for name in _HISTORY})
    run.evaluations = [tuple(pair) for pair in run.evaluations]
    return run


def _numbers(found):
    """Is it a list of numbers?"""
    return isinstance(found, list) and all(type(number) in (int, float) for number in found)


def check_options(path: Path, began: dict, options: dict) -> None:
    """Raise a ValueError with a line for each option that is not what it was when the run was begun."""
    began, options = dict(_flat(began)), dict(_flat(json.loads(json.dumps(options))))       # JSON has no tuples
    changed = [name for name in {**began, **options} if began.get(name) != options.get(name)]
    if changed:
        lines = [_("{path}: the run was begun with other options: resume with the same ones", path=path)]
        for name in changed:
            then, now = _written(began.get(name)), _written(options.get(name))
            lines.append("    " + _("{name}: {then}, now {now}", name=name, then=then, now=now))
        raise ValueError("\n".join(lines))


def _flat(options):
    """(name, value) of dicts within dicts."""
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield name, value


def _written(value):
    return _("not given") if value is None else value


def check_length(steps: int | None = None, minutes: float | None = None, epochs: int | None = None) -> None:
    """Raise a ValueError unless exactly one length is given, and is positive."""
    given = [length for length in (steps, minutes, epochs) if length is not None]
    if len(given) != 1 or not 0 < given[0] < math.inf:
        raise ValueError(_("expected one of steps, minutes and epochs, positive, got steps={steps}, minutes={minutes}, "
                           "epochs={epochs}", steps=steps, minutes=minutes, epochs=epochs))


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
    batch: int, unit: str = marked("images"), batches: Iterator | None = None, steps: int | None = None,
    minutes: float | None = None, max_norm: float | None = None, evaluate: Callable[[dict], object] | None = None,
    evaluate_at: Sequence[float] = TWENTIETHS, report: Callable[[object], None] | None = None,
    save: Callable[[Run], object] | None = None, save_every: float = SAVE_EVERY, bar: bool = True,
    stop: threading.Event | None = None, ranks: Ranks | None = None,
) -> Run:
    """Continue a run until it has done its steps, its minutes are over, or it is stopped by Ctrl-C or an Event.

    Parameters
    ----------
    run : changed in place
    gradient : gradient(params, rng) -> (loss, dparams), or gradient(params, rng, next(batches))
    schedule : schedule(step, progress) -> learning rate; step counts from 0, progress is the fraction of the run done, 0..1
    batch, unit : how many examples are in a step, and what they are, to show a rate
    batches : what gradient takes as its third argument, one for each step from run.step on; or None
    steps, minutes : how long to train in all, one of them. With steps a run is the same every time; with minutes
        `progress` follows the clock, that of rank 0
    max_norm : clip gradients to this norm; or None
    evaluate : evaluate(params) -> a number, or what float() makes one of; kept in run.evaluations
    evaluate_at : increasing fractions of the run, 0..1, at which to evaluate; it is done at the end in any case
    report : report(what evaluate returned), after each evaluation
    save : save(run) -> where it was saved, or None. Called once the first gradient is known, so that settings that cannot work
        leave a folder as it was; every `save_every` seconds; at the end; and when an exception or a signal ends the run
    save_every : seconds
    bar : show progress
    stop : stop.set(), from any thread, ends the run after its step, as Ctrl-C does; or None. Ctrl-C reaches only a run in the
        main thread, so a program with windows, or a notebook that trains in the background, needs it
    ranks : that take the same steps, all of them in this function; None for this process alone. Rank 0 evaluates, reports,
        saves and shows progress, and a rank that is stopped stops all

    Returns
    -------
    Run, the one given; run.interrupted says whether it was stopped

    Raises
    ------
    ValueError
        if not exactly one of steps and minutes is given, or it or save_every is not positive
    FloatingPointError
        if a loss, the norm of a gradient, or an evaluation is not finite; params are those before that step, and nothing is
        saved over the last checkpoint. The message says where it came from
    SystemExit
        after SIGTERM and SIGHUP, if they would have ended the process: with 128 and the number of the signal, as shells count

    An exception that ends a run has a note (`__notes__`) that says what was saved.
    """
    check_length(steps, minutes)
    if not 0 < save_every < math.inf:
        raise ValueError(_("expected a positive number of seconds between two saves, got {seconds}", seconds=save_every))
    run.interrupted, ranks = False, ranks or Ranks()
    if ranks.rank:
        evaluate, save, bar = None, None, False
    before, started = run.seconds, time.perf_counter()
    saved_at, saved = -math.inf, None                           # when the last save was, and a sentence on it
    rng = run.rng                                               # of the state that `run` is in
    whole = False                                               # a gradient has been computed, and no step is half done

    def progress():
        return run.step / steps if steps else run.seconds / (60 * minutes)

    def measure():
        value = evaluate(run.params)
        if not math.isfinite(float(value)):
            raise FloatingPointError(_("step {step}: the evaluation gives {number}: {advice}",
                                       step=run.step, number=float(value), advice=_advice(run.step)))
        if report:
            report(value)                                       # first, because it is done again if it was interrupted
        run.evaluations.append((run.step, float(value)))
        run.evaluation_due = False

    def keep():
        nonlocal saved_at, saved
        if save:
            place = save(replace(run, rng=rng))
            saved_at = time.perf_counter()
            if place:
                saved = _("the run is saved as it was after {steps} steps, in {place}, and can be resumed from there",
                          steps=run.step, place=place)
            else:
                saved = _("the run is saved as it was after {steps} steps, and can be resumed from there", steps=run.step)

    def agreed():
        """(progress of rank 0, whether any rank has been stopped)."""
        return ranks.agree(0.0 if ranks.rank else progress(), signals.stop.is_set())

    evaluated = bisect.bisect_right(evaluate_at, progress())
    total = steps if steps else round(60 * minutes)
    with stop_signals(stop) as signals, _progress_bar(run, steps, total, bar) as shown:
        try:
            if evaluate and run.evaluation_due:
                measure()
            while True:
                done, stopped = agreed()
                if done >= 1 or stopped:
                    break
                ranks.check_params(run.step, run.params)
                rng = copy.deepcopy(run.rng)                    # so that a step that fails can be taken again
                given = () if batches is None else (next(batches),)
                rate = schedule(run.step, done)
                loss, dparams = gradient(run.params, run.rng, *given)
                norm = clip_grad_norm(dparams, math.inf if max_norm is None else max_norm)
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    raise FloatingPointError(_(
                        "step {step}: {what}; {cause}: {advice}", step=run.step, what=_not_finite(loss, dparams),
                        cause=_cause(gradient, run.params, rng, given), advice=_advice(run.step, rate),
                    ))
                whole = True
                with signals.put_off():
                    if time.perf_counter() - saved_at >= save_every:
                        keep()                                  # a state whose gradient is finite
                    whole = False
                    run.optimizer.step(run.params, dparams, rate)
                    run.step += 1
                    run.losses.append(loss)
                    run.seconds = before + time.perf_counter() - started
                    rng, whole = run.rng, True
                    run.evaluation_due = bool(evaluate) and bisect.bisect_right(evaluate_at, progress()) > evaluated
                recent = run.losses[-50:]
                shown.set_postfix_str(_(
                    "loss {loss:.4f}, {rate:.0f} {unit}/s", loss=sum(recent) / len(recent),
                    rate=batch * run.step / run.seconds, unit=translated(unit),
                ), refresh=False)
                shown.update(1 if steps else min(run.seconds, total) - shown.n)
                if run.evaluation_due:
                    evaluated = bisect.bisect_right(evaluate_at, progress())
                    measure()
            run.interrupted = bool(stopped)
            if evaluate and (not run.evaluations or run.evaluations[-1][0] != run.step):
                measure()
            with signals.put_off():
                keep()
            run.evaluations = ranks.share(run.evaluations)
        except BaseException as error:
            with signals.put_off():
                if whole and not isinstance(error, FloatingPointError):
                    try:
                        keep()
                    except (OSError, FloatingPointError) as failure:
                        if failure is not error:
                            error.add_note(_("and it could not be saved: {failure}", failure=failure))
                if saved:
                    error.add_note(saved)
            raise
    return run


def _not_finite(loss, dparams):
    """What is wrong with a loss and gradients that were not clipped."""
    if not math.isfinite(loss):
        return _("the loss is {loss}", loss=loss)
    largest = {name: float(np.max(np.abs(leaf), initial=0)) for name, leaf in tree.leaves(dparams)}
    for name, value in largest.items():
        if not math.isfinite(value):
            return _("the loss is finite, and the gradient of {name} is not", name=name)
    name = max(largest, key=largest.get)
    return _("the gradient of {name} reaches {most:.3g}, and its square is too large for its dtype",
             name=name, most=largest[name])


def _cause(gradient, params, rng, given):
    """Where the first number that is not finite comes from, found by running the batch again under a trace."""
    fault = first_fault(gradient, params, copy.deepcopy(rng), *given)
    return _("no forward or backward returns such a number") if fault is None else str(fault)


def _advice(step, rate=None):
    if step == 0:
        return _("look at the data and the initial parameters, the learning rate has had no effect yet")
    return _("try a lower learning rate than {rate:.2g}", rate=rate) if rate else _("try a lower learning rate")


def _progress_bar(run, steps, total, bar):
    if steps:
        unit, layout = "step", _("{percentage:3.0f} % |{bar}| {n_fmt}/{total_fmt} steps, {remaining} left{postfix}")
    else:
        unit, layout = "s", _("{percentage:3.0f} % |{bar}| {n:.0f}/{total} s, {remaining} left{postfix}")
    return tqdm(
        total=total,
        initial=run.step if steps else min(run.seconds, total),
        disable=not bar,
        unit=unit,
        bar_format=layout,
    )
