"""The written file, under test or in use: the very nodes and weights on disk, made runnable in memory.

Bodies of custom nodes and extra outputs (logits) are attached to a copy in memory whose weights stay in the file.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from ..errors import ModelFileError
from ..graph.model_file import read_skeleton
from ..graph.passes.volume_order import SUFFIX
from ..graph.precision.emulate import emulate
from ..graph.runnable import make_runnable
from ..session import Session, open_session
from .spec import Spec


class Subject:
    """A main file and, for `tables`, its geometry file. Arrays go in and out under the spec's own names, whatever the file calls them.

    Args:
        main: the main file.
        geometry: the geometry file of a `tables` export, else None. It always runs on the CPU, in float32.
        provider: what runs the main file, as `session.open_session` takes it; None means the CPU.
        threads: number of CPU threads; None leaves it to ONNX Runtime.
        rounding: what a 16-bit file computes is rounded as on a chip; without, its nodes compute in float32 with the same weights; names of
            values: these alone are rounded.
    """

    def __init__(
        self, spec: Spec, main: Path, geometry: Path | None, *, provider: str | None = None, threads: int | None = None,
        rounding: bool | Collection[str] = True,
    ) -> None:  # fmt: skip
        self.spec, self.main, self.geometry = spec, main, geometry
        self._provider, self._threads, self._rounding = provider, threads, rounding
        self.skeleton = read_skeleton(main)
        self._sessions: dict[str, Session] = {}

    def close(self) -> None:
        """Lets go of the sessions and their memory."""
        self._sessions.clear()

    def holds(self, name: str) -> bool:
        """Whether a value is inside the graph under this name, in the order of the outputs or in that of its voxels."""
        return any(value.name in (name, f"{name}{SUFFIX}") for value in self.skeleton.graph.value_info)

    def run(self, img: np.ndarray, lidar2img: np.ndarray) -> dict[str, np.ndarray]:
        """Runs ONNX Runtime on one sample.

        Args:
            img: (1, N, 3, H, W) float32.
            lidar2img: (1, N, 4, 4) float32.

        Returns:
            The file's outputs, `logits_scale0` … of every scale that the file holds, and `dropped` where there is one.
        """
        feeds, found = self._feeds(img, lidar2img)
        return {**found, **self.run_main(feeds)}

    def _feeds(self, img: np.ndarray, lidar2img: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The main file's inputs, and `dropped` where the geometry file tells it."""
        feeds = {"img": img.reshape(self.spec.input_shapes()["img"][1])}
        if self.spec.calibration == "runtime":
            feeds["lidar2img"] = lidar2img.reshape(self.spec.input_shapes()["lidar2img"][1])
        if self.spec.calibration != "tables":
            return feeds, {}
        tables = self.tables(lidar2img)
        dropped = tables.pop("dropped")
        return {**feeds, **tables}, {"dropped": dropped}

    def run_main(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the main file with all its inputs by the spec's names."""
        if "main" not in self._sessions:
            self._sessions["main"] = self._open(runnable(self.skeleton, self.spec, self._rounding))
        return self._named(self._sessions["main"], feeds)

    def run_only(self, img: np.ndarray, lidar2img: np.ndarray, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Runs what these outputs need and nothing else; the same numbers as from `run`.

        Args:
            img, lidar2img: as for `run`.
            outputs: names as `run` gives them.

        Returns: these, and `dropped` of a `tables` export whether asked for or not.
        Errors: ModelFileError for an output that the file does not hold, and what the sessions raise.
        """
        feeds, found = self._feeds(img, lidar2img)
        return {**found, **self._named(self.open_only(outputs), feeds)}

    def open_only(self, outputs: Sequence[str]) -> Session:
        """The session of `run_only`. Errors: as there."""
        key = " ".join(outputs)
        if key not in self._sessions:
            proto = runnable(self.skeleton, self.spec, self._rounding)
            there = {value.name for value in proto.graph.output}
            names = [self.spec.renamed(name) for name in outputs]
            turned = [f"{name}{SUFFIX}" for name in names]
            self._sessions[key] = self._open(trimmed(proto, [b if b in there else a for a, b in zip(names, turned, strict=True)]))
        return self._sessions[key]

    def _open(self, proto: onnx.ModelProto) -> Session:
        return open_session(proto, weights_folder=self.main.parent, threads=self._threads, provider=self._provider)

    def _named(self, session: Session, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a session by the spec's names."""
        back = {self.spec.renamed(name): name for name in self.spec.output_names}
        got = session.run({self.spec.renamed(name): array for name, array in feeds.items()})
        return {back[name] if name in back else name.removesuffix(SUFFIX): _in_order(name, array, back) for name, array in got.items()}

    def hits(self, lidar2img: np.ndarray) -> dict[str, np.ndarray]:
        """The index tables that the attention layers of a `runtime` file read, and `dropped`; only the nodes that make them are run.

        Args:
            lidar2img: (1, N, 4, 4) float32.

        Returns:
            level0_slots (A, K), level0_back (R, V), … int64, dropped (1, levels).
        """
        wanted = hit_values(self.skeleton, len(self.spec.config.levels))
        if "dropped" in self.spec.output_names:
            wanted["dropped"] = self.spec.renamed("dropped")
        if "hits" not in self._sessions:
            self._sessions["hits"] = open_session(part(self.skeleton, list(wanted.values())), weights_folder=self.main.parent)
        feed = lidar2img.reshape(self.spec.input_shapes()["lidar2img"][1])
        got = self._sessions["hits"].run({self.spec.renamed("lidar2img"): feed})
        return {name: got[value] for name, value in wanted.items()}

    def tables(self, lidar2img: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the geometry file: (1, N, 4, 4) → the tables and `dropped`."""
        assert self.geometry is not None
        if "geometry" not in self._sessions:
            self._sessions["geometry"] = open_session(self.geometry, threads=self._threads)
        shape = (1, *lidar2img.shape[1:])[4 - self.spec.lidar2img_rank :]
        back = {self.spec.renamed(name): name for name in self.spec.geometry_output_names}
        got = self._sessions["geometry"].run({self.spec.renamed("lidar2img"): lidar2img.reshape(shape)})
        return {back.get(name, name): array for name, array in got.items()}


def _in_order(name: str, array: np.ndarray, declared: Container[str]) -> np.ndarray:
    """A value from inside the graph in the axis order of the outputs; a view."""
    return array.swapaxes(-1, -3) if name.endswith(SUFFIX) and name not in declared else array


def runnable(skeleton: onnx.ModelProto, spec: Spec, rounding: bool | Collection[str] = True) -> onnx.ModelProto:
    """A copy with bodies for its custom nodes, and with every scale's logits as outputs; nodes and weights are the same.

    What has 16 bits is float32 in the copy, rounded or not (`graph.precision.emulate`).

    Logits that the graph has in the order of its voxels keep it, and the suffix that tells so.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(skeleton)
    emulate(proto, rounding=rounding)
    make_runnable(proto, spec.dialect)
    outputs = {value.name for value in proto.graph.output}
    for info in proto.graph.value_info:
        if info.name.startswith("logits_scale") and spec.renamed(info.name.removesuffix(SUFFIX)) not in outputs:
            proto.graph.output.append(info)
    return proto


def hit_values(skeleton: onnx.ModelProto, levels: int) -> dict[str, str]:
    """Where the index tables are in a `runtime` file: level0_slots, level0_back, … → name of the value that the first layer reads."""
    gathers = {node.name: node.input[1] for node in skeleton.graph.node if node.op_type == "Gather"}
    found = {}
    for level in range(levels):
        layer = f"pts_bbox_head_transformer_{level}_encoder_layers_0_attentions_0_"
        for field, name in (("slots", f"{layer}deformable_attention_Gather"), ("back", f"{layer}Gather")):
            if name in gathers:
                found[f"level{level}_{field}"] = gathers[name]
    return found


def trimmed(proto: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """The model with these outputs only, and without the nodes that nothing of it needs; in place. Inputs and weights stay.

    Errors: ModelFileError for an output that it does not have.
    """
    there = {value.name: value for value in proto.graph.output}
    unknown = [name for name in outputs if name not in there]
    if unknown:
        raise ModelFileError(f"output {unknown[0]!r} of {proto.graph.name}", expected=f"one of {', '.join(there)}", got="an unknown name")
    kept = [there[name] for name in outputs]
    nodes = _needed(proto, set(outputs))
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def _needed(proto: onnx.ModelProto, wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes that the wanted values need, in order; their inputs are added to `wanted`."""
    nodes = []
    for node in reversed(proto.graph.node):
        if wanted & set(node.output):
            nodes.append(node)
            wanted |= set(node.input)
    return nodes[::-1]


def part(skeleton: onnx.ModelProto, outputs: list[str]) -> onnx.ModelProto:
    """The sub-model that makes the named values: the same nodes and weights, and nothing else."""
    wanted = set(outputs)
    graph = onnx.helper.make_graph(
        _needed(skeleton, wanted),
        "part",
        [value for value in skeleton.graph.input if value.name in wanted],
        [value for value in (*skeleton.graph.value_info, *skeleton.graph.output) if value.name in outputs],
        [tensor for tensor in skeleton.graph.initializer if tensor.name in wanted],
    )
    return onnx.helper.make_model(graph, opset_imports=skeleton.opset_import, ir_version=skeleton.ir_version)
