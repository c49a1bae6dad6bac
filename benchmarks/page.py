"""The live page: how long each interaction takes, from the event to the picture, and how many bytes the page has.

    python -m pip install -e ".[docs]" && python -m benchmarks.page [--rounds 50]

A real Chromium opens the page from the real server. A script in the page sends the event (a change, an input, a click, a key),
waits until the answer is in the document, and until the browser has drawn the next frame. So a time has the question, Python's
work, the answer as JSON, the drawing, and the wait for the frame, which "a frame alone" shows. Animations are off
(prefers-reduced-motion).
"""
import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from tinymae.cli.play import PYODIDE
from tinymae.play.api import shipped_models
from tinymae.play.server import running, static_files, write_site

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAUSE = 100                             # milliseconds between two events: what the last one still asks for must not count
WARM_UP = 3

# {interaction: (tab, what the event does, the element that the answer changes or brings)}; i counts the rounds
INTERACTIONS = {
    "a frame alone": ("attention", "document.querySelector('#status').dataset.round = i", "#status"),
    "attention: choose a layer": ("attention", "choose('.attn-bar select', 2, i)", ".attn-heatmap"),
    "attention: choose a head": ("attention", "choose('.attn-bar select', 3, i)", ".attn-heatmap"),
    "attention: type a sentence and translate": (
        "attention", "document.querySelector('#attn-text').value = ['我有一只猫', '我爸爸昨天没买杯子'][i % 2];"
                     "document.querySelector('form button').click()", ".attn-sentence"),
    "attention: beam of 2, 4 or 8": ("attention", "choose('.attn-bar select', 0, 1 + i % 3)", ".attn-sentence"),
    "attention: click a token, backward": (
        "attention", "document.querySelectorAll('.attn-row .attn-token')[i % 4].click()", ".attn-heatmap"),
    "attention: temperature": ("attention", "slide('input[type=range]', 0, 0.5 + i % 10 / 10, 'change')", ".attn-sentence"),
    "mae: hide or show a patch": (
        "mae", "for (const key of ['ArrowRight', ' ']) document.querySelector('.mae-mask').dispatchEvent("
               "new KeyboardEvent('keydown', {key}))", "[data-name=time]"),
    "mae: ratio of hidden patches": ("mae", "slide('input[type=range]', 0, 0.3 + i % 10 / 20)", "[data-name=time]"),
    "positions: length": ("positions", "slide('input[type=range]', 0, 40 + i % 20)", ".positions-beyond > div"),
    "positions: dimension": ("positions", "slide('input[type=range]', 1, 16 + 2 * (i % 20))", ".positions-beyond > div"),
    "positions: position": ("positions", "slide('input[type=range]', 4, i % 20)", ".positions-beyond > div"),
    "step: one weight": ("step", "slide('.step-controls input[type=range]', 0, i % 20 / 10 - 1)", ".step-boxes"),
    "step: gradient check": (
        "step", "[...document.querySelectorAll('.step-controls button')].at(-1).click()", ".step-report"),
}
MEASURE = """
async ([event, watched, i]) => {
  const slide = (selector, number, value, kind = "input") => {
    const input = document.querySelectorAll(selector)[number];
    input.value = value;
    for (const each of ["input", kind]) input.dispatchEvent(new Event(each, {bubbles: true}));
  };
  const choose = (selector, number, wanted) => {
    const select = document.querySelectorAll(selector)[number];
    select.selectedIndex = wanted % select.options.length;
    select.dispatchEvent(new Event("change"));
  };
  const is = (node) => node.nodeType === 1 && (node.matches(watched) || node.querySelector(watched));
  const answered = new Promise((resolve) => {
    const observer = new MutationObserver((changes) => {
      if (!changes.some(({target, addedNodes}) => target.matches?.(watched) || [...addedNodes].some(is))) return;
      observer.disconnect();
      resolve();
    });
    observer.observe(document.body, {subtree: true, childList: true, attributes: true});
  });
  const start = performance.now();
  new Function("i", "slide", "choose", event)(i, slide, choose);
  await answered;
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  return performance.now() - start;
}
"""


def measured(rounds: int) -> dict[str, list[float]]:
    """{interaction: milliseconds of each round}."""
    from playwright.sync_api import sync_playwright

    found = {}
    with running(shipped_models()) as server, sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        # the policy of the server forbids code from texts, which the page does not need, and this script does
        page = browser.new_page(viewport={"width": 1200, "height": 900}, reduced_motion="reduce", bypass_csp=True)
        for name, (tab, event, watched) in INTERACTIONS.items():
            if not page.url.endswith(f"#{tab}"):
                page.goto("about:blank")
                page.goto(f"{server.url}&lang=en#{tab}")
                page.wait_for_load_state("networkidle")
            found[name] = []
            for i in range(WARM_UP + rounds):
                page.wait_for_timeout(PAUSE)
                found[name].append(page.evaluate(MEASURE, [event, watched, i]))
            found[name] = found[name][WARM_UP:]
        browser.close()
    return found


def table(found: dict[str, list[float]]) -> str:
    """Median, quartiles and largest of each interaction, as lines of text."""
    lines = [f"{'milliseconds':42}{'median':>8}{'quartiles':>16}{'largest':>9}"]
    for name, times in found.items():
        low, middle, high = statistics.quantiles(times, n=4)
        lines.append(f"{name:42}{middle:8.0f}{f'{low:.0f}..{high:.0f}':>16}{max(times):9.0f}")
    return "\n".join(lines)


def weight() -> str:
    """How many bytes a browser loads, as lines of text."""
    of_page = {name: len(content) for name, content in static_files().items() if name != "pyodide.js"}
    with tempfile.TemporaryDirectory() as folder:
        write_site(folder, PYODIDE)
        archive = Path(folder, "tinymae.zip").stat().st_size
    return (f"the page, {len(of_page)} files: {sum(of_page.values()):,} bytes\n"
            f"tinymae.zip of the page for a site: {archive:,} bytes (and Pyodide with NumPy)")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.page", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50, help="of each interaction (default 50)")
    options = parser.parse_args()
    for name, value in machine.description().items():
        print(f"{name}: {value}")
    others = machine.Others()
    time.sleep(3)
    print(f"before the start, other processes used {others.cores():.1f} of {os.cpu_count()} cores; {options.rounds} rounds")
    print(table(measured(options.rounds)))
    print(weight())


if __name__ == "__main__":
    main()
