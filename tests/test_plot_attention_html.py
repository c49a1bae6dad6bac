"""The page of `plot.attention(..., html=FILE)`: what is in the file, and the page in a browser, which is opt-in:

    python -m pip install -e ".[docs]" && TINYMAE_BROWSER=1 python -m pytest tests/test_plot_attention_html.py
"""
import json
import os
import re
import shutil

import numpy as np
import pytest

from tinymae import plot

QUERIES = ["i", "have", "</script><script>alert(1)</script>", "<!--", "&amp;", "cat"]
KEYS = ["我", "有", "一", "\u2028", "\"猫\""]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def weights():
    return np.random.default_rng(0).dirichlet(np.full(len(KEYS), 0.3), (3, len(QUERIES)))      # (H, Tq, Tk)


def content(path):
    """What the page's script reads."""
    (text,) = re.findall(r'<script id="weights" type="application/json">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    return json.loads(text)


def test_the_page_has_the_weights_and_the_tokens(weights, tmp_path):
    figure = plot.attention(weights, QUERIES, KEYS, html=tmp_path / "new" / "page.html", vmax=0.5)
    assert len(figure.axes) >= 3                                # the figure is drawn as without it
    found = content(tmp_path / "new" / "page.html")
    assert (found["queries"], found["keys"], found["largest"]) == (QUERIES, KEYS, 0.5)
    np.testing.assert_allclose(found["weights"], weights, rtol=1e-3)


def test_one_file_and_nothing_from_elsewhere(weights, tmp_path):
    plot.attention(weights, QUERIES, KEYS, html=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert not re.findall(r"^(?:import|export)\b|@import|\bsrc=|fetch\(", text, re.MULTILINE)
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}                # a name, no address
    assert re.findall(r'href="(.+?)"', text) == ["data:,"]
    assert text.count("<script") == text.count("</script>") == 2 and "<!--" not in text        # no token became markup
    assert os.listdir(tmp_path) == ["page.html"]


def test_numbers_stand_for_tokens_and_one_map_is_one_head(weights, tmp_path):
    plot.attention(weights[0], html=tmp_path / "page.html")
    found = content(tmp_path / "page.html")
    assert np.shape(found["weights"]) == (1, len(QUERIES), len(KEYS)) and found["keys"] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("name", ["page.png", "page", "page.html.txt"])
def test_another_suffix_is_refused(weights, tmp_path, name):
    with pytest.raises(ValueError, match=r"html is .*; expected the name of a page to write, such as attention\.html"):
        plot.attention(weights, html=tmp_path / name)
    assert not list(tmp_path.iterdir())


# ---- in a browser ------------------------------------------------------------------------------------------------------

@pytest.fixture
def opened(weights, tmp_path):
    """A function(**options) that opens the page; in the end, it has neither complained nor asked for another file."""
    if not os.environ.get("TINYMAE_BROWSER"):
        pytest.skip("set TINYMAE_BROWSER=1 to open the page in Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason='needs playwright: python -m pip install -e ".[docs]"')
    plot.attention(weights, QUERIES, KEYS, html=tmp_path / "page.html")
    complaints, requests = [], []
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def page(**options):
            tab = browser.new_page(**options)
            tab.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
            tab.on("pageerror", lambda error: complaints.append(str(error)))
            tab.on("dialog", lambda dialog: complaints.append(dialog.message))
            tab.on("request", lambda request: requests.append(request.url))
            tab.goto((tmp_path / "page.html").as_uri())
            return tab

        yield page
    assert complaints == [] and {url.partition(":")[0] for url in requests} <= {"file", "data"}
    assert {url for url in requests if url.startswith("file")} == {(tmp_path / "page.html").as_uri()}


def readout(tab):
    return tab.locator(".attn-readout").first.inner_text()


def test_a_token_shows_its_weights_in_each_head(opened, weights):
    tab = opened(locale="en-GB", viewport={"width": 1000, "height": 900})
    keys, queries = (tab.locator(".attn-row").nth(row).locator(".attn-token") for row in (0, 1))
    assert [each.split("\n")[0] for each in queries.all_inner_texts()] == QUERIES

    def shown(tokens):
        return [float(number) for number in tokens.locator("small").all_inner_texts()]

    queries.nth(5).hover()
    np.testing.assert_allclose(shown(keys), weights.mean(axis=0)[5], atol=0.006)
    assert readout(tab).startswith("cat attends to: ") and tab.locator(".attn-mine").count() >= 1
    each = tab.locator("figure").nth(1)
    assert "cat attends to, in each head" in each.inner_text()
    each.locator("rect[data-q='2'][data-k='0']").click()      # below the mean: head 1
    np.testing.assert_allclose(shown(keys), weights[1, 5], atol=0.006)
    assert tab.locator("select").input_value() == "1"
    tab.locator("select").select_option("0")
    keys.nth(0).hover()
    np.testing.assert_allclose(shown(queries), weights[0, :, 0], atol=0.006)
    assert readout(tab).startswith("我 receives from: ")
    tab.keyboard.press("Tab")
    keys.nth(0).focus()
    tab.keyboard.press("ArrowRight")
    assert readout(tab).startswith("有 receives from: ")


def test_a_tap_selects_a_token(opened):
    tab = opened(locale="en-GB", has_touch=True, viewport={"width": 400, "height": 800})
    tab.locator(".attn-row").nth(1).locator(".attn-token").nth(1).tap()
    assert readout(tab).startswith("have attends to: ")
    tab.locator("figure").first.locator("rect[data-q='0'][data-k='1']").tap()
    assert tab.locator(".attn-readout").nth(1).inner_text().startswith("i → 有: ")
    assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_two_languages_light_and_dark(opened, scheme, dark):
    tab = opened(locale="zh-CN", color_scheme=scheme)
    assert tab.inner_text("h1") == "注意力" and tab.evaluate("document.documentElement.lang") == "zh-Hans"
    tab.click(".page-language")
    assert tab.inner_text("h1") == tab.title() == "Attention"
    colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", colour)[0]) < 100) == dark
