"""Measures the standard forms of both operators at the sizes of the official network: one node of a level, time and memory of a run.

    python bench/standard_forms.py [--repeats 7] [--threads N]

Prints a table and writes bench/results/standard_forms.json. Each row runs in a process of its own, so that its peak memory is its own.
Whoever compares two figures takes both from one run: the machine may be shared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results/standard_forms.json"
OPSET = 20
FORMS = {"msda": ("gridsample", "gather"), "dcn": ("deformconv", "gridsample", "gather")}


class Attention(NamedTuple):
    """One attention node: images, heads, head width, queries, points, map."""

    A: int
    M: int
    D: int
    Q: int
    P: int
    hw: tuple[int, int]


class Convolution(NamedTuple):
    """One deformable convolution, 3x3, stride 1, padding 1: images, input and output channels, map."""

    A: int
    C: int
    hw: tuple[int, int]


# queries: the slots of a camera that the default budget gives the nuScenes rig
NODES: dict[str, Attention | Convolution] = {
    "attention, level 0": Attention(6, 8, 16, 21120, 2, (116, 200)),
    "attention, level 1": Attention(6, 8, 32, 2688, 4, (58, 100)),
    "attention, level 2": Attention(6, 8, 64, 384, 8, (29, 50)),
    "convolution, stage 3": Convolution(6, 256, (58, 100)),
    "convolution, stage 4": Convolution(6, 512, (29, 50)),
}


def measure(node: str, form: str, repeats: int, threads: int) -> dict[str, Any]:
    """One node in one form: seconds of a run (median), what its memory grows by at its peak, its number of operators."""
    from occport.session import open_session

    sizes = NODES[node]
    feeds, constants = attention_arrays(sizes) if isinstance(sizes, Attention) else convolution_arrays(sizes)
    model, output = one_node(sizes, form, feeds, constants)
    session = open_session(model, threads=threads)
    before = resident()
    session.run(feeds)
    row: dict[str, Any] = {"operators": len(model.graph.node), "output": output}
    row["memory MB"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        session.run(feeds)
        seconds.append(time.perf_counter() - begin)
    return {**row, "run ms": statistics.median(seconds) * 1e3, "fastest ms": min(seconds) * 1e3, "runs s": seconds}


def attention_arrays(sizes: Attention) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and constants of the narrow form; one point in ten outside the map."""
    random = np.random.default_rng(0)
    A, M, D, Q, P, (h, w) = sizes
    weights = random.random((A, Q, M, 1, P), np.float32)
    locations = random.random((A, Q, M, 1, P, 2), np.float32) * np.float32(1.1) - np.float32(0.05)
    feeds = {"value": random.random((A, h * w, M, D), np.float32), "sampling_locations": locations, "attention_weights": weights}
    return feeds, {"spatial_shapes": np.array([[h, w]], np.int64), "level_start_index": np.zeros(1, np.int64)}


def convolution_arrays(sizes: Convolution) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and constants; offsets within two pixels."""
    random = np.random.default_rng(0)
    A, C, hw = sizes
    offset = random.random((A, 18, *hw), np.float32) * np.float32(4) - np.float32(2)
    feeds = {"input": random.random((A, C, *hw), np.float32), "offset": offset, "mask": random.random((A, 9, *hw), np.float32)}
    return feeds, {"weight": random.random((C, C, 3, 3), np.float32) / np.float32(9 * C)}


def one_node(
    sizes: Attention | Convolution, form: str, feeds: Mapping[str, np.ndarray], constants: Mapping[str, np.ndarray]
) -> tuple[Any, list[int]]:
    """A model of the standard operators in the place of one canonical node, and the shape of its output."""
    import onnx_ir as ir

    from occport.graph import canonical
    from occport.graph.functions import Arithmetics
    from occport.graph.rewrite import inline_standard

    is_attention = isinstance(sizes, Attention)
    shape = [sizes.A, sizes.Q, sizes.M * sizes.D] if isinstance(sizes, Attention) else [sizes.A, sizes.C, *sizes.hw]
    number = ir.TensorType(ir.DataType.FLOAT)
    values = {name: ir.Value(name=name, type=number, shape=ir.Shape(array.shape)) for name, array in feeds.items()}
    for name, array in constants.items():
        values[name] = ir.Value(
            name=name, type=ir.TensorType(ir.DataType.from_numpy(array.dtype)), shape=ir.Shape(array.shape), const_value=ir.tensor(array)
        )
    order = canonical.SAMPLED_INPUTS if is_attention else canonical.DCN_INPUTS[:4]
    window: dict[str, Any] = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1, "deform_groups": 1}
    attributes = {} if is_attention else window
    output = ir.Value(name="output", type=number, shape=ir.Shape(shape))
    node = ir.Node(
        canonical.DOMAIN, canonical.SAMPLED if is_attention else canonical.DCN, [values[name] for name in order],
        ir.convenience.convert_attributes(attributes), outputs=[output], name="node",
    )  # fmt: skip
    graph = ir.Graph(
        [values[name] for name in feeds], [output], nodes=[node], initializers=[values[name] for name in constants],
        opset_imports={"": OPSET, canonical.DOMAIN: 1}, name="one_node",
    )  # fmt: skip
    model = ir.Model(graph, ir_version=10)
    inline_standard(model, OPSET, Arithmetics(msda=form) if is_attention else Arithmetics(dcn=form))
    return ir.to_proto(model), shape


def resident() -> int:
    """Memory of this process now, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        node, form = options.job
        print(json.dumps(measure(node, form, options.repeats, options.threads)))
        return
    rows = {}
    for node, sizes in NODES.items():
        for form in FORMS["msda" if isinstance(sizes, Attention) else "dcn"]:
            command = [sys.executable, __file__, "--repeats", str(options.repeats), "--threads", str(options.threads), "--job", node, form]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            rows[f"{node}, {form}"] = json.loads(done.stdout.splitlines()[-1])
    show(rows)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    table = {"machine": machine(), "opset": OPSET, "threads": options.threads, "repeats": options.repeats, "rows": rows}
    options.output.write_text(json.dumps(table, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}


def show(rows: dict[str, dict[str, Any]]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    columns = ("run ms", "fastest ms", "memory MB", "operators")
    table = Table(title="standard forms in ONNX Runtime")
    for column in ("", *columns):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[column]:.0f}" for column in columns))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
