"""What the live page asks, and the function that answers: JSON in, JSON out.

Nothing here knows of HTTP or of files: `server` carries questions and answers on this machine, and in a browser Pyodide calls
`answer_json` without any server. Each tab has a module of its own with its functions; they need NumPy alone.
"""
import json
from dataclasses import dataclass

from tinymae.play import attention_tab, mae_tab, positions_tab, step_tab
from tinymae.tasks.reconstruct import PhotoModel
from tinymae.tasks.translate import Translator


@dataclass(frozen=True)
class Models:
    """The models that answer; the functions of a tab get all of them."""

    translator: Translator
    photos: PhotoModel


FUNCTIONS = {
    **attention_tab.FUNCTIONS,
    **mae_tab.FUNCTIONS,
    **positions_tab.FUNCTIONS,
    **step_tab.FUNCTIONS,
}


def answer_json(name: str, question: str, models: Models) -> str:
    """The answer to a question, both JSON texts.

    Parameters
    ----------
    name : of a function in FUNCTIONS
    question : a JSON object with its arguments
    models : to ask

    Returns
    -------
    a JSON object; {"error": sentence} if the arguments do not fit
    """
    try:
        if name not in FUNCTIONS:
            raise ValueError(f"expected the name of a function, one of {', '.join(FUNCTIONS)}, got {name!r}")
        asked = json.loads(question)
        if not isinstance(asked, dict):
            raise ValueError(f"expected a JSON object, got {type(asked).__name__}")
        return json.dumps(FUNCTIONS[name](models, **asked), allow_nan=False)
    except (ValueError, TypeError) as error:                    # ValueError: json.JSONDecodeError is one
        return json.dumps({"error": str(error)})
