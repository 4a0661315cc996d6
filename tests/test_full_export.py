"""At full size, minutes each: `make test-full`."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import pytest

from exporting import MICRO, export
from occport.config import read_config
from occport.export.graph_files import write_graphs
from occport.export.report import Report
from occport.export.request import Request, file_name, load_input, make_spec
from occport.export.subject import Subject
from occport.export.verify import check_file
from occport.export.weights import load_model

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("full")]  # one at a time: 7 GB each
FRAME = Path(__file__).resolve().parents[2] / "shared/data/nuscenes_frame"
OFFICIAL = ("surroundocc", "surroundocc_inference", "surroundocc_nosemantic")
FORBIDDEN = {"NonZero", "ScatterND", "If", "Loop", "Scan"}


def official(name: str) -> Path:
    return MICRO.with_name(f"{name}.py")


@pytest.mark.skipif(not FRAME.exists(), reason="the real nuScenes frame is not here")
@pytest.mark.parametrize(("flags", "most"), [([], 1300), (["--opset", "17", "--functions"], 900)])
def test_export_on_the_real_frame(flags, most, tmp_path):
    """Every check at full size, on real images and a real calibration."""
    made = export(tmp_path / "out", "--frame", FRAME, *flags, config=official("surroundocc"))
    graph = made.skeleton.graph
    kinds = Counter((node.domain, node.op_type) for node in graph.node)
    assert kinds["DL", "ModulatedDeformConv2d"] == 26 and kinds["DL", "MultiScaleDeformableAttnFunction"] == 10
    assert len(graph.node) <= most and made.manifest["nodes"] == len(graph.node)
    assert not FORBIDDEN & {op_type for _, op_type in kinds}
    sizes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in (*graph.input, *graph.output)]
    assert sizes[0] == [1, 6, 3, 928, 1600] and sizes[-2:] == [[1, 200, 200, 16], [1, 3]]
    assert all(check["passed"] for check in made.manifest["verification"])
    assert [check["where"] for check in made.manifest["verification"]].count("micro sizes") >= 8
    made.model.unlink()


@pytest.mark.parametrize("calibration", ["runtime", "tables", "fixed"])
@pytest.mark.parametrize("name", OFFICIAL)
def test_form_of_every_official_config(name, calibration, tmp_path):
    """Traced at full size and checked field by field, without a run."""
    request = Request(config=read_config(official(name)), calibration=calibration)
    loaded = load_input(request.config, None)
    spec = make_spec(request, loaded)
    model, weights, _ = load_model(spec.config, None, 0)
    files = write_graphs(model, spec, loaded.lidar2img, tmp_path, file_name(spec, trained=False), weights)
    del model
    gc.collect()
    subject, report = Subject(spec, files["model"], files.get("geometry")), Report(lambda line: None)
    assert check_file(subject, report), report.failures
    graph = subject.skeleton.graph
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["ModulatedDeformConv2d"] == 26 and kinds["MultiScaleDeformableAttnFunction"] == 10
    assert not FORBIDDEN & set(kinds)
    constants = {tensor.name for tensor in graph.initializer}  # Resize at opset 11 has an empty one
    for value in (*graph.input, *graph.output, *(value for value in graph.value_info if value.name not in constants)):
        assert all(dim.HasField("dim_value") and dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim), value.name
    files["model"].unlink()
