"""The edge cases in every dialect's form, run in ONNX Runtime, and the reasons for those that are left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from occport.graph import dialect as dialects
from occport.graph.attributes import Window
from occport.graph.contract import Limit
from occport.graph.port_arrays import lower_output
from occport.kit.cases.case import check
from occport.kit.cases.golden import golden
from occport.kit.vectors.allowance import broken_limit
from occport.kit.vectors.dialect_cases import edge_node_cases, letters_of, window_of
from occport.kit.vectors.edge_cases import edge_cases
from occport.kit.vectors.place import size_of
from vector_files import WITH_NODES, assert_right, contract_of, small_file, write

DL = dialects.load("dl")


def all_names(operator: str) -> set[str]:
    return {case.name for case in edge_cases(operator)}


@pytest.mark.parametrize("name", WITH_NODES)
def test_every_edge_case_of_a_dialect_is_right_in_onnx_runtime_or_left_out(name, tmp_path):
    dialect = dialects.load(name)
    path, _ = small_file(tmp_path, name)
    written = write(path, tmp_path / "v", dialect=name, cases="edge")
    names = [record.name for record in written.records] + [one.name for one in written.left_out]
    assert len(names) == len(set(names)) and set(names) == all_names("msda") | all_names("dcn")
    for record in written.records:
        assert record.source == "edge"
        if contract_of(dialect, record).domain and record.name.endswith(("plain", "levels")):
            onnx.checker.check_model(onnx.load(tmp_path / "v" / record.name / "model.onnx"), full_check=True)
        assert_right(tmp_path / "v", record, dialect)
    assert written.size == size_of(tmp_path / "v") < 8 * 2**20


@pytest.mark.parametrize("name", WITH_NODES)
def test_ports_are_as_the_contract_says_and_quantities_come_from_them(name):
    found, _ = edge_node_cases(dialects.load(name))
    for made in found:
        check(made.case)
        for port in made.contract.inputs:
            if port.name in made.ports:
                assert made.ports[port.name].dtype == np.dtype(port.dtype) and made.ports[port.name].ndim == port.rank
            else:
                assert port.optional
        right = golden(made.case)
        assert lower_output(made.contract, right, made.case.quantities).ndim == made.contract.output.rank


def reasons(dialect) -> dict[str, str]:
    return {one.name: one.reason for one in edge_node_cases(dialect)[1]}


def test_dl_says_everything():
    assert reasons(DL) == {}


def test_several_levels_do_not_share_reference_points():
    left_out = reasons(dialects.load("bevformer_tensorrt"))
    assert left_out.keys() == {f"msda_edge_{name}" for name in ("levels", "one_channel", "one_pixel", "one_row")}
    assert set(left_out.values()) == {"MultiScaleDeformableAttnTRT cannot hold reference_points_shared of this case"}


def test_limits_leave_cases_out():
    left_out = reasons(dialects.load("mmdeploy"))
    assert {"dcn_edge_stride", "dcn_edge_dilation", "dcn_edge_padding_uneven"} <= left_out.keys()
    assert "dcn_edge_plain" not in left_out and "dcn_edge_padding_zero" not in left_out
    why = "the TensorRT plugin reads one number for both directions"
    assert left_out["dcn_edge_stride"] == f"mmdeploy::MMCVModulatedDeformConv2d takes unevenness at most 0, got 1 ({why})"
    assert "channels_per_group a multiple of 2, got 3" in reasons(dialects.load("bevformer_tensorrt_trt2"))["dcn_edge_stride"]


def test_attributes_that_cannot_say_a_window_leave_cases_out():
    assert DL.dcn is not None
    short = tuple(one for one in DL.dcn.attributes if one.name != "deform_groups")
    left_out = reasons(replace(DL, dcn=replace(DL.dcn, attributes=short)))
    assert left_out == {
        "dcn_edge_deform_groups": "the attributes of DL::ModulatedDeformConv2d cannot say deform_groups 2",
        "dcn_edge_both_groups": "the attributes of DL::ModulatedDeformConv2d cannot say deform_groups 4",
    }


def test_cases_are_repeated_until_a_kernel_with_least_sizes_takes_them():
    found, left_out = edge_node_cases(dialects.load("ascend"))
    assert left_out == []
    plain = next(made for made in found if made.case.name == "msda_edge_plain")
    assert plain.ports["value"].shape == (2, 48, 2, 8) and plain.ports["attention_weights"].shape == (2, 32, 2, 1, 4)
    assert plain.case.what.endswith("(repeated to 32 queries and 8 channels a head, which npu::MultiScaleDeformableAttn needs)")
    original = next(case for case in edge_cases("msda") if case.name == "msda_edge_plain")
    whole = golden(plain.case).reshape(2, 32, 2, 8)
    np.testing.assert_array_equal(whole[:, :5, :, :3], golden(original).reshape(2, 5, 2, 3))
    np.testing.assert_array_equal(whole[:, 5:10, :, 3:6], golden(original).reshape(2, 5, 2, 3))


def test_a_limit_that_nothing_meets_leaves_the_case_out():
    assert DL.msda is not None
    limits = (Limit("head_width", multiple_of=8, at_most=4),)
    left_out = reasons(replace(DL, msda=replace(DL.msda, limits=limits)))
    assert left_out.keys() == all_names("msda")
    assert "takes head_width a multiple of 8 and at most 4, got 3" in left_out["msda_edge_plain"]


def test_limits_of_other_dtypes_do_not_count():
    assert DL.msda is not None
    case = edge_cases("msda")[0]
    ports = {name: array for name, array in case.quantities.items() if name in [port.name for port in DL.msda.inputs]}
    letters = letters_of(DL.msda, ports, None)
    assert {key: letters[key] for key in "AQMDLP"} == {"A": 2, "Q": 5, "M": 2, "D": 3, "L": 1, "P": 4}
    for dtype, broken in (("int8", False), ("float16", False), ("float32", True), ("", True)):
        contract = replace(DL.msda, limits=(Limit("points", multiple_of=3, dtype=dtype),))
        assert bool(broken_limit(contract, "msda", letters, None)) == broken


def test_windows_of_cases():
    by_name = {case.name: case for case in edge_cases("dcn")}
    assert window_of(by_name["dcn_edge_stride"]) == Window((3, 3), (2, 3), (1, 1), (1, 1), 1, 1)
    assert window_of(by_name["dcn_edge_row_kernel"]).kernel == (1, 3)
