"""The live page: who is served and who is refused, what a broken question costs, how it ends, and the page in a browser.

The pages in a browser are opt-in, for they need Chromium, and the second a folder with Pyodide, its file numpy among it:

    python -m pip install -e ".[docs]" && TINYMAE_BROWSER=1 TINYMAE_PYODIDE=FOLDER python -m pytest tests/test_play_server.py
"""
import functools
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from tinymae import messages, tree
from tinymae.__main__ import main
from tinymae.cli.play import PYODIDE
from tinymae.play import api, server
from tinymae.tasks.reconstruct import own_model

MODELS = SimpleNamespace(name="two")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TABS = ["attention", "mae", "positions", "step"]


def double(models, *, number):
    if number == 13:
        raise ValueError("expected another number, got 13")
    if number == 14:
        raise KeyError("a bug")
    if number == 15:                                            # on how many threads its matrices are multiplied
        return {"threads": max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")}
    return {"models": models.name, "double": 2 * number}


@pytest.fixture(scope="module")
def page():
    with pytest.MonkeyPatch.context() as patch, server.running(MODELS) as running:
        patch.setitem(api.FUNCTIONS, "double", double)
        yield running


def ask(page, method="POST", path="/api/double", body=b'{"number": 3}', **changed):
    """(status, headers, body) of a request as the page sends it, but for the headers in `changed`; None leaves one out."""
    headers = {"Host": page.hosts[0], "Origin": f"http://{page.hosts[0]}", "X-Token": page.token,
               "Content-Type": "application/json", "Content-Length": str(len(body))}
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    connection = http.client.HTTPConnection("127.0.0.1", page.server_address[1], timeout=60)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    with connection.getresponse() as answer:
        return answer.status, answer.headers, answer.read()


def get(page, path, **changed):
    """(status, headers, body) of a request as a browser sends it for the page."""
    left_out = dict.fromkeys(("Content-Length", "Content-Type", "X-Token", "Origin"))
    return ask(page, "GET", path, b"", **left_out | changed)


# ---- what is answered ------------------------------------------------------------------------------------------------

def test_a_question_is_answered(page):
    status, headers, body = ask(page)
    assert (status, json.loads(body)) == (200, {"models": "two", "double": 6})
    assert headers["Content-Type"] == "application/json"
    localhost = ask(page, Host=page.hosts[1], Origin=f"http://{page.hosts[1]}", Content_Type="application/json; charset=utf-8")
    assert localhost[0] == 200 and ask(page, Origin=None)[0] == 200
    assert json.loads(ask(page, body=b'{"number": 15}')[2]) == {"threads": 1}


def test_the_page_and_its_files_are_sent(page):
    where = urlsplit(page.url)
    status, headers, body = get(page, f"{where.path}?{where.query}&lang=zh")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8" and b'src="app.js"' in body
    policy = headers["Content-Security-Policy"]
    assert all(rule in policy for rule in ("default-src 'none';", "script-src 'self';", "frame-ancestors 'none'"))
    assert not re.search(r"script-src[^;]*unsafe|\*|https?:", policy)
    named = ("X-Content-Type-Options", "Referrer-Policy", "Cache-Control", "Cross-Origin-Resource-Policy")
    assert [headers[name] for name in named] == ["nosniff", "no-referrer", "no-store", "same-origin"]
    for name, content in server.static_files().items():
        if name != "index.html":
            status, headers, body = get(page, f"/{name}")
            assert (status, body, headers["X-Content-Type-Options"]) == (200, content, "nosniff")


def test_every_file_that_the_page_names_is_there():
    files = server.static_files()
    named = set()
    for name, content in files.items():
        text = content.decode() if name.endswith((".js", ".css", ".html")) else ""
        named |= set(re.findall(r'^import .*"\./(.+)";|^@import "(.+)";|(?:src|href)="(?!data:)(.+?)"', text, re.MULTILINE))
    named = {"".join(groups) for groups in named}
    assert len(named) > 6 and named - set(files) == set()


def test_every_visible_word_is_there_in_both_languages():
    for name in TABS:
        text = server.static_files()[f"{name}.js"].decode()
        assert re.search(r"\ben: ?\{", text) and re.search(r"\bzh: ?\{", text) and "title:" in text


def test_the_fifteen_questions_lead_to_tabs():
    page = (Path(__file__).parents[1] / "docs" / "questions.rst").read_text("utf-8")
    links = re.findall(r"`play: tab (\w+)[^`<]* <play/index\.html#(\w+)>`__", page)
    assert len(links) == page.count("play/index.html") >= 3
    for title, name in links:
        assert name in TABS and f'title: "{title}"' in server.static_files()[f"{name}.js"].decode()


# ---- what is refused -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("status", "changed"), [
    (403, {"X_Token": None}), (403, {"X_Token": ""}), (403, {"X_Token": "wrong"}), (403, {"X_Token": "é" * 32}),
    (403, {"Host": "evil.example"}), (403, {"Host": None}), (403, {"Host": "127.0.0.1"}), (403, {"Host": "127.0.0.1:1"}),
    (403, {"Origin": "http://evil.example"}), (403, {"Origin": "null"}), (403, {"Origin": "https://{host}"}),
    (404, {"path": "/api/nothing"}), (404, {"path": "/double"}), (404, {"path": "/"}), (404, {"path": "/api/../api/double"}),
    (411, {"Content_Length": None}), (411, {"Content_Length": "-1"}), (411, {"Content_Length": "0x1"}),
    (411, {"Transfer_Encoding": "chunked"}),
    (413, {"Content_Length": str(server.LARGEST_QUESTION + 1)}), (413, {"Content_Length": "9" * 5000}),
    (415, {"Content_Type": None}), (415, {"Content_Type": "text/plain"}),
    (415, {"Content_Type": "application/x-www-form-urlencoded"}),
    (400, {"body": b'{"number": "\xff"}'}),
])
def test_a_question_is_refused(page, status, changed):
    headers = {name: value.format(host=page.hosts[0]).encode() if name not in ("path", "body") and value else value
               for name, value in changed.items()}
    found, _, body = ask(page, **headers)
    assert found == status and isinstance(json.loads(body)["error"], str) and page.token.encode() not in body


