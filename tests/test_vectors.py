"""The folder of vectors: from an export and from other files, in every dialect, held against ONNX Runtime and torch."""

from __future__ import annotations

import argparse
import json

import numpy as np
import onnx
import pytest
import torch

from exporting import contents
from occport.cli import run
from occport.commands import vectors as command
from occport.errors import ExportError, FrameError, ModelFileError
from occport.export.spec import from_json
from occport.export.subject import Subject
from occport.graph import dialect as dialects
from occport.graph.port_arrays import raise_arrays
from occport.kit.cases.folder import read_case
from occport.kit.cases.record import read_index
from occport.kit.grading.grade import grade
from occport.kit.vectors.place import size_of
from occport.ops import deform_conv as dcn_op
from occport.ops import msda as msda_op
from vector_files import WITH_NODES, assert_right, backend_test, contract_of, ports_on_disk, run_case, small_file, write

DL = dialects.load("dl")
ROOM = 3_000_000


@pytest.fixture(scope="module")
def network_vectors(runtime_export, tmp_path_factory):
    """Of the tiny export, all cases, in little room."""
    folder = tmp_path_factory.mktemp("vectors") / "dl"
    return folder, write(runtime_export.model, folder, max_bytes=ROOM)


def in_torch(record, quantities) -> np.ndarray:
    """The operator of occport.ops in float64."""
    tensors = {name: torch.from_numpy(array.astype(np.float64)) for name, array in quantities.items() if array.dtype.kind == "f"}
    if record.operator == "dcn":
        inputs = [tensors[name] for name in ("input", "offset", "mask", "weight")]
        window = [record.attributes[name] for name in ("stride", "padding", "dilation", "groups", "deform_groups")]
        return dcn_op.reference(*inputs, tensors.get("bias"), *window).numpy()
    flat = quantities["spatial_shapes"].ravel().tolist()
    return msda_op.sample_weighted(tensors["value"], flat, tensors["sampling_locations"], tensors["attention_weights"]).numpy()


def test_every_case_of_an_export_is_complete_and_right(network_vectors):
    folder, written = network_vectors
    assert read_index(folder).records == written.records and written.left_out == ()
    assert [record.operator for record in written.records if record.source != "edge"] == ["dcn"] * 3 + ["msda"] * 4
    for record in written.records:
        model, feeds, output = backend_test(folder / record.name)
        onnx.checker.check_model(model, full_check=False)
        (node,) = (node for node in model.graph.node if node.op_type != "Constant")
        assert (node.name, node.op_type) == (record.name, contract_of(DL, record).op_type)
        ports = ports_on_disk(folder, record)
        assert [port.name for port in record.inputs if port.graph_input] == list(feeds)
        for name, array in feeds.items():
            np.testing.assert_array_equal(array, ports[name])
            assert (folder / record.name / f"raw/{name}.bin").read_bytes() == array.tobytes()
        golden = np.load(folder / record.name / "npy/golden.npy")
        np.testing.assert_array_equal(output, golden.astype(np.float32))
        assert_right(folder, record, DL)


def test_golden_values_are_those_of_torch_in_float64(network_vectors):
    folder, written = network_vectors
    for record in written.records:
        quantities = raise_arrays(contract_of(DL, record), ports_on_disk(folder, record))
        want = in_torch(record, quantities)
        if "huge" not in record.name:  # grid_sample loses places of 1e30
            golden = np.load(folder / record.name / "npy/golden.npy").reshape(want.shape)
            np.testing.assert_allclose(golden, want, rtol=1e-9, atol=1e-9 * max(1, np.abs(want).max()), err_msg=record.name)


def test_cases_can_be_read_back_with_the_contracts_of_the_index(network_vectors):
    folder, written = network_vectors
    table = json.loads((folder / "index.json").read_text())
    assert table["contracts"] == {name: dialects.to_table(DL)[name] for name in ("msda", "dcn")}
    assert table["run_on"] == "frame synthetic" and table["seed"] == 0 and table["left_out"] == []
    for record in written.records:
        stored = read_case(folder, record, lambda record, ports: raise_arrays(contract_of(DL, record), ports))
        assert stored.golden.size == np.prod(record.shape)


