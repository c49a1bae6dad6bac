"""The table of a forward, or of a forward and its backward: `judge` on y, then the gradient checker, then its causes."""
import copy
from collections.abc import Callable
from functools import partial

import numpy as np

from tinymae import tree
from tinymae.gradcheck import gradcheck
from tinymae.learn.compare import close
from tinymae.learn.demands import Problem, function, parts
from tinymae.learn.inputs import frozen, gaussian
from tinymae.learn.judge import Tables, because, diagnosed, judge, recognised
from tinymae.learn.steps import arrays_assigned, last_right
from tinymae.messages import marked, translated
from tinymae.messages import message as _


def check_forward(
    names: dict, name: str, reference: Callable, *args, title: str = marked("forward"),
    variants: dict[str, Callable] | None = None, invariants: list[Callable] | tuple = (), tolerance: float = 1e-9,
    otherwise: str = "", steps: Callable[..., dict[str, list[np.ndarray]]] | None = None, **options,
) -> Tables:
    """The table (title, rows) of a forward that returns y, or y and a cache; what is not listed is as in `check_pair`.

    Parameters
    ----------
    name : of the function in the learner's file
    reference : the forward of the package, or another function of these arguments that returns the right y and a cache
    tolerance, otherwise : as `judge`
    steps : function of these arguments that returns {step: arrays}, what a right forward computes one after the other
    """
    ours, expected = function(names, name), reference(*args, **options)[0]

    def y(*args, **options):
        result = ours(*tree.map(lambda part: frozen(part) if isinstance(part, np.ndarray) else part, list(args)), **options)
        if not isinstance(result, tuple) or not result:
            return result
        if any(isinstance(part, np.ndarray) and close(part, expected, tolerance) for part in result[1:]):
            raise Problem(_("the right y is returned, but not in the first place: return y alone, or y and then a cache"))
        return result[0]

    tried = {words: partial(variant, *args, **options) for words, variant in (variants or {}).items()}
    held = [partial(invariant, y) for invariant in invariants]

    def located():
        return last_right(steps(*args, **options), _("the output"), arrays_assigned(ours, lambda: y(*args, **options)))

    row = judge("y", y(*args, **options), expected, tried, invariants=held, tolerance=tolerance, otherwise=otherwise,
                located=located if steps else str)
    yield translated(title), [row]


def check_pair(
    names: dict, name: str, reference: Callable, *args, title: str = marked("forward and backward"),
    variants: dict[str, Callable] | None = None, invariants: list[Callable] | tuple = (),
    slips: dict[str, Callable] | None = None, gradients: dict[str, dict[str, Callable]] | None = None,
    formulas: dict[str, Callable] | None = None, steps: dict[tuple[str, ...], Callable] | None = None,
    compare: bool = True, samples: int | None = None, **options,
) -> Tables:
    """The table (title, rows) of a forward and its backward.

    Parameters
    ----------
    names : namespace of the learner's file
    name : of the pair: its functions are NAME_forward and NAME_backward
    reference : the forward of the package
    *args : the arguments of the forward, as for `gradcheck`
    variants : {mistake: function of these arguments that returns the y of this mistake}
    invariants : functions of one argument, the learner's forward as a function that returns y alone
    slips : {mistake in the backward: function of dy and these arguments that returns the gradients of this mistake}
        the first gradient, or a tuple, which may have None for one of them and may leave out the last ones
    gradients : {tensor: {mistake: function of dy and these arguments that returns the gradient of this tensor alone}}
    formulas : {tensor: function of the learner's gradient, dy and these arguments}; it returns a sentence on what they
        compute if no mistake in `gradients` is recognised, '' if it does not know
    steps : {names of arguments: function of dy and these arguments that returns {step: arrays}}, what a right backward computes
        one after the other before the gradients of these arguments
    compare : False if y is random: different random numbers are not a mistake
    samples : as for `gradcheck`
    **options : passed on, as for `gradcheck`
    """
    forward, backward = function(names, f"{name}_forward"), function(names, f"{name}_backward")

    def y(*args, **options):
        return parts(forward(*copy.deepcopy(args), **options), "y", "cache")[0]

    rows = []
    if compare:
        tried = {words: partial(variant, *args, **options) for words, variant in (variants or {}).items()}
        held = [partial(invariant, y) for invariant in invariants]
        rows = [judge("y", y(*args, **options), reference(*args, **options)[0], tried, invariants=held)]
    try:
        checked = gradcheck(forward, backward, *args, samples=samples, **options)
    except Exception:                                           # with a wrong forward, backward may fail because of it
        if not rows or rows[0].ok:
            raise
        checked = []                                            # so y is reported alone
    slips, gradients = slips or {}, gradients or {}
    if any(not row.ok and (row.tensor in gradients or (slips and np.isfinite(row.error))) for row in checked):
        checked = _explained(checked, slips, steps or {}, gradients, formulas or {}, forward, backward, args, options)
    yield translated(title), rows + checked


