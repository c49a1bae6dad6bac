"""A notebook shows the figures that a cell writes: `%load_ext tinymae.plot.notebook` in its first cell.

The cells of a lesson write their figures to files and print where. With this extension, each picture stands below its cell.
"""
from pathlib import Path
from typing import Any

FIGURES = "figures"                             # the folder, below the notebook's


def load_ipython_extension(ipython: Any) -> None:
    """Show, after each cell, the .png files below FIGURES that are new or were written again in it, in their order.

    Parameters
    ----------
    ipython : its InteractiveShell, as `%load_ext` passes it
    """
    from IPython.display import Image, display

    before = _written()

    def remember(info):
        before.clear()
        before.update(_written())

    def show(result):
        now = _written()
        for path in sorted((path for path in now if now[path] != before.get(path)), key=now.get):
            display(Image(filename=path))

    ipython.events.register("pre_run_cell", remember)
    ipython.events.register("post_run_cell", show)


def _written():
    """{path of a figure: when it was written, in nanoseconds}."""
    return {path: path.stat().st_mtime_ns for path in Path(FIGURES).rglob("*.png")}
