"""The page of a comparison: what stands in it, for every status and for hostile names, and how it looks in a browser."""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from browser import CHROMIUM
from occport.bringup.diff.maps import map_picture
from occport.bringup.diff.page import page_text, relative
from occport.bringup.diff.result import Blame, ErrorMap, Figures, Result, TensorDiff
from occport.bringup.dumps.index import Entry, Index
from page_seen import assert_fine, looked_at

EVIL = "</td><script>alert('x')</script>"


def entry(name: str, stage: str = "backbone", role: str = "inner", op_type: str = "Conv") -> Entry:
    return Entry(name, f"node_{name}", op_type, stage, role, "float32", (2, 3), ("A", "C"), f"{name}.npy", "0" * 64)


SOME = Figures(
    0.5, 0.25, 0.125, 0.9987654, (0.1, 0.2, 0.3, 0.4375), (1, 2), ("A", "C"), 1.5, 1.0, (1,), ("A",), 0.2, total=6, want_rms=1.25
)
ZERO = replace(SOME, max_abs=0.0, max_rel=0.0, rms=0.0, cosine=1.0, quantiles=(0.0,) * 4)


def error_map(title: str = "camera 1 (CAM_BACK)") -> ErrorMap:
    error = np.zeros((4, 6), np.float32)
    error[2, 5], error[0, 0] = 0.75, np.nan
    return ErrorMap(title, error, "row", "column")


@pytest.fixture
def result() -> Result:
    tensors = (
        TensorDiff(entry("img", "", "input", ""), "equal", figures=ZERO),
        TensorDiff(entry("rounded"), "explained", "read as float16", "float16", replace(SOME, rms=0.00125, max_abs=0.01)),
        TensorDiff(entry("shifted", "level 0", op_type="X::Attention"), "differs", "", "float32", SOME, (error_map(),)),
        TensorDiff(entry("lost", "decoder"), "missing", "no dump of this name"),
        TensorDiff(entry(EVIL, "decoder", "output"), "differs", EVIL, "float32", replace(SOME, flips=1, labels=8, not_numbers=2), ()),
    )
    blame = Blame(("node_shifted",), ("X::Attention",), "level 0", "shifted", 121.4, "camera 1", "shifted does not follow from its inputs")
    return Result("gold", "theirs", "m.onnx", tensors, (blame,), "by running nodes", ("a remark",), {"shifted": 121.4, "rounded": 0.5})


@pytest.fixture
def index(result) -> Index:
    return Index("m.onnx", "f" * 64, "dl", "frame synthetic", "npy", tuple(tensor.entry for tensor in result.tensors))


def rows_of(page: str) -> list[list[str]]:
    """Texts of the cells of the table of tensors."""
    body = re.search(r"Every golden tensor in graph order</caption>.*?<tbody>(.*?)</tbody>", page, re.DOTALL)[1]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", body, re.DOTALL)]
    return [[html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row] for row in cells]


def test_what_is_to_blame_comes_first(result, index):
    page = page_text(result, index)
    assert "To blame: node_shifted (X::Attention, level 0), worst at camera 1" in page
    assert page.index("shifted does not follow from its inputs") < page.index("Every golden tensor")
    assert "121 ×" in page and "Judged by running nodes." in page and "a remark" in page


def test_every_tensor_has_its_row_and_figures(result, index):
    rows = rows_of(page_text(result, index))
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row[1] for row in rows] == ["img", "rounded", "shifted", "lost", EVIL]
    assert [row[4] for row in rows] == ["equal", "explained", "to blame", "missing", "differs"]
    assert rows[2][5:12] == ["0.5", "0.25", "0.125", "0.9987654", "0.4375", "", "121 ×"]
    assert rows[2][12] == "camera 1, channel 2: got 1.5, want 1"
    assert rows[3][5:14] == [""] * 8 + ["no dump of this name"]
    assert rows[4][10] == "1 of 8" and rows[4][12].startswith("2 nan or inf; ")


def test_hostile_names_do_nothing(result, index):
    page = page_text(result, replace(index, source=EVIL))
    assert "<script>alert" not in page and page.count("<script>") == 1


def test_a_bar_for_each_tensor_as_high_as_its_difference(result, index):
    page = page_text(result, index)
    bars = re.findall(r'<rect class="(\w+)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', page)
    assert [bar[0] for bar in bars] == ["equal", "explained", "blamed", "missing", "differs"]
    assert [float(bar[1]) for bar in bars] == [0, 200, 400, 600, 800]
    assert float(bars[1][4]) == pytest.approx(100 * (math.log10(0.001) + 8) / 9, abs=0.01)  # 0.00125 / 1.25
    assert float(bars[2][4]) == pytest.approx(100 * 7 / 9, abs=0.01)  # a tenth
    assert float(bars[4][4]) == 100  # nan
    assert re.findall(r'flex: (\d+) 1 0" title="([^"]*)"', page) == [("1", "inputs"), ("1", "backbone"), ("1", "level 0"), ("2", "decoder")]