def test_cases_are_parts_of_what_the_network_computes(network_vectors, runtime_export):
    """The node's own output in a run of the whole file, at the sampled image, queries, heads and channels."""
    folder, written = network_vectors
    spec = from_json(runtime_export.manifest["spec"])
    subject = Subject(spec, runtime_export.model, None)
    outputs = {node.name: node.output[0] for node in subject.skeleton.graph.node}
    infos = {info.name: info for info in subject.skeleton.graph.value_info}
    cases = [record for record in written.records if record.source != "edge"]
    subject.skeleton.graph.output.extend(infos[outputs[record.source]] for record in cases)
    from occport.export.request import load_input

    loaded = load_input(spec.config, None, 0)
    got = subject.run(loaded.img, loaded.lidar2img)
    for record in cases:
        whole, facts = got[outputs[record.source]], record.facts["sampling"]
        golden = np.load(folder / record.name / "npy/golden.npy")
        if record.operator == "msda":
            queries = np.load(folder / record.name / "sampled_queries.npy")
            assert len(queries) == facts["queries"]["taken"] == record.shape[1] and facts["queries"]["of"] == whole.shape[1]
            heads = whole.reshape(*whole.shape[:2], facts["heads"]["of"], -1)[facts["image"], queries]
            want = heads[:, : facts["heads"]["taken"], : facts["head_channels"]["taken"]].reshape(golden.shape[1:])
        else:
            rows, columns = (slice(facts[side]["from"], facts[side]["from"] + facts[side]["taken"]) for side in ("rows", "columns"))
            want = whole[facts["image"], : facts["out_channels"]["taken"], rows, columns]
            if facts["taps_masked"]:
                mask = np.load(folder / record.name / "npy/mask.npy")[0]
                want, golden = want[:, (mask > 0).all(0)], golden[:, :, (mask > 0).all(0)]
        np.testing.assert_allclose(golden[0], want, rtol=0, atol=2e-4 * np.abs(whole).max(), err_msg=record.name)


def test_room_is_kept_and_used(network_vectors, runtime_export, tmp_path):
    folder, written = network_vectors
    assert written.size == size_of(folder) <= ROOM
    assert written.size > 0.6 * ROOM
    more = write(runtime_export.model, tmp_path / "more", max_bytes=2 * ROOM, cases="network")
    assert written.size < more.size <= 2 * ROOM and len(more.records) == 7
    sizes = {record.source: np.prod(record.shape) for record in written.records}
    assert all(np.prod(record.shape) >= sizes[record.source] for record in more.records)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(network_vectors, runtime_export, tmp_path):
    folder, _ = network_vectors
    write(runtime_export.model, tmp_path / "again", max_bytes=ROOM)
    one = contents(folder)
    assert contents(tmp_path / "again") == one
    write(runtime_export.model, tmp_path / "other", max_bytes=ROOM, seed=1, cases="network")
    other = contents(tmp_path / "other")
    changed = {name for name in one if one[name] != other.get(name, one[name])}
    assert any(name.startswith("msda_pts") for name in changed)


def test_functions_in_the_models_run_in_stock_onnx_runtime(functions_export, tmp_path):
    written = write(functions_export.model, tmp_path / "v", max_bytes=ROOM, functions=True)
    for record in written.records:
        model = onnx.load(tmp_path / "v" / record.name / "model.onnx")
        assert len(model.functions) == 1 and model.ir_version >= 8
        onnx.checker.check_model(model)
        assert_right(tmp_path / "v", record, None)
    assert written.size <= ROOM


@pytest.mark.parametrize("name", WITH_NODES)
def test_every_dialect_from_a_file_of_another_tool(name, tmp_path):
    dialect = dialects.load(name)
    path, inputs = small_file(tmp_path, name)
    written = write(path, tmp_path / "v", dialect=name, inputs=inputs, cases="network")
    assert [record.operator for record in written.records] == ["dcn", "msda", "msda"]
    for record in written.records:
        model = onnx.load(tmp_path / "v" / record.name / "model.onnx")
        contract = contract_of(dialect, record)
        (node,) = (node for node in model.graph.node if node.op_type != "Constant")
        assert (node.domain, node.op_type) == (contract.domain, contract.op_type)
        assert {attribute.name for attribute in node.attribute} == {attribute.name for attribute in contract.attributes}
        imports = {entry.domain: entry.version for entry in model.opset_import}
        assert imports == {"": dialect.opset, **({contract.domain: contract.version} if contract.domain else {})}
        assert model.ir_version == onnx.load(path).ir_version
        assert_right(tmp_path / "v", record, dialect)
        facts = record.facts["sampling"]
        assert facts["images"] == 2 and facts["image"] in (0, 1)
    text = (tmp_path / "v/README.txt").read_text()
    assert contract.title in text and "the arrays in" in text


def test_edge_cases_alone_need_no_run(tmp_path):
    path, _ = small_file(tmp_path, "dl")
    written = write(path, tmp_path / "v", dialect="dl", cases="edge")
    assert {record.source for record in written.records} == {"edge"} and len(written.records) > 30
    assert "from a network" not in (tmp_path / "v/README.txt").read_text().split("Cases\n")[1]


