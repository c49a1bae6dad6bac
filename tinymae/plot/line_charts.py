"""Line charts: the loss of a training run, learning rates of schedules, and any measurements against one axis."""
import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import ArrayLike

from tinymae.messages import message as _
from tinymae.plot.style import COLOURS, check_numbers, legend_above, page, styled

DASHES = ("--", ":", "-.", (0, (1, 4)))         # of the levels


@styled()
def loss_curve(
    steps: ArrayLike,
    losses: ArrayLike,
    *,
    learning_rates: ArrayLike | None = None,
    evaluations: dict[int, float] | None = None,
    baselines: dict[str, float] | None = None,
    caption: str | None = None,
) -> Figure:
    """The loss of a training run at each step, with the values it should be compared with.

    Parameters
    ----------
    steps, losses : array_like of shape (n,); steps increase
    learning_rates : array_like of shape (n,), drawn in a panel of its own below
    evaluations : {step: loss}, measured on the validation set
    baselines : {name: loss}, dashed lines with their names, such as {"predicting the mean": 1.0}
    caption : replaces the text below the figure

    Raises
    ------
    TypeError, ValueError
        if lengths differ, steps do not increase, or a loss is not finite

    Notes
    -----
    The thick line is a running median, which a single outlier does not move. The axis starts at 0 unless the run would then
    fill less than a third of it, and it leaves out spikes that would flatten the rest; the caption mentions both.

    Differs: many tools smooth with an exponential mean, which spreads a spike over the steps after it, or use a logarithmic
    axis, which hides how little the last steps improve.
    """
    steps = check_numbers("steps", steps, (1,), "(n,)").astype(np.float64)     # unsigned integers have no -1
    losses = check_numbers("losses", losses, (1,), "(n,)").astype(np.float64)
    if len(steps) != len(losses):
        raise ValueError(f"there are {len(steps)} steps and {len(losses)} losses: one loss for each step")
    if (np.diff(steps) <= 0).any():
        at = int(np.argmax(np.diff(steps) <= 0))
        raise ValueError(
            f"steps must increase, but {steps[at]:g} is followed by {steps[at + 1]:g}: a resumed run logged some steps "
            "twice; keep the later ones"
        )
    for name, value in {"evaluations": evaluations, "baselines": baselines}.items():
        if not isinstance(value, (dict, type(None))):
            raise TypeError(f"{name} must be a dict with losses as its values, or None, got {type(value).__name__}")
    dots = np.empty((2, 0))                                            # steps, losses
    if evaluations:
        dots = check_numbers("evaluations", sorted(evaluations.items()), (2,), "{step: loss}").T
    marks = dict(sorted((baselines or {}).items(), key=lambda item: item[1]))
    levels = check_numbers("baselines", list(marks.values()), (1,), "{name: loss}") if marks else np.empty(0)
    if learning_rates is not None:
        learning_rates = check_numbers("learning_rates", learning_rates, (1,), "(n,)")
        if len(learning_rates) != len(steps):
            raise ValueError(
                f"there are {len(steps)} steps and {len(learning_rates)} learning rates: one rate for each step"
            )

    window = min(max(3, len(losses) // 25 | 1), 101) if len(losses) > 2 else 1     # odd; 4 % of a short run
    smooth = losses
    if window > 1:
        from scipy.ndimage import median_filter  # it takes a third of a second to import

        smooth = median_filter(losses, size=window, mode="mirror")     # mirror: a spike in the first step counts once
    kept = [smooth.max(), *dots[1], *levels]
    top = max(kept)
    if losses.max() <= top + 0.5 * abs(top):
        top = max(top, losses.max())                                   # ordinary noise: show all of it
    low = min(losses.min(), *kept)
    notes = []
    if low < 0 or top - low < 0.33 * top:
        bottom = low - 0.08 * (top - low or abs(top) or 1.0)
        notes.append(_("The loss axis does not start at 0."))
    else:
        bottom = 0.0
    top += 0.06 * (top - bottom or 1.0)
    if outside := int((losses > top).sum()):
        worst = int(np.argmax(losses))
        notes.append(_(
            "{outside} of {count} steps lie above the figure, the highest is {loss:.3g} at step {step:g}.",
            outside=outside, count=len(losses), loss=losses[worst], step=steps[worst],
        ))
    read = [_("How to read it: thin, the loss of each step; thick, the median of {window} steps; lower is better.",
              window=window)]
    read += [_("Dots are losses on the validation set.")] if dots.size else []
    read += [_("Dashed lines are losses that the run should fall below.")] if marks else []

    panels = [1] if learning_rates is None else [3, 1]
    figure = page(3.3 if learning_rates is None else 4.5, caption, *notes, default=" ".join(read))
    axes = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=panels)[:, 0]
    ax = axes[0]
    ax.plot(steps, losses, color="#9ecae1", linewidth=0.7, label=_("training, each step"))
    alone = "o" if len(losses) == 1 else None                         # a line through one point cannot be seen
    ax.plot(steps, smooth, color="C0", marker=alone, label=_("training, median of {window}", window=window))
    if dots.size:
        ax.plot(*dots, color="C1", marker="o", markersize=5, linewidth=1, label=_("evaluation"), clip_on=False, zorder=3)
    # The names of the lines are to the right of the axes, at the height of their lines but never closer than a line of text.
    height = -np.inf
    for name, value in marks.items():
        ax.axhline(value, color="#555555", linestyle="--", linewidth=1.1)
        height = max((value - bottom) / (top - bottom), height + 0.075)
        label = _("{name}: {value:.3g}", name=name, value=value)
        ax.text(1.01, height, label, transform=ax.transAxes, va="center", fontsize=9, color="#333333")
    ax.set(ylim=(bottom, top), ylabel=_("loss"))
    ax.set_xlim(min([steps[0], *dots[0]]), max(steps[-1], *dots[0], steps[0] + 1))
    ax.grid(axis="y")
    legend_above(ax, 3)
    if learning_rates is not None:
        axes[1].plot(steps, learning_rates, color="C2")
        axes[1].set(ylim=(0, 1.1 * max(learning_rates.max(), 1e-12)), ylabel=_("learning rate"))
        axes[1].grid(axis="y")
    axes[-1].set_xlabel(_("step"))
    figure.align_ylabels(axes)
    return figure


@styled()
def curves(
    curves: dict[str, ArrayLike | tuple[ArrayLike, ArrayLike]],
    xlabel: str,
    ylabel: str,
    caption: str,
    *,
    levels: dict[str, float] | None = None,
    xscale: str = "linear",
    yscale: str = "linear",
    ylim: tuple[float, float] | None = None,
    markers: bool = False,
) -> Figure:
    """Several measurements against one axis, or several losses against the step.

    Parameters
    ----------
    curves : {name: y or (x, y)}, each array_like of shape (n,); y alone is drawn against 1 to n. At most 8 curves.
        y may contain nan or infinity (a training that diverged): the curve stops there, and its name in the legend says so
    caption : "How to read it: ..."
    levels : {name: value}, at most 8 dashed horizontal lines: the values expected from theory
    xscale, yscale : "linear" or "log"
    ylim : (low, high), or None to fit the curves
    markers : a dot at each measurement

    Raises
    ------
    TypeError, ValueError
        if curves is not such a dict, there are more levels than can be told apart, or a scale is unknown
    """
    if not isinstance(curves, dict) or not 1 <= len(curves) <= len(COLOURS):
        raise TypeError(f"curves: expected a dict of 1 to {len(COLOURS)} {{name: y or (x, y)}}, got {curves!r:.80}")
    levels = levels or {}
    if len(levels) > 2 * len(DASHES):
        raise ValueError(f"levels: expected at most {2 * len(DASHES)} lines, which can be told apart, got {len(levels)}")
    for name, scale in (("xscale", xscale), ("yscale", yscale)):
        if scale not in ("linear", "log"):
            raise ValueError(f"{name} must be 'linear' or 'log', got {scale!r}")
    figure = page(3.1 + 0.2 * math.ceil((len(curves) + len(levels)) / 2), caption)
    ax = figure.subplots()
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        x, y = curve if isinstance(curve, tuple) else (np.arange(1, len(curve) + 1), curve)
        x, y = check_numbers(f"x of {name!r}", x, (1,), "(n,)"), np.asarray(y, float)
        if x.shape != y.shape:
            raise ValueError(f"curves[{name!r}]: expected as many y as x, got {y.shape} and {x.shape}")
        good = np.isfinite(y)
        ended = len(y) if good.all() else int(np.argmin(good))
        label = name if ended == len(y) else _("{name} (not finite from {step:g} on)", name=name, step=x[ended])
        ax.plot(x[:ended], y[:ended], color=colour, label=label, marker="o" if markers else None, markersize=4)
    for style, (name, level) in zip(DASHES * 2, levels.items(), strict=False):
        ax.axhline(level, color="#777777", linestyle=style, linewidth=1.2, label=name, zorder=1)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
    for axis, scale in ((ax.xaxis, xscale), (ax.yaxis, yscale)):
        if scale == "log":                      # the default writes 10^-3 in TeX, which our style does not interpret
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(LogFormatter())
    if ylim is not None:
        ax.set_ylim(ylim)
    ax.grid(axis="y")
    legend_above(ax, 2)
    return figure


@styled()
def learning_rates(curves: dict[str, ArrayLike], *, caption: str | None = None) -> Figure:
    """Learning rates of schedules at each step.

    Parameters
    ----------
    curves : {name: array_like of shape (n,)}, the rates of steps 1 to n; at most 8 schedules
    caption : replaces the text below the figure

    Raises
    ------
    TypeError, ValueError
        if curves is not such a dict, or a rate is negative or not finite

    Source: Vaswani et al. 2017, equation 3.
    """
    if not isinstance(curves, dict):
        raise TypeError(f"curves must be a dict {{name: rates}}, got {type(curves).__name__}")
    if not 1 <= len(curves) <= len(COLOURS):
        raise ValueError(f"curves must hold 1 to {len(COLOURS)} schedules, which can be told apart, got {len(curves)}")
    curves = {name: check_numbers(f"curves[{name!r}]", rates, (1,), "(n,)") for name, rates in curves.items()}
    for name, rates in curves.items():
        if rates.min() < 0:
            raise ValueError(f"curves[{name!r}] must not be negative, got {rates.min():.4g} at step {rates.argmin() + 1}")
    figure = page(2.9 + 0.2 * len(curves), caption, default=_(
        "How to read it: the learning rate of each training step, counted from 1; the dot marks the highest. If it rises at "
        "first (warm-up), the steps stay small until the optimiser has enough gradients to estimate their size."
    ))
    ax = figure.subplots()
    for colour, (name, rates) in zip(COLOURS, curves.items(), strict=False):
        top = int(rates.argmax())
        label = _("{name}: at most {rate:.2e}", name=name, rate=rates[top])
        ax.plot(np.arange(1, len(rates) + 1), rates, color=colour, label=label)
        ax.plot(top + 1, rates[top], "o", color=colour, markersize=5, clip_on=False, zorder=3)
    highest = max(rates.max() for rates in curves.values())
    ax.set(xlim=(0, max(map(len, curves.values()))), ylim=(0, 1.08 * highest or 1))
    ax.set(xlabel=_("step"), ylabel=_("learning rate"))
    ax.yaxis.set_major_formatter("{x:.3g}")
    ax.grid(axis="y")
    legend_above(ax, 1)
    return figure
