"""A page in a headless browser: its pixels, its width, what it fetched, and what its console said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from browser import Browser


@dataclass(frozen=True)
class Seen:
    """What a page was like.

    Attributes:
        pixels: (H, W, 3) uint8 of its top.
        widths: of the page and of the window.
        fetched: kinds of addresses ("file", "data").
        complaints: of console and policy.
        answer: of the expression that was asked.
    """

    pixels: np.ndarray
    widths: tuple[int, int]
    fetched: set[str]
    complaints: list[str]
    answer: Any


class _Listening(Browser):
    """A browser that writes down errors."""

    def __init__(self, folder: Path, width: int, height: int) -> None:
        super().__init__(folder, width, height)
        self.complaints: list[str] = []

    def _note(self, event: Any) -> None:
        super()._note(event)
        if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(event["params"])[:400])


def looked_at(path: Path, width: int, expression: str = "0") -> Seen:
    """Opens a page in a window of some width and asks it an expression in JavaScript."""
    with _Listening(path.parent / f"profile{width}", width, 900) as browser:
        for domain in ("Log", "Runtime"):
            browser._call(f"{domain}.enable")
        browser.open(path.as_uri())
        _, pixels = browser.screenshot()
        asked = f"JSON.stringify([document.documentElement.scrollWidth, innerWidth, {expression}])"
        page, window, answer = json.loads(browser._call("Runtime.evaluate", returnByValue=True, expression=asked)["result"]["value"])
        fetched = {address.split(":")[0] for address in browser.requests}
        return Seen(pixels, (page, window), fetched, [*browser.complaints, *browser.failed], answer)


def assert_fine(seen: Seen, width: int) -> None:
    """Not blank, not too wide, nothing fetched from anywhere, nothing complained of."""
    assert seen.pixels.shape[1] == width and len(np.unique(seen.pixels.reshape(-1, 3), axis=0)) > 50
    assert seen.widths == (width, width), "the page is wider than the window"
    assert seen.fetched <= {"file", "data"} and seen.complaints == []
