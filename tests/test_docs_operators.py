"""docs/operators.md tells the truth: its examples are computed here, its tables come from the code, its commands and files exist."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import math
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from occport import cli
from occport.commands import grade as grade_command
from occport.graph import dialect as dialects
from occport.graph.attributes import ATTRIBUTE_FORMS, Window, lower_window, read_window
from occport.graph.bodies.body import FORMS
from occport.graph.contract import Attribute, Contract
from occport.graph.forms import OUTPUT_FORMS, PORT_FORMS
from occport.graph.port_arrays import lower_arrays, lower_output, raise_arrays, raise_output
from occport.graph.sizes import SIZES
from occport.kit.cases.case import Case
from occport.kit.cases.folder import Held, write_case, write_index
from occport.kit.cases.golden import golden
from occport.kit.cases.record import Index
from occport.kit.cases.tolerance import bound
from occport.kit.grading.bugs.bug import wrong_output
from occport.kit.grading.bugs.table import bugs
from occport.kit.grading.outputs import PLACES
from occport.kit.vectors.edge_cases import edge_cases
from occport.ops.deform_conv import deform_conv2d
from occport.ops.msda import multi_scale_deformable_attention, sample_weighted

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/operators.md"
TEXT = PAGE.read_text(encoding="utf-8")
FLAT = " ".join(TEXT.split())  # for sentences, wherever they wrap
PICTURES = ROOT / "docs/pictures"
RESULTS = ROOT / "bench/results/standard_forms.json"

MAP = [[1, 2, 4], [8, 16, 32]]
LOCATIONS = [[0.375, 0.625], [0.9375, 0.125]]
WEIGHTS = [0.75, 0.25]
IMAGE = [[1, 2, 4], [8, 16, 32], [64, 128, 256]]
OFFSETS = [(0, 0), (-0.5, 0.25), (0.5, -0.25), (2, 0)]
MASKS = [1, 0.5, 0.25, 1]
KERNEL = [[1, 2], [3, 4]]
WINDOW: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, "deform_groups": 1}


def attention() -> Case:
    """The page's attention example."""
    quantities = {
        "value": np.float32(MAP).reshape(1, 6, 1, 1), "spatial_shapes": np.array([[2, 3]]), "level_start_index": np.array([0]),
        "sampling_locations": np.float32(LOCATIONS).reshape(1, 1, 1, 1, 2, 2),
        "attention_weights": np.float32(WEIGHTS).reshape(1, 1, 1, 1, 2),
    }  # fmt: skip
    return Case("attention", "msda", quantities, {}, "")


def convolution() -> Case:
    """The page's convolution example: the same offsets and masks at all four output positions."""
    quantities = {
        "input": np.float32(IMAGE).reshape(1, 1, 3, 3), "offset": np.tile(np.float32(OFFSETS).reshape(1, 8, 1, 1), (1, 1, 2, 2)),
        "mask": np.tile(np.float32(MASKS).reshape(1, 4, 1, 1), (1, 1, 2, 2)), "weight": np.float32(KERNEL).reshape(1, 1, 2, 2),
    }  # fmt: skip
    return Case("convolution", "dcn", quantities, WINDOW, "")


def sample(rows: list[list[int]], y: float, x: float) -> float:
    """The page's formula, word for word."""
    shares = ((max(0.0, 1 - abs(y - i)) * max(0.0, 1 - abs(x - j)), value) for i, row in enumerate(rows) for j, value in enumerate(row))
    return sum(share * value for share, value in shares)


def number(value: float) -> str:
    """A number as the page writes it."""
    return f"{value:.10g}"


def table(header: str) -> list[list[str]]:
    """The cells of the table whose header row starts so."""
    _, found, rest = TEXT.partition(f"\n| {header}")
    assert found, header
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip()[1:-1])] for row in rows]


