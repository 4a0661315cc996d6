"""Every pair of dialect, opset, calibration, form and boundary: structure by lint, numbers by ONNX Runtime against PyTorch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporting import MICRO, seeded_network
from occport.errors import ExportError
from occport.export import build
from occport.export.graph_files import write_graphs
from occport.export.report import Report
from occport.export.subject import Subject
from occport.export.verify import check_file, check_sample, sample_of
from occport.export.weights import Weights
from occport.graph import dialect as dialects
from occport.graph.functions import Arithmetics
from occport.graph.rewrite import OPSETS, check_target
from pairwise import rows

FORMS = {
    "nodes": (False, Arithmetics()),
    "functions": (True, Arithmetics()),
    "functions, gather": (True, Arithmetics("gather", "gather")),
    "gridsample": (False, Arithmetics("gridsample", "gridsample")),
    "gather": (False, Arithmetics("gather", "gather")),
    "gather, deformconv": (False, Arithmetics("gather", "deformconv")),
    "gridsample, gather": (False, Arithmetics("gridsample", "gather")),
    "gather, gridsample": (False, Arithmetics("gather", "gridsample")),
}
FACTORS = {
    "dialect": dialects.names(),
    "opset": list(OPSETS),
    "calibration": ["runtime", "tables", "fixed"],
    "form": list(FORMS),
    "img": [5, 4],
}


def possible(row) -> bool:
    """What `check_target` lets through."""
    name, opset, _, form, _ = row
    functions, arithmetics = FORMS[form]
    try:
        check_target(dialects.load(name), opset, functions, arithmetics)
    except ExportError:
        return False
    return True


ROWS = rows(FACTORS, possible)


def test_the_rows_hold_every_dialect_with_every_opset():
    assert {row[:2] for row in ROWS} == {(name, opset) for name in dialects.names() for opset in OPSETS}
    assert {row[3] for row in ROWS} == set(FORMS)
    assert len(ROWS) < 1.5 * len(dialects.names()) * len(OPSETS)


@pytest.fixture(scope="module")
def network():
    """The micro network."""
    return seeded_network(MICRO)


@pytest.fixture(scope="module")
def sample(network):
    """What PyTorch makes of the frame; the same for every row."""
    return sample_of(network.model, network.spec, network.loaded.img, network.loaded.lidar2img)


@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.xdist_group(f"pairs {i % 2}")) for i, row in enumerate(ROWS)], ids=str)
def test_a_row(row, network, traces, sample, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "trace", traces)
    name, opset, calibration, form, img_rank = row
    functions, arithmetics = FORMS[form]
    spec = replace(
        network.spec, dialect=dialects.load(name), opset=opset, calibration=calibration, functions=functions, arithmetics=arithmetics,
        img_rank=img_rank,
    )  # fmt: skip
    files = write_graphs(network.model, spec, network.loaded.lidar2img, tmp_path, "row", Weights(None, None, ""))
    subject = Subject(spec, files["model"], files.get("geometry"))
    report = Report(lambda line: None)
    assert check_file(subject, report), report.failures
    assert {entry.domain: entry.version for entry in subject.skeleton.opset_import}[""] == opset
    assert check_sample(subject, sample, report, "frame") is not None
    assert report.failures == []
    files["model"].unlink()
