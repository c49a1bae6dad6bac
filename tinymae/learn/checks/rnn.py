"""Check of a recurrent network."""
from collections.abc import Callable

import numpy as np

from tinymae.learn.inputs import TQ, B, D, F, gaussian
from tinymae.learn.judge import Tables
from tinymae.learn.pairs import check_forward
from tinymae.messages import message as _


def check_rnn(names: dict) -> Tables:
    """The states of all steps."""
    def states(x, wx, wh, b, start=lambda h: h, end=lambda h: h):
        h, found = np.zeros((len(x), len(b))), []
        for t in range(x.shape[1]):
            h = np.tanh(x[:, t] @ wx + start(h) @ wh + b)
            found.append(h)
        return end(np.stack(found, axis=1)), h

    def changed(**wrong: Callable) -> Callable:
        return lambda *args: states(*args, **wrong)[0]

    arguments = gaussian(B, TQ, D), gaussian(D, F) / 4, gaussian(F, F), gaussian(F)
    yield from check_forward(names, "rnn", states, *arguments, variants={
        _("every step starts from h = 0, so nothing is remembered: it starts from the state of the step before"):
            changed(start=np.zeros_like),
        _("the states come in the reverse order"): changed(end=lambda states: states[:, ::-1]),
        _("the last state stands in the place of all"): changed(end=lambda states: 0 * states + states[:, -1:]),
    })
