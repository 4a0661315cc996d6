"""Rerun's viewer in a browser, on this machine only: one small web server with the viewer and one recording.

`rerun` brings the viewer (a page, its script, its WebAssembly) inside its program and serves it to the whole network, with a
page that asks for fonts elsewhere and a script that reports its usage. So the program is only started for the seconds in which its files
are fetched, bound to this machine and with a home of its own that is deleted after it; then this server hands them out, on the
loopback address, under a content policy that lets the page talk to nobody else.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from ..errors import UserError
from .recording import rerun_module

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 9090
_PAGES = ("/", "/re_viewer.js", "/re_viewer_bg.wasm", "/favicon.ico")
_RECORDING = "/recording.rrd"
_START_SECONDS = 60.0
# The viewer is WebAssembly behind inline scripts, and keeps images as blobs; everything comes from this server.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; worker-src 'self' blob:; connect-src 'self' data: blob:"
)


class Page(NamedTuple):
    """A file of the viewer."""

    content: bytes
    media_type: str


class Serving:
    """A running server. `address` is what to open; `wait` blocks until Ctrl-C, `close` ends it. Also a context manager."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        self.port = int(server.server_address[1])
        self.address = f"http://{LOOPBACK}:{self.port}/"
        self._thread = threading.Thread(target=server.serve_forever, name="occport view", daemon=True)
        self._thread.start()

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def wait(self) -> None:
        """Serves until Ctrl-C (or SIGTERM, where `staging.terminate_as_interrupt` is in force), which is the usual end and no error."""
        with suppress(KeyboardInterrupt):
            self._thread.join()
        self.close()

    def close(self) -> None:
        """Ends the server and frees its port. May be called again."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def serve(path: Path, port: int = DEFAULT_PORT, open_browser: bool = False) -> Serving:
    """Serves a recording with a viewer, on this machine only; returns as soon as it can be opened.

        with serve(path, port) as serving:
            print(serving.address)
            serving.wait()

    Args:
        path: an .rrd file (`recording.write_recording`); read at each visit.
        port: 0 takes any free one.
        open_browser: also opens the address in the user's browser.
    Errors: UserError for a file that is no recording, a port that cannot be had, and without the package rerun.
    """
    rerun_module()
    _check_recording(path)
    handler = _handler({}, path)
    try:
        server = _Server((LOOPBACK, port), handler)
    except (OSError, OverflowError) as error:  # OverflowError: no port has such a number
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"port {port} on {LOOPBACK}", expected="a free one", got=reason, fix="choose another; 0 takes any") from error
    try:
        handler.pages.update(viewer_pages())
    except BaseException:
        server.server_close()
        raise
    serving = Serving(server)
    if open_browser:
        webbrowser.open(serving.address)
    return serving


def _check_recording(path: Path) -> None:
    """Errors: UserError for anything but a readable file that begins as a recording."""
    try:
        with path.open("rb") as file:
            begin = file.read(4)
    except OSError as error:
        raise UserError(f"recording {path}", expected="a readable file", got=error.strerror or str(error)) from error
    if begin[:3] != b"RRF":
        raise UserError(
            f"recording {path}", expected="a file that `occport view` wrote", got="another kind of file", fix="give an .rrd file",
        )  # fmt: skip


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Handler(BaseHTTPRequestHandler):
    """Hands out the viewer and the recording. GET and HEAD only."""

    pages: dict[str, Page]
    recording: Path
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: only commands print."""

    def _answer(self, body: bool) -> None:
        host, route = self.headers.get("Host", "").rpartition(":")[0], self.path.partition("?")[0]
        if host not in (LOOPBACK, "localhost"):  # a page elsewhere whose name has been pointed here
            self.send_error(403)
        elif route == _RECORDING:
            self._send_recording(body)
        elif self.path == "/":
            self._send_to_recording()
        elif route in self.pages:
            page = self.pages[route]
            self._head(len(page.content), page.media_type)
            if body:
                self._send(page.content)
        else:
            self.send_error(404)

    def _send_to_recording(self) -> None:
        """The page with what it should open; its address stays short for those who type it."""
        own = f"http://{self.headers['Host']}"
        self.send_response(302)
        self.send_header("Location", f"/?url={own}{_RECORDING}&hide_welcome_screen=1&persist=0&theme=dark")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_recording(self, body: bool) -> None:
        try:
            with self.recording.open("rb") as file:
                self._head(os.fstat(file.fileno()).st_size, "application/octet-stream")
                while body and (part := file.read(1 << 20)):
                    self._send(part)
        except FileNotFoundError:
            self.send_error(404)

    def _head(self, size: int, media_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(size))
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def _send(self, content: bytes) -> None:
        try:
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):  # the visitor has left
            self.close_connection = True


def _handler(pages: Mapping[str, Page], recording: Path) -> type[_Handler]:
    """A handler class of this server's own, since http.server makes a handler for each request."""
    return type("_OwnHandler", (_Handler,), {"pages": dict(pages), "recording": recording})


def viewer_pages() -> dict[str, Page]:
    """The files of the viewer that the installed rerun holds, by their route.

    Errors: UserError where its program does not start or does not hand them out.
    """
    with _program() as (process, port, log):
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                return {route: _fetch(port, route) for route in _PAGES}
            except (OSError, HTTPException) as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    said = log.read_text(errors="replace").strip().splitlines()
                    raise UserError(
                        "the viewer of the package rerun-sdk", expected="its files", got=said[-1] if said else str(error),
                        fix="pip install --force-reinstall 'occport[view]'",
                    ) from error  # fmt: skip
            time.sleep(0.05)


def _fetch(port: int, route: str) -> Page:
    connection = HTTPConnection(LOOPBACK, port, timeout=_START_SECONDS)
    try:
        connection.request("GET", route)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise HTTPException(f"status {answer.status} for {route}")
    return Page(content, answer.headers.get_content_type())


@contextmanager
def _program() -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """Rerun's program as a web server on this machine: the process, its port, and what it says. Gone at the end, with its home."""
    home = Path(tempfile.mkdtemp(prefix="occport-view-"))
    process = None
    try:
        (home / "rerun").mkdir()
        settings = {"analytics_enabled": False, "analytics_id": "", "metadata": {}}
        (home / "rerun" / "analytics.json").write_text(json.dumps(settings))
        # Its home too: where these variables mean nothing to it, it finds no consent there and reports nothing.
        places = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "APPDATA", "LOCALAPPDATA"), str(home))
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        log = home / "log"
        with log.open("wb") as said:
            # With something to open (nothing is there) it starts no second server for data.
            process = subprocess.Popen(
                [sys.executable, "-m", "rerun_cli", f"http://{LOOPBACK}:{port}/none.rrd", "--serve-web", "--bind", LOOPBACK,
                 "--web-viewer-port", str(port)],
                env={**os.environ, **places, "BROWSER": "true", "NO_COLOR": "1"}, cwd=home, stdin=subprocess.DEVNULL, stdout=said,
                stderr=said, start_new_session=True,
            )  # fmt: skip
        yield process, port, log
    finally:
        if process is not None:
            _end(process)
        shutil.rmtree(home, ignore_errors=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the program and the one that it started; both are a group of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
