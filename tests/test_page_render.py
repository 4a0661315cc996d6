"""Pages: escaped, self-contained, the same each time; numbers in words."""

from __future__ import annotations

import base64
import hashlib
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from occport.bringup.dossier.section import Told, finite, section
from occport.bringup.page import words
from occport.bringup.page.picture import Picture
from occport.bringup.page.render import FOLDER, render
from occport.errors import UserError

VALUES = {
    "model": "m.onnx", "golden": "g", "theirs": "t", "source": "", "dialect": "", "sha256": "0", "tone": "good", "headline": "h",
    "judged": "", "tiles": [], "blamed": [], "bars": [], "heads": ["a"], "rows": [], "maps": [], "remarks": [], "maps_left": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("spoken", "words_of_it"),
    [
        (words.count(1234567), "1,234,567"), (words.count(None), "–"),
        (words.amount(2.324e12, "MAC"), "2.324 TMAC"), (words.amount(180_400_000), "180.4 M"), (words.amount(12), "12"),
        (words.amount(0, "MAC"), "0 MAC"), (words.amount(None), "–"),
        (words.size(724119042), "690.6 MiB"), (words.size(120), "120 B"), (words.size(3 * 2**30), "3 GiB"), (words.size(None), "–"),
        (words.figure(0.0), "0"), (words.figure(1.87e-4), "1.87e-04"), (words.figure(0.25), "0.25"), (words.figure(1e6), "1.00e+06"),
        (words.figure(math.inf), "inf"), (words.figure(None), "–"),
        (words.share(1.0), "100%"), (words.share(0.99999375), "99.9994%"), (words.share(1 - 1e-9), "< 100%"), (words.share(None), "–"),
        (words.milliseconds(0.0104), "10.4 ms"), (words.shape((1, 6, 3)), "1 × 6 × 3"), (words.shape(()), "scalar"),
        (words.plain("max_abs"), "max abs"), (words.commas([]), "–"), (words.commas([1, "b"]), "1, b"),
    ],
)  # fmt: skip
def test_numbers_in_words(spoken: str, words_of_it: str):
    assert spoken == words_of_it


def test_every_text_is_escaped():
    hostile = '<script>alert(1)</script><img src=x onerror="alert(2)">\''
    page = render("diff.html", {**VALUES, "model": hostile, "remarks": [hostile], "headline": hostile})
    assert hostile not in page and page.count("&lt;script&gt;alert(1)") == 4
    assert len(re.findall("<script>", page)) == 1 and "<img" not in page


@settings(deadline=None, max_examples=25)
@given(st.text(max_size=40))
def test_any_name_leaves_the_structure_as_it_is(name: str):
    plain = render("diff.html", {**VALUES, "model": "x", "remarks": ["x"]})
    wild = render("diff.html", {**VALUES, "model": name, "remarks": [name]})
    assert wild.count("<") == plain.count("<") and wild.count('"') == plain.count('"')


def test_a_missing_value_is_our_own_bug():
    with pytest.raises(UndefinedError):
        render("diff.html", {"model": "m"})


def test_the_policy_names_the_script_of_the_page_and_nothing_else():
    page = render("diff.html", VALUES)
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src 'none'" in policy[1] and f"script-src 'sha256-{digest}'" in policy[1] and "http" not in policy[1]


def test_the_same_values_give_the_same_page():
    assert render("diff.html", VALUES) == render("diff.html", dict(reversed(VALUES.items())))


@pytest.mark.parametrize("path", [*sorted(FOLDER.glob("*.html")), FOLDER / "look.css"], ids=lambda path: path.name)
def test_nothing_of_a_page_is_elsewhere(path):
    text = path.read_text(encoding="utf-8")
    assert not any(word in text for word in ("://", "@import", "url("))
    assert "|safe" not in text or path.name == "layout.html"
    assert not re.search(r"\son\w+=", text), "scripts stand in script.html alone"


def test_pictures_stand_in_the_page():
    assert Picture("t", "a", b"\x89PNG").address == "data:image/png;base64,iVBORw=="
    assert base64.b64decode(Picture("t", "a", "<svg/>").address.removeprefix("data:image/svg+xml;base64,")) == b"<svg/>"


def test_sections_hold_no_number_that_json_lacks():
    assert finite({"a": (1, math.nan), 2: [math.inf, "x", 0.5, None, True]}) == {"a": [1, None], "2": [None, "x", 0.5, None, True]}


def test_a_section_tells_what_the_user_can_mend():
    def gone() -> Told:
        raise UserError("frame f", expected="a file", got="none")

    told = section("prediction", gone)
    assert told.content is None and told.reason == "frame f: expected a file, got none"
    with pytest.raises(UserError):
        section("prediction", gone, (UserError,))
    with pytest.raises(ZeroDivisionError):
        section("cost", lambda: Told({"a": 1 / 0}))