def test_the_same_origin_is_the_one_of_the_host(page):
    assert ask(page, Host=page.hosts[0], Origin=f"http://{page.hosts[1]}")[0] == 403


def test_a_question_that_is_too_large_gets_an_answer(page):
    status, _, body = ask(page, body=b" " * (server.LARGEST_QUESTION + 1))
    assert status == 413 and str(server.LARGEST_QUESTION) in json.loads(body)["error"]


@pytest.mark.parametrize("path", [
    "/?token=wrong", "/?token=", "/", "/?token=%C3%A9%FF", "/?tokens={token}", "/?token=wrong&token={token}",
])
def test_the_page_needs_its_token(page, path):
    status, headers, body = get(page, path.format(token=page.token))
    assert status == 403 and b"python -m tinymae play" in body and headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", [
    "/../server.py", "/%2e%2e/server.py", "/..%2fserver.py", "//server.py", "/static/app.js", "/./app.js", "/app.js/",
    "/app.js%00", "/index.html", "/etc/passwd", "/../../../../etc/passwd", "http://evil.example/app.js", "/api/double",
    "/APP.JS", "\\..\\server.py",
])
def test_no_other_path_leads_anywhere(page, path):
    status, _, body = get(page, path)
    assert status == 404 and body == b"there is no such page"


def test_the_page_is_this_machines_alone(page):
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert get(page, f"/?token={page.token}", **headers)[0] == 403
        assert get(page, "/app.js", **headers)[0] == 403
    assert page.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "PATCH"])
def test_other_methods_are_refused(page, method):
    status, headers, _ = ask(page, method, f"/?token={page.token}", b"")
    assert status == 501 and headers["X-Content-Type-Options"] == "nosniff"


def test_what_is_no_http_is_refused(page):
    for sent in (b"\x16\x03\x01\x02\n\n", b"GET / HTTP/9.9\r\n\r\n", b"GET\r\n\r\n", b"a" * 70_000):
        with socket.create_connection(page.server_address, timeout=60) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert b"<html" not in connection.recv(1 << 16)
    assert ask(page)[0] == 200


def test_a_slow_client_is_left(page, monkeypatch):
    monkeypatch.setattr(server, "SLOWEST", 0.2)
    with socket.create_connection(page.server_address, timeout=server._Handler.timeout - 1) as slow:
        slow.sendall(b"POST /api/double HTTP/1.1\r\nX-Slow: ")
        assert slow.recv(1) == b""
    assert ask(page)[0] == 200


