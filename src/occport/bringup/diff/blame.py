"""The first node that diverges beyond what its inputs' error and dtype explain.

Each tensor that they dumped is held against what ONNX Runtime makes, in float32, of THEIR tensors nearest before it. What went wrong
earlier is in both and counts no more. What is left has to be rounding, which runs with rounding errors put in tell the size of
(`noise.py`), row by row (`significance.py`). Voxels that stand on an image's border may be seen by one and not by the other; their own
table says which, and everything behind it is held against a table made from it (`boundary.py`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from ...errors import ModelFileError
from ...export.network_file import NetworkFile
from ...graph.contract import TWIN_DOMAIN
from ...graph.stages import stages_of
from ...graph.submodel import needed
from ...progress import Progress
from ..dumps.index import Index
from ..dumps.marks import custom_nodes_of
from .boundary import Boundary, boundary_of
from .explain import Explainer, Finding
from .places import place_words
from .products import products_of
from .regions import Region, regions_of
from .result import Blame
from .rows import Match
from .suspects import hint_of

_HINTED = 2  # custom nodes that the known bugs of kernels are tried on
_NAMED = 4  # nodes that a line names
_WRONG = 20  # regions with something wrong, after which the rest is not worth the time
_ADVISED = ("tf32", "bf16")  # from the finer to the coarser
_MANY, _ASKED = 3, 4  # of them: so many ask for the kernels' way of multiplying; it is tried on the first few
_MOST = 0.7  # of these that it has to explain


@dataclass(frozen=True)
class Judgement:
    """What the blame comes to.

    Attributes:
        blamed: the first node, then further ones that their own inputs do not explain, in graph order; () where all is explained.
        ratios: tensor → its difference over what is explained, both root mean square, in the worst row; above 1: not explained.
        judged: how, in one line.
        advice: what may explain all of it at once; "" for nothing.
    """

    blamed: tuple[Blame, ...]
    ratios: Mapping[str, float]
    judged: str
    advice: str = ""


def judge(
    file: NetworkFile, index: Index, golden: Callable[[str], NDArray[np.generic]],
    theirs: Callable[[str], NDArray[np.generic] | None], dtypes: Mapping[str, str], progress: Progress, math_mode: str | None = None,
    shifted: Mapping[str, Match] | None = None,
) -> Judgement:  # fmt: skip
    """Finds the nodes to blame.

    Args:
        file: the network.
        index: of the golden folder.
        golden: tensor → the golden array.
        theirs: tensor → their array in the golden layout, float32, int64 or bool, rows in their own slot order; None: not dumped.
        dtypes: tensor → what they stored it as ("float16", "bfloat16", "int8", ...), for each that they dumped.
        progress: gets notes only.
        math_mode: how their kernels round factors of products, a key of MATH; None: not more than their dumps show.
        shifted: slot tables that they did not dump → how the rows of their tensors are shifted against ours.

    Errors: UserError where a golden array cannot be read.
    """
    graph = file.model.graph
    inputs = set(file.input_names)
    given: dict[str, np.ndarray] = {name: golden(name) for name in file.input_names if name not in dtypes}
    bound = boundary_of(file, index, given, theirs, dtypes, shifted or {})
    if bound is not None:
        given[bound.hits_name] = bound.hits
    made = [name for node in graph.node for name in node.output if name in dtypes and name not in inputs]
    explainer = Explainer(file, theirs, given, dtypes, products_of(file, math_mode) if math_mode else None)
    ratios: dict[str, float] = {}
    blamed: list[Blame] = []
    hinted = 0
    custom = {name for node in custom_nodes_of(file) for name in node.output}
    unjudged: list[str] = []
    wrong: list[Region] = []
    for region in regions_of(graph, {*given, *inputs, *made}, made):
        if len(blamed) >= _WRONG:
            unjudged += region.outputs
            continue
        findings = _findings(explainer, region, progress)
        unjudged += [name for name in region.outputs if name not in {one.tensor for one in findings}]
        for finding in findings:
            if math.isnan(finding.ratio):
                unjudged.append(finding.tensor)
                continue
            ratios[finding.tensor] = finding.ratio
            if finding.ratio > 1:
                wrong += [region] * (region not in wrong[-1:])
                known = finding.tensor in custom
                blamed.append(blame_of(file, index, explainer, region, finding, hinted=known and hinted < _HINTED))
                hinted += known
    if bound is not None:
        blamed += _of_table(bound, file, ratios)
    order = {name: i for i, name in enumerate(made)}
    blamed.sort(key=lambda one: order.get(one.tensor, 0))
    advice = math_advice(file, explainer, wrong[:_ASKED]) if len(wrong) >= _MANY and math_mode is None else ""
    return Judgement(tuple(blamed), ratios, _judged(ratios, unjudged, bound, explainer), advice)


def _findings(explainer: Explainer, region: Region, progress: Progress) -> list[Finding]:
    try:
        return explainer.judged(region)
    except ModelFileError as error:
        progress.note(f"{region.outputs[0]} cannot be judged: {error}")
        return []


def math_advice(file: NetworkFile, explainer: Explainer, wrong: Sequence[Region]) -> str:
    """What to try where kernels that round factors would explain most of some regions; "" where none would."""
    for mode in _ADVISED:
        rounding = explainer.with_products(products_of(file, mode))
        explained = sum(all(finding.ratio <= 1 for finding in rounding.judged(region)) for region in wrong)
        if explained > _MOST * len(wrong):
            return f"rounding the factors of products as in {mode} would explain this: if their kernels do so, give --math {mode}"
    return ""


def blame_of(
    file: NetworkFile, index: Index, explainer: Explainer, region: Region, finding: Finding, *, advice: str = "dump", hinted: bool = True
) -> Blame:
    """A finding in words.

    Args:
        advice: what to do with a tensor in between to narrow several nodes down; "" for none.
        hinted: try the known bugs of kernels on a custom node, which can take half a minute.

    Errors: ModelFileError for a custom node that is not as its contract says.
    """
    graph = file.model.graph
    numbers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    nodes = [node for node in needed(graph, set(region.reads), [finding.tensor])[0] if numbers[_first(node.output)] in region.nodes]
    names = tuple(node.name or _first(node.output) for node in nodes)
    types = tuple(f"{node.domain}::{node.op_type}" if node.domain not in ("", TWIN_DOMAIN) else node.op_type for node in nodes)
    stage = stages_of(graph)[finding.tensor]
    place = place_words(index, explainer.load, finding)
    hint = hint_of(file, explainer, nodes, finding) if hinted else ""
    who = f"{names[0]} ({types[0]})"
    who = who if len(nodes) == 1 else f"one of {len(nodes)} nodes, {who} to {names[-1]} ({types[-1]})"
    narrower = "" if len(nodes) == 1 or not advice else f"; {advice} {_middle(nodes)} to narrow it down"
    times = "" if not math.isfinite(finding.ratio) else f", {finding.ratio:,.3g} times what rounding explains"
    what = "its output" if names == (finding.tensor,) else finding.tensor
    words = f"{who} in {stage}: {what} does not follow from its inputs{times}; {place}{'; ' + hint if hint else ''}{narrower}"
    return Blame(names, types, stage, finding.tensor, finding.ratio, place, words)


def _first(names: Iterable[str]) -> str:
    return next(name for name in names if name)


def _middle(nodes: Sequence[NodeProto]) -> str:
    """The tensor that halves a row of nodes."""
    return _first(nodes[(len(nodes) - 1) // 2].output)


def _of_table(bound: Boundary, file: NetworkFile, ratios: dict[str, float]) -> list[Blame]:
    """Voxels that only one of both sees, where that is no matter of rounding."""
    if bound.ratio <= 1:
        return []
    ratios[bound.tensor] = max(ratios.get(bound.tensor, 0.0), bound.ratio)
    stage = stages_of(file.model.graph)[bound.hits_name]
    words = f"{bound.node} ({bound.op_type}) or before it in {stage}: {bound.words}; look at the projection"
    return [Blame((bound.node,), (bound.op_type,), stage, bound.tensor, bound.ratio, bound.place, words)]


def _judged(ratios: Mapping[str, float], unjudged: list[str], bound: Boundary | None, explainer: Explainer) -> str:
    kinds = Counter(explainer.rounding(name).name for name in ratios).most_common() or [("float32", 0)]
    rounding = ", ".join([kinds[0][0], *(f"{count} of them as in {kind}" for kind, count in kinds[1:])])
    line = f"{len(ratios)} tensors against what ONNX Runtime makes in float32 of their own inputs, rounding as in {rounding}"
    if explainer.products is not None:
        line += f", factors of products as in {explainer.products.rounding.name}"
    if bound is not None and bound.flips and bound.ratio <= 1:
        line += f"; {bound.words}"
    if unjudged:
        line += f"; {len(unjudged)} not judged ({', '.join(unjudged[:_NAMED])}{', ...' if len(unjudged) > _NAMED else ''})"
    return line
