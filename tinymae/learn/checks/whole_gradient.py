"""Check of a gradient that is summed over parts of a batch."""
from collections.abc import Iterator

import numpy as np

from tinymae.gradcheck import Row
from tinymae.learn.demands import function, parts
from tinymae.learn.inputs import D, gaussian
from tinymae.learn.judge import judge
from tinymae.messages import message as _


def check_whole_gradient(names: dict) -> Iterator[tuple[str, list[Row]]]:
    """Linear regression on parts of 2, 5 and 9 tokens, against all 16 at once."""
    params, x, y = {"w": gaussian(D), "b": np.array([0.5])}, gaussian(16, D), gaussian(16)
    cut = [(x[:2], y[:2]), (x[2:7], y[2:7]), (x[7:], y[7:])]

    def gradient(params, part):
        x, y = part
        error = x @ params["w"] + params["b"] - y
        return (error @ error) / len(y), {"w": 2 * error @ x / len(y), "b": 2 * error.mean(keepdims=True)}, len(y)

    loss, grads = parts(function(names, "whole_gradient")(params, cut, gradient), "loss", "grads")
    grads = grads if isinstance(grads, dict) else {}
    (right, right_grads, count), single = gradient(params, (x, y)), [gradient(params, part) for part in cut]

    def row(name, ours, right, numbers):
        return judge(name, ours, right, {
            _("the mean is taken over the means of the parts: a part counts by its number of tokens"):
                lambda: sum(numbers) / len(cut),
            _("the parts are added, and the sum is not divided"): lambda: sum(numbers),
            _("the last part replaces those before: add it to them"): lambda: numbers[-1],
            _("the sum over all tokens is not divided by their number"): lambda: count * right,
        })

    yield _("16 tokens in three parts"), [row("loss", loss, right, [part[0] for part in single])] + [
        row(f"d{name}", grads.get(name), right_grads[name], [part[1][name] for part in single]) for name in params
    ]