def blocks(language: str) -> list[str]:
    """The code blocks in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_page_is_short():
    assert len(TEXT.splitlines()) <= 300


def test_attention_example():
    samples = []
    for (u, v), weight, row in zip(LOCATIONS, WEIGHTS, table("point | u, v"), strict=True):
        x, y = u * 3 - 0.5, v * 2 - 0.5
        samples.append(sample(MAP, y, x))
        parts = [
            f"({i}, {j}): {number((1 - abs(y - i)) * (1 - abs(x - j)))}"
            for i in (math.floor(y), math.floor(y) + 1) for j in (math.floor(x), math.floor(x) + 1)
        ]  # fmt: skip
        told = [f"{number(u)}, {number(v)}", f"{number(x)}, {number(y)}", ", ".join(parts), number(samples[-1]), number(weight)]
        assert row[1:] == told
    total = sum(weight * value for weight, value in zip(WEIGHTS, samples, strict=True))
    assert f"out = {' + '.join(f'{w} * {number(s)}' for w, s in zip(WEIGHTS, samples, strict=True))} = {number(total)}" in FLAT
    case = attention()
    assert golden(case).ravel().tolist() == [total]
    places, weights = (torch.from_numpy(case.quantities[name]) for name in ("sampling_locations", "attention_weights"))
    assert sample_weighted(torch.from_numpy(case.quantities["value"]), [2, 3], places, weights).item() == total


def test_wide_attention_example():
    offsets = [[(u - 0.5) * 3, (v - 0.5) * 2] for u, v in LOCATIONS]
    logits = [math.log(3), 0.0]
    assert f"offsets ({number(offsets[0][0])}, {number(offsets[0][1])}) and ({number(offsets[1][0])}, {number(offsets[1][1])})" in FLAT
    assert f"logits {logits[0]:.6f} and 0" in FLAT
    out = multi_scale_deformable_attention(
        torch.tensor(MAP, dtype=torch.float64).view(1, 6, 1, 1), [2, 3], torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64),
        torch.tensor(offsets, dtype=torch.float64).view(1, 1, 1, 1, 2, 2), torch.tensor(logits, dtype=torch.float64).view(1, 1, 1, 1, 2),
    )  # fmt: skip
    assert out.item() == pytest.approx(golden(attention()).item(), rel=1e-12)


def test_convolution_example():
    out = [[0.0, 0.0], [0.0, 0.0]]
    rows = table("tap k | i, j")
    for ho, wo in np.ndindex(2, 2):
        for k, (dy, dx) in enumerate(OFFSETS):
            i, j = divmod(k, 2)
            y, x = ho + i + dy, wo + j + dx
            read = sample(IMAGE, y, x)
            out[ho][wo] += KERNEL[i][j] * MASKS[k] * read
            if (ho, wo) == (1, 1):
                told = [str(k), f"{i}, {j}", f"{number(dy)}, {number(dx)}", f"{number(y)}, {number(x)}", number(read), number(MASKS[k])]
                assert rows[k] == [*told, str(KERNEL[i][j]), number(KERNEL[i][j] * MASKS[k] * read)]
    assert f"out = [[{number(out[0][0])}, {number(out[0][1])}], [{number(out[1][0])}, {number(out[1][1])}]]" in FLAT
    case = convolution()
    assert golden(case)[0, 0].tolist() == out
    tensors = [torch.from_numpy(case.quantities[name]) for name in ("input", "offset", "mask", "weight")]
    assert deform_conv2d(*tensors, None, *WINDOW.values())[0, 0].tolist() == out


def test_wrong_kernels_of_the_examples():
    known = {(operator, bug.name): bug for operator in ("msda", "dcn") for bug in bugs(operator)}
    rows = table("attention: a kernel with")
    for case, part in ((attention(), [row[:2] for row in rows]), (convolution(), [row[2:] for row in rows])):
        right = golden(case)
        assert f"gives, instead of {', '.join(number(value) for value in right.ravel())} |" in FLAT
        for name, told in part:
            wrong = wrong_output(known[case.operator, name.strip("`")], case)
            assert told == ", ".join(number(value) for value in wrong.ravel()), name
            assert (np.abs(wrong - right) > bound(case, "float16")).any(), "the example does not show this bug"


def test_strides():
    for quantity, shape, strides, _ in table("quantity | shape"):
        sizes = [int(size) for size in shape.strip("()").split(", ")]
        wanted = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
        assert strides == ", ".join(map(str, wanted)), quantity


def test_half_precision_steps():
    for pixel, step in ((100, 0.0625), (199, 0.125)):
        assert np.spacing(np.float16(pixel)) == step and f"{step} pixels" in FLAT
    assert f"{np.spacing(np.float16(0.75)) * 200:.3f} pixels" in FLAT
    assert np.spacing(np.float16(0.75)) * 200 == pytest.approx(0.098, abs=5e-4)
    assert 2.0 ** (math.floor(math.log2(199)) - 7) == 1 and "1 pixel in bfloat16" in TEXT  # bfloat16 has 8 significant bits


def ports_of(contract: Contract) -> str:
    """The inputs of a node as the page's tables have them."""
    parts = []
    for port in contract.inputs:
        dtype = "" if port.dtype == "float32" else f" {port.dtype}"
        parts.append(f"{port.form}{dtype}{' (optional)' * port.optional}")
    return ", ".join(parts)