# ---- questions that fail ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("body", "complaint"), [
    (b"", "Expecting value"), (b"{", "Expecting property name"), (b"[1]", "expected a JSON object, got list"),
    (b'{"number": NaN}', "expected numbers, got NaN"), (b'{"number": -Infinity}', "expected numbers, got -Infinity"),
    (b"[" * 100_000, "nested too deeply"), (b'{"nummer": 3}', "nummer"), (b"{}", "number"),
    (b'{"number": 13}', "expected another number, got 13"), (b'{"models": 1, "number": 3}', "models"),
])
def test_arguments_that_do_not_fit(page, body, complaint):
    status, _, answer = ask(page, body=body)
    assert status == 200 and complaint in json.loads(answer)["error"]


def test_an_error_that_no_question_should_cause_is_one_line(page, capfd, monkeypatch):
    status, _, body = ask(page, body=b'{"number": 14}')
    assert status == 500
    assert json.loads(body) == {"error": "KeyError: 'a bug' (the same command with --debug says where)"}
    assert ask(page)[0] == 200
    monkeypatch.setattr(page, "debug", True)
    assert ask(page, body=b'{"number": 14}')[0] == 500
    out, err = capfd.readouterr()
    assert out == "" and err.count("Traceback") == 1 and "a bug" in err and page.token not in err


def test_questions_are_answered_side_by_side(monkeypatch):
    together = threading.Barrier(2, timeout=60)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setitem(api.FUNCTIONS, "double", lambda models, *, number: {"at": together.wait()})
    with server.running(MODELS) as page:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(json.loads(ask(page)[2])["at"])) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == [0, 1]


# ---- models ----------------------------------------------------------------------------------------------------------

def test_the_shipped_models_are_those_of_the_package():
    models, photos = api.shipped_models(), own_model()
    assert set(vars(models.photos)) == set(vars(photos)) and models.translator.name == ""
    assert [name for name, value in vars(photos).items() if name != "params" and getattr(models.photos, name) != value] == []
    pairs = list(zip(tree.leaves(models.photos.params), tree.leaves(photos.params), strict=True))
    assert len(pairs) > 20 and all(name == other and np.array_equal(a, b) for (name, a), (other, b) in pairs)


NUMPY_ALONE = """
import sys

class OnlyNumPy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "tinymae"}:
            raise ImportError(f"{name} is neither NumPy nor the standard library")

sys.meta_path.insert(0, OnlyNumPy())
sys.path.insert(0, sys.argv[1])
import tinymae
from tinymae.play import api
print(tinymae.__file__)
print(api.answer_json("translate", '{"text": "我有一只猫"}', api.shipped_models()))
print(api.answer_json("nothing", "{}", None))
"""


# ---- the page for a site ---------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("play") / "site"
    assert main(["play", "--static", str(folder), "--pyodide", './"py"']) == 0
    return folder


def test_the_site_starts_pyodide_before_its_frame(site):
    text = (site / "index.html").read_text("utf-8")
    assert '<meta name="pyodide" content="./&quot;py&quot;">' in text and text.index('"pyodide.js"') < text.index('"app.js"')
    assert {path.name for path in site.iterdir()} == {*server.static_files(), "tinymae.zip"}


