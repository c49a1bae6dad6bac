"""In a notebook: a figure that ends a cell is shown once, and what a cell writes below figures/ stands below it."""
import json
import os
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from figure_parts import softmax_rows

from tinymae import plot

# A notebook's shell, which writes down what it would show: for each cell the kinds of each of its outputs.
SHELL = """
import json, sys
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import select_figure_formats
from traitlets.config import Config

outputs = []


class Hook(DisplayHook):
    def write_format_data(self, format_dict, md_dict=None):
        outputs[-1].append(sorted(format_dict))


class Publisher(DisplayPublisher):
    def publish(self, data, **options):
        outputs[-1].append(sorted(data))


cells, inline = json.loads(sys.argv[1])
shell = InteractiveShell.instance(displayhook_class=Hook, display_pub_class=Publisher, config=Config(
    HistoryManager={"enabled": False}))
if inline:
    select_figure_formats(shell, {"png"})               # what `%matplotlib inline` does
for cell in cells:
    outputs.append([])
    result = shell.run_cell(cell, store_history=True)
    if "1 / 0" not in cell:
        result.raise_error()
print("\\n" + json.dumps(outputs))
"""
IMPORT = "from pathlib import Path\nfrom tinymae import plot\nw = [[0.25, 0.75], [0.5, 0.5]]"
PNG = ["image/png", "text/plain"]


def run_cells(folder, *cells, inline=False):
    """What a notebook in a folder shows of each of its cells."""
    pytest.importorskip("IPython")
    environment = os.environ | {"IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", SHELL, json.dumps([cells, inline])], cwd=folder, env=environment,
                          capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("inline", [False, True])
def test_a_notebook_shows_the_figure_that_a_cell_ends_with_once(tmp_path, inline):
    cells = IMPORT, "plot.attention(w)", "figure = plot.encoder_decoder(1, 1)", "figure", "plot.attention(w);"
    assert run_cells(tmp_path, *cells, inline=inline) == [[], [PNG], [], [PNG], []]


def test_the_picture_in_a_notebook_is_that_of_the_file(tmp_path):
    figure = plot.attention(softmax_rows(3, 3))
    with matplotlib.rc_context({"font.size": 23.0, "savefig.dpi": 30, "savefig.facecolor": "red"}):
        shown = figure._repr_png_()
    (tmp_path / "shown.png").write_bytes(shown)
    pictures = [matplotlib.image.imread(path) for path in (tmp_path / "shown.png", plot.save(figure, tmp_path / "saved.png"))]
    np.testing.assert_array_equal(*pictures)


def test_the_extension_shows_what_a_cell_writes(tmp_path):
    (tmp_path / "figures").mkdir()
    plot.save(plot.attention(softmax_rows(3, 3)), tmp_path / "figures" / "old.png")
    shown = run_cells(
        tmp_path, IMPORT, "%load_ext tinymae.plot.notebook",
        "print(plot.save(plot.attention(w), Path('figures') / 'a.png'))",
        "print('nothing')",
        "for name in ('b', 'deep/c'):\n    plot.save(plot.attention(w), f'figures/{name}.png')\n1 / 0",
        "path = plot.save(plot.attention(w), 'figures/a.png')",             # written again
        "path = plot.save(plot.attention(w), 'elsewhere.png')",
    )
    assert shown == [[], [], [PNG], [], [PNG, PNG], [PNG], []]
