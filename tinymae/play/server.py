"""The live page in a browser: from a server on this machine, or as a folder of files for a site.

    running(models)         GET / and the files of `static`; POST api/NAME, answered by `api.answer_json`
    write_site(folder)      the same files, with Pyodide in the place of the server

The server is for the user of this machine, but any page that is open in a browser can send requests to it. So:

- it listens at 127.0.0.1 only;
- the page and every question need the token of the URL that it prints;
- Host and Origin must be its own, or a foreign site could reach it under the site's name (DNS rebinding);
- files are looked up in a table that is made at the start: no path of a request is ever opened;
- questions are bounded in size, and connections in time.

Several questions are answered at once, each with one BLAS thread. No lock is needed: the functions of the tabs are pure.
"""
import html
import json
import os
import secrets
import socket
import sys
import threading
import traceback
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from urllib.parse import parse_qs

from tinymae.learn.lessons import lessons_folder
from tinymae.messages import SPOKEN, spoken
from tinymae.messages import message as _
from tinymae.play.api import FUNCTIONS, Models, answer_json
from tinymae.train.parallel import Workers

LARGEST_QUESTION = 6 << 20               # bytes of a question: a photograph as base64
SLOWEST = 60                    # seconds from a connection to the end of its answer
FILE_TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; "
                               "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class PlayServer(ThreadingHTTPServer):
    """Made by `running`."""

    allow_reuse_address = os.name == "posix"                    # on Windows two servers could then have one port
    daemon_threads = True

    def __init__(self, models: Models, port: int, workers: Workers, *, debug: bool):
        self.models, self.workers, self.debug = models, workers, debug
        self.token = secrets.token_urlsafe(24)
        self.files = {f"/{name}": (FILE_TYPES[Path(name).suffix], content) for name, content in static_files().items()}
        self.files["/"] = self.files.pop("/index.html")
        super().__init__(("127.0.0.1", port), _Handler)
        self.hosts = [f"{name}:{self.server_address[1]}" for name in ("127.0.0.1", "localhost")]

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{self.hosts[0]}/?token={self.token}"

    def server_bind(self) -> None:
        """As of any TCP server: HTTPServer's own asks for the name of this machine, which can take seconds."""
        TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that breaks is nothing to report; anything else is, with --debug, a traceback."""
        if self.debug:
            traceback.print_exc()


@contextmanager
def running(models: Models, port: int = 0, *, debug: bool = False) -> Iterator[PlayServer]:
    """A server of the page that answers as long as the block runs.

    Parameters
    ----------
    models : that answer
    port : 0 for a free one
    debug : print a traceback for every error that is not the question's

    Raises
    ------
    ValueError
        if the port is no port
    OSError
        if it is in use, or reserved
    """
    if not 0 <= port <= 65535:
        raise ValueError(_("expected a port from 1 to 65535, or 0 for any free one, got {port}", port=port))
    with Workers(os.cpu_count() or 1) as workers:
        try:
            server = PlayServer(models, port, workers, debug=debug)
        except OSError as error:
            raise OSError(_("port {port}: {reason}: choose another one, or none, and a free one is taken",
                            port=port, reason=error.strerror)) from error
        with server:
            thread = threading.Thread(target=server.serve_forever, args=(0.1,))     # seconds until it sees that it has to end
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()


class _Refused(Exception):
    """A request that is not answered: status and sentence."""


class _Handler(BaseHTTPRequestHandler):
    """One request of one connection."""

    timeout = 10                                                # seconds for one read or write
    server_version, sys_version = "tinymae", ""

    def handle(self):
        """Answer the request, unless that takes too long: a slow client must not keep a thread."""
        clock = threading.Timer(SLOWEST, self._hang_up)
        clock.daemon = True
        clock.start()
        try:
            super().handle()
        finally:
            clock.cancel()

    def _hang_up(self):
        with suppress(OSError):                                 # it is closed
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self):
        path, _mark, query = self.path.partition("?")
        try:
            self._check_source()
            if path not in self.server.files:
                raise _Refused(404, _("there is no such page"))
            if path == "/":
                self._check_token(parse_qs(query).get("token", [""])[0])
            self._send(200, *self.server.files[path])
        except _Refused as refused:
            self._send(refused.args[0], "text/plain; charset=utf-8", refused.args[1].encode())

    def do_POST(self):
        with spoken(self._language()):
            self._reply()

    def _language(self):
        """The language that the page is shown in, or None if the question does not say it."""
        asked = self.headers.get("Accept-Language")
        return asked if asked in SPOKEN else None

    def _reply(self):
        try:
            self._send_json(200, self._answer(*self._question()))
        except _Refused as refused:
            self._send_json(refused.args[0], json.dumps({"error": refused.args[1]}))
            with suppress(OSError):         # bytes that nobody has read would reset the connection, and the answer with it
                self.connection.shutdown(socket.SHUT_WR)
                while self.rfile.read(1 << 16):
                    pass

    def _question(self):
        """The name of a function, and its arguments as JSON."""
        self._check_source()
        self._check_token(self.headers.get("X-Token", ""))
        name = self.path.removeprefix("/api/")
        if name == self.path or name not in FUNCTIONS:
            raise _Refused(404, _("there is no such question"))
        if self.headers.get_content_type() != "application/json":
            raise _Refused(415, _("expected a question of the type application/json"))
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdecimal()):
            raise _Refused(411, _("expected the length of the question in Content-Length"))
        if len(length) > 15 or int(length) > LARGEST_QUESTION:
            raise _Refused(413, _("expected at most {most} bytes, got {length}", most=LARGEST_QUESTION, length=length[:15]))
        try:
            return name, self.rfile.read(int(length)).decode()
        except UnicodeDecodeError:
            raise _Refused(400, _("expected a question in UTF-8")) from None

    def _answer(self, name, question):
        """The answer as JSON; an error that no question should cause is one line."""
        server, language = self.server, self._language()
        try:
            (answer,) = server.workers.map(lambda asked: answer_json(name, asked, server.models, language), [question])
            return answer
        except Exception as error:
            if server.debug:
                traceback.print_exc(file=sys.stderr)
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise _Refused(500, _("{reason} (the same command with --debug says where)", reason=reason)) from error

    def _check_source(self):
        """Host and Origin are this server's: the request comes from this machine, and from the page itself."""
        hosts, origins = (self.headers.get_all(name, []) for name in ("Host", "Origin"))
        if len(hosts) != 1 or hosts[0] not in self.server.hosts or any(origin != f"http://{hosts[0]}" for origin in origins):
            raise _Refused(403, _("this server answers its own page alone, at {host}", host=self.server.hosts[0]))

    def _check_token(self, token):
        if not secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            raise _Refused(403, _("no token, or that of a former server: open the URL that `python -m tinymae play` printed"))

    def _send_json(self, status, text):
        self._send(status, "application/json", text.encode())

    def _send(self, status, kind, content):
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": len(content)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code, message=None, explain=None):
        """What http.server refuses itself, such as other methods, with our headers."""
        self._send(code, "text/plain; charset=utf-8", (message or "").encode())

    def log_message(self, *line):
        """Requests are not logged: the token is in them."""


