"""`occport retarget`: from every dialect to every other, and files of other tools; in front of ONNX Runtime and NumPy."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import foreign_models
from lowering_model import run as run_proto
from occport import cli
from occport.commands import retarget as command
from occport.errors import ModelFileError
from occport.graph import dialect, model_file
from occport.graph.functions import Arithmetics
from occport.graph.model_file import read_skeleton
from occport.graph.retargeting.check import Made, feeds_for
from occport.graph.retargeting.foreign_file import read_foreign
from occport.graph.retargeting.retarget import NOTE, Wish, census, rewrite
from retargeting import convert, custom, options_of, values, write_small
from small_graphs import network, run, with_bodies

TARGETS = dialect.names()
SOURCES = [name for name in TARGETS if name != "standard"]
STANDARD = dialect.load("standard")


@pytest.fixture(scope="module")
def wanted():
    """Inputs of the small network, and what its canonical graph gives for them."""
    model, feeds = network()
    return feeds, run(with_bodies(model, STANDARD), feeds)[0]


@pytest.fixture
def small(tmp_path):
    """Writes the small network in a dialect; returns the path."""
    return partial(write_small, tmp_path)


@pytest.mark.parametrize("origin", SOURCES)
@pytest.mark.parametrize("to", TARGETS)
def test_every_pair(small, wanted, origin, to):
    feeds, want = wanted
    target, result = convert(small(origin), to, origin=origin)
    assert (result.origin, result.to, len(result.checked), result.others) == (origin, to, 3, ())
    assert all(one.passed for one in result.checked)
    np.testing.assert_allclose(values(target, to, feeds), want, rtol=0, atol=2e-5)
    proto = onnx.load(target)
    assert {entry.version for entry in proto.opset_import if entry.domain == ""} == {17}
    assert {entry.domain for entry in proto.opset_import} == {"", *dialect.load(to).domains}
    contracts = [contract for contract in (dialect.load(to).msda, dialect.load(to).dcn) if contract]
    assert {node[1:3] for node in custom(target)} == {(contract.domain, contract.op_type) for contract in contracts}
    assert {one.key: one.value for one in proto.metadata_props}[NOTE] == f"{origin} → {to}"
    used = {name for node in proto.graph.node for name in node.input}
    assert {tensor.name for tensor in proto.graph.initializer} <= used
    assert not [node.name for node in proto.graph.node if not {*node.output} & {*used, *(info.name for info in proto.graph.output)}]


def test_all_the_way_round(small, wanted):
    """dl → tensorrt → mmdeploy → dl: the same custom nodes, the same numbers to the last bit."""
    feeds, _ = wanted
    first = small("dl")
    path = first
    for to in ("tensorrt", "mmdeploy", "dl"):
        path, _ = convert(path, to)
    assert custom(path) == custom(first)
    np.testing.assert_array_equal(values(path, "dl", feeds), values(first, "dl", feeds))
    assert [node.op_type for node in onnx.load(path).graph.node] == [node.op_type for node in onnx.load(first).graph.node]
    assert {one.key: one.value for one in onnx.load(path).metadata_props}[NOTE] == "dl → tensorrt → mmdeploy → dl"


def test_what_is_not_concerned_stays_as_it_is(small):
    source = small("dl")
    proto = onnx.load(source)
    proto.metadata_props.add(key="trained", value="no")
    proto.producer_name = "somebody"
    onnx.save(proto, source)
    target, _ = convert(source, "tensorrt")
    new = onnx.load(target)
    mine = {node[0] for node in custom(source)}
    kept = {node.name: node for node in new.graph.node}
    old = {node.name: node for node in proto.graph.node if node.name not in mine and node.op_type != "Constant"}
    assert {name: (node.op_type, node.input, node.output) for name, node in old.items()} == {
        name: (kept[name].op_type, kept[name].input, kept[name].output) for name in old
    }
    assert (new.graph.input, new.graph.output) == (proto.graph.input, proto.graph.output)
    assert (new.ir_version, new.producer_name) == (proto.ir_version, "somebody")
    assert {one.key: one.value for one in new.metadata_props} == {"trained": "no", NOTE: "dl → tensorrt"}


@pytest.mark.parametrize("opset", [11, 13, 20, 22])
def test_the_opset_stays(small, wanted, opset):
    feeds, want = wanted
    for to in ("bevformer_tensorrt", "standard"):
        target, _ = convert(small("dl", opset), to)
        assert onnx.load(target).opset_import[0].version == opset
        np.testing.assert_allclose(values(target, to, feeds), want, rtol=0, atol=3e-5)


@pytest.mark.parametrize(
    ("arithmetics", "operators"),
    [
        (Arithmetics(), {"GridSample", "DeformConv"}), (Arithmetics("gather", "gather"), set()),
        (Arithmetics("gridsample", "gridsample"), {"GridSample"}), (Arithmetics("gather", "deformconv"), {"DeformConv"}),
    ],
)  # fmt: skip
def test_arithmetic_of_the_standard_dialect(small, wanted, arithmetics, operators):
    feeds, want = wanted
    target, _ = convert(small("tensorrt", 20), "standard", arithmetics=arithmetics)
    proto = onnx.load(target)
    assert {node.op_type for node in proto.graph.node} & {"GridSample", "DeformConv"} == operators
    onnx.checker.check_model(proto, full_check=True)
    np.testing.assert_allclose(run_proto(proto, feeds)[0], want, rtol=0, atol=3e-5)


def test_functions_go_and_come(small, wanted):
    feeds, want = wanted
    first, _ = convert(small("tensorrt"), "dl", functions=True)
    assert sorted(one.name for one in onnx.load(first).functions) == ["ModulatedDeformConv2d", "MultiScaleDeformableAttnFunction"]
    np.testing.assert_allclose(run_proto(onnx.load(first), feeds)[0], want, rtol=0, atol=3e-5)
    second, _ = convert(first, "mmdeploy")
    assert not onnx.load(second).functions


def test_a_dialect_of_the_users_own(small, wanted, tmp_path):
    """Another target's file and its description, both ways."""
    feeds, want = wanted
    own = tmp_path / "own.toml"
    names = '[msda]\ndomain = "own"\nop_type = "Attend"\n[dcn]\ndomain = "own"\nop_type = "Bend"\n'
    own.write_text(f'base = "ascend"\nname = "own"\n{names}')
    target, _ = convert(small("dl"), str(own))
    assert {node[1:3] for node in custom(target)} == {("own", "Attend"), ("own", "Bend")}
    back, result = convert(target, "dl", origin=str(own))
    assert result.origin == "own"
    np.testing.assert_allclose(values(back, "dl", feeds), want, rtol=0, atol=2e-5)
    with pytest.raises(ModelFileError, match=r"custom nodes of a known dialect, got own::Attend, own::Bend; give --from a \.toml file"):
        convert(target, "dl")


