"""matplotlib in one place: the same bytes each time, whatever the user's settings, and one line where it is not installed."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from occport.errors import UserError
from occport.view.canvas import canvas, round_ticks

matplotlib = pytest.importorskip("matplotlib")


def drawn() -> tuple[bytes, str]:
    with canvas(200, 100) as sheet:
        axes = sheet.figure.add_axes((0.2, 0.2, 0.7, 0.7))
        axes.plot([0, 1], [0, 100], color="red")
        axes.set_title("a < b & $x$")
        round_ticks(axes, 4)
        return sheet.png(), sheet.svg()


def test_the_same_bytes_whatever_the_settings(monkeypatch):
    first = drawn()
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)
    assert drawn() == first
    image = np.asarray(Image.open(io.BytesIO(first[0])).convert("RGB"))
    assert image.shape == (100, 200, 3) and (image == (255, 0, 0)).all(-1).any()


def test_an_svg_is_an_element_with_its_texts_escaped():
    _, svg = drawn()
    assert svg.startswith("<svg") and "a &lt; b &amp; $x$" in svg and "dc:date" not in svg


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"expected matplotlib, got not installed; pip install 'occport\[view\]'"), canvas(10, 10):
        pass