def test_earlier_vectors_are_replaced_and_nothing_else_is(tmp_path):
    path, inputs = small_file(tmp_path, "dl")
    write(path, tmp_path / "v", dialect="dl", inputs=inputs)
    mine = tmp_path / "v/dcn_edge_plain/mine.npy"
    mine.write_bytes(b"kept")
    other, other_inputs = small_file(tmp_path, "ascend")
    written = write(other, tmp_path / "v", dialect="ascend", inputs=other_inputs, cases="network")
    write(other, tmp_path / "fresh", dialect="ascend", inputs=other_inputs, cases="network")
    assert mine.read_bytes() == b"kept"
    mine.unlink()
    mine.parent.rmdir()
    assert contents(tmp_path / "v") == contents(tmp_path / "fresh")
    assert read_index(tmp_path / "v").records == written.records


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    path, _ = small_file(tmp_path, "dl")
    for place, got in (("full", "other files in it"), ("file", "a file")):
        with pytest.raises(ExportError, match=f"one of earlier vectors, got .*{got}.*choose another with -o"):
            write(path, tmp_path / place, dialect="dl", cases="edge")
    assert [one.name for one in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_too_few_bytes_say_how_many_are_needed_and_write_nothing(tmp_path):
    path, inputs = small_file(tmp_path, "dl")
    with pytest.raises(ExportError, match=r"--max-bytes 1000: expected at least (\d+); raise it, or give fewer --cases") as error:
        write(path, tmp_path / "v", dialect="dl", inputs=inputs, max_bytes=1000)
    assert not (tmp_path / "v").exists()
    needed = int(str(error.value.expected).split()[-1])
    assert write(path, tmp_path / "v", dialect="dl", inputs=inputs, max_bytes=needed).size <= needed
    with pytest.raises(ExportError, match=r"--max-bytes 1000: expected at least \d+; raise it$"):
        write(path, tmp_path / "w", dialect="dl", max_bytes=1000, cases="edge")


def test_bodies_cannot_be_in_the_empty_domain(tmp_path):
    path, _ = small_file(tmp_path, "tensorrt")
    with pytest.raises(ExportError, match="--functions: expected a dialect whose nodes have a domain, got tensorrt"):
        write(path, tmp_path / "v", dialect="tensorrt", functions=True)


def test_frames_and_arrays_are_refused_where_nothing_is_run(tmp_path):
    path, inputs = small_file(tmp_path, "dl")
    with pytest.raises(FrameError, match="--frame with --cases edge: expected neither frame nor inputs; leave --frame out"):
        write(path, tmp_path / "v", dialect="dl", frame="x", cases="edge")
    with pytest.raises(FrameError, match=r"--inputs with --cases edge: .*leave --inputs out"):
        write(path, tmp_path / "v", dialect="dl", inputs=inputs, cases="edge")


def test_infinite_activations_are_told(tmp_path):
    path, inputs = small_file(tmp_path, "dl")
    np.save(inputs / "img.npy", np.full_like(np.load(inputs / "img.npy"), np.inf))
    with pytest.raises(ModelFileError, match=r"activations of \w+, input: expected finite numbers, got inf or nan; give"):
        write(path, tmp_path / "v", dialect="dl", inputs=inputs, cases="network")
    assert not (tmp_path / "v").exists()


def parsed(*arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def test_command(tmp_path, capsys):
    path, inputs = small_file(tmp_path, "bevformer_tensorrt")
    flags = ("--dialect", "bevformer_tensorrt", "--inputs", inputs, "--max-bytes", ROOM, "--seed", 3)
    assert run(command.run, parsed(path, "-o", tmp_path / "v", *flags)) == 0
    said = capsys.readouterr()
    assert "left out msda_edge_levels: MultiScaleDeformableAttnTRT cannot hold reference_points_shared" in said.out
    index = json.loads((tmp_path / "v/index.json").read_text())
    assert "3 from the network" in said.out and f"{len(index['cases'])} cases" in said.out
    assert [one["name"] for one in index["left_out"]] and index["seed"] == 3 and "Traceback" not in said.err
    assert run(command.run, parsed(tmp_path / "none.onnx", "-o", tmp_path / "w")) == 2
    line = f"occport: model file {tmp_path / 'none.onnx'}: expected an ONNX file, got no such file; check the path"
    assert capsys.readouterr().err.splitlines()[-1] == line


@pytest.mark.parametrize(("flags", "message"), [
    (("--max-bytes", "0"), "expected a number of bytes, got '0'"),
    (("--max-bytes", "1GB"), "expected a number of bytes, got '1GB'"),
    (("--seed", "-1"), "expected a whole number from 0 on, got '-1'"),
    (("--cases", "some"), "invalid choice"),
])  # fmt: skip
def test_wrong_flags(flags, message, capsys):
    with pytest.raises(SystemExit):
        parsed("m.onnx", "-o", "v", *flags)
    assert message in capsys.readouterr().err


def test_nothing_but_the_cases_stands_in_the_folder(network_vectors):
    folder, written = network_vectors
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert {path.name for path in folder.iterdir()} == {*(record.name for record in written.records), "index.json", "README.txt"}


def test_a_right_kernel_passes_the_grading(network_vectors, tmp_path):
    folder, written = network_vectors
    for record in written.records:
        np.save(tmp_path / f"{record.name}.npy", run_case(folder / record.name, DL))
    report = grade(folder, tmp_path)
    assert report.passed and len(report.cases) == len(written.records)
