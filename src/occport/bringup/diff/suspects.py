"""What the catalogue of known kernel bugs says about a custom node that is to blame: a shift by half a pixel has a name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, numpy_helper

from ...errors import ModelFileError
from ...export.network_file import NetworkFile
from ...graph.model_file import tensor_of
from ...graph.port_arrays import raise_arrays, raise_output
from ...kit.cases.case import Case, check
from ...kit.cases.golden import golden
from ...kit.grading.bugs.bug import Bug, scaled, wrong_output
from ...kit.grading.bugs.table import bugs
from ...kit.vectors.activations import CustomNode, Tap, custom_nodes
from ...kit.vectors.allowance import fitted, one_image
from ...kit.vectors.sampling import kept_outputs, sampled
from ..dumps.marks import custom_nodes_of
from .explain import Explainer, Finding

_BYTES = 2**21  # of the sample of an attention that bugs are tried on
_OUTPUTS = 8  # channels of each group of a convolution
_LIKE = 0.2  # of the difference that may be left where a bug explains it
_SEED = 0


def hint_of(file: NetworkFile, explainer: Explainer, nodes: Sequence[NodeProto], finding: Finding) -> str:
    """The known bug that explains most of a custom node's difference, in words; "" for other nodes, and where none does.

    A part of one image's output is computed in float64 with each bug of the kit's catalogue, from their inputs.

    Errors: ModelFileError for a node that is not as its contract says.
    """
    if len(nodes) != 1 or finding.got is None or all(node is not nodes[0] for node in custom_nodes_of(file)):
        return ""
    node = next((one for one in custom_nodes(file.model, file.dialect) if one.name == (nodes[0].name or nodes[0].output[0])), None)
    if node is None:
        return ""
    image = _image(finding)
    ports = {name: array for name, tap in node.taps.items() if (array := _array(file, explainer, tap)) is not None}
    if len(ports) < len(node.taps):
        return ""
    images = {name: array[image : image + 1] if node.taps[name].per_image else array for name, array in ports.items()}
    letters = _letters(node)
    sample = sampled(node, images, letters, _SEED)
    window = node.window
    attributes = {} if window is None else {name: value for name, value in window._asdict().items() if name != "kernel"}
    case = Case(node.name, node.operator, raise_arrays(node.contract, sample.ports), attributes, "")
    got = raise_output(node.contract, np.asarray(finding.got[image : image + 1], np.float64))
    try:
        check(case)
    except ModelFileError:
        return ""
    return _named(case, _cut(node, got, sample.facts, sample.queries, letters))


def _letters(node: CustomNode) -> dict[str, int]:
    """The sizes of the sample. A window cut out of a map would lose what taps read outside of it: maps stay whole."""
    if node.window is None:
        return fitted(node, _BYTES)
    return {**one_image(node), "O": min(node.letters["O"], _OUTPUTS * node.window.groups)}


def _image(finding: Finding) -> int:
    """The worst one, where that can be told."""
    worst = finding.worst
    if worst is None or worst.rows is None or not len(worst.rows) or 0 not in worst.kept:
        return 0
    return int(worst.rows[0, worst.kept.index(0)])


def _array(file: NetworkFile, explainer: Explainer, tap: Tap) -> np.ndarray | None:
    graph = file.model.graph
    if any(tensor.name == tap.value for tensor in graph.initializer):
        return tensor_of(file.model, tap.value, file.folder)
    maker = next((node for node in graph.node if tap.value in node.output), None)
    if maker is not None and maker.op_type == "Constant":
        return numpy_helper.to_array(maker.attribute[0].t)
    return explainer.load(tap.value)


def _cut(
    node: CustomNode, got: np.ndarray, facts: Mapping[str, Any], queries: np.ndarray | None, letters: Mapping[str, int]
) -> np.ndarray:  # fmt: skip
    """The part of one image's output that a sample is of."""
    if queries is not None:
        heads = got.reshape(1, got.shape[1], node.letters["M"], node.letters["D"])  # (1, Q, M*D) to (1, Q, M, D)
        return heads[:, queries, : letters["M"], : letters["D"]].reshape(1, len(queries), -1)
    assert node.window is not None
    outputs = kept_outputs(node.letters["O"], letters["O"], node.window.groups)
    rows, columns = (slice(facts[side]["from"], facts[side]["from"] + facts[side]["taken"]) for side in ("rows", "columns"))
    return got[:, outputs, rows, columns]


def _named(case: Case, got: np.ndarray) -> str:
    right = golden(case)
    if not np.isfinite(got).all() or got.shape != right.shape:
        return ""
    before = _rms(got - right)
    if before == 0:
        return ""
    factor = float(np.vdot(got, right)) / max(float(np.vdot(right, right)), 1e-300)
    candidates: list[Bug] = [*bugs(case.operator), scaled(case.operator, factor)]
    left = [(_rms(got - wrong_output(bug, case)), i) for i, bug in enumerate(candidates)]
    least, best = min((rest, i) for rest, i in left if not math.isnan(rest))
    if least > _LIKE * before:
        return ""
    return f"like the known bug {candidates[best].name}: {candidates[best].what}; look at {candidates[best].look_at}"


def _rms(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(array))))
