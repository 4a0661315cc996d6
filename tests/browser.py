"""A small driver of headless Chromium for tests: its DevTools protocol over a pipe, which needs no package."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Software rendering: a test machine has no GPU.
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-dev-shm-usage", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """A browser with one page. Use as a context manager.

    Args:
        folder: for its profile; made if it is missing.
        width, height: of the page, pixels.
    Attributes:
        requests: addresses of everything that the page asked for, in order, those that its policy blocked included.
        failed: address → why it got no answer; "csp" where the page's policy blocked it.
    """

    def __init__(self, folder: Path, width: int, height: int) -> None:
        self.requests: list[str] = []
        self.failed: dict[str, str] = {}
        self._addresses: dict[str, str] = {}
        self._size = width, height
        self._loaded = False
        self._number = 0
        self._buffer = b""
        self._session: str | None = None
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        # The protocol wants descriptors 3 and 4; copies out of the way first, since a pipe may have got one of these numbers.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, answers)]

        def arrange() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"],
            env={**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},  # where its crash reporter settles
            preexec_fn=arrange, pass_fds=(3, 4), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (commands, answers, *ends):
            os.close(end)

    def __enter__(self) -> Browser:
        pages = self._call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in pages if target["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network"):
            self._call(f"{domain}.enable")
        width, height = self._size
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._session = None
        self._call("Browser.close")  # its other processes end too, so that nobody writes into the profile any more
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def open(self, address: str) -> None:
        """Goes to a page and waits until it is loaded; what its script then does takes longer."""
        self._loaded = False
        self._call("Page.navigate", url=address)
        while not self._loaded:
            self._note(self._next())

    def screenshot(self) -> tuple[bytes, np.ndarray]:
        """The page as it is now: the PNG file, and its pixels (H, W, 3) uint8, R, G, B."""
        from PIL import Image

        png = base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])
        return png, np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def screenshot_when(self, ready: Callable[[np.ndarray], bool], patience: float) -> tuple[bytes, np.ndarray]:
        """The first screenshot that is `ready`; after `patience` seconds, the last one."""
        deadline = time.monotonic() + patience
        while True:
            png, pixels = self.screenshot()
            if ready(pixels) or time.monotonic() > deadline:
                return png, pixels
            time.sleep(0.5)

    def press(self, key: str) -> None:
        """A key down and up, by its DOM name."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def _call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol, and its result; events on the way are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def _next(self) -> Any:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], 60.0)
            part = os.read(self._read, 1 << 20) if ready else b""
            assert part, "the browser has gone, or has been silent for a minute"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def _note(self, event: Any) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Page.loadEventFired":
            self._loaded = True
        elif event.get("method") == "Network.requestWillBeSent":
            self._addresses[parameters["requestId"]] = parameters["request"]["url"]
            self.requests.append(parameters["request"]["url"])
        elif event.get("method") == "Network.loadingFailed":
            self.failed[self._addresses.get(parameters["requestId"], "")] = parameters.get("blockedReason") or parameters["errorText"]
