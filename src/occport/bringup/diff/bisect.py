"""Drives somebody's runtime on ever smaller parts of a network until the node is left that it gets wrong.

The nodes from a first to a last one are run by it as a file of their own, from our own tensors at its beginning, so that nothing that it
did before counts. Of two halves the first that is wrong is halved again. What is wrong is told as for dumps (`explain.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from ...errors import UserError
from ...export.network_file import NetworkFile
from ...progress import Progress
from ..dumps.golden import planned
from ..dumps.index import Entry, Index
from ..walk import walk
from .bisect_run import Command
from .blame import blame_of, math_advice
from .explain import Explainer, Finding
from .figures import figures_of
from .layout import Fitted
from .products import Products, products_of
from .regions import Region, live_nodes
from .result import Blame, Result, TensorDiff


@dataclass(frozen=True, eq=False)
class Tried:
    """One run of theirs.

    Attributes:
        region: what was run.
        findings: one for each output.
        explainer: holds their arrays.
    """

    region: Region
    findings: tuple[Finding, ...]
    explainer: Explainer

    @property
    def wrong(self) -> list[Finding]:
        """Outputs that do not follow from the inputs; what could not be judged is one, too."""
        return [one for one in self.findings if not one.ratio <= 1]


def bisect(
    file: NetworkFile, index: Index, golden: Callable[[str], NDArray[np.generic]], command: str, timeout: float, progress: Progress,
    math_mode: str | None = None,
) -> Result:  # fmt: skip
    """Finds the first node that a runtime gets wrong.

    Args:
        file: the network.
        index: of the golden folder.
        golden: input of the model → its array.
        command: with {model}, {inputs} and {outputs}.
        timeout: seconds of one run.
        math_mode: how their kernels round factors of products, a key of MATH; None: as in float32, or as their outputs show.

    Returns: tensors that were compared, each as it was last; the node in `blamed`, () where the whole is right.
    Errors: UserError as of `Command`.
    """
    products = products_of(file, math_mode) if math_mode else None
    search = _Search(file, {name: golden(name) for name in file.input_names}, Command(command, timeout), index, products)
    with progress.stage("the whole network"):
        last = search.tried(0, len(search.live))
    if not last.wrong:
        words = "the whole network, run by it, gives what ONNX Runtime does, apart from rounding"
        return search.result(index, (), words)
    first, end, whole = 0, len(search.live), last
    words = ""
    while end - first > 1:
        middle = (first + end) // 2
        with progress.stage(f"nodes {first} to {middle} of {len(search.live)}"):
            one = search.tried(first, middle)
        if one.wrong:
            end, last = middle, one
            continue
        with progress.stage(f"nodes {middle} to {end} of {len(search.live)}"):
            two = search.tried(middle, end)
        if not two.wrong:
            words = (
                f"nodes {first} to {end} are wrong when run together, and right as two halves, cut at node {middle}: "
                "what it does across the cut (a fusion, a layout, memory that is used again) is to blame"
            )
            break
        first, last = middle, two
    found = blame_of(file, index, last.explainer, last.region, max(last.wrong, key=lambda one: one.ratio), advice="")
    line = words or f"{search.runs} runs; {len(whole.wrong)} outputs of the whole network were wrong"
    blamed = replace(found, words=f"{found.words}; {words}" if words else found.words)
    advice = "" if math_mode else math_advice(file, last.explainer, [last.region])
    return search.result(index, (blamed,), line, advice)


class _Search:
    """Runs parts and keeps what came out."""

    def __init__(
        self, file: NetworkFile, feeds: Mapping[str, np.ndarray], command: Command, index: Index, products: Products | None
    ) -> None:  # fmt: skip
        self._file, self._feeds, self._command, self._index, self._products = file, feeds, command, index, products
        self.live: Sequence[int] = live_nodes(file.model.graph)
        self._entries = {entry.name: entry for entry in planned(file, ("all",), "npy")}
        self._seen: dict[str, TensorDiff] = {}
        self.ratios: dict[str, float] = {}
        self.runs = 0

    def tried(self, first: int, end: int) -> Tried:
        """Has the live nodes from number `first` to `end` (exclusive) run."""
        region = self._region(self.live[first:end])
        if not region.outputs:
            fix = "dump tensors and compare them"
            raise UserError(f"nodes {first} to {end}", expected="an output", got="none that anything reads", fix=fix)
        wanted = {*region.reads, *region.outputs}
        ours = dict(walk(self._file, self._feeds, wanted))
        feeds = {name: ours[name] for name in region.reads}
        outputs = {name: self._entries[name] for name in region.outputs}
        got = self._command.run(self._file, feeds, outputs, {name: ours[name] for name in region.outputs}, region.outputs)
        self.runs += 1
        arrays = {name: one.array for name, one in got.items()}
        explainer = Explainer(self._file, arrays.get, feeds, {name: one.dtype for name, one in got.items()}, self._products)
        findings = tuple(explainer.judged(region))
        self._note(findings, ours, got, outputs)
        return Tried(region, findings, explainer)

    def _region(self, numbers: Sequence[int]) -> Region:
        graph, known = self._file.model.graph, self._entries
        nodes: list[NodeProto] = [graph.node[i] for i in numbers]
        made = [name for node in nodes for name in node.output if name]
        inside, last = set(numbers), {info.name for info in graph.output}
        later = {name for i in self.live if i not in inside for name in graph.node[i].input} | last
        later |= {node.input[0] for node in nodes if node.op_type == "ArgMax"}  # labels alone hide much
        reads = sorted({name for node in nodes for name in node.input if name in known} - set(made))
        return Region(tuple(name for name in made if name in known and name in later), tuple(reads), tuple(numbers))

    def _note(
        self, findings: Sequence[Finding], ours: Mapping[str, np.ndarray], got: Mapping[str, Fitted], outputs: Mapping[str, Entry]
    ) -> None:  # fmt: skip
        for finding in findings:
            name, fit = finding.tensor, got[finding.tensor]
            status = "equal" if np.array_equal(fit.array, ours[name]) else "explained" if finding.ratio <= 1 else "differs"
            figures = figures_of(outputs[name], ours[name], fit.array, self._index, None)
            self._seen[name] = TensorDiff(outputs[name], status, fit.note, fit.dtype, figures)
            self.ratios[name] = finding.ratio

    def result(self, index: Index, blamed: tuple[Blame, ...], words: str, advice: str = "") -> Result:
        """What is handed back."""
        order = {name: i for i, name in enumerate(self._entries)}
        tensors = tuple(self._seen[name] for name in sorted(self._seen, key=lambda name: order[name]))
        return Result("", "", index.model, tensors, blamed, words, (advice,) * bool(advice), self.ratios)