def static_files() -> dict[str, bytes]:
    """{name: content} of the files of the page."""
    return {path.name: path.read_bytes() for path in sorted((Path(__file__).parent / "static").iterdir()) if path.is_file()}


def write_site(folder: Path | str, pyodide: str) -> Path:
    """Write the page for a site: no server answers, but tinymae itself, in the browser of the reader.

    Parameters
    ----------
    folder : for the files, made if it is missing: those of `static_files`, and tinymae.zip, the package with its small models
    pyodide : URL of a folder with Pyodide, its file numpy among it; relative to the page, or with a host

    Returns
    -------
    the page
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in static_files().items():
        (folder / name).write_bytes(content)
    page = folder / "index.html"
    head = f'<meta name="pyodide" content="{html.escape(pyodide)}">\n<script type="module" src="pyodide.js"></script>\n'
    before, app, after = page.read_text("utf-8").partition('<script type="module" src="app.js">')
    page.write_text(before + head + app + after, encoding="utf-8", newline="\n")
    _write_package(folder / "tinymae.zip")
    return page


def _write_package(path):
    """The package as a .zip, always the same bytes: code, models, and the lessons, which stand beside it in a checkout."""
    files = {}
    for root, name in ((Path(__file__).parents[1], "tinymae"), (lessons_folder(), "tinymae/lessons")):
        found = (file for file in sorted(root.rglob("*.*")) if file.suffix in (".py", ".md", ".safetensors", ".mo"))
        files |= {f"{name}/{file.relative_to(root).as_posix()}": file for file in found}
    with zipfile.ZipFile(path, "w") as archive:
        for name, file in files.items():
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes(), zipfile.ZIP_DEFLATED)     # ZipInfo: without a date
