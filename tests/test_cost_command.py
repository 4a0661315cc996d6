"""`occport cost` as a user runs it: tables, files, charts, chips, and what it refuses."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

from exporting import assert_refused, contents, run_cli
from occport.bringup.cost.chip import FOLDER, Chip, chip_names, load_chip
from occport.bringup.cost.cost import cost_of
from occport.bringup.cost.roofline import roofline
from occport.errors import UserError
from occport.export.network_file import read_network


@pytest.fixture(scope="module")
def cost(runtime_export):
    return cost_of(read_network(runtime_export.model, None, standard=True))


def test_the_table_tells_the_file_and_the_network(runtime_export, cost):
    ran = run_cli("cost", runtime_export.model)
    assert ran.status == 0, ran.err
    assert ran.out.splitlines()[0].split()[:3] == ["stage", "nodes", "parameters"]
    assert [line.split("  ")[0] for line in ran.out.splitlines()[1:8]] == [row.name for row in cost.rows("stage")]
    assert f"{cost.network.total / 1e12:.3f} TMAC" in ran.out and "DL::ModulatedDeformConv2d" in ran.out
    assert f"at most {cost.peak.total / 2**20:,.0f} MiB alive" in ran.out


def test_rows_are_cut_at_top(runtime_export, cost):
    ran = run_cli("cost", runtime_export.model, "--by", "layer", "--top", "3")
    assert f"... and {len(cost.rows('layer')) - 3} more" in ran.out
    assert ran.out.splitlines()[1].split()[0] == cost.rows("layer")[0].name


def test_files_hold_what_was_printed(runtime_export, cost, tmp_path):
    flags = ("--chip", "example-edge", "--precision", "fp16")
    ran = run_cli(
        "cost", runtime_export.model, *flags, "--json", tmp_path / "c.json", "--csv", tmp_path / "c.csv", "--chart", tmp_path / "c.svg"
    )
    assert ran.status == 0, ran.err
    table = json.loads((tmp_path / "c.json").read_text())
    assert table["total"]["macs"] == cost.total.macs
    assert table["roofline"]["seconds"] == pytest.approx(sum(node["seconds"] for node in table["roofline"]["nodes"]))
    assert f"{table['roofline']['seconds'] * 1e3:.1f} ms at best" in ran.out
    rows = list(csv.DictReader((tmp_path / "c.csv").open()))
    assert sum(int(row["macs"]) for row in rows) == cost.total.macs
    assert sum(float(row["seconds"]) for row in rows if row["seconds"]) == pytest.approx(table["roofline"]["seconds"])
    assert (tmp_path / "c.svg").read_text().startswith("<svg") and "example: edge" in (tmp_path / "c.svg").read_text()
    assert run_cli("cost", runtime_export.model, "--chart", tmp_path / "c.png").status == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_times_on_a_chip_by_hand(cost):
    chip = Chip("c", bandwidth=1.0, sram=0.0, launch=1.0, fuse=False, peak={"float32": 1.0}, efficiency={"products": 0.5, "sampling": 0.1})
    times = {time.node.name: time for time in roofline(cost, chip).times}
    for node in cost.nodes:
        if not node.moved and not node.work.flops:
            continue
        compute = 2 * node.work.products / 0.5e12 + 8 * node.work.sampled / 0.1e12 + node.work.operations / 1e12
        time = times[node.name]
        assert time.compute == pytest.approx(compute) and time.memory == pytest.approx(node.moved / 1e9)
        assert time.seconds == pytest.approx(max(compute, node.moved / 1e9) + 1e-6)


def test_a_chip_with_much_memory_moves_weights_images_and_labels(cost):
    chip = Chip("c", 1.0, 1e6, 0.0, False, {"float32": 1.0}, {})
    times = roofline(cost, chip).times
    buffer, given = cost.liveness.buffer, cost.liveness.given
    outside = sum(size for node in cost.nodes for name, size in (*node.reads, *node.writes) if buffer[name] in given)
    assert sum(time.moved for time in times) == sum(node.weight_bytes for node in cost.nodes) + outside
    first = next(time for time in times if time.node.op_type == "Conv")
    assert first.moved == first.node.weight_bytes + first.node.reads[0][1]
    labels = [time for time in times if any(name.startswith("labels_scale") for name, _ in time.node.writes) and time.moved]
    assert len(labels) == 4 and all(time.moved == time.node.write_bytes for time in labels)


def test_half_precision_halves_what_moves_but_not_the_geometry(cost):
    chip = Chip("c", 1.0, 0.0, 0.0, False, {"float32": 1.0, "float16": 4.0}, {})
    whole, half = ({time.node.name: time for time in roofline(cost, chip, precision).times} for precision in ("", "float16"))
    for node in cost.nodes:
        if node.name in whole and node.op_type == "Conv" and node.stage == "neck":
            assert half[node.name].moved == whole[node.name].moved / 2 and half[node.name].compute == whole[node.name].compute / 4
        if node.name in whole and node.stage == "tables":
            assert half[node.name].moved == whole[node.name].moved and half[node.name].dtype == whole[node.name].dtype


def test_a_fused_node_takes_what_the_one_before_it_made(cost):
    apart, fused = (roofline(cost, Chip("c", 1.0, 0.0, 5.0, fuse, {"float32": 1.0}, {})) for fuse in (False, True))
    before = {time.node.name: time for time in apart.times}
    relu = next(time for time in fused.times if time.node.op_type == "Relu" and time.launch == 0)
    (name, size), = relu.node.reads
    maker = next(time for time in fused.times if name in dict(time.node.writes))
    assert relu.moved == before[relu.node.name].moved - size
    assert maker.moved == before[maker.node.name].moved - size
    assert fused.seconds < apart.seconds


def test_a_dtype_without_a_rate_is_told(runtime_export, tmp_path):
    (tmp_path / "c.toml").write_text('bandwidth = 1\n[peak]\nfloat16 = 2\n')
    ran = run_cli("cost", runtime_export.model, "--chip", tmp_path / "c.toml")
    assert ran.status == 0 and "no rate for float32: float16's was taken" in ran.out and "c, dtypes of the file" in ran.out


def test_examples_can_be_read():
    assert chip_names() == ("example-edge", "example-server") == tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))
    for name in chip_names():
        chip = load_chip(name)
        assert chip.name.startswith("example")
        assert chip.rate("float16", "products") == chip.peak["float16"] * chip.efficiency["products"] * 1e12


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("bandwidth = 'x'\n[peak]\nfloat32 = 1", "bandwidth: expected GB/s: a number from 0.001 to 1,000,000, got 'x'"),
        ("[peak]\nfloat32 = 1", "bandwidth: expected GB/s: a number from 0.001 to 1,000,000, got none"),
        ("bandwidth = 0\n[peak]\nfloat32 = 1", "bandwidth: expected GB/s"),
        ("bandwidth = 1e11\n[peak]\nfloat32 = 1", "got 1e+11; give it in this unit"),
        ("bandwidth = 1e-4\n[peak]\nfloat32 = 1", "got 0.0001"),
        (f"bandwidth = 1{'0' * 400}\n[peak]\nfloat32 = 1", "... (401 characters)"),
        ("bandwidth = 1\nsram = 33554432\n[peak]\nfloat32 = 1", "sram: expected MiB: a number from 0 to 1,000,000, got 33554432"),
        ("bandwidth = 1\nlaunch = 1e308\n[peak]\nfloat32 = 1", "launch: expected microseconds: a number from 0 to 1,000,000"),
        ("bandwidth = 1\n[peak]\nfloat32 = 1e-320", "peak.float32: expected TFLOP/s: a number from 1e-06 to 1,000,000"),
        ("bandwidth = 1\n[peak]\nfloat32 = 1\n[efficiency]\nproducts = 1e-9", "efficiency.products: expected a share of the peak"),
        ("bandwidth = 1\nbandwith = 2\n[peak]\nfloat32 = 1", "bandwith in the file"),
        ("bandwidth = 1", "[peak]: expected TFLOP/s of one of float32"),
        ("bandwidth = 1\n[peak]\nfp32 = 1", "fp32 in [peak]"),
        ("bandwidth = 1\n[peak]\nfloat32 = 0", "peak.float32: expected TFLOP/s"),
        ("bandwidth = 1\n[peak]\nfloat32 = nan", "peak.float32: expected TFLOP/s"),
        ("bandwidth = 1\n[peak]\nfloat32 = true", "got True"),
        ("bandwidth = 1\n[peak]\nfloat32 = 1\n[efficiency]\nproducts = 2", "a share of the peak: a number from 1e-06 to 1, got 2"),
        ("bandwidth = 1\npeak = 3", "peak: expected a table"),
        ("bandwidth = 1\nname = 3\n[peak]\nfloat32 = 1", "name: expected a text"),
        ("bandwidth = 1\nfuse = 3\n[peak]\nfloat32 = 1", "fuse: expected true or false"),
        ("bandwidth = ", "no TOML"),
    ],
)
def test_a_wrong_chip_names_the_key(text, fragment, tmp_path):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UserError) as error:
        load_chip(str(tmp_path / "c.toml"))
    assert fragment in str(error.value) and "\n" not in str(error.value)


def test_what_cannot_be_is_refused_in_one_line(runtime_export, tmp_path):
    model = runtime_export.model
    assert_refused(run_cli("cost", tmp_path / "no.onnx"), "no such file")
    assert_refused(run_cli("cost", model, "--chip", "nothing"), "example-edge, example-server, or a TOML file")
    assert_refused(run_cli("cost", model, "--precision", "fp16"), "--chip with it")
    before = contents(tmp_path)
    assert_refused(run_cli("cost", model, "--chart", tmp_path / "c.gif"), "ends in .png or .svg")
    assert_refused(run_cli("cost", model, "--json", tmp_path), "got a folder")
    ran = run_cli("cost", model, "--json", tmp_path / "x", "--csv", tmp_path / "a/../x")
    line = assert_refused(ran, "another file than that of --json")
    assert "got the same; name two files" in line
    shutil.copy(model, tmp_path / "plain.onnx")
    line = assert_refused(run_cli("cost", tmp_path / "plain.onnx"), "name it with --dialect")
    assert "a command that runs the file needs an array for each input, too (--inputs)" in line
    (tmp_path / "plain.onnx").unlink()
    assert contents(tmp_path) == before
    assert run_cli("cost", model, "--top", "0").status == 2
