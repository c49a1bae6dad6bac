"""What the live page asks, and the function that answers: JSON in, JSON out.

Nothing here knows of HTTP: `server` carries questions and answers on this machine, and in a browser Pyodide calls `answer_json`
without any server. Each tab has a module of its own with its functions; they need NumPy alone.
"""
import json
from dataclasses import dataclass

from tinymae.messages import message as _
from tinymae.messages import spoken
from tinymae.play import attention_tab, mae_tab, positions_tab, step_tab
from tinymae.play.translators import ShownTranslator, ours
from tinymae.tasks.photograph import DETAIL, PhotoModel
from tinymae.tasks.translate import Translator
from tinymae.weights.shipped import read_model, shipped


@dataclass(frozen=True, eq=False)
class Models:
    """The models that answer; the functions of a tab get all of them."""

    translator: ShownTranslator
    photos: PhotoModel


FUNCTIONS = {
    **attention_tab.FUNCTIONS,
    **mae_tab.FUNCTIONS,
    **positions_tab.FUNCTIONS,
    **step_tab.FUNCTIONS,
}


def shipped_models() -> Models:
    """The models that come with the package, read with NumPy alone."""
    config, params, extra = read_model(shipped("mae"), "mae")
    return Models(ours(Translator.load()), PhotoModel(config, params, DETAIL if extra["crops"] else None,
                                                       turned=extra["crops"]))


def answer_json(name: str, question: str, models: Models, language: str | None = None) -> str:
    """The answer to a question, both JSON texts.

    It keeps nothing and changes no model, as the functions it calls, so any number of threads may call it at once.

    Parameters
    ----------
    name : of a function in FUNCTIONS
    question : a JSON object with its arguments
    models : to ask
    language : of the sentences in the answer, "en" or "zh"; None for that of this process

    Returns
    -------
    a JSON object; {"error": sentence} if the arguments do not fit
    """
    with spoken(language):
        return _answered(name, question, models)


def _answered(name, question, models):
    """As `answer_json`, in the language that is spoken."""
    try:
        if name not in FUNCTIONS:
            raise ValueError(_("expected the name of a function, one of {names}, got {name!r}",
                               names=", ".join(FUNCTIONS), name=name))
        asked = json.loads(question, parse_constant=_no_number)
        if not isinstance(asked, dict):
            raise ValueError(_("expected a JSON object, got {kind}", kind=type(asked).__name__))
        return json.dumps(FUNCTIONS[name](models, **asked), allow_nan=False)
    except RecursionError:
        return json.dumps({"error": _("expected a JSON object of a few levels, got one that is nested too deeply")})
    except (ValueError, TypeError) as error:                    # ValueError: json.JSONDecodeError is one
        return json.dumps({"error": str(error)})


def _no_number(name):
    """Python's json reads NaN and Infinity, which JSON does not have."""
    raise ValueError(_("expected numbers, got {name}, which JSON does not have", name=name))
