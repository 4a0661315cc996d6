"""The float32 graph of a 16-bit file, made anew from the network: what the file is held against, exactly."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..graph.precision.same_graph import compare_graphs
from ..graph.precision.types import EXACT, PRECISIONS
from ..model.surroundocc import SurroundOcc
from .graph_files import write_graphs
from .report import Report
from .spec import Spec
from .subject import Subject
from .weights import Weights


def scratch_of(path: Path) -> Path | None:
    """Where files that go away again have room: beside a file; None, the system's own place, where nobody may write there."""
    return path.parent if os.access(path.parent, os.W_OK) else None


@contextmanager
def float_twin(subject: Subject, model: SurroundOcc, lidar2img: np.ndarray) -> Iterator[Subject]:
    """The same export in float32, in a folder that goes away.

    Args:
        subject: a 16-bit file.
        model: its network in PyTorch, float32.
        lidar2img: (1, N, 4, 4) float32, what a `fixed` file has baked in.
    """
    spec = replace(subject.spec, precision=EXACT)
    with tempfile.TemporaryDirectory(prefix=".float32-", dir=scratch_of(subject.main)) as folder:
        files = write_graphs(model, spec, lidar2img, Path(folder), "float32", Weights(None, None, ""))
        twin = Subject(spec, files["model"], files.get("geometry"))
        try:
            yield twin
        finally:
            twin.close()


def check_twin(subject: Subject, twin: Subject, report: Report) -> None:
    """Reports whether a 16-bit file is its float32 graph: node by node, weight by weight, and which custom nodes have no such kernel."""
    spec = subject.spec
    folders = subject.main.parent, twin.main.parent
    found = compare_graphs(subject.skeleton, folders[0], twin.skeleton, folders[1], spec.precision, spec.dialect)
    kept = custom_in_float32(spec, subject)
    good = f"{found.described}{'; ' if kept else ''}{kept}"
    report.findings(f"the float32 graph, in {spec.precision}", list(found.findings), good)


def custom_in_float32(spec: Spec, subject: Subject) -> str:
    """Which custom nodes keep float32, as their kernels have nothing else; "" for none."""
    name = PRECISIONS[spec.precision].name
    kept = {one.title: one for one in (spec.dialect.msda, spec.dialect.dcn) if one is not None and name not in one.dtypes}
    found = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in subject.skeleton.graph.node)
    counts = [f"{found[title]} {title}" for title in kept if found[title]]
    return f"{' and '.join(counts)} in float32, as dialect {spec.dialect.name} has no kernel for {name}" if counts else ""