def attributes_of(contract: Contract) -> str:
    """The attributes of a node as the page's tables have them."""

    def one(attribute: Attribute) -> str:
        if not attribute.form:
            return f"{attribute.name} = {attribute.default}"
        return attribute.name if attribute.name == attribute.form else f"{attribute.name} = `{attribute.form}`"

    return ", ".join(map(one, contract.attributes)) or "none"


def limits_of(contract: Contract) -> str:
    """The limits of a node as the page's tables have them."""
    return "".join(f"; {limit.size} {limit.describe()}{f' in {limit.dtype}' * bool(limit.dtype)}" for limit in contract.limits)


def contract_rows(operator: str) -> list[list[str]]:
    """The built-in dialects as their TOML files have them; those that differ in nothing but the node's name share a row."""
    shared: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for name in dialects.names():
        contract: Contract | None = getattr(dialects.load(name), operator)
        if contract is not None:
            last = contract.output.form if operator == "msda" else contract.bias
            cells = (ports_of(contract), attributes_of(contract), f"{last}{limits_of(contract)}")
            shared.setdefault(cells, {}).setdefault(contract.title, []).append(name)
    return [[", ".join(f"`{title}` ({', '.join(users)})" for title, users in nodes.items()), *cells] for cells, nodes in shared.items()]


@pytest.mark.parametrize(("operator", "header"), [("msda", "attention nodes"), ("dcn", "convolution nodes")])
def test_dialect_tables(operator, header):
    assert table(header) == contract_rows(operator)


def test_dialects_without_nodes_are_named():
    for name in dialects.names():
        if dialects.load(name).msda is None:
            assert f"`{name}` has no nodes of its own" in FLAT


