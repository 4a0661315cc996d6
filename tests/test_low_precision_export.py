"""`occport export --precision` as a user runs it: the file, its checks and what other commands make of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from exporting import TINY, assert_refused, contents, export, run_cli
from occport.bringup.dumps.formats import load
from occport.bringup.dumps.index import read_index
from occport.export.agreement import PrecisionAgreement, ScaleAgreement
from occport.export.device import Setting
from occport.export.follow import following_samples
from occport.export.low_precision import _places, _scaled, following_allowances, low_network, with_places
from occport.export.spec import from_json, to_json
from occport.export.subject import Subject
from occport.export.verify import Allowance, Sample, sample_of
from occport.graph.model_file import read_skeleton, tensor_of

KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return export(tmp_path_factory.mktemp("half"), "--precision", "fp16")


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    return {info.name: info.type.tensor_type.elem_type for info in (*model.graph.value_info, *model.graph.input, *model.graph.output)}


def test_custom_nodes_and_weights_are_16_bits_and_the_geometry_is_not(half):
    model = read_skeleton(half.model)
    types = types_of(model)
    assert half.model.name == "tiny_UNTRAINED_dl_opset11_fp16_runtime.onnx"
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "MultiScaleDeformableAttnFunction":
            value, places, weights = (node.input[i] for i in (0, 3, 4))
            assert {types[name] for name in (value, weights, node.output[0])} == {TensorProto.FLOAT16}
            assert types[places] == TensorProto.FLOAT and makers[places].op_type == "Add"  # of reference points and offsets
        if node.op_type == "ModulatedDeformConv2d":
            assert types[node.output[0]] == TensorProto.FLOAT16 and types[node.input[1]] == TensorProto.FLOAT16
        if node.name.startswith("projection_"):
            assert TensorProto.FLOAT16 not in {types.get(name) for name in (*node.input, *node.output)}
    kinds = [tensor.data_type for tensor in model.graph.initializer if np.prod(list(tensor.dims)) > 1000]
    assert kinds.count(TensorProto.FLOAT16) > 50 and types["img"] == types["lidar2img"] == TensorProto.FLOAT
    casts = [(node.input[0], node.attribute[0].i) for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == len(set(casts))  # each value once


def test_a_kernel_of_one_type_gets_places_that_are_rounded_once_and_what_that_costs_is_allowed_for(tmp_path):
    made = export(tmp_path, "--precision", "fp16", "--dialect", "tensorrt")
    model = read_skeleton(made.model)
    types, makers = types_of(model), {name: node for node in model.graph.node for name in node.output}
    places = [node.input[3] for node in model.graph.node if node.op_type == "MultiscaleDeformableAttnPlugin_TRT"]
    for name in places:
        assert types[name] == TensorProto.FLOAT16 and makers[name].op_type == "Cast"
        assert types[makers[name].input[0]] == TensorProto.FLOAT and makers[makers[name].input[0]].op_type == "Add"
    subject = Subject(from_json(made.manifest["spec"]), made.model, None)
    assert _places(subject) == set(places)
    rig = np.array(made.manifest["frame"]["lidar2img"], np.float32)[None]
    img = np.random.default_rng(0).normal(size=(1, 4, 3, 64, 96)).astype(np.float32) * 50
    sample = Sample(img, rig, (), np.zeros((1, 3)))
    (more, *_) = with_places(subject, sample, "f", [Allowance(1.0, 1.0, 1.0, 1.0)])
    assert 1 < more.atol < 1.5 and 1 < more.rms < 1.1 and more.noise - 1 == pytest.approx(2 * (more.atol - 1)) and more.share < 1
    runs = [Subject(subject.spec, made.model, None, rounding=how).run(img, rig)["logits_scale3"] for how in (set(places), False)]
    assert more.atol - 1 >= 3 * np.abs(runs[0] - runs[1]).max() > 0


def test_weights_are_those_of_fp32_rounded(half, runtime_export):
    low, exact = read_skeleton(half.model), read_skeleton(runtime_export.model)
    there = {tensor.name for tensor in exact.graph.initializer}
    same = 0
    for tensor in low.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16 and tensor.name in there:
            want = tensor_of(exact, tensor.name, runtime_export.model.parent)
            np.testing.assert_array_equal(tensor_of(low, tensor.name, half.model.parent), want.astype(np.float16))
            same += 1
    assert same > 50


def test_the_manifest_tells_agreement_and_checks(half):
    table = half.manifest
    assert table["spec"]["precision"] == "fp16" and from_json(table["spec"]).precision == "fp16"
    checks = {check["name"]: check for check in table["verification"]}
    agreement = checks["fp16 against fp32"]
    assert agreement["passed"] and 0.9 < agreement["figures"]["agreement_scale3"] <= 1
    exact, low = (checks[f"synthetic, {how}: logits of scale 3"] for how in ("its float32 graph", "rounded to fp16"))
    assert 0 < 100 * exact["figures"]["rms"] < low["figures"]["rms"]
    assert "(atol 0.002, rtol 0.001, rms < 0.0002)" in exact["detail"]  # as strictly as any float32 file
    assert "(against fp32, with 3 times what PyTorch in bf16 loses times 0.125: atol" in low["detail"]
    assert " weights of " in checks["the float32 graph, in fp16"]["detail"] and checks["voxels of each camera"]["passed"]
    rigs = [check["where"] for check in table["verification"] if check["name"] == "rig turned by 20 degrees"]
    assert rigs == ["this file, its float32 graph", "this file"]


def test_a_run_is_rounded_and_a_graph_check_is_not(half):
    spec = from_json(half.manifest["spec"])
    rig = np.array(half.manifest["frame"]["lidar2img"], np.float32)[None]
    img = np.random.default_rng(0).normal(size=spec.input_shapes()["img"][1]).astype(np.float32)
    low, wide = (Subject(spec, half.model, None, rounding=rounding).run(img, rig)["logits_scale3"] for rounding in (True, False))
    np.testing.assert_array_equal(low, low.astype(np.float16).astype(np.float32))
    assert (wide != wide.astype(np.float16)).mean() > 0.9 and np.abs(wide - low).max() < 0.3


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (("--precision", "bf16"), "tiny_UNTRAINED_dl_opset22_bf16_runtime.onnx"),
        (("--precision", "fp16", "--dialect", "standard", "--opset", "20"), "tiny_UNTRAINED_standard_opset20_fp16_runtime.onnx"),
        (("--precision", "bf16", "--dialect", "standard"), "tiny_UNTRAINED_standard_opset22_bf16_runtime.onnx"),
        (("--precision", "fp16", "--calibration", "fixed"), "tiny_UNTRAINED_dl_opset11_fp16_fixed.onnx"),
        (
            ("--precision", "fp16", "--calibration", "tables", "--dialect", "bevformer_tensorrt"),
            "tiny_UNTRAINED_bevformer_tensorrt_opset13_fp16_tables.onnx",
        ),
        (("--precision", "fp16", "--dialect", "mmcv"), "tiny_UNTRAINED_mmcv_opset11_fp16_runtime.onnx"),
    ],
)
def test_every_dialect_and_calibration(flags, name, tmp_path):
    made = export(tmp_path, *flags)
    assert made.model.name == name and all(check["passed"] for check in made.manifest["verification"])
    types = types_of(read_skeleton(made.model))
    assert set(KINDS.values()) & set(types.values()) == {KINDS[flags[1]]}
    for node in read_skeleton(made.model).graph.node:
        if node.op_type == "GridSample":
            assert types[node.input[1]] == TensorProto.FLOAT  # places keep float32 where the operator takes it
        if node.op_type.startswith("MMCV"):
            assert types[node.output[0]] == TensorProto.FLOAT  # kernels without the type
    if "tables" in flags:
        assert not set(KINDS.values()) & set(types_of(read_skeleton(made.geometry)).values())


def test_other_commands_take_such_a_file(half, tmp_path):
    ran = run_cli("verify", half.model)
    assert ran.status == 0 and "fp16 against fp32" in ran.out, ran.err
    assert run_cli("predict", "--model", half.model, "-o", tmp_path / "p").status == 0
    ran = run_cli("evaluate", "--model", half.model, "--against", "torch")
    assert ran.status == 0 and "every result rounded to fp16" in ran.out, ran.err
    ran = run_cli("lint", half.model, "--dialect", "dl", "--precision", "fp16")
    assert ran.status == 0, ran.out
    assert run_cli("lint", half.model, "--dialect", "dl").status == 1
    ran = run_cli("golden", half.model, "-o", tmp_path / "g", "--mark", "custom")
    assert ran.status == 0, ran.err
    index = read_index(tmp_path / "g")
    kinds = {entry.dtype for entry in index.tensors if "::" in entry.op_type}
    assert kinds == {"float16"} and all(load(tmp_path / "g", index, entry).dtype.name == entry.dtype for entry in index.tensors)
    assert run_cli("cost", half.model).status == 0
    assert_refused(run_cli("retarget", half.model, tmp_path / "r.onnx", "--to", "mmcv"), "expected numbers in float32, got some of 16 bits")
    assert_refused(run_cli("vectors", half.model, "-o", tmp_path / "v"), "take the fp32 export's vectors")


def test_what_becomes_of_the_metrics_where_there_is_ground_truth(tmp_path):
    assert run_cli("synth", "-o", tmp_path / "city", "--frames", "1", "--config", TINY).status == 0
    made = export(tmp_path / "out", "--precision", "bf16", "--dialect", "standard", "--frame", f"{tmp_path}/city/infos.pkl:0")
    (check,) = (check for check in made.manifest["verification"] if check["name"] == "metrics in bf16")
    figures = check["figures"]
    assert figures.keys() == {"IoU_fp32", "IoU", "mIoU_fp32", "mIoU"} and 0 < figures["IoU_fp32"] < 1
    assert f"{figures['mIoU'] - figures['mIoU_fp32']:+.5f} (ground truth" in check["detail"]
    scores = tmp_path / "s.json"
    ran = run_cli("evaluate", tmp_path / "city/infos.pkl", "--model", made.model, "--json", scores)
    assert ran.status == 0, ran.err
    assert json.loads(scores.read_text())["mIoU"] == pytest.approx(figures["mIoU"])


def test_dumps_of_such_a_file_are_judged(half, tmp_path):
    """Golden tensors are rounded as on a chip: their own nodes explain them; one channel that is not right is blamed."""
    assert run_cli("golden", half.model, "-o", tmp_path / "g", "--mark", "all").status == 0
    index = read_index(tmp_path / "g")
    conv = next(entry for entry in index.tensors if entry.name.startswith("img_neck_lateral_convs_0_conv_Conv"))
    (tmp_path / "t").mkdir()
    for entry in index.tensors:
        array = np.array(load(tmp_path / "g", index, entry))
        if entry.stage in ("neck", "backbone") and array.dtype == np.float16:
            array = np.nextafter(array, np.float16(0))  # not bit for bit ours
        if entry == conv:
            array[:, 2] *= np.float16(1.25)
        np.save(tmp_path / "t" / entry.file, array)
    ran = run_cli("diff", tmp_path / "g", tmp_path / "t", "--json", tmp_path / "d.json")
    table = json.loads((tmp_path / "d.json").read_text())
    assert ran.status == 1 and table["blamed"][0]["nodes"] == [conv.node], ran.out
    assert table["blamed"][0]["place"] == "channel 2"


def test_a_changed_weight_is_found(half, tmp_path):
    for path in half.model.parent.iterdir():
        shutil.copy(path, tmp_path)
    model = onnx.load(tmp_path / half.model.name)
    tensor = next(one for one in model.graph.initializer if one.name.endswith("pts_bbox_head_deblocks_6_0_weight_zyx"))
    array = onnx.numpy_helper.to_array(tensor).copy()
    array[0, 0] *= np.float16(-3)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, tmp_path / half.model.name)
    ran = run_cli("verify", tmp_path / half.model.name)
    assert ran.status == 1 and "[x] the float32 graph, in fp16 [this file]: weight" in ran.out


def test_an_older_manifest_is_one_of_fp32(runtime_export):
    table = {name: value for name, value in runtime_export.manifest["spec"].items() if name != "precision"}
    assert from_json(table).precision == "fp32"
    spec = from_json(runtime_export.manifest["spec"])
    assert from_json(json.loads(json.dumps(to_json(spec)))) == spec and spec.rounding == ""


def test_what_cannot_be_is_refused_and_nothing_written(tmp_path):
    before = contents(tmp_path)
    flags = ("export", "--config", TINY, "--output-dir", tmp_path / "o", "--precision")
    assert_refused(run_cli(*flags, "bf16", "--opset", "17"), "opset 22, from which on convolutions have bfloat16")
    assert_refused(run_cli(*flags, "fp16", "--functions"), "without --functions")
    assert_refused(run_cli(*flags, "fp16", "--dialect", "standard", "--opset", "11"), "give --opset 20 or higher")
    assert_refused(run_cli(*flags, "fp16", "--dialect", "standard", "--msda", "gather"), "leave --msda and --dcn out")
    assert_refused(run_cli(*flags, "fp16", "--reference-precision", "bf16"), "expected fp32, got a file in fp16")
    assert run_cli(*flags, "fp8").status == 2
    assert contents(tmp_path) == before


def test_allowances_take_the_worst_scale_and_the_roundoff():
    scales = (ScaleAgreement(0, 10, 0, 0.1, 0.01), ScaleAgreement(1, 1000, 80, 0.8, 0.04))
    low = _scaled(PrecisionAgreement("bf16", "f", scales), 1 / 8)
    assert [(one.max_abs, one.rms) for one in low.scales] == [(0.1, 0.005)] * 2
    assert [one.differing for one in low.scales] == [1, 30]  # three times a hundredth of 10, of 1,000


def test_other_rigs_may_differ_by_the_most_that_pytorch_loses_on_any(half, tiny_network):
    model, spec = tiny_network.model, from_json(half.manifest["spec"])
    frame = sample_of(model, spec, tiny_network.loaded.img, tiny_network.loaded.lidar2img)
    others, low = list(following_samples(Setting().ready(model), spec)), low_network(model, spec, Setting())
    allowed = following_allowances(model, spec, "frame", frame, others, Setting())
    each = {name: low.allowances(spec, sample, name) for name, sample in [("frame", frame), *others]}
    assert len(each) == 9 and len(allowed) == 4
    for scale, one in enumerate(allowed):
        found = [allowances[scale] for allowances in each.values()]
        assert (one.atol, one.rms, one.noise) == tuple(max(getattr(own, key) for own in found) for key in ("atol", "rms", "noise"))
        assert one.share == min(own.share for own in found) and one.rms > min(own.rms for own in found)
    assert following_allowances(model, spec, "frame", frame, [], Setting()) == each["frame"]
