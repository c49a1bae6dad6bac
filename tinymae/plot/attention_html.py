"""Attention weights as a page for the browser: one file, which needs neither network nor server.

The drawing code is that of the live page (`python -m tinymae play`, tab "attention"): it is copied into the file, with the
weights as JSON.
"""
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinymae.files import whole_file

HERE = Path(__file__).parent
STATIC = HERE.parent / "play" / "static"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Attention</title>
<link rel="icon" href="data:,">
<style>
{style}
.attn [hidden] {{ display: none; }}
.page-head h1 {{ flex: 1; }}
</style>
</head>
<body>
<main id="page" class="attn"></main>
<script id="weights" type="application/json">{weights}</script>
<script type="module">
{code}
</script>
</body>
</html>
"""


def write_attention_page(
    path: Path | str, weights: np.ndarray, queries: Sequence[str] | None, keys: Sequence[str] | None, largest: float = 1.0
) -> Path:
    """Write the page of `plot.attention(..., html=path)`.

    Parameters
    ----------
    path : ends in .html
    weights : ndarray (H, Tq, Tk), from 0 to 1; written with four significant digits
    queries, keys : Tq and Tk tokens, or None for numbers
    largest : the weight that is drawn in full colour

    Raises
    ------
    ValueError
        if the path does not end in .html
    OSError
        if the file cannot be written
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"html is {str(path)!r}; expected the name of a page to write, such as attention.html")
    _heads, count_q, count_k = weights.shape
    content = {
        "weights": [[[float(f"{weight:.4g}") for weight in row] for row in head] for head in weights.tolist()],
        "queries": [str(token) for token in (range(count_q) if queries is None else queries)],
        "keys": [str(token) for token in (range(count_k) if keys is None else keys)],
        "largest": float(largest),
    }
    # A token may be "</script>", which would end the script: in JSON, < can be written without the character.
    encoded = json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    style = re.sub(r"^@import .*\n", "", _text(STATIC / "style.css"), flags=re.MULTILINE) + _text(STATIC / "attention_map.css")
    code = _text(STATIC / "attention_map.js") + _text(HERE / "attention_page.js")
    page = PAGE.format(style=style, weights=encoded, code=re.sub(r"^export ", "", code, flags=re.MULTILINE))
    with whole_file(path) as file:
        file.write(page.encode())
    return path


def _text(path):
    return path.read_text("utf-8")