def _explained(rows, slips, steps, gradients, formulas, forward, backward, args, options):
    """The rows of a gradient check, of which the wrong ones have the slips that give exactly these numbers as diagnoses."""
    def drawn():                                                # as in `gradcheck`, rng is the seed of a new Generator
        rng = options.get("rng")
        return options | ({} if rng is None else {"rng": np.random.default_rng(rng)})

    def named(returned):
        """{tensor: gradient} of what a backward or a slip returned: the first of the gradients, or some of them."""
        returned = returned if isinstance(returned, tuple) else (returned,)
        return dict(tree.leaves(dict(zip(arguments, returned, strict=False))))

    arguments = list(dict.fromkeys(row.tensor.partition(".")[0] for row in rows))
    given = copy.deepcopy(args)
    y, cache = forward(*given, **drawn())
    before, after = dict(tree.leaves(list(args))), dict(tree.leaves(list(given)))
    if not all(np.array_equal(before[path], after[path]) for path in before):
        return rows                                             # they say that forward writes into its arguments
    dy = gaussian(*np.shape(y), seed=1)
    ours = backward(dy, cache)
    ours = named(tuple(part for part in ours if part is not None) if isinstance(ours, tuple) else ours)
    if slips:
        rows = _by_slips(rows, ours, {words: named(slip(dy, *args, **drawn())) for words, slip in slips.items()})
    for i, row in enumerate(rows):
        found = recognised(row, ours.get(row.tensor), {
            words: partial(slip, dy, *args, **drawn()) for words, slip in gradients.get(row.tensor, {}).items()
        })
        if row.tensor in formulas and found is row and np.isfinite(row.error) and not row.ok:     # so the shape is right
            words = formulas[row.tensor](ours[row.tensor], dy, *args, **drawn())
            found = diagnosed(row, words) if words else row
        rows[i] = found
    for tensors, step in steps.items():                         # if nothing is known, the last of the steps that is right
        for i, row in enumerate(rows):
            if row.tensor in tensors and row.cause == "unknown":
                arrays = arrays_assigned(backward, lambda: backward(dy, cache))
                rows[i] = diagnosed(row, last_right(step(dy, *args, **drawn()), _("the gradient"), arrays))
    return rows


def _by_slips(rows, ours, slips):
    """The rows with diagnoses; a slip is {tensor: gradient}, and one that explains several tensors is the likely cause."""
    ours = {tensor: gradient for tensor, gradient in ours.items() if isinstance(gradient, np.ndarray)}
    left = {row.tensor for row in rows if not row.ok and np.isfinite(row.error)} & ours.keys()
    right, said = {row.tensor for row in rows if row.ok}, {row.tensor: row.diagnosis for row in rows}
    fits, contradicts, causes = {}, {}, {}
    for words, slip in slips.items():
        theirs = {tensor: gradient for tensor, gradient in slip.items() if gradient is not None}
        agree = {tensor for tensor in theirs.keys() & ours.keys() if close(ours[tensor], theirs[tensor], 1e-9)}
        if not (theirs.keys() - agree) & right:                 # a mistake that would spoil what is right was not made
            fits[words], contradicts[words] = agree, theirs.keys() - agree
    while left and fits:                                        # the slip that explains most of them, and contradicts least
        best = max(fits, key=lambda words: (len(left & fits[words]), -len(contradicts[words])))
        if not left & fits[best]:
            break
        causes |= dict.fromkeys(left & fits[best], best)
        left -= fits[best]
    # One diagnosis for several tensors, such as a factor in all of them, says more than a slip that fits some of these alone.
    weak = {tensor for tensor, words in causes.items()
            if any(said[tensor] == said[other] for other in contradicts[words] & left)}
    return [diagnosed(row, because(causes[row.tensor])) if row.tensor in causes.keys() - weak else row for row in rows]
