"""The served recording: what the server hands out to whom, and the page in a real browser."""

from __future__ import annotations

import socket
import threading
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

from browser import CHROMIUM, Browser
from occport.errors import UserError
from occport.frames.frame import Frame
from occport.frames.images import synthetic_images
from occport.frames.rig import nuscenes_like_rig
from occport.view import serve as serving_module
from occport.view.recording import write_recording
from occport.view.scene import Scene
from occport.view.serve import Page, serve
from occport.voxels.classes import CLASS_NAMES, SURROUNDOCC
from occport.voxels.grid import Grid
from occport.voxels.occupancy import Occupancy

pytest.importorskip("rerun", reason="rerun-sdk is not installed")
PAGES = {"/": Page(b"<html>", "text/html"), "/re_viewer.js": Page(b"script", "text/javascript")}


@pytest.fixture
def recording(tmp_path) -> Path:
    path = tmp_path / "some.rrd"
    path.write_bytes(b"RRF2 and more")
    return path


@pytest.fixture
def pages(monkeypatch) -> None:
    """No viewer is fetched."""
    monkeypatch.setattr(serving_module, "viewer_pages", lambda: PAGES)


def ask(port: int, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, dict(answer.headers)


def test_the_address_leads_to_the_viewer_with_the_recording(recording, pages):
    with serve(recording, 0) as serving:
        assert serving.address == f"http://127.0.0.1:{serving.port}/"
        status, _, headers = ask(serving.port, "/")
        assert status == 302
        assert headers["Location"].startswith(f"/?url=http://127.0.0.1:{serving.port}/recording.rrd&")
        status, content, headers = ask(serving.port, headers["Location"])
        assert (status, content, headers["Content-Type"]) == (200, b"<html>", "text/html")
        assert "default-src 'self'" in headers["Content-Security-Policy"] and "http" not in headers["Content-Security-Policy"]
        assert ask(serving.port, "/recording.rrd")[:2] == (200, b"RRF2 and more")
        status, content, headers = ask(serving.port, "/recording.rrd", "HEAD")
        assert (status, content, headers["Content-Length"]) == (200, b"", "13")
        recording.write_bytes(b"RRF2 newer")
        assert ask(serving.port, "/recording.rrd")[1] == b"RRF2 newer"


def test_nothing_else_is_handed_out(recording, pages):
    with serve(recording, 0) as serving:
        for path in ("/some.rrd", "/../some.rrd", "//etc/passwd", "/re_viewer.js/"):
            assert ask(serving.port, path)[0] == 404
        assert ask(serving.port, "/re_viewer.js", host="elsewhere.example:80")[0] == 403
        assert ask(serving.port, "/re_viewer.js", "POST")[0] == 501
        recording.unlink()
        assert ask(serving.port, "/recording.rrd")[0] == 404


def test_only_this_machine_is_served_and_the_port_comes_free(recording, pages):
    with serve(recording, 0) as serving:
        assert serving._server.server_address[0] == "127.0.0.1"
        port = serving.port
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
    serving.close()  # a second time


def test_ctrl_c_ends_it_without_an_error(recording, pages, monkeypatch):
    serving = serve(recording, 0)
    thread = serving._thread
    calls = []

    def interrupted() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        threading.Thread.join(thread)

    monkeypatch.setattr(thread, "join", interrupted)
    serving.wait()
    assert not thread.is_alive()


def test_the_browser_of_the_user_is_opened_when_asked(recording, pages, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    with serve(recording, 0, open_browser=True) as serving:
        assert opened == [serving.address]


def test_ports_that_cannot_be_had_are_one_line(recording, pages):
    with serve(recording, 0) as serving, pytest.raises(UserError) as refused:
        serve(recording, serving.port)
    expected = f"port {serving.port} on 127.0.0.1: expected a free one, got Address already in use; choose another; 0 takes any"
    assert str(refused.value) == expected
    with pytest.raises(UserError, match=r"port 99999 on 127\.0\.0\.1: expected a free one"):
        serve(recording, 99999)


def test_files_that_are_no_recordings_are_refused(tmp_path, pages):
    with pytest.raises(UserError) as refused:
        serve(tmp_path / "absent.rrd", 0)
    assert str(refused.value) == f"recording {tmp_path / 'absent.rrd'}: expected a readable file, got No such file or directory"
    (tmp_path / "text.rrd").write_text("hello")
    with pytest.raises(UserError, match=r"expected a file that `occport view` wrote, got another kind of file; give an .rrd file"):
        serve(tmp_path / "text.rrd", 0)


def test_a_program_that_does_not_start_is_one_line(recording, monkeypatch, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such program >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(broken))
    with pytest.raises(UserError) as refused:
        serve(recording, 0)
    line = "the viewer of the package rerun-sdk: expected its files, got no such program; pip install --force-reinstall 'occport[view]'"
    assert str(refused.value) == line


def city() -> Occupancy:
    """A road with a house, a hedge and a car."""
    grid = Grid((60, 60, 12))
    labels = np.zeros(grid.size, np.uint8)
    labels[:, :, 0] = CLASS_NAMES.index("driveable_surface") + 1
    labels[5:15, 10:50, 1:10] = CLASS_NAMES.index("manmade") + 1
    labels[45:55, 5:55, 1:4] = CLASS_NAMES.index("vegetation") + 1
    labels[24:29, 8:18, 1:4] = CLASS_NAMES.index("car") + 1
    return Occupancy("city", labels, CLASS_NAMES, grid)


def amount(pixels: np.ndarray, name: str) -> float:
    """The share of a picture's pixels in the very colour of a class."""
    return float((np.abs(pixels.astype(int) - SURROUNDOCC[name]).max(axis=-1) <= 3).mean())


@pytest.mark.xdist_group("browser")
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_a_browser_shows_coloured_voxels_and_asks_nobody_else(tmp_path):
    names, lidar2img = nuscenes_like_rig(6, 90, 160)
    frame = Frame("city", names, synthetic_images(6, 90, 160, 0), lidar2img, "made up")
    full, bare = city(), city()
    bare.labels[bare.labels == CLASS_NAMES.index("car") + 1] = 0
    write_recording([Scene(frame, full, full), Scene(frame, bare, bare)], tmp_path / "city.rrd")
    least = {"driveable_surface": 0.05, "manmade": 0.003, "vegetation": 0.002, "car": 0.002}
    with serve(tmp_path / "city.rrd", 0) as serving, Browser(tmp_path / "profile", 1200, 800) as browser:
        browser.open(serving.address)
        png, pixels = browser.screenshot_when(lambda seen: all(amount(seen, name) > share for name, share in least.items()), 60)
        (tmp_path / "city.png").write_bytes(png)
        shares = {name: amount(pixels, name) for name in least}
        assert all(shares[name] > share for name, share in least.items()), f"{shares} in {tmp_path / 'city.png'}"
        assert amount(pixels, "pedestrian") < 1e-4  # a class that is not there
        browser.press("ArrowRight")  # the next frame has no car
        later = browser.screenshot_when(lambda seen: amount(seen, "car") < least["car"] / 4, 60)[1]
        assert amount(later, "car") < least["car"] / 4 and amount(later, "vegetation") > least["vegetation"]
        own = [address for address in browser.requests if address.startswith((serving.address, "data:", "blob:"))]
        others = [address for address in browser.requests if address not in own]
        assert any(address.endswith("/recording.rrd") for address in own)
        assert {address: browser.failed.get(address) for address in others} == dict.fromkeys(others, "csp")
