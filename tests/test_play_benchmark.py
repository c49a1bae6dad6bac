"""The benchmark of the live page: its table, and that each of its events finds what it changes."""
import os
from pathlib import Path

import pytest

from tinymae.play import server


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])


def test_the_table_has_medians():
    from benchmarks.page import table

    lines = table({"a frame alone": [1.0, 1.0, 2.0], "mae": [10.0, 400.0, 20.0, 30.0, 25.0]}).splitlines()
    assert [line.split()[-3] for line in lines] == ["median", "1", "25"] and lines[2].endswith("400")


def test_every_tab_is_measured():
    from benchmarks.page import INTERACTIONS

    files = {name.partition(".")[0] for name in server.static_files() if name.endswith(".css")}
    assert {tab for tab, _event, _watched in INTERACTIONS.values()} == files - {"style", "attention_map"}


def test_every_event_changes_what_is_watched():
    if not os.environ.get("TINYMAE_BROWSER"):
        pytest.skip("set TINYMAE_BROWSER=1 to open the page in Chromium")
    pytest.importorskip("playwright.sync_api", reason='needs playwright: python -m pip install -e ".[docs]"')
    from benchmarks.page import INTERACTIONS, measured

    found = measured(1)
    assert list(found) == list(INTERACTIONS) and all(len(times) == 1 and times[0] > 0 for times in found.values())