def test_the_site_needs_numpy_alone(site, tmp_path):
    """What is in its archive: Pyodide has no more than NumPy, and no threads."""
    with zipfile.ZipFile(site / "tinymae.zip") as files:
        names = files.namelist()
        assert {each.date_time for each in files.infolist()} == {(1980, 1, 1, 0, 0, 0)}         # the same bytes every time
        files.extractall(tmp_path / "unpacked")
    assert len(set(names)) == len(names) and "tinymae/lessons/exercises/zoo/softmax_by_batch.py" in names
    done = subprocess.run([sys.executable, "-P", "-c", NUMPY_ALONE, str(tmp_path / "unpacked")], capture_output=True,
                          encoding="utf-8", timeout=60, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    where, translated, refused = done.stdout.splitlines() or ("", "", done.stderr)
    assert where.startswith(str(tmp_path)) and "cat" in translated and "'nothing'" in refused


# ---- the command -----------------------------------------------------------------------------------------------------

@contextmanager
def started(*options):
    """A process of the command."""
    with subprocess.Popen([sys.executable, "-m", "tinymae", *options, "play", "--no-browser"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(os.name != "posix", reason="Windows has other signals")
def test_it_ends_cleanly():
    with started("--lang", "zh") as first, started("--lang", "en") as second:
        url, other = (process.stdout.readline().strip() for process in (first, second))
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}&lang=zh", url) and url != other
        with urlopen(url, timeout=60) as answer:
            assert answer.status == 200 and b"app.js" in answer.read()
        first.send_signal(signal.SIGINT)
        second.send_signal(signal.SIGTERM)
        assert (first.wait(60), first.stderr.read()) == (0, "")
        assert (second.wait(60), second.stderr.read()) == (128 + signal.SIGTERM, "tinymae: ended by a signal\n")
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=5)


def test_a_port_that_cannot_be_had_is_one_line(page, capsys):
    assert main(["play", "--no-browser", "--port", str(page.server_address[1])]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"port {page.server_address[1]}: " in err and "a free one" in err
    assert main(["play", "--no-browser", "--port", "65536"]) == 1
    assert "expected a port from 1 to 65535" in capsys.readouterr().err


def test_options_that_do_not_go_together(tmp_path, capsys):
    assert main(["play", "--pyodide", "https://cdn.example"]) == 1
    assert "give --static FOLDER" in capsys.readouterr().err
    assert main(["play", "--static", str(tmp_path), "--port", "8000"]) == 1
    assert "--static starts no server" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main(["play", "--static", str(tmp_path), "--model", str(tmp_path)]) == 1
    assert "the models of the package" in capsys.readouterr().err
    assert main(["play", "--no-browser", "--model", str(tmp_path)]) == 1
    assert "mae.npz" in capsys.readouterr().err


def test_the_site_takes_pyodide_from_its_own_place(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(server, "_write_package", lambda path: None)
    assert main(["play", "--static", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'index.html'}\n"
    assert f'content="{PYODIDE}"' in (tmp_path / "index.html").read_text("utf-8")


# ---- the page in a browser -------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def browser():
    if not os.environ.get("TINYMAE_BROWSER"):
        pytest.skip("set TINYMAE_BROWSER=1 to open the page in Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason='needs playwright: python -m pip install -e ".[docs]"')
    with playwright.sync_playwright() as player:
        yield player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def window(browser):
    """A function(url) that opens a page; in the end, none of them has complained."""
    complaints, tabs = [], []

    def opened(url, **options):
        tabs.append(browser.new_page(**options))
        tabs[-1].on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        tabs[-1].on("pageerror", lambda error: complaints.append(str(error)))
        tabs[-1].goto(url)
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.close()
    assert complaints == []


@pytest.fixture(scope="module")
def real():
    with server.running(api.shipped_models()) as running:
        yield running


def test_tabs_go_by_keyboard_and_language_is_remembered(window, real):
    tab = window(real.url, locale="en-GB")
    chosen = "[role=tab][aria-selected=true]"
    assert tab.locator("[role=tab]").count() == 4 and tab.locator(chosen).get_attribute("id") == "tab-attention"
    tab.locator(chosen).focus()
    for key, name in (("ArrowRight", "mae"), ("End", "step"), ("ArrowRight", "attention"), ("ArrowLeft", "step"),
                      ("Home", "attention"), ("ArrowRight", "mae")):
        tab.keyboard.press(key)
        assert tab.evaluate("document.activeElement.id") == tab.locator(chosen).get_attribute("id") == f"tab-{name}"
        assert tab.locator("[role=tabpanel]").get_attribute("aria-labelledby") == f"tab-{name}"
        assert tab.evaluate("location.hash") == f"#{name}" and tab.locator("[role=tab][tabindex='0']").count() == 1
    tab.click("#language")
    assert tab.evaluate("document.documentElement.lang") == "zh-Hans"
    tab.reload()
    assert tab.evaluate("[document.documentElement.lang, location.hash]") == ["zh-Hans", "#mae"]
    assert window(f"{real.url}&lang=zh", locale="en-GB").evaluate("document.documentElement.lang") == "zh-Hans"
    assert window(real.url, locale="zh-CN").evaluate("document.documentElement.lang") == "zh-Hans"


@pytest.mark.parametrize("name", TABS)
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_tab_fits(window, real, name, width, language):
    tab = window(f"{real.url}&lang={language}#{name}", viewport={"width": width, "height": 900})
    tab.wait_for_load_state("networkidle")
    assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth") and tab.inner_text("#status") == ""
    assert tab.inner_text("#panels").strip()


STUB = """
export const texts = {en: {title: "doubles", code: ["tinymae/tree.py", "tinymae/init.py"]}, zh: {title: "翻倍"}};
export function show(root, say, ask) {
  for (const number of [13, 3]) {
    const button = document.createElement("button");
    button.textContent = number;
    button.addEventListener("click", async () => { root.dataset.double = (await ask("double", {number})).double; });
    root.append(button);
  }
}
"""


def test_an_error_is_shown_and_goes(window, page):
    """With a tab that does not catch what `ask` throws: the frame has shown it, so the console need not."""
    blank = window("about:blank")
    blank.context.route("**/attention.js", lambda route: route.fulfill(body=STUB, content_type="text/javascript"))
    blank.goto(f"{page.url}&lang=en")
    assert blank.inner_text("#code") == "Read the code: tinymae/play/attention_tab.py tinymae/tree.py tinymae/init.py"
    blank.click("section >> text=/^13$/")
    blank.locator("#status", has_text="expected another number, got 13").wait_for()
    blank.click("section >> text=/^3$/")
    blank.locator("section[data-double='6']").wait_for()
    assert blank.inner_text("#status") == ""
    blank.click("#language")
    assert blank.inner_text("#tab-attention") == "翻倍"
    assert blank.inner_text("#code") == "阅读代码： tinymae/play/attention_tab.py tinymae/tree.py tinymae/init.py"


class Site(SimpleHTTPRequestHandler):
    """A web site as others serve it."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def log_message(self, *line):
        pass


@pytest.fixture
def served(site, tmp_path):
    """A function(write): the page of the site, with what `write(folder)` puts into its folder py; returns its URL."""
    shutil.copytree(site, tmp_path / "site")
    text = (site / "index.html").read_text("utf-8").replace("./&quot;py&quot;", "py")
    (tmp_path / "site" / "index.html").write_text(text, encoding="utf-8")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Site, directory=str(tmp_path / "site"))) as others:
        thread = threading.Thread(target=others.serve_forever)
        thread.start()

        def url(write):
            write(tmp_path / "site" / "py")
            return f"http://127.0.0.1:{others.server_address[1]}/?lang=en"

        try:
            yield url
        finally:
            others.shutdown()
            thread.join()


def test_pyodide_answers_as_the_server_does(window, served):
    """NumPy of Pyodide's distribution and the package from its archive, in Chromium."""
    runtime = os.environ.get("TINYMAE_PYODIDE")
    if not runtime:
        pytest.skip("set TINYMAE_PYODIDE to a folder with Pyodide and its NumPy")
    tab = window(served(lambda folder: os.symlink(Path(runtime).resolve(), folder)))
    assert "Python" in tab.inner_text("#status")                # that it is being loaded
    for name in TABS:
        tab.click(f"#tab-{name}")
        tab.locator("[role=tabpanel]", has_text=re.compile(r"\S")).wait_for()
        refused = json.loads(tab.evaluate("askPyodide('nothing', '{}', 'en')"))         # after all that the tab has asked
        assert "got 'nothing'" in refused["error"]
        tab.wait_for_timeout(200)
        assert tab.inner_text("#status") == ""


NO_PYODIDE = """
export async function loadPyodide() {
  const api = {answer_json: (...asked) => JSON.stringify({error: asked.join(" ")}), shipped_models: () => "ours"};
  return {loadPackage: async () => null, unpackArchive: () => null, pyimport: () => api};
}
"""


def test_python_in_the_browser_is_asked_in_the_language_of_the_page(window, served):
    """With a stand-in for Pyodide that says what it was asked."""
    def write(folder):
        folder.mkdir()
        (folder / "pyodide.mjs").write_text(NO_PYODIDE, encoding="utf-8")

    tab = window(served(write))
    tab.locator("#status", has_text="translator {} ours en").wait_for()
    tab.click("#language")
    tab.locator("#status", has_text="translator {} ours zh").wait_for()


# ---- the language of the sentences that Python makes -------------------------------------------------------------------

CHINESE = "温度应为 0，或从 {coldest} 到 {hottest}，得到 {temperature!r}"
ENGLISH = "expected a temperature of 0, or from {coldest} to {hottest}, got {temperature!r}: 0 draws nothing at random"


def test_a_language_is_spoken_as_long_as_its_block(catalog, monkeypatch):
    def said():
        return messages.message("there is no such question")

    monkeypatch.setenv("LANGUAGE", "en")
    with messages.spoken("zh"):
        assert said() == "没有这个问题"
        with messages.spoken("en"):
            assert said() == "there is no such question"
        with messages.spoken(None):
            assert said() == "没有这个问题"
    assert said() == "there is no such question"
    with pytest.raises(ValueError, match="expected a language, en or zh, got 'tlh'"), messages.spoken("tlh"):
        pass


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    """A Chinese catalog of two sentences, in a process whose own language is English."""
    from test_messages import write_catalog

    write_catalog(tmp_path, {ENGLISH: CHINESE, "there is no such question": "没有这个问题"})
    monkeypatch.setattr(messages, "CATALOGS", tmp_path)


def test_a_question_is_answered_in_the_language_of_the_page(real, catalog):
    def sentence(**headers):
        hot = {"text": "我有一只猫", "temperature": 9}
        return json.loads(ask(real, path="/api/translate", body=json.dumps(hot).encode(), **headers)[2])["error"]

    assert sentence(Accept_Language="zh") == "温度应为 0，或从 0.05 到 5，得到 9"
    for other in ({}, {"Accept_Language": "en"}, {"Accept_Language": "tlh"}):
        assert sentence(**other).startswith("expected a temperature of 0")
    refused = [json.loads(ask(real, path="/api/nothing", Accept_Language=name)[2])["error"] for name in ("zh", "en")]
    assert refused == ["没有这个问题", "there is no such question"]


def test_users_of_two_languages_do_not_mix(catalog):
    hot = json.dumps({"text": "我有一只猫", "temperature": 9})
    models = api.shipped_models()
    with ThreadPoolExecutor(4) as pool:
        names = ["zh", "en"] * 20
        answers = list(pool.map(lambda name: api.answer_json("translate", hot, models, name), names))
    assert [("温度" in json.loads(answer)["error"]) for answer in answers] == [name == "zh" for name in names]


def test_sentences_follow_the_button(window, real, catalog):
    tab = window(f"{real.url}&lang=en", reduced_motion="reduce")
    tab.locator(".attn-sentence", has_text="cat").wait_for()
    for words in ("expected a temperature of 0", "温度应为 0"):
        tab.evaluate("document.querySelector('input[type=range]').max = 9")
        tab.locator("input[type=range]").fill("9")
        tab.locator("#status", has_text=words).wait_for()
        tab.click("#language")


# ---- a finger ----------------------------------------------------------------------------------------------------------

def drag(tab, box, path):
    """A finger that comes down in a box, moves along a path (points from its corner), and is lifted."""
    touch = tab.context.new_cdp_session(tab)
    for i, (x, y) in enumerate(path):
        at = [{"x": box["x"] + x, "y": box["y"] + y}]
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove" if i else "touchStart", "touchPoints": at})
        tab.wait_for_timeout(20)
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    tab.wait_for_timeout(300)


def test_a_finger_scrolls_the_page_taps_a_patch_and_paints_sideways(window, real):
    tab = window(f"{real.url}&lang=en#mae", has_touch=True, is_mobile=True, viewport={"width": 400, "height": 700})
    tab.locator("text=The model took").wait_for()
    picture = tab.locator(".mae-mask")
    picture.scroll_into_view_if_needed()

    def seen():
        return tab.evaluate("scrollY"), tab.locator(".mae-mask .hidden").count(), picture.bounding_box()

    scrolled, hidden, box = seen()
    drag(tab, box, [(100, 200 - 12 * step) for step in range(12)])
    assert tab.evaluate("scrollY") > scrolled + 50 and seen()[1] == hidden              # scrolled, and painted nothing
    picture.scroll_into_view_if_needed()
    scrolled, hidden, box = seen()
    tab.touchscreen.tap(box["x"] + 5, box["y"] + 5)
    assert abs(seen()[1] - hidden) == 1 and seen()[0] == scrolled
    tab.touchscreen.tap(box["x"] + 5, box["y"] + 5)
    assert seen()[1] == hidden                                  # the same patch
    across = int(box["width"]) - 10
    drag(tab, box, [(5 + across * step // 20, 5 + 2 * step) for step in range(21)])     # turns a little downwards
    after = seen()
    assert after[0] == scrolled and abs(after[1] - hidden) >= 1
    assert tab.locator(".mae-mask .hidden[y='0']").count() in (0, 8)          # the whole row is what its first patch became
