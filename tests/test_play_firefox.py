"""The live page in Firefox, which speaks Marionette: opt-in, for it needs Firefox and the driver.

    python -m pip install marionette_driver && TINYMAE_BROWSER=1 python -m pytest tests/test_play_firefox.py
"""
import os
import shutil

import pytest

from tinymae.play import api, server

FIREFOX = next(filter(None, map(shutil.which, ("firefox", "firefox-esr"))), None)
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")      # the driver leaves files open
TABS = {"attention": ".attn-token[aria-pressed]", "mae": ".mae-errors td", "positions": ".clock", "step": ".step-box"}
COMPLAINTS = """
return Services.console.getMessageArray()
  .filter((line) => line instanceof Ci.nsIScriptError && line.sourceName.startsWith("http")).map((line) => line.errorMessage);
"""


@pytest.fixture(scope="module")
def firefox():
    if not os.environ.get("TINYMAE_BROWSER") or not FIREFOX:
        pytest.skip("set TINYMAE_BROWSER=1, with Firefox installed")
    driver = pytest.importorskip("marionette_driver.marionette", reason="needs marionette_driver")
    browser = driver.Marionette(bin=FIREFOX, headless=True, app="fxdesktop", gecko_log=os.devnull,
                                prefs={"ui.prefersReducedMotion": 1})
    browser.start_session()
    yield browser
    with browser.using_context("chrome"):
        assert browser.execute_script(COMPLAINTS, sandbox="system") == []
    browser.cleanup()


@pytest.fixture(scope="module")
def url():
    with server.running(api.shipped_models()) as running:
        yield running.url


def found(browser, selector):
    from marionette_driver import Wait
    return Wait(browser, timeout=60).until(lambda page: page.find_elements("css selector", selector))[0]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", TABS)
def test_every_tab_is_drawn(firefox, url, name, language):
    firefox.navigate("about:blank")                             # or only the part behind # would change
    firefox.navigate(f"{url}&lang={language}#{name}")
    assert found(firefox, TABS[name]).is_displayed() and not found(firefox, "#status").text


def test_a_token_leads_to_its_gradient(firefox, url):
    firefox.navigate(f"{url}&lang=en#attention")
    found(firefox, TABS["attention"]).click()
    assert found(firefox, ".attn-token[aria-pressed=true]") and found(firefox, ".attn-bars th[colspan]").is_displayed()
