"""The built site in a browser: mathematics rendered, pictures there, nothing wider than the window, no dead link, no error.

Opt-in, for it needs the built site and Chromium:

    python -m pip install -e ".[docs]" && python -m sphinx -W docs docs/_build/html
    TINYMAE_SITE=docs/_build/html python -m pytest tests/test_site.py
"""
import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

SITE = os.environ.get("TINYMAE_SITE")
if not SITE:
    pytest.skip("set TINYMAE_SITE to a built site, such as docs/_build/html", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason='needs playwright: python -m pip install -e ".[docs]"')

ROOT = Path(SITE).resolve()
NO_PAGES = {"lite", "play", "_static"}                          # two programs, and what the theme is made of
PAGES = sorted(page for page in ROOT.rglob("*.html") if not NO_PAGES & set(page.relative_to(ROOT).parts))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
LOOK = """async () => {
    if (window.MathJax) await MathJax.startup.promise;
    const images = [...document.images];
    images.forEach(image => image.loading = "eager");
    await Promise.all(images.map(image => image.decode().catch(() => 0)));
    const page = document.scrollingElement;
    return {
        rendered: document.querySelectorAll("mjx-container").length,
        failed: document.querySelectorAll("mjx-merror, [data-mjx-error]").length,
        raw: document.body.innerText.match(/\\\\\\(|\\\\\\[|\\$\\$/g) ?? [],
        missing: images.filter(image => !image.naturalWidth).map(image => image.src),
        wide: page.scrollWidth > innerWidth
            ? [...document.querySelectorAll("body *")]
                .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest("pre, .math"))
                .map(e => `${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`).slice(0, 5)
                .concat(`${page.scrollWidth} pixels`)
            : [],
        ids: [...document.querySelectorAll("[id]")].map(e => e.id),
        links: [...document.links].map(link => link.href).filter(link => link.startsWith("file:")),
    };
}"""


@pytest.fixture(scope="module")
def seen():
    """{(page, width): what LOOK found there, with the errors of the console}."""
    assert PAGES, f"no pages in {SITE}: build the site first"
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    found = {}
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for width in (1400, 400):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            errors = []
            tab.on("console", lambda message, errors=errors: errors.append(message.text) if message.type == "error" else None)
            tab.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            tab.on("request", lambda request, errors=errors: None if request.url.startswith(("file:", "data:"))
                   else errors.append(f"asks the network for {request.url}"))
            for page in PAGES:
                tab.goto(page.as_uri())
                found[page, width] = tab.evaluate(LOOK) | {"errors": errors[:]}
                errors.clear()
        browser.close()
    return found


def complaints(seen, name):
    return {f"{page.name} at {width}": look[name] for (page, width), look in seen.items() if look[name]}


def test_mathematics_is_rendered(seen):
    pages = {where: look for where, look in seen.items() if "_modules" not in where[0].parts}       # where \\( is Python
    assert complaints(seen, "failed") == {} and complaints(pages, "raw") == {}
    for (page, _), look in seen.items():
        assert look["rendered"] == len(re.findall('class="math', page.read_text("utf-8"))), page
    assert sum(look["rendered"] for look in seen.values()) > 100


@pytest.mark.parametrize("name", ["missing", "wide", "errors"])
def test_nothing_is_missing_too_wide_or_wrong(seen, name):
    assert complaints(seen, name) == {}


def test_links_lead_somewhere(seen):
    ids = {page: set(look["ids"]) for (page, _), look in seen.items()}
    dead = set()
    for (page, _), look in seen.items():
        for link in look["links"]:
            address, _, anchor = unquote(link).removeprefix("file://").partition("#")
            target = Path(address.partition("?")[0])
            if not target.is_file() or (anchor and target in ids and anchor not in ids[target]):
                dead.add(f"{page.name}: {link}")
    assert dead == set()


@pytest.mark.parametrize("words", ["注意力", "位置编码", "残差连接"])
def test_the_chinese_site_is_searched_in_chinese(words):
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page()
        tab.goto(f"{(ROOT / 'zh' / 'search.html').as_uri()}?q={words}")
        tab.locator("ul.search li a").first.wait_for()
        assert re.match(r"\d+ · ", tab.locator("ul.search li a").first.inner_text())      # a lesson comes first
        browser.close()