def form_rows() -> list[list[str]]:
    """All forms, three in a row; forms that hold the same in another shape stand together."""
    shared: dict[tuple[str, str], list[str]] = {}
    for name, form in PORT_FORMS.items():
        shape = f"({', '.join(form.shape.split())})" if form.shape else "a number"
        what = form.what if form.operator != "output" else f"output: {form.what}"
        shared.setdefault((form.operator, what), []).append(f"`{name}` {shape}")
    cells = [[", ".join(names), what] for (_, what), names in shared.items()]
    rows = -(-len(cells) // 3)
    cells += [["", ""]] * (3 * rows - len(cells))
    return [cells[row] + cells[rows + row] + cells[2 * rows + row] for row in range(rows)]


def test_form_table():
    assert table("form (shape)") == form_rows()
    outputs = {name for name, form in PORT_FORMS.items() if form.operator == "output"}
    assert outputs == {name for names in OUTPUT_FORMS.values() for name in names}


def test_attribute_forms_and_sizes():
    for name in ATTRIBUTE_FORMS:
        stem = re.sub(r"_[hw]$", "", name)
        assert f"`{name}`" in TEXT or (stem != name and f"`{stem}_h`, `{stem}_w`" in TEXT), name
    for operator, sizes in SIZES.items():
        assert f"{operator}: {', '.join(f'`{name}`' for name in sizes)}" in FLAT, operator


def test_toml_examples(tmp_path):
    whole, based = blocks("toml")
    (tmp_path / "mychip.toml").write_text(whole)
    (tmp_path / "other.toml").write_text(based)
    mine, other = dialects.read(tmp_path / "mychip.toml"), dialects.read(tmp_path / "other.toml")
    assert mine.name == "mychip" and mine.msda is not None and mine.dcn is not None
    base = dialects.load("mmdeploy")
    assert other.name == "other" and other.msda is not None and base.msda is not None
    assert other.msda.op_type == "DeformAttn" and other.msda.inputs == base.msda.inputs and other.dcn == base.dcn
    for contract, case in ((mine.msda, attention()), (mine.dcn, convolution()), (other.msda, attention())):
        ports = lower_arrays(contract, case.quantities)
        raised = raise_arrays(contract, ports)
        back = Case(case.name, case.operator, {name: raised[name] for name in raised if name != "bias"}, case.attributes, "")
        out = golden(case)
        np.testing.assert_array_equal(golden(back), out)
        np.testing.assert_array_equal(raise_output(contract, lower_output(contract, out, case.quantities)), out)
    window = Window((3, 3), (1, 1), (1, 1), (2, 2), 1, 1)
    assert read_window(mine.dcn, lower_window(mine.dcn, window), (3, 3), "node") == window


def test_standard_forms():
    rows = [(row[0].strip("`"), row[2]) for row in table("form | arithmetic")]
    assert rows == [(f"--{operator} {form}", str(first)) for operator, forms in FORMS.items() for form, first in forms.items()]


def measured(operator: str, form: str) -> str:
    """What bench/standard_forms.py has measured of one form."""
    kind = {"msda": "attention, ", "dcn": "convolution, "}[operator]
    rows = json.loads(RESULTS.read_text())["rows"].items()
    nodes = {name.removeprefix(kind): row for name, row in rows if name.startswith(kind)}
    chosen = ((name.removesuffix(f", {form}"), row) for name, row in nodes.items() if name.endswith(f", {form}"))
    return "; ".join(f"{node}: {row['run ms']:.0f} ms, {row['memory MB']:.0f} MB" for node, row in chosen)


def test_figures_are_the_measured_ones():
    told = [row[3] for row in table("form | arithmetic")]
    if not RESULTS.is_file():
        pytest.skip("bench/results/standard_forms.json is not there; `python bench/standard_forms.py` writes it")
    assert told == [measured(operator, form) for operator, forms in FORMS.items() for form in forms]


@pytest.mark.parametrize(("operator", "column"), [("msda", 1), ("dcn", 2)])
def test_bug_lists(operator, column):
    told = [name for row in table("what is wrong") for name in re.findall(r"`(\w+)`", row[column])]
    assert sorted(told) == sorted(bug.name for bug in bugs(operator)), set(told) ^ {bug.name for bug in bugs(operator)}


def test_mistakes_name_known_bugs():
    known = {bug.name for operator in ("msda", "dcn") for bug in bugs(operator)}
    rows = table("what you see")
    assert len(rows) >= 10
    for *_, names in rows:
        assert set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", names)) <= known


def edge_folder(folder: Path, cases: list[Case]) -> None:
    """Vectors of some edge cases, with the quantities as ports."""
    records = []
    for case in cases:
        out = golden(case)
        ports = [Held(name, name, array) for name, array in case.quantities.items()]
        records.append(write_case(folder, case, ports, out, out.shape, b"", {}))
    write_index(folder, Index("dl", {}, tuple(records)))


def graded(folder: Path, outputs: Path) -> tuple[int, str]:
    """Exit status and output of `occport grade`."""
    parser, out = argparse.ArgumentParser(), io.StringIO()
    grade_command.add_arguments(parser)
    with contextlib.redirect_stdout(out):
        status = grade_command.run(parser.parse_args([str(folder), "--outputs", str(outputs)]))
    return status, out.getvalue()


def without_bounds(text: str) -> list[str]:
    """Lines of output without the numbers that a better error bound would change."""
    return re.sub(r"± [^;]+;", "± …;", text).splitlines()


def test_sample_of_a_verdict(tmp_path):
    (told,) = blocks("text\n\\$ occport grade out/vectors --outputs out/mine")
    chosen = [case for case in edge_cases("dcn") if case.name.removeprefix("dcn_edge_") in ("plain", "no_offset")]
    bug = next(bug for bug in bugs("dcn") if bug.name == "offsets_as_dxdy")
    (tmp_path / "vectors").mkdir()
    (tmp_path / "mine").mkdir()
    edge_folder(tmp_path / "vectors", chosen)
    for case in chosen:
        np.save(tmp_path / "mine" / f"{case.name}.npy", wrong_output(bug, case).astype(np.float32))
    status, out = graded(tmp_path / "vectors", tmp_path / "mine")
    assert status == 1
    assert without_bounds(told) == without_bounds(out)


def on_the_chip(ports: dict[str, np.ndarray], attributes: dict[str, Any]) -> np.ndarray:
    """A right kernel: the torch operators."""
    given = {name: torch.from_numpy(array) for name, array in ports.items()}
    if "weight" in given:
        window = [attributes[name] for name in WINDOW]
        return deform_conv2d(given["input"], given["offset"], given["mask"], given["weight"], given.get("bias"), *window).numpy()
    shapes = ports["spatial_shapes"].ravel().tolist()
    return sample_weighted(given["value"], shapes, given["sampling_locations"], given["attention_weights"]).numpy()


def test_python_example_runs_and_grades(tmp_path, monkeypatch):
    (code,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out/vectors").mkdir(parents=True)
    edge_folder(tmp_path / "out/vectors", [edge_cases("msda")[0], edge_cases("msda")[1], edge_cases("dcn")[0]])
    exec(compile(code, "operators.md", "exec"), {"run_on_my_chip": on_the_chip})
    status, out = graded(tmp_path / "out/vectors", tmp_path / "out/mine")
    assert (status, "3 of 3 cases passed" in out) == (0, True), out


def test_output_places_are_told():
    for place in PLACES:
        assert f"`{place.format('CASE')}`" in FLAT


COMMANDS = [words for text in blocks("bash") for line in text.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_parse(words, monkeypatch):
    if words[0] == "python":
        assert (ROOT / words[1]).is_file()
        return
    program, verb, *rest = words
    assert program == "occport" and verb in cli.VERBS
    name = f"occport.commands.{cli.VERBS[verb].module}"
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not there yet")
    parser = argparse.ArgumentParser(exit_on_error=False)
    import_module(name).add_arguments(parser)
    parser.parse_args(rest)


def test_commands_name_every_verb_of_the_kit():
    told = {words[1] for words in COMMANDS if words[0] == "occport"}
    assert told >= {"vectors", "grade", "lint", "retarget", "probe", "dialects", "export"}


def test_kernel_functions_exist():
    header = (ROOT / "kernels/occport_kernels.h").read_text()
    told = set(re.findall(r"`(occport_\w+)`", TEXT))
    assert told and all(f"{name}(" in header for name in told)


def test_links_and_named_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://") or (PAGE.parent / target).is_file(), target
    for name in re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", TEXT):
        if not name.startswith(("out/", "DIR/", "CASE/", "npy/", "raw/", "test_data_set_0/", "C/", "my/")):
            assert (ROOT / name).exists() or (ROOT / "src/occport" / name).exists(), name


def draw() -> ModuleType:
    """docs/pictures/draw.py, imported."""
    spec = importlib.util.spec_from_file_location("operators_draw", PICTURES / "draw.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(PICTURES), *sys.path])
        patch.setattr(sys, "dont_write_bytecode", True)
        spec.loader.exec_module(module)
    return module


def test_pictures_are_todays():
    drawn = draw().pictures()
    assert set(drawn) == {path.name for path in PICTURES.glob("*.svg")}
    shown = re.findall(r"!\[[^\]]+\]\(pictures/([\w.-]+)\)", TEXT)  # each with a text for those who cannot see it
    assert sorted(shown) == sorted(drawn)
    for name, text in drawn.items():
        assert (PICTURES / name).read_text(encoding="utf-8") == text, f"{name}: run docs/pictures/draw.py"
        assert len(text) < 150_000


def test_pictures_show_the_examples():
    module = draw()
    assert [list(row) for row in module.MAP] == MAP and [list(place) for place in module.SAMPLES] == LOCATIONS
    text = module.pictures()["bilinear.svg"]
    for u, v in LOCATIONS:
        assert f"= {number(sample(MAP, v * 2 - 0.5, u * 3 - 0.5))}<" in text


def test_draw_writes_where_it_is_told(tmp_path, monkeypatch):
    module = draw()
    monkeypatch.setattr(sys, "argv", ["draw.py", str(tmp_path)])
    module.main()
    assert {path.name for path in tmp_path.iterdir()} == set(module.pictures())