def test_relative_differences():
    assert relative(TensorDiff(entry("a"), "differs", figures=replace(SOME, want_rms=0.0))) == math.inf
    assert relative(TensorDiff(entry("a"), "equal", figures=ZERO)) == 0
    assert relative(TensorDiff(entry("a"), "missing")) is None


@pytest.mark.parametrize(
    ("statuses", "headline"),
    [
        (("equal", "equal"), "Every tensor is equal, bit by bit"),
        (("equal", "explained"), "Nothing beyond rounding"),
        (("equal", "differs"), "no single node is to blame"),
        (("explained", "missing"), "not every tensor could be compared"),
    ],
)
def test_headlines_without_blame(statuses, headline, index):
    known = {"equal": ZERO, "explained": SOME, "differs": SOME, "missing": None}
    tensors = tuple(TensorDiff(entry(f"t{i}"), status, figures=known[status]) for i, status in enumerate(statuses))
    page = page_text(Result("g", "t", "m.onnx", tensors), index)
    assert headline in page and "To blame" not in page


def test_several_nodes_in_question_are_all_listed(result, index):
    blame = replace(result.blamed[0], nodes=("a", "b", "c"), op_types=("Add", "Mul", "Add"))
    page = page_text(replace(result, blamed=(blame,)), index)
    assert "one of 3 nodes, a to c" in page and "All 3 nodes in graph order" in page and "<code>b</code> Mul" in page


def test_maps_are_embedded_and_described(result, index):
    page = page_text(result, index)
    assert page.count("data:image/png;base64,") == 1
    assert "Map of the mean difference of shifted, camera 1 (CAM_BACK): at most 0.75, at row 2, column 5" in page


def test_of_many_maps_the_most_important_are_shown(result, index):
    many = tuple(TensorDiff(entry(f"t{i}"), "differs", figures=SOME, maps=(error_map(f"map {i}"),)) for i in range(30))
    page = page_text(replace(result, tensors=(*many, *result.tensors)), index)
    assert page.count("data:image/png;base64,") == 24 and "7 further maps are left out" in page
    assert page.index("shifted: to blame; camera 1") < page.index("t0: differs; map 0")


def test_a_map_without_any_comparison(index):
    one = map_picture(ErrorMap("nothing", np.full((2, 9), np.nan, np.float32), "y", "x"), "t", "differs")
    assert one.alt.endswith("nothing was compared") and one.content.startswith(b"\x89PNG")
    assert map_picture(error_map(), "t", "differs") == map_picture(error_map(), "t", "differs")


def test_infinite_figures_do_not_break_the_page(result, index):
    wild = replace(SOME, max_abs=math.inf, max_rel=math.inf, rms=math.nan, cosine=math.nan, got=math.nan, not_numbers=6)
    page = page_text(replace(result, tensors=(TensorDiff(entry("t"), "differs", figures=wild),), explained={"t": math.inf}), index)
    (row,) = rows_of(page)
    assert row[5:9] == ["inf", "inf", "nan", "–"] and row[11] == "beyond all"
    assert 'data-order="inf"' not in page and 'data-order="nan"' not in page


def test_without_any_tensor(index):
    assert "Every tensor is equal" in page_text(Result("g", "t", "m.onnx", ()), index)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(result, index, tmp_path, width):
    path = tmp_path / "diff.html"
    path.write_text(page_text(result, index), encoding="utf-8")
    seen = looked_at(path, width, _SORTED)
    assert_fine(seen, width)
    order, hidden = json.loads(seen.answer)
    assert order == ["3", "2", "1"], "sorted by max abs, the largest first"
    assert hidden == "none"


_SORTED = """
(() => {
  const table = [...document.querySelectorAll("table[data-sort]")].pop();
  [...table.tHead.querySelectorAll("button")].find((one) => one.textContent === "max abs").click();
  const rows = [...table.tBodies[0].rows].filter((row) => ["1", "2", "3"].includes(row.cells[0].textContent));
  table.tBodies[0].rows[0].hidden = true;
  return JSON.stringify([rows.map((row) => row.cells[0].textContent), getComputedStyle(table.tBodies[0].rows[0]).display]);
})()
"""
