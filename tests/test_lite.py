"""A lesson in the browser: JupyterLite with the wheel of this checkout, in Chromium; all cells run, one is changed.

Opt-in, for it needs Chromium and a folder with Pyodide 0.27.7 and, of its distribution, NumPy, SciPy, Matplotlib, pandas,
IPython and what they need. The site takes a newer Pyodide from its usual host, with newer packages; here the kernel is the last
one for 0.27:

    python -m pip install -e ".[docs,test]" "jupyterlite-core==0.6.*" "jupyterlite-pyodide-kernel==0.6.1" jupyter-server
    TINYMAE_PYODIDE=FOLDER python -m pytest tests/test_lite.py
"""
import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNTIME = os.environ.get("TINYMAE_PYODIDE")
if not RUNTIME or not list(Path(RUNTIME).glob("matplotlib-*.whl")):
    pytest.skip("set TINYMAE_PYODIDE to a folder with Pyodide 0.27.7 and its Matplotlib", allow_module_level=True)
for needed in ("playwright", "sphinx_gallery", "jupyterlite_pyodide_kernel", "jupyter_server"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}: the command above installs it", allow_module_level=True)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LESSON = "07_attention"
PURE = ["seaborn", "tqdm", "filelock", "threadpoolctl", "platformdirs", "pygments", "pylatexenc", "comm"]       # of PyPI
INSTALL = f"""import piplite
await piplite.install({["tinymae", *PURE]}, deps=False)         # because the Matplotlib here is older than tinymae asks for
import matplotlib, pandas, scipy                                # loaded from the runtime
%load_ext tinymae.plot.notebook"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(address, notebook) of a JupyterLite with one lesson, whose first cell installs from this runtime."""
    from sphinx_gallery.notebook import python_to_jupyter_cli

    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    folder = tmp_path_factory.mktemp("lite")
    wheels, contents, out = folder / "wheels", folder / "contents", folder / "out"
    contents.mkdir()
    lesson = Path(shutil.copy(ROOT / "lessons" / f"{LESSON}.py", contents))
    python_to_jupyter_cli([str(lesson)], sphinx_gallery_conf={"first_notebook_cell": INSTALL})
    lesson.unlink()
    notebook = json.loads(lesson.with_suffix(".ipynb").read_text("utf-8"))
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, ROOT, *PURE], check=True)
    subprocess.run([sys.executable, "-m", "jupyter", "lite", "build", "--contents", contents, "--piplite-wheels", wheels,
                    "--output-dir", out], cwd=folder, check=True, capture_output=True)
    shutil.copytree(RUNTIME, out / "static" / "pyodide")
    settings = json.loads((out / "jupyter-lite.json").read_text("utf-8"))
    config = settings["jupyter-config-data"]
    config["litePluginSettings"]["@jupyterlite/pyodide-kernel-extension:kernel"]["pyodideUrl"] = "./static/pyodide/pyodide.js"
    config["settingsOverrides"] = {"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}}     # keeps all cells
    (out / "jupyter-lite.json").write_text(json.dumps(settings), encoding="utf-8")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(SimpleHTTPRequestHandler, directory=out)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/notebooks/index.html?path={LESSON}.ipynb", notebook
        server.shutdown()


def test_a_lesson_runs_and_a_changed_cell_runs_again(served):
    from playwright.sync_api import expect, sync_playwright

    address, notebook = served
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]

    def change(number, old, new):
        """Change a cell as a person does, run it, and wait until it has run."""
        assert code[number].count(old) == 1
        code[number] = code[number].replace(old, new)
        cells.nth(number).locator(".cm-content").click()
        tab.keyboard.press("Control+A")
        tab.keyboard.insert_text(code[number])
        tab.keyboard.press("Shift+Enter")
        expect(waiting).to_have_count(0, timeout=120_000)

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        tab.goto(address)
        cells, waiting = tab.locator(".jp-CodeCell"), tab.locator(".jp-InputPrompt", has_text="*")
        errors = tab.locator(".jp-OutputArea-output", has_text="Traceback")
        expect(cells).to_have_count(len(code), timeout=60_000)
        tab.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=120_000)
        tab.locator(".lm-MenuBar-item", has_text="Run").click()
        tab.locator(".lm-Menu-item", has_text="Run All Cells").first.click()
        expect(cells.last.locator(".jp-InputPrompt")).to_have_text(re.compile(r"[0-9]"), timeout=300_000)
        assert errors.all_inner_texts() == []
        pictures = tab.locator(".jp-OutputArea-output img")
        assert pictures.count() == sum(cell.count("plot.save(") for cell in code) == 2

        change(-1 % len(code), "answer_1 = None", "answer_1 = (0.79, 0.79)")           # wrong, and it says why
        expect(errors).to_contain_text("the scores are 1, 1 and 2")
        change(-1 % len(code), "(0.79, 0.79)", "(0.75, 0.75)")
        expect(errors).to_have_count(0)

        drawing = next(number for number, cell in enumerate(code) if "plot.save(" in cell)
        before = cells.nth(drawing).locator("img").get_attribute("src")
        change(drawing, '"attention weights"', '"weights of attention"')
        after = cells.nth(drawing).locator("img")
        expect(after).to_have_count(1)
        assert after.get_attribute("src") != before             # the picture of the changed cell, inline
        browser.close()