FOREIGN = {
    "mmdeploy": (foreign_models.mmdeploy(), SOURCES),
    "bevformer, 1 reference": (foreign_models.bevformer(1), SOURCES),
    "bevformer, 4 references": (foreign_models.bevformer(4), SOURCES),
    "bevformer, 2 references, 2 levels": (foreign_models.bevformer(2, ((3, 4), (2, 5))), SOURCES),
    "dl": (foreign_models.dl(), ["dl", "tensorrt", "mmdeploy"]),
    "dl, int32 scalars of rank 1": (foreign_models.dl(dtype="int32", rank=1), ["dl", "ascend"]),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_tools_against_a_numpy_loop(tmp_path, name):
    file, targets = FOREIGN[name]
    path = tmp_path / "in.onnx"
    onnx.save(file.model, path)
    for to in ["standard", *targets]:
        target, _ = convert(path, to)
        shown = target if to == "standard" else convert(target, "standard", origin=to)[0]
        np.testing.assert_allclose(run_proto(onnx.load(shown), file.feeds)[0], file.want, rtol=0, atol=5e-6, err_msg=to)
        shapes = {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in onnx.load(target).graph.output}
        assert shapes == {"out": list(file.want.shape)}


def test_the_attribute_of_the_other_name_is_translated(tmp_path):
    """Plugins take their defaults for names that they do not know."""
    file = foreign_models.mmdeploy()
    onnx.save(file.model, tmp_path / "in.onnx")
    target, _ = convert(tmp_path / "in.onnx", "tensorrt")
    second = next(node for node in custom(target) if node[2] == "ModulatedDeformConv2d" and node[5] == ["y2"])
    assert second[4] == {"stride": [2, 1], "padding": [1, 1], "dilation": [1, 1], "group": 2, "deformable_group": 1}


def test_weights_in_a_file_of_their_own(small, wanted, tmp_path):
    feeds, want = wanted
    source = small("dl")
    onnx.save(onnx.load(source), tmp_path / "apart.onnx", save_as_external_data=True, location="apart.bin", size_threshold=0)
    target, result = convert(tmp_path / "apart.onnx", "mmdeploy", external_data=True)
    assert [path.name for path in result.files] == [target.name, f"{target.name}.data"]
    np.testing.assert_allclose(values(target, "mmdeploy", feeds), want, rtol=0, atol=2e-5)
    (tmp_path / "apart.bin").unlink()
    with pytest.raises(ModelFileError, match=r"apart\.bin: expected .* got no such file"):
        convert(tmp_path / "apart.onnx", "tensorrt")


HUGE = 2**31 + 2**20  # bytes


def huge(folder: Path) -> Path:
    """The dl file with a weight of more than 2 GiB in a file that is a hole, taken by a node of its own."""
    file = foreign_models.dl()
    tensor = onnx.TensorProto(name="huge", data_type=1, dims=[HUGE // 4], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", "huge.bin"), ("offset", "0"), ("length", str(HUGE))):
        tensor.external_data.add(key=key, value=value)
    file.model.graph.initializer.append(tensor)
    file.model.graph.node.append(helper.make_node("Shape", ["huge"], ["size"], name="size"))
    file.model.graph.output.append(helper.make_tensor_value_info("size", onnx.TensorProto.INT64, [1]))
    with (folder / "huge.bin").open("wb") as hole:
        hole.truncate(HUGE)
    onnx.save(file.model, folder / "huge.onnx")
    return folder / "huge.onnx"


def test_more_than_two_gigabytes_stay_on_disk(tmp_path):
    """Everything up to the writing, which would fill the hole."""
    foreign = read_foreign(huge(tmp_path), None)
    model = ir.from_proto(foreign.model)
    rewrite(model, foreign, dialect.load("tensorrt"), Wish("tensorrt"))
    assert isinstance(model.graph.initializers["huge"].const_value, ir.ExternalTensor)
    assert [node.op_type for node in model.graph] == ["MultiscaleDeformableAttnPlugin_TRT", "Reshape", "Shape"]


def test_what_is_too_big_for_one_file_becomes_two(small, monkeypatch):
    monkeypatch.setattr(model_file, "MAX_FILE", 1000)
    target, result = convert(small("dl"), "tensorrt")
    assert [path.name for path in result.files] == [target.name, f"{target.name}.data"]


def test_a_second_output_that_nobody_reads_goes(small, tmp_path):
    proto = onnx.load(small("ascend"))
    next(one for one in proto.graph.node if one.op_type == "NPUDeformableConv2d").output.append("second")
    onnx.save(proto, tmp_path / "in.onnx")
    target, _ = convert(tmp_path / "in.onnx", "ascend")
    assert all(len(node[5]) == 1 for node in custom(target))


def test_reshapes_do_not_pile_up(small, wanted):
    """There and back between targets that flatten and one that does not."""
    feeds, _ = wanted
    first, counts = small("bevformer_tensorrt"), []
    path = first
    for to in ("mmdeploy", "bevformer_tensorrt") * 2:
        path, _ = convert(path, to)
        counts.append(sum(node.op_type == "Reshape" for node in onnx.load(path).graph.node))
    assert counts[:2] == counts[2:]
    np.testing.assert_array_equal(values(path, "bevformer_tensorrt", feeds), values(first, "bevformer_tensorrt", feeds))


def test_values_of_one_role_get_different_numbers():
    """x and y of the offsets, exchanged by mistake, must not give the same output."""
    made: Made = {}
    feeds = feeds_for({"x": (2, 3), "y": (2, 3), "mask": (2, 3)}, {"x": "offset", "y": "offset", "mask": "mask"}, made)
    assert not np.array_equal(feeds["x"], feeds["y"])
    assert feeds["mask"].min() >= 0 and feeds["mask"].max() < 1
    again = feeds_for({"b": (2, 3), "a": (2, 3)}, {"a": "offset", "b": "offset"}, made)
    assert again["a"] is feeds["x"] and again["b"] is feeds["y"]


def test_the_command_tells_the_worst_node(small, capsys):
    source = small("dl")
    assert cli.run(command.run, options_of(str(source), str(source.with_name("out.onnx")), "--to", "tensorrt")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "dl → tensorrt"
    assert lines[1] == "1 x DL::ModulatedDeformConv2d: the same to the last bit"
    assert lines[2].startswith("2 x DL::MultiScaleDeformableAttnFunction")
    assert lines[3].startswith(f"{source.with_name('out.onnx')}  ")
    assert cli.run(command.run, options_of(str(source), str(source.with_name("out2.onnx")), "--to", "nobody")) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_worst_is_the_one_nearest_to_its_tolerance(small):
    _, result = convert(small("dl"), "tensorrt")
    first, second, third = result.checked
    spoiled = (first._replace(share=0.0), second._replace(share=1e-7), third._replace(share=2e-7))
    exact, worst = census(spoiled)
    assert exact == "1 x DL::ModulatedDeformConv2d: the same to the last bit"
    assert worst.startswith(f"2 x DL::MultiScaleDeformableAttnFunction, worst {third.node}: 2.0e-07 of the range at [")


def test_without_torch(small):
    """The whole command, in a Python that has no torch."""
    source = small("dl")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import argparse\n"
        "from occport.commands import retarget\n"
        "parser = argparse.ArgumentParser(); retarget.add_arguments(parser)\n"
        f"sys.exit(retarget.run(parser.parse_args([{str(source)!r}, {str(source.with_name('out.onnx'))!r}, '--to', 'tensorrt'])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1] / "src")
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    assert read_skeleton(source.with_name("out.onnx")).graph.node
